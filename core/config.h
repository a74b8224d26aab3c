/* core/config.h - the configuration inside: typed fields, snapshots, the table of keys.
 *
 * The public half (create, load, set, check, print) is in core/ringhub.h. A hub copies the
 * configuration it was given; a shard reads one copy, which nobody changes any more, and gets the
 * next one as a whole. All keys stand in core/config.def, which also makes the struct below.
 *
 * Threads    one at a time while it is built; a finished copy: any number of readers.
 * Ownership  a configuration is one flat block without pointers: copying is memcpy.
 * Errors     RH_EINVAL and RH_EUNSUPPORTED with a sentence "file:line: key: why"; RH_ENOMEM. A load
 *            or a set that fails has changed nothing.
 * Limits     a file: RH_CONFIG_FILE_MAX bytes. A text: RH_CONFIG_TEXT_MAX bytes. listen:
 *            RH_LISTEN_MAX addresses. A list: RH_CONFIG_LIST_MAX bytes, a zero byte behind each
 *            entry included. Nesting: as deep as the table's longest path.
 */
#ifndef RH_CONFIG_H
#define RH_CONFIG_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "core/base.h"
#include "core/log.h"
#include "core/ringhub.h"

#define RH_CONFIG_FILE_MAX (1u << 20)
#define RH_CONFIG_TEXT_MAX 1023
#define RH_CONFIG_LIST_MAX 4096
#define RH_CONFIG_WHERE    128 /* "ringhub.yaml:12"; a longer name loses its beginning */
#define RH_LISTEN_MAX      16
#define RH_CONFIG_PRINTED  (RH_CONFIG_LIST_MAX + 1) /* room for any printed value */

/* Words of RH_CONFIG_WORD keys, in the table's order. Those that the table marks with a star can
 * be named, but never stand in a configuration. */
enum rh_auth_mode { RH_AUTH_NONE, RH_AUTH_JWT, RH_AUTH_WEBHOOK };
enum rh_slow_consumer { RH_SLOW_DISCONNECT, RH_SLOW_OLDEST, RH_SLOW_NEWEST, RH_SLOW_CONFLATE };
enum rh_on_limit { RH_ON_LIMIT_KICK, RH_ON_LIMIT_REJECT };
enum rh_ack_policy { RH_ACK_ANY, RH_ACK_ALL };
enum rh_durability { RH_DURABILITY_COMMIT, RH_DURABILITY_MEMORY };
enum rh_io_backend { RH_BACKEND_AUTO, RH_BACKEND_URING, RH_BACKEND_EPOLL };
enum rh_io_descriptors { RH_DESCRIPTORS_AUTO, RH_DESCRIPTORS_ORDINARY, RH_DESCRIPTORS_DIRECT };

/* One address to listen on, ready for bind(). */
struct rh_listen {
    char text[64]; /* as it was written */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } addr;
    socklen_t addr_len;
    bool loopback; /* 127.0.0.0/8 or ::1: only this machine can reach it */
};

struct rh_listen_list {
    uint32_t count;
    struct rh_listen at[RH_LISTEN_MAX];
};

/* Texts, each ended by a zero byte, one behind the other. */
struct rh_config_list {
    uint32_t count;
    uint32_t len; /* bytes of `text` that are used */
    char text[RH_CONFIG_LIST_MAX];
};

/* The entry behind `entry`, NULL past the last one; NULL for `entry` gives the first:
 *
 *     for (const char *at = NULL; (at = rh_config_list_next(&cfg->security_origins, at));)
 */
const char *rh_config_list_next(const struct rh_config_list *list, const char *entry);

/* The keys that are built, by number: RH_KEY_limits_message_size. */
enum rh_config_slot {
#define RH_CONFIG_BOOL(path, field, ...)   RH_KEY_##field,
#define RH_CONFIG_UINT(path, field, ...)   RH_KEY_##field,
#define RH_CONFIG_MS(path, field, ...)     RH_KEY_##field,
#define RH_CONFIG_BYTES(path, field, ...)  RH_KEY_##field,
#define RH_CONFIG_NUMBER(path, field, ...) RH_KEY_##field,
#define RH_CONFIG_WORD(path, field, ...)   RH_KEY_##field,
#define RH_CONFIG_TEXT(path, field, ...)   RH_KEY_##field,
#define RH_CONFIG_ADDRS(path, field, ...)  RH_KEY_##field,
#define RH_CONFIG_LIST(path, field, ...)   RH_KEY_##field,
#include "core/config.def"
    RH_CONFIG_SLOTS
};

