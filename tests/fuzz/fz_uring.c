/* tests/fuzz/fz_uring.c - rings of the fake kernel: core/uring replaced; see fz_kernel.h.
 *
 * Operations run in rh_uring_enter and before a pass begins, as with DEFER_TASKRUN; nothing
 * happens in between, so a program decides what one pass finds.
 */
#include <string.h>

#include "core/err.h"
#include "core/thread.h"
#include "tests/fuzz/fz_kernel_int.h"

struct rh_uring fz_rings[FZ_SHARDS];
struct iovec fz_pieces[FZ_SOCKS][RH_URING_IOV];

static uint8_t buffer_mem[FZ_SHARDS][FZ_BUFFERS * RH_URING_BUFFER];

/* ---- life ---- */

static void provide(struct rh_uring *u, uint16_t buffer)
{
    RH_MEM_POISON(fz_buffer(u, buffer), RH_URING_BUFFER);
    u->lent[buffer] = false;
    u->ready[(u->ready_head + u->ready_count++) % u->buffers] = buffer;
}

void fz_uring_set_buffers(unsigned buffers)
{
    fz_kernel.buffers = RH_MIN(buffers, (unsigned)FZ_BUFFERS);
}

int rh_uring_create(const struct rh_uring_opts *opts, struct rh_uring **ret_uring,
                    struct rh_fault *fault)
{
    struct rh_uring *u = &fz_rings[rh_tid_self()];

    (void)fault;
    memset(u, 0, offsetof(struct rh_uring, cq));
    u->cq_count = 0;
    u->tid = rh_tid_self();
    u->busy = true; /* its thread begins with a pass */
    u->headroom = opts->headroom;
    u->files = opts->files;
    u->buffers = fz_kernel.buffers;
    u->mem = buffer_mem[u->tid];
    for (unsigned i = 0; i < u->buffers; i++)
        provide(u, (uint16_t)i);
    *ret_uring = u;
    return RH_OK;
}

/* Operations under way end unseen. */
void rh_uring_destroy(struct rh_uring *u)
{
    if (!u)
        return;
    for (unsigned i = 0; i < fz_kernel.sock_count; i++) {
        struct fz_sock *s = &fz_kernel.socks[i];

        if (s->recv.ring == u)
            s->recv.state = FZ_IDLE;
        if (s->send.ring == u)
            s->send.state = FZ_IDLE;
        if (s->in[u->tid].open) /* its table goes, too */
            fz_close_in(s, (unsigned)u->tid, false);
    }
    fz_kernel.listeners[u->tid].accepts = 0;
    RH_MEM_UNPOISON(u->mem, FZ_BUFFERS * RH_URING_BUFFER);
}

/* ---- queueing ---- */

struct fz_queued *fz_enqueue(struct rh_uring *u)
{
    FZ_CHECK(u->tid == rh_tid_self(), "shard %d's ring is used by %d", u->tid, rh_tid_self());
    FZ_CHECK(u->queue_count < FZ_QUEUE, "too many operations in a pass");
    return &u->queue[u->queue_count++];
}

static struct fz_op *queue_op(struct rh_uring *u, struct fz_op *op, enum fz_kind kind, uint64_t tag)
{
    struct fz_sock *s = op->sock;

    FZ_CHECK(op->state == FZ_IDLE, "two %s on descriptor %u", op == &s->send ? "sends" : "receives",
             FZ_FD + s->number);
    *op = (struct fz_op){.kind = kind, .state = FZ_QUEUED, .tag = tag, .ring = u, .sock = s};
    *fz_enqueue(u) = (struct fz_queued){.op = op};
    s->last = op;
    return op;
}

void rh_uring_accept(struct rh_uring *u, int listener, struct rh_addr *addr, uint64_t tag)
{
    struct fz_listener *l = fz_listener_of(listener);

    FZ_CHECK(l->accepts < FZ_ACCEPTS, "too many accepts");
    l->accept[l->accepts].ring = u;
    l->accept[l->accepts].addr = addr;
    l->accept[l->accepts++].tag = tag;
}

void rh_uring_recv_once(struct rh_uring *u, int fd, uint64_t tag)
{
    queue_op(u, &fz_sock_of(u, fd)->recv, FZ_RECV, tag);
}

void rh_uring_recv_multi(struct rh_uring *u, int fd, bool waits, uint64_t tag)
{
    queue_op(u, &fz_sock_of(u, fd)->recv, FZ_RECV_MULTI, tag)->waits = waits;
}

void rh_uring_poll(struct rh_uring *u, int fd, uint64_t tag)
{
    queue_op(u, &fz_sock_of(u, fd)->recv, FZ_POLL, tag);
}

void rh_uring_pass(struct rh_uring *u, int fd, const struct rh_uring *to, uint64_t tag)
{
    struct fz_sock *s = fz_sock_of(u, fd);

    FZ_CHECK(rh_fd_direct(fd) && to != u, "descriptor %#x is passed to shard %d", (unsigned)fd,
             to->tid);
    FZ_CHECK(s->send.state == FZ_IDLE, "descriptor %#x is passed under a send", (unsigned)fd);
    queue_op(u, &s->recv, FZ_PASS, tag)->to = (unsigned)to->tid;
}

