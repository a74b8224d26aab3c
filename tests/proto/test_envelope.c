/* Goal    a client's message is accepted, picked apart and refused exactly as PROTOCOL.md section 3
 *         says, and so are the members of data in requests that the server answers itself.
 * Method  tables of messages, put where their end touches a page that faults; hostile data is
 *         generated; memory fails where any is asked for. */
#include "tests/rh_test.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/mem.h"
#include "core/ringhub.h"
#include "proto/envelope.h"

static int parse(const char *text, struct rh_envelope *env, const char **why)
{
    size_t len = strlen(text);

    *why = "untouched";
    return rh_envelope_parse((const char *)rh_guard(text, len), len, env, why);
}

static bool is_invalid(const char *text)
{
    struct rh_envelope env;
    const char *why;

    return parse(text, &env, &why) == RH_EINVAL && strcmp(why, "untouched") != 0;
}

static bool is_valid(const char *text)
{
    struct rh_envelope env;
    const char *why;

    return parse(text, &env, &why) == 0;
}

static bool span_is(struct rh_span span, const char *text)
{
    return span.len == strlen(text) && !memcmp(span.at, text, span.len);
}

/* ---- the envelope -------------------------------------------------------------------------- */

RH_TEST(envelope, a_request_is_picked_apart)
{
    struct rh_envelope env;
    const char *why;

    RH_EQ_INT(parse("{\"type\":\"request\",\"event\":\"message.send\",\"request_id\":\"42\","
                    "\"data\":{\"to\":\"bob\", \"content\":[1, 2]}}",
                    &env, &why),
              0);
    RH_EQ_INT(env.type, RH_ENV_REQUEST);
    RH_OK_IF(span_is(env.event, "message.send"));
    RH_OK_IF(span_is(env.request_id, "\"42\""));
    RH_EQ_INT(env.data.kind, RH_JSON_OBJECT);
    RH_OK_IF(span_is(env.data.raw, "{\"to\":\"bob\", \"content\":[1, 2]}"));
}

RH_TEST(envelope, an_acknowledgement_needs_no_event)
{
    struct rh_envelope env;
    const char *why;

    RH_EQ_INT(parse("{\"type\":\"ack\",\"data\":{\"id\":\"m1\"}}", &env, &why), 0);
    RH_EQ_INT(env.type, RH_ENV_ACK);
    RH_EQ_INT(env.event.len, 0);
    RH_EQ_INT(env.request_id.len, 0);
    RH_OK_IF(span_is(env.data.raw, "{\"id\":\"m1\"}"));
    RH_OK_IF(is_valid("{\"type\":\"ack\"}"));
    RH_OK_IF(is_valid("{\"type\":\"ack\",\"event\":5}"));
}

RH_TEST(envelope, what_is_not_there_is_none)
{
    struct rh_envelope env;
    const char *why;

    memset(&env, 0xa5, sizeof(env));
    RH_EQ_INT(parse(" {\"type\":\"request\",\"event\":\"ping\"}\r\n", &env, &why), 0);
    RH_EQ_INT(env.request_id.len, 0);
    RH_EQ_INT(env.data.kind, RH_JSON_NONE);

    RH_EQ_INT(parse("{\"data\":null,\"event\":\"ping\",\"type\":\"request\"}", &env, &why), 0);
    RH_EQ_INT(env.data.kind, RH_JSON_NULL);
}

RH_TEST(envelope, data_of_any_kind_is_handed_on_byte_for_byte)
{
    static const char *const datas[] = {
        "null", "true", "-1.50e+01", "\"a\\u0062\\/\"", "[ 1 ,2 ]", "{ \"a\" : 1, \"a\":2 }"};

    for (size_t i = 0; i < RH_COUNT(datas); i++) {
        struct rh_envelope env;
        const char *why;
        char text[200];

        sprintf(text, "{\"type\":\"request\",\"data\" :\t%s\n,\"event\":\"e\"}", datas[i]);
        RH_EQ_INT(parse(text, &env, &why), 0);
        RH_OK_IF(span_is(env.data.raw, datas[i]));
    }
}

