/* shard/conn.c - one connection: its slot, its states, what it receives and sends, how it ends.
 *
 * Why this way: the kernel owns a connection's buffers and descriptor while an operation is in
 * flight, so ending is a state, not an instant. Every end passes through rh_conn_cut, which shuts
 * the socket down (that ends a receive and a blocked send without a search through the kernel's
 * tables) and through the graveyard, which frees what has nothing in flight at the end of the pass,
 * when no caller further up holds a pointer any more. shard_int.h draws the states.
 *
 * Receiving   One multishot receive per open connection, into buffers of the shard. Bytes are
 *             interpreted where they lie; what was not consumed is kept in `rest`, and copied into
 *             the next buffer's headroom in front of what follows it.
 * Parking     An armed receive costs the kernel three times what a poll does. So an open connection from
 *             which no message came between two pings is parked: a poll waits, what it finds is
 *             taken by one receive, and only when that brings a part of a message (a pong is none)
 *             the connection gets its multishot receive back. Parked or not, at most one of the
 *             three is under way (recv_armed); what pauses a connection does not look at it.
 *
 *                 multishot --silent ping: cancelled--> poll --readable--> receive once
 *                     ^                                  ^ '---- only control frames ---'|
 *                     '------------------------ a message, or its beginning -------------'
 *
 * Sending     At most one send under way; everything queued during a pass leaves in one.
 * Bounds      A queue is full when it stands at a bound after a send was tried, that is, while one
 *             submitted in an earlier pass is known to be still under way. Between two tries a healthy one may
 *             stand above it by what a pass brings, from rings and receive buffers; four times the
 *             bound and that much ends any doubt. Live messages that are parked behind missed ones
 *             (shard/replay.c) count as if they stood here.
 * Invariants  (1) state FREE or buried => no operation in flight.  (2) recv_armed counts as one in
 *             inflight, a flying queue as another.  (3) paused => nothing is consumed.
 */
#include <errno.h>
#include <string.h>

#include "core/limit.h"
#include "core/log.h"
#include "core/mem.h"
#include "shard/owed.h"

/* ---- slots ---- */

static struct rh_conn *slab_conn(const struct rh_shard *sh, uint32_t slot)
{
    return &sh->slabs[slot / RH_SLAB][slot % RH_SLAB];
}

/* Whoever has a slot has a place here: marking it cannot fail. */
static bool dirty_grow(struct rh_shard *sh)
{
    size_t room = (sh->slab_count + 1) * (size_t)RH_SLAB;
    uint32_t *dirty = rh_mem_realloc(sh->dirty, room * sizeof(*dirty));

    if (!dirty)
        return false;
    sh->dirty = dirty;
    return true;
}

static bool slab_grow(struct rh_shard *sh)
{
    struct rh_conn *slab;

    if (sh->slab_count == RH_SLABS_MAX || !dirty_grow(sh))
        return false;
    slab = rh_mem_zalloc_aligned(RH_SLAB * sizeof(*slab));
    if (!slab)
        return false;
    for (uint32_t i = RH_SLAB; i-- > 0;) { /* the lowest are used first */
        slab[i].slot = sh->slab_count * RH_SLAB + i;
        rh_list_add(&sh->free_conns, &slab[i].waiting);
    }
    sh->slabs[sh->slab_count++] = slab;
    return true;
}

struct rh_conn *rh_conn_create(struct rh_shard *sh, int fd, enum rh_conn_kind kind)
{
    struct rh_conn *c;
    uint32_t slot, gen;

    if (rh_list_empty(&sh->free_conns) && !slab_grow(sh))
        return NULL;
    c = rh_container_of(sh->free_conns.prev, struct rh_conn, waiting); /* the one freed last */
    rh_list_del(&c->waiting);
    slot = c->slot;
    gen = c->gen;
    memset(c, 0, sizeof(*c));
    c->slot = slot;
    c->gen = gen;
    c->fd = fd;
    c->kind = kind;
    c->state = RH_CONN_HTTP;
    c->heard_ms = c->since_ms = (uint32_t)sh->now_ms;
    c->late = sh->draining;
    rh_timer_init(&c->timer);
    rh_list_init(&c->waiting);
    sh->conn_count++;
    sh->late_count += c->late;
    rh_limit_take_handshake_any(sh->env->limits, 0);
    rh_stat_add(&sh->stats, RH_STAT_handshakes_in_progress, 1);
    rh_heartbeat_set(sh, c);
    return c;
}

