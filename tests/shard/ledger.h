/* tests/shard/ledger.h - a book of what was pushed to a connection, and a judge of what came of it.
 *
 * Each message has a stream (direct, broadcast, a room) and a number in it, from 1 on without gaps.
 * What leaves is noted as it leaves: messages, and losses with their range. In the end:
 *
 *   rooms       messages and losses together are 1, 2, 3, ...: in order, nothing twice, nothing gone
 *   direct      each lane in order; what did not arrive lies in a loss that was told before the next
 *               one of the normal lane; the losses' counts are exact
 *   broadcasts  each lane in order; the counts are exact
 */
#ifndef RH_TEST_LEDGER_H
#define RH_TEST_LEDGER_H

#include <stdio.h>
#include <stdlib.h>

#include "core/msg.h"
#include "tests/rh_test.h"

#define LEDGER_ROOMS   6
#define LEDGER_DIRECT  0
#define LEDGER_CAST    1
#define LEDGER_ROOM    2 /* the first one */
#define LEDGER_STREAMS (LEDGER_ROOM + LEDGER_ROOMS)
#define LEDGER_MAX     60000
#define LEDGER_FRAME   12 /* "n2:00000123;": h or n, stream, number */

struct ledger_event {
    uint8_t stream;
    bool lost, high;
    uint32_t from, to, count;
};

struct ledger {
    uint32_t pushed[LEDGER_STREAMS];
    bool high[LEDGER_MAX]; /* of direct messages */
    uint32_t count;
    struct ledger_event events[LEDGER_MAX];
};

static inline enum rh_msg_kind ledger_kind(unsigned stream)
{
    return stream == LEDGER_DIRECT ? RH_MSG_DIRECT
           : stream == LEDGER_CAST ? RH_MSG_BROADCAST
                                   : RH_MSG_ROOM;
}

/* Of the room with this stream. */
static inline uint64_t ledger_uid(unsigned stream)
{
    return 0x100000000u * stream + stream % 3; /* some have the same low bits */
}

/* The next message of the stream; `key` 0: none. NULL: no memory. */
static inline struct rh_msg *ledger_make(struct ledger *led, unsigned stream, bool high,
                                         unsigned key)
{
    struct rh_msg *msg = rh_msg_create(64);
    char *at;

    if (!msg)
        return NULL;
    msg->kind = (uint8_t)ledger_kind(stream);
    msg->high = high;
    msg->frame_len = LEDGER_FRAME;
    at = (char *)msg->bytes + msg->frame_at;
    snprintf(at, 40, "%c%u:%08u;room%u\"key%u\"", high ? 'h' : 'n', stream, led->pushed[stream] + 1,
             stream, key);
    msg->to_at = msg->frame_at + LEDGER_FRAME;
    msg->to_len = 5;
    msg->seq = stream == LEDGER_CAST ? 0 : led->pushed[stream] + 1;
    if (stream >= LEDGER_ROOM) {
        msg->uid = ledger_uid(stream);
        msg->key_at = msg->to_at + 5;
        msg->key_len = key ? (uint32_t)strlen(at + LEDGER_FRAME + 5) : 0;
    }
    return msg;
}

/* It was handed over. */
static inline void ledger_pushed(struct ledger *led, unsigned stream, bool high)
{
    RH_OK_IF(led->pushed[stream] + 1 < LEDGER_MAX);
    led->pushed[stream]++;
    if (stream == LEDGER_DIRECT)
        led->high[led->pushed[stream]] = high;
}

static inline void ledger_note(struct ledger *led, struct ledger_event ev)
{
    RH_OK_IF(led->count < LEDGER_MAX);
    led->events[led->count++] = ev;
}

/* A frame of ledger_make has left. */
static inline void ledger_arrived(struct ledger *led, const char *frame)
{
    unsigned stream, number;
    char lane;

    RH_OK_IF(sscanf(frame, "%c%1u:%8u;", &lane, &stream, &number) == 3);
    ledger_note(led, (struct ledger_event){(uint8_t)stream, false, lane == 'h', number, number, 1});
}

static inline void ledger_lost(struct ledger *led, unsigned stream, uint64_t from, uint64_t to,
                               uint64_t count)
{
    ledger_note(led, (struct ledger_event){(uint8_t)stream, true, false, (uint32_t)from,
                                           (uint32_t)to, (uint32_t)count});
}

static inline void ledger_check_room(const struct ledger *led, unsigned stream)
{
    uint32_t last = 0;

    for (uint32_t i = 0; i < led->count; i++) {
        const struct ledger_event *ev = &led->events[i];

        if (ev->stream != stream)
            continue;
        if (ev->from != last + 1 || ev->count != ev->to - ev->from + 1)
            RH_FAIL("stream %u: behind %u comes %s %u-%u (%u)", stream, last,
                    ev->lost ? "a loss of" : "message", ev->from, ev->to, ev->count);
        last = ev->to;
    }
    RH_EQ_INT(last, led->pushed[stream]);
}

/* Each lane's order, and the sum. */
static inline void ledger_check_counts(const struct ledger *led, unsigned stream)
{
    uint32_t last[2] = {0, 0}, total = 0;

    for (uint32_t i = 0; i < led->count; i++) {
        const struct ledger_event *ev = &led->events[i];

        if (ev->stream != stream)
            continue;
        total += ev->count;
        if (ev->lost)
            continue;
        RH_OK_IF(ev->from > last[ev->high]);
        last[ev->high] = ev->from;
    }
    RH_EQ_INT(total, led->pushed[stream]);
}

static inline void ledger_check_direct(const struct ledger *led)
{
    uint32_t pushed = led->pushed[LEDGER_DIRECT], next = UINT32_MAX;
    uint32_t *arrived = calloc(pushed + 1, sizeof(*arrived)); /* at which event, counted from 1 */
    uint32_t *told = calloc(pushed + 1, sizeof(*told));

    for (uint32_t i = 0; i < led->count; i++) {
        const struct ledger_event *ev = &led->events[i];

        if (ev->stream != LEDGER_DIRECT)
            continue;
        RH_OK_IF(ev->from >= 1 && ev->to <= pushed);
        for (uint32_t s = ev->from; ev->lost && s <= ev->to; s++)
            told[s] = told[s] ? told[s] : i + 1;
        if (!ev->lost)
            arrived[ev->from] = i + 1;
    }
    for (uint32_t s = pushed; s > 0; s--) {
        if (!arrived[s] && (!told[s] || (!led->high[s] && told[s] > next)))
            RH_FAIL("direct %u is not told, or too late", s);
        if (arrived[s] && !led->high[s])
            next = arrived[s];
    }
    free(arrived);
    free(told);
}

static inline void ledger_check(const struct ledger *led)
{
    ledger_check_counts(led, LEDGER_DIRECT);
    ledger_check_counts(led, LEDGER_CAST);
    ledger_check_direct(led);
    for (unsigned stream = LEDGER_ROOM; stream < LEDGER_STREAMS; stream++)
        ledger_check_room(led, stream);
}

#endif
