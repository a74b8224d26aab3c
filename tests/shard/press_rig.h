/* tests/shard/press_rig.h - for test_pressure*.c: three real shards that can be stopped one by one.
 *
 * Each shard has a thread of its own (a ring belongs to its thread), a listener of its own (so a test
 * chooses who accepts) and is driven by rh_shard_pass and rh_shard_wait under the test's control:
 * `freeze` keeps it from running, `step` lets it make one pass, `thaw` lets it go on. The test's thread
 * is the control thread of the net, ack and record thread, too, and all the clients: blocking nowhere,
 * `pump` moves their bytes.
 *
 * Names are chosen so that a user, or a room, belongs to the shard that the test wants. What clients
 * send is numbered; each client checks on arrival that what comes from one sender, and what comes in
 * one room, has no gap and comes once.
 */
#ifndef RH_PRESS_RIG_H
#define RH_PRESS_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/limit.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/thread.h"
#include "proto/mask.h"
#include "proto/upgrade.h"
#include "proto/ws.h"
#include "shard/shard_int.h"
#include "tests/rh_test.h"

#define SHARDS      3
#define CONTROL     SHARDS
#define ACK         (SHARDS + 1)
#define RECORD      (SHARDS + 2)
#define CLIENTS_MAX 128
#define ROOMS_MAX   512
#define PATIENCE_MS 60000
#define FREE        (-1) /* permits of a shard that runs */
#define BY_SENDER   1000000

static const char key24[24] = "dGhlIHNhbXBsZSBub25jZQ==";

/* ---- the hub ---- */

struct press {
    struct rh_shard_env env;
    struct rh_promises promises;
    struct rh_shard *all[SHARDS];
    struct rh_thread threads[SHARDS];
    int listeners[SHARDS];
    uint16_t ports[SHARDS];
    uint64_t quiet[SHARDS]; /* the round of its last QUIET */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock. */
    bool ready[SHARDS], parked[SHARDS];
    int permits[SHARDS]; /* passes that it may still make; FREE */
};

static struct press hub = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static inline void wake_shard(void *arg, unsigned tid)
{
    if (tid < SHARDS)
        rh_shard_wake_any(hub.all[tid]);
}

static inline void may_pass(unsigned tid)
{
    pthread_mutex_lock(&hub.lock);
    while (hub.permits[tid] == 0) {
        hub.parked[tid] = true;
        pthread_cond_broadcast(&hub.changed);
        pthread_cond_wait(&hub.changed, &hub.lock);
    }
    if (hub.permits[tid] > 0)
        hub.permits[tid]--;
    pthread_mutex_unlock(&hub.lock);
}

static inline void run_shard(void *arg)
{
    unsigned tid = *(unsigned *)arg;
    struct rh_fault fault = {""};
    bool more;

    rh_log_thread_init();
    if (rh_shard_create(&hub.env, tid, &hub.listeners[tid], &hub.all[tid], &fault) < 0) {
        fprintf(stderr, "%s\n", fault.text);
        abort();
    }
    hub.all[tid]->loaded = true; /* nothing was stored */
    pthread_mutex_lock(&hub.lock);
    hub.ready[tid] = true;
    pthread_cond_broadcast(&hub.changed);
    while (!hub.ready[0] || !hub.ready[1] || !hub.ready[2])
        pthread_cond_wait(&hub.changed, &hub.lock);
    pthread_mutex_unlock(&hub.lock);
    do {
        may_pass(tid);
        more = rh_shard_pass(hub.all[tid]);
        if (more)
            rh_shard_wait(hub.all[tid]);
    } while (more);
    rh_log_thread_fini();
}

/* Until it stands between two passes with no permit left. */
static inline void wait_parked(unsigned tid)
{
    bool parked;

    do {
        rh_shard_wake_any(hub.all[tid]);
        rh_clock_nap_ms(1);
        pthread_mutex_lock(&hub.lock);
        parked = hub.parked[tid];
        pthread_mutex_unlock(&hub.lock);
    } while (!parked);
}

