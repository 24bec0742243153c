#!/usr/bin/env bash
# A language model from nothing, on this machine's own Python files: trained for some minutes, judged on files that it has not
# seen beside xz -9, and asked to go on with a line.
#
#   demos/train.sh [CLSPLAT] [TIME]        build/clsplat and 20m if they are not given
set -euo pipefail
clsplat=${1:-build/clsplat} time=${2:-20m}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/learn" "$work/unseen"

# Every file of the standard library is learned from, but for these packages, which are for judging.
library=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
unseen='asyncio|email|http|json|logging|unittest|xml'
number=0
while read -r file; do
  number=$((number + 1))
  if [[ $file =~ ^$library/($unseen)/ ]]; then cp "$file" "$work/unseen/$number.py"; else cp "$file" "$work/learn/$number.py"; fi
done < <(find "$library" -name '*.py' -not -path '*/site-packages/*' -not -path '*/dist-packages/*' -not -path '*/test*/*' | sort)

cat > "$work/model.json" << 'JSON'
{"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 352, "max_position_embeddings": 1024,
 "training": {"context": 256, "batch_size": 8, "learning_rate": 0.006, "warmup": 0.03}}
JSON
"$clsplat" train "$work/learn" -o "$work/model" --config "$work/model.json" --budget "$time" --validation "$work/unseen"

cat "$work"/unseen/*.py > "$work/all"
head -c 65536 "$work/all" > "$work/judged"
echo
"$clsplat" eval "$work/model" "$work/judged" --context 256
awk -v all="$(xz -9e -c "$work/all" | wc -c)" -v of="$(wc -c < "$work/all")" -v few="$(xz -9e -c "$work/judged" | wc -c)" -v from="$(wc -c < "$work/judged")" \
  'BEGIN { printf "xz -9e: %.4f bits/byte of these 64 KiB, %.4f of all %d bytes that were not seen\n", 8 * few / from, 8 * all / of, of }'
echo
"$clsplat" generate "$work/model" --prompt $'class Parser:\n    def __init__(self' -n 400 --temperature 0.7 --seed 1
