/* shard/replay.c - what a subscription missed, handed out at its client's pace.
 *
 * Why this way: history may be much longer than a send queue, and the client has asked for it, so it
 * must not count in the queue's bounds. It hangs on the subscription and enters the queue as that
 * drains, a few messages of each room in turn. What is live meanwhile stands behind it ("parked"),
 * and counts; when all is queued the replay goes, and fan-out queues directly again.
 *
 *     JOIN's answer --start--> | missed ... | parked, live ... | lost |  --pump--> send queue
 *                                             fan-out --park--^
 *
 * Order      sub->seq is the last live one that was parked or passed over, so fan-out goes on there
 *            at the switch. replay->seq is the last that was handed out: where a resume begins if
 *            the replay is dropped.
 * Bounds     PUMP_MESSAGES missed ones (and TURN) stand in the queue, flying ones included, and one
 *            call queues PUMP_BYTES, and one turn. Parked ones count in the connection's bounds
 *            (rh_conn_full). There `disconnect` closes; the other policies lose this one and all later live ones until what stands before
 *            them has been handed out, where messages.lost tells them. Notices are never lost.
 * Re-entry   Each push may close the connection, and with it drop the replay, end the session or
 *            the subscription: after one that failed nothing is looked at any more.
 */
#include <string.h>

#include "core/mem.h"
#include "shard/owed.h"

#define FIRST 8 /* places */
#define TURN  4 /* messages of one subscription before the next has its turn */

#define PUMP_MESSAGES 32
#define PUMP_BYTES    (256u << 10)

/* ---- life ---- */

static struct rh_replay *replay_alloc(uint32_t least)
{
    uint32_t room = FIRST;
    struct rh_replay *r;

    while (room < least)
        room *= 2;
    r = rh_mem_alloc(sizeof(*r) + room * sizeof(struct rh_handle *));
    if (!r)
        return NULL;
    memset(r, 0, sizeof(*r));
    r->room = room;
    return r;
}

static struct rh_handle **place(struct rh_replay *r, uint32_t i)
{
    return &r->at[(r->head + i) & (r->room - 1)];
}

struct rh_replay *rh_replay_create(struct rh_shard *sh, struct rh_missed *missed)
{
    struct rh_replay *r = replay_alloc(missed->count);

    if (!r)
        return NULL;
    for (uint32_t i = 0; i < missed->count; i++) {
        struct rh_handle *h = rh_handle_make(&sh->stock.handles, missed->at[i]);

        if (!h) {
            rh_replay_free(sh, r);
            return NULL;
        }
        missed->at[i] = NULL; /* moved */
        r->at[r->count++] = h;
    }
    return r;
}

void rh_replay_free(struct rh_shard *sh, struct rh_replay *r)
{
    for (uint32_t i = 0; i < r->count; i++)
        rh_handle_unref(&sh->stock.handles, *place(r, i));
    rh_mem_free(r);
}

void rh_replay_start(struct rh_sub *sub, struct rh_replay *take_replay, uint64_t seq)
{
    struct rh_session *s = sub->session;

    rh_assert(!sub->replay && take_replay->count && rh_list_empty(&sub->waiting));
    take_replay->seq = seq;
    sub->replay = take_replay;
    rh_list_add(&s->more->behind, &sub->waiting);
    s->more->replaying++;
    s->conn->replaying = true;
}

/* Nothing is counted for it any more; the caller frees it. */
static struct rh_replay *unlink_replay(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_session *s = sub->session;
    struct rh_replay *r = sub->replay;

    for (uint32_t i = r->count - r->live; i < r->count; i++)
        s->more->parked_bytes -= (*place(r, i))->msg->frame_len;
    s->more->parked -= r->live;
    if (--s->more->replaying == 0 && s->conn)
        s->conn->replaying = false;
    rh_list_del(&sub->waiting);
    sub->replay = NULL;
    rh_owed_unhold(sh, s);
    return r;
}

void rh_replay_drop(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_replay *r;

    if (!sub->replay)
        return;
    r = unlink_replay(sh, sub);
    sub->seq = r->seq;
    rh_replay_free(sh, r);
}

/* ---- live ones meanwhile ---- */

static bool make_place(struct rh_sub *sub)
{
    struct rh_replay *r = sub->replay;
    struct rh_replay *more;

    if (r->count < r->room)
        return true;
    more = replay_alloc(2 * r->room);
    if (!more)
        return false;
    for (uint32_t i = 0; i < r->count; i++)
        more->at[i] = *place(r, i);
    more->count = r->count;
    more->live = r->live;
    more->seq = r->seq;
    more->lost_from = r->lost_from;
    more->lost_to = r->lost_to;
    more->lost_count = r->lost_count;
    more->behind = r->behind;
    rh_mem_free(r);
    sub->replay = more;
    return true;
}

static void lose(struct rh_shard *sh, struct rh_replay *r, uint64_t seq, enum rh_stat why)
{
    if (!r->lost_count)
        r->lost_from = seq;
    r->lost_to = seq;
    r->lost_count++;
    rh_stat_add(&sh->stats, why, 1);
}

static void no_memory(struct rh_shard *sh, struct rh_sub *sub, const struct rh_msg *msg)
{
    rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
    if (msg->kind == RH_MSG_NOTICE) /* has no number by which it could be told as lost */
        rh_conn_close(sh, sub->session->conn, 1013, "out of memory");
    else
        lose(sh, sub->replay, msg->seq, RH_STAT_messages_dropped_memory);
}

