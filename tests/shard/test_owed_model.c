/* What users are owed, against a model: which message stands where, who has it, and what comes next.
 *
 * Goal    whatever happens in whatever order, each message that was accepted ends once, is handed out in
 *         its order to everyone who has room, and waits again as soon as nobody has it any more.
 * Method  random sends, connections, closes, breaks, acknowledgements, dates and passes; beside them a
 *         model in arrays. The frames that each peer takes must be those of the model, in its order,
 *         and so must what is told to the record thread. Then the same without a model, where
 *         allocations fail: nothing may be lost, and all of it may come. */
#include "tests/shard/owed_rig.h"

#define USERS   3
#define DEVICES 4 /* of a user at a time */
#define ITEMS   4096
#define QUEUE   8192

/* ---- the model ---- */

enum where { GONE, WAITS, FLIES };

struct item {
    char id[12];
    bool ack, acked;
    unsigned attempt;
    enum where where;
    uint64_t answered; /* devices that do not get it again */
    uint64_t has;      /* acknowledged: bits of devices; plain: of queues, by connection number */
};

struct device {
    int conn; /* -1: none */
    bool open;
    unsigned items[QUEUE]; /* what it still has to take: item * 64 + attempt ... */
    unsigned head, tail;
    unsigned owed;   /* of these in the queue */
    unsigned flying; /* ... and under way */
};

struct user {
    char name[8];
    struct item items[ITEMS]; /* in the order of acceptance */
    unsigned count;
    struct device devices[RIG_CONNS];
    unsigned device_count; /* places in devices that were ever used */
};

static struct model {
    struct user users[USERS];
    unsigned sent, attempts, ended;
} model;

static unsigned draw(unsigned n)
{
    return (unsigned)(rh_test_rand() % n);
}

static unsigned open_devices(const struct user *u)
{
    unsigned n = 0;

    for (unsigned i = 0; i < u->device_count; i++)
        n += u->devices[i].open;
    return n;
}

static unsigned in_flight(const struct user *u)
{
    unsigned n = 0;

    for (unsigned i = 0; i < u->count; i++)
        n += u->items[i].where == FLIES && u->items[i].ack;
    return n;
}

static struct item *first_waiting(struct user *u)
{
    for (unsigned i = 0; i < u->count; i++)
        if (u->items[i].where == WAITS)
            return &u->items[i];
    return NULL;
}

static bool has_room(const struct device *d)
{
    return d->open && d->owed < RH_OWED_QUEUED_MAX;
}

static bool any_room(const struct user *u)
{
    for (unsigned i = 0; i < u->device_count; i++)
        if (has_room(&u->devices[i]))
            return true;
    return false;
}

/* One frame for a device: an owed one, or (attempt 0) a live plain one. */
static void queue(struct user *u, unsigned device, unsigned item, unsigned attempt)
{
    struct device *d = &u->devices[device];

    RH_OK_IF(d->tail < QUEUE);
    d->items[d->tail++] = item << 8 | attempt;
    d->owed += attempt != 0;
}

static void hand_out(struct user *u, struct item *it)
{
    it->attempt++;
    model.attempts++;
    for (unsigned i = 0; i < u->device_count; i++) {
        if (!has_room(&u->devices[i]) || (it->answered >> i & 1))
            continue;
        it->has |= 1ull << i;
        queue(u, i, (unsigned)(it - u->items), it->attempt);
    }
}

static bool may_go(const struct user *u, const struct item *it)
{
    return any_room(u) && (!it->ack || in_flight(u) < rig.cfg->ack_max_unacked);
}

static void pump(struct user *u)
{
    struct item *it;

    while ((it = first_waiting(u)) && may_go(u, it)) {
        it->where = FLIES;
        it->has = it->answered = 0;
        it->acked = false;
        hand_out(u, it);
    }
}

static void end(struct item *it)
{
    it->where = GONE;
    model.ended++;
}

/* A device has not got these any more. */
static void taken_from(struct user *u, unsigned device, bool plain)
{
    for (unsigned i = 0; i < u->count; i++) {
        struct item *it = &u->items[i];

        it->answered &= ~(1ull << device);
        if (it->where != FLIES || it->ack == plain || !(it->has >> device & 1))
            continue;
        it->has &= ~(1ull << device);
        if (it->has)
            continue;
        if (it->acked)
            end(it);
        else
            it->where = WAITS;
    }
}

