/* proto/http1.c - find the end of a head, then take it apart.
 *
 * Why this way: bytes are checked once, as they come, against a table of character classes; that
 * needs no memory between calls but a count, since where the scan stood (which line, before or
 * behind its colon) is read off the bytes in front of it. Only a complete head is taken apart, and
 * by then every byte is known to be allowed, so that code is plain memchr.
 *
 *     (empty line) -> METHOD -> TARGET -> VERSION -> NAME -> VALUE -> NAME ... -> empty line: done
 *                     request_byte            |        scan_field
 *                                             parse_request_line: 400, 505
 *
 * Invariants  (1) Nothing in front of scan.at is looked at again but by memchr and memrchr.
 *             (2) scan.at never stands between CR and LF.
 *             (3) An answer depends on the bytes up to it, never on how they were cut.
 * Limits      RH_HTTP_HEADERS_MAX, head_max; all work is linear in the head, but for those searches:
 *             at most head_max bytes a call, at memory speed.
 * Rejected    A state handed out with every byte: one more struct for each connection to carry.
 */
#include "proto/http1.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/date.h"

enum {
    TOKEN = 1, /* RFC 9110 5.6.2 */
    VALUE = 2, /* RFC 9110 5.5: visible, obs-text, SP, HTAB */
    URI = 4,   /* RFC 3986 2, less '#' */
    HOST = 8,  /* RFC 3986 unreserved */
    DIGIT = 16,
    HEX = 32,
};

#define LETTER (TOKEN | VALUE | URI | HOST)

static const uint8_t classes[256] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = TOKEN | VALUE | URI,
    ['"'] = VALUE,
    ['#'] = TOKEN | VALUE,
    ['$' ... '\''] = TOKEN | VALUE | URI,
    ['('] = VALUE | URI,
    [')'] = VALUE | URI,
    ['*'] = TOKEN | VALUE | URI,
    ['+'] = TOKEN | VALUE | URI,
    [','] = VALUE | URI,
    ['-'] = LETTER,
    ['.'] = LETTER,
    ['/'] = VALUE | URI,
    ['0' ... '9'] = LETTER | DIGIT | HEX,
    [':'] = VALUE | URI,
    [';'] = VALUE | URI,
    ['<'] = VALUE,
    ['='] = VALUE | URI,
    ['>'] = VALUE,
    ['?'] = VALUE | URI,
    ['@'] = VALUE | URI,
    ['A' ... 'F'] = LETTER | HEX,
    ['G' ... 'Z'] = LETTER,
    ['['] = VALUE | URI,
    ['\\'] = VALUE,
    [']'] = VALUE | URI,
    ['^'] = TOKEN | VALUE,
    ['_'] = LETTER,
    ['`'] = TOKEN | VALUE,
    ['a' ... 'f'] = LETTER | HEX,
    ['g' ... 'z'] = LETTER,
    ['{'] = VALUE,
    ['|'] = TOKEN | VALUE,
    ['}'] = VALUE,
    ['~'] = LETTER,
    [0x80 ... 0xff] = VALUE,
};

enum part { METHOD, TARGET, VERSION, FIELDS };

struct scan {
    const char *buf;
    size_t at;   /* everything in front of it is checked */
    size_t end;  /* bytes to look at: all that we have, head_max at most */
    size_t line; /* where the line that `at` is in begins */
    size_t word; /* where the part of the request line that `at` is in begins */
    enum part part;
    bool in_value; /* FIELDS: `at` is behind the colon */
    const char *why;
};

enum { LINE_DONE = 1, HEAD_DONE = 2 };

static bool is(char c, int class)
{
    return (classes[(unsigned char)c] & class) != 0;
}

static int refuse(const char **why, int status, const char *sentence)
{
    *why = sentence;
    return -status;
}

/* ---- words and lists ------------------------------------------------------------------------- */

bool rh_http_same(struct rh_span text, const char *lower)
{
    uint32_t i;

    for (i = 0; i < text.len; i++) {
        char c = text.at[i];

        if (c >= 'A' && c <= 'Z')
            c = (char)(c + ('a' - 'A'));
        if (!lower[i] || c != lower[i])
            return false;
    }
    return !lower[i];
}

bool rh_http_is_token(struct rh_span text)
{
    for (uint32_t i = 0; i < text.len; i++) {
        if (!is(text.at[i], TOKEN))
            return false;
    }
    return text.len > 0;
}

