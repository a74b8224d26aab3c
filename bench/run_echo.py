#!/usr/bin/python3
"""bench/run_echo.py - ringhub's own user-mode CPU per echoed message, above the floor.

Method  ringhubd (/echo, one shard) and floor_echo (no WebSocket parsing at all, the same use of the
        kernel) alternate, both on core 0; the load tool has core 1. Each pair of neighbouring runs
        gives one difference, so a machine that grows slower meanwhile slows both. Medians and
        quartiles over all pairs. The order within a pair alternates.
Figures user-mode CPU of the whole server process per message, as the kernel's tick splits it: one
        run has a few hundred ticks, of which a few fall into user mode. So look at the medians of
        many pairs, and at "pooled": all user time through all messages.

Usage: run_echo.py [--pairs 20] [--duration 2s] [--size 64] [--connections 100] [--depths 1,16]
"""
import argparse

import runs


def one(server, args, depth):
    return runs.load("1", server, "echo", "/echo", "--connections", args.connections, "--depth",
                     depth, "--size", args.size, "--mask-zero", "--duration", args.duration,
                     "--warmup", "300ms")


def pairs(args, depth):
    """Runs all pairs; a list of (ringhub's figures, the floor's)."""
    found = []
    with runs.ringhubd("0", 1) as hub, runs.floor_echo("0", args.size) as floor:
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
    def of(key):
        return [[r["server"][key] for r in column] for column in zip(*found)]

    hub, floor = of("user_ns_per_message")
    hub_all, floor_all = of("cpu_ns_per_message")
    own = [a - b for a, b in zip(hub, floor)]
    pooled = [sum(r["server"]["user_ns"] for r in column) / sum(r["messages"] for r in column)
              for column in zip(*found)]
    rates = [[r["rate_per_second"] for r in column] for column in zip(*found)]
    busy = sum(r["tool"]["bottleneck"] for pair in found for r in pair)
    print(f"\ndepth {depth}, {len(found)} pairs: median [quartiles], per message")
    print(f"  ringhub   user {runs.spread(hub)}   all {runs.spread(hub_all)}")
    print(f"  floor     user {runs.spread(floor)}   all {runs.spread(floor_all)}")
    print(f"  ringhub above the floor, user {runs.spread(own)}   pooled "
          f"{pooled[0]:.1f} - {pooled[1]:.1f} = {pooled[0] - pooled[1]:.1f} ns")
    ratios = [a / b for a, b in zip(hub_all, floor_all)]
    print(f"  all told  {runs.spread(ratios, 'times the floor', 3)}")
    print(f"  rate      ringhub {runs.spread(rates[0], '/s')}   floor {runs.spread(rates[1], '/s')}")
    if busy:
        print(f"  in {busy} of {2 * len(found)} runs the load tool was the bottleneck"
              " (the rate is then its own; CPU per message of the server is not touched by that)")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--duration", default="2s")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--depths", default="1,16")
    args = parser.parse_args()
    print(runs.machine())
    print(f"echo of {args.size} bytes over {args.connections} connections, {args.duration} a run, "
          "server on core 0, load tool on core 1")
    for depth in args.depths.split(","):
        show(depth, pairs(args, depth))


if __name__ == "__main__":
    main()
