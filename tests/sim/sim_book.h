/* tests/sim/sim_book.h - what was said, answered and received, and whether that was right.
 *
 * Clients tell the book what they write and what they get; it knows nothing of the hub. A message
 * names itself ("m17:" and letters that follow from the number), so whoever gets it can be compared
 * with whoever was meant. What is wrong at once is said at once; what is missing, at the end.
 *
 *   at once  a message at the wrong user, twice on one connection, changed, or before an earlier one
 *            of the same sender and lane; seq that does not grow; an answer nobody asked for, or a
 *            second one
 *   at rest  on every connection that lived: each request has its answer; what was answered `sent`
 *            has reached each connection of the receiver that lived since before it was said; and
 *            nobody with such a connection was called offline
 */
#ifndef SIM_BOOK_H
#define SIM_BOOK_H

#include "tests/sim/sim.h"

#define SIM_CLIENTS_MAX 64
#define SIM_PAD_MAX     48000

struct sim_said {
    unsigned client; /* who said it */
    unsigned to_user;
    bool high;
    bool asked;      /* has a request_id, so it is answered */
    bool is_message; /* else a ping */
    size_t pad;      /* letters behind its name */
    uint64_t said_ns;
    unsigned answers;
    char outcome[24]; /* "sent", or the name of an error */
    uint64_t got_by;  /* bit per client */
};

void sim_book_begin(void);

/* A client is one of its user's devices from now on (it got its welcome) ... */
void sim_book_joined(unsigned client, unsigned user);
/* ... until the first sign of its end, whoever gave it. */
void sim_book_left(unsigned client);
bool sim_book_lives(unsigned client);

/* Books what a client is about to say; returns its number. */
unsigned sim_book_say(const struct sim_said *said);
/* Writes the content of a message, without quotes; dst has SIM_PAD_MAX + 16 bytes. */
size_t sim_book_content(unsigned number, char *dst);

void sim_book_answered(unsigned client, unsigned number, const char *outcome, size_t len);
/* content: without quotes. */
void sim_book_received(unsigned client, const char *content, size_t len, uint64_t seq);

/* All is quiet. Also where memory has failed: a connection that lived has missed nothing. */
void sim_book_check_rest(void);
unsigned sim_book_count(void);
const struct sim_said *sim_book_said(unsigned number);

#endif
