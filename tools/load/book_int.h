/* tools/load/book_int.h - what book.c (entries) and book_rules.c (rules) share. */
#ifndef LOAD_BOOK_INT_H
#define LOAD_BOOK_INT_H

#include "tools/load/book.h"
#include "tools/load/load.h"

enum load_entry_flag {
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

static inline uint64_t load_place_bit(uint32_t place)
{
    return UINT64_C(1) << place;
}

static inline bool load_entry_is_acked(const struct load_entry *e)
{
    return load_class_acked(e->class);
}

static inline bool load_entry_is_direct(const struct load_entry *e)
{
    return !load_class_in_room(e->class) && e->class != LOAD_CLASS_PING;
}

static inline struct load_ledger *load_entry_ledger(const struct load_entry *e)
{
    return e->sender->ledger;
}

static inline struct load_conn *load_entry_reader(struct load_worker *w, const struct load_entry *e)
{
    return load_conn_partner(w, e->sender); /* of a direct one */
}

/* ---- rooms: neighbours that stand together in the worker's array ---- */

const struct load_conn *load_room_of(const struct load_worker *w, const struct load_conn *c);
uint32_t load_room_place(const struct load_worker *w, const struct load_conn *c);
uint32_t load_room_members(const struct load_worker *w, const struct load_conn *c);

/* ---- sets of readers, a bit for each place ---- */

/* Of those who have to acknowledge it: a publisher's own copy does not ask for that. */
uint64_t load_entry_owed(const struct load_worker *w, const struct load_entry *e);
/* Of those of them who never will. */
uint64_t load_entry_hushed(struct load_worker *w, const struct load_entry *e);
/* Of those who have not got it, and may. */
uint64_t load_entry_missing(const struct load_worker *w, const struct load_entry *e);
uint32_t load_entry_place(const struct load_worker *w, const struct load_entry *e,
                          const struct load_conn *reader);

/* ---- changes ---- */

/* It need not come, as its reader was cut off. */
void load_entry_make_maybe(struct load_entry *e);
void load_entry_unmake_maybe(struct load_entry *e);
/* Kept for somebody silent, who has so many in flight that it has to wait. */
bool load_entry_waits_for_ever(struct load_worker *w, const struct load_entry *e);
/* Something has happened to it: is it settled, or over? */
void load_entry_review(struct load_worker *w, struct load_entry *e);
/* Nothing is expected of it any more. */
void load_entry_forget(struct load_worker *w, struct load_entry *e);
/* Which end an accepted one had, when it leaves the books. */
void load_entry_count_end(struct load_worker *w, const struct load_entry *e);

#endif
