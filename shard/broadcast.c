/* shard/broadcast.c - one message for all connected users, or for those of some types and roles.
 *
 * The shard of the client that asks encodes the message once and asks all shards (shard/gather.h);
 * each hands it to its own connections and answers how many users that were. The filters travel
 * behind the frame, in the same block of memory, two lists, types and roles:
 *
 *     | count + 1, or 0: no filter | length, bytes | length, bytes | ...
 *
 * The walk     goes over the slots of connections, a part of them a pass, one broadcast after the
 *              other, so that everyone gets them in one order. It is for whom was connected when
 *              it arrived: a session that was attached later is passed over, wherever its slot lies.
 * Counting     A user counts once, if it has a connection that matches; what a slow one of these
 *              drops it is told as lost. Each broadcast has a number on this shard, and a user
 *              that has more than one session remembers the last one.
 * Without      At the asker's shard nothing is sent and the answer is 503; at another one nobody
 *  memory      there gets it, and the answer says that it is partial.
 * Limits       RH_BROADCASTS_MAX of one shard's clients unfinished; then the next asker is not read
 *              until one has ended. RH_FILTER_MAX values of a filter.
 */
#include <string.h>

#include "core/err.h"
#include "core/limit.h"
#include "core/mem.h"
#include "proto/envelope.h"
#include "shard/gather.h"
#include "shard/promise.h"

#define RH_FILTER_MAX 64
#define NO_MEMORY     "out of memory, try again"
#define FREE_SLOTS    16u /* that are passed over in the time of a connection, at least */
#define NOT_THERE     1   /* a flag of BROADCAST_DONE: no memory */
/* id, two times and everything fixed of a `broadcast` notify */
#define NOTIFY_ROOM (RH_ID_GIVEN_MAX + 192)

/* On its way through this shard's connections. */
struct walk {
    struct rh_list node; /* struct rh_shard.broadcasts */
    struct rh_handle *h;
    struct rh_gather *own;        /* asked here; NULL: by `request` */
    struct rh_event request;      /* of another shard */
    const uint8_t *types, *roles; /* filters in the message; NULL: none */
    uint64_t number;
    uint64_t attached_max; /* sessions that were attached later are not meant */
    uint64_t users;
    uint32_t slot; /* the next one */
};

/* What its asker waits for. */
struct asked {
    struct rh_gather gather;
    uint64_t users;
    struct rh_promise *promise; /* where the client gave an id; it answers then. Else NULL */
    uint64_t conn;              /* slot and generation */
    uint32_t request_id_len, id_len;
    char bytes[]; /* request_id as it is to be echoed, then the id */
};

/* ---- whom it is for ---- */

/* Is it one of the values, or is there no filter? Returns through *ret_behind where the list ends. */
static bool listed(const uint8_t *list, struct rh_span value, const uint8_t **ret_behind)
{
    unsigned count = *list++;
    bool found = count == 0;

    for (; count > 1; count--) {
        found |= rh_span_eq((struct rh_span){(const char *)list + 1, *list}, value);
        list += 1 + *list;
    }
    *ret_behind = list;
    return found;
}

static void find_filters(struct walk *w, const struct rh_msg *msg)
{
    const uint8_t *list = msg->bytes + msg->key_at, *behind;

    if (!msg->key_len)
        return;
    listed(list, (struct rh_span){0}, &behind);
    w->types = *list ? list : NULL;
    w->roles = *behind ? behind : NULL;
}

static bool meant(const struct walk *w, const struct rh_session *s)
{
    const uint8_t *behind;

    return (!w->types || listed(w->types, rh_session_type(s), &behind)) &&
           (!w->roles || listed(w->roles, rh_session_role(s), &behind));
}

/* ---- the walk ---- */

/* Puts it behind the others (a hold moves with it). NULL: no memory, nothing moved. */
static struct walk *walk_create(struct rh_shard *sh, struct rh_msg *take_msg)
{
    struct walk *w = rh_mem_zalloc(sizeof(*w));

