/* proto/deflate.h - permessage-deflate (RFC 7692): what is agreed on, and whole messages in and out.
 *
 * A deflater compresses the payload of one message after the other, an inflater turns them back. One
 * that does not keep its context between messages can serve any number of connections; one that does
 * belongs to one direction of one connection. What comes out lies in a buffer that is neither's: a
 * thread needs one for all its deflaters and one for all its inflaters. zlib does the work; its
 * memory comes from core/mem.
 *
 * Threads    any, one call at a time per object.
 * Ownership  objects and buffers are the caller's; what is compressed or inflated is read only, and
 *            must not lie in the buffer that the result goes to (asserted).
 * Limits     windows of 9 to 15 bits (zlib has no raw deflate with 8); messages of RH_DEFLATE_SIZE_MAX
 *            bytes; what inflates to more than the caller's bound is given up at the bound, not
 *            behind it, and the buffer gets one byte more than the bound at most.
 * Errors     RH_ENOMEM; RH_EINVAL: damaged data; RH_EFULL: over the bound.
 */
#ifndef RH_DEFLATE_H
#define RH_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base.h"

#define RH_DEFLATE_BITS_MIN 9
#define RH_DEFLATE_BITS_MAX 15
#define RH_DEFLATE_SIZE_MAX ((size_t)1 << 30)

/* ---- what is agreed on ---- */

/* What a server is willing to do. */
struct rh_deflate_wish {
    bool takeover; /* keep contexts between messages, where the client lets us */
    uint8_t bits;  /* 9 to 15: the largest window in either direction, as far as we may say */
};

/* What a client offers. All zero: the extension without a parameter. */
struct rh_deflate_ask {
    bool server_forgets; /* server_no_context_takeover */
    bool client_forgets; /* client_no_context_takeover */
    uint8_t server_bits; /* server_max_window_bits: 8 to 15; 0: not named */
    uint8_t client_bits; /* client_max_window_bits: 8 to 15; RH_DEFLATE_ANY; 0: not named */
};

#define RH_DEFLATE_ANY 1 /* client_max_window_bits without a value: the server may choose */

/* What was agreed on. All zero: nothing, messages are plain. */
struct rh_deflate_terms {
    uint8_t server_bits; /* window of what the server sends: 8 to 15; 0: no compression at all.
                            * 8: agreed on, but nothing is ever compressed in that direction */
    uint8_t client_bits; /* window of what the client sends: 8 to 15 */
    bool server_keeps;   /* its context, between messages */
    bool client_keeps;
    bool says_server_bits; /* the answer names them */
    bool says_client_bits;
};

#define RH_DEFLATE_TEXT 144 /* what an offer or an answer needs, and a zero */

/* Server: looks at one element of Sec-WebSocket-Extensions, such as
 * `permessage-deflate; client_max_window_bits` (checked before to be a well-formed extension, RFC
 * 6455 9.1). False: another extension, or one that RFC 7692 5.1 and 7.1 tell to decline: parameters
 * that are unknown, repeated, without the value that they need or with one that they can't have.
 * Names are compared as they are written, a quoted value counts as what it quotes. A window below
 * 15 bits is named in the answer, whether or not the client asked for one (7.1.2.1). */
bool rh_deflate_offer(struct rh_span offer, const struct rh_deflate_wish *wish,
                      struct rh_deflate_terms *ret_terms);

/* Server: writes the element that answers it, and a zero; returns its bytes without that. */
size_t rh_deflate_answer(char dst[RH_DEFLATE_TEXT], const struct rh_deflate_terms *terms);

/* Client: writes its offer, and a zero; returns its bytes without that. */
size_t rh_deflate_ask(char dst[RH_DEFLATE_TEXT], const struct rh_deflate_ask *ask);

/* Client: looks at the element (well formed, too) that answers the offer. False: it does not fit, and
 * the client must fail the connection (RFC 7692 5.1): another extension, a parameter that an answer
 * can't have, a larger window than was offered, client_max_window_bits where that was not offered,
 * or the lack of a server_ parameter that was. */
bool rh_deflate_answered(struct rh_span answer, const struct rh_deflate_ask *ask,
                         struct rh_deflate_terms *ret_terms);

/* ---- where messages come out ---- */

/* All zero: empty, without memory. Grows as needed, each time to twice of what it was or more. */
struct rh_deflate_out {
    uint8_t *at;
    size_t len;  /* the message that came out last; 0 after an error */
    size_t room; /* bytes at `at`, which the caller may write to */
};

/* Gives its memory back where that is over `keep` bytes; the message in it is lost then. 0: all. */
void rh_deflate_out_trim(struct rh_deflate_out *out, size_t keep);

/* ---- out ---- */

struct rh_deflater;

/* bits 9 to 15, mem_level 1 to 9, level 1 to 9, as zlib means them. `keeps` its context. RH_ENOMEM. */
int rh_deflater_create(unsigned bits, unsigned mem_level, unsigned level, bool keeps,
                       struct rh_deflater **ret_deflater);
void rh_deflater_destroy(struct rh_deflater *d); /* accepts NULL */
/* Compresses one message (RFC 7692 7.2.1). RH_ENOMEM: as after rh_deflate_unsent. */
int rh_deflate(struct rh_deflater *d, const void *in, size_t len, struct rh_deflate_out *out);
/* The message that was compressed last will not be sent: goes on with a fresh context, which every
 * peer understands. */
void rh_deflate_unsent(struct rh_deflater *d);
size_t rh_deflater_bytes(const struct rh_deflater *d); /* memory that it holds */

/* ---- in ---- */

struct rh_inflater;

/* bits 8 to 15, as agreed on; some peers deflate with 9 where 8 was agreed on, so 8 is taken for 9.
 * One with 15 reads what is made with any. RH_ENOMEM. */
int rh_inflater_create(unsigned bits, bool keeps, struct rh_inflater **ret_inflater);
void rh_inflater_destroy(struct rh_inflater *z); /* accepts NULL */
/* Inflates one message (RFC 7692 7.2.2), the payload of all its frames; `max` bytes at most may come
 * out. Blocks with BFINAL are accepted (7.2.3.4, 7.2.3.5). RH_EINVAL: no deflate data, or data that
 * do not end where 7.2.1 ends them, because a part is missing or too much. After an error the
 * context is fresh: where it is kept, nothing more of that peer can be read. */
int rh_inflate(struct rh_inflater *z, const void *in, size_t len, size_t max,
               struct rh_deflate_out *out);
/* The same in steps of `some` bytes, since a message of nothing but tables costs a hundred times what
 * its bytes do: *at begins with 0 and says how many were read. 1: there is more to do, and until then
 * `out`, whose len is what came so far, and the inflater are this message's. */
int rh_inflate_some(struct rh_inflater *z, const void *in, size_t len, size_t some, size_t *at,
                    size_t max, struct rh_deflate_out *out);
size_t rh_inflater_bytes(const struct rh_inflater *z);

#endif
