#!/usr/bin/env python3
"""Turns kernels into a C file: embed.py OUT.c FILE.cl …

Quoted includes are expanded in place, each once per kernel file, with #line marks so that a driver's build log names the
line a person can open. Every .cl compiles alone with its own folder on the include path, too.
"""
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def expand(path, seen):
    """The lines of path with its includes in place."""
    yield f'#line 1 "{path.name}"'
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            yield line
            continue
        include = path.parent / match[1]
        if include not in seen:
            seen.add(include)
            yield from expand(include, seen)
        yield f'#line {number + 1} "{path.name}"'


def literal(line):
    return '    "' + line.replace("\\", "\\\\").replace('"', '\\"') + '\\n"'


def main():
    out, files = Path(sys.argv[1]), [Path(f) for f in sys.argv[2:]]
    lines = ["/* Made by cl/embed.py from the files of cl/. */", '#include "runtime/program.h"', "",
             "const embedded_source embedded_sources[] = {"]
    for path in files:
        lines.append(f'    {{"{path.name}",')
        lines.extend(literal(line) for line in expand(path, set()))
        lines[-1] += "},"
    lines += ["};", f"const size_t embedded_source_count = {len(files)};", ""]
    out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
