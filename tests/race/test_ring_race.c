/* tests/race/test_ring_race.c - the ring between two real threads, also under TSan.
 *
 * Goal    nothing is lost, doubled, reordered or torn, and both hand-overs order memory: what the
 *         producer wrote is seen with the event, and what the consumer read may be overwritten
 *         when the space is back.
 * Method  Batches of random size on both sides. Every event names a payload in a table of exactly
 *         as many places as the ring holds events; the producer writes place i % holds again as
 *         soon as the ring gives it a cell, which proves that event i - holds was released. Plain
 *         memory, so TSan reports if either order is missing.
 */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/ring.h"
#include "tests/rh_test.h"

#if defined(__SANITIZE_THREAD__)
#define EVENTS 2000000u
#else
#define EVENTS 10000000u
#endif

struct race {
    struct rh_ring *ring;
    uint32_t holds;
    uint32_t batch_max;
    uint64_t *places;
    uint64_t depth_max;
    _Atomic bool done;
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void *produce(void *arg)
{
    struct race *race = arg;
    uint64_t left = 1;

    for (uint64_t i = 0; i < EVENTS;) {
        struct rh_event *ev = rh_ring_reserve(race->ring);

        if (!ev) {
            rh_ring_publish(race->ring);
            sched_yield();
            continue;
        }
        race->places[i % race->holds] = mix(i);
        *ev = (struct rh_event){.kind = RH_EV_SEND, .msg = &race->places[i % race->holds]};
        ev->a = i;
        ev->d = ~i;
        rh_ring_commit(race->ring);
        if (--left == 0) {
            rh_ring_publish(race->ring);
            left = 1 + mix(i) % race->batch_max;
        }
        i++;
    }
    rh_ring_publish(race->ring);
    return NULL;
}

static void *consume(void *arg)
{
    struct race *race = arg;
    uint64_t left = 1;

    for (uint64_t i = 0; i < EVENTS;) {
        const struct rh_event *ev = rh_ring_peek(race->ring);

        if (!ev) {
            rh_ring_release(race->ring);
            sched_yield();
            continue;
        }
        rh_assert(ev->kind == RH_EV_SEND && ev->a == i && ev->d == ~i);
        rh_assert(*(const uint64_t *)ev->msg == mix(i));
        rh_ring_drop(race->ring);
        if (--left == 0) {
            rh_ring_release(race->ring);
            left = 1 + mix(~i) % race->batch_max;
        }
        i++;
    }
    rh_assert(!rh_ring_peek(race->ring));
    rh_ring_release(race->ring);
    race->done = true;
    return NULL;
}

static void run(uint32_t slots, uint32_t batch_max)
{
    struct race race = {.holds = slots - 1, .batch_max = batch_max};
    pthread_t threads[2];

    race.ring = rh_ring_init(rh_mem_zalloc_aligned(rh_ring_bytes(slots)), slots);
    race.places = rh_mem_zalloc(race.holds * sizeof(*race.places));
    RH_EQ_INT(pthread_create(&threads[0], NULL, produce, &race), 0);
    RH_EQ_INT(pthread_create(&threads[1], NULL, consume, &race), 0);
    while (!race.done) { /* a third thread may look at the depth */
        race.depth_max = RH_MAX(race.depth_max, rh_ring_depth_any(race.ring));
        usleep(1000);
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    RH_EQ_U64(rh_ring_depth_any(race.ring), 0);
    RH_OK_IF(race.depth_max < slots);
    rh_mem_free(race.places);
    rh_mem_free(race.ring);
}

RH_TEST(ring_race, keeps_everything_in_order_with_random_batches)
{
    run(256, 64);
}

RH_TEST(ring_race, keeps_everything_in_order_one_by_one)
{
    run(256, 1);
}

RH_TEST(ring_race, keeps_everything_in_order_when_it_is_nearly_always_full)
{
    run(8, 3);
}