struct rh_conn *rh_conn_find(struct rh_shard *sh, uint32_t slot, uint32_t gen)
{
    struct rh_conn *c;

    if (slot >= sh->slab_count * RH_SLAB)
        return NULL;
    c = slab_conn(sh, slot);
    return c->state != RH_CONN_FREE && (c->gen & RH_GEN_MASK) == (gen & RH_GEN_MASK) ? c : NULL;
}

static void conn_free(struct rh_shard *sh, struct rh_conn *c)
{
    rh_assert(c->inflight == 0);
    rh_timer_clear(&sh->wheel, &c->timer);
    rh_outq_give(&sh->stock, c->out);
    rh_block_give(&sh->stock.blocks, c->rest);
    rh_block_give(&sh->stock.blocks, c->message);
    if (rh_unlikely(c->has_context))
        rh_squeeze_end(sh, c);
    if (c->state == RH_CONN_DEAD) {
        rh_uring_close(sh->uring, c->fd);
        rh_slot_give_any(sh);
    }
    rh_conn_set_state(sh, c, RH_CONN_FREE);
    c->gen++;
    c->out = NULL;
    rh_list_del(&c->waiting);
    rh_list_add(&sh->free_conns, &c->waiting);
    sh->conn_count--;
    sh->late_count -= c->late;
}

/* To be freed at the end of the pass, if nothing is in flight any more. */
static void bury(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->inflight || c->buried || (c->state != RH_CONN_DEAD && c->state != RH_CONN_GONE))
        return;
    c->buried = true;
    rh_list_del(&c->waiting);
    rh_list_add(&sh->graveyard, &c->waiting);
}

void rh_conns_bury(struct rh_shard *sh)
{
    while (!rh_list_empty(&sh->graveyard))
        conn_free(sh, rh_container_of(sh->graveyard.next, struct rh_conn, waiting));
}

void rh_conns_each(struct rh_shard *sh, void (*visit)(struct rh_shard *sh, struct rh_conn *c))
{
    for (uint32_t slot = 0; slot < sh->slab_count * RH_SLAB; slot++)
        if (slab_conn(sh, slot)->state != RH_CONN_FREE)
            visit(sh, slab_conn(sh, slot));
}

/* Only after the ring has gone: the kernel writes to nothing of ours any more. */
void rh_conns_fini(struct rh_shard *sh)
{
    for (uint32_t i = 0; i < sh->slab_count; i++)
        rh_mem_free(sh->slabs[i]);
    sh->slab_count = 0;
    rh_mem_free(sh->dirty);
    sh->dirty = NULL;
}

/* ---- states ---- */

static void set_paused(struct rh_shard *sh, struct rh_conn *c, unsigned causes)
{
    if (!c->paused && causes)
        rh_stat_add(&sh->stats, RH_STAT_connections_paused, 1);
    else if (c->paused && !causes)
        rh_stat_sub(&sh->stats, RH_STAT_connections_paused, 1);
    c->paused = causes & 15;
}

static void set_parked(struct rh_shard *sh, struct rh_conn *c, bool is)
{
    if (is && !c->parked)
        rh_stat_add(&sh->stats, RH_STAT_connections_parked, 1);
    else if (!is && c->parked)
        rh_stat_sub(&sh->stats, RH_STAT_connections_parked, 1);
    c->parked = is;
}

static bool shakes_hands(unsigned state)
{
    return state == RH_CONN_HTTP || state == RH_CONN_MOVING;
}

void rh_conn_set_state(struct rh_shard *sh, struct rh_conn *c, enum rh_conn_state state)
{
    static const uint8_t arrows[] = {
        [RH_CONN_FREE] = 0,
        [RH_CONN_HTTP] = 1 << RH_CONN_OPEN | 1 << RH_CONN_LINGER | 1 << RH_CONN_DEAD |
                         1 << RH_CONN_GONE | 1 << RH_CONN_MOVING,
        [RH_CONN_MOVING] = 1 << RH_CONN_HTTP | 1 << RH_CONN_GONE,
        [RH_CONN_OPEN] = 1 << RH_CONN_CLOSING | 1 << RH_CONN_DEAD,
        [RH_CONN_CLOSING] = 1 << RH_CONN_LINGER | 1 << RH_CONN_DEAD,
        [RH_CONN_LINGER] = 1 << RH_CONN_DEAD,
        [RH_CONN_DEAD] = 1 << RH_CONN_FREE,
        [RH_CONN_GONE] = 1 << RH_CONN_FREE,
    };

    rh_assert(arrows[c->state] & 1 << state);
    if (shakes_hands(c->state) && !shakes_hands(state)) {
        rh_limit_give_handshake_any(sh->env->limits);
        rh_stat_sub(&sh->stats, RH_STAT_handshakes_in_progress, 1);
    }
    c->state = (uint8_t)state;
}

