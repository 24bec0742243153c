#!/usr/bin/env bash
# Fuzzes every reader of files: tests/trust/fuzz.sh SECONDS [TARGET…]
#
# Builds the library with clang, libFuzzer and AddressSanitizer in builddir-fuzz, checks that each target's seeds are accepted,
# then gives each target its SECONDS. What broke one is kept in builddir-fuzz/TARGET. The last line counts targets.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
seconds=${1:?how many seconds for each target?}
shift
declare -A seeds=(
  [safetensors]="tests/golden/*/splats.safetensors tests/model/llama/golden.safetensors"
  [splats]="tests/golden/*/splats.safetensors"
  [hierarchy]="tests/trust/seeds/hierarchy*.json"
  [config]="tests/model/*/config.json demos/bytelm-4m/config.json"
  [tokenizer]="tests/model/tokenizers/*/tokenizer.json"
  [sentencepiece]="tests/model/tokenizers/*/tokenizer.model"
  [records]="cl/tuning.txt"
  [gguf]="tests/model/tokenizers/*/tokenizer.gguf"
  [ggufmodel]="tests/trust/seeds/model.gguf"
)
targets=("$@")
[ $# -gt 0 ] || targets=("${!seeds[@]}")
build=builddir-fuzz
command -v clang > /dev/null || { echo "skipped: fuzzing: clang is not installed"; exit 0; }
mkdir -p $build
[ -f $build/build.ninja ] || CC=clang CXX=clang++ meson setup $build -Dbuildtype=debugoptimized -Dwerror=false -Db_sanitize=address \
  -Db_lundef=false -Ddemos=false -Dc_args=-fsanitize=fuzzer-no-link -Dcpp_args=-fsanitize=fuzzer-no-link > $build/build.log || exit
ninja -C $build src/libclsplat.a > $build/build.log || { tail $build/build.log; exit 1; }

mapfile -t libraries < <(pkg-config --libs OpenCL jansson libxxhash libpcre2-8 libutf8proc sentencepiece clblast 2> /dev/null | tr ' ' '\n' | grep .)
passed=0 failed=0
for target in "${targets[@]}"; do
  mkdir -p "$build/$target/corpus"
  clang -std=c17 -D_GNU_SOURCE -DCL_TARGET_OPENCL_VERSION=120 -DTARGET="read_$target" -g -O1 -fsanitize=fuzzer,address -I. -Iinclude -Isrc -Itests \
    -o "$build/$target/fuzz" tests/trust/fuzz.c $build/src/libclsplat.a "${libraries[@]}" -lstdc++ -lm -ldl -lpthread || exit
  # shellcheck disable=SC2086  # a list of patterns
  set -- ${seeds[$target]}
  if ! CLSPLAT_FUZZ_SEED=1 "$build/$target/fuzz" "$@" > "$build/$target/seeds.log" 2>&1; then
    echo "FAIL: $target: $(grep -m 1 refused "$build/$target/seeds.log" || tail -n 1 "$build/$target/seeds.log")"
    failed=$((failed + 1))
    continue
  fi
  for seed in "$@"; do cp "$seed" "$build/$target/corpus/$(echo "$seed" | tr / _)"; done
  if "$build/$target/fuzz" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 \
      -artifact_prefix="$build/$target/" "$build/$target/corpus" > "$build/$target/log" 2>&1; then
    passed=$((passed + 1))
    echo "$target: $# seeds, $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$target/log") inputs"
  else
    failed=$((failed + 1))
    echo "FAIL: $target: $(grep -m 1 -E 'ERROR|SUMMARY' "$build/$target/log")"
  fi
done
rm -rf /tmp/clsplat-fuzz-*
echo "fuzz: $passed passed, $failed failed"
[ $failed -eq 0 ]
