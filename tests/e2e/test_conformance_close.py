"""RFC 6455, sections 5.5.1 and 7: the close handshake from both sides, and how TCP ends.

assert_ends (frames.py) demands what 7.1.1 asks of a server: nothing behind its close frame, then a
FIN, no reset, and before the client has ended its own direction.
"""

import asyncio
import json
import signal
import socket
import threading
import unittest

import raw
from clients import ClientCase
from frames import FrameCase, closed, code_of, echo, fragments, pong
from hub import Hub, eventually
from raw import BINARY, CLOSE, CONT, PING, TEXT, Wire, close_frame, frame
from test_conformance_utf8 import BROKEN

PATHS = ("/echo", "/ws?user_id=close")
LEGAL = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
         4321, 4999)
ILLEGAL = (0, 1, 125, 126, 256, 999, 1004, 1005, 1006, 1015, 1016, 1099, 1100, 1999, 2000, 2999,
           5000, 10_000, 32_768, 65_534, 65_535)
REASONS = (b"", b"a", b"reason \xe2\x9c\x93", b"x" * 123)


class ByClient(FrameCase):
    """The client starts the close."""

    def test_every_legal_code_comes_back_with_every_kind_of_reason(self):
        for path in PATHS:
            for code in LEGAL:
                for reason in REASONS:
                    self.play(f"{code}, {len(reason)} bytes", [close_frame(code, reason)],
                              [closed(code)], path, modes=("whole",))

    def test_a_close_sent_byte_by_byte(self):
        for reason in REASONS:
            self.play(f"{len(reason)} bytes", [close_frame(1000, reason)], [closed(1000)])

    def test_a_close_without_a_code_comes_back_without_one(self):
        for path in PATHS:
            self.play("empty", [close_frame()], [closed(None)], path)

    def test_every_illegal_code_is_1002(self):
        for path in PATHS:
            for code in ILLEGAL:
                for reason in (b"", b"x"):
                    self.play(f"{code}, {len(reason)} bytes", [close_frame(code, reason)],
                              [closed(1002)], path, modes=("whole",))

    def test_no_code_that_is_only_for_applications_is_ever_sent(self):
        """7.4.1: 1005, 1006 and 1015 never stand in a close frame, whatever comes in."""
        for payload in (b"", b"\x03", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\x03\xec"):
            wire = self.wire()
            wire.send(frame(CLOSE, payload))
            self.assertNotIn(code_of(wire.read_close()), (1004, 1005, 1006, 1015))

    def test_a_close_of_one_byte_is_1002(self):
        for path in PATHS:
            self.play("one byte", [frame(CLOSE, b"\x03")], [closed(1002)], path)

    def test_a_reason_that_is_not_utf8_is_1007(self):
        for name, text in BROKEN.items():
            self.play(name, [close_frame(4000, text)], [closed(1007)], modes=("whole",))

    def test_a_close_inside_a_fragmented_message_is_a_close(self):
        for path in PATHS:
            for code in (1000, 1001, 4999):
                self.play(f"{code} behind a fragment",
                          [frame(TEXT, "never", fin=False), close_frame(code)], [closed(code)],
                          path)
                self.play(f"{code} inside a character",
                          [frame(TEXT, b"\xe2\x82", fin=False), frame(CONT, b"", fin=False),
                           close_frame(code, "€")], [closed(code)], path)
            self.play("a wrong one", [frame(TEXT, "never", fin=False), close_frame(1005)],
                      [closed(1002)], path)

    def test_what_came_before_is_answered_first(self):
        self.play("echo", [frame(TEXT, "before"), frame(PING, "p"), *fragments(BINARY, b"a", b"b"),
                           close_frame(1000)],
                  [echo(TEXT, "before"), pong("p"), echo(BINARY, b"ab"), closed(1000)])

    def test_what_comes_behind_a_close_is_ignored(self):
        """Frames good and bad, and a mebibyte of nothing in particular: the end stays clean."""
        behind = {"data": frame(TEXT, "late"), "a ping": frame(PING, "late"),
                  "another close": close_frame(4000), "an unmasked frame": b"\x81\x01x",
                  "broken text": frame(TEXT, b"\xff"), "half a frame": frame(TEXT, "late")[:5],
                  "a mebibyte": b"\xff" * (1 << 20)}
        for path in PATHS:
            for name, late in behind.items():
                self.play(name, [close_frame(1000) + late], [closed(1000)], path,
                          modes=("whole",))
                self.play(f"{name}, apart", [close_frame(1000), late], [closed(1000)], path,
                          modes=("frames",))

    def test_data_behind_the_servers_fin_resets_nothing(self):
        wire = self.wire()
        wire.send(close_frame(1000))
        self.expect(wire, [closed(1000)])
        self.assert_ends(wire)
        for _ in range(5):
            wire.send(frame(TEXT, "x" * 10_000))
            self.fence()
        self.assertEqual(wire.sock.recv(1), b"")

    def test_the_servers_side_is_freed_when_the_client_ends(self):
        self.fence()
        before = self.hub.metric("ringhub_connections")
        for _ in range(20):
            wire = self.wire("/ws?user_id=freed")
            wire.send(close_frame(1000))
            self.expect(wire, [closed(1000)])
            self.assert_ends(wire)
            wire.sock.close()
        eventually(lambda: self.hub.metric("ringhub_connections") == before, "gauge goes back")


class Queued(FrameCase):
    """A close while the server has more to send than the client has taken."""

    def fill(self, size, count):
        """A wire that has asked for so many echoes and has read none of them."""
        wire = Wire(self.hub, receive_buffer=4096)
        self.addCleanup(wire.sock.close)
        wire.upgrade("/echo")
        payloads = [b"%6d" % i + b"x" * size for i in range(count)]
        sender = threading.Thread(target=wire.send, args=(
            b"".join(frame(BINARY, payload, mask=bytes(4)) for payload in payloads)
            + close_frame(1000) + b"late" * 1000,))
        sender.start()
        self.addCleanup(sender.join)
        return wire, payloads

    def test_what_is_queued_comes_first_then_the_close_then_the_end(self):
        for size, count in ((20_000, 30), (100, 3000), (300_000, 20)):
            with self.subTest(size=size):
                wire, payloads = self.fill(size, count)
                self.expect(wire, [echo(BINARY, payload) for payload in payloads]
                            + [closed(1000)])
                self.assert_ends(wire)
                wire.sock.close()

    def test_a_half_closed_client_gets_it_too(self):
        wire = self.wire()
        payload = b"x" * 100_000
        wire.send(frame(BINARY, payload) * 5 + close_frame(4000))
        wire.sock.shutdown(socket.SHUT_WR)
        self.expect(wire, [echo(BINARY, payload)] * 5 + [closed(4000)])
        with self.assertRaises(raw.Closed) as end:
            wire.fill()
        self.assertFalse(end.exception.reset)

    def test_without_a_close_a_half_closed_client_still_gets_its_answers(self):
        wire = self.wire()
        wire.send(frame(TEXT, "one") + frame(PING, "two") + frame(TEXT, "never", fin=False))
        wire.sock.shutdown(socket.SHUT_WR)
        self.expect(wire, [echo(TEXT, "one"), pong("two")])
        with self.assertRaises(raw.Closed) as end:
            wire.fill()
        self.assertFalse(end.exception.reset)

    def test_an_end_without_a_word_ends_with_a_fin(self):
        for path in PATHS:
            for start in (b"", frame(TEXT, "x")[:4], frame(TEXT, "x", fin=False)):
                wire = self.wire(path)
                wire.send(start)
                wire.sock.shutdown(socket.SHUT_WR)
                with self.assertRaises(raw.Closed) as end:
                    wire.fill()
                self.assertFalse(end.exception.reset, (path, start))


class Failing(FrameCase):
    """7.1.7: what the client sends after the connection has failed is not looked at, also not its
    answer to the close frame, and the server waits for none."""

    FAULTS = {1002: frame(3), 1007: frame(TEXT, b"\xff"), 1009: frame(TEXT, length=1 << 40)}

    def test_the_server_ends_without_waiting(self):
        for path in PATHS:
            for code, fault in self.FAULTS.items():
                self.play(str(code), [fault], [closed(code)], path)

    def test_what_follows_the_fault_is_not_looked_at(self):
        for code, fault in self.FAULTS.items():
            for late in (frame(TEXT, "late"), frame(PING, "late"), close_frame(1000), frame(3),
                         b"\xff" * 200_000):
                self.play(str(code), [fault + late], [closed(code)], modes=("whole",))

    def test_inside_a_fragmented_message(self):
        for path in PATHS:
            for code, fault in {1002: frame(TEXT, "new"), 1007: frame(CONT, b"\xff"),
                                1009: frame(CONT, length=1 << 20)}.items():
                self.play(str(code), [frame(TEXT, "begun", fin=False), fault], [closed(code)],
                          path)

    def test_failures_are_counted_by_their_code(self):
        for code, fault in self.FAULTS.items():
            name = f'ringhub_disconnects_total{{code="{code}"}}'
            before = self.hub.metrics().get(name, 0)
            wire = self.wire()
            wire.send(fault)
            wire.read_close()
            eventually(lambda: self.hub.metrics()[name] == before + 1, "it is counted")


class ByServer(FrameCase):
    """The server starts the close, and waits for the client's answer before it ends TCP."""

    def replaced(self, user, start=b""):
        """A wire that the server closes with 4409, behind `start` that it has sent."""
        wire = self.wire(f"/ws?user_id={user}&device=d")
        wire.send(start)
        self.fence()
        other = self.wire(f"/ws?user_id={user}&device=d")
        self.addCleanup(other.sock.close)
        return wire

    def test_it_waits_for_the_answer_then_ends_first(self):
        wire = self.replaced("waits")
        self.expect(wire, [closed(4409)])
        self.assert_still_open(wire)
        wire.send(close_frame(4409))
        self.assert_ends(wire)

    def test_any_answer_will_do(self):
        for answer in (close_frame(), close_frame(1000), close_frame(4409, "got it"),
                       frame(TEXT, "on its way") + frame(PING, "too") + close_frame(4409)):
            wire = self.replaced("answers")
            self.expect(wire, [closed(4409)])
            wire.send(answer)
            self.assert_ends(wire)

    def test_a_wrong_answer_ends_it_too(self):
        for answer in (frame(3), frame(TEXT, b"\xff"), close_frame(1005), frame(CLOSE, b"\x03"),
                       frame(TEXT, "x", mask=None)):
            wire = self.replaced("wrong-answers")
            self.expect(wire, [closed(4409)])
            wire.send(answer)
            self.assert_ends(wire)

    def test_in_the_middle_of_a_fragmented_message(self):
        wire = self.replaced("fragment", frame(TEXT, '{"type":', fin=False))
        self.expect(wire, [closed(4409)])
        wire.send(frame(CONT, "x", fin=False) + frame(CONT, "}"))
        self.assert_still_open(wire)
        wire.send(close_frame(4409))
        self.assert_ends(wire)

    def test_in_the_middle_of_a_frame(self):
        whole = frame(TEXT, '{"type":"request"}')
        wire = self.replaced("frame", whole[:9])
        self.expect(wire, [closed(4409)])
        wire.send(whole[9:] + close_frame(4409))
        self.assert_ends(wire)

    def test_a_client_that_ends_without_an_answer(self):
        wire = self.replaced("no-answer")
        self.expect(wire, [closed(4409)])
        wire.sock.shutdown(socket.SHUT_WR)
        with self.assertRaises(raw.Closed) as end:
            wire.fill()
        self.assertFalse(end.exception.reset)

    def test_both_close_at_once_and_each_sends_one_close_frame(self):
        """The client has not seen the server's close when it sends its own."""
        wire = self.replaced("both")
        wire.send(close_frame(1000))  # it has read nothing of what the server sent
        self.expect(wire, [closed(4409)])
        self.assert_ends(wire)

    def test_both_close_at_once_in_any_order(self):
        for turn in range(30):
            user = f"race-{turn}"
            wire = self.wire(f"/ws?user_id={user}&device=d")
            other = Wire(self.hub)
            self.addCleanup(other.sock.close)
            first = [lambda: wire.send(close_frame(1000)),
                     lambda: other.send(raw.upgrade(f"/ws?user_id={user}&device=d"))]
            for act in first if turn % 2 else reversed(first):
                act()
            got = wire.frame()
            self.assertEqual(got.opcode, CLOSE)
            self.assertIn(code_of(got), (1000, 4409))
            self.assert_ends(wire)

    def test_no_data_follows_the_close_frame(self):
        """5.5.1: messages for the user go to the others of its devices only."""
        wire = self.replaced("no-more")
        sender = self.wire("/ws?user_id=no-more-sender")
        for number in range(10):
            sender.send(frame(TEXT, json.dumps(
                {"type": "request", "event": "message.send", "request_id": str(number),
                 "data": {"to": "no-more", "content": number}})))
            self.assertEqual(json.loads(sender.message().payload)["type"], "response")
        self.expect(wire, [closed(4409)])
        wire.send(close_frame(4409))
        self.assert_ends(wire)

    def test_too_many_invalid_messages(self):
        wire = self.wire("/ws?user_id=invalid")
        wire.send(frame(TEXT, "?") * 20)
        got = [wire.frame() for _ in range(12)]
        self.assertEqual([each.opcode for each in got], [TEXT] * 11 + [CLOSE])
        self.assertEqual(code_of(got[-1]), 4400)
        wire.send(close_frame(4400))
        self.assert_ends(wire)


class GoingAway(unittest.TestCase):
    """1001, when the server stops."""

    def test_a_stop_closes_every_kind_of_client_well(self):
        hub = Hub({"echo.enabled": "true"}, shards=2)
        wires = []
        try:
            for number in range(8):
                wire = Wire(hub)
                wires.append(wire)
                wire.upgrade("/echo" if number % 2 else f"/ws?user_id=away-{number}")
                if number % 4 > 1:  # in the middle of a message
                    wire.send(frame(TEXT, "begun", fin=False))
            hub.process.send_signal(signal.SIGTERM)
            for wire in wires:
                self.assertEqual(code_of(wire.read_close()), 1001)
                wire.send(close_frame(1001))
                wire.end()
        finally:
            for wire in wires:
                wire.sock.close()
            hub.stop(sig=None)


class Libraries(ClientCase):
    """A client that we did not write calls these ends clean."""

    async def test_websockets_sees_a_clean_close_with_every_code(self):
        for code in LEGAL:
            client = await self.client("library")
            await client.socket.close(code, "reason ✓")
            self.assertEqual((client.socket.close_code, client.socket.close_reason), (code, ""))

    async def test_websockets_sees_the_servers_code(self):
        first = await self.client("library", device="d")
        await self.client("library", device="d")
        self.assertEqual((await asyncio.wait_for(first.closed(), 60))[0], 4409)


if __name__ == "__main__":
    unittest.main()
