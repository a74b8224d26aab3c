/* store/record_tell.c - what is told, behind which commit, and whether promises can be made at all.
 *
 *   waits with its message --put--> later --its batch is durable--> now --ring--> told
 *                  `---- the store fails: COMMITTED alone, with that error -----^
 *
 * What waits is the event itself, ready to be sent, in one of two queues; `later` is in the order of
 * batches. So whatever is told of a message is told in the order in which it was added: COMMITTED
 * before STATUS. A push that fails for memory leaves the queue as it is, for the next pass.
 *
 * The gate closes for one of the reasons of enum rh_trouble, and opens with the first commit that
 * succeeds, if none of them holds then.
 */
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "store/record_int.h"

/* ---- memory for events ---- */

int rh_stock_fill(struct rh_stock *stock, uint32_t count)
{
    while (stock->count < count) {
        void *piece = rh_mem_alloc(stock->size);

        if (!piece)
            return RH_ENOMEM;
        rh_stock_give(stock, piece);
    }
    return RH_OK;
}

void *rh_stock_take(struct rh_stock *stock)
{
    void *piece = stock->free;

    rh_assert(piece);
    memcpy(&stock->free, piece, sizeof(stock->free));
    stock->count--;
    return piece;
}

void rh_stock_give(struct rh_stock *stock, void *piece)
{
    if (stock->count > 4 * RH_MESH_POP) {
        rh_mem_free(piece);
        return;
    }
    memcpy(piece, &stock->free, sizeof(stock->free));
    stock->free = piece;
    stock->count++;
}

void rh_stock_fini(struct rh_stock *stock)
{
    while (stock->free)
        rh_mem_free(rh_stock_take(stock));
}

/* ---- queues ---- */

static void push(struct rh_tells *q, struct rh_tell *tell)
{
    tell->next = NULL;
    if (q->first)
        q->last->next = tell;
    else
        q->first = tell;
    q->last = tell;
}

static struct rh_tell *pop(struct rh_tells *q)
{
    struct rh_tell *tell = q->first;

    q->first = tell->next;
    return tell;
}

static struct rh_tell *make(struct rh_record *r, unsigned to, const struct rh_event *ev)
{
    struct rh_tell *tell = rh_stock_take(&r->tells);

    *tell = (struct rh_tell){.to = to, .ev = *ev};
    return tell;
}

static void push_behind(struct rh_record *r, struct rh_tell *tell)
{
    tell->batch = r->put_batch;
    push(tell->batch <= r->durable ? &r->now : &r->later, tell);
}

void rh_tell_now(struct rh_record *r, unsigned to, const struct rh_event *ev)
{
    push(&r->now, make(r, to, ev));
}

void rh_tell_behind(struct rh_record *r, unsigned to, const struct rh_event *ev)
{
    push_behind(r, make(r, to, ev));
}

void rh_tell_with(struct rh_record *r, struct rh_kept *k, unsigned to, const struct rh_event *ev)
{
    struct rh_tell **end = &k->tells;

    while (*end)
        end = &(*end)->next;
    *end = make(r, to, ev);
}

void rh_tells_now(struct rh_record *r, struct rh_kept *k)
{
    for (struct rh_tell *tell = k->tells, *next; tell; tell = next) {
        next = tell->next;
        push(&r->now, tell);
    }
    k->tells = NULL;
}

void rh_tells_behind(struct rh_record *r, struct rh_kept *k)
{
    for (struct rh_tell *tell = k->tells, *next; tell; tell = next) {
        next = tell->next;
        push_behind(r, tell);
    }
    k->tells = NULL;
}

void rh_tells_durable(struct rh_record *r)
{
    while (r->later.first && r->later.first->batch <= r->durable)
        push(&r->now, pop(&r->later));
}

void rh_tells_send(struct rh_record *r)
{
    while (r->now.first) {
        struct rh_tell *tell = r->now.first;

        if (rh_mesh_tell(r->mesh, tell->to, &tell->ev) < 0) {
            rh_stat_inc(&r->stats, RH_STAT_memory_failures);
            return;
        }
        rh_stock_give(&r->tells, pop(&r->now));
    }
}

/* Never told: what it moves stays ours. Only COMMITTED moves nothing. */
static void drop(struct rh_record *r, struct rh_tell *tell)
{
    rh_msg_drop_any(tell->ev.msg);
    rh_stock_give(&r->tells, tell);
}

void rh_tells_drop(struct rh_record *r, struct rh_kept *k)
{
    for (struct rh_tell *tell = k->tells, *next; tell; tell = next) {
        next = tell->next;
        drop(r, tell);
    }
    k->tells = NULL;
}

void rh_tells_fini(struct rh_record *r)
{
    while (r->now.first)
        drop(r, pop(&r->now));
    while (r->later.first)
        drop(r, pop(&r->later));
}

