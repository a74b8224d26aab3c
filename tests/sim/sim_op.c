/* tests/sim/sim_op.c - what an operation does, and how it ends; see sim_op.h. */
#include "tests/sim/sim_op.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

const char *const sim_op_names[] = {"accept", "recv once", "recv", "send",
                                    "cancel", "pass",      "poll", "close"};

void sim_op_over(struct sim_op *op)
{
    rh_list_del(&op->node);
    rh_list_del(&op->of_file);
    if (op->file)
        sim_file_unref(op->file);
    op->file = NULL;
}

void sim_op_due(struct sim_op *op, uint64_t at_ns)
{
    op->due_ns = RH_MIN(op->due_ns, at_ns);
    op->ring->due_ns = RH_MIN(op->ring->due_ns, at_ns);
}

/* ---- completing ---- */

void sim_op_post(struct rh_uring *u, const struct sim_op *op, int res, unsigned flags,
                 uint16_t buffer)
{
    SIM_CHECK(u->cq_count < SIM_CQ_ROOM, "the completion queue is full");
    u->cq[(u->cq_head + u->cq_count++) % SIM_CQ_ROOM] =
        (struct rh_cqe){op->tag, res, (uint16_t)flags, buffer};
    if (op->kind != SIM_ACCEPT || res != -ECANCELED)
        sim_trace("shard %d: %s fd=%d -> %d%s", u->tid, sim_op_names[op->kind], op->fd, res,
                  flags & RH_CQE_MORE ? " more" : "");
}

/* FNV-1a over all bytes of a send. */
uint64_t sim_op_sum(const struct sim_op *op)
{
    uint64_t sum = 0xcbf29ce484222325u;

    for (unsigned i = 0; i < op->count; i++)
        for (size_t k = 0; k < op->iov[i].iov_len; k++)
            sum = (sum ^ ((const uint8_t *)op->iov[i].iov_base)[k]) * 0x100000001b3u;
    return sum;
}

static void complete(struct sim_op *op, int res)
{
    struct rh_uring *u = op->ring;

    SIM_CHECK(op->kind != SIM_SEND || sim_op_sum(op) == op->sum,
              "bytes were changed while they were being sent (fd %d)", op->fd);
    sim_op_over(op);
    sim_op_post(u, op, res, 0, 0);
}

/* ---- running ---- */

void sim_ops_changed(struct sim_file *file)
{
    for (struct rh_list *at = file->ops.next; at != &file->ops; at = at->next) {
        struct sim_op *op = rh_container_of(at, struct sim_op, of_file);

        sim_op_due(op, sim_soon());
    }
}

static void fill_addr(struct rh_addr *addr, unsigned id)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&addr->at;

    memset(addr, 0, sizeof(*addr));
    v4->sin_family = AF_INET;
    v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v4->sin_port = htons((uint16_t)(1024 + id));
    addr->len = sizeof(*v4);
}

static void run_accept(struct sim_op *op)
{
    static const int errors[] = {-EMFILE, -ECONNABORTED, -ENOMEM, -EINTR};
    struct sim_table *table = &op->ring->table;
    struct sim_end *end;
    int fd;

    if (op->file->backlog_count && sim_chance(sim_knobs.bad_accepts)) {
        complete(op, errors[sim_below(RH_COUNT(errors))]);
        return;
    }
    end = sim_backlog_take(op->file);
    if (!end)
        return;
    fill_addr(op->addr, end->id);
    fd = sim_fd_open(table->room ? table : &sim_process, end, sim_ops_changed);
    SIM_CHECK(fd >= 0, "shard %d accepts without a slot: the client is lost", op->ring->tid);
    complete(op, table->room ? fd | RH_FD_DIRECT : fd);
}

/* The target's thread runs it when it likes; it hears nothing of that. */
static void run_pass(struct sim_op *op)
{
    static const int errors[] = {-ENFILE, -ENOMEM, -EAGAIN};
    int fd = sim_chance(sim_knobs.bad_passes) ? errors[sim_below(RH_COUNT(errors))]
                                              : sim_fd_copy(&op->to->table, op->file);

    complete(op, fd >= 0 ? fd | RH_FD_DIRECT : fd);
}

