/* tests/sim/sim_talk.c - what a crowd asked, was answered and heard; see sim_talk.h. */
#include "tests/sim/sim_talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_actor.h"
#include "tests/sim/sim_read.h"
#include "tests/sim/sim_rooms.h"

enum { DIRECT, BROADCASTS };

struct sim_rules sim_rules;

const char *const sim_room_names[SIM_ROOMS] = {"a", "b", "c", "x,y@z%", "r\xc3\xb6om 5", "\"q\\"};

static struct {
    struct sim_req *reqs;
    unsigned count;
} talk;

void sim_talk_begin(void)
{
    talk.reqs = sim_keep(SIM_REQS_MAX * sizeof(*talk.reqs));
    talk.count = 0;
}

unsigned sim_talk_ask(const struct sim_req *req)
{
    rh_assert(talk.count < SIM_REQS_MAX);
    talk.reqs[talk.count] = *req;
    talk.reqs[talk.count].said_ns = sim_now();
    return talk.count++;
}

struct sim_req *sim_talk_req(unsigned number)
{
    rh_assert(number < talk.count);
    return &talk.reqs[number];
}

unsigned sim_talk_count(void)
{
    return talk.count;
}

size_t sim_talk_content(unsigned number, char *dst)
{
    size_t len = (size_t)sprintf(dst, "p%u:", number);

    for (size_t i = 0; i < talk.reqs[number].pad; i++)
        dst[len++] = (char)('a' + (number * 7 + i) % 26);
    return len;
}

unsigned sim_talk_number(const struct sim_link *link, struct rh_span content, enum sim_ask kind)
{
    static char expected[1 << 16];
    unsigned number = content.len > 1 ? (unsigned)strtoul(content.at + 1, NULL, 10) : UINT32_MAX;

    SIM_CHECK(number < talk.count && talk.reqs[number].kind == kind,
              "link %u got p%u, which nobody said so", link->number, number);
    rh_assert(talk.reqs[number].pad + 16 < sizeof(expected));
    SIM_CHECK(sim_talk_content(number, expected) == content.len &&
                  memcmp(expected, content.at, content.len) == 0,
              "link %u: the content of p%u was changed", link->number, number);
    return number;
}

/* ---- answers ---- */

static bool is(const char *outcome, const char *name)
{
    return strcmp(outcome, name) == 0;
}

static bool was_subscribed(const struct sim_link *link, const struct sim_req *req)
{
    const struct sim_feed *feed = &link->feeds[req->room];

    return req->was && feed->on && feed->life == req->was && !link->leaving[req->room] &&
           !sim_room_deleted(req->room);
}

/* Is there any reason for this refusal? */
static bool may_fail(const struct sim_link *link, const struct sim_req *req, const char *error)
{
    const struct sim_role *role = &link->actor->role;
    bool admin = role->is_admin;

    if (is(error, "unavailable"))
        return sim_rules.failing;
    switch (req->kind) {
    case SIM_SEND:
        return is(error, "user_offline") || (is(error, "queue_full") && sim_rules.tight);
    case SIM_BROADCAST:
        return is(error, "forbidden") ? !admin && !is(role->type, "admin")
                                      : is(error, "rate_limited") && sim_rules.per_minute;
    case SIM_PUBLISH:
        if (is(error, "rate_limited"))
            return sim_rules.per_minute;
        return !was_subscribed(link, req) &&
               (is(error, "not_found") || (is(error, "forbidden") && !admin));
    case SIM_CREATE:
        return is(error, "conflict");
    case SIM_JOIN:
        return (is(error, "room_full") && (sim_rules.max_members || sim_rules.creates_small)) ||
               (is(error, "conflict") && sim_rules.per_user < SIM_ROOMS) ||
               (is(error, "not_found") && !sim_rules.auto_create);
    case SIM_LEAVE:
    case SIM_HISTORY:
        return !was_subscribed(link, req) &&
               (is(error, "not_found") || (is(error, "forbidden") && !admin));
    case SIM_DELETE:
        return is(error, "not_found") || (is(error, "forbidden") && !admin);
    case SIM_MEMBERS:
        return is(error, "not_found");
    default:
        return false;
    }
}

