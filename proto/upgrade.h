/* proto/upgrade.h - the WebSocket opening handshake (RFC 6455 section 4), both ends, without I/O.
 *
 * The server parses a head (proto/http1.h), asks rh_upgrade_check and answers with
 * rh_upgrade_response or a refusal; who the user is, which paths there are and which origins are
 * welcome is decided elsewhere. The client end serves the load tool.
 *
 * Threads    no state: any.
 * Errors     an HTTP status to refuse with, and a static sentence that says why.
 */
#ifndef RH_UPGRADE_H
#define RH_UPGRADE_H

#include "proto/deflate.h"
#include "proto/http1.h"

#define RH_UPGRADE_OFFERS_MAX 32 /* subprotocols in one offer */

/* What a 426 has to say beside its body (RFC 9110 15.5.22, RFC 6455 4.4); for rh_http_response. */
#define RH_UPGRADE_426_FIELDS                                                                      \
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"

struct rh_upgrade {
    char accept[28];                 /* Sec-WebSocket-Accept, without a zero */
    struct rh_span subprotocol;      /* chosen; len 0: none is named in the answer. Static text */
    struct rh_deflate_terms deflate; /* all zero: messages are plain */
    char trace_id[32];               /* lower-case hex, without a zero; if has_trace */
    bool has_trace;
};

/* Checks RFC 6455 4.2.1 on a parsed head. Returns 0, or the status to refuse with:
 *   405  not GET
 *   426  no "websocket" in Upgrade (a plain GET), HTTP/1.0, or one Sec-WebSocket-Version that
 *        isn't 13
 *   400  no "upgrade" in Connection; a body; an Expect; Sec-WebSocket-Version missing or
 *        repeated; Sec-WebSocket-Key missing, repeated or not the base64 of 16 bytes (as strict
 *        as RFC 4648 3.5 allows: the four bits left over are zero); a malformed list of subprotocols
 *        (no token, the same one twice, more than RH_UPGRADE_OFFERS_MAX) or of extensions
 *   500  libcrypto had no memory
 * Of subprotocols "ringhub.v1" is chosen where it is offered, else none. Extensions are checked for
 * their syntax (RFC 6455 9.1), whatever they are. With a wish, the first permessage-deflate among
 * them that can be accepted is (RFC 7692 5.1); without one, or where there is none, the handshake goes
 * on without. */
unsigned rh_upgrade_check(const struct rh_http_head *head,
                          const struct rh_deflate_wish *wish_or_NULL, struct rh_upgrade *ret_up,
                          const char **ret_why);

/* Writes the 101; returns its bytes, or 0 if `room` is not larger than that. */
size_t rh_upgrade_response(char *dst, size_t room, const struct rh_upgrade *up);

/* The trace id of the request's traceparent (W3C Trace Context, version 00 and what later versions
 * keep of it). False: none, several, or malformed, which is ignored as that standard asks. */
bool rh_upgrade_trace(const struct rh_http_head *head, char ret_trace_id[32]);

/* May this request come from a page's script: true without Origin (not a browser), or when the one
 * Origin is the request's own host and port. http, https, ws and wss count by their default ports;
 * a Host without a port means the one of Origin's scheme, since TLS may end in a proxy in front
 * of us. "null", user information, a path or anything else is false. */
bool rh_origin_same(const struct rh_http_head *head);

/* Is the request's one Origin the `entry` of a list: "*", or scheme://host[:port], compared without
 * regard to case and with default ports filled in. */
bool rh_origin_listed(const struct rh_http_head *head, const char *entry);

/* Client: writes the request, which offers no subprotocols and, with an ask, permessage-deflate.
 * Returns its bytes, or 0 if `room` is not larger than that. */
size_t rh_upgrade_request(char *dst, size_t room, const char *host, const char *path,
                          const char key24[24], const struct rh_deflate_ask *ask_or_NULL);

/* Client: looks for the answer's whole head. Returns its length if it is a 101 that fits the request,
 * 0 for "need more", -(status) if it is another answer, -1 if it is malformed, over 16 KiB, or
 * accepts what was not offered (RFC 7692 5.1, too). *ret_terms (NULL where nothing was asked for)
 * are all zero where the server is without permessage-deflate. */
int rh_upgrade_answer(const char *buf, size_t len, const char key24[24],
                      const struct rh_deflate_ask *ask_or_NULL, struct rh_deflate_terms *ret_terms);

#endif
