/* core/clock.h - what time the system says it is; part of the seam.
 *
 * tests/sim links another implementation in place of clock.c, which it moves by hand. So nothing
 * else may stand in that file, and nothing else in the hub reads a clock.
 *
 * Timers and schedules use the monotonic clock. Times that are stored or shown are hub time, made
 * out of both clocks by core/hubtime.h; hardly anyone needs the wall clock itself.
 *
 * Threads    any; about 25 ns, no system call. A pass reads it once and hands the value on.
 */
#ifndef RH_CLOCK_H
#define RH_CLOCK_H

#include <stdint.h>

/* Nanoseconds since some point in the past (CLOCK_MONOTONIC): never goes back, stands still while
 * the machine sleeps. */
uint64_t rh_clock_mono_ns(void);

/* Waits, at most a second; for a thread that has nothing to serve yet. */
void rh_clock_nap_ms(unsigned ms);

/* Microseconds since 1970 (CLOCK_REALTIME): may be set, so it may jump either way. */
uint64_t rh_clock_wall_us(void);

#endif
