"""Messages for users who are not connected (PROTOCOL 4): kept, in order, bounded, and durable."""

import asyncio
import os
import signal
import tempfile
import unittest

from clients import OwedCase, open_client
from hub import Hub


class Kept(OwedCase):

    options = {"ack.timeout": "1h", "ack.max_delay": "1h", "offline.max_messages": "5"}

    async def test_ten_users_get_theirs_in_order_and_once(self):
        sender = await self.client("kept-a")
        for number in range(5):
            for user in range(10):
                answer = await sender.send_message(f"kept-{user}", [user, number], id=f"k{user}.{number}")
                self.assertEqual(answer, {"id": f"k{user}.{number}", "status": "stored"})
        for user in range(10):
            client = await self.client(f"kept-{user}")
            rows = [await client.message() for _ in range(5)]
            self.assertEqual([row["content"] for row in rows], [[user, n] for n in range(5)])
            self.assertEqual([row["seq"] for row in rows], sorted({row["seq"] for row in rows}))
            self.assertEqual({(row["ack"], row["attempt"]) for row in rows}, {(False, 1)})
            await client.quiet()
            again = await self.client(f"kept-{user}")
            await again.quiet()
        await self.settled()

    async def test_acknowledged_ones_are_kept_and_come_until_acknowledged(self):
        sender = await self.client("kack-a")
        answer = await self.send_ack(sender, "kack-b", 1)
        self.assertEqual(answer["status"], "stored")
        for attempt in (1, 2, 3):
            receiver = await self.client("kack-b")
            self.assertEqual((await receiver.message())["attempt"], attempt)
            await self.gone(receiver)
        receiver = await self.client("kack-b")
        await receiver.message()
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")
        await self.settled()

    async def test_what_was_kept_comes_before_what_is_live(self):
        sender = await self.client("live-a")
        for number in range(5):
            await sender.send_message("live-b", number)
        receiver = await self.client("live-b")
        for number in range(5, 20):
            await sender.send_message("live-b", number)
        self.assertEqual([(await receiver.message())["content"] for _ in range(20)], list(range(20)))

    async def test_the_oldest_plain_one_goes_and_that_is_told(self):
        sender = await self.client("old-a")
        kept = await self.send_ack(sender, "old-b", "ack")
        for number in range(6):
            self.assertEqual((await sender.send_message("old-b", number))["status"], "stored")
        receiver = await self.client("old-b")
        self.assertEqual((await receiver.message())["content"], "ack")
        lost = await receiver.notify("messages.lost")
        self.assertEqual(lost["count"], 2)
        rows = [await receiver.message() for _ in range(4)]
        self.assertEqual([row["content"] for row in rows], [2, 3, 4, 5])
        self.assertLess(lost["to_seq"], rows[0]["seq"])
        self.assertLessEqual(lost["from_seq"], lost["to_seq"])
        await receiver.quiet()
        await self.ack(receiver, kept["id"])
        await self.settled()

    async def test_a_loss_is_told_also_when_all_that_was_kept_has_expired(self):
        sender = await self.client("gone-a")
        for number in range(7):
            answer = await sender.send_message("gone-b", number, ttl_ms=500)
            self.assertEqual(answer["status"], "stored")
        await self.settled()
        receiver = await self.client("gone-b")
        self.assertEqual((await receiver.notify("messages.lost"))["count"], 2)
        await receiver.quiet()
        again = await self.client("gone-b")
        await again.quiet()

    async def test_when_all_want_an_acknowledgement_the_new_one_is_refused(self):
        sender = await self.client("full-a")
        ids = [(await self.send_ack(sender, "full-b", n))["id"] for n in range(5)]
        for more in ({"ack": True}, {}):
            got = await sender.request("message.send", {"to": "full-b", "content": "new", **more})
            self.assert_error(got, 429, "queue_full")
        receiver = await self.client("full-b")
        self.assertEqual([(await receiver.message())["content"] for _ in range(5)], list(range(5)))
        await receiver.quiet()
        await self.ack(receiver, *ids)
        await self.settled()

    async def test_it_ends_at_its_time(self):
        sender = await self.client("exp-a")
        gone = await sender.send_message("exp-b", "gone", ttl_ms=100)
        ended = await self.send_ack(sender, "exp-b", "gone, too", ttl_ms=100)
        stays = await sender.send_message("exp-b", "stays")
        self.assertEqual({gone["status"], ended["status"], stays["status"]}, {"stored"})
        await self.status(sender, ended["id"], "expired", "expired")
        await asyncio.sleep(0.2)
        receiver = await self.client("exp-b")
        self.assertEqual((await receiver.message())["content"], "stays")
        await receiver.quiet()

    async def test_one_device_takes_it(self):
        sender = await self.client("dev-a")
        await sender.send_message("dev-b", 1)
        first = await self.client("dev-b")
        self.assertEqual((await first.message())["content"], 1)
        second = await self.client("dev-b")
        await second.quiet()

    async def test_broadcasts_and_plain_room_messages_are_not_kept(self):
        admin = await self.client("bc-a", role="admin")
        gone = await self.client("bc-b")
        await gone.join("bc-room")
        await self.gone(gone)
        await admin.ask("broadcast", {"content": "all"})
        await admin.publish("bc-room", "room")
        back = await self.client("bc-b")
        await back.quiet()


