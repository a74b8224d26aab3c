/* shard/subscribe.c - the rooms of a session: each a struct rh_sub, on the shard of its user.
 *
 *            want            a credit             JOIN's answer
 *   create --------> [WANTED] ------> [ASKED] ------------------> [ACTIVE] --room deleted--> freed, or
 *                       ^  \            | refused                  |    ^       [DELETED] while its
 *                       |   `-----------+----> freed               |    | join    session has no
 *                       `---- the session has a new connection ----'    | again   connection
 *                                                                  `----'
 *
 * What the home counts for us (`counted`, `live`) is changed by its answers, and by UNSUB, which is
 * sent only while nothing is out: so both sides agree, and the home's member is never named when it
 * may be gone. Whatever happens to the session while an ask is out is looked at when the answer
 * comes (`catch_up`).
 *
 * Ownership  of its session; one that has ended while an ask was out (`orphan`: session NULL) belongs
 *            to that ask, one whose end cannot be told for want of memory (ENDING) to sh->ending.
 *            Neither knows a user.
 * Resume     a session that comes back asks for each of its rooms again, from the last message on
 *            that was handed out; fan-out passes it over until then. A detached one stays in its
 *            branches, so that it learns of deleted rooms.
 * Invariants (1) state ACTIVE => branch and session.  (2) in sh->subs <=> it has a session and is not
 *            DELETED.  (3) waiting is on sh->wanted only in state WANTED with an open connection.
 *            (4) rh_user_rooms == different rooms of its subscriptions in sh->subs.
 * Limits     WANTED_A_PASS of those that wait are looked at in a pass.
 */
#include <string.h>

#include "core/mem.h"
#include "shard/room_int.h"

#define NO_MEMORY     "out of memory, try again"
#define WANTED_A_PASS 1024
#define JOIN_COST     (sizeof(struct rh_ask) + 3 * RH_NAME_MAX) /* at most */

/* ---- the map of a shard's subscriptions, by user and room ---- */

/* All subscriptions of a user to a room have the same hash. */
static uint64_t sub_hash(const struct rh_user *user, uint64_t room_hash)
{
    return user->node.hash + room_hash * 0x9e3779b97f4a7c15u;
}

static bool is_named(const struct rh_sub *sub, struct rh_span room)
{
    return rh_span_eq((struct rh_span){sub->name, sub->name_len}, room);
}

struct rh_sub *rh_sub_find(const struct rh_shard *sh, const struct rh_session *s,
                           uint64_t room_hash, struct rh_span room)
{
    struct rh_map_node *node = rh_map_first(&sh->subs, sub_hash(rh_session_user(s), room_hash));

    for (; node; node = rh_map_again(node)) {
        struct rh_sub *sub = rh_container_of(node, struct rh_sub, node);

        if (sub->session == s && is_named(sub, room))
            return sub;
    }
    return NULL;
}

static bool user_has(const struct rh_shard *sh, const struct rh_user *user, uint64_t room_hash,
                     struct rh_span room)
{
    struct rh_map_node *node = rh_map_first(&sh->subs, sub_hash(user, room_hash));

    for (; node; node = rh_map_again(node)) {
        const struct rh_sub *sub = rh_container_of(node, struct rh_sub, node);

        if (rh_session_user(sub->session) == user && is_named(sub, room))
            return true;
    }
    return false;
}

bool rh_sub_over_limit(const struct rh_shard *sh, const struct rh_user *user, uint64_t room_hash,
                       struct rh_span room)
{
    return rh_user_rooms(user) >= sh->cfg->rooms_per_user && !user_has(sh, user, room_hash, room);
}

static void map_add(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_user *user = rh_session_user(sub->session);

    sub->session->more->rooms++;
    if (user->more)
        user->more->rooms +=
            !user_has(sh, user, sub->room_hash, (struct rh_span){sub->name, sub->name_len});
    rh_map_add(&sh->subs, &sub->node, sub_hash(user, sub->room_hash));
}

static void map_del(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_user *user = rh_session_user(sub->session);

    rh_map_del(&sh->subs, &sub->node);
    sub->session->more->rooms--;
    if (user->more)
        user->more->rooms -=
            !user_has(sh, user, sub->room_hash, (struct rh_span){sub->name, sub->name_len});
}

