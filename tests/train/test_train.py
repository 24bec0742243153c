#!/usr/bin/env python3
"""Training from the command line.   test_train.py PATH_TO_CLSPLAT [--long]

The losses of a PyTorch twin (twin.json, made by twin.py); the same bits after Ctrl-C, kill -9 and --resume as without them;
a model that generate and eval run; what must be refused. --long kills at ten moments instead of two. Ends with
`N passed, N failed, N skipped`; exits 1 if anything failed.
"""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

import tensors
import twin
from bench import Bench, lines

LIMIT = 600  # seconds for anything, on a busy machine
SMALL = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
         "training": {"context": 32, "batch_size": 2, "steps": 30, "seed": 5}}


class Training:
    def __init__(self, bench):
        self.bench = bench
        self.text = bench.write("text", twin.text())
        self.config = bench.write("small.json", json.dumps(SMALL).encode())

    def command(self, folder, *options):
        return ["train", self.text, "-o", self.bench.path(folder), "--report", "0", *options]

    def start(self, folder, *options):
        command = [self.bench.binary, *map(str, self.command(folder, *options))]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def bits(self, folder):
        return [(self.bench.path(folder) / name).read_bytes() for name in ("model.safetensors",)]

    def state(self, folder):
        return weights_of(self.bench.path(folder) / "training.safetensors")

    def steps(self, folder):
        log = self.bench.path(folder) / "log.jsonl"
        return len(log.read_text().splitlines()) if log.exists() else 0


def weights_of(path):
    """The data behind a safetensors header, which holds the seconds that were spent."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def losses(t):
    """As the twin's, to the third digit."""
    recorded = json.loads((Path(__file__).resolve().parent / "twin.json").read_text())
    for name, configuration in [("llama", twin.CONFIG), ("pattern", twin.PATTERN)]:
        config = t.bench.write(f"{name}.cfg", json.dumps(configuration).encode())
        if t.bench.works(name, *t.command(name, "--config", config, "--dtype", "f32"), limit=LIMIT) is None:
            continue
        ours, theirs = twin.losses_of(t.bench.path(name)), recorded[name]
        worst = max(abs(a - b) for a, b in zip(ours, theirs))
        t.bench.check(f"{name}: losses", len(ours) == len(theirs) and worst < 1e-3, f"{len(ours)} losses, off by {worst:.2g}")


def narrow(t):
    """In bfloat16, beside weights in float32: the twin's losses to the second digit, and the same bits again."""
    theirs = json.loads((Path(__file__).resolve().parent / "twin.json").read_text())["pattern"][:15]
    config = t.bench.write("narrow.cfg", json.dumps(twin.PATTERN).encode())
    for name in ("narrow", "narrow-again"):
        t.bench.works(name, *t.command(name, "--config", config, "--dtype", "bf16"), limit=LIMIT)
    ours = twin.losses_of(t.bench.path("narrow"))
    worst = max(abs(a - b) for a, b in zip(ours, theirs))
    t.bench.check("narrow: losses", len(ours) == 40 and worst < 0.05, f"{len(ours)} losses, off by {worst:.2g}")
    t.bench.check("narrow: bits", t.state("narrow") == t.state("narrow-again"), "other bits in bfloat16 the second time")


