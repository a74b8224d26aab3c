/* Sessions: who ends at once, who waits, who is found again, and what a closing connection owes. */
#include "tests/shard/session_rig.h"

static struct rh_span id_of(const struct rh_session *s)
{
    static char text[RH_SESSION_ID];

    rh_session_id(rig.sh, s, text);
    return (struct rh_span){text, sizeof(text)};
}

RH_TEST(session, has_a_name_by_which_its_own_user_finds_it)
{
    struct rh_session *s, *other;

    begin();
    s = arrive("u");
    other = arrive("v");
    RH_OK_IF(rh_session_find(rig.sh, rh_session_user(s), id_of(s)) == s);
    RH_OK_IF(!rh_session_find(rig.sh, rh_session_user(s), id_of(other)));
    RH_OK_IF(!rh_session_find(rig.sh, rh_session_user(s), (struct rh_span){"", 0}));
    RH_OK_IF(!rh_session_find(rig.sh, rh_session_user(s), (struct rh_span){id_of(s).at, 31}));
    RH_EQ_U64(rig.sh->sessions, 2);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_users], 2);
    end();
}

/* Of two shards, or two runs, no name says anything about another one. */
RH_TEST(session, names_are_all_different_and_keyed)
{
    static char ids[2][300][RH_SESSION_ID + 1];
    struct rh_session s = {0};

    begin();
    for (unsigned key = 0; key < 2; key++) {
        rig.sh->session_keys[0].k0 = rig.sh->session_keys[1].k1 = key;
        for (unsigned i = 0; i < 300; i++) {
            s.number = i + 1;
            rh_session_id(rig.sh, &s, ids[key][i]);
            RH_EQ_INT(strspn(ids[key][i], "0123456789abcdef"), RH_SESSION_ID);
            for (unsigned k = 0; k < key * 300 + i; k++) {
                const char *before = ids[k / 300][k % 300];

                RH_OK_IF(memcmp(before, ids[key][i], 16) &&
                         memcmp(before + 16, ids[key][i] + 16, 16));
            }
        }
    }
    rig.sh->session_keys[1].k1 = 0; /* either key has its half */
    rh_session_id(rig.sh, &s, ids[0][0]);
    RH_OK_IF(!memcmp(ids[0][0], ids[1][299], 16));
    RH_OK_IF(!memcmp(ids[0][0] + 16, ids[0][299] + 16, 16));
    end();
}

RH_TEST(session, an_idle_client_is_one_block_of_memory)
{
    struct rh_session *s;

    begin();
    rh_mem_fail_nth(1000);
    s = arrive("u");
    RH_EQ_U64(rh_mem_fail_left(), 999);
    conn_die(s->conn, 1006, false); /* and to wait for it takes none */
    come_back(s);
    RH_EQ_U64(rh_mem_fail_left(), 999);
    rh_mem_fail_nth(0);
    end();
}

/* The sessions of a user that has two: which they are, how many live, how many wait. */
static void two(struct rh_user *user, const struct rh_session *a, const struct rh_session *b,
                uint32_t devices)
{
    struct rh_session *first = rh_session_next(user, NULL), *next = rh_session_next(user, first);

    RH_OK_IF((first == a && next == b) || (first == b && next == a));
    RH_OK_IF(!rh_session_next(user, next));
    RH_EQ_INT(rh_user_devices(user), devices);
    RH_EQ_INT(rh_user_detached(user), 2 - devices);
    RH_OK_IF(rh_session_find(rig.sh, user, id_of(a)) == a);
    RH_OK_IF(rh_session_find(rig.sh, user, id_of(b)) == b);
}

