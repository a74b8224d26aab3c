"""Many rooms, many members, everything at once: one order for all (PROTOCOL 4, "Order").

With 4 shards and two dozen names each, every pair of a room's home and a member's shard occurs.
The queues have room for everything, so that a slow test machine is no slow consumer.
"""

import asyncio
import collections
import random
import unittest

from clients import ClientCase, eventually_true, place

ROOMY = {"limits.send_queue_messages": 60_000, "limits.send_queue_bytes": "64MiB"}


class Everybody(ClientCase):
    options = ROOMY

    async def test_every_pair_of_shards_is_crossed(self):
        """24 users are in 24 rooms and each publishes once in each."""
        rooms = [f"pair-room-{number}" for number in range(24)]
        users = [f"pair-{number}" for number in range(24)]
        clients = await asyncio.gather(*(self.client_in(user, *rooms) for user in users))
        for client in clients:  # whoever comes first: in the end all are in
            waiting = set(rooms)
            while waiting:
                got = await client.receive()
                if got["event"] == "room.subscribed":
                    waiting.remove(got["data"]["room"])
                else:
                    self.assertEqual(got["event"], "room.joined")
        for room in rooms:
            self.assertEqual(sorted(item["user"] for item in await clients[0].members(room)),
                             sorted(users))

        async def publish_to_all(client):
            for room in rooms:
                await client.send({"type": "request", "event": "room.publish",
                                   "request_id": room, "data": {"room": room, "content": room}})

        async def receive_all(client):
            answers, arrived = {}, collections.defaultdict(list)
            while len(answers) < len(rooms) or sum(map(len, arrived.values())) < 24 * 24:
                got = await client.receive()
                if got["type"] == "response":
                    self.assertEqual(got["data"]["recipients"], 24)
                    answers[got["request_id"]] = got["data"]
                elif got["event"] != "room.joined":
                    self.assertEqual((got["type"], got["event"]), ("notify", "room.message"), got)
                    self.assertEqual(got["data"]["content"], got["data"]["room"])
                    arrived[got["data"]["room"]].append(got["data"])
            for room in rooms:
                self.assertEqual([data["seq"] for data in arrived[room]], list(range(1, 25)))
                mine = [data for data in arrived[room] if data["from"] == client.user]
                self.assertEqual([(data["id"], data["seq"]) for data in mine],
                                 [(answers[room]["id"], answers[room]["seq"])])
            return {room: [(data["id"], data["from"]) for data in arrived[room]] for room in rooms}

        sent = asyncio.gather(*map(publish_to_all, clients))
        orders = await asyncio.gather(*map(receive_all, clients))
        await sent
        for order in orders[1:]:
            self.assertEqual(order, orders[0])

    async def test_several_publishers_at_once_and_one_order_for_all(self):
        count, room = 150, "one-order"
        members = await self.clients([f"one-{number // 2}" for number in range(40)])
        for client in members:
            await client.join(room)
        publishers = members[:12:2]

        async def publish(client):
            """Publishes without waiting; every tenth is awaited, so that they interleave."""
            for number in range(count):
                await client.send({"type": "request", "event": "room.publish",
                                   "request_id": f"p{number}",
                                   "data": {"room": room, "content": number}})
                if number % 10 == 9:
                    await asyncio.sleep(0)

        async def read(client):
            following, rows, answers = collections.Counter(), [], []
            mine = count if client in publishers else 0
            while len(rows) < count * len(publishers) or len(answers) < mine:
                got = await client.receive()
                if got["type"] == "response":
                    self.assertEqual((got["code"], got["request_id"]), (200, f"p{len(answers)}"))
                    self.assertEqual(got["data"]["recipients"], 20)
                    answers.append((got["data"]["seq"], got["data"]["id"]))
                elif got["event"] != "room.joined":
                    data = got["data"]
                    self.assertEqual((got["event"], data["seq"]), ("room.message", len(rows) + 1))
                    self.assertEqual(data["content"], following[data["from"]])
                    following[data["from"]] += 1
                    rows.append((data["seq"], data["id"], data["from"]))
            self.assertEqual(answers, [row[:2] for row in rows if row[2] == client.user][:mine])
            return rows

        _, *rows = await asyncio.gather(asyncio.gather(*map(publish, publishers)),
                                        *map(read, members))
        for row in rows[1:]:
            self.assertEqual(row, rows[0])

    async def test_a_hot_room_does_not_touch_the_others(self):
        """Each of 20 rooms keeps its own numbers while all are published to by all."""
        rooms = [f"own-room-{number}" for number in range(20)]
        clients = await self.clients([f"own-{number}" for number in range(10)])
        for number, client in enumerate(clients):
            for room in rooms[number:number + 10]:
                await client.join(room)

        async def publish(number, client):
            dice = random.Random(number)
            sent = collections.Counter()
            for _ in range(100):
                room = dice.choice(rooms[number:number + 10])
                sent[room] += 1
                await client.send({"type": "request", "event": "room.publish",
                                   "data": {"room": room, "content": sent[room]}})
            return sent

        counts = sum(await asyncio.gather(*(publish(*pair) for pair in enumerate(clients))),
                     collections.Counter())
        for number, client in enumerate(clients):
            seqs, own = collections.Counter(), collections.Counter()
            todo = sum(counts[room] for room in rooms[number:number + 10])
            while todo:
                got = await client.receive()
                if got["event"] != "room.joined":
                    data = got["data"]
                    self.assertEqual(got["event"], "room.message")
                    seqs[data["room"]] += 1
                    self.assertEqual(data["seq"], seqs[data["room"]])
                    own[data["room"], data["from"]] += 1
                    self.assertEqual(data["content"], own[data["room"], data["from"]])
                    todo -= 1
            self.assertLessEqual(set(seqs), set(rooms[number:number + 10]))


