/* core/config_yaml.c - the one home of libyaml: a file's keys and values, each with its line.
 *
 * Why this way: libyaml's events carry the line of every scalar, which is what an error has to
 * name. We walk them by recursive descent and carry the dotted path along, so that nested groups
 * and dotted keys are the same thing:
 *
 *     limits:                       limits: {message_size: 1MiB}       limits.message_size: 1MiB
 *       message_size: 1MiB
 *
 * Anchors, aliases and tags are refused: a configuration that has to be evaluated to be read is
 * harder to trust. Every key and every group may stand in a file once.
 *
 * Threads     any; no state.
 * Ownership   libyaml's memory (from malloc, not from core/mem) lives within one call.
 * Limits      RH_CONFIG_FILE_MAX bytes. Recursion goes no deeper than the longest path of the table
 *             has parts, since a group that is no key's beginning is refused before it is entered.
 */
#include "core/config_int.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "core/err.h"

#define PARTS_MAX 4   /* of a path; the longest has 3 */
#define KEYS_MAX  256 /* rows of config.def that have room below */

struct load {
    yaml_parser_t parser;
    struct rh_config *cfg;
    const char *name;
    const char *text;
    size_t len;
    struct rh_fault *fault;
    char path[256]; /* of the key that we are in */
    size_t path_len;

    /* The line of each key's, each group's first appearance; 0: not yet. A group is named by the
     * key that rh_config_find gives for it and by its number of parts. */
    uint32_t key_line[KEYS_MAX];
    uint32_t group_line[KEYS_MAX][PARTS_MAX];
};

/* ---- errors --------------------------------------------------------------------------------- */

static void place(const struct load *ld, size_t line, char out[RH_CONFIG_WHERE])
{
    size_t len = strlen(ld->name);
    size_t room = RH_CONFIG_WHERE - 16; /* for the line */

    snprintf(out, RH_CONFIG_WHERE, "%s:%zu", len > room ? ld->name + (len - room) : ld->name, line);
}

static int fail(struct load *ld, size_t line, const char *sentence)
{
    char where[RH_CONFIG_WHERE];

    place(ld, line, where);
    return rh_config_fault(ld->fault, RH_EINVAL, where, ld->path, ": %s", sentence);
}

static size_t line_of(const yaml_event_t *ev)
{
    return ev->start_mark.line + 1;
}

/* What libyaml itself did not like. */
static int fail_parser(struct load *ld)
{
    const yaml_parser_t *p = &ld->parser;
    size_t line = p->problem_mark.line + 1;
    char where[RH_CONFIG_WHERE];

    if (p->error == YAML_MEMORY_ERROR)
        return rh_fault_set(ld->fault, RH_ENOMEM, "no memory for reading %.300s", ld->name);
    if (p->error == YAML_READER_ERROR) { /* the only kind that tells an offset instead */
        line = 1;
        for (size_t i = 0; i < ld->len && i < p->problem_offset; i++)
            line += ld->text[i] == '\n';
    }
    place(ld, line, where);
    return rh_config_fault(ld->fault, RH_EINVAL, where, "", ": %s%s%s",
                           p->problem ? p->problem : "not YAML", p->context ? " " : "",
                           p->context ? p->context : "");
}

/* ---- events --------------------------------------------------------------------------------- */

static const char *extra_of(const yaml_event_t *ev)
{
    switch (ev->type) {
    case YAML_ALIAS_EVENT:
        return "aliases (*name) are not allowed here";
    case YAML_SCALAR_EVENT:
        return ev->data.scalar.anchor ? "anchors (&name) are not allowed here"
               : ev->data.scalar.tag  ? "tags (!name) are not allowed here"
                                      : NULL;
    case YAML_SEQUENCE_START_EVENT:
        return ev->data.sequence_start.anchor ? "anchors (&name) are not allowed here"
               : ev->data.sequence_start.tag  ? "tags (!name) are not allowed here"
                                              : NULL;
    case YAML_MAPPING_START_EVENT:
        return ev->data.mapping_start.anchor ? "anchors (&name) are not allowed here"
               : ev->data.mapping_start.tag  ? "tags (!name) are not allowed here"
                                             : NULL;
    default:
        return NULL;
    }
}

