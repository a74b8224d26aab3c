"""RFC 6455 by hand: frames cut, broken, fragmented and interleaved; the close handshake."""

import json
import random
import struct
import threading
import time
import unittest

import raw
from clients import envelope
from frames import FrameCase
from hub import eventually
from raw import BINARY, CONT, PING, PONG, TEXT, Wire, close_frame, frame


class Frames(FrameCase):
    shards = 4


class Broken(Frames):
    """Section 5: each violation fails the connection with 1002, on /ws and /echo alike."""

    CASES = {
        "unmasked": frame(TEXT, "x", mask=None),
        "unmasked ping": frame(PING, mask=None),
        "RSV1 without an extension": frame(TEXT, "x", rsv=4),
        "RSV2": frame(TEXT, "x", rsv=2),
        "RSV3": frame(TEXT, "x", rsv=1),
        "RSV1 on a ping": frame(PING, rsv=4),
        "reserved opcode 3": frame(3, "x"),
        "reserved opcode 7": frame(7, "x"),
        "reserved control opcode 11": frame(11),
        "reserved control opcode 15": frame(15),
        "ping of 126 bytes": frame(PING, b"x" * 126),
        "fragmented ping": frame(PING, fin=False),
        "fragmented close": frame(raw.CLOSE, fin=False),
        "continuation of nothing": frame(CONT, "x"),
        "text inside a fragmented text": frame(TEXT, "x", fin=False) + frame(TEXT, "x"),
        "binary inside a fragmented text": frame(TEXT, "x", fin=False) + frame(BINARY, "x"),
        "16 bit length for 5 bytes": frame(TEXT, "xxxxx", form=16),
        "64 bit length for 200 bytes": frame(TEXT, "x" * 200, form=64),
        "64 bit length with its top bit": frame(BINARY, "x", form=64, length=1 << 63),
        "close with one byte": frame(raw.CLOSE, b"\x03"),
    }
    BAD_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)

    def test_each_violation_closes_with_1002(self):
        for path in ("/echo", "/ws?user_id=broken"):
            for name, wrong in self.CASES.items():
                with self.subTest(name, path=path):
                    wire = self.wire(path)
                    wire.send(wrong)
                    self.assertEqual(wire.close_code(), 1002)

    def test_a_close_with_a_code_that_may_not_be_sent_is_1002(self):
        for code in self.BAD_CODES:
            with self.subTest(code):
                wire = self.wire()
                wire.send(close_frame(code))
                self.assertEqual(wire.close_code(), 1002)

    def test_a_close_reason_that_is_not_utf8_is_1007(self):
        wire = self.wire()
        wire.send(close_frame(1000, b"\xff\xfe"))
        self.assertEqual(wire.close_code(), 1007)

    def test_invalid_utf8_in_a_text_is_1007_however_it_is_cut(self):
        bad = "κόσμε".encode() + b"\xed\xa0\x80" + b"edited"
        for cut in range(len(bad)):
            with self.subTest(cut):
                wire = self.wire()
                wire.send(frame(TEXT, bad[:cut], fin=False) + frame(CONT, bad[cut:]))
                self.assertEqual(wire.close_code(), 1007)

    def test_invalid_utf8_fails_before_the_message_is_complete(self):
        wire = self.wire()
        wire.send(frame(TEXT, b"\xff", fin=False))
        self.assertEqual(wire.close_code(), 1007)

    def test_binary_need_not_be_utf8(self):
        wire = self.wire()
        wire.send(frame(BINARY, b"\xff\xfe\x00"))
        self.assertEqual(wire.message()[:2], (BINARY, b"\xff\xfe\x00"))


