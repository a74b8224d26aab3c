/* tests/proto/test_deflate.c - permessage-deflate by the sentences of RFC 7692: what is agreed on,
 * its examples byte for byte, round trips in every setting, and what is damaged or too large. */
#include "tests/rh_test.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/ringhub.h"
#include "proto/deflate.h"

#define PMD     "permessage-deflate"
#define NO_S    "; server_no_context_takeover"
#define NO_C    "; client_no_context_takeover"
#define NO_BOTH NO_S NO_C
#define S_BITS  "; server_max_window_bits="
#define C_BITS  "; client_max_window_bits="
#define C_ANY   "; client_max_window_bits"
#define BOUND   (1 << 20)

static struct rh_span span_of(const char *text)
{
    const size_t len = strlen(text);

    return (struct rh_span){(const char *)rh_guard(text, len), (uint32_t)len};
}

/* ---- the server's answer (RFC 7692 5.1, 7.1) ---- */

static void expect_answer(const char *offer, bool takeover, uint8_t bits, const char *want)
{
    const struct rh_deflate_wish wish = {.takeover = takeover, .bits = bits};
    char answer[RH_DEFLATE_TEXT] = "";
    struct rh_deflate_terms terms = {0};

    if (rh_deflate_offer(span_of(offer), &wish, &terms))
        RH_EQ_U64(rh_deflate_answer(answer, &terms), strlen(answer));
    if (strcmp(answer, want) != 0)
        RH_FAIL("%s\n  gives  %s\n  wanted %s", offer, answer, want);
    RH_OK_IF(!*want == !terms.server_bits);
}

RH_TEST(deflate_offer, without_takeover_the_answer_says_so)
{
    expect_answer(PMD, false, 15, PMD NO_BOTH);
    expect_answer(PMD NO_S, false, 15, PMD NO_BOTH);
    expect_answer(PMD NO_C, false, 15, PMD NO_BOTH);
    expect_answer(PMD NO_BOTH, false, 15, PMD NO_BOTH);
}

RH_TEST(deflate_offer, with_takeover_the_answer_forgets_what_the_client_offers)
{
    expect_answer(PMD, true, 15, PMD);
    expect_answer(PMD NO_S, true, 15, PMD NO_S);
    expect_answer(PMD NO_C, true, 15, PMD NO_C);
    expect_answer(PMD NO_C NO_S, true, 15, PMD NO_BOTH);
}

RH_TEST(deflate_offer, the_servers_window_is_the_smaller_of_both_and_named)
{
    expect_answer(PMD, true, 12, PMD S_BITS "12");
    expect_answer(PMD S_BITS "15", true, 12, PMD S_BITS "12");
    expect_answer(PMD S_BITS "15", true, 15, PMD S_BITS "15");
    expect_answer(PMD S_BITS "10", true, 12, PMD S_BITS "10");
    expect_answer(PMD S_BITS "8", true, 12, PMD S_BITS "8");
    expect_answer(PMD S_BITS "9", false, 9, PMD NO_BOTH S_BITS "9");
}

RH_TEST(deflate_offer, the_clients_window_is_named_only_where_it_was_offered)
{
    struct rh_deflate_terms terms;
    const struct rh_deflate_wish wish = {.takeover = true, .bits = 10};

    expect_answer(PMD C_ANY, true, 12, PMD S_BITS "12" C_BITS "12");
    expect_answer(PMD C_ANY, true, 15, PMD C_BITS "15");
    expect_answer(PMD C_BITS "15", true, 12, PMD S_BITS "12" C_BITS "12");
    expect_answer(PMD C_BITS "9", true, 12, PMD S_BITS "12" C_BITS "9");
    expect_answer(PMD C_BITS "8", true, 15, PMD C_BITS "8");
    RH_OK_IF(rh_deflate_offer(span_of(PMD), &wish, &terms));
    RH_EQ_INT(terms.client_bits, 15);
    RH_EQ_INT(terms.server_bits, 10);
}

RH_TEST(deflate_offer, values_may_be_quoted_and_spaced)
{
    expect_answer(PMD S_BITS "\"10\"", true, 12, PMD S_BITS "10");
    expect_answer(PMD S_BITS "\"1\\0\"", true, 12, PMD S_BITS "10");
    expect_answer(PMD S_BITS "\"\\9\"", true, 12, PMD S_BITS "9");
    expect_answer(PMD "\t;server_max_window_bits =\t10 ;client_max_window_bits", true, 12,
                  PMD S_BITS "10" C_BITS "12");
}

