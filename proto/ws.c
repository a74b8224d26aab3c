/* proto/ws.c - RFC 6455 from bytes to events, in place.
 *
 * Why this way: most frames are short, masked, final and wholly there. For them rh_ws_feed is a
 * straight line: two bytes looked at, one length compared, one pass that unmasks and at the same
 * time sees whether all is ASCII. Everything else takes feed_any, which knows three things only:
 * a header, a whole control frame, a piece of payload.
 *
 *      IDLE      no message               flags without IN_MESSAGE
 *      IN_FRAME  payload is to come       IN_MESSAGE, left > 0
 *      BETWEEN   a fragment is to come    IN_MESSAGE, left == 0
 *
 *            text, binary: begin_frame                    payload: data_piece
 *      IDLE ---------------------------> IN_FRAME <---------------------------.
 *       ^                                 |  |  '-----------------------------'
 *       |  end of a final frame:          |  | end of another frame: data_piece
 *       |  data_piece                     |  v
 *       '---------------------------------'  BETWEEN ---> IN_FRAME   continuation: begin_frame
 *
 * An empty frame passes through IN_FRAME without a stop.
 * Control frames stand between any two data frames and change nothing of this; CLOSE and every
 * error lead to OVER.
 *
 * Invariants  (1) no flag but DEFLATE: a server, IDLE; then left == 0 and utf8 is between
 *                 characters.
 *             (2) left > 0 only with IN_MESSAGE.
 *             (3) a header is consumed as a whole, a control frame with its payload: what a caller
 *                 keeps is short (RH_WS_TAIL_MAX) and still masked.
 * Limits      24 bytes a connection; sizes have 48 bits (RH_WS_SIZE_MAX fits).
 * Rejected    Keeping unfinished headers in the state: 14 bytes more for every connection, for
 *             what the caller's buffer can hold. Unmasking and checking in two passes: half the
 *             speed (bench/bench_ws.c).
 */
#include "proto/ws.h"

#include <string.h>

#include "core/base.h"
#include "proto/mask.h"

/* flags */
enum {
    CLIENT = 1,
    IN_MESSAGE = 2, /* its first header was read, its last piece not given */
    TEXT = 4,       /* the message is text */
    FIN = 8,        /* the frame being read is the message's last */
    GIVEN = 16,     /* a piece of the message was given: the next is not the first */
    OVER = 32,      /* closed or failed */
    DEFLATE = 64,   /* permessage-deflate was agreed on */
    SQUEEZED = 128  /* the message is compressed */
};

/* first byte: fin, three reserved bits, opcode; second byte: mask, length (5.2) */
#define BIT_FIN  0x80
#define BITS_RSV 0x70 /* RH_WS_RSV1 is one of them */
#define BITS_OP  0x0f
#define OP_CTL   0x08 /* of an opcode: a control frame */
#define BIT_MASK 0x80
#define LEN_16   126
#define LEN_64   127
#define KEY_SIZE 4

struct head {
    uint8_t opcode;
    bool fin;
    bool squeezed;
    uint8_t size;       /* of the header; 0: not all there yet */
    uint16_t code;      /* of an error */
    const char *why;    /* an error, or NULL */
    const uint8_t *key; /* NULL: unmasked */
    uint64_t len;
};

void rh_ws_init(struct rh_ws *ws, enum rh_ws_role role, uint64_t message_size_max)
{
    rh_assert(message_size_max <= RH_WS_SIZE_MAX);
    *ws = (struct rh_ws){.flags = role == RH_WS_CLIENT ? CLIENT : 0, .size_max = message_size_max};
}

void rh_ws_allow_deflate(struct rh_ws *ws)
{
    rh_assert(!(ws->flags & ~(CLIENT | DEFLATE)));
    ws->flags |= DEFLATE;
}

static size_t fail(struct rh_ws *ws, uint16_t code, const char *why, struct rh_ws_event *ret_ev)
{
    ws->flags |= OVER;
    *ret_ev = (struct rh_ws_event){.kind = RH_WS_ERROR, .code = code, .why = why};
    return 0; /* nobody counts any more */
}

/* What is wrong with the first two bytes, or NULL. */
static const char *head_fault(const struct rh_ws *ws, uint8_t byte0, uint8_t byte1)
{
    const uint8_t opcode = byte0 & BITS_OP;

    if (byte0 & BITS_RSV & (ws->flags & DEFLATE ? ~RH_WS_RSV1 : ~0))
        return "reserved bits are set";
    if ((byte0 & RH_WS_RSV1) && (opcode == RH_WS_CONT || opcode & OP_CTL))
        return "only a message's first frame says that it is compressed";
    if ((opcode & ~OP_CTL) > RH_WS_BINARY)
        return "reserved opcode";
    if (!(byte1 & BIT_MASK) && !(ws->flags & CLIENT))
        return "frame is not masked";
    if ((byte1 & BIT_MASK) && (ws->flags & CLIENT))
        return "frame is masked";
    if (opcode & OP_CTL) {
        if (!(byte0 & BIT_FIN))
            return "fragmented control frame";
        if ((byte1 & ~BIT_MASK) > RH_WS_CONTROL_MAX)
            return "control frame over 125 bytes";
    } else {
        if (opcode == RH_WS_CONT && !(ws->flags & IN_MESSAGE))
            return "continuation without a message";
        if (opcode != RH_WS_CONT && (ws->flags & IN_MESSAGE))
            return "new message inside a fragmented one";
    }
    return NULL;
}

