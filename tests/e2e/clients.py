"""tests/e2e/clients.py - users of the hub, on Python's `websockets`: a client we did not write.

A Client keeps its welcome, matches answers to requests, and sets aside what arrives in between.
Every wait has a deadline; envelope() checks what every message of the server has to have.

For rooms a Client has verbs that have to succeed (join, leave, publish, history, members); what it
is told is demanded in order: notify() is what comes next, read_room() a row of messages.
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


def place(room, since=None, epoch=None):
    """One entry of rooms=, which is split before it is percent-decoded."""
    parts = [urllib.parse.quote(room, safe="")]
    return "@".join(parts + [str(part) for part in (since, epoch) if part is not None])


def path_with_rooms(user, *places, **query):
    """The handshake's target with rooms= as these places make it."""
    return path(user, **query) + ("&rooms=" + ",".join(places) if places else "")


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


async def open_at(hub, target, how=None):
    """A Client behind its welcome, of a target as it stands."""
    client = Client(await open_socket(hub, target, **(how or {})))
    client.welcome = await client.receive()
    assert client.welcome["type"] == "notify" and client.welcome["event"] == "welcome", \
        client.welcome
    client.user = client.welcome["data"]["user"]
    return client


async def eventually_true(question, what):
    """Asks until the answer of the coroutine function is true (and returns it)."""
    end = time.monotonic() + DEADLINE
    while not (answer := await question()):
        assert time.monotonic() < end, f"did not happen: {what}"
        await asyncio.sleep(0.02)
    return answer


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

    async def ask(self, event, data=None):
        """A request that has to succeed: its answer's data."""
        answer = await self.request(event, data)
        assert answer["type"] == "response" and answer["code"] == 200, answer
        return answer["data"]

    async def join(self, room, **more):
        return await self.ask("room.join", {"room": room, **more})

    async def leave(self, room):
        return await self.ask("room.leave", {"room": room})

    async def publish(self, room, content, **more):
        return await self.ask("room.publish", {"room": room, "content": content, **more})

    async def publish_row(self, room, contents, **more):
        """Publishes without waiting in between; the answers' data."""
        ids = [f"r{next(_ids)}" for _ in contents]
        for request_id, content in zip(ids, contents):
            await self.send({"type": "request", "event": "room.publish", "request_id": request_id,
                             "data": {"room": room, "content": content, **more}})
        answers = [await self.answer(request_id) for request_id in ids]
        assert all(answer["type"] == "response" for answer in answers), answers
        return [answer["data"] for answer in answers]

    async def history(self, room, **more):
        return await self.ask("room.history", {"room": room, **more})

    async def members(self, room):
        """All items of room.members, page by page."""
        items, more = [], {}
        while True:
            page = await self.ask("room.members", {"room": room, **more})
            assert set(page) == {"items", "next"}, page
            items += page["items"]
            if page["next"] is None:
                return items
            more = {"cursor": page["next"]}

    async def notify(self, event):
        """The data of the next notify, which has to be this one and what comes next."""
        got = await self.receive()
        assert (got["type"], got.get("event")) == ("notify", event), got
        return got["data"]

    async def read_room(self, room, first, last):
        """The data of the room's messages from seq `first` to `last`, which have to be what comes
        next, each of them once."""
        row = []
        for seq in range(first, last + 1):
            row.append(await self.notify("room.message"))
            assert (row[-1]["room"], row[-1]["seq"]) == (room, seq), (seq, row[-1])
        return row

    @property
    def session(self):
        return self.welcome["data"]["session"]

    def cut(self):
        """Ends the connection without a word."""
        self.socket.transport.abort()

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

    async def client_in(self, user, *places, **query):
        """A client that joins rooms by the handshake's query."""
        got = await open_at(self.hub, path_with_rooms(user, *places, **query))
        self.addAsyncCleanup(got.close)
        return got

    async def resume(self, client, *places, **query):
        """Another connection with the client's session, with rooms= where places are given."""
        return await self.client_in(client.user, *places, resume=client.session, **query)

    async def join_all(self, room, clients):
        """Joins clients of different users, in order; each has seen the later ones join."""
        for number, client in enumerate(clients):
            members = (await client.join(room))["members"]
            for earlier in clients[:number]:
                self.assertEqual(await earlier.notify("room.joined"),
                                 {"room": room, "user": client.user, "members": members})
        return clients

    async def in_room(self, room, users):
        """Clients of these users who are in the room and know it."""
        return await self.join_all(room, await self.clients(users))

    async def await_devices(self, asker, room, user, wanted):
        """Waits until room.members shows so many devices of a user who is a member."""
        async def shown():
            devices = [item["devices"] for item in await asker.members(room)
                       if item["user"] == user]
            assert devices, f"{user} is no member of {room}"
            return devices == [wanted]
        await eventually_true(shown, f"{wanted} devices of {user}")

    async def cut(self, client, asker, room, left=0):
        """Cuts off a member's connection; when this returns the hub knows: the user has only
        `left` devices in the room."""
        client.cut()
        await self.await_devices(asker, room, client.user, left)

    async def assert_bad_requests(self, client, event, cases):
        """Each of the cases, name: data as JSON text, is 400."""
        for name, data in cases.items():
            with self.subTest(name, event=event):
                await client.send('{"type":"request","event":"%s","request_id":"q"%s}'
                                  % (event, f',"data":{data}' if data else ""))
                got = await client.answer("q")
                self.assert_error(got, 400, "bad_request")

    async def assert_bad_names(self, client, event, more=""):
        """What every request about a room refuses; `more` are the other members that it needs."""
        await self.assert_bad_requests(client, event, {
            "no data": None, "null": "null", "a string": '"x"', "an array": "[]",
            "no room": '{"x":1%s}' % more, "room is null": '{"room":null%s}' % more,
            "room is a number": '{"room":1%s}' % more, "room is empty": '{"room":""%s}' % more,
            "room of 129 bytes": '{"room":"%s"%s}' % ("é" * 64 + "x", more),
            "room with a control character": r'{"room":"a\u0001"%s}' % more,
            "room twice": '{"room":"x","room":"x"%s}' % more,
            "room twice after unescaping": r'{"room":"x","\u0072oom":"x"%s}' % more,
            "unknown member twice": '{"room":"x","zz":1,"zz":2%s}' % more,
        })


class OwedCase(ClientCase):
    """Clients that acknowledge, and what is told of that."""

    @staticmethod
    async def ack(client, *ids, **more):
        data = {"id": ids[0]} if len(ids) == 1 else {"ids": list(ids)}
        await client.send({"type": "ack", "data": {**data, **more}})

    async def send_ack(self, sender, to, content, **more):
        return await sender.send_message(to, content, ack=True, **more)

    async def status(self, client, id, status, reason=None, **more):
        """The next thing that the client is told: the end of that message."""
        want = {"id": id, "status": status, **more}
        self.assertEqual(await client.notify("message.status"),
                         {**want, "reason": reason} if reason else want)

    async def settled(self):
        """Waits until nothing is owed to anybody."""
        async def asked():
            metrics = await asyncio.to_thread(self.hub.metrics)
            return not (metrics["ringhub_unacked_messages"] + metrics["ringhub_offline_messages"] +
                        metrics["ringhub_store_messages"])
        await eventually_true(asked, "nothing is owed any more")

    @staticmethod
    async def gone(client):
        """Closes the connection. The hub's answer to that says that it is no device any more."""
        await client.close()
