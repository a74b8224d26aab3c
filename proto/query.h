/* proto/query.h - query strings, percent encoding, and which names users and rooms may have.
 *
 * A query is what stands behind '?' in a request target: "a=1&b=%20". '+' is a plus sign, never a
 * space (PROTOCOL.md section 2; that rule belongs to HTML forms). Spans of names and values are
 * not decoded: whoever splits a value further (rooms=a,b) does so before decoding.
 *
 * Threads    no state: any.
 * Ownership  spans point into the query that was given.
 */
#ifndef RH_QUERY_H
#define RH_QUERY_H

#include "core/base.h"

/* Walks the parameters of *rest; false at the end. "a" has an empty value, "=1" an empty name;
 * nothing between two '&' is no parameter. */
bool rh_query_next(struct rh_span *rest, struct rh_span *ret_name, struct rh_span *ret_value);

/* The value of the first parameter whose decoded name equals `name`; false when there is none. A
 * name with a broken escape equals nothing. *ret_more: the name occurs again (callers refuse
 * duplicates of parameters that say who somebody is); set in either case. */
bool rh_query_find(struct rh_span query, const char *name, struct rh_span *ret_value,
                   bool *ret_more);

/* Decodes percent escapes into dst (`room` bytes; may be where `in` lies). Returns the length, or
 * -1: a broken escape, or it does not fit. What was written until then means nothing. */
int rh_percent_decode(char *dst, size_t room, struct rh_span in);

#define RH_NAME_MAX 128

/* May a user or a room be called so: 1 to RH_NAME_MAX bytes of valid UTF-8 without control
 * characters (C0, DEL, and C1, U+0080 to U+009F)? */
bool rh_name_ok(const char *at, size_t len);

#define RH_EPOCH_MAX    32
#define RH_ROOM_SEQ_MAX ((1ull << 53) - 1)

/* May the life of a room be called so: 1 to RH_EPOCH_MAX of A-Z a-z 0-9 - _ */
bool rh_epoch_ok(struct rh_span text);

/* One room of a list such as "a,b@12@EPOCH" (PROTOCOL.md section 2): the list is split at its commas
 * and each item at its @ before the name is percent-decoded. */
struct rh_wish {
    bool has_since, has_epoch; /* "b@12@EPOCH" has both, "b@@EPOCH" the second one */
    uint8_t len;               /* of the name */
    uint64_t since;            /* at most RH_ROOM_SEQ_MAX */
    struct rh_span epoch;      /* in the list */
    char name[RH_NAME_MAX];
};

/* Takes the next one off *rest. 1: *ret is it; 0: there is none any more; -1: malformed (an empty item,
 * a bad name, number or epoch), and *rest means nothing. A list begins with one item at least; behind
 * the last one rest->at is NULL. */
int rh_wish_next(struct rh_span *rest, struct rh_wish *ret);

#endif