struct rh_span rh_http_trim(struct rh_span text)
{
    while (text.len && (*text.at == ' ' || *text.at == '\t')) {
        text.at++;
        text.len--;
    }
    while (text.len && (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t'))
        text.len--;
    return text;
}

struct rh_span rh_http_cut(struct rh_span *rest, char c)
{
    struct rh_span front = *rest;
    const char *at = rest->len ? memchr(rest->at, c, rest->len) : NULL;

    if (at) {
        front.len = (uint32_t)(at - rest->at);
        *rest = (struct rh_span){at + 1, rest->len - front.len - 1};
    } else {
        *rest = (struct rh_span){NULL, 0};
    }
    return rh_http_trim(front);
}

bool rh_http_list_next(struct rh_span *rest, struct rh_span *ret_item)
{
    struct rh_span item = *rest;
    const char *comma;

    if (!rest->at)
        return false;
    comma = rest->len ? memchr(rest->at, ',', rest->len) : NULL;
    if (comma) {
        item.len = (uint32_t)(comma - rest->at);
        rest->at = comma + 1;
        rest->len -= item.len + 1;
    } else {
        *rest = (struct rh_span){NULL, 0};
    }
    *ret_item = rh_http_trim(item);
    return true;
}

/* An IPv6 address in its brackets (RFC 3986 3.2.2); addresses of future versions there are none. */
static bool is_ipv6_literal(struct rh_span host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;

    if (host.len < 2 || host.at[host.len - 1] != ']' || host.len - 2 >= sizeof(text))
        return false;
    memcpy(text, host.at + 1, host.len - 2);
    text[host.len - 2] = 0;
    return strlen(text) == host.len - 2 && inet_pton(AF_INET6, text, &addr) == 1;
}

static bool parse_port(const char *at, const char *end, unsigned *ret_port)
{
    unsigned port = 0;

    for (; at < end; at++) {
        if (!is(*at, DIGIT))
            return false;
        port = port * 10 + (unsigned)(*at - '0');
        if (port > 65535)
            return false;
    }
    *ret_port = port;
    return port > 0;
}

bool rh_http_authority(struct rh_span text, struct rh_span *ret_host, unsigned *ret_port)
{
    const char *end = text.at + text.len, *at = text.at;

    *ret_port = 0;
    if (text.len && *at == '[') {
        at = memchr(at, ']', text.len);
        at = at ? at + 1 : end;
    } else {
        while (at < end && is(*at, HOST))
            at++;
    }
    *ret_host = (struct rh_span){text.at, (uint32_t)(at - text.at)};
    if (!ret_host->len || (*text.at == '[' && !is_ipv6_literal(*ret_host)))
        return false;
    if (at == end)
        return true;
    return *at == ':' && (at + 1 == end || parse_port(at + 1, end, ret_port));
}

/* ---- the scan: every byte once, up to the empty line ------------------------------------------ */

/* At `at` stands a CR. */
static int scan_crlf(struct scan *s)
{
    if (s->at + 1 == s->end)
        return 0;
    if (s->buf[s->at + 1] != '\n')
        return refuse(&s->why, 400, "a CR without LF");
    s->at += 2;
    return LINE_DONE;
}

static int request_space(struct scan *s)
{
    if (s->at == s->word)
        return refuse(&s->why, 400, "a space too many in the request line");
    s->part++;
    s->word = s->at + 1;
    return 0;
}

/* RFC 9112 2.3: HTTP/d.d, and nothing behind it. */
static int version_byte(struct scan *s, char c)
{
    static const char form[] = "HTTP/d.d";
    size_t i = s->at - s->word;

    if (i < sizeof(form) - 1 && (form[i] == 'd' ? is(c, DIGIT) : c == form[i]))
        return 0;
    return refuse(&s->why, 400, "the request line does not end in an HTTP version");
}

static int request_byte(struct scan *s, char c)
{
    if (c == '\n')
        return refuse(&s->why, 400, "a line ends in LF without CR");
    if (c == ' ' && (s->part < VERSION || s->at == s->word))
        return request_space(s);
    if (s->part == VERSION)
        return version_byte(s, c);
    if (is(c, s->part == METHOD ? TOKEN : URI))
        return 0;
    if (s->part == METHOD)
        return refuse(&s->why, 400, "a character in the method that is not allowed");
    return refuse(&s->why, 400,
                  c == '#' ? "a fragment in the request target"
                           : "a character in the request target that is not allowed");
}

static int scan_request_line(struct scan *s, size_t line_max)
{
    size_t stop = RH_MIN(s->end, s->line + line_max);

    for (; s->at < stop && s->buf[s->at] != '\r'; s->at++) {
        int rc = request_byte(s, s->buf[s->at]);

        if (rc < 0)
            return rc;
    }
    if (s->at == s->end)
        return 0;
    if (s->buf[s->at] != '\r')
        return refuse(&s->why, 414, "the request line is too long");
    if (s->part < VERSION || s->at - s->word < strlen("HTTP/1.1"))
        return refuse(&s->why, 400, "the request line does not end in an HTTP version");
    return scan_crlf(s);
}

static int refuse_name(struct scan *s)
{
    char c = s->buf[s->at];

    if (c == '\n')
        return refuse(&s->why, 400, "a line ends in LF without CR");
    if (s->at == s->line && c == ':')
        return refuse(&s->why, 400, "a field without a name");
    if (s->at == s->line && (c == ' ' || c == '\t'))
        return refuse(&s->why, 400, "a field line begins with white space");
    if (c == ' ' || c == '\t')
        return refuse(&s->why, 400, "white space in front of a field's colon");
    if (c == '\r')
        return refuse(&s->why, 400, "a field line without a colon");
    return refuse(&s->why, 400, "a character in a field's name that is not allowed");
}

static int scan_field(struct scan *s)
{
    int rc;

    if (!s->in_value) {
        while (s->at < s->end && is(s->buf[s->at], TOKEN))
            s->at++;
        if (s->at == s->end)
            return 0;
        if (s->buf[s->at] == '\r' && s->at == s->line) {
            rc = scan_crlf(s);
            return rc == LINE_DONE ? HEAD_DONE : rc;
        }
        if (s->buf[s->at] != ':' || s->at == s->line)
            return refuse_name(s);
        s->at++;
        s->in_value = true;
    }
    while (s->at < s->end && is(s->buf[s->at], VALUE))
        s->at++;
    if (s->at == s->end)
        return 0;
    if (s->buf[s->at] == '\n')
        return refuse(&s->why, 400, "a line ends in LF without CR");
    if (s->buf[s->at] != '\r')
        return refuse(&s->why, 400, "a control character in a field's value");
    rc = scan_crlf(s);
    if (rc == LINE_DONE) {
        s->line = s->at;
        s->in_value = false;
    }
    return rc;
}

/* Finds again where a scan stood that had checked `from` bytes. */
static void scan_resume(struct scan *s, size_t from)
{
    size_t first = s->buf[0] == '\r' ? 2 : 0;
    const char *lf = memrchr(s->buf, '\n', from), *space;

    s->at = from;
    s->line = s->word = lf ? (size_t)(lf - s->buf) + 1 : 0;
    if (s->line > first) {
        s->part = FIELDS;
        s->in_value = memchr(s->buf + s->line, ':', from - s->line) != NULL;
        return;
    }
    while (s->part < VERSION && (space = memchr(s->buf + s->word, ' ', from - s->word))) {
        s->word = (size_t)(space - s->buf) + 1;
        s->part++;
    }
}

/* ---- taking a checked head apart -------------------------------------------------------------- */

static enum rh_http_method method_of(struct rh_span text)
{
    static const struct rh_span names[] = {
        [RH_HTTP_GET] = {"GET", 3},         [RH_HTTP_HEAD] = {"HEAD", 4},
        [RH_HTTP_POST] = {"POST", 4},       [RH_HTTP_PUT] = {"PUT", 3},
        [RH_HTTP_PATCH] = {"PATCH", 5},     [RH_HTTP_DELETE] = {"DELETE", 6},
        [RH_HTTP_OPTIONS] = {"OPTIONS", 7},
    };
    unsigned i;

    for (i = 0; i < RH_COUNT(names) && !rh_span_eq(text, names[i]); i++)
        ;
    return (enum rh_http_method)i; /* behind the last one: RH_HTTP_OTHER */
}

_Static_assert(RH_HTTP_OTHER == RH_HTTP_OPTIONS + 1, "method_of counts on it");

static bool escapes_whole(struct rh_span text)
{
    const char *at = text.at, *end = text.at + text.len;

    while ((at = memchr(at, '%', (size_t)(end - at)))) {
        if (end - at < 3 || !is(at[1], HEX) || !is(at[2], HEX))
            return false;
        at += 3;
    }
    return true;
}

static void split_path(struct rh_http_head *head, const char *at, const char *end)
{
    const char *mark = memchr(at, '?', (size_t)(end - at));

    head->path = (struct rh_span){at, (uint32_t)((mark ? mark : end) - at)};
    at = mark ? mark + 1 : end;
    head->query = (struct rh_span){at, (uint32_t)(end - at)};
}

/* RFC 9112 3.2.2: a server accepts it from anybody; its authority counts, not Host. */
static int parse_absolute_form(struct rh_http_head *head, const char **why)
{
    const char *at = head->target.at, *end = at + head->target.len, *from;
    const char *colon = memchr(at, ':', head->target.len);
    struct rh_span scheme = {at, colon ? (uint32_t)(colon - at) : 0}, host;
    unsigned port;

    if (!colon || (!rh_http_same(scheme, "http") && !rh_http_same(scheme, "https")) ||
        end - colon < 3 || colon[1] != '/' || colon[2] != '/')
        return refuse(why, 400, "a request target of a form that is not served here");
    from = colon + 3;
    for (at = from; at < end && *at != '/' && *at != '?'; at++)
        ;
    head->host = (struct rh_span){from, (uint32_t)(at - from)};
    if (!rh_http_authority(head->host, &host, &port))
        return refuse(why, 400, "a request target with an invalid host");
    split_path(head, at, end);
    if (!head->path.len)
        head->path = (struct rh_span){colon + 2, 1}; /* "/", the only one at hand in the buffer */
    return 0;
}

static int parse_target(struct rh_http_head *head, const char **why)
{
    struct rh_span target = head->target;

    head->host = (struct rh_span){target.at, 0};
    if (!escapes_whole(target))
        return refuse(why, 400, "a broken percent escape in the request target");
    if (*target.at == '/') {
        split_path(head, target.at, target.at + target.len);
        return 0;
    }
    if (head->method == RH_HTTP_OPTIONS && target.len == 1 && *target.at == '*') {
        head->path = target;
        head->query = (struct rh_span){target.at + 1, 0};
        return 0;
    }
    return parse_absolute_form(head, why);
}

/* The line is what the scan let through: two spaces, a version at its end; `end` is its CR. */
static int parse_request_line(struct rh_http_head *head, const char *line, const char *end,
                              const char **why)
{
    const char *version = end - strlen("HTTP/1.1"), *target_end = version - 1;
    const char *method_end = memchr(line, ' ', (size_t)(end - line));

    if (version[5] != '1')
        return refuse(why, 505, "a version of HTTP other than 1");
    head->minor = version[7] == '0' ? 0 : 1;
    head->method_text = (struct rh_span){line, (uint32_t)(method_end - line)};
    head->method = method_of(head->method_text);
    head->target = (struct rh_span){method_end + 1, (uint32_t)(target_end - method_end - 1)};
    return parse_target(head, why);
}

/* Splits checked field lines up to the empty one; false: more than there is room for. */
static bool split_fields(struct rh_http_head *head, const char *at, const char *end)
{
    head->header_count = 0;
    while (*at != '\r') {
        const char *colon = memchr(at, ':', (size_t)(end - at));
        const char *cr = memchr(colon, '\r', (size_t)(end - colon));
        struct rh_http_header *field = &head->headers[head->header_count];

        if (head->header_count++ == RH_HTTP_HEADERS_MAX)
            return false;
        field->name = (struct rh_span){at, (uint32_t)(colon - at)};
        field->value = rh_http_trim((struct rh_span){colon + 1, (uint32_t)(cr - colon - 1)});
        at = cr + 2;
    }
    return true;
}

/* ---- what the fields mean for the message's length and the connection ------------------------- */

static bool parse_length(struct rh_span text, uint64_t *ret_length)
{
    uint64_t length = 0;

    for (uint32_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)(text.at[i] - '0');

        if (!is(text.at[i], DIGIT) || length > (UINT64_MAX - digit) / 10)
            return false;
        length = length * 10 + digit;
    }
    *ret_length = length;
    return text.len > 0;
}

/* RFC 9112 6.1 and 6.3: without chunked at the very end nobody knows where the message ends. */
static int read_codings(struct rh_http_head *head, const char **why)
{
    bool unknown = false;

    for (unsigned i = 0; i < head->header_count; i++) {
        struct rh_span rest = head->headers[i].value, item;

        if (!rh_http_same(head->headers[i].name, "transfer-encoding"))
            continue;
        while (rh_http_list_next(&rest, &item)) {
            if (head->chunked)
                return refuse(why, 400, "a transfer coding behind chunked");
            if (!rh_http_is_token(item))
                return refuse(why, 400, "a malformed transfer coding");
            head->chunked = rh_http_same(item, "chunked");
            unknown = unknown || !head->chunked;
        }
    }
    if (!head->chunked)
        return refuse(why, 400, "a transfer coding without chunked at its end");
    if (unknown)
        return refuse(why, 501, "a transfer coding that is not supported");
    return 0;
}

static int read_host(struct rh_http_head *head, const char **why)
{
    const struct rh_span *value = rh_http_find(head, "host");
    struct rh_span host;
    unsigned port;

    if (!value)
        return head->minor ? refuse(why, 400, "no Host field") : 0;
    if (rh_http_count(head, "host") > 1)
        return refuse(why, 400, "more than one Host field");
    if (!rh_http_authority(*value, &host, &port))
        return refuse(why, 400, "an invalid Host field");
    if (!head->host.len) /* an absolute-form target has set it */
        head->host = *value;
    return 0;
}

static int read_framing(struct rh_http_head *head, const char **why)
{
    unsigned lengths = rh_http_count(head, "content-length");
    const struct rh_span *coding = rh_http_find(head, "transfer-encoding");

    head->content_length = 0;
    head->chunked = false;
    if (lengths && coding)
        return refuse(why, 400, "Content-Length beside Transfer-Encoding");
    if (lengths > 1)
        return refuse(why, 400, "more than one Content-Length field");
    if (lengths && !parse_length(*rh_http_find(head, "content-length"), &head->content_length))
        return refuse(why, 400, "an invalid Content-Length field");
    if (coding && !head->minor)
        return refuse(why, 400, "Transfer-Encoding in HTTP/1.0");
    if (coding) {
        int rc = read_codings(head, why);

        if (rc < 0)
            return rc;
    }
    head->has_body = head->chunked || head->content_length > 0;
    head->keep_alive = !rh_http_has_token(head, "connection", "close") &&
                       (head->minor || rh_http_has_token(head, "connection", "keep-alive"));
    return 0;
}

/* ---- requests --------------------------------------------------------------------------------- */

static int scan_head(struct scan *s, size_t line_max, struct rh_http_head *head)
{
    int rc;

    if (s->at == 0 && s->end > 0 && s->buf[0] == '\r') { /* RFC 9112 2.2 */
        rc = scan_crlf(s);
        if (rc != LINE_DONE)
            return rc;
        s->line = s->word = s->at;
    }
    if (s->part != FIELDS) {
        rc = scan_request_line(s, line_max);
        if (rc != LINE_DONE)
            return rc;
        rc = parse_request_line(head, s->buf + s->line, s->buf + s->at - 2, &s->why);
        if (rc < 0)
            return rc;
        s->part = FIELDS;
        s->line = s->at;
    }
    do {
        rc = scan_field(s);
    } while (rc == LINE_DONE);
    return rc;
}

/* The scan has found the head's end; the request line is known to be fine. */
static int take_apart(const struct scan *s, struct rh_http_head *head, const char **why)
{
    const char *line = s->buf + (s->buf[0] == '\r' ? 2 : 0), *end = s->buf + s->at;
    const char *line_end = memchr(line, '\r', (size_t)(end - line));
    int rc = parse_request_line(head, line, line_end, why);

    if (rc == 0 && !split_fields(head, line_end + 2, end))
        rc = refuse(why, 431, "too many fields");
    if (rc == 0)
        rc = read_host(head, why);
    if (rc == 0)
        rc = read_framing(head, why);
    return rc < 0 ? rc : (int)s->at;
}

int rh_http_parse(const char *buf, size_t len, size_t head_max, size_t *scanned,
                  struct rh_http_head *ret_head, const char **ret_why)
{
    struct scan s = {.buf = buf, .end = RH_MIN(len, head_max)};
    int rc;

