/* tools/load/mode_send.c - user to user through ringhub: each connection sends to its partner.
 *
 * Connection i is the user bench-RUN-i and sends message.send to bench-RUN-(i ^ 1); both ends live
 * in one worker. A request's id is the message's number. Checked are: of each request that it gets
 * exactly one response, 200 and `sent`; of each message that it arrives once, in its sender's
 * order, with `from` and content as they must be. A message is outstanding until it arrived.
 *
 * A text message of ringhub's is validated as JSON, then walked once for the envelope's members and
 * once for those of its data: no copy, no allocation unless it came in pieces.
 */
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "proto/json.h"
#include "tools/load/load.h"

static size_t user_name(const struct load_worker *w, uint32_t number, char *dst, size_t room)
{
    return (size_t)snprintf(dst, room, "bench-%s-%u", w->run->id, number);
}

static size_t build(struct load_worker *w, struct load_conn *c, uint64_t seq)
{
    char to[64];
    struct rh_writer out;

    rh_writer_init(&out, w->scratch, w->scratch_room);
    RH_PUT(&out, "{\"type\":\"request\",\"event\":\"message.send\",\"request_id\":\"");
    rh_put_u64(&out, seq);
    RH_PUT(&out, "\",\"data\":{\"to\":\"");
    rh_put(&out, to, user_name(w, load_conn_partner(w, c)->number, to, sizeof(to)));
    RH_PUT(&out, "\",\"content\":\"");
    rh_assert(!out.full && w->run->opts->size <= (size_t)(out.end - out.at));
    load_payload_fill((uint8_t *)out.at, w->run->opts->size, c->number, seq);
    out.at += w->run->opts->size;
    RH_PUT(&out, "\"}}");
    rh_assert(!out.full);
    return rh_writer_len(&out);
}

/* ---- reading what the server says ---- */

/* The members that the tool looks at; kind RH_JSON_NONE where they are missing. */
struct envelope {
    struct rh_json type, event, request_id, code, error, message, data;
};

struct body {
    struct rh_json from, content, status;
};

static bool is_text(struct rh_json v, const char *plain)
{
    return v.kind == RH_JSON_STRING && rh_json_str_eq(v.raw, plain, strlen(plain));
}

static bool key_is(struct rh_span key, const char *quoted, size_t len)
{
    return key.len == len && memcmp(key.at, quoted, len) == 0;
}

