/* tests/fuzz/fuzz_http1.c - bytes of any kind against the request-head parser and what reads heads.
 *
 * Checked for every input, beside the sanitizers' rules:
 *   (1) whole, grown with `scanned` handed on, and each prefix alone give the same answer;
 *   (2) every span lies inside the head and holds no CR, LF or zero, names and methods only what
 *       a token may;
 *   (3) framing is never ambiguous: no length beside chunked, one Host in HTTP/1.1;
 *   (4) what rh_upgrade_check takes, our own client takes the answer to, unless that has
 *       permessage-deflate in it, which the client did not ask for;
 *   (5) walking and finding agree on the query; decoding never grows.
 * The first byte picks head_max and the steps of growth.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/query.h"
#include "proto/upgrade.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A copy of its own, so that ASan sees a byte too far at either end. */
static char *copied(const char *at, size_t len)
{
    char *copy = malloc(len ? len : 1);

    rh_assert(copy != NULL);
    if (len)
        memcpy(copy, at, len);
    return copy;
}

static void check_span(struct rh_span span, const char *buf, int len)
{
    rh_assert(span.at >= buf && span.at + span.len <= buf + len);
    for (uint32_t i = 0; i < span.len; i++)
        rh_assert(span.at[i] != '\r' && span.at[i] != '\n' && span.at[i] != 0);
}

static void check_head(const struct rh_http_head *head, const char *buf, int len)
{
    check_span(head->method_text, buf, len);
    check_span(head->target, buf, len);
    check_span(head->path, buf, len);
    check_span(head->query, buf, len);
    check_span(head->host, buf, len);
    rh_assert(rh_http_is_token(head->method_text));
    rh_assert(head->path.len > 0);
    rh_assert(*head->path.at == '/' || head->method == RH_HTTP_OPTIONS);
    rh_assert(head->minor <= 1 && head->header_count <= RH_HTTP_HEADERS_MAX);
    for (unsigned i = 0; i < head->header_count; i++) {
        check_span(head->headers[i].name, buf, len);
        check_span(head->headers[i].value, buf, len);
        rh_assert(rh_http_is_token(head->headers[i].name));
    }
    rh_assert(rh_http_count(head, "host") <= 1);
    rh_assert(head->minor == 0 || (rh_http_count(head, "host") == 1 && head->host.len > 0));
    rh_assert(!head->chunked || (head->minor == 1 && !rh_http_count(head, "content-length")));
    rh_assert(head->chunked == (rh_http_count(head, "transfer-encoding") > 0));
    rh_assert(head->has_body == (head->chunked || head->content_length > 0));
    rh_assert(buf[len - 1] == '\n' && buf[len - 2] == '\r' && buf[len - 3] == '\n');
}

/* Where two heads, parsed from two buffers, must be equal. */
static void check_equal(const struct rh_http_head *a, const char *a_buf,
                        const struct rh_http_head *b, const char *b_buf)
{
    rh_assert(a->method == b->method && a->minor == b->minor && a->keep_alive == b->keep_alive);
    rh_assert(a->has_body == b->has_body && a->content_length == b->content_length);
    rh_assert(a->chunked == b->chunked && a->header_count == b->header_count);
    rh_assert(a->path.at - a_buf == b->path.at - b_buf && a->path.len == b->path.len);
    rh_assert(a->query.at - a_buf == b->query.at - b_buf && a->query.len == b->query.len);
    rh_assert(a->host.at - a_buf == b->host.at - b_buf && a->host.len == b->host.len);
    for (unsigned i = 0; i < a->header_count; i++) {
        rh_assert(rh_span_eq(a->headers[i].name, b->headers[i].name));
        rh_assert(rh_span_eq(a->headers[i].value, b->headers[i].value));
    }
}

static void check_growth(const char *wire, size_t len, size_t head_max, size_t step, int whole,
                         const struct rh_http_head *head, const char *why)
{
    size_t scanned = 0, have = 0;
    int rc = 0;

    while (rc == 0 && have < len) {
        struct rh_http_head grown, alone;
        const char *grown_why = NULL, *alone_why = NULL;
        char *buf;

        have = RH_MIN(len, have + step);
        buf = copied(wire, have);
        rc = rh_http_parse(buf, have, head_max, &scanned, &grown, &grown_why);
        rh_assert(scanned <= have && (rc == 0 || scanned == 0));
        rh_assert(rh_http_parse(buf, have, head_max, NULL, &alone, &alone_why) == rc);
        rh_assert(grown_why == alone_why);
        if (rc > 0)
            check_equal(&grown, buf, head, wire);
        rh_assert(rc >= 0 || grown_why == why);
        free(buf);
    }
    rh_assert(rc == whole);
}

static void check_query(struct rh_span query)
{
    struct rh_span rest = query, name, value, found;
    bool more;

    while (rh_query_next(&rest, &name, &value)) {
        char text[64];
        int len = rh_percent_decode(text, sizeof(text), name);

        rh_assert(value.at >= query.at && value.at + value.len <= query.at + query.len);
        if (len >= 0)
            rh_name_ok(text, (size_t)len);
        rh_assert(len <= (int)name.len);
        if (len < 0 || len == sizeof(text) || memchr(text, 0, (size_t)len))
            continue;
        text[len] = 0;
        rh_assert(rh_query_find(query, text, &found, &more));
        rh_assert(found.at <= value.at && (more || found.at == value.at));
    }
}

static void check_upgrade(const struct rh_http_head *head)
{
    static const struct rh_deflate_wish wish = {.bits = 12};
    struct rh_upgrade up;
    const char *why = NULL;
    unsigned status = rh_upgrade_check(head, &wish, &up, &why);
    char answer[512];
    size_t len;

    rh_origin_same(head);
    if (status) {
        rh_assert(why != NULL && (status == 400 || status == 405 || status == 426));
        return;
    }
    up.subprotocol.len = 0; /* our client offers none */
    len = rh_upgrade_response(answer, sizeof(answer), &up);
    rh_assert(rh_upgrade_answer(answer, len, rh_http_find(head, "sec-websocket-key")->at, NULL,
                                NULL) == (up.deflate.server_bits ? -1 : (int)len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const size_t head_max[] = {16384, 256, 1024, 40};
    static const struct rh_deflate_ask ask = {.client_bits = RH_DEFLATE_ANY};
    struct rh_deflate_terms terms;
    struct rh_http_head head;
    const char *why = NULL;
    char *wire;
    size_t max;
    int rc;

    if (len < 1)
        return 0;
    wire = copied((const char *)data + 1, len - 1);
    max = head_max[data[0] & 3];
    rc = rh_http_parse(wire, len - 1, max, NULL, &head, &why);
    rh_assert(rc <= (int)max && (rc < 0) == (why != NULL));
    check_growth(wire, len - 1, max, 1 + (data[0] >> 2), rc, &head, why);
    if (rc > 0) {
        check_head(&head, wire, rc);
        check_query(head.query);
        check_upgrade(&head);
    }
    rh_upgrade_answer(wire, len - 1, "dGhlIHNhbXBsZSBub25jZQ==", &ask, &terms);
    check_query((struct rh_span){wire, (uint32_t)len - 1});
    free(wire);
    return 0;
}
