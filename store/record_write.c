/* store/record_write.c - into the journal: what gathered while the last commit ran.
 *
 *   accepted ─► fresh ──the journal is idle──► one batch ──► write, sync ──► durable ─► told
 *                                               ^  what old segments alone say (copied forward)
 *
 * Why this way: a message stays fresh as long as a commit runs, so what is acknowledged meanwhile is
 * folded and never written; under load a commit takes in everything that gathered during the last one.
 *
 * Forward    When more than SEGMENTS_MIN segments are in use, and they have more than GARBAGE times the
 *            bytes that are owed or ids, the oldest goes: what it alone says is put again, FORWARD_BYTES
 *            a batch at most; it is released when that is durable. So the journal is bounded by what
 *            it is needed for, and so is what is written again.
 * Full disk  When the next segment cannot be prepared the oldest goes earlier, if what is needed of
 *            it has room in the present one. The last part of that is not for new promises
 *            (record_tell.c), but for what ends: so a disk that is full of what is owed is freed when
 *            that is acknowledged.
 * Memory     What cannot be put for want of it stays fresh, or is put again as a whole.
 * Without a journal all this is the same, and durable as soon as it is put.
 */
#include "core/mem.h"
#include "store/record_int.h"

#define BATCH_BYTES                                                                                \
    (8u << 20) /* then the next begins: a commit is to end within RH_COMMIT_MS_MAX */
#define FORWARD_BYTES (256u << 10)
#define SEGMENTS_MIN  4
#define GARBAGE       4
#define TIME_MS       1000

uint64_t rh_record_segment(const struct rh_record *r)
{
    return r->journal ? rh_journal_newest(r->journal) : 1;
}

int rh_record_put(struct rh_record *r, const struct rh_jot *jot)
{
    if (!r->journal)
        return RH_OK;
    if (rh_journal_put(r->journal, jot) < 0) {
        r->starved = true;
        rh_stat_inc(&r->stats, RH_STAT_memory_failures);
        return RH_ENOMEM;
    }
    r->put_batch = rh_journal_open_batch(r->journal);
    return RH_OK;
}

uint64_t rh_record_uncommitted(const struct rh_record *r)
{
    return r->fresh_bytes + (r->journal ? rh_journal_waiting_bytes(r->journal) : 0);
}

bool rh_record_unwritten(const struct rh_record *r)
{
    return !rh_list_empty(&r->fresh) || r->again || r->put_batch > r->durable;
}

void rh_record_again(struct rh_record *r, struct rh_kept *k)
{
    k->flags |= RH_KEPT_AGAIN;
    k->node.next = r->again ? &r->again->node : NULL;
    r->again = k;
}

/* ---- messages ---- */

static int room_for_shares(struct rh_record *r, uint32_t count)
{
    struct rh_jot_share *shares;

    if (count <= r->share_room)
        return RH_OK;
    shares = rh_mem_realloc(r->shares, count * sizeof(*shares));
    if (!shares)
        return RH_ENOMEM;
    r->shares = shares;
    r->share_room = count;
    return RH_OK;
}

static int put_owed(struct rh_record *r, struct rh_kept *k)
{
    struct rh_jot jot;

    if (room_for_shares(r, RH_MAX(rh_kept_count(k), 1u)) < 0)
        return RH_ENOMEM;
    rh_kept_owed(k, &jot, r->shares);
    if (rh_record_put(r, &jot) < 0)
        return RH_ENOMEM;
    r->backend->ops->apply(r->backend, rh_record_segment(r), &jot, k);
    return RH_OK;
}

/* It has ended already, but its sender gave it an id. */
static int put_folded(struct rh_record *r, struct rh_kept *k)
{
    struct rh_jot jot;

    rh_kept_id(k, &jot);
    if (rh_record_put(r, &jot) < 0)
        return RH_ENOMEM;
    r->backend->ops->apply(r->backend, rh_record_segment(r), &jot, NULL);
    rh_stat_inc(&r->stats, RH_STAT_journal_folded);
    rh_tells_behind(r, k);
    rh_record_give(r, k);
    return RH_OK;
}

static int put_fresh(struct rh_record *r, struct rh_kept *k)
{
    if (!k->unsettled)
        return put_folded(r, k);
    if (put_owed(r, k) < 0)
        return RH_ENOMEM;
    k->flags &= (uint8_t)~RH_KEPT_FRESH;
    k->batch = r->put_batch;
    r->fresh_bytes -= rh_kept_bytes(k);
    rh_tells_behind(r, k);
    return RH_OK;
}

static int put_again(struct rh_record *r, struct rh_kept *k)
{
    if (put_owed(r, k) < 0)
        return RH_ENOMEM;
    k->flags &= (uint8_t)~RH_KEPT_AGAIN;
    rh_tells_behind(r, k);
    if (!k->unsettled)
        rh_record_give(r, k);
    return RH_OK;
}

