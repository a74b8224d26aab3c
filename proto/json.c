/* proto/json.c - the JSON scanner, the walk over scanned text, and the writer.
 *
 * Why this way: nearly all bytes of real messages stand inside strings, so one loop runs over a
 * string sixteen bytes at a time and stops only at a quote, a backslash or a control character;
 * the writer asks the same question of plain text. Everything else is a switch over the byte at
 * hand. The containers around the present position are one bit each in a word (object or array),
 * which is what limits the depth to 64: no recursion, no memory.
 *
 *                  { key            , key
 *             +----------+     +----------+
 *             v          |     |          v
 *    begin --> VALUE ----+     +--- AFTER-VALUE <--+
 *             ^  |    "..." 1 true      ^  |       | ] or }
 *             |  +----------------------+  +-------+--> end, when no container is open
 *             +--- [     empty: ] or } is left to AFTER-VALUE
 *
 * Invariants  (1) no byte at or behind `end` is read: every read is guarded by at < end, the wide
 *                 ones by end - at >= 16.
 *             (2) bits of `objects` above the present depth are never looked at.
 * Rejected    A structural index first (as simdjson does): faster on big texts, slower on messages
 *             of 200 bytes, and it wants padding behind them. bench/bench_envelope.c has the
 *             numbers.
 */
#include "proto/json.h"

#include <limits.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "core/ringhub.h"

static inline bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* What may not stand in a string as it is. */
static inline bool is_special(char c)
{
    return (unsigned char)c < 0x20 || c == '"' || c == '\\';
}

/* The first special byte from `at` on; `end` when there is none. */
static inline const char *find_special(const char *at, const char *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i slash = _mm_set1_epi8('\\');
    const __m128i control = _mm_set1_epi8(0x1f);

    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)at);
        __m128i hit = _mm_cmpeq_epi8(_mm_min_epu8(v, control), v);

        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, quote));
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, slash));
        unsigned mask = (unsigned)_mm_movemask_epi8(hit);
        if (mask)
            return at + __builtin_ctz(mask);
    }
#endif
    while (at < end && !is_special(*at))
        at++;
    return at;
}

/* ---- scanning ------------------------------------------------------------------------------ */

