"""RFC 6455, section 4 (and 9.1, 11.3): the opening handshake, read and answered."""

import base64
import subprocess
import unittest

import raw
from frames import FrameCase, closed, echo
from hub import DEADLINE
from raw import TEXT, Wire, close_frame, frame

KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # 1.3
PATHS = ("/ws", "/echo")


def head(*lines, path="/echo", first=None):
    """A handshake's head of exactly these lines."""
    return ("\r\n".join([first or f"GET {path} HTTP/1.1", *lines]) + "\r\n\r\n").encode()


HOST = "Host: localhost"
UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
VERSION = "Sec-WebSocket-Version: 13"
KEYED = f"Sec-WebSocket-Key: {KEY}"
ALL = (HOST, UPGRADE, CONNECTION, VERSION, KEYED)


class HandshakeCase(FrameCase):

    def ask(self, data):
        """The answer to a request, and the wire that it came by."""
        wire = Wire(self.hub)
        self.addCleanup(wire.sock.close)
        wire.send(data)
        wire.answer = wire.response()
        return wire

    def assert_open(self, name, data):
        """It is accepted, and the connection is one."""
        with self.subTest(name):
            wire = self.ask(data)
            self.assertEqual(wire.answer.status, 101, wire.answer)
            wire.send(frame(TEXT, "x") + close_frame(1000))
            self.expect(wire, [echo(TEXT, "x"), closed(1000)])
            self.assert_ends(wire)
            return wire.answer

    def assert_refused(self, name, data, status):
        with self.subTest(name):
            wire = self.ask(data)
            self.assertEqual(wire.answer.status, status, wire.answer)
            self.assertNotIn("sec-websocket-accept", wire.answer.headers)
            return wire


