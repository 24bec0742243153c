#!/usr/bin/env python3
"""Layers fitted to a model from the command line.   test_distill.py PATH_TO_CLSPLAT

The errors of heads' outputs against float64; layers that can be exact are; errors that fall, and what is frozen stays to the bit;
the same bits after Ctrl-C, kill -9 and --resume as without them; a model that generate, eval and train run; what must be refused.
Ends with `N passed, N failed, N skipped`; exits 1 if anything failed.
"""
import json
import math
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

import twin
from bench import Bench, lines

LIMIT = 600  # seconds for anything, on a busy machine
CONTEXT, BATCH = 32, 2
TEACHER = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
           "intermediate_size": 64, "training": {"context": CONTEXT, "batch_size": 4, "steps": 120, "seed": 5, "learning_rate": 0.01}}


def tensors(path):
    """name -> (shape, bytes) of a safetensors file of F32."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    return {name: (t["shape"], data[begin + t["data_offsets"][0]:begin + t["data_offsets"][1]])
            for name, t in header.items() if name != "__metadata__"}


class Distilling:
    def __init__(self, bench):
        self.bench = bench
        self.text = bench.write("text", twin.text())
        self.teacher = bench.path("teacher")
        config = bench.write("teacher.json", json.dumps(TEACHER).encode())
        bench.works("teacher", "train", self.text, "-o", self.teacher, "--config", config, "--dtype", "f32", "--report", "1000", limit=LIMIT)
        self.held = twin.text()[-2 * 600:]
        self.held_path = bench.write("held", self.held)

    def command(self, folder, *options, budget=20):
        """Of `distill`; budget None: as it began."""
        how = ["--dtype", "f32", "--context", CONTEXT, "--batch", BATCH, "--seed", "3", "--budget", budget] if budget else []
        return [self.teacher, self.text, "-o", self.bench.path(folder), "--validation", self.held_path, "--report", "0", *how, *options]

    def fit(self, name, *options, **how):
        """The report of a distillation into a folder of that name; None after a failure."""
        out = self.bench.works(name, "distill", *self.command(name, *options, **how), "--json", limit=LIMIT)
        return json.loads(out) if out else None

    def log(self, folder):
        return [json.loads(line) for line in (self.bench.path(folder) / "log.jsonl").read_text().splitlines()]

    def weights(self, folder):
        return tensors(self.bench.path(folder) / "model.safetensors")

    def state(self, folder):
        return tensors(self.bench.path(folder) / "training.safetensors")


def matrix_of(tensor):
    shape, data = tensor
    numbers = struct.unpack(f"<{len(data) // 4}f", data)
    columns = shape[-1]
    return [numbers[i:i + columns] for i in range(0, len(numbers), columns)]


def product(x, w):
    return [[math.fsum(a * b for a, b in zip(row, column)) for column in w] for row in x]


def turned(head, position, theta=500000.0):
    half = len(head) // 2
    angles = [position * theta ** (-i / half) for i in range(half)]
    return [head[i] * math.cos(a) - head[i + half] * math.sin(a) for i, a in enumerate(angles)] + \
           [head[i + half] * math.cos(a) + head[i] * math.sin(a) for i, a in enumerate(angles)]


def heads_of(weights, ids, window):
    """What the first layer's heads give for the tokens, all in one row, in float64."""
    heads, groups, dim = 4, 2, 8
    layer = "model.layers.0."
    embedding, norm = matrix_of(weights["model.embed_tokens.weight"]), matrix_of(weights[layer + "input_layernorm.weight"])[0]
    x = [embedding[i] for i in ids]
    x = [[a * b / math.sqrt(math.fsum(c * c for c in row) / len(row) + 1e-5) for a, b in zip(row, norm)] for row in x]
    q, k, v = (product(x, matrix_of(weights[f"{layer}self_attn.{name}_proj.weight"])) for name in "qkv")
    part = lambda row, h: row[h * dim:(h + 1) * dim]
    out = [[] for _ in ids]
    for h in range(heads):
        g = h * groups // heads
        keys = [turned(part(row, g), j) for j, row in enumerate(k)]
        for i, row in enumerate(q):
            query, seen = turned(part(row, h), i), range(max(0, i + 1 - window), i + 1)
            logits = [math.fsum(a * b for a, b in zip(query, keys[j])) / math.sqrt(dim) for j in seen]
            shares = [math.exp(logit - max(logits)) for logit in logits]
            out[i] += [math.fsum(s * part(v[j], g)[d] for s, j in zip(shares, seen)) / math.fsum(shares) for d in range(dim)]
    return out


