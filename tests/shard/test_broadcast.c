/* Broadcasts: who gets one, who is counted, what is refused, and what the asker hears.
 *
 * Three shards with some connections each; rings, queues and answers are played. */
#include <stdio.h>
#include <stdlib.h>

#include "core/mem.h"
#include "proto/envelope.h"
#include "shard/gather.h"
#include "shard/promise.h"
#include "tests/rh_test.h"

#define SHARDS 3
#define EVENTS 256

struct person {
    struct rh_other_session o;
    struct rh_session *s; /* its user's first one, or the other */
    struct rh_user *user;
    struct rh_conn *c;
    char got[4096];
};

struct sent {
    unsigned to;
    struct rh_event ev;
};

static struct rig {
    struct rh_shard *sh[SHARDS];
    struct rh_shard_env env;
    struct rh_config cfg;
    struct sent events[EVENTS];
    unsigned first, last;
    int no_credit; /* of this shard; -1: of none */
    struct person people[SHARDS * 600];
    unsigned count;
    char said[4096]; /* what the asker heard */
    uint8_t frame[4096];
    int (*on_push)(struct person *p);
    unsigned pushes, answers;
} rig;

/* ---- the neighbours ---- */

static struct person *person_of(const struct rh_conn *c)
{
    for (unsigned i = 0; i < rig.count; i++)
        if (rig.people[i].s == c->session)
            return &rig.people[i];
    return NULL;
}

struct rh_user_more *rh_user_more(struct rh_user *user)
{
    if (!user->more)
        user->more = rh_mem_zalloc(sizeof(*user->more));
    return user->more;
}

int rh_conn_push(struct rh_shard *sh, struct rh_conn *c, struct rh_handle *h)
{
    struct person *p = person_of(c);
    const struct rh_msg *msg = h->msg;
    int rc;

    RH_OK_IF(msg->kind == RH_MSG_BROADCAST && c->state == RH_CONN_OPEN);
    rc = rig.on_push ? rig.on_push(p) : RH_OK;
    rig.pushes++;
    if (rc == RH_OK)
        snprintf(p->got, sizeof(p->got), "%.*s", (int)msg->frame_len - 2,
                 (const char *)rh_msg_frame(msg) + (msg->frame_len > 127 ? 4 : 2));
    return rc;
}

struct rh_conn *rh_conn_find(struct rh_shard *sh, uint32_t slot, uint32_t gen)
{
    struct rh_conn *c = &sh->slabs[slot / RH_SLAB][slot % RH_SLAB];

    return c->state != RH_CONN_FREE && c->gen == gen ? c : NULL;
}

bool rh_route_open(const struct rh_shard *sh, unsigned to, size_t bytes)
{
    return (int)to != rig.no_credit;
}

int rh_mesh_ask(struct rh_mesh *m, unsigned to, struct rh_event *ev, uint32_t bytes)
{
    RH_OK_IF(rig.last < EVENTS && bytes > 0);
    ev->from = (uint16_t)((struct rh_shard *)m)->tid;
    rig.events[rig.last++] = (struct sent){to, *ev};
    return RH_OK;
}

void rh_mesh_reply(struct rh_mesh *m, const struct rh_event *request, struct rh_event *ev)
{
    RH_OK_IF(rig.last < EVENTS);
    ev->cookie = request->cookie;
    ev->from = (uint16_t)((struct rh_shard *)m)->tid;
    rig.events[rig.last++] = (struct sent){request->from, *ev};
}

void rh_respond_error(struct rh_shard *sh, struct rh_conn *c, struct rh_span request_id,
                      unsigned err, const char *why)
{
    RH_OK_IF(why && rh_wire_error_name(err));
    snprintf(rig.said, sizeof(rig.said), "%s", rh_wire_error_name(err));
}

bool rh_frame_begin(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f, size_t room)
{
    rh_writer_init(&f->w, rig.frame, room);
    return c->state == RH_CONN_OPEN;
}

