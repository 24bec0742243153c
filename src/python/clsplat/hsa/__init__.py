"""The original system's names. Code written for it runs with `hsa_attention` changed to `clsplat.hsa` where it imports; each call does what it says,
on any OpenCL device.

    from clsplat.hsa import replace_attention_with_hsa, create_hsa_transformer
    from clsplat.hsa.visualization import HSAVisualizer
    from clsplat.hsa.adaptation import AdaptationMonitor
    from clsplat.hsa.information_metrics import InformationMetricsTracker
    from clsplat.hsa.factory import create_preset_config

All of them are here, too. Where the original has a registry of splats, this takes a clsplat.Splats, or a model whose attention was replaced with
method="splats".
"""
from __future__ import annotations

import copy
from typing import Any, Mapping, Optional

from ..pictures import splats_of
from ..splats import Hierarchy
from .adaptation import AdaptationMonitor
from .factory import PRESETS, create_preset_config
from .information_metrics import InformationMetricsTracker
from .visualization import HSAVisualizer


def replace_attention_with_hsa(model: Any, hsa_config: Optional[Mapping[str, Any]] = None, replace_in_place: bool = True) -> Any:
    """The model with its attention replaced: clsplat.replace_attention. Near and far unless hsa_config has method="splats", which puts so many
    splats of each level into every layer and lets them adapt; clsplat.report_of(model)["notes"] tells what each key does."""
    from ..transformers import replace_attention
    return replace_attention(model if replace_in_place else copy.deepcopy(model), hsa_config)


def create_hsa_transformer(vocab_size: int, hidden_size: int = 768, num_hidden_layers: int = 12, num_attention_heads: int = 12,
                           intermediate_size: int = 3072, hsa_config: Optional[Mapping[str, Any]] = None, max_position_embeddings: int = 512,
                           **more: Any) -> Any:
    """An encoder to be trained, which returns hidden states. While it trains, its attention is exact or through splats (method="splats")."""
    from ..transformers import create_transformer
    return create_transformer(vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, max_position_embeddings,
                              decoder=False, config=hsa_config, **more)


__all__ = ["AdaptationMonitor", "HSAVisualizer", "Hierarchy", "InformationMetricsTracker", "PRESETS", "create_hsa_transformer", "create_preset_config",
           "replace_attention_with_hsa", "splats_of"]
