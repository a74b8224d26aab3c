/* shard/heartbeat.c - everything that happens to a connection because time passes.
 *
 * Why this way: one timer per connection, set to the earliest of its dates. Arrivals do not touch
 * it; when it fires, the dates are computed anew from what has been noted, and most often it is
 * only time for the next ping. So an active connection costs the wheel nothing.
 *
 *   HTTP      answered (or upgraded) by since + limits.handshake_timeout
 *   MOVING    nothing: the kernel is about to tell
 *   OPEN      a ping each heartbeat.interval; 4410 at heard + heartbeat.timeout; 4408 when a send is
 *             under way and the peer takes nothing for limits.send_timeout; while the hub drains,
 *             what shard/drain.c says
 *   CLOSING   cut when the peer neither closes nor takes anything for RH_CLOSE_WAIT_MS, after
 *             limits.send_timeout in any case, and at seven eighths of shutdown.grace
 *   LINGER    cut at since + RH_CLOSE_WAIT_MS
 *   DEAD      a receive that the shutdown has not ended is cancelled after RH_DEAD_WAIT_MS
 *
 * While the hub drains, HTTP and LINGER get RH_DRAIN_WAIT_MS only. A connection that we do not read
 * (paused, or without a receive buffer) is not heard, so it is not counted as dead.
 *
 * Whether a peer takes anything is asked of the kernel, RH_LOOKS times a timeout, and only while a
 * send is under way. The first look finds what the peer took of earlier sends, too; so it may be up
 * to one and a half times the timeout until we are sure.
 */
#include "shard/shard_int.h"

#include "core/log.h"

static uint64_t look_every_ms(const struct rh_shard *sh)
{
    return sh->cfg->limits_send_timeout_ms / RH_LOOKS + 1;
}

static uint64_t open_due(const struct rh_shard *sh, const struct rh_conn *c)
{
    uint64_t due = UINT64_MAX;

    if (!c->told)
        due = rh_conn_ms(sh, c->since_ms) + sh->cfg->heartbeat_interval_ms;
    if (!c->paused && !c->starved && !c->told) /* else we do not listen, or do not ask any more */
        due = RH_MIN(due, rh_conn_ms(sh, c->heard_ms) + sh->cfg->heartbeat_timeout_ms);
    if (rh_outq_flying(c->out))
        due = RH_MIN(due, c->out->look_ms + look_every_ms(sh));
    if (sh->draining)
        due = RH_MIN(due, rh_drain_due(sh, c));
    return due;
}

/* While the hub drains nobody waits for a peer's close longer than this. */
static uint64_t closing_end_ms(const struct rh_shard *sh)
{
    return sh->draining ? sh->drain_ms + sh->cfg->shutdown_grace_ms / 8 * 7 : UINT64_MAX;
}

void rh_heartbeat_set(struct rh_shard *sh, struct rh_conn *c)
{
    uint64_t since = rh_conn_ms(sh, c->since_ms);
    uint64_t due = since + RH_CLOSE_WAIT_MS;

    if (c->state == RH_CONN_MOVING) {
        rh_timer_clear(&sh->wheel, &c->timer);
        return;
    }
    if (c->state == RH_CONN_DEAD)
        due = sh->now_ms + RH_DEAD_WAIT_MS;
    else if (c->state == RH_CONN_OPEN)
        due = open_due(sh, c);
    else if (sh->draining && (c->state == RH_CONN_LINGER || (c->state == RH_CONN_HTTP && !c->out)))
        due = since + RH_DRAIN_WAIT_MS;
    else if (c->state == RH_CONN_CLOSING)
        due = RH_MIN(due, closing_end_ms(sh));
    else if (c->state == RH_CONN_HTTP)
        due = since + sh->cfg->limits_handshake_timeout_ms;
    c->watched = false;
    rh_timer_set(&sh->wheel, &c->timer, due);
}

