/* tools/load/report.c - figures out of a result, and the page that a person reads.
 *
 * A rate, and CPU per message, come from two samples of running counters taken at the same moment,
 * not from the times that were planned: a late sample is then still a true one.
 */
#include "tools/load/report.h"

#include <string.h>

#include "tools/load/report_int.h"

#define US 1e3
#define MS 1e6
#define S  1e9

#define WAITED_PERCENT 5 /* of the time: more is worth a word */

const struct load_percentile load_percentiles[LOAD_PERCENTILES] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999},
};

/* ---- figures ---- */

static void server_figures(const struct load_result *r, struct load_figures *f)
{
    bool connect = !r->opts->mode->sends;
    const struct load_proc *from = connect ? &r->before : &r->begin.server;
    const struct load_proc *to = connect ? &r->opened.server : &r->end.server;
    double per = connect ? (double)r->totals.opened : (double)f->completed;
    double cpu = (double)to->cpu_ns - (double)from->cpu_ns;
    double user = (double)to->user_ns - (double)from->user_ns;
    double ticks = user + (double)to->system_ns - (double)from->system_ns;
    double share = ticks > 0 ? user / ticks : 0;

    if (!to->there || !from->there || per == 0)
        return;
    f->server_percent = 100 * cpu / (connect ? (double)r->open_ns : f->seconds * S);
    f->server_ns = cpu / per;
    f->server_user_ns = f->server_ns * share;
    f->server_system_ns = f->server_ns * (1 - share);
}

/* How busy the tool was: mode connect while opening, else in the window. */
static void tool_figures(const struct load_result *r, struct load_figures *f)
{
    bool connect = !r->opts->mode->sends;
    double span = connect ? (double)r->open_ns : f->seconds * S;
    double messages = connect ? (double)r->totals.opened : (double)f->completed;

    for (uint32_t i = 0; i < r->opts->threads && span > 0; i++) {
        uint64_t used = connect ? r->opened.tool_ns[i] : r->end.tool_ns[i] - r->begin.tool_ns[i];
        uint64_t waited = connect ? r->opened.wait_ns[i] : r->end.wait_ns[i] - r->begin.wait_ns[i];

        f->tool_percent[i] = 100 * (double)used / span;
        f->tool_wait_percent[i] = 100 * (double)waited / span;
        f->tool_all_percent += f->tool_percent[i];
    }
    if (messages > 0)
        f->tool_ns = f->tool_all_percent / 100 * span / messages;
}

static double grown(uint64_t from, uint64_t to)
{
    return (double)to - (double)from;
}

/* Mode connect. */
static void holding_figures(const struct load_result *r, struct load_figures *f)
{
    double per = (double)r->totals.opened;
    const struct load_proc *from = &r->before, *to = &r->end.server;

    if (per == 0 || !from->there || !to->there)
        return;
    if (f->seconds > 0)
        f->idle_ns = grown(r->begin.server.cpu_ns, to->cpu_ns) / per / f->seconds;
    f->rss = grown(from->rss, to->rss) / per;
    f->anon = grown(from->rss_anon, to->rss_anon) / per;
    f->slab = grown(from->slab, to->slab) / per;
    f->tcp = grown(from->tcp_bytes, to->tcp_bytes) / per;
}

void load_figures_make(const struct load_result *r, struct load_figures *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (!r->measured)
        return;
    ret->seconds = (double)(r->end.at_ns - r->begin.at_ns) / S;
    ret->completed = r->end.completed - r->begin.completed;
    ret->rate = ret->seconds > 0 ? (double)ret->completed / ret->seconds : 0;
    tool_figures(r, ret);
    server_figures(r, ret);
    if (!r->opts->mode->sends)
        holding_figures(r, ret);
}

bool load_report_faults(const struct load_result *r)
{
    bool any = false;

#define ADD(name, fault, words) any = any || (fault && r->totals.name > 0);
    LOAD_COUNTS(ADD)
#undef ADD
    return any;
}

bool load_report_has_class(const struct load_result *r, int i)
{
    return r->opts->mode->books && r->opts->mix.weight[i] > 0;
}

static bool thread_was_busy(const struct load_figures *f, uint32_t i, char *dst, size_t room)
{
    double used = f->tool_percent[i], waited = f->tool_wait_percent[i];

    if (used + waited <= LOAD_BUSY_PERCENT)
        return false;
    if (used > LOAD_BUSY_PERCENT)
        snprintf(dst, room, "its thread %u used %.0f %% of a CPU", i, used);
    else
        snprintf(dst, room, "its thread %u used %.0f %% of a CPU and had to wait for %.0f %% more",
                 i, used, waited);
    return true;
}

