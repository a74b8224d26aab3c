/* core/config.c - keys in a table: defaults, environment, single values, checks, printing.
 *
 * Why this way: config.def is the only list of keys. The struct, the defaults, the bounds, the
 * help, the documentation and the suggestions for a misspelt key are all read off it, so none of
 * them can miss a key. Keys that the contract names and that we have not built are in the table,
 * too: they are refused by name, since ignoring one would be a promise that is not kept.
 *
 * Threads     one at a time per configuration; a finished one may be read by all.
 * Invariants  (1) Every field holds a value that its row allows: fields are written by
 *                 rh_config_store only, with what rh_config_parse let through.
 *             (2) A load that fails changes nothing: it works on a copy.
 * Rejected    libcyaml: its schema cannot take `limits.message_size` for limits: {message_size}.
 *             One bound per kind instead of per key: a typo of a zero would pass.
 */
#include "core/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/config_int.h"
#include "core/err.h"
#include "core/limits.h"
#include "core/mem.h"
#include "core/thread.h"

#define RH_CONFIG_CPUS "number of CPUs"
#define PATH_MAX_LEN   63 /* of what is compared with keys; the longest has 42 */
#define ENV_PREFIX     "RINGHUB_"

#define LIVE    true
#define RESTART false

#define BUILT(path_, field_, kind_, min_, max_, words_, entry_, standard_, live_, help_)           \
    {.path = path_,                                                                                \
     .standard = standard_,                                                                        \
     .help = help_,                                                                                \
     .words = words_,                                                                              \
     .entry = entry_,                                                                              \
     .kind = RH_KIND_##kind_,                                                                      \
     .live = live_,                                                                                \
     .slot = RH_KEY_##field_,                                                                      \
     .field = offsetof(struct rh_config, field_),                                                  \
     .min = min_,                                                                                  \
     .max = max_},

