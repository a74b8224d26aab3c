/* shard/room_requests.c - what clients ask of rooms, and how they are answered and notified.
 *
 * A request is checked here, on the shard of the user who asks, and goes to the room's home as an
 * ask (shard/room_int.h), which comes back with the answer. A published message is written here, too,
 * but for its number. Rooms that a client names when it connects take the same way, and are answered
 * by `room.subscribed`.
 *
 * One JOIN or LEAVE of a session and room is out at a time, and RH_ASKS_MAX asks of a session in
 * all: beyond that the connection is not read until an answer comes.
 */
#include <string.h>

#include "core/mem.h"
#include "proto/envelope.h"
#include "shard/promise.h"

#define NAME_WHY       "room: 1 to 128 bytes of UTF-8 without control characters"
#define TOO_MANY_ROOMS "this user is in as many rooms as rooms.per_user allows"
#define NO_MEMORY      "out of memory, try again"
#define PAGE_LIMIT     100 /* items of a page, unless the client says */
#define PAGES_MAX      8 /* unanswered asks of a session, when one more may bring a page of a megabyte */

/* ---- what all requests have ---- */

struct target {
    uint64_t hash;
    unsigned home;
    uint8_t len;
    char name[RH_NAME_MAX];
};

static struct rh_span target_name(const struct target *t)
{
    return (struct rh_span){t->name, t->len};
}

static void aim(const struct rh_shard *sh, struct target *t)
{
    t->hash = rh_hash(&sh->env->hash_key, t->name, t->len);
    t->home = rh_hash_shard(t->hash, sh->env->shards);
}

/* The room that a request is about. False: it is no name, and the client was told. */
static bool read_target(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                        struct rh_json room, struct target *t)
{
    if (!rh_check_name(room, t->name, &t->len)) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_bad_request, NAME_WHY);
        return false;
    }
    aim(sh, t);
    return true;
}

static int bad(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
               const char *why)
{
    rh_respond_error(sh, c, env->request_id, RH_WIRE_bad_request, why);
    return RH_OK;
}

/* Could an ask of that size set out now? Else *ret_shard says what to wait for. */
static bool way_open(const struct rh_shard *sh, const struct rh_conn *c, const struct target *t,
                     size_t bytes, unsigned *ret_shard)
{
    *ret_shard = c->session->asks < RH_ASKS_MAX ? t->home : RH_WAIT_OWN;
    return *ret_shard != RH_WAIT_OWN &&
           rh_route_open(sh, t->home, sizeof(struct rh_ask) + 4 * RH_NAME_MAX + bytes);
}

static struct rh_ask *make_ask(struct rh_shard *sh, struct rh_conn *c,
                               const struct rh_envelope *env, enum rh_room_op op,
                               const struct target *t, struct rh_span id, struct rh_span meta)
{
    struct rh_ask *ask = rh_ask_make(sh, c->session, op, target_name(t), id, env->request_id, meta);

    if (!ask)
        rh_respond_error(sh, c, env->request_id, RH_WIRE_unavailable, NO_MEMORY);
    return ask;
}

/* A request with nothing but the room's name. */
static int ask_plainly(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                       enum rh_room_op op, unsigned *ret_shard)
{
    static const struct rh_param rows[] = {RH_PARAM_ROW("room", STRING, true)};
    struct rh_json got[RH_COUNT(rows)];
    struct rh_ask *ask;
    struct target t;

    if (!rh_request_params(sh, c, env, rows, RH_COUNT(rows), got) ||
        !read_target(sh, c, env, got[0], &t))
        return RH_OK;
    if (!way_open(sh, c, &t, env->request_id.len, ret_shard))
        return RH_EFULL;
    ask = make_ask(sh, c, env, op, &t, (struct rh_span){0}, (struct rh_span){0});
    if (ask)
        rh_ask_send(sh, ask);
    return RH_OK;
}

/* ---- room.create, room.delete ---- */

enum { C_ROOM, C_META, C_MAX, C_KIND, C_CONFLATE, C_N };

