/* tests/store/test_record_random.c - random lives of the record thread against a plain model.
 *
 * Goal    whatever the disk does, and whenever power or process end: who asked is answered once; what
 *         was promised is owed again or had been settled; what was told as ended is never owed again;
 *         an id whose answer was given is remembered.
 * Method  The model knows what the shards said and heard, nothing of batches. One seed, one life of many
 *         runs; the disk has luck of its own.
 */
#include "core/err.h"
#include "tests/store/disk.h"
#include "tests/store/record_rig.h"

#define ITEMS  600
#define SHARES 4
#define ASKS   4096
#define STEPS  1500

static const char *const users[] = {"ann", "bob", "cid", "dan"};

struct share {
    bool settled;         /* the shard said so in this run */
    uint32_t said;        /* the last attempt, as the shard knows it in this run */
    uint32_t least, most; /* said at the last moment of rest; in any run */
    unsigned owed;        /* OWED of this start */
};

struct item {
    struct rh_msg *msg; /* NULL: nobody has it any more */
    bool room, accepted, dedup;
    bool promised; /* somebody was told COMMITTED */
    bool answered; /* ... or that it failed, in this run */
    bool asked;    /* in this run, with ACCEPTED */
    bool ended;    /* STATUS came */
    unsigned share_count, released, remembered;
    struct share shares[SHARES];
};

static struct item items[ITEMS];
static unsigned item_count;
static struct {
    unsigned item;
    bool open;
} asks[ASKS];
static unsigned ask_count, heard_to;

static uint64_t below(uint64_t n)
{
    return rh_test_rand() % n;
}

static bool chance(unsigned percent)
{
    return below(100) < percent;
}

/* "i17" */
static unsigned number_of(const char *id, unsigned len)
{
    unsigned n = 0;

    for (unsigned i = 1; i < len; i++)
        n = n * 10 + (unsigned)(id[i] - '0');
    return n;
}

static unsigned item_of(const struct rh_msg *msg)
{
    return number_of((const char *)msg->bytes + msg->id_at, msg->id_len);
}

static bool all_settled(const struct item *it)
{
    for (unsigned i = 0; i < it->share_count; i++)
        if (!it->shares[i].settled)
            return false;
    return true;
}

/* ---- what is heard ---- */

static void hear_committed(const struct rh_event *ev)
{
    unsigned ask = (unsigned)(uintptr_t)ev->cookie;
    struct item *it = &items[asks[ask].item];

    RH_OK_IF(ask < ask_count && asks[ask].open);
    asks[ask].open = false;
    it->answered = true;
    RH_OK_IF(ev->a == RH_WIRE_NONE || ev->a == RH_WIRE_store_failed);
    if (ev->a == RH_WIRE_NONE)
        it->promised = true;
}

static void hear_status(const struct rh_event *ev)
{
    struct item *it = &items[item_of(ev->msg)];

    RH_OK_IF(!it->asked || it->answered);
    if (!ev->flags)
        return;
    RH_OK_IF(all_settled(it) && !it->ended);
    RH_OK_IF(ev->b >> 32 == it->share_count);
    it->ended = true;
}

static void hear(void)
{
    for (; heard_to < rig.heard_count; heard_to++) {
        struct rh_event *ev = &rig.heard[heard_to];

        if (ev->kind == RH_EV_COMMITTED)
            hear_committed(ev);
        else if (ev->kind == RH_EV_STATUS)
            hear_status(ev);
        else if (ev->kind == RH_EV_RELEASED)
            RH_OK_IF(all_settled(&items[item_of(ev->msg)]) &&
                     ++items[item_of(ev->msg)].released == 1);
    }
    rig_forget();
    heard_to = 0;
}

static void turns(unsigned n)
{
    while (n--) {
        rig_turn();
        hear();
    }
}

/* ---- what the shards do ---- */

static void do_await(unsigned n)
{
    struct item *it = &items[n];

    if (ask_count == ASKS)
        return;
    asks[ask_count].item = n;
    asks[ask_count].open = true;
    rig_await(it->msg, rh_hash_shard(it->msg->from_hash, SHARDS), ask_count, 1);
    ask_count++;
}

static void do_settle(unsigned n)
{
    struct item *it = &items[n];
    unsigned share = (unsigned)below(RH_MAX(it->share_count, 1u));

    if (!it->share_count || it->shares[share].settled)
        return;
    it->shares[share].settled = true;
    rig_settled(it->msg, share, chance(70) ? RH_STATE_success : RH_STATE_failed,
                RH_REASON_queue_full);
}

