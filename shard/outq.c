/* shard/outq.c - send queues: what is queued, and what is dropped; the design is in outq.h.
 *
 * Why holes: a policy drops from the middle of a lane, once per message while a client is slow, so
 * nothing may be moved for it. A marker that merges goes to the later place and leaves a hole; holes
 * go when they are passed in front, or together, when the lane would have to grow for them. What is
 * dropped next is found from `seek` on, and a marker's neighbours are near it: each step is paid for
 * by an earlier drop.
 */
#include "shard/outq.h"

#include <string.h>

#include "core/mem.h"
#include "shard/outq_int.h"
#include "shard/shard_int.h"

#define NOT_FOUND UINT32_MAX

/* ---- lanes ---- */

static bool lane_grow(struct rh_outq *q, struct rh_lane *lane)
{
    uint32_t room = lane->room ? lane->room * 2 : RH_OUT_FIRST;
    struct rh_out_entry *at = rh_mem_alloc(room * sizeof(*at));

    if (!at)
        return false;
    for (uint32_t i = 0; i < lane->count; i++)
        at[i] = *rh_lane_entry(lane, i);
    if (lane->at != q->first)
        rh_mem_free(lane->at);
    lane->at = at;
    lane->room = room;
    lane->head = 0;
    return true;
}

/* Closes the holes of what waits. */
static void lane_compact(struct rh_lane *lane)
{
    uint32_t kept = lane->flying;

    for (uint32_t i = lane->flying; i < lane->count; i++)
        if (rh_lane_entry(lane, i)->kind != RH_OUT_HOLE)
            *rh_lane_entry(lane, kept++) = *rh_lane_entry(lane, i);
    lane->holes -= lane->count - kept;
    lane->count = kept;
    lane->seek = 0;
}

static bool lane_make_room(struct rh_outq *q, struct rh_lane *lane)
{
    if (lane->holes && lane->holes >= lane->room / 2)
        lane_compact(lane);
    return lane->count < lane->room || lane_grow(q, lane);
}

static struct rh_out_entry *lane_push(struct rh_outq *q, struct rh_lane *lane)
{
    if (lane->count == lane->room && !lane_make_room(q, lane))
        return NULL;
    return rh_lane_entry(lane, lane->count++);
}

/* ---- entries ---- */

/* The same for those that count in the stock only: `of` is missed or owed. */
static void count_apart(struct rh_outq *q, uint32_t *of, int32_t messages, int64_t bytes)
{
    *of += (uint32_t)messages;
    q->stock->messages += (uint64_t)(int64_t)messages;
    q->stock->bytes += (uint64_t)bytes;
}

void rh_out_release(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane,
                    const struct rh_out_entry *entry)
{
    struct rh_told *told;

    switch ((enum rh_out_kind)entry->kind) {
    case RH_OUT_BLOCK:
        rh_out_count(q, -(int64_t)entry->frames, -(int64_t)entry->len);
        rh_block_give(&stock->blocks, entry->obj);
        break;
    case RH_OUT_MSG_HIGH:
        q->high_in_normal--;
        /* fall through */
    case RH_OUT_MSG:
        rh_out_count(q, -1, -(int64_t)entry->len);
        rh_handle_unref(&stock->handles, entry->obj);
        break;
    case RH_OUT_MISSED:
        count_apart(q, &q->missed, -1, -(int64_t)entry->len);
        rh_handle_unref(&stock->handles, entry->obj);
        break;
    case RH_OUT_OWED_HIGH:
        q->high_in_normal--;
        /* fall through */
    case RH_OUT_OWED:
        count_apart(q, &q->owed, -1, -(int64_t)entry->len);
        rh_handle_unref(&stock->handles, entry->obj);
        break;
    case RH_OUT_LOST:
        q->lost--;
        /* fall through */
    case RH_OUT_NOTE:
        rh_mem_free(entry->obj);
        break;
    case RH_OUT_TOLD:
        rh_out_count(q, -1, -(int64_t)entry->len);
        told = entry->obj;
        rh_mem_free(told->lost);
        rh_mem_free(told);
        break;
    case RH_OUT_HOLE:
        lane->holes--;
        break;
    }
}

