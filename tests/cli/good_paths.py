"""What the command must do."""
import json
import os
import resource
import signal
import subprocess
import time

import numpy as np

from tensors import DIM, KV_HEADS, file_of, load, problem, softmax, splats

COMMANDS = {"attend": ["--splats", "--method", "--mixing", "--causal", "--scale", "--grad", "--variant", "--output", "--tolerance", "--sparse-topk", "--chunk"],
            "init": ["--init", "--covariance", "--config", "--shared", "--seed", "--steps", "--sample", "--variance-scale", "--match", "--splats", "--preset"],
            "adapt": ["--causal", "--history", "--cycles", "--trades", "--steps", "--least", "--most", "--sample", "--seed"],
            "presets": ["--tokens", "--heads"], "metrics": ["--causal", "--top", "--sample", "--pairs"],
            "bench": ["--op", "--shape", "--dtype", "--causal", "--variant", "--repeat"], "compare": [], "convert": ["--output", "--type"], "devices": ["--report"], "selftest": [],
            "distill": ["--attention", "--layers", "--splats", "--chunk", "--learn", "--heads", "--measure", "--resume", "--budget"],
            "generate": ["--prompt", "--file", "--tokens", "--temperature", "--top-k", "--top-p", "--seed", "--attention", "--window", "--context", "--dtype"],
            "chat": ["--system", "--template", "--tokens", "--temperature", "--seed", "--attention", "--tolerance", "--sparse-topk"],
            "eval": ["--needles", "--tokens", "--logits", "--attention", "--window", "--context"],
            "tune": ["--op", "--shape", "--dtype", "--budget", "--show", "--export", "--import"]}


def distance(a, reference):
    return float(np.linalg.norm(a - reference) / np.linalg.norm(reference))


def usage(bench):
    for command, options in COMMANDS.items():
        text = bench.works(f"{command} --help", command, "--help")
        for option in [*options, "--json", "--verbose", "--help"]:
            bench.check(f"{command} --help tells of {option}", option in (text or ""), "it does not")
    bench.check("--help", all(c in (bench.works("clsplat --help", "--help") or "") for c in COMMANDS), "a subcommand is missing")
    bench.check("--version", (bench.works("clsplat --version", "--version") or "").startswith("clsplat "), "no version")
    for name, arguments, word in [("no subcommand", [], "attend"), ("unknown subcommand", ["frobnicate"], "frobnicate"),
                                  ("misspelt subcommand", ["atend"], "did you mean `attend`"), ("unknown option", ["--bogus"], "--bogus")]:
        status, out, err = bench.run(*arguments)
        bench.check(name, status == 2 and word in err and not out, f"exit status {status}: {err}")


def devices(bench):
    listed = json.loads(bench.works("devices --json", "devices", "--json") or "[]")
    bench.check("devices --json", listed and sum(d["default"] for d in listed) == 1, "not one default device")
    for device in listed:
        bench.check(f"limits of {device['name']}", device["limits"]["global_memory"] >= device["limits"]["max_allocation"] > 0
                    and device["limits"]["max_work_group"] > 0, str(device["limits"]))
    text = bench.works("devices", "devices") or ""
    bench.check("devices", all(d["name"] in text for d in listed) and text.count("*") >= 1, text)
    bench.works("devices --verbose", "devices", "--verbose")
    last = str(len(listed) - 1)
    chosen = json.loads(bench.works("devices --device", "devices", "--json", "--device", last) or "[]")
    bench.check("devices --device", [d["default"] for d in chosen] == [d == listed[-1] or d["index"] == int(last) for d in listed], str(chosen))
    bench.refused("devices with an argument", ["x"], ["x"], statuses=[2], command="devices")
    bench.refused("devices --device", ["--device", "no such device"], ["no such device"], statuses=[1], command="devices")
    empty = bench.path("vendors")
    empty.mkdir()
    bench.refused("no platform", [], ["OpenCL"], statuses=[1], command="devices",
                  env={**os.environ, "OCL_ICD_VENDORS": str(empty), "OPENCL_VENDOR_PATH": str(empty)})


