/* tests/store/test_record.c - what the record thread tells, when, and in which order. */
#include "core/err.h"
#include "tests/store/disk.h"
#include "tests/store/record_rig.h"

static const char *const crowd[] = {"ann", "bob", "cid", "dan", "eve"};

static struct rh_msg *direct(const char *id)
{
    struct rig_spec spec = {.kind = RH_MSG_DIRECT, .from = "sam", .to = "tom", .id = id};

    return rig_msg(&spec);
}

static struct rh_msg *of_room(const char *id, unsigned shares)
{
    struct rig_spec spec = {.kind = RH_MSG_ROOM,
                            .from = "sam",
                            .to = "lobby",
                            .id = id,
                            .shares = crowd,
                            .share_count = shares};

    return rig_msg(&spec);
}

static void begin(void)
{
    rig_init();
    rig_open();
    rig_forget();
}

static const struct rig_accept asked = {.asker = 1, .stored = true, .attempt = 1, .cookie = 40};

/* Accepted, and durable. */
static void accept_now(struct rh_msg *msg)
{
    rig_accept(msg, &asked);
    rig_settle();
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 1);
    rig_forget();
}

RH_TEST(record, the_asker_is_answered_behind_the_sync_and_not_before)
{
    struct rh_msg *msg;
    struct rh_event *ev;

    begin();
    msg = direct("m1");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &asked);
    rig_settle();
    RH_EQ_INT(rig.heard_count, 0);
    disk_hang(0);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED");
    ev = rig_find(RH_EV_COMMITTED, 0);
    RH_EQ_INT(ev->from, 1);
    RH_EQ_U64((uintptr_t)ev->cookie, 40);
    RH_EQ_U64(ev->conn, 41);
    RH_EQ_U64(ev->a, RH_WIRE_NONE);
    RH_EQ_U64(ev->b & RH_ACCEPT_STORED, RH_ACCEPT_STORED);
    RH_EQ_U64(ev->c, msg->seq);
    RH_EQ_U64(ev->d, 1);
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), 1);
    RH_EQ_U64(rig_stat(RH_STAT_store_backlog_bytes) > 0, 1);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, one_commit_serves_what_gathered_during_the_last)
{
    struct rh_msg *msg[20];
    uint64_t before;

    begin();
    before = rig_stat(RH_STAT_journal_commits);
    disk_hang(1u << DISK_SYNC);
    for (int i = 0; i < 20; i++) {
        msg[i] = direct("m");
        rig_accept(msg[i], &asked);
        rig_turns(3);
    }
    disk_hang(0);
    rig_settle();
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 20);
    RH_EQ_U64(rig_stat(RH_STAT_journal_commits) - before, 2);
    for (int i = 0; i < 20; i++)
        rh_msg_drop_any(msg[i]);
    rig_fini();
}

RH_TEST(record, the_sender_hears_the_end_behind_its_commit)
{
    struct rh_msg *msg;
    struct rh_event *ev;

    begin();
    msg = direct("m1");
    accept_now(msg);
    disk_hang(1u << DISK_SYNC);
    rig_settled(msg, 0, RH_STATE_failed, RH_REASON_queue_full);
    rig_settle();
    RH_EQ_INT(rig.heard_count, 0);
    disk_hang(0);
    rig_settle();
    RH_EQ_STR(rig_story(), "STATUS");
    ev = rig_find(RH_EV_STATUS, 0);
    RH_EQ_INT(ev->from, rig_shard_of("sam"));
    RH_OK_IF(ev->msg == msg);
    RH_EQ_U64(ev->a, RH_STATE_failed | RH_REASON_queue_full << 8);
    RH_EQ_U64(ev->b, 1ull << 32);
    RH_EQ_INT(ev->flags, 1);
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), 0);
    RH_EQ_U64(rig_stat(RH_STAT_store_backlog_bytes), 0);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, plain_messages_and_those_of_no_user_have_no_status)
{
    struct rig_spec plain = {.from = "sam", .to = "tom", .id = "p", .plain = true};
    struct rig_spec system = {.from = "sam", .to = "tom", .id = "s", .system = true};
    struct rh_msg *msg[2];

    begin();
    msg[0] = rig_msg(&plain);
    msg[1] = rig_msg(&system);
    for (int i = 0; i < 2; i++) {
        accept_now(msg[i]);
        rig_progress(msg[i], RH_STATE_retrying);
        rig_settled(msg[i], 0, RH_STATE_expired, RH_REASON_expired);
    }
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    rh_msg_drop_any(msg[0]);
    rh_msg_drop_any(msg[1]);
    rig_fini();
}

