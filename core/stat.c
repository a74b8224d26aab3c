/* core/stat.c - metrics: buckets of durations, and the page that adds all threads up.
 *
 * Why this way: counting must cost a load and a store, so each thread counts for itself and the
 * reader does the work. The table is rendered in its own order by one loop over its rows; there is
 * no registry that could disagree with it.
 *
 * Threads     observe: the block's owner; render: any, beside the owners.
 * Invariants  A histogram's _count is the sum of its buckets as this page read them, so a page
 *             never contradicts itself, even while owners count.
 * Limits      the page is as long as the table; it grows in one allocation that doubles.
 * Rejected    core/hist.h's fine cells (264 KiB a thread and histogram): Prometheus wants few.
 */
#include "core/stat.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

/* Upper bounds, included. */
static const struct {
    uint64_t ns;
    const char *seconds;
} bounds[] = {
    {50000, "0.00005"},   {100000, "0.0001"},  {250000, "0.00025"}, {500000, "0.0005"},
    {1000000, "0.001"},   {2500000, "0.0025"}, {5000000, "0.005"},  {10000000, "0.01"},
    {25000000, "0.025"},  {50000000, "0.05"},  {100000000, "0.1"},  {250000000, "0.25"},
    {500000000, "0.5"},   {1000000000, "1"},   {2500000000, "2.5"}, {5000000000, "5"},
    {10000000000u, "10"},
};
_Static_assert(RH_COUNT(bounds) + 1 == RH_STAT_BUCKETS, "one bucket more for all above");

enum row_kind { COUNTER, GAUGE, TIME, VALUE };

/* One line of stat.def: COUNTER, GAUGE and TIME begin a metric, VALUE is one label of it. */
struct row {
    enum row_kind kind;
    int id; /* enum rh_stat or rh_histogram; -1: has no number of its own */
    const char *name;
    const char *label;
    const char *value;
    uint64_t (*ask)(void);
    const char *help;
};

static uint64_t one(void)
{
    return 1;
}

static const struct row rows[] = {
#define RH_STAT_ONE(id, kind, name, help)                {kind, RH_STAT_##id, name, NULL, NULL, NULL, help},
#define RH_STAT_FAMILY(kind, name, label, help)          {kind, -1, name, label, NULL, NULL, help},
#define RH_STAT_ROW(id, value)                           {VALUE, RH_STAT_##id, NULL, NULL, value, NULL, NULL},
#define RH_STAT_ASK(kind, name, label, value, ask, help) {kind, -1, name, label, value, ask, help},
#define RH_STAT_TIME(id, name, help)                     {TIME, RH_HIST_##id, name, NULL, NULL, NULL, help},
#include "core/stat.def"
};

void rh_stat_observe(struct rh_stats *stats, enum rh_histogram histogram, uint64_t ns)
{
    struct rh_stat_times *times = &stats->times[histogram];
    uint64_t whole = times->rest_ns + ns % 1000;
    size_t i = 0;
    uint64_t v;

    while (i < RH_COUNT(bounds) && ns > bounds[i].ns)
        i++;
    v = atomic_load_explicit(&times->bucket[i], memory_order_relaxed);
    atomic_store_explicit(&times->bucket[i], v + 1, memory_order_relaxed);
    times->rest_ns = whole % 1000;
    v = atomic_load_explicit(&times->sum_us, memory_order_relaxed);
    atomic_store_explicit(&times->sum_us, v + ns / 1000 + whole / 1000, memory_order_relaxed);
}

enum rh_stat rh_stat_disconnects(unsigned code)
{
    for (size_t i = 0; i < RH_COUNT(rows); i++)
        if (rows[i].kind == VALUE && rows[i].id >= RH_STAT_disconnects_1000 &&
            rows[i].id < RH_STAT_disconnects_other && strtoul(rows[i].value, NULL, 10) == code)
            return (enum rh_stat)rows[i].id;
    return RH_STAT_disconnects_other;
}

