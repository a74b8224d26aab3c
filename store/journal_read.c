/* store/journal_read.c - reads a directory of segments, and judges what is damaged in them.
 *
 * Why this way: batch numbers rise by one, and all batches but the newest were told to be durable. So what
 * decides is not where bytes are damaged, but whether a number is missed: if the next whole batch has the
 * number that is due, nothing that was told is lost. That one rule covers torn ends, segments that were
 * abandoned after a failed write, files that are missing and headers that are damaged. Only at the very end
 * there is no next batch to ask; there a batch is void, unless a header of another one stands behind it.
 *
 * Two passes: from the newest segment backwards to the last whole batch, which says what is still needed;
 * then forwards from there. A batch is visited when the next one has been seen, as a later segment may
 * begin with the same one again, and that copy counts.
 */
#include "store/journal_int.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/err.h"
#include "core/mem.h"

struct judge {
    const struct rh_journal_reading *r;
    struct rh_journal_past *past;
    struct rh_fault *fault;
    struct rh_jot_room room;

    uint8_t *bytes; /* of the segment that is being read */
    size_t len, bytes_room;
    size_t body_room; /* of past->body */

    uint64_t keep_segment;
    uint64_t due;         /* the number of the next batch; 0: any */
    struct rh_batch held; /* read, and not visited yet; number 0: none */
    uint64_t held_segment;

    /* Where the batch that is due may have been lost. */
    uint64_t doubt_segment, doubt_offset; /* segment 0: nowhere */
    const char *doubt;
    bool dark; /* a segment without a header, in which batches seem to be */
};

/* ---- the list of files ---- */

int rh_jfiles_reserve(struct rh_jfiles *list, size_t more)
{
    const size_t room = 2 * list->room + more + 8;
    struct rh_jfile *at;

    if (list->count + more <= list->room)
        return RH_OK;
    at = rh_mem_realloc(list->at, room * sizeof(*at));
    if (!at)
        return RH_ENOMEM;
    list->at = at;
    list->room = room;
    return RH_OK;
}

void rh_jfiles_add(struct rh_jfiles *list, const struct rh_jfile *file)
{
    rh_assert(list->count < list->room);
    list->at[list->count++] = *file;
}

void rh_jfiles_del(struct rh_jfiles *list, size_t i)
{
    rh_assert(i < list->count);
    list->count--;
    memmove(&list->at[i], &list->at[i + 1], (list->count - i) * sizeof(list->at[0]));
}

struct lister {
    struct rh_journal_past *past;
    int rc;
};

static void list_one(void *arg, const char *name, uint64_t size)
{
    struct lister *l = arg;
    struct rh_jfile file = {.size = size, .kind = RH_JFILE_SEGMENT};

    file.number = rh_journal_name_number("journal", name);
    if (!file.number) {
        file.kind = RH_JFILE_SPARE;
        file.number = rh_journal_name_number("spare", name);
    }
    if (!file.number || l->rc < 0)
        return;
    l->rc = rh_jfiles_reserve(&l->past->files, 1);
    if (l->rc < 0)
        return;
    rh_jfiles_add(&l->past->files, &file);
    l->past->number = RH_MAX(l->past->number, file.number + 1);
}

