/* store/record.c - the record thread: what is promised becomes durable, and is then told.
 *
 *   wait ─► disk's completions ─► events of shards ─► journal ─► what became durable is told ─► wait
 *
 * Why this way: shards never wait for a disk; they tell what they accepted, handed out and settled, and
 * hear when it is durable. All of them together are one stream here, so that one write and one sync
 * serve whatever gathered during the last one. What is known of all promises together is a back
 * end's (store/backend.h); the journal is what survives.
 *
 * Memory     Handling an event cannot fail: what 1,024 events may need is there before they are popped.
 *            Without memory for that the events stay in the rings.
 * Starting   rh_record_create reads the journal; the first passes tell the shards, and LOADED.
 * Ending     DRAIN: QUIET when all that was popped is durable and told, or when the store fails and
 *            everybody knows. STOP: a last commit, STOP_MS at most.
 */
#include "store/record_int.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/thread.h"

#define ADJUST_MS     1000
#define WAIT_MS_MAX   1000
#define STOP_MS       2000
#define NAP_MS        1 /* a ring is full, or memory is short: others need the processor more */
#define REAP          16
#define DESTROY_TRIES 100
#define DESTROY_MS    100
#define TELLS_EVENT   3 /* that one event may cause */

/* ---- life ---- */

static void clocks_init(struct rh_record *r)
{
    uint64_t now_ns = rh_clock_mono_ns();

    r->now_ms = now_ns / 1000000;
    rh_hubtime_init(&r->hubtime, now_ns, rh_clock_wall_us());
    r->hub_ms = rh_hubtime_us(&r->hubtime, now_ns) / 1000;
    r->adjust_ms = r->now_ms + ADJUST_MS;
}

static void clocks_read(struct rh_record *r)
{
    uint64_t now_ns = rh_clock_mono_ns();

    r->now_ms = now_ns / 1000000;
    if (r->now_ms >= r->adjust_ms) {
        rh_hubtime_adjust(&r->hubtime, now_ns, rh_clock_wall_us());
        r->adjust_ms = r->now_ms + ADJUST_MS;
    }
    r->hub_ms = rh_hubtime_us(&r->hubtime, now_ns) / 1000;
}

void rh_record_wake_any(struct rh_record *r)
{
    if (r->files)
        rh_files_wake_any(r->files);
    else
        rh_bell_ring_any(r->bell);
}

static void wake(void *arg)
{
    rh_record_wake_any(arg);
}

static uint64_t ids_max(const struct rh_record *r)
{
    return (uint64_t)r->cfg->dedup_max * r->env->shards;
}

static int open_all(struct rh_record *r, struct rh_fault *fault)
{
    struct rh_backend_opts opts = {.names = &r->names,
                                   .now_ms = r->hub_ms,
                                   .ids_max = ids_max(r),
                                   .wake = wake,
                                   .wake_arg = r};
    int rc;

    if (r->cfg->store_durability == RH_DURABILITY_COMMIT)
        rc = rh_files_create(r->cfg->store_path, &r->files, fault);
    else if ((rc = rh_bell_create(&r->bell)) < 0)
        rh_fault_set(fault, rc, "no descriptor for the record thread");
    if (rc < 0)
        return rc;
    rc = rh_backend_memory.open(&opts, &r->backend, fault);
    return rc < 0 ? rc : rh_record_read(r, fault);
}

int rh_record_create(const struct rh_store_env *env, struct rh_record **ret_record,
                     struct rh_fault *fault)
{
    struct rh_record *r = rh_mem_zalloc_aligned(sizeof(*r));
    int rc;

