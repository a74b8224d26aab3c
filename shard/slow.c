/* shard/slow.c - a connection that stands at its bound: what is dropped, and how it is told.
 *
 *   disconnect    what waits is dropped, and the connection closed with 4408
 *   drop_oldest   the oldest ones that wait make room; one that finds nothing waiting is taken, as an
 *                 empty queue takes any one message; behind frames of the connection's own, which are
 *                 never dropped, it goes itself
 *   drop_newest   it goes itself
 *   conflate      in a room that conflates it takes the place of those with its key, else drop_oldest
 *
 * Notices are never dropped; they, and own frames, may go on up to four times the bound and what a
 * pass brings (rh_conn_overfull). A queue that dropping does not bring below that is closed with 4408
 * under every policy. So is one that the ends of its user's messages (message.status) have brought to
 * four times the bound (rh_slow_choked): of these there may be as many as are owed.
 *
 * Why markers: what was dropped stands as a marker in the queue, in its place, and costs no frame
 * until the client takes something again. Only then it is written (rh_slow_tell), so neighbouring
 * losses are told as one, however long it took.
 */
#include <string.h>

#include "core/log.h"
#include "shard/room_int.h"

#define HEAD 4 /* of a frame of 126 bytes to 64 KiB: what a loss's text has */

/* What waits goes, so that the close frame may still get through. */
static void close_slow(struct rh_shard *sh, struct rh_conn *c, unsigned dropped)
{
    if (c->session)
        rh_session_settle(sh, c);
    dropped += rh_conn_drop_messages(sh, c);
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_slow_consumer, dropped);
    RH_LOG_EVERY(1, RH_LOG_INFO, "connection.slow", RH_KU("shard", sh->tid),
                 RH_KU("dropped", dropped));
    rh_conn_close(sh, c, 4408, "slow consumer");
}

/* Together with the message that found no room. */
static int close_for(struct rh_shard *sh, struct rh_conn *c, const struct rh_msg *msg)
{
    close_slow(sh, c, msg->kind != RH_MSG_NOTICE);
    return RH_EFULL;
}

bool rh_slow_choked(struct rh_shard *sh, struct rh_conn *c)
{
    if (!rh_conn_choked(sh, c))
        return false;
    close_slow(sh, c, 0);
    return true;
}

/* RH_ENOTFOUND: there is no room, and nothing more to drop. */
static int drop_oldest(struct rh_shard *sh, struct rh_conn *c)
{
    while (rh_conn_full(sh, c)) {
        int rc = rh_outq_drop_oldest(&sh->stock, c->out);

        if (rc < 0)
            return rc;
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_slow_consumer, 1);
    }
    return RH_OK;
}

/* RH_OK: there is a place now; RH_EFULL: this one has to go instead. */
static int make_room(struct rh_shard *sh, struct rh_conn *c, const struct rh_msg *msg)
{
    int rc;

    if (sh->cfg->limits_slow_consumer == RH_SLOW_NEWEST)
        return RH_EFULL;
    if (sh->cfg->limits_slow_consumer == RH_SLOW_CONFLATE && msg->key_len) {
        rc = rh_outq_replace(&sh->stock, c->out, msg);
        if (rc < 0)
            return rc;
        rh_stat_add(&sh->stats, RH_STAT_messages_dropped_conflated, (uint64_t)rc);
        if (rc > 0 && !rh_conn_overfull(sh, c))
            return RH_OK;
    }
    rc = drop_oldest(sh, c);
    if (rc == RH_ENOTFOUND)
        return rh_outq_waits(c->out) ? RH_EFULL : RH_OK;
    return rc;
}

static int lose(struct rh_shard *sh, struct rh_conn *c, const struct rh_msg *msg)
{
    if (rh_outq_lose(c->out, msg) < 0)
        return rh_conn_no_memory(sh, c);
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_slow_consumer, 1);
    rh_conn_dirty(sh, c);
    return RH_EFULL;
}

int rh_slow_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    int rc = RH_OK;

    if (sh->cfg->limits_slow_consumer == RH_SLOW_DISCONNECT)
        return close_for(sh, c, h->msg);
    if (h->msg->kind != RH_MSG_NOTICE)
        rc = make_room(sh, c, h->msg);
    if (rc == RH_ENOMEM)
        return rh_conn_no_memory(sh, c);
    if (rh_conn_overfull(sh, c))
        return close_for(sh, c, h->msg);
    return rc == RH_OK ? rh_conn_put(sh, c, h) : lose(sh, c, h->msg);
}

/* ---- telling ---- */

static void put_range(struct rh_writer *w, const struct rh_lost *lost)
{
    RH_PUT(w, "\"from_seq\":");
    rh_put_u64(w, lost->from);
    RH_PUT(w, ",\"to_seq\":");
    rh_put_u64(w, lost->to);
}

static void put_stream(struct rh_writer *w, const struct rh_lost *lost)
{
    char epoch[RH_EPOCH_LEN];

    if (lost->kind == RH_MSG_BROADCAST) {
        RH_PUT(w, "\"broadcast\":true");
        return;
    }
    if (lost->kind == RH_MSG_ROOM) {
        rh_epoch_hex(lost->uid, epoch);
        RH_PUT(w, "\"room\":");
        rh_put_str(w, (struct rh_span){lost->name, lost->name_len});
        RH_PUT(w, ",\"epoch\":\"");
        rh_put(w, epoch, sizeof(epoch));
        RH_PUT(w, "\",");
    }
    put_range(w, lost);
}

_Static_assert(RH_LOST_FRAME >= HEAD + RH_JSON_ESCAPED_MAX(RH_NAME_MAX) + RH_FRAME_ROOM,
               "a loss of any room fits its frame");

static size_t encode(void *arg, const struct rh_lost *lost, uint8_t *dst)
{
    struct rh_shard *sh = arg;
    struct rh_writer w;
    size_t len;

    rh_writer_init(&w, dst + HEAD, RH_LOST_FRAME - HEAD);
    rh_put_notify(&w, RH_SPAN("messages.lost"));
    RH_PUT(&w, "{");
    put_stream(&w, lost);
    RH_PUT(&w, ",\"count\":");
    rh_put_u64(&w, lost->count);
    RH_PUT(&w, "}");
    rh_put_notify_end(sh, &w);
    rh_assert(!w.full);
    len = rh_writer_len(&w);
    if (len >= 126)
        return rh_ws_head(dst, RH_WS_TEXT, true, len, NULL) + len;
    memmove(dst + 2, dst + HEAD, len);
    return rh_ws_head(dst, RH_WS_TEXT, true, len, NULL) + len;
}

bool rh_slow_tell(struct rh_shard *sh, struct rh_conn *c)
{
    if (rh_outq_tell(c->out, RH_URING_IOV, encode, sh))
        return true;
    if (c->session)
        rh_session_settle(sh, c);
    rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_memory, rh_conn_drop_messages(sh, c));
    rh_conn_close(sh, c, 1013, "out of memory");
    rh_conn_dirty(sh, c); /* what is left is its own: it goes out as soon as we are asked again */
    return false;
}
