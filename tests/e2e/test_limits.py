"""Who is refused, how, and what it costs: limits of connections, devices, rates, sizes and origins
(PROTOCOL 2, 5 and 10). Each refusal has its status, its counter and its cause; what a connection
took, it gives back however it ends.

The metrics are read from 127.0.0.1, so limits by address are tested from other addresses.
"""

import json
import time
import unittest

import raw
from clients import envelope
from hub import SLOWNESS, Hub, HubCase, eventually


class From(raw.Wire):
    """A connection from an address of ours."""

    def __init__(self, hub, address):
        self.sock = raw.socket.create_connection((hub.host, hub.port), raw.DEADLINE,
                                                 source_address=(address, 0))
        self.buffer = b""


class LimitCase(HubCase):

    options = {}

    def wire(self, address="127.0.0.1"):
        wire = From(self.hub, address)
        self.addCleanup(wire.sock.close)
        return wire

    def enter(self, user, address="127.0.0.1", **query):
        """Opens a connection that has to be let in: the wire behind its welcome."""
        wire = self.wire(address)
        wire.upgrade("/ws?user_id=" + user + "".join(f"&{k}={v}" for k, v in query.items()))
        self.assertEqual(envelope(wire.message().payload.decode())["event"], "welcome")
        return wire

    def knock(self, target, address="127.0.0.1", headers=(), **how):
        """Sends a handshake; the response."""
        wire = self.wire(address)
        try:
            wire.send(raw.upgrade(target, headers, **how))
        except OSError:
            pass  # refused already; the answer is there
        answer = wire.response()
        wire.sock.close()
        return answer

    def assert_refused(self, answer, status, name):
        self.assertEqual(answer.status, status, answer)
        self.assertRegex(answer.headers["content-type"], "^application/json")
        body = json.loads(answer.body)
        self.assertEqual(list(body), ["error"])
        self.assertEqual(body["error"]["code"], name)
        self.assertRegex(body["error"]["message"], r"\w+ \w+")
        if status == 503:
            self.assertRegex(answer.headers["retry-after"], r"^[1-9]\d*$")

    def refused(self, cause=None):
        """The counter of that cause, or of all."""
        if cause is None:
            return self.hub.metric("ringhub_connections_refused_total")
        return self.hub.metrics()[f'ringhub_connections_refused_total{{cause="{cause}"}}']

    def disconnects(self, code):
        return self.hub.metrics().get(f'ringhub_disconnects_total{{code="{code}"}}', 0)

    def let_in(self, user, **how):
        """Knocks until a slot is free; the wire, and how often it was refused before."""
        refusals = []

        def attempt():
            try:
                return self.enter(user, **how)
            except AssertionError as why:
                refusals.append(why)
                return None

        return eventually(attempt, lambda: f"a free slot: {refusals[-1]}"), len(refusals)

    def replace(self, user, times, **how):
        """A device that connects again and again, each time in the place of its last connection."""
        wire, _ = self.let_in(user, device="phone", **how)
        for _ in range(times):
            new, _ = self.let_in(user, device="phone", **how)
            self.assertEqual(wire.close_code(), 4409)
            wire = new

    def ends(self):
        """All the ways to leave: name and what does it."""
        def goodbye(wire):
            wire.send(raw.close_frame(1000))
            wire.close_code(answer=False)

        def wrong(wire):
            wire.send(raw.frame(raw.TEXT, b"x", rsv=4))
            self.assertEqual(wire.close_code(), 1002)

        return {"goodbye": goodbye, "cut": lambda wire: wire.sock.close(),
                "reset": lambda wire: wire.reset(), "protocol error": wrong,
                "close frame and cut": lambda wire: (wire.send(raw.close_frame(1001)),
                                                     wire.sock.close())}


