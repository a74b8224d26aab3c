/* tools/load/mode_fanout.c - one publishes, all receive: messages of a room, or broadcasts.
 *
 * Connection 0 is the publisher, and one of the readers like all others. They are members of the
 * room bench-RUN, which they join by `rooms=` in their URL; with --broadcast being connected is
 * enough. A request's id is the message's number. Checked are: of each request that it gets exactly
 * one response, 200; of each reader that it gets each message once and in order, with `from`,
 * content and, in a room, `room` and a `seq` without gaps as they must be. A message is outstanding
 * until all readers have it. Those of --slow join, are sent everything, and never read.
 *
 * Why this way: a server sends all readers the same bytes, as a rule. So a worker reads the first
 * copy of a message as JSON and remembers it; whoever gets the same bytes when that message is its
 * next one has got it, and has every byte of it checked by one memcmp. What differs is read. With
 * --compress that is done with the compressed bytes, so only the first copy is inflated.
 */
#include <string.h>

#include "core/clock.h"
#include "core/err.h"
#include "tools/load/envelope.h"

#define COPY_MAX 4096 /* longer texts are read each time */

#define PUBLISHER 0 /* connection, and the worker that has it */

static size_t build(struct load_worker *w, struct load_conn *c, uint64_t seq)
{
    const struct load_opts *o = w->run->opts;
    char room[LOAD_NAME_ROOM];
    struct rh_writer out;

    load_stream_publish(&w->run->stream, seq, load_flow_intended(&c->flow, seq));
    rh_writer_init(&out, w->scratch, w->scratch_room);
    RH_PUT(&out, "{\"type\":\"request\",\"event\":\"");
    if (o->broadcast)
        RH_PUT(&out, "broadcast");
    else
        RH_PUT(&out, "room.publish");
    RH_PUT(&out, "\",\"request_id\":\"");
    rh_put_u64(&out, seq);
    RH_PUT(&out, "\",\"data\":{");
    if (!o->broadcast) {
        RH_PUT(&out, "\"room\":\"");
        rh_put(&out, room, load_room_name(w->run, room));
        RH_PUT(&out, "\",");
    }
    RH_PUT(&out, "\"content\":\"");
    rh_assert(!out.full && o->size <= (size_t)(out.end - out.at));
    load_payload_fill((uint8_t *)out.at, o->size, c->number, seq);
    out.at += o->size;
    RH_PUT(&out, "\"}}");
    rh_assert(!out.full);
    return rh_writer_len(&out);
}

/* ---- how far all are ---- */

/* In the publisher's worker: what all readers of all workers have is not outstanding any more. */
static void settle(struct load_worker *w)
{
    struct load_conn *publisher = &w->conns[PUBLISHER];
    uint64_t done = load_stream_published(&w->run->stream), intended;

    for (uint32_t i = 0; i < w->run->opts->threads; i++)
        done = RH_MIN(done, load_audience_done_any(&w->run->workers[i].audience));
    if (publisher->flow.delivered >= done)
        return;
    while (publisher->flow.delivered < done)
        load_flow_arrive(&publisher->flow, publisher->flow.delivered, &intended);
    load_pace_pump(w, publisher, rh_clock_mono_ns());
}

/* The readers of this worker are further than they were at `low`, perhaps. */
static void moved(struct load_worker *w, uint64_t low)
{
    const struct load_worker *home = &w->run->workers[PUBLISHER];

    if (w == home)
        settle(w);
    else if (w->audience.low != low && home->uring)
        rh_uring_wake_any(home->uring);
}

static void on_pass(struct load_worker *w)
{
    uint64_t low = w->audience.low;

    if (atomic_load_explicit(&w->run->stream.refusals, memory_order_relaxed))
        load_audience_review(&w->audience);
    moved(w, low); /* the publisher's worker looks anyhow: others may have moved */
}

/* ---- readers come and go ---- */

static void on_greeting(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                        struct rh_span text)
{
    char room[LOAD_NAME_ROOM];
    struct load_body b;

    if (!load_envelope_is(e, "notify", "room.subscribed"))
        return; /* other things may be told before */
    load_room_name(w->run, room);
    load_body_read(e->data, &b);
    if (load_json_is(b.room, room) && b.code.kind == RH_JSON_NONE)
        load_open_joined(w, c);
    else
        load_conn_fail(w, c, "it could not join its room: %.*s", (int)RH_MIN(text.len, 200u),
                       text.at);
}

static void on_open(struct load_worker *w, struct load_conn *c)
{
    if (!c->slow)
        load_audience_join(&w->audience);
}

static uint64_t missing(const struct load_worker *w, const struct load_conn *c, uint64_t *ret_first)
{
    return c->slow || c->state != LOAD_OPEN
               ? 0
               : load_audience_missing(&w->audience, &c->inbox, ret_first);
}

static void on_broken(struct load_worker *w, struct load_conn *c)
{
    uint64_t low = w->audience.low, first;

    if (c->slow)
        return;
    load_count_more(&w->counts.lost, load_audience_missing(&w->audience, &c->inbox, &first));
    load_audience_leave(&w->audience, &c->inbox);
    moved(w, low);
}

/* ---- what comes in ---- */

