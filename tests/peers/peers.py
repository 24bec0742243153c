#!/usr/bin/env python3
"""CLSplat beside what a user would run instead, in one run on one machine: PyTorch's scaled_dot_product_attention and the
matrix product of OpenBLAS (NumPy) or PyTorch. Prints a Markdown table of ratios.

    peers.py CLSPLAT [--on cpu|cuda] [--only WORD] [--rounds N] [--device DEVICE]

CLSPLAT is the command. Ours and the peers take turns, round by round, each in a quiet moment; figures are medians over the rounds.
Needs NumPy and PyTorch. The machine should have nothing else to do.
"""
import argparse
import json
import statistics
import subprocess
import time

import cases

QUIET = 0.5  # seconds in which the threads of the peer before stop spinning
BENCH_RUNS = 5


def ours(options, case):
    """One result of `clsplat bench`: the variant that the library takes by itself, unless the case names another."""
    command = [options.clsplat, "bench", "--json", "--repeat", str(BENCH_RUNS), "--variant", case.get("variant", "tuned"),
               "--op", case["op"], "--shape", ",".join(map(str, case["shape"])), "--dtype", case.get("dtype", "f32")]
    command += ["--causal"] if case.get("causal") else []
    command += ["--device", options.device] if options.device else []
    time.sleep(QUIET)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)[0]


def theirs(call, synchronise):
    """Median seconds of a call after a warm-up."""
    time.sleep(QUIET)
    call()
    synchronise()
    seconds = []
    for _ in range(BENCH_RUNS):
        begin = time.perf_counter()
        call()
        synchronise()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def compare(options, case):
    """A row for each peer of the case: our figure, its figure, and how many times better ours is."""
    peers = [(peer, peer["make"](case, options.on)) for peer in case["peers"]]
    results, times = [], {peer["name"]: [] for peer, _ in peers}
    for _ in range(options.rounds):
        results.append(ours(options, case))
        for peer, (call, synchronise) in peers:
            times[peer["name"]].append(theirs(call, synchronise))
    middle = sorted(results, key=lambda r: r["seconds"])[len(results) // 2]
    for peer, _ in peers:
        seconds = statistics.median(times[peer["name"]])
        if "flops" in peer:
            rate = 1e-9 * peer["flops"] / seconds
            yield peer, f"{middle['gflops']:.0f} GFLOP/s", f"{rate:.0f} GFLOP/s", middle["gflops"] / rate
        else:
            yield peer, f"{1e3 * middle['seconds']:.2f} ms", f"{1e3 * seconds:.2f} ms", seconds / middle["seconds"]
    if "of_copy" in case:
        copied = middle["gbytes"] / middle["peak_gbytes"]
        yield {"name": "a copy", "least": case["of_copy"]}, f"{middle['gbytes']:.1f} GB/s", f"{middle['peak_gbytes']:.1f} GB/s", copied


def line(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clsplat")
    parser.add_argument("--on", choices=["cpu", "cuda"], default="cpu", help="where PyTorch runs, and which cases")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", help="as for clsplat")
    options = parser.parse_args()
    line("what", "ours", "peer", "its figure", "ratio", "at least")
    line(*["---"] * 6)
    for case in cases.CASES[options.on]:
        if options.only in case["name"]:
            for peer, mine, its, ratio in compare(options, case):
                least = peer.get("least")
                line(case["name"], mine, peer["name"], its, f"{ratio:.2f}", f"{least:g}" if least else "")


if __name__ == "__main__":
    main()
