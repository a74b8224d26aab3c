/* shard/hub.c - a hub's life: made, started, reloaded, stopped; implements ringhub.h.
 *
 *   create   self-test of io_uring, listening sockets bound (so a port in use is said at once)
 *   start    all threads (hub_run.c)
 *   reload   a snapshot of what may change to all, as CONFIG
 *   stop     all threads
 */
#include "core/ringhub.h"

#include <string.h>

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
#include "shard/hub_int.h"

#define PORT_NAPS   10
#define PORT_NAP_MS 50

/* ---- create ---- */

static void copy_address(const struct rh_listen *from, struct rh_addr *to)
{
    memset(to, 0, sizeof(*to));
    memcpy(&to->at, &from->addr, from->addr_len);
    to->len = from->addr_len;
}

/* The first socket of an address finds out whether the port is free. That of a hub which was killed a
 * moment ago is not yet: the kernel takes its rings apart behind the process's end. */
static int listen_at(struct rh_addr *addr, bool first, int *ret_fd, struct rh_fault *fault)
{
    int rc = rh_sock_listen(addr, first, ret_fd, fault);

    for (unsigned naps = 0; first && rc == RH_EADDRINUSE && naps < PORT_NAPS; naps++) {
        rh_clock_nap_ms(PORT_NAP_MS);
        rc = rh_sock_listen(addr, first, ret_fd, fault);
    }
    return rc;
}