/* ---- what happens ---- */

static struct user *some_user(void)
{
    return &model.users[draw(USERS)];
}

/* A device that is open, if there is one; else UINT32_MAX. */
static unsigned some_device(const struct user *u)
{
    unsigned n = open_devices(u), pick = n ? draw(n) : 0;

    for (unsigned i = 0; i < u->device_count && n; i++)
        if (u->devices[i].open && pick-- == 0)
            return i;
    return UINT32_MAX;
}

static void do_send(struct user *u)
{
    struct item *it = &u->items[u->count];
    bool ack = draw(3) != 0, waits = first_waiting(u) != NULL;
    const char *said;

    RH_OK_IF(u->count < ITEMS);
    memset(it, 0, sizeof(*it));
    snprintf(it->id, sizeof(it->id), "m%u", model.sent++);
    it->ack = ack;
    said = ack ? send_ack(it->id, u->name) : send_plain(it->id, u->name);
    if (!ack && !waits && open_devices(u)) {
        RH_EQ_STR(said, "live");
        u->count++; /* GONE: owed to nobody */
        for (unsigned i = 0; i < u->device_count; i++)
            if (u->devices[i].open)
                queue(u, i, u->count - 1, 0);
        return;
    }
    RH_EQ_STR(said, "owed");
    u->count++;
    if (ack && !waits && may_go(u, it)) {
        it->where = FLIES;
        hand_out(u, it);
    } else {
        it->where = WAITS;
    }
}

static void do_connect(struct user *u)
{
    unsigned i = 0;

    if (open_devices(u) >= DEVICES)
        return;
    while (i < u->device_count && u->devices[i].conn >= 0)
        i++;
    if (i == 60)
        return;
    u->device_count = RH_MAX(u->device_count, i + 1);
    memset(&u->devices[i], 0, sizeof(u->devices[i]));
    u->devices[i].conn = connect_user(u->name);
    RH_OK_IF(u->devices[i].conn >= 0);
    u->devices[i].open = true;
}

/* The connection closes, and goes on sending what it has. */
static void do_close(struct user *u)
{
    unsigned i = some_device(u);

    if (i == UINT32_MAX)
        return;
    if (draw(2))
        rh_conn_peer_close(rig.sh, rig.conns[u->devices[i].conn], 1000);
    else
        rh_conn_close(rig.sh, rig.conns[u->devices[i].conn], 1001, "");
    u->devices[i].open = false;
    taken_from(u, i, false);
}

static void do_cut(struct user *u)
{
    unsigned i = u->device_count ? draw(u->device_count) : 0;
    struct device *d = &u->devices[i];

    if (i == u->device_count || d->conn < 0)
        return;
    cut(d->conn);
    d->conn = -1;
    d->open = false;
    taken_from(u, i, false);
    taken_from(u, i, true);
    d->head = d->tail = d->owed = d->flying = 0;
}

/* What a peer gets is what the model has for it. */
static void do_take(struct user *u)
{
    unsigned i = u->device_count ? draw(u->device_count) : 0;
    struct device *d = &u->devices[i];
    struct book want = {0};

    if (i == u->device_count || d->conn < 0 || !rig.flight_len[d->conn])
        return;
    for (; d->flying; d->flying--, d->head++) {
        struct item *it = &u->items[d->items[d->head] >> 8];
        unsigned attempt = d->items[d->head] & 0xff;

        note(&want, "%s#%u", it->id, attempt ? attempt : 1);
        d->owed -= attempt != 0;
        if (it->where == FLIES && !it->ack)
            end(it);
    }
    rig.got.len = 0;
    RH_OK_IF(take(d->conn));
    want.text[want.len] = '\0';
    RH_EQ_STR(page(&rig.got), want.text);
    rh_conns_bury(rig.sh);
    if (rig.conns[d->conn]->state == RH_CONN_CLOSING && !rig.conns[d->conn]->out) {
        cut(d->conn);
        d->conn = -1;
    }
}

