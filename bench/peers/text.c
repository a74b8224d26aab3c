/* bench/peers/text.c - dialects of one message each: plain, nchan, ws, Socket.IO, ringhub.
 *
 * They are spoken as their documentation has it, and no more of them than the loads need. Where a
 * payload begins is looked for with a hint: where the last one began, as messages are alike.
 */
#include <stdio.h>
#include <string.h>

#include "bench/peers/peer.h"

#define LOAD(name)   (1u << (name))
#define ALL_BUT_ECHO (LOAD(PEER_FANOUT) | LOAD(PEER_PAIRS) | LOAD(PEER_IDLE))

static bool begins(const uint8_t *at, size_t len, const char *with)
{
    size_t n = strlen(with);

    return len >= n && memcmp(at, with, n) == 0;
}

static void say(struct peer *p, struct peer_conn *c, const char *text)
{
    peer_conn_say(p, c, 0, text, strlen(text));
}

/* The payload behind `mark`, which ends in a quote, is handed on. */
static bool take_quoted(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len,
                        const char *mark)
{
    size_t n = strlen(mark);
    const uint8_t *found = at + p->hint;

    if (p->hint + n > len || memcmp(found, mark, n) != 0)
        found = memmem(at, len, mark, n);
    if (!found || found + n + p->opts.size >= at + len || found[n + p->opts.size] != '"')
        return false;
    p->hint = (uint32_t)(found - at);
    peer_arrived(p, c, found + n, p->opts.size);
    return true;
}

/* ---- plain: what comes is the payload; a path that echoes ---- */

static void plain_path(const struct peer *p, const struct peer_conn *c, char *dst, size_t room)
{
    snprintf(dst, room, "/echo");
}

static size_t plain_take(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    peer_arrived(p, c, at, len);
    return len;
}

static size_t plain_wrap(const struct peer *p, const struct peer_conn *c, char before[PEER_WRAP],
                         char behind[PEER_WRAP], uint32_t *ret_behind)
{
    *ret_behind = 0;
    return 0;
}

const struct peer_dialect peer_plain = {.name = "plain",
                                        .loads = LOAD(PEER_ECHO),
                                        .opcode = RH_WS_TEXT,
                                        .path = plain_path,
                                        .open = peer_ready,
                                        .take = plain_take,
                                        .wrap = plain_wrap};

/* ---- nchan: locations of bench/peers/run.py's nginx.conf ---- */

static void nchan_path(const struct peer *p, const struct peer_conn *c, char *dst, size_t room)
{
    char own[PEER_NAME], target[PEER_NAME];

    peer_own_name(p, c, own);
    peer_target_name(p, c, target);
    if (p->opts.load == PEER_PAIRS)
        snprintf(dst, room, "/both?me=%s&to=%s", own, target);
    else if (peer_publishes(p, c))
        snprintf(dst, room, "/pub?to=%s", target);
    else
        snprintf(dst, room, "/sub?me=%s", own);
}

/* Each message that is published is answered with a few lines about its channel. */
static size_t nchan_take(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    if (!begins(at, len, "queued messages:"))
        peer_arrived(p, c, at, len);
    return len;
}

const struct peer_dialect peer_nchan = {.name = "nchan",
                                        .loads = ALL_BUT_ECHO,
                                        .opcode = RH_WS_TEXT,
                                        .path = nchan_path,
                                        .open = peer_ready,
                                        .take = nchan_take,
                                        .wrap = plain_wrap};

/* ---- ws: paths of bench/peers/ws_server.js; in pairs "NAME payload" goes to NAME ---- */

static void ws_path(const struct peer *p, const struct peer_conn *c, char *dst, size_t room)
{
    char own[PEER_NAME], target[PEER_NAME];

    peer_own_name(p, c, own);
    peer_target_name(p, c, target);
    if (p->opts.load != PEER_FANOUT)
        snprintf(dst, room, "/user/%s", own);
    else if (peer_publishes(p, c))
        snprintf(dst, room, "/publish/%s", target);
    else
        snprintf(dst, room, "/room/%s", own);
}

static size_t ws_wrap(const struct peer *p, const struct peer_conn *c, char before[PEER_WRAP],
                      char behind[PEER_WRAP], uint32_t *ret_behind)
{
    char target[PEER_NAME];

    *ret_behind = 0;
    if (p->opts.load == PEER_FANOUT)
        return 0;
    peer_target_name(p, c, target);
    return (size_t)snprintf(before, PEER_WRAP, "%s ", target);
}

const struct peer_dialect peer_node_ws = {.name = "ws",
                                          .loads = ALL_BUT_ECHO,
                                          .opcode = RH_WS_TEXT,
                                          .path = ws_path,
                                          .open = peer_ready,
                                          .take = plain_take,
                                          .wrap = ws_wrap};

/* ---- Socket.IO 5 over Engine.IO 4: events of bench/peers/socketio_server.js ---- */

static void socketio_path(const struct peer *p, const struct peer_conn *c, char *dst, size_t room)
{
    snprintf(dst, room, "/socket.io/?EIO=4&transport=websocket");
}

