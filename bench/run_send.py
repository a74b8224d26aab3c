#!/usr/bin/python3
"""bench/run_send.py - what message.send costs across two shards on two cores.

Method  ringhubd with two shards may use cores 0 and 1, and so may the load tool; open loop at a fixed
        rate, so the server is not saturated and latency means something. A user's name decides on
        the shard, so about half of all messages cross from one shard to the other. A fresh server
        for each run. CPU is the whole server's, per delivered message: it covers the request, the
        response and the delivery. With --depth it is a closed loop, in which each connection keeps
        that many outstanding: the server is saturated, and latency is queueing. With --shards 1
        server and load tool have a core each.

Usage: run_send.py [--runs 5] [--rate 20000 | --depth D] [--duration 5s] [--connections 100]
                   [--size 64] [--shards 2]
       run_send.py --connections 1000 --depth 16        500 pairs, in both directions
"""
import argparse

import runs


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rate", type=int, default=20000)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--duration", default="5s")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    found = []
    pace = ("--depth", args.depth) if args.depth else ("--rate", args.rate)
    cores = ("0", "1") if args.shards == 1 else ("0,1", "0,1")
    print(runs.machine())
    print(f"message.send of {args.size} bytes, {pace[0][2:]} {pace[1]}, {args.connections} "
          f"connections, {args.duration} a run, shards: {args.shards}")
    for i in range(args.runs):
        with runs.ringhubd(cores[0], args.shards) as hub:
            r = runs.load(cores[1], hub, "send", "/ws", "--connections", args.connections, *pace,
                          "--size", args.size, "--duration", args.duration, "--warmup", "1s")
        found.append(r)
        print(f"  run {i + 1}: {r['rate_per_second']:.0f}/s, user {r['server']['user_ns_per_message']:.0f}"
              f" ns, all {r['server']['cpu_ns_per_message']:.0f} ns per message, delivery p50 "
              f"{r['latency']['p50'] / 1000:.0f} us, p99 {r['latency']['p99'] / 1000:.0f} us"
              f"{', load tool too slow: ' + r['tool']['why'] if r['tool']['bottleneck'] else ''}",
              flush=True)
    print("median [quartiles]")
    print("  user per message ", runs.spread([r["server"]["user_ns_per_message"] for r in found]))
    print("  CPU per message  ", runs.spread([r["server"]["cpu_ns_per_message"] for r in found]))
    for name in ("p50", "p99", "p99.9"):
        print(f"  delivery {name:8}", runs.spread([r["latency"][name] / 1000 for r in found], "us"))


if __name__ == "__main__":
    main()
