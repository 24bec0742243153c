#!/usr/bin/env python3
"""Near-far attention beside PyTorch's scaled_dot_product_attention and our own exact attention, causally, on real input.

    near_far.py CLSPLAT INPUT… [--tolerance X,X,…] [--chunk C] [--rows N] [--device DEVICE]

INPUT are files with q [1,H,N,D] and k, v [1,Hk,N,D], as long_inputs.py makes them. The error is ‖out − exact‖ / ‖exact‖ against float64 over N
sampled rows of every head, from an eighth of the length on; beside it the mean of the rows' errors, and of what the rows expected, and the
keys that a row has exactly, in number and as a share of those it sees: at one tolerance they tell how work grows with the length. Times are
of the kernels, trees included: the better of two runs, as for PyTorch (one beyond 20,000 tokens). Beyond 100,000 tokens PyTorch and
exact attention are timed on the first 65,536, and scaled up by the square of the length: marked ~. Prints a Markdown table.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

LONG, LONGER, TIMED, BLOCK = 20000, 100000, 65536, 32768


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
    """Of each sampled row, in float64: [rows, H, D]. A block of keys at a time."""
    group, scale, result = q.shape[1] // k.shape[1], q.shape[3] ** -0.5, []
    for head in range(q.shape[1]):
        chosen = q[0, head, rows].double() * scale
        top, mass, total = torch.full((len(rows), 1), -torch.inf).double(), 0.0, 0.0
        for begin in range(0, int(rows.max()) + 1, BLOCK):
            keys, values = (x[0, head // group, begin : begin + BLOCK].double() for x in (k, v))
            hidden = torch.arange(begin, begin + len(keys)) > rows[:, None]
            logits = (chosen @ keys.T).masked_fill(hidden, -torch.inf)
            higher = torch.maximum(top, logits.amax(1, keepdim=True))
            weights, shrink = torch.exp(logits - higher), torch.exp(top - higher)
            top, mass, total = higher, mass * shrink + weights.sum(1, keepdim=True), total * shrink + weights @ values
        result.append(total / mass)
    return torch.stack(result, 1)


def baselines(options, path, folder, q, k, v):
    """Seconds of exact attention and of PyTorch, and whether they were scaled up."""
    length, runs, scaled = q.shape[2], 1 if q.shape[2] > LONG else 2, 1.0
    if length > LONGER:
        q, k, v = (x[:, :, :TIMED].contiguous() for x in (q, k, v))
        path, scaled = f"{folder}/first.safetensors", (length / TIMED) ** 2
        save_file({"q": q, "k": k, "v": v}, path)
    ours = min(attend(options, path, f"{folder}/out.safetensors") for _ in range(runs))
    return ours * scaled, sdpa(q, k, v, runs) * scaled, "~" if scaled > 1 else ""


def compare(options, path, folder):
    q, k, v = load(path, "q", "k", "v")
    length, out = q.shape[2], f"{folder}/out.safetensors"
    rows = torch.randint(length // 8, length, (options.rows,), generator=torch.Generator().manual_seed(1))
    exact, name = exact_rows(q, k, v, rows), pathlib.Path(path).stem
    ours, peer, about = baselines(options, path, folder, q, k, v)
    print(f"| {name} | exact | {about}{ours:.4f} | {about}{peer:.4f} | {peer / ours:.2f} | | | | {(length + 1) / 2:.0f} | 100 % |", flush=True)
    for tolerance in options.tolerance.split(","):
        flags = ["--method", "near-far", "--tolerance", tolerance] + (["--chunk", options.chunk] if options.chunk else [])
        seconds = min(attend(options, path, out, *flags) for _ in range(1 if length > LONGER else 2))
        result, expected, keys = load(out, "out", "error_estimate", "exact_keys")
        difference = result[0][:, rows].transpose(0, 1).double() - exact
        by_row, keys = difference.norm(dim=-1) / exact.norm(dim=-1), keys.double().mean()
        print(f"| {name} | {tolerance} | {seconds:.4f} | {about}{peer:.4f} | {peer / seconds:.2f} | {difference.norm() / exact.norm():.4f} "
              f"| {by_row.mean():.4f} | {expected[0][:, rows].mean():.4f} | {keys:.0f} | {100 * keys / ((length + 1) / 2):.1f} % |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clsplat")
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--tolerance", default="0.02,0.05,0.1")
    parser.add_argument("--chunk", help="keys of a tree; the library's choice if it is not given")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--device", help="as for clsplat")
    options = parser.parse_args()
    print("| input | tolerance | s | SDPA, s | times | error | of rows | expected | keys a row | share |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in options.inputs:
            compare(options, path, folder)


if __name__ == "__main__":
    main()
