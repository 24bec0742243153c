#!/usr/bin/env python3
"""Nothing is too long: files of at most 400 lines, functions of at most 60, kernels on matrix units of at most 100, lines of
cl of at most 120 columns. Prints what is; the status is 1 then.
"""
import re
import sys
from pathlib import Path

FILE, FUNCTION, MATRIX_UNITS, COLUMNS = 400, 60, 100, 120

# What is not there yet. An entry that is no longer needed is a complaint too, so that the list only shrinks.
LONG_FILES = set()
LONG_LINES = {"cl/tree/covariance.cl", "cl/tree/near_far.cl", "cl/tree/near_far_split.cl", "cl/tree/near_far_wide.cl"}
LONG_FUNCTIONS = {"gather_covariances"}

# A head begins in the first column and is no statement, label or declaration; a function ends at a brace that stands there.
HEAD = re.compile(r"[A-Za-z_](?!.*;$)(?![a-z_]*:$)")
NAME = re.compile(r"(\w+)\(")


def functions(lines):
    """(name, line of its head, number of lines) of every function."""
    begin = None
    for number, line in enumerate(lines):
        if HEAD.match(line):
            begin = number
        elif line == "}" and begin is not None:
            head = re.sub(r"__attribute__\(\(.*?\)\)\)", "", " ".join(lines[begin:number]))
            yield NAME.search(head)[1] if NAME.search(head) else "?", begin + 1, number - begin + 1
            begin = None
        elif re.match("[A-Za-z_].*;$", line):
            begin = None


def complaints(root, path):
    """(the exception that would allow it, its list, what is wrong) of one file."""
    lines = (root / path).read_text().splitlines()
    if len(lines) > FILE:
        yield path, LONG_FILES, f"{path}: {len(lines)} lines, at most {FILE}"
    most = MATRIX_UNITS if "mma" in path else FUNCTION
    for name, begin, length in functions(lines):
        if length > most:
            yield name, LONG_FUNCTIONS, f"{path}:{begin}: {name} has {length} lines, at most {most}"
    for number, line in enumerate(lines, 1):
        if path.startswith("cl/") and len(line) > COLUMNS:
            yield path, LONG_LINES, f"{path}:{number}: {len(line)} columns, at most {COLUMNS}"


def main():
    root = Path(__file__).resolve().parent.parent
    files = sorted(p for folder in ("src", "include", "tests", "demos", "cl") for p in (root / folder).rglob("*")
                   if p.suffix in (".c", ".h", ".cl", ".clh"))
    found, used = [], set()
    for path in files:
        for name, allowed, words in complaints(root, path.relative_to(root).as_posix()):
            if name in allowed:
                used.add((id(allowed), name))
            else:
                found.append(words)
    for allowed in (LONG_FILES, LONG_LINES, LONG_FUNCTIONS):
        found += [f"tests/lengths.py: {name} needs no exception any more" for name in allowed if (id(allowed), name) not in used]
    print("\n".join(found), end="\n" if found else "")
    print(f"{len(files)} files, {len(found)} too long")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
