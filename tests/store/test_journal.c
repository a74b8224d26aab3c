/* Goal    what is told to be durable comes back after any end, in its order and once; what is written to
 *         is never more than the rules of store/journal.h allow.
 * Method  the disk in memory; each test is one rule. Damage is in test_journal_damage.c, chance in
 *         test_journal_luck.c. */
#include "store/journal.h"

#include <errno.h>

#include "tests/store/disk.h"
#include "tests/store/journal_rig.h"

static struct rig rig;

static uint64_t failures(void)
{
    struct rh_journal_stat stat;

    rh_journal_stat(rig.j, &stat);
    return stat.failures;
}

/* The number of files whose name begins like that. */
static unsigned files_named(const char *prefix)
{
    const char *names[256];
    const unsigned count = disk_names(names, RH_COUNT(names));
    unsigned found = 0;

    for (unsigned i = 0; i < count; i++)
        found += !strncmp(names[i], prefix, strlen(prefix));
    return found;
}

/* ---- what comes back ---- */

RH_TEST(journal, a_start_without_events_makes_no_file)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_rest(&rig);
    RH_EQ_U64(rh_journal_open_batch(rig.j), 1);
    RH_EQ_U64(rh_journal_durable(rig.j), 0);
    RH_OK_IF(rh_journal_next_ms(rig.j, 0) == UINT64_MAX);
    rig_close(&rig);
    RH_EQ_INT(files_named(""), 0);
}

RH_TEST(journal, what_is_put_is_durable_and_comes_back)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 1);
    for (unsigned i = 0; i < 9; i++)
        RH_EQ_INT(rig_put(&rig), RH_OK);
    RH_OK_IF(rh_journal_waiting_bytes(rig.j) > 0);
    rig_rest(&rig);
    RH_EQ_U64(rh_journal_durable(rig.j), 2);
    RH_EQ_U64(rh_journal_waiting_bytes(rig.j), 0);
    disk_cut(1);
    rig_bury(&rig);
    rig_wants(&rig, 1, 10);
    RH_EQ_U64(rh_journal_open_batch(rig.j), 3);
    rig_close(&rig);
}

RH_TEST(journal, what_was_not_durable_may_be_gone_but_leaves_no_trace)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        rig_init(&rig);
        rig_wants(&rig, 0, 0);
        rig_commit(&rig, 3);
        rig_put(&rig);
        rh_journal_step(rig.j, rig.now_ms);
        RH_OK_IF(rh_files_enter(rig.files, 0) == RH_OK);
        disk_cut(seed);
        rig_bury(&rig);
        RH_OK_IF(rig_open(&rig) == RH_OK && rig.holes == 0 && (rig.read == 3 || rig.read == 4));
        rig_close(&rig);
    }
}

RH_TEST(journal, segments_follow_each_other)
{
    rig_init(&rig);
    rig.text = 700;
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 40);
    RH_OK_IF(rh_journal_newest(rig.j) > 5);
    RH_EQ_U64(rh_journal_oldest(rig.j), 1);
    disk_cut(2);
    rig_bury(&rig);
    rig_wants(&rig, 1, 40);
    rig_commit(&rig, 1);
    rig_close(&rig);
    rig_wants(&rig, 1, 41);
    rig_close(&rig);
}

RH_TEST(journal, a_batch_larger_than_a_segment_gets_a_larger_one)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 2);
    rig.text = 100000;
    rig_commit(&rig, 2);
    rig.text = 10;
    rig_commit(&rig, 2);
    disk_cut(3);
    rig_bury(&rig);
    rig_wants(&rig, 1, 6);
    rig_close(&rig);
}

RH_TEST(journal, events_that_are_put_during_a_commit_form_the_next_batch)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 1);
    rig_put(&rig);
    rh_journal_step(rig.j, 7000);
    RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_WRITING);
    RH_EQ_U64(rh_journal_since_ms(rig.j), 7000);
    for (unsigned i = 0; i < 5; i++) {
        rig_put(&rig);
        RH_EQ_U64(rh_journal_open_batch(rig.j), 3);
    }
    rig_rest(&rig);
    RH_EQ_U64(rh_journal_durable(rig.j), 3);
    RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_IDLE);
    RH_EQ_U64(rh_journal_since_ms(rig.j), 0);
    rig_close(&rig);
}

