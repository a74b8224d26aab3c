/* shard/promise.c - requests whose answer may wait for a commit, and ids that are remembered; the design
 * is in promise.h.
 *
 * Whoever answers takes the promise apart first (its id, those who hang on it, its place among the
 * others): writing an answer may close a connection, and what that does never meets a promise that is
 * half done.
 */
#include "shard/promise.h"

#include <string.h>

#include "core/mem.h"

#define EXPIRE_A_SECOND 16384 /* ids: about 1 ms */
#define EXPIRE_A_MAKE   2     /* so that they go as fast as they come */

/* Another request with the same id, which gets the same answer. */
struct waiter {
    struct waiter *next;
    uint64_t conn;
    uint32_t request_id_len;
    char bytes[];
};

struct rh_promise {
    struct rh_list node; /* struct rh_shard.promises */
    struct rh_id *id_known;
    struct waiter *first, *last;
    uint64_t conn; /* slot and generation of the asking connection */
    uint32_t bytes;
    uint32_t request_id_len;
    uint8_t id_len;
    uint8_t event; /* enum rh_id_event */
    bool counted;  /* in the bounds */
    bool owed;     /* the reply has come */
    bool answered; /* COMMITTED has come, and the reply has not */
    char text[];   /* request_id as it is to be echoed, then the id */
};

/* ---- outcomes ---- */

const char *rh_outcome_sentence(enum rh_wire_error err)
{
    switch (err) {
    case RH_WIRE_user_offline:
        return "the receiver is not connected";
    case RH_WIRE_queue_full:
        return "as many messages as may wait for the receiver do so already";
    case RH_WIRE_store_failed:
        return "the message could not be stored, try again";
    case RH_WIRE_conflict:
        return "another message with this id is still owed to the receiver";
    case RH_WIRE_expired:
        return "the message's time was over before it could be kept";
    default:
        return "out of memory, try again";
    }
}

static void count(struct rh_shard *sh, enum rh_id_event event, enum rh_wire_error err)
{
    struct rh_stats *stats = &sh->stats;

    if (err == RH_WIRE_NONE) {
        if (event != RH_ID_BROADCAST) /* counted when it set out */
            rh_stat_inc(stats, RH_STAT_messages_sent);
        return;
    }
    rh_stat_inc(stats, RH_STAT_failures_general);
    if (err == RH_WIRE_user_offline)
        rh_stat_inc(stats, RH_STAT_failures_user_offline);
    else if (err == RH_WIRE_queue_full)
        rh_stat_inc(stats, RH_STAT_failures_queue_full);
}

static void put_data(struct rh_writer *w, enum rh_id_event event, struct rh_span id,
                     const struct rh_outcome *o)
{
    RH_PUT(w, "{\"id\":\"");
    rh_put(w, id.at, id.len);
    if (event == RH_ID_SEND) {
        RH_PUT(w, "\",\"status\":\"");
        if (o->stored)
            RH_PUT(w, "stored\"}");
        else
            RH_PUT(w, "sent\"}");
        return;
    }
    RH_PUT(w, "\"");
    if (event == RH_ID_PUBLISH) {
        RH_PUT(w, ",\"seq\":");
        rh_put_u64(w, o->seq);
    }
    RH_PUT(w, ",\"recipients\":");
    rh_put_u64(w, o->recipients);
    if (o->partial)
        RH_PUT(w, ",\"partial\":true");
    RH_PUT(w, "}");
}

/* Without counting; c may be NULL. */
static void answer(struct rh_shard *sh, struct rh_conn *c, enum rh_id_event event,
                   struct rh_span request_id, struct rh_span id, const struct rh_outcome *o)
{
    struct rh_frame f;

    if (o->err == RH_WIRE_store_failed)
        rh_stat_inc(&sh->stats, RH_STAT_promises_refused);
    if (!c)
        return;
    if (o->err != RH_WIRE_NONE) {
        rh_respond_error(sh, c, request_id, o->err, o->why ? o->why : rh_outcome_sentence(o->err));
        return;
    }
    if (!request_id.len || !rh_frame_begin(sh, c, &f, RH_FRAME_ROOM + request_id.len + id.len))
        return;
    rh_put_response(&f.w, request_id);
    put_data(&f.w, event, id, o);
    rh_put_answer_end(sh, c, &f.w);
    rh_frame_end(sh, c, &f);
}

