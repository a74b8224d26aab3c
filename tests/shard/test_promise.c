/* Promises at the asker's shard: an answer is given once, whichever of SENT and COMMITTED comes first;
 * ids that are repeated; the gate and the bounds.
 *
 * Real are promise.c, dedup.c, route.c and the mesh, of two shards; connections, users, what is owed and
 * the record thread are played. */
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

static void note(const char *text)
{
    RH_OK_IF(strlen(rig.book) + strlen(text) + 2 < sizeof(rig.book));
    if (rig.book[0])
        strcat(rig.book, ", ");
    strcat(rig.book, text);
}

/* The book so far, and begins a new one. */
static const char *told(void)
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

static void wake(void *arg, unsigned tid)
{
}

static struct rh_user *user_named(const char *name)
{
    struct rh_user *user = rh_mem_zalloc(sizeof(*user) + strlen(name));

    RH_OK_IF(user);
    user->name_len = (uint8_t)strlen(name);
    memcpy(user->name, name, user->name_len);
    user->first.is_first = true;
    return user;
}

static struct rh_shard *shard_make(unsigned tid)
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
static void begin(void)
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

static uint64_t stat_of(enum rh_stat stat)
{
    return rig.sh[0]->stats.v[stat];
}

static void end(void)
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

static struct rh_span span(const char *text)
{
    return (struct rh_span){text, (uint32_t)strlen(text)};
}

static struct rh_msg *message(bool ack, bool given)
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
static enum rh_promise_may ask(unsigned conn, unsigned to, const char *request, const char *id,
                               bool ack)
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

static enum rh_promise_may plain(unsigned conn, unsigned to, const char *request, const char *id)
{
    return ask(conn, to, request, id, false);
}

static enum rh_promise_may acked(unsigned conn, unsigned to, const char *request, const char *id)
{
    return ask(conn, to, request, id, true);
}

static void on_event(void *arg, const struct rh_event *ev)
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
static void pass(unsigned k, bool publish)
{
    rh_tid_set((int)k);
    rh_mesh_pop(rig.sh[k]->mesh, on_event, rig.sh[k]);
    if (publish)
        rh_mesh_publish(rig.sh[k]->mesh);
}

static void on_record(void *arg, const struct rh_event *ev)
{
    RH_OK_IF(ev->kind == RH_EV_ACCEPTED && rig.accepted_count < WAITING);
    rig.accepted[rig.accepted_count++] = *ev;
}

static void record_pops(void)
{
    rh_tid_set(RECORD);
    rh_mesh_pop(rh_net_member(rig.env.net, RECORD), on_record, NULL);
}

/* The one that has waited longest, or place `i`. */
static void commit_at(unsigned i, enum rh_wire_error err, unsigned flags)
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

static void commit(enum rh_wire_error err, unsigned flags)
{
    record_pops();
    RH_OK_IF(rig.accepted_count);
    commit_at(0, err, flags);
}

/* Everything that is under way arrives, but what waits for a commit. */
static void settle(void)
{
    for (unsigned turn = 0; turn < 3; turn++)
        for (unsigned k = 0; k < SHARDS; k++)
            pass(k, true);
    record_pops();
}

static void later(unsigned ms)
{
    rig.sh[0]->hub_us += 1000ull * ms;
}

/* ---- who gets which answer ---- */

/* Goal    a plain message within a shard costs no promise, and no memory at all. */
RH_TEST(promise, plain_ones_within_a_shard_need_none)
{
    struct rh_request r = {RH_ID_SEND, RH_SPAN("r1"), RH_SPAN("made"), NULL};
    struct rh_msg *msg;

    begin();
    plain(0, 0, "r0", NULL); /* leaves a handle in stock */
    told();
    msg = message(false, false);
    rh_mem_fail_nth(1);
    rh_route_send(rig.sh[0], &rig.conns[0], 0, msg, &r);
    RH_EQ_U64(rh_mem_fail_left(), 1);
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"made\",\"status\":\"sent\"}");
    RH_EQ_INT(rig.asked_owed, 0);
    RH_EQ_U64(stat_of(RH_STAT_messages_sent), 2);
    end();
}

