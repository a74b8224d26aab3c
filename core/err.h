/* core/err.h - error names and codes that leave the process, from core/err.def.
 *
 * Our own functions return enum rh_err (ringhub.h); what a client is told is one of these.
 */
#ifndef RH_ERR_H
#define RH_ERR_H

#include "core/ringhub.h"

enum rh_wire_error {
    RH_WIRE_NONE,
#define RH_WIRE_ERROR(name, status) RH_WIRE_##name,
#include "core/err.def"
#undef RH_WIRE_ERROR
    RH_WIRE_ERRORS
};

const char *rh_wire_error_name(enum rh_wire_error err); /* "bad_request" */
unsigned rh_wire_error_status(enum rh_wire_error err);  /* 400 */

/* Writes a printf-formatted sentence into `fault` (which may be NULL) and returns `err`. */
int rh_fault_set(struct rh_fault *fault, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
