/* shard/slot.c - the slots of a shard's table of direct descriptors, promised before they are used.
 *
 * Why this way: connections come into a table from two sides, by our accepts and from other shards, and
 * the kernel asks nobody when it fills a slot. A client that is accepted without one is lost, one
 * that cannot be handed over is not. So one count has both, and whoever adds to it looks first. A
 * slot is free in the kernel a little later than here, when the close that was queued is submitted:
 * before any accept that could need it, so that only a hand-over may find a slot missing.
 */
#include "shard/shard_int.h"

bool rh_slot_take_any(struct rh_shard *sh, uint32_t keep)
{
    uint32_t slots = atomic_load_explicit(&sh->slots, memory_order_relaxed);

    if (!sh->env->files)
        return true;
    do {
        if (slots + keep >= sh->env->files)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&sh->slots, &slots, slots + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void rh_slot_give_any(struct rh_shard *sh)
{
    if (sh->env->files)
        rh_assert(atomic_fetch_sub_explicit(&sh->slots, 1, memory_order_relaxed) > 0);
}
