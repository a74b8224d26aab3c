/* tests/sim/sim_actor.c - an actor's links: connecting, reading, ending; see sim_actor.h.
 *
 *   SHAKING --101--> OPEN --close said or heard--> CLOSING --> GONE
 */
#include "tests/sim/sim_actor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/upgrade.h"
#include "tests/sim/sim_hub.h"

#define TEXT_ROOM (256 << 10)
#define PATH_ROOM 1500

struct sim_link *sim_links[SIM_LINKS_MAX];
unsigned sim_link_count;

void sim_actors_begin(void)
{
    sim_link_count = 0;
    sim_on_members = NULL;
}

bool sim_link_lives(const struct sim_link *link)
{
    return link->state == SIM_OPEN && link->joined && !link->said_close && !link->heard_end &&
           !link->silent && !link->how;
}

static void step_link(void *arg);
static void step_actor(void *arg);

void sim_link_poke(struct sim_link *link)
{
    sim_at(sim_now(), step_link, link);
}

void sim_link_wake_at(struct sim_link *link, uint64_t at_ns)
{
    sim_at(at_ns, step_link, link);
}

static void plan(struct sim_actor *a, uint64_t at_ns)
{
    a->next_ns = at_ns;
    sim_at(at_ns, step_actor, a);
}

/* ---- ending ---- */

static void ended(struct sim_link *link)
{
    if (!link->ended_ns)
        link->ended_ns = sim_now();
}

/* Without this link; unless it has another one already. */
static void come_back(struct sim_actor *a, const struct sim_link *without)
{
    if (a->link != without || a->over || a->comes_back || sim_now() >= a->role.until_ns)
        return;
    a->comes_back = true;
    plan(a, sim_now() + (sim_chance(500) ? sim_below(50 * SIM_MS) : sim_below(3 * SIM_S)));
}

static void gone(struct sim_link *link, bool abort)
{
    if (link->state == SIM_GONE)
        return;
    ended(link);
    link->state = SIM_GONE;
    if (link->wire.end)
        sim_close(link->wire.end, abort);
    sim_trace("link %u: gone%s", link->number, abort ? " with a reset" : "");
    come_back(link->actor, link);
}

static void put_close(struct sim_link *link, unsigned code)
{
    const uint8_t bytes[] = {(uint8_t)(code >> 8), (uint8_t)code};

    if (!link->said_close)
        sim_wire_frame(&link->wire, RH_WS_OP_CLOSE, true, bytes, sizeof(bytes));
    link->said_close = true;
}

void sim_link_end(struct sim_link *link, enum sim_how how)
{
    if (link->state == SIM_GONE || link->how)
        return;
    ended(link);
    link->how = how;
    sim_trace("link %u: ends (%d)", link->number, (int)how);
    if (how == SIM_HOW_SILENT) {
        link->silent = true;
        come_back(link->actor, link);
        return;
    }
    if (how == SIM_HOW_CUT || link->state == SIM_SHAKING)
        gone(link, sim_chance(500));
    else
        put_close(link, how == SIM_HOW_GOODBYE ? 1000 : 1001);
    sim_link_poke(link);
}

/* ---- reading ---- */

static void hear_close(struct sim_link *link, unsigned code)
{
    sim_trace("link %u: close %u", link->number, code);
    ended(link);
    link->heard_close = true;
    link->last_code = code;
    if (!link->said_close)
        link->code = code;
    link->heard_end = true;
    put_close(link, 1000);
    link->state = SIM_CLOSING;
}

static void hear(struct sim_link *link, const struct rh_ws_event *ev)
{
    switch (ev->kind) {
    case RH_WS_DATA:
        SIM_CHECK(ev->opcode == RH_WS_TEXT, "link %u: a binary message", link->number);
        SIM_CHECK(link->text_len + ev->len < TEXT_ROOM, "link %u: a long message", link->number);
        memcpy(link->text + link->text_len, ev->data, ev->len);
        link->text_len += ev->len;
        if (!ev->last)
            break;
        if (ev->compressed)
            link->text_len =
                sim_squeeze_inflate(&link->wire.squeeze, link->text, link->text_len, TEXT_ROOM - 1);
        link->text[link->text_len] = '\0';
        sim_link_hear(link);
        link->text_len = 0;
        break;
    case RH_WS_PING:
        if (!link->said_close)
            sim_wire_frame(&link->wire, RH_WS_OP_PONG, true, ev->data, ev->len);
        break;
    case RH_WS_CLOSE:
        hear_close(link, ev->code);
        break;
    case RH_WS_ERROR:
        sim_fail("link %u: the hub breaks the protocol: %s", link->number, ev->why);
    default:
        break;
    }
}

