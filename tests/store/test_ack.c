/* tests/store/test_ack.c - the ack thread's passes on a real net, with a clock and a bell by hand.
 *
 * The test plays the shards, which answer a DUE at once or when it suits the test, and the control
 * thread.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/bell.h"
#include "core/clock.h"
#include "core/err.h"
#include "core/limits.h"
#include "core/mem.h"
#include "core/thread.h"
#include "store/store.h"
#include "tests/rh_test.h"

#define SHARDS   2
#define SLOTS    200000
#define START_MS 1000000
#define NEVER    UINT64_MAX

static struct {
    struct rh_store_env env;
    struct rh_ack *ack;
    uint64_t now_ms;
    uint64_t waited_ms; /* that the bell was given last */
    unsigned waits, rings;
    bool answer; /* the shards answer DUE */
    /* Of DUEs: how many, the last one, and for each slot of shard 0 how often and what. */
    unsigned dues[SHARDS], most;
    struct rh_event last;
    uint8_t told[SLOTS];
    uint8_t what[SLOTS];
    uint32_t gen[SLOTS];
    struct rh_event unanswered[SHARDS][RH_CREDIT_EVENTS];
    unsigned unanswered_count[SHARDS];
    uint64_t quiet; /* the round of the last QUIET */
} rig;

/* ---- the seam ---- */

uint64_t rh_clock_mono_ns(void)
{
    return rig.now_ms * 1000000;
}

uint64_t rh_clock_wall_us(void)
{
    return rig.now_ms * 1000;
}

void rh_clock_nap_ms(unsigned ms)
{
    rig.now_ms += ms;
}

int rh_bell_create(struct rh_bell **ret_bell)
{
    *ret_bell = rh_mem_alloc(1);
    return *ret_bell ? RH_OK : RH_ENOMEM;
}

void rh_bell_destroy(struct rh_bell *bell)
{
    rh_mem_free(bell);
}

void rh_bell_wait(struct rh_bell *bell, uint64_t ms)
{
    rig.waited_ms = ms;
    rig.waits++;
}

void rh_bell_ring_any(struct rh_bell *bell)
{
    rig.rings++;
}

/* ---- the rig ---- */

static void wake(void *arg, unsigned tid)
{
    if (tid == rig.env.ack)
        rh_ack_wake_any(rig.ack);
}

static struct rh_snapshot *snapshot(const char *const values[][2], unsigned count)
{
    struct rh_snapshot *s;
    struct rh_config *cfg;

    RH_OK_IF(rh_config_create(&cfg) == RH_OK);
    for (unsigned i = 0; i < count; i++)
        RH_OK_IF(rh_config_set(cfg, values[i][0], values[i][1], "test", NULL) == RH_OK);
    s = rh_snapshot_make(cfg);
    RH_OK_IF(s);
    return s;
}

static void setup_with(const char *const values[][2], unsigned count)
{
    struct rh_fault fault;

    memset(&rig, 0, sizeof(rig));
    rig.now_ms = START_MS;
    rig.answer = true;
    rig.env.snapshot = snapshot(values, count);
    rig.env.shards = SHARDS;
    rig.env.control = SHARDS;
    rig.env.ack = SHARDS + 1;
    RH_OK_IF(rh_net_create(SHARDS + 2, wake, NULL, &rig.env.net) == RH_OK);
    rh_tid_set(SHARDS + 1);
    RH_OK_IF(rh_ack_create(&rig.env, &rig.ack, &fault) == RH_OK);
}

static void setup(void)
{
    setup_with(NULL, 0);
}

static void teardown(void)
{
    rh_ack_destroy(rig.ack);
    rh_net_destroy(rig.env.net);
    rh_snapshot_drop_any(rig.env.snapshot);
}

static void reply(unsigned shard, const struct rh_event *due)
{
    struct rh_event done = {.kind = RH_EV_DUE_DONE};

    rh_mesh_reply(rh_net_member(rig.env.net, shard), due, &done);
}

