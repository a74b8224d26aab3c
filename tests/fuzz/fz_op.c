/* tests/fuzz/fz_op.c - operations of the fake kernel: what they do, and how they end. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "tests/fuzz/fz_kernel_int.h"
#include "tests/fuzz/fz_peer.h"

/* ---- completions ---- */

/* Where the next completion goes: those of one operation stay in their order. */
static unsigned place_of(const struct rh_uring *u, uint64_t tag)
{
    unsigned first = 0;

    if (u->order == FZ_AS_THEY_COME || (u->order == FZ_MIXED && (u->cq_count & 1)))
        return u->cq_count;
    for (unsigned i = 0; i < u->cq_count; i++)
        if (u->cq[i].tag == tag)
            first = i + 1;
    return first;
}

static void post(struct rh_uring *u, uint64_t tag, int res, unsigned flags, uint16_t buffer)
{
    unsigned at = place_of(u, tag);

    FZ_CHECK(u->cq_count < FZ_CQ, "the completion queue is full");
    memmove(&u->cq[at + 1], &u->cq[at], (u->cq_count - at) * sizeof(u->cq[0]));
    u->cq[at] = (struct rh_cqe){tag, res, (uint16_t)flags, buffer};
    u->cq_count++;
}

uint64_t fz_op_sum(const struct fz_op *op)
{
    uint64_t sum = 0, word;

    for (unsigned i = 0; i < op->count; i++) {
        const struct iovec *piece = &fz_pieces[op->sock->number][i];
        const uint8_t *at = piece->iov_base;
        size_t n = 0;

        for (; n + sizeof(word) <= piece->iov_len; n += sizeof(word)) {
            memcpy(&word, at + n, sizeof(word));
            sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
        }
        for (; n < piece->iov_len; n++)
            sum = (sum ^ at[n]) * 0x9e3779b97f4a7c15u;
    }
    return sum;
}

static void complete(struct fz_op *op, int res, unsigned flags, uint16_t buffer)
{
    static const char *const names[] = {"send", "recv", "recv", "poll", "pass"};

    FZ_CHECK(op->kind != FZ_SEND || fz_op_sum(op) == op->sum,
             "bytes were changed while they were being sent");
    fz_trace("    shard %d: %s fd=%u -> %d", op->ring->tid, names[op->kind],
             FZ_FD + op->sock->number, res);
    op->state = FZ_IDLE;
    post(op->ring, op->tag, res, flags, buffer);
}

/* ---- accepting ---- */

static void take_accept(struct fz_listener *l, unsigned i, int res)
{
    post(l->accept[i].ring, l->accept[i].tag, res, 0, 0);
    l->accepts--;
    memmove(&l->accept[i], &l->accept[i + 1], (l->accepts - i) * sizeof(l->accept[0]));
}

static void fill_addr(struct rh_addr *addr, unsigned number)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&addr->at;

    memset(addr, 0, sizeof(*addr));
    v4->sin_family = AF_INET;
    v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK + number % 2);
    v4->sin_port = htons((uint16_t)(1024 + number));
    addr->len = sizeof(*v4);
}

void fz_accepts_run(struct fz_listener *l, const struct rh_uring *u)
{
    while (l->waiting && l->accepts) {
        struct fz_sock *s = l->backlog[0];
        int error = l->error, fd;

        l->error = 0;
        if (error) {
            take_accept(l, 0, error);
            continue;
        }
        l->waiting--;
        memmove(&l->backlog[0], &l->backlog[1], l->waiting * sizeof(l->backlog[0]));
        s->accepted = true;
        s->heard_ms = fz_now_ms();
        fz_trace("    accept fd=%u", FZ_FD + s->number);
        fill_addr(l->accept[0].addr, s->number);
        fd = fz_open_in(s, u->files ? (unsigned)u->tid : FZ_PROCESS);
        FZ_CHECK(fd >= 0, "shard %d accepts without a slot: the client is lost", u->tid);
        take_accept(l, 0, fd);
    }
}

/* ---- receiving ---- */

/* The bytes that one completion brings. */
static void bring(struct fz_sock *s, struct fz_op *op)
{
    struct rh_uring *u = op->ring;
    uint16_t buffer = u->ready[u->ready_head];
    uint8_t *at = fz_buffer(u, buffer);
    size_t n = RH_MIN((size_t)(s->sent - s->read), RH_URING_BUFFER - (size_t)u->headroom);

    if (s->bites)
        n = RH_MIN(n, (size_t)s->bite);
    u->ready_head = (u->ready_head + 1) % u->buffers;
    u->ready_count--;
    RH_MEM_UNPOISON(at + u->headroom, n);
    memcpy(at + u->headroom, fz_wire(s) + s->read, n);
    RH_MEM_POISON(at + u->headroom, n);
    s->read += (uint32_t)n;
    s->heard_ms = fz_now_ms();
    if (op->kind == FZ_RECV || s->ends_multi) {
        s->ends_multi = false;
        complete(op, (int)n, RH_CQE_BUFFER, buffer);
    } else {
        fz_trace("    shard %d: recv fd=%u -> %zu more", u->tid, FZ_FD + s->number, n);
        post(u, op->tag, (int)n, RH_CQE_BUFFER | RH_CQE_MORE, buffer);
    }
}

