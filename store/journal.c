/* store/journal.c - the journal that is written to: its life, the open batch, and the pen.
 *
 *                  a batch is due          fits, sealed          all is written
 *       [IDLE] ----------------> [PLACE] -------------> [WRITE] ----------------> [SYNC] --> [IDLE]
 *                                   ^                      |      failed             |
 *                                   `------ [PAUSE] <------+-------------------------'
 *
 * Three actors have at most one operation under way each: the pen (here), which writes batches, and in
 * store/journal_next.c the one that prepares the next segment and the broom. A step lets them go on until
 * none of them can.
 *
 * Why this way: events are encoded where they will be written from: a pile of memory with room for the
 * header in front. While one pile is being written the other one fills. A write covers whole pages, so
 * that the kernel need not read the rest of one from the disk: in front of the batch it repeats what stands
 * in the first page already (the same bytes, so nothing is at risk), behind it there are zeroes.
 *
 * Failure: the file of a failed write or sync is left as it is; its batch is sealed anew for the next
 * segment, since number and salt of the segment are in its sums.
 *
 * Invariants  (1) One batch at most is not synced.  (2) Nothing is written behind a batch that is not.
 *             (3) `durable` rises by one with each batch.
 */
#include "store/journal.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "store/journal_int.h"

#define PAGE       RH_SEGMENT_HEAD
#define PILE_BEGIN (PAGE + RH_BATCH_HEAD) /* of events, in a pile */
#define PILE_ROOM  (64u << 10)            /* to begin with */
#define PILE_KEEP  (4u << 20)             /* a larger one is freed when it is durable */
#define RETRY_MIN  100
#define RETRY_MAX  2000
#define REAP       16

_Static_assert(RH_ACTORS <= RH_JOURNAL_TAGS, "an actor is a tag");

/* ---- what the actors share ---- */

void rh_journal_retry_fail(struct rh_journal_retry *retry, uint64_t now_ms)
{
    retry->delay_ms = retry->delay_ms ? RH_MIN(2 * retry->delay_ms, RETRY_MAX) : RETRY_MIN;
    retry->at_ms = now_ms + retry->delay_ms;
}

void rh_journal_begin_op(struct rh_journal *j, enum rh_journal_actor actor)
{
    rh_assert(!j->ops[actor].busy);
    j->ops[actor].busy = true;
}

void rh_journal_drop_fd(struct rh_journal *j, int fd)
{
    rh_assert(j->fds_count < RH_JOURNAL_FDS);
    j->fds[j->fds_count++] = fd;
}

void rh_journal_done(struct rh_journal *j, const struct rh_file_cqe *cqe)
{
    rh_assert(cqe->tag < RH_ACTORS && j->ops[cqe->tag].busy);
    j->ops[cqe->tag].busy = false;
    j->ops[cqe->tag].res = cqe->res;
}

/* ---- piles ---- */

static int pile_reserve(struct rh_pile *pile, size_t more)
{
    const size_t need = PILE_BEGIN + pile->len + more + PAGE;
    uint8_t *mem;

    if (need <= pile->room)
        return RH_OK;
    if (pile->len + more > RH_BATCH_BYTES_MAX)
        return RH_ENOMEM;
    mem = rh_mem_realloc(pile->mem, RH_MAX(RH_MAX(2 * pile->room, need), PILE_ROOM));
    if (!mem)
        return RH_ENOMEM;
    pile->mem = mem;
    pile->room = RH_MAX(RH_MAX(2 * pile->room, need), PILE_ROOM);
    return RH_OK;
}

static void pile_empty(struct rh_pile *pile)
{
    uint8_t *mem = pile->room > PILE_KEEP ? rh_mem_realloc(pile->mem, PILE_ROOM) : NULL;

    if (mem) {
        pile->mem = mem;
        pile->room = PILE_ROOM;
    }
    pile->len = 0;
    pile->events = 0;
}

