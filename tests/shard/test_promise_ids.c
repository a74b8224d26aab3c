/* Ids that are given again: the first outcome, whenever it comes, and no second delivery; what is
 * remembered, for how long, and across a restart. */
#include "tests/shard/promise_rig.h"

RH_TEST(promise_ids, a_repetition_gets_the_first_outcome)
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
RH_TEST(promise_ids, outcomes_of_rooms_and_broadcasts_are_kept)
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
RH_TEST(promise_ids, a_repetition_waits_while_the_first_is_pending)
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
RH_TEST(promise_ids, after_an_error_it_is_tried_again)
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

RH_TEST(promise_ids, an_id_is_forgotten_after_the_window)
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

RH_TEST(promise_ids, the_newest_ids_are_kept)
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
RH_TEST(promise_ids, dedup_may_be_off_or_be_switched_off)
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
RH_TEST(promise_ids, ids_are_known_across_a_restart)
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

RH_TEST(promise_ids, whatever_the_order_each_is_answered_once)
{
    for (unsigned run = 0; run < 300; run++)
        one_run();
}
