"""Acknowledged messages between users (PROTOCOL 3 and 4): at least once, repeated, and told."""

import asyncio
import time

from clients import OwedCase
from hub import eventually

NEVER = {"ack.timeout": "1h", "ack.max_delay": "1h"}


class Acknowledged(OwedCase):
    """With time enough that nothing is ever repeated."""

    options = {**NEVER, "ack.max_unacked": "3"}

    async def test_it_is_delivered_acknowledged_and_the_sender_is_told(self):
        sender, receiver = await self.clients(["basic-a", "basic-b"])
        answer = await self.send_ack(sender, "basic-b", {"x": 1}, id="basic-1")
        self.assertEqual(answer, {"id": "basic-1", "status": "sent"})
        got = await receiver.message()
        self.assertEqual((got["id"], got["from"], got["content"], got["ack"], got["attempt"]),
                         ("basic-1", "basic-a", {"x": 1}, True, 1))
        await self.ack(receiver, "basic-1")
        await self.status(sender, "basic-1", "success")
        await receiver.quiet()
        await self.settled()

    async def test_the_hub_makes_an_id_where_none_is_given(self):
        sender, receiver = await self.clients(["made-a", "made-b"])
        answer = await self.send_ack(sender, "made-b", 1)
        self.assertRegex(answer["id"], "^[0-9a-f]{32}$")
        self.assertEqual((await receiver.message())["id"], answer["id"])
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")

    async def test_nobody_is_told_before_the_answer(self):
        sender, receiver = await self.clients(["order-a", "order-b"])
        reading = asyncio.create_task(self.acknowledge_all(receiver, 200))
        for number in range(200):
            await sender.send({"type": "request", "event": "message.send", "request_id": f"o{number}",
                               "data": {"to": "order-b", "content": number, "ack": True,
                                        "id": f"order-{number}"}})
        answered, told = set(), set()
        while len(told) < 200:
            got = await sender.receive()
            if got["type"] == "response":
                answered.add(got["data"]["id"])
            else:
                self.assertEqual((got["event"], got["data"]["status"]),
                                 ("message.status", "success"))
                self.assertIn(got["data"]["id"], answered)
                self.assertNotIn(got["data"]["id"], told)
                told.add(got["data"]["id"])
        self.assertEqual(answered, told)
        self.assertEqual(await reading, list(range(200)))

    async def acknowledge_all(self, receiver, count):
        contents = []
        for _ in range(count):
            got = await receiver.message()
            contents.append(got["content"])
            await self.ack(receiver, got["id"])
        return contents

    async def test_a_message_to_oneself(self):
        client = await self.client("self-a")
        answer = await self.send_ack(client, "self-a", "me")
        got = await client.message()
        await self.ack(client, got["id"])
        await self.status(client, answer["id"], "success")

    async def test_several_ids_in_one_acknowledgement(self):
        sender, receiver = await self.clients(["ids-a", "ids-b"])
        ids = [(await self.send_ack(sender, "ids-b", n))["id"] for n in range(3)]
        for _ in ids:
            await receiver.message()
        await self.ack(receiver, *ids)
        told = {(await sender.notify("message.status"))["id"] for _ in ids}
        self.assertEqual(told, set(ids))

    async def test_unknown_double_and_late_acknowledgements_do_no_harm(self):
        sender, receiver = await self.clients(["late-a", "late-b"])
        before = self.hub.metrics()
        answer = await self.send_ack(sender, "late-b", 1)
        await receiver.message()
        await self.ack(receiver, "never-heard-of")
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")
        await self.ack(receiver, answer["id"])
        await self.ack(receiver, answer["id"], answer["id"])
        await receiver.quiet()
        after = self.hub.metrics()
        grew = {result: after[f'ringhub_acks_total{{result="{result}"}}'] -
                before[f'ringhub_acks_total{{result="{result}"}}']
                for result in ("settled", "late", "unknown")}
        self.assertEqual(grew, {"settled": 1, "late": 3, "unknown": 1})

    async def test_another_user_cannot_acknowledge(self):
        sender, receiver, thief = await self.clients(["thief-a", "thief-b", "thief-c"])
        answer = await self.send_ack(sender, "thief-b", 1)
        await receiver.message()
        await self.ack(thief, answer["id"])
        await self.ack(sender, answer["id"])
        await thief.quiet()
        await sender.quiet()
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")

    async def test_malformed_acknowledgements_are_invalid(self):
        client = await self.client("malformed")
        for data in ("", ',"data":null', ',"data":{}', ',"data":{"id":1}', ',"data":{"ids":"x"}',
                     ',"data":{"ids":[1]}', ',"data":[]', ',"data":"x"'):
            with self.subTest(data):
                await client.send('{"type":"ack"%s}' % data)
                self.assert_error(await client.receive(), 400, "bad_request")
                await client.quiet()

    async def test_more_than_max_unacked_wait_in_their_order(self):
        sender, receiver = await self.clients(["max-a", "max-b"])
        answers = [await self.send_ack(sender, "max-b", n) for n in range(5)]
        self.assertEqual([a["status"] for a in answers], ["sent"] * 3 + ["stored"] * 2)
        plain = await sender.send_message("max-b", "plain")
        self.assertEqual(plain["status"], "stored")
        for number in range(3):
            self.assertEqual((await receiver.message())["content"], number)
        await receiver.quiet()
        await self.ack(receiver, answers[1]["id"])
        self.assertEqual((await receiver.message())["content"], 3)
        await receiver.quiet()
        await self.ack(receiver, answers[0]["id"])
        self.assertEqual((await receiver.message())["content"], 4)
        self.assertEqual((await receiver.message())["content"], "plain")
        await self.ack(receiver, *(answers[n]["id"] for n in (2, 3, 4)))
        await self.settled()

    async def test_who_leaves_before_acknowledging_gets_it_again(self):
        sender, receiver = await self.clients(["again-a", "again-b"])
        ids = [(await self.send_ack(sender, "again-b", n))["id"] for n in range(3)]
        first = [await receiver.message() for _ in ids]
        await self.ack(receiver, ids[1])
        await self.status(sender, ids[1], "success")
        receiver.cut()
        receiver = await self.client("again-b")
        for number in (0, 2):
            got = await receiver.message()
            self.assertEqual(got, {**first[number], "attempt": 2})
        await receiver.quiet()
        await self.ack(receiver, ids[0], ids[2])
        await self.settled()

    async def test_what_waits_comes_before_what_is_new(self):
        sender, receiver = await self.clients(["front-a", "front-b"])
        ids = [(await self.send_ack(sender, "front-b", n))["id"] for n in range(2)]
        for _ in ids:
            await receiver.message()
        await self.gone(receiver)
        self.assertEqual((await sender.send_message("front-b", 2))["status"], "stored")
        ids += [(await self.send_ack(sender, "front-b", 3))["id"]]
        receiver = await self.client("front-b")
        self.assertEqual([(await receiver.message())["content"] for _ in range(4)], [0, 1, 2, 3])
        await self.ack(receiver, *ids)
        await self.settled()

    async def test_an_acknowledgement_by_a_later_connection_settles(self):
        sender, receiver = await self.clients(["later-a", "later-b"])
        answer = await self.send_ack(sender, "later-b", 1)
        await receiver.message()
        receiver.cut()
        receiver = await self.client("later-b")
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")

    async def test_a_second_device_gets_it_only_when_it_is_repeated(self):
        sender, first = await self.clients(["second-a", "second-b"])
        answer = await self.send_ack(sender, "second-b", 1)
        await first.message()
        second = await self.client("second-b")
        await second.quiet()
        await self.gone(first)  # nobody is left who was handed it: it waits, and goes out
        got = await second.message()
        self.assertEqual((got["id"], got["attempt"]), (answer["id"], 2))
        await self.ack(second, answer["id"])
        await self.status(sender, answer["id"], "success")

    async def test_one_device_is_enough(self):
        sender, first, second = await self.clients(["any-a", "any-b", "any-b"])
        answer = await self.send_ack(sender, "any-b", 1)
        for device in (first, second):
            self.assertEqual((await device.message())["attempt"], 1)
        await self.ack(second, answer["id"])
        await self.status(sender, answer["id"], "success")
        await self.gone(second)
        await first.quiet()

    async def test_content_priority_and_extras_come_unchanged(self):
        sender, receiver = await self.clients(["extra-a", "extra-b"])
        fields = {"priority": "low", "type": "image", "tags": ["a", "b"], "fields": {"k": [1, None]},
                  "reply_to": "other.1"}
        answer = await self.send_ack(sender, "extra-b", {"é": "\u0000"}, **fields)
        got = await receiver.message()
        for name, value in fields.items():
            self.assertEqual(got[name], value)
        receiver.cut()
        receiver = await self.client("extra-b")
        self.assertEqual(await receiver.message(), {**got, "attempt": 2})
        await self.ack(receiver, answer["id"])
        await self.settled()

    async def test_a_bad_ttl_is_refused(self):
        sender = await self.client("ttl-bad")
        for ttl in (0, -1, 1.5, "1", True):
            got = await sender.request("message.send", {"to": "x", "content": 1, "ttl_ms": ttl})
            self.assert_error(got, 400, "bad_request")


