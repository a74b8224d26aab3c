/* tests/sim/sim_talk.h - what a crowd asked, what it was answered, and who heard what.
 *
 * The crowd (sim_crowd) is clients with sessions, rooms and broadcasts. This is its book of
 * requests, and of direct messages and broadcasts, which may be lost under the slow-consumer
 * policies, but never untold; rooms have a book of their own (sim_rooms). A message names itself
 * ("p17:" and letters that follow from the number).
 *
 *   at once  a message at the wrong user, twice on one connection, changed, refused before, or out
 *            of order for its sender and lane; an answer nobody asked for, or a second one; an error
 *            for which there is no reason
 *   at rest  on every connection that lived: each request has its answer; arrived and told lost
 *            make up what was sent while it was there
 */
#ifndef SIM_TALK_H
#define SIM_TALK_H

#include "proto/json.h"
#include "tests/sim/sim.h"

#define SIM_ROOMS     6
#define SIM_USERS_MAX 24
#define SIM_LINKS_MAX 800
#define SIM_REQS_MAX  8192

enum sim_ask {
    SIM_SEND,
    SIM_BROADCAST,
    SIM_PUBLISH,
    SIM_CREATE,
    SIM_JOIN,
    SIM_LEAVE,
    SIM_DELETE,
    SIM_MEMBERS,
    SIM_HISTORY,
    SIM_PING,
    SIM_ASKS
};

struct sim_link;
struct sim_life;

/* A request, and what became of it. */
struct sim_req {
    enum sim_ask kind;
    struct sim_link *link;
    unsigned user; /* who asks */
    unsigned room;
    unsigned to_user;
    const char *to_type; /* BROADCAST: users of this type only; NULL: all */
    bool asked;          /* has a request_id, so it is answered */
    bool high, excludes, keyed;
    bool has_since, strange_epoch; /* JOIN, HISTORY */
    uint64_t since;
    struct sim_life *epoch; /* the one that is named; or NULL */
    struct sim_life *was;   /* what its connection was subscribed to when it was said; or NULL */
    uint32_t max_members;   /* CREATE */
    unsigned limit;         /* MEMBERS, HISTORY */
    size_t pad;
    uint64_t said_ns, answered_ns;
    unsigned answers;
    char outcome[24]; /* "done", "sent", or the name of an error */
    uint64_t seq, recipients;
    bool partial;
    struct sim_life *life; /* PUBLISH: where it was seen ... */
    bool heard;            /* ... by anybody */
};

/* What this run does, and what it therefore may not be blamed for. */
struct sim_rules {
    bool failing;  /* memory fails */
    bool changing; /* the configuration changes */
    bool tight;    /* queues with little room */
    bool stalling; /* shards stand still */
    bool slow;     /* the network */
    bool drops_newest;
    bool conflates;
    uint32_t history, notify_max, window_ms, per_user, max_members, max_devices;
    uint32_t per_minute, per_second; /* rate limits; 0: none */
    uint64_t spread_ms;
    bool auto_create;
    bool creates_small; /* rooms are created with max_members */
};

extern struct sim_rules sim_rules;
extern const char *const sim_room_names[SIM_ROOMS];

void sim_talk_begin(void);

/* Books what is about to be asked; returns its number. */
unsigned sim_talk_ask(const struct sim_req *req);
struct sim_req *sim_talk_req(unsigned number);
unsigned sim_talk_count(void);
/* Writes the content of a message, without quotes; dst has room for its pad and 16 bytes. */
size_t sim_talk_content(unsigned number, char *dst);
/* The message that says this; fails if it was changed, or nobody sent such a thing. */
unsigned sim_talk_number(const struct sim_link *link, struct rh_span content, enum sim_ask kind);

/* An answer of this number: fails if there is something wrong with that. error NULL: none. */
struct sim_req *sim_talk_answered(struct sim_link *link, unsigned number, const char *outcome);

void sim_talk_heard_direct(struct sim_link *link, struct rh_json data);
void sim_talk_heard_broadcast(struct sim_link *link, struct rh_json data);
void sim_talk_lost(struct sim_link *link, struct rh_json data); /* not a room's */

/* All is quiet. */
void sim_talk_check_rest(void);

#endif
