/* tests/shard/owed_rig.h - one shard's users, their connections and what they are owed; without a kernel.
 *
 * Real are owed*.c, conn.c, outq*.c, session.c, user.c, slow.c, retry.c, route.c, answer.c and the mesh.
 * Played are the ring (what is sent stays under way until the test lets the peer take it), the record
 * thread, and the ack thread. What the record thread hears is a book of short words,
 *
 *     "accepted a 1, attempt a 2, settled a success none"
 *
 * and what a peer takes is one, too: "a#1" is message a in its first attempt, "lost 2", "status ...".
 */
#ifndef RH_TEST_OWED_RIG_H
#define RH_TEST_OWED_RIG_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/limit.h"
#include "core/mem.h"
#include "core/thread.h"
#include "proto/envelope.h"
#include "shard/owed_int.h"
#include "tests/rh_test.h"

#define RIG_CONNS  80
#define RIG_FDS    100 /* connection i has descriptor RIG_FDS + i */
#define RIG_BYTES  (1 << 16)
#define RIG_BOOK   (1 << 16)
#define RIG_ALARMS 4096
#define MAYBE      __attribute__((unused))

enum { SHARD, CONTROL, ACK, RECORD, MEMBERS };

struct book {
    size_t len;
    char text[RIG_BOOK];
};

static struct rig {
    struct rh_shard *sh;
    struct rh_config *cfg;
    struct rh_shard_env env;
    struct rh_promises promises;
    struct rh_conn *conns[RIG_CONNS];
    char *flight[RIG_CONNS]; /* what is under way */
    size_t flight_len[RIG_CONNS];
    unsigned closed[RIG_CONNS]; /* the code of the close frame that was taken; 0: none */
    struct book record, got;
    uint64_t armed[RIG_ALARMS]; /* names that the ack thread has: slot and generation */
    struct rh_event arms[RIG_ALARMS];
    unsigned armed_count;
    unsigned accepted, settled; /* so many holds came to the record thread */
    bool mute;                  /* the record thread's book is not written */
} rig;

static MAYBE void note(struct book *b, const char *fmt, ...)
{
    va_list args;

    if (b->len)
        b->len += (size_t)snprintf(b->text + b->len, sizeof(b->text) - b->len, ", ");
    va_start(args, fmt);
    b->len += (size_t)vsnprintf(b->text + b->len, sizeof(b->text) - b->len, fmt, args);
    va_end(args);
    RH_OK_IF(b->len < sizeof(b->text));
}

/* What it has so far, and begins a new page. */
static MAYBE const char *page(struct book *b)
{
    static char text[RIG_BOOK];

    memcpy(text, b->text, b->len);
    text[b->len] = '\0';
    b->len = 0;
    return text;
}

/* ---- the fakes ---- */

void rh_uring_sendv(struct rh_uring *u, int fd, const struct iovec *iov, unsigned count,
                    uint64_t tag)
{
    size_t len = 0;

    RH_EQ_U64(rig.flight_len[fd - RIG_FDS], 0);
    for (unsigned i = 0; i < count; i++) {
        RH_OK_IF(len + iov[i].iov_len <= RIG_BYTES);
        memcpy(rig.flight[fd - RIG_FDS] + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    rig.flight_len[fd - RIG_FDS] = len;
}

void rh_uring_send(struct rh_uring *u, int fd, const void *bytes, size_t len, uint64_t tag)
{
    rh_uring_sendv(u, fd, &(struct iovec){(void *)bytes, len}, 1, tag);
}

void rh_uring_recv_once(struct rh_uring *u, int fd, uint64_t tag)
{
}

void rh_uring_recv_multi(struct rh_uring *u, int fd, bool waits, uint64_t tag)
{
}

void rh_uring_poll(struct rh_uring *u, int fd, uint64_t tag)
{
}

void rh_uring_cancel(struct rh_uring *u, uint64_t target, uint64_t tag)
{
}

void rh_uring_shutdown(struct rh_uring *u, int fd, int how)
{
}

void rh_uring_close(struct rh_uring *u, int fd)
{
}

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    return 0;
}

uint8_t *rh_uring_buffer(struct rh_uring *u, uint16_t buffer)
{
    return NULL;
}

void rh_heartbeat_set(struct rh_shard *sh, struct rh_conn *c)
{
}

void rh_heartbeat_watch_send(struct rh_shard *sh, struct rh_conn *c)
{
}

size_t rh_client_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    return len;
}

