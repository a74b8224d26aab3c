/* tests/shard/test_pressure_rooms.c - rooms when a shard does not run: publishes are held, spills end
 * at their mark, joins and leaves wait, and afterwards nobody misses anything (DESIGN, "Full rings").
 *
 * Method  as test_pressure.c. Rooms are "r<number>-...", so that clients know them by their number;
 *         every client checks that each room's messages come once and without a gap.
 */
#include "shard/room_int.h"
#include "tests/shard/press_rig.h"

#define A_WHILE_MS 300

static char rooms[ROOMS_MAX][24];
static unsigned room_count;

/* So many rooms whose home is that shard. */
static unsigned make_rooms(unsigned home, unsigned count)
{
    unsigned first = room_count;

    for (unsigned i = 0; i < count; i++, room_count++)
        name_on(rooms[room_count], "r", room_count, home);
    return first;
}

static void join(struct client *c, unsigned room)
{
    request(c, "room.join", "\"room\":\"%s\"", rooms[room]);
}

static void join_all(struct client *c, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++)
        join(c, i);
    WAIT_FOR(c->answers == c->asked);
}

static void publish(struct client *c, unsigned room, unsigned times)
{
    while (times--)
        request(c, "room.publish", "\"room\":\"%s\",\"content\":%u", rooms[room], times);
}

static int64_t held(unsigned home)
{
    return stat_at(home, RH_STAT_room_publishes_waiting);
}

/* ---- ROOM ---- */

/* Goal    asks of rooms end with the credits, and before that with those of a session; who asks is not
 *         read, others go on; afterwards each is answered once. */
RH_TEST(pressure_rooms, asks_end_with_the_credits_of_their_home)
{
    struct client *c[10], *other;

    begin();
    make_rooms(2, 1);
    make_rooms(1, 1);
    for (unsigned i = 0; i < RH_COUNT(c); i++)
        c[i] = user_on(0, "");
    other = user_on(0, "");
    freeze(2);
    for (unsigned i = 0; i < RH_COUNT(c); i++)
        for (int k = 0; k < 150; k++)
            request(c[i], "room.create", "\"room\":\"%s\"", rooms[0]);
    WAIT_FOR(stat_at(0, RH_STAT_connections_paused) == RH_COUNT(c));
    RH_EQ_U64(mesh_at(0).credit_out, RH_CREDIT_EVENTS);
    join(other, 1);
    WAIT_FOR(other->answers == 1);
    RH_EQ_INT(other->errors, 0);
    thaw(2);
    WAIT_FOR(all_answered());
    for (unsigned i = 0, errors = 0; i < RH_COUNT(c); i++) {
        errors += c[i]->errors;
        if (i + 1 == RH_COUNT(c))
            RH_EQ_INT(errors, 1500 - 1); /* one has made it */
    }
    end();
}

/* Goal    rooms= of a connect wait for a credit, too, and do not keep the connection from anything. */
RH_TEST(pressure_rooms, joins_at_connect_wait_for_a_credit)
{
    struct client *a, *far, *c;
    char name[24], more[64];

    begin();
    make_rooms(2, 1);
    a = user_on(0, "");
    far = user_on(2, "");
    freeze(2);
    for (int i = 0; i < 2000; i++)
        send_to(a, far);
    WAIT_FOR(mesh_at(0).credit_out == RH_CREDIT_EVENTS);
    name_on(name, "late", 0, 0);
    snprintf(more, sizeof(more), "rooms=%s", rooms[0]);
    c = dial(name, 0, more);
    WAIT_FOR(c->status == 101);
    request(c, "ping", "\"x\":1");
    WAIT_FOR(c->answers == 1);
    RH_EQ_INT(c->subscribed, 0);
    thaw(2);
    WAIT_FOR(c->subscribed == 1 && all_answered() && all_directs_came());
    end();
}

/* Goal    answers never need a credit: a home that answers a shard which does not run spills them. */
RH_TEST(pressure_rooms, answers_to_a_frozen_asker_wait_in_the_spill)
{
    struct client *c[12];

    begin();
    make_rooms(0, 1);
    for (unsigned i = 0; i < RH_COUNT(c); i++)
        c[i] = user_on(2, "");
    join(c[0], 0);
    WAIT_FOR(all_answered());
    freeze(0);
    for (unsigned i = 0; i < RH_COUNT(c); i++)
        for (int k = 0; k < 100; k++)
            request(c[i], "room.create", "\"room\":\"%s\"", rooms[0]);
    WAIT_FOR(mesh_at(2).credit_out == RH_CREDIT_EVENTS);
    freeze(2);
    thaw(0);
    WAIT_FOR(depth(2, 0) == 0 && depth(0, 2) == RH_RING_SLOTS - 1);
    RH_OK_IF(mesh_at(0).spill_events <= RH_CREDIT_EVENTS);
    thaw(2);
    WAIT_FOR(all_answered());
    end();
}

/* ---- FANOUT ---- */

