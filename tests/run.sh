#!/usr/bin/env bash
# Installs what is missing, builds, and tests everything there is to test on this machine.
#
#   tests/run.sh [--long] [--no-install] [--list] [STAGE…]
#
# One line per stage; the last line is `N passed, N failed, N skipped`, and the status is 1 if anything failed. What a
# stage printed is in builddir-test/log. A skipped check says why. --long takes larger shapes and more of them. With STAGEs
# these alone are run, and what they are built by; --list names those of this machine.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

tier=normal install=yes mode=run only=()
for argument in "$@"; do
  case $argument in
    --long) tier=long ;;
    --no-install) install=no ;;
    --list) mode=list install=no ;;
    [a-z]*) only+=("$argument") ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done

build=$PWD/builddir-test sanitised=$PWD/builddir-asan
logs=$build/log kept=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/clsplat-tests
mkdir -p "$logs"
limit=30m patience=1
[ $tier = normal ] || limit=6h patience=12
passed=0 failed=0 skipped=0

packages="meson ninja-build gcc pkg-config ocl-icd-opencl-dev pocl-opencl-icd mesa-opencl-icd oclgrind check libjansson-dev
  libxxhash-dev libpopt-dev libpcre2-dev libutf8proc-dev libsentencepiece-dev g++ liblapacke-dev libclblast-dev libcairo2-dev
  openmpi-bin libopenmpi-dev chromium tidy clang clang-format clang-tidy shellcheck python3 python3-numpy"

install_missing() {
  local missing=() root=() package
  for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { "${root[@]}" apt-get update -q && "${root[@]}" apt-get install -qy --no-install-recommends "${missing[@]}"; } \
    > "$logs/apt.log" 2>&1 || { tail -n 5 "$logs/apt.log"; echo "could not install all of it; going on with what there is"; }
}

# The counts in a log: the summary lines of the suites, of the scripts and of check.py, else 1 for the stage itself.
count() { # status log
  awk -v status="$1" '
    / [0-9]+ passed, [0-9]+ failed$/ { passed += $(NF - 3); failed += $(NF - 1); counted = 1 }
    /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { passed += $1; failed += $3; skipped += $5; counted = 1 }
    /^[0-9]+\/[0-9]+ cases pass/ { split($1, n, "/"); passed += n[1]; failed += n[2] - n[1]; counted = 1 }
    /^skipped: / { skipped++ }
    END {
      if (!counted && status == 0 && !skipped) passed = 1
      if (status != 0 && !failed) failed = 1
      print passed + 0, failed + 0, skipped + 0
    }' "$2"
}

