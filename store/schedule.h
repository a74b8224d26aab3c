/* store/schedule.h - when is what was not acknowledged repeated? A pure function, for the ack thread.
 *
 * The k-th repetition comes base x factor^(k-1) after the delivery before it, at most max. So that
 * what was sent at one time is not repeated at one time, a wait is drawn from 10 % below that to 10 %
 * above; never above max.
 *
 * Units      ms.
 * Bounds     any k, also one whose power is no number any more.
 */
#ifndef RH_SCHEDULE_H
#define RH_SCHEDULE_H

#include <stdint.h>

struct rh_schedule {
    uint64_t base_ms;
    double factor; /* 1.0 or more */
    uint64_t max_ms;
};

/* The wait before repetition k (1 is the first), without jitter. */
uint64_t rh_schedule_ms(const struct rh_schedule *s, uint64_t k);

/* With jitter, out of 64 random bits. */
uint64_t rh_schedule_draw_ms(const struct rh_schedule *s, uint64_t k, uint64_t random);

#endif
