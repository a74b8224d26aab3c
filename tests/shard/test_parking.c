/* tests/shard/test_parking.c - what waits for the next bytes of a silent connection, step by step.
 *
 * That nobody notices anything on a real kernel is shown in tests/e2e/test_parking.py.
 */
#include <errno.h>

#include "tests/shard/conn_rig.h"

static struct rh_conn *c;

static void begin(void)
{
    rig_begin(1);
    c = rig.conns[0];
    rh_conn_recv(rig.sh, c);
    RH_EQ_STR(rig.waits[0], "multi");
}

/* A completion of the receive: bytes, an end or an error; `more`: it goes on. */
static void comes(int res, bool more)
{
    struct rh_cqe cqe = {.res = res, .flags = more ? RH_CQE_MORE : 0};

    rh_conn_on_recv(rig.sh, c, &cqe);
}

static void says(int bytes, bool more)
{
    rig.speaks = true;
    comes(bytes, more);
    rig.speaks = false;
}

static void park(void)
{
    rh_conn_beat(rig.sh, c); /* its handshake counts as a message */
    RH_EQ_U64(rig.cancelled, 0);
    rh_conn_beat(rig.sh, c);
    RH_EQ_U64(rig.cancelled, rh_tag(RH_OP_RECV, c));
    rig.cancelled = 0;
    comes(-ECANCELED, false);
    RH_EQ_STR(rig.waits[0], "poll");
    RH_EQ_U64(rig_stat(RH_STAT_connections_parked), 1);
    RH_EQ_INT(c->inflight, 1);
}

RH_TEST(parking, pongs_are_taken_one_by_one_and_it_stays_parked)
{
    begin();
    park();
    for (unsigned i = 0; i < 5; i++) {
        rh_conn_on_poll(rig.sh, c);
        RH_EQ_STR(rig.waits[0], "once");
        comes(6, false);
        RH_EQ_STR(rig.waits[0], "poll");
        rh_conn_beat(rig.sh, c); /* nothing new to do */
        RH_EQ_U64(rig.cancelled, 0);
        RH_EQ_INT(c->inflight, 1);
    }
    RH_EQ_U64(rig_stat(RH_STAT_connections_parked), 1);
    rig_end();
}

RH_TEST(parking, a_message_brings_the_multishot_receive_back)
{
    begin();
    park();
    rh_conn_on_poll(rig.sh, c);
    says(100, false);
    RH_EQ_STR(rig.waits[0], "multi");
    RH_EQ_U64(rig_stat(RH_STAT_connections_parked), 0);
    comes(-ECANCELED, false); /* not told to end, but a kernel may */
    RH_EQ_STR(rig.waits[0], "multi");
    rh_conn_beat(rig.sh, c); /* it spoke since the last one */
    RH_EQ_U64(rig.cancelled, 0);
    says(1, true);
    rh_conn_beat(rig.sh, c);
    RH_EQ_U64(rig.cancelled, 0);
    rh_conn_beat(rig.sh, c);
    RH_EQ_U64(rig.cancelled, rh_tag(RH_OP_RECV, c));
    rig_end();
}

RH_TEST(parking, a_message_that_crosses_the_cancellation_unparks_at_once)
{
    begin();
    rh_conn_beat(rig.sh, c);
    rh_conn_beat(rig.sh, c);
    RH_EQ_U64(rig_stat(RH_STAT_connections_parked), 1);
    says(100, true);
    RH_EQ_U64(rig_stat(RH_STAT_connections_parked), 0);
    comes(-ECANCELED, false);
    RH_EQ_STR(rig.waits[0], "multi");
    RH_EQ_INT(c->inflight, 1);
    rig_end();
}

RH_TEST(parking, without_a_buffer_it_waits_its_turn_and_polls_again)
{
    begin();
    park();
    rh_conn_on_poll(rig.sh, c);
    rig.waits[0] = "";
    comes(-ENOBUFS, false);
    RH_EQ_STR(rig.waits[0], "");
    RH_OK_IF(c->starved && c->inflight == 0);
    rh_conn_beat(rig.sh, c);
    rh_conn_rearm_starved(rig.sh);
    RH_EQ_STR(rig.waits[0], "poll");
    rig_end();
}

RH_TEST(parking, who_is_paused_or_in_the_middle_of_something_is_not_parked)
{
    begin();
    rh_conn_beat(rig.sh, c);
    rh_conn_pause(rig.sh, c, RH_PAUSE_QUEUE);
    rh_conn_beat(rig.sh, c);
    RH_EQ_U64(rig.cancelled, 0);
    rh_conn_resume(rig.sh, c, RH_PAUSE_QUEUE);
    c->message = (struct rh_block *)&rig; /* begun, not ended */
    rh_conn_beat(rig.sh, c);
    RH_EQ_U64(rig.cancelled, 0);
    c->message = NULL;
    rh_conn_beat(rig.sh, c);
    RH_OK_IF(rig.cancelled != 0);
    rig_end();
}

RH_TEST(parking, a_parked_one_that_ends_is_not_counted_and_its_poll_is_told)
{
    begin();
    park();
    rh_conn_cut(rig.sh, c, 1006);
    RH_EQ_U64(rig_stat(RH_STAT_connections_parked), 0);
    rh_conn_let_go(rig.sh, c);
    RH_EQ_U64(rig.cancelled, rh_tag(RH_OP_POLL, c));
    RH_EQ_INT(c->inflight, 1);
    rig.waits[0] = "";
    rh_conn_on_poll(rig.sh, c);
    RH_EQ_STR(rig.waits[0], ""); /* a dead one waits for nothing */
    RH_OK_IF(c->inflight == 0 && c->buried);
    rig_end();
}

RH_TEST(parking, one_that_closes_goes_on_to_hear)
{
    begin();
    park();
    rh_conn_close(rig.sh, c, 1001, "");
    RH_EQ_U64(rig_stat(RH_STAT_connections_parked), 0);
    rh_conn_on_poll(rig.sh, c); /* its close frame, or its end */
    RH_EQ_STR(rig.waits[0], "multi");
    rig_end();
}
