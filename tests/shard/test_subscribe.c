/* Subscriptions: what a client gets of its rooms, over any number of connections, and what the home
 * counts meanwhile. */
#include "tests/shard/session_rig.h"

#include <stdio.h>

static uint64_t count_of(const char *name, bool live)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 4; i++)
        sum += live ? room(name)->members[i].live : room(name)->members[i].subs;
    return sum;
}

static void publish_some(const char *name, unsigned count)
{
    while (count--)
        publish(room(name));
}

static struct rh_session *member(const char *user, const char *name)
{
    struct rh_session *s = arrive(user);

    RH_OK_IF(s && join(s, name, UINT64_MAX));
    settle_down();
    return s;
}

static void send_all(struct rh_session *s)
{
    for (unsigned i = 0; i < 100 && s->conn->out; i++)
        conn_send(s->conn, 64, false);
}

/* All that was got: "1 2 -3..5 6", with ! in front of a notice. */
static const char *text(void)
{
    static char buf[1 << 16];
    char *at = buf;

    *at = 0;
    for (unsigned i = 0; i < rig.got_count; i++) {
        const struct got *g = &rig.got[i];

        if (g->lost)
            at += sprintf(at, "-%u..%u ", (unsigned)g->from, (unsigned)g->to);
        else if (g->from)
            at += sprintf(at, "%u ", (unsigned)g->from);
        else
            at += sprintf(at, "! ");
    }
    rig.got_count = 0;
    return buf;
}

/* ---- joining and leaving ---- */

RH_TEST(subscribe, a_join_is_counted_and_a_leave_uncounted)
{
    struct rh_session *s;

    begin();
    s = member("u", "a");
    RH_EQ_U64(count_of("a", false), 1);
    RH_EQ_U64(count_of("a", true), 1);
    RH_EQ_U64(rig.fences, 0); /* nothing was queued by the answer here */
    publish_some("a", 2);
    settle_down();
    RH_OK_IF(leave(s, "a"));
    publish_some("a", 1); /* the home does not know yet */
    home_step();
    publish_some("a", 1);
    settle_down();
    RH_OK_IF(!sub_of_room(s, "a"));
    send_all(s);
    RH_EQ_STR(text(), "1 2 3 ");
    RH_EQ_U64(count_of("a", false), 0);
    end();
}

RH_TEST(subscribe, what_was_published_before_the_answer_is_not_for_it)
{
    struct rh_session *first, *s;

    begin();
    first = member("u", "a");
    s = arrive("v");
    publish_some("a", 3);
    RH_OK_IF(join(s, "a", UINT64_MAX));
    settle_down();
    publish_some("a", 1);
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "4 ");
    send_all(first);
    RH_EQ_STR(text(), "1 2 3 4 ");
    end();
}

RH_TEST(subscribe, a_user_has_so_many_different_rooms)
{
    struct rh_session *s, *other;
    struct rh_span b = RH_SPAN("b");
    uint64_t hash;

    begin();
    rig.cfg->rooms_per_user = 2;
    hash = rh_hash(&rig.env.hash_key, "b", 1);
    s = member("u", "a");
    other = member("u", "a"); /* the same one again */
    RH_EQ_U64(rh_user_rooms(rh_session_user(s)), 1);
    RH_OK_IF(!rh_sub_over_limit(rig.sh, rh_session_user(s), hash, b));
    RH_OK_IF(join(s, "c", UINT64_MAX));
    settle_down();
    RH_OK_IF(rh_sub_over_limit(rig.sh, rh_session_user(s), hash, b));
    RH_OK_IF(!rh_sub_over_limit(rig.sh, rh_session_user(s), rh_hash(&rig.env.hash_key, "a", 1),
                                RH_SPAN("a")));
    RH_OK_IF(leave(s, "a"));
    settle_down();
    RH_OK_IF(
        rh_sub_over_limit(rig.sh, rh_session_user(s), hash, b)); /* the other one is still there */
    RH_OK_IF(leave(other, "a"));
    settle_down();
    RH_EQ_U64(rh_user_rooms(rh_session_user(s)), 1);
    end();
}

RH_TEST(subscribe, a_session_that_ends_while_it_asks_is_uncounted_by_the_answer)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    RH_OK_IF(join(s, "a", 0));
    home_step();
    RH_EQ_U64(count_of("a", true), 1);
    conn_die(s->conn, 1000, true);
    RH_EQ_U64(rh_map_count(&rig.sh->users), 0);
    settle_down();
    RH_EQ_U64(count_of("a", false), 0);
    end();
}

