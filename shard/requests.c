/* shard/requests.c - the requests that the hub answers itself, and its answers.
 *
 * A request's data is read once, into spans of the client's text; what is handed on is copied once,
 * into the message that all receivers get, which is encoded here up to its last field: the sequence
 * number, for which sixteen digits are left (core/msg.h).
 *
 * Limits     an error's sentence: WHY_MAX bytes.
 */
#include "shard/shard_int.h"

#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "proto/envelope.h"

#define TRACE_ID_LEN 32
#define WHY_MAX      256 /* bytes of an error's sentence */
#define FIXED_ROOM   320 /* all of an answer whose size is known: names, numbers, ids of ours */
/* id, priority, three numbers and everything fixed of a `message` notify */
#define NOTIFY_ROOM (RH_ID_GIVEN_MAX + 320)

/* ---- answers ---- */

/* A text frame of our own that is being written: its header is put in front at the end. */
struct frame {
    struct rh_writer w;
    uint8_t *own;
    size_t head; /* bytes left for the header */
};

static bool frame_begin(struct rh_shard *sh, struct rh_conn *c, struct frame *f, size_t room)
{
    f->head = room < 126 ? 2 : room <= UINT16_MAX ? 4 : 10;
    f->own = c->state == RH_CONN_OPEN ? rh_conn_own(sh, c, RH_MSG_HEAD_ROOM + room) : NULL;
    if (!f->own)
        return false;
    rh_writer_init(&f->w, f->own + f->head, room);
    return true;
}

static void frame_end(struct rh_shard *sh, struct rh_conn *c, struct frame *f)
{
    size_t len = rh_writer_len(&f->w);
    uint8_t head[RH_WS_HEAD_MAX];
    size_t head_len = rh_ws_head(head, RH_WS_TEXT, true, len, NULL);

    rh_assert(!f->w.full);
    if (head_len != f->head)
        memmove(f->own + head_len, f->own + f->head, len);
    memcpy(f->own, head, head_len);
    rh_conn_own_done(sh, c, head_len + len);
}

static void put_request_id(struct rh_writer *w, struct rh_span request_id)
{
    if (!request_id.len)
        return;
    RH_PUT(w, ",\"request_id\":");
    rh_put(w, request_id.at, request_id.len);
}

/* Ends an answer: when, and as part of which trace. */
static void put_end(struct rh_shard *sh, const struct rh_conn *c, struct rh_writer *w)
{
    uint64_t made[2];
    char hex[TRACE_ID_LEN];

    RH_PUT(w, ",\"timestamp\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, ",\"trace_id\":\"");
    if (c->extra && c->extra->trace_id[0]) {
        rh_put(w, c->extra->trace_id, TRACE_ID_LEN);
    } else {
        made[0] = rh_prng_next(&sh->prng) | 1; /* a trace id is never zero */
        made[1] = rh_prng_next(&sh->prng);
        rh_hex(hex, made, sizeof(made));
        rh_put(w, hex, sizeof(hex));
    }
    RH_PUT(w, "\"}");
}

void rh_respond_error(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                      unsigned err, const char *why)
{
    const char *name = rh_wire_error_name(err);
    struct frame f;

    if (!frame_begin(sh, c, &f, FIXED_ROOM + request_id.len + RH_JSON_ESCAPED_MAX(WHY_MAX)))
        return;
    RH_PUT(&f.w, "{\"type\":\"error\"");
    put_request_id(&f.w, request_id);
    RH_PUT(&f.w, ",\"code\":");
    rh_put_u64(&f.w, rh_wire_error_status(err));
    RH_PUT(&f.w, ",\"error\":\"");
    rh_put(&f.w, name, strlen(name));
    RH_PUT(&f.w, "\",\"message\":");
    rh_put_str(&f.w, (struct rh_span){why, (uint32_t)strnlen(why, WHY_MAX)});
    put_end(sh, c, &f.w);
    frame_end(sh, c, &f);
}

static void put_response(struct rh_writer *w, struct rh_span request_id)
{
    RH_PUT(w, "{\"type\":\"response\"");
    put_request_id(w, request_id);
    RH_PUT(w, ",\"code\":200,\"message\":\"OK\",\"data\":");
}

