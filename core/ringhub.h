/* core/ringhub.h - the public contract of libringhub: embed the hub in a program of your own.
 *
 * A program makes a configuration, creates a hub from it, starts it and, when it is time, stops
 * it; ringhubd is such a program and uses nothing else. The hub owns its threads. What clients see
 * on the wire is described in docs/protocol.md.
 *
 * Errors     functions return 0 or a negative enum rh_err; where there is more to say they fill a
 *            struct rh_fault with one English sentence.
 * Threads    said at each function; "any" means any thread, one call at a time per object.
 * Names      everything here begins with rh_ or RH_; nothing else is exported for use.
 */
#ifndef RINGHUB_H
#define RINGHUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RH_VERSION "0.1.0"

enum rh_err {
    RH_OK = 0,
    RH_ENOMEM = -1,       /* memory is gone */
    RH_EINVAL = -2,       /* an argument or a value is not allowed */
    RH_EFULL = -3,        /* a bound was reached; nothing moved, try later */
    RH_ETHREAD = -4,      /* called on the wrong thread */
    RH_ETIMEDOUT = -5,    /* the deadline passed */
    RH_EIO = -6,          /* the operating system refused; the fault says what */
    RH_EADDRINUSE = -7,   /* another process listens there */
    RH_ENOTFOUND = -8,    /* no such thing */
    RH_EUNSUPPORTED = -9, /* not supported here, or not yet */
    RH_ESTATE = -10,      /* not possible in the present state (started twice, ...) */
    RH_ECLOSED = -11,     /* the peer has gone */
};

/* A short name of an error ("no memory"); never NULL. Any thread. */
const char *rh_err_text(int err);

/* What went wrong, for a person: one sentence without a newline, cut to fit. */
struct rh_fault {
    char text[512];
};

/* The version of the library, RH_VERSION of its build. Any thread. */
const char *rh_version(void);

/* ---- configuration ------------------------------------------------------------------------- */

/* All keys with their values (docs/configuration.md lists them). Built in steps: defaults, then a
 * file, then the environment, then single values; a later one wins. One thread at a time. */
struct rh_config;

int rh_config_create(struct rh_config **ret_cfg);
void rh_config_destroy(struct rh_config *cfg); /* accepts NULL */

/* Reads a YAML file over what stands in `cfg`. RH_EINVAL: `fault` names file, line and key. */
int rh_config_load_file(struct rh_config *cfg, const char *path, struct rh_fault *fault);

/* Reads RINGHUB_SHARDS, RINGHUB_ACK__TIMEOUT, RINGHUB_..._FILE and so on out of `environ`
 * (a NULL-terminated array of NAME=value). An unknown RINGHUB_ name is RH_EINVAL. */
int rh_config_load_env(struct rh_config *cfg, char *const environ[], struct rh_fault *fault);

/* Sets one key ("limits.message_size") from text ("64KiB"). `where` names the source in the error
 * ("--set"). RH_EINVAL: unknown key or bad value; RH_EUNSUPPORTED: known, but not built yet. */
int rh_config_set(struct rh_config *cfg, const char *key, const char *value, const char *where,
                  struct rh_fault *fault);

/* Checks what only shows when all is known (timeout over interval, safety of auth.mode none).
 * rh_hub_create calls it, too. */
int rh_config_check(const struct rh_config *cfg, struct rh_fault *fault);

/* Calls `line` for every key that is built, in order: its path, present value, default and help. */
void rh_config_print(const struct rh_config *cfg,
                     void (*line)(void *arg, const char *key, const char *value,
                                  const char *standard, const char *help),
                     void *arg);

/* ---- the hub ------------------------------------------------------------------------------- */

struct rh_hub;

/* Checks that this machine can run a hub (io_uring above all) and binds the listening sockets;
 * nothing runs yet. Raises the process's soft limit of open files (RLIMIT_NOFILE) to the hard one.
 * The configuration is copied. `fault` explains any error in words. Any thread. */
int rh_hub_create(const struct rh_config *cfg, struct rh_hub **ret_hub, struct rh_fault *fault);

/* Starts all threads; returns when clients are let in: every shard accepts connections, and what the
 * journal has has been read (meanwhile they are answered 503, and so is /readyz). RH_EIO: the journal is
 * in use, damaged, or cannot be written; `fault` says which, and nothing runs any more. Any thread but
 * the hub's own, once. */
int rh_hub_start(struct rh_hub *hub, struct rh_fault *fault);

/* The i-th address that the hub listens on ("127.0.0.1:8080"), as bound; NULL past the last one.
 * Valid until rh_hub_destroy. Any thread. */
const char *rh_hub_address(const struct rh_hub *hub, unsigned i);

/* Number of shards. Any thread. */
unsigned rh_hub_shards(const struct rh_hub *hub);

/* What a reload changed: names of keys with commas between them, "" for none; ends with "..." when
 * there were more than fit. */
#define RH_CONFIG_CHANGES 400
struct rh_config_changes {
    char applied[RH_CONFIG_CHANGES]; /* have their new values from now on */
    char restart[RH_CONFIG_CHANGES]; /* keep their old ones until the hub is started anew */
};

/* Gives a running hub the values of `cfg` (read anew, as a whole) for all keys that can change while
 * it runs, within a pass of each shard, and logs what changed. RH_EINVAL: `cfg` contradicts itself;
 * RH_ENOMEM, RH_ESTATE: nothing changed. Any thread but the hub's own (RH_ETHREAD); waits for a
 * reload or stop that is under way. */
int rh_hub_reload(struct rh_hub *hub, const struct rh_config *cfg,
                  struct rh_config_changes *ret_changes, struct rh_fault *fault);

/* Writes a warning into the hub's log: `event` is a dotted name, `why` a sentence. Any thread. */
void rh_hub_warn(struct rh_hub *hub, const char *event, const char *why);

/* Opens log.file by its name anew, after it was moved away. Any thread, not a signal handler. */
int rh_hub_reopen_log(struct rh_hub *hub);

/* Refuses new clients, closes every connection with 1001 within shutdown.grace, ends all threads
 * and waits for them. May come twice; a hub that never started is fine. Not from a hub's own
 * thread (RH_ETHREAD). Returns RH_ETIMEDOUT when connections had to be cut at the deadline. */
int rh_hub_stop(struct rh_hub *hub);

/* Frees it; stops it first where that is still to be done. Accepts NULL. */
void rh_hub_destroy(struct rh_hub *hub);

#ifdef __cplusplus
}
#endif

#endif
