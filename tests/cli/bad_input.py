"""What `clsplat attend` must refuse."""
import json
import os
import resource

import numpy as np

from tensors import (BATCH, DIM, HEADS, KEYS, KV_HEADS, LEVELS, QUERIES, SPLATS, VALUE_DIM, data_of, file_of, header_of,
                     pack, problem, splats)


def attend(bench, name, content, words, extra=()):
    """A wrong INPUT, once for a new output and once for one that is there already."""
    path = bench.write("bad.safetensors", content)
    for output in ("new.safetensors", "old.safetensors"):
        bench.refused(f"{name} -> {output}", [path, "-o", bench.path(output), *extra], ["bad.safetensors", *words])


def with_splats(bench, name, content, words):
    path = bench.write("bad_splats.safetensors", content)
    arguments = [bench.path("good.safetensors"), "-o", bench.path("new.safetensors"), "--splats", path]
    bench.refused(f"splats: {name}", arguments, ["bad_splats.safetensors", *words])


def truncated(bench):
    whole, header = file_of(problem()), len(json.dumps(header_of(problem())))
    for size in sorted({0, 1, 7, 8, 9, header // 2, header + 7, header + 8, header + 9, len(whole) // 2, len(whole) - 1}):
        attend(bench, f"truncated to {size} bytes", whole[:size], [])
    for size in (0, 5, 40, len(file_of(splats())) - 1):
        with_splats(bench, f"truncated to {size} bytes", file_of(splats())[:size], [])


def headers(bench):
    header, data = header_of(problem()), data_of(problem())
    whole = len(pack(header, data))
    for length in (0, 1, whole - 7, whole, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        attend(bench, f"header of {length} bytes", pack(header, data, length=length), [])
    text = json.dumps(header).encode()
    for name, bad in {
            "empty": b"", "blank": b"   ", "not JSON": b"q" * 64, "cut": text[:-1], "a comma too many": text[:-1] + b",}",
            "an array": b"[1,2,3]", "a string": b'"q"', "a number": b"7", "null": b"null", "not UTF-8": b'{"\xff\xfe":1}',
            "a NUL": b'{"q\0":1}', "two values": text + b"{}", "an escape cut": b'{"\\u12', "an entry that is a number": b'{"q":7}',
            "an entry that is empty": b'{"q":{}}', "metadata that is a list": b'{"__metadata__":[1],' + text[1:],
            "arrays without end": b"[" * 100_000, "deep arrays": b"[" * 100_000 + b"]" * 100_000,
            "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "deep in an entry": b'{"q":{"shape":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
            "q twice": text[:-1] + b',"q":' + json.dumps(header["k"]).encode() + b"}"}.items():
        attend(bench, f"header is {name}", pack(bad, data), [])


def entries(bench):
    """One entry changed at a time; the message names the tensor."""
    data = data_of(problem())
    end = len(data)
    size = 4 * BATCH * HEADS * QUERIES * DIM
    offsets = {"overlap": [4, size + 4], "leave the file": [end - size + 4, end + 4], "far away": [1 << 40, (1 << 40) + size],
               "reversed": [size, 0], "negative": [-size, 0], "fractions": [0.5, size + 0.5], "strings": ["0", str(size)],
               "huge": [(1 << 64) - size, 1 << 64], "wrap": [(1 << 63), (1 << 63) + size], "one": [0], "three": [0, 1, size],
               "none": [], "null": None, "short": [0, size - 4], "long": [0, size + 4], "odd": [0, size - 1], "empty": [0, 0]}
    shapes = {"negative": [BATCH, -HEADS, -QUERIES, DIM], "zero": [BATCH, HEADS, 0, DIM], "fractions": [BATCH, HEADS, 5.5, DIM],
              "strings": ["2", HEADS, QUERIES, DIM], "null": None, "a number": 120, "nested": [[BATCH, HEADS], [QUERIES, DIM]],
              "overflow": [1 << 32, 1 << 32, 1, 1], "overflow to 0": [1 << 62, 4, 1, 1], "overflow to fit": [(1 << 62) + 30, 4, 1, 1],
              "huge": [1 << 63, 1, 1, 1], "beyond 64 bits": [1 << 64, 1, 1, 1], "30 digits": [10 ** 30, 1, 1, 1],
              "a hundred dimensions": [1] * 100 + [BATCH * HEADS * QUERIES * DIM], "too large": [BATCH, HEADS, QUERIES + 1, DIM],
              "too small": [BATCH, HEADS, QUERIES - 1, DIM], "true": [True, HEADS, QUERIES, DIM]}
    types = {"unknown": "F99", "a number": 32, "null": None, "empty": "", "long": "F" * 1000, "wider": "F64", "narrower": "F16",
             "integers": "I32"}
    for key, table in {"data_offsets": offsets, "shape": shapes, "dtype": types}.items():
        for name, value in table.items():
            header = header_of(problem())
            header["q"][key] = value
            beyond_json = name in ("huge", "wrap", "beyond 64 bits", "30 digits")  # the parser stops at such a number
            attend(bench, f"{key} of q: {name}", pack(header, data), ["integer" if beyond_json else "'q'"])
        header = header_of(problem())
        del header["q"][key]
        attend(bench, f"{key} of q: missing", pack(header, data), ["'q'"])


def shapes(bench):
    changed = {"q": [(BATCH, HEADS, DIM), (1, BATCH, HEADS, QUERIES, DIM), (BATCH, HEADS, QUERIES, DIM + 1),
                     (BATCH + 1, HEADS, QUERIES, DIM), (BATCH, HEADS - 1, QUERIES, DIM), (BATCH, HEADS, 0, DIM), (7,), ()],
               "k": [(BATCH, KV_HEADS, KEYS), (BATCH, KV_HEADS, KEYS + 1, DIM), (BATCH, KV_HEADS, KEYS, DIM + 1),
                     (BATCH - 1, KV_HEADS, KEYS, DIM), (BATCH, 3, KEYS, DIM), (BATCH, 2 * HEADS, KEYS, DIM)],
               "v": [(BATCH, KV_HEADS, KEYS), (BATCH, KV_HEADS, KEYS - 1, VALUE_DIM), (BATCH, KV_HEADS + 1, KEYS, VALUE_DIM),
                     (1, KV_HEADS, KEYS, VALUE_DIM)],
               "key_bias": [(BATCH, KV_HEADS, KEYS, 1), (BATCH, HEADS, KEYS), (BATCH, KV_HEADS, KEYS + 1), (KEYS,), (1, KV_HEADS, KEYS)]}
    for name, wrong in changed.items():
        for shape in wrong:
            attend(bench, f"{name} of shape {shape}", file_of(problem() | {name: ("F32", np.ones(shape))}), [name])
        for dtype in ("I32", "F64", "U8"):
            attend(bench, f"{name} of type {dtype}", file_of(problem() | {name: (dtype, np.ones(problem()[name][1].shape))}), [name, dtype])
    for name in ("q", "k", "v"):
        tensors = problem()
        del tensors[name]
        attend(bench, f"no {name}", file_of(tensors), [f"'{name}'"])
    attend(bench, "no tensor at all", file_of({}), ["q"])


def numbers(bench):
    for dtype in ("F32", "F16", "BF16"):
        for name in ("q", "k", "v", "key_bias"):
            for value in (np.nan, np.inf, -np.inf):
                if name == "key_bias" and value == -np.inf:
                    continue
                values = problem()[name][1].copy()
                place = (1, 1, *(s - 1 for s in values.shape[2:]))
                values[place] = value
                attend(bench, f"{value} in {name} of {dtype}", file_of(problem() | {name: (dtype, values)}),
                       [f"tensor '{name}'", "[" + ", ".join(map(str, place)) + "]"])


def splat_files(bench):
    whole = splats()
    for name in whole:
        with_splats(bench, f"no {name}", file_of({n: t for n, t in whole.items() if n != name}), [name])
        wrong = "F32" if name == "level" else "F16"
        with_splats(bench, f"{name} of type {wrong}", file_of(whole | {name: (wrong, whole[name][1])}), [name])
        values = np.asarray(whole[name][1])
        with_splats(bench, f"{name} with a dimension more", file_of(whole | {name: (whole[name][0], values[None])}), [name])
        if name != "level_log_weight":  # that would be one more level, without splats
            with_splats(bench, f"{name} with one entry too many",
                        file_of(whole | {name: (whole[name][0], np.concatenate([values, values[:1]]))}), [])
        for bad in (np.nan, np.inf, -np.inf):
            if name != "level":
                changed = values.copy()
                changed[(-1,) * values.ndim] = bad
                with_splats(bench, f"{bad} in {name}", file_of(whole | {name: ("F32", changed)}), [name])
    for level in (-1, LEVELS, 1 << 30, -(1 << 31)):
        levels = np.arange(SPLATS) % LEVELS
        levels[3] = level
        with_splats(bench, f"level {level}", file_of(whole | {"level": ("I32", levels)}), ["level"])
    full = splats("full")
    with_splats(bench, "log_var and precision_chol", file_of(whole | {"precision_chol": full["precision_chol"]}), ["precision_chol"])
    with_splats(bench, "precision_chol not square", file_of(full | {"precision_chol": ("F32", np.ones((HEADS, SPLATS, DIM, DIM + 1)))}),
                ["precision_chol"])
    with_splats(bench, "log_var of two columns", file_of(whole | {"log_var": ("F32", np.ones((HEADS, SPLATS, 2)))}), ["log_var"])
    wide = {n: (d, np.concatenate([v, v], axis=2) if n in ("mean", "log_var") else v) for n, (d, v) in whole.items()}
    with_splats(bench, "D that is not q's", file_of(wide), ["mean"])
    heads = {n: (d, v[:3] if np.ndim(v) > 1 else v) for n, (d, v) in whole.items()}
    with_splats(bench, "heads that are not q's", file_of(heads), ["mean", "heads"])


def files(bench):
    good, new = bench.path("good.safetensors"), bench.path("new.safetensors")
    folder = bench.path("folder")
    folder.mkdir()
    os.mkfifo(bench.path("pipe"))
    for name in ("missing.safetensors", "folder", "pipe", "folder/missing.safetensors", "good.safetensors/x"):
        bench.refused(f"input {name}", [bench.path(name), "-o", new], [name])
        bench.refused(f"splats {name}", [good, "-o", new, "--splats", bench.path(name)], [name])
    for name in ("/dev/zero", "/dev/null", "/proc/self/mem", ""):
        bench.refused(f"input {name}", [name, "-o", new], [name])
    for output in (folder, bench.path("missing/out.safetensors"), good / "x", "/dev/null", "/dev/full", "/proc/out.safetensors",
                   bench.path("pipe"), bench.path("n" * 300), "/"):
        bench.refused(f"output {output}", [good, "-o", output], [output])
    if os.geteuid() == 0:
        bench.skip("files without permission", "root may read and write everything")
        return
    hidden, closed = bench.write("hidden.safetensors", good.read_bytes()), bench.path("closed")
    closed.mkdir()
    hidden.chmod(0)
    closed.chmod(0o555)
    bench.refused("input without permission", [hidden, "-o", new], [hidden])
    bench.refused("folder without permission", [good, "-o", closed / "out.safetensors"], [closed])
    hidden.chmod(0o600)
    closed.chmod(0o755)


def flags(bench):
    good, new = bench.path("good.safetensors"), bench.path("new.safetensors")
    given = bench.path("splats.safetensors")
    whole = [good, "-o", new]
    for name, arguments, words in [
            ("nothing", [], ["INPUT"]), ("no input", ["-o", new], ["INPUT"]), ("no output", [good], ["-o"]),
            ("-o at the end", [good, "-o"], ["-o"]), ("-o empty", [good, "-o", ""], ["-o"]), ("two inputs", [*whole, good], [good]),
            ("empty input", ["", "-o", new], ["empty"]), ("unknown long", [*whole, "--bogus"], ["--bogus"]),
            ("unknown short", [*whole, "-x"], ["-x"]), ("cut", [*whole, "--caus"], ["--caus"]), ("value for a switch", [*whole, "--causal=yes"], ["--causal"]),
            ("--scale at the end", [*whole, "--scale"], ["--scale"]), ("--splats at the end", [*whole, "--splats"], ["--splats"]),
            ("--method at the end", [*whole, "--method"], ["--method"]), ("--mixing at the end", [*whole, "--mixing"], ["--mixing"]),
            ("--device at the end", [*whole, "--device"], ["--device"]), ("unknown method", [*whole, "--method", "linear"], ["--method", "linear"]),
            ("empty method", [*whole, "--method", ""], ["--method"]), ("gaussian without splats", [*whole, "--method", "gaussian"], ["--splats"]),
            ("softmax with splats", [*whole, "--method", "softmax", "--splats", given], ["--splats"]),
            ("softmax with mixing", [*whole, "--mixing", "joint"], ["--mixing"]),
            ("unknown mixing", [*whole, "--splats", given, "--mixing", "both"], ["--mixing", "both"]),
            ("gaussian with scale", [*whole, "--splats", given, "--scale", "1"], ["--scale"]),
            ("softmax with tolerance", [*whole, "--tolerance", "0.1"], ["--tolerance", "near-far"]),
            ("softmax with sparse-topk", [*whole, "--sparse-topk", "100"], ["--sparse-topk", "near-far"]),
            ("gaussian with chunk", [*whole, "--splats", given, "--chunk", "64"], ["--chunk", "near-far"]),
            ("near-far with splats", [*whole, "--method", "near-far", "--splats", given], ["--splats"]),
            ("near-far with mixing", [*whole, "--method", "near-far", "--mixing", "joint"], ["--mixing"]),
            ("tolerance below 0", [*whole, "--method", "near-far", "--tolerance", "-1"], ["--tolerance"]),
            ("tolerance not a number", [*whole, "--method", "near-far", "--tolerance", "nan"], ["--tolerance"]),
            ("chunk of 48", [*whole, "--method", "near-far", "--chunk", "48"], ["--chunk", "power of two"]),
            ("chunk of 8", [*whole, "--method", "near-far", "--chunk", "8"], ["--chunk", "16"]),
            ("chunk too large", [*whole, "--method", "near-far", "--chunk", "8192"], ["--chunk", "4096"]),
            ("a variant that is not there", [*whole, "--variant", "fast"], ["--variant", "plain"]),
            ("sparse-topk too small", [*whole, "--method", "near-far", "--sparse-topk", "9"], ["--sparse-topk", "16"]),
            ("chunk above sparse-topk", [*whole, "--method", "near-far", "--sparse-topk", "100", "--chunk", "128"], ["--chunk", "--sparse-topk"])]:
        bench.refused(f"flags: {name}", arguments, words, statuses=[2])
    for value in ("nan", "inf", "-inf", "infinity", "abc", "", " ", "1x", "1 2", "1e999", "1e39", "0x", "--causal"):
        bench.refused(f"flags: --scale {value!r}", [*whole, "--scale", value], ["--scale"], statuses=[2])
    bench.refused("flags: --grad without dout", [*whole, "--grad"], ["dout"], statuses=[1])
    bench.refused("flags: --grad of near-far without dout", [*whole, "--grad", "--method", "near-far"], ["dout"], statuses=[1])
    for device in ("no such device", "99", "accelerator", "-1"):
        bench.refused(f"flags: --device {device}", [*whole, "--device", device], [device], statuses=[1])


def sizes(bench):
    """Files that claim far more than the machine has."""
    def sparse(name, header, size):
        path = bench.write(name, pack(header, b""))
        os.truncate(path, path.stat().st_size + size)
        return path

    tera = 1 << 40
    entry = {"dtype": "F32", "shape": [1, 1, tera // 256, 64], "data_offsets": [0, tera]}
    new = bench.path("new.safetensors")
    path = sparse("sparse.safetensors", {"q": entry}, tera)
    bench.refused("a terabyte of q and nothing else", [path, "-o", new], [path, "'k'"])
    wide = {"q": entry, "k": entry | {"data_offsets": [tera, 2 * tera]}, "v": entry | {"data_offsets": [2 * tera, 3 * tera]}}
    path = sparse("sparse.safetensors", wide, tera)
    bench.refused("three terabytes in one", [path, "-o", new], [path])
    path = sparse("sparse.safetensors", wide, 3 * tera)
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    bench.refused("three terabytes with 8 GiB of memory", [path, "-o", new], [path, "memory"], preexec_fn=limit)
    path.unlink()


def run(bench):
    bench.write("good.safetensors", file_of(problem()))
    bench.write("splats.safetensors", file_of(splats()))
    bench.write("old.safetensors", b"not to be touched")
    for part in (truncated, headers, entries, shapes, numbers, splat_files, files, flags, sizes):
        part(bench)
