/* What a room sends: frames and numbers, who gets them, when it holds back, and what it keeps. */
#include <stdlib.h>

#include "core/limits.h"
#include "tests/shard/home_rig.h"

/* ---- words of our own ---- */

static struct rh_ask *say(const char *content)
{
    return handle(publish_ask(HOME, "ann", "r", content));
}

static void say_many(unsigned from, unsigned to)
{
    char text[16];

    for (unsigned i = from; i <= to; i++) {
        snprintf(text, sizeof(text), "m%u", i);
        RH_EQ_U64(say(text)->seq, i);
    }
}

static struct rh_ask *rejoin(const char *user, uint64_t since)
{
    struct rh_ask *ask = ask_of(RH_ASK_JOIN, HOME, user, "r");

    ask->live = ask->has_since = true;
    ask->since = since;
    return ask;
}

/* "recovered, missed 0: 3 4 5" */
static const char *recovery(struct rh_ask *take_ask)
{
    static char text[4096];
    const struct rh_ask *ask = handle(take_ask);
    int len = snprintf(text, sizeof(text), "%s, missed %" PRIu64 ":",
                       ask->recovered ? "recovered" : "not recovered", ask->missed);

    RH_EQ_INT(ask->err, RH_WIRE_NONE);
    RH_OK_IF(!ask->replay || ask->replay->count > 0);
    for (uint32_t i = 0; ask->replay && i < ask->replay->count; i++)
        len +=
            snprintf(text + len, sizeof(text) - (size_t)len, " %" PRIu64, ask->replay->at[i]->seq);
    read_book();
    return text;
}

static const char *history_of(const char *user, bool has_since, uint64_t since, uint32_t limit)
{
    static char text[4096];
    struct rh_ask *ask = ask_of(RH_ASK_HISTORY, HOME, user, "r");
    int len = 0;

    ask->has_since = has_since;
    ask->since = since;
    ask->limit = limit;
    ask = handle(ask);
    text[0] = '\0';
    for (char *at = ask->text->at, *end = at + ask->text->len;
         (at = memmem(at, (size_t)(end - at), "{\"seq\":", 7)) != NULL; at += 7)
        len += sprintf(text + len, "%lu ", strtoul(at + 7, NULL, 10));
    read_book();
    return text;
}

static struct rh_room *here(void)
{
    return room_of("r");
}

/* ---- the frame ---- */

static struct rh_msg *newest(void)
{
    struct rh_room *room = here();

    return room->history[(room->history_head + room->history_count - 1) & (room->history_room - 1)]
        .msg;
}

RH_TEST(publish, a_frame_is_completed_backwards_from_its_number)
{
    static const char want[] =
        "{\"type\":\"notify\",\"event\":\"room.message\",\"timestamp\":1700000000123,"
        "\"data\":{\"seq\":1,\"room\":\"r\",\"content\":\"hello\",\"pad\":\"\"}}";
    struct rh_span data;
    struct rh_msg *msg;

    begin();
    join_of(HOME, "ann", "r");
    RH_EQ_U64(say("hello")->seq, 1);
    msg = newest();
    RH_EQ_U64(msg->seq, 1);
    RH_EQ_U64(msg->uid, here()->uid);
    RH_EQ_U64(msg->frame_len, 2 + strlen(want));
    RH_EQ_MEM(rh_msg_frame(msg) + 2, want, strlen(want));
    RH_EQ_INT(rh_msg_frame(msg)[0], 0x81);
    RH_EQ_INT(rh_msg_frame(msg)[1], (int)strlen(want));
    data = rh_msg_data(msg);
    RH_EQ_U64(data.len, strlen("{\"seq\":1,\"room\":\"r\",\"content\":\"hello\",\"pad\":\"\"}"));
    RH_EQ_MEM(data.at, "{\"seq\":1,", 9);
    RH_EQ_INT(data.at[data.len - 1], '}');
    end();
}

