/* What a user is owed: when a message goes out, in which order, and how it ends. */
#include "tests/shard/owed_rig.h"

/* ---- at once, or later ---- */

RH_TEST(owed, to_a_connection_it_goes_at_once_and_is_settled_by_its_acknowledgement)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    RH_EQ_STR(send_ack("m1", "ann"), "owed");
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), 1);
    RH_EQ_STR(take_all(a), "m1#1");
    RH_EQ_STR(record(), "accepted m1 1 asked");
    later(3);
    ack_id(a, "m1");
    pass();
    RH_EQ_STR(record(), "settled m1 success none");
    RH_EQ_INT(rig_stat(RH_STAT_acks_settled), 1);
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), 0);
    RH_OK_IF(!rh_owed_any(user_of("ann")));
    rig_end();
}

RH_TEST(owed, plain_ones_to_a_connection_are_owed_to_nobody)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    RH_EQ_STR(send_plain("m1", "ann"), "live");
    RH_EQ_STR(take_all(a), "m1#1");
    RH_EQ_STR(record(), "");
    rig_end();
}

RH_TEST(owed, to_nobody_both_kinds_wait_and_come_in_order_at_connect)
{
    int a;

    rig_begin();
    RH_EQ_STR(send_plain("p1", "ann"), "owed");
    RH_EQ_STR(send_ack("a1", "ann"), "owed");
    RH_EQ_STR(send_plain("p2", "ann"), "owed");
    pass();
    check_all();
    RH_EQ_STR(record(),
              "accepted p1 0 stored asked, accepted a1 0 stored asked, accepted p2 0 stored asked");
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 3);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "p1#1, a1#1, p2#1");
    RH_EQ_STR(record(), "attempt p1 1, attempt a1 1, attempt p2 1, settled p1 success none, "
                        "settled p2 success none");
    ack_id(a, "a1");
    pass();
    RH_EQ_STR(record(), "settled a1 success none");
    RH_EQ_INT(rig_stat(RH_STAT_messages_delivered), 3);
    rig_end();
}

RH_TEST(owed, nothing_is_kept_for_nobody_when_that_is_off)
{
    int a;

    rig_begin();
    rig.cfg->offline_enabled = false;
    RH_EQ_STR(send_plain("p1", "ann"), "live"); /* which says user_offline there */
    RH_EQ_STR(send_ack("a1", "ann"), "live");
    RH_EQ_STR(record(), "");
    RH_OK_IF(!user_of("ann"));
    a = connect_user("ann"); /* but connected it is owed */
    RH_EQ_STR(send_ack("a2", "ann"), "owed");
    RH_EQ_STR(take_all(a), "a2#1");
    rig_end();
}

RH_TEST(owed, what_comes_while_others_wait_goes_behind_them)
{
    int a;

    rig_begin();
    send_ack("a1", "ann");
    a = connect_user("ann"); /* and a1 has not gone out in this pass */
    RH_EQ_STR(send_plain("p1", "ann"), "owed");
    RH_EQ_STR(send_ack("a2", "ann"), "owed");
    RH_EQ_STR(take_all(a), "a1#1, p1#1, a2#1");
    RH_EQ_STR(send_plain("p2", "ann"), "live");
    RH_EQ_STR(take_all(a), "p2#1");
    rig_end();
}

RH_TEST(owed, as_many_are_in_flight_as_may_be)
{
    int a;

    rig_begin();
    rig.cfg->ack_max_unacked = 2;
    a = connect_user("ann");
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    send_ack("a3", "ann");
    RH_EQ_STR(send_plain("p1", "ann"), "owed");
    RH_EQ_STR(take_all(a), "a1#1, a2#1");
    RH_EQ_STR(record(), "accepted a1 1 asked, accepted a2 1 asked, accepted a3 0 stored asked, "
                        "accepted p1 0 stored asked");
    check_all();
    ack_id(a, "a2");
    RH_EQ_STR(take_all(a), "a3#1, p1#1"); /* plain ones are not held back, but by order */
    ack_id(a, "a1");
    RH_EQ_STR(take_all(a), "");
    rig_end();
}

RH_TEST(owed, of_the_owed_at_most_64_stand_in_a_queue)
{
    char id[8];
    int a;

    rig_begin();
    for (unsigned i = 0; i < 150; i++) {
        snprintf(id, sizeof(id), "m%u", i);
        RH_EQ_STR(send_ack(id, "ann"), "owed");
    }
    a = connect_user("ann");
    pass();
    RH_EQ_U64(rig.conns[a]->out->owed, RH_OWED_QUEUED_MAX);
    RH_EQ_U64(rig.conns[a]->out->messages, 0); /* and count in no bound */
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 150 - RH_OWED_QUEUED_MAX);
    check_all();
    take(a);
    pass();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 150 - 2 * RH_OWED_QUEUED_MAX);
    take_all(a);
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 0);
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), 150);
    rig_end();
}

RH_TEST(owed, high_ones_overtake_what_is_queued_for_the_connection)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    send_mail(&(struct mail){.id = "h1", .from = "sam", .to = "ann", .ack = true, .high = true});
    send_plain("p1", "ann");
    RH_EQ_STR(take_all(a), "h1#1, a1#1, p1#1");
    rig_end();
}

/* ---- full connections ---- */

static void set_text(const char *yaml)
{
    struct rh_fault fault;

    RH_EQ_INT(rh_config_load_text(rig.cfg, "test", yaml, strlen(yaml), &fault), RH_OK);
}

/* A connection whose queue stands at its bound after a send was tried. */
static int full_conn(const char *name, enum rh_slow_consumer policy)
{
    int conn;

    rig.cfg->limits_slow_consumer = policy;
    rig.cfg->limits_send_queue_messages = 2;
    conn = connect_user(name);
    send_plain("x1", name);
    send_plain("x2", name);
    pass();
    pass();
    RH_OK_IF(rh_conn_full(rig.sh, rig.conns[conn]));
    return conn;
}

