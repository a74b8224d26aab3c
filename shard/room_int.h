/* shard/room_int.h - rooms, sessions and fan-out: the bodies that several files of this folder share.
 *
 * Three threads' worth of objects take part in a room, each on the shard that owns it:
 *
 *   the home's shard        struct rh_room    name, epoch, seq, history, list of member users
 *                                             (room.c, publish.c)
 *   every shard with        struct rh_branch  which of its own sessions subscribe; hands a message
 *   subscribers                               to each of them, a part of them a pass (fanout.c)
 *   a user's shard          struct rh_session the rooms of one client, also between two connections
 *                           struct rh_sub     one of these rooms: a place in a branch (session.c,
 *                                             subscribe.c)
 *
 * What a client asks of a room is a struct rh_ask: it travels to the home and back, and is used
 * directly where the home is the same shard. A life of a room has a random 64-bit uid: it is the
 * epoch (as 16 hex digits) and the key of branches. A member of the home's list counts the
 * subscriptions of its user; each subscription knows its member by an address that only the home
 * looks behind, and that is valid as long as the uid is.
 *
 * Order      home to shard: JOIN's answer, messages and ROOM_OVER come in the order in which the
 *            home produced them. So a subscription begins behind the seq in its answer, and what
 *            its branch still has up to there is skipped.
 */
#ifndef RH_ROOM_INT_H
#define RH_ROOM_INT_H

#include "core/err.h"
#include "shard/shard_int.h"

#define RH_EPOCH_LEN        16         /* hex digits of a uid */
#define RH_ROOMS_MAX        (1u << 20) /* rooms of one home shard */
#define RH_META_MAX         (16u << 10)
#define RH_ASKS_MAX         128 /* unanswered asks of one session; more: it is not read */
#define RH_UNFINISHED_MAX   64  /* of a room's messages on any shard; then publishes are held */
#define RH_UNFINISHED_BYTES (4u << 20)
#define RH_BROADCASTS_MAX   16           /* unfinished ones of one shard of origin */
#define RH_HISTORY_BYTES    (16u << 20)  /* of one room */
#define RH_ROOMS_BYTES      (256u << 20) /* of all histories and metas of one home shard */
#define RH_PAGE_MAX         1000         /* items of one answer */
#define RH_PAGE_BYTES       (1u << 20)   /* about: the item that passes it is the last one */

/* ---- asks ---- */

enum rh_room_op {
    RH_ASK_CREATE,
    RH_ASK_JOIN,
    RH_ASK_LEAVE,
    RH_ASK_PUBLISH,
    RH_ASK_MEMBERS,
    RH_ASK_DELETE,
    RH_ASK_HISTORY,
};

/* Messages that a subscription missed, oldest first; each is one hold. */
struct rh_missed {
    uint32_t count;
    struct rh_msg *at[];
};

/* JSON text on its way from one shard to another. */
struct rh_text {
    size_t len;
    char at[];
};

