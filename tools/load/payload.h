/* tools/load/payload.h - what messages carry: text from which every byte can be checked.
 *
 * A payload of `size` bytes is determined by its sender's number and its own number there:
 *
 *     bytes 0 to 11    the message's number in base 16, lowest digit first (digits are a to p)
 *     bytes 12 to 17   the sender's number, likewise
 *     from 18 on       filler: a window of a fixed random text; which one depends on both numbers
 *
 * and ends where `size` says, so that a single byte still tells neighbours apart. All bytes are
 * letters a to p: valid in text messages and in JSON strings as they are. The intended time is not
 * in there; the tool remembers it (flow.h), so it works for every size.
 *
 * Threads    load_payload_init once before all others; then any.
 */
#ifndef LOAD_PAYLOAD_H
#define LOAD_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOAD_SEQ_DIGITS 12 /* 48 bits */

void load_payload_init(void);

void load_payload_fill(uint8_t *dst, size_t size, uint32_t sender, uint64_t seq);

/* Are the `len` bytes at `at` those that stand at `offset` in this payload? */
bool load_payload_check(const uint8_t *at, size_t len, size_t offset, uint32_t sender,
                        uint64_t seq);

/* Reads the message's number out of its first `len` (at most LOAD_SEQ_DIGITS) bytes: its lowest
 * 4 * len bits. False: no such digits. */
bool load_payload_claim(const uint8_t *at, size_t len, uint64_t *ret_low);

#endif
