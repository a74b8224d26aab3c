"""Clients that do anything at any time, and receivers that only read: whatever they do, the hub stays
itself, gives everything back, and loses nothing for those who behave. SEED=n repeats a run."""

import json
import os
import random
import socket
import struct
import threading
import time
import unittest

import raw
from hub import SLOWNESS, Hub, eventually
from raw import frame, upgrade

SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
NAMES = [f"u{i}" for i in range(6)]


def message_send(to, content, request_id=None, **more):
    data = {"to": to, "content": content, **more}
    body = {"type": "request", "event": "message.send", "data": data}
    if request_id is not None:
        body["request_id"] = request_id
    return frame(raw.TEXT, json.dumps(body, separators=(",", ":")))


class Chaos:
    """Up to 120 connections on which something random happens, again and again."""

    def __init__(self, hub, seed):
        self.hub, self.dice, self.open = hub, random.Random(seed), []

    def anything(self):
        dice, r = self.dice, self.dice.random()
        if r < .5:
            return message_send(dice.choice(NAMES + ["nobody"]),
                                "y" * dice.choice([1, 50, 3000, 20000]),
                                "1" if dice.random() < .7 else None,
                                priority=dice.choice(["low", "high", "normal"]))
        if r < .6:
            return frame(raw.PING, b"p" * dice.randrange(126))
        if r < .65:
            return frame(raw.TEXT, b"{bad")
        if r < .7:
            return frame(raw.BINARY, b"x" * 300)
        if r < .75:
            return raw.close_frame(1000)
        if r < .78:
            return b"\xff\xff\xff"
        if r < .9:
            text = json.dumps({"type": "request", "event": "ping", "request_id": "q",
                               "data": "z" * dice.randrange(4000)})
            cut = dice.randrange(1, len(text))
            return (frame(raw.TEXT, text[:cut], fin=False) + frame(raw.PING)
                    + frame(raw.CONT, text[cut:]))
        return raw.request("/metrics") * dice.randrange(1, 4)

    def opening(self):
        dice = self.dice
        if dice.random() < .15:
            return dice.choice([raw.request("/livez") * 3, b"GET /met", b"", upgrade("/nope"),
                                upgrade("/ws?rooms=a"),
                                b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"])
        path = "/echo" if dice.random() < .15 else (
            f"/ws?user_id={dice.choice(NAMES)}" + dice.choice(["", "&device=d", "&device=e"]))
        bytes_ = upgrade(path)
        if dice.random() < .5:
            bytes_ += b"".join(self.anything() for _ in range(dice.randrange(6)))
        return bytes_[:dice.randrange(len(bytes_) + 1)] if dice.random() < .1 else bytes_

    def arrive(self):
        sock = socket.socket()
        if self.dice.random() < .5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect((self.hub.host, self.hub.port))
        sock.setblocking(False)
        self.open.append(sock)
        sock.send(self.opening() or b"G")

    def disturb(self):
        i = self.dice.randrange(len(self.open))
        sock, r = self.open[i], self.dice.random()
        if r < .55:
            sock.send(b"".join(self.anything() for _ in range(self.dice.choice([1, 1, 3, 40]))))
        elif r < .83:
            sock.recv(self.dice.choice([10, 65536, 1 << 20]))
        elif r < .88:
            sock.shutdown(socket.SHUT_WR)
        else:
            if r < .93:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.open.pop(i).close()

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if not self.open or (self.dice.random() < .15 and len(self.open) < 120):
                    self.arrive()
                else:
                    self.disturb()
            except OSError:
                pass  # would block, or is gone: both are fine here
            if self.dice.random() < .05:
                time.sleep(.002)
        for sock in self.open:
            sock.close()


class Behaviour(unittest.TestCase):
    def test_random_clients_leave_nothing_behind(self):
        """Goal: after anything, all gauges are back and connections in equal connections out.
        Method: tight limits and short times, so that every bound is met; a clean end of the hub."""
        sets = {"limits.handshake_timeout": "700ms", "limits.send_timeout": "500ms",
                "limits.send_queue_messages": "8", "limits.send_queue_bytes": "4KiB",
                "heartbeat.interval": "200ms", "heartbeat.timeout": "600ms", "echo.enabled": "true",
                "shutdown.grace": "5s"}
        with self.subTest(seed=SEED), Hub(sets, shards=2) as hub:
            Chaos(hub, SEED).run(8)
            for gauge, left in (("ringhub_connections", 0), ("ringhub_users", 0),
                                ("ringhub_handshakes_in_progress", 1),  # the one that asks
                                ("ringhub_send_queue_messages", 1)):
                eventually(lambda gauge=gauge, left=left: hub.metric(gauge) <= left, gauge)
            self.assertEqual(hub.metric("ringhub_connections_accepted_total"),
                             hub.metric("ringhub_disconnects_total"))


class Reader(threading.Thread):
    """Only reads, as fast as it can, until `count` messages or the end of the stream came."""

    def __init__(self, hub, user, count):
        super().__init__(daemon=True)
        self.wire, self.count, self.got, self.closed = raw.Wire(hub), count, 0, False
        self.wire.send(upgrade(f"/ws?user_id={user}"))
        self.wire.response()

    def run(self):
        tail = b""
        while self.got < self.count:
            try:
                self.wire.fill()
            except (raw.Closed, TimeoutError):
                self.closed = True
                return
            seen, self.wire.buffer = tail + self.wire.buffer, b""
            self.got += seen.count(b'"event":"message"')
            tail = seen[-16:] if b'"event":"message"' not in seen[-16:] else b""


class Bursts(unittest.TestCase):
    def burst(self, senders, each, stall):
        with Hub(shards=1) as hub:
            reader = Reader(hub, "bob", senders * each)
            reader.start()
            wires = [raw.Wire(hub) for _ in range(senders)]
            for i, wire in enumerate(wires):
                wire.send(upgrade(f"/ws?user_id=s{i}"))
                wire.response()
            if stall:
                hub.process.send_signal(19)  # SIGSTOP: the hub is late, its clients are not
            for wire in wires:
                wire.send(message_send("bob", "x") * each)
            if stall:
                time.sleep(.3)
                hub.process.send_signal(18)
            reader.join(30 * SLOWNESS)
            self.assertEqual((reader.got, reader.closed), (senders * each, False))
            for wire in wires:
                wire.reset()

    def test_a_burst_of_one_sender_never_costs_a_reading_receiver_its_connection(self):
        self.burst(1, 5000, stall=False)

    def test_what_many_sent_while_the_hub_stood_still_never_costs_one_either(self):
        self.burst(100, 50, stall=True)


class Ends(unittest.TestCase):
    def test_answers_are_sent_although_the_client_has_shut_its_side(self):
        with Hub() as hub, raw.Wire(hub) as wire:
            wire.send(upgrade("/ws?user_id=alice"))
            wire.response()
            wire.send(message_send("alice", "to myself", "1") + raw.close_frame(1000))
            wire.sock.shutdown(socket.SHUT_WR)
            seen = b""
            try:
                while True:
                    wire.fill()
            except raw.Closed:
                seen = wire.buffer
            for part in (b'"event":"welcome"', b'"event":"message"', b'"status":"sent"', b"\x88\x02"):
                self.assertIn(part, seen)

    def test_a_drain_finishes_what_is_queued_for_a_slow_reader(self):
        """Goal: what was answered `sent` arrives, if the receiver takes it within the grace.
        Method: 30 messages of 100 KB for one that reads 1 MB a second, then SIGTERM."""
        hub = Hub({"shutdown.grace": "30s", "limits.send_queue_bytes": "16MiB"})
        self.addCleanup(hub.kill)
        bob, alice = raw.Wire(hub, receive_buffer=65536), raw.Wire(hub)
        bob.send(upgrade("/ws?user_id=bob"))
        bob.response()
        alice.send(upgrade("/ws?user_id=alice"))
        alice.response()
        alice.send(message_send("bob", "x" * 100_000, "1") * 30)
        answers = b""
        while answers.count(b'"status":"sent"') < 30:
            alice.fill()
            answers += alice.take(len(alice.buffer))
        hub.process.send_signal(15)
        got = bytearray(bob.take(len(bob.buffer)))
        while more := bob.sock.recv(65536):
            got += more
            time.sleep(len(more) / 1e6)
        self.assertEqual(got.count(b'"event":"message"'), 30)
        self.assertTrue(got.endswith(b"\x03\xe9going away"))
        alice.reset()
        hub.stop(sig=None)


if __name__ == "__main__":
    unittest.main()
