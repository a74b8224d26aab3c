/* shard/squeeze.c - what a shard's connections share of compression; the design is in squeeze.h.
 *
 * Bounds     queues count messages by their plain size, whatever is sent in the end; frames of a
 *            connection's own by what they take.
 */
#include "shard/squeeze.h"

#include <string.h>

#include "core/ringhub.h"
#include "proto/ws.h"

#define CONTROL     0x08
#define OPCODE      0x0f
#define BUFFER_KEPT (64 << 10) /* of rh_squeeze.buffer, between two messages */

/* ---- what is held ---- */

void rh_squeeze_hold(struct rh_squeeze *sq, uint64_t *held, uint64_t now)
{
    rh_stat_add(sq->stats, RH_STAT_compression_bytes, now - *held);
    *held = now;
}

static void count_shared(struct rh_squeeze *sq)
{
    uint64_t bytes = sq->buffer.room + (sq->in ? rh_inflater_bytes(sq->in) : 0);

    for (unsigned bits = RH_DEFLATE_BITS_MIN; bits <= RH_DEFLATE_BITS_MAX; bits++)
        bytes += sq->out[bits] ? rh_deflater_bytes(sq->out[bits]) : 0;
    rh_squeeze_hold(sq, &sq->held, bytes);
}

/* ---- life ---- */

void rh_squeeze_trim(struct rh_squeeze *sq)
{
    rh_deflate_out_trim(&sq->buffer, BUFFER_KEPT);
    count_shared(sq);
}

static void drop_deflaters(struct rh_squeeze *sq)
{
    for (unsigned bits = RH_DEFLATE_BITS_MIN; bits <= RH_DEFLATE_BITS_MAX; bits++) {
        rh_deflater_destroy(sq->out[bits]);
        sq->out[bits] = NULL;
    }
    count_shared(sq);
}

void rh_squeeze_config(struct rh_squeeze *sq, const struct rh_config *cfg)
{
    bool same = sq->mem_level == cfg->compression_mem_level && sq->level == cfg->compression_level;

    sq->min_size = cfg->compression_min_size;
    sq->mem_level = (uint8_t)cfg->compression_mem_level;
    sq->level = (uint8_t)cfg->compression_level;
    if (!same)
        drop_deflaters(sq);
}

int rh_squeeze_init(struct rh_squeeze *sq, struct rh_stats *stats, const struct rh_config *cfg)
{
    sq->stats = stats;
    rh_squeeze_config(sq, cfg);
    return rh_map_init(&sq->contexts);
}

void rh_squeeze_fini(struct rh_squeeze *sq)
{
    rh_assert(rh_map_count(&sq->contexts) == 0);
    rh_map_fini(&sq->contexts);
    if (!sq->stats)
        return;
    rh_inflater_destroy(sq->in);
    sq->in = NULL;
    rh_deflate_out_trim(&sq->buffer, 0);
    drop_deflaters(sq);
}

/* ---- frames ---- */

/* Of a frame that is not masked. */
static size_t head_len(const uint8_t *frame)
{
    unsigned len = frame[1] & 0x7f;

    return len < 126 ? 2 : len == 126 ? 4 : 10;
}

static size_t payload_len(const uint8_t *frame)
{
    size_t len = frame[1] & 0x7f, bytes = head_len(frame) - 2;

    if (bytes == 0)
        return len;
    len = 0;
    for (size_t i = 0; i < bytes; i++)
        len = len << 8 | frame[2 + i];
    return len;
}

size_t rh_squeeze_len(const uint8_t *frame)
{
    return head_len(frame) + payload_len(frame);
}

bool rh_squeeze_worth(const struct rh_squeeze *sq, const uint8_t *frame)
{
    return !(frame[0] & CONTROL) && payload_len(frame) >= sq->min_size;
}

/* A compressed frame before it is in one piece: its payload is in rh_squeeze.buffer. */
struct piece {
    uint8_t head[RH_WS_HEAD_MAX];
    size_t head_len;
    size_t len; /* of the whole frame */
};

