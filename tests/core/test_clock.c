/* tests/core/test_clock.c - the real clocks, as far as they can be told right from wrong. */
#include "core/clock.h"

#include <time.h>

#include "tests/rh_test.h"

RH_TEST(clock, mono_never_goes_back_and_counts_ns)
{
    struct timespec pause = {0, 20000000};
    uint64_t start = rh_clock_mono_ns();
    uint64_t last = start;

    for (int i = 0; i < 100000; i++) {
        uint64_t now = rh_clock_mono_ns();

        RH_OK_IF(now >= last);
        last = now;
    }
    last = rh_clock_mono_ns();
    nanosleep(&pause, NULL);
    RH_OK_IF(rh_clock_mono_ns() - last >= 20000000);
    RH_OK_IF(rh_clock_mono_ns() - start < UINT64_C(60000000000));
}

RH_TEST(clock, wall_is_the_date_in_us)
{
    time_t before = time(NULL);
    uint64_t wall_us = rh_clock_wall_us();
    time_t after = time(NULL);

    /* time() may lag by a tick behind the exact clock. */
    RH_OK_IF(wall_us >= (uint64_t)before * 1000000);
    RH_OK_IF(wall_us < ((uint64_t)after + 2) * 1000000);
}
