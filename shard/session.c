/* shard/session.c - who subscribes: a client, from its first connection to the end of its last one.
 *
 *               attach           leave: by the code             resume.window, draining
 *   create ---> [its connection] ------------------> [detached] ------------------> end
 *                  ^   |                                 |
 *                  |   |  goodbye, 4400, 4401, 4403,     |
 *                  |   `--4409, 4429--> end              |
 *                  `-------- take_over, attach ----------'
 *
 * A connection that closes may go on sending for a while: it and its session know each other until
 * everything is sent, or the queue is thrown away, or somebody resumes. At that moment (settle) each
 * subscription goes back to before the first message, or the first news of a lost one, that did not
 * get through, which is where a resume begins.
 *
 * Ownership  of its user, which exists as long as it has one.
 * Limits     EXPIRE_A_PASS sessions end in a pass. A user has limits.connections_per_user detached
 *            ones; the oldest makes room.
 */
#include <string.h>

#include "core/mem.h"
#include "core/rand.h"
#include "shard/room_int.h"

#define EXPIRE_A_PASS 32
#define AGAIN_MS      5 /* what found no memory or no credit is tried again */

/* ---- life ---- */

struct rh_session *rh_session_find(const struct rh_user *user, struct rh_span id)
{
    for (const struct rh_list *at = user->sessions.next; at != &user->sessions; at = at->next) {
        struct rh_session *s = rh_container_of(at, struct rh_session, of_user);
        char text[2 * sizeof(s->id)];

        rh_hex(text, s->id, sizeof(s->id));
        if (rh_span_eq((struct rh_span){text, sizeof(text)}, id))
            return s;
    }
    return NULL;
}

/* It has this connection, or none, and is detached since then, or (0) not: the only door through which
 * its user gets and loses devices. */
static void set_link(struct rh_shard *sh, struct rh_session *s, struct rh_conn *c,
                     uint64_t detached_ms)
{
    struct rh_user *user = s->user;
    uint32_t before = user->devices;

    user->devices -= rh_session_is_live(s);
    user->detached -= s->detached_ms != 0;
    s->conn = c;
    s->detached_ms = detached_ms;
    user->devices += rh_session_is_live(s);
    user->detached += s->detached_ms != 0;
    if (!before && user->devices)
        rh_stat_add(&sh->stats, RH_STAT_users, 1);
    if (!before || user->devices)
        return;
    rh_stat_sub(&sh->stats, RH_STAT_users, 1);
    if (user->retry)
        rh_retry_drop(sh, user);
}

/* Answers to what this connection asked find no session any more: none is counted. */
static void part(struct rh_shard *sh, struct rh_session *s)
{
    if (s->conn) {
        s->conn->session = NULL;
        s->conn->replaying = false;
    }
    set_link(sh, s, NULL, s->detached_ms);
    s->asks = 0;
}

static void undetach(struct rh_shard *sh, struct rh_session *s)
{
    if (!s->detached_ms)
        return;
    set_link(sh, s, s->conn, 0);
    rh_list_del(&s->detached);
    rh_stat_sub(&sh->stats, RH_STAT_sessions_detached, 1);
}

static void session_free(struct rh_shard *sh, struct rh_session *s)
{
    struct rh_user *user = s->user;

    undetach(sh, s);
    rh_user_pin(user);
    rh_list_del(&s->of_user);
    rh_mem_free(s->extra);
    rh_mem_free(s);
    sh->sessions--;
    rh_user_unpin(sh, user);
}

void rh_session_end(struct rh_shard *sh, struct rh_session *s)
{
    part(sh, s);
    while (!rh_list_empty(&s->subs))
        rh_sub_end(sh, rh_container_of(s->subs.next, struct rh_sub, of_session));
    session_free(sh, s);
}

/* Those who connect and vanish again and again do not leave more sessions than they may have
 * connections: the oldest goes. */
static void make_place(struct rh_shard *sh, struct rh_user *user)
{
    uint32_t max = sh->cfg->limits_connections_per_user;
    struct rh_list *at, *next;

    for (at = user->sessions.next; max && user->detached >= max && at != &user->sessions;
         at = next) {
        struct rh_session *s = rh_container_of(at, struct rh_session, of_user);

        next = at->next;
        if (!s->detached_ms)
            continue;
        rh_stat_add(&sh->stats, RH_STAT_sessions_expired, 1);
        rh_session_end(sh, s);
    }
}

struct rh_session *rh_session_create(struct rh_shard *sh, struct rh_user *user)
{
    struct rh_session *s = rh_mem_zalloc(sizeof(*s));

    if (!s)
        return NULL;
    make_place(sh, user);
    s->user = user;
    rh_list_init(&s->detached);
    rh_list_init(&s->subs);
    rh_list_init(&s->behind);
    rh_rand_bytes(s->id, sizeof(s->id));
    rh_list_add(&user->sessions, &s->of_user);
    sh->sessions++;
    return s;
}

static void fini_of_user(void *arg, struct rh_map_node *node)
{
    struct rh_user *user = rh_container_of(node, struct rh_user, node);

    rh_user_pin(user);
    while (!rh_list_empty(&user->sessions)) {
        struct rh_session *s = rh_container_of(user->sessions.next, struct rh_session, of_user);

        part(arg, s);
        rh_subs_fini(arg, s);
        session_free(arg, s);
    }
    rh_user_unpin(arg, user);
}