RH_TEST(subscribe, a_refused_join_leaves_nothing)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    rig.refuse_memory = true;
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    RH_OK_IF(!sub_of_room(s, "a"));
    RH_EQ_U64(rh_user_rooms(rh_session_user(s)), 0);
    rig.refuse_memory = false;
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    rig.refuse_memory = true; /* again: it stays what it is */
    RH_OK_IF(join(s, "a", 0) && rig.sh);
    settle_down();
    RH_EQ_INT(sub_of_room(s, "a")->state, RH_SUB_ACTIVE);
    RH_OK_IF(leave(s, "a"));
    settle_down();
    RH_EQ_INT(sub_of_room(s, "a")->state, RH_SUB_ACTIVE);
    end();
}

/* ---- missed messages ---- */

RH_TEST(subscribe, missed_ones_come_at_the_pace_of_the_client_and_live_ones_behind_them)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    publish_some("a", 100);
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    RH_EQ_U64(s->conn->out->missed, 32);
    RH_EQ_U64(s->more->replaying, 1);
    publish_some("a", 2);
    settle_down();
    RH_EQ_U64(s->more->parked, 2);
    RH_EQ_U64(s->more->parked_bytes, 8);
    send_all(s);
    RH_EQ_U64(s->more->replaying + s->more->parked + s->more->parked_bytes, 0);
    RH_EQ_U64(rig.got_count, 102);
    for (unsigned i = 0; i < 102; i++)
        RH_EQ_U64(rig.got[i].from, i + 1);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_messages_replayed], 100);
    end();
}

RH_TEST(subscribe, what_is_owed_comes_by_history_in_its_place)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    rh_user_more(rh_session_user(s))->owed = (struct rh_owed *)8;
    rig.owed = true;
    publish_some("a", 7);
    RH_OK_IF(join(s, "a", 1));
    settle_down();
    RH_EQ_INT(rig.pumps, 2); /* the answer has come, and all is queued */
    publish_some("a", 1);
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "2 1004 5 1007 8 "); /* what has no room is passed over */
    RH_EQ_U64(sub_of_room(s, "a")->seq, 8);
    rh_session_user(s)->more->owed = NULL;
    end();
}

RH_TEST(subscribe, what_was_parked_is_asked_for_once)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    publish_some("a", 40);
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    rig.owed = true;
    publish_some("a", 2);
    settle_down();
    RH_EQ_U64(s->more->parked, 2);
    send_all(s);
    RH_EQ_U64(rig.got_count, 42);
    RH_EQ_U64(rig.got[41].from, 42);
    end();
}

RH_TEST(subscribe, a_repetition_that_does_not_arrive_moves_no_resume)
{
    struct rh_session *s;
    struct rh_handle *h;

    begin();
    s = arrive("u");
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    publish_some("a", 5);
    settle_down();
    send_all(s);
    h = rh_handle_make(&rig.sh->stock.handles, message(room("a")->uid, 2));
    h->msg->apart = true;
    queue(s->conn, h, false);
    rh_handle_unref(&rig.sh->stock.handles, h);
    conn_die(s->conn, 1006, false);
    RH_EQ_U64(sub_of_room(s, "a")->seq, 5);
    come_back(s);
    settle_down();
    RH_EQ_U64(rig.last.since, 5);
    end();
}

RH_TEST(subscribe, two_rooms_take_turns)
{
    struct rh_session *s;
    unsigned of_b = 0;

    begin();
    s = arrive("u");
    publish_some("a", 100);
    publish_some("b", 100);
    RH_OK_IF(join(s, "a", 0) && join(s, "b", 0));
    settle_down();
    send_all(s);
    for (unsigned i = 32; i < 64; i++)
        of_b += rig.got[i].uid == room("b")->uid;
    RH_EQ_U64(of_b, 16);
    RH_EQ_U64(rig.got_count, 200);
    end();
}

RH_TEST(subscribe, at_the_bound_live_ones_are_lost_until_the_missed_ones_are_through)
{
    struct rh_session *s;

    begin();
    rig.cfg->limits_slow_consumer = RH_SLOW_NEWEST;
    s = arrive("u");
    publish_some("a", 40);
    RH_OK_IF(join(s, "a", 38 - 36));
    settle_down();
    publish_some("a", 1);
    settle_down();
    rig.full = true;
    publish_some("a", 2);
    settle_down();
    rig.full = false;
    publish_some("a", 1);
    settle_down();
    fifo_add(&rig.down, (struct step){.what = DOWN_MSG, .uid = room("a")->uid}); /* a notice */
    settle_down();
    send_all(s);
    publish_some("a", 1);
    settle_down();
    send_all(s);
    RH_EQ_U64(rig.got_count, 38 + 1 + 1 + 1 + 1);
    memmove(rig.got, rig.got + 37, 5 * sizeof(rig.got[0]));
    rig.got_count = 5;
    RH_EQ_STR(text(), "40 41 -42..44 ! 45 ");
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_messages_dropped_slow_consumer], 3);
    end();
}