RH_TEST(deflate_offer, values_are_8_to_15_without_leading_zeros)
{
    static const char *const bad[] = {
        "0",   "1",  "7", "16",      "100", "010",    "08",    "8.",     "-8", "+8",
        "0x8", "8a", "a", "\"010\"", "''",  "\"16\"", "\"7\"", "\"\\\"", "\"", "4294967304"};

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        char offer[100];

        snprintf(offer, sizeof(offer), PMD S_BITS "%s", bad[i]);
        expect_answer(offer, true, 15, "");
        snprintf(offer, sizeof(offer), PMD C_BITS "%s", bad[i]);
        expect_answer(offer, true, 15, "");
    }
    for (unsigned bits = 8; bits <= 15; bits++) {
        char offer[100];

        snprintf(offer, sizeof(offer), PMD S_BITS "%u" C_BITS "%u", bits, bits);
        expect_answer(offer, true, 15, offer);
    }
}

RH_TEST(deflate_offer, with_wrong_parameters_is_declined)
{
    static const char *const bad[] = {
        "",
        "permessage-deflat",
        "permessage-deflate2",
        "Permessage-Deflate",
        "x-webkit-deflate-frame",
        "permessage-bzip2; server_max_window_bits=9",
        PMD "; unknown",
        PMD "; unknown=1",
        PMD NO_S "; Client_no_context_takeover",
        PMD NO_S "=1",
        PMD NO_S "=true",
        PMD NO_C "=\"\"",
        PMD NO_C "=10",
        PMD NO_S NO_S,
        PMD NO_C NO_S NO_C,
        PMD "; server_max_window_bits",
        PMD S_BITS,
        PMD C_BITS,
        PMD S_BITS "10" S_BITS "10",
        PMD C_BITS "10" C_ANY,
        PMD C_ANY C_ANY,
        PMD C_ANY "; x=y" NO_S,
        PMD ";",
        PMD "; =1",
    };

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        expect_answer(bad[i], true, 12, "");
        expect_answer(bad[i], false, 15, "");
    }
}

/* ---- the client's offer, and what it takes for an answer ---- */

static void expect_terms(const struct rh_deflate_ask *ask, const char *answer, const char *want)
{
    struct rh_deflate_terms terms;
    char got[40] = "refused";

    if (rh_deflate_answered(span_of(answer), ask, &terms))
        snprintf(got, sizeof(got), "%u%s %u%s", terms.server_bits, terms.server_keeps ? "k" : "",
                 terms.client_bits, terms.client_keeps ? "k" : "");
    if (strcmp(got, want) != 0)
        RH_FAIL("%s\n  gives  %s\n  wanted %s", answer, got, want);
}

static void expect_ask(struct rh_deflate_ask ask, const char *want)
{
    char text[RH_DEFLATE_TEXT];

    RH_EQ_U64(rh_deflate_ask(text, &ask), strlen(want));
    RH_EQ_STR(text, want);
}

RH_TEST(deflate_ask, writes_what_is_offered)
{
    expect_ask((struct rh_deflate_ask){0}, PMD);
    expect_ask((struct rh_deflate_ask){.client_bits = RH_DEFLATE_ANY}, PMD C_ANY);
    expect_ask((struct rh_deflate_ask){.server_bits = 8, .client_bits = 15},
               PMD S_BITS "8" C_BITS "15");
    expect_ask((struct rh_deflate_ask){true, true, 15, 15}, PMD NO_BOTH S_BITS "15" C_BITS "15");
}

RH_TEST(deflate_ask, an_answer_may_take_less)
{
    const struct rh_deflate_ask bare = {0}, any = {.client_bits = RH_DEFLATE_ANY},
                                full = {true, true, 12, 11};

    expect_terms(&bare, PMD, "15k 15k");
    expect_terms(&bare, PMD NO_S, "15 15k");
    expect_terms(&bare, PMD NO_C, "15k 15");
    expect_terms(&bare, PMD S_BITS "9", "9k 15k");
    expect_terms(&bare, PMD S_BITS "\"8\"", "8k 15k");
    expect_terms(&any, PMD, "15k 15k");
    expect_terms(&any, PMD C_BITS "10", "15k 10k");
    expect_terms(&any, PMD C_BITS "15", "15k 15k");
    expect_terms(&full, PMD NO_S S_BITS "12", "12 11");
    expect_terms(&full, PMD S_BITS "9" C_BITS "11" NO_S, "9 11");
    expect_terms(&full, PMD S_BITS "9" C_BITS "8" NO_BOTH, "9 8");
}

