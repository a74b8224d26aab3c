/* shard/shard.c - one turn of a shard's loop, and how it ends.
 *
 *   wait ─► completions ─► events of other threads ─► timers ─► flush ─► publish ─► bury ─► wait
 *
 * Why this way: the kernel is entered once a pass, with everything that the pass has to send; what
 * others are to see is published once, too, and who sleeps is woken once. A pass uses one reading
 * of the clock. A pass that begins late takes in all arrivals before it looks at timers, so that
 * nobody is punished for the hub's own delay.
 *
 * Ending     DRAIN: users get 1001, those who still come 503. A shard without connections, credits
 *            and spill reports QUIET to the control thread, once for each DRAIN (hub.c sends two).
 *            STOP: listening ends, and with it the loop. What is still connected then is cut.
 */
#include "shard/shard.h"

#include <string.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/log.h"
#include "core/mem.h"
#include "shard/shard_int.h"

#define SQ_ENTRIES     4096
#define SQ_ENTRIES_MIN 256
#define RING_NAPS      20
#define RING_NAP_MS    50
#define CQ_ENTRIES     16384
#define WAIT_MS_MAX    1000 /* a sleeping shard shows life once a second */
#define ADJUST_MS      1000
#define BUSY_REAPED    16 /* so many completions: there may be more, do not sleep */
#define DRAIN_MS       5  /* while draining it looks more often whether it is quiet */
#define LATE_ROUNDS    64

/* ---- life ---- */

/* Rings count against RLIMIT_MEMLOCK, of which an ordinary user has little: small ones are slower
 * under bursts, and better than none. The kernel gives back what an ended process had locked only
 * after a while, so the smallest is tried for a second. */
static int open_ring(struct rh_shard *sh, struct rh_fault *fault)
{
    struct rh_uring_opts opts = {SQ_ENTRIES, CQ_ENTRIES, RH_RECV_BUFFERS, RH_HEADROOM};
    int rc = rh_uring_create(&opts, &sh->uring, fault);

    while (rc == RH_ENOMEM && opts.sq_entries > SQ_ENTRIES_MIN) {
        opts.sq_entries /= 4;
        opts.cq_entries /= 4;
        rc = rh_uring_create(&opts, &sh->uring, fault);
    }
    for (unsigned naps = 0; rc == RH_ENOMEM && naps < RING_NAPS; naps++) {
        rh_clock_nap_ms(RING_NAP_MS);
        rc = rh_uring_create(&opts, &sh->uring, fault);
    }
    if (rc == RH_OK && opts.sq_entries < SQ_ENTRIES)
        rh_log(RH_LOG_WARN, "shard.small_ring", RH_KU("shard", sh->tid),
               RH_KU("entries", opts.sq_entries),
               RH_KS("hint", "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=)"));
    return rc;
}

static int shard_init(struct rh_shard *sh, int *take_listeners, struct rh_fault *fault)
{
    int rc = open_ring(sh, fault);

    if (rc < 0)
        return rc;
    sh->listeners = rh_mem_zalloc(sh->cfg->listen.count * sizeof(*sh->listeners));
    if (!sh->listeners || rh_map_init(&sh->users) < 0)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for a shard");
    sh->listener_count = sh->cfg->listen.count;
    for (unsigned i = 0; i < sh->listener_count; i++) {
        sh->listeners[i].fd = take_listeners[i];
        rh_timer_init(&sh->listeners[i].retry);
        take_listeners[i] = -1;
    }
    return RH_OK;
}

static void clocks_init(struct rh_shard *sh)
{
    sh->now_ns = rh_clock_mono_ns();
    sh->now_ms = sh->now_ns / 1000000;
    rh_hubtime_init(&sh->hubtime, sh->now_ns, rh_clock_wall_us());
    sh->hub_us = rh_hubtime_us(&sh->hubtime, sh->now_ns);
    sh->adjust_ms = sh->now_ms;
    sh->seq = RH_MAX(sh->hub_us, RH_MSG_SEQ_MIN);
    rh_wheel_init(&sh->wheel, sh->now_ms);
    atomic_init(&sh->beat_ms, sh->now_ms);
    sh->wake_due_ms = sh->now_ms;
}

int rh_shard_create(const struct rh_shard_env *env, unsigned tid, int *take_listeners,
                    struct rh_shard **ret_sh, struct rh_fault *fault)
{
    struct rh_shard *sh = rh_mem_zalloc_aligned(sizeof(*sh));
    int rc;

    if (!sh)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for a shard");
    sh->tid = tid;
    sh->env = env;
    sh->cfg = env->cfg;
    sh->mesh = rh_net_member(env->net, tid);
    sh->dirty = RH_DIRTY_END;
    rh_list_init(&sh->starved);
    rh_list_init(&sh->free_conns);
    rh_list_init(&sh->graveyard);
    for (unsigned i = 0; i < RH_SHARDS_MAX; i++)
        rh_list_init(&sh->credit[i]);
    rh_prng_init(&sh->prng);
    rh_idgen_init(&sh->ids, &sh->prng);
    clocks_init(sh);
    rc = shard_init(sh, take_listeners, fault);
    if (rc < 0) {
        rh_shard_destroy(sh);
        return rc;
    }
    rh_accept_start(sh);
    *ret_sh = sh;
    return RH_OK;
}