struct sim_req *sim_talk_answered(struct sim_link *link, unsigned number, const char *outcome)
{
    struct sim_req *req = &talk.reqs[number];
    bool fine = is(outcome, "done") || is(outcome, "sent");

    SIM_CHECK(number < talk.count, "link %u: an answer to q%u, which nobody asked", link->number,
              number);
    SIM_CHECK(req->link == link && req->asked, "link %u: an answer to q%u, which it did not ask",
              link->number, number);
    SIM_CHECK(req->answers++ == 0, "link %u: a second answer to q%u", link->number, number);
    SIM_CHECK(strlen(outcome) < sizeof(req->outcome), "link %u: a strange answer to q%u",
              link->number, number);
    strcpy(req->outcome, outcome);
    req->answered_ns = sim_now();
    SIM_CHECK(fine || may_fail(link, req, outcome), "link %u: q%u is refused without a reason: %s",
              link->number, number, outcome);
    SIM_CHECK(fine || !req->heard, "q%u is refused with %s, but was delivered", number, outcome);
    return req;
}

static bool refused(const struct sim_req *req)
{
    return req->answers && !is(req->outcome, "done") && !is(req->outcome, "sent");
}

/* ---- messages ---- */

/* A message comes: once, not refused, behind what its sender said before in its lane. */
static void heard(struct sim_link *link, unsigned number, int kind)
{
    struct sim_req *req = &talk.reqs[number];
    uint32_t *last = &link->last[req->link->number][kind][req->high];

    SIM_CHECK(!(link->got[number / 8] >> number % 8 & 1), "link %u got p%u twice", link->number,
              number);
    SIM_CHECK(!refused(req), "link %u got p%u, which was refused (%s)", link->number, number,
              req->outcome);
    SIM_CHECK(*last <= number, "link %u got p%u behind p%u", link->number, number, *last - 1);
    link->got[number / 8] |= (uint8_t)(1u << number % 8);
    *last = number + 1;
    req->heard = true;
}

void sim_talk_heard_direct(struct sim_link *link, struct rh_json data)
{
    unsigned number = sim_talk_number(link, sim_get_raw(data, "content"), SIM_SEND);
    const struct sim_req *req = &talk.reqs[number];
    uint64_t seq = sim_get_u64(data, "seq");

    sim_trace("link %u: gets p%u", link->number, number);
    SIM_CHECK(req->to_user == link->actor->role.user, "link %u of u%u got p%u, which is for u%u",
              link->number, link->actor->role.user, number, req->to_user);
    heard(link, number, DIRECT);
    SIM_CHECK(link->seq[req->high] < seq, "link %u: seq %llu of p%u is not above %llu",
              link->number, (unsigned long long)seq, number,
              (unsigned long long)link->seq[req->high]);
    link->seq[req->high] = seq;
}

static bool is_for(const struct sim_req *req, const struct sim_link *link)
{
    return !req->to_type || strcmp(req->to_type, link->actor->role.type) == 0;
}

void sim_talk_heard_broadcast(struct sim_link *link, struct rh_json data)
{
    unsigned number = sim_talk_number(link, sim_get_raw(data, "content"), SIM_BROADCAST);

    sim_trace("link %u: gets broadcast p%u", link->number, number);
    SIM_CHECK(is_for(&talk.reqs[number], link),
              "link %u got the broadcast p%u, which is not for it", link->number, number);
    heard(link, number, BROADCASTS);
}

void sim_talk_lost(struct sim_link *link, struct rh_json data)
{
    bool broadcast = sim_get_true(data, "broadcast");
    uint64_t from = sim_get_u64(data, "from_seq"), to = sim_get_u64(data, "to_seq");
    uint64_t count = sim_get_u64(data, "count");

    sim_trace("link %u: lost %llu %s, %llu to %llu", link->number, (unsigned long long)count,
              broadcast ? "broadcasts" : "messages", (unsigned long long)from,
              (unsigned long long)to);
    SIM_CHECK(count > 0, "link %u: a loss of nothing", link->number);
    SIM_CHECK(broadcast || (from && from <= to && count <= to - from + 1),
              "link %u: a strange loss", link->number);
    link->lost[broadcast] += count;
}

