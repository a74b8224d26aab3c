/* tests/fuzz/fz_peer.c - what the hub sends, held against what it was sent; see fz_peer.h. */
#include "tests/fuzz/fz_peer.h"

#include <string.h>

#include "core/config.h"
#include "core/err.h"
#include "proto/deflate.h"
#include "proto/envelope.h"
#include "proto/http1.h"
#include "proto/upgrade.h"
#include "proto/ws.h"

#define MESSAGE_MAX 4608 /* RH_WS_COMPRESSED_MAX of limits.message_size is less */
#define IN_ROOM     4096
#define TEXT_ROOM   (1 << 20)
#define HEAD_MAX    8192
#define PATIENCE_MS 1900 /* below every timeout of the configurations */

enum { HTTP, ECHO, WS };

/* An event of the model: a whole message, a ping, or an end. */
struct heard {
    uint8_t kind; /* RH_WS_MORE: nothing more so far */
    uint8_t opcode;
    uint16_t code;
    const uint8_t *at;
    size_t len;
};

static struct peer {
    uint8_t kind;
    bool over;  /* nothing may come any more */
    bool ended; /* the hub's end of stream or reset has come */
    bool welcomed;
    unsigned excuses;
    uint64_t begun_ms;
    char session[33];

    /* The model of what the hub has received. */
    uint32_t copied, at; /* bytes of `seen`: there, and consumed */
    struct rh_ws model;
    struct rh_deflate_terms terms; /* of permessage-deflate */
    struct rh_inflater *heard;     /* of the model */
    struct rh_inflater *got;       /* of what comes from the hub */
    struct rh_deflater *say;       /* of what the client sends */
    uint8_t end;                   /* RH_WS_CLOSE or RH_WS_ERROR, once that was met */
    uint16_t end_code;
    uint32_t message_len;
    unsigned answers, asked_min, asked_max; /* of /ws */
    unsigned invalid, invalid_most;         /* in a row */

    /* What came from the hub. */
    struct rh_ws ws;
    uint64_t body_left;
    uint32_t in_len, text_len;

    uint8_t seen[FZ_WIRE];
    uint8_t message[MESSAGE_MAX];
    uint8_t in[HEAD_MAX + IN_ROOM];
    uint8_t text[TEXT_ROOM];
} peers[FZ_SOCKS];

static const struct rh_config *config;
static struct rh_deflate_out inflated, deflated;
static unsigned excuses_of_all;

/* ---- life ---- */

void fz_peers_begin(const struct rh_config *cfg)
{
    config = cfg;
    excuses_of_all = 0;
}

void fz_excuse_all(unsigned excuses)
{
    excuses_of_all |= excuses;
}

void fz_excuse(const struct fz_sock *s, unsigned excuses)
{
    peers[s->number].excuses |= excuses;
}

static unsigned excuses_of(const struct peer *p)
{
    return p->excuses | excuses_of_all | (fz_mem_has_failed() ? FZ_NO_MEMORY : 0u);
}

void fz_peer_begin(const struct fz_sock *s)
{
    struct peer *p = &peers[s->number];

    memset(p, 0, offsetof(struct peer, seen));
    p->begun_ms = fz_now_ms();
    memset(p->session, '0', sizeof(p->session) - 1);
}

void fz_peers_age(void)
{
    for (unsigned i = 0; i < fz_sock_count(); i++) {
        const struct fz_sock *s = fz_sock(i);
        struct peer *p = &peers[i];
        bool by_age = p->kind == HTTP || excuses_of(p) & FZ_SLOW;
        uint64_t since = by_age ? p->begun_ms : s->heard_ms;

        if (fz_now_ms() - RH_MIN(since, s->heard_ms) >= PATIENCE_MS)
            p->excuses |= FZ_LATE;
    }
}

const char *fz_peer_session(const struct fz_sock *s)
{
    return peers[s->number].session;
}

/* ---- permessage-deflate ---- */

static bool hub_wish(struct rh_deflate_wish *ret_wish)
{
    ret_wish->takeover = config->compression_context_takeover;
    ret_wish->bits = (uint8_t)config->compression_window_bits;
    return config->compression_enabled;
}

