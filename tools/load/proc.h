/* tools/load/proc.h - what /proc says about the server and this machine.
 *
 * Threads    any; each function reads files and keeps nothing.
 */
#ifndef LOAD_PROC_H
#define LOAD_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct load_proc {
    bool there;       /* the process lives */
    uint64_t cpu_ns;  /* of all its threads that live, as the scheduler counted it (exact) */
    uint64_t user_ns; /* the same in two parts, as the clock's tick found them (steps of 10 ms): */
    uint64_t system_ns; /* right in proportion, over some seconds */
    uint64_t rss;       /* bytes of memory that are resident, */
    uint64_t rss_anon;  /* and of these its own, without files' pages */
    uint64_t slab;      /* bytes of the kernel's own objects, of the whole machine */
    uint64_t sockets;   /* that are allocated, of all processes in this network namespace */
    uint64_t tcp_bytes; /* in TCP's buffers, of the whole machine, in whole pages */
};

void load_proc_read(pid_t pid, struct load_proc *ret);

/* For how long a thread of this process was ready to run and had no CPU; 0 where nobody counts. */
uint64_t load_proc_waited_ns(pid_t thread);

#endif
