"""Starting, options, configuration and stopping of ringhubd (PROTOCOL 1, 8 and 10)."""

import asyncio
import ctypes
import json
import os
import platform
import pathlib
import re
import signal
import socket
import struct
import tempfile
import threading
import time
import unittest

import websockets

import raw
from clients import open_client
from hub import DEADLINE, SLOWNESS, Hub, eventually, run_daemon


class Stop(unittest.TestCase):

    def stop_with_clients(self, sig, sets=()):
        async def run():
            hub = Hub({"echo.enabled": "true", **dict(sets)})
            try:
                clients = await asyncio.gather(*(open_client(hub, f"stop-{i}") for i in range(50)))
                echo = raw.Wire(hub)
                echo.upgrade("/echo")
                idle = raw.Wire(hub)
                half = raw.Wire(hub)
                half.send(b"GET /ws HTTP/1.1\r\nHost")
                hub.process.send_signal(sig)
                ends = await asyncio.gather(*(client.closed() for client in clients))
                self.assertEqual({code for code, _ in ends}, {1001})
                for _, reason in ends:
                    self.assertRegex(reason, r"\w+ \w+")
                self.assertEqual(echo.close_code(), 1001)
                echo.sock.close()
                idle.sock.close()
                half.sock.close()
                hub.process.wait(DEADLINE)
            except BaseException:
                hub.kill()
                raise
            hub.stop()

        began = time.monotonic()
        asyncio.run(run())
        self.assertLess(time.monotonic() - began, DEADLINE)

    def test_sigterm_closes_everyone_with_1001_and_exits_0(self):
        self.stop_with_clients(signal.SIGTERM)

    def test_sigint_does_the_same(self):
        self.stop_with_clients(signal.SIGINT)

    def test_sigterm_in_the_midst_of_traffic(self):
        async def talk(client, users):
            number = 0
            try:
                while True:
                    await client.send({"type": "request", "event": "message.send",
                                       "request_id": str(number), "data": {
                                           "to": users[number % len(users)], "content": "x" * 500}})
                    number += 1
                    await asyncio.sleep(0)
            except websockets.ConnectionClosed:
                return number

        async def run():
            hub = Hub({"limits.send_queue_messages": 20_000})
            try:
                users = [f"busy-{i}" for i in range(24)]
                clients = await asyncio.gather(*(open_client(hub, user) for user in users))
                talks = [asyncio.ensure_future(talk(client, users)) for client in clients]
                ends = [asyncio.ensure_future(client.closed()) for client in clients]
                await asyncio.sleep(0.3)
                hub.process.send_signal(signal.SIGTERM)
                self.assertEqual({code for code, _ in await asyncio.gather(*ends)}, {1001})
                self.assertGreater(sum(await asyncio.gather(*talks)), 100)
                hub.process.wait(DEADLINE)
            except BaseException:
                hub.kill()
                raise
            hub.stop()

        asyncio.run(run())

    def test_sigterm_in_the_midst_of_promises_leaves_a_whole_journal(self):
        """The next start finds nothing to complain of, and all that was answered."""
        async def talk(client, to):
            answered = set()
            try:
                while len(answered) < 500:
                    got = await client.request("message.send", {"to": to, "content": "x" * 300,
                                                                "ack": True})
                    self.assertEqual(got["type"], "response", got)
                    answered.add(got["data"]["id"])
            except websockets.ConnectionClosed:
                pass
            return answered

        async def stop(store):
            hub = Hub({"store.path": store})
            try:
                clients = await asyncio.gather(*(open_client(hub, f"owing-{i}") for i in range(12)))
                talks = [asyncio.ensure_future(talk(client, f"owed-{i}"))
                         for i, client in enumerate(clients)]
                await asyncio.sleep(0.3)
                hub.process.send_signal(signal.SIGTERM)
                answered = await asyncio.gather(*talks)
                await asyncio.to_thread(hub.process.wait, DEADLINE)
            except BaseException:
                hub.kill()
                raise
            hub.stop()
            return answered

        async def collect(hub, user, ids):
            client, missing = await open_client(hub, user), set(ids)
            while missing:
                missing.discard((await client.message())["id"])

        async def run(store):
            answered = await stop(store)
            self.assertGreater(sum(map(len, answered)), 12)
            with Hub({"store.path": store, "ack.max_unacked": "1000"}) as hub:
                await asyncio.gather(*(collect(hub, f"owed-{i}", ids)
                                       for i, ids in enumerate(answered)))

        with tempfile.TemporaryDirectory() as own:
            asyncio.run(run(f"{own}/data"))

    def test_sigterm_in_a_storm_of_handshakes(self):
        """Who knocks while it drains does not keep it from ending."""
        hub = Hub({"shutdown.grace": "120s"})
        stop = threading.Event()

        def storm(thread):
            number = 0
            while not stop.is_set():
                try:
                    with raw.Wire(hub) as wire:
                        wire.send(raw.upgrade(f"/ws?user_id=storm-{thread}-{number}"))
                        if number % 2:
                            wire.response()
                except (raw.Closed, OSError):
                    pass
                number += 1

        threads = [threading.Thread(target=storm, args=(i,)) for i in range(16)]
        try:
            for thread in threads:
                thread.start()
            eventually(lambda: hub.metric("ringhub_connections_accepted_total") > 200, "a storm")
            began = time.monotonic()
            hub.process.send_signal(signal.SIGTERM)
            hub.process.wait(DEADLINE)
            self.assertLess(time.monotonic() - began, 5 * SLOWNESS)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        hub.stop()

    def test_without_clients_it_ends_at_once(self):
        hub = Hub()
        began = time.monotonic()
        hub.stop()
        self.assertLess(time.monotonic() - began, 5)

    def test_who_does_not_answer_the_close_is_cut_after_shutdown_grace(self):
        hub = Hub({"shutdown.grace": "500ms"})
        wires = [raw.Wire(hub) for _ in range(8)]
        for number, wire in enumerate(wires):
            wire.upgrade(f"/ws?user_id=mute-{number}")
            wire.message()
        began = time.monotonic()
        hub.stop()
        self.assertLess(time.monotonic() - began, 5)
        for wire in wires:
            self.assertEqual(wire.close_code(answer=False), 1001)
            wire.sock.close()

    def test_a_second_signal_ends_it_at_once(self):
        hub = Hub({"shutdown.grace": "60s"})
        try:
            with raw.Wire(hub) as wire:  # never answers the close
                wire.upgrade("/ws?user_id=mute")
                wire.message()
                hub.process.send_signal(signal.SIGTERM)
                wire.read_close()
                hub.process.send_signal(signal.SIGTERM)
                hub.process.wait(DEADLINE)
        finally:
            hub.kill()

    def test_what_is_queued_is_finished_before_the_close(self):
        hub = Hub({"echo.enabled": "true"})
        with raw.Wire(hub) as wire:
            wire.upgrade("/echo")
            wire.send(b"".join(raw.frame(raw.TEXT, b"%d" % i) for i in range(100)))
            self.assertEqual(wire.message().payload, b"0")
            hub.process.send_signal(signal.SIGTERM)
            numbers = []
            while (got := wire.frame()).opcode == raw.TEXT:
                numbers.append(int(got.payload))
            self.assertEqual(numbers, list(range(1, 1 + len(numbers))))
            self.assertEqual(got.payload[:2], (1001).to_bytes(2, "big"))
        hub.stop(sig=None)

    def test_while_draining_new_clients_get_503_and_health_still_answers(self):
        hub = Hub({"shutdown.grace": "3s"})
        try:
            holder = raw.Wire(hub)  # keeps the hub from ending: never answers the close
            holder.upgrade("/ws?user_id=holder")
            holder.message()
            hub.process.send_signal(signal.SIGTERM)
            holder.read_close()

            def ask(head):
                with raw.Wire(hub) as wire:
                    wire.send(head)
                    return wire.response()

            eventually(lambda: all(ask(raw.request("/readyz")).status == 503 for _ in range(12)),
                       "every shard knows")
            for _ in range(20):  # on all shards
                self.assertEqual(ask(raw.request("/readyz")).status, 503)
                self.assertEqual(ask(raw.request("/livez")).status, 200)
                self.assertEqual(ask(raw.request("/healthz")).status, 200)
                late = ask(raw.upgrade("/ws?user_id=late"))
                self.assertEqual(late.status, 503)
                self.assertRegex(late.headers["retry-after"], r"^\d+$")
            holder.sock.close()
        except BaseException:
            hub.kill()
            raise
        hub.stop(sig=None)

    def test_the_same_port_can_be_used_again_at_once(self):
        async def talk(hub):
            client = await open_client(hub, "again")
            await client.send_message("again", 1)
            await client.message()
            await client.close()

        with Hub() as hub:
            port = hub.port
            asyncio.run(talk(hub))
        for _ in range(3):
            with Hub(listen=f"127.0.0.1:{port}") as hub:
                self.assertEqual(hub.port, port)
                asyncio.run(talk(hub))


