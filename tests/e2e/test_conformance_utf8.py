"""RFC 6455, sections 5.6 and 8.1: text is UTF-8, over all fragments, and is refused at the byte that
decides (Autobahn 6). What is valid is asked of Python's own decoder.
"""

import itertools
import json
import random
import struct
import unittest

import raw
from frames import FrameCase, closed, cut_every, echo, fragments
from raw import CONT, PING, TEXT, frame

VALID = {
    "ASCII": b"Hello, world",
    "the first code points of each length": "\x00\x80\u0800\U00010000".encode(),
    "the last code points of each length": "\x7f\u07ff\uffff\U0010ffff".encode(),
    "around the surrogates": "\ud7ff\ue000".encode(),
    "noncharacters": "\ufdd0\ufdef\ufffe\uffff\U0001fffe\U0001ffff\U0010fffe".encode(),
    "a byte order mark": "\ufeffx".encode(),
    "a replacement character": "\ufffd".encode(),
    "kosme": "κόσμε".encode(),
    "combining": "e\u0301\u0327".encode(),
    "emoji with joiners": "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466".encode(),
    "controls": bytes(range(32)) + b"\x7f",
}
BROKEN = {
    "a lone continuation byte": b"\x80",
    "the last continuation byte": b"\xbf",
    "continuation bytes": b"\x80\xbf\x80\xbf\x80",
    "all continuation bytes": bytes(range(0x80, 0xc0)),
    "a start of two without its end": b"\xc2 ",
    "a start of three without its end": b"\xe1\x80 ",
    "a start of four without its end": b"\xf1\x80\x80 ",
    "starts of two in a row": b"\xc2\xc3\xc4",
    "starts of three in a row": b"\xe1\xe2",
    "starts of four in a row": b"\xf1\xf2",
    "fe": b"\xfe",
    "ff": b"\xff",
    "fe fe ff ff": b"\xfe\xfe\xff\xff",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "overlong / in two": b"\xc0\xaf",
    "overlong / in three": b"\xe0\x80\xaf",
    "overlong / in four": b"\xf0\x80\x80\xaf",
    "overlong / in five": b"\xf8\x80\x80\x80\xaf",
    "overlong nul": b"\xc0\x80",
    "overlong nul in three": b"\xe0\x80\x80",
    "the largest overlong in two": b"\xc1\xbf",
    "the largest overlong in three": b"\xe0\x9f\xbf",
    "the largest overlong in four": b"\xf0\x8f\xbf\xbf",
    "past the last code point": b"\xf4\x90\x80\x80",
    "f5": b"\xf5\x80\x80\x80",
    "f7": b"\xf7\xbf\xbf\xbf",
    "the first surrogate": b"\xed\xa0\x80",
    "the last high surrogate": b"\xed\xaf\xbf",
    "the first low surrogate": b"\xed\xb0\x80",
    "the last surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "kosme with a surrogate": "κόσμε".encode() + b"\xed\xa0\x80edited",
    "a character in Latin-1": b"caf\xe9 noir",
    "past the end behind text": "κόσμε".encode() + b"\xf4\x90\x80\x80edited",
}
CUT = ("é".encode()[:1], "€".encode()[:1], "€".encode()[:2], "😀".encode()[:1],
       "😀".encode()[:3], "κόσμε".encode()[:-1], b"ok \xf0\x90")


TAILS = [bytes(tail) for size in range(4)
         for tail in itertools.product((0x80, 0x90, 0xa0, 0xbf), repeat=size)]


def is_text(data):
    try:
        data.decode("utf-8")
        return True
    except UnicodeDecodeError:
        return False


def first_wrong(text):
    """How many bytes of it might still become text, with the right ones behind: the next one
    decides."""
    return next((at for at in range(len(text))
                 if not any(is_text(text[:at + 1] + tail) for tail in TAILS)), None)


