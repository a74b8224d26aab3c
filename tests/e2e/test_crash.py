"""The hub is killed again and again, and keeps what it promised (tests/crash/crash.py)."""

import asyncio
import pathlib
import random
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "crash"))

import crash  # noqa: E402
from hub import SLOWNESS  # noqa: E402

ROUNDS = 20 if SLOWNESS == 1 else 5


class Crash(unittest.TestCase):
    def test_nothing_promised_is_lost_when_the_hub_is_killed(self):
        books = asyncio.run(crash.crash(ROUNDS, random.randrange(1 << 32)))
        accepted = [sent for sent in books.sent.values() if sent.answered is not None]
        self.assertGreater(len(accepted), 20 * ROUNDS, "the test has hardly tested anything")
