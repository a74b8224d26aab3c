/* tests/sim/sim_actor_say.c - what an actor says: requests of all kinds; see sim_actor.h. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim_actor.h"

#define TEXT_ROOM  (96 << 10)
#define CHECKS_MAX 256 /* requests that are left for who checks */

/* ---- writing a request ---- */

static const char *const events[SIM_ASKS] = {
    [SIM_SEND] = "message.send",  [SIM_BROADCAST] = "broadcast",  [SIM_PUBLISH] = "room.publish",
    [SIM_CREATE] = "room.create", [SIM_JOIN] = "room.join",       [SIM_LEAVE] = "room.leave",
    [SIM_DELETE] = "room.delete", [SIM_MEMBERS] = "room.members", [SIM_HISTORY] = "room.history",
    [SIM_PING] = "ping",
};

static size_t put_content(char *dst, unsigned number, const struct sim_req *req)
{
    size_t len = (size_t)sprintf(dst, ",\"content\":\"");

    len += sim_talk_content(number, dst + len);
    return len + (size_t)sprintf(dst + len, "\",\"priority\":\"%s\"",
                                 req->high         ? "high"
                                 : sim_chance(500) ? "low"
                                                   : "normal");
}

static size_t put_room(char *dst, const struct sim_req *req)
{
    int len = rh_json_escape(
        dst + 8, 256,
        (struct rh_span){sim_room_names[req->room], (uint32_t)strlen(sim_room_names[req->room])});

    memcpy(dst, "\"room\": ", 8);
    return 8 + (size_t)len;
}

static size_t put_since(char *dst, const struct sim_req *req)
{
    size_t len = 0;

    if (req->has_since)
        len += (size_t)sprintf(dst, ",\"since\":%llu", (unsigned long long)req->since);
    if (req->strange_epoch)
        len += (size_t)sprintf(dst + len, ",\"epoch\":\"0123456789abcdeg\"");
    else if (req->epoch)
        len += (size_t)sprintf(dst + len, ",\"epoch\":\"%s\"", req->epoch->epoch);
    return len;
}

static size_t put_data(char *dst, unsigned number, const struct sim_req *req, const char *cursor)
{
    size_t len = 0;

    switch (req->kind) {
    case SIM_SEND:
        len = (size_t)sprintf(dst, "\"to\":\"u%u\"", req->to_user);
        return len + put_content(dst + len, number, req);
    case SIM_BROADCAST:
        len = (size_t)sprintf(dst, "\"user_types\":[\"%s\"]", req->to_type ? req->to_type : "");
        if (!req->to_type)
            len = (size_t)sprintf(dst, "\"x\":1");
        return len + put_content(dst + len, number, req);
    case SIM_PUBLISH:
        len = put_room(dst, req);
        len += put_content(dst + len, number, req);
        len += (size_t)sprintf(dst + len, ",\"exclude_self\":%s", req->excludes ? "true" : "false");
        if (req->keyed)
            len += (size_t)sprintf(dst + len, ",\"key\":\"k%u\"", number % 3);
        if (sim_chance(300))
            len += (size_t)sprintf(dst + len, ",\"id\":\"given-%u\"", number);
        return len;
    case SIM_CREATE:
        len = put_room(dst, req);
        if (req->max_members)
            len += (size_t)sprintf(dst + len, ",\"max_members\":%u", req->max_members);
        return len + (size_t)sprintf(dst + len, ",\"conflate\":%s,\"meta\":{\"n\":%u}",
                                     sim_rules.conflates ? "true" : "false", number);
    case SIM_MEMBERS:
    case SIM_HISTORY:
        len = put_room(dst, req);
        len += (size_t)sprintf(dst + len, ",\"limit\":%u", req->limit);
        len += put_since(dst + len, req);
        return len + (size_t)sprintf(dst + len, cursor ? ",\"cursor\":\"%s\"" : "", cursor);
    case SIM_PING:
        return (size_t)sprintf(dst, "\"n\":%u", number);
    default:
        len = put_room(dst, req);
        return len + put_since(dst + len, req);
    }
}

static void say(struct sim_actor *a, struct sim_req *req, const char *cursor)
{
    static char text[TEXT_ROOM];
    struct sim_link *link = a->link;
    const struct sim_feed *feed = &link->feeds[req->room];
    unsigned number;
    size_t len;

    if (sim_talk_count() >= SIM_REQS_MAX - CHECKS_MAX && !a->role.checks)
        return;
    req->link = link;
    req->user = a->role.user;
    req->was =
        feed->on && !link->joining[req->room] && !link->leaving[req->room] ? feed->life : NULL;
    number = sim_talk_ask(req);
    link->joining[req->room] += req->kind == SIM_JOIN;
    link->leaving[req->room] += req->kind == SIM_LEAVE;
    len = (size_t)sprintf(text, "{\"type\":\"request\",\"event\":\"%s\"", events[req->kind]);
    if (req->asked)
        len += (size_t)sprintf(text + len, ",\"request_id\":\"q%u\"", number);
    len += (size_t)sprintf(text + len, ",\"data\":{");
    len += put_data(text + len, number, req, cursor);
    len += (size_t)sprintf(text + len, "}}");
    sim_trace("link %u: asks q%u %s %s", link->number, number, events[req->kind],
              req->kind == SIM_SEND || req->kind == SIM_BROADCAST || req->kind == SIM_PING
                  ? ""
                  : sim_room_names[req->room]);
    sim_wire_message(&link->wire, RH_WS_TEXT, text, len, sim_chance(200));
    sim_link_poke(link);
}

