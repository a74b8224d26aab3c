/* bench/floor_echo.c - the floor under an echo server: the least user code that does the job.
 *
 * What ringhub's own user-mode CPU per message is measured against. It receives and sends through
 * the same seam with the same settings as a shard (multishot receive into provided buffers, one
 * send per connection and pass), but looks at no frame: it knows that each one is `--size` bytes of
 * binary payload masked with the key 0 (ringhub-bench --mask-zero), copies the payload behind a
 * header that never changes, and that is all. No clock, no timers, no other threads, no limits.
 *
 * Usage      floor_echo --listen 127.0.0.1:PORT --size 64 [--cpu 0]; ends on SIGTERM.
 * Limits     sizes up to 65535; anything else than such frames is a client's mistake, which it
 *            answers by closing. The peer's close frame is told by its first byte.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/mem.h"
#include "core/uring.h"
#include "proto/upgrade.h"
#include "proto/ws.h"

#define SIZE_MOST  65535 /* a payload of which the length takes two bytes at most */
#define DIRTY_MAX  65536 /* connections that may have something to send at a time */
#define HEAD_ROOM  2048
#define REAP       256
#define BUSY       16 /* as in shard.c: so many completions, then there may be more */
#define CLOSE_BYTE (0x80 | RH_WS_OP_CLOSE)
#define KEY_SIZE   4

struct bytes {
    uint8_t *at;
    size_t len, room;
};

struct conn {
    int fd;
    bool open; /* upgraded */
    bool receiving, sending, dead, dirty;
    struct bytes in;          /* a head or frame that has not come whole yet */
    struct bytes out, flight; /* being filled, with the kernel */
};

static struct {
    struct rh_uring *uring;
    int listener;
    struct rh_addr peer;
    struct conn *dirty[DIRTY_MAX];
    unsigned dirty_count;
    size_t size;         /* of a payload */
    size_t frame_in;     /* masked, with its header */
    size_t head_in;      /* of these, the header and the key */
    uint8_t head_out[4]; /* the answer's header */
    size_t head_out_len;
} server;

enum { ACCEPT, RECV, SEND }; /* in a tag, above the connection's address */

static uint64_t tag(const struct conn *c, unsigned op)
{
    return (uint64_t)(uintptr_t)c << 2 | op; /* addresses have 57 bits at most */
}

static struct conn *conn_of(uint64_t from)
{
    return (struct conn *)(uintptr_t)(from >> 2); // NOLINT(performance-no-int-to-ptr): a tag
}

static void *add(struct bytes *b, size_t len)
{
    if (b->len + len > b->room) {
        size_t room = RH_MAX(2 * b->room, b->len + len + 256);
        void *more = rh_mem_realloc(b->at, room);

        rh_assert(more); /* a yardstick may give up */
        b->at = more;
        b->room = room;
    }
    b->len += len;
    return b->at + b->len - len;
}

static void make_dirty(struct conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    rh_assert(server.dirty_count < DIRTY_MAX);
    server.dirty[server.dirty_count++] = c;
}

static void end(struct conn *c)
{
    if (!c->dead)
        rh_uring_shutdown(server.uring, c->fd, SHUT_RDWR);
    c->dead = true;
    if (c->receiving || c->sending || c->dirty)
        return;
    rh_uring_close(server.uring, c->fd);
    rh_mem_free(c->in.at);
    rh_mem_free(c->out.at);
    rh_mem_free(c->flight.at);
    rh_mem_free(c);
}

/* ---- what comes in ---- */

static void upgrade(struct conn *c, const uint8_t *at, size_t len)
{
    struct rh_http_head head;
    struct rh_upgrade up;
    const char *why;
    char answer[512];
    size_t answer_len;
    int rc;

    memcpy(add(&c->in, len), at, len);
    rc = rh_http_parse((char *)c->in.at, c->in.len, HEAD_ROOM, NULL, &head, &why);
    if (rc == 0)
        return;
    if (rc < 0 || rh_upgrade_check(&head, NULL, &up, &why) != 0) {
        end(c);
        return;
    }
    answer_len = rh_upgrade_response(answer, sizeof(answer), &up);
    memcpy(add(&c->out, answer_len), answer, answer_len);
    make_dirty(c);
    c->open = true;
    c->in.len = 0; /* a client waits for the answer: nothing follows the head */
}

/* All whole frames of a run of bytes; returns how many bytes those were. */
static size_t echo(struct conn *c, const uint8_t *at, size_t len)
{
    size_t frames = len / server.frame_in;
    size_t frame_out = server.head_out_len + server.size;
    uint8_t *dst;

    if (frames == 0)
        return 0;
    dst = add(&c->out, frames * frame_out);
    for (size_t i = 0; i < frames; i++, dst += frame_out, at += server.frame_in) {
        memcpy(dst, server.head_out, server.head_out_len);
        memcpy(dst + server.head_out_len, at + server.head_in, server.size);
    }
    make_dirty(c);
    return frames * server.frame_in;
}

