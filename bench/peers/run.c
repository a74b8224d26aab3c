/* bench/peers/run.c - one run and its books: who has which message, and what that cost.
 *
 *     open all, HANDSHAKES at a time -> rest -> warm-up -> window -> what is on its way arrives
 *
 * The window's edges are two samples of running counters, so its rate and its CPU time per message
 * belong together; latencies are those of what arrives in it. A load without messages (idle) holds
 * its connections through the window instead.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/peers/peer.h"
#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "proto/mask.h"
#include "tools/load/payload.h"
#include "tools/load/proc.h"

#define HANDSHAKES 128 /* at a time: below every server's backlog */
#define CQES       256
#define BUSY       16 /* so many completions: there may be more */
#define NAP_NS     UINT64_C(10000000)
#define REST_NS    UINT64_C(300000000)   /* a subscription may come to be behind its answer */
#define STALL_NS   UINT64_C(10000000000) /* without any progress: over */
#define SLACK_NS   1                     /* of timers: else they would be our own latency */

/* ---- faults ---- */

void peer_fault(struct peer *p, uint64_t *counter, const char *fmt, ...)
{
    va_list args;

    ++*counter;
    if (p->first[0])
        return;
    va_start(args, fmt);
    vsnprintf(p->first, sizeof(p->first), fmt, args);
    va_end(args);
    for (char *at = p->first; *at; at++) /* a server's words: for terminals and JSON */
        if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\')
            *at = '\'';
}

void peer_strange(struct peer *p, const struct peer_conn *c, const uint8_t *at, size_t len)
{
    peer_fault(p, &p->unexpected, "connection %u got what nobody asked for: %.*s", c->number,
               (int)RH_MIN(len, (size_t)150), (const char *)at);
}

/* Some faults leave nothing to wait for. */
static bool is_over(const struct peer *p)
{
    return p->broken || p->corrupted || p->unexpected;
}

bool peer_failed(const struct peer *p)
{
    return is_over(p) || p->lost || p->reordered;
}

/* ---- names and senders ---- */

void peer_own_name(const struct peer *p, const struct peer_conn *c, char dst[PEER_NAME])
{
    if (p->opts.load == PEER_FANOUT && !peer_publishes(p, c))
        snprintf(dst, PEER_NAME, "%s", p->run);
    else
        snprintf(dst, PEER_NAME, "%s-%u", p->run, c->number);
}

void peer_target_name(const struct peer *p, const struct peer_conn *c, char dst[PEER_NAME])
{
    switch (p->opts.load) {
    case PEER_FANOUT:
        snprintf(dst, PEER_NAME, "%s", p->run);
        break;
    case PEER_PAIRS:
        snprintf(dst, PEER_NAME, "%s-%u", p->run, c->number ^ 1);
        break;
    default:
        snprintf(dst, PEER_NAME, "%s-%u", p->run, c->number);
    }
}

static uint32_t source_of(const struct peer *p, const struct peer_conn *c)
{
    switch (p->opts.load) {
    case PEER_ECHO:
        return c->number;
    case PEER_PAIRS:
        return c->number ^ 1;
    case PEER_FANOUT:
        return peer_publishes(p, c) ? PEER_NOBODY : p->opts.connections;
    default:
        return PEER_NOBODY;
    }
}

static bool sends(const struct peer *p, const struct peer_conn *c)
{
    return p->opts.load == PEER_FANOUT ? peer_publishes(p, c) : p->opts.load != PEER_IDLE;
}

static bool make_flow(struct peer *p, struct peer_conn *c)
{
    c->flow = rh_mem_zalloc(sizeof(*c->flow) + p->opts.depth * sizeof(c->flow->slots[0]));
    if (!c->flow)
        return false;
    c->flow->before_len = (uint32_t)p->opts.dialect->wrap(p, c, c->flow->before, c->flow->behind,
                                                          &c->flow->behind_len);
    return true;
}

/* ---- messages ---- */

static void send_one(struct peer *p, struct peer_conn *c)
{
    struct peer_flow *f = c->flow;
    struct peer_slot *slot = &f->slots[f->next % p->opts.depth];
    size_t len = f->before_len + p->opts.size + f->behind_len;
    uint8_t *at = peer_conn_frame(p, c, 0, len);

    memcpy(at, f->before, f->before_len);
    load_payload_fill(at + f->before_len, p->opts.size, c->number, f->next);
    memcpy(at + f->before_len + p->opts.size, f->behind, f->behind_len);
    rh_mask(at, at, len, c->key, 0);
    slot->sent_ns = p->now_ns;
    slot->left = p->opts.load == PEER_FANOUT ? p->opts.connections : 1;
    f->next++;
    p->outstanding++;
    p->unanswered += p->opts.answers;
}

