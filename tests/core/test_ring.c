/* tests/core/test_ring.c - the ring seen from one thread: what is visible when, and how much fits.
 *
 * tests/race/test_ring_race.c has the two threads.
 */
#include "core/ring.h"

#include "core/mem.h"
#include "tests/rh_test.h"

static struct rh_ring *make(uint32_t slots)
{
    return rh_ring_init(rh_mem_zalloc_aligned(rh_ring_bytes(slots)), slots);
}

/* Commits events numbered from `first` until `n` are in or the ring is full; returns how many. */
static uint32_t fill(struct rh_ring *ring, uint64_t first, uint32_t n)
{
    uint32_t done = 0;
    struct rh_event *ev;

    while (done < n && (ev = rh_ring_reserve(ring))) {
        *ev = (struct rh_event){.kind = RH_EV_QUIET, .a = first + done++};
        rh_ring_commit(ring);
    }
    return done;
}

/* Drops what is visible, checking the numbers; returns how many. */
static uint32_t drain(struct rh_ring *ring, uint64_t first)
{
    uint32_t done = 0;
    const struct rh_event *ev;

    while ((ev = rh_ring_peek(ring))) {
        RH_EQ_U64(ev->a, first + done++);
        rh_ring_drop(ring);
    }
    return done;
}

RH_TEST(ring, holds_one_event_less_than_it_has_slots)
{
    for (uint32_t slots = 4; slots <= 1024; slots *= 2) {
        struct rh_ring *ring = make(slots);

        RH_EQ_U64(fill(ring, 0, 2000), slots - 1);
        RH_OK_IF(rh_ring_reserve(ring) == NULL);
        RH_OK_IF(rh_ring_publish(ring));
        RH_OK_IF(rh_ring_reserve(ring) == NULL);
        RH_EQ_U64(rh_ring_depth_any(ring), slots - 1);
        RH_EQ_U64(drain(ring, 0), slots - 1);
        rh_mem_free(ring);
    }
}

RH_TEST(ring, needs_exactly_the_memory_that_it_asked_for)
{
    uint8_t *mem = rh_guard(NULL, rh_ring_bytes(8));
    struct rh_ring *ring = rh_ring_init(mem, 8);

    RH_EQ_U64(rh_ring_bytes(8) % RH_CACHE_LINE, 0);
    for (uint64_t round = 0; round < 5; round++) {
        RH_EQ_U64(fill(ring, round * 7, 7), 7);
        rh_ring_publish(ring);
        RH_EQ_U64(drain(ring, round * 7), 7);
        rh_ring_release(ring);
    }
}

RH_TEST(ring, shows_nothing_before_it_is_published)
{
    struct rh_ring *ring = make(16);

    RH_OK_IF(rh_ring_peek(ring) == NULL);
    RH_OK_IF(!rh_ring_publish(ring));
    fill(ring, 0, 5);
    RH_OK_IF(rh_ring_peek(ring) == NULL);
    RH_EQ_U64(rh_ring_depth_any(ring), 0);
    RH_OK_IF(rh_ring_publish(ring));
    RH_OK_IF(!rh_ring_publish(ring));
    RH_EQ_U64(rh_ring_depth_any(ring), 5);
    RH_EQ_U64(drain(ring, 0), 5);
    rh_mem_free(ring);
}

RH_TEST(ring, a_reserved_cell_that_is_not_committed_does_not_count)
{
    struct rh_ring *ring = make(16);
    struct rh_event *ev = rh_ring_reserve(ring);

    ev->a = 99;
    RH_OK_IF(rh_ring_reserve(ring) == ev);
    RH_OK_IF(!rh_ring_publish(ring));
    RH_OK_IF(rh_ring_peek(ring) == NULL);
    rh_mem_free(ring);
}

RH_TEST(ring, peeking_twice_shows_the_same_cell)
{
    struct rh_ring *ring = make(16);

    fill(ring, 7, 2);
    rh_ring_publish(ring);
    RH_OK_IF(rh_ring_peek(ring) == rh_ring_peek(ring));
    RH_EQ_U64(rh_ring_peek(ring)->a, 7);
    rh_ring_drop(ring);
    RH_EQ_U64(rh_ring_peek(ring)->a, 8);
    rh_mem_free(ring);
}