static bool reads(const struct rh_conn *c)
{
    return c->state == RH_CONN_HTTP || c->state == RH_CONN_OPEN || c->state == RH_CONN_CLOSING;
}

void rh_conn_open(struct rh_shard *sh, struct rh_conn *c, enum rh_conn_kind kind)
{
    rh_conn_set_state(sh, c, RH_CONN_OPEN);
    c->kind = kind;
    c->invalid = 0;
    c->spoke = true; /* its handshake */
    c->heard_ms = c->since_ms = (uint32_t)sh->now_ms;
    rh_ws_init(&c->ws, RH_WS_SERVER, sh->cfg->limits_message_size);
    rh_stat_add(&sh->stats, RH_STAT_connections_websocket, 1);
    rh_heartbeat_set(sh, c);
}

/* It is nobody's device any more; `code` says why, `by_peer` that the client chose it. Once per open
 * connection. */
static void leave(struct rh_shard *sh, struct rh_conn *c, unsigned code, bool by_peer)
{
    rh_stat_sub(&sh->stats, RH_STAT_connections_websocket, 1);
    rh_stat_add(&sh->stats, rh_stat_disconnects(code), 1);
    rh_admit_give(sh, c);
    set_parked(sh, c, false);
    if (c->kind == RH_IS_WS)
        rh_session_leave(sh, c, code, by_peer);
}

static void unwait(struct rh_shard *sh, struct rh_conn *c)
{
    if (!c->buried)
        rh_list_del(&c->waiting);
    c->starved = false;
}

/* ---- receiving ---- */

static void begin_closing(struct rh_shard *sh, struct rh_conn *c, unsigned code, bool by_peer);

static bool may_receive(const struct rh_conn *c)
{
    return !c->recv_armed && !c->starved && !c->paused && c->state != RH_CONN_DEAD &&
           c->state != RH_CONN_GONE && c->state != RH_CONN_MOVING;
}

static void recv_begins(struct rh_conn *c, bool polling)
{
    c->recv_armed = true;
    c->polling = polling;
    c->inflight++;
}

void rh_conn_recv(struct rh_shard *sh, struct rh_conn *c)
{
    if (!may_receive(c))
        return;
    if (c->parked)
        rh_uring_poll(sh->uring, c->fd, rh_tag(RH_OP_POLL, c));
    else if (c->kind == RH_IS_HTTP)
        rh_uring_recv_once(sh->uring, c->fd, rh_tag(RH_OP_RECV, c));
    else
        rh_uring_recv_multi(sh->uring, c->fd, true, rh_tag(RH_OP_RECV, c));
    recv_begins(c, c->parked);
}

/* Tells a receive or a poll that is under way to end. */
static void end_recv(struct rh_shard *sh, struct rh_conn *c)
{
    if (!c->recv_armed || c->recv_ending)
        return;
    c->recv_ending = true;
    rh_uring_cancel(sh->uring, rh_tag(c->polling ? RH_OP_POLL : RH_OP_RECV, c),
                    rh_tag(RH_OP_CANCEL, c));
}

void rh_conn_beat(struct rh_shard *sh, struct rh_conn *c)
{
    bool silent = !c->spoke;

    c->spoke = false;
    if (!silent || c->parked || !c->recv_armed || c->recv_ending || c->paused || c->rest ||
        c->message || c->state != RH_CONN_OPEN)
        return;
    set_parked(sh, c, true);
    end_recv(sh, c); /* then the poll is armed */
}

void rh_conn_rearm_starved(struct rh_shard *sh)
{
    for (unsigned left = RH_RECV_BUFFERS / 2; left && !rh_list_empty(&sh->starved); left--) {
        struct rh_conn *c = rh_container_of(sh->starved.next, struct rh_conn, waiting);

        unwait(sh, c);
        rh_conn_recv(sh, c);
    }
}