RH_TEST(envelope, keys_and_values_are_understood_after_unescaping)
{
    struct rh_envelope env;
    const char *why;

    RH_EQ_INT(
        parse("{\"\\u0074ype\":\"r\\u0065quest\",\"even\\u0074\":\"p\\u0069ng\\/\\ud83d\\ude00\","
              "\"request\\u005fid\":\"\\u0034\\n\",\"d\\u0061ta\":7}",
              &env, &why),
        0);
    RH_EQ_INT(env.type, RH_ENV_REQUEST);
    RH_OK_IF(span_is(env.event, "ping/\xf0\x9f\x98\x80"));
    RH_OK_IF(span_is(env.request_id, "\"\\u0034\\n\"")); /* echoed as it came */
    RH_OK_IF(span_is(env.data.raw, "7"));
}

RH_TEST(envelope, unknown_fields_are_ignored_even_twice)
{
    RH_OK_IF(is_valid("{\"x\":1,\"type\":\"request\",\"x\":{\"type\":1,\"type\":2},\"event\":\"e\","
                      "\"Type\":0,\"type \":0,\"typ\":0,\"\":0,\"\":0,\"\\u0000\":1,"
                      "\"request_id_is_longer_\\u0061\":[]}"));
    RH_OK_IF(is_valid("{\"type\":\"request\",\"event\":\"e\",\"code\":null,\"message\":1,"
                      "\"error\":[],\"timestamp\":\"x\",\"trace_id\":{}}"));
}

RH_TEST(envelope, each_of_its_own_keys_may_stand_there_once)
{
    static const char *const keys[] = {"type",    "event", "request_id", "data",    "code",
                                       "message", "error", "timestamp",  "trace_id"};

    for (size_t i = 0; i < RH_COUNT(keys); i++) {
        const char *key = keys[i];
        char text[300];

        sprintf(text, "{\"type\":\"request\",\"event\":\"e\",\"request_id\":\"1\",\"%s\":\"x\"}",
                key);
        RH_EQ_INT(is_invalid(text), i < 3);
        sprintf(text, "{\"%s\":\"ack\",\"type\":\"ack\",\"event\":\"e\",\"%s\":\"ack\"}", key, key);
        RH_OK_IF(is_invalid(text));
        sprintf(text, "{\"%s\":\"ack\",\"x\":\"ack\",\"event\\u0000\":\"e\",\"\\u%04x%s\":\"ack\"}",
                key, key[0], key + 1);
        RH_OK_IF(is_invalid(text));
    }
}

RH_TEST(envelope, only_requests_and_acknowledgements_come_from_clients)
{
    static const char *const types[] = {"\"response\"", "\"error\"",
                                        "\"notify\"",   "\"Request\"",
                                        "\"requests\"", "\"reques\"",
                                        "\"\"",         "\"ac\"",
                                        "null",         "1",
                                        "true",         "[\"request\"]",
                                        "{}",           "\"request\\u0000\""};

    for (size_t i = 0; i < RH_COUNT(types); i++) {
        char text[200];

        sprintf(text, "{\"type\":%s,\"event\":\"e\"}", types[i]);
        RH_OK_IF(is_invalid(text));
    }
    RH_OK_IF(is_invalid("{\"event\":\"e\"}"));
    RH_OK_IF(is_invalid("{}"));
    RH_OK_IF(is_invalid("{ }"));
}

/* {"type":"request",<field>:"<len times unit>"} */
static char *with_string(char *text, const char *field, const char *unit, unsigned len)
{
    char *at = text + sprintf(text, "{\"type\":\"request\",%s:\"", field);

    for (unsigned i = 0; i < len; i++)
        at = stpcpy(at, unit);
    strcpy(at, "\"}");
    return text;
}

