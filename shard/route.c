/* shard/route.c - direct messages on their way: to the receiver's shard, and the answer back.
 *
 * Sender and receiver on one shard: delivered and answered at once. Otherwise the message crosses
 * as a SEND, which takes a credit, and comes back as a SENT with what became of it. What the answer
 * needs besides (request_id, the message's id) waits here in a promise (shard/promise.h), whose
 * address travels with the event as a cookie that only we look behind.
 *
 *   ack, nobody connected, others wait, an id that is owed --> shard/owed.c: owed, refused, or plain
 *   else, and what it calls plain -----------------------> into the queues of the user's devices
 *
 * What is owed is answered by the record thread: then SENT only gives the credit back. On one shard,
 * too, it has a promise; so has what carries its sender's id. The rest, which is most, needs none.
 *
 * Without a credit the sender is not read any further (client.c holds its message); here it is let
 * go on, first come, first served, when the other shard has answered something. Our own shard asks
 * for no credit, but for room among the asks of its clients that rooms hold (shard/publish.c), which
 * have the bounds of credits.
 */
#include "core/err.h"
#include "shard/owed.h"
#include "shard/promise.h"

int rh_route_push(struct rh_shard *sh, struct rh_user *user, struct rh_handle *h)
{
    struct rh_session *s, *next;
    int best = RH_ECLOSED;

    for (s = rh_session_next(user, NULL); s; s = next) {
        int rc;

        next = rh_session_next(user, s); /* a push may end its session, no other */
        if (!rh_session_is_live(s))
            continue;
        rc = rh_conn_push(sh, s->conn, h);
        if (rc == RH_OK || best == RH_ECLOSED || (best != RH_OK && rc == RH_EFULL))
            best = rc;
    }
    return best;
}

static enum rh_wire_error wire_error(int rc)
{
    switch (rc) {
    case RH_OK:
        return RH_WIRE_NONE;
    case RH_EFULL:
        return RH_WIRE_queue_full;
    default:
        return RH_WIRE_unavailable;
    }
}

/* ---- at the receiver's shard ---- */

static struct rh_user *receiver(const struct rh_shard *sh, const struct rh_msg *msg)
{
    const char *name = (const char *)msg->bytes + msg->to_at;

    return rh_user_find(sh, msg->to_hash, name, msg->to_len);
}

/* Could it be owed, or could its id? Then shard/owed.c decides. */
static bool may_be_owed(const struct rh_msg *msg, const struct rh_user *user)
{
    return msg->ack || !user || !rh_user_devices(user) || rh_owed_waits(user) ||
           (msg->given && rh_owed_any(user));
}

/* A message that is owed to nobody: RH_WIRE_NONE when at least one device has it in its queue, or it
 * waits for room in one. */
static enum rh_wire_error hand_out(struct rh_shard *sh, struct rh_user *user,
                                   struct rh_msg *take_msg)
{
    struct rh_handle *h;
    int rc;

    if (!user || !rh_user_devices(user)) {
        rh_msg_drop_any(take_msg);
        return RH_WIRE_user_offline;
    }
    rh_msg_set_seq(take_msg, ++sh->seq);
    h = rh_handle_make(&sh->stock.handles, take_msg);
    if (!h) {
        rh_msg_drop_any(take_msg);
        return RH_WIRE_unavailable;
    }
    if (rh_retry_wanted(sh, user)) {
        rc = rh_retry_add(sh, user, h);
        if (rc < 0)
            rh_handle_unref(&sh->stock.handles, h);
        return wire_error(rc);
    }
    rh_user_pin(user); /* a full device may be closed on the way */
    rc = rh_route_push(sh, user, h);
    rh_user_unpin(sh, user);
    rh_handle_unref(&sh->stock.handles, h);
    return wire_error(rc);
}

/* True: it is owed, and the record thread answers `asker`. Else *ret_err says what became of it. */
static bool deliver(struct rh_shard *sh, struct rh_user *user, struct rh_msg *take_msg,
                    const struct rh_asker *asker, enum rh_wire_error *ret_err)
{
    enum rh_owed_result result = RH_OWED_NO;

    *ret_err = RH_WIRE_NONE;
    if (may_be_owed(take_msg, user))
        result = rh_owed_direct(sh, take_msg, asker, ret_err);
    if (result == RH_OWED_ACCEPTED)
        return true;
    if (result == RH_OWED_REFUSED)
        rh_msg_drop_any(take_msg);
    else /* one that asks for an acknowledgement only where nobody is, and nothing is kept */
        *ret_err = hand_out(sh, user, take_msg);
    if (*ret_err == RH_WIRE_user_offline)
        rh_stat_inc(&sh->stats, RH_STAT_messages_dropped_user_offline);
    return false;
}

void rh_route_send_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_asker asker = {ev->from, ev->cookie, ev->conn};
    struct rh_event reply = {.kind = RH_EV_SENT};
    enum rh_wire_error err;

    if (deliver(sh, receiver(sh, ev->msg), ev->msg, &asker, &err))
        reply.flags = RH_SENT_OWED;
    reply.a = err;
    rh_mesh_reply(sh->mesh, ev, &reply);
}

/* ---- at the sender's ---- */

/* What a message of `bytes` is charged; one over the bound takes all of it. */
static uint32_t charge(size_t bytes)
{
    return (uint32_t)RH_MIN(bytes, (size_t)RH_CREDIT_BYTES);
}

/* Rooms whose home we are hold few enough of our own clients' asks. */
static bool own_open(const struct rh_shard *sh, size_t bytes)
{
    return sh->held_own < RH_CREDIT_EVENTS && sh->held_own_bytes + charge(bytes) <= RH_CREDIT_BYTES;
}