static void on_due(void *arg, const struct rh_event *ev)
{
    unsigned shard = (unsigned)(uintptr_t)arg;

    RH_OK_IF(ev->kind == RH_EV_DUE);
    rig.last = *ev;
    rig.dues[shard]++;
    if (shard == 0 && (uint32_t)ev->a < SLOTS && ev->b != RH_DUE_AGAIN) {
        rig.told[(uint32_t)ev->a]++;
        rig.what[(uint32_t)ev->a] = (uint8_t)ev->b;
        rig.gen[(uint32_t)ev->a] = (uint32_t)(ev->a >> 32);
    }
    if (rig.answer)
        reply(shard, ev);
    else
        rig.unanswered[shard][rig.unanswered_count[shard]++] = *ev;
}

static void on_control(void *arg, const struct rh_event *ev)
{
    RH_OK_IF(ev->kind == RH_EV_QUIET);
    rig.quiet = ev->a;
}

/* The others look at what there is for them, and say what they have to. */
static unsigned others(void)
{
    unsigned popped = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        struct rh_mesh *mesh = rh_net_member(rig.env.net, i);

        popped += rh_mesh_pop(mesh, on_due, (void *)(uintptr_t)i);
        rh_mesh_publish(mesh);
    }
    rh_mesh_pop(rh_net_member(rig.env.net, rig.env.control), on_control, NULL);
    rh_mesh_publish(rh_net_member(rig.env.net, rig.env.control));
    return popped;
}

/* Would it sleep now, with nothing left to do? */
static bool sleeps(void)
{
    unsigned before = rig.waits;
    struct rh_mesh_stat stat;

    rh_mesh_stat_any(rh_net_member(rig.env.net, rig.env.ack), &stat);
    rh_ack_wait(rig.ack);
    return rig.waits > before && !stat.spill_events;
}

/* What was told becomes visible, and the ack thread makes passes until it sleeps. */
static bool settle(void)
{
    bool goes_on = true;
    unsigned popped;

    others();
    do {
        goes_on &= rh_ack_pass(rig.ack);
        popped = others();
        rig.most = RH_MAX(rig.most, popped);
    } while (goes_on && (popped || !sleeps()));
    return goes_on;
}

static void advance(uint64_t ms)
{
    rig.now_ms += ms;
    settle();
}

static void say(unsigned from, enum rh_event_kind kind, uint64_t a, uint64_t b, uint64_t c,
                uint64_t d)
{
    struct rh_event ev = {.kind = (uint8_t)kind, .a = a, .b = b, .c = c, .d = d};

    RH_OK_IF(rh_mesh_tell(rh_net_member(rig.env.net, from), rig.env.ack, &ev) == RH_OK);
}

static uint64_t name(uint32_t slot, uint32_t gen)
{
    return slot | (uint64_t)gen << 32;
}

static void arm(uint32_t slot, uint32_t gen, uint64_t repetitions)
{
    say(0, RH_EV_ARM, name(slot, gen), repetitions, rig.now_ms, NEVER);
}

static void arm_until(uint32_t slot, uint32_t gen, uint64_t expires_ms)
{
    say(0, RH_EV_ARM, name(slot, gen), 0, rig.now_ms, expires_ms);
}

static void disarm(uint32_t slot, uint32_t gen)
{
    say(0, RH_EV_DISARM, name(slot, gen), 0, 0, 0);
}

static uint64_t stat_of(enum rh_stat stat)
{
    return atomic_load(&rh_ack_stats_any(rig.ack)->v[stat]);
}

/* It rings between these times from now on, not before, and says what. */
static void rings_within(uint32_t slot, uint64_t first_ms, uint64_t last_ms, enum rh_due what)
{
    unsigned before = rig.dues[0];

    advance(first_ms - 1);
    RH_EQ_U64(rig.dues[0], before);
    advance(last_ms - first_ms + 1);
    RH_EQ_U64(rig.dues[0], before + 1);
    RH_EQ_U64((uint32_t)rig.last.a, slot);
    RH_EQ_U64(rig.last.b, what);
}

/* ---- schedule ---- */

