/* shard/fanout.c - hands a room's messages to everyone who subscribes to it on this shard.
 *
 * Why this way: a message exists once and crosses from its room's home to this shard once; here it
 * costs each subscriber one queue entry. A branch is this shard's part of a room. Its cursor walks
 * from the end of the vector to its beginning, lap after lap while there is something to hand out, and
 * each subscriber gets all that has come since it was visited last: its lines are fetched once for all
 * of it, and it leaves in one send.
 *
 *     subs  | not yet visited        | visited in this lap      |
 *           0                  cursor                       count
 *
 * So a message that comes in the middle of a lap is carried along from there on, and reaches the
 * others in the next lap: with a publisher that keeps k messages outstanding every visit hands out k,
 * whenever they come. A message is finished at the end of the first lap that began after it came.
 *
 * A new subscription is put at the end: what came before is not for it. One that leaves is replaced by
 * the last one of its zone, and that one by the last of all: so nobody is skipped in a lap and nobody
 * visited twice, whoever comes and goes meanwhile.
 *
 * Re-entry    Handing out may close connections, end sessions and subscriptions, and empty the
 *             branch: it is pinned, the vector is read anew at each step, and a subscription is not
 *             looked at any more once its connection is not open. rh_fanout_push, rh_branch_add and
 *             rh_branch_del call nobody back, so the home may call them wherever it is.
 * Owed        A message with shares (room_promise.c) is owed to users of this shard from the moment it
 *             comes; each connection is asked for, and when its lap has ended what nobody got waits.
 * Reports     Each message that came is reported to its home exactly once, as a part of a sum
 *             (FANNED): handed out, lost for want of memory, or come for a branch that had gone
 *             (a stray). A branch that owes a report is kept without subscribers until it is told.
 * Memory      No memory to queue a message: all who should have got it are closed with 1013 and find
 *             it in the room's history. That happens in the next rh_fanout_run, before anything else
 *             of that branch, or when one of them leaves before: so nobody gets what follows a hole.
 * Invariants  (1) sub->branch == b <=> b->subs[sub->index] == sub.  (2) cursor <= count, batch <=
 *             fan_count, and cursor is 0 between laps.  (3) a branch without subscribers has no
 *             fans.
 * Limits      RH_FANOUT_* a pass, broadcasts included, divided among the shards of a processor: one hot
 *             room starves nobody. RH_STRAYS_MAX
 *             rooms with strays while a home cannot be told for want of memory; beyond that a home
 *             goes on counting them.
 * Rejected    A list instead of a vector: each step would wait for the line of the one before it, and
 *             nothing could be fetched ahead. A batch that is fixed when a lap begins: two batches
 *             then follow each other for ever, and every subscriber gets two sends where one would do.
 */
#include "core/log.h"
#include "core/mem.h"
#include "shard/owed.h"

#define SUBS_FIRST 4
#define FANS_FIRST 4
#define AHEAD      16
#define FANS_KEPT  64 /* an empty queue with more places is given back */

/* ---- branches ---- */

struct rh_branch *rh_branch_find(const struct rh_shard *sh, uint64_t uid)
{
    struct rh_map_node *node = rh_map_first(&sh->branches, uid);

    return node ? rh_container_of(node, struct rh_branch, node) : NULL;
}

static struct rh_branch *branch_create(struct rh_shard *sh, uint64_t uid, uint64_t room_hash)
{
    struct rh_branch *b = rh_mem_zalloc(sizeof(*b));

    if (!b)
        return NULL;
    b->uid = uid;
    b->home = (uint8_t)rh_hash_shard(room_hash, sh->env->shards);
    rh_list_init(&b->running);
    rh_list_init(&b->unreported);
    rh_map_add(&sh->branches, &b->node, uid);
    return b;
}

static struct rh_fan *fan_at(const struct rh_branch *b, uint32_t i)
{
    return &b->fans[(b->fan_head + i) & (b->fan_room - 1)];
}

static void branch_free(struct rh_shard *sh, struct rh_branch *b)
{
    for (uint32_t i = 0; i < b->fan_count; i++)
        rh_handle_unref(&sh->stock.handles, fan_at(b, i)->h);
    rh_list_del(&b->running);
    rh_list_del(&b->unreported);
    rh_mem_free(b->fans);
    rh_mem_free(b->subs);
    rh_mem_free(b);
}

/* ---- what the home is told ---- */

static bool tell_home(struct rh_shard *sh, unsigned home, uint64_t uid, uint64_t done,
                      uint64_t bytes)
{
    struct rh_event ev = {.kind = RH_EV_FANNED, .a = uid, .b = done, .c = bytes};

    if (home != sh->tid)
        return rh_mesh_tell(sh->mesh, home, &ev) == RH_OK;
    rh_room_fanned(sh, home, uid, done, bytes);
    return true;
}

