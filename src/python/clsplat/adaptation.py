"""Splats that adapt to a layer's tokens, and what they do for it, measured."""
from __future__ import annotations

import ctypes
import weakref
from typing import Any, NamedTuple, Optional

import numpy

from . import _c, arrays
from .attention import _inputs
from .device import Progress, _fields
from .splats import Splats


observers: weakref.WeakSet = weakref.WeakSet()  # whose record() is told of every adaptation


class Adapted(NamedTuple):
    """A new set, and what came of it."""

    splats: Splats
    error_before: float  # ‖out − softmax‖ / ‖softmax‖ of the layer
    error_after: float
    kept: dict[str, int]  # decisions that stayed, by kind
    events: list[dict[str, Any]]  # every decision with its reason and effect


def _decisions(c: Any) -> list[str]:
    return [c.decision_name(i).decode() for i in range(_c.CLSPLAT_DECISIONS)]


def adapt(splats: Splats, q: Any, k: Any, v: Any, *, causal: bool = False, scale: Optional[float] = None, key_bias: Any = None, cycles: int = 4,
          seed: int = 0, steps: int = 0, sample: int = 1024, least: Optional[list[int]] = None, most: Optional[list[int]] = None,
          progress: Progress = None, **settings: Any) -> Adapted:
    """Splats split, are born, merge, die and move until attention through them is nearer to softmax attention on these tokens.

    q [B,H,N,D], k, v as in attend; least and most: splats of every level. `settings`: trades, every, rate, death_threshold, patience,
    merge_distance, least_gain, as clsplat_adapt has them. `splats` stays as it is.
    """
    device = splats.device
    c, events, raised = device._c, [], []
    names = _decisions(c)
    how = c.adapt_defaults()
    for name, value in {"cycles": cycles, "seed": seed, "steps": steps, "sample": sample, "causal": causal, **settings}.items():
        if name not in dict(how._fields_):
            raise TypeError(f"adapt() has no argument {name!r}")
        setattr(how, name, value)
    if scale is not None:
        how.scale = scale
    limits = [None if x is None else (ctypes.c_size_t * len(x))(*x) for x in (least, most)]
    how.least, how.most = [None if x is None else ctypes.addressof(x) for x in limits]
    device._watched(how)

    def listen(_user: Any, pointer: int) -> None:
        try:
            event = _fields(_c.clsplat_adapt_event.from_address(pointer))
            event["decision"] = names[event["decision"]]
            events.append(event)
        except BaseException as error:  # noqa: BLE001  raised below
            raised.append(error)
    listener = _c.clsplat_adapt_listener(listen)
    how.listener = listener
    t, _, keep = _inputs(*_four(q, k, v), key_bias)
    result, made = _c.clsplat_adapt_result(), Splats.__new__(Splats)
    made._begin(device)
    device._run(c.splats_adapt, device._handle, how, t, splats._on(device), ctypes.byref(made._pointer), ctypes.byref(result), progress=progress)
    del keep
    if raised:
        raise raised[0]
    adapted = Adapted(made, result.error_before, result.error_after, dict(zip(names, result.kept)), events)
    for observer in list(observers):
        observer.record(adapted)
    return adapted


def _four(*tensors: Any) -> list[arrays.Array]:
    """[B,H,N,D] of what may lack the first ones."""
    result = []
    for name, x in zip("qkv", tensors):
        a = arrays.describe(name, x)
        lead = 4 - len(a.shape)
        result.append(arrays.Array(a.dtype, (1,) * lead + a.shape, (a.shape[0] * a.stride[0],) * lead + a.stride, a.address, a.keep))
    return result


def _numbers(address: Optional[int], *shape: int) -> numpy.ndarray:
    """A copy of doubles of the library's."""
    count = int(numpy.prod(shape))
    if not address or not count:
        return numpy.zeros(shape)
    return numpy.array((ctypes.c_double * count).from_address(address)).reshape(shape)


def measure(splats: Splats, q: Any, k: Any, v: Any, *, causal: bool = False, scale: Optional[float] = None, key_bias: Any = None,
            sample: int = 1024, pairs: int = 32) -> list[dict[str, Any]]:
    """What splats do for a layer: for every head of the set the error, entropies, divergences (in nats, with their own errors as (value, error)),
    mutual information of rows and splats, and for each splat its use and the information lost without it; levels' shares and the flow between
    them. Definitions: include/clsplat/metrics.h."""
    device, how = splats.device, splats.device._c.measure_defaults()
    how.causal, how.sample, how.pairs = causal, sample, pairs
    if scale is not None:
        how.scale = scale
    t, _, keep = _inputs(*_four(q, k, v), key_bias)
    found = _c.clsplat_metrics()
    try:
        device._run(device._c.splats_measure, device._handle, how, t, splats._on(device), ctypes.byref(found))
        heads = (_c.clsplat_head_metrics * found.heads).from_address(found.head)
        return [_head(head, found.splats, found.levels) for head in heads]
    finally:
        del keep
        device._c.metrics_free(ctypes.byref(found))


def _head(head: _c.clsplat_head_metrics, splats: int, levels: int) -> dict[str, Any]:
    result = {name: (x["value"], x["error"]) if isinstance(x, dict) else x for name, x in _fields(head).items()}
    shapes = {"use": (splats,), "leave_one_out": (splats,), "level_share": (levels,), "flow": (levels, levels)}
    result.update({name: _numbers(getattr(head, name), *shape) for name, shape in shapes.items()})
    return result


__all__ = ["Adapted", "adapt", "measure"]
