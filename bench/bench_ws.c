/* bench/bench_ws.c - what a WebSocket message costs before and after the kernel has it.
 *
 * Method  Everything in one hot buffer, on one core, clock_gettime(CLOCK_MONOTONIC). Each number
 *         is the best of ROUNDS rounds of about ROUND_NS, so that other load on the machine shows
 *         little. Frames are final and masked with the key 0: the work is the same and the
 *         buffer stays as it was, so no copy needs to be subtracted. What "first" and "last" say
 *         is summed and compared, so nothing can be optimised away.
 *
 *         feed    a run of equal frames, one rh_ws_feed each, as after one receive
 *         echo    the same + rh_ws_head + memcpy into an output buffer, as before one send
 *         cut     each message in two halves, the header and tail rules included
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
#include "proto/mask.h"
#include "proto/utf8.h"
#include "proto/ws.h"

#define ROUNDS   9
#define ROUND_NS 20e6

static uint8_t *in, *out; /* of the case that runs */
static size_t in_len, unit;
static volatile uint64_t sink;

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

/* Nanoseconds of one call, the best round. */
static double best_ns(void (*work)(void))
{
    double best = 1e18;
    unsigned calls = 1;

    for (int round = 0; round < ROUNDS; round++) {
        double start, took;

    again:
        start = now_ns();
        for (unsigned i = 0; i < calls; i++)
            work();
        took = now_ns() - start;
        if (took < ROUND_NS / 2) {
            calls *= 2;
            goto again;
        }
        best = RH_MIN(best, took / calls);
    }
    return best;
}

/* ---- feed, echo, cut ---- */

static void feed_all(void)
{
    struct rh_ws ws;
    struct rh_ws_event ev;
    uint64_t whole = 0;

    rh_ws_init(&ws, RH_WS_SERVER, 1 << 20);
    for (size_t at = 0;;) {
        at += rh_ws_feed(&ws, in + at, in_len - at, &ev);
        if (ev.kind != RH_WS_DATA)
            break;
        whole += ev.first & ev.last;
    }
    rh_assert(ev.kind == RH_WS_MORE && whole);
    sink += whole;
}

static void echo_all(void)
{
    struct rh_ws ws;
    struct rh_ws_event ev;
    size_t size = 0;

    rh_ws_init(&ws, RH_WS_SERVER, 1 << 20);
    for (size_t at = 0;;) {
        at += rh_ws_feed(&ws, in + at, in_len - at, &ev);
        if (ev.kind != RH_WS_DATA)
            break;
        size += rh_ws_head(out + size, ev.opcode, true, ev.len, NULL);
        memcpy(out + size, ev.data, ev.len);
        size += ev.len;
    }
    rh_assert(ev.kind == RH_WS_MORE && size);
    sink += size;
}

static void cut_all(void)
{
    struct rh_ws ws;
    struct rh_ws_event ev;
    uint64_t ends = 0;

    rh_ws_init(&ws, RH_WS_SERVER, 1 << 20);
    for (size_t at = 0, end = unit / 2; at < in_len; end += unit / 2) {
        end = RH_MIN(end, in_len);
        do {
            at += rh_ws_feed(&ws, in + at, end - at, &ev);
            ends += ev.kind == RH_WS_DATA && ev.last;
        } while (ev.kind != RH_WS_MORE);
    }
    rh_assert(ends == in_len / unit);
    sink += ends;
}

/* As many frames as about 64 KiB hold, of `len` bytes of `text` over and over. */
static unsigned fill_frames(size_t len, const char *text)
{
    static const uint8_t key[4];
    const unsigned frames = len < 65536 ? (unsigned)(65536 / (len + 8)) : 1;
    size_t at = 0;

    for (unsigned i = 0; i < frames; i++) {
        at += rh_ws_head(in + at, RH_WS_TEXT, true, len, key);
        for (size_t k = 0; k < len; k++)
            in[at++] = (uint8_t)text[k % strlen(text)];
    }
    in_len = at;
    unit = at / frames;
    return frames;
}