/* Publishes so that the text has that many bytes; its frame is read as a client does. */
static void expect_frame(size_t text)
{
    size_t fixed = 116 + (here()->seq + 1 > 9) + (here()->seq + 1 > 99);
    struct rh_ask *ask = ask_of(RH_ASK_PUBLISH, HOME, "ann", "r");
    struct rh_ws_event ev;
    struct rh_ws ws;
    uint8_t *copy;

    ask->msg = room_msg("ann", "r", "", text - fixed);
    handle(ask);
    copy = rh_guard(rh_msg_frame(newest()), newest()->frame_len);
    rh_ws_init(&ws, RH_WS_CLIENT, 1 << 20);
    RH_EQ_U64(rh_ws_feed(&ws, copy, newest()->frame_len, &ev), newest()->frame_len);
    RH_OK_IF(ev.kind == RH_WS_DATA);
    RH_EQ_U64(newest()->frame_len, text + (text < 126 ? 2 : text < 65536 ? 4 : 10));
    RH_EQ_INT(rh_json_check((char *)copy + newest()->frame_len - text, text, 8), RH_OK);
    RH_EQ_INT(rh_json_check(rh_msg_data(newest()).at, rh_msg_data(newest()).len, 8), RH_OK);
    rh_room_fanned(sh, HOME, here()->uid, 1, newest()->frame_len);
}

RH_TEST(publish, a_frame_of_any_size_has_the_header_that_fits)
{
    begin();
    join_of(HOME, "ann", "r");
    for (size_t text = 116; text < 136; text++)
        expect_frame(text);
    for (size_t text = 65525; text < 65545; text++)
        expect_frame(text);
    expect_frame(200000);
    end();
}

RH_TEST(publish, the_largest_numbers_leave_what_they_should_in_front)
{
    begin();
    join_of(HOME, "ann", "r");
    here()->seq = RH_MSG_SEQ_MAX - 1;
    sh->hub_us = UINT64_MAX;
    RH_EQ_U64(say("last")->seq, RH_MSG_SEQ_MAX);
    RH_OK_IF(memmem(rh_msg_data(newest()).at, 32, "{\"seq\":9007199254740991,", 24));
    /* this time has three digits less than UINT64_MAX, and the header is one of four bytes */
    RH_EQ_U64(newest()->frame_at, 3 + RH_MSG_HEAD_ROOM - 4);
    end();
}

RH_TEST(publish, only_rooms_that_conflate_have_keys)
{
    begin();
    join_of(HOME, "ann", "r");
    struct rh_ask *ask = publish_ask(HOME, "ann", "r", "x");
    ask->msg->key_len = 3;
    handle(ask);
    RH_EQ_U64(newest()->key_len, 0);
    here()->conflate = true;
    ask = publish_ask(HOME, "ann", "r", "x");
    ask->msg->key_len = 3;
    handle(ask);
    RH_EQ_U64(newest()->key_len, 3);
    end();
}

/* ---- who may, and who gets it ---- */

RH_TEST(publish, members_publish_and_admins_anywhere)
{
    struct rh_ask *ask;

    begin();
    RH_EQ_INT(say("x")->err, RH_WIRE_not_found);
    join_of(0, "bob", "r");
    RH_EQ_INT(say("x")->err, RH_WIRE_forbidden);
    RH_EQ_INT(handle(ask_of(RH_ASK_HISTORY, HOME, "ann", "r"))->err, RH_WIRE_forbidden);
    ask = publish_ask(HOME, "ann", "r", "x");
    ask->is_admin = true;
    handle(ask);
    RH_OK_IF(answered->err == RH_WIRE_NONE && answered->seq == 1 && answered->members == 1);
    ask = ask_of(RH_ASK_HISTORY, HOME, "ann", "r");
    ask->is_admin = true;
    RH_EQ_INT(handle(ask)->err, RH_WIRE_NONE);
    end();
}

RH_TEST(publish, recipients_are_the_members_less_an_excluded_one)
{
    struct rh_ask *ask;

    begin();
    join_of(HOME, "ann", "r");
    join_of(0, "bob", "r");
    join_of(0, "bob", "r");
    join_of(2, "carl", "r");
    RH_EQ_U64(say("x")->members, 3);
    ask = publish_ask(HOME, "ann", "r", "x");
    ask->msg->excludes = ask->exclude = true;
    RH_EQ_U64(handle(ask)->members, 2);
    ask = publish_ask(HOME, "eve", "r", "x"); /* no member */
    ask->msg->excludes = ask->exclude = ask->is_admin = true;
    RH_EQ_U64(handle(ask)->members, 3);
    end();
}

