/* shard/bundle.h - messages that many connections send in the same sequence, as one run of bytes.
 *
 * A batch of a room's messages (shard/fanout.c) leaves each subscriber's queue in one send. As many
 * pieces as messages cost the kernel about 0.2 us a piece; one piece costs it nothing besides the
 * bytes (bench/run_fanout.py). So the second connection in a row that is about to send a sequence
 * makes a bundle of it, which the following ones use as it is. What stands in the queues does not
 * change: a bundle is only what flies.
 *
 * Threads    the shard's.
 * Ownership  a bundle counts its flights, and one use for being the newest; it holds the handles, so
 *            that their addresses say what it contains.
 * Limits     RH_BUNDLE_MIN to RH_BUNDLE_MAX messages, RH_BUNDLE_BYTES.
 */
#ifndef RH_BUNDLE_H
#define RH_BUNDLE_H

#include "core/msg.h"

#define RH_BUNDLE_MIN   3
#define RH_BUNDLE_MAX   64
#define RH_BUNDLE_BYTES (64u << 10)

struct rh_bundle {
    uint32_t uses;
    uint32_t count;
    size_t len;
    struct rh_handle *of[RH_BUNDLE_MAX];
    uint8_t bytes[];
};

/* A shard's newest bundle. Begins zeroed. */
struct rh_bundles {
    struct rh_bundle *newest; /* or NULL */
    const struct rh_handle
        *seen; /* first message of the last sequence without a bundle; never read */
};

/* The bundle of these messages (RH_BUNDLE_MIN to RH_BUNDLE_MAX, `len` bytes in all), with one use
 * for the caller. NULL: none yet, or no memory: send them piece by piece. */
struct rh_bundle *rh_bundle_take(struct rh_bundles *b, struct rh_handles *stock,
                                 struct rh_handle *const of[], uint32_t count, size_t len);
void rh_bundle_give(struct rh_handles *stock, struct rh_bundle *bundle); /* accepts NULL */
/* Lets go of the newest one: at the end of a pass, so that no message lives longer for it. */
void rh_bundles_forget(struct rh_bundles *b, struct rh_handles *stock);

#endif