void rh_outcome_tell(struct rh_shard *sh, struct rh_conn *c, enum rh_id_event event,
                     struct rh_span request_id, struct rh_span id, const struct rh_outcome *o)
{
    count(sh, event, o->err);
    answer(sh, c, event, request_id, id, o);
}

/* ---- bounds ---- */

static uint64_t conn_name(const struct rh_conn *c)
{
    return (uint64_t)c->gen << 32 | c->slot;
}

static struct rh_conn *conn_of(struct rh_shard *sh, uint64_t name)
{
    return rh_conn_find(sh, (uint32_t)name, (uint32_t)(name >> 32));
}

/* Of the bounds, three quarters are for those that surely wait. One message over the bound takes all. */
static bool within(const struct rh_shard *sh, size_t bytes, bool surely)
{
    uint64_t room = RH_PENDING_BYTES_MAX / sh->env->shards, places = RH_PENDING_MAX;

    if (surely) {
        room -= room / 4;
        places -= places / 4;
    }
    return sh->promises_pending < places && sh->promise_bytes + bytes <= room;
}

bool rh_promise_open(const struct rh_shard *sh, size_t bytes, bool surely)
{
    if (surely && !rh_list_empty(&sh->promise_waiting))
        return false;
    return !sh->promises_pending || within(sh, bytes, surely);
}

static void add_pending(struct rh_shard *sh, uint32_t bytes)
{
    sh->promises_pending++;
    sh->promise_bytes += bytes;
    rh_stat_inc(&sh->stats, RH_STAT_promises_pending);
}

static void sub_pending(struct rh_shard *sh, uint32_t bytes)
{
    sh->promises_pending--;
    sh->promise_bytes -= bytes;
    rh_stat_sub(&sh->stats, RH_STAT_promises_pending, 1);
}

/* ---- ids ---- */

static bool ids_wanted(const struct rh_shard *sh)
{
    return sh->cfg->dedup_window_ms && sh->cfg->dedup_max;
}

static void trim_ids(struct rh_shard *sh, uint32_t budget)
{
    bool wanted = ids_wanted(sh);
    uint32_t evicted = rh_dedup_trim(&sh->dedup, wanted ? rh_now_unix_ms(sh) : UINT64_MAX,
                                     sh->cfg->dedup_max, budget);

    rh_stat_add(&sh->stats, RH_STAT_dedup_evicted, evicted);
    rh_stat_set(&sh->stats, RH_STAT_dedup_ids, rh_dedup_count(&sh->dedup));
}

struct rh_id_key rh_id_key(const struct rh_shard *sh, enum rh_id_event event, struct rh_span from,
                           struct rh_span target, struct rh_span id)
{
    return rh_dedup_key(&sh->dedup, event, from, target, id);
}

/* False: no memory. */
static bool hang_on(struct rh_shard *sh, struct rh_promise *p, const struct rh_conn *c,
                    struct rh_span request_id)
{
    struct waiter *w = rh_mem_alloc(sizeof(*w) + request_id.len);

    if (!w)
        return false;
    w->next = NULL;
    w->conn = conn_name(c);
    w->request_id_len = request_id.len;
    if (request_id.len)
        memcpy(w->bytes, request_id.at, request_id.len);
    if (p->last)
        p->last->next = w;
    else
        p->first = w;
    p->last = w;
    add_pending(sh, w->request_id_len);
    return true;
}

enum rh_id_known rh_id_ask(struct rh_shard *sh, struct rh_conn *c, const struct rh_id_key *key,
                           enum rh_id_event event, struct rh_span request_id, struct rh_span id)
{
    const struct rh_id *known = rh_dedup_find(&sh->dedup, key, rh_now_unix_ms(sh));
    struct rh_outcome o = {.err = RH_WIRE_NONE};

    if (!known)
        return RH_ID_NEW;
    if (rh_id_is_pending(known))
        return hang_on(sh, known->promise, c, request_id) ? RH_ID_PENDING : RH_ID_NO_MEMORY;
    o.stored = known->stored;
    o.partial = known->partial;
    o.seq = known->seq;
    o.recipients = known->recipients;
    rh_stat_inc(&sh->stats, RH_STAT_dedup_hits);
    answer(sh, c, event, request_id, id, &o);
    return RH_ID_ANSWERED;
}