/* A request about a room, and its answer. On the heap; whoever has it owns it, with all it holds. */
struct rh_ask {
    /* Who asks what: filled by the asker's shard. */
    uint8_t op;     /* enum rh_room_op */
    uint8_t from;   /* the asker's shard */
    bool is_admin;  /* role admin */
    bool notify;    /* JOIN: at connect; answered by room.subscribed */
    bool again;     /* JOIN: this session is counted among the member's already. The home clears it
                       * where that is no longer so, and sets `live`: it begins anew */
    bool live;      /* JOIN: the session has a connection that is not counted yet; LEAVE: it has, or
                       * had, one that is */
    bool has_since; /* JOIN, HISTORY */
    bool has_epoch; /* JOIN: since counts within `epoch` only */
    bool exclude;   /* PUBLISH: exclude_self */
    bool conflate;  /* CREATE */
    bool is_ticket; /* CREATE: kind */
    bool waited;    /* the home has held it, and lets it go now */
    uint8_t room_len; /* lengths of what stands in bytes, in this order */
    uint8_t user_len;
    uint8_t type_len;
    uint8_t id_len;       /* PUBLISH: of the message's id */
    uint16_t request_len; /* request_id as it is to be echoed */
    uint32_t meta_len;    /* CREATE: raw JSON */
    uint32_t max_members; /* CREATE */
    uint32_t limit;       /* MEMBERS, HISTORY */
    uint64_t since;       /* JOIN, HISTORY; MEMBERS: the cursor */
    uint64_t epoch;       /* JOIN */
    uint64_t room_hash, user_hash;
    uint64_t conn;      /* slot and generation of the asking connection */
    struct rh_sub *sub; /* JOIN, LEAVE: the asker's own; NULL: LEAVE without one */
    void *member; /* LEAVE, JOIN again: the home's, as it told us. JOIN's answer: to be kept */
    struct rh_msg *msg; /* PUBLISH: complete but for its number */
    void *cookie; /* PUBLISH: the asker's promise, which ACCEPTED and AWAIT carry, with `conn` and
                         * `from`; NULL: it asks for no acknowledgement, and its id was made here */
    uint64_t dedup_ms; /* PUBLISH: until when (unix) ACCEPTED remembers its id; 0: not */
    uint32_t cost;     /* what it was charged, and its answer gives back */

    /* The answer: filled by the home. */
    enum rh_wire_error err;
    const char *why; /* a static sentence */
    uint64_t uid, seq, missed;
    uint32_t members; /* users; PUBLISH: recipients */
    bool recovered;
    bool promised;            /* PUBLISH: no error, and a COMMITTED to `cookie` is the answer */
    struct rh_missed *replay; /* JOIN with since; may be NULL */
    struct rh_text *text;     /* MEMBERS: items and next; HISTORY: items; JOIN: meta, or NULL */

    /* The home's, while it is held. */
    struct rh_list held;

    char bytes[]; /* room, user, type, id, request_id, meta */
};

static inline struct rh_span rh_ask_room(const struct rh_ask *a)
{
    return (struct rh_span){a->bytes, a->room_len};
}

static inline struct rh_span rh_ask_user(const struct rh_ask *a)
{
    return (struct rh_span){a->bytes + a->room_len, a->user_len};
}

static inline struct rh_span rh_ask_type(const struct rh_ask *a)
{
    return (struct rh_span){a->bytes + a->room_len + a->user_len, a->type_len};
}

static inline struct rh_span rh_ask_id(const struct rh_ask *a)
{
    return (struct rh_span){a->bytes + a->room_len + a->user_len + a->type_len, a->id_len};
}

static inline struct rh_span rh_ask_request(const struct rh_ask *a)
{
    return (struct rh_span){a->bytes + a->room_len + a->user_len + a->type_len + a->id_len,
                            a->request_len};
}

static inline struct rh_span rh_ask_meta(const struct rh_ask *a)
{
    return (struct rh_span){a->bytes + a->room_len + a->user_len + a->type_len + a->id_len +
                                a->request_len,
                            a->meta_len};
}

/* What the asker's shard writes into `bytes`; conn, session give user, type, rights. NULL: no memory. */
struct rh_ask *rh_ask_make(struct rh_shard *sh, const struct rh_session *session,
                           enum rh_room_op op, struct rh_span room, struct rh_span id,
                           struct rh_span request_id, struct rh_span meta);
void rh_ask_free(struct rh_ask *ask); /* accepts NULL; with what it still holds */
/* Bytes that an ask is charged for: its own, and what its answer may bring. */
uint32_t rh_ask_cost(const struct rh_ask *ask);
/* Of these, for an answer of up to `limit` items. */
size_t rh_ask_page_bytes(unsigned op, uint32_t limit);
/* Which shard is the room's home? */
unsigned rh_ask_home(const struct rh_shard *sh, const struct rh_ask *ask);
/* Sends it to its home, or handles it here; the way has to be open (rh_route_open). When it returns,
 * the answer may have been there already: the connection that asked may have been closed, its
 * session and its subscriptions may be gone. */
