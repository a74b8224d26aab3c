"""RFC 9110 and 9112: what an HTTP/1.1 server of this kind owes to a request's head, and its answers.

Heads that are malformed in every other way are in tests/proto/test_http1.c, at every cut.
"""

import email.utils
import json
import os
import re
import socket
import subprocess
import threading
import time
import unittest

import raw
from frames import FrameCase
from hub import DEADLINE, Hub
from raw import Wire

PAGES = ("/livez", "/readyz", "/healthz", "/metrics")
GET = "GET /livez HTTP/1.1\r\n"
HOST = "Host: h\r\n"
END = "\r\n"


class HttpCase(FrameCase):

    def open(self):
        wire = Wire(self.hub)
        self.addCleanup(wire.sock.close)
        return wire

    def ask(self, data, head_only=False):
        wire = self.open()
        wire.send(data if isinstance(data, bytes) else data.encode("latin-1"))
        wire.answer = wire.response(head_only=head_only)
        return wire

    def assert_served(self, name, data):
        """200, and the connection goes on."""
        with self.subTest(name):
            wire = self.ask(data)
            self.assertEqual(wire.answer.status, 200, wire.answer)
            wire.send(raw.request("/readyz"))
            self.assertEqual(wire.response().status, 200)

    def assert_ended(self, name, data, status):
        """That status, told to be the last answer, then the end: a FIN, nothing else."""
        with self.subTest(name):
            wire = self.ask(data)
            self.assertEqual(wire.answer.status, status, wire.answer)
            self.assertIn("close", wire.answer.headers["connection"].split(", "))
            self.assert_ends(wire)


class RequestLine(HttpCase):
    """9112 2.2 and 3."""

    def test_one_empty_line_in_front_is_ignored(self):
        self.assert_served("one", "\r\n" + GET + HOST + END)

    def test_what_is_not_the_grammar_is_400_and_the_end(self):
        for line in ("GET", "GET /livez", "GET /livez ", "GET  /livez HTTP/1.1",
                     "GET /livez  HTTP/1.1", " GET /livez HTTP/1.1", "GET /livez HTTP/1.1 ",
                     "GET\t/livez HTTP/1.1", "GET /li vez HTTP/1.1", "GET /livez http/1.1",
                     "GET /livez HTTP/11", "GET /livez HTTP/1.10", "G[T /livez HTTP/1.1",
                     "GET livez HTTP/1.1", "GET * HTTP/1.1", "GET /livez#f HTTP/1.1",
                     "GET /%zz HTTP/1.1", "GET /\xe9 HTTP/1.1", "GET /{} HTTP/1.1",
                     "GET ftp://h/livez HTTP/1.1", "\x16\x03\x01\x02", ""):
            self.assert_ended(repr(line), f"{line}\r\n{HOST}\r\n", 400)

    def test_a_method_is_a_name_with_its_case(self):
        for method in ("get", "Get"):
            self.assertEqual(self.ask(raw.request("/livez", method=method)).answer.status, 405)

    def test_a_request_line_of_8000_octets_is_read(self):
        path = "/livez?" + "x" * (8000 - len("GET /livez? HTTP/1.1\r\n"))
        self.assert_served("8000", raw.request(path))

    def test_a_longer_one_is_414(self):
        for size in (8193, 16_000, 100_000):
            self.assert_ended(size, raw.request("/" + "x" * size), 414)

    def test_the_version_of_an_answer_is_ours(self):
        for version in ("HTTP/1.0", "HTTP/1.1", "HTTP/1.5"):
            answer = self.ask(raw.request("/livez", version=version)).answer
            self.assertEqual((answer.status, answer.version), (200, "HTTP/1.1"))

    def test_another_major_version_is_505(self):
        for version in ("HTTP/0.9", "HTTP/2.0", "HTTP/3.0"):
            self.assert_ended(version, raw.request("/livez", version=version), 505)

    def test_absolute_form_is_accepted_and_its_host_counts(self):
        self.assert_served("absolute", raw.request("http://other:1/livez?x"))
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        for target, status in (("http://a.example/ws", 101), ("http://b.example/ws", 403)):
            wire = self.ask(f"GET {target} HTTP/1.1\r\nHost: b.example\r\nUpgrade: websocket\r\n"
                            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}\r\n"
                            "Origin: http://a.example\r\n\r\n")
            self.assertEqual(wire.answer.status, status)

    def test_asterisk_and_authority_form_reach_nothing(self):
        self.assertEqual(self.ask(raw.request("*", method="OPTIONS")).answer.status, 404)
        self.assert_ended("CONNECT", raw.request("h:80", method="CONNECT"), 400)


