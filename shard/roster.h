/* shard/roster.h - the members of a room in the order in which they joined.
 *
 * For pages: each member has a number (rh_member.ord) that is larger than all before it, and a page
 * begins behind the number that the page before ended with, whoever has left meanwhile.
 *
 * Threads    the room's home.
 * Ownership  members stay the caller's. An empty roster is NULL, and needs no memory.
 * Bounds     16 bytes a member, up to eight times that while many leave. Finding takes a binary
 *            search; adding and deleting that, and a copy of all now and then: amortised O(1).
 */
#ifndef RH_ROSTER_H
#define RH_ROSTER_H

#include <stdint.h>

struct rh_member;
struct rh_roster;
struct rh_text;

/* At the end: its ord has to be larger than that of all that were ever in it. RH_ENOMEM. */
int rh_roster_add(struct rh_roster **roster, struct rh_member *member);
void rh_roster_del(struct rh_roster **roster, const struct rh_member *member); /* is in it */
void rh_roster_fini(struct rh_roster **roster); /* accepts NULL in it */

/* The first one whose ord is larger; NULL: there is none. */
struct rh_member *rh_roster_after(const struct rh_roster *roster, uint64_t ord);

/* {"items":[{"user":"ann","user_type":"","since":ms,"devices":n},..],"next":"123"}: at most `limit`
 * of those whose ord is larger; `next` is the last one's ord, or null if nobody is behind it. NULL:
 * no memory. */
struct rh_text *rh_roster_page(const struct rh_roster *roster, uint64_t ord, uint32_t limit);

#endif
