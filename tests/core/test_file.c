/* tests/core/test_file.c - the seam to the disk, on the real kernel, in a directory under /tmp.
 *
 * The directory and all in it goes at the end of each test. Waits end by events; deadlines are for
 * failures only. What a disk does when it is full or hangs is in tests/store/test_disk.c, on a disk
 * in memory; here a tiny tmpfs and a limit on file sizes stand for it.
 */
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
#include "core/mem.h"
#include "tests/rh_test.h"

#define DEADLINE_MS 30000
#define NOBODY      65534

static char base[64], path[128];
static struct rh_files *f;

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void open_files(void)
{
    struct rh_fault fault;

    if (rh_files_create(path, &f, &fault) < 0)
        RH_FAIL("%s", fault.text);
}

static void setup(void)
{
    snprintf(base, sizeof(base), "/tmp/rh_test_file_XXXXXX");
    RH_OK_IF(mkdtemp(base));
    snprintf(path, sizeof(path), "%s/a/b", base);
    open_files();
}

static void remove_all(const char *dir)
{
    DIR *d = opendir(dir);
    char name[PATH_MAX];
    struct dirent *entry;

    while (d && (entry = readdir(d)) != NULL) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(name, sizeof(name), "%s/%s", dir, entry->d_name);
        if (unlink(name) < 0)
            remove_all(name);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

static void teardown(void)
{
    rh_files_destroy(f);
    remove_all(base);
    RH_OK_IF(access(base, F_OK) < 0);
}

/* The next completion. */
static struct rh_file_cqe await_any(void)
{
    uint64_t end = now_ms() + DEADLINE_MS;
    struct rh_file_cqe cqe;

    while (!rh_files_reap(f, &cqe, 1)) {
        if (now_ms() > end)
            RH_FAIL("no completion");
        RH_OK_IF(rh_files_enter(f, 1000) == RH_OK);
    }
    return cqe;
}

/* The result of the only operation that is under way. */
static int result(void)
{
    struct rh_file_cqe cqe;

    RH_OK_IF(rh_files_busy(f) == 1);
    cqe = await_any();
    RH_OK_IF(cqe.tag == 7 && rh_files_busy(f) == 0);
    return cqe.res;
}

static int do_open(const char *name)
{
    rh_file_open(f, name, 7);
    return result();
}

static int do_write(int fd, const void *bytes, size_t len, uint64_t offset)
{
    rh_file_write(f, fd, bytes, len, offset, 7);
    return result();
}

static int do_sync(int fd)
{
    rh_file_sync(f, fd, 7);
    return result();
}

static int do_close(int fd)
{
    rh_file_close(f, fd, 7);
    return result();
}

static int do_rename(const char *from, const char *to)
{
    rh_file_rename(f, from, to, 7);
    return result();
}

static int do_remove(const char *name)
{
    rh_file_remove(f, name, 7);
    return result();
}

static int do_sync_dir(void)
{
    rh_file_sync_dir(f, 7);
    return result();
}

/* ---- operations ---- */

RH_TEST(file, what_was_written_is_read_again_also_by_the_next_one)
{
    char bytes[16] = "";
    int fd;

    setup();
    fd = do_open("one");
    RH_OK_IF(fd >= 0);
    RH_OK_IF(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    RH_EQ_INT(do_write(fd, "hello", 5, 0), 5);
    RH_EQ_INT(do_write(fd, "there", 5, 8), 5);
    RH_EQ_INT(do_sync(fd), 0);
    RH_EQ_INT(do_close(fd), 0);
    RH_OK_IF(fcntl(fd, F_GETFD) < 0);
    RH_EQ_INT(do_sync_dir(), 0);
    rh_files_destroy(f);
    open_files();
    RH_EQ_INT(rh_files_read(f, "one", 0, bytes, sizeof(bytes), NULL), 13);
    RH_EQ_MEM(bytes, "hello\0\0\0there", 13);
    RH_EQ_INT(rh_files_read(f, "one", 8, bytes, 3, NULL), 3);
    RH_EQ_MEM(bytes, "the", 3);
    RH_EQ_INT(rh_files_read(f, "one", 13, bytes, 3, NULL), 0);
    RH_EQ_INT(rh_files_read(f, "one", 100, bytes, 3, NULL), 0);
    teardown();
}

RH_TEST(file, an_open_file_keeps_what_is_in_it)
{
    char bytes[8];
    int fd;

    setup();
    fd = do_open("one");
    RH_EQ_INT(do_write(fd, "abcd", 4, 0), 4);
    RH_EQ_INT(do_close(fd), 0);
    fd = do_open("one");
    RH_EQ_INT(do_write(fd, "X", 1, 1), 1);
    RH_EQ_INT(do_close(fd), 0);
    RH_EQ_INT(rh_files_read(f, "one", 0, bytes, sizeof(bytes), NULL), 4);
    RH_EQ_MEM(bytes, "aXcd", 4);
    teardown();
}

struct listed {
    unsigned count;
    char text[256];
};

static void list_one(void *arg, const char *name, uint64_t size)
{
    struct listed *l = arg;
    size_t len = strlen(l->text);

    l->count++;
    snprintf(l->text + len, sizeof(l->text) - len, "%s=%u ", name, (unsigned)size);
}

RH_TEST(file, the_list_has_ordinary_files_only_and_not_the_lock)
{
    struct listed l = {0};
    char name[160];

    setup();
    RH_EQ_INT(rh_files_list(f, list_one, &l, NULL), RH_OK);
    RH_EQ_STR(l.text, "");
    RH_EQ_INT(do_close(do_open("x")), 0);
    snprintf(name, sizeof(name), "%s/dir", path);
    RH_EQ_INT(mkdir(name, 0700), 0);
    snprintf(name, sizeof(name), "%s/pipe", path);
    RH_EQ_INT(mkfifo(name, 0600), 0);
    snprintf(name, sizeof(name), "%s/link", path);
    RH_EQ_INT(symlink("x", name), 0);
    RH_EQ_INT(rh_files_list(f, list_one, &l, NULL), RH_OK);
    RH_EQ_STR(l.text, "x=0 ");
    RH_EQ_INT(rh_files_list(f, list_one, &l, NULL), RH_OK); /* from its beginning again */
    RH_EQ_STR(l.text, "x=0 x=0 ");
    teardown();
}

RH_TEST(file, renames_and_removes)
{
    struct listed l = {0};
    int fd;

    setup();
    fd = do_open("one");
    RH_EQ_INT(do_write(fd, "1", 1, 0), 1);
    RH_EQ_INT(do_close(fd), 0);
    RH_EQ_INT(do_close(do_open("two")), 0);
    RH_EQ_INT(do_rename("one", "two"), 0);
    RH_EQ_INT(do_rename("one", "three"), -ENOENT);
    RH_EQ_INT(rh_files_list(f, list_one, &l, NULL), RH_OK);
    RH_EQ_STR(l.text, "two=1 ");
    RH_EQ_INT(do_remove("two"), 0);
    RH_EQ_INT(do_remove("two"), -ENOENT);
    RH_EQ_INT(do_sync_dir(), 0);
    RH_EQ_INT(rh_files_list(f, list_one, &l, NULL), RH_OK);
    RH_EQ_STR(l.text, "two=1 ");
    teardown();
}

RH_TEST(file, names_are_copied_and_may_be_as_long_as_the_header_says)
{
    char name[RH_FILE_NAME_MAX + 1], to[RH_FILE_NAME_MAX + 1];
    struct listed l = {0};

    setup();
    memset(name, 'n', sizeof(name));
    name[RH_FILE_NAME_MAX] = '\0';
    memset(to, 't', sizeof(to));
    to[RH_FILE_NAME_MAX] = '\0';
    rh_file_open(f, name, 7);
    memset(name, 'x', RH_FILE_NAME_MAX);
    RH_EQ_INT(do_close(result()), 0);
    memset(name, 'n', RH_FILE_NAME_MAX);
    rh_file_rename(f, name, to, 7);
    memset(name, 'x', RH_FILE_NAME_MAX);
    to[0] = 'x';
    RH_EQ_INT(result(), 0);
    RH_EQ_INT(do_close(do_open("s")), 0);
    RH_EQ_INT(do_remove("s"), 0);
    RH_EQ_INT(rh_files_list(f, list_one, &l, NULL), RH_OK);
    to[0] = 't';
    RH_EQ_INT(l.count, 1);
    RH_EQ_MEM(l.text, to, RH_FILE_NAME_MAX);
    teardown();
}

static void forbidden(const char *name)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        RH_OK_IF(freopen("/dev/null", "w", stderr));
        rh_file_open(f, name, 7);
        _exit(0);
    }
    RH_EQ_INT(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        RH_FAIL("\"%s\" was taken", name);
}

RH_TEST(file, names_that_leave_the_directory_or_take_the_lock_are_a_bug)
{
    char name[RH_FILE_NAME_MAX + 2];

    setup();
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    forbidden(name);
    forbidden("");
    forbidden("../x");
    forbidden("lock");
    teardown();
}

RH_TEST(file, as_many_as_may_be_are_under_way_at_once)
{
    static uint8_t bytes[RH_FILES_OPS][4096];
    static struct rh_file_cqe cqes[2 * RH_FILES_OPS];
    bool seen[RH_FILES_OPS] = {false};
    uint8_t got[4096];
    unsigned count = 0;
    int fd;

    setup();
    fd = do_open("one");
    for (unsigned round = 0; round < 8; round++) {
        memset(seen, 0, sizeof(seen));
        for (unsigned i = 0; i < RH_FILES_OPS; i++) {
            memset(bytes[i], (int)(i + round), sizeof(bytes[i]));
            rh_file_write(f, fd, bytes[i], sizeof(bytes[i]), i * sizeof(bytes[i]), UINT64_MAX - i);
        }
        RH_EQ_INT(rh_files_busy(f), RH_FILES_OPS);
        rh_files_wake_any(f);
        for (count = 0; count < RH_FILES_OPS;) {
            RH_OK_IF(rh_files_enter(f, 1000) == RH_OK);
            count += rh_files_reap(f, cqes + count, 5);
        }
        RH_EQ_INT(count, RH_FILES_OPS);
        RH_EQ_INT(rh_files_busy(f), 0);
        for (unsigned i = 0; i < RH_FILES_OPS; i++) {
            uint64_t which = UINT64_MAX - cqes[i].tag;

            RH_OK_IF(which < RH_FILES_OPS && !seen[which] && cqes[i].res == 4096);
            seen[which] = true;
        }
        for (unsigned i = 0; i < RH_FILES_OPS; i++) {
            RH_OK_IF(rh_files_read(f, "one", i * 4096, got, 4096, NULL) == 4096);
            RH_EQ_MEM(got, bytes[i], 4096);
        }
    }
    RH_EQ_INT(do_close(fd), 0);
    teardown();
}

/* ---- failures ---- */

RH_TEST(file, failures_arrive_as_results_and_as_sentences)
{
    struct rh_fault fault = {""};
    char byte;
    int fd;

    setup();
    fd = do_open("one");
    RH_EQ_INT(do_close(fd), 0);
    RH_EQ_INT(do_write(fd, "x", 1, 0), -EBADF);
    RH_EQ_INT(do_sync(fd), -EBADF);
    RH_EQ_INT(do_close(fd), -EBADF);
    RH_EQ_INT(rh_files_read(f, "none", 0, &byte, 1, &fault), RH_EIO);
    RH_OK_IF(strstr(fault.text, "none") && strstr(fault.text, "No such file"));
    teardown();
}

/* A limit on file sizes is a write that fails, or is short, whoever's thread does it: the signal
 * that comes with it must not end the process. */
RH_TEST(file, a_limit_on_file_sizes_is_a_short_write_and_then_efbig)
{
    static uint8_t bytes[8192];
    struct rlimit limit = {4096, RLIM_INFINITY};
    int fd;

    setup();
    RH_EQ_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    fd = do_open("one");
    RH_EQ_INT(do_write(fd, bytes, sizeof(bytes), 0), 4096);
    RH_EQ_INT(do_write(fd, bytes, 1, 4096), -EFBIG);
    RH_EQ_INT(do_write(fd, bytes, 1, 4095), 1);
    RH_EQ_INT(do_close(fd), 0);
    teardown();
}

RH_TEST(file, a_full_disk_is_a_short_write_and_then_enospc)
{
    static uint8_t bytes[65536];
    int fd, have = 0, rc;

    setup();
    rh_files_destroy(f);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", path, "tmpfs", 0, "size=16k") < 0) {
        printf("# no tmpfs may be mounted here (%s): not tested\n", strerror(errno));
        open_files();
        teardown();
        return;
    }
    open_files();
    fd = do_open("one");
    while ((rc = do_write(fd, bytes, sizeof(bytes), (uint64_t)have)) > 0)
        have += rc;
    RH_EQ_INT(rc, -ENOSPC);
    RH_EQ_INT(have, 16384);
    RH_EQ_INT(do_write(fd, bytes, 16384, 0), 16384); /* what is there has its place */
    RH_EQ_INT(do_close(fd), 0);
    RH_EQ_INT(do_remove("one"), 0);
    fd = do_open("two");
    RH_EQ_INT(do_write(fd, bytes, 16384, 0), 16384);
    RH_EQ_INT(do_close(fd), 0);
    rh_files_destroy(f);
    RH_EQ_INT(umount(path), 0);
    open_files();
    teardown();
}

