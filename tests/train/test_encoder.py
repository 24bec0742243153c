#!/usr/bin/env python3
"""Encoders trained on masked tokens.   test_encoder.py PATH_TO_CLSPLAT

The losses of PyTorch twins and the vectors of texts that they make (twin.json, by twin.py): one that transformers knows, and one
whose layers are splats, a window and softmax; the same bits after Ctrl-C, kill -9 and --resume; what must be refused. Ends with
`N passed, N failed, N skipped`; exits 1 if anything failed.
"""
import json
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

import test_train
import twin
from bench import Bench
from test_train import LIMIT

SMALL = {**test_train.SMALL, "is_decoder": False, "attention": ["splat", "window"], "num_hidden_layers": 2, "sliding_window": 8, "splats": 6}
RECORDED = json.loads((Path(__file__).resolve().parent / "twin.json").read_text())


def furthest(ours, theirs):
    return max(abs(a - b) for a, b in zip(ours, theirs)) if len(ours) == len(theirs) else 99


def losses(t):
    b = t.bench
    for name, configuration in [("encoder", twin.ENCODER), ("both ways", twin.BOTH_WAYS)]:
        config, model = b.write(f"{name}.json", json.dumps(configuration).encode()), b.path(name)
        if b.works(name, *t.command(name, "--config", config, "--dtype", "f32"), limit=LIMIT) is None:
            continue
        ours = twin.losses_of(model)
        off = furthest(ours, RECORDED[name])
        b.check(f"{name}: losses", off < 1e-3 and ours[-1] < ours[0] - 2, f"off by {off:.2g}, from {ours[0]} to {ours[-1]}")
        found, theirs = twin.embedded(b.binary, model), RECORDED[f"{name}: vectors"]
        off = max(furthest(x, y) for x, y in zip(found, theirs))
        b.check(f"{name}: vectors", len(found) == len(theirs) and off < 1e-3, f"{len(found)} vectors, off by {off:.2g}")
        for how in (["--attention", "near-far", "--tolerance", "0", "--chunk", "16"], []):
            off = max(furthest(x, y) for x, y in zip(twin.embedded(b.binary, model, *how), theirs))
            b.check(f"{name}: vectors {how[:2]}", off < 1e-3, f"off by {off:.2g}")
        last = json.loads((model / "log.jsonl").read_text().splitlines()[-1])
        b.check(f"{name}: validation", last["validation_bits_per_byte"] < 5, str(last))
        guesses = b.works(f"{name}: fill", "eval", model, "--fill", "attention of th\udcff near.\nsplat", "--json")
        masks = json.loads(guesses)["masks"] if guesses else []
        b.check(f"{name}: guess", [len(m) for m in masks] == [5] and 0.05 < sum(g["probability"] for g in masks[0]) < 1, str(masks))
    known = json.loads((b.path("encoder") / "config.json").read_text())
    b.check("encoder: type", (known["model_type"], known["architectures"]) == ("eurobert", ["EuroBertForMaskedLM"]), str(known))


def near_far(t):
    """Trees with a tolerance of 0 are softmax attention; with one of 0.2 it learns as much."""
    for tolerance, limit in [(0, 1e-3), (0.2, 0.1)]:
        name = f"near_far-{tolerance}"
        configuration = {**twin.BOTH_WAYS, "attention": ["splat", "window", "near_far"], "near_far_tolerance": tolerance, "near_far_chunk": 16}
        config = t.bench.write(f"{name}.json", json.dumps(configuration).encode())
        if t.bench.works(name, *t.command(name, "--config", config, "--dtype", "f32"), limit=LIMIT) is None:
            continue
        off = furthest(twin.losses_of(t.bench.path(name)), RECORDED["both ways"])
        t.bench.check(f"{name}: losses", off < limit, f"off by {off:.2g}")


def interruptions(t):
    b = t.bench
    b.works("whole", *t.command("whole", "--config", t.config), limit=LIMIT)
    b.works("again", *t.command("again", "--config", t.config, "--recompute"), limit=LIMIT)
    b.check("recompute", t.bits("again") == t.bits("whole"), "other bits with layers run again")
    for name, moment, how in [("killed", 5, signal.SIGKILL), ("stopped", 11, signal.SIGINT)]:
        process = t.start(name, "--config", t.config, "--save", "3")
        test_train.wait_for(t, process, name, moment)
        process.send_signal(how)
        process.communicate()
        test_train.resumed(t, name, name, "--save", "3")
    b.works("narrow", *t.command("narrow", "--config", t.config, "--dtype", "bf16"), limit=LIMIT)
    off = furthest(twin.losses_of(b.path("narrow")), twin.losses_of(b.path("whole")))
    b.check("narrow: losses", off < 0.05, f"off by {off:.2g} in bfloat16")
    b.works("from", *t.command("tuned", "--from", b.path("whole"), "--context", "32", "--batch", "2", "--budget", "3", "--rate", "1e-5"), limit=LIMIT)
    b.check("from: loss", twin.losses_of(b.path("tuned"))[0] < 5.0, "begins as if nothing had been learned")


def refusals(t):
    b = t.bench
    for name, change, words in [
        ("adaptation", {"adaptation": {"adaptation_frequency": 10}}, ["adaptation", "is_decoder"]),
        ("a decoder's type", {"model_type": "llama"}, ["is_decoder", "llama", "eurobert"]),
        ("direction", {"is_decoder": "no"}, ["is_decoder"]),
        ("share", {"training": {"mlm_probability": 2}}, ["training.mlm_probability"]),
        ("mask", {"mask_token_id": 256}, ["mask_token_id"]),
        ("learned positions", {"model_type": "bert"}, ["model_type", "bert"]),
    ]:
        config = b.write(f"{name}.json", json.dumps({**SMALL, **change}).encode())
        b.refused(name, t.command("new", "--config", config)[1:], words, command="train")
    model = b.path("whole")
    b.refused("distill", [model, t.text, "-o", b.path("new"), "--context", "32", "--batch", "2"], ["is an encoder"], command="distill")
    b.refused("generate", [model, "-p", "a"], ["clsplat embed"], command="generate")
    b.refused("eval", [model, t.text], ["clsplat embed"], command="eval")
    b.refused("topk", [model, t.text, "--attention", "topk", "--sparse-topk", "4"], ["encoder"], command="embed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(sys.argv[1]).resolve(), Path(folder))
        training = test_train.Training(bench)
        training.config = bench.write("small.json", json.dumps(SMALL).encode())
        losses(training)
        near_far(training)
        interruptions(training)
        refusals(training)
        return bench.summary()


if __name__ == "__main__":
    sys.exit(main())
