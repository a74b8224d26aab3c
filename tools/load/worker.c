/* tools/load/worker.c - a thread of the load tool: its phases, and one pass.
 *
 *     OPENING -- all handshakes ended --> READY -- the start is set and here --> RUNNING
 *     RUNNING -- the end is here --> DRAINING -- nothing outstanding, or --drain --> DRAINED
 *     READY or DRAINED -- goodbye --> CLOSING -- all closed, or none in 2 s --> ENDED
 *
 * A pass: see whether a phase is over, make due what is due, send each connection's frames in one
 * piece, submit and collect. After a pass with many completions it asks without sleeping, which
 * takes all that are there; else it sleeps until something completes or the next message is due,
 * NAP_NS at most, since the conductor's wishes (start, end, goodbye) are seen between passes only.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "tools/load/load.h"

#define NAP_NS   UINT64_C(20000000)
#define CHECK_NS UINT64_C(10000000) /* between two looks at all connections */
#define CQES     256
#define BUSY     16 /* so many completions: there may be more */
#define SLACK_NS 1  /* of the thread's timers: the usual 50 us would be the tool's own latency */

/* ---- life ---- */

/* Pair p (connections 2p and 2p + 1), or the p-th room, belongs to worker p % threads. */
static void deal_connections(struct load_worker *w)
{
    const struct load_opts *o = w->run->opts;
    uint64_t all = (uint64_t)o->connections + o->slow;
    uint32_t at = 0, block = load_mode_block(o);

    for (uint64_t number = block * w->number; number < all; number += block * o->threads)
        for (uint64_t n = number; n < number + block && n < all; n++, at++) {
            struct load_conn *c = &w->conns[at];

            c->index = at;
            c->number = (uint32_t)n;
            c->fd = -1;
            c->slow = n >= o->connections;
            load_flow_init(&c->flow, c->number, o->mode->users);
        }
    w->conns_count = at;
    w->senders = o->mode->fans_out ? w->number == 0 : o->mode->sends ? at : 0;
}

uint32_t load_worker_share(const struct load_opts *opts)
{
    uint32_t block = load_mode_block(opts);
    uint32_t blocks = (opts->connections + opts->slow + block - 1) / block;

    return (blocks + opts->threads - 1) / opts->threads * block;
}

int load_worker_init(struct load_worker *w, struct load_run *run, unsigned number)
{
    const struct load_opts *o = run->opts;
    size_t share = load_worker_share(o);

    memset(w, 0, sizeof(*w));
    w->run = run;
    w->number = number;
    w->greets = o->mode->users ||
                (!o->mode->sends && strcspn(o->path, "?") == 3 && memcmp(o->path, "/ws", 3) == 0);
    rh_prng_init(&w->prng);
    w->scratch_room = load_mode_room(o);
    w->scratch = rh_mem_alloc(w->scratch_room);
    w->conns = rh_mem_zalloc(share * sizeof(*w->conns));
    w->dirty = rh_mem_zalloc(share * sizeof(*w->dirty));
    if (!w->scratch || !w->conns || !w->dirty)
        return RH_ENOMEM;
    deal_connections(w);
    rh_assert(w->conns_count <= share);
    if (load_open_init(w) < 0 || (o->compress && load_zip_init(&w->zip) < 0) ||
        rh_hist_init(&w->latency) < 0 || rh_hist_init(&w->answer) < 0 ||
        rh_hist_init(&w->status) < 0 || rh_hist_init(&w->upgrade) < 0 ||
        rh_hist_init(&w->welcome) < 0 || rh_hist_init(&w->late) < 0)
        return RH_ENOMEM;
    if (o->mode->books)
        return load_book_init(w);
    return o->mode->fans_out ? load_audience_init(&w->audience, &run->stream) : RH_OK;
}

void load_worker_fini(struct load_worker *w)
{
    for (uint32_t i = 0; i < w->conns_count; i++)
        load_conn_fini(&w->conns[i]);
    for (uint32_t i = 0; i < LOAD_COPIES; i++)
        rh_mem_free(w->copies[i].bytes.at);
    load_zip_fini(&w->zip);
    load_audience_fini(&w->audience);
    load_book_fini(w);
    load_open_fini(w);
    rh_mem_free(w->acks.at);
    rh_mem_free(w->ack_text.at);
    rh_mem_free(w->conns);
    rh_mem_free(w->dirty);
    rh_mem_free(w->scratch);
    rh_hist_fini(&w->latency);
    rh_hist_fini(&w->answer);
    rh_hist_fini(&w->status);
    rh_hist_fini(&w->upgrade);
    rh_hist_fini(&w->welcome);
    rh_hist_fini(&w->late);
}