/* ---- old segments ---- */

static bool is_large(const struct rh_record *r)
{
    /* numbers have holes, and files are also spare: there are no more than either says */
    uint64_t numbers = rh_journal_newest(r->journal) - rh_journal_oldest(r->journal) + 1;
    uint64_t files = rh_journal_files(r->journal), segments = RH_MIN(numbers, files);
    uint64_t room = rh_journal_room(r->journal);
    struct rh_backend_stat stat;

    r->backend->ops->stat(r->backend, &stat);
    if (room != UINT64_MAX && segments > 1) {
        /* the disk is full, or soon; with the next one ready only what is cheap */
        uint64_t most =
            rh_journal_next_is_ready(r->journal) ? RH_MIN(room, r->segment_bytes / 4) : room;

        if (2 * stat.oldest_bytes < most)
            return true;
    }
    if (segments <= SEGMENTS_MIN)
        return false;
    return segments * r->segment_bytes > GARBAGE * (stat.bytes + stat.id_bytes);
}

static bool put_forward(void *arg, const struct rh_jot *jot)
{
    struct rh_record *r = arg;
    uint64_t size = rh_jot_size(jot);

    if (r->forward_left < FORWARD_BYTES && size > r->forward_left)
        return false;
    if (rh_record_put(r, jot) < 0)
        return false;
    r->forward_left -= RH_MIN(size, r->forward_left);
    rh_stat_inc(&r->stats, RH_STAT_journal_forwarded);
    return true;
}

static void release(struct rh_record *r)
{
    if (!r->forward_done || r->forward_batch > r->durable)
        return;
    rh_journal_release(r->journal, r->forward_before);
    r->forward_before = 0;
    r->forward_done = false;
}

static void forward(struct rh_record *r)
{
    if (!r->journal || r->load.on || rh_record_failing(r) || r->forward_done)
        return;
    if (!r->forward_before && is_large(r))
        r->forward_before = rh_journal_oldest(r->journal) + 1;
    if (!r->forward_before)
        return;
    r->forward_left = FORWARD_BYTES;
    r->forward_done = r->backend->ops->forward(r->backend, r->forward_before, rh_record_segment(r),
                                               put_forward, r);
    r->forward_batch = r->put_batch;
    release(r); /* nothing of it was needed any more */
}

/* ---- one batch ---- */

/* Hub time does not begin before it after a restart. */
static void put_time(struct rh_record *r)
{
    struct rh_jot jot = {.kind = RH_JOT_TIME, .at_ms = r->hub_ms};

    if (r->put_batch > r->durable && r->hub_ms >= r->told_time_ms + TIME_MS &&
        rh_record_put(r, &jot) == RH_OK)
        r->told_time_ms = r->hub_ms;
}

static bool is_full(const struct rh_record *r)
{
    return r->journal && rh_journal_waiting_bytes(r->journal) >= BATCH_BYTES;
}

static void gather(struct rh_record *r)
{
    while (r->again) {
        struct rh_kept *k = r->again;
        struct rh_map_node *next = k->node.next;

        if (put_again(r, k) < 0)
            return;
        r->again = next ? rh_container_of(next, struct rh_kept, node) : NULL;
    }
    while (!rh_list_empty(&r->fresh) && !is_full(r))
        if (put_fresh(r, rh_container_of(r->fresh.next, struct rh_kept, list)) < 0)
            return;
    forward(r);
    put_time(r);
}

/* What was under way may have become durable. */
static void notice(struct rh_record *r)
{
    uint64_t durable = rh_journal_durable(r->journal);
    struct rh_journal_stat stat;

    if (durable == r->durable)
        return;
    r->durable = durable;
    rh_journal_stat(r->journal, &stat);
    rh_stat_observe(&r->stats, RH_HIST_commit, stat.commit_ns);
    rh_tells_durable(r);
    release(r);
}

bool rh_record_could_write(const struct rh_record *r)
{
    if (!r->journal || rh_journal_state(r->journal) != RH_JOURNAL_IDLE)
        return false;
    return !rh_list_empty(&r->fresh) || r->again || (r->forward_before && !r->forward_done);
}

void rh_record_write(struct rh_record *r)
{
    if (!r->journal) {
        gather(r);
        return;
    }
    if (rh_journal_state(r->journal) == RH_JOURNAL_IDLE)
        gather(r);
    rh_journal_step(r->journal, r->now_ms);
    notice(r);
    if (rh_journal_state(r->journal) == RH_JOURNAL_IDLE) { /* a commit has just ended */
        gather(r);
        rh_journal_step(r->journal, r->now_ms);
        notice(r);
    }
}
