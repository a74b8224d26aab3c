#!/usr/bin/python3
"""bench/run_deflate.py - a broadcast to many who agreed on permessage-deflate, beside the same without.

Method  One hub (one shard, core 0) with compression.enabled; the load tool on core 1, once offering
        the extension and once not, in alternation. Broadcasts of --size bytes, one outstanding.
Figures CPU of the whole server process per delivery, and the ratio of neighbouring runs.

Usage: run_deflate.py [--pairs 5] [--duration 4s] [--size 1024] [--subscribers 10000] [--depth 1]
"""
import argparse

import runs


def one(hub, args, *how):
    return runs.load("1", hub, "fanout", "/ws", "--broadcast", "--connections", args.subscribers,
                     "--size", args.size, "--depth", args.depth, "--duration", args.duration,
                     "--warmup", "1s", *how)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--duration", default="4s")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--subscribers", type=int, default=10000)
    parser.add_argument("--depth", type=int, default=1)
    args = parser.parse_args()
    found = []
    print(runs.machine())
    with runs.ringhubd("0", 1, "compression.enabled=true") as hub:
        for i in range(args.pairs):
            how = [("--compress",), ()]
            if i % 2:
                how.reverse()
            two = {bool(h): one(hub, args, *h) for h in how}
            found.append((two[True], two[False]))
    packed, plain = ([figures["server"]["cpu_ns_per_delivery"] / 1000 for figures in column]
                     for column in zip(*found))
    print(f"broadcasts of {args.size} bytes to {args.subscribers}, {args.depth} outstanding, "
          f"{args.pairs} pairs: median [quartiles], per delivery")
    print(f"  deflated {runs.spread(packed, 'us', 3)}")
    print(f"  plain    {runs.spread(plain, 'us', 3)}")
    print(f"  ratio    {runs.spread([a / b for a, b in zip(packed, plain)], '', 3)}")


if __name__ == "__main__":
    main()
