/* core/rand.c - the seam's random numbers, from getrandom(2).
 *
 * Why this way: getrandom needs no descriptor (it works at RLIMIT_NOFILE and in an empty chroot)
 * and never gives bytes before the kernel's pool is seeded.
 */
#include "core/rand.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void rh_rand_bytes(void *dst, size_t len)
{
    uint8_t *at = dst;

    while (len) {
        ssize_t got = getrandom(at, len, 0);

        if (got > 0) { /* fewer than asked for is possible above 256 bytes */
            at += got;
            len -= (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            fprintf(stderr, "ringhub: the kernel gives no random numbers (getrandom: %s)\n",
                    strerror(errno));
            abort();
        }
    }
}