static inline const char *skip_space(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

const char *rh_json_space(const char *at, const char *end)
{
    return skip_space(at, end);
}

/* The value of four hexadecimal digits; -1 if they are not. */
static int hex4(const char *at, const char *end)
{
    int value = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        char low = (char)(c | 0x20);

        if (is_digit(c))
            value = value << 4 | (c - '0');
        else if (low >= 'a' && low <= 'f')
            value = value << 4 | (low - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* `at` is behind a backslash: takes the rest of the escape. Surrogates must come in pairs. */
static const char *scan_escape(const char *at, const char *end)
{
    if (at == end)
        return NULL;
    switch (*at) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return at + 1;
    case 'u':
        break;
    default:
        return NULL;
    }

    int unit = hex4(at + 1, end);
    if (unit < 0)
        return NULL;
    at += 5;
    if (unit < 0xd800 || unit > 0xdfff)
        return at;
    if (unit > 0xdbff || end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return NULL; /* low first, or high alone */
    unit = hex4(at + 2, end);
    return unit >= 0xdc00 && unit <= 0xdfff ? at + 6 : NULL;
}

/* `at` is behind the opening quote; returns the byte behind the closing one. */
static inline const char *scan_string(const char *at, const char *end)
{
    for (;;) {
        at = find_special(at, end);
        if (at == end)
            return NULL;
        if (rh_likely(*at == '"'))
            return at + 1;
        if (*at != '\\')
            return NULL; /* a raw control character */
        at = scan_escape(at + 1, end);
        if (!at)
            return NULL;
    }
}

/* At least one digit, then as many as there are. */
static const char *scan_digits(const char *at, const char *end)
{
    if (at == end || !is_digit(*at))
        return NULL;
    do
        at++;
    while (at < end && is_digit(*at));
    return at;
}

static const char *scan_number(const char *at, const char *end)
{
    if (at < end && *at == '-')
        at++;
    if (at < end && *at == '0')
        at++; /* and no digit may follow: then neither does a comma or a bracket */
    else
        at = scan_digits(at, end);
    if (at && at < end && *at == '.')
        at = scan_digits(at + 1, end);
    if (at && at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = scan_digits(at, end);
    }
    return at;
}

static const char *scan_word(const char *at, const char *end, const char *word, size_t len)
{
    return (size_t)(end - at) >= len && !memcmp(at, word, len) ? at + len : NULL;
}

/* A member's name with its quotes; then the colon with white space around it. */
static inline const char *scan_key(const char *at, const char *end, struct rh_span *ret_key)
{
    const char *key = at;

    if (at == end || *at != '"')
        return NULL;
    at = scan_string(at + 1, end);
    if (!at)
        return NULL;
    *ret_key = (struct rh_span){key, (uint32_t)(at - key)};

    at = skip_space(at, end);
    if (at == end || *at != ':')
        return NULL;
    return skip_space(at + 1, end);
}

const char *rh_json_key(const char *at, const char *end, struct rh_span *ret_key)
{
    return scan_key(at, end, ret_key);
}

/* The state machine above: a value of any kind that begins at `at`. */
static const char *scan_value(const char *at, const char *end, unsigned depth_max)
{
    uint64_t objects = 0; /* one bit per open container, the innermost lowest: 1 is an object */
    unsigned depth = 0;
    struct rh_span key;

    for (;;) {
        if (at == end)
            return NULL;
        switch (*at) {
        case '"':
            at = scan_string(at + 1, end);
            break;
        case '{':
        case '[':
            if (depth == depth_max)
                return NULL;
            depth++;
            objects = objects << 1 | (*at == '{');
            at = skip_space(at + 1, end);
            if (at < end && *at == (objects & 1 ? '}' : ']'))
                break; /* empty; closed below */
            if (objects & 1)
                at = scan_key(at, end, &key);
            if (!at)
                return NULL;
            continue;
        case 't':
            at = scan_word(at, end, "true", 4);
            break;
        case 'f':
            at = scan_word(at, end, "false", 5);
            break;
        case 'n':
            at = scan_word(at, end, "null", 4);
            break;
        default:
            at = scan_number(at, end);
            break;
        }
        if (!at)
            return NULL;

        for (; depth; depth--, objects >>= 1) { /* a value ended; so may the containers around it */
            at = skip_space(at, end);
            if (at == end)
                return NULL;
            if (*at == ',')
                break;
            if (*at != (objects & 1 ? '}' : ']'))
                return NULL;
            at++;
        }
        if (!depth)
            return at;
        at = skip_space(at + 1, end); /* the comma */
        if (objects & 1)
            at = scan_key(at, end, &key);
        if (!at)
            return NULL;
    }
}

/* The kind of a valid value, from its first byte. */
static inline enum rh_json_kind kind_of(char first)
{
    switch (first) {
    case '{':
        return RH_JSON_OBJECT;
    case '[':
        return RH_JSON_ARRAY;
    case '"':
        return RH_JSON_STRING;
    case 't':
        return RH_JSON_TRUE;
    case 'f':
        return RH_JSON_FALSE;
    case 'n':
        return RH_JSON_NULL;
    default:
        return RH_JSON_NUMBER;
    }
}

const char *rh_json_scan(const char *at, const char *end, unsigned depth_max,
                         struct rh_json *ret_value)
{
    rh_assert(depth_max <= RH_JSON_DEPTH);

    const char *behind = scan_value(at, end, depth_max);
    if (behind) {
        ret_value->raw = (struct rh_span){at, (uint32_t)(behind - at)};
        ret_value->kind = kind_of(*at);
    }
    return behind;
}

int rh_json_check(const char *at, size_t len, unsigned depth_max)
{
    rh_assert(depth_max <= RH_JSON_DEPTH);
    if (len == 0 || len > INT_MAX)
        return RH_EINVAL;

    const char *end = at + len;
    at = scan_value(skip_space(at, end), end, depth_max);
    return at && skip_space(at, end) == end ? 0 : RH_EINVAL;
}

/* ---- walking over what is valid ------------------------------------------------------------ */

void rh_json_members(struct rh_json_iter *it, struct rh_json object)
{
    rh_assert(object.kind == RH_JSON_OBJECT && object.raw.len >= 2);
    it->at = object.raw.at + 1;
    it->end = object.raw.at + object.raw.len - 1;
}

void rh_json_elements(struct rh_json_iter *it, struct rh_json array)
{
    rh_assert(array.kind == RH_JSON_ARRAY && array.raw.len >= 2);
    it->at = array.raw.at + 1;
    it->end = array.raw.at + array.raw.len - 1;
}

/* Goes to the next item; false at the closing bracket. */
static bool next_item(struct rh_json_iter *it)
{
    it->at = skip_space(it->at, it->end);
    if (it->at < it->end && *it->at == ',')
        it->at = skip_space(it->at + 1, it->end);
    return it->at < it->end;
}

bool rh_json_next_member(struct rh_json_iter *it, struct rh_span *ret_key,
                         struct rh_json *ret_value)
{
    if (!next_item(it))
        return false;
    it->at = scan_key(it->at, it->end, ret_key);
    rh_assert(it->at);
    it->at = rh_json_scan(it->at, it->end, RH_JSON_DEPTH, ret_value);
    rh_assert(it->at);
    return true;
}

bool rh_json_next_element(struct rh_json_iter *it, struct rh_json *ret_value)
{
    if (!next_item(it))
        return false;
    it->at = rh_json_scan(it->at, it->end, RH_JSON_DEPTH, ret_value);
    rh_assert(it->at);
    return true;
}

/* ---- strings ------------------------------------------------------------------------------- */

/* A raw string, taken apart into pieces: runs of plain text, and single escapes unescaped. */
struct pieces {
    const char *at;
    const char *end;
    char utf8[4];
};

static void pieces_init(struct pieces *p, struct rh_span raw)
{
    rh_assert(raw.len >= 2);
    p->at = raw.at + 1;
    p->end = raw.at + raw.len - 1;
}

static uint32_t utf8_encode(char *dst, uint32_t code)
{
    if (code < 0x80) {
        dst[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        dst[0] = (char)(0xc0 | code >> 6);
        dst[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        dst[0] = (char)(0xe0 | code >> 12);
        dst[1] = (char)(0x80 | (code >> 6 & 0x3f));
        dst[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    dst[0] = (char)(0xf0 | code >> 18);
    dst[1] = (char)(0x80 | (code >> 12 & 0x3f));
    dst[2] = (char)(0x80 | (code >> 6 & 0x3f));
    dst[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* Unescapes the escape at p->at, which is valid, into p->utf8; returns its bytes. */
static uint32_t unescape(struct pieces *p)
{
    static const char names[] = "\"\\/bfnrt";
    static const char means[] = "\"\\/\b\f\n\r\t";
    const char *name = memchr(names, p->at[1], sizeof(names) - 1);

    if (name) {
        p->utf8[0] = means[name - names];
        p->at += 2;
        return 1;
    }

    uint32_t code = (uint32_t)hex4(p->at + 2, p->end);
    p->at += 6;
    if (code >= 0xd800 && code <= 0xdbff) { /* the low half follows */
        uint32_t low = (uint32_t)hex4(p->at + 2, p->end);

        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        p->at += 6;
    }
    return utf8_encode(p->utf8, code);
}

/* The next piece, never empty, valid until the call after it; false at the closing quote. */
static bool next_piece(struct pieces *p, struct rh_span *ret_piece)
{
    if (p->at == p->end)
        return false;
    if (*p->at == '\\') {
        *ret_piece = (struct rh_span){p->utf8, unescape(p)};
        return true;
    }

    const char *stop = memchr(p->at, '\\', (size_t)(p->end - p->at));
    if (!stop)
        stop = p->end;
    *ret_piece = (struct rh_span){p->at, (uint32_t)(stop - p->at)};
    p->at = stop;
    return true;
}

bool rh_json_str_eq(struct rh_span raw, const char *plain, size_t len)
{
    size_t body = raw.len - 2;
    struct pieces p;
    struct rh_span piece;

    if (body < len || !memchr(raw.at + 1, '\\', body)) /* escapes never make a string shorter */
        return body == len && (len == 0 || !memcmp(raw.at + 1, plain, len));

    pieces_init(&p, raw);
    while (next_piece(&p, &piece)) {
        if (piece.len > len || memcmp(piece.at, plain, piece.len))
            return false;
        plain += piece.len;
        len -= piece.len;
    }
    return len == 0;
}

int rh_json_str_decode(char *dst, size_t room, struct rh_span raw)
{
    size_t used = 0;
    struct pieces p;
    struct rh_span piece;

    pieces_init(&p, raw);
    while (next_piece(&p, &piece)) {
        if (piece.len > room - used)
            return -1;
        memcpy(dst + used, piece.at, piece.len);
        used += piece.len;
    }
    return (int)used;
}

size_t rh_json_str_len(struct rh_span raw)
{
    size_t len = 0;
    struct pieces p;
    struct rh_span piece;

    pieces_init(&p, raw);
    while (next_piece(&p, &piece))
        len += piece.len;
    return len;
}

bool rh_json_u64(struct rh_json v, uint64_t min, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;

    if (v.kind != RH_JSON_NUMBER)
        return false;
    for (uint32_t i = 0; i < v.raw.len; i++) {
        if (!is_digit(v.raw.at[i]))
            return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(v.raw.at[i] - '0'), &value))
            return false;
    }
    if (value < min || value > max)
        return false;
    *ret = value;
    return true;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Writes the escape of one special byte, at most six bytes; returns how many. */
static size_t escape_byte(char *dst, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char shorts[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    char name = c < 0x20 ? shorts[c] : (char)c; /* quote and backslash name themselves */

    dst[0] = '\\';
    if (name) {
        dst[1] = name;
        return 2;
    }
    memcpy(dst + 1, "u00", 3);
    dst[4] = hex[c >> 4];
    dst[5] = hex[c & 15];
    return 6;
}

/* Appends escaped text and says whether it all fitted. */
static bool put_escaped(struct rh_writer *w, struct rh_span plain)
{
    const char *at = plain.at;
    const char *end = plain.len ? at + plain.len : at; /* an empty span may have no address */
    char escape[6];

    RH_PUT(w, "\"");
    while (at < end) {
        const char *stop = find_special(at, end);

        rh_put(w, at, (size_t)(stop - at));
        if (stop < end)
            rh_put(w, escape, escape_byte(escape, (unsigned char)*stop++));
        at = stop;
    }
    RH_PUT(w, "\"");
    return !w->full;
}

int rh_json_escape(char *dst, size_t room, struct rh_span plain)
{
    struct rh_writer w;

    rh_writer_init(&w, dst, room);
    return put_escaped(&w, plain) ? (int)rh_writer_len(&w) : -1;
}

void rh_writer_init(struct rh_writer *w, void *mem, size_t room)
{
    w->start = w->at = mem;
    w->end = room ? w->start + room : w->start;
    w->full = false;
}

size_t rh_writer_len(const struct rh_writer *w)
{
    return (size_t)(w->at - w->start);
}

void rh_put_str(struct rh_writer *w, struct rh_span plain)
{
    char *before = w->at;

    if (!put_escaped(w, plain))
        w->at = before; /* whole or not at all */
}

void rh_put_u64(struct rh_writer *w, uint64_t v)
{
    char digits[20];
    char *at = digits + sizeof(digits);

    do {
        *--at = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    rh_put(w, at, (size_t)(digits + sizeof(digits) - at));
}
