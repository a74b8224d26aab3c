/* shard/publish.c - what a room sends, and what it keeps of that.
 *
 * A publish gets its number here: the home completes the frame that the asker's shard has written,
 * and hands one hold of it to each shard with subscribers and one to the history. All that may fail
 * happens before the number is given, so numbers have no gap, and no shard misses what another gets.
 *
 * A room whose messages are not handed out as fast as they come holds its next publishes back:
 *
 *   publish --no shard is behind, and none held--> number, shards, answer
 *      |                                              ^
 *      `--else--> held --FANNED, or a new pass: the first ones, in order
 *
 * The asker is answered only then, and asks are bounded, so this bounds what is under way. Notices
 * are not held: the joins and leaves that cause them wait by the same rule, and a deletion while the
 * spill to a shard that it would tell is over its mark (must_wait in shard/room.c). Asks of our own
 * clients need no credit; what is held of them is bounded as if they did (shard/route.c).
 *
 * Our own shard is handed a message last, and its asker answered behind that: both run code that may
 * come back to us, and the room is not touched any more.
 *
 * Invariants  (1) sent - done of a shard is what it has been sent and has not reported.
 *             (2) history, if there is any, is the last history_count numbers up to seq.
 * Limits      RH_UNFINISHED_MAX, RH_UNFINISHED_BYTES; rooms.history_size, RH_HISTORY_BYTES of a
 *             room, RH_ROOMS_BYTES of all of a shard.
 */
#include <string.h>

#include "core/limit.h"
#include "core/mem.h"
#include "shard/room_int.h"

#define HISTORY_MIN 8 /* places */

/* ---- completing a frame ---- */

static uint32_t back(struct rh_msg *msg, uint32_t at, const char *text, size_t len)
{
    at -= (uint32_t)len;
    memcpy(msg->bytes + at, text, len);
    return at;
}

static uint32_t back_u64(struct rh_msg *msg, uint32_t at, uint64_t v)
{
    do
        msg->bytes[--at] = (uint8_t)('0' + v % 10);
    while (v /= 10);
    return at;
}

#define BACK(msg, at, literal) back(msg, at, "" literal, sizeof(literal) - 1)

/* The room's next number; what stands before it is written backwards from there. */
static void give_seq(const struct rh_shard *sh, struct rh_room *room, struct rh_msg *msg)
{
    uint32_t end = msg->seq_at + msg->frame_len, at = msg->seq_at;
    uint8_t head[RH_WS_HEAD_MAX];
    size_t head_len;

    rh_assert(msg->seq_at >= RH_ROOM_HEAD_MAX);
    msg->uid = room->uid;
    msg->seq = ++room->seq;
    at = BACK(msg, back_u64(msg, at, msg->seq), RH_ROOM_HEAD_SEQ);
    msg->data_at = at;
    at = back_u64(msg, BACK(msg, at, RH_ROOM_HEAD_DATA), rh_now_unix_ms(sh));
    at = BACK(msg, at, RH_ROOM_HEAD_TEXT);
    head_len = rh_ws_head(head, RH_WS_TEXT, true, end - at, NULL);
    msg->frame_at = back(msg, at, (const char *)head, head_len);
    msg->frame_len = end - msg->frame_at;
    if (!room->conflate)
        msg->key_len = 0; /* what is queued is not replaced */
}

/* ---- to the shards ---- */

/* Promises that the next `tells` to each of the other shards with subscribers succeed. */
static int reserve(struct rh_shard *sh, const struct rh_room *room, uint32_t tells)
{
    int rc = RH_OK;

    for (uint64_t to = room->interest & ~(1ull << sh->tid); to && rc == RH_OK; to &= to - 1)
        rc = rh_mesh_reserve(sh->mesh, (unsigned)__builtin_ctzll(to), tells);
    return rc;
}

static void count_sent(struct rh_room *room, unsigned to, uint32_t bytes)
{
    room->shards[to].sent++;
    room->shards[to].sent_bytes += bytes;
}

