/* tests/store/test_memory.c - the back end in memory, by the calls of store/backend.h alone. */
#include <stdio.h>

#include "core/event.h"
#include "core/mem.h"
#include "store/backend.h"
#include "tests/rh_test.h"

#define NOW 1000000u

static const struct rh_kept_names names = {.key = {3, 4}, .shards = 4};
static struct rh_backend *b;

static void begin(void)
{
    const struct rh_backend_opts opts = {.names = &names, .now_ms = NOW, .ids_max = 1000};

    RH_EQ_INT(rh_backend_memory.open(&opts, &b, NULL), RH_OK);
}

static void fini(void)
{
    b->ops->close(b);
}

static struct rh_span span(const char *text)
{
    return (struct rh_span){text, (uint32_t)strlen(text)};
}

static struct rh_jot_share shares[3];

/* An OWED of a direct message, or of a room's with three shares. */
static struct rh_jot owed(uint64_t number, bool room)
{
    static const char *const users[] = {"ann", "bob", "cid"};

    for (int i = 0; i < 3; i++)
        shares[i] = (struct rh_jot_share){.user = span(users[i]), .attempt = 1};
    return (struct rh_jot){
        .kind = RH_JOT_OWED,
        .msg_kind = room ? RH_MSG_ROOM : RH_MSG_DIRECT,
        .flags = RH_JOT_ACK,
        .number = number,
        .recipients = room ? 3 : 1,
        .at_ms = NOW,
        .from = span("sam"),
        .to = span(room ? "lobby" : "ann"),
        .id = span("id"),
        .text = span("{\"attempt\":1,\"ack\":true}"),
        .attempt_at = 11,
        .attempt_len = 1,
        .ack_at = 19,
        .shares = shares,
        .share_count = room ? 3 : 1,
    };
}

static struct rh_jot settled(uint64_t number, uint32_t share)
{
    return (struct rh_jot){
        .kind = RH_JOT_SETTLED, .number = number, .share = share, .state = RH_STATE_success};
}

static struct rh_jot id_until(const char *id, uint64_t until_ms)
{
    return (struct rh_jot){.kind = RH_JOT_ID,
                           .msg_kind = RH_MSG_DIRECT,
                           .flags = RH_JOT_STORED,
                           .dedup_ms = until_ms,
                           .seq = 5,
                           .recipients = 1,
                           .from = span("sam"),
                           .to = span("ann"),
                           .id = span(id)};
}

static void replay(uint64_t segment, struct rh_jot jot)
{
    RH_EQ_INT(b->ops->replay(b, segment, &jot), RH_OK);
}

static struct rh_backend_stat stat(void)
{
    struct rh_backend_stat s;

    b->ops->stat(b, &s);
    return s;
}

/* "id:x id:y 3 7" : what is loaded, in order. */
static const char *load(void)
{
    static char text[4096];
    struct rh_kept *k;
    struct rh_jot id;
    size_t len = 0;

    text[0] = 0;
    for (;;) {
        switch (b->ops->load_next(b, &k, &id)) {
        case RH_LOAD_ID:
            len += (size_t)snprintf(text + len, sizeof(text) - len, "id:%.*s ", (int)id.id.len,
                                    id.id.at);
            break;
        case RH_LOAD_OWED:
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%u ",
                                    (unsigned)rh_kept_number(k));
            break;
        default:
            return text;
        }
    }
}

/* What forward puts: its kinds, as long as `room` lasts. */
static struct {
    char text[256];
    int room;
} out;

static bool put(void *arg, const struct rh_jot *jot)
{
    (void)arg;
    if (out.room-- <= 0)
        return false;
    snprintf(out.text + strlen(out.text), 32, "%s%u ", jot->kind == RH_JOT_OWED ? "owed" : "id",
             (unsigned)jot->number);
    return true;
}

static bool forward(uint64_t before, uint64_t segment, int room)
{
    out.text[0] = 0;
    out.room = room;
    return b->ops->forward(b, before, segment, put, NULL);
}

RH_TEST(memory, what_is_replayed_is_loaded_in_the_order_of_numbers)
{
    begin();
    for (uint64_t n = 1; n < 10; n++)
        replay(1, owed(n, n % 2));
    replay(1, settled(4, 0));
    replay(2, owed(12, false));
    replay(2, owed(3, true)); /* copied forward */
    replay(2, owed(11, false));
    replay(2, settled(99, 0)); /* of a message that is long gone */
    replay(3, owed(2, false));
    RH_EQ_U64(stat().messages, 10);
    RH_EQ_STR(load(), "1 2 3 5 6 7 8 9 11 12 ");
    fini();
}

RH_TEST(memory, any_order_of_numbers_is_sorted)
{
    char want[4096] = "";
    unsigned order[300];
    size_t len = 0;

    begin();
    for (unsigned i = 0; i < 300; i++)
        order[i] = i + 1;
    for (unsigned i = 300; i > 1; i--) {
        unsigned k = (unsigned)(rh_test_rand() % i), n = order[k];

        order[k] = order[i - 1];
        order[i - 1] = n;
    }
    for (unsigned i = 0; i < 300; i++) {
        replay(1 + i / 50, owed(order[i], false));
        len += (size_t)snprintf(want + len, sizeof(want) - len, "%u ", i + 1);
    }
    RH_EQ_STR(load(), want);
    fini();
}

