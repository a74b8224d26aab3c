/* tests/sim/sim_uring.c - core/uring replaced: a kernel that may do whatever a kernel may do.
 *
 * Why this way: the hub's rules come from what io_uring promises and, more often, from what it does
 * not. So every freedom that it has is used here: completions of different operations come in any
 * order, late, in any batch; a multishot receive ends when it likes; a cancelled operation may still
 * succeed; a send sits there until its peer takes something. What the hub must not do is checked
 * where it does it: to change bytes that are being sent, to touch a buffer that it gave back, two
 * sends at once, one tag twice.
 *
 * Operations run only inside rh_uring_enter and at the end of its sleep, as with DEFER_TASKRUN.
 *
 * Limits     completions never overflow: the real one's order is the same then, and a multishot
 *            that ends because of it is drawn by the knob drops_more.
 */
#include "tests/sim/sim_uring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "core/thread.h"
#include "tests/sim/sim_op.h"

#define GARBAGE 0xee

/* ---- life ---- */

void sim_kernel_begin(void)
{
    sim_files_begin();
}

static void buffer_provide(struct rh_uring *u, uint16_t buffer)
{
    uint8_t *at = sim_buffer(u, buffer);

    RH_MEM_UNPOISON(at, RH_URING_BUFFER);
    memset(at, GARBAGE, RH_URING_BUFFER);
    RH_MEM_POISON(at, RH_URING_BUFFER);
    u->lent[buffer] = false;
    u->ready[(u->ready_head + u->ready_count++) % u->buffers] = buffer;
}

int rh_uring_create(const struct rh_uring_opts *opts, struct rh_uring **ret_uring,
                    struct rh_fault *fault)
{
    struct rh_uring *u = rh_mem_zalloc(sizeof(*u));

    if (!u)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for a ring");
    u->tid = rh_tid_self();
    u->headroom = opts->headroom;
    u->table.room = opts->files;
    u->table.at = sim_keep(opts->files * sizeof(struct sim_file *) + 1);
    u->buffers = RH_MIN(opts->buffers, sim_knobs.buffers);
    u->mem = sim_keep((size_t)u->buffers * RH_URING_BUFFER);
    u->lent = sim_keep(u->buffers);
    u->ready = sim_keep(u->buffers * sizeof(*u->ready));
    u->wake_ns = u->due_ns = SIM_NEVER;
    rh_list_init(&u->queued);
    rh_list_init(&u->flying);
    for (unsigned i = 0; i < u->buffers; i++)
        buffer_provide(u, (uint16_t)i);
    *ret_uring = u;
    return RH_OK;
}

void rh_uring_destroy(struct rh_uring *u)
{
    if (!u)
        return;
    while (!rh_list_empty(&u->queued))
        sim_op_over(rh_container_of(u->queued.next, struct sim_op, node));
    while (!rh_list_empty(&u->flying))
        sim_op_over(rh_container_of(u->flying.next, struct sim_op, node));
    sim_table_close(&u->table);
    RH_MEM_UNPOISON(u->mem, (size_t)u->buffers * RH_URING_BUFFER);
    rh_mem_free(u);
}

/* ---- descriptors ---- */

static struct sim_table *table_of(struct rh_uring *u, int fd)
{
    return rh_fd_direct(fd) ? &u->table : &sim_process;
}

static struct sim_file *find(struct rh_uring *u, int fd)
{
    return sim_fd_find(table_of(u, fd), fd & ~RH_FD_DIRECT);
}

/* ---- queueing ---- */

static struct sim_op *queue(struct rh_uring *u, enum sim_op_kind kind, int fd, uint64_t tag)
{
    struct sim_op *op = sim_keep(sizeof(*op));

    SIM_CHECK(u->tid == rh_tid_self(), "shard %d's ring is used by %d", u->tid, rh_tid_self());
    op->kind = kind;
    op->fd = fd;
    op->tag = tag;
    op->ring = u;
    op->due_ns = SIM_NEVER;
    rh_list_init(&op->of_file);
    rh_list_add(&u->queued, &op->node);
    return op;
}

void rh_uring_accept(struct rh_uring *u, int listener, struct rh_addr *addr, uint64_t tag)
{
    queue(u, SIM_ACCEPT, listener, tag)->addr = addr;
}

void rh_uring_recv_once(struct rh_uring *u, int fd, uint64_t tag)
{
    queue(u, SIM_RECV_ONCE, fd, tag);
}

void rh_uring_recv_multi(struct rh_uring *u, int fd, bool waits, uint64_t tag)
{
    queue(u, SIM_RECV_MULTI, fd, tag)->waits = waits;
}