static void count_lost(void *arg, const struct rh_msg *msg)
{
    (void)arg;
    (void)msg;
}

/* The ring has gone, so nothing is in flight: lets go of what a connection still holds. */
static void conn_leave_behind(struct rh_shard *sh, struct rh_conn *c)
{
    rh_user_detach(sh, c);
    if (c->state != RH_CONN_GONE)
        rh_sock_close(c->fd);
    if (c->out) {
        rh_outq_done(&sh->stock, c->out, count_lost, NULL);
        rh_outq_give(&sh->stock, c->out);
    }
    rh_block_give(&sh->stock.blocks, c->rest);
    rh_block_give(&sh->stock.blocks, c->message);
    rh_mem_free(c->extra);
}

void rh_shard_destroy(struct rh_shard *sh)
{
    if (!sh)
        return;
    rh_uring_destroy(sh->uring);
    rh_conns_each(sh, conn_leave_behind);
    rh_conns_fini(sh);
    for (unsigned i = 0; i < sh->listener_count; i++)
        if (sh->listeners[i].fd >= 0)
            rh_sock_close(sh->listeners[i].fd);
    rh_mem_free(sh->listeners);
    rh_map_fini(&sh->users);
    rh_out_stock_fini(&sh->stock);
    rh_mem_free(sh);
}

/* ---- ending ---- */

static void drain_conn(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->state == RH_CONN_OPEN) {
        rh_conn_close(sh, c, 1001, "going away");
    } else if (c->state == RH_CONN_HTTP && c->out) {
        c->last_answer = true;
    } else if (c->state == RH_CONN_HTTP && c->rest) {
        rh_httpd_refuse(sh, c, 503, "the server is shutting down", false);
    } else if (c->state == RH_CONN_HTTP || c->state == RH_CONN_LINGER) {
        c->since_ms = sh->now_ms; /* a moment for a request, or an end of stream, on its way */
        rh_heartbeat_set(sh, c);
    }
}

/* The second DRAIN only asks for another report. */
static void drain(struct rh_shard *sh, uint64_t round)
{
    sh->drain_round = round;
    if (sh->draining)
        return;
    sh->draining = true;
    sh->head.method = RH_HTTP_GET; /* what was begun and is refused now */
    rh_conns_each(sh, drain_conn);
}

/* Once for each DRAIN: no connection, no credit out, no spill. */
static void report_quiet(struct rh_shard *sh)
{
    struct rh_event ev = {.kind = RH_EV_QUIET, .a = sh->drain_round};

    if (sh->quiet_round == sh->drain_round || sh->conn_count || !rh_mesh_quiet(sh->mesh))
        return;
    if (rh_mesh_tell(sh->mesh, sh->env->control, &ev) == RH_OK) /* else in the next pass */
        sh->quiet_round = sh->drain_round;
}

/* ---- what a pass looks at ---- */

static void on_event(void *arg, const struct rh_event *ev)
{
    struct rh_shard *sh = arg;

    switch (ev->kind) {
    case RH_EV_SEND:
        rh_route_send_pop(sh, ev);
        break;
    case RH_EV_SENT:
        rh_route_sent_pop(sh, ev);
        break;
    case RH_EV_HANDOVER:
        rh_arrive_pop(sh, ev);
        break;
    case RH_EV_HANDED: /* it was for the credit only */
        break;
    case RH_EV_DRAIN:
        drain(sh, ev->a);
        break;
    case RH_EV_STOP:
        sh->stopping = true;
        rh_accept_stop(sh);
        break;
    default:
        rh_assert(!"an event that a shard knows");
    }
}

static void on_completion(struct rh_shard *sh, const struct rh_cqe *cqe)
{
    enum rh_op op = (enum rh_op)(cqe->tag >> 56);
    struct rh_conn *c;

    if (op == RH_OP_ACCEPT) {
        rh_accept_done(sh, cqe->tag, cqe->res);
        return;
    }
    if (op == RH_OP_CANCEL)
        return;
    c = rh_conn_find(sh, (uint32_t)cqe->tag, (uint32_t)(cqe->tag >> 32));
    rh_assert(c); /* a slot is used again only when nothing of it is in flight */
    if (op == RH_OP_RECV)
        rh_conn_on_recv(sh, c, cqe);
    else
        rh_conn_on_send(sh, c, cqe->res);
    if (cqe->flags & RH_CQE_BUFFER)
        rh_uring_give(sh->uring, cqe->buffer);
}

static unsigned reap(struct rh_shard *sh)
{
    unsigned total = 0, count;

    do {
        count = rh_uring_reap(sh->uring, sh->cqes, RH_REAP);
        for (unsigned i = 0; i < count; i++)
            on_completion(sh, &sh->cqes[i]);
        total += count;
    } while (count == RH_REAP);
    return total;
}

