/* Goal    text is accepted exactly when RFC 8259 says so (and has no lone surrogates), wherever it
 *         ends in memory; what was accepted is walked and unescaped without loss; what is written
 *         is accepted again.
 * Method  tables of texts, copied so that their end touches a page that faults, cut at every
 *         offset; every byte of a text replaced by every other, with jansson as the judge. */
#include "tests/rh_test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/ringhub.h"
#include "proto/json.h"

#define TEXT(literal)                                                                              \
    {                                                                                              \
        (literal), sizeof(literal) - 1                                                             \
    }

static int check_guarded(struct rh_span text)
{
    return rh_json_check((const char *)rh_guard(text.at, text.len), text.len, RH_JSON_DEPTH);
}

static struct rh_json scan(struct rh_span text)
{
    struct rh_json v;
    const char *end = text.at + text.len;

    RH_OK_IF(rh_json_scan(text.at, end, RH_JSON_DEPTH, &v) == end);
    return v;
}

static const struct rh_span valid[] = {
    TEXT("{}"),
    TEXT("[]"),
    TEXT("\"\""),
    TEXT("0"),
    TEXT("-0"),
    TEXT("true"),
    TEXT("false"),
    TEXT("null"),
    TEXT(" \t\r\n{ \t\r\n} \t\r\n"),
    TEXT("[ ]"),
    TEXT("[1 , 2\n,3]"),
    TEXT("[[],[[]],{}]"),
    TEXT("[{\"a\":[{}]},[]]"),
    TEXT("{\"a\":1,\"a\":2}"),
    TEXT("{\"\":0}"),
    TEXT("{\"a\" : { \"b\" :[ null , true ] } , \"c\":-1.5e+10}"),
    TEXT("1"),
    TEXT("-12"),
    TEXT("10"),
    TEXT("0.0"),
    TEXT("0e1"),
    TEXT("0E-1"),
    TEXT("1.25"),
    TEXT("123e65"),
    TEXT("1E+2"),
    TEXT("1e400"),
    TEXT("-1e-400"),
    TEXT("123456789012345678901234567890123456789012345678901234567890"),
    TEXT("0.000000000000000000000000000000000000000000000000000000000001"),
    TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
    TEXT("\"\\u0000\\u001f\\u0020\\uABCD\\uabcd\\uFFFF\""),
    TEXT("\"\\ud83d\\ude00\""),
    TEXT("\"\\uD800\\uDC00\\uDBFF\\uDFFF\""),
    TEXT("\"\x7f\""),
    TEXT("\"\xf0\x9f\x98\x80 \xe2\x82\xac \xc3\xa9\""),
    TEXT("\"\xe2\x80\xa8\xe2\x80\xa9\""),
    TEXT("\"// no comment\""),
    TEXT("\"0123456789abcdef0123456789abcdef0123456789abcdef\""),
    TEXT("[\"0123456789abcde\",\"0123456789abcdef\",\"0123456789abcdefg\"]"),
    TEXT("[true,false,null,\"\",0,{},[]]"),
};

