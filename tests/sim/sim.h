/* tests/sim/sim.h - the simulated world: one seed, one clock, one list of what will happen.
 *
 * The simulation links the hub's own code with another seam: core/uring, core/clock, core/rand and
 * core/mem are replaced by files of this folder. All shards, the kernel and the clients are driven
 * on one thread; whatever could go one way or the other (who runs next, how long a byte travels,
 * where TCP cuts, which allocation fails) is drawn from the seed. So a run that fails once fails
 * every time, and can be looked at with a debugger.
 *
 *   sim.c         the cases, and main
 *   sim_crowd     the case of sessions, rooms and broadcasts
 *   sim_owed      the case of promises: its devices (sim_owed_dev), its book (sim_owed_book)
 *   sim_hub       the shards: who runs next, the control thread, what must hold between passes
 *   sim_client    scripted clients with real handshakes and masked frames
 *   sim_guest     others: echoes, HTTP requests one behind the other
 *   sim_actor     clients with a session, which reconnect; what they say and hear
 *   sim_talk      the crowd's book of requests, direct messages and broadcasts
 *   sim_rooms     its book of rooms: what was observed; and in sim_rooms_rest what follows at rest
 *   sim_read      reading JSON
 *   sim_wire      what both have to write, in pieces
 *   sim_book      what was said, answered and received, and whether that was right
 *   sim_uring     the fake kernel's ring: queueing, completions, provided buffers
 *   sim_op        what an operation does, and how it ends
 *   sim_file      descriptors and listeners
 *   sim_net       connections: bytes on their way, ends of stream, resets
 *   sim_mem       an allocator that knows what is still out
 *   sim_world     clock, random numbers, what happens when, the trace
 *
 * Threads    one.
 * Ownership  what sim_keep() gives lives until the end of the run; nothing here is freed earlier, so
 *            that an event may come after its object has lost its meaning.
 */
#ifndef SIM_H
#define SIM_H

#include "core/base.h"

#define SIM_US    UINT64_C(1000) /* in ns, like all times here */
#define SIM_MS    (1000 * SIM_US)
#define SIM_S     (1000 * SIM_MS)
#define SIM_NEVER UINT64_MAX

/* What a run may do to the hub; 0 is a kind world. */
struct sim_knobs {
    unsigned buffers;     /* provided buffers of a shard */
    unsigned send_room;   /* bytes that a socket's send queue takes */
    unsigned recv_room;   /* and its receive queue */
    unsigned delay_us;    /* longest ordinary delay */
    unsigned bad_accepts; /* of 1000 that fail */
    unsigned files;       /* slots of a shard's table; 0: ordinary descriptors */
    unsigned bad_passes;  /* of 1000 direct descriptors that cannot be handed over */
    unsigned bad_allocs;  /* of 1000 passes in which an allocation fails */
    unsigned stalls;      /* of 1000 passes behind which a shard stands still */
    bool bad_disk;        /* syncs fail: what they were for is written elsewhere again */
    unsigned drops_more;  /* of 1000 completions of a multishot receive that end it */
};

extern struct sim_knobs sim_knobs;

/* ---- sim_world.c ---- */

void sim_world_begin(const char *name, uint64_t seed, bool loud);
void sim_world_end(void);

uint64_t sim_now(void); /* since the run began */
void sim_move_clock(uint64_t to_ns);
void sim_jump_wall(int64_t by_us); /* the wall clock is set */
uint64_t sim_rand(void);
uint64_t sim_below(uint64_t n);     /* 0 to n - 1 */
bool sim_chance(unsigned per_1000); /* true so often */
uint64_t sim_soon(void);            /* now and an ordinary delay: short mostly, long sometimes */
void *sim_keep(size_t size);        /* zeroed */

/* Calls what(arg) when the clock is there; in order of time, else of the calls. */
void sim_at(uint64_t at_ns, void (*what)(void *arg), void *arg);
uint64_t sim_next_event(void); /* or SIM_NEVER */
void sim_run_events(void);     /* all that are due */

/* One line of the trace, with the time in front. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *sim_trace_text(size_t *ret_len); /* of the run, until it ends */

/* Ends the program: the run failed. Says which, why, and how to see it again. */
void sim_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void sim_on_crash(void); /* the same sentence when it dies of something else */

#define SIM_CHECK(cond, ...)                                                                       \
    do {                                                                                           \
        if (!(cond))                                                                               \
            sim_fail(__VA_ARGS__);                                                                 \
    } while (0)

/* ---- sim_mem.c ---- */

uint64_t sim_mem_live(void);      /* allocations that are out */
uint64_t sim_mem_mark(void);      /* now */
void sim_mem_drop(uint64_t mark); /* a process has died: what was allocated since then is free */
void sim_mem_list(void);          /* says on standard error which */

#endif