RH_TEST(ack, repetitions_come_as_the_schedule_says_and_then_it_is_given_up)
{
    setup();
    arm(7, 1, 0);
    settle();
    rings_within(7, 4500, 5500, RH_DUE_REPEAT);
    arm(7, 1, 1);
    settle();
    rings_within(7, 9000, 11000, RH_DUE_REPEAT);
    arm(7, 1, 2);
    settle();
    rings_within(7, 18000, 22000, RH_DUE_REPEAT);
    arm(7, 1, 3);
    settle();
    rings_within(7, 18000, 22000, RH_DUE_GIVE_UP); /* the same wait once more */
    RH_EQ_U64(stat_of(RH_STAT_alarms), 0);
    RH_EQ_U64(stat_of(RH_STAT_dues), 4);
    teardown();
}

RH_TEST(ack, the_wait_counts_from_the_delivery_and_may_be_over)
{
    setup();
    say(0, RH_EV_ARM, name(7, 1), 0, rig.now_ms - 4000, NEVER);
    settle();
    rings_within(7, 500, 1500, RH_DUE_REPEAT);
    say(0, RH_EV_ARM, name(7, 1), 0, rig.now_ms - 90000, NEVER);
    settle();
    RH_EQ_U64(rig.dues[0], 2);
    teardown();
}

RH_TEST(ack, without_retries_it_is_given_up_after_the_first_wait)
{
    static const char *const values[][2] = {{"ack.max_retries", "0"}};

    setup_with(values, 1);
    arm(7, 1, 0);
    settle();
    rings_within(7, 4500, 5500, RH_DUE_GIVE_UP);
    teardown();
}

RH_TEST(ack, a_reason_that_is_not_retried_is_given_up_after_the_first_wait)
{
    static const char *const values[][2] = {{"retry.non_retryable", "ack_timeout"}};

    setup_with(values, 1);
    arm(7, 1, 0);
    settle();
    rings_within(7, 4500, 5500, RH_DUE_GIVE_UP);
    teardown();
}

RH_TEST(ack, more_repetitions_than_are_allowed_by_now_is_given_up)
{
    setup();
    arm(7, 1, 50);
    settle();
    rings_within(7, 54000, 60000, RH_DUE_GIVE_UP);
    teardown();
}

RH_TEST(ack, a_reload_counts_for_what_is_armed_after_it)
{
    static const char *const values[][2] = {{"ack.timeout", "100ms"}};

    setup();
    arm(7, 1, 0);
    settle();
    rh_mesh_tell(rh_net_member(rig.env.net, rig.env.control), rig.env.ack,
                 &(struct rh_event){.kind = RH_EV_CONFIG, .msg = snapshot(values, 1)});
    settle();
    arm(8, 1, 0);
    settle();
    rings_within(8, 90, 110, RH_DUE_REPEAT);
    rings_within(7, 4500 - 110, 5500 - 110, RH_DUE_REPEAT);
    teardown();
}

RH_TEST(ack, what_expires_first_says_so_at_that_time)
{
    setup();
    arm_until(7, 1, rig.now_ms + 3000);
    settle();
    rings_within(7, 3000, 3000, RH_DUE_EXPIRED);
    arm_until(8, 1, rig.now_ms);
    settle();
    RH_EQ_U64(rig.last.b, RH_DUE_EXPIRED);
    arm_until(9, 1, rig.now_ms + 6000);
    settle();
    rings_within(9, 4500, 5500, RH_DUE_REPEAT);
    teardown();
}

/* ---- arming and disarming ---- */

RH_TEST(ack, arming_again_replaces_what_was_armed)
{
    setup();
    arm(7, 1, 0);
    settle();
    advance(4000);
    arm(7, 1, 0);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 1);
    rings_within(7, 4500, 5500, RH_DUE_REPEAT);
    advance(100000);
    RH_EQ_U64(rig.dues[0], 1);
    teardown();
}

RH_TEST(ack, another_generation_replaces_what_was_armed)
{
    setup();
    arm(7, 1, 0);
    arm(7, 2, 0);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 1);
    advance(5500);
    RH_EQ_U64(rig.dues[0], 1);
    RH_EQ_U64(rig.last.a, name(7, 2));
    teardown();
}

RH_TEST(ack, what_is_disarmed_does_not_ring)
{
    setup();
    arm(7, 1, 0);
    settle();
    disarm(7, 1);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 0);
    advance(100000);
    RH_EQ_U64(rig.dues[0], 0);
    teardown();
}