static const struct rh_span invalid[] = {
    TEXT(""),
    TEXT(" "),
    TEXT("\xef\xbb\xbf{}"),
    TEXT("\xef\xbb\xbf"),
    TEXT("{"),
    TEXT("}"),
    TEXT("["),
    TEXT("]"),
    TEXT("\""),
    TEXT("{]"),
    TEXT("[}"),
    TEXT("[1}"),
    TEXT("{\"a\":1]"),
    TEXT("[[]"),
    TEXT("[]]"),
    TEXT("{}}"),
    TEXT("{}{}"),
    TEXT("1 2"),
    TEXT("{},"),
    TEXT(",{}"),
    TEXT("[1,]"),
    TEXT("[,1]"),
    TEXT("[1,,2]"),
    TEXT("[,]"),
    TEXT("[1 2]"),
    TEXT("[1:2]"),
    TEXT("[\"a\":1]"),
    TEXT("{,}"),
    TEXT("{\"a\":1,}"),
    TEXT("{,\"a\":1}"),
    TEXT("{\"a\":1,,\"b\":2}"),
    TEXT("{\"a\"}"),
    TEXT("{\"a\":}"),
    TEXT("{\"a\",1}"),
    TEXT("{\"a\"::1}"),
    TEXT("{\"a\":1 \"b\":2}"),
    TEXT("{a:1}"),
    TEXT("{'a':1}"),
    TEXT("{1:1}"),
    TEXT("{null:1}"),
    TEXT("{[]:1}"),
    TEXT("{:1}"),
    TEXT("{\"a\":1;}"),
    TEXT("01"),
    TEXT("-01"),
    TEXT("00"),
    TEXT("-"),
    TEXT("--1"),
    TEXT("+1"),
    TEXT("- 1"),
    TEXT("1."),
    TEXT(".5"),
    TEXT("-.5"),
    TEXT("1.e1"),
    TEXT("1.5."),
    TEXT("1e"),
    TEXT("1e+"),
    TEXT("1e-"),
    TEXT("1e+-1"),
    TEXT("1e1.5"),
    TEXT("1ee1"),
    TEXT("0x10"),
    TEXT("1a"),
    TEXT("1,000"),
    TEXT("1_000"),
    TEXT("NaN"),
    TEXT("Infinity"),
    TEXT("-Infinity"),
    TEXT("tru"),
    TEXT("truE"),
    TEXT("True"),
    TEXT("truee"),
    TEXT("nul"),
    TEXT("nulll"),
    TEXT("fals"),
    TEXT("undefined"),
    TEXT("'a'"),
    TEXT("\"a"),
    TEXT("a\""),
    TEXT("\"a\"b"),
    TEXT("\"\\\""),
    TEXT("\"\\"),
    TEXT("\"\\a\""),
    TEXT("\"\\'\""),
    TEXT("\"\\0\""),
    TEXT("\"\\x41\""),
    TEXT("\"\\U0041\""),
    TEXT("\"\\ \""),
    TEXT("\"\\\xc3\xa9\""),
    TEXT("\"\\u\""),
    TEXT("\"\\u1\""),
    TEXT("\"\\u12\""),
    TEXT("\"\\u123\""),
    TEXT("\"\\u123g\""),
    TEXT("\"\\u 123\""),
    TEXT("\"\\u+123\""),
    TEXT("\"\\u12\xc1"
         "4\""),
    TEXT("\"\\ud83d\""),
    TEXT("\"\\ude00\""),
    TEXT("\"\\ude00\\ud83d\""),
    TEXT("\"\\ud83d\\ud83d\""),
    TEXT("\"\\ud83d\\u0041\""),
    TEXT("\"\\ud83d\\n\""),
    TEXT("\"\\ud83dxude00\""),
    TEXT("\"\\ud83d \\ude00\""),
    TEXT("\"\\ud83d\\u\""),
    TEXT("\"\\ud83d\\ude0\""),
    TEXT("\"\n\""),
    TEXT("\"\t\""),
    TEXT("\"\0\""),
    TEXT("\"\x1f\""),
    TEXT("{\"a\nb\":1}"),
    TEXT("[1\f]"),
    TEXT("[1\v]"),
    TEXT("[1\xc2\xa0]"),
    TEXT("[\0]"),
    TEXT("[]\0"),
    TEXT("\0"),
    TEXT("// c\n1"),
    TEXT("[1/* c */]"),
    TEXT("# c\n1"),
    TEXT("<null>"),
    TEXT("\xff"),
    TEXT("[\xff]"),
};

RH_TEST(json, valid_texts_are_accepted)
{
    for (size_t i = 0; i < RH_COUNT(valid); i++)
        ck_assert_msg(check_guarded(valid[i]) == 0, "refused: %s", valid[i].at);
}

RH_TEST(json, invalid_texts_are_refused)
{
    for (size_t i = 0; i < RH_COUNT(invalid); i++)
        ck_assert_msg(check_guarded(invalid[i]) == RH_EINVAL, "accepted: %s", invalid[i].at);
}

/* Also inside an array, so that what follows a value is looked at. */
RH_TEST(json, texts_mean_the_same_inside_an_array)
{
    char text[256];

    for (size_t i = 0; i < RH_COUNT(valid); i++) {
        int len = snprintf(text, sizeof(text), "[0,%.*s,0]", (int)valid[i].len, valid[i].at);

        RH_EQ_INT(check_guarded((struct rh_span){text, (uint32_t)len}), 0);
    }
    RH_EQ_INT(check_guarded(RH_SPAN("[0,01]")), RH_EINVAL);
    RH_EQ_INT(check_guarded(RH_SPAN("[0,1.]")), RH_EINVAL);
    RH_EQ_INT(check_guarded(RH_SPAN("[0,-]")), RH_EINVAL);
    RH_EQ_INT(check_guarded(RH_SPAN("[0,]")), RH_EINVAL);
    RH_EQ_INT(check_guarded(RH_SPAN("[0,nul]")), RH_EINVAL);
}

