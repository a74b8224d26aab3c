/* tests/sim/sim_guest.c - echoes and HTTP requests; see sim_guest.h. */
#include "tests/sim/sim_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/http1.h"
#include "proto/upgrade.h"
#include "proto/ws.h"
#include "tests/sim/sim_wire.h"

#define IN_ROOM    (64 << 10) /* the longest answer: /metrics */
#define THINGS_MAX 24

/* One thing that is said, and what is to be heard of it. */
struct thing {
    unsigned status; /* HTTP */
    bool head_only;
    uint8_t opcode; /* echo */
    uint64_t sum;
    size_t len;
};

struct sim_guest {
    unsigned id;
    bool echo, open, gone, dropped, said_close;
    struct sim_wire wire;
    struct thing things[THINGS_MAX];
    unsigned count, heard;
    struct rh_ws ws;
    uint8_t *echoed; /* the echo being heard */
    size_t len;
    uint8_t in[IN_ROOM];
    size_t in_len;
    size_t size_max;
};

static uint64_t sum_of(const uint8_t *at, size_t len)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (sum ^ at[i]) * 0x100000001b3u;
    return sum;
}

/* ---- saying ---- */

static void say_requests(struct sim_guest *g)
{
    static const struct {
        const char *line;
        unsigned status;
        bool head_only;
    } kinds[] = {
        {"GET /livez", 200, false}, {"GET /readyz", 200, false},  {"GET /metrics", 200, false},
        {"HEAD /livez", 200, true}, {"GET /nothing", 404, false}, {"POST /livez", 405, false},
        {"GET /ws", 426, false},
    };

    for (unsigned i = 0; i < g->count; i++) {
        unsigned kind = (unsigned)sim_below(RH_COUNT(kinds));
        char text[128];
        int len = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                           kinds[kind].line);

        g->things[i].status = kinds[kind].status;
        g->things[i].head_only = kinds[kind].head_only;
        sim_wire_put(&g->wire, text, (size_t)len);
    }
}

static void say_echoes(struct sim_guest *g)
{
    uint8_t *bytes = sim_keep(g->size_max + 1);

    for (unsigned i = 0; i < g->count; i++) {
        struct thing *thing = &g->things[i];

        thing->len = sim_below(g->size_max + 1);
        thing->opcode = sim_chance(500) ? RH_WS_TEXT : RH_WS_BINARY;
        for (size_t k = 0; k < thing->len; k++)
            bytes[k] = (uint8_t)('a' + sim_below(26));
        thing->sum = sum_of(bytes, thing->len);
        sim_wire_message(&g->wire, thing->opcode, bytes, thing->len, sim_chance(500));
    }
}

/* ---- hearing ---- */

static void gone(struct sim_guest *g)
{
    if (g->gone)
        return;
    if (g->wire.end)
        sim_close(g->wire.end, sim_chance(200));
    g->gone = true;
    sim_trace("guest %u: gone, %u of %u heard", g->id, g->heard, g->count);
}

static size_t hear_response(struct sim_guest *g)
{
    const struct thing *thing = &g->things[g->heard];
    struct rh_http_head head;
    const struct rh_span *field;
    unsigned status;
    int used = rh_http_parse_response((const char *)g->in, g->in_len, 4096, &status, &head);
    size_t whole;

    SIM_CHECK(used >= 0, "guest %u: a malformed response", g->id);
    if (used == 0)
        return 0;
    field = rh_http_find(&head, "content-length");
    whole = (size_t)used + (field && !thing->head_only ? strtoul(field->at, NULL, 10) : 0);
    SIM_CHECK(whole <= IN_ROOM, "guest %u: a long response", g->id);
    if (g->in_len < whole)
        return 0;
    sim_trace("guest %u: %u", g->id, status);
    SIM_CHECK(status == 503 || status == thing->status, "guest %u: %u instead of %u", g->id, status,
              thing->status);
    g->heard++;
    return whole;
}

static size_t hear_handshake(struct sim_guest *g)
{
    int used = sim_squeeze_answer(&g->wire.squeeze, g->in, g->in_len, SIM_KEY, &g->ws, IN_ROOM);

    SIM_CHECK(used >= 0 || used == -503, "guest %u: refused with %d", g->id, -used);
    if (used < 0) {
        g->dropped = true;
        gone(g);
        return 0;
    }
    g->open = used > 0;
    if (g->open && g->wire.squeeze.asks)
        say_echoes(g);
    return (size_t)used;
}

