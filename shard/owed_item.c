/* shard/owed_item.c - items of what is owed: where they stand, their states, and how they end.
 *
 * Why this way: an item changes its place, its state and what is counted of it together, and only here;
 * who hands it out (owed.c), hears of it (owed_ack.c) or looks at the time (owed_time.c) asks for one of
 * these steps. None of them queues anything for a connection, so none of them can close one.
 *
 *     add      -> COMING                            wait   COMING -> WAITING
 *     fly      COMING, WAITING -> FLIGHT            refly  FLIGHT -> FLIGHT, once more
 *     requeue  FLIGHT -> WAITING                    settle any -> ENDED, or gone
 *
 * Order      `waiting` and `flight` are in the order of acceptance. What comes to wait anew is the
 *            latest, and what returns from the flight is older than most: each is looked for from its
 *            end.
 * Memory     The record thread is told of an end even if there is no memory for that now: the item
 *            keeps it until it could be told. Its ATTEMPTs and PROGRESS need not be told so badly: a
 *            number may then come again after a crash, and a sender misses a state on the way.
 */
#include "shard/owed_int.h"

#include <string.h>

#include "core/mem.h"

/* ---- memory ---- */

static bool more_slabs(struct rh_owed_shard *all)
{
    uint32_t room = all->slab_room ? all->slab_room * 2 : 16;
    struct rh_owed_item **slabs = rh_mem_realloc(all->slabs, room * sizeof(struct rh_owed_item *));

    if (!slabs)
        return false;
    all->slabs = slabs;
    all->slab_room = room;
    return true;
}

static struct rh_owed_item *next_of(struct rh_owed_item *item)
{
    return item->node.next ? rh_container_of(item->node.next, struct rh_owed_item, node) : NULL;
}

static void push_to(struct rh_owed_item **list, struct rh_owed_item *item)
{
    item->node.next = *list ? &(*list)->node : NULL;
    *list = item;
}

static bool slab_grow(struct rh_owed_shard *all)
{
    struct rh_owed_item *slab;

    if (all->slab_count == all->slab_room && !more_slabs(all))
        return false;
    slab = rh_mem_zalloc(RH_OWED_SLAB * sizeof(*slab));
    if (!slab)
        return false;
    for (uint32_t i = RH_OWED_SLAB; i-- > 0;) { /* the lowest are used first */
        slab[i].slot = all->slab_count * RH_OWED_SLAB + i;
        push_to(&all->free, &slab[i]);
    }
    all->slabs[all->slab_count++] = slab;
    return true;
}

static struct rh_owed_item *item_take(struct rh_shard *sh)
{
    struct rh_owed_shard *all = &sh->owed;
    struct rh_owed_item *item;
    uint32_t slot, gen;

    if (!all->items.dir && rh_map_init(&all->items) < 0)
        return NULL;
    if (!all->free && !slab_grow(all))
        return NULL;
    item = all->free;
    all->free = next_of(item);
    slot = item->slot;
    gen = item->gen;
    memset(item, 0, sizeof(*item));
    item->slot = slot;
    item->gen = gen;
    rh_list_init(&item->of_user);
    return item;
}

static void item_give(struct rh_shard *sh, struct rh_owed_item *item)
{
    item->gen++;
    item->at = RH_OWED_FREE;
    item->owed = NULL;
    item->msg = NULL;
    push_to(&sh->owed.free, item);
}

struct rh_owed_item *rh_owed_by_name(const struct rh_shard *sh, uint32_t slot, uint32_t gen)
{
    struct rh_owed_item *item;

    if (slot / RH_OWED_SLAB >= sh->owed.slab_count)
        return NULL;
    item = &sh->owed.slabs[slot / RH_OWED_SLAB][slot % RH_OWED_SLAB];
    return item->gen == gen && item->at != RH_OWED_FREE ? item : NULL;
}

/* ---- a user's queue ---- */

struct rh_owed *rh_owed_of(struct rh_shard *sh, struct rh_user *user)
{
    struct rh_user_more *more = rh_user_more(user);
    struct rh_owed *o = more ? more->owed : NULL;

    if (!more || o)
        return o;
    o = rh_mem_zalloc(sizeof(*o));
    if (!o)
        return NULL;
    o->user = user;
    o->online = rh_user_devices(user) != 0;
    rh_list_init(&o->flight);
    rh_list_init(&o->waiting);
    rh_alarm_init(&o->expiry, rh_owed_expiry_ring);
    more->owed = o;
    rh_owed_mark(sh, o); /* so that it goes if nothing comes of it */
    return o;
}

