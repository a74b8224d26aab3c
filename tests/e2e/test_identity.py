"""Who a client is with auth.mode none, and what the handshake answers (PROTOCOL 2)."""

import asyncio
import itertools
import unittest
import urllib.parse

import websockets

import raw
from clients import ClientCase, open_client, open_socket, path
from hub import Hub, eventually, run_daemon


class Names(ClientCase):

    async def user_of(self, target, headers=None):
        """The user that a raw handshake target makes, by its welcome."""
        socket = await open_socket(self.hub, target, extra_headers=headers)
        self.addAsyncCleanup(socket.close)
        from clients import Client
        return (await Client(socket).receive())["data"]["user"]

    async def refused(self, target, headers=None):
        with self.assertRaises(websockets.InvalidStatusCode) as caught:
            await open_socket(self.hub, target, extra_headers=headers)
        return caught.exception.status_code

    async def test_the_query_names_the_user(self):
        self.assertEqual(await self.user_of("/ws?user_id=anna"), "anna")
        self.assertEqual(await self.user_of("/ws?other=1&user_id=bert&device=x"), "bert")

    async def test_the_header_names_the_user(self):
        self.assertEqual(await self.user_of("/ws", {"X-User-ID": "carl"}), "carl")

    async def test_names_are_percent_decoded(self):
        cases = {"a%20b": "a b", "%C3%A9t%c3%a9": "été", "a%26b%3Dc": "a&b=c", "%2B": "+",
                 "%25": "%", "%F0%9F%98%80": "😀", "a%2Fb": "a/b", "a%22b%5C": 'a"b\\'}
        for given, name in cases.items():
            with self.subTest(given):
                self.assertEqual(await self.user_of(f"/ws?user_id={given}"), name)

    async def test_a_plus_is_a_plus(self):
        self.assertEqual(await self.user_of("/ws?user_id=a+b"), "a+b")

    async def test_1_to_128_bytes_are_a_name(self):
        for name in ("x", "x" * 128, "é" * 64):
            with self.subTest(len(name)):
                target = "/ws?user_id=" + urllib.parse.quote(name)
                self.assertEqual(await self.user_of(target), name)

    async def test_empty_or_bad_names_are_400(self):
        cases = {"empty": "", "129 bytes": "x" * 129, "130 bytes of UTF-8": "%C3%A9" * 65,
                 "nul": "a%00b", "newline": "a%0Ab", "delete": "%7F", "C1 control": "%C2%85",
                 "not UTF-8": "%FF", "cut UTF-8": "a%C3", "overlong": "%C0%AF",
                 "surrogate": "%ED%A0%80", "beyond Unicode": "%F4%90%80%80",
                 "cut escape": "a%4", "no hex": "%zz", "lone percent": "a%"}
        for name, given in cases.items():
            with self.subTest(name):
                self.assertEqual(await self.refused(f"/ws?user_id={given}"), 400)

    async def test_a_bad_header_is_400(self):
        for value in ("x" * 129, ""):
            with self.subTest(len(value)):
                self.assertEqual(await self.refused("/ws", {"X-User-ID": value}), 400)

    async def test_no_name_gives_a_random_one(self):
        names = {await self.user_of("/ws") for _ in range(8)}
        self.assertEqual(len(names), 8)
        for name in names:
            self.assertRegex(name, r"^anon-[^\s]{8,}$")

    async def test_an_anonymous_user_can_be_written_to(self):
        one, other = await self.client(), await self.client()
        await one.send_message(other.user, "hello")
        self.assertEqual((await other.message())["from"], one.user)

    async def test_user_type_and_role_may_be_given(self):
        await self.client("typed", user_type="agent", role="admin")
        await self.client("typed", headers={"X-User-Type": "agent", "X-Role": "admin"})

    async def test_a_bad_device_is_400(self):
        self.assertEqual(await self.refused("/ws?user_id=dora&device=%00"), 400)

    async def test_names_are_case_sensitive_and_exact(self):
        small, large = await self.client("erna"), await self.client("Erna")
        await small.send_message("Erna", 1)
        self.assertEqual((await large.message())["content"], 1)
        await small.quiet()