RH_TEST(deflate_ask, an_answer_that_does_not_fit_is_refused)
{
    const struct rh_deflate_ask bare = {0}, any = {.client_bits = RH_DEFLATE_ANY},
                                full = {true, true, 12, 11};
    static const char *const never[] = {"",
                                        "x",
                                        PMD "; x",
                                        PMD NO_S NO_S,
                                        PMD C_ANY,
                                        PMD S_BITS "7",
                                        PMD NO_S "=1",
                                        PMD S_BITS "16",
                                        PMD C_BITS,
                                        PMD C_BITS "010"};

    for (size_t i = 0; i < RH_COUNT(never); i++) {
        expect_terms(&bare, never[i], "refused");
        expect_terms(&any, never[i], "refused");
        expect_terms(&full, never[i], "refused");
    }
    expect_terms(&bare, PMD C_BITS "15", "refused");
    expect_terms(&full, PMD S_BITS "12", "refused");
    expect_terms(&full, PMD NO_S, "refused");
    expect_terms(&full, PMD NO_S S_BITS "13", "refused");
    expect_terms(&full, PMD NO_S S_BITS "12" C_BITS "12", "refused");
}

/* ---- compressing and inflating ---- */

static struct rh_deflate_out packed, plain; /* of the running test, a process of its own */

static struct rh_deflater *deflater(unsigned bits, unsigned mem, unsigned level, bool keeps)
{
    struct rh_deflater *d = NULL;

    RH_EQ_INT(rh_deflater_create(bits, mem, level, keeps, &d), 0);
    return d;
}

static struct rh_inflater *inflater(unsigned bits, bool keeps)
{
    struct rh_inflater *z = NULL;

    RH_EQ_INT(rh_inflater_create(bits, keeps, &z), 0);
    return z;
}

static void end(struct rh_deflater *d, struct rh_inflater *z)
{
    rh_deflater_destroy(d);
    rh_inflater_destroy(z);
    rh_deflate_out_trim(&packed, 0);
    rh_deflate_out_trim(&plain, 0);
    RH_OK_IF(!packed.at && !plain.at);
}

static void expect_packed(struct rh_deflater *d, const char *text, const void *want, size_t len)
{
    RH_EQ_INT(rh_deflate(d, text, strlen(text), &packed), 0);
    RH_EQ_U64(packed.len, len);
    RH_EQ_MEM(packed.at, want, len);
}

static void expect_plain(struct rh_inflater *z, const void *in, size_t len, const char *want)
{
    RH_EQ_INT(rh_inflate(z, rh_guard(in, len), len, strlen(want), &plain), 0);
    RH_EQ_U64(plain.len, strlen(want));
    RH_EQ_MEM(plain.at, want, plain.len);
}

static void expect_error(struct rh_inflater *z, const void *in, size_t len, int rc)
{
    RH_EQ_INT(rh_inflate(z, rh_guard(in, len), len, BOUND, &plain), rc);
    RH_EQ_U64(plain.len, 0);
}

static void round_trip(struct rh_deflater *d, struct rh_inflater *z, const uint8_t *at, size_t len)
{
    RH_EQ_INT(rh_deflate(d, at, len, &packed), 0);
    RH_OK_IF(packed.len > 0 && packed.len <= len + len / 8 + 16);
    if (rh_inflate(z, rh_guard(packed.at, packed.len), packed.len, len, &plain) != 0 ||
        plain.len != len || memcmp(plain.at, at, len) != 0)
        RH_FAIL("a message of %zu bytes comes back as %zu", len, plain.len);
}

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

RH_TEST(deflate_examples, a_message_compressed_using_one_block)
{
    struct rh_deflater *d = deflater(15, 8, 6, false);
    struct rh_inflater *z = inflater(15, false);

    for (unsigned i = 0; i < 3; i++) {
        expect_packed(d, "Hello", BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00));
        expect_plain(z, BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00), "Hello");
    }
    end(d, z);
}