class Text(FrameCase):

    def test_valid_text_comes_back_however_it_is_cut(self):
        for name, text in VALID.items():
            self.assertIsNone(first_wrong(text), name)
            self.play(name, [frame(TEXT, text)], [echo(TEXT, text)])
            self.play(f"{name}, in fragments of a byte", fragments(TEXT, *cut_every(text, 1)),
                      [echo(TEXT, text)], modes=("whole",))
            wire = self.wire()
            for at in range(len(text) + 1):
                wire.send(b"".join(fragments(TEXT, text[:at], text[at:])))
                self.expect(wire, [echo(TEXT, text)])

    def test_a_ping_between_the_bytes_of_a_character_changes_nothing(self):
        text = "a€😀".encode()
        wire = self.wire()
        for at in range(1, len(text)):
            wire.send(frame(TEXT, text[:at], fin=False) + frame(PING, b"\xff\x80")
                      + frame(CONT, text[at:]))
            self.expect(wire, [(raw.PONG, b"\xff\x80"), echo(TEXT, text)])

    def test_broken_text_is_1007(self):
        for name, text in BROKEN.items():
            self.assertIsNotNone(first_wrong(text), name)
            for path in ("/echo", "/ws?user_id=broken-text"):
                self.play(name, [frame(TEXT, text)], [closed(1007)], path)
            self.play(f"{name}, behind much ASCII", [frame(TEXT, b"x" * 1000 + text)],
                      [closed(1007)], modes=("whole",))
            for at in range(len(text) + 1):
                self.play(f"{name}, cut at {at}", fragments(TEXT, text[:at], text[at:]),
                          [closed(1007)], modes=("whole",))

    def test_text_that_ends_inside_a_character_is_1007(self):
        for text in CUT:
            self.play(text.hex(), [frame(TEXT, text)], [closed(1007)])
            self.play(f"{text.hex()}, empty end", fragments(TEXT, text, ""), [closed(1007)])

    def test_it_is_refused_at_the_byte_that_decides(self):
        """What is behind that byte is never sent, neither of the frame nor of the message; what
        is in front of it alone is not refused."""
        for name, text in BROKEN.items():
            wrong = first_wrong(text)
            for fin in (True, False):
                with self.subTest(name, fin=fin):
                    wire = self.wire()
                    whole = frame(TEXT, text + b"x" * 100, fin=fin)
                    head = len(whole) - len(text) - 100
                    wire.send(whole[:head + wrong])
                    self.assert_still_open(wire)
                    wire.send(whole[head + wrong:head + wrong + 1])
                    self.expect(wire, [closed(1007)])
                    self.assert_ends(wire)
                    wire.sock.close()

    def test_binary_need_not_be_text(self):
        for name, text in BROKEN.items():
            self.play(name, [frame(raw.BINARY, text)], [echo(raw.BINARY, text)],
                      modes=("whole",))

    def test_nothing_of_one_text_is_left_for_the_next(self):
        wire = self.wire()
        wire.send(frame(raw.BINARY, b"\xe2\x82") + frame(TEXT, "€") + frame(raw.BINARY, b"\xac"))
        self.expect(wire, [echo(raw.BINARY, b"\xe2\x82"), echo(TEXT, "€"),
                           echo(raw.BINARY, b"\xac")])

    def test_random_bytes_are_judged_as_python_does(self):
        draw = random.Random(3629)
        lively = bytes([0x41, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc2, 0xdf, 0xe0, 0xe1, 0xed,
                        0xef, 0xf0, 0xf1, 0xf4])
        wire = self.wire()
        for _ in range(1500):
            text = bytes(draw.choices(lively, k=draw.randrange(1, 7)))
            wire.send(frame(TEXT, text))
            if is_text(text):
                self.expect(wire, [echo(TEXT, text)])
            else:
                self.expect(wire, [closed(1007)])
                wire.sock.close()
                wire = self.wire()


class Elsewhere(FrameCase):
    """8.1 holds for whatever is read as text."""

    def test_a_close_reason_that_is_not_utf8_is_1007(self):
        for name, text in BROKEN.items():
            self.play(name, [raw.close_frame(1000, text)], [closed(1007)], modes=("whole",))
        for text in CUT:
            self.play(text.hex(), [raw.close_frame(1000, text)], [closed(1007)])

    def test_what_the_hub_hands_on_is_utf8(self):
        """Characters of all lengths in names and contents come out as they went in."""
        name = "é€😀"
        wire = self.wire("/ws?user_id=%C3%A9%E2%82%AC%F0%9F%98%80")
        self.assertEqual(wire.welcome["data"]["user"], name)
        wire.send(frame(TEXT, json.dumps({"type": "request", "event": "message.send",
                                          "data": {"to": name, "content": name}},
                                         ensure_ascii=False)))
        got = json.loads(wire.message().payload.decode("utf-8"))
        self.assertEqual((got["data"]["from"], got["data"]["content"]), (name, name))

    def test_reasons_of_the_hub_are_utf8_of_123_bytes_at_most(self):
        causes = {1002: frame(3), 1007: frame(TEXT, b"\xff"),
                  1009: frame(TEXT, length=1 << 40), 4400: frame(TEXT, "no json") * 11}
        for code, cause in causes.items():
            wire = self.wire("/ws?user_id=reasons")
            wire.send(cause)
            got = wire.read_close()
            self.assertEqual(struct.unpack(">H", got.payload[:2])[0], code)
            self.assertLessEqual(len(got.payload), 125)
            self.assertRegex(got.payload[2:].decode("utf-8"), r"^[a-zA-Z0-9 :,'-]+$")


if __name__ == "__main__":
    unittest.main()