void rh_sessions_fini(struct rh_shard *sh)
{
    if (rh_map_count(&sh->users))
        rh_map_each(&sh->users, fini_of_user, sh);
    rh_subs_fini(sh, NULL);
}

/* ---- with a connection ---- */

void rh_session_attach(struct rh_shard *sh, struct rh_session *s, struct rh_conn *c)
{
    rh_assert(!s->conn && !c->session);
    undetach(sh, s);
    set_link(sh, s, c, 0);
    s->attached = ++sh->attachments;
    c->session = s;
}

static void detach(struct rh_shard *sh, struct rh_session *s)
{
    if (!s->detached_ms) {
        set_link(sh, s, s->conn, RH_MAX(sh->now_ms, 1u));
        rh_list_add(&sh->detached, &s->detached);
        rh_stat_add(&sh->stats, RH_STAT_sessions_detached, 1);
    }
    rh_subs_detach(sh, s);
}

void rh_session_unattach(struct rh_shard *sh, struct rh_session *s)
{
    part(sh, s);
    if (rh_list_empty(&s->subs)) /* nobody would miss it */
        rh_session_end(sh, s);
    else
        detach(sh, s);
}

/* ---- and without ---- */

/* A client may close with any code, but only 1000 is its goodbye: the others are ours to mean. */
static bool ends_it(const struct rh_shard *sh, unsigned code, bool by_peer)
{
    if (sh->draining || sh->cfg->resume_window_ms == 0)
        return true;
    if (by_peer)
        return code == 1000;
    switch (code) {
    case 4400:
    case 4401:
    case 4403:
    case 4409:
    case 4429:
        return true;
    default:
        return false;
    }
}

void rh_session_leave(struct rh_shard *sh, struct rh_conn *c, unsigned code, bool by_peer)
{
    struct rh_session *s = c->session;

    if (!s)
        return;
    if (ends_it(sh, code, by_peer))
        rh_session_end(sh, s);
    else
        detach(sh, s);
}

/* ---- what did not get through ---- */

struct unsent {
    struct rh_session *s;
    struct rh_sub *last; /* most often the next one's, too */
};

static struct rh_sub *sub_of(struct unsent *u, uint64_t uid)
{
    if (u->last && u->last->uid == uid)
        return u->last;
    for (struct rh_list *at = u->s->subs.next; at != &u->s->subs; at = at->next) {
        struct rh_sub *sub = rh_container_of(at, struct rh_sub, of_session);

        if (sub->uid == uid)
            return u->last = sub;
    }
    return NULL;
}

static void go_back(struct unsent *u, uint64_t uid, uint64_t seq)
{
    struct rh_sub *sub = sub_of(u, uid);
    uint64_t *at;

    if (!sub)
        return;
    at = sub->replay ? &sub->replay->seq : &sub->seq;
    *at = RH_MIN(*at, seq - 1);
}

static void unsent_msg(void *arg, const struct rh_msg *msg)
{
    if (msg->kind == RH_MSG_ROOM)
        go_back(arg, msg->uid, msg->seq);
}

static void unsent_lost(void *arg, const struct rh_lost *lost)
{
    if (lost->kind == RH_MSG_ROOM)
        go_back(arg, lost->uid, lost->from);
}

static void go_back_to_unsent(struct rh_session *s, const struct rh_conn *c, bool flying)
{
    struct unsent u = {.s = s};

    if (c->out && !rh_list_empty(&s->subs))
        rh_outq_each(c->out, flying, unsent_msg, unsent_lost, &u);
}

/* What flies on an open connection may still arrive: it is looked at when that is known. */
void rh_session_settle(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_session *s = c->session;

    if (!s)
        return;
    go_back_to_unsent(s, c, c->state != RH_CONN_OPEN);
    if (c->state != RH_CONN_OPEN)
        part(sh, s);
}

void rh_session_take_over(struct rh_shard *sh, struct rh_session *s)
{
    struct rh_conn *c = s->conn;

    if (c) {
        go_back_to_unsent(s, c, true);
        part(sh, s);
    }
    detach(sh, s);
    if (!c)
        return;
    if (c->out)
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_conn_error,
                    rh_outq_drop_messages(&sh->stock, c->out));
    rh_conn_close(sh, c, 4409, "resumed by another connection");
}

/* ---- the window ---- */

static uint64_t due_ms(const struct rh_shard *sh, const struct rh_session *s)
{
    return sh->draining ? 0 : s->detached_ms + sh->cfg->resume_window_ms;
}

static struct rh_session *oldest(const struct rh_shard *sh)
{
    return rh_container_of(sh->detached.next, struct rh_session, detached);
}

void rh_session_expire(struct rh_shard *sh)
{
    for (unsigned left = EXPIRE_A_PASS; left && !rh_list_empty(&sh->detached); left--) {
        if (due_ms(sh, oldest(sh)) > sh->now_ms)
            return;
        rh_stat_add(&sh->stats, RH_STAT_sessions_expired, 1);
        rh_session_end(sh, oldest(sh));
    }
}

uint64_t rh_session_next_ms(const struct rh_shard *sh)
{
    bool again = !rh_list_empty(&sh->wanted) || !rh_list_empty(&sh->ending);
    uint64_t next = again ? AGAIN_MS : UINT64_MAX;
    uint64_t due;

    if (rh_list_empty(&sh->detached))
        return next;
    due = due_ms(sh, oldest(sh));
    return due <= sh->now_ms ? 0 : RH_MIN(next, due - sh->now_ms);
}
