/* shard/dedup.c - ids that senders gave; the design is in dedup.h.
 *
 * Why this way: entries are found through a map that grows without a pause, and leave through a queue in
 * the order in which they were answered. Pending ones do not stand in the queue, so nothing evicts them.
 * One whose time is over may stand behind others with more time (the window was changed, or it came
 * from the journal): who looks for it takes it out of the map, and it is freed when its turn comes.
 *
 * Rejected    Open addressing, and a table that doubles: moving a million entries takes 50 ms.
 */
#include "shard/dedup.h"

#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "core/rand.h"

#define STEP_MS  64 /* 32 bits of them are eight years */
#define KEY_ROOM (1 + 3 * (1 + UINT8_MAX))

int rh_dedup_init(struct rh_dedup *d, uint64_t now_ms)
{
    rh_rand_bytes(d->keys, sizeof(d->keys));
    d->oldest = d->newest = NULL;
    d->began_ms = now_ms;
    return rh_map_init(&d->ids);
}

void rh_dedup_fini(struct rh_dedup *d)
{
    while (d->oldest) {
        struct rh_id *id = d->oldest;

        d->oldest = id->newer;
        rh_mem_free(id);
    }
    d->newest = NULL;
    rh_map_fini(&d->ids);
}

static uint8_t *put(uint8_t *at, struct rh_span part)
{
    rh_assert(part.len <= UINT8_MAX);
    *at++ = (uint8_t)part.len;
    if (part.len)
        memcpy(at, part.at, part.len);
    return at + part.len;
}

struct rh_id_key rh_dedup_key(const struct rh_dedup *d, enum rh_id_event event, struct rh_span from,
                              struct rh_span target, struct rh_span id)
{
    uint8_t text[KEY_ROOM] = {(uint8_t)event};
    size_t len = (size_t)(put(put(put(text + 1, from), target), id) - text);

    return (struct rh_id_key){{rh_hash(&d->keys[0], text, len), rh_hash(&d->keys[1], text, len)}};
}

/* ---- time ---- */

static uint32_t step_of(const struct rh_dedup *d, uint64_t until_ms)
{
    uint64_t ms = until_ms > d->began_ms ? until_ms - d->began_ms : 0;

    return (uint32_t)RH_MIN(RH_MAX((ms + STEP_MS - 1) / STEP_MS, 1), (uint64_t)UINT32_MAX);
}

static bool is_over(const struct rh_dedup *d, const struct rh_id *id, uint64_t now_ms)
{
    return !rh_id_is_pending(id) && d->began_ms + (uint64_t)id->until * STEP_MS <= now_ms;
}

/* ---- one entry ---- */

static struct rh_id *id_of(struct rh_map_node *node)
{
    return node ? rh_container_of(node, struct rh_id, node) : NULL;
}

struct rh_id *rh_dedup_find(struct rh_dedup *d, const struct rh_id_key *key, uint64_t now_ms)
{
    struct rh_map_node *node = rh_map_first(&d->ids, key->h[0]);

    while (node && id_of(node)->second != key->h[1])
        node = rh_map_again(node);
    if (!node || !is_over(d, id_of(node), now_ms))
        return id_of(node);
    rh_map_del(&d->ids, node);
    id_of(node)->forgotten = true;
    return NULL;
}

struct rh_id *rh_dedup_add(struct rh_dedup *d, const struct rh_id_key *key,
                           struct rh_promise *promise)
{
    struct rh_id *id = rh_mem_alloc(sizeof(*id));

    if (!id)
        return NULL;
    memset(id, 0, sizeof(*id));
    id->second = key->h[1];
    id->promise = promise;
    rh_map_add(&d->ids, &id->node, key->h[0]);
    return id;
}

void rh_dedup_keep(struct rh_dedup *d, struct rh_id *id, const struct rh_id_outcome *outcome,
                   uint64_t until_ms)
{
    rh_assert(rh_id_is_pending(id));
    id->seq = outcome->seq;
    id->stored = outcome->stored;
    id->partial = outcome->partial;
    id->forgotten = false;
    id->recipients = outcome->recipients;
    id->until = step_of(d, until_ms);
    id->newer = NULL;
    if (d->newest)
        d->newest->newer = id;
    else
        d->oldest = id;
    d->newest = id;
}

void rh_dedup_drop(struct rh_dedup *d, struct rh_id *id)
{
    rh_assert(rh_id_is_pending(id));
    rh_map_del(&d->ids, &id->node);
    rh_mem_free(id);
}

/* ---- the oldest ---- */

uint32_t rh_dedup_trim(struct rh_dedup *d, uint64_t now_ms, size_t max, uint32_t budget)
{
    uint32_t evicted = 0;

    for (; budget && d->oldest; budget--) {
        struct rh_id *id = d->oldest;
        bool over = id->forgotten || is_over(d, id, now_ms);

        if (!over && rh_map_count(&d->ids) <= max)
            break;
        evicted += !over;
        d->oldest = id->newer;
        if (!d->oldest)
            d->newest = NULL;
        if (!id->forgotten)
            rh_map_del(&d->ids, &id->node);
        rh_mem_free(id);
    }
    return evicted;
}

size_t rh_dedup_count(const struct rh_dedup *d)
{
    return rh_map_count(&d->ids);
}
