/* Fan-out: everyone gets everything once and in order, whoever comes and goes meanwhile, and the
 * home hears of each message exactly once.
 *
 * The branch is real, what stands around it is played: a client is a connection, a session, a user
 * and a subscription in one piece, which writes down the numbers of what it gets. */
#include <stdio.h>

#include "core/mem.h"
#include "shard/owed.h"
#include "tests/rh_test.h"

#define CLIENTS 1200
#define LOG     80
#define ROOM    77 /* a uid */

struct client {
    struct rh_conn c;
    struct rh_sub sub;
    struct rh_user *user; /* with its only session */
    unsigned got[LOG];    /* numbers; a notice is 1000 + its number */
    unsigned count, parked, ended;
};

static struct rig {
    struct rh_shard *sh;
    struct rh_shard_env env;
    struct client *clients;
    uint64_t room_hash; /* its home is us, or shard 1 */
    uint64_t told, told_bytes, tells;
    bool deaf; /* telling another shard finds no memory */
    unsigned broadcast_asked, broadcast_left;
    /* Called for each push, before it counts. */
    int (*on_push)(struct client *cl, const struct rh_msg *msg);
    void (*on_fanned)(void);
    unsigned pushes, from, victim;
    bool shares; /* every other message is owed to somebody */
    unsigned came, finished, owed_pushes;
    bool full[CLIENTS];
} rig;

/* ---- the neighbours ---- */

static struct client *client_of(struct rh_conn *c)
{
    return rh_container_of(c, struct client, c);
}

static void note(struct client *cl, const struct rh_msg *msg)
{
    RH_OK_IF(cl->count < LOG);
    cl->got[cl->count++] = (unsigned)(msg->kind == RH_MSG_ROOM ? msg->seq : 1000 + msg->seq);
}

int rh_conn_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    int rc = RH_OK;

    RH_OK_IF(c->state == RH_CONN_OPEN);
    if (rig.on_push)
        rc = rig.on_push(client_of(c), h->msg);
    if (rc == RH_OK)
        note(client_of(c), h->msg);
    rig.pushes++;
    return rc;
}

bool rh_conn_full(const struct rh_shard *sh, const struct rh_conn *c)
{
    return rig.full[rh_container_of(c, struct client, c) - rig.clients];
}

bool rh_conn_takes_share(const struct rh_shard *sh, const struct rh_conn *c)
{
    return !rh_conn_full(sh, c);
}

int rh_conn_put_owed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    RH_OK_IF(rh_conn_takes_share(sh, c) && h->msg->ack);
    rig.owed_pushes++;
    return rh_conn_push(sh, c, h);
}

void rh_owed_shares(struct rh_shard *sh, struct rh_msg *msg)
{
    RH_OK_IF(msg->shares && msg->shares->count == rig.came);
    rig.came++;
}

void rh_owed_shares_done(struct rh_shard *sh, struct rh_msg *msg)
{
    RH_OK_IF(msg->shares && msg->shares->len == 0);
    msg->shares->len = 1; /* each once */
    rig.finished++;
}

void rh_owed_pump(struct rh_shard *sh, struct rh_user *user)
{
}

/* Client 1 is not owed it, and gets a copy with a number that is 500 higher. */
struct rh_handle *rh_owed_share_out(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h,
                                    enum rh_share_way way, bool *ret_skip)
{
    bool is_owed = client_of(c) != &rig.clients[1];
    struct rh_msg *copy;

    RH_OK_IF(h->msg->shares && h->msg->shares->len == 0);
    *ret_skip = is_owed && way == RH_SHARE_FULL;
    if (is_owed)
        return NULL;
    copy = rh_msg_create(16);
    copy->kind = RH_MSG_ROOM;
    copy->seq = h->msg->seq + 500;
    return rh_handle_make(&sh->stock.handles, copy);
}

void rh_sub_park(struct rh_shard *sh, struct rh_sub *sub, struct rh_handle *h)
{
    rh_container_of(sub, struct client, sub)->parked++;
}

/* Without a window for resuming: the session and its subscription go at once. */
void rh_conn_close(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *reason)
{
    struct client *cl = client_of(c);

    RH_EQ_INT(code, 1013);
    c->state = RH_CONN_CLOSING;
    rh_branch_del(sh, &cl->sub);
    memset(&cl->sub, 0xee, sizeof(cl->sub));
    cl->ended++;
}

