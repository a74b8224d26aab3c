/* tools/journal.c - ringhub-journal: prints and checks what a hub has on disk.
 *
 * It only reads, and locks nothing, so it may be used on the directory of a hub that runs. Such a hub
 * writes, renames and removes meanwhile: what looks like damage in a directory is looked at again, and
 * told if it is still there the third time.
 *
 * A file is looked at by itself. A directory is judged as the hub would at its start: a torn end or an
 * older copy of a batch is no damage there, a batch that is missing between two segments is.
 *
 * Exit status: 0 fine, 1 damaged or unreadable, 2 wrong usage.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/msg.h"
#include "store/jot.h"

#define EXIT_DAMAGED 1
#define EXIT_USAGE   2
#define TRIES        3
#define TRY_MS       200

static const char usage[] =
    "Usage: ringhub-journal print [--json] FILE|DIR...\n"
    "       ringhub-journal check FILE|DIR...\n"
    "       ringhub-journal [--version] [--help]\n"
    "\n"
    "  print    the batches and events of segments (journal-*.seg), in their order\n"
    "  --json   an object a line, for other programs\n"
    "  check    say what is damaged; of a directory: what a hub would refuse to start with\n"
    "\n"
    "It only reads, also from a hub that runs. Exit status: 0 fine, 1 damaged, 2 wrong usage.\n"
    "docs/journal.md explains the format.\n";

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "ringhub-journal: %s: %s\n", what, why);
    return EXIT_DAMAGED;
}

/* ---- files ---- */

static int64_t read_some(const char *path, uint64_t offset, void *dst, size_t len)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t got = 0;
    ssize_t n = 1;

    if (fd < 0)
        return -1;
    while (got < len && n > 0) {
        n = pread(fd, (char *)dst + got, len - got, (off_t)(offset + got));
        got += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    return n < 0 ? -1 : (int64_t)got;
}

/* A whole file; NULL: it cannot be read. */
static uint8_t *read_whole(const char *path, size_t *ret_len)
{
    struct stat st;
    uint8_t *bytes;
    int64_t len;

    if (stat(path, &st) < 0)
        return NULL;
    bytes = malloc((size_t)st.st_size + 1);
    if (!bytes)
        return NULL;
    len = read_some(path, 0, bytes, (size_t)st.st_size);
    if (len < 0) {
        free(bytes);
        return NULL;
    }
    *ret_len = (size_t)len;
    return bytes;
}

static bool is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- printing ---- */

struct printer {
    const char *file;
    bool json;
    bool damaged;
};

static void print_json_text(const char *at, size_t len)
{
    putchar('"');
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)at[i];

        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

/* On a terminal what a user sent must not be more than text. */
static void print_plain_text(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)at[i];

        if (c < 0x20 || c == 0x7f || c == '\\')
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

static void print_text(const struct printer *p, const char *name, struct rh_span text)
{
    printf(p->json ? ",\"%s\":" : " %s=", name);
    if (p->json)
        print_json_text(text.at, text.len);
    else
        print_plain_text(text.at, text.len);
}

static void print_number(const struct printer *p, const char *name, uint64_t n)
{
    printf(p->json ? ",\"%s\":%" PRIu64 : " %s=%" PRIu64, name, n);
}

static void print_word(const struct printer *p, const char *name, const char *word)
{
    print_text(p, name, (struct rh_span){word, (uint32_t)strlen(word)});
}

static void print_flags(const struct printer *p, unsigned flags)
{
    static const char *const names[] = {"ack", "high", "from_user", "given", "stored"};
    char text[64] = "";
    int len = 0;

    for (unsigned i = 0; i < RH_COUNT(names); i++)
        if (flags >> i & 1)
            len +=
                snprintf(text + len, sizeof(text) - (size_t)len, "%s%s", len ? "," : "", names[i]);
    print_word(p, "flags", text);
}

static void print_names(const struct printer *p, const struct rh_jot *jot)
{
    print_word(p, "of", jot->msg_kind == RH_MSG_ROOM ? "room" : "direct");
    print_flags(p, jot->flags);
    print_number(p, "seq", jot->seq);
    print_number(p, "recipients", jot->recipients);
    print_number(p, "dedup_ms", jot->dedup_ms);
    print_text(p, "from", jot->from);
    print_text(p, "to", jot->to);
    print_text(p, "id", jot->id);
}

static void print_shares(const struct printer *p, const struct rh_jot *jot)
{
    if (p->json)
        printf(",\"shares\":[");
    for (uint32_t i = 0; i < jot->share_count; i++) {
        const struct rh_jot_share *s = &jot->shares[i];

        printf(p->json ? "%s{\"share\":%" PRIu32 : "%s\n      share=%" PRIu32,
               p->json && i ? "," : "", i);
        print_text(p, "user", s->user);
        print_number(p, "attempt", s->attempt);
        print_word(p, "state", rh_state_name(s->state));
        print_word(p, "reason", rh_reason_name(s->reason));
        if (p->json)
            putchar('}');
    }
    if (p->json)
        putchar(']');
}