RH_TEST(publish, each_shard_with_subscribers_gets_one_event_and_one_hold)
{
    struct rh_room_shard *shards;

    begin();
    join_of(HOME, "ann", "r");
    join_of(0, "bob", "r");
    join_of(0, "bert", "r");
    others_forget();
    read_book();
    say("hi");
    RH_EQ_STR(read_book(), "push 1:hi, ok publish 3");
    RH_EQ_U64(atomic_load(&newest()->holders), 2); /* history, shard 0; ours has been dropped */
    RH_EQ_STR(other_gets(2), "");
    RH_EQ_STR(other_gets(0), "1:hi");
    RH_EQ_U64(atomic_load(&newest()->holders), 1);
    shards = here()->shards;
    RH_EQ_U64(shards[2].sent, 0);
    RH_EQ_U64(shards[0].sent, 3); /* with two arrivals, of which bob's own is for nobody there */
    RH_EQ_U64(shards[HOME].sent_bytes,
              newest()->frame_len + strlen("joined bob 2") + strlen("joined bert 3"));
    cfg->rooms_history_size = 0;
    say("gone"); /* kept by nobody but shard 0 */
    RH_EQ_U64(here()->history_count, 0);
    end();
}

RH_TEST(publish, what_nobody_gets_has_a_number_all_the_same)
{
    struct rh_ask *ask;

    begin();
    cfg->rooms_history_size = 0;
    handle(ask_of(RH_ASK_CREATE, HOME, "ann", "r"));
    for (uint64_t i = 1; i <= 200; i++) { /* and is never held */
        ask = publish_ask(HOME, "ann", "r", "x");
        ask->is_admin = true;
        RH_EQ_U64(handle(ask)->seq, i);
        RH_EQ_U64(answered->members, 0);
    }
    end();
}

RH_TEST(publish, a_room_takes_so_many_messages_a_minute)
{
    begin();
    cfg->rooms_broadcasts_per_minute = 5;
    join_of(HOME, "ann", "r");
    say_many(1, 5);
    RH_EQ_INT(say("x")->err, RH_WIRE_rate_limited);
    sleep_ms(11900); /* a fifth of a minute makes one more */
    RH_EQ_INT(say("x")->err, RH_WIRE_rate_limited);
    sleep_ms(200);
    RH_EQ_U64(say("x")->seq, 6);
    RH_EQ_INT(say("x")->err, RH_WIRE_rate_limited);
    join_of(HOME, "ann", "s");
    RH_EQ_INT(handle(publish_ask(HOME, "ann", "s", "x"))->err, RH_WIRE_NONE);
    cfg->rooms_broadcasts_per_minute = 0;
    for (int i = 0; i < 50; i++)
        RH_EQ_INT(say("x")->err, RH_WIRE_NONE);
    end();
}

/* ---- held ---- */

static void fanned(unsigned from, uint64_t done, uint64_t bytes)
{
    struct rh_event ev = {
        .kind = RH_EV_FANNED, .from = (uint16_t)from, .a = here()->uid, .b = done, .c = bytes};

    rh_room_fanned_pop(sh, &ev);
}

RH_TEST(publish, the_next_one_is_held_while_a_shard_is_behind_and_order_stays)
{
    begin();
    cfg->rooms_notify_max = 0;
    join_of(HOME, "ann", "r");
    join_of(0, "bob", "r");
    for (unsigned i = 1; i <= RH_UNFINISHED_MAX; i++) {
        say("x");
        fanned(HOME, 1, newest()->frame_len);
    }
    read_book();
    others_forget();
    RH_OK_IF(!say("a") && !say("b") && !handle(publish_ask(0, "bob", "r", "c")));
    RH_EQ_INT(stat_of(RH_STAT_room_publishes_held), 3);
    RH_EQ_INT(stat_of(RH_STAT_room_publishes_waiting), 3);
    rh_publish_resume(sh);
    RH_EQ_STR(read_book(), "");
    check_room(here());
    fanned(0, 1, 1);
    RH_EQ_STR(read_book(), "push 65:a, ok publish 2");
    RH_OK_IF(!say("d")); /* behind those that are held */
    fanned(0, 10, 10);
    RH_EQ_STR(read_book(), "push 66:b, ok publish 2, push 67:c, ok publish 2, push 68:d, "
                           "ok publish 2");
    RH_EQ_STR(other_gets(0), "65:a, 66:b, 67:c, 68:d");
    RH_EQ_INT(stat_of(RH_STAT_room_publishes_waiting), 0);
    check_room(here());
    RH_EQ_U64(say("e")->seq, 69);
    end();
}

