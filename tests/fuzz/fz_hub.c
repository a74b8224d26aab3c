/* tests/fuzz/fz_hub.c - threads that are driven, and what must hold between passes; see fz_hub.h.
 *
 * The control thread's part is played here as shard/hub_run.c plays it.
 */
#include "tests/fuzz/fz_hub.h"

#include <string.h>

#include "core/limit.h"
#include "core/mem.h"
#include "core/rand.h"
#include "core/thread.h"
#include "shard/owed.h"
#include "store/store.h"
#include "tests/fuzz/fz_bell.h"
#include "tests/fuzz/fz_kernel.h"
#include "tests/fuzz/fz_peer.h"

#define ROUNDS_MAX 3000 /* of passes before all is idle: who needs more, spins */
#define STEP_MS    200
#define STEPS_MAX  200 /* of that, until all is quiet */
#define MEMBERS    (FZ_SHARDS + 3)

static struct {
    struct rh_net *net;
    struct rh_snapshot *snapshot;
    struct rh_limits *limits;
    struct rh_shard_env env;
    struct rh_store_env store_env;
    struct rh_promises promises;
    unsigned shards, members;
    struct rh_shard *all[FZ_SHARDS];
    struct rh_ack *ack;
    struct rh_record *record;
    bool running[MEMBERS]; /* by tid */
    uint64_t round, quiet[MEMBERS];
} hub;

/* ---- life ---- */

static void wake(void *arg, unsigned tid)
{
    (void)arg;
    if (!hub.running[tid])
        return;
    if (tid < hub.shards)
        rh_shard_wake_any(hub.all[tid]);
    else if (tid == hub.env.ack)
        rh_ack_wake_any(hub.ack);
    else
        rh_record_wake_any(hub.record);
}

static void snapshot_init(const struct rh_config *cfg)
{
    struct rh_config *copy = NULL;

    FZ_CHECK(rh_config_copy(cfg, &copy) == RH_OK, "no copy of the configuration");
    hub.snapshot = rh_snapshot_make(copy);
    FZ_CHECK(hub.snapshot, "no snapshot");
}

static void start_store(void)
{
    struct rh_fault fault;

    hub.store_env = (struct rh_store_env){
        .snapshot = hub.snapshot,
        .net = hub.net,
        .hash_key = hub.env.hash_key,
        .shards = hub.shards,
        .control = hub.env.control,
        .ack = hub.env.ack,
        .record = hub.env.record,
        .promises = &hub.promises,
    };
    rh_tid_set((int)hub.env.ack);
    FZ_CHECK(rh_ack_create(&hub.store_env, &hub.ack, &fault) == RH_OK, "no ack thread: %s",
             fault.text);
    rh_tid_set((int)hub.env.record);
    FZ_CHECK(rh_record_create(&hub.store_env, &hub.record, &fault) == RH_OK, "no record thread: %s",
             fault.text);
    hub.running[hub.env.ack] = hub.running[hub.env.record] = true;
}

void fz_hub_start(const struct rh_config *cfg, unsigned files)
{
    struct rh_fault fault;

    memset(&hub, 0, sizeof(hub));
    hub.shards = cfg->shards;
    hub.members = cfg->shards + 3;
    snapshot_init(cfg);
    FZ_CHECK(rh_limit_create(&hub.limits) == RH_OK, "no limits");
    FZ_CHECK(rh_net_create(hub.members, wake, NULL, &hub.net) == RH_OK, "no net");
    rh_rand_bytes(&hub.env.hash_key, sizeof(hub.env.hash_key));
    hub.env.snapshot = hub.snapshot;
    hub.env.limits = hub.limits;
    hub.env.net = hub.net;
    hub.env.shards = hub.shards;
    hub.env.control = hub.shards;
    hub.env.ack = hub.shards + 1;
    hub.env.record = hub.shards + 2;
    hub.env.promises = &hub.promises;
    hub.env.files = files;
    hub.env.node = "0123456789ab";
    hub.env.all = hub.all;
    for (unsigned i = 0; i < hub.shards; i++) {
        int listener = fz_listen(i);

        rh_tid_set((int)i);
        FZ_CHECK(rh_shard_create(&hub.env, i, &listener, &hub.all[i], &fault) == RH_OK,
                 "no shard: %s", fault.text);
        hub.running[i] = true;
    }
    start_store();
    rh_tid_set(RH_TID_NONE);
    fz_hub_run(); /* until nothing is left of the start */
}

const struct rh_config *fz_hub_config(void)
{
    return hub.snapshot->cfg;
}

struct rh_uring *fz_hub_ring(unsigned shard)
{
    return hub.all[shard]->uring;
}