static const char *check_create(const struct rh_json p[C_N], uint64_t *ret_max, bool *ret_ticket)
{
    *ret_max = 0;
    *ret_ticket = false;
    if (p[C_META].raw.len > RH_META_MAX)
        return "meta: at most 16 KiB";
    if (p[C_MAX].kind != RH_JSON_NONE && !rh_json_u64(p[C_MAX], 0, UINT32_MAX, ret_max))
        return "max_members: a whole number";
    if (p[C_KIND].kind == RH_JSON_NONE || rh_json_str_eq(p[C_KIND].raw, "group", 5))
        return NULL;
    *ret_ticket = rh_json_str_eq(p[C_KIND].raw, "ticket", 6);
    return *ret_ticket ? NULL : "kind: group or ticket";
}

int rh_room_create(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                   unsigned *ret_shard)
{
    static const struct rh_param rows[C_N] = {
        [C_ROOM] = RH_PARAM_ROW("room", STRING, true),
        [C_META] = RH_PARAM_ROW("meta", OBJECT, false),
        [C_MAX] = RH_PARAM_ROW("max_members", NUMBER, false),
        [C_KIND] = RH_PARAM_ROW("kind", STRING, false),
        [C_CONFLATE] = RH_PARAM_ROW("conflate", BOOL, false),
    };
    struct rh_json p[C_N];
    struct rh_ask *ask;
    struct target t;
    const char *why;
    uint64_t max;
    bool ticket;

    if (!rh_request_params(sh, c, env, rows, C_N, p) || !read_target(sh, c, env, p[C_ROOM], &t))
        return RH_OK;
    why = check_create(p, &max, &ticket);
    if (why)
        return bad(sh, c, env, why);
    if (!way_open(sh, c, &t, p[C_META].raw.len + env->request_id.len, ret_shard))
        return RH_EFULL;
    ask = make_ask(sh, c, env, RH_ASK_CREATE, &t, (struct rh_span){0}, p[C_META].raw);
    if (!ask)
        return RH_OK;
    ask->max_members = (uint32_t)max;
    ask->is_ticket = ticket;
    ask->conflate = p[C_CONFLATE].kind == RH_JSON_TRUE;
    rh_ask_send(sh, ask);
    return RH_OK;
}

int rh_room_delete(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                   unsigned *ret_shard)
{
    return ask_plainly(sh, c, env, RH_ASK_DELETE, ret_shard);
}

/* ---- room.join, room.leave ---- */

enum { J_ROOM, J_SINCE, J_EPOCH, J_N };

/* Has this session another JOIN or LEAVE of that room out? */
static bool is_asking(const struct rh_sub *sub)
{
    return sub && (sub->asking || sub->state == RH_SUB_WANTED || sub->state == RH_SUB_ASKED);
}

/* The session's subscription, made if need be. NULL: refused, and the client was told. */
static struct rh_sub *joining_sub(struct rh_shard *sh, struct rh_conn *c,
                                  const struct rh_envelope *env, const struct target *t)
{
    struct rh_sub *sub = rh_sub_find(sh, c->session, t->hash, target_name(t));

    if (!sub && rh_sub_over_limit(sh, rh_conn_user(c), t->hash, target_name(t))) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_conflict, TOO_MANY_ROOMS);
        return NULL;
    }
    if (!sub)
        sub = rh_sub_create(sh, c->session, t->hash, target_name(t));
    if (!sub)
        rh_respond_error(sh, c, env->request_id, RH_WIRE_unavailable, NO_MEMORY);
    return sub;
}

static void start_join(struct rh_shard *sh, struct rh_sub *sub, struct rh_ask *take_ask)
{
    take_ask->sub = sub;
    take_ask->again = sub->counted;
    take_ask->live = !sub->live;
    take_ask->uid = sub->uid;
    take_ask->member = sub->member;
    sub->asking = true;
    if (sub->state != RH_SUB_ACTIVE)
        sub->state = RH_SUB_ASKED;
    rh_ask_send(sh, take_ask);
}

