/* tests/rh_test.c - main of every test program; see rh_test.h. */
#include "tests/rh_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"

#define TEST_TIMEOUT_S 120

static struct rh_test *tests;
static struct rh_test **tests_end = &tests;
static uint64_t seed;
static uint64_t rand_state;

void rh_test_add(struct rh_test *test)
{
    *tests_end = test;
    tests_end = &test->next;
}

uint8_t *rh_guard(const void *bytes, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (len + page - 1) / page * page;
    uint8_t *mem =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(mem, MAP_FAILED);
    ck_assert_int_eq(mprotect(mem + room, page, PROT_NONE), 0);
    mem += room - len;
    if (bytes && len)
        memcpy(mem, bytes, len);
    return mem;
}

uint64_t rh_test_seed(void)
{
    return seed;
}

uint64_t rh_test_rand(void)
{
    rand_state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = rand_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void rh_test_fail_each_alloc(void (*body)(void *arg), void *arg)
{
    for (uint64_t nth = 1;; nth++) {
        bool never_failed;

        rh_mem_fail_nth(nth);
        body(arg);
        never_failed = rh_mem_fail_left() != 0;
        rh_mem_fail_nth(0);
        if (never_failed)
            return;
        ck_assert_msg(nth < 100000, "allocations never end");
    }
}

static void seed_init(void)
{
    const char *given = getenv("SEED");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    seed =
        given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    rand_state = seed;
    printf("# seed %llu (SEED=%llu repeats this run)\n", (unsigned long long)seed,
           (unsigned long long)seed);
}

int main(int argc, char **argv)
{
    const char *only = getenv("T");
    Suite *suite = suite_create(argc ? argv[0] : "tests");
    TCase *tcase = tcase_create("all");
    SRunner *runner;
    int failed;

    seed_init();
    tcase_set_timeout(tcase, TEST_TIMEOUT_S);
    for (const struct rh_test *test = tests; test; test = test->next)
        if (!only || strstr(test->tt.name, only))
            _tcase_add_test(tcase, &test->tt, 0, 0, 0, 1);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    fflush(stdout);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
