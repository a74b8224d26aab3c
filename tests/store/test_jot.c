/* Goal    every event comes back as it was put, there is one way to write it, and bytes that are no event
 *         are told as such, whatever they are.
 * Method  random events; cut at every byte in front of a guard page; random changes. */
#include "store/jot.h"

#include <stdlib.h>

#include "core/mem.h"
#include "core/msg.h"
#include "tests/rh_test.h"

static char names[4096];

static struct rh_span any_span(size_t most)
{
    const size_t len = rh_test_rand() % (most + 1);
    const size_t from = rh_test_rand() % (sizeof(names) - len);

    return (struct rh_span){names + from, (uint32_t)len};
}

/* Of any length in bits. */
static uint64_t any_number(unsigned bits)
{
    return rh_test_rand() >> (64 - bits) >> rh_test_rand() % bits;
}

static void any_names(struct rh_jot *jot)
{
    jot->msg_kind = rh_test_rand() % 2 ? RH_MSG_ROOM : RH_MSG_DIRECT;
    jot->dedup_ms = any_number(64);
    jot->seq = any_number(64);
    jot->recipients = (uint32_t)any_number(32);
    jot->from = any_span(RH_JOT_NAME_MAX);
    jot->to = any_span(RH_JOT_NAME_MAX);
    jot->id = any_span(64);
}

static void any_owed(struct rh_jot *jot)
{
    static struct rh_jot_share shares[40];

    any_names(jot);
    jot->flags = rh_test_rand() % 32;
    jot->number = any_number(63) + 1;
    jot->expires_ms = any_number(64);
    jot->uid = any_number(64);
    jot->text = any_span(2000);
    jot->attempt_at = rh_test_rand() % (jot->text.len + 1);
    jot->attempt_len = rh_test_rand() % (RH_MIN(jot->text.len - jot->attempt_at, 10) + 1);
    jot->ack_at = rh_test_rand() % (jot->text.len + 1);
    jot->shares = shares;
    jot->share_count = jot->msg_kind == RH_MSG_DIRECT ? 1 : 1 + rh_test_rand() % RH_COUNT(shares);
    for (uint32_t i = 0; i < jot->share_count; i++) {
        shares[i].user = any_span(RH_JOT_NAME_MAX);
        shares[i].attempt = (uint32_t)any_number(32);
        shares[i].state = rh_test_rand() % RH_STATE_COUNT;
        shares[i].reason = rh_test_rand() % RH_REASON_COUNT;
    }
}

static struct rh_jot any_jot(unsigned kind)
{
    struct rh_jot jot = {.kind = (uint8_t)kind, .at_ms = any_number(64)};

    for (size_t i = 0; i < sizeof(names); i++)
        names[i] = (char)(rh_test_rand() % 256);
    if (kind == RH_JOT_OWED)
        any_owed(&jot);
    if (kind == RH_JOT_ID) {
        any_names(&jot);
        jot.flags = rh_test_rand() % 2 ? RH_JOT_STORED : 0;
    }
    if (kind == RH_JOT_ATTEMPT || kind == RH_JOT_SETTLED) {
        jot.number = any_number(63) + 1;
        jot.share = (uint32_t)any_number(32);
    }
    if (kind == RH_JOT_ATTEMPT)
        jot.attempt = (uint32_t)any_number(32);
    if (kind == RH_JOT_SETTLED) {
        jot.state = RH_STATE_success + rh_test_rand() % (RH_STATE_COUNT - RH_STATE_success);
        jot.reason = rh_test_rand() % RH_REASON_COUNT;
    }
    return jot;
}

static bool same_shares(const struct rh_jot *a, const struct rh_jot *b)
{
    for (uint32_t i = 0; i < a->share_count; i++)
        if (!rh_span_eq(a->shares[i].user, b->shares[i].user) ||
            a->shares[i].attempt != b->shares[i].attempt ||
            a->shares[i].state != b->shares[i].state || a->shares[i].reason != b->shares[i].reason)
            return false;
    return true;
}

