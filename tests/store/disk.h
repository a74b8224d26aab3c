/* tests/store/disk.h - core/file.h on a disk in memory, whose power can be cut.
 *
 * A program that links disk*.o in front of the library has rh_files_create ... rh_files_wake_any
 * from here; the Makefile does so for every test whose .c file includes this header, for the
 * simulation and for fuzz_conn. There is one directory, whatever its path, and one may have it open
 * at a time.
 *
 * Files      A completed write is seen by all reads. It is durable, sector by sector (512 bytes),
 *            when a sync of its file has ended well that began after the write had completed. A
 *            sync that failed leaves its sectors as they are and clean, as Linux does: a later one
 *            passes over them, and only writing them anew helps.
 * Names      What open made, and renames and removes, are durable after a sync of the directory
 *            that began after them; syncing a file does nothing for its name.
 * Turns      An operation is under way from the enter that submits it. The disk works in turns: an
 *            enter is one, and one that waits is as many as it takes for a completion, unless it
 *            was woken. Nothing ever sleeps: where nothing can complete, the wait is over at once.
 *            Without disk_luck all that is under way completes in one turn, in its order.
 * Strict     Aborts where the caller changes bytes that are the kernel's, uses a descriptor that is
 *            closed, or has more than RH_FILES_OPS under way.
 * Restart    The disk outlives rh_files_destroy. Descriptors do not.
 * Memory     struct rh_files comes from core/mem.h and may be made to fail; all else does not.
 * Threads    one.
 */
#ifndef TESTS_DISK_H
#define TESTS_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/file.h"

#define DISK_SECTOR    512
#define DISK_NAMES_MAX 1024

enum disk_kind {
    DISK_OPEN,
    DISK_WRITE,
    DISK_SYNC,
    DISK_CLOSE,
    DISK_RENAME,
    DISK_REMOVE,
    DISK_SYNC_DIR,
    DISK_KINDS
};

/* An empty disk without faults, all counts 0. Nobody may have it open. */
void disk_reset(void);

/* ---- ends; whoever has the disk open finds it dead (enter: RH_EIO) and can but destroy ---- */

/* The power is cut. Of the sectors and names that are not durable any subset survives, drawn from
 * `seed`; the rest is as it was. An operation under way may be partly done. A file whose length was
 * not synced ends anywhere between the two; what is missing in it reads as zeroes. */
void disk_cut(uint64_t seed);
/* The process is killed: each operation under way is done, partly done or not; what was written
 * stays. */
void disk_kill(uint64_t seed);

/* ---- faults ---- */

/* The nth operation of that kind from now on (1: the next one) fails with the errno `err`, and so
 * do those behind it, `times` in all (UINT32_MAX: all). Counted as they are submitted. A write that
 * fails may have written any of its sectors; a close that fails has closed. times 0: none fails any
 * more. */
void disk_fail(enum disk_kind kind, unsigned nth, unsigned times, int err);
/* All files together may have that many bytes; a write is shortened, or ends in ENOSPC. UINT64_MAX:
 * no bound. What lies inside a file's length always has its place. */
void disk_room(uint64_t bytes);
/* One write takes at most that many bytes; SIZE_MAX: all. */
void disk_short(size_t most);
/* Operations of these kinds (a mask of 1u << kind) do not complete; 0: those that waited go on. */
void disk_hang(unsigned kinds);

/* Chances; percentages are of all operations of that kind. With any luck at all the system also
 * writes back when it likes: what survives of a sector may be older than what was written last. */
struct disk_luck {
    unsigned turns; /* an operation takes up to that many turns more; 0: they keep their order */
    unsigned short_pct;            /* writes that are shortened */
    unsigned fail_pct[DISK_KINDS]; /* EIO */
};
void disk_luck(uint64_t seed, const struct disk_luck *luck); /* NULL: none of it */

/* ---- turns, for a scheduler ---- */

/* From now on an enter only submits; disk_turn is called by whoever keeps the time. */
void disk_by_hand(bool by_hand);
void disk_turn(void);
/* The last enter still waits: no completion and no wake-up has come since (by hand only). */
bool disk_asleep(void);
uint64_t disk_wait_ms(void); /* what the last enter was given */

/* ---- questions ---- */

unsigned disk_done(enum disk_kind kind); /* completed so far, failures with them */
unsigned disk_open_fds(void);
/* Sectors and changes of names that a cut could take back; 0: all is durable. */
unsigned disk_unsynced(void);
unsigned disk_unsynced_bytes(void); /* sectors and lengths alone */

/* ---- what lies there; as seen, and durably. Nothing of the file may be under way ---- */

unsigned disk_names(const char **ret_names, unsigned max); /* sorted; valid until they change */
int64_t disk_size(const char *name);                       /* -1: no such file */
/* All bytes, valid until the file changes. NULL: no such file, or an empty one. */
const uint8_t *disk_bytes(const char *name, size_t *ret_len);
/* A file with these bytes, instead of one of that name. */
void disk_put(const char *name, const void *bytes, size_t len);
void disk_delete(const char *name);
void disk_truncate(const char *name, size_t len); /* shorter, or longer with zeroes */
void disk_flip(const char *name, uint64_t bit);   /* bit b of byte n: 8 * n + b */
void disk_zero(const char *name, size_t from, size_t len);

#endif
