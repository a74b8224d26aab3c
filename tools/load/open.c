/* tools/load/open.c - from a number to an open WebSocket, and the goodbye at the end.
 *
 * At most LOAD_HANDSHAKES are in progress in a worker, so that the server's backlog isn't what is
 * measured; one that ends makes room for the next. Times count from the start of connect() to the
 * 101, and for ringhub's /ws to the welcome. Who joins a room is open when it has.
 *
 *     IDLE -- load_open_some --> CONNECTING -- load_open_connected --> UPGRADING
 *     UPGRADING -- load_open_answer --> OPEN or GREETING
 *     GREETING -- load_open_welcome, or load_open_joined --> OPEN
 *     OPEN -- load_open_goodbye --> GOODBYE
 *     AWAY -- load_open_again --> CONNECTING
 */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "proto/json.h"
#include "proto/upgrade.h"
#include "tools/load/load.h"

#define SLOW_ROOM 4096 /* of who does not read: bytes that its kernel takes for it */

/* These stand in a request where a connection's number and key will be; no URL has them. */
#define NUMBER_MARK "\1"
#define KEY_MARK    "\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2\2"
#define KEY_LEN     24
#define DIGITS_MAX  10

struct load_handshake {
    uint64_t started_ns;
    char key[KEY_LEN];
    struct load_bytes head; /* of an answer that comes in pieces */
};

/* The request that all connections make, written once: [text, number) N [after, key) KEY [rest, end).
 * Without a number in it number == after. */
struct load_request {
    bool numbered;
    uint32_t number, after, key, rest, end;
    char text[LOAD_PATH_MAX + 1024];
};

/* A handshake has ended: for better, if the connection is open. */
void load_open_ended(struct load_worker *w, struct load_conn *c)
{
    if (c->state == LOAD_IDLE)
        return; /* it had not begun */
    w->opening--;
    if (!c->ledger || !c->ledger->returning)
        w->open_moved_ns = rh_clock_mono_ns();
    load_open_free(c);
}

void load_open_free(struct load_conn *c)
{
    if (!c->shake)
        return;
    rh_mem_free(c->shake->head.at);
    rh_mem_free(c->shake);
    c->shake = NULL;
}

/* ---- the request ---- */

size_t load_user_name(const struct load_run *run, uint32_t number, char dst[LOAD_NAME_ROOM])
{
    return (size_t)snprintf(dst, LOAD_NAME_ROOM, "bench-%s-%u", run->id, number);
}

size_t load_room_name(const struct load_run *run, char dst[LOAD_NAME_ROOM])
{
    return (size_t)snprintf(dst, LOAD_NAME_ROOM, "bench-%s", run->id);
}

size_t load_block_name(const struct load_run *run, uint32_t number, char dst[LOAD_NAME_ROOM])
{
    return (size_t)snprintf(dst, LOAD_NAME_ROOM, "bench-%s-r-%u", run->id,
                            number / load_mode_block(run->opts));
}

/* The path with the user's name and room, where the tool gives them. */
static void make_path(const struct load_worker *w, bool admin, char *dst, size_t room)
{
    const struct load_opts *o = w->run->opts;
    bool named = strstr(o->path, "user_id=") || strstr(o->path, "token=");
    char joins[LOAD_NAME_ROOM];
    int len = snprintf(dst, room, "%s", o->path);

    if (!w->greets)
        return;
    load_room_name(w->run, joins);
    if (!named)
        len += snprintf(dst + len, room - (size_t)len, "%cuser_id=bench-%s-" NUMBER_MARK,
                        strchr(dst, '?') ? '&' : '?', w->run->id);
    if (o->mode->fans_out && !o->broadcast)
        snprintf(dst + len, room - (size_t)len, "%crooms=%s", strchr(dst, '?') ? '&' : '?', joins);
    else if (admin)
        snprintf(dst + len, room - (size_t)len, "%cuser_type=admin", strchr(dst, '?') ? '&' : '?');
}

static void make_request(const struct load_worker *w, bool admin, struct load_request *ret)
{
    char path[LOAD_PATH_MAX + 64];
    const char *number, *key;

    make_path(w, admin, path, sizeof(path));
    ret->end =
        (uint32_t)rh_upgrade_request(ret->text, sizeof(ret->text), w->run->opts->host, path,
                                     KEY_MARK, w->run->opts->compress ? &load_zip_ask : NULL);
    rh_assert(ret->end > 0);
    number = strstr(ret->text, NUMBER_MARK);
    key = strstr(ret->text, KEY_MARK);
    ret->numbered = number != NULL;
    ret->key = (uint32_t)(key - ret->text);
    ret->rest = ret->key + KEY_LEN;
    ret->number = number ? (uint32_t)(number - ret->text) : ret->key;
    ret->after = number ? ret->number + 1 : ret->key;
}

