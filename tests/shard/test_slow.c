/* What happens to a connection that does not take what it is sent: each policy, at its bound of eight
 * messages. "Stalled": eight are under way, and the peer takes nothing. */
#include "tests/shard/conn_rig.h"

#define BOUND 8

enum { ROOM = LEDGER_ROOM, OTHER_ROOM };

/* A connection with eight messages of a room under way, not taken in the pass in which they left. */
static void stall(enum rh_slow_consumer policy)
{
    rig_begin(1);
    rig.cfg->limits_slow_consumer = policy;
    for (unsigned i = 0; i < BOUND; i++)
        RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_OK);
    rig_pass();
    RH_OK_IF(rh_conn_full(rig.sh, rig.conns[0]));
}

/* It takes what is under way, then all the rest (`text`, if given), and the book is right. */
static void recover(const char *text)
{
    const char *all;

    rig_take(0);
    all = rig_take_all(0);
    if (text)
        RH_EQ_STR(all, text);
    RH_EQ_INT(rig.conns[0]->state, RH_CONN_OPEN);
    ledger_check(&rig.led[0]);
    rig_end();
}

#define LOST(data)                                                                                 \
    "{\"type\":\"notify\",\"event\":\"messages.lost\",\"data\":{" data                             \
    "},\"timestamp\":1700000000000}"

RH_TEST(slow, disconnect_closes_and_lets_the_close_frame_through)
{
    stall(RH_SLOW_DISCONNECT);
    RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_EFULL);
    RH_EQ_INT(rig.settled, 1); /* before anything is thrown away */
    RH_EQ_INT(rig.left, 1);
    RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_ECLOSED);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 1);
    RH_EQ_U64(rig_stat(RH_STAT_disconnects_4408), 1);
    rig_take(0);
    rig_take_all(0);
    RH_EQ_INT(rig.closed[0], 4408);
    RH_EQ_INT(rig.settled, 2); /* and when it had sent everything */
    rig_end();
}

RH_TEST(slow, what_waits_is_dropped_with_the_connection)
{
    rig_begin(1);
    for (unsigned i = 0; i < 4; i++)
        RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_OK);
    rig_pass();
    for (unsigned i = 0; i < 4; i++)
        RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_OK);
    RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_EFULL);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 5);
    rig_take(0);
    RH_EQ_STR(rig_take_all(0), "");
    RH_EQ_INT(rig.closed[0], 4408);
    rig_end();
}

RH_TEST(slow, an_empty_queue_takes_any_one_message)
{
    stall(RH_SLOW_OLDEST);
    for (unsigned i = 0; i < 5; i++) {
        RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_OK);
        RH_EQ_INT(rig.conns[0]->out->messages, BOUND + 1);
    }
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 4);
    recover(LOST("\"room\":\"room2\",\"epoch\":\"0000000200000002\",\"from_seq\":9,\"to_seq\":12,"
                 "\"count\":4") "n2:00000013;");
}

RH_TEST(slow, drop_oldest_keeps_the_newest_ones)
{
    stall(RH_SLOW_OLDEST);
    rig_take(0);
    for (unsigned i = 0; i < 2; i++)
        rig_push(0, LEDGER_DIRECT, false, 0);
    rig_pass(); /* two fly, six may wait */
    for (unsigned i = 0; i < 9; i++)
        RH_EQ_INT(rig_push(0, LEDGER_DIRECT, false, 0), RH_OK);
    recover(LOST("\"from_seq\":3,\"to_seq\":5,\"count\":3") "n0:00000006;n0:00000007;n0:00000008;"
                                                            "n0:00000009;n0:00000010;n0:00000011;");
}