RH_TEST(owed, a_full_connection_has_no_room_and_is_not_closed_for_it)
{
    int a;

    rig_begin();
    a = full_conn("ann", RH_SLOW_DISCONNECT);
    RH_EQ_STR(send_ack("a1", "ann"), "owed");
    RH_EQ_STR(send_plain("p1", "ann"), "owed");
    pass();
    RH_EQ_STR(record(), "accepted a1 0 stored asked, accepted p1 0 stored asked");
    RH_EQ_INT(rig.conns[a]->state, RH_CONN_OPEN);
    RH_EQ_STR(take_all(a), "x1#1, x2#1, a1#1, p1#1");
    rig_end();
}

RH_TEST(owed, it_goes_to_all_that_have_room_and_to_the_others_when_it_is_repeated)
{
    int a, b;

    rig_begin();
    a = full_conn("ann", RH_SLOW_OLDEST);
    b = connect_user("ann");
    send_ack("a1", "ann");
    RH_EQ_STR(take_all(b), "a1#1");
    RH_EQ_STR(take_all(a), "x1#1, x2#1");
    later(101);
    RH_EQ_INT(rig.armed_count, 1);
    ring(0, RH_DUE_REPEAT);
    RH_EQ_STR(take_all(a), "a1#2");
    RH_EQ_STR(take_all(b), "a1#2");
    RH_EQ_STR(record(), "accepted a1 1 asked, attempt a1 2");
    rig_end();
}

RH_TEST(owed, acknowledged_ones_never_wait_to_be_retried_but_behind_those_that_do)
{
    int a;

    rig_begin();
    a = full_conn("ann", RH_SLOW_NEWEST);
    RH_EQ_STR(send_plain("p1", "ann"), "live");
    RH_OK_IF(rh_user_retry(user_of("ann")));
    RH_EQ_STR(send_ack("a1", "ann"), "owed");
    RH_EQ_STR(send_plain("p2", "ann"), "owed");
    RH_EQ_STR(take_all(a), "x1#1, x2#1"); /* room, but p1 is older and has its schedule */
    later(100);
    RH_EQ_STR(take_all(a), "p1#1, a1#1, p2#1");
    rig_end();
}

RH_TEST(owed, what_is_not_to_be_retried_is_dropped_at_once)
{
    int a;

    rig_begin();
    a = full_conn("ann", RH_SLOW_NEWEST);
    set_text("retry: {non_retryable: queue_full}");
    RH_EQ_STR(send_plain("p1", "ann"), "live");
    RH_OK_IF(!rh_user_retry(user_of("ann")));
    RH_EQ_STR(take_all(a), "x1#1, x2#1, lost 1");
    rig_end();
}

/* ---- connections that go ---- */

RH_TEST(owed, what_nobody_answered_waits_again_in_front_when_the_last_connection_goes)
{
    int a;

    rig_begin();
    rig.cfg->ack_max_unacked = 3;
    a = connect_user("ann");
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    send_ack("a3", "ann");
    send_ack("a4", "ann");
    RH_EQ_STR(take_all(a), "a1#1, a2#1, a3#1");
    ack_id(a, "a2");
    cut(a);
    pass();
    check_all();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 3);
    record();
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "a1#2, a3#2, a4#1");
    RH_EQ_STR(record(), "attempt a1 2, attempt a3 2, attempt a4 1");
    rig_end();
}

RH_TEST(owed, what_another_connection_has_stays_there)
{
    int a, b;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    RH_EQ_STR(take_all(a), "a1#1");
    b = connect_user("ann");
    send_ack("a2", "ann");
    RH_EQ_STR(take_all(a), "a2#1");
    RH_EQ_STR(take_all(b), "a2#1"); /* what it comes too late for waits for its repetition */
    cut(a);
    RH_EQ_STR(take_all(b), "a1#2");
    cut(b);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "a1#3, a2#2");
    rig_end();
}

RH_TEST(owed, a_plain_one_goes_when_it_is_written_and_never_twice)
{
    int a, b;

    rig_begin();
    send_plain("p1", "ann");
    a = connect_user("ann");
    b = connect_user("ann");
    pass();
    record();
    rh_conn_close(rig.sh, rig.conns[a], 1001, "going away"); /* what was queued still goes out */
    pass();
    RH_EQ_STR(record(), "");
    RH_EQ_STR(take_all(a), "p1#1");
    RH_EQ_STR(record(), "settled p1 success none");
    RH_EQ_STR(take_all(b), "p1#1"); /* the same for each device */
    RH_EQ_STR(record(), "");
    rig_end();
}

RH_TEST(owed, a_plain_one_waits_again_when_the_last_queue_with_it_is_thrown_away)
{
    int a, b;

    rig_begin();
    send_plain("p1", "ann");
    send_plain("p2", "ann");
    a = connect_user("ann");
    b = connect_user("ann");
    pass();
    record();
    cut(a);
    pass();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 0);
    cut(b);
    pass();
    check_all();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 2);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "p1#2, p2#2");
    RH_EQ_STR(record(), "attempt p1 2, attempt p2 2, settled p1 success none, settled p2 success "
                        "none");
    rig_end();
}

RH_TEST(owed, a_plain_one_of_a_session_that_has_ended_is_still_counted)
{
    int a;

    rig_begin();
    send_plain("p1", "ann");
    a = connect_user("ann");
    pass();
    rh_conn_peer_close(rig.sh, rig.conns[a], 1000); /* a goodbye: its session ends at once */
    pass();
    RH_OK_IF(!rig.conns[a]->session);
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 0);
    cut(a);
    pass();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 1);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "p1#2");
    rig_end();
}