static inline void permit(unsigned tid, int passes)
{
    pthread_mutex_lock(&hub.lock);
    if (passes || hub.permits[tid])
        hub.parked[tid] = false;
    hub.permits[tid] = passes;
    pthread_cond_broadcast(&hub.changed);
    pthread_mutex_unlock(&hub.lock);
}

static inline void freeze(unsigned tid)
{
    permit(tid, 0);
    wait_parked(tid);
}

static inline void step(unsigned tid)
{
    permit(tid, 1);
    wait_parked(tid);
}

/* One pass of each, at the same time. */
static inline void step_all(void)
{
    for (unsigned tid = 0; tid < SHARDS; tid++)
        permit(tid, 1);
    for (unsigned tid = 0; tid < SHARDS; tid++)
        wait_parked(tid);
}

static inline void thaw(unsigned tid)
{
    permit(tid, FREE);
}

static inline struct rh_config *press_config(void)
{
    static const char *const values[][2] = {
        {"shards", "3"},
        {"listen", "127.0.0.1:0"},
        {"limits.send_queue_messages", "65536"},
        {"limits.send_queue_bytes", "1GiB"},
        {"limits.send_timeout", "1h"},
        {"heartbeat.interval", "1h"},
        {"heartbeat.timeout", "2h"},
        {"rooms.per_user", "1000"},
        {"rooms.notify_max", "4"},
        {"resume.window", "0"},
        {"shutdown.spread", "0"},
        {"offline.max_messages", "100000"},
    };
    struct rh_fault fault = {""};
    struct rh_config *cfg;

    RH_EQ_INT(rh_config_create(&cfg), RH_OK);
    for (size_t i = 0; i < RH_COUNT(values); i++)
        if (rh_config_set(cfg, values[i][0], values[i][1], "test", &fault) < 0)
            RH_FAIL("%s", fault.text);
    return cfg;
}

