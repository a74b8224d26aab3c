/* tools/load/mode_mixed.c - acknowledged messages alone (mode ack), or a mixture of everything.
 *
 * Connection i is the user bench-RUN-i. Direct messages go to the partner, bench-RUN-(i ^ 1); in
 * mode mixed --room-size neighbours share the room bench-RUN-r-ROOM. A request's id is the
 * message's number, the id of an acknowledged one is RUN-SENDER-NUMBER. A receiver acknowledges
 * everything that one read brought with one message. What has to hold is in book.h; here messages
 * are written, read, and found in the books.
 */
#include <string.h>

#include "core/clock.h"
#include "tools/load/envelope.h"

/* ---- what is sent ---- */

static void put_id(const struct load_run *run, const struct load_entry *e, struct rh_writer *out)
{
    rh_put(out, run->id, strlen(run->id));
    RH_PUT(out, "-");
    rh_put_u64(out, e->sender->number);
    RH_PUT(out, "-");
    rh_put_u64(out, e->seq);
}

static void put_payload(const struct load_run *run, const struct load_entry *e,
                        struct rh_writer *out)
{
    rh_assert(!out->full && run->opts->size <= (size_t)(out->end - out->at));
    load_payload_fill((uint8_t *)out->at, run->opts->size, e->sender->number, e->seq);
    out->at += run->opts->size;
}

/* The value of `data`. */
static void put_data(struct load_worker *w, const struct load_entry *e, struct rh_writer *out)
{
    char name[LOAD_NAME_ROOM];

    if (e->class == LOAD_CLASS_PING) {
        RH_PUT(out, "\"");
        put_payload(w->run, e, out);
        RH_PUT(out, "\"");
        return;
    }
    if (load_class_in_room(e->class)) {
        RH_PUT(out, "{\"room\":\"");
        rh_put(out, name, load_block_name(w->run, e->sender->number, name));
    } else {
        RH_PUT(out, "{\"to\":\"");
        rh_put(out, name, load_user_name(w->run, load_conn_partner(w, e->sender)->number, name));
    }
    RH_PUT(out, "\",\"content\":\"");
    put_payload(w->run, e, out);
    if (load_class_acked(e->class)) {
        RH_PUT(out, "\",\"ack\":true,\"id\":\"");
        put_id(w->run, e, out);
    }
    RH_PUT(out, "\"}");
}

static size_t build(struct load_worker *w, struct load_conn *c, uint64_t seq)
{
    static const char *const events[] = {
        [LOAD_CLASS_SEND] = "message.send",
        [LOAD_CLASS_ACK] = "message.send",
        [LOAD_CLASS_PUBLISH] = "room.publish",
        [LOAD_CLASS_PUBLISH_ACK] = "room.publish",
        [LOAD_CLASS_PING] = "ping",
    };
    const struct load_entry *e = load_book_newest(c);
    struct rh_writer out;

    rh_assert(e->seq == seq);
    rh_writer_init(&out, w->scratch, w->scratch_room);
    RH_PUT(&out, "{\"type\":\"request\",\"event\":\"");
    rh_put(&out, events[e->class], strlen(events[e->class]));
    RH_PUT(&out, "\",\"request_id\":\"");
    rh_put_u64(&out, seq);
    RH_PUT(&out, "\",\"data\":");
    put_data(w, e, &out);
    RH_PUT(&out, "}");
    rh_assert(!out.full);
    return rh_writer_len(&out);
}

/* ---- names ---- */

/* The number in what is left of a name; false: there is something else. */
static bool take_number(const char **at, const char *end, uint64_t max, uint64_t *ret)
{
    const char *first = *at;

    while (*at < end && **at >= '0' && **at <= '9')
        (*at)++;
    return rh_json_u64((struct rh_json){{first, (uint32_t)(*at - first)}, RH_JSON_NUMBER}, 0, max,
                       ret);
}

static bool take_word(const char **at, const char *end, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(end - *at) < len || memcmp(*at, word, len) != 0)
        return false;
    *at += len;
    return true;
}

/* A message's id, as put_id made it. */
static bool read_id(const struct load_run *run, struct rh_json v, uint64_t *ret_sender,
                    uint64_t *ret_seq)
{
    const char *at = v.raw.at + 1, *end = v.raw.at + v.raw.len - 1;

    return v.kind == RH_JSON_STRING && take_word(&at, end, run->id) && take_word(&at, end, "-") &&
           take_number(&at, end, LOAD_CONNECTIONS_MAX, ret_sender) && take_word(&at, end, "-") &&
           take_number(&at, end, UINT64_C(1) << 48, ret_seq) && at == end;
}

