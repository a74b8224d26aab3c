"""A disk that is full, fails or is not there (PROTOCOL 4, REQUIREMENTS): refused in words, nothing lost."""

import asyncio
import pathlib
import resource
import tempfile
import unittest
import urllib.error

from clients import OwedCase, eventually_true, open_client
from hub import Hub, run_daemon


def ready(hub):
    try:
        hub.get("/readyz")
        return True
    except urllib.error.HTTPError as error:
        assert error.code == 503, error.code
        return False


class FullDisk(OwedCase):
    """Files may not grow any more, as on a full disk: set and taken away on the running process."""

    options = {"ack.timeout": "1h", "ack.max_delay": "1h"}

    def file_limit(self, limit):
        hard = resource.prlimit(self.hub.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.hub.pid, resource.RLIMIT_FSIZE, (limit, hard))

    async def until_ready(self, wanted):
        async def asked():
            return await asyncio.to_thread(ready, self.hub) is wanted
        await eventually_true(asked, f"readyz says {wanted}")

    async def test_promises_are_refused_and_made_again(self):
        sender, receiver = await self.clients(["disk-a", "disk-b"])
        kept = await self.send_ack(sender, "disk-b", "before")
        self.file_limit(0)
        try:
            got = await sender.request("message.send", {"to": "disk-b", "content": "in it", "ack": True,
                                                        "id": "in-it"})
            self.assert_error(got, 503, "store_failed")
            await self.until_ready(False)
            for to, more in (("disk-b", {"ack": True}), ("nobody", {})):
                got = await sender.request("message.send", {"to": to, "content": "refused", **more})
                self.assert_error(got, 503, "store_failed")
            await sender.join("disk-room")
            got = await sender.request("room.publish", {"room": "disk-room", "content": 1, "ack": True})
            self.assert_error(got, 503, "store_failed")
            self.assertEqual((await sender.send_message("disk-b", "plain"))["status"], "sent")
        finally:
            self.file_limit(resource.RLIM_INFINITY)
        await self.until_ready(True)
        after = await self.send_ack(sender, "disk-b", "after")
        contents = []
        while not contents or contents[-1] != "after":
            contents.append((await receiver.message())["content"])
        # what was in the middle of it may have come: it was not promised, and is owed
        self.assertEqual([c for c in contents if c != "in it"], ["before", "plain", "after"])
        await self.ack(receiver, kept["id"], after["id"], "in-it")
        await self.settled()
        metrics = self.hub.metrics()
        self.assertGreaterEqual(metrics["ringhub_store_failures_total"], 1)
        self.assertGreaterEqual(metrics["ringhub_promises_refused_total"], 3)

    @classmethod
    def tearDownClass(cls):
        cls.hub.stop(errors=("store.failing", "store.failed"))


class FullDiskAtTheEnd(OwedCase):
    """Neither the log nor the store can write any more when the hub is told to end."""

    async def test_it_ends(self):
        sender, _ = await self.clients(["end-a", "end-b"])
        hard = resource.prlimit(self.hub.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.hub.pid, resource.RLIMIT_FSIZE, (0, hard))
        got = await sender.request("message.send", {"to": "end-b", "content": 1, "ack": True})
        self.assert_error(got, 503, "store_failed")
        self.hub.process.terminate()
        status = await asyncio.to_thread(self.hub.process.wait, 20)
        self.assertIn(status, (0, 1))

    @classmethod
    def tearDownClass(cls):
        cls.hub.kill()


class Start(unittest.TestCase):

    def start(self, path):
        return run_daemon("--listen", "127.0.0.1:0", "--set", f"store.path={path}")

    def test_a_directory_that_is_in_use_is_refused(self):
        with tempfile.TemporaryDirectory() as own, Hub({"store.path": f"{own}/data"}):
            done = self.start(f"{own}/data")
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(f"{own}/data", done.stderr)

    def test_a_path_that_cannot_be_is_refused(self):
        with tempfile.TemporaryDirectory() as own:
            pathlib.Path(own, "file").write_text("x")
            done = self.start(f"{own}/file/data")
            self.assertEqual(done.returncode, 1, done)
            self.assertIn("file/data", done.stderr)

    def test_a_damaged_journal_is_refused_unless_salvaged(self):
        with tempfile.TemporaryDirectory() as own:
            sets = {"store.path": f"{own}/data"}
            with Hub(sets) as hub:
                asyncio.run(self.fill(hub))
            segment = max(pathlib.Path(own, "data").glob("journal-*"), key=lambda f: f.stat().st_mtime)
            bytes_ = bytearray(segment.read_bytes())
            used = len(bytes_.rstrip(b"\0"))
            bytes_[used // 2] ^= 0x10
            segment.write_bytes(bytes_)
            done = self.start(f"{own}/data")
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(segment.name, done.stderr)
            with Hub({**sets, "store.salvage": "true"}) as hub:
                self.assertGreater(hub.metric("ringhub_offline_messages"), 0)

    @staticmethod
    async def fill(hub):
        sender = await open_client(hub, "fill-a")
        for number in range(50):
            await sender.send_message("fill-b", "x" * 500)
        await sender.close()
