/* tests/sim/sim_op.h - operations of the fake kernel; what sim_uring.c and sim_op.c share.
 *
 *   queued --enter--> flying (due: tried at this time; NEVER: when its file changes) --> completed
 *
 * sim_uring.c is the ring: queueing, submitting, reaping. sim_op.c is what an operation does once it
 * flies, and how it ends.
 */
#ifndef SIM_OP_H
#define SIM_OP_H

#include "core/mem.h"
#include "core/uring.h"
#include "tests/sim/sim_file.h"

#define SIM_CQ_ROOM 16384

enum sim_op_kind {
    SIM_ACCEPT,
    SIM_RECV_ONCE,
    SIM_RECV_MULTI,
    SIM_SEND,
    SIM_CANCEL,
    SIM_PASS,
    SIM_POLL,
    SIM_CLOSE
};

extern const char *const sim_op_names[];

struct sim_op {
    struct rh_list node;    /* queued or flying */
    struct rh_list of_file; /* flying */
    enum sim_op_kind kind;
    uint64_t tag;
    int fd;
    struct rh_uring *ring;
    struct sim_file *file;
    uint64_t due_ns;
    bool cancelled;
    bool waits;           /* receive: data is known to be there */
    struct rh_addr *addr; /* accept */
    struct rh_uring *to;  /* pass */
    bool abort;           /* close */
    uint64_t target;      /* cancel */
    struct iovec *iov;    /* send */
    unsigned count;
    size_t len, done;
    uint64_t sum; /* of the bytes when they were given to us */
};

struct rh_uring {
    int tid;
    struct sim_table table; /* direct descriptors; room 0: none */
    unsigned headroom, buffers;
    uint8_t *mem;
    bool *lent;
    uint16_t *ready; /* a circle: buffers to fill, in the order in which they were given */
    unsigned ready_head, ready_count;
    struct rh_list queued, flying;
    struct rh_cqe cq[SIM_CQ_ROOM];
    unsigned cq_head, cq_count;
    bool asleep;
    uint64_t sleep_until, wake_ns;
    uint64_t due_ns; /* not later than any operation's */
};

static inline uint8_t *sim_buffer(const struct rh_uring *u, unsigned buffer)
{
    return u->mem + (size_t)buffer * RH_URING_BUFFER;
}

/* To be tried at that time at the latest. */
void sim_op_due(struct sim_op *op, uint64_t at_ns);
void sim_op_run(struct sim_op *op);
void sim_ops_run(struct rh_uring *u);        /* all that are due, in any order */
void sim_ops_changed(struct sim_file *file); /* all of that file may have something to do */

/* A completion without an end. */
void sim_op_post(struct rh_uring *u, const struct sim_op *op, int res, unsigned flags,
                 uint16_t buffer);
/* It holds nothing any more and is on no list; no completion. */
void sim_op_over(struct sim_op *op);
/* Of the bytes of a send, as they are now. */
uint64_t sim_op_sum(const struct sim_op *op);

#endif
