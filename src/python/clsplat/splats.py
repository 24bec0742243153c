"""Sets of Gaussian splats: made from data, loaded, saved, read and changed in place."""
from __future__ import annotations

import ctypes
import os
from typing import Any, Mapping, Optional, Sequence, Union

import numpy

from . import _c, arrays
from .device import Device, Progress, default_device
from .errors import InvalidError, c_string

_COVARIANCES = {"isotropic": _c.CLSPLAT_ISOTROPIC, "diagonal": _c.CLSPLAT_DIAGONAL, "full": _c.CLSPLAT_FULL}
_INITS = {"random": _c.CLSPLAT_INIT_RANDOM, "kmeans": _c.CLSPLAT_INIT_KMEANS, "pca": _c.CLSPLAT_INIT_PCA,
          "spectral": _c.CLSPLAT_INIT_SPECTRAL, "token-aware": _c.CLSPLAT_INIT_TOKEN_AWARE}
_MATCHES = {"tokens": _c.CLSPLAT_MATCH_TOKENS, "softmax": _c.CLSPLAT_MATCH_SOFTMAX}
TRAINED = ("mean", "log_var", "precision_chol", "log_amplitude", "log_temperature", "level_log_weight")


def choice(what: str, name: str, table: Mapping[str, int]) -> int:
    """The constant of a name."""
    try:
        return table[name.replace("_", "-")]
    except KeyError:
        raise InvalidError(f"there is no {what} {name!r}; {', '.join(table)}") from None


class Hierarchy:
    """Levels of a set, finest first: their names, numbers of splats and weights, as the original's dictionary has them."""

    def __init__(self, names: Sequence[str], counts: Sequence[int], weights: Optional[Sequence[float]] = None) -> None:
        weights = [1.0] * len(names) if weights is None else [float(w) for w in weights]
        if not names or not len(names) == len(counts) == len(weights):
            raise InvalidError(f"hierarchy: {len(names)} levels, {len(counts)} init_splats_per_level and {len(weights)} level_weights; "
                               "there must be as many of each, and one at least")
        if any(c < 1 for c in counts) or any(not w > 0 for w in weights):
            raise InvalidError("hierarchy: init_splats_per_level and level_weights must be positive")
        self.names, self.counts = [str(n) for n in names], [int(c) for c in counts]
        self.weights = [w / sum(weights) for w in weights]

    @classmethod
    def of(cls, config: Union[None, Hierarchy, Mapping[str, Any]]) -> Optional[Hierarchy]:
        """From a dictionary with `levels`, `init_splats_per_level` and `level_weights`, at the top or under "hierarchy"."""
        if config is None or isinstance(config, Hierarchy):
            return config
        config = config.get("hierarchy", config)
        missing = [key for key in ("levels", "init_splats_per_level") if key not in config]
        if missing:
            raise InvalidError(f"hierarchy: there is no {' and no '.join(missing)}")
        return cls(config["levels"], config["init_splats_per_level"], config.get("level_weights"))

    def _struct(self) -> tuple[_c.clsplat_hierarchy, Any]:
        n = len(self.names)
        names = (ctypes.c_char_p * n)(*[c_string(name.encode()) for name in self.names])
        counts, weights = (ctypes.c_size_t * n)(*self.counts), (ctypes.c_double * n)(*self.weights)
        pointers = [ctypes.cast(p, ctypes.c_void_p).value for p in (names, counts, weights)]
        return _c.clsplat_hierarchy(n, *pointers), (names, counts, weights)


