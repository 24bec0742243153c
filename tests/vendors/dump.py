"""What the library builds on a device of some vendor: it runs on whatever is there, posing as that device (pose.c), and nothing is built
or run but written down. So results are nonsense, and what ends in an error has written down what it needed until then."""
import hashlib
import os
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden" / "diagonal-joint"
MODEL = HERE.parent.parent / "demos" / "bytelm-4m"
PROMPT = "Near and far " * 20


def attention(dim, dtype):
    """The options of `clsplat bench` for attention of so many columns."""
    shape, few, long = f"1,2,64,256,{dim},{dim},64", f"1,2,1,4096,{dim},{dim}", f"1,2,32,8192,{dim},{dim}"
    yield from ((op, shape) for op in ("softmax", "gaussian", "gaussian-isotropic"))
    yield from ((op, shape, "--causal") for op in ("softmax", "gaussian"))
    yield ("softmax", few)
    yield from (("near-far", s, "--causal") for s in (long, f"1,2,1,2048,{dim},{dim}"))
    if dtype == "f32":
        yield ("gaussian-full", shape)


def gradients(dim):
    shape = f"1,2,64,256,{dim},{dim},64"
    yield from ((op, shape) for op in ("gaussian-backward", "gaussian-isotropic-backward", "gaussian-full-backward"))
    yield from ((op, shape, "--causal") for op in ("softmax-backward", "gaussian-backward"))
    yield ("near-far-backward", f"1,2,256,2048,{dim},{dim}", "--causal")


def bench(dtype, op, shape, *more):
    return ["bench", "--op", op, "--shape", shape, "--dtype", dtype, "--repeat", "1", *more]


def commands(folder, long):
    """Every command of a dump; short: attention of 64 columns in F32, a matrix product, and all three on matrix units."""
    dims, dtypes = ((64, 128), ("f32", "f16", "bf16")) if long else ((64,), ("f32",))
    for dtype in dtypes:
        for dim in dims:
            for options in (*attention(dim, dtype), *(gradients(dim) if long and dtype == "f32" else ())):
                yield bench(dtype, *options)
        for shape in ("1,2,64,256,64,64", "1,1,1,512,64,64"):
            yield bench(dtype, "gemm", shape)
    if not long:
        for op, shape, *more in (("softmax", "1,2,64,256,64,64", "--causal"), ("near-far", "1,2,32,8192,64,64", "--causal"), ("gemm", "1,2,64,256,64,64")):
            yield bench("bf16", op, shape, *more)
        return
    for more in ([], ["--dtype", "f16"], ["--dtype", "bf16"], ["--temperature", "1", "--top-k", "5"],
                 ["--attention", "near-far", "--chunk", "64", "--sparse-topk", "128"],
                 ["--attention", "topk", "--sparse-topk", "64"], ["--attention", "blocks", "--sparse-topk", "64"],
                 ["--attention", "window", "--window", "128"]):
        yield ["generate", str(MODEL), "-p", PROMPT, "-n", "2", *more]
    data, splats = str(GOLDEN / "input.safetensors"), str(GOLDEN / "splats.safetensors")
    for init in ("kmeans", "spectral"):
        yield ["init", data, "-o", f"{folder}/made.safetensors", "--init", init, "--covariance", "full"]
    for more in (["--causal"], []):
        yield ["attend", data, "--splats", splats, "--mixing", "per-level", "-o", f"{folder}/out.safetensors", *more]


def dump(clsplat, layer, pose, folder, long):
    """Fills `folder`; returns how many commands there were."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, CLSPLAT_POSE=pose, CLSPLAT_POSE_DUMP=str(folder), OPENCL_LAYERS=str(layer), CLSPLAT_CACHE="off",
                       XDG_DATA_HOME=str(folder / "data"))
    count = 0
    for count, command in enumerate(commands(folder, long), 1):
        with open(folder / "log", "a") as log:
            log.write(" ".join(command) + "\n")
            log.flush()
            size = "2" if "f16" in command or "bf16" in command else "4"  # bytes of a result's element
            subprocess.run([clsplat, *command], check=False, env=environment | {"CLSPLAT_POSE_ELEMENT": size}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                           timeout=3600)
    return count


def programs(folder):
    """Every different (text, options) that was built, by a key: its source's name, and the kernels launched with the items of a group."""
    found, launches = {}, {}
    for line in (folder / "launches").read_text().split("\n")[:-1]:
        number, kernel, items = line.split()
        launches.setdefault(number, {})[kernel] = int(items)
    for options in sorted(folder.glob("*.opt")):
        text, flags = options.with_suffix(".cl").read_text(), options.read_text().split()
        name = re.match(r'#line 1 "([^"]+)"', text)
        if not name or name[1] == "peak.cl" or options.stem not in launches:
            continue
        key = hashlib.sha1((text + " ".join(flags)).encode()).hexdigest()[:12]
        program = found.setdefault(key, {"source": name[1], "text": text, "flags": flags, "kernels": {}})
        program["kernels"].update(launches[options.stem])
    return found