class Fields(HttpCase):
    """9112 2.2, 3.2, 5 and 9110 5."""

    def test_white_space_is_where_it_may_be(self):
        self.assert_served("around values", GET + "Host:h\r\nA:\t b \t\r\nB:\r\nC: \t \r\n" + END)

    def test_white_space_elsewhere_is_400(self):
        for name, field in {"before the colon": "A : b", "a tab before it": "A\t: b",
                            "before the name": " A: b", "inside the name": "A B: c",
                            "a fold": "A: b\r\n c", "a fold by tab": "A: b\r\n\tc",
                            "a fold of nothing": "A: b\r\n \r\nB: c"}.items():
            self.assert_ended(name, GET + HOST + field + "\r\n\r\n", 400)
            self.assert_ended(f"{name}, first", GET + field + "\r\n" + HOST + "\r\n", 400)

    def test_bare_cr_lf_and_nul_are_400(self):
        for name, data in {
                "lf behind the request line": GET.replace("\r", "") + HOST + END,
                "lf behind a field": GET + "Host: h\n" + END,
                "lf at the end": GET + HOST + "\n",
                "cr in a value": GET + HOST + "A: b\rc\r\n\r\n",
                "cr at a value's end": GET + HOST + "A: b\r\r\n\r\n",
                "cr in the request line": "GET /livez\r HTTP/1.1\r\n" + HOST + END,
                "cr in a name": GET + HOST + "A\rB: c\r\n\r\n",
                "nul in a value": GET + HOST + "A: b\0c\r\n\r\n",
                "nul in a name": GET + HOST + "A\0: b\r\n\r\n",
                "nul in the target": "GET /livez\0 HTTP/1.1\r\n" + HOST + END,
                "escape": GET + HOST + "A: \x1b[0m\r\n\r\n",
                "delete": GET + HOST + "A: \x7f\r\n\r\n"}.items():
            self.assert_ended(name, data, 400)

    def test_names_are_tokens(self):
        for name in ("", "A(", "A@", "A/", "A=", "\xe9", '"A"', "A,B", "[A]"):
            self.assert_ended(repr(name), GET + HOST + name + ": x\r\n\r\n", 400)
        self.assert_served("all of a token", GET + HOST + "!#$%&'*+-.^_`|~09azAZ: x\r\n" + END)

    def test_a_line_without_a_colon_is_400(self):
        self.assert_ended("none", GET + HOST + "A\r\n\r\n", 400)

    def test_obs_text_is_let_through_and_means_nothing(self):
        self.assert_served("obs-text", GET + HOST + "A: \xe9\xff\x80\r\n" + END)

    def test_there_has_to_be_one_good_host(self):
        for name, host in {
                "none": "", "two": "Host: a\r\nHost: b\r\n", "the same twice": HOST + HOST,
                "empty": "Host:\r\n", "a list": "Host: a, b\r\n", "a path": "Host: a/b\r\n",
                "user information": "Host: u@a\r\n", "a space": "Host: a b\r\n",
                "a bad port": "Host: a:x\r\n", "a large port": "Host: a:65536\r\n",
                "a scheme": "Host: http://a\r\n", "an open bracket": "Host: [::1\r\n",
                "a bare v6": "Host: ::1\r\n"}.items():
            self.assert_ended(name, GET + host + END, 400)
        for host in ("a", "A.example.", "127.0.0.1:8080", "[::1]", "[::1]:80", "a:"):
            self.assert_served(host, GET + f"Host: {host}\r\n" + END)

    def test_http_1_0_needs_no_host(self):
        self.assert_ended("1.0", "GET /livez HTTP/1.0\r\n\r\n", 200)

    def test_too_large_is_431(self):
        for name, fields in {
                "one value": "A: " + "x" * 20_000 + "\r\n", "one name": "x" * 20_000 + ": a\r\n",
                "many lines": "A: b\r\n" * 65, "much in many": ("A: " + "x" * 400 + "\r\n") * 60,
                "without an end": "A: " + "x" * 17_000}.items():
            self.assert_ended(name, GET + HOST + fields + END, 431)
        self.assert_served("64 fields", GET + HOST + "A: b\r\n" * 63 + END)

    def test_a_head_cut_at_every_byte_is_the_same(self):
        for data, status in ((raw.request("/livez?a", {"A": "b"}), 200),
                             ((GET + HOST + "A : b\r\n\r\n").encode(), 400),
                             (raw.request("/metrics", method="DELETE"), 405)):
            for cut in range(1, len(data)):
                with self.subTest(status=status, cut=cut):
                    wire = self.open()
                    self.send(wire, [data[:cut], data[cut:]], "frames")
                    self.assertEqual(wire.response().status, status)
                    wire.sock.close()


