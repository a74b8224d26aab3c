"""Broadcasts: who may, whom they reach, in what order (PROTOCOL 3 and 4).

Tests share a hub with what others left behind for a moment. So those that count give their clients
a user type of their own, and Everybody has a hub for each test. "Nothing arrives" is shown by a
later broadcast to all being the next thing that does arrive.
"""

import asyncio
import time
import unittest

import raw
from clients import ClientCase, envelope, path
from hub import Hub
from test_envelope import OPAQUE, SPACED, member
from test_priority import BIG, HIGH, KERNEL_TAKES, LANE


class BroadcastCase(ClientCase):

    async def admin(self, user):
        return await self.client(user, role="admin")

    async def broadcast(self, client, content, **more):
        """A broadcast that has to succeed: its answer's data."""
        data = await client.ask("broadcast", {"content": content, **more})
        self.assertEqual(set(data), {"id", "recipients"}, data)
        return data

    async def next_broadcast(self, client, content):
        """The next notify has to be the broadcast with this content."""
        data = await client.notify("broadcast")
        self.assertEqual(data["content"], content)
        return data


class Everybody(BroadcastCase):
    """Each test has its own hub, so that all who are there are known."""

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def setUp(self):
        self.hub = Hub({"echo.enabled": "true"})
        self.addCleanup(self.hub.stop)

    async def test_every_connection_gets_it_the_senders_too(self):
        anna = await self.admin("anna")
        others = await self.clients(["anna", "bert", "bert", "bert", "carl"]
                                    + [f"user-{number}" for number in range(20)])
        answer = await anna.request("broadcast", {"content": {"a": 1}})
        self.assertEqual((answer["type"], answer["code"]), ("response", 200))
        self.assertEqual(set(answer["data"]), {"id", "recipients"})
        self.assertEqual(answer["data"]["recipients"], 23)  # users
        for client in (anna, *others):
            got = await client.receive()
            self.assertEqual(set(got), {"type", "event", "data", "timestamp"})
            self.assertEqual((got["type"], got["event"]), ("notify", "broadcast"))
            self.assertEqual(got["data"], {"id": answer["data"]["id"], "from": "anna",
                                           "content": {"a": 1}})
        await self.broadcast(anna, "marker")
        for client in (anna, *others):
            await self.next_broadcast(client, "marker")  # once each

    async def test_only_who_is_connected_counts(self):
        anna = await self.admin("anna")
        bert, carl, dora = await self.clients(["bert", "carl", "dora"])
        await self.join_all("room", [anna, bert, carl])
        self.assertEqual((await self.broadcast(anna, 1))["recipients"], 4)
        await self.next_broadcast(anna, 1)
        await bert.close()
        await anna.notify("room.left")
        self.assertEqual((await self.broadcast(anna, 2))["recipients"], 3)
        await self.next_broadcast(anna, 2)
        await self.cut(carl, anna, "room")  # its session lives on, but nobody is connected
        self.assertEqual((await self.broadcast(anna, 3))["recipients"], 2)
        await self.next_broadcast(anna, 3)
        again = await self.resume(carl)
        self.assertIs(again.welcome["data"]["resumed"], True)
        self.assertEqual((await again.notify("room.subscribed"))["room"], "room")
        self.assertEqual((await self.broadcast(anna, 4))["recipients"], 3)
        await self.next_broadcast(again, 4)  # 3 is gone: a broadcast is no room's message
        for content in (1, 2, 3, 4):
            await self.next_broadcast(dora, content)

    async def test_the_sender_alone(self):
        anna = await self.admin("anna")
        self.assertEqual((await self.broadcast(anna, 1))["recipients"], 1)
        await self.next_broadcast(anna, 1)

    async def test_echo_connections_are_nobody(self):
        anna = await self.admin("anna")
        with raw.Wire(self.hub) as wire:
            wire.upgrade("/echo")
            self.assertEqual((await self.broadcast(anna, 1))["recipients"], 1)
            wire.send(raw.frame(raw.TEXT, "echo"))
            self.assertEqual(wire.message().payload, b"echo")