void rh_uring_poll(struct rh_uring *u, int fd, uint64_t tag)
{
    queue(u, SIM_POLL, fd, tag);
}

void rh_uring_sendv(struct rh_uring *u, int fd, const struct iovec *iov, unsigned count,
                    uint64_t tag)
{
    struct sim_op *op = queue(u, SIM_SEND, fd, tag);

    SIM_CHECK(count > 0 && count <= RH_URING_IOV, "a send of %u pieces", count);
    op->iov = sim_keep(count * sizeof(*iov));
    op->count = count;
    for (unsigned i = 0; i < count; i++) {
        op->iov[i] = iov[i];
        op->len += iov[i].iov_len;
    }
}

void rh_uring_send(struct rh_uring *u, int fd, const void *bytes, size_t len, uint64_t tag)
{
    const struct iovec iov = {(void *)bytes, len};

    rh_uring_sendv(u, fd, &iov, 1, tag);
}

void rh_uring_cancel(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    queue(u, SIM_CANCEL, -1, tag)->target = target;
}

void rh_uring_cancel_accept(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    rh_uring_cancel(u, target, tag);
}

void rh_uring_pass(struct rh_uring *u, int fd, const struct rh_uring *to, uint64_t tag)
{
    struct sim_op *op = queue(u, SIM_PASS, fd, tag);

    SIM_CHECK(rh_fd_direct(fd) && to != u, "descriptor %d is passed to shard %d", fd, to->tid);
    op->to = (struct rh_uring *)to;
}

/* ---- submitting ---- */

static void submit_cancel(struct rh_uring *u, struct sim_op *op)
{
    struct sim_op *target = NULL;

    if (sim_chance(300)) /* what has come already may still come first */
        sim_ops_run(u);
    for (struct rh_list *at = u->flying.next; at != &u->flying && !target; at = at->next) {
        struct sim_op *each = rh_container_of(at, struct sim_op, node);

        if (each->tag == op->target)
            target = each;
    }
    if (target) {
        target->cancelled = true;
        sim_op_due(target, sim_soon());
    }
    rh_list_del(&op->node);
    sim_op_post(u, op, target ? 0 : -ENOENT, 0, 0);
}

/* The hub may have one operation per tag, and one per direction of a connection. */
static void check_alone(const struct rh_uring *u, const struct sim_op *op)
{
    for (const struct rh_list *at = u->flying.next; at != &u->flying; at = at->next)
        SIM_CHECK(rh_container_of(at, struct sim_op, node)->tag != op->tag,
                  "two operations with the tag %llx", (unsigned long long)op->tag);
    for (const struct rh_list *at = op->file->ops.next; op->file->end && at != &op->file->ops;
         at = at->next)
        SIM_CHECK((rh_container_of(at, struct sim_op, of_file)->kind == SIM_SEND) !=
                      (op->kind == SIM_SEND),
                  "two %ss on fd %d", sim_op_names[op->kind], op->fd);
}

static void submit(struct rh_uring *u, struct sim_op *op)
{
    if (op->kind == SIM_CANCEL) {
        submit_cancel(u, op);
        return;
    }
    if (op->kind == SIM_CLOSE) {
        sim_op_over(op);
        sim_fd_close(&u->table, op->fd & ~RH_FD_DIRECT, op->abort);
        return;
    }
    op->file = find(u, op->fd);
    SIM_CHECK(op->file, "%s on descriptor %d, which is not open", sim_op_names[op->kind], op->fd);
    SIM_CHECK((op->kind == SIM_ACCEPT) == !op->file->end, "%s on the wrong kind of descriptor %d",
              sim_op_names[op->kind], op->fd);
    check_alone(u, op);
    SIM_CHECK(op->kind != SIM_PASS || rh_list_empty(&op->file->ops),
              "descriptor %d is passed with something under way", op->fd);
    sim_file_ref(op->file);
    rh_list_del(&op->node);
    rh_list_add(&u->flying, &op->node);
    rh_list_add(&op->file->ops, &op->of_file);
    if (op->kind == SIM_SEND)
        op->sum = sim_op_sum(op);
    if (op->kind == SIM_SEND || op->waits || sim_chance(700))
        sim_op_run(op); /* at once */
    else
        sim_op_due(op, sim_soon());
}

