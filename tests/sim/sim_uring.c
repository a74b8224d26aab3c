/* tests/sim/sim_uring.c - core/uring replaced: a kernel that may do whatever a kernel may do.
 *
 * Why this way: the hub's rules come from what io_uring promises and, more often, from what it does
 * not. So every freedom that it has is used here: completions of different operations come in any
 * order, late, in any batch; a multishot receive ends when it likes; a cancelled operation may still
 * succeed; a send sits there until its peer takes something. What the hub must not do is checked
 * where it does it: to change bytes that are being sent, to touch a buffer that it gave back, two
 * sends at once, one tag twice.
 *
 *   queued --enter--> flying (due: tried at this time; NEVER: when its file changes) --> completed
 *
 * Operations run only inside rh_uring_enter and at the end of its sleep, as with DEFER_TASKRUN.
 *
 * Limits     completions never overflow: the real one's order is the same then, and a multishot
 *            that ends because of it is drawn by the knob drops_more.
 */
#include "tests/sim/sim_uring.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "core/thread.h"
#include "tests/sim/sim_file.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(at, len)   ASAN_POISON_MEMORY_REGION(at, len)
#define UNPOISON(at, len) ASAN_UNPOISON_MEMORY_REGION(at, len)
#else
#define POISON(at, len)   ((void)0)
#define UNPOISON(at, len) ((void)0)
#endif

#define GARBAGE 0xee
#define CQ_ROOM 16384

enum kind { ACCEPT, RECV_ONCE, RECV_MULTI, SEND, CANCEL };

static const char *const kind_names[] = {"accept", "recv once", "recv", "send", "cancel"};

struct op {
    struct rh_list node;    /* queued or flying */
    struct rh_list of_file; /* flying */
    enum kind kind;
    uint64_t tag;
    int fd;
    struct rh_uring *ring;
    struct sim_file *file;
    uint64_t due_ns;
    bool cancelled;
    bool waits;           /* receive: data is known to be there */
    struct rh_addr *addr; /* accept */
    uint64_t target;      /* cancel */
    struct iovec *iov;    /* send */
    unsigned count;
    size_t len, done;
    uint64_t sum; /* of the bytes when they were given to us */
};

struct rh_uring {
    int tid;
    unsigned headroom, buffers;
    uint8_t *mem;
    bool *lent;
    uint16_t *ready; /* a circle: buffers to fill, in the order in which they were given */
    unsigned ready_head, ready_count;
    struct rh_list queued, flying;
    struct rh_cqe cq[CQ_ROOM];
    unsigned cq_head, cq_count;
    bool asleep;
    uint64_t sleep_until, wake_ns;
    uint64_t due_ns; /* not later than any operation's */
};

/* ---- life ---- */

void sim_kernel_begin(void)
{
    sim_files_begin();
}

static uint8_t *buffer_start(const struct rh_uring *u, unsigned buffer)
{
    return u->mem + (size_t)buffer * RH_URING_BUFFER;
}