RH_TEST(promise, a_remote_one_is_answered_by_sent)
{
    begin();
    plain(0, 1, "r1", NULL);
    RH_EQ_INT(rh_promises_pending(rig.sh[0]), 1);
    RH_EQ_INT(rig.sh[0]->promises_pending, 0); /* it does not wait for a commit */
    RH_EQ_STR(told(), "");
    settle();
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"made\",\"status\":\"sent\"}");
    RH_EQ_INT(rig.pushed, 1);
    end();
}

/* Goal    what becomes of a message is told, here and there alike, and counted in its class. */
RH_TEST(promise, errors_are_told_in_words)
{
    static const enum rh_wire_error errors[] = {RH_WIRE_user_offline, RH_WIRE_queue_full,
                                                RH_WIRE_store_failed, RH_WIRE_conflict,
                                                RH_WIRE_unavailable};
    char expected[64];

    for (unsigned to = 0; to < SHARDS; to++) {
        begin();
        rig.owed = RH_OWED_REFUSED;
        for (unsigned i = 0; i < RH_COUNT(errors); i++) {
            rig.owed_error = errors[i];
            acked(0, to, "r1", NULL);
            settle();
            snprintf(expected, sizeof(expected), "c0 r1 %s", rh_wire_error_name(errors[i]));
            RH_EQ_STR(told(), expected);
            for (unsigned k = 0; k < i; k++)
                RH_OK_IF(strcmp(rh_outcome_sentence(errors[i]), rh_outcome_sentence(errors[k])));
        }
        RH_EQ_U64(stat_of(RH_STAT_failures_general), RH_COUNT(errors));
        RH_EQ_U64(stat_of(RH_STAT_failures_user_offline), 1);
        RH_EQ_U64(stat_of(RH_STAT_failures_queue_full), 1);
        RH_EQ_U64(stat_of(RH_STAT_promises_refused), 1);
        RH_EQ_U64(stat_of(RH_STAT_messages_sent), 0);
        end();
    }
}

RH_TEST(promise, a_queue_that_is_full_and_nobody_there_are_told_as_before)
{
    begin();
    rig.push_rc = RH_EFULL;
    plain(0, 1, "r1", NULL);
    settle();
    rig.receiver->first.conn = NULL;
    plain(0, 1, "r2", NULL);
    plain(0, 0, "r3", NULL);
    settle();
    RH_EQ_STR(told(), "c0 r1 queue_full, c0 r3 user_offline, c0 r2 user_offline");
    RH_EQ_U64(rig.sh[0]->stats.v[RH_STAT_messages_dropped_user_offline] +
                  rig.sh[1]->stats.v[RH_STAT_messages_dropped_user_offline],
              2);
    end();
}

/* Goal    where nothing is kept for who is offline (offline.enabled), that is what is told. */
RH_TEST(promise, without_offline_messages_nobody_there_is_an_error)
{
    begin();
    rig.receiver->first.conn = NULL;
    acked(0, 0, "r1", "x");
    acked(0, 1, "r2", NULL);
    settle();
    RH_EQ_STR(told(), "c0 r1 user_offline, c0 r2 user_offline");
    RH_EQ_INT(rig.asked_owed, 2);
    end();
}

/* ---- what is owed ---- */

RH_TEST(promise, what_is_owed_here_is_answered_by_its_commit)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 0, "r1", NULL);
    settle();
    RH_EQ_STR(told(), "");
    RH_EQ_INT(rig.sh[0]->promises_pending, 1);
    RH_EQ_U64(rig.sh[0]->promise_bytes, 100);
    RH_EQ_U64(stat_of(RH_STAT_messages_sent), 0);
    commit(RH_WIRE_NONE, RH_ACCEPT_STORED);
    settle();
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"made\",\"status\":\"stored\"}");
    RH_EQ_U64(stat_of(RH_STAT_messages_sent), 1);
    end();
}

