/* proto/query.c - walk a query, decode what a caller asks for.
 *
 * Why this way: a client may send any number of parameters, the server looks for a handful. So
 * nothing is collected or allocated: each question walks the query, and compares names while it
 * decodes them.
 *
 * Limits     a walk is linear in the query, which the head's bound limits.
 */
#include "proto/query.h"

#include <limits.h>
#include <string.h>

#include "proto/utf8.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The byte at the front of `in`, decoded, which it leaves behind; -1: a broken escape. */
static int next_byte(struct rh_span *in)
{
    unsigned used = 1;
    int byte = (unsigned char)*in->at;

    if (byte == '%') {
        int high = in->len >= 3 ? hex_digit(in->at[1]) : -1;
        int low = in->len >= 3 ? hex_digit(in->at[2]) : -1;

        if (high < 0 || low < 0)
            return -1;
        byte = high * 16 + low;
        used = 3;
    }
    in->at += used;
    in->len -= used;
    return byte;
}

static bool decodes_to(struct rh_span in, const char *name)
{
    while (in.len) {
        int byte = next_byte(&in);

        if (byte <= 0 || byte != (unsigned char)*name) /* a decoded zero isn't name's end */
            return false;
        name++;
    }
    return *name == 0;
}

bool rh_query_next(struct rh_span *rest, struct rh_span *ret_name, struct rh_span *ret_value)
{
    const char *at, *end, *stop, *equals;

    while (rest->len && *rest->at == '&') {
        rest->at++;
        rest->len--;
    }
    if (!rest->len)
        return false;
    at = rest->at;
    end = at + rest->len;
    stop = memchr(at, '&', (size_t)(end - at));
    stop = stop ? stop : end;
    equals = memchr(at, '=', (size_t)(stop - at));
    equals = equals ? equals : stop;
    *ret_name = (struct rh_span){at, (uint32_t)(equals - at)};
    at = equals < stop ? equals + 1 : stop;
    *ret_value = (struct rh_span){at, (uint32_t)(stop - at)};
    *rest = (struct rh_span){stop, (uint32_t)(end - stop)};
    return true;
}

bool rh_query_find(struct rh_span query, const char *name, struct rh_span *ret_value,
                   bool *ret_more)
{
    struct rh_span param, value;
    bool found = false;

    *ret_more = false;
    while (!*ret_more && rh_query_next(&query, &param, &value)) {
        if (!decodes_to(param, name))
            continue;
        if (found)
            *ret_more = true;
        else
            *ret_value = value;
        found = true;
    }
    return found;
}

int rh_percent_decode(char *dst, size_t room, struct rh_span in)
{
    size_t len = 0;

    while (in.len) {
        int byte = next_byte(&in);

        if (byte < 0 || len >= room || len == INT_MAX)
            return -1;
        dst[len++] = (char)byte;
    }
    return (int)len;
}

bool rh_name_ok(const char *at, size_t len)
{
    if (len < 1 || len > RH_NAME_MAX || !rh_utf8_valid(at, len))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)at[i];

        if (c < 0x20 || c == 0x7f)
            return false;
        /* In valid UTF-8 these two bytes are U+0080 to U+009F and nothing else. */
        if (c == 0xc2 && (unsigned char)at[i + 1] < 0xa0)
            return false;
    }
    return true;
}

/* ---- rooms=a,b@12@EPOCH ---- */

bool rh_epoch_ok(struct rh_span text)
{
    for (uint32_t i = 0; i < text.len; i++) {
        char c = text.at[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_'))
            return false;
    }
    return text.len >= 1 && text.len <= RH_EPOCH_MAX;
}

/* What stands before the next `stop`. *rest goes on behind it; without one its address is NULL. */
static struct rh_span cut_at(struct rh_span *rest, char stop)
{
    const char *end = rest->len ? memchr(rest->at, stop, rest->len) : NULL;
    struct rh_span part = *rest;

    if (!end) {
        *rest = (struct rh_span){0};
        return part;
    }
    part.len = (uint32_t)(end - rest->at);
    *rest = (struct rh_span){end + 1, rest->len - part.len - 1};
    return part;
}

/* A whole number in plain digits, such as 0 or 12. */
static bool read_seq(struct rh_span text, uint64_t *ret)
{
    *ret = 0;
    if (text.len == 0 || text.len > 16 || (text.len > 1 && text.at[0] == '0'))
        return false;
    for (uint32_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        *ret = *ret * 10 + (uint64_t)(text.at[i] - '0');
    }
    return *ret <= RH_ROOM_SEQ_MAX;
}

static bool read_wish(struct rh_span item, struct rh_wish *ret)
{
    struct rh_span name = cut_at(&item, '@');
    struct rh_span since = cut_at(&item, '@');
    int len = rh_percent_decode(ret->name, sizeof(ret->name), name);

    if (len < 0 || !rh_name_ok(ret->name, (size_t)len))
        return false;
    ret->len = (uint8_t)len;
    ret->has_since = since.len > 0;
    ret->has_epoch = item.at != NULL;
    ret->epoch = item;
    ret->since = 0;
    if (ret->has_since && !read_seq(since, &ret->since))
        return false;
    return !ret->has_epoch || rh_epoch_ok(item);
}

int rh_wish_next(struct rh_span *rest, struct rh_wish *ret)
{
    if (!rest->at)
        return 0;
    return read_wish(cut_at(rest, ','), ret) ? 1 : -1;
}
