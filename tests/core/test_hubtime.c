/* tests/core/test_hubtime.c - hub time follows the wall clock and never goes back. */
#include "core/hubtime.h"

#include <stdlib.h>

#include "tests/rh_test.h"

#define SEC_NS  UINT64_C(1000000000)
#define SEC_US  UINT64_C(1000000)
#define HOUR_US (3600 * (int64_t)SEC_US)
#define MONO    UINT64_C(987654321987)     /* at start */
#define WALL    UINT64_C(1700000000000000) /* at start */

RH_TEST(hubtime, starts_at_the_wall_clock_and_runs_with_the_monotonic_one)
{
    struct rh_hubtime t;

    rh_hubtime_init(&t, MONO, WALL);
    RH_EQ_U64(rh_hubtime_us(&t, MONO), WALL);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 999), WALL);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 1000), WALL + 1);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 3600 * SEC_NS), WALL + 3600 * SEC_US);
}

RH_TEST(hubtime, before_its_start_is_its_start)
{
    struct rh_hubtime t;

    rh_hubtime_init(&t, MONO, WALL);
    RH_EQ_U64(rh_hubtime_us(&t, MONO - 5000), WALL);
    RH_EQ_U64(rh_hubtime_us(&t, 0), WALL);
}

RH_TEST(hubtime, makes_up_half_a_second_in_fifty_and_says_nothing)
{
    struct rh_hubtime t;

    rh_hubtime_init(&t, MONO, WALL);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + SEC_NS, WALL + SEC_US + 500000), 0);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + SEC_NS), WALL + SEC_US);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 2 * SEC_NS), WALL + 2 * SEC_US + 10000);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 51 * SEC_NS), WALL + 51 * SEC_US + 500000);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 91 * SEC_NS), WALL + 91 * SEC_US + 500000);
}

RH_TEST(hubtime, slows_down_for_a_wall_clock_that_was_set_back)
{
    struct rh_hubtime t;

    rh_hubtime_init(&t, MONO, WALL);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + SEC_NS, WALL + SEC_US - 500000), 0);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 2 * SEC_NS), WALL + 2 * SEC_US - 10000);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 51 * SEC_NS), WALL + 51 * SEC_US - 500000);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 91 * SEC_NS), WALL + 91 * SEC_US - 500000);
}

RH_TEST(hubtime, reports_a_jump_of_over_a_second_once_with_its_size)
{
    struct rh_hubtime t;

    rh_hubtime_init(&t, MONO, WALL);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + SEC_NS, WALL + SEC_US + HOUR_US), HOUR_US);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + 2 * SEC_NS, WALL + 2 * SEC_US + HOUR_US), 0);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + 3 * SEC_NS, WALL + 3 * SEC_US), -HOUR_US);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + 4 * SEC_NS, WALL + 4 * SEC_US), 0);
}

RH_TEST(hubtime, takes_exactly_a_second_for_drift)
{
    struct rh_hubtime t;

    rh_hubtime_init(&t, MONO, WALL);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + SEC_NS, WALL + 2 * SEC_US), 0);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + 2 * SEC_NS, WALL + 2 * SEC_US), 0);
    RH_EQ_INT(rh_hubtime_adjust(&t, MONO + 3 * SEC_NS, WALL + 4 * SEC_US + 1), SEC_US + 1);
}

RH_TEST(hubtime, does_not_jump_with_the_wall_clock)
{
    struct rh_hubtime t;

    rh_hubtime_init(&t, MONO, WALL);
    rh_hubtime_adjust(&t, MONO + SEC_NS, WALL + SEC_US + HOUR_US);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + SEC_NS), WALL + SEC_US);
    RH_EQ_U64(rh_hubtime_us(&t, MONO + 101 * SEC_NS), WALL + 102 * SEC_US);
}

RH_TEST(hubtime, does_not_lose_the_parts_of_a_microsecond_between_adjusts)
{
    struct rh_hubtime t;
    uint64_t mono = MONO;

    rh_hubtime_init(&t, MONO, WALL);
    for (int i = 0; i < 10000; i++) {
        mono += 1999;
        rh_hubtime_adjust(&t, mono, WALL + (mono - MONO) / 1000);
    }
    RH_EQ_U64(rh_hubtime_us(&t, mono), WALL + (mono - MONO) / 1000);
}

/* Goal    whatever the wall clock does: hub time never goes back, its rate stays within 1 %, it
 *         gets nearer to the wall clock with each second and never overshoots, and jumps are
 *         reported exactly when they happen.
 * Method  random drift and jumps, adjusts at random distances, and readings in between. */
RH_TEST(hubtime, never_goes_back_and_stays_within_one_percent_over_random_histories)
{
    for (int run = 0; run < 200; run++) {
        struct rh_hubtime t;
        uint64_t mono = MONO + rh_test_rand() % SEC_NS;
        int64_t offset_us = 0; /* what the wall clock has gained on the monotonic one */
        uint64_t mono_start = mono;
        uint64_t last_us = WALL;

        rh_hubtime_init(&t, mono, WALL);
        for (int i = 0; i < 300; i++) {
            int64_t jump = (int64_t)(rh_test_rand() % 2001) - 1000; /* drift */
            int64_t reported;
            uint64_t wall;

            for (int k = 0; k < 10; k++) {
                uint64_t by = rh_test_rand() % (SEC_NS / 5);
                uint64_t hub_us;

                mono += by;
                hub_us = rh_hubtime_us(&t, mono);
                RH_OK_IF(hub_us >= last_us);
                RH_OK_IF(hub_us - last_us <= by / 1000 * 101 / 100 + 2);
                RH_OK_IF(hub_us - last_us + 2 >= by / 1000 * 99 / 100);
                last_us = hub_us;
            }
            if (rh_test_rand() % 20 == 0)
                jump = (int64_t)(rh_test_rand() % (2 * (uint64_t)HOUR_US)) - HOUR_US;
            offset_us += jump;
            wall = WALL + (mono - mono_start) / 1000 + (uint64_t)offset_us;
            reported = rh_hubtime_adjust(&t, mono, wall);
            if (llabs(jump) > 1000000 + 2)
                RH_OK_IF(llabs(reported - jump) <= 2); /* the clocks' rounding */
            else if (llabs(jump) < 1000000 - 2)
                RH_OK_IF(reported == 0);
            RH_OK_IF(rh_hubtime_us(&t, mono) == last_us);
        }
        /* Left alone, it arrives: a difference of d takes 100 * d. */
        uint64_t wall = WALL + (mono - mono_start) / 1000 + (uint64_t)offset_us;
        uint64_t far_ns = (uint64_t)llabs((int64_t)(wall - last_us)) * 100 * 1000 + SEC_NS;

        RH_OK_IF(llabs((int64_t)(rh_hubtime_us(&t, mono + far_ns) - wall - far_ns / 1000)) <= 1);
    }
}
