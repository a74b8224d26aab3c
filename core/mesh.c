/* core/mesh.c - rings from everyone to everyone, with spill, credits, sleep and wake.
 *
 * Why this way: one ring per ordered pair has one writer and one reader and needs no lock, but N
 * of them must not cost N looks per pass. So every member has a bitmap of the sources that have
 * published since it last looked; an idle mesh of any size costs a pass two loads.
 *
 *     producer                                      consumer
 *       ask/tell/reply -> spill -> ring               pop: exchange `ready` with 0, add to todo,
 *       publish: (1) p_tail of the ring                    pop the rings in todo, in turns
 *                (2) fetch_or our bit in `ready`      sleep: (a) sleeping = 1
 *                (3) load `sleeping`; 1: exchange            (b) load `ready`: not 0, stay awake
 *                    it with 0, and who got 1 wakes          (c) wait
 *
 * Why no event is overlooked: (1) comes before (2), a release; the exchange that takes our bit
 * acquires, so the pops behind it see the new p_tail. If the exchange comes before (2), the bit
 * stays for the next one. A source leaves todo only when its ring was seen empty; what is published
 * after that sets the bit after that.
 *
 * Why no wake-up is lost (Dekker): (2), (3), (a) and (b) are all seq_cst, hence in one total order
 * that agrees with each thread's own; on x86 (2) and (a) are the locked instructions that make
 * the full fence on either side. Either (2) comes before (b), and the consumer sees the bit; or (b)
 * before (2), so (a) before (3), and the producer sees the flag. A release store in place of (a), or
 * a look at the bit in place of (2), would break this.
 *
 * Why (2) is not skipped when the bit is seen set already: between (1) and that look a full fence
 * would be needed, or the look may pass the store, the consumer's exchange comes between, and the
 * event lies unseen behind a clear bit. The fence costs what the fetch_or costs, once per batch.
 *
 * Spill: a FIFO in front of the ring; once it holds something, all that follows goes behind it, so
 * order is kept. Replies and requests must find room in it without an allocation. Of both at most
 * RH_CREDIT_EVENTS can be outstanding, so the rule is
 *
 *     spill_cap >= 2 * RH_CREDIT_EVENTS + (other events in the spill) + (those that are reserved)
 *
 * and only these others make it grow (rh_mesh_tell, rh_mesh_reserve: RH_ENOMEM). It shrinks back
 * when it is empty. What is reserved counts in full, also while the ring has room: requests may
 * take that.
 *
 * Threads     A link's struct and spill are the producer's, its ring is shared by core/ring's
 *             rules. The producer makes the ring at first use; the consumer learns of it by the
 *             bit. Counters are written by the owner alone (relaxed) and read by anyone.
 * Invariants  (1) Credits: credit_events of link (x, y) == requests from x to y whose reply x has
 *             not popped, and that it may still send (rh_mesh_take); `owed` of link (y, x) counts those that y popped and has not answered.
 *             (2) A link is dirty when it has unpublished cells or a spill.
 * Limits      core/limits.h. N members: N * N links of about 164 KB of addresses each, 2.7 GB for
 *             128, unreserved; memory is used where something happened.
 * Rejected    One MPSC ring per thread: less wiring, but all producers meet on one cache line, and
 *             one slow producer between reserve and commit stops everyone. C11 fences: TSan
 *             knows none. Waking the producer when room appears: a fence per release, for a case in
 *             which the producer has work anyway; with a spill it does not sleep.
 */
#include "core/mesh.h"

#include <string.h>
#include <sys/mman.h>

#include "core/limits.h"
#include "core/mem.h"
#include "core/ring.h"

#define WORDS 2 /* of 64 bits, one bit per member */

_Static_assert(RH_MESH_MAX == WORDS * 64, "every member has a bit");
_Static_assert(RH_SPILL_FIXED >= 2 * RH_CREDIT_EVENTS, "replies and requests spill without memory");
_Static_assert(RH_MESH_MAX <= UINT16_MAX, "a tid fits rh_event.from");