def near_far(t):
    """Trees with a tolerance of 0 are softmax attention: the twin's losses. With one of 0.2 it learns as much, step by step, at a rate
    at which no step's loss leaps."""
    recorded = json.loads((Path(__file__).resolve().parent / "twin.json").read_text())["pattern"]
    calm = {"training": {**twin.PATTERN["training"], "learning_rate": 0.003}}
    trees = {"attention": ["splat", "window", "near_far"], "near_far_chunk": 16}

    def losses_with(name, changes):
        config = t.bench.write(f"{name}.cfg", json.dumps({**twin.PATTERN, **changes}).encode())
        learned = t.bench.works(name, *t.command(name, "--config", config, "--dtype", "f32"), limit=LIMIT) is not None
        return twin.losses_of(t.bench.path(name)) if learned else []

    for name, changes, theirs, limit in [("near_far-0", {**trees, "near_far_tolerance": 0}, recorded, 1e-3),
                                         ("near_far-0.2", {**trees, **calm, "near_far_tolerance": 0.2}, losses_with("near_far-all", calm), 0.1)]:
        ours = losses_with(name, changes)
        worst = max((abs(a - b) for a, b in zip(ours, theirs)), default=math.inf)
        t.bench.check(f"{name}: losses", len(ours) == len(theirs) == 40 and worst < limit, f"{len(ours)} losses, off by {worst:.2g}")
    t.bench.works("near_far again", *t.command("near_far-again", "--config", t.bench.path("near_far-0.2.cfg"), "--recompute", "--dtype", "f32"), limit=LIMIT)
    t.bench.check("near_far: recompute", t.bits("near_far-again") == t.bits("near_far-0.2"), "other bits with layers run again")
    model = t.bench.path("near_far-0.2")
    for how in (["--attention", "near-far", "--tolerance", "0.2", "--chunk", "16"], []):
        t.bench.works("near_far: eval", "eval", model, t.text, "--context", "48", *how)
    t.bench.works("near_far: generate", "generate", model, "-p", "attention of the key", "-n", "20")


def wait_for(t, process, folder, steps):
    end = time.time() + LIMIT
    while time.time() < end and process.poll() is None and t.steps(folder) < steps:
        time.sleep(0.002)


def resumed(t, name, folder, *options):
    """Goes on to the end, and then has the bits of an undisturbed run."""
    t.bench.works(f"{name}: resume", *t.command(folder, "--resume", *options), limit=LIMIT)
    t.bench.check(f"{name}: weights", t.bits(folder) == t.bits("whole"), "differ from an undisturbed run's")
    t.bench.check(f"{name}: moments", t.state(folder) == t.state("whole"), "differ from an undisturbed run's")


def interruptions(t, moments):
    t.bench.works("whole", *t.command("whole", "--config", t.config), limit=LIMIT)
    t.bench.works("again", *t.command("again", "--config", t.config, "--recompute"), limit=LIMIT)
    t.bench.check("recompute", t.bits("again") == t.bits("whole"), "other bits with layers run again")
    for number, moment in enumerate(moments):
        process = t.start(f"killed{number}", "--config", t.config, "--save", "3")
        wait_for(t, process, f"killed{number}", moment)
        process.kill()
        process.communicate()
        resumed(t, f"killed at {moment}", f"killed{number}", "--save", "3")
    process = t.start("stopped", "--config", t.config)
    wait_for(t, process, "stopped", 4)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1].decode()
    t.bench.check("Ctrl-C", process.returncode != 0 and "--resume" in error, lines(error))
    resumed(t, "Ctrl-C", "stopped")


def other_text(t):
    """Going on is told from going on with another text, as without --validation part of the text is held out."""
    t.bench.works("begun", *t.command("begun", "--config", t.config, "--budget", "3"), limit=LIMIT)
    for steps, options in [("4", []), ("5", ["--validation", t.text])]:
        status, _, error = t.bench.run(*t.command("begun", "--resume", "--budget", steps, *options), limit=LIMIT)
        t.bench.check(f"text: {options}", status == 0 and ("another text" in error) == bool(options), lines(error))


def kept(t):
    """Models of the last saved steps, each as it would have been at the end of so many."""
    t.bench.works("kept", *t.command("kept", "--config", t.config, "--save", "7", "--keep", "3"), limit=LIMIT)
    steps = sorted(p.name for p in t.bench.path("kept").glob("step-*"))
    t.bench.check("kept: steps", steps == ["step-00000021", "step-00000028", "step-00000030"], steps)
    t.bench.works("kept: generate", "generate", t.bench.path("kept") / "step-00000021", "-p", "key", "-n", "4")


