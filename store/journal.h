/* store/journal.h - what was promised, on disk: batches of events in segments.
 *
 * A directory holds segments (files of RH_SEGMENT_BYTES, written full of zeroes before their first use,
 * and used again under a new name when nothing in them is needed any more) and up to RH_JOURNAL_SPARES
 * spare files. A segment begins with a header; behind it stand batches (store/journal_int.h has the
 * bytes, docs/journal.md the tale):
 *
 *   | segment header | batch | batch | ...   zeroes, or what an older life of the file left |
 *   batch: magic, segment number, batch number, length, CRC32C of the header, CRC32C of the events, both
 *          seeded with the segment's number and its salt; then events, one behind the other
 *
 * Batch numbers rise by one through all segments. At most one batch is not synced at any time, so:
 *   - at the end of the last segment, a batch that is damaged anywhere is void: it was never told. That
 *     is only the end if no header of a batch follows in the segment;
 *   - a damaged one that ends a segment is void if the next batch, in a later segment, has its number
 *     (after a failed write or sync the file is never synced again: its batch goes whole into a fresh
 *     segment);
 *   - one that begins a segment with the number that the one before ended with counts once, as it stands
 *     in the later one;
 *   - any other damage is real: opening fails and says where, unless `salvage` is set, which goes on
 *     behind it and counts what it skipped. The damage is forgiven from then on: later starts go over it
 *     silently.
 * So what decides is whether the numbers go on: a segment that is missing or has lost its header is damage
 * only if a batch is missed.
 *
 * Every start begins a fresh segment, with the first event. Before that event's batch the last one that
 * was read is written there again: it may stand in the kernel's memory alone, after a kill or a sync that
 * failed.
 *
 * Writing: the caller puts events into the open batch; rh_journal_step closes and writes it, syncs,
 * and says that it is durable. What is put meanwhile goes into the next one.
 *
 * Threads    the thread that opened it (the record thread). Never blocks after rh_journal_open.
 * Units      bytes; times in unix ms.
 * Numbers    the caller names messages by numbers that rise and are never used twice, also not after a
 *            restart (the largest seen is told by the events themselves).
 */
#ifndef RH_JOURNAL_H
#define RH_JOURNAL_H

#include <stdbool.h>

#include "core/base.h"
#include "core/file.h"
#include "core/promise.h"

struct rh_journal;

/* ---- events ---- */

#define RH_JOTS(X)                                                                                 \
    X(OWED, "a message that is owed, with all that it takes to send it")                           \
    X(ATTEMPT, "it was handed out")                                                                \
    X(SETTLED, "what one user was owed of it has ended")                                           \
    X(ID, "a sender's id and its outcome; of messages that are not owed any more")                 \
    X(TIME, "the hub's time, so that it does not begin before it after a restart")

enum rh_jot_kind {
    RH_JOT_NONE,
#define RH_JOT(name, help) RH_JOT_##name,
    RH_JOTS(RH_JOT)
#undef RH_JOT
        RH_JOT_COUNT
};

/* One user's part of a message; a direct message has one. */
struct rh_jot_share {
    struct rh_span user;
    uint32_t attempt; /* the last that may have been handed out */
    uint8_t state;    /* enum rh_state; an end for who has settled */
    uint8_t reason;
};

/* An event as it is put and as it is read; spans lie in the batch (reading) or are copied (putting). */
struct rh_jot {
    uint8_t kind;     /* enum rh_jot_kind */
    uint8_t msg_kind; /* OWED, ID: RH_MSG_DIRECT or RH_MSG_ROOM */
    uint8_t flags;    /* OWED: RH_JOT_ flags; ID: RH_JOT_STORED */
    uint8_t state;    /* SETTLED */
    uint8_t reason;   /* SETTLED */
    uint8_t attempt_len;
    uint32_t share;              /* ATTEMPT, SETTLED: its index */
    uint32_t attempt;            /* ATTEMPT */
    uint32_t recipients;         /* OWED, ID of a room: the outcome */
    uint64_t number;             /* OWED, ATTEMPT, SETTLED: of the message */
    uint64_t at_ms;              /* all: when; OWED: created */
    uint64_t expires_ms;         /* OWED */
    uint64_t dedup_ms;           /* OWED, ID: until when the sender's id is remembered; 0: not */
    uint64_t seq;                /* OWED, ID */
    uint64_t uid;                /* OWED of a room: its life */
    uint32_t attempt_at, ack_at; /* OWED: offsets into text */
    struct rh_span from, to, id; /* OWED, ID: sender; user or room; id */
    struct rh_span text;         /* OWED: the notify */
    const struct rh_jot_share *shares; /* OWED; reading: valid during the call */
    uint32_t share_count;
};

