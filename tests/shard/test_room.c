/* A room at its home: what each ask changes, what is answered, and who is told. */
#include "tests/shard/home_rig.h"

/* ---- words of our own ---- */

static struct rh_ask *do_create(const char *user, const char *room)
{
    return handle(ask_of(RH_ASK_CREATE, HOME, user, room));
}

static struct rh_ask *again_ask(unsigned from, const char *user, const char *room, void *member,
                                uint64_t uid)
{
    struct rh_ask *ask = ask_of(RH_ASK_JOIN, from, user, room);

    ask->again = true;
    ask->member = member;
    ask->uid = uid;
    return ask;
}

static struct rh_ask *leave_ask(unsigned from, const char *user, const char *room, void *member,
                                uint64_t uid)
{
    struct rh_ask *ask = ask_of(RH_ASK_LEAVE, from, user, room);

    ask->live = member != NULL;
    ask->member = member;
    ask->uid = uid;
    return ask;
}

static uint64_t uid_of(const char *room)
{
    return room_of(room)->uid;
}

static const char *members_of(const char *room)
{
    static char text[65536];
    struct rh_ask *ask = handle(ask_of(RH_ASK_MEMBERS, 0, "stranger", room));

    snprintf(text, sizeof(text), "%.*s", (int)ask->text->len, ask->text->at);
    read_book();
    return text;
}

/* ---- epochs ---- */

RH_TEST(room, an_epoch_is_sixteen_digits_and_comes_back)
{
    static const uint64_t some[] = {1, 0x0123456789abcdef, UINT64_MAX, 1ull << 63};
    char hex[RH_EPOCH_LEN + 1] = "";

    for (size_t i = 0; i < RH_COUNT(some); i++) {
        rh_epoch_hex(some[i], hex);
        RH_EQ_U64(rh_epoch_parse((struct rh_span){hex, RH_EPOCH_LEN}), some[i]);
    }
    rh_epoch_hex(0xfe, hex);
    RH_EQ_STR(hex, "00000000000000fe");
}

RH_TEST(room, an_epoch_of_somebody_else_is_well_formed_and_none_of_ours)
{
    static const char *const good[] = {"a", "Z-_9", "00000000000000FE", "000000000000000g",
                                       "12345678901234567890123456789012"};
    static const char *const bad[] = {"", "a b", "a.b", "\xc3\xa4",
                                      "123456789012345678901234567890123"};

    for (size_t i = 0; i < RH_COUNT(good); i++) {
        struct rh_span text = {good[i], (uint32_t)strlen(good[i])};

        RH_OK_IF(rh_epoch_ok(text));
        RH_EQ_U64(rh_epoch_parse(text), 0);
    }
    for (size_t i = 0; i < RH_COUNT(bad); i++)
        RH_OK_IF(!rh_epoch_ok((struct rh_span){bad[i], (uint32_t)strlen(bad[i])}));
}

/* ---- CREATE ---- */

RH_TEST(room, a_room_is_created_once_and_its_creator_is_no_member)
{
    begin();
    RH_OK_IF(do_create("ann", "r")->uid != 0);
    RH_EQ_INT(do_create("bob", "r")->err, RH_WIRE_conflict);
    RH_EQ_STR(read_book(), "ok create 0, no conflict");
    RH_EQ_STR(members_of("r"), "{\"items\":[],\"next\":null}");
    RH_EQ_INT(stat_of(RH_STAT_rooms), 1);
    check_room(room_of("r"));
    end();
}

RH_TEST(room, a_joiner_is_told_the_meta_of_a_room)
{
    struct rh_ask *ask;

    begin();
    ask = rh_mem_zalloc(sizeof(*ask) + 64);
    *ask = (struct rh_ask){.op = RH_ASK_CREATE, .room_len = 1, .user_len = 3, .meta_len = 7};
    ask->conflate = ask->is_ticket = true;
    ask->room_hash = hash_of("r");
    memcpy(ask->bytes, "rann{\"a\":1}", 11);
    handle(ask);
    RH_OK_IF(room_of("r")->conflate && room_of("r")->is_ticket);
    RH_OK_IF(join_of(0, "bob", "r"));
    RH_EQ_U64(answered->text->len, 7);
    RH_EQ_MEM(answered->text->at, "{\"a\":1}", 7);
    RH_OK_IF(do_create("ann", "q") && join_of(0, "bob", "q") && !answered->text);
    end();
}

