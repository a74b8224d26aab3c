/* shard/owed_ack.c - what is heard of owed messages: acknowledgements, states for senders, the start.
 *
 * An acknowledgement names ids. With `room` it means that room's message, else all that the user is owed
 * by that id; plain messages are settled by being written, and no acknowledgement touches them. Policy
 * `any`: the first one settles. `all`: it speaks for its device, and the last one settles. Of an item
 * that is not in flight (its device has come back, and knows it from before) it settles in any case.
 *
 * One that finds nothing is late, if that id has ended a short while ago, or of an unknown id: the last
 * RH_OWED_ENDS ends are remembered by their keys.
 *
 * Limits     RH_ACK_IDS_MAX ids in a frame; SAME_ID messages of one id that stay unsettled by it.
 */
#include <string.h>

#include "core/log.h"
#include "proto/envelope.h"
#include "shard/owed_int.h"

#define SAME_ID 64 /* messages of one id that are looked at together */

#define ACK_RULE "data: id (a string) or ids (a list of at most 10000 strings), and perhaps room"

_Static_assert(RH_ACK_IDS_MAX == 10000, "the sentence says it");

/* ---- acknowledgements ---- */

struct ack {
    struct rh_conn *c;
    struct rh_owed *o;   /* or NULL: nothing is owed */
    struct rh_json room; /* kind NONE: any */
    char room_text[RH_NAME_MAX];
    int room_len; /* -1: no room has such a name */
};

/* An id as it was decoded. False: no message has such a one. */
static bool read_id(struct rh_json v, char dst[RH_ID_GIVEN_MAX], struct rh_span *ret_id)
{
    int len = rh_json_str_decode(dst, RH_ID_GIVEN_MAX, v.raw);

    *ret_id = (struct rh_span){dst, len < 0 ? 0 : (uint32_t)len};
    return len > 0;
}

static bool means(const struct ack *a, const struct rh_owed_item *item, struct rh_span id)
{
    const struct rh_msg *msg = item->msg;

    if (item->owed != a->o || !msg->ack || msg->id_len != id.len ||
        memcmp(msg->bytes + msg->id_at, id.at, id.len) != 0)
        return false;
    return a->room.kind == RH_JSON_NONE ||
           (msg->kind == RH_MSG_ROOM && (int)msg->to_len == a->room_len &&
            memcmp(msg->bytes + msg->to_at, a->room_text, msg->to_len) == 0);
}

static unsigned gather(const struct rh_shard *sh, const struct ack *a, uint64_t key,
                       struct rh_span id, struct rh_owed_item *items[SAME_ID])
{
    struct rh_map_node *node = rh_map_first(&sh->owed.items, key);
    unsigned count = 0;

    for (; node && count < SAME_ID; node = rh_map_again(node)) {
        struct rh_owed_item *item = rh_container_of(node, struct rh_owed_item, node);

        if (means(a, item, id))
            items[count++] = item;
    }
    return count;
}

/* Is that the end of it? */
static bool answered(struct rh_shard *sh, const struct ack *a, struct rh_owed_item *item,
                     bool *ret_new)
{
    uint64_t bit;

    *ret_new = true;
    if (item->at != RH_OWED_FLIGHT)
        return true;
    if (sh->cfg->ack_policy == RH_ACK_ANY)
        return true;
    bit = rh_owed_place(a->o, a->c); /* it may have it from an earlier connection */
    *ret_new = (item->handed & bit) != 0;
    item->handed &= ~bit;
    item->answered |= bit;
    item->acked = true;
    return !item->handed;
}

static void settle(struct rh_shard *sh, struct rh_owed_item *item)
{
    if (item->at == RH_OWED_FLIGHT)
        rh_stat_observe(&sh->stats, RH_HIST_ack, rh_owed_since_ns(sh, item->sent));
    rh_owed_settle(sh, item, RH_STATE_success, RH_REASON_none);
}

/* One id. Counts what it was. */
static void ack_id(struct rh_shard *sh, const struct ack *a, struct rh_span id)
{
    uint64_t id_hash = rh_hash(&sh->env->hash_key, id.at, id.len);
    struct rh_owed_item *items[SAME_ID];
    unsigned found, ended, settled = 0, repeated = 0;
    uint64_t key = rh_owed_key(rh_conn_user(a->c)->node.hash, id_hash);

    do {
        found = a->o && a->o->items ? gather(sh, a, key, id, items) : 0;
        ended = 0;
        for (unsigned i = 0; i < found; i++) {
            bool is_new;

            if (answered(sh, a, items[i], &is_new)) {
                settle(sh, items[i]);
                ended++;
            }
            settled += is_new;
            repeated += !is_new;
        }
    } while (found == SAME_ID && ended == SAME_ID);
    if (settled)
        rh_stat_add(&sh->stats, RH_STAT_acks_settled, 1);
    else if (repeated || sh->owed.ended[key & (RH_OWED_ENDS - 1)] == key)
        rh_stat_add(&sh->stats, RH_STAT_acks_late, 1);
    else
        rh_stat_add(&sh->stats, RH_STAT_acks_unknown, 1);
}