#define PICK(dst, member)                                                                          \
    if (key_is(key, "\"" #member "\"", sizeof(#member) + 1)) {                                     \
        (dst)->member = value;                                                                     \
        continue;                                                                                  \
    }

static bool read_envelope(const char *text, size_t len, struct envelope *e)
{
    struct rh_json_iter it;
    struct rh_json value;
    struct rh_span key;
    const char *end = text + len, *after;

    memset(e, 0, sizeof(*e));
    after = rh_json_scan(rh_json_space(text, end), end, RH_JSON_DEPTH, &value);
    if (!after || rh_json_space(after, end) != end || value.kind != RH_JSON_OBJECT)
        return false;
    rh_json_members(&it, value);
    while (rh_json_next_member(&it, &key, &value)) {
        PICK(e, type)
        PICK(e, event)
        PICK(e, request_id)
        PICK(e, code)
        PICK(e, error)
        PICK(e, message)
        PICK(e, data)
    }
    return true;
}

static void read_body(struct rh_json data, struct body *b)
{
    struct rh_json_iter it;
    struct rh_json value;
    struct rh_span key;

    memset(b, 0, sizeof(*b));
    if (data.kind != RH_JSON_OBJECT)
        return;
    rh_json_members(&it, data);
    while (rh_json_next_member(&it, &key, &value)) {
        PICK(b, from)
        PICK(b, content)
        PICK(b, status)
    }
}

bool load_send_is_welcome(const char *text, size_t len)
{
    struct envelope e;

    return read_envelope(text, len, &e) && is_text(e.type, "notify") && is_text(e.event, "welcome");
}

/* ---- what it means ---- */

static bool read_request_id(struct rh_json v, uint64_t *ret_seq)
{
    struct rh_json digits = {{v.raw.at + 1, v.raw.len - 2}, RH_JSON_NUMBER};

    return v.kind == RH_JSON_STRING && v.raw.len > 2 &&
           rh_json_u64(digits, 0, UINT64_C(1) << 48, ret_seq);
}

static void unexpected(struct load_worker *w, const struct load_conn *c, const char *what,
                       const char *text, size_t len)
{
    load_count(&w->counts.unexpected);
    load_worker_note(w, "connection %u: %s: %.*s", c->number, what, (int)RH_MIN(len, 200), text);
}

static void on_response(struct load_worker *w, struct load_conn *c, const struct envelope *e,
                        const char *text, size_t len)
{
    struct body b;
    uint64_t seq, code, intended;

    if (!read_request_id(e->request_id, &seq)) {
        unexpected(w, c, "an answer without a request", text, len);
        return;
    }
    if (!load_flow_answer(&c->flow, seq, &intended)) {
        unexpected(w, c, "a second answer, or one to no request", text, len);
        return;
    }
    read_body(e->data, &b);
    if (is_text(e->type, "response") && rh_json_u64(e->code, 200, 200, &code) &&
        is_text(b.status, "sent")) {
        load_count(&w->counts.answered);
        load_pace_latency(w, &w->answer, intended, rh_clock_mono_ns());
        return;
    }
    load_count(&w->counts.rejected);
    load_worker_note(w, "connection %u: request %llu was answered with %.*s", c->number,
                     (unsigned long long)seq, (int)RH_MIN(len, 200), text);
    if (is_text(e->type, "error")) {
        load_flow_give_up(&c->flow, seq);
        load_pace_pump(w, c, rh_clock_mono_ns());
    }
}

/* A message for `c`, which its partner sent. Anything wrong with it is counted here. */
static void on_message(struct load_worker *w, struct load_conn *c, struct rh_json data,
                       const char *text, size_t len)
{
    struct load_conn *sender = load_conn_partner(w, c);
    struct load_seen seen;
    struct body b;
    char from[64];
    uint64_t now = rh_clock_mono_ns(), intended;
    bool right = false;

    read_body(data, &b);
    load_seen_begin(&seen);
    if (b.content.kind == RH_JSON_STRING) {
        load_seen_feed(&seen, &sender->flow, w->run->opts->size,
                       (const uint8_t *)b.content.raw.at + 1, b.content.raw.len - 2);
        right = load_seen_end(&seen, &sender->flow, w->run->opts->size);
    }
    user_name(w, sender->number, from, sizeof(from));
    if (!right || !is_text(b.from, from)) {
        seen.seq = sender->flow.expected;
        load_count(&w->counts.corrupted);
        load_worker_note(w, "connection %u: instead of message %llu of %s came %.*s", c->number,
                         (unsigned long long)seen.seq, from, (int)RH_MIN(len, 200), text);
    }
    switch (load_flow_arrive(&sender->flow, seen.seq, &intended)) {
    case LOAD_UNKNOWN:
        unexpected(w, c, "a message that is not outstanding", text, len);
        return;
    case LOAD_REORDERED:
        load_count(&w->counts.reordered);
        load_worker_note(w, "connection %u: message %llu of %s came after a later one", c->number,
                         (unsigned long long)seen.seq, from);
        break;
    default:
        break;
    }
    load_count(&w->counts.completed);
    load_pace_latency(w, &w->latency, intended, now);
    load_pace_pump(w, sender, now);
}

static void on_text(struct load_worker *w, struct load_conn *c, const char *text, size_t len)
{
    struct envelope e;

    if (!read_envelope(text, len, &e))
        unexpected(w, c, "not a JSON object", text, len);
    else if (is_text(e.type, "response") || is_text(e.type, "error"))
        on_response(w, c, &e, text, len);
    else if (!is_text(e.type, "notify"))
        unexpected(w, c, "neither notify nor response", text, len);
    else if (is_text(e.event, "message"))
        on_message(w, c, e.data, text, len);
    else if (is_text(e.event, "messages.lost"))
        load_worker_note(w, "connection %u was told of a loss: %.*s", c->number,
                         (int)RH_MIN(len, 200), text);
    /* other notifies tell of things that are no fault: draining, presence */
}

static void on_data(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    if (ev->first && ev->last) {
        on_text(w, c, (const char *)ev->data, ev->len);
        return;
    }
    if (ev->first)
        c->whole.len = 0;
    if (!load_bytes_add(&c->whole, ev->data, ev->len)) {
        load_conn_fail(w, c, "no memory for a message in pieces");
        return;
    }
    if (ev->last)
        on_text(w, c, (const char *)c->whole.at, c->whole.len);
}

const struct load_mode load_mode_send = {
    .name = "send",
    .sends = true,
    .pairs = true,
    .users = true,
    .opcode = RH_WS_TEXT,
    .build = build,
    .on_data = on_data,
};
