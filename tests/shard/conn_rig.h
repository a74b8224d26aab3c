/* tests/shard/conn_rig.h - one shard's connections without a kernel: what is sent stays "under way"
 * until the test lets the peer take it.
 *
 * Real are conn.c, outq.c, slow.c, retry.c, route.c and answer.c. Faked are the ring, heartbeat,
 * sessions, users and everything that reads: include this in one file of a program only.
 */
#ifndef RH_TEST_CONN_RIG_H
#define RH_TEST_CONN_RIG_H

#include "core/limit.h"
#include "core/mem.h"
#include "shard/owed_int.h"
#include "tests/shard/ledger.h"

#define RIG_CONNS 4
#define RIG_FDS   100 /* connection i has descriptor RIG_FDS + i */
#define RIG_BYTES (1 << 18)

static struct rig {
    struct rh_shard *sh;
    struct rh_config *cfg;
    struct rh_shard_env env;
    struct rh_user *user;
    struct rh_conn *conns[RIG_CONNS];
    struct rh_user_more more;
    struct rh_other_session sessions[RIG_CONNS];
    struct rh_session_more rooms[RIG_CONNS];
    struct ledger led[RIG_CONNS];
    char flight[RIG_CONNS][RIG_BYTES]; /* what is under way */
    size_t flight_len[RIG_CONNS];
    char text[RIG_BYTES];         /* of the frames that were taken last */
    unsigned closed[RIG_CONNS];   /* the code of the close frame that was taken; 0: none */
    const char *waits[RIG_CONNS]; /* what was armed last to hear of it */
    uint64_t cancelled;           /* the tag of what was told to end last; 0: nothing */
    bool speaks;                  /* what comes is a part of a message */
    unsigned settled, left, pumped, owns;
    bool by_peer;
} rig;

/* ---- the fakes ---- */

void rh_uring_sendv(struct rh_uring *u, int fd, const struct iovec *iov, unsigned count,
                    uint64_t tag)
{
    size_t len = 0;

    RH_EQ_U64(rig.flight_len[fd - RIG_FDS], 0);
    for (unsigned i = 0; i < count; i++) {
        RH_OK_IF(len + iov[i].iov_len <= RIG_BYTES);
        memcpy(rig.flight[fd - RIG_FDS] + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    rig.flight_len[fd - RIG_FDS] = len;
}

void rh_uring_send(struct rh_uring *u, int fd, const void *bytes, size_t len, uint64_t tag)
{
    rh_uring_sendv(u, fd, &(struct iovec){(void *)bytes, len}, 1, tag);
}

void rh_uring_recv_once(struct rh_uring *u, int fd, uint64_t tag)
{
    rig.waits[fd - RIG_FDS] = "once";
}

void rh_uring_recv_multi(struct rh_uring *u, int fd, bool waits, uint64_t tag)
{
    rig.waits[fd - RIG_FDS] = "multi";
}

void rh_uring_poll(struct rh_uring *u, int fd, uint64_t tag)
{
    rig.waits[fd - RIG_FDS] = "poll";
}

void rh_uring_cancel(struct rh_uring *u, uint64_t target, uint64_t tag)
{
    rig.cancelled = target;
}

void rh_uring_shutdown(struct rh_uring *u, int fd, int how)
{
}

void rh_uring_close(struct rh_uring *u, int fd)
{
}

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    return 0;
}

uint8_t *rh_uring_buffer(struct rh_uring *u, uint16_t buffer)
{
    return NULL;
}

void rh_heartbeat_set(struct rh_shard *sh, struct rh_conn *c)
{
}

void rh_heartbeat_watch_send(struct rh_shard *sh, struct rh_conn *c)
{
}

size_t rh_client_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    c->spoke |= rig.speaks;
    return len;
}

void rh_client_retry(struct rh_shard *sh, struct rh_conn *c)
{
}

size_t rh_httpd_feed(struct rh_shard *sh, struct rh_conn *c, uint8_t *at, size_t len)
{
    return len;
}