int rh_journal_put(struct rh_journal *j, const struct rh_jot *jot)
{
    const size_t size = rh_jot_size(jot);
    uint8_t *at;

    if (pile_reserve(&j->open, size) < 0)
        return RH_ENOMEM;
    at = j->open.mem + PILE_BEGIN + j->open.len;
    at = rh_jot_encode(at, jot);
    rh_assert(at == j->open.mem + PILE_BEGIN + j->open.len + size);
    j->open.len += size;
    j->open.events++;
    return RH_OK;
}

/* ---- the pen ---- */

static bool is_due(const struct rh_journal *j)
{
    return j->open.events || (j->keep_wanted > j->keep_durable && j->cur.fd >= 0);
}

static bool fits(const struct rh_journal *j)
{
    return j->cur.fd >= 0 && j->cur.used + RH_BATCH_HEAD + j->sent.len <= j->cur.size;
}

/* The open batch is closed; or, the first time, the last batch of the run before comes first. */
static bool close_batch(struct rh_journal *j, uint64_t now_ms)
{
    if (!is_due(j))
        return false;
    j->old = j->again;
    j->again = false;
    if (!j->old) {
        const struct rh_pile empty = j->sent;

        j->sent = j->open;
        j->open = empty;
        j->open.number = j->sent.number + 1;
    }
    j->since_ms = now_ms;
    j->began_ns = 0;
    if (!fits(j)) { /* it is needed now: once more, at once */
        j->next.failed = false;
        j->next.retry.at_ms = 0;
    }
    j->pen = RH_PEN_PLACE;
    return true;
}

/* The file that is written to is full, or no good any more. */
static void leave_segment(struct rh_journal *j, bool failed)
{
    size_t i = j->list.count;

    if (j->cur.fd < 0)
        return;
    do
        i--;
    while (j->list.at[i].number != j->cur.number || j->list.at[i].kind == RH_JFILE_SPARE);
    j->list.at[i].failed = failed;
    if (!j->list.at[i].first) {
        j->list.at[i].kind = failed ? RH_JFILE_BAD : RH_JFILE_EMPTY;
        j->untidy = true;
    }
    rh_journal_drop_fd(j, j->cur.fd);
    j->cur.fd = -1;
}

static void take_next(struct rh_journal *j)
{
    const struct rh_jfile file = {
        .number = j->next.number, .size = j->next.size, .kind = RH_JFILE_SEGMENT};

    leave_segment(j, false);
    rh_jfiles_add(&j->list, &file);
    j->cur.fd = j->next.fd;
    j->cur.number = j->next.number;
    j->cur.size = j->next.size;
    j->cur.used = RH_SEGMENT_HEAD;
    j->cur.seed = rh_segment_seed(j->next.number, j->next.salt);
    j->next.fd = -1;
    j->next.state = RH_NEXT_NONE;
}

/* What the batch says of those before it; the list has the present segment at least. */
static void say_what_is_needed(struct rh_journal *j, struct rh_batch *b)
{
    b->keep_batch = b->number;
    for (size_t i = j->list.count; i-- > 0;) {
        const struct rh_jfile *file = &j->list.at[i];

        if (file->kind != RH_JFILE_SEGMENT)
            continue;
        b->keep_segment = file->number;
        if (file->first)
            b->keep_batch = file->first;
    }
    j->keep_sent = b->keep_segment;
}

static void write_on(struct rh_journal *j)
{
    const size_t repeated = j->cur.used % PAGE;

    rh_file_write(j->files, j->cur.fd, j->sent.mem + PAGE - repeated + j->written,
                  j->want - j->written, j->cur.used - repeated + j->written, RH_ACTOR_PEN);
    rh_journal_begin_op(j, RH_ACTOR_PEN);
    j->pen = RH_PEN_WRITE;
}

