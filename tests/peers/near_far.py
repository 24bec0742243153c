#!/usr/bin/env python3
"""Near-far attention beside PyTorch's scaled_dot_product_attention and our own exact attention, causally, on real input.

    near_far.py CLSPLAT INPUT… [--join N,N,…] [--tolerance X,X,…] [--chunk C] [--variant ROW] [--sinks N] [--rows N] [--on cpu|cuda]
        [--device DEVICE] [--check]

INPUT are files with q [1,H,N,D] and k, v [1,Hk,N,D], as long_inputs.py makes them. With --join they are heads of one input, such as layers
of a model, and it is taken at the lengths N, each a part of the whole. The error is ‖out − exact‖ / ‖exact‖ against float64 over --rows
sampled rows of every head, from an eighth of the length on; beside it the mean of the rows' errors, and of what the rows expected, and the
keys that a row has exactly, in number and as a share of those it sees: at one tolerance they tell how work grows with the length. Times are
of the kernels, trees included: the best of several runs, as for PyTorch (one for long inputs). On a CPU, beyond 100,000 tokens, PyTorch and
exact attention are timed on the first 65,536, and scaled up by the square of the length: marked ~. On a GPU PyTorch gets the inputs as
they are, otherwise in F32. --sinks plants N keys at random places of every key head, and one at the first, which draw attention from all
queries and say little, as models learn them. --check: later tokens change no bit of earlier rows. Prints a Markdown table.
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

RUNS = 8  # of which the best counts: short ones are soon disturbed
LONG, VERY_LONG = 20000, 500000  # tokens beyond which exact attention is run once: on a CPU, and on a GPU
LONGER, TIMED = 100000, 65536  # and on a CPU only its first tokens
BLOCK = 32768


def load(path, *names):
    with safe_open(path, "pt") as f:
        return [f.get_tensor(name) for name in names]


def attend(options, path, out, *flags):
    """Seconds in kernels."""
    command = [options.clsplat, "attend", path, "-o", out, "--causal", "--json", *flags]
    command += ["--device", options.device] if options.device else []
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return sum(kernel["seconds"] for kernel in report["kernels"])


def seconds_of(call, on):
    if on == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return 1e-3 * begin.elapsed_time(end)
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def sdpa(options, q, k, v, runs):
    """Seconds of PyTorch's, causal, with keys and values repeated beforehand."""
    kind = q.dtype if options.on == "cuda" else torch.float32
    q, k, v = (x.to(options.on, kind).repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (q, k, v))
    return min(seconds_of(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), options.on) for _ in range(runs))


