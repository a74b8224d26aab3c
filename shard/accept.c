/* shard/accept.c - new connections.
 *
 * Every shard listens on every address of the configuration, sharing the port with the others
 * (SO_REUSEPORT), and keeps RH_ACCEPTS single-shot accepts waiting, each with an address of its
 * own: a multishot accept would overwrite one peer's address with the next one's.
 *
 * An accept must never find a table of direct descriptors full: the kernel would close the client that
 * it has no slot for. So every slot is promised before anything can come into it, to an accept or, by
 * the shard that passes it, to a hand-over; and the last ones are not for accepts: then clients wait
 * in the backlog until connections have gone.
 *
 * When accepting fails for want of descriptors or memory, clients stay in the kernel's backlog; we
 * try again after 10 ms, doubling to 1 s, so that a full machine does not also spin.
 */
#include "shard/shard_int.h"

#include <errno.h>
#include <string.h>

#include "core/log.h"

#define BACKOFF_MS_MIN 10
#define BACKOFF_MS_MAX 1000

_Static_assert(RH_ACCEPTS <= 32, "armed is a word of bits");

static uint64_t accept_tag(const struct rh_shard *sh, const struct rh_listener *l, unsigned i)
{
    return (uint64_t)RH_OP_ACCEPT << 56 | (uint64_t)(l - sh->listeners) << 8 | i;
}

/* How many accepts a listener may have armed: what is left of the table, in equal shares. */
static unsigned accepts_max(const struct rh_shard *sh)
{
    uint32_t used = sh->conn_count + RH_TABLE_SPARE;

    if (!sh->env->files)
        return RH_ACCEPTS;
    if (used >= sh->env->files)
        return 0;
    return RH_MIN((sh->env->files - used) / sh->listener_count, RH_ACCEPTS);
}

static void arm(struct rh_shard *sh, struct rh_listener *l)
{
    unsigned left = accepts_max(sh), armed = (unsigned)__builtin_popcount(l->armed);

    left -= RH_MIN(left, armed);
    for (unsigned i = 0; i < RH_ACCEPTS; i++) {
        if (l->armed & 1u << i)
            continue;
        if (left == 0 || !rh_slot_take_any(sh, RH_TABLE_SPARE)) {
            sh->accepts_short = true;
            return;
        }
        left--;
        l->armed |= 1u << i;
        rh_uring_accept(sh->uring, l->fd, &l->addrs[i], accept_tag(sh, l, i));
    }
}

void rh_accept_resume(struct rh_shard *sh)
{
    bool paused = !sh->shut && accepts_max(sh) == 0;

    rh_stat_set(&sh->stats, RH_STAT_accepts_paused, paused);
    if (paused)
        return;
    sh->accepts_short = false;
    for (unsigned i = 0; i < sh->listener_count && !sh->shut; i++)
        if (!rh_timer_armed(&sh->listeners[i].retry.timer))
            arm(sh, &sh->listeners[i]);
}

static void try_again(struct rh_shard *sh, struct rh_alarm *alarm)
{
    if (!sh->shut)
        arm(sh, rh_container_of(alarm, struct rh_listener, retry));
}

void rh_accept_start(struct rh_shard *sh)
{
    for (unsigned i = 0; i < sh->listener_count; i++) {
        rh_alarm_init(&sh->listeners[i].retry, try_again);
        arm(sh, &sh->listeners[i]);
    }
}

/* The socket goes when nothing waits on it any more: a request holds it open. */
static void close_if_idle(struct rh_shard *sh, struct rh_listener *l)
{
    if (!sh->shut || l->armed || l->fd < 0)
        return;
    rh_sock_close(l->fd);
    l->fd = -1;
}

void rh_accept_stop(struct rh_shard *sh)
{
    sh->shut = true;
    for (unsigned i = 0; i < sh->listener_count; i++) {
        struct rh_listener *l = &sh->listeners[i];

        rh_alarm_clear(sh, &l->retry);
        for (unsigned k = 0; k < RH_ACCEPTS; k++)
            if (l->armed & 1u << k)
                rh_uring_cancel_accept(sh->uring, accept_tag(sh, l, k),
                                       (uint64_t)RH_OP_CANCEL << 56);
        close_if_idle(sh, l);
    }
}

bool rh_accept_idle(const struct rh_shard *sh)
{
    for (unsigned i = 0; i < sh->listener_count; i++)
        if (sh->listeners[i].fd >= 0)
            return false;
    return true;
}

static void admit(struct rh_shard *sh, int fd, const struct rh_addr *peer)
{
    struct rh_conn *c = sh->shut ? NULL : rh_conn_create(sh, fd, RH_IS_HTTP);

    if (c && rh_admit_accept(sh, c, peer)) {
        rh_conn_recv(sh, c);
        return;
    }
    if (c) {
        sh->head.method = RH_HTTP_GET; /* so that the answer has a body */
        rh_httpd_refuse(sh, c, 429, "too many handshakes at a time", false);
        return;
    }
    rh_stat_add(
        &sh->stats,
        sh->shut ? RH_STAT_connections_refused_draining : RH_STAT_connections_refused_memory, 1);
    rh_uring_abort(sh->uring, fd);
    rh_slot_give_any(sh);
}

/* True: worth trying again at once. */
static bool passing(int res)
{
    return res >= 0 || res == -ECONNABORTED || res == -EINTR || res == -EPROTO;
}

void rh_accept_done(struct rh_shard *sh, uint64_t tag, int res)
{
    struct rh_listener *l = &sh->listeners[tag >> 8 & 0xffff];

    l->armed &= ~(1u << (tag & 0xff));
    if (res >= 0)
        admit(sh, res, &l->addrs[tag & 0xff]);
    else
        rh_slot_give_any(sh);
    if (sh->shut) {
        close_if_idle(sh, l);
        return;
    }
    if (passing(res)) {
        l->backoff_ms = 0;
        arm(sh, l);
        return;
    }
    rh_stat_add(&sh->stats, RH_STAT_accept_errors, 1);
    RH_LOG_EVERY(1, RH_LOG_WARN, "accept.failed", RH_KU("shard", sh->tid),
                 RH_KS("error", strerror(-res)));
    if (rh_timer_armed(&l->retry.timer))
        return;
    l->backoff_ms = RH_MIN(RH_MAX(l->backoff_ms * 2, BACKOFF_MS_MIN), BACKOFF_MS_MAX);
    rh_alarm_set(sh, &l->retry, sh->now_ms + l->backoff_ms);
}
