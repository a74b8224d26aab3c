/* tests/sim/sim_rooms.c - a plain model of rooms, told what clients observed; see sim_rooms.h. */
#include "tests/sim/sim_rooms.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/sim_actor.h"
#include "tests/sim/sim_read.h"

static struct {
    struct sim_life *lives[SIM_ROOMS];
} rooms;

struct sim_hole *sim_holes;

void sim_rooms_begin(void)
{
    memset(&rooms, 0, sizeof(rooms));
    sim_holes = NULL;
}

int sim_room_index(const char *name)
{
    for (int i = 0; i < SIM_ROOMS; i++)
        if (strcmp(sim_room_names[i], name) == 0)
            return i;
    return -1;
}

/* ---- lives ---- */

struct sim_life *sim_life_of(unsigned room, const char *epoch)
{
    struct sim_life *life = rooms.lives[room];
    size_t len = strlen(epoch);

    SIM_CHECK(len >= 1 && len <= 32, "\"%s\" is no epoch", epoch);
    while (life && strcmp(life->epoch, epoch) != 0)
        life = life->next;
    if (life)
        return life;
    life = sim_keep(sizeof(*life));
    memcpy(life->epoch, epoch, len);
    life->room = room;
    life->next = rooms.lives[room];
    rooms.lives[room] = life;
    return life;
}

static void know(struct sim_life *life, uint64_t seq)
{
    uint32_t *reqs;

    life->last = RH_MAX(life->last, seq);
    if (seq < life->places)
        return;
    reqs = sim_keep(2 * (seq + 64) * sizeof(*reqs));
    if (life->places)
        memcpy(reqs, life->reqs, life->places * sizeof(*reqs));
    life->reqs = reqs;
    life->places = 2 * (seq + 64);
}

/* A message was seen under this number. */
static void saw(struct sim_life *life, uint64_t seq, unsigned number, const struct sim_link *link)
{
    struct sim_req *req = sim_talk_req(number);

    SIM_CHECK(seq >= 1, "link %u: p%u has no seq", link->number, number);
    know(life, seq);
    SIM_CHECK(req->room == life->room, "link %u got p%u in %s, for which it is not", link->number,
              number, sim_room_names[life->room]);
    SIM_CHECK(!req->answers || strcmp(req->outcome, "done") == 0,
              "link %u got p%u, which was refused (%s)", link->number, number, req->outcome);
    SIM_CHECK(!req->life || req->life == life, "p%u is in two lives of %s", number,
              sim_room_names[life->room]);
    SIM_CHECK(!req->seq || req->seq == seq, "p%u is number %llu, but was %llu for others", number,
              (unsigned long long)seq, (unsigned long long)req->seq);
    SIM_CHECK(!life->reqs[seq] || life->reqs[seq] == number + 1,
              "number %llu of %s is p%u, but was p%u for others", (unsigned long long)seq,
              sim_room_names[life->room], number, life->reqs[seq] - 1);
    life->reqs[seq] = number + 1;
    req->life = life;
    req->seq = seq;
    req->heard = true;
}

/* ---- feeds ---- */

static void remember(const struct sim_link *link, unsigned room)
{
    const struct sim_feed *feed = &link->feeds[room];
    struct sim_memory *memory = &link->actor->memory[room];

    if (link->actor->link != link || feed->open)
        return;
    memory->life = feed->life;
    memory->since = feed->next - 1;
}

void sim_feed_passed(const struct sim_link *link, struct sim_feed *feed, uint64_t end,
                     uint64_t told)
{
    struct sim_hole *hole;

    if (feed->next == end)
        return;
    hole = sim_keep(sizeof(*hole));
    *hole = (struct sim_hole){feed->life, link, feed->next, end, told, sim_holes};
    sim_holes = hole;
    feed->next = end;
}

bool sim_steady(void)
{
    return !sim_rules.failing && !sim_rules.changing;
}

/* How many of a room's messages are not kept any more. */
static uint64_t gone_of(uint64_t seq)
{
    return seq - RH_MIN(seq, (uint64_t)sim_rules.history);
}

