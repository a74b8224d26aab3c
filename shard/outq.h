/* shard/outq.h - what one connection still has to send: two lanes, one send at a time.
 *
 * An entry is a shared message (through its handle) or a block of the connection's own bytes
 * (answers, control frames, echoes), several of which share a block while it is the last entry and
 * not on its way. One send takes everything that stands there: first the high lane, then the
 * normal one, so that all frames of a pass leave together.
 *
 *        push_msg, own       fill                  done
 *   -> [waiting] ----------------> [flying] -----------------> given back
 *
 * Order      holds within a lane. The high lane has RH_LANE_HIGH_MAX places; once it is full,
 *            later high messages go into the normal lane until that has passed them on.
 * Bounds     the queue counts; the connection decides (shard/conn.c). Own bytes are never refused.
 * Threads    the shard's. An idle connection has no queue at all: it is taken from the shard's
 *            stock at the first push and given back when it is empty.
 */
#ifndef RH_OUTQ_H
#define RH_OUTQ_H

#include <sys/uio.h>

#include "core/msg.h"
#include "shard/block.h"

#define RH_LANE_HIGH_MAX 64
#define RH_OUT_FIRST     8 /* entries of the normal lane that need no allocation of their own */

enum rh_out_kind { RH_OUT_BLOCK, RH_OUT_MSG, RH_OUT_MSG_HIGH /* high, in the normal lane */ };

struct rh_out_entry {
    void *obj; /* struct rh_block or struct rh_handle */
    uint32_t len;
    uint16_t messages; /* frames in it */
    uint8_t kind;
};

struct rh_lane {
    struct rh_out_entry *at; /* a circle of `room` (a power of two) */
    uint32_t room, head, count;
    uint32_t flying; /* the first ones, in the kernel's hands */
};

struct rh_outq {
    struct rh_outq *next_free;
    struct rh_out_stock *stock; /* whose totals this queue is part of */
    struct rh_lane high, normal;
    uint32_t bytes, messages; /* of all entries, flying ones included */
    uint32_t high_in_normal;
    uint32_t flying_bytes;
    struct rh_out_entry first[RH_OUT_FIRST];
};

/* Where queues, blocks and handles come from; one per shard. */
struct rh_out_stock {
    struct rh_outq *free;
    struct rh_blocks blocks;
    struct rh_handles handles;
    uint64_t messages, bytes; /* in all its queues */
};

struct rh_outq *rh_outq_take(struct rh_out_stock *stock); /* NULL: no memory */
/* Releases all that is in it; nothing may be flying. Accepts NULL. */
void rh_outq_give(struct rh_out_stock *stock, struct rh_outq *q);

/* Queues one more use of a message. False: no memory, nothing happened. */
bool rh_outq_push_msg(struct rh_outq *q, struct rh_handle *h);

/* `len` bytes to write own frames to, contiguous; they count from rh_outq_own_done on, as one more
 * frame of `used` (at most len) bytes. NULL: no memory. Nothing else may be called in between. */
uint8_t *rh_outq_own(struct rh_out_stock *stock, struct rh_outq *q, size_t len);
void rh_outq_own_done(struct rh_outq *q, size_t used);

/* Queues a block whole (its bytes from start to used), as one frame; takes it over. False: no
 * memory, the block is still the caller's. */
bool rh_outq_push_block(struct rh_outq *q, struct rh_block *take_block);

/* Moves everything that waits (at most `max` entries) to flying and describes it; 0: nothing
 * waits. Nothing may be flying. */
unsigned rh_outq_fill(struct rh_outq *q, struct iovec *iov, unsigned max);

/* The send is over: lets go of what flew. Calls sent(arg, msg) for each message in it. */
void rh_outq_done(struct rh_out_stock *stock, struct rh_outq *q,
                  void (*sent)(void *arg, const struct rh_msg *msg), void *arg);

/* Lets go of what waits and is a message (own frames stay); returns how many frames that were. */
unsigned rh_outq_drop_messages(struct rh_out_stock *stock, struct rh_outq *q);

static inline bool rh_outq_flying(const struct rh_outq *q)
{
    return q && q->flying_bytes != 0;
}

void rh_out_stock_fini(struct rh_out_stock *stock);

#endif
