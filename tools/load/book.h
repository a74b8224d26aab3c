/* tools/load/book.h - exact books, by id: what became of each message of modes ack and mixed.
 *
 * An *entry* is one message from the moment when it was built until nothing more can come of it;
 * what is left at the end of the run is judged. A *ledger* is what one connection adds to that: how
 * far its readers' orders are, and what it was told that it has missed. The rules:
 *
 *   accepted     answered with 200. An acknowledged message that was accepted is received by all
 *                whom it is for, and its sender told its end once: success, if all of them sent an
 *                acknowledgement; else, where one of them never does (is *silent*), another end, or
 *                none yet: then it is still owed.
 *   turned away  answered with an error that a hub in need may give: not waited for.
 *   unsure       store_failed, or cut off before the answer: it may come, and need not.
 *   attempts     of a message at one reader are unique and rising; a plain message comes once.
 *   order        first attempts of one sender come to a reader in their order, those of a room in
 *                the order of their seq. What its sender sent over a connection that was cut
 *                meanwhile is not compared.
 *   gone         a plain message that was under way when its reader was cut off, or sent before it
 *                was back: it need not come. In a room it does, or the reader is told that it was
 *                missed, as readers say how far they were when they come back.
 *
 * Threads    one: that of the worker, which has all connections that meet.
 * Memory     about 150 bytes an entry, of which a connection has LOAD_FLOW_MAX at most.
 */
#ifndef LOAD_BOOK_H
#define LOAD_BOOK_H

#include "core/base.h"
#include "core/hist.h"
#include "core/map.h"
#include "tools/load/mix.h"

#define LOAD_ROOM_MAX     64 /* members: a bit each */
#define LOAD_ID_ROOM      64 /* bytes that a message's id needs */
#define LOAD_SESSION_ROOM 65 /* and a session's, or an epoch's: 64 of them, and a zero */

struct load_worker;
struct load_conn;

struct load_entry {
    struct rh_map_node in_map;
    struct rh_list of_sender; /* oldest first */
    struct load_conn *sender;
    uint64_t seq;         /* its number there */
    uint64_t intended_ns; /* when it was to be sent */
    uint64_t arrived_ns;  /* the last of its first arrivals */
    uint64_t got;         /* readers who have it, by place: direct ones have place 0 */
    uint64_t acked;       /* readers who sent an acknowledgement */
    uint64_t room_seq;    /* 0: not known yet */
    uint16_t flags;       /* book_int.h */
    uint8_t class;        /* enum load_class */
    uint32_t attempts[];  /* acknowledged: the last one at each place */
};

/* A part of a room's messages that a reader was told it has missed. */
struct load_range {
    uint64_t from, to; /* both included */
};

struct load_ledger {
    struct rh_list sent; /* entries */
    uint32_t entries;
    uint32_t maybes;       /* its plain messages to one user that may be gone */
    uint64_t silent_peers; /* those of its room, but for itself, who never acknowledge */
    bool silent;           /* never acknowledges */
    bool returning;        /* was cut off, and is not back */
    uint64_t since;        /* the first message that it sent over its present connection */
    uint64_t next_direct;  /* behind the newest first attempt of its partner */
    uint64_t next_room;    /* the seq behind the newest of its room */
    uint64_t told;         /* direct messages that it was told it has missed, not found yet */
    struct load_range *missed;
    uint32_t missed_count, missed_room;
    char session[LOAD_SESSION_ROOM]; /* empty: none yet */
    char epoch[LOAD_SESSION_ROOM];
};

/* What one worker found out about one class. */
struct load_class_book {
    uint64_t sent, accepted, turned_away, arrived;
    struct rh_hist arrival, answer, status; /* from the intended time */
};

struct load_book {
    struct rh_map map;        /* entries by sender and number */
    struct load_entry *spare; /* chained by in_map.next */
    struct load_class_book classes[LOAD_CLASS_COUNT];
};

int load_book_init(struct load_worker *w);  /* RH_ENOMEM */
void load_book_fini(struct load_worker *w); /* accepts zeroed memory */

/* A message more. Room for it: RH_ENOMEM, or RH_EFULL; then its number, and its entry. */
int load_book_reserve(struct load_worker *w, struct load_conn *c);
uint64_t load_book_send(struct load_worker *w, struct load_conn *c, uint64_t intended_ns);
struct load_entry *load_book_newest(const struct load_conn *c);
/* NULL: there is none any more, or never was. */
struct load_entry *load_book_find(const struct load_worker *w, const struct load_conn *sender,
                                  uint64_t seq);

/* Each of these may free the entry. Its answer: accepted, with its seq in a room (else 0), and
 * `stored` if it said so; or with an error: if `unsure`, it may come all the same. */
bool load_book_is_answered(const struct load_entry *entry); /* or its answer was cut off */
void load_book_accept(struct load_worker *w, struct load_entry *entry, bool stored,
                      uint64_t room_seq);
void load_book_turn_away(struct load_worker *w, struct load_entry *entry, bool unsure);
/* It came to one of those whom it is for. */
void load_book_arrive(struct load_worker *w, struct load_conn *reader, struct load_entry *entry,
                      uint64_t attempt, uint64_t room_seq);
/* A message came that has no entry (any more). */
void load_book_late(struct load_worker *w, const struct load_conn *reader,
                    const struct load_conn *sender, uint64_t seq, bool acked, uint64_t attempt);
/* The reader answers it with an acknowledgement; before it is booked as arrived. */
void load_book_ack(const struct load_worker *w, const struct load_conn *reader,
                   struct load_entry *entry);
/* Whom is it for? */
bool load_book_is_for(const struct load_worker *w, const struct load_entry *entry,
                      const struct load_conn *reader);
/* Its sender is told its end: success, ack_timeout, or another one. */
enum load_end { LOAD_END_SUCCESS, LOAD_END_TIMEOUT, LOAD_END_OTHER };
void load_book_status(struct load_worker *w, struct load_entry *entry, enum load_end end);
/* A reader is told of `count` direct messages, or of these of its room, that it has missed. */
void load_book_missed(struct load_conn *reader, uint64_t count);
void load_book_missed_in_room(struct load_worker *w, struct load_conn *reader, uint64_t from,
                              uint64_t to);

/* The connection is cut off; all that it waited for is judged anew. */
void load_book_cut(struct load_worker *w, struct load_conn *c);
void load_book_back(struct load_conn *c);

/* Does it wait for the end of messages to silent readers? */
bool load_book_owes(struct load_worker *w, const struct load_conn *c);
/* The end of the run: counts what is wrong with what is left of this connection's messages. */
void load_book_judge(struct load_worker *w, struct load_conn *c, uint64_t now);

#endif