RH_TEST(publish, bytes_hold_it_too_and_one_message_may_exceed_them)
{
    struct rh_ask *ask;

    begin();
    join_of(HOME, "ann", "r");
    ask = ask_of(RH_ASK_PUBLISH, HOME, "ann", "r");
    ask->msg = room_msg("ann", "r", "big", 2 * RH_UNFINISHED_BYTES);
    RH_EQ_U64(handle(ask)->seq, 1);
    RH_OK_IF(!say("x"));
    fanned(HOME, 1, newest()->frame_len);
    RH_EQ_U64(answered->seq, 2);
    end();
}

RH_TEST(publish, a_shard_without_subscribers_holds_nothing_up)
{
    struct rh_member *bob;

    begin();
    join_of(HOME, "ann", "r");
    bob = join_of(0, "bob", "r");
    for (unsigned i = 0; i < RH_UNFINISHED_MAX; i++) {
        say("x");
        fanned(HOME, 1, 1);
    }
    RH_OK_IF(!say("a"));
    rh_room_unsub(sh, 0, here()->uid, bob, RH_UNSUB_END | RH_UNSUB_DETACH);
    rh_publish_resume(sh);
    RH_OK_IF(answered && answered->seq == RH_UNFINISHED_MAX + 1);
    fanned(0, RH_UNFINISHED_MAX, 100); /* what it had finished, it still says */
    check_room(here());
    end();
}

RH_TEST(publish, a_spill_over_its_mark_holds_it_until_a_later_pass)
{
    begin();
    join_of(HOME, "ann", "r");
    join_of(2, "carl", "r");
    others_forget();
    for (unsigned i = 0; i < RH_RING_SLOTS + 20; i++) {
        struct rh_event ev = {.kind = RH_EV_QUIET, .cost = 1 << 20};

        RH_EQ_INT(rh_mesh_tell(sh->mesh, 2, &ev), RH_OK);
    }
    RH_OK_IF(!rh_mesh_has_room(sh->mesh, 2));
    read_book();
    RH_OK_IF(!say("a"));
    rh_publish_resume(sh);
    RH_EQ_STR(read_book(), "");
    others_forget();
    rh_publish_resume(sh);
    RH_EQ_STR(read_book(), "push 1:a, ok publish 2");
    RH_EQ_STR(other_gets(2), "1:a");
    end();
}

RH_TEST(publish, rooms_with_held_publishes_keep_their_order)
{
    static const char *const names[] = {"p", "q", "s"};

    begin();
    for (size_t i = 0; i < RH_COUNT(names); i++) {
        join_of(HOME, "ann", names[i]);
        room_of(names[i])->shards[HOME].sent = RH_UNFINISHED_MAX;
        RH_OK_IF(!handle(publish_ask(HOME, "ann", names[i], names[i])));
    }
    read_book();
    rh_publish_resume(sh);
    room_of("p")->shards[HOME].done = room_of("s")->shards[HOME].done = RH_UNFINISHED_MAX;
    rh_publish_resume(sh);
    RH_EQ_STR(read_book(), "push 1:p, ok publish 1, push 1:s, ok publish 1");
    room_of("q")->shards[HOME].done = RH_UNFINISHED_MAX;
    rh_publish_resume(sh);
    RH_EQ_STR(read_book(), "push 1:q, ok publish 1");
    end();
}

static void hold_two(void)
{
    join_of(HOME, "ann", "r");
    here()->shards[HOME].sent = RH_UNFINISHED_MAX;
    RH_OK_IF(!say("a") && !say("b"));
    read_book();
}

RH_TEST(publish, a_deletion_refuses_what_is_held)
{
    begin();
    hold_two();
    handle(ask_of(RH_ASK_DELETE, HOME, "ann", "r"));
    RH_EQ_STR(read_book(), "push deleted r, over, no not_found, no not_found, ok delete 1");
    RH_OK_IF(rh_list_empty(&sh->held_rooms));
    end();
}

RH_TEST(publish, what_is_held_is_freed_with_the_shard)
{
    begin();
    hold_two();
    end();
}

RH_TEST(publish, an_empty_room_with_held_publishes_does_not_go)
{
    begin();
    cfg->rooms_empty_ttl_ms = 100;
    join_of(2, "carl", "r");
    here()->shards[2].sent = RH_UNFINISHED_MAX;
    RH_OK_IF(!handle(publish_ask(2, "carl", "r", "a")));
    rh_room_unsub(sh, 2, here()->uid, rh_roster_after(here()->roster, 0),
                  RH_UNSUB_END | RH_UNSUB_DETACH);
    sleep_ms(5000);
    RH_OK_IF(here() && !rh_list_empty(&here()->held));
    rh_publish_resume(sh);
    RH_OK_IF(answered && answered->seq == 1);
    sleep_ms(1100);
    RH_OK_IF(!here());
    end();
}