/* ---- life ---- */

struct rh_outq *rh_outq_take(struct rh_out_stock *stock)
{
    struct rh_outq *q = stock->free;

    if (q) {
        stock->free = q->next_free;
        stock->kept--;
        stock->spare = RH_MIN(stock->spare, stock->kept);
    } else {
        q = rh_mem_alloc(sizeof(*q));
    }
    if (!q)
        return NULL;
    memset(q, 0, offsetof(struct rh_outq, first));
    q->stock = stock;
    q->normal.at = q->first;
    q->normal.room = RH_OUT_FIRST;
    return q;
}

static void lane_fini(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane)
{
    for (uint32_t i = 0; i < lane->count; i++)
        rh_out_release(stock, q, lane, rh_lane_entry(lane, i));
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
    rh_assert(q->messages == 0 && q->bytes == 0 && q->missed == 0 && q->owed == 0 && q->lost == 0);
    q->next_free = stock->free;
    stock->free = q;
    stock->kept++;
}

static void free_queues(struct rh_out_stock *stock, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct rh_outq *q = stock->free;

        stock->free = q->next_free;
        rh_mem_free(q);
    }
    stock->kept -= count;
    stock->spare = stock->kept;
}

size_t rh_out_stock_trim(struct rh_out_stock *stock)
{
    uint32_t queues = (stock->spare + 1) / 2;
    uint32_t blocks = rh_blocks_trim(&stock->blocks);

    free_queues(stock, queues);
    return queues * sizeof(struct rh_outq) + blocks * sizeof(struct rh_block) +
           (size_t)blocks * RH_BLOCK_ROOM;
}

void rh_out_stock_fini(struct rh_out_stock *stock)
{
    rh_bundles_forget(&stock->bundles, &stock->handles);
    free_queues(stock, stock->kept);
    rh_blocks_fini(&stock->blocks);
    rh_handles_fini(&stock->handles);
}

/* ---- queueing ---- */

/* Eight bits of the room, eight of the key: most entries need not be looked behind. */
static uint16_t tag_of(const struct rh_msg *msg)
{
    uint32_t len = RH_MIN(msg->key_len, 8u);
    uint64_t end = msg->key_len;

    if (len == 0)
        return (uint8_t)msg->uid;
    memcpy(&end, msg->bytes + msg->key_at + msg->key_len - len, len);
    end = (end ^ msg->key_len) * 0x9e3779b97f4a7c15u;
    return (uint16_t)((end >> 56) << 8 | (uint8_t)msg->uid);
}

/* Does anything of the room wait in the normal lane, or a frame that rooms may not overtake? */
static bool held_back(const struct rh_outq *q, uint64_t uid)
{
    const struct rh_lane *lane = &q->normal;

    if (q->fences)
        return true;
    for (uint32_t i = lane->flying; i < lane->count; i++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (rh_out_is_msg(entry) && (uint8_t)entry->tag == (uint8_t)uid &&
            rh_out_msg(entry)->uid == uid)
            return true;
        if (entry->kind == RH_OUT_LOST && ((const struct rh_lost *)entry->obj)->uid == uid)
            return true;
    }
    return false;
}

/* Where a message of high priority goes. */
static struct rh_lane *lane_of_high(struct rh_outq *q, const struct rh_msg *msg, uint8_t *ret_kind)
{
    bool open = q->high.count < RH_LANE_HIGH_MAX && q->high_in_normal == 0;

    *ret_kind = RH_OUT_MSG;
    if (msg->kind == RH_MSG_NOTICE)
        return &q->normal;
    if (!open)
        *ret_kind = RH_OUT_MSG_HIGH;
    return !open || (msg->kind == RH_MSG_ROOM && held_back(q, msg->uid)) ? &q->normal : &q->high;
}

static struct rh_lane *lane_of(struct rh_outq *q, const struct rh_msg *msg, uint8_t *ret_kind)
{
    *ret_kind = RH_OUT_MSG;
    return rh_unlikely(msg->high) ? lane_of_high(q, msg, ret_kind) : &q->normal;
}

