/* tests/shard/promise_rig.h - for test_promise*.c: two shards that promise, and whom they talk to.
 *
 * Real are promise.c, dedup.c, route.c and the mesh; connections, users, what is owed and the record
 * thread are played. Shard 0 has the askers; the receiver, bob, is on whichever shard is asked. What
 * clients are told is written into a book, so that a test can compare a sentence. One rig at a time is
 * enough: each test is a process of its own.
 */
#ifndef RH_PROMISE_RIG_H
#define RH_PROMISE_RIG_H

#include <stdio.h>

#include "core/mem.h"
#include "core/thread.h"
#include "shard/owed.h"
#include "shard/promise.h"
#include "tests/rh_test.h"

#define SHARDS  2
#define RECORD  (SHARDS + 2)
#define CONNS   6 /* of users of shard 0: the askers */
#define WAITING 64
#define BYTES   100 /* of a message */

static struct rig {
    struct rh_shard *sh[SHARDS];
    struct rh_shard_env env;
    struct rh_promises promises;
    struct rh_config *cfg;
    struct rh_conn conns[CONNS];
    struct rh_user *users[2]; /* of shard 0: conns 0 to 3 are the first one's */
    struct rh_user *receiver;
    bool online;                   /* the receiver has a device */
    enum rh_owed_result owed;      /* what shard/owed.c would say */
    enum rh_wire_error owed_error; /* if it refuses */
    int push_rc;
    unsigned asked_owed, pushed, resumed;
    struct rh_event accepted[WAITING]; /* what the record thread has not committed */
    unsigned accepted_count;
    char book[1 << 16]; /* what clients were told */
} rig;

static inline void note(const char *text)
{
    RH_OK_IF(strlen(rig.book) + strlen(text) + 2 < sizeof(rig.book));
    if (rig.book[0])
        strcat(rig.book, ", ");
    strcat(rig.book, text);
}

/* The book so far, and begins a new one. */
static inline const char *told(void)
{
    static char page[sizeof(rig.book)];

    strcpy(page, rig.book);
    rig.book[0] = '\0';
    return page;
}

/* ---- the neighbours ---- */

struct rh_conn *rh_conn_find(struct rh_shard *sh, uint32_t slot, uint32_t gen)
{
    return slot < CONNS && rig.conns[slot].state == RH_CONN_OPEN && rig.conns[slot].gen == gen
               ? &rig.conns[slot]
               : NULL;
}

static void (*on_resume)(struct rh_conn *c);

void rh_conn_resume(struct rh_shard *sh, struct rh_conn *c, unsigned cause)
{
    RH_EQ_INT(cause, RH_PAUSE_PROMISE);
    c->paused = 0;
    rig.resumed++;
    if (on_resume)
        on_resume(c);
}

int rh_conn_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    RH_OK_IF(h->msg->seq >= RH_MSG_SEQ_MIN);
    rig.pushed++;
    return rig.push_rc;
}

static char frame[4096];

bool rh_frame_begin(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f, size_t room)
{
    RH_OK_IF(room <= sizeof(frame));
    rh_writer_init(&f->w, frame, room);
    rh_put(&f->w, "c", 1);
    rh_put_u64(&f->w, c->slot);
    rh_put(&f->w, " ", 1);
    return c->state == RH_CONN_OPEN;
}

void rh_frame_end(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f)
{
    char text[sizeof(frame)];

    RH_OK_IF(!f->w.full);
    snprintf(text, sizeof(text), "%.*s", (int)rh_writer_len(&f->w), frame);
    note(text);
}

void rh_put_response(struct rh_writer *w, struct rh_span request_id)
{
    rh_put(w, request_id.at, request_id.len);
    RH_PUT(w, " ");
}

void rh_put_answer_end(struct rh_shard *sh, const struct rh_conn *c, struct rh_writer *w)
{
}

void rh_respond_error(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                      unsigned err, const char *why)
{
    char text[128];

    RH_OK_IF(why && strlen(why) > 10);
    snprintf(text, sizeof(text), "c%u %.*s %s", c->slot, (int)request_id.len, request_id.at,
             rh_wire_error_name(err));
    note(text);
}

struct rh_user *rh_user_find(const struct rh_shard *sh, uint64_t hash, const char *name, size_t len)
{
    return rig.receiver;
}

void rh_user_pin(struct rh_user *user)
{
    user->pins++;
}

void rh_user_unpin(struct rh_shard *sh, struct rh_user *user)
{
    user->pins--;
}

bool rh_retry_wanted(const struct rh_shard *sh, struct rh_user *user)
{
    return false;
}

