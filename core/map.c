/* core/map.c - linear hashing over a directory of segments.
 *
 * Why this way: a table that doubles at once stops its thread for as long as moving everything
 * takes: tens of ms at a million users, in the middle of a reconnect storm. Here bucket b of n is
 * split into b and n when there are more nodes than buckets, then n + 1 is next, and so on:
 *
 *     buckets   0 1 2 3 | 4 5          6 in use, mask 7: a hash whose low 3 bits say 6 or 7 still
 *                   ^ next to split    lives in bucket 2 or 3 (one bit less)
 *
 * Memory      Buckets live in segments of SEGMENT, which never move; only the first one is small
 *             in a small map and is moved (8 KiB at most) until it has full size. A new bucket is
 *             written by its split, so segments need no zeroing.
 * Invariants  (1) A node is in bucket_of(hash): its chain is the only place to look.
 *             (2) mask >> 1 < buckets <= mask + 1, buckets <= room.
 *             (3) Growth begins above 1 node per bucket, shrinking below 1 per SPARSE: between
 *                 the two, adding and deleting in turn moves nothing.
 * Rejected    Open addressing with an old and a new table side by side: faster to read, but the
 *             new table must be zeroed at once, and nodes would need a pointer each in any case.
 */
#include "core/map.h"

#include "core/base.h"
#include "core/mem.h"
#include "core/ringhub.h"

#define SEGMENT       1024 /* buckets */
#define BUCKETS_MIN   8
#define DIR_SLOTS_MIN 8
#define SPARSE        4   /* buckets per node at which shrinking begins */
#define SPLITS_AN_ADD 2   /* one keeps pace, the second makes up for growth that failed */
#define GROW_WAIT     256 /* adds */

static struct rh_map_node **bucket_at(const struct rh_map *m, size_t bucket)
{
    return &m->dir[bucket / SEGMENT][bucket % SEGMENT];
}

static size_t bucket_of(const struct rh_map *m, uint64_t hash)
{
    size_t bucket = hash & m->mask;

    return bucket < m->buckets ? bucket : bucket & (m->mask >> 1);
}

int rh_map_init(struct rh_map *m)
{
    int rc = RH_ENOMEM;

    *m = (struct rh_map){0};
    m->dir = rh_mem_zalloc(DIR_SLOTS_MIN * sizeof(*m->dir));
    if (!m->dir)
        goto out;
    m->dir_slots = DIR_SLOTS_MIN;

    m->dir[0] = rh_mem_zalloc(BUCKETS_MIN * sizeof(*m->dir[0]));
    if (!m->dir[0])
        goto out;
    m->room = BUCKETS_MIN;
    m->buckets = BUCKETS_MIN;
    m->mask = BUCKETS_MIN - 1;
    rc = 0;
out:
    if (rc < 0)
        rh_map_fini(m);
    return rc;
}

void rh_map_fini(struct rh_map *m)
{
    rh_assert(m->visiting == 0 && (m->dir || m->room == 0));
    for (size_t i = 0; i * SEGMENT < m->room; i++)
        rh_mem_free(m->dir[i]);
    rh_mem_free(m->dir);
    *m = (struct rh_map){0};
}

/* ---- growing ------------------------------------------------------------------------------- */

static int segment_resize(struct rh_map *m, size_t index, size_t buckets)
{
    struct rh_map_node **mem = rh_mem_realloc(m->dir[index], buckets * sizeof(*mem));

    if (!mem)
        return RH_ENOMEM;
    m->dir[index] = mem;
    return 0;
}

static int dir_resize(struct rh_map *m, size_t slots)
{
    struct rh_map_node ***mem = rh_mem_realloc(m->dir, slots * sizeof(*mem));

    if (!mem)
        return RH_ENOMEM;
    m->dir = mem;
    m->dir_slots = slots;
    return 0;
}

/* Sees to memory for one bucket more than there are. */
static int make_room(struct rh_map *m)
{
    size_t segments = m->room / SEGMENT; /* whole ones */

    if (m->buckets < m->room)
        return 0;
    if (segments == 0) {
        if (segment_resize(m, 0, 2 * m->room) < 0)
            return RH_ENOMEM;
        m->room *= 2;
        return 0;
    }
    if (segments == m->dir_slots && dir_resize(m, 2 * m->dir_slots) < 0)
        return RH_ENOMEM;
    m->dir[segments] = NULL;
    if (segment_resize(m, segments, SEGMENT) < 0)
        return RH_ENOMEM;
    m->room += SEGMENT;
    return 0;
}