def use(t):
    """What was trained is a model like others."""
    model = t.bench.path("whole")
    written = t.bench.works("generate", "generate", model, "-p", "attention", "-n", "8", "--json")
    t.bench.check("generate: tokens", written and json.loads(written)["tokens"] > 0, written)
    pattern = t.bench.path("pattern")
    t.bench.works("pattern: generate", "generate", pattern, "-p", "attention of the key", "-n", "40")
    judged = t.bench.works("eval", "eval", model, t.text, "--context", "32", "--json")
    last = json.loads((model / "log.jsonl").read_text().splitlines()[-1])
    bits = json.loads(judged)["bits_per_byte"] if judged else 99
    t.bench.check("eval: bits", abs(bits - last["validation_bits_per_byte"]) < 0.5, f"{bits}, and {last} in the log")
    t.bench.works("from", *t.command("tuned", "--from", model, "--budget", "3", "--rate", "1e-5"), limit=LIMIT)
    t.bench.check("from: loss", twin.losses_of(t.bench.path("tuned"))[0] < 5.0, "begins as if nothing had been learned")


def tokens(t):
    """A model of a tokeniser's tokens: their bits a byte are of bytes, generate and eval run it, and it is trained on with its own."""
    place = Path(__file__).resolve().parent.parent / "model" / "tokenizers" / "gpt2"
    words = len(json.loads((place / "tokenizer.json").read_text())["model"]["vocab"]) + 8
    config = t.bench.write("tokens.json", json.dumps({**SMALL, "vocab_size": words, "eos_token_id": 0}).encode())
    if t.bench.works("tokens", *t.command("tokens", "--config", config, "--tokenizer", place), limit=LIMIT) is None:
        return
    log = [json.loads(line) for line in (t.bench.path("tokens") / "log.jsonl").read_text().splitlines()]
    ratio = log[0]["loss"] / 0.6931471805599453 / log[0]["bits_per_byte"]
    t.bench.check("tokens: learns", log[-1]["loss"] < log[0]["loss"] - 0.3, f"loss {log[0]['loss']} to {log[-1]['loss']}")
    t.bench.check("tokens: bits of bytes", ratio > 1.2, f"{ratio:.3f} bytes a token")
    judged = t.bench.works("tokens: eval", "eval", t.bench.path("tokens"), t.text, "--context", "32", "--json", limit=LIMIT)
    bits = json.loads(judged)["bits_per_byte"] if judged else 0
    t.bench.check("tokens: eval's bits", abs(bits - log[-1]["bits_per_byte"]) < 0.15 * bits, f"{bits}, training's {log[-1]['bits_per_byte']}")
    t.bench.works("tokens: generate", "generate", t.bench.path("tokens"), "-p", "attention of the", "-n", "8")
    t.bench.works("tokens: from", *t.command("tokens-on", "--from", t.bench.path("tokens"), "--context", "32", "--batch", "2", "--budget", "3"), limit=LIMIT)
    t.bench.refused("tokens: no tokeniser", t.command("none", "--config", config)[1:], ["vocab_size", "--tokenizer"], command="train")
    t.bench.refused("tokens: nothing there", t.command("none2", "--config", config, "--tokenizer", t.bench.path("whole"))[1:],
                    ["tokenizer.json"], command="train")


