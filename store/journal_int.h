/* store/journal_int.h - the bytes of a segment, and what the journal's files share.
 *
 * All numbers are little endian. A segment begins with a block of 4096 bytes that has its header twice, at
 * 0 and at 2048, in different sectors of the disk; behind it batches stand at multiples of 8.
 *
 *   segment header   0 magic "ringhubJ"   8 version u32   12 zero u32   16 number u64   24 size u64
 *                    32 salt u64          40 zero u32     44 CRC32C of the 44 bytes before
 *   batch header     0 magic u32          4 length u32    8 segment u64   16 number u64
 *                    24 keep segment u64  32 keep batch u64   40 forgiven u64
 *                    48 events u32        52 CRC32C of the events   56 zero u32
 *                    60 CRC32C of the 60 bytes before
 *
 * The CRCs of batches are seeded with the CRC32C of the segment's number and salt. The number keeps apart
 * the lives of a file. The salt is random: what a user sends is written into batches, and nobody shall be
 * able to send something that looks like a batch of its own when the disk tore the one around it.
 *
 *   keep      segments with a smaller number are not needed, and the first batch that is
 *   forgiven  damage in segments with a smaller number is known
 *
 * Both are said anew by each batch, and hold when the batch is durable; so the order in which the disk
 * makes renames durable does not matter.
 */
#ifndef RH_JOURNAL_INT_H
#define RH_JOURNAL_INT_H

#include <string.h>

#include "core/limits.h"
#include "store/jot.h"

#define RH_SEGMENT_VERSION    1
#define RH_SEGMENT_HEAD       4096 /* the block with both headers; also a page, see store/journal.c */
#define RH_SEGMENT_COPY       2048
#define RH_BATCH_HEAD         64
#define RH_BATCH_ALIGN        8
#define RH_JOURNAL_NUMBER_MAX (UINT64_MAX >> 2) /* of a segment */

static inline uint64_t rh_round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* ---- a segment in memory (store/journal_walk.c) ---- */

struct rh_segment {
    const uint8_t *bytes;
    size_t len;
    uint64_t number, size; /* as its header says */
    uint32_t seed;
};

struct rh_batch {
    uint64_t offset, end; /* in the file; end: where the next one begins */
    uint64_t number;
    uint64_t keep_segment, keep_batch, forgiven;
    uint32_t len, events;
    const uint8_t *body; /* `len` bytes of events */
};

/* RH_OK, RH_EINVAL (no header), RH_EUNSUPPORTED (another version). */
int rh_segment_open(struct rh_segment *s, const void *bytes, size_t len);
/* For a segment without a header: does something in it look like a batch of that number's? */
bool rh_segment_looks_used(const void *bytes, size_t len, uint64_t number);

/* What stands at an offset: a whole batch; damage, behind which a header of a batch follows at *ret_next;
 * or the end (*ret_torn: of something, not of zeroes or an older life's). */
enum rh_piece { RH_PIECE_BATCH, RH_PIECE_DAMAGE, RH_PIECE_END };
enum rh_piece rh_segment_next(const struct rh_segment *s, uint64_t at, struct rh_batch *ret_batch,
                              uint64_t *ret_next, bool *ret_torn);

uint32_t rh_segment_seed(uint64_t number, uint64_t salt);
/* Fills a block of RH_SEGMENT_HEAD bytes. */
void rh_segment_seal(uint8_t *block, uint64_t number, uint64_t size, uint64_t salt);
/* Writes the header in front of batch->body; offset and end do not matter. */
void rh_batch_seal(uint8_t *head, const struct rh_batch *batch, uint64_t segment, uint32_t seed);

/* ---- files (names; the list is kept by their owner) ---- */

#define RH_JOURNAL_NAME_BYTES 32

void rh_journal_name(char *dst, const char *prefix, uint64_t number); /* "journal", "spare" */
/* 0: it is none of these. */
uint64_t rh_journal_name_number(const char *prefix, const char *name);

enum rh_jfile_kind {
    RH_JFILE_SEGMENT, /* is needed */
    RH_JFILE_GONE,    /* is needed until a batch that says otherwise is durable */
    RH_JFILE_EMPTY,   /* has no batch: may be used again */
    RH_JFILE_BAD,     /* has no batch, and an operation on it failed: is removed */
    RH_JFILE_SPARE,
};

struct rh_jfile {
    uint64_t number; /* in its name */
    uint64_t size;
    uint64_t first; /* its first batch; 0: none yet */
    enum rh_jfile_kind kind;
    bool failed; /* a write or sync of it failed: it is not used again */
};

struct rh_jfiles {
    struct rh_jfile *at; /* segments in rising order, spares anywhere between */
    size_t count, room;
};