static int by_number(const void *a, const void *b)
{
    const struct rh_jfile *x = a, *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

static int list_files(struct judge *j)
{
    const struct rh_journal_source *source = j->r->source;
    struct lister l = {j->past, RH_OK};
    int rc = source->list(source->arg, list_one, &l, j->fault);

    if (rc < 0 || l.rc < 0)
        return rc < 0 ? rc : l.rc;
    if (j->past->files.count)
        qsort(j->past->files.at, j->past->files.count, sizeof(j->past->files.at[0]), by_number);
    return RH_OK;
}

static int load(struct judge *j, const struct rh_jfile *file)
{
    const struct rh_journal_source *source = j->r->source;
    char name[RH_JOURNAL_NAME_BYTES];

    if (file->size > j->bytes_room) {
        uint8_t *bytes;

        rh_mem_free(j->bytes);
        j->bytes_room = 0;
        j->bytes = bytes = rh_mem_alloc(file->size);
        if (!bytes)
            return RH_ENOMEM;
        j->bytes_room = file->size;
    }
    rh_journal_name(name, "journal", file->number);
    for (j->len = 0; j->len < file->size;) {
        const int64_t n = source->read(source->arg, name, j->len, j->bytes + j->len,
                                       file->size - j->len, j->fault);

        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        j->len += (size_t)n;
    }
    return RH_OK;
}

/* ---- damage ---- */

/* Found while reading `seen_in`; it lies at `offset` of `segment`. */
__attribute__((format(printf, 5, 6))) static int
damage(struct judge *j, uint64_t seen_in, uint64_t segment, uint64_t offset, const char *fmt, ...)
{
    char name[RH_JOURNAL_NAME_BYTES], what[256], text[384];
    va_list args;

    if (seen_in < j->past->forgiven)
        return RH_OK;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    rh_journal_name(name, "journal", segment);
    snprintf(text, sizeof(text), "%s is damaged at byte %" PRIu64 ": %s", name, offset, what);
    j->past->found.skipped++;
    if (!j->r->salvage)
        return rh_fault_set(j->fault, RH_EIO, "%s", text);
    if (j->r->damage)
        j->r->damage(j->r->arg, text);
    return RH_OK;
}

static void doubt(struct judge *j, uint64_t segment, uint64_t offset, const char *what, bool dark)
{
    if (j->doubt_segment && !dark)
        return;
    j->doubt_segment = segment;
    j->doubt_offset = offset;
    j->doubt = what;
    j->dark = dark;
}

static void trust(struct judge *j)
{
    j->doubt_segment = 0;
    j->dark = false;
}

/* ---- batches ---- */

/* Visits the events of the batch that is held. */
static int let_go(struct judge *j)
{
    const struct rh_batch *b = &j->held;
    struct rh_journal_at at = {.segment = j->held_segment, .batch = b->number};
    uint32_t pos = 0, events = 0;

    if (!b->number)
        return RH_OK;
    for (; events < b->events; events++) {
        struct rh_jot jot;
        const int64_t used = rh_jot_decode(b->body + pos, b->len - pos, &j->room, &jot);
        int rc;

        if (used == RH_ENOMEM)
            return RH_ENOMEM;
        if (used < 0)
            break;
        at.offset = b->offset + RH_BATCH_HEAD + pos;
        rc = j->r->visit(j->r->arg, &at, &jot);
        if (rc < 0)
            return rc;
        pos += (uint32_t)used;
    }
    j->past->found.batches++;
    j->past->found.events += events;
    j->past->found.bytes += RH_BATCH_HEAD + b->len;
    if (events == b->events && pos == b->len)
        return RH_OK;
    return damage(j, j->held_segment, j->held_segment, b->offset + RH_BATCH_HEAD + pos,
                  "the sum of batch %" PRIu64 " is right, but its events make no sense", b->number);
}

static void hold(struct judge *j, uint64_t segment, const struct rh_batch *b)
{
    j->held = *b;
    j->held_segment = segment;
    j->due = b->number + 1;
    trust(j);
}

static int on_batch(struct judge *j, uint64_t segment, const struct rh_batch *b, bool begins)
{
    int rc = RH_OK;

    if (begins && b->number == j->held.number) {
        j->held = *b; /* the copy that is durable; what was in doubt behind the other still is */
        j->held_segment = segment;
        return RH_OK;
    }
    if (j->due && b->number < j->due)
        return damage(j, segment, segment, b->offset,
                      "batch %" PRIu64 " stands behind batch %" PRIu64, b->number, j->due - 1);
    if (j->due && b->number > j->due) {
        const uint64_t where = j->doubt_segment ? j->doubt_segment : segment;

        rc = damage(j, segment, where, j->doubt_segment ? j->doubt_offset : b->offset,
                    "%s; batches %" PRIu64 " to %" PRIu64 " are lost",
                    j->doubt_segment ? j->doubt : "it begins too late", j->due, b->number - 1);
    }
    if (rc == RH_OK)
        rc = let_go(j);
    hold(j, segment, b);
    return rc;
}

/* The batch that is held lies in the segment's memory, which the next one will need. */
static int save_held(struct judge *j)
{
    struct rh_batch *b = &j->held;

    if (b->number == 0 || b->body == j->past->body)
        return RH_OK;
    if (b->len > j->body_room || !j->past->body) {
        rh_mem_free(j->past->body);
        j->past->body = rh_mem_alloc(b->len + 1);
        if (!j->past->body)
            return RH_ENOMEM;
        j->body_room = b->len;
    }
    memcpy(j->past->body, b->body, b->len);
    b->body = j->past->body;
    return RH_OK;
}

/* ---- segments ---- */

static int open_segment(struct judge *j, const struct rh_jfile *file, struct rh_segment *s)
{
    const int rc = rh_segment_open(s, j->bytes, j->len);
    char name[RH_JOURNAL_NAME_BYTES];

    if (rc == RH_EUNSUPPORTED) {
        rh_journal_name(name, "journal", file->number);
        return rh_fault_set(j->fault, RH_EIO, "%s was written by another version of ringhub", name);
    }
    return rc == RH_OK && s->number != file->number ? RH_EINVAL : rc;
}

static int read_batches(struct judge *j, struct rh_jfile *file, const struct rh_segment *s)
{
    uint64_t at = RH_SEGMENT_HEAD, next = 0, hurt = 0;
    struct rh_batch b;
    bool torn = false;
    int rc = RH_OK;

    for (;;) {
        switch (rh_segment_next(s, at, &b, &next, &torn)) {
        case RH_PIECE_BATCH:
            rc = on_batch(j, file->number, &b, !file->first && !hurt);
            if (rc < 0)
                return rc;
            if (!file->first)
                file->first = b.number;
            hurt = 0;
            at = b.end;
            break;
        case RH_PIECE_DAMAGE:
            hurt = hurt ? hurt : at;
            doubt(j, file->number, at, "a batch is damaged, and another follows", false);
            at = next;
            break;
        default:
            if (!file->first && !hurt)
                file->kind = RH_JFILE_EMPTY;
            if (hurt) {
                trust(j);
                return damage(j, file->number, file->number, hurt, "batches are damaged");
            }
            doubt(j, file->number, at, torn ? "a batch is damaged" : "batches end here", false);
            return RH_OK;
        }
    }
}

static int read_segment(struct judge *j, struct rh_jfile *file)
{
    struct rh_segment s;
    int rc = load(j, file);

    if (rc < 0)
        return rc;
    j->past->found.segments++;
    rc = open_segment(j, file, &s);
    if (rc == RH_OK) {
        rc = read_batches(j, file, &s);
    } else if (rc == RH_EINVAL) {
        const bool used = rh_segment_looks_used(j->bytes, j->len, file->number);

        if (!used)
            file->kind = RH_JFILE_EMPTY;
        doubt(j, file->number, 0, "the header is damaged", used);
        rc = RH_OK;
    }
    return rc < 0 ? rc : save_held(j);
}

/* ---- both passes ---- */

/* What the last whole batch says of all before it. */
static int find_end(struct judge *j)
{
    struct rh_jfiles *files = &j->past->files;
    bool found = false;

    for (size_t i = files->count; i-- > 0 && !found;) {
        struct rh_segment s;
        struct rh_batch b;
        uint64_t at = RH_SEGMENT_HEAD, next = 0;
        enum rh_piece piece;
        bool torn;
        int rc;

        if (files->at[i].kind != RH_JFILE_SEGMENT)
            continue;
        rc = load(j, &files->at[i]);
        if (rc == RH_OK)
            rc = open_segment(j, &files->at[i], &s);
        if (rc == RH_EINVAL)
            continue;
        if (rc < 0)
            return rc;
        while ((piece = rh_segment_next(&s, at, &b, &next, &torn)) != RH_PIECE_END) {
            at = piece == RH_PIECE_BATCH ? b.end : next;
            if (piece != RH_PIECE_BATCH)
                continue;
            found = true;
            j->keep_segment = b.keep_segment;
            j->due = b.keep_batch;
            j->past->forgiven = b.forgiven;
        }
    }
    return RH_OK;
}

static int read_needed(struct judge *j)
{
    struct rh_jfiles *files = &j->past->files;
    int rc = RH_OK;

    for (size_t i = 0; i < files->count && rc == RH_OK; i++) {
        if (files->at[i].kind != RH_JFILE_SEGMENT)
            continue;
        if (files->at[i].number < j->keep_segment)
            files->at[i].kind = RH_JFILE_GONE;
        else
            rc = read_segment(j, &files->at[i]);
    }
    if (rc == RH_OK && j->dark)
        rc = damage(j, j->doubt_segment, j->doubt_segment, j->doubt_offset,
                    "%s, and batches stand behind it", j->doubt);
    return rc < 0 ? rc : let_go(j);
}

int rh_journal_read_past(const struct rh_journal_reading *r, struct rh_journal_past *past,
                         struct rh_fault *fault)
{
    struct judge j = {.r = r, .past = past, .fault = fault};
    int rc = list_files(&j);

    past->number = RH_MAX(past->number, 1);
    if (rc == RH_OK)
        rc = find_end(&j);
    if (rc == RH_OK)
        rc = read_needed(&j);
    past->last = j.held;
    past->found.last_batch = j.held.number;
    if (past->found.skipped)
        past->forgiven = past->number;
    rh_mem_free(j.bytes);
    rh_jot_room_fini(&j.room);
    return rc == RH_ENOMEM ? rh_fault_set(fault, rc, "no memory to read the journal") : rc;
}

void rh_journal_past_fini(struct rh_journal_past *past)
{
    rh_mem_free(past->files.at);
    rh_mem_free(past->body);
    memset(past, 0, sizeof(*past));
}

int rh_journal_read(const struct rh_journal_reading *r, struct rh_journal_found *ret_found,
                    struct rh_fault *fault)
{
    struct rh_journal_past past = {0};
    const int rc = rh_journal_read_past(r, &past, fault);

    *ret_found = past.found;
    rh_journal_past_fini(&past);
    return rc;
}
