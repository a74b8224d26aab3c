/* store/kept.c - states of a message's shares, and the way to a jot and back; see kept.h. */
#include "store/kept.h"

#include <string.h>

#include "core/clock.h"
#include "core/event.h"
#include "core/mem.h"

_Static_assert(sizeof(struct rh_kept) <= 96, "of a million there are a million");

int rh_kept_begin(struct rh_kept *k, struct rh_msg *take_msg)
{
    *k = (struct rh_kept){.msg = take_msg, .unsettled = 1, .state = RH_STATE_success};
    rh_list_init(&k->list);
    take_msg->entry = k;
    if (take_msg->kind != RH_MSG_ROOM)
        return RH_OK;
    k->unsettled = take_msg->shares->count;
    if (!k->unsettled)
        return RH_OK;
    k->shares = rh_mem_zalloc(k->unsettled * sizeof(*k->shares));
    if (k->shares)
        return RH_OK;
    k->flags = RH_KEPT_LOOSE;
    return RH_ENOMEM;
}

void rh_kept_end(struct rh_kept *k)
{
    rh_assert(rh_list_empty(&k->list) && !k->tells);
    k->msg->entry = NULL;
    rh_msg_drop_any(k->msg);
    k->msg = NULL;
    rh_mem_free(k->shares);
    k->shares = NULL;
}

void rh_kept_destroy(struct rh_kept *k)
{
    rh_kept_end(k);
    rh_mem_free(k);
}

void rh_kept_attempt(struct rh_kept *k, uint32_t share, uint32_t attempt)
{
    if (k->msg->kind != RH_MSG_ROOM)
        k->attempt = RH_MAX(k->attempt, attempt);
    else if (k->shares && share < rh_kept_count(k))
        k->shares[share].attempt = RH_MAX(k->shares[share].attempt, attempt);
}

bool rh_kept_settle(struct rh_kept *k, uint32_t share, enum rh_state state, enum rh_reason reason)
{
    if (!k->unsettled || share >= rh_kept_count(k) || !rh_state_is_end(state))
        return false;
    if (k->shares) {
        if (rh_state_is_end(k->shares[share].state))
            return false;
        k->shares[share].state = (uint8_t)state;
        k->shares[share].reason = (uint8_t)reason;
    }
    if (state == RH_STATE_success) {
        k->acknowledged++;
    } else if (k->state == RH_STATE_success) {
        k->state = (uint8_t)state;
        k->reason = (uint8_t)reason;
    }
    k->unsettled--;
    return true;
}

uint64_t rh_kept_bytes(const struct rh_kept *k)
{
    const struct rh_msg *msg = k->msg;
    const struct rh_shares *s = msg->shares;
    uint64_t bytes = sizeof(*k) + sizeof(*msg) + RH_MSG_HEAD_ROOM + msg->frame_len + msg->to_len +
                     msg->from_len + msg->id_len;

    if (s)
        bytes += sizeof(*s) + s->len + s->count * (sizeof(s->at[0]) + sizeof(k->shares[0]));
    return bytes;
}

/* ---- to the journal ---- */

static struct rh_span span_at(const struct rh_msg *msg, uint32_t at, uint32_t len)
{
    return (struct rh_span){(const char *)msg->bytes + at, len};
}

/* What OWED and ID have in common. */
static struct rh_jot jot_of(const struct rh_kept *k, enum rh_jot_kind kind)
{
    const struct rh_msg *msg = k->msg;

    return (struct rh_jot){
        .kind = (uint8_t)kind,
        .msg_kind = msg->kind,
        .flags = k->accept & RH_ACCEPT_STORED ? RH_JOT_STORED : 0,
        .number = rh_kept_number(k),
        .recipients = rh_kept_recipients(k),
        .at_ms = msg->created_ms,
        .dedup_ms = k->dedup_ms,
        .seq = msg->seq,
        .from = span_at(msg, msg->from_at, msg->from_len),
        .to = span_at(msg, msg->to_at, msg->to_len),
        .id = span_at(msg, msg->id_at, msg->id_len),
    };
}

