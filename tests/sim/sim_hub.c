/* tests/sim/sim_hub.c - the threads: who runs next, and what must hold between passes; see sim_hub.h.
 *
 * The control thread's part of stopping is played here as shard/hub_run.c plays it.
 */
#include "tests/sim/sim_hub.h"

#include <string.h>

#include "core/limit.h"
#include "core/mem.h"
#include "core/rand.h"
#include "core/thread.h"
#include "shard/owed.h"
#include "store/record_int.h"
#include "tests/sim/sim_bell.h"
#include "tests/sim/sim_file.h"
#include "tests/sim/sim_uring.h"
#include "tests/store/disk.h"

#define SHARDS_MAX    8
#define MEMBERS_MAX   (SHARDS_MAX + 3)
#define PASSES_MAX    4000000 /* a run has some thousands: who needs more, spins */
#define STALL_MS      400
#define NAP_MS        1          /* so short a wait is not sleeping */
#define SEGMENT_BYTES (64 << 10) /* of the journal: so small that it has many */
#define CONTROL_NAP   (2 * SIM_MS)
#define STOP_TIME     (60 * SIM_S)
#define GRACE_CHECKED (4 * SIM_S) /* a shorter one leaves no time for closing handshakes */

static struct {
    struct rh_net *net;
    struct rh_snapshot *snapshot; /* the newest one */
    struct rh_limits *limits;
    struct rh_shard_env env;
    struct rh_store_env store_env;
    struct rh_promises promises;
    unsigned shards, members;
    struct rh_shard *all[SHARDS_MAX];
    struct rh_ack *ack;
    struct rh_record *record;
    bool on_disk;           /* store.durability: commit */
    uint64_t disk_sleep_ns; /* the record thread sleeps until then */
    bool disk_turning;      /* a turn of the disk is to come */
    /* By tid. */
    bool running[MEMBERS_MAX];
    uint64_t stalled[MEMBERS_MAX];     /* until then */
    uint64_t quiet_round[MEMBERS_MAX]; /* the last DRAIN that was answered with QUIET */
    uint64_t passes;
    uint64_t memory;   /* when it began */
    unsigned unsynced; /* what a run before it left on the disk; it is written elsewhere again */
    bool draining;
    uint64_t drain_ns, quiet_ns; /* DRAIN was said; all were quiet for the first time */
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

static struct rh_snapshot *snapshot_of(const struct rh_config *cfg)
{
    struct rh_config *copy;
    struct rh_snapshot *s;

    SIM_CHECK(rh_config_copy(cfg, &copy) == RH_OK, "no copy of the configuration");
    s = rh_snapshot_make(copy);
    SIM_CHECK(s, "no snapshot");
    return s;
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
        .segment_bytes = SEGMENT_BYTES,
    };
    disk_by_hand(true);
    rh_tid_set((int)hub.env.ack);
    SIM_CHECK(rh_ack_create(&hub.store_env, &hub.ack, &fault) == RH_OK, "no ack thread: %s",
              fault.text);
    rh_tid_set((int)hub.env.record);
    SIM_CHECK(rh_record_create(&hub.store_env, &hub.record, &fault) == RH_OK,
              "no record thread: %s", fault.text);
    hub.running[hub.env.ack] = hub.running[hub.env.record] = true;
    hub.on_disk = hub.record->files != NULL;
}

static bool all_loaded(void)
{
    for (unsigned i = 0; i < hub.shards; i++)
        if (!hub.all[i]->loaded)
            return false;
    return true;
}

