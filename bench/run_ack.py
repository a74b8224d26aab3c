#!/usr/bin/python3
"""bench/run_ack.py - what it costs that an acknowledged message is durable.

Method  Pairs of runs of mode ack, one with store.durability commit and one with memory, in turns
        (the first of a pair changes from round to round), each on a fresh hub with an empty store
        on the disk that holds build/. Hub and load tool may use cores 0 and 1. Each kind is
        measured twice a round: saturated (a closed loop of --depth), and in an open loop at 30 % of what the
        first saturated run with memory made, or at --rate: there the server is not busy, and
        latency means something.
Figures CPU of the whole server per message, from request to `message.status`, and their ratio in
        each round; p50 and p99 of the receiver's arrival, and the ratio of the p50 in each round;
        the same of the answer, which waits for the commit, and of the status.

Usage: run_ack.py [--rounds 5] [--rate R] [--depth 16] [--connections 200] [--duration 5s]
                  [--size 64] [--shards 2] [--share 0.3] [--set key=value]...
"""
import argparse

import runs

KINDS = ("commit", "memory")


def one(args, kind, *pace):
    with runs.ringhubd("0,1", args.shards, f"store.durability={kind}", *args.set) as hub:
        return runs.load("0,1", hub, "ack", "/ws", "--connections", args.connections, *pace,
                         "--size", args.size, "--duration", args.duration, "--warmup", "1s")


def in_turns(args, number, *pace):
    """One run of each kind; the first one changes from round to round."""
    kinds = KINDS if number % 2 == 0 else KINDS[::-1]
    return {kind: one(args, kind, *pace) for kind in kinds}


def cpu(figures):
    return figures["server"]["cpu_ns_per_message"] / 1000


def tell(words, figures):
    tool = figures["tool"]
    slow = ", load tool too slow: " + tool["why"] if tool["bottleneck"] else ""
    print(f"  {words}: {figures['rate_per_second']:.0f}/s, {cpu(figures):.2f} us CPU, arrival p50 "
          f"{figures['latency']['p50'] / 1000:.0f} us, answer p50 "
          f"{figures['answer']['p50'] / 1000:.0f} us{slow}", flush=True)


def rows(name, found):
    print(f"{name}: median [quartiles]")
    for kind in KINDS:
        runs_of = [pair[kind] for pair in found]
        print(f"  {kind:8} CPU per message "
              f"{runs.spread([cpu(r) for r in runs_of], 'us', 2)}   rate "
              f"{runs.spread([r['rate_per_second'] for r in runs_of], '/s', 0)}")
        for what, words in (("latency", "arrival"), ("answer", "answer"), ("status", "status")):
            print(f"           {words:8} " + "   ".join(
                f"{p} {runs.spread([r[what][p] / 1000 for r in runs_of], 'us')}"
                for p in ("p50", "p99")))
    print("  commit / memory: CPU "
          + runs.spread([cpu(p["commit"]) / cpu(p["memory"]) for p in found], "x", 3)
          + "   arrival p50 "
          + runs.spread([p["commit"]["latency"]["p50"] / p["memory"]["latency"]["p50"]
                         for p in found], "x", 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--duration", default="5s")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    print(runs.machine())
    print(f"acknowledged messages of {args.size} bytes, {args.connections} connections, "
          f"{args.shards} shards, {args.duration} a run")
    saturated, calm, rate = [], [], args.rate
    for i in range(args.rounds):
        saturated.append(in_turns(args, i, "--depth", args.depth))
        rate = rate or max(1, round(args.share * saturated[0]["memory"]["rate_per_second"]))
        calm.append(in_turns(args, i, "--rate", rate))
        for kind in KINDS:
            tell(f"round {i + 1}, {kind:6} depth {args.depth}", saturated[-1][kind])
            tell(f"round {i + 1}, {kind:6} rate {rate}", calm[-1][kind])
    rows(f"saturated, depth {args.depth}", saturated)
    rows(f"open loop, {rate}/s", calm)


if __name__ == "__main__":
    main()