/* Hands one hold to each other shard with subscribers, which was reserved. */
static void send_others(struct rh_shard *sh, struct rh_room *room, struct rh_msg *msg)
{
    uint64_t seq = msg->kind == RH_MSG_NOTICE ? 0 : msg->seq;
    uint32_t bytes = msg->frame_len;

    for (uint64_t to = room->interest & ~(1ull << sh->tid); to; to &= to - 1) {
        unsigned tid = (unsigned)__builtin_ctzll(to);
        struct rh_event ev = {
            .kind = RH_EV_FANOUT, .a = room->uid, .b = seq, .msg = msg, .cost = bytes};
        int rc = rh_mesh_tell(sh->mesh, tid, &ev);

        rh_assert(rc == RH_OK);
        count_sent(room, tid, bytes);
    }
}

static bool is_here(const struct rh_shard *sh, const struct rh_room *room)
{
    return room->interest >> sh->tid & 1;
}

/* Likewise to our own shard, if it has subscribers. The room may have changed, or be gone, behind
 * this. */
static void send_here(struct rh_shard *sh, struct rh_room *room, struct rh_msg *msg)
{
    if (!is_here(sh, room))
        return;
    count_sent(room, sh->tid, msg->frame_len);
    rh_fanout_push(sh, sh->tid, room->uid, msg);
}

/* Makes its one hold into `holds`; without any it is gone. */
static void hold(struct rh_msg *msg, uint32_t holds)
{
    if (holds == 0)
        rh_msg_drop_any(msg);
    else if (holds > 1)
        rh_msg_hold_any(msg, holds - 1);
}

static uint32_t shards_of(const struct rh_room *room)
{
    return (uint32_t)__builtin_popcountll(room->interest);
}

void rh_publish_notice(struct rh_shard *sh, struct rh_room *room, struct rh_msg *take_msg)
{
    if (!room->interest || reserve(sh, room, 1) < 0) {
        if (room->interest)
            rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
        rh_msg_drop_any(take_msg);
        return;
    }
    take_msg->uid = room->uid;
    hold(take_msg, shards_of(room));
    send_others(sh, room, take_msg);
    send_here(sh, room, take_msg);
}

static void tell_others_over(struct rh_shard *sh, const struct rh_room *room)
{
    for (uint64_t to = room->interest & ~(1ull << sh->tid); to; to &= to - 1) {
        struct rh_event ev = {.kind = RH_EV_ROOM_OVER, .a = room->uid};
        int rc = rh_mesh_tell(sh->mesh, (unsigned)__builtin_ctzll(to), &ev);

        rh_assert(rc == RH_OK);
    }
}

int rh_publish_over(struct rh_shard *sh, struct rh_room *room)
{
    struct rh_msg *notice;

    if (!room->interest)
        return RH_OK;
    notice = rh_notice_deleted(sh, (struct rh_span){room->name, room->name_len});
    if (!notice || reserve(sh, room, 2) < 0) {
        rh_msg_drop_any(notice);
        return RH_ENOMEM;
    }
    notice->uid = room->uid;
    hold(notice, shards_of(room));
    send_others(sh, room, notice);
    tell_others_over(sh, room);
    send_here(sh, room, notice);
    if (is_here(sh, room))
        rh_fanout_over(sh, room->uid);
    return RH_OK;
}

/* ---- history ---- */

static struct rh_room_item *item(const struct rh_room *room, uint32_t i)
{
    return &room->history[(room->history_head + i) & (room->history_room - 1)];
}

static void drop_oldest(struct rh_shard *sh, struct rh_room *room)
{
    struct rh_msg *msg = item(room, 0)->msg;

    room->history_head = (room->history_head + 1) & (room->history_room - 1);
    room->history_count--;
    room->history_bytes -= msg->frame_len;
    sh->room_bytes -= msg->frame_len;
    rh_stat_sub(&sh->stats, RH_STAT_room_history_bytes, msg->frame_len);
    rh_msg_drop_any(msg);
}

void rh_history_clear(struct rh_shard *sh, struct rh_room *room)
{
    while (room->history_count)
        drop_oldest(sh, room);
    rh_mem_free(room->history);
    room->history = NULL;
    room->history_room = room->history_head = 0;
}

uint64_t rh_history_expire(struct rh_shard *sh, struct rh_room *room)
{
    uint64_t ttl = sh->cfg->rooms_history_ttl_ms;

    while (room->history_count && (room->history_count > sh->cfg->rooms_history_size ||
                                   item(room, 0)->at_ms + ttl <= sh->now_ms))
        drop_oldest(sh, room);
    if (room->history_count)
        return item(room, 0)->at_ms + ttl;
    rh_history_clear(sh, room);
    return UINT64_MAX;
}

