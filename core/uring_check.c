/* core/uring_check.c - can we use io_uring here, and if not, why, in words.
 *
 * Why this way: container profiles, sysctls, memory limits and old kernels each refuse io_uring in
 * a way of their own, and "Operation not permitted" helps nobody. So the hub tries everything that
 * it needs once, on a small ring, before it binds anything, and explains the first refusal.
 */
#include "core/uring_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/base.h"
#include "core/err.h"

#define CHECK_BUFFERS 4

static int read_number(const char *path)
{
    FILE *file = fopen(path, "re");
    int value = -1;

    if (!file)
        return -1;
    if (fscanf(file, "%d", &value) != 1)
        value = -1;
    fclose(file);
    return value;
}

static int seccomp_mode(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    int mode = -1;

    if (!file)
        return -1;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "Seccomp: %d", &mode) == 1)
            break;
    fclose(file);
    return mode;
}

static int fault_eperm(struct rh_fault *fault)
{
    int disabled = read_number("/proc/sys/kernel/io_uring_disabled");

    if (disabled == 2)
        return rh_fault_set(fault, RH_EUNSUPPORTED,
                            "io_uring is disabled for everybody on this machine: set "
                            "`sysctl kernel.io_uring_disabled=0`");
    if (disabled == 1)
        return rh_fault_set(fault, RH_EUNSUPPORTED,
                            "io_uring is disabled for this user (sysctl kernel.io_uring_disabled=1)"
                            ": add the user to the group of sysctl kernel.io_uring_group, run with "
                            "CAP_SYS_ADMIN, or set the sysctl to 0");
    if (seccomp_mode() == 2)
        return rh_fault_set(fault, RH_EUNSUPPORTED,
                            "a seccomp filter forbids io_uring (container runtimes do so by "
                            "default): allow the system calls io_uring_setup, io_uring_enter and "
                            "io_uring_register (425, 426, 427) in the container's profile");
    return rh_fault_set(fault, RH_EUNSUPPORTED,
                        "a security module (SELinux, AppArmor) forbids io_uring to this process: "
                        "allow it in the policy");
}

static int fault_enomem(struct rh_fault *fault, const struct rh_uring_opts *opts)
{
    struct rlimit limit = {0};
    char need[64] = "";

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_cur == RLIM_INFINITY)
        return rh_fault_set(fault, RH_ENOMEM, "the kernel has no memory for io_uring");
    if (opts)
        snprintf(need, sizeof(need), ", a shard needs about %u KiB",
                 (64 * opts->sq_entries + 16 * opts->cq_entries + 16 * opts->buffers) / 1024 + 1);
    return rh_fault_set(
        fault, RH_ENOMEM,
        "not enough lockable memory for io_uring: RLIMIT_MEMLOCK is %lu KiB for all "
        "processes of this user%s: raise it (ulimit -l, systemd's "
        "LimitMEMLOCK=infinity), or run fewer shards",
        (unsigned long)(limit.rlim_cur / 1024), need);
}

int rh_uring_fault(struct rh_fault *fault, int err, const struct rh_uring_opts *opts)
{
    struct utsname host;

    switch (-err) {
    case EPERM:
    case EACCES:
        return fault_eperm(fault);
    case ENOMEM:
        return fault_enomem(fault, opts);
    case ENOSYS:
        return rh_fault_set(fault, RH_EUNSUPPORTED,
                            "this kernel has no io_uring, or a sandbox (gVisor, a seccomp filter) "
                            "hides it: Linux 6.1 or newer with CONFIG_IO_URING is needed");
    case EINVAL:
        uname(&host);
        return rh_fault_set(fault, RH_EUNSUPPORTED,
                            "this kernel's io_uring is too old (Linux %s): 6.1 or newer is needed",
                            host.release);
    case EMFILE:
    case ENFILE:
        return rh_fault_set(fault, RH_EIO,
                            "no file descriptor left for io_uring: raise the limit (ulimit -n, "
                            "systemd's LimitNOFILE=)");
    default:
        return rh_fault_set(fault, RH_EIO, "io_uring failed: %s", strerror(-err));
    }
}

/* ---- the self-test: each step returns a negative errno ---- */

