/* shard/outq.c - send queues; the design is in outq.h. */
#include "shard/outq.h"

#include <string.h>

#include "core/mem.h"

static struct rh_out_entry *lane_entry(const struct rh_lane *lane, uint32_t i)
{
    return &lane->at[(lane->head + i) & (lane->room - 1)];
}

static bool lane_grow(struct rh_outq *q, struct rh_lane *lane)
{
    uint32_t room = lane->room ? lane->room * 2 : RH_OUT_FIRST;
    struct rh_out_entry *at = rh_mem_alloc(room * sizeof(*at));

    if (!at)
        return false;
    for (uint32_t i = 0; i < lane->count; i++)
        at[i] = *lane_entry(lane, i);
    if (lane->at != q->first)
        rh_mem_free(lane->at);
    lane->at = at;
    lane->room = room;
    lane->head = 0;
    return true;
}

static struct rh_out_entry *lane_push(struct rh_outq *q, struct rh_lane *lane)
{
    if (lane->count == lane->room && !lane_grow(q, lane))
        return NULL;
    return lane_entry(lane, lane->count++);
}

/* ---- life ---- */

struct rh_outq *rh_outq_take(struct rh_out_stock *stock)
{
    struct rh_outq *q = stock->free;

    if (q)
        stock->free = q->next_free;
    else
        q = rh_mem_alloc(sizeof(*q));
    if (!q)
        return NULL;
    memset(q, 0, offsetof(struct rh_outq, first));
    q->stock = stock;
    q->normal.at = q->first;
    q->normal.room = RH_OUT_FIRST;
    return q;
}

static void count(struct rh_outq *q, int64_t messages, int64_t bytes)
{
    q->messages += (uint32_t)messages;
    q->bytes += (uint32_t)bytes;
    q->stock->messages += (uint64_t)messages;
    q->stock->bytes += (uint64_t)bytes;
}

static void uncount(struct rh_outq *q, const struct rh_out_entry *entry)
{
    count(q, -(int64_t)entry->messages, -(int64_t)entry->len);
}

static void entry_release(struct rh_out_stock *stock, const struct rh_out_entry *entry)
{
    if (entry->kind == RH_OUT_BLOCK)
        rh_block_give(&stock->blocks, entry->obj);
    else
        rh_handle_unref(&stock->handles, entry->obj);
}

static void lane_fini(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane)
{
    for (uint32_t i = 0; i < lane->count; i++)
        entry_release(stock, lane_entry(lane, i));
    if (lane->at != q->first)
        rh_mem_free(lane->at);
}

void rh_outq_give(struct rh_out_stock *stock, struct rh_outq *q)
{
    if (!q)
        return;
    rh_assert(!rh_outq_flying(q));
    lane_fini(stock, q, &q->high);
    lane_fini(stock, q, &q->normal);
    count(q, -(int64_t)q->messages, -(int64_t)q->bytes);
    q->next_free = stock->free;
    stock->free = q;
}

void rh_out_stock_fini(struct rh_out_stock *stock)
{
    while (stock->free) {
        struct rh_outq *q = stock->free;

        stock->free = q->next_free;
        rh_mem_free(q);
    }
    rh_blocks_fini(&stock->blocks);
    rh_handles_fini(&stock->handles);
}

/* ---- queueing ---- */

static void account(struct rh_outq *q, struct rh_out_entry *entry, void *obj, uint32_t len,
                    enum rh_out_kind kind)
{
    entry->obj = obj;
    entry->len = len;
    entry->messages = 1;
    entry->kind = (uint8_t)kind;
    count(q, 1, len);
}

bool rh_outq_push_msg(struct rh_outq *q, struct rh_handle *h)
{
    bool lane_open = q->high.count < RH_LANE_HIGH_MAX && q->high_in_normal == 0;
    bool high = h->msg->high;
    struct rh_out_entry *entry = lane_push(q, high && lane_open ? &q->high : &q->normal);

    if (!entry)
        return false;
    rh_handle_ref(h);
    account(q, entry, h, h->msg->frame_len, high && !lane_open ? RH_OUT_MSG_HIGH : RH_OUT_MSG);
    if (entry->kind == RH_OUT_MSG_HIGH)
        q->high_in_normal++;
    return true;
}

bool rh_outq_push_block(struct rh_outq *q, struct rh_block *take_block)
{
    struct rh_out_entry *entry = lane_push(q, &q->normal);

    if (!entry)
        return false;
    account(q, entry, take_block, rh_block_len(take_block), RH_OUT_BLOCK);
    return true;
}

