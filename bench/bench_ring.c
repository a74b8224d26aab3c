/* bench/bench_ring.c - what a hop from thread to thread costs: the ring alone, and the mesh.
 *
 * Method  Two threads, pinned to the first two allowed CPUs, both spinning (nobody sleeps: a
 *         wake-up costs the same whatever the queue). The producer fills cells and publishes every
 *         `batch` events; the consumer reads a field of each and gives space back at the end of
 *         what it saw. Wall time of the whole run by the number of events; the median, best and
 *         worst of several runs, kinds alternating, so that a noisy neighbour hits all of them.
 *         "mesh tell" adds the bitmap, the sleeping flag and the budgeted pop; "mesh ask" counts a
 *         request and its reply as two hops, with the real credits.
 * Use     bench_ring [runs] [events in millions]
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "core/limits.h"
#include "core/mem.h"
#include "core/mesh.h"
#include "core/ring.h"

#define RUNS_MAX 101

struct job {
    const char *name;
    double (*run)(const struct job *job, uint64_t events);
    uint32_t slots;
    uint32_t batch;
    double ns[RUNS_MAX];
};

static int cpus[2];

struct both {
    pthread_barrier_t start;
    struct rh_ring *ring;
    struct rh_net *net;
    uint64_t events;
    uint32_t batch;
    uint64_t sum;
};

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        perror("bench_ring: sched_setaffinity");
}

/* Two different CPUs out of those that we may use. */
static void find_cpus(void)
{
    cpu_set_t set;
    int found = 0;

    sched_getaffinity(0, sizeof(set), &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET(cpu, &set))
            cpus[found++] = cpu;
    if (found < 2) {
        fprintf(stderr, "bench_ring: needs two CPUs\n");
        exit(1);
    }
}

/* ---- the ring alone ---- */

static void *ring_producer(void *arg)
{
    struct both *both = arg;
    uint32_t filled = 0;

    pin(cpus[0]);
    pthread_barrier_wait(&both->start);
    for (uint64_t i = 0; i < both->events;) {
        struct rh_event *ev = rh_ring_reserve(both->ring);

        if (!ev) {
            rh_ring_publish(both->ring);
            filled = 0;
            __builtin_ia32_pause();
            continue;
        }
        ev->kind = RH_EV_SEND;
        ev->msg = both;
        ev->a = i++;
        rh_ring_commit(both->ring);
        if (++filled == both->batch) {
            rh_ring_publish(both->ring);
            filled = 0;
        }
    }
    rh_ring_publish(both->ring);
    return NULL;
}

static void ring_consume(struct both *both)
{
    for (uint64_t i = 0; i < both->events;) {
        const struct rh_event *ev = rh_ring_peek(both->ring);

        if (!ev) {
            rh_ring_release(both->ring);
            __builtin_ia32_pause();
            continue;
        }
        both->sum += ev->a + (ev->msg == both);
        rh_ring_drop(both->ring);
        i++;
    }
    rh_ring_release(both->ring);
}

static double run_ring(const struct job *job, uint64_t events)
{
    struct both both = {.events = events, .batch = job->batch};
    pthread_t producer;
    double start;

    both.ring = rh_ring_init(rh_mem_zalloc_aligned(rh_ring_bytes(job->slots)), job->slots);
    pthread_barrier_init(&both.start, NULL, 2);
    pthread_create(&producer, NULL, ring_producer, &both);
    pin(cpus[1]);
    pthread_barrier_wait(&both.start);
    start = now_ns();
    ring_consume(&both);
    start = now_ns() - start;
    pthread_join(producer, NULL);
    pthread_barrier_destroy(&both.start);
    rh_mem_free(both.ring);
    rh_assert(both.sum == events * (events - 1) / 2 + events);
    return start / (double)events;
}

/* ---- through the mesh ---- */

static void wake_nobody(void *arg, unsigned tid)
{
}

static void on_told(void *arg, const struct rh_event *ev)
{
    struct both *both = arg;

    both->sum += ev->a;
}

static void *tell_producer(void *arg)
{
    struct both *both = arg;
    struct rh_mesh *mesh = rh_net_member(both->net, 0);
    uint32_t room = 0;

    pin(cpus[0]);
    pthread_barrier_wait(&both->start);
    for (uint64_t i = 0; i < both->events;) {
        if (room < both->batch) { /* the spill is not what we measure */
            __builtin_ia32_pause();
            room = RH_RING_SLOTS - 1 - rh_net_depth_any(both->net, 0, 1);
            continue;
        }
        room -= both->batch;
        for (uint32_t n = 0; n < both->batch && i < both->events; n++) {
            struct rh_event ev = {.kind = RH_EV_QUIET, .a = i++};

            rh_assert(rh_mesh_tell(mesh, 1, &ev) == RH_OK);
        }
        rh_mesh_publish(mesh);
    }
    return NULL;
}