/* One socket per shard for each address. */
static int bind_all(struct rh_hub *hub, struct rh_fault *fault)
{
    const struct rh_listen_list *listen = &rh_hub_config(hub)->listen;

    for (unsigned i = 0; i < listen->count; i++) {
        struct rh_addr addr;

        copy_address(&listen->at[i], &addr);
        for (unsigned k = 0; k < hub->shards; k++) {
            int rc = listen_at(&addr, k == 0, &hub->listeners[k][i], fault);

            if (rc < 0)
                return rc;
        }
        rh_addr_print(&addr, hub->address[i]);
    }
    return RH_OK;
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

/* What all threads have in common. */
static void env_init(struct rh_hub *hub)
{
    struct rh_shard_env *env = &hub->env;

    hub->control = hub->shards;
    hub->ack = hub->shards + 1;
    hub->record = hub->shards + 2;
    atomic_init(&hub->promises.gate, RH_GATE_LOADING); /* until the record thread says otherwise */
    rh_rand_bytes(&env->hash_key, sizeof(env->hash_key));
    env->snapshot = hub->snapshot;
    env->limits = hub->limits;
    env->net = hub->net;
    env->shards = hub->shards;
    env->crowd = (hub->shards + rh_thread_cpus() - 1) / rh_thread_cpus();
    env->control = hub->control;
    env->ack = hub->ack;
    env->record = hub->record;
    env->promises = &hub->promises;
    env->node = hub->node;
    env->all = hub->all;
    hub->store_env = (struct rh_store_env){
        .snapshot = hub->snapshot,
        .net = hub->net,
        .hash_key = env->hash_key,
        .shards = hub->shards,
        .control = hub->control,
        .ack = hub->ack,
        .record = hub->record,
        .promises = &hub->promises,
    };
}

static int hub_init(struct rh_hub *hub, const struct rh_config *cfg, struct rh_fault *fault)
{
    uint8_t random[RH_NODE_LEN / 2];
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
    hub->listeners = rh_mem_alloc(hub->shards * sizeof(*hub->listeners));
    if (!hub->listeners)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the hub");
    memset(hub->listeners, 0xff, hub->shards * sizeof(*hub->listeners)); /* all -1 */
    if (rh_limit_create(&hub->limits) < 0)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the hub");
    rc = rh_net_create(hub->shards + RH_HUB_OTHERS, rh_hub_wake, hub, &hub->net);
    if (rc < 0)
        return rh_fault_set(fault, rc, "no memory for the rings between threads");
    env_init(hub);
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
    pthread_mutex_init(&hub->control_lock, NULL);
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

/* ---- start ---- */

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
    if (rh_hub_config(hub)->auth_mode == RH_AUTH_NONE && rh_hub_config(hub)->auth_allow_insecure)
        rh_log(RH_LOG_WARN, "auth.insecure",
               RH_KS("hint", "auth.mode is none: everybody who reaches this hub is who they say"));
}

static int start(struct rh_hub *hub, struct rh_fault *fault)
{
    const struct rh_config *cfg = rh_hub_config(hub);
    int rc = rh_log_start(cfg->log_level, cfg->log_format, cfg->log_file, fault);

    hub->owns_log = rc == RH_OK;
    if (rc < 0 && rc != RH_ESTATE) /* another hub of this process has started it: fine */
        return rc;
    rh_tid_set((int)hub->control);
    rc = rh_hub_run(hub, fault);
    rh_tid_set(RH_TID_NONE);
    if (rc == RH_OK)
        log_started(hub);
    return rc;
}

int rh_hub_start(struct rh_hub *hub, struct rh_fault *fault)
{
    int rc;

    if (rh_tid_self() != RH_TID_NONE)
        return rh_fault_set(fault, RH_ETHREAD, "a hub's own thread cannot do this");
    pthread_mutex_lock(&hub->control_lock);
    if (hub->phase == RH_HUB_IDLE)
        rc = start(hub, fault);
    else
        rc = rh_fault_set(fault, RH_ESTATE, "this hub was started before");
    pthread_mutex_unlock(&hub->control_lock);
    return rc;
}

/* ---- reload ---- */

/* Sends the snapshot to all threads; nobody gets it when there is no memory. */
static int send_snapshot(struct rh_hub *hub, struct rh_snapshot *s)
{
    struct rh_mesh *mesh = rh_net_member(hub->net, hub->control);
    unsigned members = hub->shards + RH_HUB_OTHERS;

    for (unsigned tid = 0; tid < members; tid++)
        if (tid != hub->control && rh_mesh_reserve(mesh, tid, 1) < 0)
            return RH_ENOMEM;
    for (unsigned tid = 0; tid < members; tid++) {
        struct rh_event ev = {.kind = RH_EV_CONFIG, .msg = s};
        int rc;

        if (tid == hub->control)
            continue;
        rh_snapshot_hold_any(s);
        rc = rh_mesh_tell(mesh, tid, &ev);
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
    int rc = rh_config_reload(rh_hub_config(hub), want, &next, ret_changes);

    if (rc == RH_OK)
        s = rh_snapshot_make(next);
    if (!s) {
        rh_config_destroy(next);
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the configuration");
    }
    rh_tid_set((int)hub->control);
    rc = send_snapshot(hub, s);
    rh_tid_set(tid);
    if (rc < 0) {
        rh_snapshot_drop_any(s);
        return rh_fault_set(fault, rc, "no memory for telling the threads");
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
    pthread_mutex_lock(&hub->control_lock);
    if (hub->phase == RH_HUB_RUNNING)
        rc = reload_running(hub, cfg, ret_changes, fault);
    else
        rc = rh_fault_set(fault, RH_ESTATE, "the hub does not run");
    pthread_mutex_unlock(&hub->control_lock);
    return rc;
}

/* ---- stop ---- */

static int stop_running(struct rh_hub *hub)
{
    int rc;

    rh_log(RH_LOG_INFO, "hub.stopping", RH_KU("grace_ms", rh_hub_config(hub)->shutdown_grace_ms));
    rh_tid_set((int)hub->control);
    rc = rh_hub_end(hub);
    rh_tid_set(RH_TID_NONE);
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
    pthread_mutex_lock(&hub->control_lock);
    if (hub->phase == RH_HUB_RUNNING)
        rc = stop_running(hub);
    pthread_mutex_lock(&hub->lock);
    hub->phase = RH_HUB_STOPPED;
    pthread_mutex_unlock(&hub->lock);
    pthread_mutex_unlock(&hub->control_lock);
    return rc;
}

void rh_hub_destroy(struct rh_hub *hub)
{
    if (!hub)
        return;
    rh_hub_stop(hub);
    for (unsigned i = 0; i < hub->shards; i++)
        rh_shard_destroy(hub->all[i]);
    rh_ack_destroy(hub->ack_thread);
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
    pthread_mutex_destroy(&hub->control_lock);
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
