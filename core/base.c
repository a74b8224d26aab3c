/* core/base.c - the parts of base.h that are not worth inlining. */
#include "core/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rh_assert_fail(const char *rule, const char *file, int line)
{
    fprintf(stderr, "ringhub: broken rule at %s:%d: %s\n", file, line, rule);
    abort();
}

bool rh_span_eq(struct rh_span a, struct rh_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}