/* Makes the circle larger. */
static bool grow(struct rh_room *room)
{
    uint32_t places = room->history_room ? 2 * room->history_room : HISTORY_MIN;
    struct rh_room_item *more = rh_mem_alloc(places * sizeof(*more));

    if (!more)
        return false;
    for (uint32_t i = 0; i < room->history_count; i++)
        more[i] = *item(room, i);
    rh_mem_free(room->history);
    room->history = more;
    room->history_room = places;
    room->history_head = 0;
    return true;
}

/* Makes room for one more of `bytes`: what is kept stays the newest. False: it cannot be kept. */
static bool make_place(struct rh_shard *sh, struct rh_room *room, uint32_t bytes)
{
    rh_history_expire(sh, room);
    while (room->history_count && (room->history_count >= sh->cfg->rooms_history_size ||
                                   room->history_bytes + bytes > RH_HISTORY_BYTES ||
                                   sh->room_bytes + bytes > RH_ROOMS_BYTES))
        drop_oldest(sh, room);
    if (!sh->cfg->rooms_history_size || bytes > RH_HISTORY_BYTES ||
        sh->room_bytes + bytes > RH_ROOMS_BYTES)
        return false;
    if (room->history_count < room->history_room || grow(room))
        return true;
    rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
    if (room->history_count)
        drop_oldest(sh, room);
    return room->history_room > 0;
}

/* True: the history has taken a hold. */
static bool keep(struct rh_shard *sh, struct rh_room *room, struct rh_msg *msg)
{
    if (!make_place(sh, room, msg->frame_len))
        return false;
    *item(room, room->history_count) = (struct rh_room_item){msg, sh->now_ms};
    room->history_bytes += msg->frame_len;
    sh->room_bytes += msg->frame_len;
    rh_stat_add(&sh->stats, RH_STAT_room_history_bytes, msg->frame_len);
    if (++room->history_count == 1)
        rh_room_set_alarm(sh, room);
    return true;
}

/* How many of those that are kept come before the one behind number `since`. */
static uint32_t index_behind(const struct rh_room *room, uint64_t since)
{
    uint64_t gone = room->seq - room->history_count; /* the last one that is not kept */

    return since <= gone ? 0 : (uint32_t)RH_MIN(since - gone, room->history_count);
}

static bool is_excluded(const struct rh_msg *msg, const struct rh_ask *ask)
{
    struct rh_span from = {(const char *)msg->bytes + msg->from_at, msg->from_len};

    return msg->excludes && msg->from_hash == ask->user_hash && rh_span_eq(from, rh_ask_user(ask));
}

/* Holds what is kept from there on, but what excludes the asker. */
static int replay_from(struct rh_room *room, struct rh_ask *ask, uint32_t first)
{
    uint32_t count = 0, end = room->history_count;
    struct rh_missed *missed;

    for (uint32_t i = first; i < end; i++)
        count += !is_excluded(item(room, i)->msg, ask);
    if (count == 0)
        return RH_OK;
    missed = rh_mem_alloc(sizeof(*missed) + count * sizeof(missed->at[0]));
    if (!missed)
        return RH_ENOMEM;
    missed->count = 0;
    for (uint32_t i = first; i < end; i++) {
        struct rh_msg *msg = item(room, i)->msg;

        if (is_excluded(msg, ask))
            continue;
        rh_msg_hold_any(msg, 1);
        missed->at[missed->count++] = msg;
    }
    ask->replay = missed;
    return RH_OK;
}

int rh_history_recover(struct rh_shard *sh, struct rh_room *room, struct rh_ask *ask)
{
    uint64_t gone;

    rh_history_expire(sh, room);
    gone = room->seq - room->history_count;
    ask->recovered = false;
    ask->missed = 0;
    ask->replay = NULL;
    if (ask->has_epoch && ask->epoch != room->uid)
        return replay_from(room, ask, 0);
    if (ask->since > room->seq)
        return RH_OK;
    ask->recovered = ask->since >= gone;
    ask->missed = ask->recovered ? 0 : gone - ask->since;
    return replay_from(room, ask, index_behind(room, ask->since));
}

