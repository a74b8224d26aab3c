/* shard/room_promise.c - acknowledged messages of a room at its home: who is owed them, and which ids
 * are taken by that.
 *
 * When such a message gets its number, the home's list of members, less the publisher's user, becomes
 * its shares: whom it is owed to, whatever becomes of the membership, and of the room. The record
 * thread hears of it first, then the shards get it as they get every message; those of the users
 * owe it from then on (shard/owed_room.c).
 *
 *   rh_room_owe: may it? memory, places in rings --number--> rh_room_accept: ACCEPTED --RELEASED--> gone
 *        |  refused, or attached (AWAIT)
 *        `--> answered
 *
 * An id is taken in its room, by its sender, until nobody is owed the message any more (RELEASED).
 * The sender who repeats it meanwhile gets the outcome of the first, others a conflict. Entries are
 * kept by the names of room and id, not in the room: they outlive it, and the process (OWED_ROOM).
 *
 * Ownership  an entry has one hold of its message; ACCEPTED, AWAIT and RELEASED move one of their own.
 * Limits     rooms.max_owed members; what is owed in all is bounded by the gate (store.backlog_bytes).
 */
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "shard/room_int.h"

#define NO_MEMORY "out of memory, try again"

struct taken {
    struct rh_map_node node; /* struct rh_shard.taken, by room and id */
    struct rh_msg *msg;      /* one hold */
    uint32_t recipients;     /* as its answer names them */
};

/* ---- ids ---- */

static struct rh_span name_at(const struct rh_msg *msg, uint32_t at, uint8_t len)
{
    return (struct rh_span){(const char *)msg->bytes + at, len};
}

static uint64_t hash_of(const struct rh_msg *msg)
{
    return msg->to_hash ^ msg->id_hash * 0x9e3779b97f4a7c15u;
}

static bool same_id(const struct rh_msg *a, const struct rh_msg *b)
{
    return rh_span_eq(name_at(a, a->to_at, a->to_len), name_at(b, b->to_at, b->to_len)) &&
           rh_span_eq(name_at(a, a->id_at, a->id_len), name_at(b, b->id_at, b->id_len));
}

static bool same_sender(const struct rh_msg *a, const struct rh_msg *b)
{
    return a->from_user == b->from_user &&
           rh_span_eq(name_at(a, a->from_at, a->from_len), name_at(b, b->from_at, b->from_len));
}

/* Who has the id of this one; NULL: nobody. */
static struct taken *find(const struct rh_shard *sh, const struct rh_msg *msg)
{
    struct rh_map_node *node = NULL;

    if (rh_map_count(&sh->taken))
        node = rh_map_first(&sh->taken, hash_of(msg));
    for (; node; node = rh_map_again(node)) {
        struct taken *t = rh_container_of(node, struct taken, node);

        if (same_id(t->msg, msg))
            return t;
    }
    return NULL;
}

static struct taken *add(struct rh_shard *sh, struct rh_msg *take_msg, uint32_t recipients)
{
    struct taken *t = rh_mem_alloc(sizeof(*t));

    if (!t)
        return NULL;
    t->msg = take_msg;
    t->recipients = recipients;
    rh_map_add(&sh->taken, &t->node, hash_of(take_msg));
    return t;
}

static void del(struct rh_shard *sh, struct taken *t)
{
    rh_map_del(&sh->taken, &t->node);
    rh_msg_drop_any(t->msg);
    rh_mem_free(t);
}

/* ---- shares ---- */

struct census {
    const struct rh_member *but;
    struct rh_shares *shares;
    uint32_t len;                  /* of the names so far */
    uint32_t place[RH_SHARDS_MAX]; /* of each shard's next share; before that, how many it has */
};

static void count_one(void *arg, struct rh_map_node *node)
{
    const struct rh_member *m = rh_container_of(node, struct rh_member, node);
    struct census *c = arg;

    if (m == c->but)
        return;
    c->place[m->shard]++;
    c->len += m->name_len;
}

static void place_one(void *arg, struct rh_map_node *node)
{
    const struct rh_member *m = rh_container_of(node, struct rh_member, node);
    struct census *c = arg;
    uint32_t i;

    if (m == c->but)
        return;
    i = c->place[m->shard]++;
    c->shares->at[i] = (struct rh_share){.hash = node->hash,
                                         .name_at = c->len,
                                         .name_len = m->name_len,
                                         .shard = m->shard,
                                         .live = m->live > 0};
    memcpy((char *)rh_share_name(c->shares, i), m->bytes, m->name_len);
    c->len += m->name_len;
}

/* From how many each shard has to where they begin; returns how many there are in all. */
static uint32_t begin_places(struct census *c)
{
    uint32_t count = 0;

    for (unsigned i = 0; i < RH_SHARDS_MAX; i++) {
        uint32_t here = c->place[i];

        c->place[i] = count;
        count += here;
    }
    return count;
}

/* The members as they are now, but that one. NULL: no memory. */
static struct rh_shares *make_shares(struct rh_room *room, const struct rh_member *but)
{
    struct census c = {.but = but};
    uint32_t count;

