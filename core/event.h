/* core/event.h - the words that cross the rings: one event is one cache line.
 *
 * Each kind has a class, which says what happens at a bound (core/mesh does it):
 *
 *   request      answered by exactly one reply, which returns the credit that the request took;
 *                without a credit it is refused (RH_EFULL) and nothing has moved.
 *   consequence  of something already admitted: never refused; a full ring makes it wait in the
 *                producer's spill. Those that answer a request are its replies.
 *   lossy        dropped and counted when the ring is full.
 *   control      between the control thread and the others: few, treated like consequences.
 *
 * A fifth class, forwarded (a request that needs another owner; it has credits of its own, and
 * handling one never sends a request, so that waiting closes no cycle), comes with the HTTP API.
 *
 * Ownership  what `msg` points to moves with the event where the table says so; where nothing
 *            moved (RH_EFULL, RH_ENOMEM, a lossy event dropped) it is still the pusher's.
 * Threads    an event belongs to the thread that holds it; the functions here may run on any.
 */
#ifndef RH_EVENT_H
#define RH_EVENT_H

#include "core/base.h"

enum rh_event_class {
    RH_CLASS_NONE,
    RH_CLASS_REQUEST,
    RH_CLASS_CONSEQUENCE,
    RH_CLASS_LOSSY,
    RH_CLASS_CONTROL,
};

/* Who asked for a promise: the pointer of the asker's shard, which only it looks behind, and its tid.
 * The fields of the events about promises (m.. stands for: msg moves a hold):
 *
 *   SENT         a: enum rh_wire_error;  flags RH_SENT_OWED: none, and a COMMITTED answers
 *   ACCEPTED     m..  cookie, conn: the asker's;  a: its tid;  b: attempt that is out (0: none; a
 *                     room's: 0, and rh_share.live says so for each share);  c: dedup_ms (unix), how
 *                     long the sender's id is remembered, 0: not;  flags: RH_ACCEPT_;  d: a room's:
 *                     the recipients that its answer names (the publisher may be one; who is owed it
 *                     is in msg->shares, which is never NULL then, and may be empty)
 *   AWAIT        cookie, conn, a, d: as ACCEPTED;  answered as soon as msg is committed. A direct one:
 *                     msg lent by who owes it, whose SETTLED follows in the same ring;  a room's: m..,
 *                     and it may have ended meanwhile: then it was committed before
 *   ATTEMPT      msg lent;  a: attempt;  b: at (unix ms);  c: share
 *   PROGRESS     msg lent;  a: state;  b: at;  c: share: told to the sender, not durable
 *   SETTLED      m..  a: state | reason << 8;  b: at;  c: share: the end of what a user was owed
 *   COMMITTED    cookie, conn;  a: enum rh_wire_error;  b: flags of ACCEPTED;  c: seq;  d: recipients
 *   STATUS       m..  to the sender's shard;  a: state | reason << 8;  b: recipients << 32 |
 *                     acknowledged;  flags 1: it is the end
 *   OWED         m..  to the owner's shard, at start;  a: last attempt;  c: share (of msg->shares, which
 *                     are there again, each with its index)
 *   OWED_ROOM    m..  to the home of a room, at start, once a message: its id is taken there until
 *                     RELEASED;  b: recipients that its answer named
 *   LOADED       to every shard, behind all OWED, OWED_ROOM and REMEMBER
 *   REMEMBER     msg: struct rh_remembered, on the heap; moves. An id may come twice
 *   RELEASED     m..  to the home of a room: nobody is owed that message any more
 *   ARM          a: slot | generation << 32;  b: repetitions so far;  c: sent at (mono ms);
 *                     d: expires at (mono ms; UINT64_MAX: never)
 *   DISARM       a: as ARM
 *   DUE          a: as ARM;  b: enum rh_due.  With RH_DUE_AGAIN a is instead: first slot | how many
 *                     << 32: there was no memory for some ARM of these slots, and is now; what is in
 *                     flight in them is to be armed again
 */
