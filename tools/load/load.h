/* tools/load/load.h - what the parts of ringhub-bench share: the run, its workers, connections.
 *
 *     main -> opts    the command line
 *          -> run     the conductor: starts workers, sets the times, samples the server, prints
 *               -> worker     a thread: its uring, its share of the connections, one pass
 *                    -> pace  when messages are due
 *                    -> open  sockets and handshakes, a bounded number at a time; the goodbye
 *                    -> conn  one connection: bytes in, frames out
 *                         -> zip   permessage-deflate
 *                         -> mode_*   what messages mean: echo, send, fanout, mixed (and ack)
 *                              -> envelope   what ringhub says
 *                              -> flow, audience, book, payload   order and content, checked
 *                              -> mix, returns   mixed: which class a message is of; who is cut off
 *          -> report  text and JSON
 *
 * Threads    the conductor (main) and the workers. A worker alone touches its connections; what
 *            both look at is atomic and says who writes it. Merging comes after joining.
 */
#ifndef LOAD_LOAD_H
#define LOAD_LOAD_H

#include <pthread.h>

#include "core/base.h"
#include "core/hist.h"
#include "core/prng.h"
#include "core/uring.h"
#include "proto/deflate.h"
#include "proto/json.h"
#include "proto/ws.h"
#include "tools/load/audience.h"
#include "tools/load/book.h"
#include "tools/load/flow.h"
#include "tools/load/opts.h"

#define LOAD_HANDSHAKES   256                     /* in progress at a time, each worker */
#define LOAD_STALL_NS     UINT64_C(10000000000)   /* without one being finished: the server hangs */
#define LOAD_DRAIN_NS     UINT64_C(5000000000)    /* how long to wait, unless --drain says it */
#define LOAD_GOODBYE_NS   UINT64_C(2000000000)    /* without one closing handshake being finished */
#define LOAD_SETTLE_NS    UINT64_C(1000000000)    /* connect: from the last handshake to holding */
#define LOAD_OUT_BYTES    (1u << 20)              /* unsent bytes of a connection: then it holds */
#define LOAD_LATE_NS      UINT64_C(1000000)       /* the tool itself is late from here on */
#define LOAD_BUSY_PERCENT 90                      /* of a CPU: the tool is the bottleneck above */
#define LOAD_COPIES       LOAD_DEPTH_MAX          /* fanout: messages remembered by a worker */
#define LOAD_MESSAGE_MAX  (LOAD_SIZE_MAX + 65536) /* bytes of what comes in, inflated */
#define LOAD_NAME_ROOM    32                      /* bytes that a user's or room's name needs */
#define LOAD_QUERY_ROOM   256                     /* and what follows it when it comes back */

/* ---- what is counted ---- */

/* name, is it a fault, and the words for it. Each worker counts for itself; the conductor adds. */
#define LOAD_COUNTS(X)                                                                             \
    X(opened, false, "connections opened")                                                         \
    X(refused, true, "connections refused")                                                        \
    X(broken, true, "connections broken")                                                          \
    X(due, false, "messages due by the schedule")                                                  \
    X(sent, false, "messages sent")                                                                \
    X(completed, false, "messages arrived")                                                        \
    X(answered, false, "requests answered")                                                        \
    X(lost, true, "messages lost")                                                                 \
    X(unanswered, true, "requests without an answer")                                              \
    X(reordered, true, "messages reordered")                                                       \
    X(corrupted, true, "messages corrupted")                                                       \
    X(unexpected, true, "messages not expected (sent twice, or never asked for)")                  \
    X(rejected, true, "messages refused by the server")                                            \
    X(unsent, true, "messages not sent, as their connection was broken")                           \
    X(plain, false, "connections without compression")                                             \
    X(deflated, false, "messages sent compressed")                                                 \
    X(compressed, false, "messages that came compressed")                                          \
    X(pings, false, "pings answered")                                                              \
    X(held, false, "messages held back, as their connection still had others to send")             \
    X(accepted, false, "acknowledged messages accepted")                                           \
    X(succeeded, false, "of them told as success")                                                 \
    X(ended_otherwise, false, "of them told as ended without an acknowledgement")                  \
    X(owed, false, "of them still owed to somebody who never acknowledges")                        \
    X(away, false, "of them without a known end, as their sender was cut off meanwhile")           \
    X(turned_away, false, "requests answered store_failed, queue_full or user_offline")            \
    X(repeated, false, "deliveries again")                                                         \
    X(kept, false, "plain messages kept behind those that nobody acknowledges")                    \
    X(cut, false, "connections cut off")                                                           \
    X(returned, false, "of them come back")                                                        \
    X(unsure, false, "requests cut off from their answer")                                         \
    X(gone, false, "plain messages gone with their receiver's connection")                         \
    X(told, false, "messages told as lost")                                                        \
    X(misdirected, true, "messages at the wrong user")                                             \
    X(attempts, true, "attempts whose number is not above the one before")                         \
    X(unproven, true, "ends told as success without an acknowledgement")                           \
    X(failed, true, "messages that ended without success, though acknowledged")                    \
    X(early, true, "ends told before the answer")                                                  \
    X(untold, true, "ends of accepted messages never told")                                        \
    X(unrepeated, true, "messages that nobody acknowledged, and that did not come again")

