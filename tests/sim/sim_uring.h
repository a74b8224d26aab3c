/* tests/sim/sim_uring.h - the fake kernel's other side: what the simulation may ask and do.
 *
 * The hub's side is core/uring.h. rh_uring_enter never waits here: it notes until when its thread
 * wants to sleep, and the scheduler (sim_hub) calls sim_uring_wake_up when that is over.
 */
#ifndef SIM_URING_H
#define SIM_URING_H

#include "core/uring.h"
#include "tests/sim/sim_net.h"

void sim_kernel_begin(void);

/* A descriptor that listens; connections go to one of those that are open, whichever. */
int sim_listen(void);
/* The server's end arrives at a listener. False: nobody listens. */
bool sim_knock(struct sim_end *server);

/* When this ring's thread has something to do; SIM_NEVER when it sleeps and nothing is known. */
uint64_t sim_uring_due(const struct rh_uring *u);
void sim_uring_wake_up(struct rh_uring *u); /* the sleep is over: completions are posted */
bool sim_uring_asleep(const struct rh_uring *u);
bool sim_uring_woken(const struct rh_uring *u); /* a wake-up is on its way */

/* ---- what must be nothing at the end ---- */

unsigned sim_uring_lent(const struct rh_uring *u);   /* provided buffers in the hub's hands */
unsigned sim_uring_flying(const struct rh_uring *u); /* operations without a last completion */
unsigned sim_fds_open(void);
unsigned sim_files_open(void); /* also held open by operations */

#endif
