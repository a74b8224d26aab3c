/* tests/core/test_stat.c - metrics: counting, and a page that Prometheus can read.
 *
 * Goal    every row of stat.def appears once, as the text format 0.0.4 wants it, summed over threads.
 * Method  a strict parser of the format, written from its description and not from our renderer:
 *         HELP and TYPE before samples, each metric in one piece, legal names, labels and numbers, no
 *         series twice, cumulative buckets that end in +Inf and agree with _count.
 */
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/stat.h"
#include "tests/rh_test.h"

#define SERIES_MAX 400

struct series {
    char name[160]; /* with labels, as written */
    double value;
};

struct metrics {
    struct series series[SERIES_MAX];
    size_t n;
    char families[SERIES_MAX][96];
    size_t n_families;
    char type[16]; /* of the family that we are in */
};

static char *page_of(struct rh_stats *const blocks[], unsigned n)
{
    char *text;
    char *copy;
    size_t len;

    RH_EQ_INT(rh_stat_render(blocks, n, &text, &len), 0);
    RH_OK_IF(len > 0 && text[len - 1] == '\n' && !memchr(text, 0, len));
    copy = calloc(1, len + 1);
    memcpy(copy, text, len);
    rh_mem_free(text);
    return copy;
}

/* [a-zA-Z_:][a-zA-Z0-9_:]* */
static size_t name_len(const char *at)
{
    size_t len = 0;

    while (isalpha((unsigned char)at[len]) || at[len] == '_' || at[len] == ':' ||
           (len > 0 && isdigit((unsigned char)at[len])))
        len++;
    return len;
}

static void parse_comment(struct metrics *m, const char *line)
{
    bool help = !strncmp(line, "# HELP ", 7);
    const char *name = line + 7;
    size_t len = name_len(name);

    RH_OK_IF(help || !strncmp(line, "# TYPE ", 7));
    RH_OK_IF(len > 0 && len < 90 && name[len] == ' ' && name[len + 1]);
    if (help) {
        for (size_t i = 0; i < m->n_families; i++)
            ck_assert_msg(strncmp(m->families[i], name, len) || m->families[i][len],
                          "metric twice: %s", line);
        snprintf(m->families[m->n_families++], 96, "%.*s", (int)len, name);
        m->type[0] = '\0';
        RH_OK_IF(!strchr(line, '\\'));
        return;
    }
    RH_OK_IF(m->n_families > 0 && !m->type[0]); /* TYPE follows its HELP, once */
    RH_OK_IF(!strncmp(m->families[m->n_families - 1], name, len));
    snprintf(m->type, sizeof(m->type), "%s", name + len + 1);
    RH_OK_IF(!strcmp(m->type, "counter") || !strcmp(m->type, "gauge") ||
             !strcmp(m->type, "histogram"));
}

static void parse_sample(struct metrics *m, const char *line)
{
    const char *family = m->families[m->n_families - 1];
    size_t len = name_len(line);
    const char *at = line + len;
    struct series *s = &m->series[m->n++];
    char *end;

    RH_OK_IF(m->n_families > 0 && m->type[0] && m->n < SERIES_MAX && len > 0);
    if (!strcmp(m->type, "histogram")) {
        size_t stem = strlen(family);

        RH_OK_IF(!strncmp(line, family, stem));
        RH_OK_IF(!strncmp(line + stem, "_bucket{le=\"", 12) || !strncmp(line + stem, "_sum ", 5) ||
                 !strncmp(line + stem, "_count ", 7));
    } else {
        RH_OK_IF(strlen(family) == len && !strncmp(line, family, len));
        RH_EQ_INT(!strcmp(m->type, "counter"), len > 6 && !strncmp(line + len - 6, "_total", 6));
    }
    if (*at == '{') {
        size_t label = name_len(++at);

        RH_OK_IF(label > 0 && at[label] == '=' && at[label + 1] == '"');
        at += label + 2;
        at += strcspn(at, "\"\\");
        RH_OK_IF(at[0] == '"' && at[1] == '}');
        at += 2;
    }
    RH_OK_IF(*at == ' ');
    RH_OK_IF(at[1] == '-' || isdigit((unsigned char)at[1]));
    snprintf(s->name, sizeof(s->name), "%.*s", (int)(at - line), line);
    s->value = strtod(at + 1, &end);
    RH_OK_IF(*end == '\0');
    RH_OK_IF(s->value >= 0 || !strcmp(m->type, "gauge"));
    for (size_t i = 0; i + 1 < m->n; i++)
        ck_assert_msg(strcmp(m->series[i].name, s->name) != 0, "series twice: %s", line);
}

static struct metrics *parse(char *page)
{
    struct metrics *m = calloc(1, sizeof(*m));
    char *rest;

    for (char *line = strtok_r(page, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (*line == '#')
            parse_comment(m, line);
        else
            parse_sample(m, line);
    }
    free(page);
    return m;
}

static double value(const struct metrics *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->series[i].name, name))
            return m->series[i].value;
    ck_abort_msg("no series %s", name);
    return 0;
}

