/* shard/outq_send.c - send queues: from what waits to one send, and what is left when it is over.
 */
#include <string.h>

#include "core/mem.h"
#include "shard/outq_int.h"
#include "shard/shard_int.h"

static bool tell(struct rh_outq *q, struct rh_out_entry *entry, rh_lost_encode *encode, void *arg)
{
    uint8_t frame[RH_LOST_FRAME];
    size_t len = encode(arg, entry->obj, frame);
    struct rh_told *told = rh_mem_alloc(sizeof(*told) + len);

    rh_assert(len <= sizeof(frame));
    if (!told)
        return false;
    told->lost = entry->obj;
    memcpy(told->bytes, frame, len);
    *entry = (struct rh_out_entry){.obj = told, .len = (uint32_t)len, .kind = RH_OUT_TOLD};
    q->lost--;
    rh_out_count(q, 1, (int64_t)len);
    return true;
}

static bool lane_tell(struct rh_outq *q, struct rh_lane *lane, unsigned *max,
                      rh_lost_encode *encode, void *arg)
{
    for (uint32_t i = 0; i < lane->count && *max; i++) {
        struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (rh_out_is_silent(entry))
            continue;
        if (entry->kind == RH_OUT_LOST && !tell(q, entry, encode, arg))
            return false;
        --*max;
    }
    return true;
}

bool rh_outq_tell(struct rh_outq *q, unsigned max, rh_lost_encode *encode, void *arg)
{
    rh_assert(!rh_outq_flying(q));
    return lane_tell(q, &q->high, &max, encode, arg) && lane_tell(q, &q->normal, &max, encode, arg);
}

static void *bytes_of(const struct rh_out_entry *entry)
{
    struct rh_told *told = entry->obj;

    if (entry->kind == RH_OUT_BLOCK)
        return rh_block_at(entry->obj);
    rh_assert(entry->kind != RH_OUT_LOST); /* it was to be told before */
    return entry->kind == RH_OUT_TOLD ? told->bytes : (void *)rh_msg_frame(rh_out_msg(entry));
}

/* What is sent of it; `squeezed` counts what compression does to that. */
static struct iovec frame_of(struct rh_outq *q, const struct rh_out_entry *entry,
                             struct rh_squeezed *squeezed)
{
    if (rh_unlikely(q->bits) && rh_out_is_msg(entry))
        return rh_squeeze_frame(&q->stock->squeeze, entry->obj, q->bits, squeezed);
    return (struct iovec){bytes_of(entry), entry->len};
}

static unsigned lane_fill(struct rh_outq *q, struct rh_lane *lane, struct iovec *iov, unsigned max)
{
    struct rh_squeezed squeezed = {0};
    unsigned filled = 0;
    uint32_t i;

    for (i = 0; i < lane->count && filled < max; i++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (rh_out_is_silent(entry))
            continue;
        iov[filled] = frame_of(q, entry, &squeezed);
        q->flying_bytes += iov[filled++].iov_len;
        q->flying_messages += rh_out_frames(entry);
    }
    lane->flying = i;
    if (squeezed.messages)
        rh_squeeze_count(&q->stock->squeeze, &squeezed);
    return filled;
}

static void fences_fly(struct rh_outq *q)
{
    for (uint32_t i = 0; i < q->normal.flying; i++)
        q->fences -= rh_lane_entry(&q->normal, i)->fence;
}

/* All that waits as one piece, if it is nothing but messages that others send in the same sequence. */
static bool fill_bundle(struct rh_outq *q, struct iovec *iov)
{
    struct rh_lane *lane = &q->normal;
    struct rh_handle *of[RH_BUNDLE_MAX];
    uint32_t frames = 0;
    size_t len = 0;

    if (lane->count < RH_BUNDLE_MIN || lane->count > RH_BUNDLE_MAX || q->high.count)
        return false;
    for (uint32_t i = 0; i < lane->count; i++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (!rh_out_is_msg(entry))
            return false;
        of[i] = entry->obj;
        len += entry->len;
        frames += rh_out_frames(entry);
    }
    if (len > RH_BUNDLE_BYTES)
        return false;
    q->bundle = rh_bundle_take(&q->stock->bundles, &q->stock->handles, &q->stock->squeeze, of,
                               lane->count, q->bits);
    if (!q->bundle)
        return false;
    iov[0] = (struct iovec){q->bundle->bytes, q->bundle->len};
    q->flying_bytes = q->bundle->len;
    q->flying_messages = frames;
    lane->flying = lane->count;
    return true;
}