bool load_report_bottleneck(const struct load_result *r, char *dst, size_t room)
{
    uint32_t cpus = RH_MIN(r->opts->threads, RH_MAX(r->cpus, 1u));
    uint64_t late = rh_hist_at(&r->late, 0.99);
    struct load_figures f;
    double all;

    load_figures_make(r, &f);
    for (uint32_t i = 0; i < r->opts->threads; i++)
        if (thread_was_busy(&f, i, dst, room))
            return true;
    all = f.tool_all_percent / cpus;
    if (all > LOAD_BUSY_PERCENT) {
        snprintf(dst, room, "its threads used %.0f %% of the CPUs they may run on", all);
        return true;
    }
    if (late > LOAD_LATE_NS) {
        snprintf(dst, room, "it was behind its own schedule by %.1f ms (p99)", (double)late / MS);
        return true;
    }
    return false;
}

/* ---- the page ---- */

static void print_time(FILE *to, const char *name, double ns)
{
    if (ns < MS)
        fprintf(to, "  %s %.1f us", name, ns / US);
    else if (ns < S)
        fprintf(to, "  %s %.2f ms", name, ns / MS);
    else
        fprintf(to, "  %s %.3f s", name, ns / S);
}

static void print_hist(FILE *to, const char *name, const struct rh_hist *h)
{
    if (rh_hist_count(h) == 0)
        return;
    fprintf(to, "%-13s", name);
    for (int i = 0; i < LOAD_PERCENTILES; i++)
        print_time(to, load_percentiles[i].name, (double)rh_hist_at(h, load_percentiles[i].share));
    print_time(to, "max", (double)rh_hist_max(h));
    print_time(to, "mean", rh_hist_mean(h));
    fputc('\n', to);
}

/* One row for each range of a 1-2-5 scale that has values, with a bar for its share. */
static void print_bars(FILE *to, const struct rh_hist *h)
{
    static const int steps[] = {2, 5, 10};
    uint64_t decade = 1000, low = 0, seen = 0, total = rh_hist_count(h);
    struct rh_hist_cell cell;
    uint32_t cursor = 0;
    bool more = rh_hist_next(h, &cursor, &cell);

    for (int i = 0; more;
         low = decade * (uint64_t)steps[i], decade *= i == 2 ? 10 : 1, i = (i + 1) % 3) {
        uint64_t high = decade * (uint64_t)steps[i], count = 0;
        double share;

        for (; more && cell.low < high; more = rh_hist_next(h, &cursor, &cell))
            count += cell.count;
        if (count == 0)
            continue;
        seen += count;
        share = (double)count / (double)total;
        fprintf(to, "  %9.3f to %9.3f ms %12llu %8.4f %% %9.4f %% %.*s\n", (double)low / MS,
                (double)high / MS, (unsigned long long)count, 100 * share,
                100 * (double)seen / (double)total, (int)(share * 40 + 0.5),
                "****************************************");
    }
}

static void print_head(const struct load_result *r, FILE *to)
{
    const struct load_opts *o = r->opts;

    fprintf(to, "%-13s%s, %u connections, %u thread%s", o->mode->name, o->url, o->connections,
            o->threads, o->threads > 1 ? "s" : "");
    if (o->direct)
        fprintf(to, " with direct descriptors");
    if (o->sources) {
        char first[RH_ADDR_TEXT], last[RH_ADDR_TEXT];

        load_opts_source_text(o, 0, first);
        load_opts_source_text(o, o->sources - 1, last);
        fprintf(to, o->sources > 1 ? " from %s to %s" : " from %s", first, last);
    }
    if (o->mode->fans_out)
        fprintf(to, ", %s", o->broadcast ? "broadcasts" : "one room");
    if (o->mode->mixes) {
        char mix[128];

        load_mix_text(&o->mix, mix, sizeof(mix));
        fprintf(to, ", %s, rooms of %u", mix, o->room_size);
    }
    if (o->silent > 0)
        fprintf(to, ", %g %% silent", o->silent * 100);
    if (o->reconnect > 0)
        fprintf(to, ", %g cut off a second", o->reconnect);
    if (o->compress)
        fprintf(to, ", permessage-deflate");
    if (o->slow)
        fprintf(to, " with %u more that never read", o->slow);
    if (!o->mode->sends)
        fprintf(to, ", held for %.1f s\n", (double)o->duration_ns / S);
    else if (o->rate > 0)
        fprintf(to, ", %g/s in all, %u bytes, %.1f s after %.1f s of warm-up\n", o->rate, o->size,
                (double)o->duration_ns / S, (double)o->warmup_ns / S);
    else
        fprintf(to, ", depth %u, %u bytes, %.1f s after %.1f s of warm-up\n", o->depth, o->size,
                (double)o->duration_ns / S, (double)o->warmup_ns / S);
}

