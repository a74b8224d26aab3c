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
 * Ownership  of its user, which exists as long as it has one, and is the place of the first one. What
 *            an idle client does not need is made when it is needed, and stays; nothing of it is
 *            needed to detach, so that cannot fail.
 * Names      A session's id is its number, made unguessable by SipHash under two secret keys of the
 *            run: 128 bits that need not be kept.
 * Limits     EXPIRE_A_PASS sessions end in a pass. A user has limits.connections_per_user detached
 *            ones; the oldest makes room.
 */
#include <string.h>

#include "core/mem.h"
#include "shard/owed.h"

#define EXPIRE_A_PASS 32
#define AGAIN_MS      5 /* what found no memory or no credit is tried again */

/* ---- which one ---- */

void rh_session_id(const struct rh_shard *sh, const struct rh_session *s, char dst[RH_SESSION_ID])
{
    uint64_t number = s->number;
    uint64_t id[2] = {rh_hash(&sh->session_keys[0], &number, sizeof(number)),
                      rh_hash(&sh->session_keys[1], &number, sizeof(number))};

    _Static_assert(2 * sizeof(id) == RH_SESSION_ID, "two digits a byte");
    rh_hex(dst, id, sizeof(id));
}

struct rh_session *rh_session_find(const struct rh_shard *sh, struct rh_user *user,
                                   struct rh_span id)
{
    struct rh_session *s = NULL;
    char text[RH_SESSION_ID];

    while ((s = rh_session_next(user, s))) {
        rh_session_id(sh, s, text);
        if (rh_span_eq((struct rh_span){text, sizeof(text)}, id))
            return s;
    }
    return NULL;
}

/* ---- what few have ---- */

static struct rh_session_more *more_alloc(size_t len)
{
    struct rh_session_more *more = rh_mem_alloc(sizeof(*more) + len);

    if (!more)
        return NULL;
    memset(more, 0, sizeof(*more));
    rh_list_init(&more->subs);
    rh_list_init(&more->behind);
    return more;
}

struct rh_session_more *rh_session_more(struct rh_session *s)
{
    if (!s->more)
        s->more = more_alloc(0);
    return s->more;
}

/* All of `from` goes to `to`, which is empty. */
static void list_move(struct rh_list *to, struct rh_list *from)
{
    rh_list_add(from, to);
    rh_list_del(from);
}

static void append(struct rh_session_more *more, size_t *at, uint8_t *ret_len, const char *text,
                   uint8_t len)
{
    *ret_len = len;
    memcpy(more->bytes + *at, text, len);
    *at += len;
}

static size_t said_len(const struct rh_session_more *more)
{
    return (size_t)more->trace_len + more->device_len + more->type_len + more->role_len;
}

bool rh_session_identify(struct rh_session *s, const struct rh_arrival *a)
{
    uint8_t trace_len = a->up.has_trace ? RH_TRACE_ID_LEN : 0;
    size_t len = (size_t)trace_len + a->device_len + a->type_len + a->role_len, at = 0;
    struct rh_session_more *old = s->more, *more;

    if (!len && (!old || !said_len(old)))
        return true;
    more = more_alloc(len);
    if (!more)
        return false;
    append(more, &at, &more->trace_len, a->up.trace_id, trace_len);
    append(more, &at, &more->device_len, a->device, a->device_len);
    append(more, &at, &more->type_len, a->user_type, a->type_len);
    append(more, &at, &more->role_len, a->role, a->role_len);
    s->more = more;
    if (!old)
        return true;
    rh_assert(rh_list_empty(&old->behind) && !old->parked && !old->replaying); /* it is detached */
    list_move(&more->subs, &old->subs);
    more->rooms = old->rooms;
    more->rate_ns = old->rate_ns;
    rh_mem_free(old);
    return true;
}

/* ---- life ---- */

/* It has this connection, or none, and is detached or not: the only door through which its user gets
 * and loses devices. Of a user's first session these are counted by looking at it. */
static void set_link(struct rh_shard *sh, struct rh_session *s, struct rh_conn *c, bool is_detached)
{
    struct rh_user *user = rh_session_user(s);
    uint32_t before = rh_user_devices(user);
    struct rh_conn *device = rh_session_is_live(s) ? s->conn : NULL;

    if (!s->is_first) {
        user->more->devices -= rh_session_is_live(s);
        user->more->detached -= s->is_detached;
    }
    s->conn = c;
    s->is_detached = is_detached;
    if (!s->is_first) {
        user->more->devices += rh_session_is_live(s);
        user->more->detached += s->is_detached;
    }
    if (device && !rh_session_is_live(s))
        rh_owed_left(sh, user, device);
    if (!before && rh_user_devices(user))
        rh_stat_add(&sh->stats, RH_STAT_users, 1);
    if (!before || rh_user_devices(user))
        return;
    rh_stat_sub(&sh->stats, RH_STAT_users, 1);
    if (rh_user_retry(user))
        rh_retry_drop(sh, user);
}

