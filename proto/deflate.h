/* proto/deflate.h - permessage-deflate (RFC 7692): what is agreed on, and whole messages in and out.
 *
 * A deflater compresses the payload of one message after the other, an inflater turns them back. One
 * that does not keep its context between messages can serve any number of connections; one that does
 * belongs to one direction of one connection. zlib does the work; its memory comes from core/mem.
 *
 * Threads    any, one call at a time per object.
 * Ownership  objects are the caller's; bytes that come out stay with the object until its next call.
 * Limits     windows of 9 to 15 bits (zlib has no raw deflate with 8); what inflates to more than the
 *            caller's bound is given up at the bound, not behind it.
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

/* What a server is willing to do. */
struct rh_deflate_wish {
    bool takeover; /* keep contexts between messages, where the client lets us */
    uint8_t bits;  /* 9 to 15: the largest window in either direction, as far as we may say */
};

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

/* Looks at one element of Sec-WebSocket-Extensions, e.g. `permessage-deflate; client_max_window_bits`
 * (checked before to be a well-formed extension, RFC 6455 9.1). False: another extension, or one that
 * RFC 7692 5.1 and 7.1 tell to decline (unknown, repeated or malformed parameters). */
bool rh_deflate_offer(struct rh_span offer, const struct rh_deflate_wish *wish,
                      struct rh_deflate_terms *ret_terms);

/* Writes the element that answers it, without a zero; returns its bytes, at most RH_DEFLATE_ANSWER. */
#define RH_DEFLATE_ANSWER 144
size_t rh_deflate_answer(char dst[RH_DEFLATE_ANSWER], const struct rh_deflate_terms *terms);

/* ---- out ---- */

struct rh_deflater;

/* bits 9 to 15, mem_level 1 to 9, level 1 to 9, as zlib means them. `keeps` its context. RH_ENOMEM. */
int rh_deflater_create(unsigned bits, unsigned mem_level, unsigned level, bool keeps,
                       struct rh_deflater **ret_deflater);
void rh_deflater_destroy(struct rh_deflater *d); /* accepts NULL */
/* Compresses one message (RFC 7692 7.2.1). *ret_out is lent until the next call. RH_ENOMEM: the
 * context is fresh again, which every peer understands. */
int rh_deflate(struct rh_deflater *d, const void *in, size_t len, const uint8_t **ret_out,
               size_t *ret_len);
/* The message that was compressed last will not be sent: forgets it (a fresh context). */
void rh_deflate_unsent(struct rh_deflater *d);
size_t rh_deflater_bytes(const struct rh_deflater *d); /* memory that it holds, about */

/* ---- in ---- */

struct rh_inflater;

int rh_inflater_create(unsigned bits, bool keeps, struct rh_inflater **ret_inflater);
void rh_inflater_destroy(struct rh_inflater *z); /* accepts NULL */
/* Inflates one message (RFC 7692 7.2.2), the payload of all its frames; `max` bytes at most may come
 * out. *ret_out is lent until the next call, and may be written to. Blocks with BFINAL are accepted
 * (7.2.3.5). After an error the object is of no more use where it keeps its context. */
int rh_inflate(struct rh_inflater *z, const void *in, size_t len, size_t max, uint8_t **ret_out,
               size_t *ret_len);
/* Gives back an output buffer that one large message has left, if it is over `keep` bytes. */
void rh_inflater_trim(struct rh_inflater *z, size_t keep);
size_t rh_inflater_bytes(const struct rh_inflater *z);

#endif
