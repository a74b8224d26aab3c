/* store/store.h - the ack thread and the record thread: what hub.c needs of them.
 *
 * Both only consume events of shards (core/event.h has the fields) and answer with events; a shard
 * never waits for either. Each is a step without its loop, like a shard:
 *
 *     while (rh_record_pass(r))
 *         rh_record_wait(r);
 *
 * Start      rh_record_create opens and reads the journal (gate LOADING until all of it has been told
 *            to the shards: OWED, REMEMBER, LOADED).
 * Stop       DRAIN is answered with QUIET (a: the round) to the control thread: the record thread when
 *            everything that was popped is durable and has been told, the ack thread when no DUE is
 *            unanswered. STOP ends a thread; pass returns false behind a last commit of what is popped.
 *
 * Threads    create, pass and wait: the thread itself, with its tid set. destroy: any, once that has
 *            ended. What ends in _any: anyone.
 * Errors     create: RH_ENOMEM, RH_EIO, with a fault.
 */
#ifndef RH_STORE_H
#define RH_STORE_H

#include "core/config.h"
#include "core/hash.h"
#include "core/mesh.h"
#include "core/promise.h"
#include "core/stat.h"

struct rh_ack;
struct rh_record;

/* What both have in common; lives as long as the hub, not changed after start. */
struct rh_store_env {
    struct rh_snapshot *snapshot; /* to begin with; then CONFIG replaces it */
    struct rh_net *net;
    struct rh_hash_key hash_key; /* names to shards: rh_hash_shard(rh_hash(key, name), shards) */
    unsigned shards;
    unsigned control, ack, record; /* tids */
    struct rh_promises *promises;
    uint64_t segment_bytes; /* of the journal; 0: RH_SEGMENT_BYTES */
};

/* ---- the ack thread: the alarm clock of what is unanswered (store/ack.c) ---- */

int rh_ack_create(const struct rh_store_env *env, struct rh_ack **ret_ack, struct rh_fault *fault);
void rh_ack_destroy(struct rh_ack *ack); /* accepts NULL */
bool rh_ack_pass(struct rh_ack *ack);    /* false: it has been told to stop */
void rh_ack_wait(struct rh_ack *ack);
void rh_ack_wake_any(struct rh_ack *ack);
struct rh_stats *rh_ack_stats_any(struct rh_ack *ack);

/* ---- the record thread: what is durable (store/record.c) ---- */

int rh_record_create(const struct rh_store_env *env, struct rh_record **ret_record,
                     struct rh_fault *fault);
void rh_record_destroy(struct rh_record *r); /* accepts NULL */
bool rh_record_pass(struct rh_record *r);
void rh_record_wait(struct rh_record *r);
void rh_record_wake_any(struct rh_record *r);
struct rh_stats *rh_record_stats_any(struct rh_record *r);

#endif
