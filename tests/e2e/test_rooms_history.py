"""A room's life in numbers: seq and epoch, history, and what somebody missed (PROTOCOL 4).

Every recovery is checked to the message: which ones come, in what order, none of them twice, and
that the next live one follows. A publisher that has no place in a room has the role admin.
"""

import asyncio
import contextlib
import json
import random
import time
import unittest

import raw
from clients import (ClientCase, envelope, eventually_true, open_at, open_client, path_with_rooms,
                     place)
from hub import DEADLINE, SLOWNESS, Hub
from test_priority import BIG, KERNEL_TAKES


class HistoryCase(ClientCase):

    async def filled(self, room, count, keep=False):
        """An admin who has published `count` messages, and the room's epoch. With keep=False there
        is no member."""
        admin = await self.client(f"{room}-admin", role="admin")
        epoch = (await admin.join(room))["epoch"]
        if not keep:
            await admin.leave(room)
        await admin.publish_row(room, list(range(1, count + 1)))
        if keep:
            await admin.read_room(room, 1, count)
        return admin, epoch

    def assert_recovery(self, data, recovered, missed):
        self.assertEqual((data["recovered"], data["missed"]), (recovered, missed), data)

    async def assert_follows(self, client, admin, room, first, last):
        """The client gets exactly the messages first..last, `last` being the newest one, and then
        the next one."""
        self.assertEqual((await admin.publish(room, "marker"))["seq"], last + 1)
        row = await client.read_room(room, first, last)
        self.assertEqual((await client.read_room(room, last + 1, last + 1))[0]["content"], "marker")
        return row

    @contextlib.asynccontextmanager
    async def publishing(self, room):
        """Four clients publish all the time into a new room; after them comes a message "end"."""
        async def publish(client):
            while not over:
                await client.publish_row(room, [client.user] * 10)
                await asyncio.sleep(0.01)  # others share this loop

        over = []
        clients = [await self.client(f"{room}-p{number}", role="admin") for number in range(4)]
        await clients[0].ask("room.create", {"room": room})
        tasks = [asyncio.ensure_future(publish(client)) for client in clients]
        try:
            yield clients[0]
        finally:
            over.append(True)
            await asyncio.gather(*tasks)
        await clients[0].publish(room, "end")

    async def next_message(self, client):
        """The next room.message; others may come and go meanwhile."""
        while (got := await client.receive())["event"] in ("room.joined", "room.left"):
            pass
        self.assertEqual(got["event"], "room.message")
        return got["data"]

    def take_aside(self, client, last):
        """Takes what came before an answer: a row behind `last`; the last one."""
        while client.aside:
            got = client.aside.popleft()
            if got["event"] not in ("room.joined", "room.left"):
                self.assertEqual((got["event"], got["data"]["seq"]), ("room.message", last + 1))
                last += 1
        return last

    async def read_until(self, client, last, seq=None):
        """Reads on behind `last` without a gap until a seq, or to the end; the last one."""
        while seq is None or last < seq:
            got = await self.next_message(client)
            self.assertEqual(got["seq"], last + 1)
            last = got["seq"]
            if got["content"] == "end":
                break
        return last


