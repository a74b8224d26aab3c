/* tests/proto/test_upgrade.c - which handshakes are taken, which are refused and with what, and
 * whose page may ask. Heads are written out and go through the parser, as they do in the server. */
#include "tests/rh_test.h"

#include <stdio.h>

#include "proto/upgrade.h"

#define KEY     "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455 1.3 */
#define ACCEPT  "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define START   "GET /ws HTTP/1.1\r\nHost: h\r\n"
#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEYED   "Sec-WebSocket-Key: " KEY "\r\n"
#define WHOLE   START UPGRADE VERSION KEYED

static struct rh_http_head parsed(const char *fields)
{
    static char wire[16384];
    struct rh_http_head head;
    const char *why = "";
    int len = snprintf(wire, sizeof(wire), "%s\r\n", fields);

    RH_OK_IF(len < (int)sizeof(wire));
    if (rh_http_parse(wire, (size_t)len, sizeof(wire), NULL, &head, &why) != len)
        RH_FAIL("not a head (%s): %s", why, wire);
    return head;
}

static void expect_status(const char *fields, unsigned want, const char *want_why)
{
    struct rh_http_head head = parsed(fields);
    struct rh_upgrade up;
    const char *why = "fine";
    unsigned got = rh_upgrade_check(&head, NULL, &up, &why);

    if (got != want || strcmp(why, want_why) != 0)
        RH_FAIL("%s\n  gives  %u %s\n  wanted %u %s", fields, got, why, want, want_why);
}

static struct rh_upgrade accepted(const char *more)
{
    char fields[8192];
    struct rh_http_head head;
    struct rh_upgrade up;
    const char *why = "";
    unsigned status;

    snprintf(fields, sizeof(fields), WHOLE "%s", more);
    head = parsed(fields);
    status = rh_upgrade_check(&head, NULL, &up, &why);
    if (status)
        RH_FAIL("%s\n  gives %u %s", more, status, why);
    return up;
}

RH_TEST(upgrade, the_example_of_the_rfc_is_accepted)
{
    struct rh_upgrade up = accepted("");

    RH_EQ_MEM(up.accept, ACCEPT, sizeof(up.accept));
    RH_EQ_INT(up.subprotocol.len, 0);
    RH_OK_IF(!up.has_trace);
}

