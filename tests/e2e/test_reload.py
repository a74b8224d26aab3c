"""SIGHUP reads the configuration anew: live keys apply at once, others are named, a broken file
changes nothing (PROTOCOL 1 and 10). SIGUSR1 opens the log file anew."""

import asyncio
import json
import pathlib
import signal
import tempfile
import time
import unittest

import websockets

import raw
from clients import envelope, open_client
from hub import DEADLINE, SLOWNESS, Hub, eventually


class ReloadCase(unittest.IsolatedAsyncioTestCase):

    errors = ()  # what the hub may log as an error

    def start(self, config="", sets=(), **how):
        self.hub = Hub(dict(sets), config=config, **how)
        self.addCleanup(self._end)
        return self.hub

    def _end(self):
        self.hub.stop(errors=self.errors)

    def reloads(self, event="config.reload"):
        return [line for line in self.hub.log() if line["event"] == event]

    def signal(self, event):
        """SIGHUP; the log's line about it."""
        before = len(self.reloads(event))
        self.hub.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(self.reloads(event)) > before,
                   lambda: f"{event}: {self.hub.log_text()}")
        return self.reloads(event)[-1]

    def reload(self, config, applied=None, restart=None):
        """A new file and SIGHUP; the line must name exactly these keys."""
        self.hub.write_config(config)
        line = self.signal("config.reload")
        if applied is not None:
            self.assertEqual(self.names(line["applied"]), set(applied))
        if restart is not None:
            self.assertEqual(self.names(line["restart_needed"]), set(restart))
        return line

    def names(self, value):
        parts = value.replace(",", " ").split() if isinstance(value, str) else value
        return {part.strip() for part in parts if part.strip()}

    def ask(self, head):
        with raw.Wire(self.hub) as wire:
            wire.send(head)
            return wire.response()

    def head_is_limited(self, size=3000):
        return self.ask(raw.request("/healthz", {"X": "x" * size})).status == 431

    async def client(self, user, **query):
        client = await open_client(self.hub, user, **query)
        self.addAsyncCleanup(client.close)
        return client

    async def may_send(self, client, size):
        """Whether a client may send a message of this size; it is closed if not."""
        try:
            return (await client.request("ping", "x" * size))["type"] == "response"
        except websockets.ConnectionClosed:
            self.assertEqual((await client.closed())[0], 1009)
            return False

    async def on_all_shards(self, what):
        """what(user) is a coroutine; it has to become true for users on all shards."""
        async def all_true():
            return all([await what(f"shard-{number}") for number in range(12)])

        end = time.monotonic() + DEADLINE
        while not await all_true():
            self.assertLess(time.monotonic(), end, "not applied")
            await asyncio.sleep(0.02)


