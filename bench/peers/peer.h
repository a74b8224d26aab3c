/* bench/peers/peer.h - what the parts of peer_load share: one load, spoken in several dialects.
 *
 * peer_load.c reads options and reports, run.c drives a run and keeps its books, conn.c moves
 * bytes. text.c and stream.c hold the dialects: how a server's own protocol says "I am", "I listen
 * to", "tell them" and "you are told".
 *
 * A run      N connections open, log in and wait for each other. Then each sender keeps `depth`
 *            messages outstanding, until warm-up and window are over, and all that is on its way
 *            has arrived. A message is outstanding until every one of its receivers has it.
 * Books      A payload says its number and sender in every byte (tools/load/payload.h), and each
 *            receiver knows which one comes next: what is lost, out of order, changed, doubled or
 *            not meant for it is a fault, and the run fails.
 * Threads    one.
 */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/hist.h"
#include "core/uring.h"
#include "proto/ws.h"

#define PEER_PIDS_MAX 16
#define PEER_NAME     24  /* room for a name that the tool gives, with its zero */
#define PEER_WRAP     256 /* most that a dialect puts in front of a payload, or behind */
#define PEER_NOBODY   UINT32_MAX

enum peer_load {
    PEER_ECHO,   /* each connection to itself, through the server */
    PEER_FANOUT, /* connection N to the connections 0 to N - 1, which listen to the same name */
    PEER_PAIRS,  /* connection i to i ^ 1 by its name, both ways */
    PEER_IDLE    /* can be reached by their names, and are left alone */
};

struct peer_bytes {
    uint8_t *at;
    uint32_t len, room;
};

/* What a sender has outstanding. */
struct peer_flow {
    uint64_t next; /* number of the message that it sends next */
    uint64_t done; /* all below have arrived everywhere */
    uint32_t before_len, behind_len;
    char before[PEER_WRAP], behind[PEER_WRAP]; /* of every payload, in this dialect */
    struct peer_slot {
        uint64_t sent_ns;
        uint32_t left; /* receivers that do not have it yet */
    } slots[];         /* `depth` of them, by number */
};

enum peer_state { PEER_CONNECTING, PEER_UPGRADING, PEER_LOGIN, PEER_READY, PEER_DEAD };

struct peer_conn {
    int fd;
    uint32_t number;
    uint8_t state; /* enum peer_state */
    bool receiving, sending, dirty;
    uint8_t key[4]; /* that it masks with */
    uint8_t tail_len;
    uint8_t tail[RH_WS_TAIL_MAX]; /* what the parser wants to see again */
    struct rh_ws ws;
    struct peer_bytes out, flight; /* being filled, with the kernel */
    struct peer_bytes whole;       /* what has come of an answer, a message or a packet */
    struct peer_flow *flow;        /* NULL: it only listens */
    uint32_t source;               /* number of the connection that it hears, or PEER_NOBODY */
    uint64_t expect;               /* number of the message that comes next from there */
    uint64_t missed;               /* that others came before: lost, or out of order */
};

struct peer_dialect;

struct peer_opts {
    const struct peer_dialect *dialect;
    enum peer_load load;
    struct rh_addr server;
    char host[RH_ADDR_TEXT];
    uint32_t connections; /* fan-out: that listen; the publisher is one more */
    uint32_t depth, size;
    uint64_t warmup_ns, window_ns;
    bool answers; /* ask for a response to each message: ringhub only */
    pid_t pids[PEER_PIDS_MAX];
    unsigned pid_count;
};

struct peer {
    struct peer_opts opts;
    char run[12]; /* part of all names, so that runs do not meet */
    struct rh_uring *uring;
    struct peer_conn *conns;
    uint32_t count, begun, ready; /* connections: in all, begun to open, logged in */
    struct peer_conn **dirty;
    uint32_t dirty_count;
    uint64_t now_ns;
    bool sending;         /* senders may begin new messages */
    bool measuring;       /* arrivals go into the histogram */
    uint32_t hint;        /* of the dialect: where the last payload began in its message */
    uint64_t outstanding; /* messages that somebody does not have yet */
    uint64_t unanswered;  /* --answers: messages without one */
    uint64_t arrived, arrived_ns;
    struct rh_hist latency;
    uint64_t lost, reordered, corrupted, unexpected, broken;
    char first[256]; /* fault, in words */
};