RH_TEST(stat, a_page_of_nothing_has_every_metric_at_zero)
{
    static struct rh_stats stats;
    struct rh_stats *const blocks[] = {&stats};
    struct metrics *m = parse(page_of(blocks, 1));

    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->series[i].name, "ringhub_memory_bytes") != 0 &&
            strcmp(m->series[i].name, "ringhub_build_info{version=\"" RH_VERSION "\"}") != 0)
            ck_assert_msg(m->series[i].value == 0, "%s", m->series[i].name);
    RH_EQ_INT((int)value(m, "ringhub_build_info{version=\"" RH_VERSION "\"}"), 1);
    RH_OK_IF(m->n > RH_STATS);
    free(m);
    free(parse(page_of(NULL, 0))); /* no thread yet */
}

/* The names that the contract fixes and that this version counts. */
RH_TEST(stat, the_names_of_the_contract_are_there)
{
    static const char *const names[] = {
        "ringhub_connections{transport=\"websocket\"}",
        "ringhub_users",
        "ringhub_connections_accepted_total",
        "ringhub_connections_refused_total{cause=\"full\"}",
        "ringhub_connections_refused_total{cause=\"malformed\"}",
        "ringhub_disconnects_total{code=\"1001\"}",
        "ringhub_disconnects_total{code=\"4410\"}",
        "ringhub_disconnects_total{code=\"other\"}",
        "ringhub_messages_received_total",
        "ringhub_messages_sent_total",
        "ringhub_messages_delivered_total",
        "ringhub_messages_dropped_total{reason=\"slow_consumer\"}",
        "ringhub_messages_invalid_total",
        "ringhub_acks_total{result=\"settled\"}",
        "ringhub_acks_total{result=\"late\"}",
        "ringhub_acks_total{result=\"unknown\"}",
        "ringhub_failures_total{class=\"general\"}",
        "ringhub_failures_total{class=\"queue_full\"}",
        "ringhub_failures_total{class=\"user_offline\"}",
        "ringhub_failures_total{class=\"conn_error\"}",
        "ringhub_failures_total{class=\"timeout\"}",
        "ringhub_paused_reads_total{cause=\"credit\"}",
        "ringhub_delivery_seconds_count",
    };
    static struct rh_stats stats;
    struct rh_stats *const blocks[] = {&stats};
    struct metrics *m = parse(page_of(blocks, 1));

    for (size_t i = 0; i < RH_COUNT(names); i++)
        RH_EQ_INT((int)value(m, names[i]), 0);
    free(m);
}

RH_TEST(stat, each_number_appears_as_its_own_series)
{
    static struct rh_stats stats;
    struct rh_stats *const blocks[] = {&stats};
    struct metrics *m;
    uint64_t seen[RH_STATS + 1] = {0};

    for (unsigned i = 0; i < RH_STATS; i++)
        rh_stat_set(&stats, i, 1000 + i);
    m = parse(page_of(blocks, 1));
    for (size_t i = 0; i < m->n; i++)
        if (m->series[i].value >= 1000 && m->series[i].value < 1000 + RH_STATS)
            seen[(size_t)m->series[i].value - 1000]++;
    for (unsigned i = 0; i < RH_STATS; i++)
        RH_EQ_U64(seen[i], 1);
    RH_EQ_INT((int)value(m, "ringhub_messages_sent_total"), 1000 + RH_STAT_messages_sent);
    RH_EQ_INT((int)value(m, "ringhub_disconnects_total{code=\"1009\"}"),
              1000 + RH_STAT_disconnects_1009);
    free(m);
}

RH_TEST(stat, threads_are_added_up_and_a_gauge_may_be_negative_in_one)
{
    static struct rh_stats a;
    static struct rh_stats b;
    struct rh_stats *const blocks[] = {&a, &b};
    struct metrics *m;

    rh_stat_add(&a, RH_STAT_users, 5);
    rh_stat_sub(&b, RH_STAT_users, 2);
    rh_stat_add(&a, RH_STAT_messages_sent, UINT64_C(1) << 40);
    rh_stat_inc(&b, RH_STAT_messages_sent);
    RH_EQ_INT(rh_stat_sum(blocks, 2, RH_STAT_users), 3);
    RH_EQ_INT(rh_stat_sum(blocks + 1, 1, RH_STAT_users), -2);
    m = parse(page_of(blocks, 2));
    RH_EQ_INT((int)value(m, "ringhub_users"), 3);
    RH_OK_IF(value(m, "ringhub_messages_sent_total") == (double)(UINT64_C(1) << 40) + 1);
    free(m);
    m = parse(page_of(blocks + 1, 1));
    RH_EQ_INT((int)value(m, "ringhub_users"), -2);
    free(m);
}

