#!/usr/bin/env python3
"""Near-far attention beside PyTorch's scaled_dot_product_attention and our own exact attention, causally, on real input.

    near_far.py CLSPLAT INPUT… [--tolerance X,X,…] [--chunk C] [--rows N] [--device DEVICE]

INPUT are files with q [1,H,N,D] and k, v [1,Hk,N,D], as long_inputs.py makes them. The error is ‖out − exact‖ / ‖exact‖ against float64 over N
sampled rows of every head, from an eighth of the length on; beside it the mean of the rows' errors, and of what the rows expected. Times are
of the kernels, trees included: the better of two runs, as for PyTorch (one beyond 20,000 tokens). Prints a Markdown table.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import torch
from safetensors import safe_open

LONG = 20000


def load(path, *names):
    with safe_open(path, "pt") as f:
        return [f.get_tensor(name) for name in names]


def attend(options, path, out, *flags):
    """Seconds in kernels."""
    command = [options.clsplat, "attend", path, "-o", out, "--causal", "--json", *flags]
    command += ["--device", options.device] if options.device else []
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return sum(kernel["seconds"] for kernel in report["kernels"])


def sdpa(q, k, v, runs):
    q, k, v = (x.float().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (q, k, v))
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def exact_rows(q, k, v, rows):
    """Of each sampled row, in float64: [rows, H, D]."""
    group, scale, result = q.shape[1] // k.shape[1], q.shape[3] ** -0.5, []
    for i in rows.tolist():
        keys, values = (x[0, :, : i + 1].double().repeat_interleave(group, 0) for x in (k, v))
        weights = torch.softmax((q[0, :, i, None].double() * keys).sum(-1) * scale, -1)
        result.append((weights[..., None] * values).sum(1))
    return torch.stack(result)


def compare(options, path, out):
    q, k, v = load(path, "q", "k", "v")
    length, runs = q.shape[2], 1 if q.shape[2] > LONG else 2
    rows = torch.randint(length // 8, length, (options.rows,), generator=torch.Generator().manual_seed(1))
    exact, peer = exact_rows(q, k, v, rows), sdpa(q, k, v, runs)
    name = pathlib.Path(path).stem
    ours = min(attend(options, path, out) for _ in range(runs))
    print(f"| {name} | exact | {ours:.4f} | {peer:.4f} | {peer / ours:.2f} | | | | 100 % |", flush=True)
    for tolerance in options.tolerance.split(","):
        flags = ["--method", "near-far", "--tolerance", tolerance] + (["--chunk", options.chunk] if options.chunk else [])
        seconds = min(attend(options, path, out, *flags) for _ in range(2))
        result, expected, keys = (x.double() for x in load(out, "out", "error_estimate", "exact_keys"))
        difference = result[0][:, rows].transpose(0, 1) - exact
        by_row = difference.norm(dim=-1) / exact.norm(dim=-1)
        share = keys.sum() / (q.shape[1] * length * (length + 1) / 2)
        print(f"| {name} | {tolerance} | {seconds:.4f} | {peer:.4f} | {peer / seconds:.2f} | {difference.norm() / exact.norm():.4f} | {by_row.mean():.4f} "
              f"| {expected[0][:, rows].mean():.4f} | {100 * share:.1f} % |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clsplat")
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--tolerance", default="0.02,0.05,0.1")
    parser.add_argument("--chunk", help="keys of a tree; the library's choice if it is not given")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--device", help="as for clsplat")
    options = parser.parse_args()
    print("| input | tolerance | s | SDPA, s | times | error | of rows | expected | keys |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in options.inputs:
            compare(options, path, f"{folder}/out.safetensors")


if __name__ == "__main__":
    main()
