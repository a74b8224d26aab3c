/* tools/load/envelope.h - what ringhub says, as far as the tool looks at it.
 *
 * A text is validated as JSON, then walked once for the envelope's members and once for those of
 * its data: no copy, no allocation.
 *
 * Threads    any; load_answer_book that of the connection.
 * Ownership  all values point into the text.
 */
#ifndef LOAD_ENVELOPE_H
#define LOAD_ENVELOPE_H

#include "proto/json.h"
#include "tools/load/load.h"

/* The members that the tool looks at; kind RH_JSON_NONE where they are missing. */
struct load_envelope {
    struct rh_json type, event, request_id, code, error, data;
};

struct load_body {
    struct rh_json id, from, content, ack, attempt, status, room, seq, code;
    struct rh_json session, epoch, missed, from_seq, to_seq, count; /* of what is told */
    struct rh_json recipients, acknowledged;
};

/* False: not one JSON object. */
bool load_envelope_read(struct rh_span text, struct load_envelope *ret);
/* Without an object all members are missing. */
void load_body_read(struct rh_json data, struct load_body *ret);

bool load_json_is(struct rh_json value, const char *plain); /* a string, and this one */
bool load_envelope_is(const struct load_envelope *e, const char *type, const char *event);

bool load_digits_read(struct rh_json v, uint64_t *ret); /* a string of digits, up to 2^48 */

/* Reads a text and gives it to the mode's on_answer or on_notify; what is neither is counted. */
void load_envelope_take(struct load_worker *w, struct load_conn *c, struct rh_span text);
/* The same with one that was read. */
void load_envelope_book(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                        struct rh_span text);

/* Counts something that nobody sent or asked for, and shows it. */
void load_unexpected(struct load_worker *w, const struct load_conn *c, const char *what,
                     struct rh_span text);

/* Books the answer to a request of this connection. `good`: it says what it should, if it is a
 * response with code 200. True: the server refused request `ret_seq`, which is counted. */
bool load_answer_book(struct load_worker *w, struct load_conn *c, const struct load_envelope *e,
                      bool good, struct rh_span text, uint64_t *ret_seq);

#endif
