#!/usr/bin/env python3
"""The same training in PyTorch: the same weights, windows and AdamW.   twin.py CLSPLAT [--record] [NAME …]

Trains a small model with `clsplat train` and its twin, which transformers loads from the folder, and compares the loss of
every step. With --record the twin's losses go to twin.json, for test_train.py to compare with where there is no PyTorch.
"""
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import pattern

HERE = Path(__file__).resolve().parent
CONFIG = {
    "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96,
    "training": {"context": 48, "batch_size": 3, "gradient_accumulation": 2, "learning_rate": 0.005, "steps": 40,
                 "seed": 7, "clip": 0.5, "weight_decay": 0.1},
}
PATTERN = {
    "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "attention": ["splat", "window", "softmax"], "sliding_window": 12, "splats": 10, "splat_chunk": 8,
    "training": {"context": 48, "batch_size": 3, "gradient_accumulation": 1, "learning_rate": 0.005, "steps": 40, "seed": 9,
                 "clip": 0.5, "weight_decay": 0.1},
}
# Encoders, whose losses are of masked tokens: one that transformers knows, and one with a pattern.
ENCODER = {**{k: v for k, v in CONFIG.items() if k != "training"}, "is_decoder": False,
           "training": {**CONFIG["training"], "gradient_accumulation": 1, "mlm_probability": 0.2}}
BOTH_WAYS = {**PATTERN, "is_decoder": False}
MASK = (1 << 64) - 1


LINES = [b"attention of the key", b"attention of the keys", b"window.\nsplat"[:6], b"near" * 11]


def text():
    """What is learned from: 30,000 bytes that no file needs to hold, of words in an order that can be guessed in part."""
    words = ["attention", "splat", "softmax", "key", "query", "value", "near", "far", "level", "window"]
    x, out = 1, []
    while sum(map(len, out)) < 30000:
        x = (x * 1103515245 + 12345) % (1 << 31)
        out.append(words[(x >> 16) % len(words)] + (" of the " if (x >> 8) % 3 else ".\n"))
    return "".join(out).encode()[:30000]


class Random:
    """src/base/random.c."""

    def __init__(self, seed, stream):
        self.state = stream
        self.state = seed ^ self.next()

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        x = self.state
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
        return x ^ x >> 31

    def below(self, limit):
        biased = (1 << 64) % limit
        while True:
            x = self.next()
            if x >= biased:
                return x % limit


def windows(data, settings, step, part):
    """src/train/run.c, draw_windows."""
    random = Random(settings["seed"] ^ 0x7261696E, step * settings["gradient_accumulation"] + part)
    length = settings["context"]
    places = [random.below(len(data) - length) for _ in range(settings["batch_size"])]
    return [data[p : p + length + 1] for p in places]


def hidden(rows, settings, step, part):
    """What an encoder reads of the windows, and what it is asked; −100 elsewhere. src/train/batch.c, hide."""
    length, count = settings["context"], settings["batch_size"]
    asked = round(settings.get("mlm_probability", 0.15) * length)
    draw = step * settings["gradient_accumulation"] + part
    read, targets = [], []
    for row, tokens in enumerate(rows):
        random, left = Random(settings["seed"] ^ 0x6D61736B, draw * count + row), asked
        tokens, target = list(tokens[:length]), [-100] * length
        for i in range(length):
            if random.below(length - i) >= left:
                continue
            how, target[i] = random.below(10), tokens[i]
            if how < 9:
                tokens[i] = 255 if how < 8 else random.below(256)
            left -= 1
        read.append(tokens)
        targets.append(target)
    return read, targets


def rate(settings, done, warmup=0.05, final=0.05):
    fall = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
    return settings["learning_rate"] * min(1, done / warmup) * fall


def known(folder):
    """The model as transformers loads it: what maps tokens to logits, and to rows before the head, and its parameters."""
    import torch
    from transformers import EuroBertForMaskedLM, LlamaForCausalLM

    encoder = json.loads((folder / "config.json").read_text())["model_type"] == "eurobert"
    model = (EuroBertForMaskedLM if encoder else LlamaForCausalLM).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train()
    rows_of = lambda rows: model.model(rows).last_hidden_state
    return lambda rows: model(rows).logits, rows_of, dict(model.named_parameters())


