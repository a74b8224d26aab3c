/* proto/http1.h - strict HTTP/1.1 heads: parse a request's, write a response's.
 *
 * What two programs could read in two ways is refused, because a proxy in front of us may have
 * read it the other way (RFC 9112 section 11.2, request smuggling). So beyond the grammar:
 *   - lines end in CR LF; a bare LF or CR, a fold (RFC 9112 5.2) or white space around a field's
 *     name is 400.  One empty line before the request line is skipped (RFC 9112 2.2), no more.
 *   - exactly one Host in HTTP/1.1, at most one in 1.0; its value is a name of letters, digits and
 *     "-._~", or an IPv6 literal in brackets, and a port from 1 to 65535, if any.
 *   - at most one Content-Length, none beside Transfer-Encoding; of transfer codings we know
 *     "chunked" alone: another one before it is 501, and 400 where chunked isn't the last
 *     (RFC 9112 6.3).  Transfer-Encoding in HTTP/1.0 is 400.
 *   - the target holds only the characters that RFC 3986 knows (what a browser sends raw in
 *     addition, such as "|" or "{", has to be percent-encoded), whole escapes and no fragment. It is
 *     origin-form, absolute-form with http or https and without user information, or OPTIONS *.
 *   - version 1.2 and up are read as 1.1 (RFC 9110 2.5); another major version is 505.
 *
 * Threads    no state anywhere: any thread.
 * Ownership  all spans point into the caller's buffer and live as long as that.
 * Limits     a head has at most head_max bytes (an empty line in front counts), else 431; its
 *            request line, without CR LF, at most head_max / 2, else 414; at most
 *            RH_HTTP_HEADERS_MAX field lines, else 431.
 */
#ifndef RH_HTTP1_H
#define RH_HTTP1_H

#include "core/base.h"

#define RH_HTTP_HEADERS_MAX 64

enum rh_http_method {
    RH_HTTP_GET,
    RH_HTTP_HEAD,
    RH_HTTP_POST,
    RH_HTTP_PUT,
    RH_HTTP_PATCH,
    RH_HTTP_DELETE,
    RH_HTTP_OPTIONS,
    RH_HTTP_OTHER, /* any other token; method_text has it */
};

struct rh_http_header {
    struct rh_span name;  /* as sent */
    struct rh_span value; /* without surrounding white space; no control characters but HTAB */
};

struct rh_http_head {
    enum rh_http_method method;
    struct rh_span method_text;
    struct rh_span target;   /* as sent */
    struct rh_span path;     /* not decoded; never empty: "/..." or, for OPTIONS *, "*" */
    struct rh_span query;    /* without '?', not decoded; len 0 when there is none */
    struct rh_span host;     /* Host's value or, for an absolute-form target, its authority */
    unsigned minor;          /* 1: HTTP/1.1, 0: HTTP/1.0 */
    bool keep_alive;         /* by version and Connection */
    bool has_body;           /* bytes follow: chunked, or content_length > 0 */
    uint64_t content_length; /* 0 when absent */
    bool chunked;
    unsigned header_count;
    struct rh_http_header headers[RH_HTTP_HEADERS_MAX];
};

/* Looks for one whole head at the front of buf. Returns its length in bytes, 0 for "need more", or
 * -(HTTP status): -400, -414, -431, -501, -505, with *ret_why a static sentence. ret_head means
 * something only after a positive answer.
 *
 * A bad byte is refused when it arrives, what the request line says at the line's end, what the
 * fields say together at the head's end; so the answer doesn't depend on how the head was cut.
 *
 * `scanned` (NULL allowed) spares a growing buffer the second look: 0 at first, then handed back
 * as it was left, with the same bytes in front; 0 again after any answer but "need more". A call
 * costs the new bytes and a memrchr or memchr within the unfinished line. */
int rh_http_parse(const char *buf, size_t len, size_t head_max, size_t *scanned,
                  struct rh_http_head *ret_head, const char **ret_why);

/* Client side: one whole response head. Of *ret_head only minor, header_count and headers are set.
 * Returns its length, 0 for "need more", -1 when it is malformed or longer than head_max. */
int rh_http_parse_response(const char *buf, size_t len, size_t head_max, unsigned *ret_status,
                           struct rh_http_head *ret_head);

/* The value of the first field of that name, or NULL; lives as long as `head`. */
const struct rh_span *rh_http_find(const struct rh_http_head *head, const char *lower_name);

/* How many field lines have that name. */
unsigned rh_http_count(const struct rh_http_head *head, const char *lower_name);

/* Is that token an element of the comma-separated list in all fields of that name together?
 * Case does not matter, empty elements are skipped (RFC 9110 5.6.1). */
bool rh_http_has_token(const struct rh_http_head *head, const char *lower_name,
                       const char *lower_token);

/* Walks "a, b,,c": elements without surrounding white space, empty ones too (an empty list is one
 * empty element). Knows no quoted strings. False at the end. */
bool rh_http_list_next(struct rh_span *rest, struct rh_span *ret_item);

/* Equal but for ASCII case; `lower` has no capitals. */
bool rh_http_same(struct rh_span text, const char *lower);

/* A token (RFC 9110 5.6.2): one character at least, and only those of names. */
bool rh_http_is_token(struct rh_span text);

/* `text` without spaces and tabs at both ends. */
struct rh_span rh_http_trim(struct rh_span text);

/* Cuts what stands in front of the first `c`, or all, off *rest, and trims it; *rest goes on behind
 * that `c`, or has at == NULL when there was none. Knows no quoted strings. */
struct rh_span rh_http_cut(struct rh_span *rest, char c);

/* Splits "name", "name:80" or "[::1]:80" by the rules above; *ret_host keeps the brackets,
 * *ret_port is 0 when none is given. False: not a valid authority. */
bool rh_http_authority(struct rh_span text, struct rh_span *ret_host, unsigned *ret_port);

/* Writes a whole response and returns its bytes, or 0 if `room` is not larger than that (a zero is
 * written on the way). content_type may be NULL. extra: further lines "Name: value\r\n", or "";
 * Date, if wanted, is one of them. body_omitted: the answer to HEAD, Content-Length but no body.
 * 1xx and 204 have neither body nor Content-Length (RFC 9110 8.6). */
size_t rh_http_response(char *dst, size_t room, unsigned status, const char *content_type,
                        const char *extra, bool keep_alive, const char *body, size_t body_len,
                        bool body_omitted);

/* Writes "Sun, 06 Nov 1994 08:49:37 GMT" and a zero, as Date has it (RFC 9110 5.6.7). */
#define RH_HTTP_DATE 30
void rh_http_date(char dst[RH_HTTP_DATE], uint64_t unix_s);

/* "Not Found"; "Unknown" for a status that ringhub never sends. */
const char *rh_http_reason(unsigned status);

#endif
