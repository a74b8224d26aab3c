/* Goal    whatever bytes a segment has: no byte outside of it is touched, what is found lies in it and in
 *         its order, an event that is found makes sense and is written as it was read; and a start reads what
 *         the walk finds, or refuses in words.
 * Method  rh_journal_walk, and rh_journal_read over a directory with the segment twice, under its own name
 *         and the next one.
 * Input   byte 0: 0, the rest is a segment as it lies on disk. Else the rest are batches without their
 *         sums, which the target makes: header of 8 bytes (number, events, length u16, keep, forgiven, how it
 *         is hurt, zeroes behind it) and so many bytes of events. So the fuzzer gets past the sums. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/journal_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SEGMENT_MAX (256u << 10)
#define SALT        5

struct seen {
    const uint8_t *bytes;
    size_t len;
    uint64_t batches, events, in_batch; /* events that are still to come in it */
    uint64_t at;
    bool damaged, ended;
};

static void check_event(const struct seen *s, const struct rh_journal_find *find)
{
    static uint8_t again[SEGMENT_MAX];
    const size_t size = rh_jot_size(find->jot);

    rh_assert(rh_jot_is_sound(find->jot));
    rh_assert(size == find->bytes && find->at.offset + size <= s->len);
    rh_assert(rh_jot_encode(again, find->jot) == again + size);
    rh_assert(!memcmp(again, s->bytes + find->at.offset, size));
}

static void see(void *arg, const struct rh_journal_find *find)
{
    struct seen *s = arg;

    rh_assert(!s->ended && find->at.offset >= s->at && find->at.offset <= s->len + RH_BATCH_ALIGN);
    s->at = find->at.offset;
    switch (find->kind) {
    case RH_FIND_BATCH:
        rh_assert(s->in_batch == 0 || s->damaged);
        rh_assert(find->at.offset + find->bytes <= s->len + RH_BATCH_ALIGN);
        s->in_batch = find->events;
        s->batches++;
        break;
    case RH_FIND_EVENT:
        rh_assert(s->in_batch > 0);
        s->in_batch--;
        s->events++;
        check_event(s, find);
        break;
    case RH_FIND_DAMAGE:
        rh_assert(find->what);
        s->damaged = true;
        break;
    default:
        rh_assert(find->what);
        s->ended = true;
    }
}

/* ---- as a directory ---- */

struct directory {
    const uint8_t *bytes;
    size_t len;
    uint64_t number;
    uint64_t visited, last;
};

static int list(void *arg, void (*each)(void *each_arg, const char *name, uint64_t size),
                void *each_arg, struct rh_fault *fault)
{
    const struct directory *d = arg;

    for (unsigned i = 0; i < 2; i++) {
        char name[RH_JOURNAL_NAME_BYTES];

        rh_journal_name(name, "journal", d->number + i);
        each(each_arg, name, d->len);
    }
    return RH_OK;
}

static int64_t read_bytes(void *arg, const char *name, uint64_t offset, void *dst, size_t len,
                          struct rh_fault *fault)
{
    const struct directory *d = arg;

    rh_assert(offset <= d->len && len <= d->len - offset);
    memcpy(dst, d->bytes + offset, len);
    return (int64_t)len;
}

static int visit(void *arg, const struct rh_journal_at *at, const struct rh_jot *jot)
{
    struct directory *d = arg;

    rh_assert(at->batch >= d->last && rh_jot_is_sound(jot));
    d->last = at->batch;
    d->visited++;
    return RH_OK;
}

static void check_directory(const uint8_t *bytes, size_t len, uint64_t number,
                            const struct seen *seen)
{
    struct directory d = {bytes, len, number, 0, 0};
    const struct rh_journal_source source = {&d, list, read_bytes};
    struct rh_journal_reading reading = {&source, false, &d, visit, NULL};
    struct rh_journal_found found;
    struct rh_fault fault = {""};
    int rc = rh_journal_read(&reading, &found, &fault);

    rh_assert(rc == RH_OK || (rc == RH_EIO && fault.text[0]));
    rh_assert(d.visited <= seen->events);
    rh_assert(rc != RH_OK || d.visited == found.events);
    d.visited = d.last = 0;
    reading.salvage = true;
    rc = rh_journal_read(&reading, &found, &fault);
    rh_assert(rc == RH_OK || rc == RH_EIO); /* another version */
    rh_assert(d.visited <= seen->events);
}

/* ---- making a segment ---- */

static size_t make_segment(uint8_t *bytes, const uint8_t *data, size_t size)
{
    const uint64_t number = 1;
    uint64_t batch = 0;
    size_t at = RH_SEGMENT_HEAD;

    rh_segment_seal(bytes, number, SEGMENT_MAX, SALT);
    while (size >= 8) {
        const uint8_t *how = data;
        struct rh_batch b = {.events = how[1], .len = how[2] | how[3] << 8};

        data += 8;
        size -= 8;
        b.len = (uint32_t)RH_MIN(b.len, size);
        b.number = batch = how[0] < 128 ? batch + 1 + how[0] : how[0] - 127u;
        b.keep_segment = how[4] % 4;
        b.keep_batch = how[4] / 4;
        b.forgiven = how[5];
        b.body = data;
        rh_batch_seal(bytes + at, &b, number, rh_segment_seed(number, SALT));
        memcpy(bytes + at + RH_BATCH_HEAD, data, b.len);
        if (how[6])
            bytes[at + how[6] % (RH_BATCH_HEAD + b.len)] ^= 1;
        data += b.len;
        size -= b.len;
        at = rh_round_up(at + RH_BATCH_HEAD + b.len, RH_BATCH_ALIGN) + how[7] / 32 * RH_BATCH_ALIGN;
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen seen = {0};
    uint8_t *bytes;
    int64_t number;

    if (size < 1 || size > 4096 + 2048)
        return 0;
    bytes = calloc(1, SEGMENT_MAX);
    seen.len = data[0] ? make_segment(bytes, data + 1, size - 1) : size - 1;
    seen.bytes = malloc(seen.len + 1); /* of its own size, so that ASan sees one byte too far */
    rh_assert(bytes && seen.bytes && seen.len <= SEGMENT_MAX);
    if (!data[0])
        memcpy(bytes, data + 1, seen.len);
    seen.bytes = realloc((uint8_t *)seen.bytes, seen.len ? seen.len : 1);
    memcpy((uint8_t *)seen.bytes, bytes, seen.len);
    free(bytes);
    number = rh_journal_walk(seen.bytes, seen.len, see, &seen);
    rh_assert(number < 0 || seen.ended);
    check_directory(seen.bytes, seen.len, number > 0 ? (uint64_t)number : 1, &seen);
    free((uint8_t *)seen.bytes);
    return 0;
}