void rh_client_retry(struct rh_shard *sh, struct rh_conn *c)
{
}

size_t rh_httpd_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    return len;
}

void rh_admit_give(struct rh_shard *sh, const struct rh_conn *c)
{
}

void rh_epoch_hex(uint64_t uid, char dst[RH_EPOCH_LEN])
{
    memset(dst, '0', RH_EPOCH_LEN);
}

/* Nobody subscribes to anything. */
void rh_sub_end(struct rh_shard *sh, struct rh_sub *sub)
{
}

void rh_subs_detach(struct rh_shard *sh, struct rh_session *s)
{
}

void rh_subs_fini(struct rh_shard *sh, struct rh_session *s)
{
}

void rh_session_pump(struct rh_shard *sh, struct rh_session *s)
{
}

/* Shares are another test's. */
bool rh_owed_share_held(const struct rh_shard *sh, const struct rh_owed_item *item)
{
    return false;
}

struct rh_handle *rh_owed_share_frame(struct rh_shard *sh, const struct rh_owed_item *item,
                                      uint32_t attempt)
{
    return NULL;
}

/* ---- the record thread ---- */

static void record_hears(void *arg, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;
    int len = msg ? msg->id_len : 0;
    const char *id = msg ? (const char *)msg->bytes + msg->id_at : "";

    (void)arg;
    if (!msg) /* of a test that fills the ring */
        return;
    switch (ev->kind) {
    case RH_EV_ACCEPTED:
        rig.accepted++;
        if (!rig.mute)
            note(&rig.record, "accepted %.*s %" PRIu64 "%s%s", len, id, ev->b,
                 ev->flags & RH_ACCEPT_STORED ? " stored" : "",
                 ev->flags & RH_ACCEPT_ASKED ? " asked" : "");
        rh_msg_drop_any(msg);
        break;
    case RH_EV_AWAIT:
        note(&rig.record, "await %.*s", len, id);
        break;
    case RH_EV_ATTEMPT:
        if (!rig.mute)
            note(&rig.record, "attempt %.*s %" PRIu64, len, id, ev->a);
        break;
    case RH_EV_PROGRESS:
        note(&rig.record, "progress %.*s %s", len, id, rh_state_name((unsigned)ev->a));
        break;
    case RH_EV_SETTLED:
        rig.settled++;
        if (!rig.mute)
            note(&rig.record, "settled %.*s %s %s", len, id, rh_state_name((unsigned)ev->a & 0xff),
                 rh_reason_name((unsigned)(ev->a >> 8)));
        rh_msg_drop_any(msg);
        break;
    default:
        RH_FAIL("the record thread got %s", rh_event_name(ev->kind));
    }
}

static MAYBE const char *record(void)
{
    return page(&rig.record);
}

/* ---- the ack thread ---- */

static void ack_hears(void *arg, const struct rh_event *ev)
{
    (void)arg;
    if (ev->kind == RH_EV_DUE_DONE)
        return;
    for (unsigned i = 0; i < rig.armed_count; i++) {
        if (rig.armed[i] != ev->a)
            continue;
        rig.armed[i] = rig.armed[--rig.armed_count];
        rig.arms[i] = rig.arms[rig.armed_count];
    }
    if (ev->kind == RH_EV_DISARM)
        return;
    RH_OK_IF(ev->kind == RH_EV_ARM && rig.armed_count < RIG_ALARMS);
    rig.armed[rig.armed_count] = ev->a;
    rig.arms[rig.armed_count++] = *ev;
}

static void shard_hears(void *arg, const struct rh_event *ev)
{
    if (ev->kind == RH_EV_DUE)
        rh_owed_due_pop(arg, ev);
    else
        RH_FAIL("the shard got %s", rh_event_name(ev->kind));
}

