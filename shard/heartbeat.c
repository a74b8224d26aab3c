/* shard/heartbeat.c - everything that happens to a connection because time passes.
 *
 * Why this way: one timer per connection, set to the earliest of its dates. Arrivals do not touch
 * it; when it fires, the dates are computed anew from what has been noted, and most often it is
 * only time for the next ping. So an active connection costs the wheel nothing.
 *
 *   HTTP             answered (or upgraded) by since + limits.handshake_timeout
 *   OPEN             a ping each heartbeat.interval; 4410 at heard + heartbeat.timeout; 4408 when a
 *                    send is under way and the peer takes nothing for limits.send_timeout
 *   CLOSING, LINGER  cut at since + RH_CLOSE_WAIT_MS
 *
 * While the hub drains, HTTP and LINGER get RH_DRAIN_WAIT_MS only.
 *
 * A paused connection is not heard, so it is not counted as dead. Whether a peer takes anything is
 * asked of the kernel, and only for sends that are still under way at a look.
 */
#include "shard/shard_int.h"

#include "core/log.h"

#define LOOKS_A_TIMEOUT 4 /* while a send is under way */

static uint64_t look_due(const struct rh_shard *sh, const struct rh_conn *c)
{
    uint64_t timeout = sh->cfg->limits_send_timeout_ms;

    return c->look_ms + (rh_outq_flying(c->out) ? timeout / LOOKS_A_TIMEOUT + 1 : timeout);
}

static uint64_t open_due(const struct rh_shard *sh, const struct rh_conn *c)
{
    uint64_t due = c->since_ms + sh->cfg->heartbeat_interval_ms;

    if (!c->paused)
        due = RH_MIN(due, c->heard_ms + sh->cfg->heartbeat_timeout_ms);
    return RH_MIN(due, look_due(sh, c));
}

void rh_heartbeat_set(struct rh_shard *sh, struct rh_conn *c)
{
    uint64_t due;

    switch ((enum rh_conn_state)c->state) {
    case RH_CONN_HTTP:
        due =
            c->since_ms + (sh->draining ? RH_DRAIN_WAIT_MS : sh->cfg->limits_handshake_timeout_ms);
        break;
    case RH_CONN_OPEN:
        due = open_due(sh, c);
        break;
    case RH_CONN_LINGER:
        due = c->since_ms + (sh->draining ? RH_DRAIN_WAIT_MS : RH_CLOSE_WAIT_MS);
        break;
    default:
        due = c->since_ms + RH_CLOSE_WAIT_MS;
        break;
    }
    rh_timer_set(&sh->wheel, &c->timer, due);
}

/* True: the peer has taken nothing for too long. */
static bool stuck(struct rh_shard *sh, struct rh_conn *c)
{
    uint64_t acked;

    c->look_ms = sh->now_ms;
    if (!rh_outq_flying(c->out))
        return false;
    acked = rh_uring_acked(sh->uring, c->fd);
    if (acked != c->acked) {
        c->acked = acked;
        c->acked_ms = sh->now_ms;
    }
    return sh->now_ms - c->acked_ms >= sh->cfg->limits_send_timeout_ms;
}

static void fire_open(struct rh_shard *sh, struct rh_conn *c)
{
    if (!c->paused && sh->now_ms - c->heard_ms >= sh->cfg->heartbeat_timeout_ms) {
        rh_conn_close(sh, c, 4410, "heartbeat timeout");
        return;
    }
    if (sh->now_ms >= look_due(sh, c) && stuck(sh, c)) {
        rh_stat_add(&sh->stats, RH_STAT_failures_timeout, 1);
        rh_conn_cut(sh, c, 4408); /* no close frame gets through where nothing does */
        return;
    }
    if (sh->now_ms - c->since_ms >= sh->cfg->heartbeat_interval_ms) {
        c->since_ms = sh->now_ms;
        rh_client_ping(sh, c);
    }
    if (c->state == RH_CONN_OPEN)
        rh_heartbeat_set(sh, c);
}

void rh_heartbeat_fire(struct rh_shard *sh, struct rh_conn *c)
{
    switch ((enum rh_conn_state)c->state) {
    case RH_CONN_HTTP:
        if (c->rest || c->heard_ms <= c->since_ms)
            rh_stat_add(&sh->stats, RH_STAT_connections_refused_timeout, 1);
        rh_conn_cut(sh, c, 1006);
        break;
    case RH_CONN_OPEN:
        fire_open(sh, c);
        break;
    default:
        rh_conn_cut(sh, c, 1006);
        break;
    }
}
