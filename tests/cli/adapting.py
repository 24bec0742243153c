"""Splats that adapt to a layer, and what is told of it."""
import json

import numpy as np

from good_paths import distance
from tensors import file_of, load, problem


def adapt(bench):
    path, made, out, log = (bench.path(name) for name in ("layer.safetensors", "splats.safetensors", "adapted.safetensors", "log.jsonl"))
    path.write_bytes(file_of(problem(queries=80, keys=80)))
    config = bench.write("two.json", json.dumps({"levels": ["Fine", "Coarse"], "init_splats_per_level": [5, 2], "level_weights": [0.7, 0.3]}).encode())
    bench.works("adapt: init", "init", path, "-o", made, "--config", config, "--match", "softmax")
    report = json.loads(bench.works("adapt", "adapt", made, path, "-o", out, "--causal", "--history", log, "--cycles", "2", "--trades", "2", "--steps", "3",
                                    "--most", "7,3", "--json") or "{}")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told, cycles = [e for e in lines if "decision" in e], [e for e in lines if "lifetimes" in e]
    bench.check("adapt: cycles", [c["cycle"] for c in cycles] == [1, 2], str(cycles))
    bench.check("adapt: moved", all(e["moved"] >= 0 for e in told if e["decision"] == "adjust"), str(told[-1:]))
    splats = load(out)
    bench.check("adapt: splats", report.get("splats") == splats["mean"].shape[1] <= 10, str(report))
    errors = {}
    for name, file in (("error_before", made), ("error_after", out)):
        result = bench.path("attended.safetensors")
        bench.works(f"adapt: attend: {name}", "attend", path, "-o", result, "--splats", file, "--causal")
        errors[name] = load(result)["out"]
    bench.works("adapt: exact", "attend", path, "-o", result, "--causal")
    for name, values in errors.items():
        bench.check(f"adapt: {name}", abs(distance(values, load(result)["out"]) - report.get(name, 9)) < 1e-4, str(report))
    bench.check("adapt: better", report["error_after"] < report["error_before"], str(report))
    kept = {name: sum(e["kept"] for e in told if e["decision"] == name) for name in report["decisions"]}
    bench.check("adapt: history", kept == {name: d["kept"] for name, d in report["decisions"].items()}, f"{kept} {report['decisions']}")
    ended = [e["age"] for e in told if e["kept"] and e["decision"] in ("death", "merge", "mitosis")]
    bench.check("adapt: lifetimes", sum(c["lifetimes"]["ended"] for c in cycles) == len(ended) and max([c["lifetimes"]["longest"] for c in cycles]) == max(ended, default=0), str(cycles))
    bench.check("adapt: reasons", all({"use", "entropy", "leave_one_out", "coverage", "expected_gain"} == set(e["reason"])
                                      and e["level"] in ("Fine", "Coarse") for e in told if e["decision"] != "adjust"), "they lack something")
    bench.check("adapt: text", "kept" in (bench.works("adapt: again", "adapt", made, path, "-o", out, "--cycles", "0") or ""), "no report")
    bench.check("adapt: 0 cycles", all(np.array_equal(value, load(made)[name]) for name, value in load(out).items()), "other splats")
    refusals(bench, [made, path, "-o", bench.path("new.safetensors")])


def health(bench):
    whole = [bench.path("splats.safetensors"), bench.path("layer.safetensors")]
    told = json.loads(bench.works("adapt --check", "adapt", *whole, "--check", "--json") or "{}")
    bench.check("adapt --check: healthy", told == {"health": 1.0, "findings": []}, str(told))
    sick = {name: np.array(value) for name, value in load(whole[0]).items()}
    sick["mean"][1, 3] += 1000
    bench.write("sick.safetensors", file_of({name: ("I32" if name == "level" else "F32", value) for name, value in sick.items()}))
    told = json.loads(bench.works("adapt --check: far away", "adapt", bench.path("sick.safetensors"), whole[1], "--check", "--json") or "{}")
    far = [f for f in told["findings"] if f["failure"] == "far away"]
    bench.check("adapt --check: finding", len(far) == 1 and (far[0]["head"], far[0]["splat"]) == (1, 3) and told["health"] < 1, str(told))
    bench.check("adapt --check: text", "far away: head 1" in (bench.works("adapt --check again", "adapt", bench.path("sick.safetensors"), whole[1], "--check") or ""), "it is not told")
    mended = bench.path("mended.safetensors")
    bench.works("adapt --repair", "adapt", bench.path("sick.safetensors"), whole[1], "-o", mended, "--repair", "--cycles", "0")
    told = json.loads(bench.works("adapt --check: mended", "adapt", mended, whole[1], "--check", "--json") or "{}")
    bench.check("adapt --repair: mended", told == {"health": 1.0, "findings": []}, str(told))