void rh_sub_over(struct rh_shard *sh, struct rh_sub *sub)
{
    rh_container_of(sub, struct client, sub)->ended++;
    rh_branch_del(sh, sub);
}

struct rh_user *rh_user_find(const struct rh_shard *sh, uint64_t hash, const char *name, size_t len)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (rig.clients[i].user && rig.clients[i].user->node.hash == hash)
            return rig.clients[i].user;
    return NULL;
}

static void told(uint64_t uid, uint64_t done, uint64_t bytes)
{
    RH_OK_IF(done > 0);
    rig.told += done;
    rig.told_bytes += bytes;
    rig.tells++;
    if (rig.on_fanned)
        rig.on_fanned();
}

void rh_room_fanned(struct rh_shard *sh, unsigned from, uint64_t uid, uint64_t done,
                    uint64_t done_bytes)
{
    RH_EQ_INT(from, 0);
    told(uid, done, done_bytes);
}

int rh_mesh_tell(struct rh_mesh *m, unsigned to, struct rh_event *ev)
{
    RH_EQ_INT(ev->kind, RH_EV_FANNED);
    RH_EQ_INT(to, 1);
    if (rig.deaf)
        return RH_ENOMEM;
    told(ev->a, ev->b, ev->c);
    return RH_OK;
}

unsigned rh_broadcast_run(struct rh_shard *sh, unsigned budget)
{
    unsigned looked = RH_MIN(budget, rig.broadcast_left);

    rig.broadcast_asked = RH_MAX(rig.broadcast_asked, budget);
    rig.broadcast_left -= looked;
    if (rig.broadcast_left == 0)
        rh_list_init(&sh->broadcasts);
    return looked;
}

/* ---- the rig ---- */

static void begin(bool own)
{
    struct rh_shard *sh = rh_mem_zalloc_aligned(sizeof(*sh));

    memset(&rig, 0, sizeof(rig));
    rig.sh = sh;
    rig.env.shards = 2;
    sh->env = &rig.env;
    rig.room_hash = own ? 0 : UINT64_MAX;
    RH_EQ_INT(rh_map_init(&sh->branches), RH_OK);
    rh_list_init(&sh->running);
    rh_list_init(&sh->unreported);
    rh_list_init(&sh->broadcasts);
    rig.clients = rh_mem_zalloc_aligned(CLIENTS * sizeof(*rig.clients));
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *cl = &rig.clients[i];

        cl->user = rh_mem_zalloc(sizeof(*cl->user) + 8);
        cl->user->node.hash = i + 1;
        cl->user->first.is_first = true;
    }
}

static void end(void)
{
    rh_branches_fini(rig.sh);
    RH_EQ_INT(rig.finished, rig.came);
    for (unsigned i = 0; i < CLIENTS; i++)
        rh_mem_free(rig.clients[i].user);
    rh_mem_free(rig.clients);
    rh_handles_fini(&rig.sh->stock.handles);
    rh_mem_free(rig.sh);
}

static uint64_t stat_of(enum rh_stat stat)
{
    return rig.sh->stats.v[stat];
}

static void fresh(struct client *cl, uint64_t seq)
{
    cl->c.state = RH_CONN_OPEN;
    cl->user->first.conn = &cl->c;
    memset(&cl->sub, 0, sizeof(cl->sub));
    cl->sub.session = &cl->user->first;
    cl->sub.state = RH_SUB_ACTIVE;
    cl->sub.room_hash = rig.room_hash;
    cl->sub.seq = seq;
    cl->count = 0;
}

static void join(unsigned i, uint64_t seq)
{
    fresh(&rig.clients[i], seq);
    RH_EQ_INT(rh_branch_add(rig.sh, &rig.clients[i].sub, ROOM), RH_OK);
}

static void join_all(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        join(i, 0);
}

static void leave(unsigned i)
{
    rh_branch_del(rig.sh, &rig.clients[i].sub);
    rig.clients[i].ended++;
}

static void push(uint64_t uid, uint64_t seq, enum rh_msg_kind kind, unsigned excluded)
{
    struct rh_msg *msg = rh_msg_create(16);

    msg->kind = (uint8_t)kind;
    msg->seq = seq;
    msg->frame_len = 10;
    msg->excludes = excluded != 0;
    msg->from_hash = excluded;
    msg->from_at = 0;
    if (rig.shares && kind == RH_MSG_ROOM && seq % 2 == 0) {
        msg->shares = rh_mem_zalloc(sizeof(*msg->shares));
        msg->shares->count = rig.came;
        msg->ack = true;
    }
    rh_fanout_push(rig.sh, rig.room_hash ? 1 : 0, uid, msg);
}

