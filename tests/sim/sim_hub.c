/* tests/sim/sim_hub.c - the shards: who runs next, and what must hold between passes; see sim_hub.h.
 *
 * The control thread's part of stopping is played here as shard/hub.c plays it.
 */
#include "tests/sim/sim_hub.h"

#include <string.h>

#include "core/mem.h"
#include "core/rand.h"
#include "core/thread.h"
#include "shard/shard_int.h"
#include "tests/sim/sim_uring.h"

#define SHARDS_MAX  8
#define PASSES_MAX  4000000 /* a run has some thousands: who needs more, spins */
#define STALL_MS    400
#define CONTROL_NAP (2 * SIM_MS)
#define STOP_TIME   (60 * SIM_S)

static struct {
    struct rh_net *net;
    struct rh_shard_env env;
    unsigned shards;
    struct rh_shard *all[SHARDS_MAX];
    bool running[SHARDS_MAX];
    uint64_t stalled[SHARDS_MAX];     /* until then */
    uint64_t quiet_round[SHARDS_MAX]; /* the last DRAIN that a shard answered with QUIET */
    uint64_t passes;
    bool draining;
} hub;

/* ---- life ---- */

static void wake(void *arg, unsigned tid)
{
    (void)arg;
    if (tid < hub.shards && hub.running[tid])
        rh_shard_wake_any(hub.all[tid]);
}

void sim_hub_start(const struct rh_config *cfg)
{
    struct rh_fault fault;

    memset(&hub, 0, sizeof(hub));
    hub.shards = cfg->shards;
    rh_assert(hub.shards <= SHARDS_MAX);
    SIM_CHECK(rh_net_create(hub.shards + 1, wake, NULL, &hub.net) == RH_OK, "no net");
    rh_rand_bytes(&hub.env.hash_key, sizeof(hub.env.hash_key));
    hub.env.cfg = cfg;
    hub.env.net = hub.net;
    hub.env.shards = hub.shards;
    hub.env.control = hub.shards;
    hub.env.node = "0123456789ab";
    hub.env.all = hub.all;
    for (unsigned i = 0; i < hub.shards; i++) {
        int listeners[RH_LISTEN_MAX];

        for (unsigned k = 0; k < cfg->listen.count; k++)
            listeners[k] = sim_listen();
        rh_tid_set((int)i);
        SIM_CHECK(rh_shard_create(&hub.env, i, listeners, &hub.all[i], &fault) == RH_OK,
                  "no shard: %s", fault.text);
        hub.running[i] = true;
    }
    rh_tid_set(RH_TID_NONE);
}

unsigned sim_hub_shard_of(const char *name)
{
    return rh_hash_shard(rh_hash(&hub.env.hash_key, name, strlen(name)), hub.shards);
}

/* ---- what must hold between passes ---- */

static void check_pass(unsigned tid)
{
    SIM_CHECK(sim_uring_lent(hub.all[tid]->uring) == 0, "shard %u keeps a buffer after its pass",
              tid);
    SIM_CHECK(++hub.passes < PASSES_MAX, "shard %u spins", tid);
    for (unsigned to = 0; to < hub.shards; to++) {
        const struct rh_uring *u = hub.running[to] ? hub.all[to]->uring : NULL;

        if (!u || !sim_uring_asleep(u) || sim_uring_woken(u))
            continue;
        for (unsigned from = 0; from <= hub.shards; from++)
            SIM_CHECK(rh_net_depth_any(hub.net, from, to) == 0,
                      "shard %u sleeps over an event of %u", to, from);
    }
}

/* ---- one pass of one shard ---- */

static void trace_hops(unsigned from, const uint32_t before[SHARDS_MAX + 1])
{
    for (unsigned to = 0; to <= hub.shards; to++) {
        uint32_t after = rh_net_depth_any(hub.net, from, to);

        if (after > before[to])
            sim_trace("hop %u -> %u: %u events", from, to, after - before[to]);
    }
}

