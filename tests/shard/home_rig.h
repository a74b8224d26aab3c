/* tests/shard/home_rig.h - for test_room.c and test_publish.c: a home with two other shards beside it.
 *
 * Shard 1 is the home and has all that room.c and publish.c look at: maps, a mesh with shards 0 and
 * 2, alarms, a configuration. Its neighbours are played here. What the asker would be told, and what
 * our own fan-out gets, is written into a book of short words, so that a test can compare a
 * sentence: "ok join 1", "no room_full", "push hello". What the mesh brings the other shards is read
 * by other_gets().
 *
 * One rig at a time is enough: each test is a process of its own.
 */
#ifndef RH_HOME_RIG_H
#define RH_HOME_RIG_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/mem.h"
#include "shard/roster.h"
#include "shard/room_int.h"
#include "tests/rh_test.h"

#define HOME   1
#define SHARDS 3
#define RECORD SHARDS /* the record thread's tid */

static struct rh_shard *sh;
static struct rh_shard_env env;
static struct rh_promises promises;
static struct rh_config *cfg;
static char book[1 << 16];
static size_t book_len;
static struct rh_ask *answered; /* the last one; the test's to free */
static void (*on_answer)(struct rh_ask *ask);
static bool no_notice; /* rh_notice_... find no memory */

static inline void note(const char *fmt, ...)
{
    va_list args;

    if (book_len)
        book_len += (size_t)snprintf(book + book_len, sizeof(book) - book_len, ", ");
    va_start(args, fmt);
    book_len += (size_t)vsnprintf(book + book_len, sizeof(book) - book_len, fmt, args);
    va_end(args);
    RH_OK_IF(book_len < sizeof(book));
}

/* The book so far, and begins a new one. */
static inline const char *read_book(void)
{
    static char page[sizeof(book)];

    memcpy(page, book, book_len + 1);
    book_len = 0;
    book[0] = '\0';
    return page;
}

/* ---- what room.c and publish.c call ---- */

static inline const char *op_name(const struct rh_ask *ask)
{
    static const char *const names[] = {"create",  "join",   "leave",  "publish",
                                        "members", "delete", "history"};

    return names[ask->op];
}

void rh_ask_free(struct rh_ask *ask)
{
    if (!ask)
        return;
    for (uint32_t i = 0; ask->replay && i < ask->replay->count; i++)
        rh_msg_drop_any(ask->replay->at[i]);
    rh_mem_free(ask->replay);
    rh_mem_free(ask->text);
    rh_msg_drop_any(ask->msg);
    rh_mem_free(ask);
}

static inline void take_answer(struct rh_ask *ask)
{
    rh_ask_free(answered);
    answered = ask;
    if (on_answer)
        on_answer(ask);
}

void rh_ask_answer(struct rh_shard *shard, struct rh_ask *take_ask)
{
    RH_OK_IF(shard == sh && take_ask->err == RH_WIRE_NONE);
    note("ok %s %u", op_name(take_ask), (unsigned)take_ask->members);
    take_answer(take_ask);
}

void rh_ask_refuse(struct rh_shard *shard, struct rh_ask *take_ask, enum rh_wire_error err,
                   const char *why)
{
    RH_OK_IF(shard == sh && err != RH_WIRE_NONE && why);
    RH_OK_IF(!take_ask->replay && !take_ask->text);
    take_ask->err = err;
    note("no %s", rh_wire_error_name(err));
    take_answer(take_ask);
}

/* A message's text, or of a room's message its content. */
static inline const char *text_in(const struct rh_msg *msg)
{
    static char text[256];
    struct rh_span frame = {(const char *)rh_msg_frame(msg), msg->frame_len};
    const char *content;

    snprintf(text, sizeof(text), "%.*s", (int)RH_MIN(frame.len, sizeof(text) - 1), frame.at);
    if (msg->kind != RH_MSG_ROOM)
        return text;
    content = memmem(frame.at, frame.len, "\"content\":\"", 11);
    RH_OK_IF(content);
    snprintf(text, sizeof(text), "%" PRIu64 ":%.*s", msg->seq, (int)strcspn(content + 11, "\""),
             content + 11);
    return text;
}

