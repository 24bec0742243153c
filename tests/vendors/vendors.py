#!/usr/bin/env python3
"""What other vendors' compilers make of every kernel that the library would build for their devices, without one of them.

    vendors.py BUILDDIR TOOLS WORK [--targets gfx1030,dg2,…] [--long] [--seconds N] [--jobs N] [--table FILE]

The library writes down what it builds while it poses as such a device (dump.py, pose.c); compilers unpacked by tools.sh build it again
(targets.py). A line for each kernel and number of columns; FAIL, and status 1, for what does not build or link, more local memory than
the device has, 10 s of compiling, and spilled registers in a row that is offered there: any but row 0, which must run on anything. What
known.txt lists is told, and fails only once it has passed."""
import argparse
import fnmatch
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dump import dump, programs
from targets import POSES, Tools, compile_for

HERE = Path(__file__).resolve().parent
LOCAL = {"amd": 64 << 10, "rdna3": 64 << 10, "cdna": 64 << 10, "intel": 64 << 10, "arc": 64 << 10, "pvc": 128 << 10}
SECONDS = 10


def plain_sources():
    """The sources of all rows 0, as the tables of src/op name them."""
    text = "".join(p.read_text() for p in (HERE.parent.parent / "src" / "op").rglob("*.c"))
    return set(re.findall(r'\{"plain",[^}]*?op_fits_all,[^}]*?"(\w+\.cl)"', text))


def columns(program):
    found = dict(re.findall(r"-D(D|DV)=(\d+)", " ".join(program["flags"])))
    return found.get("D") or found.get("DV") or "-"


def faults(found, pose, plain, on_units):
    if "error" in found:
        return ["does not build: " + found["error"].splitlines()[-1]]
    wrong = ["undefined: " + ", ".join(found["undefined"])] if found["undefined"] else []
    if found["local"] > LOCAL[pose]:
        wrong.append(f"{found['local']} bytes of local memory")
    if found["seconds"] > SECONDS:
        wrong.append(f"{found['seconds']} s of compiling")
    if on_units and not found["products"]:
        wrong.append("no instruction of matrix units")
    if found["spills"] and not plain:
        wrong.append(f"{found['spills']} registers spilled")
    return wrong


def span(found, what):
    numbers = [f[what] for f in found if what in f]
    low, high = (f"{n:.3g}" if isinstance(n, float) else str(n) for n in (min(numbers), max(numbers))) if numbers else ("-", "-")
    return low if low == high else f"{low}-{high}"


def table(results):
    """Lines of the whole table, each of one kernel, number of columns and target; several types of tensors give ranges."""
    rows = defaultdict(list)
    for r in results:
        rows[r["kernel"], r["columns"], r["target"]].append(r["found"])
    yield f"{'kernel':24} {'D':>4} {'target':8} {'registers':>10} {'spills':>8} {'scratch':>10} {'local':>12} {'width':>6} {'waves':>8} {'seconds':>8}"
    for (kernel, dim, target), found in sorted(rows.items()):
        words = (span(found, w) for w in ("registers", "spills", "scratch", "local", "width", "waves", "seconds"))
        yield "{:24} {:>4} {:8} {:>10} {:>8} {:>10} {:>12} {:>6} {:>8} {:>8}".format(kernel, dim, target, *words)


def summary(results):
    """A line for each target: kernels built, those that spill, and the most of what is asked."""
    yield "| target | kernels | most registers | spill: rows 0, others | most local memory | slowest, processor time | waves a SIMD |"
    yield "|---|---|---|---|---|---|---|"
    for target in dict.fromkeys(r["target"] for r in results):
        of = [r for r in results if r["target"] == target and "error" not in r["found"]]
        if not of:
            continue
        spilling = [r["plain"] for r in of if r["found"]["spills"]]
        slowest = max(of, key=lambda r: r["found"]["seconds"])
        most, registers = (max(r["found"][what] for r in of) for what in ("local", "registers"))
        waves = span([r["found"] for r in of], "waves")
        yield f"| {target} | {len(of)} | {registers} | {sum(spilling)}, {len(spilling) - sum(spilling)} | {most / 1024:.1f} KiB | " \
              f"{slowest['found']['seconds']} s, {slowest['kernel']} D {slowest['columns']} | {waves} |"