static void do_ack(struct user *u)
{
    unsigned i = some_device(u);
    struct item *it = u->count ? &u->items[u->count - 1 - draw(RH_MIN(u->count, 40u))] : NULL;

    if (i == UINT32_MAX || !it)
        return;
    ack_id(u->devices[i].conn, it->id);
    if (it->where == GONE || !it->ack)
        return;
    if (it->where == FLIES && rig.cfg->ack_policy == RH_ACK_ALL) {
        it->has &= ~(1ull << i);
        it->answered |= 1ull << i;
        it->acked = true;
        if (it->has)
            return;
    }
    end(it);
}

/* NULL: it has just ended, or been taken from somebody, and the ack thread does not know yet. */
static struct item *item_of_alarm(unsigned i, struct user **ret_user)
{
    uint32_t slot = (uint32_t)rig.armed[i];
    const struct rh_owed_item *real = &rig.sh->owed.slabs[slot / RH_OWED_SLAB][slot % RH_OWED_SLAB];

    if (real->gen != (uint32_t)(rig.armed[i] >> 32))
        return NULL;
    RH_EQ_INT(real->at, RH_OWED_FLIGHT);
    for (unsigned k = 0; k < USERS; k++) {
        struct user *u = &model.users[k];

        if (strlen(u->name) != real->msg->to_len ||
            memcmp(u->name, real->msg->bytes + real->msg->to_at, real->msg->to_len) != 0)
            continue;
        *ret_user = u;
        for (unsigned j = 0; j < u->count; j++)
            if (strlen(u->items[j].id) == real->msg->id_len &&
                memcmp(u->items[j].id, real->msg->bytes + real->msg->id_at, real->msg->id_len) == 0)
                return &u->items[j];
    }
    RH_FAIL("an alarm of nobody");
    return NULL;
}

static void do_due(void)
{
    unsigned i = rig.armed_count ? draw(rig.armed_count) : 0;
    struct user *u;
    struct item *it;

    if (!rig.armed_count)
        return;
    it = item_of_alarm(i, &u);
    RH_OK_IF(!it || (it->where == FLIES && it->ack));
    if (!it || draw(4) == 0) {
        ring(i, RH_DUE_GIVE_UP);
        if (it)
            end(it);
        return;
    }
    ring(i, RH_DUE_REPEAT);
    if (any_room(u))
        hand_out(u, it);
}

static void compare_user(const struct user *u)
{
    const struct rh_user *real = user_of(u->name);
    const struct rh_owed *o = real ? rh_user_owed(real) : NULL;
    unsigned waiting = 0, flight = 0, real_flight = 0;

    for (unsigned i = 0; i < u->count; i++) {
        waiting += u->items[i].where == WAITS;
        flight += u->items[i].where == FLIES;
    }
    for (struct rh_list *at = o ? o->flight.next : NULL; o && at != &o->flight; at = at->next)
        real_flight++;
    RH_EQ_U64(o ? o->waiting_count : 0, waiting);
    RH_EQ_U64(real_flight, flight);
}

static void do_pass(void)
{
    if (draw(8) == 0)
        later(draw(120));
    for (unsigned i = 0; i < USERS; i++)
        pump(&model.users[i]);
    pass();
    for (unsigned i = 0; i < USERS; i++) {
        struct user *u = &model.users[i];

        for (unsigned k = 0; k < u->device_count; k++) {
            struct device *d = &u->devices[k];

            if (d->conn >= 0 && !d->flying && rig.flight_len[d->conn])
                d->flying = d->tail - d->head;
        }
        compare_user(u);
    }
    check_all();
    RH_EQ_INT(rig.settled, model.ended);
}

static void step(void)
{
    struct user *u = some_user();
    unsigned what = draw(100);

    if (what < 30)
        do_send(u);
    else if (what < 36)
        do_connect(u);
    else if (what < 38)
        do_close(u);
    else if (what < 40)
        do_cut(u);
    else if (what < 55)
        do_take(u);
    else if (what < 70)
        do_ack(u);
    else if (what < 73)
        do_due();
    else
        do_pass();
}

static void begin(void)
{
    rig_begin();
    memset(&model, 0, sizeof(model));
    for (unsigned i = 0; i < USERS; i++)
        snprintf(model.users[i].name, sizeof(model.users[i].name), "user%u", i);
    rig.mute = true;
    rig.cfg->offline_max_messages = ITEMS;
    rig.cfg->limits_send_queue_messages = QUEUE;
    rig.cfg->limits_send_queue_bytes = 1u << 30;
    rig.cfg->ack_policy = draw(2) ? RH_ACK_ALL : RH_ACK_ANY;
    rig.cfg->ack_max_unacked = draw(2) ? 1000 : 1 + draw(20);
}

