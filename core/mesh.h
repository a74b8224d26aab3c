/* core/mesh.h - all rings of a hub, and each thread's end of them: how threads talk.
 *
 * A net has members, numbered by tid; from each to each leads a link: a ring (core/ring.h), in
 * front of it the producer's spill, and the credits of requests. One pass of a thread:
 *
 *     rh_mesh_awake(m);
 *     rh_mesh_pop(m, handle, arg);         inbound events; handlers ask, tell and reply
 *     ...                                  the thread's other work asks and tells, too
 *     rh_mesh_publish(m);                  now the others see it; who sleeps is woken
 *     if (rh_mesh_sleep(m)) wait; else do not wait, only look for completions
 *
 * Classes    request: rh_mesh_ask, refused without a credit (RH_EFULL). Its reply: rh_mesh_reply,
 *            exactly one per request, never refused. Other consequences and control: rh_mesh_tell,
 *            refused only when memory is gone, and never after rh_mesh_reserve. Lossy:
 *            rh_mesh_drop_or_tell. core/event.h has the kinds with their classes.
 * Order      what one thread sends to another arrives in the order in which it was sent, whatever
 *            its class and whether it spilled or not; lossy events are missing or in order.
 * Threads    everything on the thread that owns the member, except what ends in _any; create and
 *            destroy while no member's thread runs. A member may also talk to itself.
 * Ownership  an event is copied; what it points to moves with it when the call succeeds, and stays
 *            with the caller on an error or a drop. Destroying a net does not free what events
 *            that were never popped point to: stop when all is quiet.
 * Limits     per ordered pair: RH_CREDIT_EVENTS requests and RH_CREDIT_BYTES unanswered. A spill
 *            over RH_SPILL_EVENTS or RH_SPILL_BYTES refuses new requests. RH_MESH_POP events per pop.
 * Memory     one mapping for all links, of which only what is used becomes real: about 17 KB for a
 *            pair that talks, 4 KB for one that was only asked about.
 */
#ifndef RH_MESH_H
#define RH_MESH_H

#include "core/event.h"
#include "core/ringhub.h"

struct rh_net;  /* the whole: bodies in mesh.c */
struct rh_mesh; /* one member's end of it */

/* Makes a net of `members` threads (1 to RH_MESH_MAX). `wake(wake_arg, tid)` shall end the wait of
 * that member's thread, also if the wait is yet to begin; it is called on the publishing thread,
 * at most once per time that the member sleeps. RH_ENOMEM. */
int rh_net_create(unsigned members, void (*wake)(void *arg, unsigned tid), void *wake_arg,
                  struct rh_net **ret_net);
void rh_net_destroy(struct rh_net *net); /* accepts NULL; all threads have been joined */

/* The end that belongs to the thread with that tid. Lives as long as the net. */
struct rh_mesh *rh_net_member(struct rh_net *net, unsigned tid);

/* ---- sending: everything becomes visible with the next rh_mesh_publish ---- */

/* Sends a request whose payload has `bytes` bytes (at most RH_CREDIT_BYTES); takes a credit, which
 * its reply returns. Fills `ev->from` and `ev->cost`. RH_EFULL: no credit, or the spill is over its
 * mark; nothing moved. */
int rh_mesh_ask(struct rh_mesh *m, unsigned to, struct rh_event *ev, uint32_t bytes);

/* The same in two steps, for a request that is sent only when something else has succeeded: a credit
 * is taken now (RH_EFULL), and it is sent with that, which cannot fail, or the credit given back.
 * Credits that are taken count as unanswered. */
int rh_mesh_take(struct rh_mesh *m, unsigned to, uint32_t bytes);
void rh_mesh_ask_taken(struct rh_mesh *m, unsigned to, struct rh_event *ev, uint32_t bytes);
void rh_mesh_give(struct rh_mesh *m, unsigned to, uint32_t bytes);

/* Would rh_mesh_ask succeed? True stays true until this thread asks or tells again. */
bool rh_mesh_can_ask(const struct rh_mesh *m, unsigned to, uint32_t bytes);

/* Answers a request (the popped event or a copy of it, now or later): `ev` is the reply's kind and
 * fields; from, cookie, conn and cost are filled in. Exactly one reply per request. */
void rh_mesh_reply(struct rh_mesh *m, const struct rh_event *request, struct rh_event *ev);

/* Sends a consequence that is no reply, or a control event; ev->cost should say its payload's
 * bytes. RH_ENOMEM: the spill could not grow; nothing moved. */
int rh_mesh_tell(struct rh_mesh *m, unsigned to, struct rh_event *ev);

/* Promises that the next `tells` calls of rh_mesh_tell to that member succeed, whatever else is sent
 * between them: for what must be told to several members or to none. Promises do not add up: of
 * two at the same time the larger holds for both. RH_ENOMEM: the spill could not grow; nothing
 * changed. */
int rh_mesh_reserve(struct rh_mesh *m, unsigned to, uint32_t tells);

/* Sends a lossy event if there is room right now. False: dropped and counted; nothing moved. */
bool rh_mesh_drop_or_tell(struct rh_mesh *m, unsigned to, struct rh_event *ev);

/* Is the spill to that member below its mark? While not, a handler should not take up work that
 * would add to it; rh_mesh_can_ask includes this. */
bool rh_mesh_has_room(const struct rh_mesh *m, unsigned to);

/* ---- one pass ---- */

/* Pops what is there, at most RH_MESH_POP events, taking turns between the sources, and calls
 * `handle` for each: the event lies in the ring and is valid during the call. A reply has returned
 * its credit before. Handlers may ask, tell, reply and publish, but not pop. Returns how many. */
unsigned rh_mesh_pop(struct rh_mesh *m, void (*handle)(void *arg, const struct rh_event *ev),
                     void *arg);

/* End of a pass: moves spilled events into rings as far as there is room, makes all sent events
 * visible and wakes the receivers that sleep, each once. */
void rh_mesh_publish(struct rh_mesh *m);

/* About to wait: from now on publishers wake us. False: do not wait, there is something to pop,
 * spilled or not yet published. After true the thread waits and then calls rh_mesh_awake; after
 * false it may, too. */
bool rh_mesh_sleep(struct rh_mesh *m);
void rh_mesh_awake(struct rh_mesh *m);

/* No reply is outstanding, nothing spilled, everything published. */
bool rh_mesh_quiet(const struct rh_mesh *m);

/* ---- questions of other threads: snapshots for gauges and counters ---- */

struct rh_mesh_stat {
    uint64_t asked;   /* requests sent */
    uint64_t replied; /* replies sent */
    uint64_t told;    /* consequences and control events sent, replies not included */
    uint64_t popped;  /* events received */
    uint64_t refused; /* rh_mesh_ask without a credit or above the mark */
    uint64_t spilled; /* events that had to wait in a spill */
    uint64_t dropped; /* lossy events without room */
    uint64_t woken;   /* wake-ups that we sent */
    /* gauges */
    uint64_t spill_events; /* waiting in our spills now */
    uint64_t spill_bytes;  /* their payload (replies count as none) */
    uint64_t credit_out;   /* our requests that are unanswered now */
};

void rh_mesh_stat_any(const struct rh_mesh *m, struct rh_mesh_stat *ret_stat);

/* Events in the ring from one member to another, published and not yet taken. */
uint32_t rh_net_depth_any(const struct rh_net *net, unsigned from, unsigned to);

/* Likewise of all that lead to a member. */
uint64_t rh_net_inbound_any(const struct rh_net *net, unsigned to);

#endif
