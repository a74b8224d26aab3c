/* tests/race/test_mesh_race.c - the mesh between real threads that sleep, also under TSan.
 *
 * Goal    per pair of threads nothing is lost, doubled, reordered or torn, whatever spills; every
 *         request is answered once; no wake-up is lost.
 * Method  Each member asks and tells each other member a fixed number of times, in bursts of random
 *         length within a window, answers what it is asked, and waits on an eventfd whenever it can
 *         do nothing more. One number per ordered pair runs through requests, replies and tells
 *         alike. A request's payload is plain memory: the asker writes it, the answerer
 *         changes it, the asker checks and uses it again. The wait has a safety timeout: if it ends
 *         that way although something had been published, and no wake-up comes even then, the
 *         wake-up was lost. A thread beside them reads all gauges.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/limits.h"
#include "core/mem.h"
#include "core/mesh.h"
#include "tests/rh_test.h"

#define MEMBERS_MAX       4
#define SAFETY_TIMEOUT_MS 3000
#define GRACE_MS          1000

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SCALE 1
#else
#define SCALE 3
#endif

struct plan {
    unsigned members;
    uint64_t asks;   /* of each member to each other one; as many tells, hardly ahead of them */
    uint32_t window; /* requests outstanding per pair */
    uint32_t burst;  /* tells at once, at most */
    uint32_t pause;  /* spins before going to sleep, at most: to hit every moment */
};

/* A request's payload; it has one owner at a time. */
struct load {
    struct load *next;
    uint64_t value;
};

struct peer {
    uint64_t sent;     /* numbers given to events for them */
    uint64_t seen;     /* numbers seen from them */
    uint64_t asked;    /* of plan->asks */
    uint64_t told;     /* of plan->asks */
    uint64_t answered; /* replies that we popped */
    uint64_t heard;    /* their tells that we popped */
    uint64_t served;   /* their requests that we answered */
};

struct member {
    const struct plan *plan;
    struct rh_mesh *mesh;
    unsigned tid;
    int efd;
    uint64_t rand;
    struct load *free_loads;
    struct peer peers[MEMBERS_MAX];
    uint64_t tries; /* to sleep */
    uint64_t sleeps;
    uint64_t timeouts; /* of the safety net, for whatever reason */
    uint64_t lost;     /* wake-ups */
    _Atomic bool done;
};

static struct member all[MEMBERS_MAX];

static uint64_t draw(struct member *me)
{
    me->rand = me->rand * 6364136223846793005u + 1442695040888963407u;
    return me->rand >> 33;
}

static void wake(void *arg, unsigned tid)
{
    uint64_t one = 1;

    rh_assert(write(all[tid].efd, &one, sizeof(one)) == sizeof(one));
}

/* ---- what a member says ---- */

static bool ask_one(struct member *me, unsigned to)
{
    struct peer *peer = &me->peers[to];
    struct rh_event ev = {.kind = RH_EV_SEND, .a = peer->sent, .conn = ~peer->sent};
    uint32_t bytes = (uint32_t)(draw(me) % 20000);
    struct load *load = me->free_loads;

    if (peer->asked == me->plan->asks || peer->asked - peer->answered >= me->plan->window ||
        !rh_mesh_can_ask(me->mesh, to, bytes))
        return false;
    if (load)
        me->free_loads = load->next;
    else
        load = rh_mem_alloc(sizeof(*load));
    rh_assert(load);
    load->value = peer->sent;
    ev.msg = load;
    ev.cookie = peer;
    rh_assert(rh_mesh_ask(me->mesh, to, &ev, bytes) == RH_OK);
    peer->sent++;
    peer->asked++;
    return true;
}

static bool tell_one(struct member *me, unsigned to)
{
    struct peer *peer = &me->peers[to];
    struct rh_event ev = {.kind = RH_EV_QUIET, .a = peer->sent, .d = ~peer->sent};

    if (peer->told == me->plan->asks || peer->told >= peer->asked + me->plan->burst ||
        !rh_mesh_has_room(me->mesh, to))
        return false;
    rh_assert(rh_mesh_tell(me->mesh, to, &ev) == RH_OK);
    peer->sent++;
    peer->told++;
    return true;
}