RH_TEST(upgrade, what_browsers_and_proxies_write_differently_is_accepted)
{
    expect_status(START VERSION KEYED "upgrade: WebSocket\r\nconnection: keep-alive, UPGRADE\r\n",
                  0, "fine");
    expect_status(START VERSION KEYED "Upgrade: h2c, websocket\r\nConnection: x\r\n"
                                      "Connection: upgrade\r\n",
                  0, "fine");
    expect_status(WHOLE "Content-Length: 0\r\n", 0, "fine");
    expect_status("GET http://h/ws HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEYED, 0, "fine");
}

RH_TEST(upgrade, handshakes_that_are_refused)
{
    static const char plain[] = "this path speaks WebSocket only";
    static const char version[] = "only version 13 of WebSocket is spoken here";
    static const char versions[] = "there has to be one Sec-WebSocket-Version";
    static const char keys[] = "there has to be one Sec-WebSocket-Key";
    static const char connection[] = "Connection does not name Upgrade";

    expect_status("POST /ws HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEYED, 405,
                  "a WebSocket handshake is a GET");
    expect_status("HEAD /ws HTTP/1.1\r\nHost: h\r\n", 405, "a WebSocket handshake is a GET");
    expect_status(START, 426, plain);
    expect_status("GET /ws HTTP/1.0\r\n", 426, plain);
    expect_status(START "Connection: Upgrade\r\n" VERSION KEYED, 426, plain);
    expect_status(START "Upgrade: websocket/13\r\nConnection: Upgrade\r\n" VERSION KEYED, 426,
                  plain);
    expect_status("GET /ws HTTP/1.0\r\nHost: h\r\n" UPGRADE VERSION KEYED, 426,
                  "a WebSocket handshake needs HTTP/1.1");
    expect_status(START "Upgrade: websocket\r\n" VERSION KEYED, 400, connection);
    expect_status(START "Upgrade: websocket\r\nConnection: close\r\n" VERSION KEYED, 400,
                  connection);
    expect_status(WHOLE "Content-Length: 1\r\n", 400, "a WebSocket handshake has no body");
    expect_status(WHOLE "Transfer-Encoding: chunked\r\n", 400, "a WebSocket handshake has no body");
    expect_status(WHOLE "Expect: 100-continue\r\n", 400,
                  "a WebSocket handshake has nothing to expect");
    expect_status(START UPGRADE KEYED, 400, versions);
    expect_status(WHOLE VERSION, 400, versions);
    expect_status(START UPGRADE KEYED "Sec-WebSocket-Version: 8\r\n", 426, version);
    expect_status(START UPGRADE KEYED "Sec-WebSocket-Version: 13, 8\r\n", 426, version);
    expect_status(START UPGRADE KEYED "Sec-WebSocket-Version: 013\r\n", 426, version);
    expect_status(START UPGRADE KEYED "Sec-WebSocket-Version:\r\n", 426, version);
    expect_status(START UPGRADE VERSION, 400, keys);
    expect_status(WHOLE KEYED, 400, keys);
}

RH_TEST(upgrade, a_key_is_the_one_base64_of_16_bytes)
{
    static const char *const good[] = {
        "AAAAAAAAAAAAAAAAAAAAAA==", "/+/+zzzz00009999ZZZZaQ==", "x3JJHMbDL1EzLkh9GBhXDw=="};
    static const char *const bad[] = {
        "",
        "AAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAA===",
        "AAAAAAAAAAAAAAAAAAAAAB==", /* bits left over that are not zero */
        "AAAAAAAAAAAAAAAAAAAAAAA=", /* 17 bytes */
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAA===",
        "AAAAAAAAAAAAAAAAAAAA-A==",
        "AAAAAAAAAAAAAAAAAAAA_A==",
        "AAAAAAAAAAAAAA AAAAAAA==",
        "=AAAAAAAAAAAAAAAAAAAAA==",
        "\"AAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAAAA==,x"};
    char fields[512];

    for (size_t i = 0; i < RH_COUNT(good); i++) {
        snprintf(fields, sizeof(fields), START UPGRADE VERSION "Sec-WebSocket-Key: %s\r\n",
                 good[i]);
        expect_status(fields, 0, "fine");
    }
    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(fields, sizeof(fields), START UPGRADE VERSION "Sec-WebSocket-Key: %s\r\n", bad[i]);
        expect_status(fields, 400, "Sec-WebSocket-Key is not the base64 of 16 bytes");
    }
}

RH_TEST(upgrade, ringhub_v1_is_chosen_where_it_is_offered_else_nothing)
{
    static const char *const chosen[] = {
        "Sec-WebSocket-Protocol: ringhub.v1\r\n",
        "Sec-WebSocket-Protocol: bearer.aaa.bbb_-.c, ringhub.v1\r\n",
        "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol:b ,\tringhub.v1 , c\r\n",
        "Sec-WebSocket-Protocol: ,, ringhub.v1,\r\nSec-WebSocket-Protocol:\r\n"};
    static const char *const none[] = {"", "Sec-WebSocket-Protocol: chat, superchat\r\n",
                                       "Sec-WebSocket-Protocol: Ringhub.v1\r\n",
                                       "Sec-WebSocket-Protocol: ringhub.v12, ringhub.v\r\n"};

    for (size_t i = 0; i < RH_COUNT(chosen); i++)
        RH_OK_IF(rh_span_eq(accepted(chosen[i]).subprotocol, RH_SPAN("ringhub.v1")));
    for (size_t i = 0; i < RH_COUNT(none); i++)
        RH_EQ_INT(accepted(none[i]).subprotocol.len, 0);
}

RH_TEST(upgrade, malformed_offers_of_subprotocols_are_refused)
{
    static const char *const bad[] = {"",         ",",          ", ,", "a b",
                                      "a;b",      "\"a\"",      "a/b", "a, ringhub.v1, a",
                                      "\xc3\xa9", "bearer.a==", "a,,a"};
    char fields[1024];
    int n;

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(fields, sizeof(fields), WHOLE "Sec-WebSocket-Protocol: %s\r\n", bad[i]);
        expect_status(fields, 400, "a malformed Sec-WebSocket-Protocol");
    }
    expect_status(WHOLE "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n", 400,
                  "a malformed Sec-WebSocket-Protocol");
    n = snprintf(fields, sizeof(fields), WHOLE "Sec-WebSocket-Protocol: p0");
    for (int i = 1; i < RH_UPGRADE_OFFERS_MAX; i++)
        n += snprintf(fields + n, sizeof(fields) - (size_t)n, ",p%d", i);
    strcpy(fields + n, "\r\n");
    expect_status(fields, 0, "fine");
    strcpy(fields + n, ",x\r\n");
    expect_status(fields, 400, "a malformed Sec-WebSocket-Protocol");
}

