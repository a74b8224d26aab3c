"""tests/e2e/owing.py - a small hub in Python that keeps its promises, but for one.

It speaks as much of docs/protocol.md as modes `ack` and `mixed` of ringhub-bench need: direct and
room messages, plain and acknowledged, with repetitions, message.status, sessions that come back and
rooms with history. Nothing is stored, and a user has one connection.

The path names the fault that is committed on the FAULT_AT-th request that it is about, `/ws-lose`
for example; `/ws` commits none. Each run of the tool has a hub of its own. What is not acknowledged
comes again after PATIENT seconds, so that a busy machine changes nothing; a path that begins with
`/quick` is for runs about repetitions and ends: QUICK seconds, RETRIES times.
"""
import asyncio
import json
import threading
import urllib.parse

import websockets

FAULT_AT = 20
HISTORY = 500
PATIENT = 30.0
QUICK = 0.3
RETRIES = 2


def flipped(text):
    return text[:-1] + ("b" if text[-1] != "b" else "c")


class Message:
    """What its users are owed, or a plain one."""

    def __init__(self, event, data, sender):
        self.event = event
        self.data = data
        self.sender = sender
        self.acked = data.get("ack", False)
        self.owed = {}  # user -> the last attempt
        self.recipients = self.acknowledged = 0
        self.failed = False

    def notify(self, user, attempt=1, **other):
        data = {**self.data, "ack": self.acked and user in self.owed, "attempt": attempt, **other}
        return {"type": "notify", "event": self.event, "data": data}


class User:
    def __init__(self, name):
        self.name = name
        self.ws = None
        self.seq = 0
        self.owed = {}  # id -> Message, in order; plain ones until they are delivered


class Room:
    def __init__(self):
        self.members = {}  # user's name -> True
        self.seq = 0
        self.history = []


