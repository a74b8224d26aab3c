/* tests/proto/ws_log.h - for test_ws.c: wires of frames, and the log of what a reader makes of one.
 *
 * log_feed is one receive: it puts the tail that the reader left in front of the new bytes, both
 * ending at a guard page, and checks the contract on the way: nothing outside of the buffer, tails
 * short and unchanged, pieces in order. The log reads "ping(x) text(hello) close(1000 bye)";
 * neighbouring pieces of a message are one, so that cuts do not show.
 *
 * One wire and one log at a time are enough: each test is a process of its own.
 */
#ifndef RH_WS_LOG_H
#define RH_WS_LOG_H

#include <stdarg.h>
#include <stdio.h>

#include "core/base.h"
#include "proto/mask.h"
#include "proto/ws.h"
#include "tests/rh_test.h"

#define ROOM   (192 * 1024) /* of a wire, and of a message */
#define CANARY 0xa5
#define SHOWN  40 /* payload that is logged in full */

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

/* ---- the log: "ping(x) text(hello) close(1000 bye)" ---- */

struct log {
    struct rh_ws ws;
    uint8_t tail[RH_WS_TAIL_MAX];
    size_t tail_len;
    uint8_t *message; /* what was given of it so far */
    size_t message_len;
    uint8_t opcode; /* of that message; 0: none begun */
    bool compressed;
    bool over;
    char text[16384];
    size_t text_len;
};

static uint8_t *fed_end; /* the guard page begins here */
static bool log_deflate; /* readers that begin from now on allow permessage-deflate */

static void log_init(struct log *log, enum rh_ws_role role, uint64_t size_max)
{
    static uint8_t message[ROOM];

    if (!fed_end)
        fed_end = rh_guard(NULL, ROOM + RH_WS_TAIL_MAX + 1) + ROOM + RH_WS_TAIL_MAX + 1;
    memset(log, 0, sizeof(*log));
    log->message = message;
    rh_ws_init(&log->ws, role, size_max);
    if (log_deflate)
        rh_ws_allow_deflate(&log->ws);
}

static __attribute__((format(printf, 2, 3))) void log_print(struct log *log, const char *fmt, ...)
{
    const size_t room = sizeof(log->text) - log->text_len;
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(log->text + log->text_len, room, fmt, args);
    va_end(args);
    rh_assert(len >= 0 && (size_t)len < room);
    log->text_len += (size_t)len;
}

static uint64_t hash_of(const uint8_t *at, size_t len) /* FNV-1a */
{
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ at[i]) * 1099511628211u;
    return hash;
}

/* Payload: as it is where it prints, \xHH elsewhere; a long one as its length and a hash. */
static void log_bytes(struct log *log, const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len && len <= SHOWN; i++)
        log_print(log, at[i] >= ' ' && at[i] <= '~' ? "%c" : "\\x%02x", at[i]);
    if (len > SHOWN)
        log_print(log, "%zu bytes, %016llx", len, (unsigned long long)hash_of(at, len));
}

static void log_data(struct log *log, const struct rh_ws_event *ev)
{
    if (ev->first != !log->opcode ||
        (!ev->first && (ev->opcode != log->opcode || ev->compressed != log->compressed)))
        RH_FAIL("a piece out of order after %s", log->text);
    log->opcode = ev->opcode;
    log->compressed = ev->compressed;
    rh_assert(log->message_len + ev->len <= ROOM);
    memcpy(log->message + log->message_len, ev->data, ev->len);
    log->message_len += ev->len;
    if (!ev->last)
        return;
    log_print(log, "%s%s(", ev->compressed ? "deflated " : "",
              ev->opcode == RH_WS_TEXT ? "text" : "binary");
    log_bytes(log, log->message, log->message_len);
    log_print(log, ") ");
    log->opcode = 0;
    log->message_len = 0;
}