void rh_frame_end(struct rh_shard *sh, struct rh_conn *c, struct rh_frame *f)
{
    RH_OK_IF(!f->w.full);
    rig.answers++;
    snprintf(rig.said, sizeof(rig.said), "%.*s", (int)rh_writer_len(&f->w), f->w.start);
}

void rh_put_response(struct rh_writer *w, struct rh_span request_id)
{
    rh_put(w, request_id.at, request_id.len);
    RH_PUT(w, " ");
}

void rh_put_answer_end(struct rh_shard *sh, const struct rh_conn *c, struct rh_writer *w)
{
}

void rh_put_notify(struct rh_writer *w, struct rh_span event)
{
    rh_put(w, event.at, event.len);
    RH_PUT(w, " ");
}

void rh_put_notify_end(const struct rh_shard *sh, struct rh_writer *w)
{
}

bool rh_request_params(struct rh_shard *sh, struct rh_conn *c, const struct rh_envelope *env,
                       const struct rh_param *rows, unsigned count, struct rh_json *out)
{
    char why[160];

    if (rh_params_read(env->data, rows, count, out, why, sizeof(why)) == RH_OK)
        return true;
    rh_respond_error(sh, c, env->request_id, RH_WIRE_bad_request, why);
    return false;
}

const char *rh_check_id(struct rh_shard *sh, struct rh_json v, char dst[RH_ID_GIVEN_MAX],
                        struct rh_span *ret_id)
{
    int len = v.kind == RH_JSON_NONE ? snprintf(dst, RH_ID_GIVEN_MAX, "made")
                                     : rh_json_str_decode(dst, RH_ID_GIVEN_MAX, v.raw);

    *ret_id = (struct rh_span){dst, (uint32_t)len};
    return len > 0 ? NULL : "id";
}

const char *rh_check_priority(struct rh_json v, const char **ret_name, bool *ret_high)
{
    *ret_name = "normal";
    *ret_high = v.kind != RH_JSON_NONE && rh_json_str_eq(v.raw, "high", 4);
    return NULL;
}

/* ---- the rig ---- */

static void begin(void)
{
    memset(&rig, 0, sizeof(rig));
    rig.no_credit = -1;
    rig.env.shards = SHARDS;
    for (unsigned k = 0; k < SHARDS; k++) {
        struct rh_shard *sh = rh_mem_zalloc_aligned(sizeof(*sh));

        rig.sh[k] = sh;
        sh->tid = k;
        sh->env = &rig.env;
        sh->cfg = &rig.cfg;
        sh->mesh = (struct rh_mesh *)sh;
        sh->now_ms = 1000;
        sh->now_ns = 1000000000000;
        rh_list_init(&sh->broadcasts);
        rh_list_init(&sh->gathers);
        rh_list_init(&sh->running);
        rh_wheel_init(&sh->alarms, sh->now_ms);
        for (unsigned i = 0; i < RH_SHARDS_MAX; i++)
            rh_list_init(&sh->credit[i]);
        RH_EQ_INT(rh_promises_init(sh), RH_OK);
    }
}

static void end(void)
{
    for (unsigned i = 0; i < rig.count; i++) {
        struct person *p = &rig.people[i];

        rh_mem_free(p->s->more);
        if (!p->s->is_first)
            continue;
        rh_mem_free(p->user->more);
        rh_mem_free(p->user);
    }
    for (unsigned k = 0; k < SHARDS; k++) {
        struct rh_shard *sh = rig.sh[k];

        rh_broadcasts_fini(sh);
        rh_gathers_fini(sh);
        RH_EQ_INT(rh_promises_pending(sh), 0);
        rh_promises_fini(sh);
        RH_EQ_U64(sh->stats.v[RH_STAT_broadcasts_unfinished], 0);
        RH_EQ_INT(sh->broadcasts_out, 0);
        for (unsigned i = 0; i < sh->slab_count; i++)
            rh_mem_free(sh->slabs[i]);
        rh_handles_fini(&sh->stock.handles);
        rh_mem_free(sh);
    }
}