/* One burst to everyone; false when there was nothing that could be said. */
static bool speak(struct member *me)
{
    bool said = false;

    for (unsigned to = 0; to < me->plan->members; to++) {
        if (to == me->tid)
            continue;
        for (uint64_t n = draw(me) % (me->plan->window + 1) + 1; n && ask_one(me, to); n--)
            said = true;
        for (uint64_t n = draw(me) % (me->plan->burst + 1) + 1; n && tell_one(me, to); n--)
            said = true;
    }
    return said;
}

/* ---- what it hears ---- */

static void serve(struct member *me, const struct rh_event *request)
{
    struct peer *peer = &me->peers[request->from];
    struct load *load = request->msg;
    struct rh_event ev = {.kind = RH_EV_SENT, .msg = load, .a = peer->sent++};

    rh_assert(load->value == request->a && request->conn == ~request->a);
    load->value = ~load->value;
    rh_mesh_reply(me->mesh, request, &ev);
    peer->served++;
}

static void on_event(void *arg, const struct rh_event *ev)
{
    struct member *me = arg;
    struct peer *peer = &me->peers[ev->from];
    struct load *load = ev->msg;

    rh_assert(ev->a == peer->seen);
    peer->seen++;
    switch (ev->kind) {
    case RH_EV_SEND:
        serve(me, ev);
        break;
    case RH_EV_SENT:
        rh_assert(ev->cookie == peer && ev->conn == load->value);
        load->next = me->free_loads;
        me->free_loads = load;
        peer->answered++;
        break;
    default:
        rh_assert(ev->kind == RH_EV_QUIET && ev->d == ~ev->a);
        peer->heard++;
    }
}

/* ---- its life ---- */

static bool finished(const struct member *me)
{
    for (unsigned i = 0; i < me->plan->members; i++) {
        const struct peer *peer = &me->peers[i];

        if (i != me->tid && (peer->asked < me->plan->asks || peer->told < me->plan->asks ||
                             peer->answered < me->plan->asks || peer->heard < me->plan->asks ||
                             peer->served < me->plan->asks))
            return false;
    }
    return rh_mesh_quiet(me->mesh);
}

static bool readable(const struct member *me, int timeout_ms)
{
    struct pollfd fd = {.fd = me->efd, .events = POLLIN};
    int rc;

    do
        rc = poll(&fd, 1, timeout_ms);
    while (rc < 0 && errno == EINTR);
    return rc > 0;
}

static void wait_for_wake(struct member *me)
{
    uint64_t woken;

    me->sleeps++;
    if (!readable(me, SAFETY_TIMEOUT_MS)) {
        me->timeouts++;
        /* Nothing said to us is no loss. Otherwise the one who published may be just about to
         * write, and gets another second. */
        if (!rh_mesh_sleep(me->mesh) && !readable(me, GRACE_MS))
            me->lost++;
    }
    if (readable(me, 0))
        rh_assert(read(me->efd, &woken, sizeof(woken)) == sizeof(woken));
}

static void *live(void *arg)
{
    struct member *me = arg;

    while (!finished(me)) {
        bool said;

        rh_mesh_pop(me->mesh, on_event, me);
        said = speak(me);
        rh_mesh_publish(me->mesh);
        if (said || finished(me))
            continue;
        for (uint64_t spins = draw(me) % (me->plan->pause + 1); spins; spins--)
            __asm__ volatile("" ::: "memory");
        me->tries++;
        if (rh_mesh_sleep(me->mesh))
            wait_for_wake(me);
        rh_mesh_awake(me->mesh);
    }
    me->done = true;
    return NULL;
}

/* ---- the run ---- */

static void start(const struct plan *plan, struct rh_net *net, pthread_t *threads)
{
    for (unsigned tid = 0; tid < plan->members; tid++) {
        all[tid] = (struct member){.plan = plan, .tid = tid, .rand = rh_test_rand()};
        all[tid].mesh = rh_net_member(net, tid);
        all[tid].efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        RH_OK_IF(all[tid].efd >= 0);
    }
    for (unsigned tid = 0; tid < plan->members; tid++)
        RH_EQ_INT(pthread_create(&threads[tid], NULL, live, &all[tid]), 0);
}