/* Tells now what is finished. False: no memory, it is still to be told. */
static bool report(struct rh_shard *sh, struct rh_branch *b)
{
    uint64_t done = b->done, bytes = b->done_bytes;

    rh_list_del(&b->unreported);
    if (!done)
        return true;
    b->done = b->done_bytes = 0; /* the home may call us */
    if (tell_home(sh, b->home, b->uid, done, bytes))
        return true;
    b->done = done;
    b->done_bytes = bytes;
    rh_list_add(&sh->unreported, &b->unreported);
    return false;
}

/* So many more are finished; the home is told when it is due. */
static void add_done(struct rh_shard *sh, struct rh_branch *b, uint64_t done, uint64_t bytes)
{
    b->done += done;
    b->done_bytes += bytes;
    if (rh_list_empty(&b->unreported) &&
        (b->home == sh->tid || b->count == 0 || b->done >= RH_FANNED_COUNT ||
         b->done_bytes >= RH_FANNED_BYTES))
        rh_list_add(&sh->unreported, &b->unreported);
}

/* Tells of strays; those of our own rooms only if `own`. What cannot be told stays. */
static void report_strays(struct rh_shard *sh, bool own)
{
    for (unsigned i = sh->stray_count; i-- > 0;) {
        struct rh_stray stray = sh->strays[i];

        if (stray.home == sh->tid && !own)
            continue;
        sh->strays[i] = sh->strays[--sh->stray_count];
        if (!tell_home(sh, stray.home, stray.uid, stray.done, stray.done_bytes))
            sh->strays[sh->stray_count++] = stray;
    }
}

static void add_stray(struct rh_shard *sh, unsigned home, uint64_t uid, uint64_t bytes)
{
    unsigned i = 0;

    while (i < sh->stray_count && sh->strays[i].uid != uid)
        i++;
    if (i == RH_STRAYS_MAX) {
        report_strays(sh, false);
        i = sh->stray_count;
    }
    if (i == RH_STRAYS_MAX) {
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
        RH_LOG_EVERY(1, RH_LOG_WARN, "fanout.unreported", RH_KU("shard", sh->tid));
        return;
    }
    if (i == sh->stray_count)
        sh->strays[sh->stray_count++] = (struct rh_stray){.uid = uid, .home = (uint8_t)home};
    sh->strays[i].done++;
    sh->strays[i].done_bytes += bytes;
}

/* ---- messages that wait ---- */

/* It is finished here: everyone has been handed it, or nobody will be. */
static void finish(struct rh_shard *sh, struct rh_msg *msg)
{
    if (rh_unlikely(msg->shares))
        rh_owed_shares_done(sh, msg);
}

static void pop_fans(struct rh_shard *sh, struct rh_branch *b, uint32_t count)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct rh_handle *h = fan_at(b, i)->h;

        bytes += h->msg->frame_len;
        finish(sh, h->msg);
        rh_handle_unref(&sh->stock.handles, h);
    }
    b->fan_head += count;
    b->fan_count -= count;
    rh_stat_sub(&sh->stats, RH_STAT_fanouts_unfinished, count);
    add_done(sh, b, count, bytes);
    if (b->fan_count || b->fan_room <= FANS_KEPT)
        return;
    rh_mem_free(b->fans);
    b->fans = NULL;
    b->fan_room = 0;
}

static bool fans_grow(struct rh_branch *b)
{
    uint32_t room = b->fan_room ? 2 * b->fan_room : FANS_FIRST;
    struct rh_fan *fans = rh_mem_alloc(room * sizeof(*fans));

    if (!fans)
        return false;
    for (uint32_t i = 0; i < b->fan_count; i++)
        fans[i] = *fan_at(b, i);
    rh_mem_free(b->fans);
    b->fans = fans;
    b->fan_room = room;
    b->fan_head = 0;
    return true;
}

/* False: no memory, the hold is still the caller's. */
static bool push_fan(struct rh_shard *sh, struct rh_branch *b, struct rh_msg *take_msg)
{
    uint64_t seq = take_msg->kind == RH_MSG_ROOM ? take_msg->seq : 0;
    struct rh_handle *h;

    if (b->fan_count == b->fan_room && !fans_grow(b))
        return false;
    h = rh_handle_make(&sh->stock.handles, take_msg);
    if (!h)
        return false;
    *fan_at(b, b->fan_count++) = (struct rh_fan){.h = h, .seq = seq, .number = b->pushed};
    rh_stat_add(&sh->stats, RH_STAT_fanouts_unfinished, 1);
    return true;
}