RH_TEST(record, what_ends_while_a_commit_runs_is_folded)
{
    struct rh_msg *first, *msg;

    begin();
    first = direct("first");
    msg = direct("m1");
    disk_hang(1u << DISK_SYNC);
    rig_accept(first, &asked);
    rig_turns(5);
    rig_accept(msg, &asked);
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED STATUS"); /* of m1: nothing of it is owed any more */
    RH_OK_IF(rig_find(RH_EV_STATUS, 0)->msg == msg);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->b, 1ull << 32 | 1);
    RH_EQ_U64(rig_stat(RH_STAT_journal_folded), 1);
    disk_hang(0);
    rig_settle();
    rig_crash(1);
    RH_EQ_INT(rig_count(RH_EV_OWED), 1);
    RH_OK_IF(rig_is(rig_find(RH_EV_OWED, 0)->msg, "first"));
    rh_msg_drop_any(first);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, of_what_is_folded_the_given_id_becomes_durable_before_the_answer)
{
    const struct rig_accept with_id = {.asker = 1, .dedup_ms = 60000, .stored = true};
    struct rh_msg *msg;
    struct rh_remembered *id;

    begin();
    msg = direct("m1");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &with_id);
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    disk_hang(0);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED STATUS");
    RH_EQ_U64(rig_stat(RH_STAT_journal_folded), 1);
    rig_crash(1);
    RH_EQ_INT(rig_count(RH_EV_REMEMBER), 1);
    RH_EQ_INT(rig_count(RH_EV_OWED), 0);
    RH_EQ_INT(rig_find(RH_EV_REMEMBER, 0)->from, rig_shard_of("sam"));
    id = rig_find(RH_EV_REMEMBER, 0)->msg;
    RH_EQ_U64(id->until_ms, BEGAN_MS + rig_ns / 1000000 + 60000);
    RH_EQ_U64(id->seq, msg->seq);
    RH_EQ_INT(id->recipients, 1);
    RH_EQ_INT(id->event, RH_MSG_DIRECT);
    RH_EQ_INT(id->flags, RH_ACCEPT_STORED);
    RH_EQ_INT(id->from_len + id->to_len + id->id_len, 8);
    RH_EQ_MEM(id->bytes, "samtomm1", 8);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, progress_is_told_between_the_answer_and_the_end)
{
    struct rh_msg *msg, *done;

    begin();
    msg = direct("m1");
    done = direct("m2");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &asked);
    rig_progress(msg, RH_STATE_sending);
    rig_turns(5);
    rig_progress(msg, RH_STATE_retrying); /* its commit is under way */
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_turns(3);
    disk_hang(0);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED STATUS STATUS STATUS");
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->a, RH_STATE_sending);
    RH_EQ_INT(rig_find(RH_EV_STATUS, 0)->flags, 0);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 1)->a, RH_STATE_retrying);
    RH_EQ_INT(rig_find(RH_EV_STATUS, 2)->flags, 1);
    rig_forget();
    accept_now(done);
    disk_hang(1u << DISK_SYNC);
    rig_progress(done, RH_STATE_user_offline);
    rig_turn();
    RH_EQ_STR(rig_story(), "STATUS"); /* nothing to wait for */
    disk_hang(0);
    rh_msg_drop_any(msg);
    rh_msg_drop_any(done);
    rig_fini();
}

