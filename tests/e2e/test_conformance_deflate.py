"""RFC 7692, sections 5 and 7.1: what is agreed on, of every offer that there can be."""

import itertools
import unittest

import raw
from frames import closed
from raw import BINARY, TEXT, frame
from squeezed import DEFAULT, LARGE, NAME, RSV1, SqueezedCase, offer

SOME = b"squeeze me, squeeze me, " * 9  # within a window of 8 bits

ALL_OFFERS = [dict(server_no=server_no, client_no=client_no, server_bits=server_bits,
                   client_bits=client_bits)
              for server_no, client_no, server_bits, client_bits in itertools.product(
                  (False, True), (False, True), (None, *range(8, 16)),
                  (None, True, *range(8, 16)))]

MALFORMED = [f"{NAME}; {params}" for params in (
    "unknown", "unknown=1", "server_no_context_takeover; unknown",
    "server_no_context_takeover=1", "server_no_context_takeover=true",
    'client_no_context_takeover="x"', "client_no_context_takeover=0",
    "server_max_window_bits", "server_max_window_bits=7", "server_max_window_bits=16",
    "server_max_window_bits=08", "server_max_window_bits=015", "server_max_window_bits=0",
    "server_max_window_bits=-9", "server_max_window_bits=+9", "server_max_window_bits=abc",
    "server_max_window_bits=1e1", "server_max_window_bits=10.0", "server_max_window_bits=100",
    "server_max_window_bits=4294967306", 'server_max_window_bits="7"',
    "client_max_window_bits=7", "client_max_window_bits=16", "client_max_window_bits=08",
    "client_max_window_bits=0", "client_max_window_bits=-9", "client_max_window_bits=x",
    'client_max_window_bits="16"',
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=10; server_max_window_bits=10",
    "server_max_window_bits=10; server_max_window_bits=11",
    "client_max_window_bits; client_max_window_bits",
    "client_max_window_bits; client_max_window_bits=10",
    "permessage-deflate")]


class OfferCase(SqueezedCase):

    def assert_works(self, wire):
        """Messages go both ways, compressed by the client; a plain one is as good."""
        for _ in range(3):
            wire.say(TEXT, SOME)
            self.assert_echo(wire, TEXT, SOME)
        wire.send(frame(TEXT, SOME))
        self.assert_echo(wire, TEXT, SOME)

    def assert_plain(self, wire):
        """Nothing was agreed on: RSV1 is what it was."""
        self.assertIsNone(wire.terms)
        wire.send(frame(TEXT, SOME))
        self.assert_echo(wire, TEXT, SOME)
        self.assertFalse(wire.was_squeezed)
        wire.send(frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=RSV1))
        self.expect(wire, [closed(1002)])
        self.assert_ends(wire)


