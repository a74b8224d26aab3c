/* shard/owed_time.c - what time does to what is owed: the ack thread's dates, and expiry.
 *
 * In flight  The ack thread is the alarm clock. It hears of an item only when that is unanswered for
 *            RH_ARM_AFTER_MS, or a tenth of ack.timeout: most are answered before, and never cross. Until
 *            then they stand in a FIFO, by slot, generation and time of delivery; what has ended, or
 *            was handed out again meanwhile, is recognised by these, and passed over. Its dates come
 *            back as DUE: a hint, for an item that may have ended, or left the flight.
 * Waiting    One alarm for all that waits for a user, not later than the first end of any. When it rings
 *            all of them are looked at, SCAN of them a ms. A loss that is still to be told when
 *            nothing is left rings it, too, after offline.ttl.
 * Start      Nothing expires before hub time has reached the newest time that is stored.
 */
#include "core/limits.h"
#include "core/mem.h"
#include "shard/owed_int.h"

#define ARM_A_PASS 512
#define SCAN       1024
#define FRESH_MIN  64 /* places of the FIFO, to begin with */
#define AGAIN_MS   5  /* what found no memory is tried again */

/* ---- the FIFO ---- */

static struct rh_owed_fresh *fresh_at(const struct rh_owed_shard *all, uint32_t i)
{
    return &all->fresh[(all->fresh_head + i) & (all->fresh_room - 1)];
}

bool rh_owed_fresh_room(struct rh_shard *sh)
{
    struct rh_owed_shard *all = &sh->owed;
    uint32_t room = all->fresh_room ? all->fresh_room * 2 : FRESH_MIN;
    struct rh_owed_fresh *fresh;

    if (all->fresh_count < all->fresh_room)
        return true;
    fresh = rh_mem_alloc(room * sizeof(*fresh));
    if (!fresh)
        return false;
    for (uint32_t i = 0; i < all->fresh_count; i++)
        fresh[i] = *fresh_at(all, i);
    rh_mem_free(all->fresh);
    all->fresh = fresh;
    all->fresh_room = room;
    all->fresh_head = 0;
    return true;
}

void rh_owed_fresh_put(struct rh_shard *sh, const struct rh_owed_item *item)
{
    struct rh_owed_shard *all = &sh->owed;

    rh_assert(all->fresh_count < all->fresh_room);
    *fresh_at(all, all->fresh_count++) = (struct rh_owed_fresh){item->slot, item->gen, item->sent};
}

static void fresh_pop(struct rh_owed_shard *all)
{
    all->fresh_head = (all->fresh_head + 1) & (all->fresh_room - 1);
    if (--all->fresh_count || all->fresh_room <= FRESH_MIN)
        return;
    rh_mem_free(all->fresh); /* a burst's memory goes with it */
    all->fresh = NULL;
    all->fresh_room = all->fresh_head = 0;
}

/* ---- the ack thread ---- */

static uint64_t arm_after_ns(const struct rh_shard *sh)
{
    return RH_MIN(RH_ARM_AFTER_MS, sh->cfg->ack_timeout_ms / 10) * 1000000ull;
}

/* The monotonic ms at which an end (unix) has come. */
static uint64_t due_ms(const struct rh_shard *sh, uint64_t end_ms)
{
    uint64_t newest = atomic_load_explicit(&sh->env->promises->newest_ms, memory_order_relaxed);
    uint64_t now = rh_now_unix_ms(sh);
    uint64_t end = RH_MAX(end_ms, newest);

    return end <= now ? sh->now_ms : sh->now_ms + (end - now);
}

bool rh_owed_expired(const struct rh_shard *sh, const struct rh_owed_item *item)
{
    return due_ms(sh, item->msg->expires_ms) <= sh->now_ms;
}

static uint64_t name_of(const struct rh_owed_item *item)
{
    return (uint64_t)item->gen << 32 | item->slot;
}

