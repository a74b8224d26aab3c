/* tests/core/test_prng.c - random bytes from the system, and the fast generator on top of them. */
#include "core/prng.h"

#include "core/rand.h"
#include "tests/rh_test.h"

RH_TEST(prng, is_xoshiro256_starstar)
{
    struct rh_prng p = {{1, 2, 3, 4}};
    /* The first can be worked out by hand: rotl(2 * 5, 7) * 9. */
    static const uint64_t want[] = {
        11520,
        0,
        1509978240,
        1215971899390074240,
        1216172134540287360,
        607988272756665600,
        UINT64_C(16172922978634559625),
        8476171486693032832,
        UINT64_C(10595114339597558777),
        2904607092377533576,
    };

    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        RH_EQ_U64(rh_prng_next(&p), want[i]);
}

RH_TEST(prng, is_seeded_differently_each_time)
{
    struct rh_prng a;
    struct rh_prng b;

    rh_prng_init(&a);
    rh_prng_init(&b);
    RH_OK_IF(memcmp(&a, &b, sizeof(a)) != 0);
    RH_OK_IF(rh_prng_next(&a) != rh_prng_next(&b));
}

RH_TEST(prng, sets_every_bit_about_half_of_the_time)
{
    struct rh_prng p;
    int ones[64] = {0};

    rh_prng_init(&p);
    for (int i = 0; i < 10000; i++) {
        uint64_t x = rh_prng_next(&p);

        for (int bit = 0; bit < 64; bit++)
            ones[bit] += x >> bit & 1;
    }
    for (int bit = 0; bit < 64; bit++) /* one sigma is 50 */
        RH_OK_IF(ones[bit] > 5000 - 400 && ones[bit] < 5000 + 400);
}

/* Goal    all of the bytes are filled and none beyond, also past the 256 up to which the kernel
 *         never gives fewer than asked for.
 * Method  a guard page behind; a byte that is the same in 16 draws was not written. */
RH_TEST(rand, fills_exactly_what_it_was_given)
{
    static const size_t lengths[] = {0, 1, 7, 32, 255, 256, 257, 4096, 100000};

    for (size_t k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
        size_t len = lengths[k];
        uint8_t *dst = rh_guard(NULL, len + 1) + 1;
        uint8_t *changed = rh_guard(NULL, len);

        dst[-1] = 0xa5;
        for (int draw = 0; draw < 16; draw++) {
            rh_rand_bytes(dst, len);
            for (size_t i = 0; i < len; i++)
                changed[i] |= dst[i];
        }
        for (size_t i = 0; i < len; i++)
            RH_OK_IF(changed[i] != 0);
        RH_OK_IF(dst[-1] == 0xa5);
    }
}