static bool push(struct rh_outq *q, struct rh_lane *lane, struct rh_handle *h, uint8_t kind)
{
    struct rh_out_entry *entry = lane_push(q, lane);

    if (!entry)
        return false;
    rh_handle_ref(h);
    entry->obj = h;
    entry->len = h->msg->frame_len;
    entry->tag = tag_of(h->msg);
    entry->kind = kind;
    entry->fence = false;
    return true;
}

bool rh_outq_push_msg(struct rh_outq *q, struct rh_handle *h)
{
    uint8_t kind;
    struct rh_lane *lane = lane_of(q, h->msg, &kind);

    if (!push(q, lane, h, kind))
        return false;
    rh_out_count(q, 1, h->msg->frame_len);
    q->high_in_normal += kind == RH_OUT_MSG_HIGH;
    return true;
}

bool rh_outq_push_missed(struct rh_outq *q, struct rh_handle *h)
{
    if (!push(q, &q->normal, h, RH_OUT_MISSED))
        return false;
    count_apart(q, &q->missed, 1, h->msg->frame_len);
    return true;
}

bool rh_outq_push_owed(struct rh_outq *q, struct rh_handle *h)
{
    uint8_t kind;
    struct rh_lane *lane = lane_of(q, h->msg, &kind);
    bool high = kind == RH_OUT_MSG_HIGH;

    if (!push(q, lane, h, high ? RH_OUT_OWED_HIGH : RH_OUT_OWED))
        return false;
    count_apart(q, &q->owed, 1, h->msg->frame_len);
    q->high_in_normal += high;
    return true;
}

bool rh_outq_push_block(struct rh_outq *q, struct rh_block *take_block)
{
    struct rh_out_entry *entry = lane_push(q, &q->normal);

    if (!entry)
        return false;
    *entry = (struct rh_out_entry){.obj = take_block, .kind = RH_OUT_BLOCK};
    entry->len = rh_block_len(take_block);
    entry->frames = 1;
    rh_out_count(q, 1, entry->len);
    return true;
}

/* The last entry, if it waits and is a block. */
static struct rh_out_entry *last_block(const struct rh_outq *q)
{
    const struct rh_lane *lane = &q->normal;
    struct rh_out_entry *last;

    if (lane->count == lane->flying)
        return NULL;
    last = rh_lane_entry(lane, lane->count - 1);
    return last->kind == RH_OUT_BLOCK ? last : NULL;
}

/* Its block, if more may be added to it. */
static struct rh_block *open_block(const struct rh_outq *q, size_t len)
{
    const struct rh_out_entry *last = last_block(q);
    struct rh_block *block = last ? last->obj : NULL;

    if (!block || last->frames == UINT16_MAX)
        return NULL;
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

uint8_t *rh_outq_own_at(const struct rh_outq *q)
{
    struct rh_block *block = rh_lane_entry(&q->normal, q->normal.count - 1)->obj;

    return block->bytes + block->used;
}

void rh_outq_own_done(struct rh_outq *q, size_t used)
{
    struct rh_out_entry *last = rh_lane_entry(&q->normal, q->normal.count - 1);
    struct rh_block *block = last->obj;

    rh_assert(used <= block->room - block->used);
    block->used += (uint32_t)used;
    last->len += (uint32_t)used;
    last->frames++;
    rh_out_count(q, 1, (int64_t)used);
}

void rh_outq_fence(struct rh_outq *q)
{
    struct rh_out_entry *last = last_block(q);

    if (last && !last->fence) {
        last->fence = true;
        q->fences++;
    }
}

/* ---- markers ---- */

static bool same_stream(const struct rh_lost *lost, uint8_t kind, uint64_t uid)
{
    return lost->kind == kind && (kind != RH_MSG_ROOM || lost->uid == uid);
}

static void lost_add(struct rh_lost *lost, uint64_t from, uint64_t to, uint64_t more)
{
    lost->from = RH_MIN(lost->from, from);
    lost->to = RH_MAX(lost->to, to);
    lost->count += more;
}

static struct rh_lost *lost_create(const struct rh_lost *like, const char *name)
{
    struct rh_lost *lost = rh_mem_alloc(sizeof(*lost) + like->name_len);

