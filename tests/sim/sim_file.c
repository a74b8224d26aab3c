/* tests/sim/sim_file.c - descriptors and the files behind them; see sim_file.h. */
#include "tests/sim/sim_file.h"

#include <errno.h>
#include <string.h>

#include "tests/sim/sim_uring.h"

#define FDS_MAX  4096
#define FD_FIRST 3
#define BACKLOG  1024

static struct sim_file *fds[FDS_MAX];
static unsigned files_open;

struct sim_table sim_process = {fds, FD_FIRST, FDS_MAX};

void sim_files_begin(void)
{
    memset(fds, 0, sizeof(fds));
    files_open = 0;
}

static void end_changed(void *arg)
{
    struct sim_file *file = arg;

    file->changed(file);
}

int sim_fd_copy(struct sim_table *t, struct sim_file *file)
{
    unsigned fd = t->first;

    while (fd < t->room && t->at[fd])
        fd++;
    if (fd >= t->room)
        return -ENFILE;
    t->at[fd] = file;
    file->refs++;
    return (int)fd;
}

int sim_fd_open(struct sim_table *t, struct sim_end *end_or_NULL,
                void (*on_change)(struct sim_file *file))
{
    struct sim_file *file = sim_keep(sizeof(*file));
    int fd = sim_fd_copy(t, file);

    if (fd < 0)
        return fd;
    files_open++;
    file->end = end_or_NULL;
    file->changed = on_change;
    rh_list_init(&file->ops);
    if (file->end) {
        file->end->changed = end_changed;
        file->end->arg = file;
    } else {
        file->backlog_room = BACKLOG;
        file->backlog = sim_keep(BACKLOG * sizeof(struct sim_end *));
    }
    return fd;
}

struct sim_file *sim_fd_find(const struct sim_table *t, int fd)
{
    return fd >= 0 && (unsigned)fd < t->room ? t->at[fd] : NULL;
}

void sim_file_ref(struct sim_file *file)
{
    file->refs++;
}

void sim_file_unref(struct sim_file *file)
{
    struct sim_end *waiting;

    if (--file->refs)
        return;
    files_open--;
    if (file->end)
        sim_close(file->end, file->reset_at_close);
    else
        while ((waiting = sim_backlog_take(file)))
            sim_close(waiting, true); /* nobody will accept them any more */
}

void sim_fd_close(struct sim_table *t, int fd, bool abort)
{
    struct sim_file *file = sim_fd_find(t, fd);

    SIM_CHECK(file, "descriptor %d is closed, but not open", fd);
    sim_trace("close fd=%d%s", fd, abort ? " reset" : "");
    t->at[fd] = NULL;
    file->reset_at_close |= abort;
    sim_file_unref(file);
}

void sim_table_close(struct sim_table *t)
{
    for (unsigned fd = t->first; fd < t->room; fd++)
        if (t->at[fd])
            sim_fd_close(t, (int)fd, false);
}

unsigned sim_fds_open(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < FDS_MAX; fd++)
        count += fds[fd] != NULL;
    return count;
}

unsigned sim_files_open(void)
{
    return files_open;
}

/* ---- listeners ---- */

bool sim_knock(struct sim_end *server)
{
    struct sim_file *open[FDS_MAX];
    unsigned count = 0;
    struct sim_file *file;

    for (int fd = 0; fd < FDS_MAX; fd++)
        if (fds[fd] && !fds[fd]->end)
            open[count++] = fds[fd];
    if (!count)
        return false;
    file = open[sim_below(count)];
    if (file->backlog_count == file->backlog_room)
        return false;
    file->backlog[file->backlog_count++] = server;
    file->changed(file);
    return true;
}

struct sim_end *sim_backlog_take(struct sim_file *file)
{
    struct sim_end *first = file->backlog[0];

    if (!file->backlog_count)
        return NULL;
    file->backlog_count--;
    memmove(file->backlog, file->backlog + 1, file->backlog_count * sizeof(*file->backlog));
    return first;
}
