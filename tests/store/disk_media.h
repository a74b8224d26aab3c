/* tests/store/disk_media.h - what lies on the disk of disk.h: files and names, seen and durable.
 *
 * Knows nothing of operations: disk.c calls it at their beginnings and ends. A file is kept while a
 * name (seen or durable), a change of names, a descriptor or an operation refers to it.
 */
#ifndef TESTS_DISK_MEDIA_H
#define TESTS_DISK_MEDIA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/store/disk.h"

struct media_file {
    struct media_file *next;
    unsigned holds; /* descriptors and operations */
    bool marked;    /* while those that nobody needs are looked for */

    uint8_t *seen, *durable; /* `room` bytes each, zeroes behind the lengths */
    size_t room;
    size_t len, durable_len; /* the durable one is never longer */
    uint64_t *stamps;        /* by sector: the write that made it differ; 0: it does not */
    uint64_t synced;         /* the last write that a sync which ended well has covered */
};

/* What a sync has to make durable: the file as it was when the sync began. */
struct media_snap;

/* A small generator, so that a seed repeats everything. */
uint64_t media_rand(uint64_t *state);

void media_reset(void);

/* Names. Negative errno. */
struct media_file *media_find(const char *name); /* NULL: no such name */
struct media_file *media_open(const char *name); /* makes it where it is not there */
int media_rename(const char *from, const char *to);
int media_remove(const char *name);
uint64_t media_dir_begin(void);      /* the last change so far */
void media_dir_end(uint64_t change); /* it and those before are durable */

/* Contents. */
void media_write(struct media_file *file, const void *bytes, size_t len, uint64_t offset);
/* Any of its sectors are written, the others are not. */
void media_write_part(struct media_file *file, const void *bytes, size_t len, uint64_t offset,
                      uint64_t *rand);
/* The system writes back any of the sectors that differ, as it does when it likes. */
void media_write_back(struct media_file *file, uint64_t *rand);
struct media_snap *media_sync_begin(struct media_file *file);
void media_sync_end(struct media_file *file, struct media_snap *snap, bool well);
void media_snap_free(struct media_snap *snap); /* accepts NULL */

/* A file that was held (`holds` counted up) is let go. */
void media_release(struct media_file *file);

void media_cut(uint64_t *rand);

/* Questions. */
uint64_t media_used(void); /* bytes of files that have a name or are held */
unsigned media_unsynced(void);
unsigned media_unsynced_bytes(void);                        /* without names */
unsigned media_names(const char **ret_names, unsigned max); /* in no order */

/* Tampering: what is seen is durable behind these. */
void media_force(struct media_file *file);
void media_force_names(void);
void media_truncate(struct media_file *file, size_t len);

#endif