class Bodies(HttpCase):
    """9112 6: where a request ends; 9110 8.6 and 10.1.1."""

    def test_lengths_that_leave_doubt_are_400_and_the_end(self):
        for fields in ("Content-Length: 3\r\nContent-Length: 4", "Content-Length: 3, 4",
                       "Content-Length: 3\r\nContent-Length: 3", "Content-Length: -1",
                       "Content-Length: +1", "Content-Length: 0x1", "Content-Length: 1 1",
                       "Content-Length:", "Content-Length: 99999999999999999999",
                       "Content-Length: 3\r\nTransfer-Encoding: chunked",
                       "Transfer-Encoding: chunked\r\nContent-Length: 3",
                       "Transfer-Encoding: identity", "Transfer-Encoding: gzip",
                       "Transfer-Encoding: chunked, gzip", "Transfer-Encoding: chunked, chunked",
                       "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked;a=b",
                       "Transfer-Encoding : chunked", "Transfer-Encoding:"):
            self.assert_ended(fields, f"POST /livez HTTP/1.1\r\n{HOST}{fields}\r\n\r\nabc", 400)

    def test_a_transfer_coding_that_is_not_known_is_501(self):
        self.assert_ended("gzip", f"POST /livez HTTP/1.1\r\n{HOST}"
                          "Transfer-Encoding: gzip, chunked\r\n\r\n", 501)

    def test_a_transfer_coding_in_http_1_0_is_a_fault(self):
        self.assert_ended("1.0", "POST /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0",
                          400)

    def test_a_body_is_not_read_so_the_connection_ends(self):
        """9112 9.3; what stands in the body is never taken for a request."""
        inner = raw.request("/metrics")
        for name, data in {
                "length": raw.request("/livez", {"Content-Length": len(inner)}) + inner,
                "chunked": raw.request("/livez", {"Transfer-Encoding": "chunked"})
                + b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner),
                "not all there": raw.request("/livez", {"Content-Length": "1000"}) + inner,
        }.items():
            self.assert_ended(name, data, 200)

    def test_a_large_body_does_not_cost_the_client_its_answer(self):
        """9112 9.6: the server ends its side first and goes on reading, so no reset overtakes
        what it has said."""
        body = b"x" * (4 << 20)
        for path, status in (("/livez", 405), ("/ws", 405), ("/nothing", 404)):
            wire = self.open()
            head = raw.request(path, {"Content-Length": len(body)}, method="POST")
            sender = threading.Thread(target=wire.send, args=(head + body,))
            sender.start()
            self.assertEqual(wire.response().status, status)
            sender.join()
            with self.assertRaises(raw.Closed) as end:
                wire.fill()
            self.assertFalse(end.exception.reset, path)

    def test_an_expectation_is_answered_at_once_with_the_final_status(self):
        wire = self.ask(raw.request("/livez", {"Expect": "100-continue", "Content-Length": "9"},
                                    method="POST"))
        self.assertEqual(wire.answer.status, 405)
        self.assert_ends(wire)

    def test_a_length_of_zero_is_no_body(self):
        self.assert_served("zero", GET + HOST + "Content-Length: 0\r\n" + END)


