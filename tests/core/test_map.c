/* tests/core/test_map.c - the hash table against the simplest model there is: an array of flags. */
#include "core/map.h"

#include <stdlib.h>

#include "core/base.h"
#include "core/mem.h"
#include "core/ringhub.h"
#include "tests/rh_test.h"

struct thing {
    struct rh_map_node node;
    uint64_t key;
    unsigned visits;
    bool in;
};

static struct thing *things;
static size_t things_len;
static size_t things_in;

/* Few bits make hashes meet; 64 are as they are in life. */
static void make_things(size_t len, unsigned bits)
{
    things = calloc(len, sizeof(*things));
    ck_assert_ptr_nonnull(things);
    things_len = len;
    things_in = 0;
    for (size_t i = 0; i < len; i++)
        things[i].key = rh_test_rand() >> (64 - bits);
}

static void free_things(void)
{
    free(things);
    things = NULL;
}

static bool is_found(const struct rh_map *m, const struct thing *thing)
{
    struct rh_map_node *n = rh_map_first(m, thing->key);

    while (n && n != &thing->node) {
        RH_OK_IF(n->hash == thing->key);
        n = rh_map_again(n);
    }
    return n != NULL;
}

static void toggle(struct rh_map *m, struct thing *thing)
{
    if (thing->in) {
        rh_map_del(m, &thing->node);
        things_in--;
    } else {
        rh_map_add(m, &thing->node, thing->key);
        things_in++;
    }
    thing->in = !thing->in;
    RH_OK_IF(rh_map_count(m) == things_in);
}

static void count_visit(void *arg, struct rh_map_node *node)
{
    rh_container_of(node, struct thing, node)->visits++;
}

/* The whole table against the whole model, and the shape that map.c promises. */
static void check_all(struct rh_map *m)
{
    for (size_t i = 0; i < things_len; i++) {
        RH_OK_IF(is_found(m, &things[i]) == things[i].in);
        things[i].visits = 0;
    }
    rh_map_each(m, count_visit, NULL);
    for (size_t i = 0; i < things_len; i++)
        RH_OK_IF(things[i].visits == things[i].in);
    RH_OK_IF(m->buckets <= m->room && m->buckets <= m->mask + 1 && m->buckets > m->mask >> 1);
}

RH_TEST(map, is_empty_at_first_and_finds_nothing)
{
    struct rh_map m;

    RH_EQ_INT(rh_map_init(&m), 0);
    RH_EQ_U64(rh_map_count(&m), 0);
    RH_OK_IF(rh_map_first(&m, 0) == NULL);
    RH_OK_IF(rh_map_first(&m, UINT64_MAX) == NULL);
    rh_map_fini(&m);
}

RH_TEST(map, fini_accepts_zeroed_memory_and_itself_a_second_time)
{
    struct rh_map m = {0};

    rh_map_fini(&m);
    RH_EQ_INT(rh_map_init(&m), 0);
    rh_map_fini(&m);
    rh_map_fini(&m);
}

RH_TEST(map, tells_hashes_apart_by_all_of_their_bits)
{
    struct rh_map m;
    struct rh_map_node a;
    struct rh_map_node b;

    RH_EQ_INT(rh_map_init(&m), 0);
    for (int bit = 0; bit < 64; bit++) {
        rh_map_add(&m, &a, 0x1234567);
        rh_map_add(&m, &b, 0x1234567 ^ UINT64_C(1) << bit);
        RH_OK_IF(rh_map_first(&m, a.hash) == &a && rh_map_again(&a) == NULL);
        RH_OK_IF(rh_map_first(&m, b.hash) == &b && rh_map_again(&b) == NULL);
        rh_map_del(&m, &a);
        RH_OK_IF(rh_map_first(&m, 0x1234567) == NULL);
        RH_OK_IF(rh_map_first(&m, b.hash) == &b);
        rh_map_del(&m, &b);
    }
    rh_map_fini(&m);
}

RH_TEST(map, lists_each_node_of_the_same_hash_once)
{
    enum { same = 100 };
    struct rh_map m;
    struct thing all[same] = {0};
    unsigned found = 0;

    RH_EQ_INT(rh_map_init(&m), 0);
    for (int i = 0; i < same; i++) {
        rh_map_add(&m, &all[i].node, 77);
    }
    for (struct rh_map_node *n = rh_map_first(&m, 77); n; n = rh_map_again(n), found++)
        RH_EQ_INT(rh_container_of(n, struct thing, node)->visits++, 0);
    RH_EQ_INT(found, same);
    rh_map_fini(&m);
}

