/* core/msg.h - an immutable, counted message, and the handle through which one shard uses it.
 *
 * A message is one block of memory: the WebSocket frame as every receiver gets it, and behind it
 * the name of whom it is for. Whoever makes it fills it, then hands it on; from the moment a second
 * thread can see it nothing in it changes. The exception is written into the type: a sequence
 * number is given by the shard that owns it, the only holder at that moment. A direct message's goes
 * into sixteen digits that the sender's shard left for it (rh_msg_set_seq). A room's begins at 1,
 * so its length is not known before: the number is the first member of the data, and the room's home
 * writes what stands before it backwards from there (shard/publish.c), so that nothing is moved.
 *
 *     | free | frame header | {"type":"notify",...,"data":{"seq": | 123 | ,"room":"x",...}} | names
 *            ^ frame_at                           data_at ^               ^ seq_at  (a room's)
 *
 * A shard may also keep the frame in other forms (deflated), made for the first receiver that needs
 * one and used for all that follow; they hang on its handle.
 *
 * Ownership  `holders` counts threads, not receivers: one for each shard that has it. A shard makes
 *            a handle for its own queues; the last use of the handle drops the shard's hold, and
 *            the last hold frees the message, on whatever thread that is.
 * Threads    msg: hold and drop any; the rest the only holder. handle: its shard.
 * Limits     RH_MSG_BYTES_MAX of frame.
 */
#ifndef RH_MSG_H
#define RH_MSG_H

#include "core/base.h"

#define RH_MSG_HEAD_ROOM  10 /* the longest header of an unmasked frame */
#define RH_MSG_SEQ_DIGITS 16
#define RH_MSG_SEQ_MIN    1000000000000000u /* the least number of sixteen digits */
#define RH_MSG_SEQ_MAX    ((1ull << 53) - 1)

/* Whose stream of messages it belongs to: what a loss is told as. */
enum rh_msg_kind {
    RH_MSG_DIRECT,
    RH_MSG_ROOM,
    RH_MSG_BROADCAST,
    RH_MSG_NOTICE, /* joined, left, deleted: has no number, and is never dropped */
};

/* One user who is owed a room's message. */
struct rh_share {
    uint64_t hash;    /* of the name */
    uint32_t name_at; /* in rh_shares.bytes */
    uint8_t name_len;
    uint8_t shard; /* the user's */
    bool live;     /* it has a connection, as far as the home knows: attempt 1 may be out */
};

/* Whom a room's message is owed to: the home's list of members when it got its number, less the
 * publisher's user; sorted by shard. Part of the message: freed with it, never changed. */
struct rh_shares {
    uint32_t count;
    uint32_t len;         /* of all names */
    struct rh_share at[]; /* then the names */
};

static inline const char *rh_share_name(const struct rh_shares *s, uint32_t i)
{
    return (const char *)&s->at[s->count] + s->at[i].name_at;
}

struct rh_msg {
    _Atomic uint32_t
        holders;       /* relaxed up; acquire-release down, so the last one sees all writes */
    uint32_t frame_at; /* offsets into bytes: the frame with its header ... */
    uint32_t frame_len;
    uint32_t
        seq_at;     /* ... DIRECT: the first digit of its seq; ROOM: the byte behind the last ... */
    uint32_t to_at; /* ... the name of the user or room that it is for ... */
    uint32_t key_at;  /* ... ROOM: its key, as raw JSON text; key_len 0: none; BROADCAST: whom it is
                       * for (shard/broadcast.c), likewise ... */
    uint32_t from_at; /* ... and the user who gets no copy, if `excludes` */
    uint32_t data_at; /* ROOM: the value of `data`, up to the frame's end less one byte */
    uint32_t key_len;
    uint8_t to_len;
    uint8_t from_len;
    uint8_t kind;  /* enum rh_msg_kind */
    bool high;     /* priority high or above: overtakes what is queued */
    bool excludes; /* the user at from_at gets none */
    /* What promises need (shard/owed.c, store/): id and sender always stand behind the text. */
    bool ack;            /* asks for an acknowledgement */
    bool given;          /* the id is the sender's choice */
    bool apart;          /* ROOM: is sent outside of its room's order */
    bool from_user;      /* the sender is a user: gets message.status */
    uint8_t id_len;      /* of the id at id_at ... */
    uint8_t attempt_len; /* ... of the number at attempt_at: 1 in what is not a repetition */
    uint32_t id_at;
    uint32_t attempt_at;
    uint32_t ack_at;          /* `true` or `false` */
    uint64_t id_hash;         /* by the shard that owes it, and a room's home; 0: not yet */
    uint64_t created_ms;      /* unix */
    uint64_t expires_ms;      /* unix */
    struct rh_shares *shares; /* ROOM with ack: moves in; or NULL */
    void *entry; /* the record thread's own, which alone reads and writes it; NULL at first */
    uint64_t to_hash;
    uint64_t from_hash;
    uint64_t uid;         /* ROOM, NOTICE: the room's, one life of it; given by its home */
    uint64_t seq;         /* as given; 0: none */
    uint64_t accepted_ns; /* monotonic time at which a shard took it in */
    uint8_t bytes[];
};