/* Reads what any thread may read until all are done. */
static void watch(const struct plan *plan, const struct rh_net *net)
{
    struct rh_mesh_stat stat;
    bool done;

    do {
        done = true;
        for (unsigned tid = 0; tid < plan->members; tid++) {
            done &= all[tid].done;
            rh_mesh_stat_any(all[tid].mesh, &stat);
            RH_OK_IF(stat.credit_out <= (uint64_t)plan->window * (plan->members - 1));
            rh_net_depth_any(net, tid, (tid + 1) % plan->members);
        }
        usleep(2000);
    } while (!done);
}

static struct rh_mesh_stat finish(const struct member *me)
{
    struct rh_mesh_stat stat;
    uint64_t each = me->plan->asks * (me->plan->members - 1);

    rh_mesh_stat_any(me->mesh, &stat);
    RH_EQ_U64(me->lost, 0);
    RH_EQ_U64(stat.asked, each);
    RH_EQ_U64(stat.replied, each);
    RH_EQ_U64(stat.told, each);
    RH_EQ_U64(stat.popped, 3 * each);
    RH_EQ_U64(stat.credit_out, 0);
    RH_EQ_U64(stat.spill_events, 0);
    RH_EQ_U64(stat.spill_bytes, 0);
    close(me->efd);
    for (struct load *load = me->free_loads, *next; load; load = next) {
        next = load->next;
        rh_mem_free(load);
    }
    return stat;
}

static void run(const struct plan *plan, uint64_t sleeps_min, uint64_t spilled_min)
{
    struct rh_net *net;
    pthread_t threads[MEMBERS_MAX];
    uint64_t tries = 0, sleeps = 0, timeouts = 0, spilled = 0, woken = 0, popped = 0;

    RH_EQ_INT(rh_net_create(plan->members, wake, NULL, &net), RH_OK);
    start(plan, net, threads);
    watch(plan, net);
    for (unsigned tid = 0; tid < plan->members; tid++)
        pthread_join(threads[tid], NULL);
    for (unsigned tid = 0; tid < plan->members; tid++) {
        struct rh_mesh_stat stat = finish(&all[tid]);

        tries += all[tid].tries;
        sleeps += all[tid].sleeps;
        timeouts += all[tid].timeouts;
        spilled += stat.spilled;
        woken += stat.woken;
        popped += stat.popped;
    }
    rh_net_destroy(net);
    printf("# %llu crossings, %llu spilled, %llu sleeps, %llu wake-ups, %llu timeouts\n",
           (unsigned long long)popped, (unsigned long long)spilled, (unsigned long long)sleeps,
           (unsigned long long)woken, (unsigned long long)timeouts);
    RH_EQ_U64(timeouts, 0);                      /* nobody here is ever silent for that long */
    RH_OK_IF(woken >= sleeps && woken <= tries); /* each raised flag wakes once at most */
    RH_OK_IF(sleeps >= sleeps_min && spilled >= spilled_min);
}

RH_TEST(mesh_race, two_members_one_request_at_a_time_lose_no_wake_up)
{
    struct plan plan = {.members = 2, .asks = 60000 * SCALE, .window = 1, .burst = 1, .pause = 400};

    run(&plan, 1000, 0);
}

RH_TEST(mesh_race, three_members_in_bursts_that_spill_keep_every_order)
{
    struct plan plan = {
        .members = 3, .asks = 80000 * SCALE, .window = 600, .burst = 900, .pause = 50};

    run(&plan, 0, 1000);
}

RH_TEST(mesh_race, four_members_in_small_windows_lose_no_wake_up)
{
    struct plan plan = {.members = 4, .asks = 20000 * SCALE, .window = 7, .burst = 9, .pause = 200};

    run(&plan, 1000, 0);
}

/* ---- the two races of core/mesh.c's head, moment against moment ---- */

/* Goal    hit the few nanoseconds in which a store still waits in a core's store buffer; with a
 *         release store in place of the seq_cst one, or with a look at the bit in place of the
 *         fetch_or, these tests fail.
 * Method  Two threads meet at a spinning barrier, wait a random moment and act at the same time;
 *         they meet again and compare what happened. */
/* Going to sleep takes less time than publishing: it begins later, so that the moments overlap. */
#define SAY_SPINS   64
#define POP_SPINS   256
#define SLEEP_SPINS 1024
#define ROUNDS      (50000 * SCALE * SCALE)

struct duel {
    struct rh_mesh *speaker;
    struct rh_mesh *listener;
    _Atomic uint64_t at_gate[2];
    _Atomic bool woken;
    uint64_t lost;
    uint64_t slept;
};

