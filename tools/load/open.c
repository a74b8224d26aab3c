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
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/clock.h"
#include "core/mem.h"
#include "proto/mask.h"
#include "proto/upgrade.h"
#include "tools/load/load.h"

#define HEAD_MAX  16384 /* what rh_upgrade_answer reads at most */
#define SLOW_ROOM 4096  /* of who does not read: bytes that its kernel takes for it */

struct load_handshake {
    char key[24];
    uint32_t len;
    char head[HEAD_MAX + 1];
};

/* 16 random bytes in base64: 22 digits, of which the last has four zero bits, and "==". */
static void make_key(struct rh_prng *prng, char key[24])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (int i = 0; i < 21; i++)
        key[i] = digits[rh_prng_next(prng) >> 58];
    key[21] = digits[rh_prng_next(prng) >> 62 << 4];
    key[22] = '=';
    key[23] = '=';
}

/* A handshake has ended: for better, if the connection is open. */
void load_open_ended(struct load_worker *w, struct load_conn *c)
{
    if (c->state == LOAD_IDLE)
        return; /* it had not begun */
    w->opening--;
    w->open_moved_ns = rh_clock_mono_ns();
    rh_mem_free(c->shake);
    c->shake = NULL;
}

/* What a slow reader does not read should fill the server's queue, not this machine's kernel. */
static void narrow(const struct load_conn *c)
{
    int room = SLOW_ROOM;

    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
}

static void open_one(struct load_worker *w, struct load_conn *c, uint64_t now)
{
    const struct load_opts *o = w->run->opts;
    struct rh_addr source;
    struct rh_fault fault;
    bool bound = load_opts_source(o, c->number, &source);
    uint64_t random = rh_prng_next(&w->prng);

    if (!o->mask_zero)
        memcpy(c->key, &random, sizeof(c->key));
    c->started_ns = now;
    if (rh_sock_client(o->target.at.ss_family, bound ? &source : NULL, &c->fd, &fault) < 0) {
        c->fd = -1;
        load_conn_fail(w, c, "%s", fault.text);
        return;
    }
    if (c->slow)
        narrow(c);
    load_conn_set_state(w, c, LOAD_CONNECTING);
    w->opening++;
    rh_uring_connect(w->uring, c->fd, &o->target, load_conn_tag(c, LOAD_OP_CONNECT));
}

void load_open_some(struct load_worker *w, uint64_t now)
{
    while (w->opening < LOAD_HANDSHAKES && w->open_next < w->conns_count)
        open_one(w, &w->conns[w->open_next++], now);
}

size_t load_user_name(const struct load_run *run, uint32_t number, char dst[LOAD_NAME_ROOM])
{
    return (size_t)snprintf(dst, LOAD_NAME_ROOM, "bench-%s-%u", run->id, number);
}

size_t load_room_name(const struct load_run *run, char dst[LOAD_NAME_ROOM])
{
    return (size_t)snprintf(dst, LOAD_NAME_ROOM, "bench-%s", run->id);
}

/* The path of this connection: with its user's name and room, where the tool gives them. */
static void make_path(const struct load_worker *w, const struct load_conn *c, char *dst,
                      size_t room)
{
    const struct load_opts *o = w->run->opts;
    bool named = strstr(o->path, "user_id=") || strstr(o->path, "token=");
    char user[LOAD_NAME_ROOM], joins[LOAD_NAME_ROOM];
    int len = snprintf(dst, room, "%s", o->path);

    if (!w->greets)
        return;
    load_user_name(w->run, c->number, user);
    load_room_name(w->run, joins);
    if (!named)
        len += snprintf(dst + len, room - (size_t)len, "%cuser_id=%s", strchr(dst, '?') ? '&' : '?',
                        user);
    if (o->mode->fans_out && !o->broadcast)
        snprintf(dst + len, room - (size_t)len, "%crooms=%s", strchr(dst, '?') ? '&' : '?', joins);
    else if (o->broadcast && c->number == 0)
        snprintf(dst + len, room - (size_t)len, "%cuser_type=admin", strchr(dst, '?') ? '&' : '?');
}

void load_open_connected(struct load_worker *w, struct load_conn *c, int res)
{
    char request[LOAD_PATH_MAX + 1024], path[LOAD_PATH_MAX + 64];
    size_t len;

    if (c->state != LOAD_CONNECTING)
        return; /* given up meanwhile, and closed at the end */
    if (res < 0) {
        load_conn_fail(w, c, "connecting failed: %s", strerror(-res));
        return;
    }
    c->shake = rh_mem_alloc(sizeof(*c->shake));
    if (!c->shake) {
        load_conn_fail(w, c, "no memory for its handshake");
        return;
    }
    c->shake->len = 0;
    make_key(&w->prng, c->shake->key);
    make_path(w, c, path, sizeof(path));
    len =
        rh_upgrade_request(request, sizeof(request), w->run->opts->host, path, c->shake->key, NULL);
    rh_assert(len > 0);
    load_conn_set_state(w, c, LOAD_UPGRADING);
    if (!load_conn_put(w, c, request, len))
        return;
    load_conn_receive(w, c, false);
}

static void opened(struct load_worker *w, struct load_conn *c)
{
    load_open_ended(w, c);
    load_conn_set_state(w, c, LOAD_OPEN);
    load_count(&w->counts.opened);
    if (w->run->opts->mode->on_open)
        w->run->opts->mode->on_open(w, c);
}

size_t load_open_answer(struct load_worker *w, struct load_conn *c, const uint8_t *at, size_t len)
{
    struct load_handshake *h = c->shake;
    size_t before = h->len, run = RH_MIN(len, sizeof(h->head) - before);
    int rc;

    memcpy(h->head + before, at, run);
    h->len += (uint32_t)run;
    rc = rh_upgrade_answer(h->head, h->len, h->key, NULL, NULL);
    if (rc == 0)
        return run;
    if (rc < -1)
        load_conn_fail(w, c, "the server refused it with HTTP status %d", -rc);
    else if (rc == -1)
        load_conn_fail(w, c, "the server's answer is no WebSocket handshake");
    if (rc < 0)
        return len;
    rh_ws_init(&c->ws, RH_WS_CLIENT, LOAD_SIZE_MAX + 65536);
    rh_hist_add(&w->upgrade, rh_clock_mono_ns() - c->started_ns);
    if (w->greets)
        load_conn_set_state(w, c, LOAD_GREETING);
    else
        opened(w, c);
    return (size_t)rc - before;
}

void load_open_welcome(struct load_worker *w, struct load_conn *c)
{
    const struct load_opts *o = w->run->opts;

    rh_hist_add(&w->welcome, rh_clock_mono_ns() - c->started_ns);
    c->welcomed = true;
    if (!o->mode->fans_out || o->broadcast)
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