static void do_attempt(unsigned n)
{
    struct item *it = &items[n];
    unsigned share = (unsigned)below(RH_MAX(it->share_count, 1u));

    if (!it->share_count || it->shares[share].settled)
        return;
    rig_attempt(it->msg, share, ++it->shares[share].said);
    it->shares[share].most = RH_MAX(it->shares[share].most, it->shares[share].said);
}

static void do_accept(void)
{
    struct item *it = &items[item_count];
    char id[16], text[64];
    struct rig_spec spec = {
        .from = users[below(4)], .to = users[below(4)], .id = id, .text = text, .shares = users};
    struct rig_accept how = {.asker = rig_shard_of(spec.from), .attempt = 1};

    if (item_count == ITEMS || ask_count == ASKS)
        return;
    *it = (struct item){.room = chance(30), .dedup = chance(40), .asked = chance(80)};
    snprintf(id, sizeof(id), "i%u", item_count);
    snprintf(text, sizeof(text), "text of %u", item_count);
    spec.kind = it->room ? RH_MSG_ROOM : RH_MSG_DIRECT;
    it->share_count = spec.share_count = it->room ? (unsigned)below(SHARES + 1) : 1;
    it->msg = rig_msg(&spec);
    for (unsigned i = 0; i < it->share_count; i++)
        it->shares[i].said = it->shares[i].most = 1;
    item_count++;
    while (it->room && it->share_count && chance(30)) /* fan-out was faster than the home */
        do_settle(item_count - 1);
    how.unasked = !it->asked;
    how.dedup_ms = it->dedup ? 3600000 : 0;
    how.cookie = ask_count;
    if (it->asked) {
        asks[ask_count].item = item_count - 1;
        asks[ask_count++].open = true;
    }
    it->accepted = true;
    rig_accept(it->msg, &how);
}

/* An item whose shards have something to say of. */
static void do_something(void)
{
    unsigned n = (unsigned)below(RH_MAX(item_count, 1u));

    if (!item_count || !items[n].msg)
        return;
    if (all_settled(&items[n]))
        return;
    if (chance(50))
        do_settle(n);
    else if (chance(50))
        do_attempt(n);
    else if (chance(50))
        do_await(n);
    else if (!items[n].room)
        rig_progress(items[n].msg, RH_STATE_retrying);
}

/* ---- the disk ---- */

static void calm_disk(void)
{
    disk_luck(1, NULL);
    disk_hang(0);
    disk_room(UINT64_MAX);
    disk_short(SIZE_MAX);
}

static void change_luck(void)
{
    struct disk_luck luck = {.turns = (unsigned)below(4)};

    calm_disk();
    if (chance(40))
        return;
    if (chance(30))
        luck.fail_pct[DISK_SYNC] = (unsigned)below(40);
    if (chance(30))
        luck.fail_pct[DISK_WRITE] = (unsigned)below(40);
    if (chance(20))
        luck.fail_pct[DISK_OPEN] = luck.fail_pct[DISK_RENAME] = (unsigned)below(60);
    luck.short_pct = chance(30) ? (unsigned)below(50) : 0;
    disk_luck(rh_test_rand(), &luck);
    if (chance(20))
        disk_hang(1u << (chance(50) ? DISK_SYNC : DISK_WRITE));
}

/* ---- ends and beginnings ---- */

static void lose(void *arg, const struct rh_event *ev)
{
    (void)arg;
    if (ev->kind == RH_EV_ACCEPTED || ev->kind == RH_EV_SETTLED ||
        (ev->kind == RH_EV_AWAIT && ((struct rh_msg *)ev->msg)->kind == RH_MSG_ROOM))
        rh_msg_drop_any(ev->msg);
}

static void end_run(void)
{
    rh_tid_set(RECORD);
    rh_mesh_publish(rh_net_member(rig.net, RECORD));
    rig_pop();
    hear();
    while (rh_mesh_pop(rh_net_member(rig.net, RECORD), lose, NULL) > 0)
        ;
    if (chance(70))
        disk_cut(rh_test_rand());
    else
        disk_kill(rh_test_rand());
    calm_disk();
    rig_close();
}

static void let_items_go(void)
{
    for (unsigned i = 0; i < ask_count; i++)
        asks[i].open = false;
    for (unsigned i = 0; i < item_count; i++) {
        rh_msg_drop_any(items[i].msg);
        items[i].msg = NULL;
        items[i].remembered = items[i].released = 0;
        items[i].answered = items[i].asked = false;
        for (unsigned k = 0; k < items[i].share_count; k++)
            items[i].shares[k].owed = 0;
    }
}