/* The connection of a user of this run, if it is one of those with whom `c` has to do. */
static struct load_conn *named(struct load_worker *w, const struct load_conn *c, struct rh_json v)
{
    uint32_t place = c->index % load_mode_block(w->run->opts);
    const char *at = v.raw.at + 1, *end = v.raw.at + v.raw.len - 1;
    uint64_t number, first = c->number - place;

    if (v.kind != RH_JSON_STRING || !take_word(&at, end, "bench-") ||
        !take_word(&at, end, w->run->id) || !take_word(&at, end, "-") ||
        !take_number(&at, end, LOAD_CONNECTIONS_MAX, &number) || at != end || number < first ||
        number >= first + load_mode_block(w->run->opts) ||
        c->index - place + (number - first) >= w->conns_count)
        return NULL;
    return &w->conns[c->index - place + (number - first)];
}

/* ---- answers ---- */

static bool content_is(const struct load_worker *w, struct rh_json v,
                       const struct load_conn *sender, uint64_t seq)
{
    return v.kind == RH_JSON_STRING && v.raw.len - 2 == w->run->opts->size &&
           load_payload_check((const uint8_t *)v.raw.at + 1, v.raw.len - 2, 0, sender->number, seq);
}

/* Is the answer what it should be? Its seq in a room, and whether it says `stored`. */
static bool read_accepted(const struct load_worker *w, const struct load_entry *e,
                          struct rh_json data, uint64_t *ret_room_seq, bool *ret_stored)
{
    uint64_t sender, seq;
    struct load_body b;

    *ret_room_seq = 0;
    *ret_stored = false;
    if (e->class == LOAD_CLASS_PING)
        return content_is(w, data, e->sender, e->seq);
    load_body_read(data, &b);
    if (load_class_acked(e->class) &&
        (!read_id(w->run, b.id, &sender, &seq) || sender != e->sender->number || seq != e->seq))
        return false;
    if (load_class_in_room(e->class))
        return rh_json_u64(b.seq, 1, UINT64_C(1) << 53, ret_room_seq);
    *ret_stored = load_json_is(b.status, "stored");
    return *ret_stored || load_json_is(b.status, "sent");
}

/* Answers of a hub in need, or of one that keeps nothing for who is away: they are counted only. */
static bool is_turned_away(const struct load_worker *w, const struct load_envelope *e)
{
    return load_json_is(e->type, "error") &&
           (load_json_is(e->error, "store_failed") || load_json_is(e->error, "queue_full") ||
            (load_json_is(e->error, "user_offline") && w->run->opts->reconnect > 0));
}

static void on_answer(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text)
{
    struct load_entry *entry;
    uint64_t seq, code, room_seq;
    bool stored;

    if (!load_digits_read(e->request_id, &seq)) {
        load_unexpected(w, c, "an answer without a request", text);
        return;
    }
    entry = load_book_find(w, c, seq);
    if (!entry || load_book_is_answered(entry)) {
        load_unexpected(w, c, "a second answer, or one to no request", text);
        return;
    }
    if (load_json_is(e->type, "response") && rh_json_u64(e->code, 200, 200, &code) &&
        read_accepted(w, entry, e->data, &room_seq, &stored)) {
        load_book_accept(w, entry, stored, room_seq);
    } else {
        load_count(is_turned_away(w, e) ? &w->counts.turned_away : &w->counts.rejected);
        if (!is_turned_away(w, e))
            load_worker_note(w, "connection %u: request %llu was answered with %.*s", c->number,
                             (unsigned long long)seq, (int)RH_MIN(text.len, 200u), text.at);
        load_book_turn_away(
            w, entry, !load_json_is(e->type, "error") || load_json_is(e->error, "store_failed"));
    }
    load_pace_pump(w, c, w->now_ns);
}

/* ---- messages ---- */

static void corrupted(struct load_worker *w, const struct load_conn *c, const char *what,
                      struct rh_span text)
{
    load_count(&w->counts.corrupted);
    load_worker_note(w, "connection %u: %s: %.*s", c->number, what, (int)RH_MIN(text.len, 200u),
                     text.at);
}

static void misdirected(struct load_worker *w, const struct load_conn *c, struct rh_span text)
{
    load_count(&w->counts.misdirected);
    load_worker_note(w, "connection %u got what is for another: %.*s", c->number,
                     (int)RH_MIN(text.len, 200u), text.at);
}

/* Of a plain message only its content says which one it is. */
static bool read_claim(struct rh_json content, uint64_t *ret_seq)
{
    return content.kind == RH_JSON_STRING && content.raw.len - 2 >= LOAD_SEQ_DIGITS &&
           load_payload_claim((const uint8_t *)content.raw.at + 1, LOAD_SEQ_DIGITS, ret_seq);
}

