/* tests/fuzz/fz_sock.c - clock and dice, sockets and descriptors of the fake kernel; see
 * fz_kernel.h.
 *
 * Descriptors are never given out twice in a run: a use after the close is always seen. A socket
 * stands in the process's table, or in those of rings, under the same number.
 */
#include <errno.h>
#include <string.h>

#include "core/clock.h"
#include "core/rand.h"
#include "tests/fuzz/fz_kernel_int.h"
#include "tests/fuzz/fz_peer.h"

#define FD_LISTEN  10
#define MONO_START UINT64_C(1000000000000)    /* ns */
#define WALL_START UINT64_C(1790000000000000) /* us since 1970 */

struct fz_kernel fz_kernel;

static uint8_t wires[FZ_SOCKS][FZ_WIRE];

/* ---- clock, random numbers ---- */

void fz_kernel_begin(void)
{
    memset(&fz_kernel, 0, sizeof(fz_kernel));
    fz_kernel.buffers = FZ_BUFFERS;
}

uint64_t fz_now_ms(void)
{
    return fz_kernel.now_us / 1000;
}

void fz_move_clock_us(uint64_t us)
{
    fz_kernel.now_us += us;
}

uint64_t rh_clock_mono_ns(void)
{
    return MONO_START + fz_kernel.now_us * 1000;
}

uint64_t rh_clock_wall_us(void)
{
    return WALL_START + fz_kernel.now_us;
}

void rh_clock_nap_ms(unsigned ms)
{
    fz_kernel.now_us += ms * 1000ull;
}

/* The same in every run: an input says all. */
void rh_rand_bytes(void *dst, size_t len)
{
    uint8_t *at = dst;

    for (size_t i = 0; i < len; i++) {
        uint64_t z = fz_kernel.rand_state += 0x9e3779b97f4a7c15u; /* splitmix64 */

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        at[i] = (uint8_t)(z >> 32);
    }
}

/* ---- sockets, the clients' side ---- */

static void calm_sock(struct fz_sock *s)
{
    s->room = FZ_ALL;
    s->bites = 0;
    s->recv_error = s->send_error = 0;
    s->ends_multi = s->late_send = s->late_cancel = s->hides = false;
}

struct fz_sock *fz_knock(unsigned shard)
{
    struct fz_listener *l = &fz_kernel.listeners[shard];
    struct fz_sock *s = &fz_kernel.socks[fz_kernel.sock_count];

    if (fz_kernel.sock_count == FZ_SOCKS || !l->fd)
        return NULL;
    s->number = fz_kernel.sock_count++;
    s->shard = shard;
    s->recv.sock = s->send.sock = s;
    s->heard_ms = fz_now_ms();
    calm_sock(s);
    l->backlog[l->waiting++] = s;
    fz_peer_begin(s);
    return s;
}

unsigned fz_sock_count(void)
{
    return fz_kernel.sock_count;
}

struct fz_sock *fz_sock(unsigned i)
{
    return &fz_kernel.socks[i];
}

uint8_t *fz_wire(const struct fz_sock *s)
{
    return wires[s->number];
}

void fz_send(struct fz_sock *s, const void *bytes, size_t len)
{
    size_t n = RH_MIN(len, (size_t)(FZ_WIRE - s->sent));

    if (s->fin || s->reset || n == 0)
        return;
    memcpy(wires[s->number] + s->sent, bytes, n);
    s->sent += (uint32_t)n;
}

/* What is on its way in either direction is lost. */
void fz_reset(struct fz_sock *s)
{
    if (s->closed)
        return;
    s->reset = true;
    s->sent = s->read;
}

void fz_kernel_calm(void)
{
    for (unsigned i = 0; i < fz_kernel.sock_count; i++)
        calm_sock(&fz_kernel.socks[i]);
    for (unsigned i = 0; i < FZ_SHARDS; i++) {
        fz_kernel.listeners[i].error = 0;
        fz_rings[i].order = FZ_AS_THEY_COME;
        fz_rings[i].starve = 0;
        fz_rings[i].pass_error = 0;
    }
    rh_mem_fail_nth(0);
}

/* ---- descriptors ---- */

int fz_listen(unsigned shard)
{
    fz_kernel.listeners[shard].fd = FD_LISTEN + (int)shard;
    return fz_kernel.listeners[shard].fd;
}

void fz_accept_error(unsigned shard, int error)
{
    fz_kernel.listeners[shard].error = error;
}

void fz_pass_error(unsigned shard, int error)
{
    fz_rings[shard].pass_error = error;
}

struct fz_listener *fz_listener_of(int fd)
{
    struct fz_listener *l = &fz_kernel.listeners[fd - FD_LISTEN];

