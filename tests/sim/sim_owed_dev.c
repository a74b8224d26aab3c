/* tests/sim/sim_owed_dev.c - devices that are owed messages; see sim_owed.h.
 *
 *   SHAKING --101--> TALKS --close said or heard--> CLOSING --> GONE
 *
 * A device has one link at a time, and connects anew after each.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/upgrade.h"
#include "tests/sim/sim_owed.h"
#include "tests/sim/sim_read.h"

#define TEXT_ROOM (64 << 10)
#define LATE_MAX  (3 * SIM_S)

static unsigned links;

static void step_link(void *arg);
static void step_dev(void *arg);

void owed_devs_begin(void)
{
    links = 0;
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static bool talks(const struct owed_link *link)
{
    return link && link->state == OWED_TALKS && link->joined && !link->said_close &&
           !link->heard_end;
}

bool owed_dev_there(const struct owed_dev *d)
{
    return talks(d->link);
}

static void plan(struct owed_dev *d, uint64_t at_ns)
{
    d->next_ns = at_ns;
    sim_at(at_ns, step_dev, d);
}

/* ---- ending ---- */

static void gone(struct owed_link *link, bool abort)
{
    struct owed_dev *d = link->dev;

    if (link->state == OWED_GONE)
        return;
    link->state = OWED_GONE;
    if (link->wire.end)
        sim_close(link->wire.end, abort);
    sim_trace("link %u: gone%s", link->number, abort ? " with a reset" : "");
    owed_link_ended(link);
    if (d->link == link && !d->over)
        plan(d, sim_now() + sim_below(sim_chance(500) ? 50 * SIM_MS : 2 * SIM_S));
}

static void put_close(struct owed_link *link)
{
    static const uint8_t code[] = {1000 >> 8, 1000 & 0xff};

    if (!link->said_close)
        sim_wire_frame(&link->wire, RH_WS_OP_CLOSE, true, code, sizeof(code));
    link->said_close = true;
}

static void end_link(struct owed_link *link)
{
    if (!talks(link) || sim_chance(500)) {
        gone(link, sim_chance(500));
        return;
    }
    sim_trace("link %u: says goodbye", link->number);
    put_close(link);
    sim_at(sim_now(), step_link, link);
}

/* ---- what it says ---- */

static void say(struct owed_link *link, const char *text, size_t len)
{
    sim_wire_message(&link->wire, RH_WS_TEXT, text, len, false);
    sim_at(sim_now(), step_link, link);
}

static void say_message(struct owed_dev *d, struct owed_msg *m)
{
    static char text[20000];
    unsigned number = owed_asked(m, d->link);
    size_t len =
        (size_t)sprintf(text,
                        "{\"type\":\"request\",\"event\":\"%s\",\"request_id\":"
                        "\"q%u\",\"data\":{\"%s%u\",\"ack\":%s,",
                        m->in_room ? "room.publish" : "message.send", number,
                        m->in_room ? "room\":\"r" : "to\":\"u", m->to, m->ack ? "true" : "false");

    if (m->given)
        len += (size_t)sprintf(text + len, "\"id\":\"%s\",", m->id);
    if (m->high)
        len += (size_t)sprintf(text + len, "\"priority\":\"high\",");
    if (m->ttl_ms)
        len += (size_t)sprintf(text + len, "\"ttl_ms\":%u,", m->ttl_ms);
    len += (size_t)sprintf(text + len, "\"content\":\"");
    len += owed_content(owed_number(m), text + len);
    len += (size_t)sprintf(text + len, "\"}}");
    sim_trace("link %u: q%u: m%u to %c%u%s%s", d->link->number, number, owed_number(m),
              m->in_room ? 'r' : 'u', m->to, m->ack ? " ack" : "", m->high ? " high" : "");
    say(d->link, text, len);
}