void rh_ask_send(struct rh_shard *sh, struct rh_ask *take_ask);
void rh_ask_pop(struct rh_shard *sh, const struct rh_event *ev);      /* ROOM: the home's side */
void rh_ask_done_pop(struct rh_shard *sh, const struct rh_event *ev); /* ROOM_DONE: the asker's */
/* The home is done with it: back to the asker. */
void rh_ask_answer(struct rh_shard *sh, struct rh_ask *take_ask);
void rh_ask_refuse(struct rh_shard *sh, struct rh_ask *take_ask, enum rh_wire_error err,
                   const char *why);

/* ---- room.c, publish.c: the home ---- */

/* What stands in front of a room message's seq_at, at most: the frame's header, the beginning of the
 * text, which the home writes, a time (20 digits) and the seq (2^53: 16 digits). */
#define RH_ROOM_HEAD_TEXT "{\"type\":\"notify\",\"event\":\"room.message\",\"timestamp\":"
#define RH_ROOM_HEAD_DATA ",\"data\":"
#define RH_ROOM_HEAD_SEQ  "{\"seq\":"
#define RH_ROOM_HEAD_MAX                                                                           \
    (RH_MSG_HEAD_ROOM + sizeof(RH_ROOM_HEAD_TEXT RH_ROOM_HEAD_DATA RH_ROOM_HEAD_SEQ) - 1 + 20 +    \
     RH_MSG_SEQ_DIGITS)

void rh_epoch_hex(uint64_t uid, char dst[RH_EPOCH_LEN]);
uint64_t rh_epoch_parse(struct rh_span text); /* the uid; 0: none of ours */

struct rh_member {
    struct rh_map_node node; /* struct rh_room.members, by hash of the user's name */
    uint64_t ord;            /* when it joined, as an order */
    uint64_t since_ms;
    uint32_t subs; /* subscriptions of this user; the last one ends the membership */
    uint32_t live; /* of these, with a connection */
    uint8_t shard; /* the user's */
    uint8_t name_len, type_len;
    bool untold;  /* room.joined is on its way: nobody is told that it left, either */
    char bytes[]; /* name, user_type */
};

struct rh_room_item {
    struct rh_msg *msg; /* one hold */
    uint64_t at_ms;     /* monotonic */
};

/* What the home knows of a shard with subscribers. Counts only grow. Every FANOUT counts, a notice
 * too, with its frame_len as bytes (ROOM_OVER does not); count it as sent before rh_fanout_push. The
 * shard reports each exactly once, whatever became of it: also after the last subscription there has
 * ended, so `done` may grow while subs is 0, and always reaches `sent`. */
struct rh_room_shard {
    uint32_t subs;       /* subscriptions there */
    uint64_t sent, done; /* FANOUTs sent there, and of these: reported by FANNED */
    uint64_t sent_bytes, done_bytes;
};

struct rh_room {
    struct rh_map_node node;   /* struct rh_shard.rooms, by hash of the name */
    struct rh_map_node by_uid; /* struct rh_shard.rooms_by_uid */
    uint64_t uid, seq;
    struct rh_map members;
    struct rh_roster *roster; /* members in order of joining: room.members pages */
    uint64_t next_ord;
    uint64_t interest;            /* bit k: shards[k].subs != 0 */
    struct rh_room_shard *shards; /* by tid, env->shards of them */
    struct rh_room_item *history; /* a circle of history_room (a power of two) */
    uint32_t history_room, history_head, history_count;
    uint64_t history_bytes;
    struct rh_list held;    /* asks that wait, struct rh_ask.held */
    struct rh_list waiting; /* struct rh_shard.held_rooms, while any is held */
    uint64_t rate_ns;       /* rooms.broadcasts_per_minute */
    struct rh_alarm alarm;  /* empty, or history runs out */
    struct rh_list empty;   /* struct rh_shard.empty_rooms, while it has no member ... */
    uint64_t empty_ms;      /* ... since when */
    uint32_t max_members;
    bool conflate, is_ticket;
    uint8_t name_len, creator_len;
    struct rh_text *meta; /* or NULL */
    char *creator;        /* behind the name */
    char name[];
};

