/* proto/utf8.c - UTF-8 as a machine of nine states whose transitions are shifts.
 *
 * Why this way: a state is a shift count. Each byte has one 64-bit row with a 6-bit field per
 * state; shifting the row right by the state leaves the next state in the low 6 bits. A step is a
 * load and a shift, without a branch that text could mispredict, and a cut needs no thought, as
 * the state is all there is to carry. Runs of ASCII are skipped 16 bytes a step before that.
 *
 *      state  meaning                            accepts      then
 *      START  between characters                 00..7F       START
 *                                                C2..DF       T1
 *                                                E0, ED       E0, ED
 *                                                E1..EF       T2 (ED apart)
 *                                                F0, F4       F0, F4
 *                                                F1..F3       T3
 *      T1     one more byte                      80..BF       START
 *      T2     two more                           80..BF       T1
 *      T3     three more                         80..BF       T2
 *      E0     two more; 80..9F were overlong     A0..BF       T1
 *      ED     two more; A0..BF were surrogates   80..9F       T1
 *      F0     three more; 80..8F were overlong   90..BF       T2
 *      F4     three more; 90.. were > U+10FFFF   80..8F       T2
 *      BAD    everything else                    nothing      BAD
 *
 * Limits      reads no byte outside of the piece.
 * Rejected    A switch over lead bytes: 1.5 to 2.8 GB/s, by script, where this has 3.4 for all of
 *             them (bench/bench_ws.c). SSSE3 tables are faster still, on machines that have them;
 *             chat is ASCII, or short.
 */
#include "proto/utf8.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "core/base.h"

enum { START = 0, T1 = 6, T2 = 12, T3 = 18, E0 = 24, ED = 30, F0 = 36, F4 = 42, BAD = 48 };

/* One row: the next state from START, T1, T2, T3, E0, ED, F0, F4. */
#define ROW(start, t1, t2, t3, e0, ed, f0, f4)                                                     \
    ((uint64_t)(start) << START | (uint64_t)(t1) << T1 | (uint64_t)(t2) << T2 |                    \
     (uint64_t)(t3) << T3 | (uint64_t)(e0) << E0 | (uint64_t)(ed) << ED | (uint64_t)(f0) << F0 |   \
     (uint64_t)(f4) << F4 | (uint64_t)BAD << BAD)
#define LEAD(next) ROW(next, BAD, BAD, BAD, BAD, BAD, BAD, BAD)

static const uint64_t rows[256] = {
    [0x00 ... 0x7f] = LEAD(START),
    [0x80 ... 0x8f] = ROW(BAD, START, T1, T2, BAD, T1, BAD, T2),
    [0x90 ... 0x9f] = ROW(BAD, START, T1, T2, BAD, T1, T2, BAD),
    [0xa0 ... 0xbf] = ROW(BAD, START, T1, T2, T1, BAD, T2, BAD),
    [0xc0 ... 0xc1] = LEAD(BAD), /* overlong ASCII */
    [0xc2 ... 0xdf] = LEAD(T1),
    [0xe0] = LEAD(E0),
    [0xe1 ... 0xec] = LEAD(T2),
    [0xed] = LEAD(ED),
    [0xee ... 0xef] = LEAD(T2),
    [0xf0] = LEAD(F0),
    [0xf1 ... 0xf3] = LEAD(T3),
    [0xf4] = LEAD(F4),
    [0xf5 ... 0xff] = LEAD(BAD),
};

#define BLOCK 16 /* bytes a step, of ASCII as of others */

#if defined(__SSE2__)
static inline bool block_ascii(const uint8_t *at)
{
    return _mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)at)) == 0;
}
#else
static inline bool block_ascii(const uint8_t *at)
{
    uint64_t words[2];

    memcpy(words, at, sizeof(words));
    return ((words[0] | words[1]) & 0x8080808080808080u) == 0;
}
#endif

#define STEP(state, byte) (rows[byte] >> ((state)&63))

/* The machine over a block; written out, as the loop around it cost as much again. */
static inline uint64_t step_block(uint64_t state, const uint8_t *at)
{
    for (size_t i = 0; i < BLOCK; i += 8) {
        state = STEP(state, at[i]);
        state = STEP(state, at[i + 1]);
        state = STEP(state, at[i + 2]);
        state = STEP(state, at[i + 3]);
        state = STEP(state, at[i + 4]);
        state = STEP(state, at[i + 5]);
        state = STEP(state, at[i + 6]);
        state = STEP(state, at[i + 7]);
    }
    return state & 63;
}

bool rh_utf8_feed(struct rh_utf8 *u, const void *at, size_t len)
{
    const uint8_t *byte = at;
    uint64_t state = u->state;

    for (; len >= BLOCK; byte += BLOCK, len -= BLOCK)
        if (state != START || !block_ascii(byte)) {
            state = step_block(state, byte);
            if (state == BAD)
                break;
        }
    for (size_t i = 0; state != BAD && i < len; i++)
        state = STEP(state, byte[i]) & 63;
    u->state = (uint8_t)state;
    return state != BAD;
}

bool rh_utf8_done(const struct rh_utf8 *u)
{
    return u->state == START;
}

bool rh_utf8_valid(const void *at, size_t len)
{
    struct rh_utf8 u = {0};

    return rh_utf8_feed(&u, at, len) && rh_utf8_done(&u);
}

_Static_assert(sizeof(struct rh_utf8) == 1, "part of every connection");