RH_TEST(slow, drop_oldest_drops_the_new_one_behind_frames_of_its_own)
{
    stall(RH_SLOW_OLDEST);
    rig_own(0, 1);
    RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_EFULL);
    RH_EQ_INT(rig_push(0, LEDGER_CAST, false, 0), RH_EFULL);
    RH_EQ_INT(rig_push(0, LEDGER_CAST, false, 0), RH_EFULL);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 3);
    recover("o0:00000001;" LOST("\"room\":\"room2\",\"epoch\":\"0000000200000002\",\"from_seq\":9,"
                                "\"to_seq\":9,\"count\":1") LOST("\"broadcast\":true,\"count\":2"));
}

RH_TEST(slow, drop_newest_keeps_the_oldest_ones)
{
    stall(RH_SLOW_NEWEST);
    rig_take(0);
    for (unsigned i = 0; i < 2; i++)
        rig_push(0, ROOM, false, 0);
    rig_pass();
    for (unsigned i = 0; i < 9; i++)
        RH_EQ_INT(rig_push(0, ROOM, false, 0), i < 6 ? RH_OK : RH_EFULL);
    rig_take(0);
    RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_OK); /* behind the loss */
    recover(NULL);
}

RH_TEST(slow, conflate_keeps_the_newest_of_each_key)
{
    stall(RH_SLOW_CONFLATE);
    rig_take(0);
    rig_push(0, ROOM, false, 0);
    rig_pass();
    for (unsigned i = 0; i < 7; i++) /* up to the bound nothing is conflated */
        RH_EQ_INT(rig_push(0, ROOM, false, 1 + i % 2), RH_OK);
    for (unsigned i = 0; i < 2; i++)
        RH_EQ_INT(rig_push(0, ROOM, false, 1), RH_OK);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_conflated), 4);
    for (unsigned i = 0; i < 100; i++)
        RH_EQ_INT(rig_push(0, i % 3 ? ROOM : OTHER_ROOM, false, 1 + i % 5), RH_OK);
    RH_EQ_INT(rig.conns[0]->out->messages <= BOUND, 1);
    recover(NULL);
}

RH_TEST(slow, conflate_is_drop_oldest_without_a_key)
{
    stall(RH_SLOW_CONFLATE);
    rig_push(0, ROOM, false, 0);
    rig_push(0, ROOM, false, 0);
    rig_push(0, LEDGER_DIRECT, false, 0);
    rig_push(0, ROOM, false, 3); /* the first with this key */
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_conflated), 0);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 3);
    recover(NULL);
}

RH_TEST(slow, notices_and_missed_ones_are_never_dropped)
{
    static const enum rh_slow_consumer policies[] = {RH_SLOW_OLDEST, RH_SLOW_NEWEST,
                                                     RH_SLOW_CONFLATE};

    for (unsigned p = 0; p < RH_COUNT(policies); p++) {
        stall(policies[p]);
        for (unsigned i = 0; i < 20; i++) {
            RH_EQ_INT(rig_other(0, i, false), RH_OK);
            RH_EQ_INT(rig_other(0, i, true), RH_OK);
        }
        RH_EQ_INT(rig.conns[0]->out->missed, 20);
        RH_EQ_INT(rig_push(0, ROOM, true, 0), RH_EFULL);
        RH_OK_IF(rig_take(0));
        rig_take_all(0);
        RH_EQ_INT(rig.owns, 40);
        RH_EQ_U64(rig_stat(RH_STAT_messages_delivered), BOUND + 20); /* notices are no messages */
        ledger_check(&rig.led[0]);
        rig_end();
    }
}

RH_TEST(slow, a_notice_at_the_bound_closes_under_disconnect)
{
    stall(RH_SLOW_DISCONNECT);
    RH_EQ_INT(rig_other(0, 1, false), RH_EFULL);
    RH_EQ_INT(rig.conns[0]->state, RH_CONN_CLOSING);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 0);
    rig_end();
}