/* Whoever is left answers everything, and all of it ends. */
static void finish(void)
{
    for (unsigned i = 0; i < USERS; i++) {
        struct user *u = &model.users[i];

        do_connect(u);
        for (unsigned k = 0; k < u->device_count; k++) {
            struct device *d = &u->devices[k];

            if (d->conn >= 0)
                cut(d->conn);
        }
        pass();
    }
    for (unsigned i = 0; i < USERS; i++) {
        struct user *u = &model.users[i];
        int conn = connect_user(u->name);

        for (unsigned round = 0;
             round < 200 && user_of(u->name)->more && rh_owed_any(user_of(u->name)); round++) {
            for (unsigned k = 0; k < u->count; k++)
                if (u->items[k].ack)
                    ack_id(conn, u->items[k].id);
            take_all(conn);
        }
        RH_OK_IF(!rh_owed_any(user_of(u->name)));
    }
    RH_EQ_INT(rig.accepted, rig.settled);
}

RH_TEST(owed_model, what_is_owed_to_whom_is_what_the_model_says)
{
    for (unsigned run = 0; run < 12; run++) {
        begin();
        for (unsigned i = 0; i < 1500; i++)
            step();
        finish();
        rig_end();
    }
}

/* ---- failing memory ---- */

/* The same things without a model: connections may close for want of memory at any moment. */
static void careless_step(void)
{
    static unsigned number;
    char id[12], name[8];
    unsigned back = draw(20);
    int conn = (int)draw(6);
    struct rh_conn *c = rig.conns[conn];
    bool open = c && c->state == RH_CONN_OPEN;

    snprintf(name, sizeof(name), "user%u", draw(2));
    switch (draw(8)) {
    case 0:
    case 1:
    case 2:
        snprintf(id, sizeof(id), "m%u", number++);
        if (draw(3) == 0)
            send_plain(id, name);
        else
            send_ack(id, name);
        break;
    case 3:
        if (!open && (!c || c->state == RH_CONN_FREE))
            connect_user(name);
        break;
    case 4:
        if (c && c->state != RH_CONN_FREE && draw(4) == 0)
            cut(conn);
        break;
    case 5:
        if (c && c->state != RH_CONN_FREE)
            take(conn);
        break;
    case 6:
        snprintf(id, sizeof(id), "m%u", number - RH_MIN(number, back));
        if (open)
            ack_id(conn, id);
        break;
    default:
        if (rig.armed_count && draw(3) == 0)
            ring(draw(rig.armed_count), draw(3) ? RH_DUE_REPEAT : RH_DUE_GIVE_UP);
        later(draw(60));
        break;
    }
}

/* With memory again: all that was accepted ends. */
static void all_end(void)
{
    rh_mem_fail_nth(0);
    later(10);
    later(10);
    for (int i = 0; i < RIG_CONNS && rig.conns[i]; i++)
        cut(i);
    pass();
    for (unsigned i = 0; i < 2; i++) {
        char name[8];
        int conn;

        snprintf(name, sizeof(name), "user%u", i);
        conn = connect_user(name);
        for (unsigned round = 0; round < 100; round++) {
            take_all(conn);
            while (rig.armed_count)
                ring(0, RH_DUE_GIVE_UP);
            later(101);
        }
        RH_OK_IF(!rh_owed_any(user_of(name)));
    }
    RH_EQ_INT(rig.accepted, rig.settled);
}

RH_TEST(owed_model, without_memory_nothing_that_was_accepted_is_lost)
{
    for (unsigned run = 0; run < 100; run++) {
        rig_begin();
        rig.mute = true;
        rig.cfg->ack_policy = draw(2) ? RH_ACK_ALL : RH_ACK_ANY;
        rig.cfg->ack_max_unacked = draw(2) ? 1000 : 5;
        for (unsigned i = 0; i < 200; i++) {
            if (draw(3) == 0)
                rh_mem_fail_nth(1 + draw(6));
            careless_step();
        }
        all_end();
        rig_end();
    }
}
