/* shard/block.c - blocks of bytes; see block.h. */
#include "shard/block.h"

#include <string.h>

#include "core/mem.h"

#define SMALLEST 224 /* an unfinished frame header or control frame, and some */

static struct rh_block *block_new(size_t room)
{
    struct rh_block *block = rh_mem_alloc(sizeof(*block) + room);

    if (block)
        block->room = (uint32_t)room;
    return block;
}

struct rh_block *rh_block_take(struct rh_blocks *stock, size_t room)
{
    struct rh_block *block;

    rh_assert(room < UINT32_MAX - sizeof(*block));
    if (room <= SMALLEST) {
        block = block_new(SMALLEST);
    } else if (room > RH_BLOCK_ROOM) {
        block = block_new(room);
    } else if (stock->free) {
        block = stock->free;
        stock->free = block->next_free;
        stock->kept--;
        stock->spare = RH_MIN(stock->spare, stock->kept);
    } else {
        block = block_new(RH_BLOCK_ROOM);
    }
    if (!block)
        return NULL;
    block->next_free = NULL;
    block->start = 0;
    block->used = 0;
    return block;
}

void rh_block_give(struct rh_blocks *stock, struct rh_block *block)
{
    if (!block)
        return;
    if (block->room != RH_BLOCK_ROOM || stock->kept == RH_BLOCKS_KEPT) {
        rh_mem_free(block);
        return;
    }
    block->next_free = stock->free;
    stock->free = block;
    stock->kept++;
}

uint32_t rh_blocks_trim(struct rh_blocks *stock)
{
    uint32_t count = (stock->spare + 1) / 2;

    for (uint32_t i = 0; i < count; i++) {
        struct rh_block *block = stock->free;

        stock->free = block->next_free;
        rh_mem_free(block);
    }
    stock->kept -= count;
    stock->spare = stock->kept;
    return count;
}

/* Moves what counts to the front, over what was eaten. */
static void block_compact(struct rh_block *block)
{
    memmove(block->bytes, rh_block_at(block), rh_block_len(block));
    block->used -= block->start;
    block->start = 0;
}

static bool block_grow(struct rh_blocks *stock, struct rh_block **block, size_t len)
{
    struct rh_block *old = *block;
    size_t need = rh_block_len(old) + len;
    struct rh_block *grown;

    if (old && need <= old->room / 2) { /* paid for by the half at least that was eaten */
        block_compact(old);
        return true;
    }
    grown = rh_block_take(stock, old ? RH_MAX(need, 2 * (size_t)old->room) : need);
    if (!grown)
        return false;
    if (old) {
        memcpy(grown->bytes, rh_block_at(old), rh_block_len(old));
        grown->used = rh_block_len(old);
    }
    rh_block_give(stock, old);
    *block = grown;
    return true;
}

bool rh_block_append(struct rh_blocks *stock, struct rh_block **block, const void *bytes,
                     size_t len)
{
    if ((!*block || (*block)->room - (*block)->used < len) && !block_grow(stock, block, len))
        return false;
    memcpy((*block)->bytes + (*block)->used, bytes, len);
    (*block)->used += (uint32_t)len;
    return true;
}

void rh_blocks_fini(struct rh_blocks *stock)
{
    while (stock->free) {
        struct rh_block *block = stock->free;

        stock->free = block->next_free;
        rh_mem_free(block);
    }
    stock->kept = stock->spare = 0;
}
