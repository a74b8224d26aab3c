/* tools/load/run.h - one run from the first connection to the result.
 *
 * Threads    the main thread, once per process: SIGINT and SIGTERM are taken to end it early.
 */
#ifndef LOAD_RUN_H
#define LOAD_RUN_H

#include "tools/load/report.h"

/* Raises the limit of open files; RH_EINVAL where the connections do not fit under the hard one. */
int load_run_files(const struct load_opts *opts, struct rh_fault *fault);

/* Runs and fills `ret`, which load_result_fini frees in any case (zeroed before the call). */
int load_run(const struct load_opts *opts, struct load_result *ret, struct rh_fault *fault);
void load_result_fini(struct load_result *r);

#endif
