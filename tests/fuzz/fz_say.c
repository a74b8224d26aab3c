/* tests/fuzz/fz_say.c - requests and envelopes; see fz_say.h. */
#include "tests/fuzz/fz_say.h"

#include <string.h>

#define HOST "Host: h\r\n"
#define WS                                                                                         \
    HOST "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"              \
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n~"

static const char *const requests[] = {
    "GET /ws?user_id=u$ HTTP/1.1\r\n" WS "\r\n",
    "GET /echo HTTP/1.1\r\n" WS "\r\n",
    "GET /ws?user_id=u$&rooms=a,b HTTP/1.1\r\n" WS "\r\n",
    "GET /ws?user_id=u$&role=admin&user_type=agent HTTP/1.1\r\n" WS
    "Sec-WebSocket-Protocol: x, ringhub.v1\r\n\r\n",
    "GET /livez HTTP/1.1\r\n" HOST "\r\n",
    "GET /ws HTTP/1.1\r\n" WS "\r\n",
    "GET /readyz HTTP/1.0\r\n\r\n",
    "HEAD /livez HTTP/1.1\r\n" HOST "\r\n",
    "GET /metrics HTTP/1.1\r\n" HOST "\r\n",
    "POST /livez HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello",
    "GET /none?x=$ HTTP/1.1\r\n" HOST "\r\n",
    "GET /ws HTTP/1.1\r\n" HOST "\r\n",
    "GET /ws?user_id=%ff HTTP/1.1\r\n" WS "\r\n",
    "GET /echo HTTP/1.1\r\n" WS "Origin: https://elsewhere\r\n\r\n",
    "\r\n",
    "GET  / HTTP/1.1\r\n\r\n",
    /* from here on: some other connection may be replaced */
    "GET /ws?user_id=u$&device=phone HTTP/1.1\r\n" WS "\r\n",
    "GET /ws?user_id=u$&rooms=a@0,b&resume=% HTTP/1.1\r\n" WS "\r\n",
};

#define FIRST_REPLACES 16

/* What stands for `~`: an offer, in every second request none. */
static const char *const offers[] = {
    "",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    "",
    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n",
    "",
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
    "client_max_window_bits=8\r\n",
    "",
    "Sec-WebSocket-Extensions: x, permessage-deflate; y, permessage-deflate; "
    "client_no_context_takeover\r\n",
};

#define REQUEST "{\"type\":\"request\",\"request_id\":\"r\",\"event\":"
#define ROOM    "\"room\":\"$\""

static const char *const envelopes[] = {
    REQUEST "\"ping\",\"data\":[1,\"x\"]}",
    REQUEST "\"message.send\",\"data\":{\"to\":\"u$\",\"content\":\"hello\"}}",
    REQUEST "\"message.send\",\"data\":{\"to\":\"u$\",\"content\":1,\"priority\":\"high\"}}",
    REQUEST "\"room.join\",\"data\":{" ROOM "}}",
    REQUEST "\"room.publish\",\"data\":{" ROOM ",\"content\":\"some words\"}}",
    REQUEST "\"room.publish\",\"data\":{" ROOM ",\"content\":2,\"priority\":\"high\"}}",
    REQUEST "\"room.publish\",\"data\":{" ROOM
            ",\"content\":3,\"key\":\"k\",\"exclude_self\":true}}",
    REQUEST "\"room.leave\",\"data\":{" ROOM "}}",
    REQUEST "\"room.join\",\"data\":{" ROOM ",\"since\":0}}",
    REQUEST "\"room.create\",\"data\":{" ROOM ",\"conflate\":true,\"meta\":{\"m\":1}}}",
    REQUEST "\"room.create\",\"data\":{" ROOM ",\"max_members\":1}}",
    REQUEST "\"room.delete\",\"data\":{" ROOM "}}",
    REQUEST "\"room.members\",\"data\":{" ROOM ",\"limit\":1}}",
    REQUEST "\"room.history\",\"data\":{" ROOM ",\"since\":1}}",
    REQUEST "\"broadcast\",\"data\":{\"content\":\"to all\"}}",
    REQUEST "\"broadcast\",\"data\":{\"content\":4,\"user_types\":[\"agent\"]}}",
    REQUEST "\"nobody.knows\"}",
    REQUEST "\"message.send\",\"data\":{\"to\":\"u$\",\"content\":0,\"ack\":true}}",
    REQUEST "\"message.send\",\"data\":{\"to\":\"\"}}",
    "{\"type\":\"ack\",\"data\":{\"id\":\"x\"}}",
    "{\"type\":\"ack\",\"data\":{\"ids\":[1,\"x\"]}}",
    "{\"type\":\"ack\"}",
    "{\"type\":\"request\",\"event\":\"message.send\",\"data\":{\"to\":\"u$\",\"content\":5}}",
    "{\"type\":\"response\",\"request_id\":\"r\"}",
    "{",
    "",
};

static size_t put(char dst[FZ_SAID_MAX], size_t at, const char *text, size_t len)
{
    rh_assert(at + len <= FZ_SAID_MAX);
    memcpy(dst + at, text, len);
    return at + len;
}

static size_t say(char dst[FZ_SAID_MAX], const char *text, unsigned letter, const char *session)
{
    const char *offer = offers[letter / 4 % RH_COUNT(offers)];
    char name = (char)('a' + letter % 4);
    size_t len = 0;

    for (; *text; text++) {
        if (*text == '%' && session)
            len = put(dst, len, session, strlen(session));
        else if (*text == '~')
            len = put(dst, len, offer, strlen(offer));
        else
            len = put(dst, len, *text == '$' ? &name : text, 1);
    }
    return len;
}

size_t fz_say_request(char dst[FZ_SAID_MAX], unsigned number, unsigned letter, const char *session)
{
    unsigned i = number % RH_COUNT(requests);

    return say(dst, requests[i], letter, fz_say_replaces(i) ? session : NULL);
}

bool fz_say_replaces(unsigned number)
{
    return number % RH_COUNT(requests) >= FIRST_REPLACES;
}

size_t fz_say_envelope(char dst[FZ_SAID_MAX], unsigned number, unsigned letter)
{
    return say(dst, envelopes[number % RH_COUNT(envelopes)], letter, NULL);
}