RH_TEST(session, the_place_in_its_user_is_used_again)
{
    struct rh_session *a, *b, *c;
    struct rh_user *user;
    char old[RH_SESSION_ID];

    begin();
    a = arrive("u");
    user = rh_session_user(a);
    rh_session_id(rig.sh, a, old);
    RH_OK_IF(a == &user->first && !user->more && rh_user_devices(user) == 1);
    b = arrive("u");
    RH_OK_IF(b != a && rh_session_user(b) == user);
    two(user, a, b, 2);
    conn_die(a->conn, 1000, true);
    RH_OK_IF(rh_session_next(user, NULL) == b && !rh_session_next(user, b));
    RH_EQ_INT(rh_user_devices(user), 1);
    c = arrive("u");
    RH_OK_IF(c == a && !rh_session_find(rig.sh, user, (struct rh_span){old, sizeof(old)}));
    two(user, b, c, 2);
    conn_die(c->conn, 1006, false);
    two(user, b, c, 1);
    conn_die(b->conn, 1006, false);
    two(user, b, c, 0);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_users], 0);
    come_back(b);
    two(user, b, c, 1);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_users], 1);
    end();
}

RH_TEST(session, rooms_of_a_user_count_once_whatever_its_sessions)
{
    struct rh_session *a, *b;
    struct rh_user *user;

    begin();
    a = arrive("u");
    user = rh_session_user(a);
    RH_OK_IF(join(a, "a", UINT64_MAX) && join(a, "b", UINT64_MAX));
    settle_down();
    RH_EQ_INT(rh_user_rooms(user), 2);
    b = arrive("u");
    RH_OK_IF(join(b, "b", UINT64_MAX) && join(b, "c", UINT64_MAX));
    settle_down();
    RH_EQ_INT(rh_user_rooms(user), 3);
    conn_die(a->conn, 1000, true);
    settle_down();
    RH_EQ_INT(rh_user_rooms(user), 2);
    RH_OK_IF(leave(b, "b"));
    settle_down();
    RH_EQ_INT(rh_user_rooms(user), 1);
    a = arrive("u");
    RH_OK_IF(join(a, "c", UINT64_MAX) && join(a, "a", UINT64_MAX));
    settle_down();
    RH_EQ_INT(rh_user_rooms(user), 2);
    end();
}

static struct rh_arrival said(const char *device, const char *type, const char *role, bool trace)
{
    struct rh_arrival a = {.device_len = (uint8_t)strlen(device),
                           .type_len = (uint8_t)strlen(type),
                           .role_len = (uint8_t)strlen(role),
                           .up.has_trace = trace};

    memcpy(a.device, device, a.device_len);
    memcpy(a.user_type, type, a.type_len);
    memcpy(a.role, role, a.role_len);
    memset(a.up.trace_id, 't', sizeof(a.up.trace_id));
    return a;
}

static void is_said(const struct rh_session *s, const char *device, const char *type,
                    const char *role, bool trace)
{
    RH_OK_IF(rh_span_eq(rh_session_device(s), (struct rh_span){device, (uint32_t)strlen(device)}));
    RH_OK_IF(rh_span_eq(rh_session_type(s), (struct rh_span){type, (uint32_t)strlen(type)}));
    RH_OK_IF(rh_span_eq(rh_session_role(s), (struct rh_span){role, (uint32_t)strlen(role)}));
    RH_EQ_INT(rh_session_trace(s).len, trace ? RH_TRACE_ID_LEN : 0);
    RH_OK_IF(!trace || rh_session_trace(s).at[31] == 't');
}

RH_TEST(session, knows_what_its_client_said_last)
{
    struct rh_arrival nothing = said("", "", "", false),
                      much = said("phone", "agent", "lead", true),
                      other = said("", "bot", "", false);
    struct rh_session *s;

    begin();
    s = arrive("u");
    is_said(s, "", "", "", false);
    RH_OK_IF(rh_session_identify(s, &nothing) && !s->more);
    RH_OK_IF(rh_session_identify(s, &much));
    is_said(s, "phone", "agent", "lead", true);
    RH_OK_IF(join(s, "a", UINT64_MAX) && join(s, "b", UINT64_MAX));
    settle_down();
    conn_die(s->conn, 1006, false);
    s->more->rate_ns = 7;
    rh_mem_fail_nth(1);
    RH_OK_IF(!rh_session_identify(s, &other));
    rh_mem_fail_nth(0);
    is_said(s, "phone", "agent", "lead", true);
    RH_OK_IF(rh_session_identify(s, &other)); /* its rooms stay, and the rest, too */
    is_said(s, "", "bot", "", false);
    RH_OK_IF(s->more->rate_ns == 7 && rh_user_rooms(rh_session_user(s)) == 2);
    RH_OK_IF(rh_session_identify(s, &nothing));
    is_said(s, "", "", "", false);
    come_back(s);
    settle_down();
    publish(room("a"));
    settle_down();
    RH_OK_IF(sub_of_room(s, "a")->seq == 1 && sub_of_room(s, "b"));
    end();
}

