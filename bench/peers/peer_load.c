/* bench/peers/peer_load.c - the same load against ringhub and its peers, each in its own dialect.
 *
 * Usage      peer_load --server 127.0.0.1:PORT --dialect NAME --load echo|fanout|pairs|idle
 *                      [--connections 100] [--depth 1] [--size 64] [--warmup 1000] [--window 2000]
 *                      [--pids PID,PID..] [--answers]
 *            Times are in milliseconds. --connections are those that listen. --answers asks for a
 *            response to each message, where the dialect has it. --pids are the server's processes.
 * Output     one JSON object: rate and CPU time of the window, per message (fan-out: per delivery),
 *            latency from sending to each arrival, what connecting cost and how the server's memory
 *            grew. All times in it are nanoseconds.
 * Status     0 all arrived: once, in order, unchanged; 1 not so, or the run failed; 2 wrong usage.
 *
 * bench/peers/run.py starts the servers and calls this; peer.h tells how it works inside.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/peers/peer.h"
#include "core/base.h"
#include "core/err.h"

#define BOTTLENECK 90.0 /* % of a CPU, from which on the figures may be the tool's own */
#define SIZE_MIN   18   /* number and sender of a payload are in so many bytes */

static const struct peer_dialect *const dialects[] = {
    &peer_plain, &peer_nchan, &peer_node_ws, &peer_socketio, &peer_ringhub, &peer_mqtt, &peer_nats};
static const char *const loads[] = {"echo", "fanout", "pairs", "idle"};

static bool read_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;

    *ret = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && *ret >= min && *ret <= max;
}

static bool read_number32(const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
    uint64_t wide;
    bool ok = read_number(text, min, max, &wide);

    *ret = (uint32_t)wide;
    return ok;
}

static bool read_ms(const char *text, uint64_t *ret_ns)
{
    bool ok = read_number(text, 0, 3600000, ret_ns);

    *ret_ns *= 1000000;
    return ok;
}

static bool read_pids(const char *text, struct peer_opts *o)
{
    char *end;

    do {
        if (o->pid_count == PEER_PIDS_MAX)
            return false;
        o->pids[o->pid_count++] = (pid_t)strtol(text, &end, 10);
        text = end + 1;
    } while (*end == ',');
    return *end == '\0';
}

static bool read_server(const char *text, struct peer_opts *o)
{
    snprintf(o->host, sizeof(o->host), "%s", text);
    return rh_addr_parse(text, &o->server) == RH_OK;
}

static bool read_dialect(const char *text, struct peer_opts *o)
{
    for (size_t i = 0; i < RH_COUNT(dialects); i++)
        if (strcmp(text, dialects[i]->name) == 0)
            o->dialect = dialects[i];
    return o->dialect != NULL;
}

static bool read_load(const char *text, struct peer_opts *o)
{
    for (size_t i = 0; i < RH_COUNT(loads); i++)
        if (strcmp(text, loads[i]) == 0) {
            o->load = (enum peer_load)i;
            return true;
        }
    return false;
}

static bool read_option(int option, const char *text, struct peer_opts *o)
{
    switch (option) {
    case 's':
        return read_server(text, o);
    case 'd':
        return read_dialect(text, o);
    case 'l':
        return read_load(text, o);
    case 'c':
        return read_number32(text, 1, 1000000, &o->connections);
    case 'D':
        return read_number32(text, 1, 4096, &o->depth);
    case 'z':
        return read_number32(text, SIZE_MIN, 1 << 20, &o->size);
    case 'w':
        return read_ms(text, &o->warmup_ns);
    case 't':
        return read_ms(text, &o->window_ns);
    case 'p':
        return read_pids(text, o);
    case 'a':
        o->answers = true;
        return true;
    default:
        return false;
    }
}

