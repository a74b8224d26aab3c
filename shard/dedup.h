/* shard/dedup.h - ids that senders gave, and what became of the requests that carried them.
 *
 * A table by keyed 128-bit hash of (event, sender, target, id). An entry is pending from the request to
 * its outcome, and then kept until its time is over or the table is full:
 *
 *   rh_dedup_add --> [pending] --rh_dedup_keep--> [kept] --time, bound, oldest first--> gone
 *                        `--rh_dedup_drop: it was an error--> gone
 *
 * Threads    the owner only.
 * Ownership  an entry is the table's; its pointer is good while it is pending.
 * Errors     init, add and remember find no memory.
 * Bounds     48 bytes an entry, and rh_map's 8 to 32. No operation takes long: the table grows by a
 *            bucket at a time, and what is over goes in budgets.
 */
#ifndef RH_DEDUP_H
#define RH_DEDUP_H

#include "core/base.h"
#include "core/hash.h"
#include "core/map.h"

struct rh_promise;

/* Which requests have ids that are remembered. */
enum rh_id_event { RH_ID_SEND, RH_ID_PUBLISH, RH_ID_BROADCAST };

struct rh_id_key {
    uint64_t h[2];
};

/* What is kept of an outcome. */
struct rh_id_outcome {
    uint64_t seq : 53; /* room.publish */
    uint64_t stored : 1;
    uint64_t partial : 1;
    uint32_t recipients;
};

struct rh_id {
    struct rh_map_node node; /* by the first half of the key */
    uint64_t second;         /* half of the key */
    struct rh_id *newer;     /* kept: the next one */
    union {
        struct rh_promise *promise; /* pending: who is asking */
        struct {                    /* kept */
            uint64_t seq : 53;
            uint64_t stored : 1;
            uint64_t partial : 1;
            uint64_t forgotten : 1; /* over, and only waits to be freed */
        };
    };
    uint32_t recipients;
    uint32_t until; /* in steps since the table began; 0: pending */
};

_Static_assert(sizeof(struct rh_id) == 48, "an id is 48 bytes");

struct rh_dedup {
    struct rh_hash_key keys[2];
    struct rh_map ids;
    struct rh_id *oldest, *newest; /* kept, in the order in which they came to be */
    uint64_t began_ms;
};

int rh_dedup_init(struct rh_dedup *d, uint64_t now_ms); /* RH_ENOMEM */
/* Pending ones have been dropped. Accepts zeroed memory. */
void rh_dedup_fini(struct rh_dedup *d);

/* Names have at most 128 bytes, ids 64. */
struct rh_id_key rh_dedup_key(const struct rh_dedup *d, enum rh_id_event event, struct rh_span from,
                              struct rh_span target, struct rh_span id);

/* NULL: it is not known, or not any more. */
struct rh_id *rh_dedup_find(struct rh_dedup *d, const struct rh_id_key *key, uint64_t now_ms);
/* A pending one, which was not there. NULL: no memory. */
struct rh_id *rh_dedup_add(struct rh_dedup *d, const struct rh_id_key *key,
                           struct rh_promise *promise);
/* What was pending has its outcome: kept until then, at least, and 64 ms more at most. */
void rh_dedup_keep(struct rh_dedup *d, struct rh_id *id, const struct rh_id_outcome *outcome,
                   uint64_t until_ms);
/* What was pending failed: forgotten. */
void rh_dedup_drop(struct rh_dedup *d, struct rh_id *id);

/* Frees those whose time is over, or in a table of more than `max` ids the oldest that are kept; looks
 * at no more than `budget`. Returns how many of them went before their time. */
uint32_t rh_dedup_trim(struct rh_dedup *d, uint64_t now_ms, size_t max, uint32_t budget);

/* How many are known, pending ones included. */
size_t rh_dedup_count(const struct rh_dedup *d);

static inline bool rh_id_is_pending(const struct rh_id *id)
{
    return id->until == 0;
}

#endif
