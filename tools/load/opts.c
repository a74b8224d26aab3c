/* tools/load/opts.c - the command line, as a table of options and a list of checks.
 *
 * Why this way: each option is one row (name, what it takes, how it is read), so that none can be
 * parsed and forgotten: help names the same ones, and rows say in which modes they mean something.
 * What one option cannot know alone (rate against depth, connections against addresses) is checked
 * when all have been read.
 */
#include "tools/load/opts.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base.h"
#include "core/err.h"
#include "tools/load/load.h"

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

#define USER_ROOM 64 /* in a path, for the user_id= that the tool adds */

#define DEFAULT_MIX "send=40,ack=20,publish=20,publish_ack=10,ping=10"

/* ---- reading single values ---- */

static bool read_count(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);

    if (!isdigit((unsigned char)*text) || *end != '\0' || v < min || v > max)
        return false;
    *ret = v;
    return true;
}

static bool read_unit(const char *text, const char *const *names, const uint64_t *worth,
                      uint64_t max, uint64_t *ret)
{
    char *unit;
    double v = strtod(text, &unit);

    if (!isdigit((unsigned char)*text))
        return false;
    for (; *names; names++, worth++)
        if (strcmp(unit, *names) == 0) {
            if (v * (double)*worth > (double)max)
                return false;
            *ret = (uint64_t)(v * (double)*worth);
            return true;
        }
    return false;
}

static bool read_duration(const char *text, uint64_t *ret)
{
    static const char *const names[] = {"ms", "s", "m", "h", NULL};
    static const uint64_t worth[] = {MS, S, 60 * S, 3600 * S};

    return read_unit(text, names, worth, 24 * 3600 * S, ret);
}

static bool read_size(const char *text, uint64_t *ret)
{
    static const char *const names[] = {"", "KiB", "MiB", NULL};
    static const uint64_t worth[] = {1, 1 << 10, 1 << 20};

    return strchr(text, '.') == NULL && read_unit(text, names, worth, LOAD_SIZE_MAX, ret);
}

/* 0.25 or 25%. */
static bool read_share(const char *text, double *ret)
{
    char *end;
    double v = strtod(text, &end);

    if (!isdigit((unsigned char)*text))
        return false;
    if (*end == '%') {
        v /= 100;
        end++;
    }
    *ret = v;
    return *end == '\0' && v >= 0 && v <= 1;
}

static bool read_rate(const char *text, double *ret)
{
    char *end;
    double v = strtod(text, &end);

    if (!isdigit((unsigned char)*text) || *end != '\0' || !(v > 0) || v > 1e9)
        return false;
    *ret = v;
    return true;
}

static bool is_printable(const char *url)
{
    for (; *url; url++)
        if (*url <= ' ' || *url > '~' || *url == '#')
            return false;
    return true;
}

/* ws://HOST:PORT/PATH; without a port 80, without a path "/". */
static bool read_url(const char *url, struct load_opts *o)
{
    const char *host = url + 5, *path;
    char text[280];
    bool local, bare;
    size_t len;

    if (strncmp(url, "ws://", 5) != 0)
        return false;
    path = strchr(host, '/');
    len = path ? (size_t)(path - host) : strlen(host);
    if (len == 0 || len >= sizeof(o->host) || !is_printable(url))
        return false;
    memcpy(o->host, host, len);
    o->host[len] = '\0';
    if (strlen(path ? path : "/") >= sizeof(o->path) - USER_ROOM)
        return false;
    snprintf(o->path, sizeof(o->path), "%s", path ? path : "/");
    local = strncmp(o->host, "localhost", 9) == 0 && (host[9] == ':' || len == 9);
    bare = o->host[len - 1] == ']' || !strchr(o->host, ':');
    if (snprintf(text, sizeof(text), "%s%s%s", local ? "127.0.0.1" : "", o->host + (local ? 9 : 0),
                 bare ? ":80" : "") >= (int)sizeof(text))
        return false;
    return rh_addr_parse(text, &o->target) == RH_OK;
}

static bool read_ipv4(const char *at, size_t len, struct in_addr *ret)
{
    char text[INET_ADDRSTRLEN];

    if (len >= sizeof(text))
        return false;
    memcpy(text, at, len);
    text[len] = '\0';
    return inet_pton(AF_INET, text, ret) == 1;
}

