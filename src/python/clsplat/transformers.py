"""Hugging Face's transformers: attn_implementation="clsplat", and pretrained models with their attention replaced.

    import clsplat.transformers                                    # registers the name
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="clsplat")    # exact
    clsplat.transformers.replace_attention(model, {"tolerance": 0.1})                    # near and far, from then on
    print(clsplat.transformers.report_of(model))
    clsplat.transformers.restore(model)

A mask never has a number for every query and key: padding is one for every key, causality and sliding windows are told beside it; one of your own
[B,1,N,M] is taken apart into these. What this attention cannot do (soft-caps, dropout in training, packed sequences, other masks) is refused by name.
"""
from __future__ import annotations

import math
import time
from typing import Any, Callable, Mapping, Optional

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers import masking_utils as masks

from . import torch as op
from .errors import InvalidError, UnsupportedError
from .replacement import Layer, Replacement

NAME = "clsplat"


def _whole(q_length: int, kv_length: int, q_offset: int, kv_offset: int) -> int:
    """Keys up to the last query; a static cache has room behind them."""
    return min(kv_length, int(q_offset) + q_length - kv_offset)


def _parts(function: Callable) -> list[Callable]:
    """The functions that transformers' and_masks put together."""
    if not getattr(function, "__qualname__", "").startswith("and_masks."):
        return [function]
    inside = [cell.cell_contents for cell in function.__closure__ or ()]
    return [part for group in inside for part in (group if isinstance(group, (tuple, list)) else [group])]


def _pattern(function: Callable, local: Optional[int], reach: int) -> tuple[bool, int]:
    """(causal, window or 0) of a mask function over positions below `reach`; what is neither is refused."""
    if function is masks.causal_mask_function:
        return True, 0
    if function is masks.bidirectional_mask_function:
        return False, 0
    parts = _parts(function)
    names = " ".join(getattr(part, "__qualname__", "") for part in parts)
    if local is not None and len(parts) == 2:
        if masks.causal_mask_function in parts and "sliding_window_overlay." in names:
            return True, local if reach > local else 0
        if masks.bidirectional_mask_function in parts and "sliding_window_bidirectional_overlay." in names and reach <= local + 1:
            return False, 0
    raise UnsupportedError("clsplat attends causally, in both directions, or in a causal sliding window; this model asks for another mask (packed "
                           "sequences, blocks, chunks, or a function of its own): use attn_implementation='sdpa' for it")


def mask(batch_size: int, q_length: int, kv_length: int, q_offset: int = 0, kv_offset: int = 0,
         mask_function: Callable = masks.causal_mask_function, attention_mask: Optional[Tensor] = None, local_size: Optional[int] = None,
         device: Any = "cpu", **_: Any) -> Optional[Tensor]:
    """One boolean for every key, [batch, keys], that carries (causal, window); None where causality alone tells all."""
    if hasattr(attention_mask, "clsplat"):  # generate made it before the model asks
        return attention_mask
    causal, window = _pattern(mask_function, local_size, int(q_offset) + q_length)
    keys = _whole(q_length, kv_length, q_offset, kv_offset) if causal else kv_length
    seen = None
    if attention_mask is not None:
        seen = attention_mask[:, kv_offset : kv_offset + keys].bool()
        seen = torch.nn.functional.pad(seen, (0, keys - seen.shape[1]))  # as sdpa's: what it does not tell is not seen
        if seen.all():
            seen = None
    if seen is None:
        if keys == kv_length and not window:
            return None
        seen = torch.ones((batch_size, keys), dtype=torch.bool, device=device)
    seen.clsplat = (causal, window)
    return seen


def _refuse(dropout: float, options: Mapping[str, Any]) -> None:
    for name, what in (("softcap", "soft-caps of logits"), ("position_bias", "biases of positions"), ("block_mask", "block masks")):
        if options.get(name) is not None:
            raise UnsupportedError(f"clsplat has no {what} ({name}); use attn_implementation='eager' for this model")
    if dropout:
        raise UnsupportedError(f"clsplat has no dropout of attention weights, and this model trains with {dropout}: set its attention dropout to 0")


def _additive(m: Tensor) -> Tensor:
    """What is added to logits: 0 or −inf, or what an additive mask has."""
    if not m.is_floating_point():
        return torch.zeros(m.shape, dtype=torch.float32, device=m.device).masked_fill_(~m.bool(), -math.inf)
    return m.float().masked_fill(m <= torch.finfo(m.dtype).min, -math.inf)


def _bias_of(m: Tensor, heads: int) -> Tensor:
    """[batch, key heads, keys] of a mask of one value for every key."""
    return _additive(m)[:, None].expand(-1, heads, -1)


