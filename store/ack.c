/* store/ack.c - the ack thread: the alarm clock of what was handed out and not acknowledged.
 *
 *   ARM ──► [armed] ──its time has come──► DUE, forgotten ◄──a credit── [held]
 *             │  └──────────── no credit for its shard ─────────────────►│
 *             └──────────────────────── DISARM ──► forgotten ◄───────────┘
 *
 * Why this way: it knows neither ids nor payloads. A shard names what it arms by slot and generation;
 * its slots are the indices of a table here, in slabs, so that nothing is looked up. When an alarm is
 * set it is computed what will become of it and when, so 40 bytes are enough. A DUE is a hint, and
 * the shard arms anew what it repeats: an alarm rings once.
 *
 * Pacing      A DUE is a request: so many as there are credits are with a shard, the others wait in a
 *             FIFO (through the alarms themselves, which needs no memory). What is disarmed meanwhile
 *             leaves it. Everything that was told before is popped before time is looked at.
 * Memory      No memory for a slab: the slots are remembered as a range, which needs none, and tried
 *             again; once there is, the shard is asked to arm them again (RH_DUE_AGAIN), a slab at a
 *             time. So no alarm is lost, whatever fails. Slabs without alarms are freed.
 * Threads     The ack thread; it only talks through its end of the mesh.
 * Invariants  (1) alarms (the gauge) == armed (the wheel's count) + held == sum of the slabs' counts.
 *             (2) A shard's FIFO is empty or there was no credit for it at the end of the last pass.
 * Rejected    A hash table of slots: slots are dense, as shards use them again. Threads of timers in
 *             the kernel: a system call for each.
 */
#include <string.h>

#include "core/bell.h"
#include "core/clock.h"
#include "core/err.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/prng.h"
#include "core/thread.h"
#include "core/timer.h"
#include "store/schedule.h"
#include "store/store.h"

#define SLAB_BITS    10 /* alarms in a slab: 40 KB */
#define SLAB_ALARMS  (1u << SLAB_BITS)
#define FIRES_A_PASS 4096
#define POPS_A_PASS  64   /* times RH_MESH_POP */
#define AGAIN_SLABS  64   /* of one shard in one try: it looks at all their slots */
#define AGAIN_MS     100  /* between two tries for memory */
#define TRIM_MS      1000 /* between two looks for slabs without alarms */
#define SPILL_NAP_MS 1    /* a ring is full: its reader needs the processor more than we do */
#define ON_ACK(ack)  rh_assert((int)(ack)->env->ack == rh_tid_self())

enum state { IDLE, ARMED, HELD };

struct alarm {
    struct rh_timer timer; /* ARMED: the wheel's; HELD: its node is in the shard's FIFO */
    uint32_t slot;
    uint32_t gen;
    uint8_t shard;
    uint8_t state;
    uint8_t due; /* enum rh_due: what there will be to say */
};

_Static_assert(sizeof(struct alarm) <= 40, "of a million there are a million");

struct slab {
    uint32_t used; /* alarms that are not IDLE */
    struct alarm alarms[SLAB_ALARMS];
};

/* What we know of one shard. */
struct line {
    struct slab **slabs; /* by slot >> SLAB_BITS; NULL: none of its slots was armed */
    uint32_t slab_count; /* places in `slabs` */
    struct rh_list held; /* alarms, the first to come first */
    /* Slabs for which there was no memory when they were needed lie in first..last. */
    uint32_t again_first, again_last; /* first > last: none */
};

struct rh_ack {
    const struct rh_store_env *env;
    struct rh_snapshot *snapshot; /* replaced by CONFIG */
    struct rh_mesh *mesh;
    struct rh_bell *bell;
    struct rh_wheel wheel;
    struct rh_prng prng;
    uint64_t now_ms;            /* of this pass */
    uint64_t again_ms, trim_ms; /* when to try, and to look, next */
    unsigned again;             /* lines that want to arm something again */
    uint32_t slabs;             /* that exist */
    uint64_t drain_round;       /* of the last DRAIN; 0: none is to be answered */
    bool stopping;
    struct line lines[RH_SHARDS_MAX];

    struct rh_stats stats; /* we write, metrics read */
};

