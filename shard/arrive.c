/* shard/arrive.c - from a checked upgrade to a user's connection: who is it, and where does it live.
 *
 *   any shard                                          the user's shard
 *   ---------                                          ----------------
 *   head is whole, upgrade is fine
 *   name, device, ... from the request
 *   shard of the name ── same ───────────────────────► settle: limits (admit.c), a session, old or
 *        │ another: take a credit (none: 503),            ▲    new, 101 and `welcome` in one send,
 *        └─ HANDOVER: descriptor and arrival move ───────┘    then its rooms; HANDED goes back
 *
 * A direct descriptor is a slot of one ring. It is copied into the table of the user's shard first,
 * and HANDOVER, with the credit that was taken before, follows when the kernel says that it is there;
 * if that has no slot to promise, the accepting shard itself says 503. The last slots of a table are kept for
 * that: who is handed over into one of them is answered 503 over there.
 *
 * Nothing is armed on the descriptor when it moves, because heads are read by one-shot receives.
 * A name that the server draws is drawn until it falls on the shard that accepted.
 */
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "shard/owed.h"

#define WELCOME_ROOM (RH_JSON_ESCAPED_MAX(RH_NAME_MAX) + 512)
#define ANON         "anon-"
#define ANON_DIGITS  16

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

#define NAME_RULE ": 1 to 128 bytes of UTF-8 without control characters"

/* NULL, or why it is refused with 400. */
static const char *identify(struct rh_shard *sh, const struct rh_http_head *head,
                            struct rh_arrival *a)
{
    const char *why =
        read_name(head, "user_id", "x-user-id", a->name, &a->name_len, "user_id" NAME_RULE);

    if (!why)
        why = read_name(head, "device", NULL, a->device, &a->device_len, "device" NAME_RULE);
    if (!why)
        why = read_name(head, "user_type", "x-user-type", a->user_type, &a->type_len,
                        "user_type" NAME_RULE);
    if (!why)
        why = read_name(head, "role", "x-role", a->role, &a->role_len, "role" NAME_RULE);
    if (!why && !a->name_len)
        draw_name(sh, a);
    else if (!why)
        a->hash = rh_hash(&sh->env->hash_key, a->name, a->name_len);
    return why;
}

/* rooms= and resume=, which there may be none of. NULL, or why it is refused with 400. */
static const char *read_wishes(const struct rh_http_head *head, struct rh_span *ret_rooms,
                               struct rh_arrival *a)
{
    struct rh_span resume;
    bool more = false;

    *ret_rooms = (struct rh_span){0};
    if (rh_query_find(head->query, "rooms", ret_rooms, &more) && (more || !rh_rooms_ok(*ret_rooms)))
        return "rooms: a list such as a,b@12@EPOCH";
    a->resume_len = 0;
    if (rh_query_find(head->query, "resume", &resume, &more) &&
        resume.len == sizeof(a->resume)) { /* any other is no session of ours */
        memcpy(a->resume, resume.at, resume.len);
        a->resume_len = sizeof(a->resume);
    }
    return NULL;
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

static void put_welcome(struct rh_shard *sh, const struct rh_conn *c, bool resumed,
                        struct rh_writer *w)
{
    const struct rh_user *user = rh_conn_user(c);
    char session[RH_SESSION_ID];

