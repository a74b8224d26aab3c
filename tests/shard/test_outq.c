/* Send queues: what leaves, in which order, and that everything comes back.
 *
 * A message's frame is four bytes ("n007", "h012"), an own frame likewise ("o003"), so what a send
 * describes reads as a list of frames. */
#include "shard/outq.h"

#include <stdio.h>

#include "core/mem.h"
#include "core/uring.h"
#include "tests/rh_test.h"

#define FRAME 4
#define MAX   RH_URING_IOV

struct bench {
    struct rh_out_stock stock;
    struct rh_outq *q;
    struct iovec iov[MAX];
    char text[1 << 16]; /* what has left */
    size_t len;
    unsigned sent; /* messages that `sent` was told of */
};

static void begin(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    b->q = rh_outq_take(&b->stock);
    RH_OK_IF(b->q);
}

/* Gives all back, and finds that nothing is counted any more. */
static void end(struct bench *b)
{
    rh_outq_give(&b->stock, b->q);
    RH_EQ_U64(b->stock.messages, 0);
    RH_EQ_U64(b->stock.bytes, 0);
    rh_out_stock_fini(&b->stock);
}

static struct rh_handle *make(struct bench *b, char kind, unsigned number)
{
    struct rh_msg *msg = rh_msg_create(16);
    struct rh_handle *h = msg ? rh_handle_make(&b->stock.handles, msg) : NULL;

    if (!h) {
        rh_msg_drop_any(msg);
        return NULL;
    }
    msg->frame_len = FRAME;
    msg->high = kind == 'h';
    snprintf((char *)msg->bytes + msg->frame_at, 16, "%c%03u", kind, number % 1000);
    return h;
}

/* False: no memory. */
static bool push(struct bench *b, char kind, unsigned number)
{
    struct rh_handle *h = make(b, kind, number);
    bool pushed = h && rh_outq_push_msg(b->q, h);

    if (h)
        rh_handle_unref(&b->stock.handles, h);
    return pushed;
}

static bool push_own(struct bench *b, unsigned number)
{
    char text[16];
    uint8_t *at = rh_outq_own(&b->stock, b->q, FRAME + 100); /* asks for more than it needs */

    if (!at)
        return false;
    snprintf(text, sizeof(text), "o%03u", number % 1000);
    memcpy(at, text, FRAME);
    rh_outq_own_done(b->q, FRAME);
    return true;
}

/* Pushes what a text like "n1 h2 o3" says. */
static void push_all(struct bench *b, const char *what)
{
    for (const char *at = what; *at; at++) {
        unsigned number;

        if (sscanf(at + 1, "%u", &number) != 1)
            RH_FAIL("bad list");
        RH_OK_IF(*at == 'o' ? push_own(b, number) : push(b, *at, number));
        at += strcspn(at, " ");
        if (!*at)
            return;
    }
}

static unsigned fill(struct bench *b, unsigned max)
{
    unsigned count = rh_outq_fill(b->q, b->iov, max);

    for (unsigned i = 0; i < count; i++) {
        memcpy(b->text + b->len, b->iov[i].iov_base, b->iov[i].iov_len);
        b->len += b->iov[i].iov_len;
    }
    b->text[b->len] = '\0';
    return count;
}

static void count_sent(void *arg, const struct rh_msg *msg)
{
    struct bench *b = arg;

    RH_EQ_INT(msg->frame_len, FRAME); /* it is still there */
    b->sent++;
}

static void done(struct bench *b)
{
    rh_outq_done(&b->stock, b->q, count_sent, b);
}

static void send_all(struct bench *b)
{
    while (fill(b, MAX))
        done(b);
}

/* ---- order ---- */

RH_TEST(outq, sends_in_the_order_in_which_it_was_given)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1 o2 o3 n4 n5 o6");
    RH_EQ_INT(b.q->messages, 6);
    RH_EQ_INT(b.q->bytes, 6 * FRAME);
    RH_EQ_INT(fill(&b, MAX), 5); /* two own frames share a block */
    RH_EQ_STR(b.text, "n001o002o003n004n005o006");
    RH_EQ_INT(b.q->flying_bytes, 6 * FRAME);
    done(&b);
    RH_EQ_INT(b.sent, 3);
    RH_EQ_INT(b.q->messages, 0);
    RH_EQ_INT(b.q->bytes, 0);
    RH_EQ_INT(fill(&b, MAX), 0);
    end(&b);
}

