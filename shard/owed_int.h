/* shard/owed_int.h - the bodies behind owed.h, shared by owed*.c; no other file includes it.
 *
 * An item is what one message is to one user. It stands in the map of its shard (by id and user), and
 * in one of these places:
 *
 *   RH_OWED_COMING    a room's fan-out will bring it: in no list
 *   RH_OWED_FLIGHT    in its user's `flight`: some connection was handed it, and has not answered
 *   RH_OWED_WAITING   in its user's `waiting`
 *   RH_OWED_ENDED     settled, but the record thread could not be told yet: in sh->owed.untold
 *
 * Both lists are kept in the order in which items were accepted (`order`).
 *
 * Names      A slot, and a generation that counts how often the slot has ended, or left the flight: so
 *            what the ack thread says about an earlier flight is recognised. Memory of items is never
 *            freed while the shard lives, so that anyone may look whether an item is still the same.
 * Places     A connection gets a place when it is first handed something, and keeps it until it leaves: a
 *            bit in `handed`. The 64th and later ones of a user share bit 63: of these the first
 *            acknowledgement speaks for all, and it is cleared when the last of them leaves. What is
 *            plain is counted instead, entry by entry: it must not come twice.
 * Re-entry   Queueing for a connection may close it, for want of memory, and with that change lists and
 *            settle items (not the user, which is pinned). So whoever queues looks at the generation
 *            again before it goes on. More of what waits is handed out from one place only,
 *            rh_owed_run, once a pass: everyone else marks the user (rh_owed_pump).
 */
#ifndef RH_OWED_INT_H
#define RH_OWED_INT_H

#include "core/event.h"
#include "shard/owed.h"

#define RH_OWED_SLAB 512 /* items in one piece of the slab */

enum rh_owed_at { RH_OWED_FREE, RH_OWED_COMING, RH_OWED_FLIGHT, RH_OWED_WAITING, RH_OWED_ENDED };

struct rh_owed_item {
    struct rh_map_node node; /* struct rh_shard.owed.items; FREE, ENDED: next in that list */
    struct rh_list of_user;  /* flight or waiting; else unlinked */
    struct rh_owed *owed;    /* its user's */
    struct rh_msg *msg;      /* one hold; SETTLED moves it */
    uint64_t order;          /* of acceptance, on this shard */
    union {
        uint64_t handed; /* acknowledged: places that have not answered */
        uint64_t copies; /* plain: entries of send queues */
    };
    uint64_t answered; /* policy all: places that have, and do not get it again */
    uint32_t slot, gen;
    uint32_t attempt;    /* the last one that was handed out; 0: none */
    uint32_t sent;       /* when, in ticks */
    uint32_t share;      /* of a room's message: which of msg->shares */
    uint8_t repetitions; /* of this flight */
    uint8_t state;       /* enum rh_state */
    uint8_t reason;      /* ENDED: enum rh_reason */
    uint8_t at : 3;      /* enum rh_owed_at */
    uint8_t armed : 1;   /* the ack thread knows of it */
    uint8_t acked : 1;   /* policy all: some device has answered */
};

_Static_assert(sizeof(struct rh_owed_item) <= 96, "of a million there are a million");

/* What one user is owed; exists while there is any item, or a loss to tell. */
struct rh_owed {
    struct rh_user *user;
    struct rh_list flight; /* both in the order of acceptance */
    struct rh_list waiting;
    uint32_t items;         /* of all places but ENDED */
    uint32_t unacked;       /* in flight that ask for an acknowledgement */
    uint32_t waiting_count; /* ... and of these: */
    uint32_t waiting_plain;
    struct rh_conn **conns; /* by place; NULL: free */
    uint16_t places;        /* room in conns */
    uint16_t hint;          /* where somebody was found last */
    bool online;            /* as its waiting items' states say */
    bool marked;            /* stands in sh->owed.marked */
    struct rh_owed *next;   /* in there */
    struct rh_alarm expiry; /* of what waits, or of the loss */
    struct rh_list *scan;   /* the next one to be looked at, while that goes on; or NULL */
    uint64_t scan_ms;       /* the earliest end (unix) of those looked at so far */
    struct {
        uint64_t from, to, count; /* 0: nothing */
        uint64_t order;           /* of the first one: told before what follows that */
    } lost;
};

/* ---- owed_item.c: items, the map, the lists, states, the end ---- */

static inline struct rh_owed *rh_user_owed(const struct rh_user *user)
{
    return user->more ? user->more->owed : NULL;
}

/* The user's, made if need be. NULL: no memory. It goes in rh_owed_run, when nothing is owed any more. */
struct rh_owed *rh_owed_of(struct rh_shard *sh, struct rh_user *user);
void rh_owed_free(struct rh_shard *sh,
                  struct rh_owed *o); /* no item is left; the user may go with it */
/* rh_owed_run shall look at it: something has changed. */
void rh_owed_mark(struct rh_shard *sh, struct rh_owed *o);

/* A new item, COMING, pending or user_offline. Sets msg->id_hash if that is 0. Takes over one hold. NULL: no memory. */
struct rh_owed_item *rh_owed_add(struct rh_shard *sh, struct rh_owed *o, struct rh_msg *take_msg,
                                 uint32_t share);
