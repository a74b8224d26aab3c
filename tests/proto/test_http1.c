/* tests/proto/test_http1.c - what the strict parser takes, what it refuses, and that neither
 * depends on how TCP cut the bytes.
 *
 * Every vector here runs through cuts(): the whole first, then grown byte by byte with `scanned`
 * handed on, then each prefix on its own; always ending at a guard page, and in fresh memory each
 * time, so that a pointer that was kept would show.
 */
#include "tests/rh_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "proto/http1.h"

#define HEAD_MAX 1024
#define TEXT_MAX 32768

/* The last bytes in front of a page that faults. */
static char *page_end(void)
{
    static char *end;

    if (!end)
        end = (char *)rh_guard(NULL, TEXT_MAX) + TEXT_MAX;
    return end;
}

static const char *placed(const char *bytes, size_t len)
{
    memset(page_end() - TEXT_MAX, 'x', TEXT_MAX - len);
    return memcpy(page_end() - len, bytes, len);
}

/* A head as one line: "GET /a ? q host h 1.1 keep body 3 | Name=value | ..." */
static void show(char *dst, size_t room, int len, const struct rh_http_head *h, const char *why)
{
    size_t n;

    if (len <= 0) {
        snprintf(dst, room, "%d %s", -len, len < 0 ? why : "more");
        return;
    }
    n = (size_t)snprintf(dst, room, "%.*s#%d %.*s ? %.*s host %.*s 1.%u%s", (int)h->method_text.len,
                         h->method_text.at, h->method, (int)h->path.len, h->path.at,
                         (int)h->query.len, h->query.at, (int)h->host.len, h->host.at, h->minor,
                         h->keep_alive ? " keep" : "");
    if (h->has_body)
        n += (size_t)snprintf(dst + n, room - n, " body %llu%s",
                              (unsigned long long)h->content_length, h->chunked ? " chunked" : "");
    for (unsigned i = 0; i < h->header_count; i++)
        n += (size_t)snprintf(dst + n, room - n, " | %.*s=%.*s", (int)h->headers[i].name.len,
                              h->headers[i].name.at, (int)h->headers[i].value.len,
                              h->headers[i].value.at);
    RH_OK_IF(n < room);
}

/* Parses `wire` in all the ways there are; the whole's answer is in ret_text, as show() has it. */
static int cuts(const char *wire, size_t len, size_t head_max, char *ret_text)
{
    struct rh_http_head head;
    const char *why = "";
    size_t scanned = 0;
    int whole = rh_http_parse(placed(wire, len), len, head_max, NULL, &head, &why);
    bool over = false;

    show(ret_text, TEXT_MAX, whole, &head, why);
    for (size_t cut = 0; cut <= len; cut++) {
        const char *at = placed(wire, cut);
        int grown = rh_http_parse(at, cut, head_max, &scanned, &head, &why), alone;
        char text[TEXT_MAX];

        RH_OK_IF(scanned <= cut);
        show(text, sizeof(text), grown, &head, why);
        alone = rh_http_parse(at, cut, head_max, NULL, &head, &why);
        RH_EQ_INT(grown, alone);
        if (grown == 0)
            continue;
        RH_EQ_STR(text, ret_text);
        RH_EQ_U64(scanned, 0);
        over = true;
        break;
    }
    RH_EQ_INT(over, whole != 0);
    return whole;
}

static void expect(const char *wire, const char *text)
{
    static char got[TEXT_MAX];

    RH_EQ_INT(cuts(wire, strlen(wire), HEAD_MAX, got), strlen(wire));
    RH_EQ_STR(got, text);
}

/* A head that must be refused with exactly this answer: "400 no Host field". */
static void expect_no(const char *wire, const char *answer)
{
    static char got[TEXT_MAX];

    cuts(wire, strlen(wire), HEAD_MAX, got);
    if (strcmp(got, answer) != 0)
        RH_FAIL("%s\n  gives    %s\n  wanted   %s", wire, got, answer);
}

