"""RFC 7692, sections 6, 7.2 and 8: compressed messages, in both directions.

Payloads and parameters as in Autobahn's groups 12 and 13, and what these leave out: damage, limits,
windows, blocks that end a stream, fragments and control frames among compressed ones.
"""

import json
import random
import unittest
import zlib

import raw
from clients import ClientCase
from frames import closed, code_of, pong
from raw import BINARY, CONT, PING, PONG, TEXT, frame
from squeezed import (DEFAULT, LARGE, NAME, RSV1, TAIL, SqueezedCase, inflate_exactly, offer,
                      squeezed_fragments)

MIB = 1 << 20


def words(size, seed=1):
    """Text that compresses as text does, of exactly that size."""
    draw = random.Random(seed)
    some = ["κόσμε", "hub", "message", "compressed", "deflate", "window", "😀", "{\"id\":", "}"]
    text = " ".join(draw.choice(some) + str(draw.randrange(100)) for _ in range(size // 4 + 1))
    text = text.encode()[:size].decode(errors="ignore").encode()
    return text + b"x" * (size - len(text))


def stored(data, final=False):
    """One DEFLATE block without compression."""
    size = len(data)
    return bytes([1 if final else 0]) + size.to_bytes(2, "little") + (
        size ^ 0xffff).to_bytes(2, "little") + data


def finished(data, level=6):
    """Blocks of which the last has BFINAL, as zlib ends a stream."""
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush(zlib.Z_FINISH)


class Examples(SqueezedCase):
    """7.2.3: the RFC's own bytes."""

    options = LARGE

    MESSAGES = {
        "7.2.3.1": ([bytes.fromhex("f248cdc9c90700")], b"Hello"),
        "7.2.3.1 in fragments": ([bytes.fromhex("f248cd"), bytes.fromhex("c9c90700")], b"Hello"),
        "7.2.3.3": ([bytes.fromhex("000500faff48656c6c6f00")], b"Hello"),
        "7.2.3.4": ([bytes.fromhex("f348cdc9c9070000")], b"Hello"),
        "7.2.3.5": ([bytes.fromhex("f248050000 00ffffcac9c90700")], b"Hello"),
        "7.2.3.6": ([b"\x00"], b""),
    }

    def test_each_of_them(self):
        for name, (parts, text) in self.MESSAGES.items():
            for opcode in (TEXT, BINARY):
                with self.subTest(name, opcode=opcode):
                    wire = self.shake(offer())
                    wire.send(b"".join(squeezed_fragments(opcode, *parts)))
                    self.assert_echo(wire, opcode, text)

    def test_the_window_is_shared_between_messages(self):
        wire = self.shake(offer())
        self.assertFalse(wire.terms.client_no)
        for data in ("f248cdc9c90700", "f200110000"):
            wire.send(frame(TEXT, bytes.fromhex(data), rsv=RSV1))
            self.assert_echo(wire, TEXT, b"Hello")

    def test_each_of_them_cut_at_every_byte(self):
        for name, (parts, text) in self.MESSAGES.items():
            data = b"".join(parts)
            wire = self.shake(offer())
            for cut in range(len(data) + 1):
                with self.subTest(name, cut=cut):
                    wire.send(b"".join(squeezed_fragments(TEXT, data[:cut], data[cut:])))
                    self.assert_echo(wire, TEXT, text)
            whole = frame(TEXT, data, rsv=RSV1)
            for cut in range(1, len(whole)):
                self.send(wire, [whole[:cut], whole[cut:]], "frames")
                self.assert_echo(wire, TEXT, text)


class Blocks(SqueezedCase):
    """7.2.1: blocks of any type, any number, with BFINAL or without."""

    options = LARGE

    def assert_inflates(self, name, data, text, wire=None):
        with self.subTest(name):
            wire = wire or self.shake(offer())
            wire.send(frame(BINARY, data, rsv=RSV1))
            self.assert_echo(wire, BINARY, text)

    def test_every_type_of_block(self):
        text = words(3000)
        for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE,
                         zlib.Z_FIXED):
            for level in (0, 1, 6, 9):
                wire = self.shake(offer())
                wire.say(BINARY, text, level=level, strategy=strategy)
                self.assert_echo(wire, BINARY, text)

    def test_many_blocks(self):
        encoder, data, text = zlib.compressobj(6, zlib.DEFLATED, -15), b"", b""
        for number in range(50):
            piece = words(100, number)
            text += piece
            data += encoder.compress(piece) + encoder.flush(
                (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK)[number % 3])
        data += encoder.flush(zlib.Z_SYNC_FLUSH)
        self.assert_inflates("flushed", data[:-4], text)
        self.assert_inflates("stored", b"".join(stored(b"%d" % i) for i in range(100)) + b"\x00",
                             b"".join(b"%d" % i for i in range(100)))

    def test_a_message_may_keep_its_tail(self):
        """The four bytes are taken off by a sender, but what it leaves need not be minimal."""
        self.assert_inflates("twice", stored(b"x") + b"\x00" + TAIL + b"\x00", b"x")

    def test_blocks_with_bfinal(self):
        """7.2.3.4: the block is padded to a byte, and an empty one follows."""
        text = words(2000)
        for level in (0, 1, 9):
            self.assert_inflates(f"level {level}", finished(text, level) + b"\x00", text)
        self.assert_inflates("stored", stored(b"abc", final=True) + b"\x00", b"abc")
        self.assert_inflates("empty", stored(b"", final=True) + b"\x00", b"")

    def test_blocks_behind_one_with_bfinal(self):
        """7.2.1: the next block follows the padding."""
        text = words(500)
        for name, data, wanted in (
                ("two", finished(text) + finished(b"more") + b"\x00", text + b"more"),
                ("a stored one behind", finished(text) + stored(b"more") + b"\x00",
                 text + b"more"),
                ("three", finished(b"a") + finished(b"b") + finished(b"c") + b"\x00", b"abc")):
            self.assert_inflates(name, data, wanted)

    def test_the_window_outlives_a_block_with_bfinal(self):
        """7.2.3.2 with 7.2.3.4: a later message may refer to what came in front of BFINAL."""
        wire = self.shake(offer())
        self.assertFalse(wire.terms.client_no)
        self.assert_inflates("first", bytes.fromhex("f348cdc9c9070000"), b"Hello", wire)
        self.assert_inflates("second", bytes.fromhex("f200110000"), b"Hello", wire)


class Bits(SqueezedCase):
    """6: RSV1 stands in the first frame of a compressed message and nowhere else."""

    HELLO = bytes.fromhex("f248cdc9c90700")

    def test_rsv1_where_it_may_not_be_is_1002(self):
        first, second = self.HELLO[:3], self.HELLO[3:]
        for name, data in {
                "a ping": frame(PING, rsv=RSV1), "a pong": frame(PONG, rsv=RSV1),
                "a close": raw.frame(raw.CLOSE, b"\x03\xe8", rsv=RSV1),
                "a continuation": frame(TEXT, first, fin=False, rsv=RSV1)
                + frame(CONT, second, rsv=RSV1),
                "a continuation of a plain message": frame(TEXT, "a", fin=False)
                + frame(CONT, self.HELLO, rsv=RSV1),
                "a ping inside": frame(TEXT, first, fin=False, rsv=RSV1) + frame(PING, rsv=RSV1),
        }.items():
            for path in ("/echo", "/ws?user_id=rsv1"):
                with self.subTest(name, path=path):
                    wire = self.shake(offer(), path=path)
                    if path != "/echo":
                        wire.message()
                    wire.send(data)
                    self.expect(wire, [closed(1002)])
                    self.assert_ends(wire)

    def test_rsv2_and_rsv3_stay_reserved(self):
        for rsv in (1, 2, 3, 5, 6, 7):
            for opcode in (TEXT, BINARY, PING):
                wire = self.shake(offer())
                wire.send(frame(opcode, self.HELLO, rsv=rsv))
                self.expect(wire, [closed(1002)])
                self.assert_ends(wire)

    def test_a_compressed_frame_is_masked_as_any(self):
        wire = self.shake(offer())
        wire.send(frame(TEXT, self.HELLO, rsv=RSV1, mask=None))
        self.expect(wire, [closed(1002)])
        wire = self.shake(offer())
        wire.send(frame(TEXT, self.HELLO, rsv=RSV1, mask=bytes(4)))
        self.assert_echo(wire, TEXT, b"Hello")

    def test_plain_and_compressed_messages_alternate(self):
        for takeover in (True, False):
            wire = self.shake(offer(client_no=not takeover))
            for number in range(20):
                text = words(700, number)
                if number % 3:
                    wire.say(TEXT, text)
                else:
                    wire.send(frame(TEXT, text))
                self.assert_echo(wire, TEXT, text)

    def test_control_frames_stand_between_compressed_fragments(self):
        wire = self.shake(offer())
        for size in (1, 3, 50):
            text = words(1000, size)
            data = wire.squeeze(text)
            pieces = [data[i:i + size] for i in range(0, len(data), size)]
            wanted = []
            for number, part in enumerate(squeezed_fragments(TEXT, *pieces)):
                wire.send(part)
                if number < len(pieces) - 1:
                    wire.send(frame(PING, str(number)) + frame(PONG, "unasked"))
                    wanted.append(pong(str(number)))
            self.expect(wire, wanted)
            self.assert_echo(wire, TEXT, text)

    def test_a_close_between_compressed_fragments_is_a_close(self):
        wire = self.shake(offer())
        wire.send(frame(TEXT, self.HELLO[:3], fin=False, rsv=RSV1) + raw.close_frame(1000))
        self.expect(wire, [closed(1000)])
        self.assert_ends(wire)

    def test_empty_fragments_are_nothing(self):
        wire = self.shake(offer())
        wire.send(b"".join(squeezed_fragments(TEXT, b"", self.HELLO[:1], b"", b"",
                                              self.HELLO[1:], b"")))
        self.assert_echo(wire, TEXT, b"Hello")

    def test_fragments_keep_the_order_of_5_4(self):
        for data in (frame(TEXT, self.HELLO, fin=False, rsv=RSV1) + frame(TEXT, "x"),
                     frame(TEXT, self.HELLO, rsv=RSV1) + frame(CONT, "x")):
            wire = self.shake(offer())
            wire.send(data)
            self.assertEqual(code_of(wire.read_close()), 1002)

    def test_compressed_frames_in_the_handshakes_own_segment(self):
        wire = self.shake(offer(client_no=True), behind=frame(TEXT, self.HELLO, rsv=RSV1)
                          + frame(PING, "p"))
        self.assert_echo(wire, TEXT, b"Hello")
        self.expect(wire, [pong("p")])


class Damage(SqueezedCase):
    """7.2.2: what cannot be inflated fails the connection; so does text that is not UTF-8."""

    options = LARGE

    BROKEN = {
        "a block of type 3": b"\x06", "of type 3 with BFINAL": b"\x07\x00",
        "a stored block with a wrong complement": b"\x00\x05\x00\xfa\xfe" + b"Hello",
        "a stored block that is cut": b"\x00\x05\x00\xfa\xffHel",
        "a reference in front of the beginning": b"\xf2\x00\x11\x00\x00",
        "nothing but ones": b"\xff" * 20,
        "a bad code table": b"\x05\xe0\x81\x08\x00\x00\x00\x00\x20\x7f\xeb\x0b\x00\x00",
        "random bytes": random.Random(2).randbytes(200),
    }

    def test_damaged_data_is_1007(self):
        for takeover in (True, False):
            for opcode in (TEXT, BINARY):
                for name, data in self.BROKEN.items():
                    with self.subTest(name, takeover=takeover, opcode=opcode):
                        wire = self.shake(offer(client_no=not takeover))
                        wire.send(frame(opcode, data, rsv=RSV1))
                        self.expect(wire, [closed(1007)])
                        self.assert_ends(wire)

    def test_a_reference_into_another_connections_message_is_1007(self):
        """Contexts are of one connection and one direction."""
        wire = self.shake(offer())
        wire.say(TEXT, b"Hello")
        self.assert_echo(wire, TEXT, b"Hello")
        other = self.shake(offer())
        other.send(frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1))
        self.expect(other, [closed(1007)])

    def test_text_that_inflates_to_no_utf8_is_1007(self):
        for text in (b"\xff", b"\xed\xa0\x80", b"x" * 3000 + b"\xc3", b"\xf4\x90\x80\x80"):
            for parts in (1, 2):
                wire = self.shake(offer())
                wire.say(TEXT, text, parts)
                self.expect(wire, [closed(1007)])
                wire = self.shake(offer())
                wire.say(BINARY, text, parts)
                self.assert_echo(wire, BINARY, text)

    def test_compressed_bytes_are_not_judged_as_text(self):
        """And a character may be cut by fragments of compressed data."""
        text = "κόσμε😀".encode() * 3
        wire = self.shake(offer())
        data = wire.squeeze(text)
        wire.send(b"".join(squeezed_fragments(TEXT, *(data[i:i + 1] for i in range(len(data))))))
        self.assert_echo(wire, TEXT, text)


