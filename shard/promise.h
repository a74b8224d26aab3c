/* shard/promise.h - requests whose answer may wait for a commit, at the asker's shard; and ids that are
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
 * Dedup      A promise whose id was given is also an entry of the table of ids (shard/dedup.h). A
 *            repetition meanwhile hangs on the first and gets its answer; later it gets the outcome that
 *            is kept for dedup.window. Errors are not kept.
 *
 * Threads    the shard's.
 * Limits     RH_PENDING_MAX requests that wait for a commit, or for another's answer, and this shard's
 *            part of RH_PENDING_BYTES_MAX bytes: then rh_promise_open says no, and who asks is not read
 *            (RH_WAIT_PROMISES). What a credit of another shard lets out may come on top: a plain
 *            message counts only when its reply says that it is owed. dedup.max ids; the oldest that is
 *            not pending makes room, counted.
 */
#ifndef RH_SHARD_PROMISE_H
#define RH_SHARD_PROMISE_H

#include "shard/room_int.h"

struct rh_promise;

/* What the answer says. */
struct rh_outcome {
    enum rh_wire_error err; /* RH_WIRE_NONE, or why not */
    bool stored;            /* message.send: "stored", else "sent" */
    bool partial;           /* broadcast: some shard has not answered */
    uint64_t seq;           /* room.publish */
    uint32_t recipients;    /* room.publish, broadcast */
    const char *why;        /* with err: a static sentence; NULL: rh_outcome_sentence's */
};

/* A sentence for each error that a direct message may end with. */
const char *rh_outcome_sentence(enum rh_wire_error err);
/* Counts what became of a request, and answers it; c NULL: nobody to answer is left. */
void rh_outcome_tell(struct rh_shard *sh, struct rh_conn *c, enum rh_id_event event,
                     struct rh_span request_id, struct rh_span id, const struct rh_outcome *o);

/* Are promises made now? */
static inline bool rh_gate_open(const struct rh_shard *sh)
{
    return rh_gate_any(sh->env->promises) == RH_GATE_OPEN;
}

/* Could a request whose message has `bytes` be promised now? Those that surely wait for a commit leave
 * a quarter of the bounds to those that may turn out to, so that a commit that hangs does not stop
 * plain messages; and none of them overtakes those that wait. */
bool rh_promise_open(const struct rh_shard *sh, size_t bytes, bool surely);

/* ---- ids that clients gave ---- */

/* Until when (unix, ms) an id whose request is answered now is remembered; 0: not at all. */
static inline uint64_t rh_id_until_ms(const struct rh_shard *sh)
{
    const struct rh_config *cfg = sh->cfg;

    return cfg->dedup_window_ms && cfg->dedup_max ? rh_now_unix_ms(sh) + cfg->dedup_window_ms : 0;
}

enum rh_id_known {
    RH_ID_NEW,      /* nothing: make a promise with this key */
    RH_ID_ANSWERED, /* it was done before: the outcome has been sent to the connection */
    RH_ID_PENDING,  /* it is being done: this request hangs on it, and will be answered with it */
    RH_ID_NO_MEMORY,
};
struct rh_id_key rh_id_key(const struct rh_shard *sh, enum rh_id_event event, struct rh_span from,
                           struct rh_span target, struct rh_span id);
enum rh_id_known rh_id_ask(struct rh_shard *sh, struct rh_conn *c, const struct rh_id_key *key,
                           enum rh_id_event event, struct rh_span request_id, struct rh_span id);

/* ---- promises ---- */

/* A request, on its way from the check to the answer. */
struct rh_request {
    enum rh_id_event event;
    struct rh_span request_id; /* as it is to be echoed */
    struct rh_span id;
    const struct rh_id_key *key; /* NULL: the id was made here, or none are remembered */
};

/* Fills r->key, unless none are remembered; `key` has to live as long as `r`. */
void rh_request_key(const struct rh_shard *sh, struct rh_request *r, const struct rh_user *from,
                    struct rh_span target, struct rh_id_key *key);
/* Before anything is made of a request: is it a repetition, are promises made, is there room? */
enum rh_promise_may {
    RH_PROMISE_GO,
    RH_PROMISE_WAIT, /* nothing was done: RH_EFULL, RH_WAIT_PROMISES */
    RH_PROMISE_DONE, /* it was answered, or hangs on another that will be */
};
enum rh_promise_may rh_promise_admit(struct rh_shard *sh, struct rh_conn *c,
                                     const struct rh_request *r, size_t bytes, bool ack);
/* Makes a promise for a request of this connection. `bytes`: what counts in the bound while it waits for
 * a commit; from now on where it surely does. NULL: no memory. */
struct rh_promise *rh_promise_make(struct rh_shard *sh, const struct rh_conn *c,
                                   const struct rh_request *r, size_t bytes, bool surely);
/* The request's reply came: with an outcome ... */
void rh_promise_answer(struct rh_shard *sh, struct rh_promise *p, const struct rh_outcome *outcome);
/* ... or it says that a COMMITTED will come, or has come. */
void rh_promise_owed(struct rh_shard *sh, struct rh_promise *p);
void rh_promise_committed_pop(struct rh_shard *sh, const struct rh_event *ev);
/* Nothing was sent after all, and the client has been, or is about to be, told: forgets it. */
void rh_promise_drop(struct rh_shard *sh, struct rh_promise *p);

/* ---- a shard's ---- */

int rh_promises_init(struct rh_shard *sh); /* RH_ENOMEM */
void rh_promises_fini(struct rh_shard *sh);
void rh_promise_remember_pop(struct rh_shard *sh, const struct rh_event *ev); /* REMEMBER */
void rh_promises_expire(struct rh_shard *sh); /* once a second: ids whose time is over */
/* How many have not been answered, or have still to hear their request's reply. */
uint32_t rh_promises_pending(const struct rh_shard *sh);

#endif