/* Handles a request at its home (takes it over) and answers it, at once or later. */
void rh_room_handle(struct rh_shard *sh, struct rh_ask *take_ask);
struct rh_room *rh_room_by_uid(const struct rh_shard *sh, uint64_t uid);
/* The asker's user in the home's list; NULL: it is no member. */
struct rh_member *rh_room_member(const struct rh_room *room, const struct rh_ask *ask);
/* When there is next something to look at: the room is empty, or its history runs out. */
void rh_room_set_alarm(struct rh_shard *sh, struct rh_room *room);
void rh_room_unsub_pop(struct rh_shard *sh, const struct rh_event *ev);
void rh_room_fanned_pop(struct rh_shard *sh, const struct rh_event *ev);
/* The same without an event, for the home's own shard. FANNED's counts are what is new since the one
 * before; unknown uids are ignored. The home's own shard calls it only from rh_fanout_run and
 * rh_fanout_report, never inside rh_fanout_push or rh_branch_del. */
void rh_room_unsub(struct rh_shard *sh, unsigned from, uint64_t uid, void *member, unsigned flags);
void rh_room_fanned(struct rh_shard *sh, unsigned from, uint64_t uid, uint64_t done,
                    uint64_t done_bytes);
void rh_rooms_fini(struct rh_shard *sh); /* while the shard is destroyed */

/* Flags of UNSUB. */
enum {
    RH_UNSUB_END = 1,    /* the subscription is over */
    RH_UNSUB_DETACH = 2, /* its session has lost its connection; with END: it still had one */
};

/* publish.c */
void rh_publish(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask);
/* A notice (room.joined and such) to all subscribers but the user that it excludes. */
void rh_publish_notice(struct rh_shard *sh, struct rh_room *room, struct rh_msg *take_msg);
/* The room is being deleted: tells it behind all that was published. RH_ENOMEM: nobody was told. */
int rh_publish_over(struct rh_shard *sh, struct rh_room *room);
/* Are the spills to all other shards with subscribers below their marks? */
bool rh_publish_has_room(const struct rh_shard *sh, const struct rh_room *room);
/* And is little enough of this room unfinished everywhere? */
bool rh_publish_may_go(const struct rh_shard *sh, const struct rh_room *room);
/* Keeps an ask that would add to one that is not, or waits for earlier messages. */
void rh_publish_hold(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask);
/* Asks that were held, as far as they may go on now. */
void rh_publish_held(struct rh_shard *sh, struct rh_room *room);
void rh_publish_resume(struct rh_shard *sh); /* once a pass: all rooms with held ones */
/* The room has been deleted, or the shard is being destroyed. */
void rh_publish_refuse_held(struct rh_shard *sh, struct rh_room *room);
void rh_publish_forget_held(struct rh_shard *sh, struct rh_room *room);
/* What the asker missed: fills recovered, missed, replay. RH_ENOMEM. */
int rh_history_recover(struct rh_shard *sh, struct rh_room *room, struct rh_ask *ask);
/* The items of room.history as JSON text. NULL: no memory. */
struct rh_text *rh_history_text(struct rh_shard *sh, struct rh_room *room,
                                const struct rh_ask *ask);
/* Drops what is over its time; returns when the next one will be (ms), UINT64_MAX: none. */
uint64_t rh_history_expire(struct rh_shard *sh, struct rh_room *room);
void rh_history_clear(struct rh_shard *sh, struct rh_room *room);

/* ---- room_promise.c: acknowledged messages at their home ---- */

/* A publish that asks for acknowledgements, or whose id may be taken: makes ready all that may fail,
 * while it has no number yet; ask->members is filled. False: it was refused, or gets the outcome of the
 * first one of its id; it has been answered. */
bool rh_room_owe(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask);
/* It asks for acknowledgements, and has its number: tells the record thread. Two holds move: of
 * ACCEPTED, and of the entry that keeps its id. */
void rh_room_accept(struct rh_shard *sh, struct rh_ask *ask, struct rh_msg *take_msg);
void rh_room_owed_pop(struct rh_shard *sh, const struct rh_event *ev);     /* OWED_ROOM */
void rh_room_released_pop(struct rh_shard *sh, const struct rh_event *ev); /* RELEASED */
void rh_room_taken_fini(struct rh_shard *sh); /* while the shard is destroyed */