static void begin_write(struct rh_journal *j)
{
    const size_t repeated = j->cur.used % PAGE, bytes = RH_BATCH_HEAD + j->sent.len;
    uint8_t *head = j->sent.mem + PAGE;
    struct rh_batch b = {.number = j->sent.number,
                         .len = (uint32_t)j->sent.len,
                         .events = j->sent.events,
                         .forgiven = j->forgiven,
                         .body = head + RH_BATCH_HEAD};

    say_what_is_needed(j, &b);
    rh_batch_seal(head, &b, j->cur.number, j->cur.seed);
    memcpy(head - repeated, j->tail, repeated);
    j->want = rh_round_up(repeated + bytes, PAGE);
    memset(head + bytes, 0, j->want - repeated - bytes);
    j->written = 0;
    if (!j->began_ns)
        j->began_ns = rh_clock_mono_ns();
    write_on(j);
}

static bool find_place(struct rh_journal *j)
{
    if (fits(j)) {
        begin_write(j);
        return true;
    }
    if (j->next.state == RH_NEXT_READY) {
        take_next(j);
        return true;
    }
    j->failing |= j->next.failed;
    return false;
}

static void pen_failed(struct rh_journal *j, uint64_t now_ms)
{
    leave_segment(j, true);
    j->failing = true;
    j->stat.failures++;
    rh_journal_retry_fail(&j->pen_retry, now_ms);
    j->pen = RH_PEN_PAUSE;
}

static void note_commit(struct rh_journal *j)
{
    j->stat.commit_ns = rh_clock_mono_ns() - j->began_ns;
    if (j->old)
        return;
    j->stat.commits++;
    j->stat.events += j->sent.events;
    j->stat.bytes += RH_BATCH_HEAD + j->sent.len;
}

static void pen_synced(struct rh_journal *j)
{
    const size_t repeated = j->cur.used % PAGE;
    const uint64_t end = j->cur.used + RH_BATCH_HEAD + j->sent.len;
    size_t i = j->list.count;

    note_commit(j);
    j->durable = j->sent.number;
    j->cur.used = rh_round_up(end, RH_BATCH_ALIGN);
    memcpy(j->tail, j->sent.mem + PAGE - repeated + j->want - PAGE, PAGE);
    while (j->list.at[--i].number != j->cur.number || j->list.at[i].kind != RH_JFILE_SEGMENT)
        ;
    if (!j->list.at[i].first)
        j->list.at[i].first = j->durable;
    if (j->keep_sent != j->keep_durable) {
        j->keep_durable = j->keep_sent;
        j->untidy = true;
    }
    pile_empty(&j->sent);
    memset(&j->pen_retry, 0, sizeof(j->pen_retry));
    j->failing = false;
    j->since_ms = 0;
    j->pen = RH_PEN_IDLE;
}

static bool pen_step(struct rh_journal *j, uint64_t now_ms, bool may_close)
{
    const int32_t res = j->ops[RH_ACTOR_PEN].res;

    if (j->ops[RH_ACTOR_PEN].busy)
        return false;
    switch (j->pen) {
    case RH_PEN_IDLE:
        return may_close && close_batch(j, now_ms);
    case RH_PEN_PLACE:
        return find_place(j);
    case RH_PEN_PAUSE:
        if (now_ms < j->pen_retry.at_ms)
            return false;
        j->pen = RH_PEN_PLACE;
        return true;
    case RH_PEN_WRITE:
        if (res <= 0) {
            pen_failed(j, now_ms);
            return true;
        }
        j->written += (uint32_t)res;
        if (j->written < j->want) {
            write_on(j);
            return true;
        }
        rh_file_sync(j->files, j->cur.fd, RH_ACTOR_PEN);
        rh_journal_begin_op(j, RH_ACTOR_PEN);
        j->pen = RH_PEN_SYNC;
        return true;
    default:
        if (res < 0)
            pen_failed(j, now_ms);
        else
            pen_synced(j);
        return true;
    }
}