/* ---- failing ---- */

/* Takes those who wait for a commit out of a list, and tells them. */
static void fail_list(struct rh_record *r, struct rh_tell **at)
{
    while (*at) {
        struct rh_tell *tell = *at;

        if (tell->ev.kind != RH_EV_COMMITTED) {
            at = &tell->next;
            continue;
        }
        *at = tell->next;
        tell->ev.a = RH_WIRE_store_failed;
        push(&r->now, tell);
    }
}

void rh_tells_fail(struct rh_record *r, struct rh_kept *k)
{
    fail_list(r, &k->tells);
}

static void fail_all(struct rh_record *r)
{
    for (struct rh_list *at = r->fresh.next; at != &r->fresh; at = at->next)
        rh_tells_fail(r, rh_container_of(at, struct rh_kept, list));
    fail_list(r, &r->later.first);
    for (struct rh_tell *tell = r->later.first; tell; tell = tell->next)
        r->later.last = tell;
}

uint64_t rh_record_late_ms(const struct rh_record *r)
{
    uint64_t since = r->journal ? rh_journal_since_ms(r->journal) : 0;

    if (!since)
        return UINT64_MAX;
    return since + RH_COMMIT_MS_MAX > r->now_ms ? since + RH_COMMIT_MS_MAX - r->now_ms : 0;
}

static enum rh_trouble trouble_now(const struct rh_record *r)
{
    if (!r->journal)
        return RH_TROUBLE_NONE;
    if (r->broken || rh_journal_state(r->journal) == RH_JOURNAL_FAILING)
        return RH_TROUBLE_FAILED;
    if (rh_record_late_ms(r) == 0)
        return RH_TROUBLE_SLOW;
    return rh_record_uncommitted(r) > RH_UNCOMMITTED_MAX ? RH_TROUBLE_MUCH : RH_TROUBLE_NONE;
}

static void look_for_trouble(struct rh_record *r)
{
    static const char *const why[] = {
        [RH_TROUBLE_FAILED] = "a write or a sync failed",
        [RH_TROUBLE_SLOW] = "a commit takes too long",
        [RH_TROUBLE_MUCH] = "too much is not committed",
    };
    enum rh_trouble trouble = trouble_now(r);

    if (!rh_record_failing(r)) {
        if (trouble == RH_TROUBLE_NONE)
            return;
        r->trouble = trouble;
        r->trouble_durable = r->durable;
        rh_log(RH_LOG_ERROR, "store.failing", RH_KS("why", why[trouble]),
               RH_KU("uncommitted_bytes", rh_record_uncommitted(r)));
        fail_all(r);
    } else if (trouble == RH_TROUBLE_NONE && r->durable > r->trouble_durable) {
        r->trouble = RH_TROUBLE_NONE;
        rh_log(RH_LOG_WARN, "store.recovered");
    }
}

/* May more be promised? What ends is to have its place in the journal, too: the last part of a
 * segment is for that. */
static bool has_room(const struct rh_record *r, const struct rh_backend_stat *stat)
{
    uint64_t most = r->cfg->store_backlog_bytes, rest = r->segment_bytes / 8 * 3;

    if (r->full) { /* opens later than it closes */
        most = most / 8 * 7;
        rest = r->segment_bytes / 2;
    }
    return stat->bytes < most && (!r->journal || rh_journal_room(r->journal) >= rest);
}

static void look_at_backlog(struct rh_record *r)
{
    uint64_t most = r->cfg->store_backlog_bytes;
    struct rh_backend_stat stat;

    r->backend->ops->stat(r->backend, &stat);
    if (has_room(r, &stat) != r->full)
        return;
    r->full = !r->full;
    if (r->full)
        rh_log(RH_LOG_WARN, "store.full",
               RH_KS("why",
                     stat.bytes >= most ? "store.backlog_bytes" : "no room for another segment"),
               RH_KU("messages", stat.messages), RH_KU("bytes", stat.bytes),
               RH_KU("store.backlog_bytes", most));
    else
        rh_log(RH_LOG_INFO, "store.open", RH_KU("messages", stat.messages),
               RH_KU("bytes", stat.bytes));
}

void rh_record_gate(struct rh_record *r)
{
    enum rh_gate gate = RH_GATE_OPEN;

    look_for_trouble(r);
    look_at_backlog(r);
    if (r->load.on)
        gate = RH_GATE_LOADING;
    else if (rh_record_failing(r))
        gate = RH_GATE_FAILING;
    else if (r->full)
        gate = RH_GATE_FULL;
    /* relaxed: who reads the old value is answered by us */
    atomic_store_explicit(&r->env->promises->gate, gate, memory_order_relaxed);
    rh_stat_set(&r->stats, RH_STAT_store_gate, gate);
}
