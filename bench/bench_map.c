/* bench/bench_map.c - what core/map costs per operation, and its longest single add.
 *
 * Method  nodes lie in one array and are used in a random order, so that every node is a cache miss
 *         once the array is larger than the caches, as it is in life. Costs are the best of ROUNDS
 *         rounds, each over at least a million operations. The longest add is timed one by one, on a
 *         map that starts empty, once by the thread's own CPU time (the quietest of ROUNDS rounds:
 *         the map's doing) and once by the clock (the worst of all: with whatever else ran on the
 *         machine). Hashes are random; hashing a name is shown apart.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "core/base.h"
#include "core/clock.h"
#include "core/hash.h"
#include "core/id.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/prng.h"
#include "core/timer.h"

#define ROUNDS  5
#define OPS_MIN 1000000

struct thing {
    uint64_t key;
    struct rh_map_node node;
    uint64_t payload[5]; /* a cache line in all */
};

static struct rh_prng prng;
static volatile uint64_t sink; /* keeps results from being optimised away */

static void shuffle(struct thing **order, size_t len)
{
    for (size_t i = len - 1; i > 0; i--) {
        size_t other = rh_prng_next(&prng) % (i + 1);
        struct thing *swap = order[i];

        order[i] = order[other];
        order[other] = swap;
    }
}

static struct rh_map_node *find(const struct rh_map *m, uint64_t key)
{
    struct rh_map_node *n = rh_map_first(m, key);

    while (n && rh_container_of(n, struct thing, node)->key != key)
        n = rh_map_again(n);
    return n;
}

struct cost {
    uint64_t add, hit, miss, del; /* ns, of a whole round */
};

static void one_life(struct thing **order, size_t len, struct cost *sum)
{
    struct rh_map m;
    uint64_t t[5];

    if (rh_map_init(&m) < 0)
        abort();
    t[0] = rh_clock_mono_ns();
    for (size_t i = 0; i < len; i++)
        rh_map_add(&m, &order[i]->node, order[i]->key);
    t[1] = rh_clock_mono_ns();
    for (size_t i = 0; i < len; i++)
        sink += find(&m, order[(i * 7919) % len]->key) != NULL;
    t[2] = rh_clock_mono_ns();
    for (size_t i = 0; i < len; i++)
        sink += find(&m, order[i]->key ^ 0x5555) != NULL;
    t[3] = rh_clock_mono_ns();
    for (size_t i = 0; i < len; i++)
        rh_map_del(&m, &order[(i * 7919) % len]->node);
    t[4] = rh_clock_mono_ns();
    rh_map_fini(&m);
    sum->add += t[1] - t[0];
    sum->hit += t[2] - t[1];
    sum->miss += t[3] - t[2];
    sum->del += t[4] - t[3];
}

/* Of this thread: stands still while others run. */
static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t longest_add(struct thing **order, size_t len, uint64_t (*clock_ns)(void))
{
    struct rh_map m;
    uint64_t longest = 0;

    if (rh_map_init(&m) < 0)
        abort();
    for (size_t i = 0; i < len; i++) {
        uint64_t start = clock_ns();
        uint64_t took;

        rh_map_add(&m, &order[i]->node, order[i]->key);
        took = clock_ns() - start;
        longest = RH_MAX(longest, took);
    }
    rh_map_fini(&m);
    return longest;
}

static void bench_size(size_t len)
{
    struct thing *things = rh_mem_zalloc(len * sizeof(*things));
    struct thing **order = rh_mem_alloc(len * sizeof(*order));
    struct cost best = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    uint64_t quietest = UINT64_MAX;
    uint64_t worst = 0;
    size_t lives = RH_MAX(1, OPS_MIN / len);
    double ops = (double)(lives * len);

    if (!things || !order)
        abort();
    for (size_t i = 0; i < len; i++) {
        things[i].key = rh_prng_next(&prng);
        order[i] = &things[i];
    }
    shuffle(order, len);
    for (int round = 0; round < ROUNDS; round++) {
        struct cost sum = {0};
        uint64_t by_cpu;
        uint64_t by_clock;

        for (size_t i = 0; i < lives; i++)
            one_life(order, len, &sum);
        best.add = RH_MIN(best.add, sum.add);
        best.hit = RH_MIN(best.hit, sum.hit);
        best.miss = RH_MIN(best.miss, sum.miss);
        best.del = RH_MIN(best.del, sum.del);
        by_cpu = longest_add(order, len, cpu_ns);
        by_clock = longest_add(order, len, rh_clock_mono_ns);
        quietest = RH_MIN(quietest, by_cpu);
        worst = RH_MAX(worst, by_clock);
    }
    printf("%9zu  %6.1f  %6.1f  %6.1f  %6.1f  %10.1f  %10.1f\n", len, (double)best.add / ops,
           (double)best.hit / ops, (double)best.miss / ops, (double)best.del / ops,
           (double)quietest / 1000, (double)worst / 1000);
    rh_mem_free(order);
    rh_mem_free(things);
}

