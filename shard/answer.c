/* shard/answer.c - the frames in which a client is answered and notified.
 *
 * An answer is written straight into the connection's send queue, behind room for its header, which
 * is put in front once the length is known. Whoever writes one says how much room it needs at most;
 * the sum is asserted, never cut.
 *
 * Limits     an error's sentence: WHY_MAX bytes.
 */
#include <string.h>

#include "core/err.h"
#include "shard/room_int.h"

#define WHY_MAX 256 /* bytes of an error's sentence */

/* ---- frames ---- */

bool rh_frame_begin(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f, size_t room)
{
    f->head = room < 126 ? 2 : room <= UINT16_MAX ? 4 : 10;
    f->own = c->state == RH_CONN_OPEN ? rh_conn_own(sh, c, RH_MSG_HEAD_ROOM + room) : NULL;
    if (!f->own)
        return false;
    rh_writer_init(&f->w, f->own + f->head, room);
    return true;
}

void rh_frame_end(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f)
{
    size_t len = rh_writer_len(&f->w);
    uint8_t head[RH_WS_HEAD_MAX];
    size_t head_len = rh_ws_head(head, RH_WS_TEXT, true, len, NULL);

    rh_assert(!f->w.full);
    if (head_len != f->head)
        memmove(f->own + head_len, f->own + f->head, len);
    memcpy(f->own, head, head_len);
    rh_conn_own_done(sh, c, head_len + len);
}

/* ---- the parts of an envelope ---- */

static void put_request_id(struct rh_writer *w, struct rh_span request_id)
{
    if (!request_id.len)
        return;
    RH_PUT(w, ",\"request_id\":");
    rh_put(w, request_id.at, request_id.len);
}

static void put_trace_id(struct rh_shard *sh, const struct rh_conn *c, struct rh_writer *w)
{
    struct rh_span given = c->session ? rh_session_trace(c->session) : (struct rh_span){0};
    uint64_t made[2];
    char hex[RH_TRACE_ID_LEN];

    if (given.len) {
        rh_put(w, given.at, given.len);
        return;
    }
    made[0] = rh_prng_next(&sh->prng) | 1; /* a trace id is never zero */
    made[1] = rh_prng_next(&sh->prng);
    rh_hex(hex, made, sizeof(made));
    rh_put(w, hex, sizeof(hex));
}

void rh_put_response(struct rh_writer *w, struct rh_span request_id)
{
    RH_PUT(w, "{\"type\":\"response\"");
    put_request_id(w, request_id);
    RH_PUT(w, ",\"code\":200,\"message\":\"OK\",\"data\":");
}

/* Ends an answer: when, and as part of which trace. */
void rh_put_answer_end(struct rh_shard *sh, const struct rh_conn *c, struct rh_writer *w)
{
    RH_PUT(w, ",\"timestamp\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, ",\"trace_id\":\"");
    put_trace_id(sh, c, w);
    RH_PUT(w, "\"}");
}

void rh_put_notify(struct rh_writer *w, struct rh_span event)
{
    RH_PUT(w, "{\"type\":\"notify\",\"event\":\"");
    rh_put(w, event.at, event.len);
    RH_PUT(w, "\",\"data\":");
}

void rh_put_notify_end(const struct rh_shard *sh, struct rh_writer *w)
{
    RH_PUT(w, ",\"timestamp\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, "}");
}

/* ---- answers ---- */

void rh_respond_error(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                      unsigned err, const char *why)
{
    const char *name = rh_wire_error_name(err);
    struct rh_frame f;

    if (!rh_frame_begin(sh, c, &f, RH_FRAME_ROOM + request_id.len + RH_JSON_ESCAPED_MAX(WHY_MAX)))
        return;
    RH_PUT(&f.w, "{\"type\":\"error\"");
    put_request_id(&f.w, request_id);
    RH_PUT(&f.w, ",\"code\":");
    rh_put_u64(&f.w, rh_wire_error_status(err));
    RH_PUT(&f.w, ",\"error\":\"");
    rh_put(&f.w, name, strlen(name));
    RH_PUT(&f.w, "\",\"message\":");
    rh_put_str(&f.w, (struct rh_span){why, (uint32_t)strnlen(why, WHY_MAX)});
    rh_put_answer_end(sh, c, &f.w);
    rh_frame_end(sh, c, &f);
}

void rh_respond_data(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                     struct rh_span data)
{
    struct rh_frame f;

    if (!request_id.len || !rh_frame_begin(sh, c, &f, RH_FRAME_ROOM + request_id.len + data.len))
        return;
    rh_put_response(&f.w, request_id);
    rh_put(&f.w, data.at, data.len);
    rh_put_answer_end(sh, c, &f.w);
    rh_frame_end(sh, c, &f);
}

void rh_respond_id(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                   struct rh_span id, const char *status)
{
    struct rh_frame f;

    if (!request_id.len || !rh_frame_begin(sh, c, &f, RH_FRAME_ROOM + request_id.len + id.len))
        return;
    rh_put_response(&f.w, request_id);
    RH_PUT(&f.w, "{\"id\":\"");
    rh_put(&f.w, id.at, id.len);
    RH_PUT(&f.w, "\",\"status\":\"");
    rh_put(&f.w, status, strlen(status));
    RH_PUT(&f.w, "\"}");
    rh_put_answer_end(sh, c, &f.w);
    rh_frame_end(sh, c, &f);
}