/* ---- fanout.c: every shard with subscribers ---- */

/* Subscribers that are looked at: by one branch before the next has its turn; in a pass that has
 * other things to do, and in one that has not. A send to a client that sleeps costs about 5 us, so a
 * pass of these is 0.4 and 1.5 ms long (bench/run_neighbours.py). Where shards share processors, a
 * pass has its part of the first, and then lets the others go on. */
#define RH_FANOUT_TURN  64
#define RH_FANOUT_BUSY  64
#define RH_FANOUT_IDLE  256
#define RH_FANOUT_BATCH 64 /* messages that a visit hands out at most */
/* Finished messages, or bytes, of a room that another shard is its home of, before that is told. */
#define RH_FANNED_COUNT 16
#define RH_FANNED_BYTES (1u << 20)

/* One message, or notice, on its way to the subscribers here. */
struct rh_fan {
    struct rh_handle *h;
    uint64_t seq;    /* 0: a notice */
    uint64_t number; /* in its branch */
};

struct rh_branch {
    struct rh_map_node node; /* struct rh_shard.branches, by uid */
    uint64_t uid;
    struct rh_sub **subs; /* those not yet visited in this lap, then the others */
    uint32_t count, room; /* of subs */
    uint32_t cursor;      /* visited: subs[cursor..count) */
    uint32_t batch;       /* of fans, finished when this lap ends; 0: none is under way */
    struct rh_fan *fans;  /* a circle of fan_room (a power of two) */
    uint32_t fan_room, fan_head, fan_count;
    uint64_t pushed;           /* how many came so far: the number of the next one */
    uint64_t hole;             /* one before this number found no memory; 0: none */
    struct rh_list running;    /* struct rh_shard.running, while there is something to do */
    struct rh_list unreported; /* struct rh_shard.unreported */
    uint64_t done, done_bytes; /* finished, and the home has not been told yet */
    uint32_t pins;             /* somebody holds a pointer: not to be freed */
    uint8_t home;
    bool over; /* deleted: ends when everything has been handed out */
};

struct rh_branch *rh_branch_find(const struct rh_shard *sh, uint64_t uid);
/* Adds a subscription, making the branch if it is the first (its home by sub->room_hash); it gets
 * what comes from now on, and has a seq behind sub->seq. RH_ENOMEM. */
int rh_branch_add(struct rh_shard *sh, struct rh_sub *sub, uint64_t uid);
void rh_branch_del(struct rh_shard *sh, struct rh_sub *sub); /* frees an empty branch */
/* A message from the home's shard (takes a hold), in its order; it only queues. Without memory every
 * connection that subscribes here is closed with 1013 in the next rh_fanout_run, and recovers it from
 * history. Unknown uids are well: their last subscription has just ended. */
void rh_fanout_push(struct rh_shard *sh, unsigned home, uint64_t uid, struct rh_msg *take_msg);
/* Hands this one, which is about to leave, all that has come for it and waits for the cursor. It may
 * be out of its branch afterwards, but `asking` keeps it. */
void rh_fanout_flush(struct rh_shard *sh, struct rh_sub *sub);
/* Deleted: when what came before has been handed out, every subscription gets rh_sub_over. */
void rh_fanout_over(struct rh_shard *sh, uint64_t uid);
/* One pass's work; returns whether there is more. `busy`: the shard has other things to do. */
bool rh_fanout_run(struct rh_shard *sh, bool busy);
void rh_fanout_report(struct rh_shard *sh); /* FANNED, where it is due */
void rh_branches_fini(struct rh_shard *sh);

/* ---- session.c, subscribe.c: a user's shard ---- */

#define RH_SESSION_ID   32 /* hex digits */
#define RH_TRACE_ID_LEN 32

