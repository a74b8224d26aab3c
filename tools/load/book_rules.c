/* tools/load/book_rules.c - what has to hold: a rule a function, as book.h lists them.
 *
 * Whatever happens to an entry is booked here and then reviewed (book.c), which may free it. What
 * breaks a rule is counted, and the first case told in words.
 */
#include "tools/load/book_int.h"

#include "core/mem.h"

#define SLACK_NS UINT64_C(2000000000) /* a hub may be so late with a repetition */

/* ---- answers ---- */

static void note(struct load_worker *w, const struct load_entry *e, const char *what)
{
    load_worker_note(w, "message %llu of connection %u (%s): %s", (unsigned long long)e->seq,
                     e->sender->number, load_class_word(e->class), what);
}

/* A reader was told that it has missed it: enough, unless it is owed to that one. */
static void excuse(struct load_worker *w, struct load_entry *e, uint32_t place)
{
    if ((e->got | load_entry_owed(w, e)) & load_place_bit(place))
        return;
    e->got |= load_place_bit(place);
    load_count(&w->counts.told);
}

/* Its place in the room is known now: some readers may have been told that they missed it. */
static void learn_seq(struct load_worker *w, struct load_entry *e, uint64_t room_seq)
{
    const struct load_conn *room = load_room_of(w, e->sender);

    if (e->room_seq != 0 || room_seq == 0) {
        if (e->room_seq != room_seq) {
            load_count(&w->counts.corrupted);
            note(w, e, "it has two numbers in its room, or none");
        }
        return;
    }
    e->room_seq = room_seq;
    for (uint32_t i = 0; i < load_room_members(w, e->sender); i++) {
        const struct load_ledger *l = room[i].ledger;

        for (uint32_t k = 0; k < l->missed_count; k++)
            if (room_seq >= l->missed[k].from && room_seq <= l->missed[k].to)
                excuse(w, e, i);
    }
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
    if (load_entry_is_acked(e))
        load_count(&w->counts.accepted);
    time_of(w, &w->answer, &b->answer, e);
    if (e->class == LOAD_CLASS_PING)
        count_arrival(w, e);
    if (load_class_in_room(e->class))
        learn_seq(w, e, room_seq);
    load_entry_review(w, e);
}

void load_book_turn_away(struct load_worker *w, struct load_entry *e, bool unsure)
{
    w->book.classes[e->class].turned_away++;
    if (!unsure) {
        load_entry_forget(w, e);
        return;
    }
    e->flags |= ANSWERED | UNSURE;
    load_entry_review(w, e);
}

/* ---- arrivals ---- */

/* A later message of the same sender came first time: what it passed and may be gone is gone. */
static void passed(struct load_worker *w, struct load_conn *reader, struct load_entry *later)
{
    struct load_ledger *l = load_entry_ledger(later), *mine = reader->ledger;
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
        load_entry_unmake_maybe(e);
        e->flags |= GONE;
        load_entry_review(w, e);
    }
}

