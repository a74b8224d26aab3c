/* tests/core/test_uring_direct.c - direct descriptors: the table, and what ordinary ones do otherwise.
 *
 * On the real kernel, over loopback TCP, as in test_uring.c. Passing goes between two threads, each
 * with a ring of its own.
 */
#include "core/uring.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>

#include "tests/core/uring_rig.h"

#define SLOTS 4

static void setup_table(unsigned files)
{
    setup_files(64, 4096, 64, 0, files);
}

static void echo_once(const struct pair *p)
{
    rh_uring_recv_once(u, p->hub, 1);
    client_write(p, "ping", 4);
    expect_data(await(1), "ping");
    rh_uring_send(u, p->hub, "pong", 4, 2);
    RH_EQ_INT(await(2).res, 4);
}

static void expect_pong(const struct pair *p)
{
    uint8_t got[4];

    client_read(p, got, sizeof(got));
    RH_EQ_MEM(got, "pong", 4);
}

/* No ordinary descriptor is to be had from now on. */
static void exhaust(void)
{
    struct rlimit limit;

    RH_EQ_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 64;
    RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (dup(0) >= 0)
        ;
    RH_EQ_INT(errno, EMFILE);
}

/* ---- accepting, the table's bound ---- */

RH_TEST(uring_direct, accepted_ones_are_slots_that_send_and_receive)
{
    struct pair p;

    setup_table(SLOTS);
    p = pair_open();
    RH_OK_IF(rh_fd_direct(p.hub));
    RH_OK_IF((p.hub & ~RH_FD_DIRECT) < SLOTS);
    echo_once(&p);
    expect_pong(&p);
    pair_close(&p);
    teardown();
}

RH_TEST(uring_direct, several_pieces_go_out_in_order)
{
    struct pair p;

    setup_table(SLOTS);
    p = pair_open();
    send_pieces(&p, stream_bytes(7, 200000), 200000, 500, 1);
    client_expect(&p, 7, 200000);
    RH_EQ_INT(await(1).res, 200000);
    pair_close(&p);
    teardown();
}

RH_TEST(uring_direct, a_full_table_refuses_and_a_closed_slot_is_free_again)
{
    struct pair pairs[SLOTS], extra;
    struct rh_addr addr;

    setup_table(SLOTS);
    for (unsigned i = 0; i < SLOTS; i++)
        pairs[i] = pair_open();
    rh_uring_accept(u, listener, &addr, 9);
    extra.client = client_connect(0, NULL);
    RH_EQ_INT(await(9).res, -ENFILE);
    RH_OK_IF(client_ends(&extra) <= 0); /* what the header warns of */
    close(extra.client);
    pair_close(&pairs[2]);
    extra = pair_open(); /* the close was queued before this accept */
    RH_EQ_INT(extra.hub, pairs[2].hub);
    echo_once(&extra);
    expect_pong(&extra);
    pairs[2] = extra;
    for (unsigned i = 0; i < SLOTS; i++)
        pair_close(&pairs[i]);
    teardown();
}

RH_TEST(uring_direct, an_accept_that_waits_can_be_cancelled)
{
    static const unsigned tables[] = {0, SLOTS};

    for (unsigned i = 0; i < RH_COUNT(tables); i++) {
        struct rh_addr addr;

        setup_table(tables[i]);
        rh_uring_accept(u, listener, &addr, 9);
        pass(0);
        rh_uring_cancel_accept(u, 9, 10);
        RH_EQ_INT(await(9).res, -ECANCELED);
        RH_EQ_INT(await(10).res, 0);
        teardown();
    }
}

RH_TEST(uring_direct, slots_are_no_descriptors_of_the_process)
{
    struct pair pairs[40];

    setup_table(64);
    for (unsigned i = 0; i < RH_COUNT(pairs); i++)
        pairs[i] = pair_open();
    for (unsigned i = 0; i < RH_COUNT(pairs); i++)
        RH_OK_IF(pairs[i].client < 60); /* 40 clients, and a few of the ring's */
    for (unsigned i = 0; i < RH_COUNT(pairs); i++)
        pair_close(&pairs[i]);
    teardown();
}

