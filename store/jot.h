/* store/jot.h - events of the journal (struct rh_jot, store/journal.h) as bytes.
 *
 * An event is its kind, one byte, and then its fields in a fixed order: small ones as bytes, numbers as
 * varints (seven bits a byte, the lowest first, the top bit set in all but the last), names and text as a
 * length and their bytes. There is one way to write an event: what is not written like that is no event.
 *
 * Threads    any; a struct rh_jot_room belongs to one.
 */
#ifndef RH_JOT_H
#define RH_JOT_H

#include "store/journal.h"

#define RH_JOT_NAME_MAX 255         /* a user, a room, an id */
#define RH_JOT_TEXT_MAX (64u << 20) /* as much as the record thread takes at all */

/* Where decode puts the shares of an event; grows as needed. Zeroed memory is an empty one. */
struct rh_jot_room {
    struct rh_jot_share *shares;
    size_t count; /* that there is room for */
};

void rh_jot_room_fini(struct rh_jot_room *room);

/* Writes it, rh_jot_size(jot) bytes; returns where it ends. Fields that make no sense are an assertion. */
uint8_t *rh_jot_encode(uint8_t *dst, const struct rh_jot *jot);

/* Reads the event that begins at `at`. Returns its bytes (spans lie in them, shares in `room`, both
 * until the next call), RH_EINVAL when there is no event that makes sense, RH_ENOMEM. */
int64_t rh_jot_decode(const uint8_t *at, size_t len, struct rh_jot_room *room,
                      struct rh_jot *ret_jot);

/* Does it make sense, whoever made it? */
bool rh_jot_is_sound(const struct rh_jot *jot);

/* "OWED"; "?" for what is no kind. */
const char *rh_jot_name(unsigned kind);

#endif