RH_TEST(envelope, an_event_has_1_to_64_bytes_however_they_are_written)
{
    char text[800];
    struct rh_envelope env;
    const char *why;

    RH_EQ_INT(parse(with_string(text, "\"event\"", "x", 64), &env, &why), 0);
    RH_EQ_INT(env.event.len, 64);
    RH_EQ_INT(parse(with_string(text, "\"event\"", "\\u0078", 64), &env, &why), 0);
    RH_EQ_INT(env.event.len, 64);
    RH_OK_IF(env.event.at == env.event_text && env.event.at[63] == 'x');
    RH_OK_IF(is_valid(with_string(text, "\"event\"", "\\ud83d\\ude00", 16)));
    RH_OK_IF(is_valid(with_string(text, "\"event\"", "\\u20ac", 21)));
    RH_OK_IF(is_valid(with_string(text, "\"event\"", "\\n", 1))); /* unknown: 404, not invalid */

    RH_OK_IF(is_invalid(with_string(text, "\"event\"", "x", 65)));
    RH_OK_IF(is_invalid(with_string(text, "\"event\"", "\\u0078", 65)));
    RH_OK_IF(is_invalid(with_string(text, "\"event\"", "\\u20ac", 22)));
    RH_OK_IF(is_invalid(with_string(text, "\"event\"", "x", 0)));
    RH_OK_IF(is_invalid("{\"type\":\"request\"}"));
    RH_OK_IF(is_invalid("{\"type\":\"request\",\"event\":null}"));
    RH_OK_IF(is_invalid("{\"type\":\"request\",\"event\":[\"e\"]}"));
}

RH_TEST(envelope, a_request_id_has_1_to_64_bytes_however_they_are_written)
{
    char text[800];
    struct rh_envelope env;
    const char *why;

    RH_EQ_INT(parse(with_string(text, "\"event\":\"e\",\"request_id\"", "\\u0078", 64), &env, &why),
              0);
    RH_EQ_INT(env.request_id.len, RH_REQUEST_ID_RAW_MAX);
    RH_OK_IF(is_valid(with_string(text, "\"event\":\"e\",\"request_id\"", "x", 64)));

    RH_OK_IF(is_invalid(with_string(text, "\"event\":\"e\",\"request_id\"", "x", 65)));
    RH_OK_IF(is_invalid(with_string(text, "\"event\":\"e\",\"request_id\"", "\\u0078", 65)));
    RH_OK_IF(is_invalid(with_string(text, "\"event\":\"e\",\"request_id\"", "\\u20ac", 22)));
    RH_OK_IF(is_invalid(with_string(text, "\"event\":\"e\",\"request_id\"", "x", 0)));
    RH_OK_IF(is_invalid("{\"type\":\"request\",\"event\":\"e\",\"request_id\":null}"));
    RH_OK_IF(is_invalid("{\"type\":\"request\",\"event\":\"e\",\"request_id\":42}"));
    RH_OK_IF(is_invalid("{\"type\":\"ack\",\"request_id\":\"\"}"));
}

RH_TEST(envelope, anything_but_one_json_object_is_invalid)
{
    static const char *const texts[] = {
        "",
        " ",
        "[]",
        "\"request\"",
        "1",
        "null",
        "{",
        "}",
        "{\"type\":\"ack\"",
        "{\"type\":\"ack\"}}",
        "{\"type\":\"ack\"}{}",
        "{\"type\":\"ack\"} x",
        "{\"type\":\"ack\"},",
        "[{\"type\":\"ack\"}]",
        "\xef\xbb\xbf{\"type\":\"ack\"}",
        "{\"type\":\"ack\",}",
        "{,\"type\":\"ack\"}",
        "{\"type\":\"ack\" \"x\":1}",
        "{\"type\":\"ack\"]",
        "{\"type\" \"ack\"}",
        "{type:\"ack\"}",
        "{\"type\":}",
        "{\"type\":\"ack\",\"x\":tru}",
        "{\"type\":\"ack\",\"data\":{\"a\":[1,2,]}}",
        "{\"type\":\"ack\",\"data\":\"\\ud800\"}",
        "{\"type\":\"ack\",\"data\":\"\t\"}",
        "{\"type\":\"ack\",\"data\":01}",
    };

    RH_OK_IF(is_valid("{\"type\":\"ack\"}"));
    for (size_t i = 0; i < RH_COUNT(texts); i++)
        ck_assert_msg(is_invalid(texts[i]), "accepted: %s", texts[i]);
}

RH_TEST(envelope, the_envelope_is_the_first_of_64_levels)
{
    char text[400];

    for (int levels = 63; levels <= 65; levels++) {
        char *at = text + sprintf(text, "{\"type\":\"ack\",\"data\":");

        memset(at, '[', levels - 1);
        memset(at + levels - 1, ']', levels - 1);
        strcpy(at + 2 * (levels - 1), "}");
        RH_EQ_INT(is_valid(text), levels <= 64);
        memcpy(text + 15, "xxxx", 4); /* the same inside an unknown field */
        RH_EQ_INT(is_valid(text), levels <= 64);
    }
}