RH_TEST(room, beyond_the_bound_rooms_are_refused_and_old_ones_go_on)
{
    size_t count;

    begin();
    RH_OK_IF(join_of(0, "ann", "r"));
    count = sh->rooms.count;
    sh->rooms.count = RH_ROOMS_MAX;
    RH_EQ_INT(do_create("ann", "s")->err, RH_WIRE_unavailable);
    RH_OK_IF(!join_of(0, "ann", "s") && answered->err == RH_WIRE_unavailable);
    RH_OK_IF(join_of(0, "bob", "r"));
    RH_EQ_INT(stat_of(RH_STAT_rooms_refused), 2);
    sh->rooms.count = count;
    end();
}

RH_TEST(room, at_the_bound_the_one_that_has_been_empty_longest_makes_room)
{
    size_t more = RH_ROOMS_MAX;

    begin();
    do_create("ann", "first");
    do_create("ann", "second");
    RH_OK_IF(join_of(0, "ann", "first") && join_of(0, "ann", "full"));
    more -= sh->rooms.count;
    sh->rooms.count += more;
    RH_EQ_INT(do_create("bob", "new")->err, RH_WIRE_NONE);
    RH_OK_IF(room_of("first") && room_of("full") && room_of("new") && !room_of("second"));
    RH_EQ_INT(stat_of(RH_STAT_rooms_refused), 0);
    sh->rooms.count -= more;
    end();
}

RH_TEST(room, without_bytes_left_for_its_meta_is_refused)
{
    struct rh_ask *ask;

    begin();
    sh->room_bytes += RH_ROOMS_BYTES - 6;
    ask = rh_mem_zalloc(sizeof(*ask) + 64);
    *ask = (struct rh_ask){.op = RH_ASK_CREATE, .room_len = 1, .user_len = 3, .meta_len = 7};
    ask->room_hash = hash_of("r");
    memcpy(ask->bytes, "rann{\"a\":1}", 11);
    RH_EQ_INT(handle(ask)->err, RH_WIRE_unavailable);
    RH_EQ_INT(do_create("ann", "r")->err, RH_WIRE_NONE);
    sh->room_bytes -= RH_ROOMS_BYTES - 6;
    end();
}

/* ---- JOIN ---- */

RH_TEST(room, joining_an_unknown_room_makes_it_if_rooms_may_be_made_so)
{
    struct rh_ask *ask;

    begin();
    cfg->rooms_auto_create = false;
    RH_OK_IF(!join_of(0, "ann", "r") && answered->err == RH_WIRE_not_found);
    RH_OK_IF(!room_of("r"));
    cfg->rooms_auto_create = true;
    RH_OK_IF(join_of(0, "ann", "r"));
    RH_EQ_U64(answered->seq, 0);
    RH_EQ_U64(answered->members, 1);
    RH_EQ_U64(answered->uid, uid_of("r"));
    ask = handle(ask_of(RH_ASK_DELETE, 2, "bob", "r"));
    RH_EQ_INT(ask->err, RH_WIRE_forbidden);
    ask = handle(ask_of(RH_ASK_DELETE, 2, "ann", "r")); /* the joiner is its creator */
    RH_EQ_INT(ask->err, RH_WIRE_NONE);
    RH_OK_IF(!room_of("r"));
    end();
}

RH_TEST(room, a_full_room_lets_in_who_is_in_already)
{
    struct rh_ask *ask;

    begin();
    cfg->rooms_max_members = 1;
    ask = ask_of(RH_ASK_CREATE, 0, "ann", "r");
    ask->max_members = 2; /* its own bound counts */
    handle(ask);
    RH_OK_IF(join_of(0, "ann", "r") && join_of(2, "bob", "r"));
    RH_OK_IF(!join_of(1, "eve", "r") && answered->err == RH_WIRE_room_full);
    RH_OK_IF(join_of(0, "ann", "r")); /* a second device */
    RH_EQ_U64(answered->members, 2);
    RH_OK_IF(join_of(0, "ann", "s")); /* without one the configuration's */
    RH_OK_IF(!join_of(2, "bob", "s") && answered->err == RH_WIRE_room_full);
    cfg->rooms_max_members = 0;
    RH_OK_IF(join_of(2, "bob", "s"));
    check_room(room_of("r"));
    end();
}