/* Accepted sockets inherit the small receive buffer, so that who is not read soon cannot write. */
static inline void listen_on(unsigned tid)
{
    struct rh_addr addr;
    int small = 128 << 10;

    RH_EQ_INT(rh_addr_parse("127.0.0.1:0", &addr), RH_OK);
    RH_EQ_INT(rh_sock_listen(&addr, true, &hub.listeners[tid], NULL), RH_OK);
    setsockopt(hub.listeners[tid], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    hub.ports[tid] = ntohs(((struct sockaddr_in *)&addr.at)->sin_port);
}

/* Shards take connections when the record thread has told them what is owed: nothing. */
static inline void load_all(void)
{
    struct rh_mesh *mesh = rh_net_member(hub.env.net, CONTROL);

    for (unsigned i = 0; i < SHARDS; i++) {
        struct rh_event ev = {.kind = RH_EV_LOADED};

        RH_EQ_INT(rh_mesh_tell(mesh, i, &ev), RH_OK);
    }
    rh_mesh_publish(mesh);
    while (atomic_load(&hub.promises.loaded) < SHARDS)
        rh_clock_nap_ms(1);
}

static inline void begin(void)
{
    static unsigned tids[SHARDS] = {0, 1, 2};

    hub.env.snapshot = rh_snapshot_make(press_config());
    RH_EQ_INT(rh_limit_create(&hub.env.limits), RH_OK);
    RH_EQ_INT(rh_net_create(RECORD + 1, wake_shard, NULL, &hub.env.net), RH_OK);
    hub.env.shards = SHARDS;
    hub.env.control = CONTROL;
    hub.env.ack = ACK;
    hub.env.record = RECORD;
    hub.env.promises = &hub.promises;
    hub.env.node = "press";
    hub.env.all = hub.all;
    for (unsigned i = 0; i < SHARDS; i++) {
        listen_on(i);
        hub.permits[i] = FREE;
        RH_EQ_INT(rh_thread_start(&hub.threads[i], (int)i, "press", run_shard, &tids[i]), RH_OK);
    }
    pthread_mutex_lock(&hub.lock);
    while (!hub.ready[0] || !hub.ready[1] || !hub.ready[2])
        pthread_cond_wait(&hub.changed, &hub.lock);
    pthread_mutex_unlock(&hub.lock);
    load_all();
}

/* ---- questions ---- */

static inline int64_t stat_at(unsigned tid, enum rh_stat stat)
{
    return (int64_t)atomic_load(&rh_shard_stats_any(hub.all[tid])->v[stat]);
}

static inline int64_t stat_all(enum rh_stat stat)
{
    int64_t sum = 0;

    for (unsigned i = 0; i < SHARDS; i++)
        sum += stat_at(i, stat);
    return sum;
}

static inline struct rh_mesh_stat mesh_at(unsigned tid)
{
    struct rh_mesh_stat stat;

    rh_mesh_stat_any(rh_net_member(hub.env.net, tid), &stat);
    return stat;
}

static inline uint32_t depth(unsigned from, unsigned to)
{
    return rh_net_depth_any(hub.env.net, from, to);
}

/* ---- clients ---- */

struct client {
    int fd;
    unsigned index, shard; /* its user's */
    unsigned status;       /* 0: no answer yet; 101 */
    unsigned close_code;   /* 1006: without a close frame */
    char name[24];
    uint8_t *in, *out;
    size_t in_len, in_room, out_at, out_len, out_room;
    unsigned asked, answers, errors, joined, left, subscribed;
    unsigned directs, broadcasts, published; /* messages that came ... */
    unsigned acks_wanted;                    /* ... and ask for an acknowledgement */
    uint64_t direct_seq;
    uint32_t sent_to[CLIENTS_MAX], from[CLIENTS_MAX]; /* numbers, by the other's index */
    uint32_t in_room_seq[ROOMS_MAX];
    uint32_t last_broadcast;
    char last[512]; /* answer or error */
};

static struct client clients[CLIENTS_MAX];
static unsigned client_count;

/* A name that falls on that shard: what a user or a room is called. */
static inline void name_on(char dst[24], const char *prefix, unsigned number, unsigned shard)
{
    int len;

    for (unsigned salt = 0;; salt++) {
        len = snprintf(dst, 24, "%s%u-%u", prefix, number, salt);
        if (rh_hash_shard(rh_hash(&hub.env.hash_key, dst, (size_t)len), SHARDS) == shard)
            return;
    }
}

static inline void append_out(struct client *c, const void *at, size_t len)
{
    if (c->out_at == c->out_len)
        c->out_at = c->out_len = 0;
    if (c->out_len + len > c->out_room) {
        c->out_room = 2 * (c->out_len + len);
        c->out = realloc(c->out, c->out_room);
        RH_OK_IF(c->out);
    }
    memcpy(c->out + c->out_len, at, len);
    c->out_len += len;
}

static inline void frame(struct client *c, uint8_t opcode, const void *text, size_t len)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    uint8_t head[RH_WS_HEAD_MAX];
    size_t at;

    append_out(c, head, rh_ws_head(head, opcode, true, len, mask));
    at = c->out_len;
    append_out(c, text, len);
    rh_mask(c->out + at, c->out + at, len, mask, 0);
}

static inline uint64_t number_behind(const char *text, const char *what)
{
    const char *at = strstr(text, what);

    if (!at)
        RH_FAIL("no %s in %s", what, text);
    return strtoull(at + strlen(what), NULL, 10);
}

static inline void took_direct(struct client *c, const char *text)
{
    uint64_t content = number_behind(text, "\"content\":"), seq = number_behind(text, "\"seq\":");
    unsigned from = (unsigned)(content / BY_SENDER);

    RH_OK_IF(from < client_count && seq > c->direct_seq);
    if (content % BY_SENDER != ++c->from[from])
        RH_FAIL("%s: %u expected from %u: %s", c->name, c->from[from], from, text);
    c->direct_seq = seq;
    c->directs++;
    c->acks_wanted += strstr(text, ",\"ack\":true,") != NULL;
}

