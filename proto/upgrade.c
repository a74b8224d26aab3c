/* proto/upgrade.c - check a WebSocket handshake field by field.
 *
 * Why this way: the parsed head already tells a malformed request from a sound one, so here each
 * rule of RFC 6455 4.2.1 is one line of one table-like function, in the order in which an answer is
 * most useful: what is not a handshake at all (405, 426) before what is a wrong one (400).
 *
 * Limits     RH_UPGRADE_OFFERS_MAX subprotocols, which keeps the search for equal ones short.
 */
#include "proto/upgrade.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define SUBPROTOCOL     "ringhub.v1"
#define EXTENSIONS      "Sec-WebSocket-Extensions"
#define ANSWER_HEAD_MAX (16 * 1024)

enum { KEY_LEN = 24, ACCEPT_LEN = 28, SHA1_LEN = 20 };

/* RFC 6455 4.2.2, point 5.4. False: libcrypto had no memory. */
static bool accept_of_key(const char *key24, char *ret_accept28)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char text[KEY_LEN + sizeof(guid) - 1], digest[SHA1_LEN], base64[ACCEPT_LEN + 1];

    memcpy(text, key24, KEY_LEN);
    memcpy(text + KEY_LEN, guid, sizeof(guid) - 1);
    if (EVP_Digest(text, sizeof(text), digest, NULL, EVP_sha1(), NULL) != 1)
        return false;
    EVP_EncodeBlock(base64, digest, SHA1_LEN);
    memcpy(ret_accept28, base64, ACCEPT_LEN);
    return true;
}

/* 22 digits of base64 hold 16 bytes and four bits over, which are zero after A, Q, g and w. */
static bool key_ok(struct rh_span key)
{
    if (key.len != KEY_LEN || memcmp(key.at + 22, "==", 2) != 0)
        return false;
    for (int i = 0; i < 22; i++) {
        char c = key.at[i];

        if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
            c != '+' && c != '/')
            return false;
    }
    return memchr("AQgw", key.at[21], 4) != NULL;
}

/* ---- lists: subprotocols and extensions -------------------------------------------------------- */

/* RFC 6455 4.1, point 10: tokens, each once. Empty elements are nothing, but something has to be
 * there (RFC 6455 4.3, RFC 9110 5.6.1.2). */
static bool choose_subprotocol(const struct rh_http_head *head, struct rh_span *ret_chosen)
{
    struct rh_span offers[RH_UPGRADE_OFFERS_MAX], rest, item;
    unsigned count = 0;

    *ret_chosen = (struct rh_span){SUBPROTOCOL, 0};
    for (unsigned i = 0; i < head->header_count; i++) {
        if (!rh_http_same(head->headers[i].name, "sec-websocket-protocol"))
            continue;
        rest = head->headers[i].value;
        while (rh_http_list_next(&rest, &item)) {
            if (!item.len)
                continue;
            if (!rh_http_is_token(item) || count == RH_UPGRADE_OFFERS_MAX)
                return false;
            for (unsigned k = 0; k < count; k++) {
                if (rh_span_eq(offers[k], item))
                    return false;
            }
            offers[count++] = item;
            if (rh_span_eq(item, RH_SPAN(SUBPROTOCOL)))
                *ret_chosen = RH_SPAN(SUBPROTOCOL);
        }
    }
    return count > 0 || !rh_http_find(head, "sec-websocket-protocol");
}

/* A quoted value is a token, too, once its quotes are gone (RFC 6455 9.1); so no list that is well
 * formed has a comma or semicolon inside of quotes, and cutting at those is right. */
static bool param_value_ok(struct rh_span value)
{
    if (!value.len || *value.at != '"')
        return rh_http_is_token(value);
    if (value.len < 3 || value.at[value.len - 1] != '"')
        return false;
    for (uint32_t i = 1; i < value.len - 1; i++) {
        if (value.at[i] == '\\' && ++i == value.len - 1) /* it would escape the closing quote */
            return false;
        if (!rh_http_is_token((struct rh_span){value.at + i, 1}))
            return false;
    }
    return true;
}

