/* What a room promises: who is owed its acknowledged messages, which ids are taken, and what the
 * record thread hears. */
#include <stdlib.h>

#include "core/limits.h"
#include "tests/shard/home_rig.h"

/* ---- words of our own ---- */

static int promise; /* its address is the asker's cookie */

static struct rh_ask *named(struct rh_ask *ask, const char *id)
{
    ask->msg->given = true;
    ask->msg->id_len = (uint8_t)strlen(id);
    memcpy(ask->msg->bytes + ask->msg->id_at, id, ask->msg->id_len);
    ask->cookie = &promise;
    ask->conn = 7;
    ask->dedup_ms = 99;
    return ask;
}

static struct rh_ask *owed_ask(unsigned from, const char *user, const char *content, const char *id)
{
    struct rh_ask *ask = named(publish_ask(from, user, "r", content), id);

    ask->msg->ack = true;
    return ask;
}

/* Of the error, or WIRE_NONE. */
static unsigned owe(const char *user, const char *content, const char *id)
{
    return handle(owed_ask(HOME, user, content, id))->err;
}

static struct rh_msg *recorded[16]; /* holds that ACCEPTED brought */
static unsigned recorded_count;

static const char *shares_of(const struct rh_msg *msg)
{
    static char text[256];
    const struct rh_shares *s = msg->shares;
    int len = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < s->count; i++) {
        RH_OK_IF(i == 0 || s->at[i - 1].shard <= s->at[i].shard);
        RH_OK_IF(len < 200);
        len += sprintf(text + len, "%s%.*s@%u%s", i ? " " : "", s->at[i].name_len,
                       rh_share_name(s, i), s->at[i].shard, s->at[i].live ? "" : "-");
    }
    return text;
}

static void book_record(void *arg, const struct rh_event *ev)
{
    const struct rh_msg *msg = ev->msg;

    RH_EQ_INT(ev->from, HOME);
    RH_OK_IF(ev->cookie == &promise && ev->conn == 7 && ev->c == 99);
    RH_EQ_INT(ev->flags, RH_ACCEPT_ASKED | RH_ACCEPT_FROM_USER);
    note("%s %s for %u of %u, shares %s", ev->kind == RH_EV_ACCEPTED ? "accepted" : "await",
         text_in(msg), (unsigned)ev->d, (unsigned)ev->a, shares_of(msg));
    if (ev->kind == RH_EV_ACCEPTED)
        recorded[recorded_count++] = ev->msg;
    else
        rh_msg_drop_any(ev->msg);
}

/* What the record thread has been told since the last time. */
static const char *record_gets(void)
{
    read_book();
    rh_mesh_publish(sh->mesh);
    while (rh_mesh_pop(rh_net_member(env.net, RECORD), book_record, NULL))
        rh_mesh_publish(sh->mesh);
    return read_book();
}

/* Nobody is owed it any more. */
static void release(unsigned i)
{
    struct rh_event ev = {.kind = RH_EV_RELEASED, .from = RECORD, .msg = recorded[i]};

    recorded[i] = NULL;
    rh_room_released_pop(sh, &ev);
}

static void forget_recorded(void)
{
    for (unsigned i = 0; i < recorded_count; i++)
        rh_msg_drop_any(recorded[i]);
    recorded_count = 0;
}

static void three(void)
{
    begin();
    join_of(HOME, "ann", "r");
    join_of(2, "carl", "r");
    join_of(0, "bob", "r");
    read_book();
}

static void end_all(void)
{
    record_gets();
    forget_recorded();
    end();
}

/* ---- who is owed it ---- */

RH_TEST(room_promise, all_members_but_the_publisher_are_owed_it)
{
    three();
    RH_EQ_INT(owe("ann", "hello", "i1"), RH_WIRE_NONE);
    RH_OK_IF(answered->promised && answered->seq == 1 && answered->members == 3);
    RH_EQ_STR(read_book(), "push 1:hello, ok publish 3");
    RH_EQ_STR(record_gets(), "accepted 1:hello for 3 of 1, shares bob@0 carl@2");
    RH_EQ_STR(other_gets(0), "joined bob 3, 1:hello");
    end_all();
}

RH_TEST(room_promise, an_excluded_publisher_is_no_recipient)
{
    struct rh_ask *ask;

    three();
    ask = owed_ask(0, "bob", "hello", "i1");
    ask->msg->excludes = true;
    RH_EQ_U64(handle(ask)->members, 2);
    RH_EQ_STR(record_gets(), "accepted 1:hello for 2 of 0, shares ann@1 carl@2");
    end_all();
}

