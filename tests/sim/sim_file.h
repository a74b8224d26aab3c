/* tests/sim/sim_file.h - descriptors and the files behind them; what sim_uring.c and sim_file.c
 * share.
 *
 * A descriptor is a number for a file; a file is a listener or a connection's server end. Operations
 * hold a file open, too: a descriptor that was closed while one is under way stays a connection (no
 * end of stream is sent, and its number may mean another file by then).
 */
#ifndef SIM_FILE_H
#define SIM_FILE_H

#include "tests/sim/sim_net.h"

struct sim_file {
    unsigned refs; /* its descriptor and operations */
    bool reset_at_close;
    struct sim_end *end; /* a connection; NULL: a listener */
    struct sim_end **backlog;
    unsigned backlog_count, backlog_room;
    /* Operations under way, to be tried again when something has changed. */
    struct rh_list ops;
    void (*changed)(struct sim_file *file);
};

void sim_files_begin(void);
/* The lowest free number, as a kernel would. */
int sim_fd_open(struct sim_end *end_or_NULL, void (*changed)(struct sim_file *file));
struct sim_file *sim_fd_find(int fd); /* NULL: not open */
void sim_fd_close(int fd, bool abort);
void sim_file_ref(struct sim_file *file);
void sim_file_unref(struct sim_file *file);

/* Connections that wait at a listener. */
struct sim_end *sim_backlog_take(struct sim_file *file); /* NULL: none */

#endif