def exact_rows(options, q, k, v, rows):
    """Of each sampled row, in float64: [rows, H, D]. A block of keys at a time."""
    group, scale, result, rows = q.shape[1] // k.shape[1], q.shape[3] ** -0.5, [], rows.to(options.on)
    for head in range(q.shape[1]):
        chosen = q[0, head].to(options.on)[rows].double() * scale
        top, mass, total = torch.full_like(chosen[:, :1], -torch.inf), 0.0, 0.0
        for begin in range(0, int(rows.max()) + 1, BLOCK):
            keys, values = (x[0, head // group, begin : begin + BLOCK].to(options.on).double() for x in (k, v))
            hidden = torch.arange(begin, begin + len(keys), device=options.on) > rows[:, None]
            logits = (chosen @ keys.T).masked_fill(hidden, -torch.inf)
            higher = torch.maximum(top, logits.amax(1, keepdim=True))
            weights, shrink = torch.exp(logits - higher), torch.exp(top - higher)
            top, mass, total = higher, mass * shrink + weights.sum(1, keepdim=True), total * shrink + weights @ values
        result.append(total / mass)
    return torch.stack(result, 1).cpu()


def runs_of(options, length):
    if options.on == "cpu":
        return RUNS if length <= LONG else 1
    return 2 if length <= VERY_LONG else 1


def baselines(options, path, out, inputs):
    """Seconds of exact attention (0: not wanted) and of PyTorch, and whether they were scaled up."""
    length, scaled = inputs[0].shape[2], 1.0
    if options.on == "cpu" and length > LONGER:
        inputs, scaled = [x[:, :, :TIMED].contiguous() for x in inputs], (length / TIMED) ** 2
        path = f"{out}.first"
        save_file(dict(zip("qkv", inputs)), path)
    runs = runs_of(options, length)
    ours = 0.0 if options.no_exact else min(attend(options, path, out) for _ in range(runs))
    return ours * scaled, sdpa(options, *inputs, runs) * scaled, "~" if scaled > 1 else ""


def plant(q, k, v, count):
    """Keys along the mean query, whose logits lie some 8 above those of the others; with values of a twentieth."""
    if not count:
        return
    group, generator = q.shape[1] // k.shape[1], torch.Generator().manual_seed(7)
    for head in range(k.shape[1]):
        queries = q[0, head * group : (head + 1) * group].float().mean((0, 1))
        length = queries.norm() * q.shape[3] ** -0.5
        places = torch.cat([torch.zeros(1, dtype=torch.long), torch.randint(k.shape[2], (count,), generator=generator)])
        k[0, head, places] = (queries / queries.norm() * (8 / length)).to(k.dtype)
        v[0, head, places] *= 0.05


def near_far(options, path, out, tolerance, runs):
    """Seconds of the better run, and what it wrote."""
    flags = ["--method", "near-far", "--tolerance", tolerance]
    for name, value in (("--chunk", options.chunk), ("--variant", options.variant)):
        flags += [name, value] if value else []
    seconds = min(attend(options, path, out, *flags) for _ in range(runs))
    return seconds, load(out, "out", "lse", "exact_keys", "error_estimate")


def check_causal(options, inputs, path, out, tolerance):
    """Changes what comes late, three times; what came before must keep its bits."""
    _, before = near_far(options, path, out, tolerance, 1)
    length = inputs[0].shape[2]
    for late in (length - 1, length * 2 // 3 + 5, length // 3):
        changed = [x.clone() for x in inputs]
        for x in changed:
            x[:, :, late:] = torch.randn(x[:, :, late:].shape, generator=torch.Generator().manual_seed(late)).to(x.dtype) * 3
        save_file(dict(zip("qkv", changed)), f"{out}.changed")
        _, after = near_far(options, f"{out}.changed", out, tolerance, 1)
        same = all(torch.equal(a[:, :, :late].view(torch.int32), b[:, :, :late].view(torch.int32)) for a, b in zip(before, after))
        print(f"tokens from {late} of {length} on change {'nothing' if same else 'SOMETHING'} before", flush=True)


def compare(options, name, inputs, path, out):
    q, k, v = inputs
    length = q.shape[2]
    rows = torch.randint(length // 8, length, (options.rows,), generator=torch.Generator().manual_seed(1))
    exact, all_keys = exact_rows(options, q, k, v, rows), (length + 1) / 2
    ours, peer, about = baselines(options, path, out, inputs)
    if ours:
        print(f"| {name} | exact | {about}{ours:.4f} | {about}{peer:.4f} | {peer / ours:.2f} | | | | {all_keys:.0f} | 100 % |", flush=True)
    for tolerance in options.tolerance.split(","):
        seconds, (result, _, keys, expected) = near_far(options, path, out, tolerance, max(runs_of(options, length), 1 if length > LONGER else 2))
        difference = result[0][:, rows].double().transpose(0, 1) - exact
        by_row, keys = difference.norm(dim=-1) / exact.norm(dim=-1), keys.double().mean()
        print(f"| {name} | {tolerance} | {seconds:.4f} | {about}{peer:.4f} | {peer / seconds:.2f} | {difference.norm() / exact.norm():.4f} "
              f"| {by_row.mean():.4f} | {expected[0][:, rows].double().mean():.4f} | {keys:.0f} | {100 * keys / all_keys:.1f} % |", flush=True)
    if options.check:
        check_causal(options, inputs, path, out, options.tolerance.split(",")[0])


def inputs_of(options, folder):
    """Name, tensors and file of each input."""
    if not options.join:
        for path in options.inputs:
            parts = load(path, "q", "k", "v")
            plant(*parts, options.sinks)
            save_file(dict(zip("qkv", parts)), f"{folder}/in.safetensors")
            yield pathlib.Path(path).stem, parts, f"{folder}/in.safetensors"
        return
    whole = [torch.cat(parts, 1) for parts in zip(*(load(path, "q", "k", "v") for path in options.inputs))]
    for length in map(int, options.join.split(",")):
        parts = [x[:, :, :length].clone(memory_format=torch.contiguous_format) for x in whole]
        plant(*parts, options.sinks)
        save_file(dict(zip("qkv", parts)), f"{folder}/in.safetensors")
        yield f"{length}, H = {parts[0].shape[1]} on {parts[1].shape[1]}", parts, f"{folder}/in.safetensors"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clsplat")
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--tolerance", default="0.02,0.05,0.1")
    parser.add_argument("--chunk", help="keys of a tree; the library's choice if it is not given")
    parser.add_argument("--variant", help="this row of near-far's kernels alone")
    parser.add_argument("--sinks", type=int, default=0, metavar="N", help="plant N keys that draw attention, and one more in front")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--join", metavar="N,N,…", help="inputs are heads of one, taken at these lengths")
    parser.add_argument("--on", choices=["cpu", "cuda"], default="cpu", help="where PyTorch runs")
    parser.add_argument("--no-exact", action="store_true", help="leave our own exact attention out")
    parser.add_argument("--check", action="store_true", help="that later tokens change no bit of earlier rows, too")
    parser.add_argument("--device", help="as for clsplat")
    options = parser.parse_args()
    print("| input | tolerance | s | SDPA, s | times | error | of rows | expected | keys a row | share |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, inputs, path in inputs_of(options, folder):
            compare(options, name, inputs, path, f"{folder}/out.safetensors")


if __name__ == "__main__":
    main()