static const char *check_since(const struct rh_json p[J_N], struct rh_ask *ask)
{
    char epoch[RH_EPOCH_MAX];
    int len;

    if (p[J_SINCE].kind != RH_JSON_NONE) {
        if (!rh_json_u64(p[J_SINCE], 0, RH_MSG_SEQ_MAX, &ask->since))
            return "since: the seq of a message, a whole number";
        ask->has_since = true;
    }
    if (p[J_EPOCH].kind == RH_JSON_NONE)
        return NULL;
    len = rh_json_str_decode(epoch, sizeof(epoch), p[J_EPOCH].raw);
    if (len < 0 || !rh_epoch_ok((struct rh_span){epoch, (uint32_t)len}))
        return "epoch: 1 to 32 of A-Z a-z 0-9 - _";
    ask->has_epoch = true;
    ask->epoch = rh_epoch_parse((struct rh_span){epoch, (uint32_t)len});
    return NULL;
}

int rh_room_join(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                 unsigned *ret_shard)
{
    static const struct rh_param rows[J_N] = {
        [J_ROOM] = RH_PARAM_ROW("room", STRING, true),
        [J_SINCE] = RH_PARAM_ROW("since", NUMBER, false),
        [J_EPOCH] = RH_PARAM_ROW("epoch", STRING, false),
    };
    struct rh_json p[J_N];
    struct rh_ask *ask;
    struct rh_sub *sub;
    struct target t;
    const char *why;

    if (!rh_request_params(sh, c, env, rows, J_N, p) || !read_target(sh, c, env, p[J_ROOM], &t))
        return RH_OK;
    if (!way_open(sh, c, &t, env->request_id.len, ret_shard))
        return RH_EFULL;
    if (is_asking(rh_sub_find(sh, c->session, t.hash, target_name(&t)))) {
        *ret_shard = RH_WAIT_OWN;
        return RH_EFULL;
    }
    ask = make_ask(sh, c, env, RH_ASK_JOIN, &t, (struct rh_span){0}, (struct rh_span){0});
    if (!ask)
        return RH_OK;
    why = check_since(p, ask);
    sub = why ? NULL : joining_sub(sh, c, env, &t);
    if (why)
        bad(sh, c, env, why);
    if (sub)
        start_join(sh, sub, ask);
    else
        rh_ask_free(ask);
    return RH_OK;
}

int rh_room_leave(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                  unsigned *ret_shard)
{
    static const struct rh_param rows[] = {RH_PARAM_ROW("room", STRING, true)};
    struct rh_json got[RH_COUNT(rows)];
    struct rh_ask *ask;
    struct rh_sub *sub;
    struct target t;

    if (!rh_request_params(sh, c, env, rows, RH_COUNT(rows), got) ||
        !read_target(sh, c, env, got[0], &t))
        return RH_OK;
    if (!way_open(sh, c, &t, env->request_id.len, ret_shard))
        return RH_EFULL;
    sub = rh_sub_find(sh, c->session, t.hash, target_name(&t));
    if (is_asking(sub)) {
        *ret_shard = RH_WAIT_OWN;
        return RH_EFULL;
    }
    ask = make_ask(sh, c, env, RH_ASK_LEAVE, &t, (struct rh_span){0}, (struct rh_span){0});
    if (!ask)
        return RH_OK;
    if (sub && sub->counted) {
        ask->sub = sub;
        ask->live = sub->live;
        ask->uid = sub->uid;
        ask->member = sub->member;
        sub->asking = true;
    }
    rh_ask_send(sh, ask);
    return RH_OK;
}

/* ---- room.publish ---- */

enum { M_ROOM, M_CONTENT, M_ACK, M_EXCLUDE, M_PRIORITY, M_ID, M_KEY, M_N };

/* id, priority, two numbers and everything fixed of a room.message behind its seq */
#define MESSAGE_ROOM (RH_ID_GIVEN_MAX + 256)

struct publish {
    struct rh_json p[M_N];
    struct target t;
    const char *priority;
    bool high, ack;
    struct rh_span id;
    char id_text[RH_ID_GIVEN_MAX];
};