/* A commit in a prepared segment: one write and one sync, and nothing of the directory. */
RH_TEST(journal, a_commit_is_one_write_and_one_sync)
{
    unsigned writes, syncs;

    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 10);
    writes = disk_done(DISK_WRITE);
    syncs = disk_done(DISK_SYNC);
    rig_commit(&rig, 10);
    RH_EQ_INT(disk_done(DISK_WRITE) - writes, 10);
    RH_EQ_INT(disk_done(DISK_SYNC) - syncs, 10);
    rig_close(&rig);
}

/* ---- starts ---- */

/* A kill leaves what was written in the kernel's memory. Who reads it there and builds on it must not
 * lose it to a power cut later. */
RH_TEST(journal, the_last_batch_that_was_read_is_made_durable_again)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        rig_init(&rig);
        rig_wants(&rig, 0, 0);
        rig_commit(&rig, 3);
        rig_put(&rig);
        disk_hang(1u << DISK_SYNC);
        for (unsigned i = 0; i < 20; i++)
            rig_turn(&rig);
        disk_hang(0);
        disk_kill(seed);
        rig_bury(&rig);
        rig_wants(&rig, 1, 4);
        RH_EQ_U64(rh_journal_durable(rig.j), 3);
        rig_commit(&rig, 1);
        disk_cut(seed);
        rig_bury(&rig);
        rig_wants(&rig, 1, 5);
        rig_close(&rig);
    }
}

/* The same after a sync that failed: the kernel has the bytes, calls them clean, and loses them. */
RH_TEST(journal, a_batch_whose_sync_failed_is_made_durable_by_the_next_run)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        rig_init(&rig);
        rig_wants(&rig, 0, 0);
        rig_commit(&rig, 3);
        disk_fail(DISK_SYNC, 1, UINT32_MAX, EIO);
        rig_put(&rig);
        for (unsigned i = 0; i < 20; i++)
            rig_turn(&rig);
        RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_FAILING);
        disk_fail(DISK_SYNC, 1, 0, 0);
        disk_kill(seed);
        rig_bury(&rig);
        rig_wants(&rig, 1, 4);
        rig_commit(&rig, 1);
        disk_cut(seed);
        rig_bury(&rig);
        rig_wants(&rig, 1, 5);
        rig_close(&rig);
    }
}

RH_TEST(journal, many_starts_in_a_row_lose_nothing)
{
    rig_init(&rig);
    for (uint64_t start = 0; start < 60; start++) {
        rig_wants(&rig, 1, 2 * start);
        rig_commit(&rig, 2);
        if (start % 3 == 0)
            rig_close(&rig);
        else if (start % 3 == 1)
            disk_cut(start);
        else
            disk_kill(start);
        if (start % 3)
            rig_bury(&rig);
    }
    rig_wants(&rig, 1, 120);
    rig_close(&rig);
}

/* ---- releasing ---- */

RH_TEST(journal, released_segments_are_used_again_and_never_read)
{
    uint64_t first;

    rig_init(&rig);
    rig.text = 700;
    rig_wants(&rig, 0, 0);
    for (unsigned i = 0; i < 200; i++) {
        rig_commit(&rig, 1);
        if (rh_journal_newest(rig.j) > 4)
            rh_journal_release(rig.j, rh_journal_newest(rig.j) - 2);
    }
    rig_rest(&rig);
    RH_OK_IF(rh_journal_newest(rig.j) > 20);
    RH_OK_IF(rh_journal_files(rig.j) <= 3 + RH_JOURNAL_SPARES + 1);
    RH_OK_IF(files_named("") == rh_journal_files(rig.j));
    disk_cut(4);
    rig_bury(&rig);
    RH_OK_IF(rig_open(&rig) == RH_OK);
    first = rig.first;
    RH_OK_IF(first > 150 && rig.next == 201 && rig.holes == 0);
    rig_close(&rig);
}

/* Without an event there is a batch without events. */
RH_TEST(journal, a_release_is_said_at_once)
{
    uint64_t batch;

    rig_init(&rig);
    rig.text = 700;
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 40);
    batch = rh_journal_durable(rig.j);
    rh_journal_release(rig.j, rh_journal_newest(rig.j));
    rig_rest(&rig);
    RH_EQ_U64(rh_journal_durable(rig.j), batch + 1);
    RH_EQ_U64(rh_journal_oldest(rig.j), rh_journal_newest(rig.j));
    RH_EQ_INT(files_named("spare"), RH_JOURNAL_SPARES);
    rig_close(&rig);
    RH_OK_IF(rig_open(&rig) == RH_OK && rig.holes == 0 && rig.next == 41);
    rig_close(&rig);
}

