/* tools/load/mode_echo.c - every message comes back as it was, in order; and the mode that sends
 * nothing at all. */
#include <string.h>

#include "tools/load/load.h"

static size_t build(struct load_worker *w, struct load_conn *c, uint64_t seq)
{
    load_payload_fill(w->scratch, w->run->opts->size, c->number, seq);
    return w->run->opts->size;
}

static void arrived(struct load_worker *w, struct load_conn *c, uint64_t seq)
{
    uint64_t intended;

    switch (load_flow_arrive(&c->flow, seq, &intended)) {
    case LOAD_UNKNOWN:
        load_count(&w->counts.unexpected);
        load_worker_note(w, "connection %u: message %llu came, but is not outstanding", c->number,
                         (unsigned long long)seq);
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
    load_pace_pump(w, c, w->now_ns);
}

/* A message that came compressed, as if it had come at once and plain. */
static bool inflated(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev,
                     struct rh_ws_event *ret_whole)
{
    struct rh_span text;

    if (!load_conn_whole(w, c, ev, &text))
        return false;
    *ret_whole = *ev;
    ret_whole->first = true;
    ret_whole->data = (uint8_t *)text.at;
    ret_whole->len = text.len;
    return true;
}

static void on_data(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    const struct load_opts *o = w->run->opts;
    struct rh_ws_event whole;

    if (ev->compressed) {
        if (!inflated(w, c, ev, &whole))
            return;
        ev = &whole;
    }
    if (ev->first)
        load_seen_begin(&c->seen);
    if (ev->opcode != (o->text ? RH_WS_TEXT : RH_WS_BINARY))
        c->seen.bad = true;
    load_seen_feed(&c->seen, &c->flow, o->size, ev->data, ev->len);
    if (!ev->last)
        return;
    if (!load_seen_end(&c->seen, &c->flow, o->size)) {
        c->seen.seq = c->flow.expected;
        load_count(&w->counts.corrupted);
        load_worker_note(w, "connection %u: message %llu came back changed", c->number,
                         (unsigned long long)c->seen.seq);
    }
    arrived(w, c, c->seen.seq);
}

const struct load_mode load_mode_echo = {
    .name = "echo",
    .unit = "message",
    .sends = true,
    .opcode = RH_WS_BINARY,
    .build = build,
    .on_data = on_data,
};

/* ---- connect ---- */

static void ignore(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev)
{
    (void)w;
    (void)c;
    (void)ev; /* an idle connection may be told things; that is no fault */
}

const struct load_mode load_mode_connect = {
    .name = "connect",
    .unit = "connection",
    .on_data = ignore,
};

/* ---- all modes ---- */

const struct load_mode *load_mode_find(const char *name)
{
    static const struct load_mode *const modes[] = {&load_mode_connect, &load_mode_echo,
                                                    &load_mode_send,    &load_mode_fanout,
                                                    &load_mode_ack,     &load_mode_mixed};

    for (size_t i = 0; i < RH_COUNT(modes); i++)
        if (strcmp(modes[i]->name, name) == 0)
            return modes[i];
    return NULL;
}

size_t load_mode_room(const struct load_opts *opts)
{
    return opts->size + 512; /* send, fanout, ack, mixed: the envelope around it */
}

uint32_t load_mode_block(const struct load_opts *opts)
{
    return opts->mode->mixes ? opts->room_size : 2;
}

bool load_mode_joins(const struct load_opts *opts)
{
    if (opts->mode->mixes)
        return load_mix_has_rooms(&opts->mix);
    return opts->mode->fans_out && !opts->broadcast;
}