class Persistence(HttpCase):
    """9112 9: keep-alive, pipelining, and the end."""

    def test_http_1_1_goes_on_and_1_0_does_not_unless_asked(self):
        for version, connection, stays in (
                ("1.1", "", True), ("1.1", "keep-alive", True), ("1.1", "close", False),
                ("1.1", "CLOSE", False), ("1.1", "x, close", False), ("1.1", "closed", True),
                ("1.0", "", False), ("1.0", "keep-alive", True), ("1.0", "Keep-Alive", True),
                ("1.0", "keep-alive, close", False), ("1.2", "", True)):
            with self.subTest(version=version, connection=connection):
                wire = self.ask(raw.request("/livez", {"Connection": connection},
                                            version=f"HTTP/{version}"))
                self.assertEqual(wire.answer.status, 200)
                self.assertEqual(wire.answer.headers["connection"],
                                 "keep-alive" if stays else "close")
                if stays:
                    wire.send(raw.request("/readyz"))
                    self.assertEqual(wire.response().status, 200)
                else:
                    self.assert_ends(wire)

    def test_refusals_leave_the_connection_open(self):
        wire = self.open()
        for path, method, status in (("/nothing", "GET", 404), ("/livez", "DELETE", 405),
                                     ("/ws", "GET", 426), ("/ws?user_id=", "GET", 426),
                                     ("/livez", "GET", 200)) * 3:
            wire.send(raw.request(path, method=method))
            self.assertEqual(wire.response().status, status)

    def test_pipelined_requests_are_answered_in_order(self):
        kinds = (("/livez", "GET", 200), ("/nothing", "GET", 404), ("/metrics", "DELETE", 405),
                 ("/ws", "GET", 426), ("/readyz", "GET", 200))
        wire = self.open()
        wire.send(b"".join(raw.request(path, method=method) for path, method, _ in kinds * 40))
        for _, _, status in kinds * 40:
            self.assertEqual(wire.response().status, status)

    def test_pipelined_heads_have_no_bodies_between_them(self):
        wire = self.open()
        wire.send(b"".join(raw.request(path, method="HEAD") for path in PAGES * 5)
                  + raw.request("/livez"))
        for _ in PAGES * 5:
            self.assertEqual(wire.response(head_only=True).status, 200)
        self.assertEqual(wire.response().body, b"ok\n")

    def test_a_handshake_may_be_pipelined_behind_requests(self):
        wire = self.open()
        wire.send(raw.request("/livez") + raw.request("/nothing") + raw.upgrade("/echo")
                  + raw.frame(raw.TEXT, "x") + raw.close_frame(1000))
        self.assertEqual([wire.response().status for _ in range(3)], [200, 404, 101])
        self.assertEqual(wire.frame()[:2], (raw.TEXT, b"x"))
        self.assertEqual(wire.frame().opcode, raw.CLOSE)
        self.assert_ends(wire)

    def test_nothing_behind_a_close_is_answered(self):
        late = raw.request("/readyz") * 3
        self.assert_ended("asked for", raw.request("/livez", {"Connection": "close"}) + late, 200)
        self.assert_ended("an error", GET.encode() + b"\r\n" + late, 400)
        self.assert_ended("1.0", b"GET /livez HTTP/1.0\r\n\r\n" + late, 200)

    def test_a_half_closed_client_gets_its_answers(self):
        wire = self.open()
        wire.send(raw.request("/livez") * 10)
        wire.sock.shutdown(socket.SHUT_WR)
        for _ in range(10):
            self.assertEqual(wire.response().status, 200)
        with self.assertRaises(raw.Closed) as end:
            wire.fill()
        self.assertFalse(end.exception.reset)

    def test_a_request_that_is_not_whole_gets_no_answer_but_an_end(self):
        for start in (b"", b"GET", (GET + HOST).encode()):
            wire = self.open()
            wire.send(start)
            wire.sock.shutdown(socket.SHUT_WR)
            with self.assertRaises(raw.Closed) as end:
                wire.fill()
            self.assertFalse(end.exception.reset)


