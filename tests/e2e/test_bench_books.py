#!/usr/bin/python3
"""ringhub-bench's modes ack and mixed against a hub that keeps its promises, but for one.

Goal    the tool says "fine" only if every accepted message is accounted for: received, settled and
        told, or owed; and each broken promise is found, named, and gives exit status 1.
        The real hub keeps all of them.
Method  tests/e2e/owing.py, which breaks one promise, chosen by the path of the URL. Runs that have
        to wait for what never comes are begun together before the first test.
"""
import concurrent.futures
import json
import unittest

from hub import Hub
from owing import Server
from test_bench_tool import bench

PAIRS = ("ack", "--connections", "4", "--rate", "200")
MIXED = ("mixed", "--connections", "16", "--rate", "200")
ROOMS = (*MIXED, "--mix", "publish=1,publish_ack=1")
BUSY_ROOMS = ("mixed", "--connections", "16", "--depth", "8", "--mix", "publish=1,publish_ack=1",
              "--reconnect", "50")
SILENT = (*PAIRS, "--silent-share", "25%", "--ack-timeout", "300ms", "--drain", "6s")
SHORT = ("--drain", "1s")

# what is wrong -> (the words for it, the run)
FAULTS = {
    "lose": ("messages lost", (*PAIRS, *SHORT)),
    "astray": ("messages at the wrong user", (*PAIRS, *SHORT)),
    "stranger": ("messages at the wrong user", (*PAIRS, *SHORT)),
    "flip": ("messages corrupted", PAIRS),
    "reorder": ("messages reordered", PAIRS),
    "twice": ("attempts whose number is not above", PAIRS),
    "answers": ("messages not expected", PAIRS),
    "lie-now": ("ends told as success without", (*PAIRS, *SHORT)),
    "lie": ("ends told as success without", SILENT),
    "early": ("ends told before the answer", PAIRS),
    "untold": ("ends of accepted messages never told", (*PAIRS, *SHORT)),
    "told-twice": ("messages not expected", PAIRS),
    "failed": ("messages that ended without success", PAIRS),
    "silence": ("messages that nobody acknowledged, and that did not come again", SILENT),
    "same": ("attempts whose number is not above", SILENT),
    "timeout": ("messages lost", (*PAIRS, "--silent-share", "1", *SHORT)),
    "bad_request": ("messages refused by the server", PAIRS),
    "ping": ("messages refused by the server", (*MIXED, "--mix", "ping=1")),
    "room-lose": ("messages lost", (*ROOMS, *SHORT)),
    "room-twice": ("(messages not expected|attempts whose)", ROOMS),
    "room-seq": ("messages corrupted", ROOMS),
    "room-name": ("messages corrupted", ROOMS),
    "sum": ("messages corrupted", ROOMS),
    "room-reorder": ("messages reordered", ROOMS),
    "forget": ("(messages lost|ends of accepted messages never told)",
               ("ack", "--connections", "8", "--depth", "64", "--reconnect", "100", "--duration",
                "2s", *SHORT)),
    "short-untold": ("messages lost", (*BUSY_ROOMS, *SHORT)),
}

# with each of the classes that it can hit
PLAIN = {
    "lose": "messages lost", "flip": "messages corrupted", "reorder": "messages reordered",
    "twice": "messages not expected", "astray": "messages at the wrong user",
}


def ran(server, fault, args, *more):
    """One run; a later option takes the place of an earlier one. With --ack-timeout the hub is
    quick."""
    options = {}
    mode, *pairs = (*args, *more)
    for name, value in zip(pairs[::2], pairs[1::2]):
        options[name] = value
    given = {"--duration": "400ms", "--warmup": "0ms", **options}
    url = server.url(fault, quick="--ack-timeout" in options)
    return bench(mode, "--url", url, *(text for pair in given.items() for text in pair))