static bool arm(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_event ev = {.kind = RH_EV_ARM,
                          .a = name_of(item),
                          .b = item->repetitions,
                          .c = sh->now_ms - rh_owed_since_ns(sh, item->sent) / 1000000,
                          .d = due_ms(sh, item->msg->expires_ms)};

    if (rh_mesh_tell(sh->mesh, sh->env->ack, &ev) < 0)
        return false;
    item->armed = true;
    return true;
}

void rh_owed_disarm(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_event ev = {.kind = RH_EV_DISARM, .a = name_of(item)};

    if (!item->armed)
        return;
    item->armed = false;
    /* Without memory for it the alarm rings, and is recognised as an old one. */
    (void)rh_mesh_tell(sh->mesh, sh->env->ack, &ev);
}

/* The same for one that would else have no date: without memory it waits until there is some. */
static void arm_or_requeue(struct rh_shard *sh, struct rh_owed_item *item)
{
    if (!arm(sh, item))
        rh_owed_requeue(sh, item);
}

/* What the entry stands for, if that is still unanswered, and the same delivery. */
static struct rh_owed_item *unanswered(const struct rh_shard *sh, const struct rh_owed_fresh *f)
{
    struct rh_owed_item *item = rh_owed_by_name(sh, f->slot, f->gen);

    return item && item->at == RH_OWED_FLIGHT && item->sent == f->sent && !item->armed ? item
                                                                                       : NULL;
}

void rh_owed_arm(struct rh_shard *sh)
{
    struct rh_owed_shard *all = &sh->owed;

    for (unsigned left = ARM_A_PASS; left && all->fresh_count; left--) {
        const struct rh_owed_fresh *f = fresh_at(all, 0);
        struct rh_owed_item *item = unanswered(sh, f);

        if (item && rh_owed_since_ns(sh, f->sent) < arm_after_ns(sh))
            return;
        if (item && !arm(sh, item))
            return;
        fresh_pop(all);
    }
}

uint64_t rh_owed_next_ms(const struct rh_shard *sh)
{
    const struct rh_owed_shard *all = &sh->owed;
    uint64_t next = all->marked || all->untold ? AGAIN_MS : UINT64_MAX;
    uint64_t age, after = arm_after_ns(sh);

    if (!all->fresh_count)
        return next;
    age = rh_owed_since_ns(sh, fresh_at(all, 0)->sent);
    return RH_MIN(next, age < after ? (after - age) / 1000000 + 1 : AGAIN_MS);
}

/* ---- dates that have come ---- */

static void give_up(struct rh_shard *sh, struct rh_owed_item *item)
{
    rh_owed_settle(sh, item, RH_STATE_ack_timeout, RH_REASON_ack_timeout);
}

/* Once more, to all that have room. Where nobody has, the time goes on all the same: a client that takes
 * nothing is closed, and what it was handed waits then. */
static void repeat(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_user *user = item->owed->user;
    struct rh_handle *h;

    item->repetitions += item->repetitions < UINT8_MAX;
    if (!rh_owed_room(sh, user)) {
        item->sent = rh_owed_ticks(sh);
        arm_or_requeue(sh, item);
        return;
    }
    h = rh_owed_handle(sh, item, item->attempt + 1);
    if (!h || !rh_owed_refly(sh, item)) {
        if (h)
            rh_handle_unref(&sh->stock.handles, h);
        rh_owed_requeue(sh, item); /* until there is memory */
        return;
    }
    rh_stat_add(&sh->stats, RH_STAT_retries_ack_timeout, 1);
    rh_user_pin(user);
    rh_owed_push(sh, item, h);
    rh_user_unpin(sh, user);
    rh_handle_unref(&sh->stock.handles, h);
}

