/* tests/store/record_rig.h - a record thread with everything around it, on one thread and no clock.
 *
 * The test plays all shards, the control thread and the clock; the disk is tests/store/disk.h. What
 * the record thread tells is kept, per shard, in the order in which it arrived. Messages are the
 * rig's as well (one hold each, like a shard that owes them), and found again by their ids.
 */
#ifndef TESTS_RECORD_RIG_H
#define TESTS_RECORD_RIG_H

#include <stdio.h>

#include "core/clock.h"
#include "core/config.h"
#include "core/limits.h"
#include "core/mem.h"
#include "core/thread.h"
#include "store/record_int.h"
#include "tests/rh_test.h"
#include "tests/store/disk.h"

#define SHARDS   2
#define CONTROL  SHARDS
#define ACK      (SHARDS + 1)
#define RECORD   (SHARDS + 2)
#define MEMBERS  (SHARDS + 3)
#define HEARD    4096
#define TTL_MS   3600000u
#define BEGAN_MS 1800000000000ull

static uint64_t rig_ns; /* since the rig's beginning */
static int64_t rig_wall_ms = (int64_t)BEGAN_MS;

uint64_t rh_clock_mono_ns(void)
{
    return 1000000000 + rig_ns;
}

uint64_t rh_clock_wall_us(void)
{
    return (uint64_t)rig_wall_ms * 1000 + rig_ns / 1000;
}

void rh_clock_nap_ms(unsigned ms)
{
    rig_ns += ms * 1000000ull;
}

struct rig {
    struct rh_net *net;
    struct rh_promises promises;
    struct rh_config *cfg;
    struct rh_snapshot *snapshot;
    struct rh_store_env env;
    struct rh_record *r;
    struct rh_fault fault;
    bool stopped;
    struct rh_event heard[HEARD]; /* by any shard or control, `from` replaced by its tid */
    unsigned heard_count;
};

static struct rig rig;

__attribute__((unused)) static void rig_wake(void *arg, unsigned tid)
{
    (void)arg;
    if (tid == RECORD && rig.r)
        rh_record_wake_any(rig.r);
}

__attribute__((unused)) static void rig_set(const char *key, const char *value)
{
    RH_EQ_INT(rh_config_set(rig.cfg, key, value, "test", &rig.fault), RH_OK);
}

/* Once a test; then rig_set, rig_open. */
__attribute__((unused)) static void rig_init(void)
{
    disk_reset();
    rig = (struct rig){.r = NULL};
    RH_EQ_INT(rh_config_create(&rig.cfg), RH_OK);
    rig.env = (struct rh_store_env){.hash_key = {1, 2},
                                    .shards = SHARDS,
                                    .control = CONTROL,
                                    .ack = ACK,
                                    .record = RECORD,
                                    .segment_bytes = 64 << 10};
}

__attribute__((unused)) static int rig_try_open(void)
{
    struct rh_config *cfg = NULL;
    int rc;

    rh_tid_set(RECORD);
    rig.stopped = false;
    rig.env.promises = &rig.promises;
    rc = rh_config_copy(rig.cfg, &cfg);
    if (rc < 0)
        return rc;
    rig.env.snapshot = rh_snapshot_make(cfg);
    if (!rig.env.snapshot) {
        rh_config_destroy(cfg);
        return RH_ENOMEM;
    }
    rc = rh_net_create(MEMBERS, rig_wake, NULL, &rig.net);
    rig.env.net = rig.net;
    if (rc == RH_OK)
        rc = rh_record_create(&rig.env, &rig.r, &rig.fault);
    if (rc < 0) {
        rh_net_destroy(rig.net);
        rig.net = NULL;
        rh_snapshot_drop_any(rig.env.snapshot);
    }
    return rc;
}

static unsigned rig_count(enum rh_event_kind kind);

/* ---- what the shards hear ---- */

__attribute__((unused)) static void rig_hear(void *arg, const struct rh_event *ev)
{
    struct rh_event *to = &rig.heard[rig.heard_count++];

    RH_OK_IF(rig.heard_count < HEARD);
    *to = *ev;
    to->from = (uint16_t)(uintptr_t)arg;
}

