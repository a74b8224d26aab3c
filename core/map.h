/* core/map.h - a hash table that grows without a pause.
 *
 * Linear hashing: the table grows and shrinks by one bucket at a time, with the operations that
 * need it, so that no single add or del pays for all the others. Nodes are the caller's, inside its
 * own structs (rh_container_of); the table knows their hashes, the caller compares the keys:
 *
 *     for (n = rh_map_first(m, hash); n; n = rh_map_again(n))
 *         if (names_equal(rh_container_of(n, struct user, in_map), name))
 *             return ...;
 *
 * The low bits of the hash choose the bucket (the high ones chose the shard, core/hash.h).
 *
 * Threads    the owner only; first, again and count may run at the same time among themselves.
 * Ownership  nodes stay the caller's: a node must not move or change while it is in a map.
 * Errors     only init can fail. Without memory for growth chains get longer; growth is tried
 *            again after some more adds.
 * Bounds     8 bytes a bucket, 1 to 4 buckets a node, at least 128 bytes a map. One operation
 *            allocates at most 8 KiB, or copies the directory: 8 bytes per 1,024 buckets.
 */
#ifndef RH_MAP_H
#define RH_MAP_H

#include <stddef.h>
#include <stdint.h>

struct rh_map_node {
    struct rh_map_node *next;
    uint64_t hash;
};

/* The body is here because maps live inside other structs. It may be moved as a whole. */
struct rh_map {
    struct rh_map_node ***dir; /* segments, each an array of chains */
    size_t dir_slots;          /* how many segments dir has room for */
    size_t room;               /* buckets that there is memory for */
    size_t buckets;            /* buckets in use; the split goes on at this one */
    size_t mask;               /* the smallest 2^k - 1 that covers `buckets` */
    size_t count;              /* nodes */
    uint32_t grow_wait;        /* adds before growth is tried again, after it failed */
    uint32_t visiting;         /* depth of rh_map_each: buckets stay as they are */
};

/* RH_ENOMEM: *m is zeroed. */
int rh_map_init(struct rh_map *m);

/* Frees the table, not the nodes; those that are still in it are simply forgotten. Accepts zeroed
 * memory and leaves it so. */
void rh_map_fini(struct rh_map *m);

/* Never fails. Equal hashes may stand in it any number of times; the newest is found first as long
 * as buckets do not move, so do not build on it. */
void rh_map_add(struct rh_map *m, struct rh_map_node *node, uint64_t hash);

/* `node` must be in this map: anything else is an assertion. */
void rh_map_del(struct rh_map *m, struct rh_map_node *node);

/* A node with this hash, all 64 bits, or NULL; then the next one with the same. Both are lent
 * until the next add or del. */
struct rh_map_node *rh_map_first(const struct rh_map *m, uint64_t hash);
struct rh_map_node *rh_map_again(const struct rh_map_node *node);

/* Visits every node, in no order. The visitor may del the node that it was given (and free it), no
 * other; it may add, and what it added may or may not be visited. Takes as long as the map is
 * large. */
void rh_map_each(struct rh_map *m, void (*visit)(void *arg, struct rh_map_node *node), void *arg);

/* How many nodes are in it. */
size_t rh_map_count(const struct rh_map *m);

#endif
