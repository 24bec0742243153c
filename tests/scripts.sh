#!/bin/sh
# Shell scripts through shellcheck, Python ones through ruff: what is wrong, not what is a matter of taste.
set -eu
cd "$(dirname "$0")/.."
failed=0

if command -v shellcheck > /dev/null; then
  shellcheck .ci/run demos/*.sh tests/*.sh tests/python/*.sh || failed=1
else
  echo "skipped: shellcheck: it is not installed"
fi
if command -v ruff > /dev/null; then
  ruff check --isolated --no-cache --exclude 'builddir*' --select E4,E7,E9,F,EXE --ignore E731 || failed=1
else
  echo "skipped: ruff: it is not installed"
fi
exit $failed
