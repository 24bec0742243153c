#!/usr/bin/env python3
"""Presets of `attention` trained from nothing beside each other, judged by bits a byte and by planted facts. Prints a Markdown table.

    presets.py CLSPLAT [--kinds softmax,hybrid,…] [--steps N] [--context T] [--batch B] [--width W] [--layers L] [--bytes N] [--keep DIR]
               [--set KEY=JSON …] [--train KEY=JSON …] [--device DEVICE]

What it learns from are the Python files of this Python and its packages, with facts (`<<key ABCD = 12345>>` … `<<ask ABCD = 12345>>`) planted
in 45 % of all stretches of a window's length; it is judged on packages that training has not seen, and by 80 facts planted in windows of
theirs. Without --kinds: softmax, window, splat and hybrid.
"""
import argparse
import json
import pathlib
import random
import re
import subprocess
import sysconfig
import tempfile

import numpy as np
from safetensors.numpy import save_file

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNSEEN = {"sympy", "networkx", "asyncio", "email", "unittest", "xml"}
FACTS, TEXTS = 4, 20  # facts a text, and texts


def plant(text, rng, facts):
    """Facts in a bytearray and the questions behind them. Returns: where the answers begin."""
    places = sorted(rng.sample(range(len(text) // 64), 2 * facts))
    keys = ["".join(rng.choices(LETTERS, k=4)) for _ in range(facts)]
    values = [f"{rng.randrange(100000):05d}" for _ in range(facts)]
    asked, answers = rng.sample(range(facts), facts), []
    for i, place in enumerate(places):
        fact = i if i < facts else asked[i - facts]
        said = f"\n<<{'key' if i < facts else 'ask'} {keys[fact]} = {values[fact]}>>\n".encode()
        text[64 * place : 64 * place + len(said)] = said
        if i >= facts:
            answers.append(64 * place + said.index(b"= ") + 2)
    return answers


def gather(files, wanted):
    text = bytearray()
    for file in files:
        data = file.read_bytes()
        if 500 < len(data) < 200000:
            text += data + b"\n\n"
        if len(text) >= wanted:
            break
    return text[:wanted]


def write_texts(folder, context, wanted):
    """train.txt, unseen.txt and needles.safetensors."""
    rng = random.Random(1)
    roots = {pathlib.Path(sysconfig.get_path(which)) for which in ("stdlib", "purelib")}
    files = sorted({file for root in roots for file in root.rglob("*.py") if file.is_file()})
    unseen = [file for file in files if UNSEEN & set(file.parts)]
    rng.shuffle(seen := [file for file in files if not UNSEEN & set(file.parts)])
    rng.shuffle(unseen)
    train = gather(seen, wanted)
    for begin in range(0, len(train) - context, context):
        if rng.random() < 0.45:
            stretch = train[begin : begin + context]
            plant(stretch, rng, rng.randint(2, min(6, context // 128)))
            train[begin : begin + context] = stretch
    judged = gather(unseen, max(TEXTS * context, min(1_100_000, wanted // 10)))
    (folder / "train.txt").write_bytes(train)
    (folder / "unseen.txt").write_bytes(judged)
    tokens, answers = [], []
    for row in range(TEXTS):
        stretch = judged[row * context : (row + 1) * context]
        answers.append(plant(stretch, rng, FACTS))
        tokens.append(list(stretch))
    save_file({"tokens": np.array(tokens, np.uint8), "answers": np.array(answers, np.int32)}, folder / "needles.safetensors")
    print(f"{len(train)} bytes to learn from, {len(judged)} to be judged by", flush=True)


def configuration(options, kind):
    of = {"vocab_size": 256, "hidden_size": options.width, "num_hidden_layers": options.layers, "num_attention_heads": max(1, options.width // 64),
          "intermediate_size": options.width * 11 // 4, "max_position_embeddings": options.context, "attention": json.loads(kind) if kind[0] == "[" else kind}
    training = {"context": options.context, "batch_size": options.batch, "learning_rate": 0.003, "schedule": "cosine", "warmup": 0.05}
    of.update({key: json.loads(value) for key, value in (pair.split("=", 1) for pair in options.set)})
    training.update({key: json.loads(value) for key, value in (pair.split("=", 1) for pair in options.train)})
    return {**of, "training": training}


def judge(options, folder, kind, number):
    """One line of the table."""
    device = ["--device", options.device] if options.device else []
    model, config = folder / f"model-{number}", folder / f"config-{number}.json"
    config.write_text(json.dumps(configuration(options, kind)))
    run = lambda *words: subprocess.run([options.clsplat, *map(str, words), *device], stdout=subprocess.PIPE, check=True, text=True).stdout
    run("train", folder / "train.txt", "-o", model, "--config", config, "--budget", options.steps, "--validation", folder / "unseen.txt")
    lines = [json.loads(line) for line in (model / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "tokens_per_second" in line][-1]
    cost = json.loads(run("eval", model, folder / "unseen.txt", "--context", options.context, "--json"))
    facts = json.loads(run("eval", model, "--needles", folder / "needles.safetensors", "--context", options.context, "--json"))
    step = options.batch * options.context / last["tokens_per_second"]
    print(f"| {kind} | {cost['bits_per_byte']:.4f} | {facts['recalled']} of {facts['of']} | {1000 * step:.0f} ms |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clsplat")
    parser.add_argument("--kinds", default="softmax,window,splat,hybrid")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--bytes", type=int, default=60_000_000)
    parser.add_argument("--keep", type=pathlib.Path, help="the folder for texts and models; those that are there are used")
    parser.add_argument("--set", action="append", default=[], help="a key of config.json, as splats=64")
    parser.add_argument("--train", action="append", default=[], help="a key of its training, as learning_rate=0.002")
    parser.add_argument("--device", help="as for clsplat")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "needles.safetensors").exists():
            write_texts(folder, options.context, options.bytes)
        print("| layers | bits/byte | facts | a step |\n|---|---|---|---|", flush=True)
        for kind in re.split(r",(?![^\[]*\])", options.kinds):
            judge(options, folder, kind, len(list(folder.glob("config-*"))))


if __name__ == "__main__":
    main()
