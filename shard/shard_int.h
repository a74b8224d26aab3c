/* shard/shard_int.h - the bodies of a shard, a connection, a user and a session; stays inside this folder.
 *
 * Everything here belongs to the shard's thread. A connection lives in a slot of a slab; its slot
 * and generation go into the tag of every operation, and the slot is used again only when no
 * operation is in flight any more.
 *
 * The life of a connection (set_state in conn.c asserts the arrows; state and kind are apart: kind
 * says what the bytes mean, state how far it is from its end):
 *
 *   [HTTP] --upgrade--> [OPEN] --close queued--> [CLOSING] --both closes done--> [LINGER]
 *     |  \--hand-over--> [GONE]                      |                              |
 *     |--answer with close---------------------------+---> [LINGER] --EOF, deadline-+-> [DEAD]
 *     `--error, timeout--> [DEAD] <--error, deadline-'                                   |
 *                                       nothing in flight any more: [FREE] <-------------'
 *
 * A direct descriptor is handed over in two steps. While the kernel copies it into the table of the
 * user's shard nothing else can happen to the connection, and no time runs:
 *
 *   [HTTP] --credit taken, pass submitted--> [MOVING] --it has a slot there--> [GONE]
 *     ^                                          |
 *     `-------- no slot: answered with 503 ------'
 */
#ifndef RH_SHARD_INT_H
#define RH_SHARD_INT_H

#include "core/hash.h"
#include "core/hubtime.h"
#include "core/id.h"
#include "core/limits.h"
#include "core/map.h"
#include "core/prng.h"
#include "core/thread.h"
#include "core/timer.h"
#include "proto/http1.h"
#include "proto/json.h"
#include "proto/query.h"
#include "proto/upgrade.h"
#include "proto/ws.h"
#include "shard/dedup.h"
#include "shard/outq.h"
#include "shard/shard.h"

#define RH_ON_SHARD(sh) rh_assert((int)(sh)->tid == rh_tid_self())

#define RH_RECV_BUFFERS 2048 /* provided buffers per shard: a stall's worth of arrivals */
#define RH_HEADROOM     160  /* in front of received bytes: at least RH_WS_TAIL_MAX */
/* What one pass can bring for one connection: events, and the smallest requests (77 bytes and their
 * frame) in all receive buffers. */
#define RH_PASS_MESSAGES (RH_MESH_POP + RH_RECV_BUFFERS * (RH_URING_BUFFER / 80))
#define RH_PASS_BYTES    ((uint64_t)RH_CREDIT_BYTES + RH_RECV_BUFFERS * RH_URING_BUFFER)

#define RH_REAP          256        /* completions looked at in one go */
#define RH_TIMERS_A_PASS 1024       /* timers fired in one pass */
#define RH_HELD_MAX      (16 << 10) /* received and unread bytes a paused connection may keep */
#define RH_HELD_GROWTH   2048 /* at most, from a client's text to the frame of its receivers */
#define RH_LOOKS         4    /* at a send under way, per limits.send_timeout */
#define RH_CLOSE_WAIT_MS 5000 /* for the peer's close frame, or its end of stream */
#define RH_DEAD_WAIT_MS  1000 /* for operations that a shutdown should have ended */
#define RH_DRAIN_WAIT_MS 500  /* while draining: for a request, and for an end of stream */
#define RH_LATE_MS       100  /* a pass this late looks at arrivals before timers */
#define RH_STALL_MS      5000 /* a shard this long without a pass is not alive */
#define RH_SLAB          1024 /* connections in one piece of the slab */
#define RH_SLABS_MAX     1024

_Static_assert(RH_HEADROOM >= RH_WS_TAIL_MAX, "an unfinished frame's tail fits the headroom");

/* ---- tags: kind(8) | generation(24) | slot(32) ---- */

enum rh_op { RH_OP_ACCEPT, RH_OP_RECV, RH_OP_SEND, RH_OP_CANCEL, RH_OP_PASS, RH_OP_POLL };

#define RH_GEN_MASK 0xffffffu

/* ---- connections ---- */

struct rh_arrival;
struct rh_lost;
struct rh_owed;
struct rh_owed_item;
struct rh_retry;
struct rh_session;
struct rh_session_more;
struct rh_user;
struct rh_envelope;

enum rh_conn_kind {
    RH_IS_HTTP, /* heads of requests; also every connection before its upgrade */
    RH_IS_WS,   /* a user's */
    RH_IS_ECHO, /* gets back what it sends */
};

#define RH_CONN_STATES(X)                                                                          \
    X(FREE, "the slot is unused")                                                                  \
    X(HTTP, "reads requests")                                                                      \
    X(MOVING, "its descriptor is being copied to another shard")                                   \
    X(OPEN, "reads and sends frames")                                                              \
    X(CLOSING, "our close is queued or sent; waits for the peer's")                                \
    X(LINGER, "our side is shut; input is thrown away until the peer's side is, too")              \
    X(DEAD, "cut; waits for the kernel to let go of everything")                                   \
    X(GONE, "handed over to another shard; waits likewise")

enum rh_conn_state {
#define RH_CONN_STATE(name, help) RH_CONN_##name,
    RH_CONN_STATES(RH_CONN_STATE)
#undef RH_CONN_STATE
};

