/* core/uring.h - the seam to the kernel: every call on a descriptor, and the wake-up.
 *
 * One uring per thread. Operations are queued and go to the kernel together at the next
 * rh_uring_enter(); what became of them is read with rh_uring_reap(). Each operation carries a tag
 * of the caller's, and exactly one completion without RH_CQE_MORE ends it. Until then everything
 * that was given to it (payload, address) belongs to the kernel.
 *
 * Threads    all of it on the thread that called rh_uring_create, except *_any and the functions
 *            on plain sockets at the end.
 * Descriptors are numbers that only this seam looks behind: file descriptors of the process, or direct
 *            ones (RH_FD_DIRECT), which are slots in a table of their ring's. RLIMIT_NOFILE bounds
 *            each table, but not all of them together; another ring cannot use them before
 *            rh_uring_pass. The table is bound when it is full: accepting then costs the client its
 *            connection, so stop before.
 * Tags       are below 1 << 62.
 * Errors     queueing cannot fail: a full submission queue is submitted on the way. Failures of an
 *            operation arrive as a negative errno in its completion.
 * Replaced   by another implementation in tests/sim, at link time.
 */
#ifndef RH_URING_H
#define RH_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/ringhub.h"

struct rh_uring;

struct rh_uring_opts {
    unsigned sq_entries; /* power of two; more operations than that in a pass are submitted early */
    unsigned cq_entries;
    /* Provided buffers for receiving; power of two, at most 32768. Their memory is used only as far
     * as it was needed: receives may end with -ENOBUFS before all are out. */
    unsigned buffers;
    unsigned headroom; /* bytes in front of received data that the caller may write to */
    unsigned files; /* slots of the table; what is accepted is direct. 0: no table, ordinary ones */
};

#define RH_FD_DIRECT    (1 << 30)
#define RH_FILES_MAX    (1 << 20)
#define RH_URING_BUFFER 2048 /* bytes a provided buffer has, its headroom included */
#define RH_URING_IOV    1024 /* pieces one send may have (UIO_MAXIOV) */

enum {
    RH_CQE_MORE = 1,   /* the operation goes on: more completions will come */
    RH_CQE_BUFFER = 2, /* `buffer` holds `res` bytes and has to be given back */
};

struct rh_cqe {
    uint64_t tag;
    int32_t res; /* bytes, a descriptor, or a negative errno */
    uint16_t flags;
    uint16_t buffer;
};

/* An address of a peer, as accept fills it; on the heap or in a struct of the caller's until then. */
struct rh_addr {
    struct sockaddr_storage at;
    socklen_t len;
};

static inline bool rh_fd_direct(int fd)
{
    return fd >= RH_FD_DIRECT;
}

/* ---- life ---------------------------------------------------------------------------------- */

/* On the thread that will drive it. RH_EIO, RH_ENOMEM, RH_EUNSUPPORTED: `fault` tells why. */
int rh_uring_create(const struct rh_uring_opts *opts, struct rh_uring **ret_uring,
                    struct rh_fault *fault);
void rh_uring_destroy(struct rh_uring *u); /* accepts NULL; operations in flight end unseen */

/* Can this process use io_uring as ringhub needs it? Tries everything once on a ring of its own
 * (about 0.2 ms). RH_EUNSUPPORTED or RH_ENOMEM: `fault` says what stands in the way and what to do.
 * Any thread. */
int rh_uring_selftest(struct rh_fault *fault);
/* The same for direct descriptors and all that is done with them. */
int rh_uring_selftest_direct(struct rh_fault *fault);

/* ---- operations ---------------------------------------------------------------------------- */

/* One connection: res is its descriptor, a direct one if the ring has a table. `addr` must live until
 * then. */
void rh_uring_accept(struct rh_uring *u, int listener, struct rh_addr *addr, uint64_t tag);
void rh_uring_connect(struct rh_uring *u, int fd, const struct rh_addr *addr, uint64_t tag);

/* Receives into provided buffers: once, or until it is ended (0: the peer closed; -ENOBUFS: arm
 * again after giving buffers back). `waits` false does not mind that no buffer is free now, but may
 * miss an end of stream that is there already, behind unread data. */
void rh_uring_recv_once(struct rh_uring *u, int fd, uint64_t tag);
void rh_uring_recv_multi(struct rh_uring *u, int fd, bool waits, uint64_t tag);

/* Sends everything or breaks: 0 <= res < asked means that the stream is torn. One send at a time
 * per descriptor. `iov` is copied; the bytes are not. */
void rh_uring_send(struct rh_uring *u, int fd, const void *bytes, size_t len, uint64_t tag);
void rh_uring_sendv(struct rh_uring *u, int fd, const struct iovec *iov, unsigned count,
                    uint64_t tag);