class Pace(OwedCase):

    options = {"offline.max_messages": "3000", "limits.send_queue_messages": "8"}

    async def test_a_long_queue_comes_at_the_clients_pace(self):
        sender = await self.client("pace-a")
        count, text = 2000, "x" * 2000
        for first in range(0, count, 100):
            requests = [asyncio.ensure_future(sender.send(
                {"type": "request", "event": "message.send", "request_id": f"p{n}",
                 "data": {"to": "pace-b", "content": [n, text]}})) for n in range(first, first + 100)]
            await asyncio.gather(*requests)
            for number in range(first, first + 100):
                self.assertEqual((await sender.answer(f"p{number}"))["data"]["status"], "stored")
        receiver = await self.client("pace-b", how={"max_queue": 1})
        await asyncio.sleep(0.3)
        self.assertLess(self.hub.metric("ringhub_send_queue_messages"), 200)
        for number in range(count):
            self.assertEqual((await receiver.message())["content"], [number, text])
            if number % 400 == 0:
                await asyncio.sleep(0.02)
        await receiver.quiet()
        await self.settled()


class Bounds(OwedCase):

    options = {"offline.max_total": "4"}

    async def test_all_users_together_have_a_bound(self):
        sender = await self.client("total-a")
        for number in range(4):
            await sender.send_message(f"total-{number}", number)
        got = await sender.request("message.send", {"to": "total-9", "content": 9})
        self.assert_error(got, 429, "queue_full")
        receiver = await self.client("total-0")
        await receiver.message()
        await receiver.quiet()
        self.assertEqual((await sender.send_message("total-9", 9))["status"], "stored")


class Off(OwedCase):

    options = {"offline.enabled": "false"}

    async def test_nothing_is_kept(self):
        sender, receiver = await self.clients(["off-a", "off-b"])
        for more in ({}, {"ack": True}):
            got = await sender.request("message.send", {"to": "off-c", "content": 1, **more})
            self.assert_error(got, 409, "user_offline")
        answer = await self.send_ack(sender, "off-b", "owed")  # it was connected: it is owed
        await receiver.message()
        await self.gone(receiver)
        receiver = await self.client("off-b")
        self.assertEqual((await receiver.message())["attempt"], 2)
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")


class Restart(unittest.IsolatedAsyncioTestCase):
    """What was kept is there after a restart, whichever way the hub ended."""

    async def restart(self, end):
        with tempfile.TemporaryDirectory(prefix="ringhub-e2e-") as store:
            sets = {"store.path": os.path.join(store, "data"), "ack.timeout": "1h", "ack.max_delay": "1h"}
            hub = Hub(sets, shards=3)
            sender = await open_client(hub, "re-a")
            seqs = {}
            online = await open_client(hub, "re-on")
            for number in range(20):
                await sender.send_message("re-b", number, ack=number % 2 == 0, id=f"re-{number}")
            await sender.send_message("re-on", "unanswered", ack=True, id="re-on")
            seqs["re-on"] = (await online.message())["seq"]
            await end(hub)
            for client in (sender, online):
                client.cut()
            hub = Hub(sets, shards=2)
            try:
                self.assertEqual(hub.metric("ringhub_offline_messages"), 21)
                receiver = await open_client(hub, "re-b")
                rows = [await receiver.message() for _ in range(20)]
                self.assertEqual([row["content"] for row in rows], list(range(20)))
                self.assertEqual([row["ack"] for row in rows], [n % 2 == 0 for n in range(20)])
                await receiver.send({"type": "ack", "data": {"ids": [f"re-{n}" for n in range(0, 20, 2)]}})
                await receiver.quiet()
                online = await open_client(hub, "re-on")
                got = await online.message()
                self.assertEqual((got["seq"], got["content"]), (seqs["re-on"], "unanswered"))
                # a sequence number goes on, and a new message comes behind
                sender = await open_client(hub, "re-a")
                await sender.send_message("re-on", "new")
                self.assertGreater((await online.message())["seq"], got["seq"])
                for client in (sender, online, receiver):
                    await client.close()
            finally:
                hub.stop()

    async def test_a_stop(self):
        async def end(hub):
            await asyncio.to_thread(hub.stop)
        await self.restart(end)

    async def test_kill_9(self):
        async def end(hub):
            os.kill(hub.pid, signal.SIGKILL)
            await asyncio.to_thread(hub.kill)
        await self.restart(end)
