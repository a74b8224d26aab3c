/* tools/load/conn.c - one connection: bytes in, events to its mode; frames out, one send a pass.
 *
 * Receiving   A multishot receive into provided buffers. What the parser wants to see again (an
 *             unfinished header) is kept in `tail` and put into the headroom in front of the next
 *             buffer, so the parser always sees one run of bytes.
 * Sending     Frames are appended to `out`; at the end of the pass it becomes `flight`, which the
 *             kernel owns until its completion. Meanwhile `out` fills again. One send at a time.
 * Ending      A dead connection is shut down at once, and closed when the kernel has nothing of
 *             it any more: neither a receive nor a send.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "proto/mask.h"
#include "tools/load/envelope.h"

#define BYTES_FIRST 64
#define OP_BITS     2

uint64_t load_conn_tag(const struct load_conn *c, unsigned op)
{
    return (uint64_t)c->index << OP_BITS | op;
}

void load_conn_set_state(struct load_worker *w, struct load_conn *c, enum load_state state)
{
    static const uint32_t next[] = {
#define NEXT(name, states) [LOAD_##name] = states,
        LOAD_STATES(NEXT)
#undef NEXT
    };
    uint32_t open = atomic_load_explicit(&w->open_now, memory_order_relaxed);

    rh_assert(next[c->state] & 1u << state);
    open += (state == LOAD_OPEN) - (c->state == LOAD_OPEN);
    atomic_store_explicit(&w->open_now, open, memory_order_relaxed);
    c->state = (uint8_t)state;
}

void load_conn_fini(struct load_conn *c)
{
    load_open_free(c);
    rh_mem_free(c->tail);
    rh_mem_free(c->whole.at);
    rh_mem_free(c->out.at);
    rh_mem_free(c->flight.at);
    load_flow_fini(&c->flow);
    load_inbox_fini(&c->inbox);
}

/* ---- ending ---- */

static void close_when_idle(struct load_worker *w, struct load_conn *c)
{
    if ((c->state != LOAD_DEAD && c->state != LOAD_AWAY) || c->fd < 0 || c->connecting ||
        c->receiving || c->sending)
        return;
    rh_uring_abort(w->uring, c->fd); /* a reset: no port of ours is kept busy */
    c->fd = -1;
    if (c->state == LOAD_AWAY)
        load_open_again(w, c);
}

void load_conn_cut(struct load_worker *w, struct load_conn *c)
{
    load_conn_set_state(w, c, LOAD_AWAY);
    c->out.len = 0;
    c->whole.len = 0;
    c->tail_len = 0;
    c->welcomed = false;
    c->deflates = false;
    rh_uring_shutdown(w->uring, c->fd, SHUT_RDWR);
    close_when_idle(w, c);
}

static void end(struct load_worker *w, struct load_conn *c)
{
    load_conn_set_state(w, c, LOAD_DEAD);
    if (c->fd >= 0 && (c->connecting || c->receiving || c->sending))
        rh_uring_shutdown(w->uring, c->fd, SHUT_RDWR);
    close_when_idle(w, c);
}