/* Its i-th alarm rings; it forgets it. */
static MAYBE void ring(unsigned i, enum rh_due what)
{
    struct rh_event ev = {.kind = RH_EV_DUE, .a = rig.armed[i], .b = what};
    struct rh_mesh *ack = rh_net_member(rig.env.net, ACK);

    RH_OK_IF(i < rig.armed_count);
    rig.armed[i] = rig.armed[--rig.armed_count];
    rig.arms[i] = rig.arms[rig.armed_count];
    RH_EQ_INT(rh_mesh_ask(ack, SHARD, &ev, 0), RH_OK);
    rh_mesh_publish(ack);
    rh_mesh_pop(rig.sh->mesh, shard_hears, rig.sh);
}

/* ---- the rig ---- */

static void wake(void *arg, unsigned tid)
{
    (void)arg;
    (void)tid;
}

static MAYBE void rig_begin(void)
{
    struct rh_shard *sh;

    memset(&rig, 0, sizeof(rig));
    rh_tid_set(SHARD);
    RH_OK_IF(rh_config_create(&rig.cfg) == RH_OK && rh_limit_create(&rig.env.limits) == RH_OK);
    RH_EQ_INT(rh_net_create(MEMBERS, wake, NULL, &rig.env.net), RH_OK);
    rig.env.shards = 1;
    rig.env.control = CONTROL;
    rig.env.ack = ACK;
    rig.env.record = RECORD;
    rig.env.promises = &rig.promises;
    rig.sh = sh = rh_mem_zalloc_aligned(sizeof(*sh));
    RH_OK_IF(sh);
    sh->cfg = rig.cfg;
    sh->env = &rig.env;
    sh->mesh = rh_net_member(rig.env.net, SHARD);
    sh->now_ms = 1000000;
    sh->now_ns = sh->now_ms * 1000000;
    sh->hub_us = 1700000000000000;
    sh->seq = RH_MSG_SEQ_MIN;
    rh_prng_init(&sh->prng);
    rh_idgen_init(&sh->ids, &sh->prng);
    rh_list_init(&sh->starved);
    rh_list_init(&sh->turns);
    rh_list_init(&sh->free_conns);
    rh_list_init(&sh->graveyard);
    rh_list_init(&sh->detached);
    rh_list_init(&sh->wanted);
    rh_list_init(&sh->ending);
    rh_wheel_init(&sh->wheel, sh->now_ms);
    rh_wheel_init(&sh->alarms, sh->now_ms);
    RH_EQ_INT(rh_map_init(&sh->users), RH_OK);
    RH_EQ_INT(rh_map_init(&sh->subs), RH_OK);
    RH_OK_IF(rh_squeeze_init(&sh->stock.squeeze, &sh->stats, rig.cfg) == RH_OK);
    for (unsigned i = 0; i < RIG_CONNS; i++)
        RH_OK_IF(rig.flight[i] = malloc(RIG_BYTES));
}

static MAYBE int64_t rig_stat(enum rh_stat stat)
{
    return (int64_t)atomic_load_explicit(&rig.sh->stats.v[stat], memory_order_relaxed);
}

/* The end of a pass and the beginning of the next; the other threads read what they got. */
static MAYBE void pass(void)
{
    struct rh_shard *sh = rig.sh;

    rh_mesh_pop(sh->mesh, shard_hears, sh);
    rh_owed_arm(sh);
    rh_conn_flush_all(sh);
    rh_mesh_publish(sh->mesh);
    rh_conns_bury(sh);
    sh->pass++;
    rh_mesh_pop(rh_net_member(rig.env.net, RECORD), record_hears, NULL);
    rh_mesh_pop(rh_net_member(rig.env.net, ACK), ack_hears, NULL);
    rh_mesh_publish(rh_net_member(rig.env.net, ACK));
}

static void on_alarm(void *arg, struct rh_timer *timer)
{
    struct rh_alarm *alarm = rh_container_of(timer, struct rh_alarm, timer);

    alarm->ring(arg, alarm);
}

static MAYBE void later(uint64_t ms)
{
    rig.sh->now_ms += ms;
    rig.sh->now_ns += ms * 1000000;
    rig.sh->hub_us += ms * 1000;
    rh_wheel_advance(&rig.sh->alarms, rig.sh->now_ms, 1000, on_alarm, rig.sh);
    pass();
}

static MAYBE uint64_t hash_of(const char *name)
{
    return rh_hash(&rig.env.hash_key, name, strlen(name));
}

