/* tests/sim/sim_owed.c - a case: acknowledged and offline messages; see sim_owed.h.
 *
 *   act      devices send, acknowledge in all manners, come and go
 *   crash    in some runs: the hub dies, and starts anew with another number of shards
 *   settle   all are there, say nothing more and acknowledge what comes; the book is checked
 *   leave    everybody goes: nothing may be left
 */
#include "tests/sim/sim_owed.h"

#include <errno.h>
#include <string.h>

#include "tests/sim/sim_case.h"
#include "tests/sim/sim_hub.h"
#include "tests/store/disk.h"

#define ACT_TIME    (10 * SIM_S)
#define SETTLE_TIME (60 * SIM_S) /* more than all repetitions of a message take, with its ttl */
#define LEAVE_TIME  (40 * SIM_S) /* and sessions and idle connections */

struct owed_case {
    struct rh_config *cfg;
    unsigned count, crashes;
    struct owed_dev *all[OWED_DEVS];
};

/* ---- what is drawn ---- */

static void draw_kernel(void)
{
    sim_knobs.buffers = (unsigned)SIM_ONE_OF(2, 4, 16, 128);
    sim_knobs.send_room = (unsigned)SIM_ONE_OF(600, 4096, 32768);
    sim_knobs.recv_room = (unsigned)SIM_ONE_OF(600, 4096, 32768);
    sim_knobs.delay_us = (unsigned)SIM_ONE_OF(20, 500, 5000, 50000);
    sim_knobs.bad_allocs = (unsigned)SIM_ONE_OF(0, 0, 0, 20);
    sim_knobs.stalls = (unsigned)SIM_ONE_OF(0, 0, 2);
    sim_knobs.drops_more = (unsigned)SIM_ONE_OF(0, 30, 300);
    owed_rules.failing = sim_knobs.bad_allocs > 0;
    owed_rules.stalling = sim_knobs.stalls > 0;
}

static void draw_promises(struct rh_config *cfg)
{
    cfg->offline_enabled = true;
    cfg->heartbeat_timeout_ms = 30000;
    cfg->ack_timeout_ms = (uint32_t)SIM_ONE_OF(50, 300, 1000, 3000);
    cfg->ack_max_retries = (uint32_t)SIM_ONE_OF(0, 1, 3, 5);
    cfg->ack_max_delay_ms = 3000;
    owed_rules.patience_ns = (cfg->ack_max_retries + 1) * cfg->ack_timeout_ms * 9 / 10 * SIM_MS;
    cfg->ack_policy = (enum rh_ack_policy)sim_below(2);
    cfg->ack_max_unacked = (uint32_t)SIM_ONE_OF(1, 2, 5, 1000);
    cfg->offline_max_messages = (uint32_t)SIM_ONE_OF(1, 3, 10, 1000, 1000, 1000);
    owed_rules.tight = cfg->offline_max_messages < 1000;
    cfg->offline_ttl_ms = (uint32_t)SIM_ONE_OF(1000, 30000, 3600000, 3600000, 3600000);
    owed_rules.expires = cfg->offline_ttl_ms < 3600000;
    cfg->store_backlog_bytes = SIM_ONE_OF(1 << 20, 256 << 20, 256 << 20);
    owed_rules.full = cfg->store_backlog_bytes == 1 << 20;
    cfg->rooms_empty_ttl_ms = (uint32_t)SIM_ONE_OF(0, 10, 1000, 20000);
    cfg->resume_window_ms = (uint32_t)SIM_ONE_OF(0, 300, 2000);
    if (!sim_chance(300))
        return;
    owed_rules.tight = true;
    cfg->limits_slow_consumer = (enum rh_slow_consumer)sim_below(4);
    cfg->limits_send_queue_messages = (uint32_t)SIM_ONE_OF(1, 2, 8);
}

static void draw_manner(struct owed_manner *how, bool expires, bool rooms)
{
    *how = (struct owed_manner){
        .acts = (unsigned)sim_below(sim_chance(300) ? 80 : 25),
        .gap_us = (unsigned)SIM_ONE_OF(0, 1000, 50000, 300000),
        .at_once = (unsigned)SIM_ONE_OF(0, 300, 1000),
        .late = (unsigned)SIM_ONE_OF(0, 300, 1000),
        .together = (unsigned)SIM_ONE_OF(0, 300, 1000),
        .twice = (unsigned)SIM_ONE_OF(0, 200),
        .wrong = (unsigned)SIM_ONE_OF(0, 50),
        .restless = (unsigned)SIM_ONE_OF(0, 0, 30, 150),
        .lazy = (unsigned)SIM_ONE_OF(0, 0, 30),
        .acks = (unsigned)SIM_ONE_OF(300, 700, 1000),
        .again = (unsigned)SIM_ONE_OF(0, 100, 300),
        .ttl = expires ? 200 : 0,
        .publishes = 400,
        .rooms = rooms ? (unsigned)sim_below(1 << OWED_ROOMS) : 0,
        .pad_max = SIM_ONE_OF(10, 300, 4000, 12000),
    };
}

