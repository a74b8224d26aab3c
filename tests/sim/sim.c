/* tests/sim/sim.c - the simulation's cases, and main.
 *
 *     sim [--seed N] [--runs N] [--case NAME] [--trace]      or SEED, RUNS in the environment
 *
 * A run is one seed: all cases, in worlds of their own. It says nothing unless it fails; then it
 * says what is wrong and how to see it again, and the program ends with 1.
 *
 *   first     two users on two shards, one message; done twice, and both traces are the same
 *   traffic   many clients of all manners, in a world with faults
 *   crowd     clients with sessions, rooms and broadcasts, likewise (sim_crowd.c)
 *   owed      acknowledged and offline messages, likewise (sim_owed.c)
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "shard/shard.h"
#include "tests/sim/sim_case.h"
#include "tests/sim/sim_client.h"
#include "tests/sim/sim_guest.h"
#include "tests/sim/sim_hub.h"
#include "tests/sim/sim_squeeze.h"
#include "tests/sim/sim_uring.h"
#include "tests/store/disk.h"

#define RUNS_STANDARD 300

struct rh_config *sim_case_begin(const char *name, uint64_t seed, bool loud)
{
    struct rh_config *cfg;

    sim_world_begin(name, seed, loud);
    sim_kernel_begin();
    sim_book_begin();
    sim_squeeze_begin();
    disk_reset();
    SIM_CHECK(rh_config_create(&cfg) == RH_OK, "no configuration");
    cfg->shards = 2;
    cfg->heartbeat_interval_ms = 1000;
    cfg->heartbeat_timeout_ms = 3000;
    cfg->limits_send_timeout_ms = 2000;
    cfg->limits_message_size = 64 << 10;
    cfg->echo_enabled = true;
    cfg->offline_enabled = false;
    cfg->store_durability = sim_chance(500) ? RH_DURABILITY_COMMIT : RH_DURABILITY_MEMORY;
    return cfg;
}

void sim_case_finish(struct rh_config *take_cfg, bool empty)
{
    sim_hub_stop(empty);
    rh_config_destroy(take_cfg);
    sim_squeeze_end();
    if (sim_mem_live())
        sim_mem_list();
    SIM_CHECK(sim_mem_live() == 0, "%llu allocations are left", (unsigned long long)sim_mem_live());
}

/* ---- the first case ---- */

static const struct sim_knobs kind_world = {
    .buffers = 64,
    .send_room = 64 << 10,
    .recv_room = 64 << 10,
    .delay_us = 200,
};

static void one_message(uint64_t seed, bool loud)
{
    struct rh_config *cfg = sim_case_begin("first", seed, loud);
    struct sim_plan plan = {.end_ns = SIM_NEVER, .pad_max = 100, .aims = true, .users = 1};
    struct sim_client *sender, *receiver;
    unsigned other = 1;
    char name[16] = "u1";

    sim_knobs = kind_world;
    sim_hub_start(cfg);
    while (sim_hub_shard_of(name) == sim_hub_shard_of("u0"))
        snprintf(name, sizeof(name), "u%u", ++other);
    plan.user = other;
    receiver = sim_client_start(1, &plan);
    plan.user = 0;
    plan.aim = other;
    plan.says = 1;
    plan.connect_ns = SIM_S; /* the receiver is there */
    sender = sim_client_start(0, &plan);

    sim_hub_run(2 * SIM_S);
    SIM_CHECK(sim_client_joined(sender) && sim_client_joined(receiver),
              "somebody was not welcomed");
    SIM_CHECK(sim_book_count() == 1, "%u messages", sim_book_count());
    SIM_CHECK(sim_book_said(0)->got_by == 1 << 1, "the receiver alone gets the message");
    SIM_CHECK(strcmp(sim_book_said(0)->outcome, "sent") == 0, "the sender hears that it was sent");
    sim_book_check_rest();

    sim_client_end(sender, SIM_CLOSES);
    sim_client_end(receiver, SIM_CLOSES);
    sim_hub_run(16 * SIM_S); /* a close without a code leaves a session for resume.window */
    SIM_CHECK(sim_client_gone(sender) && sim_client_gone(receiver), "a close was not answered");
    SIM_CHECK(!sim_client_dropped(sender) && !sim_client_dropped(receiver), "a bad end");
    sim_hub_check_empty(true);
    sim_hub_drain();
    sim_case_finish(cfg, true);
}