struct check {
    struct io_uring ring;
    struct io_uring_buf_ring *bufs;
    uint8_t mem[CHECK_BUFFERS][64];
    int pair[2];
    int event;
};

static int wait_for(struct check *c, uint64_t tag, int *ret_res, unsigned *ret_flags)
{
    struct __kernel_timespec ts = {.tv_sec = 1};

    for (int tries = 0; tries < 8; tries++) {
        struct io_uring_cqe *cqe;
        int rc = io_uring_submit_and_wait_timeout(&c->ring, &cqe, 1, &ts, NULL);

        if (rc < 0 && rc != -EINTR)
            return rc;
        if (io_uring_peek_cqe(&c->ring, &cqe) < 0)
            continue;
        uint64_t got = cqe->user_data;
        *ret_res = cqe->res;
        *ret_flags = cqe->flags;
        io_uring_cqe_seen(&c->ring, cqe);
        if (got == tag)
            return 0;
    }
    return -ETIME;
}

static int check_nop(struct check *c)
{
    unsigned flags;
    int res = 0;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);
    int rc;

    io_uring_prep_nop(sqe);
    sqe->user_data = 1;
    rc = wait_for(c, 1, &res, &flags);
    return rc < 0 ? rc : res;
}

static int check_wake(struct check *c)
{
    uint64_t one = 1, count = 0;
    unsigned flags;
    int res = 0;
    struct io_uring_sqe *sqe;
    int rc;

    c->event = eventfd(0, EFD_CLOEXEC);
    if (c->event < 0 || write(c->event, &one, sizeof(one)) != sizeof(one))
        return -errno;
    sqe = io_uring_get_sqe(&c->ring);
    io_uring_prep_read(sqe, c->event, &count, sizeof(count), 0);
    sqe->user_data = 2;
    rc = wait_for(c, 2, &res, &flags);
    return rc < 0 ? rc : res == sizeof(count) ? 0 : -EINVAL;
}

static int check_recv(struct check *c)
{
    unsigned flags;
    int res = 0;
    struct io_uring_sqe *sqe;
    int rc = rh_uring_open_buffers(&c->ring, &c->bufs, CHECK_BUFFERS, 0);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < CHECK_BUFFERS; i++)
        io_uring_buf_ring_add(c->bufs, c->mem[i], sizeof(c->mem[i]), (unsigned short)i,
                              io_uring_buf_ring_mask(CHECK_BUFFERS), (int)i);
    io_uring_buf_ring_advance(c->bufs, CHECK_BUFFERS);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->pair) < 0)
        return -errno;
    sqe = io_uring_get_sqe(&c->ring);
    io_uring_prep_recv_multishot(sqe, c->pair[0], NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->user_data = 3;
    if (write(c->pair[1], "ok", 2) != 2)
        return -errno;
    rc = wait_for(c, 3, &res, &flags);
    if (rc < 0 || res < 0)
        return rc < 0 ? rc : res;
    return res == 2 && (flags & IORING_CQE_F_BUFFER) && (flags & IORING_CQE_F_MORE) ? 0 : -EINVAL;
}

static int check_cancel(struct check *c)
{
    unsigned flags;
    int res = 0;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);
    int rc;

    io_uring_prep_cancel64(sqe, 3, 0);
    sqe->user_data = 4;
    rc = wait_for(c, 4, &res, &flags);
    return rc < 0 ? rc : res;
}

static int check_all(struct check *c)
{
    int rc = check_nop(c);

    if (rc == 0)
        rc = check_wake(c);
    if (rc == 0)
        rc = check_recv(c);
    if (rc == 0)
        rc = check_cancel(c);
    return rc;
}

int rh_uring_selftest(struct rh_fault *fault)
{
    struct check c = {.pair = {-1, -1}, .event = -1};
    int rc = rh_uring_open_ring(&c.ring, 8, 16);

    if (rc < 0)
        return rh_uring_fault(fault, rc, NULL);
    rc = check_all(&c);
    io_uring_queue_exit(&c.ring);
    if (c.bufs)
        munmap(c.bufs, CHECK_BUFFERS * sizeof(struct io_uring_buf));
    for (int i = 0; i < 2; i++)
        if (c.pair[i] >= 0)
            close(c.pair[i]);
    if (c.event >= 0)
        close(c.event);
    return rc < 0 ? rh_uring_fault(fault, rc, NULL) : RH_OK;
}

