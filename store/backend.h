/* store/backend.h - what a store must do: the calls between the record thread and a back end.
 *
 * The journal is what makes a promise durable. A back end is what is known of all promises together:
 * which messages are owed, and which ids are remembered. The record thread tells it every event that
 * it puts into the journal, in that order; what the back end does with them, and when, is its own
 * business: store/memory.c keeps all of it in memory and has nothing but the journal to survive with,
 * one with a database writes rows behind the journal and is asked how far it is.
 *
 *     start      open, replay (what the journal has), load_next (what is owed and remembered, to be told
 *                to shards) until it says that this was all
 *     a pass     apply (each event that was put), step, stat
 *     journal    forward, before a segment is released
 *     end        close
 *
 * Nothing here waits: where an answer takes time (a page of rows, a segment that is not written yet)
 * the call says so, the back end calls `wake` when it is worth asking again, and the record thread does.
 *
 * Threads    the record thread's, all of it; what a back end does on threads of its own is not seen.
 * Ownership  a message that is owed belongs to the back end from its first OWED that is applied until
 *            the event that ends its last share has been applied (it is then the caller's); the record
 *            thread goes on changing its states, and tells of each change with an event.
 * Errors     what is applied cannot fail: it is durable already, or will be. What a back end cannot keep
 *            for want of memory is said at the call.
 */
#ifndef RH_BACKEND_H
#define RH_BACKEND_H

#include "store/kept.h"

struct rh_backend_opts {
    const struct rh_kept_names *names; /* copied */
    uint64_t now_ms;                   /* unix: ids whose time is over are not read */
    uint64_t ids_max;                  /* that are remembered; the oldest make room */
    void (*wake)(void *arg);           /* any thread */
    void *wake_arg;
};

/* One turn, once a pass. */
struct rh_backend_turn {
    uint64_t now_ms;  /* unix; ids whose time is over may be forgotten; 0: nothing is over now */
    uint64_t ids_max; /* as above */
    uint64_t durable; /* the last batch of the journal that is */
};

enum rh_backend_load {
    RH_LOAD_OWED,  /* *ret_kept */
    RH_LOAD_ID,    /* *ret_id, of kind ID; its spans are valid until the next call of anything */
    RH_LOAD_LATER, /* it takes time: `wake` */
    RH_LOAD_END,   /* that was all */
};

struct rh_backend_stat {
    uint64_t messages; /* owed to somebody */
    uint64_t bytes;    /* of memory that they take: the bound is store.backlog_bytes */
    uint64_t ids;
    uint64_t id_bytes;     /* of them, about as many in the journal */
    uint64_t oldest_bytes; /* of both, what is put again first when the next segment is forwarded */
};

/* Puts an event into the journal's open batch. False: not now (its share of the batch is used up, or
 * memory): it was not put. */
typedef bool (*rh_backend_put)(void *arg, const struct rh_jot *jot);

struct rh_backend; /* each has its own; begins with a pointer to these calls */

struct rh_backend_ops {
    const char *name;

    /* RH_ENOMEM, RH_EIO. */
    int (*open)(const struct rh_backend_opts *opts, struct rh_backend **ret_b,
                struct rh_fault *fault);
    /* Accepts NULL. What it has of messages goes with it; none has anything left to be told. */
    void (*close)(struct rh_backend *b);

    /* An event of the journal, in its order, before anything is loaded; one that it has already may
     * come again. RH_ENOMEM, RH_EINVAL (the event makes no sense). */
    int (*replay)(struct rh_backend *b, uint64_t segment, const struct rh_jot *jot);
    /* The next of what is there when all has been replayed: ids first, then messages in the order of
     * their numbers. Events may be applied meanwhile to those that came. */
    enum rh_backend_load (*load_next)(struct rh_backend *b, struct rh_kept **ret_kept,
                                      struct rh_jot *ret_id);

    /* An event that was put: it stands in `segment` or a later one. `kept`: its message (NULL for ID and
     * TIME), whose state is as the event leaves it. Without memory an id is not remembered. */
    void (*apply)(struct rh_backend *b, uint64_t segment, const struct rh_jot *jot,
                  struct rh_kept *kept);
    void (*step)(struct rh_backend *b, const struct rh_backend_turn *turn);

    /* Segments before `before` are to go. What is in them alone is put again, with `put`, into `segment`
     * or a later one. True: nothing in them is needed any more, as soon as what was put is durable.
     * False: ask again. Not while anything is loaded. */
    bool (*forward)(struct rh_backend *b, uint64_t before, uint64_t segment, rh_backend_put put,
                    void *arg);

    void (*stat)(const struct rh_backend *b, struct rh_backend_stat *ret_stat);
};

struct rh_backend {
    const struct rh_backend_ops *ops;
};

extern const struct rh_backend_ops rh_backend_memory; /* store/memory.c */

#endif
