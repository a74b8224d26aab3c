#!/usr/bin/python3
"""ringhub-bench against servers of other people, honest and faulty; mode fanout also against ours.

Goal    the load tool says "fine" only if every message came back once, in order, unchanged; and
        each kind of fault is found, named, and gives exit status 1.
Method  a WebSocket server on the `websockets` library, in this process, that commits one fault on
        one message, chosen by the path of the URL. For modes `send` and `fanout` it speaks as
        much of the hub's protocol as they need; in `fanout` the fault is committed on what one
        reader gets (the victim), the others get what is right.

RINGHUB_BENCH names another program to test than that of the VARIANT.
"""
import asyncio
import concurrent.futures
import http
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
import zlib

import websockets

from hub import Hub

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = os.environ.get("RINGHUB_BENCH",
                       str(ROOT / "build" / os.environ.get("VARIANT", "release") / "ringhub-bench"))
FAULT_AT = 20  # the message on which a fault is committed
ROOM_FAULT_AT = 8  # and in a room, where each has several receivers
BRIEF = "100ms"  # long enough where nothing has to happen but what is right


def flipped(message):
    """The last byte changed; still a letter, so still valid text."""
    last = message[-1]
    if isinstance(message, bytes):
        return message[:-1] + bytes([last ^ 1])
    return message[:-1] + ("b" if last != "b" else "c")


