#!/usr/bin/python3
"""bench/run_connect.py - what a connection costs to make, and to keep.

Method  A fresh hub on core 0 for each run, since memory that was used once is not given back at once;
        the load tool on core 1. Opened as fast as the tool can, then held; all are users of one
        connection each.
Figures from opening: connections a second and the server's CPU for each, 101 and `welcome`
        included; from holding: anonymous memory of the server for each (its own; the kernel's share is
        not in it) and its CPU for each and second (pings every 30 s).

Usage: run_connect.py [--rounds 5] [--connections 20000] [--shards 1,8] [--hold 1s] [--threads 1]
       run_connect.py --rounds 3 --connections 100000 --shards 8 --hold 65s --threads 6
"""
import argparse

import runs


def one(args, shards):
    with runs.ringhubd("0", shards) as hub:
        return runs.load("1", hub, "connect", "/ws", "--connections", args.connections,
                         "--duration", args.hold, "--threads", args.threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=20000)
    parser.add_argument("--shards", default="1,8")
    parser.add_argument("--hold", default="1s")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print(runs.machine())
    kinds = [int(n) for n in args.shards.split(",")]
    found = {shards: [] for shards in kinds}
    for _ in range(args.rounds):
        for shards in kinds:
            found[shards].append(one(args, shards))
    for shards, all_of in found.items():
        def of(key, scale=1, all_of=all_of):
            return [figures["server"][key] / scale for figures in all_of]

        rates = [args.connections / figures["open_seconds"] for figures in all_of]
        print(f"{args.connections} connections, {shards} shards, {args.rounds} rounds: median "
              "[quartiles]")
        print(f"  opened   {runs.spread(rates, '/s')}")
        print(f"  CPU      {runs.spread(of('cpu_ns_per_connection', 1000), 'us each')}   user "
              f"{runs.spread(of('user_ns_per_connection', 1000), 'us')}")
        print(f"  memory   {runs.spread(of('anon_per_connection'), 'bytes each')}")
        print(f"  keeping  {runs.spread(of('idle_ns_per_connection_second', 1000), 'us each and second', 3)}")
        busy = sum(figures["tool"]["bottleneck"] for figures in all_of)
        if busy:
            print(f"  in {busy} of {args.rounds} runs the load tool was the bottleneck of the rate")


if __name__ == "__main__":
    main()
