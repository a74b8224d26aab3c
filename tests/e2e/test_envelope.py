"""The envelope (PROTOCOL 3): welcome, ping, answers, and what is invalid."""

import json
import re
import struct
import time
import unittest

import raw
from clients import ClientCase, envelope
from hub import Hub


def member(text, name):
    """What stands behind "name": in a flat enough text, up to its end: to compare bytes."""
    start = text.index(f'"{name}":') + len(name) + 3
    value, end = json.JSONDecoder().raw_decode(text[start:])
    return text[start:start + end]


OPAQUE = [
    '1', '-0', '1.50', '1e5', '1E+05', '12345678901234567890', '0.1e-7', 'true', 'false', 'null',
    '""', '"text"', r'"\u00e9\/\b\f\n\r\t\"\\"', r'"\ud83d\ude00"', '"é😀"', '"\u007f"', '[]',
    '[1,2,3]', '{}', '{"a":{"b":[{}]}}', '{"a":1,"a":2}', '{"id":1,"to":"x","content":2}',
    '"' + "x" * 5000 + '"', '[' * 60 + ']' * 60,
]
SPACED = ['[ 1 ,\t2 ,\r\n3 ]', '{ "a" : 1 }', '{\n  "a" : [ ]\n}']


class Welcome(ClientCase):

    async def test_welcome_comes_first_with_its_fields(self):
        client = await self.client("welcome-anna")
        data = client.welcome["data"]
        self.assertEqual(set(data), {"user", "session", "node", "server_time", "heartbeat_ms",
                                     "resumed"})
        self.assertEqual(data["user"], "welcome-anna")
        self.assertIs(data["resumed"], False)
        self.assertEqual(data["heartbeat_ms"], 30_000)
        self.assertLess(abs(data["server_time"] - time.time() * 1000), 60_000)
        for name in ("session", "node"):
            self.assertIsInstance(data[name], str)
            self.assertTrue(data[name])

    async def test_sessions_differ_and_the_node_is_the_same(self):
        one, other = await self.client("welcome-bert"), await self.client("welcome-bert")
        self.assertNotEqual(one.welcome["data"]["session"], other.welcome["data"]["session"])
        self.assertEqual(one.welcome["data"]["node"], other.welcome["data"]["node"])

    async def test_frames_right_behind_the_handshake_are_answered(self):
        for user in range(20):  # on all shards: the bytes travel with the connection
            pings = b"".join(raw.frame(raw.TEXT, json.dumps(
                {"type": "request", "event": "ping", "request_id": str(i), "data": i}))
                for i in range(10))
            with raw.Wire(self.hub) as wire:
                wire.upgrade(f"/ws?user_id=behind-{user}", behind=pings)
                self.assertEqual(envelope(wire.message().payload.decode())["event"], "welcome")
                for i in range(10):
                    got = envelope(wire.message().payload.decode())
                    self.assertEqual((got["request_id"], got["data"]), (str(i), i))

    async def test_a_lot_behind_the_handshake_travels_with_the_connection(self):
        for user in range(8):
            asks = [json.dumps({"type": "request", "event": "ping", "request_id": str(i),
                                "data": "x" * 1000}) for i in range(300)]
            with raw.Wire(self.hub) as wire:
                wire.upgrade(f"/ws?user_id=much-{user}",
                             behind=b"".join(raw.frame(raw.TEXT, ask) for ask in asks))
                wire.message()
                for i in range(300):
                    self.assertEqual(json.loads(wire.message().payload)["request_id"], str(i))


