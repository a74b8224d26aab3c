/* Shares of rooms' acknowledged messages: who is handed what, as which attempt, and how it ends.
 *
 * Users, sessions and what they are owed are real. Connections, subscriptions and the room's home are
 * played: a connection writes down what it gets, and fan-out is a test that asks for each connection in
 * turn. We are shard 1; names of members tell their shard: digits are on 0, small letters here, large
 * ones on 2. What the record thread hears is read from its ring.
 *
 * A frame is written as "a1:5.2": connection 1 of user a got number 5 as attempt 2; with "-" if it asks
 * for nothing, "~" if it stands outside of its room's order, "!" if it names its epoch. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/mem.h"
#include "proto/envelope.h"
#include "shard/owed_int.h"
#include "tests/rh_test.h"

#define US      1
#define SHARDS  3
#define RECORD  3
#define ACK     4
#define MEMBERS 5
#define CONNS   80
#define ROOM    77 /* its life */

struct end {
    struct rh_conn c;
    struct rh_sub sub; /* of room r, if `subscribes` */
    bool subscribes, full;
    char name[8];
};

static struct rig {
    struct rh_shard *sh;
    struct rh_shard_env env;
    struct rh_promises promises;
    struct rh_config *cfg;
    struct end ends[CONNS];
    struct rh_branch branch; /* of the room's present life, by `present` */
    uint64_t present;
    char book[1 << 14];
    size_t len;
    /* The fan-out under way. */
    struct rh_handle *h;
    /* A model's. */
    void (*on_frame)(struct end *e, const struct rh_msg *msg, uint32_t attempt, bool ack);
} rig;

static struct rh_shard *sh;

static void note(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    if (rig.len)
        rig.len += (size_t)snprintf(rig.book + rig.len, sizeof(rig.book) - rig.len, " ");
    rig.len += (size_t)vsnprintf(rig.book + rig.len, sizeof(rig.book) - rig.len, fmt, args);
    va_end(args);
    RH_OK_IF(rig.len < sizeof(rig.book));
}

static const char *read_book(void)
{
    static char page[sizeof(rig.book)];

    memcpy(page, rig.book, rig.len + 1);
    rig.len = 0;
    rig.book[0] = '\0';
    return page;
}

/* ---- the neighbours ---- */

static struct end *end_of(const struct rh_conn *c)
{
    return rh_container_of(c, struct end, c);
}

static uint32_t number_behind(const struct rh_msg *msg, const char *key)
{
    const char *at = memmem(rh_msg_frame(msg), msg->frame_len, key, strlen(key));

    RH_OK_IF(at);
    return (uint32_t)strtoul(at + strlen(key), NULL, 10);
}

static bool has(const struct rh_msg *msg, const char *text)
{
    return memmem(rh_msg_frame(msg), msg->frame_len, text, strlen(text));
}

static void got(struct end *e, const struct rh_msg *msg)
{
    uint32_t attempt = number_behind(msg, "\"attempt\":");
    bool ack = has(msg, "\"ack\":true");

    RH_EQ_INT(has(msg, "\"ack\":false"), !ack);
    RH_EQ_INT(msg->ack, ack);
    RH_EQ_U64(number_behind(msg, "\"seq\":"), msg->seq);
    if (rig.on_frame)
        rig.on_frame(e, msg, attempt, ack);
    else
        note("%s:%u.%u%s%s%s", e->name, (unsigned)msg->seq, attempt, ack ? "" : "-",
             msg->apart ? "~" : "", has(msg, "\"epoch\":\"000000000000004d\"") ? "!" : "");
}

bool rh_conn_takes_owed(const struct rh_shard *shard, const struct rh_conn *c)
{
    return c->state == RH_CONN_OPEN && !end_of(c)->full;
}

int rh_conn_push_owed(struct rh_shard *shard, struct rh_conn *c, struct rh_handle *h)
{
    RH_OK_IF(rh_conn_takes_owed(shard, c));
    got(end_of(c), h->msg);
    return RH_OK;
}

int rh_conn_push_lost(struct rh_shard *shard, struct rh_conn *c, const struct rh_lost *lost)
{
    return RH_OK;
}

void rh_conn_close(struct rh_shard *shard, struct rh_conn *c, unsigned code, const char *reason)
{
    RH_FAIL("nothing is closed");
}

bool rh_slow_choked(struct rh_shard *shard, struct rh_conn *c)
{
    return false;
}

unsigned rh_conn_drop_messages(struct rh_shard *shard, struct rh_conn *c)
{
    return 0;
}

void rh_retry_drop(struct rh_shard *shard, struct rh_user *user)
{
}

struct rh_sub *rh_sub_find(const struct rh_shard *shard, const struct rh_session *s,
                           uint64_t room_hash, struct rh_span room)
{
    struct end *e = s->conn ? end_of(s->conn) : NULL;

    RH_OK_IF(rh_span_eq(room, RH_SPAN("r")));
    return e && e->subscribes ? &e->sub : NULL;
}

void rh_sub_end(struct rh_shard *shard, struct rh_sub *sub)
{
    rh_list_del(&sub->of_session);
}

void rh_subs_detach(struct rh_shard *shard, struct rh_session *s)
{
}

