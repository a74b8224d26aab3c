"""Acknowledged messages in a room whose members come and go, are forgetful, and publish all the time:
each member gets all of it in order, and every sender is told the truth. SEED=n repeats a run."""

import asyncio
import json
import os
import random
import unittest

import websockets

from clients import open_at, path_with_rooms
from hub import DEADLINE, SLOWNESS, Hub

SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
ROOM = "chaos"
MESSAGES = 600 if SLOWNESS == 1 else 200


class Member:
    """A user with one session, which it resumes again and again."""

    def __init__(self, hub, user, seed, cuts):
        self.hub, self.user, self.dice, self.cuts = hub, user, random.Random(seed), cuts
        self.top, self.epoch, self.session = 0, None, None
        self.seen, self.attempts, self.late = set(), {}, set()
        self.ready, self.obedient, self.wrong = asyncio.Event(), False, []

    async def connect(self):
        place = f"{ROOM}@{self.top}@{self.epoch}" if self.epoch else ROOM
        target = path_with_rooms(self.user, place, **({"resume": self.session} if self.session else {}))
        client = await open_at(self.hub, target)
        self.session = client.session
        return client

    def take(self, data):
        """A message of the room; whether it is to be acknowledged."""
        seq, attempt, ack = data["seq"], data["attempt"], data["ack"]
        if seq > self.top:
            self.late |= set(range(self.top + 1, seq))  # found no room: they come later
            self.top = seq
        elif seq in self.late and ack:
            self.late.discard(seq)
        elif not ack or attempt <= self.attempts.get(seq, 0):
            self.wrong.append(("came again", data))
        if data["from"] == self.user and ack:
            self.wrong.append(("own", data))
        if ack:
            self.attempts[seq] = attempt
        self.seen.add(seq)
        return ack and (self.obedient or self.dice.random() < .5)

    async def read(self, client, until):
        while not until or self.dice.random() > until:
            got = await client.receive()
            if got.get("event") == "room.subscribed":
                if "error" in got["data"] or (self.epoch and not got["data"]["recovered"]):
                    self.wrong.append(("subscribed", got))
                self.epoch = got["data"]["epoch"]
                self.ready.set()
            elif got.get("event") == "room.message" and self.take(got["data"]):
                await client.send({"type": "ack", "data": {"id": got["data"]["id"]}})
            elif got.get("event") == "messages.lost":
                self.wrong.append(("lost", got))

    async def live(self):
        while True:
            client = None
            try:
                client = await self.connect()
                await self.read(client, self.cuts and not self.obedient and 1 / 40)
                client.cut()
            except websockets.ConnectionClosed:
                pass
            finally:
                if client:
                    client.socket.transport.abort()
            await asyncio.sleep(self.dice.random() * .05)


class Publisher(Member):
    """A member that is never cut, and publishes; what it was told of that."""

    def __init__(self, *args):
        super().__init__(*args)
        self.answers, self.ends, self.client, self.sent = {}, {}, None, set()

    async def live(self):
        self.client = client = await self.connect()
        while True:
            got = await client.receive()
            if got.get("event") == "room.subscribed":
                self.epoch = got["data"]["epoch"]
                self.ready.set()
            elif got.get("event") == "room.message" and self.take(got["data"]):
                await client.send({"type": "ack", "data": {"id": got["data"]["id"], "room": ROOM}})
            elif got.get("event") == "message.status":
                if got["data"]["id"] not in self.answers or got["data"]["id"] in self.ends:
                    self.wrong.append(("status", got))
                self.ends[got["data"]["id"]] = got["data"]
            elif got["type"] == "response":
                self.answers[got["request_id"]] = got["data"]
            elif got["type"] == "error":
                self.wrong.append(("refused", got))

    async def publish(self, count):
        for number in range(count):
            id, ack = f"{self.user}-{number}", self.dice.random() < .5
            data = {"room": ROOM, "content": "x" * self.dice.randrange(200), "ack": ack, "id": id,
                    "priority": self.dice.choice(["normal", "normal", "high"])}
            await self.client.send(json.dumps({"type": "request", "event": "room.publish",
                                               "request_id": id, "data": data}))
            if ack:
                self.sent.add(id)
            if self.dice.random() < .2:
                await asyncio.sleep(self.dice.random() * .02)