class Live(ReloadCase):
    """Each key acts on the running hub, for clients that come and for those that are there."""

    async def test_message_size(self):
        self.start("limits: {message_size: 1KiB}\n")
        old = [await self.client(f"old-{number}") for number in range(8)]
        self.assertFalse(await self.may_send(await self.client("large"), 2000))
        self.reload("limits: {message_size: 4KiB}\n", ["limits.message_size"], [])

        async def may(user):
            return await self.may_send(await self.client(user), 2000)

        await self.on_all_shards(may)
        for client in old:
            self.assertTrue(await self.may_send(client, 2000))
        self.reload("limits: {message_size: 1KiB}\n", ["limits.message_size"], [])

        async def may_not(user):
            return not await may(user)

        await self.on_all_shards(may_not)
        for client in old:
            self.assertFalse(await self.may_send(client, 2000))

    async def test_head_size_and_echo(self):
        self.start("limits: {head_size: 2KiB}\n")
        self.assertTrue(self.head_is_limited())
        self.assertEqual(self.ask(raw.upgrade("/echo")).status, 404)
        self.reload("limits: {head_size: 8KiB}\necho: {enabled: true}\n",
                    ["limits.head_size", "echo.enabled"], [])
        eventually(lambda: not any(self.head_is_limited() for _ in range(12)), "larger heads")
        eventually(lambda: {self.ask(raw.upgrade("/echo")).status for _ in range(12)} == {101},
                   "echo")

    async def test_a_key_that_is_gone_has_its_default_again(self):
        self.start("limits: {head_size: 2KiB}\n")
        self.assertTrue(self.head_is_limited())
        self.reload("", ["limits.head_size"], [])
        eventually(lambda: not any(self.head_is_limited() for _ in range(12)), "the default")

    async def test_rooms(self):
        self.start("rooms: {auto_create: true}\n")
        keeper = await self.client("keeper")
        await self.joined(keeper, "kept", 200)
        self.reload("rooms: {auto_create: false, max_members: 2, per_user: 2}\n",
                    ["rooms.auto_create", "rooms.max_members", "rooms.per_user"], [])

        async def cannot_create(user):
            answer = await (await self.client(user)).request("room.join", {"room": f"new-{user}"})
            return answer.get("error") == "not_found"

        await self.on_all_shards(cannot_create)
        await self.joined(await self.client("second"), "kept", 200)
        full = await self.joined(await self.client("third"), "kept", 409)
        self.assertEqual(full["error"], "room_full")
        self.reload("rooms: {max_members: 3}\n",
                    ["rooms.auto_create", "rooms.max_members", "rooms.per_user"], [])

        async def can_create(user):
            return not await cannot_create(user)

        await self.on_all_shards(can_create)
        await self.joined(await self.client("fourth"), "kept", 200)
        for number in range(5):
            await self.joined(keeper, f"more-{number}", 200)
        full = await self.joined(await self.client("fifth"), "kept", 409)
        self.assertEqual(full["error"], "room_full")

    async def joined(self, client, room, code):
        answer = await client.request("room.join", {"room": room})
        self.assertEqual(answer["code"], code, answer)
        return answer

    async def test_heartbeat(self):
        self.start("heartbeat: {interval: 1h, timeout: 2h}\n")
        wires = [self.wire(f"heart-{number}") for number in range(6)]
        self.reload("heartbeat: {interval: 200ms, timeout: 1500ms}\n",
                    ["heartbeat.interval", "heartbeat.timeout"], [])

        for wire in wires:  # they were there before
            self.assertEqual(wire.frame().opcode, raw.PING)
            wire.send(raw.frame(raw.PONG))

        async def told(user):
            return (await self.client(user)).welcome["data"]["heartbeat_ms"] == 200

        await self.on_all_shards(told)
        codes = {wire.close_code() for wire in wires}  # and do not answer any more
        self.assertEqual(codes, {4410})

    def wire(self, user):
        wire = raw.Wire(self.hub)
        self.addCleanup(wire.sock.close)
        wire.upgrade(f"/ws?user_id={user}")
        self.assertEqual(envelope(wire.message().payload.decode())["event"], "welcome")
        return wire

    async def test_connections_and_devices(self):
        self.start("")
        old = [self.wire(f"old-{number}") for number in range(10)]
        self.reload("limits: {connections: 10}\n", ["limits.connections"], [])
        eventually(lambda: {self.ask(raw.upgrade("/ws")).status for _ in range(12)} == {503},
                   "full")
        for wire in old:  # what is above a new limit stays
            wire.send(raw.frame(raw.PING, b"here"))
            self.assertEqual(wire.frame()[:2], (raw.PONG, b"here"))
        self.reload("users: {max_devices: 1, on_limit: reject}\n",
                    ["limits.connections", "users.max_devices", "users.on_limit"], [])
        eventually(lambda: {self.ask(raw.upgrade("/ws")).status for _ in range(12)} == {101},
                   "no limit")
        eventually(lambda: {self.ask(raw.upgrade(f"/ws?user_id=old-{number}")).status
                            for number in range(10)} == {429}, "one device")

    async def test_origins(self):
        self.start("security: {origins: ['https://a.example']}\n")

        def status(origin):
            return {self.ask(raw.upgrade("/ws", {"Origin": f"https://{origin}.example"})).status
                    for _ in range(8)}

        self.assertEqual((status("a"), status("b")), ({101}, {403}))
        self.reload("security: {origins: ['https://b.example']}\n", ["security.origins"], [])
        eventually(lambda: (status("a"), status("b")) == ({403}, {101}), "the other one")

    async def test_rates(self):
        self.start("")
        client = await self.client("rate")
        for _ in range(50):
            await client.request("ping")
        self.reload("security:\n  rate_limit: {messages_per_second: 5}\n",
                    ["security.rate_limit.messages_per_second"], [])
        with self.assertRaises(websockets.ConnectionClosed):
            for number in range(100_000):
                await client.send({"type": "request", "event": "ping"})
                await asyncio.sleep(0)
        self.assertEqual((await client.closed())[0], 4429)

    async def test_slow_consumer(self):
        self.start("limits: {send_queue_messages: 8, slow_consumer: disconnect, head_size: 2KiB}\n")
        slow = raw.Wire(self.hub, receive_buffer=4096)
        self.addCleanup(slow.sock.close)
        slow.upgrade("/ws?user_id=slow")
        slow.message()
        sender = await self.client("sender")
        self.reload("limits: {send_queue_messages: 8, slow_consumer: drop_oldest}\n",
                    ["limits.slow_consumer", "limits.head_size"], [])
        eventually(lambda: not any(self.head_is_limited() for _ in range(20)), "on all shards")
        for number in range(200):
            await sender.send_message("slow", f"{number} {'x' * 40_000}")
        slow.sock.setsockopt(raw.socket.SOL_SOCKET, raw.socket.SO_RCVBUF, 1 << 20)
        arrived = lost = 0
        while arrived + lost < 200:
            got = envelope(slow.message().payload.decode())
            if got["event"] == "messages.lost":
                lost += got["data"]["count"]
            else:
                arrived += 1
        self.assertGreater(lost, 50)
        self.assertEqual(arrived + lost, 200)

    async def test_shutdown(self):
        """Spread and grace of a drain are those of the last reload."""
        self.start("shutdown: {spread: 1h, grace: 1h}\n", defaults={})
        wire = self.wire("drained")
        self.reload("shutdown: {spread: 0, grace: 5s}\n", ["shutdown.spread", "shutdown.grace"], [])
        began = time.monotonic()
        self.hub.process.send_signal(signal.SIGTERM)
        self.assertEqual(wire.close_code(), 1001)
        self.hub.process.wait(DEADLINE)
        self.assertLess(time.monotonic() - began, DEADLINE)

    async def test_log_level(self):
        self.start("log: {level: info}\n")
        self.silently("log: {level: error}\nlimits: {head_size: 2KiB}\n", True)
        time.sleep(0.3 * SLOWNESS)  # whatever was logged is written
        before = self.hub.log_text()
        self.silently("log: {level: error}\nlimits: {head_size: 8KiB}\n", False)
        time.sleep(0.3 * SLOWNESS)
        self.assertEqual(self.hub.log_text(), before)  # nothing is said any more
        self.silently("log: {level: info}\nlimits: {head_size: 2KiB}\n", True)
        self.reload("log: {level: info}\n", ["limits.head_size"], [])

    def silently(self, config, limited):
        """Reloads; the line about it may be missing, the limit of heads tells."""
        self.hub.write_config(config)
        self.hub.process.send_signal(signal.SIGHUP)
        eventually(lambda: {self.head_is_limited() for _ in range(12)} == {limited}, "applied")

    async def test_nothing_changed(self):
        self.start("limits: {message_size: 64KiB}\n")
        self.reload("limits: {message_size: 65536}\n", [], [])


