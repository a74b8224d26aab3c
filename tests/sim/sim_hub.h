/* tests/sim/sim_hub.h - a hub's shards, driven on one thread in an order drawn from the seed.
 *
 * Who runs next is drawn among those that have something to do; when nobody has, the clock moves to
 * the next thing that happens. A pass takes some microseconds. Between passes it is checked that no
 * buffer is kept, that nobody sleeps over an event, and that nobody spins.
 */
#ifndef SIM_HUB_H
#define SIM_HUB_H

#include "core/config.h"
#include "tests/sim/sim.h"

/* Starts shards on fresh listeners, with a copy of `cfg`. */
void sim_hub_start(const struct rh_config *cfg);
unsigned sim_hub_shard_of(const char *name);

void sim_hub_run(uint64_t until_ns);

/* Nobody is connected, and no session waits for its client: nothing may be left of anybody, in no
 * shard. `rooms`: empty ones have ended, too. */
void sim_hub_check_empty(bool rooms);

/* Gives all shards the values of `want` for what can change while a hub runs. */
void sim_hub_reload(const struct rh_config *want);

/* It dies in the middle of whatever it does; `power`: with the machine. Its disk is left, for the
 * next start. */
void sim_hub_crash(bool power);

/* Says DRAIN to all. */
void sim_hub_drain(void);
bool sim_hub_draining(void);
/* Waits for the shards' reports, says STOP, waits for their ends; then nothing at all may be left.
 * `empty`: nobody comes any more, so the shards are empty when they say that they are. */
void sim_hub_stop(bool empty);

#endif