/* Goal    the same as the model after every kind of history.
 * Method  random toggles among more and more and then fewer and fewer things, so that the table
 *         grows and shrinks through all of its sizes several times; a million toggles a run. */
static void random_history(unsigned bits)
{
    enum { len = 20000 };
    struct rh_map m;

    make_things(len, bits);
    RH_EQ_INT(rh_map_init(&m), 0);
    for (int wave = 0; wave < 5; wave++) {
        for (int step = 0; step < 200000; step++) {
            struct thing *thing = &things[rh_test_rand() % len];
            /* Rising: 7 of 8 deletions do not take place; falling: of the additions. */
            bool against = thing->in == (step < 100000);

            if (!against || rh_test_rand() % 8 == 0)
                toggle(&m, thing);
            RH_OK_IF(is_found(&m, thing) == thing->in);
        }
        check_all(&m);
    }
    for (size_t i = 0; i < len; i++)
        if (things[i].in)
            toggle(&m, &things[i]);
    check_all(&m);
    RH_OK_IF(m.buckets <= 8 && m.room <= 1024);
    rh_map_fini(&m);
    free_things();
}

RH_TEST(map, agrees_with_the_model_over_a_random_history)
{
    random_history(64);
}

RH_TEST(map, agrees_with_the_model_when_every_hash_is_shared_by_many)
{
    random_history(12);
}

RH_TEST(map, agrees_with_the_model_when_hashes_fill_part_of_the_buckets_only)
{
    random_history(14);
}

/* Goal    adding never fails: allocations that fail at random, often, cost speed and nothing else,
 *         and the table recovers when memory comes back. */
RH_TEST(map, loses_nothing_while_allocations_fail)
{
    enum { len = 50000 };
    struct rh_map m;

    make_things(len, 64);
    RH_EQ_INT(rh_map_init(&m), 0);
    for (int wave = 0; wave < 3; wave++) {
        for (size_t i = 0; i < len; i++) {
            if (rh_mem_fail_left() == 0 && rh_test_rand() % 4)
                rh_mem_fail_nth(1 + rh_test_rand() % 2);
            if (!things[i].in)
                toggle(&m, &things[i]);
            RH_OK_IF(is_found(&m, &things[i]));
            if (rh_test_rand() % 3 == 0)
                toggle(&m, &things[rh_test_rand() % (i + 1)]);
        }
        check_all(&m);
        for (size_t i = 0; i < len; i++) {
            if (rh_mem_fail_left() == 0)
                rh_mem_fail_nth(1);
            if (things[i].in && rh_test_rand() % 64)
                toggle(&m, &things[i]);
        }
        check_all(&m);
    }
    rh_mem_fail_nth(0);
    for (size_t i = 0; i < len; i++)
        if (!things[i].in)
            toggle(&m, &things[i]);
    check_all(&m);
    rh_map_fini(&m);
    free_things();
}

RH_TEST(map, catches_up_when_memory_returns)
{
    enum { len = 40000 };
    struct rh_map m;
    unsigned tries = 0;

    make_things(len, 64);
    RH_EQ_INT(rh_map_init(&m), 0);
    for (size_t i = 0; i < len / 2; i++) {
        rh_mem_fail_nth(1);
        toggle(&m, &things[i]);
        tries += rh_mem_fail_left() == 0;
    }
    RH_OK_IF(tries > 1 && tries < len / 2 / 200); /* now and then, not at every add */
    RH_EQ_U64(m.buckets, 8);                      /* not one allocation was granted */
    check_all(&m);
    rh_mem_fail_nth(0);
    for (size_t i = len / 2; i < len; i++)
        toggle(&m, &things[i]);
    RH_OK_IF(m.buckets + 512 >= len); /* two splits an add, after a wait of 256 */
    check_all(&m);
    rh_map_fini(&m);
    free_things();
}

static void whole_life(void *arg)
{
    struct rh_map m;

    for (size_t i = 0; i < things_len; i++)
        things[i].in = false;
    things_in = 0;
    if (rh_map_init(&m) < 0) {
        rh_map_fini(&m); /* zeroed */
        return;
    }
    for (size_t i = 0; i < things_len; i++)
        toggle(&m, &things[i]);
    for (size_t i = 0; i < things_len; i++)
        toggle(&m, &things[i]);
    RH_EQ_U64(rh_map_count(&m), 0);
    rh_map_fini(&m);
}

