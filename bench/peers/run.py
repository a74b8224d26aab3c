#!/usr/bin/python3
"""bench/peers/run.py - the same load against ringhub and its peers, in neighbouring runs.

Method  Each run starts a fresh server on core 0 and peer_load on core 1. A round runs all peers one
        after the other, the next round in the other direction; a ratio compares a peer's run with
        ringhub's run of the same round. What is told are medians and quartiles over the rounds.
        A message that is lost, late in order, changed or doubled ends everything with status 1.
Loads   echo    100 connections, each to itself through the server; depth 1 and 16
        fanout  one publisher, 1,000 listeners to one name (--wide: 10,000, too); depth 1 and 16
        pairs   500 pairs send to each other by name; depth 16
        idle    10,000 connections that can be reached by name, and are left alone
Figures cpu     CPU time of all the server's processes, per message (fanout: per delivery)
        rate    messages (fanout: deliveries) a second; `*`: in most runs the load tool was the
                bottleneck, then the rate is its own, while CPU per message still is the server's
        p50, p99  from sending to each arrival: in a closed loop mostly queueing
README.md beside this file says what is fair about it, and what is not.

Usage: run.py [--quick] [--rounds 3] [--loads echo,fanout,pairs,idle] [--peers nats,ws] [--wide]
              [--window 2s] [--json FILE]
       run.py --quick       under a minute: small numbers and no figures, only to see that it works
"""
import argparse
import json
import os
import resource
import subprocess
import sys

import servers
from servers import runs

TOOL = runs.BUILD / "bench" / "peers" / "peer_load"

# name: (how to start it, dialect, further options)
PEERS = {
    "ringhub": (servers.Ringhub, "ringhub", ()),
    "ringhub-answered": (servers.Ringhub, "ringhub", ("--answers",)),
    "nchan": (servers.nginx, "nchan", ()),
    "mosquitto": (servers.mosquitto, "mqtt", ()),
    "nats": (servers.nats, "nats", ()),
    "ws": (lambda: servers.node("ws_server.js"), "ws", ()),
    "ws-plain": (lambda: servers.node("ws_server.js", "plain"), "ws", ()),
    "socket.io": (lambda: servers.node("socketio_server.js"), "socketio", ()),
}
ECHO = {"ringhub": "plain", "ws": "plain"}  # dialects where it is not the peer's own
NETWORK = ("nchan", "mosquitto", "nats", "ws")


class Load:
    """What is done to a server, and the peers that can do it."""

    def __init__(self, name, peers, connections, depth, title):
        self.name, self.connections, self.depth, self.title = name, connections, depth, title
        self.peers = ("ringhub", *peers)
        # 10,000 listeners: some peers need seconds for one batch.
        self.stretch = 5 if name == "fanout" and connections >= 10000 else 1

    def run(self, peer, args):
        """One run against a fresh server; peer_load's figures."""
        start, dialect, more = PEERS[peer]
        if self.name == "echo":
            dialect = ECHO.get(peer, dialect)
        status, figures = peer_load(start, dialect, self, args, *more)
        if status != 0 or not figures["ok"]:
            raise SystemExit(f"{peer}, {self.title}: {figures['first']}\n{figures}")
        if figures["messages"] == 0 and self.name != "idle" and not args.quick:
            raise SystemExit(f"{peer}, {self.title}: nothing arrived in the window; try --window")
        return figures


def peer_load(start, dialect, load, args, *more):
    """Its status and what it says of one run against the server that `start` starts."""
    with start() as server:
        command = ["taskset", "-c", "1", TOOL, "--server", server.address, "--dialect", dialect,
                   "--load", load.name, "--connections", load.connections, "--depth", load.depth,
                   "--size", args.size, "--warmup", args.warmup, "--window",
                   args.window * load.stretch, "--pids", ",".join(map(str, server.pids())), *more]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True,
                              timeout=600, check=False)
    if not done.stdout:
        raise SystemExit(f"peer_load failed with {done.returncode}: {command}")
    return done.returncode, json.loads(done.stdout)


# How faulty_server.js is wrong, and where peer_load has to count that.
FAULTS = {"lose": "lost", "swap": "reordered", "change": "corrupted", "double": "unexpected",
          "close": "broken"}


def check_books(args):
    """peer_load must find a faulty server faulty: each fault where it belongs, and nowhere else."""
    load = Load("echo", (), 2, 16, "faulty echo")
    for fault, counter in FAULTS.items():
        status, figures = peer_load(lambda: servers.node("faulty_server.js", fault), "plain", load,
                                    args)
        counted = {name for name in FAULTS.values() if figures[name]}
        if status != 1 or counted != {counter}:
            raise SystemExit(f"peer_load did not see a server that is wrong ({fault}): {figures}")
    print(f"peer_load finds servers that {', '.join(FAULTS)} faulty", flush=True)