static void buffer_provide(struct rh_uring *u, uint16_t buffer)
{
    uint8_t *at = buffer_start(u, buffer);

    UNPOISON(at, RH_URING_BUFFER);
    memset(at, GARBAGE, RH_URING_BUFFER);
    POISON(at, RH_URING_BUFFER);
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

static void op_over(struct op *op)
{
    rh_list_del(&op->node);
    rh_list_del(&op->of_file);
    if (op->file)
        sim_file_unref(op->file);
    op->file = NULL;
}

void rh_uring_destroy(struct rh_uring *u)
{
    if (!u)
        return;
    while (!rh_list_empty(&u->queued))
        op_over(rh_container_of(u->queued.next, struct op, node));
    while (!rh_list_empty(&u->flying))
        op_over(rh_container_of(u->flying.next, struct op, node));
    UNPOISON(u->mem, (size_t)u->buffers * RH_URING_BUFFER);
    rh_mem_free(u);
}

/* ---- queueing ---- */

static struct op *queue(struct rh_uring *u, enum kind kind, int fd, uint64_t tag)
{
    struct op *op = sim_keep(sizeof(*op));

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
    queue(u, ACCEPT, listener, tag)->addr = addr;
}

void rh_uring_recv_once(struct rh_uring *u, int fd, uint64_t tag)
{
    queue(u, RECV_ONCE, fd, tag);
}

void rh_uring_recv_multi(struct rh_uring *u, int fd, bool waits, uint64_t tag)
{
    queue(u, RECV_MULTI, fd, tag)->waits = waits;
}

void rh_uring_sendv(struct rh_uring *u, int fd, const struct iovec *iov, unsigned count,
                    uint64_t tag)
{
    struct op *op = queue(u, SEND, fd, tag);

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
    queue(u, CANCEL, -1, tag)->target = target;
}

/* To be tried at that time at the latest. */
static void set_due(struct op *op, uint64_t at_ns)
{
    op->due_ns = RH_MIN(op->due_ns, at_ns);
    op->ring->due_ns = RH_MIN(op->ring->due_ns, at_ns);
}

/* ---- completing ---- */

static void post(struct rh_uring *u, const struct op *op, int res, unsigned flags, uint16_t buffer)
{
    SIM_CHECK(u->cq_count < CQ_ROOM, "the completion queue is full");
    u->cq[(u->cq_head + u->cq_count++) % CQ_ROOM] =
        (struct rh_cqe){op->tag, res, (uint16_t)flags, buffer};
    if (op->kind != ACCEPT || res != -ECANCELED)
        sim_trace("shard %d: %s fd=%d -> %d%s", u->tid, kind_names[op->kind], op->fd, res,
                  flags & RH_CQE_MORE ? " more" : "");
}

/* FNV-1a over all bytes of a send. */
static uint64_t sum_of(const struct op *op)
{
    uint64_t sum = 0xcbf29ce484222325u;

    for (unsigned i = 0; i < op->count; i++)
        for (size_t k = 0; k < op->iov[i].iov_len; k++)
            sum = (sum ^ ((const uint8_t *)op->iov[i].iov_base)[k]) * 0x100000001b3u;
    return sum;
}

static void complete(struct op *op, int res)
{
    struct rh_uring *u = op->ring;

    SIM_CHECK(op->kind != SEND || sum_of(op) == op->sum,
              "bytes were changed while they were being sent (fd %d)", op->fd);
    op_over(op);
    post(u, op, res, 0, 0);
}

/* ---- running ---- */

static void file_changed(struct sim_file *file)
{
    for (struct rh_list *at = file->ops.next; at != &file->ops; at = at->next) {
        struct op *op = rh_container_of(at, struct op, of_file);

        set_due(op, sim_soon());
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

static void run_accept(struct op *op)
{
    static const int errors[] = {-EMFILE, -ECONNABORTED, -ENOMEM, -EINTR};
    struct sim_end *end;

    if (op->file->backlog_count && sim_chance(sim_knobs.bad_accepts)) {
        complete(op, errors[sim_below(RH_COUNT(errors))]);
        return;
    }
    end = sim_backlog_take(op->file);
    if (!end)
        return;
    fill_addr(op->addr, end->id);
    complete(op, sim_fd_open(end, file_changed));
}

/* One receive into one buffer; false: it is over, or waits. */
static bool run_recv_step(struct op *op)
{
    struct rh_uring *u = op->ring;
    bool once = op->kind == RECV_ONCE;
    size_t room = RH_URING_BUFFER - u->headroom;
    uint16_t buffer = u->ready[u->ready_head];
    uint8_t *at = buffer_start(u, buffer);
    int n;

    if (!sim_readable(op->file->end) && !op->waits)
        return false;
    op->waits = false;
    if (!u->ready_count) {
        complete(op, -ENOBUFS);
        return false;
    }
    UNPOISON(at, RH_URING_BUFFER);
    n = sim_read(op->file->end, at + u->headroom, sim_chance(200) ? 1 + sim_below(room) : room);
    POISON(at, RH_URING_BUFFER);
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        complete(op, n);
        return false;
    }
    u->ready_head = (u->ready_head + 1) % u->buffers;
    u->ready_count--;
    if (once || sim_chance(sim_knobs.drops_more)) {
        op_over(op);
        post(u, op, n, RH_CQE_BUFFER, buffer);
        return false;
    }
    post(u, op, n, RH_CQE_BUFFER | RH_CQE_MORE, buffer);
    return true;
}

static void run_recv(struct op *op)
{
    while (run_recv_step(op)) {
        if (sim_chance(300)) { /* others have their turn first */
            set_due(op, sim_soon());
            return;
        }
    }
}

/* Copies out of the pieces from op->done on, at most `room`. */
static size_t gather(const struct op *op, uint8_t *dst, size_t room)
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

static void run_send(struct op *op)
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
            set_due(op, sim_soon()); /* sent, but nobody has heard */
            return;
        }
    }
    complete(op, (int)op->len);
}

static void run(struct op *op)
{
    op->due_ns = SIM_NEVER;
    if (op->cancelled) {
        complete(op, op->kind == SEND && op->done ? (int)op->done : -ECANCELED);
        return;
    }
    switch (op->kind) {
    case ACCEPT:
        run_accept(op);
        break;
    case SEND:
        run_send(op);
        break;
    default:
        run_recv(op);
        break;
    }
}

/* All that is due, in any order. */
static void run_due(struct rh_uring *u)
{
    while (u->due_ns <= sim_now()) {
        struct op *chosen = NULL;
        unsigned count = 0;

        u->due_ns = SIM_NEVER;
        for (struct rh_list *at = u->flying.next; at != &u->flying; at = at->next) {
            struct op *op = rh_container_of(at, struct op, node);

            u->due_ns = RH_MIN(u->due_ns, op->due_ns);
            if (op->due_ns <= sim_now() && sim_below(++count) == 0)
                chosen = op;
        }
        if (chosen)
            run(chosen);
    }
}

/* ---- submitting ---- */

