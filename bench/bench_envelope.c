/* bench/bench_envelope.c - what reading a client's message costs, and writing JSON text.
 *
 * Method  One thread, pinned. Each kind does its work many times over the same text (so the text is
 *         in the first-level cache, as it is when it has just been unmasked); wall time by the
 *         number of texts. The median, best and worst of several runs, kinds alternating, so that a
 *         noisy neighbour hits all of them. "scan" is the whole of rh_envelope_parse: everything
 *         validated, data included; "params" adds the members of a message.send. jansson parses the
 *         same text into its tree, as the yardstick. "hostile" is 1 MiB of short unknown members in
 *         the data, the worst that one message can make rh_params_read do.
 * Use     bench_envelope [runs] [texts in thousands]
 */
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "core/mem.h"
#include "proto/envelope.h"

#define RUNS_MAX 101
#define HOSTILE  (1u << 20)

static const char short_text[] =
    "{\"type\":\"request\",\"event\":\"message.send\",\"request_id\":\"42\","
    "\"data\":{\"to\":\"bob\",\"content\":\"hello, are you there?\"}}";

/* 190 bytes, as in the table of the stack's choice: nested data, numbers, an escape. */
static const char usual_text[] =
    "{\"type\":\"request\",\"event\":\"message.send\",\"request_id\":\"1742\","
    "\"data\":{\"to\":\"user-10442\",\"content\":{\"text\":\"Hi there,\\nhow are you today\","
    "\"n\":12.5,\"tags\":[\"a\",\"b\"]},\"ack\":true,\"ttl_ms\":60000}}";

_Static_assert(sizeof(usual_text) - 1 == 190, "the yardstick's length");

static char long_text[1100]; /* a content of 900 bytes of plain text */
static char *hostile_text;

static const struct rh_param rows[] = {
    RH_PARAM_ROW("to", STRING, true),      RH_PARAM_ROW("content", ANY, true),
    RH_PARAM_ROW("id", STRING, false),     RH_PARAM_ROW("ack", BOOL, false),
    RH_PARAM_ROW("ttl_ms", NUMBER, false), RH_PARAM_ROW("tags", ARRAY, false),
};

static uint64_t sum; /* of all results, so that nothing is optimised away */

static void scan(const char *text, size_t len)
{
    struct rh_envelope env;
    const char *why = NULL;

    if (rh_envelope_parse(text, len, &env, &why) < 0)
        abort();
    sum += env.data.raw.len + env.event.len;
}

static void params(const char *text, size_t len)
{
    struct rh_envelope env;
    struct rh_json out[RH_COUNT(rows)];
    const char *reason = NULL;
    char why[80];

    if (rh_envelope_parse(text, len, &env, &reason) < 0 ||
        rh_params_read(env.data, rows, RH_COUNT(rows), out, why, sizeof(why)) < 0)
        abort();
    sum += out[1].raw.len;
}

static void jansson(const char *text, size_t len)
{
    json_t *json = json_loadb(text, len, 0, NULL);

    if (!json)
        abort();
    sum += json_object_size(json);
    json_decref(json);
}

static void write_response(const char *text, size_t len)
{
    char mem[512];
    struct rh_writer w;

    rh_writer_init(&w, mem, sizeof(mem));
    RH_PUT(&w, "{\"type\":\"response\",\"request_id\":");
    rh_put_str(&w, (struct rh_span){text, (uint32_t)len});
    RH_PUT(&w, ",\"code\":200,\"message\":\"OK\",\"data\":{\"id\":");
    rh_put_str(&w, RH_SPAN("01HZX3T5J8Q6N4R2V0"));
    RH_PUT(&w, ",\"status\":\"sent\"},\"timestamp\":");
    rh_put_u64(&w, 1732190400123);
    RH_PUT(&w, ",\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}");
    sum += rh_writer_len(&w);
}

struct job {
    const char *name;
    void (*work)(const char *text, size_t len);
    const char *text;
    unsigned fewer; /* so many times fewer texts than asked for: slow ones */
    double ns[RUNS_MAX];
};