void sim_hub_start(const struct rh_config *cfg)
{
    struct rh_fault fault;

    memset(&hub, 0, sizeof(hub));
    hub.memory = sim_mem_mark();
    hub.unsynced = disk_unsynced_bytes();
    hub.shards = cfg->shards;
    hub.members = cfg->shards + 3;
    rh_assert(hub.shards <= SHARDS_MAX);
    hub.snapshot = snapshot_of(cfg);
    SIM_CHECK(rh_limit_create(&hub.limits) == RH_OK, "no limits");
    SIM_CHECK(rh_net_create(hub.members, wake, NULL, &hub.net) == RH_OK, "no net");
    rh_rand_bytes(&hub.env.hash_key, sizeof(hub.env.hash_key));
    hub.env.snapshot = hub.snapshot;
    hub.env.limits = hub.limits;
    hub.env.net = hub.net;
    hub.env.shards = hub.shards;
    hub.env.control = hub.shards;
    hub.env.ack = hub.shards + 1;
    hub.env.record = hub.shards + 2;
    hub.env.promises = &hub.promises;
    hub.env.node = "0123456789ab";
    hub.env.all = hub.all;
    hub.env.files = sim_knobs.files;
    for (unsigned i = 0; i < hub.shards; i++) {
        int listeners[RH_LISTEN_MAX];

        for (unsigned k = 0; k < cfg->listen.count; k++)
            listeners[k] = sim_listen();
        rh_tid_set((int)i);
        SIM_CHECK(rh_shard_create(&hub.env, i, listeners, &hub.all[i], &fault) == RH_OK,
                  "no shard: %s", fault.text);
        hub.running[i] = true;
    }
    start_store();
    rh_tid_set(RH_TID_NONE);
    while (!all_loaded())
        sim_hub_run(sim_now() + SIM_MS);
}

unsigned sim_hub_shard_of(const char *name)
{
    return rh_hash_shard(rh_hash(&hub.env.hash_key, name, strlen(name)), hub.shards);
}

/* ---- what must hold between passes ---- */

/* It sleeps, and nobody wakes it. */
static bool asleep(unsigned tid)
{
    if (!hub.running[tid])
        return false;
    if (tid < hub.shards)
        return sim_uring_asleep(hub.all[tid]->uring) && !sim_uring_woken(hub.all[tid]->uring);
    if (tid == hub.env.record && hub.on_disk)
        return disk_asleep() && disk_wait_ms() > NAP_MS;
    return sim_bell_asleep(tid);
}

static void check_pass(unsigned tid)
{
    SIM_CHECK(tid >= hub.shards || sim_uring_lent(hub.all[tid]->uring) == 0,
              "shard %u keeps a buffer after its pass", tid);
    SIM_CHECK(++hub.passes < PASSES_MAX, "thread %u spins", tid);
    for (unsigned to = 0; to < hub.members; to++)
        for (unsigned from = 0; from < hub.members && asleep(to); from++)
            SIM_CHECK(rh_net_depth_any(hub.net, from, to) == 0,
                      "thread %u sleeps over an event of %u", to, from);
}

/* ---- the disk ---- */

/* It goes on at a time of its own, as long as something is under way. */
static void turn_disk(void *arg)
{
    (void)arg;
    hub.disk_turning = false;
    if (!hub.on_disk || !hub.running[hub.env.record])
        return; /* it has died since */
    disk_turn();
    hub.disk_turning = rh_files_busy(hub.record->files);
    if (hub.disk_turning)
        sim_at(sim_soon(), turn_disk, NULL);
}

static void note_disk(void)
{
    hub.disk_sleep_ns = disk_wait_ms() < SIM_S ? sim_now() + disk_wait_ms() * SIM_MS : SIM_NEVER;
    if (hub.disk_turning || !rh_files_busy(hub.record->files))
        return;
    hub.disk_turning = true;
    sim_at(sim_soon(), turn_disk, NULL);
}

/* ---- one pass of one thread ---- */

static void shard_pass(struct rh_shard *sh)
{
    sim_uring_wake_up(sh->uring);
    hub.running[sh->tid] = rh_shard_pass(sh);
    rh_mem_fail_nth(0);
    if (hub.running[sh->tid])
        rh_shard_wait(sh);
}

static void ack_pass(unsigned tid)
{
    sim_bell_wake_up(tid);
    hub.running[tid] = rh_ack_pass(hub.ack);
    rh_mem_fail_nth(0);
    if (hub.running[tid])
        rh_ack_wait(hub.ack);
}

