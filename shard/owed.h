/* shard/owed.h - what a user is owed: one queue, at its shard, of messages in flight and waiting.
 *
 * A user who is owed something exists here (its name falls on this shard), connected or not. An item is
 * one message that is owed to it, by whichever of these ways it came:
 *
 *   direct, asks for an acknowledgement     until it is acknowledged, or ends
 *   direct, plain, and kept                 until a send that carried it has completed, or it ends
 *   a share of a room's message             until it is acknowledged, or ends
 *
 *                 none waits, some connection has room,
 *                 fewer than ack.max_unacked in flight
 *   new --------------------------------------------------> [in flight] --ack, written--> settled
 *    |                                                        |  ^   ^ |
 *    `--else--> [waiting] --first, a connection has room------'  |   | `--due: again to all--.
 *                  ^ |                                           |   `------------------------'
 *                  | `--time is over, dropped--> settled         `--history brings it
 *                  `--no connection is left that was handed it: in front, in its order
 *
 * Settling tells the record thread (SETTLED), which tells the sender behind its commit. An item's slot
 * and generation are its name towards the ack thread; a slot is used again with another generation.
 *
 * Order      waiting items leave in their order; while any waits, newer direct messages of the user go
 *            behind it. Room shares are handed out by fan-out in their room's order (rh_owed_share_out),
 *            and stand in no other order.
 * Threads    the shard's.
 * Limits     ack.max_unacked, offline.max_messages (of a user), offline.max_total (of the hub, in
 *            rh_promises.waiting); RH_OWED_QUEUED_MAX of them in one connection's queue.
 */
#ifndef RH_OWED_H
#define RH_OWED_H

#include "shard/room_int.h"

/* Who waits for an answer: the asker's shard and what it echoes. tid RH_ASKER_NONE: nobody. */
#define RH_ASKER_NONE UINT32_MAX
struct rh_asker {
    unsigned tid;
    void *cookie;
    uint64_t conn;
};

/* What became of a direct message, towards route.c. */
enum rh_owed_result {
    RH_OWED_NO,       /* it is owed to nobody: hand it out as a plain message */
    RH_OWED_ACCEPTED, /* owed; the record thread answers the asker */
    RH_OWED_REFUSED,  /* *ret_error says why; nothing is owed */
};

/* A direct message on the receiver's shard (its seq is given here). Takes it over when ACCEPTED;
 * else it is still the caller's. Also answers for an id that is still owed: an AWAIT for its sender (and
 * the message is dropped), conflict for another. */
enum rh_owed_result rh_owed_direct(struct rh_shard *sh, struct rh_msg *take_msg,
                                   const struct rh_asker *asker, enum rh_wire_error *ret_error);

/* Is anything owed to this user, so that it has to exist? */
bool rh_owed_any(const struct rh_user *user);
/* Do messages of this user wait, so that newer ones go behind them? */
bool rh_owed_waits(const struct rh_user *user);

/* More of what waits may be handed out: a connection has room again, or what stood in front has gone. */
void rh_owed_pump(struct rh_shard *sh, struct rh_user *user);
/* Once a pass, before what is queued is sent: hands out more of what waits, to whom that may go. */
void rh_owed_run(struct rh_shard *sh);

/* An open connection of the user takes messages from now on (welcome is queued). */
void rh_owed_connected(struct rh_shard *sh, struct rh_conn *c);
/* A connection is not its user's device any more: what asks for an acknowledgement, and no remaining
 * one was handed, waits again. */
void rh_owed_left(struct rh_shard *sh, struct rh_user *user, struct rh_conn *c);
/* A send has completed, and carried this owed message, or a copy of it: a plain one has gone. */
void rh_owed_written(struct rh_shard *sh, const struct rh_msg *msg);
/* It stood in a queue, or was under way, and will not be sent there: a plain one that stands in no other
 * waits again. */
void rh_owed_unsent(struct rh_shard *sh, const struct rh_msg *msg);

/* A client's {"type":"ack"}. RH_EINVAL: it is invalid, *ret_why is a static sentence; RH_ENOMEM. */
#define RH_ACK_IDS_MAX 10000 /* of one frame */
int rh_owed_ack(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                const char **ret_why);

/* ---- rooms ---- */

/* A room's message with shares came here: owes it to those of them that are this shard's. Before
 * fan-out. Calls nobody back. */
void rh_owed_shares(struct rh_shard *sh, struct rh_msg *msg);
/* By which way a connection is about to get it. */
enum rh_share_way {
    RH_SHARE_LIVE,    /* fan-out, and there is room */
    RH_SHARE_FULL,    /* fan-out, and there is none for what is owed */
    RH_SHARE_HISTORY, /* a replay: counts in no bound */
};
/* Fan-out, or history, is about to queue the message, which has shares, for this connection: returns
 * the frame to queue instead (one use of a handle: another attempt, or, for who is not owed it, a copy
 * that asks for nothing), or NULL for the message's own. What is owed counts as handed to the connection
 * from then on. `*ret_skip`: it is owed, and must not be queued now, for want of room or memory; it
 * comes later, outside of its room's order. */
struct rh_handle *rh_owed_share_out(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h,
                                    enum rh_share_way way, bool *ret_skip);
/* Fan-out of the message has ended here: what no connection was handed waits from now on, or has failed
 * where as many wait as may. Calls nobody back. */
void rh_owed_shares_done(struct rh_shard *sh, struct rh_msg *msg);

/* A join, or what it brought, has ended: shares that were held back for that may go. */
static inline void rh_owed_unhold(struct rh_shard *sh, const struct rh_session *s)
{
    struct rh_user *user = rh_session_user(s);

    if (user->more && user->more->owed)
        rh_owed_pump(sh, user);
}

/* ---- events ---- */

void rh_owed_due_pop(struct rh_shard *sh, const struct rh_event *ev);    /* DUE */
void rh_owed_load_pop(struct rh_shard *sh, const struct rh_event *ev);   /* OWED */
void rh_owed_status_pop(struct rh_shard *sh, const struct rh_event *ev); /* STATUS */
/* Once a pass: those in flight that are unanswered for RH_ARM_AFTER_MS are told to the ack thread. */
void rh_owed_arm(struct rh_shard *sh);
uint64_t rh_owed_next_ms(const struct rh_shard *sh); /* until there is something to arm */
void rh_owed_fini(struct rh_shard *sh);              /* while the shard is destroyed */

#endif