/* Undoes that: nobody is told, and the hold is the caller's again. */
void rh_owed_forget(struct rh_shard *sh, struct rh_owed_item *item);
/* The user's item with that message's kind, id, and room if it is one's. NULL: none. */
struct rh_owed_item *rh_owed_find(const struct rh_shard *sh, const struct rh_owed *o,
                                  const struct rh_msg *msg);
/* The key of a user's items of an id, in sh->owed.items. */
uint64_t rh_owed_key(uint64_t user_hash, uint64_t id_hash);
/* NULL: it is not the same any more. */
struct rh_owed_item *rh_owed_by_name(const struct rh_shard *sh, uint32_t slot, uint32_t gen);

/* The only door through which a state changes: asserts the arrow, tells PROGRESS. */
void rh_owed_set_state(struct rh_shard *sh, struct rh_owed_item *item, enum rh_state state);

/* A COMING one waits from now on. `exempt`: from the bounds. False: they are reached, nothing has
 * changed; else the oldest plain one may have had to go for it. */
bool rh_owed_wait(struct rh_shard *sh, struct rh_owed_item *item, bool exempt);
/* A COMING or WAITING one into the flight, with one more attempt: told to the record thread if `tell`,
 * and, if it asks for an acknowledgement, to the ack thread after a while. False: no memory for that,
 * nothing has changed. */
bool rh_owed_fly(struct rh_shard *sh, struct rh_owed_item *item, bool tell);
/* One in flight that nobody has any more goes back to those that wait. */
void rh_owed_requeue(struct rh_shard *sh, struct rh_owed_item *item);
/* One that is in flight is handed out anew, as a repetition. False: no memory, nothing has changed. */
bool rh_owed_refly(struct rh_shard *sh, struct rh_owed_item *item);
/* The end: tells the record thread, which gets the hold; the item is gone. */
void rh_owed_settle(struct rh_shard *sh, struct rh_owed_item *item, enum rh_state state,
                    enum rh_reason reason);
void rh_owed_tell_ended(struct rh_shard *sh); /* those of which that could not be told */
/* Its user has a connection, or none any more: what waits says so. */
void rh_owed_restate(struct rh_shard *sh, struct rh_owed *o);

/* ---- owed_time.c: what is told to the ack thread, and what expires ---- */

/* A moment of this pass in 32 bits, in steps of 33 us: good for 39 hours. */
#define RH_OWED_TICK_BITS 15
static inline uint32_t rh_owed_ticks(const struct rh_shard *sh)
{
    return (uint32_t)(sh->now_ns >> RH_OWED_TICK_BITS);
}

static inline uint64_t rh_owed_since_ns(const struct rh_shard *sh, uint32_t ticks)
{
    return (uint64_t)(rh_owed_ticks(sh) - ticks) << RH_OWED_TICK_BITS;
}

/* Is there a place for one more that was just handed out? False: no memory. */
bool rh_owed_fresh_room(struct rh_shard *sh);
void rh_owed_fresh_put(struct rh_shard *sh, const struct rh_owed_item *item);
/* The ack thread need not know of it any more. */
void rh_owed_disarm(struct rh_shard *sh, struct rh_owed_item *item);
/* Is its time over? Not before what is stored is. */
bool rh_owed_expired(const struct rh_shard *sh, const struct rh_owed_item *item);
/* It waits: the user's alarm rings in time. */
void rh_owed_expiry_add(struct rh_shard *sh, const struct rh_owed_item *item);
/* It is about to leave its list. */
void rh_owed_expiry_del(struct rh_owed_item *item);
/* Nothing but a loss is left: the user hears of it if it comes within offline.ttl. */
void rh_owed_expiry_lost(struct rh_shard *sh, struct rh_owed *o);
void rh_owed_expiry_ring(struct rh_shard *sh, struct rh_alarm *alarm);

/* ---- owed.c: connections, handing out ---- */

/* The connection's place, as a bit; given if it has none. 0: no memory. */
uint64_t rh_owed_place(struct rh_owed *o, struct rh_conn *c);
/* Has any of its connections room for what is owed? */
bool rh_owed_room(const struct rh_shard *sh, struct rh_user *user);
/* The frame of that attempt: one use of a handle. NULL: no memory. */
struct rh_handle *rh_owed_handle(struct rh_shard *sh, const struct rh_owed_item *item,
                                 uint32_t attempt);
/* Queues the frame for all connections of the user that have room. */
void rh_owed_push(struct rh_shard *sh, struct rh_owed_item *item, struct rh_handle *h);
/* Owes it to its user, told to the record thread; as rh_owed_direct, but asks nothing before. */
enum rh_owed_result rh_owed_accept(struct rh_shard *sh, struct rh_msg *take_msg,
                                   const struct rh_asker *asker, enum rh_wire_error *ret_error);

/* ---- owed_room.c: shares of rooms' messages ---- */

/* One that waits, and that a join or a replay under way may still bring in its place: it is passed
 * over. The user is marked when that has ended. */
bool rh_owed_share_held(const struct rh_shard *sh, const struct rh_owed_item *item);
/* rh_owed_handle of a share: to be sent outside of its room's order, with `epoch` if that is not the
 * room's present one as far as this shard knows. NULL: no memory. */
struct rh_handle *rh_owed_share_frame(struct rh_shard *sh, const struct rh_owed_item *item,
                                      uint32_t attempt);

#endif
