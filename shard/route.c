/* shard/route.c - direct messages on their way: to the receiver's shard, and the answer back.
 *
 * Sender and receiver on one shard: delivered and answered at once. Otherwise the message crosses
 * as a SEND, which takes a credit, and comes back as a SENT with what became of it. What the answer
 * needs besides (request_id, the message's id) waits here in an `ask`, whose address travels with
 * the event as a cookie that only we look behind; each request is answered exactly once.
 *
 * Without a credit the sender is not read any further (client.c holds its message); here it is let
 * go on, first come, first served, when the other shard has answered something. Our own shard asks
 * for no credit, but for room among the asks of its clients that rooms hold (shard/publish.c), which
 * have the bounds of credits.
 */
#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "shard/room_int.h"

/* What a message grows by, at most, between a client's text and the frame of its receivers. */
#define HELD_GROWTH 2048

struct ask {
    uint32_t request_id_len;
    uint32_t id_len;
    char bytes[]; /* request_id as it is to be echoed, then the id */
};

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

/* What the receiver's shard says: RH_WIRE_NONE when at least one device has it in its queue, or it
 * waits for room in one. */
static enum rh_wire_error deliver(struct rh_shard *sh, struct rh_msg *take_msg)
{
    const char *name = (const char *)take_msg->bytes + take_msg->to_at;
    struct rh_user *user = rh_user_find(sh, take_msg->to_hash, name, take_msg->to_len);
    struct rh_handle *h;
    int rc;

    if (!user || !rh_user_devices(user)) {
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_user_offline, 1);
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

static const char *sentence(enum rh_wire_error err)
{
    switch (err) {
    case RH_WIRE_user_offline:
        return "the receiver is not connected";
    case RH_WIRE_queue_full:
        return "the receiver's queue is full";
    default:
        return "out of memory, try again";
    }
}

static void count_outcome(struct rh_shard *sh, enum rh_wire_error err)
{
    if (err == RH_WIRE_NONE) {
        rh_stat_add(&sh->stats, RH_STAT_messages_sent, 1);
        return;
    }
    rh_stat_add(&sh->stats, RH_STAT_failures_general, 1);
    if (err == RH_WIRE_user_offline)
        rh_stat_add(&sh->stats, RH_STAT_failures_user_offline, 1);
    else if (err == RH_WIRE_queue_full)
        rh_stat_add(&sh->stats, RH_STAT_failures_queue_full, 1);
}

static void answer(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                   struct rh_span id, enum rh_wire_error err)
{
    count_outcome(sh, err);
    if (!c)
        return;
    if (err == RH_WIRE_NONE)
        rh_respond_id(sh, c, request_id, id, "sent");
    else
        rh_respond_error(sh, c, request_id, err, sentence(err));
}

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

static struct ask *ask_create(struct rh_span request_id, struct rh_span id)
{
    struct ask *ask = rh_mem_alloc(sizeof(*ask) + request_id.len + id.len);

    if (!ask)
        return NULL;
    ask->request_id_len = request_id.len;
    ask->id_len = id.len;
    if (request_id.len)
        memcpy(ask->bytes, request_id.at, request_id.len);
    memcpy(ask->bytes + request_id.len, id.at, id.len);
    return ask;
}

void rh_route_send(struct rh_shard *sh, struct rh_conn *c, unsigned to, struct rh_msg *take_msg,
                   struct rh_span request_id, struct rh_span id)
{
    struct rh_event ev = {.kind = RH_EV_SEND, .msg = take_msg};
    struct ask *ask;
    int rc;

    if (to == sh->tid) {
        answer(sh, c, request_id, id, deliver(sh, take_msg));
        return;
    }
    ask = ask_create(request_id, id);
    if (!ask) {
        rh_msg_drop_any(take_msg);
        answer(sh, c, request_id, id, RH_WIRE_unavailable);
        return;
    }
    ev.cookie = ask;
    ev.conn = (uint64_t)c->gen << 32 | c->slot;
    rc = rh_mesh_ask(sh->mesh, to, &ev, charge(take_msg->frame_len));
    rh_assert(rc == RH_OK); /* the way was open */
}

void rh_route_send_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_event reply = {.kind = RH_EV_SENT, .a = deliver(sh, ev->msg)};

    rh_mesh_reply(sh->mesh, ev, &reply);
}

void rh_route_sent_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct ask *ask = ev->cookie;
    struct rh_conn *c = rh_conn_find(sh, (uint32_t)ev->conn, (uint32_t)(ev->conn >> 32));

    answer(sh, c, (struct rh_span){ask->bytes, ask->request_id_len},
           (struct rh_span){ask->bytes + ask->request_id_len, ask->id_len},
           (enum rh_wire_error)ev->a);
    rh_mem_free(ask);
}

static bool can_go_on(const struct rh_shard *sh, unsigned to, const struct rh_conn *c)
{
    size_t bytes = rh_block_len(c->message) + HELD_GROWTH;

    if (to == sh->tid) /* it waits to broadcast, or behind what is held */
        return sh->broadcasts_out < RH_BROADCASTS_MAX && own_open(sh, bytes);
    return rh_mesh_can_ask(sh->mesh, to, charge(bytes));
}

/* Each of those who waited when we began may go on once; those who still wait keep their places in
 * front of who comes to wait meanwhile. */
static void resume_one_shard(struct rh_shard *sh, unsigned to)
{
    struct rh_list waiting;

    rh_list_init(&waiting);
    while (!rh_list_empty(&sh->credit[to])) {
        struct rh_list *node = sh->credit[to].next;

        rh_list_del(node);
        rh_list_add(&waiting, node);
    }
    while (!rh_list_empty(&waiting)) {
        struct rh_conn *c = rh_container_of(waiting.next, struct rh_conn, waiting);

        if (!can_go_on(sh, to, c))
            break;
        rh_list_del(&c->waiting);
        rh_conn_resume(sh, c, RH_PAUSE_CREDIT);
    }
    while (!rh_list_empty(&waiting)) { /* back in front */
        struct rh_list *node = waiting.prev;

        rh_list_del(node);
        rh_list_add(sh->credit[to].next, node);
    }
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
