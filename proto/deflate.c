/* proto/deflate.c - the one home of zlib.
 *
 * Why this way: a message is compressed and inflated as a whole, since what is compressed once for
 * many receivers exists as a whole anyway, and what comes in must be bounded as a whole. The result
 * goes to a buffer that all objects of a thread share, so an object is zlib's state and nothing else:
 * where contexts are kept, there are two of them per connection.
 *
 * RFC 7692 cuts the last four bytes off what zlib writes at Z_SYNC_FLUSH, an empty stored block
 * 00 00 ff ff, and puts them back before it inflates. So each message begins at a byte's edge, and
 * one that is sound ends there, between two blocks or behind one with BFINAL: checked after each.
 * One whose end is missing never does, but for two cases: its data are cut behind the first byte of
 * a stored block, which is how a message ends; or within the last four bytes of one, which take the
 * tail for data, so the tail must give none.
 *
 * Invariants  (1) without `keeps`, zlib's state is fresh between two calls.
 *             (2) after an error it is fresh, too.
 * Limits     inflating stops when max + 1 bytes are there; the buffer has no room for more.
 * Rejected   An output buffer in each object: simpler to call, and 16 KiB more per connection.
 *            Giving up an output that gets as long as its input: the input is read by then.
 */
#include "proto/deflate.h"

#include <stdio.h>
#include <string.h>
#define ZLIB_CONST
#include <zlib.h>

#include "core/mem.h"
#include "core/ringhub.h"
#include "proto/http1.h"

static const uint8_t tail[] = {0x00, 0x00, 0xff, 0xff};

enum {
    FLUSH_MAX = 16, /* Z_SYNC_FLUSH writes up to 6 bytes that deflateBound does not count */
    OUT_MIN = 1024
};

/* ---- negotiation --------------------------------------------------------------------------------- */

enum { SERVER_FORGETS, CLIENT_FORGETS, SERVER_BITS, CLIENT_BITS, PARAMS };

/* Which parameter has that name; PARAMS: none. */
static unsigned find_param(struct rh_span name)
{
    const struct rh_span names[PARAMS] = {
        [SERVER_FORGETS] = RH_SPAN("server_no_context_takeover"),
        [CLIENT_FORGETS] = RH_SPAN("client_no_context_takeover"),
        [SERVER_BITS] = RH_SPAN("server_max_window_bits"),
        [CLIENT_BITS] = RH_SPAN("client_max_window_bits"),
    };
    unsigned which = 0;

    while (which < PARAMS && !rh_span_eq(name, names[which]))
        which++;
    return which;
}

/* 8 to 15 without leading zeros, plain or as a quoted string; 0: anything else. */
static uint8_t read_bits(struct rh_span value)
{
    const uint32_t quote = value.len > 2 && *value.at == '"';
    unsigned bits = 0;

    for (uint32_t i = quote; i < value.len - quote; i++) {
        if (quote && value.at[i] == '\\')
            i++; /* the closing quote at most */
        if (value.at[i] < (bits ? '0' : '1') || value.at[i] > '9')
            return 0;
        bits = bits * 10 + (unsigned)(value.at[i] - '0');
        if (bits > RH_DEFLATE_BITS_MAX)
            return 0;
    }
    return bits >= 8 ? (uint8_t)bits : 0;
}

/* Reads one parameter; `seen` has a bit for each that was there before. */
static bool read_param(struct rh_span param, unsigned *seen, struct rh_deflate_ask *ask)
{
    const unsigned which = find_param(rh_http_cut(&param, '='));
    const bool has_value = param.at;
    uint8_t bits = RH_DEFLATE_ANY;

    if (which == PARAMS || *seen & 1u << which)
        return false;
    *seen |= 1u << which;
    if (has_value)
        bits = read_bits(rh_http_trim(param));
    if (!bits || (which < SERVER_BITS && has_value) || (which == SERVER_BITS && !has_value))
        return false;
    ask->server_forgets |= which == SERVER_FORGETS;
    ask->client_forgets |= which == CLIENT_FORGETS;
    if (which == SERVER_BITS)
        ask->server_bits = bits;
    if (which == CLIENT_BITS)
        ask->client_bits = bits;
    return true;
}

