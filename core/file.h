/* core/file.h - the seam to the disk: files of one directory, on a ring of its own that never blocks.
 *
 * One rh_files per thread that writes. Operations are queued and go to the kernel at the next
 * rh_files_enter(); what became of each is read with rh_files_reap(), as one completion with its tag.
 * Until then what was given to it (bytes, names) belongs to the kernel. Operations that are under way
 * at the same time may be done in any order: who needs one waits for the completion.
 *
 * What stands in front of the first write is only read, with calls that block: a thread that starts.
 * The file `lock` in the directory is ours: it is not listed, and nobody else may use its name.
 *
 * Threads    all of it on the thread that called rh_files_create, except *_any.
 * Errors     queueing cannot fail. Failures of an operation arrive as a negative errno; a short write
 *            arrives as fewer bytes, and the rest is the caller's to write.
 * Replaced   at link time by a disk in memory, whose power can be cut (tests/store/disk.h).
 */
#ifndef RH_FILE_H
#define RH_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "core/ringhub.h"

#define RH_FILES_OPS     64 /* that may be under way: queued, and their completions not yet reaped */
#define RH_FILE_NAME_MAX 63

struct rh_files;

struct rh_file_cqe {
    uint64_t tag;
    int32_t res; /* a descriptor, bytes, 0, or a negative errno */
};

/* Opens the directory, making it and those above it (0700) where they are missing, and locks it:
 * nobody else may open it until rh_files_destroy. RH_EIO (locked, not allowed; `fault` says what),
 * RH_EUNSUPPORTED (no io_uring to be had), RH_ENOMEM. */
int rh_files_create(const char *path, struct rh_files **ret_files, struct rh_fault *fault);
void rh_files_destroy(struct rh_files *f); /* accepts NULL; nothing may be under way */

/* ---- at start, blocking ---- */

/* Calls each(arg, name, size) for every ordinary file, in no order. RH_EIO. */
int rh_files_list(struct rh_files *f, void (*each)(void *arg, const char *name, uint64_t size),
                  void *arg, struct rh_fault *fault);
/* Reads up to `len` bytes from `offset` on; returns how many there were, or RH_EIO. */
int64_t rh_files_read(struct rh_files *f, const char *name, uint64_t offset, void *dst, size_t len,
                      struct rh_fault *fault);

/* ---- operations; `name` without a slash, at most RH_FILE_NAME_MAX bytes, is copied ---- */

/* Opens for writing; makes it where it is not there. res: a descriptor. */
void rh_file_open(struct rh_files *f, const char *name, uint64_t tag);
void rh_file_write(struct rh_files *f, int fd, const void *bytes, size_t len, uint64_t offset,
                   uint64_t tag);                            /* len: not 0 */
void rh_file_sync(struct rh_files *f, int fd, uint64_t tag); /* fdatasync */
void rh_file_close(struct rh_files *f, int fd, uint64_t tag);
void rh_file_rename(struct rh_files *f, const char *from, const char *to, uint64_t tag);
void rh_file_remove(struct rh_files *f, const char *name, uint64_t tag);
/* What was made, renamed, removed before stays so. */
void rh_file_sync_dir(struct rh_files *f, uint64_t tag);

/* ---- the loop ---- */

/* Submits what is queued, and waits until there is a completion or a wake-up, at most wait_ms (0: does
 * not wait; UINT64_MAX: without end). RH_OK, or RH_EIO: the ring is broken. */
int rh_files_enter(struct rh_files *f, uint64_t wait_ms);
/* Copies up to `max` completions; returns how many. */
unsigned rh_files_reap(struct rh_files *f, struct rh_file_cqe *dst, unsigned max);
unsigned rh_files_busy(const struct rh_files *f); /* operations whose completion was not reaped */
void rh_files_wake_any(struct rh_files *f);       /* ends the wait, or the next one */

#endif
