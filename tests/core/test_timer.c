/* tests/core/test_timer.c - the wheel against the obvious: look through all timers for the first. */
#include "core/timer.h"

#include <stdlib.h>

#include "tests/rh_test.h"

#define TIMERS 150

/* What the model knows of a timer; `rank` is the ms at which it is to fire: its own or, if that was
 * past when it was set, the wheel's time at the beginning of the next advance. */
struct model {
    struct rh_timer timer;
    bool armed;
    uint64_t rank;
    bool late; /* past when it was set: not before the next advance */
};

struct world {
    struct rh_wheel wheel;
    struct model all[TIMERS];
    unsigned armed;
    uint64_t now_ms;
    unsigned fired;
    bool meddle; /* fire sets and clears others */
};

static void world_init(struct world *x, uint64_t start_ms)
{
    memset(x, 0, sizeof(*x));
    rh_wheel_init(&x->wheel, start_ms);
    x->now_ms = start_ms;
    for (int i = 0; i < TIMERS; i += 2) /* the others stay zeroed, which is allowed */
        rh_timer_init(&x->all[i].timer);
}

static void world_set(struct world *x, struct model *t, uint64_t due_ms)
{
    rh_timer_set(&x->wheel, &t->timer, due_ms);
    x->armed += !t->armed;
    t->armed = true;
    t->rank = due_ms;
    t->late = due_ms <= x->wheel.now_ms;
    RH_OK_IF(rh_timer_armed(&t->timer));
    RH_OK_IF(t->timer.due_ms == due_ms);
}

static void world_clear(struct world *x, struct model *t)
{
    rh_timer_clear(&x->wheel, &t->timer);
    x->armed -= t->armed;
    t->armed = false;
    RH_OK_IF(!rh_timer_armed(&t->timer));
}

/* Near and far, past and future, and now and then the end of time. */
static uint64_t random_due(uint64_t now_ms)
{
    uint64_t dice = rh_test_rand();
    uint64_t far = rh_test_rand() >> (rh_test_rand() % 64);

    if (dice % 16 == 0)
        return now_ms - RH_MIN(now_ms, far % 1000);
    if (dice % 64 == 1)
        return UINT64_MAX - far % 100;
    if (dice % 4 == 1)
        return now_ms + far % 100; /* several in the same ms */
    return far > UINT64_MAX - now_ms ? UINT64_MAX : now_ms + far;
}

static void meddle(struct world *x)
{
    for (uint64_t n = rh_test_rand() % 4; n; n--) {
        struct model *t = &x->all[rh_test_rand() % TIMERS];

        if (rh_test_rand() % 2)
            world_set(x, t, random_due(x->wheel.now_ms));
        else
            world_clear(x, t);
    }
}

static void on_fire(void *arg, struct rh_timer *timer)
{
    struct world *x = arg;
    struct model *t = rh_container_of(timer, struct model, timer);

    RH_OK_IF(t->armed);
    RH_OK_IF(!rh_timer_armed(timer));
    RH_OK_IF(!t->late);
    RH_OK_IF(t->rank <= x->wheel.now_ms);
    for (int i = 0; i < TIMERS; i++) /* nobody else was to come first */
        if (x->all[i].armed && !x->all[i].late)
            RH_OK_IF(x->all[i].rank >= t->rank);
    t->armed = false;
    x->armed--;
    x->fired++;
    if (x->meddle)
        meddle(x);
}

static void world_advance(struct world *x, uint64_t now_ms, unsigned budget)
{
    bool done;
    unsigned fired;

    x->now_ms = now_ms;
    x->fired = 0;
    for (int i = 0; i < TIMERS; i++)
        if (x->all[i].armed && x->all[i].late) {
            x->all[i].rank = x->wheel.now_ms;
            x->all[i].late = false;
        }
    fired = rh_wheel_advance(&x->wheel, now_ms, budget, on_fire, x);
    RH_OK_IF(fired == x->fired);
    RH_OK_IF(fired <= budget);
    done = fired < budget; /* at so few timers the bound on moves is never reached */
    for (int i = 0; i < TIMERS; i++)
        if (done && x->all[i].armed && !x->all[i].late)
            RH_OK_IF(x->all[i].rank > now_ms);
}