class Connections(LimitCase):
    """limits.connections: of the whole hub, whichever shards they are on."""

    options = {"limits.connections": 24, "resume.window": "0"}

    def fill(self):
        """Exactly so many are let in: their wires."""
        eventually(lambda: self.hub.metric("ringhub_connections") == 0, "all slots free")
        wires = []
        for number in range(24):
            wire, _ = self.let_in(f"all-{number}")
            wires.append(wire)
        return wires

    def test_one_more_is_503_with_retry_after(self):
        self.fill()
        before, all_before = self.refused("full"), self.refused()
        for number in range(8):  # from whichever shard
            self.assert_refused(self.knock(f"/ws?user_id=more-{number}"), 503, "unavailable")
        self.assertEqual(self.refused("full"), before + 8)
        self.assertEqual(self.refused(), all_before + 8)
        self.assertEqual(self.hub.metric("ringhub_connections"), 24)

    def test_those_who_are_in_are_served_and_so_are_health_and_metrics(self):
        wires = self.fill()
        self.assert_refused(self.knock("/ws?user_id=more"), 503, "unavailable")
        for wire in wires:
            wire.send(raw.frame(raw.PING, b"here"))
            self.assertEqual(wire.frame()[:2], (raw.PONG, b"here"))
        for path in ("/livez", "/readyz", "/metrics"):
            self.assertTrue(self.hub.get(path))

    def test_a_slot_comes_back_however_its_connection_ends(self):
        wires = self.fill()
        for turn in range(2):
            for name, end in self.ends().items():
                with self.subTest(name, turn=turn):
                    end(wires.pop(0))
                    wire, _ = self.let_in(f"next-{turn}-{len(name)}")
                    wires.append(wire)
                    self.assert_refused(self.knock("/ws?user_id=more"), 503, "unavailable")
        self.assertEqual(self.hub.metric("ringhub_connections"), 24)

    def test_refused_and_broken_handshakes_take_no_slot(self):
        for number in range(60):
            self.assertEqual(self.knock("/ws?user_id=").status, 400)
            self.assertEqual(self.knock("/ws", headers={"Origin": "http://evil.example"}).status,
                             403)
            wire = self.wire()
            wire.send(raw.upgrade("/ws?user_id=half")[:20 + number])
            (wire.reset if number % 2 else wire.sock.close)()
        self.fill()

    def test_a_replaced_device_gives_its_slot_back(self):
        eventually(lambda: self.hub.metric("ringhub_connections") == 0, "all slots free")
        for number in range(20):
            self.enter(f"beside-{number}")
        self.replace("changes", 30)
        for number in range(3):
            self.let_in(f"rest-{number}")
        self.assert_refused(self.knock("/ws?user_id=more"), 503, "unavailable")
        eventually(lambda: self.hub.metric("ringhub_connections") == 24, "24 are left")

    def test_many_who_come_and_go_at_once(self):
        """As many as there are slots are let in, and in the end all slots are free."""
        before = self.refused("full"), self.hub.metric("ringhub_connections_accepted_total")
        answers = []
        for _ in range(5):
            wires = [self.wire() for _ in range(60)]
            for number, wire in enumerate(wires):
                wire.send(raw.upgrade(f"/ws?user_id=crowd-{number}"))
            turn = [wire.response().status for wire in wires]
            self.assertEqual((turn.count(101), turn.count(503)), (24, 36))
            answers += turn
            for number, wire in enumerate(wires):
                (wire.reset if number % 2 else wire.sock.close)()
            eventually(lambda: self.hub.metric("ringhub_connections") == 0, "they are gone")
        self.assertEqual(self.refused("full"), before[0] + answers.count(503))
        self.assertEqual(self.hub.metric("ringhub_connections_accepted_total"),
                         before[1] + answers.count(101))
        self.fill()


