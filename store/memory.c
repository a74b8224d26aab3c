/* store/memory.c - the back end that has nothing but memory: what is owed, by the segment that says so.
 *
 * Why this way: the journal is the only thing that survives, so a segment can go when all that it alone
 * says has been put again behind it. Everything therefore lies in a place for the segment in which it
 * was put last: messages in a list, ids in a queue. Forwarding a segment is emptying its place, as fast
 * as the caller lets it. When a segment is only known to be "this one or a later one", the place is that
 * of the first: then it is put again earlier than needed.
 *
 *   places:  [segment 7: list, ids]  [8: list, ids]  [9: list, ids] <- what is put now
 *             ^ forwarded, and freed when it is empty
 *
 * While the journal is read, a table finds messages by number; it is gone afterwards, when a message
 * is found through its rh_msg.
 *
 * Invariants  (1) places have rising segments; there is at least one.
 *             (2) messages and bytes are those of all lists; ids is the sum of all queues.
 * Limits      ids_max. Messages are bounded by whoever accepts them (store.backlog_bytes).
 */
#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "store/backend.h"
#include "store/ids.h"

#define PLACES_MIN 16
#define EXPIRE_MAX 4096 /* ids that one turn forgets */

struct place {
    uint64_t segment;
    struct rh_list kepts;
    uint64_t bytes; /* of kepts */
    struct rh_ids ids;
};

struct memory {
    struct rh_backend base;
    struct rh_kept_names names;
    uint64_t now_ms, ids_max;

    struct place **places; /* [first, first + count) of them are in use */
    uint32_t first, count, room;

    struct rh_map by_number; /* while the journal is read */
    bool loading;
    struct rh_kept *to_load; /* in their order, through node.next */
    uint32_t load_place;     /* whose ids are told next */
    struct rh_ids_at load_at;

    struct rh_backend_stat stat;
};

static struct memory *memory_of(struct rh_backend *b)
{
    return rh_container_of(b, struct memory, base);
}

/* ---- places ---- */

static struct place *place_at(const struct memory *m, uint32_t i)
{
    return m->places[m->first + i];
}

static struct place *last_place(const struct memory *m)
{
    return place_at(m, m->count - 1);
}

static int more_room(struct memory *m)
{
    uint32_t room = RH_MAX(m->room * 2, PLACES_MIN);
    struct place **places;

    if (m->first > 0) {
        memmove(m->places, m->places + m->first, m->count * sizeof(*places));
        m->first = 0;
        return RH_OK;
    }
    places = rh_mem_realloc(m->places, room * sizeof(*places));
    if (!places)
        return RH_ENOMEM;
    m->places = places;
    m->room = room;
    return RH_OK;
}

static int add_place(struct memory *m, uint64_t segment)
{
    struct place *place;

    if (m->first + m->count == m->room && more_room(m) < 0)
        return RH_ENOMEM;
    place = rh_mem_zalloc(sizeof(*place));
    if (!place)
        return RH_ENOMEM;
    place->segment = segment;
    rh_list_init(&place->kepts);
    m->places[m->first + m->count++] = place;
    return RH_OK;
}

/* Where what is put into that segment, the newest, lies. Without memory for a new place: in the one
 * before. */
static struct place *place_for(struct memory *m, uint64_t segment)
{
    if (last_place(m)->segment < segment)
        (void)add_place(m, segment);
    return last_place(m);
}

static void drop_first_place(struct memory *m)
{
    rh_ids_fini(&place_at(m, 0)->ids);
    rh_mem_free(place_at(m, 0));
    m->first++;
    m->count--;
}

/* ---- what is owed ---- */

static void move_kept(struct memory *m, struct rh_kept *k, struct place *to)
{
    struct place *from = k->place;

    if (from) {
        from->bytes -= rh_kept_bytes(k);
    } else {
        m->stat.messages++;
        m->stat.bytes += rh_kept_bytes(k);
    }
    to->bytes += rh_kept_bytes(k);
    rh_list_del(&k->list);
    rh_list_add(&to->kepts, &k->list);
    k->place = to;
}