static const struct rh_config_key keys[] = {
#define RH_CONFIG_BOOL(path, field, standard, when, help)                                          \
    BUILT(path, field, BOOL, 0, 0, NULL, NULL, standard, when, help)
#define RH_CONFIG_UINT(path, field, min, max, standard, when, help)                                \
    BUILT(path, field, UINT, min, max, NULL, NULL, standard, when, help)
#define RH_CONFIG_MS(path, field, min, max, standard, when, help)                                  \
    BUILT(path, field, MS, min, max, NULL, NULL, standard, when, help)
#define RH_CONFIG_BYTES(path, field, min, max, standard, when, help)                               \
    BUILT(path, field, BYTES, min, max, NULL, NULL, standard, when, help)
#define RH_CONFIG_NUMBER(path, field, min, max, standard, when, help)                              \
    BUILT(path, field, NUMBER, min, max, NULL, NULL, standard, when, help)
#define RH_CONFIG_WORD(path, field, type, words, standard, when, help)                             \
    BUILT(path, field, WORD, 0, 0, words, NULL, standard, when, help)
#define RH_CONFIG_TEXT(path, field, standard, when, help)                                          \
    BUILT(path, field, TEXT, 0, 0, NULL, NULL, standard, when, help)
#define RH_CONFIG_ADDRS(path, field, standard, when, help)                                         \
    BUILT(path, field, ADDRS, 0, 0, NULL, NULL, standard, when, help)
#define RH_CONFIG_LIST(path, field, entry, standard, when, help)                                   \
    BUILT(path, field, LIST, 0, 0, NULL, rh_config_entry_##entry, standard, when, help)
#define RH_CONFIG_LATER(path_, kind_, standard_, when, help_)                                      \
    {.path = path_,                                                                                \
     .standard = standard_,                                                                        \
     .help = help_,                                                                                \
     .kind = RH_KIND_##kind_,                                                                      \
     .live = when,                                                                                 \
     .slot = -1},
#include "core/config.def"
};

/* What the fields can hold bounds what the table may allow. */
#define RH_CONFIG_UINT(path, field, min, max, ...) _Static_assert((max) <= UINT32_MAX, path);
#define RH_CONFIG_MS(path, field, min, max, ...)   _Static_assert((max) <= UINT32_MAX, path);
#define RH_CONFIG_WORD(path, field, type, ...)                                                     \
    _Static_assert(sizeof(enum type) == sizeof(uint32_t), path);
#include "core/config.def"

_Static_assert(RH_SHARDS_MAX == 64, "the bound of `shards` in config.def");

const struct rh_config_key *rh_config_key(size_t i)
{
    return i < RH_COUNT(keys) ? &keys[i] : NULL;
}

const char *rh_config_kind_name(enum rh_config_kind kind)
{
    static const char *const names[] = {
        [RH_KIND_BOOL] = "yes or no",  [RH_KIND_UINT] = "whole number", [RH_KIND_MS] = "duration",
        [RH_KIND_BYTES] = "size",      [RH_KIND_WORD] = "word",         [RH_KIND_TEXT] = "text",
        [RH_KIND_ADDRS] = "addresses", [RH_KIND_LIST] = "list",         [RH_KIND_NUMBER] = "number",
        [RH_KIND_SECRET] = "secret",   [RH_KIND_SECRETS] = "secrets",   [RH_KIND_GROUP] = "group",
    };

    rh_assert(kind < RH_COUNT(names));
    return names[kind];
}

/* ---- life ----------------------------------------------------------------------------------- */

/* CPUs that this process may use, as far as shards go. */
static uint32_t cpus(void)
{
    return RH_MIN((uint32_t)rh_thread_cpus(), RH_SHARDS_MAX);
}

int rh_config_create(struct rh_config **ret_cfg)
{
    struct rh_config *cfg = rh_mem_zalloc(sizeof(*cfg));

    if (!cfg)
        return RH_ENOMEM;
    for (size_t i = 0; i < RH_COUNT(keys); i++) {
        struct rh_span text = {keys[i].standard, (uint32_t)strlen(keys[i].standard)};
        struct rh_config_value value;

        if (keys[i].slot < 0)
            continue;
        memset(&value, 0, sizeof(value));
        if (!strcmp(keys[i].standard, RH_CONFIG_CPUS))
            value.as.small = cpus();
        else if (!rh_config_no_entries(&keys[i], text))
            rh_assert(rh_config_parse(&keys[i], text, &value, NULL) == 0);
        rh_config_store(cfg, &keys[i], &value, "");
    }
    *ret_cfg = cfg;
    return 0;
}

int rh_config_copy(const struct rh_config *cfg, struct rh_config **ret_copy)
{
    struct rh_config *copy = rh_mem_alloc(sizeof(*copy));

    if (!copy)
        return RH_ENOMEM;
    memcpy(copy, cfg, sizeof(*copy));
    *ret_copy = copy;
    return 0;
}

void rh_config_destroy(struct rh_config *cfg)
{
    rh_mem_free(cfg);
}

/* ---- reloading ------------------------------------------------------------------------------ */

/* Adds a name behind a comma, or dots that say that it did not fit; behind dots nothing more. */
static void add_name(char list[RH_CONFIG_CHANGES], const char *name)
{
    static const char more[] = ",...";
    size_t len = strlen(list);

    if (len && list[len - 1] == '.')
        return;
    if (len + strlen(name) + sizeof(more) < RH_CONFIG_CHANGES)
        snprintf(list + len, RH_CONFIG_CHANGES - len, "%s%s", len ? "," : "", name);
    else
        snprintf(list + len, RH_CONFIG_CHANGES - len, "%s", more);
}

int rh_config_reload(const struct rh_config *now, const struct rh_config *want,
                     struct rh_config **ret_next, struct rh_config_changes *ret_changes)
{
    struct rh_config *next;
    int rc = rh_config_copy(now, &next);

    if (rc < 0)
        return rc;
    memset(ret_changes, 0, sizeof(*ret_changes));
    for (size_t i = 0; i < RH_COUNT(keys); i++) {
        const struct rh_config_key *key = &keys[i];
        char *field = (char *)next + key->field;
        const char *wanted = (const char *)want + key->field;

        if (key->slot < 0)
            continue;
        if (memcmp(field, wanted, rh_config_size(key)) != 0)
            add_name(key->live ? ret_changes->applied : ret_changes->restart, key->path);
        if (!key->live)
            continue;
        memcpy(field, wanted, rh_config_size(key));
        memcpy(next->where[key->slot], want->where[key->slot], RH_CONFIG_WHERE);
    }
    *ret_next = next;
    return 0;
}

/* ---- errors and suggestions ----------------------------------------------------------------- */

int rh_config_fault(struct rh_fault *fault, int err, const char *where, const char *path,
                    const char *fmt, ...)
{
    struct rh_fault rest;
    va_list args;

    if (!fault)
        return err;
    va_start(args, fmt);
    vsnprintf(rest.text, sizeof(rest.text), fmt, args);
    va_end(args);
    rh_fault_set(fault, err, "%s%s%.100s%s", where, *where && *path ? ": " : "", path, rest.text);
    for (char *at = fault->text; *at; at++)
        if (iscntrl((unsigned char)*at))
            *at = '?';
    return err;
}

/* How many insertions, deletions, replacements and swaps of neighbours make one of the other. Both
 * at most PATH_MAX_LEN long. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][PATH_MAX_LEN + 2];
    size_t *before = rows[0];
    size_t *last = rows[1];
    size_t *now = rows[2];
    size_t len = strlen(b);

    for (size_t k = 0; k <= len; k++)
        last[k] = k;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t *spare = before;

        now[0] = i;
        for (size_t k = 1; k <= len; k++) {
            size_t swap = last[k - 1] + (a[i - 1] != b[k - 1]);

            now[k] = RH_MIN(RH_MIN(last[k], now[k - 1]) + 1, swap);
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
                now[k] = RH_MIN(now[k], before[k - 2] + 1);
        }
        before = last;
        last = now;
        now = spare;
    }
    return last[len];
}

static const char *last_part(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot ? dot + 1 : path;
}

/* The key that was probably meant: the nearest spelling, else the only one of that last name. */
static const char *suggest(const char *path)
{
    size_t len = strlen(path);
    size_t nearest = 1 + len / 5;
    const char *best = NULL;
    unsigned namesakes = 0;

    if (len == 0 || len > PATH_MAX_LEN)
        return NULL;
    for (size_t i = 0; i < RH_COUNT(keys); i++) {
        size_t away = keys[i].kind == RH_KIND_GROUP ? SIZE_MAX : distance(path, keys[i].path);

        if (away < nearest || (away == nearest && !best)) {
            nearest = away;
            best = keys[i].path;
        }
    }
    for (size_t i = 0; !best && i < RH_COUNT(keys); i++)
        namesakes += !strcmp(last_part(path), last_part(keys[i].path));
    for (size_t i = 0; namesakes == 1 && i < RH_COUNT(keys); i++)
        if (!strcmp(last_part(path), last_part(keys[i].path)))
            best = keys[i].path;
    return best;
}

/* ---- looking keys up ------------------------------------------------------------------------ */

/* True when `path` is this key, or inside of it where it stands for a group ("welcome.*"). */
static bool is_key(const struct rh_config_key *key, const char *path)
{
    size_t stem = strlen(key->path) - 2;

    if (key->kind != RH_KIND_GROUP)
        return !strcmp(key->path, path);
    return !strncmp(key->path, path, stem) && (path[stem] == '\0' || path[stem] == '.');
}

enum rh_config_found rh_config_find(const char *path, const struct rh_config_key **ret_key)
{
    size_t len = strlen(path);
    enum rh_config_found found = RH_FOUND_NONE;

    for (size_t i = 0; i < RH_COUNT(keys); i++) {
        if (is_key(&keys[i], path)) {
            *ret_key = &keys[i];
            return RH_FOUND_KEY;
        }
        if (len == 0 || strncmp(keys[i].path, path, len) || keys[i].path[len] != '.')
            continue;
        if (found == RH_FOUND_NONE || ((*ret_key)->slot < 0 && keys[i].slot >= 0))
            *ret_key = &keys[i];
        found = RH_FOUND_GROUP;
    }
    return found;
}

int rh_config_find_settable(const char *path, const char *where,
                            const struct rh_config_key **ret_key, struct rh_fault *fault)
{
    enum rh_config_found found = rh_config_find(path, ret_key);
    const char *meant = found == RH_FOUND_NONE ? suggest(path) : NULL;

    if (found == RH_FOUND_KEY && (*ret_key)->slot < 0)
        return rh_config_fault(fault, RH_EUNSUPPORTED, where, path, " is not supported yet");
    if (found == RH_FOUND_KEY)
        return 0;
    if (found == RH_FOUND_GROUP)
        return rh_config_fault(fault, RH_EINVAL, where, path, ": is a group of keys, such as %s",
                               (*ret_key)->path);
    return rh_config_fault(fault, RH_EINVAL, where, path, ": unknown key%s%s%s",
                           meant ? "; did you mean " : "", meant ? meant : "", meant ? "?" : "");
}

/* ---- single values -------------------------------------------------------------------------- */

/* The next of the comma-separated items, without blanks around it; moves `text` behind it and its
 * comma. *ret_more: there was a comma, so another item follows. */
static struct rh_span next_item(const char **text, bool *ret_more)
{
    struct rh_span item = {*text, (uint32_t)strcspn(*text, ",")};

    *ret_more = item.at[item.len] == ',';
    *text += item.len + *ret_more;
    for (; item.len > 0 && item.at[0] == ' '; item.at++)
        item.len--;
    while (item.len > 0 && item.at[item.len - 1] == ' ')
        item.len--;
    return item;
}

int rh_config_set(struct rh_config *cfg, const char *key_path, const char *text, const char *where,
                  struct rh_fault *fault)
{
    size_t len = strlen(text);
    struct rh_span item = {text, (uint32_t)RH_MIN(len, RH_CONFIG_FILE_MAX)};
    const struct rh_config_key *key;
    struct rh_config_value value;
    struct rh_fault why = {""};
    bool more;
    int rc = rh_config_find_settable(key_path, where, &key, fault);

    if (rc < 0)
        return rc;
    memset(&value, 0, sizeof(value));
    for (more = !rh_config_no_entries(key, item); more;) {
        more = false;
        if (rh_config_takes_many(key))
            item = next_item(&text, &more);
        rc = rh_config_parse(key, item, &value, &why);
        if (rc < 0)
            return rh_config_fault(fault, rc, where, key_path, ": %s", why.text);
    }
    rh_config_store(cfg, key, &value, where);
    return 0;
}

/* ---- environment ---------------------------------------------------------------------------- */

/* limits.message_size of LIMITS__MESSAGE_SIZE. False: longer than any key. */
static bool path_of_env(const char *name, size_t len, char path[PATH_MAX_LEN + 1])
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        bool dot = name[i] == '_' && i + 1 < len && name[i + 1] == '_';

        if (n == PATH_MAX_LEN)
            return false;
        path[n++] = dot ? '.' : (char)tolower((unsigned char)name[i]);
        i += dot;
    }
    path[n] = '\0';
    return true;
}

