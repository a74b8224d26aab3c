/* tests/store/test_record_start.c - what a start finds: messages, ids, old segments, the time. */
#include "core/err.h"
#include "tests/store/disk.h"
#include "tests/store/record_rig.h"

static const char *const crowd[] = {"ann", "bob", "cid", "dan", "eve"};
static const struct rig_accept asked = {.asker = 1, .attempt = 1, .cookie = 40};

static struct rh_msg *numbered(const char *to, unsigned n, const char *text)
{
    static char id[32];
    struct rig_spec spec = {.from = "sam", .to = to, .id = id, .text = text};

    snprintf(id, sizeof(id), "m%06u", n);
    return rig_msg(&spec);
}

static struct rh_msg *of_room(const char *id, unsigned shares)
{
    struct rig_spec spec = {.kind = RH_MSG_ROOM,
                            .from = "sam",
                            .to = "lobby",
                            .id = id,
                            .shares = crowd,
                            .share_count = shares};

    return rig_msg(&spec);
}

static void begin(void)
{
    rig_init();
    rig_open();
    rig_forget();
}

/* As a shard would find them the same: all but what belongs to a run. */
static void wants_same(const struct rh_msg *a, const struct rh_msg *b)
{
    size_t a_len, b_len;
    const uint8_t *a_text = rh_msg_text(a, &a_len), *b_text = rh_msg_text(b, &b_len);

    RH_EQ_U64(a_len, b_len);
    RH_EQ_MEM(a_text, b_text, a_len);
    RH_EQ_INT(a->frame_len, b->frame_len);
    RH_EQ_MEM(rh_msg_frame(a), rh_msg_frame(b), a->frame_len);
    RH_EQ_INT(a->kind, b->kind);
    RH_EQ_INT(a->ack << 3 | a->given << 2 | a->from_user << 1 | a->high,
              b->ack << 3 | b->given << 2 | b->from_user << 1 | b->high);
    RH_EQ_U64(a->seq, b->seq);
    RH_EQ_U64(a->uid, b->uid);
    RH_EQ_U64(a->created_ms, b->created_ms);
    RH_EQ_U64(a->expires_ms, b->expires_ms);
    RH_EQ_INT(a->to_len << 16 | a->from_len << 8 | a->id_len,
              b->to_len << 16 | b->from_len << 8 | b->id_len);
    RH_EQ_MEM(a->bytes + a->to_at, b->bytes + b->to_at, a->to_len);
    RH_EQ_MEM(a->bytes + a->from_at, b->bytes + b->from_at, a->from_len);
    RH_EQ_MEM(a->bytes + a->id_at, b->bytes + b->id_at, a->id_len);
    RH_EQ_U64(a->to_hash, b->to_hash);
    RH_EQ_U64(a->from_hash, b->from_hash);
    RH_EQ_INT(a->attempt_len, b->attempt_len);
    RH_EQ_MEM(a->bytes + a->attempt_at, "1", 1);
    RH_EQ_MEM(a->bytes + a->ack_at, "true", 4);
}

RH_TEST(record_start, a_message_is_the_same_after_a_restart)
{
    struct rh_msg *msg;
    struct rh_event *ev;

    begin();
    msg = numbered("tom", 1, "text");
    msg->high = true;
    rig_accept(msg, &asked);
    rig_attempt(msg, 0, 3);
    rig_settle();
    rig_crash(1);
    RH_EQ_INT(rig_count(RH_EV_OWED), 1);
    RH_EQ_INT(rig_count(RH_EV_LOADED), SHARDS);
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    ev = rig_find(RH_EV_OWED, 0);
    RH_EQ_INT(ev->from, rig_shard_of("tom"));
    RH_EQ_U64(ev->a, 3);
    wants_same(ev->msg, msg);
    RH_EQ_U64(((struct rh_msg *)ev->msg)->id_hash, rh_hash(&rig.env.hash_key, "m000001", 7));
    rh_msg_drop_any(msg);
    msg = ev->msg;
    rh_msg_hold_any(msg, 1);
    rig_forget();
    rig_attempt(msg, 0, 4); /* life goes on */
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_settle();
    RH_EQ_STR(rig_story(), "STATUS");
    rh_msg_drop_any(msg);
    rig_crash(2);
    RH_EQ_INT(rig_count(RH_EV_OWED), 0);
    rig_fini();
}

