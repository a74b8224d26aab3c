/* tests/store/disk.c - core/file.h's operations on the disk in memory; see disk.h.
 *
 * An operation is queued, submitted (there a sync notes what it covers, and faults are counted),
 * and completes in a turn of the disk (there a write becomes visible). Its place is free again when
 * its completion has been reaped.
 */
#include "tests/store/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/err.h"
#include "core/mem.h"
#include "tests/store/disk_media.h"

#define LOCK_NAME "lock"
#define FDS_MAX   256
#define FD_FIRST  1000 /* descriptors are never used again: one that is stale shows */

enum state { FREE, QUEUED, WAITING, COMPLETE };

struct op {
    enum state state;
    enum disk_kind kind;
    uint64_t order; /* since the disk began */
    uint64_t tag;
    int fd;
    struct media_file *file; /* held */
    const void *bytes;
    size_t len;
    uint64_t offset;
    uint64_t sum; /* of the bytes, when they were queued */
    char name[RH_FILE_NAME_MAX + 1];
    char to[RH_FILE_NAME_MAX + 1];
    unsigned delay; /* turns */
    int err;        /* that it ends with */
    struct media_snap *snap;
    uint64_t change;
    int32_t res;
};

struct rh_files {
    struct op ops[RH_FILES_OPS];
    unsigned busy;
    bool woken, dead;
    bool asleep; /* by hand: the last enter still waits */
};

static struct {
    struct rh_files *user; /* who has it open */
    uint64_t orders;
    struct {
        int number;
        struct media_file *file;
    } fds[FDS_MAX];
    unsigned fd_count;
    int fd_next;

    struct {
        unsigned wait, times;
        int err;
    } fails[DISK_KINDS];
    uint64_t room;
    size_t write_most;
    unsigned hung;
    bool lucky;
    struct disk_luck luck;
    uint64_t rand;
    bool by_hand;
    uint64_t wait_ms;
    unsigned done[DISK_KINDS];
} disk = {.room = UINT64_MAX, .write_most = SIZE_MAX, .fd_next = FD_FIRST};

static bool chance(unsigned percent)
{
    return percent && media_rand(&disk.rand) % 100 < percent;
}

/* ---- descriptors ---- */

static int fd_open(struct media_file *file)
{
    rh_assert(disk.fd_count < FDS_MAX);
    file->holds++;
    disk.fds[disk.fd_count].number = disk.fd_next++;
    disk.fds[disk.fd_count].file = file;
    return disk.fds[disk.fd_count++].number;
}

static unsigned fd_place(int fd)
{
    for (unsigned i = 0; i < disk.fd_count; i++)
        if (disk.fds[i].number == fd)
            return i;
    rh_assert(!"a descriptor that is open");
    return 0;
}

static void fd_close_at(unsigned i)
{
    struct media_file *file = disk.fds[i].file;

    disk.fds[i] = disk.fds[--disk.fd_count];
    media_release(file);
}

/* ---- life ---- */

int rh_files_create(const char *path, struct rh_files **ret_files, struct rh_fault *fault)
{
    struct rh_files *f;

    if (disk.user)
        return rh_fault_set(fault, RH_EIO, "%s is in use by another process", path);
    f = rh_mem_zalloc(sizeof(*f));
    if (!f)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the files in %s", path);
    disk.user = f;
    *ret_files = f;
    return RH_OK;
}

void rh_files_destroy(struct rh_files *f)
{
    if (!f)
        return;
    rh_assert(f->dead || f->busy == 0);
    while (!f->dead && disk.fd_count)
        fd_close_at(0);
    if (disk.user == f)
        disk.user = NULL;
    rh_mem_free(f);
}

int rh_files_list(struct rh_files *f, void (*each)(void *arg, const char *name, uint64_t size),
                  void *arg, struct rh_fault *fault)
{
    const char *names[DISK_NAMES_MAX];
    unsigned count = disk_names(names, DISK_NAMES_MAX);

    if (f->dead)
        return rh_fault_set(fault, RH_EIO, "the disk has gone");
    for (unsigned i = 0; i < count; i++)
        each(arg, names[i], media_find(names[i])->len);
    return RH_OK;
}