RH_TEST(envelope, every_cut_of_a_message_is_invalid)
{
    static const char text[] =
        "{\"type\":\"request\",\"event\":\"a\\u0062\",\"request_id\":\"\\n\","
        "\"data\":{\"to\":[1.5e3,true,null]},\"x\":false}";
    struct rh_envelope env;
    const char *why;

    RH_OK_IF(is_valid(text));
    for (size_t cut = 0; cut < sizeof(text) - 1; cut++) {
        RH_EQ_INT(rh_envelope_parse((const char *)rh_guard(text, cut), cut, &env, &why), RH_EINVAL);
        RH_EQ_INT(env.request_id.len, 0);
    }
}

RH_TEST(envelope, an_error_names_the_request_if_its_id_is_certain)
{
    static const struct {
        const char *text;
        const char *id;
    } rows[] = {
        {"{\"request_id\":\"7\",\"type\":\"request\"}", "\"7\""},
        {"{\"request_id\":\"7\"}", "\"7\""},
        {"{\"request_id\":\"\\u0037\",\"type\":\"error\"}", "\"\\u0037\""},
        {"{\"request_id\":\"7\",\"type\":\"ack\",\"type\":\"ack\"}", "\"7\""},
        {"{\"type\":1,\"event\":2,\"request_id\":\"7\",\"data\":3,\"data\":4}", "\"7\""},
        {"{\"request_id\":\"7\",\"request_id\":\"7\",\"type\":\"ack\"}", ""},
        {"{\"request_id\":\"7\",\"request_i\\u0064\":\"8\",\"type\":\"ack\"}", ""},
        {"{\"request_id\":\"7\",\"type\":\"request\",\"event\":\"e\",}", ""},
        {"{\"request_id\":\"7\"} {", ""},
        {"[{\"request_id\":\"7\"}]", ""},
        {"{\"data\":{\"request_id\":\"7\"}}", ""},
        {"{\"request_id\":7}", ""},
        {"{\"request_id\":\"\"}", ""},
    };

    for (size_t i = 0; i < RH_COUNT(rows); i++) {
        struct rh_envelope env;
        const char *why;

        memset(&env, 0xa5, sizeof(env));
        RH_EQ_INT(parse(rows[i].text, &env, &why), RH_EINVAL);
        ck_assert_msg(span_is(env.request_id, rows[i].id), "%s", rows[i].text);
    }
}

/* ---- parameters ---------------------------------------------------------------------------- */

static const struct rh_param rows[] = {
    RH_PARAM_ROW("to", STRING, true),      RH_PARAM_ROW("content", ANY, true),
    RH_PARAM_ROW("ack", BOOL, false),      RH_PARAM_ROW("ttl_ms", NUMBER, false),
    RH_PARAM_ROW("fields", OBJECT, false), RH_PARAM_ROW("tags", ARRAY, false),
    RH_PARAM_ROW("reply_to", ANY, false),
};

enum { TO, CONTENT, ACK, TTL_MS, FIELDS, TAGS, REPLY_TO };

struct result {
    int rc;
    struct rh_json out[RH_COUNT(rows)];
    char why[80];
};

static struct result read_span(struct rh_span text)
{
    struct result r = {0};
    struct rh_json data;
    const char *at = (const char *)rh_guard(text.at, text.len);

    RH_OK_IF(rh_json_scan(at, at + text.len, RH_JSON_DEPTH, &data) == at + text.len);
    memset(r.out, 0xa5, sizeof(r.out));
    r.rc = rh_params_read(data, rows, RH_COUNT(rows), r.out, r.why, sizeof(r.why));
    return r;
}

static struct result read_data(const char *text)
{
    return read_span((struct rh_span){text, (uint32_t)strlen(text)});
}

