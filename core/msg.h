/* core/msg.h - an immutable, counted message, and the handle through which one shard uses it.
 *
 * A message is one block of memory: the WebSocket frame as every receiver gets it, and behind it
 * the name of whom it is for. Whoever makes it fills it, then hands it on; from the moment a second
 * thread can see it nothing in it changes. The exception is written into the type: a direct
 * message's sequence number is given by the receiver's shard, the only holder at that moment, into
 * the sixteen digits that the sender's shard left for it (rh_msg_set_seq).
 *
 * Ownership  `holders` counts threads, not receivers: one for each shard that has it. A shard makes
 *            a handle for its own queues; the last use of the handle drops the shard's hold, and
 *            the last hold frees the message, on whatever thread that is.
 * Threads    msg: hold and drop any; the rest the only holder. handle: its shard.
 * Limits     RH_MSG_BYTES_MAX of frame.
 */
#ifndef RH_MSG_H
#define RH_MSG_H

#include "core/base.h"

#define RH_MSG_HEAD_ROOM  10 /* the longest header of an unmasked frame */
#define RH_MSG_SEQ_DIGITS 16
#define RH_MSG_SEQ_MIN    1000000000000000u /* the least number of sixteen digits */
#define RH_MSG_SEQ_MAX    ((1ull << 53) - 1)

struct rh_msg {
    _Atomic uint32_t
        holders;       /* relaxed up; acquire-release down, so the last one sees all writes */
    uint32_t frame_at; /* offsets into bytes: the frame with its header ... */
    uint32_t frame_len;
    uint32_t seq_at; /* ... the first digit of its seq, 0 when it has none ... */
    uint32_t to_at;  /* ... and the receiver's name */
    uint8_t to_len;
    bool high; /* priority high or above: overtakes what is queued */
    uint64_t to_hash;
    uint64_t accepted_ns; /* monotonic time at which a shard took it in */
    uint8_t bytes[];
};

/* A message with room for `room` bytes behind the header's room; one holder. NULL: no memory. */
struct rh_msg *rh_msg_create(size_t room);
void rh_msg_hold_any(struct rh_msg *msg, uint32_t more);
void rh_msg_drop_any(struct rh_msg *msg); /* accepts NULL */

static inline const uint8_t *rh_msg_frame(const struct rh_msg *msg)
{
    return msg->bytes + msg->frame_at;
}

/* Writes the number into the frame; only while nobody else holds it. */
void rh_msg_set_seq(struct rh_msg *msg, uint64_t seq);

/* One shard's use of a message: a plain count of queue entries. */
struct rh_handle {
    struct rh_msg *msg;
    uint32_t uses;
    struct rh_handle *next_free;
};

/* A shard's stock of handles. */
struct rh_handles {
    struct rh_handle *free;
};

/* Takes over one hold of `take_msg`; one use. NULL: no memory, the hold is still the caller's. */
struct rh_handle *rh_handle_make(struct rh_handles *stock, struct rh_msg *take_msg);
void rh_handle_ref(struct rh_handle *h);
void rh_handle_unref(struct rh_handles *stock, struct rh_handle *h);
void rh_handles_fini(struct rh_handles *stock);

#endif
