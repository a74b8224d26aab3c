/* core/config_value.c - values of configuration keys: text to typed value and back.
 *
 * Why this way: one strict grammar for file, environment and options. A number is digits and
 * nothing else; a duration carries its unit, because a bare 30 means seconds to one person and
 * milliseconds to the next. Every refusal says what would have been right.
 *
 * Threads     any; no state.
 * Limits      the table's bounds; texts RH_CONFIG_TEXT_MAX bytes.
 * Rejected    fractions (1.5s) and sums (1m30s): 1500ms and 90s say the same. Names of hosts in
 *             `listen`: what they resolve to may change between the check and the bind.
 */
#include "core/config_int.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "core/err.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* Smallest first; the printer takes the largest that divides. */
static const struct unit ms_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
static const struct unit byte_units[] = {
    {"B", 1}, {"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30}};

/* ---- numbers -------------------------------------------------------------------------------- */

/* Reads leading digits. Returns how many; *ret_value is UINT64_MAX when it does not fit. */
static size_t digits(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    bool over = false;
    size_t i = 0;

    for (; text[i] >= '0' && text[i] <= '9'; i++)
        over |= __builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value);
    *ret_value = over ? UINT64_MAX : value;
    return i;
}

static int in_range(const struct rh_config_key *key, const char *text, uint64_t value,
                    struct rh_fault *why)
{
    char range[128];

    if (value >= key->min && value <= key->max)
        return 0;
    rh_config_range(key, range, sizeof(range));
    return rh_fault_set(why, RH_EINVAL, "%.40s is out of range: %s", text, range);
}

static int parse_uint(const struct rh_config_key *key, const char *text, uint64_t *ret,
                      struct rh_fault *why)
{
    size_t n = digits(text, ret);

    if (n == 0 || text[n])
        return rh_fault_set(why, RH_EINVAL, "\"%.40s\" is not a whole number", text);
    return in_range(key, text, *ret, why);
}

static int parse_units(const struct rh_config_key *key, const char *text, uint64_t *ret,
                       struct rh_fault *why)
{
    bool is_ms = key->kind == RH_KIND_MS;
    const struct unit *units = is_ms ? ms_units : byte_units;
    size_t n_units = is_ms ? RH_COUNT(ms_units) : RH_COUNT(byte_units);
    size_t n = digits(text, ret);
    uint64_t factor = 0;

    if (n > 0 && !text[n]) {
        if (is_ms && *ret != 0)
            return rh_fault_set(why, RH_EINVAL, "%.40s needs a unit, such as %.40ss or %.40sms",
                                text, text, text);
        factor = 1; /* a size may be plain bytes, and nothing needs no unit */
    }
    for (size_t i = 0; n > 0 && i < n_units; i++)
        if (!strcmp(text + n, units[i].name))
            factor = units[i].factor;
    if (!factor)
        return rh_fault_set(why, RH_EINVAL, "\"%.40s\" is not a %s", text,
                            is_ms ? "duration, such as 200ms, 5s, 2m, 24h or 7d"
                                  : "size, such as 512, 64KiB, 1MiB or 2GiB");
    if (__builtin_mul_overflow(*ret, factor, ret))
        *ret = UINT64_MAX;
    return in_range(key, text, *ret, why);
}

/* The largest unit in which the value is a whole number. */
static void print_units(enum rh_config_kind kind, uint64_t value, char *out, size_t size)
{
    const struct unit *units = kind == RH_KIND_MS ? ms_units : byte_units;
    size_t i = kind == RH_KIND_MS ? RH_COUNT(ms_units) : RH_COUNT(byte_units);

    while (--i > 0 && value % units[i].factor != 0) {
    }
    if (value == 0)
        snprintf(out, size, "0");
    else if (units[i].factor == 1 && kind == RH_KIND_BYTES)
        snprintf(out, size, "%llu", (unsigned long long)value);
    else
        snprintf(out, size, "%llu%s", (unsigned long long)(value / units[i].factor), units[i].name);
}

/* ---- words ---------------------------------------------------------------------------------- */

/* The i-th of the words that are separated by single blanks; without the star of one that is not
 * supported yet. Empty past the last one. */
static struct rh_span word_at(const char *words, size_t i, bool *ret_starred)
{
    struct rh_span word;

    for (; i > 0 && *words; i--) {
        words += strcspn(words, " ");
        words += *words == ' ';
    }
    word = (struct rh_span){words, (uint32_t)strcspn(words, " ")};
    *ret_starred = word.len > 0 && word.at[word.len - 1] == '*';
    word.len -= *ret_starred;
    return word;
}

static int parse_word(const struct rh_config_key *key, const char *text, uint32_t *ret,
                      struct rh_fault *why)
{
    struct rh_span given = {text, (uint32_t)strlen(text)};
    char range[128];
    bool starred;

    for (uint32_t i = 0;; i++) {
        struct rh_span word = word_at(key->words, i, &starred);

        if (word.len == 0)
            break;
        if (!rh_span_eq(word, given))
            continue;
        if (starred)
            return rh_fault_set(why, RH_EUNSUPPORTED, "%s is not supported yet", text);
        *ret = i;
        return 0;
    }
    rh_config_range(key, range, sizeof(range));
    return rh_fault_set(why, RH_EINVAL, "\"%.40s\" is not known: %s", text, range);
}

/* "debug, info, warn or error": the words without a star. */
static void print_words(const char *words, char *out, size_t size)
{
    struct rh_span open[16];
    size_t n = 0;
    size_t at = 0;
    bool starred;

    for (size_t i = 0;; i++) {
        struct rh_span word = word_at(words, i, &starred);

        if (word.len == 0)
            break;
        rh_assert(n < RH_COUNT(open));
        if (!starred)
            open[n++] = word;
    }
    out[0] = '\0';
    for (size_t i = 0; i < n && at < size; i++) {
        const char *gap = i == 0 ? "" : i == n - 1 ? " or " : ", ";

        at += (size_t)snprintf(out + at, size - at, "%s%.*s", gap, (int)open[i].len, open[i].at);
    }
}

static int parse_bool(const char *text, bool *ret, struct rh_fault *why)
{
    *ret = !strcmp(text, "true");
    if (*ret || !strcmp(text, "false"))
        return 0;
    return rh_fault_set(why, RH_EINVAL, "\"%.40s\" is neither true nor false", text);
}

/* ---- addresses ------------------------------------------------------------------------------ */

static bool is_loopback(const struct rh_listen *at)
{
    if (at->addr.any.sa_family == AF_INET)
        return ntohl(at->addr.v4.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&at->addr.v6.sin6_addr);
}

/* Fills `at` from "1.2.3.4" or "[::1]" and a port. False: not such an address. */
static bool fill_addr(struct rh_listen *at, const char *host, uint16_t port)
{
    size_t len = strlen(host);
    char inner[INET6_ADDRSTRLEN];

    if (inet_pton(AF_INET, host, &at->addr.v4.sin_addr) == 1) {
        at->addr.v4.sin_family = AF_INET;
        at->addr.v4.sin_port = htons(port);
        at->addr_len = sizeof(at->addr.v4);
        return true;
    }
    if (len < 2 || len - 2 >= sizeof(inner) || host[0] != '[' || host[len - 1] != ']')
        return false;
    memcpy(inner, host + 1, len - 2);
    inner[len - 2] = '\0';
    if (inet_pton(AF_INET6, inner, &at->addr.v6.sin6_addr) != 1)
        return false;
    at->addr.v6.sin6_family = AF_INET6;
    at->addr.v6.sin6_port = htons(port);
    at->addr_len = sizeof(at->addr.v6);
    return true;
}

static int parse_addr(const char *text, struct rh_listen_list *list, struct rh_fault *why)
{
    const char *colon = strrchr(text, ':');
    struct rh_listen at;
    char host[sizeof(at.text)];
    size_t len = strlen(text);
    uint64_t port = 0;

    memset(&at, 0, sizeof(at));
    if (list->count == RH_LISTEN_MAX)
        return rh_fault_set(why, RH_EINVAL, "more than %d addresses", RH_LISTEN_MAX);
    if (len >= sizeof(at.text) || !colon)
        return rh_fault_set(why, RH_EINVAL, "\"%.80s\" is not ADDR:PORT, such as 127.0.0.1:8080",
                            text);
    if (colon[1] == '\0' || colon[1 + digits(colon + 1, &port)] || port > UINT16_MAX)
        return rh_fault_set(why, RH_EINVAL, "\"%s\" has no port from 0 to 65535", text);
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    if (!fill_addr(&at, host, (uint16_t)port))
        return rh_fault_set(why, RH_EINVAL,
                            "\"%s\" is not a numeric address, such as 127.0.0.1 or [::1]; "
                            "for all addresses write 0.0.0.0 or [::]",
                            host);
    for (uint32_t i = 0; i < list->count; i++)
        if (port != 0 && list->at[i].addr_len == at.addr_len &&
            !memcmp(&list->at[i].addr, &at.addr, at.addr_len))
            return rh_fault_set(why, RH_EINVAL, "%s is there twice", text);
    memcpy(at.text, text, len + 1);
    at.loopback = is_loopback(&at);
    list->at[list->count++] = at;
    return 0;
}

static void print_addrs(const struct rh_listen_list *list, char *out, size_t size)
{
    size_t at = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < list->count && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? "," : "", list->at[i].text);
}