void rh_heartbeat_watch_send(struct rh_shard *sh, struct rh_conn *c)
{
    uint64_t due = sh->now_ms + look_every_ms(sh);

    c->out->acked_ms = sh->now_ms;
    if (!c->out->look_ms)
        c->out->look_ms = sh->now_ms;
    if (c->watched || c->state != RH_CONN_OPEN)
        return;
    c->watched = true;
    if (c->timer.due_ms > due)
        rh_timer_set(&sh->wheel, &c->timer, due);
}

/* Whether the peer has taken something of the send under way since we last looked. */
static bool takes_some(struct rh_shard *sh, struct rh_conn *c)
{
    uint64_t acked = rh_uring_acked(sh->uring, c->fd);
    bool grown = acked == RH_ACKED_UNKNOWN || acked != c->out->acked;

    c->out->acked = acked;
    c->out->look_ms = sh->now_ms;
    if (grown)
        c->out->acked_ms = sh->now_ms;
    return grown;
}

static bool stuck(struct rh_shard *sh, struct rh_conn *c)
{
    return rh_outq_flying(c->out) && sh->now_ms - c->out->look_ms >= look_every_ms(sh) &&
           !takes_some(sh, c) && sh->now_ms - c->out->acked_ms >= sh->cfg->limits_send_timeout_ms;
}

static void fire_open(struct rh_shard *sh, struct rh_conn *c)
{
    if (!c->paused && !c->starved && !c->told &&
        sh->now_ms - rh_conn_ms(sh, c->heard_ms) >= sh->cfg->heartbeat_timeout_ms) {
        rh_conn_close(sh, c, 4410, "heartbeat timeout");
        return;
    }
    if (stuck(sh, c)) {
        rh_stat_add(&sh->stats, RH_STAT_failures_timeout, 1);
        rh_stat_add(&sh->stats, RH_STAT_failures_general, 1);
        rh_conn_cut(sh, c, 4408); /* no close frame gets through where nothing does */
        return;
    }
    if (!c->told && sh->now_ms - rh_conn_ms(sh, c->since_ms) >= sh->cfg->heartbeat_interval_ms) {
        c->since_ms = (uint32_t)sh->now_ms;
        rh_client_ping(sh, c);
        rh_conn_beat(sh, c);
    }
    if (sh->draining)
        rh_drain_fire(sh, c);
    if (c->state == RH_CONN_OPEN)
        rh_heartbeat_set(sh, c);
}

/* What was queued before the close goes out as long as the peer takes some of it; but one that takes it
 * drop by drop, and is counted nowhere any more, has no more than limits.send_timeout for all of it. */
static void fire_closing(struct rh_shard *sh, struct rh_conn *c)
{
    uint64_t end =
        rh_conn_ms(sh, c->since_ms) + RH_MAX(sh->cfg->limits_send_timeout_ms, RH_CLOSE_WAIT_MS);

    end = RH_MIN(end, closing_end_ms(sh));
    if (sh->now_ms >= end || !rh_outq_flying(c->out) || !takes_some(sh, c))
        rh_conn_cut(sh, c, 1006);
    else
        rh_timer_set(&sh->wheel, &c->timer, RH_MIN(sh->now_ms + RH_CLOSE_WAIT_MS, end));
}

void rh_heartbeat_fire(struct rh_shard *sh, struct rh_conn *c)
{
    switch ((enum rh_conn_state)c->state) {
    case RH_CONN_HTTP:
        if (c->rest || !c->answered)
            rh_stat_add(&sh->stats, RH_STAT_connections_refused_timeout, 1);
        rh_conn_cut(sh, c, 1006);
        break;
    case RH_CONN_OPEN:
        fire_open(sh, c);
        break;
    case RH_CONN_CLOSING:
        fire_closing(sh, c);
        break;
    case RH_CONN_DEAD:
        rh_conn_let_go(sh, c);
        break;
    default:
        rh_conn_cut(sh, c, 1006);
        break;
    }
}