int rh_retry_add(struct rh_shard *sh, struct rh_user *user, struct rh_handle *h)
{
    RH_FAIL("nothing is tried again here");
    return RH_EFULL;
}

bool rh_owed_any(const struct rh_user *user)
{
    return rig.owed != RH_OWED_NO;
}

bool rh_owed_waits(const struct rh_user *user)
{
    return false;
}

/* What is accepted is seen by the record thread at once, before the reply to the asker is. */
enum rh_owed_result rh_owed_direct(struct rh_shard *sh, struct rh_msg *take_msg,
                                   const struct rh_asker *asker, enum rh_wire_error *ret_error)
{
    struct rh_event ev = {.kind = RH_EV_ACCEPTED,
                          .msg = take_msg,
                          .cookie = asker->cookie,
                          .conn = asker->conn,
                          .a = asker->tid};

    rig.asked_owed++;
    if (rig.owed == RH_OWED_REFUSED)
        *ret_error = rig.owed_error;
    if (rig.owed != RH_OWED_ACCEPTED)
        return rig.owed;
    RH_OK_IF(asker->cookie);
    RH_EQ_INT(rh_mesh_tell(sh->mesh, RECORD, &ev), RH_OK);
    rh_mesh_publish(sh->mesh);
    return RH_OWED_ACCEPTED;
}

/* ---- the rig ---- */

static inline void wake(void *arg, unsigned tid)
{
}

static inline struct rh_user *user_named(const char *name)
{
    struct rh_user *user = rh_mem_zalloc(sizeof(*user) + strlen(name));

    RH_OK_IF(user);
    user->name_len = (uint8_t)strlen(name);
    memcpy(user->name, name, user->name_len);
    user->first.is_first = true;
    return user;
}

static inline struct rh_shard *shard_make(unsigned tid)
{
    struct rh_shard *sh = rh_mem_zalloc_aligned(sizeof(*sh));

    RH_OK_IF(sh);
    sh->tid = tid;
    sh->env = &rig.env;
    sh->cfg = rig.cfg;
    sh->mesh = rh_net_member(rig.env.net, tid);
    sh->hub_us = 1700000000000000;
    sh->seq = RH_MSG_SEQ_MIN;
    for (unsigned i = 0; i < RH_SHARDS_MAX; i++)
        rh_list_init(&sh->credit[i]);
    RH_EQ_INT(rh_promises_init(sh), RH_OK);
    return sh;
}

/* The receiver is connected and nothing is owed to it. */
static inline void begin(void)
{
    static struct rh_conn device = {.state = RH_CONN_OPEN};
    uint64_t left = rh_mem_fail_left();

    rh_mem_fail_nth(0);
    memset(&rig, 0, sizeof(rig));
    on_resume = NULL;
    RH_EQ_INT(rh_config_create(&rig.cfg), RH_OK);
    RH_EQ_INT(rh_net_create(RECORD + 1, wake, NULL, &rig.env.net), RH_OK);
    rig.env.shards = SHARDS;
    rig.env.record = RECORD;
    rig.env.promises = &rig.promises;
    rig.users[0] = user_named("alice");
    rig.users[1] = user_named("carol");
    rig.receiver = user_named("bob");
    rig.receiver->first.number = 1;
    rig.receiver->first.conn = &device;
    for (unsigned i = 0; i < SHARDS; i++)
        rig.sh[i] = shard_make(i);
    for (unsigned i = 0; i < CONNS; i++) {
        rig.conns[i].slot = i;
        rig.conns[i].gen = i + 7;
        rig.conns[i].state = RH_CONN_OPEN;
        rh_list_init(&rig.conns[i].waiting);
    }
    rh_mem_fail_nth(left);
}

static inline uint64_t stat_of(enum rh_stat stat)
{
    return rig.sh[0]->stats.v[stat];
}

static inline void end(void)
{
    rh_mem_fail_nth(0);
    RH_EQ_INT(rig.sh[0]->promises_pending, 0);
    RH_EQ_U64(rig.sh[0]->promise_bytes, 0);
    RH_EQ_INT(rh_promises_pending(rig.sh[0]), 0);
    RH_EQ_U64(stat_of(RH_STAT_promises_pending), 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        RH_OK_IF(rh_mesh_quiet(rig.sh[i]->mesh));
        rh_promises_fini(rig.sh[i]);
        rh_handles_fini(&rig.sh[i]->stock.handles);
        rh_mem_free(rig.sh[i]);
    }
    rh_net_destroy(rig.env.net);
    rh_config_destroy(rig.cfg);
    rh_mem_free(rig.users[0]);
    rh_mem_free(rig.users[1]);
    rh_mem_free(rig.receiver);
}