# Whether a stage is among those asked for: all if none is.
wanted() { # name
  [ ${#only[@]} -eq 0 ] || [[ " ${only[*]} " == *" $1 "* ]]
}

# Not to be run, it has passed: what depends on it may go on.
stage() { # name command…
  local name=$1 log=$logs/$1.log started=$SECONDS status=0 p f s
  shift
  if [ $mode = list ]; then
    stages+=("$name")
    return 0
  fi
  wanted "$name" || return 0
  "$@" > "$log" 2>&1 < /dev/null || status=$?
  read -r p f s <<< "$(count $status "$log")"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  printf '%-16s %4d passed %3d failed %3d skipped %5d s\n' "$name" "$p" "$f" "$s" $((SECONDS - started))
  grep '^skipped: ' "$log"
  if [ "$f" -gt 0 ]; then
    grep -E ':[FE]:|FAIL|ERROR|rror:|WARNING: |[0-9]+ lines' "$log" | head -n 12 | sed 's/^/  /'
    echo "  more in $log"
  fi
  return $status
}

skip() { # name why
  [ $mode = run ] && wanted "$1" || return 0
  echo "skipped: $1: $2"
  skipped=$((skipped + 1))
}

# No program of a stage may take longer than the whole should.
limited() { # command…
  timeout -k 30 $limit "$@"
}

# Runs suites; if they pass, what PoCL compiled for them is there for the next run on this machine, in whatever checkout: kernels
# are most of the time. Nothing is in it that a later stage kills or damages.
keeping() { # cache command…
  local name=$1
  shift
  "$@" || return
  mkdir -p "$kept" && rm -rf "$kept/$name.new" && cp -r "$POCL_CACHE_DIR" "$kept/$name.new" && rm -rf "${kept:?}/$name" \
    && mv "$kept/$name.new" "$kept/$name"
  return 0
}

# Runs a command on PoCL with a cache folder of its own; words of the form NAME=VALUE before it change the environment. A folder
# that is new begins with what the last run kept, or else with what the suite has compiled: kernels whose text and options are the same
# are the same for devices with smaller groups, but not for those made by another method of PoCL's. Without the library's cache of
# binaries, unless a stage says CLSPLAT_CACHE= since it is about it: for a binary PoCL compiles every kernel of a program a second
# time, for groups of any size. test_program, test_cache, test_replace and test_threads are about it, too, and say so themselves.
on() ( # cache NAME=VALUE… command…
  export XDG_CACHE_HOME=$build/cache/$1 POCL_CACHE_DIR=$build/cache/$1/pocl XDG_DATA_HOME=$build/data
  export CLSPLAT_DEVICE="Portable Computing" CLSPLAT_TEST_TIER=$tier
  export CLSPLAT_CACHE=off
  unset RUSTICL_ENABLE
  mkdir -p "${POCL_CACHE_DIR%/*}"
  for known in "$kept/$1" "$build/cache/pocl/pocl"; do
    if [ ! -d "$POCL_CACHE_DIR" ] && [ -d "$known" ] && [[ " pocl groups32 gpu " == *" $1 "* ]]; then cp -r "$known" "$POCL_CACHE_DIR"; fi
  done
  mkdir -p "$POCL_CACHE_DIR"
  shift
  while [[ $1 == *=* ]]; do
    export "${1?}"
    shift
  done
  if [ "$(type -t "$1")" = function ]; then "$@"; else limited "$@"; fi
)

# Test programs side by side; their output follows, since Meson keeps it in a file.
suites() { # builddir name programs…
  local dir=$1 name=$2 status=0 log=$1/meson-logs/$2.txt again
  shift 2
  meson test -C "$dir" --no-rebuild --timeout-multiplier $patience --logbase "$name" "$@" || status=$?
  # LeakSanitizer's tracer falls, once in a while, over a thread of PoCL's that ends just then: such a run says nothing.
  if [ $status -ne 0 ] && grep -q "LeakSanitizer has encountered a fatal error" "$log"; then
    mapfile -t again < <(sed -n 's|.* / \(test_[a-z_]*\) *FAIL .*|\1|p' "$log" | sort -u)
    sed -i '/ FAIL /d' "$log"
    status=0
    meson test -C "$dir" --no-rebuild --timeout-multiplier $patience --logbase "$name-again" "${again[@]}" || status=$?
    cat "$dir/meson-logs/$name-again.txt"
  fi
  cat "$log"
  return $status
}

configured() { # builddir options…
  local dir=$1
  shift
  [ -f "$dir/build.ninja" ] || meson setup "$dir" -Dbuildtype=debugoptimized "$@" || return
  meson compile -C "$dir"
}

# A process for every row that test_tiny names, for the reasons given there. Unoptimised kernels, since Oclgrind 21.10 does not
# know LLVM's `freeze`; one thread, since with several it finds other things on every run. It exits with 0 whatever it finds.
on_simulator() {
  local rows row gpu how checks environment status=0 findings=$logs/findings
  unset CLSPLAT_DEVICE RUSTICL_ENABLE
  mapfile -t rows < <("$build/tests/test_tiny" --rows)
  [ ${#rows[@]} -gt 0 ] || return
  for row in "${rows[@]}"; do
    read -r row gpu how <<< "$row"
    case $how in
      all) checks=(--build-options -cl-opt-disable --uninitialized) ;;
      races) checks=(--build-options -cl-opt-disable) ;;
      optimised) checks=(--local-mem-size 65536) ;;
      *) echo "test_tiny: row $row: ERROR: what is $how?"; return 1 ;;
    esac
    rm -f "$findings"
    environment=(CLSPLAT_CACHE=off CLSPLAT_TEST_ROW="$row")
    [ "$gpu" = - ] || environment+=(CLSPLAT_TEST_GPU="$gpu")
    limited env "${environment[@]}" oclgrind --num-threads 1 --data-races --check-api "${checks[@]}" \
      --log "$findings" "$build/tests/test_tiny" || status=1
    if [ -s "$findings" ]; then
      echo "row $row: FAIL"
      head -n 40 "$findings"
      status=1
    fi
  done
  return $status
}