RH_TEST(room, a_session_that_is_in_joins_again_without_being_counted_twice)
{
    struct rh_member *m;
    struct rh_ask *ask;

    begin();
    m = join_of(0, "ann", "r");
    ask = handle(again_ask(0, "ann", "r", m, uid_of("r")));
    RH_OK_IF(ask->err == RH_WIRE_NONE && ask->member == m && ask->again);
    RH_OK_IF(m->subs == 1 && m->live == 1 && room_of("r")->shards[0].subs == 1);
    rh_room_unsub(sh, 0, uid_of("r"), m, RH_UNSUB_DETACH);
    RH_OK_IF(m->subs == 1 && m->live == 0);
    ask = again_ask(0, "ann", "r", m, uid_of("r")); /* resumed */
    ask->live = true;
    handle(ask);
    RH_OK_IF(m->subs == 1 && m->live == 1);
    check_room(room_of("r"));
    end();
}

RH_TEST(room, a_deleted_room_stays_gone_for_who_resumes_even_under_its_old_name)
{
    struct rh_member *m;
    struct rh_ask *ask;
    uint64_t uid;

    begin();
    m = join_of(0, "ann", "r");
    uid = uid_of("r");
    handle(ask_of(RH_ASK_DELETE, 0, "ann", "r"));
    ask = again_ask(0, "ann", "r", m, uid);
    ask->notify = true;
    RH_EQ_INT(handle(ask)->err, RH_WIRE_not_found); /* and is not made anew */
    RH_OK_IF(!room_of("r"));
    RH_OK_IF(join_of(2, "bob", "r") && uid_of("r") != uid);
    ask = again_ask(0, "ann", "r", m, uid);
    ask->notify = true;
    RH_EQ_INT(handle(ask)->err, RH_WIRE_not_found);
    RH_EQ_U64(rh_map_count(&room_of("r")->members), 1);
    end();
}

RH_TEST(room, a_join_that_crosses_a_deletion_begins_anew)
{
    struct rh_member *m;
    struct rh_ask *ask;
    uint64_t uid;

    begin();
    m = join_of(0, "ann", "r");
    uid = uid_of("r");
    handle(ask_of(RH_ASK_DELETE, 0, "ann", "r"));
    ask = handle(again_ask(0, "ann", "r", m, uid));
    RH_OK_IF(ask->err == RH_WIRE_NONE && !ask->again && ask->live && ask->uid != uid);
    m = ask->member;
    RH_OK_IF(m->subs == 1 && m->live == 1);
    uid = ask->uid;
    handle(ask_of(RH_ASK_DELETE, 0, "ann", "r"));
    RH_OK_IF(join_of(2, "bob", "r")); /* another life of it */
    ask = handle(again_ask(0, "ann", "r", m, uid));
    RH_OK_IF(ask->err == RH_WIRE_NONE && !ask->again && ask->members == 2);
    check_room(room_of("r"));
    end();
}

/* ---- who is told of joining and leaving ---- */

RH_TEST(room, the_others_are_told_of_a_user_once_and_behind_its_answer)
{
    begin();
    join_of(HOME, "ann", "r");
    RH_EQ_STR(read_book(), "ok join 1");
    join_of(2, "bob", "r");
    RH_EQ_STR(read_book(), "ok join 2, push joined bob 2");
    RH_EQ_STR(other_gets(2), "joined bob 2"); /* bob's shard skips bob */
    join_of(2, "bob", "r");
    join_of(0, "carl", "r");
    RH_EQ_STR(read_book(), "ok join 2, ok join 3, push joined carl 3");
    RH_EQ_STR(other_gets(0), "joined carl 3");
    RH_EQ_STR(other_gets(2), "joined carl 3");
    RH_EQ_U64(room_of("r")->shards[2].sent, 2);
    RH_EQ_U64(room_of("r")->shards[2].sent_bytes, strlen("joined bob 2") + strlen("joined carl 3"));
    end();
}

