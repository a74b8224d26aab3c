/* tools/load/run.h - one run from the first connection to the result.
 *
 * Threads    the main thread, once per process: SIGINT and SIGTERM are taken to end it early.
 */
#ifndef LOAD_RUN_H
#define LOAD_RUN_H

#include "tools/load/report.h"

/* Raises the limit of open files. Where the connections do not fit under the hard one, they get direct
 * descriptors and, if the number of threads is free, as many threads as their tables need. RH_EINVAL:
 * too few threads. */
int load_run_files(struct load_opts *opts, struct rh_fault *fault);

/* Runs and fills `ret`, which load_result_fini frees in any case (zeroed before the call). */
int load_run(const struct load_opts *opts, struct load_result *ret, struct rh_fault *fault);
void load_result_fini(struct load_result *r);

#endif