static void publish(uint64_t seq)
{
    push(ROOM, seq, RH_MSG_ROOM, 0);
}

static void run(void)
{
    while (rh_fanout_run(rig.sh, false))
        ;
    rh_fanout_report(rig.sh);
    RH_EQ_U64(stat_of(RH_STAT_fanouts_unfinished), 0);
}

/* Client i has got exactly the numbers from..to. */
static void expect_run(unsigned i, unsigned from, unsigned to)
{
    struct client *cl = &rig.clients[i];

    for (unsigned k = 0; k < cl->count; k++) /* copies are as good */
        if (rig.shares && to < 500 && cl->got[k] > 500)
            cl->got[k] -= 500;

    if (cl->count != to + 1 - from)
        RH_FAIL("client %u got %u of %u..%u", i, cl->count, from, to);
    for (unsigned k = 0; k < cl->count; k++)
        RH_EQ_INT(cl->got[k], from + k);
}

/* ---- plain ---- */

RH_TEST(fanout, everyone_gets_every_message_once_and_in_order)
{
    begin(true);
    join_all(100);
    for (unsigned k = 1; k <= 50; k++)
        publish(k);
    RH_EQ_U64(stat_of(RH_STAT_fanouts_unfinished), 50);
    run();
    for (unsigned i = 0; i < 100; i++)
        expect_run(i, 1, 50);
    RH_EQ_U64(rig.told, 50);
    RH_EQ_U64(rig.told_bytes, 500);
    end();
}

RH_TEST(fanout, one_who_joins_gets_what_lies_behind_its_number_and_no_older_notice)
{
    begin(true);
    join(0, 0);
    publish(1);
    push(ROOM, 1, RH_MSG_NOTICE, 0);
    publish(2);
    join(1, 2);
    publish(3);
    push(ROOM, 2, RH_MSG_NOTICE, 0);
    run();
    RH_EQ_INT(rig.clients[0].count, 5);
    RH_EQ_INT(rig.clients[1].count, 2);
    RH_EQ_INT(rig.clients[1].got[0], 3);
    RH_EQ_INT(rig.clients[1].got[1], 1002);
    RH_EQ_U64(rig.clients[1].sub.seq, 3);
    end();
}

RH_TEST(fanout, the_excluded_user_gets_none_and_its_number_moves_on)
{
    begin(true);
    join_all(3);
    push(ROOM, 1, RH_MSG_ROOM, 2); /* the user of client 1 */
    publish(2);
    push(ROOM, 9, RH_MSG_NOTICE, 3);
    push(ROOM, 3, RH_MSG_ROOM, 5000); /* nobody here */
    run();
    RH_EQ_INT(rig.clients[0].count, 4);
    RH_EQ_INT(rig.clients[1].count, 3);
    RH_EQ_INT(rig.clients[1].got[0], 2);
    RH_EQ_INT(rig.clients[2].count, 3);
    RH_EQ_U64(rig.clients[1].sub.seq, 3);
    end();
}

RH_TEST(fanout, who_has_no_open_connection_is_left_alone)
{
    begin(true);
    join_all(5);
    rig.clients[0].user->first.conn = NULL;
    rig.clients[1].c.state = RH_CONN_CLOSING;
    rig.clients[2].sub.state = RH_SUB_ASKED;
    rig.clients[3].sub.replay = (struct rh_replay *)8;
    publish(1);
    run();
    for (unsigned i = 0; i < 3; i++) {
        RH_EQ_INT(rig.clients[i].count, 0);
        RH_EQ_U64(rig.clients[i].sub.seq, 0);
    }
    RH_EQ_INT(rig.clients[3].parked, 1);
    RH_EQ_U64(rig.clients[3].sub.seq, 1);
    expect_run(4, 1, 1);
    end();
}

static int drop_it(struct client *cl, const struct rh_msg *msg)
{
    return cl == &rig.clients[1] && msg->seq == 2 ? RH_EFULL : RH_OK;
}

