/* core/bell.h - how a thread without sockets and files sleeps; part of the seam.
 *
 * A shard sleeps in its uring, the record thread in its files; a thread that only consumes events has
 * a bell: it waits for a time to pass or for somebody to ring.
 *
 * Threads    wait: the owner. ring: anyone. create, destroy: any, while nobody waits or rings.
 * Errors     create: RH_EIO (no descriptor), RH_ENOMEM.
 * Replaced   by another implementation at link time: the simulation's. So nothing else may stand in
 *            bell.c.
 */
#ifndef RH_BELL_H
#define RH_BELL_H

#include <stdint.h>

struct rh_bell;

int rh_bell_create(struct rh_bell **ret_bell);
void rh_bell_destroy(struct rh_bell *bell); /* accepts NULL */

/* Returns when it has been rung since the last wait, or after that many ms at the latest (0: at once;
 * UINT64_MAX: only when it is rung); now and then earlier. */
void rh_bell_wait(struct rh_bell *bell, uint64_t ms);
void rh_bell_ring_any(struct rh_bell *bell); /* ends the wait, or the next one */

#endif