RH_TEST(json, no_text_is_read_beyond_a_cut)
{
    for (size_t i = 0; i < RH_COUNT(valid); i++) {
        struct rh_span text = valid[i];

        while (text.len && strchr(" \t\r\n", text.at[text.len - 1]))
            text.len--;
        char last = text.at[text.len - 1];
        bool closed = last == '}' || last == ']' || last == '"';
        for (uint32_t cut = 0; cut < text.len; cut++) {
            int rc = check_guarded((struct rh_span){text.at, cut});

            ck_assert_msg(!closed || rc == RH_EINVAL, "accepted %u bytes of %s", cut, text.at);
        }
    }
    for (size_t i = 0; i < RH_COUNT(invalid); i++) {
        for (uint32_t cut = 0; cut < invalid[i].len; cut++) {
            int rc = check_guarded((struct rh_span){invalid[i].at, cut});

            RH_OK_IF(rc == 0 || rc == RH_EINVAL);
        }
    }
}

/* Wide steps must find a byte wherever it stands in them. */
RH_TEST(json, every_special_byte_is_seen_at_every_place_of_a_string)
{
    char text[80];

    for (uint32_t len = 1; len < 50; len++) {
        for (uint32_t at = 0; at < len; at++) {
            for (unsigned c = 0; c < 256; c++) {
                struct rh_span span = {text, len + 2};
                bool plain = c >= 0x20 && c != '"' && c != '\\';

                memset(text, 'x', sizeof(text));
                text[0] = text[len + 1] = '"';
                text[1 + at] = (char)c;
                RH_EQ_INT(rh_json_check(span.at, span.len, 0), plain ? 0 : RH_EINVAL);
            }
        }
    }
}

/* depth brackets, all arrays, all objects or taking turns */
static size_t nest(char *text, unsigned depth, const char *kinds)
{
    char *at = text;

    for (unsigned i = 0; i < depth; i++)
        at = stpcpy(at, kinds[i % 2] == '[' ? "[" : i + 1 < depth ? "{\"k\":" : "{");
    for (unsigned i = depth; i-- > 0;)
        at = stpcpy(at, kinds[i % 2] == '[' ? "]" : "}");
    return (size_t)(at - text);
}

RH_TEST(json, sixty_four_containers_deep_is_allowed_and_sixty_five_is_not)
{
    static const char *const kinds[] = {"[[", "{{", "[{", "{["};
    char text[1024];

    for (size_t i = 0; i < RH_COUNT(kinds); i++) {
        RH_EQ_INT(rh_json_check(text, nest(text, 64, kinds[i]), 64), 0);
        RH_EQ_INT(rh_json_check(text, nest(text, 65, kinds[i]), 64), RH_EINVAL);
        RH_EQ_INT(rh_json_check(text, nest(text, 63, kinds[i]), 63), 0);
        RH_EQ_INT(rh_json_check(text, nest(text, 64, kinds[i]), 63), RH_EINVAL);
    }
    RH_EQ_INT(rh_json_check("7", 1, 0), 0);
    RH_EQ_INT(rh_json_check("[]", 2, 0), RH_EINVAL);
    RH_EQ_INT(rh_json_check("[[],[],{\"a\":[]},[]]", 19, 3), 0);
}

RH_TEST(json, a_container_is_closed_by_its_own_bracket_at_every_depth)
{
    char text[1024];

    for (unsigned depth = 1; depth <= 64; depth++) {
        size_t len = nest(text, depth, "[{");

        for (size_t at = len - depth; at < len; at++) {
            char was = text[at];

            text[at] = was == ']' ? '}' : ']';
            RH_EQ_INT(rh_json_check(text, len, 64), RH_EINVAL);
            text[at] = was;
        }
        RH_EQ_INT(rh_json_check(text, len, 64), 0);
    }
}

/* jansson has no opinion (1) on text that is not UTF-8, on names with \u0000 and on big numbers. A
 * zero byte, never valid, it skips behind a number or a word. */