void rh_admit_give(struct rh_shard *sh, const struct rh_conn *c)
{
}

void rh_epoch_hex(uint64_t uid, char dst[RH_EPOCH_LEN])
{
    char hex[RH_EPOCH_LEN + 1];

    snprintf(hex, sizeof(hex), "%016llx", (unsigned long long)uid);
    memcpy(dst, hex, RH_EPOCH_LEN);
}

void rh_session_leave(struct rh_shard *sh, struct rh_conn *c, unsigned code, bool by_peer)
{
    struct rh_user *user = rh_conn_user(c);

    RH_OK_IF(user);
    c->session->is_detached = true;
    if (--rig.more.devices == 0)
        rh_retry_drop(sh, user);
    rig.left++;
    rig.by_peer = by_peer;
}

void rh_session_settle(struct rh_shard *sh, struct rh_conn *c)
{
    rig.settled++;
    if (c->state == RH_CONN_OPEN)
        return;
    c->session->conn = NULL;
    c->session = NULL;
}

void rh_session_pump(struct rh_shard *sh, struct rh_session *s)
{
    rig.pumped++;
}

struct rh_user_more *rh_user_more(struct rh_user *user)
{
    return user->more;
}

void rh_user_pin(struct rh_user *user)
{
    user->pins++;
}

void rh_user_unpin(struct rh_shard *sh, struct rh_user *user)
{
    RH_OK_IF(user->pins-- > 0);
}

struct rh_user *rh_user_find(const struct rh_shard *sh, uint64_t hash, const char *name, size_t len)
{
    return rig.user;
}

struct rh_user *rh_user_take(struct rh_shard *sh, uint64_t hash, const char *name, size_t len)
{
    rh_user_pin(rig.user);
    return rig.user;
}

/* No rooms. */
bool rh_owed_share_held(const struct rh_shard *sh, const struct rh_owed_item *item)
{
    return false;
}

struct rh_handle *rh_owed_share_frame(struct rh_shard *sh, const struct rh_owed_item *item,
                                      uint32_t attempt)
{
    return NULL;
}

/* ---- the rig ---- */

/* What is allocated here never fails: only what the test does. */
static inline void rig_begin(unsigned conns)
{
    uint64_t fail = rh_mem_fail_left();
    struct rh_shard *sh;

    rh_mem_fail_nth(0);
    memset(&rig, 0, sizeof(rig));
    RH_OK_IF(rh_config_create(&rig.cfg) == RH_OK && rh_limit_create(&rig.env.limits) == RH_OK);
    rig.cfg->limits_send_queue_messages = 8;
    rig.sh = sh = rh_mem_zalloc_aligned(sizeof(*sh));
    rig.user = rh_mem_zalloc(sizeof(*rig.user));
    RH_OK_IF(sh && rig.user);
    sh->cfg = rig.cfg;
    sh->env = &rig.env;
    sh->now_ms = 1000000;
    sh->hub_us = 1700000000000000;
    sh->seq = RH_MSG_SEQ_MIN;
    rh_list_init(&sh->starved);
    rh_list_init(&sh->turns);
    rh_list_init(&sh->free_conns);
    rh_list_init(&sh->graveyard);
    rh_wheel_init(&sh->wheel, sh->now_ms);
    rh_wheel_init(&sh->alarms, sh->now_ms);
    RH_OK_IF(rh_squeeze_init(&sh->stock.squeeze, &sh->stats, rig.cfg) == RH_OK);
    rig.user->more = &rig.more;
    rh_list_init(&rig.more.others);
    for (unsigned i = 0; i < conns; i++) {
        struct rh_conn *c = rh_conn_create(sh, RIG_FDS + (int)i, RH_IS_HTTP);

        RH_OK_IF(c);
        rh_conn_open(sh, c, RH_IS_WS);
        c->session = &rig.sessions[i].s;
        c->session->more = &rig.rooms[i];
        c->session->conn = c;
        rig.sessions[i].user = rig.user;
        rh_list_add(&rig.more.others, &rig.sessions[i].of_user);
        rig.more.devices++;
        rig.conns[i] = c;
    }
    rh_mem_fail_nth(fail);
}

