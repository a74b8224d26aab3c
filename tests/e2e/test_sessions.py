"""Sessions: what outlives a connection, for how long, and who takes it up again (PROTOCOL 4,
"Membership").

A connection that is cut off is noticed by the hub in its own time: cut() waits until room.members
shows it. Windows are very long where a session has to live, and where it has to end at once: then
nothing that is awaited can have come from the window's end.
"""

import asyncio
import json
import random
import time
import unittest

import websockets

import raw
from clients import ClientCase, envelope, eventually_true, path_with_rooms, place
from hub import SLOWNESS, eventually
from slow import KERNEL_TAKES, ask

REPLACED = 'ringhub_disconnects_total{code="4409"}'
SLOW = 'ringhub_disconnects_total{code="4408"}'


class SessionCase(ClientCase):

    async def subscribed(self, client, room, first=None, last=None, **fields):
        """The next is the room.subscribed of `room`, with these fields; then come its messages
        `first` to `last`."""
        told = await client.notify("room.subscribed")
        self.assertEqual({name: told.get(name) for name in ("room", *fields)},
                         {"room": room, **fields}, told)
        if first is not None:
            await client.read_room(room, first, last)
        return told

    async def beside_slow(self, room):
        """A client in a room, and a wire that is in it too, takes little and has read what it was
        told so far; the wire's session."""
        anna = await self.client(f"{room}-anna")
        await anna.join(room)
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade(path_with_rooms(f"{room}-bert", room))
        session = envelope(wire.message().payload.decode())["data"]["session"]
        self.assertEqual(json.loads(wire.message().payload)["event"], "room.subscribed")
        await anna.notify("room.joined")
        return anna, wire, session

    async def assert_ended(self, client):
        """Its session is no more: resuming it is connecting."""
        other = await self.resume(client)
        self.assertIs(other.welcome["data"]["resumed"], False)
        self.assertNotEqual(other.session, client.session)
        return other

    async def assert_marker(self, room, publisher, *clients):
        """The next that any of these gets is a message that is published now."""
        seq = (await publisher.publish(room, "marker"))["seq"]
        for client in clients:
            await client.read_room(room, seq, seq)

    async def open(self, name, **query):
        """A watcher, and a client that is about to end, both in a room named `name`."""
        watcher = await self.client(f"{name}-watcher")
        await watcher.join(name)
        client = await self.client(name, **query)
        await client.join(name)
        await watcher.notify("room.joined")
        return watcher, client

    async def assert_left(self, watcher, client, name):
        self.assertEqual(await watcher.notify("room.left"),
                         {"room": name, "user": client.user, "members": 1})
        self.assertEqual([item["user"] for item in await watcher.members(name)], [watcher.user])
        other = await self.assert_ended(client)
        self.assertEqual((await watcher.publish(name, "not for you"))["recipients"], 1)
        await other.join(name)
        await watcher.read_room(name, 1, 1)
        await watcher.notify("room.joined")
        await self.assert_marker(name, watcher, watcher, other)


