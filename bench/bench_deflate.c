/* bench/bench_deflate.c - what permessage-deflate costs a message, out and in, without the kernel.
 *
 * Method  Messages of the hub's kind (an envelope whose data are words and numbers that differ from
 *         message to message) and of random bytes, 64 of each size, one after the other, so that
 *         neither the branch predictor nor a kept context sees the same message twice in a row.
 *         Level 1, window 12, memory level 5: the hub's defaults; contexts forgotten and kept. Each
 *         number is the best of ROUNDS rounds of about ROUND_NS; clock_gettime(CLOCK_MONOTONIC). The
 *         copy of the payload that a message without compression needs is shown beside it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base.h"
#include "core/prng.h"
#include "proto/deflate.h"

#define ROUNDS   7
#define ROUND_NS 20e6
#define MESSAGES 64
#define LEN_MAX  16384

struct rig {
    uint8_t in[MESSAGES][LEN_MAX];
    uint8_t packed[MESSAGES][LEN_MAX * 2];
    size_t packed_len[MESSAGES];
    size_t len;
    struct rh_deflater *d;
    struct rh_inflater *z;
    struct rh_deflate_out out;
};

static struct rig rig;
static volatile uint64_t sink;

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

/* Nanoseconds per message, the best round. */
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
        best = RH_MIN(best, took / calls / MESSAGES);
    }
    return best;
}

static void fill_random(uint8_t *at, struct rh_prng *prng)
{
    for (size_t i = 0; i < rig.len; i++)
        at[i] = (uint8_t)rh_prng_next(prng);
}

static void fill_envelope(uint8_t *at, struct rh_prng *prng)
{
    static const char *const words[] = {"price", "volume", "bid",   "ask",   "symbol", "user",
                                        "name",  "status", "order", "total", "state",  "updated"};
    size_t used =
        (size_t)snprintf((char *)at, rig.len,
                         "{\"type\":\"notify\",\"event\":\"room.message\",\"room\":\"r%u\","
                         "\"data\":{",
                         (unsigned)(rh_prng_next(prng) % 1000));
    char item[64];

    while (used < rig.len) {
        const char *word = words[rh_prng_next(prng) % RH_COUNT(words)];
        const size_t len = (size_t)snprintf(item, sizeof(item), "\"%s\":%u,", word,
                                            (unsigned)(rh_prng_next(prng) % 1000000));

        memcpy(at + used, item, RH_MIN(len, rig.len - used));
        used += len;
    }
}

static void compress_all(void)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        rh_assert(rh_deflate(rig.d, rig.in[i], rig.len, &rig.out) == 0);
        sink += rig.out.len;
    }
}

static void inflate_all(void)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        rh_assert(rh_inflate(rig.z, rig.packed[i], rig.packed_len[i], LEN_MAX, &rig.out) == 0);
        sink += rig.out.len;
    }
}

static void copy_all(void)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        memcpy(rig.out.at, rig.in[i], rig.len);
        sink += rig.out.at[i];
    }
}

/* Two rounds: what is read over and over must follow on itself where contexts are kept. Returns the
 * bytes of a message on the wire. */
static double pack_all(void)
{
    size_t sum = 0;

    for (unsigned i = 0; i < 2 * MESSAGES; i++) {
        const unsigned m = i % MESSAGES;

        rh_assert(rh_deflate(rig.d, rig.in[m], rig.len, &rig.out) == 0);
        memcpy(rig.packed[m], rig.out.at, rig.out.len);
        rig.packed_len[m] = rig.out.len;
    }
    for (unsigned m = 0; m < MESSAGES; m++)
        sum += rig.packed_len[m];
    return (double)sum / MESSAGES;
}

/* Where contexts are kept, the inflater has to have read what the messages look back on. */
static void prime_inflater(void)
{
    for (unsigned m = 0; m < MESSAGES; m++) {
        uint8_t stored[5 + LEN_MAX + 1] = {0x00, (uint8_t)rig.len, (uint8_t)(rig.len >> 8),
                                           (uint8_t)~rig.len, (uint8_t)(~rig.len >> 8)};

        memcpy(stored + 5, rig.in[m], rig.len);
        rh_assert(rh_inflate(rig.z, stored, rig.len + 6, LEN_MAX, &rig.out) == 0);
    }
}

static void bench_one(const char *what, size_t len, bool keeps,
                      void (*fill)(uint8_t *at, struct rh_prng *prng))
{
    struct rh_prng prng = {{1, 2, 3, 4}}; /* the same messages each time */
    double bytes;

    rig.len = len;
    for (unsigned i = 0; i < MESSAGES; i++)
        fill(rig.in[i], &prng);
    rh_assert(rh_deflater_create(12, 5, 1, keeps, &rig.d) == 0);
    rh_assert(rh_inflater_create(keeps ? 12 : 15, keeps, &rig.z) == 0);
    bytes = pack_all();
    prime_inflater();
    printf("%-9s %6zu %-8s %9.0f %9.0f", what, len, keeps ? "kept" : "forgot", bytes,
           best_ns(compress_all));
    printf(" %9.0f", best_ns(inflate_all));
    printf(" %9.0f %8zu %8zu\n", best_ns(copy_all), rh_deflater_bytes(rig.d),
           rh_inflater_bytes(rig.z));
    rh_deflater_destroy(rig.d);
    rh_inflater_destroy(rig.z);
}

int main(void)
{
    static const size_t lens[] = {256, 1024, LEN_MAX};

    printf("method  level 1, window 12, memory level 5; best of %d rounds of %.0f ms\n\n", ROUNDS,
           ROUND_NS / 1e6);
    printf("%-9s %6s %-8s %9s %9s %9s %9s %8s %8s\n", "message", "bytes", "context", "on wire",
           "ns out", "ns in", "ns copy", "B out", "B in");
    for (unsigned i = 0; i < RH_COUNT(lens); i++) {
        for (unsigned keeps = 0; keeps < 2; keeps++) {
            bench_one("envelope", lens[i], keeps, fill_envelope);
            bench_one("random", lens[i], keeps, fill_random);
        }
    }
    rh_deflate_out_trim(&rig.out, 0);
    return 0;
}
