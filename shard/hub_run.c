/* shard/hub_run.c - all threads of a hub: started, ended, each in its order.
 *
 *   start   shards, ack thread, record thread, all at once; when shards and ack thread are there the
 *           shards begin to serve: who is read the journal for comes later, until then they say 503
 *           (the gate is LOADING). Then waits for the journal: a damaged one ends the start.
 *
 *   end     shards            DRAIN 1 ─► QUIET, DRAIN 2 ─► QUIET
 *           ack thread        STOP ─► joined                  nothing is to be repeated any more
 *           record thread     DRAIN 1 ─► QUIET                all is durable, and has been told
 *           shards            DRAIN 3 ─► QUIET                what it told them has arrived
 *           shards            STOP ─► joined
 *           record thread     STOP ─► joined                  behind its last commit
 *
 * A shard that has no connection, no promise to answer, no credit out and no spill answers DRAIN with
 * QUIET; newcomers, which are only refused, do not count. Once all have, nothing new can set out, but
 * what one sent before it answered may have given something to do to another, which had answered
 * earlier. So all are asked a second time, and accept nobody any more: who is quiet then, without
 * newcomers too, has been given all there was. Rounds are numbered, so that no late answer counts for
 * the next one. All waiting shares one deadline, shutdown.grace: when it is over each is told STOP in
 * the same order, and what the shards have said to the record thread by then it still makes durable.
 */
#include "shard/hub_int.h"

#include <stdio.h>
#include <time.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/log.h"

#define POLL_MS 5

void rh_hub_wake(void *arg, unsigned tid)
{
    struct rh_hub *hub = arg;

    if (tid < hub->shards)
        rh_shard_wake_any(hub->all[tid]);
    else if (tid == hub->ack)
        rh_ack_wake_any(hub->ack_thread);
    else if (tid == hub->record)
        rh_record_wake_any(hub->record_thread);
    /* the control thread polls while it ends the hub */
}

/* ---- what the threads run ---- */

/* Says how our creation went, and waits for the word to begin. True: begin. */
static bool report_ready(struct rh_hub_thread *t, int rc)
{
    struct rh_hub *hub = t->hub;
    bool begin;

    pthread_mutex_lock(&hub->lock);
    t->rc = rc;
    t->ready = true;
    pthread_cond_broadcast(&hub->changed);
    while (!hub->go)
        pthread_cond_wait(&hub->changed, &hub->lock);
    begin = hub->phase == RH_HUB_RUNNING && rc == RH_OK;
    pthread_mutex_unlock(&hub->lock);
    return begin;
}