/* Which items the page has: *first up to the returned one; *bytes of data. */
static uint32_t page_of(const struct rh_room *room, const struct rh_ask *ask, uint32_t *ret_first,
                        size_t *ret_bytes)
{
    uint32_t limit = RH_MIN(ask->limit, RH_PAGE_MAX), first, end;
    size_t bytes = 0;

    if (ask->has_since) {
        first = end = index_behind(room, ask->since);
        while (end < room->history_count && end - first < limit && bytes < RH_PAGE_BYTES)
            bytes += rh_msg_data(item(room, end++)->msg).len;
    } else {
        first = end = room->history_count;
        while (first > 0 && end - first < limit && bytes < RH_PAGE_BYTES)
            bytes += rh_msg_data(item(room, --first)->msg).len;
    }
    *ret_first = first;
    *ret_bytes = bytes;
    return end;
}

#define AROUND_ITEMS 96 /* {"items":[],"seq":...,"epoch":"..."} */

/* {"items":[...],"seq":12,"epoch":"0123456789abcdef"} */
struct rh_text *rh_history_text(struct rh_shard *sh, struct rh_room *room, const struct rh_ask *ask)
{
    uint32_t first, end;
    char epoch[RH_EPOCH_LEN];
    struct rh_text *text;
    struct rh_writer w;
    size_t size;

    rh_history_expire(sh, room);
    end = page_of(room, ask, &first, &size);
    size += AROUND_ITEMS + (end - first);
    text = rh_mem_alloc(sizeof(*text) + size);
    if (!text)
        return NULL;
    rh_writer_init(&w, text->at, size);
    RH_PUT(&w, "{\"items\":[");
    for (uint32_t i = first; i < end; i++) {
        struct rh_span data = rh_msg_data(item(room, i)->msg);

        if (i > first)
            RH_PUT(&w, ",");
        rh_put(&w, data.at, data.len);
    }
    RH_PUT(&w, "],\"seq\":");
    rh_put_u64(&w, room->seq);
    RH_PUT(&w, ",\"epoch\":\"");
    rh_epoch_hex(room->uid, epoch);
    rh_put(&w, epoch, sizeof(epoch));
    RH_PUT(&w, "\"}");
    rh_assert(!w.full);
    text->len = rh_writer_len(&w);
    return text;
}

/* ---- a publish: now, or held ---- */

bool rh_publish_has_room(const struct rh_shard *sh, const struct rh_room *room)
{
    for (uint64_t to = room->interest & ~(1ull << sh->tid); to; to &= to - 1)
        if (!rh_mesh_has_room(sh->mesh, (unsigned)__builtin_ctzll(to)))
            return false;
    return true;
}

bool rh_publish_may_go(const struct rh_shard *sh, const struct rh_room *room)
{
    for (uint64_t to = room->interest; to; to &= to - 1) {
        const struct rh_room_shard *there = &room->shards[__builtin_ctzll(to)];

        if (there->sent - there->done >= RH_UNFINISHED_MAX ||
            there->sent_bytes - there->done_bytes >= RH_UNFINISHED_BYTES)
            return false;
    }
    return rh_publish_has_room(sh, room);
}

/* Could its id be one that is taken? */
static bool takes_look(const struct rh_shard *sh, const struct rh_msg *msg)
{
    return msg->given && rh_map_count(&sh->taken);
}

/* The room may be gone behind this. */
static void publish_now(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    struct rh_msg *msg = take_ask->msg;
    bool kept, owed = msg->ack;

    if (reserve(sh, room, 1) < 0) {
        rh_stat_inc(&sh->stats, RH_STAT_memory_failures);
        rh_ask_refuse(sh, take_ask, RH_WIRE_unavailable, "out of memory, try again");
        return;
    }
    take_ask->members = (uint32_t)rh_map_count(&room->members);
    if (msg->excludes && rh_room_member(room, take_ask))
        take_ask->members--;
    if ((owed || takes_look(sh, msg)) && !rh_room_owe(sh, room, take_ask))
        return;
    take_ask->msg = NULL;
    give_seq(sh, room, msg);
    take_ask->uid = room->uid;
    take_ask->seq = room->seq;
    kept = keep(sh, room, msg);
    hold(msg, shards_of(room) + kept + 2 * owed);
    if (owed)
        rh_room_accept(sh, take_ask, msg);
    if (room->interest) {
        send_others(sh, room, msg);
        send_here(sh, room, msg);
    }
    rh_ask_answer(sh, take_ask);
}

