/* proto/envelope.c - a client's message: its fields, its rules, and the members of its data.
 *
 * Why this way: the outermost object is walked here while the scanner validates what stands inside,
 * so one pass both proves the message and finds its fields; the rules are applied to the fields
 * afterwards. So a broken rule never hides that the message was JSON, which is what makes its
 * request_id trustworthy for the answer.
 *
 * Names given twice in data are found without trusting the sender: known ones by their row,
 * up to 16 unknown ones by comparing each with each, and if there are more, all by sorting.
 *
 * Invariants  (1) a field's value is the first one of its name; `twice` says that more came.
 *             (2) while members are read, out[i] is NONE exactly as long as row i was not met.
 * Rejected    A hash set for the names of large data: twice as fast, but it needs a secret key, or
 *             the sender chooses colliding names. Sorting 170,000 of them (all that fit in 1 MiB)
 *             is milliseconds, once per message of that size.
 */
#include "proto/envelope.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/ringhub.h"

/* ---- the envelope -------------------------------------------------------------------------- */

/* The envelope's own keys, those that clients send first. */
enum { KEY_TYPE, KEY_EVENT, KEY_REQUEST_ID, KEY_DATA, KEYS_READ, KEYS = 9 };

static const struct rh_span own_keys[KEYS] = {
    {"type", 4},  {"event", 5},   {"request_id", 10}, {"data", 4},     {"code", 4},
    {"error", 5}, {"message", 7}, {"timestamp", 9},   {"trace_id", 8},
};

#define OWN_KEY_MAX 10 /* bytes of the longest */

struct fields {
    struct rh_json of[KEYS_READ]; /* kind NONE: absent */
    unsigned seen;                /* a bit for each own key */
    unsigned twice;
};

static int find_own_key(const char *at, size_t len)
{
    for (int i = 0; i < KEYS; i++) {
        if (own_keys[i].len == len && !memcmp(own_keys[i].at, at, len))
            return i;
    }
    return -1;
}

static void note_field(struct fields *f, struct rh_span key, struct rh_json value)
{
    int i = find_own_key(key.at + 1, key.len - 2);

    if (i < 0 && memchr(key.at, '\\', key.len)) { /* "\u0074ype" is "type" */
        char name[OWN_KEY_MAX];
        int len = rh_json_str_decode(name, sizeof(name), key);

        if (len >= 0)
            i = find_own_key(name, (size_t)len);
    }
    if (i < 0)
        return;

    unsigned bit = 1u << i;
    if (f->seen & bit)
        f->twice |= bit;
    else if (i < KEYS_READ)
        f->of[i] = value;
    f->seen |= bit;
}

/* Validates the whole message and notes the fields of the outermost object; false: not valid. */
static bool read_fields(const char *at, const char *end, struct fields *f)
{
    struct rh_span key;
    struct rh_json value;

    at = rh_json_space(at, end);
    if (at == end || *at != '{')
        return false;
    at = rh_json_space(at + 1, end);
    if (at < end && *at == '}')
        return rh_json_space(at + 1, end) == end;
    for (;;) {
        at = rh_json_key(at, end, &key);
        if (at)
            at = rh_json_scan(at, end, RH_JSON_DEPTH - 1, &value);
        if (!at)
            return false;
        note_field(f, key, value);

        at = rh_json_space(at, end);
        if (at < end && *at == '}')
            return rh_json_space(at + 1, end) == end;
        if (at == end || *at != ',')
            return false;
        at = rh_json_space(at + 1, end);
    }
}

/* A string whose unescaped length is 1 to `max` bytes. Quick unless the raw one is longer. */
static bool is_short_string(struct rh_json v, size_t max)
{
    if (v.kind != RH_JSON_STRING || v.raw.len == 2)
        return false;
    if (v.raw.len - 2 <= max)
        return true;
    return v.raw.len <= RH_JSON_ESCAPED_MAX(max) && rh_json_str_len(v.raw) <= max;
}

/* The event of a request, unescaped; false: none or too long. */
static bool take_event(struct rh_envelope *env, struct rh_json event)
{
    if (!is_short_string(event, RH_EVENT_MAX))
        return false;
    if (!memchr(event.raw.at, '\\', event.raw.len)) {
        env->event = (struct rh_span){event.raw.at + 1, event.raw.len - 2};
        return true;
    }

    int len = rh_json_str_decode(env->event_text, sizeof(env->event_text), event.raw);
    rh_assert(len > 0);
    env->event = (struct rh_span){env->event_text, (uint32_t)len};
    return true;
}

