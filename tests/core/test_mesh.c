/* tests/core/test_mesh.c - the mesh driven step by step on one thread: spill, credits, turns, sleep.
 *
 * One thread plays all members, which is as good as many for everything but races
 * (tests/race/test_mesh_race.c has these).
 */
#include "core/mesh.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/limits.h"
#include "core/mem.h"
#include "tests/rh_test.h"

#define RING_HOLDS (RH_RING_SLOTS - 1)
#define LOG_MAX    65536

/* What a member popped, and how often it was woken. */
static struct rh_event log_of[LOG_MAX];
static unsigned log_len;
static unsigned woken[RH_MESH_MAX];
static struct rh_net *net;

static void wake(void *arg, unsigned tid)
{
    RH_OK_IF(arg == woken);
    woken[tid]++;
}

static void setup(unsigned members)
{
    RH_EQ_INT(rh_net_create(members, wake, woken, &net), RH_OK);
    log_len = 0;
}

static struct rh_mesh *member(unsigned tid)
{
    return rh_net_member(net, tid);
}

static struct rh_mesh_stat stat_of(unsigned tid)
{
    struct rh_mesh_stat stat;

    rh_mesh_stat_any(member(tid), &stat);
    return stat;
}

static void keep(void *arg, const struct rh_event *ev)
{
    RH_OK_IF(log_len < LOG_MAX);
    log_of[log_len++] = *ev;
}

static unsigned pop(unsigned tid)
{
    return rh_mesh_pop(member(tid), keep, NULL);
}

static int ask(unsigned from, unsigned to, uint64_t a, uint32_t bytes)
{
    struct rh_event ev = {.kind = RH_EV_SEND, .a = a, .cookie = &log_of[a], .conn = ~a};

    return rh_mesh_ask(member(from), to, &ev, bytes);
}

static int tell(unsigned from, unsigned to, uint64_t a)
{
    struct rh_event ev = {.kind = RH_EV_QUIET, .a = a};

    return rh_mesh_tell(member(from), to, &ev);
}

static bool lossy(unsigned from, unsigned to, uint64_t a)
{
    struct rh_event ev = {.kind = RH_EV_LOG, .a = a};

    return rh_mesh_drop_or_tell(member(from), to, &ev);
}

static void reply(unsigned from, const struct rh_event *request, uint64_t a)
{
    struct rh_event ev = {.kind = RH_EV_SENT, .a = a};

    rh_mesh_reply(member(from), request, &ev);
}

/* Publishes and pops until the receiver sees nothing more. */
static void carry(unsigned from, unsigned to)
{
    do
        rh_mesh_publish(member(from));
    while (pop(to));
}

/* The log holds `n` events numbered from 0 on. */
static void log_is_in_order(unsigned n)
{
    RH_EQ_U64(log_len, n);
    for (unsigned i = 0; i < n; i++)
        RH_EQ_U64(log_of[i].a, i);
}

