/* tests/store/test_disk.c - the disk in memory is as its header says: files, and what a cut leaves.
 *
 * Chance decides what survives. Such tests look at many seeds: what must hold does so for each, and
 * what may happen has happened for some. Faults are in test_disk_faults.c.
 */
#include "tests/store/disk.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base.h"
#include "core/mem.h"
#include "tests/store/disk_rig.h"

/* ---- as files are ---- */

static void list_one(void *arg, const char *name, uint64_t size)
{
    snprintf((char *)arg + strlen(arg), 32, "%s=%u ", name, (unsigned)size);
}

RH_TEST(disk, files_are_written_read_listed_renamed_and_removed)
{
    char text[128] = "", bytes[8] = "";
    int fd;

    begin();
    fd = do_open("one");
    RH_OK_IF(fd >= 0 && do_write(fd, "hello", 5, 0) == 5 && do_write(fd, "!", 1, 6) == 1);
    RH_OK_IF(do_close(fd) == 0 && disk_open_fds() == 0);
    RH_EQ_INT(rh_files_read(f, "one", 0, bytes, sizeof(bytes), NULL), 7);
    RH_EQ_MEM(bytes, "hello\0!", 7);
    RH_EQ_INT(rh_files_read(f, "one", 6, bytes, 8, NULL), 1);
    RH_EQ_INT(rh_files_read(f, "one", 7, bytes, 8, NULL), 0);
    RH_EQ_INT(rh_files_read(f, "two", 0, bytes, 8, NULL), RH_EIO);
    RH_OK_IF(do_close(do_open("two")) == 0);
    RH_EQ_INT(rh_files_list(f, list_one, text, NULL), RH_OK);
    RH_EQ_STR(text, "one=7 two=0 ");
    RH_OK_IF(do_rename("one", "two") == 0 && do_rename("one", "two") == -ENOENT);
    RH_OK_IF(disk_size("two") == 7 && disk_size("one") == -1);
    RH_OK_IF(do_remove("two") == 0 && do_remove("two") == -ENOENT);
    expect_names("");
    RH_EQ_INT(disk_done(DISK_REMOVE), 2);
    end();
}

RH_TEST(disk, a_removed_file_lives_as_long_as_its_descriptor)
{
    int fd;

    begin();
    fd = do_open("one");
    RH_OK_IF(do_remove("one") == 0 && do_sync_dir() == 0);
    RH_OK_IF(do_write(fd, "x", 1, 0) == 1 && do_sync(fd) == 0);
    RH_OK_IF(do_open("one") != fd && disk_size("one") == 0); /* another one */
    RH_OK_IF(do_close(fd) == 0);
    end();
}

RH_TEST(disk, one_has_it_open_at_a_time_and_it_outlives_him)
{
    struct rh_files *other;
    struct rh_fault fault = {""};
    int fd;

    begin();
    RH_EQ_INT(rh_files_create("/x", &other, &fault), RH_EIO);
    RH_OK_IF(strstr(fault.text, "in use"));
    fd = do_open("one");
    RH_OK_IF(do_write(fd, "x", 1, 0) == 1);
    restart();
    RH_OK_IF(disk_open_fds() == 0 && disk_size("one") == 1);
    disk_kill(1);
    RH_EQ_INT(rh_files_enter(f, 0), RH_EIO);
    RH_OK_IF(rh_files_create("/x", &other, NULL) == RH_OK); /* the dead one has no lock */
    rh_files_destroy(f);
    RH_EQ_INT(rh_files_create("/x", &f, NULL), RH_EIO);
    rh_files_destroy(other);
    disk_reset();
}

static void create_once(void *arg)
{
    struct rh_files *files = NULL;
    int rc = rh_files_create("/x", &files, NULL);

    RH_OK_IF(rc == RH_OK || (rc == RH_ENOMEM && !files));
    rh_files_destroy(files);
}

RH_TEST(disk, only_the_handle_needs_memory_that_can_be_gone)
{
    static char bytes[100000];
    int fd;

    rh_test_fail_each_alloc(create_once, NULL);
    begin();
    rh_mem_fail_nth(1);
    fd = do_open("one");
    RH_OK_IF(do_write(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) && do_sync(fd) == 0);
    RH_EQ_U64(rh_mem_fail_left(), 1);
    rh_mem_fail_nth(0);
    end();
}

