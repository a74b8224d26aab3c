/* Send queues: what leaves, in which order, and that everything comes back.
 *
 * A message's frame is four bytes ("n007", "h012"), an own frame likewise ("o003"), so what a send
 * describes reads as a list of frames. */
#include "shard/outq.h"

#include <stdio.h>

#include "core/mem.h"
#include "core/uring.h"
#include "shard/shard_int.h"
#include "tests/rh_test.h"
#include "tests/shard/ledger.h"

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
    struct rh_msg *msg = rh_msg_create(32);
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

RH_TEST(outq, a_stock_gives_back_the_queues_that_a_burst_has_left)
{
    struct rh_out_stock stock = {0};
    struct rh_outq *taken[8];
    size_t freed;

    for (unsigned i = 0; i < RH_COUNT(taken); i++)
        taken[i] = rh_outq_take(&stock);
    for (unsigned i = 0; i < RH_COUNT(taken); i++)
        rh_outq_give(&stock, taken[i]);
    freed = rh_out_stock_trim(&stock);
    RH_EQ_U64(freed, 0); /* in use a moment ago */
    rh_outq_give(&stock, rh_outq_take(&stock));
    freed = rh_out_stock_trim(&stock);
    RH_EQ_U64(freed, 4 * sizeof(struct rh_outq));
    RH_EQ_INT(stock.kept, 4);
    freed = rh_out_stock_trim(&stock);
    RH_EQ_U64(freed, 2 * sizeof(struct rh_outq));
    rh_outq_give(&stock, rh_outq_take(&stock));
    rh_out_stock_fini(&stock);
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

/* ---- rooms ---- */

/* A message of a room, or what else `kind` says. */
static bool push_of(struct bench *b, char prio, unsigned number, enum rh_msg_kind kind,
                    uint64_t uid, const char *key)
{
    struct rh_handle *h = make(b, prio, number);
    bool pushed;

    if (!h)
        return false;
    h->msg->kind = (uint8_t)kind;
    h->msg->uid = uid;
    h->msg->seq = kind == RH_MSG_BROADCAST ? 0 : number;
    h->msg->to_at = h->msg->frame_at; /* the room's name: its first letter */
    h->msg->to_len = 1;
    h->msg->key_at = h->msg->frame_at + FRAME;
    h->msg->key_len = (uint32_t)strlen(key);
    memcpy(h->msg->bytes + h->msg->key_at, key, h->msg->key_len);
    pushed = rh_outq_push_msg(b->q, h);
    rh_handle_unref(&b->stock.handles, h);
    return pushed;
}

static bool push_room(struct bench *b, char prio, unsigned number, uint64_t uid)
{
    return push_of(b, prio, number, RH_MSG_ROOM, uid, "");
}

static bool push_missed(struct bench *b, unsigned number, uint64_t uid)
{
    struct rh_handle *h = make(b, 'h', number);
    bool pushed;

    if (!h)
        return false;
    h->msg->kind = RH_MSG_ROOM;
    h->msg->uid = uid;
    pushed = rh_outq_push_missed(b->q, h);
    rh_handle_unref(&b->stock.handles, h);
    return pushed;
}

static size_t encode(void *arg, const struct rh_lost *lost, uint8_t *dst)
{
    static const char kinds[] = "drb";

    return (size_t)snprintf((char *)dst, RH_LOST_FRAME, "(%c%u %u-%u %u%.*s)", kinds[lost->kind],
                            (unsigned)lost->uid, (unsigned)lost->from, (unsigned)lost->to,
                            (unsigned)lost->count, lost->name_len, lost->name);
}

/* What is to leave, in sends of `max` entries. */
static void expect_in(struct bench *b, unsigned max, const char *text)
{
    b->len = 0;
    b->text[0] = '\0';
    for (;;) {
        RH_OK_IF(rh_outq_tell(b->q, max, encode, b));
        if (fill(b, max) == 0)
            break;
        done(b);
    }
    RH_EQ_STR(b->text, text);
    RH_OK_IF(rh_outq_empty(b->q));
}

static void expect(struct bench *b, const char *text)
{
    expect_in(b, MAX, text);
}

RH_TEST(outq, a_room_message_never_overtakes_another_of_its_room)
{
    struct bench b;

    begin(&b);
    RH_OK_IF(push_room(&b, 'n', 1, 7) && push_room(&b, 'h', 2, 7) && push_room(&b, 'h', 3, 8) &&
             push_room(&b, 'h', 4, 7 + 256) && push_room(&b, 'n', 5, 8) &&
             push_room(&b, 'h', 6, 8));
    push_all(&b, "h7"); /* direct: what stayed behind was no matter of the lane's size */
    expect(&b, "h003h004h007n001h002n005h006");
    RH_OK_IF(push_room(&b, 'n', 1, 7));
    fill(&b, MAX);
    RH_OK_IF(push_room(&b, 'n', 2, 9) && push_room(&b, 'h', 3, 7)); /* what flies matters not */
    done(&b);
    expect(&b, "h003n002");
    end(&b);
}

RH_TEST(outq, notices_and_what_was_missed_never_overtake)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1");
    RH_OK_IF(push_of(&b, 'h', 2, RH_MSG_NOTICE, 7, "") && push_room(&b, 'h', 3, 7));
    RH_OK_IF(push_missed(&b, 4, 8) && push_room(&b, 'h', 5, 8) && push_room(&b, 'h', 6, 9));
    expect(&b, "h006n001h002h003h004h005");
    end(&b);
}