static void record_pass(unsigned tid)
{
    if (!hub.on_disk)
        sim_bell_wake_up(tid);
    hub.running[tid] = rh_record_pass(hub.record);
    rh_mem_fail_nth(0);
    if (hub.running[tid])
        rh_record_wait(hub.record);
    if (hub.running[tid] && hub.on_disk)
        note_disk();
}

static void trace_hops(unsigned from, const uint32_t before[MEMBERS_MAX])
{
    for (unsigned to = 0; to < hub.members; to++) {
        uint32_t after = rh_net_depth_any(hub.net, from, to);

        if (after > before[to])
            sim_trace("hop %u -> %u: %u events", from, to, after - before[to]);
    }
}

static void pass(unsigned tid)
{
    uint32_t before[MEMBERS_MAX] = {0};

    for (unsigned to = 0; to < hub.members; to++)
        before[to] = rh_net_depth_any(hub.net, tid, to);
    rh_tid_set((int)tid);
    if (sim_chance(sim_knobs.bad_allocs))
        rh_mem_fail_nth(1 + sim_below(4));
    if (tid < hub.shards)
        shard_pass(hub.all[tid]);
    else if (tid == hub.env.ack)
        ack_pass(tid);
    else
        record_pass(tid);
    trace_hops(tid, before);
    rh_tid_set(RH_TID_NONE);
    if (sim_chance(sim_knobs.stalls))
        hub.stalled[tid] = sim_now() + sim_below(STALL_MS) * SIM_MS;
    check_pass(tid);
}

/* ---- who runs next ---- */

static uint64_t wakes(unsigned tid)
{
    if (tid < hub.shards)
        return sim_uring_due(hub.all[tid]->uring);
    if (tid == hub.env.record && hub.on_disk)
        return disk_asleep() ? hub.disk_sleep_ns : sim_now();
    return sim_bell_due(tid);
}

static uint64_t due(unsigned tid)
{
    return hub.running[tid] ? RH_MAX(wakes(tid), hub.stalled[tid]) : SIM_NEVER;
}

