/* tests/fuzz/fz_kernel.h - sockets and rings that answer as the program wants.
 *
 * A socket is one connection, seen from the hub; its client's end is in fz_peer.c. What a
 * client sends stands in `wire` until a receive takes it. What the hub sends is given to the peer
 * at once, as far as the peer takes it (`room`). The fields under "answers" say what the kernel
 * does otherwise than kindly; most of them hold for once.
 *
 * Checked here: descriptors are open when they are used, and closed once; no operation is under
 * way on one that is closed; at most one receive and one send on each; bytes do not change while
 * they are being sent; a provided buffer is touched only while it is lent.
 */
#ifndef FZ_KERNEL_H
#define FZ_KERNEL_H

#include "core/uring.h"
#include "tests/fuzz/fz.h"

#define FZ_ALL     UINT32_MAX
#define FZ_TABLES  (FZ_SHARDS + 1) /* of descriptors: each ring's, and behind them the process's */
#define FZ_PROCESS FZ_SHARDS

enum fz_kind { FZ_SEND, FZ_RECV, FZ_RECV_MULTI, FZ_POLL, FZ_PASS };

struct fz_op {
    uint8_t kind;
    uint8_t state; /* FZ_IDLE and so on */
    bool waits; /* receive: does not mind that there is nothing yet, but wants a buffer at once */
    bool cancelled; /* receive: told to end */
    bool late;      /* send: has waited with its completion */
    uint64_t tag;
    struct rh_uring *ring;
    struct fz_sock *sock;
    unsigned count; /* send: pieces */
    size_t len, done;
    uint64_t sum; /* send: of the bytes when they were given to us */
    unsigned to;  /* pass: that shard's table */
};

enum { FZ_IDLE, FZ_QUEUED, FZ_FLYING };

struct fz_sock {
    unsigned number;
    unsigned shard;        /* at whose listener it knocks */
    bool accepted, closed; /* by the hub; it is closed when it stands in no table any more */
    struct {
        bool open, over; /* over: the hub has closed it there */
    } in[FZ_TABLES];
    bool shut_in, shut_out;  /* likewise */
    uint32_t sent, read;     /* bytes of wire that the client has sent, and the hub has received */
    uint64_t taken;          /* bytes that the client has taken */
    uint64_t heard_ms;       /* when the hub last received something */
    bool fin, reset, told;   /* the client's end; told: the hub knows of the reset */
    bool gone;               /* the client has closed: bytes for it come back as a reset */
    struct fz_op recv, send; /* recv: also a poll, and a pass */
    const struct fz_op *last;

    /* answers */
    uint32_t room;  /* bytes that the client still takes */
    uint16_t bite;  /* bytes that a receive brings at most ... */
    uint16_t bites; /* ... for so many times, one a pass */
    int recv_error; /* ends the receive; 0: none */
    int send_error; /* ends the send behind `tear` bytes; 0: none */
    uint32_t tear;
    bool ends_multi;  /* the next data ends a multishot receive */
    bool late_send;   /* the send is complete, and says so a pass later */
    bool late_cancel; /* what came before a cancellation comes first, and its end a pass later */
    bool hides;       /* how much the client has taken is not known */
    bool deaf;        /* a shutdown does not end the receive */
};

void fz_kernel_begin(void);
/* Everything is answered kindly from now on. */
void fz_kernel_calm(void);

uint64_t fz_now_ms(void);
void fz_move_clock_us(uint64_t us);

/* ---- sockets ---- */

/* A client knocks at a shard's listener. NULL: no more sockets in this run, or nobody listens. */
struct fz_sock *fz_knock(unsigned shard);
unsigned fz_sock_count(void);
struct fz_sock *fz_sock(unsigned i);
uint8_t *fz_wire(const struct fz_sock *s);
/* The client sends; what does not fit is not sent. */
void fz_send(struct fz_sock *s, const void *bytes, size_t len);
void fz_reset(struct fz_sock *s);

int fz_listen(unsigned shard);
/* The next accept at that shard, or hand-over from it, fails with this errno (negative). */
void fz_accept_error(unsigned shard, int error);
void fz_pass_error(unsigned shard, int error);

/* ---- rings ---- */

/* How completions of different operations follow each other. */
enum fz_order { FZ_AS_THEY_COME, FZ_BACKWARDS, FZ_MIXED };

void fz_uring_set_buffers(unsigned buffers); /* of rings that are created from now on */
void fz_uring_set_order(struct rh_uring *u, enum fz_order order);
void fz_uring_starve(struct rh_uring *u, unsigned receives); /* so many find no buffer */
void fz_uring_run(struct rh_uring *u);                       /* what can happen happens */
bool fz_uring_due(const struct rh_uring *u);                 /* its thread has something to do */
bool fz_uring_asleep(const struct rh_uring *u);
unsigned fz_uring_lent(const struct rh_uring *u); /* buffers in the hub's hands */
/* Operations without a last completion, queued and unread ones included, of that socket. */
unsigned fz_sock_inflight(const struct fz_sock *s);
/* Shard and tag of its last operation. False: it has had none. */
bool fz_sock_last(const struct fz_sock *s, unsigned *ret_tid, uint64_t *ret_tag);
/* The socket behind a descriptor of that ring's thread. */
struct fz_sock *fz_sock_of(const struct rh_uring *u, int fd);
unsigned fz_fds_open(void);

#endif