static bool is_publish(const struct rh_ask *ask)
{
    return ask->op == RH_ASK_PUBLISH;
}

void rh_publish_hold(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    bool publish = is_publish(take_ask);

    if (rh_list_empty(&room->held))
        rh_list_add(&sh->held_rooms, &room->waiting);
    rh_list_add(&room->held, &take_ask->held);
    if (take_ask->from == sh->tid) {
        sh->held_own++;
        sh->held_own_bytes += take_ask->cost;
    }
    rh_stat_inc(&sh->stats, publish ? RH_STAT_room_publishes_held : RH_STAT_room_changes_held);
    rh_stat_inc(&sh->stats,
                publish ? RH_STAT_room_publishes_waiting : RH_STAT_room_changes_waiting);
}

/* There is one. */
static struct rh_ask *first_held(const struct rh_room *room)
{
    return rh_container_of(room->held.next, struct rh_ask, held);
}

/* What is owed needs room on the way to the record thread, too. */
static bool may_go(const struct rh_shard *sh, const struct rh_room *room, const struct rh_ask *ask)
{
    if (is_publish(ask) && ask->msg->ack && !rh_mesh_has_room(sh->mesh, sh->env->record))
        return false;
    return rh_publish_may_go(sh, room);
}

/* The first one that is held. */
static struct rh_ask *let_go(struct rh_shard *sh, struct rh_room *room)
{
    struct rh_ask *ask = first_held(room);

    rh_list_del(&ask->held);
    if (rh_list_empty(&room->held))
        rh_list_del(&room->waiting);
    if (ask->from == sh->tid) {
        sh->held_own--;
        sh->held_own_bytes -= ask->cost;
    }
    rh_stat_sub(&sh->stats,
                is_publish(ask) ? RH_STAT_room_publishes_waiting : RH_STAT_room_changes_waiting, 1);
    return ask;
}

void rh_publish(struct rh_shard *sh, struct rh_room *room, struct rh_ask *take_ask)
{
    /* On a clock that is sixty times as slow a rate per second is one per minute. */
    if (!rh_rate_take(&room->rate_ns, sh->now_ns / 60, sh->cfg->rooms_broadcasts_per_minute, 0))
        rh_ask_refuse(sh, take_ask, RH_WIRE_rate_limited, "too many messages in this room");
    else if (!rh_list_empty(&room->held) || !may_go(sh, room, take_ask))
        rh_publish_hold(sh, room, take_ask);
    else
        publish_now(sh, room, take_ask);
}

void rh_publish_held(struct rh_shard *sh, struct rh_room *room)
{
    uint64_t uid = room->uid;

    while (room && !rh_list_empty(&room->held) && may_go(sh, room, first_held(room))) {
        struct rh_ask *ask = let_go(sh, room);

        if (is_publish(ask))
            publish_now(sh, room, ask);
        else
            rh_room_handle(sh, ask);
        room = rh_room_by_uid(sh, uid);
    }
}

/* Each once, in their order; who still waits keeps its place. */
void rh_publish_resume(struct rh_shard *sh)
{
    struct rh_list waiting;

    rh_list_init(&waiting);
    while (!rh_list_empty(&sh->held_rooms)) {
        struct rh_list *node = sh->held_rooms.next;

        rh_list_del(node);
        rh_list_add(&waiting, node);
    }
    while (!rh_list_empty(&waiting)) {
        struct rh_room *room = rh_container_of(waiting.next, struct rh_room, waiting);

        rh_list_del(&room->waiting);
        rh_list_add(&sh->held_rooms, &room->waiting);
        rh_publish_held(sh, room);
    }
}

void rh_publish_refuse_held(struct rh_shard *sh, struct rh_room *room)
{
    while (!rh_list_empty(&room->held)) {
        struct rh_ask *ask = let_go(sh, room);

        if (is_publish(ask))
            rh_ask_refuse(sh, ask, RH_WIRE_not_found, "the room has been deleted");
        else
            rh_room_handle(sh, ask); /* nobody finds the room any more: as if it came now */
    }
}

void rh_publish_forget_held(struct rh_shard *sh, struct rh_room *room)
{
    while (!rh_list_empty(&room->held))
        rh_ask_free(let_go(sh, room));
}
