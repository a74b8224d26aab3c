/* proto/mask.h - the masking of client frames (RFC 6455 5.3): XOR with a key of four bytes.
 *
 * Threads    any.
 * Limits     dst and src are the same place, or do not overlap; no byte outside of the len given
 *            is read or written; len may be 0.
 * Phase      byte i is XORed with key[(phase + i) & 3]: a later piece of a frame is given the
 *            number of the bytes before it.
 */
#ifndef RH_MASK_H
#define RH_MASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void rh_mask(uint8_t *dst, const uint8_t *src, size_t len, const uint8_t key[4], unsigned phase);

/* The same in place; tells whether the result is all ASCII, for little more than the unmasking. */
bool rh_mask_ascii(uint8_t *at, size_t len, const uint8_t key[4], unsigned phase);

/* What machines without SIMD run, eight bytes a step. Here for tests and bench. */
bool rh_mask_plain(uint8_t *dst, const uint8_t *src, size_t len, const uint8_t key[4],
                   unsigned phase); /* true: the result is all ASCII */

#endif