/* ---- direct descriptors ---- */

#define CHECK_TABLE 2

/* What is done with them beyond what every operation can; `what` names the one that failed. */
struct check_direct {
    struct check c;
    struct io_uring other;
    int slot;
    const char *what;
};

/* The result of the operation in `sqe`. */
static int run(struct check *c, struct io_uring_sqe *sqe)
{
    unsigned flags;
    int res = 0;
    int rc;

    sqe->user_data = 5;
    rc = wait_for(c, 5, &res, &flags);
    return rc < 0 ? rc : res;
}

static int check_table(struct check_direct *d)
{
    struct io_uring_sqe *sqe;
    int rc;

    d->what = "have a table of descriptors";
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, d->c.pair) < 0)
        return -errno;
    rc = io_uring_register_files_sparse(&d->c.ring, CHECK_TABLE);
    if (rc == 0)
        rc = io_uring_register_files_sparse(&d->other, CHECK_TABLE);
    if (rc < 0)
        return rc;
    d->what = "take a descriptor into any free slot";
    d->slot = d->c.pair[0];
    sqe = io_uring_get_sqe(&d->c.ring);
    io_uring_prep_files_update(sqe, &d->slot, 1, (int)IORING_FILE_INDEX_ALLOC);
    rc = run(&d->c, sqe);
    return rc < 0 ? rc : rc == 1 && d->slot >= 0 && d->slot < CHECK_TABLE ? 0 : -EINVAL;
}

static int check_pass(struct check_direct *d)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&d->c.ring);
    int rc;

    d->what = "pass a descriptor to another thread's ring";
    rh_uring_prep_pass(sqe, d->slot, &d->other);
    rc = run(&d->c, sqe);
    return rc < 0 ? rc : rc < CHECK_TABLE ? 0 : -EINVAL;
}

static int check_setsockopt(struct check_direct *d)
{
    static const struct linger now = {.l_onoff = 1, .l_linger = 0};
    struct io_uring_sqe *sqe = io_uring_get_sqe(&d->c.ring);

    d->what = "set options of sockets";
    rh_uring_prep_setsockopt(sqe, d->slot, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    sqe->flags |= IOSQE_FIXED_FILE;
    return run(&d->c, sqe);
}

static int check_install(struct check_direct *d)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&d->c.ring);
    int rc;

    d->what = "make an ordinary descriptor of a direct one";
    io_uring_prep_rw(RH_OP_FIXED_FD_INSTALL, sqe, d->slot, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    rc = run(&d->c, sqe);
    if (rc >= 0)
        close(rc);
    return rc < 0 ? rc : 0;
}

static int check_direct(struct check_direct *d)
{
    int rc = check_table(d);

    if (rc == 0)
        rc = check_pass(d);
    if (rc == 0)
        rc = check_setsockopt(d);
    if (rc == 0)
        rc = check_install(d);
    return rc;
}

static int fault_direct(struct rh_fault *fault, const char *what, int err)
{
    struct utsname host;

    if (err == -EMFILE || err == -ENFILE || err == -ENOMEM)
        return rh_uring_fault(fault, err, NULL);
    uname(&host);
    return rh_fault_set(fault, RH_EUNSUPPORTED,
                        "direct descriptors: this kernel's io_uring (Linux %s) cannot %s (%s): 6.8 "
                        "or newer is needed, or io.descriptors: ordinary",
                        host.release, what, strerror(-err));
}

int rh_uring_selftest_direct(struct rh_fault *fault)
{
    struct check_direct d = {.c.pair = {-1, -1}, .what = ""};
    int rc = rh_uring_open_ring(&d.c.ring, 8, 16);

    if (rc < 0)
        return rh_uring_fault(fault, rc, NULL);
    rc = rh_uring_open_ring(&d.other, 8, 16);
    if (rc == 0) {
        rc = check_direct(&d);
        io_uring_queue_exit(&d.other);
    }
    io_uring_queue_exit(&d.c.ring);
    for (int i = 0; i < 2; i++)
        if (d.c.pair[i] >= 0)
            close(d.c.pair[i]);
    return rc < 0 ? fault_direct(fault, d.what, rc) : RH_OK;
}
