/* shard/shard.c - one turn of a shard's loop, and how it ends.
 *
 *   wait ─► completions ─► events of other threads ─► timers ─► fan-out ─► flush ─► publish ─► wait
 *
 * Why this way: the kernel is entered once a pass, with everything that the pass has to send; what
 * others are to see is published once, too, and who sleeps is woken once. A pass uses one reading
 * of the clock. A pass that begins late takes in all arrivals before it looks at timers, so that
 * nobody is punished for the hub's own delay.
 *
 * Ending     DRAIN: users are told and closed (drain.c), those who still come get 503. A shard without connections, credits
 *            and spill reports QUIET to the control thread, once for each DRAIN (hub.c sends two).
 *            STOP: listening ends, and with it the loop. What is still connected then is cut.
 */
#include "shard/shard.h"

#include <string.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/rand.h"
#include "shard/gather.h"
#include "shard/promise.h"
#include "shard/room_int.h"
#include "shard/owed.h"

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
#define PURGE_BYTES    (128u << 10) /* freed at once: worth telling the system */

static void date_conn(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->state == RH_CONN_HTTP || c->state == RH_CONN_OPEN)
        rh_heartbeat_set(sh, c);
}

static void date_room(void *arg, struct rh_map_node *node)
{
    rh_room_set_alarm(arg, rh_container_of(node, struct rh_room, node));
}

/* Dates that were computed with values that have changed. */
static void new_dates(struct rh_shard *sh, const struct rh_config *old)
{
    const struct rh_config *cfg = sh->cfg;

    if (cfg->heartbeat_interval_ms != old->heartbeat_interval_ms ||
        cfg->heartbeat_timeout_ms != old->heartbeat_timeout_ms ||
        cfg->limits_send_timeout_ms != old->limits_send_timeout_ms ||
        cfg->limits_handshake_timeout_ms != old->limits_handshake_timeout_ms)
        rh_conns_each(sh, date_conn);
    if (cfg->rooms_empty_ttl_ms != old->rooms_empty_ttl_ms ||
        cfg->rooms_history_ttl_ms != old->rooms_history_ttl_ms)
        rh_map_each(&sh->rooms, date_room, sh);
}

/* A pass uses one snapshot: the next one begins with the next pass. */
static void use_next_snapshot(struct rh_shard *sh)
{
    struct rh_snapshot *old = sh->snapshot;

    sh->snapshot = sh->next_snapshot;
    sh->next_snapshot = NULL;
    sh->cfg = sh->snapshot->cfg;
    rh_squeeze_config(&sh->stock.squeeze, sh->cfg);
    new_dates(sh, old->cfg);
    rh_snapshot_drop_any(old);
}

static void on_config(struct rh_shard *sh, const struct rh_event *ev)
{
    rh_snapshot_drop_any(sh->next_snapshot);
    sh->next_snapshot = ev->msg;
}

/* ---- life ---- */

/* Rings count against RLIMIT_MEMLOCK, of which an ordinary user has little: small ones are slower
 * under bursts, and better than none. The kernel gives back what an ended process had locked only
 * after a while, so the smallest is tried for a second. */
