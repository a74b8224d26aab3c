/* tools/load/main.c - ringhub-bench: puts load on a WebSocket server and checks every byte.
 *
 * Exit status: 0 all is well, 1 something was lost, reordered, corrupted, refused or broken (or the
 * run itself failed), 2 wrong usage.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/load/run.h"

/* Opened before the run: a name that cannot be written to is wrong usage, not a lost hour. */
static FILE *open_json(const char *name, struct rh_fault *fault)
{
    FILE *f = strcmp(name, "-") == 0 ? stdout : fopen(name, "we");

    if (!f)
        snprintf(fault->text, sizeof(fault->text), "--json %s: %s", name, strerror(errno));
    return f;
}

static int report(const struct load_result *r, FILE *json)
{
    bool bad = load_report_faults(r);

    if (json != stdout)
        load_report_print(r, stdout);
    if (json) {
        load_report_json(r, json);
        if (fflush(json) != 0 || ferror(json)) {
            fprintf(stderr, "ringhub-bench: writing %s failed\n", r->opts->json);
            bad = true;
        }
    }
    if (json && json != stdout)
        fclose(json);
    return bad ? 1 : 0;
}

static int wrong_usage(const struct rh_fault *fault)
{
    fprintf(stderr, "ringhub-bench: %s\n", fault->text);
    return 2;
}

int main(int argc, char **argv)
{
    static struct load_result result; /* large, and zeroed */
    struct load_opts opts;
    enum load_wish wish;
    struct rh_fault fault;
    FILE *json = NULL;
    int status = 1;

    if (load_opts_parse(argc, argv, &opts, &wish, &fault) < 0)
        return wrong_usage(&fault);
    if (wish == LOAD_HELP) {
        load_opts_help(stdout);
        return 0;
    }
    if (wish == LOAD_VERSION) {
        printf("ringhub-bench %s\n", rh_version());
        return 0;
    }
    if (load_run_files(&opts, &fault) < 0)
        return wrong_usage(&fault);
    if (opts.json && !(json = open_json(opts.json, &fault)))
        return wrong_usage(&fault);
    if (opts.connections + opts.slow > LOAD_PER_SOURCE && opts.sources == 0)
        fprintf(stderr,
                "ringhub-bench: over %d connections from one address: connecting will be slow "
                "(--source-addresses)\n",
                LOAD_PER_SOURCE);
    if (load_run(&opts, &result, &fault) == RH_OK)
        status = report(&result, json);
    else
        fprintf(stderr, "ringhub-bench: %s\n", fault.text);
    load_result_fini(&result);
    return status;
}
