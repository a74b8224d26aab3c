/* Direct messages that find no room under drop_newest: they wait, are tried on their schedule, go in
 * order, and are told as lost in the end. */
#include "shard/promise.h"
#include "tests/shard/conn_rig.h"

#define BOUND 8

/* Each connection has eight room messages under way that the peer does not take. */
static void stall(unsigned conns)
{
    rig_begin(conns);
    rig.cfg->limits_slow_consumer = RH_SLOW_NEWEST;
    for (unsigned i = 0; i < BOUND * conns; i++)
        RH_EQ_INT(rig_push(i / BOUND, LEDGER_ROOM, false, 0), RH_OK);
    rig_pass();
}

/* A direct message is sent to the user; its number goes on, whoever's book it is in. */
static void send_direct(bool high)
{
    struct rh_msg *msg = ledger_make(&rig.led[0], LEDGER_DIRECT, high, 0);

    if (!msg)
        return;
    msg->seq_at = msg->to_at + 10; /* where the digits do no harm */
    rh_route_send(rig.sh, NULL, rig.sh->tid, msg, &(struct rh_request){RH_ID_SEND});
    ledger_pushed(&rig.led[0], LEDGER_DIRECT, high);
}

/* What came on connection `conn` (taken in all), as its messages' numbers. */
static const char *directs(unsigned conn)
{
    static char text[8192];
    const char *at;

    text[0] = '\0';
    at = rig_take_all(conn);
    while ((at = strpbrk(at, "nh{")) != NULL) {
        if (*at == '{') {
            strcat(text, "lost ");
            at = strchr(at, '}') + 1;
            at = strchr(at, '}');
        } else if (at[1] == '0') {
            snprintf(text + strlen(text), 32, "%u ", (unsigned)atoi(at + 3));
        }
        at++;
    }
    return text;
}

RH_TEST(retry, with_room_nothing_waits)
{
    rig_begin(1);
    rig.cfg->limits_slow_consumer = RH_SLOW_NEWEST;
    send_direct(false);
    RH_OK_IF(!rig.more.retry);
    RH_EQ_STR(directs(0), "1 ");
    RH_EQ_U64(rig_stat(RH_STAT_messages_sent), 1);
    rig_end();
}

RH_TEST(retry, a_message_is_tried_on_its_schedule_and_then_told_as_lost)
{
    stall(1);
    send_direct(false);
    RH_EQ_U64(rig_stat(RH_STAT_messages_sent), 1); /* the sender is answered */
    RH_EQ_U64(rig_stat(RH_STAT_retry_messages), 1);
    rig_sleep(99);
    RH_EQ_U64(rig_stat(RH_STAT_retries_queue_full), 0);
    rig_sleep(1);
    RH_EQ_U64(rig_stat(RH_STAT_retries_queue_full), 1);
    rig_sleep(199);
    RH_EQ_U64(rig_stat(RH_STAT_retries_queue_full), 1);
    rig_sleep(1);
    RH_EQ_U64(rig_stat(RH_STAT_retries_queue_full), 2);
    rig_sleep(399);
    RH_OK_IF(rig.more.retry);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 0);
    rig_sleep(1);
    RH_OK_IF(!rig.more.retry);
    RH_EQ_U64(rig_stat(RH_STAT_retries_queue_full), 3);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), 1);
    RH_EQ_U64(rig_stat(RH_STAT_failures_queue_full), 1);
    rig_take(0);
    RH_EQ_STR(directs(0), "lost ");
    rig_end();
}

RH_TEST(retry, a_wait_is_never_longer_than_the_longest)
{
    stall(1);
    rig.cfg->retry_max_delay_ms = 150;
    rig.cfg->retry_max_retries = 5;
    send_direct(false);
    rig_sleep(100 + 4 * 150 - 1);
    RH_EQ_U64(rig_stat(RH_STAT_retries_queue_full), 4);
    rig_sleep(1);
    RH_OK_IF(!rig.more.retry);
    rig_end();
}

RH_TEST(retry, those_behind_follow_the_first_one_at_once)
{
    stall(1);
    send_direct(false);
    rig_sleep(60);
    send_direct(true);
    send_direct(false);
    rig_take(0); /* room now, but the schedule says when */
    RH_EQ_STR(directs(0), "");
    send_direct(false); /* and order that it waits, too */
    RH_EQ_U64(rig_stat(RH_STAT_retry_messages), 4);
    rig_sleep(39);
    RH_EQ_STR(directs(0), "");
    rig_sleep(1);
    RH_OK_IF(!rig.more.retry);
    RH_EQ_STR(directs(0), "2 1 3 4 "); /* the high one overtakes in the queue, as always */
    RH_EQ_U64(rig_stat(RH_STAT_retries_queue_full), 1);
    rig_end();
}

