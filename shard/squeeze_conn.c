/* shard/squeeze_conn.c - permessage-deflate on a connection: contexts, own frames, what comes in.
 *
 * Why messages are inflated as a whole: it costs one inflater for all connections instead of one for
 * each that is in the middle of a message, and the bound on what comes out is known from the start.
 *
 * A connection with a context of its own (compression.context_takeover) compresses what leaves, in the
 * order in which it leaves: the send that outq.c has described is walked frame by frame, and packed
 * into a run of bytes that flies in its place. Nothing may be compressed and then not be sent.
 *
 * Ownership  contexts hang in a map by slot, since few connections have one, and go with the slot.
 * Bounds     A run is never larger than what it was packed of.
 */
#include <string.h>

#include "core/mem.h"
#include "proto/utf8.h"
#include "shard/shard_int.h"

/* Of a connection that keeps a context in either direction. */
struct context {
    struct rh_map_node node; /* struct rh_squeeze.contexts, by slot */
    struct rh_deflater *out;
    struct rh_inflater *in;
    uint8_t *run;      /* that flies; or NULL */
    uint64_t run_room; /* its bytes */
    uint64_t held;     /* bytes of all that */
    uint8_t out_bits;  /* 0: nothing is compressed with a context */
    uint8_t in_bits;   /* 0: what comes needs none */
};

static void count_context(struct rh_squeeze *sq, struct context *ctx)
{
    rh_squeeze_hold(sq, &ctx->held,
                    sizeof(*ctx) + ctx->run_room + (ctx->out ? rh_deflater_bytes(ctx->out) : 0) +
                        (ctx->in ? rh_inflater_bytes(ctx->in) : 0));
}

/* ---- own frames, without a context ---- */

size_t rh_squeeze_own(struct rh_shard *sh, struct rh_conn *c, uint8_t *frame, size_t len)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct rh_squeezed squeezed = {0};
    struct rh_deflater *d =
        rh_squeeze_worth(sq, frame) ? rh_squeeze_deflater(sq, c->squeeze_bits) : NULL;
    size_t squeezed_len = d ? rh_squeeze_deflate(sq, d, frame, frame, &squeezed) : 0;

    if (d) {
        sq->work += len;
        rh_squeeze_trim(sq);
    }
    if (!squeezed_len)
        return len;
    rh_squeeze_count(sq, &squeezed);
    return squeezed_len;
}

/* ---- with a context: what leaves, as it leaves ---- */

static struct context *find_context(struct rh_squeeze *sq, const struct rh_conn *c)
{
    struct rh_map_node *node = rh_map_first(&sq->contexts, c->slot);

    rh_assert(node);
    return rh_container_of(node, struct context, node);
}

static struct context *context_create(struct rh_squeeze *sq, const struct rh_conn *c,
                                      const struct rh_deflate_terms *terms)
{
    struct context *ctx = rh_mem_zalloc(sizeof(*ctx));

    if (!ctx)
        return NULL;
    if (terms->server_keeps && terms->server_bits >= RH_DEFLATE_BITS_MIN)
        ctx->out_bits = terms->server_bits;
    if (terms->client_keeps)
        ctx->in_bits = terms->client_bits;
    rh_map_add(&sq->contexts, &ctx->node, c->slot);
    count_context(sq, ctx);
    return ctx;
}

static bool any_worth_it(const struct rh_squeeze *sq, const struct iovec *iov, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *at = iov[i].iov_base, *end = at + iov[i].iov_len;

        if (iov[i].iov_len < sq->min_size)
            continue;
        for (; at < end; at += rh_squeeze_len(at))
            if (rh_squeeze_worth(sq, at))
                return true;
    }
    return false;
}

/* Room for all that flies, and what compresses it. False: no memory. */
static bool begin_run(struct rh_squeeze *sq, struct context *ctx, const struct iovec *iov,
                      unsigned count)
{
    size_t room = 0;

    if (!ctx->out &&
        rh_deflater_create(ctx->out_bits, sq->mem_level, sq->level, true, &ctx->out) < 0)
        return false;
    for (unsigned i = 0; i < count; i++)
        room += iov[i].iov_len;
    ctx->run = rh_mem_alloc(room);
    ctx->run_room = ctx->run ? room : 0;
    return ctx->run != NULL;
}