/* The producer's half of a link. Behind it in memory: the ring, then the first spill. */
struct link {
    alignas(RH_CACHE_LINE) struct rh_ring *ring; /* NULL until first use */
    struct rh_event *spill;                      /* circular; the first one or from the heap */
    uint32_t spill_cap;
    uint32_t spill_head;
    uint32_t spill_len;
    uint32_t spill_tells; /* of these, neither request nor reply */
    uint64_t spill_bytes;
    uint32_t credit_events; /* our requests that are unanswered */
    uint32_t credit_bytes;
    uint32_t owed;     /* their requests that we have not answered */
    uint32_t reserved; /* tells to come that were promised room */
};

/* Counters and gauges: the owner writes, anyone reads; all relaxed. */
struct counts {
    alignas(RH_CACHE_LINE) _Atomic uint64_t asked;
    _Atomic uint64_t replied;
    _Atomic uint64_t told;
    _Atomic uint64_t popped;
    _Atomic uint64_t refused;
    _Atomic uint64_t spilled;
    _Atomic uint64_t dropped;
    _Atomic uint64_t woken;
    _Atomic uint64_t spill_events;
    _Atomic uint64_t spill_bytes;
    _Atomic uint64_t credit_out;
};

struct rh_mesh {
    /* Fixed before start. */
    struct rh_net *net;
    unsigned tid;

    /* The owner's. */
    bool popping;
    unsigned next;         /* the source whose turn is next */
    uint64_t todo[WORDS];  /* sources whose rings may hold something */
    uint64_t dirty[WORDS]; /* destinations to publish to */

    struct counts counts;

    /* Shared. Publishers set their bit, the owner takes all (see the head of the file). */
    alignas(RH_CACHE_LINE) _Atomic uint64_t ready[WORDS];
    /* Shared. The owner sets it, who resets it wakes the owner (see the head of the file). */
    alignas(RH_CACHE_LINE) _Atomic uint32_t sleeping;
};

struct rh_net {
    /* All fixed before start. */
    unsigned members;
    void (*wake)(void *arg, unsigned tid);
    void *wake_arg;
    size_t stride; /* bytes of a link with its ring and first spill */
    size_t bytes;
    char *links;
    struct rh_mesh *mesh; /* [members] */
};

/* ---- small things ---- */

static void count(_Atomic uint64_t *counter, uint64_t more)
{
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, old + more, memory_order_relaxed);
}

static uint64_t counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static struct link *link_of(const struct rh_net *net, unsigned from, unsigned to)
{
    return (struct link *)(net->links + (from * net->members + to) * net->stride);
}

static struct rh_ring *ring_memory(struct link *link)
{
    return (struct rh_ring *)(link + 1);
}

static struct rh_event *first_spill(struct link *link)
{
    return (struct rh_event *)((char *)(link + 1) + rh_ring_bytes(RH_RING_SLOTS));
}

/* Our link to that member, which need not have been used yet. */
static struct link *link_to(const struct rh_mesh *m, unsigned to)
{
    rh_assert(to < m->net->members);
    return link_of(m->net, m->tid, to);
}

static bool any(const uint64_t bits[WORDS])
{
    return (bits[0] | bits[1]) != 0;
}

/* ---- life ---- */

int rh_net_create(unsigned members, void (*wake)(void *arg, unsigned tid), void *wake_arg,
                  struct rh_net **ret_net)
{
    struct rh_net *net = rh_mem_zalloc(sizeof(*net));
    int rc = RH_ENOMEM;

    rh_assert(members >= 1 && members <= RH_MESH_MAX && wake);
    if (!net)
        goto out;
    net->members = members;
    net->wake = wake;
    net->wake_arg = wake_arg;
    net->mesh = rh_mem_zalloc_aligned(members * sizeof(*net->mesh));
    if (!net->mesh)
        goto out;
    for (unsigned tid = 0; tid < members; tid++) {
        net->mesh[tid].net = net;
        net->mesh[tid].tid = tid;
    }

