#!/bin/sh
# Every kernel through clang without a device: the syntax of OpenCL C 1.2, and code for a GPU (amdgcn) and a virtual
# machine (spir64). Each .cl compiles alone with cl on the include path. `kernels.sh FILE TARGET FLAGS…` compiles one.
set -eu
self=$(realpath "$0")
cd "$(dirname "$self")/../cl"

if [ $# -gt 0 ]; then
  file=$1 target=$2
  shift 2
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if ! clang -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -target "$target" "$@" -I. -Wall -Werror -Wno-pass-failed -Wno-unused-function "$file" 2> "$log"; then
    echo "$file for $target:"
    cat "$log"
    exit 1
  fi
  exit 0
fi

if ! command -v clang > /dev/null; then
  echo "skipped: kernels: clang is not installed"
  exit 0
fi
failed=0

# The files of standard input, as many at a time as there are cores.
each() { # target flags…
  xargs -P "$(nproc)" -I FILE "$self" FILE "$@"
}

# Whether clang makes code for the target at all: an empty kernel tells.
knows() {
  why=$(echo 'kernel void nothing(void) {}' | clang -x cl -cl-std=CL1.2 -target "$1" "$2" -nogpulib -c -o /dev/null - 2>&1)
}

# Variants for one kind of device: a CPU's tiles (near_far_split's take minutes elsewhere), and NVIDIA's assembly.
foreign() { # target
  case $1 in
    amdgcn*) echo '_wide\.cl$|mma\.cl$|near_far_split\.cl$' ;;
    *) echo '_mma\.cl$' ;;
  esac
}

for flag in -UCLSPLAT_FMA -DCLSPLAT_FMA; do
  printf '%s\n' */*.cl | each spir64 "$flag" -fsyntax-only || failed=1
done
echo "syntax: $(echo */*.cl | wc -w) files"

for target in "amdgcn-amd-amdhsa -mcpu=gfx900" "spir64 -emit-llvm"; do
  # shellcheck disable=SC2086  # the target's flags are words
  set -- $target
  if knows "$1" "$2"; then
    files=$(printf '%s\n' */*.cl | grep -vE "$(foreign "$1")")
    echo "$files" | each "$1" "$2" -nogpulib -c -o /dev/null || failed=1
    echo "code for $1: $(echo "$files" | wc -l) files; not for it: $(printf '%s\n' */*.cl | grep -E "$(foreign "$1")" | tr '\n' ' ')"
  else
    echo "skipped: kernels for $1: $(echo "$why" | head -n 1)"
  fi
done
exit $failed