RH_TEST(promise, sent_before_committed)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 1, "r1", NULL);
    pass(0, true);
    pass(1, true);
    pass(0, true); /* SENT */
    RH_EQ_STR(told(), "");
    RH_OK_IF(rh_mesh_quiet(rig.sh[0]->mesh)); /* the credit is back */
    RH_EQ_INT(rig.sh[0]->promises_pending, 1);
    commit(RH_WIRE_NONE, 0);
    pass(0, true);
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"made\",\"status\":\"sent\"}");
    end();
}

RH_TEST(promise, committed_before_sent)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 1, "r1", "x");
    pass(0, true);
    pass(1, false); /* its reply is not seen yet */
    commit(RH_WIRE_NONE, RH_ACCEPT_STORED);
    pass(0, true);
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"x\",\"status\":\"stored\"}");
    RH_EQ_INT(rig.sh[0]->promises_pending, 0);
    RH_EQ_INT(rh_promises_pending(rig.sh[0]), 1); /* SENT has still to come */
    acked(0, 1, "r2", "x");
    RH_EQ_STR(told(), "c0 r2 {\"id\":\"x\",\"status\":\"stored\"}");
    rh_mesh_publish(rig.sh[1]->mesh);
    pass(0, true);
    RH_EQ_STR(told(), "");
    end();
}

/* Goal    a plain message counts in the bounds once it turns out to be owed, and only then. */
RH_TEST(promise, a_plain_one_for_who_is_offline_waits_too)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    rig.receiver->first.conn = NULL;
    plain(0, 1, "r1", NULL);
    RH_EQ_INT(rig.sh[0]->promises_pending, 0);
    settle();
    RH_EQ_INT(rig.sh[0]->promises_pending, 1);
    commit(RH_WIRE_NONE, RH_ACCEPT_STORED);
    settle();
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"made\",\"status\":\"stored\"}");
    end();
}

RH_TEST(promise, who_has_gone_is_not_answered)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 0, "r1", NULL);
    acked(1, 1, "r2", NULL);
    rig.conns[0].state = RH_CONN_CLOSING;
    rig.conns[1].gen++;
    settle();
    commit(RH_WIRE_NONE, 0);
    commit(RH_WIRE_NONE, 0);
    settle();
    RH_EQ_STR(told(), "");
    RH_EQ_U64(stat_of(RH_STAT_messages_sent), 2);
    end();
}

RH_TEST(promise, without_a_request_id_only_an_error_is_told)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 0, "", NULL);
    acked(0, 0, "", NULL);
    commit(RH_WIRE_NONE, 0);
    commit(RH_WIRE_store_failed, 0);
    settle();
    RH_EQ_STR(told(), "c0  store_failed");
    end();
}

/* ---- ids ---- */

RH_TEST(promise, a_repetition_gets_the_first_outcome)
{
    for (unsigned to = 0; to < SHARDS; to++) {
        begin();
        plain(0, to, "r1", "x");
        settle();
        RH_EQ_STR(told(), "c0 r1 {\"id\":\"x\",\"status\":\"sent\"}");
        rig.push_rc = RH_EFULL;
        plain(3, to, "r2", "x"); /* another connection of the same user */
        RH_EQ_STR(told(), "c3 r2 {\"id\":\"x\",\"status\":\"sent\"}");
        RH_EQ_INT(rig.pushed, 1);
        RH_EQ_U64(stat_of(RH_STAT_dedup_hits), 1);
        RH_EQ_U64(stat_of(RH_STAT_messages_sent), 1);
        rig.push_rc = RH_OK;
        plain(4, to, "r3", "x"); /* another user */
        settle();
        RH_EQ_STR(told(), "c4 r3 {\"id\":\"x\",\"status\":\"sent\"}");
        RH_EQ_INT(rig.pushed, 2);
        RH_EQ_U64(stat_of(RH_STAT_dedup_ids), 2);
        end();
    }
}

