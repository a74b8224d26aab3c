/* tests/store/test_record_fail.c - a disk that fails, hangs or is full, and memory that is gone. */
#include "core/err.h"
#include "tests/store/disk.h"
#include "tests/store/record_rig.h"

static const char *const crowd[] = {"ann", "bob", "cid", "dan", "eve"};
static const struct rig_accept asked = {.asker = 1, .attempt = 1, .cookie = 40};
static const struct rig_accept with_id = {.asker = 0, .dedup_ms = 600000, .cookie = 50};

static struct rh_msg *direct(const char *id)
{
    struct rig_spec spec = {.kind = RH_MSG_DIRECT, .from = "sam", .to = "tom", .id = id};

    return rig_msg(&spec);
}

static struct rh_msg *of_room(const char *id, unsigned shares)
{
    struct rig_spec spec = {.kind = RH_MSG_ROOM,
                            .from = "sam",
                            .to = "lobby",
                            .id = id,
                            .shares = crowd,
                            .share_count = shares};

    return rig_msg(&spec);
}

static void begin(void)
{
    rig_init();
    rig_open();
    rig_forget();
}

/* A while in which the journal tries again. */
static void seconds(unsigned n)
{
    for (unsigned i = 0; i < 10 * n; i++) {
        rig_pass_ms(100);
        rig_turns(10);
    }
}

static void wants_answer(enum rh_wire_error err)
{
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 1);
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 0)->a, err);
}

/* A disk that fails in one of these ways. */
static void fails_and_recovers(enum disk_kind kind, int err)
{
    struct rh_msg *msg[3];

    begin();
    for (int i = 0; i < 3; i++)
        msg[i] = direct(i == 0 ? "m0" : i == 1 ? "m1" : "m2");
    disk_fail(kind, 1, UINT32_MAX, err);
    rig_accept(msg[0], &asked);
    rig_settle();
    wants_answer(RH_WIRE_store_failed);
    RH_EQ_INT(rig_gate(), RH_GATE_FAILING);
    rig_forget();
    rig_accept(msg[1], &with_id); /* slipped through: nobody had seen the gate */
    rig_settled(msg[0], 0, RH_STATE_failed, RH_REASON_unknown);
    rig_settle();
    wants_answer(RH_WIRE_store_failed);
    rig_forget();
    seconds(3);
    RH_EQ_INT(rig_gate(), RH_GATE_FAILING);
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 0);
    disk_fail(kind, 1, 0, 0);
    seconds(5);
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    RH_EQ_STR(rig_story(), "STATUS"); /* of m0 */
    rig_forget();
    rig_accept(msg[2], &asked);
    rig_settle();
    wants_answer(RH_WIRE_NONE);
    rig_crash(5);
    RH_EQ_INT(rig_count(RH_EV_OWED), 2); /* m1 became durable, told or not */
    RH_EQ_INT(rig_count(RH_EV_REMEMBER), 1);
    for (int i = 0; i < 3; i++)
        rh_msg_drop_any(msg[i]);
    rig_fini();
}

RH_TEST(record_fail, a_failed_write_is_told_at_once_and_got_over)
{
    fails_and_recovers(DISK_WRITE, 5);
}

RH_TEST(record_fail, a_failed_sync_is_told_at_once_and_got_over)
{
    fails_and_recovers(DISK_SYNC, 5);
}

RH_TEST(record_fail, a_full_disk_is_told_at_once_and_got_over)
{
    fails_and_recovers(DISK_WRITE, 28);
}

RH_TEST(record_fail, without_a_first_file_nothing_is_promised)
{
    fails_and_recovers(DISK_OPEN, 28);
}

