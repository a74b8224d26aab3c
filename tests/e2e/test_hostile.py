"""Clients that mean harm: what one of them may cost the others, in time and in memory.

Each test is an attack that once worked. What is bounded is measured at the hub itself: its gauges,
and the peak of its memory, which the kernel keeps.
"""

import json
import pathlib
import re
import selectors
import threading
import time
import unittest

import raw
from clients import path, path_with_rooms
from hub import DEADLINE, SLOWNESS, VARIANT, Hub, eventually
from test_leaks import allow_descriptors

MIB = 1 << 20
LARGE = "x" * (MIB - 400)  # the content of about the largest message that a client may send


def request(event, data, request_id="q"):
    """A request's frame; its mask is zero, because some of them are large."""
    return raw.frame(raw.TEXT, json.dumps({"type": "request", "event": event, "data": data,
                                           "request_id": request_id}), mask=bytes(4))


def publish(room):
    return request("room.publish", {"room": room, "content": LARGE, "exclude_self": True})


class User(raw.Wire):
    """A wire that sends requests and matches answers."""

    def enter(self, target, behind=b""):
        """Shakes hands, with `behind` in the same segment, and reads the welcome."""
        self.upgrade(target, behind=behind)
        self.welcome = self.receive()["data"]
        return self

    def receive(self):
        return json.loads(self.message().payload)

    def answers(self, *ids):
        """Reads on until these requests are answered; their answers, which have to be 200."""
        found = {}
        while set(found) != set(ids):
            got = self.receive()
            if got["type"] != "notify":
                assert got["code"] == 200 and got["request_id"] in ids, got
                found[got["request_id"]] = got
        return [found[request_id] for request_id in ids]

    def ask(self, event, data):
        self.send(request(event, data))
        return self.answers("q")[0]["data"]


class Drain(threading.Thread):
    """Reads all that comes to some connections, and counts what they are answered."""

    ANSWER, ERROR = b'"type":"respo', b'"type":"error'  # of one length: none is counted twice

    def __init__(self, wires):
        super().__init__(daemon=True)
        self.answers = self.errors = 0
        self.ended = False
        self.tails = dict.fromkeys((wire.sock for wire in wires), b"")
        self.start()

    def run(self):
        with selectors.DefaultSelector() as ready:
            for sock in self.tails:
                ready.register(sock, selectors.EVENT_READ)
            while not self.ended:
                for key, _ in ready.select(0.1):
                    if not self.read(key.fileobj):
                        ready.unregister(key.fileobj)

    def read(self, sock):
        """False: it has been closed."""
        more = sock.recv(MIB)
        text = self.tails[sock] + more
        self.answers += text.count(self.ANSWER)
        self.errors += text.count(self.ERROR)
        self.tails[sock] = text[-len(self.ERROR) + 1:]
        return more

    def stop(self):
        self.ended = True
        self.join()


class HostileCase(unittest.TestCase):
    """Each test has a hub of its own, so that its memory is the attack's."""

    def start(self, shards=1, **sets):
        hub = Hub({key.replace("__", "."): value for key, value in sets.items()}, shards=shards)
        self.addCleanup(hub.stop)
        return hub

    def wire(self, hub):
        user = User(hub)
        self.addCleanup(user.sock.close)
        return user

    def open(self, hub, target):
        return self.wire(hub).enter(target)

    def drain(self, wires):
        drain = Drain(wires)
        self.addCleanup(drain.stop)
        return drain

    def send_aside(self, *jobs):
        """Sends each (wire, data, times) in a thread of its own."""
        def send(wire, data, times):
            for _ in range(times):
                wire.send(data)

        for job in jobs:
            thread = threading.Thread(target=send, args=job, daemon=True)
            thread.start()
            self.addCleanup(thread.join, DEADLINE)

    def peak_kib(self, hub):
        return int(re.search(r"VmHWM:\s+(\d+) kB",
                             pathlib.Path(f"/proc/{hub.pid}/status").read_text())[1])

    def assert_grew_less(self, hub, before_kib, mib):
        """At no moment was it larger; sanitizers keep what is freed, so this is for release."""
        grown = (self.peak_kib(hub) - before_kib) / 1024
        if VARIANT == "release":
            self.assertLess(grown, mib)


