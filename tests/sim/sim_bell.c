/* tests/sim/sim_bell.c - bells that nobody waits on; see sim_bell.h. */
#include "tests/sim/sim_bell.h"

#include <string.h>

#include "core/limits.h"
#include "core/mem.h"
#include "core/ringhub.h"
#include "core/thread.h"

#define NAP_MS 1 /* so short a wait is not sleeping, but letting others go first */

struct rh_bell {
    int tid;
    bool asleep, naps;
    uint64_t until_ns; /* asleep */
    uint64_t ring_ns;  /* when a ring is heard; SIM_NEVER: none */
};

static struct rh_bell *bells[RH_MESH_MAX];

int rh_bell_create(struct rh_bell **ret_bell)
{
    struct rh_bell *bell = rh_mem_zalloc(sizeof(*bell));

    if (!bell)
        return RH_ENOMEM;
    bell->tid = rh_tid_self();
    bell->ring_ns = SIM_NEVER;
    SIM_CHECK(bell->tid >= 0 && !bells[bell->tid], "thread %d has a bell already", bell->tid);
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
    SIM_CHECK(bell->tid == rh_tid_self(), "thread %d waits for the bell of %d", rh_tid_self(),
              bell->tid);
    bell->asleep = ms != 0;
    bell->naps = ms <= NAP_MS;
    bell->until_ns = ms < SIM_NEVER / SIM_MS ? sim_now() + ms * SIM_MS : SIM_NEVER;
}

void rh_bell_ring_any(struct rh_bell *bell)
{
    if (bell->ring_ns == SIM_NEVER)
        bell->ring_ns = sim_now() + sim_below(20 * SIM_US);
}

void sim_bells_drop(void)
{
    memset(bells, 0, sizeof(bells));
}

uint64_t sim_bell_due(unsigned tid)
{
    const struct rh_bell *bell = bells[tid];

    return bell->asleep ? RH_MIN(bell->until_ns, bell->ring_ns) : sim_now();
}

void sim_bell_wake_up(unsigned tid)
{
    struct rh_bell *bell = bells[tid];

    if (bell->ring_ns <= sim_now())
        bell->ring_ns = SIM_NEVER;
    bell->asleep = false;
}

bool sim_bell_asleep(unsigned tid)
{
    const struct rh_bell *bell = bells[tid];

    return bell->asleep && !bell->naps && bell->ring_ns == SIM_NEVER;
}
