/* tools/load/envelope.c - reading envelopes, and the books about answers. */
#include "tools/load/envelope.h"

#include <string.h>

static bool key_is(struct rh_span key, const char *quoted, size_t len)
{
    return key.len == len && memcmp(key.at, quoted, len) == 0;
}

#define PICK(dst, member)                                                                          \
    if (key_is(key, "\"" #member "\"", sizeof(#member) + 1)) {                                     \
        (dst)->member = value;                                                                     \
        continue;                                                                                  \
    }

bool load_envelope_read(struct rh_span text, struct load_envelope *ret)
{
    struct rh_json_iter it;
    struct rh_json value;
    struct rh_span key;
    const char *end = text.at + text.len, *after;

    memset(ret, 0, sizeof(*ret));
    after = rh_json_scan(rh_json_space(text.at, end), end, RH_JSON_DEPTH, &value);
    if (!after || rh_json_space(after, end) != end || value.kind != RH_JSON_OBJECT)
        return false;
    rh_json_members(&it, value);
    while (rh_json_next_member(&it, &key, &value)) {
        PICK(ret, type)
        PICK(ret, event)
        PICK(ret, request_id)
        PICK(ret, code)
        PICK(ret, error)
        PICK(ret, data)
    }
    return true;
}

void load_body_read(struct rh_json data, struct load_body *ret)
{
    struct rh_json_iter it;
    struct rh_json value;
    struct rh_span key;

    memset(ret, 0, sizeof(*ret));
    if (data.kind != RH_JSON_OBJECT)
        return;
    rh_json_members(&it, data);
    while (rh_json_next_member(&it, &key, &value)) {
        PICK(ret, id)
        PICK(ret, from)
        PICK(ret, content)
        PICK(ret, ack)
        PICK(ret, attempt)
        PICK(ret, status)
        PICK(ret, room)
        PICK(ret, seq)
        PICK(ret, code)
        PICK(ret, session)
        PICK(ret, epoch)
        PICK(ret, missed)
        PICK(ret, from_seq)
        PICK(ret, to_seq)
        PICK(ret, count)
        PICK(ret, recipients)
        PICK(ret, acknowledged)
    }
}

bool load_json_is(struct rh_json value, const char *plain)
{
    return value.kind == RH_JSON_STRING && rh_json_str_eq(value.raw, plain, strlen(plain));
}

bool load_envelope_is(const struct load_envelope *e, const char *type, const char *event)
{
    return load_json_is(e->type, type) && load_json_is(e->event, event);
}

/* ---- answers ---- */

void load_unexpected(struct load_worker *w, const struct load_conn *c, const char *what,
                     struct rh_span text)
{
    load_count(&w->counts.unexpected);
    load_worker_note(w, "connection %u: %s: %.*s", c->number, what, (int)RH_MIN(text.len, 200u),
                     text.at);
}

bool load_digits_read(struct rh_json v, uint64_t *ret)
{
    struct rh_json digits;

    if (v.kind != RH_JSON_STRING || v.raw.len <= 2)
        return false;
    digits = (struct rh_json){{v.raw.at + 1, v.raw.len - 2}, RH_JSON_NUMBER};
    return rh_json_u64(digits, 0, UINT64_C(1) << 48, ret);
}

bool load_answer_book(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      bool good, struct rh_span text, uint64_t *ret_seq)
{
    uint64_t code, intended;

    if (!load_digits_read(e->request_id, ret_seq)) { /* it is its message's number */
        load_unexpected(w, c, "an answer without a request", text);
        return false;
    }
    if (!load_flow_answer(&c->flow, *ret_seq, &intended)) {
        load_unexpected(w, c, "a second answer, or one to no request", text);
        return false;
    }
    if (good && load_json_is(e->type, "response") && rh_json_u64(e->code, 200, 200, &code)) {
        load_count(&w->counts.answered);
        load_pace_latency(w, &w->answer, intended, w->now_ns);
        return false;
    }
    load_count(&w->counts.rejected);
    load_worker_note(w, "connection %u: request %llu was answered with %.*s", c->number,
                     (unsigned long long)*ret_seq, (int)RH_MIN(text.len, 200u), text.at);
    return load_json_is(e->type, "error");
}

void load_envelope_take(struct load_worker *w, struct load_conn *c, struct rh_span text)
{
    struct load_envelope e;

    if (load_envelope_read(text, &e))
        load_envelope_book(w, c, &e, text);
    else
        load_unexpected(w, c, "not a JSON object", text);
}

void load_envelope_book(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                        struct rh_span text)
{
    const struct load_mode *mode = w->run->opts->mode;

    if (load_json_is(e->type, "response") || load_json_is(e->type, "error")) {
        mode->on_answer(w, c, e, text);
    } else if (!load_json_is(e->type, "notify")) {
        load_unexpected(w, c, "neither notify nor response", text);
    } else {
        if (load_json_is(e->event, "messages.lost"))
            load_worker_note(w, "connection %u was told of a loss: %.*s", c->number,
                             (int)RH_MIN(text.len, 200u), text.at);
        mode->on_notify(w, c, e, text);
    }
}
