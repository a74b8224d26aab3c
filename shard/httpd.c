/* shard/httpd.c - HTTP requests: health, metrics, upgrades, and a clear no to everything else.
 *
 * One request of a connection is answered at a time, in order: while an answer is on its way
 * nothing more is read, which also bounds what a client can pipeline. A refusal before the upgrade
 * has a JSON body {"error":{"code","message"}}. Malformed heads and requests with a body (none of
 * these paths takes one) are answered and end the connection; other refusals leave it open.
 */
#include "shard/shard_int.h"

#include <stdio.h>
#include <string.h>

#include "core/err.h"
#include "core/mem.h"
#include "proto/json.h"

#define ANSWER_ROOM 1024
#define HEAD_ROOM   512
#define FIELDS_ROOM 256
#define NO_CACHE    "Cache-Control: no-store\r\n"

/* ---- answers ---- */

static void answer(struct rh_shard *sh, struct rh_conn *c, unsigned status, const char *type,
                   const char *extra, const char *body, size_t len, bool keep)
{
    bool head_only = sh->head.method == RH_HTTP_HEAD;
    size_t room = HEAD_ROOM + len;
    uint8_t *own = rh_conn_own(sh, c, room);
    char date[RH_HTTP_DATE], fields[FIELDS_ROOM];
    size_t used;
    int fields_len;

    if (!own)
        return;
    rh_http_date(date, rh_now_unix_ms(sh) / 1000);
    fields_len = snprintf(fields, sizeof(fields), "%sDate: %s\r\n", extra, date);
    rh_assert(fields_len < FIELDS_ROOM);
    used = rh_http_response((char *)own, room, status, type, fields, keep, body, len, head_only);
    rh_assert(used);
    rh_conn_own_done(sh, c, used);
    if (!keep)
        c->last_answer = true;
}

/* What a refusal is called, counted as, and says besides; the first row is for all others. A 429 is
 * counted where it is decided, by its cause (shard/admit.c). */
struct refusal {
    unsigned status;
    enum rh_wire_error name;
    enum rh_stat stat;
    const char *fields;
};

static const struct refusal refusals[] = {
    {400, RH_WIRE_bad_request, RH_STAT_connections_refused_malformed, ""},
    {401, RH_WIRE_unauthorized, RH_STAT_connections_refused_unauthorized, ""},
    {403, RH_WIRE_forbidden, RH_STAT_connections_refused_forbidden, ""},
    {404, RH_WIRE_not_found, RH_STAT_connections_refused_not_found, ""},
    {405, RH_WIRE_method_not_allowed, RH_STAT_connections_refused_method, "Allow: GET\r\n"},
    {414, RH_WIRE_uri_too_long, RH_STAT_connections_refused_uri, ""},
    {426, RH_WIRE_upgrade_required, RH_STAT_connections_refused_upgrade, RH_UPGRADE_426_FIELDS},
    {429, RH_WIRE_rate_limited, RH_STATS, ""},
    {431, RH_WIRE_head_too_large, RH_STAT_connections_refused_head, ""},
    {500, RH_WIRE_internal, RH_STAT_connections_refused_memory, ""},
    {503, RH_WIRE_unavailable, RH_STAT_connections_refused_full, "Retry-After: 1\r\n"},
};

static const struct refusal *find_refusal(unsigned status)
{
    for (size_t i = 0; i < RH_COUNT(refusals); i++)
        if (refusals[i].status == status)
            return &refusals[i];
    return &refusals[0];
}

static void refuse(struct rh_shard *sh, struct rh_conn *c, const struct refusal *refusal,
                   unsigned status, const char *why, const char *fields, bool keep)
{
    const char *name = rh_wire_error_name(refusal->name);
    enum rh_stat stat = refusal->stat;
    char body[ANSWER_ROOM];
    struct rh_writer w;

    if (status == 503 && sh->draining)
        stat = RH_STAT_connections_refused_draining;
    else if (status == 503 && !sh->loaded)
        stat = RH_STAT_connections_refused_starting;
    if (stat != RH_STATS)
        rh_stat_add(&sh->stats, stat, 1);
    rh_writer_init(&w, body, sizeof(body));
    RH_PUT(&w, "{\"error\":{\"code\":\"");
    rh_put(&w, name, strlen(name));
    RH_PUT(&w, "\",\"message\":");
    rh_put_str(&w, (struct rh_span){why, (uint32_t)strlen(why)});
    RH_PUT(&w, "}}\n");
    rh_assert(!w.full);
    answer(sh, c, status, "application/json", fields, body, rh_writer_len(&w), keep);
}

void rh_httpd_refuse(struct rh_shard *sh, struct rh_conn *c, unsigned status, const char *why,
                     bool keep)
{
    const struct refusal *refusal = find_refusal(status);

    refuse(sh, c, refusal, status, why, refusal->fields, keep);
}

static void answer_text(struct rh_shard *sh, struct rh_conn *c, unsigned status, const char *text,
                        bool keep)
{
    answer(sh, c, status, "text/plain; charset=utf-8", NO_CACHE, text, strlen(text), keep);
}

/* ---- what there is ---- */

static bool all_alive(const struct rh_shard *sh)
{
    for (unsigned i = 0; i < sh->env->shards; i++)
        if (sh->now_ms > rh_shard_beat_ms_any(sh->env->all[i]) + RH_STALL_MS)
            return false;
    return true;
}

static void livez(struct rh_shard *sh, struct rh_conn *c, bool keep)
{
    if (all_alive(sh))
        answer_text(sh, c, 200, "ok\n", keep);
    else
        answer_text(sh, c, 503, "a shard stalls\n", keep);
}