void load_worker_note(struct load_worker *w, const char *fmt, ...)
{
    va_list args;

    if (w->first.text[0])
        return;
    va_start(args, fmt);
    vsnprintf(w->first.text, sizeof(w->first.text), fmt, args);
    va_end(args);
    for (char *at = w->first.text; *at; at++) /* a server's words: for terminals and JSON */
        if (*at < ' ' || *at > '~')
            *at = '?';
}

/* ---- phases ---- */

static void set_phase(struct load_worker *w, enum load_phase phase)
{
    atomic_store_explicit(&w->phase, phase, memory_order_release); /* pairs with run.c's acquire */
}

static void give_up_opening(struct load_worker *w, const char *why)
{
    for (uint32_t i = 0; i < w->open_next; i++)
        if (w->conns[i].state < LOAD_OPEN)
            load_conn_fail(w, &w->conns[i], "%s", why);
}

static void opening(struct load_worker *w, uint64_t now)
{
    _Static_assert(LOAD_STALL_NS == UINT64_C(10000000000), "the words below say 10 s");
    bool stop = atomic_load_explicit(&w->run->stop, memory_order_relaxed);

    if (stop)
        give_up_opening(w, "the run was ended");
    else if (w->opening > 0 && now >= w->open_moved_ns + LOAD_STALL_NS)
        give_up_opening(w, "no handshake made progress for 10 s");
    else
        load_open_some(w, now);
    if (w->opening == 0 && (stop || w->open_next == w->conns_count))
        set_phase(w, LOAD_READY);
}

static void count_missing_of(struct load_worker *w, const struct load_conn *c)
{
    const struct load_mode *mode = w->run->opts->mode;
    uint64_t lost, unanswered, first = c->flow.low;

    load_flow_missing(&c->flow, &lost, &unanswered);
    if (mode->missing)
        lost = mode->missing(w, c, &first);
    if (lost)
        load_worker_note(w, "connection %u: message %llu never arrived", c->number,
                         (unsigned long long)first);
    load_count_more(&w->counts.lost, lost);
    load_count_more(&w->counts.unanswered, unanswered);
}

static void count_missing(struct load_worker *w, uint64_t now)
{
    for (uint32_t i = 0; i < w->conns_count; i++) {
        struct load_conn *c = &w->conns[i];

        if (w->run->opts->mode->books)
            load_book_judge(w, c, now);
        else
            count_missing_of(w, c);
        load_count_more(&w->counts.unsent, c->due > c->flow.next ? c->due - c->flow.next : 0);
    }
}

/* Of those that were cut off. */
static void count_not_back(struct load_worker *w)
{
    for (uint32_t i = 0; i < w->conns_count; i++)
        if ((w->conns[i].state > LOAD_IDLE && w->conns[i].state < LOAD_OPEN) ||
            w->conns[i].state == LOAD_AWAY)
            load_conn_fail(w, &w->conns[i], "it did not come back");
}

static void draining(struct load_worker *w, uint64_t now)
{
    bool done = true;

    if (now < w->until_ns && !atomic_load_explicit(&w->run->goodbye, memory_order_relaxed)) {
        if (now < w->checked_ns + CHECK_NS)
            return;
        w->checked_ns = now;
        for (uint32_t i = 0; i < w->conns_count && done; i++)
            done = load_pace_done(w, &w->conns[i]);
        for (uint32_t i = 0; i < w->conns_count && done && w->run->opts->awaits_ends; i++)
            done = !load_book_owes(w, &w->conns[i]);
    }
    if (done)
        set_phase(w, LOAD_DRAINED);
}

static void begin_closing(struct load_worker *w, uint64_t now)
{
    if (!atomic_load_explicit(&w->run->goodbye, memory_order_relaxed))
        return;
    count_not_back(w);
    count_missing(w, now); /* now, as one worker's readers may wait for what another still sends */
    for (uint32_t i = 0; i < w->conns_count; i++)
        load_open_goodbye(w, &w->conns[i]);
    w->until_ns = now + LOAD_GOODBYE_NS;
    set_phase(w, LOAD_CLOSING);
}