void rh_owed_free(struct rh_shard *sh, struct rh_owed *o)
{
    struct rh_user *user = o->user;

    rh_assert(!o->items && !o->marked);
    rh_alarm_clear(sh, &o->expiry);
    rh_user_pin(user);
    user->more->owed = NULL;
    rh_mem_free(o->conns);
    rh_mem_free(o);
    rh_user_unpin(sh, user);
}

void rh_owed_mark(struct rh_shard *sh, struct rh_owed *o)
{
    if (o->marked)
        return;
    o->marked = true;
    o->next = sh->owed.marked;
    sh->owed.marked = o;
}

/* ---- the map ---- */

uint64_t rh_owed_key(uint64_t user_hash, uint64_t id_hash)
{
    return id_hash ^ (user_hash << 32 | user_hash >> 32);
}

static bool same_id(const struct rh_msg *a, const struct rh_msg *b)
{
    return a->id_len == b->id_len &&
           memcmp(a->bytes + a->id_at, b->bytes + b->id_at, a->id_len) == 0;
}

static bool same_room(const struct rh_msg *a, const struct rh_msg *b)
{
    return a->kind != RH_MSG_ROOM ||
           (a->to_len == b->to_len &&
            memcmp(a->bytes + a->to_at, b->bytes + b->to_at, a->to_len) == 0);
}

struct rh_owed_item *rh_owed_find(const struct rh_shard *sh, const struct rh_owed *o,
                                  const struct rh_msg *msg)
{
    uint64_t hash = msg->id_hash;
    struct rh_map_node *node;

    if (!o->items)
        return NULL;
    if (!hash)
        hash = rh_hash(&sh->env->hash_key, msg->bytes + msg->id_at, msg->id_len);
    node = rh_map_first(&sh->owed.items, rh_owed_key(o->user->node.hash, hash));
    for (; node; node = rh_map_again(node)) {
        struct rh_owed_item *item = rh_container_of(node, struct rh_owed_item, node);

        if (item->owed == o && item->msg->kind == msg->kind && same_id(item->msg, msg) &&
            same_room(item->msg, msg))
            return item;
    }
    return NULL;
}

static enum rh_state state_of_waiting(const struct rh_owed *o)
{
    return o->online ? RH_STATE_pending : RH_STATE_user_offline;
}

struct rh_owed_item *rh_owed_add(struct rh_shard *sh, struct rh_owed *o, struct rh_msg *take_msg,
                                 uint32_t share)
{
    struct rh_owed_item *item = item_take(sh);

    if (!item)
        return NULL;
    if (!take_msg->id_hash) /* nobody else has it yet */
        take_msg->id_hash =
            rh_hash(&sh->env->hash_key, take_msg->bytes + take_msg->id_at, take_msg->id_len);
    item->owed = o;
    item->msg = take_msg;
    item->share = share;
    item->order = ++sh->owed.order;
    item->state = (uint8_t)state_of_waiting(o); /* what it begins with is not told */
    item->at = RH_OWED_COMING;
    o->items++;
    rh_map_add(&sh->owed.items, &item->node, rh_owed_key(o->user->node.hash, take_msg->id_hash));
    return item;
}

void rh_owed_forget(struct rh_shard *sh, struct rh_owed_item *item)
{
    rh_assert(item->at == RH_OWED_COMING);
    rh_map_del(&sh->owed.items, &item->node);
    item->owed->items--;
    rh_owed_mark(sh, item->owed);
    item_give(sh, item);
}

/* ---- states ---- */

static void tell_progress(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_event ev = {.kind = RH_EV_PROGRESS,
                          .msg = item->msg,
                          .a = item->state,
                          .b = rh_now_unix_ms(sh),
                          .c = item->share};

    if (rh_mesh_tell(sh->mesh, sh->env->record, &ev) < 0)
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
}

void rh_owed_set_state(struct rh_shard *sh, struct rh_owed_item *item, enum rh_state state)
{
    rh_assert(rh_state_may(item->state, state));
    item->state = (uint8_t)state;
    if (sh->cfg->ack_progress && !rh_state_is_end(state) && item->msg->ack &&
        item->msg->from_user && item->msg->kind == RH_MSG_DIRECT)
        tell_progress(sh, item);
}

static void set_waiting_state(struct rh_shard *sh, struct rh_owed_item *item)
{
    enum rh_state state = state_of_waiting(item->owed);

    if (item->state != state)
        rh_owed_set_state(sh, item, state);
}

void rh_owed_restate(struct rh_shard *sh, struct rh_owed *o)
{
    bool online = rh_user_devices(o->user) != 0;

    if (o->online == online)
        return;
    o->online = online;
    for (struct rh_list *at = o->waiting.next; at != &o->waiting; at = at->next)
        set_waiting_state(sh, rh_container_of(at, struct rh_owed_item, of_user));
}

/* ---- those that wait ---- */

