#!/usr/bin/env python3
"""The suites on every OpenCL implementation of this machine, as a table.

    implementations.py BUILDDIR WORK [--only NAME] [--suites test_softmax,…] [--jobs N] [--table FILE]

A cell is the number of checks that passed, `N of M` if some failed, or why there is nothing to run. Intel's CPU runtime is looked for in
WORK/intel, a Python environment that `--install` makes by pip (700 MB)."""
import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("intel-opencl-rt", "intel-cmplr-lib-rt")
LOOPS = "its loops end early"
# Name, settings, and what is not for it: suite and why.
IMPLEMENTATIONS = [
    ("PoCL", {"CLSPLAT_DEVICE": "Portable Computing"}, {}),
    ("Intel's CPU runtime", {"CLSPLAT_DEVICE": "Intel(R) OpenCL"}, {}),
    ("rusticl, llvmpipe", {"CLSPLAT_DEVICE": "llvmpipe", "RUSTICL_ENABLE": "llvmpipe"},
     {"test_near_far": LOOPS, "test_forest": LOOPS, "test_init": LOOPS, "test_init_fit": LOOPS, "test_steady": LOOPS, "test_decoding": LOOPS}),
    ("NVIDIA", {"CLSPLAT_DEVICE": "NVIDIA"}, {}),
]
# Folders of tests whose suites never open a device.
HOST = ("base", "format", "naive")
LIMIT = 3600


def suites(builddir):
    """Names and programs, in the order of the build."""
    told = subprocess.run(["meson", "introspect", "--tests", str(builddir)], check=True, stdout=subprocess.PIPE).stdout
    for test in json.loads(told):
        if not any(s.split(":")[-1] in HOST for s in test["suite"]):
            yield test["name"], test["cmd"]


def environment(settings, work, name):
    cache = work / re.sub(r"\W+", "-", name)
    cache.mkdir(parents=True, exist_ok=True)
    return dict(os.environ, **settings, VIRTUAL_ENV=str(work / "intel"), XDG_CACHE_HOME=str(cache), POCL_CACHE_DIR=str(cache / "pocl"),
                XDG_DATA_HOME=str(cache / "data"), CLSPLAT_TEST_TIER="small")


def cell(program, settings, unfit):
    """Checks that passed and failed, and words."""
    suite, command = program
    if suite in unfit:
        return 0, 0, unfit[suite]
    try:
        done = subprocess.run(command, check=False, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
                              timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return 0, 1, f"longer than {LIMIT} s"
    counts = re.findall(r"^.*?(\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE) or re.findall(r"^(\d+)/(\d+) cases pass", done.stdout, re.MULTILINE)
    if not counts:
        return (0, 0, "skipped") if done.returncode == 0 else (0, 1, "ends with " + str(done.returncode))
    first, second = int(counts[-1][0]), int(counts[-1][1])
    failed = second - first if "cases pass" in done.stdout else second
    if failed or done.returncode:
        print("\n".join(line for line in done.stdout.splitlines() if re.search(r":[FE]:|FAIL", line))[:2000])
    return first, failed, f"{first} of {first + failed}" if failed else str(first)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builddir", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", default="", help="a part of an implementation's name")
    parser.add_argument("--suites", default="", help="these alone, and `golden`")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="suites at once")
    parser.add_argument("--table", type=Path)
    a = parser.parse_args()
    a.builddir, a.work = a.builddir.resolve(), a.work.resolve()
    if a.install and not (a.work / "intel" / "lib" / "libintelocl.so").exists():
        subprocess.run([sys.executable, "-m", "venv", str(a.work / "intel")], check=True)
        subprocess.run([str(a.work / "intel" / "bin" / "pip"), "install", "-q", *PACKAGES], check=True)
    wanted = [w for w in a.suites.split(",") if w]
    programs = [*suites(a.builddir), ("golden", [sys.executable, str(HERE.parent / "golden" / "check.py"), str(a.builddir / "clsplat"), "--forward"])]
    programs = [(name, command) for name, command in programs if not wanted or name in wanted]
    names, columns, passed, failed = [name for name, _ in programs], [], 0, 0
    for name, settings, unfit in IMPLEMENTATIONS:
        if a.only not in name:
            continue
        settings = environment(settings, a.work, name)
        if subprocess.run([str(a.builddir / "clsplat"), "bench", "--op", "gemm", "--shape", "1,1,8,8,8,8", "--repeat", "1"], check=False, env=settings,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            print(f"skipped: {name}: it is not on this machine")
            continue
        cells = {}
        with ThreadPoolExecutor(a.jobs) as pool:
            for suite, (good, bad, words) in zip(names, pool.map(partial(cell, settings=settings, unfit=unfit), programs)):
                passed, failed, cells[suite] = passed + good, failed + bad, words
                print(f"{name}: {suite}: {words}", flush=True)
        columns.append((name, cells))
    lines = ["| suite | " + " | ".join(name for name, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += ["| " + " | ".join([suite.replace("test_", ""), *(cells[suite] for _, cells in columns)]) + " |" for suite, _ in programs]
    print("\n".join(lines))
    if a.table:
        a.table.write_text("\n".join(lines) + "\n")
    print(f"implementations: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