static bool same(const struct rh_jot *a, const struct rh_jot *b)
{
    return a->kind == b->kind && a->msg_kind == b->msg_kind && a->flags == b->flags &&
           a->state == b->state && a->reason == b->reason && a->attempt_len == b->attempt_len &&
           a->share == b->share && a->attempt == b->attempt && a->recipients == b->recipients &&
           a->number == b->number && a->at_ms == b->at_ms && a->expires_ms == b->expires_ms &&
           a->dedup_ms == b->dedup_ms && a->seq == b->seq && a->uid == b->uid &&
           a->attempt_at == b->attempt_at && a->ack_at == b->ack_at &&
           rh_span_eq(a->from, b->from) && rh_span_eq(a->to, b->to) && rh_span_eq(a->id, b->id) &&
           rh_span_eq(a->text, b->text) && a->share_count == b->share_count && same_shares(a, b);
}

RH_TEST(jot, every_event_comes_back_as_it_was_put)
{
    struct rh_jot_room room = {0};

    for (unsigned round = 0; round < 20000; round++) {
        const struct rh_jot jot = any_jot(1 + round % (RH_JOT_COUNT - 1));
        const size_t size = rh_jot_size(&jot);
        uint8_t *bytes = malloc(size);
        struct rh_jot back;

        RH_OK_IF(rh_jot_is_sound(&jot));
        RH_OK_IF(rh_jot_encode(bytes, &jot) == bytes + size);
        RH_OK_IF(rh_jot_decode(bytes, size, &room, &back) == (int64_t)size);
        RH_OK_IF(same(&jot, &back));
        free(bytes);
    }
    rh_jot_room_fini(&room);
}

RH_TEST(jot, one_that_is_cut_is_none_and_no_byte_behind_it_is_read)
{
    struct rh_jot_room room = {0};

    for (unsigned round = 0; round < 10; round++)
        for (unsigned kind = 1; kind < RH_JOT_COUNT; kind++) {
            struct rh_jot jot = any_jot(kind), back;
            uint8_t bytes[16384];
            size_t size;

            jot.text.len = RH_MIN(jot.text.len, 50);
            jot.attempt_at = jot.ack_at = jot.attempt_len = 0;
            jot.share_count = RH_MIN(jot.share_count, 3);
            size = rh_jot_size(&jot);
            RH_OK_IF(rh_jot_encode(bytes, &jot) == bytes + size);
            for (size_t cut = 0; cut < size; cut++)
                RH_OK_IF(rh_jot_decode(rh_guard(bytes, cut), cut, &room, &back) == RH_EINVAL);
        }
    rh_jot_room_fini(&room);
}

/* Whatever is read makes sense, and is written as it was read. */
RH_TEST(jot, changed_bytes_are_no_event_or_one_that_is_written_alike)
{
    struct rh_jot_room room = {0};
    uint8_t bytes[16384], again[16384];
    unsigned events = 0;

    for (unsigned round = 0; round < 40000; round++) {
        const struct rh_jot jot = any_jot(1 + round % (RH_JOT_COUNT - 1));
        const size_t size = rh_jot_size(&jot);
        struct rh_jot back;
        int64_t used;

        rh_jot_encode(bytes, &jot);
        for (unsigned flips = 1 + rh_test_rand() % 3; flips--;)
            bytes[rh_test_rand() % RH_MIN(size, 60)] ^= (uint8_t)(1u << rh_test_rand() % 8);
        used = rh_jot_decode(bytes, size, &room, &back);
        if (used < 0)
            continue;
        events++;
        RH_OK_IF(used <= (int64_t)size && rh_jot_is_sound(&back));
        RH_OK_IF(rh_jot_encode(again, &back) == again + used);
        RH_OK_IF(!memcmp(bytes, again, (size_t)used));
    }
    RH_OK_IF(events > 100);
    rh_jot_room_fini(&room);
}

/* ---- what makes no sense, each alone ---- */

static struct rh_jot sound(void)
{
    static struct rh_jot_share share;

    share = (struct rh_jot_share){.user = RH_SPAN("bob"), .state = RH_STATE_pending};
    return (struct rh_jot){.kind = RH_JOT_OWED,
                           .msg_kind = RH_MSG_DIRECT,
                           .number = 1,
                           .from = RH_SPAN("alice"),
                           .to = RH_SPAN("bob"),
                           .id = RH_SPAN("m1"),
                           .text = RH_SPAN("{\"attempt\":1,\"ack\":true}"),
                           .attempt_at = 11,
                           .attempt_len = 1,
                           .ack_at = 19,
                           .shares = &share,
                           .share_count = 1};
}