static MAYBE struct rh_user *user_of(const char *name)
{
    return rh_user_find(rig.sh, hash_of(name), name, strlen(name));
}

/* A new connection of the user: its number. -1: no memory. */
static MAYBE int connect_user(const char *name)
{
    struct rh_shard *sh = rig.sh;
    int i = 0;
    struct rh_conn *c;
    struct rh_user *user;
    struct rh_session *s;

    while (rig.conns[i] && rig.conns[i]->state != RH_CONN_FREE)
        i++;
    RH_OK_IF(i < RIG_CONNS && !rig.flight_len[i]);
    c = rh_conn_create(sh, RIG_FDS + i, RH_IS_HTTP);
    if (!c)
        return -1;
    user = rh_user_take(sh, hash_of(name), name, strlen(name));
    s = user ? rh_session_create(sh, user) : NULL;
    if (!s) {
        if (user)
            rh_user_unpin(sh, user);
        rh_conn_cut(sh, c, 1013);
        rh_conns_bury(sh);
        return -1;
    }
    rh_session_attach(sh, s, c);
    rh_user_unpin(sh, user);
    rh_conn_open(sh, c, RH_IS_WS);
    rig.conns[i] = c;
    rig.closed[i] = 0;
    rh_owed_connected(sh, c);
    return i;
}

/* ---- messages ---- */

struct mail {
    const char *id, *from, *to;
    bool ack, given, high;
    uint64_t ttl_ms; /* 0: long */
};

static void put(struct rh_msg *msg, uint32_t *len, const char *text)
{
    size_t n = strlen(text);

    memcpy(msg->bytes + RH_MSG_HEAD_ROOM + *len, text, n);
    *len += (uint32_t)n;
}

static uint32_t put_name(struct rh_msg *msg, uint32_t *at, const char *name, uint8_t *ret_len)
{
    uint32_t here = *at;

    *ret_len = (uint8_t)strlen(name);
    memcpy(msg->bytes + here, name, *ret_len);
    *at += *ret_len;
    return here;
}

/* As the sender's shard leaves it. Never fails. */
static MAYBE struct rh_msg *mail_msg(const struct mail *m)
{
    uint64_t fail = rh_mem_fail_left();
    struct rh_msg *msg;
    uint32_t len = 0, at;

    rh_mem_fail_nth(0);
    msg = rh_msg_create(256 + strlen(m->id) + strlen(m->from) + strlen(m->to));
    rh_mem_fail_nth(fail);
    put(msg, &len, "{\"id\":\"");
    put(msg, &len, m->id);
    put(msg, &len, "\",\"ack\":");
    msg->ack_at = RH_MSG_HEAD_ROOM + len;
    put(msg, &len, m->ack ? "true" : "false");
    put(msg, &len, ",\"seq\":");
    msg->seq_at = RH_MSG_HEAD_ROOM + len;
    put(msg, &len, "0000000000000000,\"attempt\":");
    msg->attempt_at = RH_MSG_HEAD_ROOM + len;
    put(msg, &len, "1}");
    rh_msg_put_head(msg, len);
    at = RH_MSG_HEAD_ROOM + len;
    msg->to_at = put_name(msg, &at, m->to, &msg->to_len);
    msg->from_at = put_name(msg, &at, m->from, &msg->from_len);
    msg->id_at = put_name(msg, &at, m->id, &msg->id_len);
    msg->attempt_len = 1;
    msg->kind = RH_MSG_DIRECT;
    msg->ack = m->ack;
    msg->given = m->given;
    msg->high = m->high;
    msg->from_user = true;
    msg->to_hash = hash_of(m->to);
    msg->from_hash = hash_of(m->from);
    msg->created_ms = rh_now_unix_ms(rig.sh);
    msg->expires_ms = msg->created_ms + (m->ttl_ms ? m->ttl_ms : 600000000);
    msg->accepted_ns = rig.sh->now_ns;
    return msg;
}

