/* shard/client.c - the frames of an open connection: a user's messages, or an echo's.
 *
 * Bytes go through the frame parser where they lie; a message that came in one piece is used there,
 * one that came in several is put together in c->message first. What happens to it depends on the
 * connection's kind: an echo goes into the send queue, a user's text is parsed as an envelope.
 *
 * Invalid messages (PROTOCOL 3) are answered with an error and counted; the one after
 * limits.invalid_messages in a row closes with 4400. A request that needs a credit it cannot have
 * is kept (`held`), the connection is not read, and it is tried again when the credit comes back. So
 * is a long compressed message until there was time to inflate all of it.
 */
#include <stdio.h>
#include <string.h>

#include "core/err.h"
#include "core/limit.h"
#include "proto/envelope.h"
#include "shard/owed.h"

#define NOT_TEXT "a binary message: envelopes are text"

/* Queues a frame of these bytes: an echo, a pong, a ping. */
static void send_frame(struct rh_shard *sh, struct rh_conn *c, uint8_t opcode, const void *at,
                       size_t len)
{
    uint8_t *own = rh_conn_own(sh, c, RH_MSG_HEAD_ROOM + len);
    size_t head;

    if (!own)
        return;
    head = rh_ws_head(own, opcode, true, len, NULL);
    if (len)
        memcpy(own + head, at, len);
    rh_conn_own_done(sh, c, head + len);
}

/* ---- a user's messages ---- */

static void invalid(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                    const char *why)
{
    rh_stat_add(&sh->stats, RH_STAT_messages_invalid, 1);
    rh_respond_error(sh, c, request_id, RH_WIRE_bad_request, why);
    c->invalid += c->invalid < UINT16_MAX;
    if (c->invalid > sh->cfg->limits_invalid_messages)
        rh_conn_close(sh, c, 4400, "too many invalid messages");
}

static void no_memory(struct rh_shard *sh, struct rh_conn *c)
{
    rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
    rh_conn_close(sh, c, 1013, "out of memory");
}

/* security.rate_limit, of a user's messages. False: it has been closed. */
static bool within_rate(struct rh_shard *sh, struct rh_conn *c)
{
    uint32_t rate = sh->cfg->security_rate_limit_messages_per_second;
    uint32_t burst = sh->cfg->security_rate_limit_burst;
    struct rh_session_more *more;

    if (!rate || c->kind == RH_IS_ECHO)
        return true;
    more = rh_session_more(c->session);
    if (!more) {
        no_memory(sh, c);
        return false;
    }
    if (rh_rate_take(&more->rate_ns, sh->now_ns, rate, burst ? burst : rate))
        return true;
    rh_conn_close(sh, c, 4429, "too many messages");
    return false;
}

/* False: it is not valid, or there was no memory for it. */
static bool acknowledge(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env)
{
    const char *why;
    int rc = rh_owed_ack(sh, c, env, &why);

    if (rc == RH_EINVAL)
        invalid(sh, c, env->request_id, why);
    else if (rc == RH_ENOMEM)
        no_memory(sh, c);
    return rc == RH_OK;
}

/* False: the message waits for a credit of *ret_shard, nothing was done. */
static bool handle_text(struct rh_shard *sh, struct rh_conn *c, const uint8_t *at, size_t len,
                        unsigned *ret_shard)
{
    struct rh_envelope env;
    const char *why;

    if (rh_envelope_parse((const char *)at, len, &env, &why) < 0) {
        invalid(sh, c, env.request_id, why);
        return true;
    }
    if (env.type == RH_ENV_REQUEST && rh_request(sh, c, &env, ret_shard) == RH_EFULL)
        return false;
    if (env.type == RH_ENV_ACK && !acknowledge(sh, c, &env))
        return true;
    c->invalid = 0;
    rh_stat_add(&sh->stats, RH_STAT_messages_received, 1);
    return true;
}

/* Keeps a whole message until shard `to` has answered some of what it was asked; with RH_WAIT_OWN
 * until the connection's session gets an answer, with RH_WAIT_PROMISES until some have been kept. */
static void hold(struct rh_shard *sh, struct rh_conn *c, struct rh_block *take_message, unsigned to)
{
    c->message = take_message;
    c->held = true;
    if (to == RH_WAIT_PROMISES) {
        rh_list_add(&sh->promise_waiting, &c->waiting);
        rh_conn_pause(sh, c, RH_PAUSE_PROMISE);
        return;
    }
    rh_conn_pause(sh, c, RH_PAUSE_CREDIT);
    if (to == RH_WAIT_OWN)
        return;
    rh_list_add(&sh->credit[to], &c->waiting);
    sh->credit_wanted |= 1ull << to;
}

