/* Goal    the validator agrees with a decoder too simple to be wrong, for any bytes and any cuts.
 * Input   the first byte seeds the cuts, the rest is the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "proto/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The length of the character at `at`, decoded by RFC 3629's arithmetic; 0: there is none. */
static size_t decode(const uint8_t *at, size_t len)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = 0;
    uint32_t point;

    for (unsigned bit = 0x80; at[0] & bit; bit >>= 1)
        size++;
    if (!size)
        return 1;
    if (size < 2 || size > 4 || size > len)
        return 0;
    point = at[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (at[i] & 0x3f);
    }
    if (point < least[size] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        return 0;
    return size;
}

static bool slow_valid(const uint8_t *at, size_t len)
{
    for (size_t i = 0, size; i < len; i += size) {
        size = decode(at + i, len - i);
        if (!size)
            return false;
    }
    return true;
}

/* True when some text begins like this one: with one to three more bytes it is valid. */
static bool slow_may_go_on(const uint8_t *at, size_t len)
{
    static const uint8_t ends[][3] = {{0x80, 0x80, 0x80}, {0xbf, 0x80, 0x80}};
    uint8_t *more = malloc(len + 3);
    bool may = slow_valid(at, len);

    rh_assert(more);
    if (len)
        memcpy(more, at, len);
    for (unsigned i = 0; i < RH_COUNT(ends); i++) /* 80 is too small after E0, F0; BF too big
                                                     after ED, F4 */
        for (size_t n = 1; n <= 3 && !may; n++) {
            memcpy(more + len, ends[i], n);
            may = slow_valid(more, len + n);
        }
    free(more);
    return may;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rh_utf8 u = {0};
    uint32_t cuts;
    bool fine = true;

    if (!size)
        return 0;
    cuts = data[0];
    data++;
    size--;
    rh_assert(rh_utf8_valid(data, size) == slow_valid(data, size));
    for (size_t at = 0, len; at < size && fine; at += len) {
        uint8_t *piece;

        cuts = cuts * 1103515245u + 12345u;
        len = (cuts >> 16) % 40;
        len = RH_MIN(len, size - at);
        piece = malloc(len); /* of its own, so that ASan sees one byte too far */
        rh_assert(piece || !len);
        if (len)
            memcpy(piece, data + at, len);
        fine = rh_utf8_feed(&u, piece, len);
        free(piece);
        rh_assert(fine == slow_may_go_on(data, at + len));
    }
    rh_assert((fine && rh_utf8_done(&u)) == slow_valid(data, size));
    return 0;
}
