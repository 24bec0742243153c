#!/usr/bin/env python3
"""Gaussian attention through 256 splats beside our own exact attention, over the length. Prints a Markdown table.

    curve.py CLSPLAT [--to N] [--heads H] [--dtype f32|f16|bf16] [--device DEVICE]

Above some length exact attention is timed on the last queries only, and scaled up: marked ~.
"""
import argparse
import json
import subprocess

OPS = ["softmax", "gaussian", "gaussian-isotropic"]


def milliseconds(options, op, length):
    """Of one attention, and whether it was scaled up."""
    command = [options.clsplat, "bench", "--json", "--repeat", "5", "--variant", "tuned", "--op", op, "--dtype", options.dtype,
               "--shape", f"1,{options.heads},{length},{length},64,64,256"]
    command += ["--device", options.device] if options.device else []
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)[0]
    if result["rows"] == length:
        return 1e3 * result["seconds"], ""
    if op != "softmax":
        raise SystemExit(f"{op} at {length} takes too long here")
    return 1e3 * result["seconds"] * length / result["rows"], "~"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clsplat")
    parser.add_argument("--to", type=int, default=1 << 20, help="the longest")
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--device", help="as for clsplat")
    options = parser.parse_args()
    print("| N | exact, ms | diagonal, ms | times | isotropic, ms | times |\n|---|---|---|---|---|---|")
    length = 256
    while length <= options.to:
        exact, scaled = milliseconds(options, OPS[0], length)
        diagonal, isotropic = (milliseconds(options, op, length)[0] for op in OPS[1:])
        print(f"| {length} | {scaled}{exact:.2f} | {diagonal:.2f} | {exact / diagonal:.2f} | {isotropic:.2f} | {exact / isotropic:.2f} |",
              flush=True)
        length *= 4


if __name__ == "__main__":
    main()