RH_TEST(params, members_are_found_in_any_order_and_unknown_ones_ignored)
{
    struct result r =
        read_data("{\"x\":[{\"to\":1}],\"tags\":[1],\"t\\u006f\":\"bob\", \"y\":1,\"ack\""
                  ":false,\"content\" : null,\"ttl_ms\":5}");

    RH_EQ_INT(r.rc, 0);
    RH_EQ_STR(r.why, "");
    RH_OK_IF(span_is(r.out[TO].raw, "\"bob\"") && r.out[TO].kind == RH_JSON_STRING);
    RH_OK_IF(r.out[CONTENT].kind == RH_JSON_NULL);
    RH_OK_IF(r.out[ACK].kind == RH_JSON_FALSE);
    RH_OK_IF(span_is(r.out[TTL_MS].raw, "5"));
    RH_OK_IF(r.out[FIELDS].kind == RH_JSON_NONE);
    RH_OK_IF(span_is(r.out[TAGS].raw, "[1]"));
    RH_OK_IF(r.out[REPLY_TO].kind == RH_JSON_NONE);
}

RH_TEST(params, a_null_is_absent_where_the_member_is_optional)
{
    struct result r = read_data("{\"to\":\"b\",\"content\":1,\"ack\":null,\"ttl_ms\":null,"
                                "\"fields\":null,\"tags\":null,\"reply_to\":null}");

    RH_EQ_INT(r.rc, 0);
    for (unsigned i = ACK; i <= REPLY_TO; i++)
        RH_EQ_INT(r.out[i].kind, RH_JSON_NONE);
}

RH_TEST(params, what_is_wrong_is_said_with_the_name_of_the_member)
{
    static const char *const cases[][2] = {
        {"{}", "to: missing"},
        {"{\"to\":\"b\"}", "content: missing"},
        {"{\"content\":1,\"To\":\"b\"}", "to: missing"},
        {"{\"to\":null,\"content\":1}", "to: must be a string"},
        {"{\"to\":1,\"content\":1}", "to: must be a string"},
        {"{\"to\":\"b\",\"content\":1,\"ack\":1}", "ack: must be true or false"},
        {"{\"to\":\"b\",\"content\":1,\"ttl_ms\":\"1\"}", "ttl_ms: must be a number"},
        {"{\"to\":\"b\",\"content\":1,\"fields\":[]}", "fields: must be an object"},
        {"{\"to\":\"b\",\"content\":1,\"tags\":{}}", "tags: must be an array"},
        {"{\"to\":\"b\",\"to\":\"b\",\"content\":1}", "to: given twice"},
        {"{\"to\":null,\"content\":1,\"\\u0074o\":\"b\"}", "to: given twice"},
        {"{\"to\":\"b\",\"content\":1,\"ack\":null,\"ack\":true}", "ack: given twice"},
        {"{\"to\":\"b\",\"content\":1,\"x\":1,\"x\":1}", "data: a member is given twice"},
        {"{\"to\":\"b\",\"content\":1,\"x\":1,\"\\u0078\":1}", "data: a member is given twice"},
        {"{\"to\":\"b\",\"content\":1,\"\\u0078\":1,\"x\":1}", "data: a member is given twice"},
        {"{\"to\":\"b\",\"content\":1,\"\":1,\"\":1}", "data: a member is given twice"},
        {"[]", "data: must be an object"},
        {"null", "data: must be an object"},
        {"\"to\"", "data: must be an object"},
    };

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        struct result r = read_data(cases[i][0]);

        RH_EQ_INT(r.rc, RH_EINVAL);
        RH_EQ_STR(r.why, cases[i][1]);
    }
}

RH_TEST(params, data_that_is_absent_reads_like_an_empty_object)
{
    static const struct rh_param optional[] = {RH_PARAM_ROW("status", STRING, false)};
    struct rh_json out[RH_COUNT(rows)];
    struct rh_json none = {{"", 0}, RH_JSON_NONE};
    char why[80];

    RH_EQ_INT(rh_params_read(none, optional, 1, out, why, sizeof(why)), 0);
    RH_EQ_INT(out[0].kind, RH_JSON_NONE);
    RH_EQ_INT(rh_params_read(none, rows, RH_COUNT(rows), out, why, sizeof(why)), RH_EINVAL);
    RH_EQ_STR(why, "to: missing");
}

RH_TEST(params, members_of_members_may_repeat)
{
    RH_EQ_INT(
        read_data("{\"to\":\"b\",\"content\":{\"a\":1,\"a\":1},\"fields\":{\"to\":1,\"to\":1}}").rc,
        0);
}

