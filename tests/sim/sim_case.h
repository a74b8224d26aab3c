/* tests/sim/sim_case.h - what the cases share: a world begins and ends, a value is drawn of some. */
#ifndef SIM_CASE_H
#define SIM_CASE_H

#include "core/config.h"
#include "tests/sim/sim.h"

/* A fresh world, and the configuration that cases begin with. */
struct rh_config *sim_case_begin(const char *name, uint64_t seed, bool loud);
/* Stops the hub; nothing of it is left, not even a byte. `empty`: see sim_hub_stop. */
void sim_case_finish(struct rh_config *take_cfg, bool empty);

uint64_t sim_one_of(const uint32_t *values, size_t count);

#define SIM_ONE_OF(...)                                                                            \
    sim_one_of((const uint32_t[]){__VA_ARGS__}, RH_COUNT(((const uint32_t[]){__VA_ARGS__})))

/* Which descriptors the shards have, and what goes wrong with them; after bad_allocs
 * was drawn. `tiny`: the table may have less room than there are clients. */
void sim_draw_descriptors(bool tiny);

/* sim_crowd.c: sessions, rooms, broadcasts, slow consumers. */
void sim_crowd(uint64_t seed, bool loud);
/* sim_owed.c: acknowledged and offline messages. */
void sim_owed(uint64_t seed, bool loud);

#endif
