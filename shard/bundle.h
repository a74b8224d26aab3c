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
 * Windows    Receivers whose messages are deflated (shard/squeeze.h) have bundles of their own, of the
 *            frames that they are sent: one newest for them, and one for those who get them plain.
 * Limits     RH_BUNDLE_MIN to RH_BUNDLE_MAX messages, RH_BUNDLE_BYTES.
 */
#ifndef RH_BUNDLE_H
#define RH_BUNDLE_H

#include "core/msg.h"
#include "shard/squeeze.h"

#define RH_BUNDLE_MIN   3
#define RH_BUNDLE_MAX   64
#define RH_BUNDLE_BYTES (64u << 10)

struct rh_bundle {
    uint32_t uses;
    uint16_t count;
    uint16_t bits; /* the window of its receivers; 0: plain frames */
    size_t len;
    struct rh_squeezed squeezed; /* what compression does to it */
    struct rh_handle *of[RH_BUNDLE_MAX];
    uint8_t bytes[];
};

/* A shard's newest bundles: plain, and deflated. Begins zeroed. */
struct rh_bundles {
    struct rh_bundle *newest[2]; /* or NULL */
    const struct rh_handle
        *seen[2]; /* first message of the last sequence without a bundle; never read */
};

/* The bundle of these messages (RH_BUNDLE_MIN to RH_BUNDLE_MAX) for receivers with this window (0:
 * plain), with one use for the caller. NULL: none yet, or no memory: send them piece by piece. */
struct rh_bundle *rh_bundle_take(struct rh_bundles *b, struct rh_handles *stock,
                                 struct rh_squeeze *sq, struct rh_handle *const of[],
                                 uint32_t count, unsigned bits);
void rh_bundle_give(struct rh_handles *stock, struct rh_bundle *bundle); /* accepts NULL */
/* Lets go of the newest ones: at the end of a pass, so that no message lives longer for it. */
void rh_bundles_forget(struct rh_bundles *b, struct rh_handles *stock);

static inline bool rh_bundles_any(const struct rh_bundles *b)
{
    return b->newest[0] || b->newest[1];
}

#endif
