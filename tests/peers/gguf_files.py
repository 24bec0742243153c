#!/usr/bin/env python3
"""GGUF files against the gguf package and transformers: gguf_files.py CLSPLAT [MODEL.gguf]

Every type of blocks: a model whose embedding is of that type, in random blocks, becomes float32 by `clsplat convert` bit for bit as the
package makes it. With a model, say the smollm2.gguf of a package: its logits over 64 tokens within a relative error of 1e-4 of
what transformers computes in float32 from the same file. Needs gguf, for a model transformers too; says so where they are not.
"""
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import gguf
    import numpy as np
    from gguf import GGMLQuantizationType as Q
except ImportError as missing:
    print(f"skipped: gguf files: Python has no {missing.name}")
    sys.exit(0)

HALVES = {Q.Q8_0: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}
WIDTH, ROWS, HEADS = 256, 4096, 4


def random_blocks(kind, random):
    """Any bytes, with any finite halves: tiny, huge, subnormal and negative ones, too."""
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (ROWS * WIDTH // numbers, size), np.uint8)
    for at in HALVES[kind]:
        infinite = (blocks[:, at + 1] & 0x7C) == 0x7C
        blocks[infinite, at + 1] &= 0xBF
    return blocks.reshape(ROWS, -1)


def write(path, kind, table):
    w = gguf.GGUFWriter(path, "llama")
    for add, value in ((w.add_block_count, 1), (w.add_context_length, 64), (w.add_embedding_length, WIDTH), (w.add_feed_forward_length, WIDTH),
                       (w.add_head_count, HEADS), (w.add_head_count_kv, HEADS), (w.add_rope_dimension_count, WIDTH // HEADS),
                       (w.add_rope_freq_base, 1e4), (w.add_layer_norm_rms_eps, 1e-5), (w.add_vocab_size, ROWS)):
        add(value)
    w.add_tensor("token_embd.weight", table, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        w.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        w.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tensor(path, name):
    import json
    data = Path(path).read_bytes()
    header = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:8 + header])[name]["data_offsets"]
    return np.frombuffer(data[8 + header + begin:8 + header + end], np.uint32)


def type_is_right(clsplat, kind, folder):
    table = random_blocks(kind, np.random.default_rng(int(kind)))
    write(folder / "model.gguf", kind, table)
    subprocess.run([clsplat, "convert", folder / "model.gguf", "-o", folder / "out" / "model.safetensors", "--type", "f32"], check=True)
    found = tensor(folder / "out" / "model.safetensors", "model.embed_tokens.weight")
    reference = gguf.dequantize(table, kind).reshape(-1).view(np.uint32)
    return np.array_equal(found, reference), f"{(found != reference).sum()} of {reference.size} numbers differ"


def model_is_right(clsplat, model, folder):
    if not importlib.util.find_spec("transformers"):
        print("skipped: logits of a GGUF file: Python has no transformers")
        return True, ""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM
    path = Path(model).resolve()
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(0, theirs.config.vocab_size, (1, 64), generator=torch.Generator().manual_seed(14))
    with torch.inference_mode():
        reference = theirs(ids).logits[0]
    save_file({"input_ids": ids.to(torch.int32)}, folder / "ids.safetensors")
    subprocess.run([clsplat, "eval", path, "--tokens", folder / "ids.safetensors", "--logits", folder / "logits.safetensors"], check=True)
    found = load_file(folder / "logits.safetensors")["logits"][0]
    error = float((found - reference).norm() / reference.norm())
    return error < 1e-4, f"relative error {error:.1e}"


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        cases = [(kind.name, type_is_right, kind) for kind in HALVES] + [(m, model_is_right, m) for m in sys.argv[2:]]
        for name, check, what in cases:
            folder = Path(scratch) / Path(name).stem
            (folder / "out").mkdir(parents=True)
            good, words = check(sys.argv[1], what, folder)
            passed, failed = passed + good, failed + (not good)
            print(f"{'' if good else 'FAIL: '}{name}: {words}", flush=True)
    print(f"gguf_files: {passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
