#!/usr/bin/env python3
"""Makes the small random models beside this script, with logits by Hugging Face transformers: make_models.py [NAME …]

Each folder holds config.json, the weights in some storage type, and golden.safetensors: input_ids [1,T] I32 and logits
[1,T,256] F32, for encoders also rows [1,T,hidden], computed in float32 from the weights as they are stored. What is random has one seed, so that the files come out
the same again (up to the version of transformers in config.json). Needs PyTorch and transformers.
"""
import json
import sys
from pathlib import Path

import torch
import transformers.models.qwen2.modeling_qwen2 as qwen2
from safetensors.torch import save_file
from transformers import (BertConfig, DistilBertConfig, EuroBertConfig, Gemma2Config, Gemma3TextConfig, GemmaConfig, LlamaConfig, MistralConfig, Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config, RobertaConfig, XLMRobertaConfig,
                          AutoModelForCausalLM, AutoModelForMaskedLM)
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as attention_with_sinks

HERE = Path(__file__).parent
TOKENS = 20
SIZES = dict(vocab_size=256, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, bos_token_id=0, eos_token_id=0, head_dim=16)


ENCODER = dict(vocab_size=256, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
               type_vocab_size=2, pad_token_id=0, bos_token_id=None, eos_token_id=None)


without_sinks = qwen2.eager_attention_forward


def rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


def without(sizes, key):
    return {k: v for k, v in sizes.items() if k != key}


MODELS = {
    "llama": (LlamaConfig(**SIZES, tie_word_embeddings=True, rope_parameters=rope("default")), "BF16"),
    "llama-biases-llama3": (LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, rope_parameters=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)), "F16"),
    "llama-linear-shards": (LlamaConfig(**{**SIZES, "head_dim": 10, "num_key_value_heads": 4}, tie_word_embeddings=True,
                                        rope_parameters=rope("linear", factor=4.0)), "F32"),
    "mistral-window": (MistralConfig(**SIZES, sliding_window=6, tie_word_embeddings=True, rope_parameters=rope("default")), "BF16"),
    "qwen2-window": (Qwen2Config(**{**without(SIZES, "head_dim"), "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1},
                                 tie_word_embeddings=True, use_sliding_window=True, sliding_window=5, max_window_layers=1,
                                 rope_parameters=rope("default")), "BF16"),
    "qwen3-yarn": (Qwen3Config(**SIZES, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16)), "BF16"),
    "llama-longrope": (LlamaConfig(**{**SIZES, "num_hidden_layers": 1}, tie_word_embeddings=True, rope_parameters=rope(
        "longrope", factor=4.0, original_max_position_embeddings=16, short_factor=[1 + i / 20 for i in range(8)],
        long_factor=[1.5 + i / 2 for i in range(8)])), "BF16"),
    "phi3-window": (Phi3Config(**without(SIZES, "head_dim"), sliding_window=7, pad_token_id=0, rope_parameters=rope("default")), "BF16"),
    "olmo2": (Olmo2Config(**without(SIZES, "head_dim"), pad_token_id=0, rope_parameters=rope("default")), "F32"),
    "bert": (BertConfig(**ENCODER), "F32"),
    "bert-tanh": (BertConfig(**{**ENCODER, "hidden_size": 30, "num_attention_heads": 2}, hidden_act="gelu_new", layer_norm_eps=1e-5), "BF16"),
    "roberta": (RobertaConfig(**{**ENCODER, "pad_token_id": 1, "type_vocab_size": 1}, layer_norm_eps=1e-5), "F16"),
    "xlm-roberta": (XLMRobertaConfig(**{**ENCODER, "pad_token_id": 1, "type_vocab_size": 1}, layer_norm_eps=1e-5), "F32"),
    "distilbert": (DistilBertConfig(vocab_size=256, dim=24, hidden_dim=40, n_layers=2, n_heads=4, max_position_embeddings=64, pad_token_id=0,
                                    sinusoidal_pos_embds=True), "F32"),
    "gemma": (GemmaConfig(**SIZES, pad_token_id=0, rope_parameters=rope("default")), "BF16"),
    "gemma3": (Gemma3TextConfig(**{**SIZES, "hidden_size": 24, "num_hidden_layers": 3}, pad_token_id=0, query_pre_attn_scalar=16, sliding_window=5,
                                layer_types=["sliding_attention", "full_attention", "sliding_attention"], final_logit_softcapping=7.0, rope_parameters={
                                    "full_attention": rope("linear", factor=4.0), "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}), "F32"),
    "gemma2": (Gemma2Config(**{**SIZES, "num_hidden_layers": 3}, pad_token_id=0, query_pre_attn_scalar=9, sliding_window=5, attn_logit_softcapping=1.5,
                            final_logit_softcapping=4.0, rope_parameters=rope("default")), "F32"),
    "qwen2-sinks": (Qwen2Config(**{**without(SIZES, "head_dim"), "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2},
                                use_sliding_window=True, sliding_window=5, max_window_layers=1, rope_parameters=rope("default")), "BF16"),
    "eurobert": (EuroBertConfig(**{**SIZES, "eos_token_id": None}, pad_token_id=0, mask_token_id=1, rope_parameters=rope("default")), "BF16"),
}
STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def random_weights(model, dtype):
    """Weights large enough that attention is sharp and every bias and norm counts, as the type stores them."""
    for name, tensor in sorted(model.named_parameters()):
        noise = torch.randn(tensor.shape)
        if "norm" in name.lower() and not name.endswith("bias"):
            value = 1 + 0.3 * noise
        elif name.endswith(("bias", "sinks")):
            value = 0.5 * noise
        elif "embed" in name or "lm_head" in name:
            value = 0.7 * noise
        else:
            value = 1.5 * noise / tensor.shape[-1] ** 0.5
        tensor.data.copy_(value.to(dtype).float())


def old_spelling(config):
    """rope_theta and rope_scaling, as files before rope_parameters had them."""
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    parameters["type"] = parameters.pop("rope_type")
    config["rope_scaling"] = None if parameters["type"] == "default" else parameters


@torch.inference_mode()
def make(name):
    config, stored = MODELS[name]
    torch.manual_seed(list(MODELS).index(name))
    folder = HERE / name
    qwen2.eager_attention_forward = attention_with_sinks if "sinks" in name else without_sinks
    encoder = config.model_type in ("bert", "roberta", "xlm-roberta", "distilbert", "eurobert")
    model = (AutoModelForMaskedLM if encoder else AutoModelForCausalLM).from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    if "sinks" in name:
        for layer in model.model.layers:
            layer.self_attn.sinks = torch.nn.Parameter(torch.zeros(config.num_attention_heads))
    random_weights(model, STORED[stored])
    ids = torch.randint(2 if encoder else 0, 256, (1, TOKENS))
    out = model(ids, output_hidden_states=True)
    logits = out.logits
    model.to(STORED[stored]).save_pretrained(folder, max_shard_size="12KB" if "shards" in name else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name in ("llama-linear-shards", "qwen2-window"):
        path = folder / "config.json"
        written = json.loads(path.read_text())
        old_spelling(written)
        path.write_text(json.dumps(written, indent=2) + "\n")
    golden = {"input_ids": ids.to(torch.int32), "logits": logits.contiguous()}
    if encoder:
        golden["rows"] = out.hidden_states[-1].contiguous()
    save_file(golden, folder / "golden.safetensors")
    print(name, sum(p.numel() for p in model.parameters()), "parameters")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or MODELS:
        make(wanted)
