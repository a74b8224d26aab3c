/* tests/fuzz/fz_peer.h - the clients' ends: what the hub sends, and what it has to be.
 *
 * Everything that the hub sends is parsed as it comes: responses, then 101 and frames. Beside it
 * runs a model, which reads the bytes that the hub has received with the parsers of proto/, whole
 * and one connection for itself. So it knows what each response answers, which echo and which
 * pong is next, how many answers are due, and which close code fits.
 *
 * A connection is healthy until something happens that excuses its loss (enum fz_excuse). Healthy
 * ones get all that is due to them (fz_peer_check_rest).
 */
#ifndef FZ_PEER_H
#define FZ_PEER_H

#include "tests/fuzz/fz_kernel.h"

/* What a program did that lets the hub end a connection. */
enum fz_excuse {
    FZ_ENDED = 1,      /* the client has reset or closed it */
    FZ_FINISHED = 2,   /* the client sends no more, and reads on */
    FZ_BROKEN = 4,     /* the kernel failed a receive or a send for good */
    FZ_SLOW = 8,       /* the client stopped reading for a while */
    FZ_LATE = 16,      /* time went by without a word of it */
    FZ_NO_MEMORY = 32, /* from here on of all connections */
    FZ_DRAIN = 64,
    FZ_REPLACED = 128, /* devices and sessions take each other's places */
    FZ_RATE = 256,     /* limits.* that close, or change, were in force */
};

struct rh_config;

/* Before a run's first connection; `cfg` is the hub's. */
void fz_peers_begin(const struct rh_config *cfg);
void fz_peers_end(void); /* lets go of all memory */
void fz_excuse_all(unsigned excuses);
void fz_excuse(const struct fz_sock *s, unsigned excuses);
/* The clock has moved: who was silent for long is excused. */
void fz_peers_age(void);

/* ---- the kernel's side ---- */

void fz_peer_begin(const struct fz_sock *s);
void fz_peer_take(const struct fz_sock *s, const uint8_t *bytes, size_t len);
void fz_peer_end(const struct fz_sock *s, bool reset); /* the hub's end of stream, or its reset */

/* ---- the program's side ---- */

/* 32 hex digits, zeros before there is one. */
const char *fz_peer_session(const struct fz_sock *s);
/* Where permessage-deflate was agreed on: a message as that client compresses it; valid until the
 * next call. Else NULL. */
const void *fz_peer_deflate(const struct fz_sock *s, const void *at, size_t len, size_t *ret_len);
/* All is quiet, and the kernel kind: nothing may be due to anybody. */
void fz_peer_check_rest(const struct fz_sock *s);

#endif
