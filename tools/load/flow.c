/* tools/load/flow.c - a ring of slots, one per unfinished message, in the order of their numbers.
 *
 * Why this way: whatever goes wrong with order (a message passed by others, one lost, one twice)
 * shows in the state of its slot, so the checker needs no lists. A lost message keeps its slot, and
 * `low` stops there; the ring then grows up to LOAD_FLOW_MAX, which bounds the memory.
 *
 * Invariants  (1) low <= expected <= next, next - low <= room.
 *             (2) slot low is unfinished, or low == next.
 *             (3) delivered == number of arrivals and refusals counted.
 */
#include "tools/load/flow.h"

#include <string.h>

#include "core/base.h"
#include "core/mem.h"

#define ROOM_FIRST 16

enum { DELIVERED = 1, ANSWERED = 2, DONE = DELIVERED | ANSWERED };

static struct load_slot *slot(const struct load_flow *f, uint64_t seq)
{
    return &f->slots[seq & (f->room - 1)];
}

static bool in_window(const struct load_flow *f, uint64_t seq)
{
    return seq >= f->low && seq < f->next;
}

void load_flow_init(struct load_flow *f, uint32_t sender, bool answers)
{
    *f = (struct load_flow){.sender = sender, .answers = answers};
}

void load_flow_fini(struct load_flow *f)
{
    rh_mem_free(f->slots);
    f->slots = NULL;
    f->room = 0;
}

int load_flow_reserve(struct load_flow *f)
{
    uint32_t room = f->room ? f->room * 2 : ROOM_FIRST;
    struct load_flow bigger = *f;

    if (f->next - f->low < f->room)
        return RH_OK;
    if (room > LOAD_FLOW_MAX)
        return RH_EFULL;
    bigger.room = room;
    bigger.slots = rh_mem_alloc(room * sizeof(*bigger.slots));
    if (!bigger.slots)
        return RH_ENOMEM;
    for (uint64_t seq = f->low; seq < f->next; seq++)
        *slot(&bigger, seq) = *slot(f, seq);
    rh_mem_free(f->slots);
    *f = bigger;
    return RH_OK;
}

uint64_t load_flow_send(struct load_flow *f, uint64_t intended_ns)
{
    rh_assert(f->next - f->low < f->room);
    *slot(f, f->next) = (struct load_slot){intended_ns, f->answers ? 0 : ANSWERED};
    return f->next++;
}

uint64_t load_flow_number(struct load_flow *f)
{
    return f->next++;
}

void load_flow_finish(struct load_flow *f)
{
    f->delivered++;
    f->low = f->delivered;
}

static void mark(struct load_flow *f, uint64_t seq, uint8_t state)
{
    slot(f, seq)->state |= state;
    while (f->low < f->next && slot(f, f->low)->state == DONE)
        f->low++;
    f->expected = RH_MAX(f->expected, f->low);
}

enum load_arrival load_flow_arrive(struct load_flow *f, uint64_t seq, uint64_t *ret_intended_ns)
{
    bool passed = seq < f->expected;

    if (!in_window(f, seq) || slot(f, seq)->state & DELIVERED)
        return LOAD_UNKNOWN;
    *ret_intended_ns = slot(f, seq)->intended_ns;
    f->delivered++;
    if (!passed)
        f->expected = seq + 1;
    mark(f, seq, DELIVERED);
    return passed ? LOAD_REORDERED : LOAD_IN_ORDER;
}

bool load_flow_answer(struct load_flow *f, uint64_t seq, uint64_t *ret_intended_ns)
{
    if (!in_window(f, seq) || slot(f, seq)->state & ANSWERED)
        return false;
    *ret_intended_ns = slot(f, seq)->intended_ns;
    mark(f, seq, ANSWERED);
    return true;
}

void load_flow_give_up(struct load_flow *f, uint64_t seq)
{
    if (!in_window(f, seq))
        return;
    if (!(slot(f, seq)->state & DELIVERED))
        f->delivered++;
    mark(f, seq, DONE);
}

uint64_t load_flow_intended(const struct load_flow *f, uint64_t seq)
{
    rh_assert(in_window(f, seq));
    return slot(f, seq)->intended_ns;
}

uint64_t load_flow_outstanding(const struct load_flow *f)
{
    return f->next - f->delivered;
}

bool load_flow_done(const struct load_flow *f)
{
    return f->low == f->next;
}

void load_flow_missing(const struct load_flow *f, uint64_t *ret_lost, uint64_t *ret_unanswered)
{
    *ret_lost = 0;
    *ret_unanswered = 0;
    for (uint64_t seq = f->low; seq < f->next; seq++) {
        *ret_lost += !(slot(f, seq)->state & DELIVERED);
        *ret_unanswered += !(slot(f, seq)->state & ANSWERED);
    }
}

/* ---- one message as it comes in ---- */

void load_seen_begin(struct load_seen *s)
{
    *s = (struct load_seen){.seq = 0};
}

/* The message that ends in these digits: the next such one from the expected one on; if there is
 * none, one that had been passed. What never was sent is taken for itself, and found out later. */
static uint64_t resolve(const struct load_flow *f, uint64_t low, unsigned digits)
{
    uint64_t step = UINT64_C(1) << (4 * digits);
    uint64_t seq = (f->expected & ~(step - 1)) | low;

    if (seq < f->expected)
        seq += step;
    if (seq >= f->next && seq >= step && seq - step >= f->low)
        seq -= step;
    return seq;
}

static void decide(struct load_seen *s, const struct load_flow *f, unsigned digits)
{
    uint64_t low;

    s->decided = true;
    s->seq = f->expected;
    if (digits == 0)
        return; /* empty messages are all the same */
    if (!load_payload_claim(s->head, digits, &low)) {
        s->bad = true;
        return;
    }
    s->seq = digits == LOAD_SEQ_DIGITS ? low : resolve(f, low, digits);
}

void load_seen_feed(struct load_seen *s, const struct load_flow *f, uint32_t size,
                    const uint8_t *at, size_t len)
{
    size_t digits = RH_MIN(size, LOAD_SEQ_DIGITS);

    if (!s->decided) {
        size_t run = RH_MIN(len, digits - s->at);

        memcpy(s->head + s->at, at, run);
        s->at += run;
        at += run;
        len -= run;
        if (s->at < digits)
            return;
        decide(s, f, (unsigned)digits); /* the digits are right then; a wrong one is another seq */
    }
    if (len == 0)
        return;
    if (s->at + len > size || !load_payload_check(at, len, s->at, f->sender, s->seq))
        s->bad = true;
    s->at += len;
}

bool load_seen_end(struct load_seen *s, const struct load_flow *f, uint32_t size)
{
    if (!s->decided)
        decide(s, f, 0); /* too short for digits: wrong, unless it is meant to be empty */
    return !s->bad && s->at == size && s->seq < f->next; /* else it was never sent */
}
