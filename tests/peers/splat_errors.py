#!/usr/bin/env python3
"""How near splats come to softmax attention on layers of pretrained models: one row of the table a layer and number of splats.

    splat_errors.py CLSPLAT LAYER... [--splats 256,1024] [--tokens N]

LAYER is a safetensors file with q [1,H,N,D], k and v [1,Hk,N,D] of a causal layer. The error is ‖out − softmax‖ / ‖softmax‖ over
1,024 evenly spaced rows of every head, of splats that the same tokens made: by k-means, by k-means with softmax's widths and
amplitudes, grown from one, and adapted from those of softmax. Prints rows of a Markdown table, each as it is done.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))
from tensors import file_of, load


def run(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def error(binary, splats, layer, folder, *more):
    """Of the splats, after so many cycles of adaptation; and in which file they are then."""
    out = folder / "out.safetensors"
    report = json.loads(run(binary, "adapt", splats, layer, "-o", out, "--causal", "--json", *more))
    return report["error_after"]


def row(binary, layer, splats, folder):
    made = folder / "made.safetensors"
    found = {}
    for name, options in [("k-means", []), ("softmax", ["--match", "softmax"])]:
        run(binary, "init", layer, "-o", made, "--splats", splats, *options)
        found[name] = error(binary, made, layer, folder, "--cycles", 0)
    found["adapted"] = error(binary, made, layer, folder)
    run(binary, "init", layer, "-o", made, "--splats", splats, "--init", "grow", "--causal")
    found["grown"] = error(binary, made, layer, folder, "--cycles", 0)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("layers", nargs="+", type=Path)
    parser.add_argument("--splats", default="256,1024")
    parser.add_argument("--tokens", type=int, default=4096)
    a = parser.parse_args()
    print("| layer | tokens | splats | k-means | `--match softmax` | grown | adapted |\n|---|---|---|---|---|---|---|", flush=True)
    for layer in a.layers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tensors = {n: t[:, :, : a.tokens] for n, t in load(layer).items() if n in ("q", "k", "v")}
            cut = folder / "layer.safetensors"
            cut.write_bytes(file_of({n: ("F32", t) for n, t in tensors.items()}))
            for splats in map(int, a.splats.split(",")):
                found = row(a.binary, cut, splats, folder)
                print(f"| {layer.stem} | {tensors['q'].shape[2]} | {splats} | " +
                      " | ".join(f"{found[n]:.3f}" for n in ("k-means", "softmax", "grown", "adapted")) + " |", flush=True)


if __name__ == "__main__":
    main()