/* Goal    whatever the request was, the repetition's answer says what the first one's said. */
RH_TEST(promise, outcomes_of_rooms_and_broadcasts_are_kept)
{
    static const struct rh_outcome room = {.seq = 12345, .recipients = 7},
                                   all = {.recipients = 9, .partial = true};
    struct rh_request r = {.request_id = RH_SPAN("r1"), .id = RH_SPAN("x")};
    struct rh_id_key key;
    struct rh_shard *sh;

    begin();
    sh = rig.sh[0];
    for (unsigned turn = 0; turn < 2; turn++) {
        r.event = RH_ID_PUBLISH;
        rh_request_key(sh, &r, rig.users[0], span("room"), &key);
        if (rh_promise_admit(sh, &rig.conns[0], &r, 100, false) == RH_PROMISE_GO)
            rh_promise_answer(sh, rh_promise_make(sh, &rig.conns[0], &r, 100, false), &room);
        r.event = RH_ID_BROADCAST;
        rh_request_key(sh, &r, rig.users[0], span("room"), &key);
        if (rh_promise_admit(sh, &rig.conns[0], &r, 100, false) == RH_PROMISE_GO)
            rh_promise_answer(sh, rh_promise_make(sh, &rig.conns[0], &r, 100, false), &all);
        RH_EQ_STR(told(), "c0 r1 {\"id\":\"x\",\"seq\":12345,\"recipients\":7}, "
                          "c0 r1 {\"id\":\"x\",\"recipients\":9,\"partial\":true}");
        RH_EQ_U64(stat_of(RH_STAT_dedup_hits), 2 * turn);
    }
    end();
}

/* Goal    who repeats meanwhile waits for the first's answer, and holds nobody up. */
RH_TEST(promise, a_repetition_waits_while_the_first_is_pending)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 1, "r1", "x");
    RH_EQ_INT(acked(0, 1, "r2", "x"), RH_PROMISE_DONE);
    RH_EQ_INT(acked(1, 1, "r3", "x"), RH_PROMISE_DONE);
    rig.owed = RH_OWED_NO;
    plain(0, 0, "r4", NULL);
    RH_EQ_STR(told(), "c0 r4 {\"id\":\"made\",\"status\":\"sent\"}");
    rig.owed = RH_OWED_ACCEPTED;
    settle();
    RH_EQ_INT(rig.asked_owed, 1);
    RH_EQ_INT(rig.sh[0]->promises_pending, 3);
    rig.conns[1].state = RH_CONN_CLOSING;
    commit(RH_WIRE_NONE, RH_ACCEPT_STORED);
    settle();
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"x\",\"status\":\"stored\"}, "
                      "c0 r2 {\"id\":\"x\",\"status\":\"stored\"}");
    RH_EQ_U64(stat_of(RH_STAT_dedup_hits), 2);
    end();
}

/* Goal    errors are not remembered: the next one is tried anew. */
RH_TEST(promise, after_an_error_it_is_tried_again)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 1, "r1", "x");
    acked(0, 1, "r2", "x");
    settle();
    commit(RH_WIRE_store_failed, 0);
    settle();
    RH_EQ_STR(told(), "c0 r1 store_failed, c0 r2 store_failed");
    RH_EQ_U64(stat_of(RH_STAT_promises_refused), 2);
    RH_EQ_U64(stat_of(RH_STAT_dedup_hits), 0);
    RH_EQ_U64(stat_of(RH_STAT_dedup_ids), 0);
    acked(0, 1, "r3", "x");
    settle();
    RH_EQ_INT(rig.asked_owed, 2);
    commit(RH_WIRE_NONE, 0);
    settle();
    RH_EQ_STR(told(), "c0 r3 {\"id\":\"x\",\"status\":\"sent\"}");
    end();
}

