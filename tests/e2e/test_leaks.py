"""What thousands of rude clients leave behind: nothing (issue: gauges, descriptors, memory)."""

import asyncio
import json
import random
import resource
import unittest

import raw
from clients import ClientCase, open_client
from hub import SLOWNESS, Hub, HubCase, eventually

MANY = 5000
STAGES = 8  # how far a connection of the crowd comes before it is reset


def allow_descriptors(count):
    """Raises this process's soft limit, as far as that goes; returns what may be used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Crowd(HubCase):

    options = {**HubCase.options, "io.descriptors": "ordinary"}  # they are counted here

    def setUp(self):
        super().setUp()
        if allow_descriptors(MANY + 500) < MANY + 500:
            self.fail(f"this machine allows too few descriptors for {MANY} connections")

    def open_all(self):
        """MANY connections at once, each one stopped at another stage."""
        wires = [raw.Wire(self.hub) for _ in range(MANY)]
        for number, wire in enumerate(wires):
            stage = number % STAGES
            name = f"/ws?user_id=crowd-{number}"
            if stage == 1:
                wire.send(raw.upgrade(name)[:60])
            elif stage == 2:
                wire.send(raw.request("/healthz"))
            elif stage in (3, 4, 5):
                wire.send(raw.upgrade(name))
            elif stage == 6:
                wire.send(raw.upgrade("/echo"))
            elif stage == 7:
                wire.send(raw.upgrade(name) + raw.frame(raw.TEXT, "x" * 5000, fin=False))
        for number, wire in enumerate(wires):
            stage = number % STAGES
            if stage == 2:
                self.assertEqual(wire.response().status, 200)
            if stage in (4, 5, 6):
                self.assertEqual(wire.response().status, 101)
            if stage == 5:
                wire.message()
                wire.send(raw.frame(raw.TEXT, json.dumps(
                    {"type": "request", "event": "message.send",
                     "data": {"to": f"crowd-{number - 1}", "content": "x" * 1000}})))
                wire.send(raw.frame(raw.BINARY, b"x" * 3000)[:1000])
        return wires

    def round(self):
        wires = self.open_all()
        random.Random(7).shuffle(wires)
        for wire in wires:
            wire.reset()
        self.assert_empty()

    def assert_empty(self):
        eventually(lambda: self.hub.metric("ringhub_connections") == 0
                   and self.hub.metric("ringhub_users") == 0,
                   lambda: f"gauges at 0, but {self.hub.get('/metrics')}")

    def test_5000_connections_opened_and_reset_leave_nothing(self):
        descriptors = self.hub.descriptors()
        for _ in range(2):  # these fill pools and caches, which may stay
            self.round()
        eventually(lambda: self.hub.descriptors() <= descriptors + 2,
                   lambda: f"{self.hub.descriptors()} descriptors, {descriptors} before")
        memory = self.hub.rss_kib()
        for _ in range(5):
            self.round()
        eventually(lambda: self.hub.descriptors() <= descriptors + 2,
                   lambda: f"{self.hub.descriptors()} descriptors, {descriptors} before")
        # 25,000 connections more: a leak of 512 bytes each would show.
        self.assertLess(self.hub.rss_kib(), memory + 12 * 1024 * SLOWNESS)


class FewDescriptors(unittest.TestCase):
    """A hub that runs out of descriptors sheds load and recovers; it never ends."""

    def test_more_connections_than_descriptors(self):
        allow_descriptors(2000)
        with Hub(descriptors=256) as hub:
            with raw.Wire(hub) as first:
                first.upgrade("/ws?user_id=first")
                first.message()
                crowd = [raw.Wire(hub) for _ in range(600)]
                for wire in crowd:
                    try:
                        wire.send(raw.upgrade("/ws?user_id=crowd"))
                    except ConnectionError:
                        pass
                first.send(raw.frame(raw.PING, b"served"))
                self.assertEqual(first.frame()[:2], (raw.PONG, b"served"))
                for wire in crowd:
                    wire.reset()
                eventually(lambda: hub.metric("ringhub_connections") == 1,
                           lambda: hub.get("/metrics"))
                with raw.Wire(hub) as late:
                    late.upgrade("/ws?user_id=late")
                    late.message()


class Rude(ClientCase):
    """Garbage and floods harm only those who send them."""

    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.witness = await self.client("witness")

    async def asyncTearDown(self):
        await self.witness.send_message("witness", "alive")
        self.assertEqual((await self.witness.message())["content"], "alive")

    def swallow(self, wire, data):
        """Sends data and reads until the hub has had enough."""
        try:
            wire.send(data)
            wire.sock.shutdown(1)
            while True:
                wire.buffer = b""
                wire.fill()
        except (raw.Closed, ConnectionError, OSError):
            pass
        wire.sock.close()

    async def test_garbage_instead_of_a_request(self):
        noise = random.Random(11)
        for size in [1, 2, 3, 10, 100, 1000, 20_000, 100_000] * 5:
            self.swallow(raw.Wire(self.hub), noise.randbytes(size))

    async def test_garbage_behind_the_handshake(self):
        noise = random.Random(12)
        for path in ("/ws?user_id=noise", "/echo"):
            for size in [1, 2, 3, 10, 100, 1000, 20_000, 100_000] * 5:
                wire = raw.Wire(self.hub)
                wire.upgrade(path)
                self.swallow(wire, noise.randbytes(size))

    async def test_damaged_handshakes(self):
        noise = random.Random(13)
        head = raw.upgrade("/ws?user_id=damaged")
        for _ in range(300):
            damaged = bytearray(head)
            for _ in range(noise.randint(1, 4)):
                damaged[noise.randrange(len(damaged))] = noise.randrange(256)
            self.swallow(raw.Wire(self.hub), bytes(damaged))

    async def test_damaged_frames(self):
        noise = random.Random(14)
        stream = b"".join(raw.frame(raw.TEXT, json.dumps(
            {"type": "request", "event": "ping", "request_id": "1", "data": "x" * n}))
            for n in range(20))
        for _ in range(200):
            damaged = bytearray(stream)
            for _ in range(noise.randint(1, 6)):
                damaged[noise.randrange(len(damaged))] ^= 1 << noise.randrange(8)
            wire = raw.Wire(self.hub)
            wire.upgrade("/ws?user_id=damaged")
            self.swallow(wire, bytes(damaged))

    async def test_a_flood_of_requests_on_one_connection(self):
        wire = raw.Wire(self.hub)
        self.swallow(wire, raw.request("/healthz") * 20_000)

    async def test_a_flood_of_connections(self):
        for _ in range(2000):
            raw.Wire(self.hub).reset()

    async def test_a_flood_of_messages_to_nobody(self):
        flooder = await self.client("flooder")
        for _ in range(5000):
            await flooder.send({"type": "request", "event": "message.send",
                                "data": {"to": "nobody", "content": 1}})
        await flooder.quiet()
        nobody = await self.client("nobody")  # offline.max_messages are kept, the others told
        self.assertEqual((await nobody.notify("messages.lost"))["count"], 4000)
        for _ in range(1000):
            await nobody.message()
        await nobody.quiet()

    async def test_a_burst_of_messages_over_all_rings(self):
        """Far more than a ring's slots in one go, from many to many: credits and spills at work."""
        users = [f"burst-{i}" for i in range(24)]
        clients = await asyncio.gather(*(self.client(user) for user in users))
        count = 100

        async def send(client):
            for number in range(count):
                await client.send({"type": "request", "event": "message.send",
                                   "request_id": str(number),
                                   "data": {"to": users[number % len(users)], "content": number}})

        async def receive(client):
            answers = messages = 0
            share = sum(number % len(users) == users.index(client.user)
                        for number in range(count)) * len(users)
            while answers < count or messages < share:
                got = await client.receive()
                self.assertIn(got["type"], ("response", "notify"), got)
                answers += got["type"] == "response"
                messages += got["type"] == "notify"

        await asyncio.gather(*map(send, clients), *map(receive, clients))

    async def test_coming_and_going_while_messages_fly(self):
        """Users disconnect and return while others write to them: each answer is sent or 409."""
        stop = asyncio.Event()

        async def come_and_go(number):
            for turn in range(15):
                client = await open_client(self.hub, f"fickle-{number}")
                if turn % 3 == 0:
                    client.socket.transport.abort()
                else:
                    await client.close()

        async def write(number):
            client = await self.client(f"steady-{number}")
            outcomes = set()
            while not stop.is_set():
                answer = await client.request("message.send", {
                    "to": f"fickle-{random.randrange(8)}", "content": "x" * 300})
                outcomes.add(answer["code"])
            self.assertLessEqual(outcomes, {200, 409})

        writers = [asyncio.ensure_future(write(i)) for i in range(4)]
        await asyncio.gather(*(come_and_go(i) for i in range(8)))
        stop.set()
        await asyncio.gather(*writers)


if __name__ == "__main__":
    unittest.main()