/* ---- ending ---- */

RH_TEST(uring_direct, close_tells_the_peer_and_no_completion_comes)
{
    struct pair p;

    setup_table(SLOTS);
    p = pair_open();
    rh_uring_close(u, p.hub);
    RH_EQ_INT(client_ends(&p), 0);
    close(p.client);
    teardown();
}

RH_TEST(uring_direct, abort_resets_and_frees_the_slot)
{
    setup_table(1);
    for (unsigned round = 0; round < 20; round++) {
        struct pair p = pair_open();

        client_write(&p, "unread", 6);
        rh_uring_abort(u, p.hub);
        RH_EQ_INT(client_ends(&p), -ECONNRESET);
        close(p.client);
    }
    teardown();
}

RH_TEST(uring_direct, a_chain_is_not_torn_where_the_queue_is_short)
{
    setup_files(8, 64, 4, 0, 16);
    for (unsigned before = 0; before < 8; before++) {
        struct pair p = pair_open();

        pass(0);
        for (unsigned i = 0; i < before; i++)
            rh_uring_cancel(u, 999999, 5000 + i);
        rh_uring_abort(u, p.hub);
        RH_EQ_INT(client_ends(&p), -ECONNRESET);
        for (unsigned i = 0; i < before; i++)
            RH_EQ_INT(await(5000 + i).res, -ENOENT);
        close(p.client);
    }
    teardown();
}

static void shutting_the_sending_side(void)
{
    struct pair p = pair_open();

    rh_uring_recv_multi(u, p.hub, true, 1);
    rh_uring_shutdown(u, p.hub, SHUT_WR);
    RH_EQ_INT(client_ends(&p), 0);
    client_write(&p, "still heard", 11);
    expect_data(await(1), "still heard");
    close(p.client);
    RH_EQ_INT(await(1).res, 0);
    rh_uring_close(u, p.hub);
}

RH_TEST(uring_direct, shutdown_works_with_a_borrowed_descriptor)
{
    setup_table(SLOTS);
    shutting_the_sending_side();
    teardown();
}

RH_TEST(uring_direct, shutdown_of_both_ways_ends_what_is_under_way)
{
    struct rh_addr addr;
    struct pair p;

    setup_table(SLOTS);
    p.client = client_connect(4096, NULL); /* takes little */
    rh_uring_accept(u, listener, &addr, TAG_ACCEPT);
    p.hub = await(TAG_ACCEPT).res;
    rh_uring_recv_multi(u, p.hub, true, 1);
    rh_uring_send(u, p.hub, stream_bytes(1, 16 * MIB), 16 * MIB, 2);
    pass(0);
    rh_uring_shutdown(u, p.hub, SHUT_RDWR);
    RH_EQ_INT(await(1).res, 0);
    RH_OK_IF(await(2).res < (int)(16 * MIB));
    pair_close(&p);
    teardown();
}

RH_TEST(uring_direct, shutdown_works_without_any_ordinary_descriptor)
{
    struct pair p;

    setup_table(SLOTS);
    p = pair_open();
    exhaust();
    rh_uring_recv_multi(u, p.hub, true, 1);
    rh_uring_shutdown(u, p.hub, SHUT_WR);
    RH_EQ_INT(client_ends(&p), 0);
    client_write(&p, "still heard", 11);
    expect_data(await(1), "still heard");
    rh_uring_shutdown(u, p.hub, SHUT_RDWR);
    RH_EQ_INT(await(1).res, 0);
    pair_close(&p);
    teardown();
}

/* Goal    what ends one connection never touches the next one in its slot.
 * Method  no descriptor can be borrowed, and the slot is taken again as soon as it can be. */