/* RINGHUB_LIMITS__MESSAGE_SIZE of limits.message_size. */
static void env_of_path(const char *path, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, ENV_PREFIX);

    for (; *path && n + 2 < size; path++) {
        if (*path == '.')
            out[n++] = '_';
        out[n++] = *path == '.' ? '_' : (char)toupper((unsigned char)*path);
    }
    out[n] = '\0';
}

static int unknown_env(const char *where, const char *path, struct rh_fault *fault)
{
    const char *meant = suggest(path);
    char name[2 * PATH_MAX_LEN + sizeof(ENV_PREFIX)];

    if (!meant)
        return rh_config_fault(fault, RH_EINVAL, where, "", ": unknown variable");
    env_of_path(meant, name, sizeof(name));
    return rh_config_fault(fault, RH_EINVAL, where, "", ": unknown variable; did you mean %s?",
                           name);
}

/* RINGHUB_..._FILE is for secrets, and the keys that are secrets are not built yet. */
static int refuse_file(const char *where, char *path, struct rh_fault *fault)
{
    size_t len = strlen(path);
    const struct rh_config_key *key;

    if (len > 5 && !strcmp(path + len - 5, "_file")) {
        path[len - 5] = '\0';
        if (rh_config_find(path, &key) == RH_FOUND_KEY) {
            if (key->kind == RH_KIND_SECRET || key->kind == RH_KIND_SECRETS)
                return rh_config_find_settable(path, where, &key, fault);
            return rh_config_fault(fault, RH_EINVAL, where, path,
                                   ": only a secret can be read from a file");
        }
        path[len - 5] = '_';
    }
    return unknown_env(where, path, fault);
}