enum {
    RH_JOT_ACK = 1,
    RH_JOT_HIGH = 2,
    RH_JOT_FROM_USER = 4,
    RH_JOT_GIVEN = 8,
    RH_JOT_STORED = 16
};

/* Bytes that rh_journal_put would add. */
size_t rh_jot_size(const struct rh_jot *jot);

/* ---- life ---- */

struct rh_journal_opts {
    struct rh_files *files; /* the caller's; the journal alone uses tags below RH_JOURNAL_TAGS */
    uint64_t segment_bytes; /* RH_SEGMENT_BYTES; tests: at least RH_SEGMENT_BYTES_MIN */
    bool salvage;
};

#define RH_JOURNAL_TAGS      (1u << 16)
#define RH_SEGMENT_BYTES_MIN 8192         /* and a multiple of 4096 */
#define RH_JOURNAL_SPARES    2            /* files that wait to be used again */
#define RH_BATCH_BYTES_MAX   (256u << 20) /* of events */

/* Where an event stands: segments are numbered 1, 2, ..., with holes. */
struct rh_journal_at {
    uint64_t segment, batch;
    uint64_t offset; /* of the event in the file */
};

/* Reads what there is, calling visit for each event in its order; then it can be written. RH_EIO (the
 * disk, or real damage; `fault` says where), RH_ENOMEM. visit's own error (negative) ends it, too.
 * Segments of which rh_journal_release was told, durably, are not read. */
int rh_journal_open(const struct rh_journal_opts *opts,
                    int (*visit)(void *arg, const struct rh_journal_at *at,
                                 const struct rh_jot *jot),
                    void *arg, struct rh_journal **ret_journal, struct rh_fault *fault);
/* Accepts NULL. What the open batch has is lost; waits for operations that are under way (of the journal
 * or, completions unseen, of others on its files). */
void rh_journal_close(struct rh_journal *j);

/* ---- writing ---- */

/* Adds an event to the open batch. RH_ENOMEM: nothing was added (or it has RH_BATCH_BYTES_MAX). An event
 * that makes no sense is an assertion. */
int rh_journal_put(struct rh_journal *j, const struct rh_jot *jot);

enum rh_journal_state {
    RH_JOURNAL_IDLE,    /* nothing is being written */
    RH_JOURNAL_WRITING, /* a batch is under way */
    RH_JOURNAL_FAILING, /* the last try failed; it tries again, in a fresh segment */
};

/* One turn, in which completions with our tags have been told by rh_journal_done: goes on with what is
 * under way, begins to write the open batch if nothing was when it was called (so when one has ended the
 * caller can add to the next before the next call), tries again what failed. */
void rh_journal_step(struct rh_journal *j, uint64_t now_ms);
void rh_journal_done(struct rh_journal *j, const struct rh_file_cqe *cqe);
enum rh_journal_state rh_journal_state(const struct rh_journal *j);
/* ms until rh_journal_step has something to do without a completion; UINT64_MAX: nothing. */
uint64_t rh_journal_next_ms(const struct rh_journal *j, uint64_t now_ms);

/* The number of the batch that is open: events that are put now become durable with it. */
uint64_t rh_journal_open_batch(const struct rh_journal *j);
/* The last batch that is durable; 0: none yet. After a start the last batch that was read (the open one
 * less one) is not: it becomes durable again on its own, before the first event that is put. */
