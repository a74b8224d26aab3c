/* bench/bench_journal.c - the journal alone: events a second, what one costs, how long a commit takes.
 *
 * Method  One thread, as the record thread: puts events while the last batch is being written, then
 *         steps. Three events a message: OWED with a text, ATTEMPT, SETTLED. Rounds alternate with a bare
 *         write and fdatasync of the same sizes, into a file that was written before, at the same kind of
 *         offsets: so both meet the same disk. "flood" puts as much as goes, "groups" commits 200 events
 *         at a time. CPU time is the process's, with the kernel's threads that work for it. Then all of a
 *         journal of some million events is read as at a start (from the page cache).
 * Use     bench_journal DIR [rounds] [milliseconds a round] [bytes of text]; DIR is on the disk that
 *         is meant, and left empty.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/hist.h"
#include "core/limits.h"
#include "core/msg.h"
#include "store/journal.h"

#define FLOOD_BYTES (1u << 20) /* that wait, at most */
#define GROUP       200
#define SIZES_MAX   (1u << 20)
#define REPLAY      3000000u
#define PAGE        4096u

static char text[65536];
static size_t text_len = 100;
static uint64_t number;
static uint32_t sizes[SIZES_MAX]; /* of the batches of a round */
static uint32_t sizes_count;

struct load {
    const char *name;
    uint64_t events, cpu_ns, wall_ns;
    struct rh_hist commit, bare;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_journal: %s: %s\n", what, why);
    exit(1);
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- the journal ---- */

static void put(struct rh_journal *j)
{
    static struct rh_jot_share share = {
        .user = RH_SPAN("user-1234"), .attempt = 1, .state = RH_STATE_sending};
    struct rh_jot jot = {.at_ms = 1795300000000u + number};

    switch (number++ % 3) {
    case 0:
        jot.kind = RH_JOT_OWED;
        jot.msg_kind = RH_MSG_DIRECT;
        jot.flags = RH_JOT_ACK | RH_JOT_FROM_USER;
        jot.number = number / 3 + 1;
        jot.expires_ms = jot.at_ms + 86400000;
        jot.dedup_ms = jot.at_ms + 300000;
        jot.seq = 1795300000000000u + number;
        jot.from = RH_SPAN("user-4321");
        jot.to = RH_SPAN("user-1234");
        jot.id = RH_SPAN("0123456789abcdef");
        jot.text = (struct rh_span){text, (uint32_t)text_len};
        jot.shares = &share;
        jot.share_count = 1;
        break;
    case 1:
        jot.kind = RH_JOT_ATTEMPT;
        jot.number = number / 3 + 1;
        jot.attempt = 2;
        break;
    default:
        jot.kind = RH_JOT_SETTLED;
        jot.number = number / 3;
        jot.state = RH_STATE_success;
    }
    if (rh_journal_put(j, &jot) < 0)
        die("put", "no memory");
}

/* Submits, waits if told so, and steps; notes what became durable. */
static void turn(struct rh_files *files, struct rh_journal *j, bool wait, struct load *load)
{
    const uint64_t before = rh_journal_durable(j);
    struct rh_journal_stat stat, after;
    struct rh_file_cqe cqes[16];

    rh_journal_stat(j, &stat);
    rh_journal_step(j, rh_clock_mono_ns() / 1000000);
    if (rh_files_enter(files, wait ? 1000 : 0) < 0)
        die("enter", "the ring is broken");
    for (unsigned n; (n = rh_files_reap(files, cqes, 16));)
        for (unsigned i = 0; i < n; i++)
            rh_journal_done(j, &cqes[i]);
    rh_journal_step(j, rh_clock_mono_ns() / 1000000);
    rh_journal_stat(j, &after);
    if (after.failures)
        die("the disk", "an operation failed");
    if (rh_journal_durable(j) == before || after.events == stat.events)
        return;
    rh_hist_add(&load->commit, after.commit_ns);
    load->events += after.events - stat.events;
    if (sizes_count < SIZES_MAX)
        sizes[sizes_count++] = (uint32_t)(after.bytes - stat.bytes);
}

static void run_journal(struct rh_files *files, struct rh_journal *j, bool flood, uint64_t ms,
                        struct load *load)
{
    const uint64_t cpu = cpu_ns(), began = rh_clock_mono_ns();

    sizes_count = 0;
    while (rh_clock_mono_ns() - began < ms * 1000000) {
        const bool full = flood ? rh_journal_waiting_bytes(j) >= FLOOD_BYTES
                                : rh_journal_state(j) != RH_JOURNAL_IDLE;

        for (unsigned i = 0; !full && i < GROUP; i++)
            put(j);
        turn(files, j, full, load);
        rh_journal_release(j, rh_journal_newest(j));
    }
    while (rh_journal_waiting_bytes(j))
        turn(files, j, true, load);
    load->wall_ns += rh_clock_mono_ns() - began;
    load->cpu_ns += cpu_ns() - cpu;
}

/* ---- the same without a journal ---- */

static int open_bare(const char *dir, char *path, size_t path_len)
{
    static char zeroes[1 << 20];
    int fd;

    snprintf(path, path_len, "%s/bare", dir);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path, strerror(errno));
    for (size_t at = 0; at < RH_SEGMENT_BYTES; at += sizeof(zeroes))
        if (pwrite(fd, zeroes, sizeof(zeroes), (off_t)at) != sizeof(zeroes))
            die(path, strerror(errno));
    if (fdatasync(fd) < 0)
        die(path, strerror(errno));
    return fd;
}

