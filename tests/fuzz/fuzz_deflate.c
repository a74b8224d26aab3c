/* tests/fuzz/fuzz_deflate.c - permessage-deflate: offers, damaged messages, round trips.
 *
 * The first byte picks what the rest is, and its settings:
 *   'o'  an offer. What is accepted is answered by terms that another look at the answer gives again.
 *   'a'  an answer, to a client whose offer the second byte describes. Terms stay within it.
 *   'i'  messages to inflate, each behind two bytes: its length and its bound. Never more than the
 *        bound comes out, nor does the buffer get larger; what comes out does so at exactly its size,
 *        and at none below; and it is what zlib by itself makes of the same bytes.
 *   'r'  messages to compress and inflate again, each behind two bytes: its length, and what is done
 *        with it, as not to send it.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/ringhub.h"
#include "proto/deflate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE 65536 /* of an input, and bound of an output */

/* A copy of its own, so that ASan sees a byte too far. */
static void *copied(const void *at, size_t len)
{
    void *copy = malloc(len ? len : 1);

    rh_assert(copy);
    if (len)
        memcpy(copy, at, len);
    return copy;
}

/* ---- words ---- */

static bool same_terms(const struct rh_deflate_terms *a, const struct rh_deflate_terms *b)
{
    return a->server_bits == b->server_bits && a->client_bits == b->client_bits &&
           a->server_keeps == b->server_keeps && a->client_keeps == b->client_keeps &&
           a->says_server_bits == b->says_server_bits && a->says_client_bits == b->says_client_bits;
}

static void try_offer(uint8_t how, const char *text, size_t len)
{
    const struct rh_deflate_wish wish = {.takeover = how & 1, .bits = 9 + (how >> 1) % 7};
    struct rh_deflate_terms terms, again;
    char answer[RH_DEFLATE_TEXT];
    char *copy = copied(text, len);
    size_t said;

    if (rh_deflate_offer((struct rh_span){copy, (uint32_t)len}, &wish, &terms)) {
        rh_assert(terms.server_bits >= 8 && terms.server_bits <= wish.bits);
        rh_assert(terms.client_bits >= 8 && terms.client_bits <= 15);
        rh_assert(!terms.says_client_bits || terms.client_bits <= wish.bits);
        rh_assert(wish.takeover || (!terms.server_keeps && !terms.client_keeps));
        said = rh_deflate_answer(answer, &terms);
        rh_assert(said < sizeof(answer) && said == strlen(answer));
        rh_assert(rh_deflate_offer((struct rh_span){answer, (uint32_t)said}, &wish, &again));
        rh_assert(same_terms(&terms, &again));
    }
    free(copy);
}

static void try_answer(uint8_t how, const char *text, size_t len)
{
    const struct rh_deflate_ask ask = {.server_forgets = how & 1,
                                       .client_forgets = how & 2,
                                       .server_bits = how & 4 ? 8 + (how >> 3) % 8 : 0,
                                       .client_bits = how & 64   ? RH_DEFLATE_ANY
                                                      : how >> 7 ? 12
                                                                 : 0};
    struct rh_deflate_terms terms;
    char *copy = copied(text, len);

    if (rh_deflate_answered((struct rh_span){copy, (uint32_t)len}, &ask, &terms)) {
        rh_assert(terms.server_bits >= 8 && terms.server_bits <= 15);
        rh_assert(!ask.server_bits || terms.server_bits <= ask.server_bits);
        rh_assert(terms.client_bits >= 8 && terms.client_bits <= 15);
        rh_assert(ask.client_bits < 8 || terms.client_bits <= ask.client_bits);
        rh_assert(ask.client_bits || terms.client_bits == 15);
        rh_assert(!ask.server_forgets || !terms.server_keeps);
        rh_assert(!ask.client_forgets || !terms.client_keeps);
    }
    free(copy);
}

/* ---- messages ---- */

/* zlib in one go, with its window large enough; false: not as a message has to be, as far as zlib
 * says, or one with BFINAL in it. */
static bool inflated(const uint8_t *in, size_t len, uint8_t *out, size_t max, size_t *ret_len)
{
    z_stream zs = {0};
    uint8_t *whole = malloc(len + 4);
    int rc;

    rh_assert(whole && inflateInit2(&zs, -15) == Z_OK);
    memcpy(whole, in, len);
    memcpy(whole + len, "\0\0\xff\xff", 4);
    zs.next_in = whole;
    zs.avail_in = (unsigned)len + 4;
    zs.next_out = out;
    zs.avail_out = (unsigned)max;
    rc = inflate(&zs, Z_SYNC_FLUSH);
    *ret_len = max - zs.avail_out;
    inflateEnd(&zs);
    free(whole);
    return rc == Z_OK && !zs.avail_in;
}