RH_TEST(outq, high_messages_overtake_what_waits)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1 o2 h3 n4 h5");
    send_all(&b);
    RH_EQ_STR(b.text, "h003h005n001o002n004");
    end(&b);
}

RH_TEST(outq, nothing_overtakes_or_joins_what_is_on_its_way)
{
    struct bench b;
    struct iovec before[4];

    begin(&b);
    push_all(&b, "n1 o2");
    RH_EQ_INT(fill(&b, MAX), 2);
    memcpy(before, b.iov, sizeof(before));
    push_all(&b, "h3 o4 n5");
    RH_EQ_INT(b.q->flying_bytes, 2 * FRAME);
    RH_EQ_MEM(before[0].iov_base, "n001", FRAME);
    RH_EQ_MEM(before[1].iov_base, "o002", FRAME);
    done(&b);
    RH_EQ_INT(b.sent, 1);
    RH_EQ_INT(b.q->messages, 3);
    send_all(&b);
    RH_EQ_STR(b.text, "n001o002h003o004n005");
    end(&b);
}

RH_TEST(outq, own_frames_join_an_open_block_again_behind_a_flying_one)
{
    struct bench b;

    begin(&b);
    push_all(&b, "o1");
    RH_EQ_INT(fill(&b, MAX), 1);
    push_all(&b, "o2 o3");
    done(&b);
    push_all(&b, "o4");
    RH_EQ_INT(fill(&b, MAX), 1); /* one block */
    done(&b);
    RH_EQ_STR(b.text, "o001o002o003o004");
    end(&b);
}

RH_TEST(outq, high_ones_beyond_the_lane_wait_behind_in_the_normal_one)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n0");
    for (unsigned i = 1; i <= RH_LANE_HIGH_MAX + 2; i++)
        RH_OK_IF(push(&b, 'h', i));
    RH_EQ_INT(b.q->high.count, RH_LANE_HIGH_MAX);
    RH_EQ_INT(b.q->high_in_normal, 2);
    RH_EQ_INT(fill(&b, RH_LANE_HIGH_MAX), RH_LANE_HIGH_MAX);
    done(&b);
    RH_EQ_INT(b.q->high.count, 0);
    push_all(&b, "h99 n100"); /* the lane has room, but two of its kind wait in the other one */
    RH_EQ_INT(b.q->high.count, 0);
    b.len = 0;
    send_all(&b);
    RH_EQ_STR(b.text, "n000h065h066h099n100");
    push_all(&b, "n1 h2"); /* now it is open again */
    b.len = 0;
    send_all(&b);
    RH_EQ_STR(b.text, "h002n001");
    end(&b);
}

/* Goal    whatever is pushed and sent in whatever pieces: no frame is lost, doubled or changed, high
 *         ones keep their order, and all others theirs.
 * Method  random pushes and sends against two counters per kind. */
RH_TEST(outq, order_holds_within_each_lane_whatever_happens)
{
    struct bench b;
    unsigned pushed[3] = {0}, seen[3] = {0}; /* h; n and o share an order */
    static const char kinds[] = "hno";
    char others[1 << 14];
    size_t others_pushed = 0, others_seen = 0;

    begin(&b);
    for (unsigned step = 0; step < 40000; step++) {
        unsigned kind = (unsigned)(rh_test_rand() % 3);

        if (rh_test_rand() % 100 < 70 && b.q->messages < 900) {
            RH_OK_IF(kind == 2 ? push_own(&b, pushed[2]) : push(&b, kinds[kind], pushed[kind]));
            pushed[kind]++;
            if (kind)
                others[others_pushed++ % sizeof(others)] = kinds[kind];
            continue;
        }
        b.len = 0;
        fill(&b, 1 + (unsigned)(rh_test_rand() % (rh_test_rand() % 10 ? 100 : MAX)));
        for (size_t i = 0; i < b.len; i += FRAME) {
            unsigned which = (unsigned)(strchr(kinds, b.text[i]) - kinds);
            char expected[16];

            snprintf(expected, sizeof(expected), "%c%03u", kinds[which], seen[which]++ % 1000);
            RH_EQ_MEM(b.text + i, expected, FRAME);
            if (which)
                RH_EQ_INT(others[others_seen++ % sizeof(others)], kinds[which]);
        }
        if (b.len)
            done(&b);
        RH_EQ_U64(b.stock.messages, b.q->messages);
        RH_EQ_U64(b.stock.bytes, b.q->bytes);
    }
    b.len = 0;
    send_all(&b);
    for (size_t i = 0; i < b.len; i += FRAME)
        seen[strchr(kinds, b.text[i]) - kinds]++;
    for (unsigned i = 0; i < 3; i++)
        RH_EQ_INT(seen[i], pushed[i]);
    RH_EQ_INT(b.sent, pushed[0] + pushed[1]);
    end(&b);
}

