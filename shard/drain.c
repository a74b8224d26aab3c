/* shard/drain.c - the hub is told to stop: clients are told, and closed, a few at a time.
 *
 *   DRAIN ──► each client at a random moment within `spread`: server.draining
 *                └─► DRAIN_TELL_MS later, as drain.rate allows: 1001
 *         ──► at three quarters of shutdown.grace: everyone who is left
 *   DRAIN, again ──► nobody is accepted any more
 *
 * Why this way: clients that reconnect come back over a time and not all at once, whether they go
 * by what server.draining says or wait for the close. Nobody keeps a list: a connection's moment is
 * computed from its slot, and its one timer (heartbeat.c) knows it. `spread` is shutdown.spread, or
 * half the grace if that is less. drain.rate is shared evenly by the shards.
 *
 * Newcomers   are refused with 503 until all who were here have gone, on every shard: that is what
 *             the second DRAIN says. They are not waited for before it, so that a crowd that comes
 *             back too early cannot keep the hub from ending; after it the last of them have a
 *             moment to read why.
 */
#include <string.h>

#include "core/limit.h"
#include "shard/room_int.h"

#define DRAIN_TELL_MS 200  /* between server.draining and the close */
#define RETRY_MS_MIN  20   /* drain.rate has no place yet ... */
#define RETRY_MS_MAX  1000 /* ... and how often one asks again, at least */

static uint64_t spread_ms(const struct rh_shard *sh)
{
    return RH_MIN(sh->cfg->shutdown_spread_ms, sh->cfg->shutdown_grace_ms / 2);
}

static uint64_t deadline_ms(const struct rh_shard *sh)
{
    return sh->drain_ms + sh->cfg->shutdown_grace_ms / 4 * 3;
}

/* A moment within the spread, the same whenever it is asked for. */
static uint64_t moment_ms(const struct rh_shard *sh, const struct rh_conn *c)
{
    uint64_t mixed = (sh->drain_seed + c->slot) * 0x9e3779b97f4a7c15u;

    return sh->drain_ms + (((mixed >> 32) * spread_ms(sh)) >> 32);
}

/* An eighth of the time that drain.rate needs for all who are here. */
static uint64_t retry_ms(const struct rh_shard *sh)
{
    uint64_t left = sh->conn_count - sh->late_count;
    uint64_t all_ms = sh->cfg->drain_rate ? left * 1000 * sh->env->shards / sh->cfg->drain_rate : 0;

    return RH_MIN(RH_MAX(all_ms / 8, RETRY_MS_MIN), RETRY_MS_MAX);
}

uint64_t rh_drain_due(const struct rh_shard *sh, const struct rh_conn *c)
{
    uint64_t due = c->told ? rh_conn_ms(sh, c->since_ms) + DRAIN_TELL_MS : moment_ms(sh, c);

    if (c->told && due <= sh->now_ms) /* it has been its turn, but for drain.rate */
        due = sh->now_ms + retry_ms(sh);
    return RH_MIN(due, deadline_ms(sh));
}

static void tell(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_frame f;

    c->told = true;
    c->since_ms = (uint32_t)sh->now_ms;
    if (c->kind != RH_IS_WS || !rh_frame_begin(sh, c, &f, RH_FRAME_ROOM))
        return;
    rh_put_notify(&f.w, RH_SPAN("server.draining"));
    RH_PUT(&f.w, "{\"reconnect_in_ms\":");
    rh_put_u64(&f.w, spread_ms(sh) ? rh_prng_next(&sh->prng) % spread_ms(sh) : 0);
    RH_PUT(&f.w, "}");
    rh_put_notify_end(sh, &f.w);
    rh_frame_end(sh, c, &f);
}

/* drain.rate: this shard's part of it, as so many in a time of its own. */
static bool within_rate(struct rh_shard *sh)
{
    uint64_t shards = sh->env->shards;

    return !sh->cfg->drain_rate ||
           rh_rate_take(&sh->drain_ns, sh->now_ns / shards, sh->cfg->drain_rate, 1);
}

void rh_drain_fire(struct rh_shard *sh, struct rh_conn *c)
{
    bool last = sh->now_ms >= deadline_ms(sh);

    if (!c->told && sh->now_ms >= moment_ms(sh, c)) {
        tell(sh, c);
        if (!last)
            return;
    }
    if (last ||
        (c->told && sh->now_ms >= rh_conn_ms(sh, c->since_ms) + DRAIN_TELL_MS && within_rate(sh)))
        rh_conn_close(sh, c, 1001, "going away");
}

static void begin_conn(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->state == RH_CONN_OPEN || c->state == RH_CONN_CLOSING) {
        rh_heartbeat_set(sh, c);
    } else if (c->state == RH_CONN_HTTP && c->out) {
        c->last_answer = true;
    } else if (c->state == RH_CONN_HTTP && c->rest) {
        rh_httpd_refuse(sh, c, 503, "the server is shutting down", false);
    } else if (c->state == RH_CONN_HTTP || c->state == RH_CONN_LINGER) {
        c->since_ms =
            (uint32_t)sh->now_ms; /* a moment for a request, or an end of stream, on its way */
        rh_heartbeat_set(sh, c);
    }
}

void rh_drain_begin(struct rh_shard *sh, uint64_t round)
{
    sh->drain_round = round;
    if (sh->draining) {
        rh_accept_stop(sh);
        return;
    }
    sh->draining = true;
    sh->drain_ms = sh->now_ms;
    sh->drain_seed = rh_prng_next(&sh->prng);
    sh->head.method = RH_HTTP_GET; /* what was begun and is refused now */
    rh_conns_each(sh, begin_conn);
    rh_session_expire(sh); /* nobody comes back to them */
}
