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
    told = [json.loads(line) for line in log.read_text().splitlines()]
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
    bench.check("adapt: reasons", all({"use", "entropy", "leave_one_out", "coverage", "expected_gain"} == set(e["reason"])
                                      and e["level"] in ("Fine", "Coarse") for e in told if e["decision"] != "adjust"), "they lack something")
    bench.check("adapt: text", "kept" in (bench.works("adapt: again", "adapt", made, path, "-o", out, "--cycles", "0") or ""), "no report")
    bench.check("adapt: 0 cycles", all(np.array_equal(value, load(made)[name]) for name, value in load(out).items()), "other splats")
    refusals(bench, [made, path, "-o", bench.path("new.safetensors")])


def refusals(bench, whole):
    for name, value in [("--cycles", "-1"), ("--every", "0"), ("--sample", "0"), ("--rate", "0"), ("--rate", "nan"), ("--least", "0"), ("--least", "1,1,1"),
                        ("--most", "x"), ("--most", ""), ("--death-threshold", "-1"), ("--patience", "0"), ("--seed", "-1")]:
        bench.refused(f"adapt: {name} {value!r}", [*whole, name, value], [name], statuses=[2], command="adapt")
    bench.refused("adapt: least above most", [*whole, "--least", "9", "--most", "3"], ["at least 9"], statuses=[1], command="adapt")
    bench.refused("adapt: no output", whole[:2], ["-o"], statuses=[2], command="adapt")
    bench.refused("adapt: history in a folder", [*whole, "--history", bench.folder], [bench.folder], statuses=[1], command="adapt")
    keys = bench.write("x.safetensors", file_of({name: problem()[name] for name in ("q", "k")}))
    bench.refused("adapt: no v", [whole[0], keys, *whole[2:]], ["x.safetensors", "v"], statuses=[1], command="adapt")


def run(bench):
    adapt(bench)
