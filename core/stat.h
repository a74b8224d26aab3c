/* core/stat.h - what we count, per thread, and the page that Prometheus reads.
 *
 * All metrics stand in core/stat.def. Each thread has a block of its own and only ever writes that
 * one; whoever renders the page reads all blocks and adds them up.
 *
 * Threads    add, sub, set, observe: the block's owner. render, and the value questions: any thread,
 *            while owners go on counting; the page is then a picture that may lack the newest.
 * Memory     relaxed everywhere: these numbers order nothing else.
 * Limits     times above 10 s fall into the last bucket; their sum stays exact to the microsecond.
 */
#ifndef RH_STAT_H
#define RH_STAT_H

#include "core/base.h"
#include "core/ringhub.h"

enum rh_stat {
#define RH_STAT_ONE(id, ...) RH_STAT_##id,
#define RH_STAT_ROW(id, ...) RH_STAT_##id,
#include "core/stat.def"
    RH_STATS
};

enum rh_histogram {
#define RH_STAT_TIME(id, ...) RH_HIST_##id,
#include "core/stat.def"
    RH_HISTOGRAMS
};

#define RH_STAT_BUCKETS 18 /* 50 us to 10 s, and everything above */

struct rh_stat_times {
    _Atomic uint64_t bucket[RH_STAT_BUCKETS]; /* not cumulative */
    _Atomic uint64_t sum_us;
    uint64_t rest_ns; /* owner's: what is less than a microsecond, for the next time */
};

/* One thread's counts: owner writes, anybody loads. Begins zeroed. On cache lines of its own, so what
 * holds one must be aligned, too (rh_mem_zalloc_aligned). */
struct rh_stats {
    alignas(RH_CACHE_LINE) _Atomic uint64_t v[RH_STATS];
    struct rh_stat_times times[RH_HISTOGRAMS];
};

/* Adds to a counter or to a gauge. */
static inline void rh_stat_add(struct rh_stats *stats, enum rh_stat stat, uint64_t n)
{
    uint64_t v = atomic_load_explicit(&stats->v[stat], memory_order_relaxed);

    atomic_store_explicit(&stats->v[stat], v + n, memory_order_relaxed);
}

static inline void rh_stat_inc(struct rh_stats *stats, enum rh_stat stat)
{
    rh_stat_add(stats, stat, 1);
}

/* Takes from a gauge; may go below zero when another thread's block has what is taken. */
static inline void rh_stat_sub(struct rh_stats *stats, enum rh_stat stat, uint64_t n)
{
    rh_stat_add(stats, stat, -n);
}

/* A number that is counted elsewhere and copied here now and then. */
static inline void rh_stat_set(struct rh_stats *stats, enum rh_stat stat, uint64_t value)
{
    atomic_store_explicit(&stats->v[stat], value, memory_order_relaxed);
}

/* Counts a duration. */
void rh_stat_observe(struct rh_stats *stats, enum rh_histogram histogram, uint64_t ns);

/* The row of ringhub_disconnects_total for a close code; "other" for an unlisted one. */
enum rh_stat rh_stat_disconnects(unsigned code);

/* One number of all blocks together; a gauge's is signed. */
int64_t rh_stat_sum(struct rh_stats *const blocks[], unsigned n, enum rh_stat stat);

/* Renders all metrics of all blocks in Prometheus' text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/): Content-Type
 * `text/plain; version=0.0.4`. *ret_text is the caller's, freed with rh_mem_free, not terminated
 * by a zero. RH_ENOMEM. */
int rh_stat_render(struct rh_stats *const blocks[], unsigned n, char **ret_text, size_t *ret_len);

#endif
