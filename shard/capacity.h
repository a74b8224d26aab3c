/* shard/capacity.h - how many connections a hub can have, and which descriptors it has them on.
 *
 * Threads    any; no state.
 */
#ifndef RH_CAPACITY_H
#define RH_CAPACITY_H

#include "core/config.h"

#define RH_CONN_BYTES     (8u << 10) /* of memory per connection, the kernel's share included */
#define RH_MEMORY_PERCENT 80         /* of what is available that connections may take */

/* What there is: core/machine and core/uring say. */
struct rh_machine {
    uint64_t memory;      /* bytes, or RH_MEMORY_UNKNOWN (core/machine.h) */
    uint32_t descriptors; /* RLIMIT_NOFILE */
    bool direct;          /* direct descriptors work; else `why` says what is missing */
    const char *why;
};

struct rh_capacity {
    uint32_t files;       /* slots of each shard's table; 0: ordinary descriptors */
    uint32_t connections; /* limits.connections, or what was computed in its place */
    bool computed;
    const char *bound;  /* "configuration", "memory", "descriptors" */
    const char *hint;   /* what to do for more */
    uint32_t reachable; /* connections for which there are descriptors */
    uint32_t room;      /* and memory: limits.connections, whenever that is 0 */
};

/* RH_EUNSUPPORTED, RH_EINVAL: io.descriptors asks for what cannot be had. */
int rh_capacity(const struct rh_config *cfg, const struct rh_machine *m,
                struct rh_capacity *ret_capacity, struct rh_fault *fault);

#endif
