"""Time and bytes at the bound of a send queue (PROTOCOL 4, "Slow consumers"): direct messages that
wait for room under drop_newest, limits.send_queue_bytes, limits.send_timeout.
"""

import asyncio
import time
import unittest

import raw
from hub import eventually
from slow import BIG, BLOCK, BOUND, DISCONNECTED, KINDS, SlowCase, dropped


class WaitingCase(SlowCase):
    """drop_newest, and no device of the user has room: direct messages wait for it a while."""

    async def fill(self):
        """Sends more BIG ones than kernel and queue take; the last ones wait."""
        await self.begin(quick=False)
        for number in range(BLOCK + BOUND):
            await self.send("direct", f"{number} {BIG}")

    def await_tries(self):
        """Until nothing waits any more: it has been sent, or given up."""
        eventually(lambda: not self.hub.metric("ringhub_retry_messages"), "nothing waits")


class Waiting(WaitingCase):
    policy = "drop_newest"

    async def fill(self):
        """... and all that waited have been given up."""
        await super().fill()
        self.await_tries()
        self.dropped_before = dropped(self.hub)
        self.assertGreater(self.dropped_before, self.dropped)

    async def test_what_cannot_be_sent_is_told_as_lost_after_the_last_try(self):
        await self.fill()
        began = time.monotonic()
        for number in range(20):
            await self.send("direct", f"waits {number}")
        eventually(lambda: dropped(self.hub) == self.dropped_before + 20, "all tries ended")
        self.assertGreater(time.monotonic() - began, 0.65)  # 100 + 200 + 400 ms
        await self.end(["direct"])
        self.assertGreaterEqual(self.settle()["direct"], 20)
        for got in self.slow.of("message"):
            self.assertNotIn("waits", got["content"])

    async def test_what_is_lost_is_told_without_a_next_message(self):
        await self.fill()
        await self.send("direct", "waits")
        eventually(lambda: dropped(self.hub) == self.dropped_before + 1, "all tries ended")
        self.slow.quicken()
        wanted = dropped(self.hub) - self.dropped
        while sum(loss["count"] for loss in self.slow.of("messages.lost")) < wanted:
            self.slow.next()
        self.assertGreaterEqual(self.settle()["direct"], 1)

    async def test_a_rooms_messages_and_broadcasts_do_not_wait(self):
        await self.fill()
        for number in range(10):
            await self.send("room", number)
            await self.send("broadcast", number)
        await self.end()
        lost = self.settle()
        self.assertEqual((lost["room"], lost["broadcast"]), (10, 10))

    async def test_one_device_with_room_is_enough(self):
        await self.fill()
        quick = await self.client(self.user, device="quick")
        for number in range(5):
            await self.send("direct", f"quick {number}")
            self.assertEqual((await quick.message())["content"], f"quick {number}")
        self.assertEqual(dropped(self.hub), self.dropped_before + 5)  # at once for the slow one
        await self.end(["direct"])
        self.settle()

    async def test_who_waits_is_forgotten_when_the_last_device_goes(self):
        await self.fill()
        for number in range(20):
            await self.send("direct", number)
        self.slow.reset()
        eventually(lambda: self.hub.metric("ringhub_connections") == 1, "it is gone")
        again = await self.client(self.user, device="slow")
        await asyncio.sleep(1)  # all tries have ended
        await self.sender.send_message(self.user, "now")
        while (got := await again.message())["content"] != "now":
            self.assertIn(got["content"], range(20))
        await again.quiet()