__attribute__((unused)) static void rig_let_go(struct rh_event *ev)
{
    if (ev->kind == RH_EV_REMEMBER)
        rh_mem_free(ev->msg);
    else if (ev->kind != RH_EV_COMMITTED && ev->kind != RH_EV_LOADED && ev->kind != RH_EV_QUIET)
        rh_msg_drop_any(ev->msg);
    ev->msg = NULL;
}

__attribute__((unused)) static void rig_forget(void)
{
    for (unsigned i = 0; i < rig.heard_count; i++)
        rig_let_go(&rig.heard[i]);
    rig.heard_count = 0;
}

__attribute__((unused)) static void rig_pop(void)
{
    for (unsigned tid = 0; tid <= CONTROL; tid++) {
        rh_tid_set((int)tid);
        rh_mesh_awake(rh_net_member(rig.net, tid));
        while (rh_mesh_pop(rh_net_member(rig.net, tid), rig_hear, (void *)(uintptr_t)tid) > 0)
            ;
    }
    rh_tid_set(RECORD);
}

/* One pass, with the wait behind it. */
__attribute__((unused)) static void rig_turn(void)
{
    rh_tid_set(RECORD);
    if (!rig.stopped && !rh_record_pass(rig.r))
        rig.stopped = true;
    if (!rig.stopped)
        rh_record_wait(rig.r);
    rig_pop();
}

__attribute__((unused)) static void rig_turns(unsigned n)
{
    while (n--)
        rig_turn();
}

/* Until everything that can happen without time has happened. */
__attribute__((unused)) static void rig_settle(void)
{
    rig_turns(40);
}

__attribute__((unused)) static void rig_pass_ms(uint64_t ms)
{
    rig_ns += ms * 1000000;
}

__attribute__((unused)) static void rig_open(void)
{
    int rc = rig_try_open();

    if (rc < 0)
        RH_FAIL("open: %s", rig.fault.text);
    for (int i = 0; i < 10000 && rig_count(RH_EV_LOADED) < SHARDS; i++)
        rig_turn();
    RH_EQ_INT(rig_count(RH_EV_LOADED), SHARDS);
}

__attribute__((unused)) static void rig_close(void)
{
    rig_forget();
    rh_tid_set(RECORD);
    rh_record_destroy(rig.r);
    rig.r = NULL;
    rh_net_destroy(rig.net);
    rig.net = NULL;
    rh_snapshot_drop_any(rig.env.snapshot);
}

/* The power is cut, or the process killed; and it is started again. */
__attribute__((unused)) static void rig_crash(uint64_t seed)
{
    disk_cut(seed);
    rig_close();
    rig_open();
}

__attribute__((unused)) static void rig_fini(void)
{
    if (rig.r)
        rig_close();
    rh_config_destroy(rig.cfg);
}

/* ---- questions ---- */

__attribute__((unused)) static unsigned rig_count(enum rh_event_kind kind)
{
    unsigned n = 0;

    for (unsigned i = 0; i < rig.heard_count; i++)
        n += rig.heard[i].kind == kind;
    return n;
}

/* The nth (from 0) of a kind. */
__attribute__((unused)) static struct rh_event *rig_find(enum rh_event_kind kind, unsigned nth)
{
    for (unsigned i = 0; i < rig.heard_count; i++)
        if (rig.heard[i].kind == kind && nth-- == 0)
            return &rig.heard[i];
    RH_FAIL("no %s was heard", rh_event_name(kind));
    return NULL;
}

/* "COMMITTED STATUS RELEASED" */
__attribute__((unused)) static const char *rig_story(void)
{
    static char text[512];
    size_t len = 0;

    text[0] = 0;
    for (unsigned i = 0; i < rig.heard_count && len < sizeof(text) - 16; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? " " : "",
                                rh_event_name(rig.heard[i].kind));
    return text;
}

__attribute__((unused)) static uint64_t rig_stat(enum rh_stat stat)
{
    return atomic_load(&rh_record_stats_any(rig.r)->v[stat]);
}

