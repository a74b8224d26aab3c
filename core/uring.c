/* core/uring.c - the seam on io_uring; liburing's home (with uring_check.c, its self-test, and
 * file.c).
 *
 * Why this way: DEFER_TASKRUN|SINGLE_ISSUER, so that completions run only when we ask, in batches;
 * one ring of provided buffers per thread, so that an idle connection holds no memory; sends always
 * with MSG_WAITALL, so that the kernel finishes short ones and a short result means a torn stream.
 *
 * A provided buffer is RH_URING_BUFFER bytes with a headroom in front of what the kernel writes:
 * the caller puts the unfinished tail of the bytes before there, and parses one run of bytes.
 *
 * Waiting    After 6.13 the kernel runs at most max(20, wait_nr) pending completions per enter. So
 *            a call that must not sleep asks for many with a timeout of zero, which takes all that
 *            is there; a call that may sleep asks for one.
 * Waking     One eventfd with one armed read, armed again when its completion is reaped.
 * Buffers    The kernel takes provided buffers in turn, so all that it has are touched in time. It
 *            gets few at first, and as many again each time it had none left.
 * Direct     The table is the ring's own: a slot is taken by accept, pass or adopt and is free when
 *            the kernel has executed its close, all of them in the order in which they were queued.
 *            What io_uring has no operation for (TCP_INFO), or only one that wakes a kernel thread
 *            (shutdown: 1.4 times the processor time), is done with an ordinary descriptor that is
 *            borrowed for the moment. Where none is to be had that kernel thread looks the slot up when
 *            it gets to it, so the slot's close waits for it: else the next one's connection ends.
 * Tags       Bit 63 marks operations of our own, which reap swallows; bit 62 those of a caller whose
 *            result is a slot; both the shutdown of a slot.
 * Traps      liburing 2.3: no helper for buffer rings' memory; struct fields of newer kernels are
 *            reached through others (uring_int.h), and accepting into any free slot takes
 *            IORING_FILE_INDEX_ALLOC - 1. Fixed ring descriptor: worth a few percent, never required.
 *            A chain of links of which all skip their completion may hang (kernels around 6.2).
 * Rejected   Bundles and incremental buffers (kernel bugs in 6.12 to 6.14), zero-copy sends (dearer
 *            on small frames), MSG_RING wake-ups (no faster, no back-pressure).
 */
#include "core/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/tcp.h> /* glibc's own lacks tcpi_bytes_acked */
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base.h"
#include "core/err.h"
#include "core/mem.h"
#include "core/uring_int.h"

#define TAG_OURS      (UINT64_C(1) << 63)
#define TAG_SLOT      (UINT64_C(1) << 62)
#define TAG_WAKE      (TAG_OURS | 1)
#define TAG_NOW       (TAG_OURS | 2)
#define TAG_VOID      (TAG_OURS | 3)
#define TAG_SHUT      (TAG_OURS | TAG_SLOT) /* and the slot */
#define BUFFER_GROUP  0
#define BUFFERS_FIRST 64  /* that the kernel gets before it was short of any */
#define TAKE_ALL      256 /* completions to ask for when not sleeping */
#define SUBMIT_TRIES  1000
#define CLOSE_BEHIND  0x80 /* the slot is to be closed when its last shutdown has ended */

struct rh_uring {
    struct io_uring ring;
    bool ring_ready;
    bool ring_fixed; /* its descriptor is registered: enter by number */
    int wake_fd;
    uint64_t wake_count; /* the armed read writes here */
    uint64_t overflows;

    struct io_uring_buf_ring *bufs;
    uint8_t *buf_mem;
    unsigned buf_count;
    unsigned buf_given; /* the first ones: the others' memory was never touched */
    unsigned headroom;
    bool table;        /* what is accepted goes there */
    uint8_t *shutting; /* by slot: shutdowns that are queued or under way, and CLOSE_BEHIND */

    /* Headers of sends that are queued and not submitted yet: the kernel copies them then. */
    struct msghdr *msgs;
    unsigned msgs_used, msgs_room;
    struct iovec *iovs;
    unsigned iovs_used, iovs_room;
};

