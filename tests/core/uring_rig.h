/* tests/core/uring_rig.h - for test_uring*.c: a ring, connections on it, and a book of what came.
 *
 * One thread plays both sides: the hub's end of a connection belongs to the ring, the client's end
 * is a plain socket that is read and written without blocking, in turn with the ring's passes. All
 * completions are booked as they come and taken off the book by their tags; quiet() proves that
 * nobody was told more than that. Waiting ends by events; deadlines are for failures only.
 *
 * One ring at a time is enough: each test is a process of its own.
 */
#ifndef RH_URING_RIG_H
#define RH_URING_RIG_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
#include "core/uring.h"
#include "tests/rh_test.h"

#define MS         1000000ull /* in ns */
#define DEADLINE   (30000 * MS)
#define BOOK_MAX   65536
#define TAG_ACCEPT 0xacce97
#define MIB        (1u << 20)

static struct rh_uring *u;
static int listener;
static struct rh_addr listens;

/* Completions that nobody has taken yet, in their order. */
static struct rh_cqe book[BOOK_MAX];
static unsigned book_len;

struct pair {
    int hub;    /* the ring's end */
    int client; /* a plain socket */
};

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void setup_files(unsigned sq, unsigned cq, unsigned buffers, unsigned headroom,
                               unsigned files)
{
    struct rh_uring_opts opts = {sq, cq, buffers, headroom, files};
    struct rh_fault fault;

    if (rh_uring_create(&opts, &u, &fault) < 0)
        RH_FAIL("%s", fault.text);
    RH_EQ_INT(rh_addr_parse("127.0.0.1:0", &listens), RH_OK);
    RH_EQ_INT(rh_sock_listen(&listens, true, &listener, &fault), RH_OK);
}

static inline void setup(unsigned sq, unsigned cq, unsigned buffers, unsigned headroom)
{
    setup_files(sq, cq, buffers, headroom, 0);
}

static inline void setup_usual(void)
{
    setup(64, 4096, 64, 0);
}

/* ---- passes and the book ---- */

/* One pass; returns how many completions it brought. */
static inline unsigned pass(uint64_t wait_ns)
{
    unsigned before = book_len, count;

    RH_OK_IF(rh_uring_enter(u, wait_ns) == RH_OK);
    do {
        count = rh_uring_reap(u, book + book_len, RH_MIN(48u, BOOK_MAX - book_len));
        book_len += count;
    } while (count);
    return book_len - before;
}

static inline struct rh_cqe take_at(unsigned i)
{
    struct rh_cqe cqe = book[i];

    memmove(&book[i], &book[i + 1], (--book_len - i) * sizeof(*book));
    return cqe;
}

/* The next completion with that tag. */
static inline struct rh_cqe await(uint64_t tag)
{
    uint64_t end = now_ns() + DEADLINE;

    for (;;) {
        for (unsigned i = 0; i < book_len; i++)
            if (book[i].tag == tag)
                return take_at(i);
        if (now_ns() > end)
            RH_FAIL("no completion with tag %llu", (unsigned long long)tag);
        pass(10 * MS);
    }
}

/* The next completion of all. */
static inline struct rh_cqe await_any(void)
{
    uint64_t end = now_ns() + DEADLINE;

    while (book_len == 0) {
        if (now_ns() > end)
            RH_FAIL("no completion");
        pass(10 * MS);
    }
    return take_at(0);
}

/* Nothing is booked and nothing comes. */
static inline void quiet(void)
{
    pass(0);
    pass(20 * MS);
    if (book_len)
        RH_FAIL("unexpected: tag %llu, result %d, flags %u", (unsigned long long)book[0].tag,
                book[0].res, book[0].flags);
}

/* ---- connections and bytes ---- */

/* What stands at an offset of a stream; any mix-up of streams, offsets or buffers shows. */
static inline uint8_t byte_at(unsigned stream, size_t offset)
{
    uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u + stream * 0xbf58476d1ce4e5b9u;

    return (uint8_t)(x >> 40);
}

static inline uint8_t *stream_bytes(unsigned stream, size_t len)
{
    uint8_t *bytes = rh_guard(NULL, len);

    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(stream, i);
    return bytes;
}

