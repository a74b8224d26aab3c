/* tests/core/test_id.c - ids increase and differ, whatever the clock does; which ids are allowed. */
#include "core/id.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base.h"
#include "tests/rh_test.h"

#define MS UINT64_C(0x0191aabbccdd) /* some day in 2024 */

static struct rh_prng prng;

static struct rh_idgen new_gen(void)
{
    struct rh_idgen g;

    rh_prng_init(&prng);
    rh_idgen_init(&g, &prng);
    return g;
}

static uint64_t id_ms(const char id[RH_ID_TEXT])
{
    char text[13];

    memcpy(text, id, 12);
    text[12] = '\0';
    return strtoull(text, NULL, 16);
}

static void check_is_hex(const char id[RH_ID_TEXT])
{
    for (int i = 0; i < RH_ID_TEXT; i++)
        RH_OK_IF((id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f'));
}

RH_TEST(id, begins_with_its_time_and_is_hex)
{
    struct rh_idgen g = new_gen();
    char *id = (char *)rh_guard(NULL, RH_ID_TEXT);

    rh_id_make(&g, MS, id);
    check_is_hex(id);
    RH_EQ_U64(id_ms(id), MS);
    rh_id_make(&g, MS + 1, id);
    RH_EQ_U64(id_ms(id), MS + 1);
    rh_id_make(&g, (UINT64_C(1) << 48) - 1, id);
    RH_EQ_MEM(id, "ffffffffffff", 12);
}

RH_TEST(id, is_allowed_as_a_clients_id)
{
    struct rh_idgen g = new_gen();
    char id[RH_ID_TEXT];

    rh_id_make(&g, MS, id);
    RH_OK_IF(rh_id_given_ok(id, sizeof(id)));
}

/* Goal    a million ids of one generator strictly increase (so are unique), at several thousand a
 *         ms and with a clock that goes back now and then. */
RH_TEST(id, strictly_increases_over_a_million_with_a_clock_that_goes_back)
{
    struct rh_idgen g = new_gen();
    char last[RH_ID_TEXT] = {0};
    uint64_t ms = MS;

    for (int i = 0; i < 1000000; i++) {
        char id[RH_ID_TEXT];
        uint64_t dice = rh_test_rand();

        if (dice % 1000 == 0)
            ms += dice / 1000 % 3;
        if (dice % 50000 == 1)
            ms -= dice / 50000 % 5000;
        rh_id_make(&g, ms, id);
        check_is_hex(id);
        RH_OK_IF(memcmp(id, last, sizeof(id)) > 0);
        memcpy(last, id, sizeof(id));
    }
}

RH_TEST(id, keeps_the_latest_time_when_the_clock_goes_back)
{
    struct rh_idgen g = new_gen();
    char id[RH_ID_TEXT];

    rh_id_make(&g, MS, id);
    rh_id_make(&g, MS - 3600000, id);
    RH_EQ_U64(id_ms(id), MS);
    rh_id_make(&g, 0, id);
    RH_EQ_U64(id_ms(id), MS);
    rh_id_make(&g, MS + 1, id);
    RH_EQ_U64(id_ms(id), MS + 1);
}

/* Goal    when the 80 bits run over, the ms carries: still increasing.
 * Method  a generator whose last id was the highest possible one of its ms. */
RH_TEST(id, that_runs_over_its_random_part_goes_on_in_the_next_ms)
{
    struct rh_idgen g = new_gen();
    char id[RH_ID_TEXT];
    char next[RH_ID_TEXT];

    g.hi = MS << 16 | 0xffff;
    g.lo = UINT64_MAX;
    rh_id_make(&g, MS, id);
    RH_EQ_U64(id_ms(id), MS + 1);
    RH_EQ_MEM(id + 12, "0000", 4);
    rh_id_make(&g, MS + 1, next);
    RH_OK_IF(memcmp(next, id, sizeof(id)) > 0);
    RH_EQ_U64(id_ms(next), MS + 1);
}

static int by_text(const void *a, const void *b)
{
    return memcmp(a, b, RH_ID_TEXT);
}

/* Goal    shards that make ids in the same ms do not meet. */
RH_TEST(id, differs_between_generators_in_the_same_ms)
{
    enum { gens = 64, each = 1000 };
    static char ids[gens * each][RH_ID_TEXT];
    struct rh_prng prngs[gens];
    struct rh_idgen g[gens];

    for (int k = 0; k < gens; k++) {
        rh_prng_init(&prngs[k]);
        rh_idgen_init(&g[k], &prngs[k]);
    }
    for (int i = 0; i < gens * each; i++)
        rh_id_make(&g[i % gens], MS, ids[i]);
    qsort(ids, gens * each, RH_ID_TEXT, by_text);
    for (int i = 1; i < gens * each; i++)
        RH_OK_IF(memcmp(ids[i - 1], ids[i], RH_ID_TEXT) != 0);
}

/* Goal    one id does not give the next one away at a glance: steps are not all the same. */
RH_TEST(id, does_not_count_by_ones)
{
    struct rh_idgen g = new_gen();
    char id[RH_ID_TEXT];
    uint64_t step[3];

    for (int i = 0; i < 3; i++) {
        uint64_t before = g.lo;

        rh_id_make(&g, MS, id);
        step[i] = g.lo - before;
    }
    RH_OK_IF(step[1] != step[2]);
}

RH_TEST(hex, writes_two_lower_case_digits_a_byte_and_no_zero)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t in = (uint8_t)byte;
        char *out = (char *)rh_guard(NULL, 2);
        char want[3];

        snprintf(want, sizeof(want), "%02x", byte);
        rh_hex(out, &in, 1);
        RH_EQ_MEM(out, want, 2);
    }
}

RH_TEST(hex, keeps_the_order_of_the_bytes)
{
    static const uint8_t bytes[] = {0xde, 0xad, 0x00, 0xbe, 0xef};
    char *out = (char *)rh_guard(NULL, 10);

    rh_hex(out, bytes, sizeof(bytes));
    RH_EQ_MEM(out, "dead00beef", 10);
    rh_hex(out + 10, bytes, 0); /* nothing: not even a zero at the guard page */
}

RH_TEST(id_given, has_1_to_64_bytes)
{
    char id[65];

    memset(id, 'x', sizeof(id));
    RH_OK_IF(!rh_id_given_ok(id, 0));
    RH_OK_IF(!rh_id_given_ok(NULL, 0));
    for (size_t len = 1; len <= 64; len++)
        RH_OK_IF(rh_id_given_ok(id, len));
    RH_OK_IF(!rh_id_given_ok(id, 65));
}

/* Goal    exactly the 66 bytes of PROTOCOL are allowed, in every place, and none is read beyond the
 *         length. */
RH_TEST(id_given, consists_of_letters_digits_and_four_marks)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._:-";
    char *id = (char *)rh_guard("abcde", 5);

    for (unsigned byte = 0; byte < 256; byte++)
        for (int at = 0; at < 5; at++) {
            bool want = byte && strchr(allowed, (int)byte);

            memcpy(id, "abcde", 5);
            id[at] = (char)byte;
            RH_EQ_INT(rh_id_given_ok(id, 5), want);
        }
}