def all_loads(args):
    fan = (*NETWORK, "ws-plain", "socket.io")
    few = args.quick
    made = []
    for depth in (1, 16):
        made.append(Load("echo", ("ws", "socket.io"), 10 if few else 100, depth,
                         f"echo, depth {depth}"))
    for listeners in (50,) if few else (1000, 10000) if args.wide else (1000,):
        for depth in (1, 16):
            made.append(Load("fanout", fan, listeners, depth,
                             f"fan-out to {listeners}, depth {depth}"))
    pairs = 20 if few else 1000
    made.append(Load("pairs", ("ringhub-answered", *NETWORK, "socket.io"), pairs, 16,
                     f"{pairs // 2} pairs, depth 16"))
    idle = 100 if few else 10000
    made.append(Load("idle", (*NETWORK, "socket.io"), idle, 1, f"{idle} idle connections"))
    return made


def chosen(args):
    """The loads that were asked for, with the peers that were asked for."""
    loads = [load for load in all_loads(args) if load.name in args.loads.split(",")]
    if args.peers:
        wanted = {"ringhub", *args.peers.split(",")}
        for load in loads:
            load.peers = tuple(p for p in load.peers if p in wanted)
    if not loads or any(len(load.peers) < 2 for load in loads):
        raise SystemExit("no such loads or peers; see --help and the tables")
    return loads


def measure(load, args):
    """{peer: [figures of each round]}."""
    found = {peer: [] for peer in load.peers}
    for i in range(args.rounds):
        for peer in load.peers if i % 2 == 0 else reversed(load.peers):
            figures = load.run(peer, args)
            found[peer].append(figures)
            print(f"  {load.title}, round {i + 1}, {peer}: {figures['messages']} messages",
                  file=sys.stdout if args.quick else sys.stderr, flush=True)
    return found


# ---- the tables ----

def spread(values, digits):
    low, mid, high = runs.quartiles(values)
    return f"{mid:.{digits}f} [{low:.{digits}f} .. {high:.{digits}f}]"


def ratios(found, peer, key):
    return [a[key] / max(b[key], 1e-9) for a, b in zip(found[peer], found["ringhub"])]


def column(found, peer, key, unit, digits):
    return spread([f[key] / unit for f in found[peer]], digits)


def messages_row(found, peer):
    busy = sum(f["bottleneck"] for f in found[peer]) * 2 > len(found[peer])
    return (peer, spread(ratios(found, peer, "cpu_ns"), 2), spread(ratios(found, peer, "rate"), 2),
            column(found, peer, "cpu_ns", 1e3, 3),
            column(found, peer, "rate", 1e3, 0) + ("*" if busy else ""),
            column(found, peer, "p50", 1e6, 2), column(found, peer, "p99", 1e6, 2))


def idle_row(found, peer):
    return (peer, spread(ratios(found, peer, "rss_per_connection"), 1),
            spread(ratios(found, peer, "connect_cpu_ns"), 2),
            column(found, peer, "rss_per_connection", 1, 0), column(found, peer, "rss", 1e6, 0),
            column(found, peer, "connect_cpu_ns", 1e3, 1),
            column(found, peer, "connect_rate", 1e3, 1))


MESSAGES = ("", "cpu, ringhub = 1", "rate, ringhub = 1", "cpu, us", "rate, 1000/s", "p50, ms",
            "p99, ms")
IDLE = ("", "memory, ringhub = 1", "connecting, ringhub = 1", "bytes a connection", "all, MB",
        "connecting, us of CPU", "1000 connections/s")


def show(load, found):
    """A Markdown table, to be read as it is and to be pasted."""
    idle = load.name == "idle"
    rows = [IDLE if idle else MESSAGES]
    rows += [(idle_row if idle else messages_row)(found, peer) for peer in load.peers]
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, tuple("-" * w for w in wide))
    print(f"\n{load.title}: median [quartiles]\n")
    for row in rows:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, wide)) + " |", flush=True)


def milliseconds(text):
    if not text.endswith("s") or not text[:-1].replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError("seconds, such as 2s")
    return int(float(text[:-1]) * 1000)


def read_args():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--loads", default="echo,fanout,pairs,idle")
    parser.add_argument("--peers", default="", help="beside ringhub; all if not given")
    parser.add_argument("--wide", action="store_true", help="fan-out to 10,000, too")
    parser.add_argument("--window", type=milliseconds)
    parser.add_argument("--warmup", type=milliseconds)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--json", help="all figures of all runs into this file")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.window = args.window or (200 if args.quick else 2000)
    args.warmup = args.warmup or (100 if args.quick else 1000)
    return args


def main():
    args = read_args()
    loads = chosen(args)
    servers.install({peer for load in loads for peer in load.peers})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for all that is started here
    print(runs.machine())
    print(servers.versions())
    print(f"{args.size} bytes, {args.rounds} rounds, {args.window / 1000:g} s a run after "
          f"{args.warmup / 1000:g} s, server on core 0, load tool on core 1; load average before it "
          f"began: {os.getloadavg()[0]:.1f}")
    if args.quick:
        check_books(args)
    everything = {}
    for load in loads:
        found = measure(load, args)
        if not args.quick:
            show(load, found)
        everything[load.title] = found
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(everything, file, indent=1)


if __name__ == "__main__":
    main()
