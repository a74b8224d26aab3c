/* tests/core/test_log.c - log lines: their form for any contents, their way to the file, their losses.
 *
 * Goal    every line is one valid JSON object (or one line of words), whatever was logged; a thread
 *         with a ring never waits for the file; what is lost is counted and told.
 * Method  lines are read back from a real file and parsed by Jansson, which is strict about UTF-8. A
 *         FIFO that nobody reads stands for a disk that hangs.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/log_int.h"
#include "core/mem.h"
#include "tests/rh_test.h"

static struct rh_fault fault;
static char dir[] = "/tmp/rh_log_XXXXXX";
static char path[64];

static void begin(enum rh_log_level level, enum rh_log_format format)
{
    RH_OK_IF(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/log", dir);
    ck_assert_msg(rh_log_start(level, format, path, &fault) == 0, "%s", fault.text);
}

/* Stops the log and gives back what the file has. */
static char *end(void)
{
    char *text = calloc(1, 8 << 20);
    FILE *file;

    rh_log_stop();
    file = fopen(path, "r");
    RH_OK_IF(file != NULL);
    RH_OK_IF(fread(text, 1, (8 << 20) - 1, file) < (8 << 20) - 1);
    fclose(file);
    unlink(path);
    rmdir(dir);
    return text;
}

static json_t *parse(const char *at, size_t len)
{
    json_error_t error;
    json_t *line = json_loadb(at, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);

    ck_assert_msg(line != NULL, "%s in %.*s", error.text, (int)len, at);
    return line;
}

static json_t *format(const struct rh_log_kv *kv, size_t n)
{
    struct rh_log_line line;

    rh_log_format(&line, RH_LOG_JSON, 0, RH_LOG_WARN, 0, 0, kv, n);
    RH_OK_IF(line.len <= RH_LOG_LINE && line.at[line.len - 1] == '\n');
    RH_OK_IF(memchr(line.at, '\n', line.len) == line.at + line.len - 1);
    return parse(line.at, line.len);
}

static const char *text_of(enum rh_log_format as, uint64_t wall_us, const struct rh_log_kv *kv,
                           size_t n)
{
    static struct rh_log_line line;

    rh_log_format(&line, as, wall_us, RH_LOG_INFO, 0, 0, kv, n);
    line.at[line.len] = '\0';
    return line.at;
}

/* ---- the form of a line --------------------------------------------------------------------- */

RH_TEST(log, a_line_of_json_and_the_same_in_words)
{
    const struct rh_log_kv kv[] = {RH_KS("event", "shard.started"),
                                   RH_KU("shard", 0),
                                   RH_KI("delta", -5),
                                   RH_KS("who", "a b"),
                                   RH_KS("plain", "x:1/y"),
                                   RH_KSPAN("span", RH_SPAN("q\"")),
                                   RH_KS("none", NULL)};

    RH_EQ_STR(text_of(RH_LOG_JSON, 1795262400123456u, kv, RH_COUNT(kv)),
              "{\"time\":\"2026-11-21T12:00:00.123Z\",\"level\":\"info\",\"event\":"
              "\"shard.started\",\"shard\":0,\"delta\":-5,\"who\":\"a b\",\"plain\":\"x:1/y\","
              "\"span\":\"q\\\"\",\"none\":\"\"}\n");
    RH_EQ_STR(text_of(RH_LOG_TEXT, 1795262400123456u, kv, RH_COUNT(kv)),
              "2026-11-21T12:00:00.123Z info shard.started shard=0 delta=-5 who=\"a b\" "
              "plain=x:1/y span=\"q\\\"\" none=\"\"\n");
}

RH_TEST(log, the_time_agrees_with_the_c_library)
{
    const struct rh_log_kv kv[] = {RH_KS("event", "e")};

    for (int i = 0; i < 20000; i++) {
        time_t at =
            i < 10000 ? (time_t)i * 86400 * 4 + i : (time_t)(rh_test_rand() % 253402300800u);
        char want[64];
        struct tm tm;

        gmtime_r(&at, &tm);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.999Z info e\n", &tm);
        RH_EQ_STR(text_of(RH_LOG_TEXT, (uint64_t)at * 1000000 + 999999, kv, 1), want);
    }
}

