/* core/file.c - the seam to the disk on io_uring: a small ring beside those of core/uring.c.
 *
 * Why this way: the kernel does what may wait for a disk (opening, writing, syncing, renaming) in
 * threads of its own, and the thread that promises stays awake. It makes few operations, so each is
 * submitted plainly: no links, no registered files, no buffers of the ring's.
 *
 * Waiting    As in core/uring.c: one enter submits and waits; an eventfd with one armed read ends
 *            the wait. That read is queued again when its completion is reaped, so the next enter
 *            submits it before it waits, and a wake-up in between stands in the eventfd's counter.
 * Names      are copied into the operation's place, which is ours until its completion is reaped.
 *            There are as many places as operations, and both queues of the ring have room for all.
 * Closing    goes to the kernel's threads, too: the last close of a removed file frees its blocks.
 * Workers    The kernel starts as many threads as operations wait. Two that hang (a batch and its
 *            sync) must not keep others from starting; more than WORKERS would not write faster.
 * Made       A directory that was made is synced in its parent, else all in it could go with it.
 * Rejected   A write linked to its sync: saves a wake-up, but a short write cancels the sync, and
 *            who queued both would have to tell that from a failure.
 */
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base.h"
#include "core/err.h"
#include "core/mem.h"
#include "core/uring_int.h"

#define LOCK_NAME   "lock"
#define TAG_WAKE    RH_FILES_OPS /* of the armed read; below stand the places of operations */
#define ENTRIES     128          /* of both queues: all operations and the armed read */
#define TAKE_ALL    ENTRIES      /* completions to ask for when not sleeping: uring.c, Waiting */
#define WORKERS     4
#define WRITE_MAX   (1u << 30) /* of one operation; the caller goes on as after any short write */
#define WAIT_MS_MAX UINT64_C(86400000)

_Static_assert(ENTRIES > RH_FILES_OPS, "both queues have room for everything");

struct op {
    uint64_t tag;
    char name[RH_FILE_NAME_MAX + 1];
    char to[RH_FILE_NAME_MAX + 1];
};

struct rh_files {
    struct io_uring ring;
    bool ring_ready;
    int wake_fd;
    uint64_t wake_count; /* the armed read writes here */

    int dir;
    int lock;

    struct op ops[RH_FILES_OPS];
    uint8_t free[RH_FILES_OPS]; /* places, as a stack: the first RH_FILES_OPS - busy */
    unsigned busy;
};

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* ---- the directory ---- */

static int dir_fault(struct rh_fault *fault, const char *what, const char *path)
{
    return rh_fault_set(fault, RH_EIO, "cannot %s %s: %s", what, path, strerror(errno));
}

/* What was made in the directory `path`[0..len) stays there. */
static int sync_parent(char *path, size_t len, struct rh_fault *fault)
{
    const char *name = len ? path : *path == '/' ? "/" : ".";
    int fd, rc = RH_OK;

    if (len)
        path[len] = '\0';
    fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        rc = dir_fault(fault, "sync", name);
    close_fd(fd);
    if (len)
        path[len] = '/';
    return rc;
}

/* Makes the directory `path`, whose parent begins at 0 and ends at `parent`, unless it is there. */
static int make_one(char *path, size_t parent, struct rh_fault *fault)
{
    int rc;

    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? RH_OK : dir_fault(fault, "make the directory", path);
    rc = sync_parent(path, parent, fault);
    if (rc < 0)
        rmdir(path); /* the next try would take it for one that stays */
    return rc;
}

static int make_dirs(const char *path, struct rh_fault *fault)
{
    char part[PATH_MAX];
    size_t len = strlen(path), parent = 0;

    if (len == 0 || len >= sizeof(part))
        return rh_fault_set(fault, RH_EIO, "the directory's path is %s",
                            len ? "too long" : "empty");
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        int rc;

        if ((part[i] != '/' && part[i] != '\0') || part[i - 1] == '/')
            continue;
        part[i] = '\0';
        rc = make_one(part, parent, fault);
        if (rc < 0)
            return rc;
        part[i] = path[i];
        parent = i;
    }
    return RH_OK;
}

static int lock_dir(struct rh_files *f, const char *path, struct rh_fault *fault)
{
    f->lock = openat(f->dir, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->lock < 0)
        return rh_fault_set(fault, RH_EIO, "cannot open %s/" LOCK_NAME ": %s", path,
                            strerror(errno));
    if (flock(f->lock, LOCK_EX | LOCK_NB) == 0)
        return RH_OK;
    if (errno == EWOULDBLOCK)
        return rh_fault_set(fault, RH_EIO,
                            "%s is in use by another process, which has locked %s/" LOCK_NAME
                            ": stop that one, or use another directory",
                            path, path);
    return rh_fault_set(fault, RH_EIO, "cannot lock %s/" LOCK_NAME ": %s", path, strerror(errno));
}

