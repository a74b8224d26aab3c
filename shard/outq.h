/* shard/outq.h - what one connection still has to send: two lanes, one send at a time.
 *
 * An entry is a shared message (through its handle) or a block of the connection's own bytes
 * (answers, control frames, echoes), several of which share a block while it is the last entry and
 * not on its way. One send takes everything that stands there: first the high lane, then the
 * normal one, so that all frames of a pass leave together.
 *
 *        push, own           fill                  done
 *   -> [waiting] ----------------> [flying] -----------------> given back
 *          | drop_oldest, replace            tell ^
 *          `---------------> [marker] ------------'
 *
 * Order      holds within a lane. The high lane has RH_LANE_HIGH_MAX places; once it is full,
 *            later high messages go into the normal lane until that has passed them on. A room's
 *            messages leave in one order whatever their priority: a high one goes into the normal
 *            lane where something of its room, or a fenced frame, waits there. Notices always do.
 * Losses     What is dropped leaves a marker in its place, which counts as nothing until it is told
 *            (becomes a frame, right before a send). Markers without a message or frame between them
 *            merge, so that each stream (a room, direct messages, broadcasts) has one of them at
 *            most there. Dropped is what is direct, a room's or a broadcast, and only while it
 *            waits: nothing of the connection's own, no notice, nothing missed, nothing that flies.
 * Missed     messages, of which a room's history tells, count in no bound, but in the stock's totals.
 * Owed       ones (shard/owed.h) likewise; they stand among the others in their lane, and are never
 *            dropped. Who owes them sees to it that they are few, asks what became of them before a
 *            send is done or messages are dropped (rh_outq_each_owed), and queues them again.
 * Bounds     the queue counts; the connection decides (shard/slow.c). Own bytes are never refused.
 * Threads    the shard's. An idle connection has no queue at all: it is taken from the shard's
 *            stock at the first push and given back when it is empty.
 */
#ifndef RH_OUTQ_H
#define RH_OUTQ_H

#include <sys/uio.h>

#include "core/msg.h"
#include "shard/block.h"
#include "shard/bundle.h"
#include "shard/squeeze.h"

#define RH_LANE_HIGH_MAX 64
#define RH_OUT_FIRST     8    /* entries of the normal lane that need no allocation of their own */
#define RH_LOST_FRAME    1200 /* bytes of a frame that tells a loss, at most */

struct rh_lost; /* shard/shard_int.h */

enum rh_out_kind {
    RH_OUT_BLOCK,
    RH_OUT_MSG,
    RH_OUT_MSG_HIGH, /* high, in the normal lane because the other one was full */
    RH_OUT_MISSED,
    RH_OUT_OWED,
    RH_OUT_OWED_HIGH, /* as MSG_HIGH */
    RH_OUT_LOST,      /* a marker */
    RH_OUT_TOLD,      /* a marker's frame */
    RH_OUT_NOTE,      /* a loss of which the block behind it tells; nothing in itself */
    RH_OUT_HOLE, /* nothing: its marker has merged with one behind it. Never the last of a lane */
};

struct rh_out_entry {
    void *obj; /* struct rh_block, rh_handle, rh_lost, rh_told; HOLE: NULL */
    uint32_t len;
    union {
        uint16_t frames; /* BLOCK: frames in it */
        uint16_t tag;    /* of a message: few bits of its room and its key, to find it by */
    };
    uint8_t kind;
    bool fence; /* BLOCK: no room's message may overtake it */
};

struct rh_lane {
    struct rh_out_entry *at; /* a circle of `room` (a power of two) */
    uint32_t room, head, count;
    uint32_t flying; /* the first ones, in the kernel's hands */
    uint32_t seek;   /* from there on something may be dropped */
    uint32_t holes;
};

struct rh_outq {
    struct rh_outq *next_free;
    struct rh_out_stock *stock; /* whose totals this queue is part of */
    struct rh_bundle *bundle;   /* that flies in place of the entries; or NULL */
    struct rh_lane normal, high;
    uint64_t bytes;    /* of all frames that count, flying ones included ... */
    uint32_t messages; /* ... and their number */
    uint32_t flying_messages;
    uint64_t flying_bytes; /* missed ones, too */
    uint32_t high_in_normal;
    uint32_t fences; /* that wait */
    uint32_t missed; /* messages, flying ones included; and so of owed ones: */
    uint32_t owed;
    uint32_t lost; /* markers that are not told yet */
    uint8_t bits;  /* its messages are sent deflated for that window; 0: as they are */
    /* Does the peer take what flies? Kept by shard/heartbeat.c. */
    uint64_t acked;    /* bytes that its kernel had acknowledged at the last look; 0: none yet */
    uint64_t look_ms;  /* when that was, or the first send began */
    uint64_t acked_ms; /* the send under way began, or the peer last took some of it */
    struct rh_out_entry first[RH_OUT_FIRST];
};

/* Where queues, blocks and handles come from; one per shard. */
struct rh_out_stock {
    struct rh_outq *free;
    uint32_t kept, spare; /* free ones, and the least of them since the last trim */
    struct rh_blocks blocks;
    struct rh_handles handles;
    struct rh_bundles bundles;
    struct rh_squeeze squeeze;
    uint64_t messages, bytes; /* in all its queues */
};