class History(HistoryCase):
    options = {"rooms.history_size": 150}

    async def test_items_are_the_messages_as_they_were_told(self):
        anna, bert = await self.in_room("items", ["items-anna", "items-bert"])
        await anna.publish("items", {"a": [1, "é"]}, key="k", priority="high", id="given")
        await bert.publish("items", "x")
        await anna.publish("items", None, priority="low")
        told = await bert.read_room("items", 1, 3)
        epoch = (await anna.join("items"))["epoch"]
        answer = await anna.request("room.history", {"room": "items"})
        self.assertEqual((answer["type"], answer["code"]), ("response", 200))
        self.assertEqual(answer["data"], {"items": told, "seq": 3, "epoch": epoch})

    async def test_content_is_handed_on_byte_for_byte(self):
        anna = await self.client("hbytes-anna")
        await anna.join("hbytes")
        contents = ['1.50', '-0', '1E+05', r'"\u00e9\/"', '{"a":1,"a":2}', '[ 1 ,\t2 ]']
        for content in contents:
            await anna.send('{"type":"request","event":"room.publish","request_id":"p","data":'
                            '{"room":"hbytes","content":%s}}' % content)
            await anna.answer("p")
        await anna.read_room("hbytes", 1, len(contents))
        await anna.request("room.history", {"room": "hbytes"})
        for content in contents:
            self.assertIn('"content":' + content, anna.last_text)

    async def test_limit_and_since(self):
        admin, _ = await self.filled("limit", 160)
        await admin.join("limit")
        for more, first, last in (
                ({}, 61, 160), ({"limit": 1}, 160, 160), ({"limit": 1000}, 11, 160),
                ({"since": 0}, 11, 110), ({"since": 9}, 11, 110), ({"since": 10}, 11, 110),
                ({"since": 11}, 12, 111), ({"since": 20, "limit": 5}, 21, 25),
                ({"since": 0, "limit": 1000}, 11, 160), ({"since": 159}, 160, 160),
                ({"since": 160}, 1, 0), ({"since": 1000}, 1, 0), ({"since": 100}, 101, 160)):
            data = await admin.history("limit", **more)
            self.assertEqual([item["seq"] for item in data["items"]],
                             list(range(first, last + 1)), more)
            self.assertEqual([item["content"] for item in data["items"]],
                             list(range(first, last + 1)), more)
            self.assertEqual(data["seq"], 160)

    async def test_an_empty_one(self):
        anna = await self.client("empty-anna")
        epoch = (await anna.join("empty"))["epoch"]
        for more in ({}, {"since": 0}, {"since": 5, "limit": 10}):
            self.assertEqual(await anna.history("empty", **more),
                             {"items": [], "seq": 0, "epoch": epoch})

    async def test_members_only(self):
        anna, bert = await self.in_room("members", ["hm-anna", "hm-bert"])
        device, carl = await self.clients(["hm-bert", "hm-carl"])
        self.assertEqual((await device.history("members"))["seq"], 0)  # its user is a member
        await bert.leave("members")
        for client in (bert, device, carl):
            answer = await client.request("room.history", {"room": "members"})
            self.assert_error(answer, 403, "forbidden")
        answer = await anna.request("room.history", {"room": "members-unknown"})
        self.assert_error(answer, 404, "not_found")

    async def test_bad_requests(self):
        anna = await self.client("badhist-anna")
        await anna.join("badhist")
        await self.assert_bad_names(anna, "room.history")
        await self.assert_bad_requests(anna, "room.history", {
            f"{name} {value}": '{"room":"badhist","%s":%s}' % (name, value)
            for name, value in (("limit", "0"), ("limit", "1001"), ("limit", "-1"),
                                ("limit", "1.5"), ("limit", '"5"'), ("since", "-1"),
                                ("since", '"1"'), ("since", "0.5"), ("since", "[]"))})


