/* Goal    exactly the texts that RFC 3629 allows are accepted, however they are cut, and a broken
 *         one fails at the first byte that makes it certain.
 * Method  a decoder that follows the RFC's table line by line is the judge: over every code point,
 *         over all sequences of bytes at the edges of the table, and at every place in longer
 *         texts that end at a guard page. */
#include "proto/utf8.h"

#include <stdlib.h>

#include "core/base.h"
#include "tests/rh_test.h"

/* RFC 3629, section 4: ranges of the bytes of one character. */
static const struct {
    uint8_t len;
    uint8_t range[4][2];
} forms[] = {
    {1, {{0x00, 0x7f}}},
    {2, {{0xc2, 0xdf}, {0x80, 0xbf}}},
    {3, {{0xe0, 0xe0}, {0xa0, 0xbf}, {0x80, 0xbf}}},
    {3, {{0xe1, 0xec}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {3, {{0xed, 0xed}, {0x80, 0x9f}, {0x80, 0xbf}}},
    {3, {{0xee, 0xef}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf0, 0xf0}, {0x90, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf1, 0xf3}, {0x80, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf4, 0xf4}, {0x80, 0x8f}, {0x80, 0xbf}, {0x80, 0xbf}}},
};

/* How many bytes of the form `at` begins with; *whole: the form is complete. */
static size_t form_match(unsigned form, const uint8_t *at, size_t len, bool *whole)
{
    size_t i = 0;

    while (i < len && i < forms[form].len && at[i] >= forms[form].range[i][0] &&
           at[i] <= forms[form].range[i][1])
        i++;
    *whole = i == forms[form].len;
    return i;
}

/* How many bytes may be read before the text is surely broken; *done: it ends in no character. */
static size_t judge(const uint8_t *at, size_t len, bool *done)
{
    size_t good = 0;

    for (;;) {
        size_t best = 0;
        bool whole = false;

        for (unsigned form = 0; form < RH_COUNT(forms) && !whole; form++) {
            size_t match = form_match(form, at + good, len - good, &whole);

            best = RH_MAX(best, match);
        }
        *done = good == len;
        good += best;
        if (!whole)
            return good;
    }
}

/* Two pieces give what the judge says of each. */
static bool cut_agrees(const uint8_t *at, size_t len, size_t cut, size_t good, bool done)
{
    struct rh_utf8 u = {0};

    return rh_utf8_feed(&u, at, cut) == (cut <= good) &&
           rh_utf8_feed(&u, at + cut, len - cut) == (good == len) && rh_utf8_done(&u) == done;
}

/* The text whole, byte by byte, and cut everywhere must agree with the judge. (Check's own
 * assertions cost a write each: too dear in here.) */
static void check(const uint8_t *at, size_t len)
{
    bool done;
    const size_t good = judge(at, len, &done);
    struct rh_utf8 u = {0};

    if (rh_utf8_valid(at, len) != done)
        RH_FAIL("%zu bytes from %02x", len, at[0]);
    for (size_t i = 0; i < len; i++)
        if (rh_utf8_feed(&u, at + i, 1) != (i < good))
            RH_FAIL("byte %zu of %zu", i, len);
    for (size_t cut = 0; cut <= len; cut++)
        if (!cut_agrees(at, len, cut, good, done))
            RH_FAIL("%zu bytes cut after %zu", len, cut);
}

/* The character of a code point, by arithmetic that knows nothing of what is allowed. */
static size_t encode(uint32_t point, uint8_t *at)
{
    if (point < 0x80) {
        at[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        at[0] = (uint8_t)(0xc0 | point >> 6);
        at[1] = 0x80 | (point & 0x3f);
        return 2;
    }
    if (point < 0x10000) {
        at[0] = (uint8_t)(0xe0 | point >> 12);
        at[1] = 0x80 | (point >> 6 & 0x3f);
        at[2] = 0x80 | (point & 0x3f);
        return 3;
    }
    at[0] = (uint8_t)(0xf0 | point >> 18);
    at[1] = 0x80 | (point >> 12 & 0x3f);
    at[2] = 0x80 | (point >> 6 & 0x3f);
    at[3] = 0x80 | (point & 0x3f);
    return 4;
}

RH_TEST(utf8, every_code_point_is_valid_but_surrogates_and_those_past_10ffff)
{
    for (uint32_t point = 0; point < 0x1fffff; point++) {
        const bool want = point <= 0x10ffff && !(point >= 0xd800 && point <= 0xdfff);
        uint8_t at[4];
        const size_t len = encode(point, at);

        if (rh_utf8_valid(at, len) != want)
            RH_FAIL("U+%04X", point);
    }
}

RH_TEST(utf8, no_character_may_be_cut_short_at_the_end_of_the_text)
{
    for (uint32_t point = 0x80; point <= 0x10ffff; point += 0x33) {
        uint8_t at[4];
        const size_t len = encode(point, at);

        for (size_t cut = 1; cut < len; cut++)
            if (rh_utf8_valid(at, cut))
                RH_FAIL("U+%04X cut after %zu", point, cut);
    }
}

RH_TEST(utf8, overlong_forms_are_invalid)
{
    for (uint32_t point = 0; point < 0x10000; point++) {
        const uint8_t two[] = {(uint8_t)(0xc0 | point >> 6), 0x80 | (point & 0x3f)};
        const uint8_t three[] = {(uint8_t)(0xe0 | point >> 12), 0x80 | (point >> 6 & 0x3f),
                                 0x80 | (point & 0x3f)};
        const uint8_t four[] = {0xf0, (uint8_t)(0x80 | point >> 12), 0x80 | (point >> 6 & 0x3f),
                                0x80 | (point & 0x3f)};

        if ((point < 0x80 && rh_utf8_valid(two, 2)) || (point < 0x800 && rh_utf8_valid(three, 3)) ||
            rh_utf8_valid(four, 4))
            RH_FAIL("U+%04X", point);
    }
}

/* Four bytes out of all that stand at an edge of the RFC's table: 24^4 sequences. */
RH_TEST(utf8, sequences_of_edge_bytes_are_judged_as_the_rfc_says)
{
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                    0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
                                    0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    const unsigned n = RH_COUNT(edges);

    for (unsigned i = 0; i < n * n * n * n; i++) {
        const uint8_t at[] = {edges[i % n], edges[i / n % n], edges[i / n / n % n],
                              edges[i / n / n / n]};
        struct rh_utf8 u = {0};
        bool done;
        const size_t good = judge(at, sizeof(at), &done);

        if (rh_utf8_valid(at, sizeof(at)) != done)
            RH_FAIL("%02x %02x %02x %02x", at[0], at[1], at[2], at[3]);
        for (size_t k = 0; k < sizeof(at); k++)
            if (rh_utf8_feed(&u, at + k, 1) != (k < good))
                RH_FAIL("%02x %02x %02x %02x: byte %zu", at[0], at[1], at[2], at[3], k);
    }
}

/* Each of these at every place of an ASCII text, so in and across all blocks. */
RH_TEST(utf8, a_character_is_found_at_every_place_among_ascii)
{
    static const char *const words[] = {
        "\xc2\x80",
        "\xdf\xbf",
        "\xe0\xa0\x80",
        "\xed\x9f\xbf",
        "\xee\x80\x80",
        "\xef\xbf\xbd",
        "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf",
        "\x80",
        "\xbf",
        "\xc0\xaf",
        "\xc2",
        "\xe0\x80\xaf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xe1\x80",
        "\xf0\x80\x80\xaf",
        "\xf4\x90\x80\x80",
        "\xf0\x9f\x98",
        "\xf5",
        "\xf8\x88\x80\x80",
        "\xfc",
        "\xfe",
        "\xff",
    };
    enum { ROOM = 80 };
    uint8_t *end = rh_guard(NULL, ROOM) + ROOM;

    for (unsigned w = 0; w < RH_COUNT(words); w++)
        for (size_t len = strlen(words[w]); len < ROOM; len += 7)
            for (size_t place = 0; place + strlen(words[w]) <= len; place++) {
                memset(end - len, 'a', len);
                memcpy(end - len + place, words[w], strlen(words[w]));
                check(end - len, len);
            }
}

RH_TEST(utf8, random_texts_with_one_wrong_byte_are_judged_as_the_rfc_says)
{
    enum { ROOM = 128 };
    uint8_t *end = rh_guard(NULL, ROOM) + ROOM;

    for (int run = 0; run < 4000; run++) {
        uint8_t text[ROOM + 4];
        size_t len = 0;
        const size_t want = rh_test_rand() % ROOM;

        while (len < want) {
            static const uint32_t scripts[] = {0x80, 0x800, 0x10000, 0x110000};
            uint32_t point = (uint32_t)rh_test_rand() % scripts[rh_test_rand() % 4];

            if (point < 0xd800 || point > 0xdfff)
                len += encode(point, text + len);
        }
        len = RH_MIN(len, ROOM);
        if (len && run % 2)
            text[rh_test_rand() % len] = (uint8_t)rh_test_rand();
        memcpy(end - len, text, len);
        check(end - len, len);
    }
}

RH_TEST(utf8, an_empty_text_is_valid_and_an_empty_piece_changes_nothing)
{
    struct rh_utf8 u = {0};

    RH_OK_IF(rh_utf8_valid("", 0));
    RH_OK_IF(rh_utf8_feed(&u, "\xe2\x82", 2));
    RH_OK_IF(rh_utf8_feed(&u, "", 0));
    RH_OK_IF(!rh_utf8_done(&u));
    RH_OK_IF(rh_utf8_feed(&u, "\xac", 1));
    RH_OK_IF(rh_utf8_done(&u));
}

RH_TEST(utf8, what_is_broken_stays_broken)
{
    struct rh_utf8 u = {0};

    RH_OK_IF(!rh_utf8_feed(&u, "\xff", 1));
    RH_OK_IF(!rh_utf8_feed(&u, "a", 1));
    RH_OK_IF(!rh_utf8_feed(&u, "a text of more than sixteen bytes", 33));
    RH_OK_IF(!rh_utf8_done(&u));
}
