/* tests/core/test_limit.c - counters and token buckets, on one thread with a clock of the test's
 * own; tests/race/test_limit_race.c has the threads.
 *
 * Goal    a limit is reached exactly, and a rate kept exactly however long it is used.
 * Method  the buckets are asked at the very nanoseconds at which they have to change their minds.
 */
#include "core/limit.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/uring.h"
#include "tests/rh_test.h"

#define SECOND UINT64_C(1000000000)

static struct rh_limits *l;

static void begin(void)
{
    RH_EQ_INT(rh_limit_create(&l), RH_OK);
}

static uint32_t bucket(const char *text)
{
    struct rh_addr addr;

    RH_EQ_INT(rh_addr_parse(text, &addr), RH_OK);
    return rh_limit_bucket(l, &addr);
}

/* ---- counts --------------------------------------------------------------------------------- */

RH_TEST(limit, a_limit_is_reached_exactly_and_opens_again)
{
    begin();
    for (unsigned i = 0; i < 5; i++)
        RH_OK_IF(rh_limit_take_conn_any(l, 5));
    RH_OK_IF(!rh_limit_take_conn_any(l, 5));
    RH_EQ_U64(rh_limit_conns_any(l), 5);
    rh_limit_give_conn_any(l);
    RH_OK_IF(rh_limit_take_conn_any(l, 5));
    RH_OK_IF(!rh_limit_take_conn_any(l, 5));
    rh_limit_destroy(l);
}

RH_TEST(limit, without_a_limit_it_counts_so_that_a_later_one_finds_the_number)
{
    begin();
    for (unsigned i = 0; i < 1000; i++)
        RH_OK_IF(rh_limit_take_handshake_any(l, 0));
    RH_EQ_U64(rh_limit_handshakes_any(l), 1000);
    RH_OK_IF(!rh_limit_take_handshake_any(l, 10));
    for (unsigned i = 0; i < 990; i++)
        rh_limit_give_handshake_any(l);
    RH_OK_IF(!rh_limit_take_handshake_any(l, 10));
    rh_limit_give_handshake_any(l);
    RH_OK_IF(rh_limit_take_handshake_any(l, 10));
    RH_EQ_U64(rh_limit_conns_any(l), 0); /* each counts by itself */
    rh_limit_destroy(l);
}

RH_TEST(limit, addresses_count_each_by_themselves)
{
    uint32_t one;
    uint32_t other;

    begin();
    one = bucket("10.0.0.1:1");
    other = bucket("10.0.0.2:1");
    while (other == one) { /* the key is drawn anew for each run */
        rh_limit_destroy(l);
        begin();
        one = bucket("10.0.0.1:1");
        other = bucket("10.0.0.2:1");
    }
    RH_OK_IF(rh_limit_take_address_any(l, one, 2));
    RH_OK_IF(rh_limit_take_address_any(l, one, 2));
    RH_OK_IF(!rh_limit_take_address_any(l, one, 2));
    RH_OK_IF(rh_limit_take_address_any(l, other, 2));
    rh_limit_give_address_any(l, one);
    RH_OK_IF(rh_limit_take_address_any(l, one, 2));
    rh_limit_destroy(l);
}

RH_TEST(limit, an_address_counts_without_its_port_and_an_ipv6_one_by_its_network)
{
    unsigned same = 0;

    begin();
    RH_EQ_U64(bucket("10.0.0.1:1"), bucket("10.0.0.1:65535"));
    RH_EQ_U64(bucket("10.0.0.1:1"), bucket("[::ffff:10.0.0.1]:9"));
    RH_EQ_U64(bucket("[2001:db8:1:2::1]:1"), bucket("[2001:db8:1:2:ffff:ffff:ffff:ffff]:2"));
    /* 2 in 65,536 that these two pairs collide; not three times in a row. */
    for (unsigned i = 0; i < 3; i++) {
        same += bucket("[2001:db8:1:2::1]:1") == bucket("[2001:db8:1:3::1]:1") ||
                bucket("[::ffff:10.0.0.1]:1") == bucket("[::ffff:10.0.0.2]:1");
        rh_limit_destroy(l);
        begin();
    }
    RH_OK_IF(same < 3);
    rh_limit_destroy(l);
}

RH_TEST(limit, addresses_without_a_number_count_together)
{
    struct rh_addr none = {.at = {.ss_family = AF_UNIX}, .len = sizeof(sa_family_t)};

    begin();
    RH_EQ_U64(rh_limit_bucket(l, &none), rh_limit_bucket(l, &none));
    rh_limit_destroy(l);
}