static void say_new(struct owed_dev *d)
{
    const struct owed_manner *how = &d->manner;
    struct owed_msg want = {
        .from = d->user,
        .to = (unsigned)sim_below(owed_rules.users),
        .ack = sim_chance(how->acks),
        .high = sim_chance(150),
        .given = sim_chance(500),
        .ttl_ms = sim_chance(how->ttl) ? 200 + (uint32_t)sim_below(5000) : 0,
        .pad = sim_below(how->pad_max + 1),
    };
    struct owed_msg *m;

    if (how->rooms && sim_chance(how->publishes)) {
        want.in_room = true;
        want.to = how->rooms & 1 ? 0 : 1;
        want.high = false;
        want.ttl_ms = 0;
    }
    m = owed_new(&want);
    if (m)
        say_message(d, m);
}

/* A given id once more: one of its user's, by whichever device it was said. */
static bool say_again(struct owed_dev *d)
{
    unsigned count = owed_count();

    for (unsigned tries = 0; tries < 8 && count; tries++) {
        unsigned near = RH_MIN(count, 40u);
        struct owed_msg *m = owed_at(count - 1 - (unsigned)sim_below(near));

        if (!m->given || m->from != d->user || m->void_ || m->asks > 4)
            continue;
        say_message(d, m);
        return true;
    }
    return false;
}

/* ---- acknowledging ---- */

static void say_acks(struct owed_dev *d, const unsigned *numbers, unsigned count)
{
    char text[2000];
    size_t len = (size_t)sprintf(text, "{\"type\":\"ack\",\"data\":{");

    if (count == 1 && sim_chance(700)) {
        len += (size_t)sprintf(text + len, "\"id\":\"%s\"", owed_at(numbers[0])->id);
    } else {
        len += (size_t)sprintf(text + len, "\"ids\":[");
        for (unsigned i = 0; i < count; i++)
            len += (size_t)sprintf(text + len, "%s\"%s\"", i ? "," : "", owed_at(numbers[i])->id);
        len += (size_t)sprintf(text + len, "]");
    }
    len += (size_t)sprintf(text + len, "}}");
    for (unsigned i = 0; i < count; i++) {
        owed_at(numbers[i])->acked_by |= 1u << d->user;
        sim_trace("link %u: acknowledges m%u", d->link->number, numbers[i]);
    }
    say(d->link, text, len);
}

struct later {
    struct owed_dev *dev;
    unsigned number;
};

static void ack_later(void *arg)
{
    struct later *l = arg;

    if (talks(l->dev->link))
        say_acks(l->dev, &l->number, 1);
}

static void say_wrong(struct owed_dev *d)
{
    static const char *const texts[] = {
        "{\"type\":\"ack\",\"data\":{\"id\":\"nobodys\"}}",
        "{\"type\":\"ack\",\"data\":{\"ids\":[\"x\",\"g0\",\"g1\",\"x\"],\"room\":\"none\"}}",
        "{\"type\":\"ack\",\"data\":{\"ids\":[]}}",
    };
    const char *text = texts[sim_below(2)];

    say(d->link, text, strlen(text));
}

static void answer(struct owed_dev *d, const struct owed_msg *m)
{
    const struct owed_manner *how = &d->manner;
    unsigned number = owed_number(m), drawn = (unsigned)sim_below(1000);

    if (!talks(d->link))
        return;
    if (d->settles || drawn < how->at_once) {
        say_acks(d, &number, 1);
        if (sim_chance(how->twice))
            say_acks(d, &number, 1);
    } else if (drawn < how->at_once + how->late) {
        struct later *l = sim_keep(sizeof(*l));

        *l = (struct later){d, number};
        sim_at(sim_now() + sim_below(LATE_MAX), ack_later, l);
    } else if (drawn < how->at_once + how->late + how->together) {
        d->pending[d->pending_count++] = number;
        if (d->pending_count < RH_COUNT(d->pending) && !sim_chance(300))
            return;
        say_acks(d, d->pending, d->pending_count);
        d->pending_count = 0;
    }
    if (sim_chance(how->wrong))
        say_wrong(d);
}

