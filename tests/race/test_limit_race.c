/* tests/race/test_limit_race.c - limits shared by real threads, also under TSan.
 *
 * Goal    a count is never above its limit and a take never refused below it; a rate that threads
 *         share is neither exceeded nor lost.
 * Method  Threads take and give at random. Beside the limit stands a counter of the test's own,
 *         which is raised after a take and lowered before its give, so it can only be too small: if
 *         it passes the limit, that was broken. With as many threads as the limit allows, a single
 *         refusal is wrong. The clock of the rates is a counter that all threads push on.
 */
#include <pthread.h>
#include <sched.h>

#include "core/limit.h"
#include "tests/rh_test.h"

#define THREADS 4

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 100000
#else
#define ROUNDS 1000000
#endif

struct stand {
    struct rh_limits *l;
    uint32_t max;
    _Atomic uint32_t held; /* by the test's own count */
    _Atomic uint32_t most;
    _Atomic uint64_t taken;
    _Atomic uint64_t refused;
    _Atomic uint64_t clock_ns;
    _Atomic uint64_t tat;
    _Atomic uint32_t ready;
};

static struct stand st;

static void everybody(void *(*run)(void *))
{
    pthread_t threads[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++)
        RH_OK_IF(pthread_create(&threads[i], NULL, run, (void *)(i + 1)) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void wait_for_all(void)
{
    atomic_fetch_add(&st.ready, 1);
    while (atomic_load(&st.ready) < THREADS)
        sched_yield();
}

static uint64_t draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void note_held(void)
{
    uint32_t held = atomic_fetch_add_explicit(&st.held, 1, memory_order_relaxed) + 1;
    uint32_t most = atomic_load_explicit(&st.most, memory_order_relaxed);

    while (held > most && !atomic_compare_exchange_weak(&st.most, &most, held)) {
    }
}

/* Holds one of each at a time, now and then for a while. */
static void *take_and_give(void *arg)
{
    uint64_t seed = (uintptr_t)arg;

    wait_for_all();
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (!rh_limit_take_address_any(st.l, 77, st.max)) {
            atomic_fetch_add_explicit(&st.refused, 1, memory_order_relaxed);
            continue;
        }
        note_held();
        RH_OK_IF(rh_limit_take_conn_any(st.l, 0));
        RH_OK_IF(rh_limit_take_handshake_any(st.l, THREADS));
        if (draw(&seed) % 1024 == 0)
            sched_yield();
        rh_limit_give_handshake_any(st.l);
        rh_limit_give_conn_any(st.l);
        atomic_fetch_sub_explicit(&st.held, 1, memory_order_relaxed);
        rh_limit_give_address_any(st.l, 77);
        atomic_fetch_add_explicit(&st.taken, 1, memory_order_relaxed);
    }
    return NULL;
}

static void run_counts(uint32_t max)
{
    memset(&st, 0, sizeof(st));
    st.max = max;
    RH_EQ_INT(rh_limit_create(&st.l), RH_OK);
    everybody(take_and_give);
    RH_EQ_U64(rh_limit_conns_any(st.l), 0);
    RH_EQ_U64(rh_limit_handshakes_any(st.l), 0);
    for (unsigned i = 0; i < 3; i++) /* nothing is left in the address's count */
        RH_OK_IF(rh_limit_take_address_any(st.l, 77, 3));
    RH_OK_IF(!rh_limit_take_address_any(st.l, 77, 3));
    RH_EQ_U64(st.taken + st.refused, (uint64_t)ROUNDS * THREADS);
    rh_limit_destroy(st.l);
}

RH_TEST(limit_race, a_limit_is_never_exceeded)
{
    for (uint32_t max = 1; max < THREADS; max++) {
        run_counts(max);
        RH_OK_IF(st.most <= max && st.most > 0);
    }
}

RH_TEST(limit_race, who_stays_within_the_limit_is_never_refused)
{
    run_counts(THREADS);
    RH_EQ_U64(st.refused, 0);
    run_counts(0);
    RH_EQ_U64(st.refused, 0);
}

/* Each try moves the clock by 0 to 199 ns. */
static void *ask_for_tokens(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    uint64_t taken = 0;

    wait_for_all();
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t step = draw(&seed) % 200;
        uint64_t now = atomic_fetch_add(&st.clock_ns, step) + step;

        taken += rh_limit_rate_any(&st.tat, now, 300000, 40);
    }
    atomic_fetch_add(&st.taken, taken);
    return NULL;
}

RH_TEST(limit_race, a_shared_rate_is_neither_exceeded_nor_lost)
{
    uint64_t due;

    memset(&st, 0, sizeof(st));
    everybody(ask_for_tokens);
    due = 40 + st.clock_ns * 3 / 10000; /* 300,000 a second */
    ck_assert_msg(st.taken <= due + 1 && st.taken + 40 >= due, "%llu taken, %llu due",
                  (unsigned long long)st.taken, (unsigned long long)due);
}
