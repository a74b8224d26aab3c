/* tools/load/pace.c - when a message is due, and when it may leave.
 *
 * Open loop   Message k of connection i is due at start + (k * N + i) / rate, N connections sending
 *             (fanout: one): a schedule that knows nothing of answers. Within a worker the
 *             connections come due in a fixed turn, so it needs no queue of timers. What is due and
 *             cannot leave yet (a full `out`, too many unfinished) keeps its intended time, and its
 *             latency counts from there: a stall of the server shows in every message that it
 *             delayed (no coordinated omission).
 * Closed loop A connection sends as soon as fewer than `depth` of its messages are outstanding; the
 *             intended time is the moment when that was so.
 */
#include "core/clock.h"
#include "tools/load/load.h"

#define BURST 1024 /* due messages in a pass; then the kernel has its turn */

/* When message `round` of this connection is due. */
static uint64_t due_ns(const struct load_run *run, const struct load_conn *c, uint64_t round)
{
    double place = run->opts->mode->fans_out ? (double)round
                                             : (double)round * run->opts->connections + c->number;

    return load_time(&run->start_ns) + (uint64_t)(place * 1e9 / run->opts->rate);
}

static int reserve(struct load_worker *w, struct load_conn *c)
{
    return w->run->opts->mode->books ? load_book_reserve(w, c) : load_flow_reserve(&c->flow);
}

/* Builds one message and appends its frame. False: not now, or never again. */
static bool send_one(struct load_worker *w, struct load_conn *c, uint64_t intended)
{
    const struct load_mode *mode = w->run->opts->mode;
    int rc = reserve(w, c);
    uint64_t seq;
    size_t len;

    if (rc == RH_ENOMEM)
        load_conn_fail(w, c, "no memory for more unfinished messages");
    if (rc < 0)
        return false;
    if (c->out.len > 0 && c->out.len + w->scratch_room > LOAD_OUT_BYTES)
        return false;
    seq = mode->books ? load_book_send(w, c, intended) : load_flow_send(&c->flow, intended);
    len = mode->build(w, c, seq);
    load_count(&w->counts.sent);
    return load_conn_put_frame(w, c, w->run->opts->text ? RH_WS_TEXT : mode->opcode, w->scratch,
                               len);
}

static bool may_send(struct load_worker *w, const struct load_conn *c)
{
    const struct load_mode *mode = w->run->opts->mode;

    return c->state == LOAD_OPEN && c->index < w->senders &&
           (!mode->pairs || load_conn_partner(w, c)->state == LOAD_OPEN ||
            (mode->books && load_conn_partner(w, c)->state != LOAD_DEAD));
}

void load_pace_pump(struct load_worker *w, struct load_conn *c, uint64_t now)
{
    const struct load_opts *o = w->run->opts;
    uint64_t end = load_time(&w->run->end_ns);
    int phase = atomic_load_explicit(&w->phase, memory_order_relaxed);

    if (!o->mode->sends || !may_send(w, c) || phase < LOAD_RUNNING || phase > LOAD_DRAINING)
        return;
    if (o->rate > 0) {
        while (c->flow.next < c->due)
            if (!send_one(w, c, due_ns(w->run, c, c->flow.next)))
                return;
        return;
    }
    while (now < end && load_flow_outstanding(&c->flow) < o->depth) {
        load_count(&w->counts.due);
        if (!send_one(w, c, now))
            return;
    }
}

static void fall_due(struct load_worker *w, struct load_conn *c, uint64_t when, uint64_t now)
{
    load_count(&w->counts.due);
    if (when >= load_time(&w->run->measure_ns))
        rh_hist_add(&w->late, now - when);
    c->due++;
    load_pace_pump(w, c, now);
    if (c->flow.next < c->due)
        load_count(&w->counts.held);
}

void load_pace_start(struct load_worker *w, uint64_t now)
{
    for (uint32_t i = 0; i < w->senders; i++)
        load_pace_pump(w, &w->conns[i], now);
}

bool load_pace_done(const struct load_worker *w, const struct load_conn *c)
{
    return c->state == LOAD_DEAD ||
           (c->state == LOAD_OPEN && load_flow_done(&c->flow) && c->flow.next >= c->due);
}

uint64_t load_pace_run(struct load_worker *w, uint64_t now)
{
    uint64_t end = load_time(&w->run->end_ns);

    if (w->run->opts->rate == 0 || w->senders == 0)
        return UINT64_MAX;
    for (int i = 0; i < BURST; i++) {
        struct load_conn *c = &w->conns[w->pace_at];
        uint64_t when = due_ns(w->run, c, w->pace_round);

        if (when >= end)
            return UINT64_MAX;
        if (when > now)
            return when - now;
        fall_due(w, c, when, now);
        if (++w->pace_at == w->senders) {
            w->pace_at = 0;
            w->pace_round++;
        }
    }
    return 0;
}

void load_pace_latency(struct load_worker *w, struct rh_hist *h, uint64_t intended, uint64_t now)
{
    if (intended >= load_time(&w->run->measure_ns) && intended < load_time(&w->run->end_ns))
        rh_hist_add(h, now > intended ? now - intended : 0);
}
