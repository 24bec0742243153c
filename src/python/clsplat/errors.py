"""What goes wrong, as exceptions that carry the library's words."""
from __future__ import annotations

import os
from typing import Any


class Error(Exception):
    """Any failure of the library. `status` is its name in the C API, e.g. "SHAPE"; "" if the binding itself refused."""

    status: str = ""


class InvalidError(Error, ValueError):
    """An argument is outside its documented range."""

    status = "INVALID"


def c_string(words: Any) -> bytes:
    """A name or a path as C reads it. C would read one with a NUL up to there, and find another file."""
    raw = os.fsencode(words)
    if b"\0" in raw:
        raise InvalidError(f"{words!r} has a NUL in it")
    return raw


class ShapeError(Error, ValueError):
    """Shapes or types do not fit each other."""

    status = "SHAPE"


class FormatError(Error, ValueError):
    """A file is damaged or holds something else."""

    status = "FORMAT"


class FileError(Error, OSError):
    """A file cannot be read or written."""

    status = "IO"


class NoDeviceError(Error, RuntimeError):
    """No OpenCL device fits the request."""

    status = "NO_DEVICE"


class UnsupportedError(Error, NotImplementedError):
    """This device or this build cannot do it."""

    status = "UNSUPPORTED"


class OutOfMemoryError(Error, MemoryError):
    """Host or device memory is exhausted."""

    status = "MEMORY"


class BuildError(Error, RuntimeError):
    """A kernel does not compile on this device."""

    status = "BUILD"


class OpenCLError(Error, RuntimeError):
    """An OpenCL call failed."""

    status = "OPENCL"


class CancelledError(Error):
    """The progress callback returned False."""

    status = "CANCELLED"


class NotFiniteError(Error, ArithmeticError):
    """A result is not a finite number."""

    status = "NOT_FINITE"


class ForkedError(Error, RuntimeError):
    """A device of the parent was used in a forked child, where OpenCL's threads do not exist."""


OF_STATUS = {c.status: c for c in (InvalidError, ShapeError, FormatError, FileError, NoDeviceError, UnsupportedError,
                                   OutOfMemoryError, BuildError, OpenCLError, CancelledError, NotFiniteError)}