class Restart(ReloadCase):

    async def test_keys_that_need_a_restart_are_named_and_the_others_apply(self):
        self.start("log: {format: json}\nlimits: {head_size: 2KiB}\n")
        path = pathlib.Path(self.hub.dir, "elsewhere.log")
        self.reload(f"log: {{format: text, file: {path}}}\nlimits: {{head_size: 8KiB}}\n",
                    ["limits.head_size"], ["log.format", "log.file"])
        eventually(lambda: not any(self.head_is_limited() for _ in range(12)), "larger heads")
        self.assertFalse(path.exists())
        self.hub.log()  # still JSON
        line = self.reload(f"log: {{format: text, file: {path}}}\nlimits: {{head_size: 8KiB}}\n",
                           [])
        self.assertEqual(self.names(line["restart_needed"]), {"log.format", "log.file"})
        self.reload("limits: {head_size: 8KiB}\n", [], [])  # as it runs: nothing to restart for

    async def test_shards_and_listen_stay_as_they_are(self):
        self.start("shards: 2\nlisten: 127.0.0.1:0\n", shards=None, listen=None)
        client = await self.client("stays")
        self.reload("shards: 3\nlisten: 127.0.0.9:0\n", [], ["shards", "listen"])
        await client.send_message("stays", 1)
        self.assertEqual((await client.message())["content"], 1)
        await self.client("comes")
        started = [line for line in self.hub.log() if line["event"] == "hub.started"]
        self.assertEqual([line["shards"] for line in started], [2])