/* A moment of a run: what had arrived, and what the processes had used by then. */
struct peer_sample {
    uint64_t at_ns, arrived;
    uint64_t server_ns, tool_ns; /* CPU time */
    uint64_t rss;                /* of all processes of the server */
};

struct peer_result {
    struct peer_sample before, opened; /* the first connection, and after the last had logged in */
    struct peer_sample begin, end;     /* of the window */
};

struct peer_dialect {
    const char *name;
    const char *offer; /* subprotocol, or NULL */
    unsigned loads;    /* a bit per enum peer_load */
    uint8_t opcode;    /* of its messages */
    bool stream;       /* packets run on over the borders of messages */
    bool answers;      /* knows --answers */

    /* The request target of this connection. */
    void (*path)(const struct peer *p, const struct peer_conn *c, char *dst, size_t room);
    /* The WebSocket is open: says hello. Calls peer_ready here or later. */
    void (*open)(struct peer *p, struct peer_conn *c);
    /* Takes one packet from the front and returns its bytes; a stream's 0: need more. Others get
     * one whole message and take all of it. Calls peer_arrived for a payload. */
    size_t (*take)(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len);
    /* What stands around each payload that this sender sends; 0-terminated unless it says the
     * lengths itself: returns the length of `before`, sets that of `behind`. */
    size_t (*wrap)(const struct peer *p, const struct peer_conn *c, char before[PEER_WRAP],
                   char behind[PEER_WRAP], uint32_t *ret_behind);
};

/* ---- the dialects: text.c, stream.c ---- */

extern const struct peer_dialect peer_plain, peer_nchan, peer_node_ws, peer_socketio, peer_ringhub;
extern const struct peer_dialect peer_mqtt, peer_nats;

/* ---- a run: run.c ---- */

/* From the first connection to the last arrival. RH_OK with faults, too: the books tell. */
int peer_run(struct peer *p, struct peer_result *ret, struct rh_fault *fault);
void peer_fini(struct peer *p); /* accepts zeroed memory */
bool peer_failed(const struct peer *p);

static inline bool peer_publishes(const struct peer *p, const struct peer_conn *c)
{
    return p->opts.load == PEER_FANOUT && c->number == p->opts.connections;
}

/* What this connection listens to: the room, or its own name; the publisher's own. */
void peer_own_name(const struct peer *p, const struct peer_conn *c, char dst[PEER_NAME]);
/* What it sends to. */
void peer_target_name(const struct peer *p, const struct peer_conn *c, char dst[PEER_NAME]);

/* It has logged in, and listens. */
void peer_ready(struct peer *p, struct peer_conn *c);
/* A payload came for it. */
void peer_arrived(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len);
/* Counts a fault and remembers the first one's words. */
void peer_fault(struct peer *p, uint64_t *counter, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for something that the dialect cannot mean. */
void peer_strange(struct peer *p, const struct peer_conn *c, const uint8_t *at, size_t len);

/* ---- conn.c ---- */

bool peer_conn_begin(struct peer *p, struct peer_conn *c);
void peer_conn_on_cqe(struct peer *p, const struct rh_cqe *cqe);
/* A frame of the dialect's kind; `opcode` 0: the dialect's. */
void peer_conn_say(struct peer *p, struct peer_conn *c, uint8_t opcode, const void *at, size_t len);
/* Room for a frame with len bytes of payload, to be filled and then masked. */
uint8_t *peer_conn_frame(struct peer *p, struct peer_conn *c, uint8_t opcode, size_t len);
void peer_conn_flush(struct peer *p, struct peer_conn *c);
void peer_conn_fini(struct peer_conn *c);

#endif