static void push_id(struct memory *m, struct place *place, const struct rh_jot *id)
{
    uint64_t before = place->ids.bytes;

    if (id->dedup_ms <= m->now_ms || rh_ids_push(&place->ids, id) < 0)
        return;
    m->stat.ids++;
    m->stat.id_bytes += place->ids.bytes - before;
}

static void pop_id(struct memory *m, struct place *place)
{
    uint64_t before = place->ids.bytes;

    rh_ids_pop(&place->ids);
    m->stat.ids--;
    m->stat.id_bytes -= before - place->ids.bytes;
}

/* Its last share has ended: only its id is left of it, where its OWED stands. */
static void let_go(struct memory *m, struct rh_kept *k)
{
    struct place *place = k->place;
    struct rh_jot id;

    if (!place)
        return;
    rh_kept_id(k, &id);
    push_id(m, place, &id);
    place->bytes -= rh_kept_bytes(k);
    m->stat.messages--;
    m->stat.bytes -= rh_kept_bytes(k);
    rh_list_del(&k->list);
    k->place = NULL;
}

static void memory_apply(struct rh_backend *b, uint64_t segment, const struct rh_jot *jot,
                         struct rh_kept *kept)
{
    struct memory *m = memory_of(b);

    if (jot->kind == RH_JOT_OWED)
        move_kept(m, kept, place_for(m, segment));
    if (jot->kind == RH_JOT_ID)
        push_id(m, place_for(m, segment), jot);
    if (kept && !kept->unsettled)
        let_go(m, kept);
}

static void forget_oldest_id(struct memory *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        if (!place_at(m, i)->ids.count)
            continue;
        pop_id(m, place_at(m, i));
        return;
    }
}

static void bound_ids(struct memory *m)
{
    while (m->stat.ids > m->ids_max)
        forget_oldest_id(m);
}

static void expire_ids(struct memory *m)
{
    struct rh_jot id;

    for (uint32_t i = 0, n = 0; i < m->count && n < EXPIRE_MAX; i++)
        for (; n < EXPIRE_MAX && rh_ids_first(&place_at(m, i)->ids, &id); n++) {
            if (id.dedup_ms > m->now_ms)
                break;
            pop_id(m, place_at(m, i));
        }
}

static void memory_step(struct rh_backend *b, const struct rh_backend_turn *turn)
{
    struct memory *m = memory_of(b);

    m->now_ms = turn->now_ms;
    m->ids_max = turn->ids_max;
    if (m->loading)
        return;
    expire_ids(m);
    bound_ids(m);
}

static void memory_stat(const struct rh_backend *b, struct rh_backend_stat *ret_stat)
{
    const struct memory *m = rh_container_of(b, struct memory, base);

    *ret_stat = m->stat;
    ret_stat->oldest_bytes = place_at(m, 0)->bytes + place_at(m, 0)->ids.bytes;
}

/* ---- forward ---- */

static bool put_kept(const struct rh_kept *k, rh_backend_put put, void *arg)
{
    struct rh_jot_share one, *shares = &one;
    struct rh_jot jot;
    bool done;

    if (k->msg->kind == RH_MSG_ROOM)
        shares = rh_mem_alloc(rh_kept_count(k) * sizeof(*shares));
    if (!shares)
        return false;
    rh_kept_owed(k, &jot, shares);
    done = put(arg, &jot);
    if (shares != &one)
        rh_mem_free(shares);
    return done;
}

static bool forward_kepts(struct memory *m, struct place *from, struct place *to,
                          rh_backend_put put, void *arg)
{
    while (!rh_list_empty(&from->kepts)) {
        struct rh_kept *k = rh_container_of(from->kepts.next, struct rh_kept, list);

        if (!put_kept(k, put, arg))
            return false;
        move_kept(m, k, to);
    }
    return true;
}

