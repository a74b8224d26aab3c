/* How long a connection that closes may take: what the peer takes, the close and time are the test's;
 * everything but heartbeat.c is faked. */
#include "shard/shard_int.h"
#include "tests/rh_test.h"

static struct rig {
    struct rh_shard sh;
    struct rh_config cfg;
    struct rh_conn c;
    struct rh_outq out;
    uint64_t acked; /* what the peer has taken so far */
    unsigned cut;   /* the code; 0: it lives */
} rig;

/* ---- the fakes ---- */

uint64_t rh_uring_acked(struct rh_uring *u, int fd)
{
    return rig.acked;
}

void rh_conn_cut(struct rh_shard *sh, struct rh_conn *c, unsigned code)
{
    rig.cut = code;
    rh_timer_clear(&sh->wheel, &c->timer);
}

void rh_conn_close(struct rh_shard *sh, struct rh_conn *c, unsigned code, const char *reason)
{
    RH_FAIL("it is closed already");
}

void rh_conn_let_go(struct rh_shard *sh, struct rh_conn *c)
{
    RH_FAIL("it is not dead");
}

void rh_client_ping(struct rh_shard *sh, struct rh_conn *c)
{
    RH_FAIL("it is not open");
}

void rh_drain_fire(struct rh_shard *sh, struct rh_conn *c)
{
    RH_FAIL("it is not open");
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

/* The ms until it is cut, if the peer takes a byte every `every_ms`, up to a day. */
static uint64_t closes_for(uint64_t send_timeout_ms, bool flying, uint64_t every_ms)
{
    const uint64_t begin = 1000000, day = 24 * 3600 * 1000;

    memset(&rig, 0, sizeof(rig));
    rig.cfg.limits_send_timeout_ms = send_timeout_ms;
    rig.cfg.shutdown_grace_ms = 8000;
    rig.out.flying_bytes = flying;
    rig.sh.cfg = &rig.cfg;
    rig.sh.now_ms = begin;
    rh_wheel_init(&rig.sh.wheel, begin);
    rig.c.state = RH_CONN_CLOSING;
    rig.c.out = &rig.out;
    rig.c.since_ms = begin;
    rh_heartbeat_set(&rig.sh, &rig.c);
    while (!rig.cut && rig.sh.now_ms < begin + day) {
        rig.sh.now_ms += 100;
        if (every_ms && (rig.sh.now_ms - begin) % every_ms == 0)
            rig.acked++;
        rh_wheel_advance(&rig.sh.wheel, rig.sh.now_ms, 1000, ring, &rig.sh);
    }
    RH_OK_IF(rig.cut == 1006 || !rig.cut);
    return rig.sh.now_ms - begin;
}

static void about(uint64_t ms, uint64_t wanted)
{
    RH_OK_IF(ms >= wanted && ms <= wanted + 200);
}

RH_TEST(heartbeat, a_closing_peer_that_takes_nothing_has_5_s)
{
    about(closes_for(30000, true, 0), RH_CLOSE_WAIT_MS);
    about(closes_for(30000, false, 100), RH_CLOSE_WAIT_MS); /* and one that owes its close frame */
    about(closes_for(1000, true, 0), RH_CLOSE_WAIT_MS);
}

/* It is counted nowhere any more, so it must not be able to stay for as long as it likes. */
RH_TEST(heartbeat, a_closing_peer_that_takes_drop_by_drop_has_send_timeout_for_all)
{
    about(closes_for(30000, true, 100), 30000);
    about(closes_for(30000, true, 4000), 30000);
    about(closes_for(12000, true, 1000), 12000);
    about(closes_for(1000, true, 100), RH_CLOSE_WAIT_MS);
    about(closes_for(30000, true, 12000), RH_CLOSE_WAIT_MS); /* nothing in the first 5 s */
}