/* ---- slabs ---- */

/* Makes the table long enough for that slab. */
static bool reach(struct line *line, uint32_t slab)
{
    size_t count = RH_MAX(line->slab_count, 16);
    struct slab **slabs;

    if (slab < line->slab_count)
        return true;
    while (count <= slab)
        count *= 2;
    slabs = rh_mem_realloc(line->slabs, count * sizeof(*slabs));
    if (!slabs)
        return false;
    memset(slabs + line->slab_count, 0, (count - line->slab_count) * sizeof(*slabs));
    line->slabs = slabs;
    line->slab_count = (uint32_t)count;
    return true;
}

static bool make_slab(struct rh_ack *ack, struct line *line, uint32_t slab)
{
    if (!reach(line, slab))
        return false;
    if (line->slabs[slab])
        return true;
    line->slabs[slab] = rh_mem_zalloc(sizeof(**line->slabs));
    ack->slabs += line->slabs[slab] != NULL;
    return line->slabs[slab] != NULL;
}

static struct slab *slab_of(const struct line *line, uint32_t slot)
{
    uint32_t slab = slot >> SLAB_BITS;

    return slab < line->slab_count ? line->slabs[slab] : NULL;
}

static struct alarm *alarm_of(struct slab *slab, uint32_t slot)
{
    return &slab->alarms[slot & (SLAB_ALARMS - 1)];
}

/* Once a second: slabs in which nothing is armed. */
static void trim(struct rh_ack *ack)
{
    if (ack->now_ms < ack->trim_ms)
        return;
    ack->trim_ms = ack->now_ms + TRIM_MS;
    for (unsigned i = 0; i < ack->env->shards; i++) {
        struct line *line = &ack->lines[i];

        for (uint32_t k = 0; k < line->slab_count; k++) {
            if (!line->slabs[k] || line->slabs[k]->used)
                continue;
            rh_mem_free(line->slabs[k]);
            line->slabs[k] = NULL;
            ack->slabs--;
        }
    }
}

/* ---- alarms ---- */

static void forget(struct rh_ack *ack, struct alarm *a)
{
    if (a->state == IDLE)
        return;
    if (a->state == ARMED)
        rh_timer_clear(&ack->wheel, &a->timer);
    else
        rh_list_del(&a->timer.node);
    a->state = IDLE;
    slab_of(&ack->lines[a->shard], a->slot)->used--;
    rh_stat_sub(&ack->stats, RH_STAT_alarms, 1);
}

/* True: its shard has been told, and it is forgotten. */
static bool tell(struct rh_ack *ack, struct alarm *a)
{
    struct rh_event ev = {.kind = RH_EV_DUE, .a = a->slot | (uint64_t)a->gen << 32, .b = a->due};

    if (rh_mesh_ask(ack->mesh, a->shard, &ev, 0) < 0)
        return false;
    forget(ack, a);
    return true;
}

static void on_time(void *arg, struct rh_timer *timer)
{
    struct rh_ack *ack = arg;
    struct alarm *a = rh_container_of(timer, struct alarm, timer);
    struct line *line = &ack->lines[a->shard];

    rh_stat_inc(&ack->stats, RH_STAT_dues);
    if (rh_list_empty(&line->held) && tell(ack, a))
        return;
    a->state = HELD;
    rh_list_add(&line->held, &a->timer.node);
    rh_stat_inc(&ack->stats, RH_STAT_dues_held);
}

static void tell_held(struct rh_ack *ack)
{
    for (unsigned i = 0; i < ack->env->shards; i++) {
        struct rh_list *held = &ack->lines[i].held;

        while (!rh_list_empty(held) &&
               tell(ack, rh_container_of(held->next, struct alarm, timer.node)))
            ;
    }
}