/* ---- bugs of the caller ---- */

static void aborts(void (*body)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        RH_OK_IF(freopen("/dev/null", "w", stderr));
        body();
        _exit(0);
    }
    RH_OK_IF(waitpid(child, &status, 0) == child);
    RH_OK_IF(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void changes_bytes(void)
{
    char bytes[] = "kernel's";
    int fd = do_open("one");

    rh_file_write(f, fd, bytes, 8, 0, 1);
    bytes[7]++;
    rh_files_enter(f, 0);
}

static void uses_a_closed_one(void)
{
    int fd = do_open("one");

    do_close(fd);
    do_open("two");
    rh_file_sync(f, fd, 1);
}

static void queues_too_many(void)
{
    for (unsigned i = 0; i <= RH_FILES_OPS; i++)
        rh_file_open(f, "one", i);
}

static void takes_the_lock(void)
{
    rh_file_open(f, "lock", 1);
}

RH_TEST(disk, it_aborts_where_the_caller_is_wrong)
{
    begin();
    aborts(changes_bytes);
    aborts(uses_a_closed_one);
    aborts(queues_too_many);
    aborts(takes_the_lock);
    end();
}

/* ---- what a cut leaves ---- */

RH_TEST(disk, any_subset_of_unsynced_sectors_survives_and_all_synced_ones)
{
    unsigned seen[8] = {0};

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        unsigned which = 0;
        int fd;

        begin();
        fd = durable_file(4);
        for (unsigned i = 0; i < 3; i++)
            RH_OK_IF(write_sector(fd, i, 'b') == DISK_SECTOR);
        RH_EQ_INT(disk_unsynced(), 3);
        cut(seed);
        RH_OK_IF(disk_unsynced() == 0 && disk_size("one") == 4 * DISK_SECTOR);
        for (unsigned i = 0; i < 3; i++) {
            RH_OK_IF(filled(i) == 'a' || filled(i) == 'b');
            which |= (filled(i) == 'b') << i;
        }
        RH_OK_IF(filled(3) == 'a');
        seen[which]++;
        end();
    }
    for (unsigned i = 0; i < 8; i++)
        RH_OK_IF(seen[i] > 0);
}

RH_TEST(disk, what_was_synced_survives_and_only_the_file_that_was)
{
    unsigned lost = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd, other;

        begin();
        fd = durable_file(1);
        other = do_open("two");
        RH_OK_IF(do_sync_dir() == 0);
        RH_OK_IF(write_sector(fd, 0, 'b') > 0 && write_sector(other, 0, 'b') > 0);
        RH_OK_IF(do_sync(fd) == 0);
        cut(seed);
        RH_OK_IF(filled(0) == 'b');
        lost += disk_size("two") == 0;
        end();
    }
    RH_OK_IF(lost > 0 && lost < SEEDS);
}

/* A sync that began before the write had completed promises nothing. */
RH_TEST(disk, a_sync_covers_what_had_completed_when_it_began)
{
    unsigned first_lost = 0, second_lost = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        char bytes[DISK_SECTOR];
        struct rh_file_cqe cqes[2];
        int fd;

        begin();
        fd = durable_file(2);
        memset(bytes, 'b', sizeof(bytes));
        rh_file_write(f, fd, bytes, sizeof(bytes), 0, 1);
        rh_file_sync(f, fd, 2);
        RH_OK_IF(rh_files_enter(f, 1) == RH_OK && rh_files_reap(f, cqes, 2) == 2);
        RH_OK_IF(cqes[0].tag == 1 && cqes[1].tag == 2 && cqes[1].res == 0);
        if (seed % 2) {
            cut(seed);
            first_lost += filled(0) == 'a';
        } else {
            /* It is under way while the sector is written once more: the older one is safe. */
            disk_hang(1u << DISK_SYNC);
            rh_file_sync(f, fd, 3);
            rh_files_enter(f, 0);
            memset(bytes, 'c', sizeof(bytes));
            rh_file_write(f, fd, bytes, sizeof(bytes), 0, 4);
            RH_OK_IF(rh_files_enter(f, 1) == RH_OK && rh_files_reap(f, cqes, 2) == 1);
            disk_hang(0);
            RH_OK_IF(rh_files_enter(f, 1) == RH_OK && rh_files_reap(f, cqes, 2) == 1);
            RH_OK_IF(cqes[0].tag == 3 && disk_unsynced() == 1);
            cut(seed);
            RH_OK_IF(filled(0) == 'b' || filled(0) == 'c');
            second_lost += filled(0) == 'b';
        }
        end();
    }
    RH_OK_IF(first_lost > 0 && first_lost < SEEDS / 2);
    RH_OK_IF(second_lost > 0 && second_lost < SEEDS / 2);
}

