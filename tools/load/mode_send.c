/* tools/load/mode_send.c - user to user through ringhub: each connection sends to its partner.
 *
 * Connection i is the user bench-RUN-i and sends message.send to bench-RUN-(i ^ 1); both ends live
 * in one worker. A request's id is the message's number. Checked are: of each request that it gets
 * exactly one response, 200 and `sent`; of each message that it arrives once, in its sender's
 * order, with `from` and content as they must be. A message is outstanding until it arrived.
 */
#include "tools/load/envelope.h"

static size_t build(struct load_worker *w, struct load_conn *c, uint64_t seq)
{
    char to[LOAD_NAME_ROOM];
    struct rh_writer out;

    rh_writer_init(&out, w->scratch, w->scratch_room);
    RH_PUT(&out, "{\"type\":\"request\",\"event\":\"message.send\",\"request_id\":\"");
    rh_put_u64(&out, seq);
    RH_PUT(&out, "\",\"data\":{\"to\":\"");
    rh_put(&out, to, load_user_name(w->run, load_conn_partner(w, c)->number, to));
    RH_PUT(&out, "\",\"content\":\"");
    rh_assert(!out.full && w->run->opts->size <= (size_t)(out.end - out.at));
    load_payload_fill((uint8_t *)out.at, w->run->opts->size, c->number, seq);
    out.at += w->run->opts->size;
    RH_PUT(&out, "\"}}");
    rh_assert(!out.full);
    return rh_writer_len(&out);
}

/* ---- what it means ---- */

static void on_answer(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text)
{
    struct load_body b;
    uint64_t seq;

    load_body_read(e->data, &b);
    if (!load_answer_book(w, c, e, load_json_is(b.status, "sent"), text, &seq))
        return;
    load_flow_give_up(&c->flow, seq);
    load_pace_pump(w, c, w->now_ns);
}

/* A message for `c`, which its partner sent. Anything wrong with it is counted here. */
static void on_message(struct load_worker *w, struct load_conn *c, struct rh_json data,
                       struct rh_span text)
{
    struct load_conn *sender = load_conn_partner(w, c);
    struct load_seen seen;
    struct load_body b;
    char from[LOAD_NAME_ROOM];
    uint64_t intended;
    bool right = false;

    load_body_read(data, &b);
    load_seen_begin(&seen);
    if (b.content.kind == RH_JSON_STRING) {
        load_seen_feed(&seen, &sender->flow, w->run->opts->size,
                       (const uint8_t *)b.content.raw.at + 1, b.content.raw.len - 2);
        right = load_seen_end(&seen, &sender->flow, w->run->opts->size);
    }
    load_user_name(w->run, sender->number, from);
    if (!right || !load_json_is(b.from, from)) {
        seen.seq = sender->flow.expected;
        load_count(&w->counts.corrupted);
        load_worker_note(w, "connection %u: instead of message %llu of %s came %.*s", c->number,
                         (unsigned long long)seen.seq, from, (int)RH_MIN(text.len, 200u), text.at);
    }
    switch (load_flow_arrive(&sender->flow, seen.seq, &intended)) {
    case LOAD_UNKNOWN:
        load_unexpected(w, c, "a message that is not outstanding", text);
        return;
    case LOAD_REORDERED:
        load_count(&w->counts.reordered);
        load_worker_note(w, "connection %u: message %llu of %s came after a later one", c->number,
                         (unsigned long long)seen.seq, from);
        break;
    default:
        break;
    }
    load_count(&w->counts.completed);
    load_pace_latency(w, &w->latency, intended, w->now_ns);
    load_pace_pump(w, sender, w->now_ns);
}

static void on_notify(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text)
{
    if (load_json_is(e->event, "message"))
        on_message(w, c, e->data, text);
    /* other notifies tell of things that are no fault: draining, presence */
}

static void on_data(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    struct rh_span text;

    if (load_conn_whole(w, c, ev, &text))
        load_envelope_take(w, c, text);
}

const struct load_mode load_mode_send = {
    .name = "send",
    .unit = "message",
    .sends = true,
    .pairs = true,
    .users = true,
    .opcode = RH_WS_TEXT,
    .build = build,
    .on_data = on_data,
    .on_answer = on_answer,
    .on_notify = on_notify,
};