class Repeated(OwedCase):
    """Short waits: 200, 400 and 500 ms, 10 % more or less, then the last wait once more."""

    options = {"ack.timeout": "200ms", "ack.max_delay": "500ms", "ack.max_retries": "3"}

    async def test_what_is_not_acknowledged_is_repeated_and_ends(self):
        sender, receiver = await self.clients(["rep-a", "rep-b"])
        answer = await self.send_ack(sender, "rep-b", "again and again")
        began, rows = time.monotonic(), []
        for _ in range(4):
            rows.append(await receiver.message())
            rows[-1]["after"] = time.monotonic() - began
        await self.status(sender, answer["id"], "ack_timeout", "ack_timeout")
        ended = time.monotonic() - began
        await receiver.quiet()
        self.assertEqual([row["attempt"] for row in rows], [1, 2, 3, 4])
        self.assertEqual(len({(row["id"], row["seq"], row["content"]) for row in rows}), 1)
        times = [row["after"] for row in rows] + [ended]
        for (earlier, later), wait in zip(zip(times, times[1:]), (0.2, 0.4, 0.5, 0.5)):
            self.assertGreater(later - earlier, wait * 0.9 - 0.05, times)
        await self.settled()

    async def test_an_acknowledgement_ends_the_repetitions(self):
        sender, receiver = await self.clients(["stop-a", "stop-b"])
        answer = await self.send_ack(sender, "stop-b", 1)
        await receiver.message()
        self.assertEqual((await receiver.message())["attempt"], 2)
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")
        await asyncio.sleep(0.8)
        await receiver.quiet()

    async def test_a_new_device_gets_the_repetition(self):
        sender, first = await self.clients(["new-a", "new-b"])
        answer = await self.send_ack(sender, "new-b", 1)
        await first.message()
        second = await self.client("new-b")
        attempt = (await second.message())["attempt"]
        self.assertGreaterEqual(attempt, 2)
        await self.ack(second, answer["id"])
        await self.status(sender, answer["id"], "success")

    async def test_each_connect_begins_the_schedule_anew(self):
        sender, receiver = await self.clients(["anew-a", "anew-b"])
        answer = await self.send_ack(sender, "anew-b", 1)
        for attempt in (1, 2, 3):
            self.assertEqual((await receiver.message())["attempt"], attempt)
        await self.gone(receiver)
        await asyncio.sleep(1.2)  # offline for longer than the schedule would have taken
        receiver = await self.client("anew-b")
        for attempt in (4, 5, 6, 7):
            self.assertEqual((await receiver.message())["attempt"], attempt)
        await self.status(sender, answer["id"], "ack_timeout", "ack_timeout")

    async def test_a_message_ends_at_its_time(self):
        sender, receiver = await self.clients(["ttl-a", "ttl-b"])
        answer = await self.send_ack(sender, "ttl-b", 1, ttl_ms=350)
        await receiver.message()
        await self.status(sender, answer["id"], "expired", "expired")
        while receiver.aside:
            receiver.aside.popleft()
        await self.settled()

    async def test_an_end_waits_for_a_sender_who_has_gone(self):
        sender, receiver = await self.clients(["away-a", "away-b"])
        answer = await self.send_ack(sender, "away-b", 1)
        await self.gone(sender)
        for _ in range(4):
            await receiver.message()
        metric = 'ringhub_failures_total{class="timeout"}'
        await asyncio.to_thread(eventually, lambda: self.hub.metrics()[metric] >= 1, "a timeout")
        await asyncio.sleep(0.3)
        sender = await self.client("away-a")
        await self.status(sender, answer["id"], "ack_timeout", "ack_timeout")
        await sender.quiet()
        await self.settled()

    async def test_metrics_count_repetitions(self):
        before = self.hub.metric('ringhub_retries_total{reason="ack_timeout"}')
        sender, receiver = await self.clients(["count-a", "count-b"])
        answer = await self.send_ack(sender, "count-b", 1)
        for _ in range(4):
            await receiver.message()
        await self.status(sender, answer["id"], "ack_timeout", "ack_timeout")
        self.assertEqual(self.hub.metric('ringhub_retries_total{reason="ack_timeout"}') - before, 3)


