#!/usr/bin/python3
"""bench/run_fanout.py - what one delivery of a room's message costs, beside the floor.

Method  ringhubd (one shard) and floor_fanout (no envelope parsed, no queues; the same use of the
        kernel, one send per subscriber and batch) alternate, both on core 0; the load tool has
        core 1. One connection publishes, all receive; D publishes are outstanding until the last
        one has them. The floor's messages are as long as ringhub's, which a short run tells. Each
        pair of neighbouring runs gives one difference. Medians and quartiles over all pairs; the
        order within a pair alternates.
Figures CPU of the whole server process per delivery (one message to one subscriber). User and
        system part are split as the kernel's tick found them.

Usage: run_fanout.py [--pairs 5] [--duration 5s] [--size 64] [--subscribers 10000] [--depths 1,16]
"""
import argparse

import runs

PARTS = (("user", "user_ns_per_delivery"), ("system", "system_ns_per_delivery"),
         ("all", "cpu_ns_per_delivery"))


def one(server, args, depth):
    return runs.load("1", server, "fanout", "/ws", "--connections", args.subscribers, "--depth",
                     depth, "--size", args.size, "--mask-zero", "--duration", args.duration,
                     "--warmup", "1s")


def text_bytes(hub, args):
    """How long a message of that size is as ringhub sends it."""
    return runs.load("1", hub, "fanout", "/ws", "--connections", 2, "--size", args.size,
                     "--duration", "300ms", "--warmup", "0ms")["text_bytes"]


def pairs(args, depth):
    """Runs all pairs; a list of (ringhub's figures, the floor's)."""
    found = []
    with runs.ringhubd("0", 1) as hub:
        with runs.floor_fanout("0", args.size, text_bytes(hub, args)) as floor:
            for i in range(args.pairs):
                if i % 2:
                    b = one(floor, args, depth)
                    a = one(hub, args, depth)
                else:
                    a = one(hub, args, depth)
                    b = one(floor, args, depth)
                found.append((a, b))
    return found


def show(depth, found):
    print(f"\ndepth {depth}, {len(found)} pairs: median [quartiles], per delivery of a message of "
          f"{found[0][0]['text_bytes']} bytes (floor: {found[0][1]['text_bytes']})")
    for name, key in PARTS:
        hub, floor = ([r["server"][key] for r in column] for column in zip(*found))
        print(f"  {name:7} ringhub {runs.spread(hub)}   floor {runs.spread(floor)}   "
              f"above it {runs.spread([a - b for a, b in zip(hub, floor)])}")
    ratios = [r["server"]["cpu_ns_per_delivery"] / f["server"]["cpu_ns_per_delivery"]
              for r, f in found]
    print(f"  all told {runs.spread(ratios, 'times the floor', 3)}")
    rates = [[r["rate_per_second"] for r in column] for column in zip(*found)]
    p99 = [[r["latency"]["p99"] / 1e6 for r in column] for column in zip(*found)]
    print(f"  rate    ringhub {runs.spread(rates[0], '/s')}   floor {runs.spread(rates[1], '/s')}")
    print(f"  p99     ringhub {runs.spread(p99[0], 'ms')}   floor {runs.spread(p99[1], 'ms')}")
    busy = sum(r["tool"]["bottleneck"] for pair in found for r in pair)
    if busy:
        print(f"  in {busy} of {2 * len(found)} runs the load tool was the bottleneck"
              " (the rate is then its own; CPU per delivery of the server is not touched by that)")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--duration", default="5s")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--subscribers", type=int, default=10000)
    parser.add_argument("--depths", default="1,16")
    args = parser.parse_args()
    print(runs.machine())
    print(f"a room of {args.subscribers} subscribers, {args.size} bytes of content, "
          f"{args.duration} a run, server on core 0, load tool on core 1")
    for depth in args.depths.split(","):
        show(depth, pairs(args, depth))


if __name__ == "__main__":
    main()