/* An asker on our own shard may ask the next thing from inside its answer. */
static void publish_more(struct rh_ask *ask)
{
    on_answer = NULL;
    rh_room_handle(sh, publish_ask(HOME, "ann", "r", "more"));
}

static void delete_now(struct rh_ask *ask)
{
    on_answer = NULL;
    rh_room_handle(sh, ask_of(RH_ASK_DELETE, HOME, "ann", "r"));
}

RH_TEST(publish, an_answer_that_asks_more_keeps_order_and_may_end_the_room)
{
    begin();
    hold_two();
    on_answer = publish_more;
    fanned(HOME, 10, 0);
    RH_EQ_STR(read_book(), "push 1:a, ok publish 1, push 2:b, ok publish 1, push 3:more, "
                           "ok publish 1");
    end();
    begin();
    hold_two();
    on_answer = delete_now;
    fanned(HOME, 10, 0);
    RH_EQ_STR(read_book(),
              "push 1:a, ok publish 1, push deleted r, over, no not_found, ok delete 1");
    end();
    begin();
    hold_two();
    on_answer = delete_now;
    here()->shards[HOME].done = 10;
    rh_publish_resume(sh);
    RH_OK_IF(!here());
    end();
}

/* ---- memory ---- */

static void fill_ring_and_spill(unsigned to)
{
    for (unsigned i = 0; i < RH_RING_SLOTS - 1 + RH_SPILL_TELLS; i++) {
        struct rh_event ev = {.kind = RH_EV_QUIET};

        RH_EQ_INT(rh_mesh_tell(sh->mesh, to, &ev), RH_OK);
    }
}

RH_TEST(publish, without_memory_to_tell_all_nobody_is_told_and_no_number_is_used)
{
    struct rh_ask *ask;

    begin();
    join_of(HOME, "ann", "r");
    join_of(0, "bob", "r");
    join_of(2, "carl", "r");
    others_forget();
    fill_ring_and_spill(2);
    read_book();
    ask = publish_ask(HOME, "ann", "r", "x");
    rh_mem_fail_nth(1);
    RH_EQ_INT(handle(ask)->err, RH_WIRE_unavailable);
    RH_EQ_STR(read_book(), "no unavailable");
    RH_EQ_STR(other_gets(0), "");
    RH_EQ_U64(here()->seq, 0);
    RH_EQ_U64(say("y")->seq, 1);
    read_book();
    RH_EQ_STR(other_gets(0), "1:y");
    others_forget();
    fill_ring_and_spill(0);
    rh_mem_fail_nth(2); /* the notice has memory */
    rh_room_unsub(sh, HOME, here()->uid, rh_roster_after(here()->roster, 0),
                  RH_UNSUB_END | RH_UNSUB_DETACH);
    rh_mem_fail_nth(0);
    RH_EQ_STR(other_gets(2), "");
    RH_EQ_INT(stat_of(RH_STAT_memory_failures), 2);
    end();
}

RH_TEST(publish, held_ones_that_find_no_memory_are_refused_and_the_next_goes_on)
{
    begin();
    cfg->rooms_notify_max = 0; /* else the joining would be held, too */
    hold_two();
    join_of(2, "carl", "r");
    others_forget();
    fill_ring_and_spill(2);
    here()->shards[HOME].sent = RH_UNFINISHED_MAX;
    read_book();
    rh_mem_fail_nth(1);
    fanned(HOME, 5, 0);
    RH_EQ_STR(read_book(), "no unavailable, push 1:b, ok publish 2");
    end();
}

RH_TEST(publish, history_that_cannot_grow_forgets_its_oldest)
{
    begin();
    join_of(HOME, "ann", "r");
    here()->shards[HOME].done = here()->shards[HOME].sent;
    struct rh_ask *ask = publish_ask(HOME, "ann", "r", "m1");
    rh_mem_fail_nth(1);
    RH_EQ_U64(handle(ask)->seq, 1); /* it goes out, and is not kept */
    rh_mem_fail_nth(0);
    RH_EQ_U64(here()->history_count, 0);
    say_many(2, 9);
    RH_EQ_U64(here()->history_count, 8);
    ask = publish_ask(HOME, "ann", "r", "m10");
    rh_mem_fail_nth(1);
    RH_EQ_U64(handle(ask)->seq, 10);
    rh_mem_fail_nth(0);
    RH_EQ_STR(history_of("ann", false, 0, 100), "3 4 5 6 7 8 9 10 ");
    RH_EQ_STR(recovery(rejoin("ann", 1)), "not recovered, missed 1: 3 4 5 6 7 8 9 10");
    end();
}