static int open_dir(struct rh_files *f, const char *path, struct rh_fault *fault)
{
    int rc = make_dirs(path, fault);

    if (rc < 0)
        return rc;
    f->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->dir < 0)
        return dir_fault(fault, "open the directory", path);
    return lock_dir(f, path, fault);
}

/* ---- life ---- */

static void arm_wake(struct rh_files *f)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);

    rh_assert(sqe);
    io_uring_prep_read(sqe, f->wake_fd, &f->wake_count, sizeof(f->wake_count), 0);
    sqe->user_data = TAG_WAKE;
}

static int open_ring(struct rh_files *f, struct rh_fault *fault)
{
    unsigned workers[2] = {WORKERS, 1}; /* for files, and for what else may wait */
    int rc = rh_uring_open_ring(&f->ring, ENTRIES, ENTRIES);

    f->ring_ready = rc == 0;
    if (rc == 0)
        rc = io_uring_register_iowq_max_workers(&f->ring, workers);
    if (rc >= 0) {
        f->wake_fd = eventfd(0, EFD_CLOEXEC);
        rc = f->wake_fd < 0 ? -errno : 0;
    }
    if (rc < 0)
        return rh_uring_fault(fault, rc, NULL);
    arm_wake(f);
    return RH_OK;
}

int rh_files_create(const char *path, struct rh_files **ret_files, struct rh_fault *fault)
{
    struct rh_files *f = rh_mem_zalloc(sizeof(*f));
    int rc;

    if (!f)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the files in %s", path);
    f->wake_fd = f->dir = f->lock = -1;
    for (unsigned i = 0; i < RH_FILES_OPS; i++)
        f->free[i] = (uint8_t)i;
    rc = open_dir(f, path, fault);
    if (rc == RH_OK)
        rc = open_ring(f, fault);
    if (rc < 0) {
        rh_files_destroy(f);
        return rc;
    }
    *ret_files = f;
    return RH_OK;
}

void rh_files_destroy(struct rh_files *f)
{
    if (!f)
        return;
    rh_assert(f->busy == 0);
    if (f->ring_ready)
        io_uring_queue_exit(&f->ring);
    close_fd(f->wake_fd);
    close_fd(f->dir);
    close_fd(f->lock); /* and with it the lock */
    rh_mem_free(f);
}

/* ---- at start, blocking ---- */

static int list_one(struct rh_files *f, const char *name,
                    void (*each)(void *arg, const char *name, uint64_t size), void *arg,
                    struct rh_fault *fault)
{
    struct stat info;

