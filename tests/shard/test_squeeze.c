/* Compression that is shared: a message's deflated frame is made once, each window has its own, and
 * whatever happens a receiver can read what it gets.
 *
 * A message's text begins with its number, so what a receiver has read is a list of numbers. */
#include "shard/squeeze.h"

#include <stdio.h>

#include "core/err.h"
#include "core/mem.h"
#include "core/uring.h"
#include "shard/outq.h"
#include "tests/rh_test.h"
#include "tests/shard/reader.h"

#define QUEUES 6
#define TEXT   (1u << 17)

static struct rh_out_stock stock;
static struct rh_stats stats;
static struct rh_config *cfg;
static struct rh_outq *q[QUEUES];
static struct iovec iov[RH_URING_IOV];
static uint8_t text[TEXT]; /* from which messages are cut */
static char heard[1024];   /* the numbers of what was read */

static uint64_t stat(enum rh_stat which)
{
    return atomic_load_explicit(&stats.v[which], memory_order_relaxed);
}

/* Words that repeat in the short and in the long: each window finds something, a larger one more. */
static void write_text(void)
{
    static const char *const words[] = {"alpha ", "beta ", "gamma ", "delta ", "epsilon "};
    uint64_t drawn = 1;
    size_t at = 0;

    while (at < TEXT) {
        const char *word;

        drawn = drawn * 6364136223846793005u + 1442695040888963407u;
        word = words[drawn >> 33 & 3];
        for (size_t i = 0; word[i] && at < TEXT; i++)
            text[at++] = (uint8_t)word[i];
        if (at > 1500 && at < TEXT - 600 && (drawn >> 40) % 7 == 0) {
            memcpy(text + at, text + at - 1500, 200);
            at += 200;
        }
    }
}

static void begin(void)
{
    memset(&stock, 0, sizeof(stock));
    memset(&stats, 0, sizeof(stats));
    heard[0] = '\0';
    write_text();
    RH_OK_IF(rh_config_create(&cfg) == RH_OK);
    RH_OK_IF(rh_squeeze_init(&stock.squeeze, &stats, cfg) == RH_OK);
    for (unsigned i = 0; i < QUEUES; i++)
        RH_OK_IF(q[i] = rh_outq_take(&stock));
}

/* Everything comes back, and the gauge knows it. */
static void end(void)
{
    rh_bundles_forget(&stock.bundles, &stock.handles);
    for (unsigned i = 0; i < QUEUES; i++)
        rh_outq_give(&stock, q[i]);
    rh_out_stock_fini(&stock);
    rh_squeeze_fini(&stock.squeeze);
    RH_EQ_U64(stat(RH_STAT_compression_bytes), 0);
    rh_config_destroy(cfg);
}

static struct rh_handle *make_of(const void *payload, size_t len)
{
    struct rh_msg *msg = rh_msg_create(RH_MSG_HEAD_ROOM + len);
    struct rh_handle *h = msg ? rh_handle_make(&stock.handles, msg) : NULL;

    if (!h) {
        rh_msg_drop_any(msg);
        return NULL;
    }
    msg->frame_len = (uint32_t)rh_ws_head(msg->bytes + msg->frame_at, RH_WS_TEXT, true, len, NULL);
    memcpy(msg->bytes + msg->frame_at + msg->frame_len, payload, len);
    msg->frame_len += (uint32_t)len;
    return h;
}

/* A text of that length (at least 8) that compresses; its beginning is its number. */
static struct rh_handle *make(unsigned number, size_t len)
{
    uint8_t *copy = malloc(len);
    struct rh_handle *h;
    char digits[12];

    memcpy(copy, text + number % 1000, len);
    snprintf(digits, sizeof(digits), "%07u ", number);
    memcpy(copy, digits, 8);
    h = make_of(copy, len);
    free(copy);
    return h;
}

static void push(struct rh_handle *h, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        RH_OK_IF(rh_outq_push_msg(q[i], h));
    rh_handle_unref(&stock.handles, h);
}