class PerUser(LimitCase):
    """limits.connections_per_user"""

    options = {"limits.connections_per_user": 3}

    def test_one_more_is_429(self):
        for user in ("anna", "bert", "carl"):  # on several shards
            wires = [self.enter(user) for _ in range(3)]
            before, all_before = self.refused("user_limit"), self.refused()
            for _ in range(5):
                self.assert_refused(self.knock(f"/ws?user_id={user}"), 429, "rate_limited")
            self.assertEqual(self.refused("user_limit"), before + 5)
            self.assertEqual(self.refused(), all_before + 5)
            self.enter(f"{user}-sister")
            for wire in wires:
                wire.send(raw.frame(raw.PING, b"here"))
                self.assertEqual(wire.frame()[:2], (raw.PONG, b"here"))

    def test_a_slot_comes_back_however_its_connection_ends(self):
        wires = [self.enter("dora") for _ in range(3)]
        for name, end in self.ends().items():
            with self.subTest(name):
                end(wires.pop(0))
                wire, _ = self.let_in("dora")
                wires.append(wire)
                self.assertEqual(self.knock("/ws?user_id=dora").status, 429)

    def test_the_same_device_replaces_itself_at_the_limit(self):
        wires = [self.enter("emil", device=f"d{number}") for number in range(3)]
        self.enter("emil", device="d0")
        self.assertEqual(wires[0].close_code(), 4409)
        wires[1].send(raw.close_frame(1000))
        wires[1].close_code(answer=False)
        self.replace("emil", 10)
        eventually(lambda: self.knock("/ws?user_id=emil").status == 429, "three are left")


class PerAddress(LimitCase):
    """limits.connections_per_address"""

    options = {"limits.connections_per_address": 4, "echo.enabled": "true"}

    def test_one_more_is_429_and_other_addresses_are_not_meant(self):
        for address in ("127.0.0.21", "127.0.0.22"):
            for number in range(4):  # on several shards
                self.enter(f"{address}-{number}", address)
            before, all_before = self.refused("address_limit"), self.refused()
            for number in range(6):
                self.assert_refused(self.knock(f"/ws?user_id=more-{number}", address),
                                    429, "rate_limited")
            self.assertEqual(self.refused("address_limit"), before + 6)
            self.assertEqual(self.refused(), all_before + 6)
            self.enter("elsewhere", "127.0.0.23")

    def test_a_slot_comes_back_however_its_connection_ends(self):
        wires = [self.enter(f"back-{number}", "127.0.0.24") for number in range(4)]
        for name, end in self.ends().items():
            with self.subTest(name):
                end(wires.pop(0))
                wire, _ = self.let_in(f"back-{len(name)}", address="127.0.0.24")
                wires.append(wire)
                self.assertEqual(self.knock("/ws?user_id=more", "127.0.0.24").status, 429)

    def test_a_replaced_device_gives_its_slot_back(self):
        self.replace("walks", 30, address="127.0.0.25")
        for number in range(3):
            self.let_in(f"walks-{number}", address="127.0.0.25")
        eventually(lambda: self.knock("/ws?user_id=more", "127.0.0.25").status == 429, "four")

    def test_who_takes_the_place_of_its_last_connection_is_not_refused(self):
        for number in range(3):
            self.enter(f"place-{number}", "127.0.0.27")
        first, before = self.enter("place", "127.0.0.27", device="phone"), self.refused()
        again = self.enter("place", "127.0.0.27", device="phone")
        self.assertEqual(first.close_code(), 4409)
        again.send(raw.frame(raw.PING, b"here"))
        self.assertEqual(again.frame()[:2], (raw.PONG, b"here"))
        self.assertEqual(self.refused(), before)

    def test_echoes_count_too(self):
        wires = [self.wire("127.0.0.28") for _ in range(3)]
        for wire in wires:
            wire.upgrade("/echo")
        self.enter("beside", "127.0.0.28")
        before = self.refused("address_limit")
        for target in ("/echo", "/ws?user_id=more", "/echo"):
            self.assert_refused(self.knock(target, "127.0.0.28"), 429, "rate_limited")
        self.assertEqual(self.refused("address_limit"), before + 3)
        for end in self.ends().values():
            end(wires.pop(0))
            wire = eventually(self.echo, "a free slot")
            wires.append(wire)
            self.assertEqual(self.knock("/ws?user_id=more", "127.0.0.28").status, 429)

    def echo(self):
        """An open /echo, or None where it is refused."""
        wire = self.wire("127.0.0.28")
        wire.send(raw.upgrade("/echo"))
        return wire if wire.response().status == 101 else None

    def test_handshakes_that_came_to_nothing_take_no_slot(self):
        for number in range(40):
            self.assertEqual(self.knock("/ws?user_id=", "127.0.0.26").status, 400)
            self.assertEqual(self.knock("/no/such", "127.0.0.26").status, 404)
            wire = self.wire("127.0.0.26")
            wire.send(raw.upgrade("/ws?user_id=half")[:20 + number])
            wire.reset()
        for number in range(4):
            self.let_in(f"nothing-{number}", address="127.0.0.26")
        self.assertEqual(self.knock("/ws?user_id=more", "127.0.0.26").status, 429)


