/* shard/hub.c - all threads of a hub: makes them, starts them, ends them; implements ringhub.h.
 *
 *   create   self-test of io_uring, listening sockets bound (so a port in use is said at once)
 *   start    a thread per shard, which makes its own ring; waits until every shard accepts
 *   reload   a snapshot of what may change to all, as CONFIG
 *   stop     DRAIN to all ─► all report QUIET, and all again ─► STOP to all ─► join
 *
 * The control thread is whoever calls rh_hub_reload or rh_hub_stop, one at a time: it is a member of
 * the net behind the shards, so that even the end of a hub goes through the rings.
 *
 * A shard that has no connection, no credit out and no spill answers DRAIN with QUIET; newcomers,
 * which are only refused, do not count. Once all have, nothing new can set out, but what one sent
 * before it answered may have given something to do to another, which had answered earlier. So all
 * are asked a second time, and accept nobody any more: who is quiet then, without newcomers too, has
 * been given all there was. Rounds are numbered, so that no late answer counts for the next one.
 */
#include "core/ringhub.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/base.h"
#include "core/clock.h"
#include "core/config.h"
#include "core/err.h"
#include "core/id.h"
#include "core/limit.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/machine.h"
#include "core/mem.h"
#include "core/rand.h"
#include "core/thread.h"
#include "shard/capacity.h"
#include "shard/shard.h"

#define NODE_LEN 12
#define POLL_MS  5

enum phase { IDLE, RUNNING, STOPPED };

struct hub_thread {
    struct rh_hub *hub;
    struct rh_thread thread;
    struct rh_fault fault;
    int rc;
    bool started, ready;  /* under the hub's lock */
    uint64_t quiet_round; /* control thread's: the last DRAIN that it answered with QUIET */
};

struct rh_hub {
    struct rh_snapshot *snapshot; /* the newest one; under `control` */
    struct rh_limits *limits;
    struct rh_net *net;
    struct rh_shard_env env;
    struct rh_promises promises;
    unsigned shards;
    struct rh_capacity capacity;
    struct rh_fault not_direct; /* why, if so */
    char node[NODE_LEN + 1];
    char address[RH_LISTEN_MAX][RH_ADDR_TEXT];
    int (*listeners)[RH_LISTEN_MAX]; /* by shard; -1 when the shard has taken it */
    struct rh_shard *all[RH_SHARDS_MAX];
    struct hub_thread threads[RH_SHARDS_MAX];
    bool owns_log;

    pthread_mutex_t control; /* who is the control thread */
    pthread_mutex_t lock;    /* phase, ready, go */
    pthread_cond_t changed;
    enum phase phase;
    bool go; /* all shards are there: begin; or, with phase STOPPED, end */
};

static const struct rh_config *config_of(const struct rh_hub *hub)
{
    return hub->snapshot->cfg;
}

/* ---- create ---- */

static void copy_address(const struct rh_listen *from, struct rh_addr *to)
{
    memset(to, 0, sizeof(*to));
    memcpy(&to->at, &from->addr, from->addr_len);
    to->len = from->addr_len;
}

/* One socket per shard for each address; the first one finds out whether the port is free. */
static int bind_all(struct rh_hub *hub, struct rh_fault *fault)
{
    const struct rh_listen_list *listen = &config_of(hub)->listen;

    for (unsigned i = 0; i < listen->count; i++) {
        struct rh_addr addr;

        copy_address(&listen->at[i], &addr);
        for (unsigned k = 0; k < hub->shards; k++) {
            int rc = rh_sock_listen(&addr, k == 0, &hub->listeners[k][i], fault);

            if (rc < 0)
                return rc;
        }
        rh_addr_print(&addr, hub->address[i]);
    }
    return RH_OK;
}

static void wake_member(void *arg, unsigned tid)
{
    struct rh_hub *hub = arg;

    if (tid < hub->shards)
        rh_shard_wake_any(hub->all[tid]);
    /* the control thread polls while it stops the hub */
}

