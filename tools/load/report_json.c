/* tools/load/report_json.c - all figures as one JSON object, times in nanoseconds. */
#include <string.h>

#include "proto/json.h"
#include "tools/load/report_int.h"

static void put_text(FILE *to, const char *name, const char *text)
{
    char quoted[RH_JSON_ESCAPED_MAX(2048)];
    int len = rh_json_escape(quoted, sizeof(quoted),
                             (struct rh_span){text, (uint32_t)RH_MIN(strlen(text), 2048u)});

    fprintf(to, "\"%s\":%.*s", name, len, quoted);
}

static void put_hist(FILE *to, const char *name, const struct rh_hist *h)
{
    struct rh_hist_cell cell;
    uint32_t cursor = 0;
    const char *comma = "";

    fprintf(to, ",\n \"%s\":{\"count\":%llu,\"mean\":%.1f,\"max\":%llu", name,
            (unsigned long long)rh_hist_count(h), rh_hist_mean(h),
            (unsigned long long)rh_hist_max(h));
    for (int i = 0; i < LOAD_PERCENTILES; i++)
        fprintf(to, ",\"%s\":%llu", load_percentiles[i].name,
                (unsigned long long)rh_hist_at(h, load_percentiles[i].share));
    fprintf(to, ",\n  \"buckets\":[");
    while (rh_hist_next(h, &cursor, &cell)) {
        fprintf(to, "%s[%llu,%llu,%llu]", comma, (unsigned long long)cell.low,
                (unsigned long long)cell.high, (unsigned long long)cell.count);
        comma = ",";
    }
    fprintf(to, "]}");
}

static void put_server(const struct load_result *r, const struct load_figures *f, FILE *to)
{
    const struct load_proc *a = &r->begin.server, *b = &r->end.server;

    fprintf(to,
            ",\n \"server\":{\"pid\":%d,\"alive\":%s,\"cpu_ns\":%lld,\"user_ns\":%lld,"
            "\"system_ns\":%lld,\n  \"cpu_percent\":%.2f,\"cpu_ns_per_%s\":%.1f,"
            "\"user_ns_per_%s\":%.1f,\"system_ns_per_%s\":%.1f",
            (int)r->opts->pid, b->there ? "true" : "false", (long long)(b->cpu_ns - a->cpu_ns),
            (long long)(b->user_ns - a->user_ns), (long long)(b->system_ns - a->system_ns),
            f->server_percent, r->opts->mode->unit, f->server_ns, r->opts->mode->unit,
            f->server_user_ns, r->opts->mode->unit, f->server_system_ns);
    fprintf(to,
            ",\n  \"rss_before\":%llu,\"rss_after\":%llu,\"anon_before\":%llu,\"anon_after\":%llu,"
            "\"slab_before\":%llu,\"slab_after\":%llu,\n  \"sockets_before\":%llu,"
            "\"sockets_after\":%llu,\"tcp_bytes_before\":%llu,\"tcp_bytes_after\":%llu",
            (unsigned long long)r->before.rss, (unsigned long long)b->rss,
            (unsigned long long)r->before.rss_anon, (unsigned long long)b->rss_anon,
            (unsigned long long)r->before.slab, (unsigned long long)b->slab,
            (unsigned long long)r->before.sockets, (unsigned long long)b->sockets,
            (unsigned long long)r->before.tcp_bytes, (unsigned long long)b->tcp_bytes);
    if (!r->opts->mode->sends)
        fprintf(
            to,
            ",\n  \"rss_per_connection\":%.1f,\"anon_per_connection\":%.1f,"
            "\"slab_per_connection_both_ends\":%.1f,\"tcp_bytes_per_connection_both_ends\":%.1f,"
            "\n  \"idle_ns_per_connection_second\":%.1f",
            f->rss, f->anon, f->slab, f->tcp, f->idle_ns);
    fprintf(to, "}");
}

static void put_book_opts(const struct load_opts *o, FILE *to)
{
    char mix[128];

    load_mix_text(&o->mix, mix, sizeof(mix));
    fprintf(to, ",");
    put_text(to, "mix", mix);
    fprintf(to, ",\"silent_share\":%.6f,\"reconnect\":%.3f,\"drain_ns\":%llu", o->silent,
            o->reconnect, (unsigned long long)o->drain_ns);
    if (o->mode->mixes)
        fprintf(to, ",\"room_size\":%u", o->room_size);
}

static void put_classes(const struct load_result *r, FILE *to)
{
    const char *comma = "";

    fprintf(to, ",\n \"classes\":{");
    for (int i = 0; i < LOAD_CLASS_COUNT; i++) {
        const struct load_class_book *b = &r->classes[i];

        if (!load_report_has_class(r, i))
            continue;
        fprintf(to,
                "%s\n  \"%s\":{\"sent\":%llu,\"accepted\":%llu,\"turned_away\":%llu,"
                "\"arrived\":%llu",
                comma, load_class_word(i), (unsigned long long)b->sent,
                (unsigned long long)b->accepted, (unsigned long long)b->turned_away,
                (unsigned long long)b->arrived);
        put_hist(to, "arrival", &b->arrival);
        put_hist(to, "answer", &b->answer);
        put_hist(to, "status", &b->status);
        fprintf(to, "}");
        comma = ",";
    }
    fprintf(to, "}");
}