/* What will become of it, and when. */
static uint64_t decide(struct rh_ack *ack, const struct rh_event *ev, uint8_t *ret_due)
{
    const struct rh_config *cfg = ack->snapshot->cfg;
    struct rh_schedule s = {cfg->ack_timeout_ms, cfg->ack_backoff_factor, cfg->ack_max_delay_ms};
    bool more = ev->b < cfg->ack_max_retries && rh_config_retries(cfg, RH_REASON_ack_timeout);
    uint64_t k = more ? ev->b + 1 : RH_MAX(ev->b, 1); /* after the last, its wait once more */
    uint64_t due_ms = ev->c + rh_schedule_draw_ms(&s, k, rh_prng_next(&ack->prng));

    *ret_due = more ? RH_DUE_REPEAT : RH_DUE_GIVE_UP;
    if (ev->d <= due_ms)
        *ret_due = RH_DUE_EXPIRED;
    return RH_MIN(ev->d, due_ms);
}

/* ---- no memory ---- */

static void want_again(struct rh_ack *ack, struct line *line, uint32_t slab)
{
    if (line->again_first > line->again_last) {
        line->again_first = line->again_last = slab;
        if (!ack->again++)
            ack->again_ms = ack->now_ms + AGAIN_MS;
        return;
    }
    line->again_first = RH_MIN(line->again_first, slab);
    line->again_last = RH_MAX(line->again_last, slab);
}

/* The first of the slabs that are wanted is there: its shard may arm what it has in these slots. */
static bool ask_again(struct rh_ack *ack, unsigned shard)
{
    struct line *line = &ack->lines[shard];
    struct rh_event ev = {.kind = RH_EV_DUE, .b = RH_DUE_AGAIN};

    if (!make_slab(ack, line, line->again_first))
        return false;
    ev.a = (uint64_t)line->again_first << SLAB_BITS | (uint64_t)SLAB_ALARMS << 32;
    if (rh_mesh_ask(ack->mesh, shard, &ev, 0) < 0)
        return false;
    line->again_first++;
    return true;
}

static void try_again(struct rh_ack *ack)
{
    if (!ack->again || ack->now_ms < ack->again_ms)
        return;
    ack->again = 0;
    ack->again_ms = ack->now_ms + AGAIN_MS;
    for (unsigned i = 0; i < ack->env->shards; i++) {
        struct line *line = &ack->lines[i];

        for (unsigned n = 0; n < AGAIN_SLABS && line->again_first <= line->again_last; n++)
            if (!ask_again(ack, i))
                break;
        ack->again += line->again_first <= line->again_last;
    }
}

/* ---- events ---- */

static void on_arm(struct rh_ack *ack, const struct rh_event *ev)
{
    struct line *line = &ack->lines[ev->from];
    uint32_t slot = (uint32_t)ev->a;
    struct slab *slab;
    struct alarm *a;
    uint64_t due_ms;

    if (!make_slab(ack, line, slot >> SLAB_BITS)) {
        want_again(ack, line, slot >> SLAB_BITS);
        return;
    }
    slab = slab_of(line, slot);
    a = alarm_of(slab, slot);
    forget(ack, a);
    a->slot = slot;
    a->gen = (uint32_t)(ev->a >> 32);
    a->shard = (uint8_t)ev->from;
    due_ms = decide(ack, ev, &a->due);
    a->state = ARMED;
    rh_timer_set(&ack->wheel, &a->timer, due_ms);
    slab->used++;
    rh_stat_inc(&ack->stats, RH_STAT_alarms);
}

static void on_disarm(struct rh_ack *ack, const struct rh_event *ev)
{
    uint32_t slot = (uint32_t)ev->a;
    struct slab *slab = slab_of(&ack->lines[ev->from], slot);

    if (slab && alarm_of(slab, slot)->gen == (uint32_t)(ev->a >> 32))
        forget(ack, alarm_of(slab, slot));
}

static void on_config(struct rh_ack *ack, const struct rh_event *ev)
{
    rh_snapshot_drop_any(ack->snapshot);
    ack->snapshot = ev->msg;
}

static void on_event(void *arg, const struct rh_event *ev)
{
    struct rh_ack *ack = arg;

    switch (ev->kind) {
    case RH_EV_ARM:
        on_arm(ack, ev);
        break;
    case RH_EV_DISARM:
        on_disarm(ack, ev);
        break;
    case RH_EV_DUE_DONE: /* it was for the credit only */
        break;
    case RH_EV_CONFIG:
        on_config(ack, ev);
        break;
    case RH_EV_DRAIN:
        ack->drain_round = ev->a;
        break;
    case RH_EV_STOP:
        ack->stopping = true;
        break;
    default:
        rh_assert(!"an event that the ack thread knows");
    }
}

