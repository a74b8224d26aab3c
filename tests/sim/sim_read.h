/* tests/sim/sim_read.h - reading JSON that the hub wrote, for clients that check it.
 *
 * What is not there, or is of another kind, is a value without a kind, 0 or an empty text.
 */
#ifndef SIM_READ_H
#define SIM_READ_H

#include "proto/json.h"

struct rh_json sim_whole(const char *at, size_t len); /* of a text that was checked */
struct rh_json sim_get(struct rh_json object, const char *key);
bool sim_has(struct rh_json object, const char *key);
uint64_t sim_get_u64(struct rh_json object, const char *key);
bool sim_get_true(struct rh_json object, const char *key);
/* As a text with a zero behind it; returns dst. */
const char *sim_get_text(struct rh_json object, const char *key, char *dst, size_t room);
/* The bytes between the quotes, as they stand there. */
struct rh_span sim_get_raw(struct rh_json object, const char *key);

#endif