class Resume(SessionCase):
    options = {"resume.window": "30m", "rooms.history_size": 50, "rooms.empty_ttl": "300ms",
               "limits.message_size": "64KiB"}

    async def test_a_session_has_a_name_that_is_its_own(self):
        clients = await self.clients(["name-anna", "name-anna", "name-bert"])
        self.assertEqual(len({client.session for client in clients}), 3)
        for client in clients:
            self.assertRegex(client.session, "^[0-9a-f]{32}$")
            self.assertIs(client.welcome["data"]["resumed"], False)

    async def test_the_rooms_come_back_with_what_was_missed(self):
        anna, bert = await self.in_room("back", ["back-anna", "back-bert"])
        epoch = (await anna.join("back"))["epoch"]
        await anna.publish_row("back", [1, 2, 3])
        for client in (anna, bert):
            await client.read_room("back", 1, 3)
        await self.cut(bert, anna, "back")
        await anna.publish_row("back", [4, 5])
        again = await self.resume(bert)
        data = again.welcome["data"]
        self.assertEqual((data["user"], data["session"], data["resumed"]),
                         ("back-bert", bert.session, True))
        self.assertEqual(await again.notify("room.subscribed"), {
            "room": "back", "members": 2, "seq": 5, "epoch": epoch, "recovered": True, "missed": 0})
        row = await again.read_room("back", 4, 5)
        self.assertEqual([data["content"] for data in row], [4, 5])
        await again.publish("back", "a member")
        await again.read_room("back", 6, 6)
        await anna.read_room("back", 4, 6)  # it was told neither of going nor of coming

    async def test_nothing_missed(self):
        anna, bert = await self.in_room("same", ["same-anna", "same-bert"])
        await anna.publish("same", 1)
        await bert.read_room("same", 1, 1)
        await self.cut(bert, anna, "same")
        again = await self.resume(bert)
        await self.subscribed(again, "same", recovered=True, missed=0, seq=1, members=2)
        await self.assert_marker("same", anna, again)

    async def test_more_was_missed_than_history_holds(self):
        anna, bert = await self.in_room("long", ["long-anna", "long-bert"])
        await anna.publish_row("long", [1, 2, 3])
        await bert.read_room("long", 1, 3)
        await self.cut(bert, anna, "long")
        await anna.publish_row("long", range(60))
        again = await self.resume(bert)
        await self.subscribed(again, "long", 14, 63, recovered=False, missed=10, seq=63)
        await self.assert_marker("long", anna, again)

    async def test_many_rooms_on_all_shards(self):
        anna, bert = await self.clients(["rooms-anna", "rooms-bert"])
        rooms = [f"rooms-{number}" for number in range(24)]
        for room in rooms:
            await self.join_all(room, [anna, bert])
        await bert.leave("rooms-0")
        await anna.notify("room.left")
        await self.cut(bert, anna, "rooms-1")
        for number, room in enumerate(rooms):
            await anna.publish_row(room, range(number % 4))
        again = await self.resume(bert)
        told, rows = {}, {room: 0 for room in rooms[1:]}
        while len(told) < 23 or sum(rows.values()) < sum(n % 4 for n in range(24)):
            got = await again.receive()
            room = got["data"]["room"]
            if got["event"] == "room.subscribed":
                self.assertNotIn(room, told)
                told[room] = got["data"]
                self.assertEqual((got["data"]["recovered"], got["data"]["missed"]), (True, 0))
            else:
                self.assertEqual(got["event"], "room.message")
                self.assertIn(room, told)  # it precedes the room's messages
                rows[room] += 1
                self.assertEqual(got["data"]["seq"], rows[room])
        self.assertEqual(set(told), set(rooms[1:]))  # rooms-0 was left before
        answer = await again.request("room.publish", {"room": "rooms-0", "content": 1})
        self.assert_error(answer, 403, "forbidden")
        await again.quiet()

    async def test_a_room_that_is_just_being_left_is_joined_if_it_is_named(self):
        """The old connection's leave is on its way to the room's home when rooms= names it."""
        for turn in range(40):
            user, room = f"named-{turn % 7}", f"named-{turn}"
            old, new = raw.Wire(self.hub), raw.Wire(self.hub)
            self.addCleanup(old.sock.close)
            self.addCleanup(new.sock.close)
            old.upgrade(path_with_rooms(user, room))
            session = json.loads(old.message().payload)["data"]["session"]
            self.assertEqual(json.loads(old.message().payload)["event"], "room.subscribed")
            await asyncio.sleep(0.002)  # new's shard has taken it before the leave is on its way
            old.send(ask("room.leave", {"room": room}))
            new.upgrade(path_with_rooms(user, room, resume=session))
            self.assertIs(json.loads(new.message().payload)["data"]["resumed"], True)
            told = json.loads(new.message().payload)
            self.assertEqual((told["event"], told["data"]["members"]), ("room.subscribed", 1), told)
            old.sock.close()
            new.sock.close()

    async def test_what_was_excluded_from_stays_excluded(self):
        anna, bert = await self.in_room("excl", ["rex-anna", "rex-bert"])
        device = await self.client("rex-bert")
        await device.join("excl")
        await self.cut(bert, anna, "excl", left=1)
        await device.publish("excl", 1, exclude_self=True)
        await device.publish("excl", 2)
        again = await self.resume(bert)
        await self.subscribed(again, "excl", 2, 2, recovered=True, missed=0, seq=2)
        await self.assert_marker("excl", anna, again)

    async def test_again_and_again(self):
        anna, bert = await self.in_room("row", ["row-anna", "row-bert"])
        session, seq = bert.session, 0
        for _ in range(5):
            await self.cut(bert, anna, "row")
            await anna.publish("row", 1)
            seq += 1
            bert = await self.resume(bert)
            self.assertEqual((bert.session, bert.welcome["data"]["resumed"]), (session, True))
            await self.subscribed(bert, "row", seq, seq, recovered=True, missed=0)
        await anna.read_room("row", 1, 5)

    async def test_members_in_their_window_are_members_with_no_devices(self):
        anna, bert = await self.in_room("zero", ["zero-anna", "zero-bert"])
        before = await anna.members("zero")
        await self.cut(bert, anna, "zero")
        after = await anna.members("zero")
        self.assertEqual([(item["user"], item["devices"]) for item in after],
                         [("zero-anna", 1), ("zero-bert", 0)])
        self.assertEqual([item["since"] for item in after], [item["since"] for item in before])
        self.assertEqual((await anna.publish("zero", 1))["recipients"], 2)
        carl = await self.client("zero-carl")
        self.assertEqual((await carl.join("zero"))["members"], 3)
        device = await self.client("zero-bert")  # another session of a user who is in
        self.assertEqual((await device.join("zero"))["members"], 3)
        again = await self.resume(bert)
        await self.subscribed(again, "zero", members=3)
        await self.await_devices(anna, "zero", "zero-bert", 2)

    async def test_a_room_is_not_empty_while_a_session_lives(self):
        """rooms.empty_ttl is 300 ms here."""
        anna = await self.client("empty-anna")
        asker = await self.client("empty-asker", role="admin")
        epoch = (await anna.join("empty"))["epoch"]
        await anna.publish("empty", 1)
        await anna.read_room("empty", 1, 1)
        await self.cut(anna, asker, "empty")
        await asyncio.sleep(1)
        await asker.publish("empty", 2)
        again = await self.resume(anna)
        await self.subscribed(again, "empty", 2, 2, epoch=epoch, seq=2, members=1, recovered=True)

    async def test_since_in_rooms_wins(self):
        for since, recovered, first in ((1, True, 2), (4, True, 5), (5, True, 6), (0, True, 1),
                                        (77, False, 6)):
            with self.subTest(since):
                room = f"wins-{since}"
                anna, bert = await self.in_room(room, ["wins-anna", "wins-bert"])
                epoch = (await anna.join(room))["epoch"]
                await anna.publish_row(room, [1, 2, 3])
                await bert.read_room(room, 1, 3)
                await self.cut(bert, anna, room)
                await anna.publish_row(room, [4, 5])
                again = await self.resume(bert, place(room, since, epoch))
                self.assertIs(again.welcome["data"]["resumed"], True)
                await self.subscribed(again, room, first, 5, recovered=recovered, missed=0, seq=5)
                await self.assert_marker(room, anna, again)
                for client in (anna, again):
                    await client.close()

    async def test_another_epoch_in_rooms_wins_too(self):
        anna, bert = await self.in_room("other", ["other-anna", "other-bert"])
        await anna.publish_row("other", [1, 2, 3])
        await bert.read_room("other", 1, 3)
        await self.cut(bert, anna, "other")
        again = await self.resume(bert, place("other", 2, "another"))
        await self.subscribed(again, "other", 1, 3, recovered=False, missed=0)
        await self.assert_marker("other", anna, again)

    async def test_rooms_adds_others(self):
        anna, bert = await self.in_room("add-1", ["add-anna", "add-bert"])
        await anna.join("add-2")
        await anna.publish("add-2", 1)
        await self.cut(bert, anna, "add-1")
        again = await self.resume(bert, place("add-2", 0), "add-3")
        told, seen = {}, []
        while len(told) < 3 or not seen:
            got = await again.receive()
            if got["event"] == "room.subscribed":
                told[got["data"]["room"]] = got["data"]
            else:
                seen.append((got["event"], got["data"]["room"], got["data"]["seq"]))
        self.assertEqual(set(told), {"add-1", "add-2", "add-3"})
        self.assertEqual(seen, [("room.message", "add-2", 1)])
        self.assertIs(told["add-2"]["recovered"], True)
        await again.quiet()

    async def test_another_users_session_is_not_resumed(self):
        anna, bert = await self.in_room("thief", ["thief-anna", "thief-bert"])
        live, gone = anna.session, bert.session
        await self.cut(bert, anna, "thief")
        await anna.publish("thief", "private")
        await anna.read_room("thief", 1, 1)
        for session in (live, gone):
            carl = await self.client("thief-carl", resume=session)
            self.assertIs(carl.welcome["data"]["resumed"], False)
            self.assertNotIn(carl.session, (live, gone))
            await carl.join("thief")
            await anna.notify("room.joined")
            await self.assert_marker("thief", anna, carl, anna)
            await carl.close()
            await anna.notify("room.left")
        again = await self.resume(bert)
        self.assertIs(again.welcome["data"]["resumed"], True)

    async def test_an_unknown_one_is_simply_a_new_one(self):
        for unknown in ("0" * 32, "f" * 32, "x", "never heard of", "é", "0" * 500):
            with self.subTest(unknown):
                anna = await self.client("unknown-anna", resume=unknown)
                self.assertIs(anna.welcome["data"]["resumed"], False)
                self.assertRegex(anna.session, "^[0-9a-f]{32}$")
                self.assertNotEqual(anna.session, unknown)
                await anna.quiet()

    async def test_an_unknown_one_with_rooms_joins_them(self):
        admin = await self.client("uroom-admin", role="admin")
        await admin.ask("room.create", {"room": "uroom"})
        await admin.publish("uroom", 1)
        anna = await self.client_in("uroom-anna", place("uroom", 0), resume="0" * 32)
        self.assertIs(anna.welcome["data"]["resumed"], False)
        await self.subscribed(anna, "uroom", 1, 1, recovered=True)

    async def test_a_room_deleted_meanwhile_is_404(self):
        admin = await self.client("del-admin", role="admin")
        anna, bert = await self.in_room("del", ["del-anna", "del-bert"])
        await self.join_all("del-stays", [anna, bert])
        await self.cut(bert, anna, "del")
        await admin.ask("room.delete", {"room": "del"})
        again = await self.resume(bert)
        self.assertIs(again.welcome["data"]["resumed"], True)
        told = {}
        for _ in range(2):
            data = await again.notify("room.subscribed")
            told[data["room"]] = data
        self.assertEqual((told["del"]["code"], told["del"]["error"]), (404, "not_found"))
        self.assertNotIn("seq", told["del"])
        self.assertEqual(told["del-stays"]["members"], 2)
        await again.quiet()

    async def test_even_if_one_of_its_name_exists_again(self):
        admin = await self.client("name-admin", role="admin")
        anna, bert = await self.in_room("again", ["ag-anna", "ag-bert"])
        await anna.publish("again", "old")
        await bert.read_room("again", 1, 1)
        await self.cut(bert, anna, "again")
        await admin.ask("room.delete", {"room": "again"})
        await admin.ask("room.create", {"room": "again"})
        carl = await self.client("ag-carl")
        self.assertEqual((await carl.join("again"))["members"], 1)
        await carl.publish_row("again", [1, 2])
        await carl.read_room("again", 1, 2)
        again = await self.resume(bert)
        told = await self.subscribed(again, "again", code=404, error="not_found")
        self.assertNotIn("seq", told)
        answer = await again.request("room.publish", {"room": "again", "content": 1})
        self.assert_error(answer, 403, "forbidden")
        self.assertEqual([item["user"] for item in await carl.members("again")], ["ag-carl"])
        await carl.publish("again", "not for you")
        await again.join("again")
        await self.assert_marker("again", carl, again)

    async def test_a_resume_that_meets_the_deletion_finds_the_old_room_or_none(self):
        admin = await self.client("meet-admin", role="admin")

        async def renew(room, delay):
            await asyncio.sleep(delay)
            await admin.ask("room.delete", {"room": room})
            await admin.ask("room.create", {"room": room})

        for number in range(20):
            room = f"meet-{number}"
            bert = await self.client(f"meet-{number}")
            epoch = (await bert.join(room))["epoch"]
            await self.cut(bert, admin, room)
            again, _ = await asyncio.gather(self.resume(bert), renew(room, number / 5000))
            told = await again.notify("room.subscribed")
            if "code" in told:
                self.assertEqual((told["code"], told["error"]), (404, "not_found"))
            else:
                self.assertEqual(told["epoch"], epoch)
                self.assertEqual((await again.notify("room.deleted"))["room"], room)
            self.assertEqual(await admin.members(room), [])
            await again.join(room)
            await self.assert_marker(room, admin, again)

    async def test_a_room_whose_end_was_told_is_not_told_again(self):
        admin = await self.client("told-admin", role="admin")
        anna, bert = await self.in_room("told", ["told-anna", "told-bert"])
        await self.join_all("told-stays", [anna, bert])
        await admin.ask("room.delete", {"room": "told"})
        await bert.notify("room.deleted")
        await bert.quiet()
        await self.cut(bert, anna, "told-stays")
        again = await self.resume(bert)
        await self.subscribed(again, "told-stays", members=2, recovered=True)
        await again.quiet()

    async def test_what_was_joined_by_the_query_comes_back_too(self):
        anna = await self.client("query-anna")
        await anna.join("query")
        bert = await self.client_in("query-bert", "query")
        await bert.notify("room.subscribed")
        await self.cut(bert, anna, "query")
        await anna.publish("query", 1)
        again = await self.resume(bert)
        await self.subscribed(again, "query", 1, 1, recovered=True, missed=0)

    async def test_a_session_without_rooms_is_resumed(self):
        for attempt in range(3):
            anna = await self.client(f"bare-{attempt}")
            anna.cut()
            again = await self.resume(anna)
            self.assertEqual((again.session, again.welcome["data"]["resumed"]),
                             (anna.session, True))
            await again.quiet()

    async def test_by_another_device_as_well(self):
        anna = await self.client("device-anna")
        await anna.join("device")
        bert = await self.client("device-bert", device="phone")
        await bert.join("device")
        await anna.notify("room.joined")
        await self.cut(bert, anna, "device")
        again = await self.resume(bert, device="laptop")
        self.assertEqual((again.session, again.welcome["data"]["resumed"]), (bert.session, True))
        await self.subscribed(again, "device", recovered=True)
        await self.assert_marker("device", anna, again, anna)

    async def test_every_other_way_to_go_leaves_the_session(self):
        """Only a goodbye, a kick, replacement, 4400, 4401, 4403 and 4429 end it at once; and such
        a code of the client's own is none of these."""
        anna = await self.client("ways-anna")
        ways = {**{f"close {code}": raw.close_frame(code)
                   for code in (4400, 4401, 4403, 4409, 4429)},
                "close 1001": raw.close_frame(1001), "close 3000": raw.close_frame(3000),
                "close without a code": raw.close_frame(), "reset": None,
                "1002": raw.frame(raw.TEXT, "x", mask=None), "1007": raw.frame(raw.TEXT, b"\xff"),
                "1009": raw.frame(raw.TEXT, "x", length=70_000)}
        for number, (way, last) in enumerate(ways.items()):
            with self.subTest(way):
                room = f"ways-{number}"
                await anna.join(room)
                wire = raw.Wire(self.hub)
                self.addCleanup(wire.sock.close)
                wire.upgrade(path_with_rooms("ways-bert", room))
                welcome = envelope(wire.message().payload.decode())["data"]
                self.assertEqual(json.loads(wire.message().payload)["event"], "room.subscribed")
                await anna.notify("room.joined")
                if last is None:
                    wire.reset()
                else:
                    wire.send(last)
                    code = wire.close_code()
                    self.assertEqual(code, int(way) if way.isdigit() else code)
                await self.await_devices(anna, room, "ways-bert", 0)
                again = await self.client("ways-bert", resume=welcome["session"])
                self.assertIs(again.welcome["data"]["resumed"], True)
                await self.subscribed(again, room, recovered=True, missed=0)
                await self.assert_marker(room, anna, again, anna)
                await again.close()
                await anna.notify("room.left")