RH_TEST(log, any_bytes_come_back_or_become_the_replacement_character)
{
    static const struct {
        const char *bytes, *back;
    } cases[] = {
        {"\"\\/\b\f\n\r\t\x01\x1f\x7f", "\"\\/\b\f\n\r\t\x01\x1f\x7f"},
        {"h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xc2\x85\xc2\x9b", "\xc2\x85\xc2\x9b"},
        {"\xff", "\xef\xbf\xbd"},
        {"a\xc3", "a\xef\xbf\xbd"},
        {"\xc3(", "\xef\xbf\xbd("},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* over-long */
        {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* over-long */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* too high */
        {"\xf0\x9f\x98", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        size_t len = strlen(cases[i].bytes);
        const char *bytes = (const char *)rh_guard(cases[i].bytes, len);
        const struct rh_log_kv kv[] = {RH_KS("event", "e"),
                                       RH_KSPAN("v", ((struct rh_span){bytes, (uint32_t)len}))};
        json_t *line = format(kv, 2);

        RH_EQ_STR(json_string_value(json_object_get(line, "v")), cases[i].back);
        json_decref(line);
    }
}

RH_TEST(log, random_bytes_never_break_a_line)
{
    for (int run = 0; run < 20000; run++) {
        uint8_t bytes[1200];
        size_t len = rh_test_rand() % (run % 2 ? 40 : sizeof(bytes));
        struct rh_log_kv kv[] = {RH_KS("event", "e"), RH_KSPAN("v", ((struct rh_span){0})),
                                 RH_KU("n", INT64_MAX), RH_KI("i", INT64_MIN)};
        const char *words;

        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)(run % 3 ? rh_test_rand() : 0xc0 + rh_test_rand() % 0x40);
        kv[1].as.span = (struct rh_span){(char *)bytes, (uint32_t)len};
        json_decref(format(kv, RH_COUNT(kv)));
        words = text_of(RH_LOG_TEXT, 0, kv, RH_COUNT(kv));
        RH_OK_IF(strchr(words, '\n') == words + strlen(words) - 1);
    }
}

RH_TEST(log, a_long_line_is_cut_and_stays_valid)
{
    char value[2000];

    memset(value, 'x', sizeof(value));
    for (size_t len = 0; len < sizeof(value); len++) {
        const struct rh_log_kv kv[] = {RH_KS("event", "e"),
                                       RH_KSPAN("v", ((struct rh_span){value, (uint32_t)len})),
                                       RH_KU("n", 12345), RH_KS("last", "\xff\xff")};
        json_t *line = format(kv, RH_COUNT(kv));
        bool cut = json_is_true(json_object_get(line, "cut"));
        bool whole = json_object_get(line, "n") && json_object_get(line, "last") &&
                     strlen(json_string_value(json_object_get(line, "last"))) == 6 &&
                     strlen(json_string_value(json_object_get(line, "v"))) == len;

        RH_EQ_INT(cut, !whole);
        RH_OK_IF(len > 900 || !cut);
        json_decref(line);
    }
}

/* ---- the way to the file -------------------------------------------------------------------- */

RH_TEST(log, lines_below_the_level_are_not_even_evaluated)
{
    int evaluated = 0;
    char *text;

    begin(RH_LOG_WARN, RH_LOG_TEXT);
    rh_log(RH_LOG_DEBUG, "no", RH_KU("n", (uint64_t)++evaluated));
    rh_log(RH_LOG_INFO, "no", RH_KU("n", (uint64_t)++evaluated));
    RH_EQ_INT(evaluated, 0);
    rh_log(RH_LOG_WARN, "yes", RH_KU("n", (uint64_t)++evaluated));
    rh_log(RH_LOG_ERROR, "bare");
    text = end();
    RH_EQ_INT(evaluated, 1);
    RH_OK_IF(!strncmp(text + 24, " warn yes n=1\n", 14));
    RH_OK_IF(strstr(text, " error bare\n"));
    free(text);
}

RH_TEST(log, the_level_can_be_changed_while_it_runs)
{
    char *text;

    begin(RH_LOG_WARN, RH_LOG_TEXT);
    rh_log(RH_LOG_DEBUG, "one");
    rh_log_set_level_any(RH_LOG_DEBUG);
    rh_log(RH_LOG_DEBUG, "two");
    rh_log_set_level_any(RH_LOG_ERROR);
    rh_log(RH_LOG_WARN, "three");
    rh_log(RH_LOG_ERROR, "four");
    text = end();
    RH_OK_IF(!strncmp(text + 24, " debug two\n", 11));
    RH_OK_IF(strstr(text, " error four\n"));
    RH_OK_IF(!strstr(text, "one") && !strstr(text, "three"));
    free(text);
}

#define THREADS 4
#define LINES   500

static void *log_much(void *arg)
{
    uint64_t thread = (uint64_t)(uintptr_t)arg;

    RH_EQ_INT(rh_log_thread_init(), 0);
    for (uint64_t i = 0; i < LINES; i++)
        rh_log(RH_LOG_INFO, "line", RH_KU("thread", thread), RH_KU("i", i));
    rh_log_thread_fini();
    return NULL;
}

RH_TEST(log, lines_of_many_threads_arrive_whole_and_in_each_threads_order)
{
    uint64_t next[THREADS + 1] = {0};
    pthread_t threads[THREADS];
    char *text;

    begin(RH_LOG_INFO, RH_LOG_JSON);
    for (uintptr_t t = 0; t < THREADS; t++)
        RH_EQ_INT(pthread_create(&threads[t], NULL, log_much, (void *)t), 0);
    for (uint64_t i = 0; i < LINES; i++) /* this one has no ring */
        rh_log(RH_LOG_INFO, "line", RH_KU("thread", THREADS), RH_KU("i", i));
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    text = end();
    for (char *at = text; *at; at = strchr(at, '\n') + 1) {
        json_t *line = parse(at, strcspn(at, "\n"));
        int64_t thread = json_integer_value(json_object_get(line, "thread"));

        RH_EQ_INT(json_integer_value(json_object_get(line, "i")), (int64_t)next[thread]++);
        json_decref(line);
    }
    for (int t = 0; t <= THREADS; t++)
        RH_EQ_U64(next[t], LINES);
    RH_EQ_U64(rh_log_dropped_any(), 0);
    free(text);
}

RH_TEST(log, a_sleeping_log_thread_is_woken_at_once)
{
    char *text;

    begin(RH_LOG_INFO, RH_LOG_TEXT);
    RH_EQ_INT(rh_log_thread_init(), 0);
    for (int i = 0; i < 20; i++) {
        struct timespec start;
        struct timespec now;
        struct stat before;
        struct stat st;

        usleep(5000); /* it sleeps by then */
        RH_EQ_INT(stat(path, &before), 0);
        clock_gettime(CLOCK_MONOTONIC, &start);
        rh_log(RH_LOG_INFO, "tick");
        do {
            usleep(200);
            RH_EQ_INT(stat(path, &st), 0);
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while (st.st_size == before.st_size && now.tv_sec - start.tv_sec < 5);
        RH_OK_IF(st.st_size > before.st_size);
        /* its own time-out is a second: twenty of these would take twenty */
        RH_OK_IF((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 <
                 500);
    }
    rh_log_thread_fini();
    text = end();
    free(text);
}

/* A file that hangs: the FIFO is full, nobody reads. */
RH_TEST(log, a_file_that_hangs_stops_no_thread_and_the_loss_is_told)
{
    char *text = calloc(1, 8 << 20);
    size_t len = 0;
    uint64_t dropped;
    const char *told;
    int fd;

    RH_OK_IF(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/log", dir);
    RH_EQ_INT(mkfifo(path, 0600), 0);
    fd = open(path, O_RDWR | O_NONBLOCK);
    RH_OK_IF(fd >= 0);
    RH_EQ_INT(rh_log_start(RH_LOG_INFO, RH_LOG_JSON, path, &fault), 0);
    RH_EQ_INT(rh_log_thread_init(), 0);
    for (int i = 0; i < 10000; i++) /* 700 KB, and the FIFO takes 64 */
        rh_log(RH_LOG_INFO, "flood", RH_KI("i", i));
    dropped = rh_log_dropped_any();
    RH_OK_IF(dropped > 1000 && dropped < 10000);

    for (int idle = 0; idle < 100;) { /* the file works again */
        ssize_t n = read(fd, text + len, (8 << 20) - 1 - len);

        idle = n > 0 ? 0 : idle + 1;
        len += n > 0 ? (size_t)n : 0;
        usleep(n > 0 ? 0 : 1000);
    }
    rh_log(RH_LOG_INFO, "after");
    rh_log(RH_LOG_INFO, "later");
    rh_log_thread_fini();
    rh_log_stop();
    len += (size_t)read(fd, text + len, (8 << 20) - 1 - len);
    RH_EQ_U64(rh_log_dropped_any(), dropped);
    told = strstr(text, "\"event\":\"after\",\"lost\":");
    RH_OK_IF(told && strtoull(told + 23, NULL, 10) <= dropped);
    RH_OK_IF(strstr(told, "\"event\":\"later\"}\n"));

    uint64_t lines = 0;
    uint64_t lost = 0;
    for (char *at = text; *at; at = strchr(at, '\n') + 1) {
        json_t *line = parse(at, strcspn(at, "\n"));

        lines++;
        lost += (uint64_t)json_integer_value(json_object_get(line, "lost"));
        json_decref(line);
    }
    RH_EQ_U64(lost, dropped);          /* every loss is told once */
    RH_EQ_U64(lines, 10002 - dropped); /* and every other line is there */
    close(fd);
    unlink(path);
    rmdir(dir);
    free(text);
}

RH_TEST(log, a_moved_file_is_left_behind_by_reopen)
{
    char moved[72];
    struct stat st;
    char *text;

    begin(RH_LOG_INFO, RH_LOG_TEXT);
    rh_log(RH_LOG_INFO, "before");
    snprintf(moved, sizeof(moved), "%s.1", path);
    RH_EQ_INT(rename(path, moved), 0);
    rh_log(RH_LOG_INFO, "between");
    RH_EQ_INT(rh_log_reopen(), 0);
    rh_log(RH_LOG_INFO, "behind");
    RH_EQ_INT(stat(moved, &st), 0);
    RH_EQ_INT(unlink(moved), 0);
    text = end();
    RH_OK_IF(strstr(text, "behind") && !strstr(text, "before") && !strstr(text, "between"));
    free(text);
}

RH_TEST(log, a_reopen_that_fails_keeps_the_old_file)
{
    char moved[72];

    begin(RH_LOG_INFO, RH_LOG_TEXT);
    snprintf(moved, sizeof(moved), "%s.1", path);
    RH_EQ_INT(rename(path, moved), 0);
    RH_EQ_INT(mkdir(path, 0700), 0);
    RH_EQ_INT(rh_log_reopen(), RH_EIO);
    rh_log(RH_LOG_INFO, "still");
    RH_EQ_INT(rmdir(path), 0);
    RH_EQ_INT(rename(moved, path), 0);
    char *text = end();
    RH_OK_IF(strstr(text, "still"));
    free(text);
}

RH_TEST(log, start_says_what_is_wrong)
{
    RH_EQ_INT(rh_log_start(RH_LOG_INFO, RH_LOG_JSON, "/nonexistent/x", &fault), RH_EIO);
    RH_EQ_STR(fault.text, "log.file: cannot open /nonexistent/x: No such file or directory");
    begin(RH_LOG_INFO, RH_LOG_JSON);
    RH_EQ_INT(rh_log_start(RH_LOG_INFO, RH_LOG_JSON, "", &fault), RH_ESTATE);
    free(end());
    rh_log_stop(); /* may come twice */
}

/* Standard error into a file. */
static int stderr_to(const char *file)
{
    int saved = dup(STDERR_FILENO);
    int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);

    RH_OK_IF(saved >= 0 && fd >= 0);
    dup2(fd, STDERR_FILENO);
    close(fd);
    return saved;
}

RH_TEST(log, before_start_and_after_stop_lines_go_to_standard_error)
{
    char *text = calloc(1, 4096);
    const char *second;
    int saved;

    RH_OK_IF(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/log", dir);
    saved = stderr_to(path);
    RH_EQ_INT(rh_log_reopen(), 0);
    rh_log(RH_LOG_INFO, "one");
    RH_EQ_INT(rh_log_thread_init(), 0); /* a ring that nobody empties yet is not used */
    rh_log(RH_LOG_INFO, "two");
    RH_EQ_INT(rh_log_start(RH_LOG_INFO, RH_LOG_JSON, "", NULL), 0);
    RH_EQ_INT(rh_log_reopen(), 0);
    rh_log(RH_LOG_INFO, "three");
    rh_log_stop();
    rh_log(RH_LOG_INFO, "four");
    rh_log_thread_fini();
    rh_log_thread_fini();
    RH_OK_IF(pread(STDERR_FILENO, text, 4095, 0) > 0);
    dup2(saved, STDERR_FILENO);
    close(saved);
    second = strstr(text, "\"two\"");
    RH_OK_IF(strstr(text, "\"one\"") && second && strstr(second, "\"three\""));
    RH_OK_IF(strstr(strstr(second, "\"three\""), "\"four\""));
    unlink(path);
    rmdir(dir);
    free(text);
}

RH_TEST(log, one_place_logs_so_many_lines_a_second_and_tells_the_rest)
{
    uint64_t lines = 0;
    uint64_t told = 0;
    char *text;

    begin(RH_LOG_INFO, RH_LOG_JSON);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 1000; k++)
            RH_LOG_EVERY(5, i < 2 ? RH_LOG_INFO : RH_LOG_WARN, "often", RH_KI("k", k));
        usleep(i == 1 ? 1100000 : 0); /* into another second */
    }
    text = end();
    for (char *at = text; *at; at = strchr(at, '\n') + 1) {
        json_t *line = parse(at, strcspn(at, "\n"));

        lines++;
        told += (uint64_t)json_integer_value(json_object_get(line, "suppressed"));
        json_decref(line);
    }
    RH_OK_IF(lines >= 10 && lines <= 20); /* two seconds, or three and a bit at the borders */
    RH_OK_IF(told >= 1980 && told + lines <= 3000);
    free(text);
}

static void log_without_memory(void *arg)
{
    int rc = rh_log_start(RH_LOG_INFO, RH_LOG_TEXT, path, &fault);
    int ring;

    RH_OK_IF(rc == 0 || rc == RH_ENOMEM);
    ring = rh_log_thread_init();
    RH_OK_IF(ring == 0 || ring == RH_ENOMEM);
    rh_log(RH_LOG_INFO, "line");
    rh_log(RH_LOG_INFO, "line");
    rh_log_thread_fini();
    rh_log_stop();
}

RH_TEST(log, missing_memory_loses_lines_and_nothing_else)
{
    int saved;

    RH_OK_IF(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/log", dir);
    saved = stderr_to("/dev/null");
    rh_test_fail_each_alloc(log_without_memory, NULL);
    dup2(saved, STDERR_FILENO);
    close(saved);
    RH_EQ_U64(rh_log_dropped_any(), 2); /* the copies of two lines, once each */
    unlink(path);
    rmdir(dir);
}

RH_TEST(log, a_full_disk_is_counted)
{
    RH_EQ_INT(rh_log_start(RH_LOG_INFO, RH_LOG_JSON, "/dev/full", &fault), 0);
    RH_EQ_INT(rh_log_thread_init(), 0);
    rh_log(RH_LOG_INFO, "lost");
    rh_log(RH_LOG_INFO, "lost");
    rh_log_thread_fini();
    rh_log_stop();
    RH_EQ_U64(rh_log_dropped_any(), 2);
}