static void bench_messages(void)
{
    static const size_t lens[] = {64, 1024, 65536};

    printf("\n%-22s %10s %10s %10s\n", "ns per text message", "feed", "echo", "cut");
    for (unsigned i = 0; i < RH_COUNT(lens); i++) {
        unsigned frames = fill_frames(lens[i], "{\"type\":\"message.send\"}");

        printf("%8zu ASCII         %10.1f", lens[i], best_ns(feed_all) / frames);
        printf(" %10.1f", best_ns(echo_all) / frames);
        printf(" %10.1f\n", best_ns(cut_all) / frames);
        frames = fill_frames(lens[i], "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, ");
        for (unsigned k = 1; k <= frames; k++)
            if (in[k * unit - 1] >= 0xc0)
                in[k * unit - 1] = '.'; /* a frame that ended inside a character */
        printf("%8zu Cyrillic      %10.1f", lens[i], best_ns(feed_all) / frames);
        printf(" %10.1f", best_ns(echo_all) / frames);
        printf(" %10.1f\n", best_ns(cut_all) / frames);
    }
}

/* ---- mask, utf8 ---- */

static const uint8_t mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void mask_simd(void)
{
    rh_mask(in, in, unit, mask_key, 1);
}

static void mask_simd_ascii(void)
{
    sink += rh_mask_ascii(in, unit, mask_key, 1);
}

static void mask_words(void)
{
    sink += rh_mask_plain(in, in, unit, mask_key, 1);
}

static void mask_two_passes(void)
{
    rh_mask(in, in, unit, mask_key, 1);
    sink += rh_utf8_valid(in, unit);
}

static void mask_bytes(void)
{
    for (size_t i = 0; i < unit; i++)
        in[i] ^= mask_key[(1 + i) & 3];
    sink += in[0];
}

static void utf8_all(void)
{
    sink += rh_utf8_valid(in, unit);
}

static void bench_mask(void)
{
    static const size_t lens[] = {16, 64, 125, 256, 1024, 65536};
    static const struct {
        const char *name;
        void (*work)(void);
    } ways[] = {{"rh_mask", mask_simd},
                {"rh_mask_ascii", mask_simd_ascii},
                {"mask, then utf8", mask_two_passes},
                {"8 bytes a step", mask_words},
                {"byte by byte", mask_bytes}};

    printf("\n%-16s", "mask, GB/s");
    for (unsigned i = 0; i < RH_COUNT(lens); i++)
        printf(" %7zu", lens[i]);
    printf("\n");
    for (unsigned w = 0; w < RH_COUNT(ways); w++) {
        printf("%-16s", ways[w].name);
        for (unsigned i = 0; i < RH_COUNT(lens); i++) {
            unit = lens[i];
            memset(in, 'a', unit);
            printf(" %7.2f", (double)unit / best_ns(ways[w].work));
        }
        printf("\n");
    }
}

static void bench_utf8(void)
{
    static const struct {
        const char *name, *text;
    } texts[] = {{"ASCII", "All the world's a stage, "},
                 {"German", "F\xc3\xbcr gr\xc3\xb6\xc3\x9f"
                            "ere Wellen gen\xc3\xbcgt's. "},
                 {"Cyrillic", "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, "},
                 {"Chinese", "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c"},
                 {"emoji", "\xf0\x9f\x98\x80\xf0\x9f\x9a\x80"}};
    static const size_t lens[] = {64, 1024, 65536};

    printf("\n%-16s", "utf8, GB/s");
    for (unsigned i = 0; i < RH_COUNT(lens); i++)
        printf(" %7zu", lens[i]);
    printf("\n");
    for (unsigned t = 0; t < RH_COUNT(texts); t++) {
        const size_t len = strlen(texts[t].text);

        printf("%-16s", texts[t].name);
        for (unsigned i = 0; i < RH_COUNT(lens); i++) {
            unit = lens[i] / len * len;
            for (size_t k = 0; k < unit; k++)
                in[k] = (uint8_t)texts[t].text[k % len];
            rh_assert(rh_utf8_valid(in, unit));
            printf(" %7.2f", (double)unit / best_ns(utf8_all));
        }
        printf("\n");
    }
}

static void print_machine(void)
{
    FILE *info = fopen("/proc/cpuinfo", "r");
    char line[256];

    while (info && fgets(line, sizeof(line), info))
        if (!strncmp(line, "model name", 10)) {
            printf("machine %s", strchr(line, ':') ? strchr(line, ':') + 2 : line);
            break;
        }
    if (info)
        fclose(info);
    printf("cores   %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    printf("method  hot buffer, key 0, best of %d rounds of %.0f ms; see the file's head\n", ROUNDS,
           ROUND_NS / 1e6);
}

int main(void)
{
    in = aligned_alloc(RH_CACHE_LINE, 1 << 18);
    out = aligned_alloc(RH_CACHE_LINE, 1 << 18);
    rh_assert(in && out);
    print_machine();
    bench_messages();
    bench_mask();
    bench_utf8();
    free(in);
    free(out);
    return 0;
}
