/* shard/ask.c - requests about rooms on their way to the room's home, and their answers back.
 *
 *   the asker's shard                          the room's home
 *   -----------------                          ---------------
 *   make, send ── same shard ────────────────► rh_room_handle
 *        │ another: ROOM, takes a credit ─────►     │ at once, or later (a publish that is held)
 *   done ◄── ROOM_DONE, gives it back ────────── rh_ask_answer
 *        ◄── same shard ─────────────────────────
 *
 * Ownership   one block of memory travels both ways with all that it holds; who has it is the only
 *             one to touch it, so nothing in it is shared. The event has nothing that the ask has
 *             not: an answer that comes long after the pop makes it again.
 * Re-entrancy on one shard the answer comes inside rh_ask_send. It may close the connection that
 *             asked (memory), end its session, and let a held message of its client go on.
 * Counts      asks of a session are those of its present connection: an answer finds them through
 *             the connection that asked, and who parts the two sets them to zero.
 */
#include <string.h>

#include "core/mem.h"
#include "shard/owed.h"

#define NOBODY       UINT64_MAX /* no connection has this slot */
#define MEMBER_BYTES 512        /* of an item of room.members, more than most have */

/* ---- made and freed ---- */

static char *append(char *at, struct rh_span part)
{
    if (part.len)
        memcpy(at, part.at, part.len);
    return at + part.len;
}

struct rh_ask *rh_ask_make(struct rh_shard *sh, const struct rh_session *session,
                           enum rh_room_op op, struct rh_span room, struct rh_span id,
                           struct rh_span request_id, struct rh_span meta)
{
    const struct rh_user *asker = rh_session_user(session);
    struct rh_span user = {asker->name, asker->name_len};
    struct rh_span type = rh_session_type(session);
    struct rh_span role = rh_session_role(session);
    const struct rh_conn *c = session->conn;
    struct rh_ask *ask = rh_mem_alloc(sizeof(*ask) + room.len + user.len + type.len + id.len +
                                      request_id.len + meta.len);
    char *at;

    if (!ask)
        return NULL;
    rh_assert(room.len <= RH_NAME_MAX && id.len <= UINT8_MAX && request_id.len <= UINT16_MAX);
    memset(ask, 0, sizeof(*ask));
    ask->op = (uint8_t)op;
    ask->from = (uint8_t)sh->tid;
    ask->is_admin = rh_span_eq(role, RH_SPAN("admin"));
    ask->room_len = (uint8_t)room.len;
    ask->user_len = (uint8_t)user.len;
    ask->type_len = (uint8_t)type.len;
    ask->id_len = (uint8_t)id.len;
    ask->request_len = (uint16_t)request_id.len;
    ask->meta_len = meta.len;
    ask->room_hash = rh_hash(&sh->env->hash_key, room.at, room.len);
    ask->user_hash = asker->node.hash;
    ask->conn = c ? (uint64_t)c->gen << 32 | c->slot : NOBODY;
    rh_list_init(&ask->held);
    at = append(append(append(ask->bytes, room), user), type);
    append(append(append(at, id), request_id), meta);
    return ask;
}

void rh_ask_free(struct rh_ask *ask)
{
    if (!ask)
        return;
    for (uint32_t i = 0; ask->replay && i < ask->replay->count; i++)
        rh_msg_drop_any(ask->replay->at[i]);
    rh_mem_free(ask->replay);
    rh_mem_free(ask->text);
    rh_msg_drop_any(ask->msg);
    rh_mem_free(ask);
}

size_t rh_ask_page_bytes(unsigned op, uint32_t limit)
{
    if (op == RH_ASK_HISTORY)
        return RH_PAGE_BYTES;
    return op == RH_ASK_MEMBERS ? (size_t)limit * MEMBER_BYTES : 0;
}

uint32_t rh_ask_cost(const struct rh_ask *ask)
{
    size_t bytes = rh_ask_page_bytes(ask->op, ask->limit) + sizeof(*ask) + ask->room_len +
                   ask->user_len + ask->type_len + ask->id_len + ask->request_len + ask->meta_len +
                   (ask->msg ? ask->msg->frame_len : 0);

    return (uint32_t)RH_MIN(bytes, (size_t)RH_CREDIT_BYTES);
}