static uint8_t *buf_start(const struct rh_uring *u, unsigned buffer)
{
    return u->buf_mem + (size_t)buffer * RH_URING_BUFFER;
}

/* ---- submitting ---- */

static int submit(struct rh_uring *u, unsigned wait_nr, const struct __kernel_timespec *ts)
{
    struct io_uring *r = &u->ring;
    struct io_uring_sq *sq = &r->sq;
    struct io_uring_getevents_arg arg = {.ts = (uintptr_t)ts, .sigmask_sz = _NSIG / 8};
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    unsigned todo;
    int rc;

    if (sq->sqe_head != sq->sqe_tail) {
        sq->sqe_head = sq->sqe_tail;
        io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    }
    todo = sq->sqe_tail - io_uring_smp_load_acquire(sq->khead);
    if (u->ring_fixed)
        flags |= IORING_ENTER_REGISTERED_RING;
    rc = io_uring_enter2(r->enter_ring_fd, todo, wait_nr, flags, (void *)&arg, sizeof(arg));
    if (io_uring_smp_load_acquire(sq->khead) == sq->sqe_tail) { /* else headers are still needed */
        u->msgs_used = 0;
        u->iovs_used = 0;
    }
    return rc;
}

/* Pushes queued operations to the kernel in the middle of a pass, without waiting for any. */
static void submit_now(struct rh_uring *u)
{
    static const struct __kernel_timespec now = {0};

    for (int tries = 0; tries < SUBMIT_TRIES; tries++) {
        submit(u, 0, &now);
        if (io_uring_smp_load_acquire(u->ring.sq.khead) == u->ring.sq.sqe_tail)
            return;
        if (tries > SUBMIT_TRIES / 10)
            usleep(1000); /* the kernel is short of memory: a second in all */
    }
    rh_assert(!"the kernel takes no operations any more");
}

static struct io_uring_sqe *take_sqe(struct rh_uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    if (rh_unlikely(!sqe)) {
        submit_now(u);
        sqe = io_uring_get_sqe(&u->ring);
        rh_assert(sqe);
    }
    return sqe;
}

static void arm_wake(struct rh_uring *u)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    io_uring_prep_read(sqe, u->wake_fd, &u->wake_count, sizeof(u->wake_count), 0);
    sqe->user_data = TAG_WAKE;
}

/* ---- life ---- */

int rh_uring_open_ring(struct io_uring *ring, unsigned sq_entries, unsigned cq_entries)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
        .cq_entries = cq_entries,
    };

    return io_uring_queue_init_params(sq_entries, ring, &params);
}

int rh_uring_open_buffers(struct io_uring *ring, struct io_uring_buf_ring **ret_bufs,
                          unsigned count, uint16_t group)
{
    size_t bytes = count * sizeof(struct io_uring_buf);
    struct io_uring_buf_reg reg = {.ring_entries = count, .bgid = group};
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (mem == MAP_FAILED)
        return -ENOMEM;
    reg.ring_addr = (uintptr_t)mem;
    rc = io_uring_register_buf_ring(ring, &reg, 0);
    if (rc == -EINVAL) { /* some distributions' 6.8 refuse reserved words that are all zero */
        reg.resv[0] = 1;
        rc = io_uring_register_buf_ring(ring, &reg, 0);
    }
    if (rc < 0) {
        munmap(mem, bytes);
        return rc;
    }
    *ret_bufs = mem;
    io_uring_buf_ring_init(*ret_bufs);
    return 0;
}

/* On what it works: a descriptor of the process, or a slot of the table. */
static void on(struct io_uring_sqe *sqe, int fd)
{
    if (!rh_fd_direct(fd))
        return;
    sqe->fd = fd & ~RH_FD_DIRECT;
    sqe->flags |= IOSQE_FIXED_FILE;
}