struct rh_sub *rh_sub_create(struct rh_shard *sh, struct rh_session *s, uint64_t room_hash,
                             struct rh_span room)
{
    struct rh_session_more *more = rh_session_more(s);
    struct rh_sub *sub = more ? rh_mem_alloc(sizeof(*sub) + room.len) : NULL;

    if (!sub)
        return NULL;
    rh_assert(room.len <= RH_NAME_MAX);
    memset(sub, 0, sizeof(*sub));
    sub->state = RH_SUB_WANTED;
    sub->session = s;
    sub->room_hash = room_hash;
    sub->name_len = (uint8_t)room.len;
    memcpy(sub->name, room.at, room.len);
    rh_list_init(&sub->waiting);
    rh_list_add(&more->subs, &sub->of_session);
    map_add(sh, sub);
    return sub;
}

/* ---- what the home knows ---- */

static void set_counted(struct rh_shard *sh, struct rh_sub *sub, bool counted)
{
    if (counted && !sub->counted)
        rh_stat_add(&sh->stats, RH_STAT_subscriptions, 1);
    else if (!counted && sub->counted)
        rh_stat_sub(&sh->stats, RH_STAT_subscriptions, 1);
    sub->counted = counted;
    sub->live &= counted;
}

/* Tells the home what has changed, as UNSUB. RH_ENOMEM. */
static int unsub(struct rh_shard *sh, const struct rh_sub *sub, uint8_t flags)
{
    unsigned home = rh_hash_shard(sub->room_hash, sh->env->shards);
    struct rh_event ev = {
        .kind = RH_EV_UNSUB, .flags = flags, .cookie = sub->member, .a = sub->uid};

    if (home != sh->tid)
        return rh_mesh_tell(sh->mesh, home, &ev);
    rh_room_unsub(sh, sh->tid, sub->uid, sub->member, flags);
    return RH_OK;
}

/* Its session has ended, and nothing of it is out. */
static void finish(struct rh_shard *sh, struct rh_sub *sub)
{
    uint8_t flags = RH_UNSUB_END | (sub->live ? RH_UNSUB_DETACH : 0);

    if (sub->counted && unsub(sh, sub, flags) < 0) {
        sub->state = RH_SUB_ENDING;
        rh_list_add(&sh->ending, &sub->waiting);
        return;
    }
    set_counted(sh, sub, false);
    rh_mem_free(sub);
}

/* Nothing of it is out: tells the home that its session has no connection. */
static void tell_detached(struct rh_shard *sh, struct rh_sub *sub)
{
    if (unsub(sh, sub, RH_UNSUB_DETACH) == RH_OK)
        sub->live = false;
    else
        rh_list_add(&sh->ending, &sub->waiting);
}

/* What could not be told is tried once more. */
static void retry_ending(struct rh_shard *sh)
{
    struct rh_list again;

    rh_list_init(&again);
    while (!rh_list_empty(&sh->ending)) {
        struct rh_list *node = sh->ending.next;

        rh_list_del(node);
        rh_list_add(&again, node);
    }
    while (!rh_list_empty(&again)) {
        struct rh_sub *sub = rh_container_of(again.next, struct rh_sub, waiting);

        rh_list_del(&sub->waiting);
        if (sub->state == RH_SUB_ENDING)
            finish(sh, sub);
        else
            tell_detached(sh, sub);
    }
}

/* ---- ending ---- */

/* It leaves what its session has; what is out of it goes on. */
static void orphan(struct rh_shard *sh, struct rh_sub *sub)
{
    rh_replay_drop(sh, sub);
    if (sub->branch)
        rh_branch_del(sh, sub);
    if (sub->state != RH_SUB_DELETED)
        map_del(sh, sub);
    rh_list_del(&sub->of_session);
    rh_list_del(&sub->waiting);
    sub->session = NULL;
}

void rh_sub_end(struct rh_shard *sh, struct rh_sub *sub)
{
    orphan(sh, sub);
    if (!sub->asking)
        finish(sh, sub);
}

/* The home does not count it any more, or never did. */
static void drop(struct rh_shard *sh, struct rh_sub *sub)
{
    set_counted(sh, sub, false);
    if (sub->session)
        orphan(sh, sub);
    finish(sh, sub);
}