RH_TEST(session, ends_at_once_by_goodbye_and_by_some_codes_of_ours)
{
    static const struct {
        unsigned code;
        bool by_peer, ends;
    } rows[] = {
        {1000, true, true},  {1000, false, false}, {1001, false, false}, {1006, false, false},
        {4400, false, true}, {4401, false, true},  {4403, false, true},  {4408, false, false},
        {4409, false, true}, {4410, false, false}, {4429, false, true},  {1013, false, false},
        {4400, true, false}, {4401, true, false},  {4403, true, false},  {4409, true, false},
        {4429, true, false}, {1001, true, false},  {1005, true, false},
    };

    begin();
    for (unsigned i = 0; i < RH_COUNT(rows); i++) {
        struct rh_session *s = arrive("u");

        conn_die(s->conn, rows[i].code, rows[i].by_peer);
        RH_EQ_INT(rig.sh->sessions == 0, rows[i].ends);
        RH_EQ_U64(rig.sh->stats.v[RH_STAT_sessions_detached], !rows[i].ends);
        RH_EQ_U64(rig.sh->stats.v[RH_STAT_users], 0);
        rig.sh->now_ms += rig.cfg->resume_window_ms;
        rh_session_expire(rig.sh);
        RH_EQ_U64(rig.sh->sessions, 0);
        RH_EQ_U64(rh_map_count(&rig.sh->users), 0);
    }
    end();
}

RH_TEST(session, ends_at_once_without_a_window_and_while_draining)
{
    begin();
    rig.cfg->resume_window_ms = 0;
    conn_die(arrive("u")->conn, 1006, false);
    RH_EQ_U64(rig.sh->sessions, 0);
    rig.cfg->resume_window_ms = 10000;
    conn_die(arrive("u")->conn, 1006, false);
    RH_EQ_U64(rig.sh->sessions, 1);
    rig.sh->draining = true;
    conn_die(arrive("u")->conn, 1006, false);
    RH_EQ_U64(rh_session_next_ms(rig.sh), 0);
    rh_session_expire(rig.sh);
    RH_EQ_U64(rig.sh->sessions, 0);
    end();
}

RH_TEST(session, waits_for_its_window_oldest_first)
{
    struct rh_session *young;

    begin();
    RH_EQ_U64(rh_session_next_ms(rig.sh), UINT64_MAX);
    rig.cfg->resume_window_ms = 500;
    conn_die(arrive("u")->conn, 1006, false);
    rig.sh->now_ms += 100;
    young = arrive("v");
    conn_die(young->conn, 1006, false);
    RH_EQ_U64(rh_session_next_ms(rig.sh), 400);
    rig.sh->now_ms += 399;
    rh_session_expire(rig.sh);
    RH_EQ_U64(rig.sh->sessions, 2);
    rig.sh->now_ms += 1;
    rh_session_expire(rig.sh);
    RH_EQ_U64(rig.sh->sessions, 1);
    RH_EQ_U64(rh_session_next_ms(rig.sh), 100);
    rig.cfg->resume_window_ms = 50; /* the present one counts */
    rh_session_expire(rig.sh);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_sessions_expired], 2);
    end();
}

RH_TEST(session, taken_over_closes_the_old_connection_and_does_not_end)
{
    struct rh_conn *old;
    struct rh_session *s;

    begin();
    s = arrive("u");
    old = s->conn;
    come_back(s);
    RH_EQ_U64(rig.close_code[old->slot], 4409);
    RH_OK_IF(!old->session && s->conn != old && !s->is_detached);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_users], 1);
    conn_die(old, 1006, false);
    RH_EQ_U64(rig.sh->sessions, 1);
    conn_die(s->conn, 1006, false); /* and again, out of the window */
    come_back(s);
    RH_OK_IF(rh_list_empty(&rig.sh->detached));
    end();
}