class Recovery(HistoryCase):
    options = {"rooms.history_size": 50}

    async def test_missed_messages_follow_the_answer_and_newer_ones_follow_them(self):
        for since in (59, 58, 40, 11, 10):
            with self.subTest(since):
                room = f"reach-{since}"
                admin, epoch = await self.filled(room, 60)
                anna = await self.client("reach-anna")
                await anna.send({"type": "request", "event": "room.join", "request_id": room,
                                 "data": {"room": room, "since": since, "epoch": epoch}})
                answer = await anna.receive()  # before any of them
                self.assertEqual((answer["type"], answer.get("request_id")), ("response", room))
                self.assertEqual(answer["data"], {"room": room, "members": 1, "seq": 60,
                                                  "epoch": epoch, "recovered": True, "missed": 0})
                for data in await self.assert_follows(anna, admin, room, since + 1, 60):
                    self.assertNotIn("epoch", data)
                    self.assertEqual((data["from"], data["content"]), (admin.user, data["seq"]))
                await anna.close()

    async def test_the_edge_of_what_history_reaches(self):
        for room, since, missed in (("edge-1", 11, 0), ("edge-2", 10, 0), ("edge-3", 9, 1),
                                    ("edge-4", 0, 10)):
            with self.subTest(since=since):
                admin, _ = await self.filled(room, 60)
                anna = await self.client("edge-anna")
                self.assert_recovery(await anna.join(room, since=since), missed == 0, missed)
                await self.assert_follows(anna, admin, room, max(since, 10) + 1, 60)

    async def test_who_has_everything_gets_nothing(self):
        admin, epoch = await self.filled("nothing", 5)
        anna = await self.client("nothing-anna")
        self.assert_recovery(await anna.join("nothing", since=5, epoch=epoch), True, 0)
        await self.assert_follows(anna, admin, "nothing", 6, 5)

    async def test_recovered_messages_are_the_messages_as_they_were_told(self):
        anna, bert = await self.in_room("as-told", ["astold-anna", "astold-bert"])
        await bert.publish("as-told", {"a": [1, "é"]}, key="k", priority="high", id="given")
        await anna.publish("as-told", "x", priority="low")
        told = await anna.read_room("as-told", 1, 2)
        carl = await self.client("astold-carl")
        await carl.join("as-told", since=0)
        self.assertEqual(await carl.read_room("as-told", 1, 2), told)

    async def test_without_since_nothing_of_the_past_comes(self):
        admin, epoch = await self.filled("past", 5)
        anna, bert = await self.clients(["past-anna", "past-bert"])
        data = await anna.join("past")
        self.assertFalse({"recovered", "missed"} & set(data))
        data = await bert.join("past", epoch=epoch)
        self.assertFalse({"recovered", "missed"} & set(data))
        await self.assert_follows(bert, admin, "past", 6, 5)

    async def test_beyond_the_rooms_seq_nothing_follows(self):
        for number, since in enumerate((6, 1000, 2 ** 53 - 1)):
            for given in (True, False):
                with self.subTest(since=since, epoch=given):
                    room = f"beyond-{number}-{given}"
                    admin, epoch = await self.filled(room, 5)
                    anna = await self.client("beyond-anna")
                    more = {"epoch": epoch} if given else {}
                    self.assert_recovery(await anna.join(room, since=since, **more), False, 0)
                    await self.assert_follows(anna, admin, room, 6, 5)
                    await anna.close()

    async def test_another_epoch_brings_what_there_is(self):
        """Numbers of another life mean nothing, whether they are smaller or larger than ours."""
        for number, since in enumerate((0, 3, 5, 100)):
            with self.subTest(since=since):
                room = f"epochs-{number}"
                admin, epoch = await self.filled(room, 5)
                other = epoch[:-1] + ("0" if epoch[-1] != "0" else "1")
                anna = await self.client("epochs-anna")
                data = await anna.join(room, since=since, epoch=other)
                self.assert_recovery(data, False, 0)
                self.assertEqual(data["epoch"], epoch)
                await self.assert_follows(anna, admin, room, 1, 5)

    async def test_another_epoch_of_any_form(self):
        admin, _ = await self.filled("forms", 3)
        for other in ("a", "A-Z_09", "x" * 32):
            with self.subTest(other):
                anna = await self.client("forms-anna")
                data = await anna.join("forms", since=1, epoch=other)
                self.assert_recovery(data, False, 0)
                await anna.read_room("forms", 1, 3)
                await anna.close()

    async def test_without_epoch_the_number_alone_counts(self):
        admin, _ = await self.filled("alone", 5)
        await admin.ask("room.delete", {"room": "alone"})
        admin, _ = await self.filled("alone", 4)
        anna = await self.client("alone-anna")
        self.assert_recovery(await anna.join("alone", since=2), True, 0)
        await self.assert_follows(anna, admin, "alone", 3, 4)

    async def test_a_new_room(self):
        anna, bert = await self.clients(["new-anna", "new-bert"])
        self.assert_recovery(await anna.join("new-1", since=0), True, 0)
        self.assert_recovery(await anna.join("new-2", since=7), False, 0)
        self.assert_recovery(await anna.join("new-3", since=7, epoch="0" * 16), False, 0)
        for room in ("new-1", "new-2", "new-3"):
            await anna.publish(room, 1)
            await anna.read_room(room, 1, 1)

    async def test_who_is_in_may_join_again_and_gets_them_again(self):
        admin, epoch = await self.filled("twice", 5)
        anna = await self.client("twice-anna")
        await anna.join("twice", since=0)
        await anna.read_room("twice", 1, 5)
        data = await anna.join("twice", since=2, epoch=epoch)
        self.assert_recovery(data, True, 0)
        self.assertEqual((data["members"], data["seq"]), (1, 5))
        await self.assert_follows(anna, admin, "twice", 3, 5)

    async def test_each_session_recovers_for_itself(self):
        admin, _ = await self.filled("sess", 5)
        one, other = await self.clients(["sess-anna"] * 2)
        await one.join("sess")
        self.assert_recovery(await other.join("sess", since=3), True, 0)
        await admin.publish("sess", "marker")
        await one.read_room("sess", 6, 6)
        await other.read_room("sess", 4, 6)

    async def test_an_excluded_user_does_not_get_it_by_recovery_either(self):
        anna, bert = await self.in_room("excl", ["excl-anna", "excl-bert"])
        await anna.publish("excl", 1)
        await anna.publish("excl", 2, exclude_self=True)
        await anna.publish("excl", 3)
        await anna.publish("excl", 4, exclude_self=True)
        device = await self.client("excl-anna")
        data = await device.join("excl", since=0)
        self.assert_recovery(data, True, 0)
        self.assertEqual(data["seq"], 4)
        await bert.publish("excl", "marker")
        for seq in (1, 3, 5):
            await device.read_room("excl", seq, seq)
            await anna.read_room("excl", seq, seq)
        carl = await self.client("excl-carl")
        await carl.join("excl", since=0)
        await carl.read_room("excl", 1, 5)

    async def test_history_goes_on_while_nobody_is_there(self):
        admin, epoch = await self.filled("nobody", 3)
        anna = await self.client("nobody-anna")
        first = await anna.join("nobody", since=1)
        self.assertEqual((first["epoch"], first["members"]), (epoch, 1))
        await anna.read_room("nobody", 2, 3)
        await anna.close()
        self.assertEqual((await admin.publish("nobody", 4))["recipients"], 0)
        again = await self.client_in("nobody-anna", place("nobody", 3, epoch))
        told = await again.notify("room.subscribed")
        self.assert_recovery(told, True, 0)
        self.assertEqual((told["seq"], told["epoch"]), (4, epoch))
        await self.assert_follows(again, admin, "nobody", 4, 4)

    async def test_at_connect_the_same_rules_hold(self):
        for number, (since, given, recovered, missed, first) in enumerate((
                (57, "own", True, 0, 58), (57, None, True, 0, 58), (10, "own", True, 0, 11),
                (5, "own", False, 5, 11), (5, None, False, 5, 11), (57, "other", False, 0, 11),
                (160, "other", False, 0, 11), (160, "own", False, 0, 61),
                (60, "own", True, 0, 61))):
            with self.subTest(since=since, epoch=given):
                room = f"at-{number}"
                admin, epoch = await self.filled(room, 60)
                anna = await self.client_in("at-anna", place(
                    room, since, {"own": epoch, "other": "other", None: None}[given]))
                told = await anna.notify("room.subscribed")
                self.assertEqual(told, {"room": room, "members": 1, "seq": 60, "epoch": epoch,
                                        "recovered": recovered, "missed": missed})
                await self.assert_follows(anna, admin, room, first, 60)
                await anna.close()


