"""Acknowledged messages in rooms (PROTOCOL 4): owed to every member, in the room's order."""

import asyncio
import json
import os
import signal
import tempfile
import unittest

from clients import OwedCase, eventually_true, open_at, open_client, path_with_rooms
from hub import Hub
from raw import TEXT, frame


class Rooms(OwedCase):

    options = {"ack.timeout": "1h", "ack.max_delay": "1h", "rooms.max_owed": "6", "rooms.notify_max": "0",
               "offline.max_messages": "5", "resume.window": "10m"}

    async def in_quiet_room(self, room, *users):
        clients = await self.clients(users)
        for client in clients:
            await client.join(room)
        return clients

    async def test_every_member_is_owed_it_but_the_publisher(self):
        publisher, one, two = await self.in_quiet_room("every", "ev-a", "ev-b", "ev-c")
        answer = await publisher.publish("every", {"x": 1}, ack=True, id="ev-1")
        self.assertEqual(answer, {"id": "ev-1", "seq": 1, "recipients": 3})
        own = await publisher.notify("room.message")
        self.assertEqual((own["id"], own["ack"], own["attempt"]), ("ev-1", False, 1))
        for member in (one, two):
            got = await member.notify("room.message")
            self.assertEqual(got, {**own, "ack": True})
        await self.ack(one, "ev-1", room="every")
        await one.quiet()
        await publisher.quiet()
        await self.ack(two, "ev-1")
        await self.status(publisher, "ev-1", "success", room="every", recipients=2, acknowledged=2)
        await self.settled()

    async def test_exclude_self_and_an_empty_room(self):
        publisher, = await self.in_quiet_room("alone", "al-a")
        answer = await publisher.publish("alone", 1, ack=True, exclude_self=True)
        self.assertEqual(answer["recipients"], 0)
        await self.status(publisher, answer["id"], "success", room="alone", recipients=0,
                          acknowledged=0)
        await publisher.quiet()

    async def test_it_keeps_its_place_in_the_rooms_order(self):
        publisher, member = await self.in_quiet_room("order", "or-a", "or-b")
        for number in range(40):
            await publisher.send({"type": "request", "event": "room.publish", "request_id": f"o{number}",
                                  "data": {"room": "order", "content": number, "ack": number % 3 == 0}})
        rows = await member.read_room("order", 1, 40)
        self.assertEqual([row["content"] for row in rows], list(range(40)))
        self.assertEqual([row["ack"] for row in rows], [n % 3 == 0 for n in range(40)])
        await self.ack(member, *(row["id"] for row in rows if row["ack"]))
        await self.settled()

    async def many_at_once(self, room):
        publisher, member = await self.in_quiet_room(room, f"{room}-a", f"{room}-b")
        asks = [{"type": "request", "event": "room.publish", "request_id": f"{n}",
                 "data": {"room": room, "content": n, "ack": True, "exclude_self": True}}
                for n in range(500)]
        publisher.socket.transport.write(b"".join(frame(TEXT, json.dumps(ask)) for ask in asks))
        rows = await member.read_room(room, 1, 500)
        answers = [(await publisher.answer(f"{n}"))["data"] for n in range(500)]
        self.assertEqual({row["attempt"] for row in rows}, {1})
        self.assertEqual([row["id"] for row in rows], [answer["id"] for answer in answers])
        await self.ack(member, *(row["id"] for row in rows))

    async def test_many_at_once_keep_their_order(self):
        for number in range(8):  # homes and users on different shards, and on the same
            await self.many_at_once(f"many{number}")
        await self.settled()

    async def test_who_leaves_before_acknowledging_gets_it_again(self):
        publisher, member = await self.in_quiet_room("again", "ag-a", "ag-b")
        answer = await publisher.publish("again", 1, ack=True)
        first = await member.notify("room.message")
        member.cut()
        member = await self.client("ag-b")  # no member any more of its own accord, still owed
        got = await member.notify("room.message")
        got.pop("epoch", None)
        self.assertEqual(got, {**first, "attempt": 2})
        await self.ack(member, answer["id"])
        await publisher.notify("room.message")
        await self.status(publisher, answer["id"], "success", room="again", recipients=1, acknowledged=1)

    async def test_history_brings_it_once_and_in_its_place(self):
        publisher, member = await self.in_quiet_room("hist", "hi-a", "hi-b")
        await publisher.publish("hist", 1)
        await member.read_room("hist", 1, 1)
        await self.gone_for_a_while(member)
        await publisher.publish("hist", 2)
        answer = await publisher.publish("hist", 3, ack=True)
        await publisher.publish("hist", 4)
        member = await self.resume(member)
        await member.notify("room.subscribed")
        rows = await member.read_room("hist", 2, 4)
        self.assertEqual([row["ack"] for row in rows], [False, True, False])
        await member.quiet()
        await self.ack(member, answer["id"])
        await self.settled()

    async def gone_for_a_while(self, member):
        await member.socket.close(1001)

    async def test_leaving_and_deletion_take_nothing_away(self):
        publisher, one, two = await self.in_quiet_room("delete", "de-a", "de-b", "de-c")
        answer = await publisher.publish("delete", 1, ack=True)
        await one.notify("room.message")
        await two.notify("room.message")
        await one.leave("delete")
        await self.ack(one, answer["id"])
        await publisher.ask("room.delete", {"room": "delete"})
        await two.notify("room.deleted")
        await self.gone(two)
        two = await self.client("de-c")
        got = await two.notify("room.message")
        self.assertEqual((got["id"], got["attempt"]), (answer["id"], 2))
        await self.ack(two, answer["id"])
        while (got := await publisher.receive()).get("event") != "message.status":
            pass
        self.assertEqual(got["data"], {"id": answer["id"], "status": "success", "room": "delete",
                                       "recipients": 2, "acknowledged": 2})

    async def test_a_room_that_began_anew_is_told_by_its_epoch(self):
        publisher, member = await self.in_quiet_room("epoch", "ep-a", "ep-b")
        epoch = (await publisher.history("epoch"))["epoch"]
        answer = await publisher.publish("epoch", 1, ack=True)
        await member.notify("room.message")
        await publisher.ask("room.delete", {"room": "epoch"})
        await self.gone(member)
        await publisher.join("epoch")
        member = await self.client("ep-b")
        got = await member.notify("room.message")
        self.assertEqual((got["id"], got["seq"], got["epoch"]), (answer["id"], 1, epoch))
        await self.ack(member, answer["id"])
        await self.settled()

    async def test_large_rooms_refuse(self):
        clients = await self.in_quiet_room("large", *(f"la-{n}" for n in range(7)))
        got = await clients[0].request("room.publish", {"room": "large", "content": 1, "ack": True})
        self.assert_error(got, 409, "conflict")
        self.assertEqual((await clients[0].publish("large", 1))["seq"], 1)

    async def test_an_id_that_is_owed_in_the_room_is_taken(self):
        publisher, other = await self.in_quiet_room("taken", "ta-a", "ta-b")
        first = await publisher.publish("taken", 1, ack=True, id="taken")
        await other.notify("room.message")
        got = await other.request("room.publish", {"room": "taken", "content": 2, "ack": True,
                                                   "id": "taken"})
        self.assert_error(got, 409, "conflict")
        self.assertEqual(await publisher.publish("taken", 3, ack=True, id="taken"), first)
        await self.ack(other, "taken")
        await self.settled()

        async def released():  # the room's home is told a moment later
            got = await other.request("room.publish", {"room": "taken", "content": 4, "ack": True,
                                                       "id": "taken"})
            return got["type"] == "response"
        await eventually_true(released, "the id is free again")
        await publisher.notify("room.message")
        self.assertEqual((await publisher.receive())["event"], "message.status")
        self.assertEqual((await publisher.notify("room.message"))["content"], 4)
        await self.ack(publisher, "taken")
        await self.settled()

    async def test_a_full_queue_ends_a_share_and_the_publish_stands(self):
        publisher, member, absent = await self.in_quiet_room("full", "fu-a", "fu-b", "fu-c")
        await self.gone_for_a_while(absent)
        for number in range(5):
            await self.send_ack(publisher, "fu-c", number, id=f"fu-{number}")
        answer = await publisher.publish("full", "x", ack=True, exclude_self=True)
        self.assertEqual(answer["recipients"], 2)
        await self.ack(member, (await member.notify("room.message"))["id"])
        await self.status(publisher, answer["id"], "failed", "queue_full", room="full", recipients=2,
                          acknowledged=1)
        absent = await self.client("fu-c")
        for _ in range(5):
            await absent.message()
        await absent.quiet()
        await self.ack(absent, *(f"fu-{n}" for n in range(5)))
        await self.settled()

    async def test_two_devices_of_the_publisher_and_of_a_member(self):
        publisher, second, one, two = await self.in_quiet_room("devs", "dv-a", "dv-a", "dv-b", "dv-b")
        answer = await publisher.publish("devs", 1, ack=True)
        self.assertEqual(answer["recipients"], 2)
        for client, ack in ((publisher, False), (second, False), (one, True), (two, True)):
            self.assertIs((await client.notify("room.message"))["ack"], ack)
        await self.ack(two, answer["id"])
        told = {"room": "devs", "recipients": 1, "acknowledged": 1}
        await self.status(publisher, answer["id"], "success", **told)
        await self.status(second, answer["id"], "success", **told)