def saves(bench):
    made, layer, out, whole = (bench.path(name) for name in ("splats.safetensors", "layer.safetensors", "adapted.safetensors", "whole.safetensors"))
    few = ["adapt", made, layer, "--cycles", "1", "--trades", "1", "-o"]
    bench.works("adapt: full", *few, whole)
    full = load(whole)
    for how, lost in (("compact", 1e-3), ("compact8", 0.3)):
        bench.works(f"adapt --save {how}", *few, out, "--save", how)
        bench.works(f"adapt: whole of {how}", "adapt", out, layer, "--cycles", "0", "-o", bench.path("again.safetensors"))
        again = load(bench.path("again.safetensors"))
        bench.check(f"adapt --save {how}: loss", max(np.abs(again[name] - full[name]).max() for name in full) < lost, how)
    bench.works("adapt --save delta", *few, out, "--save", "delta")
    bench.works("adapt --base", "adapt", out, layer, "--base", made, "--cycles", "0", "-o", bench.path("again.safetensors"))
    again = load(bench.path("again.safetensors"))
    bench.check("adapt --save delta: without loss", all(np.array_equal(again[name], full[name]) for name in full), "it is not")
    new = bench.path("new.safetensors")
    bench.refused("adapt: a difference alone", [out, layer, "-o", new], ["adapted.safetensors", "base"], statuses=[1], command="adapt")
    bench.refused("adapt: another base", [out, layer, "-o", new, "--base", whole], ["adapted.safetensors", "another base"], statuses=[1], command="adapt")
    bench.refused("adapt: --save x", [made, layer, "-o", new, "--save", "x"], ["--save"], statuses=[2], command="adapt")


def balance(bench):
    made, layer, out = (bench.path(name) for name in ("splats.safetensors", "layer.safetensors", "adapted.safetensors"))
    told = json.loads(bench.works("adapt --balance", "adapt", made, layer, "--cycles", "0", "--balance", "-o", out, "--json") or "{}")
    bench.check("adapt --balance: better", told["error_after"] <= told["error_before"], str(told))
    changed = {name for name, value in load(out).items() if not np.array_equal(value, load(made)[name])}
    bench.check("adapt --balance: weights alone", changed <= {"level_log_weight"}, str(changed))