RH_TEST(fanout, a_dropped_message_is_passed_over_and_the_next_one_comes)
{
    begin(true);
    join_all(3);
    rig.on_push = drop_it;
    for (unsigned k = 1; k <= 3; k++)
        publish(k);
    run();
    RH_EQ_INT(rig.clients[1].count, 2);
    RH_EQ_INT(rig.clients[1].got[1], 3);
    RH_EQ_U64(rig.clients[1].sub.seq, 3);
    expect_run(0, 1, 3);
    end();
}

/* ---- coming and going during the walk ---- */

#define SMALL 7

/* At the push with number `from`, client `victim` leaves and one comes. */
static int leave_and_join(struct client *cl, const struct rh_msg *msg)
{
    if (rig.pushes == rig.from) {
        if (&rig.clients[rig.victim] != cl)
            leave(rig.victim);
        join(SMALL, msg->seq);
    }
    return RH_OK;
}

/* Everyone but the one that left has it all, the one that left at most what came until then. */
static void check_small(unsigned last)
{
    unsigned left = 0;

    for (unsigned i = 0; i < SMALL; i++) {
        if (rig.clients[i].ended)
            left++;
        else
            expect_run(i, 1, last);
    }
    RH_OK_IF(left <= 1);
}

RH_TEST(fanout, nobody_is_skipped_or_doubled_whoever_leaves_and_joins_at_any_step)
{
    for (unsigned batch = 1; batch <= 3; batch++) {
        for (unsigned from = 0; from < SMALL * batch; from++) {
            for (unsigned victim = 0; victim < SMALL; victim++) {
                begin(true);
                join_all(SMALL);
                rig.on_push = leave_and_join;
                rig.from = from;
                rig.victim = victim;
                for (unsigned k = 1; k <= batch; k++)
                    publish(k);
                run();
                check_small(batch);
                /* Who came meanwhile got nothing of the batch that was under way. */
                RH_EQ_INT(rig.clients[SMALL].count, 0);
                rig.on_push = NULL;
                fresh(&rig.clients[SMALL + 1], batch); /* and the vector is whole */
                publish(batch + 1);
                run();
                check_small(batch + 1);
                expect_run(SMALL, batch + 1, batch + 1);
                RH_EQ_U64(rig.told, batch + 1);
                end();
            }
        }
    }
}

/* At that push another message comes, too. */
static int publish_and_leave(struct client *cl, const struct rh_msg *msg)
{
    if (rig.pushes == rig.from) {
        publish(3);
        if (&rig.clients[rig.victim] != cl)
            leave(rig.victim);
        join(SMALL, 3);
    }
    return RH_OK;
}

RH_TEST(fanout, nobody_is_skipped_or_doubled_when_messages_come_at_any_step)
{
    for (unsigned from = 0; from < 2 * SMALL; from++) {
        for (unsigned victim = 0; victim < SMALL; victim++) {
            begin(true);
            join_all(SMALL);
            rig.on_push = publish_and_leave;
            rig.from = from;
            rig.victim = victim;
            publish(1);
            publish(2);
            run();
            check_small(3);
            RH_EQ_INT(rig.clients[SMALL].count, 0);
            RH_EQ_U64(rig.told, 3);
            end();
        }
    }
}

static int leave_all_from(struct client *cl, const struct rh_msg *msg)
{
    if (rig.pushes != rig.from)
        return RH_OK;
    for (unsigned i = 0; i < SMALL; i++)
        if (!rig.clients[i].ended) {
            if (&rig.clients[i] == cl)
                cl->c.state = RH_CONN_DEAD;
            leave(i);
            memset(&rig.clients[i].sub, 0xee, sizeof(struct rh_sub));
        }
    return RH_ECLOSED;
}

RH_TEST(fanout, a_branch_that_is_emptied_at_any_step_ends_and_is_reported)
{
    for (int own = 0; own < 2; own++) {
        for (unsigned from = 0; from < 3 * SMALL; from++) {
            begin(own);
            join_all(SMALL);
            rig.on_push = leave_all_from;
            rig.from = from;
            for (unsigned k = 1; k <= 3; k++)
                publish(k);
            run();
            RH_EQ_U64(rig.told, 3);
            RH_OK_IF(!rh_branch_find(rig.sh, ROOM));
            RH_EQ_U64(rh_map_count(&rig.sh->branches), 0);
            RH_EQ_INT(rig.pushes, from + 1);
            end();
        }
    }
}

/* The one that gets it goes by that, with its subscription. */
static int die(struct client *cl, const struct rh_msg *msg)
{
    if (cl == &rig.clients[rig.victim] && msg->seq == 2) {
        rh_conn_close(rig.sh, &cl->c, 1013, "");
        return RH_EFULL;
    }
    return RH_OK;
}