static bool forward_ids(struct memory *m, struct place *from, struct place *to, rh_backend_put put,
                        void *arg)
{
    struct rh_jot id;

    for (; rh_ids_first(&from->ids, &id); pop_id(m, from)) {
        if (id.dedup_ms <= m->now_ms)
            continue;
        if (!put(arg, &id))
            return false;
        push_id(m, to, &id);
    }
    return true;
}

static bool memory_forward(struct rh_backend *b, uint64_t before, uint64_t segment,
                           rh_backend_put put, void *arg)
{
    struct memory *m = memory_of(b);
    struct place *to = place_for(m, segment);

    rh_assert(before <= segment && !m->loading);
    while (place_at(m, 0)->segment < before) {
        struct place *from = place_at(m, 0);

        if (from == to) /* no memory for another place */
            return false;
        if (!forward_kepts(m, from, to, put, arg) || !forward_ids(m, from, to, put, arg))
            return false;
        drop_first_place(m);
    }
    return true;
}

/* ---- start ---- */

static struct rh_kept *find(const struct memory *m, uint64_t number)
{
    struct rh_map_node *node = rh_map_first(&m->by_number, number);

    return node ? rh_container_of(node, struct rh_kept, node) : NULL;
}

/* Settled while the journal is read: it is nobody's any more. */
static void drop_settled(struct memory *m, struct rh_kept *k)
{
    if (k->unsettled)
        return;
    let_go(m, k);
    rh_map_del(&m->by_number, &k->node);
    rh_kept_destroy(k);
}

static int replay_owed(struct memory *m, uint64_t segment, const struct rh_jot *jot)
{
    struct rh_kept *k = find(m, jot->number);
    int rc;

    if (k) {
        rh_kept_reread(k, jot);
    } else {
        rc = rh_kept_read(jot, &m->names, &k);
        if (rc < 0)
            return rc;
        rh_map_add(&m->by_number, &k->node, jot->number);
    }
    move_kept(m, k, place_for(m, segment));
    drop_settled(m, k);
    return RH_OK;
}

static int memory_replay(struct rh_backend *b, uint64_t segment, const struct rh_jot *jot)
{
    struct memory *m = memory_of(b);
    struct rh_kept *k;

    if (jot->kind == RH_JOT_OWED)
        return replay_owed(m, segment, jot);
    if (jot->kind == RH_JOT_ID) {
        if (jot->from.len > UINT8_MAX || jot->to.len > UINT8_MAX || jot->id.len > UINT8_MAX)
            return RH_EINVAL;
        push_id(m, place_for(m, segment), jot);
        bound_ids(m);
        return RH_OK;
    }
    k = jot->kind == RH_JOT_TIME ? NULL : find(m, jot->number);
    if (!k) /* of a message whose OWED was released: it had ended */
        return RH_OK;
    if (jot->kind == RH_JOT_ATTEMPT)
        rh_kept_attempt(k, jot->share, jot->attempt);
    else
        rh_kept_settle(k, jot->share, (enum rh_state)jot->state, (enum rh_reason)jot->reason);
    drop_settled(m, k);
    return RH_OK;
}

/* ---- all messages in the order of their numbers ---- */

static struct rh_kept *next_of(const struct rh_kept *k)
{
    return k->node.next ? rh_container_of(k->node.next, struct rh_kept, node) : NULL;
}

static struct rh_kept *merge(struct rh_kept *a, struct rh_kept *b)
{
    struct rh_map_node head, *tail = &head;

    while (a && b) {
        struct rh_kept **least = rh_kept_number(a) < rh_kept_number(b) ? &a : &b;

        tail->next = &(*least)->node;
        tail = tail->next;
        *least = next_of(*least);
    }
    tail->next = a ? &a->node : b ? &b->node : NULL;
    return rh_container_of(head.next, struct rh_kept, node);
}