void rh_subs_fini(struct rh_shard *shard, struct rh_session *s)
{
    while (s && rh_session_has_subs(s))
        rh_sub_end(shard, rh_container_of(s->more->subs.next, struct rh_sub, of_session));
}

struct rh_room *rh_room_by_uid(const struct rh_shard *shard, uint64_t uid)
{
    return uid == rig.present ? (struct rh_room *)8 : NULL;
}

void rh_epoch_hex(uint64_t uid, char dst[RH_EPOCH_LEN])
{
    char text[RH_EPOCH_LEN + 1];

    snprintf(text, sizeof(text), "%016llx", (unsigned long long)uid);
    memcpy(dst, text, RH_EPOCH_LEN);
}

struct rh_branch *rh_branch_find(const struct rh_shard *shard, uint64_t uid)
{
    return uid == rig.present ? &rig.branch : NULL;
}

bool rh_frame_begin(struct rh_shard *shard, struct rh_conn *c, struct rh_frame *f, size_t room)
{
    return false;
}

void rh_frame_end(struct rh_shard *shard, struct rh_conn *c, struct rh_frame *f)
{
}

void rh_put_notify(struct rh_writer *w, struct rh_span event)
{
}

void rh_put_notify_end(const struct rh_shard *shard, struct rh_writer *w)
{
}

/* ---- the rig ---- */

static void wake(void *arg, unsigned tid)
{
}

static void begin(void)
{
    rh_mem_fail_nth(0);
    memset(&rig, 0, sizeof(rig));
    sh = rig.sh = rh_mem_zalloc_aligned(sizeof(*sh));
    RH_EQ_INT(rh_config_create(&rig.cfg), RH_OK);
    rig.env.shards = SHARDS;
    rig.env.record = RECORD;
    rig.env.ack = ACK;
    rig.env.promises = &rig.promises;
    RH_EQ_INT(rh_net_create(MEMBERS, wake, NULL, &rig.env.net), RH_OK);
    sh->tid = US;
    sh->env = &rig.env;
    sh->cfg = rig.cfg;
    sh->mesh = rh_net_member(rig.env.net, US);
    sh->now_ms = 1000000;
    sh->now_ns = sh->now_ms * 1000000;
    sh->hub_us = 1700000000123456;
    rh_prng_init(&sh->prng);
    rh_wheel_init(&sh->alarms, sh->now_ms);
    rh_list_init(&sh->detached);
    RH_EQ_INT(rh_map_init(&sh->users), RH_OK);
    rig.present = ROOM;
    rig.branch.count = 1;
    rh_tid_set(US);
}

static void drop_event(void *arg, const struct rh_event *ev)
{
    if (ev->kind == RH_EV_SETTLED)
        rh_msg_drop_any(ev->msg);
}

static void finish(void)
{
    for (unsigned i = 0; i < CONNS; i++)
        if (rig.ends[i].c.session)
            rh_session_end(sh, rig.ends[i].c.session);
    rh_owed_fini(sh);
    rh_sessions_fini(sh);
    RH_EQ_U64(rh_map_count(&sh->users), 0);
    rh_mesh_publish(sh->mesh);
    for (unsigned k = 0; k < MEMBERS; k++)
        while (k != US && rh_mesh_pop(rh_net_member(rig.env.net, k), drop_event, NULL))
            rh_mesh_publish(sh->mesh);
    rh_map_fini(&sh->users);
    rh_handles_fini(&sh->stock.handles);
    rh_net_destroy(rig.env.net);
    rh_config_destroy(rig.cfg);
    rh_mem_free(sh);
    rh_tid_set(RH_TID_NONE);
}

/* ---- connections ---- */

static uint64_t hash_of(char user)
{
    return rh_hash(&rig.env.hash_key, &user, 1);
}

/* "a1": connection 1 of user a, which subscribes to the room. */
static struct end *come(const char *name)
{
    struct rh_user *user = rh_user_take(sh, hash_of(name[0]), name, 1);
    struct end *e = rig.ends;
    struct rh_session *s;

    while (e->c.session)
        e++;
    RH_OK_IF(user && e < rig.ends + CONNS);
    memset(e, 0, sizeof(*e));
    snprintf(e->name, sizeof(e->name), "%s", name);
    s = rh_session_create(sh, user);
    RH_OK_IF(s && rh_session_more(s));
    e->c.state = RH_CONN_OPEN;
    rh_session_attach(sh, s, &e->c);
    e->subscribes = true;
    e->sub.state = RH_SUB_ACTIVE;
    e->sub.session = s;
    rh_list_add(&s->more->subs, &e->sub.of_session);
    rh_user_unpin(sh, user);
    rh_owed_connected(sh, &e->c);
    return e;
}

static struct end *conn(const char *name)
{
    struct end *e = rig.ends;

    while (!e->c.session || strcmp(e->name, name) != 0)
        RH_OK_IF(++e < rig.ends + CONNS);
    return e;
}

static void gone(const char *name)
{
    rh_session_end(sh, conn(name)->c.session);
}

static void ack(const char *name, const char *id)
{
    struct rh_envelope env;
    const char *why;
    char text[200];
    int len = snprintf(text, sizeof(text), "{\"type\":\"ack\",\"data\":{\"id\":\"%s\"}}", id);

    RH_EQ_INT(rh_envelope_parse(text, (size_t)len, &env, &why), RH_OK);
    RH_EQ_INT(rh_owed_ack(sh, &conn(name)->c, &env, &why), RH_OK);
}