class Start(unittest.TestCase):

    def test_it_says_where_it_listens_and_a_line_to_try(self):
        with Hub() as hub:
            self.assertRegex(hub.out, rf"ringhub \d+\.\d+\.\d+\S* listens on "
                                      rf"http://127\.0\.0\.1:{hub.port}\n")
            eventually(lambda: hub.get("/readyz") or True, "ready")

    def test_it_listens_on_several_addresses(self):
        config = "listen: ['127.0.0.1:0', '[::1]:0', '127.0.0.2:0']\n"
        with Hub(config=config, listen=None) as hub:
            eventually(lambda: _read_more(hub).count("listens on") == 3, lambda: hub.out)
            found = re.findall(r"http://(127\.0\.0\.\d|\[::1\]):(\d+)", hub.out)
            self.assertEqual(len(found), 3)
            for host, port in found:
                with socket.create_connection((host.strip("[]"), int(port)), DEADLINE) as sock:
                    sock.sendall(raw.request("/healthz"))
                    self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 200"))

    def test_one_shard_and_many_shards_work(self):
        async def talk(hub):
            clients = [await open_client(hub, f"n-{i}") for i in range(6)]
            for client in clients:
                await client.send_message("n-0", client.user)
                self.assertEqual((await clients[0].message())["from"], client.user)
            for client in clients:
                await client.close()

        for shards in (1, 2, 9):
            with self.subTest(shards), Hub(shards=shards) as hub:
                asyncio.run(talk(hub))

    def test_a_port_in_use_is_exit_1_with_a_sentence(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = run_daemon("--listen", f"127.0.0.1:{port}")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(f"127.0.0.1:{port}", done.stderr)
        self.assertRegex(done.stderr, "in use|already")

    def test_a_second_hub_on_the_same_port_is_refused_too(self):
        with Hub() as hub:
            done = run_daemon("--listen", f"127.0.0.1:{hub.port}")
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(str(hub.port), done.stderr)

    def test_an_address_that_is_not_ours_is_exit_1(self):
        done = run_daemon("--listen", "192.0.2.1:8080", "--set", "auth.allow_insecure=true")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("192.0.2.1", done.stderr)

    def test_the_log_goes_to_a_file_and_usr1_reopens_it(self):
        with tempfile.TemporaryDirectory() as folder:
            path, old = pathlib.Path(folder, "hub.log"), pathlib.Path(folder, "hub.log.1")
            with Hub({"log.file": path}) as hub:
                eventually(lambda: path.exists() and path.read_text(), "a line in the file")
                path.rename(old)
                hub.process.send_signal(signal.SIGUSR1)
                eventually(path.exists, "a new file")
            lines = [json.loads(line) for line in (old.read_text() + path.read_text()).splitlines()]
            self.assertGreater(len(lines), 1)
            self.assertGreater(len(path.read_text()), 0)

    def test_without_io_uring_it_says_why_and_what_to_do(self):
        done = run_daemon("--listen", "127.0.0.1:0", before=_forbid_io_uring)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("io_uring", done.stderr)
        self.assertIn("seccomp", done.stderr)


def _forbid_io_uring():
    """A seccomp filter as a container's: io_uring_setup and what follows it are not permitted."""
    assert platform.machine() in ("x86_64", "aarch64")  # the same numbers on both: 425 to 427
    libc = ctypes.CDLL(None, use_errno=True)
    load_number, jump_ge, jump_gt, ret = 0x20, 0x35, 0x25, 0x06
    program = b"".join(struct.pack("HBBI", *step) for step in (
        (load_number, 0, 0, 0), (jump_ge, 0, 2, 425), (jump_gt, 1, 0, 427),
        (ret, 0, 0, 0x00050001), (ret, 0, 0, 0x7fff0000)))  # EPERM; allow
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 5, ctypes.addressof(code)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter_, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def _read_more(hub):
    """What the hub has printed up to now."""
    os.set_blocking(hub.process.stdout.fileno(), False)
    try:
        hub.out += (os.read(hub.process.stdout.fileno(), 4096) or b"").decode()
    except BlockingIOError:
        pass
    return hub.out


class Usage(unittest.TestCase):
    """Exit status 0, 1, 2 and the sentences that go with them."""

    def assert_usage_error(self, done, *words):
        self.assertEqual(done.returncode, 2, done)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(done.stdout, "")

    def test_help_names_every_option(self):
        done = run_daemon("--help")
        self.assertEqual(done.returncode, 0, done)
        for option in ("-c", "--listen", "--shards", "--set", "--check", "--version", "--help"):
            self.assertIn(option, done.stdout)

    def test_version(self):
        done = run_daemon("--version")
        self.assertEqual(done.returncode, 0, done)
        self.assertRegex(done.stdout, r"^\S+ \d+\.\d+\.\d+\S*\n$")

    def test_wrong_options_are_exit_2(self):
        for args in (["--no-such"], ["-x"], ["extra"], ["--listen"], ["--set"], ["-c"],
                     ["--set", "novalue"], ["--listen", "nonsense"], ["--listen", "127.0.0.1"],
                     ["--listen", "127.0.0.1:99999"], ["--shards", "0"], ["--shards", "65"],
                     ["--shards", "many"], ["--shards", "-1"], ["--shards", "2x"]):
            with self.subTest(args):
                done = run_daemon(*args)
                self.assertEqual(done.returncode, 2, done)
                self.assertGreater(len(done.stderr), 10)

    def test_an_unknown_key_is_told_with_a_suggestion(self):
        done = run_daemon("--set", "limits.mesage_size=1KiB", "--check")
        self.assert_usage_error(done, "limits.mesage_size", "limits.message_size")

    def test_a_key_that_is_not_built_yet_is_refused(self):
        for pair in ("records.max=1", "sse.heartbeat=5s", "auth.mode=jwt", "limits.memory=1GiB",
                     "io.backend=epoll", "store.url=sqlite:"):
            with self.subTest(pair):
                done = run_daemon("--set", pair, "--check")
                self.assert_usage_error(done, pair.split("=")[0], "not supported yet")

    def test_values_are_checked(self):
        for pair in ("limits.message_size=big", "limits.message_size=-1",
                     "limits.message_size=1XB", "heartbeat.interval=5", "heartbeat.interval=soon",
                     "auth.allow_insecure=perhaps", "shards=4.5", "log.level=loud",
                     "limits.send_queue_messages=0", "limits.invalid_messages=",
                     "limits.invalid_messages=65535"):
            with self.subTest(pair):
                self.assert_usage_error(run_daemon("--set", pair, "--check"), pair.split("=")[0])

    def test_what_only_shows_together_is_checked(self):
        done = run_daemon("--set", "heartbeat.interval=10s", "--set", "heartbeat.timeout=5s")
        self.assert_usage_error(done, "heartbeat.timeout")

    def test_check_says_that_all_is_well_and_starts_nothing(self):
        done = run_daemon("--check", "--listen", "127.0.0.1:0")
        self.assertEqual(done.returncode, 0, done)
        self.assertNotIn("listens", done.stdout)

    def test_the_last_set_of_a_key_wins(self):
        with Hub([("limits.head_size", "1KiB"), ("limits.head_size", "8KiB")]) as hub:
            with raw.Wire(hub) as wire:
                wire.send(raw.request("/healthz", {"X": "x" * 4000}))
                self.assertEqual(wire.response().status, 200)


class File(unittest.TestCase):
    """YAML, environment and options, in this order; errors name file, line and key."""

    def head_is_limited(self, hub):
        """True while a head of 3,000 bytes is too large for this hub."""
        with raw.Wire(hub) as wire:
            wire.send(raw.request("/healthz", {"X": "x" * 3000}))
            return wire.response().status == 431

    def test_a_file_is_obeyed(self):
        with Hub(config="limits:\n  head_size: 2KiB\necho:\n  enabled: true\n") as hub:
            self.assertTrue(self.head_is_limited(hub))
            with raw.Wire(hub) as wire:
                wire.upgrade("/echo")

    def test_the_environment_overrides_the_file(self):
        with Hub(config="limits: {head_size: 2KiB}\n",
                 env={"RINGHUB_LIMITS__HEAD_SIZE": "8KiB"}) as hub:
            self.assertFalse(self.head_is_limited(hub))

    def test_options_override_the_environment(self):
        with Hub({"limits.head_size": "8KiB"}, env={"RINGHUB_LIMITS__HEAD_SIZE": "2KiB"}) as hub:
            self.assertFalse(self.head_is_limited(hub))

    def test_errors_name_file_line_and_key(self):
        cases = {
            "unknown key": ("# first\nlimits:\n  mesage_size: 1KiB\n", 3, "limits.mesage_size"),
            "bad value": ("shards: 2\nlimits:\n\n  message_size: big\n", 4, "limits.message_size"),
            "not built yet": ("shards: 2\nsse:\n  heartbeat: 5s\n", 3, "sse.heartbeat"),
            "duplicate key": ("shards: 2\nshards: 3\n", 2, "shards"),
            "list for a number": ("shards: [1, 2]\n", 1, "shards"),
            "value for a group": ("limits: 5\n", 1, "limits"),
            "group for a value": ("shards:\n  x: 1\n", None, "shards"),
            "bad address": ("listen:\n  - 127.0.0.1:0\n  - nonsense\n", None, "listen"),
        }
        for name, (text, line, key) in cases.items():
            with self.subTest(name):
                done = run_daemon("--check", config=text)
                self.assertEqual(done.returncode, 2, done)
                where = f"ringhub.yaml:{line}" if line else "ringhub.yaml:"
                self.assertIn(where, done.stderr)
                self.assertIn(key, done.stderr)

    def test_broken_yaml_names_its_line(self):
        for text in ("shards: 2\nlimits: {\n", "shards: 2\n\tlimits: 1\n", "a: b: c\n"):
            with self.subTest(text):
                done = run_daemon("--check", config=text)
                self.assertEqual(done.returncode, 2, done)
                self.assertRegex(done.stderr, r"ringhub\.yaml:\d+")

    def test_a_file_that_is_no_yaml_at_all_is_exit_2(self):
        for text in (b"\x00\xff\xfe\x01" * 100, b"- a\n- b\n", b"just words\n"):
            with self.subTest(text[:8]):
                done = run_daemon("--check", config=text)
                self.assertEqual(done.returncode, 2, done)
                self.assertIn("ringhub.yaml", done.stderr)

    def test_a_file_that_cannot_be_read_is_told(self):
        done = run_daemon("-c", "/nonexistent/ringhub.yaml")
        self.assertIn(done.returncode, (1, 2))
        self.assertIn("/nonexistent/ringhub.yaml", done.stderr)

    def test_an_empty_file_is_all_defaults(self):
        for text in ("", "# nothing\n", "---\n"):
            self.assertEqual(run_daemon("--check", config=text).returncode, 0)

    def test_an_unknown_environment_name_is_an_error(self):
        for name in ("RINGHUB_SHARD", "RINGHUB_LIMITS__MESAGE_SIZE", "RINGHUB_"):
            with self.subTest(name):
                done = run_daemon("--check", env={name: "1"})
                self.assertEqual(done.returncode, 2, done)
                self.assertIn(name, done.stderr)

    def test_sizes_and_durations_have_units(self):
        for pair in ("limits.message_size=4096", "limits.message_size=64KiB",
                     "limits.message_size=2MiB", "heartbeat.interval=200ms",
                     "heartbeat.interval=5s", "heartbeat.timeout=2m", "heartbeat.timeout=24h"):
            with self.subTest(pair):
                done = run_daemon("--set", pair, "--check")
                self.assertEqual(done.returncode, 0, done)


if __name__ == "__main__":
    unittest.main()
