/* Goal    whatever the disk does, in any order, what was told to be durable comes back, in its order and
 *         once, without a hole, and behind it at most what was put.
 * Method  a model: the numbers that were put, of which a prefix was told. Runs with luck (delays, short
 *         writes, failures, a full disk, one that hangs), ended by a power cut, a kill or a close at a random
 *         moment, the next run on the same disk; segments are released at random. */
#include "store/journal.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/store/disk.h"
#include "tests/store/journal_rig.h"

static struct rig rig;

static unsigned chance(unsigned of)
{
    return (unsigned)(rh_test_rand() % of);
}

/* ---- ends at random moments ---- */

struct model {
    uint64_t told;     /* the highest number that was told, in all runs */
    uint64_t seen;     /* the highest that was told or came back */
    uint64_t released; /* numbers up to it may be gone */
    uint64_t at[4096]; /* number % 4096: the segment that was written to when it was put */
};

static struct model model;

static void end_run(void)
{
    const unsigned how = chance(5);
    const uint64_t seed = rh_test_rand();

    disk_hang(0); /* who closes waits */
    if (how < 2)
        disk_cut(seed);
    else if (how < 4)
        disk_kill(seed);
    if (how < 4)
        rig_bury(&rig);
    else
        rig_close(&rig);
}

/* What has come back is a run of numbers that covers all that was told and not released. */
static void begin_run(void)
{
    const struct disk_luck none = {0};
    uint64_t told;

    disk_luck(1, &none);
    disk_room(UINT64_MAX);
    disk_hang(0);
    if (rig_open(&rig) < 0)
        RH_FAIL("open: %s", rig.fault.text);
    if (rig.read == 0 && model.released >= model.told) {
        model.released = model.seen; /* nothing was needed, nothing is there */
        rig.next = model.seen + 1;
    }
    told = model.told;
    if (rig.holes || (told && rig.next <= told) || (rig.read && rig.first > model.released + 1))
        RH_FAIL("read %ju to %ju, %ju holes; told %ju, released %ju", (uintmax_t)rig.first,
                (uintmax_t)rig.next - 1, (uintmax_t)rig.holes, (uintmax_t)told,
                (uintmax_t)model.released);
    model.seen = rig.next - 1;
}

static void have_luck(void)
{
    struct disk_luck luck = {.turns = chance(6), .short_pct = chance(3) ? 0 : chance(60)};

    if (chance(3) == 0)
        for (unsigned kind = 0; kind < DISK_KINDS; kind++)
            luck.fail_pct[kind] = chance(20);
    disk_luck(rh_test_rand(), &luck);
    if (chance(6) == 0)
        disk_room(chance(20) * 4096);
}

static void release(void)
{
    const uint64_t oldest = rh_journal_oldest(rig.j), newest = rh_journal_newest(rig.j);
    const uint64_t to = oldest + chance((unsigned)(newest - oldest + 1));

    for (uint64_t n = model.released + 1; n <= model.seen && model.at[n % 4096] < to; n++)
        model.released = n;
    rh_journal_release(rig.j, to);
}

static void one_run(void)
{
    have_luck();
    for (unsigned turns = chance(200); turns--;) {
        for (unsigned puts = chance(4); puts--;) {
            model.at[rig.next % 4096] = rh_journal_newest(rig.j);
            rig.text = chance(30) ? chance(900) : chance(20000);
            RH_OK_IF(rig_put(&rig) == RH_OK);
        }
        RH_OK_IF(rig_turn(&rig) == RH_OK);
        rig.now_ms += chance(200);
        model.told = RH_MAX(model.told, rig.told);
        model.seen = RH_MAX(model.seen, model.told);
        if (chance(20) == 0)
            release();
        if (chance(50) == 0)
            have_luck();
        if (chance(60) == 0)
            disk_hang(chance(2) << DISK_SYNC);
    }
}

RH_TEST(journal_luck, what_was_told_comes_back_after_any_end)
{
    for (unsigned world = 0; world < 60; world++) {
        rig_init(&rig);
        memset(&model, 0, sizeof(model));
        for (unsigned runs = 0; runs < 12; runs++) {
            begin_run();
            one_run();
            end_run();
        }
        begin_run();
        rig_close(&rig);
    }
}