#define GET  "GET / HTTP/1.1\r\n"
#define HOST "Host: h\r\n"
#define END  "\r\n"

/* Goal    a plain request and a handshake come out with all their parts.
 * Method  heads shown as one line each, at every cut. */
RH_TEST(http1, whole_heads_are_taken_apart)
{
    expect(GET HOST END, "GET#0 / ?  host h 1.1 keep | Host=h");
    expect("GET /ws?user_id=a%20b&x HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nUpgrade:websocket\r\n\r\n",
           "GET#0 /ws ? user_id=a%20b&x host 127.0.0.1:8080 1.1 keep | host=127.0.0.1:8080"
           " | Upgrade=websocket");
    expect("POST /api/v1/messages HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 012\r\n"
           "Connection: foo , CLOSE\r\n\r\n",
           "POST#2 /api/v1/messages ?  host [::1]:80 1.1 body 12 | Host=[::1]:80"
           " | Content-Length=012 | Connection=foo , CLOSE");
    expect("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n",
           "PUT#3 /a ?  host h 1.1 keep body 0 chunked | Host=h | Transfer-Encoding=Chunked");
    expect("BREW /?a?b HTTP/1.1\r\n" HOST END, "BREW#7 / ? a?b host h 1.1 keep | Host=h");
    expect("get / HTTP/1.1\r\n" HOST END, "get#7 / ?  host h 1.1 keep | Host=h");
    expect("HEAD //x/../y HTTP/1.1\r\n" HOST END, "HEAD#1 //x/../y ?  host h 1.1 keep | Host=h");
    expect("PATCH /a HTTP/1.1\r\n" HOST END, "PATCH#4 /a ?  host h 1.1 keep | Host=h");
    expect("DELETE /a HTTP/1.1\r\n" HOST END, "DELETE#5 /a ?  host h 1.1 keep | Host=h");
    expect("OPTIONS * HTTP/1.1\r\n" HOST END, "OPTIONS#6 * ?  host h 1.1 keep | Host=h");
}

RH_TEST(http1, values_lose_the_white_space_around_them_and_keep_what_is_inside)
{
    expect(GET HOST "A:\t x \ty\t \r\nB:\r\nC: \t \r\nD:: ;\"\\\xc3\xa9\r\n\r\n",
           "GET#0 / ?  host h 1.1 keep | Host=h | A=x \ty | B= | C= | D=: ;\"\\\xc3\xa9");
}

RH_TEST(http1, one_empty_line_in_front_is_skipped_and_no_second)
{
    expect("\r\n" GET HOST END, "GET#0 / ?  host h 1.1 keep | Host=h");
    expect_no("\r\n\r\n" GET HOST END, "400 the request line does not end in an HTTP version");
    expect_no("\n" GET HOST END, "400 a line ends in LF without CR");
    expect_no("\r" GET HOST END, "400 a CR without LF");
}

RH_TEST(http1, an_absolute_target_brings_its_own_host)
{
    expect("GET http://a.b:81/x?y HTTP/1.1\r\n" HOST END,
           "GET#0 /x ? y host a.b:81 1.1 keep | Host=h");
    expect("GET HTTPS://[::1] HTTP/1.1\r\n" HOST END, "GET#0 / ?  host [::1] 1.1 keep | Host=h");
    expect("GET http://a?y/z HTTP/1.1\r\n" HOST END, "GET#0 / ? y/z host a 1.1 keep | Host=h");
    expect("GET http://a HTTP/1.0\r\n\r\n", "GET#0 / ?  host a 1.0");
    expect_no("GET http://a/ HTTP/1.1\r\n\r\n", "400 no Host field");
    expect_no("GET http://a/ HTTP/1.1\r\nHost: a/\r\n\r\n", "400 an invalid Host field");
    expect_no("GET http://u@a/ HTTP/1.1\r\n" HOST END, "400 a request target with an invalid host");
    expect_no("GET http:///x HTTP/1.1\r\n" HOST END, "400 a request target with an invalid host");
    expect_no("GET http:// HTTP/1.1\r\n" HOST END, "400 a request target with an invalid host");
    expect_no("GET http:/a HTTP/1.1\r\n" HOST END,
              "400 a request target of a form that is not served here");
    expect_no("GET ftp://a/ HTTP/1.1\r\n" HOST END,
              "400 a request target of a form that is not served here");
}