static void pass(unsigned tid)
{
    struct rh_shard *sh = hub.all[tid];
    uint32_t before[SHARDS_MAX + 1] = {0};

    for (unsigned to = 0; to <= hub.shards; to++)
        before[to] = rh_net_depth_any(hub.net, tid, to);
    rh_tid_set((int)tid);
    sim_uring_wake_up(sh->uring);
    if (sim_chance(sim_knobs.bad_allocs))
        rh_mem_fail_nth(1 + sim_below(4));
    hub.running[tid] = rh_shard_pass(sh);
    rh_mem_fail_nth(0);
    trace_hops(tid, before);
    if (hub.running[tid])
        rh_shard_wait(sh);
    rh_tid_set(RH_TID_NONE);
    if (sim_chance(sim_knobs.stalls))
        hub.stalled[tid] = sim_now() + sim_below(STALL_MS) * SIM_MS;
    check_pass(tid);
}

/* ---- who runs next ---- */

static uint64_t due(unsigned tid)
{
    return hub.running[tid] ? RH_MAX(sim_uring_due(hub.all[tid]->uring), hub.stalled[tid])
                            : SIM_NEVER;
}

/* False: nothing happens before `until_ns`. */
static bool step(uint64_t until_ns)
{
    uint64_t next = sim_next_event();
    unsigned count = 0, chosen = 0;

    for (unsigned i = 0; i < hub.shards; i++) {
        uint64_t at = due(i);

        next = RH_MIN(next, at);
        if (at <= sim_now() && sim_below(++count) == 0)
            chosen = i;
    }
    if (count) {
        pass(chosen);
        sim_move_clock(sim_now() + SIM_US + sim_below(20 * SIM_US));
    } else if (next >= until_ns) {
        return false;
    } else {
        sim_move_clock(RH_MAX(next, sim_now()));
    }
    sim_run_events();
    return true;
}

static void on_control_event(void *arg, const struct rh_event *ev)
{
    (void)arg;
    SIM_CHECK(ev->kind == RH_EV_QUIET, "the control thread got %s", rh_event_name(ev->kind));
    hub.quiet_round[ev->from] = ev->a;
}

/* The control thread looks for reports now and then, once it has said DRAIN. */
static void control(void)
{
    struct rh_mesh *mesh = rh_net_member(hub.net, hub.shards);

    rh_mesh_awake(mesh);
    rh_mesh_pop(mesh, on_control_event, NULL);
    rh_mesh_publish(mesh);
}

static void run_shards(uint64_t until_ns)
{
    while (sim_now() < until_ns && step(until_ns))
        ;
    sim_move_clock(RH_MAX(until_ns, sim_now()));
    sim_run_events();
}

void sim_hub_run(uint64_t until_ns)
{
    while (hub.draining && sim_now() < until_ns) {
        run_shards(RH_MIN(until_ns, sim_now() + CONTROL_NAP));
        control();
    }
    if (!hub.draining)
        run_shards(until_ns);
}

/* ---- the end ---- */

static void check_gauge(enum rh_stat stat, const char *what)
{
    struct rh_stats *blocks[SHARDS_MAX];
    int64_t sum;

    for (unsigned i = 0; i < hub.shards; i++)
        blocks[i] = rh_shard_stats_any(hub.all[i]);
    sum = rh_stat_sum(blocks, hub.shards, stat);
    SIM_CHECK(sum == 0, "the gauge of %s says %lld", what, (long long)sum);
}