static uint64_t told(void)
{
    struct rh_mesh_stat stat;

    rh_mesh_stat_any(sh->mesh, &stat);
    return stat.told;
}

static uint64_t told_before;

static void nobody_was_told(struct rh_ask *ask)
{
    RH_EQ_U64(told(), told_before);
}

RH_TEST(room, an_asker_is_answered_before_other_shards_are_told)
{
    struct rh_member *m;

    begin();
    join_of(0, "ann", "r");
    join_of(2, "zoe", "r");
    told_before = told();
    on_answer = nobody_was_told;
    m = join_of(0, "bob", "r");
    RH_EQ_U64(told(), told_before + 2);
    told_before = told();
    handle(leave_ask(0, "bob", "r", m, uid_of("r")));
    RH_EQ_U64(told(), told_before + 2);
    end();
}

RH_TEST(room, nobody_is_told_in_rooms_above_notify_max)
{
    struct rh_member *b, *c;

    begin();
    cfg->rooms_notify_max = 2;
    join_of(HOME, "ann", "r");
    b = join_of(HOME, "bob", "r");
    c = join_of(HOME, "carl", "r");
    RH_EQ_STR(read_book(), "ok join 1, ok join 2, push joined bob 2, ok join 3");
    rh_room_unsub(sh, HOME, uid_of("r"), c, RH_UNSUB_END | RH_UNSUB_DETACH); /* three before it */
    RH_EQ_STR(read_book(), "");
    rh_room_unsub(sh, HOME, uid_of("r"), b, RH_UNSUB_END | RH_UNSUB_DETACH);
    RH_EQ_STR(read_book(), "push left bob 1");
    cfg->rooms_notify_max = 0;
    join_of(HOME, "bob", "r");
    RH_EQ_STR(read_book(), "ok join 2");
    end();
}

RH_TEST(room, a_notice_without_memory_is_left_out_and_counted)
{
    struct rh_member *m;

    begin();
    no_notice = true;
    join_of(HOME, "ann", "r");
    m = join_of(HOME, "bob", "r");
    RH_EQ_STR(read_book(), "ok join 1, ok join 2");
    RH_EQ_INT(stat_of(RH_STAT_memory_failures), 1);
    rh_room_unsub(sh, HOME, uid_of("r"), m, RH_UNSUB_END | RH_UNSUB_DETACH);
    RH_EQ_INT(stat_of(RH_STAT_memory_failures), 2);
    RH_EQ_U64(rh_map_count(&room_of("r")->members), 1);
    end();
}

/* Goal    a session that has ended by the time of its answer is not announced when it has left.
 * Method  the answer ends the subscription, as an asker on our own shard does. */
static void end_it(struct rh_ask *ask)
{
    on_answer = NULL;
    rh_room_unsub(sh, HOME, ask->uid, ask->member, RH_UNSUB_END | RH_UNSUB_DETACH);
}

static void delete_it(struct rh_ask *ask)
{
    on_answer = NULL;
    answered = NULL; /* kept for who frees it below */
    rh_room_handle(sh, ask_of(RH_ASK_DELETE, HOME, "ann", "r"));
    rh_ask_free(ask);
}

RH_TEST(room, who_leaves_inside_its_answer_is_not_announced)
{
    begin();
    join_of(HOME, "ann", "r");
    read_book();
    on_answer = end_it;
    join_of(HOME, "bob", "r");
    RH_EQ_STR(read_book(), "ok join 2");
    RH_EQ_U64(rh_map_count(&room_of("r")->members), 1);
    check_room(room_of("r"));
    on_answer = delete_it;
    handle(again_ask(HOME, "ann", "r", rh_roster_after(room_of("r")->roster, 0), uid_of("r")));
    RH_EQ_STR(read_book(), "ok join 1, push deleted r, over, ok delete 1");
    end();
}

