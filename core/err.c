/* core/err.c - texts of errors. */
#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/base.h"

static const struct {
    const char *name;
    unsigned status;
} wire_errors[RH_WIRE_ERRORS] = {
    [RH_WIRE_NONE] = {"none", 200},
#define RH_WIRE_ERROR(name, status) [RH_WIRE_##name] = {#name, status},
#include "core/err.def"
#undef RH_WIRE_ERROR
};

const char *rh_wire_error_name(enum rh_wire_error err)
{
    rh_assert(err < RH_WIRE_ERRORS);
    return wire_errors[err].name;
}

unsigned rh_wire_error_status(enum rh_wire_error err)
{
    rh_assert(err < RH_WIRE_ERRORS);
    return wire_errors[err].status;
}

int rh_fault_set(struct rh_fault *fault, int err, const char *fmt, ...)
{
    va_list args;

    if (!fault)
        return err;
    va_start(args, fmt);
    vsnprintf(fault->text, sizeof(fault->text), fmt, args);
    va_end(args);
    return err;
}

const char *rh_err_text(int err)
{
    switch (err) {
    case RH_OK:
        return "done";
    case RH_ENOMEM:
        return "no memory";
    case RH_EINVAL:
        return "not allowed";
    case RH_EFULL:
        return "full";
    case RH_ETHREAD:
        return "wrong thread";
    case RH_ETIMEDOUT:
        return "timed out";
    case RH_EIO:
        return "operating system error";
    case RH_EADDRINUSE:
        return "address in use";
    case RH_ENOTFOUND:
        return "not found";
    case RH_EUNSUPPORTED:
        return "not supported";
    case RH_ESTATE:
        return "not possible in this state";
    case RH_ECLOSED:
        return "closed";
    default:
        return "unknown error";
    }
}

const char *rh_version(void)
{
    return RH_VERSION;
}