def _taken_apart(m: Tensor, rows: int) -> tuple[bool, Tensor]:
    """(causal, [batch, keys]) of a mask of one value for every query and key that is one for every key, with or without causality. Only a row that
    itself sees nothing, as padding's do, may differ from that: what it attends to is nobody's."""
    if m.shape[1] != 1 and m.stride(1) != 0:
        raise UnsupportedError("clsplat takes masks that are the same for all heads")
    m = m[:, 0]
    if m.shape[1] == 1 or m.stride(1) == 0:
        return False, m[:, 0].clone()
    full = _additive(m)
    blind = (full == -math.inf).all(2, keepdim=True)
    for keys in (m.shape[2], int((full > -math.inf).any(1).any(0).nonzero().max()) + 1 if (full > -math.inf).any() else 0):
        part = full[:, :, :keys]
        by_key = part.amax(1, keepdim=True)  # a key is there if any query sees it
        for causal in (True, False):
            wanted = by_key + torch.full((rows, keys), -math.inf).triu_(keys - rows + 1) if causal else by_key.expand_as(part)
            if ((wanted == part) | blind).all():
                return causal, by_key[:, 0]
    raise UnsupportedError(f"clsplat takes masks of one value for every key, beside causality; this one is {list(m.shape)} and has others (packed "
                           "sequences, windows, or biases of pairs): use attn_implementation='sdpa' for it")


def _read(m: Tensor, rows: int, causal: bool) -> tuple[bool, int, Tensor]:
    """(causal, window, one value for every key) of what a layer is given."""
    if hasattr(m, "clsplat"):
        return (*m.clsplat, m)
    if m.dim() == 2:
        return causal, 0, m
    if m.is_inference() or m.requires_grad:  # has no version; every backward pass frees what was kept
        causal, by_key = _taken_apart(m, rows)
        return causal, 0, by_key
    known = getattr(m, "clsplat_parts", None)  # the next layers get the same mask
    if known is None or known[0] != m._version:
        with torch.inference_mode(False):  # training may read it after this. No view of the mask: that would keep the mask for good
            m.clsplat_parts = known = m._version, *_taken_apart(m, rows)
    return known[1], 0, known[2]


def _merged(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """The attention over two sets of keys, from that over each."""
    share = torch.sigmoid(one[1] - other[1]).nan_to_num(0.0)[..., None]
    return (one[0] * share + other[0] * (1 - share)).to(one[0].dtype)


def _in_window(run: Callable, q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor], window: int) -> Tensor:
    """Causal attention to the last `window` keys: rows in blocks of a window. Of its own block a row sees the keys up to its own; of the
    window before, those from some key on, which is causal when rows and keys are turned around."""
    before, rows = k.shape[2] - q.shape[2], q.shape[2]

    def part(a: int, b: int, c: int, d: int, turn: bool) -> tuple[Tensor, Tensor]:
        pieces = [q[:, :, a:b], k[:, :, c:d], v[:, :, c:d]]
        kept = None if bias is None else bias[:, :, c:d]
        if turn:
            pieces, kept = [x.flip(2) for x in pieces], None if kept is None else kept.flip(2)
        out, lse = run(*pieces, kept, True)
        return (out.flip(2), lse.flip(2)) if turn else (out, lse)
    results, at = [], 0
    first = min(rows, max(0, window - before))
    if first:
        results.append(part(0, first, 0, before + first, False)[0])
        at = first
    while at < rows:
        end, place = min(at + window, rows), before + at
        own = part(at, end, place, before + end, False)
        results.append(_merged(own, part(at, end, place - window + 1, place, True)) if window > 1 else own[0])
        at = end
    return torch.cat(results, 2)


def attention(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Optional[Tensor], dropout: float = 0.0,
              scaling: Optional[float] = None, is_causal: Optional[bool] = None, sliding_window: Optional[int] = None,
              s_aux: Optional[Tensor] = None, **options: Any) -> tuple[Tensor, None]:
    """What a layer calls: query [B,H,N,D], key and value [B,Hk,M,D]; returns [B,N,H,Dv]."""
    _refuse(dropout, options)
    causal, window, bias = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal), 0, None
    if attention_mask is not None:
        causal, window, by_key = _read(attention_mask, query.shape[2], causal)
        key, value = key[:, :, : by_key.shape[1]], value[:, :, : by_key.shape[1]]
        bias = _bias_of(by_key, key.shape[1])
        if (bias == 0).all():
            bias = None
    elif causal and sliding_window and key.shape[2] > sliding_window:
        window = sliding_window
    if causal and query.shape[2] == 1 and window:
        key, value, bias = key[:, :, -window:], value[:, :, -window:], None if bias is None else bias[:, :, -window:]
        window = 0
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if learns and (window or s_aux is not None):
        raise UnsupportedError("clsplat has no gradients through sliding windows and sinks yet: use attn_implementation='sdpa' to train this model")
    layer = module.__dict__.get("_clsplat")
    run = _runner(layer, scaling, causal, learns)
    if window:
        out = _in_window(run, query, key, value, bias, window)
    else:
        out, lse = run(query, key, value, bias, causal)
        if s_aux is not None:  # a sink: a logit without a value
            out = out * torch.sigmoid(lse - s_aux.reshape(1, -1, 1).float())[..., None].to(out.dtype)
    return out.transpose(1, 2).contiguous(), None


