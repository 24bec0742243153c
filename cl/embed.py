#!/usr/bin/env python3
"""Turns the kernels of a folder into a C file: embed.py OUT.c OUT.d FOLDER FILE.cl …

Quoted includes are paths from the folder. They are expanded in place, each once per kernel file, with #line marks so that
a driver's build log names the line a person can open. Every .cl compiles alone with the folder on the include path, too.
OUT.d tells the build which files were read.
"""
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def expand(path, folder, seen):
    """The lines of path with its includes in place."""
    yield f'#line 1 "{path.name}"'
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            yield line
            continue
        include = folder / match[1]
        if include not in seen:
            seen.add(include)
            yield from expand(include, folder, seen)
        yield f'#line {number + 1} "{path.name}"'


def literal(line):
    return '    "' + line.replace("\\", "\\\\").replace('"', '\\"') + '\\n"'


def main():
    out, dependencies, folder, files = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), [Path(f) for f in sys.argv[4:]]
    lines = ["/* Made by cl/embed.py from the files of cl/. */", '#include "runtime/program.h"', "",
             "const embedded_source embedded_sources[] = {"]
    read = set(files)
    for path in files:
        seen = set()
        lines.append(f'    {{"{path.name}",')
        lines.extend(literal(line) for line in expand(path, folder, seen))
        lines[-1] += "},"
        read |= seen
    lines += ["};", f"const size_t embedded_source_count = {len(files)};", ""]
    out.write_text("\n".join(lines))
    dependencies.write_text(f"{out}: " + " ".join(str(path).replace(" ", "\\ ") for path in sorted(read)) + "\n")


if __name__ == "__main__":
    main()