RH_TEST(mesh, an_event_arrives_when_it_is_published)
{
    setup(3);
    RH_EQ_INT(tell(0, 2, 0), RH_OK);
    RH_EQ_U64(pop(2), 0);
    rh_mesh_publish(member(0));
    RH_EQ_U64(rh_net_depth_any(net, 0, 2), 1);
    RH_EQ_U64(pop(1), 0);
    RH_EQ_U64(pop(2), 1);
    RH_EQ_U64(pop(2), 0);
    RH_EQ_U64(rh_net_depth_any(net, 0, 2), 0);
    log_is_in_order(1);
    RH_EQ_INT(log_of[0].kind, RH_EV_QUIET);
    RH_EQ_INT(log_of[0].from, 0);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_reply_brings_back_cookie_connection_and_cost)
{
    setup(2);
    RH_EQ_INT(ask(1, 0, 5, 777), RH_OK);
    rh_mesh_publish(member(1));
    RH_EQ_U64(pop(0), 1);
    RH_EQ_INT(log_of[0].kind, RH_EV_SEND);
    RH_EQ_INT(log_of[0].from, 1);
    RH_EQ_U64(log_of[0].cost, 777);
    reply(0, &log_of[0], 42);
    rh_mesh_publish(member(0));
    RH_EQ_U64(pop(1), 1);
    RH_EQ_INT(log_of[1].kind, RH_EV_SENT);
    RH_EQ_INT(log_of[1].from, 0);
    RH_EQ_U64(log_of[1].a, 42);
    RH_EQ_U64(log_of[1].conn, ~UINT64_C(5));
    RH_EQ_U64(log_of[1].cost, 777);
    RH_OK_IF(log_of[1].cookie == &log_of[5]);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_full_ring_spills_and_order_is_kept)
{
    setup(2);
    for (unsigned i = 0; i < 2000; i++)
        RH_EQ_INT(tell(0, 1, i), RH_OK);
    RH_EQ_U64(stat_of(0).spill_events, 2000 - RING_HOLDS);
    rh_mesh_publish(member(0));
    RH_EQ_U64(pop(1), RING_HOLDS);
    RH_EQ_INT(tell(0, 1, 2000), RH_OK); /* the ring has room, but others wait in front */
    RH_EQ_U64(stat_of(0).spill_events, 2001 - RING_HOLDS);
    carry(0, 1);
    log_is_in_order(2001);
    RH_EQ_U64(stat_of(0).spill_events, 0);
    RH_EQ_U64(stat_of(0).spilled, 2001 - RING_HOLDS);
    RH_EQ_U64(stat_of(0).told, 2001);
    RH_EQ_U64(stat_of(1).popped, 2001);
    rh_net_destroy(net);
}

/* Method  bursts of random length and kind, the receiver pops now and then; everything is numbered. */
RH_TEST(mesh, order_is_kept_through_any_mix_of_bursts_and_classes)
{
    uint64_t sent = 0, seen = 0;

    setup(2);
    for (int round = 0; round < 3000; round++) {
        for (uint64_t n = rh_test_rand() % 200; n; n--) {
            if (rh_test_rand() % 4 != 0)
                sent += tell(0, 1, sent) == RH_OK;
            else if (rh_mesh_can_ask(member(0), 1, 10))
                sent += ask(0, 1, sent % LOG_MAX, 10) == RH_OK ? 1 : 0;
        }
        rh_mesh_publish(member(0));
        if (rh_test_rand() % 3 == 0)
            continue;
        log_len = 0;
        pop(1);
        for (unsigned i = 0; i < log_len; i++) {
            bool request = log_of[i].kind == RH_EV_SEND;

            RH_EQ_U64(log_of[i].a, request ? seen % LOG_MAX : seen);
            seen++;
            if (request)
                reply(1, &log_of[i], 0);
        }
        rh_mesh_publish(member(1));
        pop(0);
    }
    log_len = 0;
    carry(0, 1);
    RH_EQ_U64(seen + log_len, sent);
    RH_OK_IF(stat_of(0).spilled > 1000);
    rh_net_destroy(net);
}

RH_TEST(mesh, credits_end_by_count_and_replies_return_them)
{
    setup(2);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++) {
        RH_OK_IF(rh_mesh_can_ask(member(0), 1, 1));
        RH_EQ_INT(ask(0, 1, i, 1), RH_OK);
    }
    RH_OK_IF(!rh_mesh_can_ask(member(0), 1, 0));
    RH_EQ_INT(ask(0, 1, 0, 0), RH_EFULL);
    RH_EQ_U64(stat_of(0).refused, 1);
    RH_EQ_U64(stat_of(0).credit_out, RH_CREDIT_EVENTS);

    carry(0, 1);
    log_is_in_order(RH_CREDIT_EVENTS);
    RH_OK_IF(!rh_mesh_can_ask(member(0), 1, 0)); /* popped is not answered */
    reply(1, &log_of[0], 0);
    rh_mesh_publish(member(1));
    RH_OK_IF(!rh_mesh_can_ask(member(0), 1, 0)); /* answered is not popped */
    RH_EQ_U64(pop(0), 1);
    RH_EQ_INT(ask(0, 1, 0, 1), RH_OK);
    RH_EQ_INT(ask(0, 1, 0, 1), RH_EFULL);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_credit_that_was_taken_is_spent_or_given_back)
{
    struct rh_event ev = {.kind = RH_EV_SEND, .a = RH_CREDIT_EVENTS - 1};

    setup(2);
    RH_EQ_INT(rh_mesh_take(member(0), 1, 100), RH_OK);
    RH_EQ_INT(rh_mesh_take(member(0), 1, 7), RH_OK);
    RH_OK_IF(!rh_mesh_quiet(member(0)));
    for (unsigned i = 0; i < RH_CREDIT_EVENTS - 2; i++)
        RH_EQ_INT(ask(0, 1, i, 1), RH_OK);
    RH_EQ_INT(ask(0, 1, 0, 1), RH_EFULL);
    RH_EQ_INT(rh_mesh_take(member(0), 1, 0), RH_EFULL);
    rh_mesh_give(member(0), 1, 100);
    RH_EQ_INT(ask(0, 1, RH_CREDIT_EVENTS - 2, 1), RH_OK);
    rh_mesh_ask_taken(member(0), 1, &ev, 7);
    carry(0, 1);
    log_is_in_order(RH_CREDIT_EVENTS);
    RH_EQ_U64(log_of[RH_CREDIT_EVENTS - 1].cost, 7);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++)
        reply(1, &log_of[i], i);
    carry(1, 0);
    RH_OK_IF(rh_mesh_quiet(member(0)));
    rh_net_destroy(net);
}