RH_TEST(uring_direct, a_shutdown_without_a_borrowed_descriptor_spares_the_slots_next_owner)
{
    struct pair all[20];

    setup_table(1);
    for (unsigned i = 0; i < RH_COUNT(all); i++) {
        all[i].client = client_connect(0, NULL);
        all[i].hub = accept(listener, NULL, NULL);
        RH_OK_IF(all[i].hub >= 0);
    }
    RH_EQ_INT(rh_uring_adopt(u, all[0].hub, &all[0].hub), RH_OK);
    for (unsigned i = 1; i < RH_COUNT(all); i++) {
        uint64_t end = now_ns() + DEADLINE;

        exhaust();
        rh_uring_shutdown(u, all[i - 1].hub, SHUT_RDWR);
        (i % 2 ? rh_uring_close : rh_uring_abort)(u, all[i - 1].hub);
        while (rh_uring_adopt(u, all[i].hub, &all[i].hub) == RH_EFULL && now_ns() < end)
            pass(MS);
        RH_OK_IF(rh_fd_direct(all[i].hub));
        for (unsigned k = 0; k < 5; k++) {
            echo_once(&all[i]);
            expect_pong(&all[i]);
        }
        RH_OK_IF(client_ends(&all[i - 1]) <= 0);
    }
    teardown();
}

/* ---- asking ---- */

RH_TEST(uring_direct, acked_grows_as_the_peer_takes)
{
    struct pair p;
    uint64_t before, after;

    setup_table(SLOTS);
    p = pair_open();
    before = rh_uring_acked(u, p.hub);
    rh_uring_send(u, p.hub, stream_bytes(1, 100000), 100000, 1);
    client_expect(&p, 1, 100000);
    RH_EQ_INT(await(1).res, 100000);
    after = rh_uring_acked(u, p.hub);
    RH_OK_IF(before != RH_ACKED_UNKNOWN && after > before);
    pair_close(&p);
    teardown();
}

RH_TEST(uring_direct, acked_is_unknown_without_any_ordinary_descriptor)
{
    struct pair p;

    setup_table(SLOTS);
    p = pair_open();
    exhaust();
    RH_OK_IF(rh_uring_acked(u, p.hub) == RH_ACKED_UNKNOWN);
    pair_close(&p);
    teardown();
}

RH_TEST(uring_direct, asking_leaves_no_descriptor_behind)
{
    struct pair p;
    int before = dup(0), after;

    setup_table(SLOTS);
    close(before);
    p = pair_open();
    before = dup(0);
    close(before);
    for (unsigned i = 0; i < 1000; i++)
        RH_OK_IF(rh_uring_acked(u, p.hub) != RH_ACKED_UNKNOWN);
    after = dup(0);
    close(after);
    RH_EQ_INT(after, before);
    pair_close(&p);
    teardown();
}

/* Goal    asking in the middle of a pass takes nobody's completion.
 * Method  far more completions than are reaped at a time, questions in between, on a queue so small
 *         that some find it full: these say that they do not know. */
RH_TEST(uring_direct, asking_disturbs_no_other_completion)
{
    static unsigned ended[2000];
    unsigned known = 0, unknown = 0;
    struct pair p;

    setup_files(8, 16, 4, 0, SLOTS);
    p = pair_open();
    for (uint64_t tag = 0; tag < RH_COUNT(ended); tag++) {
        rh_uring_cancel(u, 999999, tag);
        if (tag % 5 == 0) {
            bool is = rh_uring_acked(u, p.hub) != RH_ACKED_UNKNOWN;

            known += is;
            unknown += !is;
        }
        if (tag % 64 == 63)
            pass(0);
    }
    for (unsigned i = 0; i < RH_COUNT(ended); i++) {
        struct rh_cqe cqe = await_any();

        RH_EQ_INT(cqe.res, -ENOENT);
        RH_OK_IF(cqe.tag < RH_COUNT(ended) && ended[cqe.tag]++ == 0);
    }
    RH_OK_IF(known > 0 && unknown > 0);
    pair_close(&p);
    teardown();
}

/* ---- polling ---- */