/* At the bound: may the connection stay as it is? */
static bool has_place(const struct rh_shard *sh, const struct rh_conn *c, bool notice)
{
    return sh->cfg->limits_slow_consumer != RH_SLOW_DISCONNECT &&
           !(notice && rh_conn_overfull(sh, c));
}

void rh_sub_park(struct rh_shard *sh, struct rh_sub *sub, struct rh_handle *h)
{
    struct rh_session *s = sub->session;
    const struct rh_msg *msg = h->msg;
    bool notice = msg->kind == RH_MSG_NOTICE;

    if (!notice && sub->replay->lost_count) {
        lose(sh, sub->replay, msg->seq, RH_STAT_messages_dropped_slow_consumer);
        return;
    }
    if (rh_conn_full(sh, s->conn) && !has_place(sh, s->conn, notice)) {
        rh_slow_push(sh, s->conn, h); /* closes it */
        return;
    }
    if (!notice && rh_conn_full(sh, s->conn)) {
        lose(sh, sub->replay, msg->seq, RH_STAT_messages_dropped_slow_consumer);
        return;
    }
    if (!make_place(sub)) {
        no_memory(sh, sub, msg);
        return;
    }
    rh_handle_ref(h);
    *place(sub->replay, sub->replay->count++) = h;
    sub->replay->live++;
    sub->replay->behind += sub->replay->lost_count > 0;
    s->more->parked++;
    s->more->parked_bytes += msg->frame_len;
}

/* ---- into the queue ---- */

/* False: the connection ends; nothing of its session may be looked at. */
static bool pushed(struct rh_shard *sh, struct rh_conn *c, int rc)
{
    if (rc == RH_OK)
        return true;
    rh_conn_close(sh, c, 1013, "out of memory"); /* not one that goes on with a hole */
    return false;
}

/* Queues the first one: what was missed as a delivery of what is owed, where it is. (What is parked was
 * looked at when it came.) */
static int push_first(struct rh_shard *sh, struct rh_conn *c, struct rh_replay *r)
{
    struct rh_handle *h = *place(r, 0), *own = NULL;
    bool skip = false;
    int rc;

    if (rh_unlikely(h->msg->shares) && r->live < r->count)
        own = rh_owed_share_out(sh, c, h, RH_SHARE_HISTORY, &skip);
    rc = skip ? RH_OK : rh_conn_push_missed(sh, c, own ? own : h);
    if (own)
        rh_handle_unref(&sh->stock.handles, own);
    return rc;
}

static bool hand_out_one(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_session *s = sub->session;
    struct rh_replay *r = sub->replay;
    struct rh_handle *h = *place(r, 0);
    struct rh_conn *c = s->conn; /* the session may end with the push */

    if (!pushed(sh, c, push_first(sh, c, r)))
        return false;
    r->head++;
    if (r->live == r->count--) {
        r->live--;
        s->more->parked--;
        s->more->parked_bytes -= h->msg->frame_len;
    } else {
        rh_stat_add(&sh->stats, RH_STAT_messages_replayed, 1);
    }
    if (h->msg->kind == RH_MSG_ROOM)
        r->seq = h->msg->seq;
    rh_handle_unref(&sh->stock.handles, h);
    return true;
}

static bool tell_lost(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_replay *r = sub->replay;
    struct rh_conn *c = sub->session->conn;
    union {
        struct rh_lost lost;
        char room[sizeof(struct rh_lost) + RH_NAME_MAX];
    } u;

    u.lost = (struct rh_lost){.uid = sub->uid,
                              .from = r->lost_from,
                              .to = r->lost_to,
                              .count = r->lost_count,
                              .kind = RH_MSG_ROOM,
                              .name_len = sub->name_len};
    memcpy(u.lost.name, sub->name, sub->name_len);
    r->lost_count = r->behind = 0;
    return pushed(sh, c, rh_conn_push_lost(sh, c, &u.lost));
}

/* Everything is queued: fan-out may go on behind sub->seq. */
static bool switch_over(struct rh_shard *sh, struct rh_sub *sub)
{
    if (sub->replay->lost_count && !tell_lost(sh, sub))
        return false;
    rh_replay_free(sh, unlink_replay(sh, sub));
    return true;
}

/* At most `most` of this one's. False: the connection ends. */
static bool hand_out(struct rh_shard *sh, struct rh_sub *sub, uint32_t most)
{
    const struct rh_replay *r = sub->replay; /* as long as what is pushed is taken */

    rh_assert(r);
    for (; most && r->count; most--) {
        if (r->lost_count && r->count == r->behind && !tell_lost(sh, sub))
            return false;
        if (!hand_out_one(sh, sub))
            return false;
    }
    return r->count || switch_over(sh, sub);
}

bool rh_replay_flush(struct rh_shard *sh, struct rh_sub *sub)
{
    return hand_out(sh, sub, UINT32_MAX);
}

void rh_session_pump(struct rh_shard *sh, struct rh_session *s)
{
    uint64_t before = sh->stock.bytes;
    struct rh_conn *c = s->conn;

    if (!c || c->state != RH_CONN_OPEN || !s->more)
        return;
    while (!rh_list_empty(&s->more->behind) && (!c->out || c->out->missed < PUMP_MESSAGES) &&
           sh->stock.bytes - before < PUMP_BYTES) {
        struct rh_sub *sub = rh_container_of(s->more->behind.next, struct rh_sub, waiting);

        rh_list_del(&sub->waiting); /* to the end: the others' turn */
        rh_list_add(&s->more->behind, &sub->waiting);
        if (!hand_out(sh, sub, TURN))
            return;
    }
}
