/* tools/load/report_int.h - what report.c and report_json.c share: figures out of a result. */
#ifndef LOAD_REPORT_INT_H
#define LOAD_REPORT_INT_H

#include "tools/load/report.h"

struct load_percentile {
    const char *name;
    double share;
};

#define LOAD_PERCENTILES 5
extern const struct load_percentile load_percentiles[LOAD_PERCENTILES];

struct load_figures {
    double seconds;     /* of the window */
    uint64_t completed; /* messages in it */
    double rate;
    double server_percent; /* of one CPU; may be over 100 */
    double server_ns;      /* per message (connect: per connection): all, */
    double server_user_ns; /* in user mode, */
    double server_system_ns;

    /* The tool in the time that matters (connect: while opening; else the window): */
    double tool_percent[LOAD_THREADS_MAX];      /* of a CPU, */
    double tool_wait_percent[LOAD_THREADS_MAX]; /* ready to run but without a CPU, */
    double tool_all_percent;                    /* of a CPU, all threads together */
    double tool_ns;                             /* of CPU per message, or connection opened */

    /* Mode connect: the server's CPU while holding, per connection and second; bytes per connection. */
    double idle_ns;
    double rss;
    double anon;
    double slab;
    double tcp;
};

void load_figures_make(const struct load_result *r, struct load_figures *ret);

#endif