/* Reads the extended length, of `size` bytes; false: broken. */
static bool read_length(const uint8_t *at, unsigned size, struct head *head)
{
    uint64_t len = 0;

    for (unsigned i = 0; i < size; i++)
        len = len << 8 | at[i];
    head->code = 1002;
    head->len = len;
    if (len >> 63)
        head->why = "length has its top bit set";
    else if (len < LEN_16 || (size == 8 && len <= UINT16_MAX))
        head->why = "length is not in its shortest form";
    return !head->why;
}

static uint64_t size_max(const struct rh_ws *ws, bool squeezed)
{
    const uint64_t max = ws->size_max;

    return squeezed ? RH_WS_COMPRESSED_MAX(max) : max;
}

/* Each rule speaks as soon as its bytes are there; in the order of the bytes, so that where a
 * stream is cut never changes which rule it is. */
static void read_head(const struct rh_ws *ws, const uint8_t *at, size_t len, struct head *head)
{
    const unsigned key_size = ws->flags & CLIENT ? 0 : KEY_SIZE;
    unsigned size = 2, ext;

    *head = (struct head){0};
    if (len < size)
        return;
    head->code = 1002;
    head->why = head_fault(ws, at[0], at[1]);
    if (head->why)
        return;
    head->opcode = at[0] & BITS_OP;
    head->fin = at[0] & BIT_FIN;
    head->squeezed = at[0] & RH_WS_RSV1;
    head->len = at[1] & ~BIT_MASK;
    ext = head->len == LEN_16 ? 2 : head->len == LEN_64 ? 8 : 0;
    if (ext) {
        size += ext;
        if (len < size || !read_length(at + 2, ext, head))
            return;
    }
    if (!(head->opcode & OP_CTL) &&
        head->len > (head->opcode == RH_WS_CONT ? ws->room : size_max(ws, head->squeezed))) {
        head->code = 1009;
        head->why = "message is too big";
        return;
    }
    if (len < size + key_size)
        return;
    head->key = key_size ? at + size : NULL;
    head->size = (uint8_t)(size + key_size);
}

static void begin_frame(struct rh_ws *ws, const struct head *head)
{
    if (head->opcode != RH_WS_CONT) {
        ws->flags |=
            IN_MESSAGE | (head->opcode == RH_WS_TEXT ? TEXT : 0) | (head->squeezed ? SQUEEZED : 0);
        ws->room = size_max(ws, head->squeezed);
    }
    if (head->fin)
        ws->flags |= FIN;
    ws->room -= head->len;
    ws->left = head->len;
    if (head->key)
        memcpy(ws->key, head->key, KEY_SIZE);
}

/* The key's next byte comes first again after `by` bytes of payload. */
static void turn_key(struct rh_ws *ws, size_t by)
{
    uint8_t key[KEY_SIZE];

    memcpy(key, ws->key, KEY_SIZE);
    for (size_t i = 0; i < KEY_SIZE; i++)
        ws->key[i] = key[(i + by) & 3];
}

/* What is wrong with the next piece of a text, or NULL. */
static const char *text_fault(struct rh_ws *ws, const uint8_t *at, size_t len, bool last)
{
    if (!rh_utf8_feed(&ws->utf8, at, len))
        return "text is not UTF-8";
    return last && !rh_utf8_done(&ws->utf8) ? "text ends inside a character" : NULL;
}

/* Gives out what there is of the frame being read; len may be 0 for an empty frame only. */
static size_t data_piece(struct rh_ws *ws, uint8_t *at, size_t len, struct rh_ws_event *ret_ev)
{
    const uint64_t left = ws->left;
    const size_t size = len < left ? len : (size_t)left;
    const bool last = size == left && (ws->flags & FIN), text = ws->flags & TEXT;
    const bool squeezed = ws->flags & SQUEEZED;
    bool ascii = false;

    if (!(ws->flags & CLIENT)) {
        ascii = rh_mask_ascii(at, size, ws->key, 0);
        if (size < left)
            turn_key(ws, size);
    }
    if (text && !squeezed && !(ascii && rh_utf8_done(&ws->utf8))) {
        const char *why = text_fault(ws, at, size, last);

        if (why)
            return fail(ws, 1007, why, ret_ev);
    }
    *ret_ev = (struct rh_ws_event){.kind = RH_WS_DATA,
                                   .opcode = text ? RH_WS_TEXT : RH_WS_BINARY,
                                   .first = !(ws->flags & GIVEN),
                                   .last = last,
                                   .compressed = squeezed,
                                   .data = at,
                                   .len = size};
    ws->left = left - size;
    ws->flags = last ? ws->flags & (CLIENT | DEFLATE) : ws->flags | GIVEN;
    return size;
}