    rh_session_id(sh, c->session, session);
    rh_put_notify(w, RH_SPAN("welcome"));
    RH_PUT(w, "{\"user\":");
    rh_put_str(w, (struct rh_span){user->name, user->name_len});
    RH_PUT(w, ",\"session\":\"");
    rh_put(w, session, sizeof(session));
    RH_PUT(w, "\",\"node\":\"");
    rh_put(w, sh->env->node, strlen(sh->env->node));
    RH_PUT(w, "\",\"server_time\":");
    rh_put_u64(w, rh_now_unix_ms(sh));
    RH_PUT(w, ",\"heartbeat_ms\":");
    rh_put_u64(w, sh->cfg->heartbeat_interval_ms);
    if (resumed)
        RH_PUT(w, ",\"resumed\":true}");
    else
        RH_PUT(w, ",\"resumed\":false}");
    rh_put_notify_end(sh, w);
}

/* 101 and, for a user, `welcome`, as one run of bytes. False: no memory, the connection is cut. */
static bool answer_upgrade(struct rh_shard *sh, struct rh_conn *c, const struct rh_upgrade *up,
                           bool resumed)
{
    uint8_t *own = rh_conn_own(sh, c, 512 + RH_WS_HEAD_MAX + WELCOME_ROOM);
    char text[WELCOME_ROOM];
    struct rh_writer w;
    size_t used;

    if (!own)
        return false;
    used = rh_upgrade_response((char *)own, 512, up);
    rh_assert(used);
    if (c->session) {
        rh_writer_init(&w, text, sizeof(text));
        put_welcome(sh, c, resumed, &w);
        rh_assert(!w.full);
        used += rh_ws_head(own + used, RH_WS_TEXT, true, rh_writer_len(&w), NULL);
        memcpy(own + used, text, rh_writer_len(&w));
        used += rh_writer_len(&w);
    }
    rh_conn_own_done(sh, c, used);
    return true;
}

/* The session that it resumes, free of its old connection, or a new one. NULL: no memory. */
static struct rh_session *find_session(struct rh_shard *sh, struct rh_user *user,
                                       const struct rh_arrival *a, bool *ret_resumed)
{
    struct rh_session *s =
        a->resume_len ? rh_session_find(sh, user, (struct rh_span){a->resume, a->resume_len})
                      : NULL;

    *ret_resumed = s != NULL;
    if (!s)
        return rh_session_create(sh, user);
    rh_stat_add(&sh->stats, RH_STAT_sessions_resumed, 1);
    rh_session_take_over(sh, s);
    return s;
}

/* From here on it is a user's connection; its rooms are asked for. */
static void begin(struct rh_shard *sh, struct rh_conn *c, const struct rh_arrival *a, bool resumed)
{
    rh_conn_open(sh, c, RH_IS_WS);
    rh_conn_flush(sh, c); /* now: a message of the high lane must not overtake the 101 */
    rh_stat_add(&sh->stats, RH_STAT_connections_accepted, 1);
    rh_conn_recv(sh, c);
    if (!rh_squeeze_begin(sh, c, &a->up.deflate))
        return;
    rh_owed_connected(sh, c);
    rh_rooms_connect(sh, c, (struct rh_span){(const char *)a->bytes, a->rooms_len});
    if (resumed && c->session)
        rh_subs_resume(sh, c->session);
    if (!rh_list_empty(&sh->wanted)) /* before what the client has sent behind its handshake */
        rh_subs_wanted(sh);
}

/* It has its place. False: no memory; it may have been cut. */
static bool join_user(struct rh_shard *sh, struct rh_user *user, struct rh_conn *c,
                      const struct rh_arrival *a)
{
    bool resumed;
    struct rh_session *s = find_session(sh, user, a, &resumed);

    if (s && rh_session_identify(s, a)) {
        rh_session_attach(sh, s, c);
        if (answer_upgrade(sh, c, &a->up, resumed)) {
            begin(sh, c, a, resumed);
            return true;
        }
        rh_session_unattach(sh, s);
    } else if (s && !resumed) {
        rh_session_end(sh, s);
    }
    return false;
}

/* Makes it a connection of its user. Returns 0 or the status to refuse it with. */
static unsigned settle(struct rh_shard *sh, struct rh_conn *c, const struct rh_arrival *a,
                       const char **ret_why)
{
    unsigned status = rh_admit(sh, rh_user_find(sh, a->hash, a->name, a->name_len), a, ret_why);
    struct rh_user *user;
    bool joined;

    if (status)
        return status;
    *ret_why = "out of memory";
    user = rh_user_take(sh, a->hash, a->name, a->name_len);
    joined = user && join_user(sh, user, c, a);
    if (user)
        rh_user_unpin(sh, user);
    if (joined)
        return 0;
    rh_admit_give(sh, c);
    return c->state == RH_CONN_DEAD ? 0 : 503; /* without memory for the answer it has been cut */
}

static bool table_full(const struct rh_shard *sh)
{
    return sh->env->files && sh->conn_count + RH_TABLE_SPARE > sh->env->files;
}

void rh_arrive_pop(struct rh_shard *sh, const struct rh_event *ev)
{
    struct rh_event reply = {.kind = RH_EV_HANDED};
    struct rh_arrival *a = ev->msg;
    struct rh_conn *c = rh_conn_create(sh, a->fd, RH_IS_HTTP);
    const char *why = "the server is full";
    unsigned status;

    rh_mesh_reply(sh->mesh, ev, &reply);
    if (!c) {
        rh_stat_add(&sh->stats, RH_STAT_connections_refused_memory, 1);
        rh_uring_abort(sh->uring, a->fd);
        rh_slot_give_any(sh);
        rh_mem_free(a);
        return;
    }
    c->bucket = a->bucket;
    sh->head.method = RH_HTTP_GET; /* for a refusal: only a GET gets this far */
    status = table_full(sh) ? 503 : settle(sh, c, a, &why);
    if (status)
        rh_httpd_refuse(sh, c, status, why, false);
    else if (a->left_len)
        rh_conn_take_bytes(sh, c, a->bytes + a->rooms_len, a->left_len);
    rh_mem_free(a);
}

/* ---- the accepting shard ---- */

static uint32_t arrival_bytes(const struct rh_arrival *a)
{
    return (uint32_t)sizeof(*a) + a->rooms_len + a->left_len;
}

/* Into a slot that is promised. */
static void pass(struct rh_shard *sh, struct rh_conn *c, struct rh_arrival *take_a, unsigned to)
{
    rh_conn_set_state(sh, c, RH_CONN_MOVING);
    rh_heartbeat_set(sh, c);
    c->arrival = take_a;
    c->inflight++;
    rh_uring_pass(sh->uring, c->fd, sh->env->all[to]->uring, rh_tag(RH_OP_PASS, c));
}

/* With the credit that was taken for it. */
static void send_arrival(struct rh_shard *sh, struct rh_conn *c, struct rh_arrival *take_a,
                         unsigned to)
{
    struct rh_event ev = {.kind = RH_EV_HANDOVER, .msg = take_a};

    rh_mesh_ask_taken(sh->mesh, to, &ev, arrival_bytes(take_a));
    rh_stat_add(&sh->stats, RH_STAT_handovers, 1);
    rh_conn_gone(sh, c);
}

static unsigned hand_over(struct rh_shard *sh, struct rh_conn *c, struct rh_arrival *take_a,
                          const char **ret_why)
{
    unsigned to = rh_hash_shard(take_a->hash, sh->env->shards);

    if (rh_mesh_take(sh->mesh, to, arrival_bytes(take_a)) < 0) {
        rh_mem_free(take_a);
        *ret_why = "too busy, try again";
        return 503;
    }
    if (rh_fd_direct(c->fd) && !rh_slot_take_any(sh->env->all[to], 0)) {
        rh_mesh_give(sh->mesh, to, arrival_bytes(take_a));
        rh_mem_free(take_a);
        *ret_why = "the server is full";
        return 503;
    }
    if (rh_fd_direct(c->fd)) {
        pass(sh, c, take_a, to);
    } else {
        take_a->fd = c->fd;
        send_arrival(sh, c, take_a, to);
    }
    return 0;
}

void rh_arrive_passed(struct rh_shard *sh, struct rh_conn *c, int res)
{
    struct rh_arrival *a = c->arrival;
    unsigned to = rh_hash_shard(a->hash, sh->env->shards);

    c->arrival = NULL;
    c->inflight--;
    if (res >= 0) {
        a->fd = res;
        rh_uring_close(sh->uring, c->fd); /* ours; the other one keeps it open */
        rh_slot_give_any(sh);
        send_arrival(sh, c, a, to);
        return;
    }
    rh_slot_give_any(sh->env->all[to]);
    rh_mesh_give(sh->mesh, to, arrival_bytes(a));
    rh_mem_free(a);
    RH_LOG_EVERY(1, RH_LOG_WARN, "handover.failed", RH_KU("shard", sh->tid), RH_KU("to", to),
                 RH_KS("error", strerror(-res)));
    rh_conn_set_state(sh, c, RH_CONN_HTTP);
    rh_heartbeat_set(sh, c);
    sh->head.method = RH_HTTP_GET;
    rh_httpd_refuse(sh, c, 503, "the server is full", false);
}

/* All that the request says, with what came behind it. NULL: *ret_why says why it is refused with
 * *ret_status. */
static struct rh_arrival *read_arrival(struct rh_shard *sh, const struct rh_http_head *head,
                                       const uint8_t *left, size_t left_len, unsigned *ret_status,
                                       const char **ret_why)
{
    struct rh_arrival *a = rh_mem_alloc(sizeof(*a) + head->query.len + left_len);
    struct rh_span rooms;

    *ret_why = "out of memory";
    *ret_status = 503;
    if (!a)
        return NULL;
    *ret_status = 400;
    *ret_why = identify(sh, head, a);
    if (!*ret_why)
        *ret_why = read_wishes(head, &rooms, a);
    if (*ret_why) {
        rh_mem_free(a);
        return NULL;
    }
    if (rooms.len)
        memcpy(a->bytes, rooms.at, rooms.len);
    a->rooms_len = rooms.len;
    memcpy(a->bytes + rooms.len, left, left_len);
    a->left_len = (uint32_t)left_len;
    return a;
}

unsigned rh_arrive(struct rh_shard *sh, struct rh_conn *c, const struct rh_http_head *head,
                   const struct rh_upgrade *up, const uint8_t *left, size_t left_len,
                   size_t *ret_taken, const char **ret_why)
{
    struct rh_arrival *a;
    unsigned status;

    warn_of_proxy(sh, head);
    a = read_arrival(sh, head, left, left_len, &status, ret_why);
    if (!a)
        return status;
    a->up = *up;
    a->bucket = c->bucket;
    if (rh_hash_shard(a->hash, sh->env->shards) != sh->tid) {
        *ret_taken = left_len;
        return hand_over(sh, c, a, ret_why);
    }
    status = settle(sh, c, a, ret_why);
    rh_mem_free(a);
    return status;
}

void rh_arrive_echo(struct rh_shard *sh, struct rh_conn *c, const struct rh_upgrade *up)
{
    if (!answer_upgrade(sh, c, up, false)) {
        rh_admit_give(sh, c);
        return;
    }
    rh_conn_open(sh, c, RH_IS_ECHO);
    rh_stat_add(&sh->stats, RH_STAT_connections_accepted, 1);
    rh_conn_recv(sh, c);
    rh_squeeze_begin(sh, c, &up->deflate);
}