    if (!r)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the record thread");
    r->env = env;
    RH_ON_RECORD(r);
    atomic_store_explicit(&env->promises->gate, RH_GATE_LOADING, memory_order_relaxed);
    r->mesh = rh_net_member(env->net, env->record);
    r->names = (struct rh_kept_names){env->hash_key, env->shards};
    r->segment_bytes = env->segment_bytes ? env->segment_bytes : RH_SEGMENT_BYTES;
    rh_snapshot_hold_any(env->snapshot);
    r->snapshot = env->snapshot;
    r->cfg = r->snapshot->cfg;
    r->kepts.size = sizeof(struct rh_kept);
    r->tells.size = sizeof(struct rh_tell);
    rh_list_init(&r->fresh);
    rh_list_init(&r->loose);
    r->next_number = 1;
    r->load.on = true;
    clocks_init(r);
    rc = open_all(r, fault);
    if (rc < 0) {
        rh_record_destroy(r);
        return rc;
    }
    /* relaxed: LOADED, which comes behind it through a ring, makes it seen */
    atomic_store_explicit(&env->promises->newest_ms, r->newest_ms, memory_order_relaxed);
    *ret_record = r;
    return RH_OK;
}

static void reap(struct rh_record *r)
{
    struct rh_file_cqe cqes[REAP];
    unsigned n;

    if (!r->files)
        return;
    do {
        n = rh_files_reap(r->files, cqes, REAP);
        for (unsigned i = 0; i < n; i++)
            rh_journal_done(r->journal, &cqes[i]);
    } while (n == REAP);
}

/* What is under way reads the journal's memory: waits for it, but not without end. */
static bool disk_is_quiet(struct rh_record *r)
{
    for (int i = 0; r->journal && rh_files_busy(r->files) && i < DESTROY_TRIES; i++) {
        if (rh_files_enter(r->files, DESTROY_MS) < 0)
            return true; /* the ring is dead: nothing is under way any more */
        reap(r);
    }
    return !r->journal || !rh_files_busy(r->files);
}

static void drop_list(struct rh_record *r, struct rh_list *list)
{
    while (!rh_list_empty(list)) {
        struct rh_kept *k = rh_container_of(list->next, struct rh_kept, list);

        rh_list_del(&k->list);
        rh_tells_drop(r, k);
        rh_kept_destroy(k);
    }
}

static void drop_all(struct rh_record *r)
{
    for (struct rh_map_node *node = r->again ? &r->again->node : NULL; node; node = node->next)
        rh_tells_drop(r, rh_container_of(node, struct rh_kept, node));
    drop_list(r, &r->fresh);
    drop_list(r, &r->loose);
    rh_tells_fini(r);
}

void rh_record_destroy(struct rh_record *r)
{
    if (!r)
        return;
    if (!disk_is_quiet(r)) { /* what the kernel may still read is left to the process's end */
        rh_log(RH_LOG_ERROR, "store.hangs", RH_KU("operations", rh_files_busy(r->files)));
        r->journal = NULL;
        r->files = NULL;
    }
    rh_journal_close(r->journal);
    rh_files_destroy(r->files);
    rh_bell_destroy(r->bell);
    drop_all(r);
    rh_record_load_fini(r);
    if (r->backend)
        r->backend->ops->close(r->backend);
    rh_stock_fini(&r->kepts);
    rh_stock_fini(&r->tells);
    rh_mem_free(r->shares);
    rh_snapshot_drop_any(r->snapshot);
    rh_snapshot_drop_any(r->next_snapshot);
    rh_mem_free(r);
}

struct rh_stats *rh_record_stats_any(struct rh_record *r)
{
    return &r->stats;
}

/* ---- one pass ---- */

static void use_next_snapshot(struct rh_record *r)
{
    if (!r->next_snapshot)
        return;
    rh_snapshot_drop_any(r->snapshot);
    r->snapshot = r->next_snapshot;
    r->next_snapshot = NULL;
    r->cfg = r->snapshot->cfg;
}

static void take_events(struct rh_record *r)
{
    if (rh_stock_fill(&r->kepts, RH_MESH_POP) < 0 ||
        rh_stock_fill(&r->tells, TELLS_EVENT * RH_MESH_POP) < 0) {
        r->starved = true;
        rh_stat_inc(&r->stats, RH_STAT_memory_failures);
        return;
    }
    rh_mesh_pop(r->mesh, rh_record_on_event, r);
}

/* After a start nothing is over before the newest time that was stored. */
static void turn(struct rh_record *r)
{
    struct rh_backend_turn now = {
        .now_ms = r->hub_ms >= r->newest_ms ? r->hub_ms : 0,
        .ids_max = ids_max(r),
        .durable = r->durable,
    };

    r->backend->ops->step(r->backend, &now);
}