class Stalls(HostileCase):

    def test_joins_and_leaves_without_end_stop_nobody_and_fill_nothing(self):
        """Each pair makes two notices for 200 members, and there is one shard for all of them."""
        rounds, room = 400 // SLOWNESS, {"room": "r"}
        pairs = 100 * rounds
        hub = self.start()
        self.drain([self.open(hub, path_with_rooms(f"member-{number}", "r"))
                    for number in range(200)])
        attacker = self.open(hub, path("attacker"))
        drain = self.drain([attacker])
        before, unfinished, slowest = hub.rss_kib(), 0, 0
        hundred = (request("room.join", room) + request("room.leave", room)) * 100
        self.send_aside((attacker, hundred, rounds))
        end = time.monotonic() + DEADLINE
        while drain.answers + drain.errors < 2 * pairs and time.monotonic() < end:
            began = time.monotonic()
            hub.get("/livez")
            slowest = max(slowest, time.monotonic() - began)
            unfinished = max(unfinished, hub.metric("ringhub_fanouts_unfinished"))
            time.sleep(0.01)
        self.assertLessEqual(unfinished, 200)  # the bound of a room and shard is 64
        self.assertLess(slowest, 3 * SLOWNESS)
        self.assertEqual((drain.answers, drain.errors), (2 * pairs, 0))
        self.assert_grew_less(hub, before, 60)

    def test_who_takes_over_while_a_leave_is_out_is_answered(self):
        """The new connection joins the same room and pings in one segment with its handshake,
        while the home, which may be the other shard, has the old one's leave."""
        hub = self.start(shards=2)
        for turn in range(150):
            room, user = {"room": f"room-{turn}"}, f"user-{turn % 7}"
            old = self.open(hub, path(user))
            old.ask("room.join", room)
            new = self.wire(hub)
            time.sleep(0.002)  # its shard has taken it before the leave is on its way
            old.send(request("room.leave", room))
            new.enter(path(user, resume=old.welcome["session"]),
                      request("room.join", room, "join") + request("ping", 1, "ping"))
            self.assertTrue(new.welcome["resumed"])
            join, ping = new.answers("join", "ping")
            self.assertEqual((join["data"]["members"], ping["data"]), (1, 1))
            old.sock.close()
            new.sock.close()


class Memory(HostileCase):

    def test_publishes_that_wait_on_the_publishers_own_shard_are_bounded(self):
        """Fan-out to 5,000 subscriptions is slower than six publishers. All are one user, whom the
        messages exclude: so what waits for the fan-out is all that takes memory."""
        count, times = 5000, 60
        self.assertGreaterEqual(allow_descriptors(count + 500), count + 500)
        hub = self.start(limits__connections_per_user=0, rooms__history_size=0)
        for _ in range(count):
            self.open(hub, path_with_rooms("one", "r"))
        publishers = [self.open(hub, path("one")) for _ in range(6)]
        before = hub.rss_kib()
        drain = self.drain(publishers)
        self.send_aside(*((wire, publish("r"), times) for wire in publishers))
        eventually(lambda: drain.answers + drain.errors == 6 * times, "all are answered")
        self.assertEqual(drain.errors, 0)
        self.assert_grew_less(hub, before, 150)

    def test_histories_of_rooms_that_were_left_are_bounded_and_end(self):
        """One client that is never in more than one room, each with all the history it may have."""
        bound = 256  # MiB of one home shard
        hub = self.start(rooms__empty_ttl=f"{4 * SLOWNESS}s")  # long enough to fill them all
        client = self.open(hub, path("one"))
        before = hub.rss_kib()
        for number in range(22):
            room = f"r{number}"
            client.ask("room.join", {"room": room})
            client.send(publish(room) * 15)
            client.ask("room.leave", {"room": room})
        kept = hub.metric("ringhub_room_history_bytes") / MIB
        self.assertGreater(kept, bound - 16)
        self.assertLessEqual(kept, bound)
        self.assert_grew_less(hub, before, bound + 60)
        eventually(lambda: hub.metric("ringhub_rooms") == 0, "all rooms are over")
        self.assertEqual(hub.metric("ringhub_room_history_bytes"), 0)


if __name__ == "__main__":
    unittest.main()
