/* core/log.h - structured log lines, written by a thread of its own.
 *
 * One event is one line of JSON (or of words, for people), built from typed pairs:
 *
 *     rh_log(RH_LOG_INFO, "shard.started", RH_KU("shard", tid), RH_KS("backend", name));
 *     {"time":"2026-11-21T12:00:00.123Z","level":"info","event":"shard.started","shard":0,...}
 *     2026-11-21T12:00:00.123Z info shard.started shard=0 backend=io_uring
 *
 * A level that is off costs one load and one branch; the pairs are then not even evaluated.
 *
 * Threads    rh_log, RH_LOG_EVERY, rh_log_reopen and what ends in _any: any. A thread that called
 *            rh_log_thread_init never waits for the disk: its lines go through a ring of its own to
 *            the log thread. Others, and all before start and after stop, write themselves under a
 *            mutex. start and stop: the controlling thread, with no init or fini going on.
 * Ownership  strings are read before the call returns. Keys and events are literals of ours, without
 *            anything to escape; values may be any bytes: what is no UTF-8 becomes U+FFFD.
 * Limits     a line: RH_LOG_LINE bytes; a longer one ends with "cut":true and is still valid JSON.
 *            A ring: RH_LOG_SLOTS lines. When it is full a line is lost and counted, and the next
 *            one that goes through says "lost":N. Threads with a ring: RH_LOG_THREADS_MAX.
 */
#ifndef RH_LOG_H
#define RH_LOG_H

#include "core/base.h"
#include "core/ringhub.h"

#define RH_LOG_LINE        1024
#define RH_LOG_SLOTS       1024 /* of each thread's ring: 64 KiB */
#define RH_LOG_THREADS_MAX 160  /* 64 shards, 64 ports, and what else a hub runs */

/* In the order of the words of log.level and log.format. */
enum rh_log_level { RH_LOG_DEBUG, RH_LOG_INFO, RH_LOG_WARN, RH_LOG_ERROR };
enum rh_log_format { RH_LOG_JSON, RH_LOG_TEXT };

/* One pair of a line; made by the macros below, so that the compiler checks the value's type. */
struct rh_log_kv {
    const char *key;
    enum { RH_LOG_KV_STR, RH_LOG_KV_SPAN, RH_LOG_KV_U64, RH_LOG_KV_I64 } kind;
    union {
        const char *str; /* NULL is "" */
        struct rh_span span;
        uint64_t u64;
        int64_t i64;
    } as;
};

#define RH_KS(name, value)                                                                         \
    ((struct rh_log_kv){.key = (name), .kind = RH_LOG_KV_STR, {.str = (value)}})
#define RH_KU(name, value)                                                                         \
    ((struct rh_log_kv){.key = (name), .kind = RH_LOG_KV_U64, {.u64 = (value)}})
#define RH_KI(name, value)                                                                         \
    ((struct rh_log_kv){.key = (name), .kind = RH_LOG_KV_I64, {.i64 = (value)}})
#define RH_KSPAN(name, value)                                                                      \
    ((struct rh_log_kv){.key = (name), .kind = RH_LOG_KV_SPAN, {.span = (value)}})

/* Logs one line: rh_log(level, "event", pairs...); the pairs may be missing. */
#define rh_log(level_, ...)                                                                        \
    do {                                                                                           \
        if (rh_log_on(level_))                                                                     \
            RH_LOG_WRITE(level_, 0, __VA_ARGS__);                                                  \
    } while (0)

/* The same, but at most `per_second` lines a second from this place in the code, all threads
 * together; the next line that gets through says "suppressed":N. */
#define RH_LOG_EVERY(per_second, level_, ...)                                                      \
    do {                                                                                           \
        static struct rh_log_site site_;                                                           \
        uint64_t suppressed_;                                                                      \
                                                                                                   \
        if (rh_log_on(level_) && rh_log_site_open(&site_, (per_second), &suppressed_))             \
            RH_LOG_WRITE(level_, suppressed_, __VA_ARGS__);                                        \
    } while (0)

/* Starts the log thread. `file` is appended to; "" is standard error. RH_EIO: it cannot be opened
 * (`fault` says why); RH_ESTATE: it runs already. */
int rh_log_start(enum rh_log_level level, enum rh_log_format format, const char *file,
                 struct rh_fault *fault);

/* Writes what is queued, ends the thread and closes the file; may come twice. Level and format
 * stay, lines go to standard error. Threads with a ring should have called fini by then; what one
 * of them logs meanwhile is written by its fini. */
void rh_log_stop(void);

/* Which lines are logged from now on; rh_log_start sets it, too. */
void rh_log_set_level_any(enum rh_log_level level);

/* Opens the file by its name anew, after it was moved away. RH_EIO: that failed, and the old one
 * stays in use. Without a file: nothing to do. */
int rh_log_reopen(void);

/* Gives the calling thread a ring. RH_ENOMEM or RH_EFULL: it has none and writes itself, which is
 * right, but may wait for the disk. */
int rh_log_thread_init(void);
void rh_log_thread_fini(void); /* harmless without init */

/* Lines that were lost since the process began: full ring, no memory, or the write failed. */
uint64_t rh_log_dropped_any(void);

/* ---- what the macros need ------------------------------------------------------------------- */

struct rh_log_site {
    _Atomic uint64_t window;     /* second << 32 | lines in it; changed by CAS, any thread */
    _Atomic uint64_t suppressed; /* not yet told */
};

extern _Atomic int rh_log_threshold; /* relaxed: when a change is seen does not matter */

static inline bool rh_log_on(enum rh_log_level level)
{
    return (int)level >= atomic_load_explicit(&rh_log_threshold, memory_order_relaxed);
}

bool rh_log_site_open(struct rh_log_site *site, uint32_t per_second, uint64_t *ret_suppressed);

/* kv[0] is the event. */
void rh_log_write(enum rh_log_level level, uint64_t suppressed, const struct rh_log_kv *kv,
                  size_t n);

#define RH_LOG_WRITE(level_, suppressed_n_, event_, ...)                                           \
    do {                                                                                           \
        const struct rh_log_kv kv_[] = {RH_KS("event", event_), __VA_ARGS__};                      \
                                                                                                   \
        rh_log_write(level_, suppressed_n_, kv_, RH_COUNT(kv_));                                   \
    } while (0)

#endif
