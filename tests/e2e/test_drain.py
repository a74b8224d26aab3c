"""SIGTERM drains: everyone is told to go, at a random moment, and is closed with 1001; newcomers
are refused, nothing that was accepted is lost, and all of it ends in time (PROTOCOL 8).

Moments are taken from the `timestamp` of server.draining, which the hub writes: a test on a busy
machine may read it late.
"""

import asyncio
import json
import signal
import time
import unittest

import websockets

import raw
from clients import envelope, open_client
from hub import DEADLINE, SLOWNESS, Hub, eventually

SLACK = 3 * SLOWNESS  # seconds that a busy machine may take for what takes none


class Drained:
    """What a client saw of the drain."""

    def __init__(self, client):
        self.client, self.told, self.code, self.rest = client, None, None, []
        self.task = asyncio.ensure_future(self._read())

    async def _read(self):
        try:
            while True:
                got = await self.client.receive()
                if got.get("event") == "server.draining":
                    assert self.told is None, "told twice"
                    self.told = got
                else:
                    self.rest.append(got)
        except websockets.ConnectionClosed as end:
            self.code = end.rcvd.code if end.rcvd else 1006
            self.closed_at = time.time()


class DrainCase(unittest.IsolatedAsyncioTestCase):

    def start(self, sets=(), **how):
        self.hub = Hub({"shutdown.grace": "10s", **dict(sets)}, **how)
        self.addCleanup(self.hub.kill)
        return self.hub

    async def crowd(self, count):
        return await asyncio.gather(*(open_client(self.hub, f"drain-{n}") for n in range(count)))

    def terminate(self, sig=signal.SIGTERM):
        self.began = time.time()
        self.hub.process.send_signal(sig)

    async def drain(self, clients):
        """SIGTERM, and all of them to their ends: what they saw; each is told once, then closed
        with 1001, 200 ms later at the earliest."""
        seen = [Drained(client) for client in clients]
        self.terminate()
        await asyncio.wait_for(asyncio.gather(*(one.task for one in seen)), DEADLINE)
        for one in seen:
            self.assertEqual(one.code, 1001)
            self.assertIsNotNone(one.told, "closed, but never told")
            self.assertEqual(list(one.told["data"]), ["reconnect_in_ms"])
            self.assertIsInstance(one.told["data"]["reconnect_in_ms"], int)
            self.assertIn(one.told["data"]["reconnect_in_ms"], range(0, 600_000))
            self.assertGreater(one.closed_at - one.told["timestamp"] / 1000, 0.19)
        return seen

    async def end(self, within):
        """The hub ends by itself with status 0, so many seconds (and slack) behind the signal."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.hub.stop, None)
        self.assertLess(time.time() - self.began, within + SLACK)

    def wire(self, target="/ws?user_id=wire"):
        wire = raw.Wire(self.hub)
        self.addCleanup(wire.sock.close)
        wire.upgrade(target)
        if target.startswith("/ws"):
            self.assertEqual(envelope(wire.message().payload.decode())["event"], "welcome")
        return wire

    def ask(self, head):
        with raw.Wire(self.hub) as wire:
            wire.send(head)
            return wire.response()

    def to_the_end(self, wire):
        """The events that come up to the close, and its code."""
        events = []
        while (got := wire.frame()).opcode != raw.CLOSE:
            if got.opcode == raw.TEXT:
                events.append(envelope(got.payload.decode()))
        wire.send(raw.frame(raw.CLOSE, got.payload))
        wire.end()
        return events, int.from_bytes(got.payload[:2], "big")


class Notice(DrainCase):

    async def test_everyone_is_told_at_a_moment_of_its_own_within_spread(self):
        self.start({"shutdown.spread": "1200ms"})
        clients = await self.crowd(80)
        seen = await self.drain(clients)
        await self.end(1.4)
        moments = sorted(one.told["timestamp"] / 1000 - self.began for one in seen)
        self.assertGreater(moments[0], -0.1)
        self.assertLess(moments[-1], 1.2 + SLACK)
        quarters = [sum(1 for m in moments if q * 0.3 <= m < (q + 1) * 0.3) for q in range(4)]
        for quarter in quarters:  # 20 on the average
            self.assertGreater(quarter, 3, quarters)

    async def test_the_moments_are_random_not_in_the_order_of_arrival(self):
        self.start({"shutdown.spread": "500ms"})
        seen = await self.drain(await self.crowd(40))
        moments = [one.told["timestamp"] for one in seen]
        self.assertNotEqual(moments, sorted(moments))
        self.assertNotEqual(moments, sorted(moments, reverse=True))
        await self.end(0.7)

    async def test_without_spread_everyone_is_told_at_once(self):
        self.start()
        seen = await self.drain(await self.crowd(30))
        await self.end(0.2)
        for one in seen:
            self.assertLess(one.told["timestamp"] / 1000 - self.began, SLACK)

    async def test_a_long_spread_ends_within_half_of_grace(self):
        self.start({"shutdown.spread": "1h", "shutdown.grace": "2s"})
        seen = await self.drain(await self.crowd(40))
        await self.end(2)
        moments = [one.told["timestamp"] / 1000 - self.began for one in seen]
        self.assertLess(max(moments), 1 + SLACK)
        self.assertGreater(max(moments) - min(moments), 0.35)

    async def test_every_device_of_a_user_is_told(self):
        self.start({"shutdown.spread": "300ms"})
        await self.drain([await open_client(self.hub, "many", device=f"d{n}") for n in range(12)])
        await self.end(0.5)

    async def test_an_echo_has_no_envelope_and_is_just_closed(self):
        self.start({"shutdown.spread": "300ms", "echo.enabled": "true"})
        wires = [self.wire("/echo") for _ in range(8)]
        self.terminate()
        for wire in wires:
            self.assertEqual(self.to_the_end(wire), ([], 1001))
        await self.end(0.5)

    async def test_sigint_drains_too(self):
        self.start({"shutdown.spread": "300ms"})
        seen = [Drained(client) for client in await self.crowd(10)]
        self.terminate(signal.SIGINT)
        await asyncio.wait_for(asyncio.gather(*(one.task for one in seen)), DEADLINE)
        self.assertEqual({one.code for one in seen}, {1001})
        self.assertNotIn(None, [one.told for one in seen])
        await self.end(0.5)

    async def test_closed_ones_are_counted(self):
        self.start({"shutdown.spread": "1500ms"})
        clients = await self.crowd(40)
        for client in clients:
            asyncio.ensure_future(client.closed())
        self.terminate()
        metric, most = 'ringhub_disconnects_total{code="1001"}', 0
        while most < 5:
            most = self.hub.metrics().get(metric, 0)
            await asyncio.sleep(0.05)
        await self.end(1.7)


class Rate(DrainCase):

    async def test_so_many_are_closed_a_second(self):
        self.start({"drain.rate": 40})
        seen = await self.drain(await self.crowd(60))
        await self.end(7.5)
        ends = sorted(one.closed_at - self.began for one in seen)
        self.assertGreater(ends[-1], 0.8)  # 1.5 s, less what may come at once
        self.assertGreater(ends[-1] - ends[len(ends) // 2], 0.3)

    async def test_a_rate_that_is_too_low_gives_way_to_grace(self):
        self.start({"drain.rate": 1, "shutdown.grace": "2s"})
        seen = await self.drain(await self.crowd(40))
        await self.end(2)
        self.assertEqual(len(seen), 40)

    async def test_rate_and_spread_together(self):
        self.start({"drain.rate": 60, "shutdown.spread": "1s", "shutdown.grace": "4s"})
        await self.drain(await self.crowd(60))
        await self.end(3)


class Newcomers(DrainCase):

    async def test_they_get_503_and_readyz_says_503_but_livez_200(self):
        self.start({"shutdown.spread": "60s", "shutdown.grace": "120s"})
        clients = await self.crowd(20)
        refused = self.hub.metric("ringhub_connections_refused_total")
        half = raw.Wire(self.hub)
        self.addCleanup(half.sock.close)
        half.send(raw.upgrade("/ws?user_id=half")[:40])
        self.terminate()
        eventually(lambda: {self.ask(raw.request("/readyz")).status for _ in range(12)} == {503},
                   "every shard knows")
        for number in range(16):
            self.assertEqual(self.ask(raw.request("/livez")).status, 200)
            self.assertEqual(self.ask(raw.request("/healthz")).status, 200)
            self.assertEqual(self.ask(raw.request("/metrics")).status, 200)
            late = self.ask(raw.upgrade(f"/ws?user_id=late-{number}"))
            self.assertEqual(late.status, 503)
            self.assertRegex(late.headers["retry-after"], r"^[1-9]\d*$")
            self.assertEqual(json.loads(late.body)["error"]["code"], "unavailable")
        half.send(raw.upgrade("/ws?user_id=half")[40:])
        self.assertEqual(half.response().status, 503)
        metrics = self.hub.metrics()
        self.assertEqual(metrics['ringhub_connections_refused_total{cause="draining"}'], 17)
        self.assertEqual(self.hub.metric("ringhub_connections_refused_total"), refused + 17)
        for client in clients:
            await client.close()
        await self.end(5)

    async def test_it_ends_when_the_last_one_has_gone(self):
        """Who leaves when told is not waited for."""
        self.start({"shutdown.spread": "60s", "shutdown.grace": "120s"})
        clients = await self.crowd(20)
        self.terminate()
        for client in clients:
            await client.close()
        await self.end(5)

    async def test_without_clients_it_ends_at_once(self):
        self.start({"shutdown.spread": "60s", "shutdown.grace": "120s"})
        clients = await self.crowd(4)
        for client in clients:
            await client.close()
        self.terminate()
        await self.end(5)

    async def test_who_comes_late_is_not_waited_for(self):
        """Neither those who say nothing, nor those who do not end what was refused."""
        self.start({"shutdown.grace": "120s"})
        clients = await self.crowd(8)
        holder = self.wire()
        self.terminate()
        holder.read_close()
        late = [raw.Wire(self.hub) for _ in range(24)]
        for wire in late:
            self.addCleanup(wire.sock.close)
        for number, wire in enumerate(late[::2]):
            wire.send(raw.upgrade(f"/ws?user_id=late-{number}"))
            self.assertEqual(wire.response().status, 503)
        for client in clients:
            await client.closed()
        holder.send(raw.close_frame(1001))
        await self.end(3)

    async def test_who_never_answers_is_cut_at_grace(self):
        self.start({"shutdown.spread": "100ms", "shutdown.grace": "1s"})
        wires = [self.wire(f"/ws?user_id=mute-{number}") for number in range(6)]
        self.terminate()
        await self.end(1)
        for wire in wires:
            self.assertEqual(json.loads(wire.message().payload)["event"], "server.draining")
            self.assertEqual(wire.close_code(answer=False), 1001)


class Traffic(DrainCase):
    """Until it is closed a connection is served, and what was accepted arrives."""

    async def talk(self, ours, theirs, room, begun, number=0):
        """Sends until it is closed: (numbers that were answered `sent`, seqs published). `begun` is
        set when that are some."""
        sent, published = [], []
        try:
            while True:
                got = await ours.request("message.send", {"to": theirs.user, "content": number})
                self.assertEqual(got["type"], "response", got)
                if got["data"]["status"] == "sent":
                    sent.append(number)
                else:  # the other has gone: it is kept
                    self.assertEqual(got["data"]["status"], "stored", got)
                got = await ours.request("room.publish", {"room": room, "content": number})
                self.assertEqual(got["type"], "response", got)
                published.append(got["data"]["seq"])
                number += 1
                if number == 10:
                    begun.set()
        except websockets.ConnectionClosed:
            return sent, published

    async def test_what_was_answered_as_sent_arrives(self):
        self.start({"shutdown.spread": "1s", "limits.send_queue_messages": 10_000})
        clients = await self.crowd(24)
        for client in clients:
            answer = await client.request("room.join", {"room": "all"})
            self.assertEqual(answer["type"], "response", answer)
        pairs = list(zip(clients[::2], clients[1::2]))
        begun = [asyncio.Event() for _ in pairs]
        talks = [asyncio.ensure_future(self.talk(one, other, "all", event))
                 for (one, other), event in zip(pairs, begun)]
        seen = [Drained(other) for _, other in pairs]
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in begun)), DEADLINE)
        self.terminate()
        done = await asyncio.wait_for(asyncio.gather(*talks), DEADLINE)
        await asyncio.wait_for(asyncio.gather(*(one.task for one in seen)), DEADLINE)
        seqs = sorted(seq for _, published in done for seq in published)
        self.assertGreater(len(seqs), 50)
        for (sent, _), one in zip(done, seen):
            self.assertEqual(one.code, 1001)
            self.assertGreater(len(sent), 5)
            got = [m["data"]["content"] for m in one.rest if m["event"] == "message"]
            self.assertEqual(got[:len(sent)], sent)
            self.assertLessEqual(len(got), len(sent) + 1)  # an answer may miss a sender that closes
            self.assertGreater(len(got), 5)
            in_room = [m["data"]["seq"] for m in one.rest if m["event"] == "room.message"]
            self.assertEqual(in_room, list(range(in_room[0], in_room[0] + len(in_room))))
            self.assertFalse([m for m in one.rest if m["event"] == "messages.lost"])
        await self.end(1.2)

    async def test_they_are_served_after_they_were_told(self):
        """Between the notice and the close there are 200 ms at least: time for a last question."""
        async def ask(client):
            while (got := await client.receive()).get("event") != "server.draining":
                pass
            try:
                answer = await client.request("ping", client.user)
            except websockets.ConnectionClosed:  # the test was late
                self.assertGreater(time.time() - got["timestamp"] / 1000, 0.19)
                return False
            self.assertEqual(answer["data"], client.user)
            self.assertEqual((await client.closed())[0], 1001)
            return True

        self.start({"shutdown.spread": "600ms"})
        asks = [asyncio.ensure_future(ask(client)) for client in await self.crowd(20)]
        self.terminate()
        self.assertIn(True, await asyncio.gather(*asks))
        await self.end(0.8)

    async def test_what_is_queued_is_finished(self):
        """For one who did not read until then, and reads on slowly."""
        self.start({"limits.send_queue_messages": 10_000, "limits.send_queue_bytes": "64MiB"})
        slow = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(slow.sock.close)
        slow.upgrade("/ws?user_id=slow")
        slow.message()
        sender = await open_client(self.hub, "sender")
        for number in range(200):  # more than the kernel takes
            await sender.send_message("slow", f"{number} {'x' * 40_000}")
        eventually(lambda: self.hub.metric("ringhub_send_queue_messages"), "it does not take them")
        closed = Drained(sender)
        self.terminate()
        await closed.task
        slow.sock.setsockopt(raw.socket.SOL_SOCKET, raw.socket.SO_RCVBUF, 1 << 20)
        events, code = self.to_the_end(slow)
        contents = [got["data"]["content"].split(" ")[0] for got in events[:-1]]
        self.assertEqual(contents, [f"{number}" for number in range(200)])
        self.assertEqual((events[-1]["event"], code), ("server.draining", 1001))
        await self.end(7.5)

    async def test_a_reconnect_elsewhere_is_possible_before_the_close(self):
        """Told, a client may leave by itself; that is an ordinary end."""
        self.start({"shutdown.spread": "500ms"})
        clients = await self.crowd(10)

        async def leave(client):
            while (await client.receive()).get("event") != "server.draining":
                pass
            await client.close()
            return client.socket.close_code

        codes = [asyncio.ensure_future(leave(client)) for client in clients]
        self.terminate()
        for code in await asyncio.gather(*codes):
            self.assertIn(code, (1000, 1001))
        await self.end(0.7)


class Twice(DrainCase):

    async def test_a_second_signal_ends_it_at_once(self):
        for second in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(second):
                self.start({"shutdown.spread": "60s", "shutdown.grace": "300s"})
                wires = [self.wire(f"/ws?user_id=mute-{number}") for number in range(4)]
                self.terminate()
                eventually(lambda: self.ask(raw.request("/readyz")).status == 503, "it drains")
                self.hub.process.send_signal(second)
                status = self.hub.process.wait(DEADLINE)
                self.assertNotIn(status, (-signal.SIGSEGV, -signal.SIGABRT))
                self.hub.log()  # whole lines to the end
                for wire in wires:
                    wire.sock.close()

    async def test_signals_in_a_row_are_harmless(self):
        self.start({"shutdown.spread": "60s", "shutdown.grace": "300s"})
        self.wire()
        end = time.monotonic() + DEADLINE
        while self.hub.process.poll() is None:
            self.assertLess(time.monotonic(), end)
            self.hub.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.001)
        self.assertNotIn(self.hub.process.returncode, (-signal.SIGSEGV, -signal.SIGABRT))

    async def test_hup_and_usr1_do_not_disturb_a_drain(self):
        self.start({"shutdown.spread": "1s"}, config="limits: {message_size: 64KiB}\n")
        clients = await self.crowd(10)
        seen = [Drained(client) for client in clients]
        self.terminate()
        for _ in range(10):
            self.hub.process.send_signal(signal.SIGHUP)
            self.hub.process.send_signal(signal.SIGUSR1)
            await asyncio.sleep(0.05)
        await asyncio.wait_for(asyncio.gather(*(one.task for one in seen)), DEADLINE)
        self.assertEqual({one.code for one in seen}, {1001})
        await self.end(1.2)


if __name__ == "__main__":
    unittest.main()