static void shard_thread(void *arg)
{
    struct rh_hub_thread *t = arg;
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

static void ack_thread(void *arg)
{
    struct rh_hub_thread *t = arg;
    struct rh_hub *hub = t->hub;
    int rc;

    rh_log_thread_init();
    rc = rh_ack_create(&hub->store_env, &hub->ack_thread, &t->fault);
    if (rc == RH_OK)
        rh_shard_env_stats(&hub->env, 0, rh_ack_stats_any(hub->ack_thread));
    if (report_ready(t, rc))
        while (rh_ack_pass(hub->ack_thread))
            rh_ack_wait(hub->ack_thread);
    rh_log_thread_fini();
}

/* STOP may have been popped before who sent it has come to wake its reader. */
static void wait_alone(struct rh_hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    while (!hub->alone)
        pthread_cond_wait(&hub->changed, &hub->lock);
    pthread_mutex_unlock(&hub->lock);
}

static void record_thread(void *arg)
{
    struct rh_hub_thread *t = arg;
    struct rh_hub *hub = t->hub;
    int rc;

    rh_log_thread_init();
    rc = rh_record_create(&hub->store_env, &hub->record_thread, &t->fault);
    if (rc == RH_OK)
        rh_shard_env_stats(&hub->env, 1, rh_record_stats_any(hub->record_thread));
    if (report_ready(t, rc)) {
        while (rh_record_pass(hub->record_thread))
            rh_record_wait(hub->record_thread);
        wait_alone(hub);
    }
    /* Here, as what the disk still does can be waited for only by this thread. */
    rh_record_destroy(hub->record_thread);
    hub->record_thread = NULL;
    rh_log_thread_fini();
}

/* ---- start ---- */

static void start_thread(struct rh_hub *hub, unsigned tid, const char *name, void (*run)(void *arg))
{
    struct rh_hub_thread *t = &hub->threads[tid];
    int rc;

    t->hub = hub;
    rc = rh_thread_start(&t->thread, (int)tid, name, run, t);
    t->started = rc == RH_OK;
    if (!t->started) /* else rc is the thread's to write, under the lock */
        t->rc = rh_fault_set(&t->fault, rc, "cannot start a thread");
}

static void start_all(struct rh_hub *hub)
{
    char name[32];

    for (unsigned i = 0; i < hub->shards; i++) {
        snprintf(name, sizeof(name), "rh-shard-%u", i); /* cut to what the kernel takes */
        start_thread(hub, i, name, shard_thread);
    }
    start_thread(hub, hub->ack, "rh-ack", ack_thread);
    start_thread(hub, hub->record, "rh-record", record_thread);
}

/* Waits until a thread that was started has reported. Under the lock. */
static int wait_ready(struct rh_hub *hub, unsigned tid, struct rh_fault *fault)
{
    struct rh_hub_thread *t = &hub->threads[tid];

    while (t->started && !t->ready)
        pthread_cond_wait(&hub->changed, &hub->lock);
    if (t->rc < 0 && fault)
        *fault = t->fault;
    return t->rc;
}

/* Shards and ack thread; then all that are ready, and will be, may begin, or end if one failed. */
static int wait_shards(struct rh_hub *hub, struct rh_fault *fault)
{
    int rc;

    pthread_mutex_lock(&hub->lock);
    rc = wait_ready(hub, hub->ack, fault);
    for (unsigned i = 0; i < hub->shards; i++) {
        int one = wait_ready(hub, i, rc == RH_OK ? fault : NULL);

        rc = rc == RH_OK ? one : rc;
    }
    hub->phase = rc == RH_OK ? RH_HUB_RUNNING : RH_HUB_STOPPED;
    hub->go = true;
    pthread_cond_broadcast(&hub->changed);
    pthread_mutex_unlock(&hub->lock);
    return rc;
}

/* Until the journal has been read, and every shard knows what it says. */
static int wait_journal(struct rh_hub *hub, struct rh_fault *fault)
{
    int rc;

    pthread_mutex_lock(&hub->lock);
    rc = wait_ready(hub, hub->record, fault);
    if (rc < 0)
        hub->phase = RH_HUB_STOPPED;
    pthread_mutex_unlock(&hub->lock);
    while (rc == RH_OK &&
           atomic_load_explicit(&hub->promises.loaded, memory_order_relaxed) < hub->shards)
        rh_clock_nap_ms(1);
    return rc;
}

/* ---- telling, and joining ---- */

/* Members of the net from a tid on. */
struct some {
    unsigned first, count;
};

static void tell(struct rh_hub *hub, struct some whom, enum rh_event_kind kind, uint64_t round)
{
    struct rh_mesh *mesh = rh_net_member(hub->net, hub->control);

    for (unsigned tid = whom.first; tid < whom.first + whom.count; tid++) {
        struct rh_event ev = {.kind = (uint8_t)kind, .a = round};
        int rc = rh_mesh_tell(mesh, tid, &ev);

        rh_assert(rc == RH_OK); /* a few events in a hub's life always fit */
    }
    rh_mesh_publish(mesh);
}

static void join(struct rh_hub *hub, struct some whom)
{
    for (unsigned tid = whom.first; tid < whom.first + whom.count; tid++) {
        if (hub->threads[tid].started)
            rh_thread_join(&hub->threads[tid].thread);
        hub->threads[tid].started = false;
    }
}

static void stop(struct rh_hub *hub, struct some whom)
{
    tell(hub, whom, RH_EV_STOP, 0);
    join(hub, whom);
}

static void leave_alone(struct rh_hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    hub->alone = true;
    pthread_cond_broadcast(&hub->changed);
    pthread_mutex_unlock(&hub->lock);
}

/* ---- draining ---- */

static void on_control_event(void *arg, const struct rh_event *ev)
{
    struct rh_hub *hub = arg;

    if (ev->kind == RH_EV_QUIET)
        hub->threads[ev->from].quiet_round = ev->a;
}

static bool all_quiet(const struct rh_hub *hub, struct some whom, uint64_t round)
{
    for (unsigned tid = whom.first; tid < whom.first + whom.count; tid++)
        if (hub->threads[tid].quiet_round != round)
            return false;
    return true;
}

/* Asks them, and waits until each has been quiet since. False: the time is over. */
static bool drain(struct rh_hub *hub, struct some whom, uint64_t round, uint64_t deadline_ns)
{
    struct rh_mesh *mesh = rh_net_member(hub->net, hub->control);
    const struct timespec nap = {.tv_nsec = POLL_MS * 1000000};

    tell(hub, whom, RH_EV_DRAIN, round);
    while (!all_quiet(hub, whom, round)) {
        if (rh_clock_mono_ns() > deadline_ns)
            return false;
        nanosleep(&nap, NULL);
        rh_mesh_awake(mesh);
        rh_mesh_pop(mesh, on_control_event, hub);
        rh_mesh_publish(mesh);
    }
    return true;
}

/* ---- all of it ---- */

int rh_hub_run(struct rh_hub *hub, struct rh_fault *fault)
{
    const struct some shards = {0, hub->shards};
    const struct some ack = {hub->ack, 1}, record = {hub->record, 1};
    int rc;

    start_all(hub);
    rc = wait_shards(hub, fault);
    if (rc < 0) {
        join(hub, shards);
        join(hub, ack);
        join(hub, record);
        return rc;
    }
    rc = wait_journal(hub, fault);
    if (rc < 0) {
        stop(hub, shards);
        stop(hub, ack);
        join(hub, record);
    }
    return rc;
}

int rh_hub_end(struct rh_hub *hub)
{
    uint64_t grace_ns = rh_hub_config(hub)->shutdown_grace_ms * 1000000ull;
    uint64_t deadline = rh_clock_mono_ns() + grace_ns;
    const struct some shards = {0, hub->shards};
    const struct some ack = {hub->ack, 1}, record = {hub->record, 1};
    bool quiet = drain(hub, shards, 1, deadline) && drain(hub, shards, 2, deadline);

    stop(hub, ack);
    if (quiet)
        quiet = drain(hub, record, 1, deadline) && drain(hub, shards, 3, deadline);
    stop(hub, shards);
    tell(hub, record, RH_EV_STOP, 0);
    leave_alone(hub);
    join(hub, record);
    return quiet ? RH_OK : RH_ETIMEDOUT;
}