has_icd() { ls /etc/OpenCL/vendors/"$1"*.icd > /dev/null 2>&1; }

on_pocl() {
  stage suite on pocl keeping pocl suites "$build" suite
  stage golden on pocl CLSPLAT_CACHE= "${golden[@]}"
  stage golden-far on pocl "${golden[@]}" --cases tests/golden/far
  stage cli on pocl CLSPLAT_CACHE= python3 tests/cli/test_cli.py "$binary"
  if command -v chromium > /dev/null; then
    stage report on pocl python3 tests/report/check.py "$binary"
  else
    skip report "Chromium is not installed: apt-get install chromium tidy"
  fi
  stage kill on pocl CLSPLAT_CACHE= python3 tests/tune/test_kill.py "$binary"
  if [ $tier = long ]; then stage train on pocl python3 tests/train/test_train.py "$binary" --long; else stage train on pocl python3 tests/train/test_train.py "$binary"; fi
  stage encoder on pocl python3 tests/train/test_encoder.py "$binary"
  stage adaptation on pocl python3 tests/train/test_adaptation.py "$binary"
  stage distill on pocl python3 tests/train/test_distill.py "$binary"
  if [ $tier = long ]; then sample=(--all); else sample=(--seconds 60); fi
  stage faults on pocl CLSPLAT_CACHE= python3 tests/trust/faults.py "$binary" "$build/tests" "${sample[@]}"
  stage hostile on pocl CLSPLAT_CACHE= python3 tests/trust/hostile.py "$binary"
  stage damage on pocl CLSPLAT_CACHE= python3 tests/trust/damage.py "$binary" "${sample[@]}"
  stage ranks on pocl python3 tests/parallel/ranks.py "$binary" "$build/tests/group"
  stage install on pocl tests/install.sh "$build"
  stage python on pocl tests/python.sh "$build"
  stage small-groups on groups32 CLSPLAT_TEST_TIER=small POCL_MAX_WORK_GROUP_SIZE=32 keeping groups32 suites "$build" groups32 "${attention[@]}"
  stage small-memory on pocl CLSPLAT_TEST_TIER=small POCL_MEMORY_LIMIT=1 suites "$build" memory1 "${attention[@]}"
  # Kernels of others' matrix units take PoCL a minute each.
  units=(mfma)
  [ $tier = normal ] || units=(wmma mfma dpas8 dpas16)
  for whose in "${units[@]}"; do
    stage "units-$whose" on gpu CLSPLAT_TEST_TIER=small CLSPLAT_TEST_GPU="$whose" CLSPLAT_TEST_ROW=units suites "$build" "units-$whose" test_judged
  done
  stage gpu-rows on gpu CLSPLAT_TEST_TIER=small CLSPLAT_TEST_GPU=0 keeping gpu suites "$build" gpu test_softmax test_op test_tiny
  stage gpu-tiles on gpu CLSPLAT_TEST_TIER=small CLSPLAT_TEST_GPU=0 CK_RUN_CASE=tiles suites "$build" gpu-tiles test_backward
  if [ $tier = long ]; then
    stage families on pocl python3 tests/peers/families.py "$binary"
    stage gguf-files on pocl python3 tests/peers/gguf_files.py "$binary"
    stage unigram on pocl python3 tests/peers/unigram.py "$build"
    stage fuzz limited tests/trust/fuzz.sh 90
    stage long on pocl python3 tests/trust/long.py "$binary" "$build/tests/long"
    # Nothing of PoCL's is compiled for it, and so nothing of PoCL's is reported: there is nothing to suppress.
    if CC=clang CXX=clang++ stage build-threads configured "$build-threads" -Db_sanitize=thread -Db_lundef=false -Ddemos=false; then
      stage threads on threads OCL_ICD_VENDORS="$(echo /etc/OpenCL/vendors/pocl*.icd)" suites "$build-threads" threads test_threads test_group test_queue test_look
    fi
    stage gpu-rows-long on gpu CLSPLAT_TEST_TIER=small CLSPLAT_TEST_GPU=0 suites "$build" gpu-long test_gaussian test_gaussian_bits
    for method in loops loopvec repl; do
      stage "pocl-$method" on $method POCL_WORK_GROUP_METHOD=$method CLSPLAT_TEST_TIER=small suites "$build" $method "${attention[@]}"
    done
  fi
  if stage build-sanitised configured "$sanitised" -Db_sanitize=address,undefined -Db_lundef=false -Ddemos=false \
      -Dc_args=-fno-sanitize-recover=undefined; then
    # PoCL and LLVM keep what they allocate until the process ends: tests/leaks.supp. Others leak from libraries that are
    # unloaded by then, which no suppression can name: only PoCL is shown to the loader. LLVM gives a thread a signal stack of its own,
    # which the sanitiser would unmap as its own when the thread ends.
    small=small
    [ $tier = normal ] || small=$tier
    stage sanitised on pocl CLSPLAT_TEST_TIER=$small OCL_ICD_VENDORS="$(echo /etc/OpenCL/vendors/pocl*.icd)" ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:use_sigaltstack=0 UBSAN_OPTIONS=print_stacktrace=1 \
      LSAN_OPTIONS=suppressions="$PWD/tests/leaks.supp":print_suppressions=0 suites "$sanitised" sanitised
  fi
}

