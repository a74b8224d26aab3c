/* shard/retry.c - direct messages that found no room on any of their user's devices (drop_newest).
 *
 * Each is tried retry.base_delay * retry.backoff_factor^k after the time before, at most
 * retry.max_delay, retry.max_retries times. Order comes first: while any waits, newer ones go behind
 * it, and a try is always that of the first one, whoever's date has come; when it goes, those behind
 * it follow as long as there is room. One that is first and has no try left is dropped, and each
 * device is told. What asks for an acknowledgement never comes here: it waits among what the user is owed
 * (shard/owed.c), behind what waits here. A reason that is not to be tried again (retry.non_retryable)
 * leaves no tries.
 *
 * Ownership   One block per user that has such messages; each entry is one use of a handle.
 * Limits      RH_RETRY_MAX messages of a user. One alarm for them all, at the next date of any.
 */
#include "core/err.h"
#include "core/limits.h"
#include "core/mem.h"
#include "shard/owed.h"

struct waiter {
    struct rh_handle *h;
    uint64_t next_ms; /* of its next try */
    uint32_t tries;   /* so far */
};

struct rh_retry {
    struct rh_alarm alarm;
    struct rh_user *user;
    uint32_t head, count;
    struct waiter at[RH_RETRY_MAX]; /* a circle, oldest first */
};

_Static_assert((RH_RETRY_MAX & (RH_RETRY_MAX - 1)) == 0, "a circle's room is a power of two");

static struct waiter *waiter_at(struct rh_retry *r, uint32_t i)
{
    return &r->at[(r->head + i) & (RH_RETRY_MAX - 1)];
}

/* Is there a device that takes a message? */
static bool has_room(const struct rh_shard *sh, struct rh_user *user)
{
    const struct rh_session *s = NULL;

    while ((s = rh_session_next(user, s)))
        if (rh_session_is_live(s) && !rh_conn_full(sh, s->conn))
            return true;
    return false;
}

static uint32_t tries_max(const struct rh_shard *sh)
{
    return rh_config_retries(sh->cfg, RH_REASON_queue_full) ? sh->cfg->retry_max_retries : 0;
}

bool rh_retry_wanted(const struct rh_shard *sh, struct rh_user *user)
{
    if (rh_unlikely(rh_user_retry(user)))
        return true;
    return sh->cfg->limits_slow_consumer == RH_SLOW_NEWEST && tries_max(sh) && !has_room(sh, user);
}

/* ---- dates ---- */

/* The wait before the try after `tries` ones. */
static uint64_t wait_ms(const struct rh_config *cfg, uint32_t tries)
{
    double ms = cfg->retry_base_delay_ms;

    for (uint32_t k = 0; k < tries && ms < cfg->retry_max_delay_ms; k++)
        ms *= cfg->retry_backoff_factor;
    return ms < cfg->retry_max_delay_ms ? (uint64_t)ms : cfg->retry_max_delay_ms;
}

/* No try is left: it stays only until those in front of it have gone. */
static bool spent(const struct rh_shard *sh, const struct waiter *w)
{
    return w->tries >= tries_max(sh);
}

/* Counts the tries whose time has come. Where we are late by more than a wait, the client gets all
 * of it. */
static void count_tries(struct rh_shard *sh, struct rh_retry *r)
{
    uint64_t wait;

    for (uint32_t i = 0; i < r->count; i++) {
        struct waiter *w = waiter_at(r, i);

        if (w->next_ms > sh->now_ms)
            continue;
        wait = wait_ms(sh->cfg, ++w->tries);
        w->next_ms = w->next_ms + wait > sh->now_ms ? w->next_ms + wait : sh->now_ms + wait;
        rh_stat_add(&sh->stats, RH_STAT_retries_queue_full, 1);
    }
}

static void set_alarm(struct rh_shard *sh, struct rh_retry *r)
{
    uint64_t due = UINT64_MAX;

    for (uint32_t i = 0; i < r->count; i++)
        due = RH_MIN(due, waiter_at(r, i)->next_ms);
    rh_alarm_set(sh, &r->alarm, due);
}