RH_TEST(ack, disarming_another_generation_or_nothing_is_ignored)
{
    setup();
    arm(7, 2, 0);
    disarm(7, 1);
    disarm(8, 1);
    disarm(4000000000u, 1);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 1);
    advance(5500);
    RH_EQ_U64(rig.dues[0], 1);
    disarm(7, 2); /* it rang on the way */
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 0);
    teardown();
}

RH_TEST(ack, what_was_disarmed_before_a_pass_does_not_ring_in_it)
{
    setup();
    for (uint32_t slot = 0; slot < 10000; slot++)
        arm_until(slot, 1, rig.now_ms + 100);
    settle();
    for (uint32_t slot = 0; slot < 10000; slot++)
        disarm(slot, 1);
    arm_until(10000, 1, rig.now_ms + 100);
    while (rh_net_depth_any(rig.env.net, 0, rig.env.ack) || !rig.dues[0])
        advance(
            100); /* a ring holds 255: the others are in the shard's spill when the time comes */
    RH_EQ_U64(rig.told[10000], 1);
    for (uint32_t slot = 9000; slot < 10000; slot++)
        RH_OK_IF(rig.told[slot] <= 1);
    RH_EQ_U64(stat_of(RH_STAT_alarms), 0);
    teardown();
}

RH_TEST(ack, slots_of_two_shards_are_apart)
{
    setup();
    say(0, RH_EV_ARM, name(7, 1), 0, rig.now_ms, NEVER);
    say(1, RH_EV_ARM, name(7, 1), 0, rig.now_ms, NEVER);
    settle();
    disarm(7, 1);
    advance(5500);
    RH_EQ_U64(rig.dues[0], 0);
    RH_EQ_U64(rig.dues[1], 1);
    teardown();
}

/* ---- pacing ---- */

RH_TEST(ack, a_hundred_thousand_at_once_come_in_portions)
{
    static const char *const values[][2] = {{"ack.timeout", "60s"}};

    setup_with(values, 1);
    for (uint32_t slot = 0; slot < 100000; slot++) {
        arm_until(slot, 1, START_MS + 10000 + slot / 100);
        if (slot % 1000 == 999)
            settle();
    }
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 100000);
    rig.now_ms = START_MS + 10000 - 1;
    settle();
    RH_EQ_U64(rig.dues[0], 0);
    advance(1001);
    RH_OK_IF(rig.most <= RH_CREDIT_EVENTS);
    for (uint32_t slot = 0; slot < 100000; slot++)
        RH_OK_IF(rig.told[slot] == 1 && rig.what[slot] == RH_DUE_EXPIRED);
    RH_EQ_U64(stat_of(RH_STAT_alarms), 0);
    RH_EQ_U64(stat_of(RH_STAT_dues), 100000);
    RH_OK_IF(stat_of(RH_STAT_dues_held) > 0);
    teardown();
}

/* `count` alarms ring for shard 0, which does not answer. */
static void hold(uint32_t count)
{
    rig.answer = false;
    for (uint32_t slot = 0; slot < count; slot++)
        arm_until(slot, 1, rig.now_ms + 10 + slot / 1000);
    settle();
    for (unsigned i = 0; i < 20; i++)
        advance(10);
}

static void answer_all(void)
{
    for (unsigned i = 0; i < rig.unanswered_count[0]; i++)
        reply(0, &rig.unanswered[0][i]);
    rig.unanswered_count[0] = 0;
}

RH_TEST(ack, without_a_credit_a_due_waits_and_the_first_goes_first)
{
    setup();
    hold(3000);
    RH_EQ_U64(rig.dues[0], RH_CREDIT_EVENTS);
    RH_EQ_U64(stat_of(RH_STAT_dues), 3000);
    RH_EQ_U64(stat_of(RH_STAT_dues_held), 3000 - RH_CREDIT_EVENTS);
    RH_EQ_U64(stat_of(RH_STAT_alarms), 3000 - RH_CREDIT_EVENTS);
    answer_all();
    settle();
    RH_EQ_U64(rig.dues[0], 2 * RH_CREDIT_EVENTS);
    for (uint32_t slot = 0; slot < 2000; slot++) /* those of the first two ms */
        RH_OK_IF(rig.told[slot] == 1);
    rig.answer = true;
    answer_all();
    settle();
    RH_EQ_U64(rig.dues[0], 3000);
    RH_EQ_U64(stat_of(RH_STAT_alarms), 0);
    teardown();
}

