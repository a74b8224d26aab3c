/* tools/load/book.c - entries: whom each is for, who has it, and when nothing more is to come.
 *
 *     send --> waits for what it needs --> settled --> over
 *
 * An entry is *settled* when the run need not wait for anything of it: its answer, its deliveries,
 * its end, as far as they are due. Then it is no longer outstanding. It is *over* when nothing
 * more can come of it; only then it leaves the books, so that whatever comes twice is found.
 *
 * Why a map    an unfinished message may stand among thousands of finished ones for a minute, while
 *              a silent receiver's time runs: a window from the oldest to the newest would fill up.
 */
#include "tools/load/book.h"

#include <string.h>

#include "core/mem.h"
#include "tools/load/book_int.h"

/* ---- life ---- */

static int init_hists(struct load_worker *w)
{
    for (int i = 0; i < LOAD_CLASS_COUNT; i++) {
        struct load_class_book *b = &w->book.classes[i];

        if (w->run->opts->mix.weight[i] == 0)
            continue;
        if (rh_hist_init(&b->arrival) < 0 || rh_hist_init(&b->answer) < 0 ||
            rh_hist_init(&b->status) < 0)
            return RH_ENOMEM;
    }
    return RH_OK;
}

/* Of N receivers N * share are silent, evenly spread over them. */
static bool is_silent(const struct load_opts *o, uint32_t number)
{
    return (uint64_t)((number + 1) * o->silent) > (uint64_t)(number * o->silent);
}

const struct load_conn *load_room_of(const struct load_worker *w, const struct load_conn *c)
{
    return &w->conns[c->index - c->index % load_mode_block(w->run->opts)];
}

uint32_t load_room_place(const struct load_worker *w, const struct load_conn *c)
{
    return c->index % load_mode_block(w->run->opts);
}

uint32_t load_room_members(const struct load_worker *w, const struct load_conn *c)
{
    return RH_MIN(load_mode_block(w->run->opts),
                  w->run->opts->connections - load_room_of(w, c)->number);
}

static void find_silent_peers(struct load_worker *w, struct load_conn *c)
{
    const struct load_conn *room = load_room_of(w, c);

    for (uint32_t i = 0; i < load_room_members(w, c); i++)
        if (&room[i] != c && room[i].ledger->silent)
            c->ledger->silent_peers |= UINT64_C(1) << i;
}

int load_book_init(struct load_worker *w)
{
    if (w->conns_count == 0)
        return RH_OK;
    w->ledgers = rh_mem_zalloc(w->conns_count * sizeof(*w->ledgers));
    if (!w->ledgers || rh_map_init(&w->book.map) < 0)
        return RH_ENOMEM;
    for (uint32_t i = 0; i < w->conns_count; i++) {
        struct load_ledger *l = &w->ledgers[i];

        w->conns[i].ledger = l;
        rh_list_init(&l->sent);
        l->silent = is_silent(w->run->opts, w->conns[i].number);
    }
    for (uint32_t i = 0; i < w->conns_count; i++)
        find_silent_peers(w, &w->conns[i]);
    return init_hists(w);
}

static void drop(void *arg, struct rh_map_node *node)
{
    struct rh_map *map = arg;

    rh_map_del(map, node);
    rh_mem_free(rh_container_of(node, struct load_entry, in_map));
}

void load_book_fini(struct load_worker *w)
{
    struct load_entry *e;

    if (w->book.map.dir)
        rh_map_each(&w->book.map, drop, &w->book.map);
    rh_map_fini(&w->book.map);
    while ((e = w->book.spare)) {
        w->book.spare =
            e->in_map.next ? rh_container_of(e->in_map.next, struct load_entry, in_map) : NULL;
        rh_mem_free(e);
    }
    for (uint32_t i = 0; w->ledgers && i < w->conns_count; i++)
        rh_mem_free(w->ledgers[i].missed);
    rh_mem_free(w->ledgers);
    for (int i = 0; i < LOAD_CLASS_COUNT; i++) {
        rh_hist_fini(&w->book.classes[i].arrival);
        rh_hist_fini(&w->book.classes[i].answer);
        rh_hist_fini(&w->book.classes[i].status);
    }
}

/* ---- entries ---- */

static uint64_t hash_of(const struct load_conn *sender, uint64_t seq)
{
    uint64_t x = ((uint64_t)sender->number << 40 ^ seq) * 0x9e3779b97f4a7c15;

    return x ^ x >> 32;
}

struct load_entry *load_book_find(const struct load_worker *w, const struct load_conn *sender,
                                  uint64_t seq)
{
    struct rh_map_node *n;

    for (n = rh_map_first(&w->book.map, hash_of(sender, seq)); n; n = rh_map_again(n)) {
        struct load_entry *e = rh_container_of(n, struct load_entry, in_map);

        if (e->sender == sender && e->seq == seq)
            return e;
    }
    return NULL;
}

struct load_entry *load_book_newest(const struct load_conn *c)
{
    return rh_container_of(c->ledger->sent.prev, struct load_entry, of_sender);
}

static size_t entry_bytes(const struct load_worker *w)
{
    return sizeof(struct load_entry) + load_mode_block(w->run->opts) * sizeof(uint32_t);
}

