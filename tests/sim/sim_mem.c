/* tests/sim/sim_mem.c - core/mem replaced by an allocator that knows what is still out.
 *
 * Each allocation has a header with its size and who asked for it, in a list. New memory is filled
 * with one pattern and freed memory with another, so that what is read before it was written, or
 * after it was freed, shows also without a sanitizer. With one, the header is poisoned.
 */
#include "core/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "tests/sim/sim.h"

#define NEW_BYTE  0xa5
#define FREE_BYTE 0xdd
#define MARK      UINT64_C(0x72696e6768756221)

struct head {
    struct rh_list node;
    size_t size;
    uint64_t number;
    void *caller;
    uint64_t mark;
    char fill[16]; /* so that what follows is aligned to a cache line */
};

_Static_assert(sizeof(struct head) == RH_CACHE_LINE, "user memory is aligned");

static struct rh_list live = {&live, &live};
static uint64_t live_count, numbers, fail_left;

static void *give_out(size_t size, int fill, void *caller)
{
    size_t whole = (sizeof(struct head) + size + RH_CACHE_LINE - 1) & ~(size_t)(RH_CACHE_LINE - 1);
    struct head *h;

    if (fail_left && --fail_left == 0)
        return NULL;
    h = aligned_alloc(RH_CACHE_LINE, whole);
    if (!h)
        return NULL;
    memset(h + 1, fill, size);
    h->size = size;
    h->number = ++numbers;
    h->caller = caller;
    h->mark = MARK;
    rh_list_add(&live, &h->node);
    live_count++;
    RH_MEM_POISON((char *)(h + 1) + size, whole - sizeof(*h) - size);
    return h + 1;
}

void *rh_mem_alloc(size_t size)
{
    return give_out(size, NEW_BYTE, __builtin_return_address(0));
}

void *rh_mem_zalloc(size_t size)
{
    return give_out(size, 0, __builtin_return_address(0));
}

void *rh_mem_zalloc_aligned(size_t size)
{
    return give_out(size, 0, __builtin_return_address(0));
}

void rh_mem_free(void *mem)
{
    struct head *h;

    if (!mem)
        return;
    h = (struct head *)mem - 1;
    SIM_CHECK(h->mark == MARK, "freed twice, or never allocated: %p", mem);
    h->mark = 0;
    RH_MEM_UNPOISON((char *)mem + h->size, -h->size & (RH_CACHE_LINE - 1));
    memset(mem, FREE_BYTE, h->size);
    rh_list_del(&h->node);
    live_count--;
    free(h);
}

void *rh_mem_realloc(void *mem, size_t size)
{
    void *grown = give_out(size, NEW_BYTE, __builtin_return_address(0));

    if (!grown || !mem)
        return grown;
    memcpy(grown, mem, RH_MIN(size, ((struct head *)mem - 1)->size));
    rh_mem_free(mem);
    return grown;
}

char *rh_mem_strndup(const char *at, size_t len)
{
    char *copy = give_out(len + 1, NEW_BYTE, __builtin_return_address(0));

    if (!copy)
        return NULL;
    memcpy(copy, at, len);
    copy[len] = '\0';
    return copy;
}

void rh_mem_thread_init(void)
{
}

void rh_mem_purge(void)
{
}

uint64_t rh_mem_in_use(void)
{
    uint64_t bytes = 0;

    for (struct rh_list *at = live.next; at != &live; at = at->next)
        bytes += rh_container_of(at, struct head, node)->size;
    return bytes;
}

void rh_mem_fail_nth(uint64_t nth)
{
    fail_left = nth;
}

uint64_t rh_mem_fail_left(void)
{
    return fail_left;
}

uint64_t sim_mem_live(void)
{
    return live_count;
}

uint64_t sim_mem_mark(void)
{
    return numbers;
}

void sim_mem_drop(uint64_t mark)
{
    struct rh_list *at = live.next;

    while (at != &live) {
        struct head *h = rh_container_of(at, struct head, node);

        at = at->next;
        if (h->number > mark)
            rh_mem_free(h + 1);
    }
}

void sim_mem_list(void)
{
    for (struct rh_list *at = live.next; at != &live; at = at->next) {
        const struct head *h = rh_container_of(at, struct head, node);

        fprintf(stderr, "  %zu bytes, allocation %llu, from %p\n", h->size,
                (unsigned long long)h->number, h->caller);
    }
}