static size_t hear_handshake(struct sim_link *link)
{
    int used = sim_squeeze_answer(&link->wire.squeeze, link->in, link->in_len, SIM_KEY, &link->ws,
                                  TEXT_ROOM);

    if (used == 0)
        return 0;
    if (used > 0) {
        link->state = SIM_OPEN;
        return (size_t)used;
    }
    SIM_CHECK(used == -503, "link %u: refused with %d", link->number, -used);
    sim_trace("link %u: refused with %d", link->number, -used);
    link->code = (unsigned)-used;
    gone(link, false);
    return 0;
}

static void parse(struct sim_link *link)
{
    size_t used = link->state == SIM_SHAKING ? hear_handshake(link) : 0;
    struct rh_ws_event ev = {.kind = RH_WS_DATA};

    while (link->state >= SIM_OPEN && link->state < SIM_GONE && !link->heard_end &&
           ev.kind != RH_WS_MORE) {
        used += rh_ws_feed(&link->ws, link->in + used, link->in_len - used, &ev);
        hear(link, &ev);
    }
    if (link->heard_end)
        used = link->in_len; /* nothing counts behind a close */
    memmove(link->in, link->in + used, link->in_len - used);
    link->in_len -= used;
}

static bool is_lazy(const struct sim_link *link)
{
    return link->silent || sim_now() < link->lazy_until_ns;
}

static void read_all(struct sim_link *link)
{
    while (link->state != SIM_GONE && !is_lazy(link)) {
        size_t room = sizeof(link->in) - link->in_len;
        int n = sim_read(link->wire.end, link->in + link->in_len,
                         sim_chance(300) ? 1 + sim_below(room) : room);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            sim_trace("link %u: the end (%d)", link->number, n);
            gone(link, false);
            return;
        }
        link->in_len += (size_t)n;
        parse(link);
    }
}

static void step_link(void *arg)
{
    struct sim_link *link = arg;

    if (link->state == SIM_GONE)
        return;
    read_all(link);
    if (link->state != SIM_GONE && !link->silent)
        sim_wire_write(&link->wire);
}

/* ---- connecting ---- */