int64_t rh_files_read(struct rh_files *f, const char *name, uint64_t offset, void *dst, size_t len,
                      struct rh_fault *fault)
{
    const struct media_file *file = f->dead ? NULL : media_find(name);

    if (!file)
        return rh_fault_set(fault, RH_EIO, "cannot open %s", name);
    if (offset >= file->len)
        return 0;
    len = RH_MIN(len, file->len - offset);
    memcpy(dst, file->seen + offset, len);
    return (int64_t)len;
}

/* ---- queueing ---- */

static struct op *queue(struct rh_files *f, enum disk_kind kind, uint64_t tag)
{
    unsigned i = 0;

    rh_assert(f->busy < RH_FILES_OPS);
    while (f->ops[i].state != FREE)
        i++;
    f->busy++;
    f->ops[i] =
        (struct op){.state = QUEUED, .kind = kind, .order = ++disk.orders, .tag = tag, .fd = -1};
    return &f->ops[i];
}

static void on_fd(struct op *op, int fd)
{
    op->fd = fd;
    op->file = disk.fds[fd_place(fd)].file;
    op->file->holds++;
}

static void keep_name(char dst[RH_FILE_NAME_MAX + 1], const char *name)
{
    size_t len = strlen(name);

    rh_assert(len > 0 && len <= RH_FILE_NAME_MAX && !strchr(name, '/') && strcmp(name, LOCK_NAME));
    memcpy(dst, name, len + 1);
}

static uint64_t sum_of(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint64_t sum = len, word = 0;

    for (; len >= sizeof(word); len -= sizeof(word), at += sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 29;
    }
    for (; len; len--)
        sum = (sum ^ *at++) * UINT64_C(0x9e3779b97f4a7c15);
    return sum;
}

void rh_file_open(struct rh_files *f, const char *name, uint64_t tag)
{
    keep_name(queue(f, DISK_OPEN, tag)->name, name);
}

void rh_file_write(struct rh_files *f, int fd, const void *bytes, size_t len, uint64_t offset,
                   uint64_t tag)
{
    struct op *op = queue(f, DISK_WRITE, tag);

    rh_assert(len > 0 && offset <= INT64_MAX);
    on_fd(op, fd);
    op->bytes = bytes;
    op->len = len;
    op->offset = offset;
    op->sum = sum_of(bytes, len);
}

void rh_file_sync(struct rh_files *f, int fd, uint64_t tag)
{
    on_fd(queue(f, DISK_SYNC, tag), fd);
}

void rh_file_close(struct rh_files *f, int fd, uint64_t tag)
{
    if (f->dead) /* it went with the power */
        return;
    on_fd(queue(f, DISK_CLOSE, tag), fd);
}

void rh_file_rename(struct rh_files *f, const char *from, const char *to, uint64_t tag)
{
    struct op *op = queue(f, DISK_RENAME, tag);

    keep_name(op->name, from);
    keep_name(op->to, to);
}

void rh_file_remove(struct rh_files *f, const char *name, uint64_t tag)
{
    keep_name(queue(f, DISK_REMOVE, tag)->name, name);
}

void rh_file_sync_dir(struct rh_files *f, uint64_t tag)
{
    queue(f, DISK_SYNC_DIR, tag);
}

/* ---- submitting ---- */

static int fails(enum disk_kind kind)
{
    if (disk.fails[kind].times) {
        if (disk.fails[kind].wait > 1) {
            disk.fails[kind].wait--;
        } else {
            if (disk.fails[kind].times != UINT32_MAX)
                disk.fails[kind].times--;
            return -disk.fails[kind].err;
        }
    }
    return disk.lucky && chance(disk.luck.fail_pct[kind]) ? -EIO : 0;
}

static void submit(struct op *op)
{
    op->state = WAITING;
    op->err = fails(op->kind);
    if (disk.lucky && disk.luck.turns)
        op->delay = (unsigned)(media_rand(&disk.rand) % (disk.luck.turns + 1));
    if (op->kind == DISK_SYNC)
        op->snap = media_sync_begin(op->file);
    if (op->kind == DISK_SYNC_DIR)
        op->change = media_dir_begin();
}

/* The one of that state that was queued first; NULL: none. */
static struct op *first(struct rh_files *f, enum state state)
{
    struct op *best = NULL;

