"""safetensors files made by hand, so that they can be made wrong, and the problem that most checks start from."""
import json
import struct

import numpy as np

TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32, "F64": np.float64, "U8": np.uint8}
BATCH, HEADS, KV_HEADS, QUERIES, KEYS, DIM, VALUE_DIM = 2, 4, 2, 5, 7, 3, 6
SPLATS, LEVELS = 6, 3


def encode(dtype, values):
    """Numbers as the file stores them; BF16 is the upper half of an F32, rounded towards 0."""
    if dtype == "BF16":
        return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(values).astype(TYPES[dtype])


def header_of(tensors):
    header, at = {}, 0
    for name, (dtype, values) in tensors.items():
        size = encode(dtype, values).nbytes
        header[name] = {"dtype": dtype, "shape": list(np.shape(values)), "data_offsets": [at, at + size]}
        at += size
    return header


def data_of(tensors):
    return b"".join(np.ascontiguousarray(encode(dtype, values)).tobytes() for dtype, values in tensors.values())


def pack(header, data, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def file_of(tensors):
    return pack(header_of(tensors), data_of(tensors))


def load(path):
    """{name: array} of a file with F32, F16 and I32 tensors."""
    everything = path.read_bytes()
    length = struct.unpack("<Q", everything[:8])[0]
    header = json.loads(everything[8:8 + length])
    data = everything[8 + length:]
    return {name: np.frombuffer(data[e["data_offsets"][0]:e["data_offsets"][1]], TYPES[e["dtype"]]).reshape(e["shape"])
            for name, e in header.items() if name != "__metadata__"}


def problem(queries=QUERIES, keys=KEYS, seed=1):
    r = np.random.default_rng(seed)
    return {"q": ("F32", r.normal(size=(BATCH, HEADS, queries, DIM))),
            "k": ("F32", r.normal(size=(BATCH, KV_HEADS, keys, DIM))),
            "v": ("F32", r.normal(size=(BATCH, KV_HEADS, keys, VALUE_DIM))),
            "key_bias": ("F32", r.normal(size=(BATCH, KV_HEADS, keys)))}


def splats(covariance="diagonal"):
    r = np.random.default_rng(2)
    shape = {"isotropic": (HEADS, SPLATS, 1), "diagonal": (HEADS, SPLATS, DIM)}.get(covariance)
    width = ({"log_var": ("F32", r.normal(size=shape))} if shape else
             {"precision_chol": ("F32", r.normal(size=(HEADS, SPLATS, DIM, DIM)) + np.eye(DIM))})
    return {"mean": ("F32", r.normal(size=(HEADS, SPLATS, DIM))), **width,
            "log_amplitude": ("F32", r.normal(size=(HEADS, SPLATS))),
            "log_temperature": ("F32", 0.1 * r.normal(size=(HEADS, SPLATS))),
            "level": ("I32", np.arange(SPLATS) % LEVELS),
            "level_log_weight": ("F32", r.normal(size=LEVELS))}


def softmax(tensors, scale=None, causal=False):
    """(out, lse) in float64."""
    q, k, v, bias = (np.asarray(tensors[n][1], np.float64) for n in ("q", "k", "v", "key_bias"))
    group = q.shape[1] // k.shape[1]
    k, v, bias = (np.repeat(t, group, axis=1) for t in (k, v, bias))
    weights = (1 / np.sqrt(q.shape[3]) if scale is None else scale) * q @ k.swapaxes(2, 3) + bias[:, :, None]
    if causal:
        visible = np.arange(k.shape[2])[None] <= np.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2]
        weights = np.where(visible, weights, -np.inf)
    top = weights.max(axis=-1, keepdims=True)
    mass = np.exp(weights - top)
    return mass @ v / mass.sum(-1, keepdims=True), (top + np.log(mass.sum(-1, keepdims=True)))[..., 0]
