/* Goal    a figure that the histogram gives is within 0.1 % of the true one, whatever the values.
 * Method  the same values sorted in an array are the truth. */
#include "core/hist.h"

#include <stdlib.h>

#include "tests/rh_test.h"

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static bool is_close(uint64_t got, uint64_t truth)
{
    return got >= truth && got - truth <= truth / RH_HIST_FINE;
}

RH_TEST(hist, an_empty_one_answers_zero)
{
    struct rh_hist h;
    struct rh_hist_cell cell;
    uint32_t cursor = 0;

    RH_EQ_INT(rh_hist_init(&h), RH_OK);
    RH_EQ_U64(rh_hist_at(&h, 0.5), 0);
    RH_EQ_U64(rh_hist_max(&h), 0);
    RH_OK_IF(rh_hist_mean(&h) == 0);
    RH_OK_IF(!rh_hist_next(&h, &cursor, &cell));
    rh_hist_fini(&h);
}

RH_TEST(hist, small_values_are_exact)
{
    struct rh_hist h;

    RH_EQ_INT(rh_hist_init(&h), RH_OK);
    for (uint64_t v = 1; v <= 100; v++)
        rh_hist_add(&h, v);
    RH_EQ_U64(rh_hist_at(&h, 0.5), 50);
    RH_EQ_U64(rh_hist_at(&h, 0.99), 99);
    RH_EQ_U64(rh_hist_at(&h, 0.991), 100);
    RH_EQ_U64(rh_hist_at(&h, 0), 1);
    RH_EQ_U64(rh_hist_at(&h, 1), 100);
    RH_OK_IF(rh_hist_mean(&h) == 50.5);
    rh_hist_fini(&h);
}

RH_TEST(hist, cells_follow_each_other_without_gap_or_overlap)
{
    struct rh_hist h;
    struct rh_hist_cell cell;
    uint32_t cursor = 0, cells = 0;
    uint64_t next = 0;

    RH_EQ_INT(rh_hist_init(&h), RH_OK);
    while (next < RH_HIST_MAX) { /* a value at each cell's lower edge */
        rh_hist_add(&h, next);
        next += next < 2 * RH_HIST_FINE
                    ? 1
                    : UINT64_C(1) << (63 - (unsigned)__builtin_clzll(next) - 10);
    }
    next = 0;
    while (rh_hist_next(&h, &cursor, &cell)) {
        RH_EQ_U64(cell.low, next);
        RH_EQ_U64(cell.count, 1);
        RH_OK_IF(cell.high - cell.low <= cell.low / RH_HIST_FINE);
        next = cell.high + 1;
        cells++;
    }
    RH_EQ_U64(next, RH_HIST_MAX);
    RH_EQ_U64(cells, RH_HIST_CELLS);
    rh_hist_fini(&h);
}

RH_TEST(hist, percentiles_of_random_values_are_right_to_a_thousandth)
{
    static const double shares[] = {0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    enum { N = 100000 };
    uint64_t *truth = malloc(N * sizeof(*truth));
    struct rh_hist h;

    RH_OK_IF(truth != NULL);
    RH_EQ_INT(rh_hist_init(&h), RH_OK);
    for (int i = 0; i < N; i++) {
        truth[i] = rh_test_rand() >> (22 + rh_test_rand() % 42);
        rh_hist_add(&h, truth[i]);
    }
    qsort(truth, N, sizeof(*truth), by_value);
    for (size_t i = 0; i < RH_COUNT(shares); i++) {
        uint64_t rank = (uint64_t)(shares[i] * N);

        RH_OK_IF(is_close(rh_hist_at(&h, shares[i]), truth[rank - 1]));
    }
    RH_EQ_U64(rh_hist_max(&h), truth[N - 1]);
    RH_EQ_U64(rh_hist_count(&h), N);
    free(truth);
    rh_hist_fini(&h);
}

RH_TEST(hist, merging_two_gives_what_one_would_have_counted)
{
    struct rh_hist one, two, both;
    struct rh_hist_cell a, b;
    uint32_t at_a = 0, at_b = 0;
    bool more;

    RH_EQ_INT(rh_hist_init(&one), RH_OK);
    RH_EQ_INT(rh_hist_init(&two), RH_OK);
    RH_EQ_INT(rh_hist_init(&both), RH_OK);
    for (int i = 0; i < 10000; i++) {
        uint64_t v = rh_test_rand() >> (30 + rh_test_rand() % 34);

        rh_hist_add(i % 3 ? &one : &two, v);
        rh_hist_add(&both, v);
    }
    rh_hist_merge(&one, &two);
    do {
        more = rh_hist_next(&one, &at_a, &a);
        RH_EQ_INT(more, rh_hist_next(&both, &at_b, &b));
        RH_OK_IF(!more || (a.low == b.low && a.high == b.high && a.count == b.count));
    } while (more);
    RH_OK_IF(rh_hist_mean(&one) == rh_hist_mean(&both));
    RH_EQ_U64(rh_hist_max(&one), rh_hist_max(&both));
    rh_hist_clear(&one);
    RH_EQ_U64(rh_hist_count(&one), 0);
    RH_EQ_U64(rh_hist_at(&one, 1), 0);
    rh_hist_fini(&one);
    rh_hist_fini(&two);
    rh_hist_fini(&both);
}

RH_TEST(hist, what_is_too_large_is_counted_and_the_maximum_stays_exact)
{
    struct rh_hist h;

    RH_EQ_INT(rh_hist_init(&h), RH_OK);
    rh_hist_add(&h, 5);
    rh_hist_add(&h, UINT64_MAX);
    RH_EQ_U64(rh_hist_count(&h), 2);
    RH_EQ_U64(rh_hist_at(&h, 0.5), 5);
    RH_EQ_U64(rh_hist_at(&h, 1), UINT64_MAX);
    RH_EQ_U64(rh_hist_max(&h), UINT64_MAX);
    rh_hist_fini(&h);
}

static void make_one(void *arg)
{
    struct rh_hist h;

    (void)arg;
    if (rh_hist_init(&h) == RH_OK)
        rh_hist_add(&h, 1);
    rh_hist_fini(&h);
}

RH_TEST(hist, without_memory_it_says_so)
{
    rh_test_fail_each_alloc(make_one, NULL);
}