RH_TEST(http1, keep_alive_follows_version_and_connection)
{
    expect("GET / HTTP/1.0\r\n\r\n", "GET#0 / ?  host  1.0");
    expect("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
           "GET#0 / ?  host  1.0 keep | Connection=Keep-Alive");
    expect("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
           "GET#0 / ?  host  1.0 | Connection=keep-alive, close");
    expect(GET HOST "Connection: x\r\nConnection: ,close\r\n\r\n",
           "GET#0 / ?  host h 1.1 | Host=h | Connection=x | Connection=,close");
    expect(GET HOST "Connection: closed\r\n\r\n",
           "GET#0 / ?  host h 1.1 keep | Host=h | Connection=closed");
    expect("GET / HTTP/1.9\r\n" HOST END, "GET#0 / ?  host h 1.1 keep | Host=h");
}

RH_TEST(http1, what_follows_a_head_is_left_alone)
{
    static const char two[] = GET HOST END "\0\r\n GET", empty_lines[] = "\r\n" GET HOST END "\r\n";
    static char got[TEXT_MAX];

    RH_EQ_INT(cuts(two, sizeof(two) - 1, HEAD_MAX, got), strlen(GET HOST END));
    RH_EQ_INT(cuts(empty_lines, sizeof(empty_lines) - 1, HEAD_MAX, got),
              strlen("\r\n" GET HOST END));
}

RH_TEST(http1, request_lines_that_are_refused)
{
    static const char no_version[] = "400 the request line does not end in an HTTP version";
    static const char space[] = "400 a space too many in the request line";
    static const char method[] = "400 a character in the method that is not allowed";
    static const char target[] = "400 a character in the request target that is not allowed";
    static const char form[] = "400 a request target of a form that is not served here";
    static const char version[] = "505 a version of HTTP other than 1";
    static const char bare_lf[] = "400 a line ends in LF without CR";
    static const struct {
        const char *line, *answer;
    } bad[] = {
        {"GET /", no_version}, /* HTTP/0.9 */
        {"GET", no_version},
        {"GET / ", no_version},
        {"GET / HTTP", no_version},
        {"GET / HTTP/1", no_version},
        {"GET / HTTP/1.", no_version},
        {"GET / HTTP/1.10", no_version},
        {"GET / HTTP/1.1 ", no_version},
        {"GET / HTTP/11", no_version},
        {"GET / HTTP/x.1", no_version},
        {"GET / http/1.1", no_version},
        {"GET / HTTPS/1.1", no_version},
        {"GET / x HTTP/1.1", no_version},
        {"GET /\tHTTP/1.1", target},
        {"GET\t/ HTTP/1.1", method},
        {" GET / HTTP/1.1", space},
        {"GET  / HTTP/1.1", space},
        {"GET /  HTTP/1.1", space},
        {"G(T / HTTP/1.1", method},
        {"G\xc3\x8bT / HTTP/1.1", method},
        {"\x16\x03\x01 / HTTP/1.1", method}, /* TLS */
        {"GET /\x01 HTTP/1.1", target},
        {"GET /\x7f HTTP/1.1", target},
        {"GET /\xc3\xa9 HTTP/1.1", target},
        {"GET /<> HTTP/1.1", target},
        {"GET /\"a\" HTTP/1.1", target},
        {"GET /{a} HTTP/1.1", target},
        {"GET /a|b HTTP/1.1", target},
        {"GET /a\\b HTTP/1.1", target},
        {"GET /a^b HTTP/1.1", target},
        {"GET /`a` HTTP/1.1", target},
        {"GET /a#b HTTP/1.1", "400 a fragment in the request target"},
        {"GET /%4 HTTP/1.1", "400 a broken percent escape in the request target"},
        {"GET /a?%%41 HTTP/1.1", "400 a broken percent escape in the request target"},
        {"GET /%zz HTTP/1.1", "400 a broken percent escape in the request target"},
        {"GET /% HTTP/1.1", "400 a broken percent escape in the request target"},
        {"GET * HTTP/1.1", form},
        {"OPTIONS ** HTTP/1.1", form},
        {"CONNECT h:80 HTTP/1.1", form},
        {"GET ws HTTP/1.1", form},
        {"GET ?a HTTP/1.1", form},
        {"GET / HTTP/2.0", version},
        {"PRI * HTTP/2.0", version},
        {"GET / HTTP/0.9", version},
        {"GET / HTTP/3.1", version},
        {"GET /\rx HTTP/1.1", no_version},
        {"GET / HTTP/1.1\rx", "400 a CR without LF"},
        {"GET / HTTP/1.1\r", "400 a CR without LF"},
        {"GET / HTTP/1.1\nx", bare_lf},
        {"GET\n", bare_lf},
        {"GET /\n", bare_lf},
    };
    char wire[256];

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(wire, sizeof(wire), "%s\r\n" HOST END, bad[i].line);
        expect_no(wire, bad[i].answer);
    }
}

