/* tests/sim/sim_actor.h - a client with a session: rooms, reconnects and resumes.
 *
 * An actor is one device of a user. Its connections are links: it reconnects after each end, with
 * or without its session, and may do so while the old link is open (the hub then closes that). What
 * it says next is drawn; what it hears it checks and tells the books (sim_talk, sim_rooms).
 */
#ifndef SIM_ACTOR_H
#define SIM_ACTOR_H

#include "proto/ws.h"
#include "tests/sim/sim_rooms.h"
#include "tests/sim/sim_talk.h"
#include "tests/sim/sim_wire.h"

struct sim_role {
    unsigned id, user;
    const char *device; /* or NULL */
    bool shares_device; /* with others of its user */
    const char *type;
    bool is_admin; /* by role= */
    uint64_t connect_ns;
    uint64_t until_ns; /* says and begins nothing more then */
    unsigned acts;
    unsigned gap_us;
    size_t pad_max;
    unsigned rooms;    /* the first ones of all */
    unsigned users;    /* to users 0 to this - 1 */
    unsigned restless; /* of 1000 acts that end or change its connection */
    unsigned lazy;     /* of 1000 acts after which it reads nothing for a while */
    uint64_t lazy_ns;  /* at most so long */
    bool checks;       /* asks what it is told to, and nothing else */
};

enum sim_link_state { SIM_SHAKING, SIM_OPEN, SIM_CLOSING, SIM_GONE };

enum sim_how { SIM_HOW_NONE, SIM_HOW_GOODBYE, SIM_HOW_CLOSE, SIM_HOW_CUT, SIM_HOW_SILENT };

struct sim_link {
    unsigned number;
    struct sim_actor *actor;
    enum sim_link_state state;
    struct sim_wire wire;
    struct rh_ws ws;
    uint8_t in[8192];
    size_t in_len;
    char *text; /* of the message being read */
    size_t text_len;

    bool joined, resumed; /* the welcome came */
    uint64_t joined_ns, ended_ns;
    bool said_close, heard_close, heard_end;
    bool silent;      /* neither reads nor answers any more */
    enum sim_how how; /* it was ended by its actor */
    bool draining;    /* was told so */
    bool was_lazy;
    bool again;     /* another one has asked for that session before */
    bool crossed;   /* two were on their way to that session at once: who knows which came first */
    unsigned tried; /* so many have asked for its session; who knows what each was sent */
    unsigned code;  /* of the hub's close frame, or its refusal */
    unsigned last_code; /* of its close frame, also where that answers ours */
    uint64_t lazy_until_ns;
    char session[36];
    struct sim_link *previous; /* of its actor; or NULL */
    struct sim_link *before;   /* the last one of the session that it asked for; or NULL */
    struct sim_wish wishes[SIM_ROOMS];
    struct sim_feed feeds[SIM_ROOMS];
    unsigned joining[SIM_ROOMS], leaving[SIM_ROOMS]; /* requests that are out */
    uint8_t *got;                                    /* bit per request: this message came here */
    uint32_t (*last)[2][2]; /* by sending link, kind and lane: number + 1 of the last that came */
    uint64_t seq[2];        /* of direct messages, by lane */
    uint64_t lost[2];       /* told: direct, broadcasts */
};

struct sim_memory {
    struct sim_life *life;
    uint64_t since; /* all up to there was received */
};

struct sim_actor {
    struct sim_role role;
    struct sim_link *link; /* the newest one; or NULL */
    bool over;             /* was told to end */
    unsigned acted;
    uint64_t next_ns;            /* when it acts */
    bool comes_back;             /* a reconnect is planned */
    struct sim_link *session_of; /* the last link that was welcomed; or NULL */
    struct sim_memory memory[SIM_ROOMS];
};

extern struct sim_link *sim_links[SIM_LINKS_MAX];
extern unsigned sim_link_count;

void sim_actors_begin(void);
struct sim_actor *sim_actor_start(const struct sim_role *role);
void sim_actor_end(struct sim_actor *a); /* goes, in any way, and does not come back */
void sim_actor_say_nothing_more(struct sim_actor *a);

/* It is a connection of its user, as far as the client knows. */
bool sim_link_lives(const struct sim_link *link);

/* ---- what the parts of an actor have of each other ---- */

void sim_link_end(struct sim_link *link, enum sim_how how);
/* A new link; `resume`: of the actor's session. */
void sim_actor_connect(struct sim_actor *a, bool resume);
void sim_link_poke(struct sim_link *link); /* step it soon */
void sim_link_wake_at(struct sim_link *link, uint64_t at_ns);

/* sim_actor_say.c: one act of any kind. */
void sim_actor_act(struct sim_actor *a);
void sim_say(struct sim_actor *a, struct sim_req *req);
void sim_say_members(struct sim_actor *a, unsigned room, unsigned limit, const char *cursor);

/* sim_actor_hear.c: a text, with a zero behind it. */
void sim_link_hear(struct sim_link *link);

/* A page of room.members that a checker asked for. */
extern void (*sim_on_members)(struct sim_link *link, const struct sim_req *req, struct rh_json data,
                              const char *error);

#endif