unsigned fz_hub_shards(void)
{
    return hub.shards;
}

/* ---- what must hold between passes ---- */

static void check_conn(const struct fz_sock *s, const struct rh_conn *c)
{
    bool dead = c->state == RH_CONN_DEAD, flying = rh_outq_flying(c->out);
    bool moving = c->state == RH_CONN_MOVING;

    FZ_CHECK(c->inflight == fz_sock_inflight(s), "fd %d: %u operations, not %u", c->fd,
             fz_sock_inflight(s), c->inflight);
    FZ_CHECK(c->inflight == c->recv_armed + (unsigned)flying + moving,
             "fd %d: %u operations, but recv %u, send %u", c->fd, c->inflight, c->recv_armed,
             flying);
    FZ_CHECK(!c->out || flying || dead, "fd %d has something to send, and does not", c->fd);
    FZ_CHECK(!c->is_dirty && !c->buried, "fd %d is on a list of the pass", c->fd);
    FZ_CHECK(c->inflight || !dead, "fd %d is dead, and not freed", c->fd);
    FZ_CHECK(c->recv_armed || c->starved || c->paused || c->out || dead || moving,
             "fd %d is not read, and waits for nothing", c->fd);
    FZ_CHECK(!c->paused || c->state == RH_CONN_OPEN, "fd %d is paused in state %u", c->fd,
             c->state);
}

/* The connection behind a socket, by its last operation; NULL: it is on its way to another
 * shard. */
static const struct rh_conn *conn_of(const struct fz_sock *s)
{
    unsigned tid;
    uint64_t tag;
    const struct rh_conn *c;

    if (!fz_sock_last(s, &tid, &tag))
        return NULL;
    c = rh_conn_find(hub.all[tid], (uint32_t)tag, (uint32_t)(tag >> 32));
    return c && fz_sock_of(hub.all[tid]->uring, c->fd) == s ? c : NULL;
}

static void check_conns(void)
{
    for (unsigned i = 0; i < fz_sock_count(); i++) {
        const struct fz_sock *s = fz_sock(i);
        const struct rh_conn *c = s->accepted && !s->closed ? conn_of(s) : NULL;

        if (c)
            check_conn(s, c);
    }
}

static bool due(unsigned tid)
{
    if (!hub.running[tid])
        return false;
    return tid < hub.shards ? fz_uring_due(hub.all[tid]->uring) : fz_bell_due(tid);
}

static void check_pass(unsigned tid)
{
    FZ_CHECK(tid >= hub.shards || fz_uring_lent(hub.all[tid]->uring) == 0,
             "shard %u keeps a buffer after its pass", tid);
    for (unsigned to = 0; to < hub.members; to++)
        for (unsigned from = 0; from < hub.members; from++)
            FZ_CHECK(!hub.running[to] || due(to) || rh_net_depth_any(hub.net, from, to) == 0,
                     "thread %u sleeps over an event of %u", to, from);
}

/* ---- passes ---- */

void fz_hub_pass(unsigned shard)
{
    struct rh_shard *sh = hub.all[shard];

    if (!hub.running[shard])
        return;
    fz_move_clock_us(1);
    rh_tid_set((int)shard);
    fz_uring_run(sh->uring);
    fz_mem_may_fail(true);
    hub.running[shard] = rh_shard_pass(sh);
    if (hub.running[shard])
        rh_shard_wait(sh);
    fz_mem_may_fail(false);
    rh_tid_set(RH_TID_NONE);
    check_pass(shard);
    check_conns();
}

/* The ack thread, or the record thread. */
static void store_pass(unsigned tid)
{
    if (!hub.running[tid])
        return;
    fz_move_clock_us(1);
    rh_tid_set((int)tid);
    fz_mem_may_fail(true);
    hub.running[tid] = tid == hub.env.ack ? rh_ack_pass(hub.ack) : rh_record_pass(hub.record);
    if (hub.running[tid] && tid == hub.env.ack)
        rh_ack_wait(hub.ack);
    else if (hub.running[tid])
        rh_record_wait(hub.record);
    fz_mem_may_fail(false);
    rh_tid_set(RH_TID_NONE);
    check_pass(tid);
}

static void any_pass(unsigned tid)
{
    if (tid < hub.shards)
        fz_hub_pass(tid);
    else
        store_pass(tid);
}

void fz_hub_run(void)
{
    bool any = true;

    for (unsigned rounds = 0; any; rounds++) {
        any = false;
        FZ_CHECK(rounds < ROUNDS_MAX, "the threads spin");
        for (unsigned i = 0; i < hub.members; i++) {
            if (i < hub.shards && hub.running[i])
                fz_uring_run(hub.all[i]->uring);
            if (!due(i))
                continue;
            any = true;
            any_pass(i);
        }
    }
}