void rh_respond_data(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                     struct rh_span data)
{
    struct frame f;

    if (!request_id.len || !frame_begin(sh, c, &f, FIXED_ROOM + request_id.len + data.len))
        return;
    put_response(&f.w, request_id);
    rh_put(&f.w, data.at, data.len);
    put_end(sh, c, &f.w);
    frame_end(sh, c, &f);
}

void rh_respond_id(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                   struct rh_span id, const char *status)
{
    struct frame f;

    if (!request_id.len || !frame_begin(sh, c, &f, FIXED_ROOM + request_id.len + id.len))
        return;
    put_response(&f.w, request_id);
    RH_PUT(&f.w, "{\"id\":\"");
    rh_put(&f.w, id.at, id.len);
    RH_PUT(&f.w, "\",\"status\":\"");
    rh_put(&f.w, status, strlen(status));
    RH_PUT(&f.w, "\"}");
    put_end(sh, c, &f.w);
    frame_end(sh, c, &f);
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
    int len = rh_json_str_decode(s->to_text, sizeof(s->to_text), s->p[P_TO].raw);

    if (len < 0 || !rh_name_ok(s->to_text, (size_t)len))
        return "to: not a user's name (1 to 128 bytes of UTF-8 without control characters)";
    s->to = (struct rh_span){s->to_text, (uint32_t)len};
    return NULL;
}

static const char *check_given_id(struct rh_json v, char dst[RH_ID_GIVEN_MAX],
                                  struct rh_span *ret_id, const char *why)
{
    int len = rh_json_str_decode(dst, RH_ID_GIVEN_MAX, v.raw);

    if (len < 0 || !rh_id_given_ok(dst, (size_t)len))
        return why;
    *ret_id = (struct rh_span){dst, (uint32_t)len};
    return NULL;
}

static const char *check_priority(struct send *s)
{
    static const struct {
        const char *name;
        bool high;
    } names[] = {
        {"normal", false}, {"low", false}, {"high", true}, {"urgent", true}, {"critical", true},
    };

    s->priority = names[0].name;
    if (s->p[P_PRIORITY].kind == RH_JSON_NONE)
        return NULL;
    for (size_t i = 0; i < RH_COUNT(names); i++) {
        if (rh_json_str_eq(s->p[P_PRIORITY].raw, names[i].name, strlen(names[i].name))) {
            s->priority = names[i].name;
            s->high = names[i].high;
            return NULL;
        }
    }
    return "priority: one of low, normal, high, urgent, critical";
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
        check_given_id(s->p[P_REPLY_TO], reply_text, &reply, ""))
        return "reply_to: not a message's id";
    return s->p[P_TAGS].kind == RH_JSON_NONE ? NULL : check_tags(s);
}

/* NULL, or why it is refused with 400. */
static const char *check_send(struct rh_shard *sh, struct send *s)
{
    const char *why = check_to(s);

    s->id.len = 0;
    s->high = false;
    if (!why && s->p[P_ID].kind != RH_JSON_NONE)
        why = check_given_id(s->p[P_ID], s->id_text, &s->id, "id: 1 to 64 of A-Z a-z 0-9 . _ : -");
    if (!why)
        why = check_priority(s);
    if (!why)
        why = check_rest(s);
    if (!why && !s->id.len) {
        rh_id_make(&sh->ids, rh_now_unix_ms(sh), s->id_text);
        s->id = (struct rh_span){s->id_text, RH_ID_TEXT};
    }
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
    char refusal[160];
    const char *why = refusal;
    struct rh_msg *msg;
    uint64_t hash;
    size_t room;
    int rc = rh_params_read(env->data, send_rows, P_N, s.p, refusal, sizeof(refusal));

    if (rc == RH_OK)
        why = check_send(sh, &s);
    if (rc == RH_ENOMEM) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_unavailable, "out of memory");
        return RH_OK;
    }
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
    room = send_room(&s, c->user);
    *ret_shard = rh_hash_shard(hash, sh->env->shards);
    if (!rh_route_open(sh, *ret_shard, room + RH_MSG_HEAD_ROOM))
        return RH_EFULL;
    msg = make_message(sh, &s, c->user, hash, room);
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
        {{"ping", 4}, ping},
    };

    for (size_t i = 0; i < RH_COUNT(table); i++)
        if (rh_span_eq(env->event, table[i].event))
            return table[i].handle(sh, c, env, ret_shard);
    rh_respond_error(sh, c, env->request_id, RH_WIRE_unknown_event, "nobody handles this event");
    return RH_OK;
}
