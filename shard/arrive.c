/* shard/arrive.c - from a checked upgrade to a user's connection: who is it, and where does it live.
 *
 *   any shard                                          the user's shard
 *   ---------                                          ----------------
 *   head is whole, upgrade is fine
 *   name, device from the request
 *   shard of the name ── same ───────────────────────► settle: 101 and `welcome` in one send
 *        │ another: take a credit (none: 503),            ▲
 *        └─ HANDOVER: descriptor and arrival move ───────┘   and HANDED goes back with the credit
 *
 * Nothing is armed on the descriptor when it moves, because heads are read by one-shot receives.
 * A name that the server draws is drawn until it falls on the shard that accepted.
 */
#include "shard/shard_int.h"

#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/rand.h"
#include "proto/json.h"

#define WELCOME_ROOM (RH_JSON_ESCAPED_MAX(RH_NAME_MAX) + 512)
#define ANON         "anon-"
#define ANON_DIGITS  16
#define SESSION_LEN  16

/* ---- who ---- */

static const char *check_name(char dst[RH_NAME_MAX], int len, uint8_t *ret_len, const char *why)
{
    if (len < 0 || !rh_name_ok(dst, (size_t)len))
        return why;
    *ret_len = (uint8_t)len;
    return NULL;
}

/* A name given as a query parameter or, failing that, as a header field; *ret_len 0: neither. */
static const char *read_name(const struct rh_http_head *head, const char *param, const char *field,
                             char dst[RH_NAME_MAX], uint8_t *ret_len, const char *why)
{
    const struct rh_span *value = field ? rh_http_find(head, field) : NULL;
    struct rh_span raw;
    bool more = false;

    *ret_len = 0;
    if (rh_query_find(head->query, param, &raw, &more))
        return more ? why : check_name(dst, rh_percent_decode(dst, RH_NAME_MAX, raw), ret_len, why);
    if (!value)
        return NULL;
    if (rh_http_count(head, field) > 1 || value->len > RH_NAME_MAX)
        return why;
    memcpy(dst, value->at, value->len);
    return check_name(dst, (int)value->len, ret_len, why);
}

static void draw_name(struct rh_shard *sh, struct rh_arrival *a)
{
    memcpy(a->name, ANON, sizeof(ANON) - 1);
    a->name_len = sizeof(ANON) - 1 + ANON_DIGITS;
    do {
        uint64_t drawn = rh_prng_next(&sh->prng);

        rh_hex(a->name + sizeof(ANON) - 1, &drawn, sizeof(drawn));
        a->hash = rh_hash(&sh->env->hash_key, a->name, a->name_len);
    } while (rh_hash_shard(a->hash, sh->env->shards) != sh->tid);
}

/* NULL, or why it is refused with 400. user_type and role are checked; nothing asks for them yet. */
static const char *identify(struct rh_shard *sh, const struct rh_http_head *head,
                            struct rh_arrival *a)
{
    char unused[RH_NAME_MAX];
    struct rh_span rooms;
    uint8_t unused_len;
    bool more;
    const char *why = read_name(head, "user_id", "x-user-id", a->name, &a->name_len,
                                "user_id: 1 to 128 bytes of UTF-8 without control characters");

    if (!why)
        why = read_name(head, "device", NULL, a->device, &a->device_len,
                        "device: 1 to 128 bytes of UTF-8 without control characters");
    if (!why)
        why = read_name(head, "user_type", "x-user-type", unused, &unused_len,
                        "user_type: 1 to 128 bytes of UTF-8 without control characters");
    if (!why)
        why = read_name(head, "role", "x-role", unused, &unused_len,
                        "role: 1 to 128 bytes of UTF-8 without control characters");
    if (!why && rh_query_find(head->query, "rooms", &rooms, &more))
        why = "rooms: joining rooms at connect is not supported yet";
    if (!why && !a->name_len)
        draw_name(sh, a);
    else if (!why)
        a->hash = rh_hash(&sh->env->hash_key, a->name, a->name_len);
    return why;
}