static void log_event(struct log *log, const struct rh_ws_event *ev)
{
    switch (ev->kind) {
    case RH_WS_DATA:
        log_data(log, ev);
        return;
    case RH_WS_PING:
    case RH_WS_PONG:
        log_print(log, ev->kind == RH_WS_PING ? "ping(" : "pong(");
        break;
    case RH_WS_CLOSE:
        log->over = true;
        log_print(log, ev->len ? "close(%u " : "close(%u", ev->code);
        break;
    case RH_WS_ERROR:
        log->over = true; /* what is unfinished is dropped: how much came before is chance */
        log->opcode = 0;
        log_print(log, "error(%u %s) ", ev->code, ev->why);
        return;
    default:
        RH_FAIL("event %u", ev->kind);
    }
    log_bytes(log, ev->data, ev->len);
    log_print(log, ") ");
}

/* One receive: the tail in front of the new bytes, at the guard page. `bytes` lie in a wire, behind
 * what was fed before. */
static void log_feed(struct log *log, const uint8_t *bytes, size_t len)
{
    uint8_t *at = fed_end - len, *front;

    if (log->over)
        return;
    memcpy(at, bytes, len);
    at -= log->tail_len;
    memcpy(at, log->tail, log->tail_len);
    front = at - 1;
    *front = CANARY;
    for (;;) {
        const size_t left = (size_t)(fed_end - at);
        struct rh_ws_event ev;
        const size_t used = rh_ws_feed(&log->ws, at, left, &ev);

        if (used > left || *front != CANARY)
            RH_FAIL("outside of the buffer after %s", log->text);
        at += used;
        if (ev.kind == RH_WS_MORE)
            break;
        if (ev.kind != RH_WS_ERROR && (ev.data + ev.len > at || ev.data < front))
            RH_FAIL("an event outside of what was consumed after %s", log->text);
        log_event(log, &ev);
        if (log->over)
            return;
    }
    log->tail_len = (size_t)(fed_end - at);
    if (log->tail_len > RH_WS_TAIL_MAX || memcmp(at, bytes + len - log->tail_len, log->tail_len))
        RH_FAIL("a tail of %zu bytes, or changed, after %s", log->tail_len, log->text);
    memcpy(log->tail, at, log->tail_len);
}

static const char *log_end(struct log *log)
{
    if (log->opcode) {
        log_print(log, "unfinished(");
        log_bytes(log, log->message, log->message_len);
        log_print(log, ") ");
    }
    if (log->text_len)
        log->text[log->text_len - 1] = 0; /* the last space */
    return log->text;
}

/* What the log says of one long message. */
static const char *want_long(const char *kind, const uint8_t *at, size_t len)
{
    static char text[80];

    snprintf(text, sizeof(text), "%s(%zu bytes, %016llx)", kind, len,
             (unsigned long long)hash_of(at, len));
    return text;
}

/* ---- wires ---- */

struct wire {
    uint8_t at[ROOM];
    size_t len;
    enum rh_ws_role from; /* RH_WS_CLIENT: masks, for a server to read */
};

static struct wire wire; /* of the running test, a process of its own */

static void put(const void *bytes, size_t len)
{
    rh_assert(wire.len + len <= ROOM);
    memcpy(wire.at + wire.len, bytes, len);
    wire.len += len;
}

static void put_frame_of(uint8_t opcode, bool fin, const void *payload, size_t len)
{
    const bool masked = wire.from == RH_WS_CLIENT;

    rh_assert(wire.len + RH_WS_HEAD_MAX + len <= ROOM);
    wire.len += rh_ws_head(wire.at + wire.len, opcode, fin, len, masked ? key : NULL);
    if (masked)
        rh_mask(wire.at + wire.len, payload, len, key, 0);
    else
        memcpy(wire.at + wire.len, payload, len);
    wire.len += len;
}

static void put_frame(uint8_t opcode, bool fin, const char *payload)
{
    put_frame_of(opcode, fin, payload, strlen(payload));
}

/* A new wire that a client writes, so for a server. */
static void wire_new(void)
{
    wire.len = 0;
    wire.from = RH_WS_CLIENT;
}

static void wire_frame(uint8_t opcode, bool fin, const char *payload)
{
    wire_new();
    put_frame(opcode, fin, payload);
}

static void wire_bytes(const void *bytes, size_t len)
{
    wire_new();
    put(bytes, len);
}

#define WIRE(...) wire_bytes((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

#endif
