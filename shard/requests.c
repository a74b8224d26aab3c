/* shard/requests.c - the requests that the hub answers itself: which there are, and message.send.
 *
 * A request's data is read once, into spans of the client's text; what is handed on is copied once,
 * into the message that all receivers get, which is encoded here up to its last field: the sequence
 * number, for which sixteen digits are left (core/msg.h). Rooms have a file of their own
 * (shard/room_requests.c), and so has the writing of answers (shard/answer.c).
 */
#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "proto/envelope.h"
#include "shard/promise.h"

/* id, priority, three numbers and everything fixed of a `message` notify */
#define NOTIFY_ROOM (RH_ID_GIVEN_MAX + 320)

/* ---- what several requests have among their data ---- */

bool rh_request_params(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                       const struct rh_param *rows, unsigned count, struct rh_json *out)
{
    char why[160];
    int rc = rh_params_read(env->data, rows, count, out, why, sizeof(why));

    if (rc == RH_ENOMEM)
        rh_respond_error(sh, c, env->request_id, RH_WIRE_unavailable, "out of memory");
    else if (rc < 0)
        rh_respond_error(sh, c, env->request_id, RH_WIRE_bad_request, why);
    return rc == RH_OK;
}

bool rh_check_name(struct rh_json v, char dst[RH_NAME_MAX], uint8_t *ret_len)
{
    int len = rh_json_str_decode(dst, RH_NAME_MAX, v.raw);

    if (len < 0 || !rh_name_ok(dst, (size_t)len))
        return false;
    *ret_len = (uint8_t)len;
    return true;
}

const char *rh_check_given_id(struct rh_json v, char dst[RH_ID_GIVEN_MAX], struct rh_span *ret_id,
                              const char *why)
{
    int len = rh_json_str_decode(dst, RH_ID_GIVEN_MAX, v.raw);

    if (len < 0 || !rh_id_given_ok(dst, (size_t)len))
        return why;
    *ret_id = (struct rh_span){dst, (uint32_t)len};
    return NULL;
}

const char *rh_check_id(struct rh_shard *sh, struct rh_json v, char dst[RH_ID_GIVEN_MAX],
                        struct rh_span *ret_id)
{
    if (v.kind != RH_JSON_NONE)
        return rh_check_given_id(v, dst, ret_id, "id: 1 to 64 of A-Z a-z 0-9 . _ : -");
    rh_id_make(&sh->ids, rh_now_unix_ms(sh), dst);
    *ret_id = (struct rh_span){dst, RH_ID_TEXT};
    return NULL;
}

bool rh_check_ack(const struct rh_shard *sh, struct rh_json v)
{
    return v.kind == RH_JSON_NONE ? sh->cfg->ack_default : v.kind == RH_JSON_TRUE;
}

const char *rh_check_priority(struct rh_json v, const char **ret_name, bool *ret_high)
{
    static const struct {
        const char *name;
        bool high;
    } names[] = {
        {"normal", false}, {"low", false}, {"high", true}, {"urgent", true}, {"critical", true},
    };
    size_t i = 0;

    while (v.kind != RH_JSON_NONE && i < RH_COUNT(names) &&
           !rh_json_str_eq(v.raw, names[i].name, strlen(names[i].name)))
        i++;
    if (i == RH_COUNT(names))
        return "priority: one of low, normal, high, urgent, critical";
    *ret_name = names[i].name;
    *ret_high = names[i].high;
    return NULL;
}

/* ---- what every message has that may be owed ---- */

void rh_put_ack(struct rh_writer *w, struct rh_msg *msg, bool ack)
{
    msg->ack = ack;
    msg->ack_at = rh_written(w, msg);
    if (ack)
        RH_PUT(w, "true");
    else
        RH_PUT(w, "false");
}

void rh_put_attempt(struct rh_writer *w, struct rh_msg *msg)
{
    msg->attempt_at = rh_written(w, msg);
    msg->attempt_len = 1;
    RH_PUT(w, "1");
}

