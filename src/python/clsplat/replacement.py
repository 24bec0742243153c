"""How a replaced layer attends, from a dictionary; and what it counts."""
from __future__ import annotations

import math
from typing import Any, Mapping, Optional

from torch import Tensor

from . import torch as op
from .device import Device, default_device
from .errors import InvalidError
from .splats import Hierarchy, Splats

_OURS = {"method", "tolerance", "sparse_topk", "chunk", "device", "seed", "covariance"}
_ORIGINAL = {"hierarchy", "levels", "init_splats_per_level", "level_weights", "adaptation", "attention", "initialization", "training", "model",
             "use_spatial"}
_FEW = 64  # queries below which a call is exact: building trees takes longer than they save

# A CPU that reads a long text at once takes large trees, which halve the time of the library's choice on the layers of SmolLM2 at 8,192 tokens
# (0.20, 0.22, 0.13 and 0.16 s of CPU for 0.37, 0.44, 0.20 and 0.26). Their error may be half as much again as the tolerance, so that two thirds of
# it are asked for, which keeps it: errors there are half of what small trees have.
_MANY, _LARGE, _STRICTER, _TOLERANCE = 4096, 256, 2 / 3, 0.02


class Replacement:
    """What a configuration asks for.

    method      "near-far" (default), "splats" or "exact"
    tolerance   near and far: the relative error of a layer's attention that is accepted; 0.02; 0 is exact
    sparse_topk near and far: the most keys that a query attends to one by one
    chunk       near and far: keys of a tree; 0: 256 where a CPU reads 4,096 tokens and more at once, else the library's choice
    hierarchy   levels, init_splats_per_level, level_weights; method "splats": a set of such levels for each layer, made from the queries and
                keys of its first call
    adaptation  enable_adaptation, adaptation_frequency; method "splats": the sets adapt to each so-manieth call's tokens
    device, seed, covariance
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        unknown = sorted(set(config) - _OURS - _ORIGINAL)
        if unknown:
            raise InvalidError(f"replace_attention: there is no {', '.join(unknown)}; there are {', '.join(sorted(_OURS | _ORIGINAL))}")
        self.notes: list[str] = []
        self.tolerance: Optional[float] = config.get("tolerance")
        exact = self.tolerance == 0 and "sparse_topk" not in config
        self.method = str(config.get("method", "exact" if exact else "near-far")).replace("_", "-")
        if self.method not in ("exact", "near-far", "splats"):
            raise InvalidError(f"replace_attention: there is no method {self.method!r}; exact, near-far, splats")
        if self.tolerance is not None and not self.tolerance >= 0:
            raise InvalidError(f"replace_attention: tolerance is {self.tolerance}; it is 0 or more")
        self.sparse_topk = int(config.get("sparse_topk") or config.get("attention", {}).get("sparse_topk") or 0)
        self.chunk = int(config.get("chunk") or 0)
        self.device: Optional[Device] = config.get("device")
        self._on_cpu: Optional[bool] = None
        self.seed, self.covariance = int(config.get("seed", 0)), config.get("covariance", "diagonal")
        named = "hierarchy" in config or "levels" in config
        self.hierarchy = Hierarchy.of(config) if named else None
        adaptation = dict(config.get("adaptation", {}))
        self.adapts = bool(adaptation) and bool(adaptation.get("enable_adaptation", True))
        self.every = int(adaptation.get("adaptation_frequency", 5))
        unused = sorted(set(adaptation) - {"enable_adaptation", "adaptation_frequency"})
        unused += sorted(set(config) & {"initialization", "training", "model", "use_spatial"})
        if unused:
            self.notes.append(f"{', '.join(unused)}: without effect on a replaced layer, whose adaptation is decided by measured errors")
        self._tell()

    @classmethod
    def of(cls, config: Any) -> Replacement:
        return config if isinstance(config, cls) else cls(config)

    def _tell(self) -> None:
        """What keys mean for the method that was chosen, where it is not what their name says alone."""
        if self.method == "near-far":
            if self.sparse_topk and not self.chunk:
                self.chunk = max(16, min(64, 1 << (self.sparse_topk.bit_length() - 1)))
                self.notes.append(f"sparse_topk: at most {self.sparse_topk} keys one by one, of which up to {self.chunk} are a query's own chunk; "
                                  "the rest of its mass comes through splats")
            if self.hierarchy is not None:
                self.notes.append("hierarchy: near and far has the levels of its trees, whose splats are made of the keys of every text and weighed by "
                                  "their mass; init_splats_per_level and level_weights are those of method='splats'")
            if self.adapts:
                self.notes.append("adaptation: trees are built anew for every text, split where keys are spread; adaptation_frequency and thresholds "
                                  "are those of method='splats'")
        elif self.sparse_topk:
            self.notes.append(f"sparse_topk: method={self.method!r} has no budget of keys; it is near and far's")
        if self.method == "splats":
            self.notes.append("splats: so few stand for all keys of a layer that was trained with softmax at a loss; train the model with them, or use "
                              "method='near-far'")

    def how(self, rows: int) -> dict[str, Any]:
        """What clsplat.torch.attend is told, of a call with so many queries."""
        if self.method != "near-far" or rows < _FEW:
            return {"device": self.device}
        tolerance, chunk = self.tolerance, self.chunk
        if rows >= _MANY and not chunk and not self.sparse_topk and self.on_cpu:
            tolerance, chunk = (_TOLERANCE if tolerance is None else tolerance) * _STRICTER, _LARGE
        return {"method": "near-far", "tolerance": tolerance, "sparse_topk": self.sparse_topk, "chunk": chunk, "device": self.device}

    @property
    def on_cpu(self) -> bool:
        if self._on_cpu is None:
            self._on_cpu = (self.device or default_device()).info["type"] == "cpu"
        return self._on_cpu


class Layer:
    """One attention of a model: how it attends, its splats, and what it counted."""

    def __init__(self, name: str, settings: Replacement) -> None:
        self.name, self.settings = name, settings
        self.splats: Optional[Splats] = None
        self.events: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self.calls = self.rows = 0
        self.visible = self.exact = self.seconds = self.error = 0.0
        self.judged = 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: dict, counts: dict, learns: bool) -> tuple[Tensor, Tensor]:
        s = self.settings
        if s.method == "splats":
            return self._through_splats(q, k, v, how)
        options = {**how, **s.how(q.shape[2])}
        if "method" not in options:
            return op.attend(q, k, v, **options, return_lse=True)
        counts["near-far"] = True
        scale, tolerance = [math.nan if x is None else x for x in (how["scale"], options["tolerance"])]
        return op.operation((q, k, v, how["key_bias"], how["causal"], scale, "near-far", tolerance, 0, "joint", s.sparse_topk, options["chunk"],
                             op._numbered(op._devices, s.device)), learns, counts)

    def _through_splats(self, q: Tensor, k: Tensor, v: Tensor, how: dict) -> tuple[Tensor, Tensor]:
        """Scores of a layer are q·k times its scale, those of splats of distances: both meet where q and k are scaled alike."""
        s = self.settings
        factor = 1.0 if how["scale"] is None else math.sqrt(how["scale"] * math.sqrt(q.shape[-1]))
        q, k = q * factor, k * factor
        if self.splats is None:
            tokens = q.shape[0] * (q.shape[2] * q.shape[1] // k.shape[1] + k.shape[2])
            if s.hierarchy is not None and sum(s.hierarchy.counts) > tokens:
                raise InvalidError(f"{self.name}: the first call has {tokens} queries and keys a head, fewer than the {sum(s.hierarchy.counts)} splats of "
                                   "the hierarchy: begin with a longer text")
            heads = q.detach().float().contiguous(), k.detach().float().contiguous()
            self.splats = Splats.init(*heads, hierarchy=s.hierarchy, match="softmax", seed=s.seed, covariance=s.covariance, device=s.device)
        self.last = {"q": q.detach(), "k": k.detach(), "v": v.detach(), "causal": how["causal"], "key_bias": how["key_bias"]}
        result = op.attend(q, k, v, splats=self.splats, causal=how["causal"], key_bias=how["key_bias"], return_lse=True)
        if s.adapts and s.every > 0 and (self.calls + 1) % s.every == 0:
            self.adapt()
        return result

    def adapt(self) -> dict[str, Any]:
        """The layer's splats adapt to the tokens of its last call."""
        from .adaptation import adapt
        if self.splats is None or not self.last:
            raise InvalidError(f"{self.name}: has no splats yet; call the model first")
        adapted = adapt(self.splats, self.last["q"].float().contiguous(), self.last["k"].float().contiguous(), self.last["v"].float().contiguous(),
                        causal=self.last["causal"], key_bias=self.last["key_bias"], cycles=1, seed=self.settings.seed)
        self.splats = adapted.splats
        self.events += adapted.events
        return {"error_before": adapted.error_before, "error_after": adapted.error_after}

    def count(self, q: Tensor, k: Tensor, causal: bool, counts: Mapping[str, Any], seconds: float) -> None:
        b, h, n, _ = q.shape
        m = k.shape[2]
        seen = b * h * (n * m - n * (n - 1) / 2 if causal else n * m)
        if "near-far" in counts and "exact_keys" not in counts:
            seen = 0.0  # a transform of functions ran, which tells no numbers
        self.calls, self.rows, self.seconds, self.visible = self.calls + 1, self.rows + b * h * n, self.seconds + seconds, self.visible + seen
        if "exact_keys" in counts:
            self.exact += float(counts["exact_keys"].sum())
            self.error += float(counts["error_estimate"].sum())
            self.judged += b * h * n
        elif self.settings.method != "splats":
            self.exact += seen

    def report(self) -> dict[str, Any]:
        return {"layer": self.name, "method": self.settings.method, "calls": self.calls, "rows": self.rows, "visible_keys": self.visible,
                "exact_share": self.exact / max(self.visible, 1), "expected_error": self.error / self.judged if self.judged else None,
                "splats": len(self.splats) if self.splats is not None else None, "seconds": self.seconds}