static int open_ring(struct rh_shard *sh, struct rh_fault *fault)
{
    struct rh_uring_opts opts = {SQ_ENTRIES, CQ_ENTRIES, RH_RECV_BUFFERS, RH_HEADROOM,
                                 sh->env->files};
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
    if (!sh->listeners || rh_map_init(&sh->users) < 0 || rh_map_init(&sh->rooms) < 0 ||
        rh_map_init(&sh->rooms_by_uid) < 0 || rh_map_init(&sh->branches) < 0 ||
        rh_map_init(&sh->subs) < 0 || rh_map_init(&sh->taken) < 0 || rh_promises_init(sh) < 0 ||
        rh_squeeze_init(&sh->stock.squeeze, &sh->stats, sh->cfg) < 0)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for a shard");
    sh->listener_count = sh->cfg->listen.count;
    for (unsigned i = 0; i < sh->listener_count; i++) {
        sh->listeners[i].fd = take_listeners[i];
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
    sh->adjust_ms = sh->now_ms - ADJUST_MS; /* the first pass counts, too */
    sh->seq = RH_MAX(sh->hub_us, RH_MSG_SEQ_MIN);
    rh_wheel_init(&sh->wheel, sh->now_ms);
    rh_wheel_init(&sh->alarms, sh->now_ms);
    atomic_init(&sh->beat_ms, sh->now_ms);
    sh->wake_due_ms = sh->now_ms;
}

static void lists_init(struct rh_shard *sh)
{
    rh_list_init(&sh->starved);
    rh_list_init(&sh->turns);
    rh_list_init(&sh->free_conns);
    rh_list_init(&sh->graveyard);
    rh_list_init(&sh->running);
    rh_list_init(&sh->unreported);
    rh_list_init(&sh->held_rooms);
    rh_list_init(&sh->empty_rooms);
    rh_list_init(&sh->detached);
    rh_list_init(&sh->wanted);
    rh_list_init(&sh->ending);
    rh_list_init(&sh->broadcasts);
    rh_list_init(&sh->gathers);
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
    rh_snapshot_hold_any(env->snapshot);
    sh->snapshot = env->snapshot;
    sh->cfg = sh->snapshot->cfg;
    sh->mesh = rh_net_member(env->net, tid);
    lists_init(sh);
    for (unsigned i = 0; i < RH_SHARDS_MAX; i++)
        rh_list_init(&sh->credit[i]);
    rh_prng_init(&sh->prng);
    rh_idgen_init(&sh->ids, &sh->prng);
    rh_rand_bytes(sh->session_keys, sizeof(sh->session_keys));
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
    if (c->state == RH_CONN_MOVING)
        rh_mem_free(c->arrival);
    if (c->state != RH_CONN_GONE && !rh_fd_direct(c->fd)) /* a slot went with the ring */
        rh_sock_close(c->fd);
    if (c->out) {
        rh_outq_done(&sh->stock, c->out, count_lost, NULL);
        rh_outq_give(&sh->stock, c->out);
    }
    if (c->has_context)
        rh_squeeze_end(sh, c);
    rh_block_give(&sh->stock.blocks, c->rest);
    rh_block_give(&sh->stock.blocks, c->message);
}

void rh_shard_destroy(struct rh_shard *sh)
{
    if (!sh)
        return;
    rh_uring_destroy(sh->uring);
    rh_owed_fini(sh);
    rh_sessions_fini(sh);
    rh_conns_each(sh, conn_leave_behind);
    rh_conns_fini(sh);
    rh_gathers_fini(sh);
    rh_promises_fini(sh);
    rh_broadcasts_fini(sh);
    rh_branches_fini(sh);
    rh_rooms_fini(sh);
    rh_room_taken_fini(sh);
    for (unsigned i = 0; i < sh->listener_count; i++)
        if (sh->listeners[i].fd >= 0)
            rh_sock_close(sh->listeners[i].fd);
    rh_mem_free(sh->listeners);
    rh_map_fini(&sh->users);
    rh_map_fini(&sh->rooms);
    rh_map_fini(&sh->rooms_by_uid);
    rh_map_fini(&sh->branches);
    rh_map_fini(&sh->subs);
    rh_out_stock_fini(&sh->stock);
    rh_squeeze_fini(&sh->stock.squeeze);
    rh_snapshot_drop_any(sh->snapshot);
    rh_snapshot_drop_any(sh->next_snapshot);
    rh_mem_free(sh);
}

/* ---- ending ---- */

/* Once for each DRAIN: no connection (newcomers count when no more are accepted), no promise that is
 * not answered, no credit out, no spill. */
static void report_quiet(struct rh_shard *sh)
{
    struct rh_event ev = {.kind = RH_EV_QUIET, .a = sh->drain_round};
    uint32_t waited_for = sh->conn_count - (sh->shut ? 0 : sh->late_count);

    if (sh->quiet_round == sh->drain_round || waited_for || rh_promises_pending(sh) ||
        !rh_mesh_quiet(sh->mesh))
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
    case RH_EV_ROOM:
        rh_ask_pop(sh, ev);
        break;
    case RH_EV_ROOM_DONE:
        rh_ask_done_pop(sh, ev);
        break;
    case RH_EV_FANOUT:
        rh_fanout_push(sh, ev->from, ev->a, ev->msg);
        break;
    case RH_EV_ROOM_OVER:
        rh_fanout_over(sh, ev->a);
        break;
    case RH_EV_FANNED:
        rh_room_fanned_pop(sh, ev);
        break;
    case RH_EV_UNSUB:
        rh_room_unsub_pop(sh, ev);
        break;
    case RH_EV_OWED_ROOM:
        rh_room_owed_pop(sh, ev);
        break;
    case RH_EV_RELEASED:
        rh_room_released_pop(sh, ev);
        break;
    case RH_EV_BROADCAST:
        rh_broadcast_pop(sh, ev);
        break;
    case RH_EV_BROADCAST_DONE:
        rh_broadcast_done_pop(sh, ev);
        break;
    case RH_EV_COMMITTED:
        rh_promise_committed_pop(sh, ev);
        break;
    case RH_EV_REMEMBER:
        rh_promise_remember_pop(sh, ev);
        break;
    case RH_EV_OWED:
        rh_owed_load_pop(sh, ev);
        break;
    case RH_EV_LOADED:
        sh->loaded = true;
        atomic_fetch_add_explicit(&sh->env->promises->loaded, 1, memory_order_relaxed);
        break;
    case RH_EV_STATUS:
        rh_owed_status_pop(sh, ev);
        break;
    case RH_EV_DUE:
        rh_owed_due_pop(sh, ev);
        break;
    case RH_EV_CONFIG:
        on_config(sh, ev);
        break;
    case RH_EV_DRAIN:
        rh_drain_begin(sh, ev->a);
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
    if (op == RH_OP_RECV) {
        sh->arrived++;
        rh_conn_on_recv(sh, c, cqe);
    } else if (op == RH_OP_PASS) {
        rh_arrive_passed(sh, c, cqe->res);
    } else if (op == RH_OP_POLL) {
        sh->arrived++;
        rh_conn_on_poll(sh, c);
    } else {
        rh_conn_on_send(sh, c, cqe->res);
    }
    if (cqe->flags & RH_CQE_BUFFER)
        rh_uring_give(sh->uring, cqe->buffer);
}

static unsigned reap(struct rh_shard *sh)
{
    unsigned total = 0, count;

    sh->reaping = true;
    do {
        count = rh_uring_reap(sh->uring, sh->cqes, RH_REAP);
        for (unsigned i = 0; i < count; i++)
            on_completion(sh, &sh->cqes[i]);
        total += count;
    } while (count == RH_REAP);
    sh->reaping = false;
    return total;
}

static void on_timer(void *arg, struct rh_timer *timer)
{
    rh_heartbeat_fire(arg, rh_container_of(timer, struct rh_conn, timer));
}

static void on_alarm(void *arg, struct rh_timer *timer)
{
    struct rh_alarm *alarm = rh_container_of(timer, struct rh_alarm, timer);

    alarm->ring(arg, alarm);
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
    rh_stat_set(&sh->stats, RH_STAT_ring_requests_out, mesh.credit_out);
    rh_stat_set(&sh->stats, RH_STAT_ring_spill_events, mesh.spill_events);
    rh_stat_set(&sh->stats, RH_STAT_ring_spill_bytes, mesh.spill_bytes);
    rh_stat_set(&sh->stats, RH_STAT_ring_inbound, rh_net_inbound_any(sh->env->net, sh->tid));
    rh_stat_set(&sh->stats, RH_STAT_loop_passes, sh->pass);
    rh_stat_set(&sh->stats, RH_STAT_cq_overflows, rh_uring_overflows(sh->uring));
    rh_stat_set(&sh->stats, RH_STAT_connections_limit, sh->tid == 0 ? rh_connections_max(sh) : 0);
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
    rh_promises_expire(sh);
    if (rh_out_stock_trim(&sh->stock) >= PURGE_BYTES)
        rh_mem_purge();
}

static void read_clocks(struct rh_shard *sh)
{
    sh->now_ns = rh_clock_mono_ns();
    sh->now_ms = sh->now_ns / 1000000;
    sh->hub_us = rh_hubtime_us(&sh->hubtime, sh->now_ns);
    atomic_store_explicit(&sh->beat_ms, sh->now_ms, memory_order_relaxed);
}

/* What rooms and sessions have to do in each pass; most often nothing. */
static void rooms(struct rh_shard *sh)
{
    if (!rh_list_empty(&sh->detached))
        rh_session_expire(sh);
    if (!rh_list_empty(&sh->wanted) || !rh_list_empty(&sh->ending))
        rh_subs_wanted(sh);
    if (!rh_list_empty(&sh->held_rooms))
        rh_publish_resume(sh);
    sh->more_fanout = !rh_list_empty(&sh->running) || !rh_list_empty(&sh->broadcasts);
    if (sh->more_fanout)
        sh->more_fanout = rh_fanout_run(sh, sh->arrived + sh->popped >= BUSY_REAPED);
    if (!rh_list_empty(&sh->unreported) || sh->stray_count)
        rh_fanout_report(sh);
    if (sh->credit_wanted & 1ull << sh->tid) /* who waits for us waits for what was just done */
        rh_route_resume(sh);
}

/* ---- the loop ---- */

bool rh_shard_pass(struct rh_shard *sh)
{
    RH_ON_SHARD(sh);
    sh->pass++;
    read_clocks(sh);
    if (sh->next_snapshot)
        use_next_snapshot(sh);
    rh_mesh_awake(sh->mesh);
    rh_squeeze_turns(sh);
    sh->arrived = 0;
    sh->reaped = reap(sh);
    catch_up(sh);
    sh->popped = rh_mesh_pop(sh->mesh, on_event, sh);
    if (sh->credit_wanted)
        rh_route_resume(sh);
    if (!rh_list_empty(&sh->promise_waiting))
        rh_route_resume_promised(sh);
    rh_wheel_advance(&sh->wheel, sh->now_ms, RH_TIMERS_A_PASS, on_timer, sh);
    rh_wheel_advance(&sh->alarms, sh->now_ms, RH_TIMERS_A_PASS, on_alarm, sh);
    rooms(sh);
    rh_conn_rearm_starved(sh);
    once_a_second(sh);
    report_quiet(sh);
    rh_conn_flush_all(sh);
    rh_owed_arm(sh);
    rh_mesh_publish(sh->mesh);
    rh_conns_bury(sh);
    if (rh_unlikely(sh->accepts_short))
        rh_accept_resume(sh);
    return !sh->ring_failed && (!sh->stopping || !rh_accept_idle(sh));
}

static uint64_t wait_ms(const struct rh_shard *sh)
{
    uint64_t next =
        RH_MIN(rh_wheel_next_ms(&sh->wheel, sh->now_ms), rh_wheel_next_ms(&sh->alarms, sh->now_ms));

    next = RH_MIN(next, rh_session_next_ms(sh));
    next = RH_MIN(next, rh_owed_next_ms(sh));
    return RH_MIN(next, sh->draining ? DRAIN_MS : WAIT_MS_MAX);
}

void rh_shard_wait(struct rh_shard *sh)
{
    bool busy = sh->reaped >= BUSY_REAPED || !rh_list_empty(&sh->starved) ||
                !rh_list_empty(&sh->turns) || sh->dirty_count || sh->more_fanout;
    uint64_t ms = busy ? 0 : wait_ms(sh);

    RH_ON_SHARD(sh);
    if (sh->more_fanout && sh->env->crowd > 1)
        rh_thread_yield();
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
