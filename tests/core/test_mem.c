/* tests/core/test_mem.c - the door to memory: zeroing, alignment, and the hook that makes it fail. */
#include "core/mem.h"

#include <pthread.h>

#include "core/base.h"
#include "tests/rh_test.h"

static void dirty_some_memory(size_t size)
{
    void *mem = rh_mem_alloc(size);

    RH_OK_IF(mem != NULL);
    memset(mem, 0xa5, size);
    rh_mem_free(mem);
}

static bool is_zero(const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i])
            return false;
    return true;
}

RH_TEST(mem, zalloc_is_zero_also_where_others_have_been)
{
    for (size_t size = 1; size <= 70000; size = size * 3 + 1) {
        uint8_t *mem;

        dirty_some_memory(size);
        mem = rh_mem_zalloc(size);
        RH_OK_IF(mem && is_zero(mem, size));
        rh_mem_free(mem);
    }
}

RH_TEST(mem, zalloc_aligned_is_zero_and_begins_a_cache_line)
{
    for (size_t size = 1; size <= 70000; size = size * 3 + 1) {
        uint8_t *mem;

        dirty_some_memory(size);
        mem = rh_mem_zalloc_aligned(size);
        RH_OK_IF(mem && is_zero(mem, size));
        RH_EQ_U64((uintptr_t)mem % RH_CACHE_LINE, 0);
        rh_mem_free(mem);
    }
}

RH_TEST(mem, realloc_keeps_what_was_there_and_allocates_from_null)
{
    uint8_t *mem = rh_mem_realloc(NULL, 100);

    RH_OK_IF(mem != NULL);
    for (int i = 0; i < 100; i++)
        mem[i] = (uint8_t)i;
    mem = rh_mem_realloc(mem, 100000);
    RH_OK_IF(mem != NULL);
    for (int i = 0; i < 100; i++)
        RH_EQ_INT(mem[i], i);
    rh_mem_free(mem);
}

RH_TEST(mem, strndup_takes_exactly_the_bytes_and_ends_them)
{
    char *at_guard = (char *)rh_guard("abcd", 4);
    char *copy = rh_mem_strndup(at_guard, 4);
    char *empty = rh_mem_strndup(at_guard, 0);

    RH_EQ_STR(copy, "abcd");
    RH_EQ_STR(empty, "");
    rh_mem_free(copy);
    rh_mem_free(empty);
    rh_mem_free(NULL);
}

static void *by_alloc(void)
{
    return rh_mem_alloc(10);
}

static void *by_zalloc(void)
{
    return rh_mem_zalloc(10);
}

static void *by_aligned(void)
{
    return rh_mem_zalloc_aligned(10);
}

static void *by_realloc(void)
{
    return rh_mem_realloc(NULL, 10);
}

static void *by_strndup(void)
{
    return rh_mem_strndup("abc", 3);
}

static void *(*const ways[])(void) = {by_alloc, by_zalloc, by_aligned, by_realloc, by_strndup};

RH_TEST(mem_fault, fails_the_nth_allocation_once_whichever_way_it_comes)
{
    for (size_t way = 0; way < RH_COUNT(ways); way++)
        for (uint64_t nth = 1; nth <= 5; nth++) {
            rh_mem_fail_nth(nth);
            for (uint64_t i = 1; i <= 8; i++) {
                void *mem;

                RH_EQ_U64(rh_mem_fail_left(), i <= nth ? nth - i + 1 : 0);
                mem = ways[way]();
                RH_EQ_INT(mem == NULL, i == nth);
                rh_mem_free(mem);
            }
        }
}

RH_TEST(mem_fault, is_off_at_first_and_after_zero)
{
    RH_EQ_U64(rh_mem_fail_left(), 0);
    rh_mem_fail_nth(1);
    rh_mem_fail_nth(0);
    for (size_t way = 0; way < RH_COUNT(ways); way++) {
        void *mem = ways[way]();

        RH_OK_IF(mem != NULL);
        rh_mem_free(mem);
    }
}

RH_TEST(mem_fault, leaves_the_old_memory_valid_when_realloc_fails)
{
    char *mem = rh_mem_strndup("still here", 10);

    rh_mem_fail_nth(1);
    RH_OK_IF(rh_mem_realloc(mem, 1000) == NULL);
    RH_EQ_STR(mem, "still here");
    rh_mem_free(mem);
}

static void *alloc_on_another_thread(void *arg)
{
    rh_mem_thread_init();
    RH_EQ_U64(rh_mem_fail_left(), 0);
    return rh_mem_alloc(100);
}

RH_TEST(mem_fault, does_not_touch_other_threads)
{
    pthread_t thread;
    void *mem = NULL;

    rh_mem_fail_nth(1);
    RH_EQ_INT(pthread_create(&thread, NULL, alloc_on_another_thread, NULL), 0);
    RH_EQ_INT(pthread_join(thread, &mem), 0);
    RH_OK_IF(mem != NULL); /* from that thread's arena, freed on this one */
    rh_mem_free(mem);
    RH_EQ_U64(rh_mem_fail_left(), 1);
    RH_OK_IF(rh_mem_alloc(1) == NULL);
}

static void take_three(void *arg)
{
    unsigned *runs = arg;
    void *mem[3];

    (*runs)++;
    for (int i = 0; i < 3; i++)
        mem[i] = rh_mem_alloc(10);
    for (int i = 0; i < 3; i++)
        rh_mem_free(mem[i]);
}

RH_TEST(mem_fault, each_allocation_of_a_body_fails_once_and_then_none)
{
    unsigned runs = 0;

    rh_test_fail_each_alloc(take_three, &runs);
    RH_EQ_INT(runs, 4);
    RH_EQ_U64(rh_mem_fail_left(), 0);
}

RH_TEST(mem, in_use_counts_what_was_taken_where_it_can_tell)
{
    uint64_t before = rh_mem_in_use();
    void *mem = rh_mem_zalloc(32 << 20);
    uint64_t with = rh_mem_in_use();

    RH_OK_IF(mem != NULL);
#ifdef RH_NO_JEMALLOC
    RH_EQ_U64(before, 0);
    RH_EQ_U64(with, 0);
#else
    RH_OK_IF(before > 0);
    RH_OK_IF(with >= before + (32 << 20));
#endif
    rh_mem_free(mem);
}