class Ping(ClientCase):

    async def test_a_response_has_all_its_fields(self):
        client = await self.client("ping-anna")
        got = await client.request("ping", [1])
        self.assertEqual(set(got), {"type", "request_id", "code", "message", "data", "timestamp",
                                    "trace_id"}, got)
        self.assertEqual((got["type"], got["code"], got["data"]), ("response", 200, [1]))
        self.assertIsInstance(got["message"], str)
        self.assertRegex(got["trace_id"], "^[0-9a-f]{32}$")

    async def test_the_data_comes_back_byte_for_byte(self):
        client = await self.client("ping-bert")
        for data in OPAQUE + SPACED:
            with self.subTest(data[:40]):
                await client.send(f'{{"type":"request","event":"ping","request_id":"b","data":'
                                  f'{data}}}')
                self.assertEqual(member(await client.receive_text(), "data"), data)

    async def test_ping_without_data_is_answered(self):
        client = await self.client("ping-carl")
        self.assertEqual((await client.request("ping"))["code"], 200)

    async def test_a_traceparent_gives_its_trace_id(self):
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        client = await self.client("ping-dora",
                                   headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        self.assertEqual((await client.request("ping", 1))["trace_id"], trace)
        self.assertEqual((await client.request("no.such", 1))["trace_id"], trace)

    async def test_a_bad_traceparent_is_ignored(self):
        for bad in ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "junk", "00-xyz-1-01",
                    "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"):
            with self.subTest(bad):
                client = await self.client("ping-emil", headers={"traceparent": bad})
                trace = (await client.request("ping", 1))["trace_id"]
                self.assertRegex(trace, "^[0-9a-f]{32}$")
                self.assertNotIn(trace, bad.lower())

    async def test_request_ids_come_back_as_they_are(self):
        client = await self.client("ping-fred")
        for given, meant in ((r'"\u0061\/\""', 'a/"'), ('"é😀"', "é😀"), ('"' + "i" * 64 + '"',
                                                                      "i" * 64)):
            with self.subTest(given):
                await client.send(f'{{"request_id":{given},"type":"request","event":"ping"}}')
                self.assertEqual((await client.receive())["request_id"], meant)

    async def test_without_a_request_id_there_is_no_response(self):
        client = await self.client("ping-gert")
        await client.send({"type": "request", "event": "ping", "data": 1})
        await client.quiet()

    async def test_without_a_request_id_a_failure_is_still_told(self):
        client = await self.client("ping-hans")
        await client.send({"type": "request", "event": "no.such.event"})
        got = await client.receive()
        self.assert_error(got, 404, "unknown_event")
        self.assertNotIn("request_id", got)

    async def test_fields_come_in_any_order_with_white_space_and_escaped_keys(self):
        client = await self.client("ping-inge")
        for text in (' \t\r\n{ "data" : 7 , "request_id" : "s" , "event" : "ping" , '
                     '"type" : "request" } \n',
                     r'{"t\u0079pe":"reque\u0073t","\u0065vent":"p\u0069ng","request_id":"s",'
                     r'"dat\u0061":7}'):
            with self.subTest(text):
                await client.send(text)
                got = await client.receive()
                self.assertEqual((got["type"], got["request_id"], got["data"]),
                                 ("response", "s", 7))

    async def test_unknown_fields_are_ignored_also_twice(self):
        client = await self.client("ping-jan")
        await client.send('{"type":"request","x":1,"x":{"type":2},"event":"ping",'
                          '"request_id":"u","code":"?","data":3}')
        self.assertEqual((await client.receive())["data"], 3)

    async def test_an_unknown_event_is_404(self):
        client = await self.client("ping-karl")
        for event in ("pong", "Ping", "ping ", "message.sent", "e" * 64):
            with self.subTest(event):
                self.assert_error(await client.request(event, 1), 404, "unknown_event")


def nested(depth, opening="[", closing="]"):
    """An envelope whose data nests so that the whole is `depth` levels deep."""
    return ('{"type":"request","event":"ping","request_id":"n","data":'
            + opening * (depth - 1) + ("0" if opening != "[" else "") + closing * (depth - 1) + "}")


INVALID = {
    "empty": "",
    "white space": " \n",
    "no JSON": "hello",
    "an array": "[]",
    "a string": '"x"',
    "a number": "1",
    "null": "null",
    "two objects": '{"type":"request","event":"ping"}{}',
    "something behind": '{"type":"request","event":"ping"} x',
    "cut": '{"type":"request","event":"ping"',
    "a comma too many": '{"type":"request","event":"ping",}',
    "single quotes": "{'type':'request','event':'ping'}",
    "a comment": '{"type":"request",/**/"event":"ping"}',
    "a leading zero": '{"type":"request","event":"ping","data":01}',
    "NaN": '{"type":"request","event":"ping","data":NaN}',
    "a bare control character": '{"type":"request","event":"ping","data":"\n"}',
    "a lone surrogate": r'{"type":"request","event":"ping","data":"\ud800"}',
    "a bad escape": r'{"type":"request","event":"ping","data":"\x"}',
    "a byte order mark": '\ufeff{"type":"request","event":"ping"}',
    "no type": '{"event":"ping","request_id":"1"}',
    "an unknown type": '{"type":"question","event":"ping"}',
    "a type that is no string": '{"type":1,"event":"ping"}',
    "response from a client": '{"type":"response","event":"ping","request_id":"1"}',
    "error from a client": '{"type":"error","event":"ping","request_id":"1"}',
    "notify from a client": '{"type":"notify","event":"ping"}',
    "no event": '{"type":"request","request_id":"1"}',
    "an empty event": '{"type":"request","event":""}',
    "an event of 65 bytes": '{"type":"request","event":"' + "e" * 65 + '"}',
    "an event that is no string": '{"type":"request","event":5}',
    "a request_id of 65 bytes": '{"type":"request","event":"ping","request_id":"' + "i" * 65 + '"}',
    "a duplicate type": '{"type":"request","event":"ping","type":"request"}',
    "a duplicate event": '{"type":"request","event":"ping","event":"ping"}',
    "a duplicate request_id": '{"type":"request","event":"ping","request_id":"1","request_id":"1"}',
    "a duplicate data": '{"type":"request","event":"ping","data":1,"data":1}',
    "a duplicate after unescaping": r'{"type":"request","event":"ping","\u0074ype":"request"}',
    "65 levels of arrays": nested(65),
    "65 levels of objects": nested(65, '{"a":', "}"),
}