static void poll_tells(bool direct)
{
    struct pair p;

    setup_table(direct ? SLOTS : 0);
    p = pair_open();
    rh_uring_poll(u, p.hub, 1);
    quiet();
    client_write(&p, "x", 1);
    RH_OK_IF(await(1).res > 0);
    quiet(); /* once */
    rh_uring_poll(u, p.hub, 2);
    RH_OK_IF(await(2).res > 0); /* it is still there */
    rh_uring_recv_once(u, p.hub, 3);
    expect_data(await(3), "x");
    rh_uring_poll(u, p.hub, 4);
    quiet();
    rh_uring_cancel(u, 4, 5);
    RH_EQ_INT(await(4).res, -ECANCELED);
    RH_EQ_INT(await(5).res, 0);
    rh_uring_poll(u, p.hub, 6);
    shutdown(p.client, SHUT_WR);
    RH_OK_IF(await(6).res > 0);
    rh_uring_recv_once(u, p.hub, 7);
    RH_EQ_INT(await(7).res, 0);
    pair_close(&p);
    p = pair_open();
    rh_uring_poll(u, p.hub, 8);
    pass(0);
    client_reset(&p);
    RH_OK_IF(await(8).res > 0);
    rh_uring_close(u, p.hub);
    teardown();
}

RH_TEST(uring_direct, poll_tells_once_of_bytes_an_end_or_a_reset)
{
    poll_tells(true);
}

RH_TEST(uring_direct, poll_works_on_ordinary_descriptors)
{
    poll_tells(false);
}

/* ---- adopting ---- */

static void connect_adopted(int fd)
{
    struct rh_addr addr;
    struct pair p;

    rh_uring_connect(u, fd, &listens, 1);
    rh_uring_accept(u, listener, &addr, 2);
    RH_EQ_INT(await(1).res, 0);
    p.hub = await(2).res;
    RH_OK_IF(rh_fd_direct(p.hub));
    rh_uring_recv_once(u, fd, 3);
    rh_uring_send(u, p.hub, "hello", 5, 4);
    RH_EQ_INT(await(4).res, 5);
    expect_data(await(3), "hello");
    rh_uring_close(u, p.hub);
    rh_uring_close(u, fd);
}

RH_TEST(uring_direct, an_adopted_socket_connects_and_its_slot_is_free_after_the_close)
{
    setup_table(SLOTS);
    for (unsigned round = 0; round < 5 * SLOTS; round++) {
        int fd, slot = -1;

        RH_EQ_INT(rh_sock_client(AF_INET, NULL, &fd, NULL), RH_OK);
        RH_EQ_INT(rh_uring_adopt(u, fd, &slot), RH_OK);
        RH_OK_IF(rh_fd_direct(slot));
        RH_EQ_INT(fcntl(fd, F_GETFD), -1); /* it is the table's now */
        connect_adopted(slot);
    }
    teardown();
}

RH_TEST(uring_direct, a_full_table_leaves_the_socket_with_its_owner)
{
    int fds[SLOTS], slots[SLOTS], fd, slot = -1;

    setup_table(SLOTS);
    for (unsigned i = 0; i < SLOTS; i++) {
        RH_EQ_INT(rh_sock_client(AF_INET, NULL, &fds[i], NULL), RH_OK);
        RH_EQ_INT(rh_uring_adopt(u, fds[i], &slots[i]), RH_OK);
        for (unsigned k = 0; k < i; k++)
            RH_OK_IF(slots[i] != slots[k]);
    }
    RH_EQ_INT(rh_sock_client(AF_INET, NULL, &fd, NULL), RH_OK);
    RH_EQ_INT(rh_uring_adopt(u, fd, &slot), RH_EFULL);
    RH_EQ_INT(slot, -1);
    RH_OK_IF(fcntl(fd, F_GETFD) >= 0);
    rh_uring_close(u, slots[1]);
    RH_EQ_INT(rh_uring_adopt(u, fd, &slot), RH_OK); /* the close was queued: it goes first */
    RH_EQ_INT(slot, slots[1]);
    for (unsigned i = 0; i < SLOTS; i++)
        rh_uring_close(u, slots[i]);
    teardown();
}