int64_t rh_stat_sum(struct rh_stats *const blocks[], unsigned n, enum rh_stat stat)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n; i++)
        sum += atomic_load_explicit(&blocks[i]->v[stat], memory_order_relaxed);
    return (int64_t)sum;
}

/* ---- the page ------------------------------------------------------------------------------- */

struct page {
    char *at;
    size_t len;
    size_t size;
    int rc; /* RH_ENOMEM once memory was gone; then nothing more is added */
};

static void page_grow(struct page *page)
{
    size_t size = page->size ? 2 * page->size : 16384;
    char *at = rh_mem_realloc(page->at, size);

    if (!at) {
        page->rc = RH_ENOMEM;
        return;
    }
    page->at = at;
    page->size = size;
}

__attribute__((format(printf, 2, 3))) static void page_add(struct page *page, const char *fmt, ...)
{
    char line[512];
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    rh_assert(len >= 0 && (size_t)len < sizeof(line)); /* the table's own texts and numbers */
    while (page->rc == 0 && page->len + (size_t)len > page->size)
        page_grow(page);
    if (page->rc < 0)
        return;
    memcpy(page->at + page->len, line, (size_t)len);
    page->len += (size_t)len;
}

static void page_add_times(struct page *page, const struct row *row,
                           struct rh_stats *const blocks[], unsigned n)
{
    uint64_t sum_us = 0;
    uint64_t count = 0;

    for (size_t k = 0; k < RH_STAT_BUCKETS; k++) {
        for (unsigned i = 0; i < n; i++)
            count +=
                atomic_load_explicit(&blocks[i]->times[row->id].bucket[k], memory_order_relaxed);
        page_add(page, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", row->name,
                 k < RH_COUNT(bounds) ? bounds[k].seconds : "+Inf", count);
    }
    for (unsigned i = 0; i < n; i++)
        sum_us += atomic_load_explicit(&blocks[i]->times[row->id].sum_us, memory_order_relaxed);
    page_add(page, "%s_sum %" PRIu64 ".%06" PRIu64 "\n", row->name, sum_us / 1000000,
             sum_us % 1000000);
    page_add(page, "%s_count %" PRIu64 "\n", row->name, count);
}

/* A counter may use all 64 bits; a gauge is signed. */
static void page_add_number(struct page *page, enum row_kind kind, uint64_t number)
{
    if (kind == GAUGE)
        page_add(page, " %" PRId64 "\n", (int64_t)number);
    else
        page_add(page, " %" PRIu64 "\n", number);
}

int rh_stat_render(struct rh_stats *const blocks[], unsigned n, char **ret_text, size_t *ret_len)
{
    static const char *const types[] = {
        [COUNTER] = "counter", [GAUGE] = "gauge", [TIME] = "histogram"};
    const struct row *family = &rows[0]; /* the table begins with one */
    struct page page = {.rc = 0};

    for (const struct row *row = rows; row < rows + RH_COUNT(rows); row++) {
        uint64_t number = row->ask ? row->ask() : 0;

        if (row->kind != VALUE) {
            family = row;
            page_add(&page, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
                     types[row->kind]);
        }
        if (row->kind == TIME) {
            page_add_times(&page, row, blocks, n);
            continue;
        }
        if (row->id < 0 && !row->ask)
            continue; /* the beginning of a family; its values follow */
        page_add(&page, "%s", family->name);
        if (row->value)
            page_add(&page, "{%s=\"%s\"}", family->label, row->value);
        if (row->id >= 0)
            number = (uint64_t)rh_stat_sum(blocks, n, (enum rh_stat)row->id);
        page_add_number(&page, family->kind, number);
    }
    if (page.rc < 0) {
        rh_mem_free(page.at);
        return page.rc;
    }
    *ret_text = page.at;
    *ret_len = page.len;
    return 0;
}