RH_TEST(subscribe, at_the_bound_disconnect_closes)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    publish_some("a", 40);
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    rig.full = true;
    publish_some("a", 1);
    settle_down();
    rig.full = false;
    RH_EQ_U64(rig.close_code[s->conn->slot], 4408);
    RH_EQ_U64(s->more->replaying, 0);
    conn_die(s->conn, 1006, false);
    come_back(s);
    settle_down();
    RH_EQ_U64(rig.last.since, 0);
    end();
}

/* They have no number by which they could be told as lost, so they are parked beyond the bound, as
 * they would go on in a queue, but not without an end. */
RH_TEST(subscribe, notices_behind_missed_ones_are_bounded)
{
    static const struct {
        enum rh_slow_consumer policy;
        uint32_t parked;
    } rows[] = {{RH_SLOW_DISCONNECT, 0}, {RH_SLOW_NEWEST, OVERFULL}, {RH_SLOW_OLDEST, OVERFULL}};

    for (unsigned i = 0; i < RH_COUNT(rows); i++) {
        struct rh_session *s;
        uint32_t parked = 0;

        begin();
        rig.cfg->limits_slow_consumer = rows[i].policy;
        s = arrive("u");
        publish_some("a", 50);
        RH_OK_IF(join(s, "a", 0));
        settle_down();
        RH_OK_IF(sub_of_room(s, "a")->replay);
        rig.full = true; /* the client takes nothing */
        while (s->conn->state == RH_CONN_OPEN && parked <= OVERFULL) {
            parked = s->more->parked;
            fifo_add(&rig.down, (struct step){.what = DOWN_MSG, .uid = room("a")->uid});
            settle_down();
        }
        RH_EQ_U64(rig.close_code[s->conn->slot], 4408);
        RH_EQ_U64(parked, rows[i].parked);
        end();
    }
}

/* The home's answer comes before the branch has handed out what the old life ended with. */
RH_TEST(subscribe, joined_again_while_it_is_deleted_gets_the_end_of_the_old_life)
{
    struct rh_session *s;
    struct step step;

    begin();
    s = member("u", "a");
    publish_some("a", 2);
    fifo_add(&rig.down, (struct step){.what = DOWN_MSG, .uid = room("a")->uid}); /* room.deleted */
    delete (room("a"));
    RH_OK_IF(join(s, "a", UINT64_MAX));
    RH_OK_IF(fifo_take(&rig.up, &step));
    step.ask->err = RH_WIRE_not_found; /* no room is begun by joining it */
    fifo_add(&rig.down, (struct step){.what = DOWN_ANSWER, .ask = step.ask});
    while (down_step())
        ;
    RH_OK_IF(!sub_of_room(s, "a"));
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "1 2 ! ");
    end();
}

RH_TEST(subscribe, joined_again_while_it_begins_anew_gets_the_end_of_the_old_life)
{
    struct rh_session *s;

    begin();
    s = member("u", "a");
    publish_some("a", 2);
    fifo_add(&rig.down, (struct step){.what = DOWN_MSG, .uid = room("a")->uid}); /* room.deleted */
    delete (room("a"));
    RH_OK_IF(join(s, "a", UINT64_MAX));
    home_step();
    while (down_step()) /* the branch has not been walked yet */
        ;
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "1 2 ! ");
    publish_some("a", 1);
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "1 ");
    end();
}
RH_TEST(subscribe, joined_again_with_since_gets_the_missed_ones_again)
{
    struct rh_session *s;

    begin();
    s = member("u", "a");
    publish_some("a", 5);
    settle_down();
    send_all(s);
    rig.got_count = 0;
    publish_some("a", 1);
    RH_OK_IF(join(s, "a", 3));
    home_step();
    publish_some("a", 1);
    while (down_step()) /* all is there before anything is handed out */
        ;
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "4 5 6 7 ");
    RH_OK_IF(join(s, "a", UINT64_MAX)); /* and without: nothing */
    publish_some("a", 1);
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "8 ");
    RH_EQ_U64(count_of("a", true), 1);
    end();
}

