/* bench/peers/stream.c - dialects whose packets are a stream inside binary frames: MQTT and NATS.
 *
 * Both say that frames and packets need not end together, so conn.c keeps what is not whole yet.
 */
#include <stdio.h>
#include <string.h>

#include "bench/peers/peer.h"

#define LOADS (1u << PEER_FANOUT | 1u << PEER_PAIRS | 1u << PEER_IDLE)

/* ---- MQTT 3.1.1 (OASIS), quality of service 0 ---- */

enum { CONNECT = 0x10, CONNACK = 0x20, PUBLISH = 0x30, SUBSCRIBE = 0x82, SUBACK = 0x90 };

static void mqtt_path(const struct peer *p, const struct peer_conn *c, char *dst, size_t room)
{
    snprintf(dst, room, "/mqtt");
}

/* A string with its length in front (1.5.3). */
static uint8_t *put_string(uint8_t *at, const char *text)
{
    size_t len = strlen(text);

    *at++ = (uint8_t)(len >> 8);
    *at++ = (uint8_t)len;
    memcpy(at, text, len);
    return at + len;
}

static void mqtt_open(struct peer *p, struct peer_conn *c)
{
    uint8_t packet[64], *at = packet + 2;
    char id[PEER_NAME];

    snprintf(id, sizeof(id), "%s-%u", p->run, c->number);
    at = put_string(at, "MQTT");
    *at++ = 4; /* 3.1.1 */
    *at++ = 2; /* clean session */
    *at++ = 0; /* keep-alive: none */
    *at++ = 0;
    at = put_string(at, id);
    packet[0] = CONNECT;
    packet[1] = (uint8_t)(at - packet - 2);
    peer_conn_say(p, c, 0, packet, (size_t)(at - packet));
}

static void mqtt_subscribe(struct peer *p, struct peer_conn *c)
{
    uint8_t packet[64] = {SUBSCRIBE, 0, 0, 1}, *at = packet + 4;
    char own[PEER_NAME];

    peer_own_name(p, c, own);
    at = put_string(at, own);
    *at++ = 0; /* quality of service */
    packet[1] = (uint8_t)(at - packet - 2);
    peer_conn_say(p, c, 0, packet, (size_t)(at - packet));
}

/* A length in up to four pieces of 7 bits (2.2.3); its bytes, 0: need more. */
static size_t read_length(const uint8_t *at, size_t len, size_t *ret)
{
    *ret = 0;
    for (size_t i = 0; i < len && i < 4; i++) {
        *ret |= (size_t)(at[i] & 0x7f) << 7 * i;
        if (!(at[i] & 0x80))
            return i + 1;
    }
    return 0;
}

static void mqtt_packet(struct peer *p, struct peer_conn *c, uint8_t kind, const uint8_t *at,
                        size_t len)
{
    size_t topic = len >= 2 ? (size_t)at[0] << 8 | at[1] : 0;
    bool connected = kind == CONNACK && len == 2 && at[1] == 0;
    bool subscribed = kind == SUBACK && len == 3 && at[2] == 0;

    if (kind == PUBLISH && c->state == PEER_READY && len >= 2 + topic)
        peer_arrived(p, c, at + 2 + topic, len - 2 - topic);
    else if (subscribed || (connected && peer_publishes(p, c)))
        peer_ready(p, c);
    else if (connected)
        mqtt_subscribe(p, c);
    else
        peer_strange(p, c, at, len);
}

static size_t mqtt_take(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    size_t body, used = read_length(at + 1, len - 1, &body);

    if (used == 0 || len < 1 + used + body)
        return 0;
    mqtt_packet(p, c, at[0], at + 1 + used, body);
    return 1 + used + body;
}