/* Ends the operation with the tag `target` (it completes with -ECANCELED, if it was not done); the
 * cancellation's own completion carries `tag`. */
void rh_uring_cancel(struct rh_uring *u, uint64_t target, uint64_t tag);
void rh_uring_cancel_accept(struct rh_uring *u, uint64_t target, uint64_t tag); /* of an accept */

/* At once, no completion. Shutting both ways ends a receive and a send that are under way; a
 * multishot receive with unread data may miss it: cancel it if it does not end. Direct descriptors
 * are closed with what was queued before, in order. */
void rh_uring_shutdown(struct rh_uring *u, int fd, int how);
void rh_uring_close(struct rh_uring *u, int fd);
/* The connection ends with a reset, and nothing lingers in the kernel. */
void rh_uring_abort(struct rh_uring *u, int fd);
/* Bytes that the peer's kernel has acknowledged so far: tells "slow" from "takes nothing". It can
 * be unknown: when a direct descriptor would need an ordinary one for that and there is none. */
#define RH_ACKED_UNKNOWN UINT64_MAX
uint64_t rh_uring_acked(struct rh_uring *u, int fd);

/* Once: res > 0 when there is something to receive, an end of stream or an error included. Costs the
 * kernel a third of an armed receive's memory. */
void rh_uring_poll(struct rh_uring *u, int fd, uint64_t tag);

/* ---- direct descriptors -------------------------------------------------------------------- */

/* Copies one to the table of another thread's ring, which must outlive the operation. res is its
 * descriptor there, or -ENFILE (that table is full) and the like; nobody is told over there, and several may run in any order. Ours
 * stays open, and is to be closed in any case. */
void rh_uring_pass(struct rh_uring *u, int fd, const struct rh_uring *to, uint64_t tag);

/* Makes a direct descriptor of an ordinary one, which is closed by that. RH_EFULL: the table is full
 * (slots are free again once their close was submitted), or completions have to be reaped first;
 * RH_EIO; `fd` is still the caller's. Costs a system call, which submits what is queued. */
int rh_uring_adopt(struct rh_uring *u, int fd, int *ret_fd);

/* ---- a pass -------------------------------------------------------------------------------- */

/* Submits what is queued. wait_ns 0: takes what is there, without sleeping; else sleeps until
 * something completes, a wake-up comes, or the time is over. 0 or RH_EIO (the ring is unusable). */
int rh_uring_enter(struct rh_uring *u, uint64_t wait_ns);

/* Copies out up to `max` completions; 0 when there are none. Wake-ups are swallowed. */
unsigned rh_uring_reap(struct rh_uring *u, struct rh_cqe *dst, unsigned max);

/* The bytes of a completion with RH_CQE_BUFFER; `headroom` bytes in front may be written. */
uint8_t *rh_uring_buffer(struct rh_uring *u, uint16_t buffer);
void rh_uring_give(struct rh_uring *u, uint16_t buffer);
size_t rh_uring_buffer_bytes(const struct rh_uring *u); /* most that one completion can carry */

/* Ends the sleep of the thread in rh_uring_enter, now or at its next one. Any thread, also a
 * signal handler. */
void rh_uring_wake_any(struct rh_uring *u);

/* How often rh_uring_reap found that completions had not fitted the queue and taken the kernel's
 * slow path. */
uint64_t rh_uring_overflows(const struct rh_uring *u);

/* ---- plain sockets, any thread ------------------------------------------------------------- */

/* Reads "127.0.0.1:8080" or "[::1]:8080" (numbers only) into `ret_addr`. RH_EINVAL. */
int rh_addr_parse(const char *text, struct rh_addr *ret_addr);
/* Writes it the same way; dst has RH_ADDR_TEXT bytes. */
#define RH_ADDR_TEXT 64
void rh_addr_print(const struct rh_addr *addr, char dst[RH_ADDR_TEXT]);
bool rh_addr_loopback(const struct rh_addr *addr);

/* A listening socket, shared by port with other calls for the same address (SO_REUSEPORT), with the
 * options that its connections inherit (no delay, keep-alive). With port 0 the port that was bound
 * is written back to `addr`. `probe` true: bound without SO_REUSEPORT first, so that a port in use
 * by another process is found (RH_EADDRINUSE). */
int rh_sock_listen(struct rh_addr *addr, bool probe, int *ret_fd, struct rh_fault *fault);
/* A socket for connecting, bound to `source` (port 0) if given. */
int rh_sock_client(int family, const struct rh_addr *source, int *ret_fd, struct rh_fault *fault);
void rh_sock_close(int fd);

#endif