    if (!lost)
        return NULL;
    *lost = *like;
    if (like->name_len)
        memcpy(lost->name, name, like->name_len);
    return lost;
}

/* The loss of one message, without its room's name. */
static void lost_init(struct rh_lost *lost, const struct rh_msg *msg)
{
    bool room = msg->kind == RH_MSG_ROOM;

    lost->uid = room ? msg->uid : 0;
    lost->from = lost->to = msg->seq;
    lost->count = 1;
    lost->kind = msg->kind;
    lost->name_len = room ? msg->to_len : 0;
}

/* The stream's marker among those that stand right in front of place `end`. */
static uint32_t find_marker(const struct rh_lane *lane, uint32_t end, uint8_t kind, uint64_t uid)
{
    for (uint32_t i = end; i-- > lane->flying;) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (entry->kind == RH_OUT_LOST && same_stream(entry->obj, kind, uid))
            return i;
        if (entry->kind != RH_OUT_LOST && entry->kind != RH_OUT_HOLE)
            break;
    }
    return NOT_FOUND;
}

/* Takes the marker out of place i. */
static struct rh_lost *marker_take(struct rh_outq *q, struct rh_lane *lane, uint32_t i)
{
    struct rh_out_entry *entry = rh_lane_entry(lane, i);
    struct rh_lost *lost = entry->obj;

    *entry = (struct rh_out_entry){.kind = RH_OUT_HOLE};
    lane->holes++;
    q->lost--;
    return lost;
}

static void marker_put(struct rh_outq *q, struct rh_out_entry *entry, struct rh_lost *take_lost)
{
    *entry = (struct rh_out_entry){.obj = take_lost, .kind = RH_OUT_LOST};
    q->lost++;
}

/* Markers behind place i have come together with those up to it: the later one takes the other. */
static void join_markers(struct rh_outq *q, struct rh_lane *lane, uint32_t i)
{
    for (uint32_t k = i + 1; k < lane->count; k++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, k);
        struct rh_lost *lost = entry->obj, *earlier;
        uint32_t j;

        if (entry->kind == RH_OUT_HOLE)
            continue;
        if (entry->kind != RH_OUT_LOST)
            break;
        j = find_marker(lane, i + 1, lost->kind, lost->uid);
        if (j == NOT_FOUND)
            continue;
        earlier = marker_take(q, lane, j);
        lost_add(lost, earlier->from, earlier->to, earlier->count);
        rh_mem_free(earlier);
    }
}

/* The waiting message at i becomes a marker. */
static int lose_at(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane, uint32_t i)
{
    struct rh_out_entry *entry = rh_lane_entry(lane, i);
    const struct rh_msg *msg = rh_out_msg(entry);
    uint32_t j = find_marker(lane, i, msg->kind, msg->uid);
    struct rh_lost one, *lost;

    lost_init(&one, msg);
    if (j == NOT_FOUND)
        lost = lost_create(&one, (const char *)msg->bytes + msg->to_at);
    else
        lost = marker_take(q, lane, j);
    if (!lost)
        return RH_ENOMEM;
    if (j != NOT_FOUND)
        lost_add(lost, one.from, one.to, one.count);
    rh_out_release(stock, q, lane, entry);
    marker_put(q, entry, lost);
    join_markers(q, lane, i);
    return RH_OK;
}

static int push_marker(struct rh_outq *q, struct rh_lane *lane, const struct rh_lost *like,
                       const char *name)
{
    uint32_t i = find_marker(lane, lane->count, like->kind, like->uid);
    struct rh_out_entry *entry;
    struct rh_lost *lost;

    if (i != NOT_FOUND) {
        lost_add(rh_lane_entry(lane, i)->obj, like->from, like->to, like->count);
        return RH_OK;
    }
    lost = lost_create(like, name);
    entry = lost ? lane_push(q, lane) : NULL;
    if (!entry) {
        rh_mem_free(lost);
        return RH_ENOMEM;
    }
    marker_put(q, entry, lost);
    return RH_OK;
}