/* Our own memory never fails. Returns as rh_inflate. */
static int inflate_message(struct rh_inflater **z, unsigned bits, bool keeps, const uint8_t *at,
                           size_t len, size_t max)
{
    bool may = fz_mem_may_fail(false);
    int rc = *z ? RH_OK : rh_inflater_create(bits, keeps, z);

    FZ_CHECK(rc == RH_OK, "no inflater");
    rc = rh_inflate(*z, at, len, max, &inflated);
    fz_mem_may_fail(may);
    return rc;
}

const void *fz_peer_deflate(const struct fz_sock *s, const void *at, size_t len, size_t *ret_len)
{
    struct peer *p = &peers[s->number];
    unsigned bits = RH_MAX(p->terms.client_bits, RH_DEFLATE_BITS_MIN);

    if (!p->terms.server_bits)
        return NULL;
    if (!p->say)
        FZ_CHECK(rh_deflater_create(bits, 1, 1, p->terms.client_keeps, &p->say) == RH_OK,
                 "no deflater");
    FZ_CHECK(rh_deflate(p->say, at, len, &deflated) == RH_OK, "nothing is deflated");
    *ret_len = deflated.len;
    return deflated.at;
}

void fz_peers_end(void)
{
    for (unsigned i = 0; i < fz_sock_count(); i++) {
        rh_inflater_destroy(peers[i].heard);
        rh_inflater_destroy(peers[i].got);
        rh_deflater_destroy(peers[i].say);
    }
    rh_deflate_out_trim(&inflated, 0);
    rh_deflate_out_trim(&deflated, 0);
}

/* ---- the model ---- */

/* What the hub has received so far. */
static void look(const struct fz_sock *s, struct peer *p)
{
    memcpy(p->seen + p->copied, fz_wire(s) + p->copied, s->read - p->copied);
    p->copied = s->read;
}

static void add_piece(struct peer *p, const struct rh_ws_event *ev)
{
    FZ_CHECK(p->message_len + ev->len <= sizeof(p->message), "the model's message is too long");
    if (ev->len)
        memcpy(p->message + p->message_len, ev->data, ev->len);
    p->message_len += (uint32_t)ev->len;
}

static struct heard hear_end(struct peer *p, uint8_t kind, uint16_t code)
{
    p->end = kind;
    p->end_code = code;
    return (struct heard){.kind = kind, .code = code};
}

static struct heard hear_message(struct peer *p, const struct rh_ws_event *ev)
{
    int rc;

    if (!ev->compressed)
        return (struct heard){RH_WS_DATA, ev->opcode, 0, p->message, p->message_len};
    rc = inflate_message(&p->heard, p->terms.client_bits, p->terms.client_keeps, p->message,
                         p->message_len, config->limits_message_size);
    if (rc != RH_OK)
        return hear_end(p, RH_WS_ERROR, rc == RH_EFULL ? 1009 : 1007);
    if (ev->opcode == RH_WS_TEXT && !rh_utf8_valid(inflated.at, inflated.len))
        return hear_end(p, RH_WS_ERROR, 1007);
    return (struct heard){RH_WS_DATA, ev->opcode, 0, inflated.at, inflated.len};
}

/* The next thing that the hub has received: a whole message, a ping, or the end. */
static struct heard hear(const struct fz_sock *s, struct peer *p)
{
    struct rh_ws_event ev;

    look(s, p);
    while (!p->end) {
        p->at += (uint32_t)rh_ws_feed(&p->model, p->seen + p->at, p->copied - p->at, &ev);
        if (ev.kind == RH_WS_MORE)
            return (struct heard){.kind = RH_WS_MORE};
        if (ev.kind == RH_WS_PING)
            return (struct heard){.kind = RH_WS_PING, .at = ev.data, .len = ev.len};
        if (ev.kind == RH_WS_CLOSE || ev.kind == RH_WS_ERROR)
            return hear_end(p, ev.kind, ev.code);
        if (ev.kind != RH_WS_DATA)
            continue;
        if (ev.first)
            p->message_len = 0;
        add_piece(p, &ev);
        if (ev.last)
            return hear_message(p, &ev);
    }
    return (struct heard){.kind = p->end, .code = p->end_code};
}

