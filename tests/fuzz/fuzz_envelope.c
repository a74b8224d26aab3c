/* tests/fuzz/fuzz_envelope.c - envelopes and parameters against a slow reading of the same rules.
 *
 * The input is (1) a client's message for rh_envelope_parse; (2) if it is valid, its data for
 * rh_params_read; (3) if it is an object at all, the data itself. The slow way lets jansson say
 * whether the text is JSON, cuts its outermost object into members by counting brackets, lets
 * jansson unescape every name and string, and applies PROTOCOL.md section 3 to the list.
 *
 * jansson has no opinion on bytes that are not UTF-8, on \u0000 in a name, and on numbers that
 * overflow; such texts are only parsed. A zero byte it would skip behind a number or a word.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ringhub.h"
#include "proto/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* ---- the slow way to read JSON ---- */

enum verdict { JSON_GOOD, JSON_BAD, JSON_UNKNOWN };

static json_t *load(struct rh_span text)
{
    return json_loadb(text.at, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

static enum verdict judge(struct rh_span text)
{
    json_error_t error;

    if (text.len == 0 || memchr(text.at, '\0', text.len))
        return JSON_BAD;

    json_t *json = json_loadb(text.at, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    json_decref(json);
    if (json)
        return JSON_GOOD;
    switch (json_error_code(&error)) {
    case json_error_invalid_utf8:
    case json_error_null_byte_in_key:
    case json_error_numeric_overflow:
        return JSON_UNKNOWN;
    default:
        return JSON_BAD;
    }
}

static struct rh_span trim(struct rh_span s)
{
    while (s.len && strchr(" \t\r\n", s.at[0])) {
        s.at++;
        s.len--;
    }
    while (s.len && strchr(" \t\r\n", s.at[s.len - 1]))
        s.len--;
    return s;
}

struct member {
    json_t *name; /* a string */
    struct rh_span value;
};

struct object {
    struct member *members;
    size_t count;
    unsigned depth; /* 1 with nothing inside */
};

static void add_member(struct object *o, struct rh_span key, struct rh_span value)
{
    o->members = realloc(o->members, (o->count + 1) * sizeof(*o->members));
    rh_assert(o->members);
    o->members[o->count] = (struct member){load(trim(key)), trim(value)};
    rh_assert(json_is_string(o->members[o->count].name));
    o->count++;
}

/* Cuts a valid object at the colons and commas of its first level. */
static struct object cut(struct rh_span text)
{
    struct object o = {0};
    struct rh_span key = {0};
    const char *from = text.at + 1;
    unsigned depth = 0;
    bool quoted = false;

    for (const char *at = text.at; at < text.at + text.len; at++) {
        struct rh_span piece = {from, at >= from ? (uint32_t)(at - from) : 0};

        if (quoted && *at == '\\') {
            at++;
        } else if (*at == '"') {
            quoted = !quoted;
        } else if (quoted) {
            continue;
        } else if (*at == '{' || *at == '[') {
            depth++;
            o.depth = RH_MAX(o.depth, depth);
        } else if (depth == 1 && *at == ':') {
            key = piece;
            from = at + 1;
        } else if (depth == 1 && (*at == ',' || *at == '}')) {
            if (key.at)
                add_member(&o, key, piece);
            key.at = NULL;
            from = at + 1;
            depth -= *at == '}';
        } else if (*at == '}' || *at == ']') {
            depth--;
        }
    }
    return o;
}

static void release(struct object *o)
{
    for (size_t i = 0; i < o->count; i++)
        json_decref(o->members[i].name);
    free(o->members);
}

/* The first member of that name; *ret_times says how many there are. */
static struct rh_span get(const struct object *o, const char *name, unsigned *ret_times)
{
    struct rh_span value = {0};

    *ret_times = 0;
    for (size_t i = 0; i < o->count; i++) {
        if (!strcmp(json_string_value(o->members[i].name), name) && ++*ret_times == 1)
            value = o->members[i].value;
    }
    return value;
}

/* ---- the slow envelope ---- */

struct slow {
    bool valid;
    bool is_ack;
    json_t *event;
    struct rh_span request_id;
    struct rh_span data;
};

static bool is_string_of(struct rh_span value, size_t max)
{
    json_t *s = load(value);
    bool good = json_is_string(s) && json_string_length(s) >= 1 && json_string_length(s) <= max;

    json_decref(s);
    return good;
}

static void apply_rules(struct slow *s, const struct object *o)
{
    static const char *const own[] = {"type",    "event", "request_id", "data",    "code",
                                      "message", "error", "timestamp",  "trace_id"};
    bool repeated = false;
    unsigned times;

    for (size_t i = 0; i < RH_COUNT(own); i++) {
        get(o, own[i], &times);
        repeated |= times > 1;
    }
    struct rh_span id = get(o, "request_id", &times);
    bool id_good = times == 1 && is_string_of(id, 64);
    if (id_good)
        s->request_id = id;
    bool id_bad = times >= 1 && !id_good;

    s->data = get(o, "data", &times);
    struct rh_span event = get(o, "event", &times);
    bool event_good = times == 1 && is_string_of(event, 64);

    struct rh_span raw_type = get(o, "type", &times);
    json_t *type = times ? load(raw_type) : NULL;
    const char *name = json_is_string(type) ? json_string_value(type) : "";
    bool whole = strlen(name) == json_string_length(type); /* no zero byte inside */
    s->is_ack = whole && !strcmp(name, "ack");
    bool is_request = whole && !strcmp(name, "request");
    json_decref(type);

    s->valid = !repeated && !id_bad && (s->is_ack || (is_request && event_good));
    if (s->valid && is_request)
        s->event = load(event);
}

static bool same_span(struct rh_span ours, struct rh_span slow)
{
    return ours.len == slow.len && (slow.len == 0 || ours.at == slow.at);
}

static void check_envelope(struct rh_span text, enum verdict verdict)
{
    struct rh_envelope env;
    struct slow slow = {0};
    const char *why = NULL;
    struct rh_span body = trim(text);
    int rc = rh_envelope_parse(text.at, text.len, &env, &why);

    rh_assert(rc == 0 || (rc == RH_EINVAL && why));
    if (verdict == JSON_UNKNOWN)
        return;
    if (verdict == JSON_GOOD && body.at[0] == '{') {
        struct object o = cut(body);

        if (o.depth <= 64)
            apply_rules(&slow, &o);
        release(&o);
    }

    rh_assert((rc == 0) == slow.valid);
    rh_assert(same_span(env.request_id, slow.request_id));
    if (rc == 0) {
        rh_assert((env.type == RH_ENV_ACK) == slow.is_ack);
        rh_assert(env.event.len == json_string_length(slow.event));
        rh_assert(!slow.event ||
                  !memcmp(env.event.at, json_string_value(slow.event), env.event.len));
        rh_assert(same_span(env.data.raw, slow.data));
        rh_assert((env.data.kind == RH_JSON_NONE) == (slow.data.len == 0));
    }
    json_decref(slow.event);
}

/* ---- the slow parameters ---- */

static const struct rh_param rows[] = {
    RH_PARAM_ROW("to", STRING, true),      RH_PARAM_ROW("content", ANY, true),
    RH_PARAM_ROW("ack", BOOL, false),      RH_PARAM_ROW("ttl_ms", NUMBER, false),
    RH_PARAM_ROW("fields", OBJECT, false), RH_PARAM_ROW("tags", ARRAY, false),
    RH_PARAM_ROW("id", ANY, false),
};

static bool fits(const json_t *v, const struct rh_param *row)
{
    switch (row->kind) {
    case RH_PARAM_STRING:
        return json_is_string(v);
    case RH_PARAM_BOOL:
        return json_is_boolean(v);
    case RH_PARAM_NUMBER:
        return json_is_number(v);
    case RH_PARAM_OBJECT:
        return json_is_object(v);
    case RH_PARAM_ARRAY:
        return json_is_array(v);
    default:
        return v != NULL;
    }
}

static bool repeats(const struct object *o)
{
    for (size_t i = 0; i < o->count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (json_equal(o->members[i].name, o->members[k].name))
                return true;
        }
    }
    return false;
}

/* The slow result; ret[] has empty spans for what is absent. */
static bool slow_params(struct rh_span data, struct rh_span *ret)
{
    struct object o = cut(data);
    bool good = !repeats(&o);
    unsigned times;

    for (size_t i = 0; i < RH_COUNT(rows); i++) {
        ret[i] = get(&o, rows[i].name, &times);
        json_t *v = times ? load(ret[i]) : NULL;

        if (json_is_null(v) && !rows[i].required) {
            ret[i].len = 0;
            json_decref(v);
            v = NULL;
        }
        good = good && (v ? fits(v, &rows[i]) : !rows[i].required);
        json_decref(v);
    }
    release(&o);
    return good;
}

static void check_params(struct rh_json data)
{
    struct rh_json out[RH_COUNT(rows)];
    struct rh_span slow[RH_COUNT(rows)];
    char why[64];
    int rc = rh_params_read(data, rows, RH_COUNT(rows), out, why, sizeof(why));

    rh_assert(rc == 0 || rc == RH_EINVAL);
    rh_assert((rc == 0) == (why[0] == '\0') && memchr(why, '\0', sizeof(why)));
    if (data.kind != RH_JSON_OBJECT) {
        rh_assert(rc == RH_EINVAL);
        return;
    }
    if (judge(data.raw) != JSON_GOOD)
        return;
    rh_assert((rc == 0) == slow_params(data.raw, slow));
    for (size_t i = 0; rc == 0 && i < RH_COUNT(rows); i++) {
        rh_assert(same_span(out[i].raw, slow[i]));
        rh_assert((out[i].kind == RH_JSON_NONE) == (slow[i].len == 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct rh_span text = {(const char *)bytes, (uint32_t)len};
    struct rh_envelope env;
    struct rh_json data;
    const char *why;
    const char *end = text.at + len;

    check_envelope(text, judge(text));
    if (rh_envelope_parse(text.at, len, &env, &why) == 0)
        check_params(env.data);
    if (len && rh_json_scan(text.at, end, RH_JSON_DEPTH, &data) == end)
        check_params(data);
    return 0;
}