/* Interprets as much as can be; returns how many bytes were consumed. */
static size_t consume(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    size_t done = 0;

    while (done < len && reads(c) && !c->paused && !c->deaf) {
        size_t used = c->kind == RH_IS_HTTP ? rh_httpd_feed(sh, c, at + done, len - done)
                                            : rh_client_feed(sh, c, at + done, len - done);

        done += used;
        if (used == 0)
            break;
    }
    return reads(c) && !c->deaf ? done : len;
}

static void keep(struct rh_shard *sh, struct rh_conn *c, const uint8_t *at, size_t len)
{
    if (!rh_block_append(&sh->stock.blocks, &c->rest, at, len)) {
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
        rh_conn_cut(sh, c, 1013);
        return;
    }
    if (c->paused && rh_block_len(c->rest) > RH_HELD_MAX)
        end_recv(sh, c);
}

static void take_rest(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_block *rest = c->rest;

    if (!rest || c->paused)
        return;
    c->rest = NULL;
    rest->start += (uint32_t)consume(sh, c, rh_block_at(rest), rh_block_len(rest));
    if (rh_block_len(rest) == 0 || !reads(c))
        rh_block_give(&sh->stock.blocks, rest);
    else
        c->rest = rest;
}

void rh_conn_take_bytes(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    size_t used = consume(sh, c, at, len);

    if (used < len)
        keep(sh, c, at + used, len - used);
}

/* `at` lies in a provided buffer, with the headroom in front of it. */
static void received(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    uint32_t before = rh_block_len(c->rest);

    c->heard_ms = (uint32_t)sh->now_ms;
    if (!reads(c) || c->deaf)
        return;
    if (c->paused) {
        keep(sh, c, at, len);
    } else if (before && (before > RH_HEADROOM || c->kind == RH_IS_HTTP)) {
        keep(sh, c, at, len);
        take_rest(sh, c);
    } else {
        if (before) {
            at -= before;
            memcpy(at, rh_block_at(c->rest), before);
            rh_block_give(&sh->stock.blocks, c->rest);
            c->rest = NULL;
        }
        rh_conn_take_bytes(sh, c, at, len + before);
    }
}

/* The receive has ended, with this result. */
static void recv_ended(struct rh_shard *sh, struct rh_conn *c, int res)
{
    if (res == -ENOBUFS) {
        rh_stat_add(&sh->stats, RH_STAT_recv_starved, 1);
        if (!c->paused) {
            c->starved = true;
            rh_list_add(&sh->starved, &c->waiting);
        }
    } else if (res > 0 || res == -ECANCELED) {
        if (c->kind != RH_IS_HTTP || !c->out) /* requests are answered one by one */
            rh_conn_recv(sh, c);
    } else if (res == 0 && c->paused) {
        c->eof = true; /* what came before it counts */
    } else if (res == 0 && c->kind == RH_IS_HTTP && c->out) {
        c->last_answer = true;
    } else if (res == 0 && c->out && c->state != RH_CONN_LINGER) {
        c->deaf = true; /* it sends no more, but may read: what is queued goes out first */
        if (c->state == RH_CONN_OPEN)
            begin_closing(sh, c, 1006, false);
    } else {
        rh_conn_cut(sh, c, 1006);
    }
}

void rh_conn_on_recv(struct rh_shard *sh, struct rh_conn *c, const struct rh_cqe *cqe)
{
    if (!(cqe->flags & RH_CQE_MORE)) {
        c->recv_armed = false;
        c->recv_ending = false;
        c->inflight--;
    }
    if (cqe->res > 0)
        received(sh, c, rh_uring_buffer(sh->uring, cqe->buffer), (size_t)cqe->res);
    if (c->spoke)
        set_parked(sh, c, false);
    if (!(cqe->flags & RH_CQE_MORE) && c->state != RH_CONN_DEAD && c->state != RH_CONN_GONE)
        recv_ended(sh, c, cqe->res);
    bury(sh, c);
}

/* Something has come, or the poll could not say. */
void rh_conn_on_poll(struct rh_shard *sh, struct rh_conn *c)
{
    c->recv_armed = false;
    c->recv_ending = false;
    c->inflight--;
    if (c->parked && may_receive(c)) {
        rh_uring_recv_once(sh->uring, c->fd, rh_tag(RH_OP_RECV, c));
        recv_begins(c, false);
    } else {
        rh_conn_recv(sh, c);
    }
    bury(sh, c);
}