RH_TEST(subscribe, a_connection_that_goes_while_missed_ones_wait_has_them_again)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    publish_some("a", 100);
    RH_OK_IF(join(s, "a", 10));
    settle_down();
    publish_some("a", 3);
    settle_down();
    conn_send(s->conn, 5, false);
    RH_EQ_STR(text(), "11 12 13 14 15 ");
    conn_die(s->conn, 1006, false);
    RH_EQ_U64(sub_of_room(s, "a")->seq, 15);
    RH_EQ_U64(s->more->parked + s->more->replaying, 0);
    come_back(s);
    settle_down();
    send_all(s);
    RH_EQ_U64(rig.got_count, 103 - 15);
    RH_EQ_U64(rig.got[0].from, 16);
    end();
}

/* ---- resume ---- */

RH_TEST(subscribe, an_answer_for_another_connection_is_asked_for_again)
{
    struct rh_session *s;

    begin();
    s = member("u", "a");
    publish_some("a", 4);
    settle_down();
    send_all(s);
    rig.got_count = 0;
    RH_OK_IF(join(s, "a", UINT64_MAX));
    come_back(s);
    RH_EQ_INT(sub_of_room(s, "a")->state, RH_SUB_ASKED);
    publish_some("a", 1);
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "5 ");
    RH_EQ_U64(count_of("a", true), 1);
    RH_OK_IF(leave(s, "a")); /* a leave that is out is not taken back */
    come_back(s);
    settle_down();
    RH_OK_IF(!sub_of_room(s, "a"));
    RH_EQ_U64(count_of("a", false), 0);
    end();
}

/* Its rooms= finds the subscription that the old connection's leave is about to end. */
RH_TEST(subscribe, a_room_named_while_its_leave_is_out_is_joined_anew)
{
    struct rh_session *s;

    begin();
    s = member("u", "a");
    RH_OK_IF(leave(s, "a"));
    conn_die(s->conn, 1006, false);
    come_back(s);
    sub_of_room(s, "a")->named = true; /* as room_requests.c does */
    settle_down();
    RH_OK_IF(sub_of_room(s, "a") && sub_of_room(s, "a")->state == RH_SUB_ACTIVE);
    RH_EQ_U64(count_of("a", false), 1);
    RH_EQ_U64(count_of("a", true), 1);
    RH_OK_IF(rig.last.notify && rig.last.op == RH_ASK_JOIN);
    publish_some("a", 1);
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "1 ");
    RH_OK_IF(leave(s, "a")); /* and one that is not named is left */
    conn_die(s->conn, 1006, false);
    come_back(s);
    settle_down();
    RH_OK_IF(!sub_of_room(s, "a"));
    end();
}

RH_TEST(subscribe, since_of_the_new_connection_wins)
{
    struct rh_session *s;
    struct rh_sub *sub;

    begin();
    s = member("u", "a");
    publish_some("a", 4);
    settle_down();
    send_all(s);
    rig.got_count = 0;
    conn_die(s->conn, 1006, false);
    sub = sub_of_room(s, "a");
    sub->has_since = true;
    sub->since = 2;
    come_back(s);
    settle_down();
    send_all(s);
    RH_EQ_STR(text(), "3 4 ");
    RH_OK_IF(!sub->has_since);
    end();
}

RH_TEST(subscribe, a_room_deleted_meanwhile_is_told_once)
{
    struct rh_session *s;
    struct rh_sub *sub;

    begin();
    s = member("u", "a");
    conn_die(s->conn, 1006, false);
    settle_down();
    delete (room("a"));
    settle_down();
    RH_OK_IF(!sub_of_room(s, "a")); /* kept, but no more one of its rooms */
    RH_EQ_U64(rh_user_rooms(rh_session_user(s)), 0);
    room("a"); /* lives again */
    come_back(s);
    sub = rh_sub_create(rig.sh, s, rh_hash(&rig.env.hash_key, "b", 1), RH_SPAN("b"));
    rh_sub_want(rig.sh, sub);
    settle_down();
    RH_EQ_U64(rig.gone, 1);
    RH_EQ_U64(count_of("a", false), 0);
    RH_EQ_U64(count_of("b", true), 1);
    come_back(s);
    settle_down();
    RH_EQ_U64(rig.gone, 1);
    end();
}

