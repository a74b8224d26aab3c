/* tests/sim/sim_client.c - a scripted client; see sim_client.h.
 *
 *   WAITING --connect--> SHAKING --101--> OPEN --close said or heard--> CLOSING --> GONE
 *
 * A client's step reads what is there, says what it is time for, and writes what is left to write.
 * It is called when its end of the connection changes and at the dates of its plan.
 */
#include "tests/sim/sim_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/upgrade.h"
#include "proto/ws.h"
#include "tests/sim/sim_wire.h"

#define IN_ROOM   8192
#define TEXT_ROOM (SIM_PAD_MAX + 4096)

enum state { WAITING, SHAKING, OPEN, CLOSING, GONE };

struct sim_client {
    unsigned id;
    struct sim_plan plan;
    enum state state;
    struct sim_wire wire;
    bool joined, dropped, said_close, heard_end;
    bool told; /* to end */
    unsigned code;
    unsigned said;
    uint64_t next_ns; /* when it says the next thing */
    struct rh_ws ws;
    uint8_t in[IN_ROOM];
    size_t in_len;
    char text[TEXT_ROOM + 1]; /* of the message being read */
    size_t text_len;
};

static void step(void *arg);

/* ---- ending ---- */

static void put_close(struct sim_client *c)
{
    static const uint8_t code[] = {1000 >> 8, 1000 & 0xff};

    if (!c->said_close)
        sim_wire_frame(&c->wire, RH_WS_OP_CLOSE, true, code, sim_chance(800) ? sizeof(code) : 0);
    c->said_close = true;
}

static void gone(struct sim_client *c, bool abort)
{
    if (c->state == GONE)
        return;
    if (c->wire.end)
        sim_close(c->wire.end, abort);
    sim_trace("client %u: gone%s", c->id, abort ? " with a reset" : "");
    sim_book_left(c->id);
    c->state = GONE;
}

/* ---- what it says ---- */

static void say_message(struct sim_client *c)
{
    static char text[SIM_PAD_MAX + 512];
    static const char *const priorities[] = {"low", "normal", "high", "urgent", "critical"};
    unsigned priority = (unsigned)sim_below(RH_COUNT(priorities));
    bool named = sim_chance(400);
    struct sim_said said = {
        .client = c->id,
        .to_user = c->plan.aims ? c->plan.aim : (unsigned)sim_below(c->plan.users),
        .high = named && priority >= 2,
        .asked = c->plan.aims || sim_chance(800),
        .is_message = true,
        .pad = sim_below(sim_chance(800) ? RH_MIN(c->plan.pad_max, (size_t)300) + 1
                                         : c->plan.pad_max + 1),
    };
    unsigned number = sim_book_say(&said);
    size_t len = (size_t)sprintf(text, "{\"type\":\"request\",\"event\":\"message.send\"");

    if (said.asked)
        len += (size_t)sprintf(text + len, ",\"request_id\":\"r%u\"", number);
    len += (size_t)sprintf(text + len, ",\"data\":{\"to\":\"u%u\",\"content\":\"", said.to_user);
    len += sim_book_content(number, text + len);
    len += (size_t)sprintf(text + len, "\"");
    if (named)
        len += (size_t)sprintf(text + len, ",\"priority\":\"%s\"", priorities[priority]);
    len += (size_t)sprintf(text + len, "}}");
    sim_trace("client %u: says m%u to u%u%s", c->id, number, said.to_user,
              said.high ? " high" : "");
    sim_wire_message(&c->wire, RH_WS_TEXT, text, len, c->plan.chatty);
}

/* Something that the hub answers itself. */
static void say_request(struct sim_client *c)
{
    const struct sim_said said = {.client = c->id, .asked = true};
    unsigned number = sim_book_say(&said);
    char text[128];
    int len = sprintf(text, "{\"type\":\"request\",\"event\":\"%s\",\"request_id\":\"r%u\"}",
                      sim_chance(500) ? "ping" : "no.such.event", number);

    sim_wire_message(&c->wire, RH_WS_TEXT, text, (size_t)len, c->plan.chatty);
}

static void say_what_is_due(struct sim_client *c)
{
    bool may = c->joined || (c->plan.eager && c->state <= OPEN);

    while (may && !c->said_close && c->said < c->plan.says && sim_now() >= c->next_ns) {
        if (c->plan.chatty && sim_chance(200))
            say_request(c);
        else
            say_message(c);
        c->said++;
        if (!c->plan.gap_us)
            continue;
        c->next_ns = sim_now() + sim_below(c->plan.gap_us + 1) * SIM_US;
        sim_at(c->next_ns, step, c);
    }
}

/* ---- what it hears ---- */

