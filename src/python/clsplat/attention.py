"""Attention over arrays, and its gradients."""
from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional

import numpy

from . import _c, arrays
from .device import Device, Progress, default_device
from .errors import InvalidError, ShapeError
from .splats import Splats

METHODS = {"exact": _c.CLSPLAT_SOFTMAX, "near-far": _c.CLSPLAT_NEAR_FAR, "splats": _c.CLSPLAT_SPLATS, "window": _c.CLSPLAT_WINDOW}
_MIXINGS = {"joint": _c.CLSPLAT_JOINT, "per-level": _c.CLSPLAT_PER_LEVEL}


class Attended(NamedTuple):
    """What attention made, and what it says of it."""

    out: Any
    lse: numpy.ndarray  # the natural logarithm of each row's normaliser
    exact_keys: Optional[numpy.ndarray]  # of each row, attended one by one; near and far only
    error_estimate: Optional[numpy.ndarray]  # of each row, relative; near and far only


def method_of(method: Optional[str], tolerance: Optional[float], splats: Optional[Splats], window: int = 0) -> str:
    """What is meant: by name, or by what else was given."""
    if method is None:
        method = "splats" if splats is not None else "near-far" if tolerance else "window" if window else "exact"
    method = method.replace("_", "-")
    if method not in METHODS:
        raise InvalidError(f"there is no method {method!r}; {', '.join(METHODS)}")
    if (method == "splats") != (splats is not None):
        raise InvalidError("method='splats' needs splats=" if method == "splats" else f"splats are not used by method={method!r}")
    if tolerance is not None and (math.isnan(tolerance) or tolerance < 0):
        raise InvalidError(f"tolerance is {tolerance}; it is 0 or more")
    if tolerance and method != "near-far":
        raise InvalidError(f"tolerance is near and far's; method={method!r} has none")
    if window and method != "window":
        raise InvalidError(f"window is for method='window'; method={method!r} has none")
    return method


def parameters(device: Device, method: Optional[str] = None, tolerance: Optional[float] = None, splats: Optional[Splats] = None,
               causal: bool = False, scale: Optional[float] = None, mixing: str = "joint", sparse_topk: int = 0,
               chunk: int = 0, window: int = 0) -> _c.clsplat_attention:
    """The C structure of a call."""
    a = device._c.attention_defaults()
    method = method_of(method, tolerance, splats, window)
    a.method, a.causal = METHODS[method], causal
    if window:
        a.window = window
    device._watched(a)
    if scale is not None:
        a.scale = scale
    if method == "near-far":
        if tolerance is not None:
            a.tolerance = tolerance
        a.sparse_topk, a.chunk = sparse_topk, chunk
    elif sparse_topk or chunk:
        raise InvalidError("sparse_topk and chunk are near and far's: method='near-far'")
    if splats is not None:
        if mixing not in _MIXINGS:
            raise InvalidError(f"there is no mixing {mixing!r}; {', '.join(_MIXINGS)}")
        a.splats, a.mixing = splats._on(device), _MIXINGS[mixing]
    return a


def attend(q: Any, k: Any, v: Any, *, method: Optional[str] = None, tolerance: Optional[float] = None, splats: Optional[Splats] = None,
           causal: bool = False, scale: Optional[float] = None, key_bias: Any = None, mixing: str = "joint", sparse_topk: int = 0,
           chunk: int = 0, window: int = 0, out: Any = None, details: bool = False, device: Optional[Device] = None, progress: Progress = None) -> Any:
    """Attention: out_i = Σ_j A_ij v_j / Σ_j A_ij.

    q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,Dv]; batch and heads may be left out, H is a multiple of Hk. float32, float16 or bfloat16, of
    numpy, of any library with DLPack, or with a buffer; in host memory, with strides as they come. Tensors of PyTorch go to
    clsplat.torch.attend, which differentiates.

    method      "exact" softmax; "near-far": softmax with an error of about `tolerance` (relative, on average over a layer; 0.02);
                "splats": through `splats`, in linear cost; "window": softmax over the last `window` keys that a query sees, its own
                included (causal). None: as `splats`, `tolerance` or `window` say
    causal      query i sees the keys j ≤ i + (M − N)
    scale       of q·k; 1/√D
    key_bias    added to the logits of a key, −inf for padding: [M], [Hk,M] or [B,Hk,M]
    mixing      of splats' levels: "joint", or "per-level"
    window      512
    sparse_topk, chunk   near and far: the most keys a row attends to one by one, and the keys of a tree; 0: the library's choice
    out         where to write, of the result's shape and of any of the three types
    details     return Attended (with lse, and near and far's keys and errors) instead of the result alone
    progress    called with the finished share; True: a bar of tqdm

    Returns numbers of q's type and number of dimensions (float32 where numpy lacks the type). Ctrl-C ends the call between blocks of
    about a second; other threads run meanwhile.
    """
    if type(q).__module__ == "torch" and out is None and not details:
        from . import torch as clsplat_torch
        if window or method == "window":
            raise InvalidError("tensors of PyTorch have no windows yet: scaled_dot_product_attention takes a mask; or give numpy arrays")
        return clsplat_torch.attend(q, k, v, method=method, tolerance=tolerance, splats=splats, causal=causal, scale=scale,
                                    key_bias=key_bias, mixing=mixing, sparse_topk=sparse_topk, chunk=chunk, device=device)
    device = device or (splats.device if splats is not None else default_device())
    a = parameters(device, method, tolerance, splats, causal, scale, mixing, sparse_topk, chunk, window)
    t, shape, keep = _inputs(q, k, v, key_bias)
    place = arrays.optional("out", out, shape)
    if place is None:
        out = arrays.like(shape, q, t.q.dtype)
        place = arrays.of_numpy("out", out)
    t.out, _ = arrays.tensor("out", place, writes=True)
    extra = _details(t, shape[:-1], a.method == _c.CLSPLAT_NEAR_FAR) if details else None
    device._run(device._c.attend, device._handle, a, t, progress=progress)
    del keep
    return Attended(out, *extra) if extra is not None else out