static const char *check_publish(struct rh_shard *sh, struct publish *m)
{
    const char *why = rh_check_priority(m->p[M_PRIORITY], &m->priority, &m->high);
    size_t key_len = m->p[M_KEY].kind == RH_JSON_NONE ? 1 : rh_json_str_len(m->p[M_KEY].raw);

    if (!why && (key_len == 0 || key_len > RH_NAME_MAX))
        why = "key: 1 to 128 bytes";
    m->ack = rh_check_ack(sh, m->p[M_ACK]);
    return why ? why : rh_check_id(sh, m->p[M_ID], m->id_text, &m->id);
}

static size_t publish_room(const struct publish *m, const struct rh_user *from)
{
    return RH_ROOM_HEAD_MAX + MESSAGE_ROOM + RH_JSON_ESCAPED_MAX(m->t.len) +
           RH_JSON_ESCAPED_MAX(from->name_len) + m->p[M_CONTENT].raw.len + m->p[M_KEY].raw.len +
           rh_names_room(target_name(&m->t), from, m->id);
}

/* The text of the notify from behind its seq on; remembers where that stands which others need. */
static void put_room_message(const struct rh_shard *sh, struct rh_writer *w,
                             const struct publish *m, const struct rh_user *from,
                             struct rh_msg *msg)
{
    RH_PUT(w, ",\"room\":");
    rh_put_str(w, target_name(&m->t));
    RH_PUT(w, ",\"id\":\"");
    rh_put(w, m->id.at, m->id.len);
    RH_PUT(w, "\",\"from\":");
    rh_put_str(w, (struct rh_span){from->name, from->name_len});
    RH_PUT(w, ",\"content\":");
    rh_put(w, m->p[M_CONTENT].raw.at, m->p[M_CONTENT].raw.len);
    RH_PUT(w, ",\"ack\":");
    rh_put_ack(w, msg, m->ack);
    RH_PUT(w, ",\"attempt\":");
    rh_put_attempt(w, msg);
    RH_PUT(w, ",\"priority\":\"");
    rh_put(w, m->priority, strlen(m->priority));
    RH_PUT(w, "\"");
    if (m->p[M_KEY].kind != RH_JSON_NONE) {
        RH_PUT(w, ",\"key\":");
        msg->key_at = (uint32_t)((uint8_t *)w->at - msg->bytes);
        msg->key_len = m->p[M_KEY].raw.len;
        rh_put(w, m->p[M_KEY].raw.at, m->p[M_KEY].raw.len);
    }
    RH_PUT(w, ",\"created_at\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, "}}");
}

/* The message as its receivers will get it, but for its number and what stands before that. */
static struct rh_msg *make_room_message(const struct rh_shard *sh, const struct publish *m,
                                        const struct rh_user *from, size_t room)
{
    struct rh_msg *msg = rh_msg_create(room);
    struct rh_writer w;

    if (!msg)
        return NULL;
    msg->kind = RH_MSG_ROOM;
    msg->high = m->high;
    msg->seq_at = RH_ROOM_HEAD_MAX;
    rh_writer_init(&w, msg->bytes + msg->seq_at, room - RH_ROOM_HEAD_MAX);
    put_room_message(sh, &w, m, from, msg);
    msg->frame_len = (uint32_t)rh_writer_len(&w);
    rh_put_names(&w, msg, target_name(&m->t), from, m->id);
    rh_assert(!w.full);
    rh_set_times(sh, msg, 0);
    msg->to_hash = m->t.hash;
    msg->given = m->p[M_ID].kind != RH_JSON_NONE;
    msg->excludes = m->p[M_EXCLUDE].kind == RH_JSON_TRUE;
    return msg->ack ? rh_msg_fit(msg, (size_t)((uint8_t *)w.at - msg->bytes)) : msg;
}