void fz_hub_wait(unsigned ms)
{
    fz_move_clock_us(1000ull * ms);
    fz_peers_age();
    for (unsigned i = 0; i < hub.members; i++)
        any_pass(i);
    fz_hub_run();
}

/* ---- reload, drain ---- */

/* Some threads, by tid. */
struct some {
    unsigned first, count;
};

static void tell(struct some whom, enum rh_event_kind kind, uint64_t round,
                 struct rh_snapshot *snapshot)
{
    struct rh_mesh *mesh = rh_net_member(hub.net, hub.shards);

    rh_tid_set((int)hub.shards);
    for (unsigned i = whom.first; i < whom.first + whom.count; i++) {
        struct rh_event ev = {.kind = (uint8_t)kind, .a = round, .msg = snapshot};

        if (snapshot)
            rh_snapshot_hold_any(snapshot);
        FZ_CHECK(rh_mesh_tell(mesh, i, &ev) == RH_OK, "no memory for %s", rh_event_name(kind));
    }
    rh_mesh_publish(mesh);
    rh_tid_set(RH_TID_NONE);
}

void fz_hub_reload(const struct rh_config *want)
{
    struct rh_config_changes changes;
    struct rh_config *next;

    FZ_CHECK(rh_config_reload(hub.snapshot->cfg, want, &next, &changes) == RH_OK, "no reload");
    rh_snapshot_drop_any(hub.snapshot);
    hub.snapshot = rh_snapshot_make(next);
    FZ_CHECK(hub.snapshot, "no snapshot");
    tell((struct some){0, hub.shards}, RH_EV_CONFIG, 0, hub.snapshot);
    tell((struct some){hub.env.ack, 2}, RH_EV_CONFIG, 0, hub.snapshot);
}

static void on_control_event(void *arg, const struct rh_event *ev)
{
    (void)arg;
    FZ_CHECK(ev->kind == RH_EV_QUIET, "the control thread got %s", rh_event_name(ev->kind));
    hub.quiet[ev->from] = ev->a;
}

static bool all_quiet(struct some whom)
{
    struct rh_mesh *mesh = rh_net_member(hub.net, hub.shards);

    rh_tid_set((int)hub.shards);
    rh_mesh_awake(mesh);
    rh_mesh_pop(mesh, on_control_event, NULL);
    rh_mesh_publish(mesh);
    rh_tid_set(RH_TID_NONE);
    for (unsigned i = whom.first; i < whom.first + whom.count; i++)
        if (hub.quiet[i] != hub.round)
            return false;
    return true;
}

static bool shards_quiet(void)
{
    return all_quiet((struct some){0, hub.shards});
}

/* As hub_run.c: the second DRAIN only when all have answered the first. */
void fz_hub_drain(void)
{
    if (hub.round && (hub.round > 1 || !shards_quiet()))
        return;
    fz_trace("  DRAIN %llu", (unsigned long long)hub.round + 1);
    fz_excuse_all(FZ_DRAIN);
    tell((struct some){0, hub.shards}, RH_EV_DRAIN, ++hub.round, NULL);
}

bool fz_hub_draining(void)
{
    return hub.round != 0;
}

/* ---- the end ---- */

static void await_quiet(struct some whom)
{
    fz_hub_run();
    for (unsigned steps = 0; !all_quiet(whom); steps++) {
        FZ_CHECK(steps < STEPS_MAX, "%u threads from %u on do not come to rest", whom.count,
                 whom.first);
        fz_hub_wait(STEP_MS);
    }
}

/* Nobody is connected: who is here is owed something. */
static void check_user(void *arg, struct rh_map_node *node)
{
    const struct rh_user *user = rh_container_of(node, struct rh_user, node);

    (void)arg;
    FZ_CHECK(rh_owed_any(user), "%.*s is here for nothing", user->name_len, user->name);
}

