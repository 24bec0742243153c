"""Splats that adapt while a text is read that changes its topic, from Python to an English licence.   topic.py CLSPLAT MODEL [EVERY]

`readings` has what tests/train/test_adaptation.py asks for; as a program it prints, for a model with splat layers, how well splats
cover the tokens since the cycle before, with adaptation and without, and what adaptation costs in generation.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
HALF = 2048  # tokens of each topic, which are bytes


def text():
    python = Path(argparse.__file__).read_bytes()[2500:]
    licence = Path("/usr/share/common-licenses/GPL-3")
    english = licence.read_bytes() if licence.exists() else 4 * (HERE.parent.parent / "LICENSE").read_bytes()
    return python[:HALF] + english[:HALF]


def reader(binary):
    return Path(binary).resolve().parent / "tests" / "adapting"


def read(binary, model, path, every):
    done = subprocess.run([reader(binary), model, path, str(every)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def still(model, folder):
    """The same model with splats that look and never do anything."""
    to = Path(folder) / "still"
    shutil.copytree(model, to, ignore=shutil.ignore_patterns("training.safetensors"))
    config = json.loads((to / "config.json").read_text())
    config["adaptation"] = {"least_gain": 1}
    (to / "config.json").write_text(json.dumps(config))
    return to


def readings(binary, model, every):
    """Lines of the model's reading with adaptation, and of the same without."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        path.write_bytes(text())
        return read(binary, model, path, every), read(binary, still(model, folder), path, every)


def error_at(lines, first, last):
    """How far from a splat's middle tokens were that the splats had not adapted to yet: the mean over cycles."""
    found = [-line["before"] for line in lines[:-1] if first < line["tokens"] <= last]
    return sum(found) / len(found)


def main():
    binary, model, every = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 256
    with_it, without = readings(binary, model, every)
    for a, b in zip(with_it[:-1], without[:-1]):
        print(f"{a['tokens']:6} tokens: coverage {a['before']:9.4f}, after the cycle {a['after']:9.4f}; without adaptation {b['before']:9.4f}")
    last = with_it[-1]
    print(f"Python before the change {-error_at(with_it, HALF - 512, HALF):.4f}, licence from 257 to 512 tokens after it "
          f"{-error_at(with_it, HALF + 256, HALF + 512):.4f}, without adaptation {-error_at(without, HALF + 256, HALF + 512):.4f}")
    print(f"time: {last['seconds']:.3f} s with, {last['still']:.3f} s without ({last['seconds'] / last['still'] - 1:+.1%}); "
          f"of processors {last['processors']:.3f} and {last['processors_still']:.3f} s ({last['processors'] / last['processors_still'] - 1:+.1%})")


if __name__ == "__main__":
    main()