RH_TEST(upgrade, extensions_are_checked_for_their_syntax_only)
{
    static const char *const good[] = {
        "permessage-deflate", "permessage-deflate; client_max_window_bits",
        "a; b=1; c=\"x\" ,d", "a;b=\"\\x\\y\"",
        "a ; b = c",          "a,",
        ",, a;b ,\t,"};
    static const char *const bad[] = {"",        ",",           ", ,",         "a;",
                                      ";a",      "a;=",         "a;b=",        "a;b=\"\"",
                                      "a;b=\"",  "a;b=\"x y\"", "a;b=\"x,y\"", "a b",
                                      "a;b=c=d", "a;b=\"x\\\"", "a;b=\"x\"y",  "a;b=\"\\\"",
                                      "a;;b",    "=a",          "\"a\"",       "a;b=\"\\,\""};
    char fields[512];

    for (size_t i = 0; i < RH_COUNT(good); i++) {
        snprintf(fields, sizeof(fields), "Sec-WebSocket-Extensions: %s\r\n", good[i]);
        accepted(fields);
    }
    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(fields, sizeof(fields), WHOLE "Sec-WebSocket-Extensions: %s\r\n", bad[i]);
        expect_status(fields, 400, "a malformed Sec-WebSocket-Extensions");
    }
}

#define TRACE  "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

/* What the 101 says of extensions with that wish; "" for nothing. */
static const char *deflate_said(const char *more, const struct rh_deflate_wish *wish)
{
    static char said[RH_DEFLATE_TEXT];
    char fields[8192], response[1024], *at;
    struct rh_http_head head;
    struct rh_upgrade up;
    const char *why = "";
    size_t len;

    snprintf(fields, sizeof(fields), WHOLE "%s", more);
    head = parsed(fields);
    if (rh_upgrade_check(&head, wish, &up, &why))
        return why;
    len = rh_upgrade_response(response, sizeof(response), &up);
    RH_OK_IF(len && strcmp(response + len - 4, "\r\n\r\n") == 0);
    at = strstr(response, "Sec-WebSocket-Extensions: ");
    RH_OK_IF(!at == !up.deflate.server_bits);
    snprintf(said, sizeof(said), "%s", at ? at + strlen("Sec-WebSocket-Extensions: ") : "");
    said[strcspn(said, "\r")] = 0;
    return said;
}

RH_TEST(upgrade, the_first_deflate_that_can_be_accepted_is)
{
#define EXT "Sec-WebSocket-Extensions: "
#define PMD "permessage-deflate"
    static const struct rh_deflate_wish wish = {.takeover = true, .bits = 15};
    static const char malformed[] = "a malformed Sec-WebSocket-Extensions";
    static const struct {
        const char *fields, *said;
    } cases[] = {
        {"", ""},
        {EXT "foo, bar; x=1\r\n", ""},
        {EXT PMD "\r\n", PMD},
        {"sec-websocket-extensions: foo, " PMD "; client_no_context_takeover, bar\r\n",
         PMD "; client_no_context_takeover"},
        {EXT PMD "; server_max_window_bits=10, " PMD "\r\n", PMD "; server_max_window_bits=10"},
        {EXT PMD "; server_max_window_bits=16, " PMD "\r\n", PMD},
        {EXT PMD "; x, " PMD "; server_no_context_takeover=1\r\n" EXT PMD
                 "; server_max_window_bits=\"9\"\r\n" EXT PMD "\r\n",
         PMD "; server_max_window_bits=9"},
        {EXT PMD "; x\r\n", ""},
        {EXT PMD "\r\n" EXT PMD "; =\r\n", malformed},
        {EXT PMD ",\r\n", PMD},
        {EXT ",\r\n", malformed},
        {EXT PMD ";\r\n", malformed},
        {EXT PMD "; server_no_context_takeover=\"\"\r\n", malformed},
    };

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        RH_EQ_STR(deflate_said(cases[i].fields, &wish), cases[i].said);
        RH_EQ_STR(deflate_said(cases[i].fields, NULL), cases[i].said == malformed ? malformed : "");
    }
    RH_EQ_STR(
        deflate_said(EXT PMD "; client_max_window_bits\r\n", &(struct rh_deflate_wish){.bits = 12}),
        PMD "; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=12; client_max_window_bits=12");
}

