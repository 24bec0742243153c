#!/usr/bin/env python3
"""Splats of a model that adapt while it learns and while it reads.   test_adaptation.py PATH_TO_CLSPLAT

Ends with `N passed, N failed, N skipped`; exits 1 if anything failed.
"""
import json
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

import test_train
import topic
from bench import Bench

MODEL = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
         "intermediate_size": 128, "attention": ["splat", "softmax"], "splats": 32, "splat_chunk": 32,
         "adaptation": {"adaptation_frequency": 10},
         "training": {"context": 128, "batch_size": 4, "learning_rate": 0.004, "steps": 40, "seed": 3}}
DECISIONS = {"mitosis", "birth", "death", "merge"}


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def learning(t):
    """Decisions are told, each with a reason; a run that was stopped goes on with the same bits."""
    b = t.bench
    t.config = b.write("adapting.json", json.dumps(MODEL).encode())
    b.works("train", *t.command("whole", "--config", t.config), limit=test_train.LIMIT)
    told = [e for e in events(b.path("whole") / "adaptation.jsonl") if "decision" in e]
    b.check("train: decisions", {e["decision"] for e in told} <= DECISIONS and len({e["cycle"] for e in told}) == 4, str(told[:3]))
    b.check("train: some stay", any(e["kept"] for e in told), f"none of {len(told)}")
    b.check("train: reasons", all(set(e["reason"]) == {"use", "entropy", "leave_one_out", "coverage", "expected_gain"} for e in told), str(told[:1]))
    b.check("train: coverage", all(e["error_after"] < e["error_before"] for e in told if e["kept"]), "one made it worse")
    cycles = [e for e in events(b.path("whole") / "adaptation.jsonl") if "lifetimes" in e]
    b.check("train: lifetimes", len(cycles) == 4 and all(set(e["lifetimes"]) == {"ended", "mean", "longest"} for e in cycles), str(cycles))
    process = t.start("stopped", "--config", t.config, "--save", "3")
    test_train.wait_for(t, process, "stopped", 13)
    process.send_signal(signal.SIGINT)
    process.communicate()
    test_train.resumed(t, "stopped", "stopped")
    b.check("resume: numbers and ages go on", events(b.path("stopped") / "adaptation.jsonl") == events(b.path("whole") / "adaptation.jsonl"), "other decisions are told")
    still = b.write("still.json", json.dumps({**MODEL, "adaptation": {"enable_adaptation": False}}).encode())
    b.works("train: off", *t.command("off", "--config", still), limit=test_train.LIMIT)
    b.check("train: off", not (b.path("off") / "adaptation.jsonl").exists(), "it adapts all the same")


def reading(t):
    """From Python to a licence: the new text is covered again within 512 tokens."""
    b, model = t.bench, t.bench.path("whole")
    with_it, without = topic.readings(b.binary, model, 128)
    before = max(-line["before"] for line in with_it[:-1] if topic.HALF - 1024 < line["tokens"] <= topic.HALF)
    after, fixed = (topic.error_at(lines, topic.HALF + 256, topic.HALF + 512) for lines in (with_it, without))
    b.check("reading: recovers", after <= max(before, 0.25 * fixed), f"{before} at worst before, {after} after, {fixed} without")
    b.check("reading: helps", after < 0.5 * fixed, f"{after}, and {fixed} without")
    b.check("reading: goes back", with_it[-1]["goes_back"], "not as far as it says, or not to the same logits")
    b.check("reading: decisions", with_it[-2]["decisions"] > 0 == without[-2]["decisions"], f"{with_it[-2]} {without[-2]}")


def commands(t):
    b, model, text, log = t.bench, t.bench.path("whole"), t.bench.write("topic.txt", topic.text()), t.bench.path("told.jsonl")
    bits = {}
    for every in ("0", "64", "256"):
        report = b.works(f"eval --adapt {every}", "eval", model, text, "--adapt", every, "--history", log, "--json")
        bits[every] = json.loads(report)["bits_per_byte"] if report else 99
        cycles = {e["cycle"] for e in events(log)}
        b.check(f"eval --adapt {every}: cycles", (len(cycles) > 3) == (every != "0"), str(cycles))
    b.check("eval --adapt: no harm", max(bits.values()) < 1.02 * bits["0"], str(bits))
    again = b.works("eval --adapt again", "eval", model, text, "--adapt", "64", "--json")
    b.check("eval --adapt: the same", again and json.loads(again)["bits_per_byte"] == bits["64"], f"{again} {bits}")
    words = {b.works(f"generate --adapt {n}", "generate", model, "-p", "def " * 40, "-n", "40", "--adapt", "32", *n.split()) for n in ("", "--context 512")}
    b.check("generate --adapt: the same", len(words) == 1, str(words))
    b.refused("adapt: x", [model, "-p", "a", "--adapt", "x"], ["--adapt"], statuses=[2], command="generate")
    for name, change, said in [("unknown key", {"speed": 1}, "adaptation.speed"), ("no object", 3, "adaptation"), ("range", {"death_threshold": 2}, "adaptation.death_threshold")]:
        config = b.write("bad.json", json.dumps({**MODEL, "adaptation": change}).encode())
        b.refused(name, t.command("new", "--config", config)[1:], [said], command="train")


def main():
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(sys.argv[1]).resolve(), Path(folder))
        training = test_train.Training(bench)
        learning(training)
        reading(training)
        commands(training)
        return bench.summary()


if __name__ == "__main__":
    sys.exit(main())