class Reading(HandshakeCase):
    """4.2.1: what a handshake has to be, and what else it may be."""

    def test_the_example_of_the_rfc(self):
        answer = self.assert_open("1.3", head(
            HOST, UPGRADE, CONNECTION, KEYED, "Origin: http://localhost",
            "Sec-WebSocket-Protocol: chat, superchat", VERSION))
        self.assertEqual(answer.headers["sec-websocket-accept"], ACCEPT)

    def test_the_order_of_the_fields_does_not_matter(self):
        for turn in range(len(ALL)):
            self.assert_open(f"turn {turn}", head(*ALL[turn:], *ALL[:turn]))
        self.assert_open("reversed", head(*reversed(ALL)))

    def test_names_and_tokens_are_compared_without_case(self):
        for name, lines in {
                "lower": [line.replace(line.split(":")[0], line.split(":")[0].lower())
                          for line in ALL],
                "upper": [line.replace(line.split(":")[0], line.split(":")[0].upper())
                          for line in ALL],
                "values": [HOST, "Upgrade: WebSocket", "Connection: uPGRADE", VERSION, KEYED],
        }.items():
            self.assert_open(name, head(*lines))

    def test_upgrade_and_connection_are_lists(self):
        for name, lines in {
                "connection of a browser": ["Connection: keep-alive, Upgrade", UPGRADE],
                "two connection lines": ["Connection: keep-alive", CONNECTION, UPGRADE],
                "empty elements": ["Connection: , ,Upgrade,", UPGRADE],
                "no space": ["Connection:keep-alive,upgrade", UPGRADE],
                "tabs": ["Connection:\tkeep-alive\t,\tUpgrade\t", "Upgrade:\t websocket \t"],
                "several protocols": [CONNECTION, "Upgrade: h2c, websocket"],
                "two upgrade lines": [CONNECTION, "Upgrade: h2c", UPGRADE],
        }.items():
            self.assert_open(name, head(HOST, *lines, VERSION, KEYED))

    def test_unknown_fields_are_ignored(self):
        self.assert_open("unknown", head(*ALL, "X-Unknown: \xe9 \xff", "Cookie: a=b; c=\"d\"",
                                         "Authorization: Basic eDp5", "Sec-WebSocket-Other: 1",
                                         "Sec-WebSocket-Accept: nonsense", "Upgrade-Insecure: 1"))

    def test_a_target_in_absolute_form_is_a_resource_too(self):
        for scheme in ("http", "https"):
            self.assert_open(scheme, head(*ALL, path=f"{scheme}://localhost/echo?x=y"))

    def test_a_query_does_not_change_the_resource(self):
        self.assert_open("query", head(*ALL, path="/echo?a=b&c=%20"))

    def test_a_later_minor_version_of_http_is_as_1_1(self):
        self.assert_open("HTTP/1.2", head(*ALL, first="GET /echo HTTP/1.2"))

    def test_what_is_missing_or_wrong_is_refused(self):
        for path in PATHS:
            for name, lines, status in (
                    ("no host", ALL[1:], 400),
                    ("no upgrade", (HOST, CONNECTION, VERSION, KEYED), 426),
                    ("another upgrade", (HOST, "Upgrade: h2c", CONNECTION, VERSION, KEYED), 426),
                    ("websocket with a version",
                     (HOST, "Upgrade: websocket/13", CONNECTION, VERSION, KEYED), 426),
                    ("no connection", (HOST, UPGRADE, VERSION, KEYED), 400),
                    ("another connection",
                     (HOST, UPGRADE, "Connection: keep-alive", VERSION, KEYED), 400),
                    ("a part of the token",
                     (HOST, UPGRADE, "Connection: upgraded", VERSION, KEYED), 400),
                    ("no version", (HOST, UPGRADE, CONNECTION, KEYED), 400),
                    ("no key", (HOST, UPGRADE, CONNECTION, VERSION), 400),
                    ("two keys", (*ALL, KEYED), 400),
                    ("two versions", (*ALL, VERSION), 400),
                    ("two versions that differ", (*ALL, "Sec-WebSocket-Version: 8"), 400),
                    ("two hosts", (*ALL, HOST), 400),
                    ("a body", (*ALL, "Content-Length: 1"), 400),
                    ("a chunked body", (*ALL, "Transfer-Encoding: chunked"), 400),
                    ("an expectation", (*ALL, "Expect: 100-continue"), 400),
                    ("a folded field", (*ALL, "X-A: b\r\n c"), 400),
                    ("a space before the colon", (*ALL, "X-A : b"), 400)):
                self.assert_refused(f"{name} {path}", head(*lines, path=path), status)

    def test_a_key_that_is_not_16_bytes_of_base64_is_400(self):
        keys = {"empty": "", "too short": base64.b64encode(bytes(15)).decode(),
                "too long": base64.b64encode(bytes(17)).decode(), "no padding": KEY[:-2],
                "one pad": KEY[:-1], "not base64": "!" * 22 + "==", "urlsafe": "_" * 21 + "w==",
                "a space inside": KEY[:10] + " " + KEY[11:], "quoted": f'"{KEY}"',
                "two in a list": f"{KEY}, {KEY}", "bits over": "A" * 21 + "B=="}
        for name, key in keys.items():
            self.assert_refused(name, head(*ALL[:4], f"Sec-WebSocket-Key: {key}"), 400)

    def test_white_space_around_a_key_is_not_part_of_it(self):
        answer = self.assert_open("spaces", head(*ALL[:4], f"Sec-WebSocket-Key: \t{KEY} \t"))
        self.assertEqual(answer.headers["sec-websocket-accept"], ACCEPT)

    def test_another_method_is_405(self):
        for method in ("POST", "PUT", "OPTIONS", "DELETE", "PATCH", "get", "BREW"):
            for path in PATHS:
                wire = self.assert_refused(method, head(*ALL, first=f"{method} {path} HTTP/1.1"),
                                           405)
                self.assertEqual(wire.answer.headers["allow"], "GET")

    def test_http_1_0_cannot_upgrade(self):
        """RFC 9110 7.8: Upgrade is ignored there, so it is a plain GET of a WebSocket."""
        plain = self.ask(head(HOST, first="GET /echo HTTP/1.0")).answer
        for connection in (CONNECTION, "Connection: Upgrade, keep-alive"):
            wire = self.assert_refused(connection, head(
                HOST, UPGRADE, connection, VERSION, KEYED, first="GET /echo HTTP/1.0"),
                plain.status)
            self.assertEqual(wire.answer.status, 426)

    def test_http_2_is_505(self):
        for version in ("2.0", "3.0", "0.9"):
            self.assert_refused(version, head(*ALL, first=f"GET /echo HTTP/{version}"), 505)

    def test_another_resource_is_404(self):
        for path in ("/", "/wss", "/ws/", "/WS", "/echo/x", "/%65cho"):
            self.assert_refused(path, head(*ALL, path=path), 404)

    def test_a_fragment_in_the_target_is_400(self):
        self.assert_refused("fragment", head(*ALL, path="/echo#x"), 400)

    def test_another_origin_is_403(self):
        for origin in ("http://evil.example", "null", "", "http://localhost.evil.example",
                       "http://localhost:1"):
            self.assert_refused(origin, head(*ALL, f"Origin: {origin}"), 403)
        self.assert_refused("two", head(*ALL, "Origin: http://localhost",
                                        "Origin: http://localhost"), 403)

    def test_without_an_origin_it_is_no_browser(self):
        self.assert_open("none", head(*ALL))