RH_TEST(deflate_examples, sharing_the_window)
{
    struct rh_deflater *d = deflater(15, 8, 6, true);
    struct rh_inflater *z = inflater(15, true);

    expect_packed(d, "Hello", BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00));
    expect_packed(d, "Hello", BYTES(0xf2, 0x00, 0x11, 0x00, 0x00));
    expect_plain(z, BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00), "Hello");
    expect_plain(z, BYTES(0xf2, 0x00, 0x11, 0x00, 0x00), "Hello");
    expect_plain(z, BYTES(0xf2, 0x00, 0x11, 0x00, 0x00), "Hello");
    end(d, z);
    z = inflater(15, false);
    expect_plain(z, BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00), "Hello");
    expect_error(z, BYTES(0xf2, 0x00, 0x11, 0x00, 0x00), RH_EINVAL);
    end(NULL, z);
}

RH_TEST(deflate_examples, a_block_with_no_compression)
{
    struct rh_inflater *z = inflater(15, false);

    expect_plain(z, BYTES(0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00),
                 "Hello");
    end(NULL, z);
}

RH_TEST(deflate_examples, a_block_with_bfinal_and_messages_behind_it)
{
    struct rh_inflater *z = inflater(15, true);

    expect_plain(z, BYTES(0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00), "Hello");
    expect_plain(z, BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00), "Hello");
    expect_plain(z, BYTES(0xf2, 0x00, 0x11, 0x00, 0x00), "Hello"); /* the window was kept */
    end(NULL, z);
}

RH_TEST(deflate_examples, two_blocks_in_one_message)
{
    struct rh_inflater *z = inflater(15, false);

    expect_plain(
        z, BYTES(0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00),
        "Hello");
    end(NULL, z);
}

RH_TEST(deflate_examples, an_empty_message_is_one_byte)
{
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct rh_deflater *d = deflater(9, 1, 1, keeps);
        struct rh_inflater *z = inflater(9, keeps);

        for (unsigned i = 0; i < 3; i++) {
            expect_packed(d, "", BYTES(0x00));
            expect_plain(z, BYTES(0x00), "");
            RH_EQ_INT(rh_deflate(d, "ho", 2, &packed), 0);
            expect_plain(z, packed.at, packed.len, "ho");
        }
        end(d, z);
    }
}

/* ---- BFINAL, stored blocks, and where a message ends ---- */

RH_TEST(deflate_blocks, several_with_bfinal_make_one_message)
{
    struct rh_inflater *z = inflater(15, true);

    expect_plain(z,
                 BYTES(0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07,
                       0x00, 0x00),
                 "HelloHello");
    /* the last block looks back over a block with BFINAL */
    expect_plain(z, BYTES(0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf2, 0x00, 0x11, 0x00, 0x00),
                 "HelloHello");
    /* the empty block at the end has BFINAL */
    expect_plain(z, BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff, 0x01),
                 "Hello");
    expect_plain(z, BYTES(0x01), "");
    expect_plain(z, BYTES(0xf2, 0x00, 0x11, 0x00, 0x00), "Hello");
    end(NULL, z);
}

RH_TEST(deflate_blocks, a_message_that_ends_elsewhere_is_damaged)
{
    struct rh_inflater *z = inflater(15, false);

    expect_error(z, NULL, 0, RH_EINVAL);                                         /* not even 00 */
    expect_error(z, BYTES(0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00), RH_EINVAL); /* BFINAL, no 00 */
    expect_error(z, BYTES(0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65), RH_EINVAL);
    expect_error(z, BYTES(0x00, 0x05, 0x00, 0xfb, 0xff, 0x48), RH_EINVAL); /* LEN is not ~NLEN */
    expect_error(z, BYTES(0x06, 0x00), RH_EINVAL);                         /* reserved block type */
    expect_error(z, BYTES(0x00, 0x00, 0x00, 0xff, 0xff), RH_EINVAL);       /* the tail was sent */
    expect_error(z, BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff),
                 RH_EINVAL);
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t hello[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, (uint8_t)byte};

        expect_error(z, hello, sizeof(hello), RH_EINVAL);
    }
    expect_plain(z, BYTES(0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00), "Hello"); /* fresh again */
    end(NULL, z);
}

