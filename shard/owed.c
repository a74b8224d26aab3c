/* shard/owed.c - what users are owed: accepting it, handing it out, and what their connections do.
 *
 * Why this way: what may close a connection, and with it move items about, happens in two places: where
 * a new message goes out at once, and in rh_owed_run, once a pass, for the users that somebody has
 * marked. So a completion, an acknowledgement or the end of a connection only changes lists, and
 * whoever walks over them is not surprised. A user's queue is freed in rh_owed_run, too.
 *
 * Handing out  The first that waits goes to every connection that has room (rh_conn_takes_owed). Where none
 *            has, they are marked (`awaited`), and the next that completes a send marks the user.
 *            While messages wait in shard/retry.c, which are older, nothing does.
 * Plain      ones are owed until a send that carried them has completed: so it is counted in how many
 *            queues they stand, and they wait again when it was the last one that threw them away. What
 *            asks for an acknowledgement waits again as soon as no connection that it was handed to is left.
 * Memory     Nothing is accepted without memory for all that is told of it. What finds none while it is
 *            handed out waits on; the user stays marked.
 */
#include "shard/owed.h"

#include <string.h>

#include "core/mem.h"
#include "shard/owed_int.h"
#include "shard/promise.h"

#define PUMP_ITEMS   4096 /* of one user in one go */
#define RECORD_TELLS 4    /* ACCEPTED, the end of one that makes room, PROGRESS */

/* ---- questions ---- */

bool rh_owed_any(const struct rh_user *user)
{
    return rh_user_owed(user) != NULL;
}

bool rh_owed_waits(const struct rh_user *user)
{
    const struct rh_owed *o = rh_user_owed(user);

    return o && o->waiting_count;
}

bool rh_owed_room(const struct rh_shard *sh, struct rh_user *user)
{
    const struct rh_session *s = NULL;

    while ((s = rh_session_next(user, s)))
        if (rh_session_is_live(s) && rh_conn_takes_owed(sh, s->conn))
            return true;
    return false;
}

static const char *name_in(const struct rh_msg *msg, uint32_t at)
{
    return (const char *)msg->bytes + at;
}

/* The plain item in flight that this message, or copy, is of; NULL: it has ended. */
static struct rh_owed_item *plain_of(const struct rh_shard *sh, const struct rh_msg *msg)
{
    struct rh_user *user;
    struct rh_owed_item *item;

    if (msg->ack || msg->kind != RH_MSG_DIRECT)
        return NULL;
    user = rh_user_find(sh, msg->to_hash, name_in(msg, msg->to_at), msg->to_len);
    item = user && rh_user_owed(user) ? rh_owed_find(sh, rh_user_owed(user), msg) : NULL;
    return item && item->at == RH_OWED_FLIGHT && !item->msg->ack && item->msg->seq == msg->seq
               ? item
               : NULL;
}

/* ---- places ---- */

static uint64_t bit_of(uint32_t place)
{
    return 1ull << RH_MIN(place, 63u);
}

/* Where it stands, or UINT32_MAX; whoever is asked for is most often the one behind the last. */
static uint32_t find_place(struct rh_owed *o, const struct rh_conn *c)
{
    for (uint32_t i = 0; i < o->places; i++) {
        uint32_t place = (o->hint + i) % o->places;

        if (o->conns[place] != c)
            continue;
        o->hint = (uint16_t)((place + 1) % o->places);
        return place;
    }
    return UINT32_MAX;
}

static bool more_places(struct rh_owed *o)
{
    uint32_t places = o->places ? o->places * 2u : 2;
    struct rh_conn **conns;

    if (places > UINT16_MAX)
        return false;
    conns = rh_mem_realloc(o->conns, places * sizeof(*conns));
    if (!conns)
        return false;
    memset(conns + o->places, 0, (places - o->places) * sizeof(*conns));
    o->conns = conns;
    o->places = (uint16_t)places;
    return true;
}

uint64_t rh_owed_place(struct rh_owed *o, struct rh_conn *c)
{
    uint32_t place = find_place(o, c);

    if (place == UINT32_MAX) {
        place = 0;
        while (place < o->places && o->conns[place])
            place++;
        if (place == o->places && !more_places(o))
            return 0;
        o->conns[place] = c;
    }
    return bit_of(place);
}

/* The connection has no place any more. Returns the bit that nobody has now; 0: none. */
static uint64_t give_place(struct rh_owed *o, const struct rh_conn *c)
{
    uint32_t place = find_place(o, c);

    if (place == UINT32_MAX)
        return 0;
    o->conns[place] = NULL;
    for (uint32_t i = 63; place >= 63 && i < o->places; i++)
        if (o->conns[i])
            return 0;
    return bit_of(place);
}