__attribute__((unused)) static enum rh_gate rig_gate(void)
{
    return rh_gate_any(&rig.promises);
}

/* ---- messages ---- */

struct rig_spec {
    enum rh_msg_kind kind;
    const char *from, *to, *id, *text;
    bool plain, system; /* no ack; the sender is no user */
    const char *const *shares;
    unsigned share_count;
};

__attribute__((unused)) static struct rh_span rig_text(const char *text)
{
    return (struct rh_span){text, (uint32_t)strlen(text)};
}

__attribute__((unused)) static uint32_t rig_name(struct rh_msg *msg, uint32_t *at, const char *name)
{
    uint32_t begin = *at;

    memcpy(msg->bytes + begin, name, strlen(name));
    *at += (uint32_t)strlen(name);
    return begin;
}

__attribute__((unused)) static struct rh_shares *rig_shares(const struct rig_spec *spec)
{
    struct rh_shares *s = rh_mem_alloc(sizeof(*s) + spec->share_count * (sizeof(s->at[0]) + 64));

    if (!s)
        return NULL;
    s->count = spec->share_count;
    s->len = 0;
    for (unsigned i = 0; i < s->count; i++) {
        const char *name = spec->shares[i];
        uint64_t hash = rh_hash(&rig.env.hash_key, name, strlen(name));

        s->at[i] = (struct rh_share){hash, s->len, (uint8_t)strlen(name),
                                     (uint8_t)rh_hash_shard(hash, SHARDS), true};
        memcpy((char *)&s->at[s->count] + s->len, name, strlen(name));
        s->len += (uint32_t)strlen(name);
    }
    return s;
}

/* As a shard makes it. NULL: no memory. */
__attribute__((unused)) static struct rh_msg *rig_msg(const struct rig_spec *spec)
{
    static const char head[] = "{\"ack\":true ,\"attempt\":1,\"content\":\"";
    const char *text = spec->text ? spec->text : "hello";
    size_t len = sizeof(head) - 1 + strlen(text) + 2;
    struct rh_msg *msg = rh_msg_create(len + 3 * 64);
    uint32_t at = RH_MSG_HEAD_ROOM;

    if (!msg)
        return NULL;
    memcpy(msg->bytes + at, head, sizeof(head) - 1);
    memcpy(msg->bytes + at + sizeof(head) - 1, text, strlen(text));
    memcpy(msg->bytes + at + len - 2, "\"}", 2);
    rh_msg_put_head(msg, len);
    msg->ack_at = at + 7;
    msg->attempt_at = at + 23;
    msg->attempt_len = 1;
    at += (uint32_t)len;
    msg->to_at = rig_name(msg, &at, spec->to);
    msg->from_at = rig_name(msg, &at, spec->from);
    msg->id_at = rig_name(msg, &at, spec->id);
    msg->to_len = (uint8_t)strlen(spec->to);
    msg->from_len = (uint8_t)strlen(spec->from);
    msg->id_len = (uint8_t)strlen(spec->id);
    msg->to_hash = rh_hash(&rig.env.hash_key, spec->to, msg->to_len);
    msg->from_hash = rh_hash(&rig.env.hash_key, spec->from, msg->from_len);
    msg->kind = (uint8_t)spec->kind;
    msg->ack = !spec->plain;
    msg->from_user = !spec->system;
    msg->given = true;
    msg->seq = RH_MSG_SEQ_MIN + strlen(text);
    msg->uid = 77;
    msg->created_ms = BEGAN_MS + rig_ns / 1000000;
    msg->expires_ms = msg->created_ms + TTL_MS;
    if (spec->kind == RH_MSG_ROOM && !(msg->shares = rig_shares(spec))) {
        rh_msg_drop_any(msg);
        return NULL;
    }
    return msg;
}

__attribute__((unused)) static struct rh_span rig_id(const struct rh_msg *msg)
{
    return (struct rh_span){(const char *)msg->bytes + msg->id_at, msg->id_len};
}

__attribute__((unused)) static bool rig_is(const struct rh_msg *msg, const char *id)
{
    return msg && rh_span_eq(rig_id(msg), rig_text(id));
}

/* ---- what the shards say ---- */