static bool read_options(int argc, char **argv, struct peer_opts *o)
{
    static const struct option known[] = {{"server", required_argument, NULL, 's'},
                                          {"dialect", required_argument, NULL, 'd'},
                                          {"load", required_argument, NULL, 'l'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"depth", required_argument, NULL, 'D'},
                                          {"size", required_argument, NULL, 'z'},
                                          {"warmup", required_argument, NULL, 'w'},
                                          {"window", required_argument, NULL, 't'},
                                          {"pids", required_argument, NULL, 'p'},
                                          {"answers", no_argument, NULL, 'a'},
                                          {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
        if (!read_option(option, optarg, o)) {
            fprintf(stderr, "peer_load: what does \"%s\" mean?\n", argv[optind - 1]);
            return false;
        }
    if (optind < argc || !o->dialect || !o->host[0] || !(o->dialect->loads & 1u << o->load) ||
        (o->answers && !o->dialect->answers) ||
        (o->load == PEER_PAIRS && o->connections % 2 != 0)) {
        fprintf(stderr, "peer_load: needs a server and a dialect that can do this load (pairs: an "
                        "even number of connections)\n");
        return false;
    }
    return true;
}

static void raise_files(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return; /* then each socket() will tell */
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static double per(uint64_t what, uint64_t count)
{
    return count ? (double)what / (double)count : 0.0;
}

static void report(const struct peer *p, const struct peer_result *r)
{
    uint64_t ns = r->end.at_ns - r->begin.at_ns, count = r->end.arrived - r->begin.arrived;
    uint64_t server = r->end.server_ns - r->begin.server_ns;
    double tool = 100 * per(r->end.tool_ns - r->begin.tool_ns, ns);

    printf("{\"ok\": %s, \"dialect\": \"%s\", \"load\": \"%s\",\n",
           peer_failed(p) ? "false" : "true", p->opts.dialect->name, loads[p->opts.load]);
    printf(" \"messages\": %llu, \"rate\": %.1f, \"cpu_ns\": %.1f, \"server_percent\": %.1f,\n",
           (unsigned long long)count, 1e9 * per(count, ns), per(server, count),
           100 * per(server, ns));
    printf(" \"p50\": %llu, \"p99\": %llu, \"tool_percent\": %.1f, \"bottleneck\": %s,\n",
           (unsigned long long)rh_hist_at(&p->latency, 0.5),
           (unsigned long long)rh_hist_at(&p->latency, 0.99), tool,
           tool > BOTTLENECK ? "true" : "false");
    printf(" \"connect_cpu_ns\": %.1f, \"connect_rate\": %.1f, \"rss_per_connection\": %.1f,\n",
           per(r->opened.server_ns - r->before.server_ns, p->count),
           1e9 * per(p->count, r->opened.at_ns - r->before.at_ns),
           per(r->end.rss, p->count) - per(r->before.rss, p->count));
    printf(" \"rss_before\": %llu, \"rss\": %llu, \"idle_percent\": %.2f,\n",
           (unsigned long long)r->before.rss, (unsigned long long)r->end.rss,
           p->opts.load == PEER_IDLE ? 100 * per(server, ns) : 0.0);
    printf(" \"lost\": %llu, \"reordered\": %llu, \"corrupted\": %llu, \"unexpected\": %llu, "
           "\"broken\": %llu,\n \"first\": \"%s\"}\n",
           (unsigned long long)p->lost, (unsigned long long)p->reordered,
           (unsigned long long)p->corrupted, (unsigned long long)p->unexpected,
           (unsigned long long)p->broken, p->first);
}

int main(int argc, char **argv)
{
    static struct peer peer; /* zeroed */
    static struct peer_result result;
    struct rh_fault fault;
    int rc;

    peer.opts = (struct peer_opts){.connections = 100,
                                   .depth = 1,
                                   .size = 64,
                                   .warmup_ns = UINT64_C(1000000000),
                                   .window_ns = UINT64_C(2000000000)};
    if (!read_options(argc, argv, &peer.opts))
        return 2;
    raise_files();
    rc = peer_run(&peer, &result, &fault);
    if (rc == RH_OK)
        report(&peer, &result);
    else
        fprintf(stderr, "peer_load: %s\n", fault.text);
    peer_fini(&peer);
    return rc == RH_OK && !peer_failed(&peer) ? 0 : 1;
}