RH_TEST(record_fail, a_commit_that_takes_too_long_closes_the_gate_until_it_ends)
{
    struct rh_msg *msg[3];

    begin();
    for (int i = 0; i < 3; i++)
        msg[i] = direct("m");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg[0], &asked);
    rig_settle();
    rig_accept(msg[1], &asked); /* gathers */
    rig_pass_ms(RH_COMMIT_MS_MAX - 1);
    rig_turns(3);
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    RH_EQ_STR(rig_story(), "");
    rig_pass_ms(1);
    rig_turns(3);
    RH_EQ_INT(rig_gate(), RH_GATE_FAILING);
    RH_EQ_STR(rig_story(), "COMMITTED COMMITTED");
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 0)->a, RH_WIRE_store_failed);
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 1)->a, RH_WIRE_store_failed);
    rig_await(msg[0], 0, 60, 0);
    rig_turn();
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 2)->a, RH_WIRE_store_failed);
    rig_forget();
    disk_hang(0);
    rig_settle();
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    RH_EQ_STR(rig_story(), "");
    rig_await(msg[0], 0, 60, 0);
    rig_await(msg[1], 0, 60, 0);
    rig_turn();
    RH_EQ_STR(rig_story(), "COMMITTED COMMITTED"); /* they are durable by now */
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 1)->a, RH_WIRE_NONE);
    for (int i = 0; i < 3; i++)
        rh_msg_drop_any(msg[i]);
    rig_fini();
}

RH_TEST(record_fail, it_wakes_up_when_a_commit_is_late)
{
    struct rh_msg *msg;

    begin();
    msg = direct("m");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &asked);
    rig_turns(5);
    RH_OK_IF(disk_wait_ms() <= RH_COMMIT_MS_MAX);
    disk_hang(0);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record_fail, too_much_that_is_not_committed_closes_the_gate)
{
    struct rig_spec spec = {.from = "sam", .to = "tom", .id = "m"};
    unsigned count = RH_UNCOMMITTED_MAX / (1u << 20) + 2;
    char *text = rh_mem_alloc((1u << 20) + 1);
    struct rh_msg *msg;

    memset(text, 'x', 1u << 20);
    text[1u << 20] = 0;
    spec.text = text;
    begin();
    disk_hang(1u << DISK_SYNC);
    for (unsigned i = 0; i < count; i++) {
        RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
        msg = rig_msg(&spec);
        rig_accept(msg, &asked);
        rh_msg_drop_any(msg);
        rig_turns(3);
        if (rig_gate() != RH_GATE_OPEN)
            break;
    }
    RH_EQ_INT(rig_gate(), RH_GATE_FAILING);
    RH_OK_IF(rig_count(RH_EV_COMMITTED) > RH_UNCOMMITTED_MAX / (2u << 20));
    RH_OK_IF(rig_stat(RH_STAT_store_uncommitted_bytes) > RH_UNCOMMITTED_MAX);
    disk_hang(0);
    rig_turns(200);
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    RH_EQ_U64(rig_stat(RH_STAT_store_uncommitted_bytes), 0);
    rh_mem_free(text);
    rig_fini();
}

RH_TEST(record_fail, the_gate_is_full_at_the_backlog_s_bound_and_opens_below_seven_eighths)
{
    static char text[100001];
    struct rig_spec spec = {.from = "sam", .to = "tom", .id = "m", .text = text};
    struct rh_msg *msg[11];

    memset(text, 'x', sizeof(text) - 1);
    rig_init();
    rig_set("store.backlog_bytes", "1MiB");
    rig_open();
    for (int i = 0; i < 11; i++) {
        RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
        msg[i] = rig_msg(&spec);
        rig_accept(msg[i], &asked);
        rig_settle();
    }
    RH_EQ_INT(rig_gate(), RH_GATE_FULL);
    RH_EQ_U64(rig_stat(RH_STAT_store_gate), RH_GATE_FULL);
    RH_EQ_INT(rig_count(RH_EV_COMMITTED), 11);
    rig_settled(msg[0], 0, RH_STATE_success, 0);
    rig_settle();
    RH_EQ_INT(rig_gate(), RH_GATE_FULL);
    rig_settled(msg[1], 0, RH_STATE_success, 0);
    rig_settle();
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    for (int i = 0; i < 11; i++)
        rh_msg_drop_any(msg[i]);
    rig_fini();
}