static void recover_and_list(void *arg)
{
    uint64_t left = rh_mem_fail_left();

    rh_mem_fail_nth(0);
    begin();
    join_of(HOME, "ann", "r");
    say_many(1, 3);
    rh_mem_fail_nth(left);
    handle(rejoin("ann", 1));
    RH_EQ_INT(answered->err ? 0 : 2, answered->replay ? answered->replay->count : 0);
    RH_EQ_U64(rh_roster_after(here()->roster, 0)->subs, answered->err ? 1 : 2);
    handle(rejoin("bob", 0));
    RH_EQ_U64(rh_map_count(&here()->members), answered->err ? 1 : 2);
    handle(ask_of(RH_ASK_HISTORY, HOME, "ann", "r"));
    RH_EQ_INT(answered->err != RH_WIRE_NONE, answered->text == NULL);
    left = rh_mem_fail_left();
    end();
    rh_mem_fail_nth(left);
}

RH_TEST(publish, a_recovery_without_memory_is_refused_whole)
{
    rh_test_fail_each_alloc(recover_and_list, NULL);
}

/* ---- history and recovery ---- */

RH_TEST(publish, recovery_is_what_the_protocol_says)
{
    struct rh_ask *ask;

    begin();
    cfg->rooms_history_size = 4;
    join_of(HOME, "ann", "r");
    RH_EQ_STR(recovery(rejoin("bob", 0)), "recovered, missed 0:");
    RH_EQ_STR(recovery(rejoin("bob", 1)), "not recovered, missed 0:");
    say_many(1, 10); /* 7 to 10 are kept */
    RH_EQ_STR(recovery(rejoin("bob", 10)), "recovered, missed 0:");
    RH_EQ_STR(recovery(rejoin("bob", 8)), "recovered, missed 0: 9 10");
    RH_EQ_STR(recovery(rejoin("bob", 6)), "recovered, missed 0: 7 8 9 10");
    RH_EQ_STR(recovery(rejoin("bob", 5)), "not recovered, missed 1: 7 8 9 10");
    RH_EQ_STR(recovery(rejoin("bob", 0)), "not recovered, missed 6: 7 8 9 10");
    RH_EQ_STR(recovery(rejoin("bob", 11)), "not recovered, missed 0:");
    RH_EQ_STR(recovery(rejoin("bob", RH_MSG_SEQ_MAX)), "not recovered, missed 0:");
    ask = rejoin("bob", 8);
    ask->has_epoch = true;
    ask->epoch = here()->uid;
    RH_EQ_STR(recovery(ask), "recovered, missed 0: 9 10");
    ask = rejoin("bob", 8);
    ask->has_epoch = true;
    ask->epoch = here()->uid + 1;
    RH_EQ_STR(recovery(ask), "not recovered, missed 0: 7 8 9 10");
    ask = rejoin("bob", 99); /* a number of another life says nothing */
    ask->has_epoch = true;
    RH_EQ_STR(recovery(ask), "not recovered, missed 0: 7 8 9 10");
    ask = rejoin("bob", 0);
    ask->has_since = false;
    RH_EQ_STR(recovery(ask), "not recovered, missed 0:");
    end();
}

RH_TEST(publish, an_excluded_user_does_not_get_it_later_either)
{
    struct rh_ask *ask;

    begin();
    join_of(HOME, "ann", "r");
    say_many(1, 1);
    ask = publish_ask(HOME, "ann", "r", "x");
    ask->msg->excludes = true;
    handle(ask);
    say_many(3, 3);
    RH_EQ_STR(recovery(rejoin("ann", 0)), "recovered, missed 0: 1 3");
    RH_EQ_STR(recovery(rejoin("bob", 0)), "recovered, missed 0: 1 2 3");
    ask = publish_ask(HOME, "ann", "r", "x");
    ask->msg->excludes = true;
    handle(ask);
    RH_EQ_STR(recovery(rejoin("ann", 3)), "recovered, missed 0:");
    end();
}