__attribute__((unused)) static unsigned rig_shard_of(const char *name)
{
    return rh_hash_shard(rh_hash(&rig.env.hash_key, name, strlen(name)), SHARDS);
}

__attribute__((unused)) static int rig_tell(unsigned from, struct rh_event *ev)
{
    int rc;

    rh_tid_set((int)from);
    rc = rh_mesh_tell(rh_net_member(rig.net, from), RECORD, ev);
    rh_mesh_publish(rh_net_member(rig.net, from));
    rh_tid_set(RECORD);
    return rc;
}

struct rig_accept {
    unsigned asker; /* its shard */
    bool unasked, stored;
    uint64_t dedup_ms; /* from now on; 0: not */
    uint32_t attempt, recipients;
    uint64_t cookie;
};

__attribute__((unused)) static void rig_accept(struct rh_msg *msg, const struct rig_accept *a)
{
    struct rh_event ev = {
        .kind = RH_EV_ACCEPTED,
        .msg = msg,
        .cookie = (void *)(uintptr_t)a->cookie,
        .conn = a->cookie + 1,
        .a = a->asker,
        .b = a->attempt,
        .c = a->dedup_ms ? BEGAN_MS + rig_ns / 1000000 + a->dedup_ms : 0,
        .d = a->recipients,
        .flags = (uint8_t)((a->unasked ? 0 : RH_ACCEPT_ASKED) | (a->stored ? RH_ACCEPT_STORED : 0)),
    };

    rh_msg_hold_any(msg, 1);
    RH_EQ_INT(rig_tell(rh_hash_shard(msg->to_hash, SHARDS), &ev), RH_OK);
}

__attribute__((unused)) static void rig_settled(struct rh_msg *msg, unsigned share, unsigned state,
                                                unsigned reason)
{
    struct rh_event ev = {.kind = RH_EV_SETTLED,
                          .msg = msg,
                          .a = state | reason << 8,
                          .b = BEGAN_MS + rig_ns / 1000000,
                          .c = share};
    unsigned from =
        msg->shares ? msg->shares->at[share].shard : rh_hash_shard(msg->to_hash, SHARDS);

    rh_msg_hold_any(msg, 1);
    RH_EQ_INT(rig_tell(from, &ev), RH_OK);
}

__attribute__((unused)) static void rig_attempt(struct rh_msg *msg, unsigned share,
                                                unsigned attempt)
{
    struct rh_event ev = {.kind = RH_EV_ATTEMPT,
                          .msg = msg,
                          .a = attempt,
                          .b = BEGAN_MS + rig_ns / 1000000,
                          .c = share};
    unsigned from =
        msg->shares ? msg->shares->at[share].shard : rh_hash_shard(msg->to_hash, SHARDS);

    RH_EQ_INT(rig_tell(from, &ev), RH_OK);
}

__attribute__((unused)) static void rig_progress(struct rh_msg *msg, unsigned state)
{
    struct rh_event ev = {.kind = RH_EV_PROGRESS, .msg = msg, .a = state, .b = 1};

    RH_EQ_INT(rig_tell(rh_hash_shard(msg->to_hash, SHARDS), &ev), RH_OK);
}

__attribute__((unused)) static void rig_await(struct rh_msg *msg, unsigned asker, uint64_t cookie,
                                              uint32_t recipients)
{
    struct rh_event ev = {.kind = RH_EV_AWAIT,
                          .msg = msg,
                          .a = asker,
                          .cookie = (void *)(uintptr_t)cookie,
                          .conn = cookie + 1,
                          .d = recipients};

    if (msg->kind == RH_MSG_ROOM)
        rh_msg_hold_any(msg, 1);
    RH_EQ_INT(rig_tell(rh_hash_shard(msg->to_hash, SHARDS), &ev), RH_OK);
}

__attribute__((unused)) static void rig_control(enum rh_event_kind kind, uint64_t a, void *msg)
{
    struct rh_event ev = {.kind = (uint8_t)kind, .a = a, .msg = msg};

    RH_EQ_INT(rig_tell(CONTROL, &ev), RH_OK);
}

#endif