/* ---- at rest ---- */

/* It was there all the time since before this was said. */
static bool was_there(const struct sim_link *link, const struct sim_req *req)
{
    return sim_link_lives(link) && link->joined && link->joined_ns < req->said_ns;
}

static bool has_got(const struct sim_link *link, unsigned number)
{
    return link->got[number / 8] >> number % 8 & 1;
}

static void check_link(const struct sim_link *link, enum sim_ask kind, int stream)
{
    uint64_t missing = 0, possible = 0;
    unsigned first = 0;

    for (unsigned i = 0; i < talk.count; i++) {
        const struct sim_req *req = &talk.reqs[i];
        bool mine = kind == SIM_SEND ? req->to_user == link->actor->role.user : is_for(req, link);

        if (req->kind != kind || !mine || has_got(link, i) ||
            (refused(req) && !is(req->outcome, "queue_full")))
            continue;
        possible++; /* what found no room anywhere is told to both sides */
        if (!req->answers || refused(req) || !was_there(link, req) ||
            (req->partial && sim_rules.failing))
            continue;
        first = missing++ ? first : i;
    }
    SIM_CHECK(missing <= link->lost[stream],
              "link %u misses %llu %s, of which p%u is the first, but was told of %llu losses",
              link->number, (unsigned long long)missing, stream ? "broadcasts" : "messages", first,
              (unsigned long long)link->lost[stream]);
    SIM_CHECK(link->lost[stream] <= possible, "link %u was told of %llu losses of %llu %s",
              link->number, (unsigned long long)link->lost[stream], (unsigned long long)possible,
              stream ? "broadcasts" : "messages");
}

static void check_recipients(unsigned number)
{
    const struct sim_req *req = &talk.reqs[number];
    bool sure[SIM_USERS_MAX] = {0}, may[SIM_USERS_MAX] = {0};
    unsigned least = 0, most = 0;

    if (req->kind != SIM_BROADCAST || !is(req->outcome, "done"))
        return;
    for (unsigned i = 0; i < sim_link_count; i++) {
        const struct sim_link *link = sim_links[i];

        if (!is_for(req, link))
            continue;
        sure[link->actor->role.user] |= was_there(link, req);
        may[link->actor->role.user] = true;
    }
    for (unsigned i = 0; i < SIM_USERS_MAX; i++) {
        least += sure[i];
        most += may[i];
    }
    SIM_CHECK((req->partial || req->recipients >= least) && req->recipients <= most,
              "broadcast p%u has %llu recipients, at least %u, at most %u", number,
              (unsigned long long)req->recipients, least, most);
}

static void check_offline(unsigned number)
{
    const struct sim_req *req = &talk.reqs[number];

    if (req->kind != SIM_SEND || !is(req->outcome, "user_offline"))
        return;
    for (unsigned i = 0; i < sim_link_count; i++)
        SIM_CHECK(sim_links[i]->actor->role.user != req->to_user || !was_there(sim_links[i], req),
                  "p%u: u%u is called offline, but link %u was there", number, req->to_user, i);
}

void sim_talk_check_rest(void)
{
    for (unsigned i = 0; i < talk.count; i++) {
        const struct sim_req *req = &talk.reqs[i];

        SIM_CHECK(!req->asked || !sim_link_lives(req->link) || req->answers == 1,
                  "link %u lives, but q%u has no answer", req->link->number, i);
        check_offline(i);
        check_recipients(i);
    }
    for (unsigned i = 0; i < sim_link_count; i++) {
        if (!sim_links[i]->joined || !sim_link_lives(sim_links[i]))
            continue;
        check_link(sim_links[i], SIM_SEND, DIRECT);
        check_link(sim_links[i], SIM_BROADCAST, BROADCASTS);
    }
}