static int judge(const char *text, size_t len)
{
    json_error_t error;

    if (memchr(text, '\0', len))
        return RH_EINVAL;

    json_t *json = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

    if (json) {
        json_decref(json);
        return 0;
    }
    switch (json_error_code(&error)) {
    case json_error_invalid_utf8:
    case json_error_null_byte_in_key:
    case json_error_numeric_overflow:
        return 1;
    default:
        return RH_EINVAL;
    }
}

RH_TEST(json, any_changed_byte_is_judged_as_jansson_does)
{
    static const char sample[] = "{\"a\\u0041\":[1.5e+7,-0,\"\\ud83d\\ude00\\n\",{}],\"b\":null ,"
                                 "\"c\":[true, false],\"d\":0.25}";
    char text[sizeof(sample)];
    unsigned accepted = 0;

    for (size_t at = 0; at < sizeof(sample) - 1; at++) {
        for (unsigned c = 0; c < 256; c++) {
            memcpy(text, sample, sizeof(sample));
            text[at] = (char)c;
            int verdict = judge(text, sizeof(sample) - 1);
            int ours = rh_json_check(text, sizeof(sample) - 1, 64);

            ck_assert_msg(verdict == 1 || ours == verdict, "we say %d: %s", ours, text);
            accepted += ours == 0;
        }
    }
    RH_OK_IF(accepted > 1000); /* the test saw both kinds */
}

RH_TEST(json, a_scan_stops_behind_its_value_and_names_its_kind)
{
    static const struct {
        const char *text;
        const char *raw;
        enum rh_json_kind kind;
    } rows[] = {
        {"{\"a\":[1]} ,", "{\"a\":[1]}", RH_JSON_OBJECT},
        {"[1, 2]]", "[1, 2]", RH_JSON_ARRAY},
        {"\"x\\\"\":", "\"x\\\"\"", RH_JSON_STRING},
        {"-1.5e3}", "-1.5e3", RH_JSON_NUMBER},
        {"true]", "true", RH_JSON_TRUE},
        {"false ", "false", RH_JSON_FALSE},
        {"null", "null", RH_JSON_NULL},
    };

    for (size_t i = 0; i < RH_COUNT(rows); i++) {
        const char *text = rows[i].text;
        struct rh_json v;
        const char *behind = rh_json_scan(text, text + strlen(text), RH_JSON_DEPTH, &v);

        RH_OK_IF(behind == text + strlen(rows[i].raw));
        RH_OK_IF(v.raw.at == text && v.raw.len == strlen(rows[i].raw));
        RH_EQ_INT(v.kind, rows[i].kind);
    }
}

RH_TEST(json, a_walk_over_an_object_lists_its_members_in_order)
{
    struct rh_json object =
        scan(RH_SPAN("{ \"a\" : 1 ,\n\"b\":{\"x\":[1,2]}, \"\\u0061\":\"q\" , \"\":null }"));
    char log[200] = "";
    struct rh_json_iter it;
    struct rh_span key;
    struct rh_json v;

    rh_json_members(&it, object);
    while (rh_json_next_member(&it, &key, &v))
        sprintf(log + strlen(log), "%.*s=%.*s/%d ", (int)key.len, key.at, (int)v.raw.len, v.raw.at,
                v.kind);
    RH_EQ_STR(log, "\"a\"=1/4 \"b\"={\"x\":[1,2]}/1 \"\\u0061\"=\"q\"/3 \"\"=null/7 ");

    rh_json_members(&it, scan(RH_SPAN("{ }")));
    RH_OK_IF(!rh_json_next_member(&it, &key, &v));
}

RH_TEST(json, a_walk_over_an_array_lists_its_elements_in_order)
{
    char log[200] = "";
    struct rh_json_iter it;
    struct rh_json v;

    rh_json_elements(&it, scan(RH_SPAN("[ [] ,{\"a\":[1]},\"]\",  true,-1 ]")));
    while (rh_json_next_element(&it, &v))
        sprintf(log + strlen(log), "%.*s/%d ", (int)v.raw.len, v.raw.at, v.kind);
    RH_EQ_STR(log, "[]/2 {\"a\":[1]}/1 \"]\"/3 true/5 -1/4 ");

    rh_json_elements(&it, scan(RH_SPAN("[\n]")));
    RH_OK_IF(!rh_json_next_element(&it, &v));
}