# How much of the library the suites run, on small shapes; the command has scripts of its own, which are not counted.
on_coverage() {
  configured "$build-coverage" -Db_coverage=true -Ddemos=false > /dev/null || return
  find "$build-coverage" -name '*.gcda' -delete
  suites "$build-coverage" coverage > "$logs/coverage-suites.log" || { grep FAIL "$logs/coverage-suites.log"; return 1; }
  python3 tests/coverage.py "$build-coverage"
}

on_rusticl() {
  # Backward kernels do not cut their loops, which end early on llvmpipe: small shapes are right there (golden), others may not be.
  skip rusticl-backward "llvmpipe ends loops after 65,535 iterations"
  stage rusticl on rusticl "${llvmpipe[@]}" suites "$build" rusticl "${forward[@]}"
  stage golden-rusticl on rusticl "${llvmpipe[@]}" "${golden[@]}"
}

# The sample: attention of 64 columns in F32 for two of AMD's and one of Intel's, with their matrix units. All of it takes half an hour.
on_vendors() {
  local tools=$build/vendors/tools sample=(--targets "gfx1030,gfx1100,dg2")
  [ $tier = normal ] || sample=(--long --table "$logs/vendors.table")
  if ! tests/vendors/tools.sh "$tools"; then
    echo "skipped: vendors: no compilers"
    return 0
  fi
  python3 tests/vendors/vendors.py "$build" "$tools" "$build/vendors" "${sample[@]}"
}

# Bits per byte of a small language model over the licence, with the device as it is or posing.
bits_of() { # pose attention…
  limited env CLSPLAT_POSE="$1" "$binary" eval demos/bytelm-4m LICENSE --json --attention "${@:2}" | sed -n 's/.*"bits_per_byte": \([0-9.]*\).*/\1/p'
}