/* Why a connection is not read. */
enum { RH_PAUSE_QUEUE = 1, RH_PAUSE_CREDIT = 2, RH_PAUSE_TURN = 4, RH_PAUSE_PROMISE = 8 };

/* Two cache lines: what bytes that come and go touch, and the rest. Of times there are the low halves
 * of a ms: rh_conn_ms makes them whole. */
struct rh_conn {
    alignas(RH_CACHE_LINE) int fd;
    uint32_t slot;
    uint32_t gen;
    uint32_t kind : 2;         /* enum rh_conn_kind */
    uint32_t paused : 4;       /* RH_PAUSE_ */
    uint32_t recv_armed : 1;   /* a receive, or a poll, is under way */
    uint32_t recv_ending : 1;  /* and has been told to end */
    uint32_t starved : 1;      /* no provided buffer was left */
    uint32_t is_dirty : 1;     /* stands in struct rh_shard.dirty */
    uint32_t held : 1;         /* `message` is whole and waits for a credit, or a turn */
    uint32_t deaf : 1;         /* no frame is expected any more: what comes is thrown away */
    uint32_t eof : 1;          /* the peer's end of stream came while we were paused */
    uint32_t answered : 1;     /* HTTP: some request */
    uint32_t last_answer : 1;  /* HTTP: nothing is read behind the answer */
    uint32_t buried : 1;       /* on the list of those to free at the end of the pass */
    uint32_t told : 1;         /* draining: has got server.draining */
    uint32_t late : 1;         /* came when the hub was draining already: is only refused */
    uint32_t watched : 1;      /* the timer is set no later than a send needs (heartbeat.c) */
    uint32_t spoke : 1;        /* a message, or a part of one, has come since the last ping */
    uint32_t parked : 1;       /* none came for so long that a poll waits for the next one */
    uint32_t polling : 1;      /* what recv_armed says is a poll */
    uint32_t replaying : 1;    /* its session has something to hand out that it missed */
    uint32_t squeeze_bits : 4; /* what is sent is deflated for that window, 9 to 15; 0: it is not */
    uint32_t has_context : 1;  /* of compression, in either direction (shard/squeeze_conn.c) */
    uint32_t inflates : 1;     /* may send compressed messages */
    uint32_t awaited : 1;      /* messages that its user is owed wait for room in its queue */
    uint8_t inflight;          /* operations without a last completion */
    uint8_t state;             /* enum rh_conn_state */
    uint16_t fly_pass; /* the pass (its low bits) in which the send under way was submitted */
    uint32_t heard_ms; /* something arrived */
    union {
        struct rh_ws ws;
        uint32_t scanned; /* HTTP: bytes of `rest` in which no head ends */
    };
    struct rh_block *rest; /* received, not consumed: unfinished head or frame, or held back */
    struct rh_outq *out;   /* NULL: nothing to send */

    union {
        struct rh_session *session; /* WS: OPEN, and CLOSING while it may still send; or NULL */
        struct rh_arrival *arrival; /* MOVING: what goes with it */
    };
    struct rh_block *message; /* pieces of an unfinished message; HELD: a whole one that waits */
    struct rh_timer timer;    /* one for all: shard/heartbeat.c computes the next date */
    struct rh_list waiting;   /* starved, or paused but for its queue: one of the shard's lists */
    uint32_t since_ms; /* HTTP: of the request; OPEN: last ping, or server.draining once `told`;
                        * CLOSING, LINGER: the beginning */
    uint16_t bucket;   /* of the peer's address (core/limit) */
    uint16_t invalid;  /* OPEN: messages in a row */
};

_Static_assert(sizeof(struct rh_conn) == 2 * RH_CACHE_LINE, "a connection is two cache lines");
_Static_assert(offsetof(struct rh_conn, session) == RH_CACHE_LINE, "sending touches one of them");

/* A client, also between two connections (shard/session.c). What an idle one does not need is behind
 * `more`: a user with one connection is one block of memory. Numbers last for 13 years of 10,000
 * sessions a second; asks are as many as a user may have rooms, and RH_ASKS_MAX. */
struct rh_session {
    struct rh_conn *conn; /* its live end, or one that is closing and still sends; or NULL */
    struct rh_session_more *more; /* made when it is first needed; NULL: not yet */
    uint64_t number : 42;     /* on this shard in this run; 0: a place for a session, no session */
    uint64_t asks : 20;       /* unanswered, of its present connection */
    uint64_t is_first : 1;    /* struct rh_user.first */
    uint64_t is_detached : 1; /* it waits to be resumed */
    union {
        uint64_t attached;    /* the shard's count of attachments: how old its connection is */
        uint64_t detached_ms; /* since when */
    };
    struct rh_list detached; /* struct rh_shard.detached, oldest first */
};

_Static_assert(sizeof(struct rh_session) == 48, "every user has one");

/* Those that a user has besides its first one. */
struct rh_other_session {
    struct rh_session s;
    struct rh_user *user;
    struct rh_list of_user; /* struct rh_user_more.others */
};

