/* tests/rh_test.h - what Check lacks: a test in one macro, guard pages, a seed, failing memory.
 *
 * RH_TEST(module, sentence) { ... } defines and registers a test; every file tests/<dir>/test_*.c
 * becomes one program (tests/rh_test.c has main). Check runs each test in a process of its own,
 * with a timeout. T=text in the environment runs only tests whose module_name contains it;
 * SEED=n repeats a random run (the seed of every run is printed).
 */
#ifndef RH_TEST_H
#define RH_TEST_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rh_test {
    TTest tt; /* Check's own description */
    const char *module;
    const char *name;
    struct rh_test *next;
};

void rh_test_add(struct rh_test *test);

#define RH_TEST(module_, name_)                                                                    \
    static void rh_test_##module_##_##name_(int i_);                                               \
    static struct rh_test rh_test_of_##module_##_##name_ = {                                       \
        {#module_ "_" #name_, rh_test_##module_##_##name_, __FILE__, __LINE__},                    \
        #module_,                                                                                  \
        #name_,                                                                                    \
        NULL};                                                                                     \
    __attribute__((constructor)) static void rh_test_reg_##module_##_##name_(void)                 \
    {                                                                                              \
        rh_test_add(&rh_test_of_##module_##_##name_);                                              \
    }                                                                                              \
    static void rh_test_##module_##_##name_(int i_ __attribute__((unused)))

/* Silent while it holds: Check writes a mark for each assertion, too slow for loops of millions. */
#define RH_OK_IF(rule)                                                                             \
    do {                                                                                           \
        if (!(rule))                                                                               \
            RH_FAIL("%s", #rule);                                                                  \
    } while (0)
#define RH_EQ_INT(a, b)      ck_assert_int_eq((a), (b))
#define RH_EQ_U64(a, b)      ck_assert_uint_eq((a), (b))
#define RH_EQ_STR(a, b)      ck_assert_str_eq((a), (b))
#define RH_EQ_MEM(a, b, len) ck_assert_mem_eq((a), (b), (len))
#define RH_FAIL(...)         ck_abort_msg(__VA_ARGS__)

/* `len` writable bytes whose end touches a page that faults: one byte too far is a crash. Lives
 * until the test ends. Contents: a copy of `bytes`, if given. */
uint8_t *rh_guard(const void *bytes, size_t len);

/* The run's random seed (SEED=n or drawn, printed), and a small generator on it. */
uint64_t rh_test_seed(void);
uint64_t rh_test_rand(void);

/* Runs body(arg) with the 1st, 2nd, ... allocation failing until one run had no failure left.
 * The body must leave nothing behind (ASan's leak check sees to it) and must not crash. */
void rh_test_fail_each_alloc(void (*body)(void *arg), void *arg);

#endif