/* One NAME=value; what does not begin with RINGHUB_ is somebody else's. */
static int load_env_entry(struct rh_config *cfg, const char *entry, struct rh_fault *fault)
{
    const char *equals = strchr(entry, '=');
    const struct rh_config_key *key;
    char path[PATH_MAX_LEN + 1];
    char where[RH_CONFIG_WHERE];
    const char *name = entry + strlen(ENV_PREFIX);

    if (!equals || strncmp(entry, ENV_PREFIX, strlen(ENV_PREFIX)))
        return 0;
    snprintf(where, sizeof(where), "%.*s", (int)RH_MIN(equals - entry, RH_CONFIG_WHERE), entry);
    if (!path_of_env(name, (size_t)(equals - name), path))
        return rh_config_fault(fault, RH_EINVAL, where, "", ": unknown variable");
    if (rh_config_find(path, &key) == RH_FOUND_NONE)
        return refuse_file(where, path, fault);
    return rh_config_set(cfg, path, equals + 1, where, fault);
}

int rh_config_load_env(struct rh_config *cfg, char *const environment[], struct rh_fault *fault)
{
    struct rh_config *work = NULL;
    int rc = rh_config_copy(cfg, &work);

    for (size_t i = 0; rc == 0 && environment[i]; i++)
        rc = load_env_entry(work, environment[i], fault);
    if (rc == 0)
        *cfg = *work;
    else if (rc == RH_ENOMEM)
        rh_fault_set(fault, rc, "no memory for the configuration");
    rh_config_destroy(work);
    return rc;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Reads all of a file, or as much as proves that it is too large. Returns bytes, or -1 with errno. */
static ssize_t read_all(int fd, char *buf, size_t size)
{
    size_t len = 0;

    while (len < size) {
        ssize_t n = read(fd, buf + len, size - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

int rh_config_load_file(struct rh_config *cfg, const char *path, struct rh_fault *fault)
{
    char *text = rh_mem_alloc(RH_CONFIG_FILE_MAX + 1);
    int fd = -1;
    ssize_t len;
    int rc = RH_EIO;

    if (!text) {
        rc = rh_fault_set(fault, RH_ENOMEM, "no memory for reading %.300s", path);
        goto out;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    len = fd < 0 ? -1 : read_all(fd, text, RH_CONFIG_FILE_MAX + 1);
    if (len < 0)
        rc = rh_config_fault(fault, RH_EIO, path, "", ": cannot be read: %s", strerror(errno));
    else
        rc = rh_config_load_text(cfg, path, text, (size_t)len, fault);
out:
    if (fd >= 0)
        close(fd);
    rh_mem_free(text);
    return rc;
}

/* ---- what only shows when all is known ------------------------------------------------------ */

static int check_heartbeat(const struct rh_config *cfg, struct rh_fault *fault)
{
    const char *timeout_by = cfg->where[RH_KEY_heartbeat_timeout_ms];
    const char *interval_by = cfg->where[RH_KEY_heartbeat_interval_ms];

    if (cfg->heartbeat_timeout_ms > cfg->heartbeat_interval_ms)
        return 0;
    if (!*timeout_by && *interval_by)
        return rh_config_fault(fault, RH_EINVAL, interval_by, "heartbeat.interval",
                               ": must be smaller than heartbeat.timeout (%u ms)",
                               cfg->heartbeat_timeout_ms);
    return rh_config_fault(fault, RH_EINVAL, timeout_by, "heartbeat.timeout",
                           ": must be larger than heartbeat.interval (%u ms)",
                           cfg->heartbeat_interval_ms);
}

static int check_open_door(const struct rh_config *cfg, struct rh_fault *fault)
{
    if (cfg->auth_mode != RH_AUTH_NONE || cfg->auth_allow_insecure)
        return 0;
    for (uint32_t i = 0; i < cfg->listen.count; i++)
        if (!cfg->listen.at[i].loopback)
            return rh_config_fault(fault, RH_EINVAL, cfg->where[RH_KEY_listen], "listen",
                                   ": other machines can reach %s, and with auth.mode none "
                                   "everybody is who they say; set auth.allow_insecure to true "
                                   "if that is meant",
                                   cfg->listen.at[i].text);
    return 0;
}

static int check_store(const struct rh_config *cfg, struct rh_fault *fault)
{
    if (cfg->store_path[0] || cfg->store_durability == RH_DURABILITY_MEMORY)
        return RH_OK;
    return rh_config_fault(fault, RH_EINVAL, cfg->where[RH_KEY_store_path], "store.path",
                           ": names no directory, and store.durability is commit");
}

int rh_config_check(const struct rh_config *cfg, struct rh_fault *fault)
{
    int rc = check_heartbeat(cfg, fault);

    if (rc == RH_OK)
        rc = check_store(cfg, fault);
    return rc < 0 ? rc : check_open_door(cfg, fault);
}

void rh_config_print(const struct rh_config *cfg,
                     void (*line)(void *arg, const char *key, const char *value,
                                  const char *standard, const char *help),
                     void *arg)
{
    char value[RH_CONFIG_PRINTED];

    _Static_assert(sizeof(value) >= sizeof(((struct rh_listen *)0)->text) * RH_LISTEN_MAX &&
                       sizeof(value) > RH_CONFIG_TEXT_MAX && sizeof(value) > RH_CONFIG_LIST_MAX,
                   "every value fits");
    for (size_t i = 0; i < RH_COUNT(keys); i++) {
        if (keys[i].slot < 0)
            continue;
        rh_config_value(cfg, &keys[i], value, sizeof(value));
        line(arg, keys[i].path, value, keys[i].standard, keys[i].help);
    }
}