class Right(BroadcastCase):

    async def test_user_type_or_role_admin_may(self):
        admins = [await self.client("may-1", role="admin"),
                  await self.client("may-2", user_type="admin"),
                  await self.client("may-3", user_type="admin", role="agent"),
                  await self.client("may-4", user_type="agent", role="admin"),
                  await self.client("may-5", headers={"X-Role": "admin"}),
                  await self.client("may-6", headers={"X-User-Type": "admin"})]
        for number, client in enumerate(admins):
            await self.broadcast(client, number)
            for other in admins:
                data = await self.next_broadcast(other, number)
                self.assertEqual(data["from"], client.user)

    async def test_nobody_else_may(self):
        admin = await self.admin("right-admin")
        for query in ({}, {"role": "agent"}, {"user_type": "agent", "role": "customer"},
                      {"role": "Admin"}, {"role": "admin "}, {"role": "administrator"},
                      {"device": "admin"}):
            with self.subTest(**query):
                client = await self.client("admin", **query)
                answer = await client.request("broadcast", {"content": "no"})
                self.assert_error(answer, 403, "forbidden")
                await client.send({"type": "request", "event": "broadcast",
                                   "data": {"content": "no"}})
                got = await client.receive()
                self.assert_error(got, 403, "forbidden")
                self.assertNotIn("request_id", got)
                await client.close()
        await self.broadcast(admin, "marker")
        await self.next_broadcast(admin, "marker")

    async def test_it_is_the_connections_not_the_users(self):
        admin = await self.admin("own-anna")
        other = await self.client("own-anna")
        await self.broadcast(admin, "yes", user_types=["own-none"])
        answer = await other.request("broadcast", {"content": "no"})
        self.assert_error(answer, 403, "forbidden")


class Contents(BroadcastCase):

    async def test_content_is_handed_on_byte_for_byte(self):
        admin = await self.admin("bytes-admin")
        bert = await self.client("bytes-bert")
        for content in OPAQUE + SPACED:
            with self.subTest(content[:40]):
                await admin.send('{"type":"request","event":"broadcast","data":{"content": %s }}'
                                 % content)
                for client in (admin, bert):
                    self.assertEqual(member(await client.receive_text(), "content"), content)

    async def test_large_contents_arrive_whole(self):
        admin = await self.admin("large-admin")
        bert = await self.client("large-bert")
        for size in (126, 5_000, 65_536, 1_000_000):
            content = ("%d:" % size).ljust(size, "x")
            await self.broadcast(admin, content)
            for client in (admin, bert):
                await self.next_broadcast(client, content)

    async def test_a_given_id_is_kept_and_others_are_unique(self):
        admin = await self.admin("ids-admin")
        for given in ("a", "My-id_1.2:3", "A" * 64):
            self.assertEqual((await self.broadcast(admin, 1, id=given))["id"], given)
            self.assertEqual((await self.next_broadcast(admin, 1))["id"], given)
        ids = [(await self.broadcast(admin, 1))["id"] for _ in range(50)]
        self.assertEqual(len(set(ids)), 50)
        for generated in ids:
            self.assertRegex(generated, r"^[A-Za-z0-9._:-]{1,64}$")
            self.assertEqual((await self.next_broadcast(admin, 1))["id"], generated)

    async def test_without_a_request_id_it_is_sent_and_not_answered(self):
        admin = await self.admin("mute-admin")
        await admin.send({"type": "request", "event": "broadcast", "data": {"content": 1}})
        await self.next_broadcast(admin, 1)
        await admin.quiet()

    async def test_bad_requests_and_nothing_is_sent(self):
        admin = await self.admin("bad-admin")
        bert = await self.client("bad-bert")
        await self.assert_bad_requests(admin, "broadcast", {
            "no data": None, "null": "null", "a string": '"x"', "an array": "[]",
            "no content": "{}", "content twice": '{"content":1,"content":1}',
            "unknown member twice": '{"content":1,"z":1,"z":1}',
            "content twice after unescaping": r'{"content":1,"\u0063ontent":1}',
            "id is a number": '{"content":1,"id":5}', "id is empty": '{"content":1,"id":""}',
            "id with a space": '{"content":1,"id":"a b"}',
            "id of 65": '{"content":1,"id":"%s"}' % ("i" * 65),
            "unknown priority": '{"content":1,"priority":"top"}',
            "priority is a number": '{"content":1,"priority":1}',
            "user_types is a text": '{"content":1,"user_types":"agent"}',
            "user_types is an object": '{"content":1,"user_types":{}}',
            "user_types of numbers": '{"content":1,"user_types":[1]}',
            "one of them is null": '{"content":1,"user_types":["agent",null]}',
            "roles is a text": '{"content":1,"roles":"agent"}',
            "roles of lists": '{"content":1,"roles":[["agent"]]}',
            "roles twice": '{"content":1,"roles":["a"],"roles":["a"]}',
        })
        await self.broadcast(admin, "marker")
        for client in (admin, bert):
            await self.next_broadcast(client, "marker")