/* A full spill has room for every request that has a credit, also when it is spent later. */
RH_TEST(mesh, a_taken_credit_needs_no_memory_later)
{
    unsigned told = 0;

    setup(2);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++)
        RH_EQ_INT(rh_mesh_take(member(0), 1, 16), RH_OK);
    rh_mem_fail_nth(1);
    while (tell(0, 1, told) == RH_OK)
        told++;
    rh_mem_fail_nth(1);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++) {
        struct rh_event ev = {.kind = RH_EV_SEND, .a = told + i};

        rh_mesh_ask_taken(member(0), 1, &ev, 16);
    }
    RH_EQ_U64(rh_mem_fail_left(), 1);
    rh_mem_fail_nth(0);
    carry(0, 1);
    log_is_in_order(told + RH_CREDIT_EVENTS);
    rh_net_destroy(net);
}

RH_TEST(mesh, credits_end_by_bytes_and_are_counted_per_pair)
{
    setup(3);
    RH_EQ_INT(ask(0, 1, 0, RH_CREDIT_BYTES - 10), RH_OK);
    RH_OK_IF(!rh_mesh_can_ask(member(0), 1, 11));
    RH_OK_IF(rh_mesh_can_ask(member(0), 1, 10));
    RH_EQ_INT(ask(0, 1, 1, 11), RH_EFULL);
    RH_EQ_INT(ask(0, 1, 1, 10), RH_OK);
    RH_EQ_INT(ask(0, 1, 2, 1), RH_EFULL);
    RH_EQ_INT(ask(0, 1, 2, 0), RH_OK);
    RH_EQ_INT(ask(0, 2, 3, RH_CREDIT_BYTES), RH_OK);
    RH_EQ_INT(ask(2, 1, 4, RH_CREDIT_BYTES), RH_OK);

    carry(0, 1);
    reply(1, &log_of[0], 0);
    carry(1, 0);
    RH_OK_IF(rh_mesh_can_ask(member(0), 1, RH_CREDIT_BYTES - 10));
    RH_OK_IF(!rh_mesh_can_ask(member(0), 1, RH_CREDIT_BYTES - 9));
    rh_net_destroy(net);
}

/* Goal    the worst case of the spill's sum: every credit of both directions lies in one spill, with
 *         other consequences among them, and memory is gone.
 * Method  fail every allocation from the moment at which the net stands. */
RH_TEST(mesh, replies_and_requests_never_need_memory)
{
    static struct rh_event requests[RH_CREDIT_EVENTS];
    unsigned told = 0;

    setup(2);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++)
        RH_EQ_INT(ask(1, 0, i, 16), RH_OK);
    carry(1, 0);
    memcpy(requests, log_of, sizeof(requests));
    log_len = 0;

    rh_mem_fail_nth(1);
    while (tell(0, 1, told) == RH_OK) {
        told++;
        RH_OK_IF(told <= RING_HOLDS + RH_SPILL_TELLS);
    }
    RH_EQ_U64(rh_mem_fail_left(), 0);
    RH_EQ_U64(told, RING_HOLDS + RH_SPILL_TELLS);
    rh_mem_fail_nth(1);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++) {
        reply(0, &requests[i], told + 2 * i);
        RH_EQ_INT(ask(0, 1, told + 2 * i + 1, 16), RH_OK);
    }
    RH_EQ_U64(rh_mem_fail_left(), 1); /* nobody asked for memory */
    rh_mem_fail_nth(0);
    RH_EQ_U64(stat_of(0).spill_events, RH_SPILL_FIXED);

    carry(0, 1);
    log_is_in_order(told + 2 * RH_CREDIT_EVENTS);
    rh_net_destroy(net);
}

