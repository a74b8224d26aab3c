/* tools/load/audience.c - a count for each message, a number and perhaps gaps for each reader.
 *
 * Why this way: with 15,000 readers a receipt may cost a few nanoseconds. A reader who gets
 * everything in order is one number that grows; all that a message needs is how many lack it. The
 * lists of gaps exist only where something went wrong.
 *
 * Invariants  (1) low <= top <= published, top - low <= LOAD_FLOW_MAX.
 *             (2) for n in [low, top): lacking[n] is the number of readers who have not got n.
 *             (3) message low is lacked by somebody and not refused, or low == top.
 *             (4) gaps are sorted, not empty, apart from each other, and below `next`.
 */
#include "tools/load/audience.h"

#include <string.h>

#include "core/mem.h"

#define GAPS_FIRST 4

static struct load_issue *issue(const struct load_stream *s, uint64_t seq)
{
    return &s->issues[seq % LOAD_FLOW_MAX];
}

/* ---- the stream ---- */

int load_stream_init(struct load_stream *s)
{
    s->issues = rh_mem_zalloc(LOAD_FLOW_MAX * sizeof(*s->issues));
    return s->issues ? RH_OK : RH_ENOMEM;
}

void load_stream_fini(struct load_stream *s)
{
    rh_mem_free(s->issues);
    s->issues = NULL;
}

void load_stream_publish(struct load_stream *s, uint64_t seq, uint64_t intended_ns)
{
    atomic_store_explicit(&issue(s, seq)->intended_ns, intended_ns, memory_order_relaxed);
    atomic_store_explicit(&issue(s, seq)->refused, false, memory_order_relaxed);
    atomic_store_explicit(&s->published, seq + 1, memory_order_release);
}

void load_stream_refuse(struct load_stream *s, uint64_t seq)
{
    atomic_store_explicit(&issue(s, seq)->refused, true, memory_order_relaxed);
    atomic_store_explicit(&s->refusals, true, memory_order_relaxed);
}

uint64_t load_stream_published(const struct load_stream *s)
{
    return atomic_load_explicit(&s->published, memory_order_acquire);
}

static bool is_refused(const struct load_stream *s, uint64_t seq)
{
    return atomic_load_explicit(&issue(s, seq)->refused, memory_order_relaxed);
}

/* ---- one reader ---- */

void load_inbox_fini(struct load_inbox *in)
{
    rh_mem_free(in->gaps);
    *in = (struct load_inbox){0};
}

/* Room for one more gap. Those below `low` hold only what was refused: they go. */
static int reserve_gap(struct load_inbox *in, uint64_t low)
{
    uint32_t room = in->gaps_room ? in->gaps_room * 2 : GAPS_FIRST, old = 0;
    struct load_gap *more;

    if (in->gaps_count < in->gaps_room)
        return RH_OK;
    while (old < in->gaps_count && in->gaps[old].to <= low)
        old++;
    if (old > 0) {
        in->gaps_count -= old;
        memmove(in->gaps, in->gaps + old, in->gaps_count * sizeof(*in->gaps));
        return RH_OK;
    }
    more = rh_mem_realloc(in->gaps, room * sizeof(*more));
    if (!more)
        return RH_ENOMEM;
    in->gaps = more;
    in->gaps_room = room;
    return RH_OK;
}

/* Takes one message out of gap `at`, which becomes smaller, two, or none. Room is reserved. */
static void fill_gap(struct load_inbox *in, uint32_t at, uint64_t seq)
{
    struct load_gap *g = &in->gaps[at], old = *g;
    uint32_t parts = (old.from < seq) + (seq + 1 < old.to);

    memmove(g + parts, g + 1, (in->gaps_count - at - 1) * sizeof(*g));
    in->gaps_count = in->gaps_count - 1 + parts;
    if (old.from < seq)
        *g++ = (struct load_gap){old.from, seq};
    if (seq + 1 < old.to)
        *g = (struct load_gap){seq + 1, old.to};
}

