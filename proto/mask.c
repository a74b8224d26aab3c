/* proto/mask.c - XOR with four bytes, 64 bytes a step.
 *
 * Why this way: a run of 16 bytes or more ends with a block that is loaded before anything is
 * stored and may overlap the one before it. So there is no loop over odd bytes at the end, and in
 * place is right, too: the bytes that overlap are stored twice with the same value. Shorter runs
 * do the same with 8 and 4 bytes.
 *
 * The OR of all results is kept on the way; its top bits tell whether all was ASCII.
 *
 * Rejected    AVX2 where the processor has it: no faster than SSE2 with four blocks a step (50 to
 *             58 GB/s from 1 KiB to 64 KiB, bench/bench_ws.c), which needs no choice at run time.
 */
#include "proto/mask.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "core/base.h"

#define TOP_BITS 0x8080808080808080u

/* The key as a word in memory order, beginning `by` bytes later. */
static inline uint32_t turn(uint32_t key, size_t by)
{
    unsigned bits = 8 * (by & 3);

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return key >> bits | key << (-bits & 31);
#else
    return key << bits | key >> (-bits & 31);
#endif
}

static inline uint32_t load_key(const uint8_t key[4], unsigned phase)
{
    uint32_t word;

    memcpy(&word, key, sizeof(word));
    return turn(word, phase);
}

static inline uint64_t xor8(const uint8_t *src, uint32_t key)
{
    uint64_t word;

    memcpy(&word, src, sizeof(word));
    return word ^ ((uint64_t)key << 32 | key);
}

static inline uint32_t xor4(const uint8_t *src, uint32_t key)
{
    uint32_t word;

    memcpy(&word, src, sizeof(word));
    return word ^ key;
}

static bool mask_tiny(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key) /* below 4 */
{
    uint8_t seen = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t keys[4];

        memcpy(keys, &key, sizeof(keys));
        dst[i] = src[i] ^ keys[i];
        seen |= dst[i];
    }
    return seen < 0x80;
}

static bool mask_words(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    if (len >= 8) {
        const uint64_t last = xor8(src + len - 8, turn(key, len)); /* (len - 8) & 3 is len & 3 */
        uint64_t seen = last;

        for (size_t i = 0; i + 8 < len; i += 8) {
            const uint64_t word = xor8(src + i, key);

            seen |= word;
            memcpy(dst + i, &word, sizeof(word));
        }
        memcpy(dst + len - 8, &last, sizeof(last));
        return (seen & TOP_BITS) == 0;
    }
    if (len >= 4) {
        const uint32_t last = xor4(src + len - 4, turn(key, len)), word = xor4(src, key);

        memcpy(dst, &word, sizeof(word));
        memcpy(dst + len - 4, &last, sizeof(last));
        return ((word | last) & (uint32_t)TOP_BITS) == 0;
    }
    return mask_tiny(dst, src, len, key);
}

bool rh_mask_plain(uint8_t *dst, const uint8_t *src, size_t len, const uint8_t key[4],
                   unsigned phase)
{
    return mask_words(dst, src, len, load_key(key, phase));
}

#if defined(__SSE2__)

static inline __m128i xor16(const uint8_t *src, __m128i keys)
{
    return _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)src), keys);
}

static inline void store16(uint8_t *dst, __m128i block)
{
    _mm_storeu_si128((__m128i *)(void *)dst, block);
}

static inline bool mask_sse2(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    const __m128i keys = _mm_set1_epi32((int)key);
    const __m128i last = xor16(src + len - 16, _mm_set1_epi32((int)turn(key, len)));
    __m128i seen = last;
    size_t i = 0;

    for (; i + 64 < len; i += 64) {
        const __m128i b0 = xor16(src + i, keys), b1 = xor16(src + i + 16, keys);
        const __m128i b2 = xor16(src + i + 32, keys), b3 = xor16(src + i + 48, keys);

        seen = _mm_or_si128(seen, _mm_or_si128(_mm_or_si128(b0, b1), _mm_or_si128(b2, b3)));
        store16(dst + i, b0);
        store16(dst + i + 16, b1);
        store16(dst + i + 32, b2);
        store16(dst + i + 48, b3);
    }
    for (; i + 16 < len; i += 16) {
        const __m128i block = xor16(src + i, keys);

        seen = _mm_or_si128(seen, block);
        store16(dst + i, block);
    }
    store16(dst + len - 16, last);
    return _mm_movemask_epi8(seen) == 0;
}

static inline bool mask_any(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    return len < 16 ? mask_words(dst, src, len, key) : mask_sse2(dst, src, len, key);
}

#else

#define mask_any mask_words

#endif

void rh_mask(uint8_t *dst, const uint8_t *src, size_t len, const uint8_t key[4], unsigned phase)
{
    mask_any(dst, src, len, load_key(key, phase));
}

bool rh_mask_ascii(uint8_t *at, size_t len, const uint8_t key[4], unsigned phase)
{
    return mask_any(at, at, len, load_key(key, phase));
}