RH_TEST(fanout, who_is_closed_by_a_message_is_not_touched_any_more)
{
    for (unsigned victim = 0; victim < SMALL; victim++) {
        begin(true);
        join_all(SMALL);
        rig.on_push = die;
        rig.victim = victim;
        for (unsigned k = 1; k <= 4; k++)
            publish(k);
        run();
        for (unsigned i = 0; i < SMALL; i++)
            expect_run(i, 1, i == victim ? 1 : 4);
        end();
    }
}

/* ---- budgets ---- */

RH_TEST(fanout, a_pass_does_its_share_and_branches_take_turns)
{
    unsigned pauses = 2;

    begin(true);
    for (unsigned i = 0; i < 600; i++)
        join(i, 0);
    fresh(&rig.clients[600], 0);
    RH_EQ_INT(rh_branch_add(rig.sh, &rig.clients[600].sub, ROOM + 1), RH_OK);
    publish(1);
    push(ROOM + 1, 1, RH_MSG_ROOM, 0);
    RH_OK_IF(rh_fanout_run(rig.sh, true));
    RH_EQ_INT(rig.pushes, RH_FANOUT_BUSY);
    RH_EQ_INT(rig.clients[600].count, 0);
    RH_OK_IF(rh_fanout_run(rig.sh, true)); /* the small one first, now */
    RH_EQ_INT(rig.clients[600].count, 1);
    RH_EQ_INT(rig.pushes, 2 * RH_FANOUT_BUSY);
    RH_EQ_U64(stat_of(RH_STAT_fanout_pauses), 2);
    RH_OK_IF(rh_fanout_run(rig.sh, false));
    RH_EQ_INT(rig.pushes, 2 * RH_FANOUT_BUSY + RH_FANOUT_IDLE);
    for (; rh_fanout_run(rig.sh, false); pauses++)
        ;
    for (unsigned i = 0; i < 600; i++)
        expect_run(i, 1, 1);
    RH_EQ_U64(stat_of(RH_STAT_fanout_pauses), pauses + 1);
    end();
}

/* Whom the cursor has still to visit get it there, the others in the next lap; and in that nobody is
 * handed anything twice. */
RH_TEST(fanout, a_message_in_the_middle_of_a_lap_is_carried_along)
{
    begin(true);
    join_all(3 * RH_FANOUT_BUSY);
    publish(1);
    RH_OK_IF(rh_fanout_run(rig.sh, true));
    RH_EQ_INT(rig.pushes, RH_FANOUT_BUSY);
    publish(2);
    RH_OK_IF(rh_fanout_run(rig.sh, true));
    RH_EQ_INT(rig.pushes, 3 * RH_FANOUT_BUSY);
    publish(3);
    RH_OK_IF(rh_fanout_run(rig.sh, true)); /* the lap ends: 1 is finished */
    RH_EQ_INT(rig.pushes, 6 * RH_FANOUT_BUSY);
    rh_fanout_report(rig.sh);
    RH_EQ_U64(rig.told, 1);
    RH_OK_IF(rh_fanout_run(rig.sh, true));
    RH_EQ_INT(rig.pushes, 8 * RH_FANOUT_BUSY); /* 2 and 3, for the first ones */
    run();
    RH_EQ_INT(rig.pushes, 9 * RH_FANOUT_BUSY);
    RH_EQ_U64(rig.told, 3);
    for (unsigned i = 0; i < 3 * RH_FANOUT_BUSY; i++)
        expect_run(i, 1, 3);
    end();
}

/* The last of those who are past the cursor leave first: then the gap is at the end, too. */
RH_TEST(fanout, all_who_have_had_it_leave_and_then_others_while_the_cursor_waits)
{
    begin(true);
    join_all(RH_FANOUT_BUSY + 40);
    publish(1);
    rh_fanout_run(rig.sh, true);
    for (unsigned i = 40; i < RH_FANOUT_BUSY + 40; i++)
        leave(i);
    for (unsigned i = 0; i < 20; i++)
        leave(i);
    run();
    for (unsigned i = 20; i < 40; i++) {
        expect_run(i, 1, 1);
        leave(i);
    }
    end();
}