struct load_counts {
#define LOAD_COUNT_FIELD(name, fault, words)                                                       \
    _Atomic uint64_t name; /* the worker adds, main loads */
    LOAD_COUNTS(LOAD_COUNT_FIELD)
#undef LOAD_COUNT_FIELD
};

static inline void load_count_more(_Atomic uint64_t *count, uint64_t more) /* by its only writer */
{
    uint64_t now = atomic_load_explicit(count, memory_order_relaxed);

    atomic_store_explicit(count, now + more, memory_order_relaxed);
}

static inline void load_count(_Atomic uint64_t *count)
{
    load_count_more(count, 1);
}

/* ---- one connection ---- */

/* State, the states that may follow it. Arrows: open.c makes those up to OPEN and to GOODBYE,
 * load_conn_cut that to AWAY, load_conn_fail the rest. */
#define LOAD_STATES(X)                                                                             \
    X(IDLE, 1u << LOAD_CONNECTING | 1u << LOAD_DEAD)                                               \
    X(CONNECTING, 1u << LOAD_UPGRADING | 1u << LOAD_DEAD)                                          \
    X(UPGRADING, 1u << LOAD_GREETING | 1u << LOAD_OPEN | 1u << LOAD_DEAD)                          \
    X(GREETING, 1u << LOAD_OPEN | 1u << LOAD_DEAD) /* waits for ringhub's welcome, and its room */ \
    X(OPEN, 1u << LOAD_AWAY | 1u << LOAD_GOODBYE | 1u << LOAD_DEAD)                                \
    X(AWAY, 1u << LOAD_CONNECTING | 1u << LOAD_DEAD) /* cut off, and will come back */             \
    X(GOODBYE, 1u << LOAD_DEAD)                                                                    \
    X(DEAD, 0)

enum load_state {
#define LOAD_STATE_NAME(name, next) LOAD_##name,
    LOAD_STATES(LOAD_STATE_NAME)
#undef LOAD_STATE_NAME
};

struct load_bytes {
    uint8_t *at;
    uint32_t len, room;
};

/* Small, as there may be 200,000. What an idle one does not need has memory only while it does. */
struct load_conn {
    uint32_t index;  /* in its worker */
    uint32_t number; /* in the whole run */
    int fd;
    uint8_t key[4];
    uint8_t state;
    bool connecting : 1; /* the kernel has a connect of ours, */
    bool receiving : 1;  /* a receive, */
    bool sending : 1;    /* `flight` */
    bool dirty : 1;      /* stands in the worker's list: `out` has bytes */
    bool slow : 1;       /* fanout: once open it does not read any more */
    bool welcomed : 1;   /* ringhub's welcome has come */
    bool deflates : 1;   /* permessage-deflate was agreed on */
    uint8_t tail_len;
    uint8_t *tail;                /* what the parser wants to see again */
    struct load_handshake *shake; /* from connecting until it is open */

    struct rh_ws ws;
    struct load_bytes whole; /* send, fanout: a message that came in pieces */

    struct load_bytes out;    /* being filled */
    struct load_bytes flight; /* with the kernel */

    struct load_flow flow;      /* what this connection sends */
    struct load_seen seen;      /* echo: the message that is coming in */
    struct load_inbox inbox;    /* fanout: what it got of the publisher's messages */
    struct load_ledger *ledger; /* ack, mixed: lent by the worker */
    uint64_t due;               /* open loop: messages whose time has come, sent or not */
};