static void on_answer(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text)
{
    uint64_t low = w->audience.low, seq;

    if (!load_answer_book(w, c, e, true, text, &seq))
        return;
    load_stream_refuse(&w->run->stream, seq);
    load_audience_review(&w->audience);
    moved(w, low);
}

static void arrived(struct load_worker *w, struct load_conn *c, uint64_t seq, struct rh_span text)
{
    uint64_t low = w->audience.low, intended;

    switch (load_audience_arrive(&w->audience, &c->inbox, seq, &intended)) {
    case LOAD_UNKNOWN:
        load_unexpected(w, c, "a message for the second time, or one that was not sent", text);
        return;
    case RH_ENOMEM:
        load_conn_fail(w, c, "no memory for what it lacks");
        return;
    case LOAD_REORDERED:
        load_count(&w->counts.reordered);
        load_worker_note(w, "connection %u: message %llu came after a later one", c->number,
                         (unsigned long long)seq);
        break;
    default:
        break;
    }
    load_count(&w->counts.completed);
    load_pace_latency(w, &w->latency, intended, w->now_ns);
    if (w->audience.low != low)
        moved(w, low);
}

static bool is_copy(const struct load_worker *w, uint64_t seq)
{
    const struct load_copy *copy = &w->copies[seq % LOAD_COPIES];
    const struct load_bytes *came = &w->came.bytes;

    return copy->seq == seq && copy->bytes.len == came->len && came->len > 0 &&
           copy->compressed == w->came.compressed &&
           memcmp(copy->bytes.at, came->at, came->len) == 0;
}

static void remember(struct load_worker *w, uint64_t seq)
{
    struct load_copy *copy = &w->copies[seq % LOAD_COPIES];
    const struct load_bytes *came = &w->came.bytes;

    if (came->len > COPY_MAX || (copy->bytes.len > 0 && copy->seq > seq))
        return;
    copy->seq = seq;
    copy->compressed = w->came.compressed;
    copy->bytes.len = 0;
    load_bytes_add(&copy->bytes, came->at, came->len); /* without memory: it is read each time */
}

/* The room is new, so its numbers begin with 1, and refused messages get none. */
static bool seq_is_right(const struct load_worker *w, struct rh_json seq, uint64_t number)
{
    bool refusals = atomic_load_explicit(&w->run->stream.refusals, memory_order_relaxed);
    uint64_t v;

    return rh_json_u64(seq, refusals ? 1 : number + 1, number + 1, &v);
}

/* Is the message whole and right, and which one is it? */
static bool read_message(struct load_worker *w, const struct load_conn *c, struct rh_json data,
                         uint64_t *ret_seq)
{
    const struct load_opts *o = w->run->opts;
    struct load_flow stream = {.sender = PUBLISHER, .low = w->audience.low};
    char from[LOAD_NAME_ROOM], room[LOAD_NAME_ROOM];
    struct load_seen seen;
    struct load_body b;

    stream.expected = c->inbox.next;
    stream.next = load_stream_published(&w->run->stream);
    load_body_read(data, &b);
    load_seen_begin(&seen);
    if (b.content.kind != RH_JSON_STRING)
        return false;
    load_seen_feed(&seen, &stream, o->size, (const uint8_t *)b.content.raw.at + 1,
                   b.content.raw.len - 2);
    if (!load_seen_end(&seen, &stream, o->size))
        return false;
    *ret_seq = seen.seq;
    load_user_name(w->run, PUBLISHER, from);
    load_room_name(w->run, room);
    return load_json_is(b.from, from) &&
           (o->broadcast || (load_json_is(b.room, room) && seq_is_right(w, b.seq, seen.seq)));
}

static void on_notify(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text)
{
    uint64_t seq;

    if (!load_json_is(e->event, w->run->opts->broadcast ? "broadcast" : "room.message"))
        return; /* other notifies tell of things that are no fault: joined, draining, presence */
    if (read_message(w, c, e->data, &seq)) {
        w->text_bytes = text.len;
        remember(w, seq);
    } else {
        seq = c->inbox.next;
        load_count(&w->counts.corrupted);
        load_worker_note(w, "connection %u: instead of message %llu came %.*s", c->number,
                         (unsigned long long)seq, (int)RH_MIN(text.len, 200u), text.at);
    }
    arrived(w, c, seq, text);
}

static void on_data(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    struct rh_span bytes, text;

    if (c->slow || !load_conn_gather(w, c, ev, &bytes))
        return;
    w->came.compressed = ev->compressed;
    w->came.bytes = (struct load_bytes){(uint8_t *)bytes.at, bytes.len, 0};
    if (is_copy(w, c->inbox.next))
        arrived(w, c, c->inbox.next, bytes);
    else if (load_conn_inflate(w, c, ev, bytes, &text))
        load_envelope_take(w, c, text);
}

const struct load_mode load_mode_fanout = {
    .name = "fanout",
    .unit = "delivery",
    .sends = true,
    .users = true,
    .fans_out = true,
    .opcode = RH_WS_TEXT,
    .build = build,
    .on_data = on_data,
    .on_greeting = on_greeting,
    .on_answer = on_answer,
    .on_notify = on_notify,
    .on_open = on_open,
    .on_broken = on_broken,
    .on_pass = on_pass,
    .missing = missing,
};
