#!/bin/sh
# Every kernel through clang without a device: the syntax of OpenCL C 1.2, and code for a GPU (amdgcn) and a virtual
# machine (spir64). Each .cl compiles alone with its own folder on the include path.
set -eu
cd "$(dirname "$0")/../cl"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0

if ! command -v clang > /dev/null; then
  echo "skipped: kernels: clang is not installed"
  exit 0
fi

# Whether clang makes code for the target at all: an empty kernel tells.
knows() {
  echo 'kernel void nothing(void) {}' | clang -x cl -cl-std=CL1.2 -target "$1" "$2" -nogpulib -c -o "$out/empty" - 2> "$out/why"
}

compile() { # file target flags…
  file=$1 target=$2
  shift 2
  if ! clang -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -target "$target" "$@" -I. -Wall -Werror -Wno-pass-failed -Wno-unused-function "$file" 2> "$out/log"; then
    echo "$file for $target:"
    cat "$out/log"
    failed=1
  fi
}

for file in *.cl; do
  compile "$file" spir64 -fsyntax-only
  compile "$file" spir64 -DCLSPLAT_FMA -fsyntax-only
done
echo "syntax: $(echo *.cl | wc -w) files"

# Variants for one kind of device: *_wide.cl keeps a CPU's tile, *_mma.cl is in NVIDIA's assembly.
foreign() { # file target
  case $1-$2 in
    *_wide.cl-amdgcn* | *_mma.cl-*) true ;;
    *) false ;;
  esac
}

for target in "amdgcn-amd-amdhsa -mcpu=gfx900" "spir64 -emit-llvm"; do
  # shellcheck disable=SC2086  # the target's flags are words
  set -- $target
  if knows "$1" "$2"; then
    count=0
    for file in *.cl; do
      if foreign "$file" "$1"; then
        echo "not for $1: $file"
      else
        compile "$file" "$1" "$2" -nogpulib -c -o "$out/code"
        count=$((count + 1))
      fi
    done
    echo "code for $1: $count files"
  else
    echo "skipped: kernels for $1: $(head -n 1 "$out/why")"
  fi
done
exit $failed