class Meanwhile(HistoryCase):
    """Exact also while others publish."""

    options = {"rooms.history_size": 100_000, "limits.send_queue_messages": 60_000,
               "limits.send_queue_bytes": "64MiB"}

    async def test_who_comes_with_since_misses_nothing_and_gets_nothing_twice(self):
        first = await self.client("come-first")
        turn = asyncio.Lock()
        dice = random.Random(1)

        async def come(number):
            """Comes at some moment, by a request or at connect, and stays."""
            await asyncio.sleep(dice.uniform(0, 0.3))
            async with turn:
                now = await first.history("come", limit=1)
            since = dice.randint(0, now["seq"])
            if number % 2:
                client = await self.client(f"come-{number}")
                data = await client.join("come", since=since, epoch=now["epoch"])
            else:
                client = await self.client_in(f"come-{number}", place("come", since, now["epoch"]))
                data = await client.notify("room.subscribed")
            self.assert_recovery(data, True, 0)
            self.assertGreaterEqual(data["seq"], now["seq"])
            return client, since, await self.read_until(client, since, data["seq"] + 20)

        async with self.publishing("come"):
            await first.join("come")
            came = []
            for batch in range(3):
                came += await asyncio.gather(*map(come, range(batch * 6, batch * 6 + 6)))
        ends = {await self.read_until(client, last) for client, _, last in came}
        self.assertEqual(len(ends), 1)
        self.assertTrue(any(since for _, since, _ in came))

    async def test_who_leaves_and_comes_back_again_and_again_has_a_row_without_gaps(self):
        dice = random.Random(2)

        async def flap(number):
            client, last = await self.client(f"flap-{number}"), 0
            for _ in range(12):
                data = await client.join("flap", since=last)
                self.assert_recovery(data, True, 0)
                last = await self.read_until(client, last, last + dice.randint(1, 100))
                left = await client.leave("flap")
                last = self.take_aside(client, last)
                self.assertEqual(last, left["seq"])  # all of its time, and no more
            return client, last

        async with self.publishing("flap"):
            flapped = await asyncio.gather(*map(flap, range(6)))
        for client, last in flapped:
            self.assert_recovery(await client.join("flap", since=last), True, 0)
            await self.read_until(client, last)

    async def test_who_joins_again_with_since_while_inside_loses_nothing(self):
        """The missed ones come again, in order, and the live ones behind them: never a hole."""
        async with self.publishing("rejoin"):
            client = await self.client("rejoin-anna")
            last = (await client.join("rejoin"))["seq"]
            for _ in range(10):
                last = await self.read_until(client, last, last + 200)
                since = last - 150
                data = await client.join("rejoin", since=since)
                self.assert_recovery(data, True, 0)
                last = self.take_aside(client, last)  # it goes on until the answer
                self.assertLessEqual(last, data["seq"])
                last = since
        await self.read_until(client, last)


