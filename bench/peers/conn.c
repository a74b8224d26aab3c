/* bench/peers/conn.c - one connection: bytes in, packets to its dialect; frames out once a pass.
 *
 * The same use of the seam as tools/load/conn.c: multishot receives into provided buffers, frames
 * gathered in `out` and sent at the end of a pass, one send at a time. The opening handshake is
 * written here, as some servers want a subprotocol.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/peers/peer.h"
#include "core/base.h"
#include "core/clock.h"
#include "core/mem.h"
#include "proto/mask.h"

#define PER_SOURCE 4000 /* connections from one loopback address: far from where ports get scarce */
#define ANSWER_MAX 16384

enum { CONNECT, RECV, SEND }; /* in a tag, under the number */

static uint64_t tag(const struct peer_conn *c, unsigned op)
{
    return (uint64_t)c->number << 2 | op;
}

static void add(struct peer_bytes *b, const void *at, size_t len)
{
    if (b->len + len > b->room) {
        size_t room = RH_MAX(2 * (size_t)b->room, b->len + len + 256);
        void *more = rh_mem_realloc(b->at, room);

        rh_assert(more && room <= UINT32_MAX); /* a yardstick may give up */
        b->at = more;
        b->room = (uint32_t)room;
    }
    if (at && len)
        memcpy(b->at + b->len, at, len);
    b->len += (uint32_t)len;
}

static void fail(struct peer *p, struct peer_conn *c, const char *why)
{
    if (c->state != PEER_DEAD)
        peer_fault(p, &p->broken, "connection %u: %s", c->number, why);
    c->state = PEER_DEAD;
}

void peer_conn_fini(struct peer_conn *c)
{
    if (c->fd >= 0)
        rh_sock_close(c->fd);
    rh_mem_free(c->out.at);
    rh_mem_free(c->flight.at);
    rh_mem_free(c->whole.at);
    rh_mem_free(c->flow);
}

/* ---- sending ---- */

static void make_dirty(struct peer *p, struct peer_conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    p->dirty[p->dirty_count++] = c;
}

uint8_t *peer_conn_frame(struct peer *p, struct peer_conn *c, uint8_t opcode, size_t len)
{
    uint8_t head[RH_WS_HEAD_MAX];
    size_t head_len =
        rh_ws_head(head, opcode ? opcode : p->opts.dialect->opcode, true, len, c->key);

    add(&c->out, head, head_len);
    add(&c->out, NULL, len);
    make_dirty(p, c);
    return c->out.at + c->out.len - len;
}

void peer_conn_say(struct peer *p, struct peer_conn *c, uint8_t opcode, const void *at, size_t len)
{
    rh_mask(peer_conn_frame(p, c, opcode, len), at, len, c->key, 0);
}

void peer_conn_flush(struct peer *p, struct peer_conn *c)
{
    struct peer_bytes filled = c->out;

    c->dirty = false;
    if (c->sending || c->out.len == 0 || c->state == PEER_DEAD)
        return;
    c->out = c->flight;
    c->out.len = 0;
    c->flight = filled;
    c->sending = true;
    rh_uring_send(p->uring, c->fd, c->flight.at, c->flight.len, tag(c, SEND));
}

static void on_sent(struct peer *p, struct peer_conn *c, int res)
{
    c->sending = false;
    if (res < 0 || (uint32_t)res != c->flight.len)
        fail(p, c, res < 0 ? strerror(-res) : "sending was cut short");
    else if (c->out.len)
        make_dirty(p, c);
}

/* ---- opening ---- */

/* Loopback has as many addresses as one wants: each has ports of its own. */
static bool source_of(const struct peer *p, const struct peer_conn *c, struct rh_addr *ret)
{
    char text[RH_ADDR_TEXT];

    if (!rh_addr_loopback(&p->opts.server) || p->opts.server.at.ss_family != AF_INET)
        return false;
    snprintf(text, sizeof(text), "127.0.0.%u:0", 2 + c->number / PER_SOURCE % 250);
    return rh_addr_parse(text, ret) == RH_OK;
}

bool peer_conn_begin(struct peer *p, struct peer_conn *c)
{
    struct rh_addr source;
    struct rh_fault fault;
    bool bound = source_of(p, c, &source);
    uint32_t key = (c->number + 1) * 2654435761u;

    memcpy(c->key, &key, sizeof(c->key));
    c->state = PEER_CONNECTING;
    rh_ws_init(&c->ws, RH_WS_CLIENT, RH_WS_SIZE_MAX);
    if (rh_sock_client(p->opts.server.at.ss_family, bound ? &source : NULL, &c->fd, &fault) < 0) {
        c->fd = -1;
        fail(p, c, fault.text);
        return false;
    }
    rh_uring_connect(p->uring, c->fd, &p->opts.server, tag(c, CONNECT));
    return true;
}

static void receive(struct peer *p, struct peer_conn *c, bool waits)
{
    c->receiving = true;
    rh_uring_recv_multi(p->uring, c->fd, waits, tag(c, RECV));
}