int rh_jfiles_reserve(struct rh_jfiles *list, size_t more);              /* RH_ENOMEM */
void rh_jfiles_add(struct rh_jfiles *list, const struct rh_jfile *file); /* reserved */
void rh_jfiles_del(struct rh_jfiles *list, size_t i);

/* ---- reading a directory (store/journal_read.c) ---- */

/* What a start goes on from. Zeroed memory is a fit beginning. */
struct rh_journal_past {
    struct rh_jfiles files;
    uint64_t number;      /* above all that names have */
    struct rh_batch last; /* number 0: there is none */
    uint8_t *body;        /* its events, own copy */
    uint64_t forgiven;    /* as the next batches must say */
    struct rh_journal_found found;
};

int rh_journal_read_past(const struct rh_journal_reading *r, struct rh_journal_past *past,
                         struct rh_fault *fault);
void rh_journal_past_fini(struct rh_journal_past *past);

/* ---- the writer (store/journal.c, store/journal_next.c) ---- */

/* Who has an operation under way; also its tag. Closes are many, and nobody waits for them. */
enum rh_journal_actor {
    RH_ACTOR_NONE,
    RH_ACTOR_PEN,   /* writes batches */
    RH_ACTOR_NEXT,  /* prepares the next segment */
    RH_ACTOR_BROOM, /* renames and removes what is not needed */
    RH_ACTORS,
};

struct rh_journal_op {
    bool busy;
    int32_t res; /* of the last one */
};

/* Tries again after 100 ms, 200 ms, ... 2 s. */
struct rh_journal_retry {
    uint64_t delay_ms; /* 0: the last try was well */
    uint64_t at_ms;
};

void rh_journal_retry_fail(struct rh_journal_retry *retry, uint64_t now_ms);

/* A batch in memory: a page's room, the header's room, events, and a page's room to fill up. */
struct rh_pile {
    uint8_t *mem;
    size_t room; /* of mem */
    size_t len;  /* of events */
    uint64_t number;
    uint32_t events;
};

enum rh_pen_state { RH_PEN_IDLE, RH_PEN_PLACE, RH_PEN_WRITE, RH_PEN_SYNC, RH_PEN_PAUSE };

enum rh_next_state {
    RH_NEXT_NONE,
    RH_NEXT_OPEN,
    RH_NEXT_ZERO, /* waits until more is due */
    RH_NEXT_ZERO_WRITE,
    RH_NEXT_ZERO_SYNC,
    RH_NEXT_HEAD_WRITE,
    RH_NEXT_HEAD_SYNC,
    RH_NEXT_RENAME,
    RH_NEXT_SYNC_DIR,
    RH_NEXT_READY,
};

#define RH_JOURNAL_FDS 4

struct rh_journal {
    struct rh_files *files;
    uint64_t segment_bytes;
    struct rh_journal_op ops[RH_ACTORS];
    struct rh_journal_stat stat;
    struct rh_jfiles list;
    uint64_t number; /* of the segment after all that have been begun */

    struct rh_pile open, sent;
    uint64_t durable;
    uint64_t since_ms;
    uint64_t began_ns; /* the first write of `sent` */
    bool again;        /* `sent` is the last batch that was read, and waits for the first put */
    bool old;          /* `sent` is that one */
    bool failing;

    enum rh_pen_state pen;
    struct rh_journal_retry pen_retry;
    size_t want, written;             /* of the write under way */
    uint64_t keep_wanted;             /* segments before it have been released */
    uint64_t keep_sent, keep_durable; /* as `sent` says, and the last that is durable */
    uint64_t forgiven;

    struct {    /* the segment that is written to */
        int fd; /* -1: none */
        uint64_t number, size, used;
        uint32_t seed;
    } cur;
    uint8_t tail[RH_SEGMENT_HEAD]; /* its last page as far as it is used */

    struct { /* the one after it */
        enum rh_next_state state;
        int fd;
        uint64_t number, size, filled, salt;
        uint64_t spare; /* the number in its name, as long as that is a spare's */
        size_t written; /* of its header */
        bool failed;    /* the last try; none has been well since it is needed */
        bool lacking;   /* no new file has been filled since one failed */
        bool fresh;     /* it is a new file, of the usual size */
        struct rh_journal_retry retry;
    } next;
    uint8_t head[RH_SEGMENT_HEAD]; /* its header */

    int fds[RH_JOURNAL_FDS]; /* to be closed */
    unsigned fds_count;

    bool untidy;           /* there may be something for the broom */
    struct rh_jfile swept; /* what it is at */
    bool to_spare;         /* rename; else remove */
    struct rh_journal_retry broom_retry;
};

void rh_journal_begin_op(struct rh_journal *j, enum rh_journal_actor actor);
void rh_journal_drop_fd(struct rh_journal *j, int fd);
bool rh_journal_next_step(struct rh_journal *j, uint64_t now_ms);
bool rh_journal_broom_step(struct rh_journal *j, uint64_t now_ms);

#endif