void rh_subs_fini(struct rh_shard *sh, struct rh_session *s)
{
    struct rh_list *subs = s ? &s->more->subs : &sh->ending;

    while (!rh_list_empty(subs)) {
        struct rh_sub *sub = s ? rh_container_of(subs->next, struct rh_sub, of_session)
                               : rh_container_of(subs->next, struct rh_sub, waiting);

        if (s)
            orphan(sh, sub);
        rh_list_del(&sub->waiting);
        rh_mem_free(sub);
    }
}

/* Its room is gone, which nobody has told an open connection yet; nothing of it is out. */
static void tell_gone(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_conn *c = rh_session_is_live(sub->session) ? sub->session->conn : NULL;

    map_del(sh, sub);
    sub->state = RH_SUB_DELETED;
    if (!c)
        return;
    rh_notify_gone(sh, c, sub);
    if (c->state == RH_CONN_OPEN) /* else it has been detached, or it is gone */
        drop(sh, sub);
}

void rh_sub_over(struct rh_shard *sh, struct rh_sub *sub)
{
    struct rh_conn *c = rh_session_is_live(sub->session) ? sub->session->conn : NULL;

    rh_branch_del(sh, sub);
    set_counted(sh, sub, false);
    if (sub->asking)
        sub->state = RH_SUB_ASKED;
    if (sub->replay && !rh_replay_flush(sh, sub))
        return;
    if (sub->asking)
        return;
    if (sub->restore || !rh_session_is_live(sub->session))
        tell_gone(sh, sub);
    else
        drop(sh, sub);
    if (c && c->state == RH_CONN_OPEN) /* it may wait for what this one would have asked */
        rh_client_unhold(sh, c);
}

/* ---- asking ---- */

void rh_sub_want(struct rh_shard *sh, struct rh_sub *sub)
{
    sub->state = RH_SUB_WANTED;
    rh_list_del(&sub->waiting);
    rh_list_add(&sh->wanted, &sub->waiting);
}

static struct rh_ask *make_join(struct rh_shard *sh, const struct rh_sub *sub)
{
    struct rh_ask *ask =
        rh_ask_make(sh, sub->session, RH_ASK_JOIN, (struct rh_span){sub->name, sub->name_len},
                    (struct rh_span){0}, (struct rh_span){0}, (struct rh_span){0});

    if (!ask)
        return NULL;
    ask->notify = true;
    ask->again = sub->counted;
    ask->live = !sub->live;
    ask->has_since = sub->has_since || sub->counted;
    ask->has_epoch = sub->has_since ? sub->has_epoch : sub->counted;
    ask->since = sub->has_since ? sub->since : sub->seq;
    ask->epoch = sub->has_since ? sub->epoch : sub->uid;
    ask->uid = sub->uid;
    ask->member = sub->member;
    return ask;
}

/* RH_EFULL: no credit; RH_ENOMEM. After RH_OK nothing of its session may be looked at. */
static int try_to_ask(struct rh_shard *sh, struct rh_sub *sub)
{
    unsigned home = rh_hash_shard(sub->room_hash, sh->env->shards);
    struct rh_ask *ask;

    if (home != sh->tid && !rh_mesh_can_ask(sh->mesh, home, JOIN_COST))
        return RH_EFULL;
    ask = make_join(sh, sub);
    if (!ask)
        return RH_ENOMEM;
    ask->sub = sub;
    sub->asking = true;
    sub->restore = false;
    sub->named = false;
    sub->state = RH_SUB_ASKED;
    rh_ask_send(sh, ask);
    return RH_OK;
}

/* Those without a credit go to the end, so that in time everybody is looked at. Without memory all
 * wait for the next pass. */
void rh_subs_wanted(struct rh_shard *sh)
{
    struct rh_list some;
    int rc = RH_OK;

    retry_ending(sh);
    rh_list_init(&some);
    for (unsigned left = WANTED_A_PASS; left && !rh_list_empty(&sh->wanted); left--) {
        struct rh_list *node = sh->wanted.next;

        rh_list_del(node);
        rh_list_add(&some, node);
    }
    while (!rh_list_empty(&some)) {
        struct rh_sub *sub = rh_container_of(some.next, struct rh_sub, waiting);

        rh_list_del(&sub->waiting);
        if (rc != RH_ENOMEM)
            rc = try_to_ask(sh, sub);
        if (rc != RH_OK)
            rh_list_add(&sh->wanted, &sub->waiting);
    }
    if (rc == RH_ENOMEM)
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
}

