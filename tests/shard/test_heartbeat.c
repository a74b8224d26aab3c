/* When a connection is pinged and closed, and how long one that closes may take: what the peer takes,
 * the close and time are the test's; everything but heartbeat.c is faked. */
#include "shard/shard_int.h"
#include "tests/rh_test.h"

static struct rig {
    struct rh_shard sh;
    struct rh_config cfg;
    struct rh_conn c;
    struct rh_outq out;
    uint64_t acked; /* what the peer has taken so far */
    unsigned cut;   /* the code; 0: it lives */
    unsigned closed, pings, beats, looks;
} rig;

/* Of its times a connection keeps the low half: this one is about to begin anew. */
#define WRAP ((1ull << 32) - 3000)

/* ---- the fakes ---- */

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    rig.looks++;
    return rig.acked;
}

void rh_conn_cut(struct rh_shard *sh, struct rh_conn *c, unsigned code)
{
    rig.cut = code;
    rh_timer_clear(&sh->wheel, &c->timer);
}

void rh_conn_close(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *reason)
{
    rig.closed = code;
    rh_timer_clear(&sh->wheel, &c->timer);
    c->state = RH_CONN_CLOSING;
}

void rh_conn_let_go(struct rh_shard *sh, struct rh_conn *c)
{
    RH_FAIL("it is not dead");
}

void rh_client_ping(struct rh_shard *sh, struct rh_conn *c)
{
    rig.pings++;
}

void rh_conn_beat(struct rh_shard *sh, struct rh_conn *c)
{
    rig.beats++;
    RH_EQ_INT(rig.beats, rig.pings); /* one for each, behind it */
}

void rh_drain_fire(struct rh_shard *sh, struct rh_conn *c)
{
    RH_FAIL("nothing is drained");
}

uint64_t rh_drain_due(const struct rh_shard *sh, const struct rh_conn *c)
{
    return UINT64_MAX;
}

/* ---- the rig ---- */

static void ring(void *arg, struct rh_timer *timer)
{
    rh_heartbeat_fire(arg, rh_container_of(timer, struct rh_conn, timer));
}

static void begin(enum rh_conn_state state, uint64_t now_ms)
{
    memset(&rig, 0, sizeof(rig));
    rig.cfg.limits_send_timeout_ms = 8000;
    rig.cfg.shutdown_grace_ms = 8000;
    rig.cfg.heartbeat_interval_ms = 30000;
    rig.cfg.heartbeat_timeout_ms = 86400000;
    rig.sh.cfg = &rig.cfg;
    rig.sh.now_ms = now_ms;
    rh_wheel_init(&rig.sh.wheel, now_ms);
    rig.c.state = (uint8_t)state;
    rig.c.out = &rig.out;
    rig.c.since_ms = rig.c.heard_ms = (uint32_t)now_ms;
}

/* Time goes on, at most so long, until it ends; returns how long that took. */
static uint64_t sleep_ms(uint64_t most)
{
    uint64_t from = rig.sh.now_ms;

    while (!rig.cut && !rig.closed && rig.sh.now_ms < from + most)
        rh_wheel_advance(&rig.sh.wheel, ++rig.sh.now_ms, 1000, ring, &rig.sh);
    return rig.sh.now_ms - from;
}

static void send_begins(void)
{
    rig.out.flying_bytes = 1;
    rh_heartbeat_watch_send(&rig.sh, &rig.c);
}

/* The ms until it is cut, if the peer takes a byte every `every_ms`, up to a day. */
static uint64_t closes_for(uint64_t from, uint64_t send_timeout_ms, bool flying, uint64_t every_ms)
{
    const uint64_t day = 24 * 3600 * 1000;

    begin(RH_CONN_CLOSING, from);
    rig.cfg.limits_send_timeout_ms = send_timeout_ms;
    rig.out.flying_bytes = flying;
    rh_heartbeat_set(&rig.sh, &rig.c);
    while (!rig.cut && rig.sh.now_ms < from + day) {
        rig.sh.now_ms += 100;
        if (every_ms && (rig.sh.now_ms - from) % every_ms == 0)
            rig.acked++;
        rh_wheel_advance(&rig.sh.wheel, rig.sh.now_ms, 1000, ring, &rig.sh);
    }
    RH_OK_IF(rig.cut == 1006 || !rig.cut);
    return rig.sh.now_ms - from;
}

static void about(uint64_t ms, uint64_t wanted)
{
    RH_OK_IF(ms >= wanted && ms <= wanted + 200);
}