    if (fstatat(f->dir, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? RH_OK : dir_fault(fault, "look at", name);
    if (S_ISREG(info.st_mode) && strcmp(name, LOCK_NAME))
        each(arg, name, (uint64_t)info.st_size);
    return RH_OK;
}

int rh_files_list(struct rh_files *f, void (*each)(void *arg, const char *name, uint64_t size),
                  void *arg, struct rh_fault *fault)
{
    int fd = openat(f->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int rc = RH_OK;

    if (!dir) {
        rc = dir_fault(fault, "read", "the directory");
        close_fd(fd);
        return rc;
    }
    while (rc == RH_OK && (errno = 0, entry = readdir(dir)) != NULL)
        rc = list_one(f, entry->d_name, each, arg, fault);
    if (rc == RH_OK && errno != 0)
        rc = dir_fault(fault, "read", "the directory");
    closedir(dir);
    return rc;
}

int64_t rh_files_read(struct rh_files *f, const char *name, uint64_t offset, void *dst, size_t len,
                      struct rh_fault *fault)
{
    int fd = openat(f->dir, name, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t got = 1;

    if (fd < 0)
        return dir_fault(fault, "open", name);
    while (have < len && got != 0) {
        got = pread(fd, (char *)dst + have, len - have, (off_t)(offset + have));
        if (got < 0 && errno != EINTR)
            break;
        have += got > 0 ? (size_t)got : 0;
    }
    if (got < 0 && have < len)
        dir_fault(fault, "read", name);
    close(fd);
    return got < 0 && have < len ? RH_EIO : (int64_t)have;
}

/* ---- operations ---- */

static struct io_uring_sqe *begin(struct rh_files *f, uint64_t tag, struct op **ret_op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
    unsigned place;

    rh_assert(sqe && f->busy < RH_FILES_OPS);
    place = f->free[RH_FILES_OPS - ++f->busy];
    *ret_op = &f->ops[place];
    (*ret_op)->tag = tag;
    return sqe;
}

/* Preparing an operation clears all of it, so this comes last. */
static void queue(struct rh_files *f, struct io_uring_sqe *sqe, const struct op *op)
{
    sqe->user_data = (uint64_t)(op - f->ops);
}

static const char *keep_name(char dst[RH_FILE_NAME_MAX + 1], const char *name)
{
    size_t len = strlen(name);

    rh_assert(len > 0 && len <= RH_FILE_NAME_MAX && !strchr(name, '/') && strcmp(name, LOCK_NAME));
    return memcpy(dst, name, len + 1);
}

void rh_file_open(struct rh_files *f, const char *name, uint64_t tag)
{
    struct op *op;
    struct io_uring_sqe *sqe = begin(f, tag, &op);

    io_uring_prep_openat(sqe, f->dir, keep_name(op->name, name), O_WRONLY | O_CREAT | O_CLOEXEC,
                         0600);
    queue(f, sqe, op);
}

void rh_file_write(struct rh_files *f, int fd, const void *bytes, size_t len, uint64_t offset,
                   uint64_t tag)
{
    struct op *op;
    struct io_uring_sqe *sqe = begin(f, tag, &op);

    rh_assert(len > 0 && offset <= INT64_MAX); /* beyond it would mean: where the last one ended */
    io_uring_prep_write(sqe, fd, bytes, (unsigned)RH_MIN(len, WRITE_MAX), offset);
    queue(f, sqe, op);
}

void rh_file_sync(struct rh_files *f, int fd, uint64_t tag)
{
    struct op *op;
    struct io_uring_sqe *sqe = begin(f, tag, &op);

    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    queue(f, sqe, op);
}

void rh_file_close(struct rh_files *f, int fd, uint64_t tag)
{
    struct op *op;
    struct io_uring_sqe *sqe = begin(f, tag, &op);

    io_uring_prep_close(sqe, fd);
    sqe->flags |= IOSQE_ASYNC;
    queue(f, sqe, op);
}

void rh_file_rename(struct rh_files *f, const char *from, const char *to, uint64_t tag)
{
    struct op *op;
    struct io_uring_sqe *sqe = begin(f, tag, &op);

    io_uring_prep_renameat(sqe, f->dir, keep_name(op->name, from), f->dir, keep_name(op->to, to),
                           0);
    queue(f, sqe, op);
}

void rh_file_remove(struct rh_files *f, const char *name, uint64_t tag)
{
    struct op *op;
    struct io_uring_sqe *sqe = begin(f, tag, &op);

    io_uring_prep_unlinkat(sqe, f->dir, keep_name(op->name, name), 0);
    queue(f, sqe, op);
}

void rh_file_sync_dir(struct rh_files *f, uint64_t tag)
{
    struct op *op;
    struct io_uring_sqe *sqe = begin(f, tag, &op);

    io_uring_prep_fsync(sqe, f->dir, 0);
    queue(f, sqe, op);
}

/* ---- the loop ---- */

int rh_files_enter(struct rh_files *f, uint64_t wait_ms)
{
    uint64_t ms = RH_MIN(wait_ms, WAIT_MS_MAX);
    struct __kernel_timespec ts = {
        .tv_sec = (int64_t)(ms / 1000),
        .tv_nsec = (long long)(ms % 1000 * 1000000),
    };
    struct io_uring_getevents_arg arg = {
        .ts = wait_ms == UINT64_MAX ? 0 : (uintptr_t)&ts,
        .sigmask_sz = _NSIG / 8,
    };
    struct io_uring_sq *sq = &f->ring.sq;
    unsigned todo;
    int rc;

    if (sq->sqe_head != sq->sqe_tail) {
        sq->sqe_head = sq->sqe_tail;
        io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    }
    todo = sq->sqe_tail - io_uring_smp_load_acquire(sq->khead);
    rc = io_uring_enter2(f->ring.enter_ring_fd, todo, wait_ms ? 1 : TAKE_ALL,
                         IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, (void *)&arg, sizeof(arg));
    if (rc >= 0 || rc == -ETIME || rc == -EINTR)
        return RH_OK;
    if (rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM) /* passing: reap, then try again */
        return RH_OK;
    return RH_EIO;
}

unsigned rh_files_reap(struct rh_files *f, struct rh_file_cqe *dst, unsigned max)
{
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0, count = 0;
    bool woken = false;

    io_uring_for_each_cqe(&f->ring, head, cqe)
    {
        if (count == max)
            break;
        seen++;
        if (cqe->user_data == TAG_WAKE) {
            woken = true;
            continue;
        }
        dst[count++] = (struct rh_file_cqe){f->ops[cqe->user_data].tag, cqe->res};
        f->free[RH_FILES_OPS - f->busy--] = (uint8_t)cqe->user_data;
    }
    io_uring_cq_advance(&f->ring, seen);
    if (woken)
        arm_wake(f);
    return count;
}

unsigned rh_files_busy(const struct rh_files *f)
{
    return f->busy;
}

void rh_files_wake_any(struct rh_files *f)
{
    uint64_t one = 1;
    ssize_t rc = write(f->wake_fd, &one, sizeof(one));

    (void)rc; /* a full counter wakes as well */
}