RH_TEST(http1, field_lines_that_are_refused)
{
    static const char name[] = "400 a character in a field's name that is not allowed";
    static const char value[] = "400 a control character in a field's value";
    static const char begins[] = "400 a field line begins with white space";
    static const char colon[] = "400 white space in front of a field's colon";
    static const struct {
        const char *line, *answer;
    } bad[] = {
        {"A: b\r\n c: d", begins}, /* obs-fold */
        {"A: b\r\n\tc", begins},
        {" A: b", begins},
        {"A : b", colon},
        {"A\t: b", colon},
        {"A b: c", colon},
        {": b", "400 a field without a name"},
        {"A", "400 a field line without a colon"},
        {"A(: b", name},
        {"A\x01: b", name},
        {"\xc3\xa9: b", name},
        {"A=b", name},
        {"A/b: c", name},
        {"A: b\x01", value},
        {"A: \x7f", value},
        {"A: \x1b[0m", value},
        {"A: b\rc", "400 a CR without LF"},
        {"A: b\r\rX: y", "400 a CR without LF"},
        {"A: b\nX: y", "400 a line ends in LF without CR"},
        {"A\n: y", "400 a line ends in LF without CR"},
        {"\nX: y", "400 a line ends in LF without CR"},
        {"\rX: y", "400 a CR without LF"},
    };
    char wire[256];

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(wire, sizeof(wire), GET HOST "%s\r\n\r\n", bad[i].line);
        expect_no(wire, bad[i].answer);
        snprintf(wire, sizeof(wire), GET "%s\r\n" HOST END, bad[i].line); /* as first field, too */
        expect_no(wire, bad[i].answer);
    }
}

/* Goal    a zero is a bad byte wherever it stands, not an end.
 * Method  overwrites each byte of a good head in turn. */
RH_TEST(http1, a_zero_anywhere_is_malformed)
{
    static const char wire[] = "\r\nGET /a?b HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
    static char bent[sizeof(wire)], got[TEXT_MAX];

    for (size_t i = 0; i < sizeof(wire) - 1; i++) {
        memcpy(bent, wire, sizeof(wire));
        bent[i] = 0;
        RH_EQ_INT(cuts(bent, sizeof(wire) - 1, HEAD_MAX, got), -400);
    }
}