static inline void took_room(struct client *c, const char *text)
{
    uint64_t room = number_behind(text, "\"room\":\"r"), seq = number_behind(text, "\"seq\":");

    RH_OK_IF(room < ROOMS_MAX);
    if (seq != ++c->in_room_seq[room])
        RH_FAIL("%s: %u expected: %.200s", c->name, c->in_room_seq[room], text);
    c->published++;
}

/* Answers to one client's requests of one kind come in their order: `asked` numbers them. */
static inline void took_text(struct client *c, const char *text)
{
    if (strstr(text, "\"type\":\"response\"") || strstr(text, "\"type\":\"error\"")) {
        snprintf(c->last, sizeof(c->last), "%s", text);
        c->answers++;
        c->errors += strstr(text, "\"type\":\"error\"") != NULL;
        if (strstr(text, "\"data\":{\"room\":\"r") && strstr(text, "\"seq\":"))
            c->in_room_seq[number_behind(text, "\"room\":\"r")] = (uint32_t)number_behind(
                text, "\"seq\":"); /* of a join: what follows is behind it */
    } else if (strstr(text, "\"event\":\"message\"")) {
        took_direct(c, text);
    } else if (strstr(text, "\"event\":\"room.message\"")) {
        took_room(c, text);
    } else if (strstr(text, "\"event\":\"broadcast\"")) {
        c->broadcasts++;
        RH_EQ_INT(number_behind(text, "\"content\":"), ++c->last_broadcast);
    } else if (strstr(text, "\"event\":\"room.joined\"")) {
        c->joined++;
    } else if (strstr(text, "\"event\":\"room.left\"")) {
        c->left++;
    } else if (strstr(text, "\"event\":\"room.subscribed\"")) {
        c->subscribed++;
    }
}

static inline void hang_up(struct client *c, unsigned code)
{
    c->close_code = code;
    close(c->fd);
    c->fd = -1;
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
    c->in_len = c->in_room = c->out_at = c->out_len = c->out_room = 0;
}

/* One frame, or the handshake's answer, at `at`; returns its length, 0: more is needed. */
static inline size_t take_one(struct client *c, uint8_t *at, size_t len)
{
    uint64_t size;
    size_t head = 2;
    uint8_t behind;

    if (!c->status) {
        int rc = rh_upgrade_answer((const char *)at, len, key24, NULL, NULL);

        c->status = rc > 0 ? 101 : (unsigned)-rc;
        return rc > 0 ? (size_t)rc : rc < 0 ? len : 0;
    }
    if (c->status != 101)
        return len;
    if (len < 2)
        return 0;
    size = at[1] & 127;
    if (size >= 126) {
        head = size == 126 ? 4 : 10;
        if (len < head)
            return 0;
        size = 0;
        for (size_t i = 2; i < head; i++)
            size = size << 8 | at[i];
    }
    if (len < head + size)
        return 0;
    behind = at[head + size]; /* the buffer has one byte more */
    at[head + size] = '\0';
    if ((at[0] & 15) == RH_WS_TEXT)
        took_text(c, (const char *)at + head);
    else if ((at[0] & 15) == RH_WS_OP_CLOSE)
        c->close_code = size >= 2 ? (unsigned)at[head] << 8 | at[head + 1] : 1005;
    at[head + size] = behind;
    return head + size;
}

static inline void read_client(struct client *c)
{
    ssize_t n;
    size_t used = 0, one;

    if (c->in_room - c->in_len < 65536) {
        c->in_room = 2 * c->in_room + 131072;
        c->in = realloc(c->in, c->in_room + 1);
        RH_OK_IF(c->in);
    }
    n = recv(c->fd, c->in + c->in_len, c->in_room - c->in_len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        hang_up(c, c->close_code ? c->close_code : 1006);
        return;
    }
    c->in_len += (size_t)n;
    while (used < c->in_len && (one = take_one(c, c->in + used, c->in_len - used)) > 0)
        used += one;
    c->in_len -= used;
    memmove(c->in, c->in + used, c->in_len);
    if (c->close_code)
        hang_up(c, c->close_code);
}