/* Goal    a kept window is as large as was agreed on, and 8 bits are taken for 9.
 * Method  a message, one of random bytes in between, and the first again, which a deflater with
 *         15 bits takes from its window; within a message, zlib looks back as far as it goes. */
RH_TEST(deflate_blocks, a_distance_over_the_window_is_damaged)
{
    static uint8_t bytes[40], between[700];

    for (size_t far = 200; far < sizeof(between); far += 10) {
        struct rh_deflater *d = deflater(15, 8, 9, true);
        struct rh_inflater *z = inflater(8, true);

        for (unsigned i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(i * 37);
        for (unsigned i = 0; i < far; i++)
            between[i] = (uint8_t)rh_test_rand() | 1;
        round_trip(d, z, bytes, sizeof(bytes));
        round_trip(d, z, between, far);
        RH_EQ_INT(rh_deflate(d, bytes, sizeof(bytes), &packed), 0);
        RH_OK_IF(packed.len < 10);
        RH_EQ_INT(rh_inflate(z, packed.at, packed.len, sizeof(bytes), &plain),
                  sizeof(bytes) + far <= 512 ? 0 : RH_EINVAL);
        end(d, z);
    }
}

/* ---- round trips ---- */

enum kind { ZEROS, RANDOM, JSON, MIXED, KINDS };

static void fill(uint8_t *at, size_t len, enum kind kind)
{
    static const char json[] = "{\"type\":\"message.send\",\"room\":\"r1\",\"data\":\"hello\"}";
    const uint64_t turn = rh_test_rand();

    for (size_t i = 0; i < len; i++) {
        switch (kind) {
        case ZEROS:
            at[i] = 0;
            break;
        case RANDOM:
            at[i] = (uint8_t)rh_test_rand();
            break;
        case JSON:
            at[i] = (uint8_t)json[(turn + i) % (sizeof(json) - 1)];
            break;
        default:
            at[i] = i / 700 % 2 ? (uint8_t)rh_test_rand() : (uint8_t)json[i % 7];
        }
    }
}

/* Goal    what goes in comes out, with any window, memory, level and mode, message after message.
 * Method  20 messages of random sizes and kinds through one pair of objects for each setting; the
 *         inflater's bound is the exact size. */
RH_TEST(deflate_trip, in_every_setting)
{
    static const unsigned mems[] = {1, 5, 9}, levels[] = {1, 4, 9};
    static uint8_t bytes[70000];

    for (unsigned how = 0; how < 7 * 3 * 3 * 2; how++) {
        const unsigned bits = RH_DEFLATE_BITS_MIN + how / 18;
        const bool keeps = how & 1;
        struct rh_deflater *d = deflater(bits, mems[how / 2 % 3], levels[how / 6 % 3], keeps);
        struct rh_inflater *z = inflater(bits, keeps);

        for (unsigned i = 0; i < 20; i++) {
            const size_t len = rh_test_rand() % (i % 4 ? 300 : i % 8 ? 5000 : sizeof(bytes));

            fill(bytes, len, (enum kind)(rh_test_rand() % KINDS));
            round_trip(d, z, bytes, len);
            if (i == 12) {
                rh_deflate_out_trim(&packed, 100);
                rh_deflate_out_trim(&plain, 100);
            }
        }
        end(d, z);
    }
}

RH_TEST(deflate_trip, of_every_short_length)
{
    static uint8_t bytes[600];
    struct rh_deflater *d = deflater(12, 5, 1, false);
    struct rh_inflater *z = inflater(15, false);

    for (unsigned kind = 0; kind < KINDS; kind++) {
        for (size_t len = 0; len <= sizeof(bytes); len++) {
            fill(bytes, len, (enum kind)kind);
            round_trip(d, z, bytes, len);
        }
    }
    end(d, z);
}

RH_TEST(deflate_trip, of_16_mebibytes)
{
    const size_t len = 16 << 20;
    uint8_t *bytes = malloc(len);
    struct rh_deflater *d = deflater(12, 5, 1, false);
    struct rh_inflater *z = inflater(15, false);

    RH_OK_IF(bytes != NULL);
    fill(bytes, 1 << 20, RANDOM);
    for (size_t at = 1 << 20; at < len; at += 1 << 20)
        memcpy(bytes + at, bytes, 1 << 20);
    round_trip(d, z, bytes, len);
    free(bytes);
    end(d, z);
}

RH_TEST(deflate_context, makes_the_second_message_shorter_where_it_is_kept)
{
    static const char text[] = "a sentence that comes twice, word for word and letter by letter";

    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct rh_deflater *d = deflater(12, 5, 1, keeps);
        size_t first;

        RH_EQ_INT(rh_deflate(d, text, sizeof(text), &packed), 0);
        first = packed.len;
        RH_EQ_INT(rh_deflate(d, text, sizeof(text), &packed), 0);
        RH_OK_IF(keeps ? packed.len < first / 3 : packed.len == first);
        end(d, NULL);
    }
}

