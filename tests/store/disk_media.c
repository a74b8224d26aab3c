/* tests/store/disk_media.c - files, sectors and names in memory; see disk_media.h.
 *
 * Files      Each is kept twice: as it is seen, and as it lies on the platter. A stamp per sector
 *            says which write made them differ, so that a sync cleans only what it has covered.
 * Names      A change is made in the seen directory at once and noted in a list. A sync of the
 *            directory repeats the noted ones in the durable directory, a cut repeats some. A file
 *            has one name in each: a rename that survives without the one before it takes the older
 *            away.
 * Lost       A sync that failed leaves the stamp LOST: the sector is as good as clean for later
 *            syncs, and a cut decides.
 */
#include "tests/store/disk_media.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"

#define LOST UINT64_MAX

struct name {
    char text[RH_FILE_NAME_MAX + 1];
    struct media_file *file;
};

struct dir {
    struct name at[DISK_NAMES_MAX];
    unsigned count;
};

struct change {
    uint64_t number;
    char to[RH_FILE_NAME_MAX + 1]; /* empty: removed */
    struct media_file *file;
};

struct media_snap {
    uint64_t stamp; /* the last write when it was taken */
    size_t len;
    size_t count;
    struct snap_sector {
        size_t sector;
        uint8_t bytes[DISK_SECTOR];
    } at[];
};

static struct dir seen, durable;
static struct media_file *files;
static struct change *changes;
static size_t change_count, change_room;
static uint64_t change_last, stamp_last;