/* Plain, to whom is connected: as route.c does it. */
static void send_live(struct rh_msg *msg)
{
    struct rh_user *user =
        rh_user_find(rig.sh, msg->to_hash, (const char *)msg->bytes + msg->to_at, msg->to_len);
    struct rh_handle *h;

    if (!user || !rh_user_devices(user)) {
        rh_msg_drop_any(msg);
        return;
    }
    rh_msg_set_seq(msg, ++rig.sh->seq);
    h = rh_handle_make(&rig.sh->stock.handles, msg);
    if (!h) {
        rh_msg_drop_any(msg);
        return;
    }
    if (rh_retry_wanted(rig.sh, user)) {
        RH_EQ_INT(rh_retry_add(rig.sh, user, h), RH_OK);
        return;
    }
    rh_user_pin(user);
    rh_route_push(rig.sh, user, h);
    rh_user_unpin(rig.sh, user);
    rh_handle_unref(&rig.sh->stock.handles, h);
}

/* "owed", "live", or why it was refused. */
static MAYBE const char *send_mail(const struct mail *m)
{
    static const struct rh_asker asker = {.tid = SHARD, .conn = 7};
    struct rh_msg *msg = mail_msg(m);
    enum rh_wire_error error = RH_WIRE_NONE;

    switch (rh_owed_direct(rig.sh, msg, &asker, &error)) {
    case RH_OWED_ACCEPTED:
        return "owed";
    case RH_OWED_NO:
        send_live(msg);
        return "live";
    default:
        rh_msg_drop_any(msg);
        return rh_wire_error_name(error);
    }
}

static MAYBE const char *send_ack(const char *id, const char *to)
{
    return send_mail(&(struct mail){.id = id, .from = "sam", .to = to, .ack = true});
}

static MAYBE const char *send_plain(const char *id, const char *to)
{
    return send_mail(&(struct mail){.id = id, .from = "sam", .to = to});
}

/* ---- peers ---- */

/* One frame is read; returns its length. */
static size_t read_frame(unsigned conn, const char *at)
{
    const uint8_t *bytes = (const uint8_t *)at;
    size_t head = 2, len = bytes[1];
    char text[RH_LOST_FRAME];
    char id[128];
    const char *value;
    unsigned attempt;

    if (bytes[0] == 0x88) {
        rig.closed[conn] = (unsigned)bytes[2] << 8 | bytes[3];
        return 2 + len;
    }
    RH_EQ_INT(bytes[0], 0x81);
    if (len == 126) {
        head = 4;
        len = (size_t)bytes[2] << 8 | bytes[3];
    }
    RH_OK_IF(len < sizeof(text));
    memcpy(text, at + head, len);
    text[len] = '\0';
    if (strstr(text, "messages.lost")) {
        value = strstr(text, "\"count\":");
        RH_OK_IF(value);
        note(&rig.got, "lost %d", atoi(value + 8));
    } else if (strstr(text, "message.status")) {
        value = strstr(text, "\"data\":");
        RH_OK_IF(value);
        note(&rig.got, "status %.*s", (int)(strchr(value, '}') - value - 7 + 1), value + 7);
    } else {
        RH_OK_IF(sscanf(text, "{\"id\":\"%127[^\"]", id) == 1);
        value = strstr(text, "\"attempt\":");
        RH_OK_IF(value && sscanf(value, "\"attempt\":%u}", &attempt) == 1);
        note(&rig.got, "%s#%u", id, attempt);
    }
    return head + len;
}

/* The peer takes what is under way. False: nothing was. */
static MAYBE bool take(int conn)
{
    size_t len = rig.flight_len[conn];

    if (len == 0)
        return false;
    rig.flight_len[conn] = 0;
    for (size_t at = 0; at < len;)
        at += read_frame((unsigned)conn, rig.flight[conn] + at);
    rh_conn_on_send(rig.sh, rig.conns[conn], (int)len);
    return true;
}

/* Takes all that comes, and says what that was. */
static MAYBE const char *take_all(int conn)
{
    rig.got.len = 0;
    for (pass(); take(conn); pass())
        ;
    return page(&rig.got);
}

/* The connection breaks; what was under way does not arrive. */
static MAYBE void cut(int conn)
{
    struct rh_conn *c = rig.conns[conn];

    if (c->state == RH_CONN_FREE)
        return;
    rh_conn_cut(rig.sh, c, 1006);
    if (rig.flight_len[conn]) {
        rig.flight_len[conn] = 0;
        rh_conn_on_send(rig.sh, c, -1);
    }
    if (c->recv_armed)
        rh_conn_on_recv(rig.sh, c, &(struct rh_cqe){.res = 0});
    rh_conns_bury(rig.sh);
}

