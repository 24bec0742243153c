"""Attention over PyTorch's tensors, as operations that differentiate and that torch.compile keeps whole.

    import clsplat.torch
    out = clsplat.torch.attend(q, k, v, causal=True, tolerance=0.02)

Tensors of the CPU are used where they lie, with their strides. Those of other devices go through host memory, which is said once.
"""
from __future__ import annotations

import math
import warnings
import weakref
from typing import Any, Optional

import numpy
import torch
from torch import Tensor

from . import _c, arrays
from .attention import method_of, parameters
from .device import Device, default_device
from .errors import InvalidError, ShapeError
from .splats import TRAINED, Splats

_CODES = {torch.float32: arrays.F32, torch.float16: arrays.F16, torch.bfloat16: arrays.BF16}
_devices: weakref.WeakValueDictionary = weakref.WeakValueDictionary()  # by number, since operations take no objects
_splats: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
_said: set[str] = set()
_PLAIN = {Tensor, torch.nn.Parameter}


def _watched() -> bool:
    """Whether a mode or a transform of functions (vmap, grad, a profiler of operations) is to see every operation."""
    c = torch._C
    return bool(c._len_torch_dispatch_stack() or c._len_torch_function_stack() or c._functorch.peek_interpreter_stack() is not None)


def _numbered(table: weakref.WeakValueDictionary, x: Any) -> int:
    """What an operation gets in x's place; 0 is None."""
    if x is None:
        return 0
    table[id(x)] = x
    return id(x)


def _of_number(table: weakref.WeakValueDictionary, number: int) -> Any:
    return table[number] if number else None


def _on_host(name: str, t: Tensor) -> Tensor:
    if t.device.type != "cpu":
        if t.device.type not in _said:
            _said.add(t.device.type)
            warnings.warn(f"clsplat: tensors of {t.device.type} go through host memory, there and back, in every call", stacklevel=3)
        t = t.cpu()
    if t.dtype not in _CODES:
        raise InvalidError(f"{name} is of {t.dtype}; float32, float16 and bfloat16 are taken, and arithmetic is float32: {name}.float()")
    return t.detach().resolve_neg()


def _tensor(name: str, t: Tensor, keep: list, writes: bool = False) -> Any:
    """The C tensor of one in host memory."""
    place, kept = arrays.tensor(name, arrays.Array(_CODES[t.dtype], tuple(t.shape), t.stride(), t.data_ptr(), t), writes)
    keep.append(kept)
    return place


def _inputs(q: Tensor, k: Tensor, v: Tensor, key_bias: Optional[Tensor], keep: list) -> _c.clsplat_attention_tensors:
    if not q.dim() == k.dim() == v.dim():
        raise ShapeError(f"q, k and v have {q.dim()}, {k.dim()} and {v.dim()} dimensions; they must have as many")
    t = _c.clsplat_attention_tensors()
    for name, x in (("q", q), ("k", k), ("v", v)):
        setattr(t, name, _tensor(name, _on_host(name, x), keep))
    if key_bias is not None:
        b = _on_host("key_bias", key_bias)
        bias = arrays.Array(_CODES[b.dtype], tuple(b.shape), b.stride(), b.data_ptr(), b)
        t.key_bias, kept = arrays.per_key("key_bias", bias, *t.k.shape[:3])
        keep.append(kept)
    return t


def _place(q: Tensor, v: Tensor) -> Tensor:
    """Where the result goes: tokens before heads in memory, as the next projection reads them."""
    shape = (*q.shape[:-1], v.shape[-1])
    if len(shape) != 4:
        return q.new_empty(shape)
    b, h, n, d = shape
    return q.new_empty((b, n, h, d)).transpose(1, 2)


def _call(device: Device, method: str, tolerance: float, splats: int, causal: bool, scale: float, mixing: str, sparse_topk: int,
          chunk: int) -> _c.clsplat_attention:
    return parameters(device, method, None if math.isnan(tolerance) else tolerance, _of_number(_splats, splats), causal,
                      None if math.isnan(scale) else scale, mixing, sparse_topk, chunk)


_HOW = "bool causal, float scale, str method, float tolerance, int splats, str mixing, int sparse_topk, int chunk, int device"


