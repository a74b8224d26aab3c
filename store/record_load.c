/* store/record_load.c - start: what the journal has goes to the back end, then to the shards.
 *
 *   rh_record_read    opens the journal, and gives each of its events to the back end
 *   rh_record_load    a pass at a time: REMEMBER to the senders' shards, OWED to the owners',
 *                     OWED_ROOM to the rooms' homes; behind all of them LOADED to every shard
 *
 * Shards serve nobody before LOADED, so all that is told here comes before anything new. It is told no
 * faster than shards take it: a ring that is full makes the next pass go on at the same step.
 */
#include <string.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "store/record_int.h"

#define LOAD_EVENTS 1024 /* that a pass tells at most */

/* ---- the journal ---- */

static int visit(void *arg, const struct rh_journal_at *at, const struct rh_jot *jot)
{
    struct rh_record *r = arg;

    r->load.events++;
    r->newest_ms = RH_MAX(r->newest_ms, jot->at_ms);
    r->next_number = RH_MAX(r->next_number, jot->number + 1);
    return r->backend->ops->replay(r->backend, at->segment, jot);
}

int rh_record_read(struct rh_record *r, struct rh_fault *fault)
{
    struct rh_journal_opts opts = {
        .files = r->files,
        .segment_bytes = r->segment_bytes,
        .salvage = r->cfg->store_salvage,
    };
    struct rh_journal_stat stat;
    int rc;

    r->load.began_ns = rh_clock_mono_ns();
    if (!r->files)
        return RH_OK;
    rc = rh_journal_open(&opts, visit, r, &r->journal, fault);
    if (rc == RH_ENOMEM)
        return rh_fault_set(fault, rc, "no memory for what the journal says is owed");
    if (rc == RH_EINVAL)
        return rh_fault_set(fault, rc, "the journal has an event that makes no sense");
    if (rc < 0)
        return rc;
    r->durable = r->put_batch = rh_journal_durable(r->journal);
    r->load.batch = rh_journal_open_batch(r->journal) - 1;
    if (r->load.batch > r->durable) { /* with an event behind it, it becomes durable */
        rc = rh_record_put(r, &(struct rh_jot){.kind = RH_JOT_TIME, .at_ms = r->newest_ms});
        if (rc < 0)
            return rh_fault_set(fault, rc, "no memory for the journal");
    }
    rh_journal_stat(r->journal, &stat);
    if (stat.skipped)
        rh_log(RH_LOG_WARN, "store.salvaged", RH_KU("damaged_places", stat.skipped));
    return RH_OK;
}

/* ---- to the shards ---- */

static int tell(struct rh_record *r, unsigned to, enum rh_event_kind kind, void *msg, uint32_t cost,
                uint64_t a, uint64_t b, uint64_t c)
{
    struct rh_event ev = {.kind = (uint8_t)kind, .msg = msg, .cost = cost, .a = a, .b = b, .c = c};

    if (!rh_mesh_has_room(r->mesh, to))
        return RH_EFULL;
    return rh_mesh_tell(r->mesh, to, &ev);
}

/* The same with a hold of a message that is ours. */
static int tell_msg(struct rh_record *r, unsigned to, enum rh_event_kind kind, struct rh_msg *msg,
                    uint64_t a, uint64_t b, uint64_t c)
{
    int rc;

    rh_msg_hold_any(msg, 1);
    rc = tell(r, to, kind, msg, msg->frame_len, a, b, c);
    if (rc < 0)
        rh_msg_drop_any(msg);
    return rc;
}

static void copy(char **at, struct rh_span name)
{
    if (name.len)
        memcpy(*at, name.at, name.len);
    *at += name.len;
}

/* Makes r->load.id of an ID. */
static int make_id(struct rh_record *r, const struct rh_jot *jot)
{
    struct rh_remembered *id =
        rh_mem_alloc(sizeof(*id) + jot->from.len + jot->to.len + jot->id.len);
    char *at;

    if (!id)
        return RH_ENOMEM;
    id->until_ms = jot->dedup_ms;
    id->seq = jot->seq;
    id->recipients = jot->recipients;
    id->event = jot->msg_kind;
    id->flags = jot->flags & RH_JOT_STORED ? RH_ACCEPT_STORED : 0;
    id->from_len = (uint8_t)jot->from.len;
    id->to_len = (uint8_t)jot->to.len;
    id->id_len = (uint8_t)jot->id.len;
    at = id->bytes;
    copy(&at, jot->from);
    copy(&at, jot->to);
    copy(&at, jot->id);
    r->load.id = id;
    return RH_OK;
}