RH_TEST(outq, a_fence_holds_rooms_back_until_it_flies)
{
    struct bench b;

    begin(&b);
    rh_outq_fence(b.q); /* nothing to fence */
    push_all(&b, "n1");
    rh_outq_fence(b.q); /* not a frame of its own */
    push_all(&b, "o2");
    rh_outq_fence(b.q);
    rh_outq_fence(b.q);
    RH_EQ_INT(b.q->fences, 1);
    RH_OK_IF(push_room(&b, 'h', 3, 7));
    push_all(&b, "o4 h5");
    RH_EQ_INT(fill(&b, 2), 2); /* h5, n1 */
    RH_EQ_INT(b.q->fences, 1);
    done(&b);
    fill(&b, 1);
    RH_EQ_INT(b.q->fences, 0);
    RH_OK_IF(push_room(&b, 'h', 6, 8));
    done(&b);
    expect(&b, "h006h003o004");
    end(&b);
}

RH_TEST(outq, missed_messages_count_in_no_bound)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1");
    RH_OK_IF(push_missed(&b, 2, 8) && push_missed(&b, 3, 8));
    RH_EQ_INT(b.q->messages, 1);
    RH_EQ_INT(b.q->bytes, FRAME);
    RH_EQ_INT(b.q->missed, 2);
    RH_EQ_U64(b.stock.messages, 3);
    RH_EQ_U64(b.stock.bytes, 3 * FRAME);
    fill(&b, 2);
    RH_EQ_INT(rh_outq_done(&b.stock, b.q, count_sent, &b), 1);
    RH_EQ_INT(b.sent, 1);
    RH_EQ_INT(b.q->messages, 0);
    RH_OK_IF(!rh_outq_empty(b.q));
    RH_EQ_INT(fill(&b, 2), 1);
    RH_EQ_INT(rh_outq_done(&b.stock, b.q, count_sent, &b), 1);
    RH_OK_IF(rh_outq_empty(b.q));
    RH_OK_IF(push_missed(&b, 4, 8));
    end(&b);
}

/* ---- what is owed ---- */

static bool push_owed(struct bench *b, char prio, unsigned number)
{
    struct rh_handle *h = make(b, prio, number);
    bool pushed = h && rh_outq_push_owed(b->q, h);

    if (h)
        rh_handle_unref(&b->stock.handles, h);
    return pushed;
}

static void note_owed(void *arg, const struct rh_msg *msg)
{
    struct bench *b = arg;

    b->len += (size_t)snprintf(b->text + b->len, sizeof(b->text) - b->len, "%.4s",
                               (const char *)rh_msg_frame(msg));
}

static const char *owed_of(struct bench *b, bool flying)
{
    b->len = 0;
    b->text[0] = '\0';
    rh_outq_each_owed(b->q, flying, note_owed, b);
    return b->text;
}