class Broken(ReloadCase):

    errors = ("config.reload_failed",)

    async def test_a_broken_file_changes_nothing_and_is_told(self):
        self.start("limits: {head_size: 2KiB, message_size: 1KiB}\n")
        cases = {
            "unknown key": ("limits: {head_size: 8KiB, mesage_size: 1KiB}\n", "limits.mesage_size"),
            "bad value": ("limits:\n  head_size: 8KiB\n  message_size: big\n",
                          "limits.message_size"),
            "no yaml": ("limits: {head_size: 8KiB\nx\n", "ringhub.yaml"),
            "together wrong": ("limits: {head_size: 8KiB}\nheartbeat: {interval: 10s, timeout: 5s}"
                               "\n", "heartbeat.timeout"),
            "not built": ("limits: {head_size: 8KiB}\ntickets: {auto_assign: true}\n",
                          "tickets.auto_assign"),
            "wrong restart key": ("limits: {head_size: 8KiB}\nshards: 1000\n", "shards"),
        }
        for name, (text, word) in cases.items():
            with self.subTest(name):
                self.hub.write_config(text)
                line = self.signal("config.reload_failed")
                self.assertIn(word, json.dumps(line))
                self.assertIn("ringhub.yaml", json.dumps(line))
                self.assertIn(line["level"], ("warn", "error"))
                for _ in range(6):
                    self.assertTrue(self.head_is_limited())
        self.assertEqual(self.reloads(), [])
        self.reload("limits: {head_size: 8KiB, message_size: 1KiB}\n", ["limits.head_size"], [])
        eventually(lambda: not any(self.head_is_limited() for _ in range(12)), "repaired")

    async def test_a_file_that_is_gone_changes_nothing_and_is_told(self):
        self.start("limits: {head_size: 2KiB}\n")
        pathlib.Path(self.hub.dir, "ringhub.yaml").unlink()
        line = self.signal("config.reload_failed")
        self.assertIn("ringhub.yaml", json.dumps(line))
        self.assertTrue(self.head_is_limited())
        self.reload("limits: {head_size: 8KiB}\n", ["limits.head_size"], [])


