/* shard/block.h - bytes of one connection that are not a shared message: answers to send, pieces
 * of a message that is not complete, input that waits.
 *
 * Blocks of the standard size come from a shard's stock, which hands out the one that came back
 * last (its lines are still in the cache); other sizes come from the allocator. What a burst has left
 * in the stock and nobody needs goes back to the allocator bit by bit (rh_blocks_trim).
 *
 * Threads    the shard's. Ownership  one owner; no count.
 */
#ifndef RH_BLOCK_H
#define RH_BLOCK_H

#include "core/base.h"

#define RH_BLOCK_ROOM  4032 /* of a standard block: with its header it fills one page nearly */
#define RH_BLOCKS_KEPT 1024

struct rh_block {
    struct rh_block *next_free;
    uint32_t room;  /* bytes that fit */
    uint32_t start; /* the first byte that counts */
    uint32_t used;  /* end of what is filled; start <= used <= room */
    uint8_t bytes[];
};

struct rh_blocks {
    struct rh_block *free;
    uint32_t kept;
    uint32_t spare; /* the least that was kept at any time since the last trim */
};

/* An empty block of at least `room` bytes. NULL: no memory. */
struct rh_block *rh_block_take(struct rh_blocks *stock, size_t room);
void rh_block_give(struct rh_blocks *stock, struct rh_block *block); /* accepts NULL */
/* Frees half of the blocks that nobody needed since the last call; returns how many that were. */
uint32_t rh_blocks_trim(struct rh_blocks *stock);

/* Appends; where there is no room, over what was eaten in front (`start`), or into a block of at
 * least twice the size. *block may be NULL. It never has more than four times the room of what it
 * holds. False: no memory, nothing changed. */
bool rh_block_append(struct rh_blocks *stock, struct rh_block **block, const void *bytes,
                     size_t len);

static inline uint8_t *rh_block_at(struct rh_block *block)
{
    return block->bytes + block->start;
}

static inline uint32_t rh_block_len(const struct rh_block *block)
{
    return block ? block->used - block->start : 0;
}

void rh_blocks_fini(struct rh_blocks *stock);

#endif
