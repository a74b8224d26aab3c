/* core/ring.h - a one-way SPSC ring of events between exactly two threads.
 *
 * Cells are filled and read in place, and both ends work in batches: the producer reserves and
 * commits cells and publishes them together; the consumer peeks and drops them and gives the space
 * back together.
 *
 *     while (more && (ev = rh_ring_reserve(r))) {     while ((ev = rh_ring_peek(r))) {
 *         *ev = ...;                                      use(ev);
 *         rh_ring_commit(r);                              rh_ring_drop(r);
 *     }                                               }
 *     rh_ring_publish(r);                             rh_ring_release(r);
 *
 * Threads    reserve, commit, publish: the producer only. peek, drop, release: the consumer only.
 *            init: before the consumer can know of the ring. depth_any: anyone.
 *            The ring wakes nobody: that is core/mesh's business, or the caller's.
 * Ownership  memory is the caller's. A peeked cell is valid until it is dropped. What an event
 *            points to moves when the event is committed.
 * Limits     slots is a power of two, at least 4; one slot stays empty, so a ring of 256 holds 255.
 * Cost       6 to 13 ns an event in batches of 32, 14 to 18 ns one by one, three times as much while
 *            the cores are far from each other (bench/bench_ring.c; two cores of a virtual EPYC).
 */
#ifndef RH_RING_H
#define RH_RING_H

#include "core/event.h"

struct rh_ring; /* body in ring.c */

/* Bytes of memory that a ring of so many slots needs: a multiple of the cache line. */
size_t rh_ring_bytes(uint32_t slots);

/* Makes a ring in `mem`: rh_ring_bytes(slots) bytes, aligned to the cache line, zeroed. Needs no
 * fini: the memory may be freed when both threads are done. */
struct rh_ring *rh_ring_init(void *mem, uint32_t slots);

/* Producer: the next free cell, to be filled (old contents inside), or NULL when the ring is full.
 * Without a commit in between it returns the same cell again. */
struct rh_event *rh_ring_reserve(struct rh_ring *ring);

/* Producer: the reserved cell counts. The consumer sees it after rh_ring_publish(). */
void rh_ring_commit(struct rh_ring *ring);

/* Producer: makes all committed cells visible. False when there were none. */
bool rh_ring_publish(struct rh_ring *ring);

/* Consumer: the oldest event, in place, or NULL when the ring is empty. */
const struct rh_event *rh_ring_peek(struct rh_ring *ring);

/* Consumer: done with the peeked event. Its space is given back at the latest by the next
 * rh_ring_release(), and without one after every quarter of the ring. */
void rh_ring_drop(struct rh_ring *ring);

/* Consumer: end of a batch, gives back the space of everything dropped. */
void rh_ring_release(struct rh_ring *ring);

/* Events published and not yet released: a snapshot, for gauges. Also right for zeroed memory in
 * which no ring was made yet (0). */
uint32_t rh_ring_depth_any(const struct rh_ring *ring);

#endif
