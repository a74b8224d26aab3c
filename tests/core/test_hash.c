/* tests/core/test_hash.c - SipHash-1-3 against its authors' vectors and against the paper. */
#include "core/hash.h"

#include "core/rand.h"
#include "tests/rh_test.h"

/* The reference implementation's output (github.com/veorq/SipHash with 1 and 3 rounds), as 8 bytes
 * in little-endian order, for the key 00 01 .. 0f and the messages "", 00, 00 01, 00 01 02, ... */
static const uint8_t vectors[][8] = {
    {0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab},
    {0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9},
    {0x4d, 0xd4, 0xc7, 0x4d, 0x02, 0x9b, 0xcb, 0x82},
    {0xfb, 0xf7, 0xdd, 0xe7, 0xb8, 0x0a, 0xf8, 0x8b},
    {0x28, 0x83, 0xd3, 0x88, 0x60, 0x57, 0x75, 0xcf},
    {0x67, 0x3b, 0x53, 0x49, 0x2f, 0xd5, 0xf9, 0xde},
    {0xa7, 0x22, 0x9f, 0xc5, 0x50, 0x2b, 0x0d, 0xc5},
    {0x40, 0x11, 0xb1, 0x9b, 0x98, 0x7d, 0x92, 0xd3},
    {0x8e, 0x9a, 0x29, 0x8d, 0x11, 0x95, 0x90, 0x36},
    {0xe4, 0x3d, 0x06, 0x6c, 0xb3, 0x8e, 0xa4, 0x25},
    {0x7f, 0x09, 0xff, 0x92, 0xee, 0x85, 0xde, 0x79},
    {0x52, 0xc3, 0x4d, 0xf9, 0xc1, 0x18, 0xc1, 0x70},
    {0xa2, 0xd9, 0xb4, 0x57, 0xb1, 0x84, 0xa3, 0x78},
    {0xa7, 0xff, 0x29, 0x12, 0x0c, 0x76, 0x6f, 0x30},
    {0x34, 0x5d, 0xf9, 0xc0, 0x11, 0xa1, 0x5a, 0x60},
};

static const struct rh_hash_key vector_key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};

/* The paper's text turned into the slowest program: the padded message in a buffer, words put
 * together byte by byte, additions and rotations bit by bit as section 2 draws them. */
static uint64_t slow_rotl(uint64_t x, int by)
{
    while (by--)
        x = x * 2 + (x >> 63);
    return x;
}

static void slow_rounds(uint64_t v[4], int rounds)
{
    while (rounds--) {
        v[0] += v[1], v[1] = slow_rotl(v[1], 13), v[1] ^= v[0], v[0] = slow_rotl(v[0], 32);
        v[2] += v[3], v[3] = slow_rotl(v[3], 16), v[3] ^= v[2];
        v[0] += v[3], v[3] = slow_rotl(v[3], 21), v[3] ^= v[0];
        v[2] += v[1], v[1] = slow_rotl(v[1], 17), v[1] ^= v[2], v[2] = slow_rotl(v[2], 32);
    }
}