def constant_memory(t):
    """Splat layers take as much memory for a long text as for a short one, and write what they write where all keys are kept."""
    shape = {**SMALL, "attention": "splat", "splats": 8, "splat_chunk": 16, "num_hidden_layers": 2}
    config = t.bench.write("memory.json", json.dumps(shape).encode())
    t.bench.works("memory", *t.command("memory", "--config", config), limit=LIMIT)
    long, bytes_of = twin.text() * 3, {}
    for length in (1500, 6000, 60000):
        text = t.bench.write(f"memory-{length}", long[:length])
        words = {}
        for how in ("0", "1000000"):  # a cycle that never comes keeps all keys for it
            out = t.bench.works(f"memory: {length}", "generate", t.bench.path("memory"), "-f", text, "-n", "150", "--adapt", how,
                                "--context", "65536", "--json", limit=LIMIT)
            words[how] = json.loads(out) if out else {"text": how, "session_bytes": 0}
        t.bench.check(f"memory: words after {length}", words["0"]["text"] == words["1000000"]["text"], str(words))
        bytes_of[length] = words["0"]["session_bytes"] - 16 * length  # the text itself: tokens, targets and scores
    t.bench.check("memory: bytes", len(set(bytes_of.values())) == 1, str(bytes_of))


def unshifted(t):
    """A model from before layers of splats had something of the token before in them runs as one that has nothing of it."""
    weights, bits = tensors.load(t.bench.path("pattern") / "model.safetensors"), []
    is_shift = lambda name: name.endswith("splat_shift.weight")
    for name, made in [("shifted", weights), ("shifted-by-0", {n: 0 * x if is_shift(n) else x for n, x in weights.items()}),
                       ("unshifted", {n: x for n, x in weights.items() if not is_shift(n)})]:
        shutil.copytree(t.bench.path("pattern"), t.bench.path(name))
        (t.bench.path(name) / "model.safetensors").write_bytes(tensors.file_of({n: ("F32", x) for n, x in made.items()}))
        out = t.bench.works(f"shift: {name}", "eval", t.bench.path(name), t.text, "--context", "48", "--json", limit=LIMIT)
        bits.append(json.loads(out)["bits_per_byte"] if out else math.nan)
    t.bench.check("shift: bits", bits[1] == bits[2] and abs(bits[0] - bits[1]) > 1e-3, str(bits))


def beginning(t):
    """Before anything is learned, a pair far away has a sixteenth of the weight of one near by, through all splats together."""
    shape = {**SMALL, "attention": "splat", "splats": 128, "splat_chunk": 16, "num_attention_heads": 1}
    config = t.bench.write("beginning.json", json.dumps(shape).encode())
    if t.bench.works("beginning", *t.command("beginning", "--config", config, "--rate", "0", "--budget", "1"), limit=LIMIT) is None:
        return
    numbers = {name.split(".splat_")[1]: x for name, x in tensors.load(t.bench.path("beginning") / "model.safetensors").items() if ".splat_" in name}
    mean, strength, decay = (numbers[name] for name in ("mean.weight", "strength.bias", "decay.bias"))
    keys, query = np.random.default_rng(1).normal(size=(2, 60, mean.shape[1]))
    density = -0.5 * (np.exp(numbers["log_precision.weight"]) * (keys[:, None] - mean) ** 2).sum(-1) + numbers["log_amplitude.weight"]
    share = np.exp(density - np.log(np.exp(density).sum(-1, keepdims=True)))
    weight = np.exp(strength[0]) * np.mean(share @ np.exp(0.1 * mean @ query.T / math.sqrt(mean.shape[1])))
    t.bench.check("beginning: decay", abs(np.log1p(np.exp(decay[0])) * 128 - 1) < 1e-3, f"falls by {np.log1p(np.exp(decay[0])):.5f} a token")
    t.bench.check("beginning: weight", 0.7 < 16 * weight < 1.4, f"a pair far away has {weight:.4f}")


