/* shard/owed_room.c - shares of rooms' acknowledged messages, at the shards of the users who are owed
 * them.
 *
 * A share is made when the message comes here, before anybody is handed it: whoever was a member when
 * it got its number is owed it, connected or not, also if it leaves now. While fan-out walks, it stands
 * in no list (COMING); its user's connections get it in the room's order, whatever waits in the user's
 * queue:
 *
 *   FANOUT --> COMING --a connection gets it--> FLIGHT --ack--> settled
 *                 |  the lap has ended, and nobody got it         ^ history brings it: once more,
 *                 |--> WAITING ----rh_owed_run, or history--------'   in its place
 *                 `--> failed/queue_full, where as many wait as may
 *
 * Who is handed the message and is not owed it (the publisher's own user, one who has acknowledged it
 * on another device, one who joined later and reads history) gets a copy that asks for nothing. There is
 * one for all of them; it hangs on the handle.
 *
 * What a join brings by history comes once, there. So a share that waits is passed over while such a
 * join, or its replay, is under way (rh_owed_share_held).
 *
 * Epochs     Outside of its room's order a message says of which life it is, unless that is the present
 *            one: known where the room is at home, or anybody here subscribes to it.
 * Memory     None for an item: the share ends as failed/unknown. None for a frame: it waits.
 */
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "shard/owed_int.h"

static struct rh_span room_of(const struct rh_msg *msg)
{
    return (struct rh_span){(const char *)msg->bytes + msg->to_at, msg->to_len};
}