static void wake(struct rh_shard *sh, struct rh_branch *b)
{
    if (rh_list_empty(&b->running))
        rh_list_add(&sh->running, &b->running);
}

void rh_fanout_push(struct rh_shard *sh, unsigned home, uint64_t uid, struct rh_msg *take_msg)
{
    struct rh_branch *b = rh_branch_find(sh, uid);
    uint32_t bytes = take_msg->frame_len;

    if (rh_unlikely(take_msg->shares))
        rh_owed_shares(sh, take_msg);
    if (!b || b->count == 0) {
        finish(sh, take_msg);
        rh_msg_drop_any(take_msg);
        if (b)
            add_done(sh, b, 1, bytes);
        else
            add_stray(sh, home, uid, bytes);
        return;
    }
    if (!push_fan(sh, b, take_msg)) {
        finish(sh, take_msg);
        rh_msg_drop_any(take_msg);
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
        b->hole = b->pushed + 1;
        add_done(sh, b, 1, bytes);
    }
    b->pushed++;
    wake(sh, b);
}

/* ---- subscriptions ---- */

/* Without subscribers: everything is finished, and once the home knows, the branch may go. */
static void drop_unused(struct rh_shard *sh, struct rh_branch *b)
{
    if (b->count || b->pins)
        return;
    b->batch = 0;
    pop_fans(sh, b, b->fan_count);
    rh_list_del(&b->running);
    if (b->done && !b->over)
        return;
    rh_map_del(&sh->branches, &b->node);
    branch_free(sh, b);
}

static void unpin(struct rh_shard *sh, struct rh_branch *b)
{
    b->pins--;
    drop_unused(sh, b);
}

int rh_branch_add(struct rh_shard *sh, struct rh_sub *sub, uint64_t uid)
{
    struct rh_branch *b = rh_branch_find(sh, uid);

    if (!b)
        b = branch_create(sh, uid, sub->room_hash);
    if (!b)
        return RH_ENOMEM;
    if (b->count == b->room) {
        uint32_t room = b->room ? 2 * b->room : SUBS_FIRST;
        struct rh_sub **subs = rh_mem_realloc(b->subs, room * sizeof(struct rh_sub *));

        if (!subs) {
            drop_unused(sh, b);
            return RH_ENOMEM;
        }
        b->subs = subs;
        b->room = room;
    }
    sub->branch = b;
    sub->first = b->pushed;
    sub->index = b->count;
    b->subs[b->count++] = sub;
    return RH_OK;
}

static void move_sub(struct rh_branch *b, uint32_t from, uint32_t to)
{
    b->subs[to] = b->subs[from];
    b->subs[to]->index = to;
}

static void shrink(struct rh_branch *b)
{
    struct rh_sub **subs;

    if (b->room <= SUBS_FIRST || b->count > b->room / 4)
        return;
    subs = rh_mem_realloc(b->subs, b->room / 2 * sizeof(struct rh_sub *));
    if (!subs)
        return;
    b->subs = subs;
    b->room /= 2;
}

void rh_branch_del(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_branch *b = sub->branch;
    uint32_t gap = sub->index;

    rh_assert(gap < b->count && b->subs[gap] == sub);
    if (gap < b->cursor) {
        move_sub(b, --b->cursor, gap);
        gap = b->cursor;
    }
    if (gap != --b->count) /* else what is there has moved already */
        move_sub(b, b->count, gap);
    sub->branch = NULL;
    shrink(b);
    drop_unused(sh, b);
}

/* ---- the walk ---- */

/* A message that the cursor carries, as the walk needs it. */
struct carried {
    struct rh_handle *h;
    uint64_t seq, number;
    const struct rh_user *excluded; /* NULL: nobody here */
    bool owed;                      /* to some */
};

/* A user is the same name as another only if it is the same user: we own them all. */
static const struct rh_user *excluded(const struct rh_shard *sh, const struct rh_msg *msg)
{
    if (!msg->excludes)
        return NULL;
    return rh_user_find(sh, msg->from_hash, (const char *)msg->bytes + msg->from_at, msg->from_len);
}

static struct carried carry(const struct rh_shard *sh, const struct rh_fan *fan)
{
    const struct rh_msg *msg = fan->h->msg;

    return (struct carried){fan->h, fan->seq, fan->number, excluded(sh, msg), msg->shares != NULL};
}