/* What one message must hold to, in an inflater without context; `max` below SIZE. */
static void try_message(struct rh_inflater *z, const uint8_t *in, size_t len, size_t max)
{
    static uint8_t want[SIZE];
    struct rh_deflate_out out = {0};
    uint8_t *copy = copied(in, len);
    const int rc = rh_inflate(z, copy, len, max, &out);
    size_t got = out.len, want_len;

    rh_assert(rc == 0 || rc == RH_EINVAL || rc == RH_EFULL);
    rh_assert(out.room <= max + 1 && (rc == 0 ? got <= max : !got));
    if (rc == 0) {
        if (inflated(in, len, want, SIZE, &want_len))
            rh_assert(want_len == got && !memcmp(want, out.at, got));
        memcpy(want, out.at, got);
        rh_assert(rh_inflate(z, copy, len, got, &out) == 0);
        rh_assert(out.len == got && !memcmp(want, out.at, got));
        rh_assert(!got || rh_inflate(z, copy, len, got - 1, &out) == RH_EFULL);
    }
    if (rc == RH_EFULL && inflated(in, len, want, SIZE, &want_len))
        rh_assert(want_len > max);
    rh_deflate_out_trim(&out, 0);
    free(copy);
}

static void try_inflate(uint8_t how, const uint8_t *at, const uint8_t *end)
{
    struct rh_deflate_out out = {0};
    struct rh_inflater *alone, *keeps;
    int rc = 0;

    rh_assert(rh_inflater_create(15, false, &alone) == 0);
    rh_assert(rh_inflater_create(8 + how % 8, true, &keeps) == 0);
    while (end - at >= 2) {
        const size_t len = RH_MIN((size_t)at[0] + (at[0] & 0x80) * 16, (size_t)(end - at - 2));
        const size_t max = (size_t)at[1] * at[1];

        try_message(alone, at + 2, len, max);
        rc = rc ? rc : rh_inflate(keeps, at + 2, len, max, &out);
        rh_assert(out.len <= max && (rc == 0 || !out.len));
        at += 2 + len;
    }
    rh_assert(rh_inflater_bytes(alone) < 60000 && rh_inflater_bytes(keeps) < 60000);
    rh_deflate_out_trim(&out, 0);
    rh_inflater_destroy(alone);
    rh_inflater_destroy(keeps);
}

static void try_round_trip(uint8_t how, const uint8_t *at, const uint8_t *end)
{
    const unsigned bits = 9 + how % 7;
    const bool keeps = how & 0x80;
    struct rh_deflate_out packed = {0}, plain = {0};
    struct rh_deflater *d;
    struct rh_inflater *z;

    rh_assert(rh_deflater_create(bits, 1 + how / 7 % 9, 1 + how % 9, keeps, &d) == 0);
    rh_assert(rh_inflater_create(bits, keeps, &z) == 0);
    while (end - at >= 2) {
        const size_t len = RH_MIN((size_t)at[0] + (at[0] & 0x80) * 16, (size_t)(end - at - 2));
        const uint8_t *in = at + 2, then = at[1];
        uint8_t *copy;

        rh_assert(rh_deflate(d, in, len, &packed) == 0 && packed.len);
        at = in + len;
        if (then & 1) {
            rh_deflate_unsent(d);
            continue;
        }
        copy = copied(packed.at, packed.len);
        rh_assert(rh_inflate(z, copy, packed.len, then & 2 ? SIZE : len, &plain) == 0);
        rh_assert(plain.len == len && (!len || !memcmp(plain.at, in, len)));
        free(copy);
        if (then & 4)
            rh_deflate_out_trim(&packed, then);
        if (then & 8)
            rh_deflate_out_trim(&plain, then);
    }
    rh_deflate_out_trim(&packed, 0);
    rh_deflate_out_trim(&plain, 0);
    rh_deflater_destroy(d);
    rh_inflater_destroy(z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > SIZE)
        return 0;
    switch (data[0]) {
    case 'o':
        try_offer(data[1], (const char *)data + 2, size - 2);
        break;
    case 'a':
        try_answer(data[1], (const char *)data + 2, size - 2);
        break;
    case 'i':
        try_inflate(data[1], data + 2, data + size);
        break;
    case 'r':
        try_round_trip(data[1], data + 2, data + size);
        break;
    default:
        break;
    }
    return 0;
}