class Precedence(ReloadCase):
    """What stands before a file when it is read first does so ever after."""

    async def test_options_win(self):
        self.start("limits: {head_size: 8KiB}\n", {"limits.head_size": "2KiB"})
        self.reload("limits: {head_size: 16KiB, message_size: 1KiB}\n", ["limits.message_size"], [])
        for _ in range(12):
            self.assertTrue(self.head_is_limited())

    async def test_listen_and_shards_as_options_win(self):
        self.start("")
        self.reload("listen: 127.0.0.9:1\nshards: 2\n", [], [])

    async def test_the_environment_wins(self):
        self.start("limits: {head_size: 8KiB}\n", env={"RINGHUB_LIMITS__HEAD_SIZE": "2KiB"})
        self.reload("limits: {head_size: 16KiB, message_size: 1KiB}\n", ["limits.message_size"], [])
        for _ in range(12):
            self.assertTrue(self.head_is_limited())

    async def test_without_a_file_there_is_nothing_to_change(self):
        self.start(None, {"limits.head_size": "2KiB"})
        line = self.signal("config.reload")
        self.assertEqual(self.names(line["applied"]) | self.names(line["restart_needed"]), set())
        self.assertTrue(self.head_is_limited())


class Busy(ReloadCase):

    async def test_traffic_does_not_notice_a_hundred_reloads(self):
        self.start("limits: {message_size: 64KiB}\n")
        pairs = [(await self.client(f"one-{n}"), await self.client(f"two-{n}")) for n in range(6)]
        stop = asyncio.Event()

        async def talk(one, two):
            number = 0
            while not stop.is_set():
                await one.send_message(two.user, number)
                self.assertEqual((await two.message())["content"], number)
                number += 1
            return number

        talks = [asyncio.ensure_future(talk(*pair)) for pair in pairs]
        for number in range(100):
            self.hub.write_config(f"limits: {{message_size: {64 + number}KiB}}\n")
            self.hub.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.01)
        self.reload("limits: {message_size: 1KiB}\n")
        stop.set()
        for number in await asyncio.gather(*talks):
            self.assertGreater(number, 10)

        async def applied(user):
            return not await self.may_send(await self.client(user), 2000)

        await self.on_all_shards(applied)


class Reopen(unittest.TestCase):
    """SIGUSR1"""

    def test_no_line_is_lost_when_the_file_is_moved_again_and_again(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "hub.log")
            with Hub({"log.file": path}, config="limits: {head_size: 2KiB}\n") as hub:
                eventually(lambda: path.exists() and path.read_text(), "a line in the file")
                for number in range(8):
                    path.rename(pathlib.Path(folder, f"hub.log.{number}"))
                    hub.process.send_signal(signal.SIGUSR1)
                    eventually(path.exists, "a new file")
                    hub.write_config(f"limits: {{head_size: {number + 3}KiB}}\n")
                    hub.process.send_signal(signal.SIGHUP)
                    eventually(lambda: "config.reload" in path.read_text(), "a line in it")
            lines = [json.loads(line) for number in [*range(8), None] for line in
                     pathlib.Path(folder, f"hub.log.{number}" if number is not None else "hub.log")
                     .read_text().splitlines()]
            events = [line["event"] for line in lines]
            self.assertEqual((events[0], events[-1]), ("store.loaded", "hub.stopped"))
            self.assertEqual(events.count("config.reload"), 8)

    def test_without_a_file_it_is_harmless(self):
        with Hub() as hub:
            for _ in range(5):
                hub.process.send_signal(signal.SIGUSR1)
            self.assertTrue(hub.get("/livez"))

    def test_a_file_that_cannot_be_opened_leaves_the_old_one(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "logs", "hub.log")
            path.parent.mkdir()
            hub = Hub({"log.file": path})
            self.addCleanup(hub.kill)
            eventually(path.exists, "a file")
            path.parent.rename(pathlib.Path(folder, "moved"))
            hub.process.send_signal(signal.SIGUSR1)
            eventually(lambda: "cannot be opened" in hub.log_text(), "a word on standard error")
            self.assertTrue(hub.get("/livez"))
            hub.process.send_signal(signal.SIGTERM)
            self.assertEqual(hub.process.wait(DEADLINE), 0)
            self.assertIn("hub.stopped", pathlib.Path(folder, "moved", "hub.log").read_text())


if __name__ == "__main__":
    unittest.main()