    net->stride = sizeof(struct link) + rh_ring_bytes(RH_RING_SLOTS) +
                  RH_SPILL_FIXED * sizeof(struct rh_event);
    net->bytes = (size_t)members * members * net->stride;
    net->links = mmap(NULL, net->bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (net->links == MAP_FAILED) {
        net->links = NULL;
        goto out;
    }
    /* A huge page would make two megabytes real at the first touch. Failure is harmless. */
    madvise(net->links, net->bytes, MADV_NOHUGEPAGE);

    *ret_net = net;
    net = NULL; /* moved */
    rc = RH_OK;
out:
    rh_net_destroy(net);
    return rc;
}

static void link_fini(struct link *link)
{
    if (link->spill && link->spill != first_spill(link))
        rh_mem_free(link->spill);
}

void rh_net_destroy(struct rh_net *net)
{
    if (!net)
        return;
    if (net->links) {
        for (unsigned from = 0; from < net->members; from++)
            for (unsigned to = 0; to < net->members; to++)
                link_fini(link_of(net, from, to));
        munmap(net->links, net->bytes);
    }
    rh_mem_free(net->mesh);
    rh_mem_free(net);
}

struct rh_mesh *rh_net_member(struct rh_net *net, unsigned tid)
{
    rh_assert(tid < net->members);
    return &net->mesh[tid];
}

/* ---- the spill ---- */

static bool is_tell(const struct rh_event *ev)
{
    return !rh_event_is_request(ev->kind) && !rh_event_is_reply(ev->kind);
}

/* A reply carries its request's cost, but not its payload. */
static uint32_t payload(const struct rh_event *ev)
{
    return rh_event_is_reply(ev->kind) ? 0 : ev->cost;
}

/* The capacity that a spill must have for that many tells. */
static uint64_t cap_for(uint64_t tells)
{
    return 2 * RH_CREDIT_EVENTS + tells;
}

/* Doubles the spill until it has that capacity, its oldest event first. */
static int spill_grow(struct link *link, uint64_t need)
{
    uint32_t tail_part = link->spill_cap - link->spill_head; /* from head to the end of memory */
    uint64_t cap = link->spill_cap;
    struct rh_event *more;

    while (cap < need)
        cap *= 2;
    if (cap == link->spill_cap)
        return RH_OK;
    more = cap <= UINT32_MAX ? rh_mem_alloc(cap * sizeof(*more)) : NULL;
    if (!more)
        return RH_ENOMEM;
    memcpy(more, link->spill + link->spill_head, tail_part * sizeof(*more));
    memcpy(more + tail_part, link->spill, link->spill_head * sizeof(*more));
    link_fini(link);
    link->spill = more;
    link->spill_cap = (uint32_t)cap;
    link->spill_head = 0;
    return RH_OK;
}

/* Puts an event behind what waits. RH_ENOMEM only for what is neither request nor reply. */
static int spill_add(struct rh_mesh *m, struct link *link, const struct rh_event *ev)
{
    bool tell = is_tell(ev);
    uint32_t at;

    if (tell && spill_grow(link, cap_for(link->spill_tells + 1)) < 0)
        return RH_ENOMEM;
    rh_assert(link->spill_len < link->spill_cap);

    at = link->spill_head + link->spill_len;
    if (at >= link->spill_cap)
        at -= link->spill_cap;
    link->spill[at] = *ev;
    link->spill_len++;
    link->spill_tells += tell;
    link->spill_bytes += payload(ev);
    count(&m->counts.spilled, 1);
    count(&m->counts.spill_events, 1);
    count(&m->counts.spill_bytes, payload(ev));
    return RH_OK;
}

/* Forgets the oldest event of a spill, which stands in the ring now. */
static void spill_drop(struct rh_mesh *m, struct link *link)
{
    const struct rh_event *ev = &link->spill[link->spill_head];

    link->spill_tells -= is_tell(ev);
    link->spill_bytes -= payload(ev);
    count(&m->counts.spill_events, -(uint64_t)1);
    count(&m->counts.spill_bytes, -(uint64_t)payload(ev));
    if (++link->spill_head == link->spill_cap)
        link->spill_head = 0;
    link->spill_len--;
}

/* Moves what waits into the ring, as far as there is room. */
static void spill_flush(struct rh_mesh *m, struct link *link)
{
    struct rh_event *cell;

    while (link->spill_len && (cell = rh_ring_reserve(link->ring))) {
        *cell = link->spill[link->spill_head];
        rh_ring_commit(link->ring);
        spill_drop(m, link);
    }
    if (link->spill_len == 0 && link->spill != first_spill(link) &&
        cap_for(link->reserved) <= RH_SPILL_FIXED) {
        link_fini(link);
        link->spill = first_spill(link);
        link->spill_cap = RH_SPILL_FIXED;
        link->spill_head = 0;
    }
}

/* ---- sending ---- */

/* The link in a state to send through: at first use the ring is made. */
static struct link *link_open(struct rh_mesh *m, unsigned to)
{
    struct link *link = link_to(m, to);