/* Which descriptors, and how many connections. */
static int measure(struct rh_hub *hub, const struct rh_config *cfg, struct rh_fault *fault)
{
    struct rh_machine m = {
        .memory = rh_machine_memory(),
        .descriptors = rh_machine_descriptors(),
        .direct = rh_uring_selftest_direct(&hub->not_direct) == RH_OK,
        .why = hub->not_direct.text,
    };
    int rc = rh_capacity(cfg, &m, &hub->capacity, fault);

    hub->env.files = hub->capacity.files;
    hub->env.connections_max = hub->capacity.room;
    return rc;
}

static int hub_init(struct rh_hub *hub, const struct rh_config *cfg, struct rh_fault *fault)
{
    uint8_t random[NODE_LEN / 2];
    struct rh_config *copy = NULL;
    int rc = rh_config_copy(cfg, &copy);

    if (rc == RH_OK)
        hub->snapshot = rh_snapshot_make(copy);
    if (!hub->snapshot) {
        rh_config_destroy(copy);
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the configuration");
    }
    hub->shards = cfg->shards;
    rh_rand_bytes(random, sizeof(random));
    rh_hex(hub->node, random, sizeof(random));
    rh_rand_bytes(&hub->env.hash_key, sizeof(hub->env.hash_key));
    hub->listeners = rh_mem_alloc(hub->shards * sizeof(*hub->listeners));
    if (!hub->listeners)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the hub");
    memset(hub->listeners, 0xff, hub->shards * sizeof(*hub->listeners)); /* all -1 */
    if (rh_limit_create(&hub->limits) < 0)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the hub");
    rc = rh_net_create(hub->shards + 3, wake_member, hub, &hub->net);
    if (rc < 0)
        return rh_fault_set(fault, rc, "no memory for the rings between threads");
    hub->env.snapshot = hub->snapshot;
    hub->env.limits = hub->limits;
    hub->env.net = hub->net;
    hub->env.shards = hub->shards;
    hub->env.crowd = (hub->shards + rh_thread_cpus() - 1) / rh_thread_cpus();
    hub->env.control = hub->shards;
    hub->env.ack = hub->shards + 1;
    hub->env.record = hub->shards + 2;
    hub->env.promises = &hub->promises;
    hub->env.node = hub->node;
    hub->env.all = hub->all;
    rc = measure(hub, cfg, fault);
    return rc < 0 ? rc : bind_all(hub, fault);
}

int rh_hub_create(const struct rh_config *cfg, struct rh_hub **ret_hub, struct rh_fault *fault)
{
    int rc = rh_config_check(cfg, fault);
    struct rh_hub *hub;

    if (rc == RH_OK)
        rc = rh_uring_selftest(fault);
    if (rc < 0)
        return rc;
    hub = rh_mem_zalloc(sizeof(*hub));
    if (!hub)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the hub");
    pthread_mutex_init(&hub->control, NULL);
    pthread_mutex_init(&hub->lock, NULL);
    pthread_cond_init(&hub->changed, NULL);
    rc = hub_init(hub, cfg, fault);
    if (rc < 0) {
        rh_hub_destroy(hub);
        return rc;
    }
    *ret_hub = hub;
    return RH_OK;
}

/* ---- threads ---- */

/* Says how our creation went, and waits for the word to begin. True: begin. */
static bool report_ready(struct hub_thread *t, int rc)
{
    struct rh_hub *hub = t->hub;
    bool begin;

    pthread_mutex_lock(&hub->lock);
    t->rc = rc;
    t->ready = true;
    pthread_cond_broadcast(&hub->changed);
    while (!hub->go)
        pthread_cond_wait(&hub->changed, &hub->lock);
    begin = hub->phase == RUNNING && rc == RH_OK;
    pthread_mutex_unlock(&hub->lock);
    return begin;
}

