/* tests/core/test_bell.c - a wait ends when it is rung, or when its time is over. */
#include "core/bell.h"

#include "core/clock.h"
#include "core/ringhub.h"
#include "core/thread.h"
#include "tests/rh_test.h"

RH_TEST(bell, a_ring_before_the_wait_counts_and_only_once)
{
    uint64_t start = rh_clock_mono_ns();
    struct rh_bell *bell;

    RH_EQ_INT(rh_bell_create(&bell), RH_OK);
    rh_bell_ring_any(bell);
    rh_bell_ring_any(bell);
    rh_bell_wait(bell, UINT64_MAX); /* or this test never ends */
    rh_bell_wait(bell, 20);
    RH_OK_IF(rh_clock_mono_ns() - start >= 19000000);
    rh_bell_wait(bell, 0);
    rh_bell_destroy(bell);
    rh_bell_destroy(NULL);
}

static void ring(void *arg)
{
    rh_clock_nap_ms(10);
    rh_bell_ring_any(arg);
}

RH_TEST(bell, another_thread_ends_the_wait)
{
    struct rh_thread thread;
    struct rh_bell *bell;

    RH_EQ_INT(rh_bell_create(&bell), RH_OK);
    RH_EQ_INT(rh_thread_start(&thread, 0, "ring", ring, bell), RH_OK);
    rh_bell_wait(bell, UINT64_MAX);
    rh_thread_join(&thread);
    rh_bell_destroy(bell);
}
