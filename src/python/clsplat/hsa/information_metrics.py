"""What splats tell, measured."""
from __future__ import annotations

import math
from typing import Any

import numpy

from .. import adaptation
from ..pictures import splats_of


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