def errors(t):
    """A window in the first layer, before anything is learned: √ of the mean over all rows of |s − t|² / |t|²."""
    report = t.fit("window", "--attention", "window", "--window", "4", "--layers", "0", budget=1)
    if not report:
        return
    weights, sums = tensors(t.teacher / "model.safetensors"), []
    whole = len(t.held) // (CONTEXT * BATCH) * BATCH
    for at in range(0, whole * CONTEXT, CONTEXT):
        ids = t.held[at:at + CONTEXT]
        for s, g in zip(heads_of(weights, ids, 4), heads_of(weights, ids, CONTEXT)):
            sums.append(sum((a - b) ** 2 for a, b in zip(s, g)) / sum(b * b for b in g))
    wanted = math.sqrt(math.fsum(sums) / len(sums))
    found = report["layers"][0]["error_before"]
    t.bench.check("window: error", wanted > 0.05 and abs(found / wanted - 1) < 1e-4, f"{found}, not {wanted}")
    t.bench.check("window: one layer is all", abs(report["bits_per_byte"] - report["layers"][0]["bits_per_byte"]) < 1e-6, report)


def exact(t):
    """Layers whose capacity is that of softmax: a window, a chunk and a tolerance that leave nothing out."""
    for kind, options in [("window", ["--window", CONTEXT]), ("splat", ["--chunk", CONTEXT, "--splats", "4"]),
                          ("near_far", ["--tolerance", "0", "--chunk", "16"])]:
        report = t.fit(f"exact-{kind}", "--attention", kind, *options, "--rate", "0", budget=2)
        if not report:
            continue
        worst = max(layer["error_before"] for layer in report["layers"])
        kept = min(layer["kept"] for layer in report["layers"])
        off = abs(report["bits_per_byte"] / report["teacher_bits_per_byte"] - 1)
        t.bench.check(f"exact {kind}", worst < 1e-5 and abs(kept - 1) < 1e-4 and off < 1e-5, report)


def learning(t):
    """Errors fall, of heads and of logits; what is frozen stays; a list of kinds goes to layers in turn."""
    before = tensors(t.teacher / "model.safetensors")
    for learn, learned in [("splats", [".splat_"]), ("projections", [".splat_", ".q_proj.", ".k_proj.", ".v_proj."]), ("all", [""])]:
        name = f"learn-{learn}"
        report = t.fit(name, "--attention", "softmax,splat", "--layers", "1", "--chunk", "4", "--splats", "8", "--learn", learn,
                       "--rate", "0.003" if learn == "all" else "0.01", budget=120)
        if not report:
            continue
        layer, log = report["layers"][0], t.log(name)
        goals = {g: [line["loss"] for line in log if line["goal"] == g] for g in ("heads", "logits")}
        t.bench.check(f"{name}: goals", [len(goals[g]) for g in goals] == [60, 60], {g: len(goals[g]) for g in goals})
        for goal, falls in [("heads", {"splats": 0.65, "projections": 0.65, "all": 0.65}), ("logits", {"splats": 1.1, "projections": 0.9, "all": 0.8})]:
            first, last = (sum(goals[goal][i:i + 10]) for i in (0, 50))
            t.bench.check(f"{name}: {goal}", last < first * falls[learn], f"{first} to {last}")
        worth = layer["bits_per_byte_without"] - report["teacher_bits_per_byte"]
        share = (layer["bits_per_byte_without"] - layer["bits_per_byte"]) / worth
        t.bench.check(f"{name}: kept", worth > 0.02 and abs(share - layer["kept"]) < 0.01 and (learn == "all" or 0.5 < share < 1.2), report)
        after = t.weights(name)
        moved = {n for n in before if before[n] != after[n]}
        may = {n for n in before if any(part in n for part in learned) and (learn == "all" or ".1." in n)}
        t.bench.check(f"{name}: frozen", moved <= may and bool(moved) == (learn != "splats"), moved - may)
        new = {n for n in after if n not in before}
        t.bench.check(f"{name}: new", len(new) == 8 and all(n.startswith("model.layers.1.self_attn.splat_") for n in new), new)
    report = t.fit("heads", "--attention", "splat", "--layers", "1", "--chunk", "4", "--splats", "16", "--heads", "1", "--rate", "0.01", budget=200)
    t.bench.check("heads alone", report and report["layers"][0]["error"] < min(0.25, 0.75 * report["layers"][0]["error_before"]), report)
    config = json.loads((t.bench.path("learn-all") / "config.json").read_text())
    t.bench.check("kinds", config["attention"] == ["softmax", "splat"] and config["model_type"] == "clsplat", config)