class InTheMiddle(ClientCase):
    """Those who come and go while others publish get exactly their share."""

    options = ROOMY

    async def publish_until(self, over, room, number):
        client = await self.client(f"{room}-p{number}", role="admin")
        while not over:
            await client.publish_row(room, [client.user] * 5)
            await asyncio.sleep(0.005)

    async def test_who_joins_gets_exactly_what_follows_the_seq_of_its_join(self):
        admin = await self.client("middle-admin", role="admin")
        await admin.ask("room.create", {"room": "middle"})
        dice, over = random.Random(3), []

        async def come(number):
            """Joins by a request or at connect; (client, the seq it was told)."""
            await asyncio.sleep(dice.uniform(0, 0.5))
            if number % 2:
                client = await self.client_in(f"middle-{number}", "middle")
                return client, (await client.notify("room.subscribed"))["seq"]
            client = await self.client(f"middle-{number}")
            return client, (await client.join("middle"))["seq"]

        publishers = [asyncio.ensure_future(self.publish_until(over, "middle", number))
                      for number in range(4)]
        try:
            came = await asyncio.gather(*map(come, range(40)))
            await asyncio.sleep(0.05)
        finally:
            over.append(True)
            await asyncio.gather(*publishers)
        last = (await admin.publish("middle", "end"))["seq"]
        self.assertGreater(len({seq for _, seq in came}), 5, "they all came at once")
        for client, seq in came:
            while seq < last:
                got = await client.receive()
                if got["event"] != "room.joined":
                    self.assertEqual((got["event"], got["data"]["seq"]), ("room.message", seq + 1))
                    seq += 1

    async def test_who_leaves_gets_exactly_what_came_before_the_seq_of_its_leave(self):
        admin = await self.client("leaving-admin", role="admin")
        await admin.ask("room.create", {"room": "leaving"})
        over = []

        async def come_and_go(number):
            dice = random.Random(number)
            client = await self.client(f"leaving-{number}")
            await client.join("leaving-other")
            for _ in range(15):
                seq = (await client.join("leaving"))["seq"]
                await asyncio.sleep(dice.uniform(0, 0.03))
                left = await client.leave("leaving")
                while client.aside:
                    got = client.aside.popleft()
                    if got["event"] == "room.message" and got["data"]["room"] == "leaving":
                        self.assertEqual(got["data"]["seq"], seq + 1)
                        seq += 1
                self.assertEqual(seq, left["seq"])
                # Nothing of it comes until the next join: what does is the other room's.
                await client.publish("leaving-other", "between")
                while True:
                    got = await client.receive()
                    if got["event"] == "room.message":
                        self.assertEqual(got["data"]["room"], "leaving-other")
                        if got["data"]["from"] == client.user:
                            break

        publishers = [asyncio.ensure_future(self.publish_until(over, "leaving", number))
                      for number in range(3)]
        try:
            await asyncio.gather(*map(come_and_go, range(8)))
        finally:
            over.append(True)
            await asyncio.gather(*publishers)
        self.assertGreater((await admin.publish("leaving", "end"))["seq"], 100)
        self.assertEqual(await admin.members("leaving"), [])