def exact(bench):
    path, out = bench.path("good.safetensors"), bench.path("result.safetensors")
    for name, flags, reference in [("softmax", [], softmax(problem())), ("causal", ["--causal"], softmax(problem(), causal=True)),
                                   ("scale", ["--scale", "-2.5e-1"], softmax(problem(), scale=-0.25)),
                                   ("scale 0", ["--method=softmax", "--scale=0"], softmax(problem(), scale=0))]:
        text = bench.works(f"attend: {name}", "attend", path, "-o", out, *flags)
        result = load(out) if text is not None else {"out": np.zeros(1), "lse": np.zeros(1)}
        bench.check(f"attend: {name}: silent", text == "", text)
        bench.check(f"attend: {name}: tensors", sorted(result) == ["lse", "out"], str(sorted(result)))
        for tensor, expected in zip(("out", "lse"), reference):
            good = result[tensor].shape == expected.shape and result[tensor].dtype == np.float32
            bench.check(f"attend: {name}: {tensor}", good and distance(result[tensor], expected) < 1e-5, "wrong")
    for name, arguments in {"options first": ["-o", out, "--causal", path], "options last": [path, "--causal", "-o", out],
                            "-oOUT": [path, f"-o{out}", "--causal"], "--output=OUT": ["--causal", f"--output={out}", "--", path]}.items():
        out.unlink(missing_ok=True)
        if bench.works(f"attend: {name}", "attend", *arguments) is not None:
            bench.check(f"attend: {name}: result", distance(load(out)["out"], softmax(problem(), causal=True)[0]) < 1e-5, "wrong")
    half = bench.write("half.safetensors", file_of({n: (d, t[1]) for (n, t), d in zip(problem().items(), ("F16", "BF16", "F32", "F16"))}))
    if bench.works("attend: mixed types", "attend", half, "-o", out) is not None:
        bench.check("attend: mixed types: result", distance(load(out)["out"], softmax(problem())[0]) < 1e-2, "wrong")
    far = ["--method", "near-far", "--causal", "--chunk", "16"]
    if bench.works("attend: near-far", "attend", path, "-o", out, *far, "--tolerance", "0") is not None:
        result = load(out)
        bench.check("attend: near-far: tensors", sorted(result) == ["error_estimate", "exact_keys", "lse", "out"]
                    and result["exact_keys"].dtype == np.int32 and result["exact_keys"].shape == result["lse"].shape
                    and result["error_estimate"].shape == result["lse"].shape, str({n: t.dtype for n, t in result.items()}))
        bench.check("attend: near-far: result", distance(result["out"], softmax(problem(), causal=True)[0]) < 1e-5, "wrong")
    report = json.loads(bench.works("attend: near-far --json", "attend", path, "-o", out, *far, "--tolerance", "inf", "--json") or "{}")
    bench.check("attend --json: near-far", report.get("method") == "near-far" and 0 < report["exact_keys_share"] <= 1
                and (load(out)["exact_keys"] <= 16).all(), str(report))
    same = bench.write("same.safetensors", path.read_bytes())
    if bench.works("attend: output is the input", "attend", same, "-o", same) is not None:
        bench.check("attend: output is the input: result", distance(load(same)["out"], softmax(problem())[0]) < 1e-5, "wrong")


def gaussian(bench):
    path, out = bench.path("good.safetensors"), bench.path("result.safetensors")
    for covariance in ("isotropic", "diagonal", "full"):
        given = bench.write("given.safetensors", file_of(splats(covariance)))
        lse = []
        for mixing in ("joint", "per-level"):
            text = bench.works(f"attend: {covariance}, {mixing}", "attend", path, "-o", out, "--splats", given, "--mixing", mixing, "--json")
            report = json.loads(text or "{}")
            bench.check(f"attend --json: {covariance}, {mixing}", report.get("method") == "gaussian" and report["mixing"] == mixing
                        and report["splats"]["covariance"] == covariance and report["seconds"] > 0 and report["kernels"], text)
            lse.append(load(out)["lse"] if text else np.zeros(1))
        bench.check(f"attend: {covariance}: lse of both mixings", np.allclose(lse[0], lse[1], atol=1e-4), "not the same")
    ignored = splats("full")
    ignored["precision_chol"][1][..., 0, 1] = np.nan
    given = bench.write("given.safetensors", file_of(ignored))
    if bench.works("attend: NaN above the diagonal", "attend", path, "-o", out, "--splats", given) is not None:
        bench.check("attend: NaN above the diagonal: result", np.isfinite(load(out)["out"]).all(), "it is not finite")
    text = bench.works("attend --verbose", "attend", path, "-o", out, "--causal", "--verbose")
    bench.check("attend --verbose: report", "softmax attention, causal" in (text or ""), text)