static void check_empty(struct rh_shard *sh)
{
    FZ_CHECK(sh->conn_count == 0, "shard %u has %u connections", sh->tid, sh->conn_count);
    rh_map_each(&sh->users, check_user, NULL);
    FZ_CHECK(sh->sessions == 0, "shard %u has sessions", sh->tid);
    FZ_CHECK(rh_map_count(&sh->branches) == 0 && rh_map_count(&sh->subs) == 0,
             "shard %u has subscriptions", sh->tid);
    FZ_CHECK(sh->stock.messages == 0 && sh->stock.bytes == 0, "shard %u counts what is queued",
             sh->tid);
    FZ_CHECK(rh_list_empty(&sh->starved) && sh->dirty_count == 0 && !sh->credit_wanted,
             "shard %u has something on a list", sh->tid);
    FZ_CHECK(rh_wheel_count(&sh->wheel) == 0, "shard %u has timers", sh->tid);
    FZ_CHECK(rh_map_count(&sh->stock.squeeze.contexts) == 0, "shard %u has contexts", sh->tid);
    FZ_CHECK(rh_mesh_quiet(sh->mesh), "shard %u has credit or a spill out", sh->tid);
    FZ_CHECK(rh_list_empty(&sh->broadcasts) && sh->broadcasts_out == 0,
             "shard %u has a broadcast under way", sh->tid);
}

/* Gauges that follow at once; rooms live on, and what is copied once a second may be late. */
static void check_gauges(void)
{
    static const enum rh_stat gauges[] = {
        RH_STAT_connections_websocket,  RH_STAT_connections_parked,
        RH_STAT_connections_paused,     RH_STAT_users,
        RH_STAT_handshakes_in_progress, RH_STAT_retry_messages,
        RH_STAT_subscriptions,          RH_STAT_sessions_detached,
        RH_STAT_room_publishes_waiting, RH_STAT_room_changes_waiting,
        RH_STAT_fanouts_unfinished,     RH_STAT_broadcasts_unfinished,
    };
    struct rh_stats *blocks[FZ_SHARDS];

    for (unsigned i = 0; i < hub.shards; i++)
        blocks[i] = rh_shard_stats_any(hub.all[i]);
    for (size_t i = 0; i < RH_COUNT(gauges); i++)
        FZ_CHECK(rh_stat_sum(blocks, hub.shards, gauges[i]) == 0,
                 "gauge %zu of check_gauges is %lld", i,
                 (long long)rh_stat_sum(blocks, hub.shards, gauges[i]));
}

static void check_all_empty(void)
{
    for (unsigned i = 0; i < hub.shards; i++)
        check_empty(hub.all[i]);
    check_gauges();
    FZ_CHECK(fz_fds_open() == 0, "%u descriptors are open", fz_fds_open());
    FZ_CHECK(rh_limit_conns_any(hub.limits) == 0, "%u connections are counted",
             rh_limit_conns_any(hub.limits));
    FZ_CHECK(rh_limit_handshakes_any(hub.limits) == 0, "%u handshakes are counted",
             rh_limit_handshakes_any(hub.limits));
}

static bool mesh_quiet(void)
{
    for (unsigned i = 0; i < hub.shards; i++)
        if (!rh_mesh_quiet(hub.all[i]->mesh) || hub.all[i]->draining)
            return false;
    return true;
}

static void destroy_all(void)
{
    for (unsigned i = 0; i < hub.shards; i++) {
        rh_tid_set((int)i);
        rh_shard_destroy(hub.all[i]);
    }
    rh_tid_set((int)hub.env.record);
    rh_record_destroy(hub.record);
    rh_tid_set(RH_TID_NONE);
    rh_ack_destroy(hub.ack);
    rh_net_destroy(hub.net);
    rh_limit_destroy(hub.limits);
    rh_snapshot_drop_any(hub.snapshot);
    FZ_CHECK(fz_fds_open() == 0, "%u descriptors are open", fz_fds_open());
}

static void stop(struct some whom)
{
    tell(whom, RH_EV_STOP, 0, NULL);
    for (unsigned i = whom.first; i < whom.first + whom.count; i++)
        for (unsigned passes = 0; hub.running[i]; passes++) {
            FZ_CHECK(passes < 10, "thread %u does not stop", i);
            any_pass(i);
        }
}

/* The record thread is quiet, and what it told the shards has arrived. */
static void drain_store(void)
{
    const struct some record = {hub.env.record, 1}, shards = {0, hub.shards};

    tell(record, RH_EV_DRAIN, ++hub.round, NULL);
    await_quiet(record);
    tell(shards, RH_EV_DRAIN, ++hub.round, NULL);
    await_quiet(shards);
}

void fz_hub_stop(bool cut)
{
    const struct some shards = {0, hub.shards};
    bool drained = !cut || !mesh_quiet();

    fz_excuse_all(FZ_DRAIN);
    if (drained) {
        fz_hub_drain();
        await_quiet(shards);
        if (hub.round == 1)
            fz_hub_drain();
        await_quiet(shards);
        check_all_empty();
    }
    stop((struct some){hub.env.ack, 1});
    if (drained)
        drain_store();
    stop(shards);
    stop((struct some){hub.env.record, 1});
    destroy_all();
}