/* RH_ENOMEM or an enum load_arrival. */
static int take(struct load_inbox *in, uint64_t seq, uint64_t low)
{
    if (rh_likely(seq == in->next)) {
        in->next++;
        return LOAD_IN_ORDER;
    }
    if (reserve_gap(in, low) < 0)
        return RH_ENOMEM;
    if (seq > in->next) {
        in->gaps[in->gaps_count++] = (struct load_gap){in->next, seq};
        in->next = seq + 1;
        return LOAD_IN_ORDER;
    }
    for (uint32_t i = 0; i < in->gaps_count; i++)
        if (seq >= in->gaps[i].from && seq < in->gaps[i].to) {
            fill_gap(in, i, seq);
            return LOAD_REORDERED;
        }
    return LOAD_UNKNOWN;
}

/* ---- the readers of a worker ---- */

int load_audience_init(struct load_audience *a, struct load_stream *stream)
{
    a->stream = stream;
    a->lacking = rh_mem_zalloc(LOAD_FLOW_MAX * sizeof(*a->lacking));
    atomic_store_explicit(&a->done, UINT64_MAX, memory_order_relaxed);
    return a->lacking ? RH_OK : RH_ENOMEM;
}

void load_audience_fini(struct load_audience *a)
{
    rh_mem_free(a->lacking);
    a->lacking = NULL;
}

static uint32_t *lacking(const struct load_audience *a, uint64_t seq)
{
    return &a->lacking[seq % LOAD_FLOW_MAX];
}

static void tell(struct load_audience *a)
{
    atomic_store_explicit(&a->done, a->readers ? a->low : UINT64_MAX, memory_order_release);
}

static void advance(struct load_audience *a)
{
    uint64_t before = a->low;

    while (a->low < a->top && (*lacking(a, a->low) == 0 || is_refused(a->stream, a->low)))
        a->low++;
    if (a->low != before)
        tell(a);
}

static void extend(struct load_audience *a, uint64_t to)
{
    for (; a->top < to; a->top++)
        *lacking(a, a->top) = a->readers;
}

void load_audience_join(struct load_audience *a)
{
    rh_assert(a->top == 0);
    a->readers++;
    tell(a);
}

static bool has(const struct load_inbox *in, uint64_t seq)
{
    for (uint32_t i = 0; i < in->gaps_count; i++)
        if (seq >= in->gaps[i].from && seq < in->gaps[i].to)
            return false;
    return seq < in->next;
}

void load_audience_leave(struct load_audience *a, const struct load_inbox *in)
{
    rh_assert(a->readers > 0);
    for (uint64_t seq = a->low; seq < a->top; seq++)
        *lacking(a, seq) -= !has(in, seq);
    a->readers--;
    advance(a);
    tell(a);
}

int load_audience_arrive(struct load_audience *a, struct load_inbox *in, uint64_t seq,
                         uint64_t *ret_intended_ns)
{
    int rc = seq < load_stream_published(a->stream) ? take(in, seq, a->low) : LOAD_UNKNOWN;

    if (rc < 0 || rc == LOAD_UNKNOWN)
        return rc;
    *ret_intended_ns =
        atomic_load_explicit(&issue(a->stream, seq)->intended_ns, memory_order_relaxed);
    extend(a, seq + 1);
    if (seq >= a->low) { /* below: it was refused, and came all the same */
        (*lacking(a, seq))--;
        if (seq == a->low)
            advance(a);
    }
    return rc;
}

void load_audience_review(struct load_audience *a)
{
    extend(a, load_stream_published(a->stream));
    advance(a);
}

static uint64_t count_range(const struct load_audience *a, uint64_t from, uint64_t to,
                            uint64_t *first)
{
    uint64_t count = 0;

    for (uint64_t seq = RH_MAX(from, a->low); seq < to; seq++) {
        if (is_refused(a->stream, seq))
            continue;
        *first = RH_MIN(*first, seq);
        count++;
    }
    return count;
}

uint64_t load_audience_missing(const struct load_audience *a, const struct load_inbox *in,
                               uint64_t *ret_first)
{
    uint64_t count = 0;

    *ret_first = UINT64_MAX;
    for (uint32_t i = 0; i < in->gaps_count; i++)
        count += count_range(a, in->gaps[i].from, in->gaps[i].to, ret_first);
    return count + count_range(a, in->next, load_stream_published(a->stream), ret_first);
}

uint64_t load_audience_done_any(const struct load_audience *a)
{
    return atomic_load_explicit(&a->done, memory_order_acquire);
}