/* What few users have. */
struct rh_user_more {
    struct rh_list others;  /* in the order in which they began */
    struct rh_retry *retry; /* direct messages that found no room (shard/retry.c); or NULL */
    struct rh_owed *owed;   /* what it is owed (shard/owed.h); or NULL */
    uint64_t broadcast;     /* the last one that it was counted for */
    uint64_t broadcast_ns;  /* rooms.broadcasts_per_minute, as a rate */
    uint32_t devices;       /* of the others: with a live connection ... */
    uint32_t detached;      /* ... and detached */
    uint32_t rooms;         /* in which any of its sessions has a subscription */
};

/* Exists while it has a session, or is owed something, or has a pin. */
struct rh_user {
    struct rh_map_node node;   /* struct rh_shard.users, by hash of the name */
    struct rh_session first;   /* used again when it is free */
    struct rh_user_more *more; /* made when it is first needed; NULL: it had never two sessions */
    uint8_t pins;              /* somebody walks over its sessions: not to be freed */
    uint8_t name_len;
    char name[];
};

_Static_assert(offsetof(struct rh_user, name) == 74, "with a name of 22 bytes it fits 96");

/* A date of something that is no connection: a timer that knows what it is for. */
struct rh_alarm {
    struct rh_timer timer; /* struct rh_shard.alarms */
    void (*ring)(struct rh_shard *sh, struct rh_alarm *alarm);
};

/* ---- the shard ---- */

/* A listening socket and the accepts that wait on it. */
struct rh_listener {
    int fd;
    uint32_t armed;      /* bit i: accepts[i] is under way */
    uint32_t backoff_ms; /* after errors such as EMFILE; 0: none */
    struct rh_alarm retry;
    struct rh_addr addrs[RH_ACCEPTS];
};

/* FANOUTs that came after the last subscription to their room had ended here: the home has still to
 * be told that they are finished. */
struct rh_stray {
    uint64_t uid;
    uint32_t done;
    uint64_t done_bytes;
    uint8_t home;
};

#define RH_STRAYS_MAX 64

/* An item that was handed out, and asks for an acknowledgement. */
struct rh_owed_fresh {
    uint32_t slot, gen;
    uint32_t sent; /* in ticks (shard/owed_int.h) */
};

#define RH_OWED_ENDS 1024 /* ids that ended of late, as keys: a power of two */

/* What all users of a shard are owed (shard/owed_int.h). Zeroed to begin with. */
struct rh_owed_shard {
    struct rh_map items;         /* by id and user; made with the first one */
    struct rh_owed_item **slabs; /* of RH_OWED_SLAB items */
    uint32_t slab_count, slab_room;
    struct rh_owed_item *free;   /* through node.next, like the next one */
    struct rh_owed_item *untold; /* ended, and the record thread has still to be told */
    struct rh_owed *marked;      /* users of whom more may be handed out; through `next` */
    struct rh_owed_fresh *fresh; /* a circle of fresh_room (a power of two), oldest first */
    uint32_t fresh_room, fresh_head, fresh_count;
    uint64_t order;               /* of the last item that was accepted */
    uint64_t ended[RH_OWED_ENDS]; /* is an acknowledgement late, or of an unknown id? */
};

struct rh_shard {
    /* Fixed before start; then read by any thread. */
    unsigned tid;
    const struct rh_shard_env *env;

    /* Replaced as a whole by CONFIG; one pass uses one snapshot. */
    struct rh_snapshot *snapshot;
    struct rh_snapshot *next_snapshot; /* of the next pass; NULL: the same */
    const struct rh_config *cfg;       /* snapshot->cfg */

    /* Ours alone: only code under RH_ON_SHARD(sh) looks inside. */
    struct rh_uring *uring;
    struct rh_mesh *mesh;
    struct rh_wheel wheel;  /* timers of connections */
    struct rh_wheel alarms; /* struct rh_alarm.timer */
    struct rh_hubtime hubtime;
    struct rh_prng prng;
    struct rh_idgen ids;
    struct rh_map users;
    struct rh_out_stock stock;
    uint32_t *dirty;                      /* slots to flush at the end of the pass ... */
    uint32_t dirty_count;                 /* ... so many; there is room for all there are */
    struct rh_list starved;               /* receives to arm when buffers are back */
    struct rh_list credit[RH_SHARDS_MAX]; /* paused until that shard answers */
    uint64_t credit_wanted;               /* bit k: credit[k] is not empty */
    struct rh_list turns;                 /* paused: what they send is inflated in turns */