RH_TEST(record, a_second_asker_hears_the_first_one_s_outcome)
{
    struct rh_msg *msg;

    begin();
    msg = direct("m1");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &asked);
    rig_await(msg, 0, 50, 0); /* before it is put */
    rig_turns(3);
    rig_await(msg, 0, 60, 0); /* while its commit runs */
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    disk_hang(0);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED COMMITTED COMMITTED");
    rig_forget();
    disk_hang(1u << DISK_SYNC);
    rig_await(msg, 0, 70, 0); /* durable */
    rig_turn();
    RH_EQ_STR(rig_story(), "COMMITTED");
    RH_EQ_U64((uintptr_t)rig_find(RH_EV_COMMITTED, 0)->cookie, 70);
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 0)->b & RH_ACCEPT_STORED, RH_ACCEPT_STORED);
    disk_hang(0);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, who_asks_for_a_room_s_message_that_has_ended_is_answered)
{
    struct rh_msg *msg;

    begin();
    msg = of_room("r1", 1);
    accept_now(msg);
    disk_hang(1u << DISK_SYNC);
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_turns(3);
    rig_await(msg, 0, 70, 9);
    rig_settle();
    disk_hang(0);
    rig_settle();
    RH_EQ_INT(rig_count(RH_EV_STATUS) + rig_count(RH_EV_RELEASED), 2);
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 0)->d, 9);
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 0)->c, msg->seq);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, a_room_s_message_has_one_status_when_its_last_share_has_ended)
{
    const struct rig_accept room = {.asker = 0, .recipients = 6};
    struct rh_msg *msg;
    struct rh_event *ev;

    begin();
    msg = of_room("r1", 5);
    rig_accept(msg, &room);
    rig_settle();
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 0)->d, 6);
    rig_forget();
    rig_settled(msg, 3, RH_STATE_success, 0);
    rig_settled(msg, 1, RH_STATE_failed, RH_REASON_queue_full);
    rig_settled(msg, 1, RH_STATE_success, 0); /* nonsense, and harmless */
    rig_settled(msg, 0, RH_STATE_ack_timeout, RH_REASON_ack_timeout);
    rig_settled(msg, 4, RH_STATE_success, 0);
    rig_progress(msg, RH_STATE_sending);
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    rig_settled(msg, 2, RH_STATE_success, 0);
    rig_settle();
    RH_EQ_STR(rig_story(), rig_shard_of("sam") == rig_shard_of("lobby") ? "STATUS RELEASED"
                           : rig_shard_of("sam") == 0                   ? "STATUS RELEASED"
                                                                        : "RELEASED STATUS");
    ev = rig_find(RH_EV_STATUS, 0);
    if (ev->a == (RH_STATE_ack_timeout | RH_REASON_ack_timeout << 8))
        RH_OK_IF(rig_shard_of("ann") != rig_shard_of("bob")); /* the other ring came first */
    else
        RH_EQ_U64(ev->a, RH_STATE_failed | RH_REASON_queue_full << 8);
    RH_EQ_U64(ev->b, 5ull << 32 | 3);
    RH_EQ_INT(rig_find(RH_EV_RELEASED, 0)->from, rig_shard_of("lobby"));
    RH_OK_IF(!msg->entry);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, shares_may_end_before_their_message_was_accepted)
{
    struct rh_msg *msg, *all;

    begin();
    msg = of_room("r1", 3);
    all = of_room("r2", 2);
    rig_settled(msg, 1, RH_STATE_success, 0);
    rig_attempt(msg, 2, 4);
    rig_settled(all, 0, RH_STATE_success, 0);
    rig_settled(all, 1, RH_STATE_success, 0);
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    rig_accept(all, &asked);
    rig_settle();
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 1);
    RH_EQ_INT(rig_count(RH_EV_STATUS), 1);
    RH_EQ_INT(rig_count(RH_EV_RELEASED), 1);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->a, RH_STATE_success);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->b, 2ull << 32 | 2);
    rig_forget();
    accept_now(msg);
    rig_crash(1);
    RH_EQ_INT(rig_count(RH_EV_OWED), 2);
    RH_EQ_INT(rig_count(RH_EV_OWED_ROOM), 1);
    for (unsigned i = 0; i < 2; i++) {
        struct rh_event *ev = rig_find(RH_EV_OWED, i);

        RH_EQ_U64(ev->a, ev->c == 2 ? 4 : 1);
        RH_OK_IF(ev->c == 0 || ev->c == 2);
        RH_EQ_INT(ev->from, rig_shard_of(crowd[ev->c]));
    }
    rh_msg_drop_any(msg);
    rh_msg_drop_any(all);
    rig_fini();
}