    if (!w)
        return NULL;
    w->h = rh_handle_make(&sh->stock.handles, take_msg);
    if (!w->h) {
        rh_mem_free(w);
        return NULL;
    }
    find_filters(w, take_msg);
    w->number = ++sh->broadcast_count;
    w->attached_max = sh->attachments;
    rh_list_add(&sh->broadcasts, &w->node);
    rh_stat_add(&sh->stats, RH_STAT_broadcasts_unfinished, 1);
    return w;
}

static void walk_free(struct rh_shard *sh, struct walk *w)
{
    rh_list_del(&w->node);
    rh_handle_unref(&sh->stock.handles, w->h);
    rh_stat_sub(&sh->stats, RH_STAT_broadcasts_unfinished, 1);
    rh_mem_free(w);
}

static void walk_end(struct rh_shard *sh, struct walk *w)
{
    struct rh_event reply = {.kind = RH_EV_BROADCAST_DONE, .a = w->users};
    struct rh_event request = w->request;
    struct rh_gather *own = w->own;

    walk_free(sh, w);
    if (own)
        rh_gather_reply(sh, own, sh->tid, &reply);
    else
        rh_mesh_reply(sh->mesh, &request, &reply);
}

/* Is it its user's first one? Who never had two sessions has no other. */
static bool is_new(const struct walk *w, struct rh_user_more *user)
{
    if (user && user->broadcast == w->number)
        return false;
    if (user)
        user->broadcast = w->number;
    return true;
}

static void hand_out(struct rh_shard *sh, struct walk *w, struct rh_conn *c)
{
    struct rh_session *s = c->session;

    if (c->kind != RH_IS_WS || c->state != RH_CONN_OPEN || !s || s->attached > w->attached_max ||
        !meant(w, s))
        return;
    w->users += is_new(w, rh_session_user(s)->more);
    rh_conn_push(sh, c, w->h);
}

/* Goes on; returns how many connections it looked at, or might have in that time. */
static unsigned walk_on(struct rh_shard *sh, struct walk *w, unsigned budget)
{
    unsigned left = budget * FREE_SLOTS;

    for (; left && w->slot < sh->slab_count * RH_SLAB; w->slot++) {
        struct rh_conn *slab = sh->slabs[w->slot / RH_SLAB];
        uint32_t at = w->slot % RH_SLAB;

        left -= slab[at].state == RH_CONN_FREE ? 1 : RH_MIN(left, FREE_SLOTS);
        if (at + 8 < RH_SLAB)
            __builtin_prefetch(slab[at + 8].session);
        hand_out(sh, w, &slab[at]);
    }
    return budget - left / FREE_SLOTS;
}

unsigned rh_broadcast_run(struct rh_shard *sh, unsigned budget)
{
    unsigned looked = 0;

    while (looked < budget && !rh_list_empty(&sh->broadcasts)) {
        struct walk *w = rh_container_of(sh->broadcasts.next, struct walk, node);

        looked += walk_on(sh, w, budget - looked);
        if (w->slot == sh->slab_count * RH_SLAB)
            walk_end(sh, w);
    }
    return looked;
}

void rh_broadcast_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_event reply = {.kind = RH_EV_BROADCAST_DONE, .flags = NOT_THERE};
    struct walk *w = walk_create(sh, ev->msg);

    if (w) {
        w->request = *ev;
        return;
    }
    rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
    rh_msg_drop_any(ev->msg);
    rh_mesh_reply(sh->mesh, ev, &reply);
}

void rh_broadcasts_fini(struct rh_shard *sh)
{
    while (!rh_list_empty(&sh->broadcasts))
        walk_free(sh, rh_container_of(sh->broadcasts.next, struct walk, node));
}

/* ---- the answers of all shards ---- */

void rh_broadcast_done_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    rh_gather_reply(sh, ev->cookie, ev->from, ev);
}

