/* tests/sim/sim_crowd.c - a case: clients with sessions, rooms, broadcasts and full queues.
 *
 *   act    actors join, publish, leave, reconnect, resume; memory may fail, the configuration change
 *   rest   nobody says anything more; sessions without a connection end
 *   ask    a checker asks for the members of all rooms, page by page; all books are checked
 *   leave  everybody goes, sessions and empty rooms end: nothing is left (or: the drain finds them)
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim_actor.h"
#include "tests/sim/sim_case.h"
#include "tests/sim/sim_hub.h"
#include "tests/sim/sim_read.h"
#include "tests/sim/sim_squeeze.h"
#include "tests/sim/sim_uring.h"

#define CONNECT_TIME (1 * SIM_S)
#define ACT_TIME     (10 * SIM_S)
#define REST_TIME    (70 * SIM_S) /* the longest resume.window, heartbeat.timeout and laziness */
#define ASK_TIME     (20 * SIM_S)
#define ACTORS_MAX   320
#define ACTORS_FEW   16
#define JUMPS_MAX    3
#define RELOADS_MAX  4

static const char *const types[] = {"admin", "agent", "customer"};

struct crowd {
    unsigned actors, users, rooms;
    bool early; /* the drain comes in the middle of it */
    bool burst; /* very much is said at once: asks, publishes and broadcasts have to wait */
    bool big;   /* more subscribers than fan-out looks at in a pass */
    uint32_t empty_ms;
    struct rh_config *cfg;
    struct sim_actor *all[ACTORS_MAX];
    struct sim_actor *checker;
};

/* ---- what is drawn ---- */

static void draw_kernel(void)
{
    sim_knobs.buffers = (unsigned)SIM_ONE_OF(1, 2, 4, 16, 128);
    sim_knobs.send_room = (unsigned)SIM_ONE_OF(600, 4096, 32768);
    sim_knobs.recv_room = (unsigned)SIM_ONE_OF(600, 4096, 32768);
    sim_knobs.delay_us = (unsigned)SIM_ONE_OF(20, 500, 5000, 50000);
    sim_knobs.bad_accepts = (unsigned)SIM_ONE_OF(0, 0, 100);
    sim_knobs.bad_allocs = (unsigned)SIM_ONE_OF(0, 0, 0, 20, 200);
    sim_knobs.stalls = (unsigned)SIM_ONE_OF(0, 0, 2);
    sim_knobs.drops_more = (unsigned)SIM_ONE_OF(0, 30, 300);
    sim_draw_descriptors(false);
    sim_rules.failing = sim_knobs.bad_allocs > 0;
    sim_rules.stalling = sim_knobs.stalls > 0;
    sim_rules.slow =
        sim_knobs.delay_us >= 50000 || sim_knobs.recv_room < 1000 || sim_knobs.send_room < 1000;
}

static void draw_queues(struct rh_config *cfg)
{
    bool tight = sim_chance(400);

    cfg->limits_slow_consumer = (enum rh_slow_consumer)sim_below(4);
    cfg->limits_send_queue_messages = tight ? (uint32_t)SIM_ONE_OF(1, 2, 8) : 1 << 16;
    cfg->limits_send_queue_bytes = tight ? SIM_ONE_OF(1024, 16384) : 1 << 30;
    cfg->retry_base_delay_ms = (uint32_t)SIM_ONE_OF(1, 100, 1000);
    cfg->retry_max_retries = (uint32_t)SIM_ONE_OF(0, 1, 3);
    sim_rules.tight |= tight;
    sim_rules.drops_newest |= cfg->limits_slow_consumer == RH_SLOW_NEWEST;
    sim_rules.conflates |= cfg->limits_slow_consumer == RH_SLOW_CONFLATE;
}

static void draw_rooms(struct rh_config *cfg)
{
    cfg->resume_window_ms = (uint32_t)SIM_ONE_OF(0, 300, 2000, 10000, 10000);
    cfg->rooms_history_size = (uint32_t)SIM_ONE_OF(0, 1, 3, 100, 100, 100);
    cfg->rooms_notify_max = (uint32_t)SIM_ONE_OF(0, 1, 256, 256);
    cfg->rooms_per_user = (uint32_t)SIM_ONE_OF(1, 2, 100, 100, 100);
    cfg->rooms_max_members = (uint32_t)SIM_ONE_OF(0, 0, 0, 1, 3);
    cfg->rooms_auto_create = sim_chance(850);
    cfg->rooms_broadcasts_per_minute = (uint32_t)SIM_ONE_OF(0, 0, 0, 0, 3, 30);
    cfg->users_max_devices = (uint32_t)SIM_ONE_OF(0, 0, 0, 0, 0, 0, 0, 1, 2);
}