/* One receive into one buffer; false: it is over, or waits. */
static bool run_recv_step(struct sim_op *op)
{
    struct rh_uring *u = op->ring;
    bool once = op->kind == SIM_RECV_ONCE;
    size_t room = RH_URING_BUFFER - u->headroom;
    uint16_t buffer = u->ready[u->ready_head];
    uint8_t *at = sim_buffer(u, buffer);
    int n;

    if (!sim_readable(op->file->end) && !op->waits)
        return false;
    op->waits = false;
    if (!u->ready_count) {
        complete(op, -ENOBUFS);
        return false;
    }
    RH_MEM_UNPOISON(at, RH_URING_BUFFER);
    n = sim_read(op->file->end, at + u->headroom, sim_chance(200) ? 1 + sim_below(room) : room);
    RH_MEM_POISON(at, RH_URING_BUFFER);
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        complete(op, n);
        return false;
    }
    u->ready_head = (u->ready_head + 1) % u->buffers;
    u->ready_count--;
    if (once || sim_chance(sim_knobs.drops_more)) {
        sim_op_over(op);
        sim_op_post(u, op, n, RH_CQE_BUFFER, buffer);
        return false;
    }
    sim_op_post(u, op, n, RH_CQE_BUFFER | RH_CQE_MORE, buffer);
    return true;
}

static void run_recv(struct sim_op *op)
{
    while (run_recv_step(op)) {
        if (sim_chance(300)) { /* others have their turn first */
            sim_op_due(op, sim_soon());
            return;
        }
    }
}

/* Copies out of the pieces from op->done on, at most `room`. */
static size_t gather(const struct sim_op *op, uint8_t *dst, size_t room)
{
    size_t skip = op->done, n = 0;

    for (unsigned i = 0; i < op->count && n < room; i++) {
        size_t len = op->iov[i].iov_len;
        size_t part;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        part = RH_MIN(len - skip, room - n);
        memcpy(dst + n, (const uint8_t *)op->iov[i].iov_base + skip, part);
        n += part;
        skip = 0;
    }
    return n;
}

static void run_send(struct sim_op *op)
{
    uint8_t piece[4096];

    while (op->done < op->len) {
        size_t n = gather(op, piece, sizeof(piece));
        int took = sim_write(op->file->end, piece, n);

        if (took < 0) {
            complete(op, op->done ? (int)op->done : took);
            return;
        }
        if (took == 0)
            return; /* until the peer has taken something */
        op->done += (size_t)took;
        if (op->done == op->len && sim_chance(200)) {
            sim_op_due(op, sim_soon()); /* sent, but nobody has heard */
            return;
        }
    }
    complete(op, (int)op->len);
}

void sim_op_run(struct sim_op *op)
{
    op->due_ns = SIM_NEVER;
    if (op->cancelled) {
        complete(op, op->kind == SIM_SEND && op->done ? (int)op->done : -ECANCELED);
        return;
    }
    switch (op->kind) {
    case SIM_ACCEPT:
        run_accept(op);
        break;
    case SIM_SEND:
        run_send(op);
        break;
    case SIM_PASS:
        run_pass(op);
        break;
    case SIM_POLL:
        if (sim_readable(op->file->end))
            complete(op, 1);
        break;
    default:
        run_recv(op);
        break;
    }
}

/* All that is due, in any order. */
void sim_ops_run(struct rh_uring *u)
{
    while (u->due_ns <= sim_now()) {
        struct sim_op *chosen = NULL;
        unsigned count = 0;

        u->due_ns = SIM_NEVER;
        for (struct rh_list *at = u->flying.next; at != &u->flying; at = at->next) {
            struct sim_op *op = rh_container_of(at, struct sim_op, node);

            u->due_ns = RH_MIN(u->due_ns, op->due_ns);
            if (op->due_ns <= sim_now() && sim_below(++count) == 0)
                chosen = op;
        }
        if (chosen)
            sim_op_run(chosen);
    }
}