uint64_t rh_journal_durable(const struct rh_journal *j);
/* When the batch under way was closed and began to be written (the time that step was given; tries
 * again do not change it); 0: none is. */
uint64_t rh_journal_since_ms(const struct rh_journal *j);
uint64_t rh_journal_waiting_bytes(const struct rh_journal *j); /* open, and under way */

/* ---- segments ---- */

/* The oldest segment that is kept, the one that is written to (what is in the open batch will stand
 * there or later), and how many files there are in all. */
uint64_t rh_journal_oldest(const struct rh_journal *j);
uint64_t rh_journal_newest(const struct rh_journal *j);
unsigned rh_journal_files(const struct rh_journal *j);
/* Bytes that can still be written when there was no room for a new segment, or another reason for which it
 * could not be prepared: in the present one, and in the next if it is ready. UINT64_MAX: nothing is short,
 * as far as is known. */
uint64_t rh_journal_room(const struct rh_journal *j);
bool rh_journal_next_is_ready(const struct rh_journal *j);
/* Everything that is needed of segments before `segment` stands, durably, in later ones: they may be
 * used again. This is said in a batch of its own if no other is due, and done when that is durable. */
void rh_journal_release(struct rh_journal *j, uint64_t segment);

struct rh_journal_stat {
    uint64_t commits, events, bytes; /* durable, of what was put since the start */
    uint64_t failures;               /* writes, syncs and other operations that failed */
    uint64_t commit_ns;              /* of the last commit; from the first write to durable */
    uint64_t skipped;                /* damaged places that salvage passed over */
};
void rh_journal_stat(const struct rh_journal *j, struct rh_journal_stat *ret_stat);

/* ---- for tools and tests: a segment in memory ---- */

enum rh_journal_find_kind { RH_FIND_BATCH, RH_FIND_EVENT, RH_FIND_DAMAGE, RH_FIND_END };

/* What a walk over one segment's bytes finds, in order; `what` is a static sentence. */
struct rh_journal_find {
    enum rh_journal_find_kind kind;
    struct rh_journal_at at;
    uint32_t events;          /* BATCH */
    uint64_t bytes;           /* BATCH: with its header; DAMAGE: up to where it goes on */
    const struct rh_jot *jot; /* EVENT */
    const char *what;         /* DAMAGE, END */
};

/* Walks over a segment as it lies in memory, whatever is in it. Returns its number, RH_EINVAL when it
 * does not begin like one, RH_EUNSUPPORTED when it is of another version, RH_ENOMEM. */
int64_t rh_journal_walk(const void *bytes, size_t len,
                        void (*visit)(void *arg, const struct rh_journal_find *find), void *arg);

/* ---- for tools and tests: a directory, read as rh_journal_open would, changing nothing ---- */

struct rh_journal_source {
    void *arg; /* of both; they do what rh_files_list and rh_files_read do */
    int (*list)(void *arg, void (*each)(void *each_arg, const char *name, uint64_t size),
                void *each_arg, struct rh_fault *fault);
    int64_t (*read)(void *arg, const char *name, uint64_t offset, void *dst, size_t len,
                    struct rh_fault *fault);
};

struct rh_journal_reading {
    const struct rh_journal_source *source;
    bool salvage;
    void *arg;
    int (*visit)(void *arg, const struct rh_journal_at *at, const struct rh_jot *jot);
    void (*damage)(void *arg, const char *text); /* or NULL; with salvage: what was skipped */
};

struct rh_journal_found {
    uint64_t segments, batches, events, bytes; /* that were read; bytes: of whole batches */
    uint64_t skipped;                          /* damaged places */
    uint64_t last_batch;                       /* 0: none */
};

/* Errors as rh_journal_open. */
int rh_journal_read(const struct rh_journal_reading *r, struct rh_journal_found *ret_found,
                    struct rh_fault *fault);

/* The number in the name of a segment ("journal-0000000000000001.seg"); 0: it is none. */
uint64_t rh_journal_number_of(const char *name);

#endif
