/* tests/shard/test_pressure_promises.c - requests whose answer waits for a commit, from the client's
 * text to its answer: three real shards, and a record thread that is played and commits when the test
 * says so. */
#include "tests/shard/press_rig.h"

#include "core/err.h"
#include "core/msg.h"

#define KEPT_MAX 16384

/* What the record thread has been told and has not committed. */
static struct rh_event kept[KEPT_MAX];
static unsigned kept_count, kept_first;

static void on_record(void *arg, const struct rh_event *ev)
{
    if (ev->kind == RH_EV_ACCEPTED) {
        RH_OK_IF(kept_count < KEPT_MAX);
        kept[kept_count++] = *ev;
    } else if (ev->kind == RH_EV_SETTLED) {
        rh_msg_drop_any(ev->msg);
    }
}

static void on_ack(void *arg, const struct rh_event *ev)
{
}

static unsigned record_has(void)
{
    struct rh_mesh *ack = rh_net_member(hub.env.net, ACK);
    struct rh_mesh *record = rh_net_member(hub.env.net, RECORD);

    rh_mesh_awake(ack);
    rh_mesh_pop(ack, on_ack, NULL);
    rh_mesh_publish(ack);
    rh_mesh_awake(record);
    rh_mesh_pop(record, on_record, NULL);
    rh_mesh_publish(record);
    return kept_count - kept_first;
}

/* Answers all it has. */
static void commit(enum rh_wire_error err)
{
    struct rh_mesh *record = rh_net_member(hub.env.net, RECORD);

    for (record_has(); kept_first < kept_count; kept_first++) {
        struct rh_event *ev = &kept[kept_first];
        struct rh_event done = {.kind = RH_EV_COMMITTED,
                                .cookie = ev->cookie,
                                .conn = ev->conn,
                                .a = err,
                                .b = ev->flags,
                                .c = ((struct rh_msg *)ev->msg)->seq,
                                .d = ev->d};

        if (ev->flags & RH_ACCEPT_ASKED)
            RH_EQ_INT(rh_mesh_tell(record, (unsigned)ev->a, &done), RH_OK);
        rh_msg_drop_any(ev->msg);
    }
    do /* the rings are small */
        rh_mesh_publish(record);
    while (mesh_at(RECORD).spill_events);
}

/* Asks for an acknowledgement; `more` are further members of its data. */
static void send_acked(struct client *c, const struct client *to, const char *more)
{
    request(c, "message.send", "\"to\":\"%s\",\"content\":%u,\"ack\":true%s", to->name,
            c->index * BY_SENDER + ++c->sent_to[to->index], more);
}

static bool is(const struct rh_msg *msg, uint32_t at, size_t len, const char *expected)
{
    return len == strlen(expected) && memcmp(msg->bytes + at, expected, len) == 0;
}

static const char *text_of(const struct rh_msg *msg)
{
    static char text[2048];
    size_t len;
    const uint8_t *at = rh_msg_text(msg, &len);

    RH_OK_IF(len < sizeof(text));
    memcpy(text, at, len);
    text[len] = '\0';
    return text;
}

/* ---- what a promise is ---- */

/* Goal    the receiver has it before it is durable, the sender is answered after; on one shard and on
 *         two. */
RH_TEST(pressure_promises, the_answer_waits_for_the_commit_the_message_does_not)
{
    struct client *a, *to[2];

    begin();
    a = user_on(0, "");
    for (unsigned k = 0; k < 2; k++) {
        to[k] = user_on(k, "");
        send_acked(a, to[k], "");
        WAIT_FOR(to[k]->directs == 1 && record_has() == 1);
        RH_EQ_INT(to[k]->acks_wanted, 1);
        WAIT_FOR(stat_at(0, RH_STAT_promises_pending) == 1);
        RH_EQ_INT(a->answers, k);
        commit(RH_WIRE_NONE);
        WAIT_FOR(a->answers == k + 1);
        RH_OK_IF(strstr(a->last, "\"status\":\"sent\"}"));
    }
    RH_EQ_INT(stat_at(0, RH_STAT_messages_sent), 2);
    RH_EQ_INT(stat_all(RH_STAT_promises_pending), 0);
    end();
}