/* ---- sizes ---- */

RH_TEST(outq, more_entries_than_a_send_may_have_leave_in_several)
{
    struct bench b;
    unsigned sends = 0;

    begin(&b);
    for (unsigned i = 0; i < 2 * MAX + 5; i++)
        RH_OK_IF(push(&b, 'n', i));
    for (unsigned count; (count = fill(&b, MAX)); sends++) {
        RH_EQ_INT(count, sends < 2 ? MAX : 5);
        done(&b);
    }
    RH_EQ_INT(sends, 3);
    RH_EQ_INT(b.sent, 2 * MAX + 5);
    for (unsigned i = 0; i < 2 * MAX + 5; i++) {
        char expected[16];

        snprintf(expected, sizeof(expected), "n%03u", i % 1000);
        RH_EQ_MEM(b.text + (size_t)i * FRAME, expected, FRAME);
    }
    end(&b);
}

RH_TEST(outq, an_own_frame_may_be_larger_than_a_standard_block)
{
    struct bench b;
    uint8_t *at;

    begin(&b);
    push_all(&b, "o1");
    at = rh_outq_own(&b.stock, b.q, 3 * RH_BLOCK_ROOM);
    RH_OK_IF(at);
    memset(at, 'x', 3 * RH_BLOCK_ROOM);
    rh_outq_own_done(b.q, 3 * RH_BLOCK_ROOM);
    push_all(&b, "o2");
    RH_EQ_INT(b.q->messages, 3);
    send_all(&b);
    RH_EQ_U64(b.len, 3 * RH_BLOCK_ROOM + 2 * FRAME);
    RH_EQ_MEM(b.text, "o001x", 5);
    RH_EQ_STR(b.text + b.len - 5, "xo002");
    end(&b);
}

RH_TEST(outq, own_frames_open_a_new_block_when_the_last_one_is_full)
{
    struct bench b;
    unsigned frames = 3 * RH_BLOCK_ROOM / FRAME;

    begin(&b);
    for (unsigned i = 0; i < frames; i++)
        RH_OK_IF(push_own(&b, i));
    RH_EQ_INT(b.q->messages, frames);
    RH_OK_IF(fill(&b, MAX) >= 3);
    done(&b);
    RH_EQ_U64(b.len, (size_t)frames * FRAME);
    for (unsigned i = 0; i < frames; i++) {
        char expected[16];

        snprintf(expected, sizeof(expected), "o%03u", i % 1000);
        RH_EQ_MEM(b.text + (size_t)i * FRAME, expected, FRAME);
    }
    end(&b);
}

RH_TEST(outq, a_whole_block_is_one_frame_and_its_eaten_front_stays_behind)
{
    struct bench b;
    struct rh_block *block;

    begin(&b);
    block = rh_block_take(&b.stock.blocks, 100);
    memcpy(block->bytes, "eaten: block", 12);
    block->start = 7;
    block->used = 12;
    push_all(&b, "n1");
    RH_OK_IF(rh_outq_push_block(b.q, block));
    push_all(&b, "n2");
    RH_EQ_INT(b.q->messages, 3);
    RH_EQ_INT(b.q->bytes, 2 * FRAME + 5);
    send_all(&b);
    RH_EQ_STR(b.text, "n001blockn002");
    end(&b);
}