RH_TEST(ack, another_shard_does_not_wait_for_one_without_credits)
{
    setup();
    hold(2000);
    say(1, RH_EV_ARM, name(0, 1), 0, rig.now_ms, rig.now_ms + 10);
    advance(0);
    advance(10);
    RH_EQ_U64(rig.dues[1], 1);
    teardown();
}

RH_TEST(ack, what_waits_for_a_credit_can_be_disarmed_and_armed_again)
{
    setup();
    hold(2000);
    disarm(1999, 1);
    arm_until(1998, 1, rig.now_ms + 5000);
    arm_until(1997, 2, rig.now_ms + 5000);
    settle();
    rig.answer = true;
    answer_all();
    settle();
    RH_EQ_U64(rig.dues[0], 1997);
    RH_EQ_U64(stat_of(RH_STAT_alarms), 2);
    advance(5000);
    RH_EQ_U64(rig.dues[0], 1999);
    RH_EQ_U64(rig.told[1999], 0);
    teardown();
}

/* ---- memory ---- */

RH_TEST(ack, what_finds_no_memory_is_armed_again_when_there_is_some)
{
    setup();
    rh_mem_fail_nth(1);
    arm_until(7, 1, rig.now_ms + 200);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 0);
    RH_EQ_U64(rh_mem_fail_left(), 0);
    RH_OK_IF(rig.waited_ms <= 100); /* it does not sleep over it */
    advance(100);
    RH_EQ_U64(rig.dues[0], 1);
    RH_EQ_U64(rig.last.b, RH_DUE_AGAIN);
    RH_EQ_U64((uint32_t)rig.last.a, 0);
    RH_OK_IF(rig.last.a >> 32 > 7);
    arm_until(7, 1, rig.now_ms + 100);
    settle();
    RH_EQ_U64(stat_of(RH_STAT_alarms), 1);
    advance(100);
    RH_EQ_U64(rig.told[7], 1);
    advance(1000);
    RH_EQ_U64(rig.dues[0], 2); /* and that was it */
    teardown();
}

/* Goal    no alarm is lost, whichever allocation fails.
 * Method  arm slots far apart, do as a shard does on DUE_AGAIN, and wait for all of them. */
RH_TEST(ack, nothing_is_lost_whichever_allocation_fails)
{
    static const uint32_t slots[] = {0, 1023, 1024, 70000, 150000, 190000};

    for (unsigned nth = 1; nth <= 12; nth++) {
        setup();
        rh_mem_fail_nth(nth);
        for (unsigned i = 0; i < RH_COUNT(slots); i++)
            arm_until(slots[i], 1, START_MS + 1000);
        settle();
        while (rig.now_ms < START_MS + 2000) {
            unsigned before = rig.dues[0];

            advance(50);
            if (rig.dues[0] == before || rig.last.b != RH_DUE_AGAIN)
                continue;
            for (unsigned i = 0; i < RH_COUNT(slots); i++)
                arm_until(slots[i], 1, START_MS + 1000);
        }
        rh_mem_fail_nth(0);
        for (unsigned i = 0; i < RH_COUNT(slots); i++)
            RH_OK_IF(rig.told[slots[i]] == 1);
        teardown();
    }
}

RH_TEST(ack, slabs_without_alarms_are_freed_and_then_it_sleeps)
{
    setup();
    for (uint32_t slot = 0; slot < SLOTS; slot += 1000)
        arm(slot, 1, 0);
    settle();
    RH_OK_IF(rig.waited_ms <= 1000);
    for (uint32_t slot = 0; slot < SLOTS; slot += 1000)
        disarm(slot, 1);
    settle();
    advance(1000);
    RH_EQ_U64(rig.waited_ms, NEVER);
    teardown();
}

static void create_and_destroy(void *arg)
{
    struct rh_fault fault;
    struct rh_ack *ack = NULL;
    int rc = rh_ack_create(&rig.env, &ack, &fault);

    RH_OK_IF(rc == RH_OK || rc == RH_ENOMEM);
    RH_OK_IF((rc == RH_OK) == (ack != NULL));
    rh_ack_destroy(ack);
}