static struct asked *asked_of(struct rh_gather *g)
{
    return rh_container_of(g, struct asked, gather);
}

static void take(struct rh_shard *sh, struct rh_gather *g, const struct rh_event *reply)
{
    asked_of(g)->users += reply->a;
    if (reply->flags & NOT_THERE)
        g->partial = true;
}

static void answer(struct rh_shard *sh, struct rh_gather *g)
{
    struct asked *a = asked_of(g);
    struct rh_conn *c = rh_conn_find(sh, (uint32_t)a->conn, (uint32_t)(a->conn >> 32));
    struct rh_span request_id = {a->bytes, a->request_id_len};
    struct rh_span id = {a->bytes + a->request_id_len, a->id_len};
    struct rh_outcome o = {.recipients = (uint32_t)a->users, .partial = g->partial};

    if (a->promise)
        rh_promise_answer(sh, a->promise, &o);
    else
        rh_outcome_tell(sh, c, RH_ID_BROADCAST, request_id, id, &o);
    a->promise = NULL;
}

static void end(struct rh_shard *sh, struct rh_gather *g)
{
    sh->broadcasts_out--;
    rh_mem_free(asked_of(g));
}

/* NULL: no memory. */
static struct asked *asked_create(const struct rh_conn *c, struct rh_span request_id,
                                  struct rh_span id)
{
    struct asked *a = rh_mem_zalloc(sizeof(*a) + request_id.len + id.len);

    if (!a)
        return NULL;
    a->conn = (uint64_t)c->gen << 32 | c->slot;
    a->request_id_len = request_id.len;
    a->id_len = id.len;
    if (request_id.len)
        memcpy(a->bytes, request_id.at, request_id.len);
    memcpy(a->bytes + request_id.len, id.at, id.len);
    return a;
}

/* ---- the request ---- */

enum { P_CONTENT, P_TYPES, P_ROLES, P_PRIORITY, P_ID, P_N };

static const struct rh_param rows[P_N] = {
    [P_CONTENT] = RH_PARAM_ROW("content", ANY, true),
    [P_TYPES] = RH_PARAM_ROW("user_types", ARRAY, false),
    [P_ROLES] = RH_PARAM_ROW("roles", ARRAY, false),
    [P_PRIORITY] = RH_PARAM_ROW("priority", STRING, false),
    [P_ID] = RH_PARAM_ROW("id", STRING, false),
};

/* A checked request; spans point into the client's text or into id_text. */
struct order {
    struct rh_json p[P_N];
    struct rh_span id;
    bool high;
    uint32_t filters_len; /* 0: none */
    char id_text[RH_ID_GIVEN_MAX];
};

/* Adds to the length of the filters. */
static bool check_filter(struct rh_json list, uint32_t *len)
{
    struct rh_json_iter it;
    struct rh_json value;
    unsigned count = 0;

    *len += 1;
    if (list.kind == RH_JSON_NONE)
        return true;
    rh_json_elements(&it, list);
    while (rh_json_next_element(&it, &value)) {
        size_t value_len = value.kind == RH_JSON_STRING ? rh_json_str_len(value.raw) : 0;

        if (value_len == 0 || value_len > RH_NAME_MAX || ++count > RH_FILTER_MAX)
            return false;
        *len += 1 + (uint32_t)value_len;
    }
    return true;
}

/* NULL, or why it is refused with 400. */
static const char *check(struct rh_shard *sh, struct order *o)
{
    const char *priority;
    const char *why = rh_check_id(sh, o->p[P_ID], o->id_text, &o->id);

    o->filters_len = 0;
    if (!why)
        why = rh_check_priority(o->p[P_PRIORITY], &priority, &o->high);
    if (!why && !check_filter(o->p[P_TYPES], &o->filters_len))
        why = "user_types: at most 64 strings of 1 to 128 bytes";
    if (!why && !check_filter(o->p[P_ROLES], &o->filters_len))
        why = "roles: at most 64 strings of 1 to 128 bytes";
    if (o->p[P_TYPES].kind == RH_JSON_NONE && o->p[P_ROLES].kind == RH_JSON_NONE)
        o->filters_len = 0;
    return why;
}