def presets(bench):
    listed = json.loads(bench.works("presets --json", "presets", "--json", "--tokens", "80") or "[]")
    names = [p["name"] for p in listed]
    bench.check("presets: names", names == ["standard_text", "long_context", "interpretable", "memory_efficient", "high_speed", "code_understanding", "document_qa"], str(names))
    text = bench.works("presets", "presets") or ""
    bench.check("presets: text", all(name in text for name in names), text)
    layer, out = bench.path("layer.safetensors"), bench.path("made.safetensors")
    for p in listed:
        bench.works(f"init --preset {p['name']}", "init", layer, "-o", out, "--preset", p["name"])
        made = load(out)
        counts = np.bincount(made["level"]).tolist()
        bench.check(f"init --preset {p['name']}: levels", counts == [v["splats"] for v in p["levels"]] and abs(sum(v["weight"] for v in p["levels"]) - 1) < 1e-9, str(counts))
        bench.check(f"presets: size of {p['name']}", p["file_bytes"] == 4 * p["splats"] * (2 * 64 + 2), str(p))
    path = bench.path("long.safetensors")
    path.write_bytes(file_of(problem(queries=600, keys=600)))
    for p in json.loads(bench.works("presets --layer", "presets", "--layer", path, "--causal", "--json") or "[]"):
        bench.works(f"presets --layer: {p['name']}", "init", path, "-o", out, "--preset", p["name"])
        done = json.loads(bench.works("presets --layer: error", "adapt", out, path, "-o", bench.path("same.safetensors"), "--causal", "--cycles", "0", "--json") or "{}")
        e = p["estimate"]
        bench.check(f"presets --layer: error of {p['name']}", abs(e["error"] - done["error_before"]) < 0.2 * done["error_before"], f"{e} {done['error_before']}")
        bench.check(f"presets --layer: {p['name']}", e["seconds"] > 0 and e["bytes"] > 4 * p["splats"], str(e))
    text = bench.works("presets --layer: text", "presets", "--layer", path) or ""
    bench.check("presets --layer: text", text.count("on the layer: about") == len(names), text)
    bench.refused("presets: --layer and --tokens", ["--layer", path, "--tokens", "5"], ["--layer"], statuses=[2], command="presets")
    bench.refused("presets: --causal alone", ["--causal"], ["--causal", "--layer"], statuses=[2], command="presets")
    long = [p for p in json.loads(bench.works("presets: long", "presets", "--json", "--tokens", "3000") or "[]") if p["name"] == "long_context"]
    bench.check("presets: long_context grows", [v["splats"] for v in long[0]["levels"]] == [600, 300, 150, 60, 5], str(long))
    whole = [layer, "-o", bench.path("new.safetensors")]
    bench.refused("init: no such preset", [*whole, "--preset", "huge"], ["huge", "standard_text"], statuses=[1], command="init")
    bench.refused("init: --preset and --splats", [*whole, "--preset", "high_speed", "--splats", "3"], ["--preset", "--splats"], statuses=[2], command="init")
    bench.refused("presets: --tokens 0", ["--tokens", "0"], ["--tokens"], statuses=[2], command="presets")


def flows(bench):
    layer, made, out = (bench.path(name) for name in ("layer.safetensors", "coarse.safetensors", "flown.safetensors"))
    config = bench.write("two.json", json.dumps({"levels": ["Fine", "Coarse"], "init_splats_per_level": [6, 2], "level_weights": [0.5, 0.5]}).encode())
    bench.works("init --coarsen", "init", layer, "-o", made, "--config", config, "--coarsen")
    s = load(made)
    mass = np.exp(s["log_amplitude"].astype(float))
    sums = [(mass * (s["level"] == level)).sum(axis=1) for level in (0, 1)]
    bench.check("init --coarsen: mass", np.allclose(*sums, rtol=1e-4), str(sums))
    means = [np.einsum("hs,hsd->hd", mass * (s["level"] == level), s["mean"]) for level in (0, 1)]
    bench.check("init --coarsen: means", np.allclose(*means, rtol=1e-3, atol=1e-4), str(means))
    bench.works("adapt --top-down", "adapt", made, layer, "-o", out, "--cycles", "0", "--top-down", "1")
    f = load(out)
    near = np.abs(f["mean"][:, :6, None] - f["mean"][:, None, 6:]).max(-1).min(-1)
    bench.check("adapt --top-down: children at their parents", near.max() == 0, str(near))
    bench.refused("adapt: --bottom-up 2", [made, layer, "-o", bench.path("new.safetensors"), "--bottom-up", "2"], ["2"], statuses=[1], command="adapt")


def refusals(bench, whole):
    for name, value in [("--cycles", "-1"), ("--every", "0"), ("--sample", "0"), ("--rate", "0"), ("--rate", "nan"), ("--least", "0"), ("--least", "1,1,1"),
                        ("--most", "x"), ("--most", ""), ("--death-threshold", "-1"), ("--patience", "0"), ("--seed", "-1")]:
        bench.refused(f"adapt: {name} {value!r}", [*whole, name, value], [name], statuses=[2], command="adapt")
    bench.refused("adapt: least above most", [*whole, "--least", "9", "--most", "3"], ["at least 9"], statuses=[1], command="adapt")
    bench.refused("adapt: no output", whole[:2], ["-o"], statuses=[2], command="adapt")
    bench.refused("adapt: history in a folder", [*whole, "--history", bench.folder], [bench.folder], statuses=[1], command="adapt")
    keys = bench.write("x.safetensors", file_of({name: problem()[name] for name in ("q", "k")}))
    bench.refused("adapt: no v", [whole[0], keys, *whole[2:]], ["x.safetensors", "v"], statuses=[1], command="adapt")


