"""RFC 6455, sections 5 and 6: every rule about frames and messages, in every way to cut them.

The groups are those that Autobahn's test suite has made known (1 to 5, 9 and 10);
docs/conformance.md says which rule is shown where.
"""

import json
import random
import unittest

import raw
from frames import FrameCase, closed, cut_every, echo, fragments, pong
from raw import BINARY, CONT, PING, PONG, TEXT, Wire, close_frame, frame

PATHS = ("/echo", "/ws?user_id=framing")


def letters(size, opcode=TEXT):
    """A payload of that size: text of characters of one to four bytes, or any bytes."""
    if opcode == BINARY:
        return random.Random(size).randbytes(size)
    some = "κόσμε 😀 abc ".encode()
    whole = some * (size // len(some))
    return whole + b"x" * (size - len(whole))


class Sizes(FrameCase):
    """Autobahn 1 and 9: text and binary of each size at which something changes."""

    def test_messages_of_the_sizes_where_the_header_changes(self):
        for opcode in (TEXT, BINARY):
            for size in (0, 1, 125, 126, 127, 128, 255, 256, 65535, 65536, 65537):
                payload = letters(size, opcode)
                self.play(f"{size} bytes of {opcode}", [frame(opcode, payload)],
                          [echo(opcode, payload)])

    def test_a_message_of_one_mebibyte(self):
        for opcode in (TEXT, BINARY):
            payload = letters(1 << 20, opcode)
            self.play(f"opcode {opcode}", [frame(opcode, payload)], [echo(opcode, payload)],
                      modes=("whole",))

    def test_a_large_message_that_comes_in_small_segments(self):
        for size, chop in ((65536, 997), (1 << 20, 65536), (1 << 20, 16381)):
            payload = letters(size)
            wire = self.wire()
            for piece in cut_every(frame(TEXT, payload), chop):
                wire.send(piece)
                self.fence()
            self.expect(wire, [echo(TEXT, payload)])

    def test_a_mebibyte_in_fragments_of_every_size(self):
        for opcode in (TEXT, BINARY):
            payload = letters(1 << 20, opcode)
            for size in (64, 256, 1300, 4096, 16384, 65535, 65536, 1 << 19):
                self.play(f"opcode {opcode} in fragments of {size}",
                          fragments(opcode, *cut_every(payload, size)), [echo(opcode, payload)],
                          modes=("whole",))

    def test_a_length_must_have_its_shortest_form(self):
        for opcode in (TEXT, BINARY, PING):
            for size, form in ((0, 16), (0, 64), (5, 16), (125, 16), (125, 64), (126, 64),
                               (65535, 64)):
                if opcode != PING or size < 126:
                    self.play(f"{size} bytes as {form} bits, opcode {opcode}",
                              [frame(opcode, b"x" * size, form=form)], [closed(1002)],
                              modes=("whole", "bytes"))

    def test_a_64_bit_length_must_not_have_its_top_bit(self):
        for length in (1 << 63, (1 << 63) + 5, (1 << 64) - 1):
            self.play(f"{length:#x}", [frame(BINARY, b"x", form=64, length=length)],
                      [closed(1002)], modes=("whole", "bytes"))

    def test_too_big_is_told_at_the_header(self):
        """10.4: 1009 before any byte of the payload was sent, and before the masking key."""
        limit = 1 << 20
        for name, start, header in (
                ("one frame", [], frame(BINARY, length=limit + 1)),
                ("63 bits", [], frame(TEXT, length=(1 << 63) - 1)),
                ("a fragment", [frame(TEXT, "x" * limit, fin=False)],
                 frame(CONT, fin=False, length=1)),
                ("the last fragment", [frame(TEXT, "x" * 16, fin=False)],
                 frame(CONT, length=limit - 15))):
            for path in PATHS:
                self.play(name, start + [header[:-4]], [closed(1009)], path, modes=("frames",))


class Masks(FrameCase):
    """5.1 and 5.3."""

    def test_every_kind_of_unmasked_frame_is_1002(self):
        for path in PATHS:
            for opcode in (TEXT, BINARY, PING, PONG, raw.CLOSE):
                for payload in (b"", b"\x03\xe8"):
                    self.play(f"opcode {opcode}, {len(payload)} bytes",
                              [frame(opcode, payload, mask=None)], [closed(1002)], path,
                              modes=("whole", "bytes"))

    def test_an_unmasked_continuation_is_1002(self):
        self.play("unmasked", [frame(TEXT, "x", fin=False), frame(CONT, "x", mask=None)],
                  [closed(1002)])

    def test_any_masking_key_works_zero_too(self):
        for mask in (bytes(4), b"\xff" * 4, b"\0\0\0\1", b"\1\0\0\0"):
            for opcode in (TEXT, BINARY):
                payload = letters(300, opcode)
                self.play(f"{mask.hex()}, opcode {opcode}", [frame(opcode, payload, mask=mask)],
                          [echo(opcode, payload)], modes=("whole", "bytes"))
            self.play(f"{mask.hex()}, ping", [frame(PING, b"\0\xff", mask=mask)],
                      [pong(b"\0\xff")])

    def test_each_fragment_has_a_key_of_its_own(self):
        parts = [frame(TEXT, "one ", fin=False, mask=b"\1\2\3\4"),
                 frame(CONT, "two ", fin=False, mask=bytes(4)),
                 frame(CONT, "three", mask=b"\xff\0\xff\0")]
        self.play("keys", parts, [echo(TEXT, "one two three")])


class Reserved(FrameCase):
    """Autobahn 3 and 4: bits and opcodes that nobody agreed on."""

    def test_each_combination_of_reserved_bits_is_1002(self):
        for rsv in range(1, 8):
            for opcode in (TEXT, BINARY, PING, PONG, raw.CLOSE):
                self.play(f"rsv {rsv}, opcode {opcode}", [frame(opcode, b"\x03\xe8", rsv=rsv)],
                          [closed(1002)], modes=("bytes",))

    def test_what_came_before_is_answered_and_what_comes_after_is_not(self):
        for rsv in (1, 2, 4):
            self.play(f"rsv {rsv}", [frame(TEXT, "before"), frame(TEXT, "x", rsv=rsv),
                                     frame(PING, "after")],
                      [echo(TEXT, "before"), closed(1002)])

    def test_reserved_bits_of_a_continuation_are_1002(self):
        for rsv in (1, 2, 4):
            self.play(f"rsv {rsv}", [frame(TEXT, "x", fin=False), frame(CONT, "x", rsv=rsv)],
                      [closed(1002)])

    def test_each_reserved_opcode_is_1002(self):
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            for path in PATHS:
                self.play(f"opcode {opcode}", [frame(opcode, "x")], [closed(1002)], path,
                          modes=("whole", "bytes"))
            self.play(f"opcode {opcode} behind a text",
                      [frame(TEXT, "before"), frame(opcode), frame(PING)],
                      [echo(TEXT, "before"), closed(1002)], modes=("whole", "frames"))
            self.play(f"opcode {opcode} inside a message",
                      [frame(TEXT, "x", fin=False), frame(opcode), frame(CONT)],
                      [closed(1002)], modes=("whole", "frames"))


class Control(FrameCase):
    """Autobahn 2: 5.5, 5.5.2 and 5.5.3."""

    def test_a_ping_comes_back_with_its_payload(self):
        for path in PATHS:
            for payload in (b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 124,
                            b"x" * 125):
                self.play(f"{len(payload)} bytes", [frame(PING, payload)], [pong(payload)], path)

    def test_a_control_frame_of_126_bytes_is_1002(self):
        for opcode in (PING, PONG, raw.CLOSE):
            for path in PATHS:
                self.play(f"opcode {opcode}", [frame(opcode, b"\x03\xe8" + b"x" * 124)],
                          [closed(1002)], path)

    def test_a_fragmented_control_frame_is_1002(self):
        for opcode in (PING, PONG, raw.CLOSE):
            self.play(f"opcode {opcode}", [frame(opcode, b"\x03\xe8", fin=False)], [closed(1002)])
            self.play(f"opcode {opcode}, continued",
                      [frame(opcode, fin=False), frame(CONT, b"x")], [closed(1002)])

    def test_pings_are_answered_in_order(self):
        for path in PATHS:
            self.play("ten", [frame(PING, f"payload-{i}") for i in range(10)],
                      [pong(f"payload-{i}") for i in range(10)], path)

    def test_unasked_pongs_are_not_answered(self):
        for path in PATHS:
            self.play("empty", [frame(PONG)], [], path)
            self.play("full", [frame(PONG, "x" * 125)], [], path)
            self.play("then a ping", [frame(PONG, "unasked"), frame(PING, "asked")],
                      [pong("asked")], path)

    def test_a_ping_is_answered_before_the_message_around_it_is_whole(self):
        wire = self.wire()
        wire.send(frame(TEXT, "a", fin=False) + frame(PING, "1"))
        self.expect(wire, [pong("1")])
        wire.send(frame(CONT, "b", fin=False) + frame(PING, "2") + frame(PING, "3"))
        self.expect(wire, [pong("2"), pong("3")])
        wire.send(frame(CONT, "c"))
        self.expect(wire, [echo(TEXT, "abc")])

    def test_a_pong_overtakes_no_echo(self):
        self.play("in order", [frame(TEXT, "1"), frame(PING, "2"), frame(BINARY, b"3"),
                               frame(PING, "4")],
                  [echo(TEXT, "1"), pong("2"), echo(BINARY, b"3"), pong("4")])


class Fragments(FrameCase):
    """Autobahn 5: section 5.4."""

    WHOLE = {
        "two": (fragments(TEXT, "one", "two"), [echo(TEXT, "onetwo")]),
        "two of binary": (fragments(BINARY, b"\0\xff", b"\xfe"), [echo(BINARY, b"\0\xff\xfe")]),
        "all empty": (fragments(TEXT, "", "", ""), [echo(TEXT)]),
        "empty but the middle": (fragments(TEXT, "", "x", ""), [echo(TEXT, "x")]),
        "empty at the end": (fragments(BINARY, b"x", b""), [echo(BINARY, b"x")]),
        "a character in bytes": (fragments(TEXT, *cut_every("😀".encode(), 1)),
                                 [echo(TEXT, "😀")]),
        "an empty message": ([frame(TEXT), frame(BINARY)], [echo(TEXT), echo(BINARY)]),
        "a pong inside": ([frame(TEXT, "a", fin=False), frame(PONG, "x"), frame(CONT, "b")],
                          [echo(TEXT, "ab")]),
        "a ping in every gap": (
            [frame(PING, "0"), frame(TEXT, "a", fin=False), frame(PING, "1"),
             frame(CONT, "b", fin=False), frame(PING, "2"), frame(CONT, "c"), frame(PING, "3")],
            [pong("0"), pong("1"), pong("2"), echo(TEXT, "abc"), pong("3")]),
        "pings of 125 bytes inside": (
            [frame(TEXT, "a", fin=False), frame(PING, b"\xff" * 125), frame(CONT, "b")],
            [pong(b"\xff" * 125), echo(TEXT, "ab")]),
        "one message behind the other": (
            fragments(TEXT, "a", "b") + fragments(BINARY, b"c", b"d") + [frame(TEXT, "e")],
            [echo(TEXT, "ab"), echo(BINARY, b"cd"), echo(TEXT, "e")]),
    }
    BROKEN = {
        "a continuation of nothing": ([frame(CONT, "x")], []),
        "a continuation of nothing, not final": ([frame(CONT, "x", fin=False)], []),
        "an empty continuation of nothing": ([frame(CONT)], []),
        "a continuation behind a whole message": ([frame(TEXT, "a"), frame(CONT, "x")],
                                                  [echo(TEXT, "a")]),
        "a continuation behind the last fragment": (
            fragments(TEXT, "a", "b") + [frame(CONT, "x")], [echo(TEXT, "ab")]),
        "a text inside a text": ([frame(TEXT, "a", fin=False), frame(TEXT, "b")], []),
        "a binary inside a text": ([frame(TEXT, "a", fin=False), frame(BINARY, b"b")], []),
        "a text inside a binary": ([frame(BINARY, b"a", fin=False), frame(TEXT, "b")], []),
        "another fragmented text inside": (
            [frame(TEXT, "a", fin=False), frame(TEXT, "b", fin=False)], []),
        "a text behind pings inside": (
            [frame(TEXT, "a", fin=False), frame(PING, "p"), frame(TEXT, "b")], [pong("p")]),
    }

    def test_fragments_make_one_message_of_the_first_ones_type(self):
        for name, (frames, wanted) in self.WHOLE.items():
            self.play(name, frames, wanted)

    def test_fragments_out_of_order_are_1002(self):
        for name, (frames, wanted) in self.BROKEN.items():
            self.play(name, frames, wanted + [closed(1002)])

    def test_the_number_of_fragments_has_no_bound(self):
        text = "é" * 3000
        self.play("single bytes", fragments(TEXT, *cut_every(text.encode(), 1)),
                  [echo(TEXT, text)], modes=("whole",))
        self.play("empty ones", [frame(TEXT, "a", fin=False)] + [frame(CONT, fin=False)] * 9000
                  + [frame(CONT, "b")], [echo(TEXT, "ab")], modes=("whole",))

    def test_an_envelope_may_be_fragmented_with_pings_between(self):
        text = json.dumps({"type": "request", "event": "ping", "request_id": "f", "data": "é😀"},
                          ensure_ascii=False).encode()
        wire = self.wire("/ws?user_id=fragments")
        for size in (1, 3, 16):
            parts = fragments(TEXT, *cut_every(text, size))
            for number, part in enumerate(parts):
                if number:
                    wire.send(frame(PING, str(number)))
                    self.expect(wire, [pong(str(number))])
                wire.send(part)
            self.assertEqual(json.loads(wire.message().payload)["data"], "é😀")


class Cuts(FrameCase):
    """TCP has no boundaries: the same bytes mean the same however they come."""

    KINDS = {
        "an empty text": ([frame(TEXT)], [echo(TEXT)]),
        "a text": ([frame(TEXT, "κόσμε")], [echo(TEXT, "κόσμε")]),
        "a text of 126 bytes": ([frame(TEXT, "x" * 126)], [echo(TEXT, "x" * 126)]),
        "a binary": ([frame(BINARY, bytes(range(9)))], [echo(BINARY, bytes(range(9)))]),
        "a ping": ([frame(PING, "ping")], [pong("ping")]),
        "a pong": ([frame(PONG, "pong"), frame(TEXT, "x")], [echo(TEXT, "x")]),
        "fragments": ([frame(TEXT, "é", fin=False), frame(PING), frame(CONT, "😀")],
                      [pong(), echo(TEXT, "é😀")]),
        "a close": ([close_frame(1000, "reason ✓")], [closed(1000)]),
        "an empty close": ([close_frame()], [closed()]),
        "a wrong one": ([frame(TEXT, "x", rsv=1)], [closed(1002)]),
    }
    # a long header costs its 14 bytes; what follows it is all alike
    LONG = frame(BINARY, b"x" * 65536)

    def test_every_kind_of_frame_cut_in_two_at_every_byte(self):
        for name, (frames, wanted) in self.KINDS.items():
            data = b"".join(frames)
            ends = wanted[-1][0] == raw.CLOSE
            wire = None if ends else self.wire()
            for cut in range(1, len(data)):
                with self.subTest(name, cut=cut):
                    wire = self.wire() if ends else wire
                    self.send(wire, [data[:cut], data[cut:]], "frames")
                    self.expect(wire, wanted)
                    if ends:
                        self.assert_ends(wire)
                        wire.sock.close()

    def test_a_header_of_64_bits_cut_at_every_byte(self):
        wire = self.wire()
        for cut in range(1, 17):
            self.send(wire, [self.LONG[:cut], self.LONG[cut:]], "frames")
            self.expect(wire, [echo(BINARY, b"x" * 65536)])

    def test_the_handshake_and_frames_behind_it_byte_by_byte(self):
        behind = b"".join(self.KINDS["fragments"][0]) + close_frame(1000)
        for path in PATHS:
            wire = Wire(self.hub)
            self.addCleanup(wire.sock.close)
            self.send(wire, [raw.upgrade(path) + behind], "bytes")
            self.assertEqual(wire.response().status, 101)
            if path != "/echo":
                self.assertEqual(json.loads(wire.frame().payload)["event"], "welcome")
                self.assertEqual(wire.frame()[:2], (PONG, b""))
                self.assertEqual(json.loads(wire.frame().payload)["type"], "error")
                self.expect(wire, [closed(1000)])
            else:
                self.expect(wire, [pong(), echo(TEXT, "é😀"), closed(1000)])
            self.assert_ends(wire)

    def test_the_handshake_cut_in_two_at_every_byte(self):
        head = raw.upgrade("/echo")
        for cut in range(1, len(head)):
            with self.subTest(cut), Wire(self.hub) as wire:
                self.send(wire, [head[:cut], head[cut:] + frame(TEXT, "x")], "frames")
                self.assertEqual(wire.response().status, 101)
                self.expect(wire, [echo(TEXT, "x")])

    def test_every_kind_of_frame_in_the_handshakes_own_segment(self):
        for name, (frames, wanted) in self.KINDS.items():
            with self.subTest(name), Wire(self.hub) as wire:
                wire.upgrade("/echo", behind=b"".join(frames))
                self.expect(wire, wanted)
                if wanted[-1][0] == raw.CLOSE:
                    self.assert_ends(wire)

    def test_much_in_the_handshakes_own_segment(self):
        frames = [frame(TEXT, str(i)) for i in range(2000)] + [frame(BINARY, b"x" * 200_000)]
        with Wire(self.hub) as wire:
            wire.upgrade("/echo", behind=b"".join(frames))
            self.expect(wire, [echo(TEXT, str(i)) for i in range(2000)]
                        + [echo(BINARY, b"x" * 200_000)])

    def test_a_handshake_whose_frames_follow_before_its_answer_was_read(self):
        for path in PATHS:
            wire = Wire(self.hub)
            self.addCleanup(wire.sock.close)
            wire.send(raw.upgrade(path))
            for number in range(5):
                wire.send(frame(PING, str(number)))
                self.fence()
            self.assertEqual(wire.response().status, 101)
            if path != "/echo":
                self.assertEqual(wire.message().opcode, TEXT)
            self.expect(wire, [pong(str(number)) for number in range(5)])

    def test_random_streams_cut_at_random(self):
        """Messages, fragments and pings drawn at random, cut at random, come back as they are."""
        draw = random.Random(6455)
        for _ in range(10):
            wire, frames, wanted = self.wire(), [], []
            for _ in range(40):
                opcode = draw.choice((TEXT, BINARY))
                payload = letters(draw.choice((0, 1, 7, 125, 126, 300, 5000)), opcode)
                cuts = sorted(draw.randrange(len(payload) + 1) for _ in range(draw.randrange(5)))
                parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)])]
                for number, part in enumerate(fragments(opcode, *parts)):
                    if number and draw.random() < 0.5:
                        ping = draw.randbytes(draw.randrange(126))
                        frames.append(frame(PING, ping, mask=draw.randbytes(4)))
                        wanted.append(pong(ping))
                    frames.append(part)
                wanted.append(echo(opcode, payload))
            data, at = b"".join(frames), 0
            while at < len(data):
                size = draw.choice((1, 2, 13, 500, 20_000))
                wire.send(data[at:at + size])
                at += size
                if draw.random() < 0.05:
                    self.fence()
            self.expect(wire, wanted)


if __name__ == "__main__":
    unittest.main()