/* ---- passing ---- */

/* The ring that others pass to: driven by a thread of its own, sleeping or not. */
static struct {
    struct rh_uring *ring;
    pthread_t thread;
    unsigned files;
    bool busy;
    _Atomic bool ready, stop;
    _Atomic int fd;         /* to read from, handed over as the hub does it: after the pass */
    _Atomic int read;       /* the result of that */
    _Atomic unsigned other; /* completions that nobody asked for */
} target;

static void target_step(void)
{
    struct rh_cqe cqes[8];
    unsigned count;
    int fd = atomic_exchange(&target.fd, 0);

    if (fd)
        rh_uring_recv_once(target.ring, fd, (uint64_t)fd);
    RH_OK_IF(rh_uring_enter(target.ring, target.busy ? 0 : 1000 * MS) == RH_OK);
    count = rh_uring_reap(target.ring, cqes, RH_COUNT(cqes));
    for (unsigned i = 0; i < count; i++) {
        if (cqes[i].flags & RH_CQE_BUFFER)
            rh_uring_give(target.ring, cqes[i].buffer);
        else
            target.other++;
        rh_uring_close(target.ring, (int)cqes[i].tag);
        target.read = cqes[i].res;
    }
}

static void *target_run(void *arg)
{
    struct rh_uring_opts opts = {64, 256, 16, 0, target.files};

    RH_OK_IF(rh_uring_create(&opts, &target.ring, NULL) == RH_OK);
    target.ready = true;
    while (!target.stop)
        target_step();
    return arg;
}

static void target_start(unsigned files, bool busy)
{
    target.files = files;
    target.busy = busy;
    RH_EQ_INT(pthread_create(&target.thread, NULL, target_run, NULL), 0);
    while (!target.ready)
        usleep(1000);
}

static void target_end(void)
{
    target.stop = true;
    rh_uring_wake_any(target.ring);
    pthread_join(target.thread, NULL);
    rh_uring_destroy(target.ring);
    RH_EQ_INT(target.other, 0);
}

static void target_reads(int fd, const struct pair *p)
{
    uint64_t end = now_ns() + DEADLINE;

    target.read = 0;
    target.fd = fd;
    rh_uring_wake_any(target.ring);
    client_write(p, "moved", 5);
    while (!target.read) {
        RH_OK_IF(now_ns() < end);
        usleep(100);
    }
    RH_EQ_INT(target.read, 5);
    RH_EQ_INT(client_ends(p), 0);
}

static void pass_many(bool busy)
{
    setup_table(SLOTS);
    target_start(SLOTS, busy);
    for (unsigned round = 0; round < 200; round++) {
        struct pair p = pair_open();
        int there;

        rh_uring_pass(u, p.hub, target.ring, 77);
        there = await(77).res;
        RH_OK_IF(there >= 0 && rh_fd_direct(there) && (there & ~RH_FD_DIRECT) < SLOTS);
        rh_uring_close(u, p.hub);
        target_reads(there, &p);
        close(p.client);
    }
    target_end();
    teardown();
}

RH_TEST(uring_direct, a_passed_one_lives_on_in_the_other_rings_table)
{
    pass_many(false);
}

RH_TEST(uring_direct, passing_to_a_thread_that_is_awake_works_as_well)
{
    pass_many(true);
}

RH_TEST(uring_direct, a_full_table_over_there_is_told_here)
{
    struct pair pairs[3];
    unsigned refused = 0;

    setup_table(SLOTS);
    target_start(2, false);
    for (unsigned i = 0; i < 3; i++)
        pairs[i] = pair_open();
    for (unsigned i = 0; i < 3; i++)
        rh_uring_pass(u, pairs[i].hub, target.ring, 10 + i);
    for (unsigned i = 0; i < 3; i++) { /* in whatever order the kernel ran them */
        int res = await(10 + i).res;

        if (res >= 0)
            continue;
        RH_EQ_INT(res, -ENFILE);
        refused++;
        echo_once(&pairs[i]); /* ours is as it was */
        expect_pong(&pairs[i]);
    }
    RH_EQ_INT(refused, 1);
    for (unsigned i = 0; i < 3; i++)
        pair_close(&pairs[i]);
    target_end();
    teardown();
}