    /* Rooms, sessions, fan-out: shard/room_int.h */
    struct rh_map rooms;                   /* whose home we are, by hash of the name */
    struct rh_map rooms_by_uid;            /* likewise */
    struct rh_map taken;                   /* ids in rooms whose home we are (room_promise.c) */
    struct rh_map branches;                /* rooms with subscribers here, by uid */
    struct rh_map subs;                    /* subscriptions, by user and room */
    struct rh_list running;                /* branches with something to hand out */
    struct rh_list unreported;             /* branches that owe their home a FANNED */
    struct rh_stray strays[RH_STRAYS_MAX]; /* likewise, of branches that have gone */
    unsigned stray_count;
    struct rh_list held_rooms;          /* with asks that wait */
    struct rh_list empty_rooms;         /* without members, the longest first */
    uint64_t room_bytes;                /* histories and metas of all rooms together */
    uint32_t held_own;                  /* of these asks: our own clients' ... */
    uint64_t held_own_bytes;            /* ... and what they would be charged */
    struct rh_list detached;            /* sessions without a connection, oldest first */
    struct rh_list wanted;              /* subscriptions that wait for a credit */
    struct rh_list ending;              /* subscriptions whose end is still to be told */
    struct rh_list broadcasts;          /* being handed out, oldest first (shard/broadcast.c) */
    struct rh_list gathers;             /* questions to all shards that are out (shard/gather.c) */
    uint32_t broadcasts_out;            /* of this shard's clients, unfinished */
    uint64_t broadcast_count;           /* that came here so far; the number of the last one */
    uint64_t attachments;               /* connections that sessions have got so far */
    uint64_t sessions;                  /* that exist */
    uint64_t session_number;            /* of the last one that began */
    struct rh_hash_key session_keys[2]; /* secrets of this run: they make numbers into ids */
    bool more_fanout;                   /* work is left for the next pass */

    /* Requests that wait for a commit, ids that are remembered: shard/promise.h */
    struct rh_dedup dedup;
    struct rh_list promises;        /* that exist ... */
    struct rh_list promise_waiting; /* connections that wait until fewer are pending */
    uint32_t promise_count;         /* ... so many; of these, and of what hangs on them: ... */
    uint32_t promises_pending;      /* ... that wait for a commit ... */
    uint64_t promise_bytes;         /* ... and what their messages have */

    struct rh_owed_shard owed;

    struct rh_conn *slabs[RH_SLABS_MAX];
    uint32_t slab_count;
    struct rh_list free_conns; /* through `waiting`, like the next one */
    struct rh_list graveyard;  /* freed at the end of the pass */
    uint32_t conn_count;       /* slots in use ... */
    uint32_t late_count;       /* ... and how many of them are `late` */

    struct rh_listener *listeners;
    unsigned listener_count;
    bool accepts_short; /* fewer accepts are armed than there could be: the table is nearly full */

    uint64_t now_ns, now_ms; /* of this pass, monotonic */
    uint64_t hub_us;         /* of this pass, hub time */
    uint64_t adjust_ms;      /* when hub time was last compared with the wall clock */
    uint64_t seq;            /* the last one given to a direct message */
    uint64_t wake_due_ms;    /* when the last wait was to end */
    uint64_t pass;
    unsigned reaped;  /* completions of the last pass ... */
    unsigned arrived; /* ... receives among them ... */
    unsigned popped;  /* ... and events */
    bool loaded;      /* what users here were owed before we started has been told */
    bool draining, stopping;
    bool reaping;      /* completions are being looked at */
    bool shut;         /* nobody is accepted any more */
    bool ring_failed;  /* nothing can be received or sent any more */
    uint64_t drain_ms; /* when draining began */
    uint64_t drain_ns; /* drain.rate, as a rate */
    uint64_t drain_seed;
    uint64_t drain_round; /* of the last DRAIN; 0: none yet */
    uint64_t quiet_round; /* the one in which we last reported that we are quiet */

    struct rh_http_head head; /* of the request being looked at */
    struct iovec iov[RH_URING_IOV];
    struct rh_cqe cqes[RH_REAP];

    /* Shared: we write, gauges and livez read (relaxed: a late value is fine). */
    alignas(RH_CACHE_LINE) _Atomic uint64_t beat_ms;
    /* Shared: we, and those who hand over to us, add; we, and they where it failed, take off
     * (relaxed: it tells of nothing else). Slots of our table that are in use or promised. */
    _Atomic uint32_t slots;
    struct rh_stats stats;
};

static inline uint64_t rh_tag(enum rh_op op, const struct rh_conn *c)
{
    return (uint64_t)op << 56 | (uint64_t)(c->gen & RH_GEN_MASK) << 32 | c->slot;
}

/* A time of a connection: not after now, and less than 2^32 ms (49 days) ago. What is asked for is
 * not: dates are at most a day away (heartbeat.timeout), and on a connection that is not read for
 * longer nobody asks when it was heard. */
static inline uint64_t rh_conn_ms(const struct rh_shard *sh, uint32_t low_ms)
{
    return sh->now_ms - (uint32_t)((uint32_t)sh->now_ms - low_ms);
}

/* 0: no limit. */
static inline uint32_t rh_connections_max(const struct rh_shard *sh)
{
    uint32_t max = sh->cfg->limits_connections;

    return max ? max : sh->env->connections_max;
}

static inline uint64_t rh_now_unix_ms(const struct rh_shard *sh)
{
    return sh->hub_us / 1000;
}

static inline void rh_alarm_init(struct rh_alarm *a,
                                 void (*ring)(struct rh_shard *sh, struct rh_alarm *alarm))
{
    rh_timer_init(&a->timer);
    a->ring = ring;
}

static inline void rh_alarm_set(struct rh_shard *sh, struct rh_alarm *a, uint64_t due_ms)
{
    rh_timer_set(&sh->alarms, &a->timer, due_ms);
}

