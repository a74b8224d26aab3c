/* core/config_value.c - values of configuration keys: text to typed value and back.
 *
 * Why this way: one strict grammar for file, environment and options. A number is digits and
 * nothing else; a duration carries its unit, because a bare 30 means seconds to one person and
 * milliseconds to the next. Every refusal says what would have been right.
 *
 * Threads     any; no state.
 * Limits      the table's bounds; texts and entries of lists RH_CONFIG_TEXT_MAX bytes.
 * Rejected    fractions (1.5s) and sums (1m30s): 1500ms and 90s say the same. strtod for numbers:
 *             it takes "nan", "0x1p3" and, in some locales, only a comma. Names of hosts in
 *             `listen`: what they resolve to may change between the check and the bind.
 */
#include "core/config_int.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/err.h"
#include "core/promise.h"

struct unit {
    const char *name;
    uint64_t factor;
};

#define THOUSANDTHS 1000 /* what a NUMBER is counted in */

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

/* "2", "2.0" or "1.125": at most three digits behind the point. */
static int parse_number(const struct rh_config_key *key, const char *text, double *ret,
                        struct rh_fault *why)
{
    uint64_t value;
    uint64_t part = 0;
    size_t n = digits(text, &value);
    size_t behind = n && text[n] == '.' ? digits(text + n + 1, &part) : 0;
    size_t end = behind ? n + 1 + behind : n;

    if (n == 0 || text[end] || behind > 3)
        return rh_fault_set(why, RH_EINVAL, "\"%.40s\" is not a number, such as 2 or 1.5", text);
    for (; behind > 0 && behind < 3; behind++)
        part *= 10;
    if (__builtin_mul_overflow(value, THOUSANDTHS, &value) ||
        __builtin_add_overflow(value, part, &value))
        value = UINT64_MAX;
    *ret = (double)value / THOUSANDTHS;
    return in_range(key, text, value, why);
}

/* At least one digit behind the point, so that it looks like what it is. */
static void print_number(uint64_t thousandths, char *out, size_t size)
{
    char text[32];
    size_t len = (size_t)snprintf(text, sizeof(text), "%llu.%03llu",
                                  (unsigned long long)thousandths / THOUSANDTHS,
                                  (unsigned long long)thousandths % THOUSANDTHS);

    while (text[len - 1] == '0' && text[len - 2] != '.')
        text[--len] = '\0';
    snprintf(out, size, "%s", text);
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
    memcpy(&list->at[list->count++], &at, sizeof(at)); /* all bytes: reloading compares them */
    return 0;
}

static void print_addrs(const struct rh_listen_list *list, char *out, size_t size)
{
    size_t at = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < list->count && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? "," : "", list->at[i].text);
}

/* ---- lists ---------------------------------------------------------------------------------- */

const char *rh_config_list_next(const struct rh_config_list *list, const char *entry)
{
    const char *next = entry ? entry + strlen(entry) + 1 : list->text;

    return next < list->text + list->len ? next : NULL;
}

static int parse_entry(const struct rh_config_key *key, char *text, struct rh_config_list *list,
                       struct rh_fault *why)
{
    int rc = key->entry(text, why);
    size_t size = strlen(text) + 1;

    if (rc < 0)
        return rc;
    if (size > sizeof(list->text) - list->len)
        return rh_fault_set(why, RH_EINVAL, "more than %d bytes in all", RH_CONFIG_LIST_MAX);
    for (const char *at = NULL; (at = rh_config_list_next(list, at));)
        if (!strcmp(at, text))
            return rh_fault_set(why, RH_EINVAL, "%.300s is there twice", text);
    memcpy(list->text + list->len, text, size);
    list->len += (uint32_t)size;
    list->count++;
    return 0;
}

static void print_list(const struct rh_config_list *list, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (const char *at = NULL; used < size && (at = rh_config_list_next(list, at));)
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "," : "", at);
}

static int bad_origin(const char *text, struct rh_fault *why)
{
    return rh_fault_set(why, RH_EINVAL,
                        "\"%.80s\" is not an origin, such as https://example.com or "
                        "https://example.com:8443; * for any",
                        text);
}

/* "example.com" (bytes that may stand in a name or an IPv4 address) or "[::1]". */
static bool is_host(const char *host, size_t len)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyz0123456789-._";
    char inner[INET6_ADDRSTRLEN];
    struct in6_addr v6;

    if (len > 2 && len - 2 < sizeof(inner) && host[0] == '[' && host[len - 1] == ']') {
        snprintf(inner, sizeof(inner), "%.*s", (int)(len - 2), host + 1);
        return inet_pton(AF_INET6, inner, &v6) == 1;
    }
    return len > 0 && len <= 253 && strspn(host, name) >= len && host[0] != '.';
}