void rh_kept_id(const struct rh_kept *k, struct rh_jot *ret_jot)
{
    *ret_jot = jot_of(k, RH_JOT_ID);
}

static void shares_of(const struct rh_kept *k, struct rh_jot_share *shares)
{
    const struct rh_shares *s = k->msg->shares;

    for (uint32_t i = 0; i < s->count; i++)
        shares[i] = (struct rh_jot_share){
            .user = {rh_share_name(s, i), s->at[i].name_len},
            .attempt = k->shares[i].attempt,
            .state = k->shares[i].state,
            .reason = k->shares[i].reason,
        };
}

void rh_kept_owed(const struct rh_kept *k, struct rh_jot *ret_jot, struct rh_jot_share *shares)
{
    const struct rh_msg *msg = k->msg;
    struct rh_jot jot = jot_of(k, RH_JOT_OWED);
    size_t len;
    const uint8_t *text = rh_msg_text(msg, &len);
    uint32_t base = (uint32_t)(text - msg->bytes);

    jot.flags |= (msg->ack ? RH_JOT_ACK : 0) | (msg->high ? RH_JOT_HIGH : 0) |
                 (msg->from_user ? RH_JOT_FROM_USER : 0) | (msg->given ? RH_JOT_GIVEN : 0);
    jot.expires_ms = msg->expires_ms;
    jot.uid = msg->uid;
    jot.text = (struct rh_span){(const char *)text, (uint32_t)len};
    jot.attempt_len = msg->attempt_len;
    jot.attempt_at = msg->attempt_at ? msg->attempt_at - base : 0;
    jot.ack_at = msg->ack_at ? msg->ack_at - base : 0;
    jot.shares = shares;
    jot.share_count = rh_kept_count(k);
    if (msg->kind == RH_MSG_ROOM)
        shares_of(k, shares);
    else
        shares[0] = (struct rh_jot_share){
            .user = jot.to,
            .attempt = k->attempt,
            .state = k->unsettled ? RH_STATE_pending : k->state,
            .reason = k->reason,
        };
    *ret_jot = jot;
}

/* ---- and back ---- */

/* Names have lengths of a byte, and what a repetition replaces lies in the text. */
static bool is_sound(const struct rh_jot *jot)
{
    if (jot->msg_kind != RH_MSG_DIRECT && jot->msg_kind != RH_MSG_ROOM)
        return false;
    if (jot->from.len > UINT8_MAX || jot->to.len > UINT8_MAX || jot->id.len > UINT8_MAX)
        return false;
    if ((uint64_t)jot->attempt_at + jot->attempt_len > jot->text.len ||
        (jot->ack_at && (uint64_t)jot->ack_at + 5 > jot->text.len))
        return false;
    for (uint32_t i = 0; i < jot->share_count; i++)
        if (jot->shares[i].user.len > UINT8_MAX || jot->shares[i].state >= RH_STATE_COUNT)
            return false;
    return jot->msg_kind == RH_MSG_ROOM || jot->share_count == 1;
}

static struct rh_shares *read_shares(const struct rh_jot *jot, const struct rh_kept_names *names)
{
    struct rh_shares *s;
    size_t len = 0;

    for (uint32_t i = 0; i < jot->share_count; i++)
        len += jot->shares[i].user.len;
    s = rh_mem_alloc(sizeof(*s) + jot->share_count * sizeof(s->at[0]) + len);
    if (!s)
        return NULL;
    s->count = jot->share_count;
    s->len = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        struct rh_span user = jot->shares[i].user;
        uint64_t hash = rh_hash(&names->key, user.at, user.len);

        s->at[i] = (struct rh_share){.hash = hash,
                                     .name_at = s->len,
                                     .name_len = (uint8_t)user.len,
                                     .shard = (uint8_t)rh_hash_shard(hash, names->shards)};
        memcpy((char *)&s->at[s->count] + s->len, user.at, user.len);
        s->len += user.len;
    }
    return s;
}