RH_TEST(session, that_was_never_opened_is_undone)
{
    struct rh_session *s;
    struct rh_conn *c;

    begin();
    s = arrive("u");
    c = s->conn;
    rh_session_unattach(rig.sh, s);
    RH_EQ_U64(rig.sh->sessions, 0);
    conn_die(c, 1013, false);

    s = arrive("u");
    RH_OK_IF(join(s, "a", UINT64_MAX));
    settle_down();
    conn_die(s->conn, 1006, false);
    come_back(s);
    c = s->conn;
    rh_session_unattach(rig.sh, s); /* this one is waited for again */
    RH_OK_IF(s->is_detached && !s->conn);
    conn_die(c, 1013, false);
    settle_down();
    RH_EQ_U64(room("a")->members[0].live, 0);
    RH_EQ_U64(room("a")->members[0].subs, 1);
    end();
}

/* Without memory for its 101 a connection is cut, which parts it from its session before arrive.c
 * undoes the attach. */
RH_TEST(session, that_was_never_opened_and_is_cut_ends_too)
{
    struct rh_session *s;
    struct rh_conn *c;

    begin();
    for (unsigned has_rooms = 0; has_rooms < 2; has_rooms++) {
        s = arrive("u");
        if (has_rooms) {
            RH_OK_IF(join(s, "a", UINT64_MAX));
            settle_down();
            conn_die(s->conn, 1006, false);
            come_back(s);
        }
        c = s->conn;
        c->state = RH_CONN_DEAD;
        rh_session_settle(rig.sh, c);
        rh_session_unattach(rig.sh, s);
        c->state = RH_CONN_FREE;
        RH_EQ_U64(rig.sh->sessions, has_rooms);
        RH_EQ_U64(rig.sh->stats.v[RH_STAT_sessions_detached], has_rooms);
        rig.sh->now_ms += rig.cfg->resume_window_ms;
        rh_session_expire(rig.sh);
        settle_down();
        RH_EQ_U64(rig.sh->sessions, 0);
        RH_EQ_U64(rh_map_count(&rig.sh->users), 0);
    }
    end();
}

RH_TEST(session, leaves_no_more_behind_than_its_user_may_have_connections)
{
    struct rh_session *first, *other;

    begin();
    rig.cfg->limits_connections_per_user = 3;
    first = arrive("u");
    other = arrive("v");
    conn_die(other->conn, 1006, false);
    for (unsigned i = 0; i < 3; i++) {
        struct rh_session *s = arrive("u");

        RH_OK_IF(join(s, "a", UINT64_MAX));
        settle_down();
        conn_die(s->conn, 1006, false);
    }
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_sessions_detached], 4); /* other users' are not meant */
    RH_EQ_U64(room("a")->members[0].subs, 3);
    arrive("u"); /* the oldest makes room; those with a connection stay */
    settle_down();
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_sessions_detached], 3);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_sessions_expired], 1);
    RH_EQ_U64(room("a")->members[0].subs, 2);
    RH_OK_IF(first->conn && other->is_detached);
    come_back(other); /* is none of them any more */
    RH_EQ_U64(rh_user_detached(rh_session_user(other)), 0);
    rig.cfg->limits_connections_per_user = 0; /* no limit */
    arrive("u");
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_sessions_detached], 2);
    end();
}

RH_TEST(session, the_oldest_that_waits_makes_room_wherever_it_is)
{
    struct rh_session *old, *young;
    struct rh_user *user;

    begin();
    rig.cfg->limits_connections_per_user = 2;
    young = arrive("u");
    user = rh_session_user(young);
    old = arrive("u");
    conn_die(young->conn, 1000, true);
    young = arrive("u");
    RH_OK_IF(young == &user->first);
    conn_die(young->conn, 1006, false);
    conn_die(old->conn, 1006, false);
    RH_EQ_INT(rh_user_detached(user), 2);
    arrive("u");
    RH_EQ_INT(rh_user_detached(user), 1);
    RH_OK_IF(young->is_detached);
    conn_die(arrive("u")->conn, 1006, false);
    arrive("u"); /* now the other one is */
    RH_EQ_INT(rh_user_detached(user), 1);
    RH_OK_IF(!user->first.is_detached);
    end();
}

