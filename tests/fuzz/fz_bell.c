/* tests/fuzz/fz_bell.c - bells that nobody waits on; see fz_bell.h. */
#include "tests/fuzz/fz_bell.h"

#include "core/limits.h"
#include "core/mem.h"
#include "core/ringhub.h"
#include "core/thread.h"

#define NAP_MS 1

struct rh_bell {
    int tid;
    bool asleep, rung;
};

static struct rh_bell *bells[RH_MESH_MAX];

int rh_bell_create(struct rh_bell **ret_bell)
{
    struct rh_bell *bell = rh_mem_zalloc(sizeof(*bell));

    if (!bell)
        return RH_ENOMEM;
    bell->tid = rh_tid_self();
    bells[bell->tid] = bell;
    *ret_bell = bell;
    return RH_OK;
}

void rh_bell_destroy(struct rh_bell *bell)
{
    if (!bell)
        return;
    bells[bell->tid] = NULL;
    rh_mem_free(bell);
}

void rh_bell_wait(struct rh_bell *bell, uint64_t ms)
{
    bell->asleep = ms > NAP_MS;
}

void rh_bell_ring_any(struct rh_bell *bell)
{
    bell->rung = true;
}

bool fz_bell_due(unsigned tid)
{
    struct rh_bell *bell = bells[tid];

    if (bell->rung)
        bell->asleep = false;
    bell->rung = false;
    return !bell->asleep;
}