RH_TEST(fanout, an_idle_pass_takes_many_turns_and_then_ends_too)
{
    enum { ALL = RH_FANOUT_IDLE * 3 / 5, REST = RH_FANOUT_IDLE - ALL };

    begin(true);
    join_all(ALL);
    publish(1);
    RH_OK_IF(!rh_fanout_run(rig.sh, false));
    for (unsigned k = 2; k <= 2 + RH_FANOUT_BATCH; k++)
        publish(k);
    RH_OK_IF(rh_fanout_run(rig.sh, false)); /* a batch, and a part of the next one */
    RH_EQ_INT(rig.pushes, ALL + ALL * RH_FANOUT_BATCH + REST);
    RH_OK_IF(!rh_fanout_run(rig.sh, false));
    end();
}

RH_TEST(fanout, broadcasts_have_half_of_a_pass_and_what_is_left_of_it)
{
    struct rh_list node;

    begin(true);
    join_all(1200);
    publish(1);
    rh_list_init(&node);
    rh_list_add(&rig.sh->broadcasts, &node);
    rig.broadcast_left = 5000;
    RH_OK_IF(rh_fanout_run(rig.sh, true));
    RH_EQ_INT(rig.broadcast_asked, RH_FANOUT_BUSY / 2);
    RH_EQ_INT(rig.pushes, RH_FANOUT_BUSY / 2);
    RH_OK_IF(rh_fanout_run(rig.sh, false));
    RH_EQ_INT(rig.pushes, RH_FANOUT_BUSY / 2 + RH_FANOUT_IDLE / 2);
    while (rh_fanout_run(rig.sh, false))
        ;
    RH_EQ_INT(rig.broadcast_left, 0);
    RH_EQ_INT(rig.pushes, 1200);
    end();
}

/* ---- what the home hears ---- */

RH_TEST(fanout, another_home_is_told_in_batches)
{
    begin(false);
    join_all(2);
    for (unsigned k = 1; k < RH_FANNED_COUNT; k++)
        publish(k);
    run();
    RH_EQ_U64(rig.tells, 0);
    publish(RH_FANNED_COUNT);
    run();
    RH_EQ_U64(rig.tells, 1);
    RH_EQ_U64(rig.told, RH_FANNED_COUNT);
    RH_EQ_U64(rig.told_bytes, 10 * RH_FANNED_COUNT);
    publish(RH_FANNED_COUNT + 1);
    run();
    RH_EQ_U64(rig.tells, 1);
    leave(0);
    leave(1); /* the branch goes, and tells what it owes */
    RH_OK_IF(rh_branch_find(rig.sh, ROOM));
    run();
    RH_EQ_U64(rig.told, RH_FANNED_COUNT + 1);
    RH_OK_IF(!rh_branch_find(rig.sh, ROOM));
    end();
}

RH_TEST(fanout, what_comes_for_a_branch_that_has_gone_is_reported_all_the_same)
{
    begin(false);
    publish(1);
    publish(2);
    RH_EQ_U64(rig.told, 0);
    run();
    RH_EQ_U64(rig.told, 2);
    RH_EQ_U64(rig.tells, 1);
    RH_EQ_U64(rig.told_bytes, 20);
    end();
}

RH_TEST(fanout, a_report_that_finds_no_memory_is_made_later)
{
    begin(false);
    join_all(1);
    for (unsigned k = 1; k <= 20; k++)
        publish(k);
    rig.deaf = true;
    run();
    leave(0);
    run();
    publish(21); /* for the branch that is kept for its report */
    for (unsigned i = 0; i < RH_STRAYS_MAX + 10; i++) {
        push(1000 + i, 1, RH_MSG_ROOM, 0);
        push(1000 + i, 2, RH_MSG_ROOM, 0);
    }
    run();
    RH_EQ_U64(rig.told, 0);
    RH_EQ_U64(stat_of(RH_STAT_memory_failures), 20); /* those that found no place */
    rig.deaf = false;
    run();
    RH_EQ_U64(rig.told, 21 + 2 * RH_STRAYS_MAX);
    RH_EQ_U64(rh_map_count(&rig.sh->branches), 0);
    end();
}

RH_TEST(fanout, strays_that_may_be_told_at_once_make_room_for_others)
{
    begin(false);
    for (unsigned i = 0; i < 5 * RH_STRAYS_MAX; i++)
        push(1000 + i, 1, RH_MSG_ROOM, 0);
    run();
    RH_EQ_U64(rig.told, 5 * RH_STRAYS_MAX);
    RH_EQ_U64(stat_of(RH_STAT_memory_failures), 0);
    end();
}