RH_TEST(outq, owed_messages_leave_in_their_lanes_and_count_in_no_bound)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1");
    RH_OK_IF(push_owed(&b, 'n', 2) && push_owed(&b, 'h', 3));
    push_all(&b, "n4 h5");
    RH_EQ_INT(b.q->messages, 3);
    RH_EQ_INT(b.q->bytes, 3 * FRAME);
    RH_EQ_INT(b.q->owed, 2);
    RH_EQ_U64(b.stock.messages, 5);
    RH_EQ_U64(b.stock.bytes, 5 * FRAME);
    RH_EQ_STR(owed_of(&b, false), "h003n002");
    RH_EQ_STR(owed_of(&b, true), "");
    b.len = 0;
    fill(&b, 3);
    RH_EQ_STR(b.text, "h003h005n001");
    RH_EQ_STR(owed_of(&b, true), "h003");
    RH_EQ_STR(owed_of(&b, false), "n002");
    done(&b);
    RH_EQ_INT(b.sent, 2); /* of the owed ones it has been asked before */
    RH_EQ_INT(b.q->owed, 1);
    b.len = 0;
    send_all(&b);
    RH_EQ_STR(b.text, "n002n004");
    RH_EQ_INT(b.q->owed, 0);
    RH_OK_IF(push_owed(&b, 'n', 6));
    end(&b);
}

RH_TEST(outq, owed_messages_are_never_dropped_for_others)
{
    struct bench b;

    begin(&b);
    RH_OK_IF(push_owed(&b, 'n', 1));
    push_all(&b, "n2");
    RH_OK_IF(push_owed(&b, 'n', 3) && push_owed(&b, 'h', 4));
    RH_EQ_INT(rh_outq_drop_oldest(&b.stock, b.q), RH_OK);
    RH_EQ_INT(rh_outq_drop_oldest(&b.stock, b.q), RH_ENOTFOUND);
    expect(&b, "h004n001(d0 0-0 1)n003");
    push_all(&b, "n5 o6");
    RH_OK_IF(push_owed(&b, 'n', 7));
    fill(&b, 1);
    RH_EQ_INT(rh_outq_drop_messages(&b.stock, b.q),
              0); /* who owes it asks before; it is not lost */
    RH_EQ_INT(b.q->owed, 0);
    done(&b);
    expect(&b, "o006");
    end(&b);
}

RH_TEST(outq, high_owed_ones_beyond_the_lane_keep_their_order_with_the_others)
{
    struct bench b;
    char expected[(RH_LANE_HIGH_MAX + 3) * FRAME + 1];

    begin(&b);
    for (unsigned i = 0; i < RH_LANE_HIGH_MAX; i++) {
        RH_OK_IF(i % 2 ? push_owed(&b, 'h', i) : push(&b, 'h', i));
        snprintf(expected + i * FRAME, FRAME + 1, "h%03u", i);
    }
    push_all(&b, "n500");
    RH_OK_IF(push_owed(&b, 'h', 501)); /* the lane is full */
    RH_EQ_INT(b.q->high_in_normal, 1);
    fill(&b, RH_LANE_HIGH_MAX);
    RH_EQ_STR(b.text, expected);
    done(&b);
    push_all(&b, "h502"); /* it has room again, but one waits behind */
    RH_EQ_INT(b.q->high_in_normal, 2);
    b.len = 0;
    send_all(&b);
    RH_EQ_STR(b.text, "n500h501h502");
    RH_EQ_INT(b.q->high_in_normal, 0);
    end(&b);
}

/* ---- losses ---- */

static void drop(struct bench *b, unsigned times)
{
    while (times--)
        RH_EQ_INT(rh_outq_drop_oldest(&b->stock, b->q), RH_OK);
}

RH_TEST(outq, a_dropped_message_leaves_a_marker_in_its_place)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1 o2");
    RH_OK_IF(push_room(&b, 'n', 3, 7));
    push_all(&b, "n4 o5");
    drop(&b, 2);
    RH_EQ_INT(b.q->messages, 3);
    RH_EQ_INT(b.q->bytes, 3 * FRAME);
    RH_EQ_INT(b.q->lost, 2);
    expect(&b, "(d0 0-0 1)o002(r7 3-3 1n)n004o005");
    end(&b);
}

