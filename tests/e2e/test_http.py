"""HTTP on the client port: health, metrics, refusals with a JSON body, keep-alive and pipelining."""

import json
import re
import subprocess
import unittest

import raw
from clients import ClientCase
from hub import DEADLINE, Hub, HubCase, eventually


class Endpoints(HubCase):
    """PROTOCOL 2: what is served, and how it is refused."""

    def wire(self):
        wire = raw.Wire(self.hub)
        self.addCleanup(wire.sock.close)
        return wire

    def ask(self, *args, **how):
        wire = self.wire()
        wire.send(raw.request(*args, **how))
        return wire.response()

    def assert_refused(self, answer, status, name):
        self.assertEqual(answer.status, status, answer)
        self.assertRegex(answer.headers["content-type"], "^application/json")
        body = json.loads(answer.body)
        self.assertEqual(list(body), ["error"])
        self.assertEqual(body["error"]["code"], name)
        self.assertRegex(body["error"]["message"], r"\w+ \w+")

    def test_health_paths_answer_200(self):
        for path in ("/healthz", "/livez", "/readyz"):
            with self.subTest(path):
                self.assertEqual(self.ask(path).status, 200)

    def test_health_paths_ignore_a_query(self):
        self.assertEqual(self.ask("/healthz?verbose=1").status, 200)

    def test_curl_is_served(self):
        done = subprocess.run(["curl", "-sS", "--max-time", str(DEADLINE), "-w", "%{http_code}",
                               f"http://127.0.0.1:{self.hub.port}/livez"],
                              capture_output=True, text=True, check=True)
        self.assertTrue(done.stdout.endswith("200"), done.stdout)

    def test_an_unknown_path_is_404(self):
        for path in ("/nothing", "/healthz/", "/wss", "/%77s", "/ws/"):
            with self.subTest(path):
                self.assert_refused(self.ask(path), 404, "not_found")

    def test_another_method_is_405_and_says_which_are_allowed(self):
        for path in ("/healthz", "/metrics", "/ws", "/echo"):
            for method in ("POST", "DELETE", "OPTIONS"):
                with self.subTest(path=path, method=method):
                    answer = self.ask(path, {"Content-Length": "0"}, method=method)
                    self.assert_refused(answer, 405, "method_not_allowed")
                    self.assertIn("GET", answer.headers["allow"])

    def test_a_plain_get_of_a_websocket_is_426(self):
        for path in ("/ws", "/echo"):
            with self.subTest(path):
                answer = self.ask(path)
                self.assert_refused(answer, 426, "upgrade_required")
                self.assertEqual(answer.headers["sec-websocket-version"], "13")
                self.assertEqual(answer.headers["upgrade"].lower(), "websocket")

    def test_another_websocket_version_is_426(self):
        for version in ("8", "12", "14", "013", "13, 8"):
            with self.subTest(version):
                wire = self.wire()
                wire.send(raw.upgrade(headers={"Sec-WebSocket-Version": version}))
                answer = wire.response()
                self.assert_refused(answer, 426, "upgrade_required")
                self.assertEqual(answer.headers["sec-websocket-version"], "13")

    def test_a_malformed_handshake_is_400(self):
        cases = {
            "no key": raw.upgrade(without=["Sec-WebSocket-Key"]),
            "key of 15 bytes": raw.upgrade(key="AAAAAAAAAAAAAAAAAAAA"),
            "key that is not base64": raw.upgrade(key="!" * 22 + "=="),
            "two keys": raw.upgrade().replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: "
                                              b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
        }
        for name, head in cases.items():
            with self.subTest(name):
                wire = self.wire()
                wire.send(head)
                self.assert_refused(wire.response(), 400, "bad_request")

    def test_an_upgrade_needs_http_1_1(self):
        wire = self.wire()
        wire.send(raw.upgrade(version="HTTP/1.0"))
        self.assertIn(wire.response().status, (400, 426))

    def test_a_malformed_request_is_400_and_ends_the_connection(self):
        cases = {
            "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
            "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "folded header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
            "space before colon": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
            "nul in a value": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
            "bare cr": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n",
            "no version": b"GET /healthz\r\nHost: a\r\n\r\n",
            "two spaces": b"GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            "a space in the target": b"GET /heal thz HTTP/1.1\r\nHost: a\r\n\r\n",
            "length and chunked": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                                  b"Transfer-Encoding: chunked\r\n\r\n",
            "two lengths": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                           b"Content-Length: 4\r\n\r\n",
            "signed length": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n",
            "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS hello\r\n\r\n",
        }
        for name, head in cases.items():
            with self.subTest(name):
                wire = self.wire()
                wire.send(head)
                self.assert_refused(wire.response(), 400, "bad_request")
                wire.end()

    def test_a_target_that_is_too_long_is_414(self):
        self.assert_refused(self.ask("/" + "x" * 20_000), 414, "uri_too_long")

    def test_a_head_that_is_too_large_is_431(self):
        cases = {"one line": {"X-A": "x" * 20_000},
                 "many lines": {f"X-{i}": "x" * 200 for i in range(100)}}
        for name, headers in cases.items():
            with self.subTest(name):
                self.assert_refused(self.ask("/healthz", headers), 431, "head_too_large")

    def test_a_head_of_nearly_16_kib_is_served(self):
        self.assertEqual(self.ask("/healthz", {"X-A": "x" * (16 * 1024 - 200)}).status, 200)

    def test_head_has_no_body(self):
        wire = self.wire()
        wire.send(raw.request("/healthz", method="HEAD") + raw.request("/nothing"))
        head = wire.response(head_only=True)
        self.assertIn(head.status, (200, 405))
        if head.status == 405:
            wire.take(int(head.headers["content-length"]))
        self.assertEqual(wire.response().status, 404)

    def test_a_connection_serves_many_requests(self):
        wire = self.wire()
        for path, status in [("/healthz", 200), ("/nothing", 404), ("/readyz", 200)] * 20:
            wire.send(raw.request(path))
            self.assertEqual(wire.response().status, status)

    def test_pipelined_requests_are_answered_in_order(self):
        wire = self.wire()
        paths = [("/healthz", 200), ("/nothing", 404), ("/metrics", 200), ("/ws", 426)] * 25
        wire.send(b"".join(raw.request(path) for path, _ in paths))
        for number, (path, status) in enumerate(paths):
            self.assertEqual(wire.response().status, status, f"request {number}, {path}")

    def test_a_request_cut_at_every_byte_means_the_same(self):
        head = raw.request("/healthz?a=b", {"X-A": "b"})
        wire = self.wire()
        for cut in range(1, len(head)):
            wire.send(head[:cut])
            wire.send(head[cut:])
            self.assertEqual(wire.response().status, 200, f"cut at {cut}")

    def test_connection_close_is_honoured(self):
        wire = self.wire()
        wire.send(raw.request("/healthz", {"Connection": "close"}))
        self.assertEqual(wire.response().headers["connection"].lower(), "close")
        wire.end()

    def test_http_1_0_is_answered_and_closed(self):
        wire = self.wire()
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        self.assertEqual(wire.response().status, 200)
        wire.end()

    def test_a_body_is_never_taken_for_a_request(self):
        smuggled = raw.request("/metrics", {"X-Smuggled": "1"})
        wire = self.wire()
        wire.send(raw.request("/healthz", {"Content-Length": len(smuggled)}) + smuggled)
        self.assertIn(wire.response().status, (200, 400, 413))
        try:
            wire.send(raw.request("/nothing"))
            self.assertEqual(wire.response().status, 404)
        except (raw.Closed, BrokenPipeError, ConnectionResetError):
            pass  # refused to go on: as good

    def test_a_target_in_absolute_form_is_served(self):
        self.assertEqual(self.ask(f"http://127.0.0.1:{self.hub.port}/healthz").status, 200)

    def test_half_closing_after_the_request_still_gets_the_answer(self):
        wire = self.wire()
        wire.send(raw.request("/healthz"))
        wire.sock.shutdown(1)
        self.assertEqual(wire.response().status, 200)
        wire.end()