static bool all_strings(struct rh_json list)
{
    struct rh_json_iter it;
    struct rh_json each;

    rh_json_elements(&it, list);
    while (rh_json_next_element(&it, &each))
        if (each.kind != RH_JSON_STRING)
            return false;
    return true;
}

/* Is it an acknowledgement as the protocol wants it: of one id, or of a list? */
static bool ack_ok(const struct rh_envelope *env)
{
    static const struct rh_param rows[] = {
        RH_PARAM_ROW("id", STRING, false),
        RH_PARAM_ROW("ids", ARRAY, false),
        RH_PARAM_ROW("room", STRING, false),
    };
    struct rh_json got[RH_COUNT(rows)];
    char why[160];

    if (rh_params_read(env->data, rows, RH_COUNT(rows), got, why, sizeof(why)) < 0)
        return false;
    if (got[0].kind == RH_JSON_NONE)
        return got[1].kind != RH_JSON_NONE && all_strings(got[1]);
    return got[1].kind == RH_JSON_NONE;
}

/* How a message on /ws is to be answered. */
static void expect(struct peer *p, const struct heard *h)
{
    struct rh_envelope env;
    const char *why;

    p->asked_max++;
    if (h->opcode == RH_WS_BINARY ||
        rh_envelope_parse((const char *)h->at, h->len, &env, &why) < 0 ||
        (env.type == RH_ENV_ACK && !ack_ok(&env))) {
        p->asked_min++;
        p->invalid++;
        p->invalid_most = RH_MAX(p->invalid_most, p->invalid);
        return;
    }
    p->invalid = 0;
    p->asked_min += env.type == RH_ENV_REQUEST && env.request_id.len;
}

/* Of /ws: messages are counted on the way to the next ping or end. */
static struct heard hear_control(const struct fz_sock *s, struct peer *p)
{
    struct heard h = hear(s, p);

    while (h.kind == RH_WS_DATA) {
        expect(p, &h);
        h = hear(s, p);
    }
    return h;
}

/* The next thing that is answered by a frame of its own, in order. */
static struct heard hear_next(const struct fz_sock *s, struct peer *p)
{
    return p->kind == ECHO ? hear(s, p) : hear_control(s, p);
}

/* ---- frames from the hub ---- */

static void check_same(const struct fz_sock *s, struct peer *p, uint8_t kind, uint8_t opcode,
                       const void *at, size_t len)
{
    struct heard h = hear_next(s, p);

    FZ_CHECK(h.kind == kind && h.opcode == opcode,
             "connection %u: got kind %u of opcode %u, not %u of %u", s->number, kind, opcode,
             h.kind, h.opcode);
    FZ_CHECK(h.len == len && (len == 0 || memcmp(h.at, at, len) == 0),
             "connection %u: %zu bytes come back as %zu, or others", s->number, h.len, len);
}

static bool begins(const struct peer *p, const char *with)
{
    return p->text_len >= strlen(with) && memcmp(p->text, with, strlen(with)) == 0;
}

static void on_welcome(struct peer *p)
{
    static const char key[] = "\"session\":\"";
    const uint8_t *at = memmem(p->text, p->text_len, key, sizeof(key) - 1);

    FZ_CHECK(begins(p, "{\"type\":\"notify\",\"event\":\"welcome\"") && at,
             "no welcome comes first");
    memcpy(p->session, at + sizeof(key) - 1, sizeof(p->session) - 1);
    p->welcomed = true;
}

/* What a client sent 64 levels deep may come back in a list, and be a little deeper. */
static bool is_json(const struct peer *p)
{
    unsigned opened = 0;

    if (rh_json_check((const char *)p->text, p->text_len, RH_JSON_DEPTH) == 0)
        return true;
    for (uint32_t i = 0; i < p->text_len; i++)
        opened += p->text[i] == '[' || p->text[i] == '{';
    return opened > RH_JSON_DEPTH;
}

