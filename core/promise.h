/* core/promise.h - what shards, ack thread and record thread all know of a promise.
 *
 * A message that is owed to a user has a state, which its owner (the receiver's shard) alone changes:
 *
 *              handed out               repeated
 *   [pending] -----------> [sending] -----------> [retrying] --repeated again--.
 *     ^  | ^                  |  |                   |  |  ^                   |
 *     |  | `--its device left-+--|-------------------'  |  `-------------------'
 *     |  |                       |                      |
 *     |  `-nobody is connected---+----------------------+----> [user_offline] --connects--> [sending]
 *     `--connects, behind others --------------------------------'
 *
 *   from each of these: acknowledged, or written --> [success]     time is over --> [expired]
 *                       refused, dropped         --> [failed]
 *   sending, retrying:  no repetition is left    --> [ack_timeout]
 *
 * The last four are ends: nothing follows. rh_state_may has the arrows.
 *
 * The gate tells shards whether promises can be made. The record thread writes it, anyone reads it
 * (relaxed: who slips through is answered store_failed by the record thread, and stays owed).
 *
 * Threads    all functions: any.
 */
#ifndef RH_PROMISE_H
#define RH_PROMISE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RH_STATES(X)                                                                               \
    X(pending, "waits behind others")                                                              \
    X(sending, "handed out, not answered yet")                                                     \
    X(retrying, "handed out again")                                                                \
    X(user_offline, "waits until the user connects")                                               \
    X(success, "acknowledged, or written where nobody asked for that")                             \
    X(failed, "given up; the reason says why")                                                     \
    X(ack_timeout, "repeated as often as configured, and never acknowledged")                      \
    X(expired, "its time is over")

enum rh_state {
#define RH_STATE(name, help) RH_STATE_##name,
    RH_STATES(RH_STATE)
#undef RH_STATE
        RH_STATE_COUNT
};

#define RH_REASONS(X)                                                                              \
    X(none)                                                                                        \
    X(queue_full)                                                                                  \
    X(user_offline)                                                                                \
    X(conn_error)                                                                                  \
    X(ack_timeout)                                                                                 \
    X(send_timeout)                                                                                \
    X(network_error)                                                                               \
    X(unknown)                                                                                     \
    X(max_retry)                                                                                   \
    X(expired)

enum rh_reason {
#define RH_REASON(name) RH_REASON_##name,
    RH_REASONS(RH_REASON)
#undef RH_REASON
        RH_REASON_COUNT
};

/* "ack_timeout"; "?" for what is none. */
const char *rh_state_name(unsigned state);
const char *rh_reason_name(unsigned reason);
/* Does an arrow lead from one to the other? */
bool rh_state_may(enum rh_state from, enum rh_state to);

static inline bool rh_state_is_end(unsigned state)
{
    return state >= RH_STATE_success;
}

/* Why no promise can be made now. */
enum rh_gate {
    RH_GATE_OPEN,
    RH_GATE_LOADING, /* the journal is being read: who comes is asked to come again */
    RH_GATE_FAILING, /* a commit failed, or has not finished for a second */
    RH_GATE_FULL,    /* store.backlog_bytes, or no room on the disk */
};

/* Shared by all threads of a hub. */
struct rh_promises {
    _Atomic uint32_t gate;      /* enum rh_gate; record thread writes, any reads */
    _Atomic uint64_t newest_ms; /* newest stored time; likewise, before LOADED */
    _Atomic uint32_t loaded;    /* shards that have been told LOADED; they count, hub.c waits */
    _Atomic uint64_t waiting; /* messages that wait for users, of all shards (offline.max_total) */
};

static inline enum rh_gate rh_gate_any(const struct rh_promises *p)
{
    return (enum rh_gate)atomic_load_explicit(&p->gate, memory_order_relaxed);
}

#endif