/* What a session needs for rooms, for a rate, or to know what its client said of itself. */
struct rh_session_more {
    struct rh_list subs;
    struct rh_list behind; /* struct rh_sub.waiting: those that still get what they missed */
    uint64_t rate_ns;      /* security.rate_limit */
    uint32_t rooms;        /* subs in struct rh_shard.subs: of different rooms */
    uint32_t parked;       /* live messages behind missed ones: they count in the queue's bounds */
    uint32_t parked_bytes;
    uint32_t replaying; /* subscriptions that still get what they missed */
    uint8_t trace_len;  /* of the handshake's traceparent: 0 or RH_TRACE_ID_LEN */
    uint8_t device_len, type_len, role_len;
    char bytes[]; /* trace id, device, user_type, role */
};

static inline struct rh_user *rh_session_user(const struct rh_session *s)
{
    return s->is_first ? rh_container_of(s, struct rh_user, first)
                       : rh_container_of(s, struct rh_other_session, s)->user;
}

/* Has it a connection that is open? That is then one of its user's devices. */
static inline bool rh_session_is_live(const struct rh_session *s)
{
    return s->conn && !s->is_detached;
}

static inline bool rh_session_has_subs(const struct rh_session *s)
{
    return s->more && !rh_list_empty(&s->more->subs);
}

/* What its client said of itself; may be empty. */
static inline struct rh_span rh_session_trace(const struct rh_session *s)
{
    return s->more ? (struct rh_span){s->more->bytes, s->more->trace_len} : (struct rh_span){0};
}

static inline struct rh_span rh_session_device(const struct rh_session *s)
{
    const struct rh_session_more *m = s->more;

    return m ? (struct rh_span){m->bytes + m->trace_len, m->device_len} : (struct rh_span){0};
}

static inline struct rh_span rh_session_type(const struct rh_session *s)
{
    const struct rh_session_more *m = s->more;

    return m ? (struct rh_span){m->bytes + m->trace_len + m->device_len, m->type_len}
             : (struct rh_span){0};
}

static inline struct rh_span rh_session_role(const struct rh_session *s)
{
    const struct rh_session_more *m = s->more;

    return m ? (struct rh_span){m->bytes + m->trace_len + m->device_len + m->type_len, m->role_len}
             : (struct rh_span){0};
}

/* Whose device it is; NULL: nobody's (any more). */
static inline struct rh_user *rh_conn_user(const struct rh_conn *c)
{
    return c->session && rh_session_is_live(c->session) ? rh_session_user(c->session) : NULL;
}

/* The sessions of a user, one after the other: behind NULL the first, NULL behind the last. */
static inline struct rh_session *rh_session_next(struct rh_user *user, const struct rh_session *s)
{
    const struct rh_list *at;

    if (!s && user->first.number)
        return &user->first;
    if (!user->more)
        return NULL;
    at = s && !s->is_first ? rh_container_of(s, struct rh_other_session, s)->of_user.next
                           : user->more->others.next;
    return at == &user->more->others ? NULL
                                     : &rh_container_of(at, struct rh_other_session, of_user)->s;
}

static inline uint32_t rh_user_devices(const struct rh_user *user)
{
    return rh_session_is_live(&user->first) + (user->more ? user->more->devices : 0);
}

static inline uint32_t rh_user_detached(const struct rh_user *user)
{
    return user->first.is_detached + (user->more ? user->more->detached : 0);
}

/* Rooms in which it has a subscription. */
static inline uint32_t rh_user_rooms(const struct rh_user *user)
{
    const struct rh_session_more *only = user->first.more;

    return user->more ? user->more->rooms : only ? only->rooms : 0;
}

static inline struct rh_retry *rh_user_retry(const struct rh_user *user)
{
    return user->more ? user->more->retry : NULL;
}

enum rh_sub_state {
    RH_SUB_WANTED,  /* waits for a credit, then it asks */
    RH_SUB_ASKED,   /* a JOIN is on its way */
    RH_SUB_ACTIVE,  /* in its branch */
    RH_SUB_DELETED, /* the room is gone; kept for who resumes */
    RH_SUB_ENDING,  /* UNSUB could not be told for want of memory */
};