static uint8_t *put_filter(uint8_t *at, struct rh_json list)
{
    uint8_t *count = at++;
    struct rh_json_iter it;
    struct rh_json value;

    *count = 0;
    if (list.kind == RH_JSON_NONE)
        return at;
    *count = 1;
    rh_json_elements(&it, list);
    while (rh_json_next_element(&it, &value)) {
        int len = rh_json_str_decode((char *)at + 1, RH_NAME_MAX, value.raw);

        *at = (uint8_t)len;
        at += 1 + len;
        ++*count;
    }
    return at;
}

static void put_text(struct rh_shard *sh, struct rh_writer *w, const struct order *o,
                     const struct rh_user *from)
{
    rh_put_notify(w, RH_SPAN("broadcast"));
    RH_PUT(w, "{\"id\":\"");
    rh_put(w, o->id.at, o->id.len);
    RH_PUT(w, "\",\"from\":");
    rh_put_str(w, (struct rh_span){from->name, from->name_len});
    RH_PUT(w, ",\"content\":");
    rh_put(w, o->p[P_CONTENT].raw.at, o->p[P_CONTENT].raw.len);
    RH_PUT(w, "}");
    rh_put_notify_end(sh, w);
}

static size_t text_room(const struct order *o, const struct rh_user *from)
{
    return NOTIFY_ROOM + RH_JSON_ESCAPED_MAX(from->name_len) + o->p[P_CONTENT].raw.len;
}

/* NULL: no memory. */
static struct rh_msg *make_message(struct rh_shard *sh, const struct order *o,
                                   const struct rh_user *from)
{
    size_t room = text_room(o, from), len, head_len;
    struct rh_msg *msg = rh_msg_create(room + o->filters_len);
    uint8_t head[RH_WS_HEAD_MAX];
    struct rh_writer w;

    if (!msg)
        return NULL;
    rh_writer_init(&w, msg->bytes + RH_MSG_HEAD_ROOM, room);
    put_text(sh, &w, o, from);
    rh_assert(!w.full);
    len = rh_writer_len(&w);
    head_len = rh_ws_head(head, RH_WS_TEXT, true, len, NULL);
    msg->frame_at = (uint32_t)(RH_MSG_HEAD_ROOM - head_len);
    msg->frame_len = (uint32_t)(head_len + len);
    memcpy(msg->bytes + msg->frame_at, head, head_len);
    msg->key_at = (uint32_t)(RH_MSG_HEAD_ROOM + len);
    msg->key_len = o->filters_len;
    if (o->filters_len)
        put_filter(put_filter(msg->bytes + msg->key_at, o->p[P_TYPES]), o->p[P_ROLES]);
    msg->kind = RH_MSG_BROADCAST;
    msg->high = o->high;
    msg->accepted_ns = sh->now_ns;
    return msg;
}

/* Sets out everywhere; false: no memory, nothing happened. */
static bool start(struct rh_shard *sh, struct rh_conn *c, const struct rh_request *r,
                  const struct order *o, uint32_t cost)
{
    static const struct rh_gather_verbs verbs = {take, answer, end};
    struct rh_msg *msg = make_message(sh, o, rh_conn_user(c));
    struct asked *a = msg ? asked_create(c, r->request_id, o->id) : NULL;
    struct rh_promise *p = a && r->key ? rh_promise_make(sh, c, r, 0, false) : NULL;
    struct walk *w = a && (p || !r->key) ? walk_create(sh, msg) : NULL;
    struct rh_event ev = {.kind = RH_EV_BROADCAST, .msg = msg};

    if (!w) {
        if (p)
            rh_promise_drop(sh, p);
        rh_msg_drop_any(msg);
        rh_mem_free(a);
        return false;
    }
    a->promise = p;
    w->own = &a->gather;
    rh_msg_hold_any(msg, sh->env->shards - 1);
    rh_gather_begin(sh, &a->gather, &verbs);
    rh_gather_ask(sh, &a->gather, &ev, cost);
    sh->broadcasts_out++;
    rh_stat_add(&sh->stats, RH_STAT_messages_sent, 1);
    return true;
}