/* Goal    all that is needed to keep a message, and to repeat it, goes with it. */
RH_TEST(pressure_promises, a_message_brings_what_keeping_it_takes)
{
    struct client *a, *b;
    struct rh_msg *msg, *again;
    const char *text;

    begin();
    a = user_on(0, "");
    b = user_on(1, "");
    send_acked(a, b, ",\"id\":\"order-7\",\"ttl_ms\":5000,\"tags\":[\"x\"]");
    WAIT_FOR(record_has() == 1);
    msg = kept[0].msg;
    RH_EQ_INT(msg->kind, RH_MSG_DIRECT);
    RH_OK_IF(msg->ack && msg->given && msg->from_user && !msg->high);
    RH_OK_IF(is(msg, msg->to_at, msg->to_len, b->name));
    RH_OK_IF(is(msg, msg->from_at, msg->from_len, a->name));
    RH_OK_IF(is(msg, msg->id_at, msg->id_len, "order-7"));
    RH_OK_IF(is(msg, msg->ack_at, 4, "true"));
    RH_OK_IF(is(msg, msg->attempt_at, msg->attempt_len, "1"));
    RH_EQ_U64(msg->to_hash, rh_hash(&hub.env.hash_key, b->name, strlen(b->name)));
    RH_EQ_U64(msg->from_hash, rh_hash(&hub.env.hash_key, a->name, strlen(a->name)));
    RH_EQ_U64(msg->expires_ms, msg->created_ms + 5000);
    text = text_of(msg);
    RH_EQ_U64(number_behind(text, "\"created_at\":"), msg->created_ms);
    RH_EQ_U64(number_behind(text, "\"seq\":"), msg->seq);
    again = rh_msg_again(msg, 12, false, "", 0);
    text = text_of(again);
    RH_OK_IF(strstr(text, ",\"ack\":false,\"seq\":"));
    RH_OK_IF(strstr(text, ",\"tags\":[\"x\"],\"attempt\":12,\"created_at\":"));
    RH_OK_IF(is(again, again->id_at, again->id_len, "order-7"));
    rh_msg_drop_any(again);
    RH_OK_IF(kept[0].c > msg->created_ms); /* until when its id is known */
    commit(RH_WIRE_NONE);
    send_acked(a, b, ""); /* without a time or an id of its own */
    WAIT_FOR(record_has() == 1);
    msg = kept[1].msg;
    RH_EQ_U64(msg->expires_ms, msg->created_ms + 7ull * 86400000);
    RH_OK_IF(!msg->given && msg->id_len == 32 && kept[1].c == 0);
    commit(RH_WIRE_NONE);
    WAIT_FOR(a->answers == 2);
    end();
}

/* Goal    a plain message for who is not there is kept, and answered after the commit as stored. */
RH_TEST(pressure_promises, for_who_is_offline_it_is_stored)
{
    struct client *a;
    char nobody[24];

    begin();
    a = user_on(0, "");
    for (unsigned k = 0; k < 2; k++) {
        name_on(nobody, "nobody", k, k);
        request(a, "message.send", "\"to\":\"%s\",\"content\":1", nobody);
        WAIT_FOR(record_has() == 1);
        RH_OK_IF(!((struct rh_msg *)kept[kept_first].msg)->ack);
        RH_EQ_INT(a->answers, k);
        commit(RH_WIRE_NONE);
        WAIT_FOR(a->answers == k + 1);
        RH_OK_IF(strstr(a->last, "\"status\":\"stored\"}"));
    }
    end();
}

/* Goal    who repeats an id that was refused for the store's sake gets a commit of its own: the message
 *         is still owed, and goes out once. */
