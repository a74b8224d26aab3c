/* tests/sim/sim_actor_hear.c - what an actor hears, and whether that may be; see sim_actor.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_actor.h"
#include "tests/sim/sim_hub.h"
#include "tests/sim/sim_read.h"

#define SESSION_LEN 32
#define MARGIN      (2 * SIM_S) /* by which the hub and a client may differ about when an end was */

void (*sim_on_members)(struct sim_link *link, const struct sim_req *req, struct rh_json data,
                       const char *error);

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* ---- welcome ---- */

/* Closed with a code that ends the session, or by a goodbye that was answered. */
static bool session_over(const struct sim_link *before)
{
    unsigned code = before->last_code;

    return (before->how == SIM_HOW_GOODBYE && code == 1000) || code == 4400 || code == 4403 ||
           code == 4429;
}

static void check_resumed(const struct sim_link *link)
{
    const struct sim_link *before = link->before;
    uint64_t window = sim_rules.window_ms * SIM_MS;
    uint64_t age = before && before->ended_ns ? sim_now() - before->ended_ns : 0;
    bool vague = sim_rules.failing || sim_rules.changing || sim_rules.stalling;
    /* The same device came in between, or later but faster: that may have ended the session. */
    bool replaced =
        link->actor->role.device && (link->previous != before || link->actor->link != link);

    SIM_CHECK(before || !link->resumed, "link %u resumes nothing", link->number);
    if (!before || vague)
        return;
    if (link->resumed) {
        SIM_CHECK(!session_over(before), "link %u resumes a session that is over (of link %u)",
                  link->number, before->number);
        SIM_CHECK(!before->heard_close || !before->ended_ns || link->again || link->crossed ||
                      age <= window + MARGIN,
                  "link %u resumes a session that has expired", link->number);
        return;
    }
    SIM_CHECK(before->how == SIM_HOW_GOODBYE || session_over(before) || before->last_code == 4409 ||
                  before->was_lazy || link->actor->role.shares_device || sim_rules.max_devices ||
                  sim_rules.tight || replaced || age + MARGIN >= window,
              "link %u does not resume the session of link %u", link->number, before->number);
}

static void hear_welcome(struct sim_link *link, struct rh_json data)
{
    struct sim_actor *a = link->actor;
    char text[64], name[16];

    snprintf(name, sizeof(name), "u%u", a->role.user);
    SIM_CHECK(is(sim_get_text(data, "user", text, sizeof(text)), name), "link %u: welcome as %s",
              link->number, text);
    sim_get_text(data, "session", text, sizeof(text));
    SIM_CHECK(strlen(text) == SESSION_LEN && strspn(text, "0123456789abcdef") == SESSION_LEN,
              "link %u: \"%s\" is no session", link->number, text);
    memcpy(link->session, text, sizeof(link->session) - 1);
    link->resumed = sim_get_true(data, "resumed");
    link->joined = true;
    link->joined_ns = sim_now();
    sim_trace("link %u: welcome%s, session %s", link->number, link->resumed ? " back" : "", text);
    SIM_CHECK(!link->before || is(link->session, link->before->session) == link->resumed,
              "link %u: the session is called otherwise now", link->number);
    check_resumed(link);
    for (unsigned room = 0; room < SIM_ROOMS; room++) {
        struct sim_wish *wish = &link->wishes[room];

        wish->possible = wish->named || link->resumed;
        wish->expected = wish->named || (wish->expected && link->resumed);
    }
    if (a->link == link)
        a->session_of = link;
}

/* ---- answers ---- */

static void forget_asked(struct sim_link *link, const struct sim_req *req)
{
    link->joining[req->room] -= req->kind == SIM_JOIN;
    link->leaving[req->room] -= req->kind == SIM_LEAVE;
}

static void hear_done(struct sim_link *link, struct sim_req *req, unsigned number,
                      struct rh_json data)
{
    switch (req->kind) {
    case SIM_JOIN:
        sim_feed_joined(link, req->room, data, req, NULL);
        break;
    case SIM_LEAVE:
        sim_feed_left(link, req->room);
        break;
    case SIM_PUBLISH:
        sim_room_published(link, number, data);
        break;
    case SIM_HISTORY:
        sim_room_history(link, req, data);
        break;
    case SIM_BROADCAST:
        req->recipients = sim_get_u64(data, "recipients");
        req->partial = sim_get_true(data, "partial");
        break;
    case SIM_MEMBERS:
        if (sim_on_members)
            sim_on_members(link, req, data, NULL);
        break;
    default:
        break;
    }
}

