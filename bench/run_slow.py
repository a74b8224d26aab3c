#!/usr/bin/python3
"""bench/run_slow.py - do healthy clients notice thousands that do not read?

Method  1,000 connections send to each other in pairs at a fixed rate (open loop). Their p99 is
        measured alone, then in a fresh hub beside a room of 10,000 members who joined and never
        read, which is published to all the time; measuring begins when the hub has begun to drop
        messages for them or to close them, as its policy says. Server on core 0 (one shard), both
        load tools on core 1.
Figures latency of the pairs' deliveries; the server's resident memory before, with the slow ones
        connected, and at the end, and the TCP memory of the whole machine then: what the kernel
        took of the slow ones' messages. limits.send_timeout is raised, so that they stay.

Usage: run_slow.py [--pairs 3] [--duration 10s] [--slow 10000] [--connections 1000] [--rate 10000]
                   [--publishes 10] [--size 1000] [--policy drop_oldest] [--set key=value]...
"""
import argparse
import os
import pathlib
import re

import runs


def resident(server):
    pages = pathlib.Path(f"/proc/{server.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def tcp_memory():
    """What sockets of this machine hold, in MB."""
    found = re.search(r"^TCP:.* mem (\d+)", pathlib.Path("/proc/net/sockstat").read_text(
        encoding="ascii"), re.MULTILINE)
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def hub(args):
    return runs.ringhubd("0", 1, f"limits.slow_consumer={args.policy}", "limits.send_timeout=1h",
                         *args.set)


def healthy(server, args):
    return runs.load("1", server, "send", "/ws", "--connections", args.connections, "--rate",
                     args.rate, "--duration", args.duration)


def is_full(server):
    return (server.metric("ringhub_messages_dropped_total") > 0
            or server.metrics().get('ringhub_disconnects_total{code="4408"}', 0) > 0)


def beside_slow(args):
    """The healthy ones' figures, the server's memory at three moments and TCP's in MB, counts."""
    with hub(args) as server:
        memory = [resident(server)]
        with runs.Load("1", server, "fanout", "/ws", "--slow", args.slow, "--size", args.size,
                       "--rate", args.publishes, "--warmup", "0ms", "--duration", "1h") as slow:
            server.wait_until(lambda s: s.metric("ringhub_connections") >= args.slow + 1,
                              "all slow ones are connected")
            memory.append(resident(server))
            server.wait_until(is_full, "the hub drops or closes", 300)
            figures = healthy(server, args)
            memory += [resident(server), tcp_memory()]
            cut = server.metrics().get('ringhub_disconnects_total{code="4408"}', 0)
            dropped = server.metric("ringhub_messages_dropped_total")
            slow.finish(early=True)
    return figures, memory, cut, dropped


def row(name, found):
    print(f"  {name:8}" + "   ".join(f"{p} {runs.spread([r['latency'][p] / 1e6 for r in found], 'ms')}"
                                     for p in ("p50", "p99", "p99.9")))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--duration", default="10s")
    parser.add_argument("--slow", type=int, default=10000)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=10000, help="of the healthy, a second in all")
    parser.add_argument("--publishes", type=float, default=10, help="to the slow, a second")
    parser.add_argument("--size", type=int, default=1000, help="of what the slow are sent")
    parser.add_argument("--policy", default="drop_oldest")
    parser.add_argument("--set", action="append", default=[], help="further settings of the hub")
    args = parser.parse_args()
    alone, beside = [], []
    print(runs.machine())
    print(f"{args.connections} connections in pairs, {args.rate} messages a second; beside "
          f"{args.slow} who do not read {args.publishes:g} messages a second of {args.size} bytes, "
          f"{args.policy}")
    for i in range(args.pairs):
        with hub(args) as server:
            alone.append(healthy(server, args))
        figures, memory, cut, dropped = beside_slow(args)
        beside.append(figures)
        print(f"  run {i + 1}: server {memory[0]:.0f} MB, {memory[1]:.0f} MB with all connected, "
              f"{memory[2]:.0f} MB at the end (TCP {memory[3]:.0f} MB); {dropped:.0f} messages dropped, {cut:.0f} "
              "connections closed", flush=True)
    print("median [quartiles]")
    row("alone", alone)
    row("beside", beside)
    late = sum(r["tool"]["bottleneck"] for r in alone + beside)
    if late:
        print(f"  in {late} of {len(alone + beside)} runs the load tool was late or busy itself")


if __name__ == "__main__":
    main()
