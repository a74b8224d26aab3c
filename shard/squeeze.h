/* shard/squeeze.h - permessage-deflate (RFC 7692) in a shard: what compresses, and the frames that come of it.
 *
 * A receiver whose messages need no earlier ones to be inflated can be sent a frame that others are
 * sent, too. So a message is compressed once per shard and window, when the first queue sends it, and
 * the frame stays with the shard's handle (core/msg.h). Where a context is kept, nothing can be
 * shared: what a connection sends is compressed as it leaves (shard/squeeze_conn.c).
 *
 *                        shared deflaters (one a window)         contexts (one a connection)
 *   messages             once, at the first send; kept as a form when they leave
 *   answers, echoes      when they are queued                    when they leave
 *   control frames       never                                   never
 *   what comes in        the shared inflater                     its own inflater
 *
 * Fairness   A kilobyte may inflate to a megabyte, and one of nothing but tables to nothing in 70 us: so
 *            what clients send is worked on in turns: where a pass has done RH_SQUEEZE_PASS of it, who
 *            may send more is not read before the next, and a long message goes on then. So is what
 *            leaves with contexts: after RH_SQUEEZE_PACK bytes a pass the other queues wait.
 * Threads    the shard's.
 * Memory     deflaters and inflaters are made when they are first needed. Without memory things go
 *            as they are; what came compressed and cannot be inflated closes with 1013.
 */
#ifndef RH_SQUEEZE_H
#define RH_SQUEEZE_H

#include <sys/uio.h>

#include "core/config.h"
#include "core/map.h"
#include "core/msg.h"
#include "core/stat.h"
#include "proto/deflate.h"

/* One pass does so much work on what clients send, and one step more: bytes that come out count once,
 * those that go in RH_SQUEEZE_IN times. A step is so many bytes of a message. */
#define RH_SQUEEZE_PASS (2u << 20)
#define RH_SQUEEZE_IN   16u
#define RH_SQUEEZE_SOME (32u << 10)
/* One pass packs so many bytes with contexts, and one send more. */
#define RH_SQUEEZE_PACK (1u << 20)

/* A shard's. Begins zeroed. */
struct rh_squeeze {
    uint64_t work;   /* on what clients send, and on own frames, in this pass */
    uint64_t packed; /* bytes of what was packed with contexts, in this pass */
    struct rh_stats *stats;
    uint64_t min_size; /* of a payload that is worth it */
    uint8_t mem_level, level;
    struct rh_deflater *out[RH_DEFLATE_BITS_MAX + 1]; /* by window; NULL: not needed so far */
    struct rh_inflater *in;                           /* of those who keep no context; or NULL */
    struct rh_deflate_out buffer;                     /* what comes of either */
    struct rh_map contexts; /* of those who do, and of long messages, by slot */
    uint64_t held;          /* bytes that out, in and buffer hold */
};

/* What compression has done to messages that were put under way: their number, and their payloads'
 * bytes before and after. */
struct rh_squeezed {
    uint64_t messages, plain, wire;
};

/* RH_ENOMEM. `stats` gets the counts. */
int rh_squeeze_init(struct rh_squeeze *sq, struct rh_stats *stats, const struct rh_config *cfg);
/* A new configuration: what is compressed from now on follows it. */
void rh_squeeze_config(struct rh_squeeze *sq, const struct rh_config *cfg);
void rh_squeeze_fini(
    struct rh_squeeze *sq); /* accepts zeroed memory; no connection has a context */

/* The frame of a message for a receiver with this window (9 to 15); its own one where it is small,
 * gets no smaller, or memory is missing. Adds what it did to *squeezed. Lives as long as the handle. */
struct iovec rh_squeeze_frame(struct rh_squeeze *sq, struct rh_handle *h, unsigned bits,
                              struct rh_squeezed *squeezed);
void rh_squeeze_count(struct rh_squeeze *sq, const struct rh_squeezed *squeezed);

/* ---- of single frames, for squeeze_conn.c; they are whole, and not masked ---- */

size_t rh_squeeze_len(const uint8_t *frame); /* with its head */
/* Is it a message's, and not a small one? */
bool rh_squeeze_worth(const struct rh_squeeze *sq, const uint8_t *frame);
/* The shared deflater of a window. NULL: no memory. */
struct rh_deflater *rh_squeeze_deflater(struct rh_squeeze *sq, unsigned bits);
/* Compresses a frame into dst, which has room for it as it is, and may be where it lies. Returns the
 * bytes there, or 0: it gets no smaller, or memory is missing; nothing was written. */
size_t rh_squeeze_deflate(struct rh_squeeze *sq, struct rh_deflater *d, const uint8_t *frame,
                          uint8_t *dst, struct rh_squeezed *squeezed);
/* At the end of each use: a large message's buffer goes, and the gauge is right again. */
void rh_squeeze_trim(struct rh_squeeze *sq);
/* *held becomes `now`, and the gauge follows. */
void rh_squeeze_hold(struct rh_squeeze *sq, uint64_t *held, uint64_t now);

#endif
