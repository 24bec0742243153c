"""What golden/check.py needs of the safetensors package, which Debian does not have: reading a file into numpy arrays."""
import json
import math
import struct

import numpy as np

TYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "BF16": np.uint16}


class SafetensorError(Exception):
    """The file is not a safetensors file."""


class Slice:
    def __init__(self, entry):
        self.entry = entry

    def get_dtype(self):
        return self.entry["dtype"]


class safe_open:
    """with safe_open(path, "np") as f: f.keys(), f.get_slice(name).get_dtype(), f.get_tensor(name)"""

    def __init__(self, path, framework):
        assert framework == "np"
        self.path = path

    def __enter__(self):
        with open(self.path, "rb") as file:
            everything = file.read()
        try:
            length = struct.unpack("<Q", everything[:8])[0]
            self.entries = json.loads(everything[8:8 + length])
        except (struct.error, ValueError) as e:
            raise SafetensorError(f"{self.path}: {e}") from e
        self.entries.pop("__metadata__", None)
        self.data = everything[8 + length:]
        return self

    def __exit__(self, *error):
        return False

    def keys(self):
        return list(self.entries)

    def get_slice(self, name):
        return Slice(self.entries[name])

    def get_tensor(self, name):
        entry = self.entries[name]
        begin, end = entry["data_offsets"]
        kind = np.dtype(TYPES[entry["dtype"]])
        if end > len(self.data) or end - begin != math.prod(entry["shape"]) * kind.itemsize:
            raise SafetensorError(f"{self.path}: {name} does not fit its offsets")
        return np.frombuffer(self.data[begin:end], kind).reshape(entry["shape"])