class Limits(SqueezedCase):
    """RFC 6455 10.4 holds for what comes out, not only for what comes in."""

    options = {**DEFAULT, "limits.message_size": "64KiB"}

    def test_exactly_the_limit_passes_and_one_byte_more_is_1009(self):
        for payload in (bytes(1 << 16), words(1 << 16), random.Random(1).randbytes(1 << 16)):
            wire = self.shake(offer())
            wire.say(BINARY, payload)
            self.assert_echo(wire, BINARY, payload)
            wire.say(BINARY, payload + b"x")
            self.expect(wire, [closed(1009)])
            self.assert_ends(wire)

    def test_a_bomb_is_1009_and_costs_no_memory(self):
        before = self.hub.rss_kib()
        bomb = zlib.compressobj(9, zlib.DEFLATED, -12)
        data = b"".join(bomb.compress(bytes(MIB)) for _ in range(50))
        data = (data + bomb.flush(zlib.Z_SYNC_FLUSH))[:-4]
        self.assertLess(len(data), 1 << 16)
        for _ in range(10):
            wire = self.shake(offer())
            wire.send(frame(BINARY, data, rsv=RSV1))
            self.expect(wire, [closed(1009)])
            self.assert_ends(wire)
        self.assertLess(self.hub.rss_kib() - before, 30_000)

    def test_more_compressed_bytes_than_any_message_has_is_1009(self):
        wire = self.shake(offer())
        wire.send(frame(BINARY, length=1 << 18, rsv=RSV1)[:-4])
        self.expect(wire, [closed(1009)])
        wire = self.shake(offer())
        wire.send(frame(BINARY, b"\x00", fin=False, rsv=RSV1)
                  + frame(CONT, b"x" * 50_000, fin=False) * 2)
        self.expect(wire, [closed(1009)])

    def test_a_plain_message_has_the_same_limit(self):
        wire = self.shake(offer())
        wire.send(frame(BINARY, bytes(1 << 16)))
        self.assert_echo(wire, BINARY, bytes(1 << 16))
        wire.send(frame(BINARY, length=(1 << 16) + 1))
        self.expect(wire, [closed(1009)])