    rh_assert(head_max <= INT_MAX);
    rh_assert(!scanned || *scanned <= s.end);
    if (scanned && *scanned >= 4) /* before that a new start is as good */
        scan_resume(&s, *scanned);
    rc = scan_head(&s, head_max / 2, ret_head);
    if (rc == 0 && s.end == head_max)
        rc = refuse(&s.why, 431, "the request's head is too long");
    if (scanned)
        *scanned = rc == 0 ? s.at : 0;
    if (rc == HEAD_DONE)
        rc = take_apart(&s, ret_head, &s.why);
    if (rc < 0)
        *ret_why = s.why;
    return rc;
}

const struct rh_span *rh_http_find(const struct rh_http_head *head, const char *lower_name)
{
    for (unsigned i = 0; i < head->header_count; i++) {
        if (rh_http_same(head->headers[i].name, lower_name))
            return &head->headers[i].value;
    }
    return NULL;
}

unsigned rh_http_count(const struct rh_http_head *head, const char *lower_name)
{
    unsigned count = 0;

    for (unsigned i = 0; i < head->header_count; i++)
        count += rh_http_same(head->headers[i].name, lower_name);
    return count;
}

bool rh_http_has_token(const struct rh_http_head *head, const char *lower_name,
                       const char *lower_token)
{
    for (unsigned i = 0; i < head->header_count; i++) {
        struct rh_span rest = head->headers[i].value, item;

        if (!rh_http_same(head->headers[i].name, lower_name))
            continue;
        while (rh_http_list_next(&rest, &item)) {
            if (rh_http_same(item, lower_token))
                return true;
        }
    }
    return false;
}

/* ---- responses -------------------------------------------------------------------------------- */

/* HTTP/1.x SP 3DIGIT [SP reason] (RFC 9112 4); clients accept the missing space, too. */
static bool parse_status_line(const char *line, size_t len, unsigned *ret_minor,
                              unsigned *ret_status)
{
    if (len < strlen("HTTP/1.1 200") || memcmp(line, "HTTP/1.", 7) != 0 || !is(line[7], DIGIT) ||
        line[8] != ' ' || (len > 12 && line[12] != ' '))
        return false;
    for (size_t i = 9; i < len; i++) {
        if (!is(line[i], i < 12 ? DIGIT : VALUE))
            return false;
    }
    *ret_minor = line[7] == '0' ? 0 : 1;
    *ret_status = (unsigned)(line[9] - '0') * 100 + (unsigned)(line[10] - '0') * 10 +
                  (unsigned)(line[11] - '0');
    return *ret_status >= 100;
}

int rh_http_parse_response(const char *buf, size_t len, size_t head_max, unsigned *ret_status,
                           struct rh_http_head *ret_head)
{
    struct scan s = {.buf = buf, .end = RH_MIN(len, head_max), .part = FIELDS};
    const char *lf = s.end ? memchr(buf, '\n', s.end) : NULL;
    int rc;

