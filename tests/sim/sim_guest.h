/* tests/sim/sim_guest.h - connections that are no user's: echoes, and HTTP one request behind another.
 *
 * A guest knows from the start all that it will say and hear. It is done when it has heard all of
 * it, in order; then it goes.
 */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

#include "tests/sim/sim.h"

struct sim_guest;

struct sim_guest *sim_guest_start(unsigned id, uint64_t connect_ns, size_t size_max);
bool sim_guest_done(const struct sim_guest *g);
/* It was cut off before it was done. */
bool sim_guest_dropped(const struct sim_guest *g);
void sim_guest_end(struct sim_guest *g);

#endif
