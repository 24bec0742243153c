"""Finds and loads the C library, and OpenCL's loader before it."""
from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from . import _c
from .errors import Error, NoDeviceError

INSTALL = ("Two packages bring a CPU device: Debian's pocl-opencl-icd (apt-get install ocl-icd-libopencl1 pocl-opencl-icd), and "
           "intel-opencl-rt with intel-cmplr-lib-rt (pip install intel-opencl-rt intel-cmplr-lib-rt); a GPU's driver brings its own.")
LOADER = "libOpenCL.so.1"
NAME = "libclsplat.so.0"

_lock = threading.Lock()
_functions: _Functions | None = None


class _Functions:
    """The functions of the library as attributes, with the types of the headers. Those that take structs that may grow go by their
    names in C (attend is clsplat_attend_sized), and x_defaults() returns a struct as there."""

    def __init__(self, library: ctypes.CDLL):
        for name, (result, parameters) in _c.FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, parameters
            short = name[len("clsplat_"):].removesuffix("_sized")
            setattr(self, short, self._filled(function, name) if short.endswith("_defaults") else function)

    @staticmethod
    def _filled(fill: Callable[[Any], None], name: str) -> Callable[[], Any]:
        struct = getattr(_c, name[:-len("_defaults_sized")])

        def defaults() -> Any:
            made = struct()
            fill(made)
            return made
        return defaults

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any: ...


def _load_opencl() -> None:
    """The loader of the system, else one that pip put into an environment: the library then takes that one."""
    for path in (LOADER, Path(sys.prefix) / "lib" / LOADER, Path.home() / ".local" / "lib" / LOADER):
        try:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return
        except OSError:
            continue
    raise NoDeviceError(f"there is no OpenCL loader ({LOADER}) on this machine. {INSTALL}")


def _places() -> list[str]:
    named = os.environ.get("CLSPLAT_LIBRARY")
    if named:
        return [named]
    wheel = Path(__file__).resolve().parent.parent / ".clsplat.mesonpy.libs"
    return [str(path) for path in sorted(wheel.glob("libclsplat*.so*"))] + [NAME]


def _load_library() -> ctypes.CDLL:
    tried = []
    for place in _places():
        try:
            return ctypes.CDLL(place)
        except OSError as error:
            tried.append(f"{place}: {error}")
    raise Error("the library does not load: " + "; ".join(tried)
                + ". Install the package again, or name the library in CLSPLAT_LIBRARY.")


def functions() -> _Functions:
    """The library, loaded on first use. Raises NoDeviceError where OpenCL's loader is not there."""
    global _functions
    if _functions is None:
        with _lock:
            if _functions is None:
                _load_opencl()
                loaded = _Functions(_load_library())
                found = loaded.version().decode()
                if found != _c.VERSION:
                    raise Error(f"the library is version {found}, this package {_c.VERSION}: CLSPLAT_LIBRARY names another one?")
                _functions = loaded
    return _functions