    rh_map_each(&room->members, count_one, &c);
    count = begin_places(&c);
    c.shares = rh_mem_alloc(sizeof(*c.shares) + count * sizeof(c.shares->at[0]) + c.len);
    if (!c.shares)
        return NULL;
    c.shares->count = count;
    c.shares->len = c.len;
    c.len = 0;
    rh_map_each(&room->members, place_one, &c);
    return c.shares;
}

static uint32_t cost_of(const struct rh_msg *msg)
{
    const struct rh_shares *s = msg->shares;

    return msg->frame_len + (s ? s->count * (uint32_t)sizeof(s->at[0]) + s->len : 0);
}

/* ---- a publish ---- */

static bool refuse(struct rh_shard *sh, struct rh_ask *take_ask, enum rh_wire_error err,
                   const char *why)
{
    rh_ask_refuse(sh, take_ask, err, why);
    return false;
}

static bool no_memory(struct rh_shard *sh, struct rh_ask *take_ask)
{
    rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
    return refuse(sh, take_ask, RH_WIRE_unavailable, NO_MEMORY);
}

static int tell(struct rh_shard *sh, enum rh_event_kind kind, const struct rh_ask *ask,
                struct rh_msg *take_msg, uint32_t recipients)
{
    struct rh_event ev = {.kind = (uint8_t)kind,
                          .msg = take_msg,
                          .cookie = ask->cookie,
                          .conn = ask->conn,
                          .cost = cost_of(take_msg),
                          .a = ask->from,
                          .c = ask->dedup_ms,
                          .d = recipients};

    ev.flags = (uint8_t)((ask->cookie ? RH_ACCEPT_ASKED : 0) |
                         (take_msg->from_user ? RH_ACCEPT_FROM_USER : 0));
    return rh_mesh_tell(sh->mesh, sh->env->record, &ev);
}

/* Its sender has published it before: it gets what that got. */
static void attach(struct rh_shard *sh, struct rh_ask *take_ask, struct taken *t)
{
    take_ask->seq = t->msg->seq;
    take_ask->members = t->recipients;
    take_ask->promised = take_ask->cookie != NULL;
    if (take_ask->promised) {
        rh_msg_hold_any(t->msg, 1);
        if (tell(sh, RH_EV_AWAIT, take_ask, t->msg, t->recipients) < 0) {
            rh_msg_drop_any(t->msg);
            take_ask->promised = false;
            no_memory(sh, take_ask);
            return;
        }
    }
    rh_ask_answer(sh, take_ask);
}

/* All that takes memory. RH_ENOMEM: nothing has changed. */
static int make_ready(struct rh_shard *sh, struct rh_room *room, const struct rh_ask *ask)
{
    struct rh_msg *msg = ask->msg;
    const struct rh_member *but = msg->from_user ? rh_room_member(room, ask) : NULL;
    struct rh_shares *shares = make_shares(room, but);

    if (!shares || rh_mesh_reserve(sh->mesh, sh->env->record, 1) < 0 ||
        !add(sh, msg, ask->members)) {
        rh_mem_free(shares);
        return RH_ENOMEM;
    }
    msg->shares = shares;
    return RH_OK;
}

bool rh_room_owe(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    struct rh_msg *msg = take_ask->msg;
    struct taken *t;

    msg->id_hash = rh_hash(&sh->env->hash_key, msg->bytes + msg->id_at, msg->id_len);
    t = find(sh, msg);
    if (t && !same_sender(t->msg, msg))
        return refuse(sh, take_ask, RH_WIRE_conflict,
                      "a message with this id is still owed in this room");
    if (t) {
        attach(sh, take_ask, t);
        return false;
    }
    if (!msg->ack)
        return true;
    if (rh_map_count(&room->members) > sh->cfg->rooms_max_owed)
        return refuse(sh, take_ask, RH_WIRE_conflict,
                      "ack: this room has more members than rooms.max_owed");
    if (rh_gate_any(sh->env->promises) != RH_GATE_OPEN)
        return refuse(sh, take_ask, RH_WIRE_store_failed, "the store does not take messages now");
    if (make_ready(sh, room, take_ask) < 0)
        return no_memory(sh, take_ask);
    return true;
}

void rh_room_accept(struct rh_shard *sh, struct rh_ask *ask, struct rh_msg *take_msg)
{
    int rc = tell(sh, RH_EV_ACCEPTED, ask, take_msg, ask->members);

    rh_assert(rc == RH_OK); /* reserved */
    ask->promised = ask->cookie != NULL;
}

/* ---- the record thread tells ---- */

void rh_room_owed_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;

    RH_ON_SHARD(sh);
    if (add(sh, msg, (uint32_t)ev->b))
        return;
    rh_stat_inc(&sh->stats, RH_STAT_memory_failures); /* its id is free before its time */
    rh_msg_drop_any(msg);
}

void rh_room_released_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;
    struct taken *t = find(sh, msg);

    RH_ON_SHARD(sh);
    if (t && t->msg == msg)
        del(sh, t);
    rh_msg_drop_any(msg);
}

static void forget(void *arg, struct rh_map_node *node)
{
    del(arg, rh_container_of(node, struct taken, node));
}

void rh_room_taken_fini(struct rh_shard *sh)
{
    if (rh_map_count(&sh->taken))
        rh_map_each(&sh->taken, forget, sh);
    rh_map_fini(&sh->taken);
}