RH_TEST(upgrade, a_sound_traceparent_gives_its_trace_id)
{
    static const char *const good[] = {"00-" TRACE "-" PARENT "-01", "00-" TRACE "-" PARENT "-00",
                                       "cc-" TRACE "-" PARENT "-01",
                                       "cc-" TRACE "-" PARENT "-01-more.of it"};
    char field[256];

    for (size_t i = 0; i < RH_COUNT(good); i++) {
        struct rh_upgrade up;

        snprintf(field, sizeof(field), "Traceparent: %s\r\n", good[i]);
        up = accepted(field);
        RH_OK_IF(up.has_trace);
        RH_EQ_MEM(up.trace_id, TRACE, sizeof(up.trace_id));
    }
}

RH_TEST(upgrade, a_malformed_traceparent_is_ignored)
{
    static const char *const bad[] = {"",
                                      "00",
                                      "ff-" TRACE "-" PARENT "-01",
                                      "00-" TRACE "-" PARENT "-01-",
                                      "00-" TRACE "-" PARENT "-0",
                                      "00-" TRACE "-" PARENT "-0g",
                                      "cc-" TRACE "-" PARENT "-01.",
                                      "00-4BF92f3577b34da6a3ce929d0e0e4736-" PARENT "-01",
                                      "00-00000000000000000000000000000000-" PARENT "-01",
                                      "00-" TRACE "-0000000000000000-01",
                                      "00-" TRACE "_" PARENT "-01",
                                      "00_" TRACE "-" PARENT "-01",
                                      "00-" TRACE "-" PARENT "_01",
                                      "0x-" TRACE "-" PARENT "-01",
                                      "00-" TRACE "-00f067aa0ba902bg-01"};
    char field[256];

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(field, sizeof(field), "traceparent: %s\r\n", bad[i]);
        RH_OK_IF(!accepted(field).has_trace);
    }
    RH_OK_IF(!accepted("traceparent: 00-" TRACE "-" PARENT "-01\r\n"
                       "traceparent: 00-" TRACE "-" PARENT "-01\r\n")
                  .has_trace);
}

RH_TEST(upgrade, the_answer_fits_whole_or_not_at_all)
{
    static const char *const want[] = {
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: ringhub.v1\r\n\r\n"};
    const struct rh_upgrade up[] = {accepted(""),
                                    accepted("Sec-WebSocket-Protocol: ringhub.v1\r\n")};

    for (size_t i = 0; i < RH_COUNT(want); i++) {
        size_t len = strlen(want[i]);

        for (size_t room = 0; room <= len + 1; room++) {
            char *dst = (char *)rh_guard(NULL, room);

            RH_EQ_U64(rh_upgrade_response(dst, room, &up[i]), room > len ? len : 0);
            if (room > len)
                RH_EQ_MEM(dst, want[i], len);
        }
    }
}

/* ---- origin ---------------------------------------------------------------------------------- */

static bool same(const char *host, const char *origin)
{
    char fields[512];
    struct rh_http_head head;

    snprintf(fields, sizeof(fields), "GET / HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\n", host, origin);
    head = parsed(fields);
    return rh_origin_same(&head);
}

RH_TEST(upgrade, the_same_origin_is_recognised_by_host_and_port)
{
    RH_OK_IF(same("h", "http://h"));
    RH_OK_IF(same("h:80", "http://h"));
    RH_OK_IF(same("h", "http://h:80"));
    RH_OK_IF(same("h", "https://h")); /* TLS ends in a proxy */
    RH_OK_IF(same("h:443", "https://h"));
    RH_OK_IF(same("h", "https://h:443"));
    RH_OK_IF(same("h:80", "https://h:80")); /* by port; the scheme's use is the proxy's */
    RH_OK_IF(same("h:", "ws://h"));
    RH_OK_IF(same("h:443", "wss://h"));
    RH_OK_IF(same("Example.ORG:8080", "HTTP://eXample.org:8080"));
    RH_OK_IF(same("127.0.0.1:8080", "http://127.0.0.1:8080"));
    RH_OK_IF(same("[::1]:8080", "http://[::1]:8080"));
    RH_OK_IF(same("[::1]", "http://[0:0:0:0:0:0:0:1]"));
    RH_OK_IF(same("[FE80::a]", "http://[fe80::A]"));
}

RH_TEST(upgrade, any_other_origin_is_not_the_same)
{
    static const char *const bad[] = {"null",
                                      "",
                                      "http://",
                                      "http:h",
                                      "http:/h",
                                      "//h",
                                      "h",
                                      "h:80",
                                      "http://h/",
                                      "http://h/x",
                                      "http://u@h",
                                      "http://u:p@h",
                                      "http://h#",
                                      "http://h?x",
                                      "http://h:8080",
                                      "http://h.",
                                      "http://hh",
                                      "http://x.h",
                                      "ftp://h",
                                      "file://h",
                                      "chrome-extension://h",
                                      "http://h http://h",
                                      "http://h,http://h",
                                      "http://h:443",
                                      "http://h:0",
                                      "http://h:00080x",
                                      "http://[::1]",
                                      "http://[h]",
                                      "http://h:65616"};

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        if (same("h:80", bad[i]))
            RH_FAIL("%s passes for the origin of h:80", bad[i]);
    }
    RH_OK_IF(!same("h:8080", "http://h"));
    RH_OK_IF(!same("[::1]", "http://[::2]"));
    RH_OK_IF(!same("[::1]", "http://localhost"));
    RH_OK_IF(!same("h", "http://h:8080"));
}