def changed(t, name, **keys):
    """The teacher's folder again, with other keys of config.json."""
    shutil.copytree(t.teacher, t.bench.path(name))
    path = t.bench.path(name) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def use(t):
    model = t.bench.path("learn-projections")
    t.bench.works("generate", "generate", model, "-p", "attention of the", "-n", "20")
    judged = t.bench.works("eval", "eval", model, t.held_path, "--context", CONTEXT, "--json")
    held = t.log("learn-projections")[-1]["validation_bits_per_byte"]
    bits = json.loads(judged)["bits_per_byte"] if judged else 99
    t.bench.check("eval: bits", abs(bits - held) < 0.3, f"{bits}, {held} in the log")
    t.bench.works("train on", "train", t.text, "-o", t.bench.path("on"), "--from", model, "--context", CONTEXT, "--batch", "2", "--budget", "3", limit=LIMIT)
    changed(t, "typed", is_decoder=False)
    t.bench.works("typed", "distill", t.bench.path("typed"), *t.command("typed-on", "--chunk", "4", budget=2)[1:], limit=LIMIT)
    t.bench.works("typed: generate", "generate", t.bench.path("typed-on"), "-p", "attention of the", "-n", "5")
    report = t.fit("near_far", "--attention", "near_far", "--tolerance", "0.3", "--chunk", "16", "--layers", "0-1", budget=6)
    t.bench.check("near_far", report and report["layers"][1]["kind"] == "near_far" and report["layers"][0]["error"] < 0.3, report)


def interruptions(t):
    """In either part, and behind the last step."""
    how = ["--layers", "1", "--chunk", "4", "--splats", "8", "--learn", "projections", "--save", "10"]
    whole = t.fit("whole", *how, budget=200)
    for name, moment, sign in [("killed", 15, signal.SIGKILL), ("stopped", 105, signal.SIGINT)]:
        command = [t.bench.binary, "distill", *map(str, t.command(name, *how, budget=200))]
        # Progress waits for whoever reads it: some 60 lines are on their way at most.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0, pipesize=4096)
        for line in process.stderr:
            if line.startswith(b"step %d/" % moment):
                break
        process.send_signal(sign)
        error = process.communicate()[1].decode()
        t.bench.check(f"{name}: ends", process.returncode != 0 and (sign == signal.SIGKILL or "--resume" in error), lines(error))
        report = t.fit(name, "--resume", budget=None)
        t.bench.check(f"{name}: report", report == whole, f"{report}, not {whole}")
        t.bench.check(f"{name}: weights", t.weights(name) == t.weights("whole"), "differ from an undisturbed run's")
        t.bench.check(f"{name}: moments", t.state(name) == t.state("whole"), "differ from an undisturbed run's")
    t.bench.check("over", t.fit("whole", "--resume", budget=None) == whole, "another report when it is over")


def others(t):
    """What goes on elsewhere, or with another model, is refused before anything runs."""
    b, path = t.bench, t.bench.path
    again = t.command("whole", "--resume", budget=None)
    for key, number in [("num_hidden_layers", 3), ("hidden_size", 64)]:
        config = b.write(f"{key}.json", json.dumps({**TEACHER, key: number}).encode())
        b.works(key, "train", t.text, "-o", path(key), "--config", config, "--budget", "1", limit=LIMIT)
        b.refused(f"another {key}", [path(key), *again[1:]], [f"{key} {number}, not {TEACHER[key]}", "began with"], statuses=[1], command="distill")
    b.refused("train on with a distillation", [t.text, "-o", path("whole"), "--resume"], ["clsplat distill", "--resume", "--from"],
              statuses=[1], command="train")
    b.refused("distill on with a training", [t.teacher, t.text, "-o", t.teacher, "--resume"], ["distill.json", "clsplat train", "--resume"],
              statuses=[1], command="distill")
    shutil.copytree(path("whole"), path("begun"))
    (path("begun") / "training.safetensors").unlink()
    for how in [], ["--resume"]:
        b.refused("nothing saved yet", t.command("begun", *how), ["training.safetensors", "remove", "without --resume"], statuses=[1], command="distill")


