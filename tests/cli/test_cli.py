#!/usr/bin/env python3
"""The command line: what it must do, and every kind of bad input that it must refuse.   test_cli.py PATH_TO_CLSPLAT

Prints one line per failing check and ends with `N passed, N failed, N skipped`; exits 1 if anything failed.
"""
import os
import sys
import tempfile
from pathlib import Path

import adapting
import bad_input
import encoder
import field
import good_paths
import language
import speed
import tuning
from bench import Bench


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("   ")[1].splitlines()[0])
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(sys.argv[1]).resolve(), Path(folder))
        bad_input.run(bench)
        good_paths.run(bench)
        adapting.run(bench)
        language.run(bench)
        field.run(bench)
        encoder.run(bench)
        speed.run(bench)
        tuning.run(bench, dict(os.environ))
        return bench.summary()


if __name__ == "__main__":
    sys.exit(main())