    FZ_CHECK(fd >= FD_LISTEN && fd < FD_LISTEN + FZ_SHARDS && l->fd == fd,
             "descriptor %d is no listener", fd);
    return l;
}

/* Which table a descriptor of this ring's thread stands in. */
static unsigned table_of(const struct rh_uring *u, int fd)
{
    return rh_fd_direct(fd) ? (unsigned)u->tid : FZ_PROCESS;
}

struct fz_sock *fz_sock_of(const struct rh_uring *u, int fd)
{
    int number = (fd & ~RH_FD_DIRECT) - FZ_FD;
    struct fz_sock *s = &fz_kernel.socks[number];
    unsigned table = table_of(u, fd);

    FZ_CHECK(number >= 0 && number < (int)fz_kernel.sock_count &&
                 (s->in[table].open || s->in[table].over),
             "descriptor %#x is no connection", (unsigned)fd);
    FZ_CHECK(!s->in[table].over, "descriptor %#x is used after it was closed", (unsigned)fd);
    return s;
}

int fz_open_in(struct fz_sock *s, unsigned table)
{
    struct rh_uring *u = &fz_rings[table];

    s->in[table].open = true;
    s->in[table].over = false;
    if (table == FZ_PROCESS)
        return FZ_FD + (int)s->number;
    if (u->files_used == u->files) {
        s->in[table].open = false;
        return -ENFILE;
    }
    u->files_used++;
    return RH_FD_DIRECT | (FZ_FD + (int)s->number);
}

unsigned fz_fds_open(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < fz_kernel.sock_count; i++)
        for (unsigned table = 0; table < FZ_TABLES; table++)
            count += fz_kernel.socks[i].in[table].open;
    for (unsigned i = 0; i < FZ_SHARDS; i++)
        count += fz_kernel.listeners[i].fd != 0;
    return count;
}

static void close_listener(int fd)
{
    struct fz_listener *l = fz_listener_of(fd);

    FZ_CHECK(!l->accepts, "a listener is closed under an accept");
    for (unsigned i = 0; i < l->waiting; i++)
        fz_peer_end(l->backlog[i], true);
    l->waiting = 0;
    l->fd = 0;
}

void fz_close_in(struct fz_sock *s, unsigned table, bool abort)
{
    fz_trace("    close fd=%u%s", FZ_FD + s->number, abort ? " reset" : "");
    s->in[table].open = false;
    s->in[table].over = true;
    if (table != FZ_PROCESS)
        fz_rings[table].files_used--;
    for (unsigned other = 0; other < FZ_TABLES; other++)
        if (s->in[other].open)
            return;
    s->closed = true;
    if (!s->reset)
        fz_peer_end(s, abort || s->sent > s->read);
}

/* A direct descriptor is closed in order with what was queued before. */
static void close_fd(struct rh_uring *u, int fd, bool abort)
{
    struct fz_sock *s;

    if (!rh_fd_direct(fd) && fd < FZ_FD) {
        close_listener(fd);
        return;
    }
    s = fz_sock_of(u, fd);
    FZ_CHECK((s->recv.state == FZ_IDLE || s->recv.ring != u) &&
                 (s->send.state == FZ_IDLE || s->send.ring != u),
             "descriptor %#x is closed under an operation", (unsigned)fd);
    if (!rh_fd_direct(fd)) {
        fz_close_in(s, FZ_PROCESS, abort);
        return;
    }
    s->in[u->tid].over = true;
    *fz_enqueue(u) = (struct fz_queued){.close = s, .abort = abort};
}

void rh_uring_close(struct rh_uring *u, int fd)
{
    close_fd(u, fd, false);
}

void rh_uring_abort(struct rh_uring *u, int fd)
{
    close_fd(u, fd, true);
}

void rh_sock_close(int fd)
{
    FZ_CHECK(!rh_fd_direct(fd), "descriptor %#x is no ordinary one", (unsigned)fd);
    close_fd(&fz_rings[0], fd, false);
}

void rh_uring_shutdown(struct rh_uring *u, int fd, int how)
{
    struct fz_sock *s = fz_sock_of(u, fd);

    fz_trace("    shutdown fd=%u how=%d", FZ_FD + s->number, how);
    s->shut_in |= how != SHUT_WR;
    if (how != SHUT_RD && !s->shut_out && !s->reset)
        fz_peer_end(s, false);
    s->shut_out |= how != SHUT_RD;
}

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    const struct fz_sock *s = fz_sock_of(u, fd);

    return s->hides && rh_fd_direct(fd) ? RH_ACKED_UNKNOWN : s->taken;
}