RH_TEST(session, that_ends_takes_its_rooms_along)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    RH_OK_IF(join(s, "a", UINT64_MAX) && join(s, "b", UINT64_MAX));
    settle_down();
    RH_EQ_U64(room("a")->members[0].live, 1);
    conn_die(s->conn, 1006, false);
    settle_down();
    RH_EQ_U64(room("a")->members[0].live, 0);
    RH_EQ_U64(room("a")->members[0].subs, 1);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_subscriptions], 2);
    rig.sh->now_ms += rig.cfg->resume_window_ms;
    rh_session_expire(rig.sh);
    settle_down();
    RH_EQ_U64(room("a")->members[0].subs, 0);
    RH_EQ_U64(room("b")->members[0].subs, 0);
    end();
}

RH_TEST(session, goes_back_to_the_first_message_that_did_not_get_through)
{
    struct rh_session *s;
    struct rh_conn *c;

    begin();
    s = arrive("u");
    c = s->conn;
    RH_OK_IF(join(s, "a", UINT64_MAX));
    settle_down();
    for (unsigned i = 0; i < 10; i++)
        publish(room("a"));
    settle_down();
    RH_EQ_U64(sub_of_room(s, "a")->seq, 10);
    conn_send(c, 4, false);
    RH_EQ_U64(rig.got_count, 4);
    conn_send(c, 3, true); /* 5, 6, 7 fly and do not arrive */
    conn_leave(c, 1006, false);
    RH_EQ_U64(sub_of_room(s, "a")->seq, 10); /* it may still send */
    publish(room("a"));
    settle_down(); /* to nobody */
    conn_die(c, 1006, false);
    RH_EQ_U64(sub_of_room(s, "a")->seq, 4);
    come_back(s);
    settle_down();
    RH_EQ_U64(rig.last.since, 4);
    RH_OK_IF(rig.last.again && rig.last.notify && rig.last.live && rig.last.has_epoch);
    conn_send(s->conn, 64, false);
    RH_EQ_U64(rig.got_count, 11);
    RH_EQ_U64(rig.got[4].from, 5);
    RH_EQ_U64(rig.got[10].from, 11);
    end();
}

RH_TEST(session, asks_are_counted_for_its_present_connection_only)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    RH_OK_IF(join(s, "a", UINT64_MAX) && join(s, "b", UINT64_MAX));
    RH_EQ_U64(s->asks, 2);
    conn_die(s->conn, 1006, false);
    RH_EQ_U64(s->asks, 0);
    come_back(s);
    settle_down();
    RH_EQ_U64(s->asks, 0);
    RH_EQ_U64(rig.responses, 2); /* what was asked before has nobody to hear it */
    end();
}

RH_TEST(session, fini_frees_all_without_telling)
{
    struct rh_session *s;

    begin();
    s = arrive("u");
    RH_OK_IF(join(s, "a", UINT64_MAX));
    settle_down();
    conn_die(s->conn, 1006, false);
    s = arrive("v");
    RH_OK_IF(join(s, "a", 0));
    settle_down();
    rh_sessions_fini(rig.sh);
    RH_EQ_U64(rig.sh->sessions, 0);
    memset(rig.rooms, 0, sizeof(rig.rooms));
    rig.sh->stats.v[RH_STAT_subscriptions] = 0;
    end();
}

static void one_visit(void *arg)
{
    uint64_t left = rh_mem_fail_left();
    struct rh_session *s;

    rh_mem_fail_nth(0);
    begin();
    rh_mem_fail_nth(left);
    s = arrive("u");
    if (s && s->conn && join(s, "a", 0))
        settle_down();
    left = rh_mem_fail_left();
    if (left)
        rh_mem_fail_nth(left);
    for (unsigned i = 0; i < CONNS; i++)
        conn_die(&rig.conns[i], 1006, false);
    left = rh_mem_fail_left();
    end();
    rh_mem_fail_nth(left);
}

RH_TEST(session, survives_any_allocation_that_fails)
{
    rh_test_fail_each_alloc(one_visit, NULL);
}