RH_TEST(room, a_room_that_is_deleted_inside_an_answer_is_not_touched_behind_it)
{
    begin();
    join_of(HOME, "ann", "r");
    read_book();
    on_answer = delete_it;
    rh_ask_free(answered);
    answered = NULL;
    rh_room_handle(sh, ask_of(RH_ASK_JOIN, HOME, "bob", "r"));
    RH_EQ_STR(read_book(), "ok join 2, push deleted r, over, ok delete 2");
    struct rh_member *m = join_of(HOME, "ann", "r");
    join_of(HOME, "bob", "r");
    read_book();
    on_answer = delete_it;
    rh_ask_free(answered);
    answered = NULL;
    rh_room_handle(sh, leave_ask(HOME, "ann", "r", m, uid_of("r")));
    RH_EQ_STR(read_book(), "ok leave 1, push deleted r, over, ok delete 1");
    RH_OK_IF(!room_of("r"));
    end();
}

/* ---- LEAVE, UNSUB ---- */

RH_TEST(room, leaving_ends_one_subscription_and_the_last_one_the_membership)
{
    struct rh_member *m;

    begin();
    join_of(HOME, "ann", "r");
    m = join_of(0, "bob", "r");
    join_of(0, "bob", "r");
    read_book();
    other_gets(0);
    handle(leave_ask(0, "bob", "r", m, uid_of("r")));
    RH_EQ_STR(read_book(), "ok leave 2");
    RH_OK_IF(m->subs == 1 && m->live == 1);
    handle(leave_ask(0, "bob", "r", m, uid_of("r")));
    RH_EQ_STR(read_book(), "ok leave 1, push left bob 1");
    RH_EQ_STR(other_gets(0), ""); /* nobody of it is left there */
    RH_EQ_U64(room_of("r")->interest, 1 << HOME);
    check_room(room_of("r"));
    end();
}

RH_TEST(room, leaving_without_a_subscription_changes_nothing)
{
    struct rh_member *m;
    uint64_t uid;

    begin();
    RH_EQ_INT(handle(leave_ask(0, "ann", "r", NULL, 0))->err, RH_WIRE_not_found);
    RH_OK_IF(!room_of("r"));
    m = join_of(0, "ann", "r");
    uid = uid_of("r");
    handle(leave_ask(0, "ann", "r", NULL, 0)); /* another session of hers, which is not in */
    RH_OK_IF(answered->err == RH_WIRE_NONE && answered->members == 1 && answered->uid == uid);
    RH_EQ_INT(m->subs, 1);
    handle(ask_of(RH_ASK_DELETE, 0, "ann", "r"));
    join_of(0, "ann", "r");
    handle(leave_ask(0, "ann", "r", m, uid)); /* of the life before */
    RH_OK_IF(answered->err == RH_WIRE_NONE && answered->members == 1 && answered->uid != uid);
    check_room(room_of("r"));
    end();
}

RH_TEST(room, devices_are_the_connections_that_subscribe)
{
    struct rh_event ev = {.kind = RH_EV_UNSUB, .from = 2};
    struct rh_member *m;

    begin();
    m = join_of(2, "ann", "r");
    join_of(2, "ann", "r");
    RH_EQ_STR(members_of("r"),
              "{\"items\":[{\"user\":\"ann\",\"user_type\":\"\",\"since\":1700000000123,"
              "\"devices\":2}],\"next\":null}");
    ev.a = uid_of("r");
    ev.cookie = m;
    ev.flags = RH_UNSUB_DETACH;
    rh_room_unsub_pop(sh, &ev);
    RH_OK_IF(m->subs == 2 && m->live == 1);
    ev.flags = RH_UNSUB_END; /* the one in its resume window */
    rh_room_unsub_pop(sh, &ev);
    RH_OK_IF(m->subs == 1 && m->live == 1);
    ev.flags = RH_UNSUB_END | RH_UNSUB_DETACH;
    rh_room_unsub_pop(sh, &ev);
    RH_EQ_U64(rh_map_count(&room_of("r")->members), 0);
    RH_EQ_U64(room_of("r")->interest, 0);
    check_room(room_of("r"));
    ev.a++; /* a room that is gone */
    rh_room_unsub_pop(sh, &ev);
    end();
}

/* ---- MEMBERS ---- */