static bool is_forwarding(struct rh_span name)
{
    static const char prefix[] = "x-forwarded-";

    return rh_http_same(name, "forwarded") ||
           (name.len >= sizeof(prefix) - 1 &&
            rh_http_same((struct rh_span){name.at, sizeof(prefix) - 1}, prefix));
}

static void warn_of_proxy(const struct rh_shard *sh, const struct rh_http_head *head)
{
    for (unsigned i = 0; i < head->header_count; i++) {
        if (is_forwarding(head->headers[i].name)) {
            RH_LOG_EVERY(1, RH_LOG_WARN, "auth.forwarded", RH_KU("shard", sh->tid),
                         RH_KSPAN("field", head->headers[i].name),
                         RH_KS("hint", "a proxy has put a hub with auth.mode none on the network"));
            return;
        }
    }
}

/* ---- the user's shard ---- */

static bool keep_extra(struct rh_conn *c, const struct rh_arrival *a)
{
    if (!a->device_len && !a->up.has_trace)
        return true;
    c->extra = rh_mem_zalloc(sizeof(*c->extra));
    if (!c->extra)
        return false;
    if (a->up.has_trace)
        memcpy(c->extra->trace_id, a->up.trace_id, sizeof(c->extra->trace_id));
    memcpy(c->extra->device, a->device, a->device_len);
    c->extra->device_len = a->device_len;
    return true;
}

/* A second connection of the same user and device takes the first one's place. */
static void replace_device(struct rh_shard *sh, const struct rh_conn *c)
{
    struct rh_list *at, *next;

    if (!c->extra || !c->extra->device_len)
        return;
    for (at = c->user->conns.next; at != &c->user->conns; at = next) {
        struct rh_conn *other = rh_container_of(at, struct rh_conn, of_user);

        next = at->next;
        if (other != c && other->extra && other->extra->device_len == c->extra->device_len &&
            memcmp(other->extra->device, c->extra->device, c->extra->device_len) == 0)
            rh_conn_close(sh, other, 4409, "replaced by the same device");
    }
}

static void put_welcome(struct rh_shard *sh, const struct rh_conn *c, struct rh_writer *w)
{
    uint8_t random[SESSION_LEN];
    char session[2 * SESSION_LEN];

    rh_rand_bytes(random, sizeof(random));
    rh_hex(session, random, sizeof(random));
    RH_PUT(w, "{\"type\":\"notify\",\"event\":\"welcome\",\"data\":{\"user\":");
    rh_put_str(w, (struct rh_span){c->user->name, c->user->name_len});
    RH_PUT(w, ",\"session\":\"");
    rh_put(w, session, sizeof(session));
    RH_PUT(w, "\",\"node\":\"");
    rh_put(w, sh->env->node, strlen(sh->env->node));
    RH_PUT(w, "\",\"server_time\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, ",\"heartbeat_ms\":");
    rh_put_u64(w, sh->cfg->heartbeat_interval_ms);
    RH_PUT(w, ",\"resumed\":false},\"timestamp\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, "}");
}

/* 101 and, for a user, `welcome`, as one run of bytes. False: no memory, the connection is cut. */
static bool answer_upgrade(struct rh_shard *sh, struct rh_conn *c, const struct rh_upgrade *up)
{
    uint8_t *own = rh_conn_own(sh, c, 512 + RH_WS_HEAD_MAX + WELCOME_ROOM);
    char text[WELCOME_ROOM];
    struct rh_writer w;
    size_t used;

    if (!own)
        return false;
    used = rh_upgrade_response((char *)own, 512, up);
    rh_assert(used);
    if (c->user) {
        rh_writer_init(&w, text, sizeof(text));
        put_welcome(sh, c, &w);
        rh_assert(!w.full);
        used += rh_ws_head(own + used, RH_WS_TEXT, true, rh_writer_len(&w), NULL);
        memcpy(own + used, text, rh_writer_len(&w));
        used += rh_writer_len(&w);
    }
    rh_conn_own_done(sh, c, used);
    return true;
}

