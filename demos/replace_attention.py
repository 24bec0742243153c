#!/usr/bin/env python3
"""A pretrained model's attention replaced in one line, and what that does: quality, keys looked at, time.

    replace_attention.py MODEL [TEXT…] [--tokens 8192] [--tolerance 0.1]

MODEL is a folder or a name of transformers: a language model (SmolLM2) is judged by bits per byte, an encoder (MiniLM) by the cosine of its
sentence vectors. TEXT: files; without any, the licences that Debian has.
"""
import argparse
import math
import time
from pathlib import Path

import torch
import transformers

import clsplat

LICENCES = [f"/usr/share/common-licenses/{name}" for name in ("GPL-3", "LGPL-2.1", "GFDL-1.3")]


def timed(call):
    """What a call returns, and its seconds: the second of two, since the first compiles kernels."""
    call()
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def bits_per_byte(model, ids, bytes_):
    """Of the text after its first token; logits in slices, since all at once would take gigabytes."""
    hidden = model.model(ids).last_hidden_state[0]
    nats = 0.0
    for at in range(0, ids.shape[1] - 1, 512):
        rows = hidden[at : min(at + 512, ids.shape[1] - 1)]
        nats += torch.nn.functional.cross_entropy(model.lm_head(rows).float(), ids[0, at + 1 : at + 1 + len(rows)], reduction="sum").item()
    return nats / math.log(2) / bytes_


def sentence(model, inputs):
    return torch.nn.functional.normalize(model(**inputs).last_hidden_state.mean(1), dim=-1)


def show(name, quality, seconds, baseline, report=None):
    keys = "" if report is None else f"{report['exact_share']:8.1%} of the keys"
    print(f"{name:24} {quality}   {seconds:8.3f} s   {baseline / seconds:5.2f} x sdpa {keys}", flush=True)


def language_model(model, tokenizer, text, options):
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=options.tokens).input_ids
    bytes_ = len(tokenizer.decode(ids[0, 1:]).encode())
    print(f"{ids.shape[1]} tokens, {bytes_} bytes; prefill without the head")

    def judge(name, baseline=None):
        _, seconds = timed(lambda: model.model(ids))
        quality = f"{bits_per_byte(model, ids, bytes_):.4f} bits/byte"
        replaced = name != "sdpa"
        show(name, quality, seconds, baseline or seconds, clsplat.report_of(model) if replaced else None)
        return seconds
    baseline = judge("sdpa")
    for tolerance in (0, options.tolerance):
        clsplat.replace_attention(model, {"tolerance": tolerance})
        judge(f"clsplat, tolerance {tolerance}", baseline)
    print("\nThe layers of the last line:")
    for layer in clsplat.report_of(model)["layers"]:
        print(f"  {layer['layer']:28} {layer['exact_share']:7.1%} of the keys, expected error {layer['expected_error']:.4f}, {layer['seconds']:.3f} s")
    clsplat.restore(model)


def encoder(model, tokenizer, text, options):
    most = min(options.tokens, model.config.max_position_embeddings)
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=most)
    want, baseline = timed(lambda: sentence(model, inputs))
    show(f"sdpa, {inputs.input_ids.shape[1]} tokens", "cosine 1       ", baseline, baseline)
    for tolerance in (0, options.tolerance):
        clsplat.replace_attention(model, {"tolerance": tolerance})
        got, seconds = timed(lambda: sentence(model, inputs))
        show(f"clsplat, tolerance {tolerance}", f"cosine {(got * want).sum().item():.6f}", seconds, baseline, clsplat.report_of(model))
    clsplat.restore(model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text", nargs="*", default=[path for path in LICENCES if Path(path).exists()])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--tolerance", type=float, default=0.1)
    options = parser.parse_args()
    text = "\n".join(Path(path).read_text(errors="replace") for path in options.text)
    config = transformers.AutoConfig.from_pretrained(options.model)
    writes = any("CausalLM" in name for name in config.architectures or [])
    kind = transformers.AutoModelForCausalLM if writes else transformers.AutoModel
    model = kind.from_pretrained(options.model, attn_implementation="sdpa", dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    with torch.no_grad():
        (language_model if writes else encoder)(model, tokenizer, text, options)


if __name__ == "__main__":
    main()