static uint32_t append(struct rh_msg *msg, uint32_t *at, struct rh_span name)
{
    uint32_t begin = *at;

    if (name.len)
        memcpy(msg->bytes + begin, name.at, name.len);
    *at += name.len;
    return begin;
}

/* Text and names, as shards lay them out; without its shares. */
static struct rh_msg *read_msg(const struct rh_jot *jot, const struct rh_kept_names *names)
{
    size_t room = (size_t)jot->text.len + jot->to.len + jot->from.len + jot->id.len;
    struct rh_msg *msg = rh_msg_create(room);
    uint32_t at = RH_MSG_HEAD_ROOM;

    if (!msg)
        return NULL;
    append(msg, &at, jot->text);
    rh_msg_put_head(msg, jot->text.len);
    msg->to_at = append(msg, &at, jot->to);
    msg->from_at = append(msg, &at, jot->from);
    msg->id_at = append(msg, &at, jot->id);
    msg->to_len = (uint8_t)jot->to.len;
    msg->from_len = (uint8_t)jot->from.len;
    msg->id_len = (uint8_t)jot->id.len;
    msg->to_hash = rh_hash(&names->key, jot->to.at, jot->to.len);
    msg->from_hash = rh_hash(&names->key, jot->from.at, jot->from.len);
    msg->id_hash = rh_hash(&names->key, jot->id.at, jot->id.len);
    msg->attempt_at = jot->attempt_at ? RH_MSG_HEAD_ROOM + jot->attempt_at : 0;
    msg->ack_at = jot->ack_at ? RH_MSG_HEAD_ROOM + jot->ack_at : 0;
    return msg;
}

static void read_fields(struct rh_msg *msg, const struct rh_jot *jot)
{
    msg->kind = jot->msg_kind;
    msg->attempt_len = jot->attempt_len;
    msg->ack = jot->flags & RH_JOT_ACK;
    msg->high = jot->flags & RH_JOT_HIGH;
    msg->from_user = jot->flags & RH_JOT_FROM_USER;
    msg->given = jot->flags & RH_JOT_GIVEN;
    msg->created_ms = jot->at_ms;
    msg->expires_ms = jot->expires_ms;
    msg->uid = jot->uid;
    msg->seq = jot->seq;
    msg->accepted_ns = rh_clock_mono_ns();
}

void rh_kept_reread(struct rh_kept *k, const struct rh_jot *jot)
{
    if (jot->share_count != rh_kept_count(k))
        return;
    for (uint32_t i = 0; i < jot->share_count; i++) {
        const struct rh_jot_share *s = &jot->shares[i];

        rh_kept_attempt(k, i, s->attempt);
        rh_kept_settle(k, i, (enum rh_state)s->state, (enum rh_reason)s->reason);
    }
}

int rh_kept_read(const struct rh_jot *jot, const struct rh_kept_names *names,
                 struct rh_kept **ret_kept)
{
    struct rh_kept *k = rh_mem_alloc(sizeof(*k));
    struct rh_msg *msg;
    int rc = is_sound(jot) ? RH_ENOMEM : RH_EINVAL;

    msg = k && rc == RH_ENOMEM ? read_msg(jot, names) : NULL;
    if (!msg)
        goto out;
    read_fields(msg, jot);
    if (msg->kind == RH_MSG_ROOM && !(msg->shares = read_shares(jot, names)))
        goto out;
    rc = rh_kept_begin(k, msg);
    msg = NULL; /* moved */
    if (rc < 0) {
        rh_kept_end(k);
        goto out;
    }
    k->node.hash = jot->number;
    k->dedup_ms = jot->dedup_ms;
    k->accept = (jot->flags & RH_JOT_STORED ? RH_ACCEPT_STORED : 0) |
                (jot->flags & RH_JOT_FROM_USER ? RH_ACCEPT_FROM_USER : 0);
    if (jot->msg_kind == RH_MSG_ROOM)
        k->recipients = jot->recipients;
    rh_kept_reread(k, jot);
    *ret_kept = k;
    return RH_OK;
out:
    rh_msg_drop_any(msg);
    rh_mem_free(k);
    return rc;
}
