/* tests/sim/sim_net.h - connections between a client and the hub, as TCP would carry them.
 *
 * A connection has two ends; from each to the other leads a pipe: bytes wait in the writer's send
 * queue, travel in pieces drawn from the seed, and stand in the reader's receive queue until read.
 * An end that is closed with unread bytes, aborted, or written to after it has gone, resets the
 * other one, as TCP does.
 *
 * Ownership  ends live until the end of the run.
 */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "tests/sim/sim.h"

struct sim_pipe {
    uint8_t *at; /* a circle */
    uint32_t room;
    uint32_t send_room, recv_room;
    uint64_t wrote, arrived, took; /* bytes so far */
    bool fin, fin_arrived;
    bool moving;         /* a piece is on its way */
    uint64_t stopped_ns; /* nothing moves before */
    struct sim_end *writer, *reader;
};

struct sim_end {
    struct sim_pipe in, *out; /* out is the peer's in */
    struct sim_end *peer;
    unsigned id;
    bool server;
    bool reset;   /* the connection is broken */
    bool told;    /* ... and the owner has been told ECONNRESET */
    bool shut_in; /* by our own shutdown */
    bool shut_out;
    bool closed;
    void (*changed)(void *arg); /* something may be possible that was not */
    void *arg;
};

/* Makes a connection; the client's end is returned, its peer is the server's. */
struct sim_end *sim_net_connect(unsigned id);

bool sim_readable(const struct sim_end *end); /* bytes, end of stream or an error */
bool sim_writable(const struct sim_end *end);

/* Bytes read (at most `room`); 0: end of stream; -EAGAIN: nothing yet; -ECONNRESET, -EPIPE. */
int sim_read(struct sim_end *end, void *dst, size_t room);
/* Bytes taken (0: no room); -ECONNRESET, -EPIPE. */
int sim_write(struct sim_end *end, const void *bytes, size_t len);

void sim_shut(struct sim_end *end, bool in, bool out);
void sim_close(struct sim_end *end, bool abort);

#endif
