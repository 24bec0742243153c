#!/usr/bin/env python3
"""Makes the GGUF files of these tests, by the gguf package of PyPI: make_gguf.py

    mixed.gguf, golden.safetensors    a small random Llama whose matrices are of every type; input_ids and the logits that
                                      Hugging Face transformers computes in float32 from the file itself
    blocks.safetensors                blocks of every type, scales that are tiny, huge, subnormal and negative among them: NAME.blocks,
                                      and NAME.numbers as the package dequantises them; NAME.from, which it makes NAME.made of
    ../../trust/seeds/model.gguf      what takes the place of config.json and tokenizer.json, for fuzzing
    ../tokenizers/*/tokenizer.gguf    the tokenisers beside them, whose answers they must give

Needs gguf, transformers, PyTorch, safetensors and sentencepiece.
"""
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
TOKENIZERS = HERE.parent / "tokenizers"
random = np.random.default_rng(14)
MADE = [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1]
SUPER = {Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}  # where a block's halves are


def super_blocks(kind, count, scale):
    """Random bytes with scales of that size."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (count, size), np.uint8)
    for at in SUPER[kind]:
        halves = (scale * random.uniform(0.5, 1, count)).astype(np.float16)
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(count, 2)
    return blocks


def packed(kind, rows, columns):
    """A matrix of numbers of the size 1 / √columns, as that type stores them."""
    numbers = (random.normal(size=(rows, columns)) * 1.5 / columns**0.5).astype(np.float32)
    if kind in SUPER:
        scale = {Q.Q4_K: 2e-4, Q.Q5_K: 1e-4, Q.Q6_K: 3e-5}[kind]
        return super_blocks(kind, rows * columns // 256, scale).reshape(rows, -1)
    return numbers if kind == Q.F32 else gguf.quantize(numbers, kind)


def mixed():
    width, heads, kv_heads, dim, inner, vocabulary = 256, 4, 2, 16, 256, 96
    w = gguf.GGUFWriter(HERE / "mixed.gguf", "llama")
    w.add_block_count(2)
    w.add_context_length(64)
    w.add_embedding_length(width)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(dim)
    w.add_value_length(dim)
    w.add_rope_dimension_count(dim)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(vocabulary)

    def put(name, kind, rows, columns):
        w.add_tensor(name, packed(kind, rows, columns), raw_dtype=kind)

    def norm(name):
        w.add_tensor(name, (1 + 0.3 * random.normal(size=width)).astype(np.float32))

    put("token_embd.weight", Q.Q5_1, vocabulary, width)
    put("output.weight", Q.Q6_K, vocabulary, width)
    norm("output_norm.weight")
    for layer, types in enumerate([[Q.Q4_K, Q.Q4_K, Q.Q6_K, Q.BF16, Q.Q4_0, Q.Q4_0, Q.Q5_0],
                                    [Q.Q8_0, Q.Q5_K, Q.F32, Q.F16, Q.Q4_1, Q.Q5_1, Q.Q4_K]]):
        put(f"blk.{layer}.attn_q.weight", types[0], heads * dim, width)
        put(f"blk.{layer}.attn_k.weight", types[1], kv_heads * dim, width)
        put(f"blk.{layer}.attn_v.weight", types[2], kv_heads * dim, width)
        put(f"blk.{layer}.attn_output.weight", types[3], width, heads * dim)
        put(f"blk.{layer}.ffn_gate.weight", types[4], inner, width)
        put(f"blk.{layer}.ffn_up.weight", types[5], inner, width)
        put(f"blk.{layer}.ffn_down.weight", types[6], width, inner)
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
    write(w)
    model = AutoModelForCausalLM.from_pretrained(HERE, gguf_file="mixed.gguf", dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.from_numpy(random.integers(0, vocabulary, (1, 20)).astype(np.int64))
    with torch.inference_mode():
        logits = model(ids).logits
    save_file({"input_ids": ids.numpy().astype(np.int32), "logits": logits.numpy()}, HERE / "golden.safetensors")


def write(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def seed():
    """A model without its weights: all that is read before them."""
    w = gguf.GGUFWriter(HERE.parent.parent / "trust/seeds/model.gguf", "llama")
    w.add_block_count(2)
    w.add_context_length(4096)
    w.add_embedding_length(64)
    w.add_feed_forward_length(128)
    w.add_head_count(4)
    w.add_head_count_kv(2)
    w.add_rope_dimension_count(16)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_sliding_window(32)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    names = ["<s>", "</s>"] + [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "th", "the", "Ġq"]
    w.add_token_list(names)
    w.add_token_types([3, 3] + [1] * (len(names) - 2))
    w.add_token_merges(["t h", "th e", "Ġ q"])
    w.add_bos_token_id(0)
    w.add_eos_token_id(1)
    w.add_vocab_size(len(names))
    w.add_tensor("token_embd.weight", packed(Q.Q8_0, len(names), 64), raw_dtype=Q.Q8_0)
    write(w)


def blocks():
    out = {}
    for kind in MADE:
        numbers = np.concatenate([random.normal(size=32), 1e-6 * random.normal(size=32), 300 * random.normal(size=32),
                                  -abs(random.normal(size=32)), np.zeros(32), np.full(32, 0.37), np.arange(32) % 3]).astype(np.float32)
        made = gguf.quantize(numbers, kind)
        noise = random.integers(0, 256, (8, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
        noise[:, 1] &= 0xBF  # finite halves
        noise[:, 3] &= 0xBF
        both = np.concatenate([made, noise.reshape(-1)])
        out |= {f"{kind.name}.from": numbers, f"{kind.name}.made": made, f"{kind.name}.blocks": both}
        out[f"{kind.name}.numbers"] = gguf.dequantize(both, kind)
    for kind in SUPER:
        both = np.concatenate([super_blocks(kind, 1, s) for s in (1e-3, 3e-7, -2.0, 500)]).reshape(-1)
        out |= {f"{kind.name}.blocks": both, f"{kind.name}.numbers": gguf.dequantize(both, kind)}
    save_file(out, HERE / "blocks.safetensors")


def tokens(folder, model, pre, names, types, more):
    w = gguf.GGUFWriter(TOKENIZERS / folder / "tokenizer.gguf", "llama")
    w.add_tokenizer_model(model)
    if pre:
        w.add_tokenizer_pre(pre)
    w.add_token_list(names)
    w.add_token_types(types)
    more(w)
    write(w)


def byte_level(folder, pre, begin=None):
    root = json.loads((TOKENIZERS / folder / "tokenizer.json").read_text())
    known = {v: k for k, v in root["model"]["vocab"].items()} | {a["id"]: a["content"] for a in root["added_tokens"]}
    special = {a["id"] for a in root["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in root["model"]["merges"]]

    def more(w):
        w.add_token_merges(merges)
        if begin is not None:
            w.add_bos_token_id(begin)

    tokens(folder, "gpt2", pre, [known[i] for i in range(len(known))], [3 if i in special else 1 for i in range(len(known))], more)


def scored(folder):
    s = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZERS / folder / "tokenizer.model"))
    every = range(s.get_piece_size())
    types = [2 if s.is_unknown(i) else 3 if s.is_control(i) else 6 if s.is_byte(i) else 1 for i in every]

    def more(w):
        w.add_token_scores([s.get_score(i) for i in every])
        w.add_bos_token_id(s.bos_id())
        w.add_unk_token_id(s.unk_id())

    tokens(folder, "llama", None, [s.id_to_piece(i) for i in every], types, more)


if __name__ == "__main__":
    blocks()
    mixed()
    byte_level("gpt2", "gpt-2")
    byte_level("llama3", "llama-bpe", 0)
    scored("sp_bpe")
    seed()