class Offers:
    """For each setting of the server: what it may answer to every offer."""

    bits, takeover = 15, False

    def check(self, asked, wire):
        """7.1.1.1 to 7.1.2.2."""
        terms = wire.terms
        self.assertIsNotNone(terms, "an offer that can be accepted")
        if asked["server_no"]:
            self.assertTrue(terms.server_no, "7.1.1.1: it was asked for")
        if not self.takeover:
            self.assertTrue(terms.server_no and terms.client_no)
        if asked["server_bits"]:
            self.assertIn("server_max_window_bits", terms.params)
            self.assertLessEqual(terms.server_bits, asked["server_bits"])
        self.assertLessEqual(terms.server_bits, max(self.bits, 8))
        if not asked["client_bits"]:
            self.assertNotIn("client_max_window_bits", terms.params, "7.1.2.2: not offered")
        elif asked["client_bits"] is not True:
            self.assertLessEqual(int(terms.params.get("client_max_window_bits",
                                                      asked["client_bits"])),
                                 asked["client_bits"])

    def test_every_combination_of_parameters(self):
        for asked in ALL_OFFERS:
            with self.subTest(**asked):
                wire = self.shake(offer(**asked))
                self.check(asked, wire)
                # what the client said about itself binds it, whatever was answered
                if asked["client_bits"] not in (None, True):
                    wire.terms.client_bits = min(wire.terms.client_bits, asked["client_bits"])
                wire.terms.client_no |= asked["client_no"]
                self.assert_works(wire)
                wire.sock.close()

    def test_parameters_in_any_order_and_quoted(self):
        for text in (f"{NAME};client_max_window_bits;server_max_window_bits=10",
                     f'{NAME} ; server_max_window_bits="10" ; server_no_context_takeover',
                     f'{NAME}; client_max_window_bits="12"; client_no_context_takeover',
                     f'{NAME}; server_max_window_bits="1\\0"'):
            with self.subTest(text):
                self.assert_works(self.shake(text))

    def test_a_malformed_offer_is_declined_and_the_handshake_goes_on(self):
        for text in MALFORMED:
            with self.subTest(text):
                self.assert_plain(self.shake(text))

    def test_another_offer_is_taken_where_the_first_cannot_be(self):
        for text in MALFORMED:
            with self.subTest(text):
                wire = self.shake(text, offer(server_no=True, server_bits=10))
                self.assertLessEqual(wire.terms.server_bits, 10)
                self.assertTrue(wire.terms.server_no)
                self.assert_works(wire)

    def test_of_two_good_offers_the_first_is_taken_and_one_answer_given(self):
        wire = self.shake(offer(server_bits=9), offer(server_bits=11))
        self.assertEqual(wire.terms.server_bits, 9)
        wire = self.shake(offer(server_bits=11), offer(server_bits=9))
        self.assertEqual(wire.terms.server_bits, min(11, self.bits))

    def test_offers_may_stand_in_several_fields_and_among_others(self):
        wire = self.shake(headers={"Sec-WebSocket-Extensions": "x-a; b=c\r\n"
                                   f"Sec-WebSocket-Extensions: {MALFORMED[0]}\r\n"
                                   f"Sec-WebSocket-Extensions: {offer(server_bits=9)}, x-d"})
        self.assertEqual(wire.terms.server_bits, 9)
        self.assert_works(wire)

    def test_the_same_is_agreed_on_for_users(self):
        for asked in ALL_OFFERS[::41]:
            with self.subTest(**asked):
                wire = self.shake(offer(**asked), path="/ws?user_id=terms")
                self.check(asked, wire)
                self.assertIn(b'"welcome"', wire.message().payload)


class Defaults(Offers, OfferCase):
    bits = 12


class Large(Offers, OfferCase):
    options = LARGE
    takeover = True


class Small(Offers, OfferCase):
    options = {**DEFAULT, "compression.min_size": 0, "compression.window_bits": 9}
    bits = 9


class Off(OfferCase):
    """compression.enabled is false."""

    options = {"echo.enabled": "true"}

    def test_every_offer_is_declined(self):
        for text in [offer(**asked) for asked in ALL_OFFERS[::7]] + MALFORMED[:3]:
            with self.subTest(text):
                self.assert_plain(self.shake(text))


class NotOffered(OfferCase):

    def test_without_an_offer_nothing_is_agreed_on(self):
        self.assert_plain(self.shake())

    def test_a_malformed_list_is_400_still(self):
        for text in (f"{NAME};", f"{NAME}; server_max_window_bits=", f"{NAME} server_bits", ",",
                     f'{NAME}; server_max_window_bits="10', f"{NAME}; =10"):
            with self.subTest(text), raw.Wire(self.hub) as wire:
                wire.send(raw.upgrade("/echo", {"Sec-WebSocket-Extensions": text}))
                self.assertEqual(wire.response().status, 400)

    def test_a_refused_handshake_names_no_extension(self):
        with raw.Wire(self.hub) as wire:
            wire.send(raw.upgrade("/nothing", {"Sec-WebSocket-Extensions": NAME}))
            answer = wire.response()
            self.assertEqual(answer.status, 404)
            self.assertNotIn("sec-websocket-extensions", answer.headers)

    def test_a_window_of_8_is_kept_by_sending_plain(self):
        wire = self.shake(offer(server_bits=8))
        self.assertEqual(wire.terms.server_bits, 8)
        payload = b"x" * 5000
        wire.send(frame(BINARY, payload))
        self.assert_echo(wire, BINARY, payload)


if __name__ == "__main__":
    unittest.main()
