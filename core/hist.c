/* core/hist.c - log-linear counting: a shift and an addition per value.
 *
 * Why this way: a value keeps its eleven leading bits; the number of bits that fell off picks the
 * doubling. So cell(v) = shift * 1024 + (v >> shift), without a branch on the size of v but one,
 * and the cells of all doublings follow each other without gaps.
 *
 * Rejected   A sorted list of samples: exact, but its memory grows with the rate.
 */
#include "core/hist.h"

#include "core/mem.h"

#define FINE_BITS 10

_Static_assert(RH_HIST_FINE == 1 << FINE_BITS, "a doubling's cells are its leading bits");
_Static_assert(RH_HIST_CELLS == (RH_HIST_BITS - FINE_BITS - 1) * RH_HIST_FINE + 2 * RH_HIST_FINE,
               "the first doubling brings the values below it along");

static uint64_t load(const _Atomic uint64_t *from)
{
    return atomic_load_explicit(from, memory_order_relaxed);
}

static void bump(_Atomic uint64_t *at, uint64_t by)
{
    atomic_store_explicit(at, load(at) + by, memory_order_relaxed); /* one writer: no lock prefix */
}

static uint32_t cell_of(uint64_t value)
{
    unsigned top, shift;

    if (value >= RH_HIST_MAX)
        return RH_HIST_CELLS - 1;
    top = 63 - (unsigned)__builtin_clzll(value | 1);
    shift = top > FINE_BITS ? top - FINE_BITS : 0;
    return shift * RH_HIST_FINE + (uint32_t)(value >> shift);
}

static void bounds(uint32_t cell, struct rh_hist_cell *ret_cell)
{
    unsigned shift = cell < 2 * RH_HIST_FINE ? 0 : cell / RH_HIST_FINE - 1;

    ret_cell->low = (uint64_t)(cell - shift * RH_HIST_FINE) << shift;
    ret_cell->high = ret_cell->low + (UINT64_C(1) << shift) - 1;
}

int rh_hist_init(struct rh_hist *h)
{
    h->cells = rh_mem_zalloc(RH_HIST_CELLS * sizeof(*h->cells));
    h->count = 0;
    h->sum = 0;
    h->max = 0;
    return h->cells ? RH_OK : RH_ENOMEM;
}

void rh_hist_fini(struct rh_hist *h)
{
    rh_mem_free((void *)h->cells);
    h->cells = NULL;
}

void rh_hist_clear(struct rh_hist *h)
{
    for (uint32_t i = 0; i < RH_HIST_CELLS; i++)
        atomic_store_explicit(&h->cells[i], 0, memory_order_relaxed);
    atomic_store_explicit(&h->count, 0, memory_order_relaxed);
    atomic_store_explicit(&h->sum, 0, memory_order_relaxed);
    atomic_store_explicit(&h->max, 0, memory_order_relaxed);
}

void rh_hist_add(struct rh_hist *h, uint64_t value)
{
    bump(&h->cells[cell_of(value)], 1);
    bump(&h->count, 1);
    bump(&h->sum, value);
    if (value > load(&h->max))
        atomic_store_explicit(&h->max, value, memory_order_relaxed);
}

void rh_hist_merge(struct rh_hist *dst, const struct rh_hist *src)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < RH_HIST_CELLS; i++) {
        uint64_t n = load(&src->cells[i]);

        if (n)
            bump(&dst->cells[i], n);
        count += n;
    }
    bump(&dst->count, count); /* what the cells hold, so that shares add up even while src grows */
    bump(&dst->sum, load(&src->sum));
    if (load(&src->max) > load(&dst->max))
        atomic_store_explicit(&dst->max, load(&src->max), memory_order_relaxed);
}

uint64_t rh_hist_at(const struct rh_hist *h, double share)
{
    uint64_t total = load(&h->count), max = load(&h->max), seen = 0;
    double exact = share * (double)total;
    uint64_t want = (uint64_t)exact;
    struct rh_hist_cell cell;
    uint32_t cursor = 0;

    if ((double)want < exact || want == 0)
        want++; /* rounded up; the smallest value is the first one */
    while (rh_hist_next(h, &cursor, &cell)) {
        seen += cell.count;
        if (seen >= want)
            return cursor == RH_HIST_CELLS ? max : RH_MIN(cell.high, max);
    }
    return max;
}

double rh_hist_mean(const struct rh_hist *h)
{
    uint64_t count = load(&h->count);

    return count ? (double)load(&h->sum) / (double)count : 0;
}

uint64_t rh_hist_count(const struct rh_hist *h)
{
    return load(&h->count);
}

uint64_t rh_hist_max(const struct rh_hist *h)
{
    return load(&h->max);
}

bool rh_hist_next(const struct rh_hist *h, uint32_t *cursor, struct rh_hist_cell *ret_cell)
{
    while (*cursor < RH_HIST_CELLS) {
        uint32_t cell = (*cursor)++;
        uint64_t count = load(&h->cells[cell]);

        if (!count)
            continue;
        bounds(cell, ret_cell);
        ret_cell->count = count;
        return true;
    }
    return false;
}