/* token *( ";" token [ "=" ( token | quoted token ) ] ) */
static bool extension_ok(struct rh_span rest)
{
    if (!rh_http_is_token(rh_http_cut(&rest, ';')))
        return false;
    while (rest.at) {
        struct rh_span param = rh_http_cut(&rest, ';');

        if (!rh_http_is_token(rh_http_cut(&param, '=')) ||
            (param.at && !param_value_ok(rh_http_trim(param))))
            return false;
    }
    return true;
}

/* All offers, in the order of the client's preference; false: one is malformed. */
static bool choose_deflate(const struct rh_http_head *head, const struct rh_deflate_wish *wish,
                           struct rh_deflate_terms *ret_terms)
{
    bool some = !rh_http_find(head, "sec-websocket-extensions"); /* empty elements are nothing */
    struct rh_span rest, item;

    *ret_terms = (struct rh_deflate_terms){0};
    for (unsigned i = 0; i < head->header_count; i++) {
        if (!rh_http_same(head->headers[i].name, "sec-websocket-extensions"))
            continue;
        rest = head->headers[i].value;
        while (rh_http_list_next(&rest, &item)) {
            if (!item.len)
                continue;
            if (!extension_ok(item))
                return false;
            if (wish && !ret_terms->server_bits)
                rh_deflate_offer(item, wish, ret_terms);
            some = true;
        }
    }
    return some;
}

/* ---- traceparent --------------------------------------------------------------------------------- */

/* `len` lower-case hex digits, at least one of them not 0. */
static bool is_id(const char *at, size_t len)
{
    bool zero = true;

    for (size_t i = 0; i < len; i++) {
        if (!(at[i] >= '0' && at[i] <= '9') && !(at[i] >= 'a' && at[i] <= 'f'))
            return false;
        zero = zero && at[i] == '0';
    }
    return !zero;
}

static bool is_hex2(const char *at)
{
    return is_id(at, 2) || memcmp(at, "00", 2) == 0;
}

bool rh_upgrade_trace(const struct rh_http_head *head, char ret_trace_id[32])
{
    const struct rh_span *value = rh_http_find(head, "traceparent");
    const char *at = value ? value->at : NULL;

    /* 00-<32: trace>-<16: parent>-<2: flags>; later versions may go on with another '-' */
    if (!value || value->len < 55 || rh_http_count(head, "traceparent") != 1)
        return false;
    if (!is_hex2(at) || memcmp(at, "ff", 2) == 0)
        return false;
    if (value->len > 55 && (memcmp(at, "00", 2) == 0 || at[55] != '-'))
        return false;
    if (at[2] != '-' || !is_id(at + 3, 32) || at[35] != '-' || !is_id(at + 36, 16) ||
        at[52] != '-' || !is_hex2(at + 53))
        return false;
    memcpy(ret_trace_id, at + 3, 32);
    return true;
}

/* ---- the server's end ---------------------------------------------------------------------------- */

static unsigned refuse(const char **why, unsigned status, const char *sentence)
{
    *why = sentence;
    return status;
}

static unsigned check_request(const struct rh_http_head *head, const char **why)
{
    const struct rh_span *version = rh_http_find(head, "sec-websocket-version");
    const struct rh_span *key = rh_http_find(head, "sec-websocket-key");

    if (head->method != RH_HTTP_GET)
        return refuse(why, 405, "a WebSocket handshake is a GET");
    if (!rh_http_has_token(head, "upgrade", "websocket"))
        return refuse(why, 426, "this path speaks WebSocket only");
    if (head->minor < 1) /* where Upgrade is to be ignored (RFC 9110 7.8) */
        return refuse(why, 426, "a WebSocket handshake needs HTTP/1.1");
    if (!rh_http_has_token(head, "connection", "upgrade"))
        return refuse(why, 400, "Connection does not name Upgrade");
    if (head->has_body)
        return refuse(why, 400, "a WebSocket handshake has no body");
    if (rh_http_count(head, "expect")) /* 100 would have to come before 101 (RFC 9110 7.8) */
        return refuse(why, 400, "a WebSocket handshake has nothing to expect");
    if (!version || rh_http_count(head, "sec-websocket-version") > 1)
        return refuse(why, 400, "there has to be one Sec-WebSocket-Version");
    if (!rh_span_eq(*version, RH_SPAN("13")))
        return refuse(why, 426, "only version 13 of WebSocket is spoken here");
    if (!key || rh_http_count(head, "sec-websocket-key") > 1)
        return refuse(why, 400, "there has to be one Sec-WebSocket-Key");
    if (!key_ok(*key))
        return refuse(why, 400, "Sec-WebSocket-Key is not the base64 of 16 bytes");
    return 0;
}

