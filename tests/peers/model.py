#!/usr/bin/env python3
"""A language model through CLSplat beside PyTorch with Hugging Face transformers, in one run on one machine.

    model.py SPEED MODEL FILE [--tokens N] [--decode N] [--rounds N] [--on cpu|cuda] [--dtype f32|bf16]

SPEED is the program tests/speed of a build folder. FILE is text for a model whose vocabulary are the bytes. Ours and the peer
take turns, round by round; figures are medians. The second ratio is of processor time, which tells more on a busy
machine (but a peer's threads also spin while they wait). Prefill ends with the logits of the next token; decoding is greedy, with a cache.
"""
import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

QUIET = 0.5  # seconds in which the threads of the peer before stop spinning


def ours(options):
    time.sleep(QUIET)
    command = [options.speed, options.model, options.file, str(options.tokens), str(options.decode), "3", options.dtype]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def synchronise(options):
    if options.on == "cuda":
        torch.cuda.synchronize()


def clocks():
    return time.perf_counter(), time.process_time()


def median(runs, what):
    return statistics.median(r[what] for r in runs)


@torch.inference_mode()
def theirs(options, model, ids):
    time.sleep(QUIET)
    begin = clocks()
    out = model(ids, use_cache=True, logits_to_keep=1)
    synchronise(options)
    read = clocks()
    for _ in range(options.decode):
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        token.item()
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
    synchronise(options)
    end = clocks()
    return {"prefill": read[0] - begin[0], "prefill_processors": read[1] - begin[1], "decode": end[0] - read[0],
            "decode_processors": end[1] - read[1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("speed")
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--on", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    options = parser.parse_args()
    dtype = torch.float32 if options.dtype == "f32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).to(options.on).eval()
    text = Path(options.file).read_bytes()
    ids = torch.tensor([[text[i % len(text)] for i in range(options.tokens)]], device=options.on)
    theirs(options, model, ids)
    mine, peer = [], []
    for _ in range(options.rounds):
        mine.append(ours(options))
        peer.append(theirs(options, model, ids))
    print("| what | ours | PyTorch with transformers | ratio | of processor time |\n|---|---|---|---|---|")
    for what, count in (("prefill", options.tokens), ("decode", options.decode)):
        a, b = median(mine, what), median(peer, what)
        spent = median(peer, what + "_processors") / median(mine, what + "_processors")
        print(f"| {what}, {count} tokens, {options.dtype} | {1e3 * a:.1f} ms, {count / a:.0f} tokens/s "
              f"| {1e3 * b:.1f} ms, {count / b:.0f} tokens/s | {b / a:.2f} | {spent:.2f} |")


if __name__ == "__main__":
    main()
