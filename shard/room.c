/* shard/room.c - a room at its home: who is in it, and what is asked of it.
 *
 * The home alone knows a room's members, number and history; all other shards ask. Each ask is
 * handled in one go and answered exactly once; a publish may have to wait before that, and so may
 * what others are told of (must_wait, shard/publish.c). What can fail is done first, so an ask that is refused has changed nothing.
 *
 *   not there --CREATE, JOIN--> empty --JOIN--> has members --the last subscription ends--> empty
 *   empty --rooms.empty_ttl, and no publish held--> not there
 *   any --DELETE--> not there: its name is free at once, its uid means nothing any more
 *
 * Answering an asker on our own shard runs the asker's code, which may tell us of ends of other
 * subscriptions right away. So what is needed behind an answer is looked up again, by uid.
 *
 * Invariants  (1) interest has bit k exactly when shards[k].subs > 0.
 *             (2) the sum of all members' subs is the sum of all shards' subs; live <= subs, > 0.
 *             (3) the roster has exactly the members.
 * Limits      RH_ROOMS_MAX rooms a shard, at which the one that has been empty longest makes place, and
 *             RH_ROOMS_BYTES of metas and histories; rooms.max_members, or the room's own, of a room.
 */
#include "shard/room_int.h"

#include <string.h>

#include "core/mem.h"
#include "shard/roster.h"

#define LOOK_MS   1000 /* history that is over its time is freed so much later, at most */
#define NO_MEMORY "out of memory, try again"
#define NO_ROOM   "no such room"

/* ---- epochs ---- */

void rh_epoch_hex(uint64_t uid, char dst[RH_EPOCH_LEN])
{
    for (int i = RH_EPOCH_LEN - 1; i >= 0; i--, uid >>= 4)
        dst[i] = "0123456789abcdef"[uid & 15];
}

uint64_t rh_epoch_parse(struct rh_span text)
{
    uint64_t uid = 0;

    if (text.len != RH_EPOCH_LEN)
        return 0;
    for (uint32_t i = 0; i < RH_EPOCH_LEN; i++) {
        char ch = text.at[i];

        if (ch >= '0' && ch <= '9')
            uid = uid << 4 | (uint64_t)(ch - '0');
        else if (ch >= 'a' && ch <= 'f')
            uid = uid << 4 | (uint64_t)(ch - 'a' + 10);
        else
            return 0;
    }
    return uid;
}

/* ---- finding ---- */

struct rh_room *rh_room_by_uid(const struct rh_shard *sh, uint64_t uid)
{
    struct rh_map_node *node = rh_map_first(&sh->rooms_by_uid, uid);

    return node ? rh_container_of(node, struct rh_room, by_uid) : NULL;
}

static struct rh_room *find_room(const struct rh_shard *sh, const struct rh_ask *ask)
{
    struct rh_map_node *node = rh_map_first(&sh->rooms, ask->room_hash);

    for (; node; node = rh_map_again(node)) {
        struct rh_room *room = rh_container_of(node, struct rh_room, node);

        if (rh_span_eq((struct rh_span){room->name, room->name_len}, rh_ask_room(ask)))
            return room;
    }
    return NULL;
}

struct rh_member *rh_room_member(const struct rh_room *room, const struct rh_ask *ask)
{
    struct rh_map_node *node = rh_map_first(&room->members, ask->user_hash);

    for (; node; node = rh_map_again(node)) {
        struct rh_member *m = rh_container_of(node, struct rh_member, node);

        if (rh_span_eq((struct rh_span){m->bytes, m->name_len}, rh_ask_user(ask)))
            return m;
    }
    return NULL;
}

/* ---- a room's life ---- */

static void free_member(void *arg, struct rh_map_node *node)
{
    rh_map_del(arg, node);
    rh_mem_free(rh_container_of(node, struct rh_member, node));
}

/* Accepts the half-built; it is in no map any more, and nothing is held. */
static void room_free(struct rh_shard *sh, struct rh_room *room)
{
    rh_alarm_clear(sh, &room->alarm);
    rh_history_clear(sh, room);
    if (rh_map_count(&room->members))
        rh_map_each(&room->members, free_member, &room->members);
    rh_map_fini(&room->members);
    rh_roster_fini(&room->roster);
    if (room->meta)
        sh->room_bytes -= room->meta->len;
    rh_list_del(&room->empty);
    rh_mem_free(room->meta);
    rh_mem_free(room);
}