/* One field per key that is built: cfg->limits_message_size (bytes),
 * cfg->heartbeat_interval_ms, cfg->auth_mode, cfg->listen.at[0].addr, ... */
struct rh_config {
#define RH_CONFIG_BOOL(path, field, ...)       bool field;
#define RH_CONFIG_UINT(path, field, ...)       uint32_t field;
#define RH_CONFIG_MS(path, field, ...)         uint32_t field;
#define RH_CONFIG_BYTES(path, field, ...)      uint64_t field;
#define RH_CONFIG_NUMBER(path, field, ...)     double field;
#define RH_CONFIG_WORD(path, field, type, ...) enum type field;
#define RH_CONFIG_TEXT(path, field, ...)       char field[RH_CONFIG_TEXT_MAX + 1];
#define RH_CONFIG_ADDRS(path, field, ...)      struct rh_listen_list field;
#define RH_CONFIG_LIST(path, field, ...)       struct rh_config_list field;
#include "core/config.def"

    char where[RH_CONFIG_SLOTS][RH_CONFIG_WHERE]; /* who set it; "" for a default */
};

/* A second one with the same contents; rh_config_destroy frees it. */
int rh_config_copy(const struct rh_config *cfg, struct rh_config **ret_copy);

/* Reads YAML out of memory over what stands in `cfg`; `name` is the file's name in errors. */
int rh_config_load_text(struct rh_config *cfg, const char *name, const void *bytes, size_t len,
                        struct rh_fault *fault);

/* Makes the snapshot that follows `now` when `want` was read anew (and found right by
 * rh_config_check): what can be changed while a hub runs is as in `want`, the rest as in `now`.
 * RH_ENOMEM: nothing was made. */
int rh_config_reload(const struct rh_config *now, const struct rh_config *want,
                     struct rh_config **ret_next, struct rh_config_changes *ret_changes);

/* Is what failed for that reason (enum rh_reason) tried again? retry.non_retryable wins; an empty
 * retry.retryable names all. */
bool rh_config_retries(const struct rh_config *cfg, unsigned reason);

/* A configuration that nobody changes any more. Each user has a hold; the last one frees it. Any
 * thread. */
struct rh_snapshot {
    _Atomic uint32_t holds; /* acquire-release down */
    struct rh_config *cfg;
};

/* Takes the configuration over; one hold. NULL: no memory. */
struct rh_snapshot *rh_snapshot_make(struct rh_config *take_cfg);
void rh_snapshot_hold_any(struct rh_snapshot *s);
void rh_snapshot_drop_any(struct rh_snapshot *s); /* accepts NULL */

/* ---- the table ------------------------------------------------------------------------------ */

enum rh_config_kind {
    RH_KIND_BOOL,
    RH_KIND_UINT,
    RH_KIND_MS,
    RH_KIND_BYTES,
    RH_KIND_WORD,
    RH_KIND_TEXT,
    RH_KIND_ADDRS,
    RH_KIND_LIST,
    RH_KIND_NUMBER,
    RH_KIND_SECRET, /* from here on: only keys that are not supported yet */
    RH_KIND_SECRETS,
    RH_KIND_GROUP,
};

struct rh_config_key {
    const char *path;
    const char *standard; /* the default as text */
    const char *help;
    const char *words; /* WORD: "none jwt*" */
    enum rh_config_kind kind;
    bool live;         /* a reload can apply it */
    int slot;          /* enum rh_config_slot; -1: not supported yet */
    size_t field;      /* where in struct rh_config */
    uint64_t min, max; /* NUMBER: in thousandths */
    /* LIST: checks one entry and writes it as it is compared ("https://a.example"). */
    int (*entry)(char *text, struct rh_fault *why);
};

/* The i-th key in the documentation's order; NULL past the last one. */
const struct rh_config_key *rh_config_key(size_t i);

/* "duration", "size", "number", ... */
const char *rh_config_kind_name(enum rh_config_kind kind);

/* Writes the key's present value ("64KiB") into out, cut to fit. The key must be built. */
void rh_config_value(const struct rh_config *cfg, const struct rh_config_key *key, char *out,
                     size_t size);

/* Writes "100ms to 10m", "true or false", ... : what the key takes. The key must be built. */
void rh_config_range(const struct rh_config_key *key, char *out, size_t size);

#endif