void rh_fanout_push(struct rh_shard *shard, unsigned home, uint64_t uid, struct rh_msg *take_msg)
{
    RH_OK_IF(shard == sh && home == HOME && uid && take_msg->uid == uid);
    note("push %s", text_in(take_msg));
    rh_msg_drop_any(take_msg);
}

void rh_fanout_over(struct rh_shard *shard, uint64_t uid)
{
    RH_OK_IF(shard == sh && uid);
    note("over");
}

static inline struct rh_msg *plain_notice(const char *text, const struct rh_member *but)
{
    size_t len = strlen(text);
    struct rh_msg *msg = no_notice ? NULL : rh_msg_create(len + (but ? but->name_len : 0));

    if (!msg)
        return NULL;
    msg->kind = RH_MSG_NOTICE;
    msg->frame_len = (uint32_t)len;
    memcpy(msg->bytes + msg->frame_at, text, len);
    if (!but)
        return msg;
    msg->excludes = true;
    msg->from_hash = but->node.hash;
    msg->from_at = (uint32_t)(msg->frame_at + len);
    msg->from_len = but->name_len;
    memcpy(msg->bytes + msg->from_at, but->bytes, but->name_len);
    return msg;
}

struct rh_msg *rh_notice_membership(struct rh_shard *shard, const struct rh_room *room, bool joined,
                                    const struct rh_member *member)
{
    char text[300];

    snprintf(text, sizeof(text), "%s %.*s %zu", joined ? "joined" : "left", member->name_len,
             member->bytes, rh_map_count(&room->members));
    return plain_notice(text, member);
}

struct rh_msg *rh_notice_deleted(struct rh_shard *shard, struct rh_span room)
{
    char text[300];

    snprintf(text, sizeof(text), "deleted %.*s", (int)room.len, room.at);
    return plain_notice(text, NULL);
}

/* ---- the rig ---- */

static inline void wake(void *arg, unsigned tid)
{
}

static inline void begin(void)
{
    rh_mem_fail_nth(0);
    sh = rh_mem_zalloc_aligned(sizeof(*sh));
    RH_OK_IF(sh && rh_config_create(&cfg) == RH_OK);
    memset(&env, 0, sizeof(env));
    env.shards = SHARDS;
    env.record = RECORD;
    env.promises = &promises;
    atomic_store(&promises.gate, RH_GATE_OPEN);
    RH_EQ_INT(rh_net_create(SHARDS + 1, wake, NULL, &env.net), RH_OK);
    sh->tid = HOME;
    sh->env = &env;
    sh->cfg = cfg;
    sh->mesh = rh_net_member(env.net, HOME);
    sh->now_ms = 1000000;
    sh->now_ns = sh->now_ms * 1000000;
    sh->hub_us = 1700000000123456;
    rh_prng_init(&sh->prng);
    rh_wheel_init(&sh->alarms, sh->now_ms);
    rh_list_init(&sh->held_rooms);
    rh_list_init(&sh->empty_rooms);
    RH_EQ_INT(rh_map_init(&sh->rooms), RH_OK);
    RH_EQ_INT(rh_map_init(&sh->rooms_by_uid), RH_OK);
    RH_EQ_INT(rh_map_init(&sh->taken), RH_OK);
    rh_tid_set(HOME);
    read_book();
    answered = NULL;
    on_answer = NULL;
    no_notice = false;
}

static inline int64_t stat_of(enum rh_stat stat)
{
    return (int64_t)atomic_load(&sh->stats.v[stat]);
}

static inline void drop_inbound(void *arg, const struct rh_event *ev)
{
    if (ev->kind == RH_EV_FANOUT || ev->kind == RH_EV_ACCEPTED || ev->kind == RH_EV_AWAIT)
        rh_msg_drop_any(ev->msg);
}