/* All that was told before this pass; whoever floods us is interrupted. */
static void pop(struct rh_ack *ack)
{
    for (unsigned n = 0; n < POPS_A_PASS; n++)
        if (rh_mesh_pop(ack->mesh, on_event, ack) < RH_MESH_POP)
            break;
}

static void report_quiet(struct rh_ack *ack)
{
    struct rh_event ev = {.kind = RH_EV_QUIET, .a = ack->drain_round};

    if (!ack->drain_round || !rh_mesh_quiet(ack->mesh))
        return;
    if (rh_mesh_tell(ack->mesh, ack->env->control, &ev) == RH_OK) /* else in the next pass */
        ack->drain_round = 0;
}

/* ---- the loop ---- */

bool rh_ack_pass(struct rh_ack *ack)
{
    ON_ACK(ack);
    ack->now_ms = rh_clock_mono_ns() / 1000000;
    rh_mesh_awake(ack->mesh);
    pop(ack);
    tell_held(ack);
    rh_wheel_advance(&ack->wheel, ack->now_ms, FIRES_A_PASS, on_time, ack);
    try_again(ack);
    trim(ack);
    report_quiet(ack);
    rh_mesh_publish(ack->mesh);
    return !ack->stopping;
}

static uint64_t until(const struct rh_ack *ack, uint64_t at_ms)
{
    return at_ms > ack->now_ms ? at_ms - ack->now_ms : 0;
}

static bool spilled(const struct rh_ack *ack)
{
    struct rh_mesh_stat stat;

    rh_mesh_stat_any(ack->mesh, &stat);
    return stat.spill_events > 0;
}

void rh_ack_wait(struct rh_ack *ack)
{
    uint64_t ms = rh_wheel_next_ms(&ack->wheel, ack->now_ms);

    ON_ACK(ack);
    if (ack->again)
        ms = RH_MIN(ms, until(ack, ack->again_ms));
    if (ack->slabs)
        ms = RH_MIN(ms, until(ack, ack->trim_ms));
    if (ms && !rh_mesh_sleep(ack->mesh))
        ms = spilled(ack) ? SPILL_NAP_MS : 0;
    if (ms)
        rh_bell_wait(ack->bell, ms);
}

void rh_ack_wake_any(struct rh_ack *ack)
{
    rh_bell_ring_any(ack->bell);
}

struct rh_stats *rh_ack_stats_any(struct rh_ack *ack)
{
    return &ack->stats;
}

/* ---- life ---- */

int rh_ack_create(const struct rh_store_env *env, struct rh_ack **ret_ack, struct rh_fault *fault)
{
    struct rh_ack *ack = rh_mem_zalloc_aligned(sizeof(*ack));
    int rc = ack ? rh_bell_create(&ack->bell) : RH_ENOMEM;

    if (rc < 0) {
        rh_mem_free(ack);
        return rh_fault_set(fault, rc, "no memory or no descriptor for the ack thread");
    }
    ack->env = env;
    ON_ACK(ack);
    rh_snapshot_hold_any(env->snapshot);
    ack->snapshot = env->snapshot;
    ack->mesh = rh_net_member(env->net, env->ack);
    ack->now_ms = rh_clock_mono_ns() / 1000000;
    rh_wheel_init(&ack->wheel, ack->now_ms);
    rh_prng_init(&ack->prng);
    for (unsigned i = 0; i < RH_SHARDS_MAX; i++) {
        rh_list_init(&ack->lines[i].held);
        ack->lines[i].again_first = 1;
    }
    *ret_ack = ack;
    return RH_OK;
}

void rh_ack_destroy(struct rh_ack *ack)
{
    if (!ack)
        return;
    for (unsigned i = 0; i < RH_SHARDS_MAX; i++) {
        for (uint32_t k = 0; k < ack->lines[i].slab_count; k++)
            rh_mem_free(ack->lines[i].slabs[k]);
        rh_mem_free(ack->lines[i].slabs);
    }
    rh_snapshot_drop_any(ack->snapshot);
    rh_bell_destroy(ack->bell);
    rh_mem_free(ack);
}
