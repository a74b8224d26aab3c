/* tests/sim/sim_owed.h - the case of promises: devices, and the book of what is owed to whom.
 *
 * Devices of some users send, hear, acknowledge (at once, late, never, twice, wrongly) and come and
 * go. The book knows each message by its content ("m17:") and checks
 *
 *   at once  a message at the wrong user, changed, refused before, ended before its link began, or
 *            under an attempt that was handed out before; a status before the answer, or a second
 *            end; numbers that fall
 *   at rest  what was answered well has been heard, or its sender was told of its end
 */
#ifndef SIM_OWED_H
#define SIM_OWED_H

#include "core/config.h"
#include "proto/json.h"
#include "proto/ws.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_wire.h"

#define OWED_USERS    6
#define OWED_DEVS     16
#define OWED_ROOMS    2
#define OWED_LINKS    600
#define OWED_MSGS     1500
#define OWED_ASKS     2500
#define OWED_ATTEMPTS 64

/* What this run does, and what it therefore may not be blamed for. */
struct owed_rules {
    bool failing;         /* memory fails */
    bool stalling;        /* threads stand still */
    bool faulty;          /* the disk fails, hangs or is full */
    bool durable;         /* store.durability: commit */
    bool full;            /* few bytes may be owed */
    bool tight;           /* queues with little room, or few that may wait */
    bool expires;         /* something has a short time */
    uint64_t patience_ns; /* nothing ends earlier for want of an acknowledgement */
    unsigned users;
};

enum owed_end { OWED_OPEN, OWED_SUCCESS, OWED_FAILED };

struct owed_link;

/* A message, whoever asked for it and how often. */
struct owed_msg {
    unsigned from, to;
    bool in_room; /* then `to` is the room */
    bool ack, high, given;
    uint32_t ttl_ms; /* 0: none given */
    size_t pad;
    char id[72]; /* "" until it is known */
    unsigned run;
    uint64_t asked_ns, answered_ns;
    unsigned asks, oks, refusals;
    bool perhaps; /* the store failed, or the link ended: nobody knows */
    bool over;    /* it may have ended before the hub died, and who was told is gone */
    bool void_;   /* it ended with a run that kept nothing */
    char outcome[24];
    unsigned got;
    unsigned got_by, acked_by; /* users, as bits */
    uint64_t seq;
    uint64_t heard_ns[OWED_ATTEMPTS]; /* in this run, by attempt: for the first time; 0: not */
    unsigned heard_run;
    uint32_t least; /* attempts in this run are above it */
    enum owed_end end;
    uint64_t end_ns;
    unsigned end_run;
};

struct owed_ask {
    struct owed_msg *msg;
    struct owed_link *link;
    bool answered;
};

enum owed_state { OWED_SHAKING, OWED_TALKS, OWED_CLOSING, OWED_GONE };

struct owed_dev;

struct owed_link {
    unsigned number, run;
    struct owed_dev *dev;
    enum owed_state state;
    struct sim_wire wire;
    struct rh_ws ws;
    uint8_t in[8192];
    size_t in_len;
    char *text;
    size_t text_len;
    bool joined, said_close, heard_end;
    uint64_t began_ns, lazy_until_ns;
    uint64_t seq[2];             /* of the newest first attempt, by lane */
    uint8_t attempts[OWED_MSGS]; /* the last one that was heard here */
};

/* How a device is. Shares are of 1000. */
struct owed_manner {
    unsigned acts, gap_us;
    unsigned at_once, late, twice, wrong, together; /* acknowledgements; the rest: never */
    unsigned restless, lazy, acks, plain_to_self;
    unsigned again; /* repeats an id */
    unsigned ttl;
    unsigned publishes; /* of 1000 messages that go to a room */
    unsigned rooms;     /* that it subscribes to, as bits */
    size_t pad_max;
};

struct owed_dev {
    unsigned id, user;
    struct owed_manner manner;
    struct owed_link *link; /* or NULL */
    bool over, settles;     /* goes for good; only listens and acknowledges */
    unsigned acted;
    uint64_t next_ns;
    unsigned pending[8], pending_count; /* to be acknowledged together: messages */
};

extern struct owed_rules owed_rules;

/* ---- sim_owed_book.c ---- */

void owed_book_begin(void);
void owed_book_crash(void); /* the hub has died; a new run begins */
unsigned owed_run(void);

struct owed_msg *owed_new(const struct owed_msg *msg);
unsigned owed_count(void);
struct owed_msg *owed_at(unsigned number);
unsigned owed_number(const struct owed_msg *msg);
size_t owed_content(unsigned number, char *dst);

unsigned owed_asked(struct owed_msg *msg, struct owed_link *link); /* number of the request */
void owed_answered(struct owed_link *link, unsigned ask, const char *error, struct rh_json data);
/* NULL: one that is not to be acknowledged. */
struct owed_msg *owed_heard(struct owed_link *link, struct rh_json data, bool in_room);
void owed_status(struct owed_link *link, struct rh_json data);
void owed_lost(struct owed_link *link, struct rh_json data);
void owed_member(unsigned user, unsigned rooms); /* it may hear these rooms */
void owed_link_ended(struct owed_link *link);

void owed_check_rest(void);

/* ---- sim_owed_dev.c ---- */

void owed_devs_begin(void);
struct owed_dev *owed_dev_start(unsigned id, unsigned user, const struct owed_manner *manner,
                                uint64_t at_ns);
void owed_dev_settle(struct owed_dev *d); /* says nothing more, and acknowledges all */
void owed_dev_end(struct owed_dev *d);
bool owed_dev_there(const struct owed_dev *d);

#endif