class KickOldest(LimitCase):
    """users.max_devices: 2, users.on_limit: kick_oldest (which is the default)."""

    options = {"users.max_devices": 2}

    def assert_open(self, *wires):
        for wire in wires:
            wire.send(raw.frame(raw.PING, b"here"))
            while (got := wire.frame()).opcode == raw.TEXT:
                pass
            self.assertEqual(got[:2], (raw.PONG, b"here"))

    def test_the_oldest_goes_with_4403(self):
        before = self.disconnects(4403)
        a, b, c = (self.enter("anna", device=name) for name in "abc")
        self.assertEqual(a.close_code(), 4403)
        self.assert_open(b, c)
        d = self.enter("anna", device="d")
        self.assertEqual(b.close_code(), 4403)
        self.assert_open(c, d)
        eventually(lambda: self.disconnects(4403) == before + 2, "two are counted")

    def test_devices_without_a_name_count_too(self):
        wires = [self.enter("bert") for _ in range(6)]
        for wire in wires[:4]:
            self.assertEqual(wire.close_code(), 4403)
        self.assert_open(*wires[4:])

    def test_the_same_device_again_kicks_nobody_else(self):
        first, other = self.enter("carl", device="a"), self.enter("carl", device="b")
        again = self.enter("carl", device="a")
        self.assertEqual(first.close_code(), 4409)
        self.assert_open(other, again)
        last = self.enter("carl", device="c")  # b is the oldest now
        self.assertEqual(other.close_code(), 4403)
        self.assert_open(again, last)

    def test_who_left_makes_room(self):
        for name, end in self.ends().items():
            with self.subTest(name):
                user = f"dora-{len(name)}"
                first, second = self.enter(user, device="a"), self.enter(user, device="b")
                end(first)
                third = self.enter(user, device="c")
                self.assert_open(second, third)

    def test_messages_go_to_those_who_stay(self):
        wires = [self.enter("emil", device=name) for name in "abc"]
        sender = self.enter("emils-friend")
        sender.send(raw.frame(raw.TEXT, json.dumps({
            "type": "request", "event": "message.send", "request_id": "1",
            "data": {"to": "emil", "content": "hello"}})))
        self.assertEqual(json.loads(sender.message().payload)["code"], 200)
        self.assertEqual(wires[0].close_code(), 4403)
        for wire in wires[1:]:
            self.assertEqual(json.loads(wire.message().payload)["data"]["content"], "hello")


class SingleLogin(LimitCase):
    options = {"users.max_devices": 1, "users.on_limit": "kick_oldest",
               "limits.connections_per_user": 3, "limits.connections": 10}

    def test_the_new_one_replaces_the_old_and_no_slot_is_lost(self):
        wire = self.enter("anna", device="first")
        for number in range(40):
            new, _ = self.let_in("anna", device=f"d{number}")
            self.assertEqual(wire.close_code(), 4403)
            wire = new
        wire.send(raw.frame(raw.PING, b"here"))
        self.assertEqual(wire.frame()[:2], (raw.PONG, b"here"))
        eventually(lambda: self.hub.metric("ringhub_connections") == 1, "one is left")
        for number in range(9):
            self.let_in(f"other-{number}")
        self.assertEqual(self.knock("/ws?user_id=more").status, 503)