RH_TEST(http1, hosts_that_are_refused)
{
    static const char *const bad[] = {
        "",       "a b",  "a,b",  "a/b",   "a?b",       "a#b",     "a@b",
        "a\\b",   "a%41", "a:b",  "a:1:2", "a:0",       "a:65536", "a:99999999999999",
        ":80",    "[::1", "[]",   "[::g]", "[1.2.3.4]", "[::1]x",  "[::1%25eth0]",
        "[v1.a]", "::1",  "a:+1", "a: 1",  "\xc3\xa9",  "a[::1]"};
    static const char *const good[] = {
        "a",        "A.b-c_d~e", "1.2.3.4:1", "a:65535",
        "a:",       "a.b.",      "[::1]:",    "[::ffff:1.2.3.4]:8080",
        "[fe80::1]"};
    static char wire[256], got[TEXT_MAX];

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(wire, sizeof(wire), GET "Host: %s\r\n\r\n", bad[i]);
        expect_no(wire, "400 an invalid Host field");
    }
    for (size_t i = 0; i < RH_COUNT(good); i++) {
        snprintf(wire, sizeof(wire), GET "Host: %s\r\n\r\n", good[i]);
        RH_EQ_INT(cuts(wire, strlen(wire), HEAD_MAX, got), strlen(wire));
    }
    expect_no(GET END, "400 no Host field");
    expect_no(GET "A: b\r\n\r\n", "400 no Host field");
    expect_no(GET HOST HOST END, "400 more than one Host field");
    expect_no(GET HOST "hOST: other\r\n\r\n", "400 more than one Host field");
    expect_no("GET / HTTP/1.0\r\n" HOST HOST END, "400 more than one Host field");
    expect_no("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", "400 an invalid Host field");
}

/* Goal    no request's end can be seen differently by us and by a proxy in front of us.
 * Method  the known smuggling vectors (CL.TE, TE.CL, TE.TE, doubled and padded lengths). */
RH_TEST(http1, smuggling_vectors_are_refused)
{
    static const char length[] = "400 an invalid Content-Length field";
    static const char lengths[] = "400 more than one Content-Length field";
    static const char both[] = "400 Content-Length beside Transfer-Encoding";
    static const char open_end[] = "400 a transfer coding without chunked at its end";
    static const char behind[] = "400 a transfer coding behind chunked";
    static const char coding[] = "400 a malformed transfer coding";
    static const char unknown[] = "501 a transfer coding that is not supported";
    static const struct {
        const char *fields, *answer;
    } bad[] = {
        {"Content-Length: 5\r\nTransfer-Encoding: chunked", both},
        {"Transfer-Encoding: chunked\r\nContent-Length: 0", both},
        {"transfer-encoding: gzip\r\ncontent-length: 0", both},
        {"Content-Length: 5\r\nContent-Length: 6", lengths},
        {"Content-Length: 5\r\nContent-Length: 5", lengths},
        {"Content-Length: 5\r\nCONTENT-LENGTH: 5", lengths},
        {"Content-Length: 5, 5", length},
        {"Content-Length: 5 5", length},
        {"Content-Length: +5", length},
        {"Content-Length: -5", length},
        {"Content-Length: 0x5", length},
        {"Content-Length: 5e1", length},
        {"Content-Length: 5.0", length},
        {"Content-Length: \"5\"", length},
        {"Content-Length:", length},
        {"Content-Length: \xd9\xa5", length}, /* an Arabic five */
        {"Content-Length: 18446744073709551616", length},
        {"Content-Length: 99999999999999999999", length},
        {"Content-Length : 5", "400 white space in front of a field's colon"},
        {"Content-Length: 5\r\n\t5", "400 a field line begins with white space"},
        {"Transfer-Encoding:", coding},
        {"Transfer-Encoding: ,chunked", coding},
        {"Transfer-Encoding: chunked,", behind},
        {"Transfer-Encoding: chunked, chunked", behind},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", behind},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", behind},
        {"Transfer-Encoding: chunked, gzip", behind},
        {"Transfer-Encoding: chunked;a=b", coding},
        {"Transfer-Encoding: \"chunked\"", coding},
        {"Transfer-Encoding: chun ked", coding},
        {"Transfer-Encoding: xchunked", open_end},
        {"Transfer-Encoding: chunkedx", open_end},
        {"Transfer-Encoding: identity", open_end},
        {"Transfer-Encoding: gzip", open_end},
        {"Transfer-Encoding: gzip, chunked", unknown},
        {"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", unknown},
        {"Transfer-Encoding: \x0b"
         "chunked",
         "400 a control character in a field's value"},
        {"Transfer-Encoding\x0b: chunked", "400 a character in a field's name that is not allowed"},
        {"X: y\nTransfer-Encoding: chunked", "400 a line ends in LF without CR"},
    };
    char wire[256];

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(wire, sizeof(wire), "POST / HTTP/1.1\r\n" HOST "%s\r\n\r\n", bad[i].fields);
        expect_no(wire, bad[i].answer);
    }
    expect_no("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
              "400 Transfer-Encoding in HTTP/1.0");
    expect("POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551615\r\n\r\n",
           "POST#2 / ?  host h 1.1 keep body 18446744073709551615 | Host=h"
           " | Content-Length=18446744073709551615");
    expect("POST / HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n",
           "POST#2 / ?  host h 1.1 keep | Host=h | Content-Length=0");
}

