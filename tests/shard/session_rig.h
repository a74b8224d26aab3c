/* A shard with nothing but users, sessions and subscriptions: connections, branches and the rooms' home
 * are small models that stand in for their neighbours.
 *
 * What goes to the home waits in `up`, what comes back in `down`, and a branch's messages in a queue
 * of their own: each moves when a test says so, and in its order, as between two shards. Models
 * allocate with calloc, so that only what is tested runs out of memory. */
#ifndef RH_SESSION_RIG_H
#define RH_SESSION_RIG_H

#include <stdlib.h>

#include "core/mem.h"
#include "shard/owed.h"
#include "tests/rh_test.h"

#define CONNS    32
#define ROOMS    64 /* lives */
#define MESSAGES 4096
#define OVERFULL 1000 /* what is parked for a connection that takes nothing */
#define MAYBE    __attribute__((unused))

/* ---- the models' state ---- */

struct member {
    uint32_t subs, live;
    char user; /* names have one letter */
};

struct room {
    uint64_t uid, seq, first; /* history reaches back to `first` */
    char name[8];
    bool over;
    struct member members[4];
};

enum what { UP_ASK, UP_UNSUB, DOWN_ANSWER, DOWN_MSG, DOWN_OVER };

struct step {
    struct step *next;
    enum what what;
    struct rh_ask *ask;
    uint64_t uid, seq;
    struct member *member;
    unsigned flags;
};

struct fifo {
    struct step *head, **tail;
};

struct branch {
    struct rh_branch b;
    struct rh_sub *at[16];
    struct fifo queue; /* messages that are not handed out yet */
};

/* What a client has got on its connection: a message (from == to), a loss, an answer. */
struct got {
    uint64_t uid, from, to;
    bool lost;
    struct rh_ask *answer; /* a copy without what it held */
    uint32_t slot;
};

static struct rig {
    struct rh_shard *sh;
    struct rh_shard_env env;
    struct rh_config *cfg;
    struct rh_conn conns[CONNS];
    unsigned close_code[CONNS];
    struct room rooms[ROOMS];
    unsigned room_count;
    struct fifo up, down;
    struct branch branches[ROOMS];
    struct got got[MESSAGES];
    unsigned got_count;
    struct got told[64]; /* losses in the frames that fly */
    unsigned told_count;
    struct rh_ask last; /* a copy of the one that was answered last */
    unsigned responses, gone, fences, unholds, retries, pumps;
    bool owed; /* all messages have shares */
    bool full, refuse_memory;
    bool keep_answers; /* put into queues and into `got` */
    struct fifo answers[CONNS];
} rig;

/* ---- fifos ---- */

static void fifo_add(struct fifo *f, struct step step)
{
    struct step *at = calloc(1, sizeof(*at));

    *at = step;
    at->next = NULL;
    if (!f->head)
        f->tail = &f->head;
    *f->tail = at;
    f->tail = &at->next;
}

static bool fifo_take(struct fifo *f, struct step *ret)
{
    struct step *at = f->head;

    if (!at)
        return false;
    *ret = *at;
    f->head = at->next;
    free(at);
    return true;
}

static struct rh_msg *message(uint64_t uid, uint64_t seq);

/* ---- connections ---- */

struct rh_conn *rh_conn_find(struct rh_shard *sh, uint32_t slot, uint32_t gen)
{
    return slot < CONNS && rig.conns[slot].gen == gen && rig.conns[slot].state != RH_CONN_FREE
               ? &rig.conns[slot]
               : NULL;
}

/* One of nobody's. */
static struct rh_conn *conn_open(void)
{
    for (uint32_t i = 0; i < CONNS; i++) {
        struct rh_conn *c = &rig.conns[i];
        uint32_t gen = c->gen;

        if (c->state != RH_CONN_FREE)
            continue;
        memset(c, 0, sizeof(*c));
        c->slot = i;
        c->gen = gen;
        rh_list_init(&c->waiting);
        rig.close_code[i] = 0;
        c->state = RH_CONN_OPEN;
        return c;
    }
    RH_FAIL("too many connections");
    return NULL;
}

static void conn_leave(struct rh_conn *c, unsigned code, bool by_peer)
{
    rig.close_code[c->slot] = code;
    rh_session_leave(rig.sh, c, code, by_peer);
    c->state = RH_CONN_CLOSING;
}