bool rh_outq_note(struct rh_outq *q, const struct rh_lost *lost)
{
    struct rh_lost *note = rh_mem_alloc(sizeof(*note));
    struct rh_out_entry *entry = note ? lane_push(q, &q->normal) : NULL;

    if (!entry) {
        rh_mem_free(note);
        return false;
    }
    *note = *lost;
    note->name_len = 0;
    *entry = (struct rh_out_entry){.obj = note, .kind = RH_OUT_NOTE};
    return true;
}

/* ---- dropping ---- */

static bool droppable(const struct rh_out_entry *entry)
{
    return (entry->kind == RH_OUT_MSG || entry->kind == RH_OUT_MSG_HIGH) &&
           rh_out_msg(entry)->kind != RH_MSG_NOTICE;
}

static int lane_drop_oldest(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane)
{
    for (lane->seek = RH_MAX(lane->seek, lane->flying); lane->seek < lane->count; lane->seek++)
        if (droppable(rh_lane_entry(lane, lane->seek)))
            return lose_at(stock, q, lane, lane->seek);
    return RH_ENOTFOUND;
}

int rh_outq_drop_oldest(struct rh_out_stock *stock, struct rh_outq *q)
{
    int rc = lane_drop_oldest(stock, q, &q->normal);

    return rc == RH_ENOTFOUND ? lane_drop_oldest(stock, q, &q->high) : rc;
}

static bool same_key(const struct rh_msg *a, const struct rh_msg *b)
{
    return a->kind == RH_MSG_ROOM && a->uid == b->uid && a->key_len == b->key_len &&
           memcmp(a->bytes + a->key_at, b->bytes + b->key_at, a->key_len) == 0;
}

static int lane_replace(struct rh_out_stock *stock, struct rh_outq *q, struct rh_lane *lane,
                        const struct rh_msg *by)
{
    uint16_t tag = tag_of(by);
    int replaced = 0;

    for (uint32_t i = lane->flying; i < lane->count; i++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if ((entry->kind != RH_OUT_MSG && entry->kind != RH_OUT_MSG_HIGH) || entry->tag != tag ||
            !same_key(rh_out_msg(entry), by))
            continue;
        if (lose_at(stock, q, lane, i) < 0)
            return RH_ENOMEM;
        replaced++;
    }
    return replaced;
}

int rh_outq_replace(struct rh_out_stock *stock, struct rh_outq *q, const struct rh_msg *by)
{
    int high = lane_replace(stock, q, &q->high, by);
    int normal = high < 0 ? high : lane_replace(stock, q, &q->normal, by);

    return normal < 0 ? normal : high + normal;
}

int rh_outq_lose(struct rh_outq *q, const struct rh_msg *msg)
{
    struct rh_lost one;
    uint8_t kind;

    lost_init(&one, msg);
    return push_marker(q, lane_of(q, msg, &kind), &one, (const char *)msg->bytes + msg->to_at);
}

int rh_outq_push_lost(struct rh_outq *q, const struct rh_lost *lost)
{
    return push_marker(q, &q->normal, lost, lost->name);
}

static unsigned lane_drop_messages(struct rh_out_stock *stock, struct rh_outq *q,
                                   struct rh_lane *lane)
{
    unsigned dropped = 0;
    uint32_t kept = lane->flying;

    for (uint32_t i = lane->flying; i < lane->count; i++) {
        const struct rh_out_entry *entry = rh_lane_entry(lane, i);

        if (entry->kind == RH_OUT_BLOCK) {
            *rh_lane_entry(lane, kept++) = *entry;
            continue;
        }
        dropped += droppable(entry);
        rh_out_release(stock, q, lane, entry);
    }
    lane->count = kept;
    lane->seek = 0;
    return dropped;
}

unsigned rh_outq_drop_messages(struct rh_out_stock *stock, struct rh_outq *q)
{
    return lane_drop_messages(stock, q, &q->high) + lane_drop_messages(stock, q, &q->normal);
}
