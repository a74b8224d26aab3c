/* shard/admit.c - who may come in: the limits at the door, and what each refusal is called.
 *
 * Counts that concern the whole hub are shared by all shards (core/limit). Questions are asked in
 * this order; what was taken is given back by rh_admit_give, once, when the connection leaves, and
 * what a refusal had taken at once. An echo is asked the two about the hub and the address.
 *
 *   a socket is accepted   limits.handshakes                                                429
 *   its head is whole      draining, or starting                                            503
 *                          security.origins, require_origin, the same-origin rule           403
 *                          security.rate_limit.handshakes_per_second                        429
 *   at its user's shard    draining, or starting                                            503
 *                          limits.connections_per_user                                      429
 *                          users.max_devices with users.on_limit: reject                    429
 *                          limits.connections                                               503
 *                          limits.connections_per_address                                   429
 *                          users.max_devices with kick_oldest: that one goes, with 4403
 *
 * A connection that takes the place of one of the same device, or of the session that it resumes,
 * counts as that one: at a limit it is let in.
 */
#include <string.h>

#include "core/limit.h"
#include "shard/room_int.h"

/* Refuses with 429; the cause is counted here. */
static unsigned too_many(struct rh_shard *sh, enum rh_stat cause, const char *why,
                         const char **ret_why)
{
    rh_stat_add(&sh->stats, cause, 1);
    *ret_why = why;
    return 429;
}

_Static_assert(RH_LIMIT_BUCKETS - 1 <= UINT16_MAX, "a bucket fits its field");

bool rh_admit_accept(struct rh_shard *sh, struct rh_conn *c, const struct rh_addr *peer)
{
    uint32_t max = sh->cfg->limits_handshakes;

    c->bucket = (uint16_t)rh_limit_bucket(sh->env->limits, peer);
    if (!max || rh_limit_handshakes_any(sh->env->limits) <= max) /* it is counted already */
        return true;
    rh_stat_add(&sh->stats, RH_STAT_connections_refused_handshake_limit, 1);
    return false;
}

static bool origin_ok(const struct rh_shard *sh, const struct rh_http_head *head)
{
    const char *entry = NULL;

    if (!rh_http_find(head, "origin"))
        return !sh->cfg->security_require_origin;
    if (rh_origin_same(head))
        return true;
    while ((entry = rh_config_list_next(&sh->cfg->security_origins, entry)))
        if (rh_origin_listed(head, entry))
            return true;
    return false;
}

/* 503 while nobody is let in: shutting down, or not yet told what users are owed. */
static unsigned door_shut(const struct rh_shard *sh, const char **ret_why)
{
    if (sh->draining)
        *ret_why = "the server is shutting down";
    else if (!sh->loaded)
        *ret_why = "the server is starting";
    else
        return 0;
    return 503;
}

unsigned rh_admit_upgrade(struct rh_shard *sh, const struct rh_conn *c,
                          const struct rh_http_head *head, const char **ret_why)
{
    uint32_t rate = sh->cfg->security_rate_limit_handshakes_per_second;

    if (door_shut(sh, ret_why))
        return 503;
    if (!origin_ok(sh, head)) {
        *ret_why = "this origin is not allowed";
        return 403;
    }
    if (rh_limit_rate_address_any(sh->env->limits, c->bucket, sh->now_ns, rate))
        return 0;
    return too_many(sh, RH_STAT_connections_refused_handshake_limit,
                    "too many handshakes from this address", ret_why);
}

static unsigned take_conn(struct rh_shard *sh, const char **ret_why)
{
    if (rh_limit_take_conn_any(sh->env->limits, rh_connections_max(sh)))
        return 0;
    *ret_why = "the server is full";
    return 503;
}

void rh_admit_give(struct rh_shard *sh, const struct rh_conn *c)
{
    rh_limit_give_conn_any(sh->env->limits);
    rh_limit_give_address_any(sh->env->limits, c->bucket);
}

/* ---- at the user's shard ---- */

static bool same_device(const struct rh_session *s, const struct rh_arrival *a)
{
    return a->device_len &&
           rh_span_eq(rh_session_device(s), (struct rh_span){a->device, a->device_len});
}

