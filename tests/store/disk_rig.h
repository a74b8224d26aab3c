/* tests/store/disk_rig.h - for test_disk*.c: the disk with one user, and each operation as a call. */
#ifndef TESTS_DISK_RIG_H
#define TESTS_DISK_RIG_H

#include <stdio.h>

#include "core/base.h"
#include "tests/rh_test.h"
#include "tests/store/disk.h"

#define SEEDS 400

static struct rh_files *f;

static inline void begin(void)
{
    disk_reset();
    RH_OK_IF(rh_files_create("/any/where", &f, NULL) == RH_OK);
}

static inline void restart(void)
{
    rh_files_destroy(f);
    RH_OK_IF(rh_files_create("/any/where", &f, NULL) == RH_OK);
}

/* The power is cut and comes back. */
static inline void cut(uint64_t seed)
{
    disk_cut(seed);
    restart();
}

static inline void end(void)
{
    rh_files_destroy(f);
    disk_reset();
}

/* The result of the only operation that is under way. */
static inline int result(void)
{
    struct rh_file_cqe cqe;

    RH_OK_IF(rh_files_enter(f, UINT64_MAX) == RH_OK);
    RH_OK_IF(rh_files_reap(f, &cqe, 1) == 1);
    RH_OK_IF(cqe.tag == 7 && rh_files_busy(f) == 0);
    return cqe.res;
}

static inline int do_open(const char *name)
{
    rh_file_open(f, name, 7);
    return result();
}

static inline int do_write(int fd, const void *bytes, size_t len, uint64_t offset)
{
    rh_file_write(f, fd, bytes, len, offset, 7);
    return result();
}

static inline int do_sync(int fd)
{
    rh_file_sync(f, fd, 7);
    return result();
}

static inline int do_close(int fd)
{
    rh_file_close(f, fd, 7);
    return result();
}

static inline int do_rename(const char *from, const char *to)
{
    rh_file_rename(f, from, to, 7);
    return result();
}

static inline int do_remove(const char *name)
{
    rh_file_remove(f, name, 7);
    return result();
}

static inline int do_sync_dir(void)
{
    rh_file_sync_dir(f, 7);
    return result();
}

/* A file of `count` sectors of 'a', durable; returns its descriptor. */
static inline int durable_file(unsigned count)
{
    char sector[DISK_SECTOR];
    int fd = do_open("one");

    memset(sector, 'a', sizeof(sector));
    for (unsigned i = 0; i < count; i++)
        RH_OK_IF(do_write(fd, sector, sizeof(sector), i * DISK_SECTOR) == DISK_SECTOR);
    RH_OK_IF(do_sync(fd) == 0 && do_sync_dir() == 0);
    RH_OK_IF(disk_unsynced() == 0);
    return fd;
}

/* What a sector of "one" is full of; 0: of different bytes, or of zeroes. */
static inline char filled(unsigned sector)
{
    size_t len;
    const uint8_t *at = disk_bytes("one", &len);

    RH_OK_IF(at && len >= (sector + 1) * DISK_SECTOR);
    at += sector * DISK_SECTOR;
    for (unsigned i = 1; i < DISK_SECTOR; i++)
        if (at[i] != at[0])
            return 0;
    return (char)at[0];
}

static inline int write_sector(int fd, unsigned sector, char with)
{
    char bytes[DISK_SECTOR];

    memset(bytes, with, sizeof(bytes));
    return do_write(fd, bytes, sizeof(bytes), sector * DISK_SECTOR);
}

static inline void expect_names(const char *want)
{
    const char *names[16];
    unsigned count = disk_names(names, RH_COUNT(names));
    char text[256] = "";

    for (unsigned i = 0; i < count; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s ", names[i]);
    RH_EQ_STR(text, want);
}

#endif
