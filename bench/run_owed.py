#!/usr/bin/python3
"""bench/run_owed.py - what it costs to owe much: memory, deadlines, and users who are away.

flight    Mode ack with receivers who never acknowledge, 1,000 messages to each of --users users,
          ack.timeout at an hour. While they accumulate the hub's memory is read; bytes of a message
          are what grew from a tenth of them to all, resident and as the allocator counts it, less
          its payload.
deadlines As many in flight, and every one comes again each ack.timeout (backoff_factor 1): in
          flight / ack.timeout deadlines a second. Beside that pings at a fixed rate on 16
          connections, so on every shard: their longest answer, beside those of a hub that owes
          nothing. It also tells how many repetitions a second there were.
offline   --away users get --each messages while they are not connected; when all are answered,
          the hub is stopped and started on the same store. Told are the time until readyz, and for
          users who then connect one after another the time from the connection to the last message.

Method  Hub on core 0, load tool and clients on core 1, a fresh hub for each part. Memory and pings
        are of one run: repeat it.

Usage: run_owed.py [flight] [deadlines] [offline] [--users 1000] [--rate 50000] [--size 64]
                   [--timeout 5] [--deadlines 500000] [--away 100000] [--each 10] [--visits 1000]
                   [--shards 2] [--durability commit]
"""
import argparse
import itertools
import json
import os
import pathlib
import selectors
import shutil
import socket
import time
import urllib.error
import urllib.request

import runs

PARTS = ("flight", "deadlines", "offline")
EACH_MAX = 1000  # ack.max_unacked, offline.max_messages
SENDERS, WINDOW = 8, 2000  # offline: connections that send, and how much each has unanswered


def memory(server):
    """Resident bytes, and those that the allocator has handed out."""
    pages = pathlib.Path(f"/proc/{server.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE"), server.metric("ringhub_memory_bytes")


def hub(args, *sets, store=None):
    return runs.ringhubd("0", args.shards, f"store.durability={args.durability}",
                         "store.backlog_bytes=8GiB", *sets, store=store)


def in_flight(server):
    return server.metric("ringhub_unacked_messages")


def owing(server, args, messages):
    """Mode ack with receivers who are silent, going on until it is finished early."""
    return runs.Load("1", server, "ack", "/ws", "--connections", messages // EACH_MAX, "--rate",
                     args.rate, "--size", args.size, "--silent-share", "1", "--warmup", "0ms",
                     "--duration", f"{messages / args.rate:.3f}s", "--drain", "1h",
                     "--ack-timeout", "1h")


# ---- in flight ----

def flight(args):
    messages = args.users * EACH_MAX
    with hub(args, "ack.timeout=1h", "ack.max_delay=1h") as server:
        with owing(server, args, messages) as load:
            server.wait_until(lambda s: in_flight(s) >= messages / 10, "a tenth is in flight", 600)
            first, before = in_flight(server), memory(server)
            server.wait_until(lambda s: in_flight(s) >= messages, "all are in flight", 600)
            count, after = in_flight(server) - first, memory(server)
            load.finish(early=True)
    print(f"flight: {messages} messages of {args.size} bytes in flight to {args.users} users")
    for name, a, b in zip(("resident", "allocator"), before, after):
        print(f"  {name:10} {b / 1e6:9.1f} MB in all, {(b - a) / count:7.1f} bytes a message, "
              f"{(b - a) / count - args.size:7.1f} besides the payload")


# ---- deadlines ----

def pings(server, seconds):
    return runs.load("1", server, "mixed", "/ws", "--mix", "ping=1", "--connections", 16,
                     "--rate", 2000, "--duration", f"{seconds}s", "--warmup", "0ms")


def tell_pings(words, figures):
    found = figures["latency"]
    print(f"  pings {words:22} p50 {found['p50'] / 1e6:.3f} ms   p99 {found['p99'] / 1e6:.3f} ms   "
          f"p99.9 {found['p99.9'] / 1e6:.3f} ms   longest {found['max'] / 1e6:.3f} ms")


def deadlines(args):
    print(f"deadlines: {args.deadlines} in flight, each comes again after {args.timeout} s")
    with hub(args, f"ack.timeout={args.timeout}s", "ack.backoff_factor=1", "ack.max_retries=100",
             f"ack.max_delay={args.timeout}s") as server:
        tell_pings("of a hub without them", pings(server, 10))
        with owing(server, args, args.deadlines) as load:
            server.wait_until(lambda s: in_flight(s) >= args.deadlines, "all are in flight", 600)
            time.sleep(args.timeout)
            before, began = server.metric("ringhub_retries_total"), time.monotonic()
            found = pings(server, 2 * args.timeout)
            rate = ((server.metric("ringhub_retries_total") - before)
                    / (time.monotonic() - began))
            load.finish(early=True)
    tell_pings("beside them", found)
    print(f"  {rate:.0f} repetitions a second")


# ---- offline ----