RH_TEST(file, a_directory_that_cannot_be_had_is_named)
{
    struct rh_files *other = NULL;
    struct rh_fault fault = {""};
    static char deep[2 * PATH_MAX];
    char name[192];
    int fd;

    setup();
    fd = do_open("file");
    RH_EQ_INT(do_close(fd), 0);
    snprintf(name, sizeof(name), "%s/file/below", path);
    RH_EQ_INT(rh_files_create(name, &other, &fault), RH_EIO);
    RH_OK_IF(strstr(fault.text, name) && strstr(fault.text, "Not a directory"));
    snprintf(name, sizeof(name), "%s/file", path);
    RH_EQ_INT(rh_files_create(name, &other, &fault), RH_EIO);
    RH_OK_IF(strstr(fault.text, name));
    RH_EQ_INT(rh_files_create("", &other, &fault), RH_EIO);
    RH_OK_IF(strstr(fault.text, "empty"));
    memset(deep, 'd', sizeof(deep) - 1);
    RH_EQ_INT(rh_files_create(deep, &other, &fault), RH_EIO);
    RH_OK_IF(strstr(fault.text, "too long"));
    RH_OK_IF(!other);
    teardown();
}

RH_TEST(file, directories_are_made_whichever_way_they_are_written)
{
    static const char *const ways[] = {"x", "y/", "./z//w", "../up/.", "."};
    struct stat info;

    setup();
    RH_EQ_INT(chdir(path), 0);
    rh_files_destroy(f);
    for (unsigned i = 0; i < RH_COUNT(ways); i++) {
        struct rh_fault fault;

        if (rh_files_create(ways[i], &f, &fault) < 0)
            RH_FAIL("%s: %s", ways[i], fault.text);
        RH_EQ_INT(stat(ways[i], &info), 0);
        RH_OK_IF(S_ISDIR(info.st_mode));
        rh_files_destroy(f);
    }
    RH_EQ_INT(stat("x", &info), 0);
    RH_EQ_INT(info.st_mode & 0777, 0700);
    RH_EQ_INT(stat("x/lock", &info), 0);
    RH_EQ_INT(info.st_mode & 0777, 0600);
    RH_EQ_INT(chdir("/"), 0);
    open_files();
    teardown();
}

