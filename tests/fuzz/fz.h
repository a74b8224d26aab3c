/* tests/fuzz/fz.h - the world in which fuzz_conn runs shards: what its files share.
 *
 *   fuzz_conn     reads the input as a program and does what it says
 *   fz_hub        the shards: start, pass, reload, drain, stop; what must hold between passes
 *   fz_kernel     core/uring, core/clock and core/rand replaced: answers as the program wants
 *                 (fz_sock, fz_uring, fz_op)
 *   fz_mem        core/mem replaced: counts what is out
 *   fz_peer       the clients' ends: reads what the hub sends, and knows what it has to be
 *   fz_say        requests and envelopes that a program can name
 *
 * Threads    one.
 * Ownership  all of it is static and begins anew with each input; only the hub's memory is on the
 *            heap, so that AddressSanitizer sees every byte of it.
 */
#ifndef FZ_H
#define FZ_H

#include "core/base.h"

#define FZ_SHARDS 2
#define FZ_SOCKS  48         /* connections of one run */
#define FZ_WIRE   (64 << 10) /* bytes that a client can send on one */

/* Breaks off: the hub has done what it must not. FZ_TRACE=1 in the environment prints the way
 * there. */
void fz_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void fz_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define FZ_CHECK(cond, ...)                                                                        \
    do {                                                                                           \
        if (rh_unlikely(!(cond)))                                                                  \
            fz_fail(__VA_ARGS__);                                                                  \
    } while (0)

/* ---- fz_mem.c ---- */

void fz_mem_begin(void);
/* Allocations count for rh_mem_fail_nth from now on, or do not; returns what it was. */
bool fz_mem_may_fail(bool may);
uint64_t fz_mem_live(void);   /* allocations that are out */
bool fz_mem_has_failed(void); /* one was refused since fz_mem_begin */

#endif