class Client:
    """A user over a blocking socket; frames are masked with the key 0."""

    def __init__(self, server, user):
        host, port = server.address.split(":")
        self.began = time.perf_counter()
        self.sock = socket.create_connection((host, int(port)), 60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall((f"GET /ws?user_id={user} HTTP/1.1\r\nHost: {server.address}\r\n"
                           "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Version: 13\r\n"
                           "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").encode())
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self.data += self.read()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        if b" 101 " not in head:
            raise SystemExit(f"no connection: {head}")

    def read(self):
        data = self.sock.recv(1 << 18)
        if not data:
            raise SystemExit("the hub has closed a connection")
        return data

    def texts(self):
        """Those that are whole by now."""
        at = 0
        found = []
        while len(self.data) - at >= 2:
            length, head = self.data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(self.data[at + 2:at + 4], "big"), 4
            if len(self.data) - at < head + length:
                break
            found.append(self.data[at + head:at + head + length])
            at += head + length
        self.data = self.data[at:]
        return found

    def close(self):
        self.sock.close()


def frame(text):
    data = text.encode()
    length = bytes([128 + len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + data


def requests(args, first):
    """What one of the senders sends: a message to each of its users in turn, then the next round.
    A user's messages are of one sender, as their order is promised then."""
    for k in range(args.each):
        for user in range(first, args.away, SENDERS):
            yield frame(json.dumps(
                {"type": "request", "event": "message.send", "request_id": f"{user}-{k}",
                 "data": {"to": f"away-{user}", "ack": True, "id": f"m-{user}-{k}",
                          "content": "x" * args.size}}, separators=(",", ":")))


class Sender(Client):
    """Keeps WINDOW requests unanswered."""

    def __init__(self, server, args, number):
        super().__init__(server, f"sender-{number}")
        self.left = requests(args, number)
        self.unanswered = 0

    def send(self):
        if self.unanswered <= WINDOW // 2:
            more = list(itertools.islice(self.left, WINDOW - self.unanswered))
            self.sock.sendall(b"".join(more))
            self.unanswered += len(more)

    def receive(self):
        """How many were answered; any answer but `stored` ends the run."""
        before = self.unanswered
        self.data += self.read()
        for text in self.texts():
            if b'"type":"error"' in text or (b'"type":"response"' in text
                                             and b'"stored"' not in text):
                raise SystemExit(f"not stored: {text}")
            self.unanswered -= b'"type":"response"' in text
        return before - self.unanswered


def fill(args, server):
    """Sends all of them; seconds until the last answer."""
    senders = [Sender(server, args, i) for i in range(SENDERS)]
    left = args.away * args.each
    began = time.monotonic()
    with selectors.DefaultSelector() as ready:
        for sender in senders:
            ready.register(sender.sock, selectors.EVENT_READ, sender)
        while left > 0:
            for sender in senders:
                sender.send()
            for key, _ in ready.select(60):
                left -= key.data.receive()
    for sender in senders:
        sender.close()
    return time.monotonic() - began


def wait_until_ready(server, seconds=600):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://{server.address}/readyz", timeout=10):
                return
        except urllib.error.URLError:
            time.sleep(0.005)
    raise SystemExit(f"not ready after {seconds} s")


def visit(args, server, user):
    """Connects, and acknowledges; seconds from connect() to the last message that is owed."""
    client = Client(server, f"away-{user}")
    names = []
    while len(names) < args.each:
        for text in client.texts():
            message = json.loads(text)
            if message["type"] == "notify" and message["event"] == "message":
                names.append(message["data"]["id"])
        if len(names) < args.each:
            client.data += client.read()
    took = time.perf_counter() - client.began
    if names != [f"m-{user}-{k}" for k in range(args.each)]:
        raise SystemExit(f"away-{user} got {names}")
    client.sock.sendall(frame(json.dumps({"type": "ack", "data": {"ids": names}})))
    client.close()
    return took


def offline(args):
    store = runs.make_store()
    total = args.away * args.each
    try:
        with hub(args, f"offline.max_total={2 * total}", store=store) as server:
            seconds = fill(args, server)
            print(f"offline: {args.away} users, {args.each} messages of {args.size} bytes each: "
                  f"kept at {total / seconds:.0f}/s")
        began = time.monotonic()
        with hub(args, f"offline.max_total={2 * total}", store=store) as server:
            wait_until_ready(server)
            seconds = time.monotonic() - began
            kept = server.metric("ringhub_offline_messages")
            print(f"  ready {seconds:.3f} s after its start, with {kept:.0f} messages: "
                  f"{kept / seconds:.0f}/s")
            step = max(1, args.away // args.visits)
            times = sorted(visit(args, server, user) for user in range(0, args.away, step))
    finally:
        shutil.rmtree(store, ignore_errors=True)
    at = {share: times[min(len(times) - 1, int(share * len(times)))] * 1000
          for share in (0.5, 0.99)}
    print(f"  {len(times)} users came: all {args.each} were there after p50 {at[0.5]:.2f} ms, p99 "
          f"{at[0.99]:.2f} ms, {times[-1] * 1000:.2f} ms at most")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=50000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--timeout", type=int, default=5)
    parser.add_argument("--deadlines", type=int, default=500000)
    parser.add_argument("--away", type=int, default=100000)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--visits", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--durability", default="commit", choices=("commit", "memory"))
    args = parser.parse_args()
    os.sched_setaffinity(0, {1})
    print(runs.machine())
    for part in args.parts or PARTS:
        globals()[part](args)


if __name__ == "__main__":
    main()
