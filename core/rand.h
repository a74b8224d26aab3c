/* core/rand.h - random bytes from the system; part of the seam.
 *
 * tests/sim links another implementation in place of rand.c, drawn from the run's seed. So nothing
 * else may stand in that file, and nothing else in the hub asks the system for randomness. For
 * many small draws: core/prng.h.
 *
 * Threads    any.
 * Errors     none: the process aborts with a sentence if the kernel refuses. Keys that are not
 *            random would be worse than no hub.
 */
#ifndef RH_RAND_H
#define RH_RAND_H

#include <stddef.h>

/* Fills `dst` with `len` bytes fit for keys. A system call; waits at most once, shortly after the
 * machine's boot, until the kernel has gathered enough. */
void rh_rand_bytes(void *dst, size_t len);

#endif