class Handshake(ClientCase):

    async def test_ringhub_v1_is_chosen_when_offered(self):
        for offer in (["ringhub.v1"], ["other", "ringhub.v1"]):
            with self.subTest(offer):
                client = await self.client("sub", how={"subprotocols": offer})
                self.assertEqual(client.socket.subprotocol, "ringhub.v1")

    async def test_only_unknown_subprotocols_are_accepted_without_choosing(self):
        client = await self.client("sub", how={"subprotocols": ["graphql-ws", "mqtt"]})
        self.assertIsNone(client.socket.subprotocol)

    async def test_no_offer_gets_no_subprotocol(self):
        with raw.Wire(self.hub) as wire:
            answer = wire.upgrade("/ws?user_id=sub")
            self.assertNotIn("sec-websocket-protocol", answer.headers)
            self.assertNotIn("sec-websocket-extensions", answer.headers)

    async def test_deflate_is_not_agreed_to_while_it_is_off(self):
        client = await self.client("plain", how={"compression": "deflate"})
        self.assertEqual(client.socket.extensions, [])

    def test_a_handshake_cut_at_every_byte_means_the_same(self):
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        head = raw.upgrade("/ws?user_id=cut", key=key, headers={"X-Long": "x" * 40})
        for cut in range(1, len(head)):
            with raw.Wire(self.hub) as wire:
                wire.send(head[:cut])
                wire.send(head[cut:])
                answer = wire.response()
                self.assertEqual(answer.status, 101, f"cut at {cut}")
                self.assertEqual(answer.headers["sec-websocket-accept"],
                                 "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
                self.assertIn(b'"welcome"', wire.message().payload)

    def test_a_handshake_byte_by_byte(self):
        with raw.Wire(self.hub) as wire:
            for byte in raw.upgrade("/ws?user_id=drip"):
                wire.send(bytes([byte]))
            self.assertEqual(wire.response().status, 101)

    def test_header_names_and_tokens_are_case_insensitive(self):
        head = raw.upgrade("/ws?user_id=case").replace(b"Upgrade: websocket", b"uPGRADE: WebSocket")
        head = head.replace(b"Connection: Upgrade", b"CONNECTION: keep-alive, UPGRADE")
        with raw.Wire(self.hub) as wire:
            wire.send(head)
            self.assertEqual(wire.response().status, 101)

    def test_requests_before_the_upgrade_are_served_on_the_same_connection(self):
        with raw.Wire(self.hub) as wire:
            wire.send(raw.request("/healthz"))
            self.assertEqual(wire.response().status, 200)
            wire.upgrade("/ws?user_id=later")
            self.assertIn(b'"welcome"', wire.message().payload)

    def test_an_upgrade_pipelined_behind_a_request(self):
        with raw.Wire(self.hub) as wire:
            wire.send(raw.request("/healthz") + raw.upgrade("/ws?user_id=piped"))
            self.assertEqual(wire.response().status, 200)
            self.assertEqual(wire.response().status, 101)
            self.assertIn(b'"welcome"', wire.message().payload)


class OpenToTheNet(unittest.TestCase):
    """Mode none beyond loopback: only when the operator says so."""

    def test_refuses_to_start_on_all_addresses(self):
        for listen in ("0.0.0.0:0", "[::]:0"):
            with self.subTest(listen):
                done = run_daemon("--listen", listen)
                self.assertEqual(done.returncode, 2, done)
                self.assertIn("auth.allow_insecure", done.stderr)

    def test_starts_when_allowed(self):
        with Hub({"auth.allow_insecure": "true"}, listen="0.0.0.0:0") as hub:
            hub.host = "127.0.0.1"
            self.assertIn("200", hub.get("/healthz") and "200")

    def test_a_forwarded_request_is_logged_as_a_warning(self):
        for header in ("Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1",
                       "X-Forwarded-Proto: https"):
            with self.subTest(header), Hub() as hub, raw.Wire(hub) as wire:
                name, value = header.split(": ")
                wire.upgrade("/ws?user_id=proxied", {name: value})
                eventually(lambda: [line for line in hub.log() if line["level"] == "warn"
                                    and "orwarded" in str(line)], hub.log_text)


class ManyAtOnce(ClientCase):

    async def test_hundreds_of_users_arrive_on_all_shards_at_once(self):
        names = [f"crowd-{i}" for i in range(300)]
        clients = await asyncio.gather(*(self.client(name) for name in names))
        self.assertEqual([client.user for client in clients], names)
        sessions = {client.welcome["data"]["session"] for client in clients}
        self.assertEqual(len(sessions), 300)


if __name__ == "__main__":
    unittest.main()
