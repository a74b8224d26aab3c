/* proto/ws.h - WebSocket frames and messages (RFC 6455), out of a caller's buffer and back.
 *
 * The reader turns bytes into events: pieces of messages, control frames, the end. It allocates
 * nothing and copies nothing; payload is unmasked where it lies, and an event points there. RSV bits
 * must be zero (5.2), but for RSV1 where permessage-deflate was agreed on (rh_ws_allow_deflate): it
 * says that a message is compressed. Such a message is given out as it came, compressed; inflating
 * it (proto/deflate.h), and then its size and its UTF-8, are the caller's.
 *
 * Threads    one call at a time per state; the thread that owns the connection.
 * Ownership  an event's data lies in the fed buffer and is the caller's; nothing is kept.
 * Limits     RH_WS_TAIL_MAX bytes kept by the caller between two calls; message_size_max bytes in
 *            a message, over all its fragments, RH_WS_COMPRESSED_MAX of that in a compressed one, since
 *            what does not compress gets longer; control payload 125 bytes (5.5). The number of
 *            fragments has no bound here, as it costs nothing here.
 * Errors     an event RH_WS_ERROR with the close code that the peer should get; the first is final.
 *
 * Checked, with the code that a breach gives:
 *   1002  reserved bits, RSV1 on other than a message's first frame (RFC 7692 6.1), reserved opcodes, a frame of the wrong side masked, a length that is not
 *         in its shortest form or has its top bit set (5.2); a control frame that is fragmented or
 *         over 125 bytes (5.5); a continuation of nothing, a message begun inside another (5.4); a
 *         close frame of one byte or with a code that may not be sent (5.5.1, 7.4)
 *   1007  text, if it is not compressed, or a close reason that is not UTF-8 (8.1): in the call that brings the byte which
 *         makes it certain, in whatever piece or fragment, and at the end of a text that ends
 *         inside a character; the piece with that byte is not given out
 *   1009  a message over message_size_max: when the header that announces it is there, before its
 *         payload is
 */
#ifndef RH_WS_H
#define RH_WS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/utf8.h"

enum rh_ws_kind { RH_WS_MORE, RH_WS_DATA, RH_WS_PING, RH_WS_PONG, RH_WS_CLOSE, RH_WS_ERROR };

enum {
    RH_WS_CONT = 0,
    RH_WS_TEXT = 1,
    RH_WS_BINARY = 2,
    RH_WS_OP_CLOSE = 8,
    RH_WS_OP_PING = 9,
    RH_WS_OP_PONG = 10
};

enum rh_ws_role {
    RH_WS_SERVER, /* what comes in must be masked */
    RH_WS_CLIENT  /* must not be masked */
};

#define RH_WS_HEAD_MAX    14                  /* 2 + 8 of length + 4 of key */
#define RH_WS_CONTROL_MAX 125                 /* payload of a control frame */
#define RH_WS_TAIL_MAX    139                 /* an unfinished header or control frame */
#define RH_WS_SIZE_MAX    ((uint64_t)1 << 40) /* of message_size_max */
#define RH_WS_NO_CODE     1005                /* a close frame without a code (7.4.1) */
#define RH_WS_RSV1        0x40                /* beside an opcode: the message is compressed */

/* What a compressed message may have, where one that is not may have `size_max`. */
#define RH_WS_COMPRESSED_MAX(size_max) ((size_max) + (size_max) / 1024 + 256)

/* Of the connection; the fields are ws.c's. Packed, as a million of them are held. */
struct rh_ws {
    uint8_t flags;
    struct rh_utf8 utf8;    /* of the text being read */
    uint64_t size_max : 48; /* of a message */
    uint64_t left : 48;     /* of the data frame being read, not given out yet */
    uint64_t room : 48;     /* what further fragments of the message may announce */
    uint8_t key[4];         /* of that frame, its next byte first */
} __attribute__((packed, aligned(8)));

struct rh_ws_event {
    uint8_t kind;    /* enum rh_ws_kind */
    uint8_t opcode;  /* DATA: of the message, RH_WS_TEXT or RH_WS_BINARY, in each of its pieces */
    bool first;      /* DATA: its message begins here */
    bool last;       /* DATA: and ends here; both: the whole message */
    bool compressed; /* DATA: of the message, in each of its pieces */
    uint16_t code;   /* CLOSE: the peer's, RH_WS_NO_CODE without one; ERROR: 1002, 1007, 1009 */
    uint8_t *data;   /* unmasked; PING, PONG: the whole payload; CLOSE: the reason, valid UTF-8 */
    size_t len;      /* may be 0 */
    const char *why; /* ERROR: a few words, static */
};

/* message_size_max: at most RH_WS_SIZE_MAX; 0 allows empty messages only. Nothing to fini. */
void rh_ws_init(struct rh_ws *ws, enum rh_ws_role role, uint64_t message_size_max);

/* permessage-deflate was agreed on; between two messages. It counts in both directions alike, so
 * a client calls it, too. */
void rh_ws_allow_deflate(struct rh_ws *ws);

/* A new limit, for messages that begin from now on. */
static inline void rh_ws_set_size_max(struct rh_ws *ws, uint64_t message_size_max)
{
    ws->size_max = message_size_max & (((uint64_t)1 << 48) - 1);
}

/* Consumes bytes from the front of buf, returns how many, and fills one event; call it again with
 * the rest until that is RH_WS_MORE.
 *
 * RH_WS_MORE   there is no event in what is left; keep it (RH_WS_TAIL_MAX at most) and present it
 *              again, unchanged, directly in front of the bytes that follow. Consumed may be > 0.
 * RH_WS_DATA   payload never waits: what is there is given out, as pieces of a message. An empty
 *              frame that begins or ends a message gives an empty piece; an empty fragment in its
 *              middle gives none.
 * RH_WS_PING, RH_WS_PONG, RH_WS_CLOSE   always whole, also between the pieces of a message.
 *
 * After RH_WS_CLOSE and RH_WS_ERROR the state takes no more: asserted. What is left of buf is then
 * of no use (some of it may have been unmasked). */
size_t rh_ws_feed(struct rh_ws *ws, uint8_t *buf, size_t len, struct rh_ws_event *ret_ev);

/* Writes the header of a frame with len bytes of payload (below 2^63) to dst, which has
 * RH_WS_HEAD_MAX bytes, and returns its size: 2, 4 or 10, and 4 more with a key. The opcode may have
 * RH_WS_RSV1 with it, on the first frame of a compressed message. A server passes
 * no key; a client passes one and masks the payload with it (rh_mask, phase 0). */
size_t rh_ws_head(uint8_t *dst, uint8_t opcode, bool fin, uint64_t len,
                  const uint8_t *mask_key_or_NULL);

/* True for codes that may stand in a close frame: 1000 to 1003, 1007 to 1014 (RFC 6455 7.4.1 and
 * the IANA registry; 1004, 1005, 1006, 1015 are reserved), 3000 to 4999 (7.4.2). */
bool rh_ws_close_code_ok(unsigned code);

#endif