RH_TEST(upgrade, origin_is_judged_against_the_authority_that_counts)
{
    struct rh_http_head head = parsed("GET / HTTP/1.1\r\nHost: h\r\n");

    RH_OK_IF(rh_origin_same(&head));
    head = parsed("GET http://a/ HTTP/1.1\r\nHost: h\r\nOrigin: http://a\r\n");
    RH_OK_IF(rh_origin_same(&head));
    head = parsed("GET http://a/ HTTP/1.1\r\nHost: h\r\nOrigin: http://h\r\n");
    RH_OK_IF(!rh_origin_same(&head));
    head = parsed("GET / HTTP/1.0\r\nOrigin: http://h\r\n");
    RH_OK_IF(!rh_origin_same(&head));
    head = parsed("GET / HTTP/1.1\r\nHost: h\r\nOrigin: http://h\r\nOrigin: http://h\r\n");
    RH_OK_IF(!rh_origin_same(&head));
}

/* ---- the client's end ------------------------------------------------------------------------ */

/* Goal    our own client and server understand each other.
 * Method  request, check, response, answer; the answer cut at every byte. */
RH_TEST(upgrade, client_and_server_shake_hands)
{
    char request[512], response[512];
    size_t len = rh_upgrade_request(request, sizeof(request), "h:1", "/echo?x=y", KEY, NULL);
    struct rh_http_head head;
    struct rh_upgrade up;
    const char *why;

    RH_OK_IF(len > 0);
    RH_EQ_INT(rh_http_parse(request, len, 1024, NULL, &head, &why), (int)len);
    RH_EQ_U64(rh_upgrade_check(&head, NULL, &up, &why), 0);
    RH_EQ_U64(rh_upgrade_request(request, len, "h:1", "/echo?x=y", KEY, NULL), 0);
    len = rh_upgrade_response(response, sizeof(response), &up);
    for (size_t cut = 0; cut <= len; cut++) {
        const char *at = (const char *)rh_guard(response, cut);

        RH_EQ_INT(rh_upgrade_answer(at, cut, KEY, NULL, NULL), cut < len ? 0 : (int)len);
    }
    memcpy(response + len, "\x81\x00", 2);
    RH_EQ_INT(rh_upgrade_answer(response, len + 2, KEY, NULL, NULL), (int)len);
    RH_EQ_INT(rh_upgrade_answer(response, len, "AAAAAAAAAAAAAAAAAAAAAA==", NULL, NULL), -1);
}

/* Goal    both our ends agree on the same terms of permessage-deflate, whatever each wants.
 * Method  all asks against all wishes; the answer is cut at every byte for the first of them. */
