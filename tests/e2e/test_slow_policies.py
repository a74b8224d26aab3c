"""What happens at the bound of a send queue: the four policies of limits.slow_consumer (PROTOCOL 4,
"Slow consumers"), with direct messages, messages of rooms and broadcasts.
"""

import asyncio
import random
import threading
import time
import unittest

import raw
from clients import envelope
from hub import SLOWNESS, eventually
from slow import BIG, BLOCK, BOUND, DISCONNECTED, KINDS, SlowCase, ask


class Dropping:
    """What all policies that drop have in common."""

    async def test_direct_messages_arrive_or_are_told_as_lost(self):
        await self.overflow("direct")

    async def test_messages_of_a_room_arrive_or_are_told_as_lost(self):
        await self.overflow("room")

    async def test_broadcasts_arrive_or_are_told_as_lost(self):
        await self.overflow("broadcast")

    async def test_a_loss_of_a_room_is_told_with_its_range(self):
        """The seq of a room has no holes: a loss has exactly the numbers in its range."""
        await self.begin()
        for number in range(BLOCK + 3 * BOUND):
            await self.send("room", f"{number} {BIG}")
        await self.end(["room"])
        self.assertEqual(self.sent["room"], list(range(1, BLOCK + 3 * BOUND + 2)))
        losses = self.slow.of("messages.lost")
        self.assertGreater(len(losses), 0)
        for loss in losses:
            self.assertEqual(loss["count"], loss["to_seq"] - loss["from_seq"] + 1)
            self.assertNotIn("broadcast", loss)

    async def test_all_kinds_together_are_settled_each_by_itself(self):
        await self.begin()
        for number in range(BLOCK + 2 * BOUND):
            for kind in KINDS:
                await self.send(kind, f"{number} {BIG}")
        await self.end()
        lost = self.settle()
        for kind in KINDS:
            self.assertGreater(lost[kind], 0, kind)

    async def test_it_falls_behind_and_catches_up_again_and_again(self):
        await self.begin()
        for turn in range(3):
            before = len(self.slow.of("messages.lost"))
            self.slow.sock.setsockopt(raw.socket.SOL_SOCKET, raw.socket.SO_RCVBUF, 4096)
            for number in range(BLOCK + 20 + 2 * BOUND):  # its window may have grown
                await self.send(KINDS[(number + turn) % 3], f"{turn} {number} {BIG}")
            await self.end()
            self.assertGreater(len(self.slow.of("messages.lost")), before)
        self.settle()

    async def test_it_reads_by_fits_and_starts(self):
        """A reader with pauses of its own, behind the sender by far: wherever it is when a message
        comes, it adds up."""
        await self.begin()
        dice, pauses = random.Random(20), random.Random(21)
        goes_on = threading.Event()
        progress = 0

        def read():
            while True:
                for _ in range(pauses.randrange(1, 40)):
                    self.slow.next()
                    if self.slow.events[-1][1].get("content") == "the end":
                        return
                target = progress + pauses.randrange(20, 150)
                while progress < target and not goes_on.is_set():
                    time.sleep(0.002)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for progress in range(500):
                size = dice.randrange(len(BIG) // 2, len(BIG))
                await self.send(dice.choice(KINDS), f"{progress} {BIG[:size]}")
        finally:
            goes_on.set()
            while reader.is_alive():  # the end itself may be lost
                await self.send("direct", "the end")
                await asyncio.sleep(0.05)
            reader.join()
        await self.end()
        self.assertGreater(sum(self.settle().values()), BOUND)

    async def test_a_loss_at_the_end_is_told_without_a_next_message(self):
        await self.begin()
        for kind in ("broadcast", "room", "direct"):
            for number in range(BLOCK // 2 + BOUND):
                await self.send(kind, f"{number} {BIG}")
        self.slow.quicken()
        wanted = sum(len(numbers) for numbers in self.sent.values())

        def settled():
            return sum(data["count"] if what == "messages.lost" else what != "response"
                       for what, data in self.slow.events)

        while settled() < wanted:
            self.slow.next()
        self.assertEqual(settled(), wanted)
        self.assertGreater(sum(self.settle().values()), 0)

    async def test_answers_and_pongs_are_never_dropped(self):
        """It asks all the while, so at the bound there are answers among the messages."""
        await self.begin()
        count = BLOCK + 3 * BOUND
        for number in range(count):
            self.slow.send(ask("ping", number, f"p{number}"))
            if number == BLOCK:
                self.slow.send(raw.frame(raw.PING, b"are you there?"))
            await self.send("direct", f"{number} {BIG}")
        self.slow.quicken()
        pongs = []
        while len(self.slow.of("response")) < count:
            if (got := self.slow.message(keep_control=True)).opcode == raw.PONG:
                pongs.append(got.payload)
            else:
                self.slow.note(got)
        self.assertEqual(self.slow.of("response"), list(range(count)))
        self.assertEqual(pongs, [b"are you there?"])
        await self.end(["direct"])
        self.assertGreater(self.settle()["direct"], BOUND)

    async def test_who_asks_and_never_reads_is_not_read_and_loses_no_answer(self):
        """Its reads pause, so memory is bounded; messages for it are dropped, answers are not."""
        await self.begin(quick=False)
        before, paused = self.hub.rss_kib(), self.hub.metric("ringhub_paused_reads_total")
        self.slow.sock.settimeout(0.5 * SLOWNESS)
        asked, rest = 0, b""
        while True:
            rest = rest or ask("ping", [asked, BIG], f"a{asked}")
            try:
                rest = rest[self.slow.sock.send(rest):]
            except TimeoutError:
                break
            asked += not rest
            self.assertLess(asked, 20_000, "the hub reads without end")
        self.assertGreater(self.hub.metric("ringhub_paused_reads_total"), paused)
        for number in range(50):
            await self.send("room", f"{number} {BIG}")
        self.assertLess(self.hub.rss_kib() - before, 48 * 1024 * SLOWNESS)
        self.slow.sock.settimeout(60 * SLOWNESS)
        self.slow.quicken()
        finish = threading.Thread(target=self.slow.sock.sendall, args=(rest,))
        finish.start()
        while len(self.slow.of("response")) < asked + bool(rest):
            self.slow.next()
        finish.join()
        self.assertEqual([data[0] for data in self.slow.of("response")],
                         list(range(asked + bool(rest))))
        await self.end(["room"])
        self.settle()

    async def test_others_are_not_delayed(self):
        await self.begin()
        await self.block()
        anna, bert = await self.clients([f"{self.user}-anna", f"{self.user}-bert"])
        for client in (anna, bert):
            joined = await client.request("room.join", {"room": self.room})
            self.assertEqual(joined["type"], "response", joined)
        joined = [await anna.receive(), await self.quick.receive(), await self.quick.receive()]
        self.assertEqual({got["event"] for got in joined}, {"room.joined"})
        for number in range(3 * BOUND):
            began = time.monotonic()
            await self.send("room", f"{number} {BIG}")
            for client in (anna, bert):
                got = await client.receive()
                self.assertEqual(got["event"], "room.message", got)
                self.assertEqual(got["data"]["content"], f"{number} {BIG}")
            self.assertLess(time.monotonic() - began, 2 * SLOWNESS)

    async def test_it_is_not_closed_for_being_slow(self):
        before = self.hub.metrics().get(DISCONNECTED, 0)
        await self.overflow("direct")
        self.assertEqual(self.hub.metrics().get(DISCONNECTED, 0), before)


class DropOldest(Dropping, SlowCase):
    policy = "drop_oldest"

    async def test_the_newest_stay_and_the_oldest_go(self):
        for kind in KINDS:
            with self.subTest(kind):
                await self.begin()
                await self.block()
                for number in range(5 * BOUND):
                    await self.send(kind, number)
                self.slow.catch_up()
                what = {"direct": "message", "room": "room.message"}.get(kind, kind)
                came = [got["content"] for got in self.slow.of(what)
                        if isinstance(got["content"], int)]
                self.assertGreater(len(came), 0)
                self.assertLessEqual(len(came), 2 * BOUND)  # besides the queue, what was on its way
                self.assertEqual(came[-1], 5 * BOUND - 1)
                tail = [n for n in came if n > 5 * BOUND - len(came) - 1]
                self.assertGreaterEqual(len(tail), min(BOUND, len(came)) // 2)
                self.assertEqual(tail, list(range(5 * BOUND - len(tail), 5 * BOUND)))
                await self.end([kind])
                self.settle()

    async def test_without_a_quick_device_the_same_holds(self):
        for kind in KINDS:
            with self.subTest(kind):
                await self.begin(quick=False)
                for number in range(BLOCK + 3 * BOUND):
                    await self.send(kind, f"{number} {BIG}")
                await self.end([kind])
                self.assertGreaterEqual(self.settle()[kind], BOUND)

    async def test_high_ones_are_counted_too(self):
        """They overtake, so only the sum is told exactly."""
        await self.begin()
        await self.block()
        for number in range(4 * BOUND):
            await self.send("direct", number, priority="high" if number % 3 else "normal")
        self.slow.catch_up()
        await self.send("direct", "last")
        self.slow.read_until("last")
        lost = sum(loss["count"] for loss in self.slow.of("messages.lost"))
        self.assertGreater(lost, 0)
        self.assertEqual(len(self.slow.of("message")) + lost, len(self.sent["direct"]))
        seqs = [got["seq"] for got in self.slow.of("message")]
        self.assertEqual(len(seqs), len(set(seqs)))


class DropNewest(Dropping, SlowCase):
    policy = "drop_newest"

    async def test_the_oldest_stay_and_the_newest_go(self):
        for kind in KINDS:
            with self.subTest(kind):
                await self.begin()
                await self.block()
                for number in range(5 * BOUND):
                    await self.send(kind, number)
                self.slow.catch_up()
                what = {"direct": "message", "room": "room.message"}.get(kind, kind)
                came = [got["content"] for got in self.slow.of(what)
                        if isinstance(got["content"], int)]
                self.assertLessEqual(len(came), 2 * BOUND)
                self.assertEqual(came, list(range(len(came))))
                await self.end([kind])
                self.assertGreaterEqual(self.settle()[kind], 3 * BOUND)


class Conflate(Dropping, SlowCase):
    policy = "conflate"

    def last_of_each_key(self):
        """Of the room's messages that arrived, the newest content per key."""
        return {got["key"]: got["content"] for got in self.slow.of("room.message") if "key" in got}

    async def test_the_newest_of_each_key_arrives(self):
        await self.begin(conflate=True)
        await self.block()
        await self.send("room", "rare", key="rare")
        for number in range(300):
            await self.send("room", number, key=f"hot-{number % 5}")
        await self.end(["room"])
        self.assertGreater(self.settle()["room"], 100)
        self.assertEqual(self.last_of_each_key(),
                         {"rare": "rare", **{f"hot-{k}": 295 + k for k in range(5)}})

    async def test_a_key_that_comes_again_is_newer_than_all_others(self):
        """What conflation leaves is still in the room's order."""
        await self.begin(conflate=True)
        await self.block()
        dice = random.Random(4)
        newest = {}
        for number in range(300):
            key = f"k{dice.randrange(8)}"
            newest[key] = number
            await self.send("room", number, key=key)
        await self.end(["room"])
        self.assertGreater(self.settle()["room"], 100)
        self.assertEqual(self.last_of_each_key(), newest)
        seqs = [got["seq"] for got in self.slow.of("room.message")]
        self.assertEqual(seqs, sorted(seqs))

    async def test_messages_without_a_key_are_dropped_from_the_oldest_on(self):
        await self.begin(conflate=True)
        await self.block()
        for number in range(5 * BOUND):
            await self.send("room", number)
        await self.end(["room"])
        self.assertGreaterEqual(self.settle()["room"], 3 * BOUND)
        came = [got["content"] for got in self.slow.of("room.message")]
        self.assertIn(5 * BOUND - 1, came)
        self.assertRegex(came[-1], "^last room")

    async def test_more_keys_than_the_queue_holds_lose_the_oldest(self):
        await self.begin(conflate=True)
        await self.block()
        for number in range(4 * BOUND):
            await self.send("room", number, key=f"key-{number}")
        await self.end(["room"])
        self.assertGreaterEqual(self.settle()["room"], 2 * BOUND)
        self.assertIn(4 * BOUND - 1, [got["content"] for got in self.slow.of("room.message")])

    async def test_a_room_that_does_not_conflate_keeps_no_key(self):
        await self.begin()
        await self.block("room")
        await self.send("room", "rare", key="rare")
        for number in range(5 * BOUND):
            await self.send("room", number, key="hot")
        await self.end(["room"])
        self.assertGreaterEqual(self.settle()["room"], 3 * BOUND)
        contents = [got["content"] for got in self.slow.of("room.message")]
        self.assertNotIn("rare", contents)
        for number in range(5 * BOUND - BOUND // 2, 5 * BOUND):  # the newest, not one per key
            self.assertIn(number, contents)


class Disconnect(SlowCase):
    policy = "disconnect"

    async def overflow(self, kind):
        """The slow one is closed with 4408; what it got until then has no gap; others get all."""
        await self.begin()
        other = await self.client(f"{self.user}-other")
        joined = await other.request("room.join", {"room": self.room})
        self.assertEqual(joined["type"], "response", joined)
        self.assertEqual((await self.quick.receive())["event"], "room.joined")
        before = self.hub.metrics().get(DISCONNECTED, 0)
        for number in range(BLOCK + 3 * BOUND):
            await self.send(kind, f"{number} {BIG}")
        eventually(lambda: self.hub.metrics().get(DISCONNECTED, 0) == before + 1, "closed: 4408")
        await self.send(kind, "after it")
        if kind != "direct":
            for number in range(BLOCK + 3 * BOUND):
                self.assertEqual((await other.receive())["data"]["content"], f"{number} {BIG}")
            self.assertEqual((await other.receive())["data"]["content"], "after it")
        self.slow.quicken()
        came = 0
        try:
            while (got := self.slow.frame()).opcode != raw.CLOSE:
                got = envelope(got.payload.decode())
                if got["event"] != "room.joined":
                    self.assertEqual(got["data"]["content"], f"{came} {BIG}")
                    came += 1
            self.assertEqual(got.payload[:2], (4408).to_bytes(2, "big"))  # "best effort"
        except raw.Closed:
            pass
        self.assertLess(came, BLOCK + 3 * BOUND)

    async def test_by_direct_messages(self):
        await self.overflow("direct")

    async def test_by_messages_of_a_room(self):
        await self.overflow("room")

    async def test_by_broadcasts(self):
        await self.overflow("broadcast")


if __name__ == "__main__":
    unittest.main()