static struct job jobs[] = {
    {.name = "scan      short", .work = scan, .text = short_text, .fewer = 1},
    {.name = "params    short", .work = params, .text = short_text, .fewer = 1},
    {.name = "scan      190 B", .work = scan, .text = usual_text, .fewer = 1},
    {.name = "params    190 B", .work = params, .text = usual_text, .fewer = 1},
    {.name = "jansson   190 B", .work = jansson, .text = usual_text, .fewer = 10},
    {.name = "scan       1 KB", .work = scan, .text = long_text, .fewer = 1},
    {.name = "jansson    1 KB", .work = jansson, .text = long_text, .fewer = 10},
    {.name = "write response ", .work = write_response, .text = "1742", .fewer = 1},
    {.name = "scan    hostile", .work = scan, .fewer = 100000},
    {.name = "params  hostile", .work = params, .fewer = 100000},
};

static void make_texts(void)
{
    size_t at = (size_t)sprintf(long_text, "{\"type\":\"request\",\"event\":\"message.send\","
                                           "\"request_id\":\"7\",\"data\":{\"to\":\"bob\","
                                           "\"content\":\"");

    memset(long_text + at, 'x', 900);
    strcpy(long_text + at + 900, "\"}}");

    hostile_text = rh_mem_alloc(HOSTILE + 64);
    if (!hostile_text)
        abort();
    at = (size_t)sprintf(hostile_text, "{\"type\":\"request\",\"event\":\"message.send\","
                                       "\"data\":{\"to\":\"\",\"content\":0");
    for (unsigned i = 0; at < HOSTILE - 16; i++)
        at += (size_t)sprintf(hostile_text + at, ",\"%x\":0", i * 2654435761u >> 12);
    strcpy(hostile_text + at, "}}");
    for (size_t i = 0; i < RH_COUNT(jobs); i++) {
        if (!jobs[i].text)
            jobs[i].text = hostile_text;
    }
}

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double run(const struct job *job, uint64_t texts)
{
    size_t len = strlen(job->text);
    uint64_t times = RH_MAX(texts / job->fewer, 1);
    double start = now_ns();

    for (uint64_t i = 0; i < times; i++)
        job->work(job->text, len);
    return (now_ns() - start) / (double)times;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void pin(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();

    CPU_ZERO(&set);
    CPU_SET(cpu < 0 ? 0 : cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        perror("bench_envelope: sched_setaffinity");
}

int main(int argc, char *argv[])
{
    long runs = argc > 1 ? strtol(argv[1], NULL, 10) : 11;
    long thousands = argc > 2 ? strtol(argv[2], NULL, 10) : 200;
    struct utsname host;

    if (runs < 1 || runs > RUNS_MAX || thousands < 1) {
        fprintf(stderr, "use: bench_envelope [runs 1..%d] [texts in thousands]\n", RUNS_MAX);
        return 2;
    }
    pin();
    make_texts();
    uname(&host);
    printf("%s %s %s, %ld runs of %ld thousand texts, ns a text\n", host.sysname, host.release,
           host.machine, runs, thousands);
    printf("%-16s %9s %12s %12s %12s\n", "", "bytes", "median", "best", "worst");

    for (long r = 0; r < runs; r++) {
        for (size_t i = 0; i < RH_COUNT(jobs); i++)
            jobs[i].ns[r] = run(&jobs[i], (uint64_t)thousands * 1000);
    }
    for (size_t i = 0; i < RH_COUNT(jobs); i++) {
        qsort(jobs[i].ns, (size_t)runs, sizeof(double), compare);
        printf("%-16s %9zu %12.0f %12.0f %12.0f\n", jobs[i].name, strlen(jobs[i].text),
               jobs[i].ns[runs / 2], jobs[i].ns[0], jobs[i].ns[runs - 1]);
    }
    rh_mem_free(hostile_text);
    return sum == 0;
}