/* It has no member, from now on. */
static void set_empty(struct rh_shard *sh, struct rh_room *room)
{
    room->empty_ms = sh->now_ms;
    rh_list_add(&sh->empty_rooms, &room->empty);
}

static void room_link(struct rh_shard *sh, struct rh_room *room)
{
    rh_map_add(&sh->rooms, &room->node, room->node.hash);
    rh_map_add(&sh->rooms_by_uid, &room->by_uid, room->uid);
    rh_stat_inc(&sh->stats, RH_STAT_rooms);
}

/* Nobody finds it any more. */
static void room_unlink(struct rh_shard *sh, struct rh_room *room)
{
    rh_map_del(&sh->rooms, &room->node);
    rh_map_del(&sh->rooms_by_uid, &room->by_uid);
    rh_stat_sub(&sh->stats, RH_STAT_rooms, 1);
}

/* UINT64_MAX: it is not empty. */
static uint64_t empty_until(const struct rh_shard *sh, const struct rh_room *room)
{
    return rh_map_count(&room->members) ? UINT64_MAX : room->empty_ms + sh->cfg->rooms_empty_ttl_ms;
}

void rh_room_set_alarm(struct rh_shard *sh, struct rh_room *room)
{
    uint64_t history = rh_history_expire(sh, room), due = empty_until(sh, room);

    if (!rh_list_empty(&room->held))
        due = RH_MAX(due, sh->now_ms + LOOK_MS);
    if (history != UINT64_MAX)
        due = RH_MIN(due, RH_MAX(history, sh->now_ms + LOOK_MS));
    if (due == UINT64_MAX)
        rh_alarm_clear(sh, &room->alarm);
    else
        rh_alarm_set(sh, &room->alarm, due);
}

static void on_alarm(struct rh_shard *sh, struct rh_alarm *alarm)
{
    struct rh_room *room = rh_container_of(alarm, struct rh_room, alarm);

    if (sh->now_ms < empty_until(sh, room) || !rh_list_empty(&room->held)) {
        rh_room_set_alarm(sh, room);
        return;
    }
    room_unlink(sh, room);
    room_free(sh, room);
}

static struct rh_text *text_of(struct rh_span span)
{
    struct rh_text *text = rh_mem_alloc(sizeof(*text) + span.len);

    if (!text)
        return NULL;
    text->len = span.len;
    memcpy(text->at, span.at, span.len);
    return text;
}

static uint64_t draw_uid(struct rh_shard *sh)
{
    uint64_t uid;

    do
        uid = rh_prng_next(&sh->prng);
    while (uid == 0 || rh_room_by_uid(sh, uid));
    return uid;
}

/* Memory for a room, its shards, and behind these the names. */
static struct rh_room *room_alloc(struct rh_shard *sh, struct rh_span name, struct rh_span creator)
{
    size_t align = alignof(struct rh_room_shard);
    size_t names = offsetof(struct rh_room, name) + name.len + creator.len;
    size_t shards = (RH_MAX(names, sizeof(struct rh_room)) + align - 1) / align * align;
    struct rh_room *room = rh_mem_zalloc(shards + sh->env->shards * sizeof(*room->shards));

    if (!room)
        return NULL;
    room->shards = (struct rh_room_shard *)(void *)((char *)room + shards);
    room->name_len = (uint8_t)name.len;
    memcpy(room->name, name.at, name.len);
    room->creator = room->name + name.len;
    room->creator_len = (uint8_t)creator.len;
    memcpy(room->creator, creator.at, creator.len);
    rh_list_init(&room->held);
    rh_list_init(&room->waiting);
    rh_list_init(&room->empty);
    rh_alarm_init(&room->alarm, on_alarm);
    return room;
}

