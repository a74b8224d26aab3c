/* tools/load/book.c - entries in a map, and one rule a function.
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
#include "tools/load/load.h"

enum {
    ANSWERED = 1,
    ACCEPTED = 2, /* with 200 */
    UNSURE = 4,
    STORED = 8,
    MAYBE = 16, /* plain and direct: perhaps gone with its reader's connection, */
    GONE = 32,  /* or surely, or told as missed */
    ENDED = 64, /* its sender was told its end, */
    SUCCEEDED = 128,
    AWAY = 256, /* or perhaps not, as its connection was cut */
    SETTLED = 512
};

#define SLACK_NS UINT64_C(2000000000) /* a hub may be so late with a repetition */

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

static const struct load_conn *room_of(const struct load_worker *w, const struct load_conn *c)
{
    return &w->conns[c->index - c->index % load_mode_block(w->run->opts)];
}

static uint32_t place_of(const struct load_worker *w, const struct load_conn *c)
{
    return c->index % load_mode_block(w->run->opts);
}

static uint32_t members_of(const struct load_worker *w, const struct load_conn *c)
{
    return RH_MIN(load_mode_block(w->run->opts), w->run->opts->connections - room_of(w, c)->number);
}

static void find_silent_peers(struct load_worker *w, struct load_conn *c)
{
    const struct load_conn *room = room_of(w, c);

    for (uint32_t i = 0; i < members_of(w, c); i++)
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

static bool is_direct(const struct load_entry *e)
{
    return !load_class_in_room(e->class) && e->class != LOAD_CLASS_PING;
}

static bool is_acked(const struct load_entry *e)
{
    return load_class_acked(e->class);
}

static struct load_ledger *ledger(const struct load_entry *e)
{
    return e->sender->ledger;
}

static struct load_conn *reader_of(struct load_worker *w, const struct load_entry *e)
{
    return load_conn_partner(w, e->sender); /* of a direct one */
}

static void make_maybe(struct load_entry *e)
{
    e->flags |= MAYBE;
    ledger(e)->maybes += e->seq >= ledger(e)->since;
}

static void unmake_maybe(struct load_entry *e)
{
    if (e->flags & MAYBE && e->seq >= ledger(e)->since)
        ledger(e)->maybes--;
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
    if (e->class == LOAD_CLASS_SEND && reader_of(w, e)->ledger->returning)
        make_maybe(e);
    return e->seq;
}

/* ---- whom it is for ---- */

static uint64_t bit(uint32_t place)
{
    return UINT64_C(1) << place;
}

/* Places of all whom it is for. */
static uint64_t wanted(const struct load_worker *w, const struct load_entry *e)
{
    if (load_class_in_room(e->class))
        return UINT64_MAX >> (64 - members_of(w, e->sender));
    return e->class != LOAD_CLASS_PING;
}

/* Of those who have to acknowledge it: a publisher's own copy does not ask for that. */
static uint64_t owed(const struct load_worker *w, const struct load_entry *e)
{
    if (!is_acked(e))
        return 0;
    return is_direct(e) ? 1 : wanted(w, e) & ~bit(place_of(w, e->sender));
}

/* Of those of them who never will. */
static uint64_t hushed(struct load_worker *w, const struct load_entry *e)
{
    return is_direct(e) ? reader_of(w, e)->ledger->silent : ledger(e)->silent_peers;
}

static uint32_t place_in(const struct load_worker *w, const struct load_entry *e,
                         const struct load_conn *reader)
{
    return is_direct(e) ? 0 : place_of(w, reader);
}

bool load_book_is_for(const struct load_worker *w, const struct load_entry *e,
                      const struct load_conn *reader)
{
    if (is_direct(e))
        return (e->sender->index ^ 1) == reader->index;
    return load_class_in_room(e->class) && room_of(w, e->sender) == room_of(w, reader);
}

/* ---- settled, and over ---- */

/* Kept for somebody silent, who has so many in flight that it has to wait. */
static bool waits_for_ever(struct load_worker *w, const struct load_entry *e)
{
    return e->flags & STORED && is_direct(e) && hushed(w, e);
}

static uint64_t missing(const struct load_worker *w, const struct load_entry *e)
{
    return e->flags & GONE ? 0 : wanted(w, e) & ~e->got;
}

static bool needs_something(struct load_worker *w, const struct load_entry *e)
{
    if (e->flags & UNSURE)
        return false;
    if (!(e->flags & ANSWERED))
        return true;
    if (missing(w, e) && !(e->flags & MAYBE) && !waits_for_ever(w, e))
        return true;
    return is_acked(e) && !(e->flags & (ENDED | AWAY)) && !hushed(w, e);
}

static bool is_over(const struct load_worker *w, const struct load_entry *e)
{
    return e->flags & (ANSWERED | UNSURE) && !missing(w, e) && (!is_acked(e) || e->flags & ENDED);
}

static void count_end(struct load_worker *w, const struct load_entry *e)
{
    if (!is_acked(e) || !(e->flags & ACCEPTED) || !(e->flags & ENDED))
        return;
    load_count(e->flags & SUCCEEDED ? &w->counts.succeeded : &w->counts.ended_otherwise);
}

static void settle(struct load_entry *e)
{
    if (!(e->flags & SETTLED))
        load_flow_finish(&e->sender->flow);
    e->flags |= SETTLED;
}

static void forget(struct load_worker *w, struct load_entry *e)
{
    settle(e);
    unmake_maybe(e);
    rh_map_del(&w->book.map, &e->in_map);
    rh_list_del(&e->of_sender);
    ledger(e)->entries--;
    e->in_map.next = w->book.spare ? &w->book.spare->in_map : NULL;
    w->book.spare = e;
}

/* Something has happened to it. */
static void review(struct load_worker *w, struct load_entry *e)
{
    if (!needs_something(w, e))
        settle(e);
    if (!is_over(w, e))
        return;
    count_end(w, e);
    forget(w, e);
}

/* ---- answers ---- */

static void note(struct load_worker *w, const struct load_entry *e, const char *what)
{
    load_worker_note(w, "message %llu of connection %u (%s): %s", (unsigned long long)e->seq,
                     e->sender->number, load_class_word(e->class), what);
}

/* A reader was told that it has missed it: enough, unless it is owed to that one. */
static void excuse(struct load_worker *w, struct load_entry *e, uint32_t place)
{
    if ((e->got | owed(w, e)) & bit(place))
        return;
    e->got |= bit(place);
    load_count(&w->counts.told);
}

/* Its place in the room is known now: some readers may have been told that they missed it. */
static void learn_seq(struct load_worker *w, struct load_entry *e, uint64_t room_seq)
{
    const struct load_conn *room = room_of(w, e->sender);

    if (e->room_seq != 0 || room_seq == 0) {
        if (e->room_seq != room_seq) {
            load_count(&w->counts.corrupted);
            note(w, e, "it has two numbers in its room, or none");
        }
        return;
    }
    e->room_seq = room_seq;
    for (uint32_t i = 0; i < members_of(w, e->sender); i++) {
        const struct load_ledger *l = room[i].ledger;

        for (uint32_t k = 0; k < l->missed_count; k++)
            if (room_seq >= l->missed[k].from && room_seq <= l->missed[k].to)
                excuse(w, e, i);
    }
}

bool load_book_is_answered(const struct load_entry *e)
{
    return e->flags & (ANSWERED | UNSURE);
}

static void time_of(struct load_worker *w, struct rh_hist *all, struct rh_hist *of_class,
                    const struct load_entry *e)
{
    load_pace_latency(w, all, e->intended_ns, w->now_ns);
    load_pace_latency(w, of_class, e->intended_ns, w->now_ns);
}

static void count_arrival(struct load_worker *w, const struct load_entry *e)
{
    struct load_class_book *b = &w->book.classes[e->class];

    b->arrived++;
    load_count(&w->counts.completed);
    time_of(w, &w->latency, &b->arrival, e);
}

void load_book_accept(struct load_worker *w, struct load_entry *e, bool stored, uint64_t room_seq)
{
    struct load_class_book *b = &w->book.classes[e->class];

    e->flags |= ANSWERED | ACCEPTED | (stored ? STORED : 0);
    b->accepted++;
    load_count(&w->counts.answered);
    if (is_acked(e))
        load_count(&w->counts.accepted);
    time_of(w, &w->answer, &b->answer, e);
    if (e->class == LOAD_CLASS_PING)
        count_arrival(w, e);
    if (load_class_in_room(e->class))
        learn_seq(w, e, room_seq);
    review(w, e);
}

void load_book_turn_away(struct load_worker *w, struct load_entry *e, bool unsure)
{
    w->book.classes[e->class].turned_away++;
    if (!unsure) {
        forget(w, e);
        return;
    }
    e->flags |= ANSWERED | UNSURE;
    review(w, e);
}

/* ---- arrivals ---- */

/* A later message of the same sender came first time: what it passed and may be gone is gone. */
static void passed(struct load_worker *w, struct load_conn *reader, struct load_entry *later)
{
    struct load_ledger *l = ledger(later), *mine = reader->ledger;
    struct rh_list *at, *next;

    if (l->maybes == 0 && mine->told == 0)
        return;
    for (at = l->sent.next; at != &later->of_sender; at = next) {
        struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

        next = at->next;
        if (e->class != LOAD_CLASS_SEND || e->got || e->flags & GONE || e->seq < l->since)
            continue;
        if (mine->told > 0) {
            mine->told--;
            load_count(&w->counts.told);
        } else if (e->flags & MAYBE) {
            load_count(&w->counts.gone);
        } else {
            continue;
        }
        unmake_maybe(e);
        e->flags |= GONE;
        review(w, e);
    }
}

static void check_direct(struct load_worker *w, struct load_conn *reader, struct load_entry *e)
{
    struct load_ledger *l = reader->ledger;

    if (e->seq < ledger(e)->since)
        return; /* over another connection than the present one */
    if (e->seq < l->next_direct) {
        load_count(&w->counts.reordered);
        note(w, e, "it came after a later one");
        return;
    }
    l->next_direct = e->seq + 1;
    passed(w, reader, e);
}

static void check_room(struct load_worker *w, struct load_conn *reader, struct load_entry *e,
                       uint64_t attempt)
{
    struct load_ledger *l = reader->ledger;

    if (attempt > 1 && e->room_seq != l->next_room)
        return; /* repetitions come outside of the room's order, but for those of history */
    if (e->room_seq >= l->next_room) {
        l->next_room = e->room_seq + 1;
        return;
    }
    load_count(&w->counts.reordered);
    note(w, e, "it came after a later one of its room");
}

static void again(struct load_worker *w, struct load_entry *e, uint32_t last, uint64_t attempt)
{
    if (!is_acked(e)) {
        load_count(&w->counts.unexpected);
        note(w, e, "it came for the second time");
    } else if (attempt <= last) {
        load_count(&w->counts.attempts);
        note(w, e, "the number of an attempt came again, or a lower one");
    } else {
        load_count(&w->counts.repeated);
    }
}

void load_book_arrive(struct load_worker *w, struct load_conn *reader, struct load_entry *e,
                      uint64_t attempt, uint64_t room_seq)
{
    uint32_t place = place_in(w, e, reader), last = e->attempts[place];

    e->attempts[place] = (uint32_t)RH_MAX(attempt, last);
    if (load_class_in_room(e->class))
        learn_seq(w, e, room_seq);
    if (e->got & bit(place) || e->flags & GONE) {
        again(w, e, last, attempt);
        return;
    }
    e->got |= bit(place);
    e->arrived_ns = w->now_ns;
    unmake_maybe(e);
    count_arrival(w, e);
    if (!is_direct(e))
        check_room(w, reader, e, attempt);
    else if (attempt == 1)
        check_direct(w, reader, e);
    review(w, e);
}

void load_book_late(struct load_worker *w, const struct load_conn *reader,
                    const struct load_conn *sender, uint64_t seq, bool acked, uint64_t attempt)
{
    if (seq >= sender->flow.next) {
        load_count(&w->counts.unexpected);
        load_worker_note(w, "connection %u: message %llu of connection %u was never sent",
                         reader->number, (unsigned long long)seq, sender->number);
    } else if (acked && attempt > 1) {
        load_count(&w->counts.repeated); /* it was on its way when it was settled */
    } else {
        load_count(acked ? &w->counts.attempts : &w->counts.unexpected);
        load_worker_note(w,
                         "connection %u: message %llu of connection %u came, which was done with",
                         reader->number, (unsigned long long)seq, sender->number);
    }
}

void load_book_ack(const struct load_worker *w, const struct load_conn *reader,
                   struct load_entry *e)
{
    e->acked |= bit(place_in(w, e, reader));
}

/* ---- ends ---- */

/* It ended without success: that is right only where somebody is silent, and has got it. */
static void check_failed(struct load_worker *w, struct load_entry *e, enum load_end end)
{
    if (!hushed(w, e)) {
        load_count(&w->counts.failed);
        note(w, e, "it ended without success, though its receivers acknowledge");
    } else if (is_direct(e) && !e->got && end == LOAD_END_TIMEOUT) {
        load_count(&w->counts.lost);
        note(w, e, "it ended as ack_timeout, but never came");
    }
    if (is_direct(e))
        e->flags |= GONE; /* where it has not come it does not any more */
}

void load_book_status(struct load_worker *w, struct load_entry *e, enum load_end end)
{
    if (e->flags & ENDED) {
        load_count(&w->counts.unexpected);
        note(w, e, "its sender is told an end for the second time");
        return;
    }
    if (!load_book_is_answered(e)) {
        load_count(&w->counts.early);
        note(w, e, "its sender is told an end before the answer");
    }
    e->flags |= ENDED | (end == LOAD_END_SUCCESS ? SUCCEEDED : 0);
    time_of(w, &w->status, &w->book.classes[e->class].status, e);
    if (end != LOAD_END_SUCCESS) {
        check_failed(w, e, end);
    } else if (owed(w, e) & ~e->acked) {
        load_count(&w->counts.unproven);
        note(w, e, "its sender is told success, but not all have acknowledged it");
    }
    review(w, e);
}

/* ---- what readers are told ---- */

void load_book_missed(struct load_conn *reader, uint64_t count)
{
    reader->ledger->told += count;
}

static bool remember(struct load_ledger *l, struct load_range range)
{
    uint32_t room = l->missed_room ? l->missed_room * 2 : 4;
    struct load_range *more;

    if (l->missed_count == l->missed_room) {
        more = rh_mem_realloc(l->missed, room * sizeof(*more));
        if (!more)
            return false;
        l->missed = more;
        l->missed_room = room;
    }
    l->missed[l->missed_count++] = range;
    return true;
}

/* The messages among these are excused, also those whose seq is found out later. */
void load_book_missed_in_room(struct load_worker *w, struct load_conn *reader, uint64_t from,
                              uint64_t to)
{
    uint32_t first = reader->index - place_of(w, reader);

    if (!remember(reader->ledger, (struct load_range){from, to})) {
        load_conn_fail(w, reader, "no memory for what it has missed");
        return;
    }
    for (uint32_t i = 0; i < members_of(w, reader); i++) {
        struct rh_list *head = &w->conns[first + i].ledger->sent, *at, *next;

        for (at = head->next; at != head; at = next) {
            struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

            next = at->next;
            if (!load_class_in_room(e->class) || e->room_seq < from || e->room_seq > to)
                continue;
            excuse(w, e, place_of(w, reader));
            review(w, e);
        }
    }
}

/* ---- cuts ---- */

static void cut_sender(struct load_worker *w, struct load_ledger *l)
{
    struct rh_list *at, *next;

    for (at = l->sent.next; at != &l->sent; at = next) {
        struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

        next = at->next;
        if (!load_book_is_answered(e)) {
            e->flags |= UNSURE;
            load_count(&w->counts.unsure);
        }
        if (is_acked(e) && !(e->flags & ENDED))
            e->flags |= AWAY;
        review(w, e);
    }
}

static void cut_reader(struct load_worker *w, struct load_ledger *partner)
{
    struct rh_list *at, *next;

    for (at = partner->sent.next; at != &partner->sent; at = next) {
        struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

        next = at->next;
        if (e->class != LOAD_CLASS_SEND || e->got || e->flags & (MAYBE | GONE))
            continue;
        make_maybe(e);
        review(w, e);
    }
}

void load_book_cut(struct load_worker *w, struct load_conn *c)
{
    struct load_ledger *l = c->ledger;

    cut_sender(w, l);
    l->since = c->flow.next;
    l->maybes = 0;
    l->returning = true;
    cut_reader(w, load_conn_partner(w, c)->ledger);
}

void load_book_back(struct load_conn *c)
{
    c->ledger->returning = false;
}

/* ---- the end ---- */

bool load_book_owes(const struct load_conn *c)
{
    const struct rh_list *head = &c->ledger->sent;

    for (const struct rh_list *at = head->next; at != head; at = at->next) {
        const struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

        if (is_acked(e) && e->flags & ACCEPTED && !(e->flags & (ENDED | AWAY)))
            return true;
    }
    return false;
}

static void judge_missing(struct load_worker *w, const struct load_entry *e)
{
    struct load_ledger *mine = reader_of(w, e)->ledger;
    bool later = e->seq >= ledger(e)->since && e->seq < mine->next_direct;
    uint64_t lacks = missing(w, e);

    if (!lacks)
        return;
    if (e->class == LOAD_CLASS_SEND && mine->told > 0) {
        mine->told--;
        load_count(&w->counts.told);
    } else if (e->flags & MAYBE) {
        load_count(&w->counts.gone);
    } else if (waits_for_ever(w, e) && !later) {
        load_count_more(&w->counts.kept, !is_acked(e)); /* an acknowledged one is owed: below */
    } else {
        load_count_more(&w->counts.lost, (uint64_t)__builtin_popcountll(lacks));
        note(w, e, "it was accepted, but never arrived");
    }
}

/* Whoever is silent must have seen it again by now, if its first time is long enough ago. */
static void judge_repetitions(struct load_worker *w, const struct load_entry *e, uint64_t now)
{
    uint64_t silent = hushed(w, e) & e->got;
    uint64_t wait = w->run->opts->ack_timeout_ns;

    if (now < e->arrived_ns + wait + wait / 10 + SLACK_NS)
        return;
    for (uint32_t place = 0; place < LOAD_ROOM_MAX; place++)
        if (silent & bit(place) && e->attempts[place] <= 1) {
            load_count(&w->counts.unrepeated);
            note(w, e, "nobody acknowledged it, but it did not come again");
            return;
        }
}

static void judge_end(struct load_worker *w, const struct load_entry *e, uint64_t now)
{
    if (e->flags & ENDED) {
        count_end(w, e);
    } else if (hushed(w, e)) {
        load_count(&w->counts.owed);
        judge_repetitions(w, e, now);
    } else if (e->flags & AWAY) {
        load_count(&w->counts.away);
    } else {
        load_count(&w->counts.untold);
        note(w, e, "it was accepted, but its sender was never told its end");
    }
}

void load_book_judge(struct load_worker *w, struct load_conn *c, uint64_t now)
{
    const struct rh_list *head = &c->ledger->sent;

    for (const struct rh_list *at = head->next; at != head; at = at->next) {
        const struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

        if (!load_book_is_answered(e)) {
            load_count(&w->counts.unanswered);
            note(w, e, "it was never answered");
        }
        if (!(e->flags & ACCEPTED))
            continue;
        judge_missing(w, e);
        if (is_acked(e))
            judge_end(w, e, now);
    }
}
