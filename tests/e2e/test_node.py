"""The hub with npm's `ws` (Debian's node-ws), as most of the world's back ends use it."""

import json
import os
import subprocess
import unittest

from hub import DEADLINE, ROOT, HubCase


class Node(HubCase):

    def node(self, script, *args):
        """Runs one of the scripts beside this file; what it printed."""
        done = subprocess.run(["node", str(ROOT / "tests/e2e" / script), self.hub.url, *args],
                              env={**os.environ, "NODE_PATH": "/usr/share/nodejs"},
                              capture_output=True, text=True, timeout=3 * DEADLINE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_users_talk_across_shards(self):
        users = json.loads(self.node("node_chat.js", "32"))
        names = sorted(f"node-{i}" for i in range(32))
        self.assertEqual(sorted(user["user"] for user in users), names)
        for user in users:
            self.assertEqual(user["bad"], [])
            self.assertEqual(user["answers"], [200] * 32)
            self.assertEqual(sorted(user["from"]), names)
            self.assertEqual(user["close"], 1000)

    def test_echo_serves_everything_that_the_library_can_send(self):
        self.assertEqual(self.node("node_echo.js"), "ok\n")


if __name__ == "__main__":
    unittest.main()
