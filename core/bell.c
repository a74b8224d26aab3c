/* core/bell.c - an eventfd, and poll with a timeout.
 *
 * Rejected    A condition variable: needs a lock, which who rings would wait for. A futex: no
 *             shorter, and ThreadSanitizer knows none.
 */
#include "core/bell.h"

#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/ringhub.h"

struct rh_bell {
    int fd;
};

int rh_bell_create(struct rh_bell **ret_bell)
{
    struct rh_bell *bell = rh_mem_alloc(sizeof(*bell));

    if (!bell)
        return RH_ENOMEM;
    bell->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (bell->fd < 0) {
        rh_mem_free(bell);
        return RH_EIO;
    }
    *ret_bell = bell;
    return RH_OK;
}

void rh_bell_destroy(struct rh_bell *bell)
{
    if (!bell)
        return;
    close(bell->fd);
    rh_mem_free(bell);
}

void rh_bell_wait(struct rh_bell *bell, uint64_t ms)
{
    struct pollfd at = {.fd = bell->fd, .events = POLLIN};
    eventfd_t rings;

    if (poll(&at, 1, ms <= INT_MAX ? (int)ms : -1) > 0)
        eventfd_read(bell->fd, &rings);
}

void rh_bell_ring_any(struct rh_bell *bell)
{
    eventfd_write(bell->fd, 1); /* it can only fail when 2^64 - 2 rings have not been heard */
}