/* The first share of this shard; they are sorted. */
static uint32_t first_share(const struct rh_shard *sh, const struct rh_shares *s)
{
    uint32_t from = 0, to = s->count;

    while (from < to) {
        uint32_t mid = from + (to - from) / 2;

        if (s->at[mid].shard < sh->tid)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

/* What the user is owed of this very message. */
static struct rh_owed_item *item_of(const struct rh_shard *sh, const struct rh_user *user,
                                    const struct rh_msg *msg)
{
    const struct rh_owed *o = rh_user_owed(user);
    struct rh_owed_item *item = o ? rh_owed_find(sh, o, msg) : NULL;

    return item && item->msg->uid == msg->uid && item->msg->seq == msg->seq ? item : NULL;
}

/* ---- a message comes ---- */

/* There is no item that could end. */
static void fail_without_item(struct rh_shard *sh, struct rh_msg *msg, uint32_t share)
{
    struct rh_event ev = {.kind = RH_EV_SETTLED,
                          .msg = msg,
                          .a = RH_STATE_failed | RH_REASON_unknown << 8,
                          .b = rh_now_unix_ms(sh),
                          .c = share};

    rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
    rh_msg_hold_any(msg, 1);
    if (rh_mesh_tell(sh->mesh, sh->env->record, &ev) == RH_OK)
        return;
    rh_msg_drop_any(msg); /* it is owed, and will be told after the next start */
    RH_LOG_EVERY(1, RH_LOG_WARN, "owed.share_lost", RH_KU("shard", sh->tid));
}

static struct rh_owed_item *add_share(struct rh_shard *sh, struct rh_user *user, struct rh_msg *msg,
                                      uint32_t share)
{
    struct rh_owed *o = rh_owed_of(sh, user);
    struct rh_owed_item *item;

    if (!o)
        return NULL;
    rh_msg_hold_any(msg, 1);
    item = rh_owed_add(sh, o, msg, share);
    if (item)
        return item;
    rh_msg_drop_any(msg);
    return NULL;
}

void rh_owed_shares(struct rh_shard *sh, struct rh_msg *msg)
{
    const struct rh_shares *s = msg->shares;

    for (uint32_t i = first_share(sh, s); i < s->count && s->at[i].shard == sh->tid; i++) {
        const struct rh_share *share = &s->at[i];
        struct rh_user *user = rh_user_take(sh, share->hash, rh_share_name(s, i), share->name_len);

        if (!user || !add_share(sh, user, msg, i))
            fail_without_item(sh, msg, i);
        if (user)
            rh_user_unpin(sh, user);
    }
}

static void end_coming(struct rh_shard *sh, struct rh_user *user, const struct rh_msg *msg)
{
    struct rh_owed_item *item = item_of(sh, user, msg);

    if (!item || item->at != RH_OWED_COMING || rh_owed_wait(sh, item, false))
        return;
    rh_stat_inc(&sh->stats, RH_STAT_owed_refused);
    rh_owed_settle(sh, item, RH_STATE_failed, RH_REASON_queue_full);
}

void rh_owed_shares_done(struct rh_shard *sh, struct rh_msg *msg)
{
    const struct rh_shares *s = msg->shares;

    for (uint32_t i = first_share(sh, s); i < s->count && s->at[i].shard == sh->tid; i++) {
        struct rh_user *user =
            rh_user_find(sh, s->at[i].hash, rh_share_name(s, i), s->at[i].name_len);

        if (user)
            end_coming(sh, user, msg);
    }
}

/* ---- frames ---- */

/* One use of it, or NULL: no memory. */
static struct rh_handle *handle_of(struct rh_shard *sh, struct rh_msg *take_copy)
{
    struct rh_handle *h = take_copy ? rh_handle_make(&sh->stock.handles, take_copy) : NULL;

    if (h)
        return h;
    rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
    rh_msg_drop_any(take_copy);
    return NULL;
}

/* The copy for who is not owed it, made for the first of them. */
static struct rh_handle *plain_of(struct rh_shard *sh, struct rh_handle *h)
{
    if (!h->plain)
        h->plain = handle_of(sh, rh_msg_again(h->msg, 1, false, "", 0));
    if (h->plain)
        rh_handle_ref(h->plain);
    return h->plain;
}

/* Is the room still in the life of this message, as far as that is known here? */
static bool is_present(const struct rh_shard *sh, const struct rh_msg *msg)
{
    const struct rh_branch *b;

    if (rh_hash_shard(msg->to_hash, sh->env->shards) == sh->tid)
        return rh_room_by_uid(sh, msg->uid);
    b = rh_branch_find(sh, msg->uid);
    return b && b->count && !b->over;
}

struct rh_handle *rh_owed_share_frame(struct rh_shard *sh, const struct rh_owed_item *item,
                                      uint32_t attempt)
{
    char epoch[sizeof(",\"epoch\":\"\"") + RH_EPOCH_LEN] = ",\"epoch\":\"";
    size_t len = strlen(epoch);
    struct rh_msg *copy;

    rh_epoch_hex(item->msg->uid, epoch + len);
    epoch[len + RH_EPOCH_LEN] = '"';
    len = is_present(sh, item->msg) ? 0 : len + RH_EPOCH_LEN + 1;
    copy = rh_msg_again(item->msg, attempt, true, epoch, len);
    if (copy)
        copy->apart = true;
    return handle_of(sh, copy);
}

/* ---- handing out ---- */

/* Its next attempt begins. False: no memory. */
static bool fly(struct rh_shard *sh, struct rh_owed_item *item)
{
    bool known = item->at == RH_OWED_COMING && item->msg->shares->at[item->share].live;

    return item->at == RH_OWED_FLIGHT ? rh_owed_refly(sh, item) : rh_owed_fly(sh, item, !known);
}

/* The place of the 64th and later connections of a user, which says nothing of one of them. */
#define SHARED_PLACE (1ull << 63)

/* Has this very connection been handed it in its flight? During a lap by a repetition, or when another
 * device that had it left: then the one in the room's order is one more attempt. */
static bool has_it(const struct rh_owed_item *item, uint64_t place)
{
    return (item->handed | item->answered) & place & ~SHARED_PLACE;
}

/* It is owed, and this connection is about to get it: as it is, where NULL is returned and *ret_skip is
 * not set. */
static struct rh_handle *hand_over(struct rh_shard *sh, struct rh_conn *c,
                                   struct rh_owed_item *item, bool history, bool *ret_skip)
{
    /* In flight at a fan-out: another device of the user has got it in this lap. */
    uint64_t place = rh_owed_place(item->owed, c);
    bool anew = history || item->at != RH_OWED_FLIGHT || has_it(item, place);
    uint32_t attempt = item->attempt + anew;
    struct rh_handle *h = NULL;

    if (attempt > 1)
        h = handle_of(sh, rh_msg_again(item->msg, attempt, true, "", 0));
    *ret_skip = !place || (attempt > 1 && !h) || (anew && !fly(sh, item));
    if (!*ret_skip) {
        item->handed |= place & ~item->answered;
        return h;
    }
    if (h)
        rh_handle_unref(&sh->stock.handles, h);
    return NULL;
}

struct rh_handle *rh_owed_share_out(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h,
                                    enum rh_share_way way, bool *ret_skip)
{
    const struct rh_user *user = rh_conn_user(c);
    struct rh_owed_item *item = user ? item_of(sh, user, h->msg) : NULL;

    *ret_skip = item && way == RH_SHARE_FULL;
    if (*ret_skip)
        return NULL;
    if (item)
        return hand_over(sh, c, item, way == RH_SHARE_HISTORY, ret_skip);
    return plain_of(sh, h); /* without memory for it: the message as it is */
}

/* ---- what a join may bring ---- */

/* Is it among what this one missed, and still to be handed out? */
static bool is_missed(const struct rh_replay *r, const struct rh_msg *msg)
{
    uint32_t missed = r->count - r->live;
    const struct rh_msg *first, *last;

    if (!missed)
        return false;
    first = r->at[r->head & (r->room - 1)]->msg;
    last = r->at[(r->head + missed - 1) & (r->room - 1)]->msg;
    return first->uid == msg->uid && msg->seq >= first->seq && msg->seq <= last->seq;
}

static bool may_bring(const struct rh_sub *sub, const struct rh_msg *msg)
{
    if (sub->asking)
        return true;
    if (sub->state == RH_SUB_WANTED)
        return sub->has_since || sub->counted;
    return sub->replay && is_missed(sub->replay, msg);
}

bool rh_owed_share_held(const struct rh_shard *sh, const struct rh_owed_item *item)
{
    const struct rh_msg *msg = item->msg;
    struct rh_session *s = NULL;

    while ((s = rh_session_next(item->owed->user, s))) {
        const struct rh_sub *sub = NULL;

        if (rh_session_is_live(s) && rh_session_has_subs(s))
            sub = rh_sub_find(sh, s, msg->to_hash, room_of(msg));
        if (sub && may_bring(sub, msg))
            return true;
    }
    return false;
}
