/* tests/core/test_uring_pass.c - a ring's passes: sleeping, waking, and queues that are too small.
 *
 * On the real kernel, as in test_uring.c. A wake-up must end a sleep at whatever moment it comes,
 * and however small the queues are, nothing is lost, doubled or torn.
 */
#include "core/uring.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/core/uring_rig.h"

/* ---- sleeping and waking ---- */

RH_TEST(uring_pass, enter_sleeps_as_long_as_it_was_told)
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

RH_TEST(uring_pass, enter_ends_when_something_completes)
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

RH_TEST(uring_pass, another_thread_ends_the_sleep)
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

RH_TEST(uring_pass, a_wake_up_while_awake_ends_the_next_sleep_once)
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

RH_TEST(uring_pass, no_wake_up_is_lost_at_any_moment)
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

RH_TEST(uring_pass, a_signal_handler_on_another_thread_ends_the_sleep)
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

RH_TEST(uring_pass, a_signal_on_the_rings_own_thread_is_no_error)
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

RH_TEST(uring_pass, a_pass_takes_more_than_256_completions)
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
        struct rh_cqe cqe = await(i);

        if (cqe.res == -ENOBUFS) { /* the first ones were out: now there are more */
            rh_uring_recv_once(u, pairs[i].hub, i);
            cqe = await(i);
        }
        expect_data(cqe, "x");
        pair_close(&pairs[i]);
    }
    teardown();
}

RH_TEST(uring_pass, reap_hands_out_no_more_than_was_asked_for)
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

/* ---- queues that are too small ---- */

RH_TEST(uring_pass, queueing_a_thousand_operations_on_a_queue_of_8_loses_none)
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

/* Goal    headers of queued sends are never reused before the kernel has copied them.
 * Method  far more sends in a pass than the queue (8) or the room for pieces has, on connections
 *         of their own, with other operations in between that also push the queue out early. */
RH_TEST(uring_pass, more_sends_in_a_pass_than_there_is_room_for_keep_their_bytes)
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

RH_TEST(uring_pass, two_buffers_and_100_senders_every_byte_arrives)
{
    static struct flood f;

    setup(64, 4096, 2, 100);
    flood_run(&f, 100, 12000, 3);
    RH_OK_IF(f.enobufs > 0);
    flood_end(&f);
    RH_EQ_U64(rh_uring_overflows(u), 0);
    teardown();
}

RH_TEST(uring_pass, a_tiny_completion_queue_loses_nothing_and_is_counted)
{
    static struct flood f;

    setup(8, 8, 256, 0);
    flood_run(&f, 100, 12000, 6);
    RH_OK_IF(rh_uring_overflows(u) > 0);
    RH_OK_IF(f.lost_more > 0); /* these were armed again */
    flood_end(&f);
    teardown();
}

/* ---- everything at once ---- */

#define MIX_PAIRS 24
#define MIX_OPS   6000

/* Operation k has tag k; a pair has at most one receive and one send under way. */
static struct {
    struct pair pairs[MIX_PAIRS];
    uint64_t recv[MIX_PAIRS], send[MIX_PAIRS]; /* tags; 0: none */
    uint16_t ended[MIX_OPS + 100];
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
    if (mix.recv[i]) /* with bytes that nobody has read it may not see the shutdown */
        rh_uring_cancel(u, mix.recv[i], mix_op());
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
RH_TEST(uring_pass, whatever_happens_each_operation_ends_once)
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
