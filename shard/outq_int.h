/* shard/outq_int.h - lanes and their entries, as outq.c (queueing, dropping) and outq_send.c share them.
 */
#ifndef RH_OUTQ_INT_H
#define RH_OUTQ_INT_H

#include "shard/outq.h"

/* A loss and the frame that tells it: the loss is still of interest if the frame does not arrive. */
struct rh_told {
    struct rh_lost *lost;
    uint8_t bytes[];
};

static inline struct rh_out_entry *rh_lane_entry(const struct rh_lane *lane, uint32_t i)
{
    return &lane->at[(lane->head + i) & (lane->room - 1)];
}

static inline bool rh_out_is_owed(const struct rh_out_entry *entry)
{
    return entry->kind == RH_OUT_OWED || entry->kind == RH_OUT_OWED_HIGH;
}

static inline bool rh_out_is_msg(const struct rh_out_entry *entry)
{
    return entry->kind == RH_OUT_MSG || entry->kind == RH_OUT_MSG_HIGH ||
           entry->kind == RH_OUT_MISSED || rh_out_is_owed(entry);
}

/* Nothing of it is sent. */
static inline bool rh_out_is_silent(const struct rh_out_entry *entry)
{
    return entry->kind == RH_OUT_HOLE || entry->kind == RH_OUT_NOTE;
}

static inline const struct rh_msg *rh_out_msg(const struct rh_out_entry *entry)
{
    return ((const struct rh_handle *)entry->obj)->msg;
}

/* Frames that count in the bounds. */
static inline uint32_t rh_out_frames(const struct rh_out_entry *entry)
{
    if (entry->kind == RH_OUT_BLOCK)
        return entry->frames;
    return entry->kind != RH_OUT_MISSED && !rh_out_is_owed(entry);
}

/* Messages and their bytes come to the queue, or leave it. */
static inline void rh_out_count(struct rh_outq *q, int64_t messages, int64_t bytes)
{
    q->messages += (uint32_t)messages;
    q->bytes += (uint64_t)bytes;
    q->stock->messages += (uint64_t)messages;
    q->stock->bytes += (uint64_t)bytes;
}

/* Lets go of what an entry stands for, and of its count. */
void rh_out_release(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane,
                    const struct rh_out_entry *entry);

#endif