/* Applies the rules of PROTOCOL.md section 3; returns the broken one, or NULL. */
static const char *take_fields(struct rh_envelope *env, const struct fields *f)
{
    struct rh_json id = f->of[KEY_REQUEST_ID];
    struct rh_json type = f->of[KEY_TYPE];
    bool id_good = is_short_string(id, RH_REQUEST_ID_MAX) && !(f->twice & 1u << KEY_REQUEST_ID);

    if (id_good)
        env->request_id = id.raw;
    if (f->twice)
        return "a field of the envelope is given twice";
    if (id.kind != RH_JSON_NONE && !id_good)
        return "request_id must be a string of 1 to 64 bytes";

    env->data = f->of[KEY_DATA];
    if (type.kind == RH_JSON_STRING && rh_json_str_eq(type.raw, "request", 7)) {
        env->type = RH_ENV_REQUEST;
        return take_event(env, f->of[KEY_EVENT]) ? NULL : "event must be a string of 1 to 64 bytes";
    }
    if (type.kind == RH_JSON_STRING && rh_json_str_eq(type.raw, "ack", 3)) {
        env->type = RH_ENV_ACK;
        return NULL;
    }
    return "type must be \"request\" or \"ack\"";
}

int rh_envelope_parse(const char *at, size_t len, struct rh_envelope *ret_env, const char **ret_why)
{
    struct fields f = {0};
    const char *why = "the message must be one valid JSON object, at most 64 levels deep";

    ret_env->event = ret_env->request_id = (struct rh_span){"", 0};
    if (len > 0 && len <= INT_MAX && read_fields(at, at + len, &f))
        why = take_fields(ret_env, &f);
    if (!why)
        return 0;
    *ret_why = why;
    return RH_EINVAL;
}

/* ---- the members of data ------------------------------------------------------------------- */

static const char *const kind_names[] = {
    [RH_PARAM_STRING] = "a string", [RH_PARAM_BOOL] = "true or false",
    [RH_PARAM_NUMBER] = "a number", [RH_PARAM_OBJECT] = "an object",
    [RH_PARAM_ARRAY] = "an array",  [RH_PARAM_ANY] = "a value",
};

static bool is_kind(enum rh_json_kind kind, enum rh_param_kind wanted)
{
    switch (wanted) {
    case RH_PARAM_STRING:
        return kind == RH_JSON_STRING;
    case RH_PARAM_BOOL:
        return kind == RH_JSON_TRUE || kind == RH_JSON_FALSE;
    case RH_PARAM_NUMBER:
        return kind == RH_JSON_NUMBER;
    case RH_PARAM_OBJECT:
        return kind == RH_JSON_OBJECT;
    case RH_PARAM_ARRAY:
        return kind == RH_JSON_ARRAY;
    case RH_PARAM_ANY:
        return kind != RH_JSON_NONE;
    }
    return false;
}

/* The row of a member's name; -1: none. */
static int find_row(const struct rh_param *rows, unsigned count, struct rh_span key)
{
    for (unsigned i = 0; i < count; i++) {
        if (rows[i].len == key.len - 2 && !memcmp(rows[i].name, key.at + 1, rows[i].len))
            return (int)i;
    }
    if (!memchr(key.at, '\\', key.len))
        return -1;
    for (unsigned i = 0; i < count; i++) {
        if (rh_json_str_eq(key, rows[i].name, rows[i].len))
            return (int)i;
    }
    return -1;
}

/* A member's name, unescaped, as it is sorted: by its first bytes, which nearly always decide. */
struct name {
    uint64_t head; /* the first eight bytes, big endian, filled up with zeros */
    const char *at;
    size_t len;
};

static int compare_names(const struct name *a, const struct name *b)
{
    if (a->head != b->head)
        return a->head < b->head ? -1 : 1;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    return a->len <= 8 ? 0 : memcmp(a->at + 8, b->at + 8, a->len - 8);
}

static struct name make_name(const char *at, size_t len)
{
    struct name name = {0, at, len};

    for (size_t i = 0; i < 8; i++)
        name.head = name.head << 8 | (i < len ? (unsigned char)at[i] : 0);
    return name;
}

/* Merges two sorted neighbours, [0, mid) and [mid, count), into `to`. */
static void merge_names(struct name *to, const struct name *from, size_t mid, size_t count)
{
    size_t i = 0;
    size_t k = mid;

    while (i < mid || k < count) {
        if (k == count || (i < mid && compare_names(&from[i], &from[k]) <= 0))
            *to++ = from[i++];
        else
            *to++ = from[k++];
    }
}

/* Sorts names[0, count), with as much room behind them; returns where the result stands. A merge
 * sort, since its worst case is its only one. */
static struct name *sort_names(struct name *names, size_t count)
{
    struct name *from = names;
    struct name *to = names + count;