RH_TEST(retry, each_has_dates_of_its_own)
{
    stall(1);
    send_direct(false);
    rig_sleep(50);
    send_direct(false);
    rig_sleep(60);
    rig_take(0);
    rig_sleep(39);
    RH_OK_IF(rig.more.retry);
    rig_sleep(1); /* the second one's first try is the first one's chance */
    RH_EQ_STR(directs(0), "1 2 ");
    rig_end();
}

RH_TEST(retry, as_many_follow_as_there_is_room)
{
    stall(1);
    for (unsigned i = 0; i < 12; i++)
        send_direct(false);
    rig_take(0);
    rig_push(0, LEDGER_ROOM, false, 0);
    rig_pass(); /* one is under way: seven may wait */
    rig_sleep(100);
    RH_EQ_U64(rig_stat(RH_STAT_retry_messages), 5);
    rig_take(0);
    RH_EQ_STR(directs(0), "1 2 3 4 5 6 7 ");
    rig_sleep(199);
    RH_EQ_STR(directs(0), "");
    rig_sleep(1);
    RH_EQ_STR(directs(0), "8 9 10 11 12 ");
    rig_end();
}

RH_TEST(retry, a_device_with_room_is_enough)
{
    stall(2);
    rig_take(1);
    send_direct(false);
    RH_OK_IF(!rig.more.retry);
    RH_EQ_STR(directs(1), "1 ");
    rig_take(0);
    RH_EQ_STR(directs(0), "lost "); /* the other one is told */
    rig_end();
}

RH_TEST(retry, a_user_has_a_bound_of_waiting_ones)
{
    stall(1);
    for (unsigned i = 0; i < RH_RETRY_MAX + 3; i++)
        send_direct(false);
    RH_EQ_U64(rig_stat(RH_STAT_retry_messages), RH_RETRY_MAX);
    RH_EQ_U64(rig_stat(RH_STAT_messages_sent), RH_RETRY_MAX);
    RH_EQ_U64(rig_stat(RH_STAT_failures_queue_full), 3);
    rig_sleep(700);
    RH_EQ_U64(rig_stat(RH_STAT_retry_messages), 0);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_slow_consumer), RH_RETRY_MAX);
    RH_EQ_INT(rig.conns[0]->out->lost, 1);
    rig_end();
}

RH_TEST(retry, the_last_connection_takes_them_with_it)
{
    stall(2);
    send_direct(false);
    send_direct(false);
    rh_conn_cut(rig.sh, rig.conns[0], 1006);
    RH_EQ_U64(rig_stat(RH_STAT_retry_messages), 2);
    rh_conn_close(rig.sh, rig.conns[1], 1001, "");
    RH_OK_IF(!rig.more.retry);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_user_offline), 2);
    RH_EQ_U64(rig_stat(RH_STAT_failures_user_offline), 2);
    rig_sleep(1000);
    rig_end();
}

RH_TEST(retry, without_retries_a_message_is_refused)
{
    stall(1);
    rig.cfg->retry_max_retries = 0;
    send_direct(false);
    RH_OK_IF(!rig.more.retry);
    RH_EQ_U64(rig_stat(RH_STAT_messages_sent), 0);
    RH_EQ_U64(rig_stat(RH_STAT_failures_queue_full), 1);
    rig_take(0);
    RH_EQ_STR(directs(0), "lost ");
    rig_end();
}

RH_TEST(retry, those_who_wait_keep_their_order_when_the_policy_changes)
{
    stall(1);
    send_direct(false);
    rig.cfg->limits_slow_consumer = RH_SLOW_OLDEST;
    send_direct(false);
    rig_take(0);
    rig_sleep(100);
    RH_EQ_STR(directs(0), "1 2 ");
    rig_end();
}

static void retry_with_failures(void *arg)
{
    bool goes = *(bool *)arg;

    rig_begin(2);
    rig.cfg->limits_slow_consumer = RH_SLOW_NEWEST;
    for (unsigned i = 0; i < 2 * BOUND; i++)
        rig_push(i % 2, LEDGER_ROOM, false, 0);
    rig_pass();
    for (unsigned i = 0; i < 20; i++)
        send_direct(i % 3 == 0);
    if (goes) {
        rig_take(0);
        rig_take(1);
    }
    rig_sleep(800);
    rig_take(0);
    rig_take(1);
    rig_sleep(800);
    RH_OK_IF(!rig.more.retry);
    rig_end();
}

RH_TEST(retry, failing_memory_leaves_nothing_behind)
{
    bool goes = false;

    rh_test_fail_each_alloc(retry_with_failures, &goes);
    goes = true;
    rh_test_fail_each_alloc(retry_with_failures, &goes);
}