RH_TEST(pressure_promises, what_the_store_refused_may_still_be_owed)
{
    struct client *a, *b;

    begin();
    a = user_on(0, "");
    b = user_on(1, "");
    send_acked(a, b, ",\"id\":\"x\"");
    WAIT_FOR(record_has() == 1);
    rh_msg_hold_any(kept[0].msg, 1);
    commit(RH_WIRE_store_failed);
    WAIT_FOR(a->errors == 1);
    RH_OK_IF(strstr(a->last, "\"store_failed\""));
    request(a, "message.send", "\"to\":\"%s\",\"content\":1,\"ack\":true,\"id\":\"x\"", b->name);
    WAIT_FOR(stat_at(1, RH_STAT_dedup_hits) == 1);
    RH_EQ_INT(b->directs, 1);
    RH_EQ_INT(record_has(), 0); /* an AWAIT, which this one leaves unanswered */
    rh_msg_drop_any(kept[0].msg);
    WAIT_FOR(stat_at(0, RH_STAT_promises_pending) == 1);
    tell_all(RH_EV_STOP, 0); /* what is pending then is let go of */
    for (unsigned i = 0; i < SHARDS; i++)
        rh_thread_join(&hub.threads[i]);
    for (unsigned i = 0; i < SHARDS; i++)
        rh_shard_destroy(hub.all[i]);
}

/* ---- rooms ---- */

static void join(struct client *c, const char *room)
{
    request(c, "room.join", "\"room\":\"%s\"", room);
    WAIT_FOR(c->answers == c->asked && !c->errors);
}

/* Goal    a room's message that asks for acknowledgements brings what keeping it takes, whichever shard
 *         is the room's home; its publisher is answered after the commit, and again if it repeats the
 *         id. */
RH_TEST(pressure_promises, a_publish_is_answered_by_its_commit)
{
    struct client *a, *b;
    char room[24], answer[64];
    struct rh_msg *msg, *again;

    begin();
    a = user_on(0, "");
    b = user_on(1, "");
    for (unsigned home = 0; home < SHARDS; home++) {
        name_on(room, "r", home, home);
        join(a, room);
        join(b, room);
        for (unsigned i = 0; i < 2; i++)
            request(a, "room.publish",
                    "\"room\":\"%s\",\"content\":1,\"ack\":true,\"id\":\"order-7\"", room);
        WAIT_FOR(record_has() == 1 && b->published == home + 1);
        RH_EQ_INT(a->answers, a->asked - 2);
        msg = kept[kept_first].msg;
        RH_EQ_INT(msg->kind, RH_MSG_ROOM);
        RH_OK_IF(msg->ack && msg->given && msg->from_user && msg->shares);
        RH_EQ_INT(msg->shares->count, 1);
        RH_OK_IF(is(msg, msg->to_at, msg->to_len, room));
        RH_OK_IF(is(msg, msg->from_at, msg->from_len, a->name));
        RH_OK_IF(is(msg, msg->id_at, msg->id_len, "order-7"));
        RH_EQ_U64(msg->expires_ms, msg->created_ms + 7ull * 86400000);
        again = rh_msg_again(msg, 345, false, ",\"epoch\":\"e\"", 12);
        RH_OK_IF(
            strstr(text_of(again), ",\"ack\":false,\"attempt\":345,\"epoch\":\"e\",\"priority\":"));
        rh_msg_drop_any(again);
        RH_OK_IF(kept[kept_first].c > msg->created_ms);
        commit(RH_WIRE_NONE);
        WAIT_FOR(a->answers == a->asked);
        snprintf(answer, sizeof(answer), "{\"id\":\"order-7\",\"seq\":1,\"recipients\":%u}",
                 (unsigned)kept[kept_first - 1].d);
        RH_OK_IF(strstr(a->last, answer));
        a->last[0] = '\0';
        request(a, "room.publish", "\"room\":\"%s\",\"content\":2,\"ack\":true,\"id\":\"order-7\"",
                room);
        WAIT_FOR(a->answers == a->asked);
        RH_OK_IF(strstr(a->last, answer));
        RH_EQ_INT(b->published, home + 1);
    }
    RH_EQ_INT(a->errors, 0);
    RH_EQ_INT(stat_at(0, RH_STAT_dedup_hits), 2 * SHARDS);
    end();
}