static void world_check(const struct world *x)
{
    uint64_t next = rh_wheel_next_ms(&x->wheel, x->now_ms);
    uint64_t first = UINT64_MAX;

    RH_OK_IF(rh_wheel_count(&x->wheel) == x->armed);
    for (int i = 0; i < TIMERS; i++) {
        RH_OK_IF(rh_timer_armed(&x->all[i].timer) == x->all[i].armed);
        if (x->all[i].armed)
            first = RH_MIN(first, x->all[i].late ? 0 : x->all[i].rank);
    }
    RH_OK_IF((next == UINT64_MAX) == (x->armed == 0));
    if (x->armed)
        RH_OK_IF(next <= (first > x->now_ms ? first - x->now_ms : 0));
}

/* Goal    for any history: everything fires once, in order, not early and not late; the questions
 *         agree with the model at every moment.
 * Method  random sets, clears and advances by steps of every size, from 0 ms to ages. */
static void random_history(bool meddling)
{
    struct world *x = malloc(sizeof(*x));

    ck_assert_ptr_nonnull(x);
    for (int run = 0; run < 200; run++) {
        world_init(x, run % 3 ? rh_test_rand() >> (rh_test_rand() % 64) : 0);
        x->meddle = meddling;
        for (int step = 0; step < 1500; step++) {
            uint64_t dice = rh_test_rand() % 8;
            struct model *t = &x->all[rh_test_rand() % TIMERS];

            if (dice < 4) {
                world_set(x, t, random_due(x->now_ms));
            } else if (dice < 5) {
                world_clear(x, t);
            } else {
                uint64_t by = rh_test_rand() >> (rh_test_rand() % 64);

                by = dice == 5 ? by : by % 200;
                if (run % 2 && dice == 5)
                    by %= 100000;
                by = RH_MIN(by, UINT64_MAX - x->now_ms);
                world_advance(x, x->now_ms + by, 1 + (unsigned)(rh_test_rand() % 20));
            }
            world_check(x);
        }
    }
    free(x);
}

RH_TEST(timer, agrees_with_the_model_over_a_random_history)
{
    random_history(false);
}

RH_TEST(timer, agrees_with_the_model_when_firing_sets_and_clears_others)
{
    random_history(true);
}

static void count_fire(void *arg, struct rh_timer *timer)
{
    (*(unsigned *)arg)++;
}

RH_TEST(timer, starts_unarmed_zeroed_or_initialised)
{
    struct rh_timer zeroed = {0};
    struct rh_timer timer;
    struct rh_wheel w;

    rh_wheel_init(&w, 5);
    rh_timer_init(&timer);
    RH_OK_IF(!rh_timer_armed(&zeroed) && !rh_timer_armed(&timer));
    rh_timer_clear(&w, &zeroed);
    rh_timer_clear(&w, &timer);
    RH_EQ_U64(rh_wheel_count(&w), 0);
    RH_EQ_U64(rh_wheel_next_ms(&w, 5), UINT64_MAX);
}

RH_TEST(timer, fires_at_its_ms_and_not_one_earlier)
{
    static const uint64_t after[] = {1, 63, 64, 65, 4095, 4096, 30000, 86400000, UINT64_C(1) << 40};

    for (size_t i = 0; i < RH_COUNT(after); i++) {
        struct rh_timer timer = {0};
        struct rh_wheel w;
        unsigned fired = 0;

        rh_wheel_init(&w, 1234567);
        rh_timer_set(&w, &timer, 1234567 + after[i]);
        RH_EQ_INT(rh_wheel_advance(&w, 1234567 + after[i] - 1, 10, count_fire, &fired), 0);
        RH_EQ_U64(rh_wheel_next_ms(&w, 1234567 + after[i] - 1), 1);
        RH_EQ_INT(rh_wheel_advance(&w, 1234567 + after[i], 10, count_fire, &fired), 1);
        RH_EQ_INT(fired, 1);
        RH_OK_IF(!rh_timer_armed(&timer));
        RH_EQ_U64(rh_wheel_next_ms(&w, 1234567 + after[i]), UINT64_MAX);
    }
}