/* Takes the longest rising run from the front of a place's list, from `at` on. */
static struct rh_kept *take_run(const struct place *place, struct rh_list **at)
{
    struct rh_kept *first = rh_container_of(*at, struct rh_kept, list), *last = first;

    for (*at = (*at)->next; *at != &place->kepts; *at = (*at)->next) {
        struct rh_kept *k = rh_container_of(*at, struct rh_kept, list);

        if (rh_kept_number(k) < rh_kept_number(last))
            break;
        last->node.next = &k->node;
        last = k;
    }
    last->node.next = NULL;
    return first;
}

/* Runs are merged with runs of about their number of runs: bin i has 2^i of them, or none. */
static void sort_all(struct memory *m)
{
    struct rh_kept *bins[64] = {NULL}, *run;
    unsigned bin;

    for (uint32_t i = 0; i < m->count; i++)
        for (struct rh_list *at = place_at(m, i)->kepts.next; at != &place_at(m, i)->kepts;) {
            run = take_run(place_at(m, i), &at);
            for (bin = 0; bins[bin]; bin++) {
                run = merge(bins[bin], run);
                bins[bin] = NULL;
            }
            bins[bin] = run;
        }
    run = NULL;
    for (bin = 0; bin < RH_COUNT(bins); bin++)
        if (bins[bin])
            run = run ? merge(bins[bin], run) : bins[bin];
    m->to_load = run;
}

static enum rh_backend_load memory_load_next(struct rh_backend *b, struct rh_kept **ret_kept,
                                             struct rh_jot *ret_id)
{
    struct memory *m = memory_of(b);

    if (m->by_number.dir) { /* the first time: nothing is replayed any more */
        rh_map_fini(&m->by_number);
        sort_all(m);
    }
    for (; m->load_place < m->count; m->load_place++, m->load_at = (struct rh_ids_at){0})
        if (rh_ids_next(&place_at(m, m->load_place)->ids, &m->load_at, ret_id))
            return RH_LOAD_ID;
    if (!m->to_load) {
        m->loading = false;
        return RH_LOAD_END;
    }
    *ret_kept = m->to_load;
    m->to_load = next_of(*ret_kept);
    (*ret_kept)->node.next = NULL;
    return RH_LOAD_OWED;
}

/* ---- life ---- */

static void memory_close(struct rh_backend *b)
{
    struct memory *m;

    if (!b)
        return;
    m = memory_of(b);
    while (m->count) {
        struct rh_list *kepts = &place_at(m, 0)->kepts;

        while (!rh_list_empty(kepts)) {
            struct rh_kept *k = rh_container_of(kepts->next, struct rh_kept, list);

            rh_list_del(&k->list);
            rh_kept_destroy(k);
        }
        drop_first_place(m);
    }
    rh_map_fini(&m->by_number);
    rh_mem_free(m->places);
    rh_mem_free(m);
}

static int memory_open(const struct rh_backend_opts *opts, struct rh_backend **ret_b,
                       struct rh_fault *fault)
{
    struct memory *m = rh_mem_zalloc(sizeof(*m));

    if (!m)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the store");
    m->base.ops = &rh_backend_memory;
    m->names = *opts->names;
    m->now_ms = opts->now_ms;
    m->ids_max = opts->ids_max;
    m->loading = true;
    if (rh_map_init(&m->by_number) < 0 || add_place(m, 0) < 0) {
        memory_close(&m->base);
        return rh_fault_set(fault, RH_ENOMEM, "no memory for the store");
    }
    *ret_b = &m->base;
    return RH_OK;
}

const struct rh_backend_ops rh_backend_memory = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .replay = memory_replay,
    .load_next = memory_load_next,
    .apply = memory_apply,
    .step = memory_step,
    .forward = memory_forward,
    .stat = memory_stat,
};