/* Mode connect: the server while all connections were made, and while nothing happened. */
static void print_holding(const struct load_result *r, const struct load_figures *f, FILE *to)
{
    fprintf(to,
            "%-13sprocess %d: %.3f us of CPU per connection opened (user %.3f, system %.3f), "
            "%.1f %% of a CPU\n",
            "server", (int)r->opts->pid, f->server_ns / US, f->server_user_ns / US,
            f->server_system_ns / US, f->server_percent);
    fprintf(to, "%-13s%.3f us of CPU per connection and second while held\n", "", f->idle_ns / US);
    fprintf(to,
            "%-13s%.1f MB resident before, %.1f MB at the end: %.0f bytes resident per connection, "
            "%.0f of them its own memory\n",
            "memory", (double)r->before.rss / 1e6, (double)r->end.server.rss / 1e6, f->rss,
            f->anon);
    fprintf(
        to,
        "%-13s%.0f bytes of kernel objects and %.0f of TCP buffers per connection: of the whole "
        "machine, both ends\n",
        "", f->slab, f->tcp);
}

static void print_server(const struct load_result *r, const struct load_figures *f, FILE *to)
{
    if (r->opts->pid == 0)
        return;
    if (!r->end.server.there) {
        fprintf(to, "%-13sprocess %d is gone\n", "server", (int)r->opts->pid);
        return;
    }
    if (!r->opts->mode->sends) {
        print_holding(r, f, to);
        return;
    }
    fprintf(to,
            "%-13sprocess %d: %.3f us of CPU per %s (user %.3f, system %.3f), %.1f %% of a CPU\n",
            "server", (int)r->opts->pid, f->server_ns / US, r->opts->mode->unit,
            f->server_user_ns / US, f->server_system_ns / US, f->server_percent);
}

static void print_tool(const struct load_result *r, const struct load_figures *f, FILE *to)
{
    double waited = 0;
    char why[128];

    fprintf(to, "%-13s", "load tool");
    fprintf(to, "%.3f us of CPU per %s; ", f->tool_ns / US,
            r->opts->mode->sends ? r->opts->mode->unit : "connection opened");
    for (uint32_t i = 0; i < r->opts->threads; i++) {
        fprintf(to, "%s%.0f %%", i ? ", " : "", f->tool_percent[i]);
        waited = RH_MAX(waited, f->tool_wait_percent[i]);
    }
    fprintf(to, " of a CPU%s", r->opts->threads > 1 ? " each thread" : "");
    if (waited > WAITED_PERCENT)
        fprintf(to, ", waiting for one %.0f %% of the time", waited);
    if (rh_hist_count(&r->late))
        fprintf(to, "; behind its schedule by %.1f us (p99), %.1f us at most",
                (double)rh_hist_at(&r->late, 0.99) / US, (double)rh_hist_max(&r->late) / US);
    fputc('\n', to);
    if (load_report_bottleneck(r, why, sizeof(why)))
        fprintf(to, "%-13sthe load tool was the bottleneck: %s\n", "", why);
}

/* Modes ack and mixed: what each class took, and where the accepted messages are. */
static void print_classes(const struct load_result *r, FILE *to)
{
    for (int i = 0; i < LOAD_CLASS_COUNT; i++) {
        const struct load_class_book *b = &r->classes[i];

        if (!load_report_has_class(r, i))
            continue;
        fprintf(to, "%-13s%llu sent, %llu accepted, %llu turned away, %llu arrived\n",
                load_class_word(i), (unsigned long long)b->sent, (unsigned long long)b->accepted,
                (unsigned long long)b->turned_away, (unsigned long long)b->arrived);
        print_hist(to, "  arrival", &b->arrival);
        print_hist(to, "  answer", &b->answer);
        print_hist(to, "  status", &b->status);
    }
}

