/* core/mem.h - memory, from jemalloc, with a fault hook for tests.
 *
 * Threads    all functions: any. What one thread allocated another may free.
 * Errors     NULL when memory is gone (or the hook says so). Callers shed load, nobody exits.
 * Arenas     a thread that calls rh_mem_thread_init() allocates from an arena of its own, so
 *            that shards do not meet on a lock; freeing elsewhere is fine.
 */
#ifndef RH_MEM_H
#define RH_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *rh_mem_alloc(size_t size);
void *rh_mem_zalloc(size_t size);
void *rh_mem_realloc(void *mem, size_t size); /* NULL: `mem` is still valid and ours */
void rh_mem_free(void *mem);                  /* accepts NULL */
char *rh_mem_strndup(const char *at, size_t len);

/* Cache-line aligned and zeroed; freed with rh_mem_free. */
void *rh_mem_zalloc_aligned(size_t size);

/* Gives the calling thread an arena of its own; without jemalloc (sanitizers) it does nothing. */
void rh_mem_thread_init(void);

/* Gives the system the pages that the calling thread's arena does not use any more, which would else
 * take some seconds of activity. For when much was freed; some tens of us. */
void rh_mem_purge(void);

/* Bytes that the allocator has handed out in this process; 0 where it cannot tell. */
uint64_t rh_mem_in_use(void);

/* Memory that is not ours for a while (the kernel's, a stock's): under AddressSanitizer touching it is
 * reported, else these do nothing. */
#if defined(__has_feature) /* clang's way to say it */
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
void __asan_poison_memory_region(void const volatile *at, size_t len);
void __asan_unpoison_memory_region(void const volatile *at, size_t len);
#define RH_MEM_POISON(at, len)   __asan_poison_memory_region(at, len)
#define RH_MEM_UNPOISON(at, len) __asan_unpoison_memory_region(at, len)
#else
#define RH_MEM_POISON(at, len)   ((void)0)
#define RH_MEM_UNPOISON(at, len) ((void)0)
#endif

/* Test hook, of the calling thread: the nth allocation from now on fails, once (1 is the next one;
 * 0 turns it off). rh_mem_fail_left() says how many are still to come before it. */
void rh_mem_fail_nth(uint64_t nth);
uint64_t rh_mem_fail_left(void);

#endif