unsigned rh_upgrade_check(const struct rh_http_head *head,
                          const struct rh_deflate_wish *wish_or_NULL, struct rh_upgrade *ret_up,
                          const char **ret_why)
{
    struct rh_upgrade up;
    unsigned status = check_request(head, ret_why);

    if (status)
        return status;
    if (!choose_subprotocol(head, &up.subprotocol))
        return refuse(ret_why, 400, "a malformed Sec-WebSocket-Protocol");
    if (!choose_deflate(head, wish_or_NULL, &up.deflate))
        return refuse(ret_why, 400, "a malformed Sec-WebSocket-Extensions");
    if (!accept_of_key(rh_http_find(head, "sec-websocket-key")->at, up.accept))
        return refuse(ret_why, 500, "no memory for the handshake");
    up.has_trace = rh_upgrade_trace(head, up.trace_id);
    *ret_up = up;
    return 0;
}

size_t rh_upgrade_response(char *dst, size_t room, const struct rh_upgrade *up)
{
    const bool named = up->subprotocol.len > 0, squeezed = up->deflate.server_bits;
    char deflate[RH_DEFLATE_TEXT] = "";
    int len;

    if (squeezed)
        rh_deflate_answer(deflate, &up->deflate);
    len = snprintf(dst, room,
                   "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                   "Connection: Upgrade\r\nSec-WebSocket-Accept: %.*s\r\n%s%.*s%s%s%s%s\r\n",
                   ACCEPT_LEN, up->accept, named ? "Sec-WebSocket-Protocol: " : "",
                   (int)up->subprotocol.len, up->subprotocol.at, named ? "\r\n" : "",
                   squeezed ? EXTENSIONS ": " : "", deflate, squeezed ? "\r\n" : "");

    return len < 0 || (size_t)len >= room ? 0 : (size_t)len;
}

/* ---- origin -------------------------------------------------------------------------------------- */

/* Names but for case, addresses by value: [::1] is [0:0:0:0:0:0:0:1]. Both are valid hosts. */
static bool same_host(struct rh_span a, struct rh_span b)
{
    char text[2][INET6_ADDRSTRLEN];
    struct in6_addr addr[2];

    if (*a.at != '[' || *b.at != '[')
        return a.len == b.len && strncasecmp(a.at, b.at, a.len) == 0;
    snprintf(text[0], sizeof(text[0]), "%.*s", (int)a.len - 2, a.at + 1);
    snprintf(text[1], sizeof(text[1]), "%.*s", (int)b.len - 2, b.at + 1);
    return inet_pton(AF_INET6, text[0], &addr[0]) == 1 &&
           inet_pton(AF_INET6, text[1], &addr[1]) == 1 &&
           memcmp(&addr[0], &addr[1], sizeof(addr[0])) == 0;
}

/* The port that a scheme means; 0: not one that a browser's page has here. */
static unsigned default_port(struct rh_span scheme)
{
    if (rh_http_same(scheme, "http") || rh_http_same(scheme, "ws"))
        return 80;
    if (rh_http_same(scheme, "https") || rh_http_same(scheme, "wss"))
        return 443;
    return 0;
}

/* Takes "scheme://host[:port]" apart; the port is the scheme's where it names none. */
static bool read_origin(struct rh_span origin, struct rh_span *ret_scheme, struct rh_span *ret_host,
                        unsigned *ret_port)
{
    unsigned port;

    *ret_scheme = rh_http_cut(&origin, ':');
    port = default_port(*ret_scheme);
    if (!port || origin.len < 3 || memcmp(origin.at, "//", 2) != 0)
        return false;
    origin = (struct rh_span){origin.at + 2, origin.len - 2};
    if (!rh_http_authority(origin, ret_host, ret_port))
        return false;
    *ret_port = *ret_port ? *ret_port : port;
    return true;
}

