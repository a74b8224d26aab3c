#!/usr/bin/python3
"""bench/run_neighbours.py - do others notice a large room that is published to?

Method  1,000 connections echo at a fixed rate (open loop): a fifth of what the same server echoes
        at most, which a short closed loop tells. Their p99 is measured alone, and while a message
        a second goes to a room of 15,000 in the same hub; the two kinds of run alternate. Server
        on core 0 (all shards), both load tools on core 1: there the echoes' goes first (as root, by
        SCHED_FIFO), else it would measure how long the other one keeps it from the core.
Figures latency of the echoes from the intended time, and of the room's deliveries.

Usage: run_neighbours.py [--pairs 5] [--duration 10s] [--members 15000] [--publishes 1]
                         [--connections 1000] [--share 0.2] [--rate 0] [--shards 1]
"""
import argparse
import os

import runs


FIRST = ("chrt", "-f", "1") if os.geteuid() == 0 else ()


def echo(hub, args, *how):
    return runs.load("1", hub, "echo", "/echo", "--connections", args.connections, *how,
                     prefix=FIRST)


def beside_a_room(hub, args):
    with runs.Load("1", hub, "fanout", "/ws", "--connections", args.members, "--rate",
                   args.publishes, "--warmup", "0ms", "--duration", "1h") as room:
        hub.wait_until(lambda h: h.metric("ringhub_connections") >= args.members,
                       "all members are connected")
        figures = echo(hub, args, "--rate", args.rate, "--duration", args.duration)
        return figures, room.finish(early=True)


def row(name, found):
    print(f"  {name:12}" + "   ".join(f"{p} {runs.spread([r['latency'][p] / 1e6 for r in found], 'ms')}"
                                      for p in ("p50", "p99", "p99.9")))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--duration", default="10s")
    parser.add_argument("--members", type=int, default=15000)
    parser.add_argument("--publishes", type=float, default=1, help="a second")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.2, help="of what it echoes at most")
    parser.add_argument("--rate", type=int, default=0, help="echoes a second; 0: by --share")
    parser.add_argument("--shards", type=int, default=1)
    args = parser.parse_args()
    alone, beside, rooms = [], [], []
    print(runs.machine())
    with runs.ringhubd("0", args.shards) as hub:
        if args.rate == 0:
            most = echo(hub, args, "--duration", "3s")
            args.rate = int(most["rate_per_second"] * args.share)
        print(f"{args.connections} connections echo {args.rate} times a second in all; a room of "
              f"{args.members}, {args.publishes:g} publishes a second")
        for _ in range(args.pairs):
            alone.append(echo(hub, args, "--rate", args.rate, "--duration", args.duration))
            figures, room = beside_a_room(hub, args)
            beside.append(figures)
            rooms.append(room)
    print("median [quartiles]")
    row("alone", alone)
    row("beside", beside)
    row("in the room", rooms)
    for name, found in (("alone", alone), ("beside", beside)):
        used = runs.spread([r["server"]["cpu_percent"] for r in found], "% of a CPU")
        print(f"  server {name:6} {used}")
    late = sum(r["tool"]["bottleneck"] for r in alone + beside)
    if late:
        print(f"  in {late} of {len(alone + beside)} runs the load tool was late or busy itself")


if __name__ == "__main__":
    main()