static void check_empty_shard(const struct rh_shard *sh)
{
    unsigned accepts = RH_ACCEPTS * sh->listener_count;
    unsigned flying = sim_uring_flying(sh->uring);
    size_t retries = 0;

    SIM_CHECK(sh->conn_count == 0, "shard %u has %u connections", sh->tid, sh->conn_count);
    SIM_CHECK(rh_map_count(&sh->users) == 0, "shard %u has users", sh->tid);
    SIM_CHECK(rh_mesh_quiet(sh->mesh), "shard %u has credit or a spill out", sh->tid);
    SIM_CHECK(sh->stock.messages == 0 && sh->stock.bytes == 0,
              "shard %u counts %llu messages and %llu bytes in queues", sh->tid,
              (unsigned long long)sh->stock.messages, (unsigned long long)sh->stock.bytes);
    SIM_CHECK(rh_list_empty(&sh->starved) && rh_list_empty(&sh->graveyard) &&
                  sh->dirty == RH_DIRTY_END,
              "shard %u has something on a list", sh->tid);
    for (unsigned i = 0; i < RH_SHARDS_MAX; i++)
        SIM_CHECK(rh_list_empty(&sh->credit[i]), "shard %u: somebody waits for a credit", sh->tid);
    SIM_CHECK(flying <= accepts, "shard %u has %u operations under way", sh->tid, flying);
    for (unsigned i = 0; i < sh->listener_count; i++)
        retries += rh_timer_armed(&sh->listeners[i].retry);
    SIM_CHECK(rh_wheel_count(&sh->wheel) == retries,
              "shard %u has %zu timers, of which %zu retries", sh->tid, rh_wheel_count(&sh->wheel),
              retries);
}

void sim_hub_check_empty(void)
{
    for (unsigned i = 0; i < hub.shards; i++)
        check_empty_shard(hub.all[i]);
    check_gauge(RH_STAT_connections_websocket, "connections");
    check_gauge(RH_STAT_users, "users");
    check_gauge(RH_STAT_handshakes_in_progress, "handshakes");
}

static void tell_all(enum rh_event_kind kind, uint64_t round)
{
    struct rh_mesh *mesh = rh_net_member(hub.net, hub.shards);

    sim_trace("control tells all %s", rh_event_name(kind));
    rh_tid_set((int)hub.shards);
    for (unsigned i = 0; i < hub.shards; i++) {
        struct rh_event ev = {.kind = (uint8_t)kind, .a = round};

        SIM_CHECK(rh_mesh_tell(mesh, i, &ev) == RH_OK, "no memory for %s", rh_event_name(kind));
    }
    rh_mesh_publish(mesh);
    rh_tid_set(RH_TID_NONE);
}

void sim_hub_drain(void)
{
    hub.draining = true;
    tell_all(RH_EV_DRAIN, 1);
}

static bool all_quiet(uint64_t round)
{
    for (unsigned i = 0; i < hub.shards; i++)
        if (hub.quiet_round[i] != round)
            return false;
    return true;
}

static void await_quiet(uint64_t round)
{
    uint64_t deadline = sim_now() + STOP_TIME;

    while (!all_quiet(round)) {
        SIM_CHECK(sim_now() < deadline, "the shards do not come to rest");
        sim_hub_run(sim_now() + CONTROL_NAP);
    }
}

void sim_hub_stop(bool empty)
{
    uint64_t deadline;

    await_quiet(1);
    tell_all(RH_EV_DRAIN, 2);
    await_quiet(2);
    if (empty)
        sim_hub_check_empty();
    tell_all(RH_EV_STOP, 0);
    deadline = sim_now() + STOP_TIME;
    for (unsigned i = 0; i < hub.shards; i++)
        while (hub.running[i]) {
            SIM_CHECK(sim_now() < deadline, "shard %u does not stop", i);
            sim_hub_run(sim_now() + CONTROL_NAP);
        }
    for (unsigned i = 0; i < hub.shards; i++) {
        rh_tid_set((int)i);
        rh_shard_destroy(hub.all[i]);
    }
    rh_tid_set(RH_TID_NONE);
    rh_net_destroy(hub.net);
    SIM_CHECK(sim_fds_open() == 0 && sim_files_open() == 0, "%u descriptors, %u files are open",
              sim_fds_open(), sim_files_open());
}