RH_TEST(slow, what_dropping_cannot_bound_is_closed)
{
    static const enum rh_slow_consumer policies[] = {RH_SLOW_OLDEST, RH_SLOW_NEWEST,
                                                     RH_SLOW_CONFLATE};

    for (unsigned p = 0; p < RH_COUNT(policies); p++) {
        unsigned i = 0;

        stall(policies[p]);
        while (!rh_conn_overfull(rig.sh, rig.conns[0]))
            rig_own(0, i++);
        RH_OK_IF(i > RH_PASS_MESSAGES);
        RH_EQ_INT(rig_push(0, ROOM, false, 0), RH_EFULL);
        RH_EQ_INT(rig.conns[0]->state, RH_CONN_CLOSING);
        RH_EQ_U64(rig_stat(RH_STAT_disconnects_4408), 1);
        rig_end();
    }
}

/* Its completion may stand behind the arrival that is being looked at. */
RH_TEST(slow, a_send_of_the_pass_before_is_not_held_against_it_while_completions_are_read)
{
    rig_begin(1);
    rig.cfg->limits_slow_consumer = RH_SLOW_OLDEST;
    rig.cfg->limits_send_queue_messages = 4;
    for (unsigned i = 0; i < 3; i++)
        rig_push(0, ROOM, false, 0);
    rig_pass();
    for (unsigned i = 0; i < 3; i++)
        rig_push(0, ROOM, false, 0);
    RH_OK_IF(rh_conn_full(rig.sh, rig.conns[0]));
    rig.sh->reaping = true;
    RH_OK_IF(!rh_conn_full(rig.sh, rig.conns[0]));
    rig.sh->pass++;
    RH_OK_IF(rh_conn_full(rig.sh, rig.conns[0]));
    rig.sh->reaping = false;
    rig_take(0);
    rig_end();
}

RH_TEST(slow, what_is_parked_behind_missed_messages_counts)
{
    rig_begin(1);
    rig.cfg->limits_slow_consumer = RH_SLOW_OLDEST;
    rig.conns[0]->replaying = true;
    rig.rooms[0].parked = 5;
    RH_OK_IF(!rh_conn_full(rig.sh, rig.conns[0]));
    rig_push(0, ROOM, false, 0);
    rig_pass();
    rig_push(0, ROOM, false, 0);
    RH_OK_IF(!rh_conn_full(rig.sh, rig.conns[0]));
    rig_push(0, ROOM, false, 0);
    RH_OK_IF(rh_conn_full(rig.sh, rig.conns[0]));
    rig.rooms[0].parked_bytes = UINT32_MAX;
    rig.rooms[0].parked = 0;
    RH_OK_IF(rh_conn_full(rig.sh, rig.conns[0]));
    RH_OK_IF(rh_conn_overfull(rig.sh, rig.conns[0]));
    rig.rooms[0].parked_bytes = 0;
    RH_EQ_INT(rig.pumped, 0);
    rig_take(0);
    RH_EQ_INT(rig.pumped, 1); /* the peer has taken something */
    recover("n2:00000002;n2:00000003;");
}

RH_TEST(slow, losses_wait_until_the_peer_takes_something)
{
    stall(RH_SLOW_NEWEST);
    for (unsigned i = 0; i < 1000; i++)
        RH_EQ_INT(rig_push(0, i % 2 ? ROOM : LEDGER_DIRECT, false, 0), RH_EFULL);
    RH_EQ_INT(rig.conns[0]->out->messages, BOUND); /* markers are nothing to count */
    RH_EQ_U64(rig.sh->stock.messages, BOUND);
    recover(LOST("\"from_seq\":1,\"to_seq\":500,\"count\":500")
                LOST("\"room\":\"room2\",\"epoch\":\"0000000200000002\",\"from_seq\":9,"
                     "\"to_seq\":508,\"count\":500"));
}

RH_TEST(slow, a_loss_alone_is_told_at_once)
{
    struct rh_lost lost = {.from = 4, .to = 6, .count = 3, .kind = RH_MSG_DIRECT};

    rig_begin(1);
    rig.led[0].pushed[LEDGER_DIRECT] = 6;
    RH_EQ_INT(rh_conn_push_lost(rig.sh, rig.conns[0], &lost), RH_OK);
    RH_EQ_STR(rig_take_all(0), LOST("\"from_seq\":4,\"to_seq\":6,\"count\":3"));
    RH_OK_IF(!rig.conns[0]->out); /* given back */
    rig_end();
}

