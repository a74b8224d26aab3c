/* proto/envelope.h - the messages of a client: the envelope, and the parameters inside its data.
 *
 * The envelope is described in PROTOCOL.md section 3. A message is parsed in one pass that
 * validates every byte, inside `data` too, so that nothing invalid is ever forwarded; what comes
 * out are spans of the message.
 *
 * Own keys   type, event, request_id, data, code, message, error, timestamp, trace_id, compared
 *            after unescaping. One of them twice makes the message invalid; every other field is
 *            ignored, however often it stands there. Of its own keys a client needs the first
 *            four; the rest may have any value.
 * Ownership  spans point into the text, which the caller keeps; the one exception is at `event`.
 * Bounds     containers stand at most RH_JSON_DEPTH deep, the envelope being the first; the text
 *            has less than 2^31 bytes and is valid UTF-8 (the WebSocket layer checked it; other
 *            bytes are safe, but go through inside strings).
 * Threads    any; no state. Parsing an envelope allocates nothing, reading parameters only for
 *            data with many unknown members.
 */
#ifndef RH_ENVELOPE_H
#define RH_ENVELOPE_H

#include "proto/json.h"

/* The only types that a client may send. */
enum rh_env_type { RH_ENV_REQUEST, RH_ENV_ACK };

#define RH_EVENT_MAX      64 /* bytes, unescaped */
#define RH_REQUEST_ID_MAX 64 /* bytes, unescaped */

/* What request_id.len can be at most: quotes, and each byte written as an escape. */
#define RH_REQUEST_ID_RAW_MAX RH_JSON_ESCAPED_MAX(RH_REQUEST_ID_MAX)

struct rh_envelope {
    enum rh_env_type type;
    struct rh_span event;          /* unescaped; len 0 in an ack. In the text or in event_text, */
    struct rh_span request_id;     /* raw with quotes, to be echoed byte for byte; len 0: absent */
    struct rh_json data;           /* kind NONE: absent */
    char event_text[RH_EVENT_MAX]; /* so a copy of the struct must not outlive the original */
};

/* Parses and validates a client's text message. RH_EINVAL: it is *invalid* as PROTOCOL.md section 3
 * has it, and *ret_why is a static sentence for the answer. Of ret_env only request_id counts then:
 * it is filled if it can be trusted, that is if the message is one JSON object with exactly one
 * request_id which is well-formed.
 *
 * An event is any string of 1 to 64 bytes; what nobody knows is answered 404, not called invalid.
 * An empty one, or a value that is not a string, is no event. An ack needs none, and one that it
 * has is not looked at. A request_id that is empty or not a string (null, a number) is as invalid
 * as an over-long one, in an ack, too. */
int rh_envelope_parse(const char *at, size_t len, struct rh_envelope *ret_env,
                      const char **ret_why);

/* ---- the members of data, for requests that the server answers itself ---------------------- */

enum rh_param_kind {
    RH_PARAM_STRING,
    RH_PARAM_BOOL,
    RH_PARAM_NUMBER,
    RH_PARAM_OBJECT,
    RH_PARAM_ARRAY,
    RH_PARAM_ANY
};

/* One row per member that a request's data may have: a short list, searched in order. Names are
 * plain bytes without a backslash. */
struct rh_param {
    const char *name;
    uint8_t len;  /* of the name */
    uint8_t kind; /* enum rh_param_kind */
    bool required;
};

#define RH_PARAM_ROW(name, kind, required)                                                         \
    {                                                                                              \
        (name), sizeof(name) - 1, RH_PARAM_##kind, (required)                                      \
    }

/* Reads the members of `data`, which has been validated, into out[] (same order as the rows; kind
 * NONE when absent). Data that is absent reads like {}; any other kind than an object is refused.
 * Unknown members are ignored, but any member that is there twice is refused, known or not,
 * compared after unescaping; members of members may repeat. A null counts as absent for an optional
 * row; for a required one it is a wrong kind, except where RH_PARAM_ANY takes it as a value.
 *
 * RH_EINVAL: why[] has a terminated ASCII sentence that begins with the name of the member, if it
 * is a known one, else with "data" ("to: missing"), cut to why_room. RH_ENOMEM: only with more than
 * 16 unknown members or with escapes in their names; why[] is empty. With n members it takes
 * n log n steps at worst, whatever they are called. */
int rh_params_read(struct rh_json data, const struct rh_param *rows, unsigned count,
                   struct rh_json *out, char *why, size_t why_room);

#endif