def init(bench):
    tokens = problem(queries=80, keys=90)
    path, out = bench.write("tokens.safetensors", file_of(tokens)), bench.path("made.safetensors")
    result = bench.path("result.safetensors")
    config = bench.write("levels.json", json.dumps({"hierarchy": {"levels": ["Fine", "Coarse"], "init_splats_per_level": [9, 3],
                                                                  "level_weights": [0.75, 0.25]}}).encode())
    for method in ("random", "kmeans", "pca", "spectral", "token-aware"):
        for covariance in ("isotropic", "diagonal", "full"):
            name = f"init: {method}, {covariance}"
            status, text, err = bench.run("init", path, "-o", out, "--init", method, "--covariance", covariance, "--config", config, "--json")
            if status == 1 and "LAPACKE" in err:
                bench.skip(name, "built without LAPACKE")
                continue
            bench.check(name, status == 0, err)
            report = json.loads(text or "{}")
            bench.check(f"{name}: report", report.get("covariance") == covariance and [v["splats"] for v in report["levels"]] == [9, 3], text)
            bench.works(f"{name}: attend", "attend", path, "-o", result, "--splats", out, "--causal")
            bench.check(f"{name}: finite", np.isfinite(load(result)["out"]).all(), "it is not")
    seeded(bench, path, config)
    flags(bench, path, config)
    configurations(bench, path)


def seeded(bench, path, config):
    names = [bench.path(f"seed{i}.safetensors") for i in range(3)]
    for name, seed in zip(names, ("5", "5", "6")):
        bench.works("init: seed", "init", path, "-o", name, "--config", config, "--seed", seed)
    contents = [name.read_bytes() for name in names]
    bench.check("init: the same seed", contents[0] == contents[1], "other bytes")
    bench.check("init: another seed", contents[0] != contents[2], "the same bytes")
    keys = bench.write("keys.safetensors", file_of({"k": problem(keys=90)["k"]}))
    bench.works("init: keys alone", "init", keys, "-o", names[0], "--config", config)
    bench.check("init: keys alone: heads", load(names[0])["mean"].shape == (KV_HEADS, 12, DIM), "wrong")
    bench.works("init: shared", "init", path, "-o", names[0], "--config", config, "--shared", "--verbose")
    bench.check("init: shared: heads", load(names[0])["mean"].shape == (1, 12, DIM), "wrong")
    bench.works("init: variance", "init", path, "-o", names[1], "--config", config, "--shared", "--variance-scale", "4")
    bench.works("init: match", "init", path, "-o", names[0], "--config", config, "--match", "softmax")
    made = load(names[0])
    bench.check("init: match: variance", np.allclose(made["log_var"], np.log(np.sqrt(DIM)), atol=1e-5), "it is not the root of D")
    bench.works("init: shared again", "init", path, "-o", names[0], "--config", config, "--shared")
    wider = load(names[1])["log_var"] - load(names[0])["log_var"]
    bench.check("init: variance: factor", np.allclose(wider, np.log(4), atol=1e-4), "it is not 4")


def flags(bench, path, config):
    new = bench.path("new.safetensors")
    whole = [path, "-o", new, "--config", config]
    for name, value in [("--init", "best"), ("--covariance", "round"), ("--seed", "-1"), ("--seed", "x"), ("--seed", "1e3"), ("--seed", "18446744073709551616"),
                        ("--steps", "-1"), ("--sample", "0"), ("--sample", ""), ("--variance-scale", "0"), ("--match", "nothing"), ("--variance-scale", "-1"),
                        ("--variance-scale", "nan"), ("--variance-scale", "1e-60")]:
        bench.refused(f"init: {name} {value!r}", [*whole, name, value], [name], statuses=[2], command="init")
    bench.refused("init: no output", [path], ["-o"], statuses=[2], command="init")
    bench.refused("init: no k", [bench.write("x.safetensors", file_of({"q": problem()["q"]})), "-o", new], ["x.safetensors", "k"], command="init")
    bench.refused("init: more splats than tokens", [bench.path("good.safetensors"), "-o", new], [], statuses=[1], command="init")
    bench.refused("init: output is a folder", [path, "-o", bench.folder, "--config", config], [bench.folder], command="init")