RH_TEST(room_promise, an_admin_who_is_no_member_owes_it_to_all)
{
    struct rh_ask *ask;

    three();
    ask = owed_ask(2, "root", "hello", "i1");
    ask->is_admin = true;
    RH_EQ_U64(handle(ask)->members, 3);
    RH_EQ_STR(record_gets(), "accepted 1:hello for 3 of 2, shares bob@0 ann@1 carl@2");
    end_all();
}

RH_TEST(room_promise, what_is_owed_to_nobody_is_recorded_all_the_same)
{
    begin();
    join_of(HOME, "ann", "r");
    RH_EQ_INT(owe("ann", "hello", "i1"), RH_WIRE_NONE);
    RH_EQ_STR(record_gets(), "accepted 1:hello for 1 of 1, shares ");
    end_all();
}

RH_TEST(room_promise, a_share_says_whether_its_user_has_a_connection)
{
    void *bob;

    three();
    bob = join_of(0, "bob", "r"); /* a second session */
    rh_room_unsub(sh, 0, room_of("r")->uid, bob, RH_UNSUB_DETACH);
    owe("ann", "one", "i1");
    RH_EQ_STR(record_gets(), "accepted 1:one for 3 of 1, shares bob@0 carl@2");
    rh_room_unsub(sh, 0, room_of("r")->uid, bob, RH_UNSUB_DETACH);
    owe("ann", "two", "i2");
    RH_EQ_STR(record_gets(), "accepted 2:two for 3 of 1, shares bob@0- carl@2");
    end_all();
}

RH_TEST(room_promise, a_plain_publish_is_told_to_nobody_else)
{
    three();
    RH_EQ_INT(handle(publish_ask(HOME, "ann", "r", "plain"))->err, RH_WIRE_NONE);
    RH_OK_IF(!answered->promised);
    RH_EQ_STR(record_gets(), "");
    end_all();
}

/* ---- what is refused ---- */

RH_TEST(room_promise, a_room_of_more_members_than_may_be_owed_refuses)
{
    three();
    cfg->rooms_max_owed = 2;
    RH_EQ_INT(owe("ann", "x", "i1"), RH_WIRE_conflict);
    RH_EQ_INT(handle(publish_ask(HOME, "ann", "r", "plain"))->err, RH_WIRE_NONE);
    cfg->rooms_max_owed = 3;
    RH_EQ_INT(owe("ann", "x", "i1"), RH_WIRE_NONE);
    RH_EQ_U64(answered->seq, 2);
    end_all();
}

RH_TEST(room_promise, while_the_store_fails_it_is_neither_owed_nor_delivered)
{
    three();
    others_forget();
    for (unsigned gate = RH_GATE_LOADING; gate <= RH_GATE_FULL; gate++) {
        atomic_store(&promises.gate, gate);
        RH_EQ_INT(owe("ann", "x", "i1"), RH_WIRE_store_failed);
    }
    RH_EQ_STR(record_gets(), "");
    RH_EQ_STR(other_gets(0), "");
    RH_EQ_INT(handle(publish_ask(HOME, "ann", "r", "plain"))->seq, 1);
    atomic_store(&promises.gate, RH_GATE_OPEN);
    RH_EQ_INT(owe("ann", "x", "i1"), RH_WIRE_NONE);
    RH_EQ_U64(answered->seq, 2);
    end_all();
}

/* ---- ids ---- */

RH_TEST(room_promise, an_id_that_is_owed_is_taken_in_its_room_only)
{
    struct rh_ask *ask;

    three();
    join_of(HOME, "ann", "q");
    RH_EQ_INT(owe("ann", "x", "i1"), RH_WIRE_NONE);
    RH_EQ_INT(handle(owed_ask(0, "bob", "y", "i1"))->err, RH_WIRE_conflict);
    RH_EQ_INT(handle(named(publish_ask(0, "bob", "r", "y"), "i1"))->err, RH_WIRE_conflict);
    RH_EQ_INT(handle(owed_ask(0, "bob", "y", "i2"))->err, RH_WIRE_NONE);
    ask = named(publish_ask(HOME, "ann", "q", "z"), "i1");
    ask->msg->ack = true;
    RH_EQ_INT(handle(ask)->err, RH_WIRE_NONE);
    RH_EQ_U64(answered->seq, 1);
    end_all();
}