/* The next event, which the caller deletes; on an error there is none. */
static int next(struct load *ld, yaml_event_t *ret_ev)
{
    const char *extra;
    size_t line;

    if (!yaml_parser_parse(&ld->parser, ret_ev))
        return fail_parser(ld);
    extra = extra_of(ret_ev);
    if (!extra)
        return 0;
    line = line_of(ret_ev);
    yaml_event_delete(ret_ev);
    return fail(ld, line, extra);
}

/* Nothing was written, or one of YAML's words for it. */
static bool is_null(const yaml_event_t *ev)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    const char *text = (const char *)ev->data.scalar.value;

    if (ev->type != YAML_SCALAR_EVENT || ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < RH_COUNT(words); i++)
        if (!strcmp(text, words[i]))
            return true;
    return false;
}

/* ---- values --------------------------------------------------------------------------------- */

static struct rh_span text_of(const yaml_event_t *ev)
{
    return (struct rh_span){(const char *)ev->data.scalar.value,
                            (uint32_t)ev->data.scalar.length}; /* the file is small */
}

static int parse_item(struct load *ld, const struct rh_config_key *key, const yaml_event_t *ev,
                      struct rh_config_value *value)
{
    struct rh_fault why = {""};
    char where[RH_CONFIG_WHERE];
    int rc;

    if (ev->type != YAML_SCALAR_EVENT)
        return fail(ld, line_of(ev), "takes plain values, no lists or groups in a list");
    if (is_null(ev))
        return fail(ld, line_of(ev), "needs a value");
    rc = rh_config_parse(key, text_of(ev), value, &why);
    if (rc == 0)
        return 0;
    place(ld, line_of(ev), where);
    return rh_config_fault(ld->fault, rc, where, ld->path, ": %s", why.text);
}

/* Items up to the end of the list, whose beginning has been read. */
static int load_list(struct load *ld, const struct rh_config_key *key, size_t line,
                     struct rh_config_value *value)
{
    if (!rh_config_takes_many(key))
        return fail(ld, line, "takes one value, not a list");
    for (size_t n = 0;; n++) {
        yaml_event_t ev = {0};
        int rc = next(ld, &ev);

        if (rc < 0)
            return rc;
        if (ev.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&ev);
            return n > 0 || key->kind == RH_KIND_LIST ? 0 : fail(ld, line, "needs a value");
        }
        rc = parse_item(ld, key, &ev, value);
        yaml_event_delete(&ev);
        if (rc < 0)
            return rc;
    }
}

static int load_key(struct load *ld, const struct rh_config_key *key, const yaml_event_t *ev,
                    size_t key_line)
{
    struct rh_config_value value;
    char where[RH_CONFIG_WHERE];
    int rc = 0;

    memset(&value, 0, sizeof(value));
    if (ev->type == YAML_MAPPING_START_EVENT)
        return fail(ld, line_of(ev), "takes a value, not a group of keys");
    if (ev->type == YAML_SEQUENCE_START_EVENT)
        rc = load_list(ld, key, line_of(ev), &value);
    else if (is_null(ev) || !rh_config_no_entries(key, text_of(ev)))
        rc = parse_item(ld, key, ev, &value);
    if (rc < 0)
        return rc;
    place(ld, key_line, where);
    rh_config_store(ld->cfg, key, &value, where);
    return 0;
}

/* ---- keys ----------------------------------------------------------------------------------- */

/* Makes the key in `ev` the end of the path. */
static int enter_key(struct load *ld, const yaml_event_t *ev)
{
    const char *text = (const char *)ev->data.scalar.value;
    size_t len = ev->data.scalar.length;
    size_t dot = ld->path_len > 0;

    if (ev->type != YAML_SCALAR_EVENT)
        return fail(ld, line_of(ev), "a key must be plain text");
    if (len == 0 || memchr(text, 0, len) || ld->path_len + dot + len >= sizeof(ld->path))
        return fail(ld, line_of(ev), "has a key that is empty, too long or has a zero byte inside");
    if (dot)
        ld->path[ld->path_len++] = '.';
    memcpy(ld->path + ld->path_len, text, len + 1);
    ld->path_len += len;
    return 0;
}

