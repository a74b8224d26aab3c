/* core/ring.c - the one home of Concurrency Kit's ring.
 *
 * Why this way: CK's ring is two counters that only one side each writes, on cache lines of their
 * own, and the discipline of fences between them and the cells. Its ready-made enqueue copies an
 * entry in and publishes each one, and the line with the tail then travels between the cores for
 * every event (25 to 50 ns). So we take CK's struct and primitives, and keep for each side
 *
 *     producer   tail: next cell to fill        head_seen: c_head when it was last looked at
 *     consumer   head: next cell to read        tail_seen: p_tail when it was last looked at
 *
 * in lines of its own. The shared counters are written once per batch and read only when what was
 * seen last no longer suffices: a batch of 32 costs the transfer of its cells and of two lines.
 *
 *         c_head <= head <= tail_seen <= p_tail <= tail         (counters run freely, modulo 2^32)
 *           released  dropped             published  committed
 *
 * Threads     As in the header; each field below names its side.
 * Invariants  (1) tail - c_head <= slots - 1: a cell is never filled before its space came back.
 *             (2) cells from p_tail on are the producer's, those from c_head to p_tail the
 *                 consumer's; the two releasing stores are the only hand-overs.
 * Ordering    publish: cells, release fence, p_tail; peek: p_tail, acquire fence, cells.
 *             release: reads of cells, release fence, c_head; reserve: c_head, acquire fence, cells.
 *             On x86 these fences only hold back the compiler; CK has the right ones elsewhere.
 * TSan        CK's primitives are inline assembly, which ThreadSanitizer does not see: neither a
 *             race on the counters nor the order that they make. So each hand-over is announced
 *             with __tsan_release and __tsan_acquire on its counter; nothing is suppressed, and
 *             what runs under TSan is the code that is shipped.
 * Rejected    ck_ring_enqueue_spsc of 32-byte values (115 to 153 ns), of pointers (22 to 55 ns).
 *             A body in the header for inlining: a call costs about 1 ns of the 15 allowed, and CK
 *             would be everybody's include.
 */
#include "core/ring.h"

#include <ck_pr.h>
#include <ck_ring.h>

#if defined(__SANITIZE_THREAD__)
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define TSAN_ACQUIRE(addr) __tsan_acquire((void *)(addr))
#define TSAN_RELEASE(addr) __tsan_release((void *)(addr))
#else
#define TSAN_ACQUIRE(addr) ((void)0)
#define TSAN_RELEASE(addr) ((void)0)
#endif

struct rh_ring {
    /* Shared. c_head: the consumer writes, the producer reads. p_tail: the other way round. */
    struct ck_ring ck;

    /* The producer's. */
    alignas(RH_CACHE_LINE) uint32_t tail;
    uint32_t head_seen;
    uint32_t published; /* our own copy of p_tail */
    uint32_t p_mask;

    /* The consumer's. */
    alignas(RH_CACHE_LINE) uint32_t head;
    uint32_t tail_seen;
    uint32_t released; /* our own copy of c_head */
    uint32_t c_mask;

    alignas(RH_CACHE_LINE) struct rh_event cells[];
};

size_t rh_ring_bytes(uint32_t slots)
{
    return sizeof(struct rh_ring) + slots * sizeof(struct rh_event);
}

struct rh_ring *rh_ring_init(void *mem, uint32_t slots)
{
    struct rh_ring *ring = mem;

    rh_assert(slots >= 4 && (slots & (slots - 1)) == 0);
    rh_assert((uintptr_t)mem % RH_CACHE_LINE == 0);
    ck_ring_init(&ring->ck, slots);
    ring->p_mask = slots - 1;
    ring->c_mask = slots - 1;
    return ring;
}

/* Looks at the consumer's counter again. Returns false when the ring is full all the same. */
static bool see_head(struct rh_ring *ring)
{
    ring->head_seen = ck_pr_load_uint(&ring->ck.c_head);
    TSAN_ACQUIRE(&ring->ck.c_head); /* pairs with release_space */
    ck_pr_fence_acquire();
    return ring->tail - ring->head_seen < ring->p_mask;
}

struct rh_event *rh_ring_reserve(struct rh_ring *ring)
{
    if (rh_unlikely(ring->tail - ring->head_seen >= ring->p_mask) && !see_head(ring))
        return NULL;
    return &ring->cells[ring->tail & ring->p_mask];
}

void rh_ring_commit(struct rh_ring *ring)
{
    ring->tail++;
}

bool rh_ring_publish(struct rh_ring *ring)
{
    if (ring->published == ring->tail)
        return false;
    ring->published = ring->tail;
    TSAN_RELEASE(&ring->ck.p_tail); /* pairs with see_tail */
    ck_pr_fence_release();
    ck_pr_store_uint(&ring->ck.p_tail, ring->tail);
    return true;
}

/* Looks at the producer's counter again. Returns false when the ring is empty all the same. */
static bool see_tail(struct rh_ring *ring)
{
    ring->tail_seen = ck_pr_load_uint(&ring->ck.p_tail);
    TSAN_ACQUIRE(&ring->ck.p_tail); /* pairs with rh_ring_publish */
    ck_pr_fence_acquire();
    return ring->head != ring->tail_seen;
}

static void release_space(struct rh_ring *ring)
{
    ring->released = ring->head;
    TSAN_RELEASE(&ring->ck.c_head); /* pairs with see_head */
    ck_pr_fence_release();
    ck_pr_store_uint(&ring->ck.c_head, ring->head);
}

const struct rh_event *rh_ring_peek(struct rh_ring *ring)
{
    if (ring->head == ring->tail_seen && !see_tail(ring))
        return NULL;
    return &ring->cells[ring->head & ring->c_mask];
}

void rh_ring_drop(struct rh_ring *ring)
{
    rh_assert(ring->head != ring->tail_seen);
    ring->head++;
    if (rh_unlikely(ring->head - ring->released > ring->c_mask / 4))
        release_space(ring);
}

void rh_ring_release(struct rh_ring *ring)
{
    if (ring->released != ring->head)
        release_space(ring);
}

uint32_t rh_ring_depth_any(const struct rh_ring *ring)
{
    uint32_t head = ck_pr_load_uint(&ring->ck.c_head);

    /* Order matters: a head read first is never ahead of the tail read after it. */
    ck_pr_fence_load();
    return ck_pr_load_uint(&ring->ck.p_tail) - head;
}
