/* tests/core/test_uring.c - the seam to the kernel against the real kernel, over loopback TCP.
 *
 * One thread plays both sides: the hub's end of a connection belongs to the ring, the client's end
 * is a plain socket that is read and written without blocking, in turn with the ring's passes. All
 * completions are booked as they come and taken off the book by their tags; quiet() proves that
 * nobody was told more than that. Waiting ends by events; deadlines are for failures only.
 *
 * Set-up, the self-test, addresses and plain sockets are in test_uring_check.c.
 */
#include "core/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
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

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void setup(unsigned sq, unsigned cq, unsigned buffers, unsigned headroom)
{
    struct rh_uring_opts opts = {sq, cq, buffers, headroom};
    struct rh_fault fault;

    if (rh_uring_create(&opts, &u, &fault) < 0)
        RH_FAIL("%s", fault.text);
    RH_EQ_INT(rh_addr_parse("127.0.0.1:0", &listens), RH_OK);
    RH_EQ_INT(rh_sock_listen(&listens, true, &listener, &fault), RH_OK);
}

static void setup_usual(void)
{
    setup(64, 4096, 64, 0);
}

/* ---- passes and the book ---- */

/* One pass; returns how many completions it brought. */
static unsigned pass(uint64_t wait_ns)
{
    unsigned before = book_len, count;

    RH_OK_IF(rh_uring_enter(u, wait_ns) == RH_OK);
    do {
        count = rh_uring_reap(u, book + book_len, RH_MIN(48u, BOOK_MAX - book_len));
        book_len += count;
    } while (count);
    return book_len - before;
}

static struct rh_cqe take_at(unsigned i)
{
    struct rh_cqe cqe = book[i];

    memmove(&book[i], &book[i + 1], (--book_len - i) * sizeof(*book));
    return cqe;
}

/* The next completion with that tag. */
static struct rh_cqe await(uint64_t tag)
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
static struct rh_cqe await_any(void)
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
static void quiet(void)
{
    pass(0);
    pass(20 * MS);
    if (book_len)
        RH_FAIL("unexpected: tag %llu, result %d, flags %u", (unsigned long long)book[0].tag,
                book[0].res, book[0].flags);
}

/* ---- connections and bytes ---- */

/* What stands at an offset of a stream; any mix-up of streams, offsets or buffers shows. */
static uint8_t byte_at(unsigned stream, size_t offset)
{
    uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u + stream * 0xbf58476d1ce4e5b9u;

    return (uint8_t)(x >> 40);
}

static uint8_t *stream_bytes(unsigned stream, size_t len)
{
    uint8_t *bytes = rh_guard(NULL, len);

    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(stream, i);
    return bytes;
}

static int client_connect(int receive_buffer, const struct rh_addr *source)
{
    int fd;

    RH_OK_IF(rh_sock_client(AF_INET, source, &fd, NULL) == RH_OK);
    if (receive_buffer)
        RH_OK_IF(!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer)));
    RH_OK_IF(!connect(fd, (struct sockaddr *)&listens.at, listens.len));
    return fd;
}

static struct pair pair_with(int receive_buffer)
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

static struct pair pair_open(void)
{
    return pair_with(0);
}

/* A connection whose kernel holds little: long sends on it block. */
static struct pair pair_narrow(void)
{
    return pair_with(4096);
}