static void put_opts(const struct load_opts *o, FILE *to)
{
    put_text(to, "mode", o->mode->name);
    fprintf(to, ",");
    put_text(to, "url", o->url);
    fprintf(to, ",\"connections\":%u,\"threads\":%u,\"source_addresses\":%u,\"duration_ns\":%llu",
            o->connections, o->threads, o->sources, (unsigned long long)o->duration_ns);
    fprintf(to, ",\"direct\":%s", o->direct ? "true" : "false");
    if (o->sources) {
        char first[RH_ADDR_TEXT];

        load_opts_source_text(o, 0, first);
        fprintf(to, ",\"first_source\":\"%s\"", first);
    }
    if (!o->mode->sends)
        return;
    if (o->mode->fans_out)
        fprintf(to, ",\"broadcast\":%s,\"slow\":%u", o->broadcast ? "true" : "false", o->slow);
    if (o->mode->books)
        put_book_opts(o, to);
    fprintf(to, ",\"compress\":%s", o->compress ? "true" : "false");
    fprintf(to, ",\"size\":%u,\"warmup_ns\":%llu", o->size, (unsigned long long)o->warmup_ns);
    if (o->rate > 0)
        fprintf(to, ",\"rate\":%.3f", o->rate);
    else
        fprintf(to, ",\"depth\":%u", o->depth);
}

static void put_tool(const struct load_result *r, const struct load_figures *f, FILE *to)
{
    char why[128] = "";
    bool slow = load_report_bottleneck(r, why, sizeof(why));

    fprintf(to, ",\n \"tool\":{\"cpu_percent\":[");
    for (uint32_t i = 0; i < r->opts->threads; i++)
        fprintf(to, "%s%.2f", i ? "," : "", f->tool_percent[i]);
    fprintf(to, "],\"wait_percent\":[");
    for (uint32_t i = 0; i < r->opts->threads; i++)
        fprintf(to, "%s%.2f", i ? "," : "", f->tool_wait_percent[i]);
    fprintf(to, "],\"late_p99_ns\":%llu,\"late_max_ns\":%llu,\"bottleneck\":%s,",
            (unsigned long long)rh_hist_at(&r->late, 0.99),
            (unsigned long long)rh_hist_max(&r->late), slow ? "true" : "false");
    put_text(to, "why", why);
    fprintf(to, ",\"cpu_ns_per_%s\":%.1f", r->opts->mode->unit, f->tool_ns);
    fprintf(to, "}");
}

void load_report_json(const struct load_result *r, FILE *to)
{
    struct load_figures f;
    const char *comma = "";

    load_figures_make(r, &f);
    fprintf(to, "{\"tool_version\":\"%s\",\n ", rh_version());
    put_opts(r->opts, to);
    fprintf(to, ",\n \"ok\":%s,\"interrupted\":%s,\"open_seconds\":%.6f,\"window_seconds\":%.6f",
            load_report_faults(r) ? "false" : "true", r->interrupted ? "true" : "false",
            (double)r->open_ns / 1e9, f.seconds);
    fprintf(to, ",\"messages\":%llu,\"rate_per_second\":%.1f", (unsigned long long)f.completed,
            f.rate);
    if (r->opts->mode->fans_out)
        fprintf(to, ",\"text_bytes\":%u", r->text_bytes);
    fprintf(to, ",\n \"counts\":{");
#define ROW(name, fault, words)                                                                    \
    fprintf(to, "%s\"" #name "\":%llu", comma, (unsigned long long)r->totals.name);                \
    comma = ",";
    LOAD_COUNTS(ROW)
#undef ROW
    fprintf(to, "},\n \"first_faults\":[");
    comma = "";
    for (uint32_t i = 0; i < r->opts->threads; i++)
        if (r->first[i].text[0]) {
            fprintf(to, "%s{", comma);
            put_text(to, "text", r->first[i].text);
            fprintf(to, "}");
            comma = ",";
        }
    fprintf(to, "]");
    if (r->opts->pid)
        put_server(r, &f, to);
    put_tool(r, &f, to);
    put_hist(to, "until_101", &r->upgrade);
    put_hist(to, "until_welcome", &r->welcome);
    put_hist(to, "latency", &r->latency);
    put_hist(to, "answer", &r->answer);
    put_hist(to, "status", &r->status);
    if (r->opts->mode->books)
        put_classes(r, to);
    fprintf(to, "}\n");
}
