"""Configurations by name."""
from __future__ import annotations

from typing import Any, Optional

from ..errors import InvalidError

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