/* Answers to what this connection asked find no session any more: none is counted. */
static void part(struct rh_shard *sh, struct rh_session *s)
{
    if (s->conn) {
        s->conn->session = NULL;
        s->conn->replaying = false;
    }
    set_link(sh, s, NULL, s->is_detached);
    s->asks = 0;
}

static void undetach(struct rh_shard *sh, struct rh_session *s)
{
    if (!s->is_detached)
        return;
    set_link(sh, s, s->conn, false);
    rh_list_del(&s->detached);
    rh_stat_sub(&sh->stats, RH_STAT_sessions_detached, 1);
}

static void session_free(struct rh_shard *sh, struct rh_session *s)
{
    struct rh_user *user = rh_session_user(s);

    undetach(sh, s);
    rh_user_pin(user);
    rh_mem_free(s->more);
    if (s->is_first) {
        memset(s, 0, sizeof(*s));
    } else {
        rh_list_del(&rh_container_of(s, struct rh_other_session, s)->of_user);
        rh_mem_free(rh_container_of(s, struct rh_other_session, s));
    }
    sh->sessions--;
    rh_user_unpin(sh, user);
}

void rh_session_end(struct rh_shard *sh, struct rh_session *s)
{
    part(sh, s);
    while (rh_session_has_subs(s))
        rh_sub_end(sh, rh_container_of(s->more->subs.next, struct rh_sub, of_session));
    session_free(sh, s);
}

/* The one that began first; the others are in that order already. */
static struct rh_session *oldest_detached(struct rh_user *user)
{
    struct rh_session *first = user->first.is_detached ? &user->first : NULL;
    struct rh_session *s = NULL;

    while ((s = rh_session_next(user, s)))
        if (s->is_detached && !s->is_first)
            break;
    return !s || (first && first->number < s->number) ? first : s;
}

/* Those who connect and vanish again and again do not leave more sessions than they may have
 * connections: the oldest goes. */
static void make_place(struct rh_shard *sh, struct rh_user *user)
{
    uint32_t max = sh->cfg->limits_connections_per_user;

    while (max && rh_user_detached(user) >= max) {
        rh_stat_add(&sh->stats, RH_STAT_sessions_expired, 1);
        rh_session_end(sh, oldest_detached(user));
    }
}

/* A place for a session, zeroed. NULL: no memory. */
static struct rh_session *take_place(struct rh_user *user)
{
    struct rh_user_more *more;
    struct rh_other_session *other;

    if (!user->first.number) {
        user->first.is_first = true;
        return &user->first;
    }
    more = rh_user_more(user);
    other = more ? rh_mem_zalloc(sizeof(*other)) : NULL;
    if (!other)
        return NULL;
    other->user = user;
    rh_list_add(&more->others, &other->of_user);
    return &other->s;
}

struct rh_session *rh_session_create(struct rh_shard *sh, struct rh_user *user)
{
    struct rh_session *s = take_place(user);

    if (!s)
        return NULL;
    make_place(sh, user);
    s->number = ++sh->session_number;
    sh->sessions++;
    return s;
}

static void fini_of_user(void *arg, struct rh_map_node *node)
{
    struct rh_user *user = rh_container_of(node, struct rh_user, node);
    struct rh_session *s;

    rh_user_pin(user);
    while ((s = rh_session_next(user, NULL))) {
        part(arg, s);
        if (s->more)
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
    set_link(sh, s, c, false);
    s->attached = ++sh->attachments;
    c->session = s;
}

static void detach(struct rh_shard *sh, struct rh_session *s)
{
    if (!s->is_detached) {
        set_link(sh, s, s->conn, true);
        s->detached_ms = sh->now_ms;
        rh_list_add(&sh->detached, &s->detached);
        rh_stat_add(&sh->stats, RH_STAT_sessions_detached, 1);
    }
    rh_subs_detach(sh, s);
}

void rh_session_unattach(struct rh_shard *sh, struct rh_session *s)
{
    part(sh, s);
    if (!rh_session_has_subs(s)) /* nobody would miss it */
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
    for (struct rh_list *at = u->s->more->subs.next; at != &u->s->more->subs; at = at->next) {
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
    if (msg->kind == RH_MSG_ROOM && !msg->apart)
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

    if (c->out && rh_session_has_subs(s))
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
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_conn_error, rh_conn_drop_messages(sh, c));
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