RH_TEST(record_fail, drain_and_stop_do_not_wait_for_a_store_that_fails)
{
    struct rh_msg *msg;

    begin();
    msg = direct("m");
    disk_fail(DISK_WRITE, 1, UINT32_MAX, 5);
    rig_accept(msg, &asked);
    rig_settle();
    rig_control(RH_EV_DRAIN, 3, NULL);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED QUIET");
    rig_control(RH_EV_STOP, 0, NULL);
    rig_settle();
    RH_OK_IF(rig.stopped);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record_fail, stop_waits_for_a_disk_that_hangs_but_not_without_end)
{
    struct rh_msg *msg;

    begin();
    msg = direct("m");
    disk_hang(1u << DISK_SYNC);
    rig_accept(msg, &asked);
    rig_settle();
    rig_control(RH_EV_STOP, 0, NULL);
    rig_settle();
    RH_OK_IF(!rig.stopped);
    rig_pass_ms(2000);
    rig_settle();
    RH_OK_IF(rig.stopped);
    disk_hang(0);
    rh_msg_drop_any(msg);
    rig_fini();
}

RH_TEST(record_fail, a_damaged_journal_is_an_error_that_says_where)
{
    const char *names[8];
    struct rh_msg *msg;

    begin();
    for (int i = 0; i < 3; i++) {
        msg = direct("m");
        rig_accept(msg, &asked);
        rig_settle();
        rh_msg_drop_any(msg);
    }
    rig_close();
    RH_OK_IF(disk_names(names, 8) > 0);
    for (uint64_t bit = 0; bit < 3; bit++)
        disk_flip(names[0], (4096 + 60 + bit) * 8);
    RH_EQ_INT(rig_try_open(), RH_EIO);
    RH_OK_IF(strlen(rig.fault.text) > 10);
    rig_set("store.salvage", "true");
    rig_open();
    RH_OK_IF(rig_count(RH_EV_OWED) < 3);
    rig_fini();
}

/* ---- memory ---- */

/* The nth allocation from a point of the life on fails, for every n that there is. */
RH_TEST(record_fail, without_memory_it_goes_on_later)
{
    bool failed = true;

    for (uint64_t nth = 1; failed; nth++) {
        struct rh_msg *msg[3];

        begin();
        msg[0] = direct("m0");
        msg[1] = direct("m1");
        msg[2] = of_room("r0", 5);
        rig_accept(msg[0], &asked);
        rig_settle();
        rig_settled(msg[2], 4, RH_STATE_success, 0);
        rig_accept(msg[1], &with_id);
        rig_accept(msg[2], &asked);
        rig_attempt(msg[0], 0, 7);
        rh_mem_fail_nth(nth);
        rig_settle();
        failed = rh_mem_fail_left() == 0;
        rh_mem_fail_nth(0);
        seconds(3);
        RH_EQ_INT(rig_count(RH_EV_COMMITTED), 3);
        rig_settled(msg[1], 0, RH_STATE_success, 0);
        for (unsigned i = 0; i < 4; i++)
            rig_settled(msg[2], i, RH_STATE_success, 0);
        seconds(1);
        RH_EQ_INT(rig_count(RH_EV_STATUS), 2);
        RH_EQ_INT(rig_count(RH_EV_RELEASED), 1);
        rig_crash(nth);
        RH_EQ_INT(rig_count(RH_EV_OWED), 1);
        RH_OK_IF(rig_is(rig_find(RH_EV_OWED, 0)->msg, "m0"));
        RH_EQ_U64(rig_find(RH_EV_OWED, 0)->a, 7);
        for (int i = 0; i < 3; i++)
            rh_msg_drop_any(msg[i]);
        rig_fini();
    }
}