void load_conn_fail(struct load_worker *w, struct load_conn *c, const char *fmt, ...)
{
    const struct load_mode *mode = w->run->opts->mode;
    bool broke = c->state == LOAD_OPEN;
    char why[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(why, sizeof(why), fmt, args);
    va_end(args);
    switch (c->state) {
    case LOAD_DEAD:
        return;
    case LOAD_AWAY:
        load_count(&w->counts.refused);
        load_worker_note(w, "connection %u could not come back: %s", c->number, why);
        break;
    case LOAD_GOODBYE:
        break; /* whatever ends it now is fine */
    case LOAD_OPEN:
        load_count(&w->counts.broken);
        load_worker_note(w, "connection %u broke: %s", c->number, why);
        break;
    default:
        load_count(&w->counts.refused);
        load_worker_note(w, "connection %u could not be opened: %s", c->number, why);
        load_open_ended(w, c);
    }
    end(w, c);
    if (broke && mode->on_broken)
        mode->on_broken(w, c);
}

/* ---- sending ---- */

bool load_bytes_add(struct load_bytes *b, const void *at, size_t len)
{
    size_t need = b->len + len, room = RH_MAX(b->room, BYTES_FIRST);

    if (need > b->room) {
        uint8_t *more;

        while (room < need)
            room *= 2;
        more = room <= UINT32_MAX ? rh_mem_realloc(b->at, room) : NULL;
        if (!more)
            return false;
        b->at = more;
        b->room = (uint32_t)room;
    }
    if (at && len)
        memcpy(b->at + b->len, at, len);
    b->len += (uint32_t)len;
    return true;
}

static void make_dirty(struct load_worker *w, struct load_conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    w->dirty[w->dirty_count++] = c;
}

bool load_conn_put(struct load_worker *w, struct load_conn *c, const void *bytes, size_t len)
{
    if (!load_bytes_add(&c->out, bytes, len)) {
        load_conn_fail(w, c, "no memory for what it has to send");
        return false;
    }
    make_dirty(w, c);
    return true;
}

bool load_conn_put_frame(struct load_worker *w, struct load_conn *c, uint8_t opcode,
                         const void *payload, size_t len)
{
    uint8_t head[RH_WS_HEAD_MAX];
    struct rh_span packed;
    size_t head_len;
    uint8_t *at;

    if (c->deflates && load_zip_deflate(&w->zip, payload, len, &packed)) {
        load_count(&w->counts.deflated);
        opcode |= RH_WS_RSV1;
        payload = packed.at;
        len = packed.len;
    }
    head_len = rh_ws_head(head, opcode, true, len, c->key);
    if (!load_conn_put(w, c, NULL, head_len + len))
        return false;
    at = c->out.at + c->out.len - head_len - len;
    memcpy(at, head, head_len);
    if (w->run->opts->mask_zero)
        memcpy(at + head_len, payload, len);
    else
        rh_mask(at + head_len, payload, len, c->key, 0);
    return true;
}

void load_conn_flush(struct load_worker *w, struct load_conn *c)
{
    struct load_bytes filled = c->out;

    c->dirty = false;
    if (c->sending || c->out.len == 0 || c->state == LOAD_DEAD)
        return;
    c->out = c->flight;
    c->out.len = 0;
    c->flight = filled;
    c->sending = true;
    rh_uring_send(w->uring, c->fd, c->flight.at, c->flight.len, load_conn_tag(c, LOAD_OP_SEND));
}

static void release(struct load_bytes *b)
{
    rh_mem_free(b->at);
    *b = (struct load_bytes){NULL, 0, 0};
}

static void on_sent(struct load_worker *w, struct load_conn *c, int res)
{
    c->sending = false;
    if (c->state == LOAD_DEAD || c->state == LOAD_AWAY)
        close_when_idle(w, c);
    else if (res < 0)
        load_conn_fail(w, c, "sending failed: %s", strerror(-res));
    else if ((uint32_t)res != c->flight.len)
        load_conn_fail(w, c, "sending was cut short");
    else if (c->state == LOAD_OPEN)
        load_pace_pump(w, c, w->now_ns);
    if (c->out.len > 0)
        make_dirty(w, c);
    if (c->index >= w->senders) /* it has said what it had to, for a long time perhaps */
        release(&c->flight);
}

/* ---- receiving ---- */

void load_conn_receive(struct load_worker *w, struct load_conn *c, bool waits)
{
    c->receiving = true;
    if (c->slow) /* such that it can stop */
        rh_uring_recv_once(w->uring, c->fd, load_conn_tag(c, LOAD_OP_RECV));
    else
        rh_uring_recv_multi(w->uring, c->fd, waits, load_conn_tag(c, LOAD_OP_RECV));
}

static bool is_alive(const struct load_conn *c)
{
    return c->state == LOAD_OPEN || c->state == LOAD_GREETING;
}

bool load_conn_gather(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev,
                      struct rh_span *ret_bytes)
{
    if (ev->first && ev->last) {
        *ret_bytes = (struct rh_span){(const char *)ev->data, (uint32_t)ev->len};
        return true;
    }
    if (ev->first)
        c->whole.len = 0;
    if (!load_bytes_add(&c->whole, ev->data, ev->len)) {
        load_conn_fail(w, c, "no memory for a message in pieces");
        return false;
    }
    *ret_bytes = (struct rh_span){(const char *)c->whole.at, c->whole.len};
    return ev->last;
}

bool load_conn_inflate(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev,
                       struct rh_span bytes, struct rh_span *ret_text)
{
    if (!ev->compressed) {
        *ret_text = bytes;
        return true;
    }
    if (load_zip_inflate(&w->zip, bytes, ret_text))
        return true;
    load_count(&w->counts.corrupted);
    load_conn_fail(w, c, "%u bytes that it got cannot be inflated", bytes.len);
    return false;
}

bool load_conn_whole(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev,
                     struct rh_span *ret_text)
{
    return load_conn_gather(w, c, ev, ret_text) && load_conn_inflate(w, c, ev, *ret_text, ret_text);
}

/* The first message of ringhub's is its welcome. */
static void on_greeting(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    const struct load_mode *mode = w->run->opts->mode;
    struct load_envelope e;
    struct rh_span text;

    if (!load_conn_whole(w, c, ev, &text))
        return;
    if (!load_envelope_read(text, &e)) {
        load_conn_fail(w, c, "what greets it is no JSON object; is this ringhub's /ws?");
    } else if (c->welcomed) {
        mode->on_greeting(w, c, &e, text);
    } else if (load_envelope_is(&e, "notify", "welcome")) {
        if (mode->on_welcome)
            mode->on_welcome(w, c, &e);
        load_open_welcome(w, c);
    } else {
        load_conn_fail(w, c, "its first message is no welcome; is this ringhub's /ws?");
    }
}

static void on_event(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    switch (ev->kind) {
    case RH_WS_DATA:
        load_count_more(&w->counts.compressed, ev->compressed && ev->last);
        if (c->state == LOAD_GREETING)
            on_greeting(w, c, ev);
        else
            w->run->opts->mode->on_data(w, c, ev);
        break;
    case RH_WS_PING:
        load_count(&w->counts.pings);
        load_conn_put_frame(w, c, RH_WS_OP_PONG, ev->data, ev->len);
        break;
    case RH_WS_CLOSE:
        load_conn_fail(w, c, "the server closed it with %u (%.*s)", ev->code, (int)ev->len,
                       (const char *)ev->data);
        break;
    case RH_WS_ERROR:
        load_conn_fail(w, c, "not WebSocket: %s", ev->why);
        break;
    default: /* PONG: nobody asked, nobody minds */
        break;
    }
}

static void keep_tail(struct load_worker *w, struct load_conn *c, const uint8_t *at, size_t len)
{
    rh_assert(len <= RH_WS_TAIL_MAX);
    if (len == 0)
        return;
    if (!c->tail)
        c->tail = rh_mem_alloc(RH_WS_TAIL_MAX);
    if (!c->tail) {
        load_conn_fail(w, c, "no memory for half a header");
        return;
    }
    memcpy(c->tail, at, len);
    c->tail_len = (uint8_t)len;
}

/* `len` bytes at `at`, with room for the tail in front of them. */
static void feed(struct load_worker *w, struct load_conn *c, uint8_t *at, size_t len)
{
    if (c->tail_len > 0) {
        at -= c->tail_len;
        len += c->tail_len;
        memcpy(at, c->tail, c->tail_len);
        c->tail_len = 0;
    }
    while (is_alive(c)) {
        struct rh_ws_event ev;
        size_t used = rh_ws_feed(&c->ws, at, len, &ev);

        at += used;
        len -= used;
        if (ev.kind == RH_WS_MORE) {
            keep_tail(w, c, at, len);
            return;
        }
        on_event(w, c, &ev);
    }
}

static void on_bytes(struct load_worker *w, struct load_conn *c, uint8_t *at, size_t len)
{
    if (c->state == LOAD_UPGRADING) {
        size_t used = load_open_answer(w, c, at, len);

        at += used;
        len -= used;
    }
    if (is_alive(c) && len > 0)
        feed(w, c, at, len);
    if (w->run->opts->mode->on_read)
        w->run->opts->mode->on_read(w, c);
}

static void on_recv(struct load_worker *w, struct load_conn *c, const struct rh_cqe *cqe)
{
    c->receiving = cqe->flags & RH_CQE_MORE;
    if (cqe->flags & RH_CQE_BUFFER) {
        if (cqe->res > 0)
            on_bytes(w, c, rh_uring_buffer(w->uring, cqe->buffer), (size_t)cqe->res);
        rh_uring_give(w->uring, cqe->buffer);
    }
    if (c->state == LOAD_AWAY) { /* this is how it was cut off */
        close_when_idle(w, c);
        return;
    }
    if (cqe->res == 0)
        load_conn_fail(w, c, "the server closed it without a word");
    else if (cqe->res < 0 && cqe->res != -ENOBUFS)
        load_conn_fail(w, c, "receiving failed: %s", strerror(-cqe->res));
    if (c->state == LOAD_DEAD)
        close_when_idle(w, c);
    else if (!c->receiving && !(c->slow && c->state == LOAD_OPEN))
        load_conn_receive(w, c, cqe->res == -ENOBUFS);
}

void load_conn_on_cqe(struct load_worker *w, const struct rh_cqe *cqe)
{
    struct load_conn *c = &w->conns[cqe->tag >> OP_BITS];

    switch (cqe->tag & ((1u << OP_BITS) - 1)) {
    case LOAD_OP_CONNECT:
        c->connecting = false;
        load_open_connected(w, c, cqe->res);
        if (c->state == LOAD_DEAD)
            close_when_idle(w, c);
        break;
    case LOAD_OP_RECV:
        w->now_ns = rh_clock_mono_ns();
        on_recv(w, c, cqe);
        break;
    default:
        on_sent(w, c, cqe->res);
    }
}