size_t rh_names_room(struct rh_span to, const struct rh_user *from, struct rh_span id)
{
    return to.len + from->name_len + id.len;
}

/* Where a span that was just written begins. */
static uint32_t put_name(struct rh_writer *w, const struct rh_msg *msg, struct rh_span name)
{
    uint32_t at = rh_written(w, msg);

    rh_put(w, name.at, name.len);
    return at;
}

void rh_put_names(struct rh_writer *w, struct rh_msg *msg, struct rh_span to,
                  const struct rh_user *from, struct rh_span id)
{
    msg->to_at = put_name(w, msg, to);
    msg->to_len = (uint8_t)to.len;
    msg->from_at = put_name(w, msg, (struct rh_span){from->name, from->name_len});
    msg->from_len = from->name_len;
    msg->from_hash = from->node.hash;
    msg->from_user = true;
    msg->id_at = put_name(w, msg, id);
    msg->id_len = (uint8_t)id.len;
}

void rh_set_times(const struct rh_shard *sh, struct rh_msg *msg, uint64_t ttl_ms)
{
    msg->accepted_ns = sh->now_ns;
    msg->created_ms = rh_now_unix_ms(sh);
    msg->expires_ms = msg->created_ms + (ttl_ms ? ttl_ms : sh->cfg->offline_ttl_ms);
}

/* ---- message.send ---- */

enum { P_TO, P_CONTENT, P_ID, P_ACK, P_PRIORITY, P_TTL, P_TYPE, P_TAGS, P_FIELDS, P_REPLY_TO, P_N };

static const struct rh_param send_rows[P_N] = {
    [P_TO] = RH_PARAM_ROW("to", STRING, true),
    [P_CONTENT] = RH_PARAM_ROW("content", ANY, true),
    [P_ID] = RH_PARAM_ROW("id", STRING, false),
    [P_ACK] = RH_PARAM_ROW("ack", BOOL, false),
    [P_PRIORITY] = RH_PARAM_ROW("priority", STRING, false),
    [P_TTL] = RH_PARAM_ROW("ttl_ms", NUMBER, false),
    [P_TYPE] = RH_PARAM_ROW("type", STRING, false),
    [P_TAGS] = RH_PARAM_ROW("tags", ARRAY, false),
    [P_FIELDS] = RH_PARAM_ROW("fields", OBJECT, false),
    [P_REPLY_TO] = RH_PARAM_ROW("reply_to", STRING, false),
};

#define TYPE_MAX 64 /* bytes of a message's type, a tag */

/* A checked message.send; spans point into the client's text or into `texts`. */
struct send {
    struct rh_json p[P_N];
    struct rh_span to, id;
    const char *priority;
    uint64_t ttl_ms; /* 0: it does not say */
    bool high, ack;
    char to_text[RH_NAME_MAX];
    char id_text[RH_ID_GIVEN_MAX];
};

static const char *check_to(struct send *s)
{
    uint8_t len;

    /* cppcheck-suppress uninitvar ; rh_request_params has filled it */
    if (!rh_check_name(s->p[P_TO], s->to_text, &len))
        return "to: not a user's name (1 to 128 bytes of UTF-8 without control characters)";
    s->to = (struct rh_span){s->to_text, len};
    return NULL;
}

static const char *check_tags(const struct send *s)
{
    struct rh_json_iter it;
    struct rh_json tag;

    rh_json_elements(&it, s->p[P_TAGS]);
    while (rh_json_next_element(&it, &tag)) {
        size_t len = tag.kind == RH_JSON_STRING ? rh_json_str_len(tag.raw) : 0;

        if (len == 0 || len > TYPE_MAX)
            return "tags: strings of 1 to 64 bytes";
    }
    return NULL;
}