static void ack_value(struct rh_shard *sh, const struct ack *a, struct rh_json v)
{
    char text[RH_ID_GIVEN_MAX];
    struct rh_span id;

    if (read_id(v, text, &id))
        ack_id(sh, a, id);
    else
        rh_stat_add(&sh->stats, RH_STAT_acks_unknown, 1);
}

static bool ids_ok(struct rh_json ids)
{
    struct rh_json_iter it;
    struct rh_json each;
    unsigned count = 0;

    rh_json_elements(&it, ids);
    while (rh_json_next_element(&it, &each))
        if (each.kind != RH_JSON_STRING || ++count > RH_ACK_IDS_MAX)
            return false;
    return true;
}

enum { P_ID, P_IDS, P_ROOM, P_N };

static int read_params(const struct rh_envelope *env, struct rh_json got[P_N], const char **ret_why)
{
    static const struct rh_param rows[P_N] = {
        RH_PARAM_ROW("id", STRING, false),
        RH_PARAM_ROW("ids", ARRAY, false),
        RH_PARAM_ROW("room", STRING, false),
    };
    char why[160];
    int rc = rh_params_read(env->data, rows, P_N, got, why, sizeof(why));

    *ret_why = ACK_RULE;
    if (rc < 0)
        return rc;
    if ((got[P_ID].kind == RH_JSON_NONE) == (got[P_IDS].kind == RH_JSON_NONE))
        return RH_EINVAL;
    return got[P_IDS].kind == RH_JSON_NONE || ids_ok(got[P_IDS]) ? RH_OK : RH_EINVAL;
}

int rh_owed_ack(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                const char **ret_why)
{
    struct ack a = {.c = c, .o = rh_user_owed(rh_conn_user(c))};
    struct rh_json got[P_N], each;
    struct rh_json_iter it;
    int rc = read_params(env, got, ret_why);

    if (rc < 0)
        return rc;
    a.room = got[P_ROOM];
    if (a.room.kind != RH_JSON_NONE)
        a.room_len = rh_json_str_decode(a.room_text, sizeof(a.room_text), a.room.raw);
    if (got[P_ID].kind != RH_JSON_NONE) {
        ack_value(sh, &a, got[P_ID]);
        return RH_OK;
    }
    rh_json_elements(&it, got[P_IDS]);
    while (rh_json_next_element(&it, &each))
        ack_value(sh, &a, each);
    return RH_OK;
}

/* ---- message.status ---- */

/* What a sender is told. */
struct status {
    const struct rh_msg *msg;
    enum rh_state state;
    enum rh_reason reason;
    uint32_t recipients, acknowledged; /* of a room's message */
};

#define STATUS_ROOM (RH_FRAME_ROOM + RH_ID_GIVEN_MAX + RH_JSON_ESCAPED_MAX(RH_NAME_MAX))

static void put_name(struct rh_writer *w, const char *name)
{
    RH_PUT(w, "\"");
    rh_put(w, name, strlen(name));
    RH_PUT(w, "\"");
}

static void put_status(const struct rh_shard *sh, struct rh_writer *w, const struct status *s)
{
    const struct rh_msg *msg = s->msg;

    rh_put_notify(w, RH_SPAN("message.status"));
    RH_PUT(w, "{\"id\":\"");
    rh_put(w, msg->bytes + msg->id_at, msg->id_len);
    RH_PUT(w, "\",\"status\":");
    put_name(w, rh_state_name(s->state));
    if (s->reason != RH_REASON_none) {
        RH_PUT(w, ",\"reason\":");
        put_name(w, rh_reason_name(s->reason));
    }
    if (msg->kind == RH_MSG_ROOM) {
        RH_PUT(w, ",\"room\":");
        rh_put_str(w, (struct rh_span){(const char *)msg->bytes + msg->to_at, msg->to_len});
        RH_PUT(w, ",\"recipients\":");
        rh_put_u64(w, s->recipients);
        RH_PUT(w, ",\"acknowledged\":");
        rh_put_u64(w, s->acknowledged);
    }
    RH_PUT(w, "}");
    rh_put_notify_end(sh, w);
}

/* False: none was told, for want of memory or of room. */
static bool tell_connections(struct rh_shard *sh, struct rh_user *user, const struct status *s)
{
    struct rh_session *at, *next;
    bool told = false;

    for (at = rh_session_next(user, NULL); at; at = next) {
        struct rh_frame f;

        next = rh_session_next(user, at); /* its session may end, no other */
        if (!rh_session_is_live(at) || rh_slow_choked(sh, at->conn) ||
            !rh_frame_begin(sh, at->conn, &f, STATUS_ROOM))
            continue;
        put_status(sh, &f.w, s);
        rh_frame_end(sh, at->conn, &f);
        told = true;
    }
    return told;
}