RH_TEST(record_start, a_room_s_message_comes_back_with_the_shares_that_are_owed)
{
    const struct rig_accept room = {.asker = 0, .recipients = 6, .dedup_ms = 60000};
    struct rh_msg *msg, *again;
    unsigned seen = 0;

    begin();
    msg = of_room("r1", 5);
    msg->shares->at[3].live = false;
    rig_accept(msg, &room);
    rig_settled(msg, 1, RH_STATE_failed, RH_REASON_queue_full);
    rig_settle();
    rig_settled(msg, 4, RH_STATE_success, 0);
    rig_attempt(msg, 2, 2);
    rig_settle();
    rig_crash(1);
    RH_EQ_INT(rig_count(RH_EV_OWED), 3);
    for (unsigned i = 0; i < 3; i++) {
        struct rh_event *ev = rig_find(RH_EV_OWED, i);

        RH_EQ_INT(ev->from, rig_shard_of(crowd[ev->c]));
        RH_EQ_U64(ev->a, ev->c == 2 ? 2 : ev->c == 3 ? 0 : 1);
        seen |= 1u << ev->c;
    }
    RH_EQ_INT(seen, 1 | 4 | 8);
    RH_EQ_INT(rig_count(RH_EV_OWED_ROOM), 1);
    RH_EQ_INT(rig_find(RH_EV_OWED_ROOM, 0)->from, rig_shard_of("lobby"));
    RH_EQ_U64(rig_find(RH_EV_OWED_ROOM, 0)->b, 6);
    RH_EQ_INT(rig_count(RH_EV_REMEMBER), 1);
    RH_EQ_INT(((struct rh_remembered *)rig_find(RH_EV_REMEMBER, 0)->msg)->recipients, 6);
    RH_EQ_INT(((struct rh_remembered *)rig_find(RH_EV_REMEMBER, 0)->msg)->event, RH_MSG_ROOM);
    again = rig_find(RH_EV_OWED, 0)->msg;
    rh_msg_hold_any(again, 1);
    wants_same(again, msg);
    RH_EQ_INT(again->shares->count, 5);
    for (unsigned i = 0; i < 5; i++)
        RH_EQ_MEM(rh_share_name(again->shares, i), crowd[i], 3);
    rig_forget();
    rig_settled(again, 0, RH_STATE_success, 0);
    rig_settled(again, 2, RH_STATE_success, 0);
    rig_settled(again, 3, RH_STATE_expired, RH_REASON_expired);
    rig_settle();
    RH_EQ_INT(rig_count(RH_EV_STATUS), 1);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->a, RH_STATE_failed | RH_REASON_queue_full << 8);
    RH_EQ_U64(rig_find(RH_EV_STATUS, 0)->b, 5ull << 32 | 3);
    RH_EQ_INT(rig_count(RH_EV_RELEASED), 1);
    rh_msg_drop_any(msg);
    rh_msg_drop_any(again);
    rig_fini();
}

RH_TEST(record_start, nothing_of_a_run_s_shards_is_stored)
{
    struct rh_msg *msg;

    begin();
    msg = of_room("r1", 5);
    rig_accept(msg, &asked);
    rig_settle();
    rh_msg_drop_any(msg);
    disk_cut(1);
    rig_close();
    rig.env.hash_key = (struct rh_hash_key){77, 78};
    rig_open();
    RH_EQ_INT(rig_count(RH_EV_OWED), 5);
    for (unsigned i = 0; i < 5; i++)
        RH_EQ_INT(rig_find(RH_EV_OWED, i)->from, rig_shard_of(crowd[rig_find(RH_EV_OWED, i)->c]));
    rig_fini();
}