static void text(struct rh_shard *sh, struct rh_conn *c, const uint8_t *at, size_t len)
{
    struct rh_block *copy = NULL;
    unsigned to;

    if (handle_text(sh, c, at, len, &to))
        return;
    if (rh_block_append(&sh->stock.blocks, &copy, at, len)) {
        hold(sh, c, copy, to);
        return;
    }
    no_memory(sh, c);
}

/* A whole message that was put together; the block is used up or kept. */
static void text_block(struct rh_shard *sh, struct rh_conn *c, struct rh_block *take_message)
{
    unsigned to;

    if (handle_text(sh, c, rh_block_at(take_message), rh_block_len(take_message), &to))
        rh_block_give(&sh->stock.blocks, take_message);
    else
        hold(sh, c, take_message, to);
}

void rh_client_unhold(struct rh_shard *sh, struct rh_conn *c)
{
    if (c->held && rh_list_empty(&c->waiting))
        rh_conn_resume(sh, c, RH_PAUSE_CREDIT);
}

/* ---- frames ---- */

static void whole_message(struct rh_shard *sh, struct rh_conn *c, const struct rh_ws_event *ev)
{
    if (c->kind == RH_IS_ECHO)
        send_frame(sh, c, ev->opcode, ev->data, ev->len);
    else if (!within_rate(sh, c))
        return;
    else if (ev->opcode == RH_WS_BINARY)
        invalid(sh, c, (struct rh_span){0}, NOT_TEXT);
    else
        text(sh, c, ev->data, ev->len);
}

/* The peer has broken a rule: it is told so, and nothing more of it is read. */
static void protocol_error(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *why)
{
    bool closing = c->state == RH_CONN_CLOSING;

    c->deaf = true;
    if (closing)
        rh_conn_peer_close(sh, c, code);
    else
        rh_conn_close(sh, c, code, why);
}

/* A message that came compressed is plain now, or `code` says why not. */
static void inflated(struct rh_shard *sh, struct rh_conn *c, uint8_t opcode, unsigned code,
                     const char *why, struct rh_block *take_message)
{
    if (code == 1013) {
        no_memory(sh, c);
    } else if (code) {
        protocol_error(sh, c, code, why);
    } else if (c->kind == RH_IS_WS && opcode == RH_WS_TEXT) {
        text_block(sh, c, take_message);
    } else {
        if (c->kind == RH_IS_ECHO)
            send_frame(sh, c, opcode, rh_block_at(take_message), rh_block_len(take_message));
        else
            invalid(sh, c, (struct rh_span){0}, NOT_TEXT);
        rh_block_give(&sh->stock.blocks, take_message);
    }
}

/* A whole message that came compressed, within the rate. */
static void compressed_message(struct rh_shard *sh, struct rh_conn *c, uint8_t opcode,
                               const uint8_t *at, size_t len)
{
    struct rh_block *message = NULL;
    const char *why = NULL;
    unsigned code = rh_squeeze_inflate(sh, c, at, len, opcode == RH_WS_TEXT, &message, &why);

    inflated(sh, c, opcode, code, why, message);
}

/* The same for a long one, as far as this pass goes. */
static void long_message(struct rh_shard *sh, struct rh_conn *c, uint8_t opcode,
                         struct rh_block *take_squeezed)
{
    struct rh_block *message = NULL;
    const char *why = NULL;
    unsigned code = rh_squeeze_inflate_long(sh, c, rh_block_at(take_squeezed),
                                            rh_block_len(take_squeezed), &opcode, &message, &why);

    if (code == RH_SQUEEZE_WAITS) {
        c->message = take_squeezed;
        c->held = true;
        return;
    }
    rh_block_give(&sh->stock.blocks, take_squeezed);
    inflated(sh, c, opcode, code, why, message);
}

/* One that was put together. */
static void compressed_block(struct rh_shard *sh, struct rh_conn *c, uint8_t opcode,
                             struct rh_block *take_message)
{
    const size_t len = rh_block_len(take_message);
    bool may = within_rate(sh, c);

