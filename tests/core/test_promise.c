/* tests/core/test_promise.c - the states of what is owed, and the words for them. */
#include "core/promise.h"

#include "tests/rh_test.h"

/* The drawing in core/promise.h, once more: a row for where one is, a column for where one may go. */
/* clang-format off */
static const char *const arrows[RH_STATE_COUNT] = {
    /* to:                  p s r o  S F T E */
    [RH_STATE_pending]      = ". x . x  x x . x",
    [RH_STATE_sending]      = "x . x x  x x x x",
    [RH_STATE_retrying]     = "x . x x  x x x x",
    [RH_STATE_user_offline] = "x x . .  x x . x",
    [RH_STATE_success]      = ". . . .  . . . .",
    [RH_STATE_failed]       = ". . . .  . . . .",
    [RH_STATE_ack_timeout]  = ". . . .  . . . .",
    [RH_STATE_expired]      = ". . . .  . . . .",
};
/* clang-format on */

static bool drawn(unsigned from, unsigned to)
{
    const char *at = arrows[from];

    for (unsigned column = 0;; at++) {
        if (*at == ' ')
            continue;
        if (column++ == to)
            return *at == 'x';
    }
}

RH_TEST(promise, a_state_changes_along_the_drawn_arrows_only)
{
    for (unsigned from = 0; from < RH_STATE_COUNT; from++)
        for (unsigned to = 0; to < RH_STATE_COUNT; to++)
            if (rh_state_may((enum rh_state)from, (enum rh_state)to) != drawn(from, to))
                RH_FAIL("%s -> %s", rh_state_name(from), rh_state_name(to));
}

RH_TEST(promise, nothing_follows_an_end_and_everything_else_may_end)
{
    for (unsigned from = 0; from < RH_STATE_COUNT; from++) {
        unsigned out = 0;

        for (unsigned to = 0; to < RH_STATE_COUNT; to++)
            out += rh_state_may((enum rh_state)from, (enum rh_state)to);
        RH_OK_IF((out == 0) == rh_state_is_end(from));
        RH_OK_IF(rh_state_is_end(from) || rh_state_may((enum rh_state)from, RH_STATE_success));
        RH_OK_IF(rh_state_is_end(from) || rh_state_may((enum rh_state)from, RH_STATE_failed));
        RH_OK_IF(rh_state_is_end(from) || rh_state_may((enum rh_state)from, RH_STATE_expired));
    }
}

RH_TEST(promise, states_and_reasons_are_called_as_the_protocol_does)
{
    static const char *const states[] = {"pending", "sending", "retrying",    "user_offline",
                                         "success", "failed",  "ack_timeout", "expired"};
    static const char *const reasons[] = {
        "none",         "queue_full",    "user_offline", "conn_error", "ack_timeout",
        "send_timeout", "network_error", "unknown",      "max_retry",  "expired"};

    for (unsigned i = 0; i < RH_STATE_COUNT; i++)
        RH_EQ_STR(rh_state_name(i), states[i]);
    for (unsigned i = 0; i < RH_REASON_COUNT; i++)
        RH_EQ_STR(rh_reason_name(i), reasons[i]);
    RH_EQ_STR(rh_state_name(RH_STATE_COUNT), "?");
    RH_EQ_STR(rh_reason_name(RH_REASON_COUNT), "?");
}

RH_TEST(promise, a_gate_that_nobody_touched_is_open)
{
    static struct rh_promises promises;

    RH_EQ_INT(rh_gate_any(&promises), RH_GATE_OPEN);
    atomic_store(&promises.gate, RH_GATE_FULL);
    RH_EQ_INT(rh_gate_any(&promises), RH_GATE_FULL);
}