static size_t put_part(char *dst, size_t room, const char *name)
{
    size_t len = 0;

    for (; *name; name++) {
        unsigned char ch = (unsigned char)*name;
        bool plain = (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9');

        rh_assert(len + 4 < room);
        len += (size_t)sprintf(dst + len, plain ? "%c" : "%%%02X", ch);
    }
    return len;
}

/* A room for rooms=, with what the actor remembers of it, or something else. */
static size_t put_wish(struct sim_link *link, unsigned room, char *dst, size_t space)
{
    const struct sim_memory *memory = &link->actor->memory[room];
    struct sim_wish *wish = &link->wishes[room];
    size_t len = put_part(dst, space, sim_room_names[room]);

    wish->named = wish->expected = wish->possible = true;
    if (!memory->life || sim_chance(200))
        return len;
    wish->has_since = true;
    wish->since = sim_chance(50) ? memory->since + 1000 : memory->since;
    len += (size_t)sprintf(dst + len, "@%llu", (unsigned long long)wish->since);
    if (sim_chance(300))
        return len;
    wish->strange_epoch = sim_chance(50);
    wish->epoch = wish->strange_epoch ? NULL : memory->life;
    return len + (size_t)sprintf(dst + len, "@%s", wish->epoch ? wish->epoch->epoch : "other-one");
}

static size_t put_rooms(struct sim_link *link, char *dst, size_t space)
{
    size_t len = 0;

    for (unsigned room = 0; room < link->actor->role.rooms; room++) {
        if (!sim_chance(link->actor->memory[room].life ? 600 : 150))
            continue;
        len += (size_t)sprintf(dst + len, "%s", len ? "," : "&rooms=");
        len += put_wish(link, room, dst + len, space - len);
    }
    return len;
}

/* What the session that is resumed has in its rooms, as far as its client knows. */
static void expect_resumed(struct sim_link *link)
{
    struct sim_link *before = link->before;

    for (unsigned room = 0; room < SIM_ROOMS; room++) {
        struct sim_wish *wish = &link->wishes[room];
        bool sure = before->last_code != 4409 && !before->joining[room] && !before->leaving[room] &&
                    !before->wishes[room].expected;

        wish->possible = true; /* even where nobody knows of it */
        wish->before = before->feeds[room];
        wish->sure = sure && before->feeds[room].on;
        wish->exact = before->heard_close && !before->tried && !before->crossed && sure;
        wish->expected |= before->feeds[room].on && sure;
    }
    link->again = before->tried++ > 0;
    link->crossed = before->crossed;
    for (unsigned i = 0; i < link->number; i++)
        if (sim_links[i]->before && sim_links[i]->actor == link->actor && !sim_links[i]->joined &&
            sim_links[i]->state != SIM_GONE)
            sim_links[i]->crossed = link->crossed = true;
}

static size_t put_path(struct sim_link *link, bool resume, char *path)
{
    const struct sim_role *role = &link->actor->role;
    size_t len = (size_t)sprintf(path, "/ws?user_id=u%u&user_type=%s", role->user, role->type);

    if (role->device)
        len += (size_t)sprintf(path + len, "&device=%s", role->device);
    if (role->is_admin)
        len += (size_t)sprintf(path + len, "&role=admin");
    if (!role->checks && sim_chance(500))
        len += put_rooms(link, path + len, PATH_ROOM - len);
    if (resume) {
        link->before = link->actor->session_of;
        len += (size_t)sprintf(path + len, "&resume=%s", link->before->session);
    }
    return len;
}

static struct sim_link *make_link(struct sim_actor *a)
{
    struct sim_link *link = sim_keep(sizeof(*link));

    rh_assert(sim_link_count < SIM_LINKS_MAX);
    link->number = sim_link_count;
    link->actor = a;
    link->text = sim_keep(TEXT_ROOM);
    link->got = sim_keep(SIM_REQS_MAX / 8);
    link->last = sim_keep(SIM_LINKS_MAX * sizeof(*link->last));
    sim_links[sim_link_count++] = link;
    link->previous = a->link;
    a->link = link;
    return link;
}

void sim_actor_connect(struct sim_actor *a, bool resume)
{
    char path[PATH_ROOM], head[PATH_ROOM + 500];
    struct sim_link *link;
    size_t len;

    if (sim_link_count >= SIM_LINKS_MAX - 1 && !a->role.checks)
        return;
    link = make_link(a);
    put_path(link, resume && a->session_of, path);
    if (link->before)
        expect_resumed(link);
    if (!sim_wire_connect(&link->wire, 1000 + a->role.id, step_link, link)) {
        link->code = 503;
        gone(link, true);
        return;
    }
    sim_trace("link %u: actor %u connects %s", link->number, a->role.id, path);
    len = rh_upgrade_request(head, sizeof(head), "localhost", path, SIM_KEY,
                             sim_squeeze_offer(&link->wire.squeeze));
    rh_assert(len);
    sim_wire_put(&link->wire, head, len);
    step_link(link);
}

/* ---- an actor's time ---- */

static void step_actor(void *arg)
{
    struct sim_actor *a = arg;

    if (a->over || sim_now() < a->next_ns || sim_now() >= a->role.until_ns || a->role.checks)
        return;
    if (!a->link || a->link->state == SIM_GONE || a->link->silent) {
        a->comes_back = false;
        sim_actor_connect(a, sim_chance(700));
    } else if (a->acted < a->role.acts) {
        a->acted++;
        sim_actor_act(a);
    } else {
        return;
    }
    if (!a->comes_back)
        plan(a, sim_now() + sim_below(a->role.gap_us + 1) * SIM_US);
}

struct sim_actor *sim_actor_start(const struct sim_role *role)
{
    struct sim_actor *a = sim_keep(sizeof(*a));

    a->role = *role;
    if (role->checks)
        sim_actor_connect(a, false);
    else
        plan(a, role->connect_ns);
    return a;
}

void sim_actor_say_nothing_more(struct sim_actor *a)
{
    a->role.until_ns = sim_now();
}

void sim_actor_end(struct sim_actor *a)
{
    a->over = true;
    for (unsigned i = 0; i < sim_link_count; i++) {
        struct sim_link *link = sim_links[i];

        if (link->actor != a || link->state == SIM_GONE)
            continue;
        if (link->silent)
            gone(link, true);
        else
            sim_link_end(link, SIM_HOW_GOODBYE + (enum sim_how)sim_below(3));
    }
}
