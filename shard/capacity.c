/* shard/capacity.c - the arithmetic of connections: memory, descriptors, and what is configured.
 *
 * Ordinary descriptors are counted for the whole process, direct ones for each shard: so direct ones
 * are taken where RLIMIT_NOFILE would be what bounds a hub, and ordinary ones elsewhere, which any
 * kernel has. Users are spread over the shards by a hash, so the sum of all tables is not reached
 * exactly; a shard whose table is full refuses, and the others go on.
 */
#include "shard/capacity.h"

#include "core/err.h"
#include "core/uring.h"
#include "shard/shard.h"

#define PROCESS_FILES 64 /* standard ones, log, configuration, an allocator's, a few borrowed */
#define SHARD_FILES   8  /* a ring, its wake-up, and what its start needs for a moment */

/* Connections that have room if all descriptors are ordinary. */
static uint32_t room_ordinary(const struct rh_config *cfg, const struct rh_machine *m)
{
    uint32_t own = PROCESS_FILES + RH_TABLE_SPARE + cfg->shards * (SHARD_FILES + cfg->listen.count);

    return m->descriptors > own ? m->descriptors - own : 1;
}

static uint32_t room_direct(const struct rh_config *cfg, uint32_t files)
{
    uint64_t room = (uint64_t)(files - RH_TABLE_SPARE) * cfg->shards;

    return (uint32_t)RH_MIN(room, UINT32_MAX);
}

static uint32_t room_memory(const struct rh_machine *m)
{
    uint64_t room = m->memory / 100 * RH_MEMORY_PERCENT / RH_CONN_BYTES;

    return (uint32_t)RH_MIN(RH_MAX(room, 1), UINT32_MAX);
}

/* A table for so many connections, with its spare slots and the accepts that wait. */
static uint32_t table_for(const struct rh_config *cfg, const struct rh_machine *m,
                          uint32_t connections)
{
    uint64_t files =
        (uint64_t)connections + RH_TABLE_SPARE + (uint64_t)RH_ACCEPTS * cfg->listen.count;

    return (uint32_t)RH_MIN(RH_MIN(files, m->descriptors), RH_FILES_MAX);
}

static bool table_useful(const struct rh_config *cfg, const struct rh_machine *m)
{
    return m->descriptors >= RH_TABLE_SPARE + RH_ACCEPTS * cfg->listen.count;
}

static int check_direct(const struct rh_config *cfg, const struct rh_machine *m,
                        struct rh_fault *fault)
{
    if (!m->direct)
        return rh_fault_set(fault, RH_EUNSUPPORTED, "io.descriptors: direct cannot be had: %s",
                            m->why);
    if (!table_useful(cfg, m))
        return rh_fault_set(fault, RH_EINVAL,
                            "io.descriptors: direct needs an RLIMIT_NOFILE of at least %u, and it "
                            "is %u: raise it (ulimit -n, systemd's LimitNOFILE=)",
                            RH_TABLE_SPARE + RH_ACCEPTS * cfg->listen.count, m->descriptors);
    return RH_OK;
}

static const char *descriptors_hint(const struct rh_config *cfg, const struct rh_machine *m,
                                    uint32_t files)
{
    if (files)
        return "raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=), or have more shards";
    if (cfg->io_descriptors == RH_DESCRIPTORS_ORDINARY)
        return "raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=), or io.descriptors: auto";
    return m->direct ? "raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)" : m->why;
}

int rh_capacity(const struct rh_config *cfg, const struct rh_machine *m,
                struct rh_capacity *ret_capacity, struct rh_fault *fault)
{
    uint32_t memory = room_memory(m), ordinary = room_ordinary(cfg, m);
    uint32_t want = cfg->limits_connections ? cfg->limits_connections : memory;
    bool direct = cfg->io_descriptors == RH_DESCRIPTORS_DIRECT;
    struct rh_capacity *c = ret_capacity;
    int rc = direct ? check_direct(cfg, m, fault) : RH_OK;

    if (rc < 0)
        return rc;
    if (cfg->io_descriptors == RH_DESCRIPTORS_AUTO)
        direct = want > ordinary && m->direct && table_useful(cfg, m);
    c->files = direct ? table_for(cfg, m, want) : 0;
    c->reachable = direct ? room_direct(cfg, c->files) : ordinary;
    c->room = RH_MIN(memory, c->reachable);
    c->computed = !cfg->limits_connections;
    c->connections = c->computed ? c->room : cfg->limits_connections;
    c->bound = "configuration";
    c->hint = "raise limits.connections";
    if (c->reachable < want) {
        c->bound = "descriptors";
        c->hint = descriptors_hint(cfg, m, c->files);
    } else if (c->computed) {
        c->bound = "memory";
        c->hint = "set limits.connections, if connections may take more than 80 % of the memory";
    }
    return RH_OK;
}
