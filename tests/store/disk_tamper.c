/* tests/store/disk_tamper.c - what a test sees and changes on the disk behind everyone's back. */
#include "tests/store/disk.h"

#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "tests/store/disk_media.h"

unsigned disk_unsynced(void)
{
    return media_unsynced();
}

unsigned disk_unsynced_bytes(void)
{
    return media_unsynced_bytes();
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

unsigned disk_names(const char **ret_names, unsigned max)
{
    unsigned count = media_names(ret_names, max);

    qsort(ret_names, count, sizeof(*ret_names), by_text);
    return count;
}

int64_t disk_size(const char *name)
{
    const struct media_file *file = media_find(name);

    return file ? (int64_t)file->len : -1;
}

const uint8_t *disk_bytes(const char *name, size_t *ret_len)
{
    const struct media_file *file = media_find(name);

    if (!file)
        return NULL;
    *ret_len = file->len;
    return file->seen;
}

/* ---- tampering ---- */

static struct media_file *must_find(const char *name)
{
    struct media_file *file = media_find(name);

    rh_assert(file);
    return file;
}

void disk_put(const char *name, const void *bytes, size_t len)
{
    struct media_file *file;

    if (media_find(name))
        disk_delete(name);
    file = media_open(name);
    media_force_names();
    media_write(file, bytes, len, 0);
    media_force(file);
}

void disk_delete(const char *name)
{
    must_find(name);
    media_remove(name);
    media_force_names();
}

void disk_truncate(const char *name, size_t len)
{
    media_truncate(must_find(name), len);
}

void disk_flip(const char *name, uint64_t bit)
{
    struct media_file *file = must_find(name);

    rh_assert(bit / 8 < file->len);
    media_force(file);
    file->seen[bit / 8] ^= (uint8_t)(1u << bit % 8);
    file->durable[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

void disk_zero(const char *name, size_t from, size_t len)
{
    struct media_file *file = must_find(name);

    rh_assert(from + len <= file->len);
    media_force(file);
    memset(file->seen + from, 0, len);
    memset(file->durable + from, 0, len);
}