/* ---- pausing ---- */

void rh_conn_pause(struct rh_shard *sh, struct rh_conn *c, unsigned cause)
{
    static const enum rh_stat stats[] = {
        [RH_PAUSE_QUEUE] = RH_STAT_paused_reads_send_queue,
        [RH_PAUSE_CREDIT] = RH_STAT_paused_reads_credit,
        [RH_PAUSE_TURN] = RH_STAT_paused_reads_inflate,
        [RH_PAUSE_PROMISE] = RH_STAT_paused_reads_promises,
    };

    rh_assert(!(c->paused & cause));
    set_paused(sh, c, c->paused | cause);
    rh_stat_add(&sh->stats, stats[cause], 1);
}

void rh_conn_resume(struct rh_shard *sh, struct rh_conn *c, unsigned cause)
{
    if (!(c->paused & cause))
        return;
    set_paused(sh, c, c->paused & ~cause);
    if (c->paused)
        return;
    c->heard_ms = (uint32_t)sh->now_ms; /* nobody is dead because we did not listen */
    if (c->held)
        rh_client_retry(sh, c);
    take_rest(sh, c);
    if (c->paused || !reads(c))
        return;
    if (c->eof)
        recv_ended(sh, c, 0);
    else
        rh_conn_recv(sh, c);
}

/* ---- sending ---- */

/* What counts in the bounds: `messages` and `bytes` stand in the queue, or are parked. */
static bool reaches(const struct rh_conn *c, uint64_t messages, uint64_t bytes)
{
    const struct rh_session_more *s = c->replaying ? c->session->more : NULL;

    return c->out->messages + (s ? s->parked : 0) >= messages ||
           c->out->bytes + (s ? s->parked_bytes : 0) >= bytes;
}

bool rh_conn_overfull(const struct rh_shard *sh, const struct rh_conn *c)
{
    return c->out && reaches(c, 4ull * sh->cfg->limits_send_queue_messages + RH_PASS_MESSAGES + 1,
                             4ull * sh->cfg->limits_send_queue_bytes + RH_PASS_BYTES + 1);
}

static unsigned passes_since(const struct rh_shard *sh, uint16_t pass)
{
    return (uint16_t)(sh->pass - pass);
}

/* Does what stands in its queue stand there after a send was tried? One of the pass before may have been
 * completed among what is being reaped, behind what asks. */
static bool send_was_tried(const struct rh_shard *sh, const struct rh_conn *c)
{
    return rh_outq_flying(c->out) && passes_since(sh, c->fly_pass) > sh->reaping;
}

bool rh_conn_full(const struct rh_shard *sh, const struct rh_conn *c)
{
    const struct rh_config *cfg = sh->cfg;

    if (!c->out || !reaches(c, cfg->limits_send_queue_messages, cfg->limits_send_queue_bytes))
        return false;
    return send_was_tried(sh, c) || rh_conn_overfull(sh, c);
}

bool rh_conn_choked(const struct rh_shard *sh, const struct rh_conn *c)
{
    const struct rh_config *cfg = sh->cfg;

    return c->out && send_was_tried(sh, c) &&
           reaches(c, 4ull * cfg->limits_send_queue_messages, 4ull * cfg->limits_send_queue_bytes);
}

void rh_conn_dirty(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    sh->dirty[sh->dirty_count++] = c->slot;
}

uint8_t *rh_conn_own(struct rh_shard *sh, struct rh_conn *c, size_t len)
{
    struct rh_outq *q = reads(c) ? rh_conn_queue(sh, c) : NULL;
    uint8_t *at = q ? rh_outq_own(&sh->stock, q, len) : NULL;

    if (!at && reads(c)) {
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
        rh_conn_cut(sh, c, 1013);
    }
    return at;
}

void rh_conn_own_done(struct rh_shard *sh, struct rh_conn *c, size_t used)
{
    if (rh_unlikely(c->squeeze_bits))
        used = rh_squeeze_own(sh, c, rh_outq_own_at(c->out), used);
    rh_outq_own_done(c->out, used);
    rh_conn_dirty(sh, c);
}

/* Ends it, rather than that it goes on with a hole that it is not told of. */
int rh_conn_no_memory(struct rh_shard *sh, struct rh_conn *c)
{
    rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_memory, 1);
    rh_conn_close(sh, c, 1013, "out of memory");
    return RH_ENOMEM;
}