/* Which message it is: by its id, if it is one of ours. False: it can't be told, and is counted. */
static bool identify(struct load_worker *w, const struct load_conn *c, const struct load_body *b,
                     struct rh_span text, struct load_conn **ret_sender, uint64_t *ret_seq,
                     bool *ret_acked)
{
    uint64_t number;

    *ret_sender = named(w, c, b->from);
    *ret_acked = read_id(w->run, b->id, &number, ret_seq);
    if (!*ret_sender) {
        misdirected(w, c, text);
        return false;
    }
    if (*ret_acked ? number == (*ret_sender)->number : read_claim(b->content, ret_seq))
        return true;
    corrupted(w, c, "an id or content that nobody sent", text);
    return false;
}

/* For the end of this read. */
static void will_acknowledge(struct load_worker *w, struct load_conn *c, struct rh_json id)
{
    if (c->ledger->silent)
        return;
    if (!load_bytes_add(&w->acks, ",", w->acks_count > 0) ||
        !load_bytes_add(&w->acks, id.raw.at, id.raw.len)) {
        load_conn_fail(w, c, "no memory for its acknowledgements");
        return;
    }
    w->acks_count++;
}

static void on_message(struct load_worker *w, struct load_conn *c, struct rh_json data,
                       bool in_room, struct rh_span text)
{
    uint64_t seq, attempt = 1, room_seq = 0;
    struct load_conn *sender;
    struct load_entry *e;
    struct load_body b;
    char room[LOAD_NAME_ROOM];
    bool acked, asks;

    load_body_read(data, &b);
    if (!identify(w, c, &b, text, &sender, &seq, &acked))
        return;
    rh_json_u64(b.attempt, 1, UINT32_MAX, &attempt);
    e = load_book_find(w, sender, seq);
    if (e && !load_book_is_for(w, e, c)) {
        misdirected(w, c, text);
        return;
    }
    asks = acked && !(in_room && sender == c); /* a publisher's own copy does not */
    if (!content_is(w, b.content, sender, seq) ||
        (in_room && (load_block_name(w->run, c->number, room), !load_json_is(b.room, room))) ||
        (in_room && !rh_json_u64(b.seq, 1, UINT64_C(1) << 53, &room_seq)) ||
        (b.ack.kind == RH_JSON_TRUE) != asks ||
        (e && (load_class_in_room(e->class) != in_room || load_class_acked(e->class) != acked)))
        corrupted(w, c, "a message is not as it was sent", text);
    if (asks)
        will_acknowledge(w, c, b.id);
    if (!e) {
        load_book_late(w, c, sender, seq, acked, attempt);
        return;
    }
    if (asks && !c->ledger->silent)
        load_book_ack(w, c, e);
    load_book_arrive(w, c, e, attempt, room_seq);
    load_pace_pump(w, sender, w->now_ns);
}

/* What one read brought is acknowledged at once. */
static void on_read(struct load_worker *w, struct load_conn *c)
{
    static const char one[] = "{\"type\":\"ack\",\"data\":{\"id\":";
    static const char many[] = "{\"type\":\"ack\",\"data\":{\"ids\":[";
    bool single = w->acks_count == 1;

    if (w->acks_count == 0)
        return;
    w->ack_text.len = 0;
    if (!load_bytes_add(&w->ack_text, single ? one : many, strlen(single ? one : many)) ||
        !load_bytes_add(&w->ack_text, w->acks.at, w->acks.len) ||
        !load_bytes_add(&w->ack_text, single ? "}}" : "]}}", single ? 2 : 3))
        load_conn_fail(w, c, "no memory for its acknowledgements");
    else if (c->state == LOAD_OPEN || c->state == LOAD_GREETING)
        load_conn_put_frame(w, c, RH_WS_TEXT, w->ack_text.at, w->ack_text.len);
    w->acks.len = 0;
    w->acks_count = 0;
}

/* ---- what else is told ---- */

static bool read_end(struct rh_json status, enum load_end *ret)
{
    static const char *const other[] = {"failed", "expired"};

    *ret = LOAD_END_OTHER;
    if (load_json_is(status, "success")) {
        *ret = LOAD_END_SUCCESS;
        return true;
    }
    if (load_json_is(status, "ack_timeout")) {
        *ret = LOAD_END_TIMEOUT;
        return true;
    }
    return load_json_is(status, other[0]) || load_json_is(status, other[1]);
}

/* The end of a room's message says how many it was owed to, and how many have acknowledged it. */
static bool numbers_fit(const struct load_worker *w, const struct load_conn *c,
                        const struct load_body *b, enum load_end end)
{
    char room[LOAD_NAME_ROOM];
    uint64_t owed, acked;

    load_block_name(w->run, c->number, room);
    return load_json_is(b->room, room) &&
           rh_json_u64(b->recipients, 0, load_mode_block(w->run->opts) - 1, &owed) &&
           rh_json_u64(b->acknowledged, 0, owed, &acked) &&
           (acked == owed) == (end == LOAD_END_SUCCESS);
}

