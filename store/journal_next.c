/* store/journal_next.c - the next segment, prepared ahead, and what becomes of those that are not needed.
 *
 *   NONE -> OPEN -> [ZERO -> ZERO_WRITE (-> ZERO_SYNC)]* -> HEAD_WRITE -> HEAD_SYNC -> RENAME -> SYNC_DIR
 *        -> READY -> (the pen takes it) NONE;      a failure: its file is removed, and NONE again, later
 *
 * Why this way: a segment is durable under its name, with its header and its length, before a batch goes
 * there: then a commit is one write and one sync that changes no metadata. A spare file needs its header
 * alone; a new one is filled with zeroes in slices, each synced, that keep ahead of how far the present
 * segment is used, so that commits beside it are not slowed down by 16 MiB at once. When the pen waits for
 * it there is nobody to be slowed down, and the slices follow each other.
 *
 * A segment that is larger than usual is for one batch: it is not filled before.
 *
 * Threads    as the journal.
 */
#include "store/journal_int.h"

#include <errno.h>

#include "core/mem.h"
#include "core/rand.h"

#define SLICE (256u << 10)
#define SMALL 16 /* a segment has at least that part of the usual size */

static const uint8_t zeroes[SLICE];

/* ---- the next segment ---- */

static bool pen_waits(const struct rh_journal *j)
{
    return j->pen == RH_PEN_PLACE;
}

static uint64_t size_needed(const struct rh_journal *j)
{
    const uint64_t batch = RH_SEGMENT_HEAD + RH_BATCH_HEAD + j->sent.len;

    if (!pen_waits(j) || batch <= j->segment_bytes)
        return j->segment_bytes;
    return rh_round_up(batch, RH_SEGMENT_HEAD);
}

static void spare_name(const struct rh_journal *j, char *dst)
{
    rh_journal_name(dst, "spare", j->next.spare);
}

/* A spare file of the usual size, whose place in the list is then free. */
static uint64_t take_spare(struct rh_journal *j)
{
    for (size_t i = 0; i < j->list.count; i++) {
        const uint64_t number = j->list.at[i].number;

        if (j->list.at[i].kind != RH_JFILE_SPARE || j->list.at[i].size != j->segment_bytes ||
            j->swept.number == number) /* the broom is at it */
            continue;
        rh_jfiles_del(&j->list, i);
        return number;
    }
    return 0;
}

static void fail(struct rh_journal *j, uint64_t now_ms)
{
    struct rh_jfile file = {.number = j->next.number, .kind = RH_JFILE_BAD};

    if (j->next.spare) {
        file.number = j->next.spare;
        file.kind = RH_JFILE_SPARE; /* of size 0: of no use */
    }
    if (j->next.state != RH_NEXT_NONE) {
        rh_jfiles_add(&j->list, &file);
        j->untidy = true;
    }
    if (j->next.fd >= 0)
        rh_journal_drop_fd(j, j->next.fd);
    j->next.fd = -1;
    j->next.state = RH_NEXT_NONE;
    j->next.failed = true;
    j->next.lacking = true;
    j->stat.failures++;
    rh_journal_retry_fail(&j->next.retry, now_ms);
}

static bool begin(struct rh_journal *j, uint64_t now_ms)
{
    char name[RH_JOURNAL_NAME_BYTES];

    if ((j->pen == RH_PEN_IDLE && j->cur.fd < 0) || now_ms < j->next.retry.at_ms)
        return false;
    if (j->fds_count) {
        rh_file_close(j->files, j->fds[--j->fds_count], RH_ACTOR_NEXT);
        rh_journal_begin_op(j, RH_ACTOR_NEXT);
        return true;
    }
    if (rh_jfiles_reserve(&j->list, 2) < 0) { /* its place, and a spare's that the broom makes */
        fail(j, now_ms);
        return true;
    }
    j->next.number = j->number++;
    j->next.size = size_needed(j);
    j->next.spare = j->next.size == j->segment_bytes ? take_spare(j) : 0;
    j->next.filled = j->next.spare || j->next.size != j->segment_bytes ? j->next.size : 0;
    j->next.fresh = !j->next.filled;
    if (!j->next.spare)
        j->next.spare = j->next.number;
    j->next.state = RH_NEXT_OPEN;
    spare_name(j, name);
    rh_file_open(j->files, name, RH_ACTOR_NEXT);
    rh_journal_begin_op(j, RH_ACTOR_NEXT);
    return true;
}