static double run_tell(const struct job *job, uint64_t events)
{
    struct both both = {.events = events, .batch = job->batch};
    pthread_t producer;
    struct rh_mesh *mesh;
    double start;

    rh_assert(rh_net_create(2, wake_nobody, NULL, &both.net) == RH_OK);
    mesh = rh_net_member(both.net, 1);
    pthread_barrier_init(&both.start, NULL, 2);
    pthread_create(&producer, NULL, tell_producer, &both);
    pin(cpus[1]);
    pthread_barrier_wait(&both.start);
    start = now_ns();
    for (uint64_t got = 0; got < events;)
        got += rh_mesh_pop(mesh, on_told, &both);
    start = now_ns() - start;
    pthread_join(producer, NULL);
    pthread_barrier_destroy(&both.start);
    rh_net_destroy(both.net);
    rh_assert(both.sum == events * (events - 1) / 2);
    return start / (double)events;
}

static void answer(void *arg, const struct rh_event *ev)
{
    struct rh_event reply = {.kind = RH_EV_SENT, .a = ev->a};

    rh_mesh_reply(arg, ev, &reply);
}

static void *answerer(void *arg)
{
    struct both *both = arg;
    struct rh_mesh *mesh = rh_net_member(both->net, 0);

    pin(cpus[0]);
    pthread_barrier_wait(&both->start);
    for (uint64_t got = 0; got < both->events;) {
        got += rh_mesh_pop(mesh, answer, mesh);
        rh_mesh_publish(mesh);
    }
    while (!rh_mesh_quiet(mesh)) /* what spilled */
        rh_mesh_publish(mesh);
    return NULL;
}

static double run_ask(const struct job *job, uint64_t events)
{
    struct both both = {.events = events / 2, .batch = job->batch};
    pthread_t other;
    struct rh_mesh *mesh;
    double start;
    uint64_t asked = 0;

    rh_assert(rh_net_create(2, wake_nobody, NULL, &both.net) == RH_OK);
    mesh = rh_net_member(both.net, 1);
    pthread_barrier_init(&both.start, NULL, 2);
    pthread_create(&other, NULL, answerer, &both);
    pin(cpus[1]);
    pthread_barrier_wait(&both.start);
    start = now_ns();
    for (uint64_t got = 0; got < both.events;) {
        for (uint32_t n = 0; n < job->batch && asked < both.events; n++) {
            struct rh_event ev = {.kind = RH_EV_SEND, .a = asked};

            /* Four batches ahead, like a shard whose clients wait for their answers. */
            if (asked - got >= 4 * job->batch || rh_mesh_ask(mesh, 0, &ev, 64) < 0)
                break;
            asked++;
        }
        rh_mesh_publish(mesh);
        got += rh_mesh_pop(mesh, on_told, &both);
    }
    start = now_ns() - start;
    pthread_join(other, NULL);
    pthread_barrier_destroy(&both.start);
    rh_net_destroy(both.net);
    return start / (double)(2 * both.events);
}

/* ---- the report ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print_machine(unsigned runs, uint64_t events)
{
    struct utsname os;
    char line[256];
    FILE *info = fopen("/proc/cpuinfo", "r");

    uname(&os);
    while (info && fgets(line, sizeof(line), info))
        if (strncmp(line, "model name", 10) == 0) {
            printf("machine  %s", strchr(line, ':') + 2);
            break;
        }
    if (info)
        fclose(info);
    printf("         %s %s, gcc %s; CPUs %d and %d\n", os.sysname, os.release, __VERSION__, cpus[0],
           cpus[1]);
    printf("method   %u runs of %llu events, two pinned spinning threads, wall time per event\n\n",
           runs, (unsigned long long)events);
    printf("%-12s %6s %6s %10s %8s %8s\n", "what", "slots", "batch", "median ns", "best", "worst");
}

int main(int argc, char **argv)
{
    static struct job jobs[] = {
        {"ring", run_ring, RH_RING_SLOTS, 1, {0}},
        {"ring", run_ring, RH_RING_SLOTS, 8, {0}},
        {"ring", run_ring, RH_RING_SLOTS, 32, {0}},
        {"ring", run_ring, 128, 32, {0}},
        {"ring", run_ring, 1024, 32, {0}},
        {"mesh tell", run_tell, RH_RING_SLOTS, 1, {0}},
        {"mesh tell", run_tell, RH_RING_SLOTS, 32, {0}},
        {"mesh ask", run_ask, RH_RING_SLOTS, 1, {0}},
        {"mesh ask", run_ask, RH_RING_SLOTS, 32, {0}},
    };
    unsigned runs = argc > 1 ? (unsigned)atoi(argv[1]) : 9;
    uint64_t events = (argc > 2 ? strtoull(argv[2], NULL, 10) : 4) * 1000000;

    if (runs < 1 || runs > RUNS_MAX || events == 0) {
        fprintf(stderr, "use: bench_ring [runs, up to %d] [events in millions]\n", RUNS_MAX);
        return 2;
    }
    find_cpus();
    print_machine(runs, events);
    for (unsigned run = 0; run < runs; run++)
        for (size_t i = 0; i < RH_COUNT(jobs); i++)
            jobs[i].ns[run] = jobs[i].run(&jobs[i], events);
    for (size_t i = 0; i < RH_COUNT(jobs); i++) {
        struct job *job = &jobs[i];

        qsort(job->ns, runs, sizeof(job->ns[0]), by_value);
        printf("%-12s %6u %6u %10.1f %8.1f %8.1f\n", job->name, job->slots, job->batch,
               job->ns[runs / 2], job->ns[0], job->ns[runs - 1]);
    }
    return 0;
}
