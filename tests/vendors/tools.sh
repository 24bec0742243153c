#!/bin/sh
# The compilers of other vendors, unpacked from Debian's packages into a folder; nothing is installed.
#
#   tests/vendors/tools.sh FOLDER
#
# Prints why if it cannot. What is there already is not fetched again.
set -eu
packages="clang-22 libclang-cpp22 libllvm22 libclang-common-22-dev libclc-22 lld-22 llvm-22
  intel-opencl-icd libigc1 libigdfcl1 libopencl-clang14 libllvmspirvlib14 libigdgmm12
  clang-15 libclang-cpp15 libllvm15 libclang-common-15-dev llvm-spirv-15 libllvmspirvlib15 spirv-tools"
mkdir -p "$1/packages"
cd "$1/packages"
for package in $packages; do
  if ! [ -e "$package.done" ]; then
    apt-get download -q "$package" > log 2>&1 || {
      echo "$package cannot be downloaded: $(tail -n 1 log)"
      exit 1
    }
    dpkg -x "$package"_*.deb ..
    rm "$package"_*.deb
    : > "$package.done"
  fi
done
