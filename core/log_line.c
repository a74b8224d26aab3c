/* core/log_line.c - one log line: pairs to JSON or to words, in a bounded buffer.
 *
 * Why this way: a line is built on the stack of the thread that logs, so it must be bounded, and a
 * reader must be able to rely on its form, so a bound that is hit cuts a value and never the JSON
 * around it. Room for the end is kept free from the beginning.
 *
 * Threads     any; no state.
 * Invariants  (1) A line has one newline, at its end: control characters are always escaped.
 *             (2) It is valid UTF-8: what is not becomes \ufffd, byte by byte.
 * Limits      RH_LOG_LINE bytes.
 */
#include "core/log_int.h"

#include <stdio.h>
#include <string.h>

#include "core/date.h"

#define END_JSON  ",\"cut\":true}\n"
#define END_TEXT  " cut=true\n"
#define LINE_ROOM (RH_LOG_LINE - (sizeof(END_JSON) - 1)) /* JSON's end is the longer one */
#define ESCAPE    6                                      /* \u00ff, the longest of one character */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Appends all of it or nothing. */
static bool put(struct rh_log_line *line, const char *at, size_t len)
{
    if (line->len + len > LINE_ROOM)
        return false;
    memcpy(line->at + line->len, at, len);
    line->len += (uint32_t)len;
    return true;
}

/* ---- time ----------------------------------------------------------------------------------- */

/* "2026-11-21T12:00:00.123Z" */
static size_t print_time(uint64_t wall_us, char *out, size_t size)
{
    struct rh_date date = rh_date_of(wall_us / 1000000);

    return (size_t)snprintf(out, size, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", date.year, date.month,
                            date.day, date.hour, date.minute, date.second,
                            (unsigned)(wall_us / 1000 % 1000));
}

/* ---- strings -------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character that `at` begins with; 0 when it begins with none (RFC 3629: no
 * surrogates, no over-long forms, nothing above U+10FFFF). */
static size_t utf8_len(const uint8_t *at, size_t left)
{
    size_t len = at[0] < 0x80   ? 1
                 : at[0] < 0xc2 ? 0
                 : at[0] < 0xe0 ? 2
                 : at[0] < 0xf0 ? 3
                 : at[0] < 0xf5 ? 4
                                : 0;

    if (len < 2 || len > left)
        return len == 1 ? 1 : 0;
    for (size_t i = 1; i < len; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
        (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    return len;
}

/* Writes the character at `at` as it may stand between quotes. Returns its length there; *ret_len
 * is how many bytes it was. */
static size_t escape(const uint8_t *at, size_t left, char out[ESCAPE + 1], size_t *ret_len)
{
    size_t len = utf8_len(at, left);
    unsigned c1 = len == 2 && at[0] == 0xc2 && at[1] < 0xa0 ? at[1] : 0; /* U+0080 to U+009F */

    *ret_len = len ? len : 1;
    if (len == 0)
        return (size_t)snprintf(out, ESCAPE + 1, "\\ufffd");
    if (at[0] == '"' || at[0] == '\\')
        return (size_t)snprintf(out, ESCAPE + 1, "\\%c", at[0]);
    if (at[0] == '\n')
        return (size_t)snprintf(out, ESCAPE + 1, "\\n");
    if (at[0] < 0x20 || at[0] == 0x7f || c1) /* terminals obey some of these */
        return (size_t)snprintf(out, ESCAPE + 1, "\\u%04x", c1 ? c1 : at[0]);
    memcpy(out, at, len);
    return len;
}

/* Appends a quoted string, or as much of it as there is room for. */
static bool put_quoted(struct rh_log_line *line, struct rh_span text)
{
    char one[ESCAPE + 1];
    size_t used;

    if (line->len + 2 > LINE_ROOM)
        return false;
    put(line, "\"", 1);
    for (size_t i = 0; i < text.len; i += used) {
        size_t n = escape((const uint8_t *)text.at + i, text.len - i, one, &used);

        if (line->len + n + 1 > LINE_ROOM) {
            line->cut = true;
            break;
        }
        put(line, one, n);
    }
    return put(line, "\"", 1);
}

/* True when a word can stand without quotes in the text format. */
static bool is_plain(struct rh_span text)
{
    for (uint32_t i = 0; i < text.len; i++) {
        uint8_t c = (uint8_t)text.at[i];

        if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
            return false;
    }
    return text.len > 0;
}

/* ---- pairs ---------------------------------------------------------------------------------- */

static bool put_value(struct rh_log_line *line, enum rh_log_format format,
                      const struct rh_log_kv *kv)
{
    struct rh_span text = {"", 0};
    char number[24];

    switch (kv->kind) {
    case RH_LOG_KV_U64:
        return put(
            line, number,
            (size_t)snprintf(number, sizeof(number), "%llu", (unsigned long long)kv->as.u64));
    case RH_LOG_KV_I64:
        return put(line, number,
                   (size_t)snprintf(number, sizeof(number), "%lld", (long long)kv->as.i64));
    case RH_LOG_KV_STR:
        if (kv->as.str)
            text = (struct rh_span){kv->as.str, (uint32_t)strnlen(kv->as.str, 2 * RH_LOG_LINE)};
        break;
    case RH_LOG_KV_SPAN:
        text = kv->as.span;
    }
    if (format == RH_LOG_TEXT && is_plain(text) && put(line, text.at, text.len))
        return true;
    return put_quoted(line, text);
}

/* Appends one pair; what does not fit leaves nothing behind but the mark. */
static void put_pair(struct rh_log_line *line, enum rh_log_format format,
                     const struct rh_log_kv *kv)
{
    uint32_t mark = line->len;
    size_t len = strlen(kv->key);
    bool done = !line->cut;

    if (format == RH_LOG_JSON)
        done = done && put(line, ",\"", 2) && put(line, kv->key, len) && put(line, "\":", 2);
    else
        done = done && put(line, " ", 1) && put(line, kv->key, len) && put(line, "=", 1);
    if (done && put_value(line, format, kv))
        return;
    line->len = mark;
    line->cut = true;
}

void rh_log_format(struct rh_log_line *line, enum rh_log_format format, uint64_t wall_us,
                   enum rh_log_level level, uint64_t lost, uint64_t suppressed,
                   const struct rh_log_kv *kv, size_t n)
{
    char time[40];
    char begin[96];
    const char *end = format == RH_LOG_JSON ? END_JSON : END_TEXT;

    rh_assert(n > 0 && level < RH_COUNT(level_names));
    line->len = 0;
    line->cut = false;
    print_time(wall_us, time, sizeof(time));
    snprintf(begin, sizeof(begin),
             format == RH_LOG_JSON ? "{\"time\":\"%s\",\"level\":\"%s\"" : "%s %s ", time,
             level_names[level]);
    put(line, begin, strlen(begin));
    if (format == RH_LOG_JSON)
        put_pair(line, format, &kv[0]);
    else
        put_value(line, format, &kv[0]);
    if (lost)
        put_pair(line, format, &RH_KU("lost", lost));
    if (suppressed)
        put_pair(line, format, &RH_KU("suppressed", suppressed));
    for (size_t i = 1; i < n; i++)
        put_pair(line, format, &kv[i]);

    if (!line->cut)
        end = format == RH_LOG_JSON ? "}\n" : "\n";
    memcpy(line->at + line->len, end, strlen(end)); /* LINE_ROOM kept this free */
    line->len += (uint32_t)strlen(end);
}
