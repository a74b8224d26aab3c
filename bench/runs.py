"""bench/runs.py - what the run_*.py scripts share: starting servers, loading them, summing up.

A run is one call of ringhub-bench against one server process. Servers are pinned with taskset, so
that the load tool has a core of its own; figures come from the load tool's JSON.
"""
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / os.environ.get("VARIANT", "release")


class Server:
    """A server process that prints where it listens; ends with the with-block."""

    def __init__(self, cpus, *command):
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


def ringhubd(cpus, shards):
    return Server(cpus, BUILD / "ringhubd", "--listen", "127.0.0.1:0", "--shards", shards, "--set",
                  "echo.enabled=true", "--set", "log.level=warn")


def floor_echo(cpus, size):
    return Server(cpus, BUILD / "bench" / "floor_echo", "--listen", "127.0.0.1:0", "--size", size)


def load(cpus, server, mode, path, *args):
    """One run; its figures, as docs/benchmarking.md explains them."""
    done = subprocess.run(["taskset", "-c", cpus, BUILD / "ringhub-bench", mode, "--url",
                           f"ws://{server.address}{path}", "--pid", str(server.pid), "--json", "-",
                           *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode == 2 or not done.stdout:
        raise SystemExit(done.stderr)
    figures = json.loads(done.stdout)
    if not figures["ok"]:
        raise SystemExit(f"the server is faulty: {figures['counts']} {figures['first_faults']}")
    return figures


def quartiles(values):
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def spread(values, unit="ns"):
    low, mid, high = quartiles(values)
    return f"{mid:9.1f} {unit} [{low:.1f} .. {high:.1f}]"


def machine():
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"