class Whole(Frames):
    """Messages mean the same however they are fragmented and however TCP cuts them."""

    def test_echo_returns_text_and_binary_with_the_same_opcode(self):
        wire = self.wire()
        for opcode in (TEXT, BINARY):
            for size in (0, 1, 125, 126, 127, 128, 4095, 65535, 65536, 100_000):
                payload = bytes(97 + (i * 7 + size) % 26 for i in range(size))
                wire.send(frame(opcode, payload))
                self.assertEqual(wire.message(), (opcode, payload, True))

    def test_echo_of_one_mebibyte(self):
        wire = self.wire()
        payload = random.Random(1).randbytes(1 << 20)
        sender = threading.Thread(target=wire.send, args=(frame(BINARY, payload),))
        sender.start()
        self.assertEqual(wire.message(), (BINARY, payload, True))
        sender.join()

    def test_fragmented_messages_come_back_whole(self):
        wire = self.wire()
        for opcode in (TEXT, BINARY):
            for parts in (["a", "b"], ["", ""], ["", "x", ""], ["é"] * 9, list("abcdefghij"),
                          ["x" * 70_000, "y" * 130, ""]):
                wire.send(b"".join(frame(opcode if not i else CONT, part, i == len(parts) - 1)
                                   for i, part in enumerate(parts)))
                self.assertEqual(wire.message()[:2], (opcode, "".join(parts).encode()))

    def test_a_character_may_be_cut_by_fragments(self):
        wire = self.wire()
        text = "κόσμε 😀".encode()
        wire.send(b"".join(frame(TEXT if not i else CONT, text[i:i + 1], i == len(text) - 1)
                           for i in range(len(text))))
        self.assertEqual(wire.message()[:2], (TEXT, text))

    def test_control_frames_between_fragments_are_answered_at_once(self):
        wire = self.wire()
        wire.send(frame(TEXT, "a", fin=False) + frame(PING, "one") + frame(CONT, "b", fin=False)
                  + frame(PONG, "unasked"))
        self.assertEqual(wire.frame(), (PONG, b"one", True))
        wire.send(frame(PING, b"\x00\xff" * 62) + frame(CONT, "c"))
        self.assertEqual(wire.frame(), (PONG, b"\x00\xff" * 62, True))
        self.assertEqual(wire.message()[:2], (TEXT, b"abc"))

    def test_ping_payloads_come_back_in_order(self):
        wire = self.wire("/ws?user_id=pinged")
        wire.send(b"".join(frame(PING, b"%d" % i) for i in range(100)))
        # "A Pong frame sent in response ... may answer only the most recent Ping" (5.5.3).
        answers = [int(wire.frame().payload)]
        while answers[-1] != 99:
            answers.append(int(wire.frame().payload))
        self.assertEqual(answers, sorted(set(answers)))

    def test_unasked_pongs_are_ignored(self):
        wire = self.wire()
        wire.send(frame(PONG) + frame(PONG, "x" * 125))
        self.assert_alive(wire)

    def test_every_mask_works(self):
        wire = self.wire()
        for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4", b"\x80\0\0\1"):
            for size in (1, 3, 4, 5, 31, 32, 33, 64, 255):
                payload = bytes((i * 37 + size) & 255 for i in range(size))
                wire.send(frame(BINARY, payload, mask=mask))
                self.assertEqual(wire.message().payload, payload)

    def test_frames_cut_at_every_byte(self):
        stream = (frame(TEXT, "é" * 70, fin=False) + frame(PING, "p") + frame(CONT, "end")
                  + frame(BINARY, b""))
        wire = self.wire()
        for cut in range(1, len(stream)):
            wire.send(stream[:cut])
            if cut % 10 == 0:
                time.sleep(0.002)  # so that the halves arrive apart, not only may
            wire.send(stream[cut:])
            self.assertEqual(wire.frame(), (PONG, b"p", True), f"cut at {cut}")
            self.assertEqual(wire.message()[:2], (TEXT, ("é" * 70 + "end").encode()))
            self.assertEqual(wire.message()[:2], (BINARY, b""))

    def test_frames_in_the_handshakes_own_segment_cut_at_every_byte(self):
        head = raw.upgrade("/echo")
        stream = head + frame(TEXT, "behind") + frame(PING, "p")
        for cut in range(len(head) - 5, len(stream)):
            with Wire(self.hub) as wire:
                wire.send(stream[:cut])
                wire.send(stream[cut:])
                self.assertEqual(wire.response().status, 101)
                got = {wire.frame()[:2], wire.frame()[:2]}
                self.assertEqual(got, {(TEXT, b"behind"), (PONG, b"p")}, f"cut at {cut}")

    def test_hundreds_of_small_frames_in_one_segment(self):
        wire = self.wire()
        wire.send(b"".join(frame(TEXT, b"%d" % i) for i in range(500)))
        for i in range(500):
            self.assertEqual(wire.message()[:2], (TEXT, b"%d" % i))

    def test_many_fragments_of_one_message(self):
        wire = self.wire()
        wire.send(frame(TEXT, "", fin=False) + frame(CONT, "x", fin=False) * 20_000 + frame(CONT))
        self.assertEqual(wire.message().payload, b"x" * 20_000)

    def test_an_envelope_may_be_fragmented(self):
        wire = self.wire("/ws?user_id=fragments")
        text = json.dumps({"type": "request", "event": "ping", "request_id": "f", "data": "é"},
                          ensure_ascii=False).encode()
        for step in (1, 2, 7):
            parts = [text[i:i + step] for i in range(0, len(text), step)]
            wire.send(b"".join(frame(TEXT if not i else CONT, part, i == len(parts) - 1)
                               for i, part in enumerate(parts)))
            self.assertEqual(envelope(wire.message().payload.decode())["data"], "é")


class Closing(Frames):
    """Sections 5.5.1 and 7: the close is echoed with its code, then the server ends the stream."""

    def test_the_code_is_echoed(self):
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000,
                     4000, 4999):
            for path in ("/echo", "/ws?user_id=closing"):
                with self.subTest(code, path=path):
                    wire = self.wire(path)
                    wire.send(close_frame(code, "reason ✓"))
                    self.assertEqual(wire.close_code(), code)

    def test_a_close_without_a_code_is_echoed(self):
        wire = self.wire()
        wire.send(close_frame())
        self.assertIn(wire.close_code(), (None, 1000))

    def test_data_behind_a_close_is_ignored(self):
        wire = self.wire()
        wire.send(close_frame(1000) + frame(TEXT, "late") + frame(PING, "late") + b"\xff" * 100)
        got = wire.frame()
        self.assertEqual((got.opcode, struct.unpack(">H", got.payload[:2])[0]), (raw.CLOSE, 1000))
        wire.end()

    def test_what_was_asked_before_the_close_is_answered_before_it(self):
        wire = self.wire()
        wire.send(frame(TEXT, "before") + close_frame(1000))
        self.assertEqual(wire.frame()[:2], (TEXT, b"before"))
        self.assertEqual(wire.close_code(), 1000)

    def test_a_close_inside_a_fragmented_message_is_a_close(self):
        wire = self.wire()
        wire.send(frame(TEXT, "never finished", fin=False) + close_frame(1000))
        self.assertEqual(wire.close_code(), 1000)

    def test_a_close_reason_may_have_123_bytes(self):
        wire = self.wire()
        wire.send(close_frame(4321, "x" * 123))
        self.assertEqual(wire.close_code(), 4321)

    def test_the_end_of_the_stream_without_a_close_frees_the_connection(self):
        before = self.hub.metric("ringhub_connections")
        wire = self.wire("/ws?user_id=ended")
        wire.sock.shutdown(1)
        eventually(lambda: self.hub.metric("ringhub_connections") == before, "gauge goes back")


if __name__ == "__main__":
    unittest.main()