static void first_case(uint64_t seed, bool loud)
{
    size_t len, len_again;
    const char *trace;
    char *kept;

    one_message(seed, loud);
    trace = sim_trace_text(&len);
    kept = malloc(len);
    rh_assert(kept);
    memcpy(kept, trace, len);
    sim_world_end();

    one_message(seed, false);
    trace = sim_trace_text(&len_again);
    SIM_CHECK(len == len_again && memcmp(kept, trace, len) == 0,
              "the same seed gives two different traces");
    free(kept);
    sim_world_end();
}

/* ---- traffic ---- */

#define CONNECT_TIME (2 * SIM_S)
#define TALK_TIME    (12 * SIM_S) /* who ends by plan has ended, who stalls has gone on */
#define REST_TIME    (90 * SIM_S)
#define LEAVE_TIME   (50 * SIM_S)
#define GUESTS_MAX   8
#define GUEST_ID     100 /* of the first one */

/* What is drawn for a run. */
struct traffic {
    unsigned clients, users;
    size_t pad_max;
    bool tight; /* queues with little room: slow consumers are closed */
    bool burst; /* few clients say very much at once: credits run out */
    bool early; /* the drain comes in the middle of it */
    struct sim_plan plans[SIM_CLIENTS_MAX];
    struct sim_client *all[SIM_CLIENTS_MAX];
    unsigned guest_count;
    struct sim_guest *guests[GUESTS_MAX];
};

uint64_t sim_one_of(const uint32_t *values, size_t count)
{
    return values[sim_below(count)];
}

void sim_draw_descriptors(bool tiny)
{
    sim_knobs.files = (unsigned)SIM_ONE_OF(0, RH_TABLE_SPARE + 1000);
    if (!sim_knobs.bad_allocs)
        return;
    sim_knobs.bad_passes = (unsigned)SIM_ONE_OF(0, 100);
    if (tiny && sim_chance(300))
        sim_knobs.files = RH_TABLE_SPARE + 1 + (unsigned)sim_below(12);
}

static void draw_world(struct traffic *t, struct rh_config *cfg)
{
    sim_knobs.buffers = (unsigned)SIM_ONE_OF(1, 2, 4, 16, 128);
    sim_knobs.send_room = (unsigned)SIM_ONE_OF(600, 4096, 32768);
    sim_knobs.recv_room = (unsigned)SIM_ONE_OF(600, 4096, 32768);
    sim_knobs.delay_us = (unsigned)SIM_ONE_OF(20, 500, 5000, 50000);
    sim_knobs.bad_accepts = (unsigned)SIM_ONE_OF(0, 0, 100);
    sim_knobs.bad_allocs = (unsigned)SIM_ONE_OF(0, 0, 20, 200);
    sim_knobs.stalls = (unsigned)SIM_ONE_OF(0, 0, 2);
    sim_knobs.drops_more = (unsigned)SIM_ONE_OF(0, 30, 300);
    sim_draw_descriptors(true);
    t->clients = 2 + (unsigned)sim_below(sim_chance(500) ? 8 : SIM_CLIENTS_MAX - 2);
    t->users = 1 + (unsigned)sim_below(t->clients);
    t->guest_count = sim_chance(500) ? (unsigned)sim_below(GUESTS_MAX + 1) : 0;
    t->pad_max = SIM_ONE_OF(20, 1000, 8000, 40000);
    t->tight = sim_chance(300);
    t->early = sim_chance(200);
    t->burst = !t->tight && sim_chance(80);
    cfg->shards = (uint32_t)SIM_ONE_OF(1, 2, 2, 3);
    if (sim_knobs.delay_us <= 5000 && sim_chance(300)) /* parked and back, again and again */
        cfg->heartbeat_interval_ms = 100;
    sim_squeeze_config(cfg);
    if (t->burst) {
        t->clients = 4 + (unsigned)sim_below(5);
        t->users = t->clients;
        t->pad_max = 40;
        sim_knobs.stalls = 150;
        sim_knobs.send_room = sim_knobs.recv_room = 32768; /* else pings wait too long in queues */
        sim_knobs.delay_us = 500;
        cfg->shards = 2;
        cfg->limits_handshake_timeout_ms = 60000; /* so do they, with few buffers and many stalls */
    }
    /* Pings wait behind what travels slowly, and bytes in sockets while there are no buffers. */
    if (t->burst || sim_knobs.delay_us >= 50000 || sim_knobs.recv_room < 1000 ||
        sim_knobs.send_room < 1000)
        cfg->heartbeat_timeout_ms = 30000;
    if (t->tight) {
        cfg->limits_send_queue_messages = (uint32_t)SIM_ONE_OF(1, 2, 8);
        cfg->limits_send_queue_bytes = SIM_ONE_OF(1024, 16384);
    } else { /* out of reach, also for 40 KB messages on a slow network: nobody is closed for it */
        cfg->limits_send_queue_messages = 1 << 16;
        cfg->limits_send_queue_bytes = 1 << 30;
    }
}