/* ---- any value ------------------------------------------------------------------------------ */

int rh_config_parse(const struct rh_config_key *key, struct rh_span text,
                    struct rh_config_value *value, struct rh_fault *why)
{
    char copy[RH_CONFIG_TEXT_MAX + 1];
    uint64_t number = 0;
    int rc;

    rh_assert(key->slot >= 0);
    if (text.len > RH_CONFIG_TEXT_MAX)
        return rh_fault_set(why, RH_EINVAL, "longer than %d bytes", RH_CONFIG_TEXT_MAX);
    if (text.len && memchr(text.at, 0, text.len))
        return rh_fault_set(why, RH_EINVAL, "has a zero byte inside");
    if (text.len)
        memcpy(copy, text.at, text.len);
    copy[text.len] = '\0';

    switch (key->kind) {
    case RH_KIND_BOOL:
        return parse_bool(copy, &value->as.flag, why);
    case RH_KIND_WORD:
        return parse_word(key, copy, &value->as.small, why);
    case RH_KIND_TEXT:
        memcpy(value->as.text, copy, text.len + 1);
        return 0;
    case RH_KIND_ADDRS:
        return parse_addr(copy, &value->as.addrs, why);
    case RH_KIND_UINT:
        rc = parse_uint(key, copy, &number, why);
        value->as.small = (uint32_t)number;
        return rc;
    case RH_KIND_MS:
        rc = parse_units(key, copy, &number, why);
        value->as.small = (uint32_t)number;
        return rc;
    default:
        rh_assert(key->kind == RH_KIND_BYTES);
        return parse_units(key, copy, &value->as.large, why);
    }
}