class Reject(LimitCase):
    options = {"users.max_devices": 2, "users.on_limit": "reject"}

    def test_one_more_is_429_and_nobody_is_kicked(self):
        wires = [self.enter("anna", device=name) for name in "ab"]
        before, all_before = self.refused("user_limit"), self.refused()
        for name in "cd":
            self.assert_refused(self.knock(f"/ws?user_id=anna&device={name}"), 429, "rate_limited")
        self.assert_refused(self.knock("/ws?user_id=anna"), 429, "rate_limited")
        self.assertEqual(self.refused("user_limit"), before + 3)
        self.assertEqual(self.refused(), all_before + 3)
        for wire in wires:
            wire.send(raw.frame(raw.PING, b"here"))
            self.assertEqual(wire.frame()[:2], (raw.PONG, b"here"))

    def test_the_same_device_may_come_again(self):
        first, _ = self.enter("bert", device="a"), self.enter("bert", device="b")
        again = self.enter("bert", device="a")
        self.assertEqual(first.close_code(), 4409)
        again.send(raw.frame(raw.PING, b"here"))
        self.assertEqual(again.frame()[:2], (raw.PONG, b"here"))
        self.assertEqual(self.knock("/ws?user_id=bert&device=c").status, 429)

    def test_a_slot_comes_back_however_its_connection_ends(self):
        wires = [self.enter("carl", device=name) for name in "ab"]
        for name, end in self.ends().items():
            with self.subTest(name):
                end(wires.pop(0))
                wire, _ = self.let_in("carl", device=f"n{len(name)}")
                wires.append(wire)
                self.assertEqual(self.knock("/ws?user_id=carl&device=more").status, 429)


class Handshakes(LimitCase):
    """limits.handshakes: so many may be in progress at a time."""

    options = {"limits.handshakes": 6}

    def test_one_more_is_429_until_the_others_are_done(self):
        before = self.refused("handshake_limit")
        halves = [self.wire() for _ in range(6)]
        for half in halves:
            half.send(raw.upgrade("/ws?user_id=half")[:30])
        time.sleep(0.3 * SLOWNESS)  # all are accepted; else an attempt could take the place of one
        refusals = []
        for _ in range(5):
            self.assertEqual(self.attempt(refusals), 429)
        for half in halves[:3]:
            half.reset()
        eventually(lambda: self.attempt(refusals) == 101, "they are gone")
        for half in halves[3:]:
            half.send(raw.upgrade("/ws?user_id=half")[30:])
            self.assertEqual(half.response().status, 101)
        self.assertEqual(self.attempt(refusals), 101)
        self.assertGreaterEqual(len(refusals), 5)
        for answer in refusals:
            self.assert_refused(answer, 429, "rate_limited")
        self.assertEqual(self.refused("handshake_limit"), before + len(refusals))

    def attempt(self, refusals):
        answer = self.knock("/ws?user_id=attempt")
        if answer.status != 101:
            refusals.append(answer)
        return answer.status

    def test_those_who_have_shaken_hands_do_not_count(self):
        for number in range(30):
            self.let_in(f"in-{number}")


class HandshakeRate(LimitCase):
    """security.rate_limit.handshakes_per_second, with a burst of as many; of each address."""

    options = {"security.rate_limit.handshakes_per_second": 10}

    def test_a_burst_is_let_in_and_the_rest_is_429(self):
        before = self.refused("handshake_limit")
        began = time.monotonic()
        answers = [self.knock(f"/ws?user_id=rate-{number}", "127.0.0.31") for number in range(60)]
        took = time.monotonic() - began
        statuses = [answer.status for answer in answers]
        self.assertEqual(statuses[:10], [101] * 10)
        self.assertLessEqual(statuses.count(101), 10 + took * 10 + 1)
        self.assertIn(429, statuses)  # 60 at 10 a second would have taken 5 s
        for answer in answers:
            if answer.status != 101:
                self.assert_refused(answer, 429, "rate_limited")
        self.assertEqual(self.refused("handshake_limit"), before + statuses.count(429))

    def test_the_bucket_fills_again(self):
        statuses = [self.knock("/ws?user_id=again", "127.0.0.32").status for _ in range(60)]
        self.assertIn(429, statuses)
        time.sleep(1)
        statuses = [self.knock("/ws?user_id=again", "127.0.0.32").status for _ in range(8)]
        self.assertEqual(statuses, [101] * 8)

    def test_one_address_does_not_use_up_anothers(self):
        statuses = [self.knock("/ws?user_id=greedy", "127.0.0.33").status for _ in range(60)]
        self.assertIn(429, statuses)
        statuses = [self.knock("/ws?user_id=modest", "127.0.0.34").status for _ in range(5)]
        self.assertEqual(statuses, [101] * 5)

    def test_health_and_metrics_are_no_handshakes(self):
        for _ in range(60):
            wire = self.wire("127.0.0.35")
            wire.send(raw.request("/livez"))
            self.assertEqual(wire.response().status, 200)
            wire.sock.close()