RH_TEST(mesh, telling_without_memory_moves_nothing_and_works_again_later)
{
    unsigned told = 0;

    setup(2);
    rh_mem_fail_nth(1);
    while (tell(0, 1, told) == RH_OK)
        told++;
    RH_EQ_INT(tell(0, 1, told), RH_OK); /* memory is back: the spill grows */
    told++;
    for (; told < 12000; told++)
        RH_EQ_INT(tell(0, 1, told), RH_OK);
    carry(0, 1);
    log_is_in_order(12000);
    RH_OK_IF(rh_mesh_quiet(member(0)));
    rh_net_destroy(net);
}

/* Fills the ring and all of the spill that needs no memory, as far as tells may. */
static unsigned fill(unsigned from, unsigned to)
{
    unsigned told = 0;

    while (told < RING_HOLDS + RH_SPILL_TELLS)
        RH_EQ_INT(tell(from, to, told++), RH_OK);
    return told;
}

RH_TEST(mesh, what_is_reserved_can_be_told_without_memory)
{
    unsigned n;

    setup(2);
    for (unsigned tells = 1; tells < 20000; tells = tells * 3 + 1) {
        unsigned end;

        log_len = 0;
        n = fill(0, 1);
        end = n + tells;
        RH_EQ_INT(rh_mesh_reserve(member(0), 1, tells), RH_OK);
        rh_mem_fail_nth(1);
        while (n < end)
            RH_EQ_INT(tell(0, 1, n++), RH_OK);
        RH_EQ_U64(rh_mem_fail_left(), 1);
        rh_mem_fail_nth(0);
        carry(0, 1);
        log_is_in_order(n);
        RH_OK_IF(rh_mesh_quiet(member(0)));
    }
    rh_net_destroy(net);
}

RH_TEST(mesh, a_promise_outlives_publishing_and_an_empty_spill)
{
    setup(2);
    RH_EQ_INT(rh_mesh_reserve(member(0), 1, 5000), RH_OK);
    for (unsigned i = 0; i < RING_HOLDS + 1; i++)
        RH_EQ_INT(tell(0, 1, i), RH_OK); /* 4744 are left */
    carry(0, 1);
    RH_EQ_U64(stat_of(0).spilled, 1);
    RH_EQ_U64(stat_of(0).spill_events, 0);
    rh_mem_fail_nth(1);
    for (unsigned i = RING_HOLDS + 1; i < 5000; i++)
        RH_EQ_INT(tell(0, 1, i), RH_OK);
    carry(0, 1);
    log_is_in_order(5000);
    RH_EQ_U64(rh_mem_fail_left(), 1);

    /* It is used up: the spill is as small as at first, and the next one too many needs memory. */
    log_len = 0;
    fill(0, 1);
    RH_EQ_INT(tell(0, 1, 0), RH_ENOMEM);
    rh_mem_fail_nth(0);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_promise_leaves_room_for_every_request_and_reply)
{
    unsigned asked = 0;

    setup(2);
    while (ask(1, 0, asked, 0) == RH_OK)
        asked++;
    carry(1, 0);
    RH_EQ_U64(log_len, RH_CREDIT_EVENTS);
    RH_EQ_INT(rh_mesh_reserve(member(0), 1, 3000), RH_OK);
    rh_mem_fail_nth(1);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++)
        RH_EQ_INT(ask(0, 1, i, 0), RH_OK);
    for (unsigned i = 0; i < RH_CREDIT_EVENTS; i++)
        reply(0, &log_of[i], i);
    for (unsigned i = 0; i < 3000; i++)
        RH_EQ_INT(tell(0, 1, i), RH_OK);
    rh_mem_fail_nth(0);
    log_len = 0;
    carry(0, 1);
    RH_EQ_U64(log_len, 2 * RH_CREDIT_EVENTS + 3000);
    rh_net_destroy(net);
}