class Filters(BroadcastCase):

    async def assert_reaches(self, admin, clients, wanted, recipients, **filters):
        """The broadcast is for so many users and comes to exactly these of the clients."""
        answer = await self.broadcast(admin, "filtered", **filters)
        self.assertEqual(answer["recipients"], recipients, filters)
        await self.broadcast(admin, "marker")
        for name, client in clients.items():
            if name in wanted:
                await self.next_broadcast(client, "filtered")
            await self.next_broadcast(client, "marker")

    async def test_by_type_by_role_and_by_both(self):
        admin = await self.admin("filter-admin")
        clients = {name: await self.client(f"filter-{name}", **query) for name, query in {
            "agent": {"user_type": "f-agent"}, "bot": {"user_type": "f-bot"},
            "lead": {"user_type": "f-agent", "role": "f-lead"}, "boss": {"role": "f-lead"},
            "botlead": {"user_type": "f-bot", "role": "f-lead"}, "none": {},
            "swapped": {"user_type": "f-lead", "role": "f-agent"}}.items()}
        for filters, wanted in (
                ({"user_types": ["f-agent"]}, "agent lead"),
                ({"user_types": ["f-agent", "f-bot"]}, "agent bot lead botlead"),
                ({"roles": ["f-lead"]}, "lead boss botlead"),
                ({"user_types": ["f-agent"], "roles": ["f-lead"]}, "lead"),
                ({"user_types": ["f-agent", "f-bot"], "roles": ["f-lead", "f-agent"]},
                 "lead botlead"),
                ({"user_types": ["f-agent", "f-agent"]}, "agent lead"),
                ({"user_types": ["f-nobody"]}, ""),
                ({"roles": ["f-nobody"]}, ""),
                ({"user_types": ["f-agent"], "roles": ["f-nobody"]}, ""),
                ({"user_types": ["F-agent", "f-agen", "f-agentx"]}, ""),
                ({"user_types": [f"f-{number}" for number in range(20)] + ["f-bot"]},
                 "bot botlead")):
            with self.subTest(**{name: values[-2:] for name, values in filters.items()}):
                wanted = wanted.split()
                await self.assert_reaches(admin, clients, wanted, len(wanted), **filters)

    async def test_a_filter_counts_per_connection_and_recipients_are_users(self):
        admin = await self.admin("conn-admin")
        clients = {"one": await self.client("conn-anna", user_type="c-a"),
                   "two": await self.client("conn-anna", user_type="c-a", role="c-r"),
                   "other": await self.client("conn-anna", user_type="c-b"),
                   "bert": await self.client("conn-bert", user_type="c-a")}
        await self.assert_reaches(admin, clients, ("one", "two", "bert"), 2, user_types=["c-a"])
        await self.assert_reaches(admin, clients, ("two",), 1, user_types=["c-a"], roles=["c-r"])
        await self.assert_reaches(admin, clients, ("other",), 1, user_types=["c-b"])
        await self.assert_reaches(admin, clients, clients, 2, user_types=["c-a", "c-b"])

    async def test_the_sender_is_filtered_like_everybody(self):
        admin = await self.client("me-admin", user_type="m-type", role="admin")
        clients = {"me": admin, "bert": await self.client("me-bert", user_type="m-type")}
        await self.assert_reaches(admin, clients, ("me", "bert"), 2, user_types=["m-type"])
        await self.assert_reaches(admin, clients, ("me",), 1, user_types=["m-type"],
                                  roles=["admin"])
        await self.assert_reaches(admin, clients, (), 0, user_types=["m-none"])

    async def test_many_users_on_all_shards(self):
        admin = await self.admin("many-admin")
        clients = await asyncio.gather(*(self.client(f"many-{number // 2}", user_type="many")
                                         for number in range(200)))
        answer = await self.broadcast(admin, "all", user_types=["many"])
        self.assertEqual(answer["recipients"], 100)
        for client in clients:
            await self.next_broadcast(client, "all")


