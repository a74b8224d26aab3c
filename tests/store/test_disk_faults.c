/* tests/store/test_disk_faults.c - the disk in memory fails, is full, hangs and dawdles as told. */
#include "tests/store/disk.h"

#include <errno.h>

#include "core/base.h"
#include "tests/store/disk_rig.h"

/* ---- faults ---- */

RH_TEST(disk_faults, the_nth_operation_fails_and_as_many_as_were_asked_for)
{
    int fd;

    begin();
    fd = durable_file(1);
    disk_fail(DISK_WRITE, 2, 2, EIO);
    RH_EQ_INT(write_sector(fd, 0, 'b'), DISK_SECTOR);
    RH_EQ_INT(write_sector(fd, 0, 'c'), -EIO);
    RH_EQ_INT(do_sync(fd), 0);
    RH_EQ_INT(write_sector(fd, 0, 'd'), -EIO);
    RH_EQ_INT(write_sector(fd, 0, 'e'), DISK_SECTOR);
    disk_fail(DISK_SYNC_DIR, 1, UINT32_MAX, EROFS);
    for (unsigned i = 0; i < 10; i++)
        RH_EQ_INT(do_sync_dir(), -EROFS);
    disk_fail(DISK_SYNC_DIR, 0, 0, 0);
    RH_EQ_INT(do_sync_dir(), 0);
    disk_fail(DISK_OPEN, 1, 1, EMFILE);
    RH_EQ_INT(do_open("two"), -EMFILE);
    expect_names("one ");
    disk_fail(DISK_CLOSE, 1, 1, EIO);
    RH_EQ_INT(do_close(fd), -EIO);
    RH_EQ_INT(disk_open_fds(), 0);
    end();
}

/* As Linux does it: whoever syncs again after a failure is told that all is well. */
RH_TEST(disk_faults, a_sync_that_failed_is_not_mended_by_another_one)
{
    unsigned lost = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd;

        begin();
        fd = durable_file(2);
        RH_OK_IF(write_sector(fd, 0, 'b') > 0 && write_sector(fd, 1, 'b') > 0);
        disk_fail(DISK_SYNC, 1, 1, EIO);
        RH_EQ_INT(do_sync(fd), -EIO);
        RH_OK_IF(write_sector(fd, 1, 'c') > 0);
        RH_EQ_INT(do_sync(fd), 0);
        RH_OK_IF(filled(0) == 'b'); /* as it is seen */
        cut(seed);
        RH_OK_IF(filled(1) == 'c'); /* written anew */
        lost += filled(0) == 'a';
        end();
    }
    RH_OK_IF(lost > 0 && lost < SEEDS);
}

RH_TEST(disk_faults, a_write_that_fails_may_have_written_some)
{
    unsigned parts = 0;

    begin();
    for (unsigned round = 0; round < 50; round++) {
        char bytes[4 * DISK_SECTOR];
        unsigned count = 0;
        int fd = durable_file(4);

        memset(bytes, 'b', sizeof(bytes));
        disk_fail(DISK_WRITE, 1, 1, EIO);
        RH_EQ_INT(do_write(fd, bytes, sizeof(bytes), 0), -EIO);
        for (unsigned i = 0; i < 4; i++)
            count += filled(i) == 'b';
        parts += count > 0 && count < 4;
        RH_OK_IF(do_close(fd) == 0);
    }
    RH_OK_IF(parts > 0);
    end();
}

RH_TEST(disk_faults, a_full_disk_takes_what_fits_and_more_when_there_is_room)
{
    static char bytes[4096];
    int fd, other;

    begin();
    disk_room(5000);
    fd = do_open("one");
    other = do_open("two");
    RH_EQ_INT(do_write(fd, bytes, 4096, 0), 4096);
    RH_EQ_INT(do_write(other, bytes, 4096, 0), 904);
    RH_EQ_INT(do_write(other, bytes, 4096, 904), -ENOSPC);
    RH_EQ_INT(do_write(fd, bytes, 4096, 0), 4096); /* it has its place */
    RH_EQ_INT(do_write(fd, bytes, 4096, 1), 4095);
    RH_OK_IF(do_remove("one") == 0);
    RH_EQ_INT(do_write(other, bytes, 1, 904), -ENOSPC); /* it is still open */
    RH_OK_IF(do_close(fd) == 0);
    RH_EQ_INT(do_write(other, bytes, 4096, 904), 4096);
    disk_room(UINT64_MAX);
    RH_EQ_INT(do_write(other, bytes, 4096, 5000), 4096);
    end();
}

