/* tools/load/payload.c - filling and checking at the speed of memcpy and memcmp.
 *
 * Why this way: the load tool shares the machine with the server, so a message may cost it no
 * more than a copy. The filler is copied from a table of random letters, out of a window whose
 * start is a hash of both numbers; to check it is one memcmp per lap of the table.
 */
#include "tools/load/payload.h"

#include <endian.h>
#include <string.h>

#include "core/base.h"

#define SENDER_DIGITS 6
#define HEAD          (LOAD_SEQ_DIGITS + SENDER_DIGITS)
#define HEAD_ROOM     24                 /* as it is made, eight at a time */
#define LETTERS       0x6161616161616161 /* "aaaaaaaa" */
#define TABLE         65536

static uint8_t letters[TABLE];

void load_payload_init(void)
{
    uint64_t x = 0x9e3779b97f4a7c15; /* xorshift64, the same in every run */

    for (size_t i = 0; i < TABLE; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        letters[i] = (uint8_t)('a' + (x >> 60));
    }
}

static size_t window(uint32_t sender, uint64_t seq)
{
    uint64_t x = (seq + 1) * 0x9e3779b97f4a7c15 ^ (uint64_t)(sender + 1) * 0xd1342543de82ef95;

    return (x ^ x >> 29) * 0xbf58476d1ce4e5b9 >> 48; /* 16 bits: anywhere in the table */
}

/* Eight digits at once: one hex digit to a byte, the lowest first. */
static uint64_t spread(uint32_t v)
{
    uint64_t x = v;

    x = (x | x << 16) & 0x0000ffff0000ffff;
    x = (x | x << 8) & 0x00ff00ff00ff00ff;
    return ((x | x << 4) & 0x0f0f0f0f0f0f0f0f) + LETTERS;
}

static void head_fill(uint8_t head[HEAD_ROOM], uint32_t sender, uint64_t seq)
{
    uint64_t parts[] = {htole64(spread((uint32_t)seq)),
                        htole64(spread((uint32_t)(seq >> 32 & 0xffff) | sender << 16)),
                        htole64(spread(sender >> 16))};

    memcpy(head, parts, HEAD_ROOM);
}

void load_payload_fill(uint8_t *dst, size_t size, uint32_t sender, uint64_t seq)
{
    uint8_t head[HEAD_ROOM];
    size_t from = window(sender, seq), at = RH_MIN(size, HEAD);

    head_fill(head, sender, seq);
    memcpy(dst, head, at);
    while (at < size) {
        size_t run = RH_MIN(size - at, TABLE - from);

        memcpy(dst + at, letters + from, run);
        at += run;
        from = 0;
    }
}

bool load_payload_check(const uint8_t *at, size_t len, size_t offset, uint32_t sender, uint64_t seq)
{
    size_t from;

    if (offset < HEAD && len > 0) {
        uint8_t head[HEAD_ROOM];
        size_t run = RH_MIN(len, HEAD - offset);

        head_fill(head, sender, seq);
        if (memcmp(at, head + offset, run) != 0)
            return false;
        at += run;
        len -= run;
        offset += run;
    }
    from = len > 0 ? (window(sender, seq) + offset - HEAD) % TABLE : 0;
    while (len > 0) {
        size_t run = RH_MIN(len, TABLE - from);

        if (memcmp(at, letters + from, run) != 0)
            return false;
        at += run;
        len -= run;
        from = 0;
    }
    return true;
}

/* The other way round; false: not all of them are digits. */
static bool gather(uint64_t x, uint64_t *ret)
{
    x -= LETTERS;
    if (x & 0xf0f0f0f0f0f0f0f0) /* below 'a' wraps around, and shows at least in its own byte */
        return false;
    x = (x | x >> 4) & 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    *ret = (x | x >> 16) & 0xffffffff;
    return true;
}

bool load_payload_claim(const uint8_t *at, size_t len, uint64_t *ret_low)
{
    uint64_t parts[2] = {htole64(LETTERS), htole64(LETTERS)}, low, high; /* missing digits are 0 */

    memcpy(parts, at, len);
    if (!gather(le64toh(parts[0]), &low) || !gather(le64toh(parts[1]), &high))
        return false;
    *ret_low = high << 32 | low;
    return true;
}