class Order(BroadcastCase):
    options = {"limits.send_queue_messages": 20_000, "limits.send_queue_bytes": "64MiB",
               "limits.send_timeout": "120s"}

    async def test_each_senders_broadcasts_come_in_order(self):
        admins = [await self.client(f"order-admin-{number}", user_type="order", role="admin")
                  for number in range(4)]
        clients = admins + [await self.client(f"order-{number}", user_type="order")
                            for number in range(12)]
        count = 200

        async def send(admin):
            for number in range(count):
                await admin.send({"type": "request", "event": "broadcast",
                                  "request_id": f"b{number}",
                                  "data": {"content": number, "user_types": ["order"]}})

        async def receive(client):
            following = {admin.user: 0 for admin in admins}
            unanswered = {f"b{number}" for number in range(count)} if client in admins else set()
            while unanswered or any(number < count for number in following.values()):
                got = await client.receive()
                if got["type"] == "response":
                    self.assertEqual((got["code"], got["data"]["recipients"]), (200, 16))
                    unanswered.remove(got["request_id"])
                else:
                    self.assertEqual((got["type"], got.get("event")), ("notify", "broadcast"), got)
                    self.assertEqual(got["data"]["content"], following[got["data"]["from"]])
                    following[got["data"]["from"]] += 1

        await asyncio.gather(*map(send, admins), *map(receive, clients))

    async def block(self, name):
        """An admin, and the user `name` with a wire that is blocked behind many big messages and a
        device that reads."""
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade(path(name, device="stops"))
        self.assertEqual(envelope(wire.message().payload.decode())["event"], "welcome")
        device = await self.client(name, device="reads")
        admin = await self.admin(f"{name}-admin")
        for number in range(KERNEL_TAKES // len(BIG) + 6):
            await admin.send_message(name, BIG)
            await device.message()
        return admin, device, wire

    async def order_of(self, admin, device, wire, priorities):
        """Broadcasts with these priorities; the order in which the wire gets them, "big" for what
        stood before them."""
        for number, priority in enumerate(priorities):
            await self.broadcast(admin, number, priority=priority)
            await self.next_broadcast(device, number)
        order = []
        while len(order) < KERNEL_TAKES // len(BIG) + 6 + len(priorities):
            got = envelope(wire.message().payload.decode())
            order.append(got["data"]["content"] if got["event"] == "broadcast" else "big")
        return order

    async def test_high_ones_overtake_what_is_queued(self):
        priorities = ["normal", "high", "low", "urgent", "normal", "critical"] * 5
        admin, device, wire = await self.block("overtaken")
        order = await self.order_of(admin, device, wire, priorities)
        high = [i for i, priority in enumerate(priorities) if priority in HIGH]
        rest = [i for i, priority in enumerate(priorities) if priority not in HIGH]
        self.assertEqual([got for got in order if got != "big"], high + rest)
        self.assertLess(order.index(high[-1]), len(order) - 1 - order[::-1].index("big"),
                        "nothing was overtaken")
        self.assertEqual(order[-len(rest):], rest)  # these waited for all that was there before

    async def test_the_lane_is_bounded_and_keeps_its_order(self):
        admin, device, wire = await self.block("lane")
        order = await self.order_of(admin, device, wire, ["high"] * (LANE + 20))
        self.assertEqual([got for got in order if got != "big"], list(range(LANE + 20)))


class Rate(BroadcastCase):
    options = {"rooms.broadcasts_per_minute": 20}

    async def test_broadcasts_are_counted_per_user(self):
        anna = await self.admin("rate-anna")
        device = await self.admin("rate-anna")
        bert = await self.admin("rate-bert")
        began = time.monotonic()
        answers = [await client.request("broadcast", {"content": number, "user_types": ["none"]})
                   for number in range(30) for client in (anna, device)]
        took = time.monotonic() - began
        accepted = [answer for answer in answers if answer["type"] == "response"]
        self.assertEqual([answer["type"] for answer in answers[:20]], ["response"] * 20)
        self.assertLessEqual(len(accepted), 20 + took / 60 * 20 + 1)
        for answer in answers:
            if answer not in accepted:
                self.assert_error(answer, 429, "rate_limited")
        await self.broadcast(bert, "another's")
        for client in (bert, anna, device):
            await self.next_broadcast(client, "another's")

    async def test_a_refused_one_reaches_nobody(self):
        carl = await self.admin("refused-carl")
        dora = await self.admin("refused-dora")
        watcher = await self.client("refused-watcher")
        count = 0
        while True:
            answer = await carl.request("broadcast", {"content": count})
            if answer["type"] == "error":
                break
            await self.next_broadcast(watcher, count)
            count += 1
            self.assertLess(count, 1000, "never refused")
        self.assert_error(answer, 429, "rate_limited")
        self.assertGreaterEqual(count, 20)
        await self.broadcast(dora, "marker")
        await self.next_broadcast(watcher, "marker")

    async def test_rooms_and_refusals_cost_a_user_nothing(self):
        emil = await self.admin("cost-emil")
        other = await self.client("cost-emil")
        await emil.join("cost")
        await emil.publish_row("cost", range(15))
        await emil.read_room("cost", 1, 15)
        for _ in range(30):
            answer = await other.request("broadcast", {"content": "no"})
            self.assert_error(answer, 403, "forbidden")
        for number in range(20):
            await self.broadcast(emil, number, user_types=["none"])


if __name__ == "__main__":
    unittest.main()
