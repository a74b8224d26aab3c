/* tests/sim/sim_world.c - clock, random numbers, what happens when, the trace; see sim.h.
 *
 * The events to come stand in a heap, by time and then by the order in which they were asked for.
 * core/clock and core/rand are replaced here: both clocks are the world's, and random bytes come
 * from the seed.
 */
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/rand.h"

#define MONO_START (1000 * SIM_S)             /* the machine has been up for a while */
#define WALL_START UINT64_C(1790000000000000) /* us since 1970 */

struct event {
    uint64_t at_ns;
    uint64_t number;
    void (*what)(void *arg);
    void *arg;
};

struct kept {
    struct kept *next;
    alignas(16) unsigned char bytes[];
};

struct sim_knobs sim_knobs;

static struct {
    const char *name; /* of the case */
    uint64_t seed, rand_state;
    uint64_t now;
    int64_t skew_us; /* of the wall clock */
    bool loud;
    struct event *heap;
    size_t count, room;
    uint64_t numbers;
    struct kept *kept;
    char *trace;
    size_t trace_len, trace_room;
} world;

/* ---- life ---- */

void sim_world_begin(const char *name, uint64_t seed, bool loud)
{
    world.name = name;
    world.seed = seed;
    world.rand_state = seed * 0x9e3779b97f4a7c15u + 1;
    world.now = 0;
    world.skew_us = 0;
    world.loud = loud;
    world.numbers = 0;
    memset(&sim_knobs, 0, sizeof(sim_knobs));
}

void sim_world_end(void)
{
    while (world.kept) {
        struct kept *kept = world.kept;

        world.kept = kept->next;
        free(kept);
    }
    free(world.heap);
    free(world.trace);
    memset(&world, 0, sizeof(world));
}

/* The simulation's own memory never fails: that would say nothing about the hub. */
static void *must(void *mem)
{
    if (!mem)
        abort();
    return mem;
}

void *sim_keep(size_t size)
{
    struct kept *kept = must(calloc(1, sizeof(*kept) + size));

    kept->next = world.kept;
    world.kept = kept;
    return kept->bytes;
}

/* ---- chance ---- */

uint64_t sim_rand(void)
{
    uint64_t z = world.rand_state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t n)
{
    return (uint64_t)((unsigned __int128)sim_rand() * n >> 64);
}

bool sim_chance(unsigned per_1000)
{
    return per_1000 && sim_below(1000) < per_1000;
}

uint64_t sim_soon(void)
{
    uint64_t longest = RH_MAX(sim_knobs.delay_us, 2u) * SIM_US;

    return world.now + sim_below(sim_chance(900) ? longest / 20 + 1 : longest);
}

void rh_rand_bytes(void *dst, size_t len)
{
    uint8_t *at = dst;

    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(sim_rand() >> 32);
}

/* ---- time ---- */

uint64_t sim_now(void)
{
    return world.now;
}

void sim_move_clock(uint64_t to_ns)
{
    rh_assert(to_ns >= world.now);
    world.now = to_ns;
}

uint64_t rh_clock_mono_ns(void)
{
    return MONO_START + world.now;
}

uint64_t rh_clock_wall_us(void)
{
    return (uint64_t)((int64_t)(WALL_START + world.now / 1000) + world.skew_us);
}

void sim_jump_wall(int64_t by_us)
{
    sim_trace("the wall clock jumps by %lld us", (long long)by_us);
    world.skew_us += by_us;
}

void rh_clock_nap_ms(unsigned ms)
{
    world.now += ms * UINT64_C(1000000);
}

/* ---- what happens when ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number < b->number;
}

static void swap(size_t i, size_t k)
{
    struct event kept = world.heap[i];

    world.heap[i] = world.heap[k];
    world.heap[k] = kept;
}

void sim_at(uint64_t at_ns, void (*what)(void *arg), void *arg)
{
    size_t i = world.count++;

    if (world.count > world.room) {
        world.room = RH_MAX(world.room * 2, (size_t)256);
        world.heap = must(realloc(world.heap, world.room * sizeof(*world.heap)));
    }
    world.heap[i] = (struct event){RH_MAX(at_ns, world.now), world.numbers++, what, arg};
    for (; i && before(&world.heap[i], &world.heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(i, (i - 1) / 2);
}

uint64_t sim_next_event(void)
{
    return world.count ? world.heap[0].at_ns : SIM_NEVER;
}

static struct event take_first(void)
{
    struct event first = world.heap[0];
    size_t i = 0, least;

    world.heap[0] = world.heap[--world.count];
    for (;; i = least) {
        least = i;
        for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < world.count; k++)
            if (before(&world.heap[k], &world.heap[least]))
                least = k;
        if (least == i)
            return first;
        swap(i, least);
    }
}

void sim_run_events(void)
{
    while (world.count && world.heap[0].at_ns <= world.now) {
        struct event event = take_first();

        event.what(event.arg);
    }
}

/* ---- the trace ---- */

void sim_trace(const char *format, ...)
{
    char line[256];
    va_list args;
    int head = snprintf(line, sizeof(line), "%4u.%09u ", (unsigned)(world.now / SIM_S),
                        (unsigned)(world.now % SIM_S));
    size_t len;

    va_start(args, format);
    vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, args);
    va_end(args);
    len = strlen(line);
    line[len++] = '\n';
    if (world.loud)
        fwrite(line, 1, len, stdout);
    if (world.trace_len + len > world.trace_room) {
        world.trace_room = RH_MAX(world.trace_room * 2, (size_t)65536);
        world.trace = must(realloc(world.trace, world.trace_room));
    }
    memcpy(world.trace + world.trace_len, line, len);
    world.trace_len += len;
}

const char *sim_trace_text(size_t *ret_len)
{
    *ret_len = world.trace_len;
    return world.trace;
}

/* ---- the end of a run that failed ---- */

static void say_how(void)
{
    char text[300];
    /* Also in a signal handler: the process is dying, and a sentence is worth the risk. */
    int len = /* NOLINTNEXTLINE(bugprone-signal-handler) */
        snprintf(text, sizeof(text),
                 "\nsim: seed %llu, case %s, failed at %llu.%06llu s; to see it: "
                 "build/release/tests/sim/sim --seed %llu --runs 1 --case %s --trace\n",
                 (unsigned long long)world.seed, world.name,
                 (unsigned long long)(world.now / SIM_S),
                 (unsigned long long)(world.now % SIM_S / 1000), (unsigned long long)world.seed,
                 world.name);

    (void)!write(STDERR_FILENO, text, (size_t)len);
}

void sim_fail(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "sim: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    say_how();
    _exit(1);
}

static void crashed(int number)
{
    say_how();
    signal(number, SIG_DFL);
    raise(number);
}

#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_set_death_callback(void (*callback)(void));
#endif

void sim_on_crash(void)
{
    signal(SIGABRT, crashed);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(say_how);
#else
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
#endif
}