static void on_timer(void *arg, struct rh_timer *timer)
{
    struct rh_shard *sh = arg;

    for (unsigned i = 0; i < sh->listener_count; i++) {
        if (timer == &sh->listeners[i].retry) {
            rh_accept_timer(sh, &sh->listeners[i]);
            return;
        }
    }
    rh_heartbeat_fire(sh, rh_container_of(timer, struct rh_conn, timer));
}

/* Arrivals that waited while we were late count before the timers that ran out meanwhile. */
static void catch_up(struct rh_shard *sh)
{
    if (sh->now_ms < sh->wake_due_ms + RH_LATE_MS)
        return;
    for (unsigned round = 0; round < LATE_ROUNDS; round++) {
        rh_conn_flush_all(sh); /* what is full is judged by sends that were tried */
        sh->pass++;
        if (rh_uring_enter(sh->uring, 0) < 0 || reap(sh) == 0)
            break;
    }
}

static void copy_counts(struct rh_shard *sh)
{
    struct rh_mesh_stat mesh;

    rh_mesh_stat_any(sh->mesh, &mesh);
    rh_stat_set(&sh->stats, RH_STAT_wakeups, mesh.woken);
    rh_stat_set(&sh->stats, RH_STAT_ring_spilled, mesh.spilled);
    rh_stat_set(&sh->stats, RH_STAT_ring_refused, mesh.refused);
    rh_stat_set(&sh->stats, RH_STAT_loop_passes, sh->pass);
    rh_stat_set(&sh->stats, RH_STAT_cq_overflows, rh_uring_overflows(sh->uring));
    rh_stat_set(&sh->stats, RH_STAT_send_queue_messages, sh->stock.messages);
    rh_stat_set(&sh->stats, RH_STAT_send_queue_bytes, sh->stock.bytes);
}

static void once_a_second(struct rh_shard *sh)
{
    int64_t jump;

    if (sh->now_ms - sh->adjust_ms < ADJUST_MS)
        return;
    sh->adjust_ms = sh->now_ms;
    jump = rh_hubtime_adjust(&sh->hubtime, sh->now_ns, rh_clock_wall_us());
    if (jump)
        rh_log(RH_LOG_WARN, "clock.jump", RH_KU("shard", sh->tid), RH_KI("us", jump));
    copy_counts(sh);
}

static void read_clocks(struct rh_shard *sh)
{
    sh->now_ns = rh_clock_mono_ns();
    sh->now_ms = sh->now_ns / 1000000;
    sh->hub_us = rh_hubtime_us(&sh->hubtime, sh->now_ns);
    atomic_store_explicit(&sh->beat_ms, sh->now_ms, memory_order_relaxed);
}

/* ---- the loop ---- */

bool rh_shard_pass(struct rh_shard *sh)
{
    RH_ON_SHARD(sh);
    sh->pass++;
    read_clocks(sh);
    rh_mesh_awake(sh->mesh);
    sh->reaped = reap(sh);
    catch_up(sh);
    rh_mesh_pop(sh->mesh, on_event, sh);
    if (sh->credit_wanted)
        rh_route_resume(sh);
    rh_wheel_advance(&sh->wheel, sh->now_ms, RH_TIMERS_A_PASS, on_timer, sh);
    rh_conn_rearm_starved(sh);
    once_a_second(sh);
    report_quiet(sh);
    rh_conn_flush_all(sh);
    rh_mesh_publish(sh->mesh);
    rh_conns_bury(sh);
    return !sh->ring_failed && (!sh->stopping || !rh_accept_idle(sh));
}

static uint64_t wait_ms(const struct rh_shard *sh)
{
    uint64_t next = rh_wheel_next_ms(&sh->wheel, sh->now_ms);

    return RH_MIN(next, sh->draining ? DRAIN_MS : WAIT_MS_MAX);
}

void rh_shard_wait(struct rh_shard *sh)
{
    bool busy = sh->reaped >= BUSY_REAPED || !rh_list_empty(&sh->starved);
    uint64_t ms = busy ? 0 : wait_ms(sh);

    RH_ON_SHARD(sh);
    if (ms && !rh_mesh_sleep(sh->mesh))
        ms = 0;
    sh->wake_due_ms = sh->now_ms + ms;
    if (rh_uring_enter(sh->uring, ms * 1000000) < 0) {
        rh_log(RH_LOG_ERROR, "shard.ring_failed", RH_KU("shard", sh->tid));
        sh->ring_failed = true;
        for (unsigned i = 0; i < sh->listener_count; i++) /* newcomers go to the other shards */
            rh_uring_shutdown(sh->uring, sh->listeners[i].fd, SHUT_RDWR);
    }
}

void rh_shard_wake_any(struct rh_shard *sh)
{
    rh_uring_wake_any(sh->uring);
}

uint64_t rh_shard_beat_ms_any(const struct rh_shard *sh)
{
    return atomic_load_explicit(&sh->beat_ms, memory_order_relaxed);
}

struct rh_stats *rh_shard_stats_any(struct rh_shard *sh)
{
    return &sh->stats;
}