/* Goal    64 messages of a room are unfinished at most; the next are held, unanswered; their publishers
 *         are not read in the end, nor local ones; other rooms go on; no member misses one. */
RH_TEST(pressure_rooms, publishes_are_held_while_a_shard_is_behind)
{
    struct client *far, *near, *local, *remote, *else_;

    begin();
    make_rooms(0, 2);
    far = user_on(2, "");
    near = user_on(1, "");
    local = user_on(0, "");
    remote = user_on(1, "");
    else_ = user_on(1, "");
    join_all(far, 0, 1);
    join_all(near, 0, 1);
    join_all(local, 0, 1);
    join_all(remote, 0, 1);
    join_all(else_, 1, 1);
    freeze(2);
    publish(remote, 0, 200);
    WAIT_FOR(near->published && held(0) == RH_ASKS_MAX);
    publish(local, 0, 200);
    WAIT_FOR(held(0) == 2 * RH_ASKS_MAX);
    WAIT_FOR(stat_all(RH_STAT_connections_paused) == 2);
    publish(else_, 1, 500);
    WAIT_FOR(else_->published == 500 && else_->answers == 501);
    pump_ms(A_WHILE_MS);
    /* Notices of joins count as unfinished, too, until they are reported with others. */
    RH_OK_IF(near->published <= RH_UNFINISHED_MAX &&
             near->published > RH_UNFINISHED_MAX - RH_FANNED_COUNT);
    thaw(2);
    WAIT_FOR(all_answered());
    WAIT_FOR(far->published == 400 && near->published == 400 && local->published == 400);
    RH_EQ_INT(remote->errors + local->errors, 0);
    end();
}

/* Goal    what rooms hold of our own clients is bounded in bytes as another shard's credits are. */
RH_TEST(pressure_rooms, local_publishers_are_not_read_beyond_16_mib)
{
    struct client *far, *local[4];
    char *text = malloc(1 << 20);

    begin();
    make_rooms(0, 1);
    far = user_on(2, "");
    join_all(far, 0, 1);
    for (unsigned i = 0; i < RH_COUNT(local); i++) {
        local[i] = user_on(0, "role=admin");
    }
    freeze(2);
    for (unsigned n = 0; n < 10 * RH_COUNT(local); n++) {
        struct client *c = local[n % RH_COUNT(local)];
        int len = snprintf(text, 1024,
                           "{\"type\":\"request\",\"request_id\":\"%u\",\"event\":"
                           "\"room.publish\",\"data\":{\"room\":\"%s\",\"content\":\"",
                           ++c->asked, rooms[0]);

        memset(text + len, 'x', 1000000);
        memcpy(text + len + 1000000, "\"}}", 3);
        frame(c, RH_WS_TEXT, text, (size_t)len + 1000003);
    }
    WAIT_FOR(stat_at(0, RH_STAT_connections_paused) == RH_COUNT(local));
    RH_EQ_INT(held(0), RH_CREDIT_BYTES / 1000000);
    thaw(2);
    WAIT_FOR(all_answered() && far->published == 10 * RH_COUNT(local));
    free(text);
    end();
}

/* ---- the mark of a spill ---- */

#define MANY 280 /* rooms: with 64 messages each more than the mark */

struct flood {
    struct client *far, *near, *admins[3];
};

/* Many rooms of shard 0 with members on 1 and 2, 2 frozen, and published in up to the mark. */
static void flood(struct flood *f)
{
    unsigned n = 0;

    make_rooms(0, MANY);
    f->far = user_on(2, "");
    f->near = user_on(1, "");
    join_all(f->far, 0, MANY);
    join_all(f->near, 0, MANY);
    for (unsigned i = 0; i < RH_COUNT(f->admins); i++)
        f->admins[i] = user_on(1, "role=admin");
    freeze(2);
    for (int times = 0; times < 64; times++)
        for (unsigned r = 0; r < MANY; r++)
            publish(f->admins[n++ % RH_COUNT(f->admins)], r, 1);
    WAIT_FOR(mesh_at(0).spill_events >= RH_SPILL_EVENTS);
    WAIT_FOR(held(0) == (int64_t)RH_COUNT(f->admins) * RH_ASKS_MAX);
}

/* Goal    a spill stops at its mark: nothing is admitted that would add to it, whichever room it is
 *         for, while rooms without that shard go on; afterwards everybody has all. */
RH_TEST(pressure_rooms, a_spill_ends_at_its_mark)
{
    struct flood f;
    struct client *c;
    unsigned mine;

    begin();
    flood(&f);
    RH_EQ_U64(mesh_at(0).spill_events, RH_SPILL_EVENTS);
    pump_ms(1200); /* gauges are copied once a second */
    RH_EQ_U64(mesh_at(0).spill_events, RH_SPILL_EVENTS);
    RH_EQ_INT(stat_at(0, RH_STAT_ring_spill_events), RH_SPILL_EVENTS);
    RH_OK_IF(stat_at(0, RH_STAT_ring_spill_bytes) > RH_SPILL_EVENTS * 100);
    mine = make_rooms(0, 1);
    c = user_on(1, "");
    join_all(c, mine, 1);
    publish(c, mine, 100);
    WAIT_FOR(c->published == 100 && c->answers == 101);

    thaw(2);
    WAIT_FOR(all_answered());
    WAIT_FOR(f.far->published == MANY * 64 && f.near->published == MANY * 64);
    end();
}