static void note_wake(void *arg, unsigned tid)
{
    struct duel *duel = arg;

    rh_assert(tid == 1);
    duel->woken = true;
}

static void nothing(void *arg, const struct rh_event *ev)
{
}

/* Both go on at the same moment, or nearly. */
static void meet(struct duel *duel, int me, uint64_t gate)
{
    duel->at_gate[me] = gate;
    for (unsigned spins = 1; duel->at_gate[!me] < gate; spins++)
        if (spins % 4096 == 0)
            sched_yield();
}

static void dawdle(uint64_t *rand, unsigned spins_max)
{
    *rand = *rand * 6364136223846793005u + 1442695040888963407u;
    for (uint64_t spins = (*rand >> 33) % spins_max; spins; spins--)
        __asm__ volatile("" ::: "memory");
}

static void say(struct duel *duel)
{
    struct rh_event ev = {.kind = RH_EV_QUIET};

    rh_assert(rh_mesh_tell(duel->speaker, 1, &ev) == RH_OK);
    rh_mesh_publish(duel->speaker);
}

static void *say_once_a_round(void *arg)
{
    uint64_t rand = 1;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        meet(arg, 0, 2 * round + 1);
        dawdle(&rand, SAY_SPINS);
        say(arg);
        meet(arg, 0, 2 * round + 2);
    }
    return NULL;
}

static void *say_twice_a_round(void *arg)
{
    uint64_t rand = 1;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        say(arg);
        meet(arg, 0, 2 * round + 1);
        dawdle(&rand, SAY_SPINS);
        say(arg);
        meet(arg, 0, 2 * round + 2);
    }
    return NULL;
}

/* Starts the speaker; the test's own thread is the listener. */
static struct rh_net *duel_start(struct duel *duel, void *(*speak_on)(void *arg), pthread_t *thread)
{
    struct rh_net *net;

    RH_EQ_INT(rh_net_create(2, note_wake, duel, &net), RH_OK);
    duel->speaker = rh_net_member(net, 0);
    duel->listener = rh_net_member(net, 1);
    RH_EQ_INT(pthread_create(thread, NULL, speak_on, duel), 0);
    return net;
}

RH_TEST(mesh_race, who_goes_to_sleep_while_another_publishes_is_woken_or_stays_awake)
{
    struct duel duel = {.lost = 0};
    uint64_t rand = rh_test_rand();
    pthread_t thread;
    struct rh_net *net = duel_start(&duel, say_once_a_round, &thread);

    for (uint64_t round = 0; round < ROUNDS; round++) {
        bool sleeps;

        duel.woken = false;
        meet(&duel, 1, 2 * round + 1);
        dawdle(&rand, SLEEP_SPINS);
        sleeps = rh_mesh_sleep(duel.listener);
        meet(&duel, 1, 2 * round + 2);
        duel.slept += sleeps;
        duel.lost += sleeps && !duel.woken;
        rh_mesh_awake(duel.listener);
        rh_assert(rh_mesh_pop(duel.listener, nothing, NULL) == 1);
    }
    pthread_join(thread, NULL);
    rh_net_destroy(net);
    printf("# %llu of %u fell asleep, %llu lost\n", (unsigned long long)duel.slept, ROUNDS,
           (unsigned long long)duel.lost);
    RH_EQ_U64(duel.lost, 0); /* how many fell asleep is up to the machine's load */
}

RH_TEST(mesh_race, what_is_published_during_a_pop_is_popped_then_or_next)
{
    struct duel duel = {.lost = 0};
    uint64_t rand = rh_test_rand();
    uint64_t popped = 0;
    pthread_t thread;
    struct rh_net *net = duel_start(&duel, say_twice_a_round, &thread);

    for (uint64_t round = 0; round < ROUNDS; round++) {
        meet(&duel, 1, 2 * round + 1);
        dawdle(&rand, POP_SPINS);
        popped += rh_mesh_pop(duel.listener, nothing, NULL);
        meet(&duel, 1, 2 * round + 2);
        popped += rh_mesh_pop(duel.listener, nothing, NULL);
        duel.lost += popped < 2 * (round + 1); /* the next round's first may be there already */
    }
    pthread_join(thread, NULL);
    rh_net_destroy(net);
    RH_EQ_U64(duel.lost, 0);
    RH_EQ_U64(popped, 2 * ROUNDS);
}