class Contexts(SqueezedCase):
    """7.1.1 and 7.1.2: what either side keeps, and how far back it refers."""

    options = LARGE

    def far(self, distance, size=9000):
        """Random bytes that repeat at that distance and at no shorter one."""
        period = random.Random(distance).randbytes(distance)
        return (period * (size // distance + 2))[:max(size, 2 * distance + 10)]

    def test_the_server_keeps_to_the_window(self):
        """SqueezedWire inflates with exactly that window; data repeat within and beyond it."""
        for bits in range(9, 16):
            for server_no in (False, True):
                wire = self.shake(offer(server_no=server_no, server_bits=bits))
                self.assertEqual(wire.terms.server_bits, bits)
                for distance in (1 << (bits - 1), (1 << bits) - 262, (1 << bits) - 1, 1 << bits,
                                 (1 << bits) + 1, (1 << bits) + 300):
                    payload = self.far(distance)
                    wire.send(frame(BINARY, payload))
                    self.assert_echo(wire, BINARY, payload)
                    if distance == 1 << (bits - 1):
                        self.assertTrue(wire.was_squeezed, "it refers back within the window")

    def test_a_reference_beyond_a_window_would_be_seen(self):
        """The check of the test above can fail: by one byte."""
        for bits in range(9, 15):
            for distance, fine in ((1 << bits, True), ((1 << bits) + 1, False)):
                encoder = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
                payload = self.far(distance, 2 * distance)
                data = (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[:-4]
                self.assertLess(len(data), len(payload) * 0.6)
                try:
                    self.assertEqual(inflate_exactly(zlib.decompressobj(-bits), data), payload)
                    self.assertTrue(fine, (bits, distance))
                except zlib.error:
                    self.assertFalse(fine, (bits, distance))

    def test_the_client_may_use_all_of_its_window(self):
        for bits in range(9, 16):
            for client_no in (False, True):
                wire = self.shake(offer(client_no=client_no, client_bits=bits))
                for distance in ((1 << wire.terms.client_bits) - 262, 300):
                    payload = self.far(distance)
                    wire.say(BINARY, payload)
                    self.assert_echo(wire, BINARY, payload)

    def test_where_it_agreed_the_server_forgets(self):
        wire = self.shake(offer(server_no=True))
        self.assertTrue(wire.terms.server_no)
        sizes = set()
        for _ in range(5):
            wire.send(frame(TEXT, words(3000)))
            self.assert_echo(wire, TEXT, words(3000))
            self.assertTrue(wire.was_squeezed)
            sizes.add(wire.received)
        self.assertEqual(len(sizes), 1, "each message as if it were the first")

    def test_where_it_may_the_server_remembers(self):
        wire = self.shake(offer())
        self.assertFalse(wire.terms.server_no)
        wire.send(frame(TEXT, words(3000)) * 2)
        self.assert_echo(wire, TEXT, words(3000))
        first = wire.received
        self.assert_echo(wire, TEXT, words(3000))
        self.assertLess(wire.received, first / 5)

    def test_a_client_that_may_keep_its_context_need_not(self):
        wire = self.shake(offer())
        for number in range(10):
            if number % 2:
                wire.encoder = None
            wire.say(TEXT, words(2000, number // 4))
            self.assert_echo(wire, TEXT, words(2000, number // 4))

    def test_what_was_sent_plain_is_in_nobodys_window(self):
        """Between two compressed messages others that are too random to be compressed."""
        wire = self.shake(offer())
        for number in range(6):
            wire.say(TEXT, words(2000, 1))
            self.assert_echo(wire, TEXT, words(2000, 1))
            noise = random.Random(number).randbytes(2000)
            wire.send(frame(BINARY, noise))
            self.assert_echo(wire, BINARY, noise)

    def test_after_a_long_time_the_context_is_still_the_same(self):
        wire = self.shake(offer())
        for number in range(300):
            wire.say(TEXT, words(900, number % 7))
            self.assert_echo(wire, TEXT, words(900, number % 7))


class Sizes(SqueezedCase):
    """Autobahn 12 and 13: each size, with each set of parameters, texts and bytes."""

    options = LARGE

    SETS = (offer(), offer(client_bits=True), offer(True, True), offer(True, True, 9, 9),
            offer(True, True, 15, 15), offer(False, False, 9, 9), offer(False, False, 15, 15))

    def test_all_sizes_with_all_sets(self):
        for text in self.SETS:
            wire = self.shake(text)
            for size in (0, 1, 16, 64, 125, 126, 256, 1024, 4096, 16_384, 65_535, 65_536):
                for opcode, payload in ((TEXT, words(size)), (BINARY, bytes(size)),
                                        (BINARY, random.Random(size).randbytes(size))):
                    with self.subTest(text, size=size, opcode=opcode):
                        wire.say(opcode, payload, parts=1 + size % 3)
                        # inflating byte by byte is for Contexts; here it would take too long
                        self.assert_same(wire, opcode, payload)

    def assert_same(self, wire, opcode, payload):
        got = wire.frame()
        data = got.payload
        if wire.squeezed:
            if not wire.decoder or wire.terms.server_no:
                wire.decoder = zlib.decompressobj(-wire.terms.server_bits)
            data = wire.decoder.decompress(data + TAIL)
        self.assertEqual((got.opcode, data, got.fin), (opcode, payload, True))

    def test_a_mebibyte_in_fragments(self):
        for payload in (words(MIB), bytes(MIB)):
            wire = self.shake(offer())
            wire.say(BINARY, payload, parts=100)
            self.assert_same(wire, BINARY, payload)

    def test_small_messages_and_incompressible_ones_go_plain(self):
        wire = self.shake(offer())
        for payload in (b"", b"x", random.Random(1).randbytes(5000)):
            wire.say(BINARY, payload)
            self.assert_echo(wire, BINARY, payload)
            self.assertFalse(wire.was_squeezed, len(payload))


class Envelopes(SqueezedCase):
    """What holds for /echo holds for users' messages, of rooms, too."""

    def test_requests_and_answers(self):
        wire = self.shake(offer(), path="/ws?user_id=squeezed")
        wire.message()
        for size in (10, 5000):
            ask = json.dumps({"type": "request", "event": "ping", "request_id": "q",
                              "data": "x" * size}).encode()
            wire.say(TEXT, ask)
            self.assertEqual(json.loads(wire.message().payload)["data"], "x" * size)
            self.assertEqual(wire.was_squeezed, size == 5000, "compression.min_size")

    def test_one_room_of_plain_and_compressed_members(self):
        offers = (None, offer(), offer(True, True), offer(server_bits=9), offer(server_bits=8),
                  offer(False, False, 15, 15), None, offer(server_bits=10))
        wires = []
        for number, text in enumerate(offers):
            wire = self.shake(*([text] if text else []),
                              path=f"/ws?user_id=member-{number}&rooms=squeezed")
            while json.loads(wire.message().payload)["event"] != "room.subscribed":
                pass
            wires.append(wire)
        for number in range(5):
            content = f"{number}:" + "squeeze " * 200
            wires[0].send(frame(TEXT, json.dumps(
                {"type": "request", "event": "room.publish",
                 "data": {"room": "squeezed", "content": content}})))
            for wire, text in zip(wires, offers):
                got = json.loads(wire.message().payload)
                while got["event"] != "room.message":
                    got = json.loads(wire.message().payload)
                self.assertEqual(got["data"]["content"], content)
                self.assertEqual(wire.was_squeezed, bool(text) and "=8" not in text, text)

    def test_invalid_ones_are_counted_as_plain_ones_are(self):
        wire = self.shake(offer(), path="/ws?user_id=squeezed-invalid")
        wire.message()
        for _ in range(11):
            wire.say(TEXT, b"no json")
        for _ in range(11):
            self.assertEqual(json.loads(wire.message().payload)["error"], "bad_request")
        self.expect(wire, [closed(4400)])


class Libraries(ClientCase):
    """Python's websockets with its own compression."""

    options = DEFAULT

    async def test_websockets_agrees_and_understands(self):
        from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
        for how in ({}, {"server_no_context_takeover": True}, {"client_no_context_takeover": True},
                    {"server_max_window_bits": 9}, {"client_max_window_bits": 10},
                    {"client_max_window_bits": True, "server_max_window_bits": 15}):
            with self.subTest(**how):
                client = await self.client("library", how={
                    "extensions": [ClientPerMessageDeflateFactory(**how)], "compression": None})
                self.assertTrue(client.socket.extensions)
                self.assertIn(NAME, client.socket.response_headers["Sec-WebSocket-Extensions"])
                for size in (1, 600, 50_000):
                    got = await client.request("ping", "é" * size)
                    self.assertEqual(got["data"], "é" * size)


if __name__ == "__main__":
    unittest.main()