static void shard_thread(void *arg)
{
    struct hub_thread *t = arg;
    struct rh_hub *hub = t->hub;
    unsigned tid = (unsigned)t->thread.tid;
    int rc;

    rh_log_thread_init();
    rc = rh_shard_create(&hub->env, tid, hub->listeners[tid], &hub->all[tid], &t->fault);
    if (report_ready(t, rc)) {
        struct rh_shard *sh = hub->all[tid];

        rh_log(RH_LOG_DEBUG, "shard.started", RH_KU("shard", tid));
        while (rh_shard_pass(sh))
            rh_shard_wait(sh);
        rh_log(RH_LOG_DEBUG, "shard.stopped", RH_KU("shard", tid));
    }
    rh_log_thread_fini();
}

/* Waits until every thread that was started has reported; the worst result is returned. */
static int wait_ready(struct rh_hub *hub, struct rh_fault *fault)
{
    int rc = RH_OK;

    pthread_mutex_lock(&hub->lock);
    for (unsigned i = 0; i < hub->shards; i++) {
        struct hub_thread *t = &hub->threads[i];

        while (t->started && !t->ready)
            pthread_cond_wait(&hub->changed, &hub->lock);
        if (rc == RH_OK && t->rc < 0) {
            rc = t->rc;
            if (fault)
                *fault = t->fault;
        }
    }
    hub->phase = rc == RH_OK ? RUNNING : STOPPED;
    hub->go = true;
    pthread_cond_broadcast(&hub->changed);
    pthread_mutex_unlock(&hub->lock);
    return rc;
}

static void join_all(struct rh_hub *hub)
{
    for (unsigned i = 0; i < hub->shards; i++) {
        if (hub->threads[i].started)
            rh_thread_join(&hub->threads[i].thread);
        hub->threads[i].started = false;
    }
}

static void start_thread(struct rh_hub *hub, unsigned i)
{
    struct hub_thread *t = &hub->threads[i];
    char name[32];
    int rc;

    snprintf(name, sizeof(name), "rh-shard-%u", i); /* cut to what the kernel takes */
    t->hub = hub;
    rc = rh_thread_start(&t->thread, (int)i, name, shard_thread, t);
    t->started = rc == RH_OK;
    if (!t->started) /* else rc is the thread's to write, under the lock */
        t->rc = rh_fault_set(&t->fault, rc, "cannot start a thread");
}

static void log_capacity(const struct rh_capacity *c)
{
    const char *descriptors = c->files ? "direct" : "ordinary";

    if (c->computed)
        rh_log(RH_LOG_INFO, "limits.computed", RH_KU("connections", c->connections),
               RH_KS("bound_by", c->bound), RH_KS("descriptors", descriptors),
               RH_KS("hint", c->hint));
    else if (c->reachable < c->connections)
        rh_log(RH_LOG_WARN, "limits.unreachable", RH_KU("connections", c->connections),
               RH_KU("reachable", c->reachable), RH_KS("descriptors", descriptors),
               RH_KS("hint", c->hint));
}

static void log_started(const struct rh_hub *hub)
{
    rh_log(RH_LOG_INFO, "hub.started", RH_KS("version", RH_VERSION), RH_KS("node", hub->node),
           RH_KU("shards", hub->shards), RH_KS("listen", hub->address[0]));
    log_capacity(&hub->capacity);
    if (config_of(hub)->auth_mode == RH_AUTH_NONE && config_of(hub)->auth_allow_insecure)
        rh_log(RH_LOG_WARN, "auth.insecure",
               RH_KS("hint", "auth.mode is none: everybody who reaches this hub is who they say"));
}

int rh_hub_start(struct rh_hub *hub, struct rh_fault *fault)
{
    const struct rh_config *cfg = config_of(hub);
    int rc;

    if (hub->phase != IDLE)
        return rh_fault_set(fault, RH_ESTATE, "this hub was started before");
    rc = rh_log_start(cfg->log_level, cfg->log_format, cfg->log_file, fault);
    hub->owns_log = rc == RH_OK;
    if (rc < 0 && rc != RH_ESTATE) /* another hub of this process has started it: fine */
        return rc;
    for (unsigned i = 0; i < hub->shards; i++)
        start_thread(hub, i);
    rc = wait_ready(hub, fault);
    if (rc < 0)
        join_all(hub);
    else
        log_started(hub);
    return rc;
}