class Echo(HubCase):
    options = {}

    def test_echo_is_off_unless_it_is_enabled(self):
        with raw.Wire(self.hub) as wire:
            wire.send(raw.upgrade("/echo"))
            self.assertEqual(wire.response().status, 404)


class Origin(HubCase):
    """PROTOCOL 2: a page of another origin may not use the hub."""

    def status(self, origin, host):
        with raw.Wire(self.hub) as wire:
            wire.send(raw.upgrade(headers={"Origin": origin}, host=host))
            return wire.response().status

    def test_the_same_origin_is_allowed(self):
        host = f"127.0.0.1:{self.hub.port}"
        self.assertEqual(self.status(f"http://{host}", host), 101)

    def test_another_origin_is_403(self):
        host = f"127.0.0.1:{self.hub.port}"
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{self.hub.port + 1}",
                       f"http://127.0.0.1:{self.hub.port}.evil.example"):
            with self.subTest(origin):
                self.assertEqual(self.status(origin, host), 403)


class Limits(unittest.TestCase):

    def test_head_size_is_a_setting(self):
        with Hub({"limits.head_size": "2KiB"}) as hub, raw.Wire(hub) as wire:
            wire.send(raw.request("/healthz", {"X-A": "x" * 3000}))
            self.assertEqual(wire.response().status, 431)