/* ---- letting go ---- */

RH_TEST(outq, dropping_messages_leaves_own_frames_and_what_flies)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1 h2 o3");
    fill(&b, MAX);
    push_all(&b, "n4 o5 h6 n7 o8");
    RH_EQ_INT(rh_outq_drop_messages(&b.stock, b.q), 3);
    RH_EQ_INT(b.q->messages, 3 + 2);
    RH_EQ_INT(b.q->bytes, 5 * FRAME);
    done(&b);
    send_all(&b);
    RH_EQ_STR(b.text, "h002n001o003o005o008");
    RH_EQ_INT(b.sent, 2);
    end(&b);
}

RH_TEST(outq, dropping_opens_the_high_lane_again)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n0");
    for (unsigned i = 1; i <= RH_LANE_HIGH_MAX + 2; i++)
        RH_OK_IF(push(&b, 'h', i));
    RH_EQ_INT(rh_outq_drop_messages(&b.stock, b.q), RH_LANE_HIGH_MAX + 3);
    RH_EQ_INT(b.q->high_in_normal, 0);
    push_all(&b, "n1 h2");
    send_all(&b);
    RH_EQ_STR(b.text, "h002n001");
    end(&b);
}

RH_TEST(outq, giving_a_queue_back_lets_go_of_all_that_waits)
{
    struct bench b;

    begin(&b);
    for (unsigned i = 0; i < 200; i++)
        RH_OK_IF(push(&b, i % 3 ? 'n' : 'h', i) && (i % 5 || push_own(&b, i)));
    RH_OK_IF(b.stock.messages == 240);
    end(&b); /* ASan finds what stayed */
    rh_outq_give(&b.stock, NULL);
}

RH_TEST(outq, one_message_may_stand_in_many_queues)
{
    struct bench b;
    struct rh_outq *other;
    struct rh_handle *h;
    struct rh_msg *msg;

    begin(&b);
    other = rh_outq_take(&b.stock);
    h = make(&b, 'n', 1);
    msg = h->msg;
    rh_msg_hold_any(msg, 1); /* the test's */
    RH_OK_IF(rh_outq_push_msg(b.q, h) && rh_outq_push_msg(other, h) && rh_outq_push_msg(other, h));
    rh_handle_unref(&b.stock.handles, h);
    RH_EQ_U64(b.stock.messages, 3);
    send_all(&b);
    RH_EQ_INT(atomic_load(&msg->holders), 2);
    rh_outq_give(&b.stock, other);
    RH_EQ_INT(atomic_load(&msg->holders), 1);
    rh_msg_drop_any(msg);
    end(&b);
}

/* ---- failing memory ---- */

static void push_with_failures(void *arg)
{
    static struct bench b;
    char high[1 << 10] = "", normal[1 << 10] = "", expected[2 << 10];
    struct rh_block *block;
    unsigned frames = 0;

    (void)arg;
    memset(&b, 0, sizeof(b));
    b.q = rh_outq_take(&b.stock);
    if (!b.q) {
        rh_out_stock_fini(&b.stock);
        return;
    }
    for (unsigned i = 0; i < 60; i++) {
        char kind = "nho"[i % 3];
        bool pushed = kind == 'o' ? push_own(&b, i) : push(&b, kind, i);
        char *lane = kind == 'h' ? high : normal;

        if (pushed)
            snprintf(lane + strlen(lane), 8, "%c%03u", kind, i);
        frames += pushed;
        RH_EQ_INT(b.q->messages, frames);
    }
    block = rh_block_take(&b.stock.blocks, 10);
    if (block && !rh_outq_push_block(b.q, block))
        rh_block_give(&b.stock.blocks, block); /* still ours */
    snprintf(expected, sizeof(expected), "%s%s", high, normal);
    send_all(&b);
    RH_EQ_STR(b.text, expected);
    end(&b);
}

RH_TEST(outq, a_push_that_gets_no_memory_changes_nothing)
{
    rh_test_fail_each_alloc(push_with_failures, NULL);
}