/* At the bound the room that has been empty longest goes. */
static bool drop_empty(struct rh_shard *sh)
{
    struct rh_room *room = rh_container_of(sh->empty_rooms.next, struct rh_room, empty);

    if (rh_list_empty(&sh->empty_rooms) || !rh_list_empty(&room->held))
        return false;
    room_unlink(sh, room);
    room_free(sh, room);
    return true;
}

/* As CREATE says, or, without its fields, as a JOIN of an unknown room. Empty, with its alarm set.
 * NULL: no memory, or RH_ROOMS_MAX. */
static struct rh_room *room_create(struct rh_shard *sh, const struct rh_ask *ask)
{
    struct rh_room *room;

    if ((rh_map_count(&sh->rooms) >= RH_ROOMS_MAX && !drop_empty(sh)) ||
        sh->room_bytes + ask->meta_len > RH_ROOMS_BYTES) {
        rh_stat_inc(&sh->stats, RH_STAT_rooms_refused);
        return NULL;
    }
    room = room_alloc(sh, rh_ask_room(ask), rh_ask_user(ask));
    if (!room)
        return NULL;
    if (ask->meta_len)
        room->meta = text_of(rh_ask_meta(ask));
    if (room->meta)
        sh->room_bytes += room->meta->len;
    if ((ask->meta_len && !room->meta) || rh_map_init(&room->members) < 0) {
        room_free(sh, room);
        return NULL;
    }
    room->node.hash = ask->room_hash;
    room->uid = draw_uid(sh);
    room->max_members = ask->max_members;
    room->conflate = ask->conflate;
    room->is_ticket = ask->is_ticket;
    set_empty(sh, room);
    room_link(sh, room);
    rh_room_set_alarm(sh, room);
    return room;
}

/* ---- members ---- */

/* NULL: no memory. Without a subscription yet, which the caller adds. */
static struct rh_member *member_add(struct rh_shard *sh, struct rh_room *room,
                                    const struct rh_ask *ask)
{
    struct rh_span name = rh_ask_user(ask), type = rh_ask_type(ask);
    struct rh_member *m = rh_mem_zalloc(sizeof(*m) + name.len + type.len);

    if (!m)
        return NULL;
    m->ord = room->next_ord + 1;
    if (rh_roster_add(&room->roster, m) < 0) {
        rh_mem_free(m);
        return NULL;
    }
    room->next_ord = m->ord;
    m->since_ms = rh_now_unix_ms(sh);
    m->shard = ask->from;
    m->name_len = (uint8_t)name.len;
    m->type_len = (uint8_t)type.len;
    memcpy(m->bytes, name.at, name.len);
    if (type.len)
        memcpy(m->bytes + name.len, type.at, type.len);
    rh_map_add(&room->members, &m->node, ask->user_hash);
    rh_list_del(&room->empty);
    return m;
}

/* What the others are told, if they are told; `count` is the larger one, of before and after. */
static struct rh_msg *notice_of(struct rh_shard *sh, const struct rh_room *room, bool joined,
                                const struct rh_member *m, size_t count)
{
    struct rh_msg *notice;

    if (count < 2 || count > sh->cfg->rooms_notify_max)
        return NULL;
    notice = rh_notice_membership(sh, room, joined, m);
    if (!notice)
        rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
    return notice;
}

/* Its user's last subscription has ended. Returns what the others are to be told, or NULL. */
static struct rh_msg *member_del(struct rh_shard *sh, struct rh_room *room, struct rh_member *m)
{
    size_t before = rh_map_count(&room->members);
    struct rh_msg *notice;

    rh_map_del(&room->members, &m->node);
    rh_roster_del(&room->roster, m);
    notice = m->untold ? NULL : notice_of(sh, room, false, m, before);
    rh_mem_free(m);
    if (before == 1) {
        set_empty(sh, room);
        rh_room_set_alarm(sh, room);
    }
    return notice;
}

static void sub_add(struct rh_room *room, struct rh_member *m, const struct rh_ask *ask)
{
    rh_assert(m->shard == ask->from);
    if (!ask->again) {
        m->subs++;
        room->shards[m->shard].subs++;
        room->interest |= 1ull << m->shard;
    }
    m->live += ask->live;
    rh_assert(m->live <= m->subs);
}