/* Missed messages, then live ones that came meanwhile. */
struct rh_replay {
    uint32_t room, head, count;
    uint32_t live; /* the last ones: these count as parked */
    uint64_t
        seq; /* the last that was handed out: the subscription's is that of its last live one */
    uint64_t lost_from, lost_to, lost_count; /* found no room; 0: none ... */
    uint32_t behind;                         /* ... in front of so many notices at the end */
    struct rh_handle *at[];
};

/* What fan-out reads stands in front: one cache line, mostly. */
struct rh_sub {
    struct rh_session *session; /* NULL: it has ended, and an ask is still out */
    struct rh_branch *branch;   /* ACTIVE */
    struct rh_replay *replay;   /* or NULL: live */
    uint64_t seq;   /* of the room's messages, the last that was handed out, parked, passed over */
    uint64_t first; /* what its branch got before this number is not for it, or it has had it */
    uint32_t index; /* in branch->subs */
    uint8_t state;  /* enum rh_sub_state */
    bool asking;    /* a JOIN or LEAVE of it is out */
    bool counted;   /* the home counts it, so its end has to be told */
    bool live;      /* and counts it as one with a connection */
    bool restore;   /* asking, or WANTED: on a new connection that has to be told of it */
    bool named;     /* and which has named it in rooms= */
    bool has_since, has_epoch; /* WANTED: of rooms= */
    uint8_t name_len;
    struct rh_map_node node;   /* struct rh_shard.subs, by rh_sub_hash */
    struct rh_list of_session; /* struct rh_session.subs */
    struct rh_list waiting;    /* struct rh_shard.wanted or .ending, or struct rh_session.behind */
    void *member;              /* the home's */
    uint64_t uid;
    uint64_t room_hash;
    uint64_t since, epoch;
    char name[];
};

/* session.c */
struct rh_session *rh_session_create(struct rh_shard *sh, struct rh_user *user);
/* The name by which clients know it: nobody else can guess it. */
void rh_session_id(const struct rh_shard *sh, const struct rh_session *s, char dst[RH_SESSION_ID]);
/* The user's session of that id; NULL: none. */
struct rh_session *rh_session_find(const struct rh_shard *sh, struct rh_user *user,
                                   struct rh_span id);
/* What few sessions have, made if need be. NULL: no memory. */
struct rh_session_more *rh_session_more(struct rh_session *s);
/* Keeps what its client says of itself. False: no memory, nothing changed. */
bool rh_session_identify(struct rh_session *s, const struct rh_arrival *a);
void rh_session_attach(struct rh_shard *sh, struct rh_session *s, struct rh_conn *c);
/* Undoes an attach: its connection has not been opened, and may have been cut. */
void rh_session_unattach(struct rh_shard *sh, struct rh_session *s);
/* It is being resumed: parts it from the connection that it still has, which is closed with 4409 if
 * it is open; what waits there will not be sent twice. */
void rh_session_take_over(struct rh_shard *sh, struct rh_session *s);
/* The open connection leaves; by the code, and who chose it, the session ends, or waits for
 * resume.window. */
void rh_session_leave(struct rh_shard *sh, struct rh_conn *c, unsigned code, bool by_peer);
/* Nothing more will be sent on c: notes what did not get through. Before c->out is thrown away. */
void rh_session_settle(struct rh_shard *sh, struct rh_conn *c);
void rh_session_end(struct rh_shard *sh, struct rh_session *s);
void rh_session_expire(struct rh_shard *sh); /* once a pass */
/* ms from now until rh_session_expire or rh_subs_wanted should run again; 0: now; UINT64_MAX. */
uint64_t rh_session_next_ms(const struct rh_shard *sh);
void rh_sessions_fini(struct rh_shard *sh); /* while the shard is destroyed: nobody is told */

/* subscribe.c */
struct rh_sub *rh_sub_find(const struct rh_shard *sh, const struct rh_session *s,
                           uint64_t room_hash, struct rh_span room);
/* Makes it for that session, WANTED. NULL: no memory. */
struct rh_sub *rh_sub_create(struct rh_shard *sh, struct rh_session *s, uint64_t room_hash,
                             struct rh_span room);