/* The text behind `key`, up to `stop`. False: the key is not there. */
static bool find(const struct sim_client *c, const char *key, char stop, struct rh_span *ret_value)
{
    const char *at = strstr(c->text, key);
    const char *end = at ? strchr(at + strlen(key), stop) : NULL;

    if (!end)
        return false;
    ret_value->at = at + strlen(key);
    ret_value->len = (uint32_t)(end - ret_value->at);
    return true;
}

static void hear_welcome(struct sim_client *c)
{
    struct rh_span user;
    char name[16];
    int len = snprintf(name, sizeof(name), "u%u", c->plan.user);

    SIM_CHECK(find(c, "\"event\":\"welcome\",\"data\":{\"user\":\"", '"', &user) &&
                  user.len == (uint32_t)len && memcmp(user.at, name, user.len) == 0,
              "client %u: not its welcome: %s", c->id, c->text);
    sim_trace("client %u: welcome as %s", c->id, name);
    c->joined = true;
    sim_book_joined(c->id, c->plan.user);
    if (c->said_close)
        sim_book_left(c->id);
}

static void hear_answer(struct sim_client *c, bool error)
{
    struct rh_span id, outcome = RH_SPAN("done");

    if (!find(c, "\"request_id\":\"r", '"', &id)) {
        SIM_CHECK(error, "client %u: an answer to nothing: %s", c->id, c->text);
        return; /* of a request without a name, only failure is told */
    }
    if (error)
        SIM_CHECK(find(c, "\"error\":\"", '"', &outcome), "client %u: %s", c->id, c->text);
    else
        find(c, "\"status\":\"", '"', &outcome);
    sim_trace("client %u: r%.*s is %.*s", c->id, (int)id.len, id.at, (int)outcome.len, outcome.at);
    sim_book_answered(c->id, (unsigned)strtoul(id.at, NULL, 10), outcome.at, outcome.len);
}

static void hear_text(struct sim_client *c)
{
    struct rh_span content, seq;

    c->text[c->text_len] = '\0';
    SIM_CHECK(strlen(c->text) == c->text_len &&
                  rh_json_check(c->text, c->text_len, RH_JSON_DEPTH) >= 0,
              "client %u: no JSON: %s", c->id, c->text);
    c->text_len = 0;
    if (strncmp(c->text, "{\"type\":\"response\"", 18) == 0) {
        hear_answer(c, false);
    } else if (strncmp(c->text, "{\"type\":\"error\"", 15) == 0) {
        hear_answer(c, true);
    } else if (!c->joined) {
        hear_welcome(c);
    } else if (!strstr(c->text, "\"event\":\"server.draining\"")) {
        SIM_CHECK(find(c, "\"content\":\"", '"', &content) && find(c, "\"seq\":", ',', &seq),
                  "client %u: what is this: %s", c->id, c->text);
        sim_trace("client %u: gets %.*s", c->id, (int)(strchr(content.at, ':') - content.at),
                  content.at);
        sim_book_received(c->id, content.at, content.len, strtoull(seq.at, NULL, 10));
    }
}

static void hear_close(struct sim_client *c, unsigned code)
{
    sim_trace("client %u: close %u", c->id, code);
    if (!c->said_close) {
        c->dropped = true;
        c->code = code;
    }
    sim_book_left(c->id);
    c->heard_end = true;
    put_close(c);
    c->state = CLOSING;
}

static void hear(struct sim_client *c, const struct rh_ws_event *ev)
{
    switch (ev->kind) {
    case RH_WS_DATA:
        SIM_CHECK(ev->opcode == RH_WS_TEXT, "client %u: a binary message", c->id);
        SIM_CHECK(c->text_len + ev->len <= TEXT_ROOM, "client %u: a long message", c->id);
        memcpy(c->text + c->text_len, ev->data, ev->len);
        c->text_len += ev->len;
        if (ev->last && ev->compressed)
            c->text_len = sim_squeeze_inflate(&c->wire.squeeze, c->text, c->text_len, TEXT_ROOM);
        if (ev->last)
            hear_text(c);
        break;
    case RH_WS_PING:
        if (!c->said_close)
            sim_wire_frame(&c->wire, RH_WS_OP_PONG, true, ev->data, ev->len);
        break;
    case RH_WS_CLOSE:
        hear_close(c, ev->code);
        break;
    case RH_WS_ERROR:
        sim_fail("client %u: the hub breaks the protocol: %s", c->id, ev->why);
    default:
        break;
    }
}

static size_t hear_handshake(struct sim_client *c)
{
    int used = sim_squeeze_answer(&c->wire.squeeze, c->in, c->in_len, SIM_KEY, &c->ws, TEXT_ROOM);

    if (used == 0)
        return 0;
    if (used > 0) {
        c->state = OPEN;
        return (size_t)used;
    }
    SIM_CHECK(used == -503, "client %u: refused with %d", c->id, -used);
    sim_trace("client %u: refused with %d", c->id, -used);
    c->code = (unsigned)-used;
    c->dropped = !c->told;
    gone(c, false);
    return 0;
}

