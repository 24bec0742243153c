#!/usr/bin/env python3
"""How many lines of the library the suites ran, by floor, and the functions that none of them called.

    coverage.py BUILDDIR

The folder was configured with -Db_coverage=true, and tests ran in it.
"""
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path


def measured(build):
    """{source: ({line: runs}, {function: runs})} of what gcov knows; a header's lines are those of all who include it."""
    sources = defaultdict(lambda: (defaultdict(int), defaultdict(int)))
    for notes in sorted(build.glob("src/**/*.gcno")):
        told = subprocess.run(["gcov", "--json-format", "--stdout", notes.resolve()], cwd=build, capture_output=True, check=True).stdout
        for line in told.splitlines():
            for file in json.loads(line)["files"]:
                path = (build / file["file"]).resolve()
                if "src" not in path.parts:
                    continue
                lines, functions = sources[path]
                for entry in file["lines"]:
                    lines[entry["line_number"]] += entry["count"]
                for entry in file["functions"]:
                    functions[entry["name"]] += entry["execution_count"]
    return sources


def main():
    build, root = Path(sys.argv[1]).resolve(), Path(__file__).resolve().parent.parent / "src"
    floors, idle = defaultdict(lambda: [0, 0]), []
    for path, (lines, functions) in sorted(measured(build).items()):
        if root not in path.parents:
            continue
        name = path.relative_to(root)
        floors[name.parts[0]][0] += sum(count > 0 for count in lines.values())
        floors[name.parts[0]][1] += len(lines)
        idle += [f"{name}: {function}" for function, count in functions.items() if not count]
    print("\n".join(["not called:", *idle, ""]))
    floors["all"] = [sum(counts) for counts in zip(*floors.values())] if floors else [0, 0]
    for floor, (ran, there) in floors.items():
        print(f"{floor:12} {ran:6} of {there:6} lines, {100 * ran / max(there, 1):5.1f} %")
    return 0 if floors["all"][0] else 1


if __name__ == "__main__":
    sys.exit(main())