enum { RH_SENT_OWED = 1 };
enum { RH_ACCEPT_ASKED = 1, RH_ACCEPT_STORED = 2, RH_ACCEPT_FROM_USER = 4 };
enum rh_due { RH_DUE_REPEAT, RH_DUE_GIVE_UP, RH_DUE_EXPIRED, RH_DUE_AGAIN };

/* An id that a sender gave, and its outcome: what a shard is told at start. */
struct rh_remembered {
    uint64_t until_ms; /* unix */
    uint64_t seq;
    uint32_t recipients;
    uint8_t event; /* RH_MSG_DIRECT: message.send, RH_MSG_ROOM: room.publish */
    uint8_t flags; /* RH_ACCEPT_STORED */
    uint8_t from_len, to_len, id_len;
    char bytes[]; /* from, to, id */
};

/* X(kind, class, the request that it answers or NONE, help) */
#define RH_EVENTS(X)                                                                               \
    X(SEND, REQUEST, NONE, "message.send on its way to the receiver's shard; msg moves")           \
    X(SENT, CONSEQUENCE, SEND, "what became of a SEND")                                            \
    X(HANDOVER, REQUEST, NONE, "a connection whose user lives on the popping shard; msg moves")    \
    X(HANDED, CONSEQUENCE, HANDOVER, "what became of a HANDOVER; a is the status")                 \
    X(ROOM, REQUEST, NONE, "an ask on its way to the room's home (shard/room_int.h); msg moves")   \
    X(ROOM_DONE, CONSEQUENCE, ROOM, "the same ask with its answer; msg moves")                     \
    X(FANOUT, CONSEQUENCE, NONE,                                                                   \
      "a room's message or notice for who subscribes here; msg moves a hold, a is the uid")        \
    X(ROOM_OVER, CONSEQUENCE, NONE, "the room with uid a has been deleted; msg, if any, tells it") \
    X(FANNED, CONSEQUENCE, NONE,                                                                   \
      "to the home of room a: b more FANOUTs, of c bytes, are finished here")                      \
    X(UNSUB, CONSEQUENCE, NONE,                                                                    \
      "to the home of room a: a subscription changed; flags say how, cookie is the home's member") \
    X(BROADCAST, REQUEST, NONE, "for every matching user here; msg moves a hold")                  \
    X(BROADCAST_DONE, CONSEQUENCE, BROADCAST,                                                      \
      "all have been given it; a is how many users, flags 1: nobody, for want of memory")          \
    X(CONFIG, CONTROL, NONE, "a new snapshot of the configuration; msg moves a hold")              \
    X(QUIET, CONSEQUENCE, NONE,                                                                    \
      "to the control thread: nobody to wait for, no credit out, no spill; a is the round")        \
    X(ACCEPTED, CONSEQUENCE, NONE, "shard to record thread: a message is owed from now on")        \
    X(AWAIT, CONSEQUENCE, NONE, "shard to record thread: one more who asks for an owed message")   \
    X(ATTEMPT, CONSEQUENCE, NONE, "shard to record thread: an owed message was handed out")        \
    X(PROGRESS, CONSEQUENCE, NONE, "shard to record thread: a state on the way, for the sender")   \
    X(SETTLED, CONSEQUENCE, NONE, "shard to record thread: what a user was owed has ended")        \
    X(COMMITTED, CONSEQUENCE, NONE, "record thread to the asker's shard: the promise is durable")  \
    X(STATUS, CONSEQUENCE, NONE, "record thread to the sender's shard: what became of a message")  \
    X(OWED, CONSEQUENCE, NONE, "record thread to the owner's shard, at start: a message is owed")  \
    X(OWED_ROOM, CONSEQUENCE, NONE,                                                                \
      "record thread to a room's home, at start: an id is taken there")                            \
    X(REMEMBER, CONSEQUENCE, NONE, "record thread to the sender's shard, at start: an id")         \
    X(LOADED, CONSEQUENCE, NONE, "record thread to each shard: all that is owed has been told")    \
    X(RELEASED, CONSEQUENCE, NONE, "record thread to a room's home: a message is owed no more")    \
    X(ARM, CONSEQUENCE, NONE, "shard to ack thread: an owed message is unanswered")                \
    X(DISARM, CONSEQUENCE, NONE, "shard to ack thread: that is over")                              \
    X(DUE, REQUEST, NONE, "ack thread to shard: its date has come; a hint")                        \
    X(DUE_DONE, CONSEQUENCE, DUE, "shard to ack thread: looked at")                                \
    X(LOG, LOSSY, NONE, "a line for the log thread; msg moves")                                    \
    X(DRAIN, CONTROL, NONE,                                                                        \
      "begin to close, the second time accept nobody, and report when quiet; a is the round")      \
    X(STOP, CONTROL, NONE, "end the thread")

