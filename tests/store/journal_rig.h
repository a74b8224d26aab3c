/* tests/store/journal_rig.h - a journal on the disk in memory, driven until it rests, and what a reader
 * of it finds.
 *
 * A test's events are TIMEs (or, to fill segments, ATTEMPTs) with numbers 1, 2, ...: rig_put puts the next
 * one, and rig_open checks that what is read are the numbers from `first` on, without a gap.
 */
#ifndef TESTS_JOURNAL_RIG_H
#define TESTS_JOURNAL_RIG_H

#include "core/mem.h"
#include "store/journal_int.h"
#include "tests/rh_test.h"
#include "tests/store/disk.h"

struct rig {
    struct rh_files *files;
    struct rh_journal *j;
    uint64_t segment_bytes;
    bool salvage;
    uint64_t now_ms;
    uint64_t next;        /* the number of the next event */
    uint64_t read, first; /* events that the last open read; the number of the first; 0: none */
    uint64_t holes;       /* numbers that were left out */
    struct rh_fault fault;
    size_t text; /* bytes of text in each event; 0: none */
    /* What is durable, as told: the number of the last event in each batch. */
    uint64_t batch_last[4096];
    uint64_t told;
};

static inline int rig_visit(void *arg, const struct rh_journal_at *at, const struct rh_jot *jot)
{
    struct rig *rig = arg;

    (void)at;
    if (!rig->first)
        rig->first = jot->at_ms;
    else
        rig->holes += jot->at_ms - (rig->next);
    RH_OK_IF(jot->at_ms >= rig->next || rig->read == 0);
    rig->next = jot->at_ms + 1;
    rig->read++;
    return RH_OK;
}

/* What the journal reads; the error of open. */
static inline int rig_open(struct rig *rig)
{
    struct rh_journal_opts opts = {.segment_bytes = rig->segment_bytes, .salvage = rig->salvage};
    int rc;

    rig->next = 1;
    rig->read = rig->first = rig->holes = rig->told = 0;
    memset(rig->batch_last, 0, sizeof(rig->batch_last));
    rc = rh_files_create("dir", &rig->files, &rig->fault);
    if (rc < 0)
        return rc;
    opts.files = rig->files;
    rc = rh_journal_open(&opts, rig_visit, rig, &rig->j, &rig->fault);
    if (rc < 0) {
        rh_files_destroy(rig->files);
        rig->files = NULL;
        rig->j = NULL;
    }
    return rc;
}

static inline void rig_close(struct rig *rig)
{
    rh_journal_close(rig->j);
    RH_OK_IF(disk_open_fds() == 0);
    rh_files_destroy(rig->files);
    rig->j = NULL;
    rig->files = NULL;
}

/* Behind disk_cut or disk_kill: the descriptors are gone with the process. */
static inline void rig_bury(struct rig *rig)
{
    rig->j->cur.fd = rig->j->next.fd = -1;
    rig->j->fds_count = 0;
    rig_close(rig);
}

static inline int rig_put(struct rig *rig)
{
    static char text[1 << 20];
    struct rh_jot_share share = {.user = RH_SPAN("bob")};
    struct rh_jot jot = {.kind = RH_JOT_TIME, .at_ms = rig->next};
    int rc;

    if (rig->text) {
        memset(text, 'a' + (int)(rig->next % 26), rig->text);
        jot.kind = RH_JOT_OWED;
        jot.number = rig->next;
        jot.text = (struct rh_span){text, (uint32_t)rig->text};
        jot.shares = &share;
        jot.share_count = 1;
    }
    rc = rh_journal_put(rig->j, &jot);
    if (rc == RH_OK)
        rig->batch_last[rh_journal_open_batch(rig->j) % 4096] = rig->next++;
    return rc;
}

/* One turn: completions, then a step. What it says to be durable is noted in told. RH_EIO: the disk is
 * dead. */
static inline int rig_turn(struct rig *rig)
{
    struct rh_file_cqe cqes[4];
    const uint64_t before = rh_journal_durable(rig->j);
    uint64_t durable;

    rh_journal_step(rig->j, rig->now_ms);
    if (rh_files_enter(rig->files, 0) < 0)
        return RH_EIO;
    for (unsigned n; (n = rh_files_reap(rig->files, cqes, 4));)
        for (unsigned i = 0; i < n; i++)
            rh_journal_done(rig->j, &cqes[i]);
    rh_journal_step(rig->j, rig->now_ms);
    durable = rh_journal_durable(rig->j);
    RH_OK_IF(durable >= before && durable < rh_journal_open_batch(rig->j));
    if (durable > before && rig->batch_last[durable % 4096])
        rig->told = rig->batch_last[durable % 4096];
    return RH_OK;
}

/* Turns until nothing is under way and nothing is due. */
static inline void rig_rest(struct rig *rig)
{
    for (unsigned i = 0; i < 100000; i++) {
        RH_OK_IF(rig_turn(rig) == RH_OK);
        if (!rh_files_busy(rig->files) && rh_journal_next_ms(rig->j, rig->now_ms) == UINT64_MAX)
            return;
        if (!rh_files_busy(rig->files))
            rig->now_ms += rh_journal_next_ms(rig->j, rig->now_ms);
    }
    RH_FAIL("the journal does not come to rest");
}

/* So many events, a batch each. */
static inline void rig_commit(struct rig *rig, unsigned batches)
{
    for (unsigned i = 0; i < batches; i++) {
        RH_OK_IF(rig_put(rig) == RH_OK);
        rig_rest(rig);
        RH_OK_IF(rig->told == rig->next - 1);
    }
}

static inline void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    rig->segment_bytes = RH_SEGMENT_BYTES_MIN;
    rig->now_ms = 1000;
    disk_reset();
}

/* Opens, and wants the events from `first` to `last`; without an end, the journal stays open. */
static inline void rig_wants(struct rig *rig, uint64_t first, uint64_t last)
{
    const int rc = rig_open(rig);

    if (rc < 0)
        RH_FAIL("open: %s", rig->fault.text);
    if (rig->holes || rig->next != last + 1 || (rig->read && rig->first != first))
        RH_FAIL("read %ju to %ju with %ju holes, not %ju to %ju", (uintmax_t)rig->first,
                (uintmax_t)rig->next - 1, (uintmax_t)rig->holes, (uintmax_t)first, (uintmax_t)last);
}

/* The name of the segment with that number. */
static inline const char *rig_name(uint64_t number)
{
    static char names[8][RH_JOURNAL_NAME_BYTES];
    static unsigned i;

    i = (i + 1) % 8;
    rh_journal_name(names[i], "journal", number);
    return names[i];
}

#endif