RH_TEST(fanout, a_branch_that_waits_for_its_report_is_used_again)
{
    begin(false);
    join(0, 0);
    publish(1);
    leave(0);
    join(1, 1);
    publish(2);
    run();
    expect_run(1, 2, 2);
    RH_EQ_U64(rig.told, 2);
    leave(1);
    run();
    RH_EQ_U64(rig.told, 2);
    RH_OK_IF(!rh_branch_find(rig.sh, ROOM));
    end();
}

/* A home that lets held messages go as soon as it hears something. */
static void publish_more(void)
{
    if (rig.from < 10)
        publish(++rig.from);
}

RH_TEST(fanout, the_own_home_may_publish_when_it_is_told)
{
    begin(true);
    join_all(3);
    rig.from = 1;
    rig.on_fanned = publish_more;
    publish(1);
    run();
    for (unsigned i = 0; i < 3; i++)
        expect_run(i, 1, 10);
    RH_EQ_U64(rig.told, 10);
    end();
}

/* ---- the end of a room ---- */

RH_TEST(fanout, a_deleted_room_ends_behind_its_last_message)
{
    begin(true);
    join_all(700);
    publish(1);
    push(ROOM, 1, RH_MSG_NOTICE, 0);
    rh_fanout_over(rig.sh, ROOM);
    RH_OK_IF(rh_fanout_run(rig.sh, true));
    RH_EQ_INT(rig.clients[0].ended + rig.clients[699].ended, 0);
    run();
    for (unsigned i = 0; i < 700; i++) {
        RH_EQ_INT(rig.clients[i].count, 2);
        RH_EQ_INT(rig.clients[i].ended, 1);
    }
    RH_OK_IF(!rh_branch_find(rig.sh, ROOM));
    rh_fanout_over(rig.sh, ROOM); /* unknown */
    join(0, 0);
    leave(0);
    RH_OK_IF(!rh_branch_find(rig.sh, ROOM));
    end();
}

RH_TEST(fanout, a_deleted_room_with_nobody_left_is_gone_at_once)
{
    begin(false);
    join(0, 0);
    publish(1);
    leave(0);
    RH_OK_IF(rh_branch_find(rig.sh, ROOM));
    rh_fanout_over(rig.sh, ROOM); /* the home counts nothing any more */
    RH_OK_IF(!rh_branch_find(rig.sh, ROOM));
    run();
    RH_EQ_U64(rig.told, 0);
    end();
}

/* ---- what is owed ---- */

RH_TEST(fanout, what_is_owed_is_finished_with_its_lap)
{
    begin(true);
    rig.shares = true;
    join_all(5);
    publish(2);
    RH_OK_IF(rig.came == 1 && rig.finished == 0);
    run();
    RH_EQ_INT(rig.finished, 1);
    expect_run(0, 2, 2);
    expect_run(1, 502, 502); /* its own copy */
    RH_EQ_INT(rig.owed_pushes, 4);
    RH_EQ_U64(rig.clients[1].sub.seq, 2);
    end();
}

RH_TEST(fanout, what_is_owed_is_not_pushed_where_it_would_be_lost)
{
    static struct rh_replay losing = {.lost_count = 1}, keeping;

    begin(true);
    rig.shares = true;
    join_all(5);
    rig.full[0] = rig.full[1] = true;
    rig.clients[2].sub.replay = &losing;
    rig.clients[3].sub.replay = &keeping;
    for (unsigned k = 1; k <= 3; k++)
        publish(k);
    run();
    RH_EQ_INT(rig.clients[0].count, 2);
    RH_EQ_INT(rig.clients[0].got[1], 3);
    RH_EQ_INT(rig.clients[1].count, 3); /* what is not owed takes its chance */
    RH_EQ_INT(rig.clients[2].parked, 2);
    RH_EQ_INT(rig.clients[3].parked, 3);
    for (unsigned i = 0; i < 5; i++)
        RH_EQ_U64(rig.clients[i].sub.seq, 3);
    expect_run(4, 1, 3);
    end();
}

RH_TEST(fanout, what_is_owed_is_finished_at_once_where_nobody_subscribes)
{
    begin(false);
    rig.shares = true;
    publish(2); /* a stray */
    RH_EQ_INT(rig.finished, 1);
    join(0, 2);
    publish(4);
    leave(0); /* and the branch waits for its report */
    RH_EQ_INT(rig.finished, 2);
    publish(6);
    RH_EQ_INT(rig.finished, 3);
    run();
    end();
}