static void draw_world(struct owed_case *t)
{
    memset(&owed_rules, 0, sizeof(owed_rules));
    draw_kernel();
    draw_promises(t->cfg);
    t->cfg->shards = (uint32_t)SIM_ONE_OF(1, 2, 2, 3);
    t->crashes = sim_chance(500) ? 1 + (unsigned)sim_below(3) : 0;
    owed_rules.durable = t->cfg->store_durability == RH_DURABILITY_COMMIT;
    owed_rules.faulty = owed_rules.durable && sim_chance(300);
    sim_knobs.bad_disk = owed_rules.faulty;
    owed_rules.users = 1 + (unsigned)sim_below(OWED_USERS);
    t->count = owed_rules.users + (unsigned)sim_below(OWED_DEVS - OWED_USERS + 1);
}

/* ---- the disk ---- */

static void heal_disk(void *arg)
{
    (void)arg;
    sim_trace("the disk is well");
    disk_luck(0, NULL);
    disk_fail(DISK_WRITE, 1, 0, 0);
    disk_room(UINT64_MAX);
    disk_hang(0);
}

static void hurt_disk(void *arg)
{
    static const struct disk_luck luck = {
        .turns = 5, .short_pct = 20, .fail_pct = {5, 5, 5, 0, 5, 5, 5}};
    unsigned kind = (unsigned)sim_below(5);

    (void)arg;
    sim_trace("the disk is ill (%u)", kind);
    if (kind == 0)
        disk_luck(sim_rand(), &luck);
    else if (kind == 1)
        disk_fail(DISK_WRITE, 1, 1 + (unsigned)sim_below(20), EIO);
    else if (kind == 2)
        disk_fail(DISK_SYNC, 1, 1 + (unsigned)sim_below(20), EIO);
    else if (kind == 3)
        disk_room(sim_below(300000));
    else
        disk_hang(1u << (sim_chance(500) ? DISK_WRITE : DISK_SYNC));
    sim_at(sim_now() + sim_below(4 * SIM_S), heal_disk, NULL);
}

static void plan_disk(void)
{
    unsigned count = owed_rules.faulty ? 1 + (unsigned)sim_below(4) : 0;

    for (unsigned i = 0; i < count; i++)
        sim_at(sim_now() + sim_below(ACT_TIME), hurt_disk, NULL);
}

/* ---- the case ---- */

static void begin(struct owed_case *t)
{
    bool expires = sim_chance(200), rooms = sim_chance(500);

    owed_rules.expires |= expires;
    owed_book_begin();
    owed_devs_begin();
    sim_hub_start(t->cfg);
    plan_disk();
    for (unsigned i = 0; i < t->count; i++) {
        struct owed_manner how;

        draw_manner(&how, expires, rooms);
        t->all[i] = owed_dev_start(i, i % owed_rules.users, &how,
                                   sim_now() + sim_below(sim_chance(700) ? SIM_S : ACT_TIME));
    }
}

static void settle(struct owed_case *t)
{
    sim_knobs.stalls = 0;
    sim_knobs.bad_allocs = 0;
    for (unsigned i = 0; i < t->count; i++)
        owed_dev_settle(t->all[i]);
    sim_hub_run(sim_now() + SETTLE_TIME);
    for (unsigned i = 0; i < t->count; i++)
        SIM_CHECK(owed_dev_there(t->all[i]), "device %u is not there", i);
    owed_check_rest();
}

static void leave(struct owed_case *t)
{
    for (unsigned i = 0; i < t->count; i++)
        owed_dev_end(t->all[i]);
    sim_hub_run(sim_now() + LEAVE_TIME + t->cfg->rooms_empty_ttl_ms * SIM_MS);
    sim_hub_check_empty(true);
}

static void crash(struct owed_case *t)
{
    unsigned bad_allocs = sim_knobs.bad_allocs;

    owed_book_crash();
    sim_hub_crash(sim_chance(500));
    heal_disk(NULL);
    t->cfg->shards = (uint32_t)SIM_ONE_OF(1, 2, 3);
    sim_knobs.bad_allocs = 0; /* what is not loaded for want of memory waits for the next start */
    sim_hub_start(t->cfg);
    sim_knobs.bad_allocs = bad_allocs;
}

static void act(struct owed_case *t)
{
    uint64_t end_ns = sim_now() + ACT_TIME;

    for (unsigned i = 0; i < t->crashes; i++) {
        sim_hub_run(sim_now() + sim_below(ACT_TIME / 2));
        crash(t);
    }
    sim_hub_run(RH_MAX(end_ns, sim_now() + SIM_S));
}

void sim_owed(uint64_t seed, bool loud)
{
    struct owed_case t = {.cfg = sim_case_begin("owed", seed, loud)};

    draw_world(&t);
    begin(&t);
    act(&t);
    settle(&t);
    leave(&t);
    sim_hub_drain();
    sim_case_finish(t.cfg, true);
    sim_world_end();
}
