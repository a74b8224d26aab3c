/* core/id.c - message ids.
 *
 * Why this way: an id is one 128-bit number. A new ms sets its upper 48 bits and draws the rest;
 * within a ms a random step of 1 to 2^32 is added. So order needs no comparison and no special
 * case: should the 80 bits ever run over, the carry goes into the ms, which then runs ahead of the
 * clock until the clock has caught up.
 */
#include "core/id.h"

#include <string.h>

#include "core/base.h"

#define MS_BITS 48

/* "000102...feff" */
#define HEX_ROW(h)                                                                                 \
    h "0" h "1" h "2" h "3" h "4" h "5" h "6" h "7" h "8" h "9" h "a" h "b" h "c" h "d" h "e" h "f"
static const char hex_pairs[] = HEX_ROW("0") HEX_ROW("1") HEX_ROW("2") HEX_ROW("3") HEX_ROW("4")
    HEX_ROW("5") HEX_ROW("6") HEX_ROW("7") HEX_ROW("8") HEX_ROW("9") HEX_ROW("a") HEX_ROW("b")
        HEX_ROW("c") HEX_ROW("d") HEX_ROW("e") HEX_ROW("f");

_Static_assert(sizeof(hex_pairs) == 2 * 256 + 1, "two digits for each byte");

void rh_hex(char *dst, const void *bytes, size_t len)
{
    const uint8_t *from = bytes;

    for (size_t i = 0; i < len; i++)
        memcpy(dst + 2 * i, hex_pairs + 2 * from[i], 2);
}

/* 16 digits of a number, the highest first. */
static inline void hex_u64(char *dst, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        memcpy(dst + 2 * i, hex_pairs + 2 * (value >> (56 - 8 * i) & 0xff), 2);
}

void rh_idgen_init(struct rh_idgen *g, struct rh_prng *prng)
{
    *g = (struct rh_idgen){.prng = prng};
}

void rh_id_make(struct rh_idgen *g, uint64_t now_ms, char dst[RH_ID_TEXT])
{
    uint64_t drawn = rh_prng_next(g->prng);

    rh_assert(now_ms >> MS_BITS == 0);
    if (now_ms > g->hi >> 16) {
        g->hi = now_ms << 16 | drawn >> 48;
        g->lo = rh_prng_next(g->prng);
    } else {
        uint64_t step = (drawn >> 32) + 1;

        g->lo += step;
        g->hi += g->lo < step; /* the carry */
    }
    hex_u64(dst, g->hi);
    hex_u64(dst + 16, g->lo);
}

static bool given_byte_ok(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '-';
}

bool rh_id_given_ok(const char *at, size_t len)
{
    if (len < 1 || len > RH_ID_GIVEN_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!given_byte_ok((unsigned char)at[i]))
            return false;
    return true;
}