/* The ask with all that it needs. NULL: no memory, and the client was told. */
static struct rh_ask *publish_ask(struct rh_shard *sh, struct rh_conn *c,
                                  const struct rh_envelope *env, const struct publish *m,
                                  const struct rh_request *r, size_t room)
{
    struct rh_ask *ask = make_ask(sh, c, env, RH_ASK_PUBLISH, &m->t, m->id, (struct rh_span){0});
    bool promise = m->ack || r->key;

    if (!ask)
        return NULL;
    ask->exclude = m->p[M_EXCLUDE].kind == RH_JSON_TRUE;
    ask->msg = make_room_message(sh, m, rh_conn_user(c), room);
    if (ask->msg && promise)
        ask->cookie = rh_promise_make(sh, c, r, room, m->ack);
    if (!ask->msg || (promise && !ask->cookie)) {
        rh_ask_free(ask);
        rh_respond_error(sh, c, env->request_id, RH_WIRE_unavailable, NO_MEMORY);
        return NULL;
    }
    ask->dedup_ms = r->key ? rh_id_until_ms(sh) : 0;
    return ask;
}

/* A checked one; returns as rh_request. */
static int publish(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                   const struct publish *m, unsigned *ret_shard)
{
    struct rh_request r = {.event = RH_ID_PUBLISH, .request_id = env->request_id, .id = m->id};
    const struct rh_user *from = rh_conn_user(c);
    size_t room = publish_room(m, from);
    struct rh_id_key key;
    enum rh_promise_may may = RH_PROMISE_GO;
    struct rh_ask *ask;

    if (m->p[M_ID].kind != RH_JSON_NONE)
        rh_request_key(sh, &r, from, target_name(&m->t), &key);
    if (r.key || m->ack)
        may = rh_promise_admit(sh, c, &r, room, m->ack);
    *ret_shard = RH_WAIT_PROMISES;
    if (may == RH_PROMISE_DONE)
        return RH_OK;
    if (may == RH_PROMISE_WAIT || !way_open(sh, c, &m->t, room, ret_shard))
        return RH_EFULL;
    ask = publish_ask(sh, c, env, m, &r, room);
    if (ask)
        rh_ask_send(sh, ask);
    return RH_OK;
}

int rh_room_publish(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                    unsigned *ret_shard)
{
    static const struct rh_param rows[M_N] = {
        [M_ROOM] = RH_PARAM_ROW("room", STRING, true),
        [M_CONTENT] = RH_PARAM_ROW("content", ANY, true),
        [M_ACK] = RH_PARAM_ROW("ack", BOOL, false),
        [M_EXCLUDE] = RH_PARAM_ROW("exclude_self", BOOL, false),
        [M_PRIORITY] = RH_PARAM_ROW("priority", STRING, false),
        [M_ID] = RH_PARAM_ROW("id", STRING, false),
        [M_KEY] = RH_PARAM_ROW("key", STRING, false),
    };
    struct publish m;
    const char *why;

    if (!rh_request_params(sh, c, env, rows, M_N, m.p) ||
        /* cppcheck-suppress uninitvar ; rh_request_params has filled it */
        !read_target(sh, c, env, m.p[M_ROOM], &m.t))
        return RH_OK;
    why = check_publish(sh, &m);
    return why ? bad(sh, c, env, why) : publish(sh, c, env, &m, ret_shard);
}

/* ---- room.members, room.history ---- */

enum { L_ROOM, L_LIMIT, L_FROM, L_N };

/* A cursor is a number of ours in a string; since is a number. */
static bool read_from(struct rh_json v, bool is_cursor, uint64_t *ret)
{
    if (is_cursor) {
        if (v.kind != RH_JSON_STRING || v.raw.len < 3)
            return false;
        v = (struct rh_json){{v.raw.at + 1, v.raw.len - 2}, RH_JSON_NUMBER};
    }
    return rh_json_u64(v, 0, RH_MSG_SEQ_MAX, ret);
}