/* ---- messages ---- */

static struct rh_shares *shares_of(const char *members)
{
    uint32_t count = (uint32_t)strlen(members);
    struct rh_shares *s = rh_mem_zalloc(sizeof(*s) + count * sizeof(s->at[0]) + count);

    s->count = s->len = count;
    for (uint32_t i = 0; i < count; i++) {
        char user = members[i];

        s->at[i] = (struct rh_share){.hash = hash_of(user),
                                     .name_at = i,
                                     .name_len = 1,
                                     .shard = user <= '9'   ? 0
                                              : user <= 'Z' ? 2
                                                            : US,
                                     .live = true};
        *((char *)&s->at[count] + i) = user;
    }
    return s;
}

/* From user z; members are sorted by shard: digits, small letters, large ones. */
static struct rh_msg *message(unsigned seq, const char *id, const char *members)
{
    uint64_t left = rh_mem_fail_left();
    struct rh_msg *msg;
    char *text;
    size_t len;

    rh_mem_fail_nth(0);
    msg = rh_msg_create(300);
    text = (char *)msg->bytes + RH_MSG_HEAD_ROOM;
    len = (size_t)sprintf(text,
                          "{\"data\":{\"seq\":%u,\"room\":\"r\",\"id\":\"%s\",\"from\":\"z\","
                          "\"content\":1,\"ack\":true,\"attempt\":1,\"priority\":\"normal\"}}",
                          seq, id);
    rh_msg_put_head(msg, len);
    msg->ack_at = (uint32_t)(strstr(text, "true") - (char *)msg->bytes);
    msg->attempt_at = (uint32_t)(strstr(text, "1,\"priority") - (char *)msg->bytes);
    msg->attempt_len = 1;
    msg->kind = RH_MSG_ROOM;
    msg->ack = msg->from_user = true;
    msg->uid = ROOM;
    msg->seq = seq;
    msg->to_at = (uint32_t)(RH_MSG_HEAD_ROOM + len);
    msg->to_len = msg->from_len = 1;
    msg->from_at = msg->to_at + 1;
    msg->id_at = msg->from_at + 1;
    msg->id_len = (uint8_t)strlen(id);
    msg->to_hash = hash_of('r');
    msg->from_hash = hash_of('z');
    msg->id_hash = rh_hash(&rig.env.hash_key, id, msg->id_len);
    msg->created_ms = rh_now_unix_ms(sh);
    msg->expires_ms = msg->created_ms + 3600000;
    memcpy(msg->bytes + msg->to_at, "rz", 2);
    memcpy(msg->bytes + msg->id_at, id, msg->id_len);
    msg->shares = shares_of(members);
    rh_mem_fail_nth(left);
    return msg;
}

static void open_fan(struct rh_msg *take_msg)
{
    uint64_t left = rh_mem_fail_left();

    rh_owed_shares(sh, take_msg);
    rh_mem_fail_nth(0);
    rig.h = rh_handle_make(&sh->stock.handles, take_msg);
    rh_mem_fail_nth(left);
}

static void give(struct end *e, struct rh_handle *h, enum rh_share_way way)
{
    bool skip;
    struct rh_handle *own = rh_owed_share_out(sh, &e->c, h, way, &skip);

    RH_OK_IF(!skip || !own);
    if (!skip)
        got(e, (own ? own : h)->msg);
    if (own)
        rh_handle_unref(&sh->stock.handles, own);
}

/* Fan-out has come to that connection. */
static void to(const char *name)
{
    struct end *e = conn(name);

    give(e, rig.h, e->full ? RH_SHARE_FULL : RH_SHARE_LIVE);
}

static void close_fan(void)
{
    rh_owed_shares_done(sh, rig.h->msg);
    rh_handle_unref(&sh->stock.handles, rig.h);
    rig.h = NULL;
}

/* Hands it to those, separated by spaces; and a pass ends. */
static void fan(struct rh_msg *take_msg, const char *names)
{
    char name[8];
    int used;

    open_fan(take_msg);
    for (; sscanf(names, "%7s%n", name, &used) == 1; names += used)
        to(name);
    close_fan();
    rh_owed_run(sh);
}

/* History brings it. */
static void replay(struct rh_msg *msg, const char *name)
{
    struct rh_handle *h;

    rh_msg_hold_any(msg, 1);
    h = rh_handle_make(&sh->stock.handles, msg);
    give(conn(name), h, RH_SHARE_HISTORY);
    rh_handle_unref(&sh->stock.handles, h);
}

static struct rh_owed_item *item_of(char user, const struct rh_msg *msg)
{
    struct rh_user *u = rh_user_find(sh, hash_of(user), &user, 1);

    return u && rh_user_owed(u) ? rh_owed_find(sh, rh_user_owed(u), msg) : NULL;
}

static void sleep_ms(uint64_t ms)
{
    sh->now_ms += ms;
    sh->now_ns += ms * 1000000;
    sh->hub_us += ms * 1000;
    rh_owed_arm(sh);
}

/* The ack thread says that its time to be repeated has come. */
static void on_due(void *arg, const struct rh_event *ev)
{
    rh_owed_due_pop(sh, ev);
}