RH_TEST(limit, addresses_spread_over_all_buckets_differently_in_each_run)
{
    static uint8_t hits[RH_LIMIT_BUCKETS];
    unsigned used = 0;
    char text[32];
    uint32_t before;
    unsigned same = 0;

    begin();
    for (unsigned i = 0; i < RH_LIMIT_BUCKETS; i++) {
        snprintf(text, sizeof(text), "10.1.%u.%u:1", i / 256, i % 256);
        hits[bucket(text)] = 1;
    }
    for (unsigned i = 0; i < RH_LIMIT_BUCKETS; i++)
        used += hits[i];
    RH_OK_IF(used > 40000 && used < 43000); /* 1 - 1/e of them: 41,427 +- 150 */
    before = bucket("10.0.0.1:1");
    for (unsigned i = 0; i < 4; i++) {
        rh_limit_destroy(l);
        begin();
        same += before == bucket("10.0.0.1:1");
    }
    RH_OK_IF(same < 3);
    rh_limit_destroy(l);
}

static void create_destroy(void *arg)
{
    struct rh_limits *made = NULL;

    RH_OK_IF(rh_limit_create(&made) == (rh_mem_fail_left() ? RH_OK : RH_ENOMEM));
    rh_limit_destroy(made);
}

RH_TEST(limit, without_memory_there_is_none)
{
    rh_test_fail_each_alloc(create_destroy, NULL);
}