RH_TEST(mesh, reserving_without_memory_changes_nothing)
{
    unsigned n;

    setup(2);
    n = fill(0, 1);
    rh_mem_fail_nth(1);
    RH_EQ_INT(rh_mesh_reserve(member(0), 1, 1), RH_ENOMEM);
    rh_mem_fail_nth(1);
    RH_EQ_INT(tell(0, 1, n), RH_ENOMEM);
    RH_EQ_INT(rh_mesh_reserve(member(0), 1, UINT32_MAX), RH_ENOMEM);
    rh_mem_fail_nth(0);
    carry(0, 1);
    log_is_in_order(n);
    RH_OK_IF(rh_mesh_quiet(member(0)));
    rh_net_destroy(net);
}

RH_TEST(mesh, of_two_promises_the_larger_holds)
{
    unsigned n;

    setup(2);
    n = fill(0, 1);
    RH_EQ_INT(rh_mesh_reserve(member(0), 1, 9000), RH_OK);
    RH_EQ_INT(rh_mesh_reserve(member(0), 1, 10), RH_OK);
    rh_mem_fail_nth(1);
    for (unsigned i = 0; i < 9000; i++)
        RH_EQ_INT(tell(0, 1, n++), RH_OK);
    RH_EQ_U64(rh_mem_fail_left(), 1);
    rh_mem_fail_nth(0);
    carry(0, 1);
    log_is_in_order(n);
    rh_net_destroy(net);
}

RH_TEST(mesh, the_depth_of_all_that_leads_to_a_member_is_known)
{
    setup(3);
    RH_EQ_U64(rh_net_inbound_any(net, 1), 0);
    RH_EQ_INT(tell(0, 1, 0), RH_OK);
    RH_EQ_INT(tell(2, 1, 0), RH_OK);
    RH_EQ_INT(tell(2, 1, 1), RH_OK);
    RH_EQ_INT(tell(1, 0, 0), RH_OK);
    rh_mesh_publish(member(0));
    RH_EQ_U64(rh_net_inbound_any(net, 1), 1);
    rh_mesh_publish(member(2));
    RH_EQ_U64(rh_net_inbound_any(net, 1), 3);
    RH_EQ_U64(rh_net_inbound_any(net, 0), 0);
    pop(1);
    RH_EQ_U64(rh_net_inbound_any(net, 1), 0);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_spill_over_its_mark_refuses_requests_but_no_consequences)
{
    struct rh_event heavy = {.kind = RH_EV_QUIET, .cost = RH_SPILL_BYTES};
    unsigned told = 0;

    setup(3);
    for (; told < RING_HOLDS + RH_SPILL_EVENTS - 1; told++)
        RH_EQ_INT(tell(0, 1, told), RH_OK);
    RH_OK_IF(rh_mesh_can_ask(member(0), 1, 1) && rh_mesh_has_room(member(0), 1));
    RH_EQ_INT(tell(0, 1, told++), RH_OK);
    RH_OK_IF(!rh_mesh_can_ask(member(0), 1, 1) && !rh_mesh_has_room(member(0), 1));
    RH_EQ_INT(ask(0, 1, 0, 1), RH_EFULL);
    RH_OK_IF(rh_mesh_can_ask(member(0), 2, 1));
    RH_EQ_INT(tell(0, 1, told++), RH_OK);
    carry(0, 1);
    log_is_in_order(told);
    RH_OK_IF(rh_mesh_can_ask(member(0), 1, 1));

    for (unsigned i = 0; i < RING_HOLDS; i++)
        RH_EQ_INT(tell(0, 1, i), RH_OK);
    RH_OK_IF(rh_mesh_has_room(member(0), 1));
    RH_EQ_INT(rh_mesh_tell(member(0), 1, &heavy), RH_OK); /* the mark by bytes */
    RH_EQ_U64(stat_of(0).spill_bytes, RH_SPILL_BYTES);
    RH_OK_IF(!rh_mesh_has_room(member(0), 1));
    carry(0, 1);
    RH_OK_IF(rh_mesh_has_room(member(0), 1));
    RH_EQ_U64(stat_of(0).spill_bytes, 0);
    rh_net_destroy(net);
}

