/* tools/load/proc.c - /proc/PID/stat, task/ * /schedstat, status; /proc/meminfo, /proc/net/sockstat.
 *
 * Two sources for one thing: utime and stime tell user from system, but the tick samples them;
 * schedstat has the sum in nanoseconds, but not the parts. Whoever wants exact parts takes the sum
 * and splits it in their proportion (report.c).
 */
#include "tools/load/proc.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base.h"

static bool read_file(const char *path, char *dst, size_t room)
{
    FILE *f = fopen(path, "re");
    size_t len = f ? fread(dst, 1, room - 1, f) : 0;

    if (f)
        fclose(f);
    dst[len] = '\0';
    return len > 0;
}

/* The number behind `name`; 0 if there is none. */
static uint64_t number_of(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static uint64_t kb_of(const char *text, const char *name)
{
    return number_of(text, name) * 1024;
}

static void read_machine(struct load_proc *ret)
{
    char text[8192];
    const char *tcp;

    if (read_file("/proc/meminfo", text, sizeof(text)))
        ret->slab = kb_of(text, "Slab:");
    tcp = read_file("/proc/net/sockstat", text, sizeof(text)) ? strstr(text, "TCP:") : NULL;
    if (!tcp)
        return;
    ret->sockets = number_of(tcp, " alloc ");
    ret->tcp_bytes = number_of(tcp, " mem ") * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t threads_cpu_ns(pid_t pid)
{
    char path[64 + 256], text[128];
    struct dirent *entry;
    uint64_t sum = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    dir = opendir(path);
    while (dir && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int)pid, entry->d_name);
        if (read_file(path, text, sizeof(text)))
            sum += strtoull(text, NULL, 10);
    }
    if (dir)
        closedir(dir);
    return sum;
}

uint64_t load_proc_waited_ns(pid_t thread)
{
    char path[64], text[128];
    unsigned long long waited;

    snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)thread);
    if (!read_file(path, text, sizeof(text)) || sscanf(text, "%*u %llu", &waited) != 1)
        return 0;
    return waited;
}

/* utime and stime are the 14th and 15th word; the second is a name in parentheses. */
static bool read_ticks(pid_t pid, uint64_t *ret_user, uint64_t *ret_system)
{
    char path[64], text[2048], *at;
    unsigned long long user, system;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!read_file(path, text, sizeof(text)))
        return false;
    at = strrchr(text, ')');
    if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                      &system) != 2)
        return false;
    *ret_user = user;
    *ret_system = system;
    return true;
}

void load_proc_read(pid_t pid, struct load_proc *ret)
{
    char path[64], text[8192];
    uint64_t tick_ns = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);

    memset(ret, 0, sizeof(*ret));
    read_machine(ret);
    if (!read_ticks(pid, &ret->user_ns, &ret->system_ns))
        return;
    ret->there = true;
    ret->user_ns *= tick_ns;
    ret->system_ns *= tick_ns;
    ret->cpu_ns = threads_cpu_ns(pid);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    if (read_file(path, text, sizeof(text))) {
        ret->rss = kb_of(text, "VmRSS:");
        ret->rss_anon = kb_of(text, "RssAnon:");
    }
}