/* Goal    limits bind at their exact byte, cut or whole.
 * Method  request lines and heads of the limit, and of one byte more. */
RH_TEST(http1, limits_bind_at_their_exact_byte)
{
    static char wire[2 * HEAD_MAX], got[TEXT_MAX];
    int pad = HEAD_MAX / 2 - (int)strlen("GET / HTTP/1.1");
    size_t len;

    snprintf(wire, sizeof(wire), "GET /%0*d HTTP/1.1\r\n" HOST END, pad, 0);
    RH_EQ_INT(cuts(wire, strlen(wire), HEAD_MAX, got), strlen(wire));
    snprintf(wire, sizeof(wire), "\r\nGET /%0*d HTTP/1.1\r\n" HOST END, pad, 0);
    RH_EQ_INT(cuts(wire, strlen(wire), HEAD_MAX, got), strlen(wire));
    snprintf(wire, sizeof(wire), "GET /%0*d HTTP/1.1\r\n" HOST END, pad + 1, 0);
    expect_no(wire, "414 the request line is too long");
    snprintf(wire, sizeof(wire), "%0*d", HEAD_MAX, 0);
    expect_no(wire, "414 the request line is too long");

    pad = HEAD_MAX - (int)strlen(GET HOST "A: \r\n\r\n");
    snprintf(wire, sizeof(wire), GET HOST "A: %0*d\r\n\r\n", pad, 0);
    RH_EQ_INT(cuts(wire, strlen(wire), HEAD_MAX, got), HEAD_MAX);
    snprintf(wire, sizeof(wire), GET HOST "A: %0*d\r\n\r\n", pad + 1, 0);
    expect_no(wire, "431 the request's head is too long");
    len = strlen(wire);
    memset(wire + len, 1, 16); /* behind the limit nobody looks */
    RH_EQ_INT(cuts(wire, len + 16, HEAD_MAX, got), -431);
    wire[HEAD_MAX - 1] = 1; /* in front of it, the bad byte comes first */
    RH_EQ_INT(cuts(wire, len, HEAD_MAX, got), -400);
}

RH_TEST(http1, sixty_four_fields_are_taken_and_one_more_is_not)
{
    static char wire[HEAD_MAX], got[TEXT_MAX];

    for (int fields = RH_HTTP_HEADERS_MAX; fields <= RH_HTTP_HEADERS_MAX + 1; fields++) {
        int n = snprintf(wire, sizeof(wire), GET HOST);

        for (int i = 1; i < fields; i++)
            n += snprintf(wire + n, sizeof(wire) - (size_t)n, "A:\r\n");
        n += snprintf(wire + n, sizeof(wire) - (size_t)n, "\r\n");
        RH_EQ_INT(cuts(wire, (size_t)n, HEAD_MAX, got), fields > RH_HTTP_HEADERS_MAX ? -431 : n);
    }
}