RH_TEST(subscribe, a_room_deleted_while_a_resume_asks_is_told_once)
{
    struct rh_session *s;

    begin();
    s = member("u", "a");
    conn_die(s->conn, 1006, false);
    come_back(s); /* WANTED, when it is deleted */
    delete (room("a"));
    while (down_step() || branches_step())
        ;
    RH_EQ_U64(rig.gone, 1);
    settle_down();
    RH_OK_IF(!rh_session_has_subs(s));

    RH_OK_IF(join(s, "b", UINT64_MAX));
    settle_down();
    come_back(s);
    rh_subs_wanted(rig.sh); /* ASKED */
    delete (room("b"));
    settle_down();
    RH_EQ_U64(rig.gone, 1); /* the answer says it */
    RH_EQ_INT(rig.last.err, RH_WIRE_not_found);
    RH_OK_IF(rig.last.notify && !rh_session_has_subs(s));
    end();
}

RH_TEST(subscribe, the_last_messages_of_a_deleted_room_come_before_its_end)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    publish_some("a", 50);
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    publish_some("a", 1);
    fifo_add(&rig.down, (struct step){.what = DOWN_MSG, .uid = room("a")->uid});
    delete (room("a"));
    settle_down();
    RH_OK_IF(!rh_session_has_subs(s));
    RH_EQ_U64(s->more->replaying + s->more->parked + s->more->parked_bytes, 0);
    send_all(s);
    RH_EQ_U64(rig.got_count, 52);
    RH_EQ_U64(rig.got[50].from, 51);
    RH_EQ_U64(rig.got[51].from, 0);
    end();
}

/* ---- another shard's rooms ---- */

static void drop_event(void *arg, const struct rh_event *ev)
{
    if (ev->kind == RH_EV_UNSUB)
        (*(unsigned *)arg) |= 1u << (4 * ev->flags);
    else if (ev->kind == RH_EV_ROOM)
        rh_ask_pop(rig.sh, ev);
}

static void nobody_sleeps(void *arg, unsigned tid)
{
}

/* One turn of each thread: events go to tid 1 and answers come back. */
static unsigned turn(struct rh_net *net)
{
    struct rh_shard *home = rh_mem_zalloc_aligned(sizeof(*home));
    unsigned seen = 0;
    struct step step;

    home->tid = 1;
    home->mesh = rh_net_member(net, 1);
    rh_mesh_publish(rig.sh->mesh);
    rh_tid_set(1);
    while (rh_mesh_pop(home->mesh, drop_event, &seen))
        ;
    while (home_step())
        while (fifo_take(&rig.down, &step))
            rh_ask_answer(home, step.ask);
    rh_mesh_publish(home->mesh);
    rh_tid_set(0);
    rh_mem_free(home);
    return seen;
}

static unsigned exchange(struct rh_net *net)
{
    unsigned seen = 0;

    for (unsigned i = 0; i < 8; i++) /* what spilled takes some */
        seen |= turn(net);
    return seen;
}

static void take_answer(void *arg, const struct rh_event *ev)
{
    rh_ask_done_pop(rig.sh, ev);
}

static void remote_begin(struct rh_net **net, char name[2])
{
    begin();
    rig.env.shards = 2;
    rh_tid_set(0);
    RH_EQ_INT(rh_net_create(2, nobody_sleeps, NULL, net), RH_OK);
    rig.sh->mesh = rh_net_member(*net, 0);
    name[1] = 0;
    for (name[0] = 'a'; rh_hash_shard(rh_hash(&rig.env.hash_key, name, 1), 2) != 1; name[0]++)
        ;
}

RH_TEST(subscribe, asks_another_shard_and_gives_the_credit_back)
{
    struct rh_mesh_stat stat;
    struct rh_session *s;
    struct rh_net *net;
    char name[2];

    remote_begin(&net, name);
    s = arrive("u");
    RH_OK_IF(join(s, name, 0));
    RH_EQ_U64(s->asks, 1);
    exchange(net);
    RH_EQ_U64(rh_mesh_pop(rig.sh->mesh, take_answer, NULL), 1);
    rh_mesh_stat_any(rig.sh->mesh, &stat);
    RH_EQ_U64(stat.credit_out, 0);
    RH_EQ_U64(s->asks, 0);
    RH_EQ_INT(sub_of_room(s, name)->state, RH_SUB_ACTIVE);
    conn_die(s->conn, 1006, false);
    RH_EQ_U64(exchange(net), 1u << (4 * RH_UNSUB_DETACH));
    rh_session_end(rig.sh, s);
    RH_EQ_U64(exchange(net), 1u << (4 * RH_UNSUB_END));
    memset(rig.rooms, 0, sizeof(rig.rooms));
    end();
    rh_net_destroy(net);
}