static const char *check_rest(struct send *s)
{
    char reply_text[RH_ID_GIVEN_MAX];
    struct rh_span reply;
    size_t len;

    s->ttl_ms = 0;
    if (s->p[P_TTL].kind != RH_JSON_NONE &&
        !rh_json_u64(s->p[P_TTL], 1, RH_MSG_SEQ_MAX, &s->ttl_ms))
        return "ttl_ms: a whole number of milliseconds, at least 1";
    if (s->p[P_TYPE].kind != RH_JSON_NONE) {
        len = rh_json_str_len(s->p[P_TYPE].raw);
        if (len == 0 || len > TYPE_MAX)
            return "type: 1 to 64 bytes";
    }
    if (s->p[P_REPLY_TO].kind != RH_JSON_NONE &&
        rh_check_given_id(s->p[P_REPLY_TO], reply_text, &reply, ""))
        return "reply_to: not a message's id";
    return s->p[P_TAGS].kind == RH_JSON_NONE ? NULL : check_tags(s);
}

/* NULL, or why it is refused with 400. */
static const char *check_send(struct rh_shard *sh, struct send *s)
{
    const char *why = check_to(s);

    if (!why)
        why = rh_check_priority(s->p[P_PRIORITY], &s->priority, &s->high);
    if (!why)
        why = check_rest(s);
    if (!why)
        why = rh_check_id(sh, s->p[P_ID], s->id_text, &s->id);
    s->ack = rh_check_ack(sh, s->p[P_ACK]);
    return why;
}

static size_t send_room(const struct send *s, const struct rh_user *from)
{
    return NOTIFY_ROOM + RH_JSON_ESCAPED_MAX(from->name_len) + s->p[P_CONTENT].raw.len +
           s->p[P_TYPE].raw.len + s->p[P_TAGS].raw.len + s->p[P_FIELDS].raw.len +
           s->p[P_REPLY_TO].raw.len;
}

static void put_optional(struct rh_writer *w, const char *key, struct rh_json value)
{
    if (value.kind == RH_JSON_NONE)
        return;
    rh_put(w, key, strlen(key));
    rh_put(w, value.raw.at, value.raw.len);
}

/* The text of the notify; remembers where that stands which another shard may have to change. */
static void put_notify(struct rh_shard *sh, struct rh_writer *w, const struct send *s,
                       const struct rh_user *from, struct rh_msg *msg)
{
    RH_PUT(w, "{\"type\":\"notify\",\"event\":\"message\",\"data\":{\"id\":\"");
    rh_put(w, s->id.at, s->id.len);
    RH_PUT(w, "\",\"from\":");
    rh_put_str(w, (struct rh_span){from->name, from->name_len});
    RH_PUT(w, ",\"content\":");
    rh_put(w, s->p[P_CONTENT].raw.at, s->p[P_CONTENT].raw.len);
    RH_PUT(w, ",\"ack\":");
    rh_put_ack(w, msg, s->ack);
    RH_PUT(w, ",\"seq\":");
    msg->seq_at = rh_written(w, msg);
    RH_PUT(w, "0000000000000000,\"priority\":\"");
    rh_put(w, s->priority, strlen(s->priority));
    RH_PUT(w, "\",\"type\":");
    if (s->p[P_TYPE].kind == RH_JSON_NONE)
        RH_PUT(w, "\"text\"");
    else
        rh_put(w, s->p[P_TYPE].raw.at, s->p[P_TYPE].raw.len);
    put_optional(w, ",\"tags\":", s->p[P_TAGS]);
    put_optional(w, ",\"fields\":", s->p[P_FIELDS]);
    put_optional(w, ",\"reply_to\":", s->p[P_REPLY_TO]);
    RH_PUT(w, ",\"attempt\":");
    rh_put_attempt(w, msg);
    RH_PUT(w, ",\"created_at\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, "},\"timestamp\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, "}");
}