/* Connections that the newcomer takes the place of: of its device, and of the session it resumes. */
static unsigned replaced_count(struct rh_user *user, const struct rh_arrival *a,
                               const struct rh_session *resumed)
{
    const struct rh_session *s = NULL;
    unsigned count = 0;

    while ((s = rh_session_next(user, s)))
        count += rh_session_is_live(s) && (same_device(s, a) || s == resumed);
    return count;
}

static void replace(struct rh_shard *sh, struct rh_user *user, const struct rh_arrival *a,
                    struct rh_session *resumed)
{
    struct rh_session *s, *next;

    if (resumed)
        rh_session_take_over(sh, resumed);
    for (s = rh_session_next(user, NULL); s; s = next) {
        next = rh_session_next(user, s);
        if (rh_session_is_live(s) && same_device(s, a))
            rh_conn_close(sh, s->conn, 4409, "replaced by the same device");
    }
}

/* Is there a place for one more, next to `stay` others? 0 or 429. */
static unsigned check_user(struct rh_shard *sh, uint32_t stay, const char **ret_why)
{
    uint32_t max = sh->cfg->limits_connections_per_user;
    uint32_t devices = sh->cfg->users_max_devices;

    if ((!max || stay < max) &&
        (!devices || stay < devices || sh->cfg->users_on_limit == RH_ON_LIMIT_KICK))
        return 0;
    return too_many(sh, RH_STAT_connections_refused_user_limit,
                    "this user has too many connections", ret_why);
}

/* 0, or the status to refuse it with, which is not counted yet. */
static unsigned take_places(struct rh_shard *sh, uint16_t bucket, const char **ret_why)
{
    unsigned status = take_conn(sh, ret_why);

    if (status)
        return status;
    if (rh_limit_take_address_any(sh->env->limits, bucket, sh->cfg->limits_connections_per_address))
        return 0;
    rh_limit_give_conn_any(sh->env->limits);
    *ret_why = "too many connections from this address";
    return 429;
}

/* Of take_places, where it is the last word. */
static unsigned count_refused(struct rh_shard *sh, unsigned status)
{
    if (status == 429)
        rh_stat_add(&sh->stats, RH_STAT_connections_refused_address_limit, 1);
    return status;
}

unsigned rh_admit_echo(struct rh_shard *sh, const struct rh_conn *c, const char **ret_why)
{
    return count_refused(sh, take_places(sh, c->bucket, ret_why));
}

static struct rh_conn *oldest(struct rh_user *user)
{
    const struct rh_session *oldest = NULL, *s = NULL;

    while ((s = rh_session_next(user, s)))
        if (rh_session_is_live(s) && (!oldest || s->attached < oldest->attached))
            oldest = s;
    rh_assert(oldest); /* it has devices */
    return oldest->conn;
}

/* users.max_devices with kick_oldest: those that came first make room. */
static void kick_oldest(struct rh_shard *sh, struct rh_user *user)
{
    uint32_t max = sh->cfg->users_max_devices;

    while (max && rh_user_devices(user) >= max) {
        rh_stat_add(&sh->stats, RH_STAT_devices_kicked, 1);
        rh_conn_close(sh, oldest(user), 4403, "too many devices: this was the oldest");
    }
}

static unsigned admit_beside(struct rh_shard *sh, struct rh_user *user, const struct rh_arrival *a,
                             const char **ret_why)
{
    struct rh_session *resumed =
        a->resume_len ? rh_session_find(sh, user, (struct rh_span){a->resume, a->resume_len})
                      : NULL;
    unsigned gone = replaced_count(user, a, resumed);
    unsigned status = check_user(sh, rh_user_devices(user) - gone, ret_why);
    unsigned taken;

    if (status)
        return status;
    taken = take_places(sh, a->bucket, ret_why);
    if (taken && !gone)
        return count_refused(sh, taken);
    replace(sh, user, a, resumed);
    if (taken) /* the place that it leaves */
        taken = take_places(sh, a->bucket, ret_why);
    if (!taken)
        kick_oldest(sh, user);
    return count_refused(sh, taken);
}

unsigned rh_admit(struct rh_shard *sh, struct rh_user *user, const struct rh_arrival *a,
                  const char **ret_why)
{
    unsigned status;

    if (door_shut(sh, ret_why))
        return 503;
    if (!user)
        return count_refused(sh, take_places(sh, a->bucket, ret_why));
    rh_user_pin(user);
    status = admit_beside(sh, user, a, ret_why);
    rh_user_unpin(sh, user);
    return status;
}
