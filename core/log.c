/* core/log.c - log lines on their way to a file: rings, one thread that writes, losses counted.
 *
 * Why this way: a disk that stalls must not stall a shard, so a shard's line goes into a ring and
 * a thread of its own writes it. Log lines are of the lossy class: when the ring is full the line
 * is dropped and counted, and the next one tells the reader that there is a hole.
 *
 * Threads     The log thread pops all rings. A thread with a ring only pushes; the others write
 *             under `writing`, as does the log thread, once per batch. Nobody holds `writing` while
 *             a thread with a ring could want it.
 * Ownership   A line's bytes move through the ring and are freed by who pops them. A source belongs
 *             to its thread until fini marks it closed, then to the log thread, which frees it when
 *             it is empty; without a log thread fini does that itself.
 * Sleep       The log thread announces that it sleeps, then looks at the rings once more; a producer
 *             publishes, then takes the announcement back. Both sides do so with one atomic
 *             exchange on `asleep`, so one of them sees the other (and the time-out would, too).
 * Limits      RH_LOG_SLOTS lines a thread, BATCH_BYTES a write, BATCH_LINES from one ring before the
 *             next has its turn.
 * Rejected    A lock-free queue of all threads: one hot line of memory for all shards. Formatting on
 *             the log thread: saves the shard 1 us a line and needs a copy of every argument.
 */
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/log_int.h"
#include "core/mem.h"
#include "core/ring.h"
#include "core/thread.h"

#define BATCH_BYTES (64u << 10)
#define BATCH_LINES 256
#define NAP_S       1    /* longest sleep of the log thread */
#define STALL_MS    1000 /* for how long a non-blocking descriptor may take nothing */

struct source {
    void *mem;            /* of the ring */
    struct rh_ring *ring; /* its thread pushes, the log thread pops */
    uint64_t untold;      /* producer's own: lines lost since the last that got through */
    _Atomic bool closed;  /* release by fini, acquire by the log thread: the last word */
};

struct batch {
    uint32_t len;
    uint32_t lines;
    char at[BATCH_BYTES];
};

_Atomic int rh_log_threshold = RH_LOG_INFO;

static struct {
    /* Changed by start only, while no log thread runs; relaxed. */
    _Atomic int format;
    _Atomic bool running; /* also stop; release, pairs with the acquire in rh_log_write */

    /* Under the mutex. */
    pthread_mutex_t writing;
    int fd;
    char path[PATH_MAX]; /* "": standard error */

    /* Shared. */
    _Atomic(struct source *)
        sources[RH_LOG_THREADS_MAX]; /* init fills one, the log thread empties */
    _Atomic uint32_t asleep;         /* futex; see Sleep */
    _Atomic bool stopping;           /* stop to log thread */
    _Atomic uint64_t dropped;        /* any adds, any reads; relaxed */

    struct rh_thread thread; /* start and stop only */
} logger = {.writing = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO};

static _Thread_local struct source *own;

static void count_dropped(uint64_t n)
{
    atomic_fetch_add_explicit(&logger.dropped, n, memory_order_relaxed);
}

uint64_t rh_log_dropped_any(void)
{
    return atomic_load_explicit(&logger.dropped, memory_order_relaxed);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Waits until a non-blocking descriptor takes bytes again. */
static bool wait_writable(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};

    return poll(&pfd, 1, STALL_MS) > 0;
}

/* Writes whole lines; what the system does not take is dropped and counted. Under the mutex. */
static void write_lines(const char *at, size_t len)
{
    uint64_t lost = 0;

    while (len > 0) {
        ssize_t n = write(logger.fd, at, len);

        if (n >= 0) {
            at += n;
            len -= (size_t)n;
        } else if (errno != EINTR && !(errno == EAGAIN && wait_writable(logger.fd))) {
            break;
        }
    }
    for (size_t i = 0; i < len; i++)
        lost += at[i] == '\n';
    if (lost)
        count_dropped(lost);
}

static void write_locked(const char *at, size_t len)
{
    pthread_mutex_lock(&logger.writing);
    write_lines(at, len);
    pthread_mutex_unlock(&logger.writing);
}

static void batch_flush(struct batch *batch)
{
    if (batch->len > 0)
        write_locked(batch->at, batch->len);
    batch->len = 0;
}

/* Takes at most `max` lines out of a ring into the batch. */
static unsigned drain(struct source *src, struct batch *batch, unsigned max)
{
    const struct rh_event *ev;
    unsigned n = 0;

    while (n < max && (ev = rh_ring_peek(src->ring))) {
        size_t len = (size_t)ev->a;

        if (batch->len + len > sizeof(batch->at))
            batch_flush(batch);
        memcpy(batch->at + batch->len, ev->msg, len);
        batch->len += (uint32_t)len;
        rh_mem_free(ev->msg);
        rh_ring_drop(src->ring);
        n++;
    }
    rh_ring_release(src->ring);
    return n;
}