RH_TEST(publish, history_comes_newest_first_or_from_a_number_on)
{
    struct rh_ask *ask;
    char hex[RH_EPOCH_LEN + 1] = "", want[512];

    begin();
    join_of(HOME, "ann", "r");
    RH_EQ_STR(history_of("ann", false, 0, 100), "");
    say_many(1, 10);
    RH_EQ_STR(history_of("ann", false, 0, 3), "8 9 10 ");
    RH_EQ_STR(history_of("ann", false, 0, 1000), "1 2 3 4 5 6 7 8 9 10 ");
    RH_EQ_STR(history_of("ann", true, 0, 3), "1 2 3 ");
    RH_EQ_STR(history_of("ann", true, 8, 3), "9 10 ");
    RH_EQ_STR(history_of("ann", true, 10, 3), "");
    RH_EQ_STR(history_of("ann", true, 99, 3), "");
    ask = ask_of(RH_ASK_HISTORY, HOME, "ann", "r");
    ask->limit = 2;
    ask = handle(ask);
    rh_epoch_hex(here()->uid, hex);
    snprintf(want, sizeof(want),
             "{\"items\":[{\"seq\":9,\"room\":\"r\",\"content\":\"m9\",\"pad\":\"\"},"
             "{\"seq\":10,\"room\":\"r\",\"content\":\"m10\",\"pad\":\"\"}],\"seq\":10,"
             "\"epoch\":\"%s\"}",
             hex);
    RH_EQ_U64(ask->text->len, strlen(want));
    RH_EQ_MEM(ask->text->at, want, strlen(want));
    RH_EQ_U64(ask->seq, 10);
    end();
}

RH_TEST(publish, a_page_of_history_ends_with_the_item_that_passes_its_bytes)
{
    begin();
    cfg->rooms_history_size = 100000;
    join_of(HOME, "ann", "r");
    for (unsigned i = 0; i < 8; i++) {
        struct rh_ask *ask = ask_of(RH_ASK_PUBLISH, HOME, "ann", "r");

        ask->msg = room_msg("ann", "r", "x", RH_PAGE_BYTES / 3);
        handle(ask);
        fanned(HOME, 1, newest()->frame_len);
    }
    RH_EQ_STR(history_of("ann", false, 0, 100), "6 7 8 ");
    RH_EQ_STR(history_of("ann", true, 1, 100), "2 3 4 ");
    end();
}

RH_TEST(publish, a_page_of_history_has_a_thousand_items_at_most)
{
    struct rh_ask *ask;
    unsigned count = 0;

    begin();
    cfg->rooms_history_size = 5000;
    join_of(HOME, "ann", "r");
    for (unsigned i = 1; i <= 2000; i++) {
        RH_EQ_U64(say("x")->seq, i);
        fanned(HOME, 1, newest()->frame_len);
    }
    ask = ask_of(RH_ASK_HISTORY, HOME, "ann", "r");
    ask->limit = UINT32_MAX;
    ask = handle(ask);
    for (char *at = ask->text->at, *end = at + ask->text->len;
         (at = memmem(at, (size_t)(end - at), "{\"seq\":", 7)) != NULL; at += 7)
        count++;
    RH_EQ_INT(count, 1000);
    end();
}

RH_TEST(publish, history_is_bounded_in_bytes)
{
    struct rh_ask *ask;

    begin();
    cfg->rooms_notify_max = 0;
    join_of(HOME, "ann", "r");
    for (unsigned i = 0; i < 20; i++) {
        ask = ask_of(RH_ASK_PUBLISH, HOME, "ann", "r");
        ask->msg = room_msg("ann", "r", "x", 1 << 20);
        handle(ask);
        fanned(HOME, 1, newest()->frame_len);
        RH_OK_IF(here()->history_bytes <= RH_HISTORY_BYTES);
    }
    RH_EQ_U64(here()->history_count, 15);
    RH_EQ_INT(stat_of(RH_STAT_room_history_bytes), (int64_t)here()->history_bytes);
    ask = ask_of(RH_ASK_PUBLISH, HOME, "ann", "r");
    ask->msg = room_msg("ann", "r", "x", RH_HISTORY_BYTES); /* too large to be kept: no gap */
    RH_EQ_U64(handle(ask)->seq, 21);
    RH_EQ_U64(here()->history_count, 0);
    RH_EQ_STR(recovery(rejoin("bob", 20)), "not recovered, missed 1:");
    end();
}

