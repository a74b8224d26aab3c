/* core/uring_int.h - what uring.c and uring_check.c share; stays inside core. */
#ifndef RH_URING_INT_H
#define RH_URING_INT_H

#include <liburing.h>

#include "core/uring.h"

/* The ring as ringhub uses it; a negative errno on failure. */
int rh_uring_open_ring(struct io_uring *ring, unsigned sq_entries, unsigned cq_entries);

/* Memory for `count` provided buffers' entries, registered under `group`; a negative errno. The
 * caller unmaps it after the ring has gone. */
int rh_uring_open_buffers(struct io_uring *ring, struct io_uring_buf_ring **ret_bufs,
                          unsigned count, uint16_t group);

/* Turns a negative errno of ring set-up into an error with an explanation. `opts` may be NULL. */
int rh_uring_fault(struct rh_fault *fault, int err, const struct rh_uring_opts *opts);

#endif
