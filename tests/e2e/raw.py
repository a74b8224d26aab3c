"""tests/e2e/raw.py - HTTP and RFC 6455 by hand, for what no decent client would ever send.

A Wire is a TCP connection with deadlines. frame() makes any frame, also a wrong one. What comes
back is checked strictly: a frame of the server must be unmasked, have no reserved bits and be in
its shortest form.
"""

import base64
import collections
import hashlib
import os
import socket
import struct

from hub import DEADLINE

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Frame = collections.namedtuple("Frame", "opcode payload fin")
Response = collections.namedtuple("Response", "status version headers body")


def mask_bytes(payload, mask):
    if not payload:
        return b""
    pattern = (mask * (len(payload) // 4 + 1))[:len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(
        len(payload), "big")


def frame(opcode, payload=b"", fin=True, mask=b"\x12\x9a\x56\xf1", rsv=0, form=None, length=None):
    """A client's frame. mask=None leaves it unmasked; form 16 or 64 forces the longer length;
    length is what the header claims."""
    payload = payload.encode() if isinstance(payload, str) else payload
    claim = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask is not None else 0
    if form == 64 or form is None and claim > 0xffff:
        head += bytes([bit | 127]) + struct.pack(">Q", claim)
    elif form == 16 or form is None and claim > 125:
        head += bytes([bit | 126]) + struct.pack(">H", claim)
    else:
        head += bytes([bit | claim])
    if mask is None:
        return head + payload
    return head + mask + mask_bytes(payload, mask)


def close_frame(code=None, reason=b"", **how):
    reason = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason, **how)


def request(path, headers=(), method="GET", version="HTTP/1.1", host="localhost"):
    """A request head; `headers` are (name, value) pairs or a dict."""
    pairs = headers.items() if isinstance(headers, dict) else headers
    lines = [f"{method} {path} {version}"] + ([f"Host: {host}"] if host is not None else [])
    lines += [f"{name}: {value}" for name, value in pairs]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def upgrade(path="/ws", headers=(), key=None, without=(), **how):
    """The head of a WebSocket handshake, with `headers` added or replaced, less those `without`."""
    all_headers = {"Upgrade": "websocket", "Connection": "Upgrade",
                   "Sec-WebSocket-Key": key or base64.b64encode(os.urandom(16)).decode(),
                   "Sec-WebSocket-Version": "13", **dict(headers)}
    for name in without:
        del all_headers[name]
    return request(path, all_headers, **how)


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


class Closed(Exception):
    """The peer ended the connection where more was expected; .reset tells how."""

    def __init__(self, reset):
        super().__init__("connection reset" if reset else "end of stream")
        self.reset = reset


class Wire:
    """One TCP connection to a hub; reads what comes strictly."""

    reserved = 0  # bits that the server's first byte may have, by what was agreed on
    compressed = False  # the frame that was read last: it had RSV1

    def __init__(self, hub, receive_buffer=None):
        self.sock = socket.socket()
        self.sock.settimeout(DEADLINE)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect((hub.host, hub.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def reset(self):
        """Ends it with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def fill(self):
        """Reads some more; Closed at the end."""
        try:
            more = self.sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            raise Closed(True) from None
        if not more:
            raise Closed(False)
        self.buffer += more

    def take(self, size):
        while len(self.buffer) < size:
            self.fill()
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def response(self, head_only=False):
        """The next HTTP response, framed by Content-Length (as all of the hub's are)."""
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, value = line.split(":", 1)
            name = name.lower()
            assert name == name.strip(), f"bad header {line!r}"
            if name == "connection" and name in headers:  # a list: several lines are one
                value = f"{headers[name]}, {value.strip()}"
            else:
                assert name not in headers, f"twice: {line!r}"
            headers[name] = value.strip()
        status = int(status)
        if status == 101 or head_only:
            return Response(status, version, headers, b"")
        return Response(status, version, headers, self.take(int(headers["content-length"])))

    def upgrade(self, path="/ws", headers=(), behind=b"", **how):
        """Shakes hands (with `behind` in the same segment) and demands a correct 101."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(upgrade(path, headers, key, **how) + behind)
        answer = self.response()
        assert answer.status == 101, f"{answer.status}: {answer.body!r}"
        assert answer.headers["sec-websocket-accept"] == accept_of(key)
        assert answer.headers["upgrade"].lower() == "websocket"
        assert answer.headers["connection"].lower() == "upgrade"
        return answer

    def frame(self):
        """The next frame, which must be one that a server may send."""
        first, second = self.take(2)
        assert not first & 0x70 & ~self.reserved, f"reserved bits: {first:#x}"
        self.compressed = bool(first & 0x40)
        assert not second & 0x80, "a server's frame is not masked"
        size = second & 0x7f
        if size == 126:
            size, = struct.unpack(">H", self.take(2))
            assert size > 125, "length not in its shortest form"
        elif size == 127:
            size, = struct.unpack(">Q", self.take(8))
            assert size > 0xffff, "length not in its shortest form"
        assert not (first & 8 and (size > 125 or not first & 0x80)), "bad control frame"
        return Frame(first & 15, self.take(size), bool(first & 0x80))

    def message(self, keep_control=False):
        """The next whole message, control frames skipped unless they are kept."""
        parts, opcode = [], None
        while True:
            got = self.frame()
            if got.opcode >= CLOSE:
                if keep_control:
                    return got
                assert got.opcode != CLOSE, f"closed: {got.payload!r}"
                continue
            assert (got.opcode == CONT) == bool(parts), "fragments out of order"
            opcode = got.opcode if opcode is None else opcode
            parts.append(got.payload)
            if got.fin:
                return Frame(opcode, b"".join(parts), True)

    def read_close(self):
        """Reads on to the server's close frame."""
        while (got := self.frame()).opcode != CLOSE:
            pass
        return got

    def close_code(self, answer=True):
        """Reads on to the server's close frame, answers it, and demands that the stream ends
        there; the code."""
        got = self.read_close()
        if got.payload:
            got.payload[2:].decode("utf-8")
        if answer:
            try:
                self.send(frame(CLOSE, got.payload))
            except ConnectionError:
                pass  # it need not wait for this after an error
        self.end()
        return struct.unpack(">H", got.payload[:2])[0] if got.payload else None

    def end(self):
        """Demands that nothing but the end of the stream follows."""
        try:
            self.fill()
        except Closed:
            pass
        else:
            raise AssertionError(f"bytes after the end: {self.buffer[:80]!r}")