/* One address, or FIRST-LAST. */
static bool read_sources(const char *text, struct load_opts *o)
{
    struct sockaddr_in *at = (struct sockaddr_in *)&o->source.at;
    const char *dash = strchr(text, '-');
    struct in_addr last;

    if (!read_ipv4(text, dash ? (size_t)(dash - text) : strlen(text), &at->sin_addr))
        return false;
    last = at->sin_addr;
    if (dash && !read_ipv4(dash + 1, strlen(dash + 1), &last))
        return false;
    if (ntohl(last.s_addr) < ntohl(at->sin_addr.s_addr))
        return false;
    at->sin_family = AF_INET;
    o->source.len = sizeof(*at);
    o->sources = ntohl(last.s_addr) - ntohl(at->sin_addr.s_addr) + 1;
    return true;
}

/* ---- the options ---- */

enum id {
    URL,
    CONNECTIONS,
    RATE,
    DEPTH,
    SIZE,
    DURATION,
    WARMUP,
    THREADS,
    SOURCES,
    PID,
    JSON,
    BROADCAST,
    SLOW,
    TEXT,
    MASK_ZERO,
    COMPRESS,
    SILENT,
    ACK_TIMEOUT,
    RECONNECT,
    DRAIN,
    MIX,
    ROOM_SIZE,
    HELP,
    VERSION,
    IDS
};

static const struct option_row {
    const char *name;
    const char *takes; /* NULL: nothing */
    bool messages;     /* means something only in modes that send messages */
    const char *wants; /* the sentence when the value is wrong */
    const char *help;
} rows[IDS] = {
    [URL] = {"--url", "URL", false, "ws://HOST:PORT/PATH with a numeric host or localhost",
             "whom to load: ws://HOST:PORT/PATH, HOST numeric or localhost"},
    [CONNECTIONS] =
        {"--connections", "N", false, "a number from 1 to 10000000",
         "how many WebSocket connections (default 1; pairs: an even number, default 2)"},
    [RATE] = {"--rate", "R", true, "a number of messages per second above 0",
              "open loop: R messages a second, all connections together; fanout: publishes"},
    [DEPTH] = {"--depth", "D", true, "a number from 1 to 4096",
               "closed loop: D messages outstanding per connection; fanout: in all (default 1)"},
    [SIZE] = {"--size", "S", true, "a number of bytes up to 64MiB (100, 64KiB)",
              "bytes of payload (default 64)"},
    [DURATION] = {"--duration", "T", false, "a time such as 500ms, 5s or 2m",
                  "how long to measure; connect: how long to hold (default 10s)"},
    [WARMUP] = {"--warmup", "T", true, "a time such as 500ms, 5s or 2m",
                "how long to send before measuring (default 1s)"},
    [THREADS] = {"--threads", "N", false, "a number from 1 to 64",
                 "threads of the load tool (default 1, more where open files would not do)"},
    [SOURCES] = {"--source-addresses", "A[-B]", false,
                 "an IPv4 address or a range such as 127.0.0.2-127.0.0.40",
                 "connect from these, in turn; at most 10,000 connections from each"},
    [PID] = {"--pid", "PID", false, "the process id of a running server",
             "the server's process, for its CPU time and memory"},
    [JSON] = {"--json", "FILE", false, "a file name, or - for standard output",
              "write all figures there as JSON; with - nothing else is printed"},
    [BROADCAST] = {"--broadcast", NULL, true, NULL, "fanout: broadcasts instead of a room"},
    [SLOW] = {"--slow", "N", true, "a number from 1 to 10000000",
              "fanout: N connections more, which join and then never read"},
    [TEXT] = {"--text", NULL, true, NULL, "echo: text messages instead of binary ones"},
    [MASK_ZERO] = {"--mask-zero", NULL, true, NULL,
                   "mask with the key 0, so that payloads are readable on the wire"},
    [COMPRESS] = {"--compress", NULL, true, NULL,
                  "offer permessage-deflate, and use it where the server agrees"},
    [SILENT] = {"--silent-share", "P", true, "a share such as 25% or 0.25",
                "ack, mixed: this part of the receivers never acknowledges (default 0)"},
    [ACK_TIMEOUT] = {"--ack-timeout", "T", true, "a time such as 500ms, 5s or 2m",
                     "ack, mixed: the hub's ack.timeout; what is silent must see repetitions then "
                     "(default 5s)"},
    [RECONNECT] = {"--reconnect", "R", true, "a number of connections per second above 0",
                   "ack, mixed: cut off R connections a second, which come back at once"},
    [DRAIN] = {"--drain", "T", true, "a time such as 500ms, 5s or 2m",
               "ack, mixed: wait at the end for what is outstanding (default 5s), ends of what "
               "nobody acknowledges included"},
    [MIX] = {"--mix", "SHARES", true,
             "shares such as send=40,ack=20,publish=20,publish_ack=10,ping=10",
             "mixed: parts of the classes (default " DEFAULT_MIX ")"},
    [ROOM_SIZE] = {"--room-size", "N", true, "an even number from 2 to 64",
                   "mixed: users of a room (default 8)"},
    [HELP] = {"--help", NULL, false, NULL, "print this"},
    [VERSION] = {"--version", NULL, false, NULL, "print the version"},
};

