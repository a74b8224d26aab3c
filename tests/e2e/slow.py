"""tests/e2e/slow.py - a device that reads when it is told to, and the account of what it missed.

A user has two devices: a quick one that reads everything, and a Slow one. The quick one shows what
was sent, the Account of the slow one settles it: each message arrives or is told as lost, once, and
a loss is told before what follows it (PROTOCOL 4, "Slow consumers"). What was told has to be what
the hub counts, so nobody else may be slow meanwhile.
"""

import json
import pathlib
import re

import raw
from clients import ClientCase, envelope
from hub import SLOWNESS, eventually

BIG = "x" * 64_000
KERNEL_TAKES = int(pathlib.Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
BLOCK = KERNEL_TAKES // len(BIG) + 8  # so many BIG ones surely fill what the kernel keeps
BOUND = 16
KINDS = ("direct", "room", "broadcast")
DISCONNECTED = 'ringhub_disconnects_total{code="4408"}'


def dropped(hub):
    """Messages that were dropped because somebody was slow, not because they went away."""
    return sum(value for key, value in hub.metrics().items()
               if key.startswith("ringhub_messages_dropped_total{")
               and not re.search("conn_error|user_offline|memory", key))


def ask(event, data, request_id="r"):
    return raw.frame(raw.TEXT, json.dumps({"type": "request", "event": event, "data": data,
                                           "request_id": request_id}))


class Slow(raw.Wire):
    """A connection that takes little while it does not read. What it reads is kept in `events`,
    (what, data) in order of arrival: message, room.message, broadcast, messages.lost, response."""

    def __init__(self, hub, path, rooms=()):
        super().__init__(hub, receive_buffer=4096)
        self.events = []
        self.upgrade(path)
        assert self.next() == "welcome"
        for room in rooms:
            self.ask("room.join", {"room": room})
        self.events = []

    def next(self):
        """Reads one envelope; what it is."""
        return self.note(self.message())

    def note(self, message):
        got = envelope(message.payload.decode())
        what = got["event"] if got["type"] == "notify" else got["type"]
        self.events.append((what, got.get("data")))
        return what

    def ask(self, event, data):
        """Sends a request and reads on up to its answer."""
        self.send(ask(event, data))
        while (what := self.next()) != "response":
            assert what != "error", self.events[-1]

    def catch_up(self):
        """Reads all that is queued: the answer to a ping comes behind it."""
        self.quicken()
        self.ask("ping", "caught up?")

    def quicken(self):
        """From now on it reads as fast as it can."""
        self.sock.setsockopt(raw.socket.SOL_SOCKET, raw.socket.SO_RCVBUF, 1 << 20)

    def read_until(self, content):
        """Reads on up to the message (of any kind) with this content."""
        while True:
            if self.next() in ("message", "room.message", "broadcast"):
                if self.events[-1][1]["content"] == content:
                    return

    def of(self, what):
        return [data for name, data in self.events if name == what]


def lost_kind(data):
    return "broadcast" if data.get("broadcast") else "room" if "room" in data else "direct"


class Account:
    """Settles what one connection was sent of one kind: `sent` are the numbers, in order."""

    def __init__(self, sent):
        self.sent = list(sent)
        self.arrived, self.lost = set(), set()

    def message(self, number):
        assert number in self.sent, f"{number} was never sent"
        assert number not in self.arrived, f"{number} came twice"
        assert number not in self.lost, f"{number} came, and was told as lost"
        untold = [n for n in self.sent[:self.sent.index(number)]
                  if n not in self.arrived and n not in self.lost]
        assert not untold, f"{untold[:5]} missing, and not told before {number}"
        self.arrived.add(number)

    def range(self, data):
        """A loss with from_seq and to_seq."""
        gone = [n for n in self.sent if data["from_seq"] <= n <= data["to_seq"]]
        assert (gone[0], gone[-1], len(gone)) == \
            (data["from_seq"], data["to_seq"], data["count"]), (data, gone)
        self.lose(gone)

    def count(self, data):
        """A loss that says only how many: the next ones in the row."""
        assert data["count"] > 0, data
        settled = self.arrived | self.lost
        gone = [n for n in self.sent if n not in settled][:data["count"]]
        assert len(gone) == data["count"], f"{data}, but only {len(gone)} are missing"
        self.lose(gone)

    def lose(self, gone):
        assert not self.arrived.intersection(gone), "told as lost, but it came"
        assert not self.lost.intersection(gone), "told twice"
        self.lost.update(gone)

    def close(self):
        """All is settled; how many were lost."""
        missing = set(self.sent) - self.arrived - self.lost
        assert not missing, f"neither came nor told as lost: {sorted(missing)[:10]}"
        return len(self.lost)


class SlowCase(ClientCase):
    """Tests with one slow device, one quick device of the same user, and a sender who is admin."""

    options = {"limits.send_queue_messages": BOUND, "limits.send_queue_bytes": "64MiB",
               "limits.send_timeout": "120s"}
    policy = None
    device = Slow
    names = 0
    slow = None

    @classmethod
    def setUpClass(cls):
        cls.options = {**cls.options, "limits.slow_consumer": cls.policy}
        super().setUpClass()

    async def begin(self, quick=True, **room):
        """The user with its devices, in a new room; `sent` notes what the sender sends."""
        if self.slow:
            self.leave()
        SlowCase.names += 1
        self.user, self.room = f"slow-{self.names}", f"room-{self.names}"
        self.sender = await self.client(f"sender-{self.names}", role="admin")
        created = await self.sender.request("room.create", {"room": self.room, **room})
        self.assertEqual(created["type"], "response", created)
        self.slow = self.device(self.hub, f"/ws?user_id={self.user}&device=slow", [self.room])
        self.addCleanup(self.slow.sock.close)
        self.quick = None
        if quick:
            self.quick = await self.client(self.user, device="quick")
            joined = await self.quick.request("room.join", {"room": self.room})
            self.assertEqual(joined["data"]["members"], 1, joined)
        self.sent = {kind: [] for kind in KINDS}
        self.dropped = dropped(self.hub)

    def leave(self):
        """The slow one of an earlier turn goes: broadcasts would be for it, too."""
        connections = self.hub.metric("ringhub_connections")
        self.slow.reset()
        eventually(lambda: self.hub.metric("ringhub_connections") < connections, "it is gone")

    async def send(self, kind, content, **fields):
        """Sends one message of this kind; returns when it stands in the queues of both devices."""
        if kind == "direct":
            await self.sender.send_message(self.user, content, **fields)
        else:
            data = {"content": content, **fields}
            event = "broadcast"
            if kind == "room":
                data, event = {"room": self.room, **data}, "room.publish"
            answer = await self.sender.request(event, data)
            self.assertEqual(answer["type"], "response", answer)
        if not self.quick:
            self.sent[kind].append(content)
            return
        got = await self.quick.receive()
        what = {"direct": "message", "room": "room.message", "broadcast": "broadcast"}[kind]
        self.assertEqual((got["type"], got.get("event")), ("notify", what), got)
        self.assertEqual(got["data"]["content"], content)  # the quick one misses nothing
        self.sent[kind].append(content if kind == "broadcast" else got["data"]["seq"])

    async def block(self, kind="direct"):
        """Fills what the kernel takes for the slow one, and some of its queue."""
        for number in range(BLOCK):
            await self.send(kind, f"{kind} block {number} {BIG}")

    async def end(self, kinds=KINDS):
        """The slow one reads on; a last message of each kind comes when all else has."""
        self.slow.catch_up()
        for kind in kinds:
            SlowCase.names += 1  # contents tell broadcasts apart
            await self.send(kind, f"last {kind} {self.names}")
            self.slow.read_until(f"last {kind} {self.names}")

    def settle(self):
        """Checks what the slow one got against what was sent; the losses by kind."""
        by_seq = self.quick is not None
        accounts = {kind: Account(self.sent[kind]) for kind in KINDS}
        for what, data in self.slow.events:
            if what == "messages.lost":
                kind = lost_kind(data)
                if kind == "room":
                    self.assertEqual(data["room"], self.room)
                if kind == "broadcast" or not by_seq:
                    accounts[kind].count(data)
                else:
                    accounts[kind].range(data)
            elif what == "message":
                accounts["direct"].message(data["seq"] if by_seq else data["content"])
            elif what == "room.message":
                self.assertEqual(data["room"], self.room)
                accounts["room"].message(data["seq"] if by_seq else data["content"])
            elif what == "broadcast":
                accounts["broadcast"].message(data["content"])
            else:
                self.assertEqual(what, "response")
        lost = {kind: account.close() for kind, account in accounts.items()}
        self.accounts = accounts
        eventually(lambda: dropped(self.hub) - self.dropped == sum(lost.values()),
                   lambda: f"{dropped(self.hub) - self.dropped} counted, {lost} told", 5 * SLOWNESS)
        return lost

    async def overflow(self, kind):
        """One kind alone, far beyond the bound; its account is settled and the losses are many."""
        await self.begin()
        for number in range(BLOCK + 3 * BOUND):
            await self.send(kind, f"{number} {BIG}")
        await self.end([kind])
        lost = self.settle()
        self.assertGreaterEqual(lost[kind], BOUND)
        self.assertEqual(sum(lost.values()), lost[kind])
