/* tests/sim/sim_rooms_rest.c - what must hold of rooms when all is quiet; see sim_rooms.h. */
#include <string.h>

#include "tests/sim/sim_actor.h"
#include "tests/sim/sim_rooms.h"

/* How many of these exclude the user; those that nobody has seen may. */
static void check_hole(const struct sim_hole *hole)
{
    uint64_t least = 0, most = 0;
    unsigned user = hole->link->actor->role.user;

    for (uint64_t seq = hole->first; seq < hole->end; seq++) {
        uint32_t number = seq < hole->life->places ? hole->life->reqs[seq] : 0;
        const struct sim_req *req = number ? sim_talk_req(number - 1) : NULL;
        bool mine = req && req->excludes && req->user == user;

        SIM_CHECK(hole->told || !req || mine,
                  "link %u of u%u misses p%u, %llu of %s, and was not told", hole->link->number,
                  user, number - 1, (unsigned long long)seq, sim_room_names[hole->life->room]);
        least += mine;
        most += mine || !req;
    }
    SIM_CHECK(!hole->told || (hole->told <= hole->end - hole->first - least &&
                              hole->told + most >= hole->end - hole->first),
              "link %u was told of %llu losses from %llu to %llu of %s, but %llu exclude it",
              hole->link->number, (unsigned long long)hole->told, (unsigned long long)hole->first,
              (unsigned long long)hole->end - 1, sim_room_names[hole->life->room],
              (unsigned long long)least);
}

/* Nobody has seen these; somebody of this user must have said as many that exclude it. */
static void check_unseen(const struct sim_hole *hole)
{
    uint64_t unseen = 0, candidates = 0;

    for (uint64_t seq = hole->first; seq < hole->end && !hole->told; seq++)
        unseen += seq >= hole->life->places || !hole->life->reqs[seq];
    if (!unseen)
        return;
    for (unsigned i = 0; i < sim_talk_count(); i++) {
        const struct sim_req *req = sim_talk_req(i);

        candidates += req->kind == SIM_PUBLISH && req->excludes && !req->life &&
                      req->user == hole->link->actor->role.user && req->room == hole->life->room &&
                      (!req->answers || strcmp(req->outcome, "done") == 0);
    }
    SIM_CHECK(unseen <= candidates, "link %u misses %llu from %llu to %llu of %s, and was not told",
              hole->link->number, (unsigned long long)unseen, (unsigned long long)hole->first,
              (unsigned long long)hole->end - 1, sim_room_names[hole->life->room]);
}

unsigned sim_room_users(unsigned room, unsigned devices[SIM_USERS_MAX])
{
    unsigned users = 0;

    memset(devices, 0, SIM_USERS_MAX * sizeof(*devices));
    for (unsigned i = 0; i < sim_link_count; i++) {
        const struct sim_link *link = sim_links[i];

        if (sim_link_lives(link) && link->feeds[room].on && !devices[link->actor->role.user]++)
            users++;
    }
    return users;
}

static void check_feed(struct sim_link *link, unsigned room)
{
    struct sim_feed *feed = &link->feeds[room];
    unsigned devices[SIM_USERS_MAX], users = sim_room_users(room, devices);

    if (!feed->on)
        return;
    SIM_CHECK(!feed->life->over, "link %u was not told that %s is deleted", link->number,
              sim_room_names[room]);
    if (feed->open)
        feed->next = RH_MAX(feed->next, RH_MIN(feed->first_max, feed->life->last + 1));
    sim_feed_passed(link, feed, RH_MAX(feed->next, feed->life->last + 1), 0);
    if (!sim_steady() || sim_rules.notify_max <= SIM_USERS_MAX)
        return;
    SIM_CHECK(feed->members + feed->joined - feed->left == users,
              "link %u: %s had %llu members, %u joined, %u left, but there are %u", link->number,
              sim_room_names[room], (unsigned long long)feed->members, feed->joined, feed->left,
              users);
    for (unsigned i = 0; i < SIM_USERS_MAX; i++)
        SIM_CHECK(!feed->told[i] || (feed->told[i] == 1) == (devices[i] > 0),
                  "link %u was told that u%u has %s %s", link->number, i,
                  feed->told[i] == 1 ? "joined" : "left", sim_room_names[room]);
}

bool sim_room_deleted(unsigned room)
{
    for (unsigned i = 0; i < sim_talk_count(); i++) {
        const struct sim_req *req = sim_talk_req(i);

        if (req->kind == SIM_DELETE && req->room == room &&
            (!req->answers || strcmp(req->outcome, "done") == 0))
            return true;
    }
    return false;
}

/* It took a session over from a connection whose client read up to the end: nothing may be missing
 * between what that one got and what came here first. Unless a join was under way there: its client
 * may have said that it has more than came there since the last one. */
static void check_taken_over(const struct sim_link *link, unsigned room)
{
    const struct sim_wish *wish = &link->wishes[room];
    const struct sim_link *before = link->before;
    struct sim_feed was;

    if (!wish->life || !before->heard_close || before->tried > 1 || link->crossed ||
        link->previous != before || before->joining[room])
        return;
    was = before->feeds[room];
    if (was.on && !was.open && was.life == wish->life && was.next < wish->first)
        sim_feed_passed(link, &was, wish->first, 0);
}

static void check_told(const struct sim_link *link, unsigned room)
{
    const struct sim_wish *wish = &link->wishes[room];

    SIM_CHECK(!wish->expected || wish->gone ||
                  (!wish->named && (!link->resumed || sim_room_deleted(room))),
              "link %u was not told of %s, which it %s", link->number, sim_room_names[room],
              wish->named ? "named" : "had");
}

void sim_rooms_check_rest(void)
{
    for (unsigned i = 0; i < sim_link_count; i++) {
        struct sim_link *link = sim_links[i];

        for (unsigned room = 0; room < SIM_ROOMS && link->resumed; room++)
            check_taken_over(link, room);
        for (unsigned room = 0; room < SIM_ROOMS && sim_link_lives(link); room++) {
            check_told(link, room);
            check_feed(link, room);
        }
    }
    for (const struct sim_hole *hole = sim_holes; hole; hole = hole->next) {
        check_hole(hole);
        check_unseen(hole);
    }
}
