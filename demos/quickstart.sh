#!/bin/sh
# Attention of a real language model on the OpenCL device of this machine, exactly and through Gaussian splats, and then the
# model itself.
#
#   demos/quickstart.sh
#
# Installs what is missing (Debian, with apt-get), builds into builddir, and compares the two on the queries, keys and
# values of one layer of a small byte-level language model that reads a document of 4,096 bytes. Then the model reads a
# document that it has not seen, looks for facts planted in others, and writes.
set -eu
cd "$(dirname "$0")/.."
build=builddir
layer=demos/bytelm-layer1.safetensors model=demos/bytelm-4m
log=$(mktemp)
work=$(mktemp -d)
trap 'rm -rf "$work" "$log"' EXIT

bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
say() { printf '%s%s%s\n' "$bold" "$1" "$plain"; }

# Runs a command without a word, unless it fails.
quietly() {
  "$@" > "$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "quickstart: this failed: $*" >&2
    exit 1
  }
}

missing=
need() { # package, and a command that succeeds where it is not needed
  package=$1
  shift
  "$@" > /dev/null 2>&1 || missing="$missing $package"
}
has_driver() { [ -n "${OCL_ICD_VENDORS:-}" ] || ls /etc/OpenCL/vendors/*.icd; }

need gcc command -v cc
need libc6-dev test -e /usr/include/stdio.h
need meson command -v meson
need ninja-build command -v ninja
need pkg-config command -v pkg-config
need ocl-icd-opencl-dev pkg-config --exists OpenCL
need libjansson-dev pkg-config --exists jansson
need libxxhash-dev pkg-config --exists libxxhash
need libpopt-dev pkg-config --exists popt
need libpcre2-dev pkg-config --exists libpcre2-8
need libutf8proc-dev pkg-config --exists libutf8proc
need libclblast-dev pkg-config --exists clblast
need liblapacke-dev pkg-config --exists lapacke
need pocl-opencl-icd has_driver

if [ -n "$missing" ]; then
  say "Installing$missing"
  if ! command -v apt-get > /dev/null; then
    echo "quickstart: there is no apt-get here; install what these Debian packages hold, then run this again" >&2
    exit 1
  fi
  root=
  [ "$(id -u)" -eq 0 ] || root=sudo
  quietly $root apt-get update
  # shellcheck disable=SC2086  # a list of packages
  quietly $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
fi

if [ ! -f $build/build.ninja ]; then
  say "Building into $build"
  quietly meson setup $build --buildtype=release -Dwerror=false -Dtests=false
fi
quietly meson compile -C $build
clsplat=$build/clsplat

say "The OpenCL devices here"
$clsplat devices

# A number or a word out of a JSON report.
field() { sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\).*/\1/p" "$2" | head -n 1; }

# One attention of the layer, and how far its output is from the exact one.
attend() { # name flags…
  name=$1
  shift
  $clsplat attend $layer -o "$work/$name" --causal --json "$@" > "$work/$name.json"
  $clsplat compare "$work/$name" "$work/exact" --json | sed -n '/"out"/,/}/p' > "$work/$name.error"
}
row() { # name words
  awk -v seconds="$(field kernel_seconds "$work/$1.json")" -v memory="$(field device_memory_peak "$work/$1.json")" \
    -v error="$(field relative "$work/$1.error")" -v words="$2" \
    'BEGIN { printf "  %-44s %8.1f ms %8.1f MiB %8.1f %%\n", words, 1000 * seconds, memory / 1048576, 100 * error }'
}

# Splats of one level, with the widths that softmax attention asks for.
splats() { # count
  printf '{"levels": ["Token"], "init_splats_per_level": [%d], "level_weights": [1]}' "$1" > "$work/levels.json"
  $clsplat init $layer -o "$work/made" --match softmax --covariance isotropic --config "$work/levels.json" --json > "$work/made.json"
  attend "splats$1" --splats "$work/made"
}

attend exact
attend mean --scale 0
splats 256
splats 1024

echo
say "One layer reading 4,096 bytes: 4 query heads on 2 key heads, D = 64, causal"
printf '  %-44s %11s %12s %10s\n' "" "in kernels" "memory" "error"
row exact "exact softmax attention"
row splats256 "256 Gaussian splats per head"
row splats1024 "1,024 Gaussian splats per head"
row mean "for comparison: the mean of the values so far"
cat << END

error: |out - exact| / |exact|. memory: the most the library held on the device, staged inputs included.
\`clsplat init\` made the 1,024 splats from the keys in $(printf '%.1f' "$(field seconds "$work/made.json")") s; nothing was trained. The layer looks
sharply at single bytes, which so few splats follow only coarsely: the error falls with their number. Their cost
grows linearly with the length, that of exact attention with its square.
END

echo
say "The whole model, of 4.5 million parameters: it reads Python that it has not seen, in windows of 4,096 bytes"
$clsplat eval $model $model/heldout.txt --json > "$work/text.json"
$clsplat eval $model --needles $model/needles.safetensors --json > "$work/needles.json"
printf '  %.4f bits a byte, %.0f bytes a second\n' "$(field bits_per_byte "$work/text.json")" \
  "$(field tokens_per_second "$work/text.json")"
echo "  $(field recalled "$work/needles.json") of $(field of "$work/needles.json") numbers recalled that were planted" \
  "somewhere in 20 other documents"

prompt='def read_lines(path):
    """'
echo
say "It goes on with two lines, drawing from the more probable bytes"
printf '%s' "$prompt"
$clsplat generate $model --prompt "$prompt" --tokens 240 --temperature 0.6 --top-p 0.9