RH_TEST(promise, an_id_is_forgotten_after_the_window)
{
    begin();
    rig.cfg->dedup_window_ms = 10000;
    plain(0, 0, "r1", "x");
    later(9999);
    rh_promises_expire(rig.sh[0]);
    plain(0, 0, "r2", "x");
    RH_EQ_INT(rig.pushed, 1);
    later(65);
    rh_promises_expire(rig.sh[0]);
    RH_EQ_U64(stat_of(RH_STAT_dedup_ids), 0);
    RH_EQ_U64(stat_of(RH_STAT_dedup_evicted), 0);
    plain(0, 0, "r3", "x");
    RH_EQ_INT(rig.pushed, 2);
    end();
}

RH_TEST(promise, the_newest_ids_are_kept)
{
    char id[16];

    begin();
    rig.cfg->dedup_max = 10;
    for (unsigned i = 0; i < 25; i++) {
        snprintf(id, sizeof(id), "x%u", i);
        plain(0, 0, "r", id);
        RH_OK_IF(stat_of(RH_STAT_dedup_ids) <= 10);
    }
    RH_EQ_U64(stat_of(RH_STAT_dedup_evicted), 15);
    plain(0, 0, "r", "x15");
    RH_EQ_INT(rig.pushed, 25);
    plain(0, 0, "r", "x14");
    RH_EQ_INT(rig.pushed, 26);
    end();
}

/* Goal    off is off, also for what was remembered before. */
RH_TEST(promise, dedup_may_be_off_or_be_switched_off)
{
    begin();
    plain(0, 0, "r", "x");
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 1, "r", "y"); /* pending while it is switched off */
    settle();
    rig.owed = RH_OWED_NO;
    rig.cfg->dedup_window_ms = 0;
    RH_EQ_U64(rh_id_until_ms(rig.sh[0]), 0);
    rh_promises_expire(rig.sh[0]);
    plain(0, 0, "r", "x");
    RH_EQ_INT(rig.pushed, 2);
    commit(RH_WIRE_NONE, 0);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_dedup_ids), 0);
    RH_EQ_U64(stat_of(RH_STAT_dedup_evicted), 0);
    rig.cfg->dedup_window_ms = 1000;
    rig.cfg->dedup_max = 0;
    plain(0, 0, "r", "x");
    plain(0, 0, "r", "x");
    RH_EQ_INT(rig.pushed, 4);
    end();
}

static struct rh_remembered *remembered(unsigned event, const char *from, const char *to,
                                        const char *id, uint64_t until_ms)
{
    size_t len = strlen(from) + strlen(to) + strlen(id);
    struct rh_remembered *r = rh_mem_zalloc(sizeof(*r) + len + 1);

    RH_OK_IF(r);
    r->until_ms = until_ms;
    r->seq = 77;
    r->recipients = 5;
    r->event = (uint8_t)event;
    r->flags = RH_ACCEPT_STORED;
    r->from_len = (uint8_t)strlen(from);
    r->to_len = (uint8_t)strlen(to);
    r->id_len = (uint8_t)strlen(id);
    sprintf(r->bytes, "%s%s%s", from, to, id);
    return r;
}

static void remember(struct rh_remembered *take)
{
    rh_promise_remember_pop(rig.sh[0], &(struct rh_event){.kind = RH_EV_REMEMBER, .msg = take});
}

