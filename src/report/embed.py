#!/usr/bin/env python3
"""Turns text files into a C file of strings: embed.py OUT.c FILE…; page.css becomes `const char page_css[]`."""
import sys
from pathlib import Path


def literal(line):
    return '    "' + line.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?") + '\\n"'


def main():
    out, files = Path(sys.argv[1]), [Path(f) for f in sys.argv[2:]]
    lines = ["/* Made by src/report/embed.py. */", '#include "report/page.h"']
    for path in files:
        lines.append(f"const char {path.name.replace('.', '_')}[] =")
        lines.extend(literal(line) for line in path.read_text(encoding="ascii").splitlines())
        lines[-1] += ";"
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