/* ---- reload ---- */

/* Sends the snapshot to every shard; nobody gets it when there is no memory. */
static int send_snapshot(struct rh_hub *hub, struct rh_snapshot *s)
{
    struct rh_mesh *mesh = rh_net_member(hub->net, hub->env.control);

    for (unsigned i = 0; i < hub->shards; i++)
        if (rh_mesh_reserve(mesh, i, 1) < 0)
            return RH_ENOMEM;
    for (unsigned i = 0; i < hub->shards; i++) {
        struct rh_event ev = {.kind = RH_EV_CONFIG, .msg = s};
        int rc;

        rh_snapshot_hold_any(s);
        rc = rh_mesh_tell(mesh, i, &ev);
        rh_assert(rc == RH_OK); /* reserved */
    }
    rh_mesh_publish(mesh);
    return RH_OK;
}

static int reload_running(struct rh_hub *hub, const struct rh_config *want,
                          struct rh_config_changes *ret_changes, struct rh_fault *fault)
{
    struct rh_config *next = NULL;
    struct rh_snapshot *s = NULL;
    int tid = rh_tid_self();
    int rc = rh_config_reload(config_of(hub), want, &next, ret_changes);

    if (rc == RH_OK)
        s = rh_snapshot_make(next);
    if (!s) {
        rh_config_destroy(next);
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the configuration");
    }
    rh_tid_set((int)hub->env.control);
    rc = send_snapshot(hub, s);
    rh_tid_set(tid);
    if (rc < 0) {
        rh_snapshot_drop_any(s);
        return rh_fault_set(fault, rc, "no memory for telling the shards");
    }
    rh_log_set_level_any(next->log_level);
    rh_snapshot_drop_any(hub->snapshot);
    hub->snapshot = s;
    rh_log(RH_LOG_INFO, "config.reload", RH_KS("applied", ret_changes->applied),
           RH_KS("restart_needed", ret_changes->restart));
    return RH_OK;
}

int rh_hub_reload(struct rh_hub *hub, const struct rh_config *cfg,
                  struct rh_config_changes *ret_changes, struct rh_fault *fault)
{
    int rc = rh_config_check(cfg, fault);

    if (rc < 0)
        return rc;
    if (rh_tid_self() != RH_TID_NONE)
        return rh_fault_set(fault, RH_ETHREAD, "a hub's own thread cannot do this");
    pthread_mutex_lock(&hub->control);
    if (hub->phase == RUNNING)
        rc = reload_running(hub, cfg, ret_changes, fault);
    else
        rc = rh_fault_set(fault, RH_ESTATE, "the hub does not run");
    pthread_mutex_unlock(&hub->control);
    return rc;
}

/* ---- stop ---- */

static void on_control_event(void *arg, const struct rh_event *ev)
{
    struct rh_hub *hub = arg;

    if (ev->kind == RH_EV_QUIET)
        hub->threads[ev->from].quiet_round = ev->a;
}

static bool all_quiet(const struct rh_hub *hub, uint64_t round)
{
    for (unsigned i = 0; i < hub->shards; i++)
        if (hub->threads[i].quiet_round != round)
            return false;
    return true;
}

static void tell_all(struct rh_hub *hub, enum rh_event_kind kind, uint64_t round)
{
    struct rh_mesh *mesh = rh_net_member(hub->net, hub->env.control);

    for (unsigned i = 0; i < hub->shards; i++) {
        struct rh_event ev = {.kind = (uint8_t)kind, .a = round};
        int rc = rh_mesh_tell(mesh, i, &ev);

        rh_assert(rc == RH_OK); /* three events in a hub's life always fit */
    }
    rh_mesh_publish(mesh);
}

