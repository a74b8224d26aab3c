/* store/record_int.h - the inside of the record thread, shared by its files.
 *
 *   record.c        life, one pass, sleeping, stopping
 *   record_event.c  events of shards: what they change, and whom it will be told
 *   record_write.c  into the journal: what gathered while the last commit ran; copying forward
 *   record_tell.c   what is told, and behind which commit; the gate
 *   record_load.c   start: reading the journal, telling shards what they owe
 */
#ifndef RH_RECORD_INT_H
#define RH_RECORD_INT_H

#include "core/bell.h"
#include "core/err.h"
#include "core/hubtime.h"
#include "core/limits.h"
#include "store/backend.h"
#include "store/store.h"

#define RH_ON_RECORD(r) rh_assert((int)(r)->env->record == rh_tid_self())

/* One event for a shard, while it waits for a commit, or for room. */
struct rh_tell {
    struct rh_tell *next;
    uint64_t batch; /* told when that batch is durable */
    unsigned to;
    struct rh_event ev;
};

struct rh_tells {
    struct rh_tell *first, *last;
};

/* Pieces of memory of one size, so that handling an event never fails for want of one. */
struct rh_stock {
    void *free; /* each begins with a pointer to the next */
    uint32_t count;
    uint32_t size;
};

/* The start, from the journal's end to LOADED. */
struct rh_loading {
    bool on;
    bool all;                 /* nothing is left but LOADED */
    struct rh_kept *kept;     /* that is being told; NULL: ask for the next */
    uint32_t step;            /* what of it was told */
    struct rh_remembered *id; /* to be told to shard id_to */
    unsigned id_to;
    uint64_t batch;  /* the last that was read: it may stand in the kernel's memory alone */
    uint32_t loaded; /* shards that have been told LOADED */
    uint64_t events, messages, ids, began_ns;
};

/* Why the gate is closed. */
enum rh_trouble {
    RH_TROUBLE_NONE,
    RH_TROUBLE_FAILED, /* a write or a sync */
    RH_TROUBLE_SLOW,   /* RH_COMMIT_MS_MAX */
    RH_TROUBLE_MUCH,   /* RH_UNCOMMITTED_MAX */
};

struct rh_record {
    /* Fixed before start. */
    const struct rh_store_env *env;
    struct rh_mesh *mesh;
    struct rh_kept_names names;
    struct rh_files *files;     /* NULL: store.durability is memory; so is the journal then */
    struct rh_journal *journal; /* all of it is durable at once if there is none */
    struct rh_bell *bell;       /* in place of files */
    struct rh_backend *backend;
    uint64_t segment_bytes;

    /* Replaced as a whole by an event; one pass uses one snapshot. */
    struct rh_snapshot *snapshot, *next_snapshot;
    const struct rh_config *cfg;

    /* Ours alone. */
    uint64_t now_ms; /* monotonic, of this pass */
    struct rh_hubtime hubtime;
    uint64_t hub_ms, adjust_ms;
    uint64_t newest_ms; /* stored when we started */
    uint64_t next_number;

    struct rh_stock kepts, tells; /* memory for the next pass's events */
    bool starved;                 /* there was none, or none for what was to be put */
    struct rh_tells now;          /* to be told at once */
    struct rh_tells later;        /* with rising batches */
    struct rh_list fresh;         /* kepts that were accepted and not put, oldest first */
    struct rh_list loose;         /* kepts that are early or loose */
    uint64_t fresh_bytes;
    struct rh_kept *again;       /* to be put again, through node.next */
    struct rh_jot_share *shares; /* for one jot */
    uint32_t share_room;

    uint64_t put_batch;    /* the last batch that something was put into */
    uint64_t durable;      /* the last one that is durable, as far as we have acted upon it */
    uint64_t told_time_ms; /* when TIME was put last */
    /* Copying forward: segments before that go; 0: none shall. All of them has been put again: they go
     * as soon as that batch is durable. */
    uint64_t forward_before, forward_batch;
    bool forward_done;
    uint64_t forward_left; /* bytes that may be put into this batch */

    enum rh_trouble trouble;
    uint64_t trouble_durable; /* `durable` when it began */
    bool full;                /* store.backlog_bytes, or the disk: no new promises */
    bool broken;              /* the ring of the disk */
    struct rh_loading load;

    uint64_t drain_round, quiet_round;
    uint64_t stop_ms; /* when STOP came; 0: it has not */

    struct rh_stats stats; /* we write, metrics read */
};

/* ---- record_event.c ---- */

void rh_record_on_event(void *arg, const struct rh_event *ev);
/* A message that has ended, and all that is to be told of it has been queued: it is gone. */
void rh_record_give(struct rh_record *r, struct rh_kept *k);

/* ---- record_write.c ---- */

uint64_t rh_record_segment(const struct rh_record *r);
/* Puts an event into the open batch. RH_ENOMEM. */
int rh_record_put(struct rh_record *r, const struct rh_jot *jot);
/* Its change could not be put: all of it will be. */
void rh_record_again(struct rh_record *r, struct rh_kept *k);
/* Writes what is to be written, and notices what is durable. */
void rh_record_write(struct rh_record *r);
/* The journal is idle, and there is more to put. */
bool rh_record_could_write(const struct rh_record *r);
/* Something waits to be put, or to be durable. */
bool rh_record_unwritten(const struct rh_record *r);
uint64_t rh_record_uncommitted(const struct rh_record *r); /* bytes */

/* ---- record_tell.c ---- */

int rh_stock_fill(struct rh_stock *stock, uint32_t count); /* RH_ENOMEM */
void *rh_stock_take(struct rh_stock *stock);               /* there is one */
void rh_stock_give(struct rh_stock *stock, void *piece);
void rh_stock_fini(struct rh_stock *stock);

/* Adds to what waits with a message that is not put yet. */
void rh_tell_with(struct rh_record *r, struct rh_kept *k, unsigned to, const struct rh_event *ev);
/* Told as soon as all that was put so far is durable. */
void rh_tell_behind(struct rh_record *r, unsigned to, const struct rh_event *ev);
void rh_tell_now(struct rh_record *r, unsigned to, const struct rh_event *ev);
/* What waited with a message is told at once; or behind what was put so far. */
void rh_tells_now(struct rh_record *r, struct rh_kept *k);
void rh_tells_behind(struct rh_record *r, struct rh_kept *k);
/* Whoever waits for a commit with this message is told that the store fails. */
void rh_tells_fail(struct rh_record *r, struct rh_kept *k);
/* `durable` has risen. */
void rh_tells_durable(struct rh_record *r);
void rh_tells_send(struct rh_record *r);
void rh_tells_fini(struct rh_record *r);
void rh_tells_drop(struct rh_record *r, struct rh_kept *k);

static inline bool rh_record_failing(const struct rh_record *r)
{
    return r->trouble != RH_TROUBLE_NONE;
}
void rh_record_gate(struct rh_record *r);
/* ms until a commit is late; UINT64_MAX: none is under way. */
uint64_t rh_record_late_ms(const struct rh_record *r);

/* ---- record_load.c ---- */

int rh_record_read(struct rh_record *r, struct rh_fault *fault);
void rh_record_load(struct rh_record *r);
void rh_record_load_fini(struct rh_record *r);

#endif