/* Goal    without context each message stands for itself: one object serves many connections.
 * Method  a message reads the same from a used deflater, in a used and in a new inflater. */
RH_TEST(deflate_context, without_it_each_message_stands_for_itself)
{
    static const char text[] = "over and over and over and over and over again";
    struct rh_deflater *used = deflater(12, 5, 1, false), *fresh = deflater(12, 5, 1, false);
    struct rh_inflater *z = inflater(12, false);
    struct rh_deflate_out other = {0};

    for (unsigned i = 0; i < 10; i++) {
        uint8_t bytes[3000];

        fill(bytes, sizeof(bytes), (enum kind)(i % KINDS));
        round_trip(used, z, bytes, sizeof(bytes));
        RH_EQ_INT(rh_deflate(used, text, sizeof(text), &packed), 0);
        if (!i)
            RH_EQ_INT(rh_deflate(fresh, text, sizeof(text), &other), 0);
        RH_EQ_U64(packed.len, other.len);
        RH_EQ_MEM(packed.at, other.at, other.len);
    }
    rh_deflate_out_trim(&other, 0);
    rh_deflater_destroy(fresh);
    end(used, z);
}

RH_TEST(deflate_context, a_message_that_is_not_sent_does_not_disturb_the_peer)
{
    static const char text[] = "what was said before, and what comes behind it";
    static const char lost[] = "a message that nobody ever gets to see";
    struct rh_deflater *d = deflater(12, 5, 1, true);
    struct rh_inflater *z = inflater(12, true);

    for (unsigned i = 0; i < 4; i++) {
        round_trip(d, z, (const uint8_t *)text, sizeof(text));
        RH_EQ_INT(rh_deflate(d, lost, sizeof(lost), &packed), 0);
        rh_deflate_unsent(d);
        round_trip(d, z, (const uint8_t *)lost, sizeof(lost));
    }
    end(d, z);
}

/* ---- damage ---- */

/* Goal    a message with its end missing is never taken for whole.
 * Method  each kind of block, cut at every byte. Only in front of a stored block is a cut no cut:
 *         its first byte is how a message ends, and what was before it is a message. */
RH_TEST(deflate_damage, a_message_cut_at_any_byte_is_refused)
{
    static uint8_t bytes[2000];
    struct rh_inflater *z = inflater(15, false);

    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct rh_deflater *d = deflater(12, 5, 6, false);

        fill(bytes, sizeof(bytes), (enum kind)kind);
        RH_EQ_INT(rh_deflate(d, bytes, sizeof(bytes), &packed), 0);
        for (size_t len = 0; len < packed.len; len++) {
            const int rc = rh_inflate(z, rh_guard(packed.at, len), len, sizeof(bytes), &plain);

            if (rc == 0 ? packed.at[len - 1] & 7 || memcmp(plain.at, bytes, plain.len) != 0
                        : rc != RH_EINVAL)
                RH_FAIL("kind %u cut to %zu of %zu bytes: %d", kind, len, packed.len, rc);
            if (rc == 0 && (kind == ZEROS || kind == JSON))
                RH_FAIL("kind %u cut to %zu of %zu bytes is taken", kind, len, packed.len);
        }
        rh_deflater_destroy(d);
    }
    end(NULL, z);
}