static inline void write_client(struct client *c)
{
    ssize_t n;

    if (c->fd < 0 || c->out_at == c->out_len)
        return;
    n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0)
        c->out_at += (size_t)n;
}

/* Moves what can be moved now; waits for something to come, if nothing does. */
static inline void pump(void)
{
    struct pollfd fds[CLIENTS_MAX];

    for (unsigned i = 0; i < client_count; i++) {
        struct client *c = &clients[i];

        write_client(c);
        fds[i] = (struct pollfd){c->fd, POLLIN, 0};
        if (c->fd >= 0 && c->out_at < c->out_len)
            fds[i].events |= POLLOUT;
    }
    poll(fds, client_count, 2);
    for (unsigned i = 0; i < client_count; i++)
        if (fds[i].fd >= 0 && fds[i].revents)
            read_client(&clients[i]);
}

static inline void pump_ms(uint64_t ms)
{
    uint64_t end = rh_clock_mono_ns() + ms * 1000000;

    while (rh_clock_mono_ns() < end)
        pump();
}

#define WAIT_FOR(rule)                                                                             \
    do {                                                                                           \
        uint64_t end_ = rh_clock_mono_ns() + PATIENCE_MS * 1000000ull;                             \
        while (!(rule)) {                                                                          \
            if (rh_clock_mono_ns() > end_)                                                         \
                RH_FAIL("%d: waited in vain for %s", __LINE__, #rule);                             \
            pump();                                                                                \
        }                                                                                          \
    } while (0)

/* A client that has asked to be let in by that shard; `more` is added to the query. */
static inline struct client *dial(const char *name, unsigned at, const char *more)
{
    struct client *c = &clients[client_count];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(hub.ports[at])};
    int small = 128 << 10;
    char request[8192], path[8000];
    size_t len;

    RH_OK_IF(client_count < CLIENTS_MAX);
    memset(c, 0, sizeof(*c));
    c->index = client_count++;
    snprintf(c->name, sizeof(c->name), "%s", name);
    c->shard = rh_hash_shard(rh_hash(&hub.env.hash_key, name, strlen(name)), SHARDS);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    RH_EQ_INT(connect(c->fd, (struct sockaddr *)&to, sizeof(to)), 0);
    snprintf(path, sizeof(path), "/ws?user_id=%s&%s", name, more);
    len = rh_upgrade_request(request, sizeof(request), "127.0.0.1", path, key24, NULL);
    RH_OK_IF(len);
    append_out(c, request, len);
    return c;
}

/* A connected client whose user lives on that shard, accepted there. */
static inline struct client *user_on(unsigned shard, const char *more)
{
    char name[24];
    struct client *c;

    name_on(name, "u", client_count, shard);
    c = dial(name, shard, more);
    WAIT_FOR(c->status);
    RH_EQ_INT(c->status, 101);
    return c;
}

__attribute__((format(printf, 3, 4))) static inline void
request(struct client *c, const char *event, const char *data, ...)
{
    char text[1024];
    va_list args;
    int len = snprintf(text, sizeof(text),
                       "{\"type\":\"request\",\"request_id\":\"%u\",\"event\":\"%s\","
                       "\"data\":{",
                       ++c->asked, event);

    va_start(args, data);
    len += vsnprintf(text + len, sizeof(text) - (size_t)len, data, args);
    va_end(args);
    len += snprintf(text + len, sizeof(text) - (size_t)len, "}}");
    frame(c, RH_WS_TEXT, text, (size_t)len);
}

static inline void send_to(struct client *c, const struct client *to)
{
    unsigned n = ++c->sent_to[to->index];

    request(c, "message.send", "\"to\":\"%s\",\"content\":%u", to->name, c->index * BY_SENDER + n);
}