/* What the client sends as the data of an ack. */
static MAYBE int acknowledge(int conn, const char *data)
{
    char text[512];
    int len = snprintf(text, sizeof(text), "{\"type\":\"ack\",\"data\":%s}", data);
    struct rh_envelope env;
    const char *why;

    RH_EQ_INT(rh_envelope_parse(text, (size_t)len, &env, &why), RH_OK);
    return rh_owed_ack(rig.sh, rig.conns[conn], &env, &why);
}

static MAYBE void ack_id(int conn, const char *id)
{
    char data[256];

    snprintf(data, sizeof(data), "{\"id\":\"%s\"}", id);
    RH_EQ_INT(acknowledge(conn, data), RH_OK);
}

/* ---- what holds at any time ---- */

static void check_user(void *arg, struct rh_map_node *node)
{
    struct rh_user *user = rh_container_of(node, struct rh_user, node);
    const struct rh_owed *o = rh_user_owed(user);
    uint64_t *sums = arg, last = 0;
    uint32_t unacked = 0, waiting = 0, plain = 0;

    RH_EQ_INT(user->pins, 0);
    if (!o)
        return;
    for (struct rh_list *at = o->flight.next; at != &o->flight; at = at->next) {
        struct rh_owed_item *item = rh_container_of(at, struct rh_owed_item, of_user);

        RH_OK_IF(item->at == RH_OWED_FLIGHT && item->handed && item->owed == o);
        RH_OK_IF(item->order > last);
        RH_OK_IF(item->state == RH_STATE_sending || item->state == RH_STATE_retrying);
        last = item->order;
        unacked += item->msg->ack;
    }
    last = 0;
    for (struct rh_list *at = o->waiting.next; at != &o->waiting; at = at->next) {
        struct rh_owed_item *item = rh_container_of(at, struct rh_owed_item, of_user);

        RH_OK_IF(item->at == RH_OWED_WAITING && !item->armed && item->order > last);
        RH_EQ_INT(item->state, rh_user_devices(user) ? RH_STATE_pending : RH_STATE_user_offline);
        last = item->order;
        waiting++;
        plain += !item->msg->ack;
    }
    RH_OK_IF(o->unacked == unacked && o->waiting_count == waiting && o->waiting_plain == plain);
    RH_OK_IF(!waiting || rh_timer_armed(&o->expiry.timer));
    sums[0] += unacked;
    sums[1] += waiting;
}

/* Between passes, with memory. */
static MAYBE void check_all(void)
{
    uint64_t sums[2] = {0};

    rh_map_each(&rig.sh->users, check_user, sums);
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), (int64_t)sums[0]);
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), (int64_t)sums[1]);
    RH_EQ_U64(atomic_load(&rig.promises.waiting), sums[1]);
}

/* All connections break, the shard goes; all holds that were moved came back (the leak check). */
static MAYBE void rig_end(void)
{
    struct rh_shard *sh = rig.sh;

    rh_mem_fail_nth(0);
    for (int i = 0; i < RIG_CONNS && rig.conns[i]; i++)
        cut(i);
    do
        pass();
    while (!rh_mesh_quiet(sh->mesh) || rh_net_inbound_any(rig.env.net, RECORD));
    check_all();
    RH_EQ_INT(sh->conn_count, 0);
    RH_EQ_U64(sh->stock.messages, 0);
    RH_EQ_U64(sh->stock.bytes, 0);
    rh_owed_fini(sh);
    sh->draining = true;
    while (!rh_list_empty(&sh->detached))
        rh_session_expire(sh);
    RH_EQ_U64(rh_map_count(&sh->users), 0);
    rh_map_fini(&sh->users);
    rh_map_fini(&sh->subs);
    rh_conns_fini(sh);
    rh_out_stock_fini(&sh->stock);
    rh_squeeze_fini(&sh->stock.squeeze);
    rh_limit_destroy(rig.env.limits);
    rh_config_destroy(rig.cfg);
    rh_net_destroy(rig.env.net);
    for (unsigned i = 0; i < RIG_CONNS; i++)
        free(rig.flight[i]);
    rh_mem_free(sh);
}

#endif