static size_t mqtt_wrap(const struct peer *p, const struct peer_conn *c, char before[PEER_WRAP],
                        char behind[PEER_WRAP], uint32_t *ret_behind)
{
    uint8_t *at = (uint8_t *)before;
    char target[PEER_NAME];
    size_t len;

    peer_target_name(p, c, target);
    len = 2 + strlen(target) + p->opts.size;
    *at++ = PUBLISH;
    do {
        *at++ = (uint8_t)((len & 0x7f) | (len > 0x7f ? 0x80 : 0));
        len >>= 7;
    } while (len > 0);
    *ret_behind = 0;
    return (size_t)(put_string(at, target) - (uint8_t *)before);
}

const struct peer_dialect peer_mqtt = {.name = "mqtt",
                                       .offer = "mqtt",
                                       .loads = LOADS,
                                       .opcode = RH_WS_BINARY,
                                       .stream = true,
                                       .path = mqtt_path,
                                       .open = mqtt_open,
                                       .take = mqtt_take,
                                       .wrap = mqtt_wrap};

/* ---- NATS ---- */

static void nats_path(const struct peer *p, const struct peer_conn *c, char *dst, size_t room)
{
    snprintf(dst, room, "/");
}

static void nats_open(struct peer *p, struct peer_conn *c)
{
    /* The server's INFO comes first. */
}

/* CONNECT as terse as it goes; the PONG to our PING says that the server has read all of it. */
static void nats_login(struct peer *p, struct peer_conn *c)
{
    char own[PEER_NAME], text[256];
    int len = snprintf(text, sizeof(text),
                       "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true,"
                       "\"headers\":false,\"lang\":\"c\",\"version\":\"1\",\"protocol\":0}\r\n");

    peer_own_name(p, c, own);
    if (!peer_publishes(p, c))
        len += snprintf(text + len, sizeof(text) - (size_t)len, "SUB %s 1\r\n", own);
    len += snprintf(text + len, sizeof(text) - (size_t)len, "PING\r\n");
    peer_conn_say(p, c, 0, text, (size_t)len);
}

/* MSG subject sid length, then the payload and a line's end; 0: need more. */
static size_t nats_message(struct peer *p, struct peer_conn *c, const uint8_t *at, size_t len,
                           size_t line)
{
    size_t digits = line, size = 0;

    while (digits > 0 && at[digits - 1] != ' ')
        digits--;
    for (size_t i = digits; i < line; i++)
        size = size * 10 + (size_t)(at[i] - '0');
    if (len < line + 2 + size + 2)
        return 0;
    peer_arrived(p, c, at + line + 2, size);
    return line + 2 + size + 2;
}

static bool begins(const uint8_t *at, size_t len, const char *with)
{
    size_t n = strlen(with);

    return len >= n && memcmp(at, with, n) == 0;
}

static size_t nats_take(struct peer *p, struct peer_conn *c, uint8_t *at, size_t len)
{
    const uint8_t *end = memchr(at, '\r', len);
    size_t line = end ? (size_t)(end - at) : 0;

    if (!end || len < line + 2)
        return 0;
    if (begins(at, line, "MSG "))
        return nats_message(p, c, at, len, line);
    if (begins(at, line, "INFO ") && c->state == PEER_LOGIN)
        nats_login(p, c);
    else if (begins(at, line, "PONG") && c->state == PEER_LOGIN)
        peer_ready(p, c);
    else if (begins(at, line, "PING"))
        peer_conn_say(p, c, 0, "PONG\r\n", 6);
    else
        peer_strange(p, c, at, line);
    return line + 2;
}

static size_t nats_wrap(const struct peer *p, const struct peer_conn *c, char before[PEER_WRAP],
                        char behind[PEER_WRAP], uint32_t *ret_behind)
{
    char target[PEER_NAME];

    peer_target_name(p, c, target);
    *ret_behind = (uint32_t)snprintf(behind, PEER_WRAP, "\r\n");
    return (size_t)snprintf(before, PEER_WRAP, "PUB %s %u\r\n", target, p->opts.size);
}

const struct peer_dialect peer_nats = {.name = "nats",
                                       .loads = LOADS,
                                       .opcode = RH_WS_BINARY,
                                       .stream = true,
                                       .path = nats_path,
                                       .open = nats_open,
                                       .take = nats_take,
                                       .wrap = nats_wrap};
