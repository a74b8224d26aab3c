"""Several connections of one user, replacement by the same device, and heartbeats (PROTOCOL 2, 5)."""

import asyncio
import time
import unittest

import raw
from clients import ClientCase, envelope, open_client
from hub import HubCase, eventually


class Devices(ClientCase):

    async def test_the_same_device_replaces_the_first_with_4409(self):
        first = await self.client("twin", device="phone")
        second = await self.client("twin", device="phone")
        code, reason = await first.closed()
        self.assertEqual(code, 4409)
        self.assertRegex(reason, r"\w+ \w+")
        await second.send_message("twin", "still here")
        self.assertEqual((await second.message())["content"], "still here")

    async def test_other_devices_and_other_users_stay(self):
        phone = await self.client("multi", device="phone")
        laptop = await self.client("multi", device="laptop")
        nameless = await self.client("multi")
        namesake = await self.client("other", device="phone")
        await self.client("multi", device="tablet")
        for client in (phone, laptop, nameless, namesake):
            await client.quiet()

    async def test_nameless_devices_never_replace_each_other(self):
        clients = await self.clients(["nameless"] * 5)
        for client in clients:
            await client.quiet()

    async def test_a_quick_row_of_replacements_leaves_the_last(self):
        clients = [await self.client("row", device="d") for _ in range(20)]
        for client in clients[:-1]:
            self.assertEqual((await client.closed())[0], 4409)
        await clients[-1].quiet()

    async def test_messages_go_to_the_new_connection_only(self):
        first = await self.client("moved", device="d")
        sender = await self.client("mover")
        second = await self.client("moved", device="d")
        for number in range(10):
            await sender.send_message("moved", number)
        self.assertEqual((await first.closed())[0], 4409)
        self.assertFalse([got for got in first.aside if got.get("event") == "message"])
        for number in range(10):
            self.assertEqual((await second.message())["content"], number)


class Heartbeat(HubCase):
    """The server pings every interval; after timeout without any frame it closes with 4410."""

    options = {"heartbeat.interval": "200ms", "heartbeat.timeout": "1s", "echo.enabled": "true"}

    def wire(self, path="/ws?user_id=heart"):
        wire = raw.Wire(self.hub)
        self.addCleanup(wire.sock.close)
        wire.upgrade(path)
        if path.startswith("/ws"):
            wire.message()
        return wire

    def test_welcome_tells_the_interval(self):
        with raw.Wire(self.hub) as wire:
            wire.upgrade("/ws?user_id=told")
            self.assertEqual(envelope(wire.message().payload.decode())["data"]["heartbeat_ms"],
                             200)

    def test_a_silent_client_is_pinged_and_closed_with_4410(self):
        began = time.monotonic()
        wires = [self.wire("/ws?user_id=silent"), self.wire("/echo")]
        for wire in wires:
            pings = 0
            while (got := wire.frame()).opcode == raw.PING:
                pings += 1
            took = time.monotonic() - began
            self.assertEqual((got.opcode, got.payload[:2]),
                             (raw.CLOSE, (4410).to_bytes(2, "big")))
            self.assertGreaterEqual(pings, 2)
            self.assertGreater(took, 0.8)
            self.assertLess(took, 5)
        for wire in wires:
            wire.end()  # although the close was never answered

    def test_any_frame_counts_as_life(self):
        answers = {
            "pong": lambda got: raw.frame(raw.PONG, got.payload),
            "unasked pong": lambda got: raw.frame(raw.PONG, b"other"),
            "ping": lambda got: raw.frame(raw.PING, b"mine"),
            "request": lambda got: raw.frame(raw.TEXT,
                                             '{"type":"request","event":"ping","data":1}'),
            "a frame of a message that is not complete":
                lambda got, first=[raw.TEXT]: raw.frame(first.pop() if first else raw.CONT, "x",
                                                        fin=False),
        }
        wires = {name: self.wire(f"/ws?user_id=alive-{number}")
                 for number, name in enumerate(answers)}
        end = time.monotonic() + 3
        for wire in wires.values():
            wire.sock.settimeout(0.02)
        while time.monotonic() < end:
            for name, wire in wires.items():
                try:
                    got = wire.frame()
                except TimeoutError:
                    continue
                self.assertNotEqual(got.opcode, raw.CLOSE, f"{name}: {got}")
                if got.opcode == raw.PING:
                    wire.send(answers[name](got))

    def test_a_library_client_stays(self):
        async def live():
            client = await open_client(self.hub, "library")
            task = asyncio.ensure_future(client.closed())
            done, _ = await asyncio.wait([task], timeout=2.5)
            self.assertFalse(done, "closed")
            task.cancel()
            await client.close()
        asyncio.run(live())

    def test_a_client_that_is_cut_off_leaves_no_trace(self):
        before = self.hub.metric("ringhub_connections")
        wires = [self.wire(f"/ws?user_id=gone-{i}") for i in range(20)]
        eventually(lambda: self.hub.metric("ringhub_connections") <= before, "silent ones closed")
        for wire in wires:
            wire.sock.close()


class HandshakeTimeout(HubCase):
    """limits.handshake_timeout: who does not come to the point is cut off."""

    options = {"limits.handshake_timeout": "500ms"}

    def assert_cut(self, wires):
        began = time.monotonic()
        for wire in wires:
            try:
                while True:
                    wire.fill()
            except raw.Closed:
                pass
            self.assertLess(time.monotonic() - began, 5 + len(wires) / 100)

    def test_nothing_sent(self):
        self.assert_cut([raw.Wire(self.hub) for _ in range(20)])

    def test_half_a_head(self):
        wires = [raw.Wire(self.hub) for _ in range(20)]
        for number, wire in enumerate(wires):
            wire.send(raw.upgrade("/ws?user_id=half")[:5 + number * 7])
        self.assert_cut(wires)

    def test_a_byte_now_and_then_does_not_help(self):
        with raw.Wire(self.hub) as wire:
            began = time.monotonic()
            with self.assertRaises((BrokenPipeError, ConnectionResetError)):
                for byte in raw.upgrade("/ws?user_id=drip", {"X": "x" * 4000}):
                    wire.send(bytes([byte]))
                    time.sleep(0.01)
            self.assertLess(time.monotonic() - began, 5)

    def test_who_has_shaken_hands_stays(self):
        with raw.Wire(self.hub) as wire:
            wire.upgrade("/ws?user_id=stays")
            wire.message()
            self.assert_cut([raw.Wire(self.hub)])
            time.sleep(0.7)
            wire.send(raw.frame(raw.PING, b"here"))
            self.assertEqual(wire.frame()[:2], (raw.PONG, b"here"))


if __name__ == "__main__":
    unittest.main()
