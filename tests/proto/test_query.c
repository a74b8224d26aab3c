/* tests/proto/test_query.c - queries are walked, found and decoded as PROTOCOL.md section 2 says;
 * every input ends at a guard page. */
#include "tests/rh_test.h"

#include <stdio.h>

#include "proto/query.h"

static struct rh_span guarded(const char *text)
{
    return (struct rh_span){(const char *)rh_guard(text, strlen(text)), (uint32_t)strlen(text)};
}

/* "a=1&b" as "a(1)b()". */
static void expect_walk(const char *query, const char *want)
{
    struct rh_span rest = guarded(query), name, value;
    char got[256] = "";
    size_t n = 0;

    while (rh_query_next(&rest, &name, &value))
        n += (size_t)snprintf(got + n, sizeof(got) - n, "%.*s(%.*s)", (int)name.len, name.at,
                              (int)value.len, value.at);
    RH_EQ_STR(got, want);
    RH_OK_IF(!rh_query_next(&rest, &name, &value));
}

RH_TEST(query, a_walk_sees_every_parameter_undecoded)
{
    expect_walk("", "");
    expect_walk("&", "");
    expect_walk("&&&", "");
    expect_walk("a", "a()");
    expect_walk("a=", "a()");
    expect_walk("=", "()");
    expect_walk("=1", "(1)");
    expect_walk("a=1&b=2", "a(1)b(2)");
    expect_walk("&a=1&&b=%20+&", "a(1)b(%20+)");
    expect_walk("a=b=c&=&d", "a(b=c)()d()");
    expect_walk("a;b=1;c=2", "a;b(1;c=2)");
}

RH_TEST(query, a_query_that_is_not_there_has_no_parameters)
{
    struct rh_span rest = {NULL, 0}, name, value;
    bool more;

    RH_OK_IF(!rh_query_next(&rest, &name, &value));
    RH_OK_IF(!rh_query_find(rest, "a", &value, &more));
    RH_OK_IF(!more);
}

static void expect_find(const char *query, const char *name, const char *want, bool want_more)
{
    struct rh_span value;
    bool more = !want_more;
    bool found = rh_query_find(guarded(query), name, &value, &more);

    RH_EQ_INT(found, want != NULL);
    RH_EQ_INT(more, want_more);
    if (want)
        RH_OK_IF(value.len == strlen(want) && memcmp(value.at, want, value.len) == 0);
}

RH_TEST(query, a_parameter_is_found_by_its_decoded_name)
{
    expect_find("user_id=ann", "user_id", "ann", false);
    expect_find("a=1&us%65r%5fid=a%20n", "user_id", "a%20n", false);
    expect_find("user_id", "user_id", "", false);
    expect_find("user_idx=1&user_i=2&xuser_id=3&User_id=4", "user_id", NULL, false);
    expect_find("a+b=1", "a b", NULL, false);
    expect_find("a+b=1", "a+b", "1", false);
    expect_find("a%00=1", "a", NULL, false);
    expect_find("a%=1&a%4=2&a%zz=3", "a", NULL, false);
    expect_find("a%=1&a=4", "a", "4", false);
    expect_find("=1", "", "1", false);
    expect_find("%c3%A9=1", "\xc3\xa9", "1", false);
}

RH_TEST(query, a_second_one_of_the_same_name_is_told)
{
    expect_find("a=1&b=2&a=3", "a", "1", true);
    expect_find("a=1&%61=1", "a", "1", true);
    expect_find("a&a", "a", "", true);
    expect_find("a=1&a%20=2", "a", "1", false);
}

static void expect_decoded(const char *in, const char *want, int len)
{
    for (int room = 0; room <= (int)strlen(in) + 1; room++) {
        uint8_t *dst = rh_guard(NULL, (size_t)room);
        int got = rh_percent_decode((char *)dst, (size_t)room, guarded(in));

        RH_EQ_INT(got, len >= 0 && len <= room ? len : -1);
        if (got > 0)
            RH_EQ_MEM(dst, want, (size_t)got);
    }
}

RH_TEST(query, escapes_are_decoded_and_a_plus_stays_a_plus)
{
    expect_decoded("", "", 0);
    expect_decoded("abc", "abc", 3);
    expect_decoded("a+b", "a+b", 3);
    expect_decoded("%41%7a%2F%2f", "Az//", 4);
    expect_decoded("%00%ff%C3%a9", "\0\xff\xc3\xa9", 4);
    expect_decoded("%2541", "%41", 3);
}

RH_TEST(query, broken_escapes_are_refused)
{
    static const char *const bad[] = {"%",   "a%",  "%4",  "%%41",  "%4g",    "%g4",
                                      "%-1", "%+1", "% 1", "abc%e", "%u0041", "%4\xc3"};

    for (size_t i = 0; i < RH_COUNT(bad); i++)
        expect_decoded(bad[i], "", -1);
}