/* ---- without memory ---- */

RH_TEST(fanout, without_memory_for_a_message_all_who_should_get_it_are_closed)
{
    for (unsigned nth = 1; nth <= 2; nth++) {
        begin(false);
        join_all(20);
        rig.clients[3].c.state = RH_CONN_CLOSING;
        publish(1);
        if (nth == 2) /* the queue grows */
            for (unsigned k = 2; k <= 4; k++)
                publish(k);
        rh_handles_fini(&rig.sh->stock.handles);
        struct rh_msg *msg = rh_msg_create(16);
        msg->kind = RH_MSG_ROOM;
        msg->seq = 5;
        rh_mem_fail_nth(1);
        rh_fanout_push(rig.sh, 1, ROOM, msg);
        rh_mem_fail_nth(0);
        join(20, 5); /* came later: it misses nothing */
        publish(6);
        run();
        for (unsigned i = 0; i < 20; i++) {
            RH_EQ_INT(rig.clients[i].count, 0); /* what stood before it is in the history, too */
            RH_EQ_INT(rig.clients[i].ended, i != 3);
        }
        expect_run(20, 6, 6);
        RH_EQ_U64(stat_of(RH_STAT_messages_dropped_memory), 19);
        leave(3);
        leave(20);
        run();
        RH_EQ_U64(rig.told, nth == 2 ? 6 : 3);
        end();
    }
}

/* The rig's own memory is asked for with the hook off. */
RH_TEST(fanout, every_failing_allocation_is_survived)
{
    for (unsigned nth = 1;; nth++) {
        bool failed;

        begin(true);
        rh_mem_fail_nth(nth);
        for (unsigned i = 0; i < 9; i++) {
            fresh(&rig.clients[i], 0);
            if (rh_branch_add(rig.sh, &rig.clients[i].sub, ROOM) < 0)
                rig.clients[i].c.state = RH_CONN_FREE;
        }
        for (unsigned k = 1; k <= 9; k++) {
            struct rh_msg *msg = rh_msg_create(16);

            if (!msg)
                continue;
            msg->kind = RH_MSG_ROOM;
            msg->seq = k;
            msg->shares = k % 2 ? NULL : rh_mem_zalloc(sizeof(*msg->shares));
            if (msg->shares)
                msg->shares->count = rig.came;
            rh_fanout_push(rig.sh, 0, ROOM, msg);
        }
        failed = rh_mem_fail_left() == 0;
        rh_mem_fail_nth(0);
        run();
        end();
        if (!failed)
            return;
    }
}

/* ---- at random ---- */

#define MANY 60

struct model {
    bool in[MANY];
    unsigned joined[MANY]; /* behind which number */
    unsigned seq, pushed;
};

static void model_step(struct model *m)
{
    unsigned i = (unsigned)(rh_test_rand() % MANY);

    switch (rh_test_rand() % 8) {
    case 0:
    case 1:
        if (m->in[i]) {
            expect_run(i, m->joined[i] + 1, m->joined[i] + rig.clients[i].count);
            leave(i);
        } else {
            join(i, m->seq);
            m->joined[i] = m->seq;
        }
        m->in[i] = !m->in[i];
        break;
    case 2:
    case 3:
    case 4:
        if (m->seq >= 40)
            break;
        publish(++m->seq);
        m->pushed++;
        break;
    default:
        rh_fanout_run(rig.sh, true);
        rh_fanout_report(rig.sh);
    }
}

RH_TEST(fanout, at_random_everyone_has_a_gapless_run_and_every_message_is_reported)
{
    for (unsigned round = 0; round < 400; round++) {
        struct model m = {0};

        begin(round & 1);
        rig.shares = round & 2;
        for (unsigned k = 0; k < 300; k++)
            model_step(&m);
        run();
        for (unsigned i = 0; i < MANY; i++) {
            if (!m.in[i])
                continue;
            if (rig.clients[i].count)
                expect_run(i, m.joined[i] + 1, m.seq);
            else
                RH_EQ_U64(m.joined[i], m.seq);
            leave(i);
        }
        run();
        RH_EQ_U64(rig.told, m.pushed);
        RH_EQ_U64(rh_map_count(&rig.sh->branches), 0);
        end();
    }
}
