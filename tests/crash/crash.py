#!/usr/bin/python3 -B
"""tests/crash/crash.py - kill the hub again and again, and hold it to what it promised.

usage: tests/crash/crash.py [--rounds 20] [--seed N] [--verbose]        (make crash ROUNDS=20)

Each round starts ringhubd on the store that the round before left, with another number of shards,
lets clients of every kind loose on it, and kills it with SIGKILL at a random moment. Between two
rounds the unwritten tail of the journal is sometimes made worse, as a torn write would: garbage,
half a batch, a cut file. The last round is not killed: everybody connects and acknowledges.

  ready    acknowledges at once           silent  never acknowledges, until the last round
  comer    comes and goes, and acknowledges sometimes
  absent   is not connected until the last round

Senders send acknowledged and plain messages to all of these, and publish into rooms in which ready,
silent and comers are. An id counts as accepted when its answer was read. Checked, by id:

  - every accepted message has reached each user whom it was owed to, or has ended in a state of
    which the sender was told;
  - nobody gets what is another's, content and sequence number stay what they were;
  - within a run no attempt comes twice to a user;
  - across a kill an attempt comes again only if its message had not been answered, or if it had been
    sent less than SETTLE seconds before the kill (deliveries are committed within 100 ms);
  - what was acknowledged and whose sender was told so does not come again;
  - at the end nothing is owed to anybody (gauges are zero), and the journal is whole.
"""

import argparse
import asyncio
import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import websockets  # noqa: E402

from clients import path  # noqa: E402
from hub import ROOT, SLOWNESS, VARIANT, Hub  # noqa: E402

TOOL = ROOT / "build" / VARIANT / "ringhub-journal"
BATCH = re.compile(r"^ *batch \d+ at byte (\d+), \d+ events, (\d+) bytes", re.MULTILINE)
SETTLE = 1.0 * SLOWNESS  # a delivery is committed within 100 ms; the rest is this machine's noise
ROOMS = ("den", "hall")
KINDS = {"ready": 4, "silent": 3, "comer": 4, "absent": 3}
SENDERS = 4
SETTINGS = {
    "ack.timeout": "300ms", "ack.max_delay": "600ms", "ack.max_retries": "2",
    "resume.window": "10m", "limits.slow_consumer": "drop_oldest",
    "offline.max_messages": "100000", "log.level": "info",
}


@dataclasses.dataclass
class Sent:
    """One message, by its id."""
    id: str
    sender: str
    to: tuple  # users whom it is owed to for certain
    room: str | None
    ack: bool
    run: int
    at: float
    answered: float | None = None  # when its answer was read
    status: str | None = None      # end state that the sender was told ...
    status_run: int = 0            # ... in that run
    seq: int | None = None


class Failure(AssertionError):
    """The hub broke a promise."""


def check(truth, text):
    if not truth:
        raise Failure(text)


