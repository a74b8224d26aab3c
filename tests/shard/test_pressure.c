/* tests/shard/test_pressure.c - requests between shards when one does not run: credits end, reading
 * pauses and goes on, nothing is lost or doubled (DESIGN, "Full rings"; rooms: test_pressure_rooms.c).
 *
 * Method  press_rig.h: three real shards, one of them frozen, clients on real sockets. "Forever" is a
 *         few hundred milliseconds here: in that time the shards that run make thousands of passes.
 */
#include "tests/shard/press_rig.h"

#define A_WHILE_MS 300

/* ---- SEND ---- */

/* Goal    1,024 sends are unanswered at most, then their senders are not read: what they write ends
 *         in the socket's buffers, while others of the same shard go on. */
RH_TEST(pressure, sends_end_with_the_credits_and_their_senders_are_not_read)
{
    struct client *a, *b, *c, *near, *far;
    int64_t received;

    begin();
    a = user_on(0, "");
    b = user_on(0, "");
    c = user_on(0, "");
    near = user_on(1, "");
    far = user_on(2, "");
    freeze(2);
    for (int i = 0; i < 80000; i++)
        send_to(a, far);
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_credit) == 1);
    RH_EQ_U64(mesh_at(0).credit_out, RH_CREDIT_EVENTS);
    send_to(b, far);
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_credit) == 2);
    RH_EQ_INT(stat_at(0, RH_STAT_connections_paused), 2);

    for (int i = 0; i < 500; i++)
        send_to(c, near);
    WAIT_FOR(c->answers == 500 && near->directs == 500);
    received = stat_at(0, RH_STAT_messages_received);
    pump_ms(A_WHILE_MS);
    RH_EQ_INT(stat_at(0, RH_STAT_messages_received), received);
    /* Its socket is full: what had come in the pass of the pause fits the receive buffers. */
    RH_OK_IF(a->out_len - a->out_at > 1 << 20);
    RH_EQ_INT(a->answers, 0);
    RH_EQ_U64(depth(0, 2), RH_RING_SLOTS - 1);
    RH_EQ_U64(mesh_at(0).spill_events, RH_CREDIT_EVENTS - (RH_RING_SLOTS - 1));

    thaw(2);
    WAIT_FOR(all_answered() && all_directs_came());
    RH_EQ_INT(a->errors + b->errors + c->errors, 0);
    RH_EQ_INT(far->directs, 80001);
    end();
}

/* Goal    credits end by bytes, too: 16 MiB, long before 1,024 messages. */
RH_TEST(pressure, large_sends_end_with_the_bytes)
{
    struct client *a, *far;

    begin();
    a = user_on(0, "");
    far = user_on(2, "");
    freeze(2);
    for (int i = 0; i < 40; i++)
        send_large(a, far, 1000000);
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_credit) == 1);
    RH_EQ_U64(mesh_at(0).credit_out, RH_CREDIT_BYTES / 1000000);
    thaw(2);
    WAIT_FOR(all_answered() && all_directs_came());
    RH_EQ_INT(far->directs, 40);
    RH_EQ_INT(a->errors, 0);
    end();
}

/* Goal    who waits for a credit and goes away leaves nothing behind; what it had sent arrives. */
RH_TEST(pressure, a_sender_that_waits_may_go_away)
{
    struct client *a, *far;

    begin();
    a = user_on(0, "");
    far = user_on(2, "");
    freeze(2);
    for (int i = 0; i < 20000; i++)
        send_to(a, far);
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_credit) == 1);
    hang_up(a, 1006);
    pump_ms(A_WHILE_MS);
    thaw(2);
    WAIT_FOR(far->directs >= RH_CREDIT_EVENTS && stat_all(RH_STAT_connections_paused) == 0);
    end();
}

/* ---- HANDOVER ---- */