class Metrics(ClientCase):
    """PROTOCOL 11: the names, the format of Prometheus, and the right numbers."""

    LINE = re.compile(r'^(ringhub_[a-z0-9_]+)(\{[a-z_]+="[^"\\\n]*"(,[a-z_]+="[^"\\\n]*")*\})?'
                      r' (-?[0-9.]+(e[+-]?[0-9]+)?|[+-]Inf|NaN)$')

    def test_the_text_is_prometheus_format(self):
        with raw.Wire(self.hub) as wire:
            wire.send(raw.request("/metrics"))
            answer = wire.response()
        self.assertRegex(answer.headers["content-type"], r"^text/plain; *version=0\.0\.4")
        text = answer.body.decode()
        self.assertTrue(text.endswith("\n"))
        kinds, helped, seen = {}, set(), set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.assertIn(kind, ("counter", "gauge", "histogram"))
                self.assertNotIn(name, kinds)
                kinds[name] = kind
            elif line.startswith("# HELP "):
                self.assertGreater(len(line.split(" ", 3)[3]), 10, line)
                helped.add(line.split(" ")[2])
            elif line:
                found = self.LINE.match(line)
                self.assertTrue(found, f"not a sample: {line!r}")
                self.assertNotIn(line.rsplit(" ", 1)[0], seen, "sample given twice")
                seen.add(line.rsplit(" ", 1)[0])
                base = re.sub("_(bucket|sum|count)$", "", found[1])
                kind = kinds.get(found[1]) or kinds.get(base)
                self.assertTrue(kind, f"{line!r} without a TYPE before it")
                if kind == "counter":
                    self.assertTrue(found[1].endswith("_total"), line)
        self.assertEqual(helped, set(kinds))

    def test_the_promised_names_exist(self):
        text = self.hub.get("/metrics")
        for name in ("connections", "users", "connections_accepted_total",
                     "connections_refused_total", "disconnects_total", "messages_received_total",
                     "messages_sent_total", "messages_delivered_total", "messages_dropped_total",
                     "messages_invalid_total", "paused_reads_total"):
            self.assertIn(f"# TYPE ringhub_{name} ", text)

    async def settled(self, name, value):
        """Waits until the metric has that value; it may be a pass behind what a client saw."""
        eventually(lambda: self.hub.metric(name) == value,
                   lambda: f"{name} is {self.hub.metric(name)}, not {value}")

    async def test_counters_move_by_the_right_numbers(self):
        before = self.hub.metrics()

        def base(name):
            return sum(v for k, v in before.items() if k.split("{")[0] == name)

        anna, bert = await self.clients(["metrics-anna", "metrics-bert"])
        bert2 = await self.client("metrics-bert", device="second")
        await self.settled("ringhub_connections", base("ringhub_connections") + 3)
        await self.settled("ringhub_users", base("ringhub_users") + 2)
        for number in range(5):
            await anna.send_message("metrics-bert", number)
        for client in (bert, bert2):
            for number in range(5):
                self.assertEqual((await client.message())["content"], number)
        answer = await anna.request("message.send", {"to": "", "content": 1})
        self.assert_error(answer, 400, "bad_request")
        await anna.send("no json")
        await anna.receive()
        await anna.request("ping", 1)
        expected = {
            "ringhub_messages_received_total": 7,  # five, the one to no name, ping
            "ringhub_messages_sent_total": 5,
            "ringhub_messages_delivered_total": 10,
            "ringhub_messages_invalid_total": 1,
        }
        for name, count in expected.items():
            await self.settled(name, base(name) + count)
        await bert2.close()
        await anna.close()
        await self.settled("ringhub_connections", base("ringhub_connections") + 1)
        await self.settled("ringhub_users", base("ringhub_users") + 1)
        code = 'ringhub_disconnects_total{code="1000"}'
        self.assertEqual(self.hub.metrics()[code], before.get(code, 0) + 2)

    async def test_the_ack_thread_and_the_record_thread_are_counted_too(self):
        anna, bert = await self.clients(["threads-anna", "threads-bert"])
        await anna.send_message("threads-bert", 1, ack=True)
        await self.settled("ringhub_ack_alarms", 1)
        self.assertGreater(self.hub.metric("ringhub_journal_commits_total"), 0)
        await bert.send({"type": "ack", "data": {"id": (await bert.message())["id"]}})
        await self.settled("ringhub_ack_alarms", 0)

    async def test_refusals_are_counted_by_cause(self):
        before = self.hub.metric("ringhub_connections_refused_total")
        for target in ("/ws?user_id=", "/ws?user_id=%ff"):
            with raw.Wire(self.hub) as wire:
                wire.send(raw.upgrade(target))
                self.assertEqual(wire.response().status, 400)
        await self.settled("ringhub_connections_refused_total", before + 2)
        self.assertIn('ringhub_connections_refused_total{cause="', self.hub.get("/metrics"))

    async def test_connections_are_told_by_transport(self):
        await self.client("metrics-transport")
        self.assertGreaterEqual(self.hub.metrics()['ringhub_connections{transport="websocket"}'],
                                1)

    async def test_no_user_name_is_in_a_label(self):
        await self.client("metrics-secret-name")
        self.assertNotIn("metrics-secret-name", self.hub.get("/metrics"))



if __name__ == "__main__":
    unittest.main()