/* A message with room for `room` bytes behind the header's room; one holder. NULL: no memory. */
struct rh_msg *rh_msg_create(size_t room);
/* Gives back what lies behind the first `used` of its bytes, for one that may be kept for long; only
 * while nobody else holds it. Returns it, maybe at another place. */
struct rh_msg *rh_msg_fit(struct rh_msg *take_msg, size_t used);
void rh_msg_hold_any(struct rh_msg *msg, uint32_t more);
void rh_msg_drop_any(struct rh_msg *msg); /* accepts NULL */

static inline const uint8_t *rh_msg_frame(const struct rh_msg *msg)
{
    return msg->bytes + msg->frame_at;
}

/* A copy to be sent, with another attempt, `ack` as said, and `epoch` (behind the attempt) if it is
 * not empty: names, hashes and times are the same, shares and entry are not copied; one holder.
 * NULL: no memory. */
struct rh_msg *rh_msg_again(const struct rh_msg *msg, uint32_t attempt, bool ack, const char *epoch,
                            size_t epoch_len);

/* The JSON text in its frame. */
const uint8_t *rh_msg_text(const struct rh_msg *msg, size_t *ret_len);
/* The header of a final text frame in front of `len` bytes of text, which begin behind the header's
 * room (RFC 6455 5.2); sets frame_at and frame_len. */
void rh_msg_put_head(struct rh_msg *msg, size_t len);

/* Writes the number into the frame; only while nobody else holds it. */
void rh_msg_set_seq(struct rh_msg *msg, uint64_t seq);

/* The `data` of a room's message, as JSON text. */
static inline struct rh_span rh_msg_data(const struct rh_msg *msg)
{
    return (struct rh_span){(const char *)msg->bytes + msg->data_at,
                            msg->frame_at + msg->frame_len - 1 - msg->data_at};
}

/* The frame as a shard has made it for some of its receivers: deflated. Lives as long as its handle. */
struct rh_form {
    struct rh_form *next;
    uint32_t len;  /* of the frame; 0: it gets no smaller, so the message's own one serves */
    uint32_t bits; /* the window that a receiver needs for it */
    uint8_t bytes[];
};

/* One shard's use of a message: a plain count of queue entries. */
struct rh_handle {
    struct rh_msg *msg;
    uint32_t uses;
    union {
        struct rh_form *forms;       /* in use: one per window at most */
        struct rh_handle *next_free; /* in the stock */
    };
    struct rh_handle *plain; /* one use: a copy that asks for nothing, for those who are not owed it
                              * (shard/owed_room.c); or NULL */
};

/* A shard's stock of handles. */
struct rh_handles {
    struct rh_handle *free;
};

/* Takes over one hold of `take_msg`; one use. NULL: no memory, the hold is still the caller's. */
struct rh_handle *rh_handle_make(struct rh_handles *stock, struct rh_msg *take_msg);
void rh_handle_ref(struct rh_handle *h);
void rh_handle_unref(struct rh_handles *stock, struct rh_handle *h);
/* Its form for that window; NULL: nobody has made it. */
const struct rh_form *rh_handle_form(const struct rh_handle *h, unsigned bits);
/* A form with room for `len` bytes, for its maker to fill, where there was none. NULL: no memory. */
struct rh_form *rh_handle_add_form(struct rh_handle *h, unsigned bits, size_t len);
void rh_handles_fini(struct rh_handles *stock);

#endif
