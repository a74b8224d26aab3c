"""tests/e2e/squeezed.py - permessage-deflate (RFC 7692) by hand, on Python's zlib.

A SqueezedWire shakes hands with an offer, reads strictly what the server agreed to, and then holds
both of them to it: what the server sends is inflated a byte at a time with exactly the window that
was agreed on, so that a reference beyond it is an error, and with a fresh context for every message
where the server keeps none.
"""

import base64
import os
import re
import zlib

import raw
from frames import FrameCase
from raw import BINARY, CONT, TEXT

NAME = "permessage-deflate"
TAIL = b"\x00\x00\xff\xff"  # 7.2.1: what a sender takes off
RSV1 = 4

DEFAULT = {"echo.enabled": "true", "compression.enabled": "true"}
LARGE = {**DEFAULT, "compression.min_size": 0, "compression.window_bits": 15,
         "compression.context_takeover": "true"}


def offer(server_no=False, client_no=False, server_bits=None, client_bits=None):
    """One offer; client_bits=True is the parameter without a value."""
    parts = [NAME]
    parts += ["server_no_context_takeover"] if server_no else []
    parts += ["client_no_context_takeover"] if client_no else []
    parts += [f"server_max_window_bits={server_bits}"] if server_bits else []
    if client_bits:
        parts += ["client_max_window_bits" + ("" if client_bits is True else f"={client_bits}")]
    return "; ".join(parts)


class Terms:
    """What an answer says, read as strictly as 5.1 and 7.1 let a client."""

    def __init__(self, text):
        name, *params = [part.strip() for part in text.split(";")]
        assert name == NAME and "," not in text, text
        self.params = {}
        for param in params:
            key, _, value = param.partition("=")
            assert key not in self.params, f"twice: {text}"
            self.params[key] = value
            if key.endswith("_no_context_takeover"):
                assert param == key, text
            else:
                assert re.fullmatch(r"[89]|1[0-5]", value), text
        assert set(self.params) <= {"server_no_context_takeover", "client_no_context_takeover",
                                    "server_max_window_bits", "client_max_window_bits"}, text
        self.server_no = "server_no_context_takeover" in self.params
        self.client_no = "client_no_context_takeover" in self.params
        self.server_bits = int(self.params.get("server_max_window_bits", 15))
        self.client_bits = int(self.params.get("client_max_window_bits", 15))


def inflate_exactly(decoder, data):
    """Inflates a byte at a time: zlib looks for what is referred to in the window alone only
    across calls."""
    out, data = bytearray(), data + TAIL
    while True:
        more = decoder.decompress(data, 1)
        data = decoder.unconsumed_tail
        out += more
        if decoder.eof:
            assert not data and decoder.unused_data in (b"", TAIL, b"\x00" + TAIL), "a rest"
            return bytes(out)
        if not more and not data:
            return bytes(out)


class SqueezedWire(raw.Wire):
    """A wire that may have agreed on permessage-deflate: .terms, None without."""

    def shake(self, path, *offers, behind=b"", headers=()):
        """Shakes hands with these offers; several are elements of one field."""
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {"Sec-WebSocket-Extensions": ", ".join(offers)} if offers else {}
        self.send(raw.upgrade(path, {**fields, **dict(headers)}, key) + behind)
        self.answer = self.response()
        assert self.answer.status == 101, self.answer
        assert self.answer.headers["sec-websocket-accept"] == raw.accept_of(key)
        said = self.answer.headers.get("sec-websocket-extensions")
        self.terms = Terms(said) if said is not None else None
        self.encoder = self.decoder = None
        self.received = 0  # bytes of payload on the wire of the last message
        return self

    def squeeze(self, payload, level=6, strategy=zlib.Z_DEFAULT_STRATEGY):
        """The payload compressed as the next message of this client."""
        terms = self.terms
        if not self.encoder or terms.client_no:
            # zlib has no raw deflate with 8: the caller keeps such messages within 256 bytes
            self.encoder = zlib.compressobj(level, zlib.DEFLATED, -max(terms.client_bits, 9), 8,
                                            strategy)
        data = self.encoder.compress(payload) + self.encoder.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(TAIL)
        return data[:-4] or b"\x00"

    def say(self, opcode, payload, parts=1, **how):
        """Sends a compressed message, in so many fragments."""
        data = self.squeeze(payload, **how)
        size = -(-len(data) // parts)
        pieces = [data[i:i + size] for i in range(0, len(data), size)]
        self.send(b"".join(squeezed_fragments(opcode, *pieces)))

    def frame(self):
        first, second = self.take(2)
        self.squeezed = bool(first & 0x40)
        if self.squeezed:
            assert self.terms, "compressed without an agreement"
            assert first & 15 in (TEXT, BINARY), "RSV1 belongs to a message's first frame"
        self.buffer = bytes([first & 0xbf, second]) + self.buffer
        got = super().frame()
        assert not (self.squeezed and got.fin and got.payload.endswith(TAIL)), "7.2.1: the tail"
        return got

    def message(self, keep_control=False):
        """The next message, inflated where it is compressed; .was_squeezed tells."""
        parts, opcode = [], None
        while True:
            got = self.frame()
            if got.opcode >= raw.CLOSE:
                assert keep_control or got.opcode != raw.CLOSE, f"closed: {got.payload!r}"
                if keep_control:
                    return got
                continue
            assert (got.opcode == CONT) == bool(parts)
            if opcode is None:
                opcode, self.was_squeezed = got.opcode, self.squeezed
            parts.append(got.payload)
            if got.fin:
                data = b"".join(parts)
                self.received = len(data)
                return raw.Frame(opcode, self.inflate(data) if self.was_squeezed else data, True)

    def inflate(self, data):
        if not self.decoder or self.decoder.eof or self.terms.server_no:
            self.decoder = zlib.decompressobj(-self.terms.server_bits)
        return inflate_exactly(self.decoder, data)


def squeezed_fragments(opcode, *parts):
    """RSV1 on the first of them only (6.1)."""
    return [raw.frame(CONT if i else opcode, part, fin=i == len(parts) - 1,
                      rsv=0 if i else RSV1) for i, part in enumerate(parts)]


class SqueezedCase(FrameCase):
    options = DEFAULT

    def shake(self, *offers, path="/echo", **how):
        wire = SqueezedWire(self.hub)
        self.addCleanup(wire.sock.close)
        return wire.shake(path, *offers, **how)

    def assert_echo(self, wire, opcode, payload):
        self.assertEqual(wire.message()[:2], (opcode, payload))