/* False: the sender is not connected, or could not be told. */
static bool tell_sender(struct rh_shard *sh, struct rh_user *user, const struct status *s)
{
    bool told;

    if (!user || !rh_user_devices(user))
        return false;
    rh_user_pin(user);
    told = tell_connections(sh, user, s);
    rh_user_unpin(sh, user);
    return told;
}

/* The same as a plain message of ours to the sender, who is not connected. NULL: no memory. */
static struct rh_msg *status_message(struct rh_shard *sh, const struct status *s)
{
    struct rh_msg *msg = rh_msg_create(STATUS_ROOM + RH_NAME_MAX + RH_ID_TEXT);
    struct rh_writer w;
    size_t len;

    if (!msg)
        return NULL;
    rh_writer_init(&w, msg->bytes + RH_MSG_HEAD_ROOM, STATUS_ROOM);
    put_status(sh, &w, s);
    rh_assert(!w.full);
    len = rh_writer_len(&w);
    rh_msg_put_head(msg, len);
    msg->kind = RH_MSG_DIRECT;
    msg->to_at = msg->from_at = (uint32_t)(RH_MSG_HEAD_ROOM + len);
    msg->to_len = s->msg->from_len;
    memcpy(msg->bytes + msg->to_at, s->msg->bytes + s->msg->from_at, msg->to_len);
    msg->id_at = msg->to_at + msg->to_len;
    msg->id_len = RH_ID_TEXT;
    rh_id_make(&sh->ids, rh_now_unix_ms(sh), (char *)msg->bytes + msg->id_at);
    msg->to_hash = s->msg->from_hash;
    msg->created_ms = rh_now_unix_ms(sh);
    msg->expires_ms = msg->created_ms + sh->cfg->offline_ttl_ms;
    msg->accepted_ns = sh->now_ns;
    return msg;
}

static void keep_status(struct rh_shard *sh, const struct status *s)
{
    static const struct rh_asker nobody = {.tid = RH_ASKER_NONE};
    struct rh_msg *msg = status_message(sh, s);
    enum rh_wire_error error;

    if (msg && rh_owed_accept(sh, msg, &nobody, &error) == RH_OWED_ACCEPTED)
        return;
    rh_stat_add(&sh->stats, RH_STAT_messages_dropped_user_offline, 1);
    rh_msg_drop_any(msg);
}

void rh_owed_status_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;
    struct rh_user *user =
        rh_user_find(sh, msg->from_hash, (const char *)msg->bytes + msg->from_at, msg->from_len);
    struct status s = {.msg = msg,
                       .state = (enum rh_state)(ev->a & 0xff),
                       .reason = (enum rh_reason)(ev->a >> 8),
                       .recipients = (uint32_t)(ev->b >> 32),
                       .acknowledged = (uint32_t)ev->b};
    bool failed = rh_state_is_end(s.state) && s.state != RH_STATE_success;

    if (tell_sender(sh, user, &s)) {
        rh_stat_add(&sh->stats, RH_STAT_statuses, 1);
    } else if (failed && sh->cfg->offline_enabled) {
        rh_stat_add(&sh->stats, RH_STAT_statuses, 1);
        keep_status(sh, &s);
    }
    rh_msg_drop_any(msg);
}

/* ---- the start ---- */

/* Without memory it is not delivered in this run; the store still has it. */
static void no_memory(struct rh_shard *sh, struct rh_msg *msg)
{
    rh_stat_add(&sh->stats, RH_STAT_memory_failures, 1);
    RH_LOG_EVERY(1, RH_LOG_ERROR, "owed.no_memory", RH_KU("shard", sh->tid));
    rh_msg_drop_any(msg);
}

/* Whom it is owed to: of a room's message, one of many. */
static struct rh_user *take_owner(struct rh_shard *sh, const struct rh_msg *msg, uint32_t share)
{
    if (msg->kind == RH_MSG_ROOM)
        return rh_user_take(sh, msg->shares->at[share].hash, rh_share_name(msg->shares, share),
                            msg->shares->at[share].name_len);
    return rh_user_take(sh, msg->to_hash, (const char *)msg->bytes + msg->to_at, msg->to_len);
}

void rh_owed_load_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_msg *msg = ev->msg;
    struct rh_user *user = take_owner(sh, msg, (uint32_t)ev->c);
    struct rh_owed *o = user ? rh_owed_of(sh, user) : NULL;
    struct rh_owed_item *item = o ? rh_owed_add(sh, o, msg, (uint32_t)ev->c) : NULL;

    if (item) {
        item->attempt = (uint32_t)ev->a;
        rh_owed_wait(sh, item, true);
    } else {
        no_memory(sh, msg);
    }
    if (user)
        rh_user_unpin(sh, user);
}