int load_book_reserve(struct load_worker *w, struct load_conn *c)
{
    if (c->ledger->entries >= LOAD_FLOW_MAX)
        return RH_EFULL;
    if (!w->book.spare) {
        w->book.spare = rh_mem_alloc(entry_bytes(w));
        if (!w->book.spare)
            return RH_ENOMEM;
        w->book.spare->in_map.next = NULL;
    }
    return RH_OK;
}

void load_entry_make_maybe(struct load_entry *e)
{
    e->flags |= MAYBE;
    load_entry_ledger(e)->maybes += e->seq >= load_entry_ledger(e)->since;
}

void load_entry_unmake_maybe(struct load_entry *e)
{
    if (e->flags & MAYBE && e->seq >= load_entry_ledger(e)->since)
        load_entry_ledger(e)->maybes--;
    e->flags &= ~MAYBE;
}

uint64_t load_book_send(struct load_worker *w, struct load_conn *c, uint64_t intended_ns)
{
    struct load_entry *e = w->book.spare;
    struct rh_map_node *next = e->in_map.next;

    w->book.spare = next ? rh_container_of(next, struct load_entry, in_map) : NULL;
    memset(e, 0, entry_bytes(w));
    e->sender = c;
    e->seq = load_flow_number(&c->flow);
    e->intended_ns = intended_ns;
    e->class = load_mix_pick(&w->run->opts->mix, &w->prng);
    rh_map_add(&w->book.map, &e->in_map, hash_of(c, e->seq));
    rh_list_add(&c->ledger->sent, &e->of_sender);
    c->ledger->entries++;
    w->book.classes[e->class].sent++;
    if (e->class == LOAD_CLASS_SEND && load_entry_reader(w, e)->ledger->returning)
        load_entry_make_maybe(e);
    return e->seq;
}

/* ---- whom it is for ---- */

/* Places of all whom it is for. */
static uint64_t wanted(const struct load_worker *w, const struct load_entry *e)
{
    if (load_class_in_room(e->class))
        return UINT64_MAX >> (64 - load_room_members(w, e->sender));
    return e->class != LOAD_CLASS_PING;
}

uint64_t load_entry_owed(const struct load_worker *w, const struct load_entry *e)
{
    if (!load_entry_is_acked(e))
        return 0;
    return load_entry_is_direct(e) ? 1
                                   : wanted(w, e) & ~load_place_bit(load_room_place(w, e->sender));
}

uint64_t load_entry_hushed(struct load_worker *w, const struct load_entry *e)
{
    return load_entry_is_direct(e) ? load_entry_reader(w, e)->ledger->silent
                                   : load_entry_ledger(e)->silent_peers;
}

uint32_t load_entry_place(const struct load_worker *w, const struct load_entry *e,
                          const struct load_conn *reader)
{
    return load_entry_is_direct(e) ? 0 : load_room_place(w, reader);
}

bool load_book_is_for(const struct load_worker *w, const struct load_entry *e,
                      const struct load_conn *reader)
{
    if (load_entry_is_direct(e))
        return (e->sender->index ^ 1) == reader->index;
    return load_class_in_room(e->class) && load_room_of(w, e->sender) == load_room_of(w, reader);
}

/* ---- settled, and over ---- */

bool load_entry_waits_for_ever(struct load_worker *w, const struct load_entry *e)
{
    return e->flags & STORED && load_entry_is_direct(e) && load_entry_hushed(w, e);
}

uint64_t load_entry_missing(const struct load_worker *w, const struct load_entry *e)
{
    return e->flags & GONE ? 0 : wanted(w, e) & ~e->got;
}

static bool needs_something(struct load_worker *w, const struct load_entry *e)
{
    if (e->flags & UNSURE)
        return false;
    if (!(e->flags & ANSWERED))
        return true;
    if (load_entry_missing(w, e) && !(e->flags & MAYBE) && !load_entry_waits_for_ever(w, e))
        return true;
    return load_entry_is_acked(e) && !(e->flags & (ENDED | AWAY)) && !load_entry_hushed(w, e);
}

static bool is_over(const struct load_worker *w, const struct load_entry *e)
{
    return e->flags & (ANSWERED | UNSURE) && !load_entry_missing(w, e) &&
           (!load_entry_is_acked(e) || e->flags & ENDED);
}

void load_entry_count_end(struct load_worker *w, const struct load_entry *e)
{
    if (!load_entry_is_acked(e) || !(e->flags & ACCEPTED) || !(e->flags & ENDED))
        return;
    load_count(e->flags & SUCCEEDED ? &w->counts.succeeded : &w->counts.ended_otherwise);
}

static void settle(struct load_entry *e)
{
    if (!(e->flags & SETTLED))
        load_flow_finish(&e->sender->flow);
    e->flags |= SETTLED;
}

void load_entry_forget(struct load_worker *w, struct load_entry *e)
{
    settle(e);
    load_entry_unmake_maybe(e);
    rh_map_del(&w->book.map, &e->in_map);
    rh_list_del(&e->of_sender);
    load_entry_ledger(e)->entries--;
    e->in_map.next = w->book.spare ? &w->book.spare->in_map : NULL;
    w->book.spare = e;
}

void load_entry_review(struct load_worker *w, struct load_entry *e)
{
    if (!needs_something(w, e))
        settle(e);
    if (!is_over(w, e))
        return;
    load_entry_count_end(w, e);
    load_entry_forget(w, e);
}

bool load_book_is_answered(const struct load_entry *e)
{
    return e->flags & (ANSWERED | UNSURE);
}
