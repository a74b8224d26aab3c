#!/usr/bin/python3
"""More connections than RLIMIT_NOFILE, tables that are nearly full, and both kinds of descriptors.

Direct descriptors are no descriptors of the process: /proc/PID/fd has none of them, and each
shard's table is bound for itself. What a shard does when its table is nearly full is shown with a
limit so low that this process alone can reach it.

EVERY_KIND are files of tests that are run once more, with each kind of descriptors.
"""

import os
import pathlib
import resource
import select
import signal
import socket
import subprocess
import sys
import time
import unittest

import raw
from hub import DEADLINE, Hub, eventually, run_daemon
from test_bench_tool import BENCH

HERE = pathlib.Path(__file__).resolve().parent

LIMIT = 20000  # RLIMIT_NOFILE of the hub
TOOLS = 2
EACH = 11000  # connections of one load tool: together more than LIMIT

EVERY_KIND = {"test_send.py": "", "test_limits.py": "Connections.", "test_slow.py": "",
              "test_drain.py": "", "test_sessions.py": "Resume."}


def log_line(hub, event):
    return next(line for line in hub.log() if line["event"] == event)


class ManyMore(unittest.TestCase):

    def start_tool(self, number, hub):
        """Holds its connections until it is told to end."""
        sources = f"127.0.{number + 1}.1-127.0.{number + 1}.2"
        tool = subprocess.Popen([BENCH, "connect", "--url", hub.url + "/ws", "--connections",
                                 str(EACH), "--source-addresses", sources, "--duration", "600s"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(tool.stderr.close)
        self.addCleanup(tool.wait)
        self.addCleanup(tool.kill)
        return tool

    def test_more_connections_than_descriptors_all_get_a_broadcast(self):
        with Hub(shards=4, descriptors=LIMIT) as hub:
            tools = [self.start_tool(number, hub) for number in range(TOOLS)]

            def joined():
                for tool in tools:
                    self.assertIsNone(tool.poll(), "a load tool ended")
                return hub.metric("ringhub_connections")

            eventually(lambda: joined() == TOOLS * EACH, lambda: f"{joined()} connections",
                       6 * DEADLINE)
            self.assertGreater(TOOLS * EACH, LIMIT)
            self.assertLess(hub.descriptors(), 500)
            self.assertGreater(hub.metric("ringhub_handovers_total"), TOOLS * EACH / 2)
            self.assertEqual(hub.metric("ringhub_connections_refused_total"), 0)
            self.assertEqual(hub.metric("ringhub_connections_limit"),
                             log_line(hub, "limits.computed")["connections"])
            before = hub.metric("ringhub_messages_delivered_total")
            with raw.Wire(hub) as admin:
                admin.upgrade("/ws?user_id=admin&role=admin")
                admin.send(raw.frame(raw.TEXT, b'{"type":"request","event":"broadcast",'
                                     b'"request_id":"1","data":{"content":"hello all"}}'))
                eventually(lambda: hub.metric("ringhub_messages_delivered_total")
                           >= before + TOOLS * EACH + 1, "not all got it", 3 * DEADLINE)
            for tool in tools:
                self.assertIsNone(tool.poll(), "a load tool ended")
                tool.kill()
            eventually(lambda: hub.metric("ringhub_connections") == 0, "not all went",
                       3 * DEADLINE)
            self.assertLess(hub.descriptors(), 500)


class Knockers:
    """Clients that asked to be let in at once; what each has heard so far."""

    def __init__(self, hub, count):
        self.socks, self.heard, self.ended = {}, {}, set()
        for number in range(count):
            self.add(hub, f"/ws?user_id=k{number}")

    def add(self, hub, path):
        sock = socket.create_connection((hub.host, hub.port), timeout=DEADLINE)
        sock.sendall(raw.upgrade(path))
        self.socks[sock.fileno()] = sock
        self.heard[sock.fileno()] = b""

    def look(self):
        """Reads what has come, without waiting."""
        ready = select.poll()
        for fd in self.socks.keys() - self.ended:
            ready.register(fd, select.POLLIN)
        for fd, _ in ready.poll(0):
            more = self.socks[fd].recv(1 << 16)  # a reset is an error
            self.heard[fd] += more
            if not more:
                self.ended.add(fd)

    def count(self, status):
        self.look()
        return sum(f"HTTP/1.1 {status}".encode() in self.heard[fd] for fd in self.socks)

    def drop(self, fd):
        del self.heard[fd]
        self.ended.discard(fd)
        self.socks.pop(fd).close()

    def close(self):
        for fd in list(self.socks):
            self.drop(fd)


class NearlyFull(unittest.TestCase):
    """2 shards with 200 slots each, of which 64 are kept: room for 272."""

    COUNT = 420

    def start(self):
        hub = Hub({"limits.handshake_timeout": "60s"}, shards=2, descriptors=200)
        self.addCleanup(hub.kill)
        self.assertEqual(log_line(hub, "limits.computed")["connections"], 272)
        knockers = Knockers(hub, self.COUNT)
        self.addCleanup(knockers.close)
        eventually(lambda: self.settled(knockers), "it does not come to rest")
        return hub, knockers

    def settled(self, knockers):
        """Nobody has heard anything new for a while."""
        before = knockers.count(101), knockers.count(503)
        time.sleep(0.3)
        return before == (knockers.count(101), knockers.count(503)) and before[0] > 100

    def test_who_finds_no_place_waits_or_hears_503(self):
        hub, knockers = self.start()
        welcomed, refused = knockers.count(101), knockers.count(503)
        self.assertLessEqual(welcomed, 272)
        self.assertGreater(welcomed, 150)
        self.assertLess(welcomed + refused, self.COUNT)  # the others wait
        for fd in knockers.ended:
            self.assertIn(b" 503 ", knockers.heard[fd], "closed without a word")
        knockers.close()
        hub.stop()

    def test_nobody_spins_meanwhile(self):
        hub, knockers = self.start()
        before = self.cpu_ms(hub)
        time.sleep(2)
        self.assertLess(self.cpu_ms(hub) - before, 1000)
        knockers.close()
        hub.stop()

    def cpu_ms(self, hub):
        """A spinning thread has all of it. (There is no slot for asking the hub itself.)"""
        fields = pathlib.Path(f"/proc/{hub.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * 10

    def test_when_some_leave_others_are_served(self):
        hub, knockers = self.start()
        turns = 0
        while knockers.count(101) + knockers.count(503) < len(knockers.socks):
            turns += 1
            self.assertLess(turns, 100)
            before = knockers.count(101) + knockers.count(503)
            # all who have heard: hand-overs may have filled a table far above the mark at which its
            # shard accepts again, so some of them would not always do
            gone = [fd for fd in knockers.socks if knockers.heard[fd]]
            for fd in gone:
                knockers.drop(fd)
            eventually(lambda: knockers.count(101) + knockers.count(503) > before - len(gone),
                       "nobody else is served")
        for fd in list(knockers.socks):
            knockers.drop(fd)
        with raw.Wire(hub) as wire:
            wire.upgrade("/ws?user_id=late")
        eventually(lambda: hub.metric("ringhub_connections") == 0, "not all went")
        self.assertEqual(hub.metric("ringhub_accepts_paused"), 0)
        hub.stop()


class Starts(unittest.TestCase):

    def test_direct_ones_that_cannot_be_had_are_explained(self):
        done = run_daemon("--listen", "127.0.0.1:0", "--set", "io.descriptors=direct",
                          before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90)))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("io.descriptors: direct needs an RLIMIT_NOFILE of at least 96", done.stderr)

    def test_ordinary_ones_are_descriptors_of_the_process(self):
        for kind, many in (("ordinary", True), ("direct", False)):
            with self.subTest(kind), Hub({"io.descriptors": kind}) as hub:
                before = hub.descriptors()
                wires = [raw.Wire(hub) for _ in range(50)]
                for number, wire in enumerate(wires):
                    wire.upgrade(f"/ws?user_id=w{number}")
                self.assertEqual(hub.descriptors() - before >= 50, many)
                for wire in wires:
                    wire.sock.close()

    def test_a_limit_that_is_set_is_the_limit_and_one_out_of_reach_is_told(self):
        with Hub({"limits.connections": 10}) as hub:
            self.assertNotIn("limits.", hub.log_text())
            eventually(lambda: hub.metric("ringhub_connections_limit") == 10, "the gauge")
        with Hub({"limits.connections": 1000, "io.descriptors": "ordinary"},
                 descriptors=500) as hub:
            line = log_line(hub, "limits.unreachable")
            self.assertEqual(line["connections"], 1000)
            self.assertLess(line["reachable"], 500)
            self.assertIn("RLIMIT_NOFILE", line["hint"])

    def test_a_limit_that_is_taken_away_leaves_what_there_is_room_for(self):
        with Hub(config="limits: {connections: 10}\n", descriptors=500) as hub:
            eventually(lambda: hub.metric("ringhub_connections_limit") == 10, "the gauge")
            hub.write_config("limits: {connections: 0}\n")
            hub.process.send_signal(signal.SIGHUP)
            eventually(lambda: hub.metric("ringhub_connections_limit") != 10, "the gauge")
            self.assertGreater(hub.metric("ringhub_connections_limit"), 10)
            self.assertLess(hub.metric("ringhub_connections_limit"), 500)


class EveryKind(unittest.TestCase):
    """Tests of others once more, on ordinary and on direct descriptors."""

    def run_with(self, kind):
        for name, text in EVERY_KIND.items():
            with self.subTest(name):
                env = {**os.environ, "E2E_SETS": f"io.descriptors={kind}", "T": text}
                done = subprocess.run([sys.executable, "-B", HERE / "run.py", HERE / name],
                                      env=env, capture_output=True, text=True,
                                      timeout=20 * DEADLINE)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotIn("Checks: 0", done.stdout)

    def test_ordinary(self):
        self.run_with("ordinary")

    def test_direct(self):
        self.run_with("direct")