static void due(char user, const struct rh_msg *msg)
{
    const struct rh_owed_item *item = item_of(user, msg);
    struct rh_mesh *from = rh_net_member(rig.env.net, ACK);
    struct rh_event ev = {
        .kind = RH_EV_DUE, .a = item->slot | (uint64_t)item->gen << 32, .b = RH_DUE_REPEAT};

    sleep_ms(200);
    RH_EQ_INT(rh_mesh_ask(from, US, &ev, 0), RH_OK);
    rh_mesh_publish(from);
    rh_mesh_pop(sh->mesh, on_due, NULL);
    rh_mesh_publish(sh->mesh);
    while (rh_mesh_pop(from, drop_event, NULL))
        ;
    rh_owed_run(sh);
}

static void book_record(void *arg, const struct rh_event *ev)
{
    const struct rh_msg *msg = ev->msg;
    char user = *rh_share_name(msg->shares, (uint32_t)ev->c);

    if (ev->kind == RH_EV_ATTEMPT)
        note("%c tries %u.%u", user, (unsigned)msg->seq, (unsigned)ev->a);
    if (ev->kind != RH_EV_SETTLED)
        return;
    note("%c %s/%s %u", user, rh_state_name(ev->a & 0xff), rh_reason_name((unsigned)ev->a >> 8),
         (unsigned)msg->seq);
    rh_msg_drop_any(ev->msg);
}

static const char *record_gets(void)
{
    RH_OK_IF(rig.len == 0);
    rh_mesh_publish(sh->mesh);
    while (rh_mesh_pop(rh_net_member(rig.env.net, RECORD), book_record, NULL))
        rh_mesh_publish(sh->mesh);
    return read_book();
}

/* ---- a message comes ---- */

RH_TEST(owed_room, members_of_this_shard_are_owed_it)
{
    struct rh_msg *msg;

    begin();
    come("a1");
    come("b1");
    msg = message(5, "i", "09abXY");
    fan(msg, "a1 b1");
    RH_EQ_STR(read_book(), "a1:5.1 b1:5.1");
    RH_EQ_STR(record_gets(), ""); /* the home has said that they are connected */
    ack("a1", "i");
    RH_EQ_STR(record_gets(), "a success/none 5");
    ack("b1", "i");
    RH_EQ_STR(record_gets(), "b success/none 5");
    finish();
}

RH_TEST(owed_room, nobody_of_this_shard_is_owed_it)
{
    begin();
    come("a1");
    fan(message(5, "i", "09"), "a1");
    fan(message(6, "j", "XY"), "a1");
    fan(message(7, "k", ""), "a1");
    RH_EQ_STR(read_book(), "a1:5.1- a1:6.1- a1:7.1-");
    RH_EQ_STR(record_gets(), "");
    finish();
}

RH_TEST(owed_room, all_devices_get_it_and_the_first_that_acknowledges_settles)
{
    begin();
    come("a1");
    come("a2");
    fan(message(5, "i", "a"), "a2 a1");
    RH_EQ_STR(read_book(), "a2:5.1 a1:5.1");
    ack("a1", "i");
    ack("a2", "i");
    RH_EQ_STR(record_gets(), "a success/none 5");
    finish();
}

RH_TEST(owed_room, the_publishers_own_devices_get_a_copy_that_asks_for_nothing)
{
    begin();
    come("z1");
    come("a1");
    come("z2");
    open_fan(message(5, "i", "a"));
    to("z1");
    to("a1");
    RH_OK_IF(rig.h->plain && rig.h->plain->uses == 1); /* one copy for all */
    to("z2");
    close_fan();
    RH_EQ_STR(read_book(), "z1:5.1- a1:5.1 z2:5.1-");
    finish();
}

RH_TEST(owed_room, who_has_acknowledged_it_during_the_lap_is_not_asked_again)
{
    begin();
    come("a1");
    come("a2");
    open_fan(message(5, "i", "a"));
    to("a1");
    ack("a1", "i");
    to("a2");
    close_fan();
    RH_EQ_STR(read_book(), "a1:5.1 a2:5.1-");
    finish();
}

/* ---- who is not there ---- */

RH_TEST(owed_room, an_absent_member_gets_it_when_it_comes)
{
    begin();
    fan(message(5, "i", "a"), "");
    RH_EQ_U64(rig.promises.waiting, 1);
    come("a1");
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1~");
    RH_EQ_STR(record_gets(), "a tries 5.1");
    ack("a1", "i");
    rh_owed_run(sh);
    RH_EQ_STR(record_gets(), "a success/none 5");
    gone("a1");
    RH_EQ_U64(rh_map_count(&sh->users), 0);
    finish();
}

RH_TEST(owed_room, who_was_believed_absent_has_its_first_attempt_told)
{
    struct rh_msg *msg;

    begin();
    come("a1");
    msg = message(5, "i", "a");
    msg->shares->at[0].live = false;
    fan(msg, "a1");
    RH_EQ_STR(read_book(), "a1:5.1");
    RH_EQ_STR(record_gets(), "a tries 5.1");
    finish();
}

RH_TEST(owed_room, what_nobody_has_any_more_comes_again_as_a_repetition)
{
    begin();
    come("a1");
    fan(message(5, "i", "a"), "a1");
    gone("a1");
    come("a2");
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1 a2:5.2~");
    finish();
}

