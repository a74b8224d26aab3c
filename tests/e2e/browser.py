"""tests/e2e/browser.py - a headless Chromium, and the server of the pages that it opens.

A Browser speaks the DevTools protocol over Python's `websockets`; a Tab is one page in it. A test
waits for what a page shows with Tab.until: the page itself watches its document and answers when
it is so, so nothing is polled and nothing sleeps. The hub serves no files: pages come from a server
of the test's own, and so from another origin.
"""

import asyncio
import collections
import contextlib
import functools
import http.server
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading

import websockets

PAGES = pathlib.Path(__file__).resolve().parent / "browser"
DEADLINE = 50.0  # for each thing that a browser does; it has to start, too
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--disable-extensions", "--no-default-browser-check",
         "--no-proxy-server", "--remote-debugging-port=0"]
LISTENS = re.compile(rb"DevTools listening on (ws://\S+)")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve_pages():
    """The origin under which the pages are served."""
    handler = functools.partial(_Quiet, directory=str(PAGES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Browser:
    """One Chromium with a profile of its own, which is empty; use it as `async with`."""

    async def __aenter__(self):
        program = shutil.which("chromium")
        assert program, "chromium is missing: tools/deps.sh test installs it"
        self.profile = tempfile.mkdtemp(prefix="ringhub-browser-")
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "HOME": self.profile}, start_new_session=True)
        try:
            url = await asyncio.wait_for(asyncio.to_thread(self._address), DEADLINE)
            self.socket = await websockets.connect(url, max_size=None, ping_interval=None,
                                                   open_timeout=DEADLINE)
        except BaseException:
            self._kill()
            raise
        self.ids, self.answers = itertools.count(1), {}
        self.loads = collections.defaultdict(asyncio.get_running_loop().create_future)
        self.reader = asyncio.create_task(self._read())
        return self

    def _address(self):
        """Its own words on standard error; what it says later is read, too, and thrown away."""
        said = b""
        for line in self.process.stderr:
            said += line
            if found := LISTENS.search(line):
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return found[1].decode()
        raise AssertionError(f"chromium ended: {said.decode(errors='replace')}")

    async def _read(self):
        async for text in self.socket:
            got = json.loads(text)
            if got.get("id") in self.answers:
                self.answers.pop(got["id"]).set_result(got)
            elif got.get("method") == "Page.lifecycleEvent" and got["params"]["name"] == "load":
                load = self.loads[got["params"]["loaderId"]]
                load.done() or load.set_result(True)

    async def ask(self, method, session=None, **params):
        number = next(self.ids)
        answer = self.answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": number, "method": method, "params": params,
                                           **({"sessionId": session} if session else {})}))
        got = await asyncio.wait_for(answer, DEADLINE)
        assert "result" in got, got
        return got["result"]

    async def open(self, url):
        """A new tab with this page, loaded."""
        target = (await self.ask("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.ask("Target.attachToTarget", targetId=target,
                                  flatten=True))["sessionId"]
        await self.ask("Page.enable", session)
        await self.ask("Page.setLifecycleEventsEnabled", session, enabled=True)
        loader = (await self.ask("Page.navigate", session, url=url))["loaderId"]
        await asyncio.wait_for(self.loads[loader], DEADLINE)
        return Tab(self, session)

    async def __aexit__(self, *_):
        try:
            self.reader.cancel()
            await self.socket.close()
        finally:
            self._kill()

    def _kill(self):
        """Chromium and its helpers are a session of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


class Tab:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    async def run(self, script):
        """The value of an expression, or of the promise that it is."""
        got = await self.browser.ask("Runtime.evaluate", self.session, expression=script,
                                     awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    async def until(self, condition):
        """Returns once the condition holds; it is looked at whenever the document changes."""
        return await self.run(f"""new Promise(done => {{
            const look = () => ({condition}) && (watch.disconnect(), done(true));
            const watch = new MutationObserver(look);
            watch.observe(document, {{subtree: true, childList: true, characterData: true}});
            look();
        }})""")

    async def type(self, field, text):
        await self.run(f"document.getElementById({json.dumps(field)}).value = {json.dumps(text)}")

    async def press(self, button):
        await self.run(f"document.getElementById({json.dumps(button)}).click()")

    async def text(self, element):
        return await self.run(f"document.getElementById({json.dumps(element)}).textContent")

    async def shows(self, element, text):
        """Waits until the element's text is this; what it was is in the failure."""
        try:
            await self.until(f"document.getElementById({json.dumps(element)}).textContent"
                             f" === {json.dumps(text)}")
        except asyncio.TimeoutError:
            shown = await self.text(element)
            raise AssertionError(f"#{element} is {shown!r}, not {text!r}") from None

    async def lines(self):
        return await self.run("[...document.querySelectorAll('#lines li')]"
                              ".map(item => item.textContent)")

    async def has_lines(self, count):
        """Waits for so many lines in #lines; all of them."""
        await self.until(f"document.querySelectorAll('#lines li').length >= {count}")
        return await self.lines()