RH_TEST(record_start, loaded_comes_behind_everything_and_opens_the_gate)
{
    struct rh_msg *msg;
    bool loaded[SHARDS] = {false};

    begin();
    for (unsigned i = 0; i < 3000; i++) {
        msg = numbered(i % 2 ? "tom" : "ann", i, "x");
        rig_accept(msg, &(struct rig_accept){.unasked = true, .dedup_ms = 1000});
        rh_msg_drop_any(msg);
        rig_turn();
    }
    rig_settle();
    disk_cut(1);
    rig_close();
    RH_EQ_INT(rig_try_open(), RH_OK);
    RH_EQ_INT(rig_gate(), RH_GATE_LOADING);
    for (int i = 0; rig_gate() == RH_GATE_LOADING; i++) {
        RH_OK_IF(i < 100);
        rig_turn();
        for (unsigned k = 0; k < rig.heard_count; k++) {
            RH_OK_IF(!loaded[rig.heard[k].from]);
            loaded[rig.heard[k].from] = rig.heard[k].kind == RH_EV_LOADED;
        }
        rig_forget();
    }
    RH_OK_IF(loaded[0] && loaded[1]);
    rig_fini();
}

RH_TEST(record_start, messages_are_told_in_the_order_of_their_acceptance)
{
    struct rh_msg *old[4], *msg;
    char last[32] = "";

    rig_init();
    rig.env.segment_bytes = RH_SEGMENT_BYTES_MIN;
    rig_open();
    rig_forget();
    for (unsigned i = 0; i < 4; i++) {
        old[i] = numbered("tom", i, "stays");
        rig_accept(old[i], &asked);
    }
    for (unsigned i = 4; i < 600; i++) { /* the old ones are copied forward, more than once */
        msg = numbered("tom", i, i % 100 ? "goes" : "stays");
        rig_accept(msg, &asked);
        rig_turns(8);
        if (i % 100)
            rig_settled(msg, 0, RH_STATE_success, 0);
        rh_msg_drop_any(msg);
        rig_turns(8);
        rig_forget();
    }
    RH_OK_IF(rig_stat(RH_STAT_journal_forwarded) > 4);
    rig_settle();
    for (unsigned i = 0; i < 4; i++)
        rh_msg_drop_any(old[i]);
    rig_crash(9);
    RH_EQ_INT(rig_count(RH_EV_OWED), 9);
    for (unsigned i = 0; i < 9; i++) {
        struct rh_span id = rig_id(rig_find(RH_EV_OWED, i)->msg);

        RH_OK_IF(id.len == 7 && memcmp(id.at, last, 7) > 0);
        memcpy(last, id.at, 7);
    }
    rig_fini();
}

RH_TEST(record_start, old_segments_go_while_what_they_say_stays)
{
    const struct rig_accept with_id = {.asker = 0, .dedup_ms = 3600000};
    struct rh_msg *stays[2], *msg;
    unsigned most = 0;

    rig_init();
    rig.env.segment_bytes = RH_SEGMENT_BYTES_MIN;
    rig_open();
    rig_forget();
    stays[0] = numbered("tom", 0, "stays");
    stays[1] = of_room("r1", 5);
    rig_accept(stays[0], &asked);
    rig_accept(stays[1], &asked);
    msg = numbered("tom", 1, "goes, but its id");
    rig_accept(msg, &with_id);
    rig_settle();
    rig_attempt(stays[0], 0, 5);
    rig_settled(stays[1], 2, RH_STATE_expired, RH_REASON_expired);
    rig_attempt(stays[1], 3, 6);
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_settle();
    rh_msg_drop_any(msg);
    for (unsigned i = 10; i < 1500; i++) {
        msg = numbered("tom", i, "goes");
        rig_accept(msg, &asked);
        rig_turns(6);
        rig_settled(msg, 0, RH_STATE_success, 0);
        rig_turns(6);
        rh_msg_drop_any(msg);
        rig_forget();
        most = RH_MAX(most, rh_journal_files(rig.r->journal));
    }
    RH_OK_IF(rig_stat(RH_STAT_journal_bytes) > 20 * RH_SEGMENT_BYTES_MIN);
    RH_OK_IF(most <= 10);
    rh_msg_drop_any(stays[0]);
    rh_msg_drop_any(stays[1]);
    rig_crash(3);
    RH_EQ_INT(rig_count(RH_EV_OWED), 5);
    for (unsigned i = 0; i < 5; i++) {
        const struct rh_event *ev = rig_find(RH_EV_OWED, i);

        if (rig_is(ev->msg, "r1"))
            RH_OK_IF(ev->c != 2 && ev->a == (ev->c == 3 ? 6 : 1));
        else
            RH_EQ_U64(ev->a, 5);
    }
    RH_EQ_INT(rig_count(RH_EV_REMEMBER), 1);
    rig_fini();
}