class Books:
    """What was sent, what came: the plain truth to hold the hub to."""

    def __init__(self):
        self.sent = {}
        self.came = collections.defaultdict(list)    # (user, id): [(run, attempt, at)]
        self.acked = {}                              # (user, id): when it was acknowledged
        self.killed = {}                             # run: when
        self.run = 0
        self.number = 0

    def new(self, sender, to, room, ack):
        self.number += 1
        sent = Sent(f"m{self.number}", sender, to, room, ack, self.run, time.monotonic())
        self.sent[sent.id] = sent
        return sent

    def deliver(self, user, data):
        """A message has come to a user; its fields are checked against all that is known."""
        sent = self.sent.get(data["id"])
        check(sent, f"{user} got {data['id']}, which nobody sent")
        now = time.monotonic()
        check(data["content"] == {"id": sent.id, "for": sent.room or sent.to[0]},
              f"{user} got {data['content']} as {sent.id}")
        check(sent.room or user == sent.to[0], f"{user} got {sent.id}, which is for {sent.to}")
        check(data["from"] == sent.sender, f"{sent.id} is from {sent.sender}, not {data['from']}")
        check(sent.room == data.get("room"), f"{sent.id} came in room {data.get('room')}")
        check(sent.seq is None or data["seq"] == sent.seq, f"{sent.id} has another seq")
        sent.seq = data["seq"]
        if user == sent.sender:  # a publisher's own copy is owed to nobody
            check(data["ack"] is False, f"{user} is asked to acknowledge its own {sent.id}")
            return False
        check(data["ack"] is sent.ack, f"{sent.id} asks otherwise than its sender")
        self.check_attempt(sent, user, data["attempt"], now)
        self.came[user, sent.id].append((self.run, data["attempt"], now))
        return sent.ack

    def check_attempt(self, sent, user, attempt, now):
        check(not sent.status or sent.status_run == self.run,
              f"{user} got {sent.id}, which had ended as {sent.status} in run {sent.status_run}")
        for run, earlier, at in self.came[user, sent.id]:
            if run == self.run:
                check(attempt > earlier,
                      f"{user} got {sent.id} as attempt {attempt} behind {earlier}, in one run")
            elif sent.ack and attempt <= earlier:
                killed = self.killed[run]
                answered = sent.answered is not None and sent.answered < killed - SETTLE
                check(not answered or at > killed - SETTLE,
                      f"{user} got {sent.id} as attempt {attempt} again, {killed - at:.3f} s after "
                      f"attempt {earlier} there was a kill")

    def tell(self, sender, data):
        """message.status has come to a sender."""
        sent = self.sent.get(data["id"])
        check(sent and sent.sender == sender, f"{sender} was told of {data}")
        if data["status"] in ("success", "failed", "ack_timeout", "expired"):
            check(sent.answered is not None or sent.run != self.run,
                  f"{sent.id} ended before it was answered")
            check(sent.status in (None, data["status"]),
                  f"{sent.id} ended as {sent.status} and as {data['status']}")
            if sent.status is None:
                sent.status, sent.status_run = data["status"], self.run
            if data["status"] == "success":
                for user in sent.to:
                    check((user, sent.id) in self.acked, f"{sent.id}: nobody acknowledged as {user}")

    def missing(self):
        """Accepted messages that have neither come nor ended."""
        return [f"{s.id} ({'room ' + s.room if s.room else 'direct'}, {'ack' if s.ack else 'plain'}, "
                f"run {s.run}, answered {s.answered - s.at:.3f} s after it was sent) to {user}"
                for s in self.sent.values() if s.answered is not None
                for user in s.to if not self.came[user, s.id] and s.status in (None, "success")]


class User:
    """One user with at most one connection."""

    def __init__(self, books, name, kind):
        self.books, self.name, self.kind = books, name, kind
        self.socket = self.reader = None
        self.rooms = set()    # whose join was answered in this run
        self.answers = {}     # request_id: what to do with its answer
        self.acks = True

    async def connect(self, hub):
        query = {"rooms": ",".join(ROOMS)} if self.kind != "absent" else {}
        self.socket = await websockets.connect(hub.url + path(self.name, **query), max_size=None,
                                               max_queue=None, ping_interval=None, open_timeout=20,
                                               close_timeout=5)
        self.reader = asyncio.create_task(self.read(self.socket))

    async def read(self, socket):
        try:
            async for text in socket:
                await self.take(socket, json.loads(text))
        except websockets.ConnectionClosed:
            pass

    async def take(self, socket, got):
        event, data = got.get("event"), got.get("data")
        if got["type"] != "notify":
            self.answers.pop(got["request_id"])(got)
        elif event in ("message", "room.message"):
            if self.books.deliver(self.name, data) and self.willing():
                self.books.acked[self.name, data["id"]] = time.monotonic()
                await socket.send(json.dumps({"type": "ack", "data": {"id": data["id"]}}))
        elif event == "message.status":
            self.books.tell(self.name, data)
        elif event == "room.subscribed" and "code" not in data:
            self.rooms.add(data["room"])
        else:
            check(event != "messages.lost" or data.get("room"), f"{self.name} was told {got}")

    def willing(self):
        return self.acks and (self.kind != "comer" or random.random() < 0.7)

    async def ask(self, event, data, then):
        request_id = data["id"]
        self.answers[request_id] = then
        await self.socket.send(json.dumps({"type": "request", "event": event,
                                           "request_id": request_id, "data": data}))

    async def leave(self, politely):
        if not self.socket:
            return
        if politely:
            await self.socket.close(1001)
        else:
            self.socket.transport.abort()
        await asyncio.wait([self.reader])  # it goes on if we are cancelled
        self.reader.result()
        self.socket = None