RH_TEST(owed_room, a_connection_that_ends_in_the_lap_leaves_it_to_the_next_one)
{
    begin();
    come("a1");
    come("a2");
    open_fan(message(5, "i", "a"));
    to("a1");
    gone("a1");
    to("a2"); /* in its order, but not the first time */
    close_fan();
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1 a2:5.2");
    RH_EQ_STR(record_gets(), "a tries 5.2");
    finish();
}

RH_TEST(owed_room, who_has_it_before_the_lap_comes_gets_another_attempt_in_its_place)
{
    begin();
    come("a1");
    come("a2");
    open_fan(message(5, "i", "a"));
    to("a1");
    gone("a1");
    rh_owed_run(sh); /* a pass ends, and a2 is the only one left */
    to("a2");
    close_fan();
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1 a2:5.2~ a2:5.3");
    RH_EQ_STR(record_gets(), "a tries 5.2 a tries 5.3");
    finish();
}

RH_TEST(owed_room, a_repetition_says_its_life_if_that_is_over)
{
    struct rh_msg *msg;

    begin();
    come("a1");
    msg = message(5, "i", "a");
    fan(msg, "a1");
    due('a', msg);
    RH_EQ_STR(read_book(), "a1:5.1 a1:5.2~");
    rig.branch.over = true; /* deleted, and its home tells us */
    due('a', msg);
    RH_EQ_STR(read_book(), "a1:5.3~!");
    rig.branch.over = false;
    rig.branch.count = 0; /* nobody here knows */
    gone("a1");
    come("a2");
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a2:5.4~!");
    finish();
}

RH_TEST(owed_room, leaving_the_room_cancels_no_share)
{
    struct rh_msg *msg;

    begin();
    come("a1");
    msg = message(5, "i", "a");
    open_fan(msg);
    conn("a1")->subscribes = false; /* so the cursor does not come to it */
    close_fan();
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1~");
    ack("a1", "i");
    RH_EQ_STR(record_gets(), "a tries 5.1 a success/none 5");
    finish();
}

/* ---- room ---- */

RH_TEST(owed_room, a_full_connection_gets_it_later_and_another_at_once)
{
    struct rh_msg *msg;

    begin();
    come("a1")->full = true;
    come("b1")->full = true;
    come("b2");
    msg = message(5, "i", "ab");
    fan(msg, "a1 b1 b2");
    RH_EQ_STR(read_book(), "b2:5.1");
    conn("a1")->full = conn("b1")->full = false;
    rh_owed_pump(sh, rh_session_user(conn("a1")->c.session));
    rh_owed_pump(sh, rh_session_user(conn("b1")->c.session));
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1~"); /* b's other device has it: this one gets its repetition */
    due('b', msg);
    RH_EQ_STR(read_book(), "b1:5.2~ b2:5.2~");
    finish();
}

RH_TEST(owed_room, a_full_connection_of_who_is_not_owed_it_takes_its_chance)
{
    begin();
    come("z1")->full = true;
    fan(message(5, "i", "a"), "z1");
    RH_EQ_STR(read_book(), "z1:5.1-");
    finish();
}

RH_TEST(owed_room, it_comes_in_order_whatever_waits_and_however_many_are_in_flight)
{
    begin();
    rig.cfg->ack_max_unacked = 1;
    come("a1")->full = true;
    fan(message(5, "i5", "a"), "a1");
    fan(message(6, "i6", "a"), "a1");
    conn("a1")->full = false;
    fan(message(7, "i7", "a"), "a1");
    fan(message(8, "i8", "a"), "a1");
    RH_EQ_STR(read_book(), "a1:7.1 a1:8.1");
    ack("a1", "i7");
    ack("a1", "i8");
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1~");
    ack("a1", "i5");
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:6.1~");
    finish();
}

RH_TEST(owed_room, a_share_fails_where_as_many_wait_as_may)
{
    begin();
    rig.cfg->offline_max_messages = 2;
    come("b1");
    fan(message(5, "i5", "ab"), "b1");
    fan(message(6, "i6", "ab"), "b1");
    fan(message(7, "i7", "ab"), "b1");
    RH_EQ_STR(read_book(), "b1:5.1 b1:6.1 b1:7.1");
    RH_EQ_STR(record_gets(), "a failed/queue_full 7");
    RH_EQ_U64(sh->stats.v[RH_STAT_owed_refused], 1);
    come("a1"); /* a connection takes what comes live, however many wait */
    conn("a1")->full = true;
    rh_owed_run(sh);
    conn("a1")->full = false;
    open_fan(message(8, "i8", "a"));
    to("a1");
    close_fan();
    RH_EQ_STR(read_book(), "a1:8.1");
    finish();
}

RH_TEST(owed_room, a_share_fails_where_as_many_wait_in_all_as_may)
{
    begin();
    rig.cfg->offline_max_total = 1;
    fan(message(5, "i5", "ab"), "");
    RH_EQ_STR(record_gets(), "b failed/queue_full 5");
    rh_owed_run(sh);
    RH_EQ_U64(rh_map_count(&sh->users), 1); /* b is nobody any more */
    finish();
}

/* ---- history ---- */