def unsound(t):
    """Texts with enough bytes and too few tokens, and losses that are no numbers: nothing is left of what was begun."""
    b, path = t.bench, t.bench.path
    place = Path(__file__).resolve().parent.parent / "model" / "tokenizers" / "gpt2"
    words = len(json.loads((place / "tokenizer.json").read_text())["model"]["vocab"]) + 8
    config = b.write("tokens.json", json.dumps({**TEACHER, "vocab_size": words, "eos_token_id": 0}).encode())
    b.works("tokens", "train", t.text, "-o", path("tokens"), "--config", config, "--tokenizer", place, "--budget", "1", limit=LIMIT)
    few = b.write("few", twin.text()[:CONTEXT + 4])
    changed(t, "damaged")
    weights = path("damaged") / "model.safetensors"
    norm = tensors(weights)["model.norm.weight"][1]
    weights.write_bytes(weights.read_bytes().replace(norm, struct.pack("<f", math.nan) * (len(norm) // 4)))
    for name, arguments, words in [
        ("few tokens", [path("tokens"), few, *t.command("few-on", "--chunk", "4")[2:]], ["tokens", f"a window of {CONTEXT}", "--context"]),
        ("no numbers", [path("damaged"), *t.command("damaged-on", "--chunk", "4")[1:]], ["damaged", "no number", "--dtype f32"]),
    ]:
        status, _, error = b.run("distill", *arguments, limit=LIMIT)
        left = {p.name for p in (path(arguments[arguments.index("-o") + 1])).rglob("*")}
        b.check(name, status == 1 and all(word in error for word in words), lines(error))
        b.check(f"{name}: leaves", not left & {"model.safetensors", "config.json", "distill.json"}, left)


def refusals(t):
    b, path = t.bench, t.bench.path
    other = lambda *options: t.command("new", *options)
    packed, models = path("packed.gguf"), Path(__file__).resolve().parent.parent / "model"
    b.works("packed", "convert", t.teacher, "-o", packed)
    for name, arguments, words, misuse in [
        ("no folder", [t.teacher, t.text], ["-o DIR"], True),
        ("there already", t.command("whole"), ["--resume"], False),
        ("other settings", t.command("whole", "--resume", "--layers", "0", budget=None), ["--layers"], True),
        ("a GGUF file", [packed, *other()[1:]], ["GGUF", "clsplat convert"], False),
        ("biases", [models / "qwen2-window", *other()[1:]], ["qwen2", "biases"], False),
        ("one matrix", [models / "phi3-window", *other()[1:]], ["phi3", "one matrix"], False),
        ("an encoder", [models / "bert", *other()[1:]], ["bert", "encoder"], False),
        ("no model", [path("nothing"), *other()[1:]], ["nothing"], False),
        ("unknown layer", other("--layers", "0,2"), ["--layers", "0,2", "has 2"], False),
        ("no list", other("--layers", "1-0"), ["--layers", "1-0"], False),
        ("kind", other("--attention", "splat,linear"), ["--attention", "near_far"], False),
        ("nothing learns", other("--attention", "window", "--learn", "splats"), ["--learn", "projections"], False),
        ("learn", other("--learn", "much"), ["--learn", "much"], True),
        ("heads", other("--heads", "1.5"), ["--heads", "1.5"], True),
        ("tolerance", other("--tolerance", "-1"), ["--tolerance"], True),
        ("not taken", other("--attention", "splat", "--chunk", "8", "--window", "9"), ["--window", "--attention"], False),
        ("chunk", other("--chunk", "24"), ["splat_chunk", "24"], False),
        ("little text", [t.teacher, t.text, "-o", path("new"), "--validation", b.write("little", b"abc")], ["held out", "--validation"], False),
        ("splats stay", [path("learn-all"), *other("--layers", "0", "--splats", "9", "--chunk", "4")[1:]], ["--splats", "stay"], False),
    ]:
        b.refused(name, arguments, words, statuses=[2] if misuse else [1], command="distill")
    before = b.contents()
    status, _, error = b.run("distill", t.text, *t.command("whole", "--resume", budget=None)[1:])
    b.check("another teacher", status not in (0, None) and b.contents() == before, lines(error))
    swapped = t.command("whole", "--resume", budget=None)
    swapped[swapped.index("--validation") + 1] = b.write("other text", twin.text()[:1200])
    status, _, error = b.run("distill", *swapped, limit=LIMIT)
    b.check("another text", status == 1 and "began with" in error, lines(error))
    (path("whole") / "distill.json").write_text('{"of": 2}')
    b.refused("damaged", t.command("whole", "--resume", budget=None), ["distill.json", "learn"], statuses=[1], command="distill")


def main():
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(sys.argv[1]).resolve(), Path(folder))
        distilling = Distilling(bench)
        for part in (errors, exact, learning, use, interruptions, others, unsound, refusals):
            part(distilling)
        return bench.summary()


if __name__ == "__main__":
    sys.exit(main())