RH_TEST(ring, space_comes_back_with_release)
{
    struct rh_ring *ring = make(64);

    fill(ring, 0, 63);
    rh_ring_publish(ring);
    for (int i = 0; i < 5; i++) {
        RH_OK_IF(rh_ring_peek(ring) != NULL);
        rh_ring_drop(ring);
    }
    RH_EQ_U64(rh_ring_depth_any(ring), 63);
    RH_OK_IF(rh_ring_reserve(ring) == NULL);
    rh_ring_release(ring);
    RH_EQ_U64(rh_ring_depth_any(ring), 58);
    RH_EQ_U64(fill(ring, 63, 100), 5);
    rh_ring_publish(ring);
    RH_EQ_U64(drain(ring, 5), 63);
    rh_mem_free(ring);
}

RH_TEST(ring, a_quarter_dropped_comes_back_without_release)
{
    struct rh_ring *ring = make(64);

    fill(ring, 0, 63);
    rh_ring_publish(ring);
    for (int i = 0; i < 16; i++) {
        RH_OK_IF(rh_ring_peek(ring) != NULL);
        rh_ring_drop(ring);
    }
    RH_EQ_U64(fill(ring, 63, 100), 16);
    rh_mem_free(ring);
}

RH_TEST(ring, zeroed_memory_has_no_depth)
{
    struct rh_ring *ring = rh_mem_zalloc_aligned(rh_ring_bytes(16));

    RH_EQ_U64(rh_ring_depth_any(ring), 0);
    rh_mem_free(ring);
}

/* Method  any mix of fills, publishes, drops and releases against two plain counters. */
RH_TEST(ring, keeps_order_and_loses_nothing_in_any_mix_of_batches)
{
    struct rh_ring *ring = make(32);
    uint64_t committed = 0, published = 0, dropped = 0;

    for (int step = 0; step < 200000; step++) {
        switch (rh_test_rand() % 4) {
        case 0:
            committed += fill(ring, committed, (uint32_t)(rh_test_rand() % 12));
            break;
        case 1:
            RH_EQ_INT(rh_ring_publish(ring), published != committed);
            published = committed;
            break;
        case 2:
            for (uint64_t n = rh_test_rand() % 12; n && dropped < published; n--) {
                const struct rh_event *ev = rh_ring_peek(ring);

                RH_OK_IF(ev != NULL);
                RH_EQ_U64(ev->a, dropped++);
                rh_ring_drop(ring);
            }
            RH_EQ_INT(rh_ring_peek(ring) != NULL, dropped < published);
            break;
        default:
            rh_ring_release(ring);
            RH_EQ_U64(rh_ring_depth_any(ring), published - dropped);
        }
        RH_OK_IF(committed - dropped <= 31);
    }
    RH_OK_IF(dropped > 10000);
    rh_mem_free(ring);
}

RH_TEST(event, every_kind_has_a_name_a_class_and_a_sentence)
{
    for (unsigned kind = RH_EV_NONE + 1; kind < RH_EV_KINDS; kind++) {
        RH_OK_IF(strcmp(rh_event_name(kind), "?") != 0);
        RH_OK_IF(rh_event_help(kind)[0] != '\0');
        RH_OK_IF(rh_event_class(kind) != RH_CLASS_NONE);
    }
    RH_EQ_STR(rh_event_name(RH_EV_NONE), "?");
    RH_EQ_STR(rh_event_name(RH_EV_KINDS), "?");
    RH_EQ_STR(rh_event_help(255), "");
    RH_EQ_INT(rh_event_class(255), RH_CLASS_NONE);
}

RH_TEST(event, every_request_has_exactly_one_kind_of_reply_and_replies_are_consequences)
{
    for (unsigned kind = RH_EV_NONE + 1; kind < RH_EV_KINDS; kind++) {
        unsigned replies = 0;

        for (unsigned other = RH_EV_NONE + 1; other < RH_EV_KINDS; other++)
            replies += rh_event_answers(other) == kind;
        RH_EQ_U64(replies, rh_event_is_request(kind) ? 1 : 0);
        if (rh_event_is_reply(kind)) {
            RH_EQ_INT(rh_event_class(kind), RH_CLASS_CONSEQUENCE);
            RH_OK_IF(rh_event_is_request(rh_event_answers(kind)));
        }
    }
    RH_EQ_STR(rh_event_name(RH_EV_SENT), "SENT");
    RH_EQ_INT(rh_event_answers(RH_EV_HANDED), RH_EV_HANDOVER);
    RH_OK_IF(!rh_event_is_reply(RH_EV_QUIET));
}