class Forgetting(HistoryCase):
    """A short history, which moves on while somebody comes."""

    options = {"rooms.history_size": 20, "limits.send_queue_messages": 60_000,
               "limits.send_queue_bytes": "64MiB"}

    async def test_missed_is_exact_while_others_publish(self):
        async def come(number):
            client = await self.client(f"forget-{number}")
            data = await client.join("forget", since=number)
            missed = max(0, data["seq"] - 20 - number)
            self.assert_recovery(data, not missed, missed)
            last = await self.read_until(client, number + missed, data["seq"] + 20)
            return client, last, missed

        async with self.publishing("forget"):
            watcher = await self.client("forget-watcher")
            last = (await watcher.join("forget"))["seq"]
            last = await self.read_until(watcher, last, 40)
            came = [await come(number) for number in range(10)]
            came += await asyncio.gather(*map(come, range(10, 20)))
        ends = {await self.read_until(client, last) for client, last, _ in came}
        ends.add(await self.read_until(watcher, last))
        self.assertEqual(len(ends), 1)
        self.assertTrue(all(missed for *_, missed in came), "history was never too short")

    async def test_no_history_at_all(self):
        with Hub({"rooms.history_size": 0}) as hub:
            anna = await open_client(hub, "none-anna")
            await anna.join("none")
            await anna.publish_row("none", [1, 2, 3])
            await anna.read_room("none", 1, 3)
            self.assertEqual((await anna.history("none"))["items"], [])
            self.assert_recovery(await anna.join("none", since=3), True, 0)
            self.assert_recovery(await anna.join("none", since=1), False, 2)
            await anna.publish("none", "marker")
            await anna.read_room("none", 4, 4)
            await anna.close()