class Invalid(ClientCase):

    async def test_each_kind_of_invalid_message_is_error_400(self):
        client = await self.client("invalid-anna")
        for name, text in INVALID.items():
            with self.subTest(name):
                await client.send(text)
                self.assert_error(await client.receive(), 400, "bad_request")
                await client.quiet()  # a valid one resets the count

    async def test_a_binary_message_is_invalid(self):
        client = await self.client("invalid-bert")
        await client.send(b'{"type":"request","event":"ping","request_id":"1"}')
        self.assert_error(await client.receive(), 400, "bad_request")

    async def test_64_levels_are_valid(self):
        client = await self.client("invalid-carl")
        for text in (nested(64), nested(64, '{"a":', "}")):
            await client.send(text)
            self.assertEqual((await client.receive())["type"], "response")

    async def test_ten_in_a_row_are_tolerated_and_the_next_closes_with_4400(self):
        client = await self.client("invalid-dora")
        for number in range(10):
            await client.send("no json")
            self.assert_error(await client.receive(), 400, "bad_request")
        await client.send("no json")
        code, reason = await client.closed()
        self.assertEqual(code, 4400)
        self.assertRegex(reason, r"\w+ \w+")

    async def test_a_valid_message_resets_the_count(self):
        client = await self.client("invalid-emil")
        for _ in range(3):
            for _ in range(10):
                await client.send("{")
                await client.receive()
            await client.quiet()

    async def test_refusals_do_not_count_as_invalid(self):
        client = await self.client("invalid-fred")
        for _ in range(30):
            self.assert_error(await client.request("no.such", 1), 404, "unknown_event")
            self.assert_error(await client.request("message.send", {}), 400, "bad_request")
        await client.quiet()

    async def test_invalid_utf8_closes_with_1007(self):
        for name, payload in {"lone byte": b'"\xff"', "surrogate": b'"\xed\xa0\x80"',
                              "overlong": b'"\xc0\xaf"', "cut": b'"\xe2\x82'}.items():
            with self.subTest(name), raw.Wire(self.hub) as wire:
                wire.upgrade("/ws?user_id=invalid-gert")
                wire.message()
                wire.send(raw.frame(raw.TEXT, payload))
                self.assertEqual(wire.close_code(), 1007)

    async def test_nothing_invalid_is_forwarded(self):
        anna, bert = await self.clients(["invalid-hans", "invalid-inge"])
        send = ('{"type":"request","event":"message.send","data":{"to":"invalid-inge",'
                '"content":%s}}')
        for content in ("01", '"\\x"', "[1,]", '"\\ud800"', "nul"):
            await anna.send(send % content)
            self.assert_error(await anna.receive(), 400, "bad_request")
        await anna.send_message("invalid-inge", "valid")
        self.assertEqual((await bert.message())["content"], "valid")


class Sizes(ClientCase):
    options = {"limits.message_size": "4KiB", "limits.invalid_messages": 2, "echo.enabled": "true"}

    def request_of(self, size):
        head = '{"type":"request","event":"ping","request_id":"s","data":"'
        return head + "x" * (size - len(head) - 2) + '"}'

    async def test_a_message_of_exactly_the_limit_is_served(self):
        client = await self.client("size-anna")
        await client.send(self.request_of(4096))
        self.assertEqual((await client.receive())["type"], "response")

    async def test_one_byte_more_closes_with_1009(self):
        client = await self.client("size-bert")
        await client.send(self.request_of(4097))
        self.assertEqual((await client.closed())[0], 1009)

    def test_fragments_count_together(self):
        with raw.Wire(self.hub) as wire:
            wire.upgrade("/ws?user_id=size-carl")
            wire.message()
            wire.send(raw.frame(raw.TEXT, "x" * 4000, fin=False) + raw.frame(raw.CONT, "x" * 97))
            self.assertEqual(wire.close_code(), 1009)

    def test_a_claimed_length_is_enough(self):
        for length in (4097, 65_536, 1 << 31, 1 << 62):
            with self.subTest(length), raw.Wire(self.hub) as wire:
                wire.upgrade("/echo")
                wire.send(raw.frame(raw.BINARY, b"x", length=length))
                self.assertEqual(wire.close_code(), 1009)

    async def test_the_number_of_invalid_messages_is_a_setting(self):
        client = await self.client("size-dora")
        for _ in range(2):
            await client.send("?")
            await client.receive()
        await client.send("?")
        self.assertEqual((await client.closed())[0], 4400)


if __name__ == "__main__":
    unittest.main()