RH_TEST(owed_room, history_that_brings_it_first_is_its_first_delivery)
{
    struct rh_msg *msg;

    begin();
    msg = message(5, "i", "a");
    rh_msg_hold_any(msg, 1); /* the history's */
    come("a1")->sub.asking = true;
    fan(msg, "");
    RH_EQ_STR(read_book(), ""); /* it may come by that join */
    conn("a1")->sub.asking = false;
    replay(msg, "a1");
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1");
    ack("a1", "i");
    RH_EQ_STR(record_gets(), "a tries 5.1 a success/none 5");
    rh_msg_drop_any(msg);
    finish();
}

RH_TEST(owed_room, history_that_brings_it_again_is_one_more_attempt_in_its_place)
{
    struct rh_msg *msg;

    begin();
    come("a1");
    msg = message(5, "i", "a");
    rh_msg_hold_any(msg, 1);
    fan(msg, "a1");
    replay(msg, "a1");
    RH_EQ_STR(read_book(), "a1:5.1 a1:5.2");
    come("a2");
    replay(msg, "a2");
    RH_EQ_STR(read_book(), "a2:5.3");
    RH_EQ_STR(record_gets(), "a tries 5.2 a tries 5.3");
    gone("a2");
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), ""); /* a1 has got it, too */
    ack("a1", "i");
    replay(msg, "a1");
    RH_EQ_STR(read_book(), "a1:5.1-"); /* nobody is owed it */
    rh_msg_drop_any(msg);
    finish();
}

RH_TEST(owed_room, history_brings_another_message_of_an_id_that_is_used_again)
{
    struct rh_msg *old;

    begin();
    come("a1");
    old = message(5, "i", "a");
    rh_msg_hold_any(old, 1);
    fan(old, "a1");
    ack("a1", "i");
    fan(message(9, "i", "a"), "a1");
    replay(old, "a1");
    RH_EQ_STR(read_book(), "a1:5.1 a1:9.1 a1:5.1-");
    rh_msg_drop_any(old);
    finish();
}

/* What `sub` says a join may still bring is held back, everything else goes. */
RH_TEST(owed_room, a_share_waits_for_the_history_that_may_bring_it)
{
    struct rh_msg *msgs[4];
    struct rh_replay *r = rh_mem_zalloc(sizeof(*r) + 4 * sizeof(struct rh_handle *));
    struct end *e;

    begin();
    for (unsigned i = 0; i < 4; i++) {
        char id[4] = {'i', (char)('4' + i), '\0'};

        msgs[i] = message(4 + i, id, "a");
        rh_msg_hold_any(msgs[i], 1);
        fan(msgs[i], "");
    }
    e = come("a1");
    e->sub.state = RH_SUB_WANTED;
    e->sub.counted = true;
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "");
    e->sub.state = RH_SUB_ASKED;
    e->sub.asking = true;
    rh_owed_pump(sh, rh_session_user(e->c.session));
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "");
    e->sub.asking = false;
    e->sub.state = RH_SUB_ACTIVE;
    r->room = 4;
    r->count = 3;
    r->live = 1;
    for (unsigned i = 0; i < 3; i++) /* 5 and 6 were missed, 7 is parked */
        r->at[i] = rh_handle_make(&sh->stock.handles, msgs[i + 1]);
    e->sub.replay = r;
    rh_owed_unhold(sh, e->c.session);
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:4.1~ a1:7.1~");
    replay(msgs[1], "a1");
    e->sub.replay = NULL; /* dropped */
    rh_owed_unhold(sh, e->c.session);
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1 a1:6.1~");
    for (unsigned i = 0; i < 3; i++)
        rh_handle_unref(&sh->stock.handles, r->at[i]);
    rh_mem_free(r);
    rh_msg_drop_any(msgs[0]);
    finish();
}

RH_TEST(owed_room, a_join_without_a_past_holds_nothing_back)
{
    struct end *e;

    begin();
    fan(message(5, "i", "a"), "");
    e = come("a1");
    e->sub.state = RH_SUB_WANTED;
    rh_owed_run(sh);
    RH_EQ_STR(read_book(), "a1:5.1~");
    finish();
}

/* ---- without memory ---- */

RH_TEST(owed_room, without_memory_for_an_item_the_share_fails)
{
    unsigned failed = 0;

    for (unsigned nth = 1; nth <= 12; nth++) {
        const char *heard;

        begin();
        come("b1");
        rh_mem_fail_nth(nth);
        open_fan(message(5, "i", "ab"));
        rh_mem_fail_nth(0);
        to("b1");
        close_fan();
        read_book();
        heard = record_gets();
        if (strstr(heard, "failed/unknown 5"))
            failed++;
        else
            RH_EQ_STR(heard, "");
        finish();
    }
    RH_OK_IF(failed >= 4 && failed < 12); /* users, queues, the slab */
}

RH_TEST(owed_room, without_memory_for_a_delivery_it_waits)
{
    unsigned waited = 0;

    for (unsigned nth = 1; nth <= 12; nth++) {
        const char *came;

        begin();
        come("a1");
        come("a2");
        open_fan(message(5, "i", "a"));
        to("a2");
        gone("a2");
        read_book();
        rh_handles_fini(&sh->stock.handles);
        rh_mem_fail_nth(nth);
        to("a1"); /* takes a copy, and a place */
        rh_mem_fail_nth(0);
        close_fan();
        rh_owed_run(sh);
        came = read_book();
        waited += strcmp(came, "a1:5.2~") == 0;
        RH_OK_IF(strcmp(came, "a1:5.2~") == 0 || strcmp(came, "a1:5.2") == 0);
        finish();
    }
    RH_OK_IF(waited >= 2 && waited < 12);
}