RH_TEST(mesh, lossy_events_are_dropped_when_the_ring_is_full_or_others_wait)
{
    setup(2);
    for (unsigned i = 0; i < RING_HOLDS; i++)
        RH_OK_IF(lossy(0, 1, i));
    RH_OK_IF(!lossy(0, 1, 9999));
    RH_EQ_INT(tell(0, 1, RING_HOLDS), RH_OK);
    rh_mesh_publish(member(0));
    RH_EQ_U64(pop(1), RING_HOLDS);
    RH_OK_IF(!lossy(0, 1, 9999)); /* room, but it would overtake */
    RH_EQ_U64(stat_of(0).dropped, 2);
    carry(0, 1);
    RH_OK_IF(lossy(0, 1, RING_HOLDS + 1));
    carry(0, 1);
    log_is_in_order(RING_HOLDS + 2);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_pop_ends_at_its_budget_and_the_rest_comes_next)
{
    unsigned sources = 6;
    unsigned got;

    setup(7);
    for (unsigned from = 1; from <= sources; from++) {
        for (unsigned i = 0; i < RING_HOLDS; i++)
            RH_EQ_INT(tell(from, 0, i), RH_OK);
        rh_mesh_publish(member(from));
    }
    RH_EQ_U64(pop(0), RH_MESH_POP);
    RH_OK_IF(!rh_mesh_sleep(member(0))); /* the rest is nobody's to announce again */
    got = pop(0);
    RH_EQ_U64(got, sources * RING_HOLDS - RH_MESH_POP);
    RH_OK_IF(rh_mesh_sleep(member(0)));
    rh_net_destroy(net);
}

RH_TEST(mesh, sources_take_turns)
{
    unsigned seen[RH_MESH_MAX] = {0};

    setup(RH_MESH_MAX);
    for (unsigned from = 1; from < RH_MESH_MAX; from += 25) {
        for (unsigned i = 0; i < RING_HOLDS; i++)
            RH_EQ_INT(tell(from, 0, i), RH_OK);
        rh_mesh_publish(member(from));
    }
    RH_EQ_U64(pop(0), RH_MESH_POP);
    for (unsigned i = 0; i < log_len; i++) {
        unsigned from = log_of[i].from;

        RH_EQ_U64(log_of[i].a, seen[from]);
        seen[from]++;
        for (unsigned other = 1; other < RH_MESH_MAX; other += 25)
            RH_OK_IF(seen[from] <= seen[other] + RH_MESH_TURN);
    }
    pop(0);
    RH_EQ_U64(log_len, 6 * RING_HOLDS);
    rh_net_destroy(net);
}

RH_TEST(mesh, every_pair_of_a_full_mesh_works)
{
    setup(RH_MESH_MAX);
    for (unsigned from = 0; from < RH_MESH_MAX; from++) {
        for (unsigned to = 0; to < RH_MESH_MAX; to++)
            RH_EQ_INT(tell(from, to, from * RH_MESH_MAX + to), RH_OK);
        rh_mesh_publish(member(from));
    }
    for (unsigned to = 0; to < RH_MESH_MAX; to++) {
        log_len = 0;
        RH_EQ_U64(pop(to), RH_MESH_MAX);
        for (unsigned from = 0; from < RH_MESH_MAX; from++)
            RH_EQ_U64(log_of[from].a, from * RH_MESH_MAX + to);
    }
    rh_net_destroy(net);
}

/* A handler that answers, tells its source, asks it back and publishes, all while popping. */
static void busy_handler(void *arg, const struct rh_event *ev)
{
    unsigned self = *(unsigned *)arg;

    keep(NULL, ev);
    if (ev->kind != RH_EV_SEND)
        return;
    reply(self, ev, ev->a);
    RH_EQ_INT(tell(self, ev->from, ev->a), RH_OK);
    if (self != ev->from)
        RH_EQ_INT(ask(self, ev->from, ev->a, 1), RH_OK);
    rh_mesh_publish(member(self));
}

