/* tools/load/report.h - what a run found, for a person and for a program.
 *
 * docs/benchmarking.md says what each figure means.
 */
#ifndef LOAD_REPORT_H
#define LOAD_REPORT_H

#include <stdio.h>

#include "tools/load/load.h"
#include "tools/load/proc.h"

/* A moment: one edge of the measured window. */
struct load_sample {
    uint64_t at_ns;
    uint64_t completed;                 /* messages so far, of all workers */
    uint64_t tool_ns[LOAD_THREADS_MAX]; /* CPU time of each worker so far, */
    uint64_t wait_ns[LOAD_THREADS_MAX]; /* and how long it had to wait for a CPU */
    struct load_proc server;
};

struct load_totals {
#define LOAD_TOTAL_FIELD(name, fault, words) uint64_t name;
    LOAD_COUNTS(LOAD_TOTAL_FIELD)
#undef LOAD_TOTAL_FIELD
};

struct load_result {
    const struct load_opts *opts;
    bool interrupted;
    bool measured;             /* there was a window: `begin` and `end` are valid */
    uint64_t open_ns;          /* how long opening all connections took */
    uint32_t cpus;             /* that the tool may run on */
    struct load_proc before;   /* the server before the first connection, */
    struct load_sample opened; /* and when all were open, or refused */
    struct load_sample begin;  /* edges of the window */
    struct load_sample end;
    struct load_totals totals; /* of the whole run, warm-up included */
    uint32_t text_bytes;       /* fanout: of a message as ringhub sent it */
    struct rh_hist latency, answer, status, upgrade, welcome, late;
    struct load_class_book classes[LOAD_CLASS_COUNT]; /* ack, mixed: those that are sent */
    struct rh_fault first[LOAD_THREADS_MAX];          /* what went wrong first in each worker */
};

/* Why the load tool itself was too slow, into `dst`; false: it was not. */
bool load_report_bottleneck(const struct load_result *r, char *dst, size_t room);

/* Does this run send messages of class `i`, and keep books of it? */
bool load_report_has_class(const struct load_result *r, int i);

/* Was anything lost, reordered, corrupted, refused or broken? */
bool load_report_faults(const struct load_result *r);

void load_report_print(const struct load_result *r, FILE *to);
void load_report_json(const struct load_result *r, FILE *to);

/* The line that a terminal shows while it runs. */
void load_report_live(FILE *to, double seconds, uint64_t open, double rate,
                      const struct rh_hist *latency);

#endif