static void closing(struct load_worker *w, uint64_t now)
{
    bool late = now >= w->until_ns;
    uint32_t ended = 0;

    if (!late && now < w->checked_ns + CHECK_NS)
        return;
    w->checked_ns = now;
    for (uint32_t i = 0; i < w->conns_count; i++) {
        struct load_conn *c = &w->conns[i];

        if (late && c->state == LOAD_GOODBYE)
            load_conn_fail(w, c, "no goodbye"); /* no fault, but an end */
        ended += c->fd < 0;
    }
    if (ended == w->conns_count || now >= w->until_ns + LOAD_GOODBYE_NS)
        set_phase(w, LOAD_ENDED);
    if (!late && ended != w->ended)
        w->until_ns = now + LOAD_GOODBYE_NS;
    w->ended = ended;
}

static void step_phase(struct load_worker *w, uint64_t now)
{
    uint64_t start = atomic_load_explicit(&w->run->start_ns, memory_order_acquire);

    switch (atomic_load_explicit(&w->phase, memory_order_relaxed)) {
    case LOAD_OPENING:
        opening(w, now);
        break;
    case LOAD_READY:
        if (start != 0 && now >= start) {
            set_phase(w, LOAD_RUNNING);
            load_pace_start(w, now);
        } else {
            begin_closing(w, now);
        }
        break;
    case LOAD_RUNNING:
        if (now < load_time(&w->run->end_ns))
            break;
        load_pace_run(w, now); /* the last ones, if the end was seen late */
        w->until_ns = now + w->run->opts->drain_ns;
        set_phase(w, LOAD_DRAINING);
        break;
    case LOAD_DRAINING:
        draining(w, now);
        break;
    case LOAD_DRAINED:
        begin_closing(w, now);
        break;
    default:
        closing(w, now);
    }
}

/* ---- a pass ---- */

static void flush(struct load_worker *w)
{
    for (uint32_t i = 0; i < w->dirty_count; i++)
        load_conn_flush(w, w->dirty[i]);
    w->dirty_count = 0;
}

/* Returns whether so much completed that there is more to expect. */
static bool pass(struct load_worker *w, bool busy)
{
    struct rh_cqe cqes[CQES];
    uint64_t now = rh_clock_mono_ns(), start = load_time(&w->run->start_ns), wait = NAP_NS;
    unsigned count;

    step_phase(w, now);
    if (w->run->opts->mode->on_pass)
        w->run->opts->mode->on_pass(w);
    if (atomic_load_explicit(&w->phase, memory_order_relaxed) == LOAD_RUNNING)
        wait = RH_MIN(wait, load_pace_run(w, now));
    else if (start > now)
        wait = RH_MIN(wait, start - now);
    flush(w);
    w->rc = rh_uring_enter(w->uring, busy ? 0 : wait);
    if (w->rc < 0) {
        rh_fault_set(&w->fault, w->rc, "thread %u: its io_uring has failed", w->number);
        return false;
    }
    count = rh_uring_reap(w->uring, cqes, CQES);
    w->now_ns = rh_clock_mono_ns();
    for (unsigned i = 0; i < count; i++)
        load_conn_on_cqe(w, &cqes[i]);
    return count >= BUSY;
}

/* Others may wake this worker as long as one of them is at work. */
static void leave(struct load_worker *w)
{
    static const struct timespec nap = {.tv_nsec = 1000000};

    set_phase(w, LOAD_ENDED);
    atomic_fetch_sub_explicit(&w->run->at_work, 1, memory_order_release);
    while (atomic_load_explicit(&w->run->at_work, memory_order_acquire) > 0)
        nanosleep(&nap, NULL);
    rh_uring_destroy(w->uring);
    w->uring = NULL;
}

void *load_worker_main(void *worker)
{
    struct load_worker *w = worker;
    const struct rh_uring_opts uring_opts = {
        .sq_entries = 1024,
        .cq_entries = 16384,
        .buffers = 4096,
        .headroom = (RH_WS_TAIL_MAX + 7) & ~7,
        .files = w->run->opts->direct ? load_worker_share(w->run->opts) : 0,
    };
    bool busy = true;

    rh_mem_thread_init();
    prctl(PR_SET_TIMERSLACK, SLACK_NS);
    w->tid = gettid();
    w->open_began_ns = rh_clock_mono_ns();
    w->open_moved_ns = w->open_began_ns;
    w->rc = rh_uring_create(&uring_opts, &w->uring, &w->fault);
    while (w->rc == RH_OK && atomic_load_explicit(&w->phase, memory_order_relaxed) != LOAD_ENDED)
        busy = pass(w, busy);
    for (uint32_t i = 0; w->uring && i < w->conns_count; i++)
        if (w->conns[i].fd >= 0)
            rh_uring_close(w->uring, w->conns[i].fd);
    leave(w);
    return NULL;
}