void rh_journal_step(struct rh_journal *j, uint64_t now_ms)
{
    bool may_close = j->pen == RH_PEN_IDLE, moved;

    do {
        moved = pen_step(j, now_ms, may_close);
        moved |= rh_journal_next_step(j, now_ms);
        moved |= rh_journal_broom_step(j, now_ms);
    } while (moved);
}

/* ---- life ---- */

static int list_of(void *arg, void (*each)(void *, const char *, uint64_t), void *each_arg,
                   struct rh_fault *fault)
{
    return rh_files_list(arg, each, each_arg, fault);
}

static int64_t read_of(void *arg, const char *name, uint64_t offset, void *dst, size_t len,
                       struct rh_fault *fault)
{
    return rh_files_read(arg, name, offset, dst, len, fault);
}

/* The last batch that was read becomes the first that will be written. */
static int go_on_from(struct rh_journal *j, struct rh_journal_past *past)
{
    j->list = past->files;
    memset(&past->files, 0, sizeof(past->files));
    j->number = past->number;
    j->forgiven = past->forgiven;
    j->stat.skipped = past->found.skipped;
    j->open.number = past->last.number + 1;
    if (pile_reserve(&j->open, 0) < 0 || pile_reserve(&j->sent, past->last.len) < 0)
        return RH_ENOMEM;
    if (!past->last.number)
        return RH_OK;
    memcpy(j->sent.mem + PILE_BEGIN, past->last.body, past->last.len);
    j->sent.len = past->last.len;
    j->sent.events = past->last.events;
    j->sent.number = past->last.number;
    j->durable = past->last.number - 1;
    j->again = true;
    return RH_OK;
}

int rh_journal_open(const struct rh_journal_opts *opts,
                    int (*visit)(void *arg, const struct rh_journal_at *at,
                                 const struct rh_jot *jot),
                    void *arg, struct rh_journal **ret_journal, struct rh_fault *fault)
{
    const struct rh_journal_source source = {opts->files, list_of, read_of};
    const struct rh_journal_reading reading = {
        .source = &source, .salvage = opts->salvage, .arg = arg, .visit = visit};
    struct rh_journal_past past = {0};
    struct rh_journal *j = rh_mem_zalloc(sizeof(*j));
    int rc = RH_ENOMEM;

    rh_assert(opts->segment_bytes >= RH_SEGMENT_BYTES_MIN && opts->segment_bytes % PAGE == 0);
    if (!j) {
        rh_fault_set(fault, rc, "no memory for the journal");
        goto out;
    }
    j->files = opts->files;
    j->segment_bytes = opts->segment_bytes;
    j->cur.fd = -1;
    j->next.fd = -1;
    rc = rh_journal_read_past(&reading, &past, fault);
    if (rc < 0)
        goto out;
    rc = go_on_from(j, &past);
    if (rc < 0) {
        rh_fault_set(fault, rc, "no memory for the journal");
        goto out;
    }
    *ret_journal = j;
    j = NULL;
out:
    rh_journal_past_fini(&past);
    rh_journal_close(j);
    return rc;
}

/* Waits for what the kernel has of ours. */
static void wait_for_ops(struct rh_journal *j)
{
    struct rh_file_cqe cqes[REAP];

    while (rh_files_busy(j->files) && rh_files_enter(j->files, UINT64_MAX) == RH_OK)
        for (unsigned i = rh_files_reap(j->files, cqes, REAP); i-- > 0;)
            if (cqes[i].tag == RH_ACTOR_NEXT && j->next.state == RH_NEXT_OPEN)
                j->next.fd = cqes[i].res;
}

static void close_files(struct rh_journal *j)
{
    wait_for_ops(j);
    if (j->cur.fd >= 0)
        rh_file_close(j->files, j->cur.fd, RH_ACTOR_NONE);
    if (j->next.fd >= 0)
        rh_file_close(j->files, j->next.fd, RH_ACTOR_NONE);
    while (j->fds_count)
        rh_file_close(j->files, j->fds[--j->fds_count], RH_ACTOR_NONE);
    wait_for_ops(j);
}