RH_TEST(journal, a_release_that_is_not_durable_removes_nothing)
{
    rig_init(&rig);
    rig.text = 700;
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 40);
    disk_hang(1u << DISK_SYNC);
    rh_journal_release(rig.j, rh_journal_newest(rig.j));
    for (unsigned i = 0; i < 20; i++)
        rig_turn(&rig);
    RH_EQ_INT(disk_done(DISK_REMOVE), 0);
    RH_EQ_INT(files_named("spare"), 0);
    disk_hang(0);
    disk_cut(5);
    rig_bury(&rig);
    RH_OK_IF(rig_open(&rig) == RH_OK && rig.holes == 0 && rig.next == 41);
    rig_close(&rig);
}

RH_TEST(journal, a_release_before_the_first_event_of_a_run_waits_for_it)
{
    rig_init(&rig);
    rig.text = 700;
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 40);
    rig_close(&rig);
    rig_wants(&rig, 1, 40);
    rh_journal_release(rig.j, UINT64_MAX);
    rig_rest(&rig);
    RH_OK_IF(files_named("journal") > 5);
    rig_commit(&rig, 1);
    rig_rest(&rig);
    RH_OK_IF(rh_journal_files(rig.j) <= 2 + RH_JOURNAL_SPARES);
    rig_close(&rig);
    rig_wants(&rig, 40, 41); /* the last batch of the run before was written again */
    rig_close(&rig);
}

RH_TEST(journal, a_spare_needs_no_zeroes_and_no_room)
{
    unsigned opened;

    rig_init(&rig);
    rig.text = 700;
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 40);
    rh_journal_release(rig.j, rh_journal_newest(rig.j));
    rig_rest(&rig);
    disk_room(0);
    opened = disk_done(DISK_OPEN);
    for (unsigned i = 0; i < 10; i++) {
        rig_put(&rig);
        for (unsigned turn = 0; turn < 20; turn++)
            rig_turn(&rig);
        RH_OK_IF(rig.told == rig.next - 1);
    }
    RH_OK_IF(disk_done(DISK_OPEN) - opened >= 2);
    RH_EQ_U64(failures(), 0);
    rig_close(&rig);
}

/* ---- failures ---- */

RH_TEST(journal, a_write_that_is_shortened_goes_on)
{
    rig_init(&rig);
    rig.text = 20000;
    disk_short(1000);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 5);
    disk_cut(6);
    rig_bury(&rig);
    rig_wants(&rig, 1, 5);
    rig_close(&rig);
}

static void fail_once(enum disk_kind kind, uint64_t seed)
{
    const uint64_t before = failures(), segment = rh_journal_newest(rig.j);
    unsigned opened;

    disk_fail(kind, 1, 1, EIO);
    rig_put(&rig);
    for (unsigned i = 0; i < 20 && rh_journal_state(rig.j) != RH_JOURNAL_FAILING; i++)
        rig_turn(&rig);
    RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_FAILING);
    RH_OK_IF(rig.told < rig.next - 1);
    RH_EQ_U64(failures(), before + 1);
    opened = rh_journal_next_ms(rig.j, rig.now_ms);
    RH_OK_IF(opened > 0 && opened <= 100);
    rig_rest(&rig);
    RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_IDLE);
    RH_OK_IF(rig.told == rig.next - 1);
    RH_OK_IF(rh_journal_newest(rig.j) > segment);
    rig_commit(&rig, 3);
    disk_cut(seed);
    rig_bury(&rig);
    rig_wants(&rig, 1, rig.next - 1);
    rig_commit(&rig, 1);
}

RH_TEST(journal, after_a_failed_write_or_sync_the_batch_goes_into_a_fresh_segment)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        rig_init(&rig);
        rig_wants(&rig, 0, 0);
        rig_commit(&rig, 3);
        fail_once(DISK_WRITE, seed);
        fail_once(DISK_SYNC, seed);
        rig_close(&rig);
    }
}

