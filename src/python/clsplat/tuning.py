"""The fastest variants on a device, found once and remembered."""
from __future__ import annotations

import math
import os
from typing import Any, Callable, Optional, Union

from . import _c
from .device import Device, default_device
from .errors import CancelledError, c_string
from .splats import choice

_DTYPES = {"f32": _c.CLSPLAT_F32, "f16": _c.CLSPLAT_F16, "bf16": _c.CLSPLAT_BF16}


def tune(op: Optional[str] = None, *, seconds: float = 60.0, dtype: str = "f32", device: Optional[Device] = None,
         progress: Optional[Callable[[dict[str, Any]], Any]] = None, **shape: int) -> list[dict[str, Any]]:
    """Looks for the best variants and parameters, and keeps them for every program of this user.

    op       "softmax", "gaussian", "gaussian-isotropic", "gaussian-full", "near-far" or "gemm"; None: all
    seconds  about, for all of them; math.inf: every candidate
    shape    batch, heads, queries, keys, dim, value_dim, splats
    progress called between two candidates with op, best, best_seconds, first_seconds, tried, rejected, done; False stops

    Returns what was found: the last such dictionary of every operation. Ctrl-C keeps what was found until then.
    """
    device = device or default_device()
    options = device._c.tune_options_defaults()
    for name, value in shape.items():
        if name not in ("batch", "heads", "queries", "keys", "dim", "value_dim", "splats"):
            raise TypeError(f"tune() has no argument {name!r}")
        setattr(options, name, value)
    options.op = None if op is None else c_string(op)
    options.seconds, options.dtype = seconds, choice("dtype", dtype, _DTYPES)
    found: dict[str, dict[str, Any]] = {}
    raised: list[BaseException] = []

    def step(_user: Any, pointer: int) -> bool:
        try:
            s = _c.clsplat_tune_step.from_address(pointer)
            seen = {name: getattr(s, name) for name, _ in s._fields_}
            seen["op"], seen["best"] = seen["op"].decode(), (seen["best"] or b"").decode()
            if math.isfinite(seen["best_seconds"]):
                found[seen["op"]] = seen
            if progress is not None and progress(seen) is False:
                raise CancelledError("the progress callback returned False")
            return True
        except BaseException as error:  # noqa: BLE001  raised below
            raised.append(error)
            return False

    callback = _c.clsplat_tune_progress(step)
    options.progress = callback
    try:
        device._run(device._c.tune, device._handle, options)
    except BaseException:
        if raised:
            raise raised[0] from None
        raise
    return list(found.values())


def export_tuning(path: Union[str, os.PathLike], device: Optional[Device] = None) -> None:
    """The user's tuning records as a file."""
    device = device or default_device()
    device._run(device._c.tune_export, device._lib.pointer, c_string(path))


def import_tuning(path: Union[str, os.PathLike], device: Optional[Device] = None) -> None:
    """Records of a file among the user's: those that are new or faster."""
    device = device or default_device()
    device._run(device._c.tune_import, device._lib.pointer, c_string(path))


__all__ = ["export_tuning", "import_tuning", "tune"]