static struct rh_session_more *more_of(const char *device, const char *type, const char *role)
{
    struct rh_session_more *e =
        rh_mem_zalloc(sizeof(*e) + strlen(device) + strlen(type) + strlen(role) + 1);

    e->device_len = (uint8_t)strlen(device);
    e->type_len = (uint8_t)strlen(type);
    e->role_len = (uint8_t)strlen(role);
    sprintf(e->bytes, "%s%s%s", device, type, role);
    return e;
}

/* A connection of that user, or of a new one, on shard k. */
static struct person *connect_as(unsigned k, const struct person *same, const char *type,
                                 const char *role)
{
    struct rh_shard *sh = rig.sh[k];
    struct person *p = &rig.people[rig.count++];
    uint32_t slot = sh->conn_count++;

    if (slot == sh->slab_count * RH_SLAB)
        sh->slabs[sh->slab_count++] = rh_mem_zalloc_aligned(RH_SLAB * sizeof(struct rh_conn));
    p->c = &sh->slabs[slot / RH_SLAB][slot % RH_SLAB];
    p->c->slot = slot;
    p->c->kind = RH_IS_WS;
    p->c->state = RH_CONN_OPEN;
    p->user = same ? same->user : rh_mem_zalloc(sizeof(*p->user) + 8);
    p->s = same ? &p->o.s : &p->user->first;
    if (same && !p->user->more)
        p->user->more = rh_mem_zalloc(sizeof(*p->user->more));
    if (!same)
        p->user->name_len = (uint8_t)sprintf(p->user->name, "u%u", rig.count);
    p->s->is_first = !same;
    p->o.user = p->user;
    p->c->session = p->s;
    p->s->conn = p->c;
    p->s->attached = ++sh->attachments;
    p->s->more = *type || *role ? more_of("phone", type, role) : NULL;
    return p;
}

static int ask(struct person *p, unsigned k, const char *data, unsigned *ret_shard)
{
    struct rh_envelope env = {.type = RH_ENV_REQUEST, .request_id = RH_SPAN("\"r\"")};

    rig.said[0] = 0;
    env.data = (struct rh_json){{data, (uint32_t)strlen(data)}, RH_JSON_OBJECT};
    RH_EQ_INT(rh_json_check(data, strlen(data), 60), RH_OK);
    return rh_broadcast_request(rig.sh[k], p->c, &env, ret_shard);
}

static void ask_ok(struct person *p, unsigned k, const char *data)
{
    unsigned shard;

    RH_EQ_INT(ask(p, k, data, &shard), RH_OK);
}

/* The rings: everything that was sent is popped, but what goes to or comes from shard `but`. */
static void carry(unsigned but)
{
    unsigned kept = 0;

    for (; rig.first < rig.last; rig.first++) {
        struct sent *s = &rig.events[rig.first];
        struct rh_shard *sh = rig.sh[s->to];

        if (s->to == but || s->ev.from == but)
            rig.events[kept++] = *s;
        else if (s->ev.kind == RH_EV_BROADCAST)
            rh_broadcast_pop(sh, &s->ev);
        else
            rh_broadcast_done_pop(sh, &s->ev);
    }
    rig.first = 0;
    rig.last = kept;
}

static void run_all(void)
{
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned k = 0; k < SHARDS; k++)
            while (rh_broadcast_run(rig.sh[k], 100) == 100)
                ;
        carry(SHARDS);
    }
}

/* ---- who gets it ---- */