/* ---- what it hears ---- */

static void hear_answer(struct owed_link *link, struct rh_json whole, bool error)
{
    char request[32], name[32];

    sim_get_text(whole, "request_id", request, sizeof(request));
    SIM_CHECK(request[0] == 'q', "link %u: an answer to nothing: %s", link->number, link->text);
    sim_get_text(whole, "error", name, sizeof(name));
    owed_answered(link, (unsigned)strtoul(request + 1, NULL, 10), error ? name : NULL,
                  sim_get(whole, "data"));
}

static void hear_notify(struct owed_link *link, const char *event, struct rh_json data)
{
    struct owed_msg *m;

    if (is(event, "message") || is(event, "room.message")) {
        m = owed_heard(link, data, is(event, "room.message"));
        if (m)
            answer(link->dev, m);
    } else if (is(event, "message.status")) {
        owed_status(link, data);
    } else if (is(event, "messages.lost")) {
        owed_lost(link, data);
    } else {
        SIM_CHECK(is(event, "server.draining") || is(event, "room.subscribed") ||
                      is(event, "room.joined") || is(event, "room.left"),
                  "link %u: what is this: %s", link->number, link->text);
    }
}

static void hear_text(struct owed_link *link)
{
    struct rh_json whole;
    char type[16], event[64];

    link->text[link->text_len] = '\0';
    SIM_CHECK(rh_json_check(link->text, link->text_len, RH_JSON_DEPTH) >= 0, "link %u: no JSON: %s",
              link->number, link->text);
    whole = sim_whole(link->text, link->text_len);
    sim_get_text(whole, "type", type, sizeof(type));
    sim_get_text(whole, "event", event, sizeof(event));
    if (!link->joined) {
        SIM_CHECK(is(event, "welcome"), "link %u: not its welcome: %s", link->number, link->text);
        sim_trace("link %u: welcome", link->number);
        link->joined = true;
    } else if (is(type, "notify")) {
        hear_notify(link, event, sim_get(whole, "data"));
    } else {
        hear_answer(link, whole, is(type, "error"));
    }
}

static void hear_close(struct owed_link *link, unsigned code)
{
    sim_trace("link %u: close %u", link->number, code);
    link->heard_end = true;
    put_close(link);
    link->state = OWED_CLOSING;
}

static void hear(struct owed_link *link, const struct rh_ws_event *ev)
{
    switch (ev->kind) {
    case RH_WS_DATA:
        SIM_CHECK(link->text_len + ev->len < TEXT_ROOM, "link %u: a long message", link->number);
        memcpy(link->text + link->text_len, ev->data, ev->len);
        link->text_len += ev->len;
        if (!ev->last)
            break;
        hear_text(link);
        link->text_len = 0;
        break;
    case RH_WS_PING:
        if (!link->said_close)
            sim_wire_frame(&link->wire, RH_WS_OP_PONG, true, ev->data, ev->len);
        break;
    case RH_WS_CLOSE:
        hear_close(link, ev->code);
        break;
    case RH_WS_ERROR:
        sim_fail("link %u: the hub breaks the protocol: %s", link->number, ev->why);
    default:
        break;
    }
}

/* ---- reading ---- */

static size_t hear_handshake(struct owed_link *link)
{
    int used = sim_squeeze_answer(&link->wire.squeeze, link->in, link->in_len, SIM_KEY, &link->ws,
                                  TEXT_ROOM);

    if (used > 0)
        link->state = OWED_TALKS;
    if (used >= 0)
        return (size_t)used;
    SIM_CHECK(used == -503, "link %u: refused with %d", link->number, -used);
    sim_trace("link %u: refused with %d", link->number, -used);
    gone(link, false);
    return 0;
}