/* Why no new clients, or no promises, are taken now; NULL: they are. */
static const char *not_ready(const struct rh_shard *sh)
{
    enum rh_gate gate = rh_gate_any(sh->env->promises);

    if (sh->draining)
        return "draining\n";
    if (gate == RH_GATE_FAILING)
        return "the store fails: see the log\n";
    if (gate == RH_GATE_FULL)
        return "the store is full: store.backlog_bytes\n";
    return gate == RH_GATE_LOADING || !sh->loaded ? "starting: the journal is being read\n" : NULL;
}

static void readyz(struct rh_shard *sh, struct rh_conn *c, bool keep)
{
    const char *why = not_ready(sh);

    answer_text(sh, c, why ? 503 : 200, why ? why : "ok\n", keep);
}

static void metrics(struct rh_shard *sh, struct rh_conn *c, bool keep)
{
    struct rh_stats *blocks[RH_SHARDS_MAX + RH_COUNT(sh->env->stats)];
    unsigned count = sh->env->shards;
    char *text;
    size_t len;

    for (unsigned i = 0; i < sh->env->shards; i++)
        blocks[i] = rh_shard_stats_any(sh->env->all[i]);
    for (unsigned i = 0; i < RH_COUNT(sh->env->stats); i++) {
        blocks[count] = atomic_load_explicit(&sh->env->stats[i], memory_order_acquire);
        count += blocks[count] != NULL;
    }
    if (rh_stat_render(blocks, count, &text, &len) < 0) {
        rh_httpd_refuse(sh, c, 503, "out of memory", false);
        return;
    }
    answer(sh, c, 200, "text/plain; version=0.0.4", NO_CACHE, text, len, keep);
    rh_mem_free(text);
}

/* ---- upgrades ---- */

/* Returns how many bytes behind the head were used up. */
static size_t upgrade(struct rh_shard *sh, struct rh_conn *c, bool echo, const uint8_t *left,
                      size_t left_len, bool keep)
{
    struct rh_deflate_wish wish;
    struct rh_upgrade up;
    const char *why = "";
    size_t taken = 0;
    unsigned status =
        rh_upgrade_check(&sh->head, rh_squeeze_wish(sh, &wish) ? &wish : NULL, &up, &why);

    if (!status)
        status = rh_admit_upgrade(sh, c, &sh->head, &why);
    if (!status && echo)
        status = rh_admit_echo(sh, c, &why);
    if (!status && echo)
        rh_arrive_echo(sh, c, &up);
    else if (!status)
        status = rh_arrive(sh, c, &sh->head, &up, left, left_len, &taken, &why);
    if (status)
        rh_httpd_refuse(sh, c, status, why, keep && status != 503);
    return status ? 0 : taken;
}

/* ---- requests ---- */

enum page { PAGE_WS, PAGE_ECHO, PAGE_LIVEZ, PAGE_READYZ, PAGE_HEALTHZ, PAGE_METRICS, PAGE_NONE };

static const struct {
    struct rh_span path;
    enum rh_stat stat;
} pages[] = {
    [PAGE_WS] = {{"/ws", 3}, RH_STAT_http_requests_ws},
    [PAGE_ECHO] = {{"/echo", 5}, RH_STAT_http_requests_echo},
    [PAGE_LIVEZ] = {{"/livez", 6}, RH_STAT_http_requests_livez},
    [PAGE_READYZ] = {{"/readyz", 7}, RH_STAT_http_requests_readyz},
    [PAGE_HEALTHZ] = {{"/healthz", 8}, RH_STAT_http_requests_healthz},
    [PAGE_METRICS] = {{"/metrics", 8}, RH_STAT_http_requests_metrics},
    [PAGE_NONE] = {{"", 0}, RH_STAT_http_requests_other},
};

static enum page find_page(const struct rh_shard *sh)
{
    unsigned page = PAGE_WS;

    while (page != PAGE_NONE && !rh_span_eq(sh->head.path, pages[page].path))
        page++;
    return page == PAGE_ECHO && !sh->cfg->echo_enabled ? PAGE_NONE : (enum page)page;
}

static size_t respond(struct rh_shard *sh, struct rh_conn *c, const uint8_t *left, size_t left_len)
{
    enum rh_http_method method = sh->head.method;
    bool keep = sh->head.keep_alive && !sh->head.has_body && !sh->draining;
    enum page page = find_page(sh);

    rh_stat_add(&sh->stats, pages[page].stat, 1);
    if (page == PAGE_WS || page == PAGE_ECHO)
        return upgrade(sh, c, page == PAGE_ECHO, left, left_len, keep);
    if (page == PAGE_NONE)
        rh_httpd_refuse(sh, c, 404, "there is nothing at this path", keep);
    else if (method != RH_HTTP_GET && method != RH_HTTP_HEAD)
        refuse(sh, c, find_refusal(405), 405, "this path answers GET and HEAD",
               "Allow: GET, HEAD\r\n", keep);
    else if (page == PAGE_METRICS)
        metrics(sh, c, keep);
    else if (page == PAGE_READYZ)
        readyz(sh, c, keep);
    else
        livez(sh, c, keep);
    return 0;
}

size_t rh_httpd_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    size_t scanned = c->scanned;
    const char *why;
    int used;

    if (c->out || c->last_answer)
        return c->last_answer ? len : 0;
    used =
        rh_http_parse((const char *)at, len, sh->cfg->limits_head_size, &scanned, &sh->head, &why);
    c->scanned = (uint32_t)scanned;
    if (used == 0)
        return 0;
    if (used < 0) {
        sh->head.method = RH_HTTP_OTHER;
        rh_httpd_refuse(sh, c, (unsigned)-used, why, false);
        return len;
    }
    c->scanned = 0;
    return (size_t)used + respond(sh, c, at + used, len - (size_t)used);
}