/* ---- handing out ---- */

struct rh_handle *rh_owed_handle(struct rh_shard *sh, const struct rh_owed_item *item,
                                 uint32_t attempt)
{
    struct rh_msg *msg = item->msg;
    struct rh_handle *h;

    if (msg->kind == RH_MSG_ROOM)
        return rh_owed_share_frame(sh, item, attempt);
    if (attempt == 1 || !msg->attempt_at) {
        rh_msg_hold_any(msg, 1);
    } else {
        msg = rh_msg_again(msg, attempt, msg->ack, "", 0);
        if (!msg)
            return NULL;
        msg->accepted_ns = 0; /* how long it took says nothing of our speed */
    }
    h = rh_handle_make(&sh->stock.handles, msg);
    if (!h)
        rh_msg_drop_any(msg);
    return h;
}

static void push_one(struct rh_shard *sh, struct rh_owed_item *item, struct rh_conn *c,
                     struct rh_handle *h)
{
    uint64_t bit;

    if (!rh_conn_takes_owed(sh, c))
        return;
    bit = rh_owed_place(item->owed, c);
    if (!bit || (item->answered & bit) || rh_conn_push_owed(sh, c, h) != RH_OK)
        return;
    if (item->msg->ack)
        item->handed |= bit;
    else
        item->copies++;
}

void rh_owed_push(struct rh_shard *sh, struct rh_owed_item *item, struct rh_handle *h)
{
    struct rh_user *user = item->owed->user;
    uint32_t gen = item->gen;
    struct rh_session *s, *next;

    rh_assert(user->pins);
    for (s = rh_session_next(user, NULL); s && item->gen == gen; s = next) {
        next = rh_session_next(user, s); /* a push may end its session, no other */
        if (rh_session_is_live(s))
            push_one(sh, item, s->conn, h);
    }
    if (item->gen == gen && !item->handed)
        rh_owed_requeue(sh, item);
}

/* The first that waits, to whom there is room. False: for want of memory it still waits. */
static bool hand_out(struct rh_shard *sh, struct rh_owed_item *item)
{
    struct rh_handle *h = rh_owed_handle(sh, item, item->attempt + 1);
    bool flies = h && rh_owed_fly(sh, item, true);

    if (flies)
        rh_owed_push(sh, item, h);
    if (h)
        rh_handle_unref(&sh->stock.handles, h);
    return flies;
}

static void tell_lost(struct rh_shard *sh, struct rh_owed *o)
{
    struct rh_lost lost = {
        .from = o->lost.from, .to = o->lost.to, .count = o->lost.count, .kind = RH_MSG_DIRECT};
    struct rh_session *s, *next;

    o->lost.count = 0;
    for (s = rh_session_next(o->user, NULL); s; s = next) {
        next = rh_session_next(o->user, s);
        if (rh_session_is_live(s))
            rh_conn_push_lost(sh, s->conn, &lost);
    }
}

/* All its connections are full: the next one that is not says so. */
static void await_room(struct rh_user *user)
{
    struct rh_session *s = NULL;

    while ((s = rh_session_next(user, s)))
        if (rh_session_is_live(s))
            s->conn->awaited = true;
}

static bool may_go(const struct rh_shard *sh, struct rh_owed *o, const struct rh_msg *msg)
{
    if (!rh_user_devices(o->user) || rh_user_retry(o->user))
        return false;
    if (msg->ack && o->unacked >= sh->cfg->ack_max_unacked)
        return false;
    if (rh_owed_room(sh, o->user))
        return true;
    await_room(o->user);
    return false;
}

/* The first one that may go: shares that a join may still bring in their place are passed over. Counts
 * down `left`, and ends with it. */
static struct rh_owed_item *first_to_go(const struct rh_shard *sh, const struct rh_owed *o,
                                        unsigned *left)
{
    for (struct rh_list *at = o->waiting.next; at != &o->waiting && *left; at = at->next, --*left) {
        struct rh_owed_item *item = rh_container_of(at, struct rh_owed_item, of_user);

        if (item->msg->kind != RH_MSG_ROOM || !rh_owed_share_held(sh, item))
            return item;
    }
    return NULL;
}

/* False: there is more to do, in another pass. */
static bool pump(struct rh_shard *sh, struct rh_owed *o)
{
    unsigned left = PUMP_ITEMS;
    struct rh_owed_item *item;
    bool any = false;

    for (; (item = first_to_go(sh, o, &left)); any = true, left--) {
        if (rh_owed_expired(sh, item)) {
            rh_owed_settle(sh, item, RH_STATE_expired, RH_REASON_expired);
            continue;
        }
        if (!may_go(sh, o, item->msg))
            break;
        if (o->lost.count && item->order > o->lost.order)
            tell_lost(sh, o);
        else if (!hand_out(sh, item) || (item->at == RH_OWED_WAITING && rh_owed_room(sh, o->user)))
            return false;
    }
    if (!left)
        return !any;
    if (!item && o->lost.count && rh_user_devices(o->user))
        tell_lost(sh, o);
    return true;
}

