/* core/hash.c - SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
 *
 * Why this way: whoever chooses names could choose them to share a bucket; a keyed hash takes that
 * away. One round per word and three at the end suffice for tables, where the hash itself is never
 * shown, and cost half of SipHash-2-4.
 *
 * Rejected    Unkeyed hashes (wyhash, xxh3) are faster by a few ns, but floodable.
 */
#include "core/hash.h"

#include <string.h>

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

static inline uint64_t load_le64(const uint8_t *at)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The paper's SipRound. */
static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 = rotl(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

/* The last 0 to 7 bytes and, in the top byte, the length modulo 256. */
static inline uint64_t last_word(const uint8_t *at, size_t len)
{
    uint64_t word = (uint64_t)len << 56;

    for (size_t i = 0; i < (len & 7); i++)
        word |= (uint64_t)at[(len & ~(size_t)7) + i] << (8 * i);
    return word;
}

uint64_t rh_hash(const struct rh_hash_key *key, const void *at, size_t len)
{
    const uint8_t *bytes = at;
    struct sip s = {
        key->k0 ^ 0x736f6d6570736575u, /* "somepseudorandomlygeneratedbytes" */
        key->k1 ^ 0x646f72616e646f6du,
        key->k0 ^ 0x6c7967656e657261u,
        key->k1 ^ 0x7465646279746573u,
    };

    for (size_t i = 0; i + 8 <= len; i += 8)
        sip_word(&s, load_le64(bytes + i));
    sip_word(&s, last_word(bytes, len));

    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
