/* tools/load/audience.h - one stream of messages for many readers: who has which, and how far all
 * of them are.
 *
 * The *stream* belongs to the run: its one publisher numbers the messages from 0 on. An *audience*
 * is the part of the readers that one worker has; an *inbox* is one reader. The publisher asks each
 * audience for one number only: all messages below it need not be waited for any more.
 *
 * Threads    stream: the publisher's worker writes, all read. audience and inbox: their worker's,
 *            but for load_audience_done_any.
 * Memory     an inbox allocates nothing until messages are lost or reordered.
 * Limits     LOAD_FLOW_MAX messages between the oldest that some reader lacks and the newest: the
 *            publisher's flow sees to that (flow.h). It also bounds the gaps of an inbox.
 */
#ifndef LOAD_AUDIENCE_H
#define LOAD_AUDIENCE_H

#include "core/base.h"
#include "tools/load/flow.h"

/* ---- the stream ---- */

struct load_issue {
    _Atomic uint64_t intended_ns; /* relaxed; `published` orders it */
    _Atomic bool refused;         /* relaxed: the server won't deliver it; seen late is no harm */
};

struct load_stream {
    _Atomic uint64_t published; /* messages so far; release, pairs with the acquire of readers */
    _Atomic bool refusals;      /* relaxed: there were any */
    struct load_issue *issues;  /* of message n: issues[n % LOAD_FLOW_MAX] */
};

int load_stream_init(struct load_stream *s);  /* RH_ENOMEM */
void load_stream_fini(struct load_stream *s); /* accepts zeroed memory */

void load_stream_publish(struct load_stream *s, uint64_t seq, uint64_t intended_ns);
void load_stream_refuse(struct load_stream *s, uint64_t seq);
uint64_t load_stream_published(const struct load_stream *s);

/* ---- one reader ---- */

struct load_gap {
    uint64_t from, to; /* messages from <= n < to were passed by a later one and have not come */
};

struct load_inbox {
    uint64_t next; /* the message that should come next: all below came, or stand in a gap */
    struct load_gap *gaps; /* sorted */
    uint32_t gaps_count, gaps_room;
};

void load_inbox_fini(struct load_inbox *in);

/* ---- the readers of a worker ---- */

struct load_audience {
    struct load_stream *stream;
    uint32_t readers;      /* that are there */
    uint64_t low;          /* nobody lacks anything below, but for what was refused */
    uint64_t top;          /* lacking[] means something from low up to here; beyond all lack all */
    uint32_t *lacking;     /* of message n: how many readers have not got it, [n % LOAD_FLOW_MAX] */
    _Atomic uint64_t done; /* `low`, or UINT64_MAX without readers; release, pairs with done_any */
};

int load_audience_init(struct load_audience *a, struct load_stream *stream); /* RH_ENOMEM */
void load_audience_fini(struct load_audience *a); /* accepts zeroed memory */

void load_audience_join(struct load_audience *a); /* a reader more, before the first message */
void load_audience_leave(struct load_audience *a, const struct load_inbox *in); /* one less */

/* Message `seq` came to this reader. ret_intended_ns is set unless it is LOAD_UNKNOWN. RH_ENOMEM
 * (negative) or an enum load_arrival. */
int load_audience_arrive(struct load_audience *a, struct load_inbox *in, uint64_t seq,
                         uint64_t *ret_intended_ns);
/* After refusals: what is refused is not waited for. */
void load_audience_review(struct load_audience *a);

/* How many published messages this reader has not got, but for refused ones; the first, if any. */
uint64_t load_audience_missing(const struct load_audience *a, const struct load_inbox *in,
                               uint64_t *ret_first);
uint64_t load_audience_done_any(const struct load_audience *a);

#endif