RH_TEST(outq, neighbouring_losses_of_a_stream_are_told_as_one)
{
    struct bench b;

    begin(&b);
    for (unsigned i = 1; i <= 30; i++)
        RH_OK_IF(push_room(&b, 'n', i, i % 3 == 0 ? 8 : 7));
    RH_OK_IF(push_of(&b, 'n', 31, RH_MSG_BROADCAST, 0, ""));
    RH_OK_IF(push_of(&b, 'n', 32, RH_MSG_BROADCAST, 0, ""));
    drop(&b, 30);
    RH_EQ_INT(b.q->lost, 2);
    drop(&b, 1);
    expect(&b, "(r7 1-29 20n)(r8 3-30 10n)(b0 0-0 1)n032");
    end(&b);
}

RH_TEST(outq, what_stands_between_two_losses_keeps_them_apart_until_it_goes)
{
    struct bench b;

    begin(&b);
    for (unsigned i = 1; i <= 5; i++)
        RH_OK_IF(push_of(&b, 'n', i, RH_MSG_ROOM, 7, i == 2 || i == 4 ? "\"a\"" : "\"b\""));
    RH_OK_IF(push_of(&b, 'n', 6, RH_MSG_ROOM, 8, "\"b\""));
    drop(&b, 1);
    {
        struct rh_handle *h = make(&b, 'n', 9);

        h->msg->kind = RH_MSG_ROOM;
        h->msg->uid = 7;
        h->msg->key_at = h->msg->frame_at;
        h->msg->key_len = 3;
        memcpy(h->msg->bytes + h->msg->key_at, "\"b\"", 3);
        RH_EQ_INT(rh_outq_replace(&b.stock, b.q, h->msg), 2);
        RH_EQ_INT(b.q->lost, 3);
        RH_EQ_INT(rh_outq_replace(&b.stock, b.q, h->msg), 0);
        memcpy(h->msg->bytes + h->msg->key_at, "\"a\"", 3);
        RH_EQ_INT(rh_outq_replace(&b.stock, b.q, h->msg), 2);
        RH_EQ_INT(b.q->lost, 1);
        rh_handle_unref(&b.stock.handles, h);
    }
    expect(&b, "(r7 1-5 5n)n006");
    end(&b);
}

RH_TEST(outq, only_what_may_be_lost_and_waits_is_dropped)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1 h2");
    fill(&b, MAX);
    push_all(&b, "o3");
    RH_OK_IF(push_of(&b, 'n', 4, RH_MSG_NOTICE, 7, "") && push_missed(&b, 5, 7));
    RH_EQ_INT(rh_outq_drop_oldest(&b.stock, b.q), RH_ENOTFOUND);
    push_all(&b, "h6");
    RH_OK_IF(push_room(&b, 'n', 7, 9));
    drop(&b, 2); /* the normal lane first */
    RH_EQ_INT(rh_outq_drop_oldest(&b.stock, b.q), RH_ENOTFOUND);
    RH_EQ_INT(b.sent, 0);
    done(&b);
    expect(&b, "(d0 0-0 1)o003n004h005(r9 7-7 1n)");
    end(&b);
}

RH_TEST(outq, it_is_the_oldest_that_is_dropped_after_a_send_as_before)
{
    struct bench b;

    begin(&b);
    for (unsigned i = 1; i <= 6; i++)
        RH_OK_IF(push_room(&b, 'n', i, 7));
    drop(&b, 4);
    RH_OK_IF(rh_outq_tell(b.q, 1, encode, &b));
    fill(&b, 1);
    done(&b); /* one entry and its holes have gone */
    drop(&b, 1);
    push_all(&b, "n7");
    expect(&b, "(r7 5-5 1n)n006n007");
    push_all(&b, "n1 n2 n3 n4");
    drop(&b, 2);
    RH_OK_IF(rh_outq_tell(b.q, 2, encode, &b));
    fill(&b, 2); /* the loss and n3 */
    push_all(&b, "n5");
    done(&b);
    drop(&b, 1);
    expect(&b, "(d0 0-0 1)n005");
    end(&b);
}

RH_TEST(outq, a_refused_message_is_told_where_it_would_have_come)
{
    struct bench b;
    struct rh_handle *h;

    begin(&b);
    push_all(&b, "n1");
    h = make(&b, 'h', 9);
    RH_EQ_INT(rh_outq_lose(b.q, h->msg), RH_OK);
    RH_EQ_INT(rh_outq_lose(b.q, h->msg), RH_OK);
    h->msg->high = false;
    RH_EQ_INT(rh_outq_lose(b.q, h->msg), RH_OK);
    rh_handle_unref(&b.stock.handles, h);
    push_all(&b, "h2 n3");
    expect(&b, "(d0 0-0 2)h002n001(d0 0-0 1)n003");
    end(&b);
}