def grow(bench):
    path, out, text = bench.path("layer.safetensors"), bench.path("grown.safetensors"), ["--init", "grow", "--causal"]
    bench.works("init: grow", "init", path, "-o", out, *text, "--splats", "12")
    grown = load(out)
    bench.check("init: grow: splats", grown["mean"].shape[1] == 12 and np.isfinite(grown["mean"]).all(), str(grown["mean"].shape))
    clusters = bench.path("clusters.safetensors")
    bench.works("init: not grown", "init", path, "-o", clusters, "--splats", "12", "--match", "softmax")
    bench.works("grow: exact", "attend", path, "-o", bench.path("exact.safetensors"), "--causal")
    errors = []
    for file in (out, clusters):
        bench.works("grow: attend", "attend", path, "-o", bench.path("attended.safetensors"), "--splats", file, "--causal")
        errors.append(distance(load(bench.path("attended.safetensors"))["out"], load(bench.path("exact.safetensors"))["out"]))
    bench.check("init: grow: better than clusters", errors[0] < 0.9 * errors[1], str(errors))
    whole = [path, "-o", bench.path("new.safetensors")]
    bench.refused("init: --causal without growing", [*whole, "--causal"], ["--causal"], statuses=[2], command="init")
    bench.refused("init: --splats and --config", [*whole, "--splats", "3", "--config", "x"], ["--splats", "--config"], statuses=[2], command="init")
    bench.refused("init: --splats 0", [*whole, "--splats", "0"], ["--splats"], statuses=[2], command="init")
    tensors = problem()
    keys = bench.write("x.safetensors", file_of({"k": tensors["k"]}))
    bench.refused("init: grow without q", [keys, *whole[1:], *text], ["x.safetensors", "q"], statuses=[1], command="init")
    keys = bench.write("x.safetensors", file_of({"k": tensors["k"], "q": tensors["q"]}))
    bench.refused("init: grow without v", [keys, *whole[1:], *text], ["x.safetensors", "v"], statuses=[1], command="init")


def metrics(bench):
    whole = [bench.path("splats.safetensors"), bench.path("layer.safetensors")]
    told = json.loads(bench.works("metrics --json", "metrics", *whole, "--causal", "--pairs", "80", "--json", "--top", "3") or "{}")
    result = bench.path("attended.safetensors")
    bench.works("metrics: attend", "attend", whole[1], "-o", result, "--splats", whole[0], "--causal")
    exact = bench.path("exact.safetensors")
    for h, head in enumerate(told["heads"]):
        error = distance(load(result)["out"][:, h], load(exact)["out"][:, h])
        bench.check("metrics: error of the output", abs(head["output_error"] - error) < 1e-4, f"{head['output_error']} {error}")
        bench.check("metrics: levels", abs(sum(level["share"] for level in head["levels"]) - 1) < 1e-5 and len(head["top"]) == 3, str(head))
        bench.check("metrics: signs", head["kullback_leibler"]["value"] > 0 < head["jensen_shannon"]["value"] < 0.6932, str(head))
    bench.check("metrics: text", "Kullback-Leibler" in (bench.works("metrics", "metrics", *whole, "--pairs", "7") or ""), "it is missing")
    for name, value in [("--top", "x"), ("--sample", "0"), ("--pairs", "0"), ("--scale", "nan")]:
        bench.refused(f"metrics: {name} {value!r}", [*whole, name, value], [name], statuses=[2], command="metrics")
    bench.refused("metrics: no splats", [whole[1], whole[1]], ["layer.safetensors"], statuses=[1], command="metrics")


def run(bench):
    adapt(bench)
    grow(bench)
    metrics(bench)
    health(bench)
    saves(bench)
    balance(bench)
    presets(bench)
    flows(bench)
