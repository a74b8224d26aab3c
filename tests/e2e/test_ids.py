"""Ids that senders give, and give again: the first outcome, and no second delivery (PROTOCOL 4)."""

import asyncio
import itertools
import signal
import time

from clients import ClientCase
from hub import Hub, eventually

_texts = itertools.count(1)


class Repeated(ClientCase):

    async def test_a_message_that_is_sent_again_arrives_once(self):
        # Receivers on all four shards, with a chance of 1 in 1,000 that one is left out.
        names = [f"again-bert-{i}" for i in range(32)]
        anna = await self.client("again-anna")
        receivers = await self.clients(names)
        for name in names:
            first = await anna.send_message(name, 1, id="order-7")
            self.assertEqual(first, {"id": "order-7", "status": "sent"})
            self.assertEqual(await anna.send_message(name, 2, id="order-7"), first)
        for bert in receivers:
            self.assertEqual((await bert.message())["content"], 1)
            await bert.quiet()

    async def test_the_sender_is_the_user_whatever_its_connection(self):
        phone, laptop, bert = await self.clients(["same-anna", "same-anna", "same-bert"])
        await phone.send_message("same-bert", "phone", id="x")
        await laptop.send_message("same-bert", "laptop", id="x")
        await phone.close()
        phone = await self.client("same-anna")
        await phone.send_message("same-bert", "phone again", id="x")
        self.assertEqual((await bert.message())["content"], "phone")
        await bert.quiet()

    async def test_others_receivers_ids_and_events_are_apart(self):
        anna, carl, bert = await self.clients(["apart-anna", "apart-carl", "apart-bert"])
        for client in (anna, carl, bert):
            await client.join("apart-bert")  # a room that is named like a user
        await anna.send_message("apart-bert", 1, id="x")
        await anna.send_message("apart-bert", 2, id="X")
        await carl.send_message("apart-bert", 3, id="x")
        await anna.send_message("apart-carl", 4, id="x")
        await anna.publish("apart-bert", 5, id="x", exclude_self=True)
        got = [await bert.receive() for _ in range(4)]
        self.assertEqual([one["data"]["content"] for one in got if one["event"] == "message"],
                         [1, 2, 3])
        self.assertEqual([one["data"]["content"] for one in got if one["event"] != "message"],
                         [5])

    async def test_made_ids_are_not_remembered(self):
        anna, bert = await self.clients(["made-anna", "made-bert"])
        made = (await anna.send_message("made-bert", 1))["id"]
        await anna.send_message("made-bert", 2, id=made)
        await anna.send_message("made-bert", 3, id=made)
        self.assertEqual([(await bert.message())["content"] for _ in range(2)], [1, 2])
        await bert.quiet()

    async def test_an_error_is_not_remembered(self):
        with_error = {"to": "error-bert", "content": "a", "id": "x", "priority": "none"}
        anna, bert = await self.clients(["error-anna", "error-bert"])
        answer = await anna.request("message.send", with_error)
        self.assert_error(answer, 400, "bad_request")
        answer = await anna.request("room.publish", {"room": "error", "content": 1, "id": "x"})
        self.assert_error(answer, 404, "not_found")
        await anna.join("error")
        self.assertEqual((await anna.publish("error", 1, id="x"))["seq"], 1)
        await anna.send_message("error-bert", 1, id="x")
        self.assertEqual((await bert.message())["content"], 1)

    async def test_a_row_of_the_same_at_once_is_answered_one_by_one(self):
        anna, bert = await self.clients(["row-anna", "row-bert"])
        for turn in range(20):
            for number in range(10):
                await anna.send({"type": "request", "event": "message.send",
                                 "request_id": f"{turn}-{number}",
                                 "data": {"to": "row-bert", "content": turn, "id": f"t{turn}"}})
        answers = [await anna.receive() for _ in range(200)]
        self.assertEqual(sorted(answer["request_id"] for answer in answers),
                         sorted(f"{turn}-{number}" for turn in range(20) for number in range(10)))
        for answer in answers:
            turn = answer["request_id"].split("-")[0]
            self.assertEqual(answer["data"], {"id": f"t{turn}", "status": "sent"})
        self.assertEqual([(await bert.message())["content"] for _ in range(20)], list(range(20)))
        await bert.quiet()

    async def test_a_publish_keeps_its_number(self):
        rooms = [f"pub-{i}" for i in range(16)]
        anna, bert = await self.clients(["pub-anna", "pub-bert"])
        for room in rooms:
            await anna.join(room)
            await bert.join(room)
            await anna.notify("room.joined")
            first = await anna.publish(room, 1, id="x", exclude_self=True)
            self.assertEqual(first, {"id": "x", "seq": 1, "recipients": 1})
            await anna.publish(room, 2, exclude_self=True)
            self.assertEqual(await anna.publish(room, 3, id="x"), first)
            self.assertEqual([one["content"] for one in await bert.read_room(room, 1, 2)], [1, 2])
        await anna.quiet()
        await bert.quiet()

    async def test_a_broadcast_that_is_repeated_goes_out_once(self):
        boss = await self.client("cast-boss", role="admin")
        anna = await self.client("cast-anna", user_type="cast")
        data = {"content": 1, "id": "x", "user_types": ["cast"]}
        first = await boss.ask("broadcast", data)
        self.assertEqual(first, {"id": "x", "recipients": 1})
        self.assertEqual(await boss.ask("broadcast", {**data, "content": 2}), first)
        self.assertEqual((await anna.notify("broadcast"))["content"], 1)
        await anna.quiet()

    async def test_what_is_remembered_is_counted(self):
        anna, _ = await self.clients(["count-anna", "count-bert"])
        before = self.hub.metric("ringhub_dedup_hits_total")
        for _ in range(4):
            await anna.send_message("count-bert", 1, id="x")
        await asyncio.sleep(0)
        self.assertEqual(self.hub.metric("ringhub_dedup_hits_total") - before, 3)
        self.assertGreater(self.hub.metric("ringhub_dedup_ids"), 0)