void rh_config_store(struct rh_config *cfg, const struct rh_config_key *key,
                     const struct rh_config_value *value, const char *where)
{
    static const size_t sizes[] = {
        [RH_KIND_BOOL] = sizeof(bool),
        [RH_KIND_UINT] = sizeof(uint32_t),
        [RH_KIND_MS] = sizeof(uint32_t),
        [RH_KIND_BYTES] = sizeof(uint64_t),
        [RH_KIND_WORD] = sizeof(uint32_t),
        [RH_KIND_TEXT] = sizeof(value->as.text),
        [RH_KIND_ADDRS] = sizeof(value->as.addrs),
    };
    size_t len = strlen(where);
    size_t room = sizeof(cfg->where[0]) - 1;

    rh_assert(key->slot >= 0 && key->slot < RH_CONFIG_SLOTS && key->kind < RH_COUNT(sizes));
    memcpy((char *)cfg + key->field, &value->as, sizes[key->kind]);
    snprintf(cfg->where[key->slot], sizeof(cfg->where[0]), "%s",
             len > room ? where + (len - room) : where);
}

void rh_config_value(const struct rh_config *cfg, const struct rh_config_key *key, char *out,
                     size_t size)
{
    const void *field = (const char *)cfg + key->field;
    struct rh_span word;
    bool starred;

    rh_assert(key->slot >= 0 && size > 0);
    switch (key->kind) {
    case RH_KIND_BOOL:
        snprintf(out, size, "%s", *(const bool *)field ? "true" : "false");
        break;
    case RH_KIND_UINT:
        snprintf(out, size, "%u", *(const uint32_t *)field);
        break;
    case RH_KIND_MS:
        print_units(key->kind, *(const uint32_t *)field, out, size);
        break;
    case RH_KIND_BYTES:
        print_units(key->kind, *(const uint64_t *)field, out, size);
        break;
    case RH_KIND_WORD:
        word = word_at(key->words, *(const uint32_t *)field, &starred);
        snprintf(out, size, "%.*s", (int)word.len, word.at);
        break;
    case RH_KIND_TEXT:
        snprintf(out, size, "%s", (const char *)field);
        break;
    default:
        rh_assert(key->kind == RH_KIND_ADDRS);
        print_addrs(field, out, size);
    }
}

void rh_config_range(const struct rh_config_key *key, char *out, size_t size)
{
    char min[32];
    char max[32];

    rh_assert(key->slot >= 0 && size > 0);
    switch (key->kind) {
    case RH_KIND_BOOL:
        snprintf(out, size, "true or false");
        break;
    case RH_KIND_UINT:
        snprintf(out, size, "%llu to %llu", (unsigned long long)key->min,
                 (unsigned long long)key->max);
        break;
    case RH_KIND_MS:
    case RH_KIND_BYTES:
        print_units(key->kind, key->min, min, sizeof(min));
        print_units(key->kind, key->max, max, sizeof(max));
        snprintf(out, size, "%s to %s", min, max);
        break;
    case RH_KIND_WORD:
        print_words(key->words, out, size);
        break;
    case RH_KIND_TEXT:
        snprintf(out, size, "at most %d bytes", RH_CONFIG_TEXT_MAX);
        break;
    default:
        rh_assert(key->kind == RH_KIND_ADDRS);
        snprintf(out, size, "1 to %d addresses", RH_LISTEN_MAX);
    }
}