static void on_bytes(struct conn *c, uint8_t *at, size_t len)
{
    size_t used;

    if (!c->open) {
        upgrade(c, at, len);
        return;
    }
    if (c->in.len) { /* the frame that was cut comes first */
        size_t more = RH_MIN(server.frame_in - c->in.len, len);

        memcpy(add(&c->in, more), at, more);
        at += more;
        len -= more;
        if (c->in.at[0] == CLOSE_BYTE) {
            end(c);
            return;
        }
        if (c->in.len < server.frame_in)
            return;
        echo(c, c->in.at, c->in.len);
        c->in.len = 0;
    }
    used = echo(c, at, len);
    if (used < len && at[used] == CLOSE_BYTE)
        end(c);
    else if (used < len)
        memcpy(add(&c->in, len - used), at + used, len - used);
}

static void on_recv(struct conn *c, const struct rh_cqe *cqe)
{
    c->receiving = cqe->flags & RH_CQE_MORE;
    if (cqe->flags & RH_CQE_BUFFER) {
        if (cqe->res > 0 && !c->dead)
            on_bytes(c, rh_uring_buffer(server.uring, cqe->buffer), (size_t)cqe->res);
        rh_uring_give(server.uring, cqe->buffer);
    }
    if (c->dead || cqe->res == 0 || (cqe->res < 0 && cqe->res != -ENOBUFS)) {
        end(c);
    } else if (!c->receiving) {
        c->receiving = true;
        rh_uring_recv_multi(server.uring, c->fd, cqe->res == -ENOBUFS, tag(c, RECV));
    }
}

static void on_accept(int fd)
{
    struct conn *c = fd >= 0 ? rh_mem_zalloc(sizeof(*c)) : NULL;

    rh_uring_accept(server.uring, server.listener, &server.peer, tag(NULL, ACCEPT));
    if (!c)
        return;
    c->fd = fd;
    c->receiving = true;
    rh_uring_recv_multi(server.uring, fd, false, tag(c, RECV));
}

/* ---- a pass ---- */

static void flush(void)
{
    for (unsigned i = 0; i < server.dirty_count; i++) {
        struct conn *c = server.dirty[i];
        struct bytes filled = c->out;

        c->dirty = false;
        if (c->dead) {
            end(c);
        } else if (!c->sending && c->out.len) {
            c->out = c->flight;
            c->out.len = 0;
            c->flight = filled;
            c->sending = true;
            rh_uring_send(server.uring, c->fd, c->flight.at, c->flight.len, tag(c, SEND));
        }
    }
    server.dirty_count = 0;
}

static void on_cqe(const struct rh_cqe *cqe)
{
    struct conn *c = conn_of(cqe->tag);

    switch (cqe->tag & 3) {
    case ACCEPT:
        on_accept(cqe->res);
        break;
    case RECV:
        on_recv(c, cqe);
        break;
    default:
        c->sending = false;
        if (c->dead || cqe->res != (int)c->flight.len)
            end(c);
        else if (c->out.len)
            make_dirty(c);
    }
}

static int serve(struct rh_fault *fault)
{
    static const struct rh_uring_opts opts = {4096, 16384, 2048, 160, 0}; /* a shard's */
    struct rh_cqe cqes[REAP];
    unsigned count, all = 0;
    int rc = rh_uring_create(&opts, &server.uring, fault);

    if (rc < 0)
        return rc;
    rh_uring_accept(server.uring, server.listener, &server.peer, tag(NULL, ACCEPT));
    while (rh_uring_enter(server.uring, all >= BUSY ? 0 : 1000000000) == RH_OK) {
        all = 0;
        do {
            count = rh_uring_reap(server.uring, cqes, REAP);
            for (unsigned i = 0; i < count; i++)
                on_cqe(&cqes[i]);
            all += count;
        } while (count == REAP);
        flush();
    }
    return RH_EIO;
}

/* ---- start ---- */

static void set_size(size_t size)
{
    static const uint8_t zero[KEY_SIZE];
    uint8_t head[RH_WS_HEAD_MAX];

    server.size = size;
    server.head_in = rh_ws_head(head, RH_WS_BINARY, true, size, zero);
    server.frame_in = server.head_in + size;
    server.head_out_len = rh_ws_head(head, RH_WS_BINARY, true, size, NULL);
    memcpy(server.head_out, head, server.head_out_len);
}

static bool pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0;
}

static bool read_args(int argc, char **argv, struct rh_addr *ret_addr)
{
    bool listen = false;
    long size = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--listen") == 0)
            listen = rh_addr_parse(argv[i + 1], ret_addr) == RH_OK;
        else if (strcmp(argv[i], "--size") == 0)
            size = atol(argv[i + 1]);
        else if (strcmp(argv[i], "--cpu") != 0 || !pin(atoi(argv[i + 1])))
            return false;
    }
    if (!listen || size < 1 || size > SIZE_MOST || argc % 2 == 0)
        return false;
    set_size((size_t)size);
    return true;
}

int main(int argc, char **argv)
{
    struct rh_addr addr;
    struct rh_fault fault;
    char text[RH_ADDR_TEXT];

    if (!read_args(argc, argv, &addr)) {
        fprintf(stderr, "usage: floor_echo --listen 127.0.0.1:PORT --size 1..%d [--cpu N]\n",
                SIZE_MOST);
        return 2;
    }
    if (rh_sock_listen(&addr, true, &server.listener, &fault) < 0) {
        fprintf(stderr, "floor_echo: %s\n", fault.text);
        return 1;
    }
    rh_addr_print(&addr, text);
    printf("floor_echo listens on ws://%s/\n", text);
    fflush(stdout);
    if (serve(&fault) < 0)
        fprintf(stderr, "floor_echo: %s\n", fault.text);
    return 1;
}
