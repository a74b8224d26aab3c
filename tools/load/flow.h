/* tools/load/flow.h - the messages of one sender: what is on its way, what came, in which order.
 *
 * A flow numbers its messages from 0 and remembers, from the oldest unfinished one (`low`) to the
 * newest (`next`), when each was meant to be sent and what became of it. A message is finished
 * when it was delivered and, where answers are expected, answered.
 *
 * The second half, struct load_seen, reads one message of a flow as it arrives in pieces, finds
 * out which one it claims to be and checks every byte.
 *
 * Threads    one: that of the connection.
 * Limits     at most LOAD_FLOW_MAX messages unfinished; further ones are not sent before.
 */
#ifndef LOAD_FLOW_H
#define LOAD_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "core/ringhub.h"
#include "tools/load/payload.h"

#define LOAD_FLOW_MAX 65536

struct load_slot {
    uint64_t intended_ns;
    uint8_t state; /* DELIVERED, ANSWERED: flow.c */
};

struct load_flow {
    uint32_t sender; /* its number, part of each payload */
    bool answers;    /* each message has an answer beside its delivery */

    uint64_t low;       /* the oldest unfinished message */
    uint64_t next;      /* the number that the next message gets */
    uint64_t expected;  /* the next one to arrive, if nothing is lost or reordered */
    uint64_t delivered; /* how many arrived so far */

    struct load_slot *slots; /* of message n: slots[n & (room - 1)] */
    uint32_t room;           /* power of two, or 0 */
};

enum load_arrival {
    LOAD_IN_ORDER,
    LOAD_REORDERED, /* it had been passed by a later one */
    LOAD_UNKNOWN    /* never sent, or the second time */
};

void load_flow_init(struct load_flow *f, uint32_t sender, bool answers);
void load_flow_fini(struct load_flow *f);

/* Makes room for one more message. RH_ENOMEM, or RH_EFULL at LOAD_FLOW_MAX. */
int load_flow_reserve(struct load_flow *f);
/* A message goes out; returns its number. After load_flow_reserve. */
uint64_t load_flow_send(struct load_flow *f, uint64_t intended_ns);

/* For modes with other books (book.h), which take only the numbers from here: a message more, and
 * one finished. */
uint64_t load_flow_number(struct load_flow *f);
void load_flow_finish(struct load_flow *f);

/* Message `seq` arrived. ret_intended_ns is set unless it is LOAD_UNKNOWN. */
enum load_arrival load_flow_arrive(struct load_flow *f, uint64_t seq, uint64_t *ret_intended_ns);
/* The answer to message `seq` arrived; false: not expected (any more). */
bool load_flow_answer(struct load_flow *f, uint64_t seq, uint64_t *ret_intended_ns);
/* Message `seq` was refused by the server: neither delivery nor answer is waited for. */
void load_flow_give_up(struct load_flow *f, uint64_t seq);

/* Questions. Outstanding: sent and not delivered. Intended: of an unfinished message. */
uint64_t load_flow_intended(const struct load_flow *f, uint64_t seq);
uint64_t load_flow_outstanding(const struct load_flow *f);
bool load_flow_done(const struct load_flow *f);
void load_flow_missing(const struct load_flow *f, uint64_t *ret_lost, uint64_t *ret_unanswered);

/* ---- one message as it comes in ---- */

struct load_seen {
    uint64_t seq; /* which message it is, once decided */
    uint64_t at;  /* bytes so far */
    uint8_t head[LOAD_SEQ_DIGITS];
    bool decided;
    bool bad;
};

void load_seen_begin(struct load_seen *s);
void load_seen_feed(struct load_seen *s, const struct load_flow *f, uint32_t size,
                    const uint8_t *at, size_t len);
/* The message is over: was it whole and right? False: take it for the expected one, corrupted. */
bool load_seen_end(struct load_seen *s, const struct load_flow *f, uint32_t size);

#endif