static void write_head(struct rh_journal *j)
{
    rh_file_write(j->files, j->next.fd, j->head + j->next.written,
                  sizeof(j->head) - j->next.written, j->next.written, RH_ACTOR_NEXT);
    rh_journal_begin_op(j, RH_ACTOR_NEXT);
    j->next.state = RH_NEXT_HEAD_WRITE;
}

/* More zeroes, if it is time; when there are enough, the header. */
static bool fill(struct rh_journal *j)
{
    const uint64_t left = j->next.size - j->next.filled;

    if (left && !pen_waits(j) && j->next.filled >= 2 * j->cur.used)
        return false;
    if (left) {
        rh_file_write(j->files, j->next.fd, zeroes, RH_MIN(left, SLICE), j->next.filled,
                      RH_ACTOR_NEXT);
        rh_journal_begin_op(j, RH_ACTOR_NEXT);
        j->next.state = RH_NEXT_ZERO_WRITE;
        return true;
    }
    rh_rand_bytes(&j->next.salt, sizeof(j->next.salt));
    rh_segment_seal(j->head, j->next.number, j->next.size, j->next.salt);
    j->next.written = 0;
    write_head(j);
    return true;
}

static void sync_next(struct rh_journal *j, enum rh_next_state state)
{
    rh_file_sync(j->files, j->next.fd, RH_ACTOR_NEXT);
    rh_journal_begin_op(j, RH_ACTOR_NEXT);
    j->next.state = state;
}

static void rename_next(struct rh_journal *j)
{
    char from[RH_JOURNAL_NAME_BYTES], to[RH_JOURNAL_NAME_BYTES];

    spare_name(j, from);
    rh_journal_name(to, "journal", j->next.number);
    rh_file_rename(j->files, from, to, RH_ACTOR_NEXT);
    rh_journal_begin_op(j, RH_ACTOR_NEXT);
    j->next.state = RH_NEXT_RENAME;
}

/* The operation of this state has ended with `res`, and well. */
static void go_on(struct rh_journal *j, int32_t res)
{
    switch (j->next.state) {
    case RH_NEXT_OPEN:
        j->next.fd = res;
        j->next.state = RH_NEXT_ZERO;
        break;
    case RH_NEXT_ZERO_WRITE:
        j->next.filled += (uint32_t)res;
        if (pen_waits(j))
            j->next.state = RH_NEXT_ZERO;
        else
            sync_next(j, RH_NEXT_ZERO_SYNC);
        break;
    case RH_NEXT_ZERO_SYNC:
        j->next.state = RH_NEXT_ZERO;
        break;
    case RH_NEXT_HEAD_WRITE:
        j->next.written += (uint32_t)res;
        if (j->next.written < sizeof(j->head))
            write_head(j);
        else
            sync_next(j, RH_NEXT_HEAD_SYNC);
        break;
    case RH_NEXT_HEAD_SYNC:
        rename_next(j);
        break;
    case RH_NEXT_RENAME:
        j->next.spare = 0;
        rh_file_sync_dir(j->files, RH_ACTOR_NEXT);
        rh_journal_begin_op(j, RH_ACTOR_NEXT);
        j->next.state = RH_NEXT_SYNC_DIR;
        break;
    default:
        rh_assert(j->next.state == RH_NEXT_SYNC_DIR);
        j->next.state = RH_NEXT_READY;
        j->next.failed = false;
        j->next.lacking &= !j->next.fresh;
        memset(&j->next.retry, 0, sizeof(j->next.retry));
    }
}

/* The disk is full, and the pen waits: what there is becomes a smaller segment, if it is of use. With the
 * first batch there it can be said which ones are not needed. */
static bool make_do(struct rh_journal *j)
{
    const uint64_t size = j->next.filled / RH_SEGMENT_HEAD * RH_SEGMENT_HEAD;
    const uint64_t batch = RH_SEGMENT_HEAD + RH_BATCH_HEAD + j->sent.len;

    if (j->next.state != RH_NEXT_ZERO_WRITE || !pen_waits(j) || size < batch ||
        size < j->segment_bytes / SMALL)
        return false;
    j->next.size = j->next.filled = size;
    j->next.fresh = false;
    j->next.lacking = true;
    j->next.state = RH_NEXT_ZERO;
    return true;
}

