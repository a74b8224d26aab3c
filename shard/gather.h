/* shard/gather.h - ask every shard, and go on when all have answered or a second has passed.
 *
 * One question goes to each shard as a request, our own shard takes part without one; the answers
 * come one by one. Whoever asks is answered once: when the last one has come, or at the deadline with
 * what there is (`partial`). Late answers are still taken, so that what they bring is let go of, and
 * with the last one the gathering ends.
 *
 *     struct count { struct rh_gather g; uint64_t sum; ... };
 *
 *     if (!rh_gather_open(sh, bytes, ret_shard))          every shard needs a credit
 *         return RH_EFULL;
 *     rh_gather_begin(sh, &count->g, &verbs);
 *     rh_gather_ask(sh, &count->g, &ev, bytes);           to all others; ev.cookie is the gathering
 *     rh_gather_reply(sh, &count->g, sh->tid, &ours);     our part, now or later
 *     ... and when a reply is popped: rh_gather_reply(sh, ev->cookie, ev->from, ev);
 *
 * Ownership  The struct is part of a larger one, on the heap, which `end` frees; nobody else does.
 *            What an event's msg points to: one hold or part for each shard, as its kind says.
 * Threads    the shard's.
 */
#ifndef RH_GATHER_H
#define RH_GATHER_H

#include "shard/shard_int.h"

#define RH_GATHER_MS 1000

struct rh_gather;

struct rh_gather_verbs {
    /* One shard's answer: the reply, or a part of ours that looks like one. */
    void (*take)(struct rh_shard *sh, struct rh_gather *g, const struct rh_event *reply);
    /* Answers who asked: once, and not while `take` runs. */
    void (*answer)(struct rh_shard *sh, struct rh_gather *g);
    /* All have answered: frees it. While the shard is destroyed it comes earlier. */
    void (*end)(struct rh_shard *sh, struct rh_gather *g);
};

struct rh_gather {
    const struct rh_gather_verbs *verbs;
    struct rh_alarm deadline;
    struct rh_list gathers; /* struct rh_shard.gathers */
    uint64_t pending;       /* bit k: shard k has not answered */
    bool answered;
    bool partial; /* somebody's part is missing; `take` may set it, too */
};

/* Would each of the other shards take a question of that many bytes now? Else *ret_shard is one that
 * would not. */
bool rh_gather_open(const struct rh_shard *sh, size_t bytes, unsigned *ret_shard);

/* From now on it ends by rh_gather_reply alone. */
void rh_gather_begin(struct rh_shard *sh, struct rh_gather *g, const struct rh_gather_verbs *verbs);

/* Sends the question to all other shards; the way has to be open. ev->msg is the same for all. */
void rh_gather_ask(struct rh_shard *sh, struct rh_gather *g, const struct rh_event *ev,
                   uint32_t bytes);

/* Shard `from` has answered; may free the gathering. */
void rh_gather_reply(struct rh_shard *sh, struct rh_gather *g, unsigned from,
                     const struct rh_event *reply);

void rh_gathers_fini(struct rh_shard *sh);

#endif