/* Makes it a connection of its user. Returns 0 or the status to refuse it with. */
static unsigned settle(struct rh_shard *sh, struct rh_conn *c, const struct rh_arrival *a,
                       const char **ret_why)
{
    *ret_why = sh->draining ? "the server is shutting down" : "out of memory";
    if (sh->draining || !keep_extra(c, a) ||
        rh_user_attach(sh, c, a->hash, a->name, a->name_len) < 0)
        return 503;
    replace_device(sh, c);
    if (!answer_upgrade(sh, c, &a->up)) {
        rh_user_detach(sh, c);
        return 0;
    }
    rh_conn_open(sh, c, RH_IS_WS);
    rh_conn_flush(sh, c); /* now: a message of the high lane must not overtake the 101 */
    rh_stat_add(&sh->stats, RH_STAT_connections_accepted, 1);
    rh_conn_recv(sh, c);
    return 0;
}

void rh_arrive_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_event reply = {.kind = RH_EV_HANDED};
    struct rh_arrival *a = ev->msg;
    struct rh_conn *c = rh_conn_create(sh, a->fd, RH_IS_HTTP);
    const char *why;
    unsigned status;

    rh_mesh_reply(sh->mesh, ev, &reply);
    if (!c) {
        rh_stat_add(&sh->stats, RH_STAT_connections_refused_memory, 1);
        rh_uring_abort(sh->uring, a->fd);
        rh_mem_free(a);
        return;
    }
    sh->head.method = RH_HTTP_GET; /* for a refusal: only a GET gets this far */
    status = settle(sh, c, a, &why);
    if (status)
        rh_httpd_refuse(sh, c, status, why, false);
    else if (a->left_len)
        rh_conn_take_bytes(sh, c, a->left, a->left_len);
    rh_mem_free(a);
}

/* ---- the accepting shard ---- */

static unsigned hand_over(struct rh_shard *sh, struct rh_conn *c, struct rh_arrival *take_a,
                          const char **ret_why)
{
    unsigned to = rh_hash_shard(take_a->hash, sh->env->shards);
    struct rh_event ev = {.kind = RH_EV_HANDOVER, .msg = take_a};

    take_a->fd = c->fd;
    if (rh_mesh_ask(sh->mesh, to, &ev, (uint32_t)sizeof(*take_a) + take_a->left_len) < 0) {
        rh_mem_free(take_a);
        *ret_why = "too busy, try again";
        return 503;
    }
    rh_stat_add(&sh->stats, RH_STAT_handovers, 1);
    rh_conn_gone(sh, c);
    return 0;
}

unsigned rh_arrive(struct rh_shard *sh, struct rh_conn *c, const struct rh_http_head *head,
                   const struct rh_upgrade *up, const uint8_t *left, size_t left_len,
                   size_t *ret_taken, const char **ret_why)
{
    struct rh_arrival *a = rh_mem_alloc(sizeof(*a) + left_len);
    unsigned status;

    *ret_why = "out of memory";
    if (!a)
        return 503;
    a->up = *up;
    warn_of_proxy(sh, head);
    *ret_why = identify(sh, head, a);
    if (*ret_why) {
        rh_mem_free(a);
        return 400;
    }
    if (rh_hash_shard(a->hash, sh->env->shards) != sh->tid) {
        memcpy(a->left, left, left_len);
        a->left_len = (uint32_t)left_len;
        *ret_taken = left_len;
        return hand_over(sh, c, a, ret_why);
    }
    status = settle(sh, c, a, ret_why);
    rh_mem_free(a);
    return status;
}

void rh_arrive_echo(struct rh_shard *sh, struct rh_conn *c, const struct rh_upgrade *up)
{
    if (!answer_upgrade(sh, c, up))
        return;
    rh_conn_open(sh, c, RH_IS_ECHO);
    rh_stat_add(&sh->stats, RH_STAT_connections_accepted, 1);
    rh_conn_recv(sh, c);
}