RH_TEST(room, members_come_in_pages_in_the_order_of_joining)
{
    struct rh_ask *ask;
    char name[8];

    begin();
    RH_EQ_INT(handle(ask_of(RH_ASK_MEMBERS, 0, "ann", "r"))->err, RH_WIRE_not_found);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "u%d", 9 - i);
        RH_OK_IF(join_of(0, name, "r"));
    }
    ask = ask_of(RH_ASK_MEMBERS, 0, "ann", "r");
    ask->limit = 2;
    ask->since = 2;
    ask = handle(ask);
    RH_OK_IF(memmem(ask->text->at, ask->text->len, "\"u7\"", 4));
    RH_OK_IF(memmem(ask->text->at, ask->text->len, "\"u6\"", 4));
    RH_OK_IF(memmem(ask->text->at, ask->text->len, "],\"next\":\"4\"}", 13));
    RH_OK_IF(!memmem(ask->text->at, ask->text->len, "\"u8\"", 4));
    RH_OK_IF(!memmem(ask->text->at, ask->text->len, "\"u5\"", 4));
    end();
}

/* ---- DELETE ---- */

RH_TEST(room, a_deletion_is_told_behind_all_that_was_published)
{
    struct rh_ask *ask;
    uint64_t uid;

    begin();
    RH_EQ_INT(handle(ask_of(RH_ASK_DELETE, 0, "ann", "r"))->err, RH_WIRE_not_found);
    do_create("ann", "r");
    join_of(HOME, "bob", "r");
    join_of(2, "carl", "r");
    handle(publish_ask(2, "carl", "r", "hello"));
    uid = uid_of("r");
    read_book();
    RH_EQ_INT(handle(ask_of(RH_ASK_DELETE, 2, "carl", "r"))->err, RH_WIRE_forbidden);
    ask = ask_of(RH_ASK_DELETE, 2, "root", "r");
    ask->is_admin = true;
    handle(ask);
    RH_EQ_STR(read_book(), "no forbidden, push deleted r, over, ok delete 2");
    RH_EQ_STR(other_gets(2), "joined carl 2, 1:hello, deleted r, over");
    RH_EQ_STR(other_gets(0), ""); /* nobody was there */
    RH_OK_IF(!room_of("r") && !rh_room_by_uid(sh, uid));
    do_create("bob", "r"); /* the name is free at once */
    RH_OK_IF(uid_of("r") != uid && room_of("r")->seq == 0);
    end();
}

/* Until the spill has memory for so many more tells. */
static void fill_spill(unsigned to, unsigned left)
{
    for (unsigned i = left; i < RH_RING_SLOTS - 1 + RH_SPILL_TELLS; i++) {
        struct rh_event ev = {.kind = RH_EV_QUIET};

        RH_EQ_INT(rh_mesh_tell(sh->mesh, to, &ev), RH_OK);
    }
}

static struct rh_ask *delete_with_failure(uint64_t nth)
{
    struct rh_ask *ask = ask_of(RH_ASK_DELETE, 0, "ann", "r");

    rh_mem_fail_nth(nth);
    handle(ask);
    rh_mem_fail_nth(0);
    return answered;
}

RH_TEST(room, a_deletion_that_not_everybody_could_be_told_of_does_not_happen)
{
    begin();
    join_of(HOME, "ann", "r");
    join_of(0, "bob", "r");
    join_of(2, "carl", "r");
    for (unsigned left = 0; left < 2; left++) {
        others_forget();
        fill_spill(2, left);
        read_book();
        RH_EQ_INT(delete_with_failure(1)->err, RH_WIRE_unavailable); /* the notice */
        RH_EQ_INT(delete_with_failure(2)->err, RH_WIRE_unavailable); /* the spill */
        RH_EQ_STR(read_book(), "no unavailable, no unavailable");
        check_room(room_of("r"));
        RH_EQ_INT(stat_of(RH_STAT_rooms), 1);
        RH_EQ_STR(other_gets(0), "");
    }
    RH_EQ_INT(delete_with_failure(0)->err, RH_WIRE_NONE);
    end();
}

/* ---- empty rooms ---- */