/* Is the user in as many rooms as it may be, and not in this one? */
bool rh_sub_over_limit(const struct rh_shard *sh, const struct rh_user *user, uint64_t room_hash,
                       struct rh_span room);
/* Ends it: leaves its branch, tells the home, is freed once nothing of it is out any more. */
void rh_sub_end(struct rh_shard *sh, struct rh_sub *sub);
/* JOIN or LEAVE came back (sub may have lost its session): the answer is written by the caller. */
void rh_sub_joined(struct rh_shard *sh, struct rh_ask *ask);
void rh_sub_left(struct rh_shard *sh, struct rh_ask *ask);
/* Its room was deleted. */
void rh_sub_over(struct rh_shard *sh, struct rh_sub *sub);
/* The session's connection is gone or back: what the home should know. */
void rh_subs_detach(struct rh_shard *sh, struct rh_session *s);
void rh_subs_resume(struct rh_shard *sh, struct rh_session *s);
/* Rooms of a connect: each asks for itself in the next rh_subs_wanted that has a credit for it. */
void rh_sub_want(struct rh_shard *sh, struct rh_sub *sub);
void rh_subs_wanted(struct rh_shard *sh); /* once a pass: those that wait for a credit or memory */
/* While the shard is destroyed; s NULL: those that belong to no session any more. */
void rh_subs_fini(struct rh_shard *sh, struct rh_session *s);

/* replay.c */
/* What was missed, out of a JOIN's answer (the holds move). NULL: no memory. */
struct rh_replay *rh_replay_create(struct rh_shard *sh, struct rh_missed *missed);
void rh_replay_free(struct rh_shard *sh, struct rh_replay *r);
/* From now on what is live stands behind it. `seq`: the last that was handed out before. */
void rh_replay_start(struct rh_sub *sub, struct rh_replay *take_replay, uint64_t seq);
/* Ends it: sub->seq is then the last that was handed out. Harmless without one. */
void rh_replay_drop(struct rh_shard *sh, struct rh_sub *sub);
/* The room is over: queues all that is left at once. The connection may be closed by it, and the
 * subscription be gone; false then. */
bool rh_replay_flush(struct rh_shard *sh, struct rh_sub *sub);
/* A live message or notice for a subscription with a replay: stands behind what it missed. The
 * connection may be closed by it, and the subscription be gone. */
void rh_sub_park(struct rh_shard *sh, struct rh_sub *sub, struct rh_handle *h);
/* The connection has taken something: more of what its session missed. */
void rh_session_pump(struct rh_shard *sh, struct rh_session *s);

/* ---- room_requests.c: what clients ask of rooms, and how they are answered ---- */

/* As rh_request. */
int rh_room_create(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                   unsigned *ret_shard);
int rh_room_join(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                 unsigned *ret_shard);
int rh_room_leave(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                  unsigned *ret_shard);
int rh_room_publish(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                    unsigned *ret_shard);
int rh_room_members(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                    unsigned *ret_shard);
int rh_room_delete(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                   unsigned *ret_shard);
int rh_room_history(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                    unsigned *ret_shard);
/* The answer to an ask, back at the asker's shard: to the connection, if it is still there. */
void rh_room_respond(struct rh_shard *sh, struct rh_conn *c, const struct rh_ask *ask);
/* Starts the joins of rooms=a,b@12@EPOCH (checked before by rh_rooms_ok). */
void rh_rooms_connect(struct rh_shard *sh, struct rh_conn *c, struct rh_span rooms);
bool rh_rooms_ok(struct rh_span rooms);
/* Frames for a room's other members. NULL: no memory. */
struct rh_msg *rh_notice_membership(struct rh_shard *sh, const struct rh_room *room, bool joined,
                                    const struct rh_member *member);
struct rh_msg *rh_notice_deleted(struct rh_shard *sh, struct rh_span room);
/* room.subscribed for a room that is gone. */
void rh_notify_gone(struct rh_shard *sh, struct rh_conn *c, const struct rh_sub *sub);

#endif