/* All that waits, as far as one walk carries it; returns how many that are. */
static uint32_t load(const struct rh_shard *sh, const struct rh_branch *b, struct carried *carried)
{
    uint32_t count = RH_MIN(b->fan_count, (uint32_t)RH_FANOUT_BATCH);

    for (uint32_t i = 0; i < count; i++) {
        const struct rh_fan *fan = fan_at(b, i);

        carried[i] = carry(sh, fan);
    }
    return count;
}

/* Its connection, if it takes messages now. */
static struct rh_conn *open_conn(const struct rh_sub *sub)
{
    struct rh_conn *c = sub->state == RH_SUB_ACTIVE ? sub->session->conn : NULL;

    return c && c->state == RH_CONN_OPEN ? c : NULL;
}

static void give(struct rh_shard *sh, struct rh_sub *sub, struct rh_conn *c, struct rh_handle *h)
{
    if (sub->replay)
        rh_sub_park(sh, sub, h);
    else
        rh_conn_push(sh, c, h);
}

/* Would what is owed be lost there? */
static bool has_no_room(const struct rh_shard *sh, const struct rh_sub *sub,
                        const struct rh_conn *c)
{
    if (sub->replay)
        return sub->replay->lost_count || rh_conn_full(sh, c);
    return !rh_conn_takes_share(sh, c);
}

/* The same for a message that somebody is owed. */
static void give_owed(struct rh_shard *sh, struct rh_sub *sub, struct rh_conn *c,
                      struct rh_handle *h)
{
    enum rh_share_way way = has_no_room(sh, sub, c) ? RH_SHARE_FULL : RH_SHARE_LIVE;
    struct rh_handle *own;
    bool skip;

    own = rh_owed_share_out(sh, c, h, way, &skip);
    if (skip)
        return;
    h = own ? own : h;
    if (!sub->replay && h->msg->ack && way == RH_SHARE_LIVE)
        rh_conn_put_owed(sh, c, h);
    else
        give(sh, sub, c, h);
    if (own)
        rh_handle_unref(&sh->stock.handles, own);
}

/* What of these it has not had yet. */
static void hand_out(struct rh_shard *sh, struct rh_sub *sub, const struct carried *carried,
                     uint32_t count)
{
    struct rh_conn *c = open_conn(sub);
    uint64_t first = sub->first;

    sub->first = RH_MAX(first, carried[count - 1].number + 1);
    for (uint32_t i = 0; c && i < count; i++) {
        const struct carried *m = &carried[i];

        if (m->number < first || (m->seq && m->seq <= sub->seq))
            continue;
        if (!m->excluded || m->excluded != rh_session_user(sub->session)) {
            if (rh_unlikely(m->owed))
                give_owed(sh, sub, c, m->h);
            else
                give(sh, sub, c, m->h);
            if (c->state != RH_CONN_OPEN)
                return; /* and the subscription may be gone */
        }
        if (m->seq)
            sub->seq = m->seq;
    }
}

/* Reads of the next AHEAD subscribers what handing out will wait for, so that their misses overlap;
 * returns how far that is. By loads: prefetches were measured to do nothing (pages that the TLB has
 * not), and these to save a third of the time where nothing was cached. */
static uint32_t read_ahead(const struct rh_branch *b, uint64_t last)
{
    uint32_t end = b->cursor > AHEAD ? b->cursor - AHEAD : 0;
    uintptr_t seen = 0;

    for (uint32_t i = b->cursor; i-- > end;) {
        const struct rh_sub *sub = b->subs[i];
        const struct rh_conn *c = sub->first <= last ? sub->session->conn : NULL;

        if (c)
            seen += c->state + (uintptr_t)c->out;
    }
    __asm__ volatile("" ::"r"(seen)); /* it counts as used */
    return end;
}

/* Goes on with the lap; returns how many it looked at. */
static unsigned walk(struct rh_shard *sh, struct rh_branch *b, unsigned budget)
{
    struct carried carried[RH_FANOUT_BATCH];
    uint32_t count = load(sh, b, carried), read = UINT32_MAX;
    unsigned looked = 0;

    for (; b->cursor && looked < budget; looked++) {
        if (b->cursor <= read)
            read = read_ahead(b, carried[count - 1].number);
        hand_out(sh, b->subs[--b->cursor], carried, count);
    }
    return looked;
}

/* Who misses a message for want of memory does not get the next one. */
static void close_if_missed(struct rh_shard *sh, const struct rh_sub *sub, uint64_t hole)
{
    struct rh_conn *c = sub->first < hole ? open_conn(sub) : NULL;

    if (!c)
        return;
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_memory, 1);
    rh_conn_close(sh, c, 1013, "out of memory");
}

