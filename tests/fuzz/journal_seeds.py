#!/usr/bin/env python3
"""Segments for fuzz_journal: `journal_seeds.py DIR` writes some into DIR.

As batches without sums, which the target makes; and one whole segment, as it lies on disk.
"""
import os
import struct
import sys


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def span(text):
    return varint(len(text)) + text


def owed(number, kind=0, users=(b"bob",), text=b'{"attempt":1,"ack":true}'):
    shares = b"".join(span(user) + varint(1) + b"\1\0" for user in users)
    return (b"\1" + varint(1795300000000) + bytes([kind, 9]) + varint(number) + varint(1795300009999) +
            varint(1795300300000) + varint(1795300000000000) + varint(kind * 77) + varint(len(users)) +
            span(b"alice") + span(b"bob") + span(b"m-1") + varint(11) + b"\1" + varint(19) + span(text) +
            varint(len(users)) + shares)


def attempt(number, share=0, attempt=2):
    return b"\2" + varint(1795300000001) + varint(number) + varint(share) + varint(attempt)


def settled(number, share=0, state=4, reason=0):
    return b"\3" + varint(1795300000002) + varint(number) + varint(share) + bytes([state, reason])


def remembered():
    return (b"\4" + varint(1795300000003) + b"\0\x10" + varint(1795300300000) + varint(5) + varint(1) +
            span(b"alice") + span(b"bob") + span(b"m-2"))


def time():
    return b"\5" + varint(1795300000004)


def batch(*events, number=0, keep=0, forgiven=0, hurt=0, behind=0):
    body = b"".join(events)
    return bytes([number, len(events)]) + struct.pack("<H", len(body)) + bytes([keep, forgiven, hurt, behind]) + body


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def header(number=1, salt=5, size=8192):
    head = b"ringhubJ" + struct.pack("<IIQQQI", 1, 0, number, size, salt, 0)
    return head + struct.pack("<I", crc32c(head))


ALL = (owed(1), attempt(1), settled(1), remembered(), time())
SEEDS = {
    "one": batch(time()),
    "each": batch(*ALL),
    "batches": b"".join(batch(event) for event in ALL),
    "empty": batch() + batch(time()) + batch(),
    "room": batch(owed(2, 1, (b"bob", b"carol", b"dave"))) + batch(settled(2, 1), settled(2, 2, 5, 9)),
    "hurt_header": batch(time()) + batch(time(), hurt=9) + batch(time()),
    "hurt_body": batch(time()) + batch(owed(3), hurt=80) + batch(time()),
    "hurt_end": batch(time()) + batch(owed(3), hurt=80),
    "hurt_two": batch(time()) + batch(owed(3), hurt=9) + batch(owed(4), hurt=80),
    "jump": batch(time()) + batch(time(), number=5),
    "back": batch(time()) + batch(time()) + batch(time(), number=128),
    "keep": batch(time(), keep=4) + batch(time(), keep=9),
    "forgiven": batch(time()) + batch(time(), number=5, forgiven=2),
    "gap": batch(time(), behind=255) + batch(time()),
    "nonsense": batch(b"\x63nonsense") + batch(time()),
    "cut_event": batch(owed(5)[:-3]) + batch(time()),
    "more_than_said": bytes([0, 1]) + struct.pack("<H", 14) + bytes(4) + time() + time(),
    "long_number": batch(b"\5\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"),
    "many_shares": batch(owed(6)[:-8] + b"\xff\xff\xff\xff\x0f"),
}

os.makedirs(sys.argv[1], exist_ok=True)
for name, seed in SEEDS.items():
    with open(os.path.join(sys.argv[1], name), "wb") as file:
        file.write(b"\1" + seed)
page = header().ljust(2048, b"\0") + header().ljust(2048, b"\0")
for name, seed in {"raw": page + bytes(512), "raw_second": bytes(2048) + page[2048:], "raw_short": page[:100]}.items():
    with open(os.path.join(sys.argv[1], name), "wb") as file:
        file.write(b"\0" + seed)