RH_TEST(broadcast, everyone_who_is_connected_gets_it_and_users_count_once)
{
    struct person *boss;

    begin();
    boss = connect_as(0, NULL, "admin", "");
    for (unsigned i = 1; i < 900; i++)
        connect_as(i % SHARDS, NULL, "", "");
    connect_as(0, boss, "", ""); /* a second device */
    ask_ok(boss, 0, "{\"content\":{\"a\":1},\"id\":\"x1\"}");
    RH_EQ_STR(rig.said, "");
    run_all();
    for (unsigned i = 0; i < rig.count; i++)
        RH_EQ_STR(rig.people[i].got,
                  "broadcast {\"id\":\"x1\",\"from\":\"u1\",\"content\":{\"a\":1}}");
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"x1\",\"recipients\":900}");
    RH_EQ_U64(rig.sh[0]->stats.v[RH_STAT_messages_sent], 1);
    end();
}

RH_TEST(broadcast, filters_are_for_each_connection_and_both_must_match)
{
    struct person *p[6];

    begin();
    p[0] = connect_as(0, NULL, "", "admin");
    p[1] = connect_as(1, NULL, "agent", "lead");
    p[2] = connect_as(2, NULL, "agent", "");
    p[3] = connect_as(2, p[2], "bot\"", "lead");
    p[4] = connect_as(1, NULL, "", "lead");
    p[5] = connect_as(0, NULL, "", "");
    ask_ok(p[0], 0, "{\"content\":1,\"user_types\":[\"agent\",\"bot\\u0022\"]}");
    run_all();
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"made\",\"recipients\":2}");
    RH_OK_IF(p[1]->got[0] && p[2]->got[0] && p[3]->got[0]);
    RH_OK_IF(!p[0]->got[0] && !p[4]->got[0] && !p[5]->got[0]);

    ask_ok(p[0], 0, "{\"content\":1,\"roles\":[\"lead\",\"admin\"],\"user_types\":null}");
    run_all();
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"made\",\"recipients\":4}");

    p[2]->got[0] = 0;
    ask_ok(p[0], 0, "{\"content\":2,\"roles\":[\"lead\"],\"user_types\":[\"x\",\"agent\"]}");
    run_all();
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"made\",\"recipients\":1}");
    RH_OK_IF(!p[2]->got[0]);

    ask_ok(p[0], 0, "{\"content\":2,\"roles\":[]}"); /* an empty list is nobody */
    run_all();
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"made\",\"recipients\":0}");
    end();
}

RH_TEST(broadcast, it_is_for_who_was_there_when_it_came)
{
    struct person *boss, *late, *closing, *http;

    begin();
    boss = connect_as(0, NULL, "admin", "");
    closing = connect_as(0, NULL, "", "");
    http = connect_as(0, NULL, "", "");
    for (unsigned i = 0; i < 10; i++)
        connect_as(0, NULL, "", "");
    closing->c->state = RH_CONN_CLOSING;
    http->c->kind = RH_IS_HTTP;
    http->c->session = NULL;
    ask_ok(boss, 0, "{\"content\":1}");
    RH_EQ_INT(rh_broadcast_run(rig.sh[0], 5), 5);
    late = connect_as(0, NULL, "", "");
    rig.people[8].s->attached = ++rig.sh[0]->attachments; /* resumed */
    run_all();
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"made\",\"recipients\":10}");
    RH_OK_IF(!late->got[0] && !rig.people[8].got[0] && rig.people[9].got[0]);
    end();
}

RH_TEST(broadcast, free_slots_take_next_to_no_time)
{
    begin();
    ask_ok(connect_as(0, NULL, "admin", ""), 0, "{\"content\":1}");
    RH_EQ_INT(rh_broadcast_run(rig.sh[0], 2 * RH_SLAB), 1 + RH_SLAB / 16);
    RH_OK_IF(rh_list_empty(&rig.sh[0]->broadcasts));
    end();
}

static int drop_odd(struct person *p)
{
    if ((p - rig.people) % 2 == 0)
        return RH_OK;
    if ((p - rig.people) % 4 == 1)
        p->c->state = RH_CONN_CLOSING; /* by the policy */
    return RH_EFULL;
}

