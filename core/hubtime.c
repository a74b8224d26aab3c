/* core/hubtime.c - hub time as one straight line with a bend.
 *
 * Why this way: after an adjust, hub time is the monotonic clock plus a correction that grows with
 * the time passed (1 % of it) until the whole difference to the wall clock is made up, and then
 * stays. Nothing has to be called when the correction is complete, it cannot overshoot, and it does
 * not matter how regularly adjust comes.
 *
 * Invariants  (1) rh_hubtime_us() does not decrease with mono_ns: e - e / 100 never does.
 *             (2) An adjust changes the future only: hub time at its moment is the same before and
 *                 after.
 */
#include "core/hubtime.h"

#include "core/base.h"

#define SLEW_DIVISOR 100 /* 1 % */
#define JUMP_US      1000000

void rh_hubtime_init(struct rh_hubtime *t, uint64_t mono_ns, uint64_t wall_us)
{
    *t = (struct rh_hubtime){
        .base_mono_ns = mono_ns,
        .base_us = wall_us,
        .seen_mono_ns = mono_ns,
        .seen_wall_us = wall_us,
    };
}

static uint64_t elapsed_us(const struct rh_hubtime *t, uint64_t mono_ns)
{
    return mono_ns > t->base_mono_ns ? (mono_ns - t->base_mono_ns) / 1000 : 0;
}

uint64_t rh_hubtime_us(const struct rh_hubtime *t, uint64_t mono_ns)
{
    uint64_t elapsed = elapsed_us(t, mono_ns);
    uint64_t most = elapsed / SLEW_DIVISOR;

    if (t->ahead_us >= 0)
        return t->base_us + elapsed + RH_MIN((uint64_t)t->ahead_us, most);
    return t->base_us + elapsed - RH_MIN(-(uint64_t)t->ahead_us, most);
}

int64_t rh_hubtime_adjust(struct rh_hubtime *t, uint64_t mono_ns, uint64_t wall_us)
{
    uint64_t hub_us = rh_hubtime_us(t, mono_ns);
    int64_t jump_us =
        (int64_t)(wall_us - t->seen_wall_us) - (int64_t)(mono_ns - t->seen_mono_ns) / 1000;

    t->base_mono_ns += elapsed_us(t, mono_ns) * 1000; /* the rest of a us is kept for the next */
    t->base_us = hub_us;
    t->ahead_us = (int64_t)(wall_us - hub_us);
    t->seen_mono_ns = mono_ns;
    t->seen_wall_us = wall_us;
    return jump_us > JUMP_US || jump_us < -JUMP_US ? jump_us : 0;
}