static void note_rules(const struct rh_config *cfg)
{
    sim_rules.history = cfg->rooms_history_size;
    sim_rules.notify_max = cfg->rooms_notify_max;
    sim_rules.window_ms = cfg->resume_window_ms;
    sim_rules.per_user = cfg->rooms_per_user;
    sim_rules.max_members = cfg->rooms_max_members;
    sim_rules.max_devices = cfg->users_max_devices;
    sim_rules.per_minute = cfg->rooms_broadcasts_per_minute;
    sim_rules.spread_ms = cfg->shutdown_spread_ms;
    sim_rules.auto_create = cfg->rooms_auto_create;
}

static void draw_size(struct crowd *t)
{
    t->actors = 1 + (unsigned)sim_below(sim_chance(500) ? 5 : ACTORS_FEW);
    t->big = sim_chance(15);
    t->burst = !t->big && sim_chance(150);
    if (t->big) {
        t->actors = ACTORS_MAX;
        t->cfg->shards = 1;
    }
    if (t->burst) {
        sim_knobs.stalls = 50;
        sim_rules.stalling = true;
    }
    t->users = 1 + (unsigned)sim_below(RH_MIN(t->actors, (unsigned)ACTORS_FEW));
    t->rooms = 1 + (unsigned)sim_below(t->burst || t->big || sim_chance(500) ? 2 : SIM_ROOMS);
}

static void draw_world(struct crowd *t)
{
    struct rh_config *cfg = t->cfg;

    memset(&sim_rules, 0, sizeof(sim_rules));
    draw_kernel();
    draw_queues(cfg);
    draw_rooms(cfg);
    sim_squeeze_config(cfg);
    cfg->shards = (uint32_t)SIM_ONE_OF(1, 2, 2, 3);
    t->empty_ms = cfg->rooms_empty_ttl_ms = (uint32_t)SIM_ONE_OF(0, 10, 1000, 20000);
    cfg->shutdown_grace_ms = (uint32_t)SIM_ONE_OF(4000, 10000, 10000, 30000);
    cfg->shutdown_spread_ms = (uint32_t)SIM_ONE_OF(0, 1000, 5000);
    cfg->drain_rate = (uint32_t)SIM_ONE_OF(0, 0, 5, 50);
    if (sim_rules.slow)
        cfg->heartbeat_timeout_ms = 30000;
    note_rules(cfg);
    sim_rules.creates_small = sim_chance(200);
    draw_size(t);
    t->early = sim_chance(150);
}

/* Who reads slowly and hears much. */
static void make_tight(struct sim_role *role)
{
    role->lazy = (unsigned)SIM_ONE_OF(0, 60, 150);
    role->lazy_ns = SIM_ONE_OF(50, 500, 1900) * SIM_MS;
    role->restless /= 2;
    if (sim_chance(500))
        role->acts = 100 + (unsigned)sim_below(200);
}

static const char *draw_device(struct sim_role *role)
{
    char *name;

    if (role->shares_device)
        return "phone";
    if (sim_chance(500))
        return NULL;
    name = sim_keep(16);
    snprintf(name, 16, "d%u", role->id);
    return name;
}

static void draw_role(const struct crowd *t, unsigned id, struct sim_role *role)
{
    memset(role, 0, sizeof(*role));
    role->id = id;
    role->user = (unsigned)sim_below(t->users);
    role->shares_device = sim_chance(100);
    role->device = draw_device(role);
    role->type = types[role->user % RH_COUNT(types)];
    role->is_admin = sim_chance(200);
    role->connect_ns = sim_below(CONNECT_TIME);
    role->until_ns = ACT_TIME;
    role->acts = (unsigned)sim_below(sim_chance(300) ? 200 : 40);
    role->gap_us = (unsigned)SIM_ONE_OF(0, 1000, 50000, 400000);
    role->pad_max = SIM_ONE_OF(20, 1000, 8000, 20000);
    role->rooms = t->rooms;
    role->users = t->users + (sim_chance(100) ? 1 : 0); /* one who never comes */
    role->restless = (unsigned)SIM_ONE_OF(0, 0, 30, 150);
    role->lazy = (unsigned)SIM_ONE_OF(0, 0, 20, 60);
    role->lazy_ns = SIM_ONE_OF(100, 1000, 6000) * SIM_MS;
    if (sim_rules.tight)
        make_tight(role);
    if (t->burst) {
        role->acts = 200 + (unsigned)sim_below(200);
        role->gap_us = 0;
        role->pad_max = 40;
        role->restless /= 20;
    }
    if (t->big) {
        role->acts = (unsigned)sim_below(8);
        role->gap_us = 1000000;
        role->pad_max = 20;
        role->restless /= 4;
    }
}

