#!/bin/sh
# The checks of .clang-tidy over the library, the command and the demos, as a build folder compiles them.
#
#   tests/tidy.sh BUILDDIR
set -eu
cd "$(dirname "$0")/.."
git ls-files 'src/*.c' 'demos/*.c' | xargs -n 8 -P "$(nproc)" \
  clang-tidy -p "$1" --quiet --extra-arg=-Wno-unknown-warning-option
