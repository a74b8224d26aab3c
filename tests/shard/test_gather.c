/* Asking every shard: one answer, complete or partial, and nothing left behind. */
#include "core/mem.h"
#include "shard/gather.h"
#include "tests/rh_test.h"

struct question {
    struct rh_gather g;
    uint64_t sum;
};

static struct rig {
    struct rh_shard *sh;
    struct rh_shard_env env;
    struct question *q;
    uint64_t asked;  /* bit k: shard k has been asked */
    uint64_t closed; /* bit k: no credit of shard k */
    unsigned taken, answers, ends;
    uint64_t answer; /* the sum, as it was answered */
    bool partial;
} rig;

/* ---- the neighbours ---- */

bool rh_route_open(const struct rh_shard *sh, unsigned to, size_t bytes)
{
    return !(rig.closed & 1ull << to);
}

int rh_mesh_ask(struct rh_mesh *m, unsigned to, struct rh_event *ev, uint32_t bytes)
{
    RH_OK_IF(to != rig.sh->tid && !(rig.asked & 1ull << to));
    RH_OK_IF(ev->cookie == &rig.q->g && ev->kind == RH_EV_BROADCAST && bytes == 7);
    rig.asked |= 1ull << to;
    return RH_OK;
}

/* ---- the asker ---- */

static void take(struct rh_shard *sh, struct rh_gather *g, const struct rh_event *reply)
{
    rh_container_of(g, struct question, g)->sum += reply->a;
    rig.taken++;
    g->partial |= reply->flags != 0;
}

static void answer(struct rh_shard *sh, struct rh_gather *g)
{
    rig.answers++;
    rig.answer = rh_container_of(g, struct question, g)->sum;
    rig.partial = g->partial;
}

static void end(struct rh_shard *sh, struct rh_gather *g)
{
    rig.ends++;
    rh_mem_free(rh_container_of(g, struct question, g));
    rig.q = NULL;
}

static void ring(void *arg, struct rh_timer *t)
{
    struct rh_alarm *alarm = rh_container_of(t, struct rh_alarm, timer);

    alarm->ring(arg, alarm);
}

static void begin(unsigned shards, unsigned tid)
{
    static const struct rh_gather_verbs verbs = {take, answer, end};
    struct rh_event ev = {.kind = RH_EV_BROADCAST};

    memset(&rig, 0, sizeof(rig));
    rig.sh = rh_mem_zalloc_aligned(sizeof(*rig.sh));
    rig.sh->tid = tid;
    rig.sh->env = &rig.env;
    rig.env.shards = shards;
    rig.sh->now_ms = 5000;
    rh_list_init(&rig.sh->gathers);
    rh_wheel_init(&rig.sh->alarms, rig.sh->now_ms);
    rig.q = rh_mem_zalloc(sizeof(*rig.q));
    rh_gather_begin(rig.sh, &rig.q->g, &verbs);
    rh_gather_ask(rig.sh, &rig.q->g, &ev, 7);
}

static void finish(void)
{
    RH_OK_IF(!rig.q);
    RH_EQ_INT(rig.answers, 1);
    RH_EQ_INT(rig.ends, 1);
    RH_EQ_U64(rh_wheel_count(&rig.sh->alarms), 0);
    RH_OK_IF(rh_list_empty(&rig.sh->gathers));
    rh_mem_free(rig.sh);
}

static void reply(unsigned from, uint64_t a, uint8_t flags)
{
    rh_gather_reply(rig.sh, &rig.q->g, from, &(struct rh_event){.a = a, .flags = flags});
}

static void pass_ms(uint64_t ms)
{
    rig.sh->now_ms += ms;
    rh_wheel_advance(&rig.sh->alarms, rig.sh->now_ms, 100, ring, rig.sh);
}

RH_TEST(gather, all_others_are_asked_and_the_last_answer_completes_it)
{
    begin(4, 1);
    RH_EQ_U64(rig.asked, 0xd);
    reply(1, 10, 0);
    reply(3, 1, 0);
    pass_ms(RH_GATHER_MS - 10);
    reply(0, 100, 0);
    RH_EQ_INT(rig.answers, 0);
    reply(2, 1000, 0);
    RH_EQ_U64(rig.answer, 1111);
    RH_OK_IF(!rig.partial);
    pass_ms(10000);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_partial_answers], 0);
    finish();
}

RH_TEST(gather, at_the_deadline_it_is_answered_with_what_there_is)
{
    begin(3, 0);
    reply(2, 5, 0);
    pass_ms(RH_GATHER_MS + 1);
    RH_EQ_INT(rig.answers, 1);
    RH_EQ_U64(rig.answer, 5);
    RH_OK_IF(rig.partial);
    RH_EQ_INT(rig.ends, 0);
    reply(0, 1, 0); /* late ones are taken, and the last ends it */
    reply(1, 1, 0);
    RH_EQ_INT(rig.taken, 3);
    RH_EQ_U64(rig.sh->stats.v[RH_STAT_partial_answers], 1);
    finish();
}

RH_TEST(gather, a_shard_that_could_not_makes_it_partial)
{
    begin(2, 1);
    reply(0, 0, 1);
    reply(1, 4, 0);
    RH_EQ_U64(rig.answer, 4);
    RH_OK_IF(rig.partial);
    finish();
}

RH_TEST(gather, one_shard_and_the_most_shards)
{
    begin(1, 0);
    RH_EQ_U64(rig.asked, 0);
    reply(0, 3, 0);
    RH_EQ_U64(rig.answer, 3);
    finish();

    begin(RH_SHARDS_MAX, 63);
    RH_EQ_U64(rig.asked, UINT64_MAX >> 1);
    for (unsigned k = 0; k < RH_SHARDS_MAX; k++)
        reply(k, 1, 0);
    RH_EQ_U64(rig.answer, RH_SHARDS_MAX);
    finish();
}

RH_TEST(gather, a_way_that_is_not_open_is_named)
{
    unsigned to = 99;

    begin(4, 0);
    RH_OK_IF(rh_gather_open(rig.sh, 7, &to));
    RH_EQ_INT(to, 99);
    rig.closed = 1u << 2;
    RH_OK_IF(!rh_gather_open(rig.sh, 7, &to));
    RH_EQ_INT(to, 2);
    for (unsigned k = 0; k < 4; k++)
        reply(k, 0, 0);
    finish();
}

RH_TEST(gather, what_is_out_ends_with_the_shard)
{
    begin(4, 0);
    reply(1, 1, 0);
    rh_gathers_fini(rig.sh);
    RH_EQ_INT(rig.ends, 1);
    rig.answers = 1; /* nobody is answered any more */
    finish();
}