/* The same with so many bytes of ballast. */
static inline void send_large(struct client *c, const struct client *to, size_t bytes)
{
    char *text = malloc(bytes + 512);
    unsigned n = ++c->sent_to[to->index];
    int len = snprintf(text, 512,
                       "{\"type\":\"request\",\"request_id\":\"%u\",\"event\":\"message.send\","
                       "\"data\":{\"to\":\"%s\",\"content\":%u,\"fields\":{\"b\":\"",
                       ++c->asked, to->name, c->index * BY_SENDER + n);

    memset(text + len, 'x', bytes);
    memcpy(text + len + bytes, "\"}}}", 4);
    frame(c, RH_WS_TEXT, text, (size_t)len + bytes + 4);
    free(text);
}

static inline bool all_answered(void)
{
    for (unsigned i = 0; i < client_count; i++)
        if (clients[i].fd >= 0 && clients[i].answers != clients[i].asked)
            return false;
    return true;
}

/* Everything that was sent directly has come (what came is in order and without gaps). */
static inline bool all_directs_came(void)
{
    for (unsigned i = 0; i < client_count; i++)
        for (unsigned k = 0; k < client_count; k++)
            if (clients[i].sent_to[k] != clients[k].from[i])
                return false;
    return true;
}

/* ---- the end ---- */

static inline void on_control(void *arg, const struct rh_event *ev)
{
    RH_EQ_INT(ev->kind, RH_EV_QUIET);
    hub.quiet[ev->from] = ev->a;
}

static inline void tell_all(uint8_t kind, uint64_t round)
{
    struct rh_mesh *mesh = rh_net_member(hub.env.net, CONTROL);

    for (unsigned i = 0; i < SHARDS; i++) {
        struct rh_event ev = {.kind = kind, .a = round};

        RH_EQ_INT(rh_mesh_tell(mesh, i, &ev), RH_OK);
    }
    rh_mesh_publish(mesh);
}

static inline bool all_quiet(uint64_t round)
{
    struct rh_mesh *mesh = rh_net_member(hub.env.net, CONTROL);

    rh_mesh_awake(mesh);
    rh_mesh_pop(mesh, on_control, NULL);
    rh_mesh_publish(mesh);
    return hub.quiet[0] == round && hub.quiet[1] == round && hub.quiet[2] == round;
}

/* Gauges that have to be zero when nobody is there and nothing on its way. */
static inline void check_empty(void)
{
    static const enum rh_stat gauges[] = {
        RH_STAT_connections_websocket,  RH_STAT_users,
        RH_STAT_connections_paused,     RH_STAT_subscriptions,
        RH_STAT_room_publishes_waiting, RH_STAT_room_changes_waiting,
        RH_STAT_fanouts_unfinished,     RH_STAT_broadcasts_unfinished,
        RH_STAT_sessions_detached,
    };

    for (size_t i = 0; i < RH_COUNT(gauges); i++)
        if (stat_all(gauges[i]) != 0)
            RH_FAIL("gauge %u is %lld", gauges[i], (long long)stat_all(gauges[i]));
    for (unsigned i = 0; i < SHARDS; i++) {
        RH_EQ_U64(mesh_at(i).credit_out, 0);
        RH_EQ_U64(mesh_at(i).spill_events, 0);
        RH_EQ_U64(mesh_at(i).spill_bytes, 0);
        RH_EQ_U64(rh_net_inbound_any(hub.env.net, i), 0);
    }
}

/* Drains as shard/hub.c does: twice quiet, then the end. */
static inline void end(void)
{
    for (uint64_t round = 1; round <= 2; round++) {
        tell_all(RH_EV_DRAIN, round);
        WAIT_FOR(all_quiet(round));
    }
    check_empty();
    tell_all(RH_EV_STOP, 0);
    for (unsigned i = 0; i < SHARDS; i++)
        rh_thread_join(&hub.threads[i]);
    for (unsigned i = 0; i < SHARDS; i++)
        rh_shard_destroy(hub.all[i]);
    for (unsigned i = 0; i < client_count; i++)
        if (clients[i].fd >= 0)
            hang_up(&clients[i], 1006);
    rh_net_destroy(hub.env.net);
    rh_limit_destroy(hub.env.limits);
    rh_snapshot_drop_any(hub.env.snapshot);
}

#endif