static void client_write(const struct pair *p, const void *bytes, size_t len)
{
    RH_OK_IF(send(p->client, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* The client's next `len` bytes, read in small portions in turn with the ring's passes. */
static void client_read(const struct pair *p, uint8_t *dst, size_t len)
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

static void client_expect(const struct pair *p, unsigned stream, size_t len)
{
    uint8_t *got = malloc(len);

    client_read(p, got, len);
    for (size_t i = 0; i < len; i++)
        if (got[i] != byte_at(stream, i))
            RH_FAIL("stream %u differs at %zu", stream, i);
    free(got);
}

static void client_reset(const struct pair *p)
{
    struct linger now = {1, 0};

    setsockopt(p->client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(p->client);
}

/* What the client's next read says: bytes, 0 at the end, or a negative errno. */
static ssize_t client_ends(const struct pair *p)
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

static void expect_data(struct rh_cqe cqe, const char *text)
{
    RH_EQ_INT(cqe.res, (int)strlen(text));
    RH_OK_IF(cqe.flags & RH_CQE_BUFFER);
    RH_EQ_MEM(rh_uring_buffer(u, cqe.buffer), text, strlen(text));
    rh_uring_give(u, cqe.buffer);
}

/* Ends both sides; nothing may be under way. */
static void pair_close(const struct pair *p)
{
    rh_uring_close(u, p->hub);
    close(p->client);
}

static void teardown(void)
{
    quiet();
    rh_sock_close(listener);
    rh_uring_destroy(u);
}

/* ---- accepting and connecting ---- */

RH_TEST(uring, accepts_at_once_fill_each_their_own_address)
{
    enum { N = 16 };
    struct rh_addr addrs[N], source;
    char text[RH_ADDR_TEXT], want[RH_ADDR_TEXT];
    int clients[N], found = 0;

    setup_usual();
    for (unsigned i = 0; i < N; i++)
        rh_uring_accept(u, listener, &addrs[i], i);
    quiet(); /* armed, and nobody there */
    for (unsigned i = 0; i < N; i++) {
        snprintf(text, sizeof(text), "127.0.0.%u:0", i + 2);
        RH_EQ_INT(rh_addr_parse(text, &source), RH_OK);
        clients[i] = client_connect(0, &source);
    }
    for (unsigned i = 0; i < N; i++) {
        struct rh_cqe cqe = await(i);
        struct rh_addr peer = {.len = sizeof(peer.at)};

        RH_OK_IF(cqe.res >= 0 && cqe.flags == 0);
        RH_OK_IF(!getpeername(cqe.res, (struct sockaddr *)&peer.at, &peer.len));
        RH_EQ_INT(addrs[i].len, peer.len);
        RH_EQ_MEM(&addrs[i].at, &peer.at, sizeof(struct sockaddr_in));
        rh_addr_print(&addrs[i], text);
        for (unsigned k = 0; k < N; k++) {
            peer.len = sizeof(peer.at);
            RH_OK_IF(!getsockname(clients[k], (struct sockaddr *)&peer.at, &peer.len));
            rh_addr_print(&peer, want);
            found += !strcmp(text, want);
        }
        rh_uring_close(u, cqe.res);
    }
    RH_EQ_INT(found, N);
    teardown();
}

static int option_of(int fd, int level, int option)
{
    int value = 0;
    socklen_t len = sizeof(value);

    RH_EQ_INT(getsockopt(fd, level, option, &value, &len), 0);
    return value;
}

RH_TEST(uring, an_accepted_connection_inherits_the_listeners_options)
{
    struct pair p;

    setup_usual();
    p = pair_open();
    RH_EQ_INT(option_of(p.hub, IPPROTO_TCP, TCP_NODELAY), 1);
    RH_EQ_INT(option_of(p.hub, SOL_SOCKET, SO_KEEPALIVE), 1);
    RH_EQ_INT(option_of(p.client, IPPROTO_TCP, TCP_NODELAY), 1);
    RH_OK_IF(fcntl(p.hub, F_GETFD) & FD_CLOEXEC);
    pair_close(&p);
    teardown();
}

RH_TEST(uring, connect_reaches_a_listener_and_is_refused_without_one)
{
    struct rh_addr addr;
    struct pair p;

    setup_usual();
    RH_EQ_INT(rh_sock_client(AF_INET, NULL, &p.client, NULL), RH_OK);
    rh_uring_accept(u, listener, &addr, 1);
    rh_uring_connect(u, p.client, &listens, 2);
    RH_EQ_INT(await(2).res, 0);
    p.hub = await(1).res;
    rh_uring_send(u, p.client, "hello", 5, 3);
    rh_uring_recv_once(u, p.hub, 4);
    RH_EQ_INT(await(3).res, 5);
    expect_data(await(4), "hello");
    pair_close(&p);

    rh_sock_close(listener);
    RH_EQ_INT(rh_sock_client(AF_INET, NULL, &p.client, NULL), RH_OK);
    rh_uring_connect(u, p.client, &listens, 5);
    RH_EQ_INT(await(5).res, -ECONNREFUSED);
    listener = p.client;
    teardown();
}

RH_TEST(uring, without_a_descriptor_the_connection_waits_in_the_backlog)
{
    struct rlimit before, none;
    struct rh_addr addr;
    struct pair p;

    setup_usual();
    p.client = client_connect(0, NULL);
    RH_EQ_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = (rlim_t)p.client + 1; /* the lowest free number was taken for it */
    RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    rh_uring_accept(u, listener, &addr, 1);
    RH_EQ_INT(await(1).res, -EMFILE);
    RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    rh_uring_accept(u, listener, &addr, 2);
    p.hub = await(2).res;
    client_write(&p, "still", 5);
    rh_uring_recv_once(u, p.hub, 3);
    expect_data(await(3), "still");
    pair_close(&p);
    teardown();
}

/* ---- receiving ---- */

RH_TEST(uring, recv_once_ends_with_its_first_bytes)
{
    struct pair p;

    setup_usual();
    p = pair_open();
    rh_uring_recv_once(u, p.hub, 1);
    quiet();
    client_write(&p, "one", 3);
    struct rh_cqe cqe = await(1);
    RH_EQ_INT(cqe.flags, RH_CQE_BUFFER);
    expect_data(cqe, "one");
    client_write(&p, "two", 3);
    quiet(); /* nothing is armed any more */
    rh_uring_recv_once(u, p.hub, 2);
    expect_data(await(2), "two");
    close(p.client);
    rh_uring_recv_once(u, p.hub, 3);
    cqe = await(3);
    RH_EQ_INT(cqe.res, 0);
    RH_EQ_INT(cqe.flags, 0);
    rh_uring_close(u, p.hub);
    teardown();
}

RH_TEST(uring, recv_multi_goes_on_until_the_peer_closes)
{
    static const char *const texts[] = {"a", "bc", "def", "ghij"};
    struct rh_cqe cqe;
    struct pair p;

    setup_usual();
    p = pair_open();
    rh_uring_recv_multi(u, p.hub, false, 1);
    for (unsigned i = 0; i < 400; i++) { /* more than there are buffers: they come back */
        client_write(&p, texts[i % 4], strlen(texts[i % 4]));
        cqe = await(1);
        RH_OK_IF(cqe.flags == (RH_CQE_MORE | RH_CQE_BUFFER));
        expect_data(cqe, texts[i % 4]);
    }
    shutdown(p.client, SHUT_WR);
    cqe = await(1);
    RH_EQ_INT(cqe.res, 0);
    RH_EQ_INT(cqe.flags, 0);
    pair_close(&p);
    teardown();
}

RH_TEST(uring, a_reset_by_the_peer_ends_a_receive_with_an_error)
{
    struct pair once, multi;

    setup_usual();
    once = pair_open();
    multi = pair_open();
    rh_uring_recv_once(u, once.hub, 1);
    rh_uring_recv_multi(u, multi.hub, false, 2);
    pass(0);
    client_reset(&once);
    client_reset(&multi);
    RH_EQ_INT(await(1).res, -ECONNRESET);
    struct rh_cqe cqe = await(2);
    RH_EQ_INT(cqe.res, -ECONNRESET);
    RH_EQ_INT(cqe.flags, 0);
    rh_uring_close(u, once.hub);
    rh_uring_close(u, multi.hub);
    teardown();
}

/* Takes both buffers of a group of two out of the kernel's hands. */
static void take_all_buffers(const struct pair *p, uint16_t ret_buffers[2])
{
    for (unsigned i = 0; i < 2; i++) {
        client_write(p, "x", 1);
        rh_uring_recv_once(u, p->hub, 100 + i);
        ret_buffers[i] = await(100 + i).buffer;
    }
    RH_OK_IF(ret_buffers[0] != ret_buffers[1]);
}

RH_TEST(uring, a_receive_on_an_idle_connection_does_not_mind_an_empty_group)
{
    struct pair hog, once, multi;
    uint16_t buffers[2];

    setup(16, 64, 2, 0);
    hog = pair_open();
    once = pair_open();
    multi = pair_open();
    take_all_buffers(&hog, buffers);
    rh_uring_recv_once(u, once.hub, 1);
    rh_uring_recv_multi(u, multi.hub, false, 2);
    quiet(); /* both wait for data, not for a buffer */
    rh_uring_give(u, buffers[0]);
    rh_uring_give(u, buffers[1]);
    client_write(&once, "once", 4);
    expect_data(await(1), "once");
    client_write(&multi, "multi", 5);
    struct rh_cqe cqe = await(2);
    RH_OK_IF(cqe.flags & RH_CQE_MORE);
    expect_data(cqe, "multi");
    rh_uring_cancel(u, 2, 3);
    RH_EQ_INT(await(2).res, -ECANCELED);
    RH_EQ_INT(await(3).res, 0);
    pair_close(&hog);
    pair_close(&once);
    pair_close(&multi);
    teardown();
}

RH_TEST(uring, data_without_a_buffer_is_enobufs_and_stays_in_the_socket)
{
    struct pair p;
    struct rh_cqe cqe;
    uint16_t buffers[2];

    setup(16, 64, 2, 0);
    p = pair_open();
    take_all_buffers(&p, buffers);
    client_write(&p, "kept", 4);
    rh_uring_recv_once(u, p.hub, 1);
    rh_uring_recv_multi(u, p.hub, false, 2);
    rh_uring_recv_multi(u, p.hub, true, 3);
    for (uint64_t tag = 1; tag <= 3; tag++) {
        cqe = await(tag);
        RH_EQ_INT(cqe.res, -ENOBUFS);
        RH_EQ_INT(cqe.flags, 0);
    }
    rh_uring_give(u, buffers[0]);
    rh_uring_recv_multi(u, p.hub, true, 4);
    cqe = await(4);
    RH_OK_IF(cqe.flags & RH_CQE_MORE);
    expect_data(cqe, "kept");
    rh_uring_give(u, buffers[1]);
    shutdown(p.client, SHUT_WR);
    RH_EQ_INT(await(4).res, 0);
    pair_close(&p);
    teardown();
}

RH_TEST(uring, the_peers_end_behind_enobufs_is_seen_after_arming_again)
{
    struct pair p;
    uint16_t buffers[2];

    setup(16, 64, 2, 0);
    p = pair_open();
    take_all_buffers(&p, buffers);
    close(p.client);
    rh_uring_recv_multi(u, p.hub, false, 1);
    int res = await(1).res;
    RH_OK_IF(res == -ENOBUFS || res == 0);
    rh_uring_give(u, buffers[0]);
    rh_uring_give(u, buffers[1]);
    rh_uring_recv_multi(u, p.hub, true, 2);
    RH_EQ_INT(await(2).res, 0);
    rh_uring_close(u, p.hub);
    teardown();
}

/* Receives on many connections at once; each has its own stream of bytes. */
struct flood {
    struct pair pairs[128];
    size_t got[128];
    unsigned count, enobufs, lost_more, unordered;
};

static void flood_completion(struct flood *f, struct rh_cqe cqe)
{
    unsigned i = (unsigned)cqe.tag;

    RH_OK_IF(cqe.tag < f->count && cqe.res != 0);
    if (cqe.res > 0) {
        const uint8_t *at = rh_uring_buffer(u, cqe.buffer);

        RH_OK_IF(cqe.flags & RH_CQE_BUFFER);
        RH_OK_IF((size_t)cqe.res <= rh_uring_buffer_bytes(u));
        for (int k = 0; k < cqe.res; k++)
            RH_OK_IF(at[k] == byte_at(i, f->got[i] + (size_t)k));
        f->got[i] += (size_t)cqe.res;
        rh_uring_give(u, cqe.buffer);
    } else {
        RH_OK_IF(cqe.res == -ENOBUFS && !(cqe.flags & (RH_CQE_BUFFER | RH_CQE_MORE)));
        f->enobufs++;
    }
    if (!(cqe.flags & RH_CQE_MORE)) {
        f->lost_more += cqe.res > 0;
        rh_uring_recv_multi(u, f->pairs[i].hub, cqe.res < 0, cqe.tag);
    }
}

/* Every client sends `len` bytes in `portions`, before and while the hub reads. */
static void flood_run(struct flood *f, unsigned count, size_t len, unsigned portions)
{
    uint64_t end = now_ns() + DEADLINE;
    size_t total = 0, portion = len / portions;

    f->count = count;
    for (unsigned i = 0; i < count; i++)
        f->pairs[i] = pair_open();
    for (unsigned i = 0; i < count; i++)
        rh_uring_recv_multi(u, f->pairs[i].hub, false, i);
    for (unsigned k = 0; k < portions; k++) {
        for (unsigned i = 0; i < count; i++) {
            uint8_t bytes[16384];

            for (size_t b = 0; b < portion; b++)
                bytes[b] = byte_at(i, k * portion + b);
            client_write(&f->pairs[i], bytes, portion);
        }
        pass(0);
    }
    while (total < count * len) {
        RH_OK_IF(now_ns() < end);
        flood_completion(f, await_any());
        total = 0;
        for (unsigned i = 0; i < count; i++)
            total += f->got[i];
    }
}

/* Nothing comes any more but the end of each. */
static void flood_end(struct flood *f)
{
    unsigned ended = 0;

    for (unsigned i = 0; i < f->count; i++)
        shutdown(f->pairs[i].client, SHUT_WR);
    while (ended < f->count) {
        struct rh_cqe cqe = await_any();

        if (cqe.res == 0 && cqe.flags == 0)
            ended++;
        else
            flood_completion(f, cqe);
    }
    for (unsigned i = 0; i < f->count; i++)
        pair_close(&f->pairs[i]);
}

RH_TEST(uring, two_buffers_and_100_senders_every_byte_arrives)
{
    static struct flood f;

    setup(64, 4096, 2, 100);
    flood_run(&f, 100, 12000, 3);
    RH_OK_IF(f.enobufs > 0);
    flood_end(&f);
    RH_EQ_U64(rh_uring_overflows(u), 0);
    teardown();
}

RH_TEST(uring, a_tiny_completion_queue_loses_nothing_and_is_counted)
{
    static struct flood f;

    setup(8, 8, 256, 0);
    flood_run(&f, 100, 12000, 6);
    RH_OK_IF(rh_uring_overflows(u) > 0);
    RH_OK_IF(f.lost_more > 0); /* these were armed again */
    flood_end(&f);
    teardown();
}

RH_TEST(uring, a_buffer_is_filled_to_its_end_and_no_further)
{
    enum { LEN = 5 * RH_URING_BUFFER };
    struct pair p;
    uint8_t *bytes = stream_bytes(7, LEN);
    size_t most = 0, got = 0;

    setup(16, 64, 8, 48);
    RH_EQ_U64(rh_uring_buffer_bytes(u), RH_URING_BUFFER - 48);
    p = pair_open();
    client_write(&p, bytes, LEN);
    rh_uring_recv_multi(u, p.hub, true, 1);
    while (got < LEN) {
        struct rh_cqe cqe = await(1);

        RH_OK_IF(cqe.res > 0);
        RH_EQ_MEM(rh_uring_buffer(u, cqe.buffer), bytes + got, cqe.res);
        got += (size_t)cqe.res;
        most = RH_MAX(most, (size_t)cqe.res);
        rh_uring_give(u, cqe.buffer);
    }
    RH_EQ_U64(most, rh_uring_buffer_bytes(u));
    shutdown(p.client, SHUT_WR);
    RH_EQ_INT(await(1).res, 0);
    pair_close(&p);
    teardown();
}

RH_TEST(uring, the_headroom_may_be_written_and_touches_no_other_buffer)
{
    enum { N = 8, HEADROOM = 256 };
    uint8_t *bytes = stream_bytes(3, N * (RH_URING_BUFFER - HEADROOM)), *last = NULL;
    size_t each = RH_URING_BUFFER - HEADROOM;
    struct rh_cqe cqes[N];
    struct pair p;

    setup(16, 64, N, HEADROOM);
    p = pair_open();
    for (unsigned round = 0; round < 3; round++) { /* the same buffers again and again */
        client_write(&p, bytes, N * each);
        rh_uring_recv_multi(u, p.hub, true, 1);
        for (unsigned i = 0; i < N; i++) {
            cqes[i] = await(1);
            RH_EQ_INT(cqes[i].res, (int)each);
        }
        rh_uring_cancel(u, 1, 2);
        RH_EQ_INT(await(1).res, -ECANCELED);
        RH_EQ_INT(await(2).res, 0);
        for (unsigned i = 0; i < N; i++) {
            last = rh_uring_buffer(u, cqes[i].buffer);
            memset(last - HEADROOM, 0xee, HEADROOM);
        }
        for (unsigned i = 0; i < N; i++) {
            RH_EQ_MEM(rh_uring_buffer(u, cqes[i].buffer), bytes + i * each, each);
            rh_uring_give(u, cqes[i].buffer);
        }
    }
#if defined(__SANITIZE_ADDRESS__)
    int __asan_address_is_poisoned(void const volatile *addr);
    RH_OK_IF(__asan_address_is_poisoned(last)); /* the kernel's now: reading it would be found */
    RH_OK_IF(__asan_address_is_poisoned(last - HEADROOM));
#else
    RH_OK_IF(last);
#endif
    pair_close(&p);
    teardown();
}

/* ---- sending ---- */

RH_TEST(uring, a_mebibyte_to_a_slow_reader_is_one_whole_completion)
{
    struct pair p;
    struct rh_cqe cqe;

    setup_usual();
    p = pair_narrow();
    rh_uring_send(u, p.hub, stream_bytes(1, MIB), MIB, 1);
    quiet(); /* it cannot be done yet */
    client_expect(&p, 1, MIB);
    cqe = await(1);
    RH_EQ_INT(cqe.res, (int)MIB);
    RH_EQ_INT(cqe.flags, 0);
    pair_close(&p);
    teardown();
}

/* Sends the first `len` bytes of a stream in `count` pieces of different sizes. The array is
 * spoilt behind the call: it was copied. */
static void send_pieces(const struct pair *p, const uint8_t *bytes, size_t len, unsigned count,
                        uint64_t tag)
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

RH_TEST(uring, sendv_sends_all_its_pieces_in_order)
{
    static const unsigned counts[] = {1, 2, 3, 64, 1023, 1024};
    struct pair p;

    setup_usual();
    for (unsigned i = 0; i < RH_COUNT(counts); i++) {
        p = i % 2 ? pair_narrow() : pair_open();
        send_pieces(&p, stream_bytes(i, 300000), 300000, counts[i], i);
        client_expect(&p, i, 300000);
        RH_EQ_INT(await(i).res, 300000);
        pair_close(&p);
    }
    teardown();
}

/* Goal    headers of queued sends are never reused before the kernel has copied them.
 * Method  far more sends in a pass than the queue (8) or the room for pieces has, on connections
 *         of their own, with other operations in between that also push the queue out early. */
RH_TEST(uring, more_sends_in_a_pass_than_there_is_room_for_keep_their_bytes)
{
    enum { N = 60, LEN = 20000 };
    static const unsigned counts[] = {1, 1024, 2, 1024, 1024, 7, 1, 1, 513, 512, 1000, 24};
    struct pair pairs[N];

    setup(8, 1024, 16, 0);
    for (unsigned i = 0; i < N; i++)
        pairs[i] = i % 3 ? pair_open() : pair_narrow();
    for (unsigned i = 0; i < N; i++) {
        unsigned count = i < 2 * RH_COUNT(counts) ? counts[i % RH_COUNT(counts)]
                                                  : 1 + (unsigned)(rh_test_rand() % RH_URING_IOV);

        for (unsigned k = rh_test_rand() % 4; k > 0; k--)
            rh_uring_cancel(u, 999999, 5000);
        send_pieces(&pairs[i], stream_bytes(i, LEN), LEN, count, i);
    }
    for (unsigned i = 0; i < N; i++)
        client_expect(&pairs[i], i, LEN);
    for (unsigned i = 0; i < N; i++)
        RH_EQ_INT(await(i).res, LEN);
    while (book_len)
        RH_EQ_INT(await(5000).res, -ENOENT);
    for (unsigned i = 0; i < N; i++)
        pair_close(&pairs[i]);
    teardown();
}

RH_TEST(uring, a_reset_in_the_middle_of_a_send_is_a_partial_count_or_an_error)
{
    uint8_t some[10000];
    struct pair p;
    int res;

    setup_usual();
    p = pair_narrow();
    rh_uring_send(u, p.hub, stream_bytes(0, 4 * MIB), 4 * MIB, 1);
    client_read(&p, some, sizeof(some));
    client_reset(&p);
    res = await(1).res;
    RH_OK_IF(res == -ECONNRESET || res == -EPIPE || (res > 0 && (unsigned)res < 4 * MIB));
    rh_uring_send(u, p.hub, "more", 4, 2); /* and no signal kills us */
    send_pieces(&p, some, sizeof(some), 3, 3);
    for (uint64_t tag = 2; tag <= 3; tag++) {
        res = await(tag).res;
        RH_OK_IF(res == -ECONNRESET || res == -EPIPE);
    }
    rh_uring_close(u, p.hub);
    teardown();
}

/* The counter of acknowledged bytes once it stands still. */
static uint64_t acked_at_rest(int fd)
{
    uint64_t end = now_ns() + DEADLINE, last, now = rh_uring_acked(u, fd);

    do {
        RH_OK_IF(now_ns() < end);
        last = now;
        pass(150 * MS);
        now = rh_uring_acked(u, fd);
    } while (now != last);
    return now;
}

RH_TEST(uring, acked_stands_still_with_a_reader_that_stops_and_ends_at_all_bytes)
{
    static uint8_t some[100000];
    uint64_t start, stuck, later;
    struct pair p;

    setup_usual();
    p = pair_narrow();
    start = rh_uring_acked(u, p.hub);
    rh_uring_send(u, p.hub, stream_bytes(0, 2 * MIB), 2 * MIB, 1);
    stuck = acked_at_rest(p.hub);
    RH_OK_IF(stuck > start && stuck < start + 2 * MIB);
    client_read(&p, some, sizeof(some));
    later = acked_at_rest(p.hub);
    RH_OK_IF(later > stuck && later >= start + sizeof(some) && later < start + 2 * MIB);
    for (unsigned left = 2 * MIB - sizeof(some); left > 0;) {
        unsigned part = RH_MIN(left, (unsigned)sizeof(some));

        client_read(&p, some, part);
        left -= part;
    }
    RH_EQ_INT(await(1).res, 2 * MIB);
    RH_EQ_U64(acked_at_rest(p.hub), start + 2 * MIB);
    pair_close(&p);
    RH_EQ_U64(rh_uring_acked(u, -1), 0);
    teardown();
}

/* ---- ending ---- */

RH_TEST(uring, cancel_completes_both_the_operation_and_itself)
{
    struct rh_addr addr;
    struct pair p;

    setup_usual();
    p = pair_narrow();
    rh_uring_accept(u, listener, &addr, 1);
    rh_uring_recv_once(u, p.hub, 2);
    pass(0);
    for (uint64_t tag = 1; tag <= 2; tag++) {
        rh_uring_cancel(u, tag, 10 + tag);
        RH_EQ_INT(await(tag).res, -ECANCELED);
        RH_EQ_INT(await(10 + tag).res, 0);
    }
    rh_uring_recv_multi(u, p.hub, false, 3);
    rh_uring_cancel(u, 3, 13); /* in the same pass */
    struct rh_cqe cqe = await(3);
    RH_EQ_INT(cqe.res, -ECANCELED);
    RH_EQ_INT(cqe.flags, 0);
    RH_EQ_INT(await(13).res, 0);
    rh_uring_send(u, p.hub, stream_bytes(0, MIB), MIB, 4);
    quiet();
    rh_uring_cancel(u, 4, 14);
    int res = await(4).res;
    RH_OK_IF(res == -ECANCELED || (res > 0 && (unsigned)res < MIB));
    RH_EQ_INT(await(14).res, 0);
    rh_uring_cancel(u, 3, 15); /* it is done */
    RH_EQ_INT(await(15).res, -ENOENT);
    client_write(&p, "late", 4);
    quiet();
    pair_close(&p);
    teardown();
}

RH_TEST(uring, shutdown_both_ways_ends_what_is_under_way)
{
    struct pair p;

    setup_usual();
    for (unsigned multi = 0; multi < 2; multi++) {
        p = pair_narrow();
        if (multi)
            rh_uring_recv_multi(u, p.hub, false, 1);
        else
            rh_uring_recv_once(u, p.hub, 1);
        rh_uring_send(u, p.hub, stream_bytes(0, MIB), MIB, 2);
        quiet();
        rh_uring_shutdown(u, p.hub, SHUT_RDWR);
        struct rh_cqe cqe = await(1);
        RH_EQ_INT(cqe.res, 0);
        RH_EQ_INT(cqe.flags, 0);
        int res = await(2).res;
        RH_OK_IF(res == -EPIPE || (res >= 0 && (unsigned)res < MIB));
        pair_close(&p);
    }
    teardown();
}

RH_TEST(uring, shutdown_for_writing_leaves_the_other_way_open)
{
    struct pair p;

    setup_usual();
    p = pair_open();
    rh_uring_recv_multi(u, p.hub, false, 1);
    pass(0);
    rh_uring_shutdown(u, p.hub, SHUT_WR);
    RH_EQ_INT(client_ends(&p), 0);
    client_write(&p, "after", 5);
    expect_data(await(1), "after");
    shutdown(p.client, SHUT_WR);
    RH_EQ_INT(await(1).res, 0);
    pair_close(&p);
    teardown();
}

RH_TEST(uring, close_ends_a_connection_in_good_order)
{
    struct pair p;

    setup_usual();
    p = pair_open();
    rh_uring_send(u, p.hub, "bye", 3, 1);
    RH_EQ_INT(await(1).res, 3);
    rh_uring_close(u, p.hub);
    RH_EQ_INT(client_ends(&p), 3);
    RH_EQ_INT(client_ends(&p), 0);
    RH_EQ_INT(fcntl(p.hub, F_GETFD), -1);
    close(p.client);
    teardown();
}

RH_TEST(uring, abort_sends_a_reset_and_drops_what_was_not_sent)
{
    struct pair p, full;
    uint8_t *bytes = stream_bytes(0, MIB);

    setup_usual();
    p = pair_open();
    rh_uring_abort(u, p.hub);
    RH_EQ_INT(client_ends(&p), -ECONNRESET);
    RH_EQ_INT(fcntl(p.hub, F_GETFD), -1);
    close(p.client);

    full = pair_narrow();
    RH_OK_IF(send(full.hub, bytes, MIB, MSG_DONTWAIT) > 0); /* what the kernel will take */
    rh_uring_abort(u, full.hub);
    ssize_t end;
    while ((end = client_ends(&full)) > 0)
        ;
    RH_EQ_INT(end, -ECONNRESET);
    close(full.client);
    teardown();
}

/* ---- passes ---- */

RH_TEST(uring, enter_sleeps_as_long_as_it_was_told)
{
    static const uint64_t waits[] = {0, 1, MS / 2, 3 * MS, 40 * MS, 1020 * MS};

    setup_usual();
    pass(0);
    for (unsigned i = 0; i < RH_COUNT(waits); i++) {
        uint64_t began = now_ns(), took;

        RH_EQ_INT(rh_uring_enter(u, waits[i]), RH_OK);
        took = now_ns() - began;
        RH_OK_IF(took + MS >= waits[i]);
        RH_OK_IF(took < waits[i] + 3000 * MS);
        RH_EQ_U64(rh_uring_reap(u, book, BOOK_MAX), 0);
    }
    teardown();
}

RH_TEST(uring, enter_ends_when_something_completes)
{
    uint64_t began;
    struct pair p;

    setup_usual();
    p = pair_open();
    rh_uring_recv_once(u, p.hub, 1);
    client_write(&p, "x", 1);
    began = now_ns();
    RH_EQ_INT(rh_uring_enter(u, DEADLINE), RH_OK);
    RH_OK_IF(now_ns() - began < DEADLINE / 2);
    expect_data(await(1), "x");
    pair_close(&p);
    teardown();
}

static void *wake_soon(void *arg)
{
    usleep(30000);
    rh_uring_wake_any(u);
    return arg;
}

RH_TEST(uring, another_thread_ends_the_sleep)
{
    uint64_t began = now_ns();
    pthread_t other;

    setup_usual();
    pass(0);
    RH_EQ_INT(pthread_create(&other, NULL, wake_soon, NULL), 0);
    RH_EQ_INT(rh_uring_enter(u, DEADLINE), RH_OK);
    RH_OK_IF(now_ns() - began < DEADLINE / 2);
    RH_EQ_U64(rh_uring_reap(u, book, BOOK_MAX), 0); /* swallowed */
    pthread_join(other, NULL);
    teardown();
}

RH_TEST(uring, a_wake_up_while_awake_ends_the_next_sleep_once)
{
    setup_usual();
    for (unsigned round = 0; round < 6; round++) {
        uint64_t began = now_ns();

        if (round % 2) /* the armed read may have completed already, or not */
            pass(0);
        for (unsigned i = 0; i <= round; i++)
            rh_uring_wake_any(u);
        pass(DEADLINE);
        RH_OK_IF(now_ns() - began < DEADLINE / 2);
        began = now_ns();
        pass(25 * MS);
        RH_OK_IF(now_ns() - began > 24 * MS);
    }
    teardown();
}

#define WAKE_ROUNDS 3000

static _Atomic unsigned wake_round;

static void *wake_each_round(void *arg)
{
    for (unsigned round = 1; round <= WAKE_ROUNDS; round++) {
        while (wake_round < round)
            sched_yield();
        for (unsigned spin = (unsigned)(round * 7919u) % 2000; spin > 0; spin--)
            __asm__ volatile("");
        rh_uring_wake_any(u);
    }
    return arg;
}

RH_TEST(uring, no_wake_up_is_lost_at_any_moment)
{
    pthread_t other;

    setup_usual();
    RH_EQ_INT(pthread_create(&other, NULL, wake_each_round, NULL), 0);
    for (unsigned round = 1; round <= WAKE_ROUNDS; round++) {
        uint64_t began = now_ns();

        wake_round = round;
        pass(DEADLINE);
        RH_OK_IF(now_ns() - began < DEADLINE / 2);
    }
    pthread_join(other, NULL);
    teardown();
}

static _Atomic unsigned handled;

static void wake_in_handler(int sig)
{
    handled++;
    rh_uring_wake_any(u);
}

static void only_count(int sig)
{
    handled++;
}

static void *signal_itself(void *arg)
{
    sigset_t one;

    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    usleep(30000);
    pthread_kill(pthread_self(), SIGUSR1);
    return arg;
}

RH_TEST(uring, a_signal_handler_on_another_thread_ends_the_sleep)
{
    struct sigaction action = {.sa_handler = wake_in_handler};
    uint64_t began = now_ns();
    pthread_t other;
    sigset_t one;

    setup_usual();
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    sigaction(SIGUSR1, &action, NULL);
    RH_EQ_INT(pthread_create(&other, NULL, signal_itself, NULL), 0);
    pass(DEADLINE);
    RH_OK_IF(now_ns() - began < DEADLINE / 2);
    pthread_join(other, NULL);
    RH_EQ_INT(handled, 1);
    teardown();
}

static void *signal_other(void *arg)
{
    usleep(50000);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

RH_TEST(uring, a_signal_on_the_rings_own_thread_is_no_error)
{
    static void (*const handlers[])(int) = {only_count, wake_in_handler};
    pthread_t other, self = pthread_self();

    setup_usual();
    for (unsigned i = 0; i < RH_COUNT(handlers); i++) {
        struct sigaction action = {.sa_handler = handlers[i]};
        uint64_t began = now_ns();

        sigaction(SIGUSR1, &action, NULL);
        RH_EQ_INT(pthread_create(&other, NULL, signal_other, &self), 0);
        pass(DEADLINE);
        RH_OK_IF(now_ns() - began < DEADLINE / 2);
        pthread_join(other, NULL);
        RH_EQ_INT(handled, i + 1);
    }
    pass(0); /* the wake-up, if the signal ended the sleep before it */
    teardown();
}

RH_TEST(uring, a_pass_takes_more_than_256_completions)
{
    enum { N = 300 };
    static struct pair pairs[N];
    struct rlimit limit;
    unsigned passes = 0;

    RH_EQ_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    setup(512, 4096, 512, 0);
    for (unsigned i = 0; i < N; i++)
        pairs[i] = pair_open();
    for (unsigned i = 0; i < N; i++)
        rh_uring_recv_once(u, pairs[i].hub, i);
    quiet();
    for (unsigned i = 0; i < N; i++)
        client_write(&pairs[i], "x", 1);
    while (book_len < N) {
        unsigned count = pass(0);

        RH_OK_IF(count >= 256 || book_len == N);
        RH_OK_IF(++passes <= 3);
    }
    for (unsigned i = 0; i < N; i++) {
        expect_data(await(i), "x");
        pair_close(&pairs[i]);
    }
    teardown();
}

RH_TEST(uring, reap_hands_out_no_more_than_was_asked_for)
{
    struct rh_cqe cqes[8];
    unsigned count;

    setup_usual();
    for (uint64_t tag = 0; tag < 20; tag++)
        rh_uring_cancel(u, 999999, tag);
    rh_uring_wake_any(u);
    RH_EQ_INT(rh_uring_enter(u, 0), RH_OK);
    RH_EQ_INT(rh_uring_reap(u, cqes, 0), 0);
    for (uint64_t tag = 0; tag < 20; tag += count) {
        count = rh_uring_reap(u, cqes, 7);
        RH_OK_IF(count > 0 && count <= 7);
        for (unsigned i = 0; i < count; i++)
            RH_EQ_U64(cqes[i].tag, tag + i);
    }
    teardown();
}

RH_TEST(uring, queueing_a_thousand_operations_on_a_queue_of_8_loses_none)
{
    static unsigned ended[1000];

    setup(8, 16, 2, 0);
    for (uint64_t tag = 0; tag < 1000; tag++)
        rh_uring_cancel(u, 999999, tag);
    for (unsigned i = 0; i < 1000; i++) {
        struct rh_cqe cqe = await_any();

        RH_EQ_INT(cqe.res, -ENOENT);
        RH_OK_IF(cqe.tag < 1000 && ended[cqe.tag]++ == 0);
    }
    RH_OK_IF(rh_uring_overflows(u) > 0);
    teardown();
}

/* ---- everything at once ---- */

#define MIX_PAIRS 24
#define MIX_OPS   6000

/* Operation k has tag k; a pair has at most one receive and one send under way. */
static struct {
    struct pair pairs[MIX_PAIRS];
    uint64_t recv[MIX_PAIRS], send[MIX_PAIRS]; /* tags; 0: none */
    uint16_t ended[MIX_OPS + 1];
    uint8_t *bytes;
    uint64_t ops, open;
} mix;

static void mix_book(void)
{
    while (book_len) {
        struct rh_cqe cqe = take_at(book_len - 1);

        RH_OK_IF(cqe.tag >= 1 && cqe.tag <= mix.ops);
        if (cqe.flags & RH_CQE_BUFFER)
            rh_uring_give(u, cqe.buffer);
        if (cqe.flags & RH_CQE_MORE) /* the order is not kept here: its end may be booked */
            continue;
        RH_OK_IF(mix.ended[cqe.tag]++ == 0);
        mix.open--;
        for (unsigned i = 0; i < MIX_PAIRS; i++) {
            if (mix.recv[i] == cqe.tag)
                mix.recv[i] = 0;
            if (mix.send[i] == cqe.tag)
                mix.send[i] = 0;
        }
    }
}

static uint64_t mix_op(void)
{
    mix.open++;
    return ++mix.ops;
}

static void mix_reopen(unsigned i)
{
    uint64_t end = now_ns() + DEADLINE;

    rh_uring_shutdown(u, mix.pairs[i].hub, SHUT_RDWR);
    while (mix.recv[i] || mix.send[i]) {
        RH_OK_IF(now_ns() < end);
        pass(MS);
        mix_book();
    }
    if (rh_test_rand() % 2)
        rh_uring_abort(u, mix.pairs[i].hub);
    else
        rh_uring_close(u, mix.pairs[i].hub);
    close(mix.pairs[i].client);
    mix.pairs[i] = rh_test_rand() % 2 ? pair_open() : pair_narrow();
}

static void mix_step(unsigned i)
{
    struct pair *p = &mix.pairs[i];
    static uint8_t some[30000];

    switch (rh_test_rand() % 8) {
    case 0:
    case 1:
        if (mix.recv[i])
            break;
        mix.recv[i] = mix_op();
        if (rh_test_rand() % 2)
            rh_uring_recv_once(u, p->hub, mix.recv[i]);
        else
            rh_uring_recv_multi(u, p->hub, rh_test_rand() % 2, mix.recv[i]);
        break;
    case 2:
    case 3:
        if (mix.send[i])
            break;
        mix.send[i] = mix_op();
        send_pieces(p, mix.bytes, 1000 + rh_test_rand() % 200000,
                    1 + (unsigned)(rh_test_rand() % RH_URING_IOV), mix.send[i]);
        break;
    case 4:
        (void)!send(p->client, some, 1 + rh_test_rand() % sizeof(some), MSG_DONTWAIT);
        break;
    case 5:
        (void)!recv(p->client, some, sizeof(some), MSG_DONTWAIT);
        break;
    case 6:
        rh_uring_cancel(u, rh_test_rand() % 2 ? mix.recv[i] : mix.send[i], mix_op());
        break;
    default:
        if (rh_test_rand() % 4 == 0)
            mix_reopen(i);
    }
}

/* Goal    exactly one completion without RH_CQE_MORE ends each operation, whatever happens to it.
 * Method  random operations, cancellations, shutdowns and resets on queues that are too small. */
RH_TEST(uring, whatever_happens_each_operation_ends_once)
{
    setup(8, 32, 8, 64);
    mix.bytes = stream_bytes(0, 201000);
    for (unsigned i = 0; i < MIX_PAIRS; i++)
        mix.pairs[i] = pair_narrow();
    while (mix.ops < MIX_OPS) {
        mix_step((unsigned)(rh_test_rand() % MIX_PAIRS));
        if (rh_test_rand() % 8 == 0) {
            pass(0);
            mix_book();
        }
    }
    for (unsigned i = 0; i < MIX_PAIRS; i++)
        mix_reopen(i);
    for (uint64_t end = now_ns() + DEADLINE; mix.open; mix_book()) {
        RH_OK_IF(now_ns() < end);
        pass(MS);
    }
    for (unsigned i = 0; i < MIX_PAIRS; i++)
        pair_close(&mix.pairs[i]);
    teardown();
}