    if (rh_unlikely(!link->ring)) {
        link->ring = rh_ring_init(ring_memory(link), RH_RING_SLOTS);
        link->spill = first_spill(link);
        link->spill_cap = RH_SPILL_FIXED;
    }
    return link;
}

/* Copies the event into the ring; false when it would overtake or finds no room. */
static bool push(struct rh_mesh *m, struct link *link, unsigned to, struct rh_event *ev)
{
    struct rh_event *cell = link->spill_len ? NULL : rh_ring_reserve(link->ring);

    ev->from = (uint16_t)m->tid;
    if (!cell)
        return false;
    *cell = *ev;
    rh_ring_commit(link->ring);
    m->dirty[to / 64] |= UINT64_C(1) << to % 64;
    return true;
}

/* Likewise, or else into the spill; RH_ENOMEM as in spill_add. */
static int push_or_spill(struct rh_mesh *m, struct link *link, unsigned to, struct rh_event *ev)
{
    if (rh_likely(push(m, link, to, ev)))
        return RH_OK;
    if (spill_add(m, link, ev) < 0)
        return RH_ENOMEM;
    m->dirty[to / 64] |= UINT64_C(1) << to % 64;
    return RH_OK;
}

static bool below_mark(const struct link *link)
{
    return link->spill_len < RH_SPILL_EVENTS && link->spill_bytes < RH_SPILL_BYTES;
}

static bool has_credit(const struct link *link, uint32_t bytes)
{
    rh_assert(bytes <= RH_CREDIT_BYTES);
    return link->credit_events < RH_CREDIT_EVENTS &&
           bytes <= RH_CREDIT_BYTES - link->credit_bytes && below_mark(link);
}

bool rh_mesh_can_ask(const struct rh_mesh *m, unsigned to, uint32_t bytes)
{
    return has_credit(link_to(m, to), bytes);
}

bool rh_mesh_has_room(const struct rh_mesh *m, unsigned to)
{
    return below_mark(link_to(m, to));
}

int rh_mesh_take(struct rh_mesh *m, unsigned to, uint32_t bytes)
{
    struct link *link = link_open(m, to);

    if (!has_credit(link, bytes)) {
        count(&m->counts.refused, 1);
        return RH_EFULL;
    }
    link->credit_events++;
    link->credit_bytes += bytes;
    count(&m->counts.credit_out, 1);
    return RH_OK;
}

void rh_mesh_give(struct rh_mesh *m, unsigned to, uint32_t bytes)
{
    struct link *link = link_to(m, to);

    rh_assert(link->credit_events > 0 && link->credit_bytes >= bytes);
    link->credit_events--;
    link->credit_bytes -= bytes;
    count(&m->counts.credit_out, -(uint64_t)1);
}

void rh_mesh_ask_taken(struct rh_mesh *m, unsigned to, struct rh_event *ev, uint32_t bytes)
{
    int rc;

    rh_assert(rh_event_is_request(ev->kind));
    ev->cost = bytes;
    rc = push_or_spill(m, link_to(m, to), to, ev);
    rh_assert(rc == RH_OK); /* the spill holds every request that has a credit */
    count(&m->counts.asked, 1);
}

int rh_mesh_ask(struct rh_mesh *m, unsigned to, struct rh_event *ev, uint32_t bytes)
{
    int rc = rh_mesh_take(m, to, bytes);

    if (rc == RH_OK)
        rh_mesh_ask_taken(m, to, ev, bytes);
    return rc;
}

void rh_mesh_reply(struct rh_mesh *m, const struct rh_event *request, struct rh_event *ev)
{
    unsigned to = request->from;
    struct link *link = link_open(m, to);
    int rc;

    rh_assert(rh_event_is_reply(ev->kind) && rh_event_answers(ev->kind) == request->kind);
    rh_assert(link->owed > 0); /* else somebody answered twice */
    link->owed--;
    ev->cookie = request->cookie;
    ev->conn = request->conn;
    ev->cost = request->cost;
    rc = push_or_spill(m, link, to, ev);
    rh_assert(rc == RH_OK); /* the spill holds a reply to every request that had a credit */
    count(&m->counts.replied, 1);
}

int rh_mesh_tell(struct rh_mesh *m, unsigned to, struct rh_event *ev)
{
    enum rh_event_class class = rh_event_class(ev->kind);
    struct link *link = link_open(m, to);

    rh_assert(class == RH_CLASS_CONTROL || class == RH_CLASS_CONSEQUENCE);
    rh_assert(!rh_event_is_reply(ev->kind));
    if (push_or_spill(m, link, to, ev) < 0) {
        rh_assert(link->reserved == 0);
        return RH_ENOMEM;
    }
    link->reserved -= link->reserved > 0;
    count(&m->counts.told, 1);
    return RH_OK;
}

int rh_mesh_reserve(struct rh_mesh *m, unsigned to, uint32_t tells)
{
    struct link *link = link_open(m, to);

    tells = RH_MAX(tells, link->reserved);
    if (spill_grow(link, cap_for((uint64_t)link->spill_tells + tells)) < 0)
        return RH_ENOMEM;
    link->reserved = tells;
    return RH_OK;
}

bool rh_mesh_drop_or_tell(struct rh_mesh *m, unsigned to, struct rh_event *ev)
{
    rh_assert(rh_event_class(ev->kind) == RH_CLASS_LOSSY);
    if (!push(m, link_open(m, to), to, ev)) {
        count(&m->counts.dropped, 1);
        return false;
    }
    count(&m->counts.told, 1);
    return true;
}

/* ---- receiving ---- */

/* The first member at or after `start`, around the end, whose bit is set; -1: none. */
static int next_bit(const uint64_t bits[WORDS], unsigned start)
{
    for (unsigned i = 0; i <= WORDS; i++) {
        unsigned word = (start / 64 + i) % WORDS;
        uint64_t in = bits[word];

        if (i == 0)
            in &= ~UINT64_C(0) << start % 64;
        if (in)
            return (int)(word * 64) + __builtin_ctzll(in);
    }
    return -1;
}

/* What the mesh itself does with an event before its handler: credits. */
static void account(struct rh_mesh *m, const struct rh_event *ev)
{
    if (rh_event_is_request(ev->kind))
        link_to(m, ev->from)->owed++;
    else if (rh_event_is_reply(ev->kind))
        rh_mesh_give(m, ev->from, ev->cost);
}

/* One source's turn: at most `max` events. */
static unsigned pop_turn(struct rh_mesh *m, unsigned from, unsigned max,
                         void (*handle)(void *arg, const struct rh_event *ev), void *arg)
{
    struct rh_ring *ring = ring_memory(link_of(m->net, from, m->tid));
    const struct rh_event *ev;
    unsigned popped = 0;

    while (popped < max && (ev = rh_ring_peek(ring))) {
        rh_assert(ev->from == from);
        account(m, ev);
        handle(arg, ev);
        rh_ring_drop(ring);
        popped++;
    }
    rh_ring_release(ring);
    if (popped < max) /* seen empty */
        m->todo[from / 64] &= ~(UINT64_C(1) << from % 64);
    return popped;
}

unsigned rh_mesh_pop(struct rh_mesh *m, void (*handle)(void *arg, const struct rh_event *ev),
                     void *arg)
{
    unsigned popped = 0;
    int from;

    rh_assert(!m->popping);
    m->popping = true;
    for (int word = 0; word < WORDS; word++)
        if (atomic_load_explicit(&m->ready[word], memory_order_relaxed))
            /* acquire; pairs with the fetch_or in publish_link */
            m->todo[word] |= atomic_exchange_explicit(&m->ready[word], 0, memory_order_acquire);

    while (popped < RH_MESH_POP && (from = next_bit(m->todo, m->next)) >= 0) {
        popped +=
            pop_turn(m, (unsigned)from, RH_MIN(RH_MESH_TURN, RH_MESH_POP - popped), handle, arg);
        m->next = ((unsigned)from + 1) % RH_MESH_MAX;
    }
    count(&m->counts.popped, popped);
    m->popping = false;
    return popped;
}

/* ---- the end of a pass ---- */

static void publish_link(struct rh_mesh *m, unsigned to)
{
    struct link *link = link_of(m->net, m->tid, to);
    struct rh_mesh *them = &m->net->mesh[to];

    spill_flush(m, link);
    if (link->spill_len == 0)
        m->dirty[to / 64] &= ~(UINT64_C(1) << to % 64);
    if (!rh_ring_publish(link->ring))
        return;
    /* (2) and (3) of the head; both seq_cst, pairing with rh_mesh_sleep */
    atomic_fetch_or(&them->ready[m->tid / 64], UINT64_C(1) << m->tid % 64);
    if (atomic_load(&them->sleeping) && atomic_exchange(&them->sleeping, 0)) {
        count(&m->counts.woken, 1);
        m->net->wake(m->net->wake_arg, to);
    }
}

void rh_mesh_publish(struct rh_mesh *m)
{
    for (unsigned word = 0; word < WORDS; word++)
        for (uint64_t bits = m->dirty[word]; bits; bits &= bits - 1)
            publish_link(m, word * 64 + (unsigned)__builtin_ctzll(bits));
}

bool rh_mesh_sleep(struct rh_mesh *m)
{
    if (any(m->todo) || any(m->dirty))
        return false;
    /* (a) and (b) of the head; all seq_cst, pairing with publish_link */
    atomic_store(&m->sleeping, 1);
    if (atomic_load(&m->ready[0]) || atomic_load(&m->ready[1])) {
        rh_mesh_awake(m);
        return false;
    }
    return true;
}

void rh_mesh_awake(struct rh_mesh *m)
{
    /* Relaxed: at worst a publisher still sees the flag, and wakes us for nothing. */
    atomic_store_explicit(&m->sleeping, 0, memory_order_relaxed);
}

bool rh_mesh_quiet(const struct rh_mesh *m)
{
    return counted(&m->counts.credit_out) == 0 && !any(m->dirty);
}

/* ---- questions ---- */

void rh_mesh_stat_any(const struct rh_mesh *m, struct rh_mesh_stat *ret_stat)
{
    const struct counts *counts = &m->counts;

    *ret_stat = (struct rh_mesh_stat){
        .asked = counted(&counts->asked),
        .replied = counted(&counts->replied),
        .told = counted(&counts->told),
        .popped = counted(&counts->popped),
        .refused = counted(&counts->refused),
        .spilled = counted(&counts->spilled),
        .dropped = counted(&counts->dropped),
        .woken = counted(&counts->woken),
        .spill_events = counted(&counts->spill_events),
        .spill_bytes = counted(&counts->spill_bytes),
        .credit_out = counted(&counts->credit_out),
    };
}

uint32_t rh_net_depth_any(const struct rh_net *net, unsigned from, unsigned to)
{
    rh_assert(from < net->members && to < net->members);
    return rh_ring_depth_any(ring_memory(link_of(net, from, to)));
}

uint64_t rh_net_inbound_any(const struct rh_net *net, unsigned to)
{
    uint64_t sum = 0;

    for (unsigned from = 0; from < net->members; from++)
        sum += rh_net_depth_any(net, from, to);
    return sum;
}