static struct rh_owed_item *item_at(struct rh_list *at)
{
    return rh_container_of(at, struct rh_owed_item, of_user);
}

/* Into its place, from the end where that should be. */
static void insert_last(struct rh_list *head, struct rh_owed_item *item)
{
    struct rh_list *at = head;

    while (at->prev != head && item_at(at->prev)->order > item->order)
        at = at->prev;
    rh_list_add(at, &item->of_user); /* in front of it */
}

static void insert_first(struct rh_list *head, struct rh_owed_item *item)
{
    struct rh_list *at = head->next;

    while (at != head && item_at(at)->order < item->order)
        at = at->next;
    rh_list_add(at, &item->of_user);
}

static void waits(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_owed *o = item->owed;

    item->at = RH_OWED_WAITING;
    o->waiting_count++;
    o->waiting_plain += !item->msg->ack;
    rh_stat_add(&sh->stats, RH_STAT_offline_messages, 1);
    rh_owed_expiry_add(sh, item);
    rh_owed_mark(sh, o);
}

static void waits_no_more(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_owed *o = item->owed;

    rh_owed_expiry_del(item);
    rh_list_del(&item->of_user);
    o->waiting_count--;
    o->waiting_plain -= !item->msg->ack;
    rh_stat_sub(&sh->stats, RH_STAT_offline_messages, 1);
    atomic_fetch_sub_explicit(&sh->env->promises->waiting, 1, memory_order_relaxed);
}

/* A place among those that wait in all. Not taken by force: false if there are as many as may be. */
static bool take_place(const struct rh_shard *sh, bool by_force)
{
    uint64_t before =
        atomic_fetch_add_explicit(&sh->env->promises->waiting, 1, memory_order_relaxed);

    if (by_force || before < sh->cfg->offline_max_total)
        return true;
    atomic_fetch_sub_explicit(&sh->env->promises->waiting, 1, memory_order_relaxed);
    return false;
}

static void note_lost(struct rh_owed *o, const struct rh_owed_item *item)
{
    uint64_t seq = item->msg->seq;

    if (!o->lost.count) {
        o->lost.from = o->lost.to = seq;
        o->lost.order = item->order;
    }
    o->lost.from = RH_MIN(o->lost.from, seq);
    o->lost.to = RH_MAX(o->lost.to, seq);
    o->lost.order = RH_MIN(o->lost.order, item->order);
    o->lost.count++;
}

static void drop_oldest_plain(struct rh_shard *sh, struct rh_owed *o)
{
    struct rh_list *at = o->waiting.next;

    while (item_at(at)->msg->ack)
        at = at->next;
    note_lost(o, item_at(at));
    rh_owed_settle(sh, item_at(at), RH_STATE_failed, RH_REASON_queue_full);
}

bool rh_owed_wait(struct rh_shard *sh, struct rh_owed_item *item, bool exempt)
{
    struct rh_owed *o = item->owed;
    bool full = !exempt && o->waiting_count >= sh->cfg->offline_max_messages;

    rh_assert(item->at == RH_OWED_COMING);
    if (full && !o->waiting_plain)
        return false;
    if (full)
        drop_oldest_plain(sh, o);
    if (!take_place(sh, full || exempt))
        return false;
    insert_last(&o->waiting, item);
    waits(sh, item);
    set_waiting_state(sh, item);
    return true;
}

/* ---- in flight ---- */

static void tell_attempt(struct rh_shard *sh, const struct rh_owed_item *item)
{
    struct rh_event ev = {.kind = RH_EV_ATTEMPT,
                          .msg = item->msg,
                          .a = item->attempt,
                          .b = rh_now_unix_ms(sh),
                          .c = item->share};

    if (rh_mesh_tell(sh->mesh, sh->env->record, &ev) < 0)
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
}

static void handed_out(struct rh_shard *sh, struct rh_owed_item *item, bool tell)
{
    item->attempt++;
    item->sent = rh_owed_ticks(sh);
    if (tell)
        tell_attempt(sh, item);
    if (item->msg->ack)
        rh_owed_fresh_put(sh, item);
}

bool rh_owed_fly(struct rh_shard *sh, struct rh_owed_item *item, bool tell)
{
    struct rh_owed *o = item->owed;

    rh_assert(item->at == RH_OWED_COMING || item->at == RH_OWED_WAITING);
    if (item->msg->ack && !rh_owed_fresh_room(sh))
        return false;
    if (item->at == RH_OWED_WAITING)
        waits_no_more(sh, item);
    insert_last(&o->flight, item);
    item->at = RH_OWED_FLIGHT;
    item->handed = 0;
    item->answered = 0;
    item->repetitions = 0;
    item->acked = false;
    o->unacked += item->msg->ack;
    rh_stat_add(&sh->stats, RH_STAT_unacked_messages, item->msg->ack);
    rh_owed_set_state(sh, item, RH_STATE_sending);
    handed_out(sh, item, tell);
    return true;
}