class Takeover(SessionCase):
    """Resuming a session that still has a connection."""

    options = {"resume.window": "30m", "rooms.history_size": 20_000,
               "limits.send_queue_messages": 20_000, "limits.send_queue_bytes": "64MiB"}

    async def test_the_old_connection_is_closed_with_4409(self):
        anna, bert = await self.in_room("take", ["take-anna", "take-bert"])
        await anna.publish("take", 1)
        for client in (anna, bert):
            await client.read_room("take", 1, 1)
        again = await self.resume(bert)
        self.assertEqual((again.session, again.welcome["data"]["resumed"]), (bert.session, True))
        await self.subscribed(again, "take", members=2, recovered=True, missed=0)
        code, reason = await bert.closed()
        self.assertEqual(code, 4409)
        self.assertTrue(reason)
        self.assertFalse(bert.aside)
        await self.await_devices(anna, "take", "take-bert", 1)
        await self.assert_marker("take", anna, again, anna)  # nobody left or came

    async def test_once_also_if_the_device_is_the_same(self):
        """The device's replacement would end the session: it does not."""
        anna = await self.client("once-anna")
        await anna.join("once")
        bert = await self.client("once-bert", device="phone")
        await bert.join("once")
        await anna.notify("room.joined")
        before = self.hub.metrics().get(REPLACED, 0)
        again = await self.resume(bert, device="phone")
        self.assertEqual((again.session, again.welcome["data"]["resumed"]), (bert.session, True))
        await self.subscribed(again, "once", members=2, recovered=True)
        self.assertEqual((await bert.closed())[0], 4409)
        await self.assert_marker("once", anna, again, anna)
        self.assertEqual(self.hub.metrics()[REPLACED], before + 1)
        await self.cut(again, anna, "once")  # and the session is as good as any
        third = await self.resume(again, device="phone")
        self.assertIs(third.welcome["data"]["resumed"], True)
        await self.subscribed(third, "once", members=2, recovered=True)

    async def test_another_device_of_that_name_is_replaced_as_well(self):
        """A resumes its session on the device of B: A's connection and B's both go."""
        anna = await self.client("both-anna")
        await anna.join("both")
        one = await self.client("both-bert", device="one")
        other = await self.client("both-bert", device="other")
        await one.join("both")
        await anna.notify("room.joined")
        again = await self.resume(one, device="other")
        self.assertIs(again.welcome["data"]["resumed"], True)
        for client in (one, other):
            self.assertEqual((await client.closed())[0], 4409)
        await self.assert_ended(other)
        await self.subscribed(again, "both", members=2)
        await self.assert_marker("both", anna, again, anna)

    async def test_of_many_who_resume_at_once_one_stays(self):
        anna, bert = await self.in_room("many", ["many-anna", "many-bert"])
        clients = await asyncio.gather(*(self.resume(bert) for _ in range(12)))
        self.assertEqual({client.session for client in clients}, {bert.session})
        for client in clients:
            self.assertIs(client.welcome["data"]["resumed"], True)
        ends = [asyncio.ensure_future(client.closed()) for client in (bert, *clients)]

        async def all_but_one():
            return sum(end.done() for end in ends) == len(clients)

        await eventually_true(all_but_one, "all but one are closed")
        self.assertEqual({end.result()[0] for end in ends if end.done()}, {4409})
        left = next(client for client, end in zip((bert, *clients), ends) if not end.done())
        ends[(bert, *clients).index(left)].cancel()
        await self.await_devices(anna, "many", "many-bert", 1)
        seq = (await anna.publish("many", "marker"))["seq"]
        await anna.read_room("many", seq, seq)
        await left.ask("ping")
        self.assertEqual((await left.publish("many", "alive"))["recipients"], 2)

    async def test_with_since_nothing_is_lost_and_nothing_comes_twice(self):
        """Taken over and cut off again and again while others publish, on several rooms."""
        rooms = ["exact-0", "exact-1", "exact-2"]
        over = []

        async def publish(number):
            client = await self.client(f"exact-p{number}", role="admin")
            while not over:
                for room in rooms:
                    await client.publish_row(room, range(5))
                await asyncio.sleep(0.01)

        async def live(number):
            """Goes through 8 connections; each begins where the last one stopped reading."""
            dice, last = random.Random(number), {room: 0 for room in rooms}
            client = await self.client_in(f"exact-{number}", *(place(room, 0) for room in rooms))
            await self.read(client, last, dice.randint(1, 200))
            for life in range(8):
                if dice.random() < 0.5:
                    client.cut()
                resumed = await self.resume(client, *(place(room, last[room]) for room in rooms))
                self.assertIs(resumed.welcome["data"]["resumed"], True)
                self.assertEqual(resumed.session, client.session)
                client = resumed
                await self.read(client, last, dice.randint(1, 200))
            return client, last

        admin = await self.client("exact-admin", role="admin")
        for room in rooms:
            await admin.ask("room.create", {"room": room})
        publishers = [asyncio.ensure_future(publish(number)) for number in range(3)]
        try:
            lives = await asyncio.gather(*map(live, range(6)))
        finally:
            over.append(True)
            await asyncio.gather(*publishers)
        ends = {room: (await admin.publish(room, "end"))["seq"] for room in rooms}
        for client, last in lives:
            await self.read(client, last, sum(ends[room] - last[room] for room in rooms))
            self.assertEqual(last, ends)
        for room in rooms:
            self.assertEqual([item["devices"] for item in await admin.members(room)], [1] * 6)

    async def read(self, client, last, count):
        """The next `count` room messages, gapless behind `last`, which goes on with them."""
        told = set()
        while count:
            got = await client.receive()
            room = got["data"]["room"]
            if got["event"] == "room.subscribed":
                self.assertNotIn(room, told)
                told.add(room)
                self.assertEqual((got["data"]["recovered"], got["data"]["missed"]), (True, 0))
            elif got["event"] != "room.joined":  # at the beginning; never room.left
                self.assertEqual(got["event"], "room.message")
                self.assertEqual(got["data"]["seq"], last[room] + 1)
                last[room] += 1
                count -= 1


