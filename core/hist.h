/* core/hist.h - a histogram of durations that stays exact to 0.1 % from a nanosecond to an hour.
 *
 * Log-linear: up to 2,047 every value has a cell of its own, above that each doubling has 1,024
 * cells, so a cell is never wider than a 1,024th of its values (three significant digits).
 *
 * Threads    init, fini, clear, add: the owner. A histogram may be read (at, mean, next, and as the
 *            source of merge) by another thread while the owner adds: what it sees is then a
 *            picture that may lack the newest values, never a torn number.
 * Limits     values from RH_HIST_MAX on (73 minutes in ns) fall into the last cell; max stays exact.
 * Memory     RH_HIST_CELLS * 8 bytes (264 KiB) each.
 */
#ifndef RH_HIST_H
#define RH_HIST_H

#include "core/base.h"
#include "core/ringhub.h"

#define RH_HIST_FINE  1024 /* cells of a doubling */
#define RH_HIST_BITS  42   /* values below 2^42 */
#define RH_HIST_MAX   (UINT64_C(1) << RH_HIST_BITS)
#define RH_HIST_CELLS ((RH_HIST_BITS - 9) * RH_HIST_FINE)

/* Single writer: the owner; relaxed, since nothing else hangs on these numbers. */
struct rh_hist {
    _Atomic uint64_t *cells;
    _Atomic uint64_t count;
    _Atomic uint64_t sum;
    _Atomic uint64_t max;
};

/* Values from `low` to `high`, both included. */
struct rh_hist_cell {
    uint64_t low;
    uint64_t high;
    uint64_t count;
};

int rh_hist_init(struct rh_hist *h); /* RH_ENOMEM */
void rh_hist_fini(struct rh_hist *h);
void rh_hist_clear(struct rh_hist *h);

void rh_hist_add(struct rh_hist *h, uint64_t value);
void rh_hist_merge(struct rh_hist *dst, const struct rh_hist *src); /* dst += src */

/* The value that `share` (0 to 1) of all values do not exceed; 0 when there are none. Never above
 * the greatest value. */
uint64_t rh_hist_at(const struct rh_hist *h, double share);
double rh_hist_mean(const struct rh_hist *h);
uint64_t rh_hist_count(const struct rh_hist *h);
uint64_t rh_hist_max(const struct rh_hist *h);

/* Goes through the cells that are not empty, from small to large. `cursor` starts at 0. */
bool rh_hist_next(const struct rh_hist *h, uint32_t *cursor, struct rh_hist_cell *ret_cell);

#endif
