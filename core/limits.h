/* core/limits.h - every bound that is fixed when the program is built, with the sum that gives it.
 *
 * What an operator may change is a key of the configuration instead (core/config).
 */
#ifndef RH_LIMITS_H
#define RH_LIMITS_H

/* ---- threads and the mesh of rings between them (core/ring, core/mesh) ---- */

#define RH_SHARDS_MAX 64                             /* one bit each in a 64-bit word */
#define RH_PORTS_MAX  64                             /* outside threads, likewise */
#define RH_MESH_MAX   (RH_SHARDS_MAX + RH_PORTS_MAX) /* members: two words of bits */

/* Cells of a ring; one stays empty. 256 cells of 64 bytes fit a first-level cache; rings of 1,024
 * were measured about twice as slow per event (bench/bench_ring.c). */
#define RH_RING_SLOTS 256

/* Requests of one thread that another has not answered: events, and bytes of their payload. */
#define RH_CREDIT_EVENTS 1024
#define RH_CREDIT_BYTES  (16u << 20)

/* The mark of a spill (per destination) above which nothing new is admitted that would add to it. */
#define RH_SPILL_EVENTS 16384
#define RH_SPILL_BYTES  (16u << 20)

/* Events of a spill that need no allocation, per pair of threads: every reply that may be
 * outstanding + every request that has a credit + a burst of other consequences. */
#define RH_SPILL_TELLS 256
#define RH_SPILL_FIXED (RH_CREDIT_EVENTS + RH_CREDIT_EVENTS + RH_SPILL_TELLS)

#define RH_MESH_POP  1024 /* events that a thread takes in one pass, from all others together */
#define RH_MESH_TURN 32   /* of these, from one before the next has its turn */

/* ---- messages that wait ---- */

/* Direct messages of one user that found no room on any device (shard/retry.c): as many as the queue
 * of one device has by default, so that a full one's worth may follow when it has drained. */
#define RH_RETRY_MAX 256

/* ---- promises ---- */

/* Of the owed messages, those that stand in one connection's queue. */
#define RH_OWED_QUEUED_MAX 64
/* Of a room's, which come in its order, so many while no send was tried. */
#define RH_OWED_BURST_MAX 1024

/* What the record thread takes that is not committed; more closes the gate. */
#define RH_UNCOMMITTED_MAX (64u << 20)

/* Requests of one shard's clients whose answer waits for a commit; then who asks is not read. All
 * shards together may have so many bytes of messages there (shard/promise.c divides): the rest of what
 * may be uncommitted is for what stands around a message, and for its end. */
#define RH_PENDING_MAX       8192
#define RH_PENDING_BYTES_MAX (RH_UNCOMMITTED_MAX / 4 * 3)

/* One owed message that is unanswered for so long, or for a tenth of ack.timeout, is told to the ack
 * thread; most are answered before. */
#define RH_ARM_AFTER_MS 100

/* A commit that takes longer closes the gate: who waits for it is answered store_failed. */
#define RH_COMMIT_MS_MAX 900

/* A segment of the journal; one batch that is larger gets a larger one. */
#define RH_SEGMENT_BYTES (16u << 20)

#endif