static inline void rh_alarm_clear(struct rh_shard *sh, struct rh_alarm *a)
{
    rh_timer_clear(&sh->alarms, &a->timer);
}

/* ---- accept.c ---- */

void rh_accept_start(struct rh_shard *sh);
/* Nobody is accepted from now on: cancels, and sockets close when the last one has ended. May come
 * twice. */
void rh_accept_stop(struct rh_shard *sh);
void rh_accept_done(struct rh_shard *sh, uint64_t tag, int res);
bool rh_accept_idle(const struct rh_shard *sh); /* nothing under way */
void rh_accept_resume(struct rh_shard *sh);     /* connections have gone: arms what is missing */

/* ---- slot.c ---- */

/* Promises a slot of this shard's table, if `keep` others stay free. It is given back when the slot's
 * close is queued, or when nothing came into it. Ordinary descriptors: always true, not counted. */
bool rh_slot_take_any(struct rh_shard *sh, uint32_t keep);
void rh_slot_give_any(struct rh_shard *sh);

/* ---- conn.c: slots, states, receiving, sending, pausing, ending ---- */

struct rh_conn *rh_conn_create(struct rh_shard *sh, int fd, enum rh_conn_kind kind);
struct rh_conn *rh_conn_find(struct rh_shard *sh, uint32_t slot, uint32_t gen);
void rh_conn_set_state(struct rh_shard *sh, struct rh_conn *c, enum rh_conn_state state);
/* The descriptor belongs to another shard now; nothing may be in flight. */
void rh_conn_gone(struct rh_shard *sh, struct rh_conn *c);

void rh_conn_recv(struct rh_shard *sh,
                  struct rh_conn *c); /* arms the receive that its kind wants */
void rh_conn_on_recv(struct rh_shard *sh, struct rh_conn *c, const struct rh_cqe *cqe);
void rh_conn_on_poll(struct rh_shard *sh, struct rh_conn *c);
void rh_conn_on_send(struct rh_shard *sh, struct rh_conn *c, int res);
/* Interprets bytes; what is not consumed stays in c->rest. `at` may be written to. */
void rh_conn_take_bytes(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len);
/* It is a user's, or an echo, from now on: counted, read as frames, with a heartbeat. */
void rh_conn_open(struct rh_shard *sh, struct rh_conn *c, enum rh_conn_kind kind);
void rh_conn_rearm_starved(struct rh_shard *sh);
/* It is pinged: parks it, if it has said nothing since the last time. */
void rh_conn_beat(struct rh_shard *sh, struct rh_conn *c);

/* Its queue, whose messages leave in the form that was agreed on. NULL: no memory for one. */
static inline struct rh_outq *rh_conn_queue(struct rh_shard *sh, struct rh_conn *c)
{
    if (!c->out && (c->out = rh_outq_take(&sh->stock)))
        c->out->bits = c->squeeze_bits;
    return c->out;
}

/* Room for a frame of our own; see rh_outq_own. NULL: no memory, and the connection is being cut. */
uint8_t *rh_conn_own(struct rh_shard *sh, struct rh_conn *c, size_t len);
void rh_conn_own_done(struct rh_shard *sh, struct rh_conn *c, size_t used);
/* Queues one use of a message; at the bound limits.slow_consumer decides (shard/slow.c). RH_EFULL:
 * it was dropped, or the connection is being closed; RH_ENOMEM; RH_ECLOSED: the connection takes no
 * messages any more. */
int rh_conn_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h);
/* The same for an OPEN one, whatever its bound. */
int rh_conn_put(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h);
/* A message for it found no memory: it is closed. Returns RH_ENOMEM. */
int rh_conn_no_memory(struct rh_shard *sh, struct rh_conn *c);
/* Queues what a subscription missed: it counts in no bound. RH_ENOMEM, RH_ECLOSED. */
int rh_conn_push_missed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h);
/* Queues what its user is owed: it counts in no bound. RH_EFULL: it has no room for that. */
bool rh_conn_takes_owed(const struct rh_shard *sh, const struct rh_conn *c);
int rh_conn_push_owed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h);
/* A share of a room's message, in its order: what comes before a send was tried may be more. */
bool rh_conn_takes_share(const struct rh_shard *sh, const struct rh_conn *c);
int rh_conn_put_owed(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h); /* is OPEN */
/* Lets go of the messages that wait in its queue; returns how many were lost by that. What its user is
 * owed is not. */
unsigned rh_conn_drop_messages(struct rh_shard *sh, struct rh_conn *c);
/* The frame of its own that was just queued has to stay in front of the room messages that follow,
 * whatever their priority: an answer to a join. */
void rh_conn_fence(struct rh_conn *c);
/* Tells it that these messages of a room were lost: stands in the queue where they would have. */
int rh_conn_push_lost(struct rh_shard *sh, struct rh_conn *c, const struct rh_lost *lost);
void rh_conn_dirty(struct rh_shard *sh, struct rh_conn *c);
/* Puts what waits under way, unless something is. */
void rh_conn_flush(struct rh_shard *sh, struct rh_conn *c);
void rh_conn_flush_all(struct rh_shard *sh);
/* Does its queue stand at a bound after a send was tried? */
bool rh_conn_full(const struct rh_shard *sh, const struct rh_conn *c);
/* Does it stand so far above that even what one pass brings does not explain it? */
bool rh_conn_overfull(const struct rh_shard *sh, const struct rh_conn *c);
/* Does it stand at four times a bound after a send was tried? */
bool rh_conn_choked(const struct rh_shard *sh, const struct rh_conn *c);