static void hear_owed(const struct rh_event *ev, unsigned last[4])
{
    struct rh_msg *msg = ev->msg;
    unsigned n = item_of(msg), to = 0;
    struct item *it = &items[n];
    char text[64];

    RH_OK_IF(n < item_count && it->accepted && !it->ended && ev->c < it->share_count);
    RH_OK_IF(++it->shares[ev->c].owed == 1);
    if (ev->a > it->shares[ev->c].most || ev->a < it->shares[ev->c].least)
        RH_FAIL("share %u of %u has attempt %u, not %u to %u", (unsigned)ev->c, n, (unsigned)ev->a,
                it->shares[ev->c].least, it->shares[ev->c].most);
    it->shares[ev->c].said = (uint32_t)ev->a;
    snprintf(text, sizeof(text), "text of %u\"", n);
    RH_OK_IF(memmem(rh_msg_frame(msg), msg->frame_len, text, strlen(text)));
    while (strncmp(users[to], (const char *)msg->bytes + msg->to_at, msg->to_len) != 0)
        to++;
    if (!it->room) {
        RH_OK_IF(n + 1 > last[to]);
        last[to] = n + 1;
    }
    if (!it->msg) {
        rh_msg_hold_any(msg, 1);
        it->msg = msg;
    }
    RH_OK_IF(it->msg == msg);
}

static void hear_start(void)
{
    unsigned last[4] = {0};

    for (unsigned i = 0; i < rig.heard_count; i++) {
        const struct rh_event *ev = &rig.heard[i];
        const struct rh_remembered *id = ev->msg;

        if (ev->kind == RH_EV_OWED)
            hear_owed(ev, last);
        else if (ev->kind == RH_EV_REMEMBER)
            items[number_of(id->bytes + id->from_len + id->to_len, id->id_len)].remembered++;
    }
    rig_forget();
}

static void check_start(void)
{
    for (unsigned i = 0; i < item_count; i++) {
        struct item *it = &items[i];

        RH_OK_IF(it->dedup || !it->remembered);
        if (it->promised && it->dedup && !it->remembered)
            RH_FAIL("the id of %u was forgotten", i);
        for (unsigned k = 0; k < it->share_count; k++) {
            struct share *s = &it->shares[k];

            if (it->promised && !s->settled && !s->owed)
                RH_FAIL("share %u of %u was promised, and is lost", k, i);
            s->settled = it->msg && !s->owed ? true : it->msg ? false : s->settled;
        }
    }
}

static void crash(void)
{
    end_run();
    let_items_go();
    rig_open();
    hear_start();
    check_start();
}

/* Everything that can be told has been: nobody waits, and all is on disk. */
static void rest(void)
{
    calm_disk();
    for (int i = 0; i < 60; i++) {
        rig_pass_ms(100);
        turns(10);
    }
    RH_EQ_INT(rig_gate(), RH_GATE_OPEN);
    for (unsigned i = 0; i < ask_count; i++)
        if (asks[i].open)
            RH_FAIL("who asked for %u was never answered", asks[i].item);
    for (unsigned i = 0; i < item_count; i++) {
        struct item *it = &items[i];

        if (it->msg && all_settled(it) && !it->ended)
            RH_FAIL("the end of %u was never told", i);
        for (unsigned k = 0; it->msg && k < it->share_count; k++)
            it->shares[k].least = it->shares[k].said;
    }
}

static void step(void)
{
    unsigned what = (unsigned)below(1000);

    if (what < 300)
        do_accept();
    else if (what < 700)
        do_something();
    else if (what < 970)
        turns((unsigned)below(5));
    else if (what < 980)
        rig_pass_ms(below(600));
    else if (what < 985)
        change_luck();
    else if (what < 988)
        rest();
    else if (what < 995)
        crash();
}

RH_TEST(record_random, what_was_promised_survives_whatever_happens)
{
    rh_log_set_level_any(RH_LOG_ERROR + 1);
    for (unsigned life = 0; life < 12; life++) {
        item_count = ask_count = heard_to = 0;
        rig_init();
        rig.env.segment_bytes = RH_SEGMENT_BYTES_MIN << below(4);
        rig_open();
        rig_forget();
        for (unsigned i = 0; i < STEPS; i++)
            step();
        rest();
        crash();
        rest();
        let_items_go();
        rig_fini();
    }
}
