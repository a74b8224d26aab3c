"""Senders who do not read what became of their messages (PROTOCOL 3 and 4)."""

import asyncio

import raw
import slow
from clients import OwedCase, envelope
from hub import eventually

COUNT = 300
CHOKED = 64  # four times the bound


class Statuses(OwedCase):

    options = {"limits.send_queue_messages": "16", "limits.slow_consumer": "drop_newest",
               "retry.max_retries": "0", "limits.send_timeout": "1h"}

    def send_row(self, wire):
        """Messages to somebody who is not there; all are answered."""
        for number in range(COUNT):
            wire.send(slow.ask("message.send", {"to": "away", "content": 1, "ack": True,
                                                "id": f"row-{number}", "ttl_ms": 3000}))
            while envelope(wire.message().payload.decode())["type"] != "response":
                pass

    @staticmethod
    def read_to_end(wire):
        """The ids whose end it was told, until it is closed."""
        ids, code = [], None
        while code is None:
            got = wire.frame()
            if got.opcode == raw.CLOSE:
                code = int.from_bytes(got.payload[:2], "big")
            elif got.opcode == raw.TEXT:
                message = envelope(got.payload.decode())
                if message["event"] == "message.status":
                    ids.append(message["data"]["id"])
        return ids, code

    async def test_a_sender_who_does_not_read_is_closed_and_told_the_rest_later(self):
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade("/ws?user_id=deaf")
        wire.message()
        blocker = await self.client("blocker")
        self.send_row(wire)
        for _ in range(slow.BLOCK):
            await blocker.request("message.send", {"to": "deaf", "content": slow.BIG})
        await asyncio.to_thread(eventually, lambda: self.hub.metric(slow.DISCONNECTED), "4408")
        self.assertLess(self.hub.metric("ringhub_send_queue_messages"), 2 * CHOKED)
        told, code = await asyncio.to_thread(self.read_to_end, wire)
        self.assertEqual(code, 4408)
        self.assertLess(len(told), COUNT)
        wire.sock.close()
        again = await self.client("deaf")
        while len(told) < COUNT:
            got = await again.receive()
            if got.get("event") == "message.status":
                self.assertEqual(got["data"]["status"], "expired")
                told.append(got["data"]["id"])
        self.assertEqual(sorted(told), sorted(f"row-{number}" for number in range(COUNT)))
        await self.settled()