def known_faults():
    """[target, kernel, columns, why]: patterns of the first three."""
    lines = (HERE / "known.txt").read_text().splitlines()
    return [line.split(None, 3) for line in lines if line and not line.startswith("#")]


def judge(results, whole):
    """Prints what fails; returns how many passed and failed. `whole`: targets that lack nothing."""
    known, seen, passed, failed = known_faults(), set(), 0, 0
    for r in results:
        wrong = faults(r["found"], POSES[r["target"]], r["plain"], "-DUNITS=" in r["options"] and r["target"] != "spirv")
        which = next((i for i, k in enumerate(known) if wrong and all(fnmatch.fnmatch(r[w], k[j]) for j, w in enumerate(("target", "kernel", "columns")))), None)
        if which is not None:
            if which not in seen:
                print(f"known: {r['kernel']} D {r['columns']} on {r['target']}: {'; '.join(wrong)}: {known[which][3]}")
            seen.add(which)
        elif wrong:
            failed += 1
            print(f"FAIL: {r['kernel']} D {r['columns']} on {r['target']}: {'; '.join(wrong)} [{r['options']}]")
        else:
            passed += 1
    for i, k in enumerate(known):
        if i not in seen and all(t in whole for t in fnmatch.filter(POSES, k[0])):
            failed += 1
            print(f"FAIL: known.txt: '{' '.join(k[:3])}' is fine by now; take the line out")
    return passed, failed


def compile_all(arguments, tools_of, work):
    """The results, one a kernel; those of `results` are taken from it and added to it, so that it may be run in pieces."""
    path, begun = work / "results", time.time()
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    have, wanted, plain = {(r["key"], r["target"]) for r in done}, [], plain_sources()
    current = set()
    for target in arguments.targets.split(","):
        ranks = defaultdict(int)
        for key, program in programs(work / POSES[target]).items():
            current.add((key, target))
            ranks[program["source"]] += 1
            if (key, target) not in have:
                wanted.append((key, target, program, (program["source"] in plain, ranks[program["source"]])))
    wanted.sort(key=lambda job: job[3])  # rows beside row 0 first, one of each source, then the next: a piece has some of all

    def one(job):
        key, target, program, _ = job
        if time.time() - begun > arguments.seconds:
            return None
        with tempfile.TemporaryDirectory(dir=work) as folder:
            made = compile_for(tools_of(), target, program, Path(folder))
        options = " ".join(f for f in program["flags"] if f.startswith("-D"))
        return [{"key": key, "target": target, "kernel": kernel, "columns": columns(program), "plain": program["source"] in plain,
                 "options": options, "found": found} for kernel, found in made.items()]

    left = 0
    with open(path, "a") as file, ThreadPoolExecutor(arguments.jobs) as pool:
        for made in pool.map(one, wanted):
            left += made is None
            for r in made or []:
                done.append(r)
                file.write(json.dumps(r) + "\n")
            file.flush()
    return [r for r in done if (r["key"], r["target"]) in current], left


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builddir", type=Path)
    parser.add_argument("tools", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--targets", default=",".join(POSES))
    parser.add_argument("--long", action="store_true", help="every family, 64 and 128 columns, F32 and F16; else attention of 64 in F32")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop compiling after so many; run it again for the rest")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="programs at once")
    parser.add_argument("--table", type=Path, help="a file for the whole table")
    a = parser.parse_args()
    work = a.work / ("long" if a.long else "short")
    for pose in sorted({POSES[t] for t in a.targets.split(",")}):
        made, binary = work / pose / "launches", a.builddir / "clsplat"
        if not made.exists() or made.stat().st_mtime < binary.stat().st_mtime:
            shutil.rmtree(work / pose, ignore_errors=True)
            dump(binary, a.builddir / "tests" / "pose.so", pose, work / pose, a.long)
    results, left = compile_all(a, lambda: Tools(a.tools), work)
    lines = list(table(results))
    if a.table:
        a.table.write_text("\n".join(lines) + "\n")
    else:
        print("\n".join(lines))
    print("\n".join(summary(results)))
    passed, failed = judge(results, a.targets.split(",") if a.long and not left else [])
    if left:
        print(f"{left} programs are left; run it again")
    print(f"vendors: {passed} passed, {failed} failed")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