/* Goal    what an earlier run had committed is known in this one. */
RH_TEST(promise, ids_are_known_across_a_restart)
{
    struct rh_request r = {RH_ID_PUBLISH, RH_SPAN("r2"), RH_SPAN("y"), NULL};
    struct rh_remembered *lost;
    struct rh_id_key key;
    uint64_t now;

    begin();
    now = rh_now_unix_ms(rig.sh[0]);
    remember(remembered(RH_MSG_DIRECT, "alice", "bob", "x", now + 1000));
    remember(remembered(RH_MSG_DIRECT, "alice", "bob", "x", now + 1000)); /* twice is once */
    remember(remembered(RH_MSG_ROOM, "alice", "bob", "y", now + 1000));
    remember(remembered(RH_MSG_DIRECT, "alice", "bob", "old", now));
    RH_EQ_U64(stat_of(RH_STAT_dedup_ids), 2);
    plain(0, 0, "r1", "x");
    RH_EQ_STR(told(), "c0 r1 {\"id\":\"x\",\"status\":\"stored\"}");
    rh_request_key(rig.sh[0], &r, rig.users[0], span("bob"), &key);
    RH_EQ_INT(rh_promise_admit(rig.sh[0], &rig.conns[0], &r, 100, true), RH_PROMISE_DONE);
    RH_EQ_STR(told(), "c0 r2 {\"id\":\"y\",\"seq\":77,\"recipients\":5}");
    RH_EQ_INT(rig.pushed, 0);
    lost = remembered(RH_MSG_DIRECT, "alice", "bob", "z", now + 1000);
    rh_mem_fail_nth(1);
    remember(lost);
    rh_mem_fail_nth(0);
    RH_EQ_U64(stat_of(RH_STAT_memory_failures), 1);
    rig.cfg->dedup_window_ms = 0;
    remember(remembered(RH_MSG_DIRECT, "alice", "bob", "z", now + 1000));
    RH_EQ_U64(stat_of(RH_STAT_dedup_ids), 2);
    end();
}

/* ---- the gate ---- */

RH_TEST(promise, while_the_gate_is_shut_no_promise_is_made)
{
    begin();
    plain(0, 0, "r0", "x");
    told();
    for (unsigned gate = RH_GATE_LOADING; gate <= RH_GATE_FULL; gate++) {
        atomic_store(&rig.promises.gate, gate);
        RH_EQ_INT(acked(0, 0, "r1", NULL), RH_PROMISE_DONE);
        RH_EQ_INT(acked(0, 1, "r2", "y"), RH_PROMISE_DONE);
        RH_EQ_STR(told(), "c0 r1 store_failed, c0 r2 store_failed");
        acked(0, 0, "r3", "x"); /* its outcome is known */
        plain(0, 0, "r4", NULL);
        RH_EQ_STR(told(), "c0 r3 {\"id\":\"x\",\"status\":\"sent\"}, "
                          "c0 r4 {\"id\":\"made\",\"status\":\"sent\"}");
    }
    RH_EQ_U64(stat_of(RH_STAT_promises_refused), 6);
    RH_EQ_INT(rig.asked_owed, 0);
    end();
}

/* ---- the bounds ---- */

static struct rh_promise *pending[RH_PENDING_MAX];
static unsigned pending_count;

static struct rh_promise *make_pending(size_t bytes, bool surely)
{
    struct rh_request r = {RH_ID_SEND, RH_SPAN("r"), RH_SPAN("made"), NULL};
    struct rh_promise *p = rh_promise_make(rig.sh[0], &rig.conns[5], &r, bytes, surely);

    rh_promise_owed(rig.sh[0], p);
    pending[pending_count++] = p;
    return p;
}

static void answer_pending(void)
{
    struct rh_event ev = {.kind = RH_EV_COMMITTED, .cookie = pending[--pending_count]};

    rh_promise_committed_pop(rig.sh[0], &ev);
}

static void end_pending(void)
{
    rig.conns[5].state = RH_CONN_CLOSING;
    while (pending_count)
        answer_pending();
    end();
}

/* Goal    those that surely wait leave room for those that may turn out to; at the bound both stop. */
RH_TEST(promise, so_many_may_wait_for_a_commit)
{
    begin();
    while (rh_promise_open(rig.sh[0], 100, true))
        make_pending(1, true);
    RH_EQ_INT(pending_count, RH_PENDING_MAX / 4 * 3);
    RH_EQ_INT(acked(0, 0, "r1", NULL), RH_PROMISE_WAIT);
    while (rh_promise_open(rig.sh[0], 100, false))
        make_pending(1, false);
    RH_EQ_INT(pending_count, RH_PENDING_MAX);
    RH_EQ_INT(plain(0, 0, "r1", NULL), RH_PROMISE_WAIT);
    RH_EQ_STR(told(), "");
    RH_EQ_U64(stat_of(RH_STAT_promises_pending), RH_PENDING_MAX);
    end_pending();
}