static void parse(struct owed_link *link)
{
    size_t used = link->state == OWED_SHAKING ? hear_handshake(link) : 0;
    struct rh_ws_event ev = {.kind = RH_WS_DATA};

    while (link->state >= OWED_TALKS && link->state < OWED_GONE && !link->heard_end &&
           ev.kind != RH_WS_MORE) {
        used += rh_ws_feed(&link->ws, link->in + used, link->in_len - used, &ev);
        hear(link, &ev);
    }
    if (link->heard_end)
        used = link->in_len;
    memmove(link->in, link->in + used, link->in_len - used);
    link->in_len -= used;
}

static void read_all(struct owed_link *link)
{
    while (link->state != OWED_GONE && sim_now() >= link->lazy_until_ns) {
        size_t room = sizeof(link->in) - link->in_len;
        int n = sim_read(link->wire.end, link->in + link->in_len,
                         sim_chance(300) ? 1 + sim_below(room) : room);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            sim_trace("link %u: the end (%d)", link->number, n);
            gone(link, false);
            return;
        }
        link->in_len += (size_t)n;
        parse(link);
    }
}

static void step_link(void *arg)
{
    struct owed_link *link = arg;

    if (link->state == OWED_GONE)
        return;
    read_all(link);
    if (link->state != OWED_GONE)
        sim_wire_write(&link->wire);
}

/* ---- a device's time ---- */

static void connect_now(struct owed_dev *d)
{
    static const char *const rooms[] = {"", "&rooms=r0", "&rooms=r1", "&rooms=r0,r1"};
    struct owed_link *link = sim_keep(sizeof(*link));
    char path[64], head[600];
    size_t len;

    link->number = links++;
    link->run = owed_run();
    link->dev = d;
    link->text = sim_keep(TEXT_ROOM);
    link->began_ns = sim_now();
    d->link = link;
    snprintf(path, sizeof(path), "/ws?user_id=u%u&device=d%u%s", d->user, d->id,
             rooms[d->manner.rooms]);
    owed_member(d->user, d->manner.rooms);
    if (!sim_wire_connect(&link->wire, 1000 + d->id, step_link, link)) {
        gone(link, true);
        return;
    }
    sim_trace("link %u: u%u connects as d%u", link->number, d->user, d->id);
    len = rh_upgrade_request(head, sizeof(head), "localhost", path, SIM_KEY, NULL);
    rh_assert(len);
    sim_wire_put(&link->wire, head, len);
    step_link(link);
}

static void act(struct owed_dev *d)
{
    const struct owed_manner *how = &d->manner;

    if (sim_chance(how->restless)) {
        end_link(d->link);
    } else if (sim_chance(how->lazy)) {
        d->link->lazy_until_ns = sim_now() + sim_below(3 * SIM_S);
        sim_at(d->link->lazy_until_ns, step_link, d->link);
    } else if (!sim_chance(how->again) || !say_again(d)) {
        say_new(d);
    }
}

static void step_dev(void *arg)
{
    struct owed_dev *d = arg;

    if (d->over || sim_now() < d->next_ns)
        return;
    if (!d->link || d->link->state == OWED_GONE) {
        if (links >= OWED_LINKS && !d->settles)
            return;
        connect_now(d);
    } else if (talks(d->link) && !d->settles && d->acted < d->manner.acts) {
        d->acted++;
        act(d);
    }
    if (d->link->state != OWED_GONE && !d->settles && d->acted < d->manner.acts)
        plan(d, sim_now() + (100 + sim_below(d->manner.gap_us + 1)) * SIM_US);
}

struct owed_dev *owed_dev_start(unsigned id, unsigned user, const struct owed_manner *manner,
                                uint64_t at_ns)
{
    struct owed_dev *d = sim_keep(sizeof(*d));

    d->id = id;
    d->user = user;
    d->manner = *manner;
    plan(d, at_ns);
    return d;
}

void owed_dev_settle(struct owed_dev *d)
{
    d->settles = true;
    if (!d->link || d->link->state == OWED_GONE)
        plan(d, sim_now());
}

void owed_dev_end(struct owed_dev *d)
{
    d->over = true;
    if (d->link && d->link->state != OWED_GONE)
        end_link(d->link);
}