struct rh_outq *rh_outq_take(struct rh_out_stock *stock); /* NULL: no memory */
/* Releases all that is in it; nothing may be flying. Accepts NULL. */
void rh_outq_give(struct rh_out_stock *stock, struct rh_outq *q);

/* Once a second: frees half of the queues and blocks that nobody needed since the last call, so that
 * what a burst took is given back within some seconds. Returns how many bytes that were. */
size_t rh_out_stock_trim(struct rh_out_stock *stock);

/* ---- queueing ---- */

/* Queues one more use of a message. False: no memory, nothing happened. */
bool rh_outq_push_msg(struct rh_outq *q, struct rh_handle *h);

/* The same for one that a subscription missed: normal lane, uncounted. */
bool rh_outq_push_missed(struct rh_outq *q, struct rh_handle *h);

/* The same for one that is owed: in its lane, uncounted. */
bool rh_outq_push_owed(struct rh_outq *q, struct rh_handle *h);

/* `len` bytes to write own frames to, contiguous; they count from rh_outq_own_done on, as one more
 * frame of `used` (at most len) bytes. NULL: no memory. Nothing else may be called in between. */
uint8_t *rh_outq_own(struct rh_out_stock *stock, struct rh_outq *q, size_t len);
void rh_outq_own_done(struct rh_outq *q, size_t used);
uint8_t *rh_outq_own_at(const struct rh_outq *q); /* those bytes again, before own_done */

/* The own frame that was queued last stays in front of the room messages that follow. */
void rh_outq_fence(struct rh_outq *q);

/* The own frame that has to be queued next tells this loss, which is of interest until it has been
 * sent. `lost` is copied, its name is not needed. False: no memory. */
bool rh_outq_note(struct rh_outq *q, const struct rh_lost *lost);

/* Queues a block whole (its bytes from start to used), as one frame; takes it over. False: no
 * memory, the block is still the caller's. */
bool rh_outq_push_block(struct rh_outq *q, struct rh_block *take_block);

/* ---- dropping: RH_ENOMEM is for want of a marker, and nothing was dropped by that step ---- */

/* The oldest message that waits and may be dropped, of the normal lane while there is one there,
 * else of the high lane. RH_ENOTFOUND: there is none. */
int rh_outq_drop_oldest(struct rh_out_stock *stock, struct rh_outq *q);
/* All messages that wait with the room and the key of this one; returns how many that were. */
int rh_outq_replace(struct rh_out_stock *stock, struct rh_outq *q, const struct rh_msg *by);
/* A marker instead of this message, where that would have gone. */
int rh_outq_lose(struct rh_outq *q, const struct rh_msg *msg);
/* A marker behind everything in the normal lane. `lost` is copied. */
int rh_outq_push_lost(struct rh_outq *q, const struct rh_lost *lost);

/* Lets go of what waits and is no frame of its own, markers included; returns how many messages
 * were lost by that (notices, missed and owed ones are none). */
unsigned rh_outq_drop_messages(struct rh_out_stock *stock, struct rh_outq *q);

/* ---- sending ---- */

/* Writes the frame that tells a loss, at most RH_LOST_FRAME bytes; returns its length. */
typedef size_t rh_lost_encode(void *arg, const struct rh_lost *lost, uint8_t *dst);

/* Makes frames of the markers that the next fill of `max` would meet: needed where q->lost is not
 * 0. False: no memory, some are not told yet. */
bool rh_outq_tell(struct rh_outq *q, unsigned max, rh_lost_encode *encode, void *arg);

/* Moves everything that waits (at most `max` entries) to flying and describes it; 0: nothing
 * waits. Nothing may be flying. */
unsigned rh_outq_fill(struct rh_outq *q, struct iovec *iov, unsigned max);

/* What was described is sent as `bytes` bytes (at least one), which its caller has packed it into. */
static inline void rh_outq_packed(struct rh_outq *q, uint64_t bytes)
{
    q->flying_bytes = bytes;
}

/* The send is over: lets go of what flew. Calls sent(arg, msg) for each message in it that is neither
 * missed nor owed; returns how many missed ones there were besides. */
unsigned rh_outq_done(struct rh_out_stock *stock, struct rh_outq *q,
                      void (*sent)(void *arg, const struct rh_msg *msg), void *arg);

/* ---- questions ---- */

/* Everything that waits, and before it, if `flying`, what flies, in the order in which it leaves; told
 * losses while they fly, and noted ones. */
void rh_outq_each(const struct rh_outq *q, bool flying,
                  void (*visit_msg)(void *arg, const struct rh_msg *msg),
                  void (*visit_lost)(void *arg, const struct rh_lost *lost), void *arg);

/* The owed ones among what flies, or among what waits. */
void rh_outq_each_owed(const struct rh_outq *q, bool flying,
                       void (*visit)(void *arg, const struct rh_msg *msg), void *arg);

static inline bool rh_outq_flying(const struct rh_outq *q)
{
    return q && q->flying_bytes != 0;
}

static inline bool rh_outq_empty(const struct rh_outq *q)
{
    return (q->normal.count | q->high.count) == 0;
}

/* Does any frame wait that counts? */
static inline bool rh_outq_waits(const struct rh_outq *q)
{
    return q->messages != q->flying_messages;
}

void rh_out_stock_fini(struct rh_out_stock *stock);

#endif