RH_TEST(room_promise, its_sender_gets_the_outcome_of_the_first_one)
{
    three();
    owe("ann", "x", "i1");
    record_gets();
    others_forget();
    RH_EQ_INT(handle(named(publish_ask(2, "ann", "r", "again"), "i1"))->err, RH_WIRE_NONE);
    RH_OK_IF(answered->promised && answered->seq == 1 && answered->members == 3);
    RH_EQ_STR(record_gets(), "await 1:x for 3 of 2, shares bob@0 carl@2");
    RH_EQ_STR(other_gets(0), "");
    RH_EQ_U64(room_of("r")->seq, 1);
    end_all();
}

RH_TEST(room_promise, without_a_promise_the_outcome_is_told_at_once)
{
    struct rh_ask *ask;

    three();
    owe("ann", "x", "i1");
    record_gets();
    ask = named(publish_ask(2, "ann", "r", "again"), "i1");
    ask->cookie = NULL;
    handle(ask);
    RH_OK_IF(!answered->promised && answered->seq == 1 && answered->members == 3);
    RH_EQ_STR(record_gets(), "");
    end_all();
}

RH_TEST(room_promise, a_back_end_of_the_same_name_is_another_sender)
{
    struct rh_ask *ask;

    three();
    owe("ann", "x", "i1");
    ask = owed_ask(HOME, "ann", "y", "i1");
    ask->msg->from_user = false;
    RH_EQ_INT(handle(ask)->err, RH_WIRE_conflict);
    end_all();
}

RH_TEST(room_promise, an_id_is_free_when_nobody_is_owed_it_any_more)
{
    three();
    owe("ann", "x", "i1");
    record_gets();
    release(0);
    RH_EQ_INT(handle(owed_ask(0, "bob", "y", "i1"))->err, RH_WIRE_NONE);
    RH_EQ_U64(answered->seq, 2);
    RH_EQ_U64(rh_map_count(&sh->taken), 1);
    end_all();
}

RH_TEST(room_promise, an_id_outlives_its_room)
{
    three();
    owe("ann", "x", "i1");
    record_gets();
    RH_EQ_INT(handle(ask_of(RH_ASK_DELETE, HOME, "ann", "r"))->err, RH_WIRE_NONE);
    join_of(0, "bob", "r");
    RH_EQ_INT(handle(owed_ask(0, "bob", "y", "i1"))->err, RH_WIRE_conflict);
    release(0);
    RH_EQ_INT(handle(owed_ask(0, "bob", "y", "i1"))->err, RH_WIRE_NONE);
    RH_EQ_U64(answered->seq, 1);
    end_all();
}

RH_TEST(room_promise, an_id_is_taken_again_after_a_restart)
{
    struct rh_event ev = {.kind = RH_EV_OWED_ROOM, .from = RECORD, .b = 5};
    struct rh_ask *ask = NULL;

    three();
    ask = owed_ask(HOME, "ann", "x", "i1");
    ev.msg = recorded[recorded_count++] = ask->msg;
    ask->msg->seq = 44;
    ask->msg->frame_at = ask->msg->seq_at;
    ask->msg->id_hash = rh_hash(&env.hash_key, "i1", 2);
    ask->msg->shares = rh_mem_zalloc(sizeof(*ask->msg->shares));
    rh_msg_hold_any(ask->msg, 1);
    ask->msg = NULL;
    rh_ask_free(ask);
    rh_room_owed_pop(sh, &ev);
    RH_EQ_INT(handle(owed_ask(0, "bob", "y", "i1"))->err, RH_WIRE_conflict);
    RH_EQ_INT(owe("ann", "y", "i1"), RH_WIRE_NONE);
    RH_OK_IF(answered->promised && answered->seq == 44 && answered->members == 5);
    record_gets();
    release(0);
    RH_EQ_INT(owe("ann", "y", "i1"), RH_WIRE_NONE);
    RH_EQ_U64(answered->seq, 1);
    end_all();
}

RH_TEST(room_promise, a_release_that_finds_another_message_leaves_it)
{
    three();
    owe("ann", "x", "i1");
    record_gets();
    rh_msg_hold_any(recorded[0], 1);
    recorded[recorded_count++] = recorded[0];
    release(0);
    owe("ann", "y", "i1");
    release(1);
    RH_EQ_U64(rh_map_count(&sh->taken), 1);
    end_all();
}

