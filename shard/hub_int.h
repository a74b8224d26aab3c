/* shard/hub_int.h - the inside of a hub, shared by hub.c (its life) and hub_run.c (its threads).
 *
 * Members of the net by tid: shards 0 to N - 1, then the control thread, the ack thread and the record
 * thread. The control thread is whoever calls rh_hub_start, rh_hub_reload or rh_hub_stop, one at a time
 * (`control`): even the end of a hub goes through the rings.
 */
#ifndef RH_HUB_INT_H
#define RH_HUB_INT_H

#include <pthread.h>

#include "core/limits.h"
#include "core/ringhub.h"
#include "core/thread.h"
#include "shard/capacity.h"
#include "shard/shard.h"
#include "store/store.h"

#define RH_HUB_OTHERS 3 /* members of the net that are no shards */
#define RH_NODE_LEN   12

enum rh_hub_phase { RH_HUB_IDLE, RH_HUB_RUNNING, RH_HUB_STOPPED };

struct rh_hub_thread {
    struct rh_hub *hub;
    struct rh_thread thread;
    struct rh_fault fault;
    int rc;
    bool started, ready;  /* under the hub's lock */
    uint64_t quiet_round; /* control thread's: the last DRAIN that it answered with QUIET */
};

struct rh_hub {
    struct rh_snapshot *snapshot; /* the newest one; under `control` */
    struct rh_limits *limits;
    struct rh_net *net;
    struct rh_shard_env env;
    struct rh_store_env store_env;
    struct rh_promises promises;
    unsigned shards;
    unsigned control, ack, record; /* tids */
    struct rh_capacity capacity;
    struct rh_fault not_direct; /* why, if so */
    char node[RH_NODE_LEN + 1];
    char address[RH_LISTEN_MAX][RH_ADDR_TEXT];
    int (*listeners)[RH_LISTEN_MAX]; /* by shard; -1 when the shard has taken it */
    /* Each is set by its thread, before it can sleep: who wakes it has seen that it sleeps. */
    struct rh_shard *all[RH_SHARDS_MAX];
    struct rh_ack *ack_thread;
    struct rh_record *record_thread;                             /* and freed by it */
    struct rh_hub_thread threads[RH_SHARDS_MAX + RH_HUB_OTHERS]; /* by tid; `control` has none */
    bool owns_log;

    pthread_mutex_t control_lock; /* who is the control thread */
    pthread_mutex_t lock;         /* phase, ready, go */
    pthread_cond_t changed;
    enum rh_hub_phase phase;
    bool go;    /* all shards are there: begin; or, with phase STOPPED, end */
    bool alone; /* nobody wakes the record thread any more: it may free what it has */
};

static inline const struct rh_config *rh_hub_config(const struct rh_hub *hub)
{
    return hub->snapshot->cfg;
}

/* ---- hub_run.c; all of it on the control thread, with its tid set ---- */

/* Ends the wait of a member of the net (core/mesh.h). */
void rh_hub_wake(void *hub, unsigned tid);
/* Starts all threads. When one fails all that were started have been joined. */
int rh_hub_run(struct rh_hub *hub, struct rh_fault *fault);
/* Ends them, in the order that loses nothing. RH_ETIMEDOUT: shutdown.grace was over before. */
int rh_hub_end(struct rh_hub *hub);

#endif