/* True: no buffer is there for it, or the program says so. */
static bool starves(struct rh_uring *u)
{
    if (u->starve) {
        u->starve--;
        return true;
    }
    return !u->ready_count;
}

static void run_poll(struct fz_op *op)
{
    struct fz_sock *s = op->sock;
    int error = s->recv_error;

    if (error) {
        s->recv_error = 0;
        complete(op, error, 0, 0);
    } else if (s->reset || s->sent > s->read || s->fin || s->shut_in)
        complete(op, 1, 0, 0);
    else if (op->cancelled)
        complete(op, -ECANCELED, 0, 0);
}

/* The other thread hears nothing of it. */
static void run_pass(struct fz_op *op)
{
    int error = op->ring->pass_error;

    op->ring->pass_error = 0;
    complete(op, error ? error : fz_open_in(op->sock, op->to), 0, 0);
}

static void run_recv(struct fz_op *op)
{
    struct fz_sock *s = op->sock;
    int error = s->recv_error;

    while (op->state == FZ_FLYING) {
        if (op->cancelled && !s->late_cancel) {
            complete(op, -ECANCELED, 0, 0);
        } else if (s->reset) {
            complete(op, s->told ? 0 : -ECONNRESET, 0, 0);
            s->told = true;
        } else if (s->sent > s->read) {
            if (starves(op->ring))
                complete(op, -ENOBUFS, 0, 0);
            else
                bring(s, op);
            if (s->bites && s->bites--)
                return;
        } else if (error) {
            s->recv_error = 0;
            complete(op, error, 0, 0);
        } else if (s->fin || (s->shut_in && !s->deaf)) {
            complete(op, 0, 0, 0);
        } else {
            if (op->cancelled)
                s->late_cancel = false; /* it ends the next time */
            return;
        }
    }
}

/* ---- sending ---- */

/* Gives the peer up to n bytes of what is left. */
static void pass_on(struct fz_op *op, size_t n)
{
    size_t skip = op->done;
    struct fz_sock *s = op->sock;

    for (unsigned i = 0; i < op->count && n; i++) {
        const struct iovec *piece = &fz_pieces[s->number][i];
        size_t part;

        if (skip >= piece->iov_len) {
            skip -= piece->iov_len;
            continue;
        }
        part = RH_MIN(piece->iov_len - skip, n);
        if (s->gone)
            fz_reset(s);
        else
            fz_peer_take(s, (const uint8_t *)piece->iov_base + skip, part);
        op->done += part;
        s->taken += part;
        n -= part;
        skip = 0;
    }
}

static void run_send(struct fz_op *op)
{
    struct fz_sock *s = op->sock;
    size_t n = RH_MIN(op->len - op->done, (size_t)s->room);
    int error = s->send_error;

    if (s->reset || s->shut_out) {
        error = s->told || s->shut_out ? -EPIPE : -ECONNRESET;
        s->told = true;
        complete(op, op->done ? (int)op->done : error, 0, 0);
        return;
    }
    if (error)
        n = RH_MIN(n, (size_t)s->tear);
    pass_on(op, n);
    if (s->room != FZ_ALL)
        s->room -= (uint32_t)n;
    if (error && op->done < op->len) {
        s->send_error = 0;
        complete(op, op->done ? (int)op->done : error, 0, 0);
    } else if (op->done == op->len && s->late_send && !op->late) {
        op->late = true;
        s->late_send = false;
    } else if (op->done == op->len) {
        complete(op, (int)op->len, 0, 0);
    }
}

/* ---- from outside ---- */

void fz_op_run(struct fz_op *op)
{
    switch ((enum fz_kind)op->kind) {
    case FZ_SEND:
        run_send(op);
        break;
    case FZ_POLL:
        run_poll(op);
        break;
    case FZ_PASS:
        run_pass(op);
        break;
    case FZ_RECV:
    case FZ_RECV_MULTI:
        run_recv(op);
        break;
    }
}

/* A send begins at once, so that most often it is the first to complete. */
void fz_op_submit(struct fz_op *op)
{
    op->state = FZ_FLYING;
    if (op->kind == FZ_SEND)
        run_send(op);
    else if (op->waits && starves(op->ring))
        complete(op, -ENOBUFS, 0, 0);
}

void fz_cancel(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    struct fz_listener *l = &fz_kernel.listeners[u->tid];
    bool found = false;

    for (unsigned i = 0; i < l->accepts && !found; i++) {
        found = l->accept[i].tag == target;
        if (found)
            take_accept(l, i, -ECANCELED);
    }
    for (unsigned i = 0; i < fz_kernel.sock_count && !found; i++) {
        struct fz_op *op = &fz_kernel.socks[i].recv;

        found = op->state == FZ_FLYING && op->ring == u && op->tag == target;
        op->cancelled |= found;
    }
    post(u, tag, found ? 0 : -ENOENT, 0, 0);
}