/* One frame, compressed if it may be; returns its bytes. What was compressed in vain is not sent, and
 * nothing that follows may refer to it. */
static size_t pack_frame(struct rh_squeeze *sq, struct context *ctx, uint8_t *dst,
                         const uint8_t *frame, struct rh_squeezed *squeezed)
{
    size_t len;

    if (rh_squeeze_worth(sq, frame)) {
        len = rh_squeeze_deflate(sq, ctx->out, frame, dst, squeezed);
        if (len)
            return len;
        rh_deflate_unsent(ctx->out);
    }
    len = rh_squeeze_len(frame);
    memcpy(dst, frame, len);
    return len;
}

static size_t pack(struct rh_squeeze *sq, struct context *ctx, const struct iovec *iov,
                   unsigned count)
{
    struct rh_squeezed squeezed = {0};
    size_t used = 0;

    for (unsigned i = 0; i < count; i++) {
        const uint8_t *at = iov[i].iov_base, *end = at + iov[i].iov_len;

        for (; at < end; at += rh_squeeze_len(at))
            used += pack_frame(sq, ctx, ctx->run + used, at, &squeezed);
        rh_assert(at == end); /* a piece ends with a frame */
    }
    rh_squeeze_count(sq, &squeezed);
    rh_squeeze_trim(sq);
    return used;
}

/* Gives back what the run did not need. */
static void trim_run(struct context *ctx, size_t used)
{
    uint8_t *less = used < ctx->run_room ? rh_mem_realloc(ctx->run, used) : NULL;

    if (!less)
        return;
    ctx->run = less;
    ctx->run_room = used;
}

unsigned rh_squeeze_pack(struct rh_shard *sh, struct rh_conn *c, unsigned count)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct context *ctx = find_context(sq, c);
    size_t used;

    if (!ctx->out_bits || !any_worth_it(sq, sh->iov, count) || !begin_run(sq, ctx, sh->iov, count))
        return count;
    used = pack(sq, ctx, sh->iov, count);
    trim_run(ctx, used);
    count_context(sq, ctx);
    sh->iov[0] = (struct iovec){ctx->run, used};
    rh_outq_packed(c->out, used);
    return 1;
}

void rh_squeeze_sent(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct context *ctx = find_context(sq, c);

    rh_mem_free(ctx->run);
    ctx->run = NULL;
    ctx->run_room = 0;
    count_context(sq, ctx);
}

/* ---- life of a connection ---- */

bool rh_squeeze_wish(const struct rh_shard *sh, struct rh_deflate_wish *ret_wish)
{
    ret_wish->takeover = sh->cfg->compression_context_takeover;
    ret_wish->bits = (uint8_t)sh->cfg->compression_window_bits;
    return sh->cfg->compression_enabled;
}

bool rh_squeeze_begin(struct rh_shard *sh, struct rh_conn *c, const struct rh_deflate_terms *terms)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;

    if (!terms->server_bits)
        return true;
    rh_conn_flush(sh, c); /* the 101 is no frame */
    rh_ws_allow_deflate(&c->ws);
    c->inflates = true;
    if (terms->server_keeps || terms->client_keeps)
        c->has_context = context_create(sq, c, terms) != NULL;
    if ((terms->server_keeps || terms->client_keeps) && !c->has_context) {
        rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
        rh_conn_close(sh, c, 1013, "out of memory");
        return false;
    }
    if (!terms->server_keeps && terms->server_bits >= RH_DEFLATE_BITS_MIN)
        c->squeeze_bits = terms->server_bits & 15;
    if (c->out)
        c->out->bits = c->squeeze_bits;
    return true;
}

