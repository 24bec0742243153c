#!/usr/bin/env python3
"""The same training in PyTorch: the same weights, windows and AdamW.   twin.py CLSPLAT [--record]

Trains a small model with `clsplat train` and its twin, which transformers loads from the folder, and compares the loss of
every step. With --record the twin's losses go to twin.json, for test_train.py to compare with where there is no PyTorch.
"""
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIG = {
    "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96,
    "training": {"context": 48, "batch_size": 3, "gradient_accumulation": 2, "learning_rate": 0.005, "steps": 40,
                 "seed": 7, "clip": 0.5, "weight_decay": 0.1},
}
MASK = (1 << 64) - 1


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


def rate(settings, done, warmup=0.05, final=0.05):
    fall = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
    return settings["learning_rate"] * min(1, done / warmup) * fall


def torch_losses(folder, data, settings):
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": vectors, "weight_decay": 0}],
        lr=1, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(settings["steps"]):
        total = 0
        optimiser.zero_grad()
        for part in range(settings["gradient_accumulation"]):
            rows = torch.tensor([list(w) for w in windows(data, settings, step, part)])
            logits = model(rows[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 256), rows[:, 1:].reshape(-1))
            (loss / settings["gradient_accumulation"]).backward()
            total += loss.item() / settings["gradient_accumulation"]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
        for group in optimiser.param_groups:
            group["lr"] = rate(settings, (step + 1) / settings["steps"])
        optimiser.step()
        losses.append(total)
    return losses


def train(clsplat, work, name, *options):
    """A run that reports every step; its folder."""
    (work / "text").write_bytes(text())
    (work / "config.json").write_text(json.dumps(CONFIG))
    command = [clsplat, "train", work / "text", "-o", work / name, "--config", work / "config.json", "--report", "0"]
    subprocess.run([*map(str, command), *options], check=True, stderr=subprocess.DEVNULL)
    return work / name


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def held_out(data):
    """src/cli/cmd_train.c, split: a file's bytes with the 0 behind them, less the last fiftieth."""
    data = data + b"\0"
    return data[: len(data) - max(len(data) // 50, 2 * CONFIG["training"]["context"])]


def main():
    clsplat = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        begin = train(clsplat, work, "begin", "--rate", "0", "--budget", "1")
        twin = torch_losses(begin, held_out(text()), CONFIG["training"])
        ours = losses_of(train(clsplat, work, "ours"))
    worst = max(abs(a - b) for a, b in zip(ours, twin))
    print(f"{len(ours)} steps: loss {ours[0]:.4f} to {ours[-1]:.4f}, the twin's {twin[-1]:.4f}; they differ by {worst:.1e} at most")
    if "--record" in sys.argv:
        (HERE / "twin.json").write_text(json.dumps([round(x, 6) for x in twin]) + "\n")
    return 0 if len(ours) == len(twin) and worst < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