RH_TEST(slow, the_longest_name_fits_its_frame)
{
    union {
        struct rh_lost lost;
        char room[sizeof(struct rh_lost) + RH_NAME_MAX];
    } u = {.lost = {.uid = UINT64_MAX,
                    .from = UINT64_MAX - 1,
                    .to = UINT64_MAX,
                    .count = UINT64_MAX,
                    .kind = RH_MSG_ROOM,
                    .name_len = RH_NAME_MAX}};

    rig_begin(1);
    memset(u.lost.name, 1, RH_NAME_MAX); /* \u0001 each */
    RH_EQ_INT(rh_conn_push_lost(rig.sh, rig.conns[0], &u.lost), RH_OK);
    rig_pass();
    RH_OK_IF(rig.flight_len[0] > 6 * RH_NAME_MAX);
    rig_end();
}

/* ---- ends ---- */

RH_TEST(slow, a_session_is_told_whether_its_client_closed)
{
    rig_begin(2);
    rh_conn_peer_close(rig.sh, rig.conns[0], 1000);
    RH_OK_IF(rig.by_peer && rig.left == 1);
    rh_conn_close(rig.sh, rig.conns[1], 1000, "");
    RH_OK_IF(!rig.by_peer && rig.left == 2);
    rig_end();
}

RH_TEST(slow, a_session_settles_before_a_queue_is_thrown_away)
{
    rig_begin(2);
    rig_push(0, ROOM, false, 0);
    rh_conn_cut(rig.sh, rig.conns[0], 1006);
    RH_OK_IF(rig.left == 1 && rig.settled == 1 && !rig.conns[0]->session);
    rig_push(1, ROOM, false, 0);
    rh_conn_close(rig.sh, rig.conns[1], 1001, "");
    RH_OK_IF(rig.left == 2 && rig.settled == 1);
    rig_take_all(1);
    RH_OK_IF(rig.settled == 2 && !rig.conns[1]->session);
    rig_end();
}

/* ---- everything at once ---- */

/* Frames of its own or notices that are in the queue. */
static unsigned others;

static void push_one(bool tried)
{
    unsigned stream = (unsigned)(rh_test_rand() % LEDGER_STREAMS);
    const struct rh_outq *q;
    int rc = rig_push(0, stream, rh_test_rand() % 5 == 0, (unsigned)(rh_test_rand() % 4));

    RH_OK_IF(rc == RH_OK || rc == RH_EFULL);
    q = rig.conns[0]->out;
    if (tried && rh_outq_flying(q) && rc == RH_OK)
        RH_OK_IF(q->messages <= RH_MAX(BOUND, q->flying_messages + 1) + others);
}

static void step(unsigned *number)
{
    unsigned dice = (unsigned)(rh_test_rand() % 100);
    struct rh_conn *c = rig.conns[0];

    if (dice < 70) {
        push_one(rh_conn_full(rig.sh, c));
    } else if (dice < 76) {
        rig_own(0, ++*number);
        others++;
    } else if (dice < 80) {
        RH_EQ_INT(rig_other(0, ++*number, rh_test_rand() % 2), RH_OK);
        others++;
    } else if (dice < 95) {
        rig_pass();
    } else {
        unsigned before = rig.owns;

        rig_take(0);
        others -= rig.owns - before;
    }
}

/* Goal    under each policy that drops, what arrives and what is told as lost is what was pushed, in
 *         order, and the bound holds.
 * Method  random pushes, passes and takes against the ledger. */
