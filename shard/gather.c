/* shard/gather.c - ask every shard, and go on when all have answered or a second has passed; the
 * design is in gather.h.
 */
#include "shard/gather.h"

#include "core/err.h"

bool rh_gather_open(const struct rh_shard *sh, size_t bytes, unsigned *ret_shard)
{
    for (unsigned to = 0; to < sh->env->shards; to++) {
        if (!rh_route_open(sh, to, bytes)) {
            *ret_shard = to;
            return false;
        }
    }
    return true;
}

static void answer(struct rh_shard *sh, struct rh_gather *g)
{
    if (g->answered)
        return;
    g->answered = true;
    rh_stat_add(&sh->stats, RH_STAT_partial_answers, g->partial);
    g->verbs->answer(sh, g);
}

static void deadline(struct rh_shard *sh, struct rh_alarm *alarm)
{
    struct rh_gather *g = rh_container_of(alarm, struct rh_gather, deadline);

    g->partial = true;
    answer(sh, g);
}

void rh_gather_begin(struct rh_shard *sh, struct rh_gather *g, const struct rh_gather_verbs *verbs)
{
    g->verbs = verbs;
    g->pending = UINT64_MAX >> (64 - sh->env->shards);
    g->answered = false;
    g->partial = false;
    rh_list_init(&g->gathers);
    rh_list_add(&sh->gathers, &g->gathers);
    rh_alarm_init(&g->deadline, deadline);
    rh_alarm_set(sh, &g->deadline, sh->now_ms + RH_GATHER_MS);
}

void rh_gather_ask(struct rh_shard *sh, struct rh_gather *g, const struct rh_event *ev,
                   uint32_t bytes)
{
    for (unsigned to = 0; to < sh->env->shards; to++) {
        struct rh_event question = *ev;
        int rc;

        if (to == sh->tid)
            continue;
        question.cookie = g;
        rc = rh_mesh_ask(sh->mesh, to, &question, bytes);
        rh_assert(rc == RH_OK); /* the way was open */
    }
}

static void end(struct rh_shard *sh, struct rh_gather *g)
{
    rh_alarm_clear(sh, &g->deadline);
    rh_list_del(&g->gathers);
    g->verbs->end(sh, g);
}

void rh_gather_reply(struct rh_shard *sh, struct rh_gather *g, unsigned from,
                     const struct rh_event *reply)
{
    rh_assert(g->pending & 1ull << from);
    g->pending &= ~(1ull << from);
    g->verbs->take(sh, g, reply);
    if (g->pending)
        return;
    answer(sh, g);
    end(sh, g);
}

void rh_gathers_fini(struct rh_shard *sh)
{
    while (!rh_list_empty(&sh->gathers))
        end(sh, rh_container_of(sh->gathers.next, struct rh_gather, gathers));
}
