/* shard/squeeze_conn.c - permessage-deflate on a connection: contexts, own frames, what comes in.
 *
 * Why messages are inflated as a whole: it costs one inflater for all connections instead of one for
 * each that is in the middle of a message, and the bound on what comes out is known from the start.
 * Only a long one, of which a pass may see no more than a part, has an inflater for itself.
 *
 * A connection with a context of its own (compression.context_takeover) compresses what leaves, in the
 * order in which it leaves: the send that outq_send.c has described is walked frame by frame, and packed
 * into a run of bytes that flies in its place. Nothing may be compressed and then not be sent.
 *
 * Ownership  contexts hang in a map by slot, since few connections have one, and go with the slot.
 * Bounds     A run is never larger than what it was packed of.
 */
#include <string.h>

#include "core/mem.h"
#include "proto/utf8.h"
#include "shard/shard_int.h"

/* A long message that is being inflated, over several passes. */
struct job {
    struct rh_inflater *own; /* NULL: the context's */
    struct rh_deflate_out out;
    size_t at, max; /* bytes that were read; the most that may come */
    uint8_t opcode;
};

/* Of a connection that keeps a context in either direction, or has sent a long message. */
struct context {
    struct rh_map_node node; /* struct rh_squeeze.contexts, by slot */
    struct rh_deflater *out;
    struct rh_inflater *in;
    struct job *job;   /* or NULL */
    uint8_t *run;      /* that flies; or NULL */
    uint64_t run_room; /* its bytes */
    uint64_t held;     /* bytes of all that */
    uint8_t out_bits;  /* 0: nothing is compressed with a context */
    uint8_t in_bits;   /* 0: what comes needs none */
};

static uint64_t job_bytes(const struct job *job)
{
    return sizeof(*job) + job->out.room + (job->own ? rh_inflater_bytes(job->own) : 0);
}

