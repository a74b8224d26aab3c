/* tests/store/test_schedule.c - waits between repetitions: sums, bounds, jitter. */
#include "store/schedule.h"

#include "core/base.h"
#include "tests/rh_test.h"

static const struct rh_schedule standard = {5000, 2.0, 60000};

RH_TEST(schedule, each_wait_is_the_factor_longer_up_to_the_bound)
{
    static const uint64_t want[] = {5000, 10000, 20000, 40000, 60000, 60000, 60000};

    for (uint64_t k = 1; k <= RH_COUNT(want); k++)
        RH_EQ_U64(rh_schedule_ms(&standard, k), want[k - 1]);
}

RH_TEST(schedule, with_a_factor_of_one_all_waits_are_the_same)
{
    const struct rh_schedule s = {300, 1.0, 60000};

    for (uint64_t k = 1; k < 1000; k++)
        RH_EQ_U64(rh_schedule_ms(&s, k), 300);
    RH_EQ_U64(rh_schedule_ms(&s, UINT64_MAX), 300);
}

RH_TEST(schedule, a_factor_between_whole_numbers_is_taken_as_it_is)
{
    const struct rh_schedule s = {1000, 1.5, 100000};

    RH_EQ_U64(rh_schedule_ms(&s, 2), 1500);
    RH_EQ_U64(rh_schedule_ms(&s, 3), 2250);
    RH_EQ_U64(rh_schedule_ms(&s, 4), 3375);
}

RH_TEST(schedule, a_power_that_is_no_number_any_more_is_at_the_bound)
{
    const struct rh_schedule s = {5000, 10.0, 86400000};

    RH_EQ_U64(rh_schedule_ms(&s, 400), 86400000);
    RH_EQ_U64(rh_schedule_ms(&s, UINT32_MAX), 86400000);
    RH_EQ_U64(rh_schedule_ms(&s, UINT64_MAX), 86400000);
}

RH_TEST(schedule, a_first_wait_over_the_bound_is_the_bound)
{
    const struct rh_schedule s = {5000, 2.0, 100};

    RH_EQ_U64(rh_schedule_ms(&s, 1), 100);
}

RH_TEST(schedule, jitter_is_a_tenth_either_way_and_both_ends_are_drawn)
{
    RH_EQ_U64(rh_schedule_draw_ms(&standard, 1, 0), 4500);
    RH_EQ_U64(rh_schedule_draw_ms(&standard, 1, UINT64_MAX), 5500);
    RH_EQ_U64(rh_schedule_draw_ms(&standard, 1, UINT64_MAX / 2), 5000);
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t ms = rh_schedule_draw_ms(&standard, 2, rh_test_rand());

        RH_OK_IF(ms >= 9000 && ms <= 11000);
    }
}

RH_TEST(schedule, jitter_never_passes_the_bound)
{
    RH_EQ_U64(rh_schedule_draw_ms(&standard, 5, 0), 54000);
    RH_EQ_U64(rh_schedule_draw_ms(&standard, 5, UINT64_MAX), 60000);
    RH_EQ_U64(rh_schedule_draw_ms(&standard, UINT64_MAX, UINT64_MAX), 60000);
}

RH_TEST(schedule, waits_too_short_for_a_tenth_have_no_jitter)
{
    const struct rh_schedule s = {9, 1.0, 60000};

    RH_EQ_U64(rh_schedule_draw_ms(&s, 1, 0), 9);
    RH_EQ_U64(rh_schedule_draw_ms(&s, 1, UINT64_MAX), 9);
}