RH_TEST(room, an_empty_room_goes_after_its_time)
{
    struct rh_member *m;
    uint64_t uid;

    begin();
    cfg->rooms_empty_ttl_ms = 5000;
    do_create("ann", "r");
    sleep_ms(4999);
    RH_OK_IF(room_of("r"));
    m = join_of(0, "bob", "r");
    uid = uid_of("r");
    sleep_ms(60000);
    RH_OK_IF(room_of("r"));
    rh_room_unsub(sh, 0, uid, m, RH_UNSUB_END | RH_UNSUB_DETACH);
    sleep_ms(4999);
    RH_OK_IF(room_of("r"));
    sleep_ms(1);
    RH_OK_IF(!room_of("r") && !rh_room_by_uid(sh, uid));
    join_of(0, "bob", "r");
    RH_OK_IF(uid_of("r") != uid); /* another life */
    end();
}

RH_TEST(room, an_empty_room_keeps_its_seq_and_history_while_it_lives)
{
    struct rh_member *m;
    struct rh_ask *ask;

    begin();
    m = join_of(0, "bob", "r");
    handle(publish_ask(0, "bob", "r", "hello"));
    rh_room_unsub(sh, 0, uid_of("r"), m, RH_UNSUB_END | RH_UNSUB_DETACH);
    sleep_ms(1000);
    ask = ask_of(RH_ASK_JOIN, 0, "bob", "r");
    ask->live = ask->has_since = true;
    ask = handle(ask);
    RH_OK_IF(ask->seq == 1 && ask->recovered && ask->replay && ask->replay->count == 1);
    end();
}

RH_TEST(room, with_a_time_of_zero_rooms_go_in_the_pass_in_which_they_are_empty)
{
    struct rh_member *m;

    begin();
    cfg->rooms_empty_ttl_ms = 0;
    m = join_of(0, "bob", "r");
    sleep_ms(10);
    RH_OK_IF(room_of("r"));
    handle(leave_ask(0, "bob", "r", m, uid_of("r")));
    RH_EQ_INT(answered->err, RH_WIRE_NONE);
    sleep_ms(0);
    RH_OK_IF(!room_of("r"));
    end();
}

RH_TEST(room, a_longer_time_in_a_new_configuration_counts_for_rooms_that_are_empty)
{
    begin();
    cfg->rooms_empty_ttl_ms = 1000;
    do_create("ann", "r");
    cfg->rooms_empty_ttl_ms = 3000;
    sleep_ms(2999);
    RH_OK_IF(room_of("r"));
    sleep_ms(1);
    RH_OK_IF(!room_of("r"));
    end();
}

/* ---- all of it at once ---- */

#define USERS 12
#define ROOMS 4
#define SUBS  4 /* sessions of a user */
#define STEPS 30000

struct model_sub {
    bool in, live;
    void *member;
    uint64_t uid;
};

static struct model_sub subs[USERS][ROOMS][SUBS];

static unsigned model_members(unsigned r)
{
    unsigned count = 0;

    for (unsigned u = 0; u < USERS; u++) {
        bool in = false;

        for (unsigned s = 0; s < SUBS; s++)
            in |= subs[u][r][s].in;
        count += in;
    }
    return count;
}

static void model_step(void)
{
    unsigned u = rh_test_rand() % USERS, r = rh_test_rand() % ROOMS, s = rh_test_rand() % SUBS;
    unsigned from = u % SHARDS, what = rh_test_rand() % 100;
    struct model_sub *sub = &subs[u][r][s];
    char user[8], room[8];
    struct rh_ask *ask;

    snprintf(user, sizeof(user), "u%u", u);
    snprintf(room, sizeof(room), "r%u", r);
    if (what < 35 && !sub->in) {
        sub->member = join_of(from, user, room);
        sub->in = sub->live = true;
        sub->uid = answered->uid;
    } else if (what < 50 && sub->in) {
        ask = again_ask(from, user, room, sub->member, sub->uid);
        ask->live = !sub->live;
        RH_OK_IF(handle(ask)->member == sub->member && answered->uid == sub->uid);
        sub->live = true;
    } else if (what < 65 && sub->in) {
        ask = leave_ask(from, user, room, sub->member, sub->uid);
        ask->live = sub->live;
        sub->in = false;
        handle(ask);
    } else if (what < 75 && sub->in && sub->live) {
        rh_room_unsub(sh, from, sub->uid, sub->member, RH_UNSUB_DETACH);
        sub->live = false;
    } else if (what < 97 && sub->in) {
        rh_room_unsub(sh, from, sub->uid, sub->member,
                      RH_UNSUB_END | (sub->live ? RH_UNSUB_DETACH : 0));
        sub->in = false;
    } else if (what == 99) {
        ask = ask_of(RH_ASK_DELETE, from, user, room);
        ask->is_admin = true;
        handle(ask);
        for (u = 0; u < USERS; u++)
            memset(subs[u][r], 0, sizeof(subs[u][r]));
    }
    if (room_of(room)) {
        check_room(room_of(room));
        RH_EQ_U64(rh_map_count(&room_of(room)->members), model_members(r));
        for (unsigned k = 0; k < SHARDS; k++) { /* all have been handed out: nothing is held */
            room_of(room)->shards[k].done = room_of(room)->shards[k].sent;
            room_of(room)->shards[k].done_bytes = room_of(room)->shards[k].sent_bytes;
        }
    } else {
        RH_EQ_INT(model_members(r), 0);
    }
}