void rh_conn_close(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *reason)
{
    if (c->state == RH_CONN_OPEN)
        conn_leave(c, code, false);
}

static void sent(void *arg, const struct rh_msg *msg)
{
}

static void got_answers(const struct rh_conn *c, unsigned count)
{
    struct step step;

    while (count-- && fifo_take(&rig.answers[c->slot], &step))
        rig.got[rig.got_count++] = (struct got){.answer = step.ask, .slot = c->slot};
}

/* What flies has arrived. */
static void got_lane(const struct rh_conn *c, const struct rh_lane *lane, unsigned *told)
{
    for (uint32_t i = 0; i < lane->flying; i++) {
        const struct rh_out_entry *e = &lane->at[(lane->head + i) & (lane->room - 1)];
        const struct rh_handle *h = e->obj;
        struct got *got = &rig.got[rig.got_count];

        if (e->kind == RH_OUT_BLOCK)
            got_answers(c, e->frames);
        if (e->kind == RH_OUT_BLOCK || e->kind == RH_OUT_HOLE)
            continue;
        RH_OK_IF(++rig.got_count < MESSAGES);
        if (e->kind == RH_OUT_TOLD)
            *got = rig.told[(*told)++];
        else
            *got = (struct got){.uid = h->msg->uid, .from = h->msg->seq, .to = h->msg->seq};
        got->slot = c->slot;
    }
}

static size_t tell_one(void *arg, const struct rh_lost *lost, uint8_t *dst)
{
    rig.told[rig.told_count++] =
        (struct got){.uid = lost->uid, .from = lost->from, .to = lost->to, .lost = true};
    memset(dst, 'l', 4);
    return 4;
}

static void conn_die(struct rh_conn *c, unsigned code, bool by_peer);

/* Puts at most `most` entries under way, and has them sent unless `torn`. */
static void conn_send(struct rh_conn *c, unsigned most, bool torn)
{
    struct iovec iov[64];
    unsigned told = 0;

    if (!c->out)
        return;
    rig.told_count = 0;
    if (!rh_outq_tell(c->out, most, tell_one, NULL)) {
        conn_die(c, 1013, false);
        return;
    }
    if (!rh_outq_fill(c->out, iov, RH_MIN(most, 64u)) || torn)
        return;
    got_lane(c, &c->out->high, &told);
    got_lane(c, &c->out->normal, &told);
    rh_outq_done(&rig.sh->stock, c->out, sent, NULL);
    RH_EQ_INT(c->replaying, c->session && c->session->more && c->session->more->replaying);
    if (c->replaying)
        rh_session_pump(rig.sh, c->session);
}

/* The slot is free again. */
static void conn_die(struct rh_conn *c, unsigned code, bool by_peer)
{
    struct step step;

    if (c->state == RH_CONN_FREE)
        return;
    if (c->state == RH_CONN_OPEN)
        conn_leave(c, code, by_peer);
    rh_session_settle(rig.sh, c);
    RH_OK_IF(!c->session);
    if (rh_outq_flying(c->out))
        rh_outq_done(&rig.sh->stock, c->out, sent, NULL);
    rh_outq_give(&rig.sh->stock, c->out);
    while (fifo_take(&rig.answers[c->slot], &step))
        free(step.ask);
    c->out = NULL;
    c->state = RH_CONN_FREE;
    c->gen++;
}

static int queue(struct rh_conn *c, struct rh_handle *h, bool missed)
{
    if (c->state != RH_CONN_OPEN)
        return RH_ECLOSED;
    if (!c->out)
        c->out = rh_outq_take(&rig.sh->stock);
    if (c->out && (missed ? rh_outq_push_missed(c->out, h) : rh_outq_push_msg(c->out, h)))
        return RH_OK;
    rh_conn_close(rig.sh, c, 1013, "");
    return RH_ENOMEM;
}

int rh_conn_push_missed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    return queue(c, h, true);
}

int rh_conn_push_lost(struct rh_shard *sh, struct rh_conn *c, const struct rh_lost *lost)
{
    if (!c->out)
        c->out = rh_outq_take(&sh->stock);
    return c->out ? rh_outq_push_lost(c->out, lost) : RH_ENOMEM;
}

bool rh_conn_overfull(const struct rh_shard *sh, const struct rh_conn *c)
{
    return c->session->more->parked >= OVERFULL;
}

bool rh_conn_full(const struct rh_shard *sh, const struct rh_conn *c)
{
    return rig.full;
}