static inline uint64_t rig_stat(enum rh_stat stat)
{
    return atomic_load_explicit(&rig.sh->stats.v[stat], memory_order_relaxed);
}

/* The end of a pass and the beginning of the next: what waits is tried. */
static inline void rig_pass(void)
{
    rh_conn_flush_all(rig.sh);
    rh_conns_bury(rig.sh);
    rig.sh->stock.squeeze.packed = 0;
    rig.sh->pass++;
}

static inline void rig_ring(void *arg, struct rh_timer *timer)
{
    struct rh_alarm *alarm = rh_container_of(timer, struct rh_alarm, timer);

    alarm->ring(arg, alarm);
}

/* Time goes on, a pass each ms. */
static inline void rig_sleep(unsigned ms)
{
    while (ms--) {
        rig.sh->now_ms++;
        rh_wheel_advance(&rig.sh->alarms, rig.sh->now_ms, 1000, rig_ring, rig.sh);
        rig_pass();
    }
}

/* A frame that tells a loss, as JSON text: noted. */
static inline void rig_note_lost(struct ledger *led, const char *text)
{
    unsigned stream = LEDGER_DIRECT;
    unsigned long long from = 0, to = 0, count, epoch;
    const char *at = strstr(text, "\"room\":\"room");

    RH_OK_IF(strstr(text, "{\"type\":\"notify\",\"event\":\"messages.lost\",\"data\":{") == text);
    RH_OK_IF(strstr(text, "},\"timestamp\":1700000000000}"));
    if (at) {
        RH_OK_IF(sscanf(at, "\"room\":\"room%u\",\"epoch\":\"%llx\"", &stream, &epoch) == 2);
        RH_EQ_U64(epoch, ledger_uid(stream));
    } else if (strstr(text, "{\"broadcast\":true,")) {
        stream = LEDGER_CAST;
    }
    at = strstr(text, "\"from_seq\":");
    RH_OK_IF(!at == (stream == LEDGER_CAST));
    if (at)
        RH_OK_IF(sscanf(at, "\"from_seq\":%llu,\"to_seq\":%llu", &from, &to) == 2);
    at = strstr(text, "\"count\":");
    RH_OK_IF(at && sscanf(at, "\"count\":%llu}", &count) == 1);
    ledger_lost(led, stream, from, to, count);
}

/* One frame of a flight is read; returns its length. */
static inline size_t rig_frame(unsigned conn, const char *at)
{
    const uint8_t *bytes = (const uint8_t *)at;
    size_t head = 2, len = bytes[1];
    char text[RH_LOST_FRAME];

    if (*at == 'n' || *at == 'h' || *at == 'o') {
        if (*at != 'o')
            ledger_arrived(&rig.led[conn], at);
        snprintf(rig.text + strlen(rig.text), 32, "%.12s", at);
        rig.owns += *at == 'o';
        return LEDGER_FRAME;
    }
    if (bytes[0] == 0x88) {
        rig.closed[conn] = (unsigned)bytes[2] << 8 | bytes[3];
        return 2 + len;
    }
    RH_EQ_INT(bytes[0], 0x81);
    if (len == 126) {
        head = 4;
        len = (size_t)bytes[2] << 8 | bytes[3];
    }
    RH_OK_IF(len < 126 || bytes[1] == 126);
    snprintf(text, sizeof(text), "%.*s", (int)len, at + head);
    rig_note_lost(&rig.led[conn], text);
    strcat(rig.text, text);
    return head + len;
}

/* The peer takes all that is under way. False: nothing was. */
static inline bool rig_take(unsigned conn)
{
    size_t len = rig.flight_len[conn];

    if (len == 0)
        return false;
    rig.flight_len[conn] = 0;
    rig.text[0] = '\0';
    for (size_t at = 0; at < len;)
        at += rig_frame(conn, rig.flight[conn] + at);
    rh_conn_on_send(rig.sh, rig.conns[conn], (int)len);
    return true;
}

