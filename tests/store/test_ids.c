/* tests/store/test_ids.c - the queue of ids against a plain array of them. */
#include "store/ids.h"

#include <stdio.h>

#include "core/msg.h"
#include "tests/rh_test.h"

#define MANY 3000

static char names[MANY][256];

/* The nth: names of any length that a byte can say, the longest and none among them. */
static struct rh_jot nth(unsigned n)
{
    uint32_t len = n % 7 == 0 ? 255 : n % 11 == 0 ? 0 : (n * 37) % 64;

    memset(names[n], 'a' + (int)(n % 26), sizeof(names[n]));
    return (struct rh_jot){
        .kind = RH_JOT_ID,
        .msg_kind = n % 2 ? RH_MSG_ROOM : RH_MSG_DIRECT,
        .flags = n % 3 ? RH_JOT_STORED : 0,
        .dedup_ms = 1000 + n,
        .seq = 7ull * n,
        .recipients = n,
        .from = {names[n], len},
        .to = {names[n], len / 2},
        .id = {names[n], len},
    };
}

static void wants(const struct rh_jot *got, unsigned n)
{
    struct rh_jot want = nth(n);

    RH_OK_IF(got->kind == RH_JOT_ID && got->msg_kind == want.msg_kind);
    RH_OK_IF(got->flags == want.flags && got->dedup_ms == want.dedup_ms);
    RH_OK_IF(got->seq == want.seq && got->recipients == want.recipients);
    RH_OK_IF(rh_span_eq(got->from, want.from) && rh_span_eq(got->to, want.to));
    RH_OK_IF(rh_span_eq(got->id, want.id));
}

RH_TEST(ids, what_is_pushed_is_popped_in_its_order)
{
    struct rh_ids ids = {0};
    struct rh_jot jot;
    unsigned pushed = 0, popped = 0;

    while (popped < MANY) {
        unsigned more = (unsigned)(rh_test_rand() % 200), less = (unsigned)(rh_test_rand() % 180);

        for (; more > 0 && pushed < MANY; more--, pushed++) {
            jot = nth(pushed);
            RH_OK_IF(rh_ids_push(&ids, &jot) == RH_OK);
        }
        RH_OK_IF(ids.count == pushed - popped);
        for (; less > 0 && rh_ids_first(&ids, &jot); less--, popped++) {
            wants(&jot, popped);
            rh_ids_pop(&ids);
        }
    }
    RH_OK_IF(!rh_ids_first(&ids, &jot) && !ids.first && !ids.last);
    rh_ids_fini(&ids);
}

RH_TEST(ids, a_walk_sees_all_that_was_not_popped)
{
    struct rh_ids ids = {0};
    struct rh_ids_at at = {0};
    struct rh_jot jot;
    unsigned n = 100;

    RH_OK_IF(!rh_ids_next(&ids, &at, &jot));
    for (unsigned i = 0; i < MANY; i++) {
        jot = nth(i);
        RH_OK_IF(rh_ids_push(&ids, &jot) == RH_OK);
        if (i < 100)
            rh_ids_pop(&ids);
    }
    for (at = (struct rh_ids_at){0}; rh_ids_next(&ids, &at, &jot); n++)
        wants(&jot, n);
    RH_EQ_INT(n, MANY);
    RH_OK_IF(!rh_ids_next(&ids, &at, &jot));
    rh_ids_fini(&ids);
}