RH_TEST(jot, fields_that_make_no_sense_make_no_event)
{
    struct rh_jot jot = sound();

    RH_OK_IF(rh_jot_is_sound(&jot));
#define WRONG(change)                                                                              \
    do {                                                                                           \
        jot = sound();                                                                             \
        change;                                                                                    \
        RH_OK_IF(!rh_jot_is_sound(&jot));                                                          \
    } while (0)
    WRONG(jot.kind = RH_JOT_NONE);
    WRONG(jot.kind = RH_JOT_COUNT);
    WRONG(jot.number = 0);
    WRONG(jot.msg_kind = RH_MSG_BROADCAST);
    WRONG(jot.flags = 32);
    WRONG(jot.attempt_at = 25);
    WRONG(jot.attempt_len = 14);
    WRONG(jot.ack_at = 26);
    WRONG(jot.share_count = 0);
    WRONG(jot.share_count = 2);
    WRONG(jot.to.len = 256);
    WRONG(jot.text.len = RH_JOT_TEXT_MAX + 1);
    WRONG(((struct rh_jot_share *)jot.shares)->state = RH_STATE_COUNT);
    WRONG(((struct rh_jot_share *)jot.shares)->reason = RH_REASON_COUNT);
    WRONG(((struct rh_jot_share *)jot.shares)->user.len = 256);
    WRONG((jot.kind = RH_JOT_ATTEMPT, jot.number = 0));
    WRONG((jot.kind = RH_JOT_SETTLED, jot.state = RH_STATE_sending));
    WRONG((jot.kind = RH_JOT_SETTLED, jot.state = RH_STATE_COUNT));
    WRONG((jot.kind = RH_JOT_SETTLED, jot.state = RH_STATE_failed, jot.reason = RH_REASON_COUNT));
    WRONG((jot.kind = RH_JOT_SETTLED, jot.state = RH_STATE_failed, jot.number = 0));
    WRONG((jot.kind = RH_JOT_ID, jot.flags = RH_JOT_ACK));
    WRONG((jot.kind = RH_JOT_ID, jot.id.len = 256));
#undef WRONG
}

RH_TEST(jot, numbers_are_written_in_one_way)
{
    struct rh_jot_room room = {0};
    struct rh_jot jot;
    static const uint8_t one[] = {RH_JOT_TIME, 1}, longer[] = {RH_JOT_TIME, 0x81, 0};
    static const uint8_t most[] = {RH_JOT_TIME, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff,        0xff, 0xff, 0xff, 1};
    uint8_t more[sizeof(most)];

    RH_EQ_INT(rh_jot_decode(one, sizeof(one), &room, &jot), 2);
    RH_EQ_U64(jot.at_ms, 1);
    RH_EQ_INT(rh_jot_decode(longer, sizeof(longer), &room, &jot), RH_EINVAL);
    RH_EQ_INT(rh_jot_decode(most, sizeof(most), &room, &jot), sizeof(most));
    RH_OK_IF(jot.at_ms == UINT64_MAX);
    memcpy(more, most, sizeof(most));
    more[10] = 2;
    RH_EQ_INT(rh_jot_decode(more, sizeof(more), &room, &jot), RH_EINVAL);
}

/* A number of shares that the bytes cannot hold takes no memory. */
RH_TEST(jot, a_number_of_shares_that_lies_takes_no_memory)
{
    struct rh_jot jot = sound();
    struct rh_jot_room room = {0};
    uint8_t bytes[256], lie[256];
    const size_t size = rh_jot_size(&jot), shares_at = size - 8;

    rh_jot_encode(bytes, &jot);
    RH_EQ_INT(bytes[shares_at], 1);
    memcpy(lie, bytes, shares_at);
    memcpy(lie + shares_at, "\xff\xff\xff\xff\x0f", 5);
    rh_mem_fail_nth(1);
    RH_EQ_INT(rh_jot_decode(lie, shares_at + 5 + 30, &room, &jot), RH_EINVAL);
    RH_EQ_U64(rh_mem_fail_left(), 1);
    RH_EQ_INT(rh_jot_decode(bytes, size, &room, &jot), RH_ENOMEM);
    RH_EQ_INT(rh_jot_decode(bytes, size, &room, &jot), size);
    rh_jot_room_fini(&room);
}