static void note(void *arg, const uint8_t *at, size_t len)
{
    unsigned number = (unsigned)strtoul((const char *)at, NULL, 10);

    RH_OK_IF(len >= 8 && !memcmp(at + 8, text + number % 1000 + 8, len - 8));
    snprintf(heard + strlen(heard), sizeof(heard) - strlen(heard), "%u ", number);
}

static void nothing(void *arg, const struct rh_msg *msg)
{
    (void)arg;
    (void)msg;
}

/* Puts what waits under way, and reads it with a window of `bits`; returns how many pieces it has. */
static unsigned fly(unsigned i, unsigned bits, unsigned *ret_compressed)
{
    unsigned pieces = rh_outq_fill(q[i], iov, RH_URING_IOV);
    struct reader r;
    uint64_t total = 0;

    heard[0] = '\0';
    reader_begin(&r, bits, false, note, NULL);
    for (unsigned k = 0; k < pieces; k++) {
        reader_feed(&r, iov[k].iov_base, iov[k].iov_len);
        total += iov[k].iov_len;
    }
    RH_EQ_U64(q[i]->flying_bytes, total);
    if (ret_compressed)
        *ret_compressed = r.compressed;
    reader_end(&r);
    return pieces;
}

static void done(unsigned i)
{
    rh_outq_done(&stock, q[i], nothing, NULL);
    RH_EQ_U64(q[i]->messages, 0);
    RH_EQ_U64(q[i]->bytes, 0);
}

/* ---- forms ---- */

RH_TEST(squeeze, a_message_is_compressed_once_whoever_sends_it)
{
    const void *bytes;
    unsigned compressed;

    begin();
    q[0]->bits = q[1]->bits = q[2]->bits = 12;
    push(make(7, 4000), 0, 4);
    for (unsigned i = 0; i < 3; i++) {
        RH_EQ_INT(fly(i, 12, &compressed), 1);
        RH_EQ_INT(compressed, 1);
        RH_EQ_STR(heard, "7 ");
        RH_OK_IF(i == 0 || iov[0].iov_base == bytes);
        bytes = iov[0].iov_base;
        RH_OK_IF(q[i]->flying_bytes < 2000);
        RH_EQ_U64(q[i]->bytes, 4004); /* the bound counts it plain */
    }
    fly(3, 12, &compressed); /* this one has not agreed on anything */
    RH_EQ_INT(compressed, 0);
    RH_EQ_U64(q[3]->flying_bytes, 4004);
    RH_EQ_U64(stat(RH_STAT_deflates), 1);
    RH_EQ_U64(stat(RH_STAT_compressed_messages_out), 3);
    RH_EQ_U64(stat(RH_STAT_compressed_plain_bytes_out), 3 * 4000);
    RH_EQ_U64(stat(RH_STAT_compressed_wire_bytes_out), 3 * (q[0]->flying_bytes - 4));
    for (unsigned i = 0; i < 4; i++)
        done(i);
    end();
}

RH_TEST(squeeze, each_window_has_a_form_of_its_own)
{
    uint64_t len[QUEUES];

    begin();
    for (unsigned i = 0; i < QUEUES; i++)
        q[i]->bits = (uint8_t)(9 + i);
    push(make(3, 60000), 0, QUEUES);
    for (unsigned i = 0; i < QUEUES; i++) {
        fly(i, 9 + i, NULL); /* a smaller window would not do: zlib says so */
        RH_EQ_STR(heard, "3 ");
        len[i] = q[i]->flying_bytes;
        done(i);
    }
    RH_OK_IF(len[3] < len[0]);
    RH_EQ_U64(stat(RH_STAT_deflates), QUEUES);
    end();
}