int rh_slow_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    rh_conn_close(sh, c, 4408, "");
    return RH_EFULL;
}

/* More may go out of what its user is owed. */
void rh_owed_pump(struct rh_shard *sh, struct rh_user *user)
{
    rig.pumps++;
}

/* What history brings of a room in which everything is owed. */
struct rh_handle *rh_owed_share_out(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h,
                                    enum rh_share_way way, bool *ret_skip)
{
    struct rh_msg *copy;

    RH_EQ_INT(way, RH_SHARE_HISTORY);
    RH_OK_IF(!h->msg->apart); /* it has been asked for once */
    h->msg->apart = true;
    *ret_skip = h->msg->seq % 3 == 0;
    if (h->msg->seq % 3 != 1)
        return NULL;
    copy = message(h->msg->uid, h->msg->seq + 1000);
    return rh_handle_make(&sh->stock.handles, copy);
}

void rh_conn_fence(struct rh_conn *c)
{
    rig.fences++;
    if (rig.keep_answers)
        rh_outq_fence(c->out);
}

void rh_client_unhold(struct rh_shard *sh, struct rh_conn *c)
{
    rig.unholds++;
}

void rh_retry_drop(struct rh_shard *sh, struct rh_user *user)
{
    user->more->retry = NULL;
    rig.retries++;
}

/* Nobody is owed anything. */
bool rh_owed_any(const struct rh_user *user)
{
    return false;
}

void rh_owed_left(struct rh_shard *sh, struct rh_user *user, struct rh_conn *c)
{
}

unsigned rh_conn_drop_messages(struct rh_shard *sh, struct rh_conn *c)
{
    return rh_outq_drop_messages(&sh->stock, c->out);
}

/* The answer takes its place in the queue, and what it says is kept beside. */
static void queue_answer(struct rh_conn *c, const struct rh_ask *ask)
{
    struct rh_ask *copy;
    uint8_t *own;

    if (!c->out)
        c->out = rh_outq_take(&rig.sh->stock);
    own = c->out ? rh_outq_own(&rig.sh->stock, c->out, 4) : NULL;
    if (!own) {
        rh_conn_close(rig.sh, c, 1013, "");
        return;
    }
    memset(own, 'a', 4);
    rh_outq_own_done(c->out, 4);
    copy = calloc(1, sizeof(*copy) + ask->room_len);
    memcpy(copy, ask, sizeof(*copy) + ask->room_len);
    fifo_add(&rig.answers[c->slot], (struct step){.ask = copy});
}

void rh_room_respond(struct rh_shard *sh, struct rh_conn *c, const struct rh_ask *ask)
{
    rig.last = *ask;
    rig.responses += c != NULL;
    if (c && rig.keep_answers)
        queue_answer(c, ask);
}

void rh_notify_gone(struct rh_shard *sh, struct rh_conn *c, const struct rh_sub *sub)
{
    rig.gone++;
}

/* ---- branches ---- */

static struct branch *branch_of(uint64_t uid)
{
    return &rig.branches[uid - 1];
}

int rh_branch_add(struct rh_shard *sh, struct rh_sub *sub, uint64_t uid)
{
    struct branch *b = branch_of(uid);
    void *memory = rh_mem_alloc(1);

    if (!memory)
        return RH_ENOMEM;
    rh_mem_free(memory);
    RH_OK_IF(!sub->branch && b->b.count < RH_COUNT(b->at));
    sub->branch = &b->b;
    sub->index = b->b.count;
    b->at[b->b.count++] = sub;
    return RH_OK;
}

void rh_branch_del(struct rh_shard *sh, struct rh_sub *sub)
{
    struct branch *b = rh_container_of(sub->branch, struct branch, b);

    RH_OK_IF(b->at[sub->index] == sub);
    b->at[sub->index] = b->at[--b->b.count];
    b->at[sub->index]->index = sub->index;
    sub->branch = NULL;
}

static struct rh_msg *message(uint64_t uid, uint64_t seq)
{
    uint64_t left = rh_mem_fail_left();
    struct rh_msg *msg;

    rh_mem_fail_nth(0);
    msg = rh_msg_create(8);
    rh_mem_fail_nth(left);
    RH_OK_IF(msg);
    msg->kind = seq ? RH_MSG_ROOM : RH_MSG_NOTICE;
    msg->frame_len = 4;
    msg->uid = uid;
    msg->seq = seq;
    if (rig.owed && seq && seq < 1000)
        msg->shares = rh_mem_zalloc(sizeof(*msg->shares));
    return msg;
}