RH_TEST(owed, a_session_that_is_taken_over_gives_back_what_its_connection_had)
{
    struct rh_session *s;
    int a, b;

    rig_begin();
    send_plain("p1", "ann");
    send_ack("a1", "ann");
    a = connect_user("ann");
    s = rig.conns[a]->session;
    rh_owed_run(rig.sh); /* queued, and not sent yet */
    RH_EQ_U64(rig.conns[a]->out->owed, 2);
    rh_session_take_over(rig.sh, s);
    b = connect_user("ann");
    RH_EQ_STR(take_all(b), "p1#2, a1#2");
    RH_EQ_STR(take_all(a), "");
    RH_EQ_INT(rig.closed[a], 4409);
    rig_end();
}

/* ---- acknowledgements ---- */

RH_TEST(owed, acknowledgements_are_settled_late_or_unknown)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    connect_user("bob");
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    send_ack("b1", "bob");
    pass();
    RH_EQ_INT(acknowledge(a, "{\"ids\":[\"a1\",\"a\\u0032\",\"b1\",\"a1\"]}"), RH_OK);
    RH_EQ_INT(rig_stat(RH_STAT_acks_settled), 2);
    RH_EQ_INT(rig_stat(RH_STAT_acks_late), 1);
    RH_EQ_INT(rig_stat(RH_STAT_acks_unknown), 1); /* another user's */
    RH_EQ_INT(acknowledge(a, "{\"ids\":[]}"), RH_OK);
    RH_EQ_INT(acknowledge(a, "{\"id\":\"\"}"), RH_OK);
    RH_EQ_INT(rig_stat(RH_STAT_acks_unknown), 2);
    rig_end();
}

RH_TEST(owed, invalid_acknowledgements_do_nothing)
{
    static const char *const bad[] = {
        "{}",
        "null",
        "7",
        "{\"id\":7}",
        "{\"ids\":\"a1\"}",
        "{\"ids\":[\"a1\",7]}",
        "{\"id\":\"a1\",\"ids\":[\"a1\"]}",
        "{\"id\":\"a1\",\"id\":\"a1\"}",
        "{\"id\":\"a1\",\"room\":7}",
    };
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    pass();
    for (unsigned i = 0; i < RH_COUNT(bad); i++)
        RH_EQ_INT(acknowledge(a, bad[i]), RH_EINVAL);
    RH_EQ_INT(rig_stat(RH_STAT_acks_settled) + rig_stat(RH_STAT_acks_unknown), 0);
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), 1);
    rig_end();
}

RH_TEST(owed, an_acknowledgement_that_names_a_room_means_no_direct_message)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    pass();
    RH_EQ_INT(acknowledge(a, "{\"id\":\"a1\",\"room\":\"ann\"}"), RH_OK);
    RH_EQ_INT(rig_stat(RH_STAT_acks_unknown), 1);
    rig_end();
}

RH_TEST(owed, a_device_that_comes_back_may_acknowledge_what_it_has_from_before)
{
    int a;

    rig_begin();
    rig.cfg->ack_policy = RH_ACK_ALL; /* also under this */
    rig.cfg->ack_max_unacked = 1;
    a = connect_user("ann");
    send_ack("a1", "ann");
    take_all(a);
    cut(a);
    a = connect_user("ann");
    ack_id(a, "a1"); /* before it was handed out again */
    RH_EQ_STR(take_all(a), "");
    RH_EQ_STR(record(), "accepted a1 1 asked, settled a1 success none");
    rig_end();
}

RH_TEST(owed, plain_ones_are_not_touched_by_acknowledgements)
{
    int a;

    rig_begin();
    send_plain("p1", "ann");
    a = connect_user("ann");
    pass();
    ack_id(a, "p1");
    RH_EQ_INT(rig_stat(RH_STAT_acks_unknown), 1);
    RH_EQ_STR(record(), "accepted p1 0 stored asked, attempt p1 1");
    RH_EQ_STR(take_all(a), "p1#1");
    RH_EQ_STR(record(), "settled p1 success none");
    rig_end();
}

RH_TEST(owed, under_any_the_first_device_settles_it)
{
    int a, b;

    rig_begin();
    a = connect_user("ann");
    b = connect_user("ann");
    send_ack("a1", "ann");
    pass();
    ack_id(b, "a1");
    ack_id(a, "a1");
    RH_EQ_INT(rig_stat(RH_STAT_acks_settled), 1);
    RH_EQ_INT(rig_stat(RH_STAT_acks_late), 1);
    pass();
    RH_EQ_STR(record(), "accepted a1 1 asked, settled a1 success none");
    rig_end();
}

RH_TEST(owed, under_all_every_device_that_has_it_answers)
{
    int a, b, c;

    rig_begin();
    rig.cfg->ack_policy = RH_ACK_ALL;
    a = connect_user("ann");
    b = connect_user("ann");
    send_ack("a1", "ann");
    c = connect_user("ann"); /* too late to have it */
    pass();
    record();
    ack_id(b, "a1");
    ack_id(b, "a1");
    ack_id(c, "a1");
    RH_EQ_INT(rig_stat(RH_STAT_acks_settled), 1);
    RH_EQ_INT(rig_stat(RH_STAT_acks_late), 2);
    pass();
    RH_EQ_STR(record(), "");
    ack_id(a, "a1");
    pass();
    RH_EQ_STR(record(), "settled a1 success none");
    rig_end();
}