class Round:
    """One life of the hub."""

    def __init__(self, books, users, store, rng, last):
        self.books, self.users, self.store, self.rng, self.last = books, users, store, rng, last
        self.tasks = []

    async def live(self):
        settings = {**SETTINGS, "store.path": self.store}
        hub = await asyncio.to_thread(lambda: Hub(settings, shards=self.rng.randint(1, 4)))
        try:
            await self.ready(hub)
            await self.open(hub)
            await (self.finish(hub) if self.last else self.work(hub))
        except BaseException:
            sys.stderr.write(hub.log_text()[-4000:])
            raise
        finally:
            await self.close(hub)

    async def ready(self, hub):
        end = time.monotonic() + 60 * SLOWNESS
        while True:
            try:
                return await asyncio.to_thread(hub.get, "/readyz")
            except OSError:
                check(time.monotonic() < end, "the hub does not get ready:\n" + hub.log_text())
                await asyncio.sleep(0.02)

    async def open(self, hub):
        for user in self.users:
            user.rooms.clear()
            user.answers.clear()
            user.acks = self.last or user.kind != "silent"
            if self.last or user.kind in ("ready", "silent", "sender") or \
                    (user.kind == "comer" and self.rng.random() < 0.5):
                await user.connect(hub)

    async def work(self, hub):
        seconds = self.rng.uniform(0.2, 2.5) * min(SLOWNESS, 3)
        self.tasks = [asyncio.create_task(self.send(user)) for user in self.users
                      if user.kind == "sender"]
        self.tasks += [asyncio.create_task(self.come_and_go(hub, user)) for user in self.users
                       if user.kind == "comer"]
        done, _ = await asyncio.wait(self.tasks + [u.reader for u in self.users if u.reader],
                                     timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        os.kill(hub.pid, signal.SIGKILL)
        self.books.killed[self.books.run] = time.monotonic()
        for task in done:
            if task.exception() and not isinstance(task.exception(), websockets.ConnectionClosed):
                raise task.exception()

    async def send(self, user):
        """One message after the other, without waiting for answers."""
        others = [u for u in self.users if u.kind != "sender"]
        while True:
            ack = self.rng.random() < 0.7
            if self.rng.random() < 0.3 and user.rooms:
                room = self.rng.choice(sorted(user.rooms))
                owed = tuple(u.name for u in self.users if room in u.rooms and u is not user) \
                    if ack else ()
                sent = self.books.new(user.name, owed, room, ack)
                target = {"room": room, "content": {"id": sent.id, "for": room}}
            else:
                to = self.rng.choice(others)
                # who is connected may miss a plain message that is on its way when it goes
                sent = self.books.new(user.name, (to.name,), None, ack)
                target = {"to": to.name, "content": {"id": sent.id, "for": to.name}}
            await user.ask("room.publish" if sent.room else "message.send",
                           {**target, "id": sent.id, "ack": ack}, self.answer_of(sent))
            await asyncio.sleep(self.rng.expovariate(150))

    @staticmethod
    def answer_of(sent):
        def then(got):
            check(got["type"] == "response", f"{sent.id} was refused: {got}")
            data = got["data"]
            check(data["id"] == sent.id, f"{sent.id} was answered as {data}")
            if sent.ack and sent.room:
                check(data["recipients"] >= len(sent.to), f"{sent.id} is owed to {data}")
            if sent.ack or data.get("status") == "stored":
                sent.answered = time.monotonic()
        return then

    async def come_and_go(self, hub, user):
        while True:
            await asyncio.sleep(self.rng.uniform(0.02, 0.5))
            if user.socket:
                await user.leave(self.rng.random() < 0.5)
            else:
                await user.connect(hub)

    async def finish(self, hub):
        """Everybody is there and acknowledges: all that is owed has to come, and to end."""
        end = time.monotonic() + 60 * SLOWNESS
        while True:
            for user in self.users:
                if user.reader.done():
                    user.reader.result()
            metrics = await asyncio.to_thread(hub.metrics)
            owed = sum(metrics[name] for name in ("ringhub_unacked_messages",
                                                  "ringhub_offline_messages",
                                                  "ringhub_store_messages"))
            if not owed and not self.books.missing():
                break
            check(time.monotonic() < end, f"{owed} still owed, lost: {self.books.missing()[:5]} "
                                          f"of {len(self.books.missing())}")
            await asyncio.sleep(0.1)
        for user in self.users:
            await user.leave(True)
        await asyncio.to_thread(hub.stop)

    async def close(self, hub):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.to_thread(hub.kill)
        for user in self.users:
            if user.socket:
                await asyncio.wait([user.reader], timeout=30 * SLOWNESS)
                check(user.reader.done(), f"{user.name} still reads")
                user.reader.result()
                user.socket = None


def journal(*args):
    """ringhub-journal's exit status and output."""
    done = subprocess.run([str(TOOL), *map(str, args)], capture_output=True, text=True,
                          timeout=60 * SLOWNESS)
    return done.returncode, done.stdout + done.stderr


def batches(segment):
    """(offset, bytes) of the valid batches of a segment, by the tool."""
    _, text = journal("print", segment)
    return [(int(at), int(size)) for at, size in BATCH.findall(text)]


def tear(store, rng):
    """Makes the tail of the newest segment look as a torn write leaves it; what is valid stays."""
    segments = sorted(pathlib.Path(store).glob("journal-*"))
    rows = [(s, batches(s)) for s in segments]
    rows = [(s, found) for s, found in rows if found]
    if not rows:
        return "nothing"
    segment, found = rows[-1]
    end = found[-1][0] + found[-1][1]
    old = segment.read_bytes()
    at, size = found[-1]
    how = rng.choice(("garbage", "half a batch", "flipped batch", "cut", "zeroes"))
    if how == "cut":
        os.truncate(segment, end)
        return how
    tail = {"garbage": rng.randbytes(rng.randint(1, 5000)), "zeroes": bytes(4096),
            "half a batch": old[at:at + max(1, size // 2)],
            "flipped batch": bytes(b ^ (1 << rng.randrange(8)) if i == size // 2 else b
                                   for i, b in enumerate(old[at:at + size]))}[how]
    with open(segment, "r+b") as file:
        file.seek(end)
        file.write(tail)
    return how


async def crash(rounds, seed, verbose=False):
    """Raises Failure with the seed in it; returns the books."""
    rng = random.Random(seed)
    random.seed(seed)
    books = Books()
    users = [User(books, f"{kind}{i}", kind) for kind, count in KINDS.items() for i in range(count)]
    users += [User(books, f"sender{i}", "sender") for i in range(SENDERS)]
    base = tempfile.mkdtemp(prefix="ringhub-crash-")
    store = os.path.join(base, "store")
    torn = "-"
    try:
        for books.run in range(1, rounds + 2):
            last = books.run == rounds + 1
            await Round(books, users, store, rng, last).live()
            status, text = journal("check", store)
            check(status == 0, f"the journal is damaged: {text}")
            torn = tear(store, rng) if not last and rng.random() < 0.6 else "-"
            if verbose:
                answered = sum(s.answered is not None for s in books.sent.values())
                print(f"run {books.run}: {len(books.sent)} sent, {answered} accepted, "
                      f"{sum(map(len, books.came.values()))} deliveries, tail: {torn}", flush=True)
    except Failure as why:
        raise Failure(f"{why}\n(run {books.run}, tail before it: {torn}; "
                      f"again with --seed {seed} --rounds {rounds})") from None
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return books


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    print(f"crash: {args.rounds} rounds, seed {args.seed}", flush=True)
    books = asyncio.run(crash(args.rounds, args.seed, args.verbose))
    accepted = [s for s in books.sent.values() if s.answered is not None]
    again = sum(len({run for run, _, _ in came}) > 1 for came in books.came.values())
    print(f"{args.rounds} kills, {len(books.sent)} messages sent, {len(accepted)} accepted, "
          f"{sum(map(len, books.came.values()))} deliveries, {again} messages in more than one run, "
          f"{sum(s.status not in (None, 'success') for s in accepted)} ended otherwise; none lost")


if __name__ == "__main__":
    main()
