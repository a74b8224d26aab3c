/* store/journal_walk.c - a segment's bytes: its header, its batches, what is damaged; see journal_int.h.
 *
 * Everything here is a function over memory, and trusts nothing of it.
 */
#include "store/journal_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/crc32c.h"

#define BATCH_MAGIC 0x31424852u /* "RHB1" */

static const char segment_magic[8] = "ringhubJ";

/* ---- numbers ---- */

static uint32_t get32(const uint8_t *at)
{
    uint32_t n;

    memcpy(&n, at, sizeof(n));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    n = __builtin_bswap32(n);
#endif
    return n;
}

static uint64_t get64(const uint8_t *at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static void put32(uint8_t *at, uint32_t n)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    n = __builtin_bswap32(n);
#endif
    memcpy(at, &n, sizeof(n));
}

static void put64(uint8_t *at, uint64_t n)
{
    put32(at, (uint32_t)n);
    put32(at + 4, (uint32_t)(n >> 32));
}

/* ---- names ---- */

void rh_journal_name(char *dst, const char *prefix, uint64_t number)
{
    snprintf(dst, RH_JOURNAL_NAME_BYTES, "%s-%016" PRIx64 ".seg", prefix, number);
}

uint64_t rh_journal_name_number(const char *prefix, const char *name)
{
    const size_t len = strlen(prefix);
    char again[RH_JOURNAL_NAME_BYTES];
    uint64_t number;

    if (strncmp(name, prefix, len) || name[len] != '-')
        return 0;
    number = strtoull(name + len + 1, NULL, 16);
    rh_journal_name(again, prefix, number);
    return strcmp(name, again) || number > RH_JOURNAL_NUMBER_MAX ? 0 : number;
}

uint64_t rh_journal_number_of(const char *name)
{
    return rh_journal_name_number("journal", name);
}

/* ---- headers ---- */

uint32_t rh_segment_seed(uint64_t number, uint64_t salt)
{
    uint8_t bytes[16];

    put64(bytes, number);
    put64(bytes + 8, salt);
    return rh_crc32c(0, bytes, sizeof(bytes));
}

void rh_segment_seal(uint8_t *block, uint64_t number, uint64_t size, uint64_t salt)
{
    memset(block, 0, RH_SEGMENT_HEAD);
    memcpy(block, segment_magic, sizeof(segment_magic));
    put32(block + 8, RH_SEGMENT_VERSION);
    put64(block + 16, number);
    put64(block + 24, size);
    put64(block + 32, salt);
    put32(block + 44, rh_crc32c(0, block, 44));
    memcpy(block + RH_SEGMENT_COPY, block, 48);
}

int rh_segment_open(struct rh_segment *s, const void *bytes, size_t len)
{
    memset(s, 0, sizeof(*s));
    if (len < RH_SEGMENT_HEAD)
        return RH_EINVAL;
    for (size_t at = 0; at < RH_SEGMENT_HEAD; at += RH_SEGMENT_COPY) {
        const uint8_t *head = (const uint8_t *)bytes + at;

        if (memcmp(head, segment_magic, sizeof(segment_magic)) ||
            get32(head + 44) != rh_crc32c(0, head, 44))
            continue;
        if (get32(head + 8) != RH_SEGMENT_VERSION)
            return RH_EUNSUPPORTED;
        if (!get64(head + 16) || get64(head + 16) > RH_JOURNAL_NUMBER_MAX)
            continue;
        s->bytes = bytes;
        s->len = len;
        s->number = get64(head + 16);
        s->size = get64(head + 24);
        s->seed = rh_segment_seed(s->number, get64(head + 32));
        return RH_OK;
    }
    return RH_EINVAL;
}

void rh_batch_seal(uint8_t *head, const struct rh_batch *batch, uint64_t segment, uint32_t seed)
{
    memset(head, 0, RH_BATCH_HEAD);
    put32(head, BATCH_MAGIC);
    put32(head + 4, batch->len);
    put64(head + 8, segment);
    put64(head + 16, batch->number);
    put64(head + 24, batch->keep_segment);
    put64(head + 32, batch->keep_batch);
    put64(head + 40, batch->forgiven);
    put32(head + 48, batch->events);
    put32(head + 52, rh_crc32c(seed, batch->body, batch->len));
    put32(head + 60, rh_crc32c(seed, head, 60));
}

/* ---- batches ---- */

/* Magic and number of a batch of that segment, whatever the sums say. */
static bool looks_like_batch(const uint8_t *bytes, size_t len, uint64_t at, uint64_t segment)
{
    return at + RH_BATCH_HEAD <= len && get32(bytes + at) == BATCH_MAGIC &&
           get64(bytes + at + 8) == segment;
}

bool rh_segment_looks_used(const void *bytes, size_t len, uint64_t number)
{
    for (uint64_t at = 0; at < len; at += RH_BATCH_ALIGN)
        if (looks_like_batch(bytes, len, at, number))
            return true;
    return false;
}