/* ---- when the store does not keep up ---- */

/* Goal    while the gate is shut promises are refused at once, and plain messages go on. */
RH_TEST(pressure_promises, a_shut_gate_refuses_promises_alone)
{
    struct client *a, *b;

    begin();
    a = user_on(0, "");
    b = user_on(1, "");
    atomic_store(&hub.promises.gate, RH_GATE_FAILING);
    for (unsigned k = 0; k < SHARDS; k++) {
        request(a, "message.send", "\"to\":\"%s\",\"content\":1,\"ack\":true", b->name);
        WAIT_FOR(a->answers == 2 * k + 1);
        RH_OK_IF(strstr(a->last, "\"code\":503,\"error\":\"store_failed\""));
        send_to(a, b);
        WAIT_FOR(a->answers == 2 * k + 2 && b->directs == k + 1);
        RH_OK_IF(strstr(a->last, "\"status\":\"sent\"}"));
    }
    atomic_store(&hub.promises.gate, RH_GATE_OPEN);
    send_acked(a, b, "");
    WAIT_FOR(record_has() == 1);
    commit(RH_WIRE_NONE);
    WAIT_FOR(all_answered());
    end();
}

/* Goal    while a commit hangs, who asks for acknowledgements is not read any further, and plain
 *         messages go on; then each request is answered once. */
RH_TEST(pressure_promises, who_asks_for_too_many_is_not_read)
{
    struct client *a, *other, *b;
    char nobody[24];

    begin();
    a = user_on(0, "");
    other = user_on(0, "");
    b = user_on(1, "");
    for (unsigned k = 0; k < 2; k++) {
        name_on(nobody, "nobody", k, k);
        for (unsigned i = 0; i < RH_PENDING_MAX / 2; i++)
            request(a, "message.send", "\"to\":\"%s\",\"content\":1,\"ack\":true", nobody);
    }
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_promises) == 1 &&
             record_has() == RH_PENDING_MAX / 4 * 3);
    RH_EQ_INT(stat_at(0, RH_STAT_promises_pending), RH_PENDING_MAX / 4 * 3);
    RH_EQ_INT(stat_at(0, RH_STAT_connections_paused), 1);
    for (unsigned i = 0; i < 100; i++)
        send_to(other, b);
    WAIT_FOR(other->answers == 100 && b->directs == 100);
    RH_EQ_INT(a->answers, 0);
    commit(RH_WIRE_NONE);
    WAIT_FOR(record_has() == RH_PENDING_MAX / 4);
    commit(RH_WIRE_NONE);
    WAIT_FOR(all_answered());
    RH_EQ_INT(a->errors, 0);
    RH_EQ_INT(stat_at(0, RH_STAT_connections_paused), 0);
    end();
}

/* Goal    a connection that waits for that may end, and the others go on. */
RH_TEST(pressure_promises, who_waits_may_go)
{
    struct client *a, *other;
    char nobody[24];

    begin();
    a = user_on(0, "");
    other = user_on(0, "");
    name_on(nobody, "nobody", 0, 1);
    for (unsigned i = 0; i < RH_PENDING_MAX; i++)
        request(a, "message.send", "\"to\":\"%s\",\"content\":1,\"ack\":true", nobody);
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_promises) == 1);
    request(other, "message.send", "\"to\":\"%s\",\"content\":1,\"ack\":true", nobody);
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_promises) == 2);
    hang_up(a, 1006);
    WAIT_FOR(record_has() == RH_PENDING_MAX / 4 * 3);
    /* What was read of it is still done, and kept; then nothing is pending. */
    while (stat_at(0, RH_STAT_connections_websocket) > 1 || stat_at(0, RH_STAT_promises_pending) ||
           !other->answers) {
        commit(RH_WIRE_NONE);
        pump();
    }
    RH_EQ_INT(other->errors, 0);
    end();
}