static inline struct rh_span span(const char *text)
{
    return (struct rh_span){text, (uint32_t)strlen(text)};
}

static inline struct rh_msg *message(bool ack, bool given)
{
    struct rh_msg *msg = rh_msg_create(BYTES);

    if (!msg)
        return NULL;
    msg->frame_len = BYTES;
    msg->seq_at = msg->frame_at;
    msg->ack = ack;
    msg->given = given;
    return msg;
}

/* As message.send does it; `id` NULL: it gives none. */
static inline enum rh_promise_may ask(unsigned conn, unsigned to, const char *request,
                                      const char *id, bool ack)
{
    struct rh_conn *c = &rig.conns[conn];
    struct rh_request r = {RH_ID_SEND, span(request), span(id ? id : "made"), NULL};
    enum rh_promise_may may;
    struct rh_id_key key;
    struct rh_msg *msg;

    rh_tid_set(0);
    if (id)
        rh_request_key(rig.sh[0], &r, rig.users[conn / 4], span("bob"), &key);
    may = rh_promise_admit(rig.sh[0], c, &r, BYTES, ack);
    if (may != RH_PROMISE_GO)
        return may;
    RH_OK_IF(rh_route_open(rig.sh[0], to, BYTES));
    msg = message(ack, id != NULL);
    if (msg)
        rh_route_send(rig.sh[0], c, to, msg, &r);
    else
        rh_respond_error(rig.sh[0], c, r.request_id, RH_WIRE_unavailable, "no memory, try again");
    return may;
}

static inline enum rh_promise_may plain(unsigned conn, unsigned to, const char *request,
                                        const char *id)
{
    return ask(conn, to, request, id, false);
}

static inline enum rh_promise_may acked(unsigned conn, unsigned to, const char *request,
                                        const char *id)
{
    return ask(conn, to, request, id, true);
}

static inline void on_event(void *arg, const struct rh_event *ev)
{
    struct rh_shard *sh = arg;

    switch (ev->kind) {
    case RH_EV_SEND:
        rh_route_send_pop(sh, ev);
        break;
    case RH_EV_SENT:
        rh_route_sent_pop(sh, ev);
        break;
    case RH_EV_COMMITTED:
        rh_promise_committed_pop(sh, ev);
        break;
    default:
        RH_FAIL("an event of kind %s", rh_event_name(ev->kind));
    }
}

/* One shard takes what has come; what it sends is seen at the end, unless it is told not to. */
static inline void pass(unsigned k, bool publish)
{
    rh_tid_set((int)k);
    rh_mesh_pop(rig.sh[k]->mesh, on_event, rig.sh[k]);
    if (publish)
        rh_mesh_publish(rig.sh[k]->mesh);
}

static inline void on_record(void *arg, const struct rh_event *ev)
{
    RH_OK_IF(ev->kind == RH_EV_ACCEPTED && rig.accepted_count < WAITING);
    rig.accepted[rig.accepted_count++] = *ev;
}

static inline void record_pops(void)
{
    rh_tid_set(RECORD);
    rh_mesh_pop(rh_net_member(rig.env.net, RECORD), on_record, NULL);
}

/* The one that has waited longest, or place `i`. */
static inline void commit_at(unsigned i, enum rh_wire_error err, unsigned flags)
{
    struct rh_mesh *m = rh_net_member(rig.env.net, RECORD);
    struct rh_event ev = rig.accepted[i];
    struct rh_event done = {.kind = RH_EV_COMMITTED,
                            .cookie = ev.cookie,
                            .conn = ev.conn,
                            .a = err,
                            .b = flags,
                            .c = 41,
                            .d = 3};

    rh_tid_set(RECORD);
    memmove(&rig.accepted[i], &rig.accepted[i + 1],
            (--rig.accepted_count - i) * sizeof(rig.accepted[0]));
    RH_EQ_INT(rh_mesh_tell(m, (unsigned)ev.a, &done), RH_OK);
    rh_mesh_publish(m);
    rh_msg_drop_any(ev.msg);
}

static inline void commit(enum rh_wire_error err, unsigned flags)
{
    record_pops();
    RH_OK_IF(rig.accepted_count);
    commit_at(0, err, flags);
}

/* Everything that is under way arrives, but what waits for a commit. */
static inline void settle(void)
{
    for (unsigned turn = 0; turn < 3; turn++)
        for (unsigned k = 0; k < SHARDS; k++)
            pass(k, true);
    record_pops();
}

static inline void later(unsigned ms)
{
    rig.sh[0]->hub_us += 1000ull * ms;
}

#endif
