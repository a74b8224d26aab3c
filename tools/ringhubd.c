/* tools/ringhubd.c - the daemon: options, signals, and the hub as any embedder would run it.
 *
 * It uses nothing but core/ringhub.h. Configuration is built in the order in which a later source
 * wins: file, environment, options. Exit status: 0 done, 1 failed at run time, 2 wrong usage or
 * configuration.
 *
 * Signals are taken one by one with sigwaitinfo on the main thread: TERM and INT drain and stop, a
 * second one ends at once; USR1 reopens the log file; HUP reads the configuration anew, from the same
 * sources as at start.
 */
#include "core/ringhub.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_RUNTIME 1
#define EXIT_USAGE   2

static const char usage[] =
    "Usage: ringhubd [-c FILE] [--listen ADDR:PORT] [--shards N] [--set KEY=VALUE]...\n"
    "                [--check] [--version] [--help]\n"
    "\n"
    "  -c FILE              read the configuration from FILE (YAML)\n"
    "  --listen ADDR:PORT   listen there (default 127.0.0.1:8080; port 0: any free one)\n"
    "  --shards N           number of shards (default: one per CPU)\n"
    "  --set KEY=VALUE      set one key, such as limits.message_size=64KiB; the last one wins\n"
    "  --check              check the configuration and end\n"
    "  --version            print the version and end\n"
    "  --help               print this and end\n"
    "\n"
    "Environment variables such as RINGHUB_LIMITS__MESSAGE_SIZE override the file, options\n"
    "override both. docs/configuration.md lists all keys.\n";

struct options {
    struct rh_config *cfg;
    bool check_only;
    const char *file;
    char **argv;
};

static int fail(int status, const char *text)
{
    fprintf(stderr, "ringhubd: %s\n", text);
    return status;
}

/* ---- options ---- */

/* The value of an option: "--name=value" or the next argument. NULL: there is none. */
static const char *value_of(char **argv, int *i, size_t name_len)
{
    const char *arg = argv[*i];

    if (arg[name_len] == '=')
        return arg + name_len + 1;
    return argv[*i + 1] ? argv[++*i] : NULL;
}

static bool is_option(const char *arg, const char *name)
{
    size_t len = strlen(name);

    return strncmp(arg, name, len) == 0 && (arg[len] == '\0' || arg[len] == '=');
}

static int set_pair(struct rh_config *cfg, const char *pair, struct rh_fault *fault)
{
    const char *equals = strchr(pair, '=');
    char key[256];

    if (!equals || equals == pair || (size_t)(equals - pair) >= sizeof(key)) {
        snprintf(fault->text, sizeof(fault->text), "--set %.200s: KEY=VALUE is needed", pair);
        return RH_EINVAL;
    }
    memcpy(key, pair, (size_t)(equals - pair));
    key[equals - pair] = '\0';
    return rh_config_set(cfg, key, equals + 1, "--set", fault);
}

/* Options that set a key; 0 done, 1 not one of these, negative an error. */
static int key_option(struct options *o, char **argv, int *i, struct rh_fault *fault)
{
    static const struct {
        const char *name, *key;
    } keys[] = {{"--listen", "listen"}, {"--shards", "shards"}, {"--set", NULL}};

    for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
        const char *value;

        if (!is_option(argv[*i], keys[k].name))
            continue;
        value = value_of(argv, i, strlen(keys[k].name));
        if (!value) {
            snprintf(fault->text, sizeof(fault->text), "%s: a value is needed", keys[k].name);
            return RH_EINVAL;
        }
        return keys[k].key ? rh_config_set(o->cfg, keys[k].key, value, keys[k].name, fault)
                           : set_pair(o->cfg, value, fault);
    }
    return 1;
}

/* Before anything is read: what ends at once, and which file. -1: go on; else the exit status. */
static int early_options(struct options *o, char **argv)
{
    char text[256];

    for (int i = 1; argv[i]; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return fputs(usage, stdout) < 0 ? EXIT_RUNTIME : 0;
        if (!strcmp(argv[i], "--version"))
            return printf("ringhubd %s\n", rh_version()) < 0 ? EXIT_RUNTIME : 0;
        if (!strcmp(argv[i], "--check")) {
            o->check_only = true;
        } else if (!strcmp(argv[i], "-c") || is_option(argv[i], "--config")) {
            o->file = value_of(argv, &i, strlen(argv[i][1] == 'c' ? "-c" : "--config"));
            if (!o->file)
                return fail(EXIT_USAGE, "-c: a file is needed");
        } else if (is_option(argv[i], "--listen") || is_option(argv[i], "--shards") ||
                   is_option(argv[i], "--set")) {
            if (!strchr(argv[i], '=') && argv[i + 1])
                i++;
        } else {
            snprintf(text, sizeof(text), "unknown option %.200s (--help lists them)", argv[i]);
            return fail(EXIT_USAGE, text);
        }
    }
    return -1;
}