void rh_uring_sendv(struct rh_uring *u, int fd, const struct iovec *iov, unsigned count,
                    uint64_t tag)
{
    struct fz_op *op = queue_op(u, &fz_sock_of(u, fd)->send, FZ_SEND, tag);

    FZ_CHECK(count > 0 && count <= RH_URING_IOV, "a send of %u pieces", count);
    memcpy(fz_pieces[op->sock->number], iov, count * sizeof(*iov));
    op->count = count;
    for (unsigned i = 0; i < count; i++)
        op->len += iov[i].iov_len;
    FZ_CHECK(op->len, "an empty send");
    op->sum = fz_op_sum(op);
}

void rh_uring_send(struct rh_uring *u, int fd, const void *bytes, size_t len, uint64_t tag)
{
    const struct iovec iov = {(void *)bytes, len};

    rh_uring_sendv(u, fd, &iov, 1, tag);
}

void rh_uring_cancel(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    *fz_enqueue(u) = (struct fz_queued){.target = target, .tag = tag};
}

void rh_uring_cancel_accept(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    rh_uring_cancel(u, target, tag);
}

/* ---- a pass ---- */

static void submit(struct rh_uring *u)
{
    for (unsigned i = 0; i < u->queue_count; i++) {
        const struct fz_queued *q = &u->queue[i];

        if (q->op)
            fz_op_submit(q->op);
        else if (q->close)
            fz_close_in(q->close, (unsigned)u->tid, q->abort);
        else
            fz_cancel(u, q->target, q->tag);
    }
    u->queue_count = 0;
}

void fz_uring_run(struct rh_uring *u)
{
    fz_accepts_run(&fz_kernel.listeners[u->tid], u);
    for (unsigned i = 0; i < fz_kernel.sock_count; i++) {
        struct fz_sock *s = &fz_kernel.socks[i];

        if (s->send.state == FZ_FLYING && s->send.ring == u)
            fz_op_run(&s->send);
        if (s->recv.state == FZ_FLYING && s->recv.ring == u)
            fz_op_run(&s->recv);
    }
}

int rh_uring_enter(struct rh_uring *u, uint64_t wait_ns)
{
    FZ_CHECK(u->tid == rh_tid_self(), "shard %d's ring is used by %d", u->tid, rh_tid_self());
    submit(u);
    fz_uring_run(u);
    u->busy = wait_ns == 0;
    return RH_OK;
}

unsigned rh_uring_reap(struct rh_uring *u, struct rh_cqe *dst, unsigned max)
{
    unsigned count = RH_MIN(u->cq_count, max);

    memcpy(dst, u->cq, count * sizeof(dst[0]));
    u->cq_count -= count;
    memmove(u->cq, u->cq + count, u->cq_count * sizeof(u->cq[0]));
    for (unsigned i = 0; i < count; i++) {
        if (!(dst[i].flags & RH_CQE_BUFFER))
            continue;
        u->lent[dst[i].buffer] = true;
        RH_MEM_UNPOISON(fz_buffer(u, dst[i].buffer), u->headroom + (size_t)dst[i].res);
    }
    u->woken = false;
    return count;
}

uint8_t *rh_uring_buffer(struct rh_uring *u, uint16_t buffer)
{
    FZ_CHECK(buffer < u->buffers && u->lent[buffer], "buffer %u is the kernel's", buffer);
    return fz_buffer(u, buffer) + u->headroom;
}

void rh_uring_give(struct rh_uring *u, uint16_t buffer)
{
    FZ_CHECK(buffer < u->buffers && u->lent[buffer], "buffer %u is given back twice", buffer);
    provide(u, buffer);
}

size_t rh_uring_buffer_bytes(const struct rh_uring *u)
{
    return RH_URING_BUFFER - u->headroom;
}

uint64_t rh_uring_overflows(const struct rh_uring *u)
{
    (void)u;
    return 0;
}

void rh_uring_wake_any(struct rh_uring *u)
{
    u->woken = true;
}

/* ---- the program's side ---- */

void fz_uring_set_order(struct rh_uring *u, enum fz_order order)
{
    u->order = order;
}

void fz_uring_starve(struct rh_uring *u, unsigned receives)
{
    u->starve = receives;
}

bool fz_uring_due(const struct rh_uring *u)
{
    return u->busy || u->woken || u->cq_count;
}

bool fz_uring_asleep(const struct rh_uring *u)
{
    return !fz_uring_due(u);
}

unsigned fz_uring_lent(const struct rh_uring *u)
{
    unsigned count = 0;

    for (unsigned i = 0; i < u->buffers; i++)
        count += u->lent[i];
    return count;
}

/* An operation whose last completion has not been reaped counts, too. */
static unsigned inflight(const struct fz_op *op)
{
    const struct rh_uring *u = op->ring;
    bool unread = false;

    if (op->state != FZ_IDLE || !u)
        return op->state != FZ_IDLE;
    for (unsigned i = 0; i < u->cq_count; i++)
        unread |= u->cq[i].tag == op->tag && !(u->cq[i].flags & RH_CQE_MORE);
    return unread;
}

unsigned fz_sock_inflight(const struct fz_sock *s)
{
    return inflight(&s->recv) + inflight(&s->send);
}

bool fz_sock_last(const struct fz_sock *s, unsigned *ret_tid, uint64_t *ret_tag)
{
    if (!s->last)
        return false;
    *ret_tid = (unsigned)s->last->ring->tid;
    *ret_tag = s->last->tag;
    return true;
}