/* False: nothing happens before `until_ns`. */
static bool step(uint64_t until_ns)
{
    uint64_t next = sim_next_event();
    unsigned count = 0, chosen = 0;

    for (unsigned i = 0; i < hub.members; i++) {
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

/* Some threads, by tid. */
struct some {
    unsigned first, count;
};

static struct some shards(void)
{
    return (struct some){0, hub.shards};
}

static bool all_quiet(struct some whom, uint64_t round)
{
    for (unsigned i = whom.first; i < whom.first + whom.count; i++)
        if (hub.quiet_round[i] != round)
            return false;
    return true;
}

/* The control thread looks for reports now and then, once it has said DRAIN. */
static void control(void)
{
    struct rh_mesh *mesh = rh_net_member(hub.net, hub.shards);

    rh_mesh_awake(mesh);
    rh_mesh_pop(mesh, on_control_event, NULL);
    rh_mesh_publish(mesh);
    if (!hub.quiet_ns && all_quiet(shards(), 1))
        hub.quiet_ns = sim_now();
}

static void run_threads(uint64_t until_ns)
{
    while (sim_now() < until_ns && step(until_ns))
        ;
    sim_move_clock(RH_MAX(until_ns, sim_now()));
    sim_run_events();
}

void sim_hub_run(uint64_t until_ns)
{
    while (hub.draining && sim_now() < until_ns) {
        run_threads(RH_MIN(until_ns, sim_now() + CONTROL_NAP));
        control();
    }
    if (!hub.draining)
        run_threads(until_ns);
}

/* ---- the end ---- */

static void check_gauge(enum rh_stat stat, const char *what)
{
    struct rh_stats *blocks[MEMBERS_MAX];
    unsigned count = hub.shards;
    int64_t sum;

    for (unsigned i = 0; i < hub.shards; i++)
        blocks[i] = rh_shard_stats_any(hub.all[i]);
    blocks[count++] = rh_ack_stats_any(hub.ack);
    blocks[count++] = rh_record_stats_any(hub.record);
    sum = rh_stat_sum(blocks, count, stat);
    SIM_CHECK(sum == 0, "the gauge of %s says %lld", what, (long long)sum);
}

/* All gauges that shards keep, but those of families. Those of send queues are a second old. */
enum { SIM_COUNTER, SIM_GAUGE };

static const struct {
    enum rh_stat stat;
    bool gauge;
    const char *name;
} stats[] = {
    {RH_STAT_connections_websocket, SIM_GAUGE, "connections"},
#define RH_STAT_ONE(id, kind, name, help) {RH_STAT_##id, SIM_##kind, name},
#include "core/stat.def"
};

static void check_rooms_shard(const struct rh_shard *sh, bool rooms)
{
    SIM_CHECK(!rooms || (rh_map_count(&sh->rooms) == 0 && rh_map_count(&sh->rooms_by_uid) == 0),
              "shard %u has %zu rooms (%zu by uid)", sh->tid, rh_map_count(&sh->rooms),
              rh_map_count(&sh->rooms_by_uid));
    SIM_CHECK(rh_map_count(&sh->branches) == 0, "shard %u has %zu branches", sh->tid,
              rh_map_count(&sh->branches));
    SIM_CHECK(rh_map_count(&sh->subs) == 0, "shard %u has %zu subscriptions", sh->tid,
              rh_map_count(&sh->subs));
    SIM_CHECK(sh->sessions == 0 && rh_list_empty(&sh->detached), "shard %u has %llu sessions",
              sh->tid, (unsigned long long)sh->sessions);
    SIM_CHECK(rh_list_empty(&sh->running) && rh_list_empty(&sh->unreported) &&
                  rh_list_empty(&sh->held_rooms) && rh_list_empty(&sh->wanted) &&
                  rh_list_empty(&sh->ending) && sh->stray_count == 0,
              "shard %u has something of a room on a list", sh->tid);
    SIM_CHECK(rh_list_empty(&sh->broadcasts) && sh->broadcasts_out == 0,
              "shard %u has a broadcast under way", sh->tid);
}

/* No context is left, and nothing is counted but what a shard's connections share. */
static void check_compression(const struct rh_shard *sh)
{
    const struct rh_squeeze *sq = &sh->stock.squeeze;
    uint64_t counted =
        atomic_load_explicit(&sh->stats.v[RH_STAT_compression_bytes], memory_order_relaxed);

    SIM_CHECK(rh_map_count(&sq->contexts) == 0, "shard %u has contexts", sh->tid);
    SIM_CHECK(counted == sq->held, "shard %u counts %llu bytes of compression, and has %llu",
              sh->tid, (unsigned long long)counted, (unsigned long long)sq->held);
}

/* Nobody is connected: who is here is owed something. */
static void check_user(void *arg, struct rh_map_node *node)
{
    const struct rh_user *user = rh_container_of(node, struct rh_user, node);

    (void)arg;
    SIM_CHECK(rh_owed_any(user), "%.*s is here for nothing", user->name_len, user->name);
}

static void check_empty_shard(struct rh_shard *sh, bool rooms)
{
    unsigned accepts = RH_ACCEPTS * sh->listener_count;
    unsigned flying = sim_uring_flying(sh->uring);
    size_t retries = 0;

    check_rooms_shard(sh, rooms);
    check_compression(sh);
    SIM_CHECK(sh->conn_count == 0, "shard %u has %u connections", sh->tid, sh->conn_count);
    rh_map_each(&sh->users, check_user, NULL);
    SIM_CHECK(rh_mesh_quiet(sh->mesh), "shard %u has credit or a spill out", sh->tid);
    SIM_CHECK(sh->stock.messages == 0 && sh->stock.bytes == 0,
              "shard %u counts %llu messages and %llu bytes in queues", sh->tid,
              (unsigned long long)sh->stock.messages, (unsigned long long)sh->stock.bytes);
    SIM_CHECK(rh_list_empty(&sh->starved) && rh_list_empty(&sh->graveyard) &&
                  rh_list_empty(&sh->turns) && sh->dirty_count == 0,
              "shard %u has something on a list", sh->tid);
    for (unsigned i = 0; i < RH_SHARDS_MAX; i++)
        SIM_CHECK(rh_list_empty(&sh->credit[i]), "shard %u: somebody waits for a credit", sh->tid);
    SIM_CHECK(flying <= accepts, "shard %u has %u operations under way", sh->tid, flying);
    for (unsigned i = 0; i < sh->listener_count; i++)
        retries += rh_timer_armed(&sh->listeners[i].retry.timer);
    SIM_CHECK(rh_wheel_count(&sh->wheel) == 0, "shard %u has %zu timers", sh->tid,
              rh_wheel_count(&sh->wheel));
    SIM_CHECK(rh_wheel_count(&sh->alarms) == retries + rh_map_count(&sh->rooms),
              "shard %u has %zu alarms, of which %zu retries", sh->tid, rh_wheel_count(&sh->alarms),
              retries);
}

/* Empty rooms live on for rooms.empty_ttl. */
static bool of_rooms(enum rh_stat stat)
{
    return stat == RH_STAT_rooms || stat == RH_STAT_room_history_bytes;
}

/* Gauges that are not 0 when nobody is here, or are a second old. */
static bool stays(enum rh_stat stat)
{
    static const enum rh_stat staying[] = {
        RH_STAT_send_queue_messages, RH_STAT_send_queue_bytes,    RH_STAT_compression_bytes,
        RH_STAT_dedup_ids,           RH_STAT_store_backlog_bytes, RH_STAT_store_uncommitted_bytes,
        RH_STAT_journal_segments,
    };

    for (size_t i = 0; i < RH_COUNT(staying); i++)
        if (staying[i] == stat)
            return true;
    return false;
}

void sim_hub_check_empty(bool rooms)
{
    for (unsigned i = 0; i < hub.shards; i++)
        check_empty_shard(hub.all[i], rooms);
    for (size_t i = 0; i < RH_COUNT(stats); i++)
        if (stats[i].gauge && (rooms || !of_rooms(stats[i].stat)) && !stays(stats[i].stat))
            check_gauge(stats[i].stat, stats[i].name);
    SIM_CHECK(rh_limit_conns_any(hub.limits) == 0, "%u connections are counted",
              rh_limit_conns_any(hub.limits));
    SIM_CHECK(rh_limit_handshakes_any(hub.limits) == 0, "%u handshakes are counted",
              rh_limit_handshakes_any(hub.limits));
}

/* ---- reload, as shard/hub.c does it ---- */

void sim_hub_reload(const struct rh_config *want)
{
    struct rh_mesh *mesh = rh_net_member(hub.net, hub.shards);
    struct rh_config_changes changes;
    struct rh_config *next;

    SIM_CHECK(rh_config_reload(hub.snapshot->cfg, want, &next, &changes) == RH_OK, "no reload");
    sim_trace("control reloads: %s", changes.applied);
    rh_snapshot_drop_any(hub.snapshot);
    hub.snapshot = rh_snapshot_make(next);
    SIM_CHECK(hub.snapshot, "no snapshot");
    rh_tid_set((int)hub.shards);
    for (unsigned i = 0; i < hub.members; i++) {
        struct rh_event ev = {.kind = RH_EV_CONFIG, .msg = hub.snapshot};

        if (i == hub.env.control)
            continue;
        rh_snapshot_hold_any(hub.snapshot);
        SIM_CHECK(rh_mesh_tell(mesh, i, &ev) == RH_OK, "no memory for CONFIG");
    }
    rh_mesh_publish(mesh);
    rh_tid_set(RH_TID_NONE);
}

/* ---- draining ---- */

static void tell(struct some whom, enum rh_event_kind kind, uint64_t round)
{
    struct rh_mesh *mesh = rh_net_member(hub.net, hub.shards);

    sim_trace("control tells %u from %u on %s", whom.count, whom.first, rh_event_name(kind));
    rh_tid_set((int)hub.shards);
    for (unsigned i = whom.first; i < whom.first + whom.count; i++) {
        struct rh_event ev = {.kind = (uint8_t)kind, .a = round};

        SIM_CHECK(rh_mesh_tell(mesh, i, &ev) == RH_OK, "no memory for %s", rh_event_name(kind));
    }
    rh_mesh_publish(mesh);
    rh_tid_set(RH_TID_NONE);
}

void sim_hub_drain(void)
{
    hub.draining = true;
    hub.drain_ns = sim_now();
    tell(shards(), RH_EV_DRAIN, 1);
}

bool sim_hub_draining(void)
{
    return hub.draining;
}

static void await_quiet(struct some whom, uint64_t round)
{
    uint64_t deadline = sim_now() + STOP_TIME;

    while (!all_quiet(whom, round)) {
        SIM_CHECK(sim_now() < deadline, "%u threads from %u on do not come to rest", whom.count,
                  whom.first);
        sim_hub_run(sim_now() + CONTROL_NAP);
    }
}

static void stop(struct some whom)
{
    uint64_t deadline = sim_now() + STOP_TIME;

    tell(whom, RH_EV_STOP, 0);
    for (unsigned i = whom.first; i < whom.first + whom.count; i++)
        while (hub.running[i]) {
            SIM_CHECK(sim_now() < deadline, "thread %u does not stop", i);
            sim_hub_run(sim_now() + CONTROL_NAP);
        }
}

/* Whatever happens: but a shard that stands still does it when it goes on. */
static void check_grace(void)
{
    uint64_t grace = hub.snapshot->cfg->shutdown_grace_ms * SIM_MS;
    uint64_t took = hub.quiet_ns - hub.drain_ns;

    SIM_CHECK(sim_knobs.stalls || grace < GRACE_CHECKED || took <= grace, "the drain took %llu ms",
              (unsigned long long)(took / SIM_MS));
}

static void destroy_all(void)
{
    for (unsigned i = 0; i < hub.shards; i++) {
        SIM_CHECK(hub.all[i]->slots == 0, "shard %u has promised %u slots for nothing", i,
                  hub.all[i]->slots);
        rh_tid_set((int)i);
        rh_shard_destroy(hub.all[i]);
    }
    rh_tid_set(RH_TID_NONE);
    disk_by_hand(false); /* it waits for what is still under way */
    rh_ack_destroy(hub.ack);
    rh_record_destroy(hub.record);
    rh_net_destroy(hub.net);
    rh_limit_destroy(hub.limits);
    rh_snapshot_drop_any(hub.snapshot);
}

void sim_hub_crash(bool power)
{
    uint64_t seed = sim_rand();

    sim_trace("the hub dies%s", power ? " with its machine" : "");
    if (hub.on_disk) {
        power ? disk_cut(seed) : disk_kill(seed);
        rh_files_destroy(hub.record->files);
    }
    for (unsigned i = 0; i < hub.shards; i++)
        rh_uring_destroy(hub.all[i]->uring);
    sim_table_close(&sim_process);
    sim_bells_drop();
    sim_mem_drop(hub.memory);
    memset(&hub, 0, sizeof(hub));
}

void sim_hub_stop(bool empty)
{
    const struct some ack = {hub.env.ack, 1}, record = {hub.env.record, 1};

    await_quiet(shards(), 1);
    check_grace();
    tell(shards(), RH_EV_DRAIN, 2);
    await_quiet(shards(), 2);
    if (empty)
        sim_hub_check_empty(false);
    stop(ack);
    tell(record, RH_EV_DRAIN, 1);
    await_quiet(record, 1);
    tell(shards(), RH_EV_DRAIN, 3);
    await_quiet(shards(), 3);
    stop(shards());
    stop(record);
    /* A segment that was removed may come back: it is known to be over. */
    SIM_CHECK(sim_knobs.bad_disk || disk_unsynced_bytes() <= hub.unsynced,
              "the disk has %u things that a power cut would take", disk_unsynced_bytes());
    destroy_all();
    SIM_CHECK(disk_open_fds() == 0, "%u files of the journal are open", disk_open_fds());
    SIM_CHECK(sim_fds_open() == 0 && sim_files_open() == 0, "%u descriptors, %u files are open",
              sim_fds_open(), sim_files_open());
}