static void pump(struct peer *p, struct peer_conn *c)
{
    while (p->sending && c->flow->next - c->flow->done < p->opts.depth)
        send_one(p, c);
}

/* One receiver less waits for this message; whoever gets it late gets it in order, so messages are
 * done in order, too. */
static void settle(struct peer *p, struct peer_conn *from, uint64_t seq)
{
    struct peer_flow *f = from->flow;

    if (--f->slots[seq % p->opts.depth].left > 0)
        return;
    f->done++;
    p->outstanding--;
    pump(p, from);
}

/* Not the one that was due. True: messages before it are missing, and it is next now. */
static bool is_later(struct peer *p, struct peer_conn *c, struct peer_conn *from, const uint8_t *at,
                     size_t len)
{
    uint64_t seq;

    if (is_over(p)) /* what follows from the first fault is none of its own */
        return false;
    if (len != p->opts.size || !load_payload_claim(at, RH_MIN(len, LOAD_SEQ_DIGITS), &seq) ||
        !load_payload_check(at, len, 0, from->number, seq) || seq >= from->flow->next) {
        peer_fault(p, &p->corrupted, "connection %u got instead of message %llu: %.*s", c->number,
                   (unsigned long long)c->expect, (int)RH_MIN(len, (size_t)100), (const char *)at);
        return false;
    }
    if (seq < c->expect && c->missed > 0) { /* it had been given up */
        peer_fault(p, &p->reordered, "connection %u got message %llu behind %llu", c->number,
                   (unsigned long long)seq, (unsigned long long)c->expect - 1);
        c->missed--;
        p->lost--;
        return false;
    }
    if (seq < c->expect) {
        peer_fault(p, &p->unexpected, "connection %u got message %llu again", c->number,
                   (unsigned long long)seq);
        return false;
    }
    peer_fault(p, &p->lost, "connection %u got message %llu, but not %llu before it", c->number,
               (unsigned long long)seq, (unsigned long long)c->expect);
    p->lost += seq - c->expect - 1;
    c->missed += seq - c->expect;
    while (c->expect < seq)
        settle(p, from, c->expect++);
    return true;
}

void peer_arrived(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len)
{
    struct peer_conn *from;

    if (c->source == PEER_NOBODY || c->state != PEER_READY) {
        peer_strange(p, c, at, len);
        return;
    }
    from = &p->conns[c->source];
    if ((c->expect == from->flow->next || len != p->opts.size ||
         !load_payload_check(at, len, 0, from->number, c->expect)) &&
        !is_later(p, c, from, at, len))
        return;
    p->arrived++;
    p->arrived_ns = p->now_ns;
    if (p->measuring)
        rh_hist_add(&p->latency, p->now_ns - from->flow->slots[c->expect % p->opts.depth].sent_ns);
    settle(p, from, c->expect++);
}

/* What never came, when the run is over. */
static void count_missing(struct peer *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        const struct peer_conn *c = &p->conns[i];
        uint64_t missing =
            c->source == PEER_NOBODY ? 0 : p->conns[c->source].flow->next - c->expect;

        if (missing == 0)
            continue;
        peer_fault(p, &p->lost, "connection %u never got message %llu", i,
                   (unsigned long long)c->expect);
        p->lost += missing - 1;
    }
    if (p->unanswered)
        peer_fault(p, &p->lost, "%llu messages were never answered",
                   (unsigned long long)p->unanswered);
}

/* ---- passes ---- */

void peer_ready(struct peer *p, struct peer_conn *c)
{
    c->state = PEER_READY;
    p->ready++;
    p->arrived_ns = p->now_ns; /* progress */
}

static int pass(struct peer *p, uint64_t until, bool *busy)
{
    struct rh_cqe cqes[CQES];
    unsigned count;

    for (uint32_t i = 0; i < p->dirty_count; i++)
        peer_conn_flush(p, p->dirty[i]);
    p->dirty_count = 0;
    if (rh_uring_enter(p->uring,
                       *busy || until <= p->now_ns ? 0 : RH_MIN(NAP_NS, until - p->now_ns)) < 0)
        return RH_EIO;
    p->now_ns = rh_clock_mono_ns();
    count = rh_uring_reap(p->uring, cqes, CQES);
    for (unsigned i = 0; i < count; i++)
        peer_conn_on_cqe(p, &cqes[i]);
    *busy = count >= BUSY;
    return RH_OK;
}