RH_TEST(owed, under_all_who_has_answered_does_not_get_it_again)
{
    int a, b;

    rig_begin();
    rig.cfg->ack_policy = RH_ACK_ALL;
    a = connect_user("ann");
    b = connect_user("ann");
    send_ack("a1", "ann");
    take_all(a);
    take_all(b);
    ack_id(a, "a1");
    later(101);
    ring(0, RH_DUE_REPEAT);
    RH_EQ_STR(take_all(a), "");
    RH_EQ_STR(take_all(b), "a1#2");
    ack_id(b, "a1");
    pass();
    RH_EQ_STR(record(), "accepted a1 1 asked, attempt a1 2, settled a1 success none");
    rig_end();
}

RH_TEST(owed, under_all_a_device_that_goes_is_not_waited_for)
{
    int a, b;

    rig_begin();
    rig.cfg->ack_policy = RH_ACK_ALL;
    a = connect_user("ann");
    b = connect_user("ann");
    send_ack("a1", "ann");
    pass();
    record();
    ack_id(a, "a1");
    cut(b); /* and with one that has answered, that is the end */
    pass();
    RH_EQ_STR(record(), "settled a1 success none");
    b = connect_user("ann");
    send_ack("a2", "ann");
    pass();
    ack_id(a, "a2");
    cut(a);
    pass();
    RH_EQ_STR(record(), "accepted a2 1 asked");
    cut(b);
    pass();
    RH_EQ_STR(record(), "settled a2 success none");
    rig_end();
}

RH_TEST(owed, more_than_64_devices_share_the_last_place)
{
    int conns[70];

    rig_begin();
    rig.cfg->ack_policy = RH_ACK_ALL;
    for (unsigned i = 0; i < 70; i++)
        conns[i] = connect_user("ann");
    send_ack("a1", "ann");
    pass();
    record();
    for (unsigned i = 0; i < 63; i++)
        ack_id(conns[i], "a1");
    pass();
    RH_EQ_STR(record(), "");
    for (unsigned i = 63; i < 69; i++)
        cut(conns[i]);
    pass();
    RH_EQ_STR(record(), ""); /* one of those that share it is left */
    ack_id(conns[69], "a1");
    pass();
    RH_EQ_STR(record(), "settled a1 success none");
    send_ack("a2", "ann");
    pass();
    for (unsigned i = 0; i < 63; i++)
        cut(conns[i]);
    pass();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 0);
    cut(conns[69]);
    pass();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 1);
    rig_end();
}

/* ---- bounds ---- */

RH_TEST(owed, one_too_many_drops_the_oldest_plain_one_and_tells_it)
{
    int a;

    rig_begin();
    rig.cfg->offline_max_messages = 3;
    send_ack("a1", "ann");
    send_plain("p1", "ann");
    send_plain("p2", "ann");
    pass();
    record();
    RH_EQ_STR(send_ack("a2", "ann"), "owed");
    RH_EQ_STR(send_plain("p3", "ann"), "owed");
    pass();
    check_all();
    RH_EQ_STR(record(),
              "settled p1 failed queue_full, accepted a2 0 stored asked, settled p2 failed "
              "queue_full, accepted p3 0 stored asked");
    RH_EQ_INT(rig_stat(RH_STAT_messages_dropped_queue_full), 2);
    RH_EQ_INT(rig_stat(RH_STAT_failures_queue_full), 2);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "a1#1, lost 2, a2#1, p3#1");
    rig_end();
}

RH_TEST(owed, a_loss_that_nothing_follows_is_told_at_connect)
{
    int a, b;

    rig_begin();
    rig.cfg->offline_max_messages = 1;
    send_mail(&(struct mail){.id = "p1", .from = "sam", .to = "ann", .ttl_ms = 100000});
    send_mail(&(struct mail){.id = "p2", .from = "sam", .to = "ann", .ttl_ms = 5000});
    send_mail(&(struct mail){.id = "p3", .from = "sam", .to = "bob", .ttl_ms = 100000});
    send_mail(&(struct mail){.id = "p4", .from = "sam", .to = "bob", .ttl_ms = 100000});
    a = connect_user("bob");
    RH_EQ_STR(take_all(a), "lost 1, p4#1");
    later(5000);
    RH_OK_IF(user_of("ann")); /* all has ended, but for the loss */
    b = connect_user("ann");
    RH_EQ_STR(take_all(b), "lost 1");
    RH_OK_IF(!rh_user_owed(user_of("ann")));
    rig_end();
}

RH_TEST(owed, a_loss_that_nobody_comes_for_is_forgotten)
{
    rig_begin();
    rig.cfg->offline_max_messages = 1;
    rig.cfg->offline_ttl_ms = 60000;
    send_mail(&(struct mail){.id = "p1", .from = "sam", .to = "ann", .ttl_ms = 5000});
    send_mail(&(struct mail){.id = "p2", .from = "sam", .to = "ann", .ttl_ms = 5000});
    later(5000);
    RH_OK_IF(user_of("ann"));
    later(59000);
    RH_OK_IF(user_of("ann"));
    later(2000);
    RH_OK_IF(!user_of("ann"));
    rig_end();
}

RH_TEST(owed, with_nothing_but_acknowledged_ones_the_new_one_is_refused)
{
    int a;

    rig_begin();
    rig.cfg->offline_max_messages = 2;
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    RH_EQ_STR(send_ack("a3", "ann"), "queue_full");
    RH_EQ_STR(send_plain("p1", "ann"), "queue_full");
    RH_EQ_INT(rig_stat(RH_STAT_owed_refused), 2);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "a1#1, a2#1");
    RH_EQ_STR(send_ack("a4", "ann"), "owed"); /* those in flight are not counted, */
    take_all(a);
    cut(a); /* and what returns from there is exempt, */
    pass();
    check_all();
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 3);
    RH_EQ_STR(send_ack("a5", "ann"), "queue_full"); /* but counts against new ones */
    rig_end();
}