bool rh_owed_refly(struct rh_shard *sh, struct rh_owed_item *item)
{
    rh_assert(item->at == RH_OWED_FLIGHT && item->msg->ack);
    if (!rh_owed_fresh_room(sh))
        return false;
    rh_owed_disarm(sh, item);
    rh_owed_set_state(sh, item, RH_STATE_retrying);
    handed_out(sh, item, true);
    return true;
}

static void flies_no_more(struct rh_shard *sh, struct rh_owed_item *item)
{
    rh_owed_disarm(sh, item);
    item->gen++;
    rh_list_del(&item->of_user);
    item->owed->unacked -= item->msg->ack;
    rh_stat_sub(&sh->stats, RH_STAT_unacked_messages, item->msg->ack);
}

void rh_owed_requeue(struct rh_shard *sh, struct rh_owed_item *item)
{
    rh_assert(item->at == RH_OWED_FLIGHT);
    flies_no_more(sh, item);
    take_place(sh, true);
    insert_first(&item->owed->waiting, item);
    waits(sh, item);
    rh_owed_set_state(sh, item, state_of_waiting(item->owed));
}

/* ---- the end ---- */

static void count_end(struct rh_shard *sh, enum rh_state state, enum rh_reason reason)
{
    if (state == RH_STATE_success)
        return;
    rh_stat_add(&sh->stats, RH_STAT_failures_general, 1);
    if (state == RH_STATE_expired)
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_expired, 1);
    if (state == RH_STATE_ack_timeout)
        rh_stat_add(&sh->stats, RH_STAT_failures_timeout, 1);
    if (reason != RH_REASON_queue_full)
        return;
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_queue_full, 1);
    rh_stat_add(&sh->stats, RH_STAT_failures_queue_full, 1);
}

/* Moves the hold. False: no memory. */
static bool tell_settled(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_event ev = {.kind = RH_EV_SETTLED,
                          .msg = item->msg,
                          .a = item->state | (uint64_t)item->reason << 8,
                          .b = rh_now_unix_ms(sh),
                          .c = item->share};

    return rh_mesh_tell(sh->mesh, sh->env->record, &ev) == RH_OK;
}

static void leave_place(struct rh_shard *sh, struct rh_owed_item *item)
{
    if (item->at == RH_OWED_WAITING)
        waits_no_more(sh, item);
    else if (item->at == RH_OWED_FLIGHT)
        flies_no_more(sh, item);
    rh_map_del(&sh->owed.items, &item->node);
    item->owed->items--;
    rh_owed_mark(sh, item->owed);
}

void rh_owed_settle(struct rh_shard *sh, struct rh_owed_item *item, enum rh_state state,
                    enum rh_reason reason)
{
    uint64_t key = item->node.hash;

    rh_assert(rh_state_is_end(state));
    rh_owed_set_state(sh, item, state);
    item->reason = (uint8_t)reason;
    count_end(sh, state, reason);
    leave_place(sh, item);
    sh->owed.ended[key & (RH_OWED_ENDS - 1)] = key;
    if (tell_settled(sh, item)) {
        item_give(sh, item);
        return;
    }
    rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
    item->gen++;
    item->at = RH_OWED_ENDED;
    push_to(&sh->owed.untold, item);
}

void rh_owed_tell_ended(struct rh_shard *sh)
{
    while (sh->owed.untold && tell_settled(sh, sh->owed.untold)) {
        struct rh_owed_item *item = sh->owed.untold;

        sh->owed.untold = next_of(item);
        item_give(sh, item);
    }
}

/* ---- the shard is destroyed ---- */

static void fini_user(void *arg, struct rh_map_node *node)
{
    struct rh_shard *sh = arg;
    struct rh_owed *o = rh_user_owed(rh_container_of(node, struct rh_user, node));

    if (!o)
        return;
    o->items = 0;
    o->marked = false;
    rh_owed_free(sh, o);
}

void rh_owed_fini(struct rh_shard *sh)
{
    struct rh_owed_shard *all = &sh->owed;

    for (uint32_t i = 0; i < all->slab_count; i++) {
        for (uint32_t k = 0; k < RH_OWED_SLAB; k++)
            rh_msg_drop_any(all->slabs[i][k].msg);
        rh_mem_free(all->slabs[i]);
    }
    if (rh_map_count(&sh->users))
        rh_map_each(&sh->users, fini_user, sh);
    rh_map_fini(&all->items);
    rh_mem_free(all->slabs);
    rh_mem_free(all->fresh);
    memset(all, 0, sizeof(*all));
}