/* Browsers leave out the port that the scheme has anyway, so we do, too. */
int rh_config_entry_origin(char *text, struct rh_fault *why)
{
    bool tls = !strncasecmp(text, "https://", 8);
    char *host = text + (tls ? 8 : 7);
    uint64_t port = 0;
    char *colon;

    if (!strcmp(text, "*"))
        return 0;
    if (!tls && strncasecmp(text, "http://", 7) != 0)
        return bad_origin(text, why);
    for (char *at = text; *at; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at - 'A' + 'a');
    colon = strchr(host[0] == '[' ? host + strcspn(host, "]") : host, ':');
    if (!is_host(host, colon ? (size_t)(colon - host) : strlen(host)))
        return bad_origin(text, why);
    if (!colon)
        return 0;
    if (colon[1] == '\0' || colon[1 + digits(colon + 1, &port)] || port < 1 || port > UINT16_MAX)
        return rh_fault_set(why, RH_EINVAL, "\"%.300s\" has no port from 1 to 65535", text);
    if (port == (tls ? 443 : 80))
        *colon = '\0';
    else
        snprintf(colon + 1, strlen(colon + 1) + 1, "%u", (unsigned)port);
    return 0;
}

int rh_config_entry_reason(char *text, struct rh_fault *why)
{
    for (unsigned r = RH_REASON_none + 1; r < RH_REASON_COUNT; r++)
        if (!strcmp(text, rh_reason_name(r)))
            return RH_OK;
    return rh_fault_set(why, RH_EINVAL, "\"%.300s\" is no reason", text);
}

static bool names(const struct rh_config_list *list, unsigned reason)
{
    for (const char *at = NULL; (at = rh_config_list_next(list, at));)
        if (!strcmp(at, rh_reason_name(reason)))
            return true;
    return false;
}

bool rh_config_retries(const struct rh_config *cfg, unsigned reason)
{
    return !names(&cfg->retry_non_retryable, reason) &&
           (cfg->retry_retryable.count == 0 || names(&cfg->retry_retryable, reason));
}

/* ---- any value ------------------------------------------------------------------------------ */

bool rh_config_takes_many(const struct rh_config_key *key)
{
    return key->kind == RH_KIND_ADDRS || key->kind == RH_KIND_LIST;
}

bool rh_config_no_entries(const struct rh_config_key *key, struct rh_span text)
{
    return key->kind == RH_KIND_LIST && text.len == 0;
}

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
    case RH_KIND_LIST:
        return parse_entry(key, copy, &value->as.list, why);
    case RH_KIND_NUMBER:
        return parse_number(key, copy, &value->as.number, why);
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

size_t rh_config_size(const struct rh_config_key *key)
{
    static const size_t sizes[] = {
        [RH_KIND_BOOL] = sizeof(bool),
        [RH_KIND_UINT] = sizeof(uint32_t),
        [RH_KIND_MS] = sizeof(uint32_t),
        [RH_KIND_BYTES] = sizeof(uint64_t),
        [RH_KIND_WORD] = sizeof(uint32_t),
        [RH_KIND_TEXT] = RH_CONFIG_TEXT_MAX + 1,
        [RH_KIND_ADDRS] = sizeof(struct rh_listen_list),
        [RH_KIND_LIST] = sizeof(struct rh_config_list),
        [RH_KIND_NUMBER] = sizeof(double),
    };

    rh_assert(key->slot >= 0 && key->slot < RH_CONFIG_SLOTS && key->kind < RH_COUNT(sizes));
    return sizes[key->kind];
}

void rh_config_store(struct rh_config *cfg, const struct rh_config_key *key,
                     const struct rh_config_value *value, const char *where)
{
    size_t len = strlen(where);
    size_t room = sizeof(cfg->where[0]) - 1;

    memcpy((char *)cfg + key->field, &value->as, rh_config_size(key));
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
    case RH_KIND_LIST:
        print_list(field, out, size);
        break;
    case RH_KIND_NUMBER:
        print_number((uint64_t)(*(const double *)field * THOUSANDTHS + 0.5), out, size);
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
    case RH_KIND_LIST:
        snprintf(out, size, "at most %d bytes", RH_CONFIG_LIST_MAX);
        break;
    case RH_KIND_NUMBER:
        print_number(key->min, min, sizeof(min));
        print_number(key->max, max, sizeof(max));
        snprintf(out, size, "%s to %s", min, max);
        break;
    default:
        rh_assert(key->kind == RH_KIND_ADDRS);
        snprintf(out, size, "1 to %d addresses", RH_LISTEN_MAX);
    }
}