#if defined(__SANITIZE_THREAD__)
#define LONG_HEAD (32 * 1024) /* every byte that memchr looks at is checked there */
#else
#define LONG_HEAD (256 * 1024)
#endif

/* Goal    bytes that come one by one cost about the same in a long head as in a short one.
 * Method  counts CPU time for a long head that way; looking at everything anew would take 34
 *         billion steps (256 KiB), half a minute at least. */
RH_TEST(http1, a_head_fed_byte_by_byte_is_not_quadratic)
{
    char *wire = malloc(LONG_HEAD);
    struct rh_http_head head;
    size_t scanned = 0;
    const char *why;
    clock_t start = clock();

    RH_OK_IF(wire != NULL);
    memset(wire, 'a', LONG_HEAD);
    memcpy(wire, GET HOST "A: ", strlen(GET HOST "A: "));
    for (size_t len = 0; len < LONG_HEAD; len++) {
        RH_OK_IF(rh_http_parse(wire, len, LONG_HEAD, &scanned, &head, &why) == 0);
        RH_OK_IF(scanned == len || wire[len - 1] == '\r');
    }
    RH_OK_IF((double)(clock() - start) / CLOCKS_PER_SEC < 10.0);
    free(wire);
}

/* Goal    heads drawn at random are answered the same however they are cut.
 * Method  good heads with a few bytes bent, cut at random places, against the whole. */
RH_TEST(http1, random_cuts_of_bent_heads_agree_with_the_whole)
{
    static const char good[] = "\r\nPOST /a?b=%20 HTTP/1.1\r\nHost: [::1]:80\r\nA:\r\n"
                               "Content-Length: 3\r\nConnection: close, x\r\n\r\nabc";
    static const char bytes[] = "\r\n :%a,[]#?\t\0\x7f\xff/.1";

    for (int round = 0; round < 20000; round++) {
        static char wire[sizeof(good)], text[2][TEXT_MAX];
        struct rh_http_head head;
        size_t len = 0, scanned = 0;
        const char *why = "";
        int rc;

        memcpy(wire, good, sizeof(good));
        for (uint64_t bend = rh_test_rand() % 4; bend > 0; bend--)
            wire[rh_test_rand() % (sizeof(good) - 1)] = bytes[rh_test_rand() % (sizeof(bytes) - 1)];
        rc = rh_http_parse(wire, sizeof(good) - 1, HEAD_MAX, NULL, &head, &why);
        show(text[0], TEXT_MAX, rc, &head, why);
        do {
            len += 1 + rh_test_rand() % 20;
            len = RH_MIN(len, sizeof(good) - 1);
            rc = rh_http_parse(placed(wire, len), len, HEAD_MAX, &scanned, &head, &why);
        } while (rc == 0 && len < sizeof(good) - 1);
        show(text[1], TEXT_MAX, rc, &head, why);
        RH_EQ_STR(text[1], text[0]);
    }
}

RH_TEST(http1, fields_are_found_whatever_their_case)
{
    static const char wire[] = GET HOST "X-A: 1\r\nx-a: 2\r\nList: a, B\r\nLIST: ,c;q=1,\r\n\r\n";
    struct rh_http_head head;
    const char *why;

    RH_OK_IF(rh_http_parse(wire, sizeof(wire) - 1, HEAD_MAX, NULL, &head, &why) > 0);
    RH_OK_IF(rh_span_eq(*rh_http_find(&head, "x-a"), RH_SPAN("1")));
    RH_EQ_INT(rh_http_count(&head, "x-a"), 2);
    RH_OK_IF(!rh_http_find(&head, "x-"));
    RH_OK_IF(!rh_http_find(&head, "x-ab"));
    RH_OK_IF(rh_http_has_token(&head, "list", "a"));
    RH_OK_IF(rh_http_has_token(&head, "list", "b"));
    RH_OK_IF(rh_http_has_token(&head, "list", "c;q=1"));
    RH_OK_IF(!rh_http_has_token(&head, "list", "c"));
    RH_OK_IF(!rh_http_has_token(&head, "x-b", "a"));
}