class Bounds(ClientCase):
    """Each test has a hub of its own."""

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def setUp(self):
        pass

    def start(self, **sets):
        self.hub = Hub({key.replace("__", "."): value for key, value in sets.items()}, shards=1)
        self.addCleanup(self.hub.stop)

    async def deliveries(self, anna, bert, ids):
        """Sends with each of the ids; which of them were delivered."""
        text = f"text {next(_texts)}"
        for one in ids:
            await anna.send_message("bert", [text, one], id=one)
        await anna.send_message("bert", "end")
        got = []
        while (content := (await bert.message())["content"]) != "end":
            self.assertEqual(content[0], text)
            got.append(content[1])
        return got

    async def test_after_the_window_an_id_is_new(self):
        self.start(dedup__window="300ms")
        anna, bert = await self.clients(["anna", "bert"])
        began = time.monotonic()
        self.assertEqual(await self.deliveries(anna, bert, ["x"]), ["x"])
        again = await self.deliveries(anna, bert, ["x"])
        if time.monotonic() - began < 0.3:
            self.assertEqual(again, [])
        await asyncio.sleep(0.6)
        self.assertEqual(await self.deliveries(anna, bert, ["x"]), ["x"])
        self.assertEqual(self.hub.metric("ringhub_dedup_evicted_total"), 0)

    async def test_the_newest_are_kept(self):
        self.start(dedup__max="10")
        anna, bert = await self.clients(["anna", "bert"])
        ids = [f"id-{i}" for i in range(25)]
        self.assertEqual(await self.deliveries(anna, bert, ids), ids)
        self.assertEqual(await self.deliveries(anna, bert, ids[15:]), [])
        self.assertEqual(await self.deliveries(anna, bert, ["id-14"]), ["id-14"])
        self.assertEqual(self.hub.metric("ringhub_dedup_evicted_total"), 16)
        self.assertEqual(self.hub.metric("ringhub_dedup_ids"), 10)

    async def test_it_may_be_off(self):
        for key in ("dedup__window", "dedup__max"):
            self.start(**{key: "0"})
            anna, bert = await self.clients(["anna", "bert"])
            self.assertEqual(await self.deliveries(anna, bert, ["x", "x"]), ["x", "x"])
            self.assertEqual(self.hub.metric("ringhub_dedup_ids"), 0)

    async def test_a_reload_may_switch_it_off(self):
        self.hub = Hub(config="dedup:\n  window: 1h\n", shards=1)
        self.addCleanup(self.hub.stop)
        anna, bert = await self.clients(["anna", "bert"])
        self.assertEqual(await self.deliveries(anna, bert, ["x", "x"]), ["x"])
        self.hub.write_config("dedup:\n  window: 0\n")
        self.hub.process.send_signal(signal.SIGHUP)
        eventually(lambda: any(line["event"] == "config.reload" for line in self.hub.log()),
                   self.hub.log_text)
        self.assertEqual(await self.deliveries(anna, bert, ["x", "x"]), ["x", "x"])