RH_TEST(disk_faults, writes_are_as_short_as_they_are_told)
{
    static char bytes[4096];
    int fd;

    begin();
    fd = do_open("one");
    disk_short(10);
    RH_EQ_INT(do_write(fd, bytes, 4096, 0), 10);
    RH_EQ_INT(do_write(fd, bytes, 3, 10), 3);
    RH_EQ_INT(disk_size("one"), 13);
    disk_short(SIZE_MAX);
    RH_EQ_INT(do_write(fd, bytes, 4096, 13), 4096);
    end();
}

RH_TEST(disk_faults, what_hangs_completes_when_it_is_released)
{
    struct rh_file_cqe cqes[4];
    int fd;

    begin();
    fd = durable_file(1);
    disk_hang(1u << DISK_SYNC | 1u << DISK_CLOSE);
    rh_file_sync(f, fd, 1);
    rh_file_close(f, fd, 2);
    rh_file_write(f, fd, "x", 1, 0, 3);
    RH_EQ_INT(rh_files_enter(f, UINT64_MAX), RH_OK);
    RH_OK_IF(rh_files_reap(f, cqes, 4) == 1 && cqes[0].tag == 3);
    for (unsigned i = 0; i < 3; i++)
        RH_EQ_INT(rh_files_enter(f, UINT64_MAX), RH_OK); /* nothing to wait for: it returns */
    RH_OK_IF(rh_files_reap(f, cqes, 4) == 0 && rh_files_busy(f) == 2 && disk_open_fds() == 1);
    disk_hang(0);
    RH_EQ_INT(rh_files_enter(f, 0), RH_OK);
    RH_OK_IF(rh_files_reap(f, cqes, 4) == 2 && cqes[0].tag == 1 && cqes[1].tag == 2);
    end();
}

/* ---- luck ---- */

RH_TEST(disk_faults, with_luck_operations_take_their_time_and_any_order)
{
    const struct disk_luck luck = {.turns = 4};
    unsigned mixed = 0, waited = 0;

    begin();
    disk_luck(rh_test_seed(), &luck);
    for (unsigned round = 0; round < 50; round++) {
        struct rh_file_cqe cqes[8];
        unsigned count = 0;
        bool seen[8] = {false};

        for (unsigned i = 0; i < 8; i++)
            rh_file_sync_dir(f, i);
        rh_files_enter(f, 0);
        count = rh_files_reap(f, cqes, 8);
        waited += count < 8;
        while (count < 8) {
            unsigned more;

            RH_OK_IF(rh_files_enter(f, 1) == RH_OK);
            more = rh_files_reap(f, cqes + count, 8 - count);
            RH_OK_IF(more > 0); /* who waits gets one */
            count += more;
        }
        for (unsigned i = 0; i < 8; i++) {
            RH_OK_IF(!seen[cqes[i].tag]);
            seen[cqes[i].tag] = true;
            mixed += i > 0 && cqes[i].tag < cqes[i - 1].tag;
        }
    }
    RH_OK_IF(mixed > 0 && waited > 0);
    end();
}

RH_TEST(disk_faults, with_luck_writes_are_short_and_anything_fails)
{
    const struct disk_luck luck = {.short_pct = 30, .fail_pct = {[DISK_SYNC] = 30}};
    unsigned shorter = 0, failed = 0;
    static char bytes[4096];
    int fd;

    begin();
    disk_luck(rh_test_seed(), &luck);
    fd = do_open("one");
    for (unsigned i = 0; i < 500; i++) {
        int rc = do_write(fd, bytes, sizeof(bytes), 0);

        RH_OK_IF(rc > 0 && rc <= 4096);
        shorter += rc < 4096;
        rc = do_sync(fd);
        RH_OK_IF(rc == 0 || rc == -EIO);
        failed += rc < 0;
    }
    RH_OK_IF(shorter > 50 && shorter < 300 && failed > 50 && failed < 300);
    disk_luck(0, NULL);
    for (unsigned i = 0; i < 50; i++)
        RH_OK_IF(do_write(fd, bytes, sizeof(bytes), 0) == 4096 && do_sync(fd) == 0);
    end();
}