    for (unsigned i = 0; i < RH_FILES_OPS; i++)
        if (f->ops[i].state == state && (!best || f->ops[i].order < best->order))
            best = &f->ops[i];
    return best;
}

/* ---- completing ---- */

/* How much of a write has room, or -ENOSPC. */
static int64_t write_room(const struct op *op)
{
    uint64_t end = op->offset + op->len, used = media_used();
    uint64_t more = end > op->file->len ? end - op->file->len : 0;
    uint64_t free_bytes = disk.room > used ? disk.room - used : 0;

    if (more <= free_bytes)
        return (int64_t)op->len;
    return more - free_bytes < op->len ? (int64_t)(op->len - (more - free_bytes)) : -ENOSPC;
}

static int32_t do_write(struct op *op)
{
    int64_t len;

    rh_assert(sum_of(op->bytes, op->len) ==
              op->sum); /* the caller has changed the kernel's bytes */
    len = write_room(op);
    if (len > 0)
        len = RH_MIN(len, (int64_t)RH_MIN(disk.write_most, (size_t)INT32_MAX));
    if (len > 1 && disk.lucky && chance(disk.luck.short_pct))
        len = 1 + (int64_t)(media_rand(&disk.rand) % (uint64_t)(len - 1));
    if (disk.lucky)
        media_write_back(op->file, &disk.rand);
    if (op->err < 0 && len > 0)
        media_write_part(op->file, op->bytes, (size_t)len, op->offset, &disk.rand);
    else if (len > 0)
        media_write(op->file, op->bytes, (size_t)len, op->offset);
    return op->err < 0 ? op->err : (int32_t)len;
}

static int32_t do_other(struct op *op)
{
    if (op->err < 0 && op->kind != DISK_CLOSE)
        return op->err;
    switch (op->kind) {
    case DISK_OPEN:
        return fd_open(media_open(op->name));
    case DISK_CLOSE: /* also one that fails */
        fd_close_at(fd_place(op->fd));
        return op->err;
    case DISK_RENAME:
        return media_rename(op->name, op->to);
    case DISK_REMOVE:
        return media_remove(op->name);
    default:
        media_dir_end(op->change);
        return 0;
    }
}

static void let_go(struct op *op)
{
    media_snap_free(op->snap);
    op->snap = NULL;
    if (op->file)
        media_release(op->file);
    op->file = NULL;
}

static void complete(struct op *op)
{
    if (op->kind == DISK_WRITE) {
        op->res = do_write(op);
    } else if (op->kind == DISK_SYNC) {
        media_sync_end(op->file, op->snap, op->err == 0);
        op->snap = NULL;
        op->res = op->err;
    } else {
        op->res = do_other(op);
    }
    let_go(op);
    op->state = COMPLETE;
    op->order = ++disk.orders; /* completions are reaped in their order */
    disk.done[op->kind]++;
}

static bool hangs(const struct op *op)
{
    return disk.hung >> op->kind & 1;
}

/* In their order, or with luck in any. */
static void mix(struct op **ops, unsigned count)
{
    for (unsigned i = 1; i < count; i++)
        for (unsigned k = i; k > 0 && ops[k]->order < ops[k - 1]->order; k--) {
            struct op *op = ops[k];

            ops[k] = ops[k - 1];
            ops[k - 1] = op;
        }
    for (unsigned i = count; disk.lucky && disk.luck.turns && i > 1; i--) {
        unsigned k = (unsigned)(media_rand(&disk.rand) % i);
        struct op *op = ops[k];

        ops[k] = ops[i - 1];
        ops[i - 1] = op;
    }
}

void disk_turn(void)
{
    struct rh_files *f = disk.user;
    struct op *ready[RH_FILES_OPS];
    unsigned count = 0;

    for (unsigned i = 0; f && i < RH_FILES_OPS; i++) {
        struct op *op = &f->ops[i];

        if (op->state != WAITING || hangs(op))
            continue;
        if (op->delay)
            op->delay--;
        else
            ready[count++] = op;
    }
    mix(ready, count);
    for (unsigned i = 0; i < count; i++)
        complete(ready[i]);
    if (count)
        f->asleep = false;
}

