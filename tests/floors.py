#!/usr/bin/env python3
"""A file of src includes its own floor and lower ones only. Prints every include that reaches up; exits 1 if there is one."""
import re
import sys
from pathlib import Path

FLOORS = ["base", "picture", "format", "runtime", "tune", "op", "splats", "attention", "tuning", "parallel", "adapt", "tokenizer", "model", "train", "report", "cli"]
CONTRACT = "cl/shared/constants.h"  # what the host and the kernels both know
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def complaints(source):
    """Every include of the tree that is not a file of the same or a lower floor."""
    for path in sorted(source.rglob("*.[ch]")):
        floor = path.relative_to(source).parts[0]
        if floor not in FLOORS:
            yield f"{path}: {floor} is not a floor"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            other = match[1].split("/")[0]
            if match[1] == CONTRACT and FLOORS.index(floor) >= FLOORS.index("op"):
                continue
            if not (source / match[1]).is_file():
                yield f'{path}:{number}: "{match[1]}" is not a path from src/'
            elif FLOORS.index(other) > FLOORS.index(floor):
                yield f'{path}:{number}: {floor} includes "{match[1]}" from the higher floor {other}'


def main():
    source = Path(__file__).resolve().parent.parent / "src"
    found = list(complaints(source))
    print("\n".join(found), end="\n" if found else "")
    files = len(list(source.rglob("*.[ch]")))
    print(f"{files} files, {len(found)} includes that reach up")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