bool rh_origin_same(const struct rh_http_head *head)
{
    const struct rh_span *origin = rh_http_find(head, "origin");
    struct rh_span scheme, ours, theirs;
    unsigned our_port, their_port;

    if (!origin)
        return true;
    if (rh_http_count(head, "origin") > 1 || !read_origin(*origin, &scheme, &theirs, &their_port) ||
        !rh_http_authority(head->host, &ours, &our_port))
        return false;
    return same_host(ours, theirs) && (our_port ? our_port : default_port(scheme)) == their_port;
}

bool rh_origin_listed(const struct rh_http_head *head, const char *entry)
{
    const struct rh_span *origin = rh_http_find(head, "origin");
    struct rh_span scheme, host, their_scheme, their_host;
    unsigned port, their_port;

    if (!origin || rh_http_count(head, "origin") > 1)
        return false;
    if (strcmp(entry, "*") == 0)
        return true;
    return read_origin((struct rh_span){entry, (uint32_t)strlen(entry)}, &scheme, &host, &port) &&
           read_origin(*origin, &their_scheme, &their_host, &their_port) &&
           same_host(scheme, their_scheme) && same_host(host, their_host) && port == their_port;
}

/* ---- the client's end ---------------------------------------------------------------------------- */

size_t rh_upgrade_request(char *dst, size_t room, const char *host, const char *path,
                          const char key24[24], const struct rh_deflate_ask *ask_or_NULL)
{
    char deflate[RH_DEFLATE_TEXT] = "";
    int len;

    if (ask_or_NULL)
        rh_deflate_ask(deflate, ask_or_NULL);
    len = snprintf(dst, room,
                   "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
                   "Connection: Upgrade\r\nSec-WebSocket-Key: %.*s\r\n"
                   "Sec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                   path, host, KEY_LEN, key24, ask_or_NULL ? EXTENSIONS ": " : "", deflate,
                   ask_or_NULL ? "\r\n" : "");

    return len < 0 || (size_t)len >= room ? 0 : (size_t)len;
}

/* RFC 6455 4.1, point 5, and RFC 7692 5.1: no extension, or the one that was offered, once. */
static bool answer_extensions(const struct rh_http_head *head, const struct rh_deflate_ask *ask,
                              struct rh_deflate_terms *ret_terms)
{
    const struct rh_span *said = rh_http_find(head, "sec-websocket-extensions");

    if (!said) {
        if (ask)
            *ret_terms = (struct rh_deflate_terms){0};
        return true;
    }
    return ask && rh_http_count(head, "sec-websocket-extensions") == 1 && extension_ok(*said) &&
           rh_deflate_answered(*said, ask, ret_terms);
}

/* RFC 6455 4.1, "the client MUST validate the server's response", points 2 to 6. */
int rh_upgrade_answer(const char *buf, size_t len, const char key24[24],
                      const struct rh_deflate_ask *ask_or_NULL, struct rh_deflate_terms *ret_terms)
{
    struct rh_http_head head;
    const struct rh_span *accept;
    char expected[ACCEPT_LEN];
    unsigned status;
    int rc = rh_http_parse_response(buf, len, ANSWER_HEAD_MAX, &status, &head);

    if (rc <= 0)
        return rc;
    if (status != 101)
        return -(int)status;
    accept = rh_http_find(&head, "sec-websocket-accept");
    if (!rh_http_has_token(&head, "upgrade", "websocket") ||
        !rh_http_has_token(&head, "connection", "upgrade") || !accept ||
        rh_http_count(&head, "sec-websocket-accept") > 1 ||
        rh_http_count(&head, "sec-websocket-protocol"))
        return -1;
    if (!accept_of_key(key24, expected) ||
        !rh_span_eq(*accept, (struct rh_span){expected, ACCEPT_LEN}))
        return -1;
    if (!answer_extensions(&head, ask_or_NULL, ret_terms))
        return -1;
    return rc;
}