unsigned rh_outq_fill(struct rh_outq *q, struct iovec *iov, unsigned max)
{
    unsigned filled;

    rh_assert(!rh_outq_flying(q));
    if (fill_bundle(q, iov))
        return 1;
    filled = lane_fill(q, &q->high, iov, max);
    filled += lane_fill(q, &q->normal, iov + filled, max - filled);
    if (q->fences)
        fences_fly(q);
    return filled;
}

static void lane_done(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane,
                      void (*sent)(void *arg, const struct rh_msg *msg), void *arg)
{
    for (uint32_t i = 0; i < lane->flying; i++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (entry->kind == RH_OUT_MSG || entry->kind == RH_OUT_MSG_HIGH)
            sent(arg, rh_out_msg(entry));
        rh_out_release(stock, q, lane, entry);
    }
    lane->head = (lane->head + lane->flying) & (lane->room ? lane->room - 1 : 0);
    lane->count -= lane->flying;
    lane->seek -= RH_MIN(lane->seek, lane->flying);
    lane->flying = 0;
}

unsigned rh_outq_done(struct rh_out_stock *stock, struct rh_outq *q,
                      void (*sent)(void *arg, const struct rh_msg *msg), void *arg)
{
    uint32_t missed = q->missed;

    lane_done(stock, q, &q->high, sent, arg);
    lane_done(stock, q, &q->normal, sent, arg);
    rh_bundle_give(&stock->handles, q->bundle);
    q->bundle = NULL;
    q->flying_bytes = 0;
    q->flying_messages = 0;
    return missed - q->missed;
}

/* ---- questions ---- */

static void lane_each(const struct rh_lane *lane, uint32_t from, uint32_t to,
                      void (*visit_msg)(void *arg, const struct rh_msg *msg),
                      void (*visit_lost)(void *arg, const struct rh_lost *lost), void *arg)
{
    for (uint32_t i = from; i < to; i++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (rh_out_is_msg(entry))
            visit_msg(arg, rh_out_msg(entry));
        else if (entry->kind == RH_OUT_LOST || entry->kind == RH_OUT_NOTE)
            visit_lost(arg, entry->obj);
        else if (entry->kind == RH_OUT_TOLD)
            visit_lost(arg, ((const struct rh_told *)entry->obj)->lost);
    }
}

void rh_outq_each(const struct rh_outq *q, bool flying,
                  void (*visit_msg)(void *arg, const struct rh_msg *msg),
                  void (*visit_lost)(void *arg, const struct rh_lost *lost), void *arg)
{
    if (flying) {
        lane_each(&q->high, 0, q->high.flying, visit_msg, visit_lost, arg);
        lane_each(&q->normal, 0, q->normal.flying, visit_msg, visit_lost, arg);
    }
    lane_each(&q->high, q->high.flying, q->high.count, visit_msg, visit_lost, arg);
    lane_each(&q->normal, q->normal.flying, q->normal.count, visit_msg, visit_lost, arg);
}

static void lane_each_owed(const struct rh_lane *lane, uint32_t from, uint32_t to,
                           void (*visit)(void *arg, const struct rh_msg *msg), void *arg)
{
    for (uint32_t i = from; i < to; i++)
        if (rh_out_is_owed(rh_lane_entry(lane, i)))
            visit(arg, rh_out_msg(rh_lane_entry(lane, i)));
}

void rh_outq_each_owed(const struct rh_outq *q, bool flying,
                       void (*visit)(void *arg, const struct rh_msg *msg), void *arg)
{
    const struct rh_lane *lanes[] = {&q->high, &q->normal};

    for (unsigned i = 0; i < RH_COUNT(lanes) && q->owed; i++)
        lane_each_owed(lanes[i], flying ? 0 : lanes[i]->flying,
                       flying ? lanes[i]->flying : lanes[i]->count, visit, arg);
}