/* ---- what happens in the middle of it ---- */

static void jump(void *arg)
{
    (void)arg;
    sim_jump_wall((int64_t)sim_below(UINT64_C(7200000000)) - INT64_C(3600000000));
}

static void reload(void *arg)
{
    struct crowd *t = arg;

    if (sim_hub_draining())
        return;
    draw_queues(t->cfg);
    draw_rooms(t->cfg);
    sim_squeeze_config(t->cfg);
    sim_hub_reload(t->cfg);
}

static void plan_events(struct crowd *t)
{
    unsigned jumps = sim_chance(150) ? (unsigned)sim_below(JUMPS_MAX + 1) : 0;
    unsigned reloads = sim_chance(150) ? (unsigned)sim_below(RELOADS_MAX + 1) : 0;

    for (unsigned i = 0; i < jumps; i++)
        sim_at(sim_below(ACT_TIME), jump, t);
    for (unsigned i = 0; i < reloads; i++)
        sim_at(sim_below(ACT_TIME), reload, t);
    if (!reloads)
        return;
    sim_rules.changing = true; /* all that any of them may bring */
    sim_rules.tight = sim_rules.drops_newest = true;
    sim_rules.per_user = sim_rules.max_members = sim_rules.per_minute = 1;
    sim_rules.max_devices = 1;
    sim_rules.auto_create = false;
}

/* ---- the checker ---- */

static struct {
    const struct crowd *crowd;
    unsigned room, limit;
    bool seen[SIM_USERS_MAX];
    unsigned devices[SIM_USERS_MAX]; /* as they should be */
    unsigned users, found;
} asked;

static void ask_room(unsigned room)
{
    asked.room = room;
    asked.limit = 1 + (unsigned)sim_below(3);
    asked.found = 0;
    memset(asked.seen, 0, sizeof(asked.seen));
    asked.users = sim_room_users(room, asked.devices);
    sim_say_members(asked.crowd->checker, room, asked.limit, NULL);
}

static void check_member(struct rh_json item)
{
    char name[64], type[64];
    unsigned user;

    sim_get_text(item, "user", name, sizeof(name));
    SIM_CHECK(sscanf(name, "u%u", &user) == 1 && user < SIM_USERS_MAX, "a member named %s", name);
    SIM_CHECK(!asked.seen[user], "%s is twice in %s", name, sim_room_names[asked.room]);
    SIM_CHECK(asked.devices[user] > 0, "%s is in %s, but should not", name,
              sim_room_names[asked.room]);
    SIM_CHECK(sim_get_u64(item, "devices") == asked.devices[user],
              "%s is in %s with %llu devices, but should with %u", name, sim_room_names[asked.room],
              (unsigned long long)sim_get_u64(item, "devices"), asked.devices[user]);
    SIM_CHECK(strcmp(sim_get_text(item, "user_type", type, sizeof(type)),
                     types[user % RH_COUNT(types)]) == 0,
              "%s is a %s", name, type);
    SIM_CHECK(sim_get_u64(item, "since"), "%s is in %s since ever", name,
              sim_room_names[asked.room]);
    asked.seen[user] = true;
    asked.found++;
}