static void dies(void (*act)(void))
{
    pid_t child = fork();
    int status = 0;

    RH_OK_IF(child >= 0);
    if (child == 0) {
        fclose(stderr);
        act();
        _exit(0);
    }
    RH_OK_IF(waitpid(child, &status, 0) == child);
    RH_OK_IF(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void give_too_much(void)
{
    rh_limit_give_conn_any(l);
}

static void take_outside(void)
{
    rh_limit_take_address_any(l, RH_LIMIT_BUCKETS, 1);
}

RH_TEST(limit, who_gives_back_what_was_not_taken_ends_the_process)
{
    begin();
    dies(give_too_much);
    dies(take_outside);
    rh_limit_destroy(l);
}

/* ---- rates ---------------------------------------------------------------------------------- */

/* The first nanosecond at which `n` intervals have passed. */
static uint64_t after(uint64_t n, uint32_t per_second)
{
    return (uint64_t)(((unsigned __int128)n * SECOND + per_second - 1) / per_second);
}

RH_TEST(rate, a_burst_and_then_one_each_interval_without_drift)
{
    static const struct {
        uint32_t per_second, burst;
    } cases[] = {{1, 1},       {1, 3},           {3, 1},
                 {3, 10},      {7, 7},           {1000, 100},
                 {999983, 50}, {RH_RATE_MAX, 1}, {RH_RATE_MAX, RH_RATE_MAX}};

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        uint32_t rate = cases[i].per_second;
        uint64_t start = 5 * SECOND; /* a whole number of ticks: no rounding at all */
        uint64_t tat = 0;

        for (uint32_t k = 0; k < cases[i].burst; k++)
            RH_OK_IF(rh_rate_take(&tat, start, rate, cases[i].burst));
        RH_OK_IF(!rh_rate_take(&tat, start, rate, cases[i].burst));
        for (uint64_t k = 1; k <= 300000; k++) {
            uint64_t at = start + after(k, rate);

            RH_OK_IF(!rh_rate_take(&tat, at - 1, rate, cases[i].burst));
            RH_OK_IF(rh_rate_take(&tat, at, rate, cases[i].burst));
            RH_OK_IF(!rh_rate_take(&tat, at, rate, cases[i].burst));
        }
    }
}

RH_TEST(rate, from_any_moment_on_it_is_early_by_a_16384th_at_most)
{
    for (unsigned i = 0; i < 100000; i++) {
        uint32_t rate = 1 + (uint32_t)(rh_test_rand() % RH_RATE_MAX);
        uint32_t burst = 1 + (uint32_t)(rh_test_rand() % 4);
        uint64_t start = rh_test_rand() % (UINT64_C(10) * 365 * 86400 * SECOND);
        uint64_t early = after(1, rate) / 16384 + 1;
        uint64_t tat = 0;

        for (uint32_t k = 0; k < burst; k++)
            RH_OK_IF(rh_rate_take(&tat, start, rate, burst));
        RH_OK_IF(!rh_rate_take(&tat, start, rate, burst));
        RH_OK_IF(!rh_rate_take(&tat, start + after(1, rate) - 1 - early, rate, burst));
        RH_OK_IF(rh_rate_take(&tat, start + after(1, rate), rate, burst));
    }
}

RH_TEST(rate, silence_fills_the_bucket_up_to_its_burst)
{
    uint64_t tat = 0;
    uint64_t now = 1;

    for (unsigned i = 0; i < 1000; i++) {
        unsigned missing = 1 + (unsigned)(rh_test_rand() % 10);
        unsigned taken = 0;

        while (rh_rate_take(&tat, now, 100, 10))
            taken++;
        RH_OK_IF(i > 0 || taken == 10);
        now += missing * SECOND / 100; /* 10 of them fill it */
        for (unsigned k = 0; k < missing; k++)
            RH_OK_IF(rh_rate_take(&tat, now, 100, 10));
        RH_OK_IF(!rh_rate_take(&tat, now, 100, 10));
        now += 3600 * SECOND;
        for (unsigned k = 0; k < 10; k++)
            RH_OK_IF(rh_rate_take(&tat, now, 100, 10));
        RH_OK_IF(!rh_rate_take(&tat, now, 100, 10));
    }
}

RH_TEST(rate, nothing_set_is_no_limit_and_no_burst_is_a_seconds_worth)
{
    _Atomic uint64_t shared = 7;
    uint64_t tat = 7;

    for (unsigned i = 0; i < 100000; i++)
        RH_OK_IF(rh_rate_take(&tat, 5, 0, 3) && rh_limit_rate_any(&shared, 5, 0, 3));
    RH_EQ_U64(tat, 7);
    RH_EQ_U64(atomic_load(&shared), 7);
    tat = 0;
    for (unsigned i = 0; i < 42; i++)
        RH_OK_IF(rh_rate_take(&tat, 5, 42, 0));
    RH_OK_IF(!rh_rate_take(&tat, 5, 42, 0));
}

RH_TEST(rate, a_change_of_the_rate_refuses_for_a_second_at_most)
{
    static const uint32_t rates[] = {1, 2, 3, 9, 10, 11, 1000, 99999, 100000, RH_RATE_MAX};

    for (size_t i = 0; i < RH_COUNT(rates); i++)
        for (size_t k = 0; k < RH_COUNT(rates); k++)
            for (uint64_t uptime = 0; uptime < 1000; uptime = uptime * 3 + 1) {
                uint64_t now = uptime * SECOND + 123456789;
                uint64_t tat = 0;

                while (rh_rate_take(&tat, now, rates[i], 5)) {
                }
                if (rh_rate_take(&tat, now, rates[k], 5))
                    continue;
                now += SECOND + after(1, rates[k]) + 1;
                RH_OK_IF(rh_rate_take(&tat, now, rates[k], 5));
            }
}

RH_TEST(rate, a_clock_that_is_behind_takes_nothing_twice)
{
    _Atomic uint64_t tat = 0;
    uint64_t now = 100 * SECOND;

    for (unsigned i = 0; i < 10; i++)
        RH_OK_IF(rh_limit_rate_any(&tat, now, 10, 10));
    RH_OK_IF(!rh_limit_rate_any(&tat, now - SECOND, 10, 10));
    RH_OK_IF(!rh_limit_rate_any(&tat, now - SECOND / 2, 10, 10));
    RH_OK_IF(!rh_limit_rate_any(&tat, now + SECOND / 10 - 1, 10, 10));
    RH_OK_IF(rh_limit_rate_any(&tat, now + SECOND / 10, 10, 10));
}

RH_TEST(rate, each_address_has_its_own)
{
    begin();
    for (unsigned i = 0; i < 3; i++) {
        RH_OK_IF(rh_limit_rate_address_any(l, 0, SECOND, 3));
        RH_OK_IF(rh_limit_rate_address_any(l, RH_LIMIT_BUCKETS - 1, SECOND, 3));
    }
    RH_OK_IF(!rh_limit_rate_address_any(l, 0, SECOND, 3));
    RH_OK_IF(rh_limit_rate_address_any(l, 1, SECOND, 3));
    RH_OK_IF(rh_limit_rate_address_any(l, 0, 2 * SECOND, 3));
    rh_limit_destroy(l);
}
