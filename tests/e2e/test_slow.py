"""Clients that do not read: bounded, closed with 4408, and nobody else suffers (PROTOCOL 4)."""

import asyncio
import json
import time
import unittest

import raw
from clients import ClientCase, envelope
from hub import SLOWNESS, eventually
from slow import KERNEL_TAKES

CONTENT = "x" * 8000  # 4 MB of them overflow every socket buffer and the queue behind it


def ask(event, data, request_id=None):
    message = {"type": "request", "event": event, "data": data}
    return json.dumps({**message, "request_id": request_id} if request_id else message)


class Receiver(ClientCase):
    """Someone writes to a user who does not read."""

    def deaf(self, user):
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade(f"/ws?user_id={user}")
        self.assertEqual(envelope(wire.message().payload.decode())["event"], "welcome")
        return wire

    async def test_at_the_bound_it_is_closed_with_4408_and_the_others_are_not(self):
        wire = self.deaf("deaf")
        anna, bert = await self.clients(["slow-anna", "slow-bert"])
        device = await self.client("deaf", device="reads")
        before = self.hub.metrics().get('ringhub_disconnects_total{code="4408"}', 0)
        sent = 0
        while self.hub.metrics().get('ringhub_disconnects_total{code="4408"}', 0) == before:
            for _ in range(50):
                await anna.send_message("deaf", [sent, CONTENT])
                sent += 1
            await anna.send_message("slow-bert", sent)
            self.assertEqual((await bert.message())["content"], sent)
            self.assertLess(sent, 20_000, "never closed")
        for number in range(sent):  # the other device has them all
            self.assertEqual((await device.message())["content"][0], number)
        received = 0
        try:
            while (got := wire.frame()).opcode != raw.CLOSE:
                self.assertEqual(json.loads(got.payload)["data"]["content"][0], received)
                received += 1
            self.assertEqual(got.payload[:2], (4408).to_bytes(2, "big"))  # "best effort"
        except raw.Closed:
            pass
        self.assertLess(received, sent)

    async def test_a_slow_reader_below_the_bound_gets_everything_in_order(self):
        wire = self.deaf("late")
        anna = await self.client("slow-carl")
        for number in range(200):
            await anna.send_message("late", number)
        for number in range(200):
            got = json.loads(wire.message().payload)
            self.assertEqual(got["data"]["content"], number)

    async def test_the_users_next_connection_is_served(self):
        self.deaf("again")
        anna = await self.client("slow-dora")
        before = self.hub.metrics().get('ringhub_disconnects_total{code="4408"}', 0)
        while self.hub.metrics().get('ringhub_disconnects_total{code="4408"}', 0) == before:
            for _ in range(50):
                await anna.request("message.send", {"to": "again", "content": CONTENT})
        again = await self.client("again")
        await anna.send_message("again", "back")
        while (content := (await again.message())["content"]) != "back":
            self.assertEqual(content, CONTENT)  # it was kept while there was no connection


class Bounds(ClientCase):
    options = {"limits.send_queue_bytes": "64MiB", "limits.send_timeout": "1s"}

    async def test_who_takes_nothing_for_send_timeout_is_closed(self):
        """Its queue is far from full, but nothing leaves it."""
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade("/ws?user_id=stuck")
        wire.message()
        anna = await self.client("timeout-anna")
        for _ in range(KERNEL_TAKES // 900_000 + 3):  # no more: a busy machine needs its time
            await anna.send_message("stuck", "x" * 900_000)
        began = time.monotonic()
        eventually(lambda: self.hub.metrics().get('ringhub_disconnects_total{code="4408"}'),
                   "closed with 4408")
        self.assertLess(time.monotonic() - began, 5 * SLOWNESS)


class Asker(ClientCase):
    """Someone asks and asks and never reads the answers: its reads pause; nothing is dropped."""

    options = {"echo.enabled": "true", "limits.send_timeout": "60s"}

    def flood(self, path, frames):
        """Sends frames until the hub takes no more; (the wire, how many went out whole)."""
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade(path)
        if path.startswith("/ws"):
            wire.message()
        wire.sock.settimeout(0.5 * SLOWNESS)
        sent, rest = 0, b""
        while True:
            rest = rest or frames(sent)
            try:
                rest = rest[wire.sock.send(rest):]
            except TimeoutError:
                break
            sent += not rest
            self.assertLess(sent, 200_000, "the hub reads without end")
        return wire, sent, rest

    def check(self, path, frames, number_of):
        before = self.hub.rss_kib()
        wire, sent, rest = self.flood(path, frames)
        self.assertLess(self.hub.rss_kib() - before, 32 * 1024 * SLOWNESS)
        self.assertEqual(self.hub.get("/livez") is None, False)
        paused = self.hub.metric("ringhub_paused_reads_total")
        self.assertGreater(paused, 0)
        wire.sock.settimeout(None)

        def finish():
            wire.sock.sendall(rest)

        loop = asyncio.new_event_loop()
        job = loop.run_in_executor(None, finish)
        for number in range(sent + bool(rest)):
            self.assertEqual(number_of(wire.message().payload), number)
        loop.run_until_complete(job)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def test_of_pings(self):
        self.check("/ws?user_id=asker",
                   lambda n: raw.frame(raw.TEXT, ask("ping", [n, CONTENT], "r")),
                   lambda payload: json.loads(payload)["data"][0])

    def test_of_echoes(self):
        self.check("/echo", lambda n: raw.frame(raw.BINARY, n.to_bytes(4, "big") + b"x" * 8000),
                   lambda payload: int.from_bytes(payload[:4], "big"))

    def test_of_errors(self):
        self.check("/ws?user_id=wrong",
                   lambda n: raw.frame(raw.TEXT, ask("no.such", 1, f"{n:064}")),
                   lambda payload: int(json.loads(payload)["request_id"]))

    def test_of_control_pings_is_bounded_too(self):
        wire = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade("/echo")
        before = self.hub.rss_kib()
        wire.sock.settimeout(0.5 * SLOWNESS)
        block = raw.frame(raw.PING, b"x" * 125) * 1000
        try:
            for _ in range(200):  # 26 MB
                wire.sock.sendall(block)
        except (TimeoutError, ConnectionError):
            pass
        self.assertLess(self.hub.rss_kib() - before, 16 * 1024 * SLOWNESS)

    async def test_others_are_served_meanwhile(self):
        wire, _, _ = self.flood("/ws?user_id=hog",
                                lambda n: raw.frame(raw.TEXT, ask("ping", CONTENT, "r")))
        clients = await self.clients([f"meanwhile-{i}" for i in range(16)])
        for client in clients:
            began = time.monotonic()
            await client.send_message(clients[0].user, 1)
            self.assertLess(time.monotonic() - began, 1 * SLOWNESS)
        wire.sock.close()


if __name__ == "__main__":
    unittest.main()