/* The outcome of a promise's id; an error is forgotten. */
static void settle_id(struct rh_shard *sh, struct rh_id *id, const struct rh_outcome *o)
{
    struct rh_id_outcome kept = {o->seq, o->stored, o->partial, o->recipients};
    uint64_t until;

    if (!id)
        return;
    until = o->err == RH_WIRE_NONE ? rh_id_until_ms(sh) : 0;
    if (until)
        rh_dedup_keep(&sh->dedup, id, &kept, until);
    else
        rh_dedup_drop(&sh->dedup, id);
    trim_ids(sh, EXPIRE_A_MAKE);
}

void rh_promise_remember_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_remembered *r = ev->msg;
    struct rh_id_outcome kept = {r->seq, (r->flags & RH_ACCEPT_STORED) != 0, false, r->recipients};
    struct rh_span from = {r->bytes, r->from_len}, to = {from.at + from.len, r->to_len};
    struct rh_span id = {to.at + to.len, r->id_len};
    struct rh_id_key key =
        rh_id_key(sh, r->event == RH_MSG_ROOM ? RH_ID_PUBLISH : RH_ID_SEND, from, to, id);
    uint64_t now_ms = rh_now_unix_ms(sh);
    struct rh_id *entry = NULL;

    if (ids_wanted(sh) && r->until_ms > now_ms && !rh_dedup_find(&sh->dedup, &key, now_ms)) {
        entry = rh_dedup_add(&sh->dedup, &key, NULL);
        if (entry)
            rh_dedup_keep(&sh->dedup, entry, &kept, r->until_ms);
        else
            rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
        trim_ids(sh, EXPIRE_A_MAKE);
    }
    rh_mem_free(r);
}

void rh_promises_expire(struct rh_shard *sh)
{
    trim_ids(sh, EXPIRE_A_SECOND);
}

/* ---- promises ---- */

void rh_request_key(const struct rh_shard *sh, struct rh_request *r, const struct rh_user *from,
                    struct rh_span target, struct rh_id_key *key)
{
    struct rh_span sender = {from->name, from->name_len};

    r->key = NULL;
    if (!ids_wanted(sh))
        return;
    *key = rh_id_key(sh, r->event, sender, target, r->id);
    r->key = key;
}

static enum rh_promise_may refuse(struct rh_shard *sh, struct rh_conn *c,
                                  const struct rh_request *r, enum rh_wire_error err)
{
    struct rh_outcome o = {.err = err};

    rh_outcome_tell(sh, c, r->event, r->request_id, r->id, &o);
    return RH_PROMISE_DONE;
}

enum rh_promise_may rh_promise_admit(struct rh_shard *sh, struct rh_conn *c,
                                     const struct rh_request *r, size_t bytes, bool ack)
{
    enum rh_id_known known = RH_ID_NEW;

    if (!rh_promise_open(sh, bytes, ack))
        return RH_PROMISE_WAIT;
    if (r->key)
        known = rh_id_ask(sh, c, r->key, r->event, r->request_id, r->id);
    if (known == RH_ID_NO_MEMORY)
        return refuse(sh, c, r, RH_WIRE_unavailable);
    if (known != RH_ID_NEW)
        return RH_PROMISE_DONE;
    if (ack && !rh_gate_open(sh))
        return refuse(sh, c, r, RH_WIRE_store_failed);
    return RH_PROMISE_GO;
}

struct rh_promise *rh_promise_make(struct rh_shard *sh, const struct rh_conn *c,
                                   const struct rh_request *r, size_t bytes, bool surely)
{
    struct rh_promise *p = rh_mem_alloc(sizeof(*p) + r->request_id.len + r->id.len);

    if (!p)
        return NULL;
    memset(p, 0, sizeof(*p));
    if (r->key) {
        p->id_known = rh_dedup_add(&sh->dedup, r->key, p);
        if (!p->id_known) {
            rh_mem_free(p);
            return NULL;
        }
        trim_ids(sh, EXPIRE_A_MAKE);
    }
    p->conn = conn_name(c);
    p->bytes = (uint32_t)RH_MIN(bytes, (size_t)RH_PENDING_BYTES_MAX);
    p->event = (uint8_t)r->event;
    p->request_id_len = r->request_id.len;
    p->id_len = (uint8_t)r->id.len;
    if (r->request_id.len)
        memcpy(p->text, r->request_id.at, r->request_id.len);
    memcpy(p->text + r->request_id.len, r->id.at, r->id.len);
    rh_list_init(&p->node);
    rh_list_add(&sh->promises, &p->node);
    sh->promise_count++;
    p->counted = surely;
    if (surely)
        add_pending(sh, p->bytes);
    return p;
}