/* ---- responses ------------------------------------------------------------------------------- */

static void expect_response(const char *want, unsigned status, const char *type, const char *extra,
                            bool keep, const char *body, bool omitted)
{
    size_t len = strlen(want), body_len = body ? strlen(body) : 0;

    for (size_t room = 0; room <= len + 1; room++) {
        char *dst = (char *)page_end() - room;
        size_t got =
            rh_http_response(dst, room, status, type, extra, keep, body, body_len, omitted);

        RH_EQ_U64(got, room > len ? len : 0);
        if (got)
            RH_EQ_MEM(dst, want, len);
    }
}

RH_TEST(http1, responses_fit_whole_or_not_at_all)
{
    expect_response("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
                    "Connection: keep-alive\r\n\r\nok\n",
                    200, "text/plain", "", true, "ok\n", false);
    expect_response("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
                    "Connection: close\r\n\r\n",
                    503, NULL, "Retry-After: 1\r\n", false, NULL, false);
    expect_response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", 200,
                    NULL, "", true, "abc", true);
    expect_response("HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n", 204, NULL, "",
                    true, NULL, false);
    RH_EQ_STR(rh_http_reason(426), "Upgrade Required");
    RH_EQ_STR(rh_http_reason(299), "Unknown");
}

/* RFC 9110 5.6.7. */
RH_TEST(http1, dates_are_written_as_date_has_them)
{
    static const struct {
        uint64_t unix_s;
        const char *text;
    } cases[] = {
        {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"}, /* the RFC's own */
        {0, "Thu, 01 Jan 1970 00:00:00 GMT"},         {951782399, "Mon, 28 Feb 2000 23:59:59 GMT"},
        {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"}, {1798761599, "Thu, 31 Dec 2026 23:59:59 GMT"},
        {4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"}};

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        char *dst = (char *)rh_guard(NULL, RH_HTTP_DATE);

        rh_http_date(dst, cases[i].unix_s);
        RH_EQ_STR(dst, cases[i].text);
    }
}

RH_TEST(http1, response_heads_are_read_by_the_client)
{
    static const char wire[] = "HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\nrest";
    static const char *const bad[] = {"HTTP/1.1 10\r\n\r\n",          "HTTP/2.0 200 OK\r\n\r\n",
                                      "HTTP/1.1 200 OK\n\r\n",        "HTTP/1.1 2000\r\n\r\n",
                                      "HTTP/1.1 099 x\r\n\r\n",       "HTTP/1.1  200 OK\r\n\r\n",
                                      "HTTP/1.1 200 \x01\r\n\r\n",    "\n",
                                      "HTTP/1.1 200 OK\r\nA\r\n\r\n", "HTTP/1.1 20x OK\r\n\r\n",
                                      "HTTP/1.x 200 OK\r\n\r\n",      "\r\n\r\n"};
    struct rh_http_head head;
    unsigned status;

    for (size_t cut = 0; cut < sizeof(wire); cut++) {
        int rc = rh_http_parse_response(placed(wire, cut), cut, HEAD_MAX, &status, &head);

        RH_EQ_INT(rc, cut < sizeof(wire) - 5 ? 0 : (int)sizeof(wire) - 5);
    }
    RH_EQ_INT(status, 101);
    RH_EQ_INT(head.minor, 1);
    RH_EQ_INT(head.header_count, 1);
    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        size_t len = strlen(bad[i]);

        RH_EQ_INT(rh_http_parse_response(placed(bad[i], len), len, HEAD_MAX, &status, &head), -1);
    }
    RH_EQ_INT(rh_http_parse_response(wire, sizeof(wire) - 5, sizeof(wire) - 6, &status, &head), -1);
    RH_EQ_INT(rh_http_parse_response("HTTP/1.1 200", 12, 12, &status, &head), -1);
    RH_EQ_INT(rh_http_parse_response("HTTP/1.1 200\r\n\r\n", 16, 16, &status, &head), 16);
}