/* ---- at random ---- */

#define USERS   3 /* a, b, c; z publishes */
#define PUBLISH 120
#define KEPT    6 /* messages of the history */

/* Goal    whoever comes and goes, acknowledges, is slow or reads history: each share ends once, nobody
 *         who is not owed it is asked for an acknowledgement, attempts rise, and no connection gets one
 *         attempt twice.
 * Method  random steps beside a table of what is owed to whom. */
static struct model {
    struct rh_msg *kept[KEPT];
    unsigned published;
    bool owed[USERS][PUBLISH + 1]; /* and not ended */
    bool settled[USERS][PUBLISH + 1];
    uint32_t attempt[USERS][PUBLISH + 1];
    uint32_t by_conn[CONNS][PUBLISH + 1]; /* the last attempt that it got */
    bool lossy;                           /* memory fails now and then */
    unsigned failed;
} m;

static void model_got(struct end *e, const struct rh_msg *msg, uint32_t attempt, bool ack)
{
    unsigned user = (unsigned)(e->name[0] - 'a'), seq = (unsigned)msg->seq;
    uint32_t *by_conn = &m.by_conn[e - rig.ends][seq];

    if (!ack) {
        RH_OK_IF(user >= USERS || !m.owed[user][seq] || m.settled[user][seq]);
        return;
    }
    if (user >= USERS) {
        RH_OK_IF(m.lossy); /* no memory for a copy */
        return;
    }
    if (!m.owed[user][seq] || m.settled[user][seq]) {
        RH_OK_IF(m.lossy);
        return;
    }
    RH_OK_IF(attempt == m.attempt[user][seq] || attempt == m.attempt[user][seq] + 1 || m.lossy);
    RH_OK_IF(attempt >= m.attempt[user][seq]);
    RH_OK_IF(*by_conn == 0 || attempt > *by_conn);
    *by_conn = attempt;
    m.attempt[user][seq] = attempt;
}

static void model_heard(void *arg, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;
    unsigned user = (unsigned)(*rh_share_name(msg->shares, (uint32_t)ev->c) - 'a');

    if (ev->kind == RH_EV_ATTEMPT)
        RH_OK_IF(m.owed[user][msg->seq] && !m.settled[user][msg->seq]);
    if (ev->kind != RH_EV_SETTLED)
        return;
    RH_OK_IF(m.owed[user][msg->seq] && !m.settled[user][msg->seq]);
    m.settled[user][msg->seq] = true;
    m.failed += (ev->a & 0xff) == RH_STATE_failed;
    rh_msg_drop_any(msg);
}

static void model_hear(void)
{
    rh_mesh_publish(sh->mesh);
    while (rh_mesh_pop(rh_net_member(rig.env.net, RECORD), model_heard, NULL))
        rh_mesh_publish(sh->mesh);
    while (rh_mesh_pop(rh_net_member(rig.env.net, ACK), drop_event, NULL))
        rh_mesh_publish(sh->mesh);
}

static struct end *model_conn(void)
{
    struct end *e = &rig.ends[rh_test_rand() % 10];

    return e->c.session ? e : NULL;
}

static void model_come(void)
{
    char name[8];
    unsigned user = (unsigned)(rh_test_rand() % (USERS + 1)), open = 0;
    struct end *e;

    for (unsigned i = 0; i < 10; i++)
        open += rig.ends[i].c.session != NULL;
    if (open == 10)
        return;
    snprintf(name, sizeof(name), "%c%u", user == USERS ? 'z' : 'a' + (char)user, open);
    e = come(name);
    memset(m.by_conn[e - rig.ends], 0, sizeof(m.by_conn[0]));
}

/* Of something that it has got. */
static void model_ack(struct end *e)
{
    unsigned user = (unsigned)(e->name[0] - 'a');
    unsigned seq = 1 + (unsigned)(rh_test_rand() % PUBLISH);
    struct rh_envelope env;
    const char *why;
    char text[80];
    int len;

    for (unsigned i = 0; user < USERS && i < PUBLISH && !m.by_conn[e - rig.ends][seq]; i++)
        seq = seq % PUBLISH + 1;
    len = snprintf(text, sizeof(text), "{\"type\":\"ack\",\"data\":{\"id\":\"i%u\"}}", seq);
    RH_EQ_INT(rh_envelope_parse(text, (size_t)len, &env, &why), RH_OK);
    RH_EQ_INT(rh_owed_ack(sh, &e->c, &env, &why), RH_OK);
    model_hear();
}

static void model_give(struct end *e, struct rh_handle *h, enum rh_share_way way)
{
    if (m.lossy && rh_test_rand() % 4 == 0)
        rh_mem_fail_nth(1 + rh_test_rand() % 3);
    give(e, h, way);
    rh_mem_fail_nth(0);
}

static void model_step(void);