class MessageRate(LimitCase):
    """security.rate_limit.messages_per_second and .burst: of each connection."""

    options = {"security.rate_limit.messages_per_second": 20, "security.rate_limit.burst": 60}
    burst = 60

    def ask(self, count):
        return raw.frame(raw.TEXT, '{"type":"request","event":"ping","request_id":"p","data":1}'
                         ) * count

    def answers(self, wire, count):
        for _ in range(count):
            self.assertEqual(json.loads(wire.message().payload)["type"], "response")

    def test_a_burst_is_served(self):
        wire = self.enter("burst")
        wire.send(self.ask(self.burst))
        self.answers(wire, self.burst)

    def test_more_closes_with_4429(self):
        before = self.disconnects(4429)
        wire, sister = self.enter("flood", device="a"), self.enter("flood", device="b")
        wire.send(self.ask(20 * self.burst))
        answered = 0
        while (got := wire.frame()).opcode == raw.TEXT:
            answered += json.loads(got.payload)["type"] == "response"
        self.assertEqual((got.opcode, got.payload[:2]), (raw.CLOSE, (4429).to_bytes(2, "big")))
        self.assertRegex(got.payload[2:].decode(), r"\w+ \w+")
        self.assertGreaterEqual(answered, self.burst)
        self.assertLess(answered, 20 * self.burst)
        eventually(lambda: self.disconnects(4429) == before + 1, "counted")
        sister.send(self.ask(self.burst))  # it has a bucket of its own
        self.answers(sister, self.burst)
        self.enter("flood", device="a")

    def test_the_bucket_fills_again(self):
        wire = self.enter("refill")
        wire.send(self.ask(self.burst))
        self.answers(wire, self.burst)
        for _ in range(2):
            time.sleep(1)
            wire.send(self.ask(18))
            self.answers(wire, 18)

    def test_pings_and_pongs_are_no_messages(self):
        wire = self.enter("pinger")
        for number in range(10 * self.burst):
            wire.send(raw.frame(raw.PONG, b"") + raw.frame(raw.PING, b"%d" % number))
            self.assertEqual(wire.frame()[:2], (raw.PONG, b"%d" % number))

    def test_what_is_sent_to_it_does_not_count(self):
        wire = self.enter("receives")
        senders = [self.enter(f"sends-{number}") for number in range(3)]
        for sender in senders:
            sender.send(raw.frame(raw.TEXT, json.dumps({
                "type": "request", "event": "message.send",
                "data": {"to": "receives", "content": 1}})) * self.burst)
        for _ in range(3 * self.burst):
            self.assertEqual(json.loads(wire.message().payload)["event"], "message")


class MessageRateOnly(MessageRate):
    """Without a burst: as many as in a second."""

    options = {"security.rate_limit.messages_per_second": 20}
    burst = 20


