/* Messages and handles: the last holder frees, whoever that is; the number has its sixteen digits. */
#include "core/msg.h"

#include <pthread.h>

#include "core/mem.h"
#include "tests/rh_test.h"

#define TEXT     "{\"seq\":0000000000000000}"
#define TEXT_SEQ 7 /* where its digits begin */

/* A message with the frame TEXT. */
static struct rh_msg *make(void)
{
    struct rh_msg *msg = rh_msg_create(sizeof(TEXT));

    RH_OK_IF(msg);
    memcpy(msg->bytes + msg->frame_at, TEXT, sizeof(TEXT));
    msg->frame_len = sizeof(TEXT) - 1;
    msg->seq_at = msg->frame_at + TEXT_SEQ;
    return msg;
}

RH_TEST(msg, a_new_one_has_one_holder_and_room_for_a_header)
{
    struct rh_msg *msg = rh_msg_create(1000);

    RH_EQ_INT(atomic_load(&msg->holders), 1);
    RH_EQ_INT(msg->frame_at, RH_MSG_HEAD_ROOM);
    RH_EQ_INT(msg->frame_len, 0);
    RH_EQ_INT(msg->seq_at, 0);
    RH_EQ_INT(msg->to_len, 0);
    RH_OK_IF(!msg->high);
    memset(msg->bytes, 0xff, RH_MSG_HEAD_ROOM + 1000); /* ASan looks */
    rh_msg_drop_any(msg);
    rh_msg_drop_any(NULL);
}

RH_TEST(msg, without_memory_there_is_none)
{
    rh_mem_fail_nth(1);
    ck_assert_ptr_null(rh_msg_create(100));
    rh_mem_fail_nth(0);
}

RH_TEST(msg, every_number_fills_exactly_its_sixteen_digits)
{
    static const struct {
        uint64_t seq;
        const char *text;
    } rows[] = {
        {RH_MSG_SEQ_MIN, "{\"seq\":1000000000000000}"},
        {RH_MSG_SEQ_MIN + 1, "{\"seq\":1000000000000001}"},
        {1790000000123456, "{\"seq\":1790000000123456}"},
        {9007199254740990, "{\"seq\":9007199254740990}"},
        {RH_MSG_SEQ_MAX, "{\"seq\":9007199254740991}"},
    };
    struct rh_msg *msg = make();

    for (size_t i = 0; i < RH_COUNT(rows); i++) {
        rh_msg_set_seq(msg, rows[i].seq);
        RH_EQ_MEM(rh_msg_frame(msg), rows[i].text, sizeof(TEXT));
    }
    rh_msg_drop_any(msg);
}

RH_TEST(msg, lives_until_its_last_holder_drops_it)
{
    struct rh_msg *msg = make();

    rh_msg_hold_any(msg, 3);
    for (unsigned left = 4; left > 1; left--) {
        RH_EQ_INT(atomic_load(&msg->holders), left);
        rh_msg_drop_any(msg);
        RH_EQ_MEM(rh_msg_frame(msg), TEXT, sizeof(TEXT)); /* ASan looks */
    }
    rh_msg_drop_any(msg);
}

/* ---- holders on several threads ---- */

enum { THREADS = 4, ROUNDS = 2000 };

struct crowd {
    pthread_barrier_t begin, end;
    struct rh_msg *msg;
    _Atomic uint64_t wrong;
};

static void *hold_and_drop(void *arg)
{
    struct crowd *crowd = arg;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct rh_msg *msg;

        pthread_barrier_wait(&crowd->begin);
        msg = crowd->msg;
        if (memcmp(rh_msg_frame(msg), "{\"seq\":", TEXT_SEQ) != 0)
            atomic_fetch_add(&crowd->wrong, 1);
        if (round % 3 == 0) { /* hands it on to itself */
            rh_msg_hold_any(msg, 1);
            rh_msg_drop_any(msg);
        }
        rh_msg_drop_any(msg);
        pthread_barrier_wait(&crowd->end);
    }
    return NULL;
}

/* Goal    whichever thread drops last frees, once, after everybody has read.
 * Method  all threads drop at the same moment, many times; ASan and TSan are the judges. */
