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
#include "shard/room_int.h"

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
    bool high;
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

static const char *check_rest(const struct send *s)
{
    char reply_text[RH_ID_GIVEN_MAX];
    struct rh_span reply;
    uint64_t ttl;
    size_t len;

    if (s->p[P_TTL].kind != RH_JSON_NONE && !rh_json_u64(s->p[P_TTL], 1, RH_MSG_SEQ_MAX, &ttl))
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

/* The text of the notify; remembers where its sequence number stands. */
static void put_notify(struct rh_shard *sh, struct rh_writer *w, const struct send *s,
                       const struct rh_user *from, struct rh_msg *msg)
{
    RH_PUT(w, "{\"type\":\"notify\",\"event\":\"message\",\"data\":{\"id\":\"");
    rh_put(w, s->id.at, s->id.len);
    RH_PUT(w, "\",\"from\":");
    rh_put_str(w, (struct rh_span){from->name, from->name_len});
    RH_PUT(w, ",\"content\":");
    rh_put(w, s->p[P_CONTENT].raw.at, s->p[P_CONTENT].raw.len);
    RH_PUT(w, ",\"ack\":false,\"seq\":");
    msg->seq_at = (uint32_t)((uint8_t *)w->at - msg->bytes);
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
    RH_PUT(w, ",\"attempt\":1,\"created_at\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, "},\"timestamp\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, "}");
}

/* The message as its receivers will get it, but for the number. NULL: no memory. */
static struct rh_msg *make_message(struct rh_shard *sh, const struct send *s,
                                   const struct rh_user *from, uint64_t to_hash, size_t room)
{
    struct rh_msg *msg = rh_msg_create(room + s->to.len);
    struct rh_writer w;
    uint8_t head[RH_WS_HEAD_MAX];
    size_t len, head_len;

    if (!msg)
        return NULL;
    rh_writer_init(&w, msg->bytes + RH_MSG_HEAD_ROOM, room);
    put_notify(sh, &w, s, from, msg);
    rh_assert(!w.full);
    len = rh_writer_len(&w);
    head_len = rh_ws_head(head, RH_WS_TEXT, true, len, NULL);
    msg->frame_at = (uint32_t)(RH_MSG_HEAD_ROOM - head_len);
    msg->frame_len = (uint32_t)(head_len + len);
    memcpy(msg->bytes + msg->frame_at, head, head_len);
    msg->to_at = (uint32_t)(RH_MSG_HEAD_ROOM + len);
    msg->to_len = (uint8_t)s->to.len;
    memcpy(msg->bytes + msg->to_at, s->to.at, s->to.len);
    msg->to_hash = to_hash;
    msg->high = s->high;
    msg->accepted_ns = sh->now_ns;
    return msg;
}

static int message_send(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                        unsigned *ret_shard)
{
    struct send s;
    const char *why;
    struct rh_msg *msg;
    uint64_t hash;
    size_t room;

    if (!rh_request_params(sh, c, env, send_rows, P_N, s.p))
        return RH_OK;
    why = check_send(sh, &s);
    if (why) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_bad_request, why);
        return RH_OK;
    }
    if (s.p[P_ACK].kind == RH_JSON_TRUE) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_unavailable,
                         "ack: acknowledged messages are not supported yet");
        return RH_OK;
    }
    hash = rh_hash(&sh->env->hash_key, s.to.at, s.to.len);
    room = send_room(&s, rh_conn_user(c));
    *ret_shard = rh_hash_shard(hash, sh->env->shards);
    if (!rh_route_open(sh, *ret_shard, room + RH_MSG_HEAD_ROOM))
        return RH_EFULL;
    msg = make_message(sh, &s, rh_conn_user(c), hash, room);
    if (msg)
        rh_route_send(sh, c, *ret_shard, msg, env->request_id, s.id);
    else
        rh_respond_error(sh, c, env->request_id, RH_WIRE_unavailable, "out of memory");
    return RH_OK;
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
