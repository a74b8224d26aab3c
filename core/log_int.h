/* core/log_int.h - between log.c (who writes, when) and log_line.c (what a line looks like). */
#ifndef RH_LOG_INT_H
#define RH_LOG_INT_H

#include "core/log.h"

struct rh_log_line {
    uint32_t len;
    bool cut; /* something did not fit */
    char at[RH_LOG_LINE];
};

/* Builds a whole line, newline included. `lost` and `suppressed` are told where they are not 0. */
void rh_log_format(struct rh_log_line *line, enum rh_log_format format, uint64_t wall_us,
                   enum rh_log_level level, uint64_t lost, uint64_t suppressed,
                   const struct rh_log_kv *kv, size_t n);

#endif