RH_TEST(record_start, where_nearly_everything_is_owed_the_journal_grows_instead)
{
    struct rh_msg *msg;

    rig_init();
    rig.env.segment_bytes = RH_SEGMENT_BYTES_MIN;
    rig_open();
    for (unsigned i = 0; i < 800; i++) {
        msg = numbered("tom", i, "stays");
        rig_accept(msg, &(struct rig_accept){.unasked = true});
        rh_msg_drop_any(msg);
        rig_turns(8);
    }
    rig_settle();
    RH_OK_IF(rh_journal_files(rig.r->journal) > 8);
    RH_EQ_U64(rig_stat(RH_STAT_journal_forwarded), 0);
    RH_EQ_U64(rig_stat(RH_STAT_store_messages), 800);
    rig_fini();
}

/* They alone fill more segments than are always left alone. */
RH_TEST(record_start, many_ids_are_not_copied_forward_without_end)
{
    const struct rig_accept with_id = {.unasked = true, .dedup_ms = 3600000};
    struct rh_msg *msg;
    uint64_t forwarded, bytes;

    rig_init();
    rig.env.segment_bytes = RH_SEGMENT_BYTES_MIN;
    rig_open();
    for (unsigned i = 0; i < 3000; i++) {
        msg = numbered("tom", i, "goes, but its id");
        rig_accept(msg, &with_id);
        rig_settled(msg, 0, RH_STATE_success, 0);
        rh_msg_drop_any(msg);
        rig_turn();
    }
    rig_settle();
    RH_OK_IF(rh_journal_files(rig.r->journal) > 8);
    forwarded = rig_stat(RH_STAT_journal_forwarded);
    bytes = rig_stat(RH_STAT_journal_bytes);
    RH_OK_IF(forwarded < 1500);
    rig_turns(400);
    RH_EQ_U64(rig_stat(RH_STAT_journal_forwarded), forwarded);
    RH_EQ_U64(rig_stat(RH_STAT_journal_bytes), bytes);
    rig_fini();
}

RH_TEST(record_start, many_starts_leave_few_files)
{
    struct rh_msg *msg;

    begin();
    msg = numbered("tom", 1, "stays");
    rig_accept(msg, &asked);
    rig_settle();
    rh_msg_drop_any(msg);
    for (unsigned i = 0; i < 30; i++) {
        rig_crash(i);
        RH_EQ_INT(rig_count(RH_EV_OWED), 1);
        rig_settle();
        RH_OK_IF(rh_journal_files(rig.r->journal) <= 10);
    }
    rig_fini();
}

/* A kill leaves the last batch in the kernel's memory: it is read, and a power cut may still take it. */
RH_TEST(record_start, who_asks_for_what_was_read_waits_until_it_is_durable_again)
{
    struct rh_msg *msg[2];
    uint64_t seed = 0;

    begin();
    for (bool again = true; again;) { /* until the kill leaves all of the batch */
        rig_close();
        disk_reset();
        rig_open();
        msg[0] = numbered("tom", 1, "durable");
        msg[1] = numbered("tom", 2, "under way");
        rig_accept(msg[0], &asked);
        rig_settle();
        disk_hang(1u << DISK_SYNC);
        rig_accept(msg[1], &asked);
        rig_settle();
        RH_EQ_INT(rig_count(RH_EV_COMMITTED), 1);
        rh_msg_drop_any(msg[0]);
        rh_msg_drop_any(msg[1]);
        disk_kill(seed++);
        rig_close();
        rig_open(); /* no sync ends */
        again = rig_count(RH_EV_OWED) < 2;
    }
    msg[1] = rig_find(RH_EV_OWED, 1)->msg;
    rh_msg_hold_any(msg[1], 1);
    rig_forget();
    rig_await(msg[1], 1, 70, 0);
    rig_settle();
    RH_EQ_STR(rig_story(), "");
    disk_hang(0);
    rig_settle();
    RH_EQ_STR(rig_story(), "COMMITTED");
    RH_EQ_U64(rig_find(RH_EV_COMMITTED, 0)->a, RH_WIRE_NONE);
    rh_msg_drop_any(msg[1]);
    rig_fini();
}