/* A subscription changed, as RH_UNSUB_ flags say. Returns what the others are to be told, or NULL. */
static struct rh_msg *sub_end(struct rh_shard *sh, struct rh_room *room, unsigned from,
                              struct rh_member *m, unsigned flags)
{
    rh_assert(m->shard == from && m->subs > 0);
    if (flags & RH_UNSUB_DETACH) {
        rh_assert(m->live > 0);
        m->live--;
    }
    if (!(flags & RH_UNSUB_END))
        return NULL;
    m->subs--;
    rh_assert(m->live <= m->subs);
    if (--room->shards[from].subs == 0)
        room->interest &= ~(1ull << from);
    return m->subs ? NULL : member_del(sh, room, m);
}

void rh_room_unsub(struct rh_shard *sh, unsigned from, uint64_t uid, void *member, unsigned flags)
{
    struct rh_room *room = rh_room_by_uid(sh, uid);
    struct rh_msg *notice = room ? sub_end(sh, room, from, member, flags) : NULL;

    if (notice)
        rh_publish_notice(sh, room, notice);
}

void rh_room_unsub_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    RH_ON_SHARD(sh);
    rh_room_unsub(sh, ev->from, ev->a, ev->cookie, ev->flags);
}

/* ---- asks: what all have ---- */

static void refuse_for_memory(struct rh_shard *sh, struct rh_ask *take_ask)
{
    rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
    rh_ask_refuse(sh, take_ask, RH_WIRE_unavailable, NO_MEMORY);
}

/* What most answers say about the room. */
static void fill(const struct rh_room *room, struct rh_ask *ask)
{
    ask->uid = room->uid;
    ask->seq = room->seq;
    ask->members = (uint32_t)rh_map_count(&room->members);
}

/* The asker is told first; then, if the room is still there, the others. */
static void answer_and_tell(struct rh_shard *sh, struct rh_ask *take_ask, struct rh_msg *take_msg)
{
    uint64_t uid = take_ask->uid;
    struct rh_room *room;

    rh_ask_answer(sh, take_ask);
    room = rh_room_by_uid(sh, uid);
    if (take_msg && room)
        rh_publish_notice(sh, room, take_msg);
    else
        rh_msg_drop_any(take_msg);
}

/* ---- CREATE, DELETE ---- */

static void create_room(struct rh_shard *sh, struct rh_ask *take_ask)
{
    struct rh_room *room = room_create(sh, take_ask);

    if (!room) {
        refuse_for_memory(sh, take_ask);
        return;
    }
    fill(room, take_ask);
    rh_ask_answer(sh, take_ask);
}

static bool may_delete(const struct rh_room *room, const struct rh_ask *ask)
{
    struct rh_span creator = {room->creator, room->creator_len};

    return ask->is_admin || rh_span_eq(creator, rh_ask_user(ask));
}

static void delete_room(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    if (!may_delete(room, take_ask)) {
        rh_ask_refuse(sh, take_ask, RH_WIRE_forbidden,
                      "only its creator or an admin deletes a room");
        return;
    }
    fill(room, take_ask);
    room_unlink(sh, room);
    if (rh_publish_over(sh, room) < 0) {
        room_link(sh, room);
        refuse_for_memory(sh, take_ask);
        return;
    }
    rh_publish_refuse_held(sh, room);
    room_free(sh, room);
    rh_ask_answer(sh, take_ask);
}

/* ---- JOIN, LEAVE ---- */

static bool is_full(const struct rh_shard *sh, const struct rh_room *room)
{
    uint32_t max = room->max_members ? room->max_members : sh->cfg->rooms_max_members;

    return max && rh_map_count(&room->members) >= max;
}

/* What a JOIN's answer brings along. RH_ENOMEM. */
static int join_gather(struct rh_shard *sh, struct rh_room *room, struct rh_ask *ask)
{
    if (room->meta) {
        ask->text = text_of((struct rh_span){room->meta->at, (uint32_t)room->meta->len});
        if (!ask->text)
            return RH_ENOMEM;
    }
    return ask->has_since ? rh_history_recover(sh, room, ask) : RH_OK;
}