static int find_option(const char *name, size_t len)
{
    for (int i = 0; i < IDS; i++)
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
            return i;
    return -1;
}

static bool read_pid(const char *v, struct load_opts *o)
{
    uint64_t n;
    char path[64];

    if (!read_count(v, 1, INT32_MAX, &n))
        return false;
    snprintf(path, sizeof(path), "/proc/%s/stat", v);
    o->pid = (pid_t)n;
    return access(path, R_OK) == 0;
}

static bool set_option(struct load_opts *o, enum id id, const char *v)
{
    uint64_t n = 0;
    bool ok = true;

    switch (id) {
    case URL:
        o->url = v;
        return read_url(v, o);
    case CONNECTIONS:
        ok = read_count(v, 1, LOAD_CONNECTIONS_MAX, &n);
        o->connections = (uint32_t)n;
        return ok;
    case RATE:
        return read_rate(v, &o->rate);
    case DEPTH:
        ok = read_count(v, 1, LOAD_DEPTH_MAX, &n);
        o->depth = (uint32_t)n;
        return ok;
    case SIZE:
        ok = read_size(v, &n);
        o->size = (uint32_t)n;
        return ok;
    case DURATION:
        return read_duration(v, &o->duration_ns) && o->duration_ns > 0;
    case WARMUP:
        return read_duration(v, &o->warmup_ns);
    case THREADS:
        ok = read_count(v, 1, LOAD_THREADS_MAX, &n);
        o->threads = (uint32_t)n;
        return ok;
    case SOURCES:
        return read_sources(v, o);
    case PID:
        return read_pid(v, o);
    case JSON:
        o->json = v;
        return *v != '\0';
    case BROADCAST:
        o->broadcast = true;
        return true;
    case SLOW:
        ok = read_count(v, 1, LOAD_CONNECTIONS_MAX, &n);
        o->slow = (uint32_t)n;
        return ok;
    case TEXT:
        o->text = true;
        return true;
    case MASK_ZERO:
        o->mask_zero = true;
        return true;
    case COMPRESS:
        o->compress = true;
        return true;
    case SILENT:
        return read_share(v, &o->silent);
    case ACK_TIMEOUT:
        return read_duration(v, &o->ack_timeout_ns) && o->ack_timeout_ns > 0;
    case RECONNECT:
        return read_rate(v, &o->reconnect);
    case DRAIN:
        o->awaits_ends = true;
        return read_duration(v, &o->drain_ns);
    case MIX:
        return load_mix_read(v, &o->mix);
    case ROOM_SIZE:
        ok = read_count(v, 2, LOAD_ROOM_MAX, &n) && n % 2 == 0;
        o->room_size = (uint32_t)n;
        return ok;
    default:
        return true;
    }
}

/* ---- what only shows when all is known ---- */