RH_TEST(disk, an_older_sync_that_ends_later_takes_nothing_back)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const struct disk_luck slow = {.turns = 3};
        struct rh_file_cqe cqe;
        bool newer = false;
        int fd;

        begin();
        fd = durable_file(1);
        disk_by_hand(true);
        disk_luck(seed, &slow);
        for (char with = 'b'; with <= 'd'; with++) {
            char bytes[DISK_SECTOR];

            memset(bytes, with, sizeof(bytes));
            rh_file_write(f, fd, bytes, sizeof(bytes), 0, 1);
            do {
                rh_files_enter(f, 0);
                disk_turn();
                if (!rh_files_reap(f, &cqe, 1))
                    continue;
                newer |= cqe.tag == 3;
            } while (cqe.tag != 1);
            cqe.tag = 0;
            if (with != 'd')
                rh_file_sync(f, fd, with == 'b' ? 2 : 3);
        }
        while (rh_files_busy(f)) {
            disk_turn();
            if (rh_files_reap(f, &cqe, 1))
                newer |= cqe.tag == 3;
        }
        RH_OK_IF(newer);
        cut(seed);
        RH_OK_IF(filled(0) == 'c' || filled(0) == 'd');
        end();
    }
}

RH_TEST(disk, an_unsynced_length_ends_anywhere_with_zeroes_for_what_is_missing)
{
    unsigned old = 0, whole = 0, between = 0, holes = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const uint8_t *at;
        size_t len;
        int fd;

        begin();
        fd = durable_file(1);
        RH_OK_IF(write_sector(fd, 1, 'b') > 0 && write_sector(fd, 2, 'b') > 0);
        cut(seed);
        at = disk_bytes("one", &len);
        RH_OK_IF(len >= DISK_SECTOR && len <= 3 * DISK_SECTOR && filled(0) == 'a');
        for (size_t i = DISK_SECTOR; i < len; i++)
            RH_OK_IF(at[i] == 0 || at[i] == 'b');
        old += len == DISK_SECTOR;
        whole += len == 3 * DISK_SECTOR;
        between += len % DISK_SECTOR != 0;
        holes += len == 3 * DISK_SECTOR && at[DISK_SECTOR] == 0;
        disk_truncate("one", 3 * DISK_SECTOR); /* nothing stands behind the end */
        at = disk_bytes("one", &(size_t){0});
        for (size_t i = len; i < 3 * DISK_SECTOR; i++)
            RH_OK_IF(at[i] == 0);
        end();
    }
    RH_OK_IF(old && whole && between && holes);
}

RH_TEST(disk, names_survive_a_cut_only_behind_a_sync_of_the_directory)
{
    unsigned made = 0, moved = 0, removed = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin();
        durable_file(1);
        RH_OK_IF(do_close(do_open("keep")) == 0 && do_sync_dir() == 0);
        RH_OK_IF(do_close(do_open("new")) == 0 && do_rename("one", "two") == 0);
        RH_OK_IF(do_remove("keep") == 0);
        RH_OK_IF(disk_unsynced() == 3);
        cut(seed);
        RH_OK_IF((disk_size("one") == DISK_SECTOR) != (disk_size("two") == DISK_SECTOR));
        made += disk_size("new") == 0;
        moved += disk_size("two") >= 0;
        removed += disk_size("keep") < 0;
        end();

        begin();
        durable_file(1);
        RH_OK_IF(do_close(do_open("new")) == 0 && do_rename("one", "two") == 0);
        RH_OK_IF(do_sync_dir() == 0);
        cut(seed);
        expect_names("new two ");
        end();
    }
    RH_OK_IF(made > 0 && made < SEEDS && moved > 0 && moved < SEEDS);
    RH_OK_IF(removed > 0 && removed < SEEDS);
}