class Repeated(OwedCase):

    options = {"ack.timeout": "150ms", "ack.max_retries": "2", "rooms.notify_max": "0"}

    async def test_a_member_that_is_silent_gets_it_again_and_the_sender_is_told(self):
        clients = await self.clients(["re-a", "re-b", "re-c"])
        for client in clients:
            await client.join("rep")
        publisher, good, silent = clients
        answer = await publisher.publish("rep", 1, ack=True, exclude_self=True)
        await good.notify("room.message")
        await self.ack(good, answer["id"])
        attempts = [(await silent.notify("room.message"))["attempt"] for _ in range(3)]
        self.assertEqual(attempts, [1, 2, 3])
        await self.status(publisher, answer["id"], "ack_timeout", "ack_timeout", room="rep",
                          recipients=2, acknowledged=1)
        await good.quiet()
        await self.settled()


class Restart(unittest.IsolatedAsyncioTestCase):

    async def test_shares_survive_kill_9(self):
        with tempfile.TemporaryDirectory(prefix="ringhub-e2e-") as store:
            sets = {"store.path": os.path.join(store, "data"), "ack.timeout": "1h", "ack.max_delay": "1h"}
            hub = Hub(sets)
            clients = [await open_at(hub, path_with_rooms(f"rs-{n}", "rs")) for n in range(4)]
            for client in clients:
                await client.notify("room.subscribed")
            while clients[0].aside:
                clients[0].aside.popleft()
            answer = await clients[0].publish("rs", "kept", ack=True, id="rs-1")
            self.assertEqual(answer["recipients"], 4)
            while (got := await clients[1].receive())["event"] != "room.message":
                pass
            epoch = (await clients[0].history("rs"))["epoch"]
            await clients[1].send({"type": "ack", "data": {"id": "rs-1"}})
            await clients[1].request("ping")
            await asyncio.sleep(0.5)  # the acknowledgement is committed, too
            os.kill(hub.pid, signal.SIGKILL)
            hub.kill()
            hub = Hub(sets, shards=2)
            try:
                sender = await open_client(hub, "rs-0")
                first = await open_client(hub, "rs-1")
                await first.quiet()
                for number in (2, 3):
                    member = await open_client(hub, f"rs-{number}")
                    got = await member.notify("room.message")
                    self.assertEqual((got["id"], got["content"], got["epoch"], got["seq"]),
                                     ("rs-1", "kept", epoch, 1))
                    await member.send({"type": "ack", "data": {"id": "rs-1", "room": "rs"}})
                    await member.quiet()
                    await member.close()
                self.assertEqual(await sender.notify("message.status"),
                                 {"id": "rs-1", "status": "success", "room": "rs", "recipients": 3,
                                  "acknowledged": 3})
                await sender.close()
                await first.close()
            finally:
                hub.stop()