RH_TEST(promise, so_many_bytes_may_wait_for_a_commit)
{
    const size_t mine = RH_UNCOMMITTED_MAX / SHARDS;

    begin();
    RH_OK_IF(rh_promise_open(rig.sh[0], 2 * mine, true)); /* one alone goes whatever its size */
    make_pending(mine / 2, true);
    RH_OK_IF(rh_promise_open(rig.sh[0], mine / 4, true));
    RH_OK_IF(!rh_promise_open(rig.sh[0], mine / 4 + 1, true));
    RH_OK_IF(rh_promise_open(rig.sh[0], mine / 2, false));
    RH_OK_IF(!rh_promise_open(rig.sh[0], mine / 2 + 1, false));
    end_pending();
}

/* Goal    requests that hang on another one count, too: they cannot use up memory. */
RH_TEST(promise, repetitions_that_wait_are_bounded)
{
    unsigned hung = 0;

    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 0, "r", "x");
    while (acked(0, 0, "r", "x") == RH_PROMISE_DONE)
        hung++;
    RH_EQ_INT(hung, RH_PENDING_MAX / 4 * 3 - 1);
    rig.conns[0].state = RH_CONN_CLOSING;
    commit(RH_WIRE_NONE, 0);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_dedup_hits), hung);
    end();
}

static void hold(unsigned i)
{
    struct rh_conn *c = &rig.conns[i];

    c->paused = RH_PAUSE_PROMISE;
    rh_list_add(&rig.sh[0]->promise_waiting, &c->waiting);
}

static char order[CONNS + 1];

static void note_order(struct rh_conn *c)
{
    order[strlen(order)] = (char)('0' + c->slot);
    make_pending(1, true);
}

static void hold_again(struct rh_conn *c)
{
    note_order(c);
    hold(c->slot);
}

static void resume(void)
{
    memset(order, 0, sizeof(order));
    rh_route_resume_promised(rig.sh[0]);
}

/* Goal    who waits goes on in turn, as far as there is room; nobody overtakes them who surely waits. */
RH_TEST(promise, who_waited_longest_goes_on_first)
{
    static struct rh_block *block;

    begin();
    RH_OK_IF(rh_block_append(&rig.sh[0]->stock.blocks, &block, "text", 4));
    on_resume = note_order;
    while (rh_promise_open(rig.sh[0], 100, true))
        make_pending(1, true);
    for (unsigned i = 0; i < 4; i++) {
        rig.conns[i].message = block;
        hold(i);
    }
    resume();
    RH_EQ_STR(order, "");
    answer_pending();
    RH_OK_IF(!rh_promise_open(rig.sh[0], 100, true)); /* there is room, but others were first */
    RH_OK_IF(rh_promise_open(rig.sh[0], 100, false));
    resume();
    RH_EQ_STR(order, "0");
    answer_pending();
    answer_pending();
    resume();
    RH_EQ_STR(order, "12");
    hold(1);
    on_resume = hold_again; /* its message is too large, as it turns out */
    answer_pending();
    answer_pending();
    resume();
    RH_EQ_STR(order, "3");
    on_resume = note_order;
    answer_pending();
    answer_pending();
    resume();
    RH_EQ_STR(order, "13");
    rh_block_give(&rig.sh[0]->stock.blocks, block);
    rh_blocks_fini(&rig.sh[0]->stock.blocks);
    end_pending();
}

/* ---- memory ---- */

/* Each request is answered once, whatever failed. */
static void some_requests(void *arg)
{
    const unsigned to = *(unsigned *)arg;
    uint64_t left;

    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, to, "r1", "x");
    acked(0, to, "r2", "x");
    acked(0, to, "r3", NULL);
    left = rh_mem_fail_left();
    rh_mem_fail_nth(0);
    settle();
    while (rig.accepted_count)
        commit_at(0, RH_WIRE_NONE, 0);
    settle();
    for (const char *r = "123"; *r; r++) {
        char name[8] = {'c', '0', ' ', 'r', *r, ' '};
        const char *first = strstr(rig.book, name);

        RH_OK_IF(first && !strstr(first + 1, name));
    }
    end();
    rh_mem_fail_nth(left);
}