static void join_forget(struct rh_ask *ask)
{
    for (uint32_t i = 0; ask->replay && i < ask->replay->count; i++)
        rh_msg_drop_any(ask->replay->at[i]);
    rh_mem_free(ask->replay);
    rh_mem_free(ask->text);
    ask->replay = NULL;
    ask->text = NULL;
}

/* Answers; a new member is then announced, unless it has left meanwhile. */
static void join_answer(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask,
                        struct rh_member *m, bool is_new)
{
    size_t count = rh_map_count(&room->members);
    struct rh_msg *notice = is_new ? notice_of(sh, room, true, m, count) : NULL;
    uint64_t uid = room->uid, ord = m->ord;

    m->untold |= notice != NULL;
    fill(room, take_ask);
    take_ask->member = m;
    rh_ask_answer(sh, take_ask);
    if (!notice)
        return;
    room = rh_room_by_uid(sh, uid);
    m = room ? rh_roster_after(room->roster, ord - 1) : NULL;
    if (!m || m->ord != ord) {
        rh_msg_drop_any(notice);
        return;
    }
    m->untold = false;
    rh_publish_notice(sh, room, notice);
}

static void join_room(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask,
                      bool is_made)
{
    struct rh_member *m = take_ask->again ? take_ask->member : rh_room_member(room, take_ask);
    bool is_new = !m;
    int rc;

    if (is_new && is_full(sh, room)) {
        rh_ask_refuse(sh, take_ask, RH_WIRE_room_full, "the room is full");
        return;
    }
    rc = join_gather(sh, room, take_ask);
    if (rc == RH_OK && is_new) {
        m = member_add(sh, room, take_ask);
        rc = m ? RH_OK : RH_ENOMEM;
    }
    if (rc < 0) {
        join_forget(take_ask);
        if (is_made) {
            room_unlink(sh, room);
            room_free(sh, room);
        }
        refuse_for_memory(sh, take_ask);
        return;
    }
    sub_add(room, m, take_ask);
    join_answer(sh, room, take_ask, m, is_new);
}

static void join(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    bool is_made = false;

    if (take_ask->again && (!room || room->uid != take_ask->uid)) {
        if (take_ask->notify) {
            rh_ask_refuse(sh, take_ask, RH_WIRE_not_found, "the room has been deleted");
            return;
        }
        take_ask->again = false; /* what it believes in is over: it begins anew, and is connected */
        take_ask->live = true;
    }
    if (!room) {
        if (!sh->cfg->rooms_auto_create) {
            rh_ask_refuse(sh, take_ask, RH_WIRE_not_found, NO_ROOM);
            return;
        }
        room = room_create(sh, take_ask);
        is_made = true;
    }
    if (room)
        join_room(sh, room, take_ask, is_made);
    else
        refuse_for_memory(sh, take_ask);
}

static void leave(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    unsigned flags = RH_UNSUB_END | (take_ask->live ? RH_UNSUB_DETACH : 0);
    struct rh_msg *notice = NULL;

    if (take_ask->member && take_ask->uid == room->uid)
        notice = sub_end(sh, room, take_ask->from, take_ask->member, flags);
    fill(room, take_ask);
    answer_and_tell(sh, take_ask, notice);
}

/* ---- PUBLISH, HISTORY, MEMBERS ---- */

static bool may_look(const struct rh_room *room, const struct rh_ask *ask)
{
    return ask->is_admin || rh_room_member(room, ask);
}

static void publish(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    if (may_look(room, take_ask))
        rh_publish(sh, room, take_ask);
    else
        rh_ask_refuse(sh, take_ask, RH_WIRE_forbidden, "only members publish in a room");
}

static void answer_text(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask,
                        struct rh_text *take_text)
{
    if (!take_text) {
        refuse_for_memory(sh, take_ask);
        return;
    }
    take_ask->text = take_text;
    fill(room, take_ask);
    rh_ask_answer(sh, take_ask);
}

static void history(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    if (may_look(room, take_ask))
        answer_text(sh, room, take_ask, rh_history_text(sh, room, take_ask));
    else
        rh_ask_refuse(sh, take_ask, RH_WIRE_forbidden, "only members see a room's history");
}