/* RH_EFULL: it gets no smaller; RH_ENOMEM. */
static int deflate_frame(struct rh_squeeze *sq, struct rh_deflater *d, const uint8_t *frame,
                         struct piece *ret)
{
    size_t head = head_len(frame), len = payload_len(frame);
    int rc = rh_deflate(d, frame + head, len, &sq->buffer);

    if (rc < 0)
        return rc;
    rh_stat_add(sq->stats, RH_STAT_deflates, 1);
    ret->head_len =
        rh_ws_head(ret->head, (frame[0] & OPCODE) | RH_WS_RSV1, true, sq->buffer.len, NULL);
    ret->len = ret->head_len + sq->buffer.len;
    return ret->len < head + len ? RH_OK : RH_EFULL;
}

static void put_piece(const struct rh_squeeze *sq, uint8_t *dst, const struct piece *piece)
{
    memcpy(dst, piece->head, piece->head_len);
    memcpy(dst + piece->head_len, sq->buffer.at, sq->buffer.len);
}

static void add_squeezed(struct rh_squeezed *s, size_t plain, size_t wire)
{
    s->messages++;
    s->plain += plain;
    s->wire += wire;
}

size_t rh_squeeze_deflate(struct rh_squeeze *sq, struct rh_deflater *d, const uint8_t *frame,
                          uint8_t *dst, struct rh_squeezed *squeezed)
{
    size_t plain = payload_len(frame);
    struct piece piece;

    if (deflate_frame(sq, d, frame, &piece) < 0)
        return 0;
    add_squeezed(squeezed, plain, sq->buffer.len);
    put_piece(sq, dst, &piece);
    return piece.len;
}

void rh_squeeze_count(struct rh_squeeze *sq, const struct rh_squeezed *squeezed)
{
    rh_stat_add(sq->stats, RH_STAT_compressed_messages_out, squeezed->messages);
    rh_stat_add(sq->stats, RH_STAT_compressed_plain_bytes_out, squeezed->plain);
    rh_stat_add(sq->stats, RH_STAT_compressed_wire_bytes_out, squeezed->wire);
}

/* ---- without a context: one form for all ---- */

struct rh_deflater *rh_squeeze_deflater(struct rh_squeeze *sq, unsigned bits)
{
    rh_assert(bits >= RH_DEFLATE_BITS_MIN && bits <= RH_DEFLATE_BITS_MAX);
    if (!sq->out[bits])
        rh_deflater_create(bits, sq->mem_level, sq->level, false, &sq->out[bits]);
    return sq->out[bits];
}

/* NULL: no memory. */
static const struct rh_form *make_form(struct rh_squeeze *sq, struct rh_handle *h, unsigned bits)
{
    struct rh_deflater *d = rh_squeeze_deflater(sq, bits);
    struct rh_form *form;
    struct piece piece;
    int rc = d ? deflate_frame(sq, d, rh_msg_frame(h->msg), &piece) : RH_ENOMEM;

    if (rc == RH_ENOMEM)
        return NULL;
    form = rh_handle_add_form(h, bits, rc == RH_OK ? piece.len : 0);
    if (form && rc == RH_OK)
        put_piece(sq, form->bytes, &piece);
    rh_squeeze_trim(sq);
    return form;
}

struct iovec rh_squeeze_frame(struct rh_squeeze *sq, struct rh_handle *h, unsigned bits,
                              struct rh_squeezed *squeezed)
{
    const uint8_t *frame = rh_msg_frame(h->msg);
    const struct rh_form *form = rh_handle_form(h, bits);

    if (!form && rh_squeeze_worth(sq, frame))
        form = make_form(sq, h, bits);
    if (!form || form->len == 0)
        return (struct iovec){(void *)frame, h->msg->frame_len};
    add_squeezed(squeezed, payload_len(frame), payload_len(form->bytes));
    return (struct iovec){(void *)form->bytes, form->len};
}