def compute(q: Tensor, k: Tensor, v: Tensor, key_bias: Optional[Tensor], causal: bool, scale: float, method: str, tolerance: float,
            splats: int, mixing: str, sparse_topk: int, chunk: int, device: int, counts: Optional[dict] = None) -> tuple[Tensor, Tensor]:
    """The operation without PyTorch's dispatcher; near and far puts exact_keys and error_estimate of every row into `counts`."""
    on = _of_number(_devices, device) or default_device()
    keep: list = []
    t = _inputs(q, k, v, key_bias, keep)
    out, lse = _place(q, v), q.new_empty(q.shape[:-1], dtype=torch.float32)
    to, tl = (out, lse) if q.device.type == "cpu" else (torch.empty_like(out, device="cpu"), torch.empty_like(lse, device="cpu"))
    t.out = _tensor("out", to, keep, True)
    t.lse = _c.clsplat_tensor(arrays.F32, (*t.q.shape[:3], 1), (0, 0, 0), tl.data_ptr())
    a = _call(on, method, tolerance, splats, causal, scale, mixing, sparse_topk, chunk)
    if counts is not None and a.method == _c.CLSPLAT_NEAR_FAR:
        counts["exact_keys"], t.exact_keys = arrays.per_row(tuple(t.q.shape[:3]), numpy.int32)
        counts["error_estimate"], t.error_estimate = arrays.per_row(tuple(t.q.shape[:3]))
    on._run(on._c.attend, on._handle, a, t)
    if to is not out:
        out.copy_(to)
        lse.copy_(tl)
    return out, lse


@torch.library.custom_op("clsplat::attend", mutates_args=(), schema=f"(Tensor q, Tensor k, Tensor v, Tensor? key_bias, {_HOW}) -> (Tensor, Tensor)")
def _attend(q, k, v, key_bias, causal, scale, method, tolerance, splats, mixing, sparse_topk, chunk, device):
    return compute(q, k, v, key_bias, causal, scale, method, tolerance, splats, mixing, sparse_topk, chunk, device)


@_attend.register_fake
def _(q, k, v, key_bias, *_how):
    return _place(q, v), q.new_empty(q.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("clsplat::attend_backward", mutates_args=(), schema=(
    f"(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor? key_bias, Tensor out, Tensor lse, {_HOW}) -> (Tensor, Tensor, Tensor, Tensor)"))
def _attend_backward(dout, q, k, v, key_bias, out, lse, causal, scale, method, tolerance, splats, mixing, sparse_topk, chunk, device):
    on = _of_number(_devices, device) or default_device()
    keep: list = []
    t = _inputs(q, k, v, key_bias, keep)
    t.out, t.lse = _tensor("out", _on_host("out", out), keep), _tensor("lse", _on_host("lse", lse).unsqueeze(-1), keep)
    g, grads = _c.clsplat_attention_gradients(), []
    g.dout = _tensor("dout", _on_host("dout", dout), keep)
    for name, x in (("dq", q), ("dk", k), ("dv", v)):
        grads.append(torch.empty(x.shape, dtype=x.dtype))
        setattr(g, name, _tensor(name, grads[-1], keep, True))
    bias = torch.zeros(tuple(t.k.shape[:3]) if key_bias is not None else (0,), dtype=torch.float32)
    if key_bias is not None:
        g.dkey_bias = _tensor("dkey_bias", bias.unsqueeze(-1), keep, True)
    a = _call(on, method, tolerance, splats, causal, scale, mixing, sparse_topk, chunk)
    on._run(on._c.attend_backward, on._handle, a, t, g)
    return tuple(x.to(q.device) for x in (*grads, bias))


@_attend_backward.register_fake
def _(dout, q, k, v, key_bias, *_rest):
    shape = (1,) * (4 - k.dim()) + tuple(k.shape[:-1]) if key_bias is not None else (0,)
    return (*(x.new_empty(x.shape) for x in (q, k, v)), q.new_empty(shape, dtype=torch.float32))


def _remember(ctx: Any, inputs: tuple, output: tuple) -> None:
    q, k, v, key_bias, *ctx.how = inputs
    ctx.save_for_backward(q, k, v, key_bias, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dout: Optional[Tensor], _dlse: None) -> tuple:
    none = (None,) * len(ctx.how)
    if dout is None:
        return (None,) * 4 + none
    q, k, v, key_bias, out, lse = ctx.saved_tensors
    *grads, bias = torch.ops.clsplat.attend_backward(dout, q, k, v, key_bias, out, lse, *ctx.how)
    if key_bias is not None:  # summed along what was repeated
        bias = bias.sum_to_size((1,) * (3 - key_bias.dim()) + key_bias.shape).reshape(key_bias.shape).to(key_bias.dtype)
    return (*grads, bias if key_bias is not None else None, *none)


_attend.register_autograd(_differentiate, setup_context=_remember)


class _Eager(torch.autograd.Function):
    """The operation's autograd without PyTorch's dispatcher, which takes as long as all the rest of a small call."""

    @staticmethod
    def forward(ctx: Any, counts: Optional[dict], *inputs: Any) -> tuple[Tensor, Tensor]:
        output = compute(*inputs, counts)
        _remember(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, dout: Optional[Tensor], _dlse: None) -> tuple:
        return None, *_differentiate(ctx, dout, _dlse)


def operation(inputs: tuple, learns: bool, counts: Optional[dict] = None) -> tuple[Tensor, Tensor]:
    """The operation, or what does the same sooner where nothing looks on: no compiler, no modes, no transforms, no tensors of other kinds."""
    if not _PLAIN.issuperset(map(type, inputs[:3])) or torch.compiler.is_compiling() or _watched():
        return torch.ops.clsplat.attend(*inputs)
    return _Eager.apply(counts, *inputs) if learns else compute(*inputs, counts)


def attend(q: Tensor, k: Tensor, v: Tensor, *, method: Optional[str] = None, tolerance: Optional[float] = None,
           splats: Optional[Splats] = None, causal: bool = False, scale: Optional[float] = None, key_bias: Optional[Tensor] = None,
           mixing: str = "joint", sparse_topk: int = 0, chunk: int = 0, device: Optional[Device] = None, return_lse: bool = False) -> Any:
    """As clsplat.attend, over tensors; differentiable by q, k, v and key_bias for softmax and splats (whose own parameters are constants
    here; SplatAttention learns them). Near and far that has no gradient yet says so in backward."""
    method = method_of(method, tolerance, splats)
    device = device if device is not None else splats.device if splats is not None else None
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad
                                          or (key_bias is not None and key_bias.requires_grad))
    out, lse = operation((q, k, v, key_bias, causal, math.nan if scale is None else scale, method, math.nan if tolerance is None else tolerance,
                          _numbered(_splats, splats), mixing, sparse_topk, chunk, _numbered(_devices, device)), learns)
    return (out, lse) if return_lse else out