static int ask_list(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                    const struct rh_param rows[L_N], enum rh_room_op op, unsigned *ret_shard)
{
    struct rh_json p[L_N];
    uint64_t limit = PAGE_LIMIT, from = 0;
    struct rh_ask *ask;
    struct target t;

    if (!rh_request_params(sh, c, env, rows, L_N, p) || !read_target(sh, c, env, p[L_ROOM], &t))
        return RH_OK;
    if (p[L_LIMIT].kind != RH_JSON_NONE && !rh_json_u64(p[L_LIMIT], 1, RH_PAGE_MAX, &limit))
        return bad(sh, c, env, "limit: a whole number, 1 to 1000");
    if (p[L_FROM].kind != RH_JSON_NONE && !read_from(p[L_FROM], op == RH_ASK_MEMBERS, &from))
        return bad(sh, c, env,
                   op == RH_ASK_MEMBERS ? "cursor: not one of ours"
                                        : "since: the seq of a message, a whole number");
    if (!way_open(sh, c, &t, env->request_id.len + rh_ask_page_bytes(op, (uint32_t)limit),
                  ret_shard))
        return RH_EFULL;
    if (c->session->asks >= PAGES_MAX) {
        *ret_shard = RH_WAIT_OWN;
        return RH_EFULL;
    }
    ask = make_ask(sh, c, env, op, &t, (struct rh_span){0}, (struct rh_span){0});
    if (!ask)
        return RH_OK;
    ask->limit = (uint32_t)limit;
    ask->since = from;
    ask->has_since = p[L_FROM].kind != RH_JSON_NONE;
    rh_ask_send(sh, ask);
    return RH_OK;
}

int rh_room_members(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                    unsigned *ret_shard)
{
    static const struct rh_param rows[L_N] = {
        [L_ROOM] = RH_PARAM_ROW("room", STRING, true),
        [L_LIMIT] = RH_PARAM_ROW("limit", NUMBER, false),
        [L_FROM] = RH_PARAM_ROW("cursor", STRING, false),
    };

    return ask_list(sh, c, env, rows, RH_ASK_MEMBERS, ret_shard);
}

int rh_room_history(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                    unsigned *ret_shard)
{
    static const struct rh_param rows[L_N] = {
        [L_ROOM] = RH_PARAM_ROW("room", STRING, true),
        [L_LIMIT] = RH_PARAM_ROW("limit", NUMBER, false),
        [L_FROM] = RH_PARAM_ROW("since", NUMBER, false),
    };

    return ask_list(sh, c, env, rows, RH_ASK_HISTORY, ret_shard);
}

/* ---- answers ---- */

#define JOINED_ROOM (RH_FRAME_ROOM + RH_JSON_ESCAPED_MAX(RH_NAME_MAX))

/* "room":...,"members":... and so on, of the answers to JOIN and LEAVE. */
static void put_joined(struct rh_writer *w, const struct rh_ask *ask)
{
    char epoch[RH_EPOCH_LEN];

    rh_epoch_hex(ask->uid, epoch);
    RH_PUT(w, "{\"room\":");
    rh_put_str(w, rh_ask_room(ask));
    RH_PUT(w, ",\"members\":");
    rh_put_u64(w, ask->members);
    RH_PUT(w, ",\"seq\":");
    rh_put_u64(w, ask->seq);
    RH_PUT(w, ",\"epoch\":\"");
    rh_put(w, epoch, sizeof(epoch));
    RH_PUT(w, "\"");
    if (ask->op == RH_ASK_JOIN && ask->has_since) {
        if (ask->recovered)
            RH_PUT(w, ",\"recovered\":true,\"missed\":");
        else
            RH_PUT(w, ",\"recovered\":false,\"missed\":");
        rh_put_u64(w, ask->missed);
    }
    if (ask->op == RH_ASK_JOIN && ask->text) {
        RH_PUT(w, ",\"meta\":");
        rh_put(w, ask->text->at, ask->text->len);
    }
    RH_PUT(w, "}");
}

static void put_answer(struct rh_writer *w, const struct rh_ask *ask)
{
    switch ((enum rh_room_op)ask->op) {
    case RH_ASK_JOIN:
    case RH_ASK_LEAVE:
        put_joined(w, ask);
        break;
    case RH_ASK_MEMBERS:
    case RH_ASK_HISTORY:
        rh_put(w, ask->text->at, ask->text->len);
        break;
    default:
        RH_PUT(w, "{\"room\":");
        rh_put_str(w, rh_ask_room(ask));
        RH_PUT(w, "}");
        break;
    }
}