/* The open batch grows in steps: one event among many finds no memory. */
RH_TEST(record_fail, an_end_that_found_no_memory_is_put_and_told_later)
{
    enum { MANY = 3000 };
    static struct rh_msg *msg[MANY];
    const struct rig_accept unasked = {.unasked = true, .dedup_ms = 600000};

    begin();
    for (int i = 0; i < MANY; i++) {
        msg[i] = direct("m");
        rig_accept(msg[i], &unasked);
        if (i % 100 == 0)
            rig_turns(5);
    }
    rig_settle();
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), MANY);
    for (unsigned n = 2; n < 10; n++)
        for (int i = 0; i < MANY; i++)
            rig_attempt(msg[i], 0, n << 20); /* a number of many bytes */
    for (int i = 0; i < MANY; i++)
        rig_settled(msg[i], 0, RH_STATE_success, 0);
    disk_hang(1u << DISK_SYNC);
    for (int i = 0; i < 140; i++) {
        rh_mem_fail_nth(rig.r->again ? 0 : 1);
        rig_turn();
        rh_mem_fail_nth(0); /* the rest of what is spilled follows */
        rh_tid_set((int)rig_shard_of("tom"));
        rh_mesh_publish(rh_net_member(rig.net, rig_shard_of("tom")));
    }
    RH_OK_IF(rig.r->again && !rig.r->again->unsettled);
    disk_hang(0);
    for (int i = 0; i < 100; i++) {
        rig_turn();
        rh_tid_set((int)rig_shard_of("tom"));
        rh_mesh_publish(rh_net_member(rig.net, rig_shard_of("tom")));
    }
    rig_settle();
    for (int i = 0; i < MANY; i++)
        RH_OK_IF(!msg[i]->entry);
    RH_EQ_INT(rig_count(RH_EV_STATUS), MANY);
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), 0);
    rig_crash(4);
    RH_EQ_INT(rig_count(RH_EV_OWED), 0);
    RH_OK_IF(rig_count(RH_EV_REMEMBER) >= MANY); /* some twice: they were being copied forward */
    for (int i = 0; i < MANY; i++)
        rh_msg_drop_any(msg[i]);
    rig_fini();
}

/* ---- a small disk ---- */

#define OWED_MAX 2000

static struct rh_msg *owed[OWED_MAX];

static void begin_small(void)
{
    rig_init();
    disk_room(5 * (64 << 10) / 2); /* two segments and a half */
    rig_open();
    rig_forget();
}

static void accept_nth(unsigned n)
{
    char id[16];

    snprintf(id, sizeof(id), "m%u", n);
    owed[n] = direct(id);
    rig_accept(owed[n], &(struct rig_accept){.unasked = true, .attempt = 1});
    rig_turn();
}

static void settle_nth(unsigned n)
{
    rig_settled(owed[n], 0, RH_STATE_success, 0);
    rh_msg_drop_any(owed[n]);
    rig_turn();
    rig_forget();
}

RH_TEST(record_fail, what_is_acknowledged_never_fills_a_small_disk)
{
    begin_small();
    for (unsigned i = 0; i < 6000; i++) {
        accept_nth(i % 10);
        rig_turns(3);
        settle_nth(i % 10);
        if (rig_gate() != RH_GATE_OPEN)
            RH_FAIL("the gate is %d at message %u", rig_gate(), i);
    }
    RH_OK_IF(rig_stat(RH_STAT_journal_bytes) > 10 * (64 << 10));
    RH_EQ_INT(rig_stat(RH_STAT_store_messages), 0);
    rig_fini();
}

RH_TEST(record_fail, a_disk_that_is_full_of_what_is_owed_is_freed_when_that_ends)
{
    unsigned n = 0;

    begin_small();
    for (unsigned round = 0; round < 3; round++) {
        for (n = 0; n < OWED_MAX && rig_gate() == RH_GATE_OPEN; n++) {
            accept_nth(n);
            rig_turns(3);
        }
        RH_EQ_INT(rig_gate(), RH_GATE_FULL);
        RH_OK_IF(n > 300);
        for (unsigned i = 0; i < n; i++) {
            settle_nth(i);
            RH_OK_IF(rig_gate() != RH_GATE_FAILING);
        }
        seconds(1);
        RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    }
    rig_fini();
}

/* What a killed hub leaves has no place for a segment of the usual size. */
RH_TEST(record_fail, a_start_on_a_full_disk_makes_do_with_what_room_there_is)
{
    begin_small();
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 100 + 37 * round; i++) {
            accept_nth(0);
            rig_turns(3);
            settle_nth(0);
            if (rig_gate() == RH_GATE_FAILING)
                RH_FAIL("it fails at message %u of round %u", i, round);
        }
        RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
        disk_kill(round);
        rig_close();
        rig_open();
        RH_EQ_INT(rig_count(RH_EV_OWED), 0);
        rig_forget();
    }
    rig_fini();
}