static void promise_free(struct rh_shard *sh, struct rh_promise *p)
{
    rh_list_del(&p->node);
    sh->promise_count--;
    rh_mem_free(p);
}

static void uncount(struct rh_shard *sh, struct rh_promise *p)
{
    if (p->counted)
        sub_pending(sh, p->bytes);
    p->counted = false;
}

/* Answers those who hang on it, each once. */
static void tell_waiters(struct rh_shard *sh, const struct rh_promise *p, struct waiter *take_first,
                         struct rh_span id, const struct rh_outcome *o)
{
    while (take_first) {
        struct waiter *w = take_first;

        take_first = w->next;
        sub_pending(sh, w->request_id_len);
        rh_stat_add(&sh->stats, RH_STAT_dedup_hits, o->err == RH_WIRE_NONE);
        answer(sh, conn_of(sh, w->conn), (enum rh_id_event)p->event,
               (struct rh_span){w->bytes, w->request_id_len}, id, o);
        rh_mem_free(w);
    }
}

/* Gives the answer to all who wait for it. The promise is still there behind it. */
static void tell(struct rh_shard *sh, struct rh_promise *p, const struct rh_outcome *o)
{
    struct rh_span request_id = {p->text, p->request_id_len};
    struct rh_span id = {p->text + p->request_id_len, p->id_len};
    struct waiter *waiters = p->first;
    struct rh_id *known = p->id_known;

    p->first = p->last = NULL;
    p->id_known = NULL;
    uncount(sh, p);
    settle_id(sh, known, o);
    rh_outcome_tell(sh, conn_of(sh, p->conn), (enum rh_id_event)p->event, request_id, id, o);
    tell_waiters(sh, p, waiters, id, o);
}

void rh_promise_answer(struct rh_shard *sh, struct rh_promise *p, const struct rh_outcome *outcome)
{
    rh_assert(!p->owed && !p->answered);
    tell(sh, p, outcome);
    promise_free(sh, p);
}

void rh_promise_owed(struct rh_shard *sh, struct rh_promise *p)
{
    rh_assert(!p->owed);
    if (p->answered) {
        promise_free(sh, p);
        return;
    }
    p->owed = true;
    if (!p->counted)
        add_pending(sh, p->bytes);
    p->counted = true;
}

void rh_promise_committed_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_promise *p = ev->cookie;
    struct rh_outcome o = {
        .err = (enum rh_wire_error)ev->a,
        .stored = ev->b & RH_ACCEPT_STORED,
        .seq = ev->c,
        .recipients = (uint32_t)ev->d,
    };

    rh_assert(!p->answered);
    p->answered = true;
    tell(sh, p, &o);
    if (p->owed)
        promise_free(sh, p);
}

void rh_promise_drop(struct rh_shard *sh, struct rh_promise *p)
{
    rh_assert(!p->owed && !p->answered && !p->first);
    uncount(sh, p);
    if (p->id_known)
        rh_dedup_drop(&sh->dedup, p->id_known);
    promise_free(sh, p);
}

uint32_t rh_promises_pending(const struct rh_shard *sh)
{
    return sh->promise_count;
}

/* ---- life ---- */

int rh_promises_init(struct rh_shard *sh)
{
    rh_list_init(&sh->promises);
    rh_list_init(&sh->promise_waiting);
    return rh_dedup_init(&sh->dedup, rh_now_unix_ms(sh));
}

void rh_promises_fini(struct rh_shard *sh)
{
    while (sh->promise_count) {
        struct rh_promise *p = rh_container_of(sh->promises.next, struct rh_promise, node);

        while (p->first) {
            struct waiter *w = p->first;

            p->first = w->next;
            rh_mem_free(w);
        }
        if (p->id_known)
            rh_dedup_drop(&sh->dedup, p->id_known);
        promise_free(sh, p);
    }
    rh_dedup_fini(&sh->dedup);
}