class Answers(HttpCase):
    """9110 6.6.1, 8.6, 9.3.2, 10.2, 15: the fields of an answer."""

    REFUSALS = (("/nothing", "GET", 404), ("/livez", "POST", 405), ("/ws", "GET", 426),
                ("/" + "x" * 9000, "GET", 414))

    def all_answers(self):
        for page in PAGES:
            yield self.ask(raw.request(page)).answer
        for path, method, status in self.REFUSALS:
            answer = self.ask(raw.request(path, method=method)).answer
            self.assertEqual(answer.status, status)
            yield answer
        yield self.ask(GET + END).answer
        yield self.ask(GET + HOST + "A: b\r\n" * 70 + END).answer
        yield self.ask(raw.request("/livez", version="HTTP/3.0")).answer

    def test_every_answer_is_dated(self):
        for answer in self.all_answers():
            date = answer.headers["date"]
            self.assertRegex(date, r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d "
                             r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
                             r"\d{4} \d\d:\d\d:\d\d GMT$")
            told = email.utils.parsedate_to_datetime(date).timestamp()
            self.assertLess(abs(told - time.time()), 60, date)
            self.assertEqual(email.utils.formatdate(told, usegmt=True), date, "its weekday, too")

    def test_every_answer_says_what_it_is_and_how_long(self):
        for answer in self.all_answers():
            self.assertEqual(int(answer.headers["content-length"]), len(answer.body))
            self.assertRegex(answer.headers["content-type"], r"^(text/plain|application/json)")
            self.assertNotIn("transfer-encoding", answer.headers)
            if answer.status != 200:
                self.assertEqual(list(json.loads(answer.body)), ["error"])

    def test_a_405_lists_what_is_allowed(self):
        for path, allowed in [(page, {"GET", "HEAD"}) for page in PAGES] + [
                ("/ws", {"GET"}), ("/echo", {"GET"})]:
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
                answer = self.ask(raw.request(path, method=method)).answer
                self.assertEqual(answer.status, 405)
                self.assertEqual(set(answer.headers["allow"].split(", ")), allowed)

    def test_what_a_405_lists_is_allowed(self):
        for page in PAGES:
            for method in self.ask(raw.request(page, method="PUT")).answer.headers["allow"].split(
                    ", "):
                answer = self.ask(raw.request(page, method=method), head_only=True).answer
                self.assertEqual(answer.status, 200, (page, method))

    def test_head_is_get_without_its_content(self):
        for path in (*PAGES, "/nothing"):
            get = self.ask(raw.request(path)).answer
            wire = self.ask(raw.request(path, {"Connection": "close"}, method="HEAD"),
                            head_only=True)
            self.assert_ends(wire)
            self.assertEqual(wire.answer.status, get.status)
            self.assertEqual(set(wire.answer.headers), set(get.headers))
            if path != "/metrics":  # its length changes with its numbers
                self.assertEqual(wire.answer.headers["content-length"],
                                 get.headers["content-length"])

    def test_upgrade_is_named_in_connection(self):
        """9110 7.8: it is for this hop only."""
        answer = self.ask(raw.request("/ws")).answer
        self.assertEqual(answer.headers["upgrade"], "websocket")
        self.assertIn("Upgrade", answer.headers["connection"].split(", "))

    def test_a_101_has_no_content_nor_its_length(self):
        answer = self.ask(raw.upgrade("/echo")).answer
        self.assertFalse({"content-length", "transfer-encoding", "content-type"}
                         & set(answer.headers))

    def test_no_answer_tells_what_runs_here(self):
        for answer in self.all_answers():
            self.assertNotIn("server", answer.headers)
            self.assertNotIn("x-powered-by", answer.headers)