int rh_conn_put(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    if (!rh_conn_queue(sh, c) || !rh_outq_push_msg(c->out, h))
        return rh_conn_no_memory(sh, c);
    rh_conn_dirty(sh, c);
    return RH_OK;
}

int rh_conn_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    if (c->state != RH_CONN_OPEN)
        return RH_ECLOSED;
    return rh_unlikely(rh_conn_full(sh, c)) ? rh_slow_push(sh, c, h) : rh_conn_put(sh, c, h);
}

int rh_conn_push_missed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    if (c->state != RH_CONN_OPEN)
        return RH_ECLOSED;
    if (!rh_conn_queue(sh, c) || !rh_outq_push_missed(c->out, h))
        return rh_conn_no_memory(sh, c);
    rh_conn_dirty(sh, c);
    return RH_OK;
}

bool rh_conn_takes_owed(const struct rh_shard *sh, const struct rh_conn *c)
{
    return c->state == RH_CONN_OPEN && (!c->out || c->out->owed < RH_OWED_QUEUED_MAX) &&
           !rh_conn_full(sh, c);
}

bool rh_conn_takes_share(const struct rh_shard *sh, const struct rh_conn *c)
{
    return rh_conn_takes_owed(sh, c) ||
           (c->state == RH_CONN_OPEN && c->out && !send_was_tried(sh, c) &&
            c->out->owed < RH_OWED_BURST_MAX && !rh_conn_full(sh, c));
}

int rh_conn_push_owed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    if (c->state != RH_CONN_OPEN)
        return RH_ECLOSED;
    return rh_conn_takes_owed(sh, c) ? rh_conn_put_owed(sh, c, h) : RH_EFULL;
}

int rh_conn_put_owed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    if (!rh_conn_queue(sh, c) || !rh_outq_push_owed(c->out, h)) {
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1); /* it is not lost: it is owed */
        rh_conn_close(sh, c, 1013, "out of memory");
        return RH_ENOMEM;
    }
    rh_conn_dirty(sh, c);
    return RH_OK;
}

int rh_conn_push_lost(struct rh_shard *sh, struct rh_conn *c, const struct rh_lost *lost)
{
    if (c->state != RH_CONN_OPEN)
        return RH_ECLOSED;
    if (!rh_conn_queue(sh, c) || rh_outq_push_lost(c->out, lost) < 0)
        return rh_conn_no_memory(sh, c);
    rh_conn_dirty(sh, c);
    return RH_OK;
}

void rh_conn_fence(struct rh_conn *c)
{
    if (c->out)
        rh_outq_fence(c->out);
}

void rh_conn_flush(struct rh_shard *sh, struct rh_conn *c)
{
    unsigned count;

    if (!c->out || rh_outq_flying(c->out) || c->state == RH_CONN_DEAD || c->state == RH_CONN_GONE)
        return;
    if (rh_unlikely(c->out->lost) && !rh_slow_tell(sh, c))
        return;
    count = rh_outq_fill(c->out, sh->iov, RH_URING_IOV);
    if (count == 0)
        return;
    if (rh_unlikely(c->has_context))
        count = rh_squeeze_pack(sh, c, count);
    if (count == 1)
        rh_uring_send(sh->uring, c->fd, sh->iov[0].iov_base, sh->iov[0].iov_len,
                      rh_tag(RH_OP_SEND, c));
    else
        rh_uring_sendv(sh->uring, c->fd, sh->iov, count, rh_tag(RH_OP_SEND, c));
    c->inflight++;
    c->fly_pass = (uint16_t)sh->pass;
    rh_heartbeat_watch_send(sh, c);
}

/* Has this pass compressed enough of what leaves with contexts? A dead one does not wait: its slot is
 * free after the pass. */
static bool packs_later(const struct rh_shard *sh, const struct rh_conn *c)
{
    return sh->stock.squeeze.packed >= RH_SQUEEZE_PACK && reads(c);
}

/* True: some want to be asked again. Those who wait for the next pass stay in the list, in front. */
static bool flush_dirty(struct rh_shard *sh)
{
    uint32_t count = sh->dirty_count;
    bool again = false;

    sh->dirty_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct rh_conn *c = slab_conn(sh, sh->dirty[i]);

        if (rh_unlikely(c->has_context) && packs_later(sh, c)) {
            sh->dirty[sh->dirty_count++] = c->slot;
            continue;
        }
        c->is_dirty = false;
        rh_conn_flush(sh, c); /* may queue something for itself, at a place that is free by now */
        again |= c->is_dirty;
    }
    return again;
}