static void hand_to(struct rh_sub *sub, struct rh_handle *h, uint64_t seq)
{
    struct rh_conn *c = sub->state == RH_SUB_ACTIVE ? sub->session->conn : NULL;

    if (!c || c->state != RH_CONN_OPEN || (seq && seq <= sub->seq))
        return;
    if (sub->replay)
        rh_sub_park(rig.sh, sub, h);
    else
        queue(c, h, false);
    if (c->state == RH_CONN_OPEN && seq)
        sub->seq = seq;
}

/* A message of the branch for one subscription, or (NULL) for all. */
static void hand_out(struct branch *b, struct rh_sub *sub, const struct step *step)
{
    struct rh_handle *h = calloc(1, sizeof(*h));

    *h = (struct rh_handle){.msg = message(step->uid, step->seq), .uses = 1};
    if (sub)
        hand_to(sub, h, step->seq);
    for (uint32_t i = sub ? 0 : b->b.count; i-- > 0;)
        if (i < b->b.count)
            hand_to(b->at[i], h, step->seq);
    if (h->uses > 1) {
        rh_handle_unref(&rig.sh->stock.handles, h);
    } else {
        rh_msg_drop_any(h->msg);
        free(h);
    }
}

void rh_fanout_flush(struct rh_shard *sh, struct rh_sub *sub)
{
    struct branch *b = rh_container_of(sub->branch, struct branch, b);

    for (const struct step *step = b->queue.head; step && sub->branch; step = step->next)
        if (step->what == DOWN_MSG)
            hand_out(b, sub, step);
}

/* One step of a branch's queue. */
static bool branch_step(struct branch *b)
{
    struct step step;

    if (!fifo_take(&b->queue, &step))
        return false;
    if (step.what == DOWN_MSG)
        hand_out(b, NULL, &step);
    while (step.what == DOWN_OVER && b->b.count) {
        uint32_t before = b->b.count;

        rh_sub_over(rig.sh, b->at[before - 1]);
        RH_OK_IF(b->b.count < before);
    }
    return true;
}

/* ---- the home ---- */

void rh_room_handle(struct rh_shard *sh, struct rh_ask *take_ask)
{
    fifo_add(&rig.up, (struct step){.what = UP_ASK, .ask = take_ask});
}

void rh_room_unsub(struct rh_shard *sh, unsigned from, uint64_t uid, void *member, unsigned flags)
{
    fifo_add(&rig.up,
             (struct step){.what = UP_UNSUB, .uid = uid, .member = member, .flags = flags});
}

static struct room *room_named(struct rh_span name)
{
    for (unsigned i = 0; i < rig.room_count; i++)
        if (!rig.rooms[i].over &&
            rh_span_eq(name,
                       (struct rh_span){rig.rooms[i].name, (uint32_t)strlen(rig.rooms[i].name)}))
            return &rig.rooms[i];
    return NULL;
}

static struct room *room_make(struct rh_span name)
{
    struct room *r = &rig.rooms[rig.room_count++];

    RH_OK_IF(rig.room_count <= ROOMS && name.len < sizeof(r->name));
    memset(r, 0, sizeof(*r));
    memcpy(r->name, name.at, name.len);
    r->uid = rig.room_count;
    r->first = 1;
    return r;
}

MAYBE static struct room *room(const char *name)
{
    struct rh_span span = {name, (uint32_t)strlen(name)};
    struct room *r = room_named(span);

    return r ? r : room_make(span);
}

static struct member *member_of(struct room *r, const struct rh_ask *ask)
{
    unsigned i = 0;

    while (r->members[i].user && r->members[i].user != *rh_ask_user(ask).at)
        RH_OK_IF(++i < RH_COUNT(r->members));
    r->members[i].user = *rh_ask_user(ask).at;
    return &r->members[i];
}

static void recover(struct room *r, struct rh_ask *ask)
{
    bool known = !ask->has_epoch || ask->epoch == r->uid;
    uint64_t from = known ? RH_MAX(ask->since + 1, r->first) : r->first;
    uint64_t left = rh_mem_fail_left();

    if (from > r->seq)
        return;
    rh_mem_fail_nth(0);
    ask->replay = rh_mem_zalloc(sizeof(*ask->replay) + (r->seq - from + 1) * sizeof(void *));
    rh_mem_fail_nth(left);
    for (uint64_t seq = from; seq <= r->seq; seq++)
        ask->replay->at[ask->replay->count++] = message(r->uid, seq);
}

