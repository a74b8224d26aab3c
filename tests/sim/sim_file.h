/* tests/sim/sim_file.h - descriptors and the files behind them; what sim_uring.c and sim_file.c
 * share.
 *
 * A descriptor is a number for a file in a table: the process's, or a ring's (direct ones, without
 * their bit here). A file is a listener or a connection's server end, may stand in several tables, and
 * closes when it stands in none. Operations
 * hold a file open, too: a descriptor that was closed while one is under way stays a connection (no
 * end of stream is sent, and its number may mean another file by then).
 */
#ifndef SIM_FILE_H
#define SIM_FILE_H

#include "tests/sim/sim_net.h"

struct sim_file {
    unsigned refs; /* its descriptors and operations */
    bool reset_at_close;
    struct sim_end *end; /* a connection; NULL: a listener */
    struct sim_end **backlog;
    unsigned backlog_count, backlog_room;
    /* Operations under way, to be tried again when something has changed. */
    struct rh_list ops;
    void (*changed)(struct sim_file *file);
};

struct sim_table {
    struct sim_file **at;
    unsigned first, room;
};

extern struct sim_table sim_process;

void sim_files_begin(void);
/* The lowest free number, as a kernel would, or -ENFILE. */
int sim_fd_open(struct sim_table *t, struct sim_end *end_or_NULL,
                void (*changed)(struct sim_file *file));
int sim_fd_copy(struct sim_table *t, struct sim_file *file);     /* likewise, to another table */
struct sim_file *sim_fd_find(const struct sim_table *t, int fd); /* NULL: not open */
void sim_fd_close(struct sim_table *t, int fd, bool abort);
void sim_table_close(struct sim_table *t); /* all that is in it */
void sim_file_ref(struct sim_file *file);
void sim_file_unref(struct sim_file *file);

/* Connections that wait at a listener. */
struct sim_end *sim_backlog_take(struct sim_file *file); /* NULL: none */

#endif
