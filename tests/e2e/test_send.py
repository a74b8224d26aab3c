"""message.send from user to user across shards (PROTOCOL 3 and 4, plain messages)."""

import asyncio
import itertools
import json
import time
import unittest

import raw
from clients import ClientCase, open_client
from hub import Hub
from test_envelope import OPAQUE, SPACED, member


class Delivery(ClientCase):

    async def test_every_pair_of_shards_is_crossed(self):
        # 48 names on 4 shards: all 16 pairs occur, but for a chance of about 1 in 100,000.
        names = [f"pair-{i}" for i in range(48)]
        clients = await asyncio.gather(*(self.client(name) for name in names))

        async def send_to_all(client):
            for name in names:
                await client.send({"type": "request", "event": "message.send",
                                   "request_id": f"to-{name}",
                                   "data": {"to": name, "content": [client.user, name]}})

        async def receive_all(client):
            answered, arrived = set(), []
            while len(answered) < len(names) or len(arrived) < len(names):
                got = await client.receive()
                if got["type"] == "response":
                    self.assertEqual(got["data"]["status"], "sent")
                    answered.add(got["request_id"])
                else:
                    self.assertEqual((got["type"], got["event"]), ("notify", "message"), got)
                    self.assertEqual(got["data"]["content"], [got["data"]["from"], client.user])
                    arrived.append(got["data"])
            self.assertEqual(sorted(data["from"] for data in arrived), sorted(names))
            seqs = [data["seq"] for data in arrived]
            self.assertEqual(seqs, sorted(set(seqs)))

        await asyncio.gather(*map(send_to_all, clients), *map(receive_all, clients))

    async def test_a_message_has_its_fields(self):
        anna, bert = await self.clients(["fields-anna", "fields-bert"])
        answer = await anna.send_message("fields-bert", "hello")
        self.assertEqual(set(answer), {"id", "status"})
        self.assertEqual(answer["status"], "sent")
        got = await bert.receive()
        self.assertEqual(set(got), {"type", "event", "data", "timestamp"})
        data = got["data"]
        self.assertLess(abs(data.pop("created_at") - time.time() * 1000), 60_000)
        self.assertGreater(data["seq"], 0)
        self.assertLess(data.pop("seq"), 2 ** 53)
        self.assertEqual(data, {"id": answer["id"], "from": "fields-anna", "content": "hello",
                                "ack": False, "priority": "normal", "type": "text", "attempt": 1})

    async def test_a_generated_id_is_a_valid_id_and_unique(self):
        anna, _ = await self.clients(["ids-anna", "ids-bert"])
        ids = [(await anna.send_message("ids-bert", 0))["id"] for _ in range(100)]
        self.assertEqual(len(set(ids)), 100)
        for generated in ids:
            self.assertRegex(generated, r"^[A-Za-z0-9._:-]{1,64}$")

    async def test_given_fields_are_handed_on(self):
        anna, bert = await self.clients(["given-anna", "given-bert"])
        given = {"id": "My-id_1.2:3", "priority": "high", "type": "image", "tags": ["a", "b c"],
                 "fields": {"k": "v", "é": "ü"}, "reply_to": "another-id"}
        answer = await anna.send_message("given-bert", "x", **given)
        self.assertEqual(answer["id"], given["id"])
        data = await bert.message()
        self.assertEqual({name: data[name] for name in given}, given)

    async def test_every_priority_is_accepted_and_shown(self):
        anna, bert = await self.clients(["prio-anna", "prio-bert"])
        for priority in ("low", "normal", "high", "urgent", "critical"):
            await anna.send_message("prio-bert", 1, priority=priority)
            self.assertEqual((await bert.message())["priority"], priority)

    async def test_content_is_handed_on_byte_for_byte(self):
        anna, bert = await self.clients(["bytes-anna", "bytes-bert"])
        for content in OPAQUE + SPACED:
            with self.subTest(content[:40]):
                await anna.send('{"type":"request","event":"message.send","data":'
                                '{"content": %s ,"to":"bytes-bert"}}' % content)
                self.assertEqual(member(await bert.receive_text(), "content"), content)

    async def test_all_devices_receive(self):
        anna, *bert = await self.clients(["dev-anna", "dev-bert", "dev-bert", "dev-bert"])
        await anna.send_message("dev-bert", "all")
        seen = [await device.message() for device in bert]
        self.assertEqual({data["content"] for data in seen}, {"all"})
        self.assertEqual(len({(data["id"], data["seq"]) for data in seen}), 1)

    async def test_a_sender_who_writes_to_itself_receives_too(self):
        one, other = await self.clients(["self-anna", "self-anna"])
        await one.send_message("self-anna", "me")
        self.assertEqual((await one.message())["from"], "self-anna")
        self.assertEqual((await other.message())["content"], "me")

    async def test_nobody_else_receives(self):
        anna, bert, carl = await self.clients(["only-anna", "only-bert", "only-carl"])
        await anna.send_message("only-bert", "private")
        await bert.message()
        await carl.quiet()
        await anna.quiet()

    async def test_without_a_request_id_it_is_delivered_and_not_answered(self):
        anna, bert = await self.clients(["mute-anna", "mute-bert"])
        await anna.send({"type": "request", "event": "message.send",
                         "data": {"to": "mute-bert", "content": 1}})
        await bert.message()
        await anna.quiet()
        await anna.send({"type": "request", "event": "message.send",
                         "data": {"to": "", "content": 1}})
        got = await anna.receive()
        self.assert_error(got, 400, "bad_request")
        self.assertNotIn("request_id", got)

    async def test_names_of_every_kind_can_be_written_to(self):
        for name in ('with "quotes"\\', "a b+c&d=e", "été😀", "x" * 128):
            with self.subTest(name):
                client = await self.client(name)
                await client.send_message(name, 1)
                self.assertEqual((await client.message())["from"], name)
                escaped = json.dumps(name, ensure_ascii=False).replace("e", "\\u0065")
                await client.send('{"type":"request","event":"message.send","data":'
                                  '{"to":%s,"content":2}}' % escaped)
                self.assertEqual((await client.message())["content"], 2)

    async def test_large_contents_arrive_whole(self):
        anna, bert = await self.clients(["large-anna", "large-bert"])
        for size in (100, 126, 2_000, 4_096, 65_535, 65_536, 500_000, 1_000_000):
            content = ("%d:" % size).ljust(size, "x")
            await anna.send_message("large-bert", content)
            self.assertEqual((await bert.message())["content"], content)