RH_TEST(record, a_message_that_nobody_is_owed_succeeds_at_once)
{
    struct rh_msg *msg;

    begin();
    msg = of_room("r1", 0);
    rig_accept(msg, &asked);
    rig_settle();
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 1);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->a, RH_STATE_success);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->b, 0);
    RH_EQ_INT(rig_count(RH_EV_RELEASED), 1);
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), 0);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, drain_is_answered_when_all_is_durable_and_told)
{
    struct rh_msg *msg;

    begin();
    msg = direct("m1");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &asked);
    rig_control(RH_EV_DRAIN, 7, NULL);
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    disk_hang(0);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED QUIET");
    RH_EQ_U64(rig_find(RH_EV_QUIET, 0)->a, 7);
    RH_EQ_INT(rig_find(RH_EV_QUIET, 0)->from, CONTROL);
    rig_forget();
    rig_control(RH_EV_DRAIN, 8, NULL);
    rig_settle();
    RH_EQ_STR(rig_story(), "QUIET");
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, stop_ends_it_behind_a_last_commit)
{
    struct rh_msg *msg;

    begin();
    msg = direct("m1");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &asked);
    rig_control(RH_EV_STOP, 0, NULL);
    rig_settle();
    RH_OK_IF(!rig.stopped);
    disk_hang(0);
    rig_settle();
    RH_OK_IF(rig.stopped);
    RH_EQ_STR(rig_story(), "COMMITTED");
    rig_crash(3);
    RH_EQ_INT(rig_count(RH_EV_OWED), 1);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record, a_new_configuration_is_used_from_the_next_pass_on)
{
    struct rh_config *cfg;
    struct rh_snapshot *next;

    begin();
    RH_EQ_INT(rh_config_copy(rig.cfg, &cfg), RH_OK);
    next = rh_snapshot_make(cfg);
    rh_snapshot_hold_any(next);
    rig_control(RH_EV_CONFIG, 0, next);
    rig_turns(2);
    RH_OK_IF(rig.r->snapshot == next);
    rh_snapshot_drop_any(next);
    rig_fini();
}

RH_TEST(record, in_memory_it_answers_in_the_same_pass_and_touches_no_disk)
{
    const struct rig_accept with_id = {.asker = 1, .dedup_ms = 60000};
    struct rh_msg *msg, *folded, *room;
    const char *names[4];

    rig_init();
    rig_set("store.durability", "memory");
    rig_open();
    RH_EQ_STR(rig_story(), "LOADED LOADED");
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    rig_forget();
    msg = direct("m1");
    folded = direct("m2");
    room = of_room("r1", 3);
    rig_accept(msg, &asked);
    rig_turn();
    RH_EQ_STR(rig_story(), "COMMITTED");
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), 1);
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_turn();
    RH_EQ_STR(rig_story(), "COMMITTED STATUS");
    rig_forget();
    rig_accept(folded, &with_id);
    rig_settled(folded, 0, RH_STATE_success, 0);
    rig_accept(room, &asked);
    rig_settled(room, 0, RH_STATE_success, 0);
    rig_turn();
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 2);
    RH_EQ_INT(rig_count(RH_EV_STATUS), 1);
    rig_await(room, 1, 9, 3);
    rig_turn();
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 3);
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), 1);
    RH_EQ_INT(disk_names(names, 4), 0);
    rh_msg_drop_any(msg);
    rh_msg_drop_any(folded);
    rh_msg_drop_any(room);
    rig_fini();
}

/* Each commit takes what has gathered, though each pass also puts changes of older ones. */
RH_TEST(record, a_message_does_not_wait_while_others_change)
{
    struct rig_spec spec = {.from = "sam", .to = "tom", .id = "old"};
    struct rh_msg *old, *fresh;

    rig_init();
    rig_open();
    old = rig_msg(&spec);
    rig_accept(old, &(struct rig_accept){.unasked = true});
    rig_settle();
    rig_forget();
    spec.id = "fresh";
    fresh = rig_msg(&spec);
    for (unsigned i = 0; i < 40; i++) {
        rig_attempt(old, 0, i + 2);
        if (i == 20)
            rig_accept(fresh, &(struct rig_accept){.asker = 1});
        rig_turn();
    }
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 1);
    rh_msg_drop_any(old);
    rh_msg_drop_any(fresh);
    rig_fini();
}