/* Goal    a hand-over with a credit waits and arrives; one without is answered 503 at once. */
RH_TEST(pressure, a_hand_over_without_a_credit_is_503)
{
    struct client *a, *far, *early, *late;
    char name[24];

    begin();
    a = user_on(0, "");
    far = user_on(2, "");
    freeze(2);
    name_on(name, "early", 0, 2);
    early = dial(name, 0, "");
    WAIT_FOR(mesh_at(0).credit_out == 1);
    for (int i = 0; i < 2000; i++)
        send_to(a, far);
    WAIT_FOR(mesh_at(0).credit_out == RH_CREDIT_EVENTS);
    name_on(name, "late", 0, 2);
    late = dial(name, 0, "");
    WAIT_FOR(late->status);
    RH_EQ_INT(late->status, 503);
    RH_EQ_INT(early->status, 0);
    RH_EQ_INT(stat_at(0, RH_STAT_connections_refused_full), 1);
    RH_OK_IF(mesh_at(0).refused >= 1);

    thaw(2);
    WAIT_FOR(early->status && all_directs_came() && all_answered());
    RH_EQ_INT(early->status, 101);
    late = dial(name, 0, "");
    WAIT_FOR(late->status);
    RH_EQ_INT(late->status, 101);
    end();
}

/* ---- BROADCAST ---- */

/* Goal    a broadcast is answered without the frozen shard after a second; sixteen are out at most,
 *         then who asks is not read; everyone gets each once and in order. */
RH_TEST(pressure, broadcasts_are_answered_in_part_and_bounded)
{
    struct client *admin, *near, *far, *c;

    begin();
    admin = user_on(0, "role=admin");
    c = user_on(0, "");
    near = user_on(1, "");
    far = user_on(2, "");
    freeze(2);
    for (int i = 1; i <= 40; i++)
        request(admin, "broadcast", "\"content\":%d", i);
    WAIT_FOR(near->broadcasts == 16 && c->broadcasts == 16);
    WAIT_FOR(stat_at(0, RH_STAT_paused_reads_credit) == 1);
    WAIT_FOR(admin->answers == 16);
    ck_assert_ptr_nonnull(strstr(admin->last, "\"partial\":true"));
    ck_assert_ptr_nonnull(strstr(admin->last, "\"recipients\":3"));
    RH_EQ_INT(stat_at(0, RH_STAT_partial_answers), 16);
    pump_ms(A_WHILE_MS);
    RH_EQ_INT(near->broadcasts, 16);
    send_to(c, near);
    WAIT_FOR(all_directs_came());

    thaw(2);
    WAIT_FOR(all_answered());
    RH_EQ_INT(admin->errors, 0);
    ck_assert_ptr_null(strstr(admin->last, "\"partial\":true"));
    WAIT_FOR(far->broadcasts == 40 && near->broadcasts == 40 && c->broadcasts == 40);
    end();
}

static unsigned count_status(unsigned status)
{
    unsigned count = 0;

    for (unsigned i = 0; i < client_count; i++)
        count += clients[i].status == status;
    return count;
}

/* Goal    whoever reaches a table of direct descriptors first, from another shard or by its own
 *         listener, and however many: each client is answered, none is lost for want of a slot.
 * Method  more hand-overs than the frozen shard has slots for behind those that its accepts wait
 *         for, and then a client for each of these. */
RH_TEST(pressure, hand_overs_do_not_take_the_slots_that_accepts_wait_for)
{
    char name[24];
    unsigned passed, came = 80;

    hub.env.files = RH_TABLE_SPARE + RH_ACCEPTS + 4;
    begin();
    freeze(2);
    for (unsigned i = 0; i < came; i++) {
        name_on(name, "far", i, 2);
        dial(name, 0, "");
        WAIT_FOR(stat_at(0, RH_STAT_handovers) + count_status(503) == i + 1);
    }
    passed = (unsigned)stat_at(0, RH_STAT_handovers);
    RH_EQ_INT(passed, hub.env.files - RH_ACCEPTS);
    for (unsigned i = 0; i < RH_ACCEPTS; i++) {
        name_on(name, "near", i, 2);
        dial(name, 2, "");
    }
    thaw(2);
    WAIT_FOR(count_status(101) + count_status(503) == client_count);
    RH_OK_IF(count_status(101) > 0);
    RH_EQ_INT(stat_at(2, RH_STAT_accept_errors), 0);
    for (unsigned i = 0; i < client_count; i++)
        if (clients[i].fd >= 0)
            hang_up(&clients[i], 1006);
    end();
}

/* ---- CONFIG, DRAIN ---- */

static void tell_config(const char *value)
{
    struct rh_mesh *mesh = rh_net_member(hub.env.net, CONTROL);
    struct rh_config *cfg = press_config();
    struct rh_snapshot *s = rh_snapshot_make(cfg);

    RH_EQ_INT(rh_config_set(cfg, "limits.message_size", value, "test", NULL), RH_OK);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct rh_event ev = {.kind = RH_EV_CONFIG, .msg = s};

        rh_snapshot_hold_any(s);
        RH_EQ_INT(rh_mesh_tell(mesh, i, &ev), RH_OK);
    }
    rh_mesh_publish(mesh);
    rh_snapshot_drop_any(s);
}

