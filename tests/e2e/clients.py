"""tests/e2e/clients.py - users of the hub, on Python's `websockets`: a client we did not write.

A Client keeps its welcome, matches answers to requests, and sets aside what arrives in between.
Every wait has a deadline; envelope() checks what every message of the server has to have.
"""

import asyncio
import collections
import itertools
import json
import time
import urllib.parse

import websockets

from hub import DEADLINE, HubCase

_ids = itertools.count(1)


def path(user=None, at="/ws", **query):
    """The handshake's target; `user` and the query values are percent-encoded."""
    if user is not None:
        query = {"user_id": user, **query}
    return at + ("?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote) if query else "")


def envelope(text):
    """Parses a message of the server; it has to be one JSON object with type and timestamp."""
    def members(pairs):
        seen[:] = [name for name, _ in pairs]  # the outermost object comes last
        return dict(pairs)

    seen = []
    assert isinstance(text, str), "the hub's messages are text"
    got = json.loads(text, object_pairs_hook=members)
    assert len(seen) == len(set(seen)), f"duplicate members in {text!r}"
    assert got["type"] in ("response", "error", "notify"), text
    assert abs(got["timestamp"] - time.time() * 1000) < 60_000, text
    return got


async def open_socket(hub, target, **how):
    """A bare websockets connection, with nothing read yet."""
    how = {"ping_interval": None, "max_size": None, "max_queue": None, "open_timeout": DEADLINE,
           "close_timeout": DEADLINE, **how}
    return await websockets.connect(hub.url + target, **how)


async def open_client(hub, user=None, headers=None, how=None, **query):
    """A Client behind its welcome."""
    how = {**(how or {}), **({"extra_headers": headers} if headers else {})}
    client = Client(await open_socket(hub, path(user, **query), **how))
    client.welcome = (await client.receive())
    assert client.welcome["type"] == "notify" and client.welcome["event"] == "welcome", \
        client.welcome
    client.user = client.welcome["data"]["user"]
    return client


class Client:
    """One connection of a user. receive() is all that arrives, in order; request() matches."""

    def __init__(self, socket):
        self.socket = socket
        self.aside = collections.deque()
        self.welcome = self.user = self.last_text = None

    async def _next(self):
        async with asyncio.timeout(DEADLINE):
            text = await self.socket.recv()
        got = envelope(text)
        self.last_text = text
        return got

    async def receive(self):
        """The next envelope, first those that request() set aside."""
        return self.aside.popleft() if self.aside else await self._next()

    async def receive_text(self):
        """The next message's own text (nothing may be set aside)."""
        assert not self.aside, self.aside
        await self._next()
        return self.last_text

    async def send(self, message):
        """A text as it is, or an object as JSON."""
        await self.socket.send(message if isinstance(message, (str, bytes)) else
                               json.dumps(message))

    async def request(self, event, data=None, **fields):
        """Sends a request, returns its response or error."""
        request_id = f"r{next(_ids)}"
        asked = {"type": "request", "event": event, "request_id": request_id, **fields}
        await self.send(asked if data is None else {**asked, "data": data})
        return await self.answer(request_id)

    async def answer(self, request_id):
        while True:
            got = await self._next()
            if got["type"] != "notify" and got.get("request_id") == request_id:
                return got
            self.aside.append(got)

    async def message(self):
        """The data of the next message, which has to be what comes next."""
        got = await self.receive()
        assert (got["type"], got["event"]) == ("notify", "message"), got
        return got["data"]

    async def send_message(self, to, content, **fields):
        """message.send that has to succeed: its answer's data."""
        answer = await self.request("message.send", {"to": to, "content": content, **fields})
        assert answer["type"] == "response" and answer["code"] == 200, answer
        return answer["data"]

    async def quiet(self):
        """Proves that nothing more is on its way: a ping's answer comes next."""
        got = await self.request("ping", "quiet?")
        assert got["data"] == "quiet?" and not self.aside, (got, self.aside)

    async def closed(self):
        """Reads on to the end; (code, reason) of the close, code 1006 for a cut."""
        try:
            while True:
                self.aside.append(await self._next())
        except websockets.ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")

    async def close(self):
        await self.socket.close()


class ClientCase(HubCase):
    """A HubCase whose clients are closed when a test ends."""

    async def client(self, user=None, headers=None, how=None, **query):
        got = await open_client(self.hub, user, headers, how, **query)
        self.addAsyncCleanup(got.close)
        return got

    async def clients(self, users):
        return [await self.client(user) for user in users]

    def assert_error(self, got, code, name):
        self.assertEqual((got["type"], got["code"], got["error"]), ("error", code, name), got)
        self.assertTrue(got["message"], got)
        self.assertRegex(got["trace_id"], "^[0-9a-f]{32}$")
