/* store/kept.h - one message that is owed, as the record thread and a back end know it.
 *
 *   ACCEPTED ──► fresh ──put into the journal──► placed (a back end has it) ──last share ends──► gone
 *                  └──────── its last share ends before that: folded ──────────────────────────► gone
 *   a share's end comes before ACCEPTED: early ──► fresh
 *   no memory for the shares' states: loose, counted only, and never promised
 *
 * A direct message has one share, a room's one for each user who is owed it; their states are what a
 * restart has to know of them. What is sent is the rh_msg, which is held once.
 *
 * Threads    the record thread's.
 * Memory     96 bytes, and 8 for each share of a room's message.
 */
#ifndef RH_KEPT_H
#define RH_KEPT_H

#include "core/base.h"
#include "core/hash.h"
#include "core/map.h"
#include "core/msg.h"
#include "store/journal.h"

struct rh_tell; /* store/record_int.h */

struct rh_kept_share {
    uint32_t attempt; /* the last that may have been handed out */
    uint8_t state;    /* enum rh_state: pending, or an end */
    uint8_t reason;
};

enum {
    RH_KEPT_EARLY = 1, /* ACCEPTED has not come yet */
    RH_KEPT_FRESH = 2, /* not in the journal yet */
    RH_KEPT_LOOSE = 4, /* never will be */
    RH_KEPT_AGAIN = 8, /* a change did not fit into memory: the whole is put again */
};

struct rh_kept {
    struct rh_list list; /* in a place of the back end's, or the record thread's fresh or loose */
    struct rh_map_node node; /* hash: its number; `next` is whoever's has a use for it */
    struct rh_msg *msg;      /* our hold; its entry points back */
    void *place;             /* the back end's; NULL: it does not have it */
    struct rh_tell *tells;   /* what is to be told behind its commit, while it waits to be put */
    uint64_t batch;          /* with which it became durable, or will */
    struct rh_kept_share *shares; /* ROOM: as many as msg->shares; DIRECT, LOOSE: NULL */
    uint64_t dedup_ms;            /* unix; until when the sender's id is remembered; 0: not */
    union {
        uint32_t attempt;    /* DIRECT */
        uint32_t recipients; /* ROOM: as the answer names them */
    };
    uint32_t unsettled;    /* shares that have not ended */
    uint32_t acknowledged; /* that ended well */
    uint8_t state;         /* the outcome so far: success, or the end of the first that failed */
    uint8_t reason;
    uint8_t flags;  /* RH_KEPT_ */
    uint8_t accept; /* RH_ACCEPT_ */
};

static inline uint64_t rh_kept_number(const struct rh_kept *k)
{
    return k->node.hash;
}

static inline uint32_t rh_kept_count(const struct rh_kept *k) /* of its shares */
{
    return k->msg->kind == RH_MSG_ROOM ? k->msg->shares->count : 1;
}

static inline uint32_t rh_kept_recipients(const struct rh_kept *k)
{
    return k->msg->kind == RH_MSG_ROOM ? k->recipients : 1;
}

/* Fills `k`, which takes over one hold. RH_ENOMEM: it is loose. */
int rh_kept_begin(struct rh_kept *k, struct rh_msg *take_msg);
/* Lets go of what it has: the memory of `k` itself is the caller's. It is on no list. */
void rh_kept_end(struct rh_kept *k);
void rh_kept_destroy(struct rh_kept *k); /* the same, and frees it */

void rh_kept_attempt(struct rh_kept *k, uint32_t share, uint32_t attempt);
/* A share has ended. False: it had before, or there is none; nothing changed. */
bool rh_kept_settle(struct rh_kept *k, uint32_t share, enum rh_state state, enum rh_reason reason);

/* Bytes of memory that it takes, its message with it; always the same. */
uint64_t rh_kept_bytes(const struct rh_kept *k);

/* The OWED that says all of it; `shares` has room for rh_kept_count, and is lent to the jot. */
void rh_kept_owed(const struct rh_kept *k, struct rh_jot *ret_jot, struct rh_jot_share *shares);
/* The ID that remains of it. */
void rh_kept_id(const struct rh_kept *k, struct rh_jot *ret_jot);

/* Where users' names fall in this run. */
struct rh_kept_names {
    struct rh_hash_key key;
    unsigned shards;
};

/* Makes one from an OWED, as if it had just been accepted. RH_EINVAL: it contradicts itself. */
int rh_kept_read(const struct rh_jot *jot, const struct rh_kept_names *names,
                 struct rh_kept **ret_kept);
/* What an OWED says of the shares of one that is here already. */
void rh_kept_reread(struct rh_kept *k, const struct rh_jot *jot);

#endif