static bool can_move(const struct rh_files *f)
{
    for (unsigned i = 0; i < RH_FILES_OPS; i++)
        if (f->ops[i].state == WAITING && !hangs(&f->ops[i]))
            return true;
    return false;
}

/* ---- the loop ---- */

int rh_files_enter(struct rh_files *f, uint64_t wait_ms)
{
    struct op *op;
    bool woken = f->woken;

    if (f->dead)
        return RH_EIO;
    disk.wait_ms = wait_ms;
    while ((op = first(f, QUEUED)) != NULL)
        submit(op);
    f->woken = false;
    f->asleep = disk.by_hand && wait_ms && !woken && !first(f, COMPLETE);
    if (disk.by_hand)
        return RH_OK;
    do
        disk_turn();
    while (wait_ms && !woken && !first(f, COMPLETE) && can_move(f));
    return RH_OK;
}

unsigned rh_files_reap(struct rh_files *f, struct rh_file_cqe *dst, unsigned max)
{
    unsigned count = 0;
    struct op *op;

    while (count < max && (op = first(f, COMPLETE)) != NULL) {
        dst[count++] = (struct rh_file_cqe){op->tag, op->res};
        op->state = FREE;
        f->busy--;
    }
    return count;
}

unsigned rh_files_busy(const struct rh_files *f)
{
    return f->busy;
}

void rh_files_wake_any(struct rh_files *f)
{
    f->woken = !f->asleep;
    f->asleep = false;
}

/* ---- ends ---- */

/* It was under way when everything ended. */
static void half_done(struct op *op, uint64_t *rand)
{
    unsigned how = (unsigned)(media_rand(rand) % 3);

    if (how == 0)
        return;
    if (op->kind == DISK_WRITE)
        media_write_part(op->file, op->bytes, op->len, op->offset, rand);
    else if (op->kind == DISK_OPEN)
        media_open(op->name);
    else if (op->kind == DISK_RENAME)
        media_rename(op->name, op->to);
    else if (op->kind == DISK_REMOVE)
        media_remove(op->name);
    /* What a sync has done until now is within what a cut may keep. */
}

static void end_user(uint64_t *rand)
{
    struct rh_files *f = disk.user;

    if (!f)
        return;
    for (unsigned i = 0; i < RH_FILES_OPS; i++) {
        struct op *op = &f->ops[i];

        if (op->state == WAITING)
            half_done(op, rand);
        let_go(op);
        op->state = FREE;
    }
    f->busy = 0;
    f->dead = true;
    while (disk.fd_count)
        fd_close_at(0);
    disk.user = NULL;
}

void disk_kill(uint64_t seed)
{
    end_user(&seed);
}

void disk_cut(uint64_t seed)
{
    end_user(&seed);
    media_cut(&seed);
}

void disk_reset(void)
{
    rh_assert(!disk.user);
    media_reset();
    memset(&disk, 0, sizeof(disk));
    disk.room = UINT64_MAX;
    disk.write_most = SIZE_MAX;
    disk.fd_next = FD_FIRST;
}

/* ---- faults ---- */

void disk_fail(enum disk_kind kind, unsigned nth, unsigned times, int err)
{
    rh_assert(kind < DISK_KINDS && (err > 0 || times == 0));
    disk.fails[kind].wait = nth;
    disk.fails[kind].times = times;
    disk.fails[kind].err = err;
}

void disk_room(uint64_t bytes)
{
    disk.room = bytes;
}

void disk_short(size_t most)
{
    rh_assert(most > 0);
    disk.write_most = most;
}

void disk_hang(unsigned kinds)
{
    disk.hung = kinds;
}

void disk_luck(uint64_t seed, const struct disk_luck *luck)
{
    disk.lucky = luck != NULL;
    if (luck)
        disk.luck = *luck;
    disk.rand = seed;
}

void disk_by_hand(bool by_hand)
{
    disk.by_hand = by_hand;
}

/* ---- questions ---- */

bool disk_asleep(void)
{
    return disk.user && disk.user->asleep;
}

uint64_t disk_wait_ms(void)
{
    return disk.wait_ms;
}

unsigned disk_done(enum disk_kind kind)
{
    return disk.done[kind];
}

unsigned disk_open_fds(void)
{
    return disk.fd_count;
}