/* Reads an element as an offer, which may say all that an answer may. */
static bool read_element(struct rh_span rest, struct rh_deflate_ask *ret_ask)
{
    struct rh_deflate_ask ask = {0};
    unsigned seen = 0;

    if (!rh_span_eq(rh_http_cut(&rest, ';'), RH_SPAN("permessage-deflate")))
        return false;
    while (rest.at) {
        if (!read_param(rh_http_cut(&rest, ';'), &seen, &ask))
            return false;
    }
    *ret_ask = ask;
    return true;
}

bool rh_deflate_offer(struct rh_span offer, const struct rh_deflate_wish *wish,
                      struct rh_deflate_terms *ret_terms)
{
    struct rh_deflate_ask ask;
    struct rh_deflate_terms terms = {.client_bits = RH_DEFLATE_BITS_MAX};

    rh_assert(wish->bits >= RH_DEFLATE_BITS_MIN && wish->bits <= RH_DEFLATE_BITS_MAX);
    if (!read_element(offer, &ask))
        return false;
    terms.server_bits = ask.server_bits ? RH_MIN(ask.server_bits, wish->bits) : wish->bits;
    terms.says_server_bits = ask.server_bits || terms.server_bits < RH_DEFLATE_BITS_MAX;
    if (ask.client_bits) {
        terms.client_bits =
            ask.client_bits == RH_DEFLATE_ANY ? wish->bits : RH_MIN(ask.client_bits, wish->bits);
        terms.says_client_bits = true;
    }
    terms.server_keeps = wish->takeover && !ask.server_forgets;
    terms.client_keeps = wish->takeover && !ask.client_forgets;
    *ret_terms = terms;
    return true;
}

size_t rh_deflate_ask(char dst[RH_DEFLATE_TEXT], const struct rh_deflate_ask *ask)
{
    char server[40] = "", client[40] = "";
    int len;

    if (ask->server_bits)
        snprintf(server, sizeof(server), "; server_max_window_bits=%u", ask->server_bits);
    if (ask->client_bits == RH_DEFLATE_ANY)
        snprintf(client, sizeof(client), "; client_max_window_bits");
    else if (ask->client_bits)
        snprintf(client, sizeof(client), "; client_max_window_bits=%u", ask->client_bits);
    len = snprintf(dst, RH_DEFLATE_TEXT, "permessage-deflate%s%s%s%s",
                   ask->server_forgets ? "; server_no_context_takeover" : "",
                   ask->client_forgets ? "; client_no_context_takeover" : "", server, client);
    rh_assert(len > 0 && len < RH_DEFLATE_TEXT);
    return (size_t)len;
}

size_t rh_deflate_answer(char dst[RH_DEFLATE_TEXT], const struct rh_deflate_terms *terms)
{
    const struct rh_deflate_ask said = {
        .server_forgets = !terms->server_keeps,
        .client_forgets = !terms->client_keeps,
        .server_bits = terms->says_server_bits ? terms->server_bits : 0,
        .client_bits = terms->says_client_bits ? terms->client_bits : 0,
    };

    return rh_deflate_ask(dst, &said);
}

bool rh_deflate_answered(struct rh_span answer, const struct rh_deflate_ask *ask,
                         struct rh_deflate_terms *ret_terms)
{
    const uint8_t client_max =
        ask->client_bits == RH_DEFLATE_ANY ? RH_DEFLATE_BITS_MAX : ask->client_bits;
    struct rh_deflate_ask said;

    if (!read_element(answer, &said))
        return false;
    if (ask->server_forgets && !said.server_forgets)
        return false;
    if (ask->server_bits && (!said.server_bits || said.server_bits > ask->server_bits))
        return false;
    if (said.client_bits && (said.client_bits == RH_DEFLATE_ANY || said.client_bits > client_max))
        return false;
    *ret_terms = (struct rh_deflate_terms){
        .server_bits = said.server_bits ? said.server_bits : RH_DEFLATE_BITS_MAX,
        .client_bits = said.client_bits ? said.client_bits
                       : client_max     ? client_max
                                        : RH_DEFLATE_BITS_MAX,
        .server_keeps = !said.server_forgets,
        .client_keeps = !ask->client_forgets && !said.client_forgets,
        .says_server_bits = said.server_bits,
        .says_client_bits = said.client_bits,
    };
    return true;
}

/* ---- memory -------------------------------------------------------------------------------------- */

static void *take_any(void *bytes, unsigned items, unsigned size)
{
    void *mem = rh_mem_alloc((size_t)items * size);

    if (mem)
        *(size_t *)bytes += (size_t)items * size;
    return mem;
}