/* Goal    counts and lists agree after any course of events.
 * Method  random joins, leaves, losses of connections, resumes and deletions beside a model. */
RH_TEST(room, members_and_counts_are_those_of_a_model)
{
    begin();
    cfg->rooms_empty_ttl_ms = 50;
    for (unsigned i = 0; i < STEPS; i++) {
        model_step();
        read_book();
        others_forget();
        if (i % 16 == 0)
            sleep_ms(rh_test_rand() % 40);
    }
    end();
}

/* ---- memory ---- */

static void use_of_a_room(void *arg)
{
    uint64_t nth = rh_mem_fail_left();
    struct rh_member *m;
    struct rh_ask *ask;

    rh_mem_fail_nth(0);
    begin();
    ask = rh_mem_zalloc(sizeof(*ask) + 64);
    *ask = (struct rh_ask){.op = RH_ASK_CREATE, .room_len = 1, .user_len = 3, .meta_len = 2};
    ask->room_hash = hash_of("r");
    memcpy(ask->bytes, "rann{}", 6);
    rh_mem_fail_nth(nth);
    handle(ask);
    RH_EQ_INT(answered->err ? 1 : 0, room_of("r") ? 0 : 1);
    m = join_of(0, "ann", "r");
    RH_EQ_INT(m == NULL, room_of("r") == NULL || rh_map_count(&room_of("r")->members) == 0);
    if (join_of(HOME, "bob", "r")) {
        handle(publish_ask(HOME, "bob", "r", "hello"));
        ask = ask_of(RH_ASK_JOIN, HOME, "bob", "r");
        ask->has_since = ask->live = true;
        handle(ask);
        check_room(room_of("r"));
    }
    handle(ask_of(RH_ASK_MEMBERS, HOME, "bob", "r"));
    handle(ask_of(RH_ASK_HISTORY, HOME, "bob", "r"));
    if (m)
        handle(leave_ask(0, "ann", "r", m, uid_of("r")));
    ask = ask_of(RH_ASK_DELETE, 0, "ann", "r");
    ask->is_admin = true;
    handle(ask);
    RH_EQ_INT(answered->err == RH_WIRE_unavailable, room_of("r") != NULL);
    nth = rh_mem_fail_left();
    end();
    rh_mem_fail_nth(nth);
}

RH_TEST(room, failing_memory_refuses_and_leaves_nothing_behind)
{
    rh_test_fail_each_alloc(use_of_a_room, NULL);
}

static void join_of_an_unknown_room(void *arg)
{
    uint64_t nth = rh_mem_fail_left();

    rh_mem_fail_nth(0);
    begin();
    rh_mem_fail_nth(nth);
    RH_EQ_INT(join_of(0, "ann", "r") != NULL, room_of("r") != NULL);
    RH_OK_IF(answered->err == RH_WIRE_NONE || answered->err == RH_WIRE_unavailable);
    nth = rh_mem_fail_left();
    end();
    rh_mem_fail_nth(nth);
}

RH_TEST(room, a_room_whose_first_joiner_found_no_memory_is_not_made)
{
    rh_test_fail_each_alloc(join_of_an_unknown_room, NULL);
}