class SlowConsumer(SessionCase):
    """4408 does not end a session either."""

    options = {"resume.window": "30m", "rooms.history_size": 1000}

    async def publish_until_closed(self, anna, room):
        """How many it takes until the one who does not read is closed."""
        before, count = self.hub.metrics().get(SLOW, 0), 0
        while self.hub.metrics().get(SLOW, 0) == before:
            await anna.publish_row(room, ["x" * 50_000] * 10, exclude_self=True)
            count += 10
            self.assertLess(count, 1000, "never closed")
        await self.await_devices(anna, room, f"{room}-bert", 0)
        return count

    async def test_who_was_too_slow_comes_back_and_goes_on(self):
        anna, wire, session = await self.beside_slow("slow")
        count = await self.publish_until_closed(anna, "slow")
        received = 0
        try:
            while (got := wire.frame()).opcode == raw.TEXT:
                received += 1
                self.assertEqual(json.loads(got.payload)["data"]["seq"], received)
            self.assertEqual(got.payload[:2], (4408).to_bytes(2, "big"))
        except raw.Closed:
            pass
        self.assertLess(received, count)
        again = await self.client_in("slow-bert", place("slow", received),
                                     resume=session)
        self.assertIs(again.welcome["data"]["resumed"], True)
        await self.subscribed(again, "slow", received + 1, count, recovered=True, missed=0)
        await self.assert_marker("slow", anna, again, anna)

    async def test_what_was_under_way_and_arrived_does_not_come_twice(self):
        anna, wire, session = await self.beside_slow("once")
        count = await self.publish_until_closed(anna, "once")
        received = 0
        while (got := wire.frame()).opcode == raw.TEXT:
            received += 1
            self.assertEqual(json.loads(got.payload)["data"]["seq"], received)
        self.assertEqual((got.opcode, got.payload[:2]), (raw.CLOSE, (4408).to_bytes(2, "big")))
        wire.send(raw.frame(raw.CLOSE, got.payload))
        wire.end()
        again = await self.client_in("once-bert", resume=session)
        self.assertIs(again.welcome["data"]["resumed"], True)
        await self.subscribed(again, "once", received + 1, count, recovered=True, missed=0)
        await self.assert_marker("once", anna, again, anna)