/* Connections in a random order; meanwhile anything may happen. */
static void model_publish(void)
{
    unsigned seq = ++m.published, at = seq % KEPT;
    char members[USERS + 1], id[16];
    unsigned count = 0, start = (unsigned)(rh_test_rand() % 10);
    struct rh_msg *msg;
    struct rh_handle *h;

    for (unsigned user = 0; user < USERS; user++) {
        if (rh_test_rand() % 4 == 0)
            continue;
        members[count++] = (char)('a' + (char)user);
        m.owed[user][seq] = true;
    }
    members[count] = '\0';
    snprintf(id, sizeof(id), "i%u", seq);
    msg = message(seq, id, members);
    rh_msg_hold_any(msg, 1);
    rh_msg_drop_any(m.kept[at]);
    m.kept[at] = msg;
    if (m.lossy && rh_test_rand() % 4 == 0)
        rh_mem_fail_nth(1 + rh_test_rand() % 6);
    rh_owed_shares(sh, msg);
    rh_mem_fail_nth(0);
    model_hear();
    h = rh_handle_make(&sh->stock.handles, msg);
    for (unsigned i = 0; i < 10; i++) {
        struct end *e = &rig.ends[(start + i) % 10];

        if (rh_test_rand() % 3 == 0)
            model_step();
        if (e->c.session)
            model_give(e, h, e->full ? RH_SHARE_FULL : RH_SHARE_LIVE);
        model_hear();
    }
    rh_owed_shares_done(sh, msg);
    model_hear();
    rh_handle_unref(&sh->stock.handles, h);
}

static void model_replay(struct end *e)
{
    struct rh_msg *msg = m.kept[rh_test_rand() % KEPT];
    struct rh_handle *h;

    if (!msg)
        return;
    rh_msg_hold_any(msg, 1);
    h = rh_handle_make(&sh->stock.handles, msg);
    model_give(e, h, RH_SHARE_HISTORY);
    rh_handle_unref(&sh->stock.handles, h);
    model_hear();
}

static void model_due(void)
{
    unsigned seq = 1 + (unsigned)(rh_test_rand() % PUBLISH);

    for (unsigned i = 0; i < KEPT; i++) {
        struct rh_msg *msg = m.kept[(seq + i) % KEPT];
        char user = (char)('a' + (char)(rh_test_rand() % USERS));
        const struct rh_owed_item *item = msg ? item_of(user, msg) : NULL;

        if (!item || item->at != RH_OWED_FLIGHT)
            continue;
        due(user, msg);
        model_hear();
        return;
    }
}

static void model_step(void)
{
    struct end *e = model_conn();

    switch (rh_test_rand() % 8) {
    case 0:
        model_come();
        break;
    case 1:
        if (e && rh_test_rand() % 2)
            rh_session_end(sh, e->c.session);
        break;
    case 2:
        if (e) {
            e->full = !e->full;
            rh_owed_pump(sh, rh_session_user(e->c.session));
        }
        break;
    case 3:
    case 4:
        if (e)
            model_ack(e);
        break;
    case 5:
        if (e)
            model_replay(e);
        break;
    case 6:
        model_due();
        break;
    default:
        rh_owed_run(sh);
    }
    model_hear();
}

/* Everybody comes, takes, and acknowledges. */
static void model_end(void)
{
    for (unsigned user = 0; user < USERS; user++) {
        char name[8];

        for (unsigned i = 0; i < CONNS; i++)
            if (rig.ends[i].c.session)
                rh_session_end(sh, rig.ends[i].c.session);
        snprintf(name, sizeof(name), "%c9", 'a' + (char)user);
        come(name);
        memset(m.by_conn[0], 0, sizeof(m.by_conn[0]));
        for (unsigned seq = 1; seq <= m.published; seq++)
            rh_owed_run(sh);
        for (unsigned seq = 1; seq <= m.published; seq++) {
            char id[16];

            RH_OK_IF(!m.owed[user][seq] || m.settled[user][seq] || m.by_conn[0][seq]);
            snprintf(id, sizeof(id), "i%u", seq);
            ack(name, id);
            model_hear();
            RH_EQ_INT(m.owed[user][seq], m.settled[user][seq]);
        }
    }
    for (unsigned i = 0; i < KEPT; i++)
        rh_msg_drop_any(m.kept[i]);
    rh_owed_run(sh);
    RH_EQ_U64(rig.promises.waiting, 0);
    RH_EQ_U64(sh->stats.v[RH_STAT_unacked_messages], 0);
    RH_EQ_U64(sh->stats.v[RH_STAT_offline_messages], 0);
}

static void model_run(bool lossy, uint32_t max)
{
    memset(&m, 0, sizeof(m));
    begin();
    m.lossy = lossy;
    rig.on_frame = model_got;
    rig.cfg->offline_max_messages = max;
    while (m.published < PUBLISH) {
        if (rh_test_rand() % 4 == 0)
            model_publish();
        else
            model_step();
    }
    rig.cfg->ack_max_unacked = PUBLISH;
    model_end();
    if (!lossy && max > PUBLISH)
        RH_EQ_INT(m.failed, 0);
    finish();
}

RH_TEST(owed_room, at_random_each_share_ends_once)
{
    for (unsigned round = 0; round < 60; round++)
        model_run(false, round % 2 ? 1000 : 5);
}

RH_TEST(owed_room, at_random_without_memory_each_share_ends_once)
{
    for (unsigned round = 0; round < 60; round++)
        model_run(true, 1000);
}