static void hear_answer(struct sim_link *link, struct rh_json whole, bool error)
{
    struct rh_json data = sim_get(whole, "data");
    char text[64], outcome[64] = "done";
    struct sim_req *req;
    unsigned number;

    sim_get_text(whole, "request_id", text, sizeof(text));
    if (text[0] != 'q') {
        SIM_CHECK(error, "link %u: an answer to nothing: %s", link->number, link->text);
        return; /* of a request without a name, only failure is told */
    }
    number = (unsigned)strtoul(text + 1, NULL, 10);
    if (error)
        sim_get_text(whole, "error", outcome, sizeof(outcome));
    else if (sim_has(data, "status"))
        sim_get_text(data, "status", outcome, sizeof(outcome));
    sim_trace("link %u: q%u is %s", link->number, number, outcome);
    req = sim_talk_answered(link, number, outcome);
    forget_asked(link, req);
    if (!error)
        hear_done(link, req, number, data);
    else if (req->kind == SIM_MEMBERS && sim_on_members)
        sim_on_members(link, req, data, outcome);
}

/* ---- notifies ---- */

static void hear_subscribed(struct sim_link *link, struct rh_json data)
{
    char name[256], error[64];
    int room = sim_room_index(sim_get_text(data, "room", name, sizeof(name)));
    struct sim_wish *wish;

    SIM_CHECK(room >= 0, "link %u: room.subscribed for \"%s\"", link->number, name);
    wish = &link->wishes[room];
    sim_get_text(data, "error", error, sizeof(error));
    if (is(error, "not_found") && link->resumed && !wish->gone) {
        sim_trace("link %u: room.subscribed: %s is gone", link->number, name);
        wish->gone = true; /* if it was named, too, that is answered for itself */
        return;
    }
    SIM_CHECK(wish->possible, "link %u: room.subscribed for %s, which it did not name",
              link->number, name);
    wish->possible = wish->expected = false;
    if (!error[0]) {
        sim_feed_joined(link, (unsigned)room, data, NULL, wish);
        return;
    }
    sim_trace("link %u: room.subscribed: %s is %s", link->number, name, error);
    SIM_CHECK(is(error, "not_found") || (is(error, "unavailable") && sim_rules.failing) ||
                  (is(error, "room_full") && (sim_rules.max_members || sim_rules.creates_small)) ||
                  (is(error, "conflict") && sim_rules.per_user < SIM_ROOMS),
              "link %u: room.subscribed for %s: %s", link->number, name, error);
}

static void hear_draining(struct sim_link *link, struct rh_json data)
{
    uint64_t in_ms = sim_get_u64(data, "reconnect_in_ms");

    sim_trace("link %u: draining, %llu ms", link->number, (unsigned long long)in_ms);
    SIM_CHECK(sim_hub_draining() && !link->draining, "link %u: server.draining, why?",
              link->number);
    SIM_CHECK(sim_has(data, "reconnect_in_ms") &&
                  (sim_rules.changing || in_ms <= sim_rules.spread_ms),
              "link %u: come back in %llu ms?", link->number, (unsigned long long)in_ms);
    link->draining = true;
}

static void hear_lost(struct sim_link *link, struct rh_json data)
{
    SIM_CHECK(sim_rules.tight || sim_rules.failing, "link %u is told of a loss without a reason",
              link->number);
    if (sim_has(data, "room"))
        sim_feed_lost(link, data);
    else
        sim_talk_lost(link, data);
}

static void hear_notify(struct sim_link *link, const char *event, struct rh_json data)
{
    if (is(event, "message"))
        sim_talk_heard_direct(link, data);
    else if (is(event, "broadcast"))
        sim_talk_heard_broadcast(link, data);
    else if (is(event, "room.message"))
        sim_feed_message(link, data);
    else if (is(event, "room.joined") || is(event, "room.left"))
        sim_feed_notice(link, data, is(event, "room.joined"));
    else if (is(event, "room.subscribed"))
        hear_subscribed(link, data);
    else if (is(event, "room.deleted"))
        sim_feed_deleted(link, data);
    else if (is(event, "messages.lost"))
        hear_lost(link, data);
    else if (is(event, "server.draining"))
        hear_draining(link, data);
    else
        sim_fail("link %u: what is this: %s", link->number, link->text);
}

void sim_link_hear(struct sim_link *link)
{
    struct rh_json whole;
    char type[16], event[64];

    SIM_CHECK(strlen(link->text) == link->text_len &&
                  rh_json_check(link->text, link->text_len, RH_JSON_DEPTH) >= 0,
              "link %u: no JSON: %s", link->number, link->text);
    whole = sim_whole(link->text, link->text_len);
    sim_get_text(whole, "type", type, sizeof(type));
    sim_get_text(whole, "event", event, sizeof(event));
    SIM_CHECK(sim_get_u64(whole, "timestamp"), "link %u: no timestamp: %s", link->number,
              link->text);
    if (!link->joined) {
        SIM_CHECK(is(type, "notify") && is(event, "welcome"), "link %u: not its welcome: %s",
                  link->number, link->text);
        hear_welcome(link, sim_get(whole, "data"));
    } else if (is(type, "notify")) {
        hear_notify(link, event, sim_get(whole, "data"));
    } else {
        SIM_CHECK(is(type, "response") || is(type, "error"), "link %u: what is this: %s",
                  link->number, link->text);
        hear_answer(link, whole, is(type, "error"));
    }
}