/* From the end: what takes the place of one who leaves has been looked at. */
static void close_at_hole(struct rh_shard *sh, struct rh_branch *b)
{
    uint64_t hole = b->hole;

    b->hole = 0;
    for (uint32_t i = b->count; i-- > 0;)
        if (i < b->count)
            close_if_missed(sh, b->subs[i], hole);
}

void rh_fanout_flush(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_branch *b = sub->branch;
    uint32_t next = b->fan_count - (uint32_t)RH_MIN(b->pushed - sub->first, b->fan_count);

    b->pins++;
    close_if_missed(sh, sub, b->hole);
    for (; sub->branch == b && next < b->fan_count; next++) {
        const struct rh_fan *fan = fan_at(b, next);
        struct carried one = carry(sh, fan);

        hand_out(sh, sub, &one, 1);
    }
    unpin(sh, b);
}

static unsigned end_subs(struct rh_shard *sh, struct rh_branch *b, unsigned budget)
{
    unsigned looked = 0;

    for (; b->count && looked < budget; looked++) {
        uint32_t before = b->count;

        rh_sub_over(sh, b->subs[before - 1]);
        rh_assert(b->count < before);
    }
    return looked;
}

/* The lap goes on, or begins; returns how many it looked at. */
static unsigned step(struct rh_shard *sh, struct rh_branch *b, unsigned budget)
{
    unsigned looked;

    if (!b->batch) {
        b->batch = RH_MIN(b->fan_count, (uint32_t)RH_FANOUT_BATCH);
        b->cursor = b->count;
    }
    looked = walk(sh, b, budget);
    if (b->cursor)
        return looked;
    pop_fans(sh, b, b->batch);
    b->batch = 0;
    if (b->home == sh->tid)
        report(sh, b); /* may bring what was held there */
    return looked;
}

/* One branch's turn; it is pinned. */
static unsigned take_turn(struct rh_shard *sh, struct rh_branch *b, unsigned budget)
{
    unsigned looked = 0;

    do {
        if (b->hole)
            close_at_hole(sh, b);
        if (b->fan_count)
            looked += step(sh, b, budget - looked);
    } while (looked < budget && (b->fan_count || b->hole));
    if (b->over && !b->fan_count)
        looked += end_subs(sh, b, budget - looked);
    return looked;
}

void rh_fanout_over(struct rh_shard *sh, uint64_t uid)
{
    struct rh_branch *b = rh_branch_find(sh, uid);

    if (!b)
        return;
    b->over = true;
    wake(sh, b);
    drop_unused(sh, b);
}

/* Shards that take turns on one processor do as much in one round together as one would alone. */
static unsigned share(const struct rh_shard *sh, bool busy)
{
    if (sh->env->crowd > 1)
        return RH_MAX(RH_FANOUT_BUSY / sh->env->crowd, 1u);
    return busy ? RH_FANOUT_BUSY : RH_FANOUT_IDLE;
}

bool rh_fanout_run(struct rh_shard *sh, bool busy)
{
    unsigned left = share(sh, busy);
    bool more;

    left -= rh_broadcast_run(sh, rh_list_empty(&sh->running) ? left : left / 2);
    while (left && !rh_list_empty(&sh->running)) {
        struct rh_branch *b = rh_container_of(sh->running.next, struct rh_branch, running);

        b->pins++;
        rh_list_del(&b->running);
        left -= take_turn(sh, b, RH_MIN(left, (unsigned)RH_FANOUT_TURN));
        if (b->fan_count || b->hole || b->over)
            wake(sh, b);
        unpin(sh, b);
    }
    if (left)
        rh_broadcast_run(sh, left);
    more = !rh_list_empty(&sh->running) || !rh_list_empty(&sh->broadcasts);
    rh_stat_add(&sh->stats, RH_STAT_fanout_pauses, more);
    return more;
}

void rh_fanout_report(struct rh_shard *sh)
{
    struct rh_list due;

    report_strays(sh, true);
    rh_list_init(&due);
    while (!rh_list_empty(&sh->unreported)) {
        struct rh_list *node = sh->unreported.next;

        rh_list_del(node);
        rh_list_add(&due, node);
    }
    while (!rh_list_empty(&due)) {
        struct rh_branch *b = rh_container_of(due.next, struct rh_branch, unreported);

        b->pins++;
        report(sh, b);
        unpin(sh, b);
    }
}

static void fini_one(void *arg, struct rh_map_node *node)
{
    branch_free(arg, rh_container_of(node, struct rh_branch, node));
}

void rh_branches_fini(struct rh_shard *sh)
{
    rh_map_each(&sh->branches, fini_one, sh);
    rh_map_fini(&sh->branches);
    sh->stray_count = 0;
}
