"""CLSplat: attention over long contexts on any OpenCL device.

    import clsplat, numpy as np
    q, k, v = np.random.default_rng(0).standard_normal((3, 4, 4096, 64), np.float32)
    out = clsplat.attend(q, k, v, causal=True)                     # exact softmax
    out = clsplat.attend(q, k, v, causal=True, tolerance=0.02)     # near and far: the error that you accept
    splats = clsplat.Splats.init(q, k)
    out = clsplat.attend(q, k, v, splats=splats)                   # through splats, in linear cost

`clsplat.torch` has the same for PyTorch, with gradients; `clsplat.transformers` puts it into pretrained models; `clsplat.hsa` has the
names of the original system. Devices are OpenCL's: `clsplat.devices()` lists them, CLSPLAT_DEVICE picks one.
"""
from typing import TYPE_CHECKING

from ._c import VERSION as __version__
from .adaptation import Adapted, adapt, measure
from .adaptation import measure as metrics  # by the name of the command
from .attention import Attended, Gradients, attend, attend_backward
from .device import Device, default_device, devices, set_default_device
from .errors import (BuildError, CancelledError, Error, FileError, ForkedError, FormatError, InvalidError, NoDeviceError, NotFiniteError,
                     OpenCLError, OutOfMemoryError, ShapeError, UnsupportedError)
from .model import Evaluation, Model, Session
from .reports import report
from .splats import Hierarchy, Splats
from .tuning import export_tuning, import_tuning, tune

__all__ = ["Adapted", "Attended", "BuildError", "CancelledError", "Device", "Error", "Evaluation", "FileError", "ForkedError", "FormatError", "Gradients",
           "Hierarchy", "InvalidError", "Model", "NoDeviceError", "NotFiniteError", "OpenCLError", "OutOfMemoryError", "Session", "ShapeError",
           "Splats", "UnsupportedError", "__version__", "adapt", "attend", "attend_backward", "default_device", "devices", "export_tuning",
           "import_tuning", "measure", "metrics", "report", "set_default_device", "tune"]

if TYPE_CHECKING:
    from .transformers import create_transformer as create_transformer, replace_attention as replace_attention
    from .transformers import report_of as report_of, restore as restore


def __getattr__(name: str) -> object:
    """replace_attention, restore, report_of and create_transformer, which need transformers."""
    if name in ("replace_attention", "restore", "report_of", "create_transformer"):
        from . import transformers
        return getattr(transformers, name)
    raise AttributeError(f"module 'clsplat' has no attribute {name!r}")