RH_TEST(squeeze, what_gets_no_smaller_is_tried_once)
{
    uint8_t noise[3000];
    unsigned compressed;
    struct rh_handle *h;

    begin();
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)rh_test_rand();
    memcpy(noise, "0000000 ", 8);
    q[0]->bits = q[1]->bits = q[2]->bits = 12;
    h = make_of(noise, sizeof(noise));
    for (unsigned i = 0; i < 3; i++)
        RH_OK_IF(rh_outq_push_msg(q[i], h));
    for (unsigned i = 0; i < 3; i++) {
        RH_EQ_INT(rh_outq_fill(q[i], iov, RH_URING_IOV), 1);
        RH_OK_IF(iov[0].iov_base == rh_msg_frame(h->msg));
        RH_EQ_U64(iov[0].iov_len, h->msg->frame_len);
        done(i);
    }
    rh_handle_unref(&stock.handles, h);
    RH_EQ_U64(stat(RH_STAT_deflates), 1);
    RH_EQ_U64(stat(RH_STAT_compressed_messages_out), 0);
    push(make(1, 511), 0, 1); /* and what is small, never */
    fly(0, 12, &compressed);
    RH_EQ_INT(compressed, 0);
    RH_EQ_U64(stat(RH_STAT_deflates), 1);
    done(0);
    end();
}

/* Heads have 2, 4 or 10 bytes, on either side of the work. */
RH_TEST(squeeze, all_lengths_of_heads_come_out_right)
{
    static const size_t sizes[] = {16, 100, 125, 126, 127, 300, 4096, 65535, 65536, 100000};
    unsigned compressed;

    begin();
    cfg->compression_min_size = 16;
    rh_squeeze_config(&stock.squeeze, cfg);
    for (unsigned i = 0; i < RH_COUNT(sizes); i++) {
        uint8_t *same = malloc(sizes[i]);

        q[0]->bits = 15;
        push(make(i, sizes[i]), 0, 1);
        fly(0, 15, &compressed);
        RH_OK_IF(strtoul(heard, NULL, 10) == i);
        RH_OK_IF(compressed || sizes[i] < 200);
        done(0);
        memset(same, 'x', sizes[i]); /* to almost nothing */
        push(make_of(same, sizes[i]), 0, 1);
        RH_EQ_INT(rh_outq_fill(q[0], iov, RH_URING_IOV), 1);
        RH_EQ_INT(((uint8_t *)iov[0].iov_base)[0], 0x80 | RH_WS_RSV1 | RH_WS_TEXT);
        RH_OK_IF(iov[0].iov_len < 10 + sizes[i] / 100);
        done(0);
        free(same);
    }
    end();
}

RH_TEST(squeeze, min_size_is_the_smallest_that_is_compressed)
{
    unsigned compressed;

    begin();
    q[0]->bits = 12;
    for (size_t min = 100; min <= 70000; min += 23300) {
        cfg->compression_min_size = min;
        rh_squeeze_config(&stock.squeeze, cfg);
        push(make(1, min - 1), 0, 1);
        push(make(2, min), 0, 1);
        RH_EQ_INT(fly(0, 12, &compressed), 2);
        RH_EQ_INT(compressed, 1);
        RH_OK_IF(((uint8_t *)iov[0].iov_base)[0] == (0x80 | RH_WS_TEXT));
        done(0);
    }
    end();
}

RH_TEST(squeeze, a_new_level_makes_new_deflaters)
{
    uint64_t fast, small, bytes;

    begin();
    q[0]->bits = 12;
    push(make(1, 60000), 0, 1);
    fly(0, 12, NULL);
    fast = q[0]->flying_bytes;
    done(0);
    bytes = stat(RH_STAT_compression_bytes);
    RH_OK_IF(bytes > 16 << 10);
    cfg->compression_level = 9;
    rh_squeeze_config(&stock.squeeze, cfg);
    RH_OK_IF(stat(RH_STAT_compression_bytes) < bytes);
    push(make(1, 60000), 0, 1);
    fly(0, 12, NULL);
    small = q[0]->flying_bytes;
    done(0);
    RH_OK_IF(small < fast);
    bytes = stat(RH_STAT_compression_bytes);
    cfg->compression_min_size = 1000; /* says nothing about deflaters */
    rh_squeeze_config(&stock.squeeze, cfg);
    RH_EQ_U64(stat(RH_STAT_compression_bytes), bytes);
    end();
}