bool rh_journal_next_step(struct rh_journal *j, uint64_t now_ms)
{
    const int32_t res = j->ops[RH_ACTOR_NEXT].res;
    const bool writes = j->next.state == RH_NEXT_ZERO_WRITE || j->next.state == RH_NEXT_HEAD_WRITE;

    if (j->ops[RH_ACTOR_NEXT].busy || j->next.state == RH_NEXT_READY)
        return false;
    if (j->next.state == RH_NEXT_NONE)
        return begin(j, now_ms);
    if (j->next.state == RH_NEXT_ZERO)
        return fill(j);
    if (res >= 0 && !(writes && res == 0))
        go_on(j, res);
    else if (!make_do(j))
        fail(j, now_ms);
    return true;
}

/* ---- what is not needed ---- */

static unsigned spares(const struct rh_journal *j)
{
    unsigned count = 0;

    for (size_t i = 0; i < j->list.count; i++)
        count += j->list.at[i].kind == RH_JFILE_SPARE && j->list.at[i].size == j->segment_bytes;
    return count;
}

/* May it be renamed or removed now? */
static bool may_sweep(const struct rh_journal *j, const struct rh_jfile *file, unsigned have)
{
    switch (file->kind) {
    case RH_JFILE_GONE:
        return file->number < j->keep_durable;
    case RH_JFILE_EMPTY:
        return j->keep_durable != 0;
    case RH_JFILE_BAD:
        return true;
    case RH_JFILE_SPARE:
        return file->size != j->segment_bytes || have > RH_JOURNAL_SPARES;
    default:
        return false;
    }
}

static void sweep(struct rh_journal *j, const struct rh_jfile *file, unsigned have)
{
    char from[RH_JOURNAL_NAME_BYTES], to[RH_JOURNAL_NAME_BYTES];

    j->swept = *file;
    j->to_spare = (file->kind == RH_JFILE_GONE || file->kind == RH_JFILE_EMPTY) && !file->failed &&
                  file->size == j->segment_bytes && have < RH_JOURNAL_SPARES;
    rh_journal_name(from, file->kind == RH_JFILE_SPARE ? "spare" : "journal", file->number);
    rh_journal_name(to, "spare", file->number);
    if (j->to_spare)
        rh_file_rename(j->files, from, to, RH_ACTOR_BROOM);
    else
        rh_file_remove(j->files, from, RH_ACTOR_BROOM);
    rh_journal_begin_op(j, RH_ACTOR_BROOM);
}

static void swept(struct rh_journal *j, uint64_t now_ms)
{
    const int32_t res = j->ops[RH_ACTOR_BROOM].res;
    size_t i = 0;

    while (j->list.at[i].number != j->swept.number || j->list.at[i].kind != j->swept.kind)
        i++;
    j->swept.number = 0;
    if (res < 0 && res != -ENOENT) {
        j->stat.failures++;
        rh_journal_retry_fail(&j->broom_retry, now_ms);
        return;
    }
    memset(&j->broom_retry, 0, sizeof(j->broom_retry));
    if (j->swept.kind == RH_JFILE_GONE)
        j->next.retry.at_ms = 0; /* there is room now */
    if (j->to_spare && res == 0)
        j->list.at[i].kind = RH_JFILE_SPARE;
    else
        rh_jfiles_del(&j->list, i);
}

bool rh_journal_broom_step(struct rh_journal *j, uint64_t now_ms)
{
    unsigned have;

    if (!j->untidy || j->ops[RH_ACTOR_BROOM].busy || now_ms < j->broom_retry.at_ms)
        return false;
    if (j->swept.number) {
        swept(j, now_ms);
        return true;
    }
    have = spares(j);
    for (size_t i = 0; i < j->list.count; i++)
        if (may_sweep(j, &j->list.at[i], have)) {
            sweep(j, &j->list.at[i], have);
            return true;
        }
    j->untidy = false;
    return false;
}
