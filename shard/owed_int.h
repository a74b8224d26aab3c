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
 * Places     A connection gets a place, a bit in `handed`, when it is first handed something; it keeps
 *            it until it leaves. The 64th and later ones of a user share bit 63: of these the first
 *            acknowledgement speaks for all, and it is cleared when the last of them leaves.
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
    uint32_t slot, gen;
    uint32_t attempt;    /* the last one that was handed out; 0: none */
    uint32_t sent_ms;    /* when: the low half of a monotonic ms */
    uint32_t share;      /* of a room's message: which of msg->shares */
    uint8_t repetitions; /* of this flight */
    uint8_t state;       /* enum rh_state */
    uint8_t reason;      /* ENDED: enum rh_reason */
    uint8_t at : 3;      /* enum rh_owed_at */
    uint8_t armed : 1;   /* the ack thread knows of it */
    uint8_t acked : 1;   /* policy all: some device has answered */
};

_Static_assert(sizeof(struct rh_owed_item) <= 88, "of a million there are a million");

/* What one user is owed; exists while there is any item, or a loss to tell. */
struct rh_owed {
    struct rh_user *user;
    struct rh_list flight; /* both in the order of acceptance */
    struct rh_list waiting;
    struct rh_list *near;   /* in flight: where something was put last, or the head */
    uint32_t items;         /* of all places but ENDED */
    uint32_t unacked;       /* in flight that ask for an acknowledgement */
    uint32_t waiting_count; /* ... and of these: */
    uint32_t waiting_plain;
    struct rh_conn **conns; /* by place; NULL: free */
    uint8_t places;         /* room in conns, at most 63 */
    uint32_t sharers;       /* connections that have bit 63 */
    bool online;            /* as its waiting items' states say */
    bool marked;            /* stands in sh->owed.marked */
    struct rh_owed *next;   /* in there */
    struct rh_alarm expiry; /* of what waits */
    struct rh_list *scan;   /* the next one to be looked at, while that goes on; or NULL */
    uint64_t scan_ms;       /* the earliest end (unix) of those looked at so far */
    uint64_t lost_from, lost_to, lost_count; /* to be told before what follows; 0: nothing */
};

/* ---- owed_item.c: items, the map, the lists, states, the end ---- */

/* The user's, made if need be. NULL: no memory. */
struct rh_owed *rh_owed_of(struct rh_user *user);
/* Frees it, and the user, if nothing is owed any more: at the end of whatever may have settled. */
void rh_owed_drop_unused(struct rh_shard *sh, struct rh_owed *o);

/* A new item, COMING, pending. Sets msg->id_hash if that is 0. Takes over one hold. NULL: no memory. */
struct rh_owed_item *rh_owed_add(struct rh_shard *sh, struct rh_owed *o, struct rh_msg *take_msg,
                                 uint32_t share);
/* The user's item with that message's kind, id, and room if it is one's. NULL: none. */
struct rh_owed_item *rh_owed_find(const struct rh_shard *sh, const struct rh_owed *o,
                                  const struct rh_msg *msg);
struct rh_owed_item *rh_owed_by_slot(const struct rh_shard *sh, uint64_t slot_gen);

/* The only door through which a state changes: asserts the arrow, tells PROGRESS. */
void rh_owed_set_state(struct rh_shard *sh, struct rh_owed_item *item, enum rh_state state);

/* Not in any list: among those that wait, in its place. `exempt`: from the bounds. False: they are
 * reached (nothing changed); the oldest plain one may have had to go for it. */
bool rh_owed_wait(struct rh_shard *sh, struct rh_owed_item *item, bool exempt);
/* Into the flight, in its place, with one more attempt: told to the record thread if `tell`, and, if
 * it asks for an acknowledgement, to the ack thread after a while. False: no memory for that, nothing
 * changed. */
bool rh_owed_fly(struct rh_shard *sh, struct rh_owed_item *item, bool tell);
/* One that nobody has any more goes back to those that wait. */
void rh_owed_requeue(struct rh_shard *sh, struct rh_owed_item *item);
/* The end: tells the record thread, which gets the hold; the item is gone. */
void rh_owed_settle(struct rh_shard *sh, struct rh_owed_item *item, enum rh_state state,
                    enum rh_reason reason);

/* ---- owed.c: connections, handing out ---- */

/* The connection's place, as a bit, given if need be. */
uint64_t rh_owed_place(struct rh_owed *o, struct rh_conn *c);
/* The frame of the next attempt, for an item in flight: one use of a handle. NULL: no memory. */
struct rh_handle *rh_owed_handle(struct rh_shard *sh, const struct rh_owed_item *item);

/* ---- owed_room.c: shares of rooms' messages ---- */

/* One that waits, and that a join or a replay under way may still bring in its place: it is passed
 * over. The user is marked when that has ended. */
bool rh_owed_share_held(const struct rh_shard *sh, const struct rh_owed_item *item);
/* As rh_owed_handle, of a share: to be sent outside of its room's order, with `epoch` if that is not the
 * room's present one as far as this shard knows. NULL: no memory. */
struct rh_handle *rh_owed_share_frame(struct rh_shard *sh, const struct rh_owed_item *item);

#endif