/* Those of connection 0, which may be an admin, and of all others. */
int load_open_init(struct load_worker *w)
{
    w->request = rh_mem_zalloc(2 * sizeof(*w->request));
    if (!w->request)
        return RH_ENOMEM;
    make_request(w, w->run->opts->broadcast, &w->request[0]);
    make_request(w, false, &w->request[1]);
    return RH_OK;
}

void load_open_fini(struct load_worker *w)
{
    rh_mem_free(w->request);
    w->request = NULL;
}

/* 16 random bytes in base64: 22 digits, of which the last has four zero bits, and "==". */
static void make_key(struct rh_prng *prng, char key[KEY_LEN])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint64_t random = 0;

    for (int i = 0; i < 22; i++, random >>= 6) {
        if (i % 10 == 0) /* 60 bits are ten digits */
            random = rh_prng_next(prng);
        key[i] = digits[i < 21 ? random & 63 : random << 4 & 63];
    }
    key[22] = '=';
    key[23] = '=';
}

static bool put_request(struct load_worker *w, struct load_conn *c)
{
    const struct load_request *r = &w->request[c->number > 0];
    char text[sizeof(r->text) + DIGITS_MAX + LOAD_QUERY_ROOM];
    struct rh_writer out;

    rh_writer_init(&out, text, sizeof(text));
    rh_put(&out, r->text, r->number);
    if (r->numbered)
        rh_put_u64(&out, c->number);
    if (w->run->opts->mode->books)
        load_returns_query(w, c, &out);
    rh_put(&out, r->text + r->after, r->key - r->after);
    rh_put(&out, c->shake->key, KEY_LEN);
    rh_put(&out, r->text + r->rest, r->end - r->rest);
    rh_assert(!out.full);
    return load_conn_put(w, c, text, rh_writer_len(&out));
}

/* ---- to the 101 ---- */

/* What a slow reader does not read should fill the server's queue, not this machine's kernel. */
static void narrow(int fd)
{
    int room = SLOW_ROOM;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
}

static int make_socket(struct load_worker *w, struct load_conn *c, struct rh_fault *fault)
{
    const struct load_opts *o = w->run->opts;
    struct rh_addr source;
    bool bound = load_opts_source(o, c->number, &source);
    int fd, rc = rh_sock_client(o->target.at.ss_family, bound ? &source : NULL, &fd, fault);

    if (rc < 0)
        return rc;
    if (c->slow)
        narrow(fd);
    rc = o->direct ? rh_uring_adopt(w->uring, fd, &c->fd) : RH_OK;
    if (rc < 0) {
        rh_sock_close(fd);
        return rh_fault_set(fault, rc, "no place for its direct descriptor");
    }
    if (!o->direct)
        c->fd = fd;
    return RH_OK;
}

/* A socket that can begin to connect; false: it was given up. */
static bool open_one(struct load_worker *w, struct load_conn *c, uint64_t now)
{
    uint64_t random = rh_prng_next(&w->prng);
    struct rh_fault fault;

    if (!w->run->opts->mask_zero)
        memcpy(c->key, &random, sizeof(c->key));
    c->shake = rh_mem_zalloc(sizeof(*c->shake));
    if (!c->shake) {
        load_conn_fail(w, c, "no memory for its handshake");
        return false;
    }
    if (make_socket(w, c, &fault) < 0) {
        load_conn_fail(w, c, "%s", fault.text);
        return false;
    }
    c->shake->started_ns = now;
    load_conn_set_state(w, c, LOAD_CONNECTING);
    w->opening++;
    return true;
}

static void begin_connect(struct load_worker *w, struct load_conn *c)
{
    c->connecting = true;
    rh_uring_connect(w->uring, c->fd, &w->run->opts->target, load_conn_tag(c, LOAD_OP_CONNECT));
}

void load_open_again(struct load_worker *w, struct load_conn *c)
{
    if (open_one(w, c, rh_clock_mono_ns()))
        begin_connect(w, c);
}

