/* tests/fuzz/fuzz_json.c - the scanner, the walk and the writer, with jansson as the judge.
 *
 * The input is (1) a text: accepted exactly when jansson does, and then its walk must show the
 * values that jansson found; (2) plain bytes: escaped into just enough room and unescaped they must
 * come back.
 *
 * jansson has no opinion on bytes that are not UTF-8, on \u0000 in a name, and on numbers that
 * overflow a double or 64 bits. Of members of one name it keeps the last. A zero byte, never valid
 * in JSON, it skips behind a number or a word; that is decided here.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/ringhub.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* The deepest nesting of a valid text. */
static unsigned depth_of(const char *text, size_t len)
{
    unsigned depth = 0;
    unsigned deepest = 0;
    bool quoted = false;

    for (size_t i = 0; i < len; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && (text[i] == '{' || text[i] == '['))
            depth++;
        else if (!quoted && (text[i] == '}' || text[i] == ']'))
            depth--;
        deepest = RH_MAX(deepest, depth);
    }
    return deepest;
}

static char *decode(struct rh_span raw, size_t *ret_len)
{
    size_t len = rh_json_str_len(raw);
    char *plain = malloc(len + 1);

    rh_assert(plain);
    rh_assert(rh_json_str_decode(plain, len, raw) == (int)len);
    rh_assert(len == 0 || rh_json_str_decode(plain, len - 1, raw) == -1);
    rh_assert(rh_json_str_eq(raw, plain, len));
    plain[len] = 'x';
    rh_assert(!rh_json_str_eq(raw, plain, len + 1));
    rh_assert(len == 0 || !rh_json_str_eq(raw, plain, len - 1));
    *ret_len = len;
    return plain;
}

static void compare(struct rh_json ours, const json_t *theirs);

/* True if a member of the same name comes later. */
static bool comes_again(struct rh_json_iter it, const char *name, size_t len)
{
    struct rh_span key;
    struct rh_json value;

    while (rh_json_next_member(&it, &key, &value)) {
        if (rh_json_str_eq(key, name, len))
            return true;
    }
    return false;
}

static void compare_object(struct rh_json ours, const json_t *theirs)
{
    struct rh_json_iter it;
    struct rh_span key;
    struct rh_json value;
    size_t names = 0;

    rh_json_members(&it, ours);
    while (rh_json_next_member(&it, &key, &value)) {
        size_t len;
        char *name = decode(key, &len);

        if (!comes_again(it, name, len)) {
            compare(value, json_object_getn(theirs, name, len));
            names++;
        }
        free(name);
    }
    rh_assert(names == json_object_size(theirs));
}

static void compare_array(struct rh_json ours, const json_t *theirs)
{
    struct rh_json_iter it;
    struct rh_json value;
    size_t i = 0;

    rh_json_elements(&it, ours);
    while (rh_json_next_element(&it, &value))
        compare(value, json_array_get(theirs, i++));
    rh_assert(i == json_array_size(theirs));
}

static void compare_number(struct rh_json ours, const json_t *theirs)
{
    bool digits = ours.raw.at[0] != '-' && json_is_integer(theirs);
    uint64_t n = 0;

    rh_assert(rh_json_u64(ours, 0, UINT64_MAX, &n) == digits);
    rh_assert(!digits || n == (uint64_t)json_integer_value(theirs));
}

static void compare(struct rh_json ours, const json_t *theirs)
{
    static const enum rh_json_kind kinds[] = {
        [JSON_OBJECT] = RH_JSON_OBJECT, [JSON_ARRAY] = RH_JSON_ARRAY,
        [JSON_STRING] = RH_JSON_STRING, [JSON_INTEGER] = RH_JSON_NUMBER,
        [JSON_REAL] = RH_JSON_NUMBER,   [JSON_TRUE] = RH_JSON_TRUE,
        [JSON_FALSE] = RH_JSON_FALSE,   [JSON_NULL] = RH_JSON_NULL,
    };
    size_t len;
    char *plain;

    rh_assert(theirs && ours.kind == kinds[json_typeof(theirs)]);
    switch (ours.kind) {
    case RH_JSON_OBJECT:
        compare_object(ours, theirs);
        break;
    case RH_JSON_ARRAY:
        compare_array(ours, theirs);
        break;
    case RH_JSON_NUMBER:
        compare_number(ours, theirs);
        break;
    case RH_JSON_STRING:
        plain = decode(ours.raw, &len);
        rh_assert(len == json_string_length(theirs));
        rh_assert(!memcmp(plain, json_string_value(theirs), len));
        free(plain);
        break;
    default:
        break;
    }
}

static void check_text(const char *text, size_t len)
{
    int rc = rh_json_check(text, len, RH_JSON_DEPTH);
    json_error_t error;

    if (len == 0 || memchr(text, '\0', len)) {
        rh_assert(rc == RH_EINVAL);
        return;
    }

    json_t *json = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!json) {
        enum json_error_code code = json_error_code(&error);

        rh_assert(rc == RH_EINVAL || code == json_error_invalid_utf8 ||
                  code == json_error_null_byte_in_key || code == json_error_numeric_overflow);
        return;
    }

    unsigned depth = depth_of(text, len);
    rh_assert(rc == (depth <= RH_JSON_DEPTH ? 0 : RH_EINVAL));
    if (rc == 0) {
        const char *end = text + len;
        struct rh_json value;

        rh_assert(rh_json_check(text, len, depth) == 0);
        rh_assert(depth == 0 || rh_json_check(text, len, depth - 1) == RH_EINVAL);
        const char *behind = rh_json_scan(rh_json_space(text, end), end, RH_JSON_DEPTH, &value);
        rh_assert(behind && rh_json_space(behind, end) == end);
        compare(value, json);
    }
    json_decref(json);
}

static void check_escape(const char *bytes, size_t len)
{
    struct rh_span plain = {bytes, (uint32_t)len};
    size_t most = RH_JSON_ESCAPED_MAX(len);
    char *raw = malloc(most);

    rh_assert(raw);
    int need = rh_json_escape(raw, most, plain);
    rh_assert(need >= 2 && rh_json_check(raw, (size_t)need, 0) == 0);
    free(raw);

    raw = malloc((size_t)need);
    rh_assert(raw && rh_json_escape(raw, (size_t)need - 1, plain) == -1);
    rh_assert(rh_json_escape(raw, (size_t)need, plain) == need);
    rh_assert(rh_json_str_eq((struct rh_span){raw, (uint32_t)need}, bytes, len));
    free(raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    check_text((const char *)bytes, len);
    check_escape((const char *)bytes, len);
    return 0;
}