void rh_conn_flush_all(struct rh_shard *sh)
{
    if (sh->owed.marked || sh->owed.untold)
        rh_owed_run(sh);
    while (flush_dirty(sh))
        ;
    if (rh_bundles_any(&sh->stock.bundles) &&
        !sh->more_fanout) /* else the next pass sends it, too */
        rh_bundles_forget(&sh->stock.bundles, &sh->stock.handles);
}

static void count_sent(void *arg, const struct rh_msg *msg)
{
    struct rh_shard *sh = arg;

    if (msg->kind == RH_MSG_NOTICE)
        return;
    rh_stat_add(&sh->stats, RH_STAT_messages_delivered, 1);
    rh_stat_observe(&sh->stats, RH_HIST_delivery, sh->now_ns - msg->accepted_ns);
}

static void count_lost(void *arg, const struct rh_msg *msg)
{
    struct rh_shard *sh = arg;

    if (msg->kind == RH_MSG_NOTICE)
        return;
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_conn_error, 1);
    rh_stat_add(&sh->stats, RH_STAT_failures_conn_error, 1);
    rh_stat_add(&sh->stats, RH_STAT_failures_general, 1);
}

static void owed_sent(void *arg, const struct rh_msg *msg)
{
    struct rh_shard *sh = arg;

    rh_stat_add(&sh->stats, RH_STAT_messages_delivered, 1);
    if (msg->accepted_ns)
        rh_stat_observe(&sh->stats, RH_HIST_delivery, sh->now_ns - msg->accepted_ns);
    rh_owed_written(sh, msg);
}

static void owed_unsent(void *arg, const struct rh_msg *msg)
{
    rh_owed_unsent(arg, msg);
}

unsigned rh_conn_drop_messages(struct rh_shard *sh, struct rh_conn *c)
{
    rh_outq_each_owed(c->out, false, owed_unsent, sh);
    return rh_outq_drop_messages(&sh->stock, c->out);
}

/* Before what it still had to send goes: its session notes what did not get through. */
static void settle(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->session)
        rh_session_settle(sh, c);
}

/* Everything that was queued has been sent. */
static void drained(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->state == RH_CONN_CLOSING)
        settle(sh, c);
    rh_outq_give(&sh->stock, c->out);
    c->out = NULL;
    if ((c->state == RH_CONN_CLOSING && c->deaf) || (c->state == RH_CONN_HTTP && c->last_answer)) {
        rh_conn_finish(sh, c);
    } else if (c->state == RH_CONN_HTTP) {
        c->answered = true;
        c->since_ms = (uint32_t)sh->now_ms; /* the next request's time begins */
        rh_heartbeat_set(sh, c);
        take_rest(sh, c);
        if (c->state == RH_CONN_HTTP && !c->out)
            rh_conn_recv(sh, c);
    }
}

/* There may be room for what its user is owed. */
static void no_longer_awaited(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_user *user = rh_conn_user(c);

    c->awaited = false;
    if (user)
        rh_owed_pump(sh, user);
}

/* The peer has taken all that was under way: what comes next? */
static void sent(struct rh_shard *sh, struct rh_conn *c)
{
    if (rh_unlikely(c->awaited))
        no_longer_awaited(sh, c);
    if (c->replaying && c->state == RH_CONN_OPEN)
        rh_session_pump(sh, c->session);
    if (rh_outq_empty(c->out))
        drained(sh, c);
    else
        rh_conn_dirty(sh, c);
}

void rh_conn_on_send(struct rh_shard *sh, struct rh_conn *c, int res)
{
    bool whole = res >= 0 && (uint64_t)res == c->out->flying_bytes;
    unsigned missed;

    c->inflight--;
    if (!whole) /* torn inside a frame: nothing can follow. What flew has still to be settled */
        rh_conn_cut(sh, c, 1006);
    rh_outq_each_owed(c->out, true, whole ? owed_sent : owed_unsent, sh);
    missed = rh_outq_done(&sh->stock, c->out, whole ? count_sent : count_lost, sh);
    if (rh_unlikely(c->has_context))
        rh_squeeze_sent(sh, c);
    if (missed && whole)
        rh_stat_add(&sh->stats, RH_STAT_messages_delivered, missed);
    if (c->state != RH_CONN_DEAD)
        sent(sh, c);
    if ((c->paused & RH_PAUSE_QUEUE) && !rh_conn_full(sh, c))
        rh_conn_resume(sh, c, RH_PAUSE_QUEUE);
    bury(sh, c);
}

