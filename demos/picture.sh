#!/usr/bin/env bash
# The pictures of the README: where the model beside this script attends to as it reads 4,096 bytes of Python.
# demos/picture.sh [CLSPLAT] writes demos/attention.png, and the page it is a picture of, which opens in any browser, to report.html beside CLSPLAT.
set -euo pipefail
cd "$(dirname "$0")/.."
clsplat=${1:-builddir/clsplat}
"$clsplat" report demos/bytelm-4m demos/bytelm-4m/heldout.txt --context 4096 -o "$(dirname "$clsplat")/report.html" --png demos/attention.png --picture matrix