/* What the answer says to `since`, and which number comes first. */
static void begin_since(struct sim_link *link, struct sim_feed *feed, struct rh_json data,
                        uint64_t since, bool other_epoch)
{
    uint64_t seq = sim_get_u64(data, "seq"), missed = sim_get_u64(data, "missed");
    bool recovered = sim_get_true(data, "recovered");
    uint64_t gone = gone_of(seq);

    SIM_CHECK(sim_has(data, "recovered") && sim_has(data, "missed"),
              "link %u: the answer to since says nothing of it", link->number);
    feed->open = feed->resumed = false;
    if (other_epoch) {
        SIM_CHECK(!recovered && missed == 0, "link %u recovers another epoch", link->number);
        feed->next = gone + 1;
        feed->open = !sim_steady();
        feed->first_max = seq + 1;
        if (feed->open)
            feed->next = 1;
    } else if (since > seq) {
        SIM_CHECK(!recovered && missed == 0, "link %u recovers from beyond", link->number);
        feed->next = seq + 1;
    } else {
        SIM_CHECK(recovered ? missed == 0 : missed > 0 && since + missed <= seq,
                  "link %u: recovered %d, missed %llu", link->number, recovered,
                  (unsigned long long)missed);
        SIM_CHECK(!sim_steady() ||
                      (recovered == (since >= gone) && since + missed == RH_MAX(since, gone)),
                  "link %u: since %llu of %llu with a history of %u: recovered %d, missed %llu",
                  link->number, (unsigned long long)since, (unsigned long long)seq,
                  sim_rules.history, recovered, (unsigned long long)missed);
        feed->next = since + missed + 1;
    }
}

/* Restored by resume, without since: the hub knows how far it came, and so do we if we heard all
 * that it sent. What was on its way when it closed may come again. */
static void begin_resumed(struct sim_link *link, struct sim_feed *feed, struct rh_json data,
                          struct sim_wish *wish)
{
    const struct sim_feed *was = &wish->before;
    uint64_t seq = sim_get_u64(data, "seq");

    if (!wish->sure && !sim_has(data, "recovered")) /* its join had not been answered */
        return;
    SIM_CHECK(sim_has(data, "recovered") && sim_has(data, "missed"),
              "link %u: a resumed room says nothing of what was missed", link->number);
    feed->open = feed->resumed = true;
    feed->next = 1;
    feed->first_max = seq + 1;
    if (sim_get_true(data, "recovered"))
        wish->life = feed->life;
    if (!was->on || was->open || was->life != feed->life)
        return;
    if (wish->exact && !link->crossed && sim_get_true(data, "recovered"))
        feed->first_max = RH_MIN(seq + 1, was->next);
}

static void begin_feed(struct sim_link *link, unsigned room, struct rh_json data)
{
    struct sim_feed *feed = &link->feeds[room];
    char epoch[64];

    memset(feed, 0, sizeof(*feed));
    feed->on = true;
    feed->life = sim_life_of(room, sim_get_text(data, "epoch", epoch, sizeof(epoch)));
    feed->on_ns = sim_now();
    feed->next = sim_get_u64(data, "seq") + 1;
    feed->members = sim_get_u64(data, "members");
    know(feed->life, sim_get_u64(data, "seq"));
    SIM_CHECK(feed->members >= 1, "link %u joined a room without members", link->number);
    SIM_CHECK(!sim_rules.max_members || sim_rules.changing ||
                  feed->members <= sim_rules.max_members || sim_rules.creates_small,
              "link %u joined a room of %llu members", link->number,
              (unsigned long long)feed->members);
}

void sim_feed_joined(struct sim_link *link, unsigned room, struct rh_json data,
                     const struct sim_req *req, struct sim_wish *wish)
{
    struct sim_feed *feed = &link->feeds[room];
    char epoch[64];
    struct sim_life *life = sim_life_of(room, sim_get_text(data, "epoch", epoch, sizeof(epoch)));
    bool again = feed->on && feed->life == life;
    bool has_since = req ? req->has_since : wish->has_since;
    uint64_t since = req ? req->since : wish->since;
    const struct sim_life *named = req ? req->epoch : wish->epoch;
    bool strange = req ? req->strange_epoch : wish->strange_epoch;

    sim_trace("link %u: is in %s, seq %llu, %llu members%s", link->number, sim_room_names[room],
              (unsigned long long)sim_get_u64(data, "seq"),
              (unsigned long long)sim_get_u64(data, "members"),
              sim_get_true(data, "recovered") ? ", recovered" : "");
    if (!again)
        begin_feed(link, room, data);
    know(life, sim_get_u64(data, "seq"));
    if (has_since)
        begin_since(link, feed, data, since, strange || (named && named != life));
    else if (wish && link->resumed && !wish->named)
        begin_resumed(link, feed, data, wish);
    else if (wish && link->resumed && sim_has(data, "recovered"))
        begin_resumed(link, feed, data, wish);
    else
        SIM_CHECK(!sim_has(data, "recovered") && !sim_has(data, "missed"),
                  "link %u: missed something since nothing", link->number);
    remember(link, room);
}