static void run_bare(int fd, struct load *load)
{
    static char bytes[RH_SEGMENT_BYTES];
    size_t at = PAGE;

    memset(bytes, 'x', sizeof(bytes));
    for (uint32_t i = 0; i < sizes_count; i++) {
        const size_t first = at % PAGE, len = (first + sizes[i] + PAGE - 1) / PAGE * PAGE;
        uint64_t began;

        if (at - first + len > RH_SEGMENT_BYTES) {
            at = PAGE;
            i--;
            continue;
        }
        began = rh_clock_mono_ns();
        if (pwrite(fd, bytes, len, (off_t)(at - first)) != (ssize_t)len || fdatasync(fd) < 0)
            die("bare write", strerror(errno));
        rh_hist_add(&load->bare, rh_clock_mono_ns() - began);
        at += sizes[i];
    }
}

/* ---- replay ---- */

static int count(void *arg, const struct rh_journal_at *at, const struct rh_jot *jot)
{
    uint64_t *events = arg;

    (void)at;
    *events += jot->kind != RH_JOT_NONE;
    return RH_OK;
}

static struct rh_journal *open_journal(struct rh_files *files, uint64_t *events)
{
    const struct rh_journal_opts opts = {.files = files, .segment_bytes = RH_SEGMENT_BYTES};
    struct rh_journal *j;
    struct rh_fault fault = {""};

    if (rh_journal_open(&opts, count, events, &j, &fault) < 0)
        die("open", fault.text);
    return j;
}

static void replay(struct rh_files *files, struct rh_journal *j)
{
    struct load load = {0};
    uint64_t events = 0, began;

    if (rh_hist_init(&load.commit) < 0)
        die("replay", "no memory");
    while (load.events < REPLAY) {
        const bool full = rh_journal_waiting_bytes(j) >= FLOOD_BYTES;

        for (unsigned i = 0; !full && i < GROUP; i++)
            put(j);
        turn(files, j, full, &load);
    }
    rh_journal_close(j);
    rh_hist_fini(&load.commit);
    began = rh_clock_mono_ns();
    j = open_journal(files, &events);
    began = rh_clock_mono_ns() - began;
    printf("replay    %8.2f M events a second (%ju events)\n", (double)events * 1e3 / (double)began,
           (uintmax_t)events);
    rh_journal_close(j);
}

/* ---- all ---- */

static void report(const struct load *load)
{
    const double commit = (double)rh_hist_at(&load->commit, 0.99);
    const double bare = (double)rh_hist_at(&load->bare, 0.99);

    printf("%-8s  %8.2f M events a second, %.0f ns of CPU each, %.0f in a commit\n", load->name,
           (double)load->events * 1e3 / (double)load->wall_ns,
           (double)load->cpu_ns / (double)load->events,
           (double)load->events / (double)rh_hist_count(&load->commit));
    printf("          commit p50 %.0f us, p99 %.0f us; bare write and fdatasync p50 %.0f us, p99 "
           "%.0f us; "
           "p99 ratio %.2f\n",
           (double)rh_hist_at(&load->commit, 0.5) / 1e3, commit / 1e3,
           (double)rh_hist_at(&load->bare, 0.5) / 1e3, bare / 1e3, commit / bare);
}

static void leave_empty(const char *dir)
{
    static const char *const ours[] = {"journal-", "spare-", "bare", "lock"};
    DIR *d = opendir(dir);
    const struct dirent *entry;

    while (d && (entry = readdir(d)))
        for (unsigned i = 0; i < RH_COUNT(ours); i++)
            if (!strncmp(entry->d_name, ours[i], strlen(ours[i])))
                unlinkat(dirfd(d), entry->d_name, 0);
    if (d)
        closedir(d);
}

int main(int argc, char **argv)
{
    const unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 10;
    const uint64_t ms = argc > 3 ? (uint64_t)atoi(argv[3]) : 1000;
    struct load loads[] = {{.name = "flood"}, {.name = "groups"}};
    char path[4200];
    uint64_t events = 0;
    struct rh_files *files;
    struct rh_journal *j;
    struct rh_fault fault = {""};
    struct utsname machine;
    int fd;

    if (argc < 2) {
        puts("bench_journal DIR [rounds] [milliseconds a round] [bytes of text]: it needs a "
             "directory");
        return 0; /* make bench runs all of them without arguments */
    }
    text_len = argc > 4 ? (size_t)atoi(argv[4]) % sizeof(text) : text_len;
    memset(text, 't', sizeof(text));
    if (rh_files_create(argv[1], &files, &fault) < 0)
        die(argv[1], fault.text);
    fd = open_bare(argv[1], path, sizeof(path));
    j = open_journal(files, &events);
    if (events)
        die(argv[1], "there is a journal already");
    uname(&machine);
    printf("# %s %s, %s, %u rounds of %ju ms, %zu bytes of text\n", machine.sysname,
           machine.release, argv[1], rounds, (uintmax_t)ms, text_len);
    for (unsigned i = 0; i < 2; i++)
        if (rh_hist_init(&loads[i].commit) < 0 || rh_hist_init(&loads[i].bare) < 0)
            die("histograms", "no memory");
    for (unsigned i = 0; i < 2 * rounds; i++) {
        run_journal(files, j, i % 2 == 0, ms, &loads[i % 2]);
        run_bare(fd, &loads[i % 2]);
    }
    for (unsigned i = 0; i < 2; i++)
        report(&loads[i]);
    replay(files, j);
    close(fd);
    rh_files_destroy(files);
    leave_empty(argv[1]);
    return 0;
}