static inline int client_connect(int receive_buffer, const struct rh_addr *source)
{
    int fd;

    RH_OK_IF(rh_sock_client(AF_INET, source, &fd, NULL) == RH_OK);
    if (receive_buffer)
        RH_OK_IF(!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer)));
    RH_OK_IF(!connect(fd, (struct sockaddr *)&listens.at, listens.len));
    return fd;
}

static inline struct pair pair_with(int receive_buffer)
{
    struct rh_addr addr;
    struct pair p;

    rh_uring_accept(u, listener, &addr, TAG_ACCEPT);
    p.client = client_connect(receive_buffer, NULL);
    p.hub = await(TAG_ACCEPT).res;
    RH_OK_IF(p.hub >= 0);
    if (receive_buffer) {
        int small = 4096;

        RH_OK_IF(!setsockopt(p.hub, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
    }
    return p;
}

static inline struct pair pair_open(void)
{
    return pair_with(0);
}

/* A connection whose kernel holds little: long sends on it block. */
static inline struct pair pair_narrow(void)
{
    return pair_with(4096);
}

static inline void client_write(const struct pair *p, const void *bytes, size_t len)
{
    RH_OK_IF(send(p->client, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* The client's next `len` bytes, read in small portions in turn with the ring's passes. */
static inline void client_read(const struct pair *p, uint8_t *dst, size_t len)
{
    uint64_t end = now_ns() + DEADLINE;
    size_t have = 0;

    while (have < len) {
        ssize_t rc = recv(p->client, dst + have, RH_MIN(len - have, 16384), MSG_DONTWAIT);

        if (rc > 0)
            have += (size_t)rc;
        else if (rc == 0 || errno != EAGAIN || now_ns() > end)
            RH_FAIL("%zu of %zu bytes, then %zd, errno %d", have, len, rc, errno);
        pass(rc > 0 ? 0 : MS);
    }
}

static inline void client_expect(const struct pair *p, unsigned stream, size_t len)
{
    uint8_t *got = malloc(len);

    client_read(p, got, len);
    for (size_t i = 0; i < len; i++)
        if (got[i] != byte_at(stream, i))
            RH_FAIL("stream %u differs at %zu", stream, i);
    free(got);
}

static inline void client_reset(const struct pair *p)
{
    struct linger now = {1, 0};

    setsockopt(p->client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(p->client);
}

/* What the client's next read says: bytes, 0 at the end, or a negative errno. */
static inline ssize_t client_ends(const struct pair *p)
{
    uint64_t end = now_ns() + DEADLINE;
    char bytes[4096];

    for (;;) {
        ssize_t rc = recv(p->client, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (rc >= 0)
            return rc;
        if (errno != EAGAIN)
            return -errno;
        if (now_ns() > end)
            RH_FAIL("the connection does not end");
        pass(MS);
    }
}

static inline void expect_data(struct rh_cqe cqe, const char *text)
{
    RH_EQ_INT(cqe.res, (int)strlen(text));
    RH_OK_IF(cqe.flags & RH_CQE_BUFFER);
    RH_EQ_MEM(rh_uring_buffer(u, cqe.buffer), text, strlen(text));
    rh_uring_give(u, cqe.buffer);
}

/* Ends both sides; nothing may be under way. */
static inline void pair_close(const struct pair *p)
{
    rh_uring_close(u, p->hub);
    close(p->client);
}

static inline void teardown(void)
{
    quiet();
    rh_sock_close(listener);
    rh_uring_destroy(u);
}

/* Sends the first `len` bytes of a stream in `count` pieces of different sizes. The array is
 * spoilt behind the call: it was copied. */
static inline void send_pieces(const struct pair *p, const uint8_t *bytes, size_t len,
                               unsigned count, uint64_t tag)
{
    static struct iovec iov[RH_URING_IOV];
    size_t at = 0;

    for (unsigned i = 0; i < count; i++) {
        size_t part = 1 + rh_test_rand() % (2 * len / count);

        if (i + 1 == count || part > len - at) /* the last ones may be empty */
            part = len - at;
        iov[i] = (struct iovec){(void *)(bytes + at), part};
        at += part;
    }
    rh_uring_sendv(u, p->hub, iov, count, tag);
    memset(iov, 0xff, sizeof(iov));
}

#endif
