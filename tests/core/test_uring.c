/* tests/core/test_uring.c - the seam to the kernel, operation by operation, on the real kernel.
 *
 * Connections go over loopback TCP; uring_rig.h has both their sides. Passes, wake-ups and queues
 * that are too small are in test_uring_pass.c; set-up, the self-test, addresses and plain sockets
 * in test_uring_check.c.
 */
#include "core/uring.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "tests/core/uring_rig.h"

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

/* How a connection may end while bytes are there that nobody has read. */
static void end_unread(const struct pair *p, unsigned way)
{
    client_write(p, "last", 4);
    switch (way) {
    case 0:
        shutdown(p->client, SHUT_WR);
        break;
    case 1:
        client_reset(p);
        break;
    case 2: /* a close with unread bytes is a reset, too */
        RH_OK_IF(send(p->hub, "unread", 6, MSG_DONTWAIT) == 6);
        close(p->client);
        break;
    default:
        rh_uring_shutdown(u, p->hub, SHUT_RDWR);
    }
}

/* Goal    the end is told after the last bytes, although it came before anybody looked.
 * Method  a receive that looks before it waits; one that waits first may tell the bytes only. */
RH_TEST(uring, an_end_behind_unread_bytes_is_told_to_who_knows_of_them)
{
    setup_usual();
    for (unsigned way = 0; way < 8; way++) {
        struct pair p = way < 4 ? pair_open() : pair_narrow();

        if (way >= 4) { /* with a send under way */
            rh_uring_send(u, p.hub, stream_bytes(0, MIB), MIB, 1);
            pass(0);
        }
        end_unread(&p, way % 4);
        rh_uring_recv_multi(u, p.hub, true, 2);
        expect_data(await(2), "last");
        struct rh_cqe cqe = await(2);
        RH_OK_IF(cqe.res == 0 || cqe.res == -ECONNRESET);
        RH_EQ_INT(cqe.flags, 0);
        rh_uring_shutdown(u, p.hub, SHUT_RDWR);
        if (way >= 4)
            RH_OK_IF(await(1).res < (int)MIB);
        rh_uring_abort(u, p.hub);
    }
    teardown();
}

RH_TEST(uring, a_cancel_ends_a_receive_that_did_not_see_the_end)
{
    setup_usual();
    for (unsigned way = 0; way < 4; way++) {
        struct pair p = pair_narrow();
        unsigned ends = 0;

        end_unread(&p, way);
        rh_uring_recv_multi(u, p.hub, false, 1);
        pass(0);
        rh_uring_cancel(u, 1, 2);
        int res = await(2).res;
        RH_OK_IF(res == 0 || res == -ENOENT);
        while (!ends) {
            struct rh_cqe cqe = await(1);

            if (cqe.res > 0)
                expect_data(cqe, "last");
            ends += !(cqe.flags & RH_CQE_MORE);
        }
        rh_uring_abort(u, p.hub);
    }
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
    RH_OK_IF(rh_uring_acked(u, -1) == RH_ACKED_UNKNOWN);
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
