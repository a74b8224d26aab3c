/* tests/fuzz/fz_say.h - what a program can name instead of spelling it out.
 *
 * In the texts `$` stands for a letter that the program chooses, `~` for an offer of
 * permessage-deflate (likewise: the letter's higher bits), and `%` for the session that the
 * connection before had.
 */
#ifndef FZ_SAY_H
#define FZ_SAY_H

#include "tests/fuzz/fz.h"

#define FZ_SAID_MAX 640 /* bytes of any of them */

/* A request's head, with a body where it has one; returns its length. Any number is one of them. */
size_t fz_say_request(char dst[FZ_SAID_MAX], unsigned number, unsigned letter, const char *session);
/* Does its answer end, or exclude, other connections of the user? */
bool fz_say_replaces(unsigned number);
/* The text of an envelope; returns its length. */
size_t fz_say_envelope(char dst[FZ_SAID_MAX], unsigned number, unsigned letter);

#endif