/* ---- going and ending ---- */

/* Takes the first one out; frees what is empty then. */
static struct rh_handle *pop(struct rh_shard *sh, struct rh_user *user)
{
    struct rh_retry *r = user->more->retry;
    struct rh_handle *h = waiter_at(r, 0)->h;

    r->head++;
    rh_stat_sub(&sh->stats, RH_STAT_retry_messages, 1);
    if (--r->count == 0) {
        rh_alarm_clear(sh, &r->alarm);
        rh_mem_free(r);
        user->more->retry = NULL;
        rh_owed_pump(sh, user);
    }
    return h;
}

static void tell_lost(struct rh_shard *sh, struct rh_user *user, uint64_t seq)
{
    struct rh_lost lost = {.from = seq, .to = seq, .count = 1, .kind = RH_MSG_DIRECT};
    struct rh_session *s, *next;

    for (s = rh_session_next(user, NULL); s; s = next) {
        next = rh_session_next(user, s);
        if (rh_session_is_live(s))
            rh_conn_push_lost(sh, s->conn, &lost);
    }
}

static void drop_first(struct rh_shard *sh, struct rh_user *user)
{
    struct rh_handle *h = pop(sh, user);

    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_slow_consumer, 1);
    rh_stat_add(&sh->stats, RH_STAT_failures_queue_full, 1);
    rh_stat_add(&sh->stats, RH_STAT_failures_general, 1);
    tell_lost(sh, user, h->msg->seq);
    rh_handle_unref(&sh->stock.handles, h);
}

static void send_first(struct rh_shard *sh, struct rh_user *user)
{
    struct rh_handle *h = pop(sh, user);

    rh_route_push(sh, user, h);
    rh_handle_unref(&sh->stock.handles, h);
}

/* A date has come. A connection may close on the way, even the last one: then nothing waits. */
static void ring(struct rh_shard *sh, struct rh_alarm *alarm)
{
    struct rh_retry *r = rh_container_of(alarm, struct rh_retry, alarm);
    struct rh_user *user = r->user;

    rh_user_pin(user);
    count_tries(sh, r);
    while (rh_user_retry(user) && has_room(sh, user))
        send_first(sh, user);
    while (rh_user_retry(user) && spent(sh, waiter_at(user->more->retry, 0)))
        drop_first(sh, user);
    if (rh_user_retry(user))
        set_alarm(sh, user->more->retry);
    rh_user_unpin(sh, user);
}

/* ---- coming ---- */

static struct rh_retry *retry_of(struct rh_user *user)
{
    struct rh_user_more *more = rh_user_more(user);
    struct rh_retry *r = more ? more->retry : NULL;

    if (!more || r)
        return r;
    r = rh_mem_alloc(sizeof(*r));
    if (!r)
        return NULL;
    rh_alarm_init(&r->alarm, ring);
    r->user = user;
    r->head = 0;
    r->count = 0;
    more->retry = r;
    return r;
}

int rh_retry_add(struct rh_shard *sh, struct rh_user *user, struct rh_handle *h)
{
    struct rh_retry *r = retry_of(user);
    struct waiter *w;

    if (!r)
        return RH_ENOMEM;
    if (r->count == RH_RETRY_MAX)
        return RH_EFULL;
    w = waiter_at(r, r->count++);
    w->h = h;
    w->tries = 0;
    w->next_ms = sh->now_ms + wait_ms(sh->cfg, 0);
    rh_stat_add(&sh->stats, RH_STAT_retry_messages, 1);
    if (!rh_timer_armed(&r->alarm.timer) || w->next_ms < r->alarm.timer.due_ms)
        rh_alarm_set(sh, &r->alarm, w->next_ms);
    return RH_OK;
}

void rh_retry_drop(struct rh_shard *sh, struct rh_user *user)
{
    while (rh_user_retry(user)) {
        rh_handle_unref(&sh->stock.handles, pop(sh, user));
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_user_offline, 1);
        rh_stat_add(&sh->stats, RH_STAT_failures_user_offline, 1);
        rh_stat_add(&sh->stats, RH_STAT_failures_general, 1);
    }
}