void rh_conn_pause(struct rh_shard *sh, struct rh_conn *c, unsigned cause);
void rh_conn_resume(struct rh_shard *sh, struct rh_conn *c, unsigned cause);

/* Leaves its user and sends a close frame with this code; harmless when it is closing already. */
void rh_conn_close(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *reason);
/* The peer's close frame came. */
void rh_conn_peer_close(struct rh_shard *sh, struct rh_conn *c, unsigned code);
/* Nothing more to send: shuts our side once the queue is empty, then waits for the peer. */
void rh_conn_finish(struct rh_shard *sh, struct rh_conn *c);
/* Ends it now. `code` is what is counted. */
void rh_conn_cut(struct rh_shard *sh, struct rh_conn *c, unsigned code);
void rh_conn_let_go(struct rh_shard *sh, struct rh_conn *c); /* DEAD for too long */
void rh_conns_each(struct rh_shard *sh, void (*visit)(struct rh_shard *sh, struct rh_conn *c));
void rh_conns_bury(struct rh_shard *sh);
void rh_conns_fini(struct rh_shard *sh);

/* ---- client.c: frames of WS and ECHO connections ---- */

size_t rh_client_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len);
void rh_client_retry(struct rh_shard *sh, struct rh_conn *c); /* the held message, again */
/* An answer to the connection's session has come: a message that waited for that is tried again. */
void rh_client_unhold(struct rh_shard *sh, struct rh_conn *c);
void rh_client_ping(struct rh_shard *sh, struct rh_conn *c);

/* ---- httpd.c: requests before, and instead of, an upgrade ---- */

size_t rh_httpd_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len);
/* Answers with a JSON error. `keep`: the connection may go on, if the request allows it. */
void rh_httpd_refuse(struct rh_shard *sh, struct rh_conn *c, unsigned status, const char *why,
                     bool keep);

/* ---- arrive.c: who is it, and on to its user's shard ---- */

/* All that a connection brings to its user's shard. Moves with the hand-over event. */
struct rh_arrival {
    int fd;
    struct rh_upgrade up;
    uint64_t hash;
    uint16_t bucket; /* of the peer's address */
    uint8_t name_len, device_len, type_len, role_len;
    uint8_t resume_len; /* 0 or 32: a session's name */
    char name[RH_NAME_MAX];
    char device[RH_NAME_MAX];
    char user_type[RH_NAME_MAX];
    char role[RH_NAME_MAX];
    char resume[32];
    uint32_t rooms_len; /* rooms= as it was written: the first part of bytes */
    uint32_t left_len;  /* bytes that came behind the handshake: the second */
    uint8_t bytes[];
};

/* A checked upgrade request for /ws; `left` came behind its head, and *ret_taken says how much of it
 * moved on with the connection (it is 0 before). Returns the status to refuse it with, or 0. */
unsigned rh_arrive(struct rh_shard *sh, struct rh_conn *c, const struct rh_http_head *head,
                   const struct rh_upgrade *up, const uint8_t *left, size_t left_len,
                   size_t *ret_taken, const char **ret_why);
void rh_arrive_echo(struct rh_shard *sh, struct rh_conn *c, const struct rh_upgrade *up);
void rh_arrive_pop(struct rh_shard *sh, const struct rh_event *ev); /* HANDOVER */
/* Its direct descriptor was copied to the user's shard, where it is `res`, or that failed. */
void rh_arrive_passed(struct rh_shard *sh, struct rh_conn *c, int res);

/* ---- slow.c: what happens at the bound ---- */

/* What was dropped of one stream of messages. The name behind it is a room's. */
struct rh_lost {
    uint64_t uid; /* of a room */
    uint64_t from, to;
    uint64_t count;
    uint8_t kind; /* enum rh_msg_kind */
    uint8_t name_len;
    char name[];
};

/* A message for a connection that stands at its bound: drops this one or others, or closes. Returns
 * as rh_conn_push. */
int rh_slow_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h);
/* Before a frame that nobody asked for just now, and that is never dropped. True: it is not to be
 * queued, too many stand there already, and the connection is closed with 4408. */
bool rh_slow_choked(struct rh_shard *sh, struct rh_conn *c);
/* Before a send: losses that are told now become frames. False: no memory, the connection ends. */
bool rh_slow_tell(struct rh_shard *sh, struct rh_conn *c);

/* ---- retry.c: direct messages that found no room on any device (drop_newest) ---- */

/* Has the user such messages, or no device with room? Then this one has to go there, too. */
bool rh_retry_wanted(const struct rh_shard *sh, struct rh_user *user);
/* Takes a use of the message over. RH_EFULL: too many wait; RH_ENOMEM. */
int rh_retry_add(struct rh_shard *sh, struct rh_user *user, struct rh_handle *h);
void rh_retry_drop(struct rh_shard *sh, struct rh_user *user); /* its last connection has gone */