class Books(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.pool = concurrent.futures.ThreadPoolExecutor(8)
        slow_first = sorted(FAULTS, key=lambda fault: FAULTS[fault][1] != SILENT)
        cls.runs = {fault: cls.pool.submit(ran, cls.server, fault, FAULTS[fault][1])
                    for fault in slow_first}

    @classmethod
    def tearDownClass(cls):
        cls.pool.shutdown()
        cls.server.close()

    def figures(self, fault, args, *more, status=0):
        result = ran(self.server, fault, args, *more, "--json", "-")
        figures = json.loads(result.stdout)
        counts = figures["counts"]
        self.assertEqual(result.returncode, status, (counts, figures["first_faults"]))
        self.assertEqual(counts["accepted"], sum(counts[end] for end in (
            "succeeded", "ended_otherwise", "owed", "away", "untold")))
        return figures

    def test_each_broken_promise_is_named(self):
        for fault, (words, _) in FAULTS.items():
            with self.subTest(fault=fault):
                result = self.runs[fault].result()
                self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
                self.assertRegex(result.stdout, r"FAULT\s+\d+ " + words)
                self.assertRegex(result.stdout, r"first\s+\S")

    def test_plain_messages_of_a_mixture_are_not_forgiven_anything(self):
        runs = {fault: self.pool.submit(ran, self.server, fault, (*MIXED, "--mix", "send=1",
                                                                  *SHORT)) for fault in PLAIN}
        for fault, words in PLAIN.items():
            with self.subTest(fault=fault):
                result = runs[fault].result()
                self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
                self.assertRegex(result.stdout, r"FAULT\s+\d+ " + words)

    def test_an_honest_hub_is_fine(self):
        for args in (PAIRS, ("ack", "--connections", "6", "--depth", "8"), (*PAIRS, "--size", "18"),
                     (*PAIRS, "--size", "20000"), (*PAIRS, "--threads", "2"),
                     MIXED, ("mixed", "--connections", "10", "--depth", "4", "--threads", "2"),
                     (*MIXED, "--room-size", "2"), (*MIXED, "--mix", "send=3,ping=1")):
            with self.subTest(args=args):
                figures = self.figures("", args)
                counts = figures["counts"]
                self.assertGreater(counts["sent"], 0)
                self.assertEqual(counts["answered"], counts["sent"])
                self.assertEqual(counts["succeeded"], counts["accepted"])
                self.assertEqual(figures["status"]["count"], counts["accepted"])
                self.assertEqual(sum(c["sent"] for c in figures["classes"].values()),
                                 counts["sent"])
                self.assertEqual(sum(c["arrived"] for c in figures["classes"].values()),
                                 counts["completed"])
                for name, words in figures["classes"].items():
                    members = figures.get("room_size") if name.startswith("publish") else 1
                    if figures["connections"] % (figures.get("room_size") or 2) == 0:
                        self.assertEqual(words["arrived"], words["accepted"] * members)

    def test_a_mixture_has_its_shares(self):
        classes = self.figures("", (*MIXED, "--rate", "1000", "--mix", "send=3,ack=1"))["classes"]
        self.assertEqual(set(classes), {"send", "ack"})
        self.assertEqual(classes["send"]["sent"] + classes["ack"]["sent"], 400)
        self.assertTrue(250 < classes["send"]["sent"] < 350, classes["send"]["sent"])

    def test_what_nobody_acknowledges_comes_again_and_ends(self):
        for args in (SILENT, (*MIXED, "--rate", "100", *SILENT[5:])):
            with self.subTest(args=args):
                counts = self.figures("", args)["counts"]
                self.assertGreater(counts["ended_otherwise"], 0)
                self.assertGreater(counts["repeated"], counts["ended_otherwise"] - 1)
                self.assertEqual(counts["owed"], 0)
                self.assertEqual(counts["untold"], 0)

    def test_without_waiting_for_them_they_are_still_owed(self):
        counts = self.figures("", (*PAIRS, "--silent-share", "50%"))["counts"]
        self.assertGreater(counts["owed"], 0)
        self.assertEqual(counts["succeeded"] + counts["owed"], counts["accepted"])

    def test_the_silent_share_is_that_part_of_the_receivers(self):
        for share, silent in (("0", 0), ("0.5", 2), ("25%", 1), ("100%", 4)):
            with self.subTest(share=share):
                counts = self.figures("", (*PAIRS, "--silent-share", share))["counts"]
                self.assertEqual(counts["owed"], counts["accepted"] * silent // 4)

    def test_what_waits_behind_others_is_owed_but_not_lost(self):
        counts = self.figures("keep", ("mixed", "--connections", "2", "--rate", "100", "--mix",
                                       "send=1,ack=1", "--room-size", "2", "--silent-share", "1",
                                       ))["counts"]
        self.assertGreater(counts["owed"], 0)
        self.assertGreater(counts["kept"], 0)

    def test_a_lost_acknowledgement_is_made_up_for(self):
        counts = self.figures("deaf", (*PAIRS, "--ack-timeout", "300ms"))["counts"]
        self.assertGreaterEqual(counts["repeated"], 1)
        self.assertEqual(counts["succeeded"], counts["accepted"])

    def test_a_hub_in_need_is_not_at_fault_but_counted(self):
        for fault in ("store_failed", "queue_full"):
            with self.subTest(fault=fault):
                counts = self.figures(fault, PAIRS)["counts"]
                self.assertEqual(counts["turned_away"], 1)
                self.assertEqual(counts["accepted"], counts["sent"] - 1)

    def test_connections_that_are_cut_off_come_back_and_miss_nothing(self):
        for args in ((*PAIRS, "--reconnect", "30"), (*MIXED, "--reconnect", "50"),
                     ("mixed", "--connections", "16", "--depth", "4", "--reconnect", "100"),
                     (*MIXED, "--reconnect", "30", "--silent-share", "10%", "--threads", "2")):
            with self.subTest(args=args):
                counts = self.figures("", args)["counts"]
                self.assertGreater(counts["cut"], 5)
                self.assertEqual(counts["returned"], counts["cut"])
                self.assertEqual(counts["opened"], int(args[2]))

    def test_what_a_reader_is_told_to_have_missed_is_no_fault(self):
        counts = self.figures("short", BUSY_ROOMS)["counts"]
        self.assertGreater(counts["told"], 0)

    def test_the_page_tells_of_the_books(self):
        result = ran(self.server, "", MIXED, "--reconnect", "20", "--silent-share", "10%")
        self.assertEqual(result.returncode, 0, result.stdout)
        for words in ("rooms of 8", "10 % silent", "20 cut off a second", "publish_ack  ",
                      "acknowledged messages accepted:", "deliveries again", "came back",
                      "status  ", "nothing lost"):
            self.assertIn(words, result.stdout)


class BooksOfRinghub(unittest.TestCase):
    """The real hub, with 4 shards."""

    @classmethod
    def setUpClass(cls):
        cls.hub = Hub({"ack.timeout": "1s", "ack.max_retries": "1"})

    @classmethod
    def tearDownClass(cls):
        cls.hub.stop()

    def counts(self, mode, *args):
        result = bench(mode, "--url", self.hub.url + "/ws", "--duration", "1s", "--warmup", "0ms",
                       "--json", "-", "--pid", str(self.hub.pid), *args)
        figures = json.loads(result.stdout)
        counts = figures["counts"]
        self.assertEqual(result.returncode, 0, (counts, figures["first_faults"]))
        self.assertGreater(counts["accepted"], 0)
        self.assertEqual(counts["accepted"], sum(counts[end] for end in (
            "succeeded", "ended_otherwise", "owed", "away")))
        return counts

    def test_every_accepted_message_is_accounted_for(self):
        for args in (("ack", "--connections", "40", "--rate", "500"),
                     ("ack", "--connections", "40", "--depth", "4", "--threads", "2"),
                     ("mixed", "--connections", "40", "--rate", "500"),
                     ("mixed", "--connections", "40", "--depth", "2", "--size", "3000")):
            with self.subTest(args=args):
                self.counts(*args)

    def test_so_it_is_when_connections_are_cut_off(self):
        for args in (("ack", "--connections", "40", "--depth", "4", "--reconnect", "30"),
                     ("mixed", "--connections", "40", "--depth", "2", "--reconnect", "30")):
            with self.subTest(args=args):
                counts = self.counts(*args)
                self.assertGreater(counts["cut"], 10)
                self.assertEqual(counts["returned"], counts["cut"])

    def test_what_nobody_acknowledges_comes_again_and_ends(self):
        for mode in ("ack", "mixed"):
            with self.subTest(mode=mode):
                counts = self.counts(mode, "--connections", "40", "--rate", "300", "--silent-share",
                                     "20%", "--ack-timeout", "1s", "--drain", "20s")
                self.assertGreater(counts["ended_otherwise"], 0)
                self.assertEqual(counts["owed"], 0)
                self.assertGreaterEqual(counts["repeated"], counts["ended_otherwise"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