RH_TEST(mesh, handlers_may_answer_tell_ask_and_publish)
{
    unsigned self = 0;

    setup(2);
    for (unsigned i = 0; i < 1000; i++)
        RH_EQ_INT(ask(1, 0, i, 1), RH_OK);
    rh_mesh_publish(member(1));
    while (rh_mesh_pop(member(0), busy_handler, &self))
        rh_mesh_publish(member(1));
    log_is_in_order(1000);
    log_len = 0;
    carry(0, 1);
    RH_EQ_U64(log_len, 3000);
    for (unsigned i = 0; i < 3000; i++)
        RH_EQ_U64(log_of[i].a, i / 3);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_member_may_talk_to_itself)
{
    unsigned self = 0;

    setup(1);
    for (unsigned i = 0; i < 600; i++)
        RH_EQ_INT(ask(0, 0, i, 1), RH_OK);
    RH_OK_IF(!rh_mesh_sleep(member(0)));
    do
        rh_mesh_publish(member(0));
    while (rh_mesh_pop(member(0), busy_handler, &self));
    RH_EQ_U64(log_len, 3 * 600);
    RH_OK_IF(rh_mesh_quiet(member(0)));
    RH_OK_IF(rh_mesh_sleep(member(0)));
    RH_EQ_U64(woken[0], 0);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_sleeper_is_woken_once_and_nobody_else_is)
{
    setup(3);
    RH_OK_IF(rh_mesh_sleep(member(2)));
    RH_EQ_INT(tell(0, 2, 0), RH_OK);
    RH_EQ_INT(tell(0, 1, 0), RH_OK);
    RH_EQ_U64(woken[2], 0); /* not yet published */
    rh_mesh_publish(member(0));
    RH_EQ_U64(woken[2], 1);
    RH_EQ_INT(tell(0, 2, 1), RH_OK);
    rh_mesh_publish(member(0));
    RH_EQ_INT(tell(1, 2, 2), RH_OK);
    rh_mesh_publish(member(1));
    RH_EQ_U64(woken[2], 1);
    RH_EQ_U64(woken[1], 0);
    RH_EQ_U64(stat_of(0).woken, 1);
    rh_mesh_awake(member(2));
    RH_EQ_U64(pop(2), 3);
    rh_mesh_publish(member(2));
    RH_OK_IF(rh_mesh_sleep(member(2)));
    RH_EQ_INT(tell(1, 2, 3), RH_OK);
    rh_mesh_publish(member(1));
    RH_EQ_U64(woken[2], 2);
    rh_net_destroy(net);
}

RH_TEST(mesh, an_awake_member_is_never_woken)
{
    setup(2);
    RH_OK_IF(rh_mesh_sleep(member(1)));
    rh_mesh_awake(member(1));
    RH_EQ_INT(tell(0, 1, 0), RH_OK);
    rh_mesh_publish(member(0));
    RH_EQ_U64(woken[1], 0);
    RH_OK_IF(!rh_mesh_sleep(member(1))); /* something is there: the flag is down again */
    RH_EQ_INT(tell(0, 1, 1), RH_OK);
    rh_mesh_publish(member(0));
    RH_EQ_U64(woken[1], 0);
    rh_net_destroy(net);
}

RH_TEST(mesh, a_member_with_unpublished_or_spilled_events_does_not_sleep)
{
    setup(2);
    for (unsigned i = 0; i < RING_HOLDS; i++)
        RH_EQ_INT(tell(0, 1, i), RH_OK);
    RH_OK_IF(!rh_mesh_sleep(member(0)) && !rh_mesh_quiet(member(0)));
    rh_mesh_publish(member(0));
    RH_OK_IF(rh_mesh_sleep(member(0)) && rh_mesh_quiet(member(0)));
    rh_mesh_awake(member(0));
    RH_EQ_INT(tell(0, 1, RING_HOLDS), RH_OK);
    rh_mesh_publish(member(0));
    RH_OK_IF(!rh_mesh_sleep(member(0)) && !rh_mesh_quiet(member(0)));
    carry(0, 1);
    RH_OK_IF(rh_mesh_sleep(member(0)) && rh_mesh_quiet(member(0)));
    rh_net_destroy(net);
}