RH_TEST(outq, a_marker_holds_its_room_back_and_no_other)
{
    struct bench b;

    begin(&b);
    RH_OK_IF(push_room(&b, 'n', 1, 7));
    drop(&b, 1);
    RH_OK_IF(push_room(&b, 'h', 2, 7) && push_room(&b, 'h', 3, 8));
    expect(&b, "h003(r7 1-1 1n)h002");
    end(&b);
}

RH_TEST(outq, a_queue_that_is_dropped_from_for_hours_does_not_grow)
{
    struct bench b;

    begin(&b);
    push_all(&b, "n1");
    fill(&b, MAX);
    for (unsigned i = 0; i < 200000; i++) {
        RH_OK_IF(push_room(&b, 'n', i % 1000, 5 + i % 7));
        if (i >= 20)
            drop(&b, 1);
    }
    RH_OK_IF(b.q->normal.room <= 128);
    RH_EQ_INT(b.q->lost, 7);
    done(&b);
    end(&b);
}

RH_TEST(outq, losses_are_told_at_the_pace_of_sends)
{
    struct bench b;

    begin(&b);
    for (unsigned i = 1; i <= 4; i++) {
        RH_OK_IF(push_room(&b, 'n', i, 7));
        push_all(&b, "o0");
    }
    drop(&b, 4);
    RH_OK_IF(rh_outq_tell(b.q, 3, encode, &b));
    RH_EQ_INT(b.q->lost, 2);
    expect_in(&b, 3, "(r7 1-1 1n)o000(r7 2-2 1n)o000(r7 3-3 1n)o000(r7 4-4 1n)o000");
    end(&b);
}

static void see_msg(void *arg, const struct rh_msg *msg)
{
    char *text = arg;

    snprintf(text + strlen(text), 64, "%.4s", (const char *)rh_msg_frame(msg));
}

static void see_lost(void *arg, const struct rh_lost *lost)
{
    char *text = arg;

    snprintf(text + strlen(text), 64, "(%u)", (unsigned)lost->from);
}

RH_TEST(outq, each_shows_messages_and_losses_in_the_order_in_which_they_leave)
{
    struct bench b;
    char text[256] = "";

    begin(&b);
    RH_OK_IF(push_room(&b, 'n', 1, 7) && push_room(&b, 'n', 2, 7));
    drop(&b, 1);
    push_all(&b, "h3 o4");
    RH_OK_IF(rh_outq_tell(b.q, MAX, encode, &b));
    fill(&b, MAX);
    RH_OK_IF(push_room(&b, 'n', 5, 7) && push_room(&b, 'h', 6, 8) && push_missed(&b, 7, 9));
    drop(&b, 1);
    rh_outq_each(b.q, true, see_msg, see_lost, text);
    RH_EQ_STR(text, "h003(1)n002h006(5)h007");
    done(&b);
    end(&b);
}

/* ---- everything at once ---- */

struct mess {
    struct bench b;
    struct ledger led;
    unsigned owns, owns_seen;           /* own frames, notices and missed ones share an order */
    unsigned room_missed[LEDGER_ROOMS]; /* the last missed one of the room */
    unsigned fenced;                    /* the last fenced one */
    uint32_t needs[LEDGER_STREAMS][LEDGER_MAX]; /* these have to leave before that message */
};