static void on_envelope(const struct fz_sock *s, struct peer *p)
{
    bool answer = begins(p, "{\"type\":\"response\"") || begins(p, "{\"type\":\"error\"");

    FZ_CHECK(is_json(p), "connection %u gets what is no JSON: %.*s", s->number, (int)p->text_len,
             p->text);
    FZ_CHECK(answer || begins(p, "{\"type\":\"notify\",\"event\":\""),
             "connection %u gets no envelope: %.*s", s->number, (int)p->text_len, p->text);
    FZ_CHECK(memmem(p->text, p->text_len, "\"timestamp\":", 12), "no timestamp");
    if (!p->welcomed)
        on_welcome(p);
    p->answers += answer;
}

static void inflate_text(const struct fz_sock *s, struct peer *p)
{
    int rc = inflate_message(&p->got, p->terms.server_bits, p->terms.server_keeps, p->text,
                             p->text_len, sizeof(p->text));

    FZ_CHECK(rc == RH_OK, "connection %u gets %u bytes that do not inflate (%d)", s->number,
             p->text_len, rc);
    p->text_len = (uint32_t)inflated.len;
    if (p->text_len)
        memcpy(p->text, inflated.at, p->text_len);
}

static void on_data(const struct fz_sock *s, struct peer *p, const struct rh_ws_event *ev)
{
    size_t n = RH_MIN(ev->len, sizeof(p->text) - p->text_len);

    if (ev->first)
        n = RH_MIN(ev->len, sizeof(p->text) - (p->text_len = 0));
    if (n)
        memcpy(p->text + p->text_len, ev->data, n);
    p->text_len += (uint32_t)n;
    if (!ev->last)
        return;
    if (ev->compressed)
        inflate_text(s, p);
    fz_trace("    connection %u gets %.*s", s->number, (int)RH_MIN(p->text_len, 150u), p->text);
    if (p->kind == ECHO) {
        check_same(s, p, RH_WS_DATA, ev->opcode, p->text, p->text_len);
        return;
    }
    FZ_CHECK(ev->opcode == RH_WS_TEXT, "connection %u gets binary", s->number);
    if (p->text_len < sizeof(p->text))
        on_envelope(s, p);
}

/* Codes of the hub's own, and what has to have happened. */
static bool code_fits(const struct peer *p, unsigned code)
{
    unsigned excuses = excuses_of(p);

    switch (code) {
    case 1001:
        return excuses & FZ_DRAIN;
    case 1013:
        return excuses & FZ_NO_MEMORY;
    case 4400:
        return p->kind == WS && p->invalid_most > config->limits_invalid_messages;
    case 4403:
    case 4409:
        return p->kind == WS && excuses & FZ_REPLACED;
    case 4408:
        return excuses & FZ_SLOW;
    case 4410:
        return excuses & FZ_LATE;
    case 4429:
        return p->kind == WS && excuses & FZ_RATE;
    default:
        return false;
    }
}

static void on_close(const struct fz_sock *s, struct peer *p, unsigned code)
{
    struct heard h = hear_next(s, p);
    bool healthy = !(excuses_of(p) & ~(unsigned)FZ_FINISHED);

    fz_trace("    connection %u gets close %u", s->number, code);
    p->over = true;
    if (healthy && p->kind == ECHO)
        FZ_CHECK(h.kind == RH_WS_CLOSE || h.kind == RH_WS_ERROR,
                 "connection %u: closed with %u before everything was echoed", s->number, code);
    while (h.kind != RH_WS_MORE && h.kind != RH_WS_CLOSE && h.kind != RH_WS_ERROR)
        h = hear_next(s, p);
    if (p->end && p->end_code == code)
        return;
    FZ_CHECK(code_fits(p, code), "connection %u: closed with %u, which does not fit (model: %u %u)",
             s->number, code, p->end, p->end_code);
}

/* False: more bytes are needed. */
static bool take_frame(const struct fz_sock *s, struct peer *p)
{
    struct rh_ws_event ev;
    size_t used = rh_ws_feed(&p->ws, p->in, p->in_len, &ev);

    if (ev.kind == RH_WS_DATA)
        on_data(s, p, &ev);
    else if (ev.kind == RH_WS_PONG)
        check_same(s, p, RH_WS_PING, 0, ev.data, ev.len);
    else if (ev.kind == RH_WS_CLOSE)
        on_close(s, p, ev.code);
    FZ_CHECK(ev.kind != RH_WS_ERROR, "connection %u gets an invalid stream: %s", s->number, ev.why);
    p->in_len -= (uint32_t)used;
    memmove(p->in, p->in + used, p->in_len);
    return ev.kind != RH_WS_MORE;
}

