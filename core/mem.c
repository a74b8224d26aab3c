/* core/mem.c - the one home of jemalloc.
 *
 * Why this way: a thin layer over malloc keeps sanitizers usable (RH_NO_JEMALLOC leaves libc's
 * allocator in place) and gives tests one door at which the nth allocation can be made to fail.
 * The hook is thread-local, so a test under TSan can fail one thread's allocations only.
 */
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

#ifndef RH_NO_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include "core/base.h"

static _Thread_local uint64_t fail_left;

static bool fails_now(void)
{
    return rh_unlikely(fail_left != 0) && --fail_left == 0;
}

void *rh_mem_alloc(size_t size)
{
    return fails_now() ? NULL : malloc(size);
}

void *rh_mem_zalloc(size_t size)
{
    return fails_now() ? NULL : calloc(1, size);
}

void *rh_mem_realloc(void *mem, size_t size)
{
    return fails_now() ? NULL : realloc(mem, size);
}

void rh_mem_free(void *mem)
{
    free(mem);
}

char *rh_mem_strndup(const char *at, size_t len)
{
    char *copy = len < SIZE_MAX ? rh_mem_alloc(len + 1) : NULL;

    if (!copy)
        return NULL;
    memcpy(copy, at, len);
    copy[len] = '\0';
    return copy;
}

void *rh_mem_zalloc_aligned(size_t size)
{
    size_t whole = (size + RH_CACHE_LINE - 1) & ~(size_t)(RH_CACHE_LINE - 1);
    void *mem = fails_now() || whole < size ? NULL : aligned_alloc(RH_CACHE_LINE, whole);

    if (mem)
        memset(mem, 0, whole);
    return mem;
}

void rh_mem_thread_init(void)
{
#ifndef RH_NO_JEMALLOC
    unsigned arena = 0;
    size_t len = sizeof(arena);

    /* Failure leaves the shared arenas in use: slower, not wrong. */
    if (mallctl("arenas.create", &arena, &len, NULL, 0) == 0)
        mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena));
#endif
}

void rh_mem_purge(void)
{
#ifndef RH_NO_JEMALLOC
    size_t mib[3], len = RH_COUNT(mib), size = sizeof(unsigned);
    unsigned arena = 0;

    mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    if (mallctl("thread.arena", &arena, &size, NULL, 0) != 0 ||
        mallctlnametomib("arena.0.purge", mib, &len) != 0)
        return;
    mib[1] = arena;
    mallctlbymib(mib, len, NULL, NULL, NULL, 0);
#endif
}

uint64_t rh_mem_in_use(void)
{
#ifndef RH_NO_JEMALLOC
    uint64_t epoch = 1;
    size_t allocated = 0;
    size_t len = sizeof(allocated);

    mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
    if (mallctl("stats.allocated", &allocated, &len, NULL, 0) == 0)
        return allocated;
#endif
    return 0;
}

void rh_mem_fail_nth(uint64_t nth)
{
    fail_left = nth;
}

uint64_t rh_mem_fail_left(void)
{
    return fail_left;
}