/* Remembers that the path was seen at `line`; once is enough. */
static int once(struct load *ld, enum rh_config_found found, const struct rh_config_key *key,
                size_t line)
{
    size_t i = (size_t)(key - rh_config_key(0));
    size_t parts = 0;
    uint32_t *seen;
    char sentence[64];

    for (const char *at = ld->path; *at; at++)
        parts += *at == '.';
    rh_assert(i < KEYS_MAX && parts < PARTS_MAX);
    seen = found == RH_FOUND_GROUP ? &ld->group_line[i][parts] : &ld->key_line[i];
    snprintf(sentence, sizeof(sentence), "stands in line %u already", *seen);
    if (*seen)
        return fail(ld, line, sentence);
    *seen = (uint32_t)line;
    return 0;
}

static int load_mapping(struct load *ld);

/* The value of the path, be it a key's or a group. */
static int load_value(struct load *ld, size_t line)
{
    const struct rh_config_key *key;
    enum rh_config_found found = rh_config_find(ld->path, &key);
    char where[RH_CONFIG_WHERE];
    yaml_event_t ev = {0};
    int rc = 0;

    place(ld, line, where);
    if (found != RH_FOUND_GROUP)
        rc = rh_config_find_settable(ld->path, where, &key, ld->fault);
    if (rc == 0)
        rc = once(ld, found, key, line);
    if (rc == 0)
        rc = next(ld, &ev);
    if (rc < 0)
        return rc;

    if (found == RH_FOUND_KEY)
        rc = load_key(ld, key, &ev, line);
    else if (ev.type == YAML_MAPPING_START_EVENT)
        rc = load_mapping(ld);
    else if (is_null(&ev))
        rc = fail(ld, line_of(&ev), "needs a value");
    else
        rc = rh_config_find_settable(ld->path, where, &key, ld->fault);
    yaml_event_delete(&ev);
    return rc;
}

/* Keys and values up to the end of a mapping, whose beginning has been read. */
static int load_mapping(struct load *ld)
{
    size_t base = ld->path_len;

    for (;;) {
        yaml_event_t ev = {0};
        size_t line;
        bool end;
        int rc = next(ld, &ev);

        if (rc < 0)
            return rc;
        line = line_of(&ev);
        end = ev.type == YAML_MAPPING_END_EVENT;
        if (!end)
            rc = enter_key(ld, &ev);
        yaml_event_delete(&ev);
        if (end || rc < 0)
            return rc;
        rc = load_value(ld, line);
        if (rc < 0)
            return rc;
        ld->path_len = base;
        ld->path[base] = '\0';
    }
}

/* ---- the file ------------------------------------------------------------------------------- */

/* One document at most, and in it one mapping or nothing. */
static int load_stream(struct load *ld)
{
    bool had_one = false;

    for (;;) {
        yaml_event_t ev = {0};
        bool end;
        int rc = next(ld, &ev);

        if (rc < 0)
            return rc;
        end = ev.type == YAML_STREAM_END_EVENT;
        if (ev.type == YAML_DOCUMENT_START_EVENT && had_one)
            rc = fail(ld, line_of(&ev), "only one document is allowed in a file");
        else if (ev.type == YAML_MAPPING_START_EVENT)
            rc = load_mapping(ld);
        else if (ev.type == YAML_SEQUENCE_START_EVENT ||
                 (ev.type == YAML_SCALAR_EVENT && !is_null(&ev)))
            rc = fail(ld, line_of(&ev), "expected keys with values, such as shards: 4");
        had_one |= ev.type == YAML_DOCUMENT_START_EVENT;
        yaml_event_delete(&ev);
        if (end || rc < 0)
            return rc;
    }
}

int rh_config_load_text(struct rh_config *cfg, const char *name, const void *bytes, size_t len,
                        struct rh_fault *fault)
{
    struct load ld = {.name = name, .text = bytes, .len = len, .fault = fault};
    bool parser = false;
    int rc;

    if (len > RH_CONFIG_FILE_MAX)
        return rh_config_fault(fault, RH_EINVAL, name, "", ": larger than 1 MiB");
    rc = rh_config_copy(cfg, &ld.cfg);
    if (rc == 0) {
        parser = yaml_parser_initialize(&ld.parser);
        rc = parser ? 0 : RH_ENOMEM;
    }
    if (rc < 0) {
        rh_fault_set(fault, rc, "no memory for reading %.300s", name);
        goto out;
    }
    yaml_parser_set_input_string(&ld.parser, (const unsigned char *)ld.text, len);
    rc = load_stream(&ld);
    if (rc == 0)
        *cfg = *ld.cfg;
out:
    if (parser)
        yaml_parser_delete(&ld.parser);
    rh_config_destroy(ld.cfg);
    return rc;
}