class Refused(ClientCase):

    options = {"offline.enabled": "false"}

    async def test_an_offline_user_is_409(self):
        anna, bert = await self.clients(["off-anna", "off-bert"])
        answer = await anna.request("message.send", {"to": "off-nobody", "content": 1})
        self.assert_error(answer, 409, "user_offline")
        await anna.send_message("off-bert", 1)
        await bert.close()
        answer = await anna.request("message.send", {"to": "off-bert", "content": 1})
        self.assert_error(answer, 409, "user_offline")

    async def test_bad_parameters_are_400_and_nothing_is_delivered(self):
        anna, bert = await self.clients(["bad-anna", "bad-bert"])
        to = '"to":"bad-bert"'
        cases = {
            "no data": None, "null": "null", "a string": '"x"', "an array": "[]", "empty": "{}",
            "no to": '{"content":1}', "no content": "{%s}" % to,
            "to is a number": '{"to":1,"content":1}', "to is empty": '{"to":"","content":1}',
            "to of 129 bytes": '{"to":"%s","content":1}' % ("x" * 129),
            "to with a control character": r'{"to":"a\u0001","content":1}',
            "id is a number": '{%s,"content":1,"id":5}' % to,
            "id is empty": '{%s,"content":1,"id":""}' % to,
            "id with a space": '{%s,"content":1,"id":"a b"}' % to,
            "id with a slash": '{%s,"content":1,"id":"a/b"}' % to,
            "id not ASCII": '{%s,"content":1,"id":"é"}' % to,
            "id of 65": '{%s,"content":1,"id":"%s"}' % (to, "i" * 65),
            "ack is a string": '{%s,"content":1,"ack":"true"}' % to,
            "ack is a number": '{%s,"content":1,"ack":1}' % to,
            "unknown priority": '{%s,"content":1,"priority":"top"}' % to,
            "priority is a number": '{%s,"content":1,"priority":1}' % to,
            "type is a number": '{%s,"content":1,"type":1}' % to,
            "ttl_ms is a string": '{%s,"content":1,"ttl_ms":"5s"}' % to,
            "ttl_ms is negative": '{%s,"content":1,"ttl_ms":-1}' % to,
            "tags is a string": '{%s,"content":1,"tags":"a"}' % to,
            "fields is an array": '{%s,"content":1,"fields":[]}' % to,
            "duplicate to": '{%s,%s,"content":1}' % (to, to),
            "duplicate content": '{%s,"content":1,"content":2}' % to,
            "duplicate unknown": '{%s,"content":1,"x":1,"x":2}' % to,
            "duplicate after unescaping": '{%s,"content":1,"\\u0074o":"bad-bert"}' % to,
        }
        for name, data in cases.items():
            with self.subTest(name):
                await anna.send('{"type":"request","event":"message.send","request_id":"q"%s}'
                                % (f',"data":{data}' if data else ""))
                got = await anna.receive()
                self.assert_error(got, 400, "bad_request")
                self.assertEqual(got["request_id"], "q")
        await bert.quiet()

    async def test_ids_of_every_allowed_kind_are_kept(self):
        anna, bert = await self.clients(["okid-anna", "okid-bert"])
        for given in ("a", "Z", "0", ".", "_", ":", "-", "A" * 64):
            self.assertEqual((await anna.send_message("okid-bert", 1, id=given))["id"], given)
            self.assertEqual((await bert.message())["id"], given)

    async def test_unknown_members_of_data_are_ignored(self):
        anna, bert = await self.clients(["extra-anna", "extra-bert"])
        await anna.send_message("extra-bert", 1, whatever={"to": "x"})
        self.assertEqual((await bert.message())["content"], 1)


