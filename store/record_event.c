/* store/record_event.c - what an event of a shard changes, and whom it will be told.
 *
 * Events of a direct message come from one shard, in order. Those of a room's come from its home
 * (ACCEPTED) and from the shards of its shares, in any order: who comes first makes the entry, which is
 * early until ACCEPTED is there.
 *
 * A message that has not been put into the journal is changed in memory only, and put as it is then;
 * one that ends before that is folded: nothing of it is put, or its id alone. Each change of one
 * that was put is an event there.
 */
#include "store/record_int.h"

/* ---- what there is to say ---- */

static struct rh_event committed(const struct rh_event *asked, enum rh_wire_error err,
                                 const struct rh_kept *k)
{
    return (struct rh_event){
        .kind = RH_EV_COMMITTED,
        .cookie = asked->cookie,
        .conn = asked->conn,
        .a = err,
        .b = k->accept,
        .c = k->msg->seq,
        .d = rh_kept_recipients(k),
    };
}

static bool wants_status(const struct rh_kept *k)
{
    return k->msg->ack && k->msg->from_user;
}

static struct rh_event status(const struct rh_kept *k, unsigned state, unsigned reason, bool end)
{
    rh_msg_hold_any(k->msg, 1);
    return (struct rh_event){
        .kind = RH_EV_STATUS,
        .flags = end,
        .cost = k->msg->frame_len,
        .msg = k->msg,
        .a = state | reason << 8,
        .b = (uint64_t)rh_kept_count(k) << 32 | k->acknowledged,
    };
}

static unsigned sender_of(const struct rh_record *r, const struct rh_kept *k)
{
    return rh_hash_shard(k->msg->from_hash, r->env->shards);
}

static void tell_end(struct rh_record *r, struct rh_kept *k)
{
    struct rh_event ev;

    if (wants_status(k)) {
        ev = status(k, k->state, k->reason, true);
        rh_tell_with(r, k, sender_of(r, k), &ev);
    }
    if (k->msg->kind != RH_MSG_ROOM)
        return;
    rh_msg_hold_any(k->msg, 1);
    ev = (struct rh_event){.kind = RH_EV_RELEASED, .msg = k->msg, .cost = k->msg->frame_len};
    rh_tell_with(r, k, rh_hash_shard(k->msg->to_hash, r->env->shards), &ev);
}

/* ---- the end of a message ---- */

void rh_record_give(struct rh_record *r, struct rh_kept *k)
{
    rh_list_del(&k->list);
    if (k->flags & RH_KEPT_FRESH)
        r->fresh_bytes -= rh_kept_bytes(k);
    rh_kept_end(k);
    rh_stock_give(&r->kepts, k);
}

static void ended(struct rh_record *r, struct rh_kept *k)
{
    tell_end(r, k);
    if (k->flags & RH_KEPT_AGAIN)
        return; /* behind the event that says so */
    if (k->flags & RH_KEPT_FRESH) {
        if (k->dedup_ms)
            return; /* its id is to be put */
        rh_stat_inc(&r->stats, RH_STAT_journal_folded);
        rh_tells_now(r, k);
    } else if (k->flags & RH_KEPT_LOOSE) {
        rh_tells_now(r, k);
    } else {
        rh_tells_behind(r, k);
    }
    rh_record_give(r, k);
}

/* ---- entries ---- */

static struct rh_kept *begin(struct rh_record *r, struct rh_msg *take_msg)
{
    struct rh_kept *k = rh_stock_take(&r->kepts);

    if (rh_kept_begin(k, take_msg) < 0)
        rh_stat_inc(&r->stats, RH_STAT_memory_failures);
    return k;
}

/* The entry of a message that an event speaks of; NULL: it has ended, or never was. */
static struct rh_kept *entry_of(struct rh_record *r, struct rh_msg *msg)
{
    struct rh_kept *k = msg->entry;

    if (k || msg->kind != RH_MSG_ROOM)
        return k;
    rh_msg_hold_any(msg, 1);
    k = begin(r, msg);
    k->flags |= RH_KEPT_EARLY;
    rh_list_add(&r->loose, &k->list);
    return k;
}

/* Are its changes events of their own? */
static bool is_put(const struct rh_kept *k)
{
    return !(k->flags & (RH_KEPT_EARLY | RH_KEPT_FRESH | RH_KEPT_LOOSE | RH_KEPT_AGAIN));
}

static void put_change(struct rh_record *r, struct rh_kept *k, const struct rh_jot *jot)
{
    if (!is_put(k))
        return;
    if (rh_record_put(r, jot) < 0)
        rh_record_again(r, k);
    else
        r->backend->ops->apply(r->backend, rh_record_segment(r), jot, k);
}

/* ---- events ---- */

static void note_attempts(struct rh_kept *k, uint32_t attempt)
{
    const struct rh_shares *s = k->msg->shares;

    if (k->msg->kind != RH_MSG_ROOM) {
        rh_kept_attempt(k, 0, attempt);
        return;
    }
    for (uint32_t i = 0; k->shares && i < s->count; i++)
        if (s->at[i].live)
            rh_kept_attempt(k, i, 1);
}

static void note_accepted(struct rh_record *r, struct rh_kept *k, const struct rh_event *ev)
{
    struct rh_event answer;

    k->node.hash = r->next_number++;
    k->accept = ev->flags;
    k->dedup_ms = r->journal ? ev->c : 0; /* shards remember for this run */
    if (k->msg->kind == RH_MSG_ROOM)
        k->recipients = (uint32_t)ev->d;
    note_attempts(k, (uint32_t)ev->b);
    if (!(ev->flags & RH_ACCEPT_ASKED))
        return;
    answer = committed(ev, RH_WIRE_NONE, k);
    rh_tell_with(r, k, (unsigned)ev->a, &answer);
    if (rh_record_failing(r) || k->flags & RH_KEPT_LOOSE)
        rh_tells_fail(r, k);
}