static void give_any(void *bytes, void *mem)
{
    rh_mem_free(mem); /* at the object's end, so nobody counts any more */
}

static int make_room(struct rh_deflate_out *out, size_t size)
{
    uint8_t *at = size > out->room ? rh_mem_realloc(out->at, size) : out->at;

    if (!at)
        return RH_ENOMEM;
    out->at = at;
    out->room = RH_MAX(out->room, size);
    return 0;
}

void rh_deflate_out_trim(struct rh_deflate_out *out, size_t keep)
{
    if (out->room > keep) {
        rh_mem_free(out->at);
        *out = (struct rh_deflate_out){0};
    }
}

static bool lies_in(const struct rh_deflate_out *out, const uint8_t *in)
{
    return out->at && in >= out->at && in < out->at + out->room;
}

/* ---- out ----------------------------------------------------------------------------------------- */

struct rh_deflater {
    z_stream zs;
    size_t bytes; /* that zlib has taken */
    bool keeps;
};

int rh_deflater_create(unsigned bits, unsigned mem_level, unsigned level, bool keeps,
                       struct rh_deflater **ret_deflater)
{
    struct rh_deflater *d;

    rh_assert(bits >= RH_DEFLATE_BITS_MIN && bits <= RH_DEFLATE_BITS_MAX);
    rh_assert(mem_level >= 1 && mem_level <= 9 && level >= 1 && level <= 9);
    d = rh_mem_zalloc(sizeof(*d));
    if (!d)
        return RH_ENOMEM;
    d->keeps = keeps;
    d->zs = (z_stream){.zalloc = take_any, .zfree = give_any, .opaque = &d->bytes};
    if (deflateInit2(&d->zs, (int)level, Z_DEFLATED, -(int)bits, (int)mem_level,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        rh_mem_free(d); /* zlib has given back what it took */
        return RH_ENOMEM;
    }
    *ret_deflater = d;
    return 0;
}

void rh_deflater_destroy(struct rh_deflater *d)
{
    if (d)
        deflateEnd(&d->zs);
    rh_mem_free(d);
}

/* zlib writes nothing when it is flushed twice in a row, so an empty message is written here: an
 * empty stored block up to its length (RFC 7692 7.2.3.6). It changes no context. */
static int deflate_nothing(struct rh_deflate_out *out)
{
    int rc = make_room(out, 1);

    if (rc < 0)
        return rc;
    out->at[0] = 0x00;
    out->len = 1;
    return 0;
}

int rh_deflate(struct rh_deflater *d, const void *in, size_t len, struct rh_deflate_out *out)
{
    z_stream *zs = &d->zs;
    size_t used = 0;

    rh_assert(len <= RH_DEFLATE_SIZE_MAX && !lies_in(out, in));
    out->len = 0;
    if (!len)
        return deflate_nothing(out);
    zs->next_in = in;
    zs->avail_in = (unsigned)len;
    do { /* once, unless deflateBound's word is worth nothing */
        if (make_room(out, used + deflateBound(zs, zs->avail_in) + FLUSH_MAX) < 0) {
            rh_deflate_unsent(d);
            return RH_ENOMEM;
        }
        zs->next_out = out->at + used;
        zs->avail_out = (unsigned)(out->room - used);
        deflate(zs, Z_SYNC_FLUSH);
        used = (size_t)(zs->next_out - out->at);
    } while (!zs->avail_out);
    rh_assert(!zs->avail_in && used > sizeof(tail) &&
              !memcmp(zs->next_out - sizeof(tail), tail, sizeof(tail)));
    out->len = used - sizeof(tail);
    if (!d->keeps)
        deflateReset(zs);
    return 0;
}

void rh_deflate_unsent(struct rh_deflater *d)
{
    deflateReset(&d->zs);
}

size_t rh_deflater_bytes(const struct rh_deflater *d)
{
    return sizeof(*d) + d->bytes;
}

/* ---- in ------------------------------------------------------------------------------------------ */

struct rh_inflater {
    z_stream zs;
    size_t bytes; /* that zlib has taken */
    bool keeps;
};

int rh_inflater_create(unsigned bits, bool keeps, struct rh_inflater **ret_inflater)
{
    struct rh_inflater *z;

    rh_assert(bits >= 8 && bits <= RH_DEFLATE_BITS_MAX);
    z = rh_mem_zalloc(sizeof(*z));
    if (!z)
        return RH_ENOMEM;
    z->keeps = keeps;
    z->zs = (z_stream){.zalloc = take_any, .zfree = give_any, .opaque = &z->bytes};
    if (inflateInit2(&z->zs, -(int)RH_MAX(bits, RH_DEFLATE_BITS_MIN)) != Z_OK) {
        rh_mem_free(z);
        return RH_ENOMEM;
    }
    *ret_inflater = z;
    return 0;
}

void rh_inflater_destroy(struct rh_inflater *z)
{
    if (z)
        inflateEnd(&z->zs);
    rh_mem_free(z);
}

/* Room for more, where there is none left: twice of what there was, and never over max + 1. */
static int grow_out(struct rh_deflate_out *out, size_t used, size_t len, size_t max)
{
    const size_t more = RH_MAX(2 * out->room, RH_MAX(4 * len, OUT_MIN));

    if (used < RH_MIN(out->room, max + 1))
        return 0;
    return make_room(out, RH_MIN(more, max + 1));
}

/* Is the stream where a message may end: between two blocks, at a byte's edge? What zlib.h says of
 * data_type: 128 for the first, and in the low six bits those that are left of the last byte. */
static bool at_edge(const z_stream *zs)
{
    return (zs->data_type & (128 | 63)) == 128;
}

/* Inflates `len` bytes behind the `*used` that came out before. *ret_edge: a message may end here. */
static int inflate_part(struct rh_inflater *z, const uint8_t *in, size_t len, size_t max,
                        struct rh_deflate_out *out, size_t *used, bool *ret_edge)
{
    z_stream *zs = &z->zs;