static void print_books(const struct load_result *r, FILE *to)
{
    const struct load_totals *t = &r->totals;

    fprintf(to,
            "%-13s%llu acknowledged messages accepted: %llu success, %llu ended otherwise, "
            "%llu still owed, %llu whose sender was away\n",
            "books", (unsigned long long)t->accepted, (unsigned long long)t->succeeded,
            (unsigned long long)t->ended_otherwise, (unsigned long long)t->owed,
            (unsigned long long)t->away);
    fprintf(to, "%-13s%llu requests turned away, %llu deliveries again, %llu plain messages kept\n",
            "", (unsigned long long)t->turned_away, (unsigned long long)t->repeated,
            (unsigned long long)t->kept);
    if (r->opts->reconnect > 0)
        fprintf(to,
                "%-13s%llu connections cut off, %llu came back; %llu requests without an answer, "
                "%llu plain messages gone, %llu told as lost\n",
                "", (unsigned long long)t->cut, (unsigned long long)t->returned,
                (unsigned long long)t->unsure, (unsigned long long)t->gone,
                (unsigned long long)t->told);
}

static void print_verdict(const struct load_result *r, FILE *to)
{
    if (r->interrupted)
        fprintf(to, "%-13sended early by a signal\n", "note");
    if (r->totals.plain)
        fprintf(to, "%-13s%llu connections are without compression: the server did not agree\n",
                "note", (unsigned long long)r->totals.plain);
    else if (r->opts->compress)
        fprintf(to, "%-13s%llu messages were sent compressed, %llu came compressed\n", "note",
                (unsigned long long)r->totals.deflated, (unsigned long long)r->totals.compressed);
    if (r->totals.pings)
        fprintf(to, "%-13s%llu pings of the server were answered\n", "note",
                (unsigned long long)r->totals.pings);
    if (r->totals.held)
        fprintf(to,
                "%-13s%llu messages were held back, as their connection still had others to send\n",
                "note", (unsigned long long)r->totals.held);
    if (!load_report_faults(r)) {
        fprintf(to, "%-13snothing lost, reordered, corrupted, refused or broken\n", "result");
        return;
    }
#define ROW(name, fault, words)                                                                    \
    if (fault && r->totals.name)                                                                   \
        fprintf(to, "%-13s%llu %s\n", "FAULT", (unsigned long long)r->totals.name, words);
    LOAD_COUNTS(ROW)
#undef ROW
    for (uint32_t i = 0; i < r->opts->threads; i++)
        if (r->first[i].text[0])
            fprintf(to, "%-13s%s\n", "first", r->first[i].text);
}

void load_report_print(const struct load_result *r, FILE *to)
{
    struct load_figures f;

    load_figures_make(r, &f);
    print_head(r, to);
    fprintf(to, "%-13s%llu opened in %.3f s (%.0f/s)\n", "connections",
            (unsigned long long)r->totals.opened, (double)r->open_ns / S,
            r->open_ns ? (double)r->totals.opened / ((double)r->open_ns / S) : 0);
    print_hist(to, "until 101", &r->upgrade);
    print_hist(to, "until welcome", &r->welcome);
    if (r->measured && r->opts->mode->sends) {
        fprintf(to, "%-13s%llu in %.3f s: %.0f/s, %.2f MB/s of payload\n",
                strcmp(r->opts->mode->unit, "delivery") == 0 ? "deliveries" : "messages",
                (unsigned long long)f.completed, f.seconds, f.rate, f.rate * r->opts->size / 1e6);
        print_hist(to, "latency", &r->latency);
        print_hist(to, "answers", &r->answer);
        print_hist(to, "status", &r->status);
        print_bars(to, &r->latency);
    }
    if (r->opts->mode->mixes)
        print_classes(r, to);
    if (r->opts->mode->books)
        print_books(r, to);
    if (r->measured) {
        print_server(r, &f, to);
        print_tool(r, &f, to);
    }
    print_verdict(r, to);
}

void load_report_live(FILE *to, double seconds, uint64_t open, double rate,
                      const struct rh_hist *latency)
{
    fprintf(to, "\r%7.0f s  %llu open  %.0f/s", seconds, (unsigned long long)open, rate);
    if (rh_hist_count(latency)) {
        print_time(to, "p50", (double)rh_hist_at(latency, 0.5));
        print_time(to, "p99", (double)rh_hist_at(latency, 0.99));
    }
    fprintf(to, "\033[K");
    fflush(to);
}
