"""bench/runs.py - what the run_*.py scripts share: starting servers, loading them, summing up.

A run is one call of ringhub-bench against one server process. Servers are pinned with taskset, so
that the load tool has a core of its own; figures come from the load tool's JSON.
"""
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / os.environ.get("VARIANT", "release")


class Server:
    """A server process that prints where it listens; ends with the with-block. `folder` is removed
    then."""

    def __init__(self, cpus, *command, folder=None):
        self.folder = folder
        self.process = subprocess.Popen(["taskset", "-c", cpus, *map(str, command)],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"(127\.0\.0\.1:\d+)", line)
        if not found:
            self.process.kill()
            raise SystemExit(f"{command[0]} does not listen: {line.strip()}")
        self.address = found.group(1)
        self.pid = self.process.pid  # taskset became the server by exec

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def metrics(self):
        """All samples of ringhubd's /metrics: {'name{label="x"}': value}."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in lines if line and line[0] != "#"}

    def metric(self, name):
        """The sum of all samples of that name, whatever their labels."""
        return sum(value for key, value in self.metrics().items()
                   if key == name or key.startswith(name + "{"))

    def wait_until(self, condition, what, seconds=60):
        """Waits until condition(self) is true; the run is over if that does not happen."""
        end = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > end:
                raise SystemExit(f"did not happen within {seconds} s: {what}")
            time.sleep(0.2)


def make_store():
    """A directory for a hub's journal: beside the programs, so on the disk and not in memory."""
    return tempfile.mkdtemp(prefix="store-", dir=BUILD)


def ringhubd(cpus, shards, *sets, store=None):
    """A hub; `sets` are further settings such as "limits.slow_consumer=drop_oldest". Its journal is
    in `store`, else in a directory that goes when it ends."""
    command = [BUILD / "ringhubd", "--listen", "127.0.0.1:0", "--shards", shards]
    folder = None if store else make_store()
    for setting in ("echo.enabled=true", "log.level=warn", f"store.path={store or folder}", *sets):
        command += ["--set", setting]
    return Server(cpus, *command, folder=folder)


def floor_echo(cpus, size):
    return Server(cpus, BUILD / "bench" / "floor_echo", "--listen", "127.0.0.1:0", "--size", size)


def floor_fanout(cpus, size, text):
    return Server(cpus, BUILD / "bench" / "floor_fanout", "--listen", "127.0.0.1:0", "--size", size,
                  "--text", text)


class Load:
    """One run of the load tool that goes on beside this script; finish() gives its figures."""

    def __init__(self, cpus, server, mode, path, *args, prefix=()):
        self.out = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            ["taskset", "-c", cpus, *prefix, BUILD / "ringhub-bench", mode, "--url",
             f"ws://{server.address}{path}", "--pid", str(server.pid), "--json", "-",
             *map(str, args)], stdout=self.out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.out.close()

    def finish(self, early=False):
        """Waits for its end, or brings it about; its figures, as docs/benchmarking.md explains."""
        if early:
            self.process.send_signal(signal.SIGINT)
        status = self.process.wait()
        self.out.seek(0)
        text = self.out.read()
        if status == 2 or not text:
            raise SystemExit(f"the load tool failed with status {status}")
        figures = json.loads(text)
        if not figures["ok"]:
            raise SystemExit(f"the server is faulty: {figures['counts']} {figures['first_faults']}")
        return figures


def load(cpus, server, mode, path, *args, prefix=()):
    """One run from beginning to end; its figures."""
    with Load(cpus, server, mode, path, *args, prefix=prefix) as run:
        return run.finish()


def quartiles(values):
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def spread(values, unit="ns", digits=1):
    low, mid, high = quartiles(values)
    return f"{mid:9.{digits}f} {unit} [{low:.{digits}f} .. {high:.{digits}f}]"


def machine():
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"