static void respond(struct rh_shard *sh, struct rh_conn *c, const struct rh_ask *ask)
{
    struct rh_span request_id = rh_ask_request(ask);
    size_t text = ask->text ? ask->text->len : 0;
    struct rh_frame f;

    if (!request_id.len || !rh_frame_begin(sh, c, &f, JOINED_ROOM + request_id.len + text))
        return;
    rh_put_response(&f.w, request_id);
    put_answer(&f.w, ask);
    rh_put_answer_end(sh, c, &f.w);
    rh_frame_end(sh, c, &f);
}

static void notify_refused(struct rh_shard *sh, struct rh_conn *c, struct rh_span room,
                           enum rh_wire_error err, const char *why)
{
    const char *name = rh_wire_error_name(err);
    struct rh_frame f;

    if (!rh_frame_begin(sh, c, &f, JOINED_ROOM + RH_JSON_ESCAPED_MAX(strlen(why))))
        return;
    rh_put_notify(&f.w, RH_SPAN("room.subscribed"));
    RH_PUT(&f.w, "{\"room\":");
    rh_put_str(&f.w, room);
    RH_PUT(&f.w, ",\"code\":");
    rh_put_u64(&f.w, rh_wire_error_status(err));
    RH_PUT(&f.w, ",\"error\":\"");
    rh_put(&f.w, name, strlen(name));
    RH_PUT(&f.w, "\",\"message\":");
    rh_put_str(&f.w, (struct rh_span){why, (uint32_t)strlen(why)});
    RH_PUT(&f.w, "}");
    rh_put_notify_end(sh, &f.w);
    rh_frame_end(sh, c, &f);
}

static void notify_subscribed(struct rh_shard *sh, struct rh_conn *c, const struct rh_ask *ask)
{
    struct rh_frame f;

    if (!rh_frame_begin(sh, c, &f, JOINED_ROOM + (ask->text ? ask->text->len : 0)))
        return;
    rh_put_notify(&f.w, RH_SPAN("room.subscribed"));
    put_joined(&f.w, ask);
    rh_put_notify_end(sh, &f.w);
    rh_frame_end(sh, c, &f);
}

/* The outcome of a publish, or that the record thread will tell it. */
static void published(struct rh_shard *sh, struct rh_conn *c, const struct rh_ask *ask)
{
    struct rh_outcome o = {
        .err = ask->err, .why = ask->why, .seq = ask->seq, .recipients = ask->members};

    if (ask->promised)
        rh_promise_owed(sh, ask->cookie);
    else if (ask->cookie)
        rh_promise_answer(sh, ask->cookie, &o);
    else
        rh_outcome_tell(sh, c, RH_ID_PUBLISH, rh_ask_request(ask), rh_ask_id(ask), &o);
}

void rh_room_respond(struct rh_shard *sh, struct rh_conn *c, const struct rh_ask *ask)
{
    if (ask->op == RH_ASK_PUBLISH) {
        published(sh, c, ask);
        return;
    }
    if (!c)
        return;
    if (ask->notify && ask->err)
        notify_refused(sh, c, rh_ask_room(ask), ask->err, ask->why);
    else if (ask->notify)
        notify_subscribed(sh, c, ask);
    else if (ask->err)
        rh_respond_error(sh, c, rh_ask_request(ask), ask->err, ask->why);
    else
        respond(sh, c, ask);
}

void rh_notify_gone(struct rh_shard *sh, struct rh_conn *c, const struct rh_sub *sub)
{
    notify_refused(sh, c, (struct rh_span){sub->name, sub->name_len}, RH_WIRE_not_found,
                   "the room has been deleted");
}

/* ---- rooms=a,b@12@EPOCH ---- */

bool rh_rooms_ok(struct rh_span rooms)
{
    struct rh_wish w;
    int rc = 1;

    while (rooms.len && rc > 0)
        rc = rh_wish_next(&rooms, &w);
    return rc >= 0 && !rooms.at;
}