/* ---- admit.c: limits at the door ---- */

/* A connection was accepted: false when there are too many handshakes in progress. */
bool rh_admit_accept(struct rh_shard *sh, struct rh_conn *c, const struct rh_addr *peer);
/* Before an upgrade: origin, handshakes a second, draining. 0 or the status to refuse it with. */
unsigned rh_admit_upgrade(struct rh_shard *sh, const struct rh_conn *c,
                          const struct rh_http_head *head, const char **ret_why);
/* A user's connection, on the user's shard (`user` NULL: it has none yet): takes its places, and
 * makes room where a policy says so. 0 or the status to refuse it with. */
unsigned rh_admit(struct rh_shard *sh, struct rh_user *user, const struct rh_arrival *a,
                  const char **ret_why);
unsigned rh_admit_echo(struct rh_shard *sh, const struct rh_conn *c, const char **ret_why);
/* Gives back what rh_admit or rh_admit_echo took. */
void rh_admit_give(struct rh_shard *sh, const struct rh_conn *c);

/* ---- squeeze_conn.c: permessage-deflate on a connection ---- */

/* What a new connection may agree on. False: nothing, compression is off. */
bool rh_squeeze_wish(const struct rh_shard *sh, struct rh_deflate_wish *ret_wish);
/* What it has agreed on holds from here on; flushes what is queued. False: no memory, it is closed. */
bool rh_squeeze_begin(struct rh_shard *sh, struct rh_conn *c, const struct rh_deflate_terms *terms);
/* squeeze_bits: compresses a frame of its own where it lies, if it may be; returns its length. */
size_t rh_squeeze_own(struct rh_shard *sh, struct rh_conn *c, uint8_t *frame, size_t len);
/* has_context: packs the send that sh->iov describes, if there is something to compress; returns how
 * many pieces there are now. rh_squeeze_sent: that send is over. */
unsigned rh_squeeze_pack(struct rh_shard *sh, struct rh_conn *c, unsigned count);
void rh_squeeze_sent(struct rh_shard *sh, struct rh_conn *c);
void rh_squeeze_end(struct rh_shard *sh, struct rh_conn *c); /* has_context: lets go of it */
/* Has this pass inflated enough, and it might send more? Then it is paused until its turn comes. */
bool rh_squeeze_pause(struct rh_shard *sh, struct rh_conn *c);
/* A new pass: lets go on who waits for a turn, the longest first. */
void rh_squeeze_turns(struct rh_shard *sh);
/* A whole message that came compressed, inflated into a block of its own. Returns 0, or the code to
 * close with: 1007 damaged, or not UTF-8 where `text`; 1009 too large; 1013 no memory. */
unsigned rh_squeeze_inflate(struct rh_shard *sh, struct rh_conn *c, const uint8_t *in, size_t len,
                            bool text, struct rh_block **ret_message, const char **ret_why);
/* The same for one of over RH_SQUEEZE_SOME bytes, as far as this pass goes: then it returns
 * RH_SQUEEZE_WAITS, and the connection is paused until its turn comes, to go on with the same bytes.
 * *opcode: the message's; read when it begins, told when it goes on. */
#define RH_SQUEEZE_WAITS 1
unsigned rh_squeeze_inflate_long(struct rh_shard *sh, struct rh_conn *c, const uint8_t *in,
                                 size_t len, uint8_t *opcode, struct rh_block **ret_message,
                                 const char **ret_why);
/* Is it in the middle of such a one? */
bool rh_squeeze_inflating(const struct rh_shard *sh, const struct rh_conn *c);

/* ---- user.c ---- */

struct rh_user *rh_user_find(const struct rh_shard *sh, uint64_t hash, const char *name,
                             size_t len);
/* The same, made if need be, and pinned. NULL: no memory. */
struct rh_user *rh_user_take(struct rh_shard *sh, uint64_t hash, const char *name, size_t len);
/* What few users have, made if need be. NULL: no memory. */
struct rh_user_more *rh_user_more(struct rh_user *user);
void rh_user_pin(struct rh_user *user);
void rh_user_unpin(struct rh_shard *sh, struct rh_user *user); /* may free it */

/* ---- requests.c, route.c ---- */

/* In place of a shard: it waits for an answer of its own (rh_client_unhold), or until fewer requests
 * wait for a commit (shard/promise.h). */
#define RH_WAIT_OWN      RH_SHARDS_MAX
#define RH_WAIT_PROMISES (RH_SHARDS_MAX + 1)
/* A client's valid request. RH_EFULL: nothing has been done, it needs a credit of shard *ret_shard
 * first, or what RH_WAIT_OWN or RH_WAIT_PROMISES say. */
int rh_request(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
               unsigned *ret_shard);

struct rh_param;
/* Reads the data's members as rh_params_read does. False: it could not, and the client was told. */
bool rh_request_params(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                       const struct rh_param *rows, unsigned count, struct rh_json *out);
/* What several requests have among their data. NULL: fine; else why it is refused with 400. */
const char *rh_check_given_id(struct rh_json v, char dst[RH_ID_GIVEN_MAX], struct rh_span *ret_id,
                              const char *why);
