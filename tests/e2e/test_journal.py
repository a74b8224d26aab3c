"""ringhub-journal: prints and checks what a hub wrote, while it runs and when it is damaged."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from clients import OwedCase
from hub import BINARY, DEADLINE

TOOL = BINARY.with_name("ringhub-journal")


def tool(*args, status=0):
    """Its standard output; it has to end with that status."""
    done = subprocess.run([str(TOOL), *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=DEADLINE, check=False)
    text = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == status, f"{args} ended with {done.returncode}: {text}"
    return text


class Journal(OwedCase):
    options = {"ack.timeout": "1h", "ack.max_delay": "1h"}

    @property
    def directory(self):
        return pathlib.Path(self.hub.dir, "ringhub-data")

    def events(self):
        return [json.loads(line) for line in tool("print", "--json", self.directory).splitlines()]

    async def test_what_is_owed_stands_there_while_the_hub_runs(self):
        sender, receiver = await self.clients(["journal-a", "journal-b"])
        sent = [await self.send_ack(sender, "journal-b", f"text \u00e4 \" {i}") for i in range(20)]
        self.assertIn("fine", tool("check", self.directory))
        owed = {event["id"]: event for event in self.events() if event["kind"] == "OWED"}
        for i, answer in enumerate(sent):
            event = owed[answer["id"]]
            self.assertEqual((event["from"], event["to"], event["of"]), ("journal-a", "journal-b", "direct"))
            self.assertEqual([share["user"] for share in event["shares"]], ["journal-b"])
            self.assertEqual(json.loads(event["text"])["data"]["content"], f"text \u00e4 \" {i}")
        await self.ack(receiver, *(answer["id"] for answer in sent))
        await self.settled()
        last = await self.send_ack(sender, "journal-b", "last")  # its batch is behind the settlements
        events = self.events()
        ends = {event["number"]: event["state"] for event in events if event["kind"] == "SETTLED"}
        for answer in sent:
            self.assertEqual(ends[owed[answer["id"]]["number"]], "success")
        await self.ack(receiver, last["id"])
        self.assertIn("OWED", tool("print", self.directory))

    async def test_damage_is_told_with_its_place(self):
        sender, receiver = await self.clients(["journal-c", "journal-d"])
        sent = [await self.send_ack(sender, "journal-d", f"text {i}") for i in range(5)]
        with tempfile.TemporaryDirectory(prefix="ringhub-e2e-") as name:
            copy = pathlib.Path(name, "copy")
            shutil.copytree(self.directory, copy)
            first = sorted(copy.glob("journal-*.seg"))[0]
            self.assertIn("fine", tool("check", copy, first))
            batch = int(tool("print", first).split("at byte ", 1)[1].split(",")[0])
            with open(first, "r+b") as file:
                file.seek(batch + 70)
                byte = file.read(1)[0]
                file.seek(batch + 70)
                file.write(bytes([byte ^ 4]))
            self.assertIn(f"damaged at byte {batch}", tool("check", first, status=1))
            self.assertIn(f"{first.name} is damaged at byte {batch}", tool("check", copy, status=1))
            self.assertIn("DAMAGE", tool("print", first, status=1))
        await self.ack(receiver, *(answer["id"] for answer in sent))


class Usage(unittest.TestCase):

    def test_help_and_version(self):
        self.assertIn("Usage: ringhub-journal", tool("--help"))
        self.assertRegex(tool("--version"), r"^ringhub-journal \d+\.\d+\.\d+\n$")

    def test_wrong_usage_is_2(self):
        for args in ((), ("look",), ("check",), ("print", "--json"), ("check", "--all", "x")):
            tool(*args, status=2)

    def test_what_is_no_journal_is_1(self):
        with tempfile.TemporaryDirectory(prefix="ringhub-e2e-") as name:
            file = pathlib.Path(name, "journal-0000000000000001.seg")
            file.write_bytes(b"text")
            self.assertIn("no segment", tool("check", file, status=1))
            self.assertIn("fine", tool("check", name))  # as a hub would find it: nothing was in it
            tool("print", file, status=1)
            tool("check", pathlib.Path(name, "nowhere"), status=1)


if __name__ == "__main__":
    unittest.main()