def configurations(bench, path):
    new = bench.path("new.safetensors")
    for name, text in {"missing": None, "not JSON": "{", "an array": "[]", "empty": "{}", "no counts": '{"levels": ["A"]}',
                       "count 0": '{"levels": ["A"], "init_splats_per_level": [0], "level_weights": [1]}',
                       "negative count": '{"levels": ["A"], "init_splats_per_level": [-5], "level_weights": [1]}',
                       "lengths": '{"levels": ["A", "B"], "init_splats_per_level": [1], "level_weights": [1, 1]}',
                       "negative weight": '{"levels": ["A"], "init_splats_per_level": [1], "level_weights": [-1]}',
                       "deep": "[" * 100_000}.items():
        config = bench.path("config.json")
        config.unlink(missing_ok=True)
        if text is not None:
            config.write_text(text)
        bench.refused(f"init: configuration: {name}", [path, "-o", new, "--config", config], ["config.json"], statuses=[1], command="init")


def compare(bench):
    a = {"x": ("F32", np.array([[1.0, -np.inf, 2.0]])), "only": ("F32", np.ones(1)), "count": ("I32", np.ones(1))}
    b = {"x": ("F32", np.array([[1.0, -np.inf, 1.0]])), "count": ("I32", np.ones(1))}
    first, second = bench.write("a.safetensors", file_of(a)), bench.write("b.safetensors", file_of(b))
    report = json.loads(bench.works("compare --json", "compare", first, second, "--json") or "{}")
    bench.check("compare: distance", list(report) == ["x"] and abs(report["x"]["relative"] - 0.5 ** 0.5) < 1e-5
                and report["x"]["largest"] == 1 and report["x"]["odd"] == 0, str(report))
    bench.check("compare: lines", "x" in (bench.works("compare", "compare", first, second) or ""), "no line for x")
    other = bench.write("c.safetensors", file_of({"x": ("BF16", np.array([[1.0, 0.5, 2.0]]))}))
    report = json.loads(bench.works("compare: types", "compare", other, first, "--json") or "{}")
    bench.check("compare: odd", report["x"]["odd"] == 1 and report["x"]["relative"] == 0, str(report))
    shape = bench.write("d.safetensors", file_of({"x": ("F32", np.ones(3))}))
    bench.refused("compare: shapes", [shape, first], ["x", "shape"], statuses=[1], command="compare")
    bench.refused("compare: nothing in common", [bench.path("good.safetensors"), first], ["good.safetensors"], statuses=[1], command="compare")
    bench.refused("compare: one file", [first], ["REFERENCE"], statuses=[2], command="compare")


def trouble(bench):
    """The reader of the report goes away, the disk is full, the user loses patience."""
    path, new = bench.path("good.safetensors"), bench.path("new.safetensors")
    with open("/dev/full", "wb") as full:
        bench.refused("stdout is full", [path, "-o", new, "--json"], ["standard output"], statuses=[1], stdout=full)
    big = bench.write("big.safetensors", file_of({"q": ("F32", np.zeros((1, 1, 40000, 1))), "k": ("F32", np.zeros((1, 1, 2, 1))),
                                                  "v": ("F32", np.zeros((1, 1, 2, 64)))}))
    bench.works("a large output", "attend", big, "-o", new)
    new.unlink(missing_ok=True)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    bench.refused("the disk is full", [big, "-o", new], [new.name], statuses=[1], preexec_fn=limit)
    interrupted(bench, new)


def interrupted(bench, new):
    tokens = np.random.default_rng(3).normal(size=(1, 8, 16384, 64)).astype(np.float16)
    path = bench.write("long.safetensors", file_of({n: ("F16", tokens) for n in ("q", "k", "v")}))
    for number in (signal.SIGINT, signal.SIGTERM):
        p = subprocess.Popen([bench.binary, "attend", path, "-o", new], stderr=subprocess.PIPE)
        time.sleep(1.5)
        p.send_signal(number)
        started = time.time()
        err = p.communicate(timeout=120)[1].decode()
        if p.returncode == 0:
            bench.skip(f"interrupted by {number.name}", "the device was faster")
        else:
            bench.check(f"interrupted by {number.name}", p.returncode == 1 and "interrupted" in err and not new.exists(),
                        f"exit status {p.returncode}: {err}")
            bench.check(f"interrupted by {number.name}: at once", time.time() - started < 10, f"{time.time() - started:.1f} s")
        new.unlink(missing_ok=True)
    path.unlink()


def run(bench):
    for part in (usage, devices, exact, gaussian, init, compare, trouble):
        part(bench)