/* ---- answers ---- */

/* An ask that is back has left it as it is: what its session went through meanwhile is made good. */
static void catch_up(struct rh_shard *sh, struct rh_sub *sub)
{
    if (!sub->session) {
        finish(sh, sub);
        return;
    }
    if (!rh_session_is_live(sub->session)) {
        if (sub->live)
            tell_detached(sh, sub);
    } else if (sub->restore) {
        rh_sub_want(sh, sub);
    }
}

/* It was a member until the home said so: what came up to then is for it. Its connection may end, and
 * with it its session. */
static void flush(struct rh_shard *sh, struct rh_sub *sub)
{
    sub->asking = true; /* so that it stays */
    if (sub->state == RH_SUB_ACTIVE && rh_session_is_live(sub->session))
        rh_fanout_flush(sh, sub);
    if (sub->replay)
        rh_replay_flush(sh, sub);
    sub->asking = false;
}

/* What an earlier connection asked has ended it, but the present one named it when it came. */
static void join_anew(struct rh_shard *sh, struct rh_sub *sub)
{
    set_counted(sh, sub, false);
    if (sub->branch)
        rh_branch_del(sh, sub);
    sub->restore = false;
    rh_sub_want(sh, sub);
}

/* The home has refused. `ask->sub` is NULL afterwards if it is gone. */
static void refused(struct rh_shard *sh, struct rh_ask *ask)
{
    struct rh_sub *sub = ask->sub;
    bool gone = ask->err == RH_WIRE_not_found;
    bool moved;

    if (gone && sub->session && !sub->restore)
        flush(sh, sub);
    moved = sub->session && (sub->restore || !rh_session_is_live(sub->session));
    if (gone)
        set_counted(sh, sub, false);
    if (gone && sub->branch)
        rh_branch_del(sh, sub);
    if (moved ? !gone : sub->session && sub->counted && sub->state == RH_SUB_ACTIVE) {
        catch_up(sh, sub); /* as if it had not been asked */
        return;
    }
    ask->sub = NULL;
    if (moved && ask->again)
        tell_gone(sh, sub);
    else if (moved && sub->restore && sub->named)
        join_anew(sh, sub);
    else if (sub->session)
        rh_sub_end(sh, sub);
    else
        finish(sh, sub);
}

/* Where a resume would begin, if nothing that belongs to this answer gets through. */
static uint64_t begin_of(const struct rh_sub *sub, const struct rh_ask *ask)
{
    if (!ask->has_since)
        return ask->again ? sub->seq : ask->seq;
    if (!ask->has_epoch || ask->epoch == ask->uid)
        return RH_MIN(ask->since, ask->seq);
    return ask->replay && ask->replay->count ? ask->replay->at[0]->seq - 1 : ask->seq;
}

/* Its answer tells of messages that are gone: while that may not get through, a resume begins before
 * them. RH_ENOMEM. */
static int note_gone(struct rh_shard *sh, const struct rh_sub *sub, const struct rh_ask *ask)
{
    const struct rh_lost gone = {.uid = ask->uid,
                                 .from = ask->since + 1,
                                 .to = ask->since + ask->missed,
                                 .count = ask->missed,
                                 .kind = RH_MSG_ROOM};
    bool answered = ask->notify || ask->request_len;
    struct rh_conn *c = sub->session->conn;

    if (!ask->has_since || !ask->missed || !answered)
        return RH_OK;
    return rh_conn_queue(sh, c) && rh_outq_note(c->out, &gone) ? RH_OK : RH_ENOMEM;
}

/* What was missed, and a place in the branch. RH_ENOMEM: nothing has changed. */
static int activate(struct rh_shard *sh, struct rh_sub *sub, struct rh_ask *ask)
{
    bool missed = ask->replay && ask->replay->count;
    uint64_t begin = begin_of(sub, ask);
    struct rh_replay *replay = missed ? rh_replay_create(sh, ask->replay) : NULL;

    if (missed && !replay)
        return RH_ENOMEM;
    if (note_gone(sh, sub, ask) < 0 || (!sub->branch && rh_branch_add(sh, sub, ask->uid) < 0)) {
        if (replay)
            rh_replay_free(sh, replay);
        return RH_ENOMEM;
    }
    if (sub->state != RH_SUB_ACTIVE)
        sub->first = sub->branch->pushed;
    if (ask->has_since || sub->state != RH_SUB_ACTIVE) {
        rh_replay_drop(sh, sub);
        sub->seq = ask->seq;
        if (replay)
            rh_replay_start(sub, replay, begin);
    }
    sub->state = RH_SUB_ACTIVE;
    sub->has_since = false;
    return RH_OK;
}