RH_TEST(owed, all_users_together_have_a_bound)
{
    rig_begin();
    rig.cfg->offline_max_total = 3;
    atomic_store(&rig.promises.waiting, 1); /* on another shard */
    RH_EQ_STR(send_ack("a1", "ann"), "owed");
    RH_EQ_STR(send_plain("b1", "bob"), "owed");
    RH_EQ_STR(send_plain("c1", "cat"), "queue_full");
    pass();
    RH_OK_IF(!user_of("cat"));
    rig.cfg->offline_max_messages = 1;
    RH_EQ_STR(send_plain("b2", "bob"), "owed"); /* in the place of another */
    atomic_fetch_sub(&rig.promises.waiting, 1);
    RH_EQ_STR(send_plain("c1", "cat"), "owed");
    rig_end();
}

/* ---- time ---- */

RH_TEST(owed, what_waits_expires_when_its_time_is_over)
{
    int a;

    rig_begin();
    send_mail(&(struct mail){.id = "a1", .from = "sam", .to = "ann", .ack = true, .ttl_ms = 300});
    send_mail(&(struct mail){.id = "a2", .from = "sam", .to = "ann", .ack = true, .ttl_ms = 100});
    send_plain("p1", "ann");
    pass();
    record();
    later(99);
    RH_EQ_STR(record(), "");
    later(1);
    RH_EQ_STR(record(), "settled a2 expired expired");
    check_all();
    later(200);
    RH_EQ_STR(record(), "settled a1 expired expired");
    RH_EQ_INT(rig_stat(RH_STAT_messages_dropped_expired), 2);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "p1#1");
    rig_end();
}

RH_TEST(owed, what_has_expired_is_not_handed_out_any_more)
{
    int a;

    rig_begin();
    send_mail(&(struct mail){.id = "a1", .from = "sam", .to = "ann", .ack = true, .ttl_ms = 300});
    send_plain("p1", "ann");
    pass();
    record();
    a = connect_user("ann");
    rig.sh->now_ms += 300; /* the alarm has not rung yet */
    rig.sh->hub_us += 300000;
    RH_EQ_STR(take_all(a), "p1#1");
    RH_EQ_STR(record(), "settled a1 expired expired, attempt p1 1, settled p1 success none");
    rig_end();
}

RH_TEST(owed, nothing_expires_before_the_newest_time_that_is_stored)
{
    int a;

    rig_begin();
    atomic_store(&rig.promises.newest_ms, rh_now_unix_ms(rig.sh) + 1000); /* the clock went back */
    send_mail(&(struct mail){.id = "a1", .from = "sam", .to = "ann", .ack = true, .ttl_ms = 100});
    send_mail(&(struct mail){.id = "a2", .from = "sam", .to = "bob", .ack = true, .ttl_ms = 100});
    a = connect_user("bob");
    RH_EQ_STR(take_all(a), "a2#1");
    record();
    later(999);
    RH_EQ_STR(record(), "");
    RH_EQ_INT(rig.armed_count, 1);
    RH_EQ_U64(rig.arms[0].d, 1001000); /* so says the ARM */
    ring(0, RH_DUE_EXPIRED);           /* too early: armed again */
    pass();
    RH_EQ_INT(rig.armed_count, 1);
    later(1);
    RH_EQ_STR(record(), "settled a1 expired expired");
    ring(0, RH_DUE_EXPIRED);
    pass();
    RH_EQ_STR(record(), "settled a2 expired expired");
    rig_end();
}

RH_TEST(owed, very_many_are_looked_at_in_slices)
{
    char id[8];

    rig_begin();
    rig.mute = true;
    rig.cfg->offline_max_messages = 5000;
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(id, sizeof(id), "m%u", i);
        send_mail(&(struct mail){
            .id = id, .from = "sam", .to = "ann", .ack = true, .ttl_ms = i % 2 ? 1000 : 9000});
        if (i % 500 == 0)
            pass();
    }
    later(1000);
    RH_OK_IF(rig_stat(RH_STAT_offline_messages) > 2000);
    send_mail(&(struct mail){.id = "x", .from = "sam", .to = "ann", .ack = true, .ttl_ms = 500});
    later(1);
    later(1);
    later(1);
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 1501);
    later(496);
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 1501);
    later(1);
    later(1); /* the one that came meanwhile is not forgotten */
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 1500);
    later(7498);
    later(1);
    RH_OK_IF(!user_of("ann"));
    rig_end();
}

RH_TEST(owed, what_returns_while_they_are_looked_at_is_not_forgotten)
{
    char id[8];
    int a;

    rig_begin();
    rig.mute = true;
    rig.cfg->offline_max_messages = 5000;
    rig.cfg->ack_max_unacked = 1;
    a = connect_user("ann");
    send_mail(&(struct mail){.id = "x", .from = "sam", .to = "ann", .ack = true, .ttl_ms = 1500});
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(id, sizeof(id), "m%u", i);
        send_mail(&(struct mail){
            .id = id, .from = "sam", .to = "ann", .ack = true, .ttl_ms = i ? 9000 : 1000});
        if (i % 500 == 0)
            pass();
    }
    later(1000);
    RH_OK_IF(rh_user_owed(user_of("ann"))->scan); /* it goes on */
    cut(a);                                       /* and this one comes in front of where it is */
    later(1);
    later(1);
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 3000);
    later(498);
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 2999);
    rig_end();
}