RH_TEST(json, a_value_at_the_greatest_depth_can_be_walked)
{
    char text[1024];
    struct rh_json v = scan((struct rh_span){text, (uint32_t)nest(text, 64, "[{")});
    unsigned depth = 0;
    bool more = true;

    while (more) {
        struct rh_json_iter it;
        struct rh_span key;

        depth++;
        if (v.kind == RH_JSON_ARRAY) {
            rh_json_elements(&it, v);
            more = rh_json_next_element(&it, &v);
        } else {
            rh_json_members(&it, v);
            more = rh_json_next_member(&it, &key, &v);
        }
    }
    RH_EQ_INT(depth, 64);
}

static const struct {
    struct rh_span raw;
    struct rh_span plain;
} strings[] = {
    {TEXT("\"\""), TEXT("")},
    {TEXT("\"a\""), TEXT("a")},
    {TEXT("\"\\u0074ype\""), TEXT("type")},
    {TEXT("\"typ\\u0065\""), TEXT("type")},
    {TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), TEXT("\"\\/\b\f\n\r\t")},
    {TEXT("\"\\u0000\\u007f\\u0080\\u07ff\\u0800\""), TEXT("\0\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80")},
    {TEXT("\"\\uD7FF\\ue000\\uffff\""), TEXT("\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf")},
    {TEXT("\"\\ud83d\\ude00\""), TEXT("\xf0\x9f\x98\x80")},
    {TEXT("\"\\ud800\\udc00\""), TEXT("\xf0\x90\x80\x80")},
    {TEXT("\"\\uDBFF\\uDFFF\""), TEXT("\xf4\x8f\xbf\xbf")},
    {TEXT("\"a\\u00e9b\xc3\xa9\\\\c\""), TEXT("a\xc3\xa9"
                                              "b\xc3\xa9\\c")},
    {TEXT("\"0123456789abcdef\\n0123456789abcdef\""), TEXT("0123456789abcdef\n0123456789abcdef")},
};

RH_TEST(json, a_string_is_unescaped_into_just_enough_room_and_into_no_less)
{
    for (size_t i = 0; i < RH_COUNT(strings); i++) {
        struct rh_span plain = strings[i].plain;
        char *dst = (char *)rh_guard(NULL, plain.len);

        RH_EQ_U64(rh_json_str_len(strings[i].raw), plain.len);
        RH_EQ_INT(rh_json_str_decode(dst, plain.len, strings[i].raw), (int)plain.len);
        RH_EQ_MEM(dst, plain.at, plain.len);
        for (size_t room = 0; room < plain.len; room++)
            RH_EQ_INT(rh_json_str_decode((char *)rh_guard(NULL, room), room, strings[i].raw), -1);
    }
}

RH_TEST(json, a_string_equals_what_it_says_and_nothing_else)
{
    for (size_t i = 0; i < RH_COUNT(strings); i++) {
        for (size_t k = 0; k < RH_COUNT(strings); k++) {
            struct rh_span plain = strings[k].plain;
            bool same = rh_span_eq(strings[i].plain, plain);

            RH_EQ_INT(rh_json_str_eq(strings[i].raw, plain.at, plain.len), same);
        }
    }
    RH_OK_IF(!rh_json_str_eq(RH_SPAN("\"\\n\""), "\\n", 2)); /* the raw bytes are not the meaning */
    RH_OK_IF(!rh_json_str_eq(RH_SPAN("\"a\\n\""), "a", 1));
    RH_OK_IF(!rh_json_str_eq(RH_SPAN("\"a\\n\""), "a\nb", 3));
    RH_OK_IF(!rh_json_str_eq(RH_SPAN("\"abc\""), "ab", 2));
    RH_OK_IF(!rh_json_str_eq(RH_SPAN("\"ab\""), "abc", 3));
    RH_OK_IF(!rh_json_str_eq(RH_SPAN("\"\\u0061bc\""), "abd", 3));
}

