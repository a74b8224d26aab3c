/* tests/fuzz/fz_hub.h - one or two shards, driven as the program says.
 *
 * Between passes it is checked that no buffer is kept, that nobody sleeps over an event, that
 * nobody spins, and that what a connection believes to be under way is (check_conn). fz_hub_stop
 * checks that nothing is left: no connection, user, timer, descriptor.
 */
#ifndef FZ_HUB_H
#define FZ_HUB_H

#include "core/config.h"
#include "tests/fuzz/fz.h"

/* `files`: slots of each shard's table; 0: ordinary descriptors. */
void fz_hub_start(const struct rh_config *cfg, unsigned files);
const struct rh_config *fz_hub_config(void); /* of now */
struct rh_uring *fz_hub_ring(unsigned shard);
unsigned fz_hub_shards(void);

void fz_hub_pass(unsigned shard); /* harmless when it has stopped */
void fz_hub_run(void);            /* passes until nobody has anything to do */
/* The clock moves, and everybody has a pass. */
void fz_hub_wait(unsigned ms);

void fz_hub_reload(const struct rh_config *want);
void fz_hub_drain(void); /* the next DRAIN */
bool fz_hub_draining(void);
/* Waits until all is quiet, or (`cut`, where no event is under way) does not, and ends
 * everything. */
void fz_hub_stop(bool cut);

#endif