/* The last entry's block, if more may be added to it. */
static struct rh_block *open_block(const struct rh_outq *q, size_t len)
{
    const struct rh_lane *lane = &q->normal;
    const struct rh_out_entry *last;
    struct rh_block *block;

    if (lane->count == lane->flying)
        return NULL;
    last = lane_entry(lane, lane->count - 1);
    if (last->kind != RH_OUT_BLOCK || last->messages == UINT16_MAX)
        return NULL;
    block = last->obj;
    return block->room - block->used >= len ? block : NULL;
}

uint8_t *rh_outq_own(struct rh_out_stock *stock, struct rh_outq *q, size_t len)
{
    struct rh_block *block = open_block(q, len);
    struct rh_out_entry *entry;

    if (block)
        return block->bytes + block->used;
    block = rh_block_take(&stock->blocks, RH_MAX(len, (size_t)RH_BLOCK_ROOM));
    entry = block ? lane_push(q, &q->normal) : NULL;
    if (!entry) {
        rh_block_give(&stock->blocks, block);
        return NULL;
    }
    *entry = (struct rh_out_entry){.obj = block, .kind = RH_OUT_BLOCK};
    return block->bytes;
}

void rh_outq_own_done(struct rh_outq *q, size_t used)
{
    struct rh_out_entry *last = lane_entry(&q->normal, q->normal.count - 1);
    struct rh_block *block = last->obj;

    rh_assert(used <= block->room - block->used);
    block->used += (uint32_t)used;
    last->len += (uint32_t)used;
    last->messages++;
    count(q, 1, (int64_t)used);
}

/* ---- sending ---- */

static unsigned lane_fill(struct rh_outq *q, struct rh_lane *lane, struct iovec *iov, unsigned max)
{
    unsigned count = RH_MIN(lane->count, max);

    for (unsigned i = 0; i < count; i++) {
        const struct rh_out_entry *entry = lane_entry(lane, i);
        const struct rh_handle *h = entry->obj;

        iov[i].iov_len = entry->len;
        iov[i].iov_base = entry->kind == RH_OUT_BLOCK ? (void *)rh_block_at(entry->obj)
                                                      : (void *)rh_msg_frame(h->msg);
        q->flying_bytes += entry->len;
    }
    lane->flying = count;
    return count;
}

unsigned rh_outq_fill(struct rh_outq *q, struct iovec *iov, unsigned max)
{
    unsigned count;

    rh_assert(!rh_outq_flying(q));
    count = lane_fill(q, &q->high, iov, max);
    return count + lane_fill(q, &q->normal, iov + count, max - count);
}

static void lane_done(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane,
                      void (*sent)(void *arg, const struct rh_msg *msg), void *arg)
{
    for (uint32_t i = 0; i < lane->flying; i++) {
        const struct rh_out_entry *entry = lane_entry(lane, i);

        uncount(q, entry);
        if (entry->kind != RH_OUT_BLOCK)
            sent(arg, ((struct rh_handle *)entry->obj)->msg);
        if (entry->kind == RH_OUT_MSG_HIGH)
            q->high_in_normal--;
        entry_release(stock, entry);
    }
    lane->head = (lane->head + lane->flying) & (lane->room ? lane->room - 1 : 0);
    lane->count -= lane->flying;
    lane->flying = 0;
}

void rh_outq_done(struct rh_out_stock *stock, struct rh_outq *q,
                  void (*sent)(void *arg, const struct rh_msg *msg), void *arg)
{
    lane_done(stock, q, &q->high, sent, arg);
    lane_done(stock, q, &q->normal, sent, arg);
    q->flying_bytes = 0;
}

static unsigned lane_drop_messages(struct rh_out_stock *stock, struct rh_outq *q,
                                   struct rh_lane *lane)
{
    unsigned dropped = 0;
    uint32_t kept = lane->flying;

    for (uint32_t i = lane->flying; i < lane->count; i++) {
        struct rh_out_entry *entry = lane_entry(lane, i);

        if (entry->kind == RH_OUT_BLOCK) {
            *lane_entry(lane, kept++) = *entry;
            continue;
        }
        if (entry->kind == RH_OUT_MSG_HIGH)
            q->high_in_normal--;
        uncount(q, entry);
        dropped += entry->messages;
        entry_release(stock, entry);
    }
    lane->count = kept;
    return dropped;
}

unsigned rh_outq_drop_messages(struct rh_out_stock *stock, struct rh_outq *q)
{
    return lane_drop_messages(stock, q, &q->high) + lane_drop_messages(stock, q, &q->normal);
}
