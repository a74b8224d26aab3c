/* core/timer.c - a hierarchical wheel whose levels are the digits of the time.
 *
 * Why this way: write the time in base 64. A timer stands at the level of the highest digit in
 * which its time differs from the wheel's, in the slot that this digit names:
 *
 *     wheel's time   .. 0  3 17 60
 *     timer          .. 0  3 20 05     differs first in digit 1: level 1, slot 20
 *
 * So nothing wraps around, everything on a lower level comes before everything on a higher one,
 * and the first occupied slot of the lowest occupied level is what happens next: two look-ups in
 * bitmaps, over a gap of hours as over one of 1 ms. When the wheel's time reaches a slot above
 * level 0, its timers move down (a slot's time is that of its first possible timer). With 11 digits
 * there is no time that does not fit.
 *
 * Invariants  (1) A timer in a slot is later than now_ms, and its level and slot are the ones
 *                 that slot_of() computes from now_ms, also long after it was put there: now_ms
 *                 changes in the digit of an occupied level only up to the next occupied slot.
 *             (2) A bit in `used` is set exactly when its slot has timers; likewise `levels`.
 *             (3) now_ms stands still while `due` or `moving` has timers.
 *             (4) count is the number of timers in all lists.
 * Rejected    A heap: log n cache misses for every message that arms a deadline. Slots by
 *             due - now (as in most wheels): they wrap, and "what is next" has to look around the
 *             corner on every level.
 */
#include "core/timer.h"

#define MOVES_A_FIRE 4    /* moving is that much cheaper than firing */
#define MOVES_MIN    1024 /* an advance, however small its budget */

void rh_wheel_init(struct rh_wheel *w, uint64_t now_ms)
{
    *w = (struct rh_wheel){.now_ms = now_ms};
    rh_list_init(&w->due);
    rh_list_init(&w->late);
    rh_list_init(&w->moving);
    for (unsigned level = 0; level < RH_WHEEL_LEVELS; level++)
        for (unsigned i = 0; i < RH_WHEEL_SLOTS; i++)
            rh_list_init(&w->slot[level][i]);
}

void rh_timer_init(struct rh_timer *t)
{
    rh_list_init(&t->node);
    t->due_ms = 0;
}

bool rh_timer_armed(const struct rh_timer *t)
{
    return t->node.next && t->node.next != &t->node;
}

/* Where a time after now_ms belongs. */
static inline unsigned slot_of(const struct rh_wheel *w, uint64_t due_ms, unsigned *ret_level)
{
    unsigned top_bit = 63 - (unsigned)__builtin_clzll(due_ms ^ w->now_ms);
    unsigned level = top_bit / RH_WHEEL_BITS;

    *ret_level = level;
    return due_ms >> (level * RH_WHEEL_BITS) & (RH_WHEEL_SLOTS - 1);
}

static void slot_put(struct rh_wheel *w, struct rh_timer *t)
{
    unsigned level;
    unsigned slot = slot_of(w, t->due_ms, &level);

    rh_list_add(&w->slot[level][slot], &t->node);
    w->used[level] |= UINT64_C(1) << slot;
    w->levels |= 1u << level;
}

static void slot_mark_empty(struct rh_wheel *w, unsigned level, unsigned slot)
{
    w->used[level] &= ~(UINT64_C(1) << slot);
    if (!w->used[level])
        w->levels &= ~(1u << level);
}

void rh_timer_set(struct rh_wheel *w, struct rh_timer *t, uint64_t due_ms)
{
    rh_timer_clear(w, t);
    t->due_ms = due_ms;
    if (due_ms > w->now_ms)
        slot_put(w, t);
    else
        rh_list_add(&w->late, &t->node);
    w->count++;
}