static void provide(struct rh_uring *u, unsigned buffer, unsigned offset)
{
    io_uring_buf_ring_add(u->bufs, buf_start(u, buffer) + u->headroom,
                          RH_URING_BUFFER - u->headroom, (unsigned short)buffer,
                          io_uring_buf_ring_mask(u->buf_count), (int)offset);
    RH_MEM_POISON(buf_start(u, buffer), RH_URING_BUFFER);
}

static void provide_more(struct rh_uring *u)
{
    unsigned count = RH_MIN(RH_MAX(u->buf_given, BUFFERS_FIRST), u->buf_count - u->buf_given);

    for (unsigned i = 0; i < count; i++)
        provide(u, u->buf_given + i, i);
    io_uring_buf_ring_advance(u->bufs, (int)count);
    u->buf_given += count;
}

static int buffers_create(struct rh_uring *u)
{
    size_t bytes = (size_t)u->buf_count * RH_URING_BUFFER;
    int rc;

    u->buf_mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (u->buf_mem == MAP_FAILED) {
        u->buf_mem = NULL;
        return -ENOMEM;
    }
    rc = rh_uring_open_buffers(&u->ring, &u->bufs, u->buf_count, BUFFER_GROUP);
    if (rc < 0)
        return rc;
    RH_MEM_POISON(u->buf_mem, bytes);
    provide_more(u);
    return 0;
}

int rh_uring_create(const struct rh_uring_opts *opts, struct rh_uring **ret_uring,
                    struct rh_fault *fault)
{
    struct rh_uring *u = rh_mem_zalloc(sizeof(*u));
    int rc = -ENOMEM;

    if (!u)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for a ring");
    u->wake_fd = -1;
    u->buf_count = opts->buffers;
    u->headroom = opts->headroom;
    u->msgs_room = opts->sq_entries;
    u->iovs_room = opts->sq_entries + RH_URING_IOV;
    u->msgs = rh_mem_alloc(u->msgs_room * sizeof(*u->msgs));
    u->iovs = rh_mem_alloc(u->iovs_room * sizeof(*u->iovs));
    u->shutting = opts->files ? rh_mem_zalloc(opts->files) : NULL;
    if (!u->msgs || !u->iovs || (opts->files && !u->shutting)) {
        rh_uring_destroy(u);
        return rh_fault_set(fault, RH_ENOMEM, "no memory for a ring");
    }
    rc = rh_uring_open_ring(&u->ring, opts->sq_entries, opts->cq_entries);
    if (rc < 0)
        goto out;
    u->ring_ready = true;
    u->ring_fixed = io_uring_register_ring_fd(&u->ring) == 1;
    rc = opts->files ? io_uring_register_files_sparse(&u->ring, opts->files) : 0;
    if (rc < 0)
        goto out;
    u->table = opts->files > 0;
    rc = buffers_create(u);
    if (rc < 0)
        goto out;
    u->wake_fd = eventfd(0, EFD_CLOEXEC);
    rc = u->wake_fd < 0 ? -errno : 0;
    if (rc < 0)
        goto out;
    arm_wake(u);
    *ret_uring = u;
    return RH_OK;
out:
    rh_uring_destroy(u);
    return rh_uring_fault(fault, rc, opts);
}

void rh_uring_destroy(struct rh_uring *u)
{
    if (!u)
        return;
    if (u->ring_ready)
        io_uring_queue_exit(&u->ring);
    if (u->bufs)
        munmap(u->bufs, u->buf_count * sizeof(struct io_uring_buf));
    if (u->buf_mem) {
        RH_MEM_UNPOISON(u->buf_mem, (size_t)u->buf_count * RH_URING_BUFFER);
        munmap(u->buf_mem, (size_t)u->buf_count * RH_URING_BUFFER);
    }
    if (u->wake_fd >= 0)
        close(u->wake_fd);
    rh_mem_free(u->msgs);
    rh_mem_free(u->iovs);
    rh_mem_free(u->shutting);
    rh_mem_free(u);
}

/* ---- operations ---- */