RH_TEST(slow, nothing_is_lost_without_a_word)
{
    for (enum rh_slow_consumer policy = RH_SLOW_OLDEST; policy <= RH_SLOW_CONFLATE; policy++) {
        unsigned number = 0;

        rig_begin(1);
        others = 0;
        for (unsigned i = 0; i < 30000; i++) {
            if (i % 5000 == 0) /* a reload may change it at any time */
                rig.cfg->limits_slow_consumer =
                    i ? RH_SLOW_OLDEST + (enum rh_slow_consumer)(rh_test_rand() % 3) : policy;
            step(&number);
        }
        rig_take(0);
        rig_take_all(0);
        RH_EQ_INT(rig.owns, number);
        RH_EQ_INT(rig.conns[0]->state, RH_CONN_OPEN);
        RH_OK_IF(rig_stat(RH_STAT_messages_dropped_slow_consumer) > 1000);
        ledger_check(&rig.led[0]);
        rig_end();
    }
}

/* ---- failing memory ---- */

static void drop_with_failures(void *arg)
{
    unsigned number = 0;

    rig_begin(1);
    rig.cfg->limits_slow_consumer = *(enum rh_slow_consumer *)arg;
    for (unsigned i = 0; i < 60 && rig.conns[0]->state == RH_CONN_OPEN; i++) {
        rig_push(0, i % LEDGER_STREAMS, i % 7 == 0, i % 3);
        if (i % 8 == 0)
            rig_other(0, ++number, i % 16);
        if (i % 10 == 0)
            rig_own(0, ++number);
        if (i % 9 == 0)
            rig_pass();
        if (i % 25 == 24)
            rig_take(0);
    }
    rig_pass();
    while (rig.conns[0]->state != RH_CONN_FREE && rig_take(0))
        rig_pass();
    /* All is told, or it has ended: it never goes on with a hole. */
    if (rig.conns[0]->state == RH_CONN_OPEN) {
        RH_OK_IF(!rig.conns[0]->out && rig_stat(RH_STAT_messages_dropped_memory) == 0);
        ledger_check(&rig.led[0]);
    } else {
        RH_EQ_U64(rig_stat(RH_STAT_disconnects_1013), 1);
        RH_OK_IF(rig_stat(RH_STAT_memory_failures) >= 1);
    }
    rig_end();
}

RH_TEST(slow, a_loss_that_gets_no_memory_ends_the_connection)
{
    for (enum rh_slow_consumer policy = RH_SLOW_OLDEST; policy <= RH_SLOW_CONFLATE; policy++)
        rh_test_fail_each_alloc(drop_with_failures, &policy);
}

/* ---- a message for two devices ---- */

/* One of them has no room, so its client is told of a loss; the other finds no memory, and is closed.
 * Then the sender hears that there was no room, whichever comes first: both are told the same. */
RH_TEST(slow, without_room_here_and_without_memory_there_is_without_room)
{
    unsigned seen[2] = {0};

    for (unsigned round = 0; round < 2 * 8; round++) {
        unsigned full = round % 2, other = !full;
        struct rh_handle *h;
        int rc;

        rig_begin(2);
        rig.cfg->limits_slow_consumer = RH_SLOW_NEWEST;
        for (unsigned i = 0; i < BOUND; i++)
            RH_EQ_INT(rig_push(full, ROOM, false, 0), RH_OK);
        rig_pass();
        h = rig_handle(ledger_make(&rig.led[full], LEDGER_DIRECT, false, 0));
        rh_mem_fail_nth(1 + round / 2);
        rc = rh_route_push(rig.sh, rig.user, h);
        rh_mem_fail_nth(0);
        rh_handle_unref(&rig.sh->stock.handles, h);
        if (rig.conns[full]->state == RH_CONN_OPEN && rig.conns[other]->state != RH_CONN_OPEN) {
            RH_EQ_INT(rig.conns[full]->out->lost, 1);
            RH_EQ_INT(rc, RH_EFULL);
            seen[full]++;
        }
        rig_end();
    }
    RH_OK_IF(seen[0] && seen[1]);
}