/* ---- one thread ---- */

/* A message as ringhub sends it to all, once it was found to be right. */
struct load_copy {
    uint64_t seq;
    bool compressed;
    struct load_bytes bytes; /* as they came; empty: none */
};

/* --compress. */
struct load_zip {
    struct rh_deflater *deflater;
    struct rh_inflater *inflater;
    struct rh_deflate_out out, in; /* what was deflated and inflated last */
};

enum load_phase {
    LOAD_OPENING,  /* handshakes */
    LOAD_READY,    /* all are open or refused; waits for the start */
    LOAD_RUNNING,  /* sends */
    LOAD_DRAINING, /* waits for what is outstanding */
    LOAD_DRAINED,  /* nothing is outstanding any more, or was waited for in vain */
    LOAD_CLOSING,  /* says goodbye */
    LOAD_ENDED     /* connections are closed */
};

struct load_worker {
    /* Fixed before start. */
    struct load_run *run;
    unsigned number;
    pthread_t thread;
    pid_t tid; /* set by the thread before it is READY */

    /* The worker's own; after joining, the conductor's. */
    struct rh_uring *uring;
    struct rh_prng prng;
    struct load_conn *conns;
    uint32_t conns_count;
    uint32_t senders;         /* the first so many of these send */
    uint32_t open_next;       /* the first that has not begun to connect */
    uint32_t opening;         /* handshakes in progress */
    uint64_t open_began_ns;   /* when it began with the first */
    uint64_t open_moved_ns;   /* when one of them ended last */
    struct load_conn **dirty; /* those with something to flush */
    uint32_t dirty_count;
    uint32_t pace_at;    /* open loop: whose turn it is */
    uint64_t pace_round; /* and the how manieth */
    uint8_t *scratch;    /* a message before it is masked */
    size_t scratch_room;
    bool greets;                  /* the path is ringhub's: connections begin with a welcome */
    struct load_request *request; /* what connections ask for, but for names and keys */
    uint64_t now_ns;              /* when the bytes that are being looked at had come */
    uint32_t text_bytes;          /* fanout: of a message as ringhub sends it */
    struct load_copy copies[LOAD_COPIES]; /* fanout: of message n: copies[n % LOAD_COPIES] */
    struct load_copy came;                /* fanout: the bytes that are being looked at, lent */
    struct load_zip zip;
    struct load_audience audience; /* fanout: its readers */
    struct load_book book;         /* ack, mixed: its messages, */
    struct load_ledger *ledgers;   /* and of each connection how far it is */
    struct load_bytes acks;        /* ids to acknowledge when this read is over, */
    struct load_bytes ack_text;    /* and the message that does it */
    uint32_t acks_count;
    uint64_t cuts;       /* that were due so far */
    uint64_t until_ns;   /* of draining or saying goodbye */
    uint32_t ended;      /* connections, as saying goodbye saw them last */
    uint64_t checked_ns; /* when all connections were looked at last, to see whether it is over */
    int rc;              /* why it gave up, RH_OK otherwise */
    struct rh_fault fault;
    struct rh_fault first; /* the first thing that went wrong with a connection or message */

    /* The worker writes, the conductor reads. */
    struct load_counts counts;
    _Atomic uint32_t open_now;
    _Atomic int phase;      /* enum load_phase; release, pairs with run.c's acquire */
    struct rh_hist latency; /* from the intended time to the arrival */
    struct rh_hist answer;  /* and to the server's answer */
    struct rh_hist status;  /* ack, mixed: and until the sender is told its end */
    struct rh_hist upgrade; /* from connecting to the 101 */
    struct rh_hist welcome; /* and to the welcome */
    struct rh_hist late;    /* the tool itself, behind its schedule */
};

/* ---- the run ---- */

struct load_run {
    const struct load_opts *opts;
    char id[9]; /* random letters: names of users differ from run to run */
    struct load_worker *workers;
    struct load_stream stream; /* fanout */

    /* Workers whose loop has not ended: until it is 0 each keeps its ring, as others may wake it.
     * Release when leaving, acquire when looking. */
    _Atomic uint32_t at_work;