/* Goal    control has rings of its own: a shard to which all others' are full takes a CONFIG and a
 *         DRAIN in its first pass, the others at once; only then are credits and spills given back. */
RH_TEST(pressure, control_reaches_a_shard_whose_rings_are_full)
{
    struct client *a, *b, *far, *tester;

    begin();
    a = user_on(0, "");
    b = user_on(1, "");
    far = user_on(2, "");
    tester = user_on(0, "");
    freeze(2);
    for (int i = 0; i < 1024; i++) {
        send_to(a, far);
        send_to(b, far);
    }
    WAIT_FOR(depth(0, 2) == RH_RING_SLOTS - 1 && depth(1, 2) == RH_RING_SLOTS - 1);
    tell_config("200");
    WAIT_FOR(depth(CONTROL, 0) == 0 && depth(CONTROL, 1) == 0);
    RH_EQ_U64(depth(CONTROL, 2), 1);
    pump_ms(50);
    send_large(tester, a, 300); /* over the new limit: the shards that run have taken it */
    WAIT_FOR(tester->fd < 0);
    RH_EQ_INT(tester->close_code, 1009);
    tester->sent_to[a->index] = 0;
    step(2);
    RH_EQ_U64(depth(CONTROL, 2), 0);
    freeze(2);

    tell_all(RH_EV_DRAIN, 1);
    pump_ms(A_WHILE_MS);
    RH_OK_IF(!all_quiet(1)); /* credits are out */
    thaw(2);
    WAIT_FOR(all_quiet(1));
    end();
}

/* ---- a circle ---- */

/* Those who have nothing to write send so many messages to each user of the other shards. */
static void top_up(struct client *u[SHARDS][2], int count)
{
    for (unsigned s = 0; s < SHARDS; s++)
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < count && u[s][k]->out_len - u[s][k]->out_at < 1 << 16; i++)
                send_to(u[s][k], u[(s + 1 + i % 2) % SHARDS][i / 2 % 2]);
}

/* Which rings between shards are full now: a bit for each pair. */
static unsigned full_rings(void)
{
    unsigned full = 0;

    for (unsigned from = 0; from < SHARDS; from++)
        for (unsigned to = 0; to < SHARDS; to++)
            if (from != to && depth(from, to) == RH_RING_SLOTS - 1)
                full |= 1u << (from * SHARDS + to);
    return full;
}

/* Has every shard more to say than its rings to both others hold? */
static bool all_spill(void)
{
    return mesh_at(0).spill_events >= RH_CREDIT_EVENTS &&
           mesh_at(1).spill_events >= RH_CREDIT_EVENTS &&
           mesh_at(2).spill_events >= RH_CREDIT_EVENTS;
}

/* Goal    no circle of full rings stops the hub.
 * Method  all three make single passes, in which they read clients that send to both others, until
 *         each of the six rings has been seen full and all three have spills for more than a ring.
 *         (A pass takes whole rings, so few cores seldom show six full ones at a time.) Released
 *         together, all must come, and the hub become quiet. */
RH_TEST(pressure, a_circle_of_full_rings_goes_on)
{
    struct client *u[SHARDS][2];
    unsigned seen = 0;

    begin();
    for (unsigned s = 0; s < SHARDS; s++)
        for (int k = 0; k < 2; k++)
            u[s][k] = user_on(s, "");
    for (unsigned s = 0; s < SHARDS; s++)
        freeze(s);
    for (int turn = 0; turn < 1000 && !(seen == 0xee && all_spill()); turn++) {
        top_up(u, 400);
        pump_ms(3);
        step_all();
        seen |= full_rings();
    }
    RH_EQ_INT(seen, 0xee); /* all but those from a shard to itself */
    RH_OK_IF(all_spill());
    for (unsigned s = 0; s < SHARDS; s++)
        thaw(s);
    WAIT_FOR(all_answered() && all_directs_came());
    for (unsigned s = 0; s < SHARDS; s++)
        for (int k = 0; k < 2; k++)
            RH_EQ_INT(u[s][k]->errors, 0);
    end();
}
