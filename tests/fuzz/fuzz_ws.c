/* Goal    a stream means the same however it is cut, the contract of rh_ws_feed holds for any
 *         bytes, and no byte outside of a buffer is touched.
 * Method  feed the stream whole and in pieces, and compare the logs of events byte by byte. Every
 *         receive lies in memory of its own size, so that ASan sees one byte too far.
 * Input   byte 0: bit 0 the role, bits 1 to 3 which limit, bit 4 permessage-deflate; byte 1: seed of the cuts; the rest is
 *         the stream. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "proto/utf8.h"
#include "proto/ws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STREAM_MAX 8192

struct reader {
    struct rh_ws ws;
    uint64_t size_max;
    uint8_t tail[RH_WS_TAIL_MAX];
    size_t tail_len;
    uint8_t message[STREAM_MAX];
    size_t message_len;
    uint8_t opcode; /* of the message that has begun, or 0 */
    bool compressed;
    bool deflate;
    bool over;
    uint8_t log[16 * STREAM_MAX]; /* an event's 8 bytes stand for 2 or more of the stream */
    size_t log_len;
};

static struct reader whole, cut;

static void log_add(struct reader *rd, uint8_t kind, uint16_t code, const uint8_t *at, size_t len)
{
    const uint8_t head[] = {kind, (uint8_t)(code >> 8), (uint8_t)code, (uint8_t)(len >> 8),
                            (uint8_t)len};

    rh_assert(rd->log_len + sizeof(head) + len <= sizeof(rd->log));
    memcpy(rd->log + rd->log_len, head, sizeof(head));
    rd->log_len += sizeof(head);
    if (len)
        memcpy(rd->log + rd->log_len, at, len);
    rd->log_len += len;
}

static void on_data(struct reader *rd, const struct rh_ws_event *ev)
{
    uint64_t max;

    rh_assert(ev->opcode == RH_WS_TEXT || ev->opcode == RH_WS_BINARY);
    rh_assert(ev->first == !rd->opcode && (ev->first || ev->opcode == rd->opcode));
    rh_assert(ev->len || ev->first || ev->last);
    rh_assert(ev->first || ev->compressed == rd->compressed);
    rh_assert(!ev->compressed || rd->deflate);
    rd->opcode = ev->opcode;
    rd->compressed = ev->compressed;
    max = ev->compressed ? RH_WS_COMPRESSED_MAX(rd->size_max) : rd->size_max;
    rh_assert(rd->message_len + ev->len <= RH_MIN(max, sizeof(rd->message)));
    memcpy(rd->message + rd->message_len, ev->data, ev->len);
    rd->message_len += ev->len;
    if (!ev->last)
        return;
    rh_assert(ev->opcode != RH_WS_TEXT || ev->compressed ||
              rh_utf8_valid(rd->message, rd->message_len));
    log_add(rd, RH_WS_DATA, ev->opcode | ev->compressed << 8, rd->message, rd->message_len);
    rd->opcode = 0;
    rd->message_len = 0;
}

static void on_event(struct reader *rd, const struct rh_ws_event *ev)
{
    switch (ev->kind) {
    case RH_WS_DATA:
        on_data(rd, ev);
        return;
    case RH_WS_PING:
    case RH_WS_PONG:
        rh_assert(ev->len <= RH_WS_CONTROL_MAX);
        break;
    case RH_WS_CLOSE:
        rh_assert(ev->code == RH_WS_NO_CODE || rh_ws_close_code_ok(ev->code));
        rh_assert(rh_utf8_valid(ev->data, ev->len));
        rd->over = true;
        break;
    default:
        rh_assert(ev->kind == RH_WS_ERROR && ev->why);
        rh_assert(ev->code == 1002 || ev->code == 1007 || ev->code == 1009);
        rd->over = true;
        rd->opcode = 0; /* how much of the message came before is chance */
        rd->message_len = 0;
        log_add(rd, ev->kind, ev->code, (const uint8_t *)ev->why, strlen(ev->why));
        return;
    }
    log_add(rd, ev->kind, ev->code, ev->data, ev->len);
}

/* One receive, with the tail in front of it. */
static void receive(struct reader *rd, const uint8_t *bytes, size_t len)
{
    const size_t all = rd->tail_len + len;
    uint8_t *buf = malloc(all);
    size_t at = 0;

    rh_assert(buf || !all);
    if (rd->tail_len)
        memcpy(buf, rd->tail, rd->tail_len);
    if (len)
        memcpy(buf + rd->tail_len, bytes, len);
    while (!rd->over) {
        struct rh_ws_event ev;
        const size_t used = rh_ws_feed(&rd->ws, buf + at, all - at, &ev);

        rh_assert(used <= all - at);
        if (ev.kind != RH_WS_MORE && ev.kind != RH_WS_ERROR)
            rh_assert(ev.data >= buf + at && ev.data + ev.len <= buf + at + used);
        at += used;
        if (ev.kind == RH_WS_MORE) {
            rd->tail_len = all - at;
            rh_assert(rd->tail_len <= RH_WS_TAIL_MAX);
            rh_assert(!memcmp(buf + at, bytes + len - rd->tail_len, rd->tail_len));
            memcpy(rd->tail, buf + at, rd->tail_len);
            break;
        }
        on_event(rd, &ev);
    }
    free(buf);
}

static void start(struct reader *rd, uint8_t how)
{
    static const uint64_t limits[] = {RH_WS_SIZE_MAX, 0, 1, 100, 125, 126, 1000, 65535};

    rd->size_max = limits[(how >> 1) % RH_COUNT(limits)];
    rd->tail_len = rd->message_len = rd->log_len = 0;
    rd->opcode = 0;
    rd->over = false;
    rd->deflate = how & 16;
    rh_ws_init(&rd->ws, how & 1 ? RH_WS_CLIENT : RH_WS_SERVER, rd->size_max);
    if (rd->deflate)
        rh_ws_allow_deflate(&rd->ws);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t cuts;

    if (size < 2 || size > STREAM_MAX)
        return 0;
    start(&whole, data[0]);
    start(&cut, data[0]);
    cuts = data[1];
    data += 2;
    size -= 2;
    receive(&whole, data, size);
    for (size_t at = 0, len; at < size && !cut.over; at += len) {
        cuts = cuts * 1103515245u + 12345u;
        len = 1 + (cuts >> 16) % ((cuts >> 24) & 1 ? 3 : 150);
        len = RH_MIN(len, size - at);
        receive(&cut, data + at, len);
    }
    rh_assert(whole.over == cut.over && whole.opcode == cut.opcode);
    rh_assert(whole.log_len == cut.log_len && !memcmp(whole.log, cut.log, cut.log_len));
    rh_assert(whole.message_len == cut.message_len);
    rh_assert(!memcmp(whole.message, cut.message, cut.message_len));
    return 0;
}
