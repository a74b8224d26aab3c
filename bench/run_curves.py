#!/usr/bin/python3
"""bench/run_curves.py - how the cost of a message grows: with connections, with shards, with its size.

Method  `/echo` (a message there and back) and a room (a delivery), all told CPU of the server process,
        server on core 0, load tool on core 1. One thing grows at a time, from: 100 connections, one
        shard, 64 bytes. Each point is the median of --rounds runs; the rounds go over all points, so
        that a machine that grows slower does so for all of them.

Usage: run_curves.py [--rounds 3] [--duration 1500ms] [--depths 1,16]
"""
import argparse
import collections

import runs

CONNECTIONS = (100, 300, 1000, 3000, 10000)
SHARDS = (1, 2, 4, 8)
SIZES = (16, 64, 256, 1024, 4096, 16384, 65536)


def points():
    for count in CONNECTIONS:
        yield "connections", count, (count, 1, 64)
    for shards in SHARDS:
        yield "shards", shards, (1000, shards, 64)
    for size in SIZES:
        yield "bytes", size, (100, 1, size)


def one(hub, args, mode, connections, depth, size):
    path, key = ("/echo", "message") if mode == "echo" else ("/ws", "delivery")
    figures = runs.load("1", hub, mode, path, "--connections", connections, "--depth", depth,
                        "--size", size, "--duration", args.duration, "--warmup", "300ms")
    return figures["server"][f"cpu_ns_per_{key}"] / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", default="1500ms")
    parser.add_argument("--depths", default="1,16")
    args = parser.parse_args()
    columns = [(mode, int(depth)) for mode in ("echo", "fanout") for depth in args.depths.split(",")]
    found = collections.defaultdict(list)
    print(runs.machine())
    for _ in range(args.rounds):
        for name, value, (connections, shards, size) in points():
            with runs.ringhubd("0", shards, "limits.send_queue_bytes=16MiB") as hub:
                for mode, depth in columns:
                    found[name, value, mode, depth].append(
                        one(hub, args, mode, connections, depth, size))
    head = "".join(f"{mode + ', depth ' + str(depth):>20}" for mode, depth in columns)
    print("us of server CPU, all told: an echo there and back, a delivery of a room\n"
          f"{'':20}{head}")
    for name, value, _ in points():
        row = "".join(f"{runs.quartiles(found[name, value, mode, depth])[1]:20.3f}"
                      for mode, depth in columns)
        print(f"{value:8} {name:11}{row}")


if __name__ == "__main__":
    main()