/* One bucket more: it takes its nodes from the bucket that had them so far. */
static void split(struct rh_map *m)
{
    struct rh_map_node **from;
    struct rh_map_node **to;
    size_t born = m->buckets;

    if (born > m->mask)
        m->mask = 2 * m->mask + 1;
    from = bucket_at(m, born & (m->mask >> 1));
    to = bucket_at(m, born);
    m->buckets++;
    while (*from) {
        struct rh_map_node *node = *from;

        if ((node->hash & m->mask) == born) {
            *from = node->next;
            *to = node;
            to = &node->next;
        } else {
            from = &node->next;
        }
    }
    *to = NULL;
}

static void grow(struct rh_map *m)
{
    if (m->grow_wait) {
        m->grow_wait--;
        return;
    }
    for (int i = 0; i < SPLITS_AN_ADD && m->count > m->buckets; i++) {
        if (make_room(m) < 0) {
            m->grow_wait = GROW_WAIT;
            return;
        }
        split(m);
    }
}

/* ---- shrinking ----------------------------------------------------------------------------- */

/* Gives memory back; where a smaller piece cannot be had, the larger one stays. */
static void drop_room(struct rh_map *m)
{
    size_t segments = m->room / SEGMENT;

    if (segments > 1) {
        if (m->buckets <= m->room - SEGMENT) {
            rh_mem_free(m->dir[segments - 1]);
            m->room -= SEGMENT;
            segments--;
        }
        if (m->dir_slots > DIR_SLOTS_MIN && segments <= m->dir_slots / 4)
            (void)dir_resize(m, m->dir_slots / 2);
    } else if (m->room > BUCKETS_MIN && m->buckets <= m->room / 4) {
        if (segment_resize(m, 0, m->room / 2) == 0)
            m->room /= 2;
    }
}

/* One bucket less: the reverse of split. */
static void merge(struct rh_map *m)
{
    size_t gone = m->buckets - 1;
    struct rh_map_node **into = bucket_at(m, gone & (m->mask >> 1));
    struct rh_map_node *chain = *bucket_at(m, gone);

    while (chain) {
        struct rh_map_node *node = chain;

        chain = node->next;
        node->next = *into;
        *into = node;
    }
    m->buckets--;
    if (m->buckets == (m->mask >> 1) + 1)
        m->mask >>= 1;
    drop_room(m);
}

static bool too_sparse(const struct rh_map *m)
{
    return m->buckets > BUCKETS_MIN && m->count < m->buckets / SPARSE;
}

/* ---- daily --------------------------------------------------------------------------------- */

void rh_map_add(struct rh_map *m, struct rh_map_node *node, uint64_t hash)
{
    struct rh_map_node **bucket = bucket_at(m, bucket_of(m, hash));

    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    m->count++;
    if (m->count > m->buckets && !m->visiting)
        grow(m);
}

void rh_map_del(struct rh_map *m, struct rh_map_node *node)
{
    struct rh_map_node **at = bucket_at(m, bucket_of(m, node->hash));

    while (*at && *at != node)
        at = &(*at)->next;
    rh_assert(*at == node);
    *at = node->next;
    node->next = NULL;
    m->count--;
    /* A node less makes room for SPARSE buckets less: so many keep pace. */
    for (int i = 0; i < SPARSE && !m->visiting && too_sparse(m); i++)
        merge(m);
}

static struct rh_map_node *same_hash(struct rh_map_node *node, uint64_t hash)
{
    while (node && node->hash != hash)
        node = node->next;
    return node;
}

struct rh_map_node *rh_map_first(const struct rh_map *m, uint64_t hash)
{
    return same_hash(*bucket_at(m, bucket_of(m, hash)), hash);
}

struct rh_map_node *rh_map_again(const struct rh_map_node *node)
{
    return same_hash(node->next, node->hash);
}

void rh_map_each(struct rh_map *m, void (*visit)(void *arg, struct rh_map_node *node), void *arg)
{
    m->visiting++;
    for (size_t i = 0; i < m->buckets; i++) {
        struct rh_map_node *node = *bucket_at(m, i);

        while (node) {
            struct rh_map_node *next = node->next;

            visit(arg, node);
            node = next;
        }
    }
    m->visiting--;
    /* What the visitor deleted did not shrink the table, so it is done here. */
    while (!m->visiting && too_sparse(m))
        merge(m);
}

size_t rh_map_count(const struct rh_map *m)
{
    return m->count;
}