static void source_free(struct source *src)
{
    if (src)
        rh_mem_free(src->mem);
    rh_mem_free(src);
}

/* One look at every ring. Frees those whose threads have gone. Returns how many lines it took. */
static unsigned pass(struct batch *batch)
{
    unsigned total = 0;

    for (size_t i = 0; i < RH_COUNT(logger.sources); i++) {
        struct source *src = atomic_load_explicit(&logger.sources[i], memory_order_acquire);
        bool closed = src && atomic_load_explicit(&src->closed, memory_order_acquire);
        unsigned n = src ? drain(src, batch, BATCH_LINES) : 0;

        total += n;
        if (!closed || n == BATCH_LINES)
            continue; /* closed, but perhaps not empty: next time */
        atomic_store_explicit(&logger.sources[i], NULL, memory_order_release);
        source_free(src);
    }
    batch_flush(batch);
    return total;
}

/* ---- the log thread ------------------------------------------------------------------------- */

static void wake(void)
{
    if (atomic_exchange(&logger.asleep, 0))
        syscall(SYS_futex, &logger.asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool anything_waits(void)
{
    for (size_t i = 0; i < RH_COUNT(logger.sources); i++) {
        struct source *src = atomic_load_explicit(&logger.sources[i], memory_order_acquire);

        if (src &&
            (rh_ring_peek(src->ring) || atomic_load_explicit(&src->closed, memory_order_acquire)))
            return true;
    }
    return atomic_load_explicit(&logger.stopping, memory_order_acquire);
}

static void nap(void)
{
    static const struct timespec longest = {.tv_sec = NAP_S};

    atomic_exchange(&logger.asleep, 1);
    if (!anything_waits())
        syscall(SYS_futex, &logger.asleep, FUTEX_WAIT_PRIVATE, 1, &longest, NULL, 0);
    atomic_exchange(&logger.asleep, 0);
}

static void log_thread(void *arg)
{
    struct batch *batch = arg;

    for (;;) {
        bool stopping = atomic_load_explicit(&logger.stopping, memory_order_acquire);

        if (pass(batch) > 0)
            continue;
        if (stopping)
            break; /* asked before that last look: nothing of before is left */
        nap();
    }
    rh_mem_free(batch);
}

/* ---- life ----------------------------------------------------------------------------------- */

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
}

/* Lines go to `fd` from now on; the one before is closed. */
static void change_fd(int fd)
{
    int before;

    pthread_mutex_lock(&logger.writing);
    before = logger.fd;
    logger.fd = fd;
    pthread_mutex_unlock(&logger.writing);
    if (before != STDERR_FILENO)
        close(before);
}

void rh_log_set_level_any(enum rh_log_level level)
{
    atomic_store_explicit(&rh_log_threshold, (int)level, memory_order_relaxed);
}

int rh_log_start(enum rh_log_level level, enum rh_log_format format, const char *file,
                 struct rh_fault *fault)
{
    struct batch *batch = NULL;
    int fd = STDERR_FILENO;
    int rc;

    if (atomic_load(&logger.running))
        return rh_fault_set(fault, RH_ESTATE, "the log is started already");
    if (strlen(file) >= sizeof(logger.path))
        return rh_fault_set(fault, RH_EINVAL, "log.file: the name is too long");
    batch = rh_mem_zalloc(sizeof(*batch));
    if (!batch)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the log");
    if (*file)
        fd = open_file(file);
    if (fd < 0) {
        rc = rh_fault_set(fault, RH_EIO, "log.file: cannot open %.300s: %s", file, strerror(errno));
        goto out;
    }
    snprintf(logger.path, sizeof(logger.path), "%s", file);
    change_fd(fd);
    rh_log_set_level_any(level);
    atomic_store(&logger.format, (int)format);
    atomic_store(&logger.stopping, false);
    rc = rh_thread_start(&logger.thread, RH_TID_NONE, "rh-log", log_thread, batch);
    if (rc < 0) {
        change_fd(STDERR_FILENO);
        rh_fault_set(fault, rc, "the log's thread cannot be started");
        goto out;
    }
    batch = NULL; /* the thread's now */
    atomic_store(&logger.running, true);
out:
    rh_mem_free(batch);
    return rc;
}

void rh_log_stop(void)
{
    if (!atomic_load(&logger.running))
        return;
    atomic_store(&logger.stopping, true);
    wake();
    rh_thread_join(&logger.thread);
    atomic_store(&logger.running, false);
    change_fd(STDERR_FILENO);
    logger.path[0] = '\0';
}

int rh_log_reopen(void)
{
    int fd;

    if (!atomic_load(&logger.running) || !logger.path[0])
        return 0;
    fd = open_file(logger.path);
    if (fd < 0)
        return RH_EIO;
    change_fd(fd);
    return 0;
}

/* ---- threads with a ring -------------------------------------------------------------------- */

int rh_log_thread_init(void)
{
    struct source *src = rh_mem_zalloc(sizeof(*src));
    int rc = RH_ENOMEM;

    rh_assert(!own);
    if (src)
        src->mem = rh_mem_zalloc_aligned(rh_ring_bytes(RH_LOG_SLOTS));
    if (!src || !src->mem)
        goto out;
    src->ring = rh_ring_init(src->mem, RH_LOG_SLOTS);
    rc = RH_EFULL;
    for (size_t i = 0; rc == RH_EFULL && i < RH_COUNT(logger.sources); i++) {
        struct source *none = NULL;

        if (atomic_compare_exchange_strong(&logger.sources[i], &none, src))
            rc = 0;
    }
    if (rc == 0) {
        own = src;
        src = NULL;
    }
out:
    source_free(src);
    return rc;
}

/* Without a log thread: writes what waits in our own ring and frees it. */
static void close_alone(struct source *src)
{
    struct batch *batch = rh_mem_zalloc(sizeof(*batch));
    const struct rh_event *ev;

    while (batch && drain(src, batch, BATCH_LINES) > 0)
        batch_flush(batch);
    for (; (ev = rh_ring_peek(src->ring)); rh_ring_drop(src->ring)) { /* no memory for a batch */
        write_locked(ev->msg, (size_t)ev->a);
        rh_mem_free(ev->msg);
    }
    for (size_t i = 0; i < RH_COUNT(logger.sources); i++) {
        struct source *expected = src;

        atomic_compare_exchange_strong(&logger.sources[i], &expected, NULL);
    }
    rh_mem_free(batch);
    source_free(src);
}

void rh_log_thread_fini(void)
{
    struct source *src = own;

    own = NULL;
    if (!src)
        return;
    if (!atomic_load_explicit(&logger.running, memory_order_acquire)) {
        close_alone(src);
        return;
    }
    atomic_store_explicit(&src->closed, true, memory_order_release);
    wake();
}

/* ---- one line ------------------------------------------------------------------------------- */

bool rh_log_site_open(struct rh_log_site *site, uint32_t per_second, uint64_t *ret_suppressed)
{
    uint64_t second = rh_clock_wall_us() / 1000000;
    uint64_t before = atomic_load_explicit(&site->window, memory_order_relaxed);
    uint64_t after;

    do {
        uint64_t lines = before >> 32 == (second & UINT32_MAX) ? before & UINT32_MAX : 0;

        if (lines >= per_second) {
            atomic_fetch_add_explicit(&site->suppressed, 1, memory_order_relaxed);
            return false;
        }
        after = second << 32 | (lines + 1);
    } while (!atomic_compare_exchange_weak_explicit(&site->window, &before, after,
                                                    memory_order_relaxed, memory_order_relaxed));
    *ret_suppressed = atomic_exchange_explicit(&site->suppressed, 0, memory_order_relaxed);
    return true;
}

/* Into the ring of this thread. What is lost here is told by the next line. */
static void push(struct source *src, struct rh_log_line *line)
{
    struct rh_event *ev = rh_ring_reserve(src->ring);
    char *copy = ev ? rh_mem_alloc(line->len) : NULL;

    if (!copy) {
        src->untold++;
        count_dropped(1);
        return;
    }
    memcpy(copy, line->at, line->len);
    memset(ev, 0, sizeof(*ev));
    ev->kind = RH_EV_LOG;
    ev->msg = copy;
    ev->a = line->len;
    rh_ring_commit(src->ring);
    rh_ring_publish(src->ring);
    src->untold = 0;
    wake();
}

void rh_log_write(enum rh_log_level level, uint64_t suppressed, const struct rh_log_kv *kv,
                  size_t n)
{
    struct source *src = atomic_load_explicit(&logger.running, memory_order_acquire) ? own : NULL;
    int format = atomic_load_explicit(&logger.format, memory_order_relaxed);
    struct rh_log_line line;

    if (src && !rh_ring_reserve(src->ring)) { /* full: not worth building */
        src->untold++;
        count_dropped(1);
        return;
    }
    rh_log_format(&line, (enum rh_log_format)format, rh_clock_wall_us(), level,
                  src ? src->untold : 0, suppressed, kv, n);
    if (src)
        push(src, &line);
    else
        write_locked(line.at, line.len);
}