void rh_timer_clear(struct rh_wheel *w, struct rh_timer *t)
{
    struct rh_list *next = t->node.next;

    if (!rh_timer_armed(t))
        return;
    rh_list_del(&t->node);
    w->count--;
    /* If it was in a slot and the last one there, the slot is the one that its time names. Was it
     * elsewhere (moving), that slot may have timers. */
    if (rh_list_empty(next) && t->due_ms > w->now_ms) {
        unsigned level;
        unsigned slot = slot_of(w, t->due_ms, &level);

        if (rh_list_empty(&w->slot[level][slot]))
            slot_mark_empty(w, level, slot);
    }
}

/* Appends all of `from` to `to`; `from` is empty afterwards. */
static void list_splice(struct rh_list *to, struct rh_list *from)
{
    if (rh_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    rh_list_init(from);
}

/* The next occupied slot and its time, which is later than now_ms. */
static bool next_slot(const struct rh_wheel *w, unsigned *ret_level, unsigned *ret_slot,
                      uint64_t *ret_ms)
{
    unsigned level;
    unsigned slot;
    unsigned shift;

    if (!w->levels)
        return false;
    level = (unsigned)__builtin_ctz(w->levels);
    slot = (unsigned)__builtin_ctzll(w->used[level]);
    shift = level * RH_WHEEL_BITS;
    *ret_level = level;
    *ret_slot = slot;
    /* The digits above from the wheel's time, this one from the slot, zeros below. In two shifts:
     * at the top level one would be by more than 63. */
    *ret_ms = (w->now_ms >> shift >> RH_WHEEL_BITS << RH_WHEEL_BITS | slot) << shift;
    return true;
}

/* Moves the wheel's time on to the next slot if that is not after now_ms, and empties the slot. */
static bool step(struct rh_wheel *w, uint64_t now_ms)
{
    unsigned level;
    unsigned slot;
    uint64_t ms;

    if (!next_slot(w, &level, &slot, &ms) || ms > now_ms) {
        w->now_ms = RH_MAX(w->now_ms, now_ms);
        return false;
    }
    w->now_ms = ms;
    list_splice(level ? &w->moving : &w->due, &w->slot[level][slot]);
    slot_mark_empty(w, level, slot);
    return true;
}

/* Takes at most `most` timers down from `moving`; returns how many. */
static unsigned move_down(struct rh_wheel *w, unsigned most)
{
    unsigned moved = 0;

    while (moved < most && !rh_list_empty(&w->moving)) {
        struct rh_timer *t = rh_container_of(w->moving.next, struct rh_timer, node);

        rh_list_del(&t->node);
        if (t->due_ms > w->now_ms)
            slot_put(w, t);
        else
            rh_list_add(&w->due, &t->node);
        moved++;
    }
    return moved;
}

unsigned rh_wheel_advance(struct rh_wheel *w, uint64_t now_ms, unsigned budget,
                          void (*fire)(void *arg, struct rh_timer *t), void *arg)
{
    uint64_t moves = RH_MAX((uint64_t)budget * MOVES_A_FIRE, MOVES_MIN);
    unsigned fired = 0;

    list_splice(&w->due, &w->late);
    while (fired < budget) {
        if (!rh_list_empty(&w->due)) {
            struct rh_timer *t = rh_container_of(w->due.next, struct rh_timer, node);

            rh_list_del(&t->node);
            w->count--;
            fired++;
            fire(arg, t);
        } else if (!rh_list_empty(&w->moving)) {
            if (!moves)
                break;
            moves -= move_down(w, (unsigned)RH_MIN(moves, UINT32_MAX));
        } else if (!step(w, now_ms)) {
            break;
        }
    }
    return fired;
}

uint64_t rh_wheel_next_ms(const struct rh_wheel *w, uint64_t now_ms)
{
    unsigned level;
    unsigned slot;
    uint64_t ms;

    if (!rh_list_empty(&w->due) || !rh_list_empty(&w->late) || !rh_list_empty(&w->moving))
        return 0;
    if (!next_slot(w, &level, &slot, &ms))
        return UINT64_MAX;
    return ms > now_ms ? ms - now_ms : 0;
}

size_t rh_wheel_count(const struct rh_wheel *w)
{
    return w->count;
}