RH_TEST(deflate_damage, random_bytes_never_give_more_than_the_bound)
{
    uint8_t junk[200];
    struct rh_inflater *z = inflater(15, false), *keeping = inflater(9, true);

    for (unsigned i = 0; i < 50000; i++) {
        const size_t len = rh_test_rand() % sizeof(junk), max = rh_test_rand() % 300;
        int rc;

        fill(junk, len, RANDOM);
        if (i & 1 && len)
            junk[0] = (uint8_t)(junk[0] & ~7u) | 4; /* a dynamic block */
        rc = rh_inflate(i & 2 ? z : keeping, junk, len, max, &plain);
        if (rc == 0 ? plain.len > max : plain.len || (rc != RH_EINVAL && rc != RH_EFULL))
            RH_FAIL("%zu bytes of junk: %d, %zu bytes", len, rc, plain.len);
        RH_OK_IF(plain.room <= 300);
    }
    end(NULL, z);
    rh_inflater_destroy(keeping);
}

/* ---- the bound ---- */

RH_TEST(deflate_bound, is_met_to_the_byte)
{
    static uint8_t bytes[5000];
    struct rh_deflater *d = deflater(12, 5, 1, false);
    struct rh_inflater *z = inflater(15, false);

    for (unsigned kind = 0; kind < KINDS; kind++) {
        for (size_t len = 1; len <= sizeof(bytes); len += 1 + len / 7) {
            fill(bytes, len, (enum kind)kind);
            RH_EQ_INT(rh_deflate(d, bytes, len, &packed), 0);
            RH_EQ_INT(rh_inflate(z, packed.at, packed.len, len - 1, &plain), RH_EFULL);
            RH_OK_IF(plain.len == 0 && plain.room <= len);
            RH_EQ_INT(rh_inflate(z, packed.at, packed.len, len, &plain), 0);
            RH_OK_IF(plain.len == len && plain.room <= len + 1);
            rh_deflate_out_trim(&plain, 0);
        }
    }
    end(d, z);
}

/* Goal    a bomb costs what the bound allows, not what it claims.
 * Method  one mebibyte of zeros compressed, 1,024 times in a row: 1 GiB in a message of 1 MiB. */
RH_TEST(deflate_bound, stops_a_gibibyte_of_zeros)
{
    static uint8_t zeros[1 << 20];
    struct rh_deflater *d = deflater(15, 9, 9, false);
    struct rh_inflater *z = inflater(15, false);
    uint8_t *bomb, *at;
    size_t one, len;

    RH_EQ_INT(rh_deflate(d, zeros, sizeof(zeros), &packed), 0);
    one = packed.len + 4;
    at = bomb = malloc(1024 * one);
    RH_OK_IF(bomb != NULL);
    for (unsigned i = 0; i < 1024; i++, at += one) {
        memcpy(at, packed.at, packed.len);
        memcpy(at + packed.len, "\0\0\xff\xff", 4);
    }
    len = 1024 * one - 4;
    for (size_t max = 0; max <= 1 << 20; max = max * 16 + 1000) {
        RH_EQ_INT(rh_inflate(z, bomb, len, max, &plain), RH_EFULL);
        RH_OK_IF(plain.room <= max + 1 && rh_inflater_bytes(z) < 50000);
    }
    RH_EQ_INT(rh_inflate(z, bomb, 16 * one - 4, 16 << 20, &plain), 0); /* it is sound */
    RH_EQ_U64(plain.len, 16 << 20);
    free(bomb);
    end(d, z);
}

RH_TEST(deflate_bound, of_nothing_lets_an_empty_message_pass)
{
    struct rh_inflater *z = inflater(15, false);

    RH_EQ_INT(rh_inflate(z, "", 1, 0, &plain), 0);
    RH_OK_IF(plain.len == 0 && plain.room <= 1);
    RH_EQ_INT(rh_inflate(z, "\x4a\x04\x00", 3, 0, &plain), RH_EFULL); /* "a" */
    RH_EQ_INT(rh_inflate(z, "\x4a\x04\x00", 3, 1, &plain), 0);
    end(NULL, z);
}

/* ---- memory ---- */

/* ---- in steps ---- */