RH_TEST(timer, set_anew_fires_once_at_its_last_time)
{
    struct rh_timer timer = {0};
    struct rh_wheel w;
    unsigned fired = 0;

    rh_wheel_init(&w, 0);
    rh_timer_set(&w, &timer, 10);
    rh_timer_set(&w, &timer, 100000);
    rh_timer_set(&w, &timer, 50);
    RH_EQ_U64(rh_wheel_count(&w), 1);
    rh_wheel_advance(&w, 49, 10, count_fire, &fired);
    RH_EQ_INT(fired, 0);
    rh_wheel_advance(&w, 200000, 10, count_fire, &fired);
    RH_EQ_INT(fired, 1);
}

RH_TEST(timer, of_the_past_fires_at_the_next_advance_even_if_time_stands_still)
{
    struct rh_timer timer = {0};
    struct rh_wheel w;
    unsigned fired = 0;

    rh_wheel_init(&w, 1000);
    for (uint64_t due = 998; due <= 1000; due++) {
        rh_timer_set(&w, &timer, due);
        RH_EQ_U64(rh_wheel_next_ms(&w, 1000), 0);
        rh_wheel_advance(&w, 1000, 10, count_fire, &fired);
        RH_EQ_INT(fired, due - 997);
    }
}

struct again {
    struct rh_wheel *w;
    unsigned fired;
};

static void fire_again(void *arg, struct rh_timer *timer)
{
    struct again *again = arg;

    again->fired++;
    rh_timer_set(again->w, timer, 0);
}

RH_TEST(timer, that_sets_itself_to_the_past_does_not_keep_an_advance_busy)
{
    struct rh_timer timer = {0};
    struct rh_wheel w;
    struct again again = {&w, 0};

    rh_wheel_init(&w, 0);
    rh_timer_set(&w, &timer, 7);
    for (unsigned i = 1; i <= 5; i++) {
        RH_EQ_INT(rh_wheel_advance(&w, 7, 1000, fire_again, &again), 1);
        RH_EQ_INT(again.fired, i);
    }
}

RH_TEST(timer, at_the_end_of_time_is_kept_and_fires_there)
{
    struct rh_timer last = {0};
    struct rh_timer before = {0};
    struct rh_wheel w;
    unsigned fired = 0;

    rh_wheel_init(&w, 0);
    rh_timer_set(&w, &last, UINT64_MAX);
    rh_timer_set(&w, &before, UINT64_MAX - 1);
    rh_wheel_advance(&w, UINT64_MAX - 2, 10, count_fire, &fired);
    RH_EQ_INT(fired, 0);
    rh_wheel_advance(&w, UINT64_MAX - 1, 10, count_fire, &fired);
    RH_EQ_INT(fired, 1);
    rh_wheel_advance(&w, UINT64_MAX, 10, count_fire, &fired);
    RH_EQ_INT(fired, 2);
}

RH_TEST(timer, advance_to_an_earlier_time_fires_nothing_and_harms_nothing)
{
    struct rh_timer timer = {0};
    struct rh_wheel w;
    unsigned fired = 0;

    rh_wheel_init(&w, 1000);
    rh_timer_set(&w, &timer, 1010);
    rh_wheel_advance(&w, 5, 10, count_fire, &fired);
    RH_EQ_INT(fired, 0);
    rh_wheel_advance(&w, 1010, 0, count_fire, &fired);
    RH_EQ_INT(fired, 0);
    rh_wheel_advance(&w, 1009, 10, count_fire, &fired);
    RH_EQ_INT(fired, 0);
    rh_wheel_advance(&w, 1010, 10, count_fire, &fired);
    RH_EQ_INT(fired, 1);
}

/* Goal    sleeping as next_ms says wakes a lone timer's owner once per level at most, never late,
 *         over any distance: no ticking. */
RH_TEST(timer, is_reached_by_following_next_ms_in_a_few_steps)
{
    for (int i = 0; i < 2000; i++) {
        struct rh_timer timer = {0};
        struct rh_wheel w;
        unsigned fired = 0;
        unsigned wakes = 0;
        uint64_t now = rh_test_rand() >> (1 + rh_test_rand() % 63);
        uint64_t due = now + 1 + (rh_test_rand() >> (1 + rh_test_rand() % 63));

        rh_wheel_init(&w, now);
        rh_timer_set(&w, &timer, due);
        while (!fired) {
            uint64_t wait = rh_wheel_next_ms(&w, now);

            RH_OK_IF(wait > 0 && wait <= due - now);
            now += wait;
            rh_wheel_advance(&w, now, 10, count_fire, &fired);
            RH_OK_IF(++wakes <= RH_WHEEL_LEVELS);
        }
        RH_OK_IF(now == due);
    }
}

