/* tests/fuzz/fz_kernel_int.h - the fake kernel's inside: what fz_sock.c, fz_op.c and fz_uring.c
 * share.
 *
 *   fz_sock.c    clock and random numbers; sockets, their clients' side, descriptors
 *   fz_uring.c   rings: queueing, submitting, reaping
 *   fz_op.c      what an operation does once it was submitted, and how it ends
 */
#ifndef FZ_KERNEL_INT_H
#define FZ_KERNEL_INT_H

#include "core/mem.h"
#include "tests/fuzz/fz_kernel.h"

#define FZ_FD      100 /* of the first socket, in every table */
#define FZ_BUFFERS 32  /* provided ones of a ring, at most */
#define FZ_QUEUE   512
#define FZ_CQ      2048
#define FZ_ACCEPTS 64

struct fz_queued {
    struct fz_op *op;      /* NULL: a cancellation ... */
    struct fz_sock *close; /* ... or, if that is set, the end of a direct descriptor */
    bool abort;
    uint64_t target, tag;
};

struct rh_uring {
    int tid;
    unsigned headroom, buffers;
    unsigned files, files_used; /* slots of its table */
    int pass_error;
    enum fz_order order;
    unsigned starve;
    bool busy, woken;
    uint8_t *mem;
    bool lent[FZ_BUFFERS];
    uint16_t ready[FZ_BUFFERS]; /* a circle */
    unsigned ready_head, ready_count;
    struct fz_queued queue[FZ_QUEUE];
    unsigned queue_count;
    struct rh_cqe cq[FZ_CQ];
    unsigned cq_count;
};

struct fz_listener {
    int fd; /* 0: closed */
    int error;
    struct fz_sock *backlog[FZ_SOCKS];
    unsigned waiting;
    unsigned accepts; /* in the order in which they were armed */
    struct {
        struct rh_uring *ring;
        struct rh_addr *addr;
        uint64_t tag;
    } accept[FZ_ACCEPTS];
};

extern struct fz_kernel {
    uint64_t now_us, rand_state;
    unsigned sock_count, buffers;
    struct fz_listener listeners[FZ_SHARDS];
    struct fz_sock socks[FZ_SOCKS];
} fz_kernel;

extern struct rh_uring fz_rings[FZ_SHARDS];
extern struct iovec fz_pieces[FZ_SOCKS][RH_URING_IOV]; /* of the sends */

static inline uint8_t *fz_buffer(const struct rh_uring *u, unsigned buffer)
{
    return u->mem + (size_t)buffer * RH_URING_BUFFER;
}

/* ---- fz_sock.c ---- */

struct fz_listener *fz_listener_of(int fd);
/* The socket gets a descriptor in that table, or -ENFILE. */
int fz_open_in(struct fz_sock *s, unsigned table);
/* Out of a table; out of the last one the connection ends. */
void fz_close_in(struct fz_sock *s, unsigned table, bool abort);

/* ---- fz_uring.c ---- */

struct fz_queued *fz_enqueue(struct rh_uring *u);

/* ---- fz_op.c ---- */

uint64_t fz_op_sum(const struct fz_op *op); /* of all bytes of a send, as they are now */
void fz_op_submit(struct fz_op *op);
void fz_op_run(struct fz_op *op);
void fz_cancel(struct rh_uring *u, uint64_t target, uint64_t tag);
void fz_accepts_run(struct fz_listener *l, const struct rh_uring *u);

#endif
