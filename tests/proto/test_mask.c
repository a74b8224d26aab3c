/* Goal    masking is XOR with the key, whatever the length, the phase and the alignment, and
 *         touches nothing else.
 * Method  compare with a loop over bytes, the runs ending at a guard page and beginning after
 *         bytes that must stay as they are; all lengths up to three blocks of 64 and some. */
#include "proto/mask.h"

#include "core/base.h"
#include "tests/rh_test.h"

#define LEN_MAX 210
#define FRONT   16
#define CANARY  0xa5

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void fill(uint8_t *at, size_t len, uint8_t bits)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)rh_test_rand() & bits;
}

/* What a loop over bytes makes of src. */
static void mask_slow(uint8_t *dst, const uint8_t *src, size_t len, unsigned phase)
{
    for (size_t i = 0; i < len; i++)
        dst[i] = src[i] ^ key[(phase + i) & 3];
}

static void check_front(const uint8_t *at)
{
    for (size_t i = 1; i <= FRONT; i++)
        RH_EQ_INT(at[-(ptrdiff_t)i], CANARY);
}

RH_TEST(mask, of_every_length_and_phase_is_xor_with_the_key)
{
    uint8_t *src_end = rh_guard(NULL, LEN_MAX) + LEN_MAX;
    uint8_t *dst_end = rh_guard(NULL, FRONT + LEN_MAX) + FRONT + LEN_MAX;
    uint8_t want[LEN_MAX];

    for (size_t len = 0; len <= LEN_MAX; len++)
        for (unsigned phase = 0; phase < 9; phase++) {
            uint8_t *src = src_end - len, *dst = dst_end - len;

            fill(src, len, 0xff);
            mask_slow(want, src, len, phase);
            memset(dst - FRONT, CANARY, FRONT);
            rh_mask(dst, src, len, key, phase);
            RH_EQ_MEM(dst, want, len);
            memset(dst, 0, len);
            rh_mask_plain(dst, src, len, key, phase);
            RH_EQ_MEM(dst, want, len);
            check_front(dst);
        }
}

RH_TEST(mask, in_place_gives_the_same_and_twice_gives_the_first)
{
    uint8_t *end = rh_guard(NULL, FRONT + LEN_MAX) + FRONT + LEN_MAX;
    uint8_t first[LEN_MAX], want[LEN_MAX];

    for (size_t len = 0; len <= LEN_MAX; len++)
        for (unsigned phase = 0; phase < 4; phase++) {
            uint8_t *at = end - len;

            memset(at - FRONT, CANARY, FRONT);
            fill(at, len, 0xff);
            memcpy(first, at, len);
            mask_slow(want, at, len, phase);
            rh_mask(at, at, len, key, phase);
            RH_EQ_MEM(at, want, len);
            rh_mask_plain(at, at, len, key, phase);
            RH_EQ_MEM(at, first, len);
            check_front(at);
        }
}

RH_TEST(mask, stops_where_it_should_at_every_alignment)
{
    uint8_t buf[LEN_MAX + 96], first[sizeof(buf)], want[LEN_MAX];

    for (size_t begin = 0; begin < 33; begin++)
        for (size_t len = 0; len <= LEN_MAX; len++) {
            fill(buf, sizeof(buf), 0xff);
            memcpy(first, buf, sizeof(buf));
            mask_slow(want, buf + begin, len, 2);
            rh_mask(buf + begin, buf + begin, len, key, 2);
            RH_EQ_MEM(buf, first, begin);
            RH_EQ_MEM(buf + begin, want, len);
            RH_EQ_MEM(buf + begin + len, first + begin + len, sizeof(buf) - begin - len);
        }
}

/* One byte over 7F, at each place in turn, must be seen. */
RH_TEST(mask, tells_whether_the_result_is_ascii)
{
    uint8_t *end = rh_guard(NULL, LEN_MAX) + LEN_MAX;
    uint8_t text[LEN_MAX];

    for (size_t len = 0; len <= LEN_MAX; len++) {
        uint8_t *at = end - len;

        fill(text, len, 0x7f);
        mask_slow(at, text, len, 3);
        RH_OK_IF(rh_mask_ascii(at, len, key, 3));
        RH_EQ_MEM(at, text, len);
        for (size_t high = 0; high < len; high++) {
            text[high] |= 0x80;
            mask_slow(at, text, len, 3);
            RH_OK_IF(!rh_mask_ascii(at, len, key, 3));
            RH_EQ_MEM(at, text, len);
            mask_slow(at, text, len, 3);
            RH_OK_IF(!rh_mask_plain(at, at, len, key, 3));
            text[high] &= 0x7f;
        }
        mask_slow(at, text, len, 3);
        RH_OK_IF(rh_mask_plain(at, at, len, key, 3));
    }
}

RH_TEST(mask, of_pieces_with_their_phases_is_that_of_the_whole)
{
    uint8_t at[LEN_MAX], want[LEN_MAX];

    fill(at, LEN_MAX, 0xff);
    mask_slow(want, at, LEN_MAX, 1);
    for (size_t begin = 0, len; begin < LEN_MAX; begin += len) {
        len = 1 + rh_test_rand() % 40;
        len = RH_MIN(len, LEN_MAX - begin);
        rh_mask(at + begin, at + begin, len, key, (unsigned)(1 + begin));
    }
    RH_EQ_MEM(at, want, LEN_MAX);
}