/* The other threads forget all that they have been sent. */
static inline void others_forget(void)
{
    rh_mesh_publish(sh->mesh);
    for (unsigned k = 0; k <= RECORD; k++)
        while (k != HOME && rh_mesh_pop(rh_net_member(env.net, k), drop_inbound, NULL))
            rh_mesh_publish(sh->mesh);
}

/* All is given back. */
static inline void end(void)
{
    others_forget();
    rh_ask_free(answered);
    rh_rooms_fini(sh);
    rh_room_taken_fini(sh);
    RH_EQ_INT(stat_of(RH_STAT_rooms), 0);
    RH_EQ_INT(stat_of(RH_STAT_room_publishes_waiting), 0);
    RH_EQ_INT(stat_of(RH_STAT_room_history_bytes), 0);
    RH_EQ_U64(rh_wheel_count(&sh->alarms), 0);
    RH_OK_IF(rh_list_empty(&sh->held_rooms));
    rh_map_fini(&sh->rooms);
    rh_map_fini(&sh->rooms_by_uid);
    rh_net_destroy(env.net);
    rh_config_destroy(cfg);
    rh_mem_free(sh);
    rh_tid_set(RH_TID_NONE);
}

/* ---- time ---- */

static inline void fire(void *arg, struct rh_timer *t)
{
    struct rh_alarm *alarm = rh_container_of(t, struct rh_alarm, timer);

    alarm->ring(arg, alarm);
}

static inline void sleep_ms(uint64_t ms)
{
    sh->now_ms += ms;
    sh->now_ns += ms * 1000000;
    sh->hub_us += ms * 1000;
    for (int i = 0; i < 100; i++)
        rh_wheel_advance(&sh->alarms, sh->now_ms, 100000, fire, sh);
}

/* ---- the other shards ---- */

static inline void book_inbound(void *arg, const struct rh_event *ev)
{
    RH_EQ_INT(ev->from, HOME);
    if (ev->kind == RH_EV_ROOM_OVER) {
        note("over");
        return;
    }
    if (ev->kind != RH_EV_FANOUT)
        return;
    struct rh_msg *msg = ev->msg;

    RH_EQ_U64(ev->a, msg->uid);
    RH_EQ_U64(ev->b, msg->kind == RH_MSG_NOTICE ? 0 : msg->seq);
    RH_EQ_U64(ev->cost, msg->frame_len);
    note("%s", text_in(msg));
    rh_msg_drop_any(msg);
}

/* What that shard has been sent since the last time: "1:hello, joined ann 2, over". */
static inline const char *other_gets(unsigned k)
{
    RH_OK_IF(book_len == 0);
    rh_mesh_publish(sh->mesh);
    while (rh_mesh_pop(rh_net_member(env.net, k), book_inbound, NULL))
        rh_mesh_publish(sh->mesh);
    return read_book();
}

/* ---- asks ---- */

static inline uint64_t hash_of(const char *name)
{
    return rh_hash(&env.hash_key, name, strlen(name));
}

/* Allocations of the test's own never fail. */
static inline struct rh_ask *ask_of(enum rh_room_op op, unsigned from, const char *user,
                                    const char *room)
{
    uint64_t left = rh_mem_fail_left();
    size_t size = sizeof(struct rh_ask) + strlen(room) + strlen(user);
    struct rh_ask *ask;

    rh_mem_fail_nth(0);
    ask = rh_mem_zalloc(size + 1);
    rh_mem_fail_nth(left);
    ask->op = (uint8_t)op;
    ask->from = (uint8_t)from;
    ask->limit = 100;
    ask->room_len = (uint8_t)strlen(room);
    ask->user_len = (uint8_t)strlen(user);
    ask->room_hash = hash_of(room);
    ask->user_hash = hash_of(user);
    rh_list_init(&ask->held);
    memcpy(ask->bytes, room, ask->room_len);
    memcpy(ask->bytes + ask->room_len, user, ask->user_len);
    return ask;
}

