/* core/machine.c - reads /proc and the control groups' files.
 *
 * A limit may stand at any level above the process's own group, so all are looked at. Inside a
 * container the path that /proc names may not exist below /sys/fs/cgroup: what is not there counts as
 * no limit, and the root of what is there is looked at last.
 */
#include "core/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/base.h"

#define PATH_ROOM 512
#define TEXT_ROOM 8192

/* The contents of a file as text, cut to fit; "" if it cannot be read. */
static void read_text(const char *path, char *dst, size_t room)
{
    FILE *file = fopen(path, "re");
    size_t len = file ? fread(dst, 1, room - 1, file) : 0;

    dst[len] = '\0';
    if (file)
        fclose(file);
}

static uint64_t read_number(const char *path, uint64_t otherwise)
{
    char text[64], *end;
    uint64_t value;

    read_text(path, text, sizeof(text));
    value = strtoull(text, &end, 10); /* "max" is no number */
    return end == text ? otherwise : value;
}

/* ---- control groups ---- */

struct version {
    const char *key;   /* in /proc/self/cgroup, behind the first colon */
    const char *below; /* the root */
    const char *limit, *usage;
    const char *idle; /* in memory.stat */
};

static const struct version versions[] = {
    {":", "", "memory.max", "memory.current", "\ninactive_file "},
    {"memory:", "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "\ntotal_inactive_file "},
};

/* Of what a group has used, what the kernel takes back first. */
static uint64_t idle_in(const char *path, const char *key)
{
    char text[TEXT_ROOM];
    const char *at;

    text[0] = '\n';
    read_text(path, text + 1, sizeof(text) - 1);
    at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static uint64_t left_in(const struct version *v, const char *root, const char *group, int len)
{
    char path[PATH_ROOM];
    uint64_t limit, usage;

    snprintf(path, sizeof(path), "%s%s%.*s/%s", root, v->below, len, group, v->limit);
    limit = read_number(path, UINT64_MAX);
    if (limit == UINT64_MAX)
        return limit;
    snprintf(path, sizeof(path), "%s%s%.*s/%s", root, v->below, len, group, v->usage);
    usage = read_number(path, 0);
    snprintf(path, sizeof(path), "%s%s%.*s/memory.stat", root, v->below, len, group);
    usage -= RH_MIN(usage, idle_in(path, v->idle));
    return limit > usage ? limit - usage : 0;
}

static uint64_t left_up(const struct version *v, const char *root, const char *group, int len)
{
    uint64_t least = UINT64_MAX;

    while (len > 0 && group[len - 1] == '/')
        len--;
    for (;;) {
        least = RH_MIN(least, left_in(v, root, group, len));
        if (len == 0)
            return least;
        while (len > 0 && group[--len] != '/')
            ;
    }
}

uint64_t rh_machine_cgroup(const char *self, const char *root)
{
    uint64_t least = UINT64_MAX;

    for (const char *line = self; *line; line += strspn(line, "\n")) {
        size_t len = strcspn(line, "\n");
        const char *key = memchr(line, ':', len);

        for (size_t i = 0; key && i < RH_COUNT(versions); i++) {
            size_t skip = 1 + strlen(versions[i].key);

            if (strncmp(key + 1, versions[i].key, skip - 1) == 0)
                least = RH_MIN(
                    least, left_up(&versions[i], root, key + skip, (int)(line + len - key - skip)));
        }
        line += len;
    }
    return least;
}

/* ---- what there is ---- */

uint64_t rh_machine_memory(void)
{
    char text[TEXT_ROOM];
    const char *line;
    uint64_t available = RH_MEMORY_UNKNOWN, group;

    read_text("/proc/meminfo", text, sizeof(text));
    line = strstr(text, "MemAvailable:");
    if (line)
        available = strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024;
    read_text("/proc/self/cgroup", text, sizeof(text));
    group = rh_machine_cgroup(text, "/sys/fs/cgroup");
    return RH_MIN(available, group); /* RH_MEMORY_UNKNOWN is the largest number */
}

uint32_t rh_machine_descriptors(void)
{
    struct rlimit limit = {0};

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit more = {limit.rlim_max, limit.rlim_max};

        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            limit = more;
    }
    return (uint32_t)RH_MIN(limit.rlim_cur, UINT32_MAX);
}