# What works on devices that PoCL poses as: the least there is (groups of 64, 16 KiB of local memory, buffers of 128 MiB and 400 in
# all, no subgroups, fp16 or 64-bit integers), and a CPU with vectors of 4.
on_feigned() {
  local pose attention words here there status=0
  for pose in least arm; do
    echo "$pose:"
    CLSPLAT_POSE=$pose limited "$binary" selftest || status=1
  done
  for attention in softmax "near-far --chunk 64"; do
    read -ra words <<< "$attention"
    here=$(bits_of '' "${words[@]}") there=$(bits_of least "${words[@]}")
    echo "$attention: $here bits a byte, $there on the least"
    awk -v a="$here" -v b="$there" 'BEGIN { exit !(a > 0 && a - b < 1e-3 && b - a < 1e-3) }' || { echo "FAIL: they differ"; status=1; }
  done
  return $status
}

# Suites on all implementations, an hour; Intel's CPU runtime comes by pip.
on_implementations() {
  python3 tests/vendors/implementations.py "$build" "$build/vendors/implementations" --install --table "$logs/implementations.md"
}

forward=(test_softmax test_gaussian test_gaussian_bits test_limits test_guest test_op test_layers test_sample test_window test_model)
attention=("${forward[@]}" test_backward)
llvmpipe=(CLSPLAT_CACHE= RUSTICL_ENABLE=llvmpipe CLSPLAT_DEVICE=llvmpipe CLSPLAT_TEST_TIER=small)
binary=$build/clsplat
golden=(python3 tests/golden/check.py "$binary")
export PYTHONPATH=$PWD/tests/python PYTHONDONTWRITEBYTECODE=1

# Every stage in its order. The first build is made for whatever may follow; of others each says what it builds.
all_stages() {
  stage floors python3 tests/floors.py
  if command -v clang-format > /dev/null; then stage style tests/style.sh; else skip style "clang-format is not installed"; fi
  stage scripts tests/scripts.sh
  stage kernels tests/kernels.sh
  if command -v clang > /dev/null; then
    CC=clang CXX=clang++ stage build-clang configured "$build-clang" -Dwerror=true
  else
    skip build-clang "clang is not installed"
  fi
  stage build configured "$build" -Dwerror=true || return
  if [ $tier = long ] || [ $mode = list ] || [ ${#only[@]} -gt 0 ]; then
    if command -v clang-tidy > /dev/null; then stage tidy tests/tidy.sh "$build"; else skip tidy "clang-tidy is not installed"; fi
  fi
  if has_icd pocl; then on_pocl; else skip pocl "no pocl.icd in /etc/OpenCL/vendors"; fi
  if has_icd rusticl; then on_rusticl; else skip rusticl "no rusticl.icd in /etc/OpenCL/vendors"; fi
  if has_icd pocl; then
    stage feigned on pocl OPENCL_LAYERS="$build/tests/pose.so" on_feigned
    stage vendors on pocl on_vendors
  fi
  if [ $tier = long ] || [ $mode = list ] || [ ${#only[@]} -gt 0 ]; then
    stage implementations on_implementations
    stage coverage on pocl CLSPLAT_TEST_TIER=small on_coverage
  fi
  if command -v oclgrind > /dev/null; then stage oclgrind on_simulator; else skip oclgrind "it is not installed"; fi
}

# What the STAGEs are built by; 2 if there is none of that name.
add_needs() {
  local name
  for name in "${only[@]}"; do
    if [[ " ${stages[*]} " != *" $name "* ]]; then
      echo "there is no stage $name here: tests/run.sh --list names them"
      return 2
    fi
    case $name in
      floors | style | scripts | kernels | build-clang | coverage) ;;
      sanitised) only+=(build build-sanitised) ;;
      threads) only+=(build build-threads) ;;
      *) only+=(build) ;;
    esac
  done
}

[ $install = yes ] && command -v apt-get > /dev/null && install_missing
asked=$mode stages=() mode=list
all_stages
if [ "$asked" = list ]; then
  printf '%s\n' "${stages[@]}"
  exit
fi
add_needs || exit
mode=run
all_stages
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
