/* Bundles: queues that hold the same messages in the same order send one piece of memory, and what
 * is in them is not touched by that. */
#include <stdio.h>

#include "core/mem.h"
#include "core/uring.h"
#include "shard/outq.h"
#include "tests/rh_test.h"

#define QUEUES 6

static struct rh_out_stock stock;
static struct rh_outq *q[QUEUES];
static struct iovec iov[RH_URING_IOV];
static unsigned sent;

static void begin(void)
{
    memset(&stock, 0, sizeof(stock));
    sent = 0;
    for (unsigned i = 0; i < QUEUES; i++)
        RH_OK_IF(q[i] = rh_outq_take(&stock));
}

/* Everything comes back, also what a bundle held. */
static void end(void)
{
    rh_bundles_forget(&stock.bundles, &stock.handles);
    for (unsigned i = 0; i < QUEUES; i++)
        rh_outq_give(&stock, q[i]);
    RH_EQ_U64(stock.messages, 0);
    rh_out_stock_fini(&stock);
}

static struct rh_handle *make(unsigned number, uint32_t len)
{
    struct rh_msg *msg = rh_msg_create(len);
    struct rh_handle *h = rh_handle_make(&stock.handles, msg);

    RH_OK_IF(h);
    msg->frame_len = len;
    memset(msg->bytes + msg->frame_at, '.', len);
    msg->bytes[msg->frame_at] = (uint8_t)('a' + number % 26);
    return h;
}

/* The same `count` messages into queues from..to-1. */
static void push(unsigned count, uint32_t len, unsigned from, unsigned to)
{
    for (unsigned n = 0; n < count; n++) {
        struct rh_handle *h = make(n, len);

        for (unsigned i = from; i < to; i++)
            RH_OK_IF(rh_outq_push_msg(q[i], h));
        rh_handle_unref(&stock.handles, h);
    }
}

static void count_sent(void *arg, const struct rh_msg *msg)
{
    (void)arg;
    (void)msg;
    sent++;
}

/* Sends what waits in that queue: "5: abcde" for five pieces, each message by its first letter. */
static const char *fly(unsigned i, uint32_t len)
{
    static char text[128];
    unsigned pieces = rh_outq_fill(q[i], iov, RH_URING_IOV);
    int n = snprintf(text, sizeof(text), "%u: ", pieces);

    for (unsigned k = 0; k < pieces; k++)
        for (size_t at = 0; at < iov[k].iov_len; at += len)
            text[n++] = ((char *)iov[k].iov_base)[at];
    text[n] = '\0';
    return text;
}

static void done(unsigned i)
{
    rh_outq_done(&stock, q[i], count_sent, NULL);
}

RH_TEST(bundle, the_second_who_sends_the_same_makes_it_and_the_others_use_it)
{
    const void *bytes;

    begin();
    push(5, 4, 0, 4);
    RH_EQ_STR(fly(0, 4), "5: abcde");
    RH_EQ_STR(fly(1, 4), "1: abcde");
    bytes = iov[0].iov_base;
    RH_EQ_STR(fly(2, 4), "1: abcde");
    RH_OK_IF(iov[0].iov_base == bytes);
    for (unsigned i = 0; i < 3; i++) {
        RH_EQ_U64(q[i]->flying_bytes, 20);
        RH_EQ_INT(q[i]->flying_messages, 5);
        done(i);
        RH_EQ_INT(q[i]->messages, 0);
    }
    RH_EQ_INT(sent, 15);
    end();
}

RH_TEST(bundle, it_lives_as_long_as_somebody_sends_it)
{
    begin();
    push(4, 4, 0, 4);
    fly(0, 4);
    RH_EQ_STR(fly(1, 4), "1: abcd");
    RH_EQ_STR(fly(2, 4), "1: abcd");
    rh_bundles_forget(&stock.bundles, &stock.handles); /* the pass has ended */
    done(0);
    done(1);
    RH_OK_IF(memcmp(iov[0].iov_base, "a...b...c...d...", 16) == 0);
    RH_EQ_STR(fly(3, 4), "4: abcd");
    done(2);
    done(3);
    end();
}

RH_TEST(bundle, another_sequence_is_another_one)
{
    begin();
    push(4, 4, 0, 6);
    push(1, 4, 4, 6); /* these have one more */
    fly(0, 4);
    RH_EQ_STR(fly(1, 4), "1: abcd");
    RH_EQ_STR(fly(4, 4), "1: abcda");
    RH_EQ_STR(fly(5, 4), "1: abcda");
    RH_EQ_STR(fly(2, 4), "1: abcd");
    for (unsigned i = 0; i < QUEUES; i++)
        if (i != 3)
            done(i);
    push(3, 4, 0, 1); /* different messages that look the same */
    RH_EQ_STR(fly(0, 4), "3: abc");
    done(0);
    end();
}

RH_TEST(bundle, few_many_large_or_mixed_ones_leave_piece_by_piece)
{
    uint8_t *own;

    begin();
    push(RH_BUNDLE_MIN - 1, 4, 0, 2);
    for (unsigned i = 0; i < 2; i++)
        RH_EQ_STR(fly(i, 4), "2: ab");
    push(RH_BUNDLE_MAX + 1, 4, 2, 4);
    for (unsigned i = 2; i < 4; i++)
        RH_EQ_INT(rh_outq_fill(q[i], iov, RH_URING_IOV), RH_BUNDLE_MAX + 1);
    push(3, RH_BUNDLE_BYTES / 2, 4, 6);
    for (unsigned i = 4; i < 6; i++)
        RH_EQ_INT(rh_outq_fill(q[i], iov, RH_URING_IOV), 3);
    for (unsigned i = 0; i < QUEUES; i++)
        done(i);
    push(4, 4, 0, 2);
    for (unsigned i = 0; i < 2; i++) { /* an answer among them */
        own = rh_outq_own(&stock, q[i], 4);
        memcpy(own, "o...", 4);
        rh_outq_own_done(q[i], 4);
        RH_EQ_STR(fly(i, 4), "5: abcdo");
        done(i);
    }
    end();
}

RH_TEST(bundle, without_memory_for_one_they_leave_piece_by_piece)
{
    begin();
    push(4, 4, 0, 3);
    fly(0, 4);
    rh_mem_fail_nth(1);
    RH_EQ_STR(fly(1, 4), "4: abcd");
    rh_mem_fail_nth(0);
    RH_EQ_STR(fly(2, 4), "1: abcd");
    for (unsigned i = 0; i < 3; i++)
        done(i);
    end();
}