/* The ring and what a spill has without an allocation are full: the next tell needs memory. */
static void fill_up(void)
{
    struct rh_event ev = {.kind = RH_EV_FANNED};

    for (unsigned i = 0; i < RH_RING_SLOTS - 1 + RH_SPILL_TELLS; i++)
        RH_EQ_INT(rh_mesh_tell(rig.sh->mesh, 1, &ev), RH_OK);
    rh_mem_fail_nth(1);
}

RH_TEST(subscribe, an_end_that_cannot_be_told_is_told_later)
{
    struct rh_session *s;
    struct rh_net *net;
    char name[2];

    remote_begin(&net, name);
    s = arrive("u");
    RH_OK_IF(join(s, name, 0));
    exchange(net);
    rh_mesh_pop(rig.sh->mesh, take_answer, NULL);
    fill_up();
    conn_die(s->conn, 1006, false);
    RH_OK_IF(!rh_list_empty(&rig.sh->ending) && sub_of_room(s, name)->live);
    RH_EQ_U64(exchange(net), 0);
    rh_subs_wanted(rig.sh);
    RH_OK_IF(rh_list_empty(&rig.sh->ending) && !sub_of_room(s, name)->live);
    RH_EQ_U64(exchange(net), 1u << (4 * RH_UNSUB_DETACH));

    fill_up();
    rh_session_end(rig.sh, s); /* without a session, without a user */
    RH_EQ_U64(rh_map_count(&rig.sh->users), 0);
    RH_EQ_U64(rh_session_next_ms(rig.sh), 5);
    exchange(net);
    rh_subs_wanted(rig.sh);
    RH_EQ_U64(exchange(net), 1u << (4 * RH_UNSUB_END));
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_subscriptions], 0);
    memset(rig.rooms, 0, sizeof(rig.rooms));
    end();
    rh_net_destroy(net);
}

RH_TEST(subscribe, waits_for_a_credit_in_line)
{
    struct rh_session *s;
    struct rh_sub *sub;
    struct rh_net *net;
    struct rh_event ev = {.kind = RH_EV_BROADCAST};
    char name[2];

    remote_begin(&net, name);
    s = arrive("u");
    while (rh_mesh_can_ask(rig.sh->mesh, 1, 1))
        RH_EQ_INT(rh_mesh_ask(rig.sh->mesh, 1, &ev, 1), RH_OK);
    sub = rh_sub_create(rig.sh, s, rh_hash(&rig.env.hash_key, name, 1), (struct rh_span){name, 1});
    rh_sub_want(rig.sh, sub);
    rh_subs_wanted(rig.sh);
    RH_OK_IF(!sub->asking && !rh_list_empty(&rig.sh->wanted));
    conn_die(s->conn, 1006, false); /* nobody asks any more */
    RH_OK_IF(rh_list_empty(&rig.sh->wanted));
    come_back(s);
    RH_OK_IF(!rh_list_empty(&rig.sh->wanted));
    rh_session_end(rig.sh, s);
    RH_OK_IF(rh_list_empty(&rig.sh->wanted));
    rig.room_count = 0;
    end();
    rh_net_destroy(net);
}

/* ---- anything, in any order ---- */

#define CLIENTS 3
#define NAMES   2

static struct client {
    char user[2];
    char id[RH_SESSION_ID]; /* of its session; 0: none */
    struct {
        bool joined;
        uint64_t last; /* got up to here, losses included */
        uint64_t here; /* on this connection */
    } rooms[ROOMS];
} clients[CLIENTS];
static struct client *owner[CONNS];
static unsigned checked; /* rooms of clients that got everything */

static struct rh_session *session_of(const struct client *cl)
{
    struct rh_user *user =
        rh_user_find(rig.sh, rh_hash(&rig.env.hash_key, cl->user, 1), cl->user, 1);

    return user ? rh_session_find(rig.sh, user, (struct rh_span){cl->id, sizeof(cl->id)}) : NULL;
}

static void forget_room(struct client *cl, const struct rh_ask *ask)
{
    for (unsigned i = 0; i < rig.room_count; i++)
        if (rig.rooms[i].name[0] == *rh_ask_room(ask).at)
            cl->rooms[i].joined = false;
}