/* An own frame, a notice or a missed one: "o3:00000123;". */
static void mess_own(struct mess *m, unsigned what)
{
    char text[32];
    unsigned room = (unsigned)(rh_test_rand() % LEDGER_ROOMS);
    struct rh_msg *msg;
    struct rh_handle *h;

    snprintf(text, sizeof(text), "o%u:%08u;", what, ++m->owns);
    if (what == 0) {
        uint8_t *at = rh_outq_own(&m->b.stock, m->b.q, LEDGER_FRAME);

        memcpy(at, text, LEDGER_FRAME);
        rh_outq_own_done(m->b.q, LEDGER_FRAME);
        if (rh_test_rand() % 8 == 0) {
            rh_outq_fence(m->b.q);
            m->fenced = m->owns;
        }
        return;
    }
    msg = rh_msg_create(LEDGER_FRAME);
    msg->frame_len = LEDGER_FRAME;
    memcpy(msg->bytes + msg->frame_at, text, LEDGER_FRAME);
    msg->kind = what == 1 ? RH_MSG_NOTICE : RH_MSG_ROOM;
    msg->uid = ledger_uid(LEDGER_ROOM + room);
    msg->high = rh_test_rand() % 2;
    h = rh_handle_make(&m->b.stock.handles, msg);
    RH_OK_IF(what == 1 ? rh_outq_push_msg(m->b.q, h) : rh_outq_push_missed(m->b.q, h));
    rh_handle_unref(&m->b.stock.handles, h);
    m->room_missed[room] = m->owns;
}

static void mess_push(struct mess *m)
{
    unsigned stream = (unsigned)(rh_test_rand() % LEDGER_STREAMS);
    bool high = rh_test_rand() % 4 == 0;
    struct rh_msg *msg = ledger_make(&m->led, stream, high, (unsigned)(rh_test_rand() % 4));
    struct rh_handle *h = rh_handle_make(&m->b.stock.handles, msg);
    unsigned how = (unsigned)(rh_test_rand() % 10);

    if (stream >= LEDGER_ROOM)
        m->needs[stream][m->led.pushed[stream] + 1] =
            RH_MAX(m->fenced, m->room_missed[stream - LEDGER_ROOM]);
    if (how == 0)
        RH_EQ_INT(rh_outq_lose(m->b.q, msg), RH_OK);
    else if (how < 4 && msg->key_len)
        RH_OK_IF(rh_outq_replace(&m->b.stock, m->b.q, msg) >= 0 && rh_outq_push_msg(m->b.q, h));
    else
        RH_OK_IF(rh_outq_push_msg(m->b.q, h));
    ledger_pushed(&m->led, stream, high);
    rh_handle_unref(&m->b.stock.handles, h);
}

static void mess_push_lost(struct mess *m)
{
    unsigned stream = LEDGER_ROOM + (unsigned)(rh_test_rand() % LEDGER_ROOMS);
    unsigned count = 1 + (unsigned)(rh_test_rand() % 5);
    struct rh_lost lost = {.uid = ledger_uid(stream), .kind = RH_MSG_ROOM, .count = count};

    lost.from = m->led.pushed[stream] + 1;
    lost.to = m->led.pushed[stream] + count;
    RH_EQ_INT(rh_outq_push_lost(m->b.q, &lost), RH_OK);
    while (count--)
        ledger_pushed(&m->led, stream, false);
}

static size_t mess_encode(void *arg, const struct rh_lost *lost, uint8_t *dst)
{
    unsigned stream = lost->kind == RH_MSG_DIRECT      ? LEDGER_DIRECT
                      : lost->kind == RH_MSG_BROADCAST ? LEDGER_CAST
                                                       : (unsigned)(lost->uid >> 32);

    RH_OK_IF(lost->kind != RH_MSG_ROOM || lost->uid == ledger_uid(stream));
    return (size_t)snprintf((char *)dst, RH_LOST_FRAME, "L%u:%u-%u#%u;", stream,
                            (unsigned)lost->from, (unsigned)lost->to, (unsigned)lost->count);
}

static void mess_frame(struct mess *m, const char *at)
{
    unsigned stream, number, to, count;

    if (at[0] == 'o') {
        RH_OK_IF(sscanf(at, "o%1u:%8u;", &stream, &number) == 2);
        RH_EQ_INT(number, ++m->owns_seen);
    } else if (at[0] == 'L') {
        RH_OK_IF(sscanf(at, "L%u:%u-%u#%u;", &stream, &number, &to, &count) == 4);
        ledger_lost(&m->led, stream, number, to, count);
    } else {
        RH_OK_IF(sscanf(at + 1, "%1u:%8u;", &stream, &number) == 2);
        RH_OK_IF(m->needs[stream][number] <= m->owns_seen);
        ledger_arrived(&m->led, at);
    }
}

static void mess_sent(void *arg, const struct rh_msg *msg)
{
    RH_EQ_INT(msg->frame_len, LEDGER_FRAME);
}