static int check_sources(struct load_opts *o, struct rh_fault *fault)
{
    uint32_t all = o->connections + o->slow;
    uint32_t needed = (all + LOAD_PER_SOURCE - 1) / LOAD_PER_SOURCE;

    if (o->sources > 0) {
        if (o->target.at.ss_family != AF_INET)
            return rh_fault_set(fault, RH_EINVAL, "--source-addresses are IPv4, but --url is not");
        if (o->sources < needed)
            return rh_fault_set(fault, RH_EINVAL,
                                "%u connections need %u source addresses (at most %u each), "
                                "--source-addresses names %u",
                                all, needed, LOAD_PER_SOURCE, o->sources);
        return RH_OK;
    }
    if (needed > 1 && o->target.at.ss_family == AF_INET && rh_addr_loopback(&o->target)) {
        read_sources("127.0.0.2", o); /* loopback has plenty: take as many as it needs */
        o->sources = needed;
    }
    return RH_OK;
}

static int check_mode(struct load_opts *o, const bool given[IDS], struct rh_fault *fault)
{
    for (int i = 0; i < IDS; i++)
        if (given[i] && rows[i].messages && !o->mode->sends)
            return rh_fault_set(fault, RH_EINVAL, "%s has no meaning in mode %s, which sends none",
                                rows[i].name, o->mode->name);
    if (given[TEXT] && o->mode->users)
        return rh_fault_set(fault, RH_EINVAL, "--text is for mode echo; %s sends text anyway",
                            o->mode->name);
    for (int i = BROADCAST; i <= SLOW; i++)
        if (given[i] && !o->mode->fans_out)
            return rh_fault_set(fault, RH_EINVAL, "%s is for mode fanout", rows[i].name);
    for (int i = SILENT; i <= ROOM_SIZE; i++)
        if (given[i] && !(i >= MIX ? o->mode->mixes : o->mode->books))
            return rh_fault_set(fault, RH_EINVAL, "%s is for mode%s", rows[i].name,
                                i >= MIX ? " mixed" : "s ack and mixed");
    if (o->mode->books && o->size < LOAD_SIZE_MIN)
        return rh_fault_set(fault, RH_EINVAL,
                            "mode %s needs a --size of at least %d, to tell its messages apart",
                            o->mode->name, LOAD_SIZE_MIN);
    if (given[RATE] && given[DEPTH])
        return rh_fault_set(fault, RH_EINVAL,
                            "--rate (open loop) and --depth (closed loop) exclude each other");
    if (!given[CONNECTIONS])
        o->connections = o->mode->pairs ? 2 : 1;
    if (o->mode->pairs && o->connections % 2)
        return rh_fault_set(fault, RH_EINVAL,
                            "mode %s sends between pairs: --connections must be even",
                            o->mode->name);
    if (o->mode->books && !o->mode->mixes)
        load_mix_read("ack=1", &o->mix);
    if (o->mode->users && strstr(o->path, "user_id="))
        return rh_fault_set(fault, RH_EINVAL, "mode %s names its users itself: no user_id in --url",
                            o->mode->name);
    if ((o->mode->fans_out || o->mode->mixes) && strstr(o->path, "rooms="))
        return rh_fault_set(fault, RH_EINVAL, "mode %s names its room itself: no rooms in --url",
                            o->mode->name);
    if (o->threads > o->connections)
        return rh_fault_set(fault, RH_EINVAL, "--threads %u is more than there are connections",
                            o->threads);
    return RH_OK;
}

static int check(struct load_opts *o, const bool given[IDS], struct rh_fault *fault)
{
    int rc;

    if (!given[URL])
        return rh_fault_set(fault, RH_EINVAL, "--url is missing (ws://HOST:PORT/PATH)");
    rc = check_mode(o, given, fault);
    if (rc < 0)
        return rc;
    if (o->rate == 0 && o->depth == 0)
        o->depth = 1;
    return check_sources(o, fault);
}

/* ---- all of it ---- */

