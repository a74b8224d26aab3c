#!/usr/bin/python3
"""Connections that are silent for long are parked: nobody may notice.

A ping every 200 ms; who has said nothing between two of them is parked. The gauge
ringhub_connections_parked shows it. Wires of raw.py answer pings only when they are told to.
"""

import json
import select
import threading
import unittest

import raw
from hub import HubCase, eventually

PARKED = "ringhub_connections_parked"


class Ponging(raw.Wire):
    """Answers pings by itself while nothing else is done with it."""

    def __init__(self, hub, path):
        super().__init__(hub)
        self.upgrade(path)
        self.lock = threading.Lock()
        self.kept = []
        self.pongs = 0
        self.ended = False
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stop.is_set() and not self.ended:
            if not self.buffer and not select.select([self.sock], [], [], 0.02)[0]:
                continue
            with self.lock:
                try:
                    got = self.frame()
                except raw.Closed:
                    self.ended = True
                    continue
                if got[0] == raw.PING:
                    self.sock.sendall(raw.frame(raw.PONG, got[1]))
                    self.pongs += 1
                else:
                    self.kept.append(got)

    def say(self, data):
        with self.lock:
            self.sock.sendall(data)

    def end(self):
        self.stop.set()
        self.thread.join()


class Parked(HubCase):

    options = {"echo.enabled": "true", "heartbeat.interval": "200ms", "heartbeat.timeout": "60s",
               "resume.window": "0"}

    def parked(self):
        return self.hub.metric(PARKED)

    def setUp(self):
        super().setUp()
        eventually(lambda: self.hub.metric("ringhub_connections") == 0, "others are gone")
        self.assertEqual(self.parked(), 0)

    def wire(self, path):
        wire = Ponging(self.hub, path)
        self.addCleanup(wire.sock.close)
        self.addCleanup(wire.end)
        return wire

    def silent(self, path):
        wire = self.wire(path)
        eventually(lambda: self.parked() == 1, "it is parked")
        return wire

    def await_kept(self, wire, count):
        eventually(lambda: len(wire.kept) >= count, lambda: f"{count} frames: {wire.kept}")
        return [payload for _, payload, *_ in wire.kept[-count:]]

    def test_pongs_do_not_end_it(self):
        wire = self.silent("/ws?user_id=quiet")
        before = wire.pongs
        eventually(lambda: wire.pongs >= before + 4, "it is pinged on")
        self.assertEqual(self.parked(), 1)

    def test_a_message_ends_it_and_is_answered(self):
        for path in ("/ws?user_id=speaker", "/echo"):
            with self.subTest(path):
                wire = self.silent(path)
                count = len(wire.kept)
                text = json.dumps({"type": "request", "event": "message.send", "request_id": "7",
                                   "data": {"to": "nobody", "content": "x"}}).encode()
                wire.say(raw.frame(raw.TEXT, text))
                eventually(lambda: len(wire.kept) > count, "an answer")
                eventually(lambda: wire.say(raw.frame(raw.TEXT, text)) or self.parked() == 0,
                           "while it speaks it is not parked")
                eventually(lambda: self.parked() == 1, "it is parked again")
                wire.end()
                wire.sock.close()
                eventually(lambda: self.hub.metric("ringhub_connections") == 0, "it is gone")

    def test_a_message_in_many_pieces_arrives_whole(self):
        wire = self.silent("/echo")
        text = b"".join(b"%07d " % number for number in range(20000))
        whole = raw.frame(raw.TEXT, text)
        with wire.lock:  # a pong between two pieces would be a part of the frame
            for start in range(0, len(whole), 7001):
                wire.sock.sendall(whole[start:start + 7001])
        self.assertEqual(self.await_kept(wire, 1), [text])

    def test_a_ping_of_the_client_is_answered_and_it_stays_parked(self):
        wire = self.silent("/echo")
        for number in range(20):
            wire.say(raw.frame(raw.PING, b"%d" % number))
        self.assertEqual(self.await_kept(wire, 20), [b"%d" % number for number in range(20)])
        self.assertEqual(self.parked(), 1)

    def test_messages_reach_it(self):
        wire = self.silent("/ws?user_id=listener")
        count = len(wire.kept)
        with raw.Wire(self.hub) as sender:
            sender.upgrade("/ws?user_id=sender")
            for number in range(30):
                sender.send(raw.frame(raw.TEXT, json.dumps(
                    {"type": "request", "event": "message.send",
                     "data": {"to": "listener", "content": number}}).encode()))
            self.await_kept(wire, count + 30)
        got = [json.loads(payload)["data"].get("content") for _, payload, *_ in wire.kept[count:]]
        self.assertEqual(got, list(range(30)))

    def test_its_end_is_seen(self):
        for way in ("end of stream", "reset", "close frame"):
            with self.subTest(way):
                wire = self.silent("/ws?user_id=leaver")
                if way == "close frame":
                    wire.say(raw.close_frame(1000))
                    eventually(lambda: wire.kept and wire.kept[-1][0] == raw.CLOSE, "its answer")
                wire.end()
                (wire.reset if way == "reset" else wire.sock.close)()
                eventually(lambda: self.hub.metric("ringhub_connections") == 0, "it is seen")
                eventually(lambda: self.parked() == 0, "it is not counted any more")

    def test_who_is_never_heard_is_closed_all_the_same(self):
        with raw.Wire(self.hub) as wire:
            wire.upgrade("/echo")
            eventually(lambda: self.parked() == 1, "it is parked")
            wire.send(raw.frame(raw.TEXT, b"first") + raw.close_frame(1000))
            self.assertEqual(wire.message().payload, b"first")

    def test_one_that_is_not_read_is_not_parked(self):
        """It asks for more than it takes: paused. What it sent is not lost."""
        with raw.Wire(self.hub, receive_buffer=4096) as wire:
            wire.upgrade("/echo")
            block = raw.frame(raw.BINARY, b"x" * 60000)
            sent = 0
            wire.sock.settimeout(1)
            try:
                while True:
                    wire.send(block)
                    sent += 1
                    self.assertLess(sent, 2000)
            except TimeoutError:
                pass
            eventually(lambda: self.hub.metric("ringhub_connections_paused") == 1, "it is paused")
            pings = self.hub.metric("ringhub_heartbeat_pings_total")
            eventually(lambda: self.hub.metric("ringhub_heartbeat_pings_total") >= pings + 4,
                       "heartbeats go on")
            self.assertEqual(self.parked(), 0)
            wire.sock.settimeout(20)
            for _ in range(sent):
                self.assertEqual(len(wire.message().payload), 60000)