RH_TEST(owed, the_ack_thread_hears_only_of_what_is_unanswered_for_a_while)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    take_all(a);
    RH_OK_IF(rh_owed_next_ms(rig.sh) <= 101 && rh_owed_next_ms(rig.sh) >= 100);
    later(50);
    ack_id(a, "a1");
    later(40);
    RH_EQ_INT(rig.armed_count, 0);
    later(11);
    RH_EQ_INT(rig.armed_count, 1);
    RH_EQ_U64(rig.arms[0].b, 0);
    RH_OK_IF(rig.arms[0].c - 1000000 <= 1);
    RH_EQ_U64(rh_owed_next_ms(rig.sh), UINT64_MAX);
    ack_id(a, "a2");
    pass();
    RH_EQ_INT(rig.armed_count, 0);
    rig.cfg->ack_timeout_ms = 200;
    send_ack("a3", "ann");
    later(19);
    RH_EQ_INT(rig.armed_count, 0);
    later(2);
    RH_EQ_INT(rig.armed_count, 1);
    rig_end();
}

RH_TEST(owed, repetitions_have_another_attempt_and_end_as_ack_timeout)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    RH_EQ_STR(take_all(a), "a1#1");
    for (unsigned i = 2; i <= 4; i++) {
        char text[8];

        later(101);
        RH_EQ_INT(rig.armed_count, 1);
        RH_EQ_U64(rig.arms[0].b, i - 2);
        ring(0, RH_DUE_REPEAT);
        snprintf(text, sizeof(text), "a1#%u", i);
        RH_EQ_STR(take_all(a), text);
    }
    later(101);
    RH_EQ_U64(rig.arms[0].b, 3);
    ring(0, RH_DUE_GIVE_UP);
    pass();
    RH_EQ_STR(record(), "accepted a1 1 asked, attempt a1 2, attempt a1 3, attempt a1 4, settled a1 "
                        "ack_timeout ack_timeout");
    RH_EQ_INT(rig_stat(RH_STAT_retries_ack_timeout), 3);
    RH_EQ_INT(rig_stat(RH_STAT_failures_timeout), 1);
    RH_EQ_INT(rig_stat(RH_STAT_failures_general), 1);
    rig_end();
}

RH_TEST(owed, what_is_not_to_be_repeated_ends_after_the_first_wait)
{
    int a;

    rig_begin();
    set_text("retry: {non_retryable: ack_timeout}");
    a = connect_user("ann");
    send_ack("a1", "ann");
    take_all(a);
    later(101);
    ring(0, RH_DUE_REPEAT);
    pass();
    RH_EQ_STR(record(), "accepted a1 1 asked, settled a1 ack_timeout ack_timeout");
    rig_end();
}

RH_TEST(owed, a_reconnect_begins_the_schedule_anew_and_old_dates_mean_nothing)
{
    uint64_t old;
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    take_all(a);
    later(101);
    ring(0, RH_DUE_REPEAT);
    later(101);
    old = rig.armed[0];
    RH_EQ_U64(rig.arms[0].b, 1);
    cut(a);
    pass();
    RH_EQ_INT(rig.armed_count, 0);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "a1#3");
    later(101);
    RH_EQ_INT(rig.armed_count, 1);
    RH_EQ_U64(rig.arms[0].b, 0);
    RH_OK_IF(rig.armed[0] != old);
    rig.armed[rig.armed_count++] = old; /* it was on its way */
    ring(1, RH_DUE_GIVE_UP);
    RH_EQ_STR(take_all(a), "");
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), 1);
    rig_end();
}

RH_TEST(owed, a_date_from_before_the_last_delivery_means_nothing)
{
    struct rh_owed_item *item;
    uint64_t old;
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    take_all(a);
    later(101);
    old = rig.armed[0];
    item = rh_owed_by_name(rig.sh, (uint32_t)old, (uint32_t)(old >> 32));
    RH_OK_IF(rh_owed_refly(rig.sh, item)); /* as a history does that brings it once more */
    pass();
    RH_EQ_INT(rig.armed_count, 0);
    rig.armed[rig.armed_count++] = old;
    ring(0, RH_DUE_GIVE_UP);
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), 1);
    later(101);
    RH_EQ_INT(rig.armed_count, 1);
    rig_end();
}

RH_TEST(owed, a_repetition_that_finds_no_room_counts_all_the_same)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    take_all(a);
    rig.cfg->limits_slow_consumer = RH_SLOW_OLDEST;
    rig.cfg->limits_send_queue_messages = 1;
    send_plain("x1", "ann");
    pass();
    pass();
    later(101);
    ring(0, RH_DUE_REPEAT);
    pass();
    RH_EQ_INT(rig.armed_count, 1);
    RH_EQ_U64(rig.arms[0].b, 1);
    RH_EQ_STR(take_all(a), "x1#1");
    RH_EQ_STR(record(), "accepted a1 1 asked");
    rig_end();
}

RH_TEST(owed, what_the_ack_thread_had_no_memory_for_is_armed_again)
{
    struct rh_event ev = {.kind = RH_EV_DUE, .a = 1024ull << 32, .b = RH_DUE_AGAIN};
    struct rh_mesh *ack;
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    take_all(a);
    ack_id(a, "a1");
    later(101);
    RH_EQ_INT(rig.armed_count, 1);
    rig.armed_count = 0; /* it had none */
    ack = rh_net_member(rig.env.net, ACK);
    RH_EQ_INT(rh_mesh_ask(ack, SHARD, &ev, 0), RH_OK);
    rh_mesh_publish(ack);
    pass();
    RH_EQ_INT(rig.armed_count, 1);
    RH_EQ_INT((int)(rig.armed[0] & 0xffffffff), 1);
    rig_end();
}

/* ---- ids ---- */

RH_TEST(owed, an_id_that_is_still_owed_waits_for_the_same_commit)
{
    struct mail m = {.id = "g1", .from = "sam", .to = "ann", .ack = true, .given = true};

    rig_begin();
    RH_EQ_STR(send_mail(&m), "owed");
    RH_EQ_STR(send_mail(&m), "owed");
    m.ack = false;
    RH_EQ_STR(send_mail(&m), "owed");
    m.to = "bob"; /* to another it is another message */
    RH_EQ_STR(send_mail(&m), "owed");
    m.to = "ann";
    m.from = "joe";
    RH_EQ_STR(send_mail(&m), "conflict");
    pass();
    RH_EQ_STR(record(),
              "accepted g1 0 stored asked, await g1, await g1, accepted g1 0 stored asked");
    RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 2);
    rig_end();
}