static int read_configuration(struct options *o, char **argv, struct rh_fault *fault)
{
    int rc = o->file ? rh_config_load_file(o->cfg, o->file, fault) : RH_OK;

    if (rc == RH_OK)
        rc = rh_config_load_env(o->cfg, environ, fault);
    for (int i = 1; rc >= 0 && argv[i]; i++) {
        if (!strcmp(argv[i], "-c") || !strcmp(argv[i], "--config"))
            i++;
        else
            rc = key_option(o, argv, &i, fault);
    }
    return rc < 0 ? rc : rh_config_check(o->cfg, fault);
}

/* ---- running ---- */

/* Connections are descriptors, and rings are locked memory: take as much as the system allows. */
static void raise_limit(int resource, const char *what)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resource, &limit) < 0)
        fprintf(stderr, "ringhubd: cannot raise the limit of %s: %s\n", what, strerror(errno));
}

static void announce(const struct rh_hub *hub)
{
    const char *first = rh_hub_address(hub, 0);
    const char *address;

    for (unsigned i = 0; (address = rh_hub_address(hub, i)); i++)
        printf("ringhub %s listens on http://%s\n", rh_version(), address);
    printf("Try it: /usr/bin/python3 -m websockets 'ws://%s/ws?user_id=alice'   "
           "(Debian: apt-get install python3-websockets)\n"
           "  and type: {\"type\":\"request\",\"event\":\"message.send\",\"request_id\":\"1\","
           "\"data\":{\"to\":\"alice\",\"content\":\"hello\"}}\n",
           first);
    fflush(stdout);
}

static void *stop_thread(void *arg)
{
    static int rc;

    rc = rh_hub_stop(arg);
    kill(getpid(), SIGUSR2); /* the main thread waits for signals: the hub has stopped */
    return &rc;
}

/* The file, the environment and the options again; what is wrong in them changes nothing. */
static void reload(struct rh_hub *hub, const struct options *o)
{
    struct options again = {.file = o->file, .argv = o->argv};
    struct rh_config_changes changes;
    struct rh_fault fault = {""};
    int rc = rh_config_create(&again.cfg);

    if (rc == RH_OK)
        rc = read_configuration(&again, o->argv, &fault);
    if (rc == RH_OK)
        rc = rh_hub_reload(hub, again.cfg, &changes, &fault);
    if (rc < 0)
        rh_hub_warn(hub, "config.reload_failed", fault.text[0] ? fault.text : rh_err_text(rc));
    rh_config_destroy(again.cfg);
}

/* Until the hub has stopped. A second TERM or INT does not wait for that. */
static void serve(struct rh_hub *hub, const struct options *o, const sigset_t *signals)
{
    pthread_t stopper;
    bool stopping = false;

    for (;;) {
        int sig = sigwaitinfo(signals, NULL);

        if (sig == SIGUSR1 && rh_hub_reopen_log(hub) < 0)
            fprintf(stderr, "ringhubd: the log file cannot be opened, the old one stays in use\n");
        if (sig == SIGHUP && !stopping)
            reload(hub, o);
        if (sig == SIGUSR2 && stopping)
            break;
        if (sig != SIGTERM && sig != SIGINT)
            continue;
        if (stopping)
            _exit(EXIT_RUNTIME);
        stopping = pthread_create(&stopper, NULL, stop_thread, hub) == 0;
        if (!stopping)
            _exit(EXIT_RUNTIME);
    }
    pthread_join(stopper, NULL);
}

static int run(const struct options *o, struct rh_fault *fault)
{
    struct rh_hub *hub = NULL;
    sigset_t signals;
    int rc;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of its write */
    raise_limit(RLIMIT_MEMLOCK, "locked memory");
    rc = rh_hub_create(o->cfg, &hub, fault);
    if (rc == RH_OK)
        rc = rh_hub_start(hub, fault);
    if (rc == RH_OK) {
        announce(hub);
        serve(hub, o, &signals);
    }
    rh_hub_destroy(hub);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = {.argv = argv};
    struct rh_fault fault = {""};
    int status = early_options(&o, argv);

    if (status >= 0)
        return status;
    if (rh_config_create(&o.cfg) < 0)
        return fail(EXIT_RUNTIME, "no memory");
    if (read_configuration(&o, argv, &fault) < 0)
        status = fail(EXIT_USAGE, fault.text);
    else if (getenv("LISTEN_FDS"))
        status = fail(EXIT_USAGE, "LISTEN_FDS: socket activation is not supported yet");
    else if (o.check_only)
        status = puts("the configuration is fine") < 0 ? EXIT_RUNTIME : 0;
    else
        status = run(&o, &fault) < 0 ? fail(EXIT_RUNTIME, fault.text) : 0;
    rh_config_destroy(o.cfg);
    return status;
}