RH_TEST(json, whole_numbers_are_read_within_their_bounds)
{
    uint64_t n = 0;

    RH_OK_IF(rh_json_u64(scan(RH_SPAN("0")), 0, 10, &n) && n == 0);
    RH_OK_IF(rh_json_u64(scan(RH_SPAN("10")), 0, 10, &n) && n == 10);
    RH_OK_IF(rh_json_u64(scan(RH_SPAN("18446744073709551615")), 0, UINT64_MAX, &n));
    RH_OK_IF(n == UINT64_MAX);

    n = 77;
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("11")), 0, 10, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("4")), 5, 10, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("18446744073709551616")), 0, UINT64_MAX, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("99999999999999999999999")), 0, UINT64_MAX, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("-1")), 0, UINT64_MAX, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("-0")), 0, UINT64_MAX, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("1.0")), 0, UINT64_MAX, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("1e1")), 0, UINT64_MAX, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("\"1\"")), 0, UINT64_MAX, &n));
    RH_OK_IF(!rh_json_u64(scan(RH_SPAN("true")), 0, UINT64_MAX, &n));
    RH_EQ_U64(n, 77);
}

RH_TEST(json, only_what_must_be_escaped_is_escaped)
{
    static const struct rh_span plain = TEXT("a\"b\\c/\b\f\n\r\t\0\x01\x1f\x7f\xf0\x9f\x98\x80");
    static const char want[] =
        "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0000\\u0001\\u001f\x7f\xf0\x9f\x98\x80\"";
    size_t len = sizeof(want) - 1;
    char *dst = (char *)rh_guard(NULL, len);

    RH_EQ_INT(rh_json_escape(dst, len, plain), (int)len);
    RH_EQ_MEM(dst, want, len);
    for (size_t room = 0; room < len; room++)
        RH_EQ_INT(rh_json_escape((char *)rh_guard(NULL, room), room, plain), -1);
    RH_EQ_INT(rh_json_escape(dst, 2, (struct rh_span){NULL, 0}), 2);
    RH_EQ_MEM(dst, "\"\"", 2);
}

RH_TEST(json, every_byte_comes_back_from_escaping_and_unescaping)
{
    char plain[60];
    char raw[RH_JSON_ESCAPED_MAX(sizeof(plain))];
    char back[sizeof(plain)];

    for (unsigned c = 0; c < 256; c++) {
        for (size_t len = 0; len < sizeof(plain); len++) {
            memset(plain, len % 2 ? (int)c : 'x', sizeof(plain));
            plain[len / 2] = (char)c;
            int n = rh_json_escape(raw, sizeof(raw), (struct rh_span){plain, (uint32_t)len});

            RH_OK_IF(n >= 2);
            struct rh_span span = {raw, (uint32_t)n};
            RH_EQ_INT(rh_json_check(raw, span.len, 0), 0);
            RH_EQ_INT(rh_json_str_decode(back, sizeof(back), span), (int)len);
            RH_EQ_MEM(back, plain, len);
        }
    }
}

static void write_all(struct rh_writer *w)
{
    RH_PUT(w, "{\"n\":");
    rh_put_u64(w, 0);
    RH_PUT(w, ",\"m\":");
    rh_put_u64(w, UINT64_MAX);
    RH_PUT(w, ",\"s\":");
    rh_put_str(w, RH_SPAN("a\n\"b\""));
    rh_put(w, NULL, 0);
    RH_PUT(w, "}");
}

RH_TEST(json, a_writer_stops_for_good_at_the_first_thing_that_does_not_fit)
{
    static const char want[] = "{\"n\":0,\"m\":18446744073709551615,\"s\":\"a\\n\\\"b\\\"\"}";
    static const size_t ends[] = {0, 5, 6, 11, 31, 36, 46, 47}; /* whole puts */
    struct rh_writer w;

    RH_EQ_U64(sizeof(want) - 1, ends[RH_COUNT(ends) - 1]);
    for (size_t room = 0; room < sizeof(want); room++) {
        char *mem = (char *)rh_guard(NULL, room);
        size_t fits = 0;

        for (size_t i = 0; i < RH_COUNT(ends); i++)
            fits = ends[i] <= room ? ends[i] : fits;
        rh_writer_init(&w, mem, room);
        write_all(&w);
        RH_EQ_INT(w.full, room < sizeof(want) - 1);
        RH_EQ_U64(rh_writer_len(&w), fits);
        RH_EQ_MEM(mem, want, fits);
        rh_put(&w, "x", 1); /* would fit in what is left */
        RH_EQ_U64(rh_writer_len(&w), fits);
    }
}