RH_TEST(disk, a_file_has_one_name_whichever_renames_survive)
{
    unsigned seen[3] = {0};

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin();
        durable_file(1);
        RH_OK_IF(do_rename("one", "two") == 0 && do_rename("two", "three") == 0);
        cut(seed);
        RH_EQ_INT((disk_size("one") > 0) + (disk_size("two") > 0) + (disk_size("three") > 0), 1);
        seen[disk_size("two") > 0 ? 1 : disk_size("three") > 0 ? 2 : 0]++;
        end();
    }
    RH_OK_IF(seen[0] && seen[1] && seen[2]);
}

RH_TEST(disk, a_sync_of_the_directory_covers_what_had_happened_when_it_began)
{
    unsigned lost = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rh_file_cqe cqes[3];

        begin();
        RH_OK_IF(do_close(do_open("one")) == 0);
        rh_file_open(f, "two", 1);
        rh_file_sync_dir(f, 2);
        RH_OK_IF(rh_files_enter(f, 1) == RH_OK && rh_files_reap(f, cqes, 3) == 2);
        cut(seed);
        RH_OK_IF(disk_size("one") == 0);
        lost += disk_size("two") < 0;
        end();
    }
    RH_OK_IF(lost > 0 && lost < SEEDS);
}

RH_TEST(disk, operations_under_way_may_be_partly_done)
{
    unsigned parts = 0, none = 0, all = 0, moved = 0, killed_parts = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        char bytes[4 * DISK_SECTOR];
        unsigned count = 0;
        int fd;

        begin();
        fd = durable_file(4);
        RH_OK_IF(do_close(do_open("x")) == 0 && do_sync_dir() == 0);
        memset(bytes, 'b', sizeof(bytes));
        disk_hang(UINT32_MAX);
        rh_file_write(f, fd, bytes, sizeof(bytes), 0, 1);
        rh_file_rename(f, "x", "y", 2);
        RH_OK_IF(rh_files_enter(f, UINT64_MAX) == RH_OK);
        rh_file_remove(f, "x", 3); /* never submitted */
        if (seed % 2)
            disk_kill(seed);
        else
            disk_cut(seed);
        RH_OK_IF(rh_files_busy(f) == 0);
        restart();
        for (unsigned i = 0; i < 4; i++)
            count += filled(i) == 'b';
        if (seed % 2)
            killed_parts += count > 0 && count < 4;
        parts += count > 0 && count < 4;
        none += count == 0;
        all += count == 4;
        RH_OK_IF((disk_size("x") == 0) != (disk_size("y") == 0));
        moved += disk_size("y") == 0;
        end();
    }
    RH_OK_IF(parts && none && all && killed_parts && moved > 0 && moved < SEEDS);
}

RH_TEST(disk, a_kill_leaves_all_that_was_written)
{
    int fd;

    begin();
    fd = durable_file(1);
    RH_OK_IF(write_sector(fd, 0, 'b') > 0 && do_rename("one", "two") == 0);
    disk_kill(1);
    restart();
    RH_OK_IF(disk_unsynced() == 2);
    expect_names("two ");
    RH_EQ_INT(*disk_bytes("two", &(size_t){0}), 'b');
    end();
}

RH_TEST(disk, the_same_seed_leaves_the_same)
{
    char first[16] = "";

    for (unsigned round = 0; round < 2; round++) {
        char now[16] = "";
        int fd;

        begin();
        fd = durable_file(15);
        for (unsigned i = 0; i < 15; i++)
            RH_OK_IF(write_sector(fd, i, 'b') > 0);
        cut(42);
        for (unsigned i = 0; i < 15; i++)
            now[i] = filled(i);
        if (round)
            RH_EQ_STR(now, first);
        memcpy(first, now, sizeof(now));
        end();
    }
}