RH_TEST(params, the_sentence_is_cut_to_its_room)
{
    struct rh_json none = {{"", 0}, RH_JSON_NONE};
    struct rh_json out[RH_COUNT(rows)];
    static const char want[] = "to: missing";

    for (size_t room = 1; room <= sizeof(want); room++) {
        char *why = (char *)rh_guard(NULL, room);

        RH_EQ_INT(rh_params_read(none, rows, RH_COUNT(rows), out, why, room), RH_EINVAL);
        RH_EQ_INT(strncmp(why, want, room - 1), 0);
        RH_EQ_U64(strlen(why), room - 1);
    }
}

/* {"to":"b","content":1, then count unknown names; one more at the end repeats the twin-th of them,
 * written with or without an escape; none does if twin < 0. */
static struct rh_span many(char *text, unsigned count, int twin, bool escaped)
{
    char *at = text + sprintf(text, "{\"to\":\"b\",\"content\":1");

    for (unsigned i = 0; i < count; i++)
        at += sprintf(at, ",\"%s%s%u\":%u", i % 3 ? "k" : "a-much-longer-name-",
                      i % 5 ? "" : "\\u00e9", i * 7919 % 100000, i);
    if (twin >= 0) {
        unsigned i = (unsigned)twin;

        at += sprintf(at, ",\"%s%s%s%u\":0", escaped ? "\\u00" : "",
                      i % 3 ? (escaped ? "6b" : "k")
                            : (escaped ? "61-much-longer-name-" : "a-much-longer-name-"),
                      i % 5 ? "" : "\xc3\xa9", i * 7919 % 100000);
    }
    at = stpcpy(at, "}");
    return (struct rh_span){text, (uint32_t)(at - text)};
}

RH_TEST(params, one_name_twice_is_found_among_any_number_of_members)
{
    static const unsigned counts[] = {1, 2, 15, 16, 17, 18, 31, 32, 33, 100, 1000};
    static char text[64000];

    for (size_t i = 0; i < RH_COUNT(counts); i++) {
        unsigned count = counts[i];

        RH_EQ_INT(read_span(many(text, count, -1, false)).rc, 0);
        for (unsigned twin = 0; twin<count; twin += count> 40 ? count / 13 : 1) {
            RH_EQ_INT(read_span(many(text, count, (int)twin, false)).rc, RH_EINVAL);
            RH_EQ_INT(read_span(many(text, count, (int)twin, true)).rc, RH_EINVAL);
        }
    }
}

RH_TEST(params, names_that_begin_alike_or_end_in_zeros_are_told_apart)
{
    static char text[64000];
    char *at = text + sprintf(text, "{\"to\":\"b\",\"content\":1");

    for (unsigned i = 0; i < 10; i++) {
        at += sprintf(at, ",\"12345678%.*s\":0", (int)i, "xxxxxxxxxx");
        at += sprintf(at, ",\"1234567812345678%u\":0", i);
        at += sprintf(at, ",\"12345678%u\":0", i);
        at = stpcpy(at, ",\"z");
        for (unsigned k = 0; k < i; k++)
            at = stpcpy(at, "\\u0000");
        at = stpcpy(at, "\":0");
    }
    strcpy(at, "}");
    RH_EQ_INT(read_data(text).rc, 0);
    strcpy(at, ",\"\\u007a\\u0000\":0}");
    RH_EQ_INT(read_data(text).rc, RH_EINVAL);
    strcpy(at, ",\"12345678123456785\":0}");
    RH_EQ_INT(read_data(text).rc, RH_EINVAL);
}

static char hostile[70000];

static void read_hostile(void *arg)
{
    bool *ended = arg;
    struct result r = read_data(hostile);

    RH_OK_IF(r.rc == 0 || r.rc == RH_ENOMEM);
    RH_EQ_STR(r.why, "");
    *ended |= r.rc == RH_ENOMEM;
}

RH_TEST(params, without_memory_many_members_are_an_error_and_few_are_none)
{
    bool failed = false;

    many(hostile, 1000, -1, false);
    rh_test_fail_each_alloc(read_hostile, &failed);
    RH_OK_IF(failed);

    rh_mem_fail_nth(1);
    RH_EQ_INT(read_data("{\"to\":\"b\",\"content\":1,\"x\":1,\"y\":2}").rc, 0);
    RH_EQ_U64(rh_mem_fail_left(), 1);
    rh_mem_fail_nth(0);
}
