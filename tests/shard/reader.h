/* tests/shard/reader.h - a client's ear: server frames in, messages out, inflated where they came so.
 *
 * Memory for it is taken with calloc, or does not fail (reader_feed turns the fault hook off meanwhile), so
 * that only what is tested runs out of it.
 */
#ifndef RH_TEST_READER_H
#define RH_TEST_READER_H

#include <stdlib.h>

#include "core/mem.h"
#include "proto/deflate.h"
#include "proto/ws.h"
#include "tests/rh_test.h"

#define READER_MAX (4u << 20)

struct reader {
    struct rh_ws ws;
    struct rh_inflater *z;
    struct rh_deflate_out out;
    uint8_t *bytes; /* of the message that is read */
    size_t len;
    unsigned messages, compressed, controls;
    unsigned closed; /* the code of the close frame; 0: none so far */
    uint64_t wire;   /* bytes of all compressed payloads */
    void (*message)(void *arg, const uint8_t *at, size_t len);
    void *arg;
};

static inline void reader_begin(struct reader *r, unsigned bits, bool keeps,
                                void (*message)(void *arg, const uint8_t *at, size_t len),
                                void *arg)
{
    uint64_t fail = rh_mem_fail_left();

    rh_mem_fail_nth(0);
    memset(r, 0, sizeof(*r));
    rh_ws_init(&r->ws, RH_WS_CLIENT, READER_MAX);
    rh_ws_allow_deflate(&r->ws);
    RH_OK_IF(rh_inflater_create(bits, keeps, &r->z) == 0);
    RH_OK_IF(r->bytes = calloc(1, READER_MAX));
    r->message = message;
    r->arg = arg;
    rh_mem_fail_nth(fail);
}

static inline void reader_end(struct reader *r)
{
    rh_inflater_destroy(r->z);
    rh_deflate_out_trim(&r->out, 0);
    free(r->bytes);
}

static inline void reader_hear(struct reader *r, const struct rh_ws_event *ev)
{
    RH_OK_IF(ev->kind != RH_WS_ERROR);
    if (ev->kind == RH_WS_CLOSE)
        r->closed = ev->code;
    if (ev->kind != RH_WS_DATA) {
        r->controls += ev->kind != RH_WS_MORE;
        return;
    }
    memcpy(r->bytes + r->len, ev->data, ev->len);
    r->len += ev->len;
    if (!ev->last)
        return;
    r->messages++;
    if (ev->compressed) {
        r->compressed++;
        r->wire += r->len;
        RH_OK_IF(rh_inflate(r->z, r->bytes, r->len, READER_MAX, &r->out) == 0);
        r->message(r->arg, r->out.at, r->out.len);
    } else {
        r->message(r->arg, r->bytes, r->len);
    }
    r->len = 0;
}

/* Whole frames; they are left as they are. */
static inline void reader_feed(struct reader *r, const void *at, size_t len)
{
    uint64_t fail = rh_mem_fail_left();
    struct rh_ws_event ev = {.kind = RH_WS_DATA};
    uint8_t *copy = malloc(len + 1);

    RH_OK_IF(copy);
    rh_mem_fail_nth(0);
    memcpy(copy, at, len);
    for (size_t used = 0; ev.kind != RH_WS_MORE && !r->closed;) {
        used += rh_ws_feed(&r->ws, copy + used, len - used, &ev);
        reader_hear(r, &ev);
        RH_OK_IF(ev.kind != RH_WS_MORE || used == len);
    }
    free(copy);
    rh_mem_fail_nth(fail);
}

#endif
