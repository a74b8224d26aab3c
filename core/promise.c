/* core/promise.c - names and arrows of a message's states; the drawing is in promise.h. */
#include "core/promise.h"

const char *rh_state_name(unsigned state)
{
    static const char *const names[] = {
#define RH_STATE(name, help) #name,
        RH_STATES(RH_STATE)
#undef RH_STATE
    };

    return state < RH_STATE_COUNT ? names[state] : "?";
}

const char *rh_reason_name(unsigned reason)
{
    static const char *const names[] = {
#define RH_REASON(name) #name,
        RH_REASONS(RH_REASON)
#undef RH_REASON
    };

    return reason < RH_REASON_COUNT ? names[reason] : "?";
}

#define TO(state) (1u << RH_STATE_##state)
#define ENDS      (TO(success) | TO(failed) | TO(expired))

bool rh_state_may(enum rh_state from, enum rh_state to)
{
    static const uint32_t arrows[RH_STATE_COUNT] = {
        [RH_STATE_pending] = ENDS | TO(sending) | TO(user_offline),
        [RH_STATE_sending] = ENDS | TO(retrying) | TO(pending) | TO(user_offline) | TO(ack_timeout),
        [RH_STATE_retrying] =
            ENDS | TO(retrying) | TO(pending) | TO(user_offline) | TO(ack_timeout),
        [RH_STATE_user_offline] = ENDS | TO(sending) | TO(pending),
    };

    return from < RH_STATE_COUNT && to < RH_STATE_COUNT && (arrows[from] >> to & 1);
}