/* Passes until the time is over, the run is over, or `done` says so. */
static int passes(struct peer *p, uint64_t ns, bool (*done)(struct peer *p))
{
    uint64_t until = p->now_ns + ns;
    bool busy = true;
    int rc = RH_OK;

    while (rc == RH_OK && p->now_ns < until && !is_over(p) && !(done && done(p)))
        rc = pass(p, until, &busy);
    return rc;
}

static bool is_open(struct peer *p)
{
    while (p->begun < p->count && p->begun - p->ready < HANDSHAKES)
        if (!peer_conn_begin(p, &p->conns[p->begun++]))
            return true;
    if (p->now_ns > p->arrived_ns + STALL_NS)
        peer_fault(p, &p->broken, "%u of %u connections could log in, then nothing for 10 s",
                   p->ready, p->count);
    return p->ready == p->count;
}

static bool is_drained(struct peer *p)
{
    return (p->outstanding == 0 && p->unanswered == 0) || p->now_ns > p->arrived_ns + STALL_NS;
}

static void sample(const struct peer *p, struct peer_sample *ret)
{
    struct load_proc proc;

    memset(ret, 0, sizeof(*ret));
    for (unsigned i = 0; i < p->opts.pid_count; i++) {
        load_proc_read(p->opts.pids[i], &proc);
        ret->server_ns += proc.cpu_ns;
        ret->rss += proc.rss;
    }
    load_proc_read(getpid(), &proc);
    ret->tool_ns = proc.cpu_ns;
    ret->arrived = p->arrived;
    ret->at_ns = rh_clock_mono_ns();
}

/* ---- a run ---- */

static int prepare(struct peer *p, struct rh_fault *fault)
{
    static const struct rh_uring_opts opts = {
        .sq_entries = 1024,
        .cq_entries = 16384,
        .buffers = 4096,
        .headroom = (RH_WS_TAIL_MAX + 7) & ~7,
    };

    p->count = p->opts.connections + (p->opts.load == PEER_FANOUT);
    p->conns = rh_mem_zalloc(p->count * sizeof(*p->conns));
    p->dirty =
        rh_mem_zalloc(p->count * sizeof(struct peer_conn *)); // NOLINT(bugprone-sizeof-expression)
    if (!p->conns || !p->dirty || rh_hist_init(&p->latency) < 0)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for %u connections", p->count);
    snprintf(p->run, sizeof(p->run), "r%d", (int)getpid());
    for (uint32_t i = 0; i < p->count; i++) {
        struct peer_conn *c = &p->conns[i];

        c->fd = -1;
        c->number = i;
        c->source = source_of(p, c);
        if (sends(p, c) && !make_flow(p, c))
            return rh_fault_set(fault, RH_ENOMEM, "no memory for %u senders", p->count);
    }
    load_payload_init();
    prctl(PR_SET_TIMERSLACK, SLACK_NS);
    return rh_uring_create(&opts, &p->uring, fault);
}

static int measure(struct peer *p, struct peer_result *ret)
{
    int rc = passes(p, REST_NS, NULL);

    p->sending = true;
    for (uint32_t i = 0; i < p->count; i++)
        if (p->conns[i].flow)
            pump(p, &p->conns[i]);
    if (rc == RH_OK)
        rc = passes(p, p->opts.warmup_ns, NULL);
    sample(p, &ret->begin);
    p->measuring = true;
    if (rc == RH_OK)
        rc = passes(p, p->opts.window_ns, NULL);
    p->measuring = false;
    p->sending = false;
    sample(p, &ret->end);
    return rc == RH_OK ? passes(p, UINT64_MAX / 2, is_drained) : rc;
}

int peer_run(struct peer *p, struct peer_result *ret, struct rh_fault *fault)
{
    int rc = prepare(p, fault);

    if (rc < 0)
        return rc;
    sample(p, &ret->before);
    p->now_ns = rh_clock_mono_ns();
    p->arrived_ns = p->now_ns;
    rc = passes(p, UINT64_MAX / 2, is_open);
    sample(p, &ret->opened);
    if (rc == RH_OK && !is_over(p))
        rc = measure(p, ret);
    if (!is_over(p)) /* else nobody waited for it */
        count_missing(p);
    return rc == RH_OK ? rc : rh_fault_set(fault, rc, "its io_uring has failed");
}

void peer_fini(struct peer *p)
{
    rh_uring_destroy(p->uring);
    for (uint32_t i = 0; p->conns && i < p->count; i++)
        peer_conn_fini(&p->conns[i]);
    rh_mem_free(p->conns);
    rh_mem_free(p->dirty);
    rh_hist_fini(&p->latency);
}