RH_TEST(msg, is_freed_once_whichever_thread_is_last)
{
    struct crowd crowd = {.wrong = 0};
    pthread_t threads[THREADS];

    pthread_barrier_init(&crowd.begin, NULL, THREADS + 1);
    pthread_barrier_init(&crowd.end, NULL, THREADS + 1);
    for (unsigned i = 0; i < THREADS; i++)
        RH_EQ_INT(pthread_create(&threads[i], NULL, hold_and_drop, &crowd), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        crowd.msg = make();
        rh_msg_set_seq(crowd.msg, RH_MSG_SEQ_MIN + round);
        rh_msg_hold_any(crowd.msg, THREADS - 1); /* our own hold is one of theirs now */
        pthread_barrier_wait(&crowd.begin);
        pthread_barrier_wait(&crowd.end);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    RH_EQ_U64(atomic_load(&crowd.wrong), 0);
    pthread_barrier_destroy(&crowd.begin);
    pthread_barrier_destroy(&crowd.end);
}

/* ---- handles ---- */

RH_TEST(handle, its_last_use_drops_the_shards_hold)
{
    struct rh_handles stock = {0};
    struct rh_msg *msg = make();
    struct rh_handle *h;

    rh_msg_hold_any(msg, 1); /* the test looks at it */
    h = rh_handle_make(&stock, msg);
    RH_EQ_INT(h->uses, 1);
    rh_handle_ref(h);
    rh_handle_unref(&stock, h);
    RH_EQ_INT(atomic_load(&msg->holders), 2);
    rh_handle_unref(&stock, h);
    RH_EQ_INT(atomic_load(&msg->holders), 1);
    rh_msg_drop_any(msg);
    rh_handles_fini(&stock);
}

RH_TEST(handle, comes_out_of_the_stock_as_new)
{
    struct rh_handles stock = {0};
    struct rh_handle *first = rh_handle_make(&stock, make());
    struct rh_handle *second;
    struct rh_msg *msg = make();

    rh_handle_ref(first);
    rh_handle_unref(&stock, first);
    rh_handle_unref(&stock, first);
    second = rh_handle_make(&stock, msg);
    ck_assert_ptr_eq(second, first);
    ck_assert_ptr_eq(second->msg, msg);
    RH_EQ_INT(second->uses, 1);
    ck_assert_ptr_null(stock.free);
    rh_handle_unref(&stock, second);
    rh_handles_fini(&stock);
    ck_assert_ptr_null(stock.free);
}

RH_TEST(handle, without_memory_the_hold_stays_with_the_caller)
{
    struct rh_handles stock = {0};
    struct rh_msg *msg = make();

    rh_mem_fail_nth(1);
    ck_assert_ptr_null(rh_handle_make(&stock, msg));
    rh_mem_fail_nth(0);
    RH_EQ_INT(atomic_load(&msg->holders), 1);
    rh_msg_drop_any(msg);
}

/* ---- forms ---- */

RH_TEST(handle, its_plain_copy_goes_with_it_unless_somebody_uses_that)
{
    struct rh_handles stock = {0};
    struct rh_handle *h = rh_handle_make(&stock, make());
    struct rh_handle *plain = rh_handle_make(&stock, make());

    ck_assert_ptr_null(h->plain);
    h->plain = plain;
    rh_handle_ref(plain);
    rh_handle_unref(&stock, h);
    RH_EQ_INT(plain->uses, 1);
    h = rh_handle_make(&stock, make()); /* the same memory */
    ck_assert_ptr_null(h->plain);
    h->plain = plain;
    rh_handle_unref(&stock, h); /* ASan looks */
    rh_handles_fini(&stock);
}

RH_TEST(handle, its_forms_are_found_by_their_window_and_go_with_it)
{
    struct rh_handles stock = {0};
    struct rh_handle *h = rh_handle_make(&stock, make());
    struct rh_form *made;

    ck_assert_ptr_null(rh_handle_form(h, 12));
    made = rh_handle_add_form(h, 12, 5);
    memcpy(made->bytes, "small", 5);
    RH_EQ_INT(rh_handle_add_form(h, 9, 0)->len, 0);
    ck_assert_ptr_eq(rh_handle_form(h, 12), made);
    RH_EQ_INT(made->len, 5);
    RH_EQ_MEM(made->bytes, "small", 5);
    RH_EQ_INT(rh_handle_form(h, 9)->bits, 9);
    ck_assert_ptr_null(rh_handle_form(h, 15));
    rh_handle_ref(h);
    rh_handle_unref(&stock, h);
    ck_assert_ptr_eq(rh_handle_form(h, 12), made);
    rh_handle_unref(&stock, h);
    h = rh_handle_make(&stock, make()); /* the same, used again */
    ck_assert_ptr_null(rh_handle_form(h, 12));
    rh_mem_fail_nth(1);
    ck_assert_ptr_null(rh_handle_add_form(h, 12, 5));
    rh_mem_fail_nth(0);
    ck_assert_ptr_null(rh_handle_form(h, 12));
    rh_handle_unref(&stock, h);
    rh_handles_fini(&stock);
}
