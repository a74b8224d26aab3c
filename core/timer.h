/* core/timer.h - one timer wheel per thread, resolution 1 ms.
 *
 * Timers live inside the caller's structs (rh_container_of); setting and clearing one costs some
 * ns, however many there are. Times are ms of one clock that does not go back, whatever its zero
 * (the hub: CLOCK_MONOTONIC); the wheel reads no clock.
 *
 *     rh_wheel_advance(w, now_ms, 1000, fire, shard);
 *     wait_ms = rh_wheel_next_ms(w, now_ms);      0: there is more to do, do not sleep
 *
 * Threads    the owner only.
 * Ownership  a timer is the caller's; while it is armed it must not move or be freed. Wheels must
 *            not move either.
 * Order      by ms; within one ms in no order. The wheel has a time of its own (now_ms in it),
 *            which advance moves up to its argument, or less far when the budget ends. A timer set
 *            to that time or before is past: it fires at the next advance, not in the running one,
 *            behind what is still due then.
 * Bounds     any number of timers, any time in the future. 11 KiB a wheel, nothing is allocated.
 */
#ifndef RH_TIMER_H
#define RH_TIMER_H

#include "core/base.h"

#define RH_WHEEL_BITS   6                     /* of the time, per level */
#define RH_WHEEL_SLOTS  (1u << RH_WHEEL_BITS) /* per level: one word says which are in use */
#define RH_WHEEL_LEVELS ((64 + RH_WHEEL_BITS - 1) / RH_WHEEL_BITS)

/* Unarmed is all zero, or after rh_timer_init. */
struct rh_timer {
    struct rh_list node;
    uint64_t due_ms; /* as it was set; read it as long as the timer is armed, and when it fires */
};

_Static_assert(sizeof(struct rh_timer) == 24, "timers are in every connection");

struct rh_wheel {
    uint64_t now_ms; /* the wheel's own time */
    size_t count;    /* armed timers */
    uint32_t levels; /* bit l: level l has timers */
    uint64_t used[RH_WHEEL_LEVELS];
    struct rh_list due;    /* their ms has come */
    struct rh_list late;   /* set to a past time: due at the next advance */
    struct rh_list moving; /* out of a slot whose time has come, still to go to lower levels */
    struct rh_list slot[RH_WHEEL_LEVELS][RH_WHEEL_SLOTS];
};

void rh_wheel_init(struct rh_wheel *w, uint64_t now_ms);
void rh_timer_init(struct rh_timer *t);

/* Arms it, or arms it anew. */
void rh_timer_set(struct rh_wheel *w, struct rh_timer *t, uint64_t due_ms);

/* Harmless on an unarmed one. */
void rh_timer_clear(struct rh_wheel *w, struct rh_timer *t);

/* Fires what is due up to now_ms, at most `budget` timers, and returns how many. A timer is unarmed
 * before fire() is called with it; fire may set, clear and free any timer. What the budget leaves
 * stays due, and the next call goes on with it. Inner work (moving timers down a level, a few ns
 * each) is bounded, too: so a return below `budget` does not say that all is done;
 * rh_wheel_next_ms() does. A time before the last call's moves nothing on. */
unsigned rh_wheel_advance(struct rh_wheel *w, uint64_t now_ms, unsigned budget,
                          void (*fire)(void *arg, struct rh_timer *t), void *arg);

/* ms from now_ms until advance may have something to do: 0 when it has now, UINT64_MAX when no
 * timer is armed. Not later than the first timer, but maybe earlier (by as many calls as there are
 * levels, at most), as far-off timers are known by coarse times only. */
uint64_t rh_wheel_next_ms(const struct rh_wheel *w, uint64_t now_ms);

bool rh_timer_armed(const struct rh_timer *t);
size_t rh_wheel_count(const struct rh_wheel *w);

#endif