static void draw_plan(const struct traffic *t, struct sim_plan *plan)
{
    memset(plan, 0, sizeof(*plan));
    plan->user = (unsigned)sim_below(t->users);
    plan->device = sim_chance(100) ? "phone" : NULL;
    plan->connect_ns = sim_below(CONNECT_TIME);
    plan->says = (unsigned)sim_below(sim_chance(200) ? 60 : 12);
    plan->users = t->users + (sim_chance(100) ? 1 : 0); /* one who never comes */
    plan->gap_us = (unsigned)SIM_ONE_OF(0, 100, 10000, 200000);
    plan->pad_max = t->pad_max;
    plan->end_ns = SIM_NEVER;
    plan->eager = sim_chance(150);
    if (t->burst) {
        plan->says = 800 + (unsigned)sim_below(1200);
        plan->gap_us = 0;
        plan->connect_ns = sim_below(10 * SIM_MS);
    }
    plan->mute = !plan->eager && sim_chance(50);
    plan->chatty = sim_chance(400);
    if (sim_chance(200)) {
        plan->stall_ns = sim_below(CONNECT_TIME);
        plan->stall_for_ns = sim_below(8 * SIM_S);
    }
    if (sim_chance(400)) {
        plan->end_ns = plan->connect_ns + sim_below(sim_chance(500) ? SIM_S / 10 : 6 * SIM_S);
        plan->ending = 1 + (enum sim_ending)sim_below(SIM_ENDINGS - 1);
    }
}

/* Nothing that this client does, and nothing in this run, is a reason to lose it. */
static bool healthy(const struct traffic *t, const struct sim_plan *plan)
{
    return !t->tight && !t->early && !sim_knobs.bad_allocs && !plan->device && !plan->mute &&
           !plan->stall_for_ns && plan->end_ns == SIM_NEVER;
}

static void check_healthy(const struct traffic *t)
{
    for (unsigned i = 0; i < t->guest_count && !t->early && !sim_knobs.bad_allocs; i++)
        SIM_CHECK(sim_guest_done(t->guests[i]), "guest %u did not hear all (%s)", GUEST_ID + i,
                  sim_guest_dropped(t->guests[i]) ? "dropped" : "waits");
    for (unsigned i = 0; i < t->clients; i++)
        SIM_CHECK(!healthy(t, &t->plans[i]) || sim_book_lives(i),
                  "client %u was lost without a reason (code %u)", i, sim_client_code(t->all[i]));
}

