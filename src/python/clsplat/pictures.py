"""Pictures of attention and splats, as SVG that needs nothing else."""
from __future__ import annotations

import base64
import html
import struct
import webbrowser
import zlib
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy

from .errors import InvalidError
from .splats import Splats

COLOURS = ("#3498db", "#2ecc71", "#e67e22", "#e74c3c", "#9b59b6", "#16a085", "#7f8c8d")
_SIZE = 520  # pixels of a picture's inside


def _png(grey: numpy.ndarray) -> str:
    """Numbers from 0 to 1 as an image in a link, from white to blue."""
    x = numpy.clip(grey, 0, 1)[..., None]
    pixels = ((1 - x) * numpy.array([255, 255, 255]) + x * numpy.array([23, 60, 120])).astype(numpy.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _text(x: float, y: float, words: Any, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-family="sans-serif">{html.escape(str(words))}</text>'


def _svg(title: str, parts: Sequence[str], width: int = _SIZE + 160, height: int = _SIZE + 60) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
            f'<rect width="100%" height="100%" fill="white"/>{_text(20, 26, title, size=16)}{"".join(parts)}</svg>')


def _legend(names: Sequence[str]) -> list[str]:
    return [f'<rect x="{_SIZE + 40}" y="{60 + 20 * i}" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>'
            + _text(_SIZE + 58, 71 + 20 * i, name) for i, name in enumerate(names)]


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


class HSAVisualizer:
    """Writes pictures into a folder and returns their paths; show=True opens them, too."""

    def __init__(self, output_dir: str = "hsa_visualizations") -> None:
        self.folder = Path(output_dir)

    def _write(self, name: str, text: str, show: bool) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        if show:
            webbrowser.open(path.resolve().as_uri())
        return str(path)

    def visualize_attention_matrix(self, attention_matrix: Any, tokens: Optional[Sequence[Any]] = None, title: str = "Attention",
                                   show: bool = False) -> str:
        """[N,M]; darker is more. Words beside it for up to 30 tokens."""
        a = numpy.asarray(attention_matrix, numpy.float64)
        a = a[-1] if a.ndim == 3 else a
        step = max(1, max(a.shape) // 1024)
        shown = a[::step, ::step]
        shown = shown / max(shown.max(), 1e-30)
        parts = [f'<image x="100" y="40" width="{_SIZE}" height="{_SIZE}" preserveAspectRatio="none" style="image-rendering:pixelated" '
                 f'href="{_png(numpy.sqrt(shown))}"/>']
        if tokens is not None and len(tokens) <= 30 and len(tokens) == a.shape[0]:
            tokens = tokens if isinstance(tokens[0], str) else range(len(tokens))  # vectors have no names
            parts += [_text(94, 40 + _SIZE * (i + 0.7) / len(tokens), token, "end", 10) for i, token in enumerate(tokens)]
        return self._write("attention_matrix.svg", _svg(title, parts), show)

    def visualize_splat_distribution(self, splats: Any, tokens: Any, title: str = "Splats and tokens", head: int = 0, show: bool = False) -> str:
        """Splats of a head, as ellipses that hold 95 % of them, over tokens [n,D], both along the tokens' two principal axes."""
        splats = splats_of(splats)
        p, x = splats.parameters, numpy.asarray(tokens, numpy.float64)
        x = x.reshape(-1, x.shape[-1])
        centre = x.mean(0)
        axes = numpy.linalg.svd(x - centre, full_matrices=False)[2][:2]
        dots, middles = (x - centre) @ axes.T, (p["mean"][head] - centre) @ axes.T
        extent = numpy.abs(numpy.concatenate([dots, middles])).max() * 1.1 + 1e-9
        scale, parts = _SIZE / 2 / extent, []
        for dot in dots[:: max(1, len(dots) // 3000)]:
            parts.append(f'<circle cx="{20 + _SIZE / 2 + dot[0] * scale:.1f}" cy="{40 + _SIZE / 2 - dot[1] * scale:.1f}" r="1.5" fill="#bbb"/>')
        strength = numpy.exp(p["log_amplitude"][head] - p["log_amplitude"][head].max())
        for i, middle in enumerate(middles):
            values, vectors = numpy.linalg.eigh(axes @ self._covariance(p, head, i) @ axes.T)
            radii = numpy.sqrt(5.991 * numpy.maximum(values, 0)) * scale
            angle = -numpy.degrees(numpy.arctan2(vectors[1, 1], vectors[0, 1]))
            at = 20 + _SIZE / 2 + middle[0] * scale, 40 + _SIZE / 2 - middle[1] * scale
            parts.append(f'<ellipse cx="{at[0]:.1f}" cy="{at[1]:.1f}" rx="{radii[1]:.1f}" ry="{radii[0]:.1f}" transform="rotate({angle:.1f} '
                         f'{at[0]:.1f} {at[1]:.1f})" fill="none" stroke="{COLOURS[p["level"][i] % len(COLOURS)]}" '
                         f'stroke-opacity="{max(0.15, float(strength[i])):.2f}"/>')
        return self._write("splat_distribution.svg", _svg(title, parts + _legend(splats.level_names)), show)

    @staticmethod
    def _covariance(p: dict, head: int, i: int) -> numpy.ndarray:
        heat, dim = numpy.exp(p["log_temperature"][head, i]), p["mean"].shape[-1]
        if "precision_chol" in p:
            factor = numpy.tril(p["precision_chol"][head, i].astype(numpy.float64))
            return heat * numpy.linalg.inv(factor @ factor.T)
        return heat * numpy.diag(numpy.broadcast_to(numpy.exp(p["log_var"][head, i].astype(numpy.float64)), (dim,)))

    def visualize_hierarchy(self, splats: Any, title: str = "Hierarchy", head: int = 0, show: bool = False) -> str:
        """Levels from fine (below) to coarse; each splat hangs from the nearest one of the next level; size is amplitude."""
        splats = splats_of(splats)
        p, names, parts, places = splats.parameters, splats.level_names, [], {}
        strength = numpy.exp(p["log_amplitude"][head] - p["log_amplitude"][head].max())
        for level in reversed(range(len(names))):
            mine = numpy.flatnonzero(p["level"] == level)
            above = numpy.flatnonzero(p["level"] == level + 1)
            y = 60 + (_SIZE - 40) * (len(names) - 1 - level) / max(len(names) - 1, 1)
            for place, i in enumerate(mine):
                places[i] = x = 20 + _SIZE * (place + 0.5) / len(mine), y
                if len(above):
                    parent = places[above[((p["mean"][head, above] - p["mean"][head, i]) ** 2).sum(-1).argmin()]]
                    parts.insert(0, f'<line x1="{x[0]:.1f}" y1="{y:.1f}" x2="{parent[0]:.1f}" y2="{parent[1]:.1f}" stroke="#ccc"/>')
                parts.append(f'<circle cx="{x[0]:.1f}" cy="{y:.1f}" r="{2 + 6 * float(strength[i]) ** 0.5:.1f}" fill="{COLOURS[level % len(COLOURS)]}"/>')
        return self._write("hierarchy.svg", _svg(title, parts + _legend(names)), show)

    def visualize_level_contributions(self, contributions: dict, title: str = "Shares of the levels", show: bool = False) -> str:
        """A bar for every level: InformationMetricsTracker's level_contributions."""
        total, parts = sum(contributions.values()) or 1, []
        for i, (name, value) in enumerate(contributions.items()):
            length = (_SIZE - 140) * value / total
            parts.append(_text(110, 74 + 40 * i, name, "end") + f'<rect x="120" y="{58 + 40 * i}" width="{length:.1f}" height="24" '
                         f'fill="{COLOURS[i % len(COLOURS)]}"/>' + _text(126 + length, 74 + 40 * i, f"{value / total:.1%}"))
        return self._write("level_contributions.svg", _svg(title, parts, height=80 + 40 * len(contributions)), show)

    def create_dashboard(self, splats: Any, attention_matrix: Any, tokens: Any, title: str = "CLSplat", show: bool = False) -> str:
        """One HTML page of the pictures above and the metrics of a set on tokens [n,D]; attention_matrix may be None."""
        from .hsa.information_metrics import InformationMetricsTracker
        metrics = InformationMetricsTracker().compute_all_metrics(splats, tokens)
        paths = [self.visualize_splat_distribution(splats, tokens), self.visualize_hierarchy(splats),
                 self.visualize_level_contributions(metrics["level_contributions"])]
        if attention_matrix is not None:
            paths.insert(0, self.visualize_attention_matrix(attention_matrix))
        rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{v:.4f}</td></tr>" for k, v in metrics.items() if isinstance(v, float))
        pictures = "".join(Path(path).read_text(encoding="utf-8") for path in paths)
        return self._write("dashboard.html", f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><h1>{html.escape(title)}</h1>"
                           f"<table>{rows}</table>{pictures}", show)
