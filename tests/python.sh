#!/bin/sh
# The Python package, put together from the tree, beside the library of a build folder; what needs PyTorch or transformers is skipped
# where they are not installed.   python.sh BUILDDIR
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
package=$build/python
failed=0
rm -rf "$package"
mkdir -p "$package"
cp -r src/python/clsplat "$package"
python3 src/python/binding.py include/clsplat > "$package/clsplat/_c.py"
export PYTHONPATH="$package" CLSPLAT_LIBRARY="$build/src/libclsplat.so" CLSPLAT_COMMAND="$build/clsplat"

for test in tests/python/package/test_*.py; do
  echo "$test"
  python3 "$test" || failed=1
done
# What needs pip, and what is there in a fresh environment. Both say where it is not to be had.
if [ "${CLSPLAT_TEST_TIER:-}" = long ]; then
  echo "transformers' own test"
  python3 tests/python/package/theirs.py || failed=1
  echo "a fresh environment"
  tests/python/fresh.sh "$build/fresh" || failed=1
fi
exit $failed