void rh_owed_run(struct rh_shard *sh)
{
    struct rh_owed *o = sh->owed.marked, *next;

    sh->owed.marked = NULL;
    rh_owed_tell_ended(sh);
    for (; o; o = next) {
        struct rh_user *user = o->user;
        bool again;

        next = o->next;
        rh_user_pin(user); /* a connection may be closed on the way */
        again = !pump(sh, o);
        rh_owed_restate(sh, o);
        o->marked = false;
        if (again)
            rh_owed_mark(sh, o);
        else if (!o->items && o->lost.count)
            rh_owed_expiry_lost(sh, o);
        else if (!o->items)
            rh_owed_free(sh, o);
        rh_user_unpin(sh, user);
    }
}

void rh_owed_pump(struct rh_shard *sh, struct rh_user *user)
{
    struct rh_owed *o = rh_user_owed(user);

    if (o && (o->waiting_count || o->lost.count))
        rh_owed_mark(sh, o);
}

/* ---- accepting ---- */

/* Who asked, as the record thread is told. */
static struct rh_event of_asker(enum rh_event_kind kind, const struct rh_asker *asker,
                                struct rh_msg *msg)
{
    struct rh_event ev = {.kind = (uint8_t)kind, .msg = msg};

    if (asker->tid == RH_ASKER_NONE)
        return ev;
    ev.flags = RH_ACCEPT_ASKED;
    ev.a = asker->tid;
    ev.cookie = asker->cookie;
    ev.conn = asker->conn;
    return ev;
}

static void tell_accepted(struct rh_shard *sh, const struct rh_asker *asker, struct rh_msg *msg,
                          bool out)
{
    struct rh_event ev = of_asker(RH_EV_ACCEPTED, asker, msg);
    int rc;

    ev.flags |= (out ? 0 : RH_ACCEPT_STORED) | (msg->from_user ? RH_ACCEPT_FROM_USER : 0);
    ev.b = out;
    if (msg->given)
        ev.c = rh_id_until_ms(sh);
    ev.cost = msg->frame_len;
    rh_msg_hold_any(msg, 1);
    rc = rh_mesh_tell(sh->mesh, sh->env->record, &ev);
    rh_assert(rc == RH_OK); /* reserved */
}

/* None waits, and nothing else stands in its way. */
static bool goes_at_once(struct rh_shard *sh, struct rh_owed *o, const struct rh_msg *msg)
{
    return msg->ack && !o->waiting_count && may_go(sh, o, msg) && rh_owed_fresh_room(sh);
}

/* The item exists; no step of this can fail. */
static enum rh_owed_result begin(struct rh_shard *sh, struct rh_owed_item *item,
                                 const struct rh_asker *asker, enum rh_wire_error *ret_error)
{
    struct rh_msg *msg = item->msg;
    struct rh_handle *h = goes_at_once(sh, item->owed, msg) ? rh_owed_handle(sh, item, 1) : NULL;

    if (!h && !rh_owed_wait(sh, item, false)) {
        rh_owed_forget(sh, item);
        rh_stat_add(&sh->stats, RH_STAT_owed_refused, 1);
        *ret_error = RH_WIRE_queue_full;
        return RH_OWED_REFUSED;
    }
    tell_accepted(sh, asker, msg, h != NULL);
    if (!h)
        return RH_OWED_ACCEPTED;
    rh_owed_fly(sh, item, false);
    rh_owed_push(sh, item, h);
    rh_handle_unref(&sh->stock.handles, h);
    return RH_OWED_ACCEPTED;
}

static enum rh_owed_result refuse(enum rh_wire_error error, enum rh_wire_error *ret_error)
{
    *ret_error = error;
    return RH_OWED_REFUSED;
}

static void set_seq(struct rh_shard *sh, struct rh_msg *msg)
{
    if (msg->seq_at)
        rh_msg_set_seq(msg, ++sh->seq);
    else /* a notify without one: only a loss would name it */
        msg->seq = ++sh->seq;
}

