/* core/limit.h - counters and budgets that all shards of a hub share.
 *
 * The one exception to "nothing shared": with SO_REUSEPORT each shard sees a part of an address's
 * connections only, and of those of the hub. A count is taken and given back:
 *
 *     uint32_t bucket = rh_limit_bucket(l, &addr);
 *     if (!rh_limit_take_address_any(l, bucket, cfg->limits_connections_per_address))
 *         refuse with 429;
 *     ...
 *     rh_limit_give_address_any(l, bucket);     when the connection ends
 *
 * A `max` of 0 is no limit, but counts, so that a limit that is set later finds the true number.
 * It may differ from call to call; what is above a new one stays.
 *
 * Threads    what ends in _any, and rh_limit_bucket: any. rh_rate_take: who owns the word. Create
 *            and destroy: while no other thread uses it.
 * Exactness  a count is never above its `max`, and a take is refused only at a moment at which the
 *            count has reached it. Every take that succeeded is given back exactly once.
 * Addresses  have RH_LIMIT_BUCKETS counters, chosen by a hash with a secret key of the run. Those
 *            that collide count together: of 1,000 addresses each has another one in its bucket
 *            with 1.5 %. An IPv4 address counts as a whole, also when it is mapped into
 *            IPv6; of an IPv6 address the first 64 bits, since who has one has all behind them.
 * Memory     about 770 KB, of which only what is used becomes real.
 */
#ifndef RH_LIMIT_H
#define RH_LIMIT_H

#include "core/base.h"
#include "core/ringhub.h"

#define RH_LIMIT_BUCKETS 65536

/* Of the rates below, and of their bursts. */
#define RH_RATE_MAX 1000000

struct rh_addr; /* core/uring.h */
struct rh_limits;

int rh_limit_create(struct rh_limits **ret_limits); /* RH_ENOMEM */
void rh_limit_destroy(struct rh_limits *l);         /* accepts NULL */

/* ---- counts --------------------------------------------------------------------------------- */

/* Connections of one address. */
uint32_t rh_limit_bucket(const struct rh_limits *l, const struct rh_addr *addr);
bool rh_limit_take_address_any(struct rh_limits *l, uint32_t bucket, uint32_t max);
void rh_limit_give_address_any(struct rh_limits *l, uint32_t bucket);

/* Connections of the hub. */
bool rh_limit_take_conn_any(struct rh_limits *l, uint32_t max);
void rh_limit_give_conn_any(struct rh_limits *l);
uint32_t rh_limit_conns_any(const struct rh_limits *l); /* a snapshot */

/* Handshakes in progress. */
bool rh_limit_take_handshake_any(struct rh_limits *l, uint32_t max);
void rh_limit_give_handshake_any(struct rh_limits *l);
uint32_t rh_limit_handshakes_any(const struct rh_limits *l); /* a snapshot */

/* ---- rates ---------------------------------------------------------------------------------- */

/* A bucket of `burst` tokens, which fills at `per_second`: true took one. The word `tat` is all of
 * its state; 0 is a full bucket. per_second 0: always true; burst 0: as many as per_second. Both at
 * most RH_RATE_MAX.
 *
 * A full bucket lets `burst` through at once, and then the k-th further one not before k /
 * per_second seconds have passed since: errors do not add up, the whole is at most 1/16,384 of such
 * an interval early. What is refused takes nothing. When per_second or burst changed the bucket
 * may be full once more, or refuse for a second too long. */
bool rh_rate_take(uint64_t *tat, uint64_t now_ns, uint32_t per_second, uint32_t burst);

/* The same for a word that threads share. Their clocks (each reads its own pass's time) may differ
 * by less than a second. */
bool rh_limit_rate_any(_Atomic uint64_t *tat, uint64_t now_ns, uint32_t per_second, uint32_t burst);

/* Handshakes a second of one address. */
bool rh_limit_rate_address_any(struct rh_limits *l, uint32_t bucket, uint64_t now_ns,
                               uint32_t per_second);

#endif
