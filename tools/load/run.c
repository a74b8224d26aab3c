/* tools/load/run.c - the conductor: starts the workers, sets the times, takes the samples.
 *
 *     server's memory, before -> workers open -> sample -> start is set
 *     -> warm-up, or settling -> sample -> window (live line) -> sample -> workers drain -> goodbye -> join, merge
 *
 * The times stand in struct load_run before anything is sent, so that all workers share one
 * schedule. This thread looks at the workers every few milliseconds and sleeps otherwise.
 */
#include "tools/load/run.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "core/rand.h"

#define MS         UINT64_C(1000000)
#define LOOK_NS    (5 * MS)
#define LEAD_NS    (50 * MS) /* from setting the start to the start: all workers see it in time */
#define LIVE_NS    (1000 * MS)
#define FILES_MORE 64 /* open files beside connections, each thread's ring included */

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
    (void)number;
    signalled = 1;
}

/* Direct descriptors are no files, but each ring's table has at most `limit` of them. */
static int check_tables(struct load_opts *o, uint64_t limit, struct rh_fault *fault)
{
    uint64_t block = load_mode_block(o), free = limit > FILES_MORE ? limit - FILES_MORE : 0;
    uint64_t table = RH_MAX(free - free % block, block); /* pairs, or rooms, stay together */
    uint64_t all = (uint64_t)o->connections + o->slow, need = (all + table - 1) / table;

    if (o->threads == 0)
        o->threads = (uint32_t)RH_MIN(need, LOAD_THREADS_MAX);
    if (load_worker_share(o) <= table)
        return RH_OK;
    if (need > LOAD_THREADS_MAX)
        return rh_fault_set(fault, RH_EINVAL,
                            "%llu connections need %llu threads, and %d are the most: the limit of "
                            "open files, %llu, bounds what each can hold (ulimit -Hn)",
                            (unsigned long long)all, (unsigned long long)need, LOAD_THREADS_MAX,
                            (unsigned long long)limit);
    return rh_fault_set(
        fault, RH_EINVAL,
        "%llu connections need %llu threads, not %u: the limit of open files, %llu, "
        "bounds what each can hold (--threads, or ulimit -Hn)",
        (unsigned long long)all, (unsigned long long)need, o->threads, (unsigned long long)limit);
}

int load_run_files(struct load_opts *opts, struct rh_fault *fault)
{
    uint32_t threads = RH_MAX(opts->threads, 1u);
    uint64_t need = (uint64_t)opts->connections + opts->slow + FILES_MORE + 4 * threads;
    struct rlimit files;
    int rc = RH_OK;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        opts->direct = files.rlim_max != RLIM_INFINITY && files.rlim_max < need;
    } /* else each socket() will tell */
    if (opts->direct)
        rc = check_tables(opts, files.rlim_max, fault);
    opts->threads = RH_MAX(opts->threads, 1u);
    return rc;
}

/* ---- looking at the workers ---- */

struct conductor {
    struct load_run run;
    struct load_worker *workers;
    uint32_t started; /* threads that exist */
    struct load_result *result;
    struct rh_hist live;
    bool terminal;
    uint64_t live_at, live_completed; /* of the line before */
};

static bool all_reached(const struct conductor *c, enum load_phase phase)
{
    for (uint32_t i = 0; i < c->started; i++)
        if (atomic_load_explicit(&c->workers[i].phase, memory_order_acquire) < (int)phase)
            return false;
    return true;
}

static uint64_t completed(const struct conductor *c)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < c->started; i++)
        sum += load_time(&c->workers[i].counts.completed);
    return sum;
}

static void take_sample(struct conductor *c, struct load_sample *s)
{
    struct timespec cpu;
    clockid_t clock;

    if (c->run.opts->pid)
        load_proc_read(c->run.opts->pid, &s->server);
    s->at_ns = rh_clock_mono_ns();
    s->completed = completed(c);
    for (uint32_t i = 0; i < c->started; i++) {
        if (pthread_getcpuclockid(c->workers[i].thread, &clock) == 0 &&
            clock_gettime(clock, &cpu) == 0)
            s->tool_ns[i] = (uint64_t)cpu.tv_sec * 1000 * MS + (uint64_t)cpu.tv_nsec;
        s->wait_ns[i] = load_proc_waited_ns(c->workers[i].tid);
    }
}

static void live_line(struct conductor *c, uint64_t now)
{
    uint64_t open = 0, sum = completed(c);

    if (!c->terminal || now < c->live_at + LIVE_NS)
        return;
    rh_hist_clear(&c->live);
    for (uint32_t i = 0; i < c->started; i++) {
        open += atomic_load_explicit(&c->workers[i].open_now, memory_order_relaxed);
        rh_hist_merge(&c->live, &c->workers[i].latency);
    }
    load_report_live(stderr, (double)(now - load_time(&c->run.start_ns)) / 1e9, open,
                     (double)(sum - c->live_completed) * 1e9 / (double)(now - c->live_at),
                     &c->live);
    c->live_at = now;
    c->live_completed = sum;
}