static void print_owed(const struct printer *p, const struct rh_jot *jot)
{
    print_number(p, "number", jot->number);
    print_names(p, jot);
    print_number(p, "expires_ms", jot->expires_ms);
    print_number(p, "uid", jot->uid);
    print_number(p, "attempt_at", jot->attempt_at);
    print_number(p, "attempt_len", jot->attempt_len);
    print_number(p, "ack_at", jot->ack_at);
    print_text(p, "text", jot->text);
    print_shares(p, jot);
}

static void print_event(const struct printer *p, const struct rh_journal_find *find)
{
    const struct rh_jot *jot = find->jot;

    if (p->json)
        printf("{\"segment\":%" PRIu64 ",\"batch\":%" PRIu64 ",\"offset\":%" PRIu64
               ",\"kind\":\"%s\"",
               find->at.segment, find->at.batch, find->at.offset, rh_jot_name(jot->kind));
    else
        printf("    %-7s", rh_jot_name(jot->kind));
    print_number(p, "at_ms", jot->at_ms);
    if (jot->kind == RH_JOT_OWED)
        print_owed(p, jot);
    if (jot->kind == RH_JOT_ID)
        print_names(p, jot);
    if (jot->kind == RH_JOT_ATTEMPT || jot->kind == RH_JOT_SETTLED) {
        print_number(p, "number", jot->number);
        print_number(p, "share", jot->share);
    }
    if (jot->kind == RH_JOT_ATTEMPT)
        print_number(p, "attempt", jot->attempt);
    if (jot->kind == RH_JOT_SETTLED) {
        print_word(p, "state", rh_state_name(jot->state));
        print_word(p, "reason", rh_reason_name(jot->reason));
    }
    puts(p->json ? "}" : "");
}

static void print_damage(const struct printer *p, const struct rh_journal_find *find)
{
    if (p->json)
        printf("{\"segment\":%" PRIu64 ",\"offset\":%" PRIu64 ",\"damage\":\"%s\"}\n",
               find->at.segment, find->at.offset, find->what);
    else
        printf("  DAMAGE at byte %" PRIu64 ": %s\n", find->at.offset, find->what);
}

static void print_find(void *arg, const struct rh_journal_find *find)
{
    struct printer *p = arg;

    switch (find->kind) {
    case RH_FIND_BATCH:
        if (!p->json)
            printf("  batch %" PRIu64 " at byte %" PRIu64 ", %" PRIu32 " events, %" PRIu64
                   " bytes\n",
                   find->at.batch, find->at.offset, find->events, find->bytes);
        break;
    case RH_FIND_EVENT:
        print_event(p, find);
        break;
    case RH_FIND_DAMAGE:
        p->damaged = true;
        print_damage(p, find);
        break;
    default:
        if (!p->json)
            printf("  byte %" PRIu64 ": %s\n", find->at.offset, find->what);
    }
}

static int no_segment(const char *path, int64_t err)
{
    return fail(path, err == RH_EUNSUPPORTED ? "written by another version"
                      : err == RH_EINVAL     ? "no segment of a journal, or its header is damaged"
                                             : rh_err_text((int)err));
}

static int print_file(const char *path, bool json)
{
    struct printer p = {path, json, false};
    uint8_t *bytes;
    size_t len;
    int64_t rc;

    bytes = read_whole(path, &len);
    if (!bytes)
        return fail(path, strerror(errno));
    if (!json)
        printf("%s\n", path);
    rc = rh_journal_walk(bytes, len, print_find, &p);
    free(bytes);
    if (rc < 0)
        return no_segment(path, rc);
    return p.damaged ? EXIT_DAMAGED : 0;
}

static int only_segments(const struct dirent *entry)
{
    return rh_journal_number_of(entry->d_name) != 0;
}

static int print_directory(const char *path, bool json)
{
    struct dirent **names;
    const int count = scandir(path, &names, only_segments, alphasort);
    int status = 0;

    if (count < 0)
        return fail(path, strerror(errno));
    for (int i = 0; i < count; i++) {
        char file[4096];

        snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        status |= print_file(file, json);
        free(names[i]);
    }
    free(names);
    return status;
}

/* ---- checking a file ---- */

struct check {
    const char *file;
    uint64_t batches, first, last, events;
    bool damaged;
};