bool rh_route_open(const struct rh_shard *sh, unsigned to, size_t bytes)
{
    if (to == sh->tid)
        return own_open(sh, bytes);
    return rh_list_empty(&sh->credit[to]) && rh_mesh_can_ask(sh->mesh, to, charge(bytes));
}

static uint64_t conn_name(const struct rh_conn *c)
{
    return (uint64_t)c->gen << 32 | c->slot;
}

static void no_memory(struct rh_shard *sh, struct rh_conn *c, struct rh_msg *take_msg,
                      const struct rh_request *r)
{
    struct rh_outcome o = {.err = RH_WIRE_unavailable};

    rh_msg_drop_any(take_msg);
    rh_outcome_tell(sh, c, r->event, r->request_id, r->id, &o);
}

/* The receiver is ours, too. Most messages need no promise: they are answered here. */
static void send_here(struct rh_shard *sh, struct rh_conn *c, struct rh_msg *take_msg,
                      const struct rh_request *r)
{
    struct rh_user *user = receiver(sh, take_msg);
    bool promise = r->key || may_be_owed(take_msg, user);
    struct rh_asker asker = {sh->tid, NULL, c ? conn_name(c) : 0};
    struct rh_outcome o = {.err = RH_WIRE_NONE};

    if (promise) {
        asker.cookie = rh_promise_make(sh, c, r, take_msg->frame_len, take_msg->ack);
        if (!asker.cookie) {
            no_memory(sh, c, take_msg, r);
            return;
        }
    }
    if (deliver(sh, user, take_msg, &asker, &o.err))
        rh_promise_owed(sh, asker.cookie);
    else if (promise)
        rh_promise_answer(sh, asker.cookie, &o);
    else
        rh_outcome_tell(sh, c, r->event, r->request_id, r->id, &o);
}

void rh_route_send(struct rh_shard *sh, struct rh_conn *c, unsigned to, struct rh_msg *take_msg,
                   const struct rh_request *r)
{
    struct rh_event ev = {.kind = RH_EV_SEND, .msg = take_msg};
    int rc;

    if (to == sh->tid) {
        send_here(sh, c, take_msg, r);
        return;
    }
    ev.cookie = rh_promise_make(sh, c, r, take_msg->frame_len, take_msg->ack);
    if (!ev.cookie) {
        no_memory(sh, c, take_msg, r);
        return;
    }
    ev.conn = conn_name(c);
    rc = rh_mesh_ask(sh->mesh, to, &ev, charge(take_msg->frame_len));
    rh_assert(rc == RH_OK); /* the way was open */
}

void rh_route_sent_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_outcome o = {.err = (enum rh_wire_error)ev->a};

    if (ev->flags & RH_SENT_OWED)
        rh_promise_owed(sh, ev->cookie);
    else
        rh_promise_answer(sh, ev->cookie, &o);
}

static bool can_go_on(const struct rh_shard *sh, unsigned to, const struct rh_conn *c)
{
    size_t bytes = rh_block_len(c->message) + RH_HELD_GROWTH;

    if (to == sh->tid) /* it waits to broadcast, or behind what is held */
        return sh->broadcasts_out < RH_BROADCASTS_MAX && own_open(sh, bytes);
    return rh_mesh_can_ask(sh->mesh, to, charge(bytes));
}

/* Each of those who waited when we began may go on once; those who still wait keep their places in
 * front of who comes to wait meanwhile. */
static void take_all(struct rh_list *from, struct rh_list *to)
{
    rh_list_init(to);
    while (!rh_list_empty(from)) {
        struct rh_list *node = from->next;

        rh_list_del(node);
        rh_list_add(to, node);
    }
}

static void put_back(struct rh_list *waiting, struct rh_list *front_of)
{
    while (!rh_list_empty(waiting)) {
        struct rh_list *node = waiting->prev;

        rh_list_del(node);
        rh_list_add(front_of->next, node);
    }
}

static void resume_one_shard(struct rh_shard *sh, unsigned to)
{
    struct rh_list waiting;

    take_all(&sh->credit[to], &waiting);
    while (!rh_list_empty(&waiting)) {
        struct rh_conn *c = rh_container_of(waiting.next, struct rh_conn, waiting);

        if (!can_go_on(sh, to, c))
            break;
        rh_list_del(&c->waiting);
        rh_conn_resume(sh, c, RH_PAUSE_CREDIT);
    }
    put_back(&waiting, &sh->credit[to]);
}

void rh_route_resume_promised(struct rh_shard *sh)
{
    struct rh_list waiting;

    take_all(&sh->promise_waiting, &waiting);
    while (!rh_list_empty(&waiting)) {
        struct rh_conn *c = rh_container_of(waiting.next, struct rh_conn, waiting);

        if (!rh_promise_open(sh, rh_block_len(c->message) + RH_HELD_GROWTH, true))
            break;
        rh_list_del(&c->waiting);
        rh_conn_resume(sh, c, RH_PAUSE_PROMISE);
    }
    put_back(&waiting, &sh->promise_waiting);
}

void rh_route_resume(struct rh_shard *sh)
{
    for (uint64_t wanted = sh->credit_wanted; wanted; wanted &= wanted - 1) {
        unsigned to = (unsigned)__builtin_ctzll(wanted);

        if (!rh_list_empty(&sh->credit[to]))
            resume_one_shard(sh, to);
        if (rh_list_empty(&sh->credit[to]))
            sh->credit_wanted &= ~(1ull << to);
    }
}