class Chaos(unittest.IsolatedAsyncioTestCase):

    async def until(self, what, question):
        end = asyncio.get_running_loop().time() + DEADLINE
        while not question():
            self.assertLess(asyncio.get_running_loop().time(), end, f"SEED={SEED}: {what}")
            await asyncio.sleep(.02)

    async def play(self, hub, members):
        publishers = [member for member in members if isinstance(member, Publisher)]
        tasks = [asyncio.create_task(member.live()) for member in members]
        try:
            for member in members:
                await asyncio.wait_for(member.ready.wait(), DEADLINE)
            await asyncio.gather(*(p.publish(MESSAGES) for p in publishers))
            for member in members:
                member.obedient = True
            for p in publishers:
                await self.until(f"{p.user} has all answers", lambda p=p: len(p.answers) == MESSAGES)
                await self.until(f"{p.user} hears every end", lambda p=p: set(p.ends) == p.sent)
            everything = set(range(1, MESSAGES * len(publishers) + 1))
            for member in members:
                await self.until(f"{member.user} has everything", lambda m=member: m.seen == everything)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def test_members_get_all_of_it_in_order_and_senders_hear_the_end(self):
        dice = random.Random(SEED)
        hub = Hub({"ack.timeout": "400ms", "ack.max_delay": "400ms", "ack.max_retries": "100",
                   "resume.window": "10m", "rooms.history_size": "10000", "rooms.notify_max": "0",
                   "limits.send_queue_messages": "65536", "offline.max_messages": "100000"})
        try:
            members = [Member(hub, f"m{n}", dice.random(), n % 3) for n in range(8)]
            members += [Publisher(hub, f"p{n}", dice.random(), False) for n in range(2)]
            await self.play(hub, members)
            for member in members:
                self.assertEqual(member.wrong, [], f"SEED={SEED}: {member.user}")
            for p in (member for member in members if isinstance(member, Publisher)):
                for id, end in p.ends.items():
                    self.assertEqual(p.answers[id]["recipients"], len(members))
                    self.assertEqual((end["status"], end["recipients"], end["acknowledged"]),
                                     ("success", len(members) - 1, len(members) - 1), f"SEED={SEED}")
        finally:
            hub.stop()


class Slow(unittest.IsolatedAsyncioTestCase):
    """A member that takes nothing for a while, under each policy."""

    COUNT = 300

    async def one_that_stops(self, policy):
        hub = Hub({"ack.timeout": "1h", "ack.max_delay": "1h", "limits.slow_consumer": policy,
                   "limits.send_queue_messages": "8", "rooms.notify_max": "0"})
        try:
            publisher, good, slow = [await open_at(hub, path_with_rooms(user, "slow"))
                                     for user in ("sl-a", "sl-b", "sl-c")]
            for client in (publisher, good, slow):
                await client.notify("room.subscribed")
            slow.socket.transport.pause_reading()
            answers = await asyncio.gather(self.publish(publisher), self.take_all(good, 1))
            slow.socket.transport.resume_reading()
            await self.take_all(slow, None)
            ends = {}
            while len(ends) < self.COUNT:
                got = await publisher.receive()
                if got.get("event") == "message.status":
                    ends[got["data"]["id"]] = (got["data"]["status"], got["data"]["acknowledged"])
            self.assertEqual(ends, {answer["id"]: ("success", 2) for answer in answers[0]})
            for client in (publisher, good, slow):
                await client.close()
        finally:
            hub.stop()

    async def publish(self, publisher):
        return [await publisher.publish("slow", "x" * 60_000, ack=True, exclude_self=True)
                for _ in range(self.COUNT)]

    async def take_all(self, client, first):
        """All of it, each once; in order from `first` on."""
        seen = set()
        while len(seen) < self.COUNT:
            data = await client.notify("room.message")
            self.assertEqual((data["attempt"], data["ack"]), (1, True))
            self.assertNotIn("epoch", data)
            self.assertNotIn(data["seq"], seen)
            if first:
                self.assertEqual(data["seq"], first + len(seen))
            seen.add(data["seq"])
            await client.send({"type": "ack", "data": {"id": data["id"], "room": "slow"}})

    async def test_what_found_no_room_comes_later_and_nobody_is_closed_for_it(self):
        for policy in ("disconnect", "drop_oldest", "drop_newest", "conflate"):
            with self.subTest(policy):
                await self.one_that_stops(policy)


if __name__ == "__main__":
    unittest.main()