/* Takes and flushes until nothing is left; rig.text is what came, all of it. */
static inline const char *rig_take_all(unsigned conn)
{
    static char all[RIG_BYTES];

    all[0] = '\0';
    for (rig_pass(); rig_take(conn); rig_pass())
        strcat(all, rig.text);
    return all;
}

static inline struct rh_handle *rig_handle(struct rh_msg *msg)
{
    struct rh_handle *h = msg ? rh_handle_make(&rig.sh->stock.handles, msg) : NULL;

    if (!h)
        rh_msg_drop_any(msg);
    return h;
}

/* Pushes the stream's next message; returns what the push did, RH_ENOMEM without memory for it. */
static inline int rig_push(unsigned conn, unsigned stream, bool high, unsigned key)
{
    struct rh_handle *h = rig_handle(ledger_make(&rig.led[conn], stream, high, key));
    int rc;

    if (!h)
        return RH_ENOMEM;
    rc = rh_conn_push(rig.sh, rig.conns[conn], h);
    ledger_pushed(&rig.led[conn], stream, high);
    rh_handle_unref(&rig.sh->stock.handles, h);
    return rc;
}

static inline void rig_own(unsigned conn, unsigned number)
{
    char text[32];
    uint8_t *at = rh_conn_own(rig.sh, rig.conns[conn], LEDGER_FRAME);

    if (!at)
        return;
    snprintf(text, sizeof(text), "o0:%08u;", number);
    memcpy(at, text, LEDGER_FRAME);
    rh_conn_own_done(rig.sh, rig.conns[conn], LEDGER_FRAME);
}

/* A notice, or a missed one: "o1:00000123;". */
static inline int rig_other(unsigned conn, unsigned number, bool missed)
{
    struct rh_handle *h = rig_handle(rh_msg_create(32));
    int rc;

    if (!h)
        return RH_ENOMEM;
    h->msg->frame_len = LEDGER_FRAME;
    snprintf((char *)h->msg->bytes + h->msg->frame_at, 32, "o1:%08u;", number);
    h->msg->kind = missed ? RH_MSG_ROOM : RH_MSG_NOTICE;
    h->msg->uid = 99;
    rc = missed ? rh_conn_push_missed(rig.sh, rig.conns[conn], h)
                : rh_conn_push(rig.sh, rig.conns[conn], h);
    rh_handle_unref(&rig.sh->stock.handles, h);
    return rc;
}

/* Cuts what is left, and finds that everything came back. */
static inline void rig_end(void)
{
    struct rh_shard *sh = rig.sh;

    for (unsigned i = 0; i < RIG_CONNS && rig.conns[i]; i++) {
        if (rig.conns[i]->state == RH_CONN_FREE)
            continue;
        rh_conn_cut(sh, rig.conns[i], 1006);
        if (rig.flight_len[i]) {
            rig.flight_len[i] = 0;
            rh_conn_on_send(sh, rig.conns[i], -1);
        }
        if (rig.conns[i]->recv_armed)
            rh_conn_on_recv(sh, rig.conns[i], &(struct rh_cqe){.res = 0});
    }
    rig_pass();
    RH_EQ_INT(sh->conn_count, 0);
    RH_EQ_U64(sh->stock.messages, 0);
    RH_EQ_U64(sh->stock.bytes, 0);
    RH_EQ_U64(rig_stat(RH_STAT_retry_messages), 0);
    RH_OK_IF(!rig.more.retry && !rig.user->pins);
    RH_EQ_INT(rh_limit_handshakes_any(rig.env.limits), 0);
    rh_conns_fini(sh);
    rh_out_stock_fini(&sh->stock);
    rh_squeeze_fini(&sh->stock.squeeze);
    RH_EQ_U64(rig_stat(RH_STAT_compression_bytes), 0);
    rh_limit_destroy(rig.env.limits);
    rh_config_destroy(rig.cfg);
    rh_mem_free(rig.user);
    rh_mem_free(sh);
}

#endif