/* Its answer, or NULL while it is held. */
static inline struct rh_ask *handle(struct rh_ask *take_ask)
{
    rh_ask_free(answered);
    answered = NULL;
    rh_room_handle(sh, take_ask);
    return answered;
}

/* A session's first join; returns the member. NULL: refused. */
static inline void *join_of(unsigned from, const char *user, const char *room)
{
    struct rh_ask *ask = ask_of(RH_ASK_JOIN, from, user, room);

    ask->live = true;
    ask = handle(ask);
    return ask->err ? NULL : ask->member;
}

static inline struct rh_room *room_of(const char *name)
{
    struct rh_map_node *node = rh_map_first(&sh->rooms, hash_of(name));

    return node ? rh_container_of(node, struct rh_room, node) : NULL;
}

/* A message as the asker's shard leaves it: all behind the number. */
static inline struct rh_msg *room_msg(const char *from, const char *room, const char *content,
                                      size_t pad)
{
    uint64_t left = rh_mem_fail_left();
    size_t size = RH_ROOM_HEAD_MAX + strlen(from) + 2 * strlen(room) + strlen(content) + pad + 64 +
                  RH_ID_GIVEN_MAX;
    struct rh_msg *msg;

    rh_mem_fail_nth(0);
    msg = rh_msg_create(size);
    rh_mem_fail_nth(left);
    msg->kind = RH_MSG_ROOM;
    msg->seq_at = RH_ROOM_HEAD_MAX;
    msg->frame_len = (uint32_t)sprintf((char *)msg->bytes + msg->seq_at,
                                       ",\"room\":\"%s\",\"content\":\"%s\",\"pad\":\"%*s\"}}",
                                       room, content, (int)pad, "");
    msg->from_at = msg->seq_at + msg->frame_len;
    msg->from_len = (uint8_t)strlen(from);
    msg->from_hash = hash_of(from);
    memcpy(msg->bytes + msg->from_at, from, msg->from_len);
    msg->from_user = true;
    msg->to_at = msg->from_at + msg->from_len;
    msg->to_len = (uint8_t)strlen(room);
    msg->to_hash = hash_of(room);
    memcpy(msg->bytes + msg->to_at, room, msg->to_len);
    msg->id_at = msg->to_at + msg->to_len;
    return msg;
}

static inline struct rh_ask *publish_ask(unsigned from, const char *user, const char *room,
                                         const char *content)
{
    struct rh_ask *ask = ask_of(RH_ASK_PUBLISH, from, user, room);

    ask->msg = room_msg(user, room, content, 0);
    return ask;
}

/* ---- invariants ---- */

struct sums {
    uint64_t subs, live;
    const struct rh_room *room;
};

static inline void sum_member(void *arg, struct rh_map_node *node)
{
    struct rh_member *m = rh_container_of(node, struct rh_member, node);
    struct sums *s = arg;

    RH_OK_IF(m->subs > 0 && m->live <= m->subs);
    RH_OK_IF(rh_roster_after(s->room->roster, m->ord - 1) == m);
    s->subs += m->subs;
}

static inline void check_room(struct rh_room *room)
{
    struct sums s = {.room = room};
    struct rh_member *m = rh_roster_after(room->roster, 0);
    uint64_t subs = 0;
    size_t count = 0;

    for (unsigned k = 0; k < SHARDS; k++) {
        RH_EQ_INT(room->shards[k].subs > 0, room->interest >> k & 1);
        RH_OK_IF(room->shards[k].done <= room->shards[k].sent);
        subs += room->shards[k].subs;
    }
    rh_map_each(&room->members, sum_member, &s);
    RH_EQ_U64(s.subs, subs);
    for (; m; m = rh_roster_after(room->roster, m->ord))
        count++;
    RH_EQ_U64(count, rh_map_count(&room->members));
    RH_OK_IF(rh_room_by_uid(sh, room->uid) == room);
    RH_OK_IF(rh_map_count(&room->members) || rh_timer_armed(&room->alarm.timer));
    RH_EQ_INT(rh_list_empty(&room->held), rh_list_empty(&room->waiting));
}

#endif