RH_TEST(stat, a_duration_counts_in_its_bucket_and_in_all_above)
{
    static const char *const bounds[] = {
        "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
        "0.05",    "0.1",    "0.25",    "0.5",    "1",     "2.5",    "5",     "10",   "+Inf"};
    static const struct {
        uint64_t ns;
        size_t bucket;
    } cases[] = {
        {0, 0},       {49999, 0},   {50000, 0},         {50001, 1},         {100000, 1},
        {1000000, 4}, {1000001, 5}, {10000000000u, 16}, {10000000001u, 17}, {UINT64_MAX / 2, 17}};

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        struct rh_stats stats = {.times = {{.rest_ns = 0}}};
        struct rh_stats *const blocks[] = {&stats};
        struct metrics *m;
        char name[96];

        rh_stat_observe(&stats, RH_HIST_delivery, cases[i].ns);
        m = parse(page_of(blocks, 1));
        for (size_t k = 0; k < RH_COUNT(bounds); k++) {
            snprintf(name, sizeof(name), "ringhub_delivery_seconds_bucket{le=\"%s\"}", bounds[k]);
            RH_EQ_INT((int)value(m, name), k >= cases[i].bucket);
        }
        RH_EQ_INT((int)value(m, "ringhub_delivery_seconds_count"), 1);
        free(m);
    }
}

RH_TEST(stat, the_sum_of_durations_loses_nothing_below_a_microsecond)
{
    static struct rh_stats a;
    static struct rh_stats b;
    struct rh_stats *const blocks[] = {&a, &b};
    struct metrics *m;

    for (int i = 0; i < 1000; i++)
        rh_stat_observe(&a, RH_HIST_delivery, 1999);
    rh_stat_observe(&b, RH_HIST_delivery, 2500000000u);
    m = parse(page_of(blocks, 2));
    RH_OK_IF(value(m, "ringhub_delivery_seconds_sum") == 2.501999);
    RH_EQ_INT((int)value(m, "ringhub_delivery_seconds_count"), 1001);
    RH_EQ_INT((int)value(m, "ringhub_delivery_seconds_bucket{le=\"0.00005\"}"), 1000);
    RH_EQ_INT((int)value(m, "ringhub_delivery_seconds_bucket{le=\"1\"}"), 1000);
    RH_EQ_INT((int)value(m, "ringhub_delivery_seconds_bucket{le=\"2.5\"}"), 1001);
    free(m);
}

RH_TEST(stat, close_codes_find_their_row)
{
    RH_EQ_INT(rh_stat_disconnects(1000), RH_STAT_disconnects_1000);
    RH_EQ_INT(rh_stat_disconnects(1006), RH_STAT_disconnects_1006);
    RH_EQ_INT(rh_stat_disconnects(4429), RH_STAT_disconnects_4429);
    RH_EQ_INT(rh_stat_disconnects(0), RH_STAT_disconnects_other);
    RH_EQ_INT(rh_stat_disconnects(1004), RH_STAT_disconnects_other);
    RH_EQ_INT(rh_stat_disconnects(4999), RH_STAT_disconnects_other);
}

static void render(void *arg)
{
    static struct rh_stats stats;
    struct rh_stats *const blocks[] = {&stats};
    char *text = NULL;
    size_t len;
    int rc = rh_stat_render(blocks, 1, &text, &len);

    RH_OK_IF(rc == (rh_mem_fail_left() ? 0 : RH_ENOMEM));
    rh_mem_free(text);
}

RH_TEST(stat, a_page_without_memory_is_an_error)
{
    rh_test_fail_each_alloc(render, NULL);
}

#define COUNTED 200000

static void *count(void *arg)
{
    for (int i = 0; i < COUNTED; i++) {
        rh_stat_inc(arg, RH_STAT_messages_sent);
        rh_stat_observe(arg, RH_HIST_delivery, (uint64_t)i * 100);
    }
    return NULL;
}

RH_TEST(stat, a_page_rendered_while_a_thread_counts_never_contradicts_itself)
{
    static struct rh_stats stats;
    struct rh_stats *const blocks[] = {&stats};
    double before = 0;
    pthread_t thread;
    struct metrics *m;

    RH_EQ_INT(pthread_create(&thread, NULL, count, &stats), 0);
    do {
        double last = 0;
        double sent;

        m = parse(page_of(blocks, 1));
        for (size_t i = 0; i < m->n; i++) {
            if (strncmp(m->series[i].name, "ringhub_delivery_seconds_bucket", 31) != 0)
                continue;
            RH_OK_IF(m->series[i].value >= last);
            last = m->series[i].value;
        }
        RH_OK_IF(last == value(m, "ringhub_delivery_seconds_count"));
        sent = value(m, "ringhub_messages_sent_total");
        RH_OK_IF(sent >= before);
        before = sent;
        free(m);
    } while (before < COUNTED);
    pthread_join(thread, NULL);
    RH_EQ_INT(rh_stat_sum(blocks, 1, RH_STAT_messages_sent), COUNTED);
}
