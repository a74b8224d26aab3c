/* proto/json.h - JSON (RFC 8259): a validating scanner over text in place, and a bounded writer.
 *
 * Nothing is built: a value is a span of the text that was read, and stays valid as long as that
 * text. Reading happens in two steps. First one pass proves that the text is JSON: rh_json_check
 * for a whole text, rh_json_scan for one value at a time. After that everything may be walked
 * without errors. Writing is appending to memory that the caller provides.
 *
 * Strict     no byte order mark, no lone surrogate (\ud800) in an escape, no raw control character
 *            in a string, no comma or comment too many, no leading zero, "NaN" or "+1". \u0000 is
 *            allowed, DEL (0x7f) too. Members of one name may repeat (RFC 8259 section 4 leaves
 *            that open): who cares must look.
 * UTF-8      is not looked at. Text from a client was checked by the WebSocket layer; bytes that
 *            are not UTF-8 pass through unchanged inside strings and are an error elsewhere.
 * Bounds     a text has less than 2^31 bytes (longer: RH_EINVAL). Any bytes are safe to check and
 *            scan; the other functions want what these have accepted.
 * Threads    any; nothing here keeps state, allocates, recurses or reads past the text.
 */
#ifndef RH_JSON_H
#define RH_JSON_H

#include "core/base.h"

/* Objects and arrays inside each other, the outermost included; deeper is never accepted. */
#define RH_JSON_DEPTH 64

enum rh_json_kind {
    RH_JSON_NONE, /* not there */
    RH_JSON_OBJECT,
    RH_JSON_ARRAY,
    RH_JSON_STRING,
    RH_JSON_NUMBER,
    RH_JSON_TRUE,
    RH_JSON_FALSE,
    RH_JSON_NULL
};

/* A value as it stands in the text, without white space around it; strings with their quotes. */
struct rh_json {
    struct rh_span raw;
    enum rh_json_kind kind;
};

/* ---- step one: is it JSON? ----------------------------------------------------------------- */

/* Validates one whole text: a value of any kind with white space around it, in which at most
 * `depth_max` (up to RH_JSON_DEPTH) containers stand inside each other. 0 or RH_EINVAL. */
int rh_json_check(const char *at, size_t len, unsigned depth_max);

/* For parsers that validate and pick in one pass. Each starts at `at`, never reads `end` or beyond
 * (which may be 2^31 bytes away at most) and returns the first byte behind what it took.
 *   space   takes white space, perhaps none
 *   scan    takes one value that begins right at `at`; NULL: invalid or too deep
 *   key     takes a member's name, its colon and the white space around that; NULL: invalid */
const char *rh_json_space(const char *at, const char *end);
const char *rh_json_scan(const char *at, const char *end, unsigned depth_max,
                         struct rh_json *ret_value);
const char *rh_json_key(const char *at, const char *end, struct rh_span *ret_key);

/* ---- step two: walk over what is valid ----------------------------------------------------- */

struct rh_json_iter {
    const char *at;
    const char *end; /* the closing bracket */
};

/* Members of an object, in their order; names are raw, with quotes. `object` must be one. */
void rh_json_members(struct rh_json_iter *it, struct rh_json object);
bool rh_json_next_member(struct rh_json_iter *it, struct rh_span *ret_key,
                         struct rh_json *ret_value);

/* Elements of an array, in their order. `array` must be one. */
void rh_json_elements(struct rh_json_iter *it, struct rh_json array);
bool rh_json_next_element(struct rh_json_iter *it, struct rh_json *ret_value);

/* True if the raw string (with quotes), unescaped, equals the plain bytes. Quick without `\`. */
bool rh_json_str_eq(struct rh_span raw, const char *plain, size_t len);

/* Unescapes a raw string into dst, which is not terminated by a zero. Returns the length in bytes,
 * or -1 when that is more than `room`; dst then holds a part of it. */
int rh_json_str_decode(char *dst, size_t room, struct rh_span raw);

/* The unescaped length in bytes; never more than raw.len - 2. */
size_t rh_json_str_len(struct rh_span raw);

/* A whole number in plain digits within [min, max]; no sign (not even -0), fraction or exponent. */
bool rh_json_u64(struct rh_json v, uint64_t min, uint64_t max, uint64_t *ret);

/* ---- writing ------------------------------------------------------------------------------- */

/* What `len` plain bytes need at most as a JSON string: each as \u00xx, and the quotes. */
#define RH_JSON_ESCAPED_MAX(len) (6 * (len) + 2)

/* Writes plain bytes (valid UTF-8) as a JSON string with quotes. Escapes only what JSON demands:
 * quote, backslash and U+0000 to U+001F. Returns the bytes written, or -1 when `room` is too small;
 * dst then holds a part of it. */
int rh_json_escape(char *dst, size_t room, struct rh_span plain);

/* A bounded appender, the only way in which the hub builds JSON text. Each put goes in whole or not
 * at all; once one did not fit, `full` stays set and nothing more is written, so it is enough to
 * look at the end. The caller owns the memory and sees to commas and brackets. */
struct rh_writer {
    char *at; /* the next byte goes here */
    char *end;
    char *start;
    bool full;
};

void rh_writer_init(struct rh_writer *w, void *mem, size_t room);
void rh_put_str(struct rh_writer *w, struct rh_span plain); /* quoted and escaped */
void rh_put_u64(struct rh_writer *w, uint64_t v);
size_t rh_writer_len(const struct rh_writer *w);

/* Appends bytes as they are: JSON text. */
static inline void rh_put(struct rh_writer *w, const void *bytes, size_t len)
{
    if (w->full || len > (size_t)(w->end - w->at)) {
        w->full = true;
        return;
    }
    if (len) /* an empty span may have no address */
        __builtin_memcpy(w->at, bytes, len);
    w->at += len;
}

#define RH_PUT(w, literal) rh_put((w), "" literal, sizeof(literal) - 1)

#endif