static void want(struct rh_shard *sh, struct rh_conn *c, const struct rh_wish *w)
{
    struct rh_span room = {w->name, w->len};
    uint64_t hash = rh_hash(&sh->env->hash_key, room.at, room.len);
    struct rh_sub *sub = rh_sub_find(sh, c->session, hash, room);
    bool fresh = !sub;

    if (fresh && rh_sub_over_limit(sh, rh_conn_user(c), hash, room)) {
        notify_refused(sh, c, room, RH_WIRE_conflict, TOO_MANY_ROOMS);
        return;
    }
    if (fresh)
        sub = rh_sub_create(sh, c->session, hash, room);
    if (!sub) {
        notify_refused(sh, c, room, RH_WIRE_unavailable, NO_MEMORY);
        return;
    }
    if (w->has_since) {
        sub->has_since = true;
        sub->since = w->since;
        sub->has_epoch = w->has_epoch;
        sub->epoch = rh_epoch_parse(w->epoch);
    }
    if (fresh)
        rh_sub_want(sh, sub);
    else
        sub->named = true;
}

void rh_rooms_connect(struct rh_shard *sh, struct rh_conn *c, struct rh_span rooms)
{
    struct rh_wish w;

    while (rooms.len && c->state == RH_CONN_OPEN && rh_wish_next(&rooms, &w) > 0)
        want(sh, c, &w);
}

/* ---- what a room's members are told of each other ---- */

static struct rh_msg *make_notice(const struct rh_shard *sh, struct rh_span event,
                                  struct rh_span room, const struct rh_member *member,
                                  uint64_t members)
{
    size_t text = RH_FRAME_ROOM + RH_JSON_ESCAPED_MAX(room.len) +
                  (member ? RH_JSON_ESCAPED_MAX(member->name_len) : 0);
    struct rh_msg *msg = rh_msg_create(text + RH_NAME_MAX);
    uint8_t head[RH_WS_HEAD_MAX];
    struct rh_writer w;
    size_t len, head_len;

    if (!msg)
        return NULL;
    rh_writer_init(&w, msg->bytes + RH_MSG_HEAD_ROOM, text + RH_NAME_MAX);
    rh_put_notify(&w, event);
    RH_PUT(&w, "{\"room\":");
    rh_put_str(&w, room);
    if (member) {
        RH_PUT(&w, ",\"user\":");
        rh_put_str(&w, (struct rh_span){member->bytes, member->name_len});
        RH_PUT(&w, ",\"members\":");
        rh_put_u64(&w, members);
    }
    RH_PUT(&w, "}");
    rh_put_notify_end(sh, &w);
    len = rh_writer_len(&w);
    head_len = rh_ws_head(head, RH_WS_TEXT, true, len, NULL);
    msg->frame_at = (uint32_t)(RH_MSG_HEAD_ROOM - head_len);
    msg->frame_len = (uint32_t)(head_len + len);
    memcpy(msg->bytes + msg->frame_at, head, head_len);
    msg->kind = RH_MSG_NOTICE;
    msg->accepted_ns = sh->now_ns;
    if (member) {
        msg->excludes = true;
        msg->from_at = (uint32_t)(RH_MSG_HEAD_ROOM + len);
        msg->from_len = member->name_len;
        msg->from_hash = member->node.hash;
        rh_put(&w, member->bytes, member->name_len);
    }
    rh_assert(!w.full);
    return msg;
}

struct rh_msg *rh_notice_membership(struct rh_shard *sh, const struct rh_room *room, bool joined,
                                    const struct rh_member *member)
{
    return make_notice(sh, joined ? RH_SPAN("room.joined") : RH_SPAN("room.left"),
                       (struct rh_span){room->name, room->name_len}, member,
                       rh_map_count(&room->members));
}

struct rh_msg *rh_notice_deleted(struct rh_shard *sh, struct rh_span room)
{
    return make_notice(sh, RH_SPAN("room.deleted"), room, NULL, 0);
}