/* The one cost of an add that grows with the map: doubling the directory of segments, here to what
 * 100 M entries need (8 bytes per 1,024), and into fresh memory, as realloc does when it cannot
 * extend in place. */
static void bench_directory(void)
{
    size_t size = 100000000 / 1024 * sizeof(void *);
    uint64_t quietest = UINT64_MAX;
    char *old = rh_mem_zalloc(size / 2);

    if (!old)
        abort();
    memset(old, 1, size / 2);
    for (int round = 0; round < 50; round++) {
        uint64_t start = cpu_ns();
        char *mem = rh_mem_alloc(size);
        uint64_t took;

        if (!mem)
            abort();
        memcpy(mem, old, size / 2);
        took = cpu_ns() - start;
        sink += (uint64_t)mem[round];
        quietest = RH_MIN(quietest, took);
        rh_mem_free(mem);
        if (round == 0)
            printf("directory at 100 M entries, %zu KiB to %zu KiB: %.1f us the first time,",
                   size / 2048, size / 1024, (double)took / 1000);
    }
    printf(" %.1f us in warm memory\n", (double)quietest / 1000);
    rh_mem_free(old);
}

/* The neighbours that every look-up or message pays for as well. */
static void bench_hash_and_id(void)
{
    struct rh_hash_key key = {rh_prng_next(&prng), rh_prng_next(&prng)};
    char name[64] = "user:0123456789abcdef";
    struct rh_idgen gen;
    uint64_t start = rh_clock_mono_ns();

    for (uint32_t i = 0; i < OPS_MIN; i++) {
        name[5] = (char)i;
        sink += rh_hash(&key, name, 21);
    }
    printf("hash of 21 bytes: %.1f ns\n", (double)(rh_clock_mono_ns() - start) / OPS_MIN);

    rh_idgen_init(&gen, &prng);
    start = rh_clock_mono_ns();
    for (uint32_t i = 0; i < OPS_MIN; i++)
        rh_id_make(&gen, 1700000000000 + i / 100, name);
    printf("id: %.1f ns\n", (double)(rh_clock_mono_ns() - start) / OPS_MIN);
}

static void no_fire(void *arg, struct rh_timer *timer)
{
    sink++;
}

static void bench_timer(void)
{
    size_t len = OPS_MIN;
    struct rh_timer *timers = rh_mem_zalloc(len * sizeof(*timers));
    static struct rh_wheel w;
    uint64_t t[4];

    if (!timers)
        abort();
    rh_wheel_init(&w, 0);
    t[0] = rh_clock_mono_ns();
    for (size_t i = 0; i < len; i++)
        rh_timer_set(&w, &timers[i], 1 + rh_prng_next(&prng) % 60000);
    t[1] = rh_clock_mono_ns();
    for (size_t i = 0; i < len; i++)
        rh_timer_set(&w, &timers[i], 1 + rh_prng_next(&prng) % 60000);
    t[2] = rh_clock_mono_ns();
    for (uint64_t ms = 1; rh_wheel_count(&w); ms++)
        while (rh_wheel_next_ms(&w, ms) == 0)
            rh_wheel_advance(&w, ms, 1000, no_fire, NULL);
    t[3] = rh_clock_mono_ns();
    printf("timer, 1 M over 60 s: set %.1f ns, set again %.1f ns, move and fire %.1f ns\n",
           (double)(t[1] - t[0]) / OPS_MIN, (double)(t[2] - t[1]) / OPS_MIN,
           (double)(t[3] - t[2]) / OPS_MIN);
    rh_mem_free(timers);
}

int main(void)
{
    struct utsname u;

    rh_prng_init(&prng);
    uname(&u);
    printf("machine: %s %s; method: see bench/bench_map.c\n", u.machine, u.release);
    printf("%9s  %6s  %6s  %6s  %6s  %10s  %10s\n", "entries", "add", "hit", "miss", "del",
           "longest add", "worst");
    printf("%9s  %6s  %6s  %6s  %6s  %10s  %10s\n", "", "ns", "ns", "ns", "ns", "us, cpu",
           "us, clock");
    bench_size(1000);
    bench_size(100000);
    bench_size(1000000);
    bench_directory();
    bench_hash_and_id();
    bench_timer();
    return 0;
}