    /* The conductor writes, workers read. start_ns is 0 until there is a start; the others stand
     * before it (release and acquire on start_ns). end_ns may be brought forward later. */
    _Atomic uint64_t start_ns;
    _Atomic uint64_t measure_ns;
    _Atomic uint64_t end_ns;
    _Atomic bool stop;    /* begin nothing new, the run ends early */
    _Atomic bool goodbye; /* close the connections and end */
};

/* Reads one of its times. */
static inline uint64_t load_time(const _Atomic uint64_t *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

/* ---- modes ---- */

struct load_envelope;

struct load_mode {
    const char *name;
    const char *unit; /* what is counted: message, delivery */
    bool sends;       /* messages, that is */
    bool pairs;       /* connection i sends to i ^ 1 */
    bool users;       /* names its users: needs ringhub's /ws */
    bool fans_out;    /* connection 0 alone sends, to all */
    bool books;       /* messages stand in the worker's book, not in flows */
    bool mixes;       /* several classes, and rooms */

    /* Writes one message into w->scratch (which has load_mode_room bytes) and returns its length. */
    size_t (*build)(struct load_worker *w, struct load_conn *c, uint64_t seq);
    /* A piece of a message came in on an open connection. */
    void (*on_data)(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev);
    uint8_t opcode; /* of what it sends, unless --text says otherwise */

    /* Modes with users: what load_envelope_take calls. */
    void (*on_answer)(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text);
    void (*on_notify)(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      struct rh_span text);

    /* What a mode may want: the welcome; a message behind it while it waits for its room; a
     * connection has opened; broke; one read of it was looked at; a pass begins; how many messages
     * an open connection has not got. */
    void (*on_welcome)(struct load_worker *w, struct load_conn *c, const struct load_envelope *e);
    void (*on_greeting)(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                        struct rh_span text);
    void (*on_open)(struct load_worker *w, struct load_conn *c);
    void (*on_broken)(struct load_worker *w, struct load_conn *c);
    void (*on_read)(struct load_worker *w, struct load_conn *c);
    void (*on_pass)(struct load_worker *w);
    uint64_t (*missing)(const struct load_worker *w, const struct load_conn *c,
                        uint64_t *ret_first);
};

extern const struct load_mode load_mode_connect;
extern const struct load_mode load_mode_echo;
extern const struct load_mode load_mode_send;
extern const struct load_mode load_mode_fanout;
extern const struct load_mode load_mode_ack;
extern const struct load_mode load_mode_mixed;

const struct load_mode *load_mode_find(const char *name); /* NULL: there is none */
size_t load_mode_room(const struct load_opts *opts);
uint32_t load_mode_block(const struct load_opts *opts); /* neighbours that stay in one worker */
bool load_mode_joins(const struct load_opts *opts);     /* a connection is open in its room only */

/* ---- worker.c, pace.c ---- */

/* How many connections a thread has at most, with those of --slow. */
uint32_t load_worker_share(const struct load_opts *opts);
/* Allocates what the thread will need; the thread itself is load_worker_main. */
int load_worker_init(struct load_worker *w, struct load_run *run, unsigned number);
void load_worker_fini(struct load_worker *w); /* after joining; accepts zeroed memory */
void *load_worker_main(void *worker);

/* Remembers the first fault of this worker, for a person. */
void load_worker_note(struct load_worker *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Makes messages due by the schedule; returns ns until the next one, UINT64_MAX without. */
uint64_t load_pace_run(struct load_worker *w, uint64_t now);
/* The start: a closed loop's first messages. */
void load_pace_start(struct load_worker *w, uint64_t now);
/* Sends what this connection may send now, if any. */
void load_pace_pump(struct load_worker *w, struct load_conn *c, uint64_t now);
/* Nothing more to send, nothing outstanding. A connection that is no more has none of both. */
bool load_pace_done(const struct load_worker *w, const struct load_conn *c);
/* Bookkeeping of an arrival or an answer; `intended` is its message's. */
void load_pace_latency(struct load_worker *w, struct rh_hist *h, uint64_t intended, uint64_t now);

/* ---- open.c ---- */

/* What all connections of a worker will ask for; RH_ENOMEM. */
int load_open_init(struct load_worker *w);
void load_open_fini(struct load_worker *w);               /* accepts zeroed memory */
void load_open_some(struct load_worker *w, uint64_t now); /* as many as may be in progress */
void load_open_connected(struct load_worker *w, struct load_conn *c, int res);
/* Takes the server's answer from the front of the bytes; returns how many belong to it. */
size_t load_open_answer(struct load_worker *w, struct load_conn *c, const uint8_t *at, size_t len);
void load_open_welcome(struct load_worker *w, struct load_conn *c);
void load_open_joined(struct load_worker *w, struct load_conn *c);
void load_open_again(struct load_worker *w,
                     struct load_conn *c); /* it was cut off, and is closed */
void load_open_ended(struct load_worker *w, struct load_conn *c); /* refused: fewer in progress */
void load_open_free(struct load_conn *c);
void load_open_goodbye(struct load_worker *w, struct load_conn *c);

/* Names that the tool gives, with a zero; return their length. */
size_t load_user_name(const struct load_run *run, uint32_t number, char dst[LOAD_NAME_ROOM]);
size_t load_room_name(const struct load_run *run, char dst[LOAD_NAME_ROOM]);
size_t load_block_name(const struct load_run *run, uint32_t number, char dst[LOAD_NAME_ROOM]);

/* ---- returns.c ---- */

struct load_body;

void load_returns_run(struct load_worker *w, uint64_t now); /* cuts off whose turn it is */
void load_returns_welcome(struct load_conn *c, struct rh_json data);
void load_returns_subscribed(struct load_worker *w, struct load_conn *c, const struct load_body *b);
void load_returns_query(const struct load_worker *w, const struct load_conn *c,
                        struct rh_writer *out);

/* ---- zip.c ---- */

extern const struct rh_deflate_ask load_zip_ask; /* what --compress offers */

int load_zip_init(struct load_zip *z);  /* RH_ENOMEM */
void load_zip_fini(struct load_zip *z); /* accepts zeroed memory */
/* False: better sent as it is. The result is lent until the next call, also below. */
bool load_zip_deflate(struct load_zip *z, const void *at, size_t len, struct rh_span *ret);
bool load_zip_inflate(struct load_zip *z, struct rh_span packed, struct rh_span *ret);

/* ---- conn.c ---- */

enum { LOAD_OP_CONNECT, LOAD_OP_RECV, LOAD_OP_SEND }; /* in a tag, under the index */

static inline struct load_conn *load_conn_partner(struct load_worker *w, const struct load_conn *c)
{
    return &w->conns[c->index ^ 1]; /* modes with pairs only */
}

uint64_t load_conn_tag(const struct load_conn *c, unsigned op);
void load_conn_set_state(struct load_worker *w, struct load_conn *c, enum load_state state);
void load_conn_on_cqe(struct load_worker *w, const struct rh_cqe *cqe);
/* Appends bytes that are a frame already, or one frame around `payload` (masked). False: no memory,
 * the connection was given up. */
bool load_conn_put(struct load_worker *w, struct load_conn *c, const void *bytes, size_t len);
bool load_conn_put_frame(struct load_worker *w, struct load_conn *c, uint8_t opcode,
                         const void *payload, size_t len);
/* Puts a message together that comes in pieces. True: it is whole, and `ret_bytes` valid until the
 * next piece comes. */
bool load_conn_gather(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev,
                      struct rh_span *ret_bytes);
/* Inflates a whole message, if need be. False: it can't be, and the connection was given up. */
bool load_conn_inflate(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev,
                       struct rh_span bytes, struct rh_span *ret_text);
/* Both. */
bool load_conn_whole(struct load_worker *w, struct load_conn *c, const struct rh_ws_event *ev,
                     struct rh_span *ret_text);
void load_conn_receive(struct load_worker *w, struct load_conn *c, bool waits);
void load_conn_flush(struct load_worker *w, struct load_conn *c);
/* Cuts an open connection off; it comes back as soon as the kernel has nothing of it. */
void load_conn_cut(struct load_worker *w, struct load_conn *c);
/* It is of no use any more; the words go to the report. */
void load_conn_fail(struct load_worker *w, struct load_conn *c, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends to a growing run of bytes; false: no memory. */
bool load_bytes_add(struct load_bytes *b, const void *at, size_t len);
void load_conn_fini(struct load_conn *c);

#endif