void rh_squeeze_end(struct rh_shard *sh, struct rh_conn *c)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct context *ctx = find_context(sq, c);

    c->has_context = false;
    rh_map_del(&sq->contexts, &ctx->node);
    rh_squeeze_hold(sq, &ctx->held, 0);
    rh_deflater_destroy(ctx->out);
    rh_inflater_destroy(ctx->in);
    rh_mem_free(ctx->run);
    rh_mem_free(ctx);
}

/* ---- what comes in ---- */

bool rh_squeeze_pause(struct rh_shard *sh, struct rh_conn *c)
{
    if (sh->stock.squeeze.work < RH_SQUEEZE_PASS || !c->inflates)
        return false;
    rh_conn_pause(sh, c, RH_PAUSE_TURN);
    rh_list_add(&sh->turns, &c->waiting);
    return true;
}

/* Whoever pauses again has used up the pass, so this ends. */
void rh_squeeze_turns(struct rh_shard *sh)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;

    sq->work = 0;
    while (!rh_list_empty(&sh->turns) && sq->work < RH_SQUEEZE_PASS) {
        struct rh_conn *c = rh_container_of(sh->turns.next, struct rh_conn, waiting);

        rh_list_del(&c->waiting);
        rh_conn_resume(sh, c, RH_PAUSE_TURN);
    }
}

/* What inflates this connection's messages; NULL: no memory. */
static struct rh_inflater *inflater_of(struct rh_squeeze *sq, struct context *ctx)
{
    bool keeps = ctx && ctx->in_bits;
    struct rh_inflater **z = keeps ? &ctx->in : &sq->in;

    if (!*z)
        rh_inflater_create(keeps ? ctx->in_bits : RH_DEFLATE_BITS_MAX, keeps, z);
    return *z;
}

/* A copy of what came out, since the inflater may be needed again before that is done with. */
static unsigned take_message(struct rh_shard *sh, bool text, struct rh_block **ret_message,
                             const char **ret_why)
{
    const struct rh_deflate_out *out = &sh->stock.squeeze.buffer;
    struct rh_block *message;

    *ret_why = "text that is not UTF-8";
    if (text && !rh_utf8_valid(out->at, out->len))
        return 1007;
    *ret_why = "out of memory";
    message = rh_block_take(&sh->stock.blocks, out->len);
    if (!message)
        return 1013;
    if (out->len)
        memcpy(message->bytes, out->at, out->len);
    message->used = (uint32_t)out->len;
    *ret_message = message;
    return 0;
}

static unsigned close_code(int rc, const char **ret_why)
{
    *ret_why = rc == RH_EFULL    ? "message too large"
               : rc == RH_EINVAL ? "damaged compressed data"
                                 : "out of memory";
    return rc == RH_EFULL ? 1009 : rc == RH_EINVAL ? 1007 : 1013;
}

static void count_inflated(struct rh_squeeze *sq, size_t wire)
{
    rh_stat_add(sq->stats, RH_STAT_compressed_messages_in, 1);
    rh_stat_add(sq->stats, RH_STAT_compressed_plain_bytes_in, sq->buffer.len);
    rh_stat_add(sq->stats, RH_STAT_compressed_wire_bytes_in, wire);
}

unsigned rh_squeeze_inflate(struct rh_shard *sh, struct rh_conn *c, const uint8_t *in, size_t len,
                            bool text, struct rh_block **ret_message, const char **ret_why)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct context *ctx = c->has_context ? find_context(sq, c) : NULL;
    struct rh_inflater *z = inflater_of(sq, ctx);
    int rc = RH_ENOMEM;
    unsigned code;

    if (z)
        rc = rh_inflate(z, in, len, sh->cfg->limits_message_size, &sq->buffer);
    if (rc == RH_OK) {
        sq->work += sq->buffer.len;
        count_inflated(sq, len);
        code = take_message(sh, text, ret_message, ret_why);
    } else {
        code = close_code(rc, ret_why);
    }
    rh_squeeze_trim(sq);
    if (ctx)
        count_context(sq, ctx);
    return code;
}