static void socketio_open(struct peer *p, struct peer_conn *c)
{
    /* Engine.IO speaks first. */
}

/* Logging in: 0{..} is Engine.IO's welcome, 40 connects to the main namespace, event join (with an
 * acknowledgement, 430) listens to a name. */
static void socketio_login(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len)
{
    char own[PEER_NAME], text[64];

    if (begins(at, len, "0{")) {
        say(p, c, "40");
    } else if (begins(at, len, "40{")) {
        peer_own_name(p, c, own);
        snprintf(text, sizeof(text), "420[\"join\",\"%s\"]", own);
        say(p, c, text);
    } else if (begins(at, len, "430[")) {
        peer_ready(p, c);
    } else {
        peer_strange(p, c, at, len);
    }
}

static size_t socketio_take(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    if (len == 1 && at[0] == '2') /* its heartbeat */
        say(p, c, "3");
    else if (c->state == PEER_LOGIN)
        socketio_login(p, c, at, len);
    else if (!begins(at, len, "42[\"m\",") || !take_quoted(p, c, at, len, ",\""))
        peer_strange(p, c, at, len);
    return len;
}

static size_t socketio_wrap(const struct peer *p, const struct peer_conn *c, char before[PEER_WRAP],
                            char behind[PEER_WRAP], uint32_t *ret_behind)
{
    char target[PEER_NAME];

    *ret_behind = (uint32_t)snprintf(behind, PEER_WRAP, "\"]");
    if (p->opts.load == PEER_ECHO)
        return (size_t)snprintf(before, PEER_WRAP, "42[\"echo\",\"");
    peer_target_name(p, c, target);
    return (size_t)snprintf(before, PEER_WRAP, "42[\"to\",\"%s\",\"", target);
}

const struct peer_dialect peer_socketio = {.name = "socketio",
                                           .loads = LOAD(PEER_ECHO) | ALL_BUT_ECHO,
                                           .opcode = RH_WS_TEXT,
                                           .path = socketio_path,
                                           .open = socketio_open,
                                           .take = socketio_take,
                                           .wrap = socketio_wrap};

/* ---- ringhub ---- */

static void ringhub_path(const struct peer *p, const struct peer_conn *c, char *dst, size_t room)
{
    char name[PEER_NAME];

    peer_own_name(p, c, name);
    if (p->opts.load != PEER_FANOUT)
        snprintf(dst, room, "/ws?user_id=%s", name);
    else if (peer_publishes(p, c)) /* may publish to rooms that it is no member of */
        snprintf(dst, room, "/ws?role=admin&user_id=%s", name);
    else
        snprintf(dst, room, "/ws?user_id=%s-%u&rooms=%s", p->run, c->number, name);
}

static void ringhub_open(struct peer *p, struct peer_conn *c)
{
    /* The welcome comes first. */
}

static void ringhub_login(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len)
{
    bool joins = p->opts.load == PEER_FANOUT && !peer_publishes(p, c);
    bool welcome = begins(at, len, "{\"type\":\"notify\",\"event\":\"welcome\"");
    bool joined = begins(at, len, "{\"type\":\"notify\",\"event\":\"room.subscribed\"");

    if (joins ? joined : welcome)
        peer_ready(p, c);
    else if (!welcome)
        peer_strange(p, c, at, len);
}

static void ringhub_answer(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len)
{
    if (p->unanswered == 0 || !memmem(at, len, "\"code\":200", 10))
        peer_strange(p, c, at, len);
    else
        p->unanswered--;
}

static size_t ringhub_take(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    if (begins(at, len, "{\"type\":\"notify\",\"event\":\"room.joined\""))
        return len; /* small rooms tell who comes */
    if (c->state == PEER_LOGIN)
        ringhub_login(p, c, at, len);
    else if (begins(at, len, "{\"type\":\"response\","))
        ringhub_answer(p, c, at, len);
    else if (!take_quoted(p, c, at, len, "\"content\":\""))
        peer_strange(p, c, at, len);
    return len;
}

static size_t ringhub_wrap(const struct peer *p, const struct peer_conn *c, char before[PEER_WRAP],
                           char behind[PEER_WRAP], uint32_t *ret_behind)
{
    bool room = p->opts.load == PEER_FANOUT;
    char target[PEER_NAME];

    peer_target_name(p, c, target);
    *ret_behind = (uint32_t)snprintf(behind, PEER_WRAP, "\"}}");
    return (size_t)snprintf(before, PEER_WRAP,
                            "{\"type\":\"request\",\"event\":\"%s\",%s\"data\":{\"%s\":\"%s\","
                            "\"content\":\"",
                            room ? "room.publish" : "message.send",
                            p->opts.answers ? "\"request_id\":\"1\"," : "", room ? "room" : "to",
                            target);
}

const struct peer_dialect peer_ringhub = {.name = "ringhub",
                                          .loads = ALL_BUT_ECHO,
                                          .opcode = RH_WS_TEXT,
                                          .answers = true,
                                          .path = ringhub_path,
                                          .open = ringhub_open,
                                          .take = ringhub_take,
                                          .wrap = ringhub_wrap};