class Sizes(LimitCase):
    options = {"limits.message_size": "1KiB", "limits.head_size": "2KiB"}

    def test_a_message_of_exactly_the_limit_is_served(self):
        wire = self.enter("exact")
        text = '{"type":"request","event":"ping","request_id":"p","data":"%s"}'
        text %= "x" * (1024 - len(text) + 2)
        self.assertEqual(len(text), 1024)
        wire.send(raw.frame(raw.TEXT, text))
        self.assertEqual(json.loads(wire.message().payload)["code"], 200)

    def test_one_byte_more_is_1009(self):
        for frames in (raw.frame(raw.TEXT, " " * 1025),
                       raw.frame(raw.TEXT, " " * 1000, fin=False) + raw.frame(raw.CONT, " " * 25),
                       raw.frame(raw.TEXT, " " * 1025)[:8]):  # the header alone says it
            before = self.disconnects(1009)
            wire = self.enter("larger")
            wire.send(frames)
            self.assertEqual(wire.close_code(), 1009)
            eventually(lambda: self.disconnects(1009) == before + 1, "counted")

    def test_a_large_head_is_431(self):
        before, all_before = self.refused("head"), self.refused()
        answer = self.knock("/ws?user_id=head", headers={"X-A": "x" * 2048})
        self.assert_refused(answer, 431, "head_too_large")
        self.assertEqual((self.refused("head"), self.refused()), (before + 1, all_before + 1))
        self.assertEqual(self.knock("/ws?user_id=head", headers={"X-A": "x" * 1500}).status, 101)


class OriginCase(LimitCase):

    def status(self, origin=None, host="hub.example"):
        headers = {} if origin is None else {"Origin": origin}
        return self.knock("/ws?user_id=page", headers=headers, host=host).status

    def assert_forbidden(self, *origins):
        for origin in origins:
            with self.subTest(origin):
                before, all_before = self.refused("forbidden"), self.refused()
                headers = {} if origin is None else {"Origin": origin}
                self.assert_refused(self.knock("/ws?user_id=page", headers=headers,
                                               host="hub.example"), 403, "forbidden")
                self.assertEqual((self.refused("forbidden"), self.refused()),
                                 (before + 1, all_before + 1))

    def assert_allowed(self, *origins):
        for origin in origins:
            with self.subTest(origin):
                self.assertEqual(self.status(origin), 101)


class SameOrigin(OriginCase):
    """No list: only pages of the hub's own host."""

    def test_none_and_the_same_one_are_allowed(self):
        self.assert_allowed(None, "http://hub.example", "http://HUB.example")
        self.assertEqual(self.status("http://hub.example:8080", "hub.example:8080"), 101)
        self.assertEqual(self.status("http://[::1]:8080", "[::1]:8080"), 101)

    def test_any_other_is_403(self):
        self.assert_forbidden("http://evil.example", "null", "", "http://hub.example.evil.example",
                              "http://hub.example:8080", "http://evil.example/hub.example",
                              "http://hub.example@evil.example", "hub.example", "http://",
                              "http://xhub.example")


class Origins(OriginCase):
    options = {"security.origins": "https://app.example,http://dev.example:3000"}

    def test_those_listed_and_the_same_one_are_allowed(self):
        self.assert_allowed(None, "https://app.example", "http://dev.example:3000",
                            "http://hub.example")

    def test_any_other_is_403(self):
        self.assert_forbidden("http://app.example", "https://app.example:8443",
                              "https://sub.app.example", "https://app.example.evil.example",
                              "http://dev.example", "http://dev.example:30000", "null",
                              "https://evil.example")


class AnyOrigin(OriginCase):
    options = {"security.origins": "*"}

    def test_all_are_allowed(self):
        self.assert_allowed(None, "https://app.example", "http://whatever.example:1234",
                            "http://hub.example")


class RequireOrigin(OriginCase):
    options = {"security.origins": "https://app.example", "security.require_origin": "true"}

    def test_none_is_403(self):
        self.assert_forbidden(None)

    def test_the_listed_and_the_same_one_are_allowed(self):
        self.assert_allowed("https://app.example", "http://hub.example")

    def test_others_are_403(self):
        self.assert_forbidden("https://evil.example", "null")

    def test_health_needs_none(self):
        self.assertTrue(self.hub.get("/livez"))


class FromAFile(unittest.TestCase):
    def test_a_list_in_yaml_is_a_list(self):
        config = "security:\n  origins: ['https://a.example', 'https://b.example']\n"
        with Hub(config=config) as hub:
            for origin, status in (("https://a.example", 101), ("https://b.example", 101),
                                   ("https://c.example", 403)):
                with raw.Wire(hub) as wire:
                    wire.send(raw.upgrade("/ws", {"Origin": origin}))
                    self.assertEqual(wire.response().status, status)


if __name__ == "__main__":
    unittest.main()