RH_TEST(mesh, is_quiet_when_no_reply_is_outstanding)
{
    setup(2);
    RH_OK_IF(rh_mesh_quiet(member(0)));
    RH_EQ_INT(ask(0, 1, 0, 1), RH_OK);
    carry(0, 1);
    RH_OK_IF(!rh_mesh_quiet(member(0)) && rh_mesh_quiet(member(1)));
    reply(1, &log_of[0], 0);
    RH_OK_IF(!rh_mesh_quiet(member(1)));
    rh_mesh_publish(member(1));
    RH_OK_IF(!rh_mesh_quiet(member(0)) && rh_mesh_quiet(member(1)));
    pop(0);
    RH_OK_IF(rh_mesh_quiet(member(0)));
    rh_net_destroy(net);
}

RH_TEST(mesh, counters_tell_the_classes_apart)
{
    struct rh_mesh_stat stat;

    setup(2);
    ask(0, 1, 0, 1);
    ask(0, 1, 1, 1);
    tell(0, 1, 2);
    lossy(0, 1, 3);
    carry(0, 1);
    reply(1, &log_of[0], 0);
    rh_mesh_publish(member(1));
    pop(0);
    stat = stat_of(0);
    RH_EQ_U64(stat.asked, 2);
    RH_EQ_U64(stat.told, 2);
    RH_EQ_U64(stat.replied, 0);
    RH_EQ_U64(stat.popped, 1);
    RH_EQ_U64(stat.credit_out, 1);
    RH_EQ_U64(stat_of(1).popped, 4);
    RH_EQ_U64(stat_of(1).replied, 1);
    rh_net_destroy(net);
}

static void create_use_destroy(void *arg)
{
    struct rh_net *made = NULL;
    int rc = rh_net_create(4, wake, woken, &made);

    RH_OK_IF(rc == RH_OK || (rc == RH_ENOMEM && !made));
    if (rc < 0)
        return;
    for (unsigned i = 0; i < 10000; i++) {
        struct rh_event ev = {.kind = RH_EV_DRAIN};

        RH_OK_IF(rh_mesh_tell(rh_net_member(made, 1), 2, &ev) <= 0);
    }
    rh_net_destroy(made); /* with a spill on the heap */
}

RH_TEST(mesh, survives_every_failing_allocation_and_leaks_nothing)
{
    rh_test_fail_each_alloc(create_use_destroy, NULL);
    rh_net_destroy(NULL);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
RH_TEST(mesh, without_address_space_is_an_error)
{
    struct rlimit limit = {.rlim_cur = 1u << 30, .rlim_max = 1u << 30};
    struct rh_net *made = NULL;

    RH_EQ_INT(setrlimit(RLIMIT_AS, &limit), 0); /* of this test's own process */
    RH_EQ_INT(rh_net_create(RH_MESH_MAX, wake, woken, &made), RH_ENOMEM);
    RH_OK_IF(made == NULL);
}
#endif

/* ---- what is a bug of the caller's ends the process, before a wrong delivery ---- */

static void dies(void (*act)(void))
{
    pid_t child = fork();
    int status = 0;

    RH_OK_IF(child >= 0);
    if (child == 0) {
        fclose(stderr);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        act();
        _exit(0);
    }
    RH_OK_IF(waitpid(child, &status, 0) == child);
    RH_OK_IF(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void answer_twice(void)
{
    reply(1, &log_of[0], 0);
    reply(1, &log_of[0], 0);
}

static void answer_with_the_wrong_kind(void)
{
    struct rh_event ev = {.kind = RH_EV_HANDED};

    rh_mesh_reply(member(1), &log_of[0], &ev);
}

static void tell_a_request(void)
{
    struct rh_event ev = {.kind = RH_EV_SEND};

    rh_mesh_tell(member(1), 0, &ev);
}

static void tell_a_stranger(void)
{
    tell(0, 2, 0);
}

RH_TEST(mesh, stops_who_answers_twice_or_wrongly_or_tells_a_request)
{
    setup(2);
    ask(0, 1, 0, 1);
    carry(0, 1);
    dies(answer_twice);
    dies(answer_with_the_wrong_kind);
    dies(tell_a_request);
    dies(tell_a_stranger);
    rh_net_destroy(net);
}