static void due(struct rh_shard *sh, struct rh_owed_item *item, enum rh_due what)
{
    item->armed = false;
    if (rh_owed_expired(sh, item))
        rh_owed_settle(sh, item, RH_STATE_expired, RH_REASON_expired);
    else if (what == RH_DUE_EXPIRED)
        arm_or_requeue(sh, item); /* not yet, after all */
    else if (what == RH_DUE_GIVE_UP || !rh_config_retries(sh->cfg, RH_REASON_ack_timeout))
        give_up(sh, item);
    else
        repeat(sh, item);
}

/* The ack thread had no memory for some of these slots. */
static void arm_again(struct rh_shard *sh, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot - first < count; slot++) {
        struct rh_owed_item *item;

        if (slot / RH_OWED_SLAB >= sh->owed.slab_count)
            return;
        item = &sh->owed.slabs[slot / RH_OWED_SLAB][slot % RH_OWED_SLAB];
        if (item->at == RH_OWED_FLIGHT && item->armed)
            arm_or_requeue(sh, item);
    }
}

void rh_owed_due_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_event reply = {.kind = RH_EV_DUE_DONE};
    struct rh_owed_item *item = rh_owed_by_name(sh, (uint32_t)ev->a, (uint32_t)(ev->a >> 32));

    rh_mesh_reply(sh->mesh, ev, &reply);
    if (ev->b == RH_DUE_AGAIN)
        arm_again(sh, (uint32_t)ev->a, (uint32_t)(ev->a >> 32));
    else if (item && item->at == RH_OWED_FLIGHT && item->armed)
        due(sh, item, (enum rh_due)ev->b);
}

/* ---- those that wait ---- */

void rh_owed_expiry_add(struct rh_shard *sh, const struct rh_owed_item *item)
{
    struct rh_owed *o = item->owed;
    uint64_t due = due_ms(sh, item->msg->expires_ms);

    if (o->scan)
        o->scan_ms = RH_MIN(o->scan_ms, item->msg->expires_ms);
    else if (!rh_timer_armed(&o->expiry.timer) || due < o->expiry.timer.due_ms)
        rh_alarm_set(sh, &o->expiry, due);
}

void rh_owed_expiry_del(struct rh_owed_item *item)
{
    if (item->owed->scan == &item->of_user)
        item->owed->scan = item->of_user.next;
}

void rh_owed_expiry_lost(struct rh_shard *sh, struct rh_owed *o)
{
    rh_alarm_set(sh, &o->expiry, sh->now_ms + sh->cfg->offline_ttl_ms);
}

static void forget_lost(struct rh_shard *sh, struct rh_owed *o)
{
    if (!rh_user_devices(o->user)) /* else it is about to be told */
        o->lost.count = 0;
    rh_owed_mark(sh, o);
}

void rh_owed_expiry_ring(struct rh_shard *sh, struct rh_alarm *alarm)
{
    struct rh_owed *o = rh_container_of(alarm, struct rh_owed, expiry);
    unsigned left = SCAN;

    if (!o->items) {
        forget_lost(sh, o);
        return;
    }
    if (!o->scan) {
        o->scan = o->waiting.next;
        o->scan_ms = UINT64_MAX;
    }
    while (o->scan != &o->waiting && left--) {
        struct rh_owed_item *item = rh_container_of(o->scan, struct rh_owed_item, of_user);

        if (rh_owed_expired(sh, item)) {
            rh_owed_settle(sh, item, RH_STATE_expired, RH_REASON_expired); /* moves `scan` on */
            continue;
        }
        o->scan_ms = RH_MIN(o->scan_ms, item->msg->expires_ms);
        o->scan = o->scan->next;
    }
    if (o->scan != &o->waiting) {
        rh_alarm_set(sh, alarm, sh->now_ms + 1);
        return;
    }
    o->scan = NULL;
    if (o->scan_ms != UINT64_MAX)
        rh_alarm_set(sh, alarm, RH_MAX(due_ms(sh, o->scan_ms), sh->now_ms + 1));
}