static void on_members(struct sim_link *link, const struct sim_req *req, struct rh_json data,
                       const char *error)
{
    struct rh_json_iter it;
    struct rh_json item;
    unsigned items = 0;
    char cursor[64];

    if (link->actor != asked.crowd->checker)
        return;
    if (!error) {
        rh_json_elements(&it, sim_get(data, "items"));
        for (; rh_json_next_element(&it, &item); items++)
            check_member(item);
        SIM_CHECK(items <= req->limit, "%u members on a page of %u", items, req->limit);
        sim_get_text(data, "next", cursor, sizeof(cursor));
        SIM_CHECK(cursor[0] ? items == req->limit : sim_get(data, "next").kind == RH_JSON_NULL,
                  "a page of %u members, and a strange end", items);
        if (cursor[0]) {
            sim_say_members(link->actor, asked.room, asked.limit, cursor);
            return;
        }
    }
    SIM_CHECK(asked.found == asked.users, "%u users are in %s, but %u should", asked.found,
              sim_room_names[asked.room], asked.users);
    if (++asked.room < SIM_ROOMS)
        ask_room(asked.room);
}

static void ask_all(struct crowd *t)
{
    const struct sim_role role = {.id = ACTORS_MAX,
                                  .user = t->users + 1,
                                  .type = "checker",
                                  .checks = true,
                                  .until_ns = SIM_NEVER};

    asked.crowd = t;
    sim_on_members = on_members;
    t->checker = sim_actor_start(&role);
    sim_hub_run(sim_now() + ASK_TIME);
    SIM_CHECK(sim_link_lives(t->checker->link), "the checker was not let in (%u)",
              t->checker->link->code);
    ask_room(0);
    sim_hub_run(sim_now() + ASK_TIME);
    SIM_CHECK(asked.room == SIM_ROOMS, "the checker was not told of %s",
              sim_room_names[asked.room]);
}

/* ---- how connections may end ---- */

static bool may_end_with(const struct sim_link *link, unsigned code)
{
    bool late =
        link->was_lazy || link->silent || sim_rules.slow || sim_rules.stalling || sim_rules.tight;

    switch (code) {
    case 0:
        return link->how != SIM_HOW_NONE || late || sim_rules.failing;
    case 503:
        return true;
    case 1000: /* the answer to ours */
        return link->said_close && link->how;
    case 1001:
        return link->draining || sim_rules.failing;
    case 1013:
        return sim_rules.failing;
    case 4403:
        return sim_rules.max_devices;
    case 4408:
    case 4410:
        return late || sim_rules.failing;
    case 4409:
        return true;
    default:
        return false;
    }
}

static void check_ends(void)
{
    for (unsigned i = 0; i < sim_link_count; i++) {
        const struct sim_link *link = sim_links[i];

        SIM_CHECK(sim_link_lives(link) || may_end_with(link, link->code),
                  "link %u ended without a reason (code %u)", i, link->code);
    }
}

/* ---- the case ---- */

static void begin_crowd(struct crowd *t)
{
    sim_talk_begin();
    sim_rooms_begin();
    sim_actors_begin();
    sim_hub_start(t->cfg);
    for (unsigned i = 0; i < t->actors; i++) {
        struct sim_role role;

        draw_role(t, i, &role);
        t->all[i] = sim_actor_start(&role);
    }
    plan_events(t);
}

static void all_leave(struct crowd *t)
{
    for (unsigned i = 0; i < t->actors; i++)
        sim_actor_end(t->all[i]);
    sim_actor_end(t->checker);
    sim_hub_run(sim_now() + REST_TIME + t->empty_ms * SIM_MS);
    sim_hub_check_empty(true);
}

static void talk_and_rest(struct crowd *t)
{
    sim_hub_run(ACT_TIME);
    sim_knobs.stalls = 0;
    sim_hub_run(ACT_TIME + REST_TIME);
    sim_knobs.bad_allocs = sim_knobs.bad_passes = 0;
    sim_hub_run(ACT_TIME + REST_TIME + 2 * SIM_S);
    check_ends();
    sim_talk_check_rest();
    sim_rooms_check_rest();
    ask_all(t);
    if (sim_chance(700))
        all_leave(t);
    sim_hub_drain();
}

void sim_crowd(uint64_t seed, bool loud)
{
    struct crowd t = {.cfg = sim_case_begin("crowd", seed, loud)};
    bool empty = true;

    draw_world(&t);
    begin_crowd(&t);
    if (t.early) {
        sim_hub_run(sim_below(ACT_TIME));
        sim_hub_drain();
        empty = sim_chance(500);
        if (empty)
            sim_hub_run(sim_now() + ACT_TIME + REST_TIME);
    } else {
        talk_and_rest(&t);
    }
    sim_knobs.bad_allocs = sim_knobs.bad_passes = 0;
    sim_case_finish(t.cfg, empty);
    if (!t.early)
        check_ends();
    sim_world_end();
}
