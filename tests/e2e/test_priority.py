"""Messages of high priority overtake what is queued for a connection (PROTOCOL 4, "Priority").

The receiver does not read until a send of the hub to it is blocked, so that all that follows has to
queue. A second device of the same user, which reads, tells when everything is in both queues: then
the first one reads on, and what it finds must stand in exactly the order of the lanes.
"""

import json
import pathlib
import unittest

import raw
from clients import ClientCase, envelope

BIG = "x" * 500_000
LANE = 64
KERNEL_TAKES = int(pathlib.Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
HIGH = ("high", "urgent", "critical")


class Priority(ClientCase):
    options = {"limits.send_queue_messages": 20_000, "limits.send_queue_bytes": "64MiB",
               "limits.send_timeout": "120s"}

    async def open(self, name):
        """The user `name` with a device that will not read (a Wire) and one that does."""
        self.wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(self.wire.sock.close)
        self.wire.upgrade(f"/ws?user_id={name}&device=stops")
        self.assertEqual(envelope(self.wire.message().payload.decode())["event"], "welcome")
        self.name = name
        self.device = await self.client(name, device="reads")
        self.sender = await self.client(f"{name}-sender")

    async def send(self, content, priority):
        """Sends one; when this returns it stands in both devices' queues, or has left them."""
        await self.sender.send_message(self.name, content, priority=priority)
        got = await self.device.message()
        self.assertEqual((got["content"], got["priority"]), (content, priority))

    async def block(self):
        """More than the kernel takes for a connection whose peer does not read; the number of
        messages. Those behind its bound wait, and the last of them is surely not on its way."""
        count = KERNEL_TAKES // len(BIG) + 6
        for number in range(count):
            await self.send(["big", number, BIG], "normal")
        return count

    def read(self, bigs, count):
        """Reads on: the contents of the `count` small messages, and how many of the big ones came
        before the first of these."""
        small, seen, before = [], 0, None
        while seen < bigs or len(small) < count:
            content = json.loads(self.wire.message().payload)["data"]["content"]
            if isinstance(content, list):
                self.assertEqual(content[:2], ["big", seen])
                seen += 1
            else:
                before = seen if before is None else before
                small.append(content)
        return small, before

    async def expect(self, priorities):
        """Blocks, sends messages of these priorities, and compares with what the lanes give."""
        bigs = await self.block()
        for number, priority in enumerate(priorities):
            await self.send(number, priority)
        small, before = self.read(bigs, len(priorities))
        high = [i for i, priority in enumerate(priorities) if priority in HIGH][:LANE]
        rest = [i for i in range(len(priorities)) if i not in high]
        self.assertEqual(small, high + rest)
        if high:
            self.assertLess(before, bigs)  # they overtook the big ones, too
        else:
            self.assertEqual(before, bigs)

    async def test_high_urgent_and_critical_come_before_what_is_queued(self):
        await self.open("overtake")
        await self.expect(["normal"] * 20 + ["high", "urgent", "critical"] * 5)

    async def test_both_lanes_keep_their_order_however_they_are_mixed(self):
        await self.open("mixed")
        await self.expect(["normal", "critical", "low", "high", "normal", "urgent", "low"] * 9)

    async def test_low_and_normal_never_overtake(self):
        await self.open("ordinary")
        await self.expect(["low", "normal", "normal", "low", "low"] * 10)

    async def test_64_high_ones_fit_into_the_lane(self):
        await self.open("exactly")
        await self.expect(["normal"] + ["high"] * LANE + ["normal"])

    async def test_more_than_64_high_ones_keep_their_order(self):
        await self.open("many")
        await self.expect((["normal"] + ["high", "critical", "urgent"] * 2) * 30)

    async def test_a_lane_that_was_full_opens_again(self):
        await self.open("again")
        await self.expect(["high"] * (LANE + 30) + ["normal"] * 10)
        await self.expect(["normal"] * 10 + ["high"] * (LANE + 30))
        await self.expect(["normal", "critical"] * 10)


if __name__ == "__main__":
    unittest.main()