/* ---- ending ---- */

static void write_close(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *reason)
{
    size_t len = code == 1005 ? 0 : 2 + strlen(reason);
    uint8_t *at;
    size_t head;

    rh_assert(len <= 125);
    at = rh_conn_own(sh, c, RH_WS_HEAD_MAX + len);
    if (!at)
        return;
    head = rh_ws_head(at, RH_WS_OP_CLOSE, true, len, NULL);
    if (len) {
        at[head] = (uint8_t)(code >> 8);
        at[head + 1] = (uint8_t)code;
        memcpy(at + head + 2, reason, len - 2);
    }
    rh_conn_own_done(sh, c, head + len);
}

static void begin_closing(struct rh_shard *sh, struct rh_conn *c, unsigned code, bool by_peer)
{
    leave(sh, c, code, by_peer);
    rh_conn_set_state(sh, c, RH_CONN_CLOSING);
    c->since_ms = (uint32_t)sh->now_ms;
    if (rh_outq_flying(c->out)) /* a peer that goes on taking has longer (heartbeat.c) */
        c->out->acked = rh_uring_acked(sh->uring, c->fd);
    rh_heartbeat_set(sh, c);
    rh_block_give(&sh->stock.blocks, c->message);
    c->message = NULL;
    if (!c->paused)
        return;
    /* What it sent is not read any further, so its answer would not be found: close without. */
    c->deaf = true;
    c->held = false;
    set_paused(sh, c, 0);
    unwait(sh, c);
    rh_block_give(&sh->stock.blocks, c->rest);
    c->rest = NULL;
    rh_conn_recv(sh, c);
}

void rh_conn_close(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *reason)
{
    if (c->state != RH_CONN_OPEN)
        return;
    begin_closing(sh, c, code, false);
    write_close(sh, c, code, reason);
}

void rh_conn_peer_close(struct rh_shard *sh, struct rh_conn *c, unsigned code)
{
    c->deaf = true;
    if (c->state == RH_CONN_OPEN) {
        begin_closing(sh, c, code, true);
        write_close(sh, c, code, "");
    } else if (c->state == RH_CONN_CLOSING && !c->out) {
        rh_conn_finish(sh, c);
    }
}

void rh_conn_finish(struct rh_shard *sh, struct rh_conn *c)
{
    c->last_answer = true;
    if (c->out || c->state == RH_CONN_DEAD) /* comes back when that is sent */
        return;
    settle(sh, c);
    rh_uring_shutdown(sh->uring, c->fd, SHUT_WR);
    rh_conn_set_state(sh, c, RH_CONN_LINGER);
    c->since_ms = (uint32_t)sh->now_ms;
    rh_heartbeat_set(sh, c);
    rh_conn_recv(sh, c);
}

void rh_conn_cut(struct rh_shard *sh, struct rh_conn *c, unsigned code)
{
    if (c->state == RH_CONN_DEAD || c->state == RH_CONN_GONE)
        return;
    if (c->state == RH_CONN_OPEN)
        leave(sh, c, code, false);
    rh_conn_set_state(sh, c, RH_CONN_DEAD);
    settle(sh, c);
    rh_heartbeat_set(sh, c);
    set_paused(sh, c, 0);
    c->held = false;
    unwait(sh, c);
    if (c->out)
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_conn_error, rh_conn_drop_messages(sh, c));
    if (c->inflight)
        rh_uring_shutdown(sh->uring, c->fd, SHUT_RDWR);
    bury(sh, c);
}

/* The shutdown should have ended it: a receive that still hangs on is told by name. */
void rh_conn_let_go(struct rh_shard *sh, struct rh_conn *c)
{
    end_recv(sh, c);
}

void rh_conn_gone(struct rh_shard *sh, struct rh_conn *c)
{
    rh_assert(c->inflight == 0 && !c->out);
    rh_conn_set_state(sh, c, RH_CONN_GONE);
    rh_timer_clear(&sh->wheel, &c->timer);
    bury(sh, c);
}