/* What a client learns from an answer: from where on it is to get everything. */
static void look_at_answer(struct client *cl, const struct rh_ask *ask)
{
    uint64_t *last = &cl->rooms[ask->uid - (ask->uid != 0)].last;

    if (ask->err || ask->op == RH_ASK_LEAVE) {
        if (!ask->err || (ask->op == RH_ASK_JOIN && (ask->notify || !ask->again)))
            forget_room(cl, ask);
        return;
    }
    if (ask->again && !ask->has_since)
        return;
    if (!ask->has_since)
        *last = ask->seq;
    else if (!ask->notify || !cl->rooms[ask->uid - 1].joined)
        *last = RH_MIN(ask->since, ask->seq);
    else if (ask->since > *last)
        RH_FAIL("resumed behind %u, got only %u", (unsigned)ask->since, (unsigned)*last);
    cl->rooms[ask->uid - 1].joined = true;
    cl->rooms[ask->uid - 1].here = 0;
}

static void look_at(const struct got *g)
{
    struct client *cl = owner[g->slot];
    uint64_t *last = &cl->rooms[g->uid - 1].last;

    if (!g->from || !cl->rooms[g->uid - 1].joined)
        return;
    if (g->from > *last + 1)
        RH_FAIL("room %u: %u after %u", (unsigned)g->uid, (unsigned)g->from, (unsigned)*last);
    if (g->from <= cl->rooms[g->uid - 1].here)
        RH_FAIL("%u came twice", (unsigned)g->from);
    cl->rooms[g->uid - 1].here = g->to;
    *last = RH_MAX(*last, g->to);
}

static void look(void)
{
    for (unsigned i = 0; i < rig.got_count; i++) {
        const struct got *g = &rig.got[i];

        if (owner[g->slot] && g->answer)
            look_at_answer(owner[g->slot], g->answer);
        else if (owner[g->slot])
            look_at(g);
        free(g->answer);
    }
    rig.got_count = 0;
}

static void forget(struct client *cl)
{
    memset(cl->id, 0, sizeof(cl->id));
    memset(cl->rooms, 0, sizeof(cl->rooms));
}

static void connect_client(struct client *cl)
{
    struct rh_session *s = session_of(cl);

    for (unsigned i = 0; i < CONNS; i++) /* it listens to its new connection only */
        if (owner[i] == cl)
            owner[i] = NULL;
    if (s) {
        come_back(s);
        owner[s->conn->slot] = cl;
        for (unsigned i = 0; i < ROOMS; i++)
            cl->rooms[i].here = 0;
    } else {
        forget(cl);
        s = arrive(cl->user);
        if (!s)
            return;
        rh_session_id(rig.sh, s, cl->id);
        owner[s->conn->slot] = cl;
    }
}

static void disturb(struct client *cl)
{
    static const unsigned codes[] = {1006, 1001, 4408, 4410, 4403};
    struct rh_session *s = session_of(cl);
    struct rh_conn *c = s ? s->conn : NULL;
    unsigned code = codes[rh_test_rand() % RH_COUNT(codes)];

    if (!c)
        return;
    switch (rh_test_rand() % 8) {
    case 0:
        rh_conn_close(rig.sh, c, code, "");
        break;
    case 1:
        if (!rh_outq_flying(c->out))
            conn_send(c, 1 + (unsigned)(rh_test_rand() % 9), true);
        look();
        conn_die(c, code, rh_test_rand() % 4 == 0);
        break;
    default:
        conn_send(c, 1 + (unsigned)(rh_test_rand() % 20), false);
        look();
        break;
    }
}

/* One that closes goes on sending for a while. */
static void let_close(struct rh_conn *c)
{
    if (c->state != RH_CONN_CLOSING)
        return;
    if (rh_test_rand() % 2 && !rh_outq_flying(c->out))
        conn_send(c, 5, false);
    else
        conn_die(c, 1006, false);
    look();
}

static void request(struct client *cl)
{
    struct rh_session *s = session_of(cl);
    const char *name = rh_test_rand() % NAMES ? "a" : "b";
    struct rh_sub *sub = s ? sub_of_room(s, name) : NULL;

    if (!s || !s->conn || s->conn->state != RH_CONN_OPEN || rig.answers[s->conn->slot].head ||
        (sub && (sub->asking || sub->state != RH_SUB_ACTIVE)))
        return;
    if (!sub)
        cl->rooms[room(name)->uid - 1].joined = false;
    if (sub && rh_test_rand() % 4 == 0 && leave(s, name))
        cl->rooms[sub->uid - 1].joined = false; /* whether it hears of it or not */
    else if (!sub || !sub->asking)
        join(s, name,
             rh_test_rand() % 2 ? UINT64_MAX
                                : rh_test_rand() % (cl->rooms[room(name)->uid - 1].last + 1));
}

