/* store/schedule.c - a power with a bound, and a tenth of it either way. */
#include "store/schedule.h"

#include <math.h>

#include "core/base.h"

uint64_t rh_schedule_ms(const struct rh_schedule *s, uint64_t k)
{
    double ms;

    rh_assert(k > 0 && s->factor >= 1.0);
    ms = (double)s->base_ms * pow(s->factor, (double)(k - 1));
    return ms < (double)s->max_ms ? (uint64_t)ms : s->max_ms; /* infinite, too */
}

uint64_t rh_schedule_draw_ms(const struct rh_schedule *s, uint64_t k, uint64_t random)
{
    uint64_t ms = rh_schedule_ms(s, k);
    uint64_t first = ms - ms / 10;
    uint64_t last = RH_MIN(ms + ms / 10, s->max_ms);

    return first + (uint64_t)((unsigned __int128)random * (last - first + 1) >> 64);
}