static void check_codes(const struct traffic *t)
{
    static const unsigned fine[] = {0, 503, 1001, 1005, 1013, 4408, 4409, 4410};

    for (unsigned i = 0; i < t->clients; i++) {
        unsigned code = sim_client_code(t->all[i]), k = 0;

        while (k < RH_COUNT(fine) && fine[k] != code)
            k++;
        SIM_CHECK(k < RH_COUNT(fine), "client %u was closed with %u", i, code);
    }
}

static void all_leave(const struct traffic *t)
{
    for (unsigned i = 0; i < t->clients; i++)
        sim_client_end(t->all[i], 1 + (enum sim_ending)sim_below(SIM_ENDINGS - 1));
    for (unsigned i = 0; i < t->guest_count; i++)
        sim_guest_end(t->guests[i]);
    sim_hub_run(sim_now() + LEAVE_TIME);
    sim_hub_check_empty(true);
}

static void traffic(uint64_t seed, bool loud)
{
    struct rh_config *cfg = sim_case_begin("traffic", seed, loud);
    struct traffic t = {0};
    bool empty = true;

    draw_world(&t, cfg);
    sim_hub_start(cfg);
    for (unsigned i = 0; i < t.clients; i++) {
        draw_plan(&t, &t.plans[i]);
        t.all[i] = sim_client_start(i, &t.plans[i]);
    }
    for (unsigned i = 0; i < t.guest_count; i++)
        t.guests[i] = sim_guest_start(GUEST_ID + i, sim_below(CONNECT_TIME),
                                      RH_MIN(t.pad_max, (size_t)20000));
    if (t.early) {
        sim_hub_run(sim_below(2 * CONNECT_TIME));
        sim_hub_drain();
        empty = sim_chance(500);
        if (empty)
            sim_hub_run(sim_now() + CONNECT_TIME + LEAVE_TIME);
    } else {
        sim_hub_run(TALK_TIME);
        sim_knobs.stalls = 0;
        sim_hub_run(TALK_TIME + REST_TIME);
        check_healthy(&t);
        sim_book_check_rest();
        if (sim_chance(700))
            all_leave(&t);
        sim_hub_drain();
    }
    sim_knobs.bad_allocs = sim_knobs.bad_passes = 0;
    sim_case_finish(cfg, empty);
    check_codes(&t);
    sim_world_end();
}

/* ---- main ---- */

static const struct {
    const char *name;
    const char *test; /* for T= */
    void (*run)(uint64_t seed, bool loud);
} cases[] = {
    {"first", "sim_first_case", first_case},
    {"traffic", "sim_traffic", traffic},
    {"crowd", "sim_crowd", sim_crowd},
    {"owed", "sim_owed", sim_owed},
};

static uint64_t number_of(const char *text, uint64_t standard)
{
    return text && *text ? strtoull(text, NULL, 0) : standard;
}

static bool chosen(size_t i, const char *only)
{
    const char *test = getenv("T");

    return (!only || strcmp(only, cases[i].name) == 0) &&
           (!test || !*test || strstr(cases[i].test, test));
}

int main(int argc, char **argv)
{
    uint64_t seed = number_of(getenv("SEED"), 1);
    uint64_t runs = number_of(getenv("RUNS"), RUNS_STANDARD);
    unsigned long long passed = 0;
    const char *only = NULL;
    bool loud = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            loud = true;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = number_of(argv[++i], seed);
        else if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
            runs = number_of(argv[++i], runs);
        else if (strcmp(argv[i], "--case") == 0 && i + 1 < argc)
            only = argv[++i];
        else
            return fprintf(stderr, "usage: sim [--seed N] [--runs N] [--case NAME] [--trace]\n"), 2;
    }
    sim_on_crash();
    atomic_store(&rh_log_threshold, RH_LOG_ERROR + 1);
    for (uint64_t i = 0; i < runs; i++)
        for (size_t k = 0; k < RH_COUNT(cases); k++)
            if (chosen(k, only)) {
                cases[k].run(seed + i, loud);
                passed++;
            }
    printf("100%%: Checks: %llu, Failures: 0, Errors: 0\n", passed);
    printf("%llu passed, 0 failed\n", passed);
    return 0;
}