def _runner(layer: Optional[Layer], scale: Optional[float], causal: bool, learns: bool) -> Callable:
    """run(q, k, v, bias, causal) → (out, lse), as the layer is to attend."""
    def run(q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor], causal: bool) -> tuple[Tensor, Tensor]:
        how = {"causal": causal, "scale": scale, "key_bias": bias}
        if layer is None or torch.compiler.is_compiling():
            return op.attend(q, k, v, **how, **({} if layer is None else layer.settings.how(q.shape[2])), return_lse=True)
        began = time.perf_counter()
        counts: dict = {}
        result = layer.attend(q, k, v, how, counts, learns)
        layer.count(q, k, causal, counts, time.perf_counter() - began)
        return result
    return run


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)


def _refuse_model(model: torch.nn.Module) -> None:
    if not hasattr(model, "set_attn_implementation"):
        raise InvalidError(f"{type(model).__name__} is no model of transformers; call clsplat.torch.attend in its attention instead")
    if not getattr(model, "_supports_attention_backend", False) and not getattr(model, "_supports_sdpa", False):
        raise UnsupportedError(f"{type(model).__name__} computes its attention itself and asks no attention implementation; it cannot be replaced")


def replace_attention(model: torch.nn.Module, config: Any = None, **settings: Any) -> torch.nn.Module:
    """Every attention of a pretrained model through CLSplat; returns the same model. See replacement.Replacement for what `config` may have:

        replace_attention(model, {"tolerance": 0.05})                            # near and far
        replace_attention(model, {"hierarchy": {…}, "sparse_topk": 64, "adaptation": {…}})      # the original's dictionary
        replace_attention(model, tolerance=0)                                    # exact
    """
    _refuse_model(model)
    wanted = Replacement.of({**(dict(config) if config else {}), **settings})
    before = model.__dict__.get("_clsplat_before", model.config._attn_implementation)
    model.set_attn_implementation(NAME)
    model.__dict__["_clsplat_before"] = before
    model.__dict__["_clsplat_replacement"] = wanted
    for name, module in model.named_modules():
        module.__dict__["_clsplat"] = Layer(name, wanted)
    return model


def restore(model: torch.nn.Module) -> torch.nn.Module:
    """Undoes replace_attention."""
    before = model.__dict__.pop("_clsplat_before", None)
    if before is None:
        raise InvalidError("this model's attention was not replaced")
    model.__dict__.pop("_clsplat_replacement", None)
    for module in model.modules():
        module.__dict__.pop("_clsplat", None)
    model.set_attn_implementation(before)
    return model


def layers_of(model: torch.nn.Module) -> list[Layer]:
    """The layers that attended since replace_attention, in their order."""
    if "_clsplat_replacement" not in model.__dict__:
        raise InvalidError("this model's attention was not replaced: replace_attention(model, …)")
    return [m.__dict__["_clsplat"] for m in model.modules() if "_clsplat" in m.__dict__ and m.__dict__["_clsplat"].calls]


def report_of(model: torch.nn.Module) -> dict[str, Any]:
    """What attention did since replace_attention: per layer the method, the share of visible keys attended one by one, the expected error and
    the seconds; of all layers the sums; and in words what the configuration's keys mean for this method."""
    layers = [layer.report() for layer in layers_of(model)]
    seen = sum(r["visible_keys"] for r in layers)
    return {"layers": layers, "exact_share": sum(r["exact_share"] * r["visible_keys"] for r in layers) / max(seen, 1),
            "seconds": sum(r["seconds"] for r in layers), "notes": list(model.__dict__["_clsplat_replacement"].notes)}


def create_transformer(vocab_size: int, hidden_size: int = 256, num_hidden_layers: int = 4, num_attention_heads: int = 4,
                       intermediate_size: Optional[int] = None, max_position_embeddings: int = 2048, decoder: bool = True,
                       config: Any = None, **more: Any) -> torch.nn.Module:
    """A transformer to be trained, its weights drawn by PyTorch's generator: a decoder (Llama's) that predicts tokens, or an encoder (BERT's) that
    returns hidden states. `config` as in replace_attention; exact without it."""
    import transformers
    size = dict(vocab_size=vocab_size, hidden_size=hidden_size, num_hidden_layers=num_hidden_layers, num_attention_heads=num_attention_heads,
                intermediate_size=intermediate_size or 4 * hidden_size, max_position_embeddings=max_position_embeddings, **more)
    if decoder:
        size.setdefault("bos_token_id", None)
        size.setdefault("eos_token_id", None)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size))
    else:
        size.setdefault("attention_probs_dropout_prob", 0.0)
        model = transformers.BertModel(transformers.BertConfig(**size), add_pooling_layer=False)
    return replace_attention(model, config, **({} if config else {"tolerance": 0}))