/* ---- responses ---- */

static void begin_frames(struct peer *p, const struct rh_http_head *request)
{
    p->kind = rh_span_eq(request->path, RH_SPAN("/echo")) ? ECHO : WS;
    FZ_CHECK(p->kind == ECHO || rh_span_eq(request->path, RH_SPAN("/ws")), "101 for another path");
    rh_ws_init(&p->model, RH_WS_SERVER, config->limits_message_size);
    rh_ws_init(&p->ws, RH_WS_CLIENT, RH_WS_SIZE_MAX);
    if (!p->terms.server_bits)
        return;
    rh_ws_allow_deflate(&p->model);
    rh_ws_allow_deflate(&p->ws);
}

static void check_101(struct peer *p, const struct rh_http_head *request, size_t len)
{
    struct rh_deflate_wish wish;
    struct rh_upgrade up;
    const char *why = "";
    char want[512];

    FZ_CHECK(rh_upgrade_check(request, hub_wish(&wish) ? &wish : NULL, &up, &why) == 0,
             "101 for a bad upgrade: %s", why);
    FZ_CHECK(rh_upgrade_response(want, sizeof(want), &up) == len && memcmp(want, p->in, len) == 0,
             "a wrong 101");
    p->terms = up.deflate;
    begin_frames(p, request);
}

static uint64_t content_length(const struct rh_http_head *response)
{
    const struct rh_span *value = rh_http_find(response, "content-length");
    uint64_t n = 0;

    FZ_CHECK(value && value->len && value->len < 10, "a response without Content-Length");
    for (uint32_t i = 0; i < value->len; i++)
        n = n * 10 + (uint64_t)(value->at[i] - '0');
    return n;
}

/* Does this answer that? `rc` as of rh_http_parse: a request, none yet, or a bad one. */
static void check_status(const struct peer *p, int rc, const struct rh_http_head *request,
                         unsigned status, bool close)
{
    bool busy = status == 429 || status == 503;

    if (rc <= 0) {
        FZ_CHECK(close, "%u without a request, and the connection stays", status);
        FZ_CHECK(rc ? status == (unsigned)-rc || busy : busy, "%u for a request that gets %d",
                 status, rc);
        return;
    }
    FZ_CHECK(status != 503 || excuses_of(p) & (FZ_DRAIN | FZ_NO_MEMORY | FZ_RATE),
             "503 without a reason");
    if (rh_span_eq(request->path, RH_SPAN("/livez")) && request->method <= RH_HTTP_HEAD)
        FZ_CHECK(status == 200 || busy, "%u for /livez", status);
    if (status == 404)
        FZ_CHECK(!rh_span_eq(request->path, RH_SPAN("/ws")) &&
                     !rh_span_eq(request->path, RH_SPAN("/echo")),
                 "404 for what there is");
}

static bool take_response(const struct fz_sock *s, struct peer *p)
{
    static struct rh_http_head request, response;
    const char *why;
    unsigned status;
    int len = rh_http_parse_response((const char *)p->in, p->in_len, HEAD_MAX, &status, &response);
    int rc;
    bool close;

    FZ_CHECK(len >= 0, "connection %u gets a bad response: %.*s", s->number, (int)p->in_len, p->in);
    if (len == 0)
        return false;
    look(s, p);
    rc = rh_http_parse((const char *)p->seen + p->at, p->copied - p->at, config->limits_head_size,
                       NULL, &request, &why);
    fz_trace("    connection %u gets %u", s->number, status);
    p->at += rc > 0 ? (uint32_t)rc : 0;
    if (status == 101) {
        FZ_CHECK(rc > 0, "101 without a request");
        check_101(p, &request, (size_t)len);
    } else {
        close = rh_http_has_token(&response, "connection", "close");
        check_status(p, rc, &request, status, close);
        p->body_left = rc > 0 && request.method == RH_HTTP_HEAD ? 0 : content_length(&response);
        p->over = close;
    }
    p->in_len -= (uint32_t)len;
    memmove(p->in, p->in + len, p->in_len);
    return true;
}