class Splats:
    """A set of splats on the host, of one device's library; `device` uploads it on use.

    `Splats(heads=1, count=256, dim=64)` has all parameters 0; `Splats.init` makes one from data; `Splats.load` reads a file.
    `parameters` are numpy arrays onto the set's own memory: after writing to them, `changed()` checks them.
    """

    def __init__(self, *, heads: int = 1, count: int, dim: int, covariance: str = "diagonal", levels: int = 1,
                 device: Optional[Device] = None) -> None:
        shape = _c.clsplat_splats_shape(choice("covariance", covariance, _COVARIANCES), heads, count, dim, levels)
        self._begin(device)
        self.device._run(self.device._c.splats_create, self.device._lib.pointer, shape, ctypes.byref(self._pointer))

    def _begin(self, device: Optional[Device]) -> None:
        self.device, self._pointer = device or default_device(), ctypes.c_void_p()
        self._finalizer = self.device._children.add(self, self.device._c.splats_destroy, self._pointer)

    @classmethod
    def init(cls, q: Any, k: Any, *, method: str = "kmeans", covariance: str = "diagonal", hierarchy: Any = None, shared: bool = False,
             seed: int = 0, lloyd_steps: int = 10, match: str = "tokens", sample: int = 65536, variance_scale: float = 1.0,
             device: Optional[Device] = None, progress: Progress = None) -> Splats:
        """From the tokens of q [B,H,N,D] (or None) and k [B,Hk,M,D].

        method     "random", "kmeans", "pca", "spectral" or "token-aware"
        hierarchy  a Hierarchy, or a dictionary with levels, init_splats_per_level and level_weights; without it the library's four
        shared     one set for all heads
        match      "softmax" for pretrained layers, else "tokens"
        """
        self = cls.__new__(cls)
        self._begin(device)
        c, levels = self.device._c, Hierarchy.of(hierarchy)
        how = c.init_defaults()
        how.method, how.covariance = choice("method", method, _INITS), choice("covariance", covariance, _COVARIANCES)
        how.match, how.shared, how.seed, how.lloyd_steps = choice("match", match, _MATCHES), shared, seed, lloyd_steps
        how.sample, how.variance_scale = sample, variance_scale
        self.device._watched(how)
        keep: list = []
        if levels is not None:
            struct, parts = levels._struct()
            keep += [struct, parts]
            how.hierarchy = ctypes.addressof(struct)
        tensors = []
        for name, x in (("q", q), ("k", k)):
            t, kept = (_c.clsplat_tensor(), None) if x is None else arrays.tensor(name, arrays.describe(name, x))
            tensors.append(t)
            keep.append(kept)
        self.device._run(c.splats_init, self.device._handle, how, *tensors, ctypes.byref(self._pointer), progress=progress)
        del keep
        return self

    @classmethod
    def load(cls, path: Union[str, os.PathLike], device: Optional[Device] = None) -> Splats:
        """From a safetensors file."""
        self = cls.__new__(cls)
        self._begin(device)
        self.device._run(self.device._c.splats_load, self.device._lib.pointer, c_string(path), ctypes.byref(self._pointer))
        return self

    def save(self, path: Union[str, os.PathLike]) -> None:
        """As a safetensors file, which is replaced in one step."""
        self.device._run(self.device._c.splats_save, self._on(self.device), c_string(path))

    def _on(self, device: Device) -> int:
        """The C pointer, for a call on `device`."""
        if device is not self.device:
            raise InvalidError("these splats belong to another Device: save and load them there, or attend with device=splats.device")
        if not self._pointer:
            raise InvalidError("these splats are closed")
        return self._pointer.value

    def _get(self) -> _c.clsplat_splats_parameters:
        self.device._run(lambda: 0)
        parameters = _c.clsplat_splats_parameters()
        self.device._c.splats_get(self._on(self.device), parameters)
        return parameters

    def _shapes(self, p: _c.clsplat_splats_parameters) -> dict[str, tuple[int, ...]]:
        h, n, d = p.shape.heads, p.shape.count, p.shape.dim
        columns = 1 if p.shape.covariance == _c.CLSPLAT_ISOTROPIC else d
        return {"mean": (h, n, d), "log_var": (h, n, columns), "precision_chol": (h, n, d, d), "log_amplitude": (h, n),
                "log_temperature": (h, n), "level": (n,), "level_log_weight": (p.shape.levels,)}

    @property
    def parameters(self) -> dict[str, numpy.ndarray]:
        """mean [Hs,S,D], log_var [Hs,S,1 or D] or precision_chol [Hs,S,D,D], log_amplitude and log_temperature [Hs,S], level [S],
        level_log_weight [L]: the set's own memory, valid as long as it is."""
        p, result = self._get(), {}
        for name, shape in self._shapes(p).items():
            address = getattr(p, name)
            if address:
                type_ = ctypes.c_int32 if name == "level" else ctypes.c_float
                memory = (type_ * int(numpy.prod(shape))).from_address(address)
                memory._owner = self  # the set lives as long as the array
                result[name] = numpy.frombuffer(memory, numpy.dtype(type_)).reshape(shape)
        return result

    def changed(self) -> None:
        """To be called after writing to `parameters`; raises InvalidError, naming the first place that is not finite or out of range."""
        self.device._run(self.device._c.splats_changed, self._on(self.device))

    def _gradient(self, struct: _c.clsplat_splats_gradient) -> dict[str, numpy.ndarray]:
        """Arrays for the gradients, put into the C structure."""
        p, result = self._get(), {}
        for name, shape in self._shapes(p).items():
            if name in TRAINED and getattr(p, name):
                result[name] = numpy.zeros(shape, numpy.float32)
                setattr(struct, name, result[name].ctypes.data)
        return result

    @property
    def level_names(self) -> list[str]:
        p = self._get()
        names = (ctypes.c_char_p * p.shape.levels).from_address(p.level_names)
        return [name.decode(errors="replace") for name in names]

    def name_level(self, level: int, name: str) -> None:
        self.device._run(self.device._c.splats_set_level_name, self._on(self.device), level, c_string(name.encode()))

    @property
    def covariance(self) -> str:
        return {code: name for name, code in _COVARIANCES.items()}[self._get().shape.covariance]

    def __len__(self) -> int:
        """Splats of a head."""
        return self._get().shape.count

    def close(self) -> None:
        self.device._end(self._finalizer)

    def __enter__(self) -> Splats:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self._pointer:
            return "<clsplat.Splats, closed>"
        s = self._get().shape
        return f"<clsplat.Splats {self.covariance}, {s.heads} heads of {s.count} splats in {s.levels} levels, {s.dim} dimensions>"