class World:
    """All that one path has."""

    def __init__(self, fault, wait):
        self.fault = fault
        self.wait = wait  # before each repetition
        self.count = 0
        self.users = {}
        self.rooms = {}
        self.held = None  # reorder: a message that the next one passes
        self.lock = asyncio.Lock()  # one event at a time, so that a return is whole

    def hits(self, *faults):
        """Is this the one on which the fault is committed? Counts those it is about."""
        if self.fault not in faults:
            return False
        self.count += 1
        return self.count == FAULT_AT

    def user(self, name):
        return self.users.setdefault(name, User(name))

    # ---- sending ----

    async def tell(self, user, what):
        if user.ws:
            try:
                await user.ws.send(json.dumps(what))
            except websockets.ConnectionClosed:
                pass

    async def deliver(self, user, message, **other):
        """A first attempt, or the next one, of what may be owed."""
        attempt = 1
        if user in message.owed:
            attempt = message.owed[user] + 1
            message.owed[user] = attempt
            asyncio.get_running_loop().call_later(
                self.wait, lambda: asyncio.ensure_future(self.due(user, message, attempt)))
        if self.fault == "same" and attempt > 1:
            attempt = 1
        await self.tell(user, message.notify(user, attempt, **other))

    async def due(self, user, message, attempt):
        async with self.lock:
            if message.owed.get(user) != attempt or not user.ws or self.fault == "silence":
                return
            if attempt > RETRIES:
                message.failed = True
                await self.settle(user, message)
            else:
                await self.deliver(user, message)

    async def settle(self, user, message):
        message.owed.pop(user, None)
        user.owed.pop(message.data["id"], None)
        if message.owed or self.hits("untold"):
            return
        status = "ack_timeout" if message.failed else "success"
        if self.hits("failed"):
            status = "failed"
        await self.status(message, "success" if self.fault == "lie" else status)
        if self.hits("told-twice"):
            await self.status(message, status)

    async def status(self, message, status):
        data = {"id": message.data["id"], "status": status}
        if "room" in message.data:
            data.update(room=message.data["room"], recipients=message.recipients,
                        acknowledged=message.acknowledged + self.hits("sum"))
        await self.tell(message.sender, {"type": "notify", "event": "message.status",
                                         "data": data})

    # ---- requests ----

    async def answer(self, user, request, data):
        await self.tell(user, {"type": "response", "request_id": request["request_id"],
                               "code": 200, "message": "OK", "data": data})

    async def refuse(self, user, request, error):
        await self.tell(user, {"type": "error", "request_id": request["request_id"],
                               "code": 429, "error": error, "message": "no"})

    async def request(self, user, request):
        if request["event"] == "ping":
            data = request["data"]
            await self.answer(user, request, flipped(data) if self.hits("ping") else data)
        elif self.hits("store_failed", "queue_full", "bad_request"):
            await self.refuse(user, request, self.fault)
        elif request["event"] == "message.send":
            await self.send(user, request)
        else:
            await self.publish(user, request)

    async def send(self, user, request):
        data = request["data"]
        to = self.user(data["to"])
        to.seq += 1
        message = Message("message", {"id": f"h{to.seq}", **data, "from": user.name,
                                      "seq": to.seq}, user)
        del message.data["to"]
        if message.acked:
            message.owed[to] = 0
            to.owed[message.data["id"]] = message
        stored = not to.ws or (self.fault == "keep" and to.name.endswith("-0"))
        early = self.hits("early")
        if not early:
            await self.answer(user, request, {"id": message.data["id"],
                                              "status": "stored" if stored else "sent"})
        if self.hits("answers"):
            await self.answer(user, request, {"id": message.data["id"], "status": "sent"})
        if stored:
            to.owed[message.data["id"]] = message
        else:
            await self.deliver_direct(user, to, message)
        if early:
            await self.status(message, "success")
            await self.answer(user, request, {"id": message.data["id"], "status": "sent"})

    async def deliver_direct(self, user, to, message):
        if self.hits("lose"):
            to.owed.pop(message.data["id"], None)
        elif self.hits("timeout"):
            await self.status(message, "ack_timeout")
        elif self.hits("lie-now"):
            await self.status(message, "success")
        elif self.hits("astray"):
            await self.tell(user, message.notify(to))
        elif self.hits("stranger"):
            await self.tell(to, message.notify(to, **{"from": "somebody"}))
        elif self.hits("flip"):
            await self.deliver(to, message, content=flipped(message.data["content"]))
        elif self.hits("reorder"):
            self.held = (to, message)
        else:
            await self.deliver(to, message)
            if self.hits("twice"):
                await self.tell(to, message.notify(to))
            if self.held and self.held[0] is to:
                held, self.held = self.held, None
                await self.deliver(*held)

    async def publish(self, user, request):
        data = request["data"]
        room = self.rooms[data["room"]]
        room.seq += 1
        message = Message("room.message", {"id": f"h{room.seq}", **data, "from": user.name,
                                           "seq": room.seq}, user)
        members = [self.user(name) for name in room.members]
        if message.acked:
            message.owed = {member: 0 for member in members if member is not user}
            message.recipients = len(message.owed)
            for member in message.owed:
                member.owed[message.data["id"]] = message
        room.history.append(message)
        await self.answer(user, request, {"id": message.data["id"], "seq": room.seq,
                                          "recipients": len(members)})
        hit = self.hits("room-lose", "room-twice", "room-seq", "room-name", "room-reorder")
        for member in members:
            if hit and member is members[-1]:
                await self.fail_in_room(member, message)
            else:
                await self.deliver(member, message)
            if self.held and member is members[-1] and not hit:
                held, self.held = self.held, None
                await self.deliver(*held)

    async def fail_in_room(self, member, message):
        if self.fault == "room-lose":
            message.owed.pop(member, None)
        elif self.fault == "room-twice":
            await self.deliver(member, message)
            await self.tell(member, message.notify(member))
        elif self.fault == "room-seq":
            await self.deliver(member, message, seq=message.data["seq"] + 1)
        elif self.fault == "room-name":
            await self.deliver(member, message, room="another")
        else:
            self.held = (member, message)

    # ---- connections ----

    async def welcome(self, user, query):
        await self.tell(user, {"type": "notify", "event": "welcome",
                               "data": {"user": user.name, "session": "s" + user.name[-3:],
                                        "resumed": "resume" in query}})
        for text in query.get("rooms", [""])[0].split(","):
            if text:
                await self.join(user, *text.split("@"))
        for message in list(user.owed.values()):
            if "room" in message.data:
                continue
            if self.fault == "forget":
                message.owed.clear()
            else:
                await self.deliver(user, message)
            if not message.owed:
                user.owed.pop(message.data["id"])

    async def join(self, user, name, since=None, epoch="e1"):
        room = self.rooms.setdefault(name, Room())
        room.members[user.name] = True
        first = int(since) + 1 if since else room.seq + 1
        missed = 0
        if since and self.fault in ("short", "short-untold"):
            missed = max(0, room.seq - int(since))
        told = missed if self.fault == "short" else 0
        await self.tell(user, {"type": "notify", "event": "room.subscribed",
                               "data": {"room": name, "members": len(room.members),
                                        "seq": room.seq, "epoch": epoch,
                                        "recovered": not told, "missed": told}})
        for message in room.history[first - 1 + missed:]:
            await self.deliver(user, message)
        for message in list(user.owed.values()):  # what history did not reach
            if message.data.get("room") == name and message.data["seq"] < first + missed:
                await self.deliver(user, message)

    async def serve(self, ws, query):
        user = self.user(query["user_id"][0])
        async with self.lock:
            user.ws = ws
            await self.welcome(user, query)
        try:
            async for text in ws:
                message = json.loads(text)
                async with self.lock:
                    if user.ws is not ws:
                        return  # it has come back over another one
                    if message["type"] == "ack":
                        await self.acknowledged(user, message["data"])
                    else:
                        await self.request(user, message)
        except websockets.ConnectionClosed:
            pass
        finally:
            if user.ws is ws:
                user.ws = None

    async def acknowledged(self, user, data):
        for name in data.get("ids", [data.get("id")]):
            message = user.owed.get(name)
            if message and not self.hits("deaf"):
                message.acknowledged += 1
                await self.settle(user, message)


class Server:
    """Serves until close()."""

    def __init__(self):
        self.worlds = {}
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._start())
        self.ready.set()
        self.loop.run_forever()

    async def _start(self):
        self.server = await websockets.serve(self._serve, "127.0.0.1", 0, max_size=None,
                                             compression=None, ping_interval=None)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, ws):
        path = urllib.parse.urlsplit(ws.path)
        query = urllib.parse.parse_qs(path.query)
        kind, _, fault = path.path.strip("/").partition("-")
        wait = QUICK if kind == "quick" else PATIENT
        run = query["user_id"][0].split("-")[1]  # each run of the tool has a world of its own
        await self.worlds.setdefault((fault, run), World(fault, wait)).serve(ws, query)

    def url(self, fault="", quick=False):
        return (f"ws://127.0.0.1:{self.port}/{'quick' if quick else 'ws'}"
                + (f"-{fault}" if fault else ""))

    async def _end(self):
        self.server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self.loop.stop()

    def close(self):
        asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        self.thread.join(10)