void sim_feed_left(struct sim_link *link, unsigned room)
{
    link->feeds[room].on = false;
}

/* The feed that a notify is about. */
static struct sim_feed *feed_of(struct sim_link *link, struct rh_json data, const char *what)
{
    char name[256];
    int room = sim_room_index(sim_get_text(data, "room", name, sizeof(name)));

    SIM_CHECK(room >= 0, "link %u: %s of the room \"%s\"", link->number, what, name);
    SIM_CHECK(link->feeds[room].on, "link %u: %s of %s, to which it does not subscribe",
              link->number, what, name);
    return &link->feeds[room];
}

static void check_fields(const struct sim_link *link, struct rh_json data, unsigned number)
{
    const struct sim_req *req = sim_talk_req(number);
    char from[16], text[64];

    snprintf(from, sizeof(from), "u%u", req->user);
    SIM_CHECK(strcmp(sim_get_text(data, "from", text, sizeof(text)), from) == 0,
              "link %u: p%u is from %s", link->number, number, text);
    SIM_CHECK(sim_has(data, "key") == req->keyed && !sim_has(data, "epoch") &&
                  sim_get(data, "ack").kind == RH_JSON_FALSE && sim_get_u64(data, "attempt") == 1,
              "link %u: strange fields in p%u", link->number, number);
}

/* The first number that is heard of decides where the feed began. */
static void note_first(struct sim_link *link, struct sim_feed *feed, uint64_t seq)
{
    struct sim_wish *wish = &link->wishes[feed->life->room];

    if (!feed->open)
        return;
    feed->next = RH_MAX(feed->next, RH_MIN(seq, feed->first_max));
    feed->open = false;
    if (feed->resumed && wish->life == feed->life && !wish->first)
        wish->first = seq;
}

void sim_feed_message(struct sim_link *link, struct rh_json data)
{
    struct sim_feed *feed = feed_of(link, data, "a message");
    unsigned number = sim_talk_number(link, sim_get_raw(data, "content"), SIM_PUBLISH);
    const struct sim_req *req = sim_talk_req(number);
    uint64_t seq = sim_get_u64(data, "seq");

    sim_trace("link %u: gets p%u, %llu of %s", link->number, number, (unsigned long long)seq,
              sim_room_names[feed->life->room]);
    check_fields(link, data, number);
    SIM_CHECK(!req->excludes || req->user != link->actor->role.user,
              "link %u got p%u, which excludes its user", link->number, number);
    SIM_CHECK(seq >= feed->next, "link %u got number %llu of %s, where %llu comes next",
              link->number, (unsigned long long)seq, sim_room_names[feed->life->room],
              (unsigned long long)feed->next);
    saw(feed->life, seq, number, link);
    note_first(link, feed, seq);
    sim_feed_passed(link, feed, seq, 0);
    feed->next = seq + 1;
    remember(link, feed->life->room);
}

void sim_feed_lost(struct sim_link *link, struct rh_json data)
{
    struct sim_feed *feed = feed_of(link, data, "a loss");
    uint64_t from = sim_get_u64(data, "from_seq"), to = sim_get_u64(data, "to_seq");
    uint64_t count = sim_get_u64(data, "count");
    char epoch[64];

    sim_trace("link %u: lost %llu of %s, %llu to %llu", link->number, (unsigned long long)count,
              sim_room_names[feed->life->room], (unsigned long long)from, (unsigned long long)to);
    SIM_CHECK(strcmp(sim_get_text(data, "epoch", epoch, sizeof(epoch)), feed->life->epoch) == 0,
              "link %u: a loss of the epoch %s", link->number, epoch);
    SIM_CHECK(count && from <= to && count <= to - from + 1 && from >= feed->next,
              "link %u: lost %llu, %llu to %llu of %s, where %llu comes next", link->number,
              (unsigned long long)count, (unsigned long long)from, (unsigned long long)to,
              sim_room_names[feed->life->room], (unsigned long long)feed->next);
    know(feed->life, to);
    note_first(link, feed, from);
    sim_feed_passed(link, feed, from, 0);
    sim_feed_passed(link, feed, to + 1, count);
    remember(link, feed->life->room);
}