static void on_status(struct load_worker *w, struct load_conn *c, struct rh_json data,
                      struct rh_span text)
{
    struct load_entry *e;
    struct load_body b;
    uint64_t sender, seq;
    enum load_end end;

    load_body_read(data, &b);
    if (!read_id(w->run, b.id, &sender, &seq)) {
        load_unexpected(w, c, "the status of a message that nobody sent", text);
        return;
    }
    if (sender != c->number) {
        misdirected(w, c, text);
        return;
    }
    if (!read_end(b.status, &end))
        return; /* on the way, with ack.progress */
    e = load_book_find(w, c, seq);
    if (!e || !load_class_acked(e->class)) {
        load_unexpected(w, c, "a second end of a message, or of one that has none", text);
        return;
    }
    if (load_class_in_room(e->class) && !numbers_fit(w, c, &b, end))
        corrupted(w, c, "the end of a room's message does not fit together", text);
    load_book_status(w, e, end);
    load_pace_pump(w, c, w->now_ns);
}

static void on_lost(struct load_worker *w, struct load_conn *c, struct rh_json data)
{
    uint64_t from, to, count;
    struct load_body b;

    load_body_read(data, &b);
    if (b.room.kind == RH_JSON_NONE) {
        if (rh_json_u64(b.count, 1, UINT64_MAX, &count))
            load_book_missed(c, count);
        return;
    }
    if (!rh_json_u64(b.from_seq, 1, UINT64_C(1) << 53, &from) ||
        !rh_json_u64(b.to_seq, from, UINT64_C(1) << 53, &to))
        return;
    load_book_missed_in_room(w, c, from, to);
}

static void on_notify(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text)
{
    struct load_body b;

    if (load_json_is(e->event, "message")) {
        on_message(w, c, e->data, false, text);
    } else if (load_json_is(e->event, "room.message")) {
        on_message(w, c, e->data, true, text);
    } else if (load_json_is(e->event, "message.status")) {
        on_status(w, c, e->data, text);
    } else if (load_json_is(e->event, "messages.lost")) {
        on_lost(w, c, e->data);
    } else if (load_json_is(e->event, "room.subscribed")) {
        load_body_read(e->data, &b);
        load_returns_subscribed(w, c, &b);
    } /* other notifies tell of things that are no fault: joined, draining, presence */
}

/* Behind the welcome, and before its room: what is owed comes then, too. */
static void on_greeting(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                        struct rh_span text)
{
    char room[LOAD_NAME_ROOM];
    struct load_body b;

    if (!load_envelope_is(e, "notify", "room.subscribed")) {
        load_envelope_book(w, c, e, text);
        return;
    }
    load_block_name(w->run, c->number, room);
    load_body_read(e->data, &b);
    if (!load_json_is(b.room, room) || b.code.kind != RH_JSON_NONE) {
        load_conn_fail(w, c, "it could not join its room: %.*s", (int)RH_MIN(text.len, 200u),
                       text.at);
        return;
    }
    load_returns_subscribed(w, c, &b);
    load_open_joined(w, c);
}

static void on_data(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    struct rh_span text;

    if (load_conn_whole(w, c, ev, &text))
        load_envelope_take(w, c, text);
}

/* ---- connections come and go ---- */

static void on_welcome(struct load_worker *w, struct load_conn *c, const struct load_envelope *e)
{
    load_returns_welcome(c, e->data);
}

static void on_open(struct load_worker *w, struct load_conn *c)
{
    if (!c->ledger->returning)
        return;
    load_book_back(c);
    load_count(&w->counts.returned);
    load_pace_pump(w, c, rh_clock_mono_ns());
}

static void on_pass(struct load_worker *w)
{
    load_returns_run(w, rh_clock_mono_ns());
}

const struct load_mode load_mode_ack = {
    .name = "ack",
    .unit = "message",
    .sends = true,
    .pairs = true,
    .users = true,
    .books = true,
    .opcode = RH_WS_TEXT,
    .build = build,
    .on_data = on_data,
    .on_answer = on_answer,
    .on_notify = on_notify,
    .on_greeting = on_greeting,
    .on_welcome = on_welcome,
    .on_open = on_open,
    .on_read = on_read,
    .on_pass = on_pass,
};

const struct load_mode load_mode_mixed = {
    .name = "mixed",
    .unit = "delivery",
    .sends = true,
    .pairs = true,
    .users = true,
    .books = true,
    .mixes = true,
    .opcode = RH_WS_TEXT,
    .build = build,
    .on_data = on_data,
    .on_answer = on_answer,
    .on_notify = on_notify,
    .on_greeting = on_greeting,
    .on_welcome = on_welcome,
    .on_open = on_open,
    .on_read = on_read,
    .on_pass = on_pass,
};