def _inputs(q: Any, k: Any, v: Any, key_bias: Any) -> tuple[_c.clsplat_attention_tensors, tuple[int, ...], list]:
    """The tensors that are read, the result's shape, and what must live."""
    qa, ka, va = arrays.describe("q", q), arrays.describe("k", k), arrays.describe("v", v)
    if not len(qa.shape) == len(ka.shape) == len(va.shape):
        raise ShapeError(f"q, k and v have {len(qa.shape)}, {len(ka.shape)} and {len(va.shape)} dimensions; they must have as many")
    t = _c.clsplat_attention_tensors()
    t.q, keep_q = arrays.tensor("q", qa)
    t.k, keep_k = arrays.tensor("k", ka)
    t.v, keep_v = arrays.tensor("v", va)
    keep = [keep_q, keep_k, keep_v]
    if key_bias is not None:
        t.key_bias, keep_b = arrays.per_key("key_bias", key_bias, *t.k.shape[:3])
        keep.append(keep_b)
    return t, qa.shape[:-1] + va.shape[-1:], keep


def _details(t: _c.clsplat_attention_tensors, rows: tuple[int, ...], near_far: bool) -> tuple:
    lse, t.lse = arrays.per_row(rows)
    if not near_far:
        return lse, None, None
    keys, t.exact_keys = arrays.per_row(rows, numpy.int32)
    error, t.error_estimate = arrays.per_row(rows)
    return lse, keys, error


class Gradients(NamedTuple):
    """The gradients of Σ out · dout by what went in."""

    q: numpy.ndarray
    k: numpy.ndarray
    v: numpy.ndarray
    key_bias: Optional[numpy.ndarray]
    splats: Optional[dict[str, numpy.ndarray]]  # of each of Splats.parameters but the levels


def attend_backward(q: Any, k: Any, v: Any, out: Any, lse: Any, dout: Any, *, method: Optional[str] = None,
                    tolerance: Optional[float] = None, splats: Optional[Splats] = None, causal: bool = False,
                    scale: Optional[float] = None, key_bias: Any = None, mixing: str = "joint", window: int = 0,
                    device: Optional[Device] = None, progress: Progress = None) -> Gradients:
    """The gradients of Σ out · dout by q, k, v, the key bias [B,Hk,M] and the splats' parameters, in float32.

    `out` and `lse` are those of `attend(…, details=True)` of the same arguments.
    """
    device = device or (splats.device if splats is not None else default_device())
    a = parameters(device, method, tolerance, splats, causal, scale, mixing, window=window)
    t, shape, keep = _inputs(q, k, v, key_bias)
    t.out, keep_out = arrays.tensor("out", arrays.describe("out", out))
    lse = arrays.describe("lse", numpy.asarray(lse)[..., None])
    t.lse, keep_lse = arrays.tensor("lse", lse)
    g = _c.clsplat_attention_gradients()
    g.dout, keep_dout = arrays.tensor("dout", arrays.describe("dout", dout))
    results = []
    for name, x in (("q", q), ("k", k), ("v", v)):
        results.append(numpy.empty(arrays.describe(name, x).shape, numpy.float32))
        place, _ = arrays.tensor("d" + name, arrays.of_numpy("d" + name, results[-1]), writes=True)
        setattr(g, "d" + name, place)
    bias = None
    if key_bias is not None:
        bias, g.dkey_bias = arrays.per_row(tuple(t.k.shape[:3]))
    parts = splats._gradient(g.splats) if splats is not None else None
    device._run(device._c.attend_backward, device._handle, a, t, g, progress=progress)
    del keep, keep_out, keep_lse, keep_dout
    return Gradients(*results, bias, parts)