    if (may && len > RH_SQUEEZE_SOME) {
        long_message(sh, c, opcode, take_message);
        return;
    }
    if (may)
        compressed_message(sh, c, opcode, len ? rh_block_at(take_message) : (uint8_t *)"", len);
    rh_block_give(&sh->stock.blocks, take_message);
}

/* The last piece has come: c->message is whole (NULL: it is empty, or not wanted). */
static void finish_message(struct rh_shard *sh, struct rh_conn *c, const struct rh_ws_event *ev)
{
    struct rh_block *message = c->message;

    c->message = NULL;
    if (ev->compressed) {
        compressed_block(sh, c, ev->opcode, message);
    } else if (c->kind == RH_IS_ECHO && message) {
        send_frame(sh, c, ev->opcode, rh_block_at(message), rh_block_len(message));
        rh_block_give(&sh->stock.blocks, message);
    } else if (message && !within_rate(sh, c)) {
        rh_block_give(&sh->stock.blocks, message);
    } else if (message) {
        text_block(sh, c, message);
    } else {
        whole_message(sh, c, &(struct rh_ws_event){.opcode = ev->opcode, .data = (uint8_t *)""});
    }
}

static void piece(struct rh_shard *sh, struct rh_conn *c, const struct rh_ws_event *ev)
{
    bool wanted = c->kind == RH_IS_ECHO || ev->opcode == RH_WS_TEXT || ev->compressed;

    if (wanted && ev->len && !rh_block_append(&sh->stock.blocks, &c->message, ev->data, ev->len))
        no_memory(sh, c);
    else if (ev->last)
        finish_message(sh, c, ev);
}

/* All that arrived at once, or a part of it. */
static void data(struct rh_shard *sh, struct rh_conn *c, const struct rh_ws_event *ev)
{
    if (!ev->first || !ev->last)
        piece(sh, c, ev);
    else if (rh_likely(!ev->compressed))
        whole_message(sh, c, ev);
    else if (within_rate(sh, c))
        compressed_message(sh, c, ev->opcode, ev->data, ev->len);
}

void rh_client_retry(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_block *message = c->message;

    c->message = NULL;
    c->held = false;
    if (rh_squeeze_inflating(sh, c))
        long_message(sh, c, 0, message); /* it knows the opcode */
    else
        text_block(sh, c, message);
}

void rh_client_ping(struct rh_shard *sh, struct rh_conn *c)
{
    rh_stat_add(&sh->stats, RH_STAT_heartbeat_pings, 1);
    send_frame(sh, c, RH_WS_OP_PING, NULL, 0);
}

static void event(struct rh_shard *sh, struct rh_conn *c, const struct rh_ws_event *ev)
{
    bool open = c->state == RH_CONN_OPEN;

    switch (ev->kind) {
    case RH_WS_DATA:
        c->spoke = true;
        if (open)
            data(sh, c, ev);
        break;
    case RH_WS_PING:
        if (open)
            send_frame(sh, c, RH_WS_OP_PONG, ev->data, ev->len);
        break;
    case RH_WS_CLOSE:
        rh_conn_peer_close(sh, c, ev->code);
        break;
    case RH_WS_ERROR:
        protocol_error(sh, c, ev->code, ev->why);
        break;
    default: /* a pong counts as life, like everything that arrives */
        break;
    }
}

/* Who asks for more than its queue may hold is not read before a part of that is sent. */
static bool must_wait(const struct rh_shard *sh, const struct rh_conn *c)
{
    return (c->out && c->out->bytes >= sh->cfg->limits_send_queue_bytes) || rh_conn_full(sh, c);
}

size_t rh_client_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    size_t used = 0;

    rh_ws_set_size_max(&c->ws, sh->cfg->limits_message_size);
    while (used < len && !c->paused && !c->deaf &&
           (c->state == RH_CONN_OPEN || c->state == RH_CONN_CLOSING)) {
        struct rh_ws_event ev;

        if (c->state == RH_CONN_OPEN && must_wait(sh, c)) {
            rh_conn_pause(sh, c, RH_PAUSE_QUEUE);
            break;
        }
        if (rh_unlikely(sh->stock.squeeze.work >= RH_SQUEEZE_PASS) && c->state == RH_CONN_OPEN &&
            rh_squeeze_pause(sh, c))
            break;
        used += rh_ws_feed(&c->ws, at + used, len - used, &ev);
        if (ev.kind == RH_WS_MORE)
            break;
        event(sh, c, &ev);
    }
    return used;
}
