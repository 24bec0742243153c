#!/bin/sh
# A program outside the tree, built and run (1) against the library as `meson install` puts it, found through pkg-config,
# and (2) in a project that has this one as a Meson subproject.   install.sh BUILDDIR
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

DESTDIR=$work/root meson install -C "$build" --no-rebuild > "$work/log" || { cat "$work/log"; exit 1; }
pc=$(find "$work/root" -name clsplat.pc)
libdir=$(dirname "$(find "$work/root" -name 'libclsplat.so.0')")
flags=$(PKG_CONFIG_SYSROOT_DIR=$work/root PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs clsplat)
# shellcheck disable=SC2086  # the flags are words
cc -std=c17 -Wall -Wextra -Wpedantic -Werror tests/install/outside.c -o "$work/outside" $flags -lm
LD_LIBRARY_PATH=$libdir "$work/outside"
test "$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --modversion clsplat)" = \
  "$(LD_LIBRARY_PATH=$libdir "$work/outside" | sed 's/^clsplat \([^:]*\):.*/\1/')"

# Every header alone, as C and as C++, with OpenCL's headers and without.
headers=$(dirname "$(find "$work/root" -name clsplat.h)")
for header in "$headers"/*.h; do
  if [ "$(basename "$header")" = mpi.h ]; then continue; fi # wants MPI's
  for language in c c++; do
    for without in -UCLSPLAT_WITHOUT_CL -DCLSPLAT_WITHOUT_CL; do
      echo "#include <clsplat/$(basename "$header")>" > "$work/alone"
      cc -x $language -std=${language}17 $without -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$headers/.." "$work/alone"
    done
    if cc -x $language -DCLSPLAT_WITHOUT_CL -I "$headers/.." -M "$work/alone" | grep -q 'CL/cl'; then
      echo "$header includes OpenCL's headers though CLSPLAT_WITHOUT_CL is defined"
      exit 1
    fi
  done
done

# Hidden visibility: the library exports the public names and nothing else.
foreign=$(nm -D --defined-only "$libdir/libclsplat.so.0" | awk '{ print $3 }' | grep -v '^clsplat_' || true)
if [ -n "$foreign" ]; then
  echo "libclsplat.so exports names that are not clsplat_*: $foreign"
  exit 1
fi

mkdir -p "$work/parent/subprojects/clsplat"
cp -r meson.build meson_options.txt include src cl "$work/parent/subprojects/clsplat"
cp tests/install/outside.c "$work/parent"
cat > "$work/parent/meson.build" << 'MESON'
project('parent', 'c', default_options: ['c_std=c17'])
subproject('clsplat')
executable('outside', 'outside.c', dependencies: [dependency('clsplat'), meson.get_compiler('c').find_library('m')])
MESON
{ meson setup "$work/parent/build" "$work/parent" && meson compile -C "$work/parent/build"; } > "$work/log" ||
  { cat "$work/log"; exit 1; }
"$work/parent/build/outside"
