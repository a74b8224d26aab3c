/* core/hubtime.h - hub time: the wall clock's date with the monotonic clock's manners.
 *
 * Hub time starts at the wall clock and then runs with the monotonic clock. When the two drift
 * apart, or somebody sets the wall clock, it follows by running at most 1 % faster or slower until
 * it is there: it never jumps and never goes back. A wall clock that was set by an hour is thus
 * reached after 100 hours.
 *
 * Pure: it reads no clock, so a test and the simulation feed it what they like.
 *
 * Threads    the owner only. Threads that each have one start it with the same pair of values.
 * Units      monotonic time in ns, wall clock and hub time in us since 1970.
 */
#ifndef RH_HUBTIME_H
#define RH_HUBTIME_H

#include <stdint.h>

struct rh_hubtime {
    uint64_t base_mono_ns; /* the last adjust, in whole us of hub time ... */
    uint64_t base_us;      /* ... and hub time then */
    int64_t ahead_us;      /* wall clock minus hub time then: still to be made up */
    uint64_t seen_mono_ns; /* the pair of the last adjust, to tell a jump */
    uint64_t seen_wall_us;
};

/* Both clocks, read right after each other. */
void rh_hubtime_init(struct rh_hubtime *t, uint64_t mono_ns, uint64_t wall_us);

/* Hub time at mono_ns: does not decrease while mono_ns does not, adjustments included. A mono_ns
 * from before the last adjust gives hub time at that adjust. */
uint64_t rh_hubtime_us(const struct rh_hubtime *t, uint64_t mono_ns);

/* Feed both clocks, about once a second. Returns how far the wall clock jumped against the
 * monotonic one since the last call, in us, when that is over a second either way (the caller logs
 * and counts it), else 0. */
int64_t rh_hubtime_adjust(struct rh_hubtime *t, uint64_t mono_ns, uint64_t wall_us);

#endif
