#!/usr/bin/env python3
"""Nothing is too long: files of at most 400 lines, functions of at most 60, kernels on matrix units of at most 100, lines of
cl of at most 120 columns. Prints what is; the status is 1 then.
"""
import re
import sys
from pathlib import Path

FILE, FUNCTION, MATRIX_UNITS, COLUMNS = 400, 60, 100, 120

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
    """What is wrong with one file."""
    lines = (root / path).read_text().splitlines()
    if len(lines) > FILE:
        yield f"{path}: {len(lines)} lines, at most {FILE}"
    most = MATRIX_UNITS if "mma" in path else FUNCTION
    for name, begin, length in functions(lines):
        if length > most:
            yield f"{path}:{begin}: {name} has {length} lines, at most {most}"
    for number, line in enumerate(lines, 1):
        if path.startswith("cl/") and len(line) > COLUMNS:
            yield f"{path}:{number}: {len(line)} columns, at most {COLUMNS}"


def main():
    root = Path(__file__).resolve().parent.parent
    files = sorted(p for folder in ("src", "include", "tests", "demos", "cl") for p in (root / folder).rglob("*")
                   if p.suffix in (".c", ".h", ".cl", ".clh"))
    found = [words for path in files for words in complaints(root, path.relative_to(root).as_posix())]
    print("\n".join(found), end="\n" if found else "")
    print(f"{len(files)} files, {len(found)} too long")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