RH_TEST(owed, an_old_copy_settles_no_new_message_of_its_id)
{
    struct mail m = {.id = "g1", .from = "sam", .to = "ann", .given = true};
    int a, b;

    rig_begin();
    send_mail(&m);
    a = connect_user("ann");
    b = connect_user("ann");
    pass();
    RH_EQ_STR(take_all(a), "g1#1"); /* settled; b's copy is still under way */
    cut(a);
    rh_conn_close(rig.sh, rig.conns[b], 1001, "");
    RH_EQ_STR(send_mail(&m), "owed");
    a = connect_user("ann");
    pass();
    record();
    take(b);
    pass();
    RH_EQ_STR(record(), "");
    RH_EQ_STR(take_all(a), "g1#1");
    RH_EQ_STR(record(), "settled g1 success none");
    rig_end();
}

/* ---- the gate ---- */

RH_TEST(owed, while_the_gate_is_closed_no_promise_is_made)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    atomic_store(&rig.promises.gate, RH_GATE_FAILING);
    RH_EQ_STR(send_ack("a2", "ann"), "store_failed");
    RH_EQ_STR(send_plain("b1", "bob"), "store_failed");
    RH_EQ_STR(send_plain("p1", "ann"), "live"); /* what promises nothing goes on, */
    RH_EQ_STR(take_all(a), "a1#1, p1#1");
    cut(a); /* and what is owed stays so */
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "a1#2");
    ack_id(a, "a1");
    pass();
    RH_EQ_INT(rig.accepted, 1);
    RH_EQ_INT(rig.settled, 1);
    rig_end();
}

RH_TEST(owed, above_the_mark_of_the_spill_no_promise_is_made)
{
    rig_begin();
    for (unsigned i = 0; i < RH_SPILL_EVENTS + RH_RING_SLOTS + 10; i++) {
        struct rh_event ev = {.kind = RH_EV_PROGRESS};

        RH_EQ_INT(rh_mesh_tell(rig.sh->mesh, RECORD, &ev), RH_OK);
    }
    RH_EQ_STR(send_ack("a2", "ann"), "store_failed");
    RH_OK_IF(!user_of("ann"));
    rig_end();
}

/* ---- progress ---- */

RH_TEST(owed, states_on_the_way_are_told_when_that_is_wanted)
{
    int a;

    rig_begin();
    rig.cfg->ack_progress = true;
    rig.cfg->ack_max_unacked = 1;
    a = connect_user("ann");
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    pass();
    RH_EQ_STR(record(), "accepted a1 1 asked, progress a1 sending, accepted a2 0 stored asked");
    later(101);
    ring(0, RH_DUE_REPEAT);
    cut(a);
    pass();
    RH_EQ_STR(record(), "progress a1 retrying, attempt a1 2, progress a2 user_offline, progress a1 "
                        "user_offline");
    a = connect_user("ann");
    pass();
    RH_EQ_STR(record(), "progress a1 sending, attempt a1 3, progress a2 pending");
    rig_end();
}

/* ---- message.status ---- */

static void status(const char *id, const char *from, enum rh_state state, enum rh_reason reason)
{
    struct rh_msg *msg =
        mail_msg(&(struct mail){.id = id, .from = from, .to = "ann", .ack = true, .given = true});
    struct rh_event ev = {.kind = RH_EV_STATUS,
                          .msg = msg,
                          .a = state | (uint64_t)reason << 8,
                          .flags = rh_state_is_end(state)};

    rh_owed_status_pop(rig.sh, &ev);
}

RH_TEST(owed, all_connections_of_a_sender_are_told_what_became_of_its_message)
{
    int a, b;

    rig_begin();
    a = connect_user("sam");
    b = connect_user("sam");
    status("m1", "sam", RH_STATE_success, RH_REASON_none);
    status("m2", "sam", RH_STATE_ack_timeout, RH_REASON_ack_timeout);
    RH_EQ_STR(take_all(a), "status {\"id\":\"m1\",\"status\":\"success\"}, status "
                           "{\"id\":\"m2\",\"status\":\"ack_timeout\",\"reason\":\"ack_"
                           "timeout\"}");
    take_all(b);
    RH_EQ_INT(rig_stat(RH_STAT_statuses), 2);
    RH_EQ_STR(record(), "");
    rig_end();
}

RH_TEST(owed, a_failed_end_waits_for_a_sender_who_is_offline)
{
    int a;

    rig_begin();
    status("m1", "sam", RH_STATE_success, RH_REASON_none);
    status("m2", "sam", RH_STATE_retrying, RH_REASON_none);
    status("m3", "sam", RH_STATE_expired, RH_REASON_expired);
    atomic_store(&rig.promises.gate, RH_GATE_FAILING); /* also then */
    status("m4", "sam", RH_STATE_failed, RH_REASON_queue_full);
    pass();
    RH_EQ_INT(rig.accepted, 2);
    a = connect_user("sam");
    RH_EQ_STR(take_all(a),
              "status {\"id\":\"m3\",\"status\":\"expired\",\"reason\":\"expired\"}, status "
              "{\"id\":\"m4\",\"status\":\"failed\",\"reason\":\"queue_full\"}");
    RH_EQ_INT(rig.settled, 2);
    rig_end();
}

/* ---- the start ---- */