int rh_uring_enter(struct rh_uring *u, uint64_t wait_ns)
{
    SIM_CHECK(u->tid == rh_tid_self(), "shard %d's ring is used by %d", u->tid, rh_tid_self());
    while (!rh_list_empty(&u->queued))
        submit(u, rh_container_of(u->queued.next, struct sim_op, node));
    sim_ops_run(u);
    u->asleep = wait_ns && !u->cq_count;
    u->sleep_until = sim_now() + wait_ns;
    return RH_OK;
}

/* ---- reaping ---- */

unsigned rh_uring_reap(struct rh_uring *u, struct rh_cqe *dst, unsigned max)
{
    unsigned count = RH_MIN(u->cq_count, max);

    for (unsigned i = 0; i < count; i++) {
        dst[i] = u->cq[(u->cq_head + i) % SIM_CQ_ROOM];
        if (!(dst[i].flags & RH_CQE_BUFFER))
            continue;
        u->lent[dst[i].buffer] = true;
        RH_MEM_UNPOISON(sim_buffer(u, dst[i].buffer), u->headroom + (size_t)dst[i].res);
    }
    u->cq_head = (u->cq_head + count) % SIM_CQ_ROOM;
    u->cq_count -= count;
    return count;
}

uint8_t *rh_uring_buffer(struct rh_uring *u, uint16_t buffer)
{
    SIM_CHECK(buffer < u->buffers && u->lent[buffer], "buffer %u is the kernel's", buffer);
    return sim_buffer(u, buffer) + u->headroom;
}

void rh_uring_give(struct rh_uring *u, uint16_t buffer)
{
    SIM_CHECK(buffer < u->buffers && u->lent[buffer], "buffer %u is given back twice", buffer);
    buffer_provide(u, buffer);
}

size_t rh_uring_buffer_bytes(const struct rh_uring *u)
{
    return RH_URING_BUFFER - u->headroom;
}

uint64_t rh_uring_overflows(const struct rh_uring *u)
{
    (void)u;
    return 0; /* see the head of this file */
}

/* ---- at once ---- */

void rh_uring_shutdown(struct rh_uring *u, int fd, int how)
{
    struct sim_file *file = find(u, fd);

    SIM_CHECK(file && file->end, "shutdown of descriptor %d, which is no connection", fd);
    sim_trace("shard %d: shutdown fd=%d%s%s", u->tid, fd, how != SHUT_WR ? " in" : "",
              how != SHUT_RD ? " out" : "");
    sim_shut(file->end, how != SHUT_WR, how != SHUT_RD);
}

/* Of a direct descriptor: in order with what was queued before. */
static void end(struct rh_uring *u, int fd, bool abort)
{
    if (rh_fd_direct(fd))
        queue(u, SIM_CLOSE, fd, UINT64_MAX)->abort = abort;
    else
        sim_fd_close(&sim_process, fd, abort);
}

void rh_uring_close(struct rh_uring *u, int fd)
{
    end(u, fd, false);
}

void rh_uring_abort(struct rh_uring *u, int fd)
{
    end(u, fd, true);
}

void rh_sock_close(int fd)
{
    sim_fd_close(&sim_process, fd, false);
}

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    struct sim_file *file = find(u, fd);

    SIM_CHECK(file && file->end, "a question about descriptor %d, which is no connection", fd);
    if (rh_fd_direct(fd) && sim_chance(30))
        return RH_ACKED_UNKNOWN;
    return file->end->out->arrived;
}

void rh_uring_wake_any(struct rh_uring *u)
{
    u->wake_ns = RH_MIN(u->wake_ns, sim_soon());
}

/* ---- the simulation's side ---- */

int sim_listen(void)
{
    return sim_fd_open(&sim_process, NULL, sim_ops_changed);
}

uint64_t sim_uring_due(const struct rh_uring *u)
{
    return u->asleep ? RH_MIN(RH_MIN(u->sleep_until, u->wake_ns), u->due_ns) : sim_now();
}

void sim_uring_wake_up(struct rh_uring *u)
{
    sim_ops_run(u);
    if (u->wake_ns <= sim_now())
        u->wake_ns = SIM_NEVER;
    u->asleep = false;
}

bool sim_uring_asleep(const struct rh_uring *u)
{
    return u->asleep;
}

bool sim_uring_woken(const struct rh_uring *u)
{
    return u->wake_ns != SIM_NEVER;
}

unsigned sim_uring_lent(const struct rh_uring *u)
{
    unsigned count = 0;

    for (unsigned i = 0; i < u->buffers; i++)
        count += u->lent[i];
    return count;
}

unsigned sim_uring_flying(const struct rh_uring *u)
{
    unsigned count = 0;

    for (const struct rh_list *at = u->flying.next; at != &u->flying; at = at->next)
        count++;
    return count;
}