static void home_unsub(struct room *r, struct member *m, unsigned flags)
{
    RH_OK_IF(m->subs > 0);
    if (flags & RH_UNSUB_DETACH) {
        RH_OK_IF(m->live > 0);
        m->live--;
    }
    m->subs -= (flags & RH_UNSUB_END) != 0;
    RH_OK_IF(m->live <= m->subs);
}

static void home_join(struct room *r, struct rh_ask *ask)
{
    struct member *m;

    if (ask->again && (!r || r->uid != ask->uid)) {
        if (ask->notify) {
            ask->err = RH_WIRE_not_found;
            return;
        }
        ask->again = false;
        ask->live = true;
    }
    if (rig.refuse_memory) {
        ask->err = RH_WIRE_unavailable;
        return;
    }
    if (!r)
        r = room_make(rh_ask_room(ask));
    m = ask->again ? ask->member : member_of(r, ask);
    m->subs += !ask->again;
    m->live += ask->live;
    RH_OK_IF(m->live <= m->subs);
    ask->uid = r->uid;
    ask->seq = r->seq;
    ask->member = m;
    if (ask->has_since)
        recover(r, ask);
}

static void home_leave(struct room *r, struct rh_ask *ask)
{
    if (!r)
        ask->err = RH_WIRE_not_found;
    else if (rig.refuse_memory)
        ask->err = RH_WIRE_unavailable;
    else if (ask->member && ask->uid == r->uid)
        home_unsub(r, ask->member, RH_UNSUB_END | (ask->live ? RH_UNSUB_DETACH : 0));
}

/* The home takes one thing up. */
static bool home_step(void)
{
    struct step step;

    if (!fifo_take(&rig.up, &step))
        return false;
    if (step.what == UP_UNSUB) {
        if (!rig.rooms[step.uid - 1].over)
            home_unsub(&rig.rooms[step.uid - 1], step.member, step.flags);
        return true;
    }
    if (step.ask->op == RH_ASK_JOIN)
        home_join(room_named(rh_ask_room(step.ask)), step.ask);
    else
        home_leave(room_named(rh_ask_room(step.ask)), step.ask);
    fifo_add(&rig.down, (struct step){.what = DOWN_ANSWER, .ask = step.ask});
    return true;
}

MAYBE static void publish(struct room *r)
{
    fifo_add(&rig.down, (struct step){.what = DOWN_MSG, .uid = r->uid, .seq = ++r->seq});
}

MAYBE static void delete (struct room *r)
{
    r->over = true;
    fifo_add(&rig.down, (struct step){.what = DOWN_OVER, .uid = r->uid});
}

/* The shard takes up one thing that came from the home. */
static bool down_step(void)
{
    struct step step;

    if (!fifo_take(&rig.down, &step))
        return false;
    if (step.what == DOWN_ANSWER)
        rh_ask_answer(rig.sh, step.ask);
    else if (branch_of(step.uid)->b.count)
        fifo_add(&branch_of(step.uid)->queue, step);
    return true;
}

static bool branches_step(void)
{
    bool any = false;

    for (unsigned i = 0; i < rig.room_count; i++)
        any |= branch_step(&rig.branches[i]);
    return any;
}

/* Everything that is under way arrives, but what stands in send queues. */
MAYBE static void settle_down(void)
{
    do
        rh_subs_wanted(rig.sh);
    while (home_step() || down_step() || branches_step() || !rh_list_empty(&rig.sh->wanted));
}

/* ---- life ---- */

MAYBE static void begin(void)
{
    struct rh_shard *sh;

    memset(&rig, 0, sizeof(rig));
    rig.sh = sh = rh_mem_zalloc_aligned(sizeof(*sh));
    RH_EQ_INT(rh_config_create(&rig.cfg), RH_OK);
    rig.env.shards = 1;
    sh->env = &rig.env;
    sh->cfg = rig.cfg;
    sh->now_ms = 1000;
    RH_EQ_INT(rh_map_init(&sh->users), RH_OK);
    RH_EQ_INT(rh_map_init(&sh->subs), RH_OK);
    rh_list_init(&sh->detached);
    rh_list_init(&sh->wanted);
    rh_list_init(&sh->ending);
}