class WaitingLonger(WaitingCase):
    """The same with tries after 1, 3 and 7 s: time to read on."""

    policy = "drop_newest"
    options = {**SlowCase.options, "retry.base_delay": "1s"}

    async def test_they_come_when_there_is_room_again_and_in_order(self):
        await self.fill()
        for number in range(20):
            await self.send("direct", f"waits {number}")
        self.slow.catch_up()
        for number in range(20):  # there is room now, but others are before them
            await self.send("direct", f"later {number}")
        self.slow.read_until("later 19")
        await self.end(["direct"])
        self.assertEqual(self.settle()["direct"], 0)
        small = [got["content"] for got in self.slow.of("message") if len(got["content"]) < 20]
        self.assertEqual(small[:-1],
                         [f"{when} {n}" for when in ("waits", "later") for n in range(20)])

    async def test_more_than_256_that_wait_are_refused(self):
        await self.fill()
        metric = 'ringhub_failures_total{class="queue_full"}'
        failures = self.hub.metrics().get(metric, 0)
        for number in range(400):
            await self.sender.send({"type": "request", "event": "message.send",
                                    "request_id": f"w{number}",
                                    "data": {"to": self.user, "content": number}})
        answers = [await self.sender.answer(f"w{number}") for number in range(400)]
        accepted = [n for n, got in enumerate(answers) if got["type"] == "response"]
        self.assertIn(len(accepted), range(256 - BLOCK - BOUND, 257))  # some were there already
        for number, got in enumerate(answers):
            if number not in accepted:
                self.assert_error(got, 429, "queue_full")
        self.assertEqual(accepted, list(range(len(accepted))))
        self.assertEqual(self.hub.metrics()[metric], failures + 400 - len(accepted))
        self.sent["direct"] += accepted
        self.slow.catch_up()
        self.await_tries()
        await self.end(["direct"])
        self.assertEqual(self.settle()["direct"], 0)


class Bytes(SlowCase):
    """The bound in bytes; the other one is far."""

    policy = "drop_oldest"
    options = {**SlowCase.options, "limits.send_queue_messages": 20_000,
               "limits.send_queue_bytes": "256KiB"}

    async def test_the_queue_stays_below_it_and_the_account_is_settled(self):
        await self.begin()
        for number in range(BLOCK + 3 * BOUND):
            await self.send(KINDS[number % 3], f"{number} {BIG}")
        queued = eventually(lambda: self.hub.metric("ringhub_send_queue_bytes"), "it queues")
        self.assertLess(queued, (256 << 10) + 2 * len(BIG))
        await self.end()
        self.assertGreaterEqual(sum(self.settle().values()), BOUND)

    async def test_an_empty_queue_takes_any_one_message(self):
        await self.begin()
        self.slow.quicken()
        for kind in KINDS:
            for number in range(3):
                await self.send(kind, f"{number} {BIG * 8}")
                self.slow.read_until(f"{number} {BIG * 8}")
        self.assertEqual(sum(self.settle().values()), 0)


class SendTimeout(SlowCase):
    """Dropping helps only who reads at all."""

    policy = "drop_oldest"
    options = {**SlowCase.options, "limits.send_timeout": "2s"}

    async def test_who_takes_nothing_for_send_timeout_is_closed(self):
        await self.begin()
        before = self.hub.metrics().get(DISCONNECTED, 0)
        for number in range(BLOCK + BOUND):
            await self.send("direct", f"{number} {BIG}")
        eventually(lambda: self.hub.metrics().get(DISCONNECTED, 0) == before + 1, "closed: 4408")
        self.slow.quicken()
        try:
            while (got := self.slow.frame()).opcode == raw.TEXT:
                pass
            self.assertEqual((got.opcode, got.payload[:2]), (raw.CLOSE, (4408).to_bytes(2, "big")))
        except raw.Closed:
            pass  # its buffers were full
        await self.send("direct", "after it")

    async def test_who_takes_a_little_stays(self):
        await self.begin()
        self.slow.quicken()
        before = self.hub.metrics().get(DISCONNECTED, 0)
        for number in range(BLOCK + 2 * BOUND):
            await self.send("direct", f"{number} {BIG}")
        end = time.monotonic() + 4
        while time.monotonic() < end:
            for _ in range(30):  # the kernel tells of room only when a third of its buffer is free
                self.slow.next()
                await self.send("direct", f"{end} {BIG}")
            await asyncio.sleep(0.2)
        self.assertEqual(self.hub.metrics().get(DISCONNECTED, 0), before)
        await self.end(["direct"])
        self.assertGreater(self.settle()["direct"], 0)


if __name__ == "__main__":
    unittest.main()