RH_TEST(ack, a_start_without_memory_leaves_nothing_behind)
{
    setup();
    rh_test_fail_each_alloc(create_and_destroy, NULL);
    teardown();
}

/* ---- sleeping and ending ---- */

RH_TEST(ack, it_sleeps_until_the_first_alarm_and_is_woken_by_an_event)
{
    setup();
    settle();
    RH_EQ_U64(rig.waited_ms, NEVER);
    arm_until(7, 1, rig.now_ms + 40);
    RH_EQ_U64(rig.rings, 0);
    others();
    RH_EQ_U64(rig.rings, 1);
    settle();
    RH_OK_IF(rig.waited_ms > 0 && rig.waited_ms <= 40);
    teardown();
}

RH_TEST(ack, over_an_event_that_came_meanwhile_it_does_not_sleep)
{
    setup();
    settle();
    arm(7, 1, 0);
    others();
    rh_ack_pass(rig.ack);
    arm(8, 1, 0);
    others();
    RH_OK_IF(!sleeps());
    teardown();
}

RH_TEST(ack, with_a_full_ring_it_naps)
{
    setup();
    hold(1);
    for (uint32_t slot = 0; slot < 900; slot++)
        arm_until(slot, 2, rig.now_ms);
    others();
    while (rh_net_depth_any(rig.env.net, 0, rig.env.ack)) {
        rh_ack_pass(rig.ack); /* nobody takes what it says */
        rh_mesh_publish(rh_net_member(rig.env.net, 0));
    }
    rh_ack_wait(rig.ack);
    RH_EQ_U64(rig.waited_ms, 1);
    teardown();
}

RH_TEST(ack, it_is_quiet_when_every_due_is_answered)
{
    setup();
    hold(1);
    rh_mesh_tell(rh_net_member(rig.env.net, rig.env.control), rig.env.ack,
                 &(struct rh_event){.kind = RH_EV_DRAIN, .a = 5});
    settle();
    RH_EQ_U64(rig.quiet, 0);
    answer_all();
    settle();
    settle();
    RH_EQ_U64(rig.quiet, 5);
    teardown();
}

RH_TEST(ack, it_ends_when_it_is_told_to)
{
    setup();
    arm(7, 1, 0);
    RH_OK_IF(settle());
    say(SHARDS, RH_EV_STOP, 0, 0, 0, 0);
    RH_OK_IF(!settle());
    teardown();
}

/* ---- any history ---- */

#define MODEL_SLOTS 300

/* Goal    for any history each alarm rings exactly once, at its time, with its generation.
 * Method  a table of what is armed, looked through after each pass; times by expiry, which has no
 *         jitter. Shards answer now and then, so that credits are short, too. */
RH_TEST(ack, for_any_history_it_does_what_a_table_says)
{
    static struct {
        bool armed;
        uint32_t gen;
        uint64_t due_ms;
    } model[MODEL_SLOTS];

    setup();
    for (unsigned round = 0; round < 3000; round++) {
        for (uint64_t n = rh_test_rand() % 30; n; n--) {
            uint32_t slot = (uint32_t)(rh_test_rand() % MODEL_SLOTS);
            bool again = rh_test_rand() % 4 == 0;
            uint64_t far = rh_test_rand() % 4 ? rh_test_rand() % 50 : rh_test_rand() % 4400;

            if (rh_test_rand() % 3 == 0) {
                disarm(slot * 37, model[slot].gen);
                model[slot].armed = false;
                continue;
            }
            model[slot].gen += !again;
            model[slot].armed = true;
            model[slot].due_ms = rig.now_ms + far;
            arm_until(slot * 37, model[slot].gen, model[slot].due_ms);
        }
        memset(rig.told, 0, sizeof(rig.told));
        advance(rh_test_rand() % 40);
        for (uint32_t slot = 0; slot < MODEL_SLOTS; slot++) {
            bool due = model[slot].armed && model[slot].due_ms <= rig.now_ms;

            RH_OK_IF(rig.told[slot * 37] == due);
            RH_OK_IF(!due || rig.gen[slot * 37] == model[slot].gen);
            model[slot].armed &= !due;
        }
    }
    teardown();
}
