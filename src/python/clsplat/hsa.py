"""The original system's names. Code written for it runs with one changed import; each call does what it says, on any OpenCL device.

    from clsplat.hsa import replace_attention_with_hsa, create_hsa_transformer, create_preset_config
    from clsplat.hsa import HSAVisualizer, AdaptationMonitor, InformationMetricsTracker

Where the original has a registry of splats, this takes a clsplat.Splats, or a model whose attention was replaced with method="splats".
"""
from __future__ import annotations

import copy
import math
from typing import Any, Mapping, Optional

import numpy

from . import adaptation
from .errors import InvalidError
from .pictures import HSAVisualizer
from .splats import Hierarchy, Splats

PRESETS: dict[str, tuple] = {  # levels, splats, weights, sparse_topk
    "standard_text": (["Token", "Phrase", "Section", "Document"], [100, 50, 20, 5], [0.4, 0.3, 0.2, 0.1], 64),
    "long_context": (["Token", "Phrase", "Section", "Document", "Global"], [200, 100, 50, 20, 5], [0.3, 0.25, 0.2, 0.15, 0.1], 128),
    "interpretable": (["Token", "Phrase", "Section"], [50, 20, 5], [0.5, 0.3, 0.2], 32),
    "memory_efficient": (["Token", "Document"], [50, 10], [0.7, 0.3], 32),
    "high_speed": (["Token", "Document"], [30, 5], [0.7, 0.3], 16),
    "code_understanding": (["Token", "Expression", "Block", "Function", "Module"], [100, 50, 20, 10, 5], [0.3, 0.25, 0.2, 0.15, 0.1], 64),
    "document_qa": (["Token", "Sentence", "Paragraph", "Section", "Document"], [100, 50, 20, 10, 5], [0.3, 0.25, 0.2, 0.15, 0.1], 64),
}


def create_preset_config(preset: str, sequence_length: Optional[int] = None) -> dict[str, Any]:
    """A configuration for replace_attention. long_context has more splats the longer sequence_length is, up to four times from 4,000 on."""
    if preset not in PRESETS:
        raise InvalidError(f"there is no preset {preset!r}; {', '.join(PRESETS)}")
    levels, counts, weights, topk = PRESETS[preset]
    factor = min(max(sequence_length / 1000, 1), 4) if preset == "long_context" and sequence_length else 1
    return {"hierarchy": {"levels": list(levels), "init_splats_per_level": [round(c * factor) for c in counts], "level_weights": list(weights)},
            "sparse_topk": topk, "adaptation": {"enable_adaptation": True, "adaptation_frequency": 5}}


def replace_attention_with_hsa(model: Any, hsa_config: Optional[Mapping[str, Any]] = None, replace_in_place: bool = True) -> Any:
    """The model with its attention replaced: clsplat.replace_attention. Near and far unless hsa_config has method="splats", which puts so many
    splats of each level into every layer and lets them adapt; clsplat.report_of(model)["notes"] tells what each key does."""
    from .transformers import replace_attention
    return replace_attention(model if replace_in_place else copy.deepcopy(model), hsa_config)


def create_hsa_transformer(vocab_size: int, hidden_size: int = 768, num_hidden_layers: int = 12, num_attention_heads: int = 12,
                           intermediate_size: int = 3072, hsa_config: Optional[Mapping[str, Any]] = None, max_position_embeddings: int = 512,
                           **more: Any) -> Any:
    """An encoder to be trained, which returns hidden states. While it trains, its attention is exact or through splats (method="splats")."""
    from .transformers import create_transformer
    return create_transformer(vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, max_position_embeddings,
                              decoder=False, config=hsa_config, **more)


def splats_of(registry: Any) -> Splats:
    """A set itself, or that of the first layer of a model that has one."""
    if isinstance(registry, Splats):
        return registry
    if hasattr(registry, "named_modules"):
        from .transformers import layers_of
        for layer in layers_of(registry):
            if layer.splats is not None:
                return layer.splats
    raise InvalidError("there are no splats here: give a clsplat.Splats, or a model whose attention was replaced with method='splats' and that was called "
                       "since (near and far has trees of each text instead)")


class AdaptationMonitor:
    """Counts what adaptations do to splats, from its making on: of all sets of this process, or of those it is told (`record`)."""

    KINDS = ("mitosis", "birth", "death", "adjust", "merge")

    def __init__(self, listen: bool = True) -> None:
        self.cycles, self.history = 0, []
        if listen:
            adaptation.observers.add(self)

    def record(self, adapted: adaptation.Adapted) -> None:
        self.cycles += 1 + max((event["cycle"] for event in adapted.events), default=0)
        self.history += [event for event in adapted.events if event["kept"]]

    def get_adaptation_stats(self) -> dict[str, Any]:
        counts = {kind: sum(event["decision"] == kind for event in self.history) for kind in self.KINDS}
        stats: dict[str, Any] = {"total_cycles": self.cycles, "total_adaptations": len(self.history)}
        stats.update({f"{kind}_count": n for kind, n in counts.items()})
        if self.cycles:
            stats["adaptations_per_cycle"] = len(self.history) / self.cycles
            stats.update({f"{kind}_per_cycle": n / self.cycles for kind, n in counts.items()})
        return stats


class InformationMetricsTracker:
    """Entropies, divergences, mutual information and the information of every splat, by true definitions, in bits (clsplat.measure has nats)."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}
        self._information = self._use = numpy.zeros(0)
        self._flow: dict[str, float] = {}

    def compute_all_metrics(self, registry: Any, tokens: Any, attention: Any = None, **how: Any) -> dict[str, Any]:
        """Of a set on tokens [n,D], or (q, k, v). `attention` is not needed: both attentions are computed from the tokens."""
        splats = splats_of(registry)
        q, k, v = tokens if isinstance(tokens, tuple) else (tokens,) * 3
        heads = adaptation.measure(splats, q, k, v, **how)

        def mean(name: str) -> float:
            return float(numpy.mean([head[name][0] for head in heads])) / math.log(2)
        self._information = numpy.mean([head["leave_one_out"] for head in heads], 0) / math.log(2)
        self._use = numpy.mean([head["use"] for head in heads], 0)
        names, flow = splats.level_names, numpy.mean([head["flow"] for head in heads], 0) / math.log(2)
        self._flow = {f"{names[i]}_to_{names[j]}": float(flow[i, j]) for i in range(len(names)) for j in range(len(names)) if i != j}
        self.metrics = {"attention_entropy": mean("attention_entropy"), "splat_entropy": mean("use_entropy"), "kl_divergence": mean("kullback_leibler"),
                        "js_divergence": mean("jensen_shannon"), "mutual_information": mean("mutual_information"),
                        "output_error": float(numpy.mean([head["output_error"] for head in heads])),
                        "level_contributions": dict(zip(names, numpy.mean([head["level_share"] for head in heads], 0).tolist())), "level_flow": self._flow}
        return self.metrics

    def get_top_info_contributors(self, count: int = 10) -> list[tuple[int, float]]:
        """(splat, bits lost without it), most first."""
        return [(int(i), float(self._information[i])) for i in numpy.argsort(-self._information)[:count]]

    def get_strongest_level_flows(self, count: int = 3) -> list[tuple[str, float]]:
        return sorted(self._flow.items(), key=lambda item: -item[1])[:count]


__all__ = ["AdaptationMonitor", "HSAVisualizer", "Hierarchy", "InformationMetricsTracker", "PRESETS", "create_hsa_transformer", "create_preset_config",
           "replace_attention_with_hsa", "splats_of"]