static void nap(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / (1000 * MS)), (long)(ns % (1000 * MS))};

    nanosleep(&t, NULL); /* a signal ends it; the caller looks again */
}

/* Until `phase` is reached everywhere, or something wants the run to end (false). */
static bool wait_phase(struct conductor *c, enum load_phase phase)
{
    while (!all_reached(c, phase)) {
        if (signalled && !c->result->interrupted)
            return false;
        nap(LOOK_NS);
    }
    return true;
}

/* Until this moment; false: ended early, or no worker runs any more. */
static bool wait_until(struct conductor *c, uint64_t when)
{
    uint64_t now;

    while ((now = rh_clock_mono_ns()) < when) {
        if (signalled || all_reached(c, LOAD_ENDED))
            return false;
        live_line(c, now);
        nap(RH_MIN(when - now, c->terminal ? LIVE_NS / 10 : 100 * MS));
    }
    return true;
}

/* ---- the acts ---- */

static int start_workers(struct conductor *c, struct rh_fault *fault)
{
    sigset_t all, before;
    int rc = 0;

    c->workers = rh_mem_zalloc(c->run.opts->threads * sizeof(*c->workers));
    if (!c->workers)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for threads");
    c->run.workers = c->workers;
    if (c->run.opts->mode->fans_out && load_stream_init(&c->run.stream) < 0)
        return rh_fault_set(fault, RH_ENOMEM, "no memory for messages");
    for (uint32_t i = 0; i < c->run.opts->threads; i++)
        if (load_worker_init(&c->workers[i], &c->run, i) < 0)
            return rh_fault_set(fault, RH_ENOMEM, "no memory for %u connections",
                                c->run.opts->connections + c->run.opts->slow);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are this thread's business */
    for (uint32_t i = 0; i < c->run.opts->threads && rc == 0; i++) {
        atomic_fetch_add(&c->run.at_work, 1);
        rc = pthread_create(&c->workers[i].thread, NULL, load_worker_main, &c->workers[i]);
        c->started += rc == 0;
        if (rc != 0)
            atomic_fetch_sub(&c->run.at_work, 1);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? RH_OK : rh_fault_set(fault, RH_EIO, "cannot start a thread: %s", strerror(rc));
}

static void set_times(struct conductor *c)
{
    const struct load_opts *o = c->run.opts;
    uint64_t start = rh_clock_mono_ns() + LEAD_NS;
    uint64_t settle = RH_MIN(LOAD_SETTLE_NS, o->duration_ns);
    uint64_t measure = start + (o->mode->sends ? o->warmup_ns : settle);

    atomic_store_explicit(&c->run.measure_ns, measure, memory_order_relaxed);
    atomic_store_explicit(&c->run.end_ns, measure + o->duration_ns, memory_order_relaxed);
    atomic_store_explicit(&c->run.start_ns, start, memory_order_release);
    c->live_at = start;
}

/* Nothing is sent after now. */
static void end_early(struct conductor *c)
{
    c->result->interrupted = signalled;
    atomic_store_explicit(&c->run.end_ns, rh_clock_mono_ns(), memory_order_relaxed);
    atomic_store_explicit(&c->run.stop, true, memory_order_relaxed);
}

static void conduct(struct conductor *c)
{
    struct load_result *r = c->result;
    bool any = false;

    if (!wait_phase(c, LOAD_READY)) {
        end_early(c);
        wait_phase(c, LOAD_READY);
    }
    take_sample(c, &r->opened);
    for (uint32_t i = 0; i < c->started; i++)
        any = any || load_time(&c->workers[i].counts.opened) > 0;
    if (!any || r->interrupted || all_reached(c, LOAD_ENDED))
        return;
    set_times(c);
    if (wait_until(c, load_time(&c->run.measure_ns))) {
        take_sample(c, &r->begin);
        r->measured = true;
        wait_until(c, load_time(&c->run.end_ns));
        take_sample(c, &r->end);
    }
    if (rh_clock_mono_ns() < load_time(&c->run.end_ns))
        end_early(c);
    wait_phase(c, LOAD_DRAINED);
}

static void merge_classes(struct load_result *r, const struct load_worker *w)
{
    for (int i = 0; i < LOAD_CLASS_COUNT; i++) {
        const struct load_class_book *from = &w->book.classes[i];
        struct load_class_book *to = &r->classes[i];

        if (!load_report_has_class(r, i) || w->conns_count == 0)
            continue;
        to->sent += from->sent;
        to->accepted += from->accepted;
        to->turned_away += from->turned_away;
        to->arrived += from->arrived;
        rh_hist_merge(&to->arrival, &from->arrival);
        rh_hist_merge(&to->answer, &from->answer);
        rh_hist_merge(&to->status, &from->status);
    }
}

static void merge(struct conductor *c)
{
    struct load_result *r = c->result;
    uint64_t began = UINT64_MAX, moved = 0;

    for (uint32_t i = 0; i < c->started; i++) {
        struct load_worker *w = &c->workers[i];

#define ADD(name, fault, words) r->totals.name += load_time(&w->counts.name);
        LOAD_COUNTS(ADD)
#undef ADD
        rh_hist_merge(&r->latency, &w->latency);
        rh_hist_merge(&r->answer, &w->answer);
        rh_hist_merge(&r->status, &w->status);
        merge_classes(r, w);
        rh_hist_merge(&r->upgrade, &w->upgrade);
        rh_hist_merge(&r->welcome, &w->welcome);
        rh_hist_merge(&r->late, &w->late);
        r->first[i] = w->first;
        r->text_bytes = RH_MAX(r->text_bytes, w->text_bytes);
        began = RH_MIN(began, w->open_began_ns);
        moved = RH_MAX(moved, w->open_moved_ns);
    }
    r->open_ns = moved - began;
}

/* Sends the workers home and joins them; returns the first error that ended one of them. */
static int finish(struct conductor *c, struct rh_fault *fault)
{
    int rc = RH_OK;

    atomic_store_explicit(&c->run.stop, true, memory_order_relaxed);
    atomic_store_explicit(&c->run.goodbye, true, memory_order_relaxed);
    for (uint32_t i = 0; i < c->started; i++) {
        pthread_join(c->workers[i].thread, NULL);
        if (c->workers[i].rc < 0 && rc == RH_OK) {
            rc = c->workers[i].rc;
            *fault = c->workers[i].fault;
        }
    }
    if (c->terminal)
        fprintf(stderr, "\r\033[K");
    return rc;
}

static void make_id(char id[9])
{
    uint8_t random[8];

    rh_rand_bytes(random, sizeof(random));
    for (int i = 0; i < 8; i++)
        id[i] = (char)('a' + random[i] % 26);
    id[8] = '\0';
}

static int init_hists(struct conductor *c)
{
    struct load_result *r = c->result;

    if (rh_hist_init(&r->latency) < 0 || rh_hist_init(&r->answer) < 0 ||
        rh_hist_init(&r->upgrade) < 0 || rh_hist_init(&r->welcome) < 0 ||
        rh_hist_init(&r->status) < 0 || rh_hist_init(&r->late) < 0 || rh_hist_init(&c->live) < 0)
        return RH_ENOMEM;
    for (int i = 0; i < LOAD_CLASS_COUNT; i++)
        if (load_report_has_class(r, i) &&
            (rh_hist_init(&r->classes[i].arrival) < 0 || rh_hist_init(&r->classes[i].answer) < 0 ||
             rh_hist_init(&r->classes[i].status) < 0))
            return RH_ENOMEM;
    return RH_OK;
}

int load_run(const struct load_opts *opts, struct load_result *ret, struct rh_fault *fault)
{
    struct conductor c = {.run = {.opts = opts}, .result = ret, .terminal = isatty(STDERR_FILENO)};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct rh_fault other;
    cpu_set_t cpus;
    int rc;

    ret->opts = opts;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
        ret->cpus = (uint32_t)CPU_COUNT(&cpus);
    load_payload_init();
    make_id(c.run.id);
    sigaction(SIGINT, &action, NULL); /* the second one ends it at once */
    sigaction(SIGTERM, &action, NULL);
    if (opts->pid)
        load_proc_read(opts->pid, &ret->before);
    rc = init_hists(&c) < 0 ? rh_fault_set(fault, RH_ENOMEM, "no memory for histograms") : RH_OK;
    if (rc == RH_OK)
        rc = start_workers(&c, fault);
    if (rc == RH_OK)
        conduct(&c);
    if (finish(&c, rc == RH_OK ? fault : &other) < 0 && rc == RH_OK)
        rc = RH_EIO;
    ret->interrupted = signalled;
    if (rc == RH_OK)
        merge(&c);
    for (uint32_t i = 0; c.workers && i < opts->threads; i++)
        load_worker_fini(&c.workers[i]);
    rh_mem_free(c.workers);
    load_stream_fini(&c.run.stream);
    rh_hist_fini(&c.live);
    return rc;
}

void load_result_fini(struct load_result *r)
{
    rh_hist_fini(&r->latency);
    rh_hist_fini(&r->answer);
    rh_hist_fini(&r->status);
    for (int i = 0; i < LOAD_CLASS_COUNT; i++) {
        rh_hist_fini(&r->classes[i].arrival);
        rh_hist_fini(&r->classes[i].answer);
        rh_hist_fini(&r->classes[i].status);
    }
    rh_hist_fini(&r->upgrade);
    rh_hist_fini(&r->welcome);
    rh_hist_fini(&r->late);
}