/* The message as its receivers will get it, but for the number. NULL: no memory. */
static struct rh_msg *make_message(struct rh_shard *sh, const struct send *s,
                                   const struct rh_user *from, uint64_t to_hash, size_t room)
{
    struct rh_msg *msg = rh_msg_create(room + rh_names_room(s->to, from, s->id));
    struct rh_writer w;

    if (!msg)
        return NULL;
    rh_writer_init(&w, msg->bytes + RH_MSG_HEAD_ROOM, room + rh_names_room(s->to, from, s->id));
    put_notify(sh, &w, s, from, msg);
    rh_msg_put_head(msg, rh_writer_len(&w));
    rh_put_names(&w, msg, s->to, from, s->id);
    rh_assert(!w.full);
    rh_set_times(sh, msg, s->ttl_ms);
    msg->to_hash = to_hash;
    msg->high = s->high;
    msg->given = s->p[P_ID].kind != RH_JSON_NONE;
    /* What is owed may be kept for long, by the million: not with the room for the longest names. */
    return msg->ack ? rh_msg_fit(msg, (size_t)((uint8_t *)w.at - msg->bytes)) : msg;
}

/* A checked one; returns as rh_request. */
static int send_message(struct rh_shard *sh, struct rh_conn *c, const struct send *s,
                        struct rh_request *r, unsigned *ret_shard)
{
    const struct rh_user *from = rh_conn_user(c);
    uint64_t hash = rh_hash(&sh->env->hash_key, s->to.at, s->to.len);
    size_t room = send_room(s, from);
    struct rh_id_key key;
    enum rh_promise_may may;
    struct rh_msg *msg;

    if (s->p[P_ID].kind != RH_JSON_NONE)
        rh_request_key(sh, r, from, s->to, &key);
    may = rh_promise_admit(sh, c, r, room, s->ack);
    *ret_shard = may == RH_PROMISE_GO ? rh_hash_shard(hash, sh->env->shards) : RH_WAIT_PROMISES;
    if (may == RH_PROMISE_DONE)
        return RH_OK;
    if (may == RH_PROMISE_WAIT || !rh_route_open(sh, *ret_shard, room + RH_MSG_HEAD_ROOM))
        return RH_EFULL;
    msg = make_message(sh, s, from, hash, room);
    if (msg)
        rh_route_send(sh, c, *ret_shard, msg, r);
    else
        rh_respond_error(sh, c, r->request_id, RH_WIRE_unavailable, "out of memory");
    return RH_OK;
}

static int message_send(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                        unsigned *ret_shard)
{
    struct rh_request r = {.event = RH_ID_SEND, .request_id = env->request_id};
    struct send s;
    const char *why;

    if (!rh_request_params(sh, c, env, send_rows, P_N, s.p))
        return RH_OK;
    why = check_send(sh, &s);
    if (why) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_bad_request, why);
        return RH_OK;
    }
    r.id = s.id;
    return send_message(sh, c, &s, &r, ret_shard);
}

static int ping(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                unsigned *ret_shard)
{
    rh_respond_data(sh, c, env->request_id,
                    env->data.kind == RH_JSON_NONE ? RH_SPAN("null") : env->data.raw);
    return RH_OK;
}

int rh_request(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
               unsigned *ret_shard)
{
    static const struct {
        struct rh_span event;
        int (*handle)(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                      unsigned *ret_shard);
    } table[] = {
        {{"message.send", 12}, message_send},
        {{"room.publish", 12}, rh_room_publish},
        {{"ping", 4}, ping},
        {{"broadcast", 9}, rh_broadcast_request},
        {{"room.join", 9}, rh_room_join},
        {{"room.leave", 10}, rh_room_leave},
        {{"room.members", 12}, rh_room_members},
        {{"room.history", 12}, rh_room_history},
        {{"room.create", 11}, rh_room_create},
        {{"room.delete", 11}, rh_room_delete},
    };

    for (size_t i = 0; i < RH_COUNT(table); i++)
        if (rh_span_eq(env->event, table[i].event))
            return table[i].handle(sh, c, env, ret_shard);
    rh_respond_error(sh, c, env->request_id, RH_WIRE_unknown_event, "nobody handles this event");
    return RH_OK;
}