static bool all_told(const struct rh_record *r)
{
    return !r->now.first && !r->later.first && !rh_record_unwritten(r);
}

/* Is there nothing to wait for any more? While the store fails there is not: what it cannot take now
 * was promised to nobody. */
static bool is_quiet(const struct rh_record *r)
{
    return !r->load.on && (all_told(r) || (rh_record_failing(r) && !r->now.first));
}

static void report_quiet(struct rh_record *r)
{
    struct rh_event ev = {.kind = RH_EV_QUIET, .a = r->drain_round};

    if (r->quiet_round == r->drain_round || !is_quiet(r) || !rh_mesh_quiet(r->mesh))
        return;
    if (rh_mesh_tell(r->mesh, r->env->control, &ev) == RH_OK) /* else in the next pass */
        r->quiet_round = r->drain_round;
}

static void gauges(struct rh_record *r)
{
    struct rh_backend_stat stat;
    struct rh_journal_stat journal;

    r->backend->ops->stat(r->backend, &stat);
    rh_stat_set(&r->stats, RH_STAT_store_messages, stat.messages);
    rh_stat_set(&r->stats, RH_STAT_store_backlog_bytes, stat.bytes);
    rh_stat_set(&r->stats, RH_STAT_store_uncommitted_bytes, rh_record_uncommitted(r));
    if (!r->journal)
        return;
    rh_journal_stat(r->journal, &journal);
    rh_stat_set(&r->stats, RH_STAT_store_failures, journal.failures);
    rh_stat_set(&r->stats, RH_STAT_journal_commits, journal.commits);
    rh_stat_set(&r->stats, RH_STAT_journal_events, journal.events);
    rh_stat_set(&r->stats, RH_STAT_journal_bytes, journal.bytes);
    rh_stat_set(&r->stats, RH_STAT_journal_segments, rh_journal_files(r->journal));
}

bool rh_record_pass(struct rh_record *r)
{
    RH_ON_RECORD(r);
    rh_mesh_awake(r->mesh);
    clocks_read(r);
    use_next_snapshot(r);
    r->starved = false;
    reap(r);
    take_events(r);
    turn(r);
    rh_record_load(r);
    rh_record_write(r);
    rh_record_gate(r);
    rh_tells_send(r);
    rh_mesh_publish(r->mesh);
    report_quiet(r);
    gauges(r);
    rh_mesh_publish(r->mesh);
    if (!r->stop_ms)
        return true;
    return !is_quiet(r) && r->now_ms < r->stop_ms + STOP_MS;
}

/* ---- waiting ---- */

static uint64_t spilled(const struct rh_record *r)
{
    struct rh_mesh_stat stat;

    rh_mesh_stat_any(r->mesh, &stat);
    return stat.spill_events;
}

/* ms until there is something to do without an event or a completion. */
static uint64_t next_ms(const struct rh_record *r)
{
    uint64_t ms = WAIT_MS_MAX;

    if (r->starved || r->now.first || r->broken || r->stop_ms)
        return NAP_MS;
    if (r->load.on || rh_record_could_write(r))
        return 0;
    if (spilled(r))
        return NAP_MS;
    if (!r->journal)
        return ms;
    ms = RH_MIN(ms, rh_journal_next_ms(r->journal, r->now_ms));
    return rh_record_failing(r) ? ms : RH_MIN(ms, rh_record_late_ms(r));
}

static void sleep_ms(struct rh_record *r, uint64_t ms)
{
    if (!r->files) {
        rh_bell_wait(r->bell, ms);
    } else if (rh_files_enter(r->files, ms) < 0) {
        if (!r->broken)
            rh_log(RH_LOG_ERROR, "store.broken", RH_KS("why", "its ring does not work any more"));
        r->broken = true;
        rh_clock_nap_ms(NAP_MS);
    }
}

void rh_record_wait(struct rh_record *r)
{
    uint64_t ms = next_ms(r);

    RH_ON_RECORD(r);
    if (!rh_mesh_sleep(r->mesh) && ms != NAP_MS)
        ms = 0;
    sleep_ms(r, ms);
    if (r->load.on)
        rh_thread_yield(); /* to the shards, which take what they are told */
}
