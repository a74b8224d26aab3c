/* tests/sim/sim_bell.h - bells that nobody waits on: core/bell.h notes until when its thread wants to
 * sleep, and the scheduler (sim_hub) asks. A thread has one bell, which is found by its tid.
 */
#ifndef SIM_BELL_H
#define SIM_BELL_H

#include "core/bell.h"
#include "tests/sim/sim.h"

/* When that thread has something to do: now if it does not sleep, or is rung for. */
uint64_t sim_bell_due(unsigned tid);
void sim_bell_wake_up(unsigned tid); /* the sleep is over */
bool sim_bell_asleep(unsigned tid);  /* and nobody rings */

void sim_bells_drop(void); /* nobody has one any more */

#endif