RH_TEST(broadcast, who_has_no_room_is_counted_all_the_same)
{
    struct person *boss;

    begin();
    boss = connect_as(0, NULL, "admin", "");
    for (unsigned i = 1; i < 20; i++)
        connect_as(0, NULL, "", "");
    rig.on_push = drop_odd;
    ask_ok(boss, 0, "{\"content\":1}");
    run_all();
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"made\",\"recipients\":20}");
    end();
}

RH_TEST(broadcast, they_are_handed_out_one_after_the_other_a_part_a_pass)
{
    const unsigned free_slots = (RH_SLAB - 300 + 15) / 16; /* and what these count */
    struct person *boss;

    begin();
    boss = connect_as(0, NULL, "admin", "");
    for (unsigned i = 1; i < 300; i++)
        connect_as(0, NULL, "", "");
    ask_ok(boss, 0, "{\"content\":1}");
    ask_ok(boss, 0, "{\"content\":2,\"priority\":\"high\"}");
    RH_EQ_INT(rh_broadcast_run(rig.sh[0], 290), 290);
    RH_EQ_INT(rig.pushes, 290);
    RH_OK_IF(strstr(rig.people[0].got, "\"content\":1"));
    RH_EQ_INT(rh_broadcast_run(rig.sh[0], 1000), 600 - 290 + 2 * free_slots);
    RH_OK_IF(strstr(rig.people[0].got, "\"content\":2"));
    RH_EQ_INT(rig.pushes, 600);
    RH_EQ_INT(rh_broadcast_run(rig.sh[0], 1000), 0);
    run_all();
    end();
}

/* ---- what is refused, or waits ---- */

RH_TEST(broadcast, only_admins_may_and_only_what_is_right)
{
    static const char *const bad[] = {
        "{}",
        "{\"content\":1,\"user_types\":\"agent\"}",
        "{\"content\":1,\"user_types\":[1]}",
        "{\"content\":1,\"roles\":[\"\"]}",
        "{\"content\":1,\"content\":2}",
        "{\"content\":1,\"id\":7}",
    };
    struct person *boss, *other;
    char many[1024] = "{\"content\":1,\"roles\":[\"a\"";

    begin();
    boss = connect_as(0, NULL, "admin", "");
    other = connect_as(0, NULL, "administrator", "adm");
    ask_ok(other, 0, "{\"content\":1}");
    RH_EQ_STR(rig.said, "forbidden");
    ask_ok(connect_as(0, NULL, "", ""), 0, "{}");
    RH_EQ_STR(rig.said, "forbidden");
    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        ask_ok(boss, 0, bad[i]);
        RH_EQ_STR(rig.said, "bad_request");
    }
    for (unsigned i = 1; i < 64; i++)
        strcat(many, ",\"b\"");
    strcat(many, "]}");
    ask_ok(boss, 0, many);
    RH_EQ_STR(rig.said, "");
    many[strlen(many) - 2] = 0;
    strcat(many, ",\"c\"]}");
    ask_ok(boss, 0, many);
    RH_EQ_STR(rig.said, "bad_request");
    run_all();
    end();
}

RH_TEST(broadcast, too_many_within_a_minute_are_refused)
{
    struct person *boss;

    begin();
    boss = connect_as(0, NULL, "admin", "");
    rig.cfg.rooms_broadcasts_per_minute = 3;
    for (unsigned i = 0; i < 3; i++) {
        ask_ok(boss, 0, "{\"content\":1}");
        RH_EQ_STR(rig.said, "");
    }
    ask_ok(boss, 0, "{\"content\":1}");
    RH_EQ_STR(rig.said, "rate_limited");
    rig.sh[0]->now_ns += 21000000000; /* a third of a minute, and some more */
    ask_ok(boss, 0, "{\"content\":1}");
    RH_EQ_STR(rig.said, "");
    ask_ok(boss, 0, "{\"content\":1}");
    RH_EQ_STR(rig.said, "rate_limited");
    run_all();
    end();
}