static int tell_id(struct rh_record *r)
{
    struct rh_remembered *id = r->load.id;
    uint64_t hash = rh_hash(&r->names.key, id->bytes, id->from_len);
    uint32_t cost = (uint32_t)sizeof(*id) + id->from_len + id->to_len + id->id_len;
    int rc = tell(r, rh_hash_shard(hash, r->env->shards), RH_EV_REMEMBER, id, cost, 0, 0, 0);

    if (rc < 0)
        return rc;
    r->load.id = NULL;
    r->load.ids++;
    return RH_OK;
}

static int tell_share(struct rh_record *r, const struct rh_kept *k, uint32_t share)
{
    struct rh_msg *msg = k->msg;

    if (msg->kind != RH_MSG_ROOM)
        return tell_msg(r, rh_hash_shard(msg->to_hash, r->env->shards), RH_EV_OWED, msg, k->attempt,
                        0, 0);
    return tell_msg(r, msg->shares->at[share].shard, RH_EV_OWED, msg, k->shares[share].attempt, 0,
                    share);
}

static int tell_own_id(struct rh_record *r, const struct rh_kept *k)
{
    struct rh_jot jot;

    if (k->dedup_ms <= r->hub_ms)
        return RH_OK;
    rh_kept_id(k, &jot);
    return make_id(r, &jot);
}

static int tell_home(struct rh_record *r, const struct rh_kept *k)
{
    if (k->msg->kind != RH_MSG_ROOM)
        return RH_OK;
    return tell_msg(r, rh_hash_shard(k->msg->to_hash, r->env->shards), RH_EV_OWED_ROOM, k->msg, 0,
                    k->recipients, 0);
}

/* Steps of telling a message: its id, its room's home, then its shares. */
enum { STEP_ID, STEP_HOME, STEP_SHARES };

static int tell_step(struct rh_record *r, const struct rh_kept *k, uint32_t step)
{
    if (step == STEP_ID)
        return tell_own_id(r, k);
    if (step == STEP_HOME)
        return tell_home(r, k);
    return tell_share(r, k, step - STEP_SHARES);
}

/* The step behind `step` in which there is something to do: who has settled is not owed anything. */
static uint32_t step_behind(const struct rh_kept *k, uint32_t step)
{
    while (++step >= STEP_SHARES && step - STEP_SHARES < rh_kept_count(k))
        if (!k->shares || !rh_state_is_end(k->shares[step - STEP_SHARES].state))
            break;
    return step;
}

/* The next step of the message that is being told. Behind the last one it may end at any time, so it
 * is not looked at any more. */
static int tell_kept(struct rh_record *r)
{
    const struct rh_kept *k = r->load.kept;
    int rc = tell_step(r, k, r->load.step);

    if (rc < 0)
        return rc;
    r->load.step = step_behind(k, r->load.step);
    if (r->load.step < STEP_SHARES + rh_kept_count(k))
        return RH_OK;
    r->load.kept = NULL;
    r->load.step = 0;
    r->load.messages++;
    return RH_OK;
}

/* Asks the back end for the next. RH_OK: there is something to tell, or all has been told. */
static int ask(struct rh_record *r)
{
    struct rh_jot id;

    switch (r->backend->ops->load_next(r->backend, &r->load.kept, &id)) {
    case RH_LOAD_LATER:
        return RH_EFULL;
    case RH_LOAD_END:
        r->load.all = true;
        return RH_OK;
    case RH_LOAD_OWED:
        r->load.kept->batch = r->load.batch;
        return RH_OK;
    case RH_LOAD_ID:
        break;
    }
    return id.dedup_ms > r->hub_ms ? make_id(r, &id) : RH_OK;
}

static int tell_loaded(struct rh_record *r)
{
    for (; r->load.loaded < r->env->shards; r->load.loaded++) {
        int rc = tell(r, r->load.loaded, RH_EV_LOADED, NULL, 0, 0, 0, 0);

        if (rc < 0)
            return rc;
    }
    r->load.on = false;
    rh_log(RH_LOG_INFO, "store.loaded", RH_KS("backend", r->backend->ops->name),
           RH_KU("events", r->load.events), RH_KU("messages", r->load.messages),
           RH_KU("ids", r->load.ids),
           RH_KU("ms", (rh_clock_mono_ns() - r->load.began_ns) / 1000000));
    return RH_OK;
}

void rh_record_load(struct rh_record *r)
{
    int rc = RH_OK;

    for (unsigned n = 0; r->load.on && rc == RH_OK && n < LOAD_EVENTS; n++) {
        if (r->load.id)
            rc = tell_id(r);
        else if (r->load.kept)
            rc = tell_kept(r);
        else if (r->load.all)
            rc = tell_loaded(r);
        else
            rc = ask(r);
    }
    if (rc == RH_ENOMEM)
        r->starved = true;
}

void rh_record_load_fini(struct rh_record *r)
{
    rh_mem_free(r->load.id);
    r->load.id = NULL;
}