    rh_assert(head_max <= INT_MAX);
    if (!lf)
        return s.end == head_max ? -1 : 0;
    if (lf == buf || lf[-1] != '\r' ||
        !parse_status_line(buf, (size_t)(lf - 1 - buf), &ret_head->minor, ret_status))
        return -1;
    s.at = s.line = (size_t)(lf + 1 - buf);
    do {
        rc = scan_field(&s);
    } while (rc == LINE_DONE);
    if (rc == 0)
        return s.end == head_max ? -1 : 0;
    if (rc < 0 || !split_fields(ret_head, lf + 1, buf + s.at))
        return -1;
    return (int)s.at;
}

const char *rh_http_reason(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < RH_COUNT(reasons); i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return "Unknown";
}

void rh_http_date(char dst[RH_HTTP_DATE], uint64_t unix_s)
{
    static const char names[] = "SunMonTueWedThuFriSatJanFebMarAprMayJunJulAugSepOctNovDec";
    struct rh_date date = rh_date_of(unix_s);

    snprintf(dst, RH_HTTP_DATE, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT",
             names + (size_t)3 * date.weekday, date.day % 100, names + (size_t)3 * (6 + date.month),
             date.year % 10000, date.hour % 100, date.minute % 100, date.second % 100);
}

size_t rh_http_response(char *dst, size_t room, unsigned status, const char *content_type,
                        const char *extra, bool keep_alive, const char *body, size_t body_len,
                        bool body_omitted)
{
    bool bodyless = status < 200 || status == 204;
    char length[40] = "";
    int head;

    rh_assert(status >= 100 && status <= 999);
    rh_assert(!bodyless || body_len == 0);
    if (!bodyless)
        snprintf(length, sizeof(length), "Content-Length: %zu\r\n", body_len);
    head = snprintf(dst, room, "HTTP/1.1 %u %s\r\n%s%s%s%s%sConnection: %s\r\n\r\n", status,
                    rh_http_reason(status), content_type ? "Content-Type: " : "",
                    content_type ? content_type : "", content_type ? "\r\n" : "", length, extra,
                    keep_alive ? "keep-alive" : "close");
    if (body_omitted)
        body_len = 0;
    if (head < 0 || (size_t)head >= room || room - (size_t)head <= body_len)
        return 0;
    if (body_len)
        memcpy(dst + head, body, body_len);
    return (size_t)head + body_len;
}