RH_TEST(memory, shares_end_one_by_one_and_the_last_one_ends_the_message)
{
    struct rh_jot jot;

    begin();
    replay(1, owed(1, true));
    replay(1, settled(1, 0));
    replay(1, settled(1, 0)); /* twice is once */
    replay(1, settled(1, 2));
    RH_EQ_U64(stat().messages, 1);
    jot = owed(1, true); /* the same, copied forward */
    shares[0].state = shares[2].state = RH_STATE_success;
    RH_EQ_INT(b->ops->replay(b, 2, &jot), RH_OK);
    replay(2, settled(1, 1));
    RH_EQ_U64(stat().messages, 0);
    RH_EQ_U64(stat().bytes, 0);
    RH_EQ_STR(load(), "");
    fini();
}

RH_TEST(memory, of_a_message_that_has_ended_its_id_stays_until_its_time)
{
    struct rh_backend_turn turn = {.now_ms = NOW, .ids_max = 1000};
    struct rh_jot jot = owed(1, false), late = owed(2, false);

    begin();
    jot.dedup_ms = NOW + 5;
    late.dedup_ms = NOW;
    replay(1, jot);
    replay(1, late);
    replay(1, settled(1, 0));
    replay(1, settled(2, 0));
    replay(1, id_until("x", NOW + 10));
    replay(1, id_until("over", NOW));
    RH_EQ_U64(stat().ids, 2);
    RH_EQ_STR(load(), "id:id id:x ");
    turn.now_ms = NOW + 5;
    b->ops->step(b, &turn);
    RH_EQ_U64(stat().ids, 1);
    turn.now_ms = 0; /* the clock is behind what is stored: nothing is over */
    b->ops->step(b, &turn);
    RH_EQ_U64(stat().ids, 1);
    turn.now_ms = NOW + 10;
    b->ops->step(b, &turn);
    RH_EQ_U64(stat().ids, 0);
    fini();
}

RH_TEST(memory, the_oldest_ids_make_room)
{
    struct rh_backend_turn turn = {.now_ms = NOW, .ids_max = 2};

    begin();
    replay(1, id_until("a", NOW + 10));
    replay(2, id_until("b", NOW + 10));
    replay(2, id_until("c", NOW + 10));
    RH_EQ_STR(load(), "id:a id:b id:c ");
    b->ops->step(b, &turn);
    RH_EQ_U64(stat().ids, 2);
    RH_EQ_INT(forward(9, 9, 9), true);
    RH_EQ_STR(out.text, "id0 id0 ");
    fini();
}

RH_TEST(memory, forward_puts_again_what_old_segments_alone_say)
{
    begin();
    replay(1, owed(1, false));
    replay(1, owed(2, true));
    replay(1, owed(3, false));
    replay(1, id_until("a", NOW + 10));
    replay(2, owed(4, false));
    replay(2, settled(3, 0));
    RH_EQ_STR(load(), "id:a 1 2 4 ");
    RH_EQ_INT(forward(2, 3, 2), false);
    RH_EQ_STR(out.text, "owed1 owed2 ");
    RH_EQ_INT(forward(2, 3, 2), true);
    RH_EQ_STR(out.text, "id0 ");
    RH_EQ_INT(forward(2, 3, 2), true); /* nothing is left there */
    RH_EQ_STR(out.text, "");
    RH_EQ_INT(forward(4, 4, 9), true);
    RH_EQ_STR(out.text, "owed4 owed1 owed2 id0 ");
    RH_EQ_U64(stat().messages, 3);
    RH_EQ_U64(stat().ids, 1);
    fini();
}

RH_TEST(memory, what_makes_no_sense_is_refused)
{
    struct rh_jot jot;

    begin();
    jot = owed(1, false);
    jot.attempt_at = jot.text.len;
    RH_EQ_INT(b->ops->replay(b, 1, &jot), RH_EINVAL);
    jot = owed(1, false);
    jot.ack_at = jot.text.len - 4;
    RH_EQ_INT(b->ops->replay(b, 1, &jot), RH_EINVAL);
    jot = owed(1, false);
    jot.share_count = 3;
    RH_EQ_INT(b->ops->replay(b, 1, &jot), RH_EINVAL);
    jot = owed(1, false);
    jot.from.len = 256;
    RH_EQ_INT(b->ops->replay(b, 1, &jot), RH_EINVAL);
    jot = id_until("x", NOW + 1);
    jot.id.len = 256;
    RH_EQ_INT(b->ops->replay(b, 1, &jot), RH_EINVAL);
    RH_EQ_U64(stat().messages, 0);
    fini();
}

static void replay_some(void *arg)
{
    const struct rh_backend_opts opts = {.names = &names, .now_ms = NOW, .ids_max = 1000};
    struct rh_jot jots[4];

    (void)arg;
    if (rh_backend_memory.open(&opts, &b, NULL) < 0)
        return;
    jots[0] = owed(1, false);
    jots[1] = owed(2, true);
    jots[2] = id_until("x", NOW + 1);
    jots[3] = settled(1, 0);
    for (unsigned i = 0; i < 4; i++) {
        int rc = b->ops->replay(b, 1 + i, &jots[i]);

        RH_OK_IF(rc == RH_OK || rc == RH_ENOMEM);
    }
    RH_OK_IF(stat().messages <= 2 && stat().ids <= 1);
    fini();
}

RH_TEST(memory, whatever_allocation_fails_nothing_is_left_behind)
{
    rh_test_fail_each_alloc(replay_some, NULL);
}