static void one_step(bool memory_fails)
{
    struct client *cl = &clients[rh_test_rand() % CLIENTS];
    struct room *r = room(rh_test_rand() % NAMES ? "a" : "b");

    if (memory_fails && rh_test_rand() % 16 == 0)
        rh_mem_fail_nth(1 + rh_test_rand() % 4);
    rig.full = rh_test_rand() % 8 == 0;
    rig.refuse_memory = rh_test_rand() % 16 == 0;
    let_close(&rig.conns[rh_test_rand() % CONNS]);
    switch (rh_test_rand() % 16) {
    case 0:
        if (!session_of(cl) || rh_test_rand() % 4 == 0)
            connect_client(cl);
        break;
    case 1:
    case 2:
        request(cl);
        break;
    case 3:
    case 4:
        for (unsigned n = rh_test_rand() % 8; n--;)
            publish(r);
        break;
    case 5:
    case 6:
        disturb(cl);
        break;
    case 7:
        rh_subs_wanted(rig.sh);
        break;
    case 8:
        rig.sh->now_ms += rh_test_rand() % 3000;
        rh_session_expire(rig.sh);
        break;
    case 9:
        if (rh_test_rand() % 32 == 0 && rig.room_count < ROOMS - 4)
            delete (r);
        break;
    case 10:
    case 11:
        home_step();
        break;
    case 12:
    case 13:
        down_step();
        break;
    default:
        branches_step();
        break;
    }
    rh_mem_fail_nth(0);
    rig.full = rig.refuse_memory = false;
}

/* At rest: whoever subscribes has got everything, and the home counts what there is. */
static void check_at_rest(void)
{
    uint64_t subs[ROOMS] = {0}, live[ROOMS] = {0};

    settle_down();
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *cl = &clients[i];
        struct rh_session *s = session_of(cl);
        bool open = s && s->conn && s->conn->state == RH_CONN_OPEN;
        struct rh_list *end;

        for (unsigned n = 0; open && n < 200 && s->conn->out; n++)
            conn_send(s->conn, 64, false);
        look();
        end = s && s->more ? &s->more->subs : NULL;
        for (struct rh_list *at = end ? end->next : NULL; at != end; at = at->next) {
            struct rh_sub *sub = rh_container_of(at, struct rh_sub, of_session);

            RH_OK_IF(!sub->asking);
            subs[sub->uid - (sub->uid != 0)] += sub->counted;
            live[sub->uid - (sub->uid != 0)] += open && sub->counted;
            if (!open)
                continue;
            RH_EQ_INT(sub->state, RH_SUB_ACTIVE);
            RH_OK_IF(sub->live && !sub->replay);
            if (cl->rooms[sub->uid - 1].joined)
                RH_EQ_U64(cl->rooms[sub->uid - 1].last, rig.rooms[sub->uid - 1].seq);
            checked += cl->rooms[sub->uid - 1].joined;
        }
    }
    for (unsigned i = 0; i < rig.room_count; i++) {
        uint64_t have = 0, have_live = 0;

        for (unsigned j = 0; j < 4; j++) {
            have += rig.rooms[i].members[j].subs;
            have_live += rig.rooms[i].members[j].live;
        }
        if (rig.rooms[i].over)
            continue;
        RH_EQ_U64(have, subs[i]);
        RH_EQ_U64(have_live, live[i]);
    }
}

static void any_order(bool memory_fails, enum rh_slow_consumer policy)
{
    begin();
    rig.cfg->limits_slow_consumer = policy;
    rig.keep_answers = true;
    memset(clients, 0, sizeof(clients));
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i].user[0] = i ? 'u' : 'v';
    for (unsigned i = 0; i < 30; i++) {
        for (unsigned n = 0; n < 200; n++)
            one_step(memory_fails);
        check_at_rest();
    }
    end();
}

RH_TEST(subscribe, anything_in_any_order_leaves_no_hole)
{
    for (unsigned i = 0; i < 40; i++)
        any_order(false, i % 2 ? RH_SLOW_DISCONNECT : RH_SLOW_NEWEST);
    RH_OK_IF(checked > 1000);
}

RH_TEST(subscribe, anything_in_any_order_without_memory_leaves_no_hole)
{
    for (unsigned i = 0; i < 40; i++)
        any_order(true, i % 2 ? RH_SLOW_DISCONNECT : RH_SLOW_NEWEST);
}
