/* core/clock.c - the seam's clocks, from clock_gettime(2) through the vDSO. */
#include "core/clock.h"

#include <time.h>
#include <unistd.h>

#include "core/base.h"

uint64_t rh_clock_mono_ns(void)
{
    struct timespec now;
    int rc = clock_gettime(CLOCK_MONOTONIC, &now);

    rh_assert(rc == 0); /* fails only for a clock that does not exist */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t rh_clock_wall_us(void)
{
    struct timespec now;
    int rc = clock_gettime(CLOCK_REALTIME, &now);

    rh_assert(rc == 0);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000;
}

void rh_clock_nap_ms(unsigned ms)
{
    usleep(ms * 1000);
}