class AtItsPace(HistoryCase):
    """Missed messages come at the client's pace and don't count in the bounds of its queue."""

    options = {"rooms.history_size": 5000}  # limits.send_queue_messages is 256, _bytes 1 MiB

    async def test_a_slow_reader_gets_a_long_history_and_what_is_new_behind_it(self):
        admin, _ = await self.filled("pace", 0)
        content = "x" * 8000
        count = 2 * KERNEL_TAKES // len(content) + 400
        for begin in range(0, count, 100):
            await admin.publish_row("pace", [content] * 100)
        count = (await admin.join("pace"))["seq"]
        await admin.leave("pace")
        before = self.hub.metrics().get('ringhub_disconnects_total{code="4408"}', 0)
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade(path_with_rooms("pace-anna", place("pace", 0)))
        self.assertEqual(envelope(wire.message().payload.decode())["event"], "welcome")
        told = envelope(wire.message().payload.decode())
        self.assertEqual(told["event"], "room.subscribed")
        self.assertEqual(told["data"]["seq"], count)
        self.assert_recovery(told["data"], True, 0)
        for _ in range(100):  # while it does not read
            await admin.publish("pace", "new")
        for seq in range(1, count + 101):
            data = json.loads(wire.message().payload)["data"]
            self.assertEqual((data["seq"], data["content"]),
                             (seq, content if seq <= count else "new"))
        after = self.hub.metrics().get('ringhub_disconnects_total{code="4408"}', 0)
        self.assertEqual(after, before)

    async def test_it_can_leave_in_the_middle(self):
        """What has not been sent of the past need not come, and nothing comes after the answer."""
        admin, _ = await self.filled("middle", 0)
        for _ in range(20):
            await admin.publish_row("middle", ["x" * 8000] * 100)
        anna = await self.client("middle-anna")
        await anna.send({"type": "request", "event": "room.join", "request_id": "in",
                         "data": {"room": "middle", "since": 0}})
        await anna.send({"type": "request", "event": "room.leave", "request_id": "out",
                         "data": {"room": "middle"}})
        joined, left = await anna.answer("in"), await anna.answer("out")
        self.assertEqual((joined["code"], left["code"]), (200, 200))
        seqs = [got["data"]["seq"] for got in anna.aside]
        self.assertEqual(seqs, list(range(1, len(seqs) + 1)))
        anna.aside.clear()
        seq = (await anna.join("middle"))["seq"]
        await admin.publish("middle", "marker")
        await anna.read_room("middle", seq + 1, seq + 1)