RH_TEST(promise, every_failing_allocation_is_answered)
{
    for (unsigned to = 0; to < SHARDS; to++)
        rh_test_fail_each_alloc(some_requests, &to);
}

RH_TEST(promise, what_is_pending_at_the_end_is_freed)
{
    begin();
    rig.owed = RH_OWED_ACCEPTED;
    acked(0, 0, "r1", "x");
    acked(0, 0, "r2", "x");
    acked(0, 0, "r3", "x");
    record_pops();
    rh_msg_drop_any(rig.accepted[0].msg);
    rh_promises_fini(rig.sh[0]);
    RH_EQ_INT(rh_promises_pending(rig.sh[0]), 0);
    RH_EQ_INT(rh_promises_init(rig.sh[0]), RH_OK);
    rig.sh[0]->promises_pending = 0;
    rig.sh[0]->promise_bytes = 0;
    rig.sh[0]->stats.v[RH_STAT_promises_pending] = 0;
    end();
}

/* ---- at random ---- */

#define IDS 6

static unsigned count_in(const char *text, const char *what)
{
    unsigned count = 0;

    while ((text = strstr(text, what)) != NULL) {
        count++;
        text++;
    }
    return count;
}

/* Goal    each request has one answer; what succeeded goes out once, what failed may go again.
 * Method  a few ids are asked for again and again, on both shards, plain and owed; replies and commits
 *         come in any order, some of them errors. */
static void one_run(void)
{
    static const char *const ids[IDS] = {"a", "b", "c", "d", "e", "f"};
    unsigned asked = 0, errors = 0, answers;

    begin();
    for (unsigned step = 0; step < 400; step++) {
        unsigned i = (unsigned)(rh_test_rand() % IDS);
        uint64_t draw = rh_test_rand() % 100;

        rig.owed = rh_test_rand() % 3 ? RH_OWED_ACCEPTED : RH_OWED_REFUSED;
        rig.owed_error = RH_WIRE_conflict;
        if (draw < 40 && rig.accepted_count < WAITING / 2) {
            acked((unsigned)(rh_test_rand() % 4), (unsigned)(i % SHARDS), "r", ids[i]);
            asked++;
        } else if (draw < 60) {
            pass((unsigned)(rh_test_rand() % SHARDS), rh_test_rand() % 2);
        } else if (draw < 80) {
            record_pops();
        } else if (rig.accepted_count) {
            bool fails = rh_test_rand() % 4 == 0;

            commit_at((unsigned)(rh_test_rand() % rig.accepted_count),
                      fails ? RH_WIRE_store_failed : RH_WIRE_NONE, 0);
            errors += fails;
        }
    }
    rig.owed = RH_OWED_ACCEPTED;
    for (unsigned k = 0; k < SHARDS; k++)
        rh_mesh_publish(rig.sh[k]->mesh);
    settle();
    while (rig.accepted_count)
        commit_at(0, RH_WIRE_NONE, 0);
    settle();
    answers = count_in(rig.book, " r ");
    RH_EQ_INT(answers, asked);
    RH_EQ_INT(count_in(rig.book, "\"status\":\"sent\""),
              (int)(stat_of(RH_STAT_messages_sent) + stat_of(RH_STAT_dedup_hits)));
    RH_OK_IF(stat_of(RH_STAT_messages_sent) <= IDS); /* nothing is over yet: once each */
    RH_OK_IF(count_in(rig.book, "store_failed") >= errors);
    end();
}

RH_TEST(promise, whatever_the_order_each_is_answered_once)
{
    for (unsigned run = 0; run < 300; run++)
        one_run();
}