RH_TEST(record_start, nothing_is_made_on_disk_before_something_is_promised)
{
    const char *names[4];

    begin();
    rig_settle();
    RH_EQ_INT(disk_names(names, 4), 0);
    rig_fini();
}

RH_TEST(record_start, the_newest_stored_time_is_known_and_nothing_is_over_before_it)
{
    const struct rig_accept with_id = {.asker = 0, .dedup_ms = 60000};
    struct rh_msg *msg;
    uint64_t newest;

    begin();
    msg = numbered("tom", 1, "x");
    rig_accept(msg, &with_id);
    rig_settle();
    rig_pass_ms(30000);
    rig_settled(msg, 0, RH_STATE_success, 0);
    rig_settle();
    newest = BEGAN_MS + rig_ns / 1000000;
    rh_msg_drop_any(msg);
    rig_wall_ms -= 20000; /* the machine's clock was set back meanwhile */
    rig_crash(1);
    RH_EQ_U64(atomic_load(&rig.promises.newest_ms), newest);
    RH_EQ_INT(rig_count(RH_EV_REMEMBER), 1);
    rig_pass_ms(61000); /* over by now */
    rig_settle();
    rig_wall_ms += 20000;
    rig_crash(1);
    RH_EQ_INT(rig_count(RH_EV_REMEMBER), 0);
    rig_fini();
}

RH_TEST(record_start, ids_are_bounded_by_dedup_max_and_the_newest_stay)
{
    struct rh_msg *msg;
    const struct rh_remembered *id;

    rig_init();
    rig_set("dedup.max", "10");
    rig_open();
    rig_forget();
    for (unsigned i = 0; i < 100; i++) {
        msg = numbered("tom", i, "x");
        rig_accept(msg, &(struct rig_accept){.unasked = true, .dedup_ms = 100000});
        rig_settled(msg, 0, RH_STATE_success, 0);
        rig_turns(8);
        rh_msg_drop_any(msg);
        rig_forget();
    }
    rig_settle();
    rig_crash(1);
    RH_EQ_INT(rig_count(RH_EV_REMEMBER), 10 * SHARDS);
    id = rig_find(RH_EV_REMEMBER, 0)->msg;
    RH_EQ_MEM(id->bytes + id->from_len + id->to_len, "m000080", 7);
    rig_fini();
}

/* ---- memory ---- */

static void start_and_end(void *arg)
{
    unsigned *starts = arg;

    rh_tid_set(RECORD);
    if (rig_try_open() < 0)
        return;
    for (int i = 0; i < 200 && rig.r->load.on; i++)
        rig_turn();
    RH_OK_IF(!rig.r->load.on);
    RH_EQ_INT(rig_count(RH_EV_OWED), 6);
    *starts += 1;
    rig_close();
}

RH_TEST(record_start, without_memory_a_start_fails_or_loads_everything)
{
    struct rh_msg *msg[2];
    unsigned starts = 0;

    begin();
    msg[0] = numbered("tom", 1, "x");
    msg[1] = of_room("r1", 5);
    for (int i = 0; i < 2; i++) {
        rig_accept(msg[i], &asked);
        rig_settle();
        rh_msg_drop_any(msg[i]);
    }
    rig_close();
    for (uint64_t nth = 1, done = 0; !done; nth += nth < 100 ? 1 : 97) {
        rh_mem_fail_nth(nth);
        start_and_end(&starts);
        done = rh_mem_fail_left() > 0;
        rh_mem_fail_nth(0);
    }
    RH_OK_IF(starts > 1);
    rig_fini();
}