class _Through(torch.autograd.Function):
    """Attention through splats whose parameters are tensors."""

    @staticmethod
    def forward(ctx: Any, q, k, v, key_bias, splats, causal, mixing, *values):
        for name, value in zip(learned(splats), values):
            splats.parameters[name][...] = value.detach().cpu().numpy()
        splats.changed()
        how = (causal, math.nan, "splats", math.nan, _numbered(_splats, splats), mixing, 0, 0, _numbered(_devices, splats.device))
        out, lse = torch.ops.clsplat.attend(q.detach(), k.detach(), v.detach(), key_bias, *how)
        ctx.splats, ctx.causal, ctx.mixing = splats, causal, mixing
        ctx.save_for_backward(q, k, v, key_bias, out, lse)
        ctx.stamp = splats._stamp = getattr(splats, "_stamp", 0) + 1
        return out

    @staticmethod
    def backward(ctx: Any, dout):
        from .attention import attend_backward
        if ctx.stamp != ctx.splats._stamp:
            raise InvalidError("clsplat: the splats were used again before backward; call backward after each forward")
        q, k, v, key_bias, out, lse = ctx.saved_tensors
        bias = None if key_bias is None else key_bias.detach()
        g = attend_backward(*(x.detach().contiguous() for x in (q, k, v, out)), lse.numpy(), dout.contiguous(), splats=ctx.splats,
                            causal=ctx.causal, key_bias=bias, mixing=ctx.mixing)
        names = learned(ctx.splats)
        return (*(torch.from_numpy(x) for x in g[:3]), None, None, None, None, *(torch.from_numpy(g.splats[n]) for n in names))


def learned(splats: Splats) -> list[str]:
    """The parameters that a set of its covariance has and learns."""
    return [name for name in TRAINED if name in splats.parameters]


class SplatAttention(torch.nn.Module):
    """Attention through splats that learn: forward(q, k, v) of [B,H,N,D] in linear cost. From a set (Splats.init), which it then owns."""

    def __init__(self, splats: Splats, *, causal: bool = False, mixing: str = "joint") -> None:
        super().__init__()
        self.splats, self.causal, self.mixing = splats, causal, mixing
        self.values = torch.nn.ParameterDict()
        for name in learned(splats):
            self.values[name] = torch.nn.Parameter(torch.from_numpy(splats.parameters[name].copy()))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, key_bias: Optional[Tensor] = None) -> Tensor:
        return _Through.apply(q, k, v, key_bias, self.splats, self.causal, self.mixing, *self.values.values())
