#!/usr/bin/env python3
"""Long, real inputs for attention: q, k and v of chosen layers of a Hugging Face model run over text.

    long_inputs.py MODEL OUT --bytes 65536 --layers 1,4 [--on cpu|cuda] [--dtype f16|bf16] [--clsplat CLSPLAT] TEXT...

MODEL is a folder in the Hugging Face layout; TEXT are files, or folders whose *.py files are taken in the
order of their paths (default: Python's own standard library, without its tests). A model whose vocabulary
is the 256 bytes reads the bytes themselves, documents separated by a byte 0; any other uses its tokenizer.
Writes OUT/bytes-N-layerL.safetensors (N tokens) with q [1,H,N,D] and k, v [1,Hk,N,D] in F16 or BF16, as attention
sees them: after RoPE and any normalisation. Attention itself is PyTorch's causal SDPA in float32 (on a GPU, in the type
that is written), one head at a time, and the layers after the last one asked for are not run.
Memory: N x (hidden + 2 H D) floats and little else. Time: N x N / 2 x 4 H D multiply-adds a layer.
For a million tokens, which would take PyTorch a day, --clsplat names the command whose near-far attention, at a
tolerance of 0.003, does the layers before the last one asked for.
"""
import argparse
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

ROWS = 32768  # of a feed-forward block at a time
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


class Done(Exception):
    """The last layer asked for has been written."""


def documents(paths):
    """The bytes of every text, files in the order given, folders in the order of their paths."""
    for path in map(pathlib.Path, paths):
        if not path.exists():
            sys.exit(f"long_inputs.py: {path}: no such file or folder")
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            inside = file.relative_to(path).parts if path.is_dir() else ()
            if not {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(inside):
                yield file.read_bytes()


def tokens(model, folder, paths, count):
    """The first `count` tokens of the texts, [1, count]."""
    if model.config.vocab_size == 256:
        stream = bytearray()
        for text in documents(paths):
            stream += text + b"\0"
            if len(stream) >= count:
                break
        ids = list(stream[:count])
    else:
        tokenizer, ids = AutoTokenizer.from_pretrained(folder), []
        for text in documents(paths):
            ids += tokenizer(text.decode("utf-8", "replace"))["input_ids"]
            if len(ids) >= count:
                break
        ids = ids[:count]
    if len(ids) < count:
        sys.exit(f"long_inputs.py: the texts hold {len(ids)} tokens, {count} were asked for; name more of them")
    return torch.tensor([ids])


def near_far(clsplat, q, k, v, scale):
    """Attention by the command, [B,N,H,D]."""
    with tempfile.TemporaryDirectory() as folder:
        save_file({"q": q.contiguous().cpu(), "k": k.contiguous().cpu(), "v": v.contiguous().cpu()}, f"{folder}/in.safetensors")
        subprocess.run([clsplat, "attend", f"{folder}/in.safetensors", "-o", f"{folder}/out.safetensors", "--causal", "--scale", str(scale),
                        "--method", "near-far", "--tolerance", "0.003"], stdout=sys.stderr, check=True)
        return load_file(f"{folder}/out.safetensors")["out"].transpose(1, 2).to(q.device)


def attention(wanted, write, dtype, clsplat):
    """An attention function for transformers: hands q, k, v of the wanted layers to `write`."""

    def forward(module, q, k, v, mask, scaling=None, **_):
        layer, group = module.layer_idx, q.shape[1] // k.shape[1]
        if layer in wanted:
            write(layer, q, k, v)
        if layer == max(wanted):
            raise Done
        if clsplat:
            return near_far(clsplat, q, k, v, scaling), None
        out = torch.empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3], device=q.device)
        q, k, v = (x.to(dtype) for x in (q, k, v))
        for h in range(q.shape[1]):
            one, key = slice(h, h + 1), slice(h // group, h // group + 1)
            out[:, :, h] = torch.nn.functional.scaled_dot_product_attention(
                q[:, one], k[:, key], v[:, key], is_causal=True, scale=scaling)[:, 0]
        return out, None

    return forward


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("texts", nargs="*", default=[sysconfig.get_paths()["stdlib"]])
    parser.add_argument("--bytes", type=int, default=65536, help="tokens of the input (bytes, for a byte model)")
    parser.add_argument("--layers", default="1,4")
    parser.add_argument("--on", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="f16", help="what is written")
    parser.add_argument("--clsplat", help="the command that attends in PyTorch's place, with an error below 0.3 %%")
    args = parser.parse_args()
    wanted = {int(layer) for layer in args.layers.split(",")}
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.time()

    def write(layer, q, k, v):
        path = args.out / f"bytes-{q.shape[2]}-layer{layer}.safetensors"
        save_file({name: x.to(DTYPES[args.dtype]).contiguous().cpu() for name, x in (("q", q), ("k", k), ("v", v))}, path)
        print(f"{path}  q {list(q.shape)}  k {list(k.shape)}  after {time.time() - start:.0f} s", flush=True)

    within = torch.float32 if args.on == "cpu" else DTYPES[args.dtype]
    AttentionInterface.register("long_inputs", attention(wanted, write, within, args.clsplat))
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="long_inputs").to(args.on)
    if max(wanted) >= model.config.num_hidden_layers:
        sys.exit(f"long_inputs.py: {args.model} has {model.config.num_hidden_layers} layers, --layers {args.layers}")
    for layer in model.model.layers:  # the widest intermediate result, in blocks of rows
        layer.mlp.forward = lambda x, mlp=layer.mlp.forward: torch.cat([mlp(rows) for rows in x.split(ROWS, 1)], 1)
    try:
        with torch.inference_mode():
            model.model(tokens(model, args.model, args.texts, args.bytes).to(args.on), use_cache=False)
    except Done:
        pass


if __name__ == "__main__":
    main()