    for (size_t run = 1; run < count; run *= 2) {
        for (size_t at = 0; at < count; at += 2 * run) {
            size_t both = RH_MIN(2 * run, count - at);

            merge_names(to + at, from + at, RH_MIN(run, both), both);
        }
        struct name *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

/* Looks for two members of one name among many. 0, RH_EINVAL (there are) or RH_ENOMEM. */
static int check_names(struct rh_json object)
{
    struct rh_json_iter it;
    struct rh_span key;
    struct rh_json value;
    size_t count = 0;
    size_t escaped_bytes = 0;

    rh_json_members(&it, object);
    while (rh_json_next_member(&it, &key, &value)) {
        count++;
        if (memchr(key.at, '\\', key.len))
            escaped_bytes += key.len;
    }

    struct name *names = rh_mem_alloc(2 * count * sizeof(*names) + escaped_bytes);
    if (!names)
        return RH_ENOMEM;

    char *text = (char *)(names + 2 * count);
    rh_json_members(&it, object);
    for (size_t i = 0; rh_json_next_member(&it, &key, &value); i++) {
        if (memchr(key.at, '\\', key.len)) {
            int len = rh_json_str_decode(text, key.len, key);

            names[i] = make_name(text, (size_t)len);
            text += len;
        } else {
            names[i] = make_name(key.at + 1, key.len - 2);
        }
    }

    int rc = 0;
    const struct name *sorted = sort_names(names, count);
    for (size_t i = 1; i < count && rc == 0; i++) {
        if (compare_names(&sorted[i - 1], &sorted[i]) == 0)
            rc = RH_EINVAL;
    }
    rh_mem_free(names);
    return rc;
}

#define UNKNOWN_FEW 16 /* unknown names that are compared each with each */

/* The unknown names so far; `many`: they don't fit, or have escapes, and check_names must look. */
struct unknown {
    struct rh_span names[UNKNOWN_FEW];
    unsigned count;
    bool many;
};

/* Notes an unknown name; false when it is there already. */
static bool note_unknown(struct unknown *u, struct rh_span key)
{
    if (u->many)
        return true;
    for (unsigned i = 0; i < u->count; i++) {
        if (rh_span_eq(u->names[i], key))
            return false;
    }
    u->many = u->count == UNKNOWN_FEW || memchr(key.at, '\\', key.len);
    if (!u->many)
        u->names[u->count++] = key;
    return true;
}

static int refuse(char *why, size_t room, const char *name, size_t len, const char *rule)
{
    snprintf(why, room, "%.*s: %s", (int)len, name, rule);
    return RH_EINVAL;
}

/* Sorts the members into out[]; nothing may be there twice. */
static int read_members(struct rh_json data, const struct rh_param *rows, unsigned count,
                        struct rh_json *out, char *why, size_t why_room)
{
    struct unknown unknown;
    struct rh_json_iter it;
    struct rh_span key;
    struct rh_json value;
    int rc = 0;

    unknown.count = 0;
    unknown.many = false;
    rh_json_members(&it, data);
    while (rh_json_next_member(&it, &key, &value)) {
        int row = find_row(rows, count, key);

        if (row < 0) {
            if (!note_unknown(&unknown, key))
                return refuse(why, why_room, "data", 4, "a member is given twice");
            continue;
        }
        if (out[row].kind != RH_JSON_NONE)
            return refuse(why, why_room, rows[row].name, rows[row].len, "given twice");
        out[row] = value;
    }

    if (unknown.many)
        rc = check_names(data);
    if (rc == RH_EINVAL)
        refuse(why, why_room, "data", 4, "a member is given twice");
    return rc;
}

int rh_params_read(struct rh_json data, const struct rh_param *rows, unsigned count,
                   struct rh_json *out, char *why, size_t why_room)
{
    static const struct rh_json none = {{"", 0}, RH_JSON_NONE};
    char rule[32];

    rh_assert(why_room > 0);
    why[0] = '\0';
    for (unsigned i = 0; i < count; i++)
        out[i] = none;
    if (data.kind == RH_JSON_OBJECT) {
        int rc = read_members(data, rows, count, out, why, why_room);

        if (rc < 0)
            return rc;
    } else if (data.kind != RH_JSON_NONE) {
        return refuse(why, why_room, "data", 4, "must be an object");
    }

    for (unsigned i = 0; i < count; i++) {
        if (out[i].kind == RH_JSON_NULL && !rows[i].required)
            out[i] = none;
        if (out[i].kind == RH_JSON_NONE && rows[i].required)
            return refuse(why, why_room, rows[i].name, rows[i].len, "missing");
        if (out[i].kind != RH_JSON_NONE && !is_kind(out[i].kind, rows[i].kind)) {
            snprintf(rule, sizeof(rule), "must be %s", kind_names[rows[i].kind]);
            return refuse(why, why_room, rows[i].name, rows[i].len, rule);
        }
    }
    return 0;
}
