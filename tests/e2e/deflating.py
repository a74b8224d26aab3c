"""tests/e2e/deflating.py - permessage-deflate by hand (RFC 7692), on Python's zlib.

A Deflating is a Wire that offers it, holds the server to what was agreed on, and inflates what comes;
what it sends is compressed as it is told to, also wrongly.
"""

import zlib

import raw

EXTENSION = "permessage-deflate"
RSV1 = 4  # for raw.frame


def parameters(answer):
    """The one extension of an answer: {parameter: value or True}."""
    name, *rest = [part.strip() for part in answer.split(";")]
    assert name == EXTENSION, answer
    found = {}
    for part in rest:
        key, _, value = part.partition("=")
        assert key not in found, answer
        found[key] = int(value) if value else True
    return found


class Packer:
    """Compresses messages, with a context or without."""

    def __init__(self, bits=15, keeps=False, level=6):
        self.how = {"level": level, "wbits": -bits}
        self.stream = zlib.compressobj(**self.how) if keeps else None

    def __call__(self, payload):
        stream = self.stream or zlib.compressobj(**self.how)
        if not payload:
            return b"\0"  # RFC 7692 7.2.3.6
        done = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
        assert done.endswith(b"\0\0\xff\xff")
        return done[:-4]


def pack(payload, bits=15):
    """One message, compressed without a context."""
    return Packer(bits)(payload.encode() if isinstance(payload, str) else payload)


def packed(opcode, payload, **how):
    """One compressed message in one frame."""
    return raw.frame(opcode, pack(payload), rsv=RSV1, **how)


def tables(size):
    """A message of about that many bytes that holds nothing but tables: blocks without a symbol. Each
    of them costs an inflater a microsecond."""
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)]  # a dynamic block: 257 + 1 codes, 18 lengths
    fields += [(int(place in (2, 17)), 3) for place in range(18)]  # of "many zeros", and of "one"
    fields += [(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)]  # 256 times 0, 1, 1; end
    number, bits = 0, 0
    for value, width in fields:
        number |= value << bits
        bits += width
    block = sum(number << bits * turn for turn in range(8))  # as many bytes as a block has bits
    return block.to_bytes(bits, "little") * (size // bits) + b"\0"


class Deflating(raw.Wire):
    """A Wire whose messages may come compressed. `counts` says how many did, `bytes` what they had on
    the wire."""

    offer = EXTENSION

    def __init__(self, *args, offer=None, **how):
        if offer:
            self.offer = offer
        self.counts = {True: 0, False: 0}
        self.bytes = 0
        super().__init__(*args, **how)

    def upgrade(self, path="/ws", headers=(), behind=b"", **how):
        answer = super().upgrade(path, {**dict(headers), "Sec-WebSocket-Extensions": self.offer},
                                 behind, **how)
        self.agreed = parameters(answer.headers["sec-websocket-extensions"])
        self.reserved = 0x40
        self.keeps = "server_no_context_takeover" not in self.agreed
        self.bits = max(9, self.agreed.get("server_max_window_bits", 15))
        self.stream = zlib.decompressobj(wbits=-self.bits)
        self.packer = Packer(max(9, self.agreed.get("client_max_window_bits", 15)),
                             "client_no_context_takeover" not in self.agreed)
        return answer

    def message(self, keep_control=False):
        got = self.frame()
        while got.opcode >= raw.CLOSE and not keep_control:
            assert got.opcode != raw.CLOSE, f"closed: {got.payload!r}"
            got = self.frame()
        if got.opcode >= raw.CLOSE:
            assert not self.compressed, "a control frame is never compressed"
            return got
        assert got.fin, "the hub sends no fragments"
        self.counts[self.compressed] += 1
        if not self.compressed:
            return got
        self.bytes += len(got.payload)
        if not self.keeps:
            self.stream = zlib.decompressobj(wbits=-self.bits)
        plain = self.stream.decompress(got.payload + b"\0\0\xff\xff")
        assert not self.stream.unconsumed_tail and not self.stream.unused_data
        assert len(got.payload) < len(plain), "compressed in vain"
        return raw.Frame(got.opcode, plain, True)

    def say(self, opcode, payload):
        """Sends one message compressed, as it was agreed on."""
        payload = payload.encode() if isinstance(payload, str) else payload
        self.send(raw.frame(opcode, self.packer(payload), rsv=RSV1))