/* ---- what waits, and what fails ---- */

RH_TEST(room_promise, it_waits_while_the_way_to_the_record_thread_is_full)
{
    struct rh_event ev;

    three();
    for (unsigned i = 0; i < RH_SPILL_EVENTS + 2 * RH_RING_SLOTS; i++) {
        ev = (struct rh_event){.kind = RH_EV_DISARM};
        RH_EQ_INT(rh_mesh_tell(sh->mesh, RECORD, &ev), RH_OK);
    }
    RH_OK_IF(!rh_mesh_has_room(sh->mesh, RECORD));
    RH_OK_IF(!handle(owed_ask(HOME, "ann", "x", "i1")));
    RH_OK_IF(!handle(publish_ask(HOME, "ann", "r", "behind")));
    rh_publish_resume(sh);
    RH_EQ_U64(room_of("r")->seq, 0);
    others_forget();
    rh_publish_resume(sh);
    RH_EQ_U64(room_of("r")->seq, 2);
    end_all();
}

static void owe_without(void *arg)
{
    unsigned *runs = arg;
    uint64_t left = rh_mem_fail_left();

    rh_mem_fail_nth(0);
    three();
    cfg->rooms_history_size = 0;
    rh_mem_fail_nth(left);
    if (owe("ann", "x", "i1") == RH_WIRE_NONE) {
        rh_mem_fail_nth(0);
        RH_EQ_STR(record_gets(), "accepted 1:x for 3 of 1, shares bob@0 carl@2");
    } else {
        RH_EQ_INT(answered->err, RH_WIRE_unavailable);
        RH_EQ_U64(room_of("r")->seq, 0);
        RH_EQ_U64(rh_map_count(&sh->taken), 0);
        RH_EQ_STR(record_gets(), "");
        ++*runs;
    }
    rh_mem_fail_nth(0);
    end_all();
}

RH_TEST(room_promise, without_memory_it_has_no_number_and_its_id_is_free)
{
    unsigned runs = 0;

    for (unsigned nth = 1; nth <= 8; nth++) {
        rh_mem_fail_nth(nth);
        owe_without(&runs);
    }
    RH_EQ_INT(runs, 2); /* the shares, the entry */
}

/* Goal    everybody who is a member is owed a message once, whoever comes and goes.
 * Method  random joins, leaves and publishes beside a table of who is in. */
RH_TEST(room_promise, shares_are_the_list_of_members)
{
    static const char *const names[] = {"ann", "bob", "carl", "dora", "emil", "fred", "gina"};
    void *members[RH_COUNT(names)] = {0};

    begin();
    for (unsigned round = 0; round < 2000; round++) {
        unsigned i = (unsigned)(rh_test_rand() % RH_COUNT(names)), owed = 0;
        char id[16];

        if (rh_test_rand() % 3 == 0) {
            if (members[i])
                rh_room_unsub(sh, i % SHARDS, room_of("r")->uid, members[i],
                              RH_UNSUB_END | RH_UNSUB_DETACH);
            members[i] = members[i] ? NULL : join_of(i % SHARDS, names[i], "r");
            continue;
        }
        if (!members[i])
            continue;
        snprintf(id, sizeof(id), "id%u", round);
        RH_EQ_INT(handle(owed_ask(i % SHARDS, names[i], "x", id))->err, RH_WIRE_NONE);
        read_book();
        record_gets();
        for (uint32_t k = 0; k < recorded[0]->shares->count; k++) {
            const struct rh_share *s = &recorded[0]->shares->at[k];
            unsigned who = 0;

            while (strncmp(names[who], rh_share_name(recorded[0]->shares, k), s->name_len) != 0)
                who++;
            RH_OK_IF(who != i && members[who] && s->shard == who % SHARDS);
            RH_EQ_U64(s->hash, hash_of(names[who]));
            owed |= 1u << who;
        }
        for (unsigned who = 0; who < RH_COUNT(names); who++)
            RH_EQ_INT(owed >> who & 1, members[who] && who != i);
        release(0);
        recorded_count = 0;
        others_forget();
        for (unsigned k = 0; k < SHARDS; k++) {
            room_of("r")->shards[k].done = room_of("r")->shards[k].sent;
            room_of("r")->shards[k].done_bytes = room_of("r")->shards[k].sent_bytes;
        }
        read_book();
    }
    RH_EQ_U64(rh_map_count(&sh->taken), 0);
    end_all();
}