/* Starts it, or says why not. */
static void admit(struct rh_shard *sh, struct rh_conn *c, const struct rh_request *r,
                  const struct order *o, uint32_t cost)
{
    struct rh_user_more *more = rh_user_more(rh_conn_user(c));

    if (more && !rh_rate_take(&more->broadcast_ns, sh->now_ns / 60,
                              sh->cfg->rooms_broadcasts_per_minute, 0)) {
        rh_respond_error(sh, c, r->request_id, RH_WIRE_rate_limited,
                         "too many broadcasts within a minute");
    } else if (!more || !start(sh, c, r, o, cost)) {
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
        rh_respond_error(sh, c, r->request_id, RH_WIRE_unavailable, NO_MEMORY);
    }
}

/* What tells one target from another: the filters as they were written. */
static uint64_t target_hash(const struct rh_shard *sh, const struct order *o)
{
    struct rh_span types = o->p[P_TYPES].raw, roles = o->p[P_ROLES].raw;
    uint64_t both[2] = {rh_hash(&sh->env->hash_key, types.at, types.len),
                        rh_hash(&sh->env->hash_key, roles.at, roles.len)};

    return rh_hash(&sh->env->hash_key, both, sizeof(both));
}

/* First come, first served. */
static bool may_start(const struct rh_shard *sh)
{
    return sh->broadcasts_out < RH_BROADCASTS_MAX && rh_list_empty(&sh->credit[sh->tid]);
}

/* A checked one; returns as rh_request. */
static int broadcast(struct rh_shard *sh, struct rh_conn *c, const struct order *o,
                     struct rh_request *r, unsigned *ret_shard)
{
    const struct rh_user *from = rh_conn_user(c);
    uint32_t cost = (uint32_t)RH_MIN(text_room(o, from) + o->filters_len, (size_t)RH_CREDIT_BYTES);
    enum rh_promise_may may = RH_PROMISE_GO;
    struct rh_id_key key;
    uint64_t target;

    if (o->p[P_ID].kind != RH_JSON_NONE) {
        target = target_hash(sh, o);
        rh_request_key(sh, r, from, (struct rh_span){(const char *)&target, sizeof(target)}, &key);
        may = rh_promise_admit(sh, c, r, 0, false);
    }
    *ret_shard = may == RH_PROMISE_GO ? sh->tid : RH_WAIT_PROMISES;
    if (may == RH_PROMISE_DONE)
        return RH_OK;
    if (may == RH_PROMISE_WAIT || !may_start(sh) || !rh_gather_open(sh, cost, ret_shard))
        return RH_EFULL;
    admit(sh, c, r, o, cost);
    return RH_OK;
}

int rh_broadcast_request(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                         unsigned *ret_shard)
{
    struct rh_request r = {.event = RH_ID_BROADCAST, .request_id = env->request_id};
    const char *why;
    struct order o;

    if (!rh_span_eq(rh_session_type(c->session), RH_SPAN("admin")) &&
        !rh_span_eq(rh_session_role(c->session), RH_SPAN("admin"))) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_forbidden, "only an admin may broadcast");
        return RH_OK;
    }
    if (!rh_request_params(sh, c, env, rows, P_N, o.p))
        return RH_OK;
    why = check(sh, &o);
    if (why) {
        rh_respond_error(sh, c, env->request_id, RH_WIRE_bad_request, why);
        return RH_OK;
    }
    r.id = o.id;
    return broadcast(sh, c, &o, &r, ret_shard);
}
