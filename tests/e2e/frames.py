"""tests/e2e/frames.py - what the tests of the wire share: a hub of one shard, and cases as tables.

A case is what a client sends (a list of frames) and what a server has to do: ECHO, PONG, or CLOSE
with a code. `play` sends it in each of MODES, so that a rule holds however TCP cuts the bytes:
in one segment, a segment per frame, a byte at a time.

Nothing here sleeps. A fence is an echo on a second connection of the same shard: when it is back,
the shard has had a pass since the bytes in front of it were sent, so what follows comes apart.
"""

import json
import select
import socket
import struct

import raw
from hub import Hub, HubCase
from raw import BINARY, CLOSE, CONT, PONG, TEXT, Wire, close_frame, frame

MODES = ("whole", "frames", "bytes")
BYTES_MAX = 600  # a longer case is not sent a byte at a time

TCP_CLOSE_WAIT = 8  # linux/tcp_states.h: the peer has ended its direction, we have not


def echo(opcode, payload=b""):
    return (opcode, payload.encode() if isinstance(payload, str) else payload)


def pong(payload=b""):
    return echo(PONG, payload)


def closed(code=None):
    return (CLOSE, code)


def fragments(opcode, *parts):
    """The frames of one message in these parts."""
    return [frame(CONT if i else opcode, part, fin=i == len(parts) - 1)
            for i, part in enumerate(parts)]


def cut_every(payload, size):
    """A payload in parts of `size` bytes; an empty one is one part."""
    return [payload[i:i + size] for i in range(0, len(payload), size)] or [payload]


class FrameCase(HubCase):
    """Wires to a hub of one shard, and the fence beside them."""

    shards = 1

    @classmethod
    def setUpClass(cls):
        cls.hub = Hub(cls.options, shards=cls.shards)

    def wire(self, path="/echo", **how):
        """A wire behind its handshake, and behind the welcome where there is one."""
        wire = Wire(self.hub)
        self.addCleanup(wire.sock.close)
        wire.answer = wire.upgrade(path, **how)
        if path.startswith("/ws"):
            wire.welcome = json.loads(wire.message().payload)
            self.assertEqual(wire.welcome["event"], "welcome")
        return wire

    def fence(self):
        """Returns when the shard has seen all that was sent before."""
        if not getattr(self, "_fence", None):
            self._fence = self.wire()
        self._fence.send(frame(BINARY, b"fence", mask=bytes(4)))
        self.assertEqual(self._fence.frame()[:2], (BINARY, b"fence"))

    def send(self, wire, frames, mode):
        data = b"".join(frames)
        pieces = {"whole": [data], "frames": frames,
                  "bytes": [data[i:i + 1] for i in range(len(data))]}[mode]
        for piece in pieces:
            try:
                wire.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                return  # it need not take more than the byte that broke the rule
            if mode != "whole":
                self.fence()

    def expect(self, wire, wanted):
        """Reads exactly these answers."""
        for opcode, value in wanted:
            got = wire.frame()
            if opcode == CLOSE:
                self.assertEqual(got.opcode, CLOSE, got)
                self.assertEqual(code_of(got), value, got)
            else:
                self.assertEqual((got.opcode, got.payload, got.fin), (opcode, value, True))

    def play(self, name, frames, wanted, path="/echo", modes=MODES):
        """Plays one case in each mode; where no close is wanted the connection has to be fine
        afterwards, and to end well."""
        for mode in modes:
            if mode == "bytes" and sum(map(len, frames)) > BYTES_MAX:
                continue
            with self.subTest(name, mode=mode, path=path):
                wire = self.wire(path)
                self.send(wire, frames, mode)
                self.expect(wire, wanted)
                if not wanted or wanted[-1][0] != CLOSE:
                    wire.send(close_frame(1000))
                    self.expect(wire, [closed(1000)])
                self.assert_ends(wire)
                wire.sock.close()

    def assert_alive(self, wire):
        wire.send(frame(TEXT, "alive?"))
        self.assertEqual(wire.message()[:2], (TEXT, b"alive?"))

    def assert_ends(self, wire):
        """The server ends the stream, with a FIN, before we have: 7.1.1."""
        self.assertEqual(wire.buffer, b"", "bytes behind the close frame")
        try:
            wire.fill()
            self.fail(f"bytes behind the close frame: {wire.buffer[:80]!r}")
        except raw.Closed as end:
            self.assertFalse(end.reset, "the connection was reset, not ended")
        state = wire.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        self.assertEqual(state, TCP_CLOSE_WAIT)

    def assert_still_open(self, wire):
        """Nothing has come, not even the end, by the time that a fence is back."""
        self.fence()
        ready, _, _ = select.select([wire.sock], [], [], 0)
        self.assertFalse(ready or wire.buffer, "something came")


def code_of(got):
    return struct.unpack(">H", got.payload[:2])[0] if got.payload else None