RH_TEST(upgrade, client_and_server_agree_on_the_same_terms)
{
    for (unsigned how = 0; how < 2 * 2 * 9 * 10 * 2 * 7; how++) {
        const struct rh_deflate_ask ask = {
            .server_forgets = how & 1,
            .client_forgets = how & 2,
            .server_bits = (uint8_t[]){0, 8, 9, 10, 11, 12, 13, 14, 15}[how / 4 % 9],
            .client_bits = (uint8_t[]){0, 1, 8, 9, 10, 11, 12, 13, 14, 15}[how / 36 % 10]};
        const struct rh_deflate_wish wish = {.takeover = how / 360 % 2,
                                             .bits = (uint8_t)(9 + how / 720)};
        char request[1024], response[1024];
        struct rh_deflate_terms terms;
        struct rh_http_head head;
        struct rh_upgrade up;
        const char *why;
        size_t len = rh_upgrade_request(request, sizeof(request), "h", "/", KEY, &ask);

        RH_OK_IF(rh_http_parse(request, len, sizeof(request), NULL, &head, &why) == (int)len);
        RH_OK_IF(rh_upgrade_check(&head, &wish, &up, &why) == 0 && up.deflate.server_bits);
        len = rh_upgrade_response(response, sizeof(response), &up);
        for (size_t cut = how ? len : 0; cut < len; cut++)
            RH_OK_IF(rh_upgrade_answer(response, cut, KEY, &ask, &terms) == 0);
        memset(&terms, 0xff, sizeof(terms));
        RH_OK_IF(rh_upgrade_answer(response, len, KEY, &ask, &terms) == (int)len);
        RH_EQ_INT(terms.server_bits, up.deflate.server_bits);
        RH_EQ_INT(terms.client_bits, up.deflate.client_bits);
        RH_OK_IF(terms.server_keeps == up.deflate.server_keeps);
        RH_OK_IF(terms.client_keeps == up.deflate.client_keeps);
        RH_OK_IF(rh_upgrade_answer(response, len, KEY, NULL, NULL) == -1);
        RH_OK_IF(rh_upgrade_check(&head, NULL, &up, &why) == 0);
        len = rh_upgrade_response(response, sizeof(response), &up);
        RH_OK_IF(rh_upgrade_answer(response, len, KEY, &ask, &terms) == (int)len);
        RH_OK_IF(!terms.server_bits && !terms.client_bits);
    }
}

RH_TEST(upgrade, answers_that_the_client_refuses)
{
#define OK101 "HTTP/1.1 101 x\r\n"
#define TOLD  "Sec-WebSocket-Accept: " ACCEPT "\r\n"
    static const struct {
        const char *wire;
        int answer;
    } bad[] = {
        {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", -503},
        {"HTTP/1.0 200 OK\r\n\r\n", -200},
        {OK101 UPGRADE "\r\n", -1},
        {OK101 "Upgrade: websocket\r\n" TOLD "\r\n", -1},
        {OK101 "Connection: upgrade\r\n" TOLD "\r\n", -1},
        {OK101 UPGRADE TOLD TOLD "\r\n", -1},
        {OK101 UPGRADE "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", -1},
        {OK101 UPGRADE "Sec-WebSocket-Accept: \r\n\r\n", -1},
        {OK101 UPGRADE TOLD "Sec-WebSocket-Protocol: a\r\n\r\n", -1},
        {OK101 UPGRADE TOLD "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", -1},
        {OK101 UPGRADE "A\r\n\r\n", -1},
        {"garbage\r\n\r\n", -1},
    };
    static const char *const bad_deflate[] = {
        PMD "; server_max_window_bits=12", /* the one that fits */
        PMD,
        PMD "; server_max_window_bits=13",
        PMD "; server_max_window_bits=12; client_max_window_bits=12",
        PMD "; server_max_window_bits=12; x",
        PMD "; server_max_window_bits=12;",
        PMD "; server_max_window_bits=12, x",
        PMD "; server_max_window_bits=12, " PMD "; server_max_window_bits=12",
        PMD "; server_max_window_bits=12\r\n" EXT PMD "; server_max_window_bits=12",
        "x",
        "",
    };

    for (size_t i = 0; i < RH_COUNT(bad); i++)
        RH_EQ_INT(rh_upgrade_answer(bad[i].wire, strlen(bad[i].wire), KEY, NULL, NULL),
                  bad[i].answer);
    for (size_t i = 0; i < RH_COUNT(bad_deflate); i++) {
        static const struct rh_deflate_ask ask = {.server_bits = 12};
        struct rh_deflate_terms terms;
        char wire[1024];
        int len = snprintf(wire, sizeof(wire), OK101 UPGRADE TOLD EXT "%s\r\n\r\n", bad_deflate[i]);

        RH_EQ_INT(rh_upgrade_answer(wire, (size_t)len, KEY, &ask, &terms), i ? -1 : len);
    }
    RH_EQ_INT(rh_upgrade_answer(OK101 UPGRADE TOLD "\r\n", strlen(OK101 UPGRADE TOLD "\r\n"), KEY,
                                NULL, NULL),
              (int)strlen(OK101 UPGRADE TOLD "\r\n"));
}