uint64_t media_rand(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static bool coin(uint64_t *rand)
{
    return media_rand(rand) >> 63;
}

static void *must(void *mem)
{
    rh_assert(mem);
    return mem;
}

static size_t sectors(size_t bytes)
{
    return (bytes + DISK_SECTOR - 1) / DISK_SECTOR;
}

/* ---- directories ---- */

static struct name *dir_find(struct dir *d, const char *text)
{
    for (unsigned i = 0; i < d->count; i++)
        if (!strcmp(d->at[i].text, text))
            return &d->at[i];
    return NULL;
}

static void dir_drop(struct dir *d, struct name *name)
{
    if (name)
        *name = d->at[--d->count];
}

static void dir_apply(struct dir *d, const struct change *c)
{
    for (unsigned i = d->count; i-- > 0;)
        if (d->at[i].file == c->file)
            dir_drop(d, &d->at[i]);
    if (!*c->to)
        return;
    dir_drop(d, dir_find(d, c->to));
    rh_assert(d->count < DISK_NAMES_MAX);
    memcpy(d->at[d->count].text, c->to, sizeof(c->to));
    d->at[d->count++].file = c->file;
}

static void dir_change(const char *to, struct media_file *file)
{
    struct change *c;

    if (change_count == change_room) {
        change_room = change_room ? 2 * change_room : 64;
        changes = must(realloc(changes, change_room * sizeof(*changes)));
    }
    c = &changes[change_count++];
    memset(c, 0, sizeof(*c));
    c->number = ++change_last;
    c->file = file;
    memcpy(c->to, to, strlen(to) + 1);
    dir_apply(&seen, c);
}

/* ---- files nobody needs ---- */

static void mark(const struct dir *d)
{
    for (unsigned i = 0; i < d->count; i++)
        d->at[i].file->marked = true;
}

static void file_free(struct media_file *file)
{
    free(file->seen);
    free(file->durable);
    free(file->stamps);
    free(file);
}

static void sweep(void)
{
    struct media_file **at = &files;

    for (struct media_file *file = files; file; file = file->next)
        file->marked = file->holds > 0;
    mark(&seen);
    mark(&durable);
    for (size_t i = 0; i < change_count; i++)
        changes[i].file->marked = true;
    while (*at) {
        struct media_file *file = *at;

        if (file->marked) {
            at = &file->next;
            continue;
        }
        *at = file->next;
        file_free(file);
    }
}

void media_release(struct media_file *file)
{
    rh_assert(file->holds > 0);
    if (--file->holds == 0)
        sweep();
}

void media_reset(void)
{
    for (struct media_file *file = files; file; file = file->next)
        rh_assert(file->holds == 0);
    seen.count = durable.count = 0;
    change_count = 0;
    sweep();
}

/* ---- names ---- */

struct media_file *media_find(const char *name)
{
    struct name *found = dir_find(&seen, name);

    return found ? found->file : NULL;
}

struct media_file *media_open(const char *name)
{
    struct media_file *file = media_find(name);

    if (file)
        return file;
    file = must(calloc(1, sizeof(*file)));
    file->next = files;
    files = file;
    dir_change(name, file);
    return file;
}

int media_rename(const char *from, const char *to)
{
    struct media_file *file = media_find(from);

    if (!file)
        return -ENOENT;
    if (strcmp(from, to))
        dir_change(to, file);
    return 0;
}

int media_remove(const char *name)
{
    struct media_file *file = media_find(name);

    if (!file)
        return -ENOENT;
    dir_change("", file);
    return 0;
}

unsigned media_names(const char **ret_names, unsigned max)
{
    unsigned count = RH_MIN(seen.count, max);

    for (unsigned i = 0; i < count; i++)
        ret_names[i] = seen.at[i].text;
    return count;
}

uint64_t media_dir_begin(void)
{
    return change_last;
}

void media_dir_end(uint64_t change)
{
    size_t count = 0;

    while (count < change_count && changes[count].number <= change)
        dir_apply(&durable, &changes[count++]);
    if (!count)
        return;
    change_count -= count;
    memmove(changes, changes + count, change_count * sizeof(*changes));
    sweep();
}

/* ---- contents ---- */

static void grow(struct media_file *file, size_t len)
{
    size_t room = file->room ? file->room : 16 * DISK_SECTOR;

    if (len <= file->room)
        return;
    while (room < len)
        room *= 2;
    file->seen = must(realloc(file->seen, room));
    file->durable = must(realloc(file->durable, room));
    file->stamps = must(realloc(file->stamps, sectors(room) * sizeof(*file->stamps)));
    memset(file->seen + file->room, 0, room - file->room);
    memset(file->durable + file->room, 0, room - file->room);
    memset(file->stamps + sectors(file->room), 0,
           (sectors(room) - sectors(file->room)) * sizeof(*file->stamps));
    file->room = room;
}

static void sector_keep(struct media_file *file, size_t i)
{
    memcpy(file->durable + i * DISK_SECTOR, file->seen + i * DISK_SECTOR, DISK_SECTOR);
}

void media_write(struct media_file *file, const void *bytes, size_t len, uint64_t offset)
{
    if (len == 0)
        return;
    grow(file, offset + len);
    memcpy(file->seen + offset, bytes, len);
    file->len = RH_MAX(file->len, offset + len);
    stamp_last++;
    for (size_t i = offset / DISK_SECTOR; i < sectors(offset + len); i++)
        file->stamps[i] = stamp_last;
}

void media_write_part(struct media_file *file, const void *bytes, size_t len, uint64_t offset,
                      uint64_t *rand)
{
    size_t at = 0;

    while (at < len) {
        size_t part = RH_MIN(len - at, DISK_SECTOR - (offset + at) % DISK_SECTOR);

        if (coin(rand))
            media_write(file, (const uint8_t *)bytes + at, part, offset + at);
        at += part;
    }
}

/* The durable length becomes at least `len`: what is missing in between reads as zeroes. */
static void lengthen(struct media_file *file, size_t len)
{
    file->durable_len = RH_MAX(file->durable_len, len);
}

void media_write_back(struct media_file *file, uint64_t *rand)
{
    for (size_t i = 0; i < sectors(file->len); i++) {
        if (file->stamps[i] == 0 || !coin(rand))
            continue;
        sector_keep(file, i);
        lengthen(file, RH_MIN(file->len, (i + 1) * DISK_SECTOR));
    }
}

struct media_snap *media_sync_begin(struct media_file *file)
{
    struct media_snap *snap;
    size_t count = 0;

    for (size_t i = 0; i < sectors(file->len); i++)
        count += file->stamps[i] != 0 && file->stamps[i] != LOST;
    snap = must(malloc(sizeof(*snap) + count * sizeof(snap->at[0])));
    snap->stamp = stamp_last;
    snap->len = file->len;
    snap->count = 0;
    for (size_t i = 0; i < sectors(file->len); i++) {
        if (file->stamps[i] == 0 || file->stamps[i] == LOST)
            continue;
        snap->at[snap->count].sector = i;
        memcpy(snap->at[snap->count++].bytes, file->seen + i * DISK_SECTOR, DISK_SECTOR);
    }
    return snap;
}

void media_sync_end(struct media_file *file, struct media_snap *snap, bool well)
{
    for (size_t k = 0; k < snap->count; k++) {
        size_t i = snap->at[k].sector;
        uint64_t *stamp = &file->stamps[i];
        bool same = *stamp != 0 && *stamp <= snap->stamp; /* not written since */

        if (well && *stamp != 0 && snap->stamp >= file->synced) /* else a later sync was quicker */
            memcpy(file->durable + i * DISK_SECTOR, snap->at[k].bytes, DISK_SECTOR);
        if (same)
            *stamp = well ? 0 : LOST;
    }
    if (well) {
        lengthen(file, snap->len);
        file->synced = RH_MAX(file->synced, snap->stamp);
    }
    free(snap);
}

void media_snap_free(struct media_snap *snap)
{
    free(snap);
}

/* ---- the power ---- */

static size_t cut_length(const struct media_file *file, uint64_t *rand)
{
    size_t more = file->len - file->durable_len;

    switch (media_rand(rand) % 3) {
    case 0:
        return file->durable_len;
    case 1:
        return file->len;
    default:
        return file->durable_len + media_rand(rand) % (more + 1);
    }
}

static void cut_file(struct media_file *file, uint64_t *rand)
{
    size_t len = cut_length(file, rand);

    for (size_t i = 0; i < sectors(file->len); i++)
        if (file->stamps[i] != 0 && coin(rand))
            sector_keep(file, i);
    if (file->room == 0)
        return;
    memset(file->durable + len, 0, file->room - len);
    memcpy(file->seen, file->durable, file->room);
    memset(file->stamps, 0, sectors(file->room) * sizeof(*file->stamps));
    file->len = file->durable_len = len;
}

void media_cut(uint64_t *rand)
{
    for (size_t i = 0; i < change_count; i++)
        if (coin(rand))
            dir_apply(&durable, &changes[i]);
    change_count = 0;
    seen = durable;
    for (struct media_file *file = files; file; file = file->next)
        cut_file(file, rand);
    sweep();
}

/* ---- questions ---- */

uint64_t media_used(void)
{
    uint64_t bytes = 0;

    for (struct media_file *file = files; file; file = file->next)
        file->marked = file->holds > 0;
    mark(&seen);
    for (struct media_file *file = files; file; file = file->next)
        bytes += file->marked ? file->len : 0;
    return bytes;
}

unsigned media_unsynced_bytes(void)
{
    unsigned count = 0;

    for (struct media_file *file = files; file; file = file->next) {
        count += file->len != file->durable_len;
        for (size_t i = 0; i < sectors(file->len); i++)
            count += file->stamps[i] != 0;
    }
    return count;
}

unsigned media_unsynced(void)
{
    return (unsigned)change_count + media_unsynced_bytes();
}

/* ---- tampering ---- */

void media_force(struct media_file *file)
{
    for (size_t i = 0; i < sectors(file->room); i++)
        if (file->stamps[i] != 0)
            sector_keep(file, i);
    if (file->room)
        memset(file->stamps, 0, sectors(file->room) * sizeof(*file->stamps));
    file->durable_len = file->len;
}

void media_force_names(void)
{
    media_dir_end(change_last);
}

void media_truncate(struct media_file *file, size_t len)
{
    grow(file, len);
    if (len < file->len)
        memset(file->seen + len, 0, file->len - len);
    file->len = len;
    if (file->room)
        memcpy(file->durable, file->seen, file->room);
    media_force(file);
}