RH_TEST(heartbeat, a_closing_peer_that_takes_nothing_has_5_s)
{
    static const uint64_t begins[] = {1000000, WRAP};

    for (unsigned i = 0; i < RH_COUNT(begins); i++) {
        about(closes_for(begins[i], 30000, true, 0), RH_CLOSE_WAIT_MS);
        /* and one that owes its close frame */
        about(closes_for(begins[i], 30000, false, 100), RH_CLOSE_WAIT_MS);
        about(closes_for(begins[i], 1000, true, 0), RH_CLOSE_WAIT_MS);
    }
}

/* It is counted nowhere any more, so it must not be able to stay for as long as it likes. */
RH_TEST(heartbeat, a_closing_peer_that_takes_drop_by_drop_has_send_timeout_for_all)
{
    static const uint64_t begins[] = {1000000, WRAP};

    for (unsigned i = 0; i < RH_COUNT(begins); i++) {
        about(closes_for(begins[i], 30000, true, 100), 30000);
        about(closes_for(begins[i], 30000, true, 4000), 30000);
        about(closes_for(begins[i], 12000, true, 1000), 12000);
        about(closes_for(begins[i], 1000, true, 100), RH_CLOSE_WAIT_MS);
        /* nothing in the first 5 s */
        about(closes_for(begins[i], 30000, true, 12000), RH_CLOSE_WAIT_MS);
    }
}

RH_TEST(heartbeat, an_idle_connection_is_pinged_and_closed_when_it_is_not_heard)
{
    static const uint64_t begins[] = {1000000, WRAP};

    for (unsigned i = 0; i < RH_COUNT(begins); i++) {
        begin(RH_CONN_OPEN, begins[i]);
        rig.cfg.heartbeat_timeout_ms = 90000;
        rh_heartbeat_set(&rig.sh, &rig.c);
        RH_EQ_U64(sleep_ms(60000), 60000);
        RH_EQ_INT(rig.pings, 2);
        rig.c.heard_ms = (uint32_t)rig.sh.now_ms;
        RH_EQ_U64(sleep_ms(200000), 90000);
        RH_EQ_INT(rig.closed, 4410);
        RH_EQ_INT(rig.pings, 4);
    }
}

RH_TEST(heartbeat, every_send_is_watched)
{
    static const uint64_t begins[] = {1000000, WRAP};

    for (unsigned i = 0; i < RH_COUNT(begins); i++) {
        begin(RH_CONN_OPEN, begins[i]);
        rig.acked = 200; /* of earlier sends */
        rh_heartbeat_set(&rig.sh, &rig.c);
        for (unsigned sends = 0; sends < 100; sends++) {
            sleep_ms(sends * 100);
            send_begins();
            RH_EQ_U64(sleep_ms(1900), 1900);
            rig.acked++;
            rig.out.flying_bytes = 0;
            if (sends % 3 == 0) /* it was drained: the next one has a queue of its own */
                memset(&rig.out, 0, sizeof(rig.out));
        }
        for (unsigned pings = rig.pings; rig.pings == pings;) /* nothing else is due for long */
            sleep_ms(1);
        send_begins();
        RH_OK_IF(sleep_ms(60000) <= 12000 && rig.cut == 4408);
    }
}

RH_TEST(heartbeat, a_send_that_has_just_begun_is_not_looked_at)
{
    begin(RH_CONN_OPEN, 1000000);
    rh_heartbeat_set(&rig.sh, &rig.c);
    sleep_ms(29500);
    send_begins();
    sleep_ms(1000);
    RH_OK_IF(rig.pings == 1 && rig.looks == 0);
}

RH_TEST(heartbeat, a_peer_that_takes_drop_by_drop_stays)
{
    begin(RH_CONN_OPEN, 1000000);
    rh_heartbeat_set(&rig.sh, &rig.c);
    send_begins();
    for (unsigned drops = 0; drops < 100; drops++) {
        RH_EQ_U64(sleep_ms(5900), 5900);
        rig.acked++;
    }
    RH_OK_IF(sleep_ms(60000) <= 12000 && rig.cut == 4408);
}

/* Without a descriptor to ask with nobody knows what the peer took: a healthy one is not cut. */
RH_TEST(heartbeat, who_cannot_be_asked_counts_as_taking_some)
{
    begin(RH_CONN_OPEN, 1000000);
    rh_heartbeat_set(&rig.sh, &rig.c);
    rig.acked = RH_ACKED_UNKNOWN;
    send_begins();
    RH_EQ_U64(sleep_ms(100000), 100000);
    rig.acked = 7; /* now it can, and takes nothing more */
    RH_OK_IF(sleep_ms(100000) <= 13000 && rig.cut == 4408);
}