RH_TEST(broadcast, without_a_credit_or_with_too_many_out_it_waits)
{
    struct person *boss;
    struct rh_list other;
    unsigned shard;

    begin();
    boss = connect_as(1, NULL, "admin", "");
    rig.no_credit = 2;
    RH_EQ_INT(ask(boss, 1, "{\"content\":1}", &shard), RH_EFULL);
    RH_EQ_INT(shard, 2);
    rig.no_credit = -1;
    for (unsigned i = 0; i < RH_BROADCASTS_MAX; i++)
        RH_EQ_INT(ask(boss, 1, "{\"content\":1}", &shard), RH_OK);
    RH_EQ_INT(ask(boss, 1, "{\"content\":1}", &shard), RH_EFULL);
    RH_EQ_INT(shard, 1);
    RH_EQ_INT(rig.last, RH_BROADCASTS_MAX * (SHARDS - 1));
    run_all();
    rh_list_init(&other);
    rh_list_add(&rig.sh[1]->credit[1], &other); /* somebody waits longer */
    RH_EQ_INT(ask(boss, 1, "{\"content\":1}", &shard), RH_EFULL);
    rh_list_del(&other);
    RH_EQ_INT(ask(boss, 1, "{\"content\":1}", &shard), RH_OK);
    run_all();
    end();
}

/* ---- shards that are late, or out of memory ---- */

static void ring(void *arg, struct rh_timer *t)
{
    struct rh_alarm *alarm = rh_container_of(t, struct rh_alarm, timer);

    alarm->ring(arg, alarm);
}

RH_TEST(broadcast, a_shard_that_is_late_makes_the_answer_partial)
{
    struct person *boss;

    begin();
    boss = connect_as(0, NULL, "admin", "");
    connect_as(1, NULL, "", "");
    connect_as(2, NULL, "", "");
    ask_ok(boss, 0, "{\"content\":1}");
    for (unsigned turn = 0; turn < 2; turn++) {
        for (unsigned k = 0; k < 2; k++)
            rh_broadcast_run(rig.sh[k], 1000);
        carry(2);
    }
    RH_EQ_STR(rig.said, "");
    rh_wheel_advance(&rig.sh[0]->alarms, 1000 + RH_GATHER_MS + 1, 10, ring, rig.sh[0]);
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"made\",\"recipients\":2,\"partial\":true}");
    RH_EQ_INT(rig.sh[0]->broadcasts_out, 1); /* still counts as one that is out */
    rig.said[0] = 0;
    run_all();
    RH_EQ_STR(rig.said, "");
    RH_EQ_INT(rig.sh[0]->broadcasts_out, 0);
    RH_OK_IF(rig.people[2].got[0]);
    end();
}

RH_TEST(broadcast, the_asker_may_have_gone)
{
    struct person *boss;

    begin();
    boss = connect_as(0, NULL, "admin", "");
    connect_as(1, NULL, "", "");
    ask_ok(boss, 0, "{\"content\":1}");
    boss->c->gen++;
    run_all();
    RH_EQ_STR(rig.said, "");
    RH_OK_IF(rig.people[1].got[0]);
    end();
}

/* ---- ids that are given again ---- */

static void remember_ids(void)
{
    rig.cfg.dedup_window_ms = 60000;
    rig.cfg.dedup_max = 100;
}

/* Goal    who repeats an id is answered as the first time, also where that is still to come, and nobody
 *         gets the message twice. */