/* Goal    joins, leaves and deletions that would be told to that shard wait, too, here and of another
 *         shard; those that are told to nobody there do not. */
RH_TEST(pressure_rooms, changes_of_members_wait_at_the_mark)
{
    struct flood f;
    struct client *local, *remote, *gone;
    unsigned mine;

    begin();
    flood(&f);
    local = user_on(0, "role=admin");
    remote = user_on(1, "");
    gone = user_on(1, "");
    mine = make_rooms(0, 1);
    join(gone, mine);
    WAIT_FOR(gone->answers == 1);
    join(local, 0);
    join(remote, 1);
    join(gone, 2);
    WAIT_FOR(stat_at(0, RH_STAT_room_changes_waiting) == 3);
    request(local, "room.delete", "\"room\":\"%s\"", rooms[3]);
    request(f.near, "room.leave", "\"room\":\"%s\"", rooms[4]);
    WAIT_FOR(stat_at(0, RH_STAT_room_changes_waiting) == 5);
    hang_up(gone, 1006); /* its join is counted, and ended, when it is answered */
    pump_ms(A_WHILE_MS);
    RH_EQ_INT(local->answers + remote->answers, 0);
    RH_EQ_U64(mesh_at(0).spill_events, RH_SPILL_EVENTS);

    thaw(2);
    WAIT_FOR(all_answered());
    RH_EQ_INT(local->errors + remote->errors + f.near->errors, 0);
    WAIT_FOR(f.far->published >= (MANY - 1) * 64);
    WAIT_FOR(f.far->joined == MANY + 3 && f.far->left == 2);
    RH_EQ_INT(stat_at(0, RH_STAT_room_changes_held), 5);
    end();
}

/* ---- UNSUB ---- */

/* Goal    the ends of subscriptions are never refused: they wait, and the home learns of each. */
RH_TEST(pressure_rooms, ends_of_subscriptions_wait_for_a_frozen_home)
{
    struct client *c[2], *far;

    begin();
    make_rooms(2, 400);
    far = user_on(2, "");
    for (int i = 0; i < 2; i++) {
        c[i] = user_on(0, "");
        join_all(c[i], 0, 400);
    }
    freeze(2);
    hang_up(c[0], 1006);
    hang_up(c[1], 1006);
    WAIT_FOR(stat_all(RH_STAT_subscriptions) == 0);
    WAIT_FOR(depth(0, 2) == RH_RING_SLOTS - 1);
    RH_OK_IF(mesh_at(0).spill_events >= 800 - (RH_RING_SLOTS - 1)); /* and some FANNED */
    thaw(2);
    WAIT_FOR(mesh_at(0).spill_events == 0 && depth(0, 2) == 0);
    for (unsigned r = 0; r < 400; r += 57) {
        request(far, "room.members", "\"room\":\"%s\"", rooms[r]);
        WAIT_FOR(all_answered());
        ck_assert_ptr_nonnull(strstr(far->last, "\"items\":[]"));
    }
    end();
}

/* ---- all of it ---- */

/* Goal    with rooms, sends and broadcasts in all directions each shard stands still for a while, in
 *         turn, again and again: nothing is lost or doubled, nothing stops. */
RH_TEST(pressure_rooms, shards_that_stand_still_in_turn_lose_nothing)
{
    struct client *u[9];
    unsigned times = 0;

    begin();
    for (unsigned s = 0; s < SHARDS; s++)
        make_rooms(s, 4);
    for (unsigned i = 0; i < RH_COUNT(u); i++) {
        u[i] = user_on(i % SHARDS, "role=admin");
        join_all(u[i], 0, room_count);
    }
    for (unsigned turn = 0; turn < 12; turn++) {
        freeze(turn % SHARDS);
        for (unsigned i = 0; i < RH_COUNT(u); i++) {
            for (unsigned r = 0; r < room_count; r++)
                publish(u[i], r, 20);
            for (unsigned k = 0; k < RH_COUNT(u); k++)
                for (int n = 0; n < 40; n++)
                    send_to(u[i], u[k]);
        }
        times++;
        pump_ms(100);
        if (turn % 4 == 3)
            freeze((turn + 1) % SHARDS);
        pump_ms(20);
        for (unsigned s = 0; s < SHARDS; s++)
            thaw(s);
        pump_ms(rh_test_rand() % 100);
    }
    WAIT_FOR(all_answered() && all_directs_came());
    for (unsigned i = 0; i < RH_COUNT(u); i++) {
        WAIT_FOR(u[i]->published == times * 20 * room_count * RH_COUNT(u));
        RH_EQ_INT(u[i]->errors, 0);
    }
    end();
}
