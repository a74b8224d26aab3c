/* proto/utf8.h - is it UTF-8? Bytes may come in pieces (RFC 3629).
 *
 * Accepted is the shortest form of every code point from U+0000 to U+10FFFF, without the
 * surrogates U+D800 to U+DFFF. Noncharacters such as U+FFFE are code points like any other.
 *
 * Threads    any, one call at a time per state.
 * Errors     false is final: the state stays broken, whatever follows.
 */
#ifndef RH_UTF8_H
#define RH_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rh_utf8 {
    uint8_t state; /* 0: between two characters, and fresh */
};

/* Takes the next piece. False as soon as no continuation could make it valid, so at the first
 * byte that cannot stand where it stands: ED A0 fails without waiting for a third byte. */
bool rh_utf8_feed(struct rh_utf8 *u, const void *at, size_t len);

/* True when what was fed does not end inside a character. */
bool rh_utf8_done(const struct rh_utf8 *u);

/* The whole text at once. */
bool rh_utf8_valid(const void *at, size_t len);

#endif
