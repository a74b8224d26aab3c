/* core/config_int.h - what config.c, config_value.c and config_yaml.c share; stays in core.
 *
 * A value is parsed on its own and stored when it is whole, so that a bad one changes nothing.
 */
#ifndef RH_CONFIG_INT_H
#define RH_CONFIG_INT_H

#include "core/config.h"

/* A parsed value, not yet in a configuration. Begins zeroed; ADDRS and LIST grow with each parse. */
struct rh_config_value {
    union {
        bool flag;                         /* BOOL */
        uint32_t small;                    /* UINT, MS, WORD */
        uint64_t large;                    /* BYTES */
        char text[RH_CONFIG_TEXT_MAX + 1]; /* TEXT */
        struct rh_listen_list addrs;       /* ADDRS */
        struct rh_config_list list;        /* LIST */
        double number;                     /* NUMBER */
    } as;
};

enum rh_config_found {
    RH_FOUND_NONE,  /* no such key */
    RH_FOUND_GROUP, /* the beginning of keys: "limits" */
    RH_FOUND_KEY,
};

/* Looks a path up. GROUP: *ret_key is the group's first key, one that is
 * built where there is one. */
enum rh_config_found rh_config_find(const char *path, const struct rh_config_key **ret_key);

/* Like find, and refuses with a sentence what cannot be set: unknown, or not supported yet. */
int rh_config_find_settable(const char *path, const char *where,
                            const struct rh_config_key **ret_key, struct rh_fault *fault);

/* RH_EINVAL or RH_EUNSUPPORTED: `why` is the end of a sentence that begins with the key. */
int rh_config_parse(const struct rh_config_key *key, struct rh_span text,
                    struct rh_config_value *value, struct rh_fault *why);

/* True when the whole value `text` is a list without entries: there is nothing to parse. */
bool rh_config_no_entries(const struct rh_config_key *key, struct rh_span text);

/* True for a key that several values may be given to. */
bool rh_config_takes_many(const struct rh_config_key *key);

/* Checks of a list's entries, named in config.def: RH_EINVAL, or `text` as it will be compared. */
int rh_config_entry_origin(char *text, struct rh_fault *why);
/* Checks an entry of retry.retryable and retry.non_retryable: a reason of core/promise.h. */
int rh_config_entry_reason(char *text, struct rh_fault *why);

/* Bytes of the key's field. Two fields with the same value have the same bytes. */
size_t rh_config_size(const struct rh_config_key *key);

void rh_config_store(struct rh_config *cfg, const struct rh_config_key *key,
                     const struct rh_config_value *value, const char *where);

/* Fills `fault` with "where: path" and the rest, without control characters; returns err. */
int rh_config_fault(struct rh_fault *fault, int err, const char *where, const char *path,
                    const char *fmt, ...) __attribute__((format(printf, 5, 6)));

#endif
