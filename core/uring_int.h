/* core/uring_int.h - what uring.c and uring_check.c share; stays inside core. */
#ifndef RH_URING_INT_H
#define RH_URING_INT_H

#include <liburing.h>

#include "core/uring.h"

/* What newer kernels have and liburing 2.3 does not name. */
enum { RH_OP_FIXED_FD_INSTALL = 54, RH_SOCKET_SETSOCKOPT = 3 };

/* A socket option as an operation (6.7): `value` lives until it is submitted and executed. */
static inline void rh_uring_prep_setsockopt(struct io_uring_sqe *sqe, int fd, int level, int option,
                                            const void *value, unsigned len)
{
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, 0);
    sqe->cmd_op = RH_SOCKET_SETSOCKOPT;
    sqe->addr = (uint64_t)(unsigned)option << 32 | (unsigned)level; /* optname, level */
    sqe->file_index = len;                                          /* optlen */
    sqe->addr3 = (uintptr_t)value;                                  /* optval */
}

/* A slot of ours to any free one of the table of `to`, which is not told of it. */
static inline void rh_uring_prep_pass(struct io_uring_sqe *sqe, int slot, const struct io_uring *to)
{
    io_uring_prep_rw(IORING_OP_MSG_RING, sqe, to->ring_fd, NULL, 0, 0);
    sqe->addr = IORING_MSG_SEND_FD;
    sqe->addr3 = (unsigned)slot;
    sqe->file_index = IORING_FILE_INDEX_ALLOC;
    sqe->msg_ring_flags = IORING_MSG_RING_CQE_SKIP;
}

/* The ring as ringhub uses it; a negative errno on failure. */
int rh_uring_open_ring(struct io_uring *ring, unsigned sq_entries, unsigned cq_entries);

/* Memory for `count` provided buffers' entries, registered under `group`; a negative errno. The
 * caller unmaps it after the ring has gone. */
int rh_uring_open_buffers(struct io_uring *ring, struct io_uring_buf_ring **ret_bufs,
                          unsigned count, uint16_t group);

/* Turns a negative errno of ring set-up into an error with an explanation. `opts` may be NULL. */
int rh_uring_fault(struct rh_fault *fault, int err, const struct rh_uring_opts *opts);

#endif