class HistoryTtl(HistoryCase):
    options = {"rooms.history_ttl": "600ms"}

    async def test_old_messages_are_gone(self):
        admin, epoch = await self.filled("ttl", 3, keep=True)

        async def gone():
            return not (await admin.history("ttl"))["items"]

        await eventually_true(gone, "history_ttl")
        data = await admin.history("ttl", since=0)
        self.assertEqual(data, {"items": [], "seq": 3, "epoch": epoch})
        anna, bert = await self.clients(["ttl-anna", "ttl-bert"])
        self.assert_recovery(await anna.join("ttl", since=1), False, 2)
        self.assert_recovery(await bert.join("ttl", since=3), True, 0)
        await anna.notify("room.joined")
        await bert.publish("ttl", "marker")
        for client in (anna, bert):
            await client.read_room("ttl", 4, 4)

    async def test_each_goes_when_its_own_time_has_come(self):
        admin, _ = await self.filled("own", 1, keep=True)
        end, first = time.monotonic() + DEADLINE, 1
        while first < 5:
            self.assertLess(time.monotonic(), end, "they stay")
            await admin.publish("own", 1)
            asked = time.time() * 1000
            items = (await admin.history("own"))["items"]
            if items:  # but for a machine that takes longer for two requests
                first = items[0]["seq"]
                self.assertEqual([item["seq"] for item in items],
                                 list(range(first, first + len(items))))
                self.assertLess(asked - items[0]["created_at"], 600 + 1_000 * SLOWNESS)
            await asyncio.sleep(0.05)


class EmptyTtl(HistoryCase):
    options = {"rooms.empty_ttl": "500ms", "resume.window": "0"}

    async def until_gone(self, client, room):
        async def gone():
            got = await client.request("room.members", {"room": room})
            if got["type"] == "error":
                self.assert_error(got, 404, "not_found")
                return True
        await eventually_true(gone, f"{room} is gone")

    async def test_an_empty_room_goes_and_the_next_one_is_another(self):
        anna, bert = await self.clients(["ettl-anna", "ettl-bert"])
        first = await anna.join("ettl")
        await anna.publish_row("ettl", [1, 2])
        await anna.leave("ettl")
        await self.until_gone(bert, "ettl")
        second = await bert.join("ettl", since=1, epoch=first["epoch"])
        self.assertEqual((second["seq"], second["members"]), (0, 1))
        self.assertNotEqual(second["epoch"], first["epoch"])
        self.assert_recovery(second, False, 0)
        self.assertEqual((await bert.publish("ettl", 1))["seq"], 1)
        await bert.read_room("ettl", 1, 1)

    async def test_created_ones_and_those_of_who_went_away_too(self):
        anna, bert = await self.clients(["made-anna", "made-bert"])
        await anna.ask("room.create", {"room": "ettl-made", "meta": {"a": 1}})
        await bert.join("ettl-bye")
        await bert.close()
        for room in ("ettl-made", "ettl-bye"):
            await self.until_gone(anna, room)
            await anna.ask("room.create", {"room": room})
            self.assertNotIn("meta", await anna.join(room))

    async def test_a_room_with_a_member_stays_and_so_does_one_that_is_empty_for_moments(self):
        anna, bert = await self.clients(["estay-anna", "estay-bert"])
        epoch = (await anna.join("estay"))["epoch"]
        seq, left, before = 0, None, None
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            await anna.publish("estay", 1)
            seq += 1
            data = await bert.join("estay-moments")
            if left is not None and time.monotonic() - left < 0.4:
                self.assertEqual(data["epoch"], before)
            before, left = data["epoch"], time.monotonic()
            await bert.leave("estay-moments")
            await asyncio.sleep(0.02)
        data = await anna.join("estay")
        self.assertEqual((data["epoch"], data["seq"]), (epoch, seq))


class Epochs(HistoryCase):

    async def test_a_restart_begins_a_new_epoch(self):
        epochs = []
        for _ in range(3):
            with Hub() as hub:
                client = await open_at(hub, path_with_rooms(
                    "restarted", place("restart", 2, epochs[-1]) if epochs else "restart"))
                told = await client.notify("room.subscribed")
                if epochs:
                    self.assert_recovery(told, False, 0)
                self.assertEqual(told["seq"], 0)
                epochs.append(told["epoch"])
                await client.publish_row("restart", [1, 2, 3])
                await client.read_room("restart", 1, 3)
                await client.close()
        self.assertEqual(len(set(epochs)), 3)

    async def test_epochs_are_never_the_same(self):
        admin = await self.client("lives-admin", role="admin")
        epochs = []
        for _ in range(20):
            for room in ("lives-1", "lives-2", "lives-3", "lives-4", "lives-5"):
                epochs.append((await admin.join(room))["epoch"])
                await admin.ask("room.delete", {"room": room})
        self.assertEqual(len(set(epochs)), 100)

    async def test_a_deleted_room_keeps_nothing(self):
        admin, epoch = await self.filled("kept", 5)
        await admin.ask("room.delete", {"room": "kept"})
        data = await admin.join("kept", since=2, epoch=epoch)
        self.assert_recovery(data, False, 0)
        self.assertEqual(await admin.history("kept"),
                         {"items": [], "seq": 0, "epoch": data["epoch"]})
        await admin.publish("kept", "marker")
        await admin.read_room("kept", 1, 1)