static void submit_cancel(struct rh_uring *u, struct op *op)
{
    struct op *target = NULL;

    if (sim_chance(300)) /* what has come already may still come first */
        run_due(u);
    for (struct rh_list *at = u->flying.next; at != &u->flying && !target; at = at->next) {
        struct op *each = rh_container_of(at, struct op, node);

        if (each->tag == op->target)
            target = each;
    }
    if (target) {
        target->cancelled = true;
        set_due(target, sim_soon());
    }
    rh_list_del(&op->node);
    post(u, op, target ? 0 : -ENOENT, 0, 0);
}

/* The hub may have one operation per tag, and one per direction of a connection. */
static void check_alone(const struct rh_uring *u, const struct op *op)
{
    for (const struct rh_list *at = u->flying.next; at != &u->flying; at = at->next)
        SIM_CHECK(rh_container_of(at, struct op, node)->tag != op->tag,
                  "two operations with the tag %llx", (unsigned long long)op->tag);
    for (const struct rh_list *at = op->file->ops.next; op->file->end && at != &op->file->ops;
         at = at->next)
        SIM_CHECK((rh_container_of(at, struct op, of_file)->kind == SEND) != (op->kind == SEND),
                  "two %ss on fd %d", kind_names[op->kind], op->fd);
}

static void submit(struct rh_uring *u, struct op *op)
{
    if (op->kind == CANCEL) {
        submit_cancel(u, op);
        return;
    }
    op->file = sim_fd_find(op->fd);
    SIM_CHECK(op->file, "%s on descriptor %d, which is not open", kind_names[op->kind], op->fd);
    SIM_CHECK((op->kind == ACCEPT) == !op->file->end, "%s on the wrong kind of descriptor %d",
              kind_names[op->kind], op->fd);
    check_alone(u, op);
    sim_file_ref(op->file);
    rh_list_del(&op->node);
    rh_list_add(&u->flying, &op->node);
    rh_list_add(&op->file->ops, &op->of_file);
    if (op->kind == SEND)
        op->sum = sum_of(op);
    if (op->kind == SEND || op->waits || sim_chance(700))
        run(op); /* at once */
    else
        set_due(op, sim_soon());
}

int rh_uring_enter(struct rh_uring *u, uint64_t wait_ns)
{
    SIM_CHECK(u->tid == rh_tid_self(), "shard %d's ring is used by %d", u->tid, rh_tid_self());
    while (!rh_list_empty(&u->queued))
        submit(u, rh_container_of(u->queued.next, struct op, node));
    run_due(u);
    u->asleep = wait_ns && !u->cq_count;
    u->sleep_until = sim_now() + wait_ns;
    return RH_OK;
}

/* ---- reaping ---- */

unsigned rh_uring_reap(struct rh_uring *u, struct rh_cqe *dst, unsigned max)
{
    unsigned count = RH_MIN(u->cq_count, max);

    for (unsigned i = 0; i < count; i++) {
        dst[i] = u->cq[(u->cq_head + i) % CQ_ROOM];
        if (!(dst[i].flags & RH_CQE_BUFFER))
            continue;
        u->lent[dst[i].buffer] = true;
        UNPOISON(buffer_start(u, dst[i].buffer), u->headroom + (size_t)dst[i].res);
    }
    u->cq_head = (u->cq_head + count) % CQ_ROOM;
    u->cq_count -= count;
    return count;
}

uint8_t *rh_uring_buffer(struct rh_uring *u, uint16_t buffer)
{
    SIM_CHECK(buffer < u->buffers && u->lent[buffer], "buffer %u is the kernel's", buffer);
    return buffer_start(u, buffer) + u->headroom;
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
    struct sim_file *file = sim_fd_find(fd);

    SIM_CHECK(file && file->end, "shutdown of descriptor %d, which is no connection", fd);
    sim_trace("shard %d: shutdown fd=%d%s%s", u->tid, fd, how != SHUT_WR ? " in" : "",
              how != SHUT_RD ? " out" : "");
    sim_shut(file->end, how != SHUT_WR, how != SHUT_RD);
}

void rh_uring_close(struct rh_uring *u, int fd)
{
    (void)u;
    sim_fd_close(fd, false);
}

void rh_uring_abort(struct rh_uring *u, int fd)
{
    (void)u;
    sim_fd_close(fd, true);
}

void rh_sock_close(int fd)
{
    sim_fd_close(fd, false);
}

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    struct sim_file *file = sim_fd_find(fd);

    (void)u;
    SIM_CHECK(file && file->end, "a question about descriptor %d, which is no connection", fd);
    return file->end->out->arrived;
}

void rh_uring_wake_any(struct rh_uring *u)
{
    u->wake_ns = RH_MIN(u->wake_ns, sim_soon());
}

/* ---- the simulation's side ---- */

int sim_listen(void)
{
    return sim_fd_open(NULL, file_changed);
}

uint64_t sim_uring_due(const struct rh_uring *u)
{
    return u->asleep ? RH_MIN(RH_MIN(u->sleep_until, u->wake_ns), u->due_ns) : sim_now();
}

void sim_uring_wake_up(struct rh_uring *u)
{
    run_due(u);
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
