#!/bin/sh
# C files are as clang-format writes them, of at most 400 lines, with functions of at most 60.
set -eu
cd "$(dirname "$0")/.."

files=$(find src include tests demos -name '*.[ch]' 2>/dev/null | sort)
failed=0

# shellcheck disable=SC2086  # no path of the repository has a space
clang-format --dry-run -Werror $files || failed=1

for file in $files $(find cl -name '*.cl' -o -name '*.clh' | sort); do
  lines=$(wc -l < "$file")
  if [ "$lines" -gt 400 ]; then
    echo "$file: $lines lines, at most 400"
    failed=1
  fi
  # A function ends at a brace in the first column, and begins at the line before its body's that starts there.
  awk -v file="$file" '
    /^[A-Za-z_].*\{$/ { name = $0; begin = NR }
    /^\}$/ && begin { if (NR - begin >= 60) { print file ":" begin ": " NR - begin + 1 " lines, at most 60: " name; bad = 1 } begin = 0 }
    END { exit bad }' "$file" || failed=1
done
exit $failed