class Device:
    """One connection in the random test: what it is in, and up to where it has seen each room."""

    def __init__(self, case, client):
        self.case, self.client = case, client
        self.seen = {}       # room: seq, of the rooms that it is in
        self.told = collections.defaultdict(list)  # room: [(event, user, members)]

    def take(self, got):
        """Books a notify; whatever is wrong with it is a failure."""
        data, room = got["data"], got["data"]["room"]
        if got["event"] in ("room.joined", "room.left"):
            self.told[room].append((got["event"], data["user"], data["members"]))
            self.case.assertNotEqual(data["user"], self.client.user)
        else:
            self.case.assertEqual(got["event"], "room.message")
            self.case.assertIn(room, self.seen, "a message of a room that it is not in")
            self.case.assertEqual(data["seq"], self.seen[room] + 1, room)
            self.seen[room] += 1

    async def request(self, event, room, **more):
        """Asks, and books in order all that comes before the answer."""
        request_id = f"{event}-{room}"
        await self.client.send({"type": "request", "event": event, "request_id": request_id,
                                "data": {"room": room, **more}})
        while (got := await self.client.receive())["type"] == "notify":
            self.take(got)
        self.case.assertEqual(got["request_id"], request_id)
        return got

    async def join(self, room):
        data = (await self.request("room.join", room))["data"]
        self.seen.setdefault(room, data["seq"])
        self.case.assertLessEqual(self.seen[room], data["seq"])

    async def leave(self, room):
        data = (await self.request("room.leave", room))["data"]
        if room in self.seen:
            self.case.assertEqual(self.seen.pop(room), data["seq"])

    async def publish(self, room, others_may_be_in):
        answer = await self.request("room.publish", room, content=self.client.user)
        if room in self.seen or answer["type"] == "response" and others_may_be_in:
            self.case.assertEqual((answer["type"], answer["code"]), ("response", 200), answer)
        else:
            self.case.assert_error(answer, 403, "forbidden")

    async def read_to(self, ends):
        """Reads until it has seen the last message of each room that it is in."""
        while any(seq < ends[room] for room, seq in self.seen.items()):
            self.take(await self.client.receive())


class AtRandom(ClientCase):
    """Random joins, leaves, publishes, and connections that come and go, against a model."""

    options = ROOMY
    rooms = [f"random-{number}" for number in range(8)]

    async def live(self, seed, device, devices):
        """80 random steps of one device; a new connection now and then."""
        dice = random.Random(seed)
        for _ in range(80):
            room, what = dice.choice(self.rooms), dice.random()
            if what < 0.35:
                await device.join(room)
            elif what < 0.60:
                await device.leave(room)
            elif what < 0.95:
                await device.publish(room, len(devices[device.client.user]) > 1)
            else:
                await self.begin_anew(device, dice)

    async def begin_anew(self, device, dice):
        """A goodbye, and another connection of that user, in two rooms from the start."""
        await device.client.close()
        rooms = dice.sample(self.rooms, 2)
        since = {}
        for room in rooms:
            since[room] = device.seen.get(room)
        device.seen = {}
        device.client = await self.client_in(
            device.client.user, *(place(room, since[room]) for room in rooms))
        while len(device.seen) < 2:
            got = await device.client.receive()
            if got["event"] == "room.subscribed":
                room = got["data"]["room"]
                self.assertNotIn(room, device.seen)
                missed = got["data"].get("missed", 0)
                device.seen[room] = got["data"]["seq"] if since[room] is None \
                    else since[room] + missed
            else:
                device.take(got)

    async def run_with(self, seed, users):
        """`users` lists each device's user. Lives through it, then compares with the model."""
        watcher = Device(self, await self.client(f"watcher-{seed}", role="admin"))
        for room in self.rooms:
            await watcher.join(room)
        devices = collections.defaultdict(list)
        for user in users:
            devices[user].append(Device(self, await self.client(user)))
        everyone = [device for several in devices.values() for device in several]
        await asyncio.gather(*(self.live(seed * 1000 + number, device, devices)
                               for number, device in enumerate(everyone)))
        await self.compare(watcher, devices)
        await self.compare_end(watcher, everyone)
        for device in (watcher, *everyone):
            await device.client.close()

    async def compare(self, watcher, devices):
        """room.members against the model; goodbyes may be still on their way to the rooms."""
        for room in self.rooms:
            wanted = {user: sum(room in device.seen for device in several)
                      for user, several in devices.items()}
            wanted = {user: count for user, count in wanted.items() if count}
            wanted[watcher.client.user] = 1

            async def as_wanted():
                shown.append({item["user"]: item["devices"]
                              for item in await watcher.client.members(room)})
                return shown[-1] == wanted

            shown = []
            try:
                await eventually_true(as_wanted, room)
            except AssertionError:
                self.assertEqual(shown[-1], wanted, room)

    async def compare_end(self, watcher, everyone):
        """A last message in each room: all see the same one. Who came and went, as the watcher was
        told, gives the members, too."""
        ends = {}
        for room in self.rooms:
            answer = await watcher.request("room.publish", room, content="end")
            ends[room] = answer["data"]["seq"]
        for device in (watcher, *everyone):
            await device.read_to(ends)
        for room in self.rooms:
            inside = {watcher.client.user}
            for event, user, members in watcher.told[room]:
                if event == "room.joined":
                    self.assertNotIn(user, inside)
                    inside.add(user)
                else:
                    inside.remove(user)
                self.assertEqual(members, len(inside))
            self.assertEqual(inside - {watcher.client.user},
                             {device.client.user for device in everyone if room in device.seen})

    async def test_users_with_one_device(self):
        await self.run_with(1, [f"single-{number}" for number in range(16)])

    async def test_users_with_several_devices(self):
        await self.run_with(2, [f"several-{number // 3}" for number in range(18)])


if __name__ == "__main__":
    unittest.main()