/* All end; nothing may be left, of ours or of the home's. */
MAYBE static void end(void)
{
    struct rh_shard *sh = rig.sh;

    rig.refuse_memory = false;
    rh_mem_fail_nth(0);
    settle_down();
    for (unsigned i = 0; i < CONNS; i++)
        conn_die(&rig.conns[i], 1000, true);
    settle_down();
    sh->draining = true;
    rh_session_expire(sh);
    settle_down();
    for (unsigned i = 0; i < rig.room_count; i++)
        for (unsigned j = 0; j < 4 && !rig.rooms[i].over; j++)
            RH_EQ_U64(rig.rooms[i].members[j].subs + rig.rooms[i].members[j].live, 0);
    RH_EQ_U64(rh_map_count(&sh->users), 0);
    RH_EQ_U64(rh_map_count(&sh->subs), 0);
    RH_EQ_U64(sh->sessions, 0);
    RH_EQ_U64(sh->stats.v[RH_STAT_subscriptions], 0);
    RH_EQ_U64(sh->stats.v[RH_STAT_sessions_detached], 0);
    RH_EQ_U64(sh->stats.v[RH_STAT_users], 0);
    RH_EQ_U64(sh->stock.messages, 0);
    rh_map_fini(&sh->users);
    rh_map_fini(&sh->subs);
    rh_out_stock_fini(&sh->stock);
    rh_config_destroy(rig.cfg);
    rh_mem_free(sh);
}

/* ---- clients ---- */

/* A new client. NULL: no memory. */
MAYBE static struct rh_session *arrive(const char *name)
{
    uint64_t hash = rh_hash(&rig.env.hash_key, name, strlen(name));
    struct rh_user *user = rh_user_take(rig.sh, hash, name, strlen(name));
    struct rh_session *s = user ? rh_session_create(rig.sh, user) : NULL;

    if (s)
        rh_session_attach(rig.sh, s, conn_open());
    if (user)
        rh_user_unpin(rig.sh, user);
    return s;
}

/* Its session is resumed by a new connection. */
MAYBE static void come_back(struct rh_session *s)
{
    rh_session_take_over(rig.sh, s);
    rh_session_attach(rig.sh, s, conn_open());
    rh_subs_resume(rig.sh, s);
}

static struct rh_sub *sub_of_room(const struct rh_session *s, const char *name)
{
    size_t len = strlen(name);

    return rh_sub_find(rig.sh, s, rh_hash(&rig.env.hash_key, name, len),
                       (struct rh_span){name, (uint32_t)len});
}

/* room.join as a client asks for it; since UINT64_MAX: without. False: no memory. */
MAYBE static bool join(struct rh_session *s, const char *name, uint64_t since)
{
    struct rh_span room_name = {name, (uint32_t)strlen(name)};
    struct rh_sub *sub = sub_of_room(s, name);
    struct rh_ask *ask = rh_ask_make(rig.sh, s, RH_ASK_JOIN, room_name, (struct rh_span){0},
                                     RH_SPAN("r"), (struct rh_span){0});

    if (ask && !sub)
        sub = rh_sub_create(rig.sh, s, ask->room_hash, room_name);
    if (!ask || !sub) {
        rh_ask_free(ask);
        return false;
    }
    ask->has_since = since != UINT64_MAX;
    ask->since = since;
    ask->sub = sub;
    ask->again = sub->counted;
    ask->live = !sub->counted;
    ask->uid = sub->uid;
    ask->member = sub->member;
    sub->asking = true;
    if (sub->state != RH_SUB_ACTIVE)
        sub->state = RH_SUB_ASKED;
    rh_ask_send(rig.sh, ask);
    return true;
}

MAYBE static bool leave(struct rh_session *s, const char *name)
{
    struct rh_sub *sub = sub_of_room(s, name);
    struct rh_ask *ask =
        rh_ask_make(rig.sh, s, RH_ASK_LEAVE, (struct rh_span){name, (uint32_t)strlen(name)},
                    (struct rh_span){0}, RH_SPAN("r"), (struct rh_span){0});

    if (!ask)
        return false;
    if (sub && sub->counted) {
        ask->sub = sub;
        ask->live = sub->live;
        ask->uid = sub->uid;
        ask->member = sub->member;
        sub->asking = true;
    }
    rh_ask_send(rig.sh, ask);
    return true;
}

#endif