/* One argument and perhaps its value; returns how many were used, or RH_EINVAL. */
static int parse_one(char **arg, struct load_opts *o, bool given[IDS], struct rh_fault *fault)
{
    const char *equals = strchr(arg[0], '=');
    int id = find_option(arg[0], equals ? (size_t)(equals - arg[0]) : strlen(arg[0]));
    const char *value = equals ? equals + 1 : arg[1];

    if (id < 0)
        return rh_fault_set(fault, RH_EINVAL, "unknown option %s; --help lists all", arg[0]);
    if (given[id])
        return rh_fault_set(fault, RH_EINVAL, "%s is given twice", rows[id].name);
    if (!rows[id].takes && equals)
        return rh_fault_set(fault, RH_EINVAL, "%s takes no value", rows[id].name);
    if (rows[id].takes && !value)
        return rh_fault_set(fault, RH_EINVAL, "%s needs %s", rows[id].name, rows[id].wants);
    if (!set_option(o, (enum id)id, value))
        return rh_fault_set(fault, RH_EINVAL, "%s %s: this must be %s", rows[id].name, value,
                            rows[id].wants);
    given[id] = true;
    return rows[id].takes && !equals ? 2 : 1;
}

static int set_mode(struct load_opts *o, const char *name, struct rh_fault *fault)
{
    if (o->mode)
        return rh_fault_set(fault, RH_EINVAL, "one mode only: %s or %s?", o->mode->name, name);
    o->mode = load_mode_find(name);
    if (o->mode)
        return RH_OK;
    return rh_fault_set(fault, RH_EINVAL,
                        "unknown mode %s: connect, echo, send, fanout, ack or mixed", name);
}

int load_opts_parse(int argc, char **argv, struct load_opts *ret_opts, enum load_wish *ret_wish,
                    struct rh_fault *fault)
{
    struct load_opts o = {.size = 64,
                          .duration_ns = 10 * S,
                          .warmup_ns = 1 * S,
                          .drain_ns = LOAD_DRAIN_NS,
                          .ack_timeout_ns = 5 * S,
                          .room_size = 8};
    bool given[IDS] = {false};
    int rc;

    load_mix_read(DEFAULT_MIX, &o.mix);
    for (int i = 1; i < argc; i += rc) {
        if (argv[i][0] == '-') {
            rc = parse_one(&argv[i], &o, given, fault);
        } else {
            rc = set_mode(&o, argv[i], fault);
            rc = rc == RH_OK ? 1 : rc;
        }
        if (rc < 0)
            return rc;
    }
    *ret_wish = given[HELP] ? LOAD_HELP : given[VERSION] ? LOAD_VERSION : LOAD_RUN;
    if (*ret_wish != LOAD_RUN)
        return RH_OK;
    if (!o.mode)
        return rh_fault_set(fault, RH_EINVAL,
                            "a mode is missing: connect, echo, send, fanout, ack or mixed");
    rc = check(&o, given, fault);
    if (rc == RH_OK)
        *ret_opts = o;
    return rc;
}

void load_opts_help(FILE *to)
{
    fprintf(to, "ringhub-bench MODE --url ws://HOST:PORT/PATH [options]\n\n"
                "Modes:\n"
                "  connect   opens N connections, holds them, reports their rate and memory\n"
                "  echo      any WebSocket echo server\n"
                "  send      user to user through ringhub's /ws; connections are pairs\n"
                "  fanout    the first connection publishes, all of them receive\n"
                "  ack       as send, with acknowledged messages; exact books of each\n"
                "  mixed     a mixture of direct and room messages, plain and acknowledged, and\n"
                "            pings; connections may be cut off and come back\n\n"
                "Options:\n");
    for (int i = 0; i < IDS; i++)
        fprintf(to, "  %-18s %-6s %s\n", rows[i].name, rows[i].takes ? rows[i].takes : "",
                rows[i].help);
    fprintf(to, "\nExit status: 0 fine, 1 something was lost, reordered, corrupted, refused or\n"
                "broken, 2 wrong usage.\n");
}

bool load_opts_source(const struct load_opts *opts, uint32_t number, struct rh_addr *ret_addr)
{
    struct sockaddr_in *at = (struct sockaddr_in *)&ret_addr->at;

    if (opts->sources == 0)
        return false;
    *ret_addr = opts->source;
    at->sin_addr.s_addr = htonl(ntohl(at->sin_addr.s_addr) + number % opts->sources);
    return true;
}

void load_opts_source_text(const struct load_opts *opts, uint32_t number, char dst[RH_ADDR_TEXT])
{
    struct rh_addr addr = {.len = 0};

    load_opts_source(opts, number, &addr);
    inet_ntop(AF_INET, &((struct sockaddr_in *)&addr.at)->sin_addr, dst, RH_ADDR_TEXT);
}
