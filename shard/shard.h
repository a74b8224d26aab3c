/* shard/shard.h - one thread, one ring, one shard: what hub.c needs of it.
 *
 * A shard accepts connections, reads their handshakes, keeps the users whose names fall on it, and
 * moves their messages. It is driven by rh_shard_pass (one turn of its loop) and rh_shard_wait.
 *
 * Threads    create, pass and wait: the shard's own thread. destroy: any, once that has ended. What
 *            ends in _any: anyone.
 * Errors     create: RH_ENOMEM, RH_EIO, RH_EUNSUPPORTED with a fault.
 */
#ifndef RH_SHARD_H
#define RH_SHARD_H

#include "core/config.h"
#include "core/hash.h"
#include "core/mesh.h"
#include "core/promise.h"
#include "core/stat.h"
#include "core/uring.h"

#define RH_ACCEPTS     32 /* single-shot accepts that wait, per listener */
#define RH_TABLE_SPARE 64 /* slots of a table kept for hand-overs and for saying 503 */

struct rh_shard;

/* What all shards of a hub have in common; lives as long as the hub, not changed after start. */
struct rh_shard_env {
    struct rh_snapshot *snapshot; /* to begin with */
    struct rh_limits *limits;
    struct rh_net *net;
    struct rh_hash_key hash_key;
    unsigned shards;
    unsigned crowd;       /* shards per processor, at least 1 */
    unsigned control;     /* tids in the net: of the control thread, ... */
    unsigned ack, record; /* ... the ack thread and the record thread */
    struct rh_promises *promises;
    /* Of these two, for metrics; NULL: none yet. They set it (release), shards read it (acquire). */
    _Atomic(struct rh_stats *) stats[2];
    const char *node;            /* this process's name */
    uint32_t files;              /* slots of each shard's table; 0: ordinary descriptors */
    uint32_t connections_max;    /* limits.connections, while that is left to us; 0: no limit */
    struct rh_shard *const *all; /* by tid; for livez and metrics. Entries set before start */
};

static inline void rh_shard_env_stats(struct rh_shard_env *env, unsigned i, struct rh_stats *stats)
{
    atomic_store_explicit(&env->stats[i], stats, memory_order_release);
}

/* `listeners` (count as in the configuration) become the shard's, and -1 is left in their place. */
int rh_shard_create(const struct rh_shard_env *env, unsigned tid, int *take_listeners,
                    struct rh_shard **ret_sh, struct rh_fault *fault);
void rh_shard_destroy(struct rh_shard *sh); /* accepts NULL; connections that are left are cut */

/* One turn: completions, rings, timers, sends. False: the shard has been told to stop. */
bool rh_shard_pass(struct rh_shard *sh);
/* Submits, and sleeps until there is something to do. */
void rh_shard_wait(struct rh_shard *sh);

void rh_shard_wake_any(struct rh_shard *sh);
/* When it last began a pass, in ms of the monotonic clock. */
uint64_t rh_shard_beat_ms_any(const struct rh_shard *sh);
struct rh_stats *rh_shard_stats_any(struct rh_shard *sh); /* for reading */

#endif