enum rh_owed_result rh_owed_accept(struct rh_shard *sh, struct rh_msg *take_msg,
                                   const struct rh_asker *asker, enum rh_wire_error *ret_error)
{
    enum rh_owed_result result = RH_OWED_REFUSED;
    struct rh_owed_item *item = NULL;
    struct rh_user *user;
    struct rh_owed *o;

    *ret_error = RH_WIRE_unavailable;
    if (rh_mesh_reserve(sh->mesh, sh->env->record, RECORD_TELLS) < 0)
        return RH_OWED_REFUSED;
    user =
        rh_user_take(sh, take_msg->to_hash, name_in(take_msg, take_msg->to_at), take_msg->to_len);
    if (!user)
        return RH_OWED_REFUSED;
    o = rh_owed_of(sh, user);
    if (o) {
        set_seq(sh, take_msg);
        item = rh_owed_add(sh, o, take_msg, 0);
    }
    if (item)
        result = begin(sh, item, asker, ret_error);
    rh_user_unpin(sh, user);
    return result;
}

static bool same_sender(const struct rh_msg *a, const struct rh_msg *b)
{
    return a->from_user == b->from_user && a->from_len == b->from_len &&
           memcmp(a->bytes + a->from_at, b->bytes + b->from_at, a->from_len) == 0;
}

/* An id that is still owed: its sender waits for the same commit. */
static enum rh_owed_result asked_again(struct rh_shard *sh, struct rh_owed_item *item,
                                       struct rh_msg *take_msg, const struct rh_asker *asker,
                                       enum rh_wire_error *ret_error)
{
    struct rh_event ev = of_asker(RH_EV_AWAIT, asker, item->msg);

    if (!same_sender(item->msg, take_msg))
        return refuse(RH_WIRE_conflict, ret_error);
    if (ev.flags && rh_mesh_tell(sh->mesh, sh->env->record, &ev) < 0)
        return refuse(RH_WIRE_unavailable, ret_error);
    rh_stat_add(&sh->stats, RH_STAT_dedup_hits, 1);
    rh_msg_drop_any(take_msg);
    return RH_OWED_ACCEPTED;
}

enum rh_owed_result rh_owed_direct(struct rh_shard *sh, struct rh_msg *take_msg,
                                   const struct rh_asker *asker, enum rh_wire_error *ret_error)
{
    struct rh_user *user =
        rh_user_find(sh, take_msg->to_hash, name_in(take_msg, take_msg->to_at), take_msg->to_len);
    struct rh_owed *o = user ? rh_user_owed(user) : NULL;
    bool online = user && rh_user_devices(user);
    struct rh_owed_item *item = o && take_msg->given ? rh_owed_find(sh, o, take_msg) : NULL;

    if (item)
        return asked_again(sh, item, take_msg, asker, ret_error);
    if (online && !take_msg->ack && !(o && o->waiting_count))
        return RH_OWED_NO;
    if (!online && !sh->cfg->offline_enabled)
        return RH_OWED_NO;
    if (rh_gate_any(sh->env->promises) != RH_GATE_OPEN ||
        !rh_mesh_has_room(sh->mesh, sh->env->record))
        return refuse(RH_WIRE_store_failed, ret_error);
    return rh_owed_accept(sh, take_msg, asker, ret_error);
}

/* ---- connections ---- */

void rh_owed_connected(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_user *user = rh_conn_user(c);

    if (user)
        rh_owed_pump(sh, user);
}

/* The connection has not got it any more, or will not answer. */
static void taken_from(struct rh_shard *sh, struct rh_owed_item *item, uint64_t bit, bool online)
{
    uint64_t before = item->handed;

    if (!item->msg->ack)
        return;
    item->handed &= ~bit;
    item->answered &= ~bit;
    if (online && (item->handed || !before))
        return;
    if (item->acked)
        rh_owed_settle(sh, item, RH_STATE_success, RH_REASON_none);
    else
        rh_owed_requeue(sh, item);
}

void rh_owed_left(struct rh_shard *sh, struct rh_user *user, struct rh_conn *c)
{
    struct rh_owed *o = rh_user_owed(user);
    struct rh_list *at, *prev;
    uint64_t bit;
    bool online;

    if (!o)
        return;
    bit = give_place(o, c);
    online = rh_user_devices(user) != 0;
    if (!online)
        rh_owed_restate(sh, o);
    for (at = o->flight.prev; at != &o->flight; at = prev) { /* so each is the first to wait */
        prev = at->prev;
        taken_from(sh, rh_container_of(at, struct rh_owed_item, of_user), bit, online);
    }
    rh_owed_mark(sh, o);
}

void rh_owed_written(struct rh_shard *sh, const struct rh_msg *msg)
{
    struct rh_owed_item *item = plain_of(sh, msg);

    if (item)
        rh_owed_settle(sh, item, RH_STATE_success, RH_REASON_none);
}

void rh_owed_unsent(struct rh_shard *sh, const struct rh_msg *msg)
{
    struct rh_owed_item *item = plain_of(sh, msg);

    if (item && --item->copies == 0)
        rh_owed_requeue(sh, item);
}