static void on_accepted(struct rh_record *r, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;
    struct rh_kept *k = msg->entry;

    if (k) {
        rh_assert(k->flags & RH_KEPT_EARLY);
        rh_list_del(&k->list);
        k->flags &= (uint8_t)~RH_KEPT_EARLY;
        rh_msg_drop_any(msg); /* we hold it already */
    } else {
        k = begin(r, msg);
    }
    note_accepted(r, k, ev);
    if (k->flags & RH_KEPT_LOOSE) {
        rh_list_add(&r->loose, &k->list);
    } else {
        k->flags |= RH_KEPT_FRESH;
        rh_list_add(&r->fresh, &k->list);
        r->fresh_bytes += rh_kept_bytes(k);
    }
    if (!k->unsettled)
        ended(r, k);
}

static void on_settled(struct rh_record *r, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;
    struct rh_kept *k = entry_of(r, msg);
    struct rh_jot jot = {
        .kind = RH_JOT_SETTLED,
        .state = (uint8_t)ev->a,
        .reason = (uint8_t)(ev->a >> 8),
        .share = (uint32_t)ev->c,
        .at_ms = ev->b,
    };

    if (k && rh_kept_settle(k, jot.share, (enum rh_state)jot.state, (enum rh_reason)jot.reason)) {
        jot.number = rh_kept_number(k);
        put_change(r, k, &jot);
        if (!k->unsettled && !(k->flags & RH_KEPT_EARLY))
            ended(r, k);
    }
    rh_msg_drop_any(msg);
}

static void on_attempt(struct rh_record *r, const struct rh_event *ev)
{
    struct rh_kept *k = entry_of(r, ev->msg);
    struct rh_jot jot = {
        .kind = RH_JOT_ATTEMPT,
        .attempt = (uint32_t)ev->a,
        .share = (uint32_t)ev->c,
        .at_ms = ev->b,
    };

    if (!k || !k->unsettled || jot.share >= rh_kept_count(k))
        return;
    rh_kept_attempt(k, jot.share, jot.attempt);
    jot.number = rh_kept_number(k);
    put_change(r, k, &jot);
}

/* A room's message has one status, when all shares have ended. */
static void on_progress(struct rh_record *r, const struct rh_event *ev)
{
    struct rh_kept *k = ((struct rh_msg *)ev->msg)->entry;
    struct rh_event tell;

    if (!k || k->msg->kind == RH_MSG_ROOM || !wants_status(k))
        return;
    tell = status(k, (unsigned)ev->a, RH_REASON_none, false);
    if (!is_put(k))
        rh_tell_with(r, k, sender_of(r, k), &tell);
    else if (k->batch <= r->durable)
        rh_tell_now(r, sender_of(r, k), &tell);
    else
        rh_tell_behind(r, sender_of(r, k), &tell);
}

/* A message that has ended was committed before, or will be with what was put so far. */
static void await_ended(struct rh_record *r, const struct rh_event *ev, const struct rh_msg *msg)
{
    struct rh_event answer = {
        .kind = RH_EV_COMMITTED,
        .cookie = ev->cookie,
        .conn = ev->conn,
        .c = msg->seq,
        .d = msg->kind == RH_MSG_ROOM ? ev->d : 1,
    };

    if (rh_record_failing(r) && r->put_batch > r->durable)
        answer.a = RH_WIRE_store_failed;
    if (answer.a)
        rh_tell_now(r, (unsigned)ev->a, &answer);
    else
        rh_tell_behind(r, (unsigned)ev->a, &answer);
}

static void await_owed(struct rh_record *r, const struct rh_event *ev, struct rh_kept *k)
{
    bool durable = !(k->flags & (RH_KEPT_FRESH | RH_KEPT_LOOSE)) && k->batch <= r->durable;
    bool never = k->flags & RH_KEPT_LOOSE || (rh_record_failing(r) && !durable);
    struct rh_event answer = committed(ev, never ? RH_WIRE_store_failed : RH_WIRE_NONE, k);

    if (durable || never)
        rh_tell_now(r, (unsigned)ev->a, &answer);
    else if (k->flags & RH_KEPT_FRESH)
        rh_tell_with(r, k, (unsigned)ev->a, &answer);
    else
        rh_tell_behind(r, (unsigned)ev->a, &answer);
}

static void on_await(struct rh_record *r, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;

    if (msg->entry)
        await_owed(r, ev, msg->entry);
    else
        await_ended(r, ev, msg);
    if (msg->kind == RH_MSG_ROOM)
        rh_msg_drop_any(msg);
}

static void on_config(struct rh_record *r, const struct rh_event *ev)
{
    rh_snapshot_drop_any(r->next_snapshot);
    r->next_snapshot = ev->msg;
}

void rh_record_on_event(void *arg, const struct rh_event *ev)
{
    struct rh_record *r = arg;

    switch (ev->kind) {
    case RH_EV_ACCEPTED:
        on_accepted(r, ev);
        break;
    case RH_EV_AWAIT:
        on_await(r, ev);
        break;
    case RH_EV_ATTEMPT:
        on_attempt(r, ev);
        break;
    case RH_EV_PROGRESS:
        on_progress(r, ev);
        break;
    case RH_EV_SETTLED:
        on_settled(r, ev);
        break;
    case RH_EV_CONFIG:
        on_config(r, ev);
        break;
    case RH_EV_DRAIN:
        r->drain_round = ev->a;
        break;
    case RH_EV_STOP:
        r->stop_ms = r->now_ms;
        break;
    default:
        rh_assert(!"an event that the record thread knows");
    }
}