def torch_losses(begin, data, settings, encoder):
    import torch

    torch.set_num_threads(1)
    logits_of, _, parameters = begin
    splats = ("splat_mean", "splat_log_precision")
    matrices = [p for n, p in parameters.items() if p.ndim == 2 and not any(s in n for s in splats)]
    vectors = [p for n, p in parameters.items() if p.ndim == 1 or any(s in n for s in splats)]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": vectors, "weight_decay": 0}],
        lr=1, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(settings["steps"]):
        total = 0
        optimiser.zero_grad()
        for part in range(settings["gradient_accumulation"]):
            rows = [list(w) for w in windows(data, settings, step, part)]
            read, targets = hidden(rows, settings, step, part) if encoder else ([w[:-1] for w in rows], [w[1:] for w in rows])
            logits = logits_of(torch.tensor(read))
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 256), torch.tensor(targets).reshape(-1))
            (loss / settings["gradient_accumulation"]).backward()
            total += loss.item() / settings["gradient_accumulation"]
        torch.nn.utils.clip_grad_norm_(parameters.values(), settings["clip"])
        for group in optimiser.param_groups:
            group["lr"] = rate(settings, (step + 1) / settings["steps"])
        optimiser.step()
        losses.append(total)
    return losses


def vectors(rows_of):
    """As `clsplat embed` makes them: means of a text's rows."""
    import torch

    with torch.no_grad():
        return [rows_of(torch.tensor([list(line)]))[0].mean(0).tolist() for line in LINES]


def embedded(clsplat, folder, *options):
    out = subprocess.run([clsplat, "embed", str(folder), "-", "--json", *options], input=b"\n".join(LINES), capture_output=True, check=True)
    return json.loads(out.stdout)["embeddings"]


def train(clsplat, work, name, configuration, *options):
    """A run that reports every step; its folder."""
    (work / "text").write_bytes(text())
    (work / "config.json").write_text(json.dumps(configuration))
    command = [clsplat, "train", work / "text", "-o", work / name, "--config", work / "config.json", "--report", "0", "--dtype", "f32"]
    subprocess.run([*map(str, command), *options], check=True, stderr=subprocess.DEVNULL)
    return work / name


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def held_out(data):
    """src/cli/cmd_train.c, split: a file's bytes with the 0 behind them, less the last fiftieth."""
    data = data + b"\0"
    return data[: len(data) - max(len(data) // 50, 2 * 48)]


def main():
    clsplat = str(Path(sys.argv[1]).resolve())
    only = [a for a in sys.argv[2:] if a != "--record"]
    recorded, bad = json.loads((HERE / "twin.json").read_text()), False
    for name, configuration, load in [("llama", CONFIG, known), ("pattern", PATTERN, pattern.load), ("encoder", ENCODER, known),
                                      ("both ways", BOTH_WAYS, pattern.load)]:
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as place:
            work = Path(place)
            begin = train(clsplat, work, "begin", configuration, "--rate", "0", "--budget", "1")
            encoder = not configuration.get("is_decoder", True)
            twin = torch_losses(load(begin), held_out(text()), configuration["training"], encoder)
            folder = train(clsplat, work, "ours", configuration)
            ours = losses_of(folder)
            if encoder:
                theirs, found = vectors(load(folder)[1]), embedded(clsplat, folder)
                off = max(abs(a - b) for x, y in zip(found, theirs) for a, b in zip(x, y))
                print(f"{name}: {len(found)} vectors of texts differ by {off:.1e} at most, the largest number is {max(map(max, theirs)):.2f}")
                recorded[name + ": vectors"] = [[round(x, 5) for x in v] for v in theirs]
                bad = bad or not off < 1e-4
        worst = max(abs(a - b) for a, b in zip(ours, twin))
        print(f"{name}: {len(ours)} steps: loss {ours[0]:.4f} to {ours[-1]:.4f}, the twin's {twin[-1]:.4f}; they differ by {worst:.1e} at most")
        recorded[name] = [round(x, 6) for x in twin]
        bad = bad or len(ours) != len(twin) or not worst < 1e-3
    if "--record" in sys.argv:
        (HERE / "twin.json").write_text(json.dumps(recorded) + "\n")
    return bad


if __name__ == "__main__":
    sys.exit(main())
