"""A page in Chromium chats through the hub, with a page in another tab and with a client of ours."""

import asyncio
import signal
import unittest

from browser import Browser, serve_pages
from clients import open_client
from hub import Hub, eventually

LONG = "κόσμε 😀 <b>&amp;</b> \u2028 \"quotes\" \\ " * 1500  # over 64 KiB in UTF-8


class Chat(unittest.IsolatedAsyncioTestCase):
    """The same conversation, with compression off and on. Each test ends within a minute."""

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)
        pages = serve_pages()
        self.origin = pages.__enter__()
        self.addCleanup(pages.__exit__, None, None, None)
        self.browser = Browser()
        await self.browser.__aenter__()
        self.addAsyncCleanup(self.browser.__aexit__, None, None, None)

    def start_hub(self, **sets):
        hub = Hub({"security.origins": self.origin,
                   **{key.replace("__", "."): value for key, value in sets.items()}})
        self.addCleanup(hub.kill)
        return hub

    async def enter(self, hub, user):
        """A tab that has said hello."""
        tab = await self.browser.open(f"{self.origin}/chat.html")
        await tab.type("hub", hub.url)
        await tab.type("user", user)
        await tab.press("connect")
        await tab.shows("state", f"hello {user}")
        return tab

    async def say(self, tab, text):
        await tab.type("text", text)
        await tab.press("publish")

    async def join(self, tab, members):
        await tab.type("room", "salon")
        await tab.press("join")
        self.assertEqual((await tab.has_lines(1))[0], f"joined salon, {members}")

    async def converse(self, hub, extension):
        """Anna and Bert in tabs, Carl in Python: each sees what the others write, in one order."""
        anna, bert = await self.enter(hub, "anna"), await self.enter(hub, "bert ü😀")
        for tab in (anna, bert):
            agreed = await tab.text("extensions")
            self.assertTrue(agreed.startswith("ringhub.v1 ["), agreed)
            self.assertIn(extension, agreed)
        await self.join(anna, 1)
        await self.join(bert, 2)
        carl = await open_client(hub, "carl")
        self.addAsyncCleanup(carl.close)
        await carl.join("salon")
        wanted = ["anna: hello", "bert ü😀: hello anna", "carl: hello both", f"anna: {LONG}",
                  f"carl: {LONG[::-1]}", "bert ü😀: "]
        before = {anna: ["joined salon, 1", "bert ü😀 is here", "carl is here"],
                  bert: ["joined salon, 2", "carl is here"]}
        for number, line in enumerate(wanted):
            who, _, text = line.partition(": ")
            if who == "carl":
                await carl.publish("salon", text)
            else:
                await self.say(anna if who == "anna" else bert, text)
            for tab, first in before.items():
                lines = await tab.has_lines(len(first) + number + 1)
                self.assertEqual(lines, first + wanted[:number + 1])
        got = await carl.read_room("salon", 1, len(wanted))
        self.assertEqual([f"{data['from']}: {data['content']}" for data in got], wanted)
        await self.part(hub, anna, bert, len(wanted))

    async def part(self, hub, anna, bert, said):
        """One says goodbye, which the other sees; then the server goes."""
        await anna.press("leave")
        await anna.shows("state", "closed 1000 clean")
        self.assertEqual((await bert.has_lines(said + 3))[-1], "anna is gone")
        hub.process.send_signal(signal.SIGTERM)
        await bert.shows("state", "closed 1001 clean")
        hub.stop(sig=None)

    async def test_two_tabs_and_a_client_chat(self):
        async with asyncio.timeout(55):
            await self.converse(self.start_hub(), "[]")

    async def test_they_chat_compressed(self):
        for takeover in ("false", "true"):
            hub = self.start_hub(compression__enabled="true",
                                 compression__context_takeover=takeover)
            async with asyncio.timeout(55):
                await self.converse(hub, "permessage-deflate")

    async def test_a_page_of_another_origin_is_kept_out(self):
        hub = self.start_hub(security__origins="http://elsewhere.example")
        before = hub.metric("ringhub_connections_refused_total")
        async with asyncio.timeout(55):
            tab = await self.browser.open(f"{self.origin}/chat.html")
            await tab.type("hub", hub.url)
            await tab.type("user", "eve")
            await tab.press("connect")
            await tab.shows("state", "closed 1006 unclean")
        eventually(lambda: hub.metric("ringhub_connections_refused_total") == before + 1,
                   "the refusal is counted")
        hub.stop()


if __name__ == "__main__":
    unittest.main()