class Conflate(HistoryCase):
    """limits.slow_consumer: conflate. Of a room that conflates the newest of each key arrives."""

    options = {"limits.slow_consumer": "conflate", "limits.send_queue_messages": 64,
               "limits.send_queue_bytes": "64MiB", "limits.send_timeout": "120s"}

    async def slow_member(self, room, conflate):
        """An admin, and a wire that does not read any more: a send to it is blocked."""
        admin = await self.client(f"{room}-admin", role="admin")
        await admin.ask("room.create", {"room": room, "conflate": conflate})
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade(path_with_rooms(f"{room}-slow", room))
        for event in ("welcome", "room.subscribed"):
            self.assertEqual(envelope(wire.message().payload.decode())["event"], event)
        for number in range(KERNEL_TAKES // len(BIG) + 6):
            await admin.publish(room, BIG, key=f"big-{number}")
        return admin, wire

    def read(self, wire, room, last):
        """Reads until seq `last`: the messages' data; what is missing is told, before what follows
        it, once, and nothing else is."""
        expected, rows, lost = 1, [], 0
        while expected <= last:
            got = envelope(wire.message().payload.decode())
            data = got["data"]
            self.assertEqual(data["room"], room)
            if got["event"] == "messages.lost":
                self.assertEqual(data["from_seq"], expected, data)
                self.assertEqual(data["count"], data["to_seq"] - data["from_seq"] + 1, data)
                self.assertGreater(data["count"], 0)
                expected = data["to_seq"] + 1
                lost += data["count"]
            else:
                self.assertEqual((got["event"], data["seq"]), ("room.message", expected))
                expected += 1
                rows.append(data)
        self.assertEqual(expected, last + 1)
        self.assertGreater(lost, 0, "nothing was lost: the test shows nothing")
        return rows

    async def test_the_newest_of_each_key_arrives(self):
        admin, wire = await self.slow_member("prices", True)
        answers = []
        for number in range(400):
            answers.append(await admin.publish("prices", number, key=f"key-{number % 10}"))
        newest = {f"key-{number % 10}": number for number in range(400)}
        rows = [data for data in self.read(wire, "prices", answers[-1]["seq"])
                if data["content"] != BIG]
        self.assertEqual({data["key"]: data["content"] for data in rows}, newest)
        self.assertLess(len(rows), 200)

    async def test_without_a_key_and_in_other_rooms_the_oldest_goes(self):
        for room, conflate, key in (("keyless", True, {}), ("plain", False, {"key": "same"})):
            with self.subTest(room):
                admin, wire = await self.slow_member(room, conflate)
                answers = [await admin.publish(room, number, **key) for number in range(400)]
                rows = [data["content"] for data in self.read(wire, room, answers[-1]["seq"])
                        if data["content"] != BIG]
                self.assertEqual(rows[-50:], list(range(350, 400)))  # the queue holds 64

    async def test_who_reads_gets_them_all(self):
        anna = await self.client("reads-anna")
        await anna.ask("room.create", {"room": "reads", "conflate": True})
        await anna.join("reads")
        for number in range(200):
            await anna.publish("reads", number, key="k")
        await anna.read_room("reads", 1, 200)


if __name__ == "__main__":
    unittest.main()