/* In steps of any size the result is what it is at once: the message, or the error. */
RH_TEST(deflate_steps, give_what_one_gives)
{
    static uint8_t in[20000];
    struct rh_deflate_out whole = {0}, parts = {0};
    struct rh_inflater *z[2];
    struct rh_deflater *d;

    RH_EQ_INT(rh_deflater_create(15, 8, 6, true, &d), 0);
    RH_EQ_INT(rh_inflater_create(15, true, &z[0]), 0);
    RH_EQ_INT(rh_inflater_create(15, true, &z[1]), 0);
    for (unsigned round = 0; round < 300; round++) {
        const size_t len = rh_test_rand() % 10 ? rh_test_rand() % sizeof(in) : 0;
        size_t at = 0, max = round % 7 ? sizeof(in) : len / 2;
        int rc, want;

        for (size_t i = 0; i < len; i++)
            in[i] = (uint8_t)(rh_test_rand() % 5 ? 'a' : rh_test_rand());
        RH_EQ_INT(rh_deflate(d, in, len, &packed), 0);
        if (round % 5 == 0)
            packed.at[rh_test_rand() % packed.len] ^= 0x24;
        want = rh_inflate(z[0], packed.at, packed.len, max, &whole);
        do {
            size_t before = at, some = 1 + rh_test_rand() % 3000;

            rc = rh_inflate_some(z[1], packed.at, packed.len, some, &at, max, &parts);
            RH_EQ_U64(at, RH_MIN(before + some, packed.len));
            RH_OK_IF(parts.len <= max);
        } while (rc == 1);
        RH_EQ_INT(rc, want);
        RH_EQ_U64(parts.len, whole.len);
        RH_OK_IF(!whole.len || !memcmp(parts.at, whole.at, whole.len));
        if (want < 0)
            rh_deflate_unsent(d);
    }
    rh_deflater_destroy(d);
    rh_inflater_destroy(z[0]);
    rh_inflater_destroy(z[1]);
    rh_deflate_out_trim(&packed, 0);
    rh_deflate_out_trim(&whole, 0);
    rh_deflate_out_trim(&parts, 0);
}

RH_TEST(deflate_memory, is_told)
{
    struct rh_deflater *d = deflater(12, 5, 1, true);
    struct rh_inflater *z = inflater(12, true);
    const size_t before = rh_inflater_bytes(z);

    RH_OK_IF(rh_deflater_bytes(d) > 32 << 10 && rh_deflater_bytes(d) < 48 << 10);
    RH_EQ_INT(rh_inflate(z, "\x4a\x04\x00", 3, 1, &plain), 0);
    RH_OK_IF(before > 4 << 10 && rh_inflater_bytes(z) == before + (4 << 10));
    end(d, z);
}

struct alloc_case {
    bool keeps;
};

/* Every allocation in the lives of both objects; what fails is tried again and must then read well. */
static void live_with_failures(void *arg)
{
    const struct alloc_case *how = arg;
    static const char text[] = "once more, once more, once more and never again";
    uint8_t bytes[3000];
    struct rh_deflater *d = NULL;
    struct rh_inflater *z = NULL;

    memset(bytes, 'x', sizeof(bytes));
    memcpy(bytes, text, sizeof(text));
    if (rh_deflater_create(12, 5, 1, how->keeps, &d) < 0) {
        RH_OK_IF(!d);
        d = deflater(12, 5, 1, how->keeps);
    }
    if (rh_inflater_create(12, how->keeps, &z) < 0) {
        RH_OK_IF(!z);
        z = inflater(12, how->keeps);
    }
    for (size_t len = 0; len < sizeof(bytes); len = len * 2 + 40) {
        int rc = rh_deflate(d, bytes, len, &packed);

        if (rc < 0) {
            RH_OK_IF(rc == RH_ENOMEM && !packed.len);
            RH_EQ_INT(rh_deflate(d, bytes, len, &packed), 0);
        }
        rc = rh_inflate(z, packed.at, packed.len, len, &plain);
        if (rc < 0) {
            RH_OK_IF(rc == RH_ENOMEM && !plain.len);
            if (how->keeps)
                break; /* of no more use */
            RH_EQ_INT(rh_inflate(z, packed.at, packed.len, len, &plain), 0);
        }
        RH_OK_IF(plain.len == len && (!len || !memcmp(plain.at, bytes, len)));
    }
    end(d, z);
}

RH_TEST(deflate_memory, may_fail_at_every_step)
{
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct alloc_case how = {keeps};

        rh_test_fail_each_alloc(live_with_failures, &how);
    }
}
