"""permessage-deflate (RFC 7692): what is agreed on, what is compressed, what is refused, and what it
costs (docs/protocol.md, "Compression")."""

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time
import unittest
import zlib

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

import raw
from clients import ClientCase, envelope, open_socket, path
from deflating import EXTENSION, RSV1, Deflating, Packer, pack, packed, parameters, tables
from hub import DEADLINE, ROOT, SLOWNESS, Hub, HubCase, eventually
from slow import BLOCK, BOUND, DISCONNECTED, Slow, SlowCase

ON = {"compression.enabled": "true", "echo.enabled": "true"}
KEEPS = {**ON, "compression.context_takeover": "true"}
WORDS = [f"word-{n} " for n in range(50)]


def prose(size, seed=1):
    """A text that compresses, but not to nothing."""
    dice = random.Random(seed)
    text = ""
    while len(text) < size:
        text += "".join(dice.choices(WORDS, k=200))
    return text[:size]


def noise(size, seed=1):
    """A text that hardly compresses."""
    return random.Random(seed).randbytes(size).hex()[:size]


def ask(event, data=None, request_id="r"):
    return json.dumps({"type": "request", "event": event, "data": data, "request_id": request_id})


def compressed(hub, what="messages", direction="out"):
    return hub.metrics()[f'ringhub_compressed_{what}_total{{direction="{direction}"}}']


def every_offer():
    """All that Python's client can ask for."""
    for forgets_server, forgets_client, server, client in itertools.product(
            (False, True), (False, True), (None, 8, 9, 12, 15), (None, True, 9, 12, 15)):
        yield {"server_no_context_takeover": forgets_server,
               "client_no_context_takeover": forgets_client,
               "server_max_window_bits": server, "client_max_window_bits": client}