class Full(unittest.TestCase):
    """9110 15.6.4 and 10.2.3."""

    def test_a_503_says_when_to_come_again(self):
        with Hub({"limits.connections": 1}, shards=1) as hub:
            with Wire(hub) as first, Wire(hub) as second:
                first.upgrade("/ws?user_id=full")
                second.send(raw.upgrade("/ws?user_id=more"))
                answer = second.response()
                self.assertEqual(answer.status, 503)
                self.assertRegex(answer.headers["retry-after"], r"^\d+$")
                self.assertIn("date", answer.headers)
                second.end()


class Curl(HttpCase):
    """A client that the world uses."""

    def curl(self, *args):
        done = subprocess.run(["curl", "-sS", "--http1.1", "--max-time", str(DEADLINE), *args],
                              capture_output=True, text=True, check=True,
                              env={**os.environ, "no_proxy": "*"})
        return done.stdout.replace("\r", "")

    def url(self, path):
        return f"http://127.0.0.1:{self.hub.port}{path}"

    def test_all_pages(self):
        for page in PAGES:
            self.assertTrue(self.curl("-f", self.url(page)))
        self.assertIn("\nringhub_connections{", self.curl("-f", self.url("/metrics")))

    def test_head(self):
        for page in PAGES:
            text = self.curl("-I", self.url(page))
            self.assertTrue(text.startswith("HTTP/1.1 200 OK\n"), text)
            self.assertRegex(text, r"\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\n")

    def test_statuses(self):
        for status, args in ((404, ["/nothing"]), (405, ["/livez", "-d", "x"]),
                             (405, ["/ws", "-X", "OPTIONS"]), (426, ["/ws"]),
                             (414, ["/" + "x" * 9000]),
                             (431, ["/livez", "-H", "A: " + "x" * 17_000]),
                             (400, ["/livez", "-H", "Host:"])):
            out = self.curl("-o", "/dev/null", "-w", "%{http_code}", self.url(args[0]), *args[1:])
            self.assertEqual(out, str(status), args[0][:20])

    def test_one_connection_serves_many(self):
        out = self.curl("-w", "%{num_connects} %{http_code}\n", "-o", "/dev/null", "-o",
                        "/dev/null", "-o", "/dev/null", self.url("/livez"), self.url("/nothing"),
                        self.url("/metrics"))
        self.assertEqual(out.split("\n")[:3], ["1 200", "0 404", "0 200"])

    def test_a_large_upload_is_answered_without_an_error(self):
        """curl sends Expect: 100-continue, is refused at once, and calls that a success."""
        out = subprocess.run(
            ["curl", "-sS", "--http1.1", "--max-time", str(DEADLINE), "-o", "/dev/null", "-w",
             "%{http_code}", "-H", "Expect: 100-continue", "--data-binary", "@-",
             self.url("/livez")], input=b"x" * (8 << 20), capture_output=True, check=True)
        self.assertEqual(out.stdout, b"405")

    def test_http_1_0(self):
        text = self.curl("-0", "-i", self.url("/livez"))
        self.assertTrue(re.match(r"HTTP/1\.1 200 OK\n", text), text)
        self.assertIn("\nConnection: close\n", text)


if __name__ == "__main__":
    unittest.main()