static void on_connected(struct peer *p, struct peer_conn *c, int res)
{
    const char *offer = p->opts.dialect->offer;
    char path[512], text[1024];
    int len;

    if (res < 0) {
        fail(p, c, strerror(-res));
        return;
    }
    p->opts.dialect->path(p, c, path, sizeof(path));
    len = snprintf(text, sizeof(text),
                   "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                   "%s%s%s\r\n",
                   path, p->opts.host, offer ? "Sec-WebSocket-Protocol: " : "", offer ? offer : "",
                   offer ? "\r\n" : "");
    rh_assert(len > 0 && (size_t)len < sizeof(text));
    c->state = PEER_UPGRADING;
    add(&c->out, text, (size_t)len);
    make_dirty(p, c);
    receive(p, c, false);
}

/* Takes what belongs to the answer's head; how many bytes that were. */
static size_t take_answer(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len)
{
    size_t had = c->whole.len, head;
    const char *end;

    add(&c->whole, at, len);
    end = memmem(c->whole.at, c->whole.len, "\r\n\r\n", 4);
    if (!end) {
        if (c->whole.len > ANSWER_MAX)
            fail(p, c, "the answer to its handshake does not end");
        return len;
    }
    head = (size_t)((const uint8_t *)end - c->whole.at) + 4;
    rh_assert(head > had && head - had <= len); /* else it had ended before */
    c->whole.len = 0;
    if (memcmp(c->whole.at, "HTTP/1.1 101 ", 13) != 0) {
        c->whole.at[RH_MIN(head - 4, 60u)] = '\0';
        peer_fault(p, &p->broken, "connection %u is answered: %s", c->number, (char *)c->whole.at);
        c->state = PEER_DEAD;
        return len;
    }
    c->state = PEER_LOGIN;
    p->opts.dialect->open(p, c);
    return head - had;
}

/* ---- receiving ---- */

/* Packets at the front of these bytes; how many bytes they had. */
static size_t take_packets(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    size_t all = 0, used;

    while (all < len && c->state != PEER_DEAD &&
           (used = p->opts.dialect->take(p, c, at + all, len - all)) > 0)
        all += used;
    return all;
}

static void on_data(struct peer *p, struct peer_conn *c, const struct rh_ws_event *ev)
{
    bool kept = c->whole.len > 0;
    uint8_t *at = ev->data;
    size_t len = ev->len, used;

    if (kept || (!p->opts.dialect->stream && !ev->last)) {
        add(&c->whole, at, len);
        at = c->whole.at;
        len = c->whole.len;
        kept = true;
    }
    if (!p->opts.dialect->stream) {
        if (ev->last) {
            c->whole.len = 0;
            p->opts.dialect->take(p, c, at, len);
        }
        return;
    }
    used = take_packets(p, c, at, len);
    if (kept) {
        memmove(at, at + used, len - used);
        c->whole.len = (uint32_t)(len - used);
    } else if (used < len) {
        add(&c->whole, at + used, len - used);
    }
}

static void on_event(struct peer *p, struct peer_conn *c, const struct rh_ws_event *ev)
{
    switch (ev->kind) {
    case RH_WS_DATA:
        on_data(p, c, ev);
        break;
    case RH_WS_PING:
        peer_conn_say(p, c, RH_WS_OP_PONG, ev->data, ev->len);
        break;
    case RH_WS_CLOSE:
        fail(p, c, "the server closed it");
        break;
    case RH_WS_ERROR:
        fail(p, c, ev->why);
        break;
    default: /* PONG */
        break;
    }
}

/* `len` bytes at `at`, with room for the tail in front of them. */
static void feed(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    at -= c->tail_len;
    len += c->tail_len;
    memcpy(at, c->tail, c->tail_len);
    c->tail_len = 0;
    while (c->state != PEER_DEAD) {
        struct rh_ws_event ev;
        size_t used = rh_ws_feed(&c->ws, at, len, &ev);

        at += used;
        len -= used;
        if (ev.kind == RH_WS_MORE) {
            memcpy(c->tail, at, len);
            c->tail_len = (uint8_t)len;
            return;
        }
        on_event(p, c, &ev);
    }
}

static void on_bytes(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    if (c->state == PEER_UPGRADING) {
        size_t used = take_answer(p, c, at, len);

        at += used;
        len -= used;
    }
    if (len > 0)
        feed(p, c, at, len);
}

static void on_recv(struct peer *p, struct peer_conn *c, const struct rh_cqe *cqe)
{
    c->receiving = cqe->flags & RH_CQE_MORE;
    if (cqe->flags & RH_CQE_BUFFER) {
        if (cqe->res > 0 && c->state != PEER_DEAD)
            on_bytes(p, c, rh_uring_buffer(p->uring, cqe->buffer), (size_t)cqe->res);
        rh_uring_give(p->uring, cqe->buffer);
    }
    if (cqe->res == 0)
        fail(p, c, "the server closed it without a word");
    else if (cqe->res < 0 && cqe->res != -ENOBUFS)
        fail(p, c, strerror(-cqe->res));
    else if (!c->receiving && c->state != PEER_DEAD)
        receive(p, c, cqe->res == -ENOBUFS);
}

void peer_conn_on_cqe(struct peer *p, const struct rh_cqe *cqe)
{
    struct peer_conn *c = &p->conns[cqe->tag >> 2];

    switch (cqe->tag & 3) {
    case CONNECT:
        on_connected(p, c, cqe->res);
        break;
    case RECV:
        p->now_ns = rh_clock_mono_ns();
        on_recv(p, c, cqe);
        break;
    default:
        on_sent(p, c, cqe->res);
    }
}