void rh_uring_accept(struct rh_uring *u, int listener, struct rh_addr *addr, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);
    struct sockaddr *at = (struct sockaddr *)&addr->at;

    addr->len = sizeof(addr->at);
    if (u->table)
        io_uring_prep_accept_direct(sqe, listener, at, &addr->len, 0, IORING_FILE_INDEX_ALLOC - 1);
    else
        io_uring_prep_accept(sqe, listener, at, &addr->len, SOCK_CLOEXEC);
    sqe->user_data = u->table ? tag | TAG_SLOT : tag;
}

void rh_uring_connect(struct rh_uring *u, int fd, const struct rh_addr *addr, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    io_uring_prep_connect(sqe, fd, (const struct sockaddr *)&addr->at, addr->len);
    on(sqe, fd);
    sqe->user_data = tag;
}

static void prep_recv(struct io_uring_sqe *sqe, int fd, uint64_t tag)
{
    io_uring_prep_recv(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    on(sqe, fd);
    sqe->user_data = tag;
}

void rh_uring_recv_once(struct rh_uring *u, int fd, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    prep_recv(sqe, fd, tag);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST; /* else an empty buffer group ends it at once */
}

void rh_uring_recv_multi(struct rh_uring *u, int fd, bool waits, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    prep_recv(sqe, fd, tag);
    sqe->ioprio |= IORING_RECV_MULTISHOT;
    if (!waits)
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
}

void rh_uring_poll(struct rh_uring *u, int fd, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    io_uring_prep_poll_add(sqe, fd, POLLIN);
    on(sqe, fd);
    sqe->user_data = tag;
}

void rh_uring_send(struct rh_uring *u, int fd, const void *bytes, size_t len, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    io_uring_prep_send(sqe, fd, bytes, len, MSG_WAITALL | MSG_NOSIGNAL);
    on(sqe, fd);
    sqe->user_data = tag;
}

void rh_uring_sendv(struct rh_uring *u, int fd, const struct iovec *iov, unsigned count,
                    uint64_t tag)
{
    struct io_uring_sqe *sqe;
    struct msghdr *msg;

    rh_assert(count > 0 && count <= RH_URING_IOV);
    if (u->msgs_used == u->msgs_room || u->iovs_used + count > u->iovs_room)
        submit_now(u);
    sqe = take_sqe(u); /* may submit, too: headers are placed only behind it */
    msg = &u->msgs[u->msgs_used++];
    memset(msg, 0, sizeof(*msg));
    msg->msg_iov = &u->iovs[u->iovs_used];
    msg->msg_iovlen = count;
    memcpy(msg->msg_iov, iov, count * sizeof(*iov));
    u->iovs_used += count;
    io_uring_prep_sendmsg(sqe, fd, msg, MSG_WAITALL | MSG_NOSIGNAL);
    on(sqe, fd);
    sqe->user_data = tag;
}

void rh_uring_cancel(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    io_uring_prep_cancel64(sqe, target, 0);
    sqe->user_data = tag;
}

void rh_uring_cancel_accept(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    rh_uring_cancel(u, u->table ? target | TAG_SLOT : target, tag);
}

/* ---- at once ---- */

/* For an operation that the kernel executes while it is submitted: end_now has its result. NULL: its
 * completion might not be seen, because the queue of them is full. */
static struct io_uring_sqe *begin_now(struct rh_uring *u)
{
    if (io_uring_sq_ready(&u->ring))
        submit_now(u);
    if (io_uring_cq_has_overflow(&u->ring) ||
        io_uring_cq_ready(&u->ring) == u->ring.cq.ring_entries)
        return NULL;
    return take_sqe(u);
}

/* The completion is not taken out of the queue, only made one that nobody misses. */
static int end_now(struct rh_uring *u, struct io_uring_sqe *sqe)
{
    struct io_uring_cq *cq = &u->ring.cq;
    unsigned head = *cq->khead, at;

    sqe->user_data = TAG_NOW;
    submit_now(u);
    for (at = io_uring_smp_load_acquire(cq->ktail); at != head; at--) {
        struct io_uring_cqe *cqe = &cq->cqes[(at - 1) & (cq->ring_entries - 1)];

        if (cqe->user_data == TAG_NOW) {
            cqe->user_data = TAG_VOID;
            return cqe->res;
        }
    }
    rh_assert(!"an operation that never waits has not completed");
    return -EIO;
}

/* An ordinary descriptor of the same socket, for the caller to close; negative: there is none to be
 * had. */
static int borrow(struct rh_uring *u, int fd)
{
    struct io_uring_sqe *sqe = begin_now(u);

    if (!sqe)
        return -EAGAIN;
    io_uring_prep_rw(RH_OP_FIXED_FD_INSTALL, sqe, fd, NULL, 0, 0);
    on(sqe, fd);
    return end_now(u, sqe);
}

static void shutdown_queued(struct rh_uring *u, int fd, int how)
{
    struct io_uring_sqe *sqe = take_sqe(u);
    unsigned slot = (unsigned)(fd & ~RH_FD_DIRECT);

    rh_assert(u->shutting[slot] < CLOSE_BEHIND - 1); /* nobody shuts what is closed, nor so often */
    u->shutting[slot]++;
    io_uring_prep_shutdown(sqe, fd, how);
    on(sqe, fd);
    sqe->user_data = TAG_SHUT | slot;
}

void rh_uring_shutdown(struct rh_uring *u, int fd, int how)
{
    int own = rh_fd_direct(fd) ? borrow(u, fd) : fd;

    if (own < 0) {
        shutdown_queued(u, fd, how);
        return;
    }
    shutdown(own, how);
    if (own != fd)
        close(own);
}

static struct io_uring_sqe *prep_close(struct rh_uring *u, unsigned slot)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    io_uring_prep_close_direct(sqe, slot);
    sqe->user_data = TAG_VOID;
    return sqe;
}

