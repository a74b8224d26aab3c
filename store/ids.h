/* store/ids.h - ids that senders gave and what became of them: a compact queue, oldest first.
 *
 * A row is 24 bytes and its names, one behind the other in chunks; it is never looked up here (shards
 * do that), only kept until its time, copied forward, or told to a shard at start.
 *
 * Threads    the record thread's.
 * Memory     chunks of RH_IDS_CHUNK; one that is read to its end is freed.
 */
#ifndef RH_IDS_H
#define RH_IDS_H

#include "core/base.h"
#include "store/journal.h"

#define RH_IDS_CHUNK (16u << 10)

struct rh_ids_chunk;

/* Zeroed memory is an empty one. */
struct rh_ids {
    struct rh_ids_chunk *first, *last;
    uint64_t count;
    uint64_t bytes; /* of all rows; about what they take in the journal, too */
};

/* Adds what an OWED or an ID says of its id. RH_ENOMEM. */
int rh_ids_push(struct rh_ids *ids, const struct rh_jot *jot);
/* The oldest, as an ID; spans are valid until it is popped. False: there is none. */
bool rh_ids_first(const struct rh_ids *ids, struct rh_jot *ret_jot);
void rh_ids_pop(struct rh_ids *ids); /* there is one */
void rh_ids_fini(struct rh_ids *ids);

/* A walk from the oldest on, while none is popped; {0} begins it. False: that was the last. */
struct rh_ids_at {
    const struct rh_ids_chunk *chunk;
    uint32_t offset;
};
bool rh_ids_next(const struct rh_ids *ids, struct rh_ids_at *at, struct rh_jot *ret_jot);

#endif
