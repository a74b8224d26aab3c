/* shard/promise.h - requests whose answer waits for a commit, at the asker's shard; and ids that are
 * remembered.
 *
 * A request that may be answered by the record thread has a promise: what the answer needs (connection,
 * request_id, id, which event). Its address travels as the cookie of SEND, ROOM and ACCEPTED, and only
 * this shard looks behind it. Two things may come back, in any order: the reply to the request (which
 * says that it is owed, or carries the answer itself), and COMMITTED. It is freed when both have come, or
 * when the reply says that no commit follows; the answer is given once.
 *
 *   made --reply: an outcome--------------------------------------> answered, freed
 *     |  --reply: owed--> [committing] --COMMITTED--> answered, freed
 *     `--COMMITTED first--> answered [replying] --reply--> freed
 *
 * Dedup      A promise whose id was given is also an entry of the table of ids: (sender, event, target,
 *            id) by a keyed 128-bit hash. A repetition meanwhile hangs on the first and gets its answer;
 *            later it gets the outcome that is kept for dedup.window. Errors are not kept.
 *
 * Threads    the shard's.
 * Limits     RH_PENDING_MAX promises that wait for a commit, and this shard's part of
 *            RH_UNCOMMITTED_MAX bytes: then rh_promise_open says no, and who asks is not read
 *            (RH_WAIT_OWN). dedup.max ids; the oldest that is not pending makes room, counted.
 */
#ifndef RH_SHARD_PROMISE_H
#define RH_SHARD_PROMISE_H

#include "shard/room_int.h"

struct rh_promise;

/* Which requests have ids that are remembered. */
enum rh_id_event { RH_ID_SEND, RH_ID_PUBLISH, RH_ID_BROADCAST };

/* What the answer says. */
struct rh_outcome {
    enum rh_wire_error err; /* RH_WIRE_NONE, or why not */
    bool stored;            /* message.send: "stored", else "sent" */
    uint64_t seq;           /* room.publish */
    uint32_t recipients;    /* room.publish, broadcast */
    const char *why;        /* with err: a static sentence */
};

/* Could a request whose message has `bytes` be promised now? */
bool rh_promise_open(const struct rh_shard *sh, size_t bytes);

/* A request with an id that its client gave: what is known of it? */
enum rh_id_known {
    RH_ID_NEW,      /* nothing: make a promise with this key */
    RH_ID_ANSWERED, /* it was done before: the outcome has been sent to the connection */
    RH_ID_PENDING,  /* it is being done: this request hangs on it, and will be answered with it */
    RH_ID_NO_MEMORY,
};
struct rh_id_key {
    uint64_t h[2];
};
struct rh_id_key rh_id_key(const struct rh_shard *sh, enum rh_id_event event, struct rh_span from,
                           struct rh_span target, struct rh_span id);
enum rh_id_known rh_id_ask(struct rh_shard *sh, struct rh_conn *c, const struct rh_id_key *key,
                           enum rh_id_event event, struct rh_span request_id, struct rh_span id);

/* Makes a promise for a request of this connection; `key` NULL: the id was made here, or dedup is off.
 * `bytes`: what counts in the bound while it waits for a commit. NULL: no memory. */
struct rh_promise *rh_promise_make(struct rh_shard *sh, struct rh_conn *c, enum rh_id_event event,
                                   const struct rh_id_key *key, struct rh_span request_id,
                                   struct rh_span id, size_t bytes);
/* The request's reply came: with an outcome ... */
void rh_promise_answer(struct rh_shard *sh, struct rh_promise *p, const struct rh_outcome *outcome);
/* ... or it says that a COMMITTED will come, or has come. */
void rh_promise_owed(struct rh_shard *sh, struct rh_promise *p);
void rh_promise_committed_pop(struct rh_shard *sh, const struct rh_event *ev);
/* Nothing was sent after all, and the client has been told: forgets it. */
void rh_promise_drop(struct rh_shard *sh, struct rh_promise *p);

void rh_promise_remember_pop(struct rh_shard *sh, const struct rh_event *ev); /* REMEMBER */
void rh_promises_expire(struct rh_shard *sh); /* once a second: ids whose time is over */
void rh_promises_fini(struct rh_shard *sh);
/* How many wait for a commit. */
uint32_t rh_promises_pending(const struct rh_shard *sh);

#endif