RH_TEST(query, decoding_may_be_done_in_place)
{
    char text[] = "%41b%43";

    RH_EQ_INT(rh_percent_decode(text, sizeof(text), (struct rh_span){text, 7}), 3);
    RH_EQ_MEM(text, "AbC", 3);
}

static bool name_ok(const char *at, size_t len)
{
    return rh_name_ok((const char *)rh_guard(at, len), len);
}

RH_TEST(query, names_are_1_to_128_bytes_of_utf8_without_control_characters)
{
    static const char *const good[] = {"a",
                                       "A b/c?%#",
                                       "\xc3\xa9",
                                       "\xc2\xa0",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "anon-1",
                                       " ",
                                       "\xe0\xa0\x80\xc2\xa1"};
    static const char *const bad[] = {"",
                                      "\x1f",
                                      "a\n",
                                      "\t",
                                      "a\x7f",
                                      "\xc2\x80",
                                      "a\xc2\x9f",
                                      "\xc2",
                                      "\xff",
                                      "\xc0\x80",
                                      "\xed\xa0\x80",
                                      "\x80",
                                      "a\xc2\x85"
                                      "b",
                                      "\xf4\x90\x80\x80"};
    char long_name[RH_NAME_MAX + 1];

    for (size_t i = 0; i < RH_COUNT(good); i++)
        RH_OK_IF(name_ok(good[i], strlen(good[i])));
    for (size_t i = 0; i < RH_COUNT(bad); i++)
        RH_OK_IF(!name_ok(bad[i], strlen(bad[i])));
    RH_OK_IF(!name_ok("a\0b", 3));
    memset(long_name, 'n', sizeof(long_name));
    RH_OK_IF(name_ok(long_name, RH_NAME_MAX));
    RH_OK_IF(!name_ok(long_name, RH_NAME_MAX + 1));
}

/* Goal    exactly the code points below U+0020 and from U+007F to U+009F are refused.
 * Method  all of the first 2048, encoded here. */
RH_TEST(query, of_the_first_2048_code_points_only_controls_are_refused)
{
    uint8_t *at = rh_guard(NULL, 2);

    for (unsigned point = 0; point < 0x800; point++) {
        unsigned len = point < 0x80 ? 1 : 2;

        at[0] = (uint8_t)(0xc0 | point >> 6);
        at[1] = (uint8_t)(len == 1 ? point : 0x80 | (point & 0x3f));
        RH_EQ_INT(rh_name_ok((const char *)at + 2 - len, len),
                  point >= 0x20 && !(point >= 0x7f && point < 0xa0));
    }
}

/* ---- rooms=a,b@12@EPOCH ---- */

/* The list as "a b@12@e !": an exclamation mark where it is malformed. */
static void expect_wishes(const char *list, const char *want)
{
    struct rh_span rest = guarded(list);
    struct rh_wish w;
    char got[512] = "";
    size_t n = 0;
    int rc;

    while ((rc = rh_wish_next(&rest, &w)) > 0) {
        n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%.*s", n ? " " : "", w.len, w.name);
        if (w.has_since)
            n += (size_t)snprintf(got + n, sizeof(got) - n, "@%llu", (unsigned long long)w.since);
        if (w.has_epoch)
            n += (size_t)snprintf(got + n, sizeof(got) - n, "@@%.*s", (int)w.epoch.len, w.epoch.at);
    }
    if (rc < 0)
        snprintf(got + n, sizeof(got) - n, "!");
    RH_EQ_STR(got, want);
}

RH_TEST(wish, a_list_is_split_before_it_is_decoded)
{
    expect_wishes("a", "a");
    expect_wishes("a,b,c", "a b c");
    expect_wishes("a@12@e-E_9,b@0", "a@12@@e-E_9 b@0");
    expect_wishes("b@@EPOCH", "b@@EPOCH");
    expect_wishes("a%2Cb,c%40d@3,e+f", "a,b c@d@3 e+f");
    expect_wishes("r%C3%A4ume@9007199254740991", "r\xc3\xa4ume@9007199254740991");
    expect_wishes("a@", "a"); /* no since, after all */
}

RH_TEST(wish, what_is_malformed_is_refused)
{
    expect_wishes("", "!");
    expect_wishes(",", "!");
    expect_wishes("a,", "a!");
    expect_wishes("a,,b", "a!");
    expect_wishes("@1", "!");
    expect_wishes("a@x", "!");
    expect_wishes("a@-1", "!");
    expect_wishes("a@01", "!");
    expect_wishes("a@1.0", "!");
    expect_wishes("a@9007199254740992", "!");
    expect_wishes("a@99999999999999999999999", "!");
    expect_wishes("a@1@", "!");
    expect_wishes("a@1@e@f", "!");
    expect_wishes("a@1@e%20", "!");
    expect_wishes("a@1@0123456789012345678901234567890123", "!");
    expect_wishes("%zz", "!");
    expect_wishes("a%0A", "!");
    expect_wishes("%ff", "!");
}