RH_TEST(uring_direct, passing_to_a_ring_without_a_table_fails)
{
    struct pair p;

    setup_table(SLOTS);
    target_start(0, false);
    p = pair_open();
    rh_uring_pass(u, p.hub, target.ring, 1);
    RH_OK_IF(await(1).res < 0);
    pair_close(&p);
    target_end();
    teardown();
}

/* ---- buffers on demand ---- */

static size_t resident_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long all, resident;

    RH_OK_IF(file && fscanf(file, "%lu %lu", &all, &resident) == 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

RH_TEST(uring_direct, buffers_that_were_never_needed_take_no_memory)
{
    struct pair p;
    size_t before;

    setup_files(64, 4096, 32768, 0, SLOTS); /* 64 MiB */
    p = pair_open();
    before = resident_kib();
    rh_uring_recv_multi(u, p.hub, true, 1);
    for (unsigned i = 0; i < 2000; i++) {
        client_write(&p, "x", 1);
        expect_data(await(1), "x");
    }
    RH_OK_IF(resident_kib() < before + 4096);
    client_write(&p, "y", 1);
    expect_data(await(1), "y");
    close(p.client);
    RH_EQ_INT(await(1).res, 0);
    rh_uring_close(u, p.hub);
    teardown();
}

/* Goal    the kernel gets more buffers until it has all of them, and loses none that come back.
 * Method  one sender, nothing is given back before the receive ends for want of buffers. */
RH_TEST(uring_direct, want_of_buffers_brings_more_until_there_are_all)
{
    enum { BUFFERS = 2048 };
    static uint16_t held[BUFFERS];
    static bool seen[BUFFERS];
    unsigned count = 0, enobufs = 0;
    uint8_t *bytes = stream_bytes(3, 8 * MIB);
    size_t wrote = 0, got = 0;
    struct pair p;

    setup_files(64, 4096, BUFFERS, 0, SLOTS);
    p = pair_open();
    rh_uring_recv_multi(u, p.hub, true, 1);
    while (count < BUFFERS) {
        ssize_t rc = send(p.client, bytes + wrote, 8 * MIB - wrote, MSG_DONTWAIT | MSG_NOSIGNAL);
        struct rh_cqe cqe;

        wrote += rc > 0 ? (size_t)rc : 0;
        cqe = await(1);
        if (cqe.res > 0) {
            RH_OK_IF(cqe.buffer < BUFFERS && !seen[cqe.buffer]);
            seen[cqe.buffer] = true;
            for (int i = 0; i < cqe.res; i++)
                RH_OK_IF(rh_uring_buffer(u, cqe.buffer)[i] == byte_at(3, got + (size_t)i));
            got += (size_t)cqe.res;
            held[count++] = cqe.buffer;
        } else {
            RH_EQ_INT(cqe.res, -ENOBUFS);
            enobufs++;
        }
        if (!(cqe.flags & RH_CQE_MORE))
            rh_uring_recv_multi(u, p.hub, true, 1);
    }
    RH_OK_IF(enobufs >= 5); /* 64, 128, ... 2048 */
    for (unsigned i = 0; i < BUFFERS; i++)
        rh_uring_give(u, held[i]);
    while (got < wrote) {
        struct rh_cqe cqe = await(1);

        if (cqe.res > 0) {
            got += (size_t)cqe.res;
            rh_uring_give(u, cqe.buffer);
        }
        if (!(cqe.flags & RH_CQE_MORE))
            rh_uring_recv_multi(u, p.hub, true, 1);
    }
    close(p.client);
    while (await(1).flags & RH_CQE_MORE)
        ;
    rh_uring_close(u, p.hub);
    teardown();
}