static void check_direct(struct load_worker *w, struct load_conn *reader, struct load_entry *e)
{
    struct load_ledger *l = reader->ledger;

    if (e->seq < load_entry_ledger(e)->since)
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
    if (!load_entry_is_acked(e)) {
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
    uint32_t place = load_entry_place(w, e, reader), last = e->attempts[place];

    e->attempts[place] = (uint32_t)RH_MAX(attempt, last);
    if (load_class_in_room(e->class))
        learn_seq(w, e, room_seq);
    if (e->got & load_place_bit(place) || e->flags & GONE) {
        again(w, e, last, attempt);
        return;
    }
    e->got |= load_place_bit(place);
    e->arrived_ns = w->now_ns;
    load_entry_unmake_maybe(e);
    count_arrival(w, e);
    if (!load_entry_is_direct(e))
        check_room(w, reader, e, attempt);
    else if (attempt == 1)
        check_direct(w, reader, e);
    load_entry_review(w, e);
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
    e->acked |= load_place_bit(load_entry_place(w, e, reader));
}

/* ---- ends ---- */

/* It ended without success: that is right only where somebody is silent, and has got it. */
static void check_failed(struct load_worker *w, struct load_entry *e, enum load_end end)
{
    if (!load_entry_hushed(w, e)) {
        load_count(&w->counts.failed);
        note(w, e, "it ended without success, though its receivers acknowledge");
    } else if (load_entry_is_direct(e) && !e->got && end == LOAD_END_TIMEOUT) {
        load_count(&w->counts.lost);
        note(w, e, "it ended as ack_timeout, but never came");
    }
    if (load_entry_is_direct(e))
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
    } else if (load_entry_owed(w, e) & ~e->acked) {
        load_count(&w->counts.unproven);
        note(w, e, "its sender is told success, but not all have acknowledged it");
    }
    load_entry_review(w, e);
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
    uint32_t first = reader->index - load_room_place(w, reader);

    if (!remember(reader->ledger, (struct load_range){from, to})) {
        load_conn_fail(w, reader, "no memory for what it has missed");
        return;
    }
    for (uint32_t i = 0; i < load_room_members(w, reader); i++) {
        struct rh_list *head = &w->conns[first + i].ledger->sent, *at, *next;

        for (at = head->next; at != head; at = next) {
            struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

            next = at->next;
            if (!load_class_in_room(e->class) || e->room_seq < from || e->room_seq > to)
                continue;
            excuse(w, e, load_room_place(w, reader));
            load_entry_review(w, e);
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
        if (load_entry_is_acked(e) && !(e->flags & ENDED))
            e->flags |= AWAY;
        load_entry_review(w, e);
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
        load_entry_make_maybe(e);
        load_entry_review(w, e);
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

bool load_book_owes(struct load_worker *w, const struct load_conn *c)
{
    const struct rh_list *head = &c->ledger->sent;

    for (const struct rh_list *at = head->next; at != head; at = at->next) {
        const struct load_entry *e = rh_container_of(at, struct load_entry, of_sender);

        if (load_entry_is_acked(e) && e->flags & ACCEPTED && !(e->flags & ENDED) &&
            load_entry_hushed(w, e))
            return true;
    }
    return false;
}

static void judge_missing(struct load_worker *w, const struct load_entry *e)
{
    struct load_ledger *mine = load_entry_reader(w, e)->ledger;
    bool later = e->seq >= load_entry_ledger(e)->since && e->seq < mine->next_direct;
    uint64_t lacks = load_entry_missing(w, e);

    if (!lacks)
        return;
    if (e->class == LOAD_CLASS_SEND && mine->told > 0) {
        mine->told--;
        load_count(&w->counts.told);
    } else if (e->flags & MAYBE) {
        load_count(&w->counts.gone);
    } else if (load_entry_waits_for_ever(w, e) && !later) {
        load_count_more(&w->counts.kept,
                        !load_entry_is_acked(e)); /* an acknowledged one is owed: below */
    } else {
        load_count_more(&w->counts.lost, (uint64_t)__builtin_popcountll(lacks));
        note(w, e, "it was accepted, but never arrived");
    }
}

/* Whoever is silent must have seen it again by now, if its first time is long enough ago. */
static void judge_repetitions(struct load_worker *w, const struct load_entry *e, uint64_t now)
{
    uint64_t silent = load_entry_hushed(w, e) & e->got;
    uint64_t wait = w->run->opts->ack_timeout_ns;

    if (now < e->arrived_ns + wait + wait / 10 + SLACK_NS)
        return;
    for (uint32_t place = 0; place < LOAD_ROOM_MAX; place++)
        if (silent & load_place_bit(place) && e->attempts[place] <= 1) {
            load_count(&w->counts.unrepeated);
            note(w, e, "nobody acknowledged it, but it did not come again");
            return;
        }
}

static void judge_end(struct load_worker *w, const struct load_entry *e, uint64_t now)
{
    if (e->flags & ENDED) {
        load_entry_count_end(w, e);
    } else if (load_entry_hushed(w, e)) {
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
        if (load_entry_is_acked(e))
            judge_end(w, e, now);
    }
}