/* A whole control frame. */
static size_t control(struct rh_ws *ws, const struct head *head, uint8_t *at,
                      struct rh_ws_event *ret_ev)
{
    const size_t len = (size_t)head->len;
    struct rh_ws_event ev = {.kind = RH_WS_PONG, .data = at, .len = len};

    if (head->key)
        rh_mask(at, at, len, head->key, 0);
    if (head->opcode == RH_WS_OP_PING)
        ev.kind = RH_WS_PING;
    if (head->opcode == RH_WS_OP_CLOSE) {
        ev.kind = RH_WS_CLOSE;
        ev.code = RH_WS_NO_CODE;
        if (len == 1)
            return fail(ws, 1002, "close frame of one byte", ret_ev);
        if (len >= 2) {
            ev.code = (uint16_t)(at[0] << 8 | at[1]);
            ev.data = at + 2;
            ev.len = len - 2;
            if (!rh_ws_close_code_ok(ev.code))
                return fail(ws, 1002, "close code that may not be sent", ret_ev);
            if (!rh_utf8_valid(ev.data, ev.len))
                return fail(ws, 1007, "close reason is not UTF-8", ret_ev);
        }
        ws->flags |= OVER;
    }
    *ret_ev = ev;
    return len;
}

/* Every frame but those that rh_ws_feed does itself. */
static __attribute__((noinline)) size_t feed_any(struct rh_ws *ws, uint8_t *buf, size_t len,
                                                 struct rh_ws_event *ret_ev)
{
    size_t used = 0;

    while (!ws->left) {
        struct head head;

        read_head(ws, buf + used, len - used, &head);
        if (head.why)
            return fail(ws, head.code, head.why, ret_ev);
        if (!head.size)
            goto more;
        if (head.opcode & OP_CTL) {
            if (len - used - head.size < head.len)
                goto more;
            used += head.size;
            return used + control(ws, &head, buf + used, ret_ev);
        }
        begin_frame(ws, &head);
        used += head.size;
        if (!head.len && (head.fin || !(ws->flags & GIVEN)))
            return used + data_piece(ws, buf + used, 0, ret_ev);
    }
    if (used < len)
        return used + data_piece(ws, buf + used, len - used, ret_ev);
more:
    *ret_ev = (struct rh_ws_event){.kind = RH_WS_MORE};
    return used;
}

size_t rh_ws_feed(struct rh_ws *ws, uint8_t *buf, size_t len, struct rh_ws_event *ret_ev)
{
    enum { HEAD = 2 + KEY_SIZE };

    rh_assert(!(ws->flags & OVER));
    if (rh_likely((ws->flags & ~DEFLATE) == 0 && len >= HEAD)) {
        const uint8_t opcode = buf[0] ^ BIT_FIN; /* without fin, or with reserved bits: over 15 */
        const uint8_t size = buf[1] ^ BIT_MASK;  /* without mask: over 127 */
        const bool text = opcode == RH_WS_TEXT;
        uint8_t *data = buf + HEAD;

        if (rh_likely((text || opcode == RH_WS_BINARY) && size < LEN_16 && size <= len - HEAD &&
                      size <= ws->size_max)) {
            if (!rh_mask_ascii(data, size, buf + 2, 0) && text) {
                const char *why = text_fault(ws, data, size, true);

                if (why)
                    return fail(ws, 1007, why, ret_ev);
            }
            *ret_ev = (struct rh_ws_event){.kind = RH_WS_DATA,
                                           .opcode = opcode,
                                           .first = true,
                                           .last = true,
                                           .data = data,
                                           .len = size};
            return (size_t)HEAD + size;
        }
    }
    return feed_any(ws, buf, len, ret_ev);
}

size_t rh_ws_head(uint8_t *dst, uint8_t opcode, bool fin, uint64_t len,
                  const uint8_t *mask_key_or_NULL)
{
    const uint8_t mask = mask_key_or_NULL ? BIT_MASK : 0;
    size_t size = 2;

    rh_assert((opcode & ~RH_WS_RSV1) <= BITS_OP && !(len >> 63));
    dst[0] = (fin ? BIT_FIN : 0) | opcode;
    if (len < LEN_16) {
        dst[1] = mask | (uint8_t)len;
    } else {
        const unsigned ext = len <= UINT16_MAX ? 2 : 8;

        dst[1] = mask | (ext == 2 ? LEN_16 : LEN_64);
        for (unsigned i = 0; i < ext; i++)
            dst[2 + i] = (uint8_t)(len >> 8 * (ext - 1 - i));
        size += ext;
    }
    if (mask_key_or_NULL) {
        memcpy(dst + size, mask_key_or_NULL, KEY_SIZE);
        size += KEY_SIZE;
    }
    return size;
}

bool rh_ws_close_code_ok(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

_Static_assert(sizeof(struct rh_ws) == 24, "part of every connection");
_Static_assert(RH_WS_TAIL_MAX >= 2 + KEY_SIZE + RH_WS_CONTROL_MAX - 1, "a control frame but one");