static void parse(struct sim_client *c)
{
    size_t used = c->state == SHAKING ? hear_handshake(c) : 0;
    struct rh_ws_event ev = {.kind = RH_WS_DATA};

    while (c->state >= OPEN && c->state < GONE && !c->heard_end && ev.kind != RH_WS_MORE) {
        used += rh_ws_feed(&c->ws, c->in + used, c->in_len - used, &ev);
        hear(c, &ev);
    }
    if (c->heard_end)
        used = c->in_len; /* nothing counts behind a close */
    memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
}

/* The stream has ended or broken. */
static void heard_last(struct sim_client *c, int res)
{
    if (!c->heard_end && !c->said_close && !c->told) {
        c->dropped = true;
        sim_trace("client %u: dropped (%d)", c->id, res);
    }
    gone(c, false);
}

static bool stalls(const struct sim_client *c)
{
    return c->plan.stall_for_ns && sim_now() >= c->plan.stall_ns &&
           sim_now() < c->plan.stall_ns + c->plan.stall_for_ns;
}

static void read_all(struct sim_client *c)
{
    while (c->state != GONE && !stalls(c)) {
        size_t room = IN_ROOM - c->in_len;
        int n =
            sim_read(c->wire.end, c->in + c->in_len, sim_chance(300) ? 1 + sim_below(room) : room);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            heard_last(c, n);
            return;
        }
        c->in_len += (size_t)n;
        parse(c);
    }
}

/* ---- the plan ---- */

static void connect_now(struct sim_client *c)
{
    char path[64], head[512];
    size_t len;

    snprintf(path, sizeof(path), "/ws?user_id=u%u%s%s", c->plan.user,
             c->plan.device ? "&device=" : "", c->plan.device ? c->plan.device : "");
    if (!sim_wire_connect(&c->wire, c->id, step, c)) {
        c->dropped = true;
        gone(c, true);
        return;
    }
    c->state = SHAKING;
    len = rh_upgrade_request(head, sizeof(head), "localhost", path, SIM_KEY,
                             sim_squeeze_offer(&c->wire.squeeze));
    sim_trace("client %u: connects as u%u", c->id, c->plan.user);
    sim_wire_put(&c->wire, head, c->plan.mute ? sim_below(len) : len);
}

static void end_now(struct sim_client *c, enum sim_ending ending)
{
    c->told = true;
    sim_book_left(c->id);
    sim_trace("client %u: ends (%d)", c->id, (int)ending);
    switch (ending) {
    case SIM_RESETS:
    case SIM_HANGS_UP:
        gone(c, ending == SIM_RESETS);
        break;
    case SIM_SHUTS:
        sim_shut(c->wire.end, false, true);
        c->wire.out_len = 0;
        c->said_close = true;
        break;
    default:
        if (c->state == SHAKING) /* there is nobody yet to say goodbye to */
            gone(c, false);
        else
            put_close(c);
        break;
    }
}

/* After the closing handshake the hub ends its side first; who waits for it too long, goes. */
static void step(void *arg)
{
    struct sim_client *c = arg;

    if (c->state == WAITING)
        connect_now(c);
    if (c->state == GONE)
        return;
    read_all(c);
    if (c->state != GONE && !c->told && sim_now() >= c->plan.end_ns)
        end_now(c, c->plan.ending);
    if (c->state == GONE)
        return;
    say_what_is_due(c);
    sim_wire_write(&c->wire);
}

struct sim_client *sim_client_start(unsigned id, const struct sim_plan *plan)
{
    struct sim_client *c = sim_keep(sizeof(*c));

    c->id = id;
    c->plan = *plan;
    sim_at(plan->connect_ns, step, c);
    if (plan->stall_for_ns)
        sim_at(plan->stall_ns + plan->stall_for_ns, step, c);
    if (plan->end_ns != SIM_NEVER)
        sim_at(plan->end_ns, step, c);
    return c;
}

void sim_client_end(struct sim_client *c, enum sim_ending ending)
{
    if (c->state == GONE || c->told)
        return;
    if (c->state == WAITING)
        gone(c, false);
    else
        end_now(c, ending);
    sim_at(sim_now(), step, c);
}

bool sim_client_joined(const struct sim_client *c)
{
    return c->joined;
}

bool sim_client_gone(const struct sim_client *c)
{
    return c->state == GONE;
}

unsigned sim_client_code(const struct sim_client *c)
{
    return c->code;
}

bool sim_client_dropped(const struct sim_client *c)
{
    return c->dropped;
}