/* The home counts it; its connection is not the one that asked, so it will ask again. */
static void accepted_late(struct rh_shard *sh, struct rh_sub *sub, const struct rh_ask *ask)
{
    sub->seq = begin_of(sub, ask);
    sub->state = RH_SUB_WANTED;
    catch_up(sh, sub);
}

void rh_sub_joined(struct rh_shard *sh, struct rh_ask *ask)
{
    struct rh_sub *sub = ask->sub;

    sub->asking = false;
    if (ask->err) {
        refused(sh, ask);
        return;
    }
    if (sub->branch && sub->uid != ask->uid) /* it was deleted, which is not handed out yet */
        flush(sh, sub);
    if (sub->branch && sub->uid != ask->uid) {
        rh_replay_drop(sh, sub);
        rh_branch_del(sh, sub);
        sub->state = RH_SUB_ASKED;
    }
    if (!sub->counted || sub->uid != ask->uid)
        sub->live = false;
    set_counted(sh, sub, true);
    sub->live |= ask->live;
    sub->uid = ask->uid;
    sub->member = ask->member;
    if (sub->session && sub->replay && ask->has_since) /* what is parked has its place before it */
        flush(sh, sub);
    if (!sub->session) {
        ask->sub = NULL;
        finish(sh, sub);
    } else if (sub->restore || !rh_session_is_live(sub->session)) {
        accepted_late(sh, sub, ask);
    } else if (activate(sh, sub, ask) < 0) {
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
        ask->err = RH_WIRE_unavailable;
        ask->why = NO_MEMORY;
        refused(sh, ask);
    }
}

void rh_sub_left(struct rh_shard *sh, struct rh_ask *ask)
{
    struct rh_sub *sub = ask->sub;

    if (ask->err && ask->err != RH_WIRE_not_found && sub->counted) {
        sub->asking = false;
        catch_up(sh, sub);
        return;
    }
    ask->sub = NULL;
    sub->asking = false;
    if (sub->session)
        flush(sh, sub);
    if (sub->session && sub->named && rh_session_is_live(sub->session))
        join_anew(sh, sub);
    else
        drop(sh, sub);
}

/* ---- the session's connection goes and comes ---- */

void rh_subs_detach(struct rh_shard *sh, struct rh_session *s)
{
    struct rh_list *end = s->more ? &s->more->subs : NULL;

    for (struct rh_list *at = end ? end->next : NULL; at != end; at = at->next) {
        struct rh_sub *sub = rh_container_of(at, struct rh_sub, of_session);

        rh_replay_drop(sh, sub);
        rh_list_del(&sub->waiting);
        sub->restore = false;
        if (sub->live && !sub->asking)
            tell_detached(sh, sub);
    }
}

/* What an ask that is out will bring was for another connection. */
static void restore_later(struct rh_sub *sub)
{
    sub->restore = true;
    if (sub->state == RH_SUB_ACTIVE)
        sub->state = RH_SUB_ASKED; /* fan-out passes it over */
}

void rh_subs_resume(struct rh_shard *sh, struct rh_session *s)
{
    struct rh_conn *c = s->conn;
    struct rh_list *end = s->more ? &s->more->subs : NULL;
    struct rh_list *at, *next;

    for (at = end ? end->next : NULL; c->state == RH_CONN_OPEN && at != end; at = next) {
        struct rh_sub *sub = rh_container_of(at, struct rh_sub, of_session);

        next = at->next;
        if (sub->asking) {
            restore_later(sub);
        } else if (sub->state == RH_SUB_DELETED) {
            rh_notify_gone(sh, c, sub);
            if (c->state == RH_CONN_OPEN)
                drop(sh, sub);
        } else {
            sub->restore = sub->counted;
            rh_sub_want(sh, sub);
        }
    }
}