/* Asks all shards, and waits until each has been quiet since. False: the time is over. */
static bool drain_round(struct rh_hub *hub, uint64_t round, uint64_t deadline_ns)
{
    struct rh_mesh *mesh = rh_net_member(hub->net, hub->env.control);
    const struct timespec nap = {.tv_nsec = POLL_MS * 1000000};

    tell_all(hub, RH_EV_DRAIN, round);
    while (!all_quiet(hub, round)) {
        if (rh_clock_mono_ns() > deadline_ns)
            return false;
        nanosleep(&nap, NULL);
        rh_mesh_awake(mesh);
        rh_mesh_pop(mesh, on_control_event, hub);
        rh_mesh_publish(mesh);
    }
    return true;
}

/* Until every shard is quiet, or the time is over. */
static int drain(struct rh_hub *hub)
{
    uint64_t deadline = rh_clock_mono_ns() + config_of(hub)->shutdown_grace_ms * 1000000ull;

    return drain_round(hub, 1, deadline) && drain_round(hub, 2, deadline) ? RH_OK : RH_ETIMEDOUT;
}

static int stop_running(struct rh_hub *hub)
{
    int tid = rh_tid_self();
    int rc;

    rh_log(RH_LOG_INFO, "hub.stopping", RH_KU("grace_ms", config_of(hub)->shutdown_grace_ms));
    rh_tid_set((int)hub->env.control);
    rc = drain(hub);
    tell_all(hub, RH_EV_STOP, 0);
    join_all(hub);
    rh_tid_set(tid);
    if (rc < 0)
        rh_log(RH_LOG_WARN, "hub.cut", RH_KS("why", "connections were left at shutdown.grace"));
    rh_log(RH_LOG_INFO, "hub.stopped");
    return rc;
}

int rh_hub_stop(struct rh_hub *hub)
{
    int rc = RH_OK;

    if (rh_tid_self() != RH_TID_NONE)
        return RH_ETHREAD;
    pthread_mutex_lock(&hub->control);
    if (hub->phase == RUNNING)
        rc = stop_running(hub);
    pthread_mutex_lock(&hub->lock);
    hub->phase = STOPPED;
    pthread_mutex_unlock(&hub->lock);
    pthread_mutex_unlock(&hub->control);
    return rc;
}

void rh_hub_destroy(struct rh_hub *hub)
{
    if (!hub)
        return;
    rh_hub_stop(hub);
    for (unsigned i = 0; i < hub->shards; i++)
        rh_shard_destroy(hub->all[i]);
    for (unsigned i = 0; hub->listeners && i < hub->shards; i++)
        for (unsigned k = 0; k < RH_LISTEN_MAX; k++)
            if (hub->listeners[i][k] >= 0)
                rh_sock_close(hub->listeners[i][k]);
    if (hub->owns_log)
        rh_log_stop();
    rh_net_destroy(hub->net);
    rh_limit_destroy(hub->limits);
    rh_mem_free(hub->listeners);
    rh_snapshot_drop_any(hub->snapshot);
    pthread_mutex_destroy(&hub->control);
    pthread_mutex_destroy(&hub->lock);
    pthread_cond_destroy(&hub->changed);
    rh_mem_free(hub);
}

/* ---- questions ---- */

const char *rh_hub_address(const struct rh_hub *hub, unsigned i)
{
    return i < RH_LISTEN_MAX && hub->address[i][0] ? hub->address[i] : NULL;
}

unsigned rh_hub_shards(const struct rh_hub *hub)
{
    return hub->shards;
}

void rh_hub_warn(struct rh_hub *hub, const char *event, const char *why)
{
    (void)hub;
    rh_log(RH_LOG_WARN, event, RH_KS("why", why));
}

int rh_hub_reopen_log(struct rh_hub *hub)
{
    (void)hub;
    return rh_log_reopen();
}