static bool has_head(const struct rh_segment *s, uint64_t at)
{
    const uint8_t *head;

    if (!looks_like_batch(s->bytes, s->len, at, s->number))
        return false;
    head = s->bytes + at;
    return get64(head + 16) && get32(head + 60) == rh_crc32c(s->seed, head, 60);
}

static bool read_batch(const struct rh_segment *s, uint64_t at, struct rh_batch *ret_batch)
{
    const uint8_t *head = s->bytes + at;
    const uint32_t len = get32(head + 4);

    if (len > s->len - at - RH_BATCH_HEAD ||
        get32(head + 52) != rh_crc32c(s->seed, head + RH_BATCH_HEAD, len))
        return false;
    *ret_batch = (struct rh_batch){
        .offset = at,
        .end = rh_round_up(at + RH_BATCH_HEAD + len, RH_BATCH_ALIGN),
        .number = get64(head + 16),
        .keep_segment = get64(head + 24),
        .keep_batch = get64(head + 32),
        .forgiven = get64(head + 40),
        .len = len,
        .events = get32(head + 48),
        .body = head + RH_BATCH_HEAD,
    };
    return true;
}

enum rh_piece rh_segment_next(const struct rh_segment *s, uint64_t at, struct rh_batch *ret_batch,
                              uint64_t *ret_next, bool *ret_torn)
{
    if (has_head(s, at) && read_batch(s, at, ret_batch))
        return RH_PIECE_BATCH;
    for (uint64_t next = at + RH_BATCH_ALIGN; next < s->len; next += RH_BATCH_ALIGN)
        if (has_head(s, next)) {
            *ret_next = next;
            return RH_PIECE_DAMAGE;
        }
    *ret_torn = looks_like_batch(s->bytes, s->len, at, s->number);
    return RH_PIECE_END;
}

/* ---- the walk of tools and tests ---- */

struct walk {
    const struct rh_segment *s;
    struct rh_jot_room room;
    struct rh_jot jot;
    struct rh_journal_find find;
    void (*visit)(void *arg, const struct rh_journal_find *find);
    void *arg;
};

static void tell(struct walk *w, enum rh_journal_find_kind kind, uint64_t offset, uint64_t bytes,
                 const char *what)
{
    w->find.kind = kind;
    w->find.at.offset = offset;
    w->find.bytes = bytes;
    w->find.what = what;
    w->visit(w->arg, &w->find);
}

static int walk_events(struct walk *w, const struct rh_batch *b)
{
    uint32_t at = 0;

    w->find.jot = &w->jot;
    for (uint32_t i = 0; i < b->events; i++) {
        const int64_t used = rh_jot_decode(b->body + at, b->len - at, &w->room, &w->jot);

        if (used == RH_ENOMEM)
            return RH_ENOMEM;
        if (used < 0)
            break;
        tell(w, RH_FIND_EVENT, b->offset + RH_BATCH_HEAD + at, (uint64_t)used, NULL);
        at += (uint32_t)used;
        if (i + 1 == b->events && at == b->len)
            return RH_OK;
    }
    if (b->events || b->len)
        tell(w, RH_FIND_DAMAGE, b->offset + RH_BATCH_HEAD + at, b->len - at,
             "the sum is right, but the events make no sense");
    return RH_OK;
}

static int walk_batch(struct walk *w, const struct rh_batch *b)
{
    const uint64_t before = w->find.at.batch;

    if (before && b->number != before + 1)
        tell(w, RH_FIND_DAMAGE, b->offset, 0, "the number of this batch does not follow");
    w->find.at.batch = b->number;
    w->find.events = b->events;
    tell(w, RH_FIND_BATCH, b->offset, b->end - b->offset, NULL);
    return walk_events(w, b);
}

int64_t rh_journal_walk(const void *bytes, size_t len,
                        void (*visit)(void *arg, const struct rh_journal_find *find), void *arg)
{
    struct rh_segment s;
    struct walk w = {.s = &s, .visit = visit, .arg = arg};
    struct rh_batch b;
    uint64_t at = RH_SEGMENT_HEAD, next = 0;
    bool torn = false;
    enum rh_piece piece;
    int rc = rh_segment_open(&s, bytes, len);

    if (rc < 0)
        return rc;
    w.find.at.segment = s.number;
    while ((piece = rh_segment_next(&s, at, &b, &next, &torn)) != RH_PIECE_END) {
        if (piece == RH_PIECE_BATCH && (rc = walk_batch(&w, &b)) < 0)
            goto out;
        if (piece == RH_PIECE_DAMAGE)
            tell(&w, RH_FIND_DAMAGE, at, next - at, "a batch is damaged, and another follows");
        at = piece == RH_PIECE_BATCH ? b.end : next;
    }
    tell(&w, RH_FIND_END, at, 0, torn ? "a batch that was never finished" : "nothing more");
out:
    rh_jot_room_fini(&w.room);
    return rc < 0 ? rc : (int64_t)s.number;
}