void rh_journal_close(struct rh_journal *j)
{
    if (!j)
        return;
    close_files(j);
    rh_mem_free(j->open.mem);
    rh_mem_free(j->sent.mem);
    rh_mem_free(j->list.at);
    rh_mem_free(j);
}

/* ---- questions ---- */

enum rh_journal_state rh_journal_state(const struct rh_journal *j)
{
    if (j->failing)
        return RH_JOURNAL_FAILING;
    return j->pen == RH_PEN_IDLE ? RH_JOURNAL_IDLE : RH_JOURNAL_WRITING;
}

static uint64_t until(uint64_t at_ms, uint64_t now_ms)
{
    return at_ms > now_ms ? at_ms - now_ms : 0;
}

uint64_t rh_journal_next_ms(const struct rh_journal *j, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX;

    if (j->pen == RH_PEN_IDLE && is_due(j))
        return 0;
    if (j->pen == RH_PEN_PAUSE)
        next = until(j->pen_retry.at_ms, now_ms);
    if (j->next.state == RH_NEXT_NONE && j->next.failed) {
        const uint64_t ms = until(j->next.retry.at_ms, now_ms);

        next = RH_MIN(next, ms);
    }
    if (j->broom_retry.at_ms) {
        const uint64_t ms = until(j->broom_retry.at_ms, now_ms);

        next = RH_MIN(next, ms);
    }
    return next;
}

uint64_t rh_journal_open_batch(const struct rh_journal *j)
{
    return j->open.number;
}

uint64_t rh_journal_durable(const struct rh_journal *j)
{
    return j->durable;
}

uint64_t rh_journal_since_ms(const struct rh_journal *j)
{
    return j->since_ms;
}

uint64_t rh_journal_waiting_bytes(const struct rh_journal *j)
{
    return j->open.len + (j->pen == RH_PEN_IDLE ? 0 : j->sent.len);
}

uint64_t rh_journal_oldest(const struct rh_journal *j)
{
    for (size_t i = 0; i < j->list.count; i++)
        if (j->list.at[i].kind == RH_JFILE_SEGMENT)
            return j->list.at[i].number;
    return rh_journal_newest(j);
}

uint64_t rh_journal_newest(const struct rh_journal *j)
{
    if (j->cur.fd >= 0)
        return j->cur.number;
    return j->next.state == RH_NEXT_NONE ? j->number : j->next.number;
}

unsigned rh_journal_files(const struct rh_journal *j)
{
    return (unsigned)j->list.count + (j->next.state != RH_NEXT_NONE);
}

uint64_t rh_journal_room(const struct rh_journal *j)
{
    uint64_t room = j->cur.size - j->cur.used, waiting = rh_journal_waiting_bytes(j);

    if (j->cur.fd < 0 || !j->next.lacking)
        return UINT64_MAX;
    room += rh_journal_next_is_ready(j) ? j->next.size - RH_SEGMENT_HEAD : 0;
    return room > waiting ? room - waiting : 0;
}

bool rh_journal_next_is_ready(const struct rh_journal *j)
{
    return j->next.state == RH_NEXT_READY;
}

void rh_journal_release(struct rh_journal *j, uint64_t segment)
{
    const uint64_t newest = rh_journal_newest(j);

    for (size_t i = 0; i < j->list.count; i++) {
        struct rh_jfile *file = &j->list.at[i];

        if (file->kind != RH_JFILE_SEGMENT || file->number >= RH_MIN(segment, newest))
            continue;
        file->kind = RH_JFILE_GONE;
        j->keep_wanted = file->number + 1;
    }
}

void rh_journal_stat(const struct rh_journal *j, struct rh_journal_stat *ret_stat)
{
    *ret_stat = j->stat;
}