class Order(ClientCase):
    """PROTOCOL 4: each sending connection's own order, and an increasing seq. The queues have room
    for everything, so that a slow test machine is no slow consumer."""

    options = {"limits.send_queue_messages": 20_000, "limits.send_queue_bytes": "64MiB"}

    async def test_thousands_of_pipelined_messages_arrive_in_each_senders_order(self):
        senders = await self.clients([f"order-{i}" for i in range(6)])
        receivers = await self.clients(["order-in", "order-in"])
        count = 1000

        async def send(client):
            for number in range(count):
                await client.send({"type": "request", "event": "message.send",
                                   "request_id": str(number),
                                   "data": {"to": "order-in", "content": number}})
                if number % 50 == 49:
                    await client.answer(str(number))

        async def receive(client):
            last, seq = {client.user: -1 for client in senders}, 0
            for _ in range(count * len(senders)):
                data = await client.message()
                self.assertEqual(data["content"], last[data["from"]] + 1, data["from"])
                last[data["from"]] = data["content"]
                self.assertGreater(data["seq"], seq)
                seq = data["seq"]

        await asyncio.gather(*map(send, senders), *map(receive, receivers))

    async def test_many_large_messages_at_once(self):
        """More bytes between two shards than may be unanswered there: senders wait, nobody loses."""
        senders = await self.clients([f"bulk-{i}" for i in range(6)])
        receiver = await self.client("bulk-in")
        content = "x" * 900_000

        async def send(client):
            for number in range(8):
                await client.send({"type": "request", "event": "message.send",
                                   "request_id": str(number),
                                   "data": {"to": "bulk-in", "content": [number, content]}})
            for number in range(8):
                self.assertEqual((await client.receive())["code"], 200)

        async def receive():
            next_of = {client.user: 0 for client in senders}
            for _ in range(8 * len(senders)):
                data = await receiver.message()
                self.assertEqual(data["content"], [next_of[data["from"]], content])
                next_of[data["from"]] += 1

        await asyncio.gather(*map(send, senders), receive())

    async def test_answers_come_in_order_too(self):
        anna, bert = await self.clients(["answers-anna", "answers-bert"])
        for number in range(200):
            await anna.send({"type": "request", "event": "message.send", "request_id": str(number),
                             "data": {"to": "answers-bert", "content": number}})
        for number in range(200):
            got = await anna.receive()
            self.assertEqual((got["type"], got["request_id"]), ("response", str(number)))
        for number in range(200):
            self.assertEqual((await bert.message())["content"], number)

    async def test_seq_increases_across_reconnects(self):
        anna = await self.client("seq-anna")
        seqs = []
        for number in range(3):
            bert = await self.client("seq-bert")
            for _ in range(3):
                await anna.send_message("seq-bert", number)
                seqs.append((await bert.message())["seq"])
            await bert.close()
        self.assertEqual(seqs, sorted(set(seqs)))

    async def test_high_priority_keeps_its_own_order(self):
        anna, bert = await self.clients(["lane-anna", "lane-bert"])
        for number, priority in zip(range(60), itertools.cycle(["normal", "high", "low",
                                                                "critical"])):
            await anna.send({"type": "request", "event": "message.send",
                             "data": {"to": "lane-bert", "content": number, "priority": priority}})
        lanes = {True: [], False: []}
        for _ in range(60):
            data = await bert.message()
            lanes[data["priority"] in ("high", "urgent", "critical")].append(data["content"])
        for lane in lanes.values():
            self.assertEqual(lane, sorted(lane))
            self.assertEqual(len(lane), 30)

    async def test_high_priority_overtakes_what_is_queued(self):
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade("/ws?user_id=jam")
        wire.message()
        anna = await self.client("jam-anna")
        for number in range(1000):
            await anna.send_message("jam", [number, "x" * 8000])
        for number in range(20):
            await anna.send_message("jam", [1000 + number, ""], priority="high")
        order = [json.loads(wire.message().payload)["data"]["content"][0] for _ in range(1020)]
        self.assertLess(order.index(1019), 1019 - 100, "nothing was overtaken")
        self.assertEqual([n for n in order if n < 1000], list(range(1000)))
        self.assertEqual([n for n in order if n >= 1000], list(range(1000, 1020)))


class Restart(unittest.TestCase):

    def test_seq_increases_across_restarts(self):
        async def one(hub):
            client = await open_client(hub, "restarted")
            await client.send_message("restarted", 1)
            seq = (await client.message())["seq"]
            await client.close()
            return seq

        seqs = []
        for _ in range(3):
            with Hub() as hub:
                seqs.append(asyncio.run(one(hub)))
        self.assertEqual(seqs, sorted(set(seqs)))


if __name__ == "__main__":
    unittest.main()