/* A segment that was abandoned before it had a batch is no use to anybody. */
RH_TEST(journal, a_disk_that_fails_for_long_does_not_fill_up_with_segments)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 3);
    for (unsigned i = 0; i < 50; i++) {
        disk_fail(DISK_SYNC, 1 + i % 4, 1, EIO);
        rig_put(&rig);
        rig_rest(&rig);
    }
    disk_fail(DISK_SYNC, 1, UINT32_MAX, EIO);
    rig_put(&rig);
    for (unsigned i = 0; i < 3000; i++) {
        const uint64_t ms = rh_journal_next_ms(rig.j, rig.now_ms);

        rig_turn(&rig);
        rig.now_ms += ms == UINT64_MAX ? 0 : ms;
    }
    RH_OK_IF(failures() > 100);
    RH_OK_IF(files_named("") < 60);
    RH_OK_IF(disk_open_fds() <= 5);
    disk_fail(DISK_SYNC, 1, 0, 0);
    rig_rest(&rig);
    rig_close(&rig);
    rig_wants(&rig, 1, 54);
    rig_close(&rig);
}

RH_TEST(journal, a_full_disk_is_tried_again_until_there_is_room)
{
    uint64_t began;

    rig_init(&rig);
    disk_room(4096);
    rig_wants(&rig, 0, 0);
    rig_put(&rig);
    began = rig.now_ms;
    for (unsigned i = 0; i < 400; i++) {
        const uint64_t ms = rh_journal_next_ms(rig.j, rig.now_ms);

        rig_turn(&rig);
        RH_OK_IF(ms == UINT64_MAX || ms <= 2000);
        rig.now_ms += ms == UINT64_MAX ? 0 : ms;
    }
    RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_FAILING);
    RH_OK_IF(failures() > 5 && rig.now_ms - began > 20000);
    RH_OK_IF(files_named("") <= 2);
    disk_room(UINT64_MAX);
    began = rig.now_ms;
    rig_rest(&rig);
    RH_OK_IF(rig.now_ms - began <= 2000);
    RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_IDLE);
    RH_EQ_U64(rig.told, 1);
    rig_close(&rig);
}

/* While the present segment has room nobody has to know. */
RH_TEST(journal, a_full_disk_stops_nothing_while_the_segment_has_room)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    disk_room(3 * RH_SEGMENT_BYTES_MIN / 2);
    for (unsigned i = 0; i < 20; i++) {
        rig_put(&rig);
        for (unsigned turn = 0; turn < 20; turn++)
            rig_turn(&rig);
        RH_OK_IF(rig.told == rig.next - 1);
        RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_IDLE);
    }
    RH_OK_IF(failures() > 0);
    rig_close(&rig);
}

RH_TEST(journal, a_disk_that_hangs_goes_on_when_it_does)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 3);
    disk_hang(1u << DISK_WRITE | 1u << DISK_SYNC);
    rig_put(&rig);
    for (unsigned i = 0; i < 50; i++, rig.now_ms += 100)
        rig_turn(&rig);
    RH_EQ_INT(rh_journal_state(rig.j), RH_JOURNAL_WRITING);
    RH_OK_IF(rig.now_ms - rh_journal_since_ms(rig.j) >= 5000);
    rig_put(&rig);
    RH_EQ_U64(rig.told, 3);
    disk_hang(0);
    rig_rest(&rig);
    RH_EQ_U64(rig.told, 5);
    rig_close(&rig);
}

RH_TEST(journal, a_directory_that_cannot_be_synced_holds_no_batch)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    disk_fail(DISK_SYNC_DIR, 1, 3, EIO);
    rig_put(&rig);
    rig_rest(&rig);
    RH_EQ_U64(failures(), 3);
    disk_cut(7);
    rig_bury(&rig);
    rig_wants(&rig, 1, 1);
    rig_close(&rig);
}

/* ---- memory ---- */

static void open_and_put(void *arg)
{
    (void)arg;
    if (rig_open(&rig) < 0)
        return;
    if (rig_put(&rig) == RH_OK)
        rig_rest(&rig);
    rig_close(&rig);
}

RH_TEST(journal, every_allocation_may_fail)
{
    rig_init(&rig);
    rig.text = 3000;
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 20);
    rig_close(&rig);
    rh_test_fail_each_alloc(open_and_put, NULL);
    RH_OK_IF(rig_open(&rig) == RH_OK && rig.holes == 0 && rig.first == 1 && rig.next >= 22);
    rig_close(&rig);
}

RH_TEST(journal, what_finds_no_memory_is_not_put)
{
    rig_init(&rig);
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, 1);
    rig.text = 1 << 20;
    rh_mem_fail_nth(1);
    RH_EQ_INT(rig_put(&rig), RH_ENOMEM);
    RH_EQ_U64(rh_journal_waiting_bytes(rig.j), 0);
    rig_commit(&rig, 1);
    rig_close(&rig);
    rig_wants(&rig, 1, 2);
    rig_close(&rig);
}