static void spread(uint64_t due_ms, uint64_t over_ms, unsigned *ret_calls)
{
    enum { many = 100000, budget = 1000 };
    struct rh_timer *timers = calloc(many, sizeof(*timers));
    struct rh_wheel w;
    unsigned fired = 0;

    ck_assert_ptr_nonnull(timers);
    *ret_calls = 0;
    rh_wheel_init(&w, 1);
    for (unsigned i = 0; i < many; i++)
        rh_timer_set(&w, &timers[i], due_ms + (over_ms ? rh_test_rand() % over_ms : 0));
    while (rh_wheel_count(&w)) {
        unsigned before = fired;

        RH_OK_IF(rh_wheel_next_ms(&w, due_ms + over_ms) == 0);
        RH_OK_IF(rh_wheel_advance(&w, due_ms + over_ms, budget, count_fire, &fired) <= budget);
        RH_OK_IF(fired - before <= budget);
        RH_OK_IF(rh_wheel_count(&w) == many - fired);
        RH_OK_IF(++*ret_calls < 1000);
    }
    RH_OK_IF(fired == many);
    free(timers);
}

/* Goal    a hundred thousand in one ms are fired in portions of the budget, and moving them down
 *         the levels is portioned, too. */
RH_TEST(timer, a_hundred_thousand_at_once_are_spread_by_the_budget)
{
    unsigned calls;

    spread(5, 0, &calls); /* on level 0 from the start: nothing to move */
    RH_EQ_INT(calls, 100);
    spread(UINT64_C(30000), 0, &calls);
    RH_OK_IF(calls >= 100 && calls <= 200);
    spread(UINT64_C(1) << 40, 60000, &calls);
    RH_OK_IF(calls >= 100 && calls <= 300);
}

RH_TEST(timer, can_be_set_and_cleared_in_the_middle_of_a_portion)
{
    enum { many = 5000 };
    struct rh_timer *timers = calloc(many, sizeof(*timers));
    struct rh_wheel w;
    unsigned fired = 0;

    ck_assert_ptr_nonnull(timers);
    rh_wheel_init(&w, 0);
    for (unsigned i = 0; i < many; i++)
        rh_timer_set(&w, &timers[i], 100000 + i % 7);
    rh_wheel_advance(&w, 200000, 1, count_fire,
                     &fired); /* stops among the moves: a bound of 1,024 */
    RH_OK_IF(!rh_list_empty(&w.moving));
    for (unsigned i = 0; i < many; i++)
        if (i % 2)
            rh_timer_clear(&w, &timers[i]);
        else
            rh_timer_set(&w, &timers[i], 150000 + i % 5);
    fired = 0;
    while (rh_wheel_next_ms(&w, 200000) == 0)
        rh_wheel_advance(&w, 200000, 100, count_fire, &fired);
    RH_EQ_INT(fired, many / 2);
    RH_EQ_U64(rh_wheel_count(&w), 0);
    free(timers);
}

/* Goal    clearing the last of those that still have to move down does not hide the others from
 *         the wheel, which stand in the slot where it would have gone. */
RH_TEST(timer, clearing_all_that_still_move_leaves_the_moved_ones_to_fire)
{
    enum { many = 3000 };
    struct rh_timer *timers = calloc(many, sizeof(*timers));
    struct rh_wheel w;
    unsigned fired = 0;
    size_t left;

    ck_assert_ptr_nonnull(timers);
    rh_wheel_init(&w, 0);
    for (unsigned i = 0; i < many; i++)
        rh_timer_set(&w, &timers[i], 4096 * 5 + 7);
    RH_EQ_INT(rh_wheel_advance(&w, 30000, 1, count_fire, &fired), 0);
    while (!rh_list_empty(&w.moving))
        rh_timer_clear(&w, rh_container_of(w.moving.next, struct rh_timer, node));
    left = rh_wheel_count(&w);
    RH_OK_IF(left > 0 && left < many);
    RH_EQ_U64(rh_wheel_next_ms(&w, 30000), 0);
    RH_EQ_INT(rh_wheel_advance(&w, 30000, many, count_fire, &fired), left);
    free(timers);
}