    zs->next_in = in;
    zs->avail_in = (unsigned)len;
    for (;;) {
        int rc = grow_out(out, *used, len, max);

        if (rc < 0)
            return rc;
        zs->next_out = out->at + *used;
        zs->avail_out = (unsigned)(RH_MIN(out->room, max + 1) - *used);
        rc = inflate(zs, Z_SYNC_FLUSH);
        *used = (size_t)(zs->next_out - out->at);
        if (rc == Z_MEM_ERROR)
            return RH_ENOMEM;
        if (rc != Z_OK && rc != Z_BUF_ERROR && rc != Z_STREAM_END)
            return RH_EINVAL;
        if (*used > max)
            return RH_EFULL;
        if (rc == Z_STREAM_END) /* a block with BFINAL: others may follow, and look back on it */
            inflateResetKeep(zs);
        *ret_edge = rc == Z_STREAM_END || at_edge(zs);
        if (!zs->avail_in && (zs->avail_out || rc == Z_STREAM_END))
            return 0;
    }
}

/* Behind all of a message: what 7.2.1 cut off, which has to bring nothing, and to an edge. */
static int inflate_tail(struct rh_inflater *z, size_t max, struct rh_deflate_out *out, size_t *used)
{
    const size_t ours = *used;
    bool edge;
    int rc = inflate_part(z, tail, sizeof(tail), max, out, used, &edge);

    if (rc == 0 && (!edge || *used != ours)) /* what ends early could take the tail for its data */
        rc = RH_EINVAL;
    return rc;
}

int rh_inflate_some(struct rh_inflater *z, const void *in, size_t len, size_t some, size_t *at,
                    size_t max, struct rh_deflate_out *out)
{
    const size_t step = RH_MIN(some, len - *at);
    size_t used = *at ? out->len : 0;
    bool edge;
    int rc;

    rh_assert(len <= RH_DEFLATE_SIZE_MAX && max <= RH_DEFLATE_SIZE_MAX && !lies_in(out, in));
    out->len = 0;
    rc = inflate_part(z, (const uint8_t *)in + *at, step, max, out, &used, &edge);
    *at += step;
    if (rc == 0 && *at < len) {
        out->len = used;
        return 1;
    }
    if (rc == 0)
        rc = inflate_tail(z, max, out, &used);
    if (rc == 0)
        out->len = used;
    if (rc < 0 || !z->keeps)
        inflateReset(&z->zs);
    return rc;
}

int rh_inflate(struct rh_inflater *z, const void *in, size_t len, size_t max,
               struct rh_deflate_out *out)
{
    size_t at = 0;

    return rh_inflate_some(z, in, len, len, &at, max, out);
}

size_t rh_inflater_bytes(const struct rh_inflater *z)
{
    return sizeof(*z) + z->bytes;
}
