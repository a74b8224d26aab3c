/* core/snapshot.c - configurations that threads share; see config.h. */
#include "core/config.h"
#include "core/mem.h"

struct rh_snapshot *rh_snapshot_make(struct rh_config *take_cfg)
{
    struct rh_snapshot *s = rh_mem_alloc(sizeof(*s));

    if (!s)
        return NULL;
    atomic_init(&s->holds, 1);
    s->cfg = take_cfg;
    return s;
}

void rh_snapshot_hold_any(struct rh_snapshot *s)
{
    atomic_fetch_add_explicit(&s->holds, 1, memory_order_relaxed);
}

void rh_snapshot_drop_any(struct rh_snapshot *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->holds, 1, memory_order_acq_rel) > 1)
        return;
    rh_config_destroy(s->cfg);
    rh_mem_free(s);
}