unsigned rh_ask_home(const struct rh_shard *sh, const struct rh_ask *ask)
{
    return rh_hash_shard(ask->room_hash, sh->env->shards);
}

/* ---- there ---- */

static struct rh_conn *asker(struct rh_shard *sh, const struct rh_ask *ask)
{
    return rh_conn_find(sh, (uint32_t)ask->conn, (uint32_t)(ask->conn >> 32));
}

void rh_ask_send(struct rh_shard *sh, struct rh_ask *take_ask)
{
    struct rh_event ev = {.kind = RH_EV_ROOM, .msg = take_ask, .conn = take_ask->conn};
    unsigned home = rh_ask_home(sh, take_ask);
    struct rh_conn *c = asker(sh, take_ask);
    int rc;

    if (c && c->session) {
        c->session->asks++;
        rh_assert(c->session->asks); /* no more than rooms of a user, and RH_ASKS_MAX */
    }
    take_ask->cost = rh_ask_cost(take_ask);
    if (home == sh->tid) {
        rh_room_handle(sh, take_ask);
        return;
    }
    rc = rh_mesh_ask(sh->mesh, home, &ev, take_ask->cost);
    rh_assert(rc == RH_OK); /* the way was open */
}

void rh_ask_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_ask *ask = ev->msg;

    rh_assert(ask->from == ev->from && ask->cost == ev->cost);
    rh_room_handle(sh, ask);
}

/* ---- and back ---- */

/* What was held back for what the join might bring. */
static void let_owed_go(struct rh_shard *sh, const struct rh_conn *c)
{
    if (c && c->session)
        rh_owed_unhold(sh, c->session);
}

/* Nothing of the session or its subscriptions may be held over the answer: without memory for it
 * the connection ends, and maybe its session. */
static void done(struct rh_shard *sh, struct rh_ask *take_ask)
{
    struct rh_conn *c = asker(sh, take_ask);
    const struct rh_session *s = take_ask->sub ? take_ask->sub->session : NULL;
    struct rh_conn *now = s ? s->conn : NULL; /* another one, if it was taken over meanwhile */

    if (c && c->session) {
        rh_assert(c->session->asks > 0);
        c->session->asks--;
    }
    if (c && c->state != RH_CONN_OPEN)
        c = NULL;
    if (take_ask->op == RH_ASK_JOIN)
        rh_sub_joined(sh, take_ask);
    else if (take_ask->op == RH_ASK_LEAVE && take_ask->sub)
        rh_sub_left(sh, take_ask);
    rh_room_respond(sh, c, take_ask);
    if (c && c->session && take_ask->op == RH_ASK_JOIN && take_ask->err == RH_WIRE_NONE) {
        if (c->out)
            rh_conn_fence(c);
        rh_session_pump(sh, c->session);
    }
    let_owed_go(sh, c);
    if (now != c)
        let_owed_go(sh, now);
    if (c && c->state == RH_CONN_OPEN)
        rh_client_unhold(sh, c);
    if (now && now != c && now->state == RH_CONN_OPEN) /* slots are freed at the end of the pass */
        rh_client_unhold(sh, now);
    rh_ask_free(take_ask);
}

void rh_ask_answer(struct rh_shard *sh, struct rh_ask *take_ask)
{
    struct rh_event request = {
        .kind = RH_EV_ROOM, .from = take_ask->from, .cost = take_ask->cost, .conn = take_ask->conn};
    struct rh_event reply = {.kind = RH_EV_ROOM_DONE, .msg = take_ask};

    if (take_ask->from == sh->tid)
        done(sh, take_ask);
    else
        rh_mesh_reply(sh->mesh, &request, &reply);
}

void rh_ask_refuse(struct rh_shard *sh, struct rh_ask *take_ask, enum rh_wire_error err,
                   const char *why)
{
    take_ask->err = err;
    take_ask->why = why;
    rh_ask_answer(sh, take_ask);
}

void rh_ask_done_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    done(sh, ev->msg);
}