class Policy(OwedCase):

    options = {"ack.timeout": "300ms", "ack.max_retries": "2", "ack.policy": "all",
               "ack.default": "true", "ack.progress": "true"}

    async def until_end(self, sender, id):
        """The states that the sender is told of that message, the last one its end."""
        states = []
        while not states or states[-1] not in ("success", "failed", "ack_timeout", "expired"):
            got = await sender.notify("message.status")
            self.assertEqual(got["id"], id)
            states.append(got["status"])
        return states

    async def test_all_devices_have_to_acknowledge(self):
        sender, first, second = await self.clients(["all-a", "all-b", "all-b"])
        answer = await sender.send_message("all-b", 1)
        self.assertTrue((await first.message())["ack"])
        await second.message()
        await self.ack(first, answer["id"])
        while (await second.message())["attempt"] < 2:
            pass
        await self.ack(second, answer["id"])
        self.assertEqual((await self.until_end(sender, answer["id"]))[-1], "success")

    async def test_a_device_that_leaves_is_not_waited_for(self):
        sender, first, second = await self.clients(["leave-a", "leave-b", "leave-b"])
        answer = await sender.send_message("leave-b", 1)
        await first.message()
        await second.message()
        await self.ack(first, answer["id"])
        await first.quiet()
        await self.gone(second)
        self.assertEqual((await self.until_end(sender, answer["id"]))[-1], "success")

    async def test_the_sender_is_told_the_states_on_the_way(self):
        sender, receiver = await self.clients(["way-a", "way-b"])
        answer = await sender.send_message("way-b", 1)
        for _ in range(3):
            await receiver.message()
        states = await self.until_end(sender, answer["id"])
        self.assertEqual(states[-1], "ack_timeout")
        self.assertEqual([s for s in states if s != "sending"], ["retrying", "retrying", "ack_timeout"])

    async def test_a_message_may_say_that_it_wants_none(self):
        sender, receiver = await self.clients(["no-a", "no-b"])
        await sender.send_message("no-b", 1, ack=False)
        self.assertFalse((await receiver.message())["ack"])
        await sender.quiet()


class NotRepeated(OwedCase):
    options = {"ack.timeout": "100ms", "retry.non_retryable": "ack_timeout"}

    async def test_a_reason_that_is_not_retryable_is_not_repeated(self):
        sender, receiver = await self.clients(["non-a", "non-b"])
        answer = await self.send_ack(sender, "non-b", 1)
        await receiver.message()
        await self.status(sender, answer["id"], "ack_timeout", "ack_timeout")
        await receiver.quiet()


class Memory(OwedCase):
    options = {**NEVER, "store.durability": "memory"}

    async def test_without_a_disk_it_is_the_same_while_the_hub_lives(self):
        sender, receiver = await self.clients(["mem-a", "mem-b"])
        answer = await self.send_ack(sender, "mem-b", 1)
        await receiver.message()
        receiver.cut()
        receiver = await self.client("mem-b")
        self.assertEqual((await receiver.message())["attempt"], 2)
        await self.ack(receiver, answer["id"])
        await self.status(sender, answer["id"], "success")