class CutOff(SessionCase):
    """A send is under way, with a long queue behind it, when the client vanishes."""

    options = {**Takeover.options, "io.descriptors": "ordinary"}  # they are counted here

    async def test_a_resume_begins_before_what_was_not_sent(self):
        """What the kernel took is gone for good; the rest is not, whichever of receive and send
        learns of the end first."""
        for way in ("reset", "half-closed and reset"):
            with self.subTest(way):
                room = way.partition(" ")[0]
                anna, wire, session = await self.beside_slow(room)
                for _ in range(120):
                    await anna.publish(room, "x" * 50_000, exclude_self=True)
                self.assertEqual(json.loads(wire.message().payload)["data"]["seq"], 1)
                descriptors = self.hub.descriptors()
                if room != way:
                    wire.sock.shutdown(raw.socket.SHUT_WR)
                    await self.await_devices(anna, room, f"{room}-bert", 0)
                wire.reset()
                eventually(lambda: self.hub.descriptors() < descriptors, "the hub has noticed")
                again = await self.client_in(f"{room}-bert", resume=session)
                await self.subscribed(again, room, recovered=True, missed=0, seq=120)
                await anna.publish(room, "the end", exclude_self=True)
                first = (await again.notify("room.message"))["seq"]
                self.assertIn(first, range(2, KERNEL_TAKES // 50_000 + 8))
                await again.read_room(room, first + 1, 121)


class ManyLeftBehind(SessionCase):
    """limits.connections_per_user bounds the sessions without a connection, too."""

    options = {"resume.window": "30m", "limits.connections_per_user": 5}

    async def test_the_oldest_makes_room(self):
        asker = await self.client("left-asker")
        other = await self.client_in("left-other", "left")
        await other.notify("room.subscribed")
        await self.cut(other, asker, "left")
        clients = []
        for _ in range(20):
            clients.append(await self.client_in("left-anna", "left"))
            await clients[-1].notify("room.subscribed")
            await self.cut(clients[-1], asker, "left")
        self.assertEqual(self.hub.metric("ringhub_sessions_detached"), 1 + 5)
        self.assertEqual(self.hub.metric("ringhub_subscriptions"), 1 + 5)
        for client in (other, *clients[-5:]):
            again = await self.resume(client)
            self.assertIs(again.welcome["data"]["resumed"], True)
            await again.close()
        await self.assert_ended(clients[-6])


class EndsAtOnce(SessionCase):
    """What ends a session at once, although the window is long."""

    options = {"resume.window": "30m", "users.max_devices": 3, "limits.invalid_messages": 3}

    async def test_a_goodbye(self):
        watcher, client = await self.open("goodbye")
        await client.close()
        await self.assert_left(watcher, client, "goodbye")

    async def test_replacement_by_the_same_device(self):
        watcher, client = await self.open("replaced", device="phone")
        second = await self.client("replaced", device="phone")
        self.assertIs(second.welcome["data"]["resumed"], False)
        self.assertNotEqual(second.session, client.session)
        self.assertEqual((await client.closed())[0], 4409)
        await self.assert_left(watcher, client, "replaced")

    async def test_too_many_invalid_messages(self):
        watcher, client = await self.open("invalid")
        for _ in range(4):
            await client.send("{")
        self.assertEqual((await client.closed())[0], 4400)
        await self.assert_left(watcher, client, "invalid")

    async def test_a_kick(self):
        watcher, client = await self.open("kicked")
        others = await self.clients(["kicked"] * 3)  # users.max_devices is 3: the oldest goes
        self.assertEqual((await client.closed())[0], 4403)
        for other in others:
            await other.close()
        await self.assert_left(watcher, client, "kicked")

    async def test_a_goodbye_of_one_session_leaves_the_others(self):
        watcher, client = await self.open("other")
        gone, device = await self.clients(["other"] * 2)
        await gone.join("other")
        await device.join("other")
        await self.cut(gone, watcher, "other", left=2)
        await client.close()
        await self.await_devices(watcher, "other", "other", 1)
        await device.close()  # one in its window is left
        await self.await_devices(watcher, "other", "other", 0)
        await self.assert_marker("other", watcher, watcher)
        again = await self.resume(gone)
        self.assertIs(again.welcome["data"]["resumed"], True)
        await self.subscribed(again, "other", members=2)
        await again.close()
        self.assertEqual((await watcher.notify("room.left"))["user"], "other")

    async def test_a_room_that_was_left_does_not_come_back(self):
        watcher, client = await self.open("leaves")
        await client.join("leaves-stays")
        await client.leave("leaves")
        await watcher.notify("room.left")
        await self.cut(client, watcher, "leaves-stays")
        again = await self.resume(client)
        await self.subscribed(again, "leaves-stays", members=1)
        await again.join("leaves")
        await watcher.notify("room.joined")
        await self.assert_marker("leaves", watcher, watcher, again)


class RateLimit(SessionCase):
    options = {"resume.window": "30m", "security.rate_limit.messages_per_second": 20}

    async def test_who_sends_too_much_is_closed_and_its_session_ends(self):
        watcher, client = await self.open("rate")
        try:
            for _ in range(100):
                await client.send({"type": "request", "event": "ping"})
        except websockets.ConnectionClosed:
            pass
        self.assertEqual((await client.closed())[0], 4429)
        await self.assert_left(watcher, client, "rate")


class Window(SessionCase):
    """The end of the window."""

    window = 1.5 * SLOWNESS
    options = {"resume.window": f"{int(window * 1000)}ms"}

    async def test_room_left_comes_when_it_ends_and_then_the_session_is_unknown(self):
        anna, bert = await self.in_room("ends", ["ends-anna", "ends-bert"])
        began = time.monotonic()
        await self.cut(bert, anna, "ends")
        self.assertEqual(await anna.notify("room.left"),
                         {"room": "ends", "user": "ends-bert", "members": 1})
        self.assertGreater(time.monotonic() - began, 0.9 * self.window)
        self.assertEqual([item["user"] for item in await anna.members("ends")], ["ends-anna"])
        self.assertEqual((await anna.publish("ends", 1))["recipients"], 1)
        await anna.read_room("ends", 1, 1)
        other = await self.assert_ended(bert)
        await other.join("ends")
        await anna.notify("room.joined")
        await self.assert_marker("ends", anna, anna, other)

    async def test_who_has_resumed_stays_when_the_first_window_ends(self):
        anna, bert, carl = await self.in_room("stays", ["stays-anna", "stays-bert", "stays-carl"])
        await self.cut(bert, anna, "stays")
        again = await self.resume(bert)
        self.assertIs(again.welcome["data"]["resumed"], True)
        await self.subscribed(again, "stays", members=3)
        await self.cut(carl, anna, "stays")
        left = await anna.notify("room.left")  # later than bert's window, and the only one
        self.assertEqual((left["user"], left["members"]), ("stays-carl", 2))
        await again.notify("room.left")
        await asyncio.sleep(0.3)
        await self.assert_marker("stays", anna, anna, again)

    async def test_another_session_keeps_the_user_in(self):
        anna, one = await self.in_room("keeps", ["keeps-anna", "keeps-bert"])
        other = await self.client("keeps-bert")
        await other.join("keeps")
        carl = await self.client("keeps-carl")
        await carl.join("keeps")
        for client in (anna, other):
            await client.notify("room.joined")
        await self.cut(one, anna, "keeps", left=1)
        await self.cut(carl, anna, "keeps")
        for client in (anna, other):
            self.assertEqual((await client.notify("room.left"))["user"], "keeps-carl")
        await asyncio.sleep(0.3)
        await self.assert_marker("keeps", anna, anna, other)
        self.assertEqual((await anna.members("keeps"))[1]["devices"], 1)

    async def test_the_window_of_the_last_one_empties_the_room(self):
        anna = await self.client("last-anna")
        asker = await self.client("last-asker")
        epoch = (await anna.join("last"))["epoch"]
        await self.cut(anna, asker, "last")

        async def empty():
            return not await asker.members("last")

        await eventually_true(empty, "the room is empty")
        self.assertEqual(await asker.join("last"),
                         {"room": "last", "members": 1, "seq": 0, "epoch": epoch})


class NoWindow(SessionCase):
    options = {"resume.window": "0"}

    async def test_a_session_ends_with_its_connection(self):
        anna, bert = await self.in_room("none", ["none-anna", "none-bert"])
        bert.cut()
        self.assertEqual(await anna.notify("room.left"),
                         {"room": "none", "user": "none-bert", "members": 1})
        await self.assert_ended(bert)

    async def test_a_takeover_still_works(self):
        anna, bert = await self.in_room("live", ["live-anna", "live-bert"])
        again = await self.resume(bert)
        self.assertEqual((again.session, again.welcome["data"]["resumed"]), (bert.session, True))
        await self.subscribed(again, "live", members=2)
        self.assertEqual((await bert.closed())[0], 4409)
        await self.assert_marker("live", anna, anna, again)


if __name__ == "__main__":
    unittest.main()