static void members(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    uint32_t limit = RH_MIN(take_ask->limit, RH_PAGE_MAX);

    answer_text(sh, room, take_ask, rh_roster_page(room->roster, take_ask->since, limit));
}

/* ---- the way in ---- */

/* Would the others be told that this user comes or goes? */
static bool is_told(const struct rh_shard *sh, const struct rh_room *room, const struct rh_ask *ask)
{
    const struct rh_member *m = rh_room_member(room, ask);

    if (ask->op == RH_ASK_JOIN)
        return !m && rh_map_count(&room->members) < sh->cfg->rooms_notify_max;
    return m && ask->sub && m->subs == 1 &&
           rh_map_count(&room->members) <= sh->cfg->rooms_notify_max;
}

/* What makes a notice waits like a publish, so that notices are bounded, too; a LEAVE also behind
 * what waits already, which its own client may have published. A deletion does not wait for what is
 * unfinished, only for room in the spills. (A publish looks for itself.) */
static bool must_wait(const struct rh_shard *sh, const struct rh_room *room,
                      const struct rh_ask *ask)
{
    switch ((enum rh_room_op)ask->op) {
    case RH_ASK_JOIN:
        return is_told(sh, room, ask) && !rh_publish_may_go(sh, room);
    case RH_ASK_LEAVE:
        return !rh_list_empty(&room->held) ||
               (is_told(sh, room, ask) && !rh_publish_may_go(sh, room));
    case RH_ASK_DELETE:
        return !rh_publish_has_room(sh, room);
    default:
        return false;
    }
}

void rh_room_handle(struct rh_shard *sh, struct rh_ask *take_ask)
{
    struct rh_room *room = find_room(sh, take_ask);
    bool needs_room = take_ask->op != RH_ASK_CREATE && take_ask->op != RH_ASK_JOIN;

    RH_ON_SHARD(sh);
    if (room && !take_ask->waited && must_wait(sh, room, take_ask)) {
        take_ask->waited = true;
        rh_publish_hold(sh, room, take_ask);
        return;
    }
    if (!room && needs_room) {
        rh_ask_refuse(sh, take_ask, RH_WIRE_not_found, NO_ROOM);
        return;
    }
    switch ((enum rh_room_op)take_ask->op) {
    case RH_ASK_CREATE:
        if (room)
            rh_ask_refuse(sh, take_ask, RH_WIRE_conflict, "there is a room of this name");
        else
            create_room(sh, take_ask);
        break;
    case RH_ASK_JOIN:
        join(sh, room, take_ask);
        break;
    case RH_ASK_LEAVE:
        leave(sh, room, take_ask);
        break;
    case RH_ASK_PUBLISH:
        publish(sh, room, take_ask);
        break;
    case RH_ASK_MEMBERS:
        members(sh, room, take_ask);
        break;
    case RH_ASK_DELETE:
        delete_room(sh, room, take_ask);
        break;
    case RH_ASK_HISTORY:
        history(sh, room, take_ask);
        break;
    }
}

void rh_room_fanned(struct rh_shard *sh, unsigned from, uint64_t uid, uint64_t done,
                    uint64_t done_bytes)
{
    struct rh_room *room = rh_room_by_uid(sh, uid);
    struct rh_room_shard *there;

    if (!room)
        return;
    there = &room->shards[from];
    there->done += done;
    there->done_bytes += done_bytes;
    rh_assert(there->done <= there->sent && there->done_bytes <= there->sent_bytes);
    rh_publish_held(sh, room);
}

void rh_room_fanned_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    RH_ON_SHARD(sh);
    rh_room_fanned(sh, ev->from, ev->a, ev->b, ev->c);
}

static void forget_room(void *arg, struct rh_map_node *node)
{
    struct rh_shard *sh = arg;
    struct rh_room *room = rh_container_of(node, struct rh_room, node);

    room_unlink(sh, room);
    rh_publish_forget_held(sh, room);
    room_free(sh, room);
}

void rh_rooms_fini(struct rh_shard *sh)
{
    if (rh_map_count(&sh->rooms))
        rh_map_each(&sh->rooms, forget_room, sh);
}