enum rh_event_kind {
    RH_EV_NONE, /* no event: zeroed memory */
#define RH_EVENT_KIND(kind, class, answers, help) RH_EV_##kind,
    RH_EVENTS(RH_EVENT_KIND)
#undef RH_EVENT_KIND
        RH_EV_KINDS
};

struct rh_event {
    uint8_t kind;     /* enum rh_event_kind */
    uint8_t flags;    /* per kind */
    uint16_t from;    /* who pushed it; filled by the mesh */
    uint32_t cost;    /* bytes of payload; a request's are charged to its credit, and its reply
                       * carries them back (both filled by the mesh) */
    void *msg;        /* payload, per kind */
    void *cookie;     /* the asker's own pointer; the reply echoes it */
    uint64_t conn;    /* slot and generation of the asking connection; the reply echoes it */
    uint64_t a, b, c; /* per kind */
    uint64_t d;       /* per kind; fills the line */
};

_Static_assert(sizeof(struct rh_event) == RH_CACHE_LINE, "an event is one cache line");
_Static_assert(RH_EV_KINDS <= UINT8_MAX, "a kind fits its byte");

static inline enum rh_event_class rh_event_class(unsigned kind)
{
    static const uint8_t classes[RH_EV_KINDS] = {
#define RH_EVENT_CLASS(kind, class, answers, help) [RH_EV_##kind] = RH_CLASS_##class,
        RH_EVENTS(RH_EVENT_CLASS)
#undef RH_EVENT_CLASS
    };

    return kind < RH_EV_KINDS ? (enum rh_event_class)classes[kind] : RH_CLASS_NONE;
}

/* The kind of request that a reply answers; RH_EV_NONE when `kind` is no reply. */
static inline enum rh_event_kind rh_event_answers(unsigned kind)
{
    static const uint8_t answers[RH_EV_KINDS] = {
#define RH_EVENT_ANSWERS(kind, class, answers, help) [RH_EV_##kind] = RH_EV_##answers,
        RH_EVENTS(RH_EVENT_ANSWERS)
#undef RH_EVENT_ANSWERS
    };

    return kind < RH_EV_KINDS ? (enum rh_event_kind)answers[kind] : RH_EV_NONE;
}

static inline bool rh_event_is_request(unsigned kind)
{
    return rh_event_class(kind) == RH_CLASS_REQUEST;
}

static inline bool rh_event_is_reply(unsigned kind)
{
    return rh_event_answers(kind) != RH_EV_NONE;
}

/* "SEND"; "?" for what is no kind. */
static inline const char *rh_event_name(unsigned kind)
{
    static const char *const names[RH_EV_KINDS] = {
#define RH_EVENT_NAME(kind, class, answers, help) [RH_EV_##kind] = #kind,
        RH_EVENTS(RH_EVENT_NAME)
#undef RH_EVENT_NAME
    };

    return kind < RH_EV_KINDS && names[kind] ? names[kind] : "?";
}

/* The table's sentence about a kind; "" for what is no kind. */
static inline const char *rh_event_help(unsigned kind)
{
    static const char *const helps[RH_EV_KINDS] = {
#define RH_EVENT_HELP(kind, class, answers, help) [RH_EV_##kind] = help,
        RH_EVENTS(RH_EVENT_HELP)
#undef RH_EVENT_HELP
    };

    return kind < RH_EV_KINDS && helps[kind] ? helps[kind] : "";
}

#endif
