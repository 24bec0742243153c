#!/usr/bin/env python3
"""One query over a long past, as in decoding: near and far beside our own exact attention.

    decoding.py CLSPLAT INPUT… [--tolerance X,X,…] [--chunk C] [--rows N] [--dtype f32|f16] [--device DEVICE]

INPUT are files with q [1,H,N,D] and k, v [1,Hk,N,D], as long_inputs.py makes them. Of each of the last N rows its query attends to all keys
before it. Times are of the kernels that a further token runs (trees grow once a chunk, and are left out), in turns with exact attention's,
the median over rows; the error is ‖out − exact‖ / ‖exact‖ over all rows, in float64. Prints a Markdown table.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

RUNS = 3  # of which the best counts


def attend(options, folder, *flags):
    """Seconds of the kernels that attend, and what they wrote."""
    command = [options.clsplat, "attend", f"{folder}/in", "-o", f"{folder}/out", "--causal", "--json", *flags]
    command += ["--device", options.device] if options.device else []
    best = float("inf")
    for _ in range(RUNS):
        kernels = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["kernels"]
        best = min(best, sum(k["seconds"] for k in kernels if k["name"].startswith(("softmax", "near_far", "merge"))))
    return best, load_file(f"{folder}/out")


def exact(q, k, v):
    """[H,D] of one query, in float64."""
    group = q.shape[1] // k.shape[1]
    keys, values = (x[0].double().repeat_interleave(group, 0) for x in (k, v))
    weights = torch.softmax(torch.einsum("hd,hnd->hn", q[0, :, 0].double(), keys) * q.shape[3] ** -0.5, 1)
    return torch.einsum("hn,hnd->hd", weights, values)


def compare(options, path, folder):
    with safe_open(path, "pt") as file:
        q, k, v = (file.get_tensor(name).to(torch.float16 if options.dtype == "f16" else torch.float32) for name in "qkv")
    tolerances = options.tolerance.split(",")
    times, errors, keys, whole = {t: [] for t in [None, *tolerances]}, dict.fromkeys(tolerances, 0.0), dict.fromkeys(tolerances, 0.0), 0.0
    for row in range(q.shape[2] - options.rows, q.shape[2]):
        parts = [x.contiguous() for x in (q[:, :, row : row + 1], k[:, :, : row + 1], v[:, :, : row + 1])]
        save_file(dict(zip("qkv", parts)), f"{folder}/in")
        truth = exact(*parts)
        whole += truth.square().sum().item()
        times[None].append(attend(options, folder)[0])
        for t in tolerances:
            flags = ["--method", "near-far", "--tolerance", t] + (["--chunk", options.chunk] if options.chunk else [])
            seconds, result = attend(options, folder, *flags)
            times[t].append(seconds)
            errors[t] += (result["out"][0, :, 0].double() - truth).square().sum().item()
            keys[t] += result["exact_keys"].double().mean().item() / (row + 1) / options.rows
    base = statistics.median(times[None])
    for t in tolerances:
        ours = statistics.median(times[t])
        print(f"| {pathlib.Path(path).parent.name}/{pathlib.Path(path).stem} | {q.shape[2]} | {t} | {1e3 * base:.3f} | {1e3 * ours:.3f} | {base / ours:.2f} "
              f"| {(errors[t] / whole) ** 0.5:.4f} | {100 * keys[t]:.1f} % |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clsplat")
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--tolerance", default="0.02,0.05,0.1")
    parser.add_argument("--chunk", help="keys of a tree; the library's choice if it is not given")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--dtype", choices=["f32", "f16"], default="f32")
    parser.add_argument("--device", help="as for clsplat")
    options = parser.parse_args()
    print("| input | keys | tolerance | exact, ms | near and far, ms | times | error | keys exactly |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in options.inputs:
            compare(options, path, folder)


if __name__ == "__main__":
    main()