static void mess_done(struct mess *m)
{
    rh_outq_done(&m->b.stock, m->b.q, mess_sent, m);
}

static void mess_send(struct mess *m)
{
    unsigned max = 1 + (unsigned)(rh_test_rand() % (rh_test_rand() % 4 ? 12 : MAX));

    RH_OK_IF(rh_outq_tell(m->b.q, max, mess_encode, m));
    m->b.len = 0;
    fill(&m->b, max);
    for (char *at = m->b.text; *at; at = strchr(at, ';') + 1)
        mess_frame(m, at);
}

struct sum {
    unsigned messages, lost;
};

static void sum_msg(void *arg, const struct rh_msg *msg)
{
    ((struct sum *)arg)->messages++;
}

static void sum_lost(void *arg, const struct rh_lost *lost)
{
    ((struct sum *)arg)->lost++;
}

/* What is counted is what is there. */
static void mess_check(struct mess *m)
{
    const struct rh_outq *q = m->b.q;
    struct sum sum = {0, 0};

    rh_outq_each(q, true, sum_msg, sum_lost, &sum);
    RH_OK_IF(sum.messages <= q->messages + q->missed && sum.lost >= q->lost);
    RH_OK_IF(m->b.stock.messages == (uint64_t)q->messages + q->missed);
    RH_OK_IF(m->b.stock.bytes == q->bytes + (uint64_t)q->missed * LEDGER_FRAME);
    RH_OK_IF(q->flying_messages <= q->messages);
    RH_OK_IF(rh_outq_flying(q) || (q->flying_messages == 0 && q->normal.flying == 0));
    RH_OK_IF(rh_outq_empty(q) == (q->messages + q->missed + q->lost == 0));
}

static void mess_step(struct mess *m)
{
    unsigned dice = (unsigned)(rh_test_rand() % 100);
    bool flying = rh_outq_flying(m->b.q);

    if (dice < 50)
        mess_push(m);
    else if (dice < 60)
        mess_own(m, (unsigned)(rh_test_rand() % 3));
    else if (dice < 62)
        mess_push_lost(m);
    else if (dice < 90)
        rh_outq_drop_oldest(&m->b.stock, m->b.q);
    else if (flying)
        mess_done(m);
    else
        mess_send(m);
}

/* Goal    whatever is pushed, dropped, replaced, refused and sent: each stream's messages and told
 *         losses together are what was pushed, in order, nothing twice; own frames, notices and
 *         missed ones all come, in order; no room's message overtakes a fence, or its room's.
 * Method  random steps against the ledger (tests/shard/ledger.h). */
RH_TEST(outq, what_arrives_and_what_is_told_as_lost_is_what_was_pushed)
{
    static struct mess m;

    memset(&m, 0, sizeof(m));
    begin(&m.b);
    for (unsigned step = 0; step < 60000; step++) {
        mess_step(&m);
        if (step % 16 == 0)
            mess_check(&m);
    }
    if (rh_outq_flying(m.b.q))
        mess_done(&m);
    while (!rh_outq_empty(m.b.q)) {
        mess_send(&m);
        mess_done(&m);
    }
    RH_EQ_INT(m.owns_seen, m.owns);
    ledger_check(&m.led);
    end(&m.b);
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

/* Drops and tells; what fails changes nothing, and what does not is exact. */
static void drop_with_failures(void *arg)
{
    static struct bench b;
    unsigned expected = 0;

    (void)arg;
    memset(&b, 0, sizeof(b));
    b.q = rh_outq_take(&b.stock);
    for (unsigned i = 0; b.q && i < 40; i++) {
        expected += push_room(&b, i % 5 ? 'n' : 'h', i, 1 + i % 4);
        if (i > 10)
            expected -= rh_outq_drop_oldest(&b.stock, b.q) == RH_OK;
        if (i % 6 == 0)
            expected += push_own(&b, i);
        if (i % 3 == 0)
            push_owed(&b, 'n', i);
        RH_EQ_INT(b.q->messages, expected);
    }
    if (b.q && rh_outq_tell(b.q, MAX, encode, &b)) {
        send_all(&b);
        RH_EQ_INT(b.q->lost, 0);
    }
    end(&b);
}

RH_TEST(outq, a_drop_that_gets_no_memory_drops_nothing)
{
    rh_test_fail_each_alloc(drop_with_failures, NULL);
}