static uint64_t slow_hash(const struct rh_hash_key *key, const uint8_t *at, size_t len)
{
    static const char nothing_up_my_sleeve[] = "somepseudorandomlygeneratedbytes";
    uint8_t padded[1024] = {0};
    size_t words = len / 8 + 1;
    uint64_t v[4] = {0};

    ck_assert(words * 8 <= sizeof(padded));
    for (int i = 0; i < 32; i++)
        v[i / 8] = v[i / 8] << 8 | (uint8_t)nothing_up_my_sleeve[i];
    v[0] ^= key->k0, v[1] ^= key->k1, v[2] ^= key->k0, v[3] ^= key->k1;

    if (len)
        memcpy(padded, at, len);
    padded[words * 8 - 1] = (uint8_t)len;
    for (size_t w = 0; w < words; w++) {
        uint64_t m = 0;

        for (int i = 7; i >= 0; i--)
            m = m * 256 + padded[w * 8 + (size_t)i];
        v[3] ^= m;
        slow_rounds(v, 1);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    slow_rounds(v, 3);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

RH_TEST(hash, agrees_with_the_authors_vectors)
{
    uint8_t message[64];

    for (size_t i = 0; i < sizeof(message); i++)
        message[i] = (uint8_t)i;
    for (size_t len = 0; len < sizeof(vectors) / sizeof(vectors[0]); len++) {
        uint64_t hash = rh_hash(&vector_key, message, len);

        for (int i = 0; i < 8; i++)
            RH_EQ_INT((uint8_t)(hash >> (8 * i)), vectors[len][i]);
        RH_EQ_U64(slow_hash(&vector_key, message, len), hash);
    }
}

/* Goal    every length is hashed whole and nothing beyond it is read.
 * Method  random bytes that end at a guard page, at every length up to 600 (the length byte wraps
 *         at 256), under random keys, against the slow one. */
RH_TEST(hash, agrees_with_the_paper_at_every_length_and_reads_no_byte_too_far)
{
    uint8_t *end = rh_guard(NULL, 600) + 600;

    for (int i = 1; i <= 600; i++)
        end[-i] = (uint8_t)rh_test_rand();
    for (size_t len = 0; len <= 600; len++) {
        struct rh_hash_key key = {rh_test_rand(), rh_test_rand()};

        RH_EQ_U64(rh_hash(&key, end - len, len), slow_hash(&key, end - len, len));
    }
}

RH_TEST(hash, does_not_depend_on_where_the_name_lies)
{
    static const char name[] = "user:4711@example.org";
    char room[64];
    uint64_t hash = rh_hash(&vector_key, name, sizeof(name));

    for (size_t at = 0; at < 16; at++) {
        memcpy(room + at, name, sizeof(name));
        RH_EQ_U64(rh_hash(&vector_key, room + at, sizeof(name)), hash);
    }
}

RH_TEST(hash, of_nothing_at_null_is_that_of_the_empty_name)
{
    RH_EQ_U64(rh_hash(&vector_key, NULL, 0), rh_hash(&vector_key, "", 0));
}

RH_TEST(hash, changes_with_every_bit_of_the_key)
{
    struct rh_hash_key key;
    uint64_t hash;

    rh_rand_bytes(&key, sizeof(key));
    hash = rh_hash(&key, "anna", 4);
    for (int bit = 0; bit < 64; bit++) {
        struct rh_hash_key other = key;

        other.k0 ^= UINT64_C(1) << bit;
        RH_OK_IF(rh_hash(&other, "anna", 4) != hash);
        other = key;
        other.k1 ^= UINT64_C(1) << bit;
        RH_OK_IF(rh_hash(&other, "anna", 4) != hash);
    }
}

RH_TEST(hash, spreads_names_evenly_over_any_number_of_shards)
{
    for (unsigned shards = 1; shards <= 64; shards++) {
        unsigned names[64] = {0};

        for (uint32_t i = 0; i < 64 * 1000; i++) {
            unsigned shard = rh_hash_shard(rh_hash(&vector_key, &i, sizeof(i)), shards);

            RH_OK_IF(shard < shards);
            names[shard]++;
        }
        for (unsigned s = 0; s < shards; s++) { /* at 1,000 a shard, 20 % are six sigma */
            RH_OK_IF(names[s] > 64 * 1000 / shards * 8 / 10);
            RH_OK_IF(names[s] < 64 * 1000 / shards * 12 / 10 + 1);
        }
    }
}

RH_TEST(hash, takes_the_shard_from_the_high_half_only)
{
    RH_EQ_INT(rh_hash_shard(UINT64_C(0x00000000ffffffff), 64), 0);
    RH_EQ_INT(rh_hash_shard(UINT64_C(0xffffffff00000000), 64), 63);
    RH_EQ_INT(rh_hash_shard(UINT64_MAX, 1), 0);
    RH_EQ_INT(rh_hash_shard(UINT64_C(0x7fffffff00000000), 2), 0);
    RH_EQ_INT(rh_hash_shard(UINT64_C(0x8000000000000000), 2), 1);
}