def deflated(message):
    """As one message of permessage-deflate."""
    pack = zlib.compressobj(wbits=-15)
    data = message if isinstance(message, bytes) else message.encode()
    return (pack.compress(data) + pack.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed_frame(message, fault):
    """A frame with RSV1 and what the fault makes of the message."""
    packed = deflated(message)
    first = 0xc2 if isinstance(message, bytes) else 0xc1
    if fault == "torn":
        packed = packed[:len(packed) // 2]
    if fault == "damage":  # in the block's codes, so that nothing behind them fits
        packed = packed[:2] + bytes(~b & 255 for b in packed[2:12]) + packed[12:]
    if fault == "other":  # intact, but not what was sent
        packed = deflated(flipped(message))
    if fault == "unmarked":
        first &= ~0x40
    return bytes([first, 126]) + len(packed).to_bytes(2, "big") + packed


PACKED = ("intact", "torn", "damage", "other", "unmarked")


class Room:
    """Who is in it; publishes, and commits its fault on what the last of the others gets."""

    def __init__(self, name, real, fault):
        self.name = name
        self.real = real  # else broadcasts
        self.fault = fault
        self.members = []
        self.seq = 0
        self.published = 0
        self.kept = None

    def notify(self, user, content, seq):
        if not self.real:
            return {"type": "notify", "event": "broadcast",
                    "data": {"id": str(seq), "from": user, "content": content}}
        return {"type": "notify", "event": "room.message",
                "data": {"room": self.name, "seq": seq, "id": str(seq), "from": user,
                         "content": content, "ack": False, "attempt": 1, "priority": "normal"}}

    def for_victim(self, right, fault):
        """The messages that the victim gets instead of the right one."""
        data = right["data"]
        if fault == "drop":
            return []
        if fault == "twice":
            return [right, right]
        if fault == "swap":
            self.kept = right
            return []
        if fault == "flip":
            return [{**right, "data": {**data, "content": flipped(data["content"])}}]
        if fault == "from":
            return [{**right, "data": {**data, "from": "somebody"}}]
        if fault == "seq":
            return [{**right, "data": {**data, "seq": data["seq"] + 1}}]
        if fault == "room":
            return [{**right, "data": {**data, "room": "another"}}]
        if fault == "lost":
            return [{"type": "notify", "event": "messages.lost",
                     "data": {"room": self.name, "from_seq": self.seq, "to_seq": self.seq,
                              "count": 1}}]
        return [right]

    async def publish(self, ws, user, request, admin):
        self.published += 1
        hit = self.published == ROOM_FAULT_AT
        data = request["data"]
        right = (request["event"] == "room.publish" and data["room"] == self.name if self.real
                 else request["event"] == "broadcast" and admin)
        if not right or (hit and self.fault == "refuse"):
            await ws.send(json.dumps({"type": "error", "request_id": request["request_id"],
                                      "code": 429, "error": "rate_limited", "message": "slow"}))
            return
        self.seq += 1
        answer = json.dumps({"type": "response", "request_id": request["request_id"], "code": 200,
                             "message": "OK", "data": {"id": str(self.seq), "seq": self.seq}})
        if not (hit and self.fault == "silent"):
            await ws.send(answer)
        if hit and self.fault == "answers":
            await ws.send(answer)
        message = self.notify(user, data["content"], self.seq)
        if hit and self.fault == "all":
            message["data"]["content"] = flipped(data["content"])
        text = json.dumps(message)
        victim = [member for member in self.members if member is not ws][-1:]
        for reader in self.members:
            if reader in victim:
                continue
            if self.fault == "spaces":  # each gets other bytes of the same meaning
                text = json.dumps(message, indent=self.members.index(reader))
            await reader.send([text[:9], text[9:]] if self.fault == "fragment" else text)
        for reader in victim:
            await self.serve_victim(reader, message, self.fault if hit else "")

    async def serve_victim(self, victim, message, fault):
        if fault == "close":
            await victim.close(4408, "slow")
            return
        if fault in PACKED:
            victim.transport.write(compressed_frame(json.dumps(message), fault))
            return
        for text in self.for_victim(message, fault):
            await victim.send(json.dumps(text))
        if self.kept and not fault:
            await victim.send(json.dumps(self.kept))
            self.kept = None


class Server:
    """Serves until close(); the first part of the path picks what it does wrong."""

    def __init__(self, compression=None):
        self.compression = compression
        self.users = {}
        self.rooms = {}
        self.held = 0  # connections of mode connect
        self.ponged = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._start())
        self.ready.set()
        self.loop.run_forever()

    async def _start(self):
        self.server = await websockets.serve(
            self.serve, "127.0.0.1", 0, max_size=None, compression=self.compression,
            process_request=self.maybe_refuse)
        self.port = self.server.sockets[0].getsockname()[1]

    async def maybe_refuse(self, path, headers):
        if path.startswith("/refuse"):
            return http.HTTPStatus.FORBIDDEN, [], b"no"
        return None

    def url(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    async def serve(self, ws):
        path = urllib.parse.urlsplit(ws.path)
        name, _, fault = path.path.strip("/").partition("-")
        query = urllib.parse.parse_qs(path.query)
        try:
            if name == "send":
                await self.send(ws, fault, query["user_id"][0])
            elif name == "fanout":
                await self.fanout(ws, fault, query)
            elif name == "hold":
                await self.hold(ws, fault)
            else:
                await self.echo(ws, fault)
        except websockets.ConnectionClosed:
            pass

    async def echo(self, ws, fault):
        count = 0
        kept = None
        async for message in ws:
            count += 1
            hit = count == FAULT_AT
            if hit and fault == "drop":
                continue
            if hit and fault == "close":
                await ws.close(1011, "tired")
                return
            if hit and fault == "reset":
                ws.transport.abort()
                return
            if hit and fault == "swap":
                kept = message
                continue
            if hit and fault == "fragment":
                await ws.send([message[:7], message[7:8], message[8:]])
                continue
            if hit and fault == "ping":
                await (await ws.ping(b"are you there?"))
            if hit and fault == "flip":
                message = flipped(message)
            if hit and fault == "short":
                message = message[:-1]
            if hit and fault == "text":
                message = message.decode()
            if hit and fault in PACKED:
                ws.transport.write(compressed_frame(message, fault))
                continue
            if hit and fault == "noise":
                ws.transport.write(b"\xff\xff\xff\xff")
            await ws.send(message)
            if hit and fault == "twice":
                await ws.send(message)
            if kept is not None and not hit:
                await ws.send(kept)
                kept = None

    async def hold(self, ws, fault):
        """Pings each connection once; with a fault every third ends when all are there."""
        self.held += 1
        hit = self.held % 3 == 0
        await (await ws.ping(b"still there?"))
        self.ponged += 1
        await asyncio.sleep(0.3)
        if hit and fault == "close":
            await ws.close(1011, "tired")
        if hit and fault == "reset":
            ws.transport.abort()
        await ws.wait_closed()

    async def send(self, ws, fault, user):
        self.users[user] = ws
        await ws.send(json.dumps({"type": "notify", "event": "welcome", "data": {"user": user}}))
        count = 0
        kept = None
        async for text in ws:
            count += 1
            request = json.loads(text)
            data = request["data"]
            hit = count == FAULT_AT
            status = "stored" if hit and fault == "stored" else "sent"
            answer = {"type": "response", "request_id": request["request_id"], "code": 200,
                      "message": "OK", "data": {"id": str(count), "status": status}}
            notify = {"type": "notify", "event": "message",
                      "data": {"id": str(count), "from": user, "content": data["content"],
                               "ack": False, "seq": count}}
            if hit and fault == "refuse":
                answer = {"type": "error", "request_id": request["request_id"], "code": 429,
                          "error": "rate_limited", "message": "slow down"}
                await ws.send(json.dumps(answer))
                continue
            if hit and fault == "from":
                notify["data"]["from"] = "somebody"
            if hit and fault == "flip":
                notify["data"]["content"] = flipped(data["content"])
            if not (hit and fault == "silent"):
                await ws.send(json.dumps(answer))
            if hit and fault == "answers":
                await ws.send(json.dumps(answer))
            to = self.users[data["to"]]
            if hit and fault == "drop":
                continue
            if hit and fault == "swap":
                kept = notify
                continue
            await to.send(json.dumps(notify))
            if hit and fault == "twice":
                await to.send(json.dumps(notify))
            if kept is not None:
                await to.send(json.dumps(kept))
                kept = None

    async def fanout(self, ws, fault, query):
        """A room or, without one, broadcasts to all users of the same run."""
        user = query["user_id"][0]
        name = query.get("rooms", [user.rpartition("-")[0]])[0]
        room = self.rooms.setdefault(name, Room(name, "rooms" in query, fault))
        await ws.send(json.dumps({"type": "notify", "event": "welcome", "data": {"user": user}}))
        if "rooms" in query:
            joined = {"room": name, "members": 1, "seq": 0, "epoch": "e"}
            if fault == "full" and room.members:
                joined = {"room": name, "code": 409, "error": "room_full", "message": "full"}
            await ws.send(json.dumps({"type": "notify", "event": "presence.changed", "data": {}}))
            await ws.send(json.dumps({"type": "notify", "event": "room.subscribed",
                                      "data": joined}))
        room.members.append(ws)
        admin = query.get("user_type") == ["admin"]
        try:
            async for text in ws:
                await room.publish(ws, user, json.loads(text), admin)
        finally:
            room.members.remove(ws)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


def bench(*args, timeout=40, files=None):
    """`files` is its limit of open files, which decides where descriptors live."""
    limit = ["prlimit", f"--nofile={files}"] if files else []
    return subprocess.run([*limit, BENCH, *args], capture_output=True, text=True, timeout=timeout)


class WithServer(unittest.TestCase):
    COMPRESSION = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.COMPRESSION)

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def run_mode(self, mode, path, *args, duration="300ms"):
        return bench(mode, "--url", self.server.url(path), "--duration", duration, "--warmup",
                     "0ms", *args)

    def assert_fine(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("nothing lost, reordered, corrupted, refused or broken", result.stdout)

    def assert_fault(self, result, words):
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertRegex(result.stdout, r"FAULT\s+\d+ " + words)


class EchoFaults(WithServer):
    def echo(self, fault, *args, **how):
        return self.run_mode("echo", "/echo-" + fault, "--connections", "2", "--depth", "4", *args,
                             **how)

    def test_an_honest_server_is_fine_at_every_size(self):
        for size in (0, 1, 12, 18, 64, 125, 126, 1000, 65535, 65536, 200000):
            for text in ([], ["--text"]):
                with self.subTest(size=size, text=text):
                    self.assert_fine(self.echo("", "--size", str(size), *text, duration=BRIEF))

    def test_two_threads_and_a_mask_of_zero_change_nothing(self):
        self.assert_fine(self.echo("", "--threads", "2", "--mask-zero"))

    def test_a_message_in_fragments_is_whole(self):
        self.assert_fine(self.echo("fragment"))

    def test_a_ping_is_answered(self):
        self.assert_fine(self.echo("ping"))

    def test_a_flipped_byte_is_corruption(self):
        for size in ("18", "64", "1000", "70000"):
            with self.subTest(size=size):
                self.assert_fault(self.echo("flip", "--size", size), "messages corrupted")

    def test_a_missing_byte_is_corruption(self):
        self.assert_fault(self.echo("short"), "messages corrupted")

    def test_another_opcode_is_corruption(self):
        self.assert_fault(self.echo("text"), "messages corrupted")

    def test_two_swapped_messages_are_reordered(self):
        for size in ("1", "64"):
            with self.subTest(size=size):
                result = self.echo("swap", "--size", size)
                self.assert_fault(result, "messages reordered")
                self.assertNotIn("messages lost", result.stdout)

    def test_a_message_that_comes_twice_is_not_expected(self):
        self.assert_fault(self.echo("twice"), "messages not expected")

    def test_a_connection_closed_early_is_broken_and_the_code_is_told(self):
        result = self.echo("close")
        self.assert_fault(result, "connections broken")
        self.assertIn("closed it with 1011 (tired)", result.stdout)

    def test_a_reset_connection_is_broken(self):
        self.assert_fault(self.echo("reset"), "connections broken")

    def test_bytes_that_are_no_frames_break_the_connection(self):
        self.assert_fault(self.echo("noise"), "connections broken")

    def test_a_refused_handshake_is_counted_with_its_status(self):
        result = self.run_mode("echo", "/refuse", "--connections", "3")
        self.assert_fault(result, "connections refused")
        self.assertIn("3 connections refused", result.stdout)
        self.assertIn("HTTP status 403", result.stdout)

    def test_nobody_listening_is_refused(self):
        result = bench("echo", "--url", "ws://127.0.0.1:1/", "--duration", "100ms")
        self.assert_fault(result, "connections refused")


class SendFaults(WithServer):
    def send(self, *args):
        return self.run_mode("send", "/send-", "--connections", "4", *args, duration=BRIEF)

    def test_an_honest_server_is_fine(self):
        for args in ([], ["--depth", "8"], ["--size", "0"], ["--size", "5000", "--depth", "3"],
                     ["--rate", "500"], ["--threads", "2"]):
            with self.subTest(args=args):
                result = self.send(*args)
                self.assert_fine(result)
                self.assertRegex(result.stdout, r"answers\s+p50")


class FanoutFaults(WithServer):
    def fanout(self, fault, *args, **how):
        return self.run_mode("fanout", "/fanout-" + fault, "--connections", "5", *args, **how)

    def test_an_honest_server_is_fine(self):
        for kind in ((), ("--broadcast",)):
            for args in ([], ["--depth", "8"], ["--size", "0"], ["--size", "1", "--depth", "3"],
                         ["--size", "5000", "--depth", "3"], ["--size", "100000"],
                         ["--rate", "200"], ["--threads", "2"],
                         ["--threads", "3", "--depth", "8"]):
                with self.subTest(args=args, kind=kind):
                    result = self.fanout("", *args, *kind, duration=BRIEF)
                    self.assert_fine(result)
                    self.assertRegex(result.stdout, r"answers\s+p50")

    def test_one_connection_hears_itself(self):
        self.assert_fine(self.run_mode("fanout", "/fanout", "--depth", "4"))

    def test_messages_in_pieces_or_with_other_bytes_are_right(self):
        for fault in ("fragment", "spaces"):
            with self.subTest(fault=fault):
                self.assert_fine(self.fanout(fault, "--depth", "4"))

    def test_each_delivery_counts(self):
        result = self.fanout("", "--rate", "100", "--json", "-", "--pid", str(os.getpid()))
        figures = json.loads(result.stdout)
        self.assertEqual(figures["counts"]["sent"], 30)
        self.assertEqual(figures["counts"]["answered"], 30)
        self.assertEqual(figures["counts"]["completed"], 150)
        self.assertEqual(figures["latency"]["count"], 150)
        self.assertGreater(figures["server"]["cpu_ns_per_delivery"], 0)
        self.assertGreater(figures["text_bytes"], 64)

    def test_after_a_refused_message_or_a_lost_reader_it_goes_on(self):
        for fault in ("refuse", "close"):
            for threads in ("1", "2"):
                with self.subTest(fault=fault, threads=threads):
                    result = self.fanout(fault, "--json", "-", "--threads", threads)
                    counts = json.loads(result.stdout)["counts"]
                    self.assertGreater(counts["sent"], 2 * ROOM_FAULT_AT)
                    # what was on its way to who is gone is lost, later messages are not
                    self.assertEqual(counts["lost"], 1 if fault == "close" else 0)

    def test_a_server_that_does_not_compress_is_told_of(self):
        result = self.fanout("", "--compress", "--size", "1000")
        self.assert_fine(result)
        self.assertIn("5 connections are without compression", result.stdout)

    def test_who_may_not_join_is_refused(self):
        result = self.fanout("full")
        self.assert_fault(result, "connections refused")
        self.assertIn("room_full", result.stdout)

    def test_slow_readers_take_what_their_kernel_takes_and_are_not_waited_for(self):
        seen = []
        original = Room.publish

        async def note(room, *what):
            seen.append(len(room.members))
            room.members.sort(key=lambda ws: int(ws.path.partition("user_id=bench-")[2]
                                                 .partition("&")[0].rpartition("-")[2]))
            slow = room.members[2:]
            del room.members[2:]  # not sent to here: this server waits for those who do not read
            try:
                await original(room, *what)
            finally:
                room.members += slow
            for ws in slow:
                ws.transport.write(b"\x81\x7e\x10\x00" + b" " * 4096)

        Room.publish = note
        try:
            result = self.run_mode("fanout", "/fanout", "--connections", "2", "--slow", "3",
                                   "--json", "-")
        finally:
            Room.publish = original
        figures = json.loads(result.stdout)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(set(seen), {5})
        self.assertEqual(figures["counts"]["opened"], 5)
        self.assertEqual(figures["counts"]["completed"], 2 * figures["counts"]["sent"])
        self.assertGreater(figures["counts"]["sent"], 20)


class DirectDescriptors(WithServer):
    """A limit of 100 open files leaves each thread's table 36: the tool behaves as it did."""

    def run_mode(self, mode, path, *args, duration=BRIEF):
        warmup = () if mode == "connect" else ("--warmup", "0ms")
        return bench(mode, "--url", self.server.url(path), "--duration", duration, *warmup, *args,
                     files=100)

    def test_more_connections_than_open_files_take_more_threads(self):
        for mode, path in (("connect", "/echo"), ("echo", "/echo"), ("send", "/send-"),
                           ("fanout", "/fanout")):
            with self.subTest(mode=mode):
                result = self.run_mode(mode, path, "--connections", "108")
                self.assert_fine(result)
                self.assertIn("108 connections, 3 threads with direct descriptors", result.stdout)
                self.assertIn("108 opened", result.stdout)

    def test_slow_readers_count_as_well(self):
        result = self.run_mode("fanout", "/fanout", "--connections", "30", "--slow", "7", "--rate",
                               "20")
        self.assert_fine(result)
        self.assertIn("2 threads with direct descriptors", result.stdout)

    def test_too_few_threads_are_refused_in_a_sentence(self):
        result = self.run_mode("echo", "/echo", "--connections", "109", "--threads", "3")
        self.assertEqual(result.returncode, 2, result.stdout)
        self.assertIn("109 connections need 4 threads, not 3", result.stderr)

    def test_what_fits_stays_an_open_file(self):
        result = self.run_mode("echo", "/echo", "--connections", "30", "--json", "-")
        figures = json.loads(result.stdout)
        self.assertEqual((figures["direct"], figures["threads"]), (False, 1))

    def test_faults_are_found_as_ever(self):
        for fault, words in (("close", "connections broken"), ("reset", "connections broken"),
                             ("flip", "messages corrupted"), ("swap", "messages reordered")):
            with self.subTest(fault=fault):
                self.assert_fault(self.run_mode("echo", "/echo-" + fault, "--connections", "40",
                                                "--depth", "4", duration="1s"), words)

    def test_nobody_listening_is_refused(self):
        result = bench("echo", "--url", "ws://127.0.0.1:1/", "--duration", BRIEF, "--connections",
                       "50", files=100)
        self.assert_fault(result, "connections refused")
        self.assertIn("50 connections refused", result.stdout)


class Compressed(WithServer):
    COMPRESSION = "deflate"
    MODES = (("echo", "/echo"), ("send", "/send-"), ("fanout", "/fanout"))

    def compressed(self, mode, path, *args, **how):
        return self.run_mode(mode, path, "--connections", "4", "--compress", "--depth", "4", *args,
                             **how)

    def test_an_honest_server_is_fine_at_every_size_and_compression_is_used(self):
        for mode, path in self.MODES:
            for size in ("0", "18", "511", "512", "1000", "20000", "200000"):
                with self.subTest(mode=mode, size=size):
                    result = self.compressed(mode, path, "--size", size, "--json", "-",
                                             duration=BRIEF)
                    figures = json.loads(result.stdout)
                    counts = figures["counts"]
                    self.assertEqual(result.returncode, 0, counts)
                    self.assertTrue(figures["compress"])
                    self.assertEqual(counts["plain"], 0)
                    # the server compresses everything, the tool what is long enough
                    self.assertGreaterEqual(counts["compressed"], counts["completed"])
                    if int(size) >= 512:
                        self.assertEqual(counts["deflated"], counts["sent"])
                    elif mode == "echo":  # elsewhere there is an envelope around it
                        self.assertEqual(counts["deflated"], 0)

    def test_text_and_fragments_and_a_mask_of_zero_change_nothing(self):
        self.assert_fine(self.compressed("echo", "/echo", "--text", "--size", "1000"))
        self.assert_fine(self.compressed("echo", "/echo-fragment", "--size", "1000"))
        self.assert_fine(self.compressed("echo", "/echo", "--mask-zero", "--size", "1000"))
        self.assert_fine(self.compressed("fanout", "/fanout-fragment", "--size", "1000"))
        self.assert_fine(self.compressed("fanout", "/fanout-spaces", "--size", "1000"))

    def test_without_the_option_nothing_is_offered(self):
        result = self.run_mode("echo", "/echo", "--size", "1000", "--json", "-", duration=BRIEF)
        counts = json.loads(result.stdout)["counts"]
        self.assertEqual((result.returncode, counts["compressed"], counts["deflated"]), (0, 0, 0))

    def test_faults_are_found_in_what_was_inflated(self):
        for fault, words in (("flip", "messages corrupted"), ("swap", "messages reordered"),
                             ("twice", "messages not expected")):
            for mode in ("echo", "fanout"):
                with self.subTest(mode=mode, fault=fault):
                    self.assert_fault(self.compressed(mode, f"/{mode}-{fault}", "--size", "1000"),
                                      words)
        self.assert_fault(self.compressed("echo", "/echo-other", "--size", "1000"),
                          "messages corrupted")

    def test_compressed_bytes_by_hand_are_fine_as_long_as_they_are_right(self):
        for mode, path in (("echo", "/echo-intact"), ("fanout", "/fanout-intact")):
            with self.subTest(mode=mode):
                self.assert_fine(self.compressed(mode, path, "--size", "1000"))

    def test_what_cannot_be_inflated_is_corrupted_and_ends_the_connection(self):
        for mode, path in (("echo", "/echo-"), ("fanout", "/fanout-")):
            for fault in ("torn", "damage"):
                with self.subTest(mode=mode, fault=fault):
                    result = self.compressed(mode, path + fault, "--size", "1000")
                    self.assert_fault(result, "messages corrupted")
                    self.assert_fault(result, "connections broken")
                    self.assertIn("cannot be inflated", result.stdout)

    def test_compressed_bytes_that_claim_to_be_plain_are_found(self):
        self.assert_fault(self.compressed("echo", "/echo-unmarked", "--size", "1000"),
                          "messages corrupted")

    def test_compressed_bytes_without_agreement_are_no_websocket(self):
        result = self.run_mode("echo", "/echo-intact", "--size", "1000")
        self.assert_fault(result, "connections broken")
        self.assertIn("not WebSocket", result.stdout)


class Waits(WithServer):
    """What ends with five or ten seconds of waiting: many at once, begun before the first test,
    those that take longest first."""

    SILENCE = ("echo", "silence", "--connections", "3")
    NO_WELCOME = ("send", "/echo?x=1")
    LOSSES = ("fanout", "/fanout-drop", "--connections", "5", "--rate", "200", "--json", "-")
    DROPS = [("echo", "/echo-drop", "--connections", "2", "--depth", "4", *size)
             for size in ((), ("--size", "1"))]
    # a digit may turn it into the name of another message
    DIGITS = [("echo", "/echo-flip", "--connections", "2", "--depth", "4", "--size", size)
              for size in ("1", "5", "12")]
    SENDS = {("send", "/send-" + fault, "--connections", "4", "--depth", "4"): words
             for fault, words in (
                 ("drop", "messages lost"), ("flip", "messages corrupted"),
                 ("from", "messages corrupted"), ("swap", "messages reordered"),
                 ("twice", "messages not expected"), ("answers", "messages not expected"),
                 ("silent", "requests without an answer"),
                 ("stored", "messages refused by the server"),
                 ("refuse", "messages refused by the server"))}
    FANOUTS = [(fault, words, ("fanout", "/fanout-" + fault, "--connections", "5", "--depth", "4",
                               *kind))
               for fault, words in (
                   ("drop", "messages lost"), ("lost", "messages lost"),
                   ("silent", "requests without an answer"),
                   ("flip", "messages corrupted"), ("all", "messages corrupted"),
                   ("from", "messages corrupted"), ("seq", "messages corrupted"),
                   ("room", "messages corrupted"), ("swap", "messages reordered"),
                   ("twice", "messages not expected"), ("answers", "messages not expected"),
                   ("close", "connections broken"), ("refuse", "messages refused by the server"))
               for kind in ((), ("--broadcast",), ("--threads", "2"))
               if not (fault in ("seq", "room", "lost") and "--broadcast" in kind)]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.silence = socket.create_server(("127.0.0.1", 0))
        cls.pool = concurrent.futures.ThreadPoolExecutor(16)
        runs = [cls.SILENCE, cls.NO_WELCOME, cls.LOSSES, *cls.DROPS, *cls.DIGITS, *cls.SENDS,
                *(run for _, _, run in cls.FANOUTS)]
        cls.results = {run: cls.pool.submit(cls.run_one, *run) for run in runs}

    @classmethod
    def tearDownClass(cls):
        cls.pool.shutdown()
        cls.silence.close()
        super().tearDownClass()

    @classmethod
    def run_one(cls, mode, path, *args):
        url = (f"ws://127.0.0.1:{cls.silence.getsockname()[1]}/" if path == "silence"
               else cls.server.url(path))
        return bench(mode, "--url", url, "--duration", "300ms", "--warmup", "0ms", *args)

    def result(self, run):
        return self.results[run].result()

    def test_a_dropped_message_is_lost_whatever_its_size(self):
        for run in self.DROPS:
            with self.subTest(run=run):
                self.assert_fault(self.result(run), "messages lost")

    def test_a_flipped_digit_of_a_payload_that_is_only_a_number_is_a_fault_of_some_kind(self):
        for run in self.DIGITS:
            with self.subTest(run=run):
                self.assert_fault(self.result(run), "messages ")

    def test_each_fault_of_a_sender_or_receiver_is_named(self):
        for run, words in self.SENDS.items():
            with self.subTest(run=run):
                self.assert_fault(self.result(run), words)

    def test_each_fault_of_one_reader_or_answer_in_a_room_is_named(self):
        for fault, words, run in self.FANOUTS:
            with self.subTest(run=run):
                result = self.result(run)
                self.assert_fault(result, words)
                if fault in ("flip", "from", "twice", "answers", "silent", "refuse"):
                    self.assertNotIn("messages lost", result.stdout)
                if fault == "drop":
                    self.assertIn("1 messages lost", result.stdout)

    def test_losses_do_not_stop_an_open_loop_and_are_counted(self):
        counts = json.loads(self.result(self.LOSSES).stdout)["counts"]
        self.assertEqual((counts["sent"], counts["completed"], counts["lost"]), (60, 299, 1))

    def test_a_server_without_a_welcome_is_refused(self):
        self.assert_fault(self.result(self.NO_WELCOME), "connections refused")

    def test_a_server_that_says_nothing_is_not_waited_for_without_end(self):
        result = self.result(self.SILENCE)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("3 connections refused", result.stdout)
        self.assertIn("no handshake made progress", result.stdout)


class FanoutOfRinghub(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hub = Hub()

    @classmethod
    def tearDownClass(cls):
        cls.hub.stop()

    def test_rooms_and_broadcasts_are_delivered_whole(self):
        for kind in ((), ("--broadcast",)):
            for args in ((), ("--depth", "16"), ("--rate", "100"), ("--threads", "2"),
                         ("--size", "20000", "--depth", "4"), ("--slow", "30", "--rate", "50")):
                with self.subTest(kind=kind, args=args):
                    result = bench("fanout", "--url", self.hub.url + "/ws", "--connections", "60",
                                   "--duration", BRIEF, "--warmup", "0ms", "--json", "-", "--pid",
                                   str(self.hub.pid), *kind, *args)
                    self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
                    figures = json.loads(result.stdout)
                    self.assertGreater(figures["counts"]["sent"], 0)
                    self.assertEqual(figures["counts"]["completed"], 60 * figures["counts"]["sent"])
                    self.assertEqual(figures["counts"]["answered"], figures["counts"]["sent"])
                    self.assertGreater(figures["text_bytes"], figures["size"])


class ManyOfRinghub(unittest.TestCase):
    """More connections to a loopback address than one source address is good for."""

    def test_they_come_from_several_addresses_and_all_are_greeted(self):
        hub = Hub()
        self.addCleanup(hub.stop)
        result = bench("connect", "--url", hub.url + "/ws", "--connections", "10001", "--duration",
                       "500ms", "--pid", str(hub.pid), "--json", "-", timeout=120)
        figures = json.loads(result.stdout)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual((figures["source_addresses"], figures["first_source"]), (2, "127.0.0.2"))
        self.assertEqual(figures["counts"]["opened"], 10001)
        self.assertEqual(figures["until_welcome"]["count"], 10001)
        self.assertGreater(figures["server"]["rss_per_connection"], 0)


class Figures(WithServer):
    def test_json_holds_the_figures_and_its_buckets_add_up(self):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "out.json")
            result = self.run_mode("echo", "/echo", "--connections", "3", "--json", name,
                                   "--pid", str(os.getpid()))
            self.assert_fine(result)
            with open(name, encoding="utf-8") as f:
                figures = json.load(f)
        self.assertTrue(figures["ok"])
        latency = figures["latency"]
        self.assertEqual(sum(b[2] for b in latency["buckets"]), latency["count"])
        self.assertLessEqual(latency["p50"], latency["p99"])
        self.assertLessEqual(latency["p99.99"], latency["max"])
        self.assertGreater(latency["count"], 0)
        self.assertGreater(figures["server"]["cpu_ns_per_message"], 0)
        self.assertEqual(figures["counts"]["sent"], figures["counts"]["completed"])

    def test_json_on_standard_output_stands_alone(self):
        result = self.run_mode("echo", "/echo", "--json", "-")
        self.assertEqual(result.returncode, 0)
        self.assertEqual(json.loads(result.stdout)["mode"], "echo")

    def test_an_open_loop_keeps_its_rate(self):
        result = self.run_mode("echo", "/echo", "--connections", "7", "--rate", "1000",
                               "--json", "-")
        figures = json.loads(result.stdout)
        self.assertEqual(figures["counts"]["due"], 300)
        self.assertEqual(figures["counts"]["completed"], 300)

    def test_an_open_loop_counts_from_the_intended_time(self):
        """A stall of 300 ms in the server shows in all messages that were due in it."""
        async def stall():
            time.sleep(0.3)

        timer = threading.Timer(0.4, lambda: asyncio.run_coroutine_threadsafe(
            stall(), self.server.loop))
        timer.start()
        result = bench("echo", "--url", self.server.url("/echo"), "--connections", "4", "--rate",
                       "200", "--duration", "1s", "--warmup", "0ms", "--json", "-")
        timer.join()
        figures = json.loads(result.stdout)
        slow = sum(b[2] for b in figures["latency"]["buckets"] if b[0] > 100_000_000)
        self.assertGreaterEqual(slow, 30)  # 200/s for the 200 ms in which more than 100 are left
        self.assertGreater(figures["latency"]["max"], 250_000_000)

    def connect(self, path, *args):
        self.server.held = self.server.ponged = 0
        return bench("connect", "--url", self.server.url(path), "--connections", "50",
                     "--duration", "700ms", "--pid", str(os.getpid()), *args)

    def test_connect_holds_and_tells_of_memory(self):
        result = self.connect("/hold")
        self.assert_fine(result)
        for words in ("50 opened", "MB resident before", "bytes resident per connection",
                      "bytes of kernel objects", "of TCP buffers", "per connection and second",
                      "us of CPU per connection opened", "50 pings of the server were answered"):
            self.assertIn(words, result.stdout)

    def test_figures_of_connect_fit_each_other(self):
        result = self.connect("/hold", "--json", "-", "--threads", "2")
        figures = json.loads(result.stdout)
        server, tool = figures["server"], figures["tool"]
        self.assertTrue(figures["ok"])
        self.assertEqual((figures["counts"]["opened"], figures["counts"]["pings"]), (50, 50))
        self.assertEqual(self.server.ponged, 50)
        self.assertEqual(figures["until_101"]["count"], 50)
        for name in ("rss", "anon"):
            grown = server[name + "_after"] - server[name + "_before"]
            self.assertAlmostEqual(server[name + "_per_connection"], grown / 50, delta=0.1)
        for name in ("slab", "tcp_bytes"):
            grown = server[name + "_after"] - server[name + "_before"]
            self.assertAlmostEqual(server[name + "_per_connection_both_ends"], grown / 50, delta=0.1)
        self.assertGreater(server["sockets_after"], 0)
        idle = server["cpu_ns"] / 50 / figures["window_seconds"]
        self.assertAlmostEqual(server["idle_ns_per_connection_second"], idle, delta=1 + idle / 99)
        self.assertGreater(server["cpu_ns_per_connection"], 0)
        self.assertGreater(tool["cpu_ns_per_connection"], 0)
        self.assertEqual((len(tool["cpu_percent"]), len(tool["wait_percent"])), (2, 2))

    def test_what_ends_while_it_is_held_is_broken(self):
        for fault, words in (("close", "closed it with 1011 (tired)"), ("reset", "broke: ")):
            with self.subTest(fault=fault):
                result = self.connect("/hold-" + fault)
                self.assert_fault(result, "connections broken")
                self.assertIn("16 connections broken", result.stdout)
                self.assertIn(words, result.stdout)

    def test_connections_come_from_the_source_addresses_in_turn(self):
        seen = set()
        original = self.server.echo

        async def note(ws, fault):
            seen.add(ws.remote_address[0])
            await original(ws, fault)

        self.server.echo = note
        try:
            self.assert_fine(self.run_mode("echo", "/echo", "--connections", "6",
                                           "--source-addresses", "127.0.0.7-127.0.0.9"))
        finally:
            self.server.echo = original
        self.assertEqual(seen, {"127.0.0.7", "127.0.0.8", "127.0.0.9"})

    def test_an_interrupt_ends_early_and_reports(self):
        process = subprocess.Popen([BENCH, "echo", "--url", self.server.url("/echo"), "--duration",
                                    "60s", "--warmup", "0ms"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=15)
        self.assertEqual(process.returncode, 0, out)
        self.assertIn("ended early by a signal", out)
        self.assertIn("p99.99", out)


class Silence(unittest.TestCase):
    """A server that accepts and says nothing."""

    def setUp(self):
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.sock.close)
        self.url = f"ws://127.0.0.1:{self.sock.getsockname()[1]}/"

    def test_an_interrupt_ends_the_waiting(self):
        process = subprocess.Popen([BENCH, "echo", "--url", self.url], stdout=subprocess.PIPE,
                                   text=True)
        self.addCleanup(process.kill)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=5)
        self.assertEqual(process.returncode, 1, out)
        self.assertIn("ended early by a signal", out)


class Usage(unittest.TestCase):
    URL = ("--url", "ws://127.0.0.1:9/")

    def assert_usage(self, words, *args):
        result = bench(*args, files=1000)
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        self.assertIn(words, result.stderr)
        self.assertEqual(result.stdout, "")

    def test_wrong_usage_is_told_in_a_sentence(self):
        u = self.URL
        for words, args in (
                ("a mode is missing", u), ("--url is missing", ("echo",)),
                ("unknown mode walk", ("walk", *u)), ("one mode only", ("echo", "send", *u)),
                ("a --size of at least 18", ("ack", *u, "--size", "17")),
                ("must be even", ("mixed", *u, "--connections", "3")),
                ("no rooms", ("mixed", "--url", "ws://127.0.0.1:9/ws?rooms=x")),
                ("--mix is for mode mixed", ("ack", *u, "--mix", "ack=1")),
                ("--room-size is for mode mixed", ("send", *u, "--room-size", "4")),
                ("--silent-share is for modes ack and mixed", ("send", *u, "--silent-share", "1%")),
                ("--reconnect is for modes ack and mixed", ("fanout", *u, "--reconnect", "1")),
                ("--drain is for modes ack and mixed", ("echo", *u, "--drain", "1s")),
                ("unknown option --speed", ("echo", *u, "--speed", "3")),
                ("--size needs", ("echo", *u, "--size")),
                ("--size is given twice", ("echo", *u, "--size", "1", "--size", "2")),
                ("--text takes no value", ("echo", *u, "--text=1")),
                ("exclude each other", ("echo", *u, "--rate", "5", "--depth", "2")),
                ("must be even", ("send", *u, "--connections", "3")),
                ("no user_id", ("send", "--url", "ws://127.0.0.1:9/ws?user_id=x")),
                ("sends none", ("connect", *u, "--depth", "2")),
                ("sends none", ("connect", *u, "--warmup", "2s")),
                ("sends none", ("connect", *u, "--compress")),
                ("--text is for mode echo", ("send", *u, "--text")),
                ("--text is for mode echo", ("fanout", *u, "--text")),
                ("--slow is for mode fanout", ("send", *u, "--slow", "3")),
                ("--broadcast is for mode fanout", ("echo", *u, "--broadcast")),
                ("no rooms", ("fanout", "--url", "ws://127.0.0.1:9/ws?rooms=x")),
                ("need 3 source addresses", ("fanout", *u, "--slow", "20000",
                                             "--source-addresses", "127.0.0.2-127.0.0.3")),
                ("and 64 are the most", ("fanout", *u, "--slow", "9999999")),
                ("need 3 source addresses", ("echo", *u, "--connections", "20001",
                                             "--source-addresses", "127.0.0.2-127.0.0.3")),
                ("IPv4", ("echo", "--url", "ws://[::1]:9/", "--source-addresses", "127.0.0.2")),
                ("more than there are connections", ("echo", *u, "--threads", "2")),
                ("open files", ("echo", *u, "--connections", "9999999")),
                ("need 2 threads, not 1", ("echo", *u, "--connections", "937", "--threads", "1")),
                ("running server", ("echo", *u, "--pid", "2147483646")),
                ("--json /no/such", ("echo", *u, "--json", "/no/such/dir/x"))):
            with self.subTest(args=args):
                self.assert_usage(words, *args)

    def test_bad_values_are_refused(self):
        for option, values in (
                ("--url", ("http://127.0.0.1/", "ws://", "ws://example.org:80/", "ws://1.2.3.4:x/",
                           "ws://127.0.0.1:99999/")),
                ("--connections", ("0", "-1", "1e3", "")),
                ("--rate", ("0", "-5", "x", "nan")),
                ("--depth", ("0", "5000")),
                ("--slow", ("0", "-1", "x")),
                ("--silent-share", ("-1", "101%", "1.01", "x", "10%%", "")),
                ("--ack-timeout", ("0s", "5", "x")),
                ("--reconnect", ("0", "-1", "x")),
                ("--drain", ("5", "x")),
                ("--mix", ("", "send", "send=", "send=x", "send=1,", "walk=1", "send=1,send=2",
                           "send=0", "send=-1", "send=1000001", "send=1 ack=1")),
                ("--room-size", ("0", "1", "3", "66", "x")),
                ("--size", ("-1", "1.5", "1KB", "1TiB")),
                ("--duration", ("0s", "5", "s", "5 s", "-5s", "1000h")),
                ("--threads", ("0", "65")),
                ("--source-addresses", ("127.0.0.9-127.0.0.2", "localhost", "127.0.0.1-"))):
            for value in values:
                with self.subTest(option=option, value=value):
                    base = () if option == "--url" else self.URL
                    self.assert_usage(option, "echo", *base, option, value)

    def test_help_and_version(self):
        self.assertIn("--source-addresses", bench("--help").stdout)
        self.assertEqual(bench("--help").returncode, 0)
        self.assertRegex(bench("--version").stdout, r"^ringhub-bench \d")


if __name__ == "__main__":
    unittest.main(verbosity=2)