def schedules(t):
    """The learning rate of every step, by each schedule's formula."""
    for name, fall in [("cosine", lambda d: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * d))), ("constant", lambda d: 1),
                       ("wsd", lambda d: 1 if d <= 0.7 else 0.1 + 0.9 * (1 - d) / 0.3)]:
        training = {**SMALL["training"], "steps": 20, "schedule": name, "warmup": 0.2, "cooldown": 0.3, "final_rate": 0.1, "learning_rate": 0.004}
        config = t.bench.write(f"{name}.json", json.dumps({**SMALL, "training": training}).encode())
        if t.bench.works(name, *t.command(name, "--config", config), limit=LIMIT) is None:
            continue
        rates = [json.loads(line)["rate"] for line in (t.bench.path(name) / "log.jsonl").read_text().splitlines()]
        wanted = [0.004 * min(1, (i + 1) / 20 / 0.2) * fall((i + 1) / 20) for i in range(20)]
        off = max(abs(a / b - 1) for a, b in zip(rates, wanted))
        t.bench.check(f"{name}: rates", len(rates) == 20 and off < 1e-4, f"{len(rates)} rates, off by {off:.2g}")


def scarce(t):
    """Where memory is short layers are run again. (PoCL's limit, in GiB; other devices have more than 1.)"""
    shape = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 28, "num_attention_heads": 1, "intermediate_size": 256,
             "training": {"context": 64, "batch_size": 192, "steps": 1, "seed": 3}}
    config = t.bench.write("scarce.json", json.dumps(shape).encode())
    environment = {**os.environ, "POCL_MEMORY_LIMIT": "1"}
    status, _, err = t.bench.run(*t.command("scarce", "--config", config, "--dtype", "f32", "-v"), limit=LIMIT, env=environment)
    said = "run again" in err or "Portable Computing" not in err
    t.bench.check("scarce", status == 0 and said, lines(err))


def refusals(t):
    b, path = t.bench, t.bench.path
    b.refused("no folder", [t.text], ["-o DIR"], statuses=[2], command="train")
    b.refused("no text", [path("nothing"), "-o", path("new")], ["nothing"], command="train")
    b.refused("there already", t.command("whole", "--config", t.config)[1:], ["--resume"], command="train")
    b.refused("other settings", t.command("whole", "--resume", "--rate", "1")[1:], ["--rate"], statuses=[2], command="train")
    b.refused("budget", t.command("new", "--budget", "soon")[1:], ["--budget", "soon"], statuses=[2], command="train")
    b.refused("dtype", t.command("new", "--dtype", "f8")[1:], ["--dtype", "f8"], statuses=[2], command="train")
    b.refused("short", [b.write("short", b"abc"), "-o", path("new"), "--config", t.config], ["window"], command="train")
    for name, change, words in [
        ("unknown", {"training": {"speed": 3}}, ["training.speed"]),
        ("heads", {"num_attention_heads": 7}, ["num_attention_heads", "hidden_size"]),
        ("type", {"model_type": "bert"}, ["model_type", "bert"]),
        ("tolerance", {"attention": ["near_far", "softmax"], "near_far_tolerance": -1}, ["near_far_tolerance"]),
        ("kind of attention", {"attention": "none"}, ["attention", "none"]),
        ("chunks", {"attention": "hybrid", "splat_chunk": 24}, ["splat_chunk", "24"]),
        ("dtype", {"training": {"dtype": "f64"}}, ["training.dtype", "bf16"]),
        ("negative", {"training": {"learning_rate": -1}}, ["training.learning_rate"]),
    ]:
        config = b.write(f"{name}.json", json.dumps({**SMALL, **change}).encode())
        b.refused(name, t.command("new", "--config", config)[1:], words, command="train")
    (path("whole") / "training.safetensors").write_bytes(b"damaged")
    b.refused("damaged", t.command("whole", "--resume")[1:], ["training.safetensors"], command="train")


def main():
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(sys.argv[1]).resolve(), Path(folder))
        training = Training(bench)
        losses(training)
        other_text(training)
        narrow(training)
        near_far(training)
        interruptions(training, [1, 2, 4, 5, 7, 11, 13, 17, 23, 28] if "--long" in sys.argv else [2, 8])
        kept(training)
        use(training)
        constant_memory(training)
        unshifted(training)
        beginning(training)
        schedules(training)
        tokens(training)
        scarce(training)
        refusals(training)
        return bench.summary()


if __name__ == "__main__":
    sys.exit(main())