/* The system may write back at any time: an older version than the last may lie on the platter. */
RH_TEST(disk_faults, with_luck_a_sector_may_survive_as_any_of_its_versions)
{
    const struct disk_luck luck = {.turns = 1};
    unsigned seen[3] = {0};

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd;

        begin();
        fd = durable_file(1);
        disk_luck(seed, &luck);
        RH_OK_IF(write_sector(fd, 0, 'b') > 0 && write_sector(fd, 0, 'c') > 0);
        cut(seed);
        RH_OK_IF(filled(0) >= 'a' && filled(0) <= 'c');
        seen[filled(0) - 'a']++;
        end();
    }
    RH_OK_IF(seen[0] && seen[1] && seen[2]);
}

/* ---- by hand ---- */

RH_TEST(disk_faults, by_hand_time_passes_when_the_scheduler_says_so)
{
    struct rh_file_cqe cqe;

    begin();
    disk_by_hand(true);
    rh_file_open(f, "one", 1);
    disk_turn(); /* not submitted yet */
    RH_OK_IF(!disk_asleep());
    rh_files_enter(f, 50);
    RH_OK_IF(disk_asleep() && disk_wait_ms() == 50 && rh_files_reap(f, &cqe, 1) == 0);
    disk_turn();
    RH_OK_IF(!disk_asleep() && rh_files_reap(f, &cqe, 1) == 1 && cqe.tag == 1);
    rh_files_enter(f, UINT64_MAX);
    RH_OK_IF(disk_asleep());
    rh_files_wake_any(f);
    RH_OK_IF(!disk_asleep());
    rh_files_enter(f, 1);
    RH_OK_IF(disk_asleep()); /* that wake-up has been used */
    rh_files_enter(f, 0);
    RH_OK_IF(!disk_asleep());
    rh_files_wake_any(f);
    rh_files_enter(f, UINT64_MAX);
    RH_OK_IF(!disk_asleep());
    end();
}

RH_TEST(disk_faults, a_wake_up_ends_a_wait_without_a_completion)
{
    const struct disk_luck slow = {.turns = 1000};
    struct rh_file_cqe cqe;

    begin();
    disk_luck(3, &slow);
    rh_file_open(f, "one", 1);
    rh_files_wake_any(f);
    rh_files_enter(f, UINT64_MAX);
    RH_OK_IF(rh_files_reap(f, &cqe, 1) == 0);
    rh_files_enter(f, UINT64_MAX);
    RH_OK_IF(rh_files_reap(f, &cqe, 1) == 1);
    end();
}

/* ---- tampering ---- */

RH_TEST(disk_faults, files_can_be_tampered_with_and_stay_so)
{
    const uint8_t *at;
    size_t len;

    begin();
    disk_put("one", "abcdefgh", 8);
    disk_put("two", "x", 1);
    disk_put("two", "", 0);
    disk_put("three", "x", 1);
    disk_delete("three");
    disk_flip("one", 8 * 1 + 1);
    disk_zero("one", 3, 2);
    disk_truncate("one", 6);
    RH_OK_IF(disk_unsynced() == 0);
    cut(5);
    expect_names("one two ");
    at = disk_bytes("one", &len);
    RH_EQ_INT(len, 6);
    RH_EQ_MEM(at, "a`c\0\0f", 6);
    disk_truncate("one", 1000);
    cut(6);
    at = disk_bytes("one", &len);
    RH_OK_IF(len == 1000 && at[5] == 'f' && at[6] == 0 && at[999] == 0);
    RH_OK_IF(!disk_bytes("none", &len));
    end();
}

RH_TEST(disk_faults, a_reset_leaves_nothing)
{
    begin();
    durable_file(3);
    disk_fail(DISK_OPEN, 1, UINT32_MAX, EIO);
    disk_room(1);
    disk_hang(UINT32_MAX);
    rh_files_destroy(f);
    disk_reset();
    expect_names("");
    RH_OK_IF(disk_done(DISK_OPEN) == 0);
    RH_OK_IF(rh_files_create("/x", &f, NULL) == RH_OK && do_open("one") >= 0);
    end();
}
