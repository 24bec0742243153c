"""Pages and pictures of what attention did, which the command `clsplat report` makes."""
from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy

from . import arrays
from .device import Device, default_which
from .errors import Error, InvalidError
from .splats import Splats

_STORED = {arrays.F32: "F32", arrays.F16: "F16", arrays.BF16: "BF16"}


def command() -> str:
    """The path of the command, which the wheel brings: what CLSPLAT_COMMAND names, beside this Python, or on PATH."""
    named = os.environ.get("CLSPLAT_COMMAND")
    beside = [Path(folder) / "clsplat" for folder in (Path(sys.executable).parent, sysconfig.get_path("scripts"))]
    found = named or next((str(path) for path in beside if os.access(path, os.X_OK)), None) or shutil.which("clsplat")
    if found is None:
        raise Error("the command clsplat is not there: it comes with this package; install that again, or name it in CLSPLAT_COMMAND")
    return found


def _store(path: Path, tensors: dict[str, Any]) -> None:
    """A safetensors file of arrays, each [B,H,N,D] of what may lack the first ones."""
    header, parts, at = {}, [], 0
    for name, x in tensors.items():
        a = arrays._copied(arrays.describe(name, x))
        data = numpy.ascontiguousarray(a.keep).tobytes()
        header[name] = {"dtype": _STORED[a.dtype], "shape": [1] * (4 - len(a.shape)) + list(a.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    path.write_bytes(struct.pack("<Q", len(words)) + words + b"".join(parts))


def _path(path: Union[str, os.PathLike]) -> str:
    """A path that the command does not take for an option."""
    name = os.fspath(path)
    return os.path.join(".", name) if name.startswith("-") else name


def _source(source: Any, text: Any, folder: Path) -> list[str]:
    """The command's first arguments; what has no file yet gets one in `folder`."""
    if isinstance(source, Splats):
        source.save(folder / "splats.safetensors")
        return [str(folder / "splats.safetensors")]
    if isinstance(source, tuple):
        if len(source) != 3:
            raise InvalidError(f"report: q, k and v are three tensors; there are {len(source)}")
        _store(folder / "qkv.safetensors", dict(zip("qkv", source)))
        return [str(folder / "qkv.safetensors")]
    if text is None:
        return [_path(source)]
    if not isinstance(text, os.PathLike):
        (folder / "text.txt").write_bytes(text.encode() if isinstance(text, str) else text)
        text = folder / "text.txt"
    return [_path(source), _path(text)]


def report(source: Any, output: Union[None, str, os.PathLike] = None, *, text: Union[None, str, bytes, os.PathLike] = None,
           svg: Union[None, str, os.PathLike] = None, png: Union[None, str, os.PathLike] = None, picture: Optional[str] = None,
           method: Optional[str] = None, tolerance: Optional[float] = None, sparse_topk: int = 0, chunk: int = 0, window: int = 0,
           rows: Union[None, str, Sequence[int]] = None, causal: bool = False, scale: Optional[float] = None, context: int = 0,
           dark: bool = False, device: Union[None, Device, int, str] = None) -> dict[str, Any]:
    """Makes a page of what attention did, which opens anywhere, and returns its numbers.

    source   a model's folder or file, which reads `text` (words, or a Path); (q, k, v) as attend takes them; a Splats; a folder of
             `clsplat train`, a history of `clsplat adapt` or a safetensors file, by name
    output   where the page goes, as report.html; svg, png: one `picture` by itself (matrix, errors, tree, …: clsplat report --help)
    method   "exact", "near-far", "window", "topk" or "blocks"
    rows     which tokens are recorded
    """
    options = {"output": output, "svg": svg, "png": png, "picture": picture, "tolerance": tolerance, "scale": scale,
               "sparse-topk": sparse_topk or None, "chunk": chunk or None, "window": window or None, "context": context or None,
               "attention": "softmax" if method == "exact" else method,
               "rows": rows if rows is None or isinstance(rows, str) else ",".join(map(str, rows)),
               "device": default_which() if device is None else device.which if isinstance(device, Device) else device}
    words = [f"--{name}={os.fspath(x) if isinstance(x, os.PathLike) else x}" for name, x in options.items() if x is not None]
    words += [f"--{name}" for name, on in (("causal", causal), ("dark", dark)) if on]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run([command(), "report", *_source(source, text, Path(folder)), *words, "--json"], capture_output=True)
    if run.returncode:
        raise Error(run.stderr.decode(errors="replace").strip() or f"clsplat report ended with {run.returncode}")
    return json.loads(run.stdout)


__all__ = ["report"]