static void close_slot(struct rh_uring *u, unsigned slot)
{
    if (u->shutting[slot])
        u->shutting[slot] |= CLOSE_BEHIND;
    else
        prep_close(u, slot)->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

/* A queued shutdown has ended. */
static void shut(struct rh_uring *u, unsigned slot)
{
    if (--u->shutting[slot] != CLOSE_BEHIND)
        return;
    u->shutting[slot] = 0;
    close_slot(u, slot);
}

void rh_uring_close(struct rh_uring *u, int fd)
{
    if (rh_fd_direct(fd))
        close_slot(u, (unsigned)(fd & ~RH_FD_DIRECT));
    else
        close(fd);
}

void rh_uring_abort(struct rh_uring *u, int fd)
{
    static const struct linger now = {.l_onoff = 1, .l_linger = 0};
    unsigned slot = (unsigned)(fd & ~RH_FD_DIRECT);
    struct io_uring_sqe *sqe;

    if (!rh_fd_direct(fd)) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd);
        return;
    }
    if (io_uring_sq_space_left(&u->ring) < 2)
        submit_now(u); /* a chain is submitted in one go */
    sqe = take_sqe(u);
    rh_uring_prep_setsockopt(sqe, (int)slot, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = TAG_VOID;
    if (u->shutting[slot]) {
        close_slot(u, slot);
        return;
    }
    sqe->flags |= IOSQE_IO_HARDLINK;
    prep_close(u, slot); /* whatever became of the option */
}

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    int own = rh_fd_direct(fd) ? borrow(u, fd) : fd;
    uint64_t acked = RH_ACKED_UNKNOWN;
    struct tcp_info info;
    socklen_t len = sizeof(info);

    memset(&info, 0, sizeof(info));
    if (own >= 0 && getsockopt(own, IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
        acked = info.tcpi_bytes_acked;
    if (own >= 0 && own != fd)
        close(own);
    return acked;
}

/* ---- direct descriptors ---- */

void rh_uring_pass(struct rh_uring *u, int fd, const struct rh_uring *to, uint64_t tag)
{
    struct io_uring_sqe *sqe = take_sqe(u);

    rh_assert(rh_fd_direct(fd) && to != u);
    rh_uring_prep_pass(sqe, fd & ~RH_FD_DIRECT, &to->ring);
    sqe->user_data = tag | TAG_SLOT;
}

int rh_uring_adopt(struct rh_uring *u, int fd, int *ret_fd)
{
    struct io_uring_sqe *sqe = begin_now(u);
    int slot = fd; /* the kernel reads the one here and writes the other */
    int rc;

    if (!sqe)
        return RH_EFULL;
    io_uring_prep_files_update(sqe, &slot, 1, (int)IORING_FILE_INDEX_ALLOC);
    rc = end_now(u, sqe);
    if (rc != 1)
        return rc == -ENFILE ? RH_EFULL : RH_EIO;
    close(fd);
    *ret_fd = slot | RH_FD_DIRECT;
    return RH_OK;
}

/* ---- a pass ---- */

int rh_uring_enter(struct rh_uring *u, uint64_t wait_ns)
{
    struct __kernel_timespec ts = {
        .tv_sec = (int64_t)(wait_ns / 1000000000u),
        .tv_nsec = (long long)(wait_ns % 1000000000u),
    };
    int rc = submit(u, wait_ns ? 1 : TAKE_ALL, &ts);

    if (rc >= 0 || rc == -ETIME || rc == -EINTR)
        return RH_OK;
    if (rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM) /* passing: reap, then try again */
        return RH_OK;
    return RH_EIO;
}

static void translate(struct rh_uring *u, const struct io_uring_cqe *from, struct rh_cqe *dst)
{
    dst->tag = from->user_data & ~TAG_SLOT;
    dst->res = from->res;
    if ((from->user_data & TAG_SLOT) && from->res >= 0)
        dst->res |= RH_FD_DIRECT;
    dst->flags = from->flags & IORING_CQE_F_MORE ? RH_CQE_MORE : 0;
    dst->buffer = 0;
    if (from->flags & IORING_CQE_F_BUFFER) {
        dst->flags |= RH_CQE_BUFFER;
        dst->buffer = (uint16_t)(from->flags >> IORING_CQE_BUFFER_SHIFT);
        RH_MEM_UNPOISON(buf_start(u, dst->buffer), RH_URING_BUFFER);
    }
}

unsigned rh_uring_reap(struct rh_uring *u, struct rh_cqe *dst, unsigned max)
{
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0, count = 0;
    bool woken = false, starved = false;

    if (rh_unlikely(io_uring_cq_has_overflow(&u->ring)))
        u->overflows++;
    io_uring_for_each_cqe(&u->ring, head, cqe)
    {
        if (count == max)
            break;
        seen++;
        if (cqe->user_data & TAG_OURS) {
            woken |= cqe->user_data == TAG_WAKE;
            if (rh_unlikely(cqe->user_data & TAG_SLOT))
                shut(u, (unsigned)cqe->user_data);
            continue;
        }
        starved |= cqe->res == -ENOBUFS;
        translate(u, cqe, &dst[count++]);
    }
    io_uring_cq_advance(&u->ring, seen);
    if (rh_unlikely(starved) && u->buf_given < u->buf_count)
        provide_more(u);
    if (woken)
        arm_wake(u);
    return count;
}

uint8_t *rh_uring_buffer(struct rh_uring *u, uint16_t buffer)
{
    return buf_start(u, buffer) + u->headroom;
}

void rh_uring_give(struct rh_uring *u, uint16_t buffer)
{
    provide(u, buffer, 0);
    io_uring_buf_ring_advance(u->bufs, 1);
}

size_t rh_uring_buffer_bytes(const struct rh_uring *u)
{
    return RH_URING_BUFFER - u->headroom;
}

void rh_uring_wake_any(struct rh_uring *u)
{
    uint64_t one = 1;
    ssize_t rc = write(u->wake_fd, &one, sizeof(one));

    (void)rc; /* a full counter wakes as well */
}

uint64_t rh_uring_overflows(const struct rh_uring *u)
{
    return u->overflows;
}