static bool take_body(struct peer *p)
{
    uint32_t n = (uint32_t)RH_MIN(p->body_left, (uint64_t)p->in_len);

    p->body_left -= n;
    p->in_len -= n;
    memmove(p->in, p->in + n, p->in_len);
    return p->body_left == 0;
}

static void take(const struct fz_sock *s, struct peer *p)
{
    bool more = true;

    while (p->in_len && more) {
        if (p->body_left) {
            more = take_body(p);
            continue;
        }
        FZ_CHECK(!p->over, "connection %u gets bytes behind the end", s->number);
        more = p->kind == HTTP ? take_response(s, p) : take_frame(s, p);
    }
}

/* ---- the kernel's side ---- */

void fz_peer_take(const struct fz_sock *s, const uint8_t *bytes, size_t len)
{
    struct peer *p = &peers[s->number];

    FZ_CHECK(!p->ended, "connection %u gets bytes behind the end of stream", s->number);
    while (len) {
        size_t n = RH_MIN(len, (size_t)IN_ROOM);

        memcpy(p->in + p->in_len, bytes, n);
        p->in_len += (uint32_t)n;
        take(s, p);
        FZ_CHECK(p->in_len <= HEAD_MAX, "connection %u gets an endless head", s->number);
        bytes += n;
        len -= n;
    }
}

void fz_peer_end(const struct fz_sock *s, bool reset)
{
    fz_trace("    connection %u gets the %s", s->number, reset ? "reset" : "end of stream");
    peers[s->number].ended = true;
}

/* ---- at rest ---- */

static void check_rest_http(const struct fz_sock *s, const struct peer *p)
{
    static struct rh_http_head request;
    const char *why;

    if (p->over || p->excuses & FZ_FINISHED)
        return;
    FZ_CHECK(rh_http_parse((const char *)p->seen + p->at, p->copied - p->at,
                           config->limits_head_size, NULL, &request, &why) == 0,
             "connection %u: a request is not answered", s->number);
}

static void check_rest_echo(const struct fz_sock *s, struct peer *p)
{
    struct heard h = hear(s, p);

    FZ_CHECK(h.kind != RH_WS_DATA && h.kind != RH_WS_PING,
             "connection %u: %zu bytes are not echoed", s->number, h.len);
    FZ_CHECK(h.kind == RH_WS_MORE || p->over, "connection %u: no close frame for %u", s->number,
             h.code);
}

static void check_rest_ws(const struct fz_sock *s, struct peer *p)
{
    struct heard h = hear_control(s, p);

    if (p->over || p->excuses & FZ_FINISHED)
        return;
    FZ_CHECK(p->welcomed, "connection %u has no welcome", s->number);
    FZ_CHECK(h.kind != RH_WS_PING, "connection %u: a ping is not answered", s->number);
    FZ_CHECK(h.kind == RH_WS_MORE, "connection %u: no close frame for %u", s->number, h.code);
    FZ_CHECK(p->answers >= p->asked_min && p->answers <= p->asked_max,
             "connection %u: %u answers, where %u to %u are due", s->number, p->answers,
             p->asked_min, p->asked_max);
    FZ_CHECK(p->invalid_most <= config->limits_invalid_messages,
             "connection %u: %u invalid messages are tolerated", s->number, p->invalid_most);
}

void fz_peer_check_rest(const struct fz_sock *s)
{
    struct peer *p = &peers[s->number];

    unsigned minor = FZ_FINISHED | (p->kind == ECHO ? FZ_SLOW : 0u);

    if (!s->accepted || excuses_of(p) & ~minor)
        return;
    FZ_CHECK(p->over || s->read == s->sent, "connection %u: %u bytes are not read", s->number,
             s->sent - s->read);
    look(s, p);
    FZ_CHECK(p->body_left == 0, "connection %u: a body is cut", s->number);
    FZ_CHECK(p->over || !p->ended || p->excuses & FZ_FINISHED,
             "connection %u is lost without a reason", s->number);
    if (p->kind == HTTP)
        check_rest_http(s, p);
    else if (p->kind == ECHO)
        check_rest_echo(s, p);
    else
        check_rest_ws(s, p);
}