class Versions(HandshakeCase):
    """4.2.2, point 4, and 4.4."""

    def test_another_version_is_426_and_names_13(self):
        for version in ("0", "7", "8", "12", "14", "25", "255", "013", "13, 8", "x", "", "-13"):
            wire = self.assert_refused(version, head(HOST, UPGRADE, CONNECTION, KEYED,
                                                     f"Sec-WebSocket-Version: {version}"), 426)
            self.assertEqual(wire.answer.headers["sec-websocket-version"], "13")

    def test_a_client_may_try_again_with_it_on_the_same_connection(self):
        wire = self.ask(head(HOST, UPGRADE, CONNECTION, KEYED, "Sec-WebSocket-Version: 25"))
        self.assertEqual(wire.answer.status, 426)
        self.assertIn("keep-alive", wire.answer.headers["connection"])
        wire.send(head(*ALL))
        self.assertEqual(wire.response().status, 101)
        self.assert_alive(wire)

    def test_a_plain_get_is_426_with_upgrade(self):
        for path in PATHS:
            answer = self.ask(head(HOST, path=path)).answer
            self.assertEqual(answer.status, 426)
            self.assertEqual(answer.headers["upgrade"], "websocket")
            self.assertIn("upgrade", answer.headers["connection"].lower().split(", "))
            self.assertEqual(answer.headers["sec-websocket-version"], "13")

    def test_curl_sees_the_426(self):
        done = subprocess.run(
            ["curl", "-sS", "--http1.1", "--max-time", str(DEADLINE), "-D", "-", "-o", "/dev/null",
             "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", KEYED,
             "-H", "Sec-WebSocket-Version: 12", f"http://127.0.0.1:{self.hub.port}/ws"],
            capture_output=True, text=True, check=True)
        self.assertTrue(done.stdout.startswith("HTTP/1.1 426 "), done.stdout)
        self.assertIn("\nSec-WebSocket-Version: 13\n", done.stdout.replace("\r", ""))


class Answering(HandshakeCase):
    """4.2.2, point 5."""

    def test_a_101_has_these_fields_and_no_others(self):
        for path in PATHS:
            wire = self.ask(head(*ALL, path=path))
            self.assertEqual(wire.answer.version, "HTTP/1.1")
            self.assertEqual(wire.answer.headers, {
                "upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT})

    def test_the_accept_is_computed_of_the_key_as_it_stands(self):
        for byte in range(0, 256, 5):
            key = base64.b64encode(bytes([byte]) * 16).decode()
            wire = self.ask(head(*ALL[:4], f"Sec-WebSocket-Key: {key}"))
            self.assertEqual(wire.answer.headers["sec-websocket-accept"], raw.accept_of(key))

    def test_a_subprotocol_is_one_of_those_offered_or_none(self):
        for offer, chosen in {
                "ringhub.v1": "ringhub.v1", "chat, ringhub.v1": "ringhub.v1",
                "ringhub.v1,chat": "ringhub.v1", "chat": None, "RINGHUB.V1": None,
                ", ,ringhub.v1,,": "ringhub.v1", "ringhub.v10": None,
                "chat\r\nSec-WebSocket-Protocol: ringhub.v1": "ringhub.v1"}.items():
            for path in PATHS:
                wire = self.ask(head(*ALL, f"Sec-WebSocket-Protocol: {offer}", path=path))
                self.assertEqual(wire.answer.status, 101)
                self.assertEqual(wire.answer.headers.get("sec-websocket-protocol"), chosen)

    def test_a_malformed_list_of_subprotocols_is_400(self):
        for offer in ("", ",", " , ", "a b", "a;b", '"a"', "a/b", "\xe9", "a, b, a"):
            self.assert_refused(offer, head(*ALL, f"Sec-WebSocket-Protocol: {offer}"), 400)

    def test_an_extension_that_is_not_known_is_not_accepted(self):
        for offer in ("x-unknown", "permessage-bzip2; level=9", "x-webkit-deflate-frame",
                      'foo; bar="baz", qux', ", ,x-unknown,,", "permessage-deflated",
                      "x-a\r\nSec-WebSocket-Extensions: x-b"):
            wire = self.ask(head(*ALL, f"Sec-WebSocket-Extensions: {offer}"))
            self.assertEqual(wire.answer.status, 101, offer)
            self.assertNotIn("sec-websocket-extensions", wire.answer.headers)

    def test_a_malformed_list_of_extensions_is_400(self):
        """9.1: what is not of the grammar fails the handshake; a quoted value is a token, too."""
        for offer in ("", ",", ";", "a;", "a; ;b", "a b", "a; b c", "a=b", "a;b=", 'a;b="',
                      'a;b=""', 'a;b="x y"', 'a;b="x,y"', "a;=b", "a;b=c=d", "\xe9", "a/b"):
            self.assert_refused(offer, head(*ALL, f"Sec-WebSocket-Extensions: {offer}"), 400)

    def test_no_extension_without_an_offer(self):
        self.assertNotIn("sec-websocket-extensions", self.ask(head(*ALL)).answer.headers)

    def test_a_refused_handshake_is_a_whole_http_answer(self):
        """And what a client sent behind it is read as HTTP, not as frames."""
        for data, status in ((head(HOST), 426), (head(*ALL, path="/nothing"), 404),
                             (head(*ALL[:4]), 400)):
            wire = self.ask(data + head(HOST, path="/livez"))
            self.assertEqual(wire.answer.status, status)
            self.assertEqual(wire.response().status, 200)


if __name__ == "__main__":
    unittest.main()