/* The buffer of a large message goes, and the gauge follows. */
RH_TEST(squeeze, a_large_message_leaves_no_large_buffer)
{
    begin();
    q[0]->bits = 12;
    push(make(1, 100000), 0, 1);
    fly(0, 12, NULL);
    done(0);
    RH_OK_IF(stock.squeeze.buffer.room <= 64 << 10);
    RH_EQ_U64(stat(RH_STAT_compression_bytes),
              stock.squeeze.buffer.room + rh_deflater_bytes(stock.squeeze.out[12]));
    end();
}

static void without_memory(void *arg)
{
    uint64_t fail = rh_mem_fail_left();
    struct rh_handle *h[4];
    unsigned compressed;

    rh_mem_fail_nth(0);
    begin();
    q[0]->bits = q[1]->bits = q[2]->bits = 12;
    for (unsigned n = 0; n < RH_COUNT(h); n++) {
        h[n] = make(n, 2000);
        push(h[n], 0, 4);
    }
    rh_mem_fail_nth(fail);
    for (unsigned i = 0; i < 4; i++) {
        fly(i, 12, &compressed);
        RH_EQ_STR(heard, "0 1 2 3 ");
    }
    fail = rh_mem_fail_left();
    rh_mem_fail_nth(0);
    for (unsigned i = 0; i < 4; i++)
        done(i);
    push(make(9, 2000), 0, 1); /* it was for that once */
    fly(0, 12, &compressed);
    RH_EQ_INT(compressed, 1);
    done(0);
    end();
    rh_mem_fail_nth(fail);
}

RH_TEST(squeeze, without_memory_things_go_as_they_are)
{
    rh_test_fail_each_alloc(without_memory, NULL);
}

/* ---- bundles ---- */

RH_TEST(squeeze, receivers_of_each_window_have_a_bundle_of_their_own)
{
    unsigned compressed;
    const void *plain, *deflated;

    begin();
    q[0]->bits = q[2]->bits = q[4]->bits = 12;
    for (unsigned n = 0; n < 5; n++)
        push(make(n, n == 2 ? 100 : 1000), 0, 6);
    for (unsigned i = 0; i < 2; i++) /* the first of each kind: piece by piece */
        RH_EQ_INT(fly(i, 12, NULL), 5);
    RH_EQ_INT(fly(2, 12, &compressed), 1);
    RH_EQ_INT(compressed, 4); /* one is small */
    RH_EQ_STR(heard, "0 1 2 3 4 ");
    deflated = iov[0].iov_base;
    RH_EQ_INT(fly(3, 12, &compressed), 1);
    RH_EQ_INT(compressed, 0);
    RH_EQ_STR(heard, "0 1 2 3 4 ");
    plain = iov[0].iov_base;
    RH_EQ_INT(fly(4, 12, NULL), 1);
    RH_OK_IF(iov[0].iov_base == deflated);
    RH_EQ_INT(fly(5, 12, NULL), 1);
    RH_OK_IF(iov[0].iov_base == plain);
    RH_EQ_U64(stat(RH_STAT_deflates), 4);
    RH_EQ_U64(stat(RH_STAT_compressed_messages_out), 3 * 4);
    RH_EQ_U64(stat(RH_STAT_compressed_plain_bytes_out), 3 * 4000);
    for (unsigned i = 0; i < 6; i++)
        done(i);
    end();
}

RH_TEST(squeeze, a_bundle_is_of_one_window)
{
    begin();
    q[0]->bits = q[1]->bits = 12;
    q[2]->bits = q[3]->bits = 9;
    for (unsigned n = 0; n < 3; n++)
        push(make(n, 1000), 0, 4);
    fly(0, 12, NULL);
    RH_EQ_INT(fly(1, 12, NULL), 1);
    RH_EQ_INT(fly(2, 9, NULL), 1); /* in a row with the other window: made at once */
    RH_EQ_STR(heard, "0 1 2 ");
    RH_EQ_INT(fly(3, 9, NULL), 1);
    RH_EQ_STR(heard, "0 1 2 ");
    RH_OK_IF(q[1]->bundle != q[2]->bundle && q[2]->bundle == q[3]->bundle);
    for (unsigned i = 0; i < 4; i++)
        done(i);
    end();
}