/* A parent that cannot be opened cannot be synced: what would stand in the new directory could go
 * with it. */
RH_TEST(file, a_directory_that_might_not_stay_is_refused_and_not_left)
{
    char parent[160], name[192];
    int status;
    pid_t child;

    setup();
    snprintf(parent, sizeof(parent), "%s/parent", path);
    RH_EQ_INT(mkdir(parent, 0700), 0);
    if (geteuid() == 0) {
        snprintf(name, sizeof(name), "%s/a", base);
        RH_EQ_INT(chmod(base, 0755) | chmod(name, 0755) | chmod(path, 0755), 0);
        RH_EQ_INT(chown(parent, NOBODY, NOBODY), 0);
    }
    RH_EQ_INT(chmod(parent, 0300), 0);
    snprintf(name, sizeof(name), "%s/new", parent);
    child = fork();
    if (child == 0) {
        struct rh_files *other;
        struct rh_fault fault = {""};

        if (geteuid() == 0 && setuid(NOBODY) < 0)
            _exit(2);
        for (unsigned i = 0; i < 2; i++)
            if (rh_files_create(name, &other, &fault) != RH_EIO || !strstr(fault.text, "sync"))
                _exit(1);
        _exit(0);
    }
    RH_EQ_INT(waitpid(child, &status, 0), child);
    RH_OK_IF(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    RH_EQ_INT(chmod(parent, 0700), 0);
    RH_OK_IF(access(name, F_OK) < 0);
    teardown();
}

/* ---- the lock ---- */

/* What a second process gets. */
static int create_elsewhere(void)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        struct rh_files *other;
        struct rh_fault fault = {""};
        int rc = rh_files_create(path, &other, &fault);

        if (rc == RH_EIO && !strstr(fault.text, path))
            rc = -100;
        if (rc == RH_OK)
            rh_files_destroy(other);
        _exit(-rc);
    }
    RH_EQ_INT(waitpid(child, &status, 0), child);
    RH_OK_IF(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

RH_TEST(file, nobody_else_may_open_the_directory_until_it_is_closed)
{
    struct rh_files *other;
    struct rh_fault fault = {""};

    setup();
    RH_EQ_INT(create_elsewhere(), RH_EIO);
    RH_EQ_INT(rh_files_create(path, &other, &fault), RH_EIO); /* nor this process */
    RH_OK_IF(strstr(fault.text, path) && strstr(fault.text, "in use"));
    rh_files_destroy(f);
    RH_EQ_INT(create_elsewhere(), RH_OK);
    open_files();
    RH_EQ_INT(create_elsewhere(), RH_EIO);
    teardown();
}

/* Whoever is killed leaves the file, but not the lock. */
RH_TEST(file, a_lock_goes_with_its_process)
{
    int status, ready[2];
    char byte;
    pid_t child;

    setup();
    rh_files_destroy(f);
    f = NULL;
    RH_EQ_INT(pipe(ready), 0);
    child = fork();
    if (child == 0) {
        struct rh_files *other;

        if (rh_files_create(path, &other, NULL) == RH_OK && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    RH_EQ_INT(read(ready[0], &byte, 1), 1);
    RH_EQ_INT(create_elsewhere(), RH_EIO);
    RH_EQ_INT(kill(child, SIGKILL), 0);
    RH_EQ_INT(waitpid(child, &status, 0), child);
    for (uint64_t end = now_ms() + DEADLINE_MS; create_elsewhere() != RH_OK;)
        RH_OK_IF(now_ms() < end); /* its ring, and so its descriptors, may go a little later */
    open_files();
    teardown();
}

/* ---- waiting ---- */

RH_TEST(file, a_wait_ends_in_time_and_one_of_zero_at_once)
{
    struct rh_file_cqe cqe;
    uint64_t began;

    setup();
    RH_EQ_INT(rh_files_enter(f, 0), RH_OK);
    RH_EQ_INT(rh_files_reap(f, &cqe, 1), 0);
    began = now_ms();
    RH_EQ_INT(rh_files_enter(f, 50), RH_OK);
    RH_OK_IF(now_ms() - began >= 49);
    RH_EQ_INT(rh_files_reap(f, &cqe, 1), 0);
    teardown();
}

RH_TEST(file, a_wake_up_before_the_wait_ends_it_once)
{
    struct rh_file_cqe cqe;
    uint64_t began;

    setup();
    for (unsigned i = 0; i < 3; i++) {
        rh_files_wake_any(f);
        rh_files_wake_any(f);
        RH_EQ_INT(rh_files_enter(f, UINT64_MAX), RH_OK);
        RH_EQ_INT(rh_files_reap(f, &cqe, 1), 0);
        began = now_ms();
        RH_EQ_INT(rh_files_enter(f, 20), RH_OK);
        RH_EQ_INT(rh_files_reap(f, &cqe, 1), 0);
        RH_OK_IF(now_ms() - began >= 19);
    }
    teardown();
}

#define WAKES 20000

static _Atomic unsigned woken, asked;

static void *waker(void *arg)
{
    for (unsigned i = 1; i <= WAKES; i++) {
        atomic_store(&asked, i);
        rh_files_wake_any(f);
        while (atomic_load(&woken) < i)
            sched_yield();
    }
    return NULL;
}

/* A wake-up that is missed would be a wait without an end. */
RH_TEST(file, no_wake_up_of_another_thread_is_missed)
{
    struct rh_file_cqe cqes[8];
    unsigned busy = 0;
    pthread_t thread;
    int fd;

    setup();
    fd = do_open("one");
    RH_EQ_INT(pthread_create(&thread, NULL, waker, NULL), 0);
    while (atomic_load(&woken) < WAKES) {
        if (busy == 0 && rh_test_rand() % 16 == 0) {
            rh_file_write(f, fd, "x", 1, rh_test_rand() % 4096, 1);
            busy++;
        }
        RH_OK_IF(rh_files_enter(f, UINT64_MAX) == RH_OK);
        busy -= rh_files_reap(f, cqes, RH_COUNT(cqes));
        atomic_store(&woken, atomic_load(&asked));
    }
    pthread_join(thread, NULL);
    while (rh_files_busy(f))
        await_any();
    RH_EQ_INT(do_close(fd), 0);
    teardown();
}

/* A file that hangs: a pipe that nobody reads is one to open. The others go on meanwhile, and so
 * does the thread. */
RH_TEST(file, operations_that_hang_stop_neither_the_thread_nor_the_others)
{
    char name[160];
    int reader, fd;
    struct rh_file_cqe cqe;

    setup();
    snprintf(name, sizeof(name), "%s/pipe", path);
    RH_EQ_INT(mkfifo(name, 0600), 0);
    rh_file_open(f, "pipe", 1);
    rh_file_open(f, "pipe", 1);
    RH_EQ_INT(rh_files_enter(f, 20), RH_OK);
    RH_EQ_INT(rh_files_reap(f, &cqe, 1), 0);
    rh_file_open(f, "one", 2);
    cqe = await_any();
    RH_OK_IF(cqe.tag == 2 && cqe.res >= 0);
    fd = cqe.res;
    rh_file_write(f, fd, "x", 1, 0, 3);
    cqe = await_any();
    RH_OK_IF(cqe.tag == 3 && cqe.res == 1);
    rh_file_sync(f, fd, 4);
    cqe = await_any();
    RH_OK_IF(cqe.tag == 4 && cqe.res == 0);
    RH_EQ_INT(rh_files_busy(f), 2);
    reader = open(name, O_RDONLY | O_NONBLOCK);
    for (unsigned i = 0; i < 2; i++) {
        cqe = await_any();
        RH_OK_IF(cqe.tag == 1 && cqe.res >= 0);
        close(cqe.res);
    }
    close(reader);
    RH_EQ_INT(do_close(fd), 0);
    teardown();
}

static unsigned kernel_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *entry;
    unsigned count = 0;

    while ((entry = readdir(d)) != NULL) {
        char name[300], text[32] = "";
        FILE *file;

        snprintf(name, sizeof(name), "/proc/self/task/%s/comm", entry->d_name);
        file = fopen(name, "re");
        if (!file)
            continue;
        if (fgets(text, sizeof(text), file))
            count += !strncmp(text, "iou-wrk", 7);
        fclose(file);
    }
    closedir(d);
    return count;
}

RH_TEST(file, the_kernel_takes_few_threads_however_many_operations_wait)
{
    char name[160];
    int reader;

    setup();
    snprintf(name, sizeof(name), "%s/pipe", path);
    RH_EQ_INT(mkfifo(name, 0600), 0);
    for (unsigned i = 0; i < RH_FILES_OPS; i++)
        rh_file_open(f, "pipe", 1);
    RH_EQ_INT(rh_files_enter(f, 100), RH_OK);
    if (kernel_threads() > 5)
        RH_FAIL("%u threads", kernel_threads());
    RH_OK_IF(kernel_threads() > 0);
    reader = open(name, O_RDONLY | O_NONBLOCK);
    for (unsigned i = 0; i < RH_FILES_OPS; i++)
        close(await_any().res);
    close(reader);
    teardown();
}

/* ---- life ---- */

static unsigned descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void create_once(void *arg)
{
    struct rh_files *files = NULL;
    struct rh_fault fault = {""};
    int rc = rh_files_create(path, &files, &fault);

    if (rc == RH_ENOMEM)
        RH_OK_IF(!files && fault.text[0]);
    else
        RH_EQ_INT(rc, RH_OK);
    rh_files_destroy(files);
}

RH_TEST(file, without_memory_nothing_is_made_and_nothing_left)
{
    unsigned before;

    setup();
    rh_files_destroy(f);
    before = descriptors();
    rh_test_fail_each_alloc(create_once, NULL);
    RH_EQ_INT(descriptors(), before);
    open_files();
    teardown();
}

RH_TEST(file, without_descriptors_it_says_so_and_leaves_nothing)
{
    unsigned before, refused = 0;

    setup();
    rh_files_destroy(f);
    while (dup(STDERR_FILENO) + 1 != (int)descriptors()) /* until they have no gap */
        ;
    before = descriptors();
    for (rlim_t most = before;; most++) {
        struct rlimit limit = {most, 1024};
        struct rh_fault fault = {""};
        int rc;

        RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        rc = rh_files_create(path, &f, &fault);
        if (rc == RH_OK)
            break;
        refused++;
        RH_EQ_INT(rc, RH_EIO);
        RH_OK_IF(strstr(fault.text, "descriptor") || strstr(fault.text, "Too many open files"));
        RH_EQ_INT(descriptors(), before);
    }
    RH_EQ_INT(refused, 4); /* the directory, the lock, the ring, the eventfd */
    teardown();
}

RH_TEST(file, destroy_takes_what_is_not_there)
{
    rh_files_destroy(NULL);
}
