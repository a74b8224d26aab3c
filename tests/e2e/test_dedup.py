"""The same id again (PROTOCOL 4, "Repetitions are visible"): one outcome, one delivery."""

import asyncio
import os
import signal
import tempfile
import unittest

from clients import OwedCase, open_client
from hub import Hub


class Again(OwedCase):

    options = {"ack.timeout": "1h", "ack.max_delay": "1h", "dedup.max": "1000000"}

    async def test_a_repetition_gets_the_first_outcome_and_delivers_nothing(self):
        sender, receiver = await self.clients(["rep-a", "rep-b"])
        for more in ({}, {"ack": True}):
            id = f"rep-{len(more)}"
            first = await sender.send_message("rep-b", "first", id=id, **more)
            self.assertEqual(await sender.send_message("rep-b", "second", id=id, **more), first)
            self.assertEqual((await receiver.message())["content"], "first")
            await receiver.quiet()
        await self.ack(receiver, "rep-1")
        await self.status(sender, "rep-1", "success")
        self.assertEqual(await sender.send_message("rep-b", "third", id="rep-1", ack=True),
                         {"id": "rep-1", "status": "sent"})
        await receiver.quiet()

    async def test_it_is_the_user_not_the_connection(self):
        first, second, receiver = await self.clients(["user-a", "user-a", "user-b"])
        await first.send_message("user-b", 1, id="user-1")
        await second.send_message("user-b", 2, id="user-1")
        self.assertEqual((await receiver.message())["content"], 1)
        await receiver.quiet()

    async def test_another_target_or_sender_is_another_message(self):
        sender, other, one, two = await self.clients(["tgt-a", "tgt-b", "tgt-1", "tgt-2"])
        await sender.send_message("tgt-1", "one", id="tgt")
        await sender.send_message("tgt-2", "two", id="tgt")
        self.assertEqual((await one.message())["content"], "one")
        self.assertEqual((await two.message())["content"], "two")
        await other.send_message("tgt-1", "other", id="tgt")
        self.assertEqual((await one.message())["content"], "other")

    async def test_another_sender_meets_an_id_that_is_still_owed(self):
        sender, other, receiver = await self.clients(["owed-a", "owed-b", "owed-c"])
        await self.send_ack(sender, "owed-c", 1, id="owed")
        got = await other.request("message.send", {"to": "owed-c", "content": 2, "id": "owed"})
        self.assert_error(got, 409, "conflict")
        await receiver.message()
        await self.ack(receiver, "owed")
        await self.status(sender, "owed", "success")
        await other.send_message("owed-c", 2, id="owed")
        self.assertEqual((await receiver.message())["content"], 2)

    async def test_a_row_of_the_same_is_answered_alike(self):
        sender, receiver = await self.clients(["row-a", "row-b"])
        for number in range(30):
            await sender.send({"type": "request", "event": "message.send", "request_id": f"w{number}",
                               "data": {"to": "row-b", "content": number, "id": "row", "ack": True}})
        for number in range(30):
            answer = await sender.answer(f"w{number}")
            self.assertEqual(answer["data"], {"id": "row", "status": "sent"})
        self.assertEqual((await receiver.message())["content"], 0)
        await receiver.quiet()

    async def test_errors_are_not_remembered(self):
        sender = await self.client("err-a")
        got = await sender.request("room.publish", {"room": "err-room", "content": 1, "id": "err"})
        self.assertEqual(got["type"], "error")
        await sender.join("err-room")
        self.assertEqual((await sender.publish("err-room", 1, id="err"))["seq"], 1)

    async def test_publishes_and_broadcasts_likewise(self):
        admin, member = await self.clients_with_role(["pub-a", "pub-b"])
        await self.join_all("pub-room", [admin, member])
        first = await admin.publish("pub-room", 1, id="pub")
        self.assertEqual(await admin.publish("pub-room", 2, id="pub"), first)
        self.assertEqual((await member.read_room("pub-room", 1, 1))[0]["content"], 1)
        first = await admin.ask("broadcast", {"content": 1, "id": "cast"})
        self.assertEqual(await admin.ask("broadcast", {"content": 2, "id": "cast"}), first)
        self.assertEqual((await member.notify("broadcast"))["content"], 1)
        await member.quiet()

    async def clients_with_role(self, users):
        return [await self.client(user, role="admin") for user in users]

    async def test_bad_ids_are_refused(self):
        sender = await self.client("bad-a")
        for id in ("", "x" * 65, "a b", "é", 1, [], "a/b"):
            got = await sender.request("message.send", {"to": "bad-b", "content": 1, "id": id})
            self.assert_error(got, 400, "bad_request")


class Bounded(OwedCase):

    options = {"dedup.window": "300ms", "dedup.max": "4"}

    async def test_an_id_is_forgotten_after_its_window(self):
        sender, receiver = await self.clients(["win-a", "win-b"])
        await sender.send_message("win-b", 1, id="win")
        await receiver.message()
        await asyncio.sleep(1.5)
        await sender.send_message("win-b", 2, id="win")
        self.assertEqual((await receiver.message())["content"], 2)

    async def test_what_is_still_owed_is_remembered_beyond_the_window(self):
        sender, receiver = await self.clients(["long-a", "long-b"])
        first = await self.send_ack(sender, "long-b", 1, id="long")
        await receiver.message()
        await asyncio.sleep(1.5)
        self.assertEqual((await self.send_ack(sender, "long-b", 2, id="long"))["id"], first["id"])
        await self.ack(receiver, "long")
        await self.status(sender, "long", "success")
        await receiver.quiet()

    async def test_the_oldest_make_room_and_are_counted(self):
        sender, receiver = await self.clients(["max-a", "max-b"])
        before = self.hub.metric("ringhub_dedup_evicted_total")
        for number in range(20):
            await sender.send_message("max-b", number, id=f"max-{number}")
            await receiver.message()
        self.assertGreaterEqual(self.hub.metric("ringhub_dedup_evicted_total") - before, 10)


class Restart(unittest.IsolatedAsyncioTestCase):

    async def test_committed_outcomes_survive_kill_9(self):
        with tempfile.TemporaryDirectory(prefix="ringhub-e2e-") as store:
            sets = {"store.path": os.path.join(store, "data"), "ack.timeout": "1h", "ack.max_delay": "1h"}
            hub = Hub(sets)
            sender, receiver = await open_client(hub, "dr-a"), await open_client(hub, "dr-b")
            acked = await sender.send_message("dr-b", 1, id="dr-acked", ack=True)
            await receiver.message()
            await receiver.send({"type": "ack", "data": {"id": "dr-acked"}})
            self.assertEqual((await sender.notify("message.status"))["status"], "success")
            stored = await sender.send_message("dr-c", 1, id="dr-stored")
            os.kill(hub.pid, signal.SIGKILL)
            hub.kill()
            hub = Hub(sets, shards=2)
            try:
                sender, receiver = await open_client(hub, "dr-a"), await open_client(hub, "dr-b")
                self.assertEqual(await sender.send_message("dr-b", 2, id="dr-acked", ack=True), acked)
                await receiver.quiet()
                self.assertEqual(await sender.send_message("dr-c", 2, id="dr-stored"), stored)
                third = await open_client(hub, "dr-c")
                self.assertEqual((await third.message())["content"], 1)
                await third.quiet()
                for client in (sender, receiver, third):
                    await client.close()
            finally:
                hub.stop()
