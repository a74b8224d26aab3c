/* core/prng.h - xoshiro256**: fast random numbers for a thread's daily needs (ids, jitter).
 *
 * Threads    a generator belongs to one thread; give each thread its own.
 * Bounds     about 1 ns a number, period 2^256 - 1.
 * Not for    keys, tickets or whatever must stay secret: who sees a few numbers can compute the
 *            rest. Those come from rh_rand_bytes().
 */
#ifndef RH_PRNG_H
#define RH_PRNG_H

#include <stdint.h>

struct rh_prng {
    uint64_t s[4]; /* never all zero */
};

/* Seeds from rh_rand_bytes(); in the simulation therefore from the run's seed. */
void rh_prng_init(struct rh_prng *p);

/* All 64 bits are good. For a number below n: (unsigned __int128)rh_prng_next(p) * n >> 64. */
uint64_t rh_prng_next(struct rh_prng *p);

#endif