static void count_context(struct rh_squeeze *sq, struct context *ctx)
{
    rh_squeeze_hold(sq, &ctx->held,
                    sizeof(*ctx) + ctx->run_room + (ctx->out ? rh_deflater_bytes(ctx->out) : 0) +
                        (ctx->in ? rh_inflater_bytes(ctx->in) : 0) +
                        (ctx->job ? job_bytes(ctx->job) : 0));
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

static struct context *find_context(const struct rh_squeeze *sq, const struct rh_conn *c)
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

        sq->packed += iov[i].iov_len;
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

static void job_destroy(struct job *job)
{
    if (!job)
        return;
    rh_inflater_destroy(job->own);
    rh_deflate_out_trim(&job->out, 0);
    rh_mem_free(job);
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
    job_destroy(ctx->job);
    rh_mem_free(ctx->run);
    rh_mem_free(ctx);
}

/* ---- what comes in ---- */

static void await_turn(struct rh_shard *sh, struct rh_conn *c)
{
    rh_conn_pause(sh, c, RH_PAUSE_TURN);
    rh_list_add(&sh->turns, &c->waiting);
}

bool rh_squeeze_pause(struct rh_shard *sh, struct rh_conn *c)
{
    if (sh->stock.squeeze.work < RH_SQUEEZE_PASS || !c->inflates)
        return false;
    await_turn(sh, c);
    return true;
}

/* Whoever pauses again has used up the pass, so this ends. */
void rh_squeeze_turns(struct rh_shard *sh)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;

    sq->work = 0;
    sq->packed = 0;
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
static unsigned take_message(struct rh_shard *sh, const struct rh_deflate_out *out, bool text,
                             struct rh_block **ret_message, const char **ret_why)
{
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

static void count_inflated(struct rh_squeeze *sq, size_t plain, size_t wire)
{
    rh_stat_add(sq->stats, RH_STAT_compressed_messages_in, 1);
    rh_stat_add(sq->stats, RH_STAT_compressed_plain_bytes_in, plain);
    rh_stat_add(sq->stats, RH_STAT_compressed_wire_bytes_in, wire);
}

/* What it was to inflate `in` bytes; after an error nobody knows how many came out before it. */
static void count_work(struct rh_squeeze *sq, int rc, size_t in, size_t out, size_t max)
{
    sq->work += (uint64_t)in * RH_SQUEEZE_IN + (rc < 0 ? max : out);
}

/* All of a message has been inflated, or it failed. */
static unsigned inflated(struct rh_shard *sh, int rc, const struct rh_deflate_out *out, size_t wire,
                         bool text, struct rh_block **ret_message, const char **ret_why)
{
    if (rc < 0)
        return close_code(rc, ret_why);
    count_inflated(&sh->stock.squeeze, out->len, wire);
    return take_message(sh, out, text, ret_message, ret_why);
}

unsigned rh_squeeze_inflate(struct rh_shard *sh, struct rh_conn *c, const uint8_t *in, size_t len,
                            bool text, struct rh_block **ret_message, const char **ret_why)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct context *ctx = c->has_context ? find_context(sq, c) : NULL;
    struct rh_inflater *z = inflater_of(sq, ctx);
    const size_t max = sh->cfg->limits_message_size;
    int rc = z ? rh_inflate(z, in, len, max, &sq->buffer) : RH_ENOMEM;
    unsigned code = inflated(sh, rc, &sq->buffer, len, text, ret_message, ret_why);

    count_work(sq, rc, len, sq->buffer.len, max);
    rh_squeeze_trim(sq);
    if (ctx)
        count_context(sq, ctx);
    return code;
}

/* ---- long messages ---- */

/* NULL: no memory. */
static struct job *job_create(const struct rh_shard *sh, const struct context *ctx, uint8_t opcode)
{
    struct job *job = rh_mem_zalloc(sizeof(*job));

    if (!job)
        return NULL;
    job->max = sh->cfg->limits_message_size;
    job->opcode = opcode;
    if (!ctx->in_bits && rh_inflater_create(RH_DEFLATE_BITS_MAX, false, &job->own) < 0) {
        rh_mem_free(job);
        return NULL;
    }
    return job;
}

/* The connection's context with the message that it is at, made where that begins. NULL: no memory. */
static struct context *find_job(struct rh_shard *sh, struct rh_conn *c, uint8_t opcode)
{
    static const struct rh_deflate_terms no_terms;
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct context *ctx = c->has_context ? find_context(sq, c) : context_create(sq, c, &no_terms);

    if (!ctx)
        return NULL;
    c->has_context = true;
    if (!ctx->job)
        ctx->job = job_create(sh, ctx, opcode);
    return ctx->job ? ctx : NULL;
}

/* Steps, until it is done or the pass has done enough. Returns 1, 0 or an error. */
static int work_on(struct rh_squeeze *sq, struct context *ctx, const uint8_t *in, size_t len)
{
    struct job *job = ctx->job;
    struct rh_inflater *z = job->own ? job->own : inflater_of(sq, ctx);
    int rc = z ? 1 : RH_ENOMEM;

    while (rc == 1 && sq->work < RH_SQUEEZE_PASS) {
        size_t at = job->at, before = at ? job->out.len : 0;

        rc = rh_inflate_some(z, in, len, RH_SQUEEZE_SOME, &job->at, job->max, &job->out);
        count_work(sq, rc, job->at - at, job->out.len - before, job->max);
    }
    return rc;
}

unsigned rh_squeeze_inflate_long(struct rh_shard *sh, struct rh_conn *c, const uint8_t *in,
                                 size_t len, uint8_t *opcode, struct rh_block **ret_message,
                                 const char **ret_why)
{
    struct rh_squeeze *sq = &sh->stock.squeeze;
    struct context *ctx = find_job(sh, c, *opcode);
    unsigned code;
    int rc;

    if (!ctx)
        return close_code(RH_ENOMEM, ret_why);
    *opcode = ctx->job->opcode;
    rc = work_on(sq, ctx, in, len);
    if (rc == 1) {
        count_context(sq, ctx);
        await_turn(sh, c);
        return RH_SQUEEZE_WAITS;
    }
    code = inflated(sh, rc, &ctx->job->out, len, *opcode == RH_WS_TEXT, ret_message, ret_why);
    job_destroy(ctx->job);
    ctx->job = NULL;
    count_context(sq, ctx);
    return code;
}

bool rh_squeeze_inflating(const struct rh_shard *sh, const struct rh_conn *c)
{
    return c->has_context && find_context(&sh->stock.squeeze, c)->job;
}
