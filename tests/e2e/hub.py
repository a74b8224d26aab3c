"""tests/e2e/hub.py - a real ringhubd for a test, and what must hold when it ends.

Hub starts the program of the chosen variant (VARIANT=asan: build/asan/ringhubd) in a directory of
its own, with 4 shards on a port that the kernel picks, and waits for the line that names it. stop()
sends SIGTERM and then demands exit status 0, a log that is JSON line by line, no line of level
error and no sanitizer report: so every test also tests a clean end. Clients are told to go at once
(shutdown.spread is 0) unless a test says otherwise. HubCase gives the tests of a class one hub;
run_daemon is for starts that are meant to fail.
"""

import asyncio
import json
import os
import pathlib
import re
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANT = os.environ.get("VARIANT", "release")
BINARY = ROOT / "build" / VARIANT / "ringhubd"

# Deadlines are for failures only, so they may be generous; sanitizers are slow.
SLOWNESS = 1 if VARIANT == "release" else 6
DEADLINE = 20.0 * SLOWNESS

# Settings of every hub, unless a test gives other ones: a drain need not take seconds.
DEFAULTS = {"shutdown.spread": "0"}

# Settings that tests are run once more with: "key=value key=value" (test_descriptors.py).
DEFAULTS.update(pair.split("=", 1) for pair in os.environ.get("E2E_SETS", "").split())

LISTENS = re.compile(r"ringhub (\S+) listens on http://([\d.]+|\[[0-9a-f:]+\]):(\d+)")
SANITIZER = re.compile(r"Sanitizer|runtime error:|rh_assert")


def _fresh_limits(descriptors=None):
    """The daemon has to raise the soft limit of descriptors itself, whatever the test's own is."""
    hard = descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = min(1024, hard) if hard != resource.RLIM_INFINITY else 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _environment(env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RINGHUB_")}
    clean.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0")
    clean.setdefault("TSAN_OPTIONS", "second_deadlock_stack=1")
    return {**clean, **(env or {})}


def run_daemon(*args, env=None, cwd=None, config=None, before=None):
    """Runs ringhubd to its end; for --help and for starts that have to fail. before() is called in
    the new process."""
    with tempfile.TemporaryDirectory(prefix="ringhub-e2e-") as own:
        if config is not None:
            path = pathlib.Path(own, "ringhub.yaml")
            path.write_bytes(config if isinstance(config, bytes) else config.encode())
            args = ("-c", "ringhub.yaml", *args)
        done = subprocess.run([str(BINARY), *map(str, args)], cwd=cwd or own, text=True,
                              env=_environment(env), stdin=subprocess.DEVNULL, errors="replace",
                              capture_output=True, timeout=DEADLINE, preexec_fn=before)
    if SANITIZER.search(done.stderr):
        raise AssertionError("sanitizer report:\n" + done.stderr)
    return done


def eventually(condition, message, deadline=None):
    """Waits until condition() is true (and returns it); for what others do in their own time."""
    end = time.monotonic() + (deadline or DEADLINE)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"did not happen: {message() if callable(message) else message}")
        time.sleep(0.01)


class Hub:
    """One running ringhubd. `sets` become --set options, behind `defaults`; `config` a YAML file
    before them; `descriptors` is the most that it may have."""

    def __init__(self, sets=(), config=None, shards=4, listen="127.0.0.1:0", env=None,
                 descriptors=None, defaults=DEFAULTS):
        self.dir = tempfile.mkdtemp(prefix="ringhub-e2e-")
        self.log_path = pathlib.Path(self.dir, "log")
        command = [str(BINARY)]
        if config is not None:
            self.write_config(config)
            command += ["-c", "ringhub.yaml"]
        if listen is not None:
            command += ["--listen", listen]
        if shards is not None:
            command += ["--shards", str(shards)]
        for pair in [*defaults.items(), *(sets.items() if isinstance(sets, dict) else sets)]:
            command += ["--set", "=".join(map(str, pair))]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=self.dir, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=log,
                                            env=_environment(env), preexec_fn=lambda: _fresh_limits(descriptors))
        self.pid = self.process.pid
        try:
            self.host, self.port = self._wait_for_address()
        except BaseException:
            self.kill()
            raise
        self.url = f"ws://{self.host}:{self.port}"

    def _wait_for_address(self):
        """Reads standard output until it names the address; all of it stays in self.out."""
        self.out = ""
        end = time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while not (found := LISTENS.search(self.out)) or not self.out.endswith("\n"):
                if not ready.select(max(0, end - time.monotonic())):
                    raise AssertionError(f"ringhubd did not say where it listens: {self.out!r}\n"
                                         + self.log_text())
                chunk = os.read(self.process.stdout.fileno(), 4096)
                if not chunk:
                    raise AssertionError(f"ringhubd ended with {self.process.wait()}\n"
                                         + self.log_text())
                self.out += chunk.decode()
        return found[2], int(found[3])

    def write_config(self, text):
        """Puts a new file in the place of the one that the hub was started with."""
        path = pathlib.Path(self.dir, "ringhub.yaml")
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)

    def connect(self, timeout=None):
        """A TCP connection to the hub."""
        return socket.create_connection((self.host, self.port), timeout=timeout or DEADLINE)

    def get(self, path):
        """The body of a GET, which has to succeed."""
        with urllib.request.urlopen(f"http://{self.host}:{self.port}{path}",
                                    timeout=DEADLINE) as answer:
            return answer.read().decode()

    def metrics(self):
        """All samples of /metrics: {'name{label="x"}': value}."""
        samples = {}
        for line in self.get("/metrics").splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name):
        """The sum of all samples of that name, whatever their labels."""
        return sum(value for key, value in self.metrics().items()
                   if key == name or key.startswith(name + "{"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_kib(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])

    def log_text(self):
        return self.log_path.read_text(errors="replace")

    def log(self):
        """The log's lines as objects; a line that is not JSON is an error of the hub."""
        lines = []
        for line in self.log_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError as why:
                raise AssertionError(f"log line is not JSON: {line!r}\n{self.log_text()}") from why
        return lines

    def stop(self, sig=signal.SIGTERM, status=0, errors=()):
        """Ends the hub in good order and checks what it leaves; sig=None: it has been told to.
        `errors` are the events that may be logged as errors."""
        try:
            if sig and self.process.poll() is None:
                self.process.send_signal(sig)
            self.out += self.process.communicate(timeout=DEADLINE)[0].decode()
            text = self.log_text()
            if SANITIZER.search(text):
                raise AssertionError("sanitizer report or failed assertion:\n" + text)
            if self.process.returncode != status:
                raise AssertionError(f"exit status {self.process.returncode}, not {status}\n{text}")
            bad = [line for line in self.log()
                   if line.get("level") == "error" and line["event"] not in errors]
            if bad:
                raise AssertionError(f"errors in the log: {bad}")
        finally:
            self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.kill()
        else:
            self.stop()


class HubCase(unittest.IsolatedAsyncioTestCase):
    """Tests that share one hub; `options` are its settings. Tests use user names of their own."""

    options = {"echo.enabled": "true"}
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.hub = Hub(cls.options)

    @classmethod
    def tearDownClass(cls):
        cls.hub.stop()

    def setUp(self):
        if self.hub.process.poll() is not None:
            self.fail("the hub died:\n" + self.hub.log_text())

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # unittest's default; it is slow and noisy
