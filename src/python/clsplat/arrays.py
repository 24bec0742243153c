"""Arrays of numpy, of anything with DLPack, and of anything with a buffer, as the library's tensors; strides as they come."""
from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, Optional

import numpy

from . import _c
from .errors import InvalidError, ShapeError

F32, F16, BF16, I32 = _c.CLSPLAT_F32, _c.CLSPLAT_F16, _c.CLSPLAT_BF16, _c.CLSPLAT_I32
SIZES = {F32: 4, F16: 2, BF16: 2, I32: 4}
_NAMES = {"float32": F32, "float16": F16, "bfloat16": BF16}
_OF_DTYPE = {numpy.dtype("float32"): F32, numpy.dtype("float16"): F16}


class Array(NamedTuple):
    """Numbers in host memory. Strides count elements; `keep` holds what they belong to."""

    dtype: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    address: int
    keep: Any


def _refuse_dtype(name: str, dtype: Any) -> InvalidError:
    return InvalidError(f"{name} is of {dtype}; float32, float16 and bfloat16 are taken, and arithmetic is float32: "
                        f"{name}.astype('float32') makes it so")


def of_numpy(name: str, a: numpy.ndarray) -> Array:
    code = _OF_DTYPE.get(a.dtype)
    if code is None:
        code = _NAMES.get(a.dtype.name)  # ml_dtypes' bfloat16
        if code is None or not a.dtype.isnative:
            raise _refuse_dtype(name, a.dtype)
    if not a.flags.aligned:
        a = a.copy()
    size = a.itemsize
    return Array(code, a.shape, tuple([s // size for s in a.strides]), a.ctypes.data, a)


class _DLTensor(ctypes.Structure):
    """The head of a DLManagedTensor, of the first and of all later versions of DLPack that are asked for here."""

    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_DL_CPU, _DL_CUDA_HOST, _DL_FLOAT, _DL_BFLOAT = 1, 3, 2, 4
_OF_DLPACK = {(_DL_FLOAT, 32): F32, (_DL_FLOAT, 16): F16, (_DL_BFLOAT, 16): BF16}


def of_dlpack(name: str, x: Any) -> Array:
    capsule = x.__dlpack__()  # its destructor gives the tensor back, since nobody takes it over
    t = _DLTensor.from_address(_pointer_of(capsule, b"dltensor"))
    if t.device_type not in (_DL_CPU, _DL_CUDA_HOST):
        raise InvalidError(f"{name} is on a device (DLPack's type {t.device_type}); bring it to host memory first")
    code = _OF_DLPACK.get((t.code, t.bits)) if t.lanes == 1 else None
    if code is None:
        raise _refuse_dtype(name, getattr(x, "dtype", f"DLPack's type {t.code} of {t.bits} bits"))
    shape = tuple(t.shape[: t.ndim])
    stride = tuple(t.strides[: t.ndim]) if t.strides else _dense(shape)
    return Array(code, shape, stride, (t.data or 0) + t.byte_offset, (capsule, x))


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    stride, result = 1, []
    for length in reversed(shape):
        result.append(stride)
        stride *= length
    return tuple(reversed(result))


def describe(name: str, x: Any) -> Array:
    """What x holds, without a copy; lists of numbers become float32."""
    if isinstance(x, numpy.ndarray):
        return of_numpy(name, x)
    if isinstance(x, Array):
        return x
    if hasattr(x, "__dlpack__"):
        return of_dlpack(name, x)
    if isinstance(x, (list, tuple)):
        return of_numpy(name, numpy.asarray(x, dtype=numpy.float32))
    return of_numpy(name, numpy.asarray(x))


def _copied(a: Array) -> Array:
    """The same numbers, densely packed."""
    size = SIZES[a.dtype]
    type_ = numpy.uint16 if size == 2 else numpy.uint32
    lowest = a.address + sum(min(0, (n - 1) * s) for n, s in zip(a.shape, a.stride)) * size
    bytes_ = (sum(abs(s) * (n - 1) for n, s in zip(a.shape, a.stride)) + 1) * size
    memory = (ctypes.c_char * bytes_).from_address(lowest)
    view = numpy.ndarray(a.shape, type_, memory, a.address - lowest, [s * size for s in a.stride])
    copy = numpy.array(view, order="C")
    return Array(a.dtype, a.shape, _dense(a.shape), copy.ctypes.data, copy)


def tensor(name: str, a: Array, writes: bool = False) -> tuple[_c.clsplat_tensor, Any]:
    """A C tensor of [N,D], [H,N,D] or [B,H,N,D], and what must live while it is used. A layout that the library does not read (columns
    apart, strides that go back) is copied, or refused if the library is to write there."""
    shape, stride = a.shape, a.stride
    n = len(shape)
    if n < 2 or n > 4:
        raise ShapeError(f"{name} has {n} dimensions; [rows, columns], [heads, rows, columns] or [batch, heads, rows, columns] are taken")
    if 0 in shape:
        raise ShapeError(f"{name} has shape {list(shape)}; every dimension is at least 1")
    if (stride[-1] != 1 and shape[-1] > 1) or min(stride) < 0 or not any(stride[:-1]):
        if writes:
            raise ShapeError(f"{name} is to be written: its rows must be contiguous")
        a = _copied(a)
        stride = a.stride
    if n == 4:
        return _c.clsplat_tensor(a.dtype, shape, stride[:3], a.address), a.keep
    if n == 3:
        return _c.clsplat_tensor(a.dtype, (1, *shape), (shape[0] * stride[0], *stride[:2]), a.address), a.keep
    step = shape[0] * stride[0]
    return _c.clsplat_tensor(a.dtype, (1, 1, *shape), (step, step, stride[0]), a.address), a.keep


def per_key(name: str, x: Any, batch: int, heads: int, keys: int) -> tuple[_c.clsplat_tensor, Any]:
    """One number for every key, [M], [Hk,M] or [B,Hk,M], repeated along what is missing or 1."""
    a = describe(name, x)
    n = len(a.shape)
    shape, stride = (1,) * (3 - n) + a.shape, (0,) * (3 - n) + a.stride
    wanted = (batch, heads, keys)
    if n > 3 or any(have not in (1, want) for have, want in zip(shape, wanted)):
        raise ShapeError(f"{name} has shape {list(a.shape)}; [{keys}], [{heads}, {keys}] or [{batch}, {heads}, {keys}] would fit")
    stride = tuple([0 if have != want else s for have, want, s in zip(shape, wanted, stride)])
    a = Array(a.dtype, wanted, stride, a.address, a.keep)
    if min(stride) < 0 or not any(stride):
        a = _copied(a)
    return _c.clsplat_tensor(a.dtype, (*wanted, 1), a.stride, a.address), a.keep


def per_row(shape: tuple[int, ...], dtype: Any = numpy.float32) -> tuple[numpy.ndarray, _c.clsplat_tensor]:
    """An array for one number for every row of a tensor of `shape` (without its columns), and its C tensor."""
    result = numpy.empty(shape, dtype)
    full = (1,) * (3 - len(shape)) + shape
    code = I32 if result.dtype == numpy.int32 else F32
    return result, _c.clsplat_tensor(code, (*full, 1), (0, 0, 0), result.ctypes.data)


def like(shape: tuple[int, ...], source: Any, code: int) -> numpy.ndarray:
    """An array for a result, of the type of what it comes from; float32 where numpy has no such type."""
    if isinstance(source, numpy.ndarray):
        return numpy.empty(shape, source.dtype)
    return numpy.empty(shape, numpy.float16 if code == F16 else numpy.float32)


def optional(name: str, out: Optional[Any], shape: tuple[int, ...]) -> Optional[Array]:
    """A result's place that the caller brought, checked."""
    if out is None:
        return None
    a = describe(name, out)
    if a.shape != shape:
        raise ShapeError(f"{name} has shape {list(a.shape)}; the result's is {list(shape)}")
    if isinstance(out, numpy.ndarray) and not out.flags.writeable:
        raise InvalidError(f"{name} is read-only")
    return a
