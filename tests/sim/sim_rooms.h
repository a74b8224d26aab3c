/* tests/sim/sim_rooms.h - a plain model of rooms, told what clients observed.
 *
 * A life is a room under one epoch: a list of numbers, each with one message. A feed is what one
 * connection hears of a room, from the answer that subscribes it to its end; it knows which number
 * comes next. Whatever is passed over has to be told as lost, or be a message that excludes the
 * feed's user; that is looked up at rest, when all messages are known.
 */
#ifndef SIM_ROOMS_H
#define SIM_ROOMS_H

#include "proto/json.h"
#include "tests/sim/sim_talk.h"

struct sim_life {
    unsigned room;
    char epoch[36];
    uint64_t last;   /* the highest number that anybody has heard of */
    uint32_t *reqs;  /* by seq: number + 1 of the publish; 0: not seen by anybody */
    uint64_t places; /* of reqs */
    bool over;       /* somebody was told that it was deleted */
    struct sim_life *next;
};

struct sim_feed {
    bool on;
    bool resumed;       /* without since: only the hub knows from where */
    bool open;          /* what comes first is not known: any number from `next` to `first_max` */
    bool exact_members; /* joined as seen by us: `members` counts */
    struct sim_life *life;
    uint64_t next, first_max;
    uint64_t on_ns;
    uint64_t members;
    unsigned joined, left;       /* notices */
    uint8_t told[SIM_USERS_MAX]; /* the last notice of a user: 0 none, 1 joined, 2 left */
};

/* A room named in rooms=, or one that a resume restores. */
struct sim_wish {
    bool expected; /* room.subscribed has to come */
    bool possible; /* it may */
    bool named;    /* in rooms= */
    bool gone;     /* 404 was told: of a resumed one, that was deleted */
    bool has_since, strange_epoch;
    uint64_t since;
    struct sim_life *epoch;
    bool sure;              /* nothing about it was under way on the old connection, ... */
    struct sim_feed before; /* resumed: what the old connection had when it ended */
    struct sim_life *life; /* resumed without since, and all recovered: what came first of it ... */
    uint64_t first;        /* ... here; 0: nothing did */
    bool exact;            /* and that was all that the hub had sent */
};

/* Numbers that were passed over: each was told as lost, or is a message that excludes this user. */
struct sim_hole {
    struct sim_life *life;
    const struct sim_link *link;
    uint64_t first, end; /* end: not included */
    uint64_t told;       /* so many of these were told as lost */
    struct sim_hole *next;
};

extern struct sim_hole *sim_holes;

void sim_rooms_begin(void);
struct sim_life *sim_life_of(unsigned room, const char *epoch); /* made where it is new */
int sim_room_index(const char *name);                           /* -1: there is none */

/* The answer to a join, or room.subscribed (wish). */
void sim_feed_joined(struct sim_link *link, unsigned room, struct rh_json data,
                     const struct sim_req *req, struct sim_wish *wish);
void sim_feed_message(struct sim_link *link, struct rh_json data);
void sim_feed_lost(struct sim_link *link, struct rh_json data);
void sim_feed_notice(struct sim_link *link, struct rh_json data, bool joined);
void sim_feed_deleted(struct sim_link *link, struct rh_json data);
void sim_feed_left(struct sim_link *link, unsigned room);

/* Numbers up to `end` did not come; `told` of them were told as lost. */
void sim_feed_passed(const struct sim_link *link, struct sim_feed *feed, uint64_t end,
                     uint64_t told);

/* Neither memory nor the configuration makes the hub do other things than the rules say. */
bool sim_steady(void);

/* The answers to a publish, to room.history and to a page of room.members. */
void sim_room_published(struct sim_link *link, unsigned number, struct rh_json data);
void sim_room_history(struct sim_link *link, const struct sim_req *req, struct rh_json data);

/* Has anybody asked for its end, and was not refused? */
bool sim_room_deleted(unsigned room);

/* All is quiet: on every connection that lives, all has arrived. */
void sim_rooms_check_rest(void);
/* Who is in a room now, by what was observed: devices by user; returns the number of users. */
unsigned sim_room_users(unsigned room, unsigned devices[SIM_USERS_MAX]);

#endif