/* `id`: the one that was given, or a new one. */
const char *rh_check_id(struct rh_shard *sh, struct rh_json v, char dst[RH_ID_GIVEN_MAX],
                        struct rh_span *ret_id);
/* `ack`: whether it asks for an acknowledgement. */
bool rh_check_ack(const struct rh_shard *sh, struct rh_json v);
const char *rh_check_priority(struct rh_json v, const char **ret_name, bool *ret_high);
/* What stands behind a message's text: whom it is for, who sends it, its id. */
void rh_put_names(struct rh_writer *w, struct rh_msg *msg, struct rh_span to,
                  const struct rh_user *from, struct rh_span id);
size_t rh_names_room(struct rh_span to, const struct rh_user *from, struct rh_span id);
/* Where in the message the next byte will stand. */
static inline uint32_t rh_written(const struct rh_writer *w, const struct rh_msg *msg)
{
    return (uint32_t)((const uint8_t *)w->at - msg->bytes);
}
/* The values of `ack` and `attempt` in its text, which repetitions change (rh_msg_again). */
void rh_put_ack(struct rh_writer *w, struct rh_msg *msg, bool ack);
void rh_put_attempt(struct rh_writer *w, struct rh_msg *msg);
/* When it is made, and until when it is owed; ttl_ms 0: offline.ttl. */
void rh_set_times(const struct rh_shard *sh, struct rh_msg *msg, uint64_t ttl_ms);
/* The name of a user or a room: *ret_len bytes into dst. */
bool rh_check_name(struct rh_json v, char dst[RH_NAME_MAX], uint8_t *ret_len);

/* ---- answer.c: the frames in which clients are answered and notified ---- */

/* A text frame of our own that is being written: its header is put in front at the end. */
struct rh_frame {
    struct rh_writer w;
    uint8_t *own;
    size_t head; /* bytes left for the header */
};

/* False: it takes no frames any more. `room` is what the text needs at most. */
bool rh_frame_begin(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f, size_t room);
void rh_frame_end(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f);
#define RH_FRAME_ROOM 320 /* of an answer or notify: what its size is known of */
/* {"type":"response",...,"data":   then the data, then rh_put_answer_end. */
void rh_put_response(struct rh_writer *w, struct rh_span request_id);
void rh_put_answer_end(struct rh_shard *sh, const struct rh_conn *c, struct rh_writer *w);
/* {"type":"notify","event":"...","data":   then the data, then rh_put_notify_end. */
void rh_put_notify(struct rh_writer *w, struct rh_span event);
void rh_put_notify_end(const struct rh_shard *sh, struct rh_writer *w);
void rh_respond_error(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                      unsigned err, const char *why);
void rh_respond_id(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                   struct rh_span id, const char *status);
void rh_respond_data(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                     struct rh_span data);

/* Could a message of that size be routed there now? */
bool rh_route_open(const struct rh_shard *sh, unsigned to, size_t bytes);
struct rh_request;
/* Routes a direct message (takes it over) and answers the asker, at once or later; the way has to
 * be open, and the request admitted (rh_promise_admit). */
void rh_route_send(struct rh_shard *sh, struct rh_conn *c, unsigned to, struct rh_msg *take_msg,
                   const struct rh_request *r);
void rh_route_send_pop(struct rh_shard *sh, const struct rh_event *ev);
void rh_route_sent_pop(struct rh_shard *sh, const struct rh_event *ev);
/* To every device of a user, which is pinned: RH_OK when one has it in its queue, else RH_EFULL,
 * RH_ENOMEM, or RH_ECLOSED without any. */
int rh_route_push(struct rh_shard *sh, struct rh_user *user, struct rh_handle *h);
/* Lets those go on who waited for a credit that is there now. */
void rh_route_resume(struct rh_shard *sh);
/* Those who waited until fewer requests wait for a commit: RH_WAIT_PROMISES. */
void rh_route_resume_promised(struct rh_shard *sh);

/* ---- gather.c, broadcast.c ---- */

/* The request `broadcast`; returns as rh_request. */
int rh_broadcast_request(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                         unsigned *ret_shard);
void rh_broadcast_pop(struct rh_shard *sh, const struct rh_event *ev);
void rh_broadcast_done_pop(struct rh_shard *sh, const struct rh_event *ev);
/* Hands out what is under way to at most `budget` connections; returns how many it looked at. */
unsigned rh_broadcast_run(struct rh_shard *sh, unsigned budget);
void rh_broadcasts_fini(struct rh_shard *sh);

/* ---- drain.c ---- */

void rh_drain_begin(struct rh_shard *sh, uint64_t round);
/* OPEN, while draining: the next date of this connection, and what happens at it. */
uint64_t rh_drain_due(const struct rh_shard *sh, const struct rh_conn *c);
void rh_drain_fire(struct rh_shard *sh, struct rh_conn *c);

/* ---- heartbeat.c: all dates of a connection ---- */

void rh_heartbeat_set(struct rh_shard *sh, struct rh_conn *c);
/* A send begins: look in time whether the peer takes it. */
void rh_heartbeat_watch_send(struct rh_shard *sh, struct rh_conn *c);
void rh_heartbeat_fire(struct rh_shard *sh, struct rh_conn *c);

#endif