/* Sockets first: adopting one submits whatever is queued. */
void load_open_some(struct load_worker *w, uint64_t now)
{
    uint32_t first = w->open_next;

    while (w->opening < LOAD_HANDSHAKES && w->open_next < w->conns_count)
        open_one(w, &w->conns[w->open_next++], now);
    for (uint32_t i = first; i < w->open_next; i++) {
        struct load_conn *c = &w->conns[i];

        if (c->state == LOAD_CONNECTING)
            begin_connect(w, c);
    }
}

void load_open_connected(struct load_worker *w, struct load_conn *c, int res)
{
    if (c->state != LOAD_CONNECTING)
        return; /* given up meanwhile */
    if (res < 0) {
        load_conn_fail(w, c, "connecting failed: %s", strerror(-res));
        return;
    }
    make_key(&w->prng, c->shake->key);
    load_conn_set_state(w, c, LOAD_UPGRADING);
    if (put_request(w, c))
        load_conn_receive(w, c, false);
}

static void opened(struct load_worker *w, struct load_conn *c)
{
    load_open_ended(w, c);
    load_conn_set_state(w, c, LOAD_OPEN);
    if (!c->ledger || !c->ledger->returning)
        load_count(&w->counts.opened);
    if (w->run->opts->mode->on_open)
        w->run->opts->mode->on_open(w, c);
}

/* The 101 is here: what was agreed on counts from the first frame. */
static void upgraded(struct load_worker *w, struct load_conn *c,
                     const struct rh_deflate_terms *terms)
{
    rh_ws_init(&c->ws, RH_WS_CLIENT, LOAD_MESSAGE_MAX);
    c->deflates = terms->server_bits > 0;
    if (c->deflates)
        rh_ws_allow_deflate(&c->ws);
    else if (w->run->opts->compress)
        load_count(&w->counts.plain);
    rh_hist_add(&w->upgrade, rh_clock_mono_ns() - c->shake->started_ns);
    if (w->greets)
        load_conn_set_state(w, c, LOAD_GREETING);
    else
        opened(w, c);
}

/* All bytes of the answer so far: as a rule it is whole at once. False: no memory. */
static bool gather_answer(struct load_handshake *h, const uint8_t *at, size_t len,
                          struct rh_span *ret)
{
    if (h->head.len == 0) {
        *ret = (struct rh_span){(const char *)at, (uint32_t)len};
        return true;
    }
    if (!load_bytes_add(&h->head, at, len))
        return false;
    *ret = (struct rh_span){(const char *)h->head.at, h->head.len};
    return true;
}

size_t load_open_answer(struct load_worker *w, struct load_conn *c, const uint8_t *at, size_t len)
{
    const struct rh_deflate_ask *ask = w->run->opts->compress ? &load_zip_ask : NULL;
    struct load_handshake *h = c->shake;
    struct rh_deflate_terms terms = {.server_bits = 0};
    struct rh_span all;
    size_t before = h->head.len;
    bool kept = gather_answer(h, at, len, &all);
    int rc = kept ? rh_upgrade_answer(all.at, all.len, h->key, ask, &terms) : 0;

    if (rc == 0 && before == 0)
        kept = load_bytes_add(&h->head, at, len);
    if (!kept)
        load_conn_fail(w, c, "no memory for its handshake");
    else if (rc < -1)
        load_conn_fail(w, c, "the server refused it with HTTP status %d", -rc);
    else if (rc == -1)
        load_conn_fail(w, c, "the server's answer is no WebSocket handshake");
    if (rc <= 0)
        return len;
    upgraded(w, c, &terms);
    return (size_t)rc - before;
}

void load_open_welcome(struct load_worker *w, struct load_conn *c)
{
    rh_hist_add(&w->welcome, rh_clock_mono_ns() - c->shake->started_ns);
    c->welcomed = true;
    if (!load_mode_joins(w->run->opts))
        opened(w, c);
}

void load_open_joined(struct load_worker *w, struct load_conn *c)
{
    opened(w, c);
}

/* A closing handshake (RFC 6455 7.1.1): the server closes TCP, so that the port is free again. */
void load_open_goodbye(struct load_worker *w, struct load_conn *c)
{
    static const uint8_t code[] = {1000 >> 8, 1000 & 0xff};

    if (c->state != LOAD_OPEN)
        return;
    if (c->slow) {
        load_conn_set_state(w, c, LOAD_GOODBYE);
        load_conn_fail(w, c, "it would not read the answer"); /* no fault, but an end */
    } else if (load_conn_put_frame(w, c, RH_WS_OP_CLOSE, code, sizeof(code))) {
        load_conn_set_state(w, c, LOAD_GOODBYE);
    }
}
