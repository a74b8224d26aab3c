/* Promises at the asker's shard: an answer is given once, whichever of SENT and COMMITTED comes first;
 * the gate and the bounds. */
#include "tests/shard/promise_rig.h"

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
    const size_t mine = RH_PENDING_BYTES_MAX / SHARDS;

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