void sim_feed_deleted(struct sim_link *link, struct rh_json data)
{
    struct sim_feed *feed = feed_of(link, data, "the end");
    struct sim_memory *memory = &link->actor->memory[feed->life->room];

    sim_trace("link %u: %s is deleted", link->number, sim_room_names[feed->life->room]);
    feed->life->over = true;
    feed->on = false;
    /* All that was published in it had come before. */
    if (!feed->open)
        sim_feed_passed(link, feed, feed->life->last + 1, 0);
    if (memory->life == feed->life)
        memory->life = NULL;
}

void sim_feed_notice(struct sim_link *link, struct rh_json data, bool joined)
{
    struct sim_feed *feed = feed_of(link, data, joined ? "a joining" : "a leaving");
    char name[64];
    unsigned user;

    sim_get_text(data, "user", name, sizeof(name));
    SIM_CHECK(sscanf(name, "u%u", &user) == 1 && user < SIM_USERS_MAX, "link %u: who is %s?",
              link->number, name);
    sim_trace("link %u: %s has %s %s, %llu members", link->number, name, joined ? "joined" : "left",
              sim_room_names[feed->life->room], (unsigned long long)sim_get_u64(data, "members"));
    SIM_CHECK(user != link->actor->role.user, "link %u is told of its own user", link->number);
    SIM_CHECK(sim_rules.changing || sim_rules.notify_max > 1, "link %u is told of %s", link->number,
              name);
    SIM_CHECK(!sim_steady() || feed->told[user] != (joined ? 1 : 2),
              "link %u is told twice that %s has %s %s", link->number, name,
              joined ? "joined" : "left", sim_room_names[feed->life->room]);
    feed->told[user] = joined ? 1 : 2;
    if (joined)
        feed->joined++;
    else
        feed->left++;
}

/* ---- answers ---- */

void sim_room_published(struct sim_link *link, unsigned number, struct rh_json data)
{
    struct sim_req *req = sim_talk_req(number);
    uint64_t seq = sim_get_u64(data, "seq");

    SIM_CHECK(seq >= 1 && sim_has(data, "recipients"), "link %u: p%u was published as nothing",
              link->number, number);
    SIM_CHECK(!req->seq || req->seq == seq, "p%u is number %llu, but was %llu for others", number,
              (unsigned long long)seq, (unsigned long long)req->seq);
    req->seq = seq;
    req->recipients = sim_get_u64(data, "recipients");
    if (req->life)
        know(req->life, seq);
}

void sim_room_history(struct sim_link *link, const struct sim_req *req, struct rh_json data)
{
    char epoch[64];
    struct sim_life *life =
        sim_life_of(req->room, sim_get_text(data, "epoch", epoch, sizeof(epoch)));
    uint64_t last = sim_get_u64(data, "seq"), seq = 0, items = 0;
    struct rh_json_iter it;
    struct rh_json item, list = sim_get(data, "items");

    SIM_CHECK(list.kind == RH_JSON_ARRAY, "link %u: a history without items", link->number);
    know(life, last);
    rh_json_elements(&it, list);
    while (rh_json_next_element(&it, &item)) {
        unsigned number = sim_talk_number(link, sim_get_raw(item, "content"), SIM_PUBLISH);
        uint64_t next = sim_get_u64(item, "seq");

        SIM_CHECK(!seq || next == seq + 1, "link %u: %llu follows %llu in the history",
                  link->number, (unsigned long long)next, (unsigned long long)seq);
        SIM_CHECK(!req->has_since || next > req->since, "link %u: an old item", link->number);
        seq = next;
        items++;
        saw(life, seq, number, link);
    }
    SIM_CHECK(items <= req->limit && seq <= last, "link %u: too much history", link->number);
    SIM_CHECK(items == 0 || req->has_since || seq == last, "link %u: not the newest history",
              link->number);
    SIM_CHECK(!sim_steady() || req->has_since ||
                  items == RH_MIN(RH_MIN(last, (uint64_t)req->limit), (uint64_t)sim_rules.history),
              "link %u: %llu items of history", link->number, (unsigned long long)items);
}