RH_TEST(map, leaves_nothing_behind_whichever_allocation_fails)
{
    make_things(12000, 64); /* 12 segments: the directory grows, too */
    rh_test_fail_each_alloc(whole_life, NULL);
    free_things();
}

struct sweep {
    struct rh_map *m;
    unsigned keep; /* every so many-th */
    unsigned seen;
};

static void sweep_visit(void *arg, struct rh_map_node *node)
{
    struct sweep *sweep = arg;
    struct thing *thing = rh_container_of(node, struct thing, node);

    thing->visits++;
    if (sweep->seen++ % sweep->keep) {
        toggle(sweep->m, thing);
        memset(node, 0xa5, sizeof(*node)); /* as if freed */
    }
}

/* Goal    a visitor may delete what it is given: everyone is still visited once, and the table is
 *         as small afterwards as if the deletions had come alone. */
RH_TEST(map, each_visits_everyone_once_while_the_visitor_deletes)
{
    static const unsigned keeps[] = {1, 2, 50, 1000000};

    for (size_t k = 0; k < RH_COUNT(keeps); k++) {
        struct rh_map m;
        struct sweep sweep = {&m, keeps[k], 0};

        make_things(10000, 64);
        RH_EQ_INT(rh_map_init(&m), 0);
        for (size_t i = 0; i < things_len; i++)
            toggle(&m, &things[i]);
        rh_map_each(&m, sweep_visit, &sweep);
        RH_EQ_INT(sweep.seen, 10000);
        for (size_t i = 0; i < things_len; i++)
            RH_OK_IF(things[i].visits == 1);
        RH_OK_IF(m.buckets <= RH_MAX(8, 4 * things_in + 4));
        check_all(&m);
        rh_map_fini(&m);
        free_things();
    }
}

static void add_visit(void *arg, struct rh_map_node *node)
{
    struct sweep *sweep = arg;

    rh_container_of(node, struct thing, node)->visits++;
    if (sweep->seen < things_len / 2) {
        RH_OK_IF(!things[things_len / 2 + sweep->seen].in);
        toggle(sweep->m, &things[things_len / 2 + sweep->seen]);
        sweep->seen++;
    }
}

RH_TEST(map, each_goes_on_while_the_visitor_adds)
{
    struct rh_map m;
    struct sweep sweep = {&m, 0, 0};

    make_things(4000, 64);
    RH_EQ_INT(rh_map_init(&m), 0);
    for (size_t i = 0; i < 2000; i++)
        toggle(&m, &things[i]);
    rh_map_each(&m, add_visit, &sweep);
    for (size_t i = 0; i < 4000; i++) /* the old ones once, the new ones at most once */
        RH_OK_IF(things[i].visits == 1 || (i >= 2000 && things[i].visits == 0));
    RH_EQ_U64(things_in, 4000);
    check_all(&m);
    rh_map_fini(&m);
    free_things();
}

/* Goal    no operation does more than a step: growth is by at most two buckets an add, shrinking by
 *         four a del, also where sizes double and segments end. */
RH_TEST(map, changes_by_a_few_buckets_at_a_time)
{
    enum { len = 100000 };
    struct rh_map m;

    make_things(len, 64);
    RH_EQ_INT(rh_map_init(&m), 0);
    for (size_t i = 0; i < len; i++) {
        size_t before = m.buckets;

        toggle(&m, &things[i]);
        RH_OK_IF(m.buckets >= before && m.buckets <= before + 2);
        RH_OK_IF(m.count <= m.buckets);
    }
    for (size_t i = 0; i < len; i++) {
        size_t before = m.buckets;

        toggle(&m, &things[i]);
        RH_OK_IF(m.buckets <= before && m.buckets + 4 >= before);
        RH_OK_IF(m.buckets <= RH_MAX(8, 4 * m.count + 4) || m.buckets > len / 2);
    }
    RH_EQ_U64(m.buckets, 8);
    rh_map_fini(&m);
    free_things();
}

RH_TEST(map, does_not_change_when_one_comes_and_goes)
{
    struct rh_map m;

    make_things(5001, 64);
    RH_EQ_INT(rh_map_init(&m), 0);
    for (size_t i = 0; i < 5001; i++)
        toggle(&m, &things[i]);
    for (int i = 0; i < 1000; i++) {
        toggle(&m, &things[5000]);
        RH_EQ_U64(m.buckets, 5001);
    }
    rh_map_fini(&m);
    free_things();
}