void sim_say(struct sim_actor *a, struct sim_req *req)
{
    req->asked = true;
    say(a, req, NULL);
}

void sim_say_members(struct sim_actor *a, unsigned room, unsigned limit, const char *cursor)
{
    struct sim_req req = {.kind = SIM_MEMBERS, .room = room, .limit = limit, .asked = true};

    say(a, &req, cursor);
}

/* ---- what it says ---- */

/* Most often one in which it is. */
static unsigned draw_room(const struct sim_actor *a)
{
    unsigned room = (unsigned)sim_below(a->role.rooms), k = 0;

    if (sim_chance(250))
        return room;
    while (!a->link->feeds[room].on && k++ < a->role.rooms)
        room = (room + 1) % a->role.rooms;
    return room;
}

static size_t draw_pad(const struct sim_actor *a)
{
    return sim_below(sim_chance(800) ? RH_MIN(a->role.pad_max, (size_t)300) + 1
                                     : a->role.pad_max + 1);
}

static void say_message(struct sim_actor *a, enum sim_ask kind)
{
    static const char *const types[] = {"admin", "agent", "customer"};
    struct sim_req req = {
        .kind = kind,
        .room = draw_room(a),
        .to_user = (unsigned)sim_below(a->role.users),
        .to_type = sim_chance(400) ? types[sim_below(RH_COUNT(types))] : NULL,
        .asked = sim_chance(850),
        .high = sim_chance(250),
        .excludes = sim_chance(200),
        .keyed = sim_chance(400),
        .pad = draw_pad(a),
    };

    if (kind != SIM_PUBLISH)
        req.excludes = req.keyed = false;
    say(a, &req, NULL);
}

/* As a client joins: anew, or from where it has been. */
static void say_join(struct sim_actor *a)
{
    struct sim_req req = {.kind = SIM_JOIN, .room = (unsigned)sim_below(a->role.rooms)};
    const struct sim_memory *memory = &a->memory[req.room];
    bool fresh = !a->link->feeds[req.room].on;

    if (sim_chance(600)) {
        req.has_since = true;
        req.since = memory->life ? memory->since : 0;
        if (fresh && sim_chance(50))
            req.since += 1 + sim_below(1000); /* maybe from beyond */
        else if (req.since && sim_chance(300))
            req.since = sim_below(req.since + 1);
        req.strange_epoch = fresh && sim_chance(50);
        if (memory->life && !req.strange_epoch && sim_chance(500))
            req.epoch = memory->life;
    }
    sim_say(a, &req);
}

static void say_about_room(struct sim_actor *a, enum sim_ask kind)
{
    struct sim_req req = {.kind = kind, .room = draw_room(a)};

    if (kind == SIM_CREATE && sim_rules.creates_small && sim_chance(500))
        req.max_members = 1 + (uint32_t)sim_below(3);
    if (kind == SIM_HISTORY || kind == SIM_MEMBERS)
        req.limit = 1 + (unsigned)sim_below(4);
    if (kind == SIM_HISTORY && a->memory[req.room].life && sim_chance(400)) {
        req.has_since = true;
        req.since = sim_below(a->memory[req.room].since + 1);
    }
    sim_say(a, &req);
}

static void be_restless(struct sim_actor *a)
{
    static const enum sim_how hows[] = {SIM_HOW_GOODBYE, SIM_HOW_CLOSE, SIM_HOW_CUT, SIM_HOW_CUT,
                                        SIM_HOW_SILENT};

    if (sim_chance(300))
        sim_actor_connect(a, sim_chance(800)); /* while the other is open */
    else
        sim_link_end(a->link, hows[sim_below(RH_COUNT(hows))]);
}

void sim_actor_act(struct sim_actor *a)
{
    static const struct {
        unsigned weight;
        enum sim_ask kind;
    } asks[] = {
        {360, SIM_PUBLISH}, {140, SIM_SEND},  {50, SIM_BROADCAST}, {200, SIM_JOIN},
        {70, SIM_LEAVE},    {50, SIM_CREATE}, {20, SIM_DELETE},    {40, SIM_MEMBERS},
        {50, SIM_HISTORY},  {20, SIM_PING},
    };
    uint64_t drawn = sim_below(1000);
    size_t i = 0;

    if (sim_chance(a->role.restless)) {
        be_restless(a);
        return;
    }
    if (!a->link->joined || a->link->said_close)
        return;
    if (sim_chance(a->role.lazy)) {
        a->link->lazy_until_ns = sim_now() + sim_below(a->role.lazy_ns);
        a->link->was_lazy = true;
        sim_link_wake_at(a->link, a->link->lazy_until_ns);
    }
    while (drawn >= asks[i].weight)
        drawn -= asks[i++].weight;
    if (asks[i].kind <= SIM_PUBLISH)
        say_message(a, asks[i].kind);
    else if (asks[i].kind == SIM_JOIN)
        say_join(a);
    else
        say_about_room(a, asks[i].kind);
}