RH_TEST(owed, what_is_owed_at_the_start_goes_on_above_its_last_attempt)
{
    static const struct mail mails[] = {
        {.id = "a1", .from = "sam", .to = "ann", .ack = true},
        {.id = "p1", .from = "sam", .to = "ann"},
        {.id = "a2", .from = "sam", .to = "ann", .ack = true},
    };
    int a;

    rig_begin();
    atomic_store(&rig.promises.gate, RH_GATE_LOADING);
    rig.cfg->offline_max_messages = 1; /* what was promised is */
    for (unsigned i = 0; i < RH_COUNT(mails); i++) {
        struct rh_event ev = {.kind = RH_EV_OWED, .msg = mail_msg(&mails[i]), .a = 2 * i};

        rh_owed_load_pop(rig.sh, &ev);
    }
    pass();
    check_all();
    RH_EQ_STR(record(), "");
    atomic_store(&rig.promises.gate, RH_GATE_OPEN);
    a = connect_user("ann");
    RH_EQ_STR(take_all(a), "a1#1, p1#3, a2#5");
    RH_EQ_STR(record(), "attempt a1 1, attempt p1 3, attempt a2 5, settled p1 success none");
    rig_end();
}

/* ---- without memory ---- */

/* The next event to the record thread needs memory. */
static void fill_ring(void)
{
    struct rh_event ev = {.kind = RH_EV_PROGRESS};

    do
        rh_mem_fail_nth(1);
    while (rh_mesh_tell(rig.sh->mesh, RECORD, &ev) == RH_OK);
}

RH_TEST(owed, an_end_that_cannot_be_told_is_told_as_soon_as_it_can)
{
    int a;

    rig_begin();
    a = connect_user("ann");
    send_ack("a1", "ann");
    send_ack("a2", "ann");
    take_all(a);
    record();
    fill_ring();
    rh_mem_fail_nth(1);
    ack_id(a, "a1");
    rh_mem_fail_nth(1);
    ack_id(a, "a2");
    ack_id(a, "a2");
    RH_EQ_INT(rig_stat(RH_STAT_acks_settled), 2);
    RH_EQ_INT(rig_stat(RH_STAT_acks_late), 1);
    RH_EQ_INT(rig_stat(RH_STAT_unacked_messages), 0);
    RH_OK_IF(rh_owed_next_ms(rig.sh) <= 5);
    for (unsigned i = 0; i < 20; i++)
        pass();
    RH_EQ_INT(rig.settled, 2);
    rig_end();
}

RH_TEST(owed, without_memory_to_tell_of_it_nothing_is_accepted)
{
    rig_begin();
    connect_user("ann");
    fill_ring();
    rh_mem_fail_nth(1);
    RH_EQ_STR(send_ack("a1", "ann"), "unavailable");
    rh_mem_fail_nth(1);
    RH_EQ_STR(send_plain("p1", "bob"), "unavailable");
    RH_OK_IF(!user_of("bob"));
    RH_EQ_STR(send_ack("a1", "ann"), "owed");
    rig_end();
}

static void accept_some(void *arg)
{
    const char *said;
    (void)arg;

    said = send_ack("a1", "ann");
    RH_OK_IF(!strcmp(said, "owed") || !strcmp(said, "unavailable"));
    said = send_plain("p1", "bob");
    RH_OK_IF(!strcmp(said, "owed") || !strcmp(said, "unavailable"));
    status("m1", "sam", RH_STATE_expired, RH_REASON_expired);
}

RH_TEST(owed, each_allocation_of_an_acceptance_may_fail)
{
    for (uint64_t nth = 1, left = 0; !left; nth++) {
        rig_begin();
        connect_user("ann");
        rh_mem_fail_nth(nth);
        accept_some(NULL);
        left = rh_mem_fail_left();
        rh_mem_fail_nth(0);
        pass();
        check_all();
        RH_EQ_INT(rig.accepted,
                  (int)(rig_stat(RH_STAT_unacked_messages) + rig_stat(RH_STAT_offline_messages)));
        rig_end();
    }
}

RH_TEST(owed, what_finds_no_memory_at_connect_comes_a_little_later)
{
    for (uint64_t nth = 1, left = 0; !left; nth++) {
        int a;

        rig_begin();
        rig.mute = true;
        send_ack("a1", "ann");
        send_plain("p1", "ann");
        a = connect_user("ann");
        rh_mem_fail_nth(nth);
        pass();
        left = rh_mem_fail_left();
        rh_mem_fail_nth(0);
        if (!rh_list_empty(&rh_user_owed(user_of("ann"))->waiting))
            RH_OK_IF(rh_owed_next_ms(rig.sh) <= 5 || rig.conns[a]->state != RH_CONN_OPEN);
        take_all(a);
        if (rig.conns[a]->state != RH_CONN_OPEN) {
            cut(a);
            a = connect_user("ann");
            take_all(a);
        }
        ack_id(a, "a1");
        pass();
        RH_EQ_INT(rig.settled, 2);
        rig_end();
    }
}

RH_TEST(owed, a_repetition_that_finds_no_memory_waits_until_there_is_some)
{
    for (uint64_t nth = 1, left = 0; !left; nth++) {
        int a;

        rig_begin();
        rig.mute = true;
        a = connect_user("ann");
        send_ack("a1", "ann");
        take_all(a);
        later(101);
        rh_mem_fail_nth(nth);
        ring(0, RH_DUE_REPEAT);
        left = rh_mem_fail_left();
        rh_mem_fail_nth(0);
        if (rig.conns[a]->state == RH_CONN_OPEN) {
            const char *got = take_all(a);

            RH_OK_IF(!strcmp(got, "a1#2") || !strcmp(got, "a1#3"));
        } else {
            RH_EQ_INT(rig_stat(RH_STAT_offline_messages), 1);
        }
        rig_end();
    }
}
