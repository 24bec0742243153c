"""Caches and records that were damaged: damage.py BINARY [--all]

Bytes flipped, cut off, doubled, put elsewhere, in entries of the kernel cache and in tuning records: the next run gives the
numbers of the one before, to the bit, or says which line it left out. What is damaged in PoCL's own cache is PoCL's affair: it
looks at none of it, and is kept apart here.
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INPUT = f"{TESTS}/golden/causal-gqa-key-bias/input.safetensors"
with open(f"{TESTS}/../cl/tuning.txt", "rb") as shipped:
    RECORDS = shipped.read()


def flip(bytes_, dice):
    at = dice.randrange(len(bytes_))
    return bytes_[:at] + bytes([bytes_[at] ^ 1 << dice.randrange(8)]) + bytes_[at + 1:]


def cut(bytes_, dice):
    return bytes_[:dice.randrange(len(bytes_))]


def double(bytes_, dice):
    return bytes_ + bytes_[dice.randrange(len(bytes_)):] + b"\n"


def shuffle(bytes_, dice):
    at = dice.randrange(len(bytes_))
    return bytes_[at:] + bytes_[:at]


def zeros(bytes_, dice):
    at = dice.randrange(len(bytes_))
    return bytes_[:at] + bytes(min(512, len(bytes_) - at)) + bytes_[at + 512:]


DAMAGES = (flip, cut, double, shuffle, zeros)


class Damage:
    def __init__(self, binary):
        self.binary, self.folder = os.path.abspath(binary), tempfile.mkdtemp(prefix="clsplat-damage-")
        self.cache, self.data = f"{self.folder}/cache/clsplat", f"{self.folder}/data/clsplat"
        self.passed = self.failed = 0
        os.makedirs(self.data)

    def run(self):
        out = f"{self.folder}/out"
        if os.path.exists(out):
            os.remove(out)
        done = subprocess.run([self.binary, "attend", INPUT, "-o", out, "--causal"], capture_output=True, timeout=1800,
                              env=dict(os.environ, XDG_CACHE_HOME=f"{self.folder}/cache", XDG_DATA_HOME=f"{self.folder}/data"))
        if done.returncode != 0:
            return done.returncode, done.stderr.decode("utf-8", "replace")
        with open(out, "rb") as f:
            return 0, f.read()

    def check(self, name, good, why=""):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAIL: {name}: {why}", flush=True)

    def entries(self, times, dice, whole):
        for n in range(times):
            for name in os.listdir(self.cache):
                path = f"{self.cache}/{name}"
                with open(path, "rb") as f:
                    old = f.read()
                damage = DAMAGES[n % len(DAMAGES)]
                damaged = damage(old, dice)
                with open(path, "wb") as f:
                    f.write(damaged)
                got = self.run()
                self.check(f"a cache entry, {damage.__name__}", got == whole, got[1] if got[0] else "other numbers")
                with open(path, "rb") as f:
                    new = f.read()
                self.check("the entry is mended", len(new) == len(old) and (damaged == old or new != damaged), damage.__name__)

    def records(self, times, dice, whole):
        path = f"{self.data}/tuning.txt"
        for n in range(times):
            damage = DAMAGES[n % len(DAMAGES)]
            with open(path, "wb") as f:
                f.write(damage(RECORDS, dice))
            got = self.run()
            self.check(f"tuning records, {damage.__name__}", got == whole, got[1] if got[0] else "other numbers")
        os.remove(path)


def main():
    every = "--all" in sys.argv
    d, dice = Damage(sys.argv[1]), random.Random(20)
    whole = d.run()
    d.check("it runs undamaged", whole[0] == 0 and d.run() == whole, whole[1] if whole[0] else "")
    d.check("there is a cache", os.path.isdir(d.cache) and os.listdir(d.cache))
    shutil.rmtree(d.cache, ignore_errors=True)
    d.check("it is made again", d.run() == whole and os.listdir(d.cache))  # whatever PoCL has compiled by now is part of it
    d.entries(500 if every else 10, dice, whole)
    d.records(500 if every else 10, dice, whole)
    shutil.rmtree(d.folder, ignore_errors=True)
    print(f"damage: {d.passed} passed, {d.failed} failed")
    return 1 if d.failed or not d.passed else 0


if __name__ == "__main__":
    sys.exit(main())
