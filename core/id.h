/* core/id.h - message ids: 128 bits that sort by time, as 32 hex digits.
 *
 *     48 bits  ms since 1970 (hub time)        80 bits  random, rising within a ms
 *
 * Ids of one generator strictly increase, also as text, whatever the clock does. Ids of different
 * generators (one per shard, one per run) differ because the 80 bits are drawn anew for each ms.
 * They name things and are no secret: who knows one can narrow down its neighbours.
 *
 * Threads    a generator belongs to one thread (and so does its prng); the rest: any.
 */
#ifndef RH_ID_H
#define RH_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/prng.h"

#define RH_ID_TEXT      32 /* lower-case hex digits of an id that we made; no terminating zero */
#define RH_ID_GIVEN_MAX 64 /* bytes of an id that a client gave */

struct rh_idgen {
    struct rh_prng *prng;
    uint64_t hi; /* the last id: ms << 16 | 16 bits */
    uint64_t lo;
};

/* `prng` stays the caller's and must outlive the generator. */
void rh_idgen_init(struct rh_idgen *g, struct rh_prng *prng);

/* Writes the next id. now_ms: below 2^48 (the year 10889). When it does not grow, or goes back, the
 * last ms is used again. About 10 ns. */
void rh_id_make(struct rh_idgen *g, uint64_t now_ms, char dst[RH_ID_TEXT]);

/* Writes 2 * len lower-case hex digits, no zero. */
void rh_hex(char *dst, const void *bytes, size_t len);

/* Whether a client may give this id: 1 to 64 of A-Z a-z 0-9 . _ : -  */
bool rh_id_given_ok(const char *at, size_t len);

#endif