class Negotiated:
    """What holds whether contexts are kept or not; `keeps` says which."""

    def agree(self, offer):
        """What the hub answers to an offer; None: it goes on without."""
        with raw.Wire(self.hub) as wire:
            answer = wire.upgrade("/echo", {"Sec-WebSocket-Extensions": offer})
            said = answer.headers.get("sec-websocket-extensions")
            return None if said is None else parameters(said)

    def test_the_answer_names_what_was_agreed_on(self):
        forget = {} if self.keeps else {"server_no_context_takeover": True,
                                        "client_no_context_takeover": True}
        for offer, wanted in (
                ("", {"server_max_window_bits": 12}),
                ("; client_max_window_bits", {"server_max_window_bits": 12,
                                              "client_max_window_bits": 12}),
                ("; client_max_window_bits=10", {"server_max_window_bits": 12,
                                                 "client_max_window_bits": 10}),
                ("; client_max_window_bits=15", {"server_max_window_bits": 12,
                                                 "client_max_window_bits": 12}),
                ("; server_max_window_bits=15", {"server_max_window_bits": 12}),
                ("; server_max_window_bits=9", {"server_max_window_bits": 9}),
                ("; server_max_window_bits=8", {"server_max_window_bits": 8}),
                ("; server_no_context_takeover", {"server_max_window_bits": 12,
                                                  "server_no_context_takeover": True}),
                ("; client_no_context_takeover", {"server_max_window_bits": 12,
                                                  "client_no_context_takeover": True})):
            with self.subTest(offer):
                self.assertEqual(self.agree(EXTENSION + offer), {**forget, **wanted})

    def test_offers_with_anything_else_are_declined_and_the_handshake_goes_on(self):
        for bad in ("; unknown", "; server_max_window_bits", "; server_max_window_bits=16",
                    "; server_max_window_bits=7", "; server_max_window_bits=012",
                    "; client_max_window_bits=0", "; client_max_window_bits=x",
                    "; server_no_context_takeover=1", "; client_no_context_takeover=true",
                    "; server_no_context_takeover; server_no_context_takeover",
                    "; server_max_window_bits=10; server_max_window_bits=10"):
            with self.subTest(bad):
                self.assertIsNone(self.agree(EXTENSION + bad))
                self.assertIsNotNone(self.agree(f"{EXTENSION}{bad}, {EXTENSION}"))
        self.assertIsNone(self.agree("x-webkit-deflate-frame"))

    def test_the_first_offer_that_can_be_accepted_is(self):
        said = self.agree(f"{EXTENSION}; server_max_window_bits=10, {EXTENSION}")
        self.assertEqual(said["server_max_window_bits"], 10)
        said = self.agree(f"x-other; a=b, {EXTENSION}; client_max_window_bits, {EXTENSION}")
        self.assertEqual(said["client_max_window_bits"], 12)

    def test_a_hand_over_carries_the_terms_along(self):
        """Users live on all shards, most connections come to another one."""
        for number in range(16):
            with Deflating(self.hub) as wire:
                wire.upgrade(f"/ws?user_id=moved-{number}")
                wire.message()
                wire.say(raw.TEXT, ask("ping", prose(3000, number)))
                self.assertEqual(envelope(wire.message().payload.decode())["data"],
                                 prose(3000, number))
                self.assertEqual(wire.counts[True], 1)

    # ---- clients that others wrote ----

    async def test_pythons_client_with_every_offer_that_it_can_make(self):
        dice = random.Random(3)
        for offer in every_offer():
            with self.subTest(offer):
                socket = await open_socket(self.hub, "/echo", compression=None,
                                           extensions=[ClientPerMessageDeflateFactory(**offer)])
                self.assertEqual(len(socket.extensions), 1)
                for _ in range(6):
                    size = dice.choice((0, 1, 500, 511, 512, 513, 5000, 70_000))
                    for content in (prose(size, size), dice.randbytes(size), prose(size).encode()):
                        await socket.send(content)
                        async with asyncio.timeout(DEADLINE):
                            self.assertEqual(await socket.recv(), content)
                await socket.close()
                self.assertEqual(socket.close_code, 1000)

    async def test_pythons_client_sends_fragments(self):
        socket = await open_socket(self.hub, "/echo")
        for parts in (["a" * 600, "", "b" * 600], [prose(3000, n) for n in range(20)], ["", ""]):
            await socket.send(parts)
            self.assertEqual(await socket.recv(), "".join(parts))
        await socket.close()

    def test_npms_ws_with_its_options(self):
        for options in ("true", '{"threshold":0}',
                        '{"threshold":0,"serverNoContextTakeover":true}',
                        '{"threshold":0,"clientNoContextTakeover":true}',
                        '{"threshold":0,"serverMaxWindowBits":10,"clientMaxWindowBits":10}',
                        '{"threshold":0,"clientMaxWindowBits":true,"zlibDeflateOptions":{"level":9}}'):
            with self.subTest(options):
                self.assertEqual(self.node("node_echo.js", options), "ok\n")

    def test_npms_ws_talks_across_shards(self):
        users = json.loads(self.node("node_chat.js", "16", '{"threshold":0}', "600"))
        names = sorted(f"node-{i}" for i in range(16))
        for user in users:
            self.assertEqual((user["bad"], sorted(user["from"])), ([], names))

    def node(self, script, *args):
        done = subprocess.run(["node", str(ROOT / "tests/e2e" / script), self.hub.url, *args],
                              env={**os.environ, "NODE_PATH": "/usr/share/nodejs"},
                              capture_output=True, text=True, timeout=3 * DEADLINE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    # ---- frames by hand ----

    def open(self, path="/echo", **how):
        wire = Deflating(self.hub, **how)
        self.addCleanup(wire.sock.close)
        wire.upgrade(path)
        if path.startswith("/ws"):
            wire.message()
        return wire

    def test_random_messages_fragmented_and_cut_anywhere(self):
        dice = random.Random(11)
        for _ in range(12):
            wire = self.open(offer=f"{EXTENSION}; client_max_window_bits=11")
            stream, expected = b"", []
            for number in range(15):
                opcode = dice.choice((raw.TEXT, raw.BINARY))
                content = prose(dice.choice((0, 5, 600, 4000, 30_000)), number).encode()
                expected.append((opcode, content))
                squeezed = dice.random() < 0.8
                payload = wire.packer(content) if squeezed else content
                rsv, first = RSV1 if squeezed else 0, opcode
                while len(payload) > 1 and dice.random() < 0.5:
                    part = dice.randrange(len(payload))
                    stream += raw.frame(first, payload[:part], fin=False, rsv=rsv)
                    payload, first, rsv = payload[part:], raw.CONT, 0
                    if dice.random() < 0.5:
                        stream += raw.frame(raw.PING, b"between")
                stream += raw.frame(first, payload, rsv=rsv)
            while stream:
                part = dice.randrange(1, 1 + dice.choice((3, 100, 4000, len(stream))))
                wire.send(stream[:part])
                stream = stream[part:]
            for opcode, content in expected:
                got = wire.message()
                self.assertEqual((got.opcode, got.payload), (opcode, content))

    def test_a_message_cut_at_every_byte(self):
        wire = self.open()
        content = prose(900)
        for cut in range(1, len(pack(content)) + 8):
            data = raw.frame(raw.TEXT, wire.packer(content.encode()), rsv=RSV1)
            wire.send(data[:cut])
            wire.send(data[cut:])
            self.assertEqual(wire.message().payload.decode(), content)

    def test_blocks_of_all_kinds(self):
        """Stored, fixed and dynamic ones, several in a message, and the last one (RFC 7692 7.2.3)."""
        content = prose(2000).encode()
        whole = zlib.compressobj(wbits=-15)
        final = whole.compress(content) + whole.flush(zlib.Z_FINISH) + b"\0"
        fixed = zlib.compressobj(strategy=zlib.Z_FIXED, wbits=-15)
        blocks = fixed.compress(content[:700]) + fixed.flush(zlib.Z_SYNC_FLUSH)
        blocks += fixed.compress(content[700:]) + fixed.flush(zlib.Z_SYNC_FLUSH)
        cases = {"final": final, "fixed": blocks[:-4], "stored": Packer(level=0)(content)}
        for name, payload in cases.items():
            with self.subTest(name):
                wire = self.open()
                wire.send(raw.frame(raw.TEXT, payload, rsv=RSV1))
                self.assertEqual(wire.message().payload, content)
        wire = self.open()
        wire.send(raw.frame(raw.TEXT, b"\0", rsv=RSV1))
        self.assertEqual(wire.message(), (raw.TEXT, b"", True))

    def test_reserved_bits_where_they_may_not_be(self):
        for name, data in {
                "RSV1 on a continuation": raw.frame(raw.TEXT, b"a", fin=False, rsv=RSV1)
                + raw.frame(raw.CONT, b"b", rsv=RSV1),
                "RSV1 on a continuation of a plain one": raw.frame(raw.TEXT, b"a", fin=False)
                + raw.frame(raw.CONT, b"b", rsv=RSV1),
                "RSV1 on a ping": raw.frame(raw.PING, b"", rsv=RSV1),
                "RSV1 on a close": raw.frame(raw.CLOSE, b"", rsv=RSV1),
                "RSV2": raw.frame(raw.TEXT, b"a", rsv=2),
                "RSV3": raw.frame(raw.TEXT, pack(b"a"), rsv=5)}.items():
            for at in ("/echo", "/ws?user_id=reserved"):
                with self.subTest(name, at=at):
                    wire = self.open(at)
                    wire.send(data)
                    self.assertEqual(wire.close_code(), 1002)

    def test_rsv1_without_an_agreement(self):
        for at in ("/echo", "/ws?user_id=plain"):
            with raw.Wire(self.hub) as wire:
                wire.upgrade(at)
                wire.send(packed(raw.TEXT, "hello"))
                self.assertEqual(wire.close_code(), 1002)

    def test_damaged_data_closes_with_1007(self):
        good = pack(prose(3000))
        for name, payload in {"garbage": b"\xff" * 100, "a bad block": b"\x07", "cut": good[:-5],
                              "nothing": b"", "a stored block cut": b"\0\x10\0\xef\xffabc",
                              "trailing": good + b"\x55"}.items():
            for at in ("/echo", "/ws?user_id=damaged"):
                with self.subTest(name, at=at):
                    wire = self.open(at)
                    wire.send(raw.frame(raw.TEXT, payload, rsv=RSV1))
                    self.assertEqual(wire.close_code(), 1007)

    def test_text_that_is_no_utf_8_after_inflating_closes_with_1007(self):
        for bad in (b"caf\xc3", b"\xff", b"\xed\xa0\x80", b"ok " * 1000 + b"\xc0\x80"):
            for at in ("/echo", "/ws?user_id=utf8"):
                wire = self.open(at)
                wire.send(packed(raw.TEXT, bad))
                self.assertEqual(wire.close_code(), 1007)
            wire = self.open("/echo")
            wire.say(raw.BINARY, bad)
            self.assertEqual(wire.message().payload, bad)

    def test_bombs_close_with_1009_and_leave_no_memory(self):
        packer = zlib.compressobj(9, wbits=-15)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256))
        bomb += packer.flush(zlib.Z_SYNC_FLUSH)[:-4]  # 256 MiB in 256 KiB
        self.assertLess(len(bomb), 300_000)

        def throw(count):
            for number in range(count):
                wire = self.open(("/echo", f"/ws?user_id=bomb-{number}")[number % 2])
                if number % 3:
                    wire.send(raw.frame(raw.TEXT, bomb, rsv=RSV1))
                else:
                    wire.send(raw.frame(raw.TEXT, bomb[:1000], fin=False, rsv=RSV1)
                              + raw.frame(raw.CONT, bomb[1000:]))
                self.assertEqual(wire.close_code(), 1009)
                wire.sock.close()

        memory = self.hub.rss_kib()
        throw(72)  # 18 GiB in all
        self.assertLess(self.hub.rss_kib(), memory + 64 * 1024 * SLOWNESS)
        eventually(lambda: self.hub.metrics()["ringhub_compression_bytes"] < 2 << 20,
                   lambda: self.hub.get("/metrics"))

    def test_the_bound_counts_what_comes_out(self):
        limit = 1 << 20
        wire = self.open()
        for size in (limit - 1, limit):
            wire.say(raw.BINARY, bytes(size))
            self.assertEqual(len(wire.message().payload), size)
            rough = random.Random(5).randbytes(size)  # longer when compressed
            wire.say(raw.BINARY, rough)
            self.assertEqual(wire.message().payload, rough)
        wire.say(raw.BINARY, bytes(limit + 1))
        self.assertEqual(wire.close_code(), 1009)
        wire = self.open()  # the frame's head says it all
        wire.send(raw.frame(raw.BINARY, b"", rsv=RSV1, length=limit + limit // 1024 + 257))
        self.assertEqual(wire.close_code(), 1009)

    # ---- a user's messages ----

    def test_invalid_messages_count_as_plain_ones_do(self):
        wire = self.open("/ws?user_id=invalid")
        for number in range(10):
            wire.say(raw.TEXT if number % 2 else raw.BINARY, "no envelope")
            self.assertEqual(envelope(wire.message().payload.decode())["code"], 400)
        wire.say(raw.TEXT, ask("ping"))
        self.assertEqual(envelope(wire.message().payload.decode())["type"], "response")
        for number in range(11):
            wire.say(raw.TEXT, "no envelope")
        self.assertEqual(wire.close_code(), 4400)

    def test_small_and_rough_ones_go_as_they_are(self):
        wire = self.open()
        for content, squeezed in ((prose(511), False), (prose(512), True), (prose(5000), True)):
            before = wire.counts[True]
            wire.say(raw.TEXT, content)
            self.assertEqual(wire.message().payload.decode(), content)
            self.assertEqual(wire.counts[True] - before, squeezed, content[:20])
        rough = random.Random(1).randbytes(10_000)
        wire.say(raw.BINARY, rough)
        self.assertEqual(wire.message().payload, rough)
        wire.say(raw.TEXT, prose(5000, 9))  # and the next one can be read
        self.assertEqual(wire.message().payload.decode(), prose(5000, 9))
        wire.send(raw.frame(raw.PING, b"p" * 125))
        self.assertEqual(wire.message(keep_control=True), (raw.PONG, b"p" * 125, True))

    def test_a_window_of_8_gets_nothing_compressed(self):
        wire = self.open(offer=f"{EXTENSION}; server_max_window_bits=8")
        wire.say(raw.TEXT, prose(5000))
        self.assertEqual(wire.message().payload.decode(), prose(5000))
        self.assertEqual(wire.counts, {True: 0, False: 1})

    async def test_a_crowd_of_all_kinds_hears_the_same(self):
        """Plain and compressed members, windows of all sizes: room, replay, broadcast, direct."""
        room, name = f"crowd-{self.keeps}", f"member-{self.keeps}"
        wires = []
        for number in range(24):
            offer = [None, EXTENSION, f"{EXTENSION}; server_max_window_bits=9",
                     f"{EXTENSION}; server_no_context_takeover"][number % 4]
            wire = Deflating(self.hub, offer=offer) if offer else raw.Wire(self.hub)
            self.addCleanup(wire.sock.close)
            wire.upgrade(path(f"{name}-{number}", role="admin", rooms=room))
            wires.append(wire)
        sender = await self.client(f"{name}-0", role="admin")
        await sender.join(room)
        contents = [prose(size, size) for size in (10, 600, 4000, 4000, 30_000, 511)]
        before = self.hub.metrics()
        for content in contents:
            await sender.publish(room, content)
        await sender.request("broadcast", {"content": prose(2000, 7)})
        for wire in wires:
            heard = self.contents(wire, len(contents) + 1)
            heard.remove(prose(2000, 7))  # it comes by another way, so at any time
            self.assertEqual(heard, contents)
        late = Deflating(self.hub)  # what it missed comes from the history
        self.addCleanup(late.sock.close)
        late.upgrade(path(f"{name}-late") + f"&rooms={room}@0")
        self.assertEqual(self.contents(late, len(contents)), contents)
        self.assertGreaterEqual(late.counts[True], 4)
        after = self.hub.metrics()
        made = after["ringhub_deflates_total"] - before["ringhub_deflates_total"]
        if not self.keeps:  # shards times windows times messages, for the room, then its history
            self.assertLessEqual(made, 4 * 2 * 5 + 4 * 5)

    async def test_what_is_left_of_a_history_is_compressed_too(self):
        """The loss of what is gone is noted in the queue before anything else is."""
        room = f"left-{self.keeps}"
        sender = await self.client(f"{room}-sender", role="admin")
        await sender.join(room)
        contents = [prose(1000, seed) for seed in range(104)]  # rooms.history_size is 100
        await sender.publish_row(room, contents)
        late = self.open(path(f"{room}-late"))
        late.send(raw.frame(raw.TEXT, ask("room.join", {"room": room, "since": 1})))
        self.assertEqual(self.contents(late, 100), contents[4:])
        self.assertEqual(late.counts[True], 100)

    def contents(self, wire, count):
        got = []
        while len(got) < count:
            data = envelope(wire.message().payload.decode())
            if data.get("event") in ("room.message", "broadcast"):
                got.append(data["data"]["content"])
        return got


class Forgetting(Negotiated, ClientCase):
    options = ON
    keeps = False

    def test_the_answer_says_that_nothing_is_kept(self):
        wire = self.open("/echo")
        for _ in range(2):
            wire.say(raw.TEXT, prose(8000))
            wire.message()
        self.assertEqual(wire.bytes % 2, 0)  # both had the same
        self.assertGreater(wire.bytes, 1000)

    async def test_one_message_for_many_is_compressed_once_a_shard(self):
        wires = []
        for number in range(80):
            wire = Deflating(self.hub)
            self.addCleanup(wire.sock.close)
            wire.upgrade(path(f"many-{number}", rooms="many"))
            wires.append(wire)
        sender = await self.client("many-sender", how={"compression": None})
        await sender.join("many")
        before = self.hub.metrics()
        await sender.publish("many", prose(5000))
        for wire in wires:
            self.assertEqual(self.contents(wire, 1), [prose(5000)])
        after = self.hub.metrics()
        key = 'ringhub_compressed_messages_total{direction="out"}'
        eventually(lambda: self.hub.metrics()[key] - before[key] == 80, "80 were compressed")
        made = after["ringhub_deflates_total"] - before["ringhub_deflates_total"]
        self.assertLessEqual(made, 4)

    def contents(self, wire, count):
        return Negotiated.contents(self, wire, count)


class Keeping(Negotiated, ClientCase):
    options = KEEPS
    keeps = True

    def test_the_second_of_two_alike_is_small(self):
        wire = self.open("/echo")
        sizes = []
        for _ in range(2):
            before = wire.bytes
            wire.say(raw.TEXT, noise(2500))
            wire.message()
            sizes.append(wire.bytes - before)
        self.assertLess(sizes[1], sizes[0] / 4)

    def test_a_client_may_ask_for_less(self):
        wire = self.open("/echo", offer=f"{EXTENSION}; server_no_context_takeover")
        self.assertFalse(wire.keeps)
        for _ in range(2):
            wire.say(raw.TEXT, prose(8000))
            wire.message()
        self.assertEqual(wire.bytes % 2, 0)

    def test_contexts_that_come_and_go_leave_nothing(self):
        """1,000 connections, each with a context in both directions."""
        def turn(count):
            wires = [self.open("/echo") for _ in range(count)]
            for wire in wires:
                wire.say(raw.TEXT, prose(2000))
            for wire in wires:
                self.assertEqual(wire.message().payload.decode(), prose(2000))
            held = self.hub.metrics()["ringhub_compression_bytes"]
            for number, wire in enumerate(wires):
                wire.reset() if number % 2 else wire.sock.close()
            return held

        idle = self.hub.metrics()["ringhub_compression_bytes"]
        held = turn(200)
        self.assertGreater(held - idle, 200 * 20_000)
        self.assertLess(held - idle, 200 * 100_000)
        self.gone(idle)
        memory = self.hub.metrics()["ringhub_memory_bytes"]
        for _ in range(5):
            turn(200)
            self.gone(idle)
        if memory:
            self.assertLess(self.hub.metrics()["ringhub_memory_bytes"], memory + (4 << 20))

    def gone(self, idle):
        """Contexts are gone; what the shards share may have grown by their buffers."""
        eventually(lambda: self.hub.metrics()["ringhub_compression_bytes"] < idle + (1 << 20),
                   lambda: self.hub.get("/metrics"))


class Flood(HubCase):
    """A kilobyte that inflates to a megabyte may not cost the neighbours seconds."""

    options = ON

    @classmethod
    def setUpClass(cls):
        cls.hub = Hub(cls.options, shards=1)

    def test_neighbours_are_served_meanwhile(self):
        rounds, data = 40, raw.frame(raw.BINARY, pack(bytes(1 << 20)), rsv=RSV1)
        wires = [Deflating(self.hub) for _ in range(8)]
        worst = 0
        with raw.Wire(self.hub) as me:
            me.upgrade("/echo")
            for wire in wires:
                wire.upgrade("/echo")
            for wire in wires:
                wire.send(data * rounds)
            while compressed(self.hub, direction="in") < rounds * len(wires):
                began = time.monotonic()
                me.send(raw.frame(raw.TEXT, b"still there?"))
                self.assertEqual(me.message().payload, b"still there?")
                worst = max(worst, time.monotonic() - began)
        for wire in wires:
            for _ in range(rounds):
                self.assertEqual(len(wire.message().payload), 1 << 20)
            wire.sock.close()
        self.assertGreater(self.hub.metrics()['ringhub_paused_reads_total{cause="inflate"}'], 10)
        self.assertLess(worst, 1 * SLOWNESS)  # in one go it would be many seconds


    def test_nor_may_a_megabyte_that_inflates_to_nothing(self):
        """It costs 80 ms, so it is worked on in pieces. Somebody's long message is not harmed."""
        pauses = 'ringhub_paused_reads_total{cause="inflate"}'
        paused = self.hub.metrics()[pauses]
        for data, rounds in ((tables(16_000), 40), (tables(1 << 20), 2)):
            wires = [Deflating(self.hub) for _ in range(8)]
            before = compressed(self.hub, direction="in")
            wanted = before + rounds * len(wires) + 1
            worst, content = 0, noise(600_000)
            with raw.Wire(self.hub) as me, Deflating(self.hub) as other:
                me.upgrade("/echo")
                other.upgrade("/echo")
                for wire in wires:
                    wire.upgrade("/echo")
                flood = [threading.Thread(target=wire.send, daemon=True,
                                          args=(raw.frame(raw.BINARY, data, rsv=RSV1) * rounds,))
                         for wire in wires]
                for thread in flood:
                    thread.start()
                other.say(raw.TEXT, content)
                while compressed(self.hub, direction="in") < wanted:
                    began = time.monotonic()
                    me.send(raw.frame(raw.TEXT, b"still there?"))
                    self.assertEqual(me.message().payload, b"still there?")
                    worst = max(worst, time.monotonic() - began)
                self.assertEqual(other.message().payload.decode(), content)
            for thread, wire in zip(flood, wires):
                thread.join()
                for _ in range(rounds):
                    self.assertEqual(wire.message(), (raw.BINARY, b"", True))
                wire.sock.close()
            self.assertLess(worst, 1 * SLOWNESS)
        self.assertGreater(self.hub.metrics()[pauses] - paused, 8 * 2 * 4)

    def test_who_leaves_in_the_middle_of_one_leaves_nothing(self):
        idle = self.hub.metrics()["ringhub_compression_bytes"]
        data = raw.frame(raw.BINARY, tables(1 << 20), rsv=RSV1)
        for number in range(24):
            wire = Deflating(self.hub)
            wire.upgrade(("/echo", f"/ws?user_id=leaver-{number}")[number // 3 % 2])
            wire.send(data)
            if number % 3 == 0:
                wire.reset()
            elif number % 3 == 1:
                wire.sock.close()
            else:  # what came before the close counts
                wire.send(raw.close_frame(1000))
                self.assertEqual(wire.close_code(), 1000)
                wire.sock.close()
        eventually(lambda: self.hub.metric("ringhub_connections") == 0, "they are gone")
        eventually(lambda: self.hub.metrics()["ringhub_compression_bytes"] < idle + (1 << 18),
                   lambda: self.hub.get("/metrics"))


class Rated(HubCase):
    options = {**ON, "security.rate_limit.messages_per_second": "5"}

    def test_compressed_messages_are_limited_as_plain_ones_are(self):
        with Deflating(self.hub) as wire:
            wire.upgrade("/ws?user_id=fast")
            wire.message()
            for _ in range(30):
                wire.say(raw.TEXT, ask("ping"))
            self.assertEqual(wire.close_code(), 4429)


class Settings(HubCase):
    options = {**ON, "compression.min_size": "0", "compression.window_bits": "9",
               "compression.level": "9", "compression.mem_level": "1"}

    def test_other_settings(self):
        with Deflating(self.hub) as wire:
            wire.upgrade("/ws?user_id=set")
            wire.message()
            self.assertEqual(wire.agreed["server_max_window_bits"], 9)
            wire.say(raw.TEXT, ask("ping", "a" * 50))
            self.assertEqual(envelope(wire.message().payload.decode())["data"], "a" * 50)
            self.assertEqual(wire.counts[True], 1)  # small as it is


class Reload(unittest.TestCase):

    def echo(self, wire, compressed):
        before = wire.counts[True]
        wire.say(raw.TEXT, prose(4000))
        self.assertEqual(wire.message().payload.decode(), prose(4000))
        self.assertEqual(wire.counts[True] > before, compressed)

    def test_new_connections_follow_the_new_configuration(self):
        base = "echo: {enabled: true}\n"
        with Hub(config=base) as hub:
            def reload(config):
                before = hub.log_text().count("config.reload")
                hub.write_config(base + config)
                hub.process.send_signal(signal.SIGHUP)
                eventually(lambda: hub.log_text().count("config.reload") > before, hub.log_text)

            def agreed():
                with raw.Wire(hub) as wire:
                    answer = wire.upgrade("/echo", {"Sec-WebSocket-Extensions": EXTENSION})
                    return answer.headers.get("sec-websocket-extensions")

            def everywhere(what):
                eventually(lambda: all(what(agreed()) for _ in range(16)), agreed)

            self.assertIsNone(agreed())
            plain = raw.Wire(hub)
            plain.upgrade("/echo")
            reload("compression: {enabled: true}\n")
            everywhere(lambda said: said is not None)
            old = Deflating(hub)
            old.upgrade("/echo")
            self.echo(old, True)
            reload("compression: {enabled: true, window_bits: 10, level: 9, mem_level: 9,"
                   " context_takeover: true, min_size: 5000}\n")
            everywhere(lambda said: "server_max_window_bits=10" in said and "takeover" not in said)
            self.echo(old, False)  # min_size counts at once
            reload("compression: {enabled: false}\n")
            everywhere(lambda said: said is None)
            self.echo(old, True)  # what was agreed on stays
            plain.send(packed(raw.TEXT, "x"))
            self.assertEqual(plain.close_code(), 1002)
            for wire in (plain, old):
                wire.sock.close()


class SlowDeflating(Deflating, Slow):
    """Reads when it is told to, and inflates."""


class SlowCompressed:
    """A slow consumer whose messages are compressed misses what it is told it misses."""

    policy = "drop_oldest"
    device = SlowDeflating

    async def test_what_is_lost_is_told(self):
        await self.begin()
        rough = [noise(60_000, seed) for seed in range(8)]
        for kind in ("direct", "room", "broadcast"):
            for number in range(BLOCK + BOUND):
                await self.send(kind, f"{number} {kind} {rough[number % 8]}")
        await self.end()
        lost = self.settle()
        self.assertGreater(sum(lost.values()), BOUND)
        self.assertGreater(self.slow.counts[True], BOUND)


class SlowForgetting(SlowCompressed, SlowCase):
    options = {**SlowCase.options, **ON}


class SlowKeeping(SlowCompressed, SlowCase):
    options = {**SlowCase.options, **KEEPS}


class SlowCut(SlowCase):
    """And is closed with 4408 where that is the policy."""

    policy = "disconnect"
    device = SlowDeflating
    options = {**SlowCase.options, **KEEPS}

    async def test_who_takes_nothing_is_closed(self):
        await self.begin()
        before = self.hub.metrics()[DISCONNECTED]
        rough = [noise(60_000, seed) for seed in range(8)]
        number = 0
        while self.hub.metrics()[DISCONNECTED] == before:
            for _ in range(20):
                await self.send("direct", f"{number} {rough[number % 8]}")
                number += 1
            self.assertLess(number, 10 * BLOCK)


if __name__ == "__main__":
    unittest.main()
