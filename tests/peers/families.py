#!/usr/bin/env python3
"""Random models of every family against Hugging Face transformers: families.py CLSPLAT [--models N] [--seed N] [--keep FOLDER]

Each model has sizes, storage type and whatever its family leaves to choose drawn at random; its logits over 40 random tokens, by
`clsplat eval --logits` (for encoders `clsplat_model_read`), must be within a relative error of 1e-4 of those that transformers
computes in float32 from the same weights. Needs PyTorch and transformers; says so and ends with 0 where they are not.
"""
import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import torch
    import transformers
    import transformers.models.qwen2.modeling_qwen2 as qwen2
    from safetensors.torch import load_file, save_file
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as attention_with_sinks
except ImportError as missing:
    print(f"skipped: families: Python has no {missing.name}")
    sys.exit(0)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model"))
from make_models import random_weights  # the same as the models that lie there

TOKENS = 40
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
without_sinks = qwen2.eager_attention_forward


def rope(r, dim, kinds=("default", "linear", "llama3", "yarn", "dynamic", "longrope")):
    kind = r.choice(kinds)
    more = {"default": {}, "linear": dict(factor=r.choice([2.0, 8.0])), "dynamic": dict(factor=2.0, original_max_position_embeddings=64),
            "llama3": dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=r.choice([16, 32])),
            "yarn": dict(factor=4.0, original_max_position_embeddings=16),
            "longrope": dict(factor=4.0, original_max_position_embeddings=16, short_factor=[1 + i / 30 for i in range(dim // 2)],
                             long_factor=[1.2 + i / 3 for i in range(dim // 2)])}[kind]
    return {"rope_type": kind, "rope_theta": r.choice([100.0, 10000.0, 1e6]), **more}


def sizes(r):
    kv = r.choice([1, 2, 3])
    heads, dim = kv * r.choice([1, 2, 4]), r.choice([8, 10, 16, 32])
    return dict(vocab_size=r.randrange(100, 400), hidden_size=heads * dim, intermediate_size=r.randrange(20, 120), num_hidden_layers=r.randrange(1, 5),
                num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim, max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
                pad_token_id=0, rms_norm_eps=r.choice([1e-5, 1e-6]))


def layer_types(r, count):
    return [r.choice(["sliding_attention", "full_attention"]) for _ in range(count)]


def decoder(family, r):
    s = sizes(r)
    s["tie_word_embeddings"] = r.random() < 0.5
    kinds = ("default", "linear", "llama3", "yarn", "dynamic", "longrope") if family in ("llama", "mistral", "qwen3") else ("default", "linear")
    s["rope_parameters"] = rope(r, s["head_dim"], kinds)
    free = s["num_attention_heads"] * r.choice([0, 2])  # columns of a hidden state beside those of the heads
    if family in ("llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3"):
        s["hidden_size"] += free
    else:
        del s["head_dim"]
    if family == "llama":
        return transformers.LlamaConfig(**s, attention_bias=r.random() < 0.5, mlp_bias=r.random() < 0.5)
    if family == "mistral":
        return transformers.MistralConfig(**s, sliding_window=r.choice([None, 7]))
    if family in ("qwen2", "sinks"):
        return transformers.Qwen2Config(**s, use_sliding_window=True, sliding_window=r.choice([5, 9]), max_window_layers=r.randrange(0, 3))
    if family == "qwen3":
        return transformers.Qwen3Config(**s, attention_bias=r.random() < 0.5)
    if family == "phi3":
        s["rope_parameters"] = rope(r, 8, ("default",))
        return transformers.Phi3Config(**s, sliding_window=r.choice([None, 7]))
    if family == "olmo2":
        return transformers.Olmo2Config(**s, attention_bias=r.random() < 0.5)
    s["tie_word_embeddings"] = True
    if family == "gemma":
        return transformers.GemmaConfig(**s, attention_bias=r.random() < 0.5)
    scalar = r.choice([s["head_dim"], 12, 21])
    window = dict(query_pre_attn_scalar=scalar, sliding_window=6)
    if family == "gemma2":
        return transformers.Gemma2Config(**s, **window, attn_logit_softcapping=r.choice([None, 0.8, 5.0]), final_logit_softcapping=r.choice([None, 3.0]))
    rotary = {"full_attention": rope(r, s["head_dim"], ("default", "linear")), "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}
    s["rope_parameters"] = rotary
    return transformers.Gemma3TextConfig(**s, **window, layer_types=layer_types(r, s["num_hidden_layers"]), final_logit_softcapping=r.choice([None, 7.0]))


def encoder(family, r):
    heads, dim = r.choice([1, 2, 4, 6]), r.choice([6, 8, 15, 16])
    s = dict(vocab_size=r.randrange(100, 400), max_position_embeddings=64, pad_token_id=0)
    activation = r.choice(["gelu", "gelu_new", "relu"])
    if family == "distilbert":
        return transformers.DistilBertConfig(**s, dim=heads * dim, hidden_dim=r.randrange(20, 120), n_layers=r.randrange(1, 4), n_heads=heads,
                                             activation=r.choice(["gelu", "relu"]), sinusoidal_pos_embds=r.random() < 0.5)
    s |= dict(hidden_size=heads * dim, intermediate_size=r.randrange(20, 120), num_hidden_layers=r.randrange(1, 4), num_attention_heads=heads,
              hidden_act=activation, layer_norm_eps=r.choice([1e-5, 1e-12]), bos_token_id=None, eos_token_id=None)
    if family == "bert":
        return transformers.BertConfig(**s, type_vocab_size=r.choice([1, 2]))
    s["pad_token_id"] = 1
    kind = {"roberta": transformers.RobertaConfig, "xlm-roberta": transformers.XLMRobertaConfig, "camembert": transformers.CamembertConfig}[family]
    return kind(**s, type_vocab_size=1)


DECODERS = ["llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "gemma", "gemma2", "gemma3", "sinks"]
ENCODERS = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert"]


@torch.inference_mode()
def make(family, r, folder):
    """A model's folder. Returns: the tokens and transformers' logits."""
    stored = TYPES[r.choice(list(TYPES))]
    torch.manual_seed(r.randrange(1 << 30))
    reads = family in ENCODERS
    config = (encoder if reads else decoder)(family, r)
    qwen2.eager_attention_forward = attention_with_sinks if family == "sinks" else without_sinks
    kind = transformers.AutoModelForMaskedLM if reads else transformers.AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    for layer in model.model.layers if family == "sinks" else []:
        layer.self_attn.sinks = torch.nn.Parameter(torch.zeros(config.num_attention_heads))
    random_weights(model, stored)
    ids = torch.randint(2, config.vocab_size, (1, TOKENS))
    logits = model(ids).logits.float().contiguous()
    model.to(stored).save_pretrained(folder)
    save_file({"input_ids": ids.to(torch.int32)}, folder / "ids.safetensors")
    return ids, logits


def ours(arguments, folder, ids, logits, reads):
    if reads:
        from embed import Ours  # beside this script
        library = Path(arguments.clsplat).parent / "src" / "libclsplat.so"
        return Ours(str(library), folder).logits(ids[0].tolist(), logits.shape[-1])
    done = subprocess.run([arguments.clsplat, "eval", folder, "--tokens", folder / "ids.safetensors", "--logits", folder / "out.safetensors"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return load_file(folder / "out.safetensors")["logits"][0].numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clsplat")
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--keep", help="a folder for the models")
    arguments = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(arguments.models):
            family = (DECODERS + ENCODERS)[i % (len(DECODERS) + len(ENCODERS))]
            folder = Path(arguments.keep or scratch) / f"{i}-{family}"
            folder.mkdir(parents=True)
            ids, logits = make(family, random.Random(1000 * arguments.seed + i), folder)
            try:
                found = torch.tensor(ours(arguments, folder, ids, logits, family in ENCODERS))
                error = float((found - logits[0]).norm() / logits[0].norm())
            except (RuntimeError, SystemExit) as refusal:
                found, error = refusal, float("inf")
            good = error < 1e-4
            passed, failed = passed + good, failed + (not good)
            print(f"{'' if good else 'FAIL: '}{i} {family}: {error:.1e}{'' if error < 1e9 else f' {found}'}", flush=True)
    print(f"families: {passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