RH_TEST(publish, history_ends_with_its_time)
{
    begin();
    cfg->rooms_history_ttl_ms = 5000;
    join_of(HOME, "ann", "r");
    say_many(1, 2);
    sleep_ms(3000);
    say_many(3, 4);
    sleep_ms(1999);
    RH_EQ_STR(history_of("ann", false, 0, 100), "1 2 3 4 ");
    sh->now_ms += 1; /* no alarm has rung yet */
    RH_EQ_STR(recovery(rejoin("bob", 0)), "not recovered, missed 2: 3 4");
    sleep_ms(2999);
    RH_EQ_U64(here()->history_count, 2);
    sleep_ms(1001);
    RH_EQ_U64(here()->history_count, 0); /* nobody looked, and it is gone */
    RH_OK_IF(!here()->history);
    RH_OK_IF(!rh_timer_armed(&here()->alarm.timer));
    say_many(5, 5);
    RH_OK_IF(rh_timer_armed(&here()->alarm.timer));
    end();
}

RH_TEST(publish, a_new_configuration_shrinks_and_grows_history)
{
    begin();
    join_of(HOME, "ann", "r");
    cfg->rooms_history_size = 20;
    say_many(1, 30);
    RH_EQ_U64(here()->history_count, 20);
    cfg->rooms_history_size = 5;
    RH_EQ_STR(history_of("ann", true, 0, 100), "26 27 28 29 30 ");
    cfg->rooms_history_size = 7;
    say_many(31, 33);
    RH_EQ_STR(history_of("ann", true, 0, 100), "27 28 29 30 31 32 33 ");
    cfg->rooms_history_size = 0;
    say_many(34, 34);
    RH_EQ_U64(here()->history_count, 0);
    cfg->rooms_history_size = 7;
    say_many(35, 35);
    RH_EQ_STR(recovery(rejoin("bob", 33)), "not recovered, missed 1: 35");
    end();
}

/* Goal    recovery is right whatever was kept, at any time.
 * Method  random publishes, waits and sizes beside an array of times; every answer is computed from
 *         it anew. */
#define MODEL_MAX 3000

static void expect_recovery(const uint64_t *at_ms, const bool *hidden, uint64_t since, bool is_ann)
{
    const struct rh_ask *ask = handle(rejoin(is_ann ? "ann" : "bob", since));
    uint64_t seq = here()->seq, first = seq + 1, n = 0;

    while (first > 1 && seq - first + 1 < cfg->rooms_history_size &&
           at_ms[first - 1] + cfg->rooms_history_ttl_ms > sh->now_ms)
        first--;
    RH_EQ_U64(ask->seq, seq);
    RH_EQ_INT(ask->recovered, since <= seq && since + 1 >= first);
    RH_EQ_U64(ask->missed, since <= seq && since + 1 < first ? first - since - 1 : 0);
    for (uint64_t i = RH_MAX(first, since + 1); i <= seq; i++) {
        if (is_ann && hidden[i])
            continue;
        RH_OK_IF(ask->replay && n < ask->replay->count);
        RH_EQ_U64(ask->replay->at[n++]->seq, i);
    }
    RH_EQ_U64(ask->replay ? ask->replay->count : 0, n);
}

RH_TEST(publish, recovery_is_that_of_a_model)
{
    static uint64_t at_ms[MODEL_MAX + 2];
    static bool hidden[MODEL_MAX + 2];

    begin();
    cfg->rooms_history_size = 20;
    cfg->rooms_history_ttl_ms = 2000;
    join_of(HOME, "ann", "r");
    while (here()->seq < MODEL_MAX) {
        unsigned what = rh_test_rand() % 100;
        uint64_t seq = here()->seq;

        if (what < 70) {
            struct rh_ask *ask = publish_ask(HOME, "ann", "r", "x");

            hidden[seq + 1] = ask->msg->excludes = rh_test_rand() % 4 == 0;
            at_ms[seq + 1] = sh->now_ms;
            RH_EQ_U64(handle(ask)->seq, seq + 1);
            here()->shards[HOME].done = here()->shards[HOME].sent;
            here()->shards[HOME].done_bytes = here()->shards[HOME].sent_bytes;
        } else if (what < 80) {
            sleep_ms(rh_test_rand() % 300);
        } else {
            uint64_t back = rh_test_rand() % 30;

            expect_recovery(at_ms, hidden, seq - RH_MIN(seq, back) + what % 2, what % 3 == 0);
        }
        read_book();
    }
    end();
}