RH_TEST(broadcast, a_repetition_gets_the_first_outcome)
{
    struct person *boss;

    begin();
    remember_ids();
    rig.cfg.rooms_broadcasts_per_minute = 3;
    boss = connect_as(0, NULL, "admin", "");
    connect_as(1, NULL, "", "");
    ask_ok(boss, 0, "{\"content\":1,\"id\":\"x\"}");
    ask_ok(boss, 0, "{\"content\":1,\"id\":\"x\"}");
    run_all();
    RH_EQ_INT(rig.answers, 2);
    ask_ok(boss, 0, "{\"content\":2,\"id\":\"x\"}");
    RH_EQ_INT(rig.answers, 3);
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"x\",\"recipients\":2}");
    RH_EQ_INT(rig.pushes, 2);
    RH_EQ_INT(rig.sh[0]->stats.v[RH_STAT_dedup_hits], 2);
    RH_EQ_INT(rig.sh[0]->stats.v[RH_STAT_messages_sent], 1);
    ask_ok(boss, 0, "{\"content\":1,\"id\":\"x\",\"roles\":[\"a\"]}"); /* for others */
    run_all();
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"x\",\"recipients\":0}");
    ask_ok(boss, 0, "{\"content\":1,\"id\":\"x\",\"user_types\":[\"a\"]}"); /* likewise */
    RH_EQ_INT(rig.sh[0]->stats.v[RH_STAT_messages_sent], 3);
    run_all();
    end();
}

/* Goal    what was partial is told as partial again. */
RH_TEST(broadcast, a_partial_outcome_is_remembered_as_that)
{
    struct person *boss;

    begin();
    remember_ids();
    boss = connect_as(0, NULL, "admin", "");
    ask_ok(boss, 0, "{\"content\":1,\"id\":\"x\"}");
    rh_broadcast_run(rig.sh[0], 1000);
    rh_wheel_advance(&rig.sh[0]->alarms, 1000 + RH_GATHER_MS + 1, 10, ring, rig.sh[0]);
    ask_ok(boss, 0, "{\"content\":1,\"id\":\"x\"}");
    RH_EQ_STR(rig.said, "\"r\" {\"id\":\"x\",\"recipients\":1,\"partial\":true}");
    run_all();
    RH_EQ_INT(rig.answers, 2);
    end();
}

RH_TEST(broadcast, with_too_many_promises_a_given_id_waits)
{
    struct person *boss;
    unsigned shard;

    begin();
    remember_ids();
    boss = connect_as(0, NULL, "admin", "");
    rig.sh[0]->promises_pending = RH_PENDING_MAX;
    RH_EQ_INT(ask(boss, 0, "{\"content\":1,\"id\":\"x\"}", &shard), RH_EFULL);
    RH_EQ_INT(shard, RH_WAIT_PROMISES);
    ask_ok(boss, 0, "{\"content\":1}");
    rig.sh[0]->promises_pending = 0;
    run_all();
    end();
}

static void without_memory(const char *data, const char *id)
{
    bool refused = false, partial = false;
    char whole[64], part[64];

    snprintf(whole, sizeof(whole), "\"r\" {\"id\":\"%s\",\"recipients\":0}", id);
    snprintf(part, sizeof(part), "\"r\" {\"id\":\"%s\",\"recipients\":0,\"partial\":true}", id);
    for (unsigned nth = 1;; nth++) {
        struct person *boss;
        bool failed;

        begin();
        remember_ids();
        boss = connect_as(0, NULL, "admin", "");
        connect_as(1, NULL, "", "");
        connect_as(2, NULL, "", "");
        rh_mem_fail_nth(nth);
        ask_ok(boss, 0, data);
        run_all();
        failed = rh_mem_fail_left() == 0;
        rh_mem_fail_nth(0);
        if (!failed)
            RH_EQ_STR(rig.said, whole);
        else if (rig.said[0] == 'u')
            refused = true;
        else
            partial = true;
        if (failed && rig.said[0] != 'u')
            RH_EQ_STR(rig.said, part);
        end();
        if (!failed)
            break;
    }
    RH_OK_IF(refused && partial);
}

RH_TEST(broadcast, without_memory_it_is_refused_or_partial)
{
    without_memory("{\"content\":1,\"roles\":[\"x\"],\"user_types\":[\"admin\"]}", "made");
    without_memory("{\"content\":1,\"roles\":[\"x\"],\"id\":\"y\"}", "y");
}
