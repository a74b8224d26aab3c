/* Blocks: what is appended is what is there, a stock that is used again, and memory that fails. */
#include "shard/block.h"

#include "core/mem.h"
#include "tests/rh_test.h"

/* Byte i of an endless text without a short period. */
static uint8_t text_at(uint64_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

static bool append_text(struct rh_blocks *stock, struct rh_block **block, uint64_t from, size_t len)
{
    uint8_t piece[8192];

    for (size_t i = 0; i < len; i++)
        piece[i] = text_at(from + i);
    return rh_block_append(stock, block, piece, len);
}

static void expect_text(struct rh_block *block, uint64_t from, size_t len)
{
    RH_EQ_U64(rh_block_len(block), len);
    for (size_t i = 0; i < len; i++)
        if (rh_block_at(block)[i] != text_at(from + i))
            RH_FAIL("byte %zu was changed", i);
}

RH_TEST(block, no_block_has_no_bytes)
{
    RH_EQ_INT(rh_block_len(NULL), 0);
}

RH_TEST(block, a_block_has_the_room_that_was_asked_for_to_the_last_byte)
{
    static const size_t rooms[] = {
        0, 1, 223, 224, 225, RH_BLOCK_ROOM - 1, RH_BLOCK_ROOM, RH_BLOCK_ROOM + 1, 100000};
    struct rh_blocks stock = {0};

    for (size_t i = 0; i < RH_COUNT(rooms); i++) {
        struct rh_block *block = rh_block_take(&stock, rooms[i]);

        RH_OK_IF(block && block->room >= rooms[i]);
        RH_EQ_INT(rh_block_len(block), 0);
        memset(block->bytes, 0xff, block->room); /* ASan looks */
        rh_block_give(&stock, block);
    }
    rh_blocks_fini(&stock);
}

RH_TEST(block, the_stock_hands_out_the_standard_block_that_came_back_last)
{
    struct rh_blocks stock = {0};
    struct rh_block *a = rh_block_take(&stock, RH_BLOCK_ROOM);
    struct rh_block *b = rh_block_take(&stock, 1000); /* as large as a standard one */

    RH_EQ_INT(b->room, RH_BLOCK_ROOM);
    a->used = a->start = 17; /* what a user leaves behind */
    rh_block_give(&stock, b);
    rh_block_give(&stock, a);
    RH_EQ_INT(stock.kept, 2);
    ck_assert_ptr_eq(rh_block_take(&stock, 500), a);
    RH_EQ_INT(rh_block_len(a), 0);
    RH_EQ_INT(a->start, 0);
    RH_EQ_INT(stock.kept, 1);
    rh_block_give(&stock, a);
    rh_block_give(&stock, NULL);
    rh_blocks_fini(&stock);
    RH_EQ_INT(stock.kept, 0);
}

RH_TEST(block, small_and_large_blocks_do_not_go_into_the_stock)
{
    struct rh_blocks stock = {0};

    rh_block_give(&stock, rh_block_take(&stock, 10));
    rh_block_give(&stock, rh_block_take(&stock, RH_BLOCK_ROOM + 1));
    RH_EQ_INT(stock.kept, 0);
    ck_assert_ptr_null(stock.free);
}

RH_TEST(block, the_stock_keeps_so_many_and_no_more)
{
    enum { TAKEN = RH_BLOCKS_KEPT + 3 };
    static struct rh_block *taken[TAKEN];
    struct rh_blocks stock = {0};

    for (unsigned i = 0; i < TAKEN; i++)
        taken[i] = rh_block_take(&stock, RH_BLOCK_ROOM);
    for (unsigned i = 0; i < TAKEN; i++)
        rh_block_give(&stock, taken[i]);
    RH_EQ_INT(stock.kept, RH_BLOCKS_KEPT);
    rh_blocks_fini(&stock);
    ck_assert_ptr_null(stock.free);
}

RH_TEST(block, appending_keeps_every_byte_in_order)
{
    for (unsigned round = 0; round < 50; round++) {
        struct rh_blocks stock = {0};
        struct rh_block *block = NULL;
        size_t len = 0;

        while (len < 60000) {
            size_t piece = rh_test_rand() % (round < 25 ? 50 : 8000);

            RH_OK_IF(append_text(&stock, &block, len, piece));
            len += piece;
        }
        expect_text(block, 0, len);
        rh_block_give(&stock, block);
        rh_blocks_fini(&stock);
    }
}

RH_TEST(block, a_growing_block_at_least_doubles)
{
    struct rh_blocks stock = {0};
    struct rh_block *block = NULL;
    unsigned grown = 0;
    uint32_t room = 0;

    for (size_t len = 0; len < 1000000; len += 100) {
        RH_OK_IF(append_text(&stock, &block, len, 100));
        if (block->room == room)
            continue;
        RH_OK_IF(block->room >= 2 * (uint64_t)room);
        room = block->room;
        grown++;
    }
    RH_OK_IF(grown < 20);
    rh_block_give(&stock, block);
    rh_blocks_fini(&stock);
}

/* Goal    a connection's unread bytes cost what they are, not what was ever received.
 * Method  a reader that always leaves some bytes in front of the next arrival. */
RH_TEST(block, what_was_eaten_in_front_makes_room_for_what_comes_behind)
{
    struct rh_blocks stock = {0};
    struct rh_block *block = NULL;
    uint64_t came = 0, eaten = 0;

    for (unsigned i = 0; i < 5000; i++) {
        size_t piece = 1 + rh_test_rand() % 1888;

        RH_OK_IF(append_text(&stock, &block, came, piece));
        came += piece;
        expect_text(block, eaten, (size_t)(came - eaten));
        piece = (size_t)(came - eaten) - rh_test_rand() % 100 % (came - eaten);
        piece -= piece == came - eaten; /* one byte stays */
        block->start += (uint32_t)piece;
        eaten += piece;
        RH_OK_IF(block->room <= 4 * RH_BLOCK_ROOM);
    }
    rh_block_give(&stock, block);
    rh_blocks_fini(&stock);
}

static void append_with_failures(void *arg)
{
    struct rh_blocks stock = {0};
    struct rh_block *block = NULL;
    size_t len = 0;

    (void)arg;
    for (unsigned i = 0; i < 40; i++) {
        if (append_text(&stock, &block, len, 777))
            len += 777;
        if (len)
            expect_text(block, 0, len); /* also what failed changed nothing */
    }
    rh_block_give(&stock, block);
    rh_blocks_fini(&stock);
}

RH_TEST(block, an_append_that_gets_no_memory_changes_nothing)
{
    rh_test_fail_each_alloc(append_with_failures, NULL);
}

/* What is needed again within a second stays; of the rest a half goes each time. */
RH_TEST(block, a_stock_gives_back_what_a_burst_has_left)
{
    enum { MANY = 100, FEW = 10 };
    struct rh_blocks stock = {0};
    struct rh_block *taken[MANY];
    uint32_t rounds = 0;

    for (unsigned i = 0; i < MANY; i++)
        taken[i] = rh_block_take(&stock, RH_BLOCK_ROOM);
    RH_OK_IF(!rh_blocks_trim(&stock));
    for (unsigned i = 0; i < MANY; i++)
        rh_block_give(&stock, taken[i]);
    RH_EQ_INT(stock.kept, MANY);
    RH_OK_IF(!rh_blocks_trim(&stock)); /* all of them were in use a moment ago */
    do {
        for (unsigned i = 0; i < FEW; i++)
            taken[i] = rh_block_take(&stock, RH_BLOCK_ROOM);
        for (unsigned i = 0; i < FEW; i++)
            rh_block_give(&stock, taken[i]);
        rounds++;
    } while (rh_blocks_trim(&stock));
    RH_EQ_INT(stock.kept, FEW);
    RH_OK_IF(rounds > 5 && rounds < 10);
    while (rh_blocks_trim(&stock))
        ;
    RH_EQ_INT(stock.kept, 0);
    ck_assert_ptr_null(stock.free);
    rh_blocks_fini(&stock);
}

RH_TEST(block, taking_without_memory_is_null)
{
    struct rh_blocks stock = {0};

    for (size_t room = 100; room < 10000; room *= 3) {
        rh_mem_fail_nth(1);
        ck_assert_ptr_null(rh_block_take(&stock, room));
        rh_mem_fail_nth(0);
    }
}
