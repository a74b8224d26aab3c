/* core/hash.h - SipHash-1-3: from a name that a client chose to 64 bits that it cannot foresee.
 *
 * The high half of a hash chooses the shard, the low bits choose the bucket in that shard's tables
 * (core/map.h). With the same bits for both, all keys of a shard would share their low bits.
 *
 * Threads    all functions: any; a key is drawn once, before the threads start, and then only read.
 * Bounds     any length, about 1 ns for 8 bytes on top of some 10 ns.
 * Stored     never: a hash is worth nothing outside the run that drew its key.
 */
#ifndef RH_HASH_H
#define RH_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Secret of one run: fill it with rh_rand_bytes(). */
struct rh_hash_key {
    uint64_t k0;
    uint64_t k1;
};

/* The hash of `len` bytes; `at` may be NULL when len is 0. The same on every kind of machine. */
uint64_t rh_hash(const struct rh_hash_key *key, const void *at, size_t len);

/* 0 to shards - 1, in even parts of the high half. */
static inline unsigned rh_hash_shard(uint64_t hash, unsigned shards)
{
    return (unsigned)(((hash >> 32) * shards) >> 32);
}

#endif