static void check_find(void *arg, const struct rh_journal_find *find)
{
    struct check *c = arg;

    if (find->kind == RH_FIND_DAMAGE) {
        printf("%s: damaged at byte %" PRIu64 ": %s\n", c->file, find->at.offset, find->what);
        c->damaged = true;
    }
    if (find->kind == RH_FIND_EVENT)
        c->events++;
    if (find->kind == RH_FIND_BATCH) {
        c->first = c->batches++ ? c->first : find->at.batch;
        c->last = find->at.batch;
    }
    if (find->kind == RH_FIND_END && !c->damaged)
        printf("%s: fine, batches %" PRIu64 " to %" PRIu64 ", %" PRIu64
               " events; behind them: %s\n",
               c->file, c->first, c->last, c->events, find->what);
}

static int check_file(const char *path)
{
    struct check c = {.file = path};
    uint8_t *bytes;
    size_t len;
    int64_t rc;

    bytes = read_whole(path, &len);
    if (!bytes)
        return fail(path, strerror(errno));
    rc = rh_journal_walk(bytes, len, check_find, &c);
    free(bytes);
    if (rc < 0)
        return no_segment(path, rc);
    return c.damaged ? EXIT_DAMAGED : 0;
}

/* ---- checking a directory ---- */

struct judgement {
    const char *path;
    bool loud;
};

static int list_directory(void *arg, void (*each)(void *each_arg, const char *name, uint64_t size),
                          void *each_arg, struct rh_fault *fault)
{
    const struct judgement *g = arg;
    DIR *dir = opendir(g->path);
    const struct dirent *entry;

    if (!dir)
        return rh_fault_set(fault, RH_EIO, "%s: %s", g->path, strerror(errno));
    while ((entry = readdir(dir))) {
        struct stat st;

        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
            each(each_arg, entry->d_name, (uint64_t)st.st_size);
    }
    closedir(dir);
    return RH_OK;
}

static int64_t read_of_directory(void *arg, const char *name, uint64_t offset, void *dst,
                                 size_t len, struct rh_fault *fault)
{
    const struct judgement *g = arg;
    char file[4096];
    int64_t n;

    snprintf(file, sizeof(file), "%s/%s", g->path, name);
    n = read_some(file, offset, dst, len);
    return n < 0 ? rh_fault_set(fault, RH_EIO, "%s: %s", file, strerror(errno)) : n;
}

static int pass_over(void *arg, const struct rh_journal_at *at, const struct rh_jot *jot)
{
    (void)arg;
    (void)at;
    (void)jot;
    return RH_OK;
}

static void tell_damage(void *arg, const char *text)
{
    const struct judgement *g = arg;

    if (g->loud)
        printf("%s/%s\n", g->path, text);
}

static int check_directory(const char *path)
{
    struct judgement g = {.path = path};
    const struct rh_journal_source source = {&g, list_directory, read_of_directory};
    const struct rh_journal_reading reading = {&source, true, &g, pass_over, tell_damage};
    struct rh_journal_found found;
    struct rh_fault fault = {""};
    int rc;

    for (unsigned i = 1;; i++) {
        g.loud = i == TRIES;
        rc = rh_journal_read(&reading, &found, &fault);
        if ((rc == RH_OK && !found.skipped) || i == TRIES)
            break;
        rh_clock_nap_ms(TRY_MS);
    }
    if (rc < 0)
        return fail(path, fault.text[0] ? fault.text : rh_err_text(rc));
    if (found.skipped)
        return EXIT_DAMAGED;
    printf("%s: fine, %" PRIu64 " segments, %" PRIu64 " batches, %" PRIu64
           " events, last batch %" PRIu64 "\n",
           path, found.segments, found.batches, found.events, found.last_batch);
    return 0;
}

/* ---- options ---- */

static int wrong(const char *what)
{
    fprintf(stderr, "ringhub-journal: %s (--help)\n", what);
    return EXIT_USAGE;
}

static int run(char **paths, bool print, bool json)
{
    int status = 0;

    for (; *paths; paths++)
        if (print)
            status |=
                is_directory(*paths) ? print_directory(*paths, json) : print_file(*paths, json);
        else
            status |= is_directory(*paths) ? check_directory(*paths) : check_file(*paths);
    if (fflush(stdout) != 0)
        status = fail("standard output", strerror(errno));
    return status;
}

int main(int argc, char **argv)
{
    bool print, json = false;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return fputs(usage, stdout) < 0 ? EXIT_DAMAGED : 0;
        if (!strcmp(argv[i], "--version"))
            return printf("ringhub-journal %s\n", rh_version()) < 0 ? EXIT_DAMAGED : 0;
    }
    if (argc < 2)
        return wrong("print or check?");
    print = !strcmp(argv[1], "print");
    if (!print && strcmp(argv[1], "check"))
        return wrong("print or check?");
    argv += 2;
    if (print && *argv && !strcmp(*argv, "--json")) {
        json = true;
        argv++;
    }
    if (!*argv)
        return wrong("a file or a directory is needed");
    for (char **arg = argv; *arg; arg++)
        if (**arg == '-')
            return wrong("unknown option");
    return run(argv, print, json);
}
