/* core/limit.c - shared counters by compare-and-swap, token buckets in one word.
 *
 * Why this way: a connect and its end touch a handful of atomics, which is nothing beside a
 * handshake; leases per shard would be cheaper still, but refuse while another shard holds spare
 * ones. A compare-and-swap instead of add-and-undo: the latter is above the limit for a
 * moment, and another thread that looks just then is refused for nothing.
 *
 * A token bucket is the generic cell rate algorithm: the word is the time at which all that was
 * let through would have left a queue that is served at the rate ("theoretical arrival time"). It
 * is counted in ticks of 1/16,384 of an interval, so that an interval is a whole number of them
 * whatever the rate: nothing is rounded from one to the next. Only the clock's time is rounded,
 * downwards, when it is turned into ticks.
 *
 *     lead = tat - now       (0 if that is past)        let through: lead <= (burst - 1) intervals
 *     tat  = now + lead + 1 interval
 *
 * Another rate means other ticks, and a word that may lie far ahead. No clock is a second behind
 * another, so a lead of more than the burst and a second is such a word, and counts as none.
 *
 * Threads     Everything shared is one word each and tells nothing about other memory, so all
 *             atomics are relaxed; a connection's own state crosses threads by other ways.
 * Invariants  (1) Every counter is the number of takes without their give.
 *             (2) After a take with max > 0 the counter is at most max.
 * Limits      Ticks fit 64 bits for 35 years of clock at RH_RATE_MAX.
 * Rejected    A table of addresses that grows: who has many addresses would choose its size. A
 *             16-byte state (tokens and time): no lock-free word on every machine. Intervals in
 *             nanoseconds: at 300,000 a second they would be 0.01 % off.
 */
#include "core/limit.h"

#include <netinet/in.h>
#include <string.h>

#include "core/hash.h"
#include "core/mem.h"
#include "core/rand.h"
#include "core/uring.h"

#define SECOND   UINT64_C(1000000000)
#define INTERVAL UINT64_C(16384) /* ticks */

_Static_assert(SECOND <= UINT64_MAX / RH_RATE_MAX / INTERVAL, "ticks of a part of a second fit");

struct rh_limits {
    /* Fixed before start. */
    struct rh_hash_key key;

    /* Shared: every shard changes and reads them, relaxed. */
    alignas(RH_CACHE_LINE) _Atomic uint32_t conns;
    alignas(RH_CACHE_LINE) _Atomic uint32_t handshakes;
    alignas(RH_CACHE_LINE) _Atomic uint32_t address_conns[RH_LIMIT_BUCKETS];
    _Atomic uint64_t address_tat[RH_LIMIT_BUCKETS];
};

int rh_limit_create(struct rh_limits **ret_limits)
{
    struct rh_limits *l = rh_mem_zalloc_aligned(sizeof(*l));

    if (!l)
        return RH_ENOMEM;
    rh_rand_bytes(&l->key, sizeof(l->key));
    *ret_limits = l;
    return RH_OK;
}

void rh_limit_destroy(struct rh_limits *l)
{
    rh_mem_free(l);
}

/* ---- counts --------------------------------------------------------------------------------- */

static bool take(_Atomic uint32_t *counter, uint32_t max)
{
    uint32_t count = atomic_load_explicit(counter, memory_order_relaxed);

    do {
        if (max > 0 && count >= max)
            return false;
        rh_assert(count < UINT32_MAX);
    } while (!atomic_compare_exchange_weak_explicit(counter, &count, count + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void give(_Atomic uint32_t *counter)
{
    rh_assert(atomic_fetch_sub_explicit(counter, 1, memory_order_relaxed) > 0);
}

uint32_t rh_limit_bucket(const struct rh_limits *l, const struct rh_addr *addr)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr->at;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr->at;
    const void *at = &v4->sin_addr;
    size_t len = 4;

    if (addr->at.ss_family == AF_INET6) {
        bool mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);

        at = v6->sin6_addr.s6_addr + (mapped ? 12 : 0);
        len = mapped ? 4 : 8;
    } else if (addr->at.ss_family != AF_INET) {
        len = 0; /* nothing tells them apart */
    }
    return (uint32_t)(rh_hash(&l->key, at, len) % RH_LIMIT_BUCKETS);
}

bool rh_limit_take_address_any(struct rh_limits *l, uint32_t bucket, uint32_t max)
{
    rh_assert(bucket < RH_LIMIT_BUCKETS);
    return take(&l->address_conns[bucket], max);
}

void rh_limit_give_address_any(struct rh_limits *l, uint32_t bucket)
{
    rh_assert(bucket < RH_LIMIT_BUCKETS);
    give(&l->address_conns[bucket]);
}

bool rh_limit_take_conn_any(struct rh_limits *l, uint32_t max)
{
    return take(&l->conns, max);
}

void rh_limit_give_conn_any(struct rh_limits *l)
{
    give(&l->conns);
}

uint32_t rh_limit_conns_any(const struct rh_limits *l)
{
    return atomic_load_explicit(&l->conns, memory_order_relaxed);
}

bool rh_limit_take_handshake_any(struct rh_limits *l, uint32_t max)
{
    return take(&l->handshakes, max);
}

void rh_limit_give_handshake_any(struct rh_limits *l)
{
    give(&l->handshakes);
}

uint32_t rh_limit_handshakes_any(const struct rh_limits *l)
{
    return atomic_load_explicit(&l->handshakes, memory_order_relaxed);
}

/* ---- rates ---------------------------------------------------------------------------------- */

/* The clock's time in ticks of that rate, rounded down. */
static uint64_t ticks(uint64_t now_ns, uint32_t per_second)
{
    uint64_t a_second = per_second * INTERVAL;

    return now_ns / SECOND * a_second + now_ns % SECOND * a_second / SECOND;
}

/* Lets one through: *tat is moved. Or refuses: false. */
static bool pass(uint64_t *tat, uint64_t now, uint32_t per_second, uint32_t burst)
{
    uint64_t lead = *tat > now ? *tat - now : 0;

    if (lead > (burst + (uint64_t)per_second) * INTERVAL)
        lead = 0; /* of another rate */
    if (lead > (burst - 1) * INTERVAL)
        return false;
    *tat = now + lead + INTERVAL;
    return true;
}

bool rh_rate_take(uint64_t *tat, uint64_t now_ns, uint32_t per_second, uint32_t burst)
{
    rh_assert(per_second <= RH_RATE_MAX && burst <= RH_RATE_MAX);
    if (per_second == 0)
        return true;
    return pass(tat, ticks(now_ns, per_second), per_second, burst ? burst : per_second);
}

bool rh_limit_rate_any(_Atomic uint64_t *tat, uint64_t now_ns, uint32_t per_second, uint32_t burst)
{
    uint64_t old = atomic_load_explicit(tat, memory_order_relaxed);
    uint64_t moved;

    do {
        moved = old;
        if (!rh_rate_take(&moved, now_ns, per_second, burst))
            return false;
    } while (per_second > 0 && !atomic_compare_exchange_weak_explicit(
                                   tat, &old, moved, memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool rh_limit_rate_address_any(struct rh_limits *l, uint32_t bucket, uint64_t now_ns,
                               uint32_t per_second)
{
    rh_assert(bucket < RH_LIMIT_BUCKETS);
    return rh_limit_rate_any(&l->address_tat[bucket], now_ns, per_second, 0);
}