static void hear_echo(struct sim_guest *g, const struct rh_ws_event *ev)
{
    const struct thing *thing = &g->things[g->heard];

    SIM_CHECK(g->heard < g->count, "guest %u: an echo of nothing", g->id);
    SIM_CHECK(g->len + ev->len <= IN_ROOM, "guest %u: a long echo", g->id);
    memcpy(g->echoed + g->len, ev->data, ev->len);
    g->len += ev->len;
    if (!ev->last)
        return;
    if (ev->compressed)
        g->len = sim_squeeze_inflate(&g->wire.squeeze, g->echoed, g->len, IN_ROOM);
    SIM_CHECK(ev->opcode == thing->opcode && g->len == thing->len &&
                  sum_of(g->echoed, g->len) == thing->sum,
              "guest %u: the echo of %u is another message", g->id, g->heard);
    g->heard++;
    g->len = 0;
}

static size_t hear_frame(struct sim_guest *g)
{
    struct rh_ws_event ev;
    size_t used = rh_ws_feed(&g->ws, g->in, g->in_len, &ev);

    SIM_CHECK(ev.kind != RH_WS_ERROR, "guest %u: the hub breaks the protocol: %s", g->id, ev.why);
    if (ev.kind == RH_WS_DATA)
        hear_echo(g, &ev);
    else if (ev.kind == RH_WS_PING)
        sim_wire_frame(&g->wire, RH_WS_OP_PONG, true, ev.data, ev.len);
    else if (ev.kind == RH_WS_CLOSE)
        gone(g);
    return used;
}

static void parse(struct sim_guest *g)
{
    size_t used = 1;

    while (used && !g->gone && (g->echo || g->heard < g->count)) {
        used = !g->echo ? hear_response(g) : g->open ? hear_frame(g) : hear_handshake(g);
        memmove(g->in, g->in + used, g->in_len - used);
        g->in_len -= used;
    }
}

static void read_all(struct sim_guest *g)
{
    while (!g->gone) {
        int n = sim_read(g->wire.end, g->in + g->in_len, IN_ROOM - g->in_len);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            g->dropped |= g->heard < g->count;
            gone(g);
            return;
        }
        g->in_len += (size_t)n;
        parse(g);
        SIM_CHECK(g->in_len < IN_ROOM, "guest %u: a long message", g->id);
    }
}

/* ---- life ---- */

static void step(void *arg)
{
    static const uint8_t normal[] = {1000 >> 8, 1000 & 0xff};
    struct sim_guest *g = arg;

    if (g->gone)
        return;
    read_all(g);
    if (g->gone)
        return;
    if (g->heard == g->count && !g->echo)
        gone(g);
    if (g->gone)
        return;
    if (g->heard == g->count && !g->said_close) {
        g->said_close = true;
        sim_wire_frame(&g->wire, RH_WS_OP_CLOSE, true, normal, sizeof(normal));
    }
    sim_wire_write(&g->wire);
}

static void begin(void *arg)
{
    struct sim_guest *g = arg;
    char head[512];

    if (g->gone)
        return;
    if (!sim_wire_connect(&g->wire, g->id, step, g)) {
        g->dropped = true;
        gone(g);
        return;
    }
    sim_trace("guest %u: connects for %u %s", g->id, g->count, g->echo ? "echoes" : "requests");
    if (g->echo) {
        sim_wire_put(&g->wire, head,
                     rh_upgrade_request(head, sizeof(head), "localhost", "/echo", SIM_KEY,
                                        sim_squeeze_offer(&g->wire.squeeze)));
        if (!g->wire.squeeze.asks) /* else when it knows what was agreed on */
            say_echoes(g);
    } else {
        say_requests(g);
    }
    step(g);
}

struct sim_guest *sim_guest_start(unsigned id, uint64_t connect_ns, size_t size_max)
{
    struct sim_guest *g = sim_keep(sizeof(*g));

    g->id = id;
    g->echo = sim_chance(500);
    g->count = 1 + (unsigned)sim_below(THINGS_MAX);
    g->size_max = size_max;
    g->echoed = sim_keep(IN_ROOM);
    sim_at(connect_ns, begin, g);
    return g;
}

bool sim_guest_done(const struct sim_guest *g)
{
    return g->heard == g->count;
}

bool sim_guest_dropped(const struct sim_guest *g)
{
    return g->dropped;
}

void sim_guest_end(struct sim_guest *g)
{
    gone(g);
}
